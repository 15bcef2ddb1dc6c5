/*
 * Making a tokenizer of a file that is no tokenizer.json: what the readers
 * of such files share.
 */
#ifndef MMQI_TEXT_TOKENIZER_BUILD_H
#define MMQI_TEXT_TOKENIZER_BUILD_H

#include "io/settings.h"
#include "text/tokenizer_parts.h"

/*
 * Each fills an empty tokenizer, all but the finish, from a whole file, which
 * is not kept. `name` opens messages; `config` is tokenizer_config.json or NULL.
 */
int32_t mmqi_tokenizer_read_sentencepiece(struct mmqi_tokenizer *tokenizer, const char *name,
                                          const struct mmqi_settings *config, const char *data,
                                          size_t size);
/* Lines "BASE64 RANK". */
int32_t mmqi_tokenizer_read_qwen(struct mmqi_tokenizer *tokenizer, const char *name,
                                 const struct mmqi_settings *config, const char *data, size_t size);
int32_t mmqi_tokenizer_read_llama3(struct mmqi_tokenizer *tokenizer, const char *name,
                                   const struct mmqi_settings *config, const char *data,
                                   size_t size);
int32_t mmqi_tokenizer_read_tekken(struct mmqi_tokenizer *tokenizer, const char *name,
                                   const struct mmqi_settings *config, const char *data,
                                   size_t size);
/* Does the file begin with a line "BASE64 RANK"? */
bool mmqi_tokenizer_is_tiktoken(const char *data, size_t size);

/* ---- for these readers ---- */

/*
 * The ids around a text, when the tokens are there: before it that of
 * "bos_token", unless "add_bos_token" is false; after it that of "eos_token",
 * if "add_eos_token" is true. `bos` and `eos` are the file's own, for a
 * config without such keys; -1: it has none.
 */
int32_t mmqi_build_around(struct mmqi_tokenizer *tokenizer, const char *name,
                          const struct mmqi_settings *config, int32_t bos, int32_t eos);

/* A special token that files of this kind have; the config may list another text for its id. */
int32_t mmqi_build_add_special(struct mmqi_tokenizer *tokenizer, const char *name,
                               const struct mmqi_settings *config, const char *text, int64_t id);

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
