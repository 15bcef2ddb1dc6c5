#include "core/status.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "core/text.h"
#include "core/utf8.h"

static _Thread_local char message[MMQI_MESSAGE_BYTES];

/* Controls, line separators and marks that turn the reading direction are not. */
static bool is_printable(int32_t code)
{
    return code >= 0x20 && !(code >= 0x7F && code <= 0x9F) && !(code >= 0x2028 && code <= 0x202E) &&
           !(code >= 0x2066 && code <= 0x2069);
}

/* One printable line: a hostile name must not move the reader's cursor. */
static void make_printable(char *text)
{
    size_t size = strlen(text), at, length;
    char *to = text;

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

int32_t mmqi_fail(int32_t status, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    vsnprintf(message, sizeof message, format, args);
    va_end(args);
    mmqi_cut_utf8(message);
    make_printable(message);
    return status;
}

const char *mmqi_message(void)
{
    return message;
}
