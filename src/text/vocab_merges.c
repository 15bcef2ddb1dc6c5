/*
 * vocab.json and merges.txt without a tokenizer.json: what they leave open,
 * how a text is normalized and cut into words, is known by the name of the
 * class that tokenizer_config.json has.
 */
#include <stdio.h>
#include <string.h>

#include "core/mem.h"
#include "core/status.h"
#include "io/json.h"
#include "text/tokenizer_folder.h"
#include "text/tokenizer_parts.h"
#include "text/utf8.h"

#define QWEN2_PATTERN                                                                              \
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?\\\\p{L}+|\\\\p{N}|"               \
    " ?[^\\\\s\\\\p{L}\\\\p{N}]+[\\\\r\\\\n]*|\\\\s*[\\\\r\\\\n]+|\\\\s+(?!\\\\S)|\\\\s+"

#define BYTE_LEVEL(regex)                                                                          \
    "{\"type\":\"ByteLevel\",\"add_prefix_space\":%s,\"trim_offsets\":false,"                      \
    "\"use_regex\":" regex "}"

#define QWEN2_CUT                                                                                  \
    "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\",\"pattern\":{\"Regex\":"        \
    "\"" QWEN2_PATTERN "\"},\"behavior\":\"Isolated\",\"invert\":false}," BYTE_LEVEL("false") "]}"

static const char qwen2_normalizer[] = "{\"type\":\"NFC\"}";

static const struct vocab_class {
    const char *name;
    const char *normalizer;    /* NULL: none */
    const char *pre_tokenizer; /* %s: add_prefix_space */
} classes[] = {{"Qwen2Tokenizer", qwen2_normalizer, QWEN2_CUT},
               {"Qwen2TokenizerFast", qwen2_normalizer, QWEN2_CUT},
               {"GPT2Tokenizer", NULL, BYTE_LEVEL("true")},
               {"GPT2TokenizerFast", NULL, BYTE_LEVEL("true")}};

static int32_t find_class(const struct vocab_class **out,
                          const struct mmqi_tokenizer_folder *folder)
{
    char label[MMQI_MAX_LABEL];
    const char *name = NULL;
    int32_t status = mmqi_settings_string(folder->settings, "tokenizer_class", &name);
    size_t i;

    *out = NULL;
    if (status != MMQ_OK)
        return status;
    mmqi_tokenizer_label(label, folder, "tokenizer_config.json");
    if (!name)
        return mmqi_fail(MMQ_ERR_FORMAT,
                         "%s: there is no 'tokenizer_class' to tell how vocab.json is read", label);
    for (i = 0; i < sizeof classes / sizeof *classes; i++)
        if (strcmp(classes[i].name, name) == 0)
            *out = &classes[i];
    return *out ? MMQ_OK
                : mmqi_fail(MMQ_ERR_UNSUPPORTED,
                            "%s: tokenizer_class '%s' with vocab.json alone is not supported; "
                            "Qwen2Tokenizer and GPT2Tokenizer are",
                            label, name);
}

/* The ids that these keys would put around a text are not here. */
static int32_t refuse_around(const struct mmqi_tokenizer_folder *folder)
{
    static const char *const keys[] = {"add_bos_token", "add_eos_token"};
    char label[MMQI_MAX_LABEL];
    bool on = false;
    int32_t status = MMQ_OK;
    size_t i;

    for (i = 0; i < 2 && status == MMQ_OK; i++) {
        status = mmqi_settings_bool(folder->settings, keys[i], &on);
        if (status == MMQ_OK && on)
            status =
                mmqi_fail(MMQ_ERR_UNSUPPORTED, "%s: '%s' with vocab.json is not supported",
                          mmqi_tokenizer_label(label, folder, "tokenizer_config.json"), keys[i]);
    }
    return status;
}

