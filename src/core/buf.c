#include "core/buf.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "core/mem.h"
#include "core/os.h"
#include "core/utf8.h"

/* Room for `more` bytes and the zero byte; false (and marked) when refused. */
static bool reserve(struct mmqi_buf *buf, size_t more)
{
    size_t need, capacity = buf->capacity;
    char *data;

    if (buf->failed)
        return false;
    if (!mmqi_add_size(buf->size, more, &need) || !mmqi_add_size(need, 1, &need)) {
        buf->failed = true;
        return false;
    }
    if (need <= capacity)
        return true;
    capacity = capacity < 64 ? 64 : capacity > SIZE_MAX / 2 ? need : capacity * 2;
    if (capacity < need)
        capacity = need;
    data = mmqi_realloc_array(buf->data, capacity, 1);
    if (!data) {
        buf->failed = true;
        return false;
    }
    buf->data = data;
    buf->capacity = capacity;
    return true;
}

void mmqi_buf_append(struct mmqi_buf *buf, const void *data, size_t size)
{
    if (!reserve(buf, size))
        return;
    if (size > 0)
        memcpy(buf->data + buf->size, data, size);
    buf->size += size;
    buf->data[buf->size] = '\0';
}

void mmqi_buf_text(struct mmqi_buf *buf, const char *text)
{
    mmqi_buf_append(buf, text, strlen(text));
}

void mmqi_buf_format(struct mmqi_buf *buf, const char *format, ...)
{
    va_list args;
    int size;

    va_start(args, format);
    size = vsnprintf(NULL, 0, format, args);
    va_end(args);
    if (size < 0 || !reserve(buf, (size_t)size)) {
        buf->failed = true;
        return;
    }
    va_start(args, format);
    vsnprintf(buf->data + buf->size, (size_t)size + 1, format, args);
    va_end(args);
    buf->size += (size_t)size;
}

void mmqi_buf_number(struct mmqi_buf *buf, double value)
{
    char text[32];
    int size;

    if (!isfinite(value)) {
        mmqi_buf_text(buf, "null");
        return;
    }
    size = mmqi_os_print_number(text, value, 9);
    mmqi_buf_append(buf, text, (size_t)size);
}

/* The character at p as JSON wants it; returns the bytes taken from the text. */
static size_t append_json_character(struct mmqi_buf *buf, const char *p, size_t left)
{
    size_t n;

    if (mmqi_utf8_decode(p, left, &n) < 0) {
        mmqi_buf_text(buf, MMQI_REPLACEMENT);
    } else if (*p == '"' || *p == '\\') {
        mmqi_buf_append(buf, "\\", 1);
        mmqi_buf_append(buf, p, 1);
    } else if (*p == '\n') {
        mmqi_buf_text(buf, "\\n");
    } else if (*p == '\t') {
        mmqi_buf_text(buf, "\\t");
    } else if ((unsigned char)*p < 0x20) {
        mmqi_buf_format(buf, "\\u%04x", (unsigned char)*p);
    } else {
        mmqi_buf_append(buf, p, n);
    }
    return n;
}

void mmqi_buf_json_string(struct mmqi_buf *buf, const char *text, size_t size)
{
    size_t at = 0;

    mmqi_buf_append(buf, "\"", 1);
    while (at < size && !buf->failed)
        at += append_json_character(buf, text + at, size - at);
    mmqi_buf_append(buf, "\"", 1);
}

bool mmqi_buf_failed(const struct mmqi_buf *buf)
{
    return buf->failed;
}

void mmqi_buf_clear(struct mmqi_buf *buf)
{
    buf->size = 0;
    buf->failed = false;
    if (buf->data)
        buf->data[0] = '\0';
}

char *mmqi_buf_take(struct mmqi_buf *buf)
{
    char *data = NULL;

    if (!buf->failed && reserve(buf, 0)) {
        data = buf->data;
        data[buf->size] = '\0';
        buf->data = NULL;
    }
    mmqi_buf_free(buf);
    return data;
}

void mmqi_buf_free(struct mmqi_buf *buf)
{
    mmqi_free(buf->data);
    memset(buf, 0, sizeof *buf);
}
