/*
 * Replacing one text by another in a stream: leftmost matches that do not
 * overlap, in linear time (Knuth, Morris and Pratt), with no look back.
 */
#ifndef MMQI_TEXT_REPLACE_H
#define MMQI_TEXT_REPLACE_H

#include <stddef.h>
#include <stdint.h>

struct mmqi_buf;

struct mmqi_replace {
    char *pattern, *content;
    size_t pattern_size, content_size;
    uint32_t *border; /* by length: the longest proper start of the pattern that is its end */
};

/* Copies both texts. An empty pattern is MMQ_ERR_INVALID; no message is written. */
int32_t mmqi_replace_init(struct mmqi_replace *replace, const char *pattern, size_t pattern_size,
                          const char *content, size_t content_size);
void mmqi_replace_free(struct mmqi_replace *replace);

/* `held` counts the bytes of the pattern matched so far, 0 before the first piece: they are not
 * in `out` yet. */
void mmqi_replace_feed(const struct mmqi_replace *replace, size_t *held, struct mmqi_buf *out,
                       const char *text, size_t size);
void mmqi_replace_finish(const struct mmqi_replace *replace, size_t *held, struct mmqi_buf *out);

#endif
