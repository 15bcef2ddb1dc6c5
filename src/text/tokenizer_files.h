/*
 * The files in which a folder's tokenizer may come, each made into the same
 * tokenizer: tokenizer.json, tekken.json, tokenizer.model (SentencePiece or
 * tiktoken, told apart by content), qwen.tiktoken.
 *
 * The files but the first say nothing of tokens that were added later:
 * those come from tokenizer_config.json and added_tokens.json beside them.
 */
#ifndef MMQI_TEXT_TOKENIZER_FILES_H
#define MMQI_TEXT_TOKENIZER_FILES_H

#include "text/added.h"
#include "text/tokenizer.h"

struct mmqi_store;

/* What other files of the folder say; all zeros where there are none, but for `add_bos`. */
struct mmqi_tokenizer_extras {
    struct mmqi_added added; /* tokens by id with their flags; its matchers stay empty */
    char *bos, *eos;         /* the texts of these tokens; NULL: as the vocabulary has them */
    bool no_bos, add_eos;    /* what MMQI_TOKENIZE_POST does */
    bool begins_once;        /* "legacy": false, see struct mmqi_tokenizer */
};

void mmqi_tokenizer_extras_free(struct mmqi_tokenizer_extras *extras);
/* tokenizer_config.json and added_tokens.json; `name` opens messages. They may be read in any order
 * and must agree. */
int32_t mmqi_tokenizer_extras_read_config(struct mmqi_tokenizer_extras *extras, const char *name,
                                          const char *text, size_t size);
int32_t mmqi_tokenizer_extras_read_added(struct mmqi_tokenizer_extras *extras, const char *name,
                                         const char *text, size_t size);

/*
 * Each makes a tokenizer of a whole file in memory, which is not kept; `name`
 * opens messages. As from mmqi_tokenizer_parse(), *out is NULL after a failure.
 */
int32_t mmqi_tokenizer_parse_sentencepiece(struct mmqi_tokenizer **out, const char *name,
                                           const char *data, size_t size,
                                           const struct mmqi_tokenizer_extras *extras);
/* Lines "BASE64 RANK". */
int32_t mmqi_tokenizer_parse_qwen(struct mmqi_tokenizer **out, const char *name, const char *data,
                                  size_t size, const struct mmqi_tokenizer_extras *extras);
int32_t mmqi_tokenizer_parse_llama3(struct mmqi_tokenizer **out, const char *name, const char *data,
                                    size_t size, const struct mmqi_tokenizer_extras *extras);
int32_t mmqi_tokenizer_parse_tekken(struct mmqi_tokenizer **out, const char *name, const char *data,
                                    size_t size, const struct mmqi_tokenizer_extras *extras);
/* Does the file begin with a line "BASE64 RANK"? */
bool mmqi_tokenizer_is_tiktoken(const char *data, size_t size);

/* The folder's tokenizer, from the first of the files above that is there. MMQ_ERR_NOT_FOUND: none
 * is; the message names what was looked for. */
int32_t mmqi_tokenizer_open(struct mmqi_tokenizer **out, struct mmqi_store *store);

/* Give a tokenizer one more token, before anyone encodes with it. MMQ_ERR_FORMAT when `text` or
 * `id` is another one's. `flags` are those of text/added.h. */
int32_t mmqi_tokenizer_add(struct mmqi_tokenizer *tokenizer, const char *name, const char *text,
                           size_t size, int64_t id, uint8_t flags);

#endif
