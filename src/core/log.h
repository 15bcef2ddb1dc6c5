/*
 * Lines about what the library does, for the host's log; the library itself
 * prints nothing. Lines name files, devices, formats and sizes, never what
 * users write or models answer.
 */
#ifndef MMQI_CORE_LOG_H
#define MMQI_CORE_LOG_H

#include <stdint.h>

#include "mmq.h"

struct mmqi_log {
    void (*line)(void *user, int32_t level, const char *line); /* any thread; NULL: no log */
    void *user;
};

/* Give the host one line, cut and made printable as messages are. Nothing is formatted where there
 * is no log (NULL, or one without `line`). */
void mmqi_log(const struct mmqi_log *log, int32_t level, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#endif
