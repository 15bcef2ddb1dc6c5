#include "core/text.h"

#include <string.h>

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
