#include "text/utf8.h"

#include <string.h>
#include <utf8proc.h>

#include "core/buf.h"

/* Lead byte: how many bytes follow and what the first of them may be (RFC 3629). */
static size_t lead_follow(unsigned char lead, unsigned char *low, unsigned char *high)
{
    *low = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
    *high = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
    if (lead >= 0xC2 && lead <= 0xDF)
        return 1;
    if (lead >= 0xE0 && lead <= 0xEF)
        return 2;
    return lead >= 0xF0 && lead <= 0xF4 ? 3 : 0;
}

int32_t mmqi_utf8_decode(const char *text, size_t size, size_t *length)
{
    const unsigned char *p = (const unsigned char *)text;
    unsigned char low, high;
    size_t follow, i;
    int32_t code;

    *length = 1;
    if (p[0] < 0x80)
        return p[0];
    follow = lead_follow(p[0], &low, &high);
    if (follow == 0)
        return MMQI_UTF8_INVALID;
    code = p[0] & (0x3F >> follow);
    for (i = 1; i <= follow; i++) {
        if (i == size)
            return MMQI_UTF8_PARTIAL;
        if (p[i] < low || p[i] > high)
            return MMQI_UTF8_INVALID;
        code = code << 6 | (p[i] & 0x3F);
        *length = i + 1;
        low = 0x80;
        high = 0xBF;
    }
    return code;
}

/* Bytes of plain ASCII at the start, counted eight at a time. */
static size_t ascii_run(const char *text, size_t size)
{
    size_t n = 0;
    uint64_t word;

    while (size - n >= sizeof word) {
        memcpy(&word, text + n, sizeof word);
        if (word & UINT64_C(0x8080808080808080))
            break;
        n += sizeof word;
    }
    while (n < size && (unsigned char)text[n] < 0x80)
        n++;
    return n;
}

/* Bytes of well-formed text at the start. */
static size_t valid_run(const char *text, size_t size)
{
    size_t at = ascii_run(text, size), length;

    while (at < size) {
        if (mmqi_utf8_decode(text + at, size - at, &length) < 0)
            break;
        at += length;
        if (length == 1)
            at += ascii_run(text + at, size - at);
    }
    return at;
}

bool mmqi_utf8_valid(const char *text, size_t size)
{
    return valid_run(text, size) == size;
}

void mmqi_utf8_repair(struct mmqi_buf *out, const char *text, size_t size)
{
    size_t at = 0, run, length;

    while (at < size && !mmqi_buf_failed(out)) {
        run = valid_run(text + at, size - at);
        mmqi_buf_append(out, text + at, run);
        at += run;
        if (at == size)
            break;
        mmqi_utf8_decode(text + at, size - at, &length);
        mmqi_buf_append(out, MMQI_REPLACEMENT, 3);
        at += length;
    }
}

size_t mmqi_utf8_encode(char out[4], int32_t code)
{
    if (code < 0x80) {
        out[0] = (char)code;
        return 1;
    }
    if (code < 0x800) {
        out[0] = (char)(0xC0 | code >> 6);
        out[1] = (char)(0x80 | (code & 0x3F));
        return 2;
    }
    if (code < 0x10000) {
        out[0] = (char)(0xE0 | code >> 12);
        out[1] = (char)(0x80 | (code >> 6 & 0x3F));
        out[2] = (char)(0x80 | (code & 0x3F));
        return 3;
    }
    out[0] = (char)(0xF0 | code >> 18);
    out[1] = (char)(0x80 | (code >> 12 & 0x3F));
    out[2] = (char)(0x80 | (code >> 6 & 0x3F));
    out[3] = (char)(0x80 | (code & 0x3F));
    return 4;
}

enum mmqi_class mmqi_class_of(int32_t code)
{
    utf8proc_category_t category;

    if (code < 0x80) {
        if ((code | 0x20) >= 'a' && (code | 0x20) <= 'z')
            return MMQI_LETTER;
        if (code >= '0' && code <= '9')
            return MMQI_NUMBER;
        return mmqi_is_space(code) ? MMQI_SPACE : MMQI_OTHER;
    }
    category = utf8proc_category(code);
    if (category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_LO)
        return MMQI_LETTER;
    if (category >= UTF8PROC_CATEGORY_ND && category <= UTF8PROC_CATEGORY_NO)
        return MMQI_NUMBER;
    return mmqi_is_space(code) ? MMQI_SPACE : MMQI_OTHER;
}

bool mmqi_is_letter(int32_t code)
{
    return mmqi_class_of(code) == MMQI_LETTER;
}

bool mmqi_is_number(int32_t code)
{
    return mmqi_class_of(code) == MMQI_NUMBER;
}

bool mmqi_is_space(int32_t code)
{
    if (code < 0x80)
        return code == ' ' || (code >= '\t' && code <= '\r');
    return code == 0x85 || code == 0xA0 || code == 0x1680 || (code >= 0x2000 && code <= 0x200A) ||
           code == 0x2028 || code == 0x2029 || code == 0x202F || code == 0x205F || code == 0x3000;
}

/* Symbols that are alphabetic all the same: circled, squared and regional-style capitals. */
static bool is_alphabetic_symbol(int32_t code)
{
    return (code >= 0x24B6 && code <= 0x24E9) || (code >= 0x1F130 && code <= 0x1F149) ||
           (code >= 0x1F150 && code <= 0x1F169) || (code >= 0x1F170 && code <= 0x1F189);
}

bool mmqi_is_word(int32_t code)
{
    utf8proc_category_t category = utf8proc_category(code);

    return (category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_NL) ||
           category == UTF8PROC_CATEGORY_PC || code == 0x200C || code == 0x200D ||
           is_alphabetic_symbol(code);
}
