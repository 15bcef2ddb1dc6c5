/*
 * Normalizers: each maps one piece of text between added tokens to another.
 */
#include <string.h>

#include <utf8proc.h>

#include "core/mem.h"
#include "core/status.h"
#include "core/utf8.h"
#include "text/mark.h"
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

enum { MAX_PARTS = 8 }; /* of one character; Unicode has 4 at most */

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

static int32_t mark_class(int32_t code)
{
    return utf8proc_get_property(code)->combining_class;
}

/* A run of marks by their class; those of one class stay as they stand. */
static void sort_marks(int32_t *codes, size_t n, int32_t *spare)
{
    uint32_t begin[257] = {0};

    for (size_t i = 0; i < n; i++)
        begin[mark_class(codes[i]) + 1]++;
    for (int i = 1; i < 257; i++)
        begin[i] += begin[i - 1];
    for (size_t i = 0; i < n; i++)
        spare[begin[mark_class(codes[i])]++] = codes[i];
    memcpy(codes, spare, n * sizeof *codes);
}

/* Canonical order. A text may be one long run of marks, so it is sorted by counting: the library's
 * own way swaps neighbours, which takes the square of the run's length. */
static void order_marks(int32_t *codes, size_t n, int32_t *spare)
{
    for (size_t begin = 0, end; begin < n; begin = end + 1) {
        for (end = begin; end < n && mark_class(codes[end]) > 0; end++)
            ;
        if (end - begin > 1)
            sort_marks(codes + begin, end - begin, spare);
    }
}

/* The code points that the characters of `text` are made of, in no order of marks yet: as many as
 * it returns, written where `codes` is not NULL. */
static size_t decompose(int32_t *codes, const char *text, size_t size)
{
    const utf8proc_option_t options = UTF8PROC_STABLE | UTF8PROC_DECOMPOSE;
    int32_t parts[MAX_PARTS];
    utf8proc_ssize_t n_parts;
    size_t n = 0, length;

    for (size_t at = 0; at < size; at += length) {
        n_parts = utf8proc_decompose_char(mmqi_utf8_decode(text + at, size - at, &length), parts,
                                          MAX_PARTS, options, NULL);
        if (n_parts < 0 || n_parts > MAX_PARTS)
            continue; /* no character of Unicode makes so many */
        if (codes)
            memcpy(codes + n, parts, (size_t)n_parts * sizeof *parts);
        n += (size_t)n_parts;
    }
    return n;
}

/* Text that composes with nothing around it. */
static void compose_part(struct mmqi_buf *out, const char *text, size_t size)
{
    size_t n = decompose(NULL, text, size);
    int32_t *codes = mmqi_alloc_array(2 * n + 1, sizeof *codes);

    if (!codes) {
        out->failed = true;
        return;
    }
    decompose(codes, text, size);
    order_marks(codes, n, codes + n);
    append_composed(out, codes, (utf8proc_ssize_t)n);
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
        for (; end < size && (unsigned char)text[end] >= 0x80 && text[end] != MMQI_MARK[0]; end++)
            ;
        if (end > plain)
            compose_part(out, text + plain, end - plain);
        at = end;
        if (at < size && text[at] == MMQI_MARK[0]) { /* goes through; the rest begins anew */
            mmqi_buf_append(out, MMQI_MARK, 1);
            at++;
        }
    }
}

const struct mmqi_stage_kind mmqi_normalizer_kinds[] = {
    {.type = "NFC", .normalize = compose},
    {.type = "Prepend", .read = read_prepend, .normalize = prepend},
    {.type = "Replace", .read = mmqi_stage_read_replace, .normalize = replace},
    {.type = NULL},
};
