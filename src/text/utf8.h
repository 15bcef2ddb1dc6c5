/*
 * UTF-8 in and out, and the classes of code points that tokenizers ask for.
 */
#ifndef MMQI_TEXT_UTF8_H
#define MMQI_TEXT_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct mmqi_buf;

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

bool mmqi_utf8_valid(const char *text, size_t size);

/* Append `text` with every maximal invalid part as U+FFFD. */
void mmqi_utf8_repair(struct mmqi_buf *out, const char *text, size_t size);

/* Write `code` (at most 0x10FFFF); returns the bytes written, 1 to 4. */
size_t mmqi_utf8_encode(char out[4], int32_t code);

/* What the patterns of byte-level tokenizers tell apart, in one look-up. */
enum mmqi_class { MMQI_LETTER, MMQI_NUMBER, MMQI_SPACE, MMQI_OTHER };

enum mmqi_class mmqi_class_of(int32_t code);
bool mmqi_is_letter(int32_t code); /* \p{L} */
bool mmqi_is_number(int32_t code); /* \p{N} */
bool mmqi_is_space(int32_t code);  /* White_Space, what \s means in a Unicode regex */
bool mmqi_is_word(int32_t code);   /* \w: alphabetic, marks, decimal digits, connectors, joiners */

#endif
