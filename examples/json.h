/*
 * A small bounded JSON reader for the example programs: a text becomes a tree of values.
 *
 * It reads hostile text: size, depth, keys of an object and values are limited, bytes must be
 * UTF-8, numbers finite, keys unique, and no string may hold a zero character.
 */
#ifndef EXAMPLES_JSON_H
#define EXAMPLES_JSON_H

#include <stdbool.h>
#include <stddef.h>

enum {
    JSON_MOST_BYTES = 32 << 20,
    JSON_MOST_VALUES = 1 << 20,
    JSON_MOST_DEPTH = 32,
    JSON_MOST_KEYS = 256, /* of one object */
};

enum json_type {
    JSON_NULL,
    JSON_FALSE,
    JSON_TRUE,
    JSON_NUMBER,
    JSON_STRING,
    JSON_ARRAY,
    JSON_OBJECT,
};

/* One value; it and its strings live as long as the document. */
struct json_value {
    enum json_type type;
    const char *key;  /* NULL unless it stands in an object */
    const char *text; /* of a string; NULL otherwise */
    size_t n;         /* bytes of a string, items of an array, members of an object */
    double number;
    const struct json_value *first; /* item or member of a container; NULL when empty */
    const struct json_value *next;  /* in the same container */
};

struct json_document {
    char *text;                /* the input; strings are decoded in place */
    struct json_value *values; /* values[0] is the root */
    size_t n_values, most_values;
    char error[256]; /* "byte 17: ..." after a failure, one line */
};

/*
 * Read a whole file, or a copy of `text` [size bytes]. False with doc->error told, and nothing to
 * free, when it cannot be read or is not JSON within the limits. Otherwise the caller calls
 * json_free().
 */
bool json_read_file(struct json_document *doc, const char *path);
bool json_read_text(struct json_document *doc, const char *text, size_t size);

void json_free(struct json_document *doc); /* accepts a document of zeros */

/* The member of an object; NULL when `object` is none or has no such key. */
const struct json_value *json_get(const struct json_value *object, const char *key);

#endif
