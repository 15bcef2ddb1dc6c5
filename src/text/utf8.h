/*
 * Whole texts in UTF-8, and the classes of code points that tokenizers ask for.
 */
#ifndef MMQI_TEXT_UTF8_H
#define MMQI_TEXT_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/utf8.h"

struct mmqi_buf;

/* Append `text` with every maximal invalid part as U+FFFD. */
void mmqi_utf8_repair(struct mmqi_buf *out, const char *text, size_t size);

/* What the patterns of byte-level tokenizers tell apart, in one look-up. */
enum mmqi_class { MMQI_LETTER, MMQI_NUMBER, MMQI_SPACE, MMQI_OTHER };

enum mmqi_class mmqi_class_of(int32_t code);
bool mmqi_is_letter(int32_t code); /* \p{L} */
bool mmqi_is_number(int32_t code); /* \p{N} */
bool mmqi_is_space(int32_t code);  /* White_Space, what \s means in a Unicode regex */
bool mmqi_is_word(int32_t code);   /* \w: alphabetic, marks, decimal digits, connectors, joiners */

#endif