static int32_t set_sections(struct mmqi_tokenizer *tokenizer, const char *label,
                            const struct vocab_class *class, bool prefix_space)
{
    static const char decoder[] = "{\"type\":\"ByteLevel\"}";
    char cut[1024];
    int32_t status = MMQ_OK;

    if (class->normalizer)
        status = mmqi_tokenizer_set_section(tokenizer, label, MMQI_NORMALIZER, class->normalizer,
                                            strlen(class->normalizer));
    snprintf(cut, sizeof cut, class->pre_tokenizer, prefix_space ? "true" : "false");
    if (status == MMQ_OK)
        status = mmqi_tokenizer_set_section(tokenizer, label, MMQI_PRE_TOKENIZER, cut, strlen(cut));
    if (status == MMQ_OK)
        status =
            mmqi_tokenizer_set_section(tokenizer, label, MMQI_DECODER, decoder, sizeof decoder - 1);
    return status;
}

static int32_t read_vocab(struct mmqi_tokenizer *tokenizer,
                          const struct mmqi_tokenizer_folder *folder)
{
    static const char name[] = "vocab.json";
    struct mmqi_json *json = NULL;
    enum mmqi_json_event event;
    char label[MMQI_MAX_LABEL], *text = NULL;
    size_t size;
    int32_t status =
        mmqi_file_read_all(&text, &size, folder->store, name, MMQI_MAX_TOKENIZER_BYTES);

    mmqi_tokenizer_label(label, folder, name);
    if (status == MMQ_OK)
        status = mmqi_json_open(&json, label, text, size);
    if (status == MMQ_OK)
        status = mmqi_tokenizer_read_vocab(mmqi_tokenizer_vocab(tokenizer), label, "the vocabulary",
                                           json);
    if (status == MMQ_OK)
        status = mmqi_json_next(json, &event); /* nothing may follow */
    mmqi_json_close(json);
    mmqi_free(text);
    return status;
}

/* A merge a line; empty lines are passed over. */
static int32_t read_merges(struct mmqi_tokenizer *tokenizer,
                           const struct mmqi_tokenizer_folder *folder)
{
    static const char name[] = "merges.txt";
    char label[MMQI_MAX_LABEL], *text = NULL, *line, *end, *stop;
    size_t size;
    int32_t status =
        mmqi_file_read_all(&text, &size, folder->store, name, MMQI_MAX_TOKENIZER_BYTES);

    mmqi_tokenizer_label(label, folder, name);
    if (status == MMQ_OK && !mmqi_utf8_valid(text, size))
        status = mmqi_fail(MMQ_ERR_FORMAT, "%s: it is not UTF-8", label);
    for (line = text; status == MMQ_OK && line < text + size; line = stop + 1) {
        stop = memchr(line, '\n', size - (size_t)(line - text));
        stop = stop ? stop : text + size;
        end = stop > line && stop[-1] == '\r' ? stop - 1 : stop;
        if (end > line)
            status = mmqi_tokenizer_read_merge(&tokenizer->bpe, label, line, (size_t)(end - line));
    }
    mmqi_free(text);
    return status;
}

int32_t mmqi_tokenizer_read_vocab_merges(struct mmqi_tokenizer *tokenizer,
                                         const struct mmqi_tokenizer_folder *folder)
{
    const struct vocab_class *class;
    char label[MMQI_MAX_LABEL];
    bool prefix_space = false;
    int32_t status = find_class(&class, folder);

    if (status == MMQ_OK)
        status = refuse_around(folder);
    if (status == MMQ_OK)
        status = mmqi_settings_bool(folder->settings, "add_prefix_space", &prefix_space);
    if (status == MMQ_OK)
        status = read_vocab(tokenizer, folder);
    if (status == MMQ_OK)
        status = read_merges(tokenizer, folder);
    if (status == MMQ_OK)
        status =
            set_sections(tokenizer, mmqi_tokenizer_label(label, folder, "tokenizer_config.json"),
                         class, prefix_space);
    return status;
}
