/*
 * A strict JSON pull parser: no tree, no recursion.
 *
 * The caller asks for one event after the other; memory is a fixed stack of
 * MMQI_JSON_DEPTH levels, one buffer for the string in hand, and the hashes
 * of the open objects' keys. It refuses what RFC 8259 does not allow
 * (comments, trailing commas, NaN, leading zeros, raw control bytes, bytes
 * that are not UTF-8, lone surrogates), text after the value, numbers beyond
 * a double, deeper nesting, and longer strings than the limit.
 * Duplicate keys are refused within each object by a 64-bit hash and, where the
 * hash meets, by comparing the keys.
 */
#ifndef MMQI_IO_JSON_H
#define MMQI_IO_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    MMQI_JSON_DEPTH = 64,
    MMQI_JSON_MAX_STRING = 16 << 20, /* bytes of one string or number as spelled */
    MMQI_JSON_MAX_TEXT = 1 << 30     /* bytes of the whole text */
};

enum mmqi_json_event {
    MMQI_JSON_END = 0, /* the value is complete and nothing follows */
    MMQI_JSON_OBJECT,  /* { */
    MMQI_JSON_OBJECT_END,
    MMQI_JSON_ARRAY, /* [ */
    MMQI_JSON_ARRAY_END,
    MMQI_JSON_KEY, /* text, size: the key; its value comes next */
    MMQI_JSON_STRING,
    MMQI_JSON_NUMBER, /* number; text, size: as spelled */
    MMQI_JSON_TRUE,
    MMQI_JSON_FALSE,
    MMQI_JSON_NULL
};

struct mmqi_json; /* a parser at work */

/* `text` must outlive the parser; `name` (a file name, copied) opens every message. */
int32_t mmqi_json_open(struct mmqi_json **out, const char *name, const char *text, size_t size);
void mmqi_json_close(struct mmqi_json *json); /* accepts NULL */

/* The next event. A failed parser stays failed. MMQ_ERR_FORMAT with line and column (in bytes). */
int32_t mmqi_json_next(struct mmqi_json *json, enum mmqi_json_event *event);

/* What the last event carried; valid until the next call. Strings are unescaped, end
 * with a zero byte, and may hold zero bytes inside (compare sizes). */
const char *mmqi_json_text(const struct mmqi_json *json);
size_t mmqi_json_size(const struct mmqi_json *json);
bool mmqi_json_is(const struct mmqi_json *json, const char *text); /* the same, byte for byte? */
double mmqi_json_number(const struct mmqi_json *json);
/* The number as an integer; MMQ_ERR_FORMAT when it has a fraction or exponent or does not fit. */
int32_t mmqi_json_integer(struct mmqi_json *json, int64_t *value);
int32_t mmqi_json_depth(const struct mmqi_json *json);

/* Pass over the value whose first event was just returned (or whose key was). */
int32_t mmqi_json_skip(struct mmqi_json *json);
/* mmqi_fail() with name, line and column before the text. */
int32_t mmqi_json_fail(struct mmqi_json *json, int32_t status, const char *format, ...)
    __attribute__((format(printf, 3, 4), cold));
/* Byte offset of the start of the last event's token, for slicing raw text. */
size_t mmqi_json_offset(const struct mmqi_json *json);

#endif
