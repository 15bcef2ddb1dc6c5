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

enum {
    MMQI_MAX_TOKENIZER_BYTES = 1 << 28, /* of a tokenizer.json */
    MMQI_MAX_TEXT_BYTES = 1 << 28       /* of a text, before and after every stage */
};

struct mmqi_tokenizer {
    struct mmqi_bpe bpe;
    struct mmqi_added added;
    struct mmqi_stages normalizer, pre_tokenizer, post_processor, decoder;
    int32_t vocab_size;
};

/* As mmqi_tokenizer_content(), with the length: a token may hold zero bytes. */
const char *mmqi_tokenizer_text(const struct mmqi_tokenizer *tokenizer, int32_t id, size_t *size);

/* Run the normalizers on `text`. The result is in one of the two buffers, or `text` itself where
 * there are none. */
int32_t mmqi_tokenizer_normalize(const struct mmqi_tokenizer *tokenizer, struct mmqi_buf pair[2],
                                 const char **text, size_t *size);

#endif
