/*
 * A byte buffer that grows, for text that is put together piece by piece.
 *
 * An allocation that fails marks the buffer; later appends do nothing, and
 * the one check of mmqi_buf_failed() at the end is enough.
 */
#ifndef MMQI_CORE_BUF_H
#define MMQI_CORE_BUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct mmqi_buf {
    char *data;  /* always ends with a zero byte once anything was appended; NULL before */
    size_t size; /* bytes, the zero byte not counted */
    size_t capacity;
    bool failed;
};

void mmqi_buf_append(struct mmqi_buf *buf, const void *data, size_t size);
void mmqi_buf_text(struct mmqi_buf *buf, const char *text);
void mmqi_buf_format(struct mmqi_buf *buf, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* A finite number in the C locale's spelling with 9 significant digits; null for NaN and Inf
 * (JSON). */
void mmqi_buf_number(struct mmqi_buf *buf, double value);
/* `text` as a JSON string with its quotes; bytes that are not UTF-8 become U+FFFD. */
void mmqi_buf_json_string(struct mmqi_buf *buf, const char *text, size_t size);
bool mmqi_buf_failed(const struct mmqi_buf *buf);
void mmqi_buf_clear(struct mmqi_buf *buf); /* keeps the memory, takes the failure mark away */
/* Hand the text over (free with mmqi_free()); "" for an empty buffer, NULL after a failure. */
char *mmqi_buf_take(struct mmqi_buf *buf);
void mmqi_buf_free(struct mmqi_buf *buf);

#endif
