#include "core/text.h"

#include <string.h>

#include "core/utf8.h"

void mmqi_cut_utf8(char *text)
{
    size_t size = strlen(text), begin = size;
    unsigned char lead;
    size_t need;

    while (begin > 0 && size - begin < 4 && ((unsigned char)text[begin - 1] & 0xC0) == 0x80)
        begin--;
    if (begin == 0)
        return;
    lead = (unsigned char)text[begin - 1];
    need = lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : lead >= 0xC0 ? 2 : 1;
    if (need > 1 && size - (begin - 1) < need)
        text[begin - 1] = '\0';
}

bool mmqi_starts_with(const char *text, const char *prefix)
{
    return strncmp(text, prefix, strlen(prefix)) == 0;
}

bool mmqi_ends_with(const char *text, const char *suffix)
{
    size_t n = strlen(text), m = strlen(suffix);

    return n >= m && memcmp(text + n - m, suffix, m) == 0;
}

size_t mmqi_find_word(const char *text, size_t size, size_t from, const char *word, size_t n)
{
    const char *found = from < size ? memmem(text + from, size - from, word, n) : NULL;

    return found ? (size_t)(found - text) : size;
}

void mmqi_copy_text(char *dst, size_t dst_size, const char *src)
{
    size_t size = strlen(src);

    if (dst_size == 0)
        return;
    if (size >= dst_size)
        size = dst_size - 1;
    memcpy(dst, src, size);
    dst[size] = '\0';
    mmqi_cut_utf8(dst);
}

/* Controls, line separators and marks that turn the reading direction are not. */
static bool is_printable(int32_t code)
{
    return code >= 0x20 && !(code >= 0x7F && code <= 0x9F) && !(code >= 0x2028 && code <= 0x202E) &&
           !(code >= 0x2066 && code <= 0x2069);
}

void mmqi_make_line(char *text)
{
    size_t size, at, length;
    char *to = text;

    mmqi_cut_utf8(text);
    size = strlen(text);
    for (at = 0; at < size; at += length) {
        if (is_printable(mmqi_utf8_decode(text + at, size - at, &length))) {
            memmove(to, text + at, length);
            to += length;
        } else {
            *to++ = '?';
        }
    }
    *to = '\0';
}
