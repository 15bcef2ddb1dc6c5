/*
 * tekken.json, Mistral's own file: byte strings with ranks as tiktoken has
 * them, the pattern, and special tokens, whose ids come first. The list of
 * byte strings may be longer than the vocabulary: its start counts.
 */
#include <stdio.h>
#include <string.h>

#include "core/mem.h"
#include "core/status.h"
#include "io/json.h"
#include "text/tokenizer_build.h"

enum { MAX_SPECIAL = 1 << 16 }; /* ids of which the file need not say a word; there are 1,000 */

struct slice {
    const char *json;
    size_t size;
};

struct reading {
    struct mmqi_tokenizer *tokenizer;
    const char *name;
    const struct mmqi_settings *settings; /* tokenizer_config.json */
    struct slice config, vocab, special;  /* special: may be absent */
    struct mmqi_fields fields;            /* of the object in hand */
    char *pattern;
    size_t pattern_size;
    int64_t n_special, n_inner; /* ids of special tokens, of byte strings behind them */
    int64_t n_named;            /* special tokens that have a text of their own */
    int64_t n_ranks;            /* byte strings seen */
};

/* ---- the file ---- */

/* The sections that matter, as text; the rest is passed over. */
static int32_t read_sections(struct reading *reading, struct mmqi_json *json, const char *text)
{
    struct slice *slice;
    enum mmqi_json_event event;
    size_t begin;
    int32_t status = mmqi_json_next(json, &event);

    if (status == MMQ_OK && event != MMQI_JSON_OBJECT)
        return mmqi_json_fail(json, MMQ_ERR_FORMAT, "a tokenizer is a JSON object");
    while (status == MMQ_OK) {
        status = mmqi_json_next(json, &event);
        if (status != MMQ_OK || event != MMQI_JSON_KEY)
            break;
        slice = mmqi_json_is(json, "config")           ? &reading->config
                : mmqi_json_is(json, "vocab")          ? &reading->vocab
                : mmqi_json_is(json, "special_tokens") ? &reading->special
                                                       : NULL;
        status = mmqi_json_next(json, &event);
        begin = mmqi_json_offset(json);
        if (status == MMQ_OK && (event == MMQI_JSON_OBJECT || event == MMQI_JSON_ARRAY)) {
            status = mmqi_json_skip(json);
            if (slice)
                *slice = (struct slice){text + begin, mmqi_json_offset(json) + 1 - begin};
        } else if (status == MMQ_OK && slice && event != MMQI_JSON_NULL) {
            status = mmqi_json_fail(json, MMQ_ERR_FORMAT, "neither an object nor an array");
        }
    }
    return status == MMQ_OK ? mmqi_json_next(json, &event) : status; /* nothing may follow */
}

static int32_t read_count(const struct mmqi_fields *fields, const char *key, int64_t *count)
{
    const struct mmqi_field *field;
    int32_t status = mmqi_field_need(fields, key, MMQI_FIELD_INTEGER, &field);

    if (status != MMQ_OK)
        return status;
    *count = field->integer;
    if (*count < 0 || *count > MMQI_MAX_ID)
        return mmqi_fields_fail(fields, MMQ_ERR_FORMAT, "'%s' is %lld", key, (long long)*count);
    return MMQ_OK;
}

static int32_t read_config(struct reading *reading)
{
    struct mmqi_fields fields = {.name = reading->name, .where = "config"};
    const struct mmqi_field *pattern;
    int64_t vocab_size = 0;
    int32_t status = mmqi_fields_read(&fields, reading->config.json, reading->config.size);

    if (status == MMQ_OK)
        status = read_count(&fields, "default_vocab_size", &vocab_size);
    if (status == MMQ_OK)
        status = read_count(&fields, "default_num_special_tokens", &reading->n_special);
    if (status == MMQ_OK)
        status = mmqi_field_need(&fields, "pattern", MMQI_FIELD_TEXT, &pattern);
    if (status == MMQ_OK && vocab_size < reading->n_special)
        status = mmqi_fields_fail(&fields, MMQ_ERR_FORMAT, "%lld ids, of which %lld are special",
                                  (long long)vocab_size, (long long)reading->n_special);
    if (status == MMQ_OK && reading->n_special > MAX_SPECIAL)
        status = mmqi_fields_fail(&fields, MMQ_ERR_LIMIT, "%lld special ids, at most %d are read",
                                  (long long)reading->n_special, MAX_SPECIAL);
    if (status == MMQ_OK) {
        reading->n_inner = vocab_size - reading->n_special;
        reading->pattern_size = pattern->size;
        reading->pattern = mmqi_strndup(pattern->text, pattern->size);
        if (!reading->pattern)
            status = mmqi_fail(MMQ_ERR_NOMEM, "%s: no memory for the pattern", reading->name);
    }
    mmqi_fields_clear(&fields);
    return status;
}

