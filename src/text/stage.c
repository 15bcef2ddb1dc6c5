#include "text/stage.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "core/mem.h"
#include "core/status.h"
#include "core/text.h"
#include "io/json.h"

/* A JSON value that waits to be read as a stage. */
struct waiting {
    const char *json;
    size_t size;
    int32_t depth;
    char where[128];
};

/* A section while it is read: a stack of the values still to come, the next one on top. */
struct reader {
    struct mmqi_stages *stages;
    const struct mmqi_stage_kind *kinds;
    const char *name;
    struct mmqi_fields fields;
    struct waiting stack[MMQI_MAX_STAGES];
    size_t n_waiting;
    int32_t depth; /* sequences around the stage in hand */
};

int32_t mmqi_fields_fail(const struct mmqi_fields *fields, int32_t status, const char *format, ...)
{
    char text[256];
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    return mmqi_fail(status, "%s: %s: %s", fields->name, fields->where, text);
}

const struct mmqi_field *mmqi_field_find(const struct mmqi_fields *fields, const char *key)
{
    size_t i;

    for (i = 0; i < fields->n; i++)
        if (strcmp(fields->list[i].key, key) == 0)
            return &fields->list[i];
    return NULL;
}

int32_t mmqi_field_need(const struct mmqi_fields *fields, const char *key, int32_t kind,
                        const struct mmqi_field **field)
{
    static const char *const names[] = {"a string", "an integer", "a bool", "an object or array"};

    *field = mmqi_field_find(fields, key);
    if (!*field)
        return mmqi_fields_fail(fields, MMQ_ERR_FORMAT, "there is no '%s'", key);
    if ((*field)->kind == kind)
        return MMQ_OK;
    *field = NULL;
    return mmqi_fields_fail(fields, MMQ_ERR_FORMAT, "'%s' is not %s", key, names[kind]);
}

int32_t mmqi_field_bool(const struct mmqi_fields *fields, const char *key, bool missing, bool *out)
{
    const struct mmqi_field *field;
    int32_t status;

    *out = missing;
    if (!mmqi_field_find(fields, key))
        return MMQ_OK;
    status = mmqi_field_need(fields, key, MMQI_FIELD_BOOL, &field);
    if (status == MMQ_OK)
        *out = field->integer != 0;
    return status;
}

void mmqi_fields_clear(struct mmqi_fields *fields)
{
    size_t i;

    for (i = 0; i < fields->n; i++)
        mmqi_free(fields->list[i].text);
    fields->n = 0;
}

/* Keep the value whose first event is `event` in `field`. */
static int32_t read_value(struct mmqi_json *parser, enum mmqi_json_event event, const char *json,
                          struct mmqi_field *field)
{
    size_t begin = mmqi_json_offset(parser);
    int32_t status = MMQ_OK;

    if (event == MMQI_JSON_TRUE || event == MMQI_JSON_FALSE) {
        field->kind = MMQI_FIELD_BOOL;
        field->integer = event == MMQI_JSON_TRUE;
    } else if (event == MMQI_JSON_STRING) {
        field->kind = MMQI_FIELD_TEXT;
        field->size = mmqi_json_size(parser);
        field->text = mmqi_strndup(mmqi_json_text(parser), field->size);
        if (!field->text)
            status = mmqi_fail(MMQ_ERR_NOMEM, "no memory for a tokenizer's stage");
    } else if (event == MMQI_JSON_NUMBER && !strpbrk(mmqi_json_text(parser), ".eE")) {
        field->kind = MMQI_FIELD_INTEGER;
        status = mmqi_json_integer(parser, &field->integer);
    } else if (event == MMQI_JSON_OBJECT || event == MMQI_JSON_ARRAY) {
        field->kind = MMQI_FIELD_OTHER;
        status = mmqi_json_skip(parser);
        field->json = json + begin;
        field->size = mmqi_json_offset(parser) + 1 - begin;
    } else { /* a number that is no integer, which no stage has */
        field->kind = MMQI_FIELD_OTHER;
        field->json = json + begin;
        field->size = mmqi_json_size(parser);
    }
    return status;
}

static int32_t read_field(struct mmqi_json *parser, struct mmqi_fields *fields, const char *json)
{
    struct mmqi_field *field;
    enum mmqi_json_event event;
    int32_t status;

    if (fields->n == MMQI_MAX_FIELDS)
        return mmqi_fields_fail(fields, MMQ_ERR_LIMIT, "more than %d fields", MMQI_MAX_FIELDS);
    field = &fields->list[fields->n];
    memset(field, 0, sizeof *field);
    mmqi_copy_text(field->key, sizeof field->key, mmqi_json_text(parser));
    status = mmqi_json_next(parser, &event);
    if (status != MMQ_OK || event == MMQI_JSON_NULL)
        return status;
    fields->n++;
    return read_value(parser, event, json, field);
}

