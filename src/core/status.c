#include "core/status.h"

#include <stdarg.h>
#include <stdio.h>

#include "core/text.h"

static _Thread_local char message[MMQI_MESSAGE_BYTES];

int32_t mmqi_fail(int32_t status, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    vsnprintf(message, sizeof message, format, args);
    va_end(args);
    mmqi_make_line(message);
    return status;
}

const char *mmqi_message(void)
{
    return message;
}
