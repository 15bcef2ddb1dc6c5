/*
 * Normalizers: each maps one piece of text between added tokens to another.
 */
#include <string.h>

#include <utf8proc.h>

#include "core/mem.h"
#include "core/status.h"
#include "text/stage.h"
#include "text/utf8.h"

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

/* ---- Lowercase ---- */

/* Each character by itself, as Unicode's full mapping has it; one becomes two. */
static void lower(const struct mmqi_stage *stage, struct mmqi_buf *out, const char *text,
                  size_t size)
{
    char spelled[8];
    size_t at, length, n;
    int32_t code;

    (void)stage;
    for (at = 0; at < size; at += length) {
        code = mmqi_utf8_decode(text + at, size - at, &length);
        if (code < 0) { /* a mark */
            mmqi_buf_append(out, text + at, length);
            continue;
        }
        n = mmqi_utf8_encode(spelled, code == 0x130 ? 'i' : utf8proc_tolower(code));
        if (code == 0x130)
            n += mmqi_utf8_encode(spelled + n, 0x307);
        mmqi_buf_append(out, spelled, n);
    }
}

/* ---- Strip: white space at the ends ---- */

static int32_t read_strip(struct mmqi_stage *stage, struct mmqi_fields *fields)
{
    int32_t status = mmqi_field_bool(fields, "strip_left", true, &stage->strip_left);

    return status == MMQ_OK ? mmqi_field_bool(fields, "strip_right", true, &stage->strip_right)
                            : status;
}

static void strip(const struct mmqi_stage *stage, struct mmqi_buf *out, const char *text,
                  size_t size)
{
    size_t begin = 0, end = 0, at, length;
    bool inside = !stage->strip_left;

    for (at = 0; at < size; at += length) {
        if (mmqi_is_space(mmqi_utf8_decode(text + at, size - at, &length))) {
            begin = inside ? begin : at + length;
        } else {
            inside = true;
            end = at + length;
        }
    }
    if (!stage->strip_right)
        end = size;
    if (end > begin)
        mmqi_buf_append(out, text + begin, end - begin);
}

const struct mmqi_stage_kind mmqi_normalizer_kinds[] = {
    {.type = "NFC", .normalize = mmqi_normalize_nfc},
    {.type = "NFD", .normalize = mmqi_normalize_nfd},
    {.type = "NFKC", .normalize = mmqi_normalize_nfkc},
    {.type = "NFKD", .normalize = mmqi_normalize_nfkd},
    {.type = "Lowercase", .normalize = lower},
    {.type = "Strip", .read = read_strip, .normalize = strip},
    {.type = "Prepend", .read = read_prepend, .normalize = prepend},
    {.type = "Replace", .read = mmqi_stage_read_replace, .normalize = replace},
    {.type = NULL},
};