int32_t mmqi_fields_read(struct mmqi_fields *fields, const char *json, size_t size)
{
    struct mmqi_json *parser = NULL;
    enum mmqi_json_event event;
    int32_t status = mmqi_json_open(&parser, fields->name, json, size);

    if (status == MMQ_OK)
        status = mmqi_json_next(parser, &event);
    if (status == MMQ_OK && event != MMQI_JSON_OBJECT)
        status = mmqi_fields_fail(fields, MMQ_ERR_FORMAT, "not an object");
    while (status == MMQ_OK) {
        status = mmqi_json_next(parser, &event);
        if (status != MMQ_OK || event != MMQI_JSON_KEY)
            break;
        status = read_field(parser, fields, json);
    }
    mmqi_json_close(parser);
    return status;
}

int32_t mmqi_fields_each(const struct mmqi_fields *fields, const struct mmqi_field *list,
                         int32_t (*each)(void *arg, const char *json, size_t size), void *arg)
{
    struct mmqi_json *parser = NULL;
    enum mmqi_json_event event;
    int32_t status = mmqi_json_open(&parser, fields->name, list->json, list->size);
    size_t begin;

    if (status == MMQ_OK)
        status = mmqi_json_next(parser, &event);
    if (status == MMQ_OK && event != MMQI_JSON_ARRAY)
        status = mmqi_fields_fail(fields, MMQ_ERR_FORMAT, "'%s' is not an array", list->key);
    while (status == MMQ_OK) {
        status = mmqi_json_next(parser, &event);
        if (status != MMQ_OK || event == MMQI_JSON_ARRAY_END)
            break;
        begin = mmqi_json_offset(parser);
        status = event == MMQI_JSON_OBJECT
                     ? mmqi_json_skip(parser)
                     : mmqi_fields_fail(fields, MMQ_ERR_FORMAT, "'%s' holds what is not an object",
                                        list->key);
        if (status == MMQ_OK)
            status = each(arg, list->json + begin, mmqi_json_offset(parser) + 1 - begin);
    }
    mmqi_json_close(parser);
    return status;
}

/* A value to be read later, deeper than the one in hand. */
static int32_t push_waiting(void *arg, const char *json, size_t size)
{
    struct reader *reader = arg;
    struct waiting *waiting;

    if (reader->n_waiting + reader->stages->n >= MMQI_MAX_STAGES ||
        reader->depth >= MMQI_MAX_STAGE_DEPTH)
        return mmqi_fields_fail(&reader->fields, MMQ_ERR_LIMIT,
                                "more than %d stages or %d sequences in each other",
                                MMQI_MAX_STAGES, MMQI_MAX_STAGE_DEPTH);
    waiting = &reader->stack[reader->n_waiting++];
    waiting->json = json;
    waiting->size = size;
    waiting->depth = reader->depth + 1;
    return MMQ_OK;
}

/* Put the parts of a Sequence on the stack, the first one on top, each with its place. */
static int32_t expand_sequence(struct reader *reader)
{
    static const char *const keys[] = {"normalizers", "pretokenizers", "processors", "decoders"};
    const struct mmqi_field *list = NULL;
    size_t bottom = reader->n_waiting, i, n;
    struct waiting swap;
    int32_t status;

    for (i = 0; i < sizeof keys / sizeof *keys && !list; i++)
        list = mmqi_field_find(&reader->fields, keys[i]);
    if (!list || list->kind != MMQI_FIELD_OTHER)
        return mmqi_fields_fail(&reader->fields, MMQ_ERR_FORMAT, "a Sequence without its list");
    status = mmqi_fields_each(&reader->fields, list, push_waiting, reader);
    n = reader->n_waiting - bottom;
    for (i = 0; i < n; i++)
        snprintf(reader->stack[bottom + i].where, sizeof swap.where, "%.60s.%.20s[%zu]",
                 reader->fields.where, list->key, i);
    for (i = 0; i < n / 2; i++) {
        swap = reader->stack[bottom + i];
        reader->stack[bottom + i] = reader->stack[bottom + n - 1 - i];
        reader->stack[bottom + n - 1 - i] = swap;
    }
    return status;
}

static int32_t add_stage(struct reader *reader, const char *type)
{
    const struct mmqi_stage_kind *kind = reader->kinds;
    struct mmqi_stage *stage;

    while (kind->type && strcmp(kind->type, type) != 0)
        kind++;
    if (!kind->type)
        return mmqi_fields_fail(&reader->fields, MMQ_ERR_UNSUPPORTED, "'%s' is not supported",
                                type);
    if (reader->stages->n == MMQI_MAX_STAGES)
        return mmqi_fields_fail(&reader->fields, MMQ_ERR_LIMIT, "more than %d stages",
                                MMQI_MAX_STAGES);
    stage = &reader->stages->list[reader->stages->n++];
    stage->kind = kind;
    return kind->read ? kind->read(stage, &reader->fields) : MMQ_OK;
}

