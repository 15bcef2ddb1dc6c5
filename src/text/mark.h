/*
 * Marks: how text from outside stays text on its way through a template.
 *
 * Where a string of a conversation spells a special token, or ends with what
 * begins one, the byte 0xFF, which no UTF-8 has, is put behind the first
 * character. Templates carry it along; the tokenizer takes it out again and
 * finds no added token that would cover a character with a mark. Everything
 * else reads the text as it was.
 */
#ifndef MMQI_TEXT_MARK_H
#define MMQI_TEXT_MARK_H

#include <stddef.h>
#include <stdint.h>

#include "core/buf.h"
#include "text/chat.h"
#include "text/matcher.h"
#include "text/tokenizer.h"

#define MMQI_MARK "\xFF"

/* The marked characters of a text without its marks: where they begin, in order. */
struct mmqi_marks {
    size_t *at;
    size_t n, capacity;
};

/* Append `text` without its marks, with what is not UTF-8 as U+FFFD; *marks tells the places. Fails
 * with MMQ_ERR_NOMEM alone, and writes no message. */
int32_t mmqi_marks_take(struct mmqi_marks *marks, struct mmqi_buf *out, const char *text,
                        size_t size);
/* Append text[begin, end), an unmarked text, with its marks again. */
void mmqi_marks_put(const struct mmqi_marks *marks, struct mmqi_buf *out, const char *text,
                    size_t begin, size_t end);
/* Is a character of [begin, end) marked? */
int mmqi_marks_any(const struct mmqi_marks *marks, size_t begin, size_t end);
/* Take out the matches, which are in order of their beginning, that cover a mark. */
void mmqi_marks_drop(const struct mmqi_marks *marks, struct mmqi_matches *matches);
void mmqi_marks_free(struct mmqi_marks *marks);
/* Drop every mark of `text` in place; returns the bytes left, with a zero byte after them. */
size_t mmqi_unmark(char *text, size_t size);

/* A conversation whose strings are marked. Zeroed before the first use. */
struct mmqi_marked {
    struct mmqi_chat_input input; /* what a template reads */
    struct mmqi_chat_message *messages;
    struct mmqi_chat_part *parts;
    struct mmqi_buf text;
};

/* Mark roles and texts of `input`, which is not kept, at the special tokens and at `marker`, which
 * is treated as one (NULL: nothing more). */
int32_t mmqi_mark_chat(struct mmqi_marked *marked, const struct mmqi_tokenizer *tokenizer,
                       const char *marker, const struct mmqi_chat_input *input);
void mmqi_marked_free(struct mmqi_marked *marked);

#endif
