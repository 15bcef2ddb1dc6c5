/*
 * What a tokenizer is made of; shared by the files that read it, encode and
 * decode with it.
 */
#ifndef MMQI_TEXT_TOKENIZER_PARTS_H
#define MMQI_TEXT_TOKENIZER_PARTS_H

#include "text/added.h"
#include "text/bpe.h"
#include "text/stage.h"
#include "text/tokenizer.h"
#include "text/unigram.h"

enum {
    MMQI_MAX_TOKENIZER_BYTES = 1 << 28, /* of a tokenizer.json */
    MMQI_MAX_TEXT_BYTES = 1 << 28       /* of a text, before and after every stage */
};

struct mmqi_tokenizer {
    struct mmqi_bpe bpe;          /* its vocabulary is the model's, whichever that is */
    struct mmqi_unigram *unigram; /* NULL: a BPE */
    struct mmqi_added added;
    struct mmqi_stages normalizer, pre_tokenizer, post_processor, decoder;
    int32_t vocab_size;
    /* The text behind an added token is no new beginning, unless the token has MMQI_ADDED_BREAK:
     * normalizers that mark beginnings leave it alone. */
    bool begins_once;
};

/* As mmqi_tokenizer_content(), with the length: a token may hold zero bytes. */
const char *mmqi_tokenizer_text(const struct mmqi_tokenizer *tokenizer, int32_t id, size_t *size);

/* Once vocabulary, normalizers and added tokens are there: checks the added tokens, makes the
 * patterns that find them, counts the ids. `name` is the file. Again after more were added. */
int32_t mmqi_tokenizer_finish(struct mmqi_tokenizer *tokenizer, const char *name);

/* Run the normalizers on `text`, which goes on behind an added token or begins. The result is in one of the two buffers, or `text` itself where
 * there are none. */
int32_t mmqi_tokenizer_normalize(const struct mmqi_tokenizer *tokenizer, bool inside,
                                 struct mmqi_buf pair[2], const char **text, size_t *size);

#endif
