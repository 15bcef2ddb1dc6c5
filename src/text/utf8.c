#include "text/utf8.h"

#include <string.h>
#include <utf8proc.h>

#include "core/buf.h"

void mmqi_utf8_repair(struct mmqi_buf *out, const char *text, size_t size)
{
    size_t at = 0, run, length;

    while (at < size && !mmqi_buf_failed(out)) {
        run = mmqi_utf8_run(text + at, size - at);
        mmqi_buf_append(out, text + at, run);
        at += run;
        if (at == size)
            break;
        mmqi_utf8_decode(text + at, size - at, &length);
        mmqi_buf_append(out, MMQI_REPLACEMENT, 3);
        at += length;
    }
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
