#include "text/tokenizer_files.h"

#include <stdio.h>
#include <string.h>

#include "core/mem.h"
#include "core/status.h"
#include "io/file.h"
#include "text/tokenizer_parts.h"

enum { MAX_LABEL = 256, MAX_CONFIG_BYTES = 4 << 20 };

/* How messages name a file: below the folder's path, unless that would crowd out the message. */
static const char *label_of(char label[MAX_LABEL], const struct mmqi_store *store, const char *file)
{
    int length = snprintf(label, MAX_LABEL, "%s/%s", mmqi_store_name(store), file);

    return length >= 0 && length < MAX_LABEL ? label : file;
}

/* ---- the kinds of files ---- */

/* A tokenizer.json is complete by itself. */
static int32_t parse_json(struct mmqi_tokenizer **out, const char *name, const char *data,
                          size_t size, const struct mmqi_tokenizer_extras *extras)
{
    (void)extras;
    return mmqi_tokenizer_parse(out, name, data, size);
}

static int32_t parse_model(struct mmqi_tokenizer **out, const char *name, const char *data,
                           size_t size, const struct mmqi_tokenizer_extras *extras)
{
    return mmqi_tokenizer_is_tiktoken(data, size)
               ? mmqi_tokenizer_parse_llama3(out, name, data, size, extras)
               : mmqi_tokenizer_parse_sentencepiece(out, name, data, size, extras);
}

/* In the order in which they are looked for. */
static const struct source {
    const char *file;
    bool complete; /* needs nothing from beside it */
    int32_t (*parse)(struct mmqi_tokenizer **out, const char *name, const char *data, size_t size,
                     const struct mmqi_tokenizer_extras *extras);
} sources[] = {
    {"tokenizer.json", true, parse_json},
    {"tekken.json", false, mmqi_tokenizer_parse_tekken},
    {"tokenizer.model", false, parse_model},
    {"qwen.tiktoken", false, mmqi_tokenizer_parse_qwen},
};

/* ---- the folder ---- */

static int32_t read_extra(struct mmqi_tokenizer_extras *extras, struct mmqi_store *store,
                          const char *file,
                          int32_t (*read)(struct mmqi_tokenizer_extras *extras, const char *name,
                                          const char *text, size_t size))
{
    char label[MAX_LABEL], *text = NULL;
    size_t size;
    bool exists;
    int32_t status = mmqi_file_exists(&exists, store, file);

    if (status != MMQ_OK || !exists)
        return status;
    status = mmqi_file_read_all(&text, &size, store, file, MAX_CONFIG_BYTES);
    if (status == MMQ_OK)
        status = read(extras, label_of(label, store, file), text, size);
    mmqi_free(text);
    return status;
}

static int32_t open_source(struct mmqi_tokenizer **out, struct mmqi_store *store,
                           const struct source *source)
{
    struct mmqi_tokenizer_extras extras = {0};
    char label[MAX_LABEL], *data = NULL;
    size_t size;
    int32_t status =
        mmqi_file_read_all(&data, &size, store, source->file, MMQI_MAX_TOKENIZER_BYTES);

    if (status == MMQ_OK && !source->complete)
        status =
            read_extra(&extras, store, "tokenizer_config.json", mmqi_tokenizer_extras_read_config);
    if (status == MMQ_OK && !source->complete)
        status = read_extra(&extras, store, "added_tokens.json", mmqi_tokenizer_extras_read_added);
    if (status == MMQ_OK)
        status = source->parse(out, label_of(label, store, source->file), data, size, &extras);
    mmqi_tokenizer_extras_free(&extras);
    mmqi_free(data);
    return status;
}

int32_t mmqi_tokenizer_open(struct mmqi_tokenizer **out, struct mmqi_store *store)
{
    char names[128];
    size_t n = 0;
    bool exists;
    int32_t status;

    *out = NULL;
    for (size_t i = 0; i < sizeof sources / sizeof *sources; i++) {
        status = mmqi_file_exists(&exists, store, sources[i].file);
        if (status != MMQ_OK)
            return status;
        if (exists)
            return open_source(out, store, &sources[i]);
        n += (size_t)snprintf(names + n, sizeof names - n, "%s%s", i ? ", " : "", sources[i].file);
    }
    return mmqi_fail(MMQ_ERR_NOT_FOUND, "%s: no tokenizer: there is none of %s",
                     mmqi_store_name(store), names);
}
