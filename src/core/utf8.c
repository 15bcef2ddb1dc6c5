#include "core/utf8.h"

#include <string.h>

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

size_t mmqi_utf8_before(const char *text, size_t end)
{
    do
        end--;
    while (end > 0 && ((unsigned char)text[end] & 0xC0) == 0x80);
    return end;
}

size_t mmqi_utf8_encode(char *out, int32_t code)
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

size_t mmqi_utf8_run(const char *text, size_t size)
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
    return mmqi_utf8_run(text, size) == size;
}
