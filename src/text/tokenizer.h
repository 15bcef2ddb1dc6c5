/*
 * tokenizer.json, as the tokenizers library runs it.
 *
 * A tokenizer is immutable after loading; any thread may use it. Stages
 * (normalizer, pre-tokenizer, model, post-processor, decoder) are rows of a
 * table of stage kinds; a kind that is not in the table is
 * MMQ_ERR_UNSUPPORTED and is named with its place in the file.
 */
#ifndef MMQI_TEXT_TOKENIZER_H
#define MMQI_TEXT_TOKENIZER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct mmqi_tokenizer;

/* `text` is the whole tokenizer.json and is not kept. */
int32_t mmqi_tokenizer_parse(struct mmqi_tokenizer **out, const char *name, const char *text,
                             size_t size);
void mmqi_tokenizer_free(struct mmqi_tokenizer *tokenizer); /* accepts NULL */

int32_t mmqi_tokenizer_vocab_size(
    const struct mmqi_tokenizer *tokenizer); /* highest id + 1, added tokens included */
int32_t mmqi_tokenizer_id(const struct mmqi_tokenizer *tokenizer,
                          const char *content); /* of a whole token; -1 */
bool mmqi_tokenizer_is_special(const struct mmqi_tokenizer *tokenizer, int32_t id);
/* The token as the file spells it ("Ġthe", "▁the"); NULL for an unknown id. */
const char *mmqi_tokenizer_content(const struct mmqi_tokenizer *tokenizer, int32_t id);

enum {
    MMQI_TOKENIZE_POST = 1,  /* run the post-processor: add_special_tokens=True */
    MMQI_TOKENIZE_PLAIN = 2, /* text of added tokens marked special inside `text` stays text */
    MMQI_TOKENIZE_MARKED = 4 /* so do places with a mark (text/mark.h), which is taken out */
};

struct mmqi_ids {
    int32_t *data; /* freed with mmqi_free() */
    size_t n, capacity;
};

int32_t mmqi_ids_append(struct mmqi_ids *ids, const int32_t *data, size_t n);

/* Append the ids of `text` (any bytes; what is not UTF-8 is read as U+FFFD per maximal invalid
 * part). */
int32_t mmqi_tokenizer_encode(const struct mmqi_tokenizer *tokenizer, struct mmqi_ids *ids,
                              const char *text, size_t size, int32_t flags);

/*
 * Decoding as a stream: feed ids one by one, take text that will not change
 * any more; the pieces concatenate to decode(ids). Bytes that may yet become
 * a character are held until they do or cannot. Ids outside the vocabulary give nothing.
 */
struct mmqi_decoder;
int32_t mmqi_decoder_create(struct mmqi_decoder **out, const struct mmqi_tokenizer *tokenizer,
                            bool skip_special);
void mmqi_decoder_free(struct mmqi_decoder *decoder); /* accepts NULL */
/* Text that became final, valid until the next call on this decoder; *text is "" when there is
 * none. */
int32_t mmqi_decoder_feed(struct mmqi_decoder *decoder, int32_t id, const char **text,
                          size_t *size);
int32_t mmqi_decoder_finish(struct mmqi_decoder *decoder, const char **text,
                            size_t *size); /* what was held back */

/* All at once; *out is freed with mmqi_free(). */
int32_t mmqi_tokenizer_decode(const struct mmqi_tokenizer *tokenizer, char **out, size_t *size,
                              const int32_t *ids, size_t n, bool skip_special);

#endif