/* Take the value on top of the stack. */
static int32_t read_next(struct reader *reader)
{
    struct waiting next = reader->stack[--reader->n_waiting];
    const struct mmqi_field *type;
    int32_t status;

    mmqi_fields_clear(&reader->fields);
    reader->depth = next.depth;
    mmqi_copy_text(reader->fields.where, sizeof reader->fields.where, next.where);
    status = mmqi_fields_read(&reader->fields, next.json, next.size);
    if (status == MMQ_OK)
        status = mmqi_field_need(&reader->fields, "type", MMQI_FIELD_TEXT, &type);
    if (status != MMQ_OK)
        return status;
    return strcmp(type->text, "Sequence") == 0 ? expand_sequence(reader)
                                               : add_stage(reader, type->text);
}

int32_t mmqi_stages_read(struct mmqi_stages *stages, const struct mmqi_stage_kind *kinds,
                         const char *name, const char *section, const char *json, size_t size)
{
    struct reader *reader;
    int32_t status;

    if (size > MMQI_MAX_SECTION_BYTES)
        return mmqi_fail(MMQ_ERR_LIMIT, "%s: '%s' is longer than %d bytes", name, section,
                         MMQI_MAX_SECTION_BYTES);
    stages->list = mmqi_calloc(MMQI_MAX_STAGES, sizeof *stages->list);
    reader = mmqi_calloc(1, sizeof *reader);
    if (!stages->list || !reader) {
        mmqi_free(reader);
        return mmqi_fail(MMQ_ERR_NOMEM, "%s: no memory for '%s'", name, section);
    }
    reader->stages = stages;
    reader->kinds = kinds;
    reader->name = reader->fields.name = name;
    status = push_waiting(reader, json, size);
    mmqi_copy_text(reader->stack[0].where, sizeof reader->stack[0].where, section);
    while (status == MMQ_OK && reader->n_waiting > 0)
        status = read_next(reader);
    mmqi_fields_clear(&reader->fields);
    mmqi_free(reader);
    return status;
}

struct mmqi_stage *mmqi_stages_add(struct mmqi_stages *stages, const struct mmqi_stage_kind *kind)
{
    struct mmqi_stage *stage;

    if (!stages->list)
        stages->list = mmqi_calloc(MMQI_MAX_STAGES, sizeof *stages->list);
    if (!stages->list || stages->n == MMQI_MAX_STAGES)
        return NULL;
    stage = &stages->list[stages->n++];
    stage->kind = kind;
    return stage;
}

void mmqi_stages_free(struct mmqi_stages *stages)
{
    size_t i;

    for (i = 0; i < stages->n; i++) {
        mmqi_replace_free(&stages->list[i].replace);
        mmqi_regex_free(stages->list[i].regex);
        mmqi_spell_free(stages->list[i].spell);
        mmqi_free(stages->list[i].before.data);
        mmqi_free(stages->list[i].after.data);
    }
    mmqi_free(stages->list);
    memset(stages, 0, sizeof *stages);
}

int32_t mmqi_stage_read_replace(struct mmqi_stage *stage, struct mmqi_fields *fields)
{
    const struct mmqi_field *pattern, *content, *text;
    struct mmqi_fields inner = {.name = fields->name};
    int32_t status = mmqi_field_need(fields, "pattern", MMQI_FIELD_OTHER, &pattern);

    if (status == MMQ_OK)
        status = mmqi_field_need(fields, "content", MMQI_FIELD_TEXT, &content);
    if (status != MMQ_OK)
        return status;
    snprintf(inner.where, sizeof inner.where, "%.80s.pattern", fields->where);
    status = mmqi_fields_read(&inner, pattern->json, pattern->size);
    if (status == MMQ_OK && !mmqi_field_find(&inner, "String"))
        status = mmqi_fields_fail(&inner, MMQ_ERR_UNSUPPORTED, "'%s' is not supported",
                                  inner.n > 0 ? inner.list[0].key : "{}");
    if (status == MMQ_OK)
        status = mmqi_field_need(&inner, "String", MMQI_FIELD_TEXT, &text);
    if (status == MMQ_OK) {
        status = mmqi_replace_init(&stage->replace, text->text, text->size, content->text,
                                   content->size);
        if (status == MMQ_ERR_INVALID)
            status = mmqi_fields_fail(&inner, MMQ_ERR_FORMAT, "the pattern is empty");
        else if (status != MMQ_OK)
            status = mmqi_fields_fail(&inner, status, "no memory for the pattern");
    }
    mmqi_fields_clear(&inner);
    return status;
}
