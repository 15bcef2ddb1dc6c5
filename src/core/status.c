#include "core/status.h"

#include <stdarg.h>
#include <stdio.h>

#include "core/text.h"

static _Thread_local char message[MMQI_MESSAGE_BYTES];

/* One printable line: a hostile name must not move the reader's cursor. */
static void make_printable(char *text)
{
    for (; *text != '\0'; text++)
        if ((unsigned char)*text < 0x20 || *text == 0x7f)
            *text = '?';
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
