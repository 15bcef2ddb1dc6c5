#include "text/tokenizer_folder.h"

#include <stdio.h>

#include "core/mem.h"
#include "core/status.h"
#include "text/tokenizer_build.h"
#include "text/tokenizer_parts.h"

static int32_t read_tokenizer_json(struct mmqi_tokenizer *tokenizer,
                                   const struct mmqi_tokenizer_folder *folder)
{
    static const char name[] = "tokenizer.json";
    char label[MMQI_MAX_LABEL], *text = NULL;
    size_t size;
    int32_t status =
        mmqi_file_read_all(&text, &size, folder->store, name, MMQI_MAX_TOKENIZER_BYTES);

    if (status == MMQ_OK)
        status = mmqi_tokenizer_read_json(tokenizer, mmqi_tokenizer_label(label, folder, name),
                                          text, size);
    mmqi_free(text);
    return status;
}

/* A whole file that says all of the vocabulary. */
static int32_t read_whole(struct mmqi_tokenizer *tokenizer,
                          const struct mmqi_tokenizer_folder *folder, const char *name,
                          int32_t (*read)(struct mmqi_tokenizer *tokenizer, const char *name,
                                          const struct mmqi_settings *config, const char *data,
                                          size_t size))
{
    char label[MMQI_MAX_LABEL], *data = NULL;
    size_t size;
    int32_t status =
        mmqi_file_read_all(&data, &size, folder->store, name, MMQI_MAX_TOKENIZER_BYTES);

    if (status == MMQ_OK)
        status = read(tokenizer, mmqi_tokenizer_label(label, folder, name), folder->settings, data,
                      size);
    mmqi_free(data);
    return status;
}

static int32_t read_tekken(struct mmqi_tokenizer *tokenizer,
                           const struct mmqi_tokenizer_folder *folder)
{
    return read_whole(tokenizer, folder, "tekken.json", mmqi_tokenizer_read_tekken);
}

/* Two kinds of files have this name. */
static int32_t read_any_model(struct mmqi_tokenizer *tokenizer, const char *name,
                              const struct mmqi_settings *config, const char *data, size_t size)
{
    return mmqi_tokenizer_is_tiktoken(data, size)
               ? mmqi_tokenizer_read_llama3(tokenizer, name, config, data, size)
               : mmqi_tokenizer_read_sentencepiece(tokenizer, name, config, data, size);
}

static int32_t read_tokenizer_model(struct mmqi_tokenizer *tokenizer,
                                    const struct mmqi_tokenizer_folder *folder)
{
    return read_whole(tokenizer, folder, "tokenizer.model", read_any_model);
}

static int32_t read_qwen_ranks(struct mmqi_tokenizer *tokenizer,
                               const struct mmqi_tokenizer_folder *folder)
{
    return read_whole(tokenizer, folder, "qwen.tiktoken", mmqi_tokenizer_read_qwen);
}

/* In order of preference. */
static const struct {
    const char *file;
    int32_t (*read)(struct mmqi_tokenizer *tokenizer, const struct mmqi_tokenizer_folder *folder);
} spellings[] = {
    {"tokenizer.json", read_tokenizer_json},          {"tekken.json", read_tekken},
    {"tokenizer.model", read_tokenizer_model},        {"qwen.tiktoken", read_qwen_ranks},
    {"vocab.json", mmqi_tokenizer_read_vocab_merges},
};

enum { N_SPELLINGS = sizeof spellings / sizeof *spellings };

const char *mmqi_tokenizer_label(char label[MMQI_MAX_LABEL],
                                 const struct mmqi_tokenizer_folder *folder, const char *name)
{
    int length = snprintf(label, MMQI_MAX_LABEL, "%s/%s", mmqi_store_name(folder->store), name);

    return length >= 0 && length < MMQI_MAX_LABEL ? label : name;
}

static int32_t read_config(struct mmqi_tokenizer_folder *folder)
{
    static const char name[] = "tokenizer_config.json";
    char label[MMQI_MAX_LABEL];
    bool exists = false;
    int32_t status = mmqi_file_exists(&exists, folder->store, name);

    if (status == MMQ_OK && exists)
        status = mmqi_file_read_all(&folder->config, &folder->config_size, folder->store, name,
                                    MMQI_MAX_TOKENIZER_CONFIG);
    if (status == MMQ_OK && exists)
        status = mmqi_settings_parse(&folder->settings, mmqi_tokenizer_label(label, folder, name),
                                     folder->config, folder->config_size);
    return status;
}

/* The first spelling that is there. */
static int32_t find_spelling(size_t *found, const struct mmqi_tokenizer_folder *folder)
{
    bool exists = false;
    int32_t status = MMQ_OK;
    size_t i;

    for (i = 0; i < N_SPELLINGS && status == MMQ_OK && !exists; i++)
        status = mmqi_file_exists(&exists, folder->store, spellings[i].file);
    *found = exists ? i - 1 : 0;
    if (status == MMQ_OK && !exists)
        status = mmqi_fail(MMQ_ERR_NOT_FOUND,
                           "%s: there is no tokenizer: none of tokenizer.json, tekken.json, "
                           "tokenizer.model, qwen.tiktoken, vocab.json",
                           mmqi_store_name(folder->store));
    return status;
}

int32_t mmqi_tokenizer_open(struct mmqi_tokenizer **out, struct mmqi_store *store)
{
    struct mmqi_tokenizer_folder folder = {.store = store};
    char label[MMQI_MAX_LABEL];
    size_t i = 0;
    int32_t status = mmqi_tokenizer_create(out, mmqi_store_name(store));

    if (status == MMQ_OK)
        status = read_config(&folder);
    if (status == MMQ_OK)
        status = find_spelling(&i, &folder);
    if (status == MMQ_OK)
        status = spellings[i].read(*out, &folder);
    if (status == MMQ_OK)
        status = mmqi_tokenizer_add_configured(*out, &folder);
    if (status == MMQ_OK)
        status =
            mmqi_tokenizer_finish(*out, mmqi_tokenizer_label(label, &folder, spellings[i].file));
    mmqi_free(folder.config);
    mmqi_settings_free(folder.settings);
    if (status != MMQ_OK) {
        mmqi_tokenizer_free(*out);
        *out = NULL;
    }
    return status;
}
