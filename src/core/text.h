/* Small helpers on zero-terminated text. */
#ifndef MMQI_CORE_TEXT_H
#define MMQI_CORE_TEXT_H

#include <stdbool.h>
#include <stddef.h>

/* Drop an incomplete UTF-8 character at the very end of `text`. */
void mmqi_cut_utf8(char *text);

/* Make `text` one printable line, never longer: a hostile name must not move the reader's cursor.
 * What is not printable, or not UTF-8, becomes '?'. */
void mmqi_make_line(char *text);

bool mmqi_starts_with(const char *text, const char *prefix);
bool mmqi_ends_with(const char *text, const char *suffix);

/* Where `word` of n bytes first begins in text[from .. size); `size` for nowhere. Both may hold
 * zero bytes. */
size_t mmqi_find_word(const char *text, size_t size, size_t from, const char *word, size_t n);

/* Copy with the end cut where it does not fit; always ends with a zero byte. */
void mmqi_copy_text(char *dst, size_t dst_size, const char *src);

#endif
