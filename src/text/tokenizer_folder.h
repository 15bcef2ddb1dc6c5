/*
 * The tokenizer of a model folder, in whichever spelling it lies there.
 *
 * The first spelling whose file is there is read (a row of a table in
 * tokenizer_folder.c; a new one is a row and a function). Then the tokens
 * that tokenizer_config.json and the files of its kind name are added, as
 * transformers does.
 */
#ifndef MMQI_TEXT_TOKENIZER_FOLDER_H
#define MMQI_TEXT_TOKENIZER_FOLDER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "io/file.h"
#include "io/settings.h"
#include "text/tokenizer.h"

/* MMQ_ERR_NOT_FOUND when the folder has no tokenizer in a spelling that is known. */
int32_t mmqi_tokenizer_open(struct mmqi_tokenizer **out, struct mmqi_store *store);

/* ---- for the functions that read a spelling ---- */

enum { MMQI_MAX_LABEL = 256, MMQI_MAX_TOKENIZER_CONFIG = 1 << 20 };

struct mmqi_tokenizer_folder {
    struct mmqi_store *store;
    char *config; /* the text of tokenizer_config.json; NULL: there is none */
    size_t config_size;
    struct mmqi_settings *settings; /* the same, as settings */
};

/* How messages name a file: below the folder's path, unless that would crowd out the message. */
const char *mmqi_tokenizer_label(char label[MMQI_MAX_LABEL],
                                 const struct mmqi_tokenizer_folder *folder, const char *name);

/* vocab.json and merges.txt, read as the class in tokenizer_config.json reads them. */
int32_t mmqi_tokenizer_read_vocab_merges(struct mmqi_tokenizer *tokenizer,
                                         const struct mmqi_tokenizer_folder *folder);

/*
 * The tokens that tokenizer_config.json lists ("added_tokens_decoder") or, where it lists none,
 * added_tokens.json; then those that it names ("eos_token" and its like, also those of
 * special_tokens_map.json) and that are no added tokens yet, which become special. The listed
 * flags replace the ones in hand; an id that contradicts is MMQ_ERR_FORMAT.
 */
int32_t mmqi_tokenizer_add_configured(struct mmqi_tokenizer *tokenizer,
                                      const struct mmqi_tokenizer_folder *folder);

#endif