/* ---- byte strings ---- */

static int32_t add_bytes(struct reading *reading, const struct mmqi_field *text, int64_t rank)
{
    unsigned char small[512], *bytes = small;
    size_t n;
    int32_t status;

    if (text->size > sizeof small) {
        bytes = mmqi_alloc(text->size);
        if (!bytes)
            return mmqi_fail(MMQ_ERR_NOMEM, "%s: no memory for a token", reading->name);
    }
    if (mmqi_base64_decode(bytes, &n, text->text, text->size))
        status = mmqi_build_add_rank(reading->tokenizer, reading->name, (const char *)bytes, n,
                                     rank + reading->n_special);
    else
        status = mmqi_fields_fail(&reading->fields, MMQ_ERR_FORMAT,
                                  "rank %lld: 'token_bytes' is not base64", (long long)rank);
    if (bytes != small)
        mmqi_free(bytes);
    return status;
}

static int32_t read_rank(void *arg, const char *json, size_t size)
{
    struct reading *reading = arg;
    const struct mmqi_field *text;
    int64_t rank = 0;
    int32_t status = mmqi_fields_read(&reading->fields, json, size);

    if (status == MMQ_OK)
        status = read_count(&reading->fields, "rank", &rank);
    if (status == MMQ_OK && rank != reading->n_ranks)
        status = mmqi_fields_fail(&reading->fields, MMQ_ERR_FORMAT, "entry %lld has rank %lld",
                                  (long long)reading->n_ranks, (long long)rank);
    if (status == MMQ_OK)
        status = mmqi_field_need(&reading->fields, "token_bytes", MMQI_FIELD_TEXT, &text);
    if (status == MMQ_OK && rank < reading->n_inner)
        status = add_bytes(reading, text, rank);
    reading->n_ranks++;
    mmqi_fields_clear(&reading->fields);
    return status;
}

/* ---- special tokens ---- */

static int32_t add_special(struct reading *reading, const char *text, int64_t rank)
{
    if (rank >= reading->n_special)
        return mmqi_fail(MMQ_ERR_FORMAT, "%s: special token '%s' has rank %lld of %lld",
                         reading->name, text, (long long)rank, (long long)reading->n_special);
    reading->n_named++;
    return mmqi_build_add_special(reading->tokenizer, reading->name, reading->settings, text, rank);
}

static int32_t read_special(void *arg, const char *json, size_t size)
{
    struct reading *reading = arg;
    const struct mmqi_field *text;
    int64_t rank = 0;
    int32_t status = mmqi_fields_read(&reading->fields, json, size);

    if (status == MMQ_OK)
        status = read_count(&reading->fields, "rank", &rank);
    if (status == MMQ_OK)
        status = mmqi_field_need(&reading->fields, "token_str", MMQI_FIELD_TEXT, &text);
    if (status == MMQ_OK && text->size == 0)
        status = mmqi_fields_fail(&reading->fields, MMQ_ERR_FORMAT, "rank %lld has no text",
                                  (long long)rank);
    if (status == MMQ_OK)
        status = add_special(reading, text->text, rank);
    mmqi_fields_clear(&reading->fields);
    return status;
}

