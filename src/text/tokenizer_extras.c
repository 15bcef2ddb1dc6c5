/*
 * What files beside a tokenizer's own say of it: tokens that were added,
 * which of them go around a text. Of the many keys of tokenizer_config.json
 * these are read: added_tokens_decoder, bos_token, eos_token, add_bos_token,
 * add_eos_token, legacy.
 */
#include <stdio.h>
#include <string.h>

#include "core/mem.h"
#include "core/status.h"
#include "io/json.h"
#include "text/stage.h"
#include "text/tokenizer_files.h"

void mmqi_tokenizer_extras_free(struct mmqi_tokenizer_extras *extras)
{
    mmqi_added_free(&extras->added);
    mmqi_free(extras->bos);
    mmqi_free(extras->eos);
    memset(extras, 0, sizeof *extras);
}

/* Both files may tell of a token; the first that does says what it is. */
static int32_t add_extra(struct mmqi_tokenizer_extras *extras, const char *name, const char *text,
                         size_t size, int64_t id, uint8_t flags)
{
    if (size == 0 || (id >= 0 && mmqi_vocab_find(&extras->added.vocab, text, size) == id))
        return MMQ_OK;
    return mmqi_added_add(&extras->added, name, text, size, id, flags);
}

/* ---- added_tokens.json ---- */

/* {"TEXT": ID}: it does not say which are special, so all are. */
int32_t mmqi_tokenizer_extras_read_added(struct mmqi_tokenizer_extras *extras, const char *name,
                                         const char *text, size_t size)
{
    struct mmqi_json *json = NULL;
    struct mmqi_buf key = {0};
    enum mmqi_json_event event;
    int64_t id = 0;
    int32_t status = mmqi_json_open(&json, name, text, size);

    if (status == MMQ_OK)
        status = mmqi_json_next(json, &event);
    if (status == MMQ_OK && event != MMQI_JSON_OBJECT)
        status = mmqi_json_fail(json, MMQ_ERR_FORMAT, "not an object");
    while (status == MMQ_OK) {
        status = mmqi_json_next(json, &event);
        if (status != MMQ_OK || event != MMQI_JSON_KEY)
            break;
        mmqi_buf_clear(&key);
        mmqi_buf_append(&key, mmqi_json_text(json), mmqi_json_size(json));
        if (mmqi_buf_failed(&key))
            status = mmqi_fail(MMQ_ERR_NOMEM, "%s: no memory for a token", name);
        if (status == MMQ_OK)
            status = mmqi_json_next(json, &event);
        if (status == MMQ_OK && event != MMQI_JSON_NUMBER)
            status = mmqi_json_fail(json, MMQ_ERR_FORMAT, "an id is not a number");
        if (status == MMQ_OK)
            status = mmqi_json_integer(json, &id);
        if (status == MMQ_OK)
            status = add_extra(extras, name, key.data, key.size, id, MMQI_ADDED_SPECIAL);
    }
    mmqi_buf_free(&key);
    mmqi_json_close(json);
    return status;
}

/* ---- tokenizer_config.json ---- */

struct reading {
    struct mmqi_tokenizer_extras *extras;
    const char *name, *text;
    struct mmqi_json *json;
};

/* The value in hand as text of the file. */
static int32_t take_object(struct reading *reading, const char **json, size_t *size)
{
    size_t begin = mmqi_json_offset(reading->json);
    int32_t status = mmqi_json_skip(reading->json);

    *json = reading->text + begin;
    *size = mmqi_json_offset(reading->json) + 1 - begin;
    return status;
}

/* A text, or an object that holds one as its "content". */
static int32_t read_text(struct reading *reading, enum mmqi_json_event event, const char *key,
                         char **out)
{
    struct mmqi_fields fields = {.name = reading->name};
    const struct mmqi_field *content;
    const char *object;
    size_t size;
    int32_t status = MMQ_OK;

    mmqi_free(*out);
    *out = NULL;
    if (event == MMQI_JSON_NULL)
        return MMQ_OK;
    if (event != MMQI_JSON_STRING && event != MMQI_JSON_OBJECT)
        return mmqi_json_fail(reading->json, MMQ_ERR_FORMAT, "%s is no token", key);
    snprintf(fields.where, sizeof fields.where, "%s", key);
    if (event == MMQI_JSON_STRING) {
        *out = mmqi_strdup(mmqi_json_text(reading->json));
    } else {
        status = take_object(reading, &object, &size);
        if (status == MMQ_OK)
            status = mmqi_fields_read(&fields, object, size);
        if (status == MMQ_OK)
            status = mmqi_field_need(&fields, "content", MMQI_FIELD_TEXT, &content);
        if (status == MMQ_OK)
            *out = mmqi_strdup(content->text);
        mmqi_fields_clear(&fields);
    }
    if (status == MMQ_OK && !*out)
        status = mmqi_fail(MMQ_ERR_NOMEM, "%s: no memory for a token", reading->name);
    return status;
}

