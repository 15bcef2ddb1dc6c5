/*
 * Failing with a status and one line of text.
 *
 * The line lives in a fixed thread-local buffer: no allocation, no lock, and
 * a failure on one thread never shows on another. It is written once, where
 * the fault is first known; callers pass the status up as it is.
 */
#ifndef MMQI_CORE_STATUS_H
#define MMQI_CORE_STATUS_H

#include "mmq.h"

enum { MMQI_MESSAGE_BYTES = 512 };

/* Write this thread's message and return `status`. Longer text is cut at a
 * whole UTF-8 character; what is not printable (in a hostile file's names) and
 * what is not UTF-8 (in a path) become '?'. */
int32_t mmqi_fail(int32_t status, const char *format, ...)
    __attribute__((format(printf, 2, 3), cold));

/* This thread's last message; "" before the first failure. */
const char *mmqi_message(void);

#endif