/* What files say that do not list them, those up to version v7. */
static int32_t add_old_specials(struct reading *reading)
{
    static const char *const texts[] = {"<unk>",
                                        "<s>",
                                        "</s>",
                                        "[INST]",
                                        "[/INST]",
                                        "[AVAILABLE_TOOLS]",
                                        "[/AVAILABLE_TOOLS]",
                                        "[TOOL_RESULTS]",
                                        "[/TOOL_RESULTS]",
                                        "[TOOL_CALLS]",
                                        "[IMG]",
                                        "<pad>",
                                        "[IMG_BREAK]",
                                        "[IMG_END]",
                                        "[PREFIX]",
                                        "[MIDDLE]",
                                        "[SUFFIX]",
                                        "[SYSTEM_PROMPT]",
                                        "[/SYSTEM_PROMPT]",
                                        "[TOOL_CONTENT]"};
    int32_t status = MMQ_OK;

    for (size_t i = 0; i < sizeof texts / sizeof *texts && status == MMQ_OK; i++)
        status = add_special(reading, texts[i], (int64_t)i);
    return status;
}

/* Special ids without a text get one made of their number. */
static int32_t add_specials(struct reading *reading)
{
    const struct mmqi_field list = {
        .key = "special_tokens", .json = reading->special.json, .size = reading->special.size};
    char filler[32];
    int32_t status;

    snprintf(reading->fields.where, sizeof reading->fields.where, "special_tokens");
    status = list.json ? mmqi_fields_each(&reading->fields, &list, read_special, reading)
                       : add_old_specials(reading);
    for (int64_t i = reading->n_named; i < reading->n_special && status == MMQ_OK; i++) {
        snprintf(filler, sizeof filler, "<SPECIAL_%d>", (int)i);
        status =
            mmqi_build_add_special(reading->tokenizer, reading->name, reading->settings, filler, i);
    }
    return status;
}

/* ---- the whole ---- */

static int32_t read_all(struct reading *reading)
{
    const struct mmqi_field list = {
        .key = "vocab", .json = reading->vocab.json, .size = reading->vocab.size};
    int32_t status;

    if (!reading->config.json || !reading->vocab.json)
        return mmqi_fail(MMQ_ERR_FORMAT, "%s: there is no '%s'", reading->name,
                         reading->config.json ? "vocab" : "config");
    status = read_config(reading);
    snprintf(reading->fields.where, sizeof reading->fields.where, "vocab");
    if (status == MMQ_OK)
        status = mmqi_fields_each(&reading->fields, &list, read_rank, reading);
    if (status == MMQ_OK && reading->n_ranks < reading->n_inner)
        status = mmqi_fail(MMQ_ERR_FORMAT, "%s: vocab has %lld entries, %lld are needed",
                           reading->name, (long long)reading->n_ranks, (long long)reading->n_inner);
    if (status == MMQ_OK)
        status = mmqi_build_ranks(reading->tokenizer, reading->name, reading->pattern,
                                  reading->pattern_size, false);
    if (status == MMQ_OK)
        status = add_specials(reading);
    if (status == MMQ_OK)
        status = mmqi_build_around(reading->tokenizer, reading->name, reading->settings,
                                   mmqi_tokenizer_id(reading->tokenizer, "<s>"),
                                   mmqi_tokenizer_id(reading->tokenizer, "</s>"));
    return status;
}

int32_t mmqi_tokenizer_read_tekken(struct mmqi_tokenizer *tokenizer, const char *name,
                                   const struct mmqi_settings *config, const char *data,
                                   size_t size)
{
    struct reading *reading = mmqi_calloc(1, sizeof *reading);
    struct mmqi_json *json = NULL;
    int32_t status;

    if (!reading)
        return mmqi_fail(MMQ_ERR_NOMEM, "%s: no memory for a tokenizer", name);
    reading->tokenizer = tokenizer;
    reading->name = reading->fields.name = name;
    reading->settings = config;
    status = mmqi_json_open(&json, name, data, size);
    if (status == MMQ_OK)
        status = read_sections(reading, json, data);
    if (status == MMQ_OK)
        status = read_all(reading);
    mmqi_json_close(json);
    mmqi_free(reading->pattern);
    mmqi_free(reading);
    return status;
}
