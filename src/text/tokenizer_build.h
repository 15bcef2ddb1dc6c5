/*
 * Making a tokenizer of a file that is no tokenizer.json: what the readers
 * of such files share.
 */
#ifndef MMQI_TEXT_TOKENIZER_BUILD_H
#define MMQI_TEXT_TOKENIZER_BUILD_H

#include "text/tokenizer_files.h"
#include "text/tokenizer_parts.h"

/* An empty tokenizer, for a file of so many bytes, which are bounded. */
int32_t mmqi_build_begin(struct mmqi_tokenizer **out, const char *name, size_t size);

/*
 * Vocabulary, model and stages are there: add the folder's tokens (`extras`
 * may be NULL), the ids around a text, and make it ready. `bos` and `eos`
 * are the file's, -1 where it has none; the first is put before a text
 * unless `extras` says otherwise, the second after it only if they say so.
 */
int32_t mmqi_build_finish(struct mmqi_tokenizer *tokenizer, const char *name,
                          const struct mmqi_tokenizer_extras *extras, int32_t bos, int32_t eos);

/* A special token that files of this kind have, unless `extras` tell of another of this id or
 * text. */
int32_t mmqi_build_add_special(struct mmqi_tokenizer *tokenizer, const char *name,
                               const struct mmqi_tokenizer_extras *extras, const char *text,
                               int64_t id);

/* ---- vocabularies of byte strings, each with a rank: tiktoken, tekken ---- */

/* A token that is any bytes; among each other they are merged in order of `id`. */
int32_t mmqi_build_add_rank(struct mmqi_tokenizer *tokenizer, const char *name, const char *bytes,
                            size_t size, int64_t id);
/*
 * When all are there: the merges, the pattern that cuts a text into words (a
 * regular expression), and the stages around them. `nfc`: texts are composed
 * first. Every byte must be a token.
 */
int32_t mmqi_build_ranks(struct mmqi_tokenizer *tokenizer, const char *name, const char *pattern,
                         size_t pattern_size, bool nfc);

/* Decode base64 with its padding; false where it is none. `out` has room for size / 4 * 3 bytes. */
bool mmqi_base64_decode(unsigned char *out, size_t *out_size, const char *text, size_t size);

#endif
