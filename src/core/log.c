#include "core/log.h"

#include <stdarg.h>
#include <stdio.h>

#include "core/mem.h"
#include "core/status.h"
#include "core/text.h"

void mmqi_log(const struct mmqi_log *log, int32_t level, const char *format, ...)
{
    const struct mmqi_mem_hooks *hooks;
    char text[MMQI_MESSAGE_BYTES];
    va_list args;

    if (!log || !log->line)
        return;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    mmqi_make_line(text);
    hooks = mmqi_mem_enter(NULL);
    log->line(log->user, level, text);
    mmqi_mem_enter(hooks);
}