/* As the slow tokenizers do, all are looked for in raw text, whatever "normalized" says. */
static int32_t read_decoder_token(struct reading *reading, int64_t id)
{
    static const struct {
        const char *key;
        uint8_t flag;
    } flags[] = {{"special", MMQI_ADDED_SPECIAL},
                 {"lstrip", MMQI_ADDED_LSTRIP},
                 {"rstrip", MMQI_ADDED_RSTRIP},
                 {"single_word", MMQI_ADDED_SINGLE_WORD}};
    struct mmqi_fields fields = {.name = reading->name};
    const struct mmqi_field *content;
    const char *object;
    bool on = false;
    uint8_t all = 0;
    size_t size, i;
    int32_t status = take_object(reading, &object, &size);

    snprintf(fields.where, sizeof fields.where, "added_tokens_decoder.%lld", (long long)id);
    if (status == MMQ_OK)
        status = mmqi_fields_read(&fields, object, size);
    if (status == MMQ_OK)
        status = mmqi_field_need(&fields, "content", MMQI_FIELD_TEXT, &content);
    for (i = 0; i < sizeof flags / sizeof *flags && status == MMQ_OK; i++) {
        status = mmqi_field_bool(&fields, flags[i].key, false, &on);
        all |= on ? flags[i].flag : 0;
    }
    if (status == MMQ_OK)
        status = add_extra(reading->extras, reading->name, content->text, content->size, id, all);
    mmqi_fields_clear(&fields);
    return status;
}

/* The decimal number that a key is; -1: it is none, or no id. */
static int64_t key_id(const struct mmqi_json *json)
{
    const char *text = mmqi_json_text(json);
    size_t size = mmqi_json_size(json), i;
    int64_t id = 0;

    for (i = 0; i < size; i++) {
        if (text[i] < '0' || text[i] > '9' || id > MMQI_MAX_ID)
            return -1;
        id = id * 10 + (text[i] - '0');
    }
    return size > 0 && id <= MMQI_MAX_ID ? id : -1;
}

/* {"ID": {"content": TEXT, ..}} */
static int32_t read_decoder(struct reading *reading, enum mmqi_json_event event)
{
    int64_t id;
    int32_t status = MMQ_OK;

    if (event == MMQI_JSON_NULL)
        return MMQ_OK;
    if (event != MMQI_JSON_OBJECT)
        return mmqi_json_fail(reading->json, MMQ_ERR_FORMAT,
                              "added_tokens_decoder is not an object");
    while (status == MMQ_OK) {
        status = mmqi_json_next(reading->json, &event);
        if (status != MMQ_OK || event != MMQI_JSON_KEY)
            break;
        id = key_id(reading->json);
        if (id < 0)
            return mmqi_json_fail(reading->json, MMQ_ERR_FORMAT,
                                  "added_tokens_decoder: '%s' is no id",
                                  mmqi_json_text(reading->json));
        status = mmqi_json_next(reading->json, &event);
        if (status == MMQ_OK && event != MMQI_JSON_OBJECT)
            status = mmqi_json_fail(reading->json, MMQ_ERR_FORMAT,
                                    "added_tokens_decoder: token %lld is no object", (long long)id);
        if (status == MMQ_OK)
            status = read_decoder_token(reading, id);
    }
    return status;
}

/* A bool that becomes `*out` where it is `when`. */
static int32_t read_switch(struct reading *reading, enum mmqi_json_event event, const char *key,
                           bool when, bool *out)
{
    if (event != MMQI_JSON_TRUE && event != MMQI_JSON_FALSE && event != MMQI_JSON_NULL)
        return mmqi_json_fail(reading->json, MMQ_ERR_FORMAT, "%s is not a bool", key);
    *out = event != MMQI_JSON_NULL && (event == MMQI_JSON_TRUE) == when;
    return MMQ_OK;
}

enum key { OTHER, DECODER, BOS, EOS, ADD_BOS, ADD_EOS, LEGACY };

static enum key find_key(const struct mmqi_json *json)
{
    static const char *const names[] = {
        [DECODER] = "added_tokens_decoder", [BOS] = "bos_token",         [EOS] = "eos_token",
        [ADD_BOS] = "add_bos_token",        [ADD_EOS] = "add_eos_token", [LEGACY] = "legacy"};

    for (int key = DECODER; key <= LEGACY; key++)
        if (mmqi_json_is(json, names[key]))
            return (enum key)key;
    return OTHER;
}

static int32_t read_key(struct reading *reading)
{
    struct mmqi_tokenizer_extras *extras = reading->extras;
    enum key key = find_key(reading->json);
    enum mmqi_json_event event;
    int32_t status;

    if (key == OTHER)
        return mmqi_json_skip(reading->json);
    status = mmqi_json_next(reading->json, &event);
    if (status != MMQ_OK)
        return status;
    switch (key) {
    case DECODER:
        return read_decoder(reading, event);
    case BOS:
        return read_text(reading, event, "bos_token", &extras->bos);
    case EOS:
        return read_text(reading, event, "eos_token", &extras->eos);
    case ADD_BOS:
        return read_switch(reading, event, "add_bos_token", false, &extras->no_bos);
    case ADD_EOS:
        return read_switch(reading, event, "add_eos_token", true, &extras->add_eos);
    default:
        return read_switch(reading, event, "legacy", false, &extras->begins_once);
    }
}

int32_t mmqi_tokenizer_extras_read_config(struct mmqi_tokenizer_extras *extras, const char *name,
                                          const char *text, size_t size)
{
    struct reading reading = {.extras = extras, .name = name, .text = text};
    enum mmqi_json_event event;
    int32_t status = mmqi_json_open(&reading.json, name, text, size);

    if (status == MMQ_OK)
        status = mmqi_json_next(reading.json, &event);
    if (status == MMQ_OK && event != MMQI_JSON_OBJECT)
        status = mmqi_json_fail(reading.json, MMQ_ERR_FORMAT, "not an object");
    while (status == MMQ_OK) {
        status = mmqi_json_next(reading.json, &event);
        if (status != MMQ_OK || event != MMQI_JSON_KEY)
            break;
        status = read_key(&reading);
    }
    mmqi_json_close(reading.json);
    return status;
}
