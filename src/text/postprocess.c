/*
 * Post-processors, the ids put around those of a text. All of them are data:
 * ids before and ids after.
 */
#include <stdio.h>
#include <string.h>

#include "core/mem.h"
#include "core/status.h"
#include "io/json.h"
#include "text/stage.h"

/* A TemplateProcessing stage while its "single" list is read. */
struct template
{
    struct mmqi_stage *stage;
    const struct mmqi_fields *fields;
    struct mmqi_fields specials; /* "special_tokens" */
    bool seen_text;
};

/* Append the integers of the array that `field` holds. */
static int32_t append_ids(const struct mmqi_fields *fields, const struct mmqi_field *field,
                          struct mmqi_ids *ids)
{
    struct mmqi_json *parser = NULL;
    enum mmqi_json_event event;
    int32_t status = mmqi_json_open(&parser, fields->name, field->json, field->size), id;
    int64_t value = 0;

    if (status == MMQ_OK)
        status = mmqi_json_next(parser, &event);
    while (status == MMQ_OK) {
        status = mmqi_json_next(parser, &event);
        if (status != MMQ_OK || event != MMQI_JSON_NUMBER)
            break;
        status = mmqi_json_integer(parser, &value);
        if (status == MMQ_OK && (value < 0 || value > INT32_MAX))
            status = mmqi_fields_fail(fields, MMQ_ERR_FORMAT, "an id of '%s' is out of range",
                                      field->key);
        id = (int32_t)value;
        if (status == MMQ_OK)
            status = mmqi_ids_append(ids, &id, 1);
    }
    mmqi_json_close(parser);
    return status;
}

/* {"SpecialToken": {"id": "<s>"}}: the ids that "special_tokens" gives for it. */
static int32_t add_special(struct template *template, const char *token)
{
    const struct mmqi_field *special, *ids;
    struct mmqi_fields inner = {.name = template->fields->name};
    int32_t status = mmqi_field_need(&template->specials, token, MMQI_FIELD_OTHER, &special);

    if (status != MMQ_OK)
        return status;
    snprintf(inner.where, sizeof inner.where, "%.60s.%.30s", template->specials.where, token);
    status = mmqi_fields_read(&inner, special->json, special->size);
    if (status == MMQ_OK)
        status = mmqi_field_need(&inner, "ids", MMQI_FIELD_OTHER, &ids);
    if (status == MMQ_OK)
        status = append_ids(
            &inner, ids, template->seen_text ? &template->stage->after : &template->stage->before);
    mmqi_fields_clear(&inner);
    return status;
}

/* {"Sequence": {"id": "A"}}: the text itself, which must come once. */
static int32_t add_text(struct template *template, const char *id)
{
    if (strcmp(id, "A") != 0 || template->seen_text)
        return mmqi_fields_fail(template->fields, MMQ_ERR_UNSUPPORTED,
                                "'single' does not hold sequence 'A' once");
    template->seen_text = true;
    return MMQ_OK;
}

static int32_t add_part(void *arg, const char *json, size_t size)
{
    struct template *template = arg;
    const struct mmqi_field *part, *id;
    struct mmqi_fields outer = {.name = template->fields->name};
    struct mmqi_fields inner = {.name = template->fields->name};
    int32_t status;

    snprintf(outer.where, sizeof outer.where, "%.80s.single", template->fields->where);
    snprintf(inner.where, sizeof inner.where, "%.80s.single", template->fields->where);
    status = mmqi_fields_read(&outer, json, size);
    if (status == MMQ_OK && (outer.n != 1 || (strcmp(outer.list[0].key, "SpecialToken") != 0 &&
                                              strcmp(outer.list[0].key, "Sequence") != 0)))
        status = mmqi_fields_fail(&outer, MMQ_ERR_UNSUPPORTED,
                                  "a part is neither SpecialToken nor Sequence");
    if (status == MMQ_OK)
        status = mmqi_field_need(&outer, outer.list[0].key, MMQI_FIELD_OTHER, &part);
    if (status == MMQ_OK)
        status = mmqi_fields_read(&inner, part->json, part->size);
    if (status == MMQ_OK)
        status = mmqi_field_need(&inner, "id", MMQI_FIELD_TEXT, &id);
    if (status == MMQ_OK)
        status = strcmp(outer.list[0].key, "Sequence") == 0 ? add_text(template, id->text)
                                                            : add_special(template, id->text);
    mmqi_fields_clear(&outer);
    mmqi_fields_clear(&inner);
    return status;
}

static int32_t read_template(struct mmqi_stage *stage, struct mmqi_fields *fields)
{
    const struct mmqi_field *single, *specials = mmqi_field_find(fields, "special_tokens");
    struct template template = {.stage = stage, .fields = fields};
    int32_t status = mmqi_field_need(fields, "single", MMQI_FIELD_OTHER, &single);

    template.specials.name = fields->name;
    snprintf(template.specials.where, sizeof template.specials.where, "%.70s.special_tokens",
             fields->where);
    if (status == MMQ_OK && specials && specials->kind == MMQI_FIELD_OTHER)
        status = mmqi_fields_read(&template.specials, specials->json, specials->size);
    if (status == MMQ_OK)
        status = mmqi_fields_each(fields, single, add_part, &template);
    if (status == MMQ_OK && !template.seen_text)
        status = mmqi_fields_fail(fields, MMQ_ERR_UNSUPPORTED,
                                  "'single' does not hold sequence 'A' once");
    mmqi_fields_clear(&template.specials);
    return status;
}

const struct mmqi_stage_kind mmqi_post_processor_kinds[] = {
    {.type = "TemplateProcessing", .read = read_template},
    {.type = "ByteLevel"}, /* moves offsets, which are not kept here */
    {.type = NULL},
};
