/*
 * UTF-8 (RFC 3629), one character at a time: overlong forms, surrogates and
 * values past U+10FFFF are no characters.
 */
#ifndef MMQI_CORE_UTF8_H
#define MMQI_CORE_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    MMQI_UTF8_INVALID = -1, /* a maximal invalid part: stands for one U+FFFD */
    MMQI_UTF8_PARTIAL = -2  /* the text ends inside what may yet become a character */
};

#define MMQI_REPLACEMENT "\xEF\xBF\xBD" /* U+FFFD */

/*
 * The character at `text`, size > 0: its code point, or one of the two
 * values above. *length is the bytes it takes, at least 1; of bytes that are
 * no character, the longest start of a well-formed sequence (Unicode 3.9).
 */
int32_t mmqi_utf8_decode(const char *text, size_t size, size_t *length);

/* Where the last character of text[0 .. end) begins, end > 0; text in UTF-8. */
size_t mmqi_utf8_before(const char *text, size_t end);

/* Bytes of the longest beginning of text[0 .. size) that is whole characters; and whether that is
 * all of it. */
size_t mmqi_utf8_run(const char *text, size_t size);
bool mmqi_utf8_valid(const char *text, size_t size);

/* Write `code` (at most 0x10FFFF); returns the bytes written, 1 to 4. */
size_t mmqi_utf8_encode(char *out, int32_t code);

#endif
