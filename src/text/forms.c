/*
 * Unicode's normalization forms, in linear time.
 */
#include <string.h>

#include <utf8proc.h>

#include "core/mem.h"
#include "core/utf8.h"
#include "text/mark.h"
#include "text/stage.h"

enum { MAX_PARTS = 32 }; /* of one character; Unicode has 18 at most */

static void append_codes(struct mmqi_buf *out, const int32_t *codes, utf8proc_ssize_t n)
{
    char spelled[512];
    size_t size = 0;

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
static size_t decompose(int32_t *codes, const char *text, size_t size, bool compatible)
{
    const utf8proc_option_t options =
        UTF8PROC_STABLE | UTF8PROC_DECOMPOSE | (compatible ? UTF8PROC_COMPAT : 0);
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

/* One of the four forms. */
struct form {
    bool composed, compatible;
};

/* Text that composes with nothing around it. */
static void write_part(struct mmqi_buf *out, const char *text, size_t size, struct form form)
{
    utf8proc_ssize_t n = (utf8proc_ssize_t)decompose(NULL, text, size, form.compatible);
    int32_t *codes = mmqi_alloc_array(2 * (size_t)n + 1, sizeof *codes);

    if (!codes) {
        out->failed = true;
        return;
    }
    decompose(codes, text, size, form.compatible);
    order_marks(codes, (size_t)n, codes + n);
    if (form.composed)
        n = utf8proc_normalize_utf32(codes, n, UTF8PROC_STABLE | UTF8PROC_COMPOSE);
    append_codes(out, codes, n);
    mmqi_free(codes);
}

/* Is a character the same in all forms, and joins nothing before it? Only what texts are full of:
 * ideographs, pictures, and what stands for bytes that are no text. */
static bool is_inert(int32_t code)
{
    return (code >= 0x3400 && code <= 0x9FFF) || (code >= 0x20000 && code <= 0x2F7FF) ||
           (code >= 0x1F300 && code <= 0x1FAFF) || code == 0xFFFD;
}

/* Bytes at the start of `text` that are ASCII or inert; *last: where the last of these characters
 * begins. */
static size_t inert_run(const char *text, size_t size, size_t *last)
{
    size_t at = 0, length;

    *last = 0;
    while (at < size) {
        length = 1;
        if ((unsigned char)text[at] >= 0x80 &&
            !is_inert(mmqi_utf8_decode(text + at, size - at, &length)))
            break;
        *last = at;
        at += length;
    }
    return at;
}

/* Bytes at the start of `text`, which is not inert, up to what is, or a mark. */
static size_t other_run(const char *text, size_t size)
{
    size_t at = 0, length;

    while (at < size && (unsigned char)text[at] >= 0x80 && text[at] != MMQI_MARK[0] &&
           !is_inert(mmqi_utf8_decode(text + at, size - at, &length)))
        at += length;
    return at;
}

/* ASCII and inert characters never join what stands before them: a part begins with the last of
 * them before others and ends before the next one. */
static void write_form(struct mmqi_buf *out, const char *text, size_t size, struct form form)
{
    size_t at = 0, run, last, others;

    while (at < size) {
        run = inert_run(text + at, size - at, &last);
        others = other_run(text + at + run, size - at - run);
        if (others == 0)
            last = run;
        mmqi_buf_append(out, text + at, last);
        if (others > 0)
            write_part(out, text + at + last, run + others - last, form);
        at += run + others;
        if (at < size && text[at] == MMQI_MARK[0]) { /* goes through; the rest begins anew */
            mmqi_buf_append(out, MMQI_MARK, 1);
            at++;
        }
    }
}

void mmqi_normalize_nfc(const struct mmqi_stage *stage, struct mmqi_buf *out, const char *text,
                        size_t size)
{
    (void)stage;
    write_form(out, text, size, (struct form){.composed = true});
}

void mmqi_normalize_nfd(const struct mmqi_stage *stage, struct mmqi_buf *out, const char *text,
                        size_t size)
{
    (void)stage;
    write_form(out, text, size, (struct form){.composed = false});
}

void mmqi_normalize_nfkc(const struct mmqi_stage *stage, struct mmqi_buf *out, const char *text,
                         size_t size)
{
    (void)stage;
    write_form(out, text, size, (struct form){.composed = true, .compatible = true});
}

void mmqi_normalize_nfkd(const struct mmqi_stage *stage, struct mmqi_buf *out, const char *text,
                         size_t size)
{
    (void)stage;
    write_form(out, text, size, (struct form){.compatible = true});
}
