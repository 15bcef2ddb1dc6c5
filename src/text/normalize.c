/*
 * Normalizers: each maps one piece of text between added tokens to another.
 */
#include <utf8proc.h>

#include "core/mem.h"
#include "core/status.h"
#include "core/utf8.h"
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

/* ---- NFC ---- */

/* Compose `n` code points, decomposed and in canonical order, and append them. */
static void append_composed(struct mmqi_buf *out, int32_t *codes, utf8proc_ssize_t n)
{
    char spelled[512];
    size_t size = 0;

    n = utf8proc_normalize_utf32(codes, n, UTF8PROC_STABLE | UTF8PROC_COMPOSE);
    for (utf8proc_ssize_t i = 0; i < n; i++) {
        size += mmqi_utf8_encode(spelled + size, codes[i]);
        if (size > sizeof spelled - 4) {
            mmqi_buf_append(out, spelled, size);
            size = 0;
        }
    }
    mmqi_buf_append(out, spelled, size);
}

/* Text that composes with nothing around it. */
static void compose_part(struct mmqi_buf *out, const char *text, size_t size)
{
    const utf8proc_option_t options = UTF8PROC_STABLE | UTF8PROC_DECOMPOSE;
    const utf8proc_uint8_t *bytes = (const utf8proc_uint8_t *)text;
    utf8proc_ssize_t n = utf8proc_decompose(bytes, (utf8proc_ssize_t)size, NULL, 0, options);
    int32_t *codes = n < 0 ? NULL : mmqi_alloc_array((size_t)n + 1, sizeof *codes);

    if (!codes) {
        out->failed = true;
        return;
    }
    n = utf8proc_decompose(bytes, (utf8proc_ssize_t)size, codes, n, options);
    append_composed(out, codes, n);
    mmqi_free(codes);
}

/* Canonical composition. ASCII never joins what stands before it: a part begins with the last ASCII
 * character before others and ends before the next one. */
static void compose(const struct mmqi_stage *stage, struct mmqi_buf *out, const char *text,
                    size_t size)
{
    size_t at = 0, plain, end;

    (void)stage;
    while (at < size) {
        for (plain = at; plain < size && (unsigned char)text[plain] < 0x80; plain++)
            ;
        end = plain;
        if (plain < size && plain > at)
            plain--;
        mmqi_buf_append(out, text + at, plain - at);
        for (; end < size && (unsigned char)text[end] >= 0x80; end++)
            ;
        if (end > plain)
            compose_part(out, text + plain, end - plain);
        at = end;
    }
}

const struct mmqi_stage_kind mmqi_normalizer_kinds[] = {
    {.type = "NFC", .normalize = compose},
    {.type = "Prepend", .read = read_prepend, .normalize = prepend},
    {.type = "Replace", .read = mmqi_stage_read_replace, .normalize = replace},
    {.type = NULL},
};
