/*
 * Normalizers: each maps one piece of text between added tokens to another.
 */
#include "core/mem.h"
#include "core/status.h"
#include "text/stage.h"

static int32_t read_prepend(struct mmqi_stage *stage, struct mmqi_fields *fields)
{
    const struct mmqi_field *text;
    int32_t status = mmqi_field_need(fields, "prepend", MMQI_FIELD_TEXT, &text);

    if (status != MMQ_OK)
        return status;
    stage->replace.content = mmqi_strndup(text->text, text->size);
    stage->replace.content_size = text->size;
    return stage->replace.content
               ? MMQ_OK
               : mmqi_fields_fail(fields, MMQ_ERR_NOMEM, "no memory for its text");
}

static void prepend(const struct mmqi_stage *stage, struct mmqi_buf *out, const char *text,
                    size_t size)
{
    if (size == 0)
        return; /* nothing stays nothing */
    mmqi_buf_append(out, stage->replace.content, stage->replace.content_size);
    mmqi_buf_append(out, text, size);
}

static void replace(const struct mmqi_stage *stage, struct mmqi_buf *out, const char *text,
                    size_t size)
{
    size_t held = 0;

    mmqi_replace_feed(&stage->replace, &held, out, text, size);
    mmqi_replace_finish(&stage->replace, &held, out);
}

const struct mmqi_stage_kind mmqi_normalizer_kinds[] = {
    {.type = "Prepend", .read = read_prepend, .normalize = prepend},
    {.type = "Replace", .read = mmqi_stage_read_replace, .normalize = replace},
    {.type = NULL},
};
