/*
 * What the files of this folder share: sorting that allocates nothing,
 * integers, and long names cut for messages.
 */
#ifndef MMQI_IO_UTIL_H
#define MMQI_IO_UTIL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { MMQI_CLIP_BYTES = 96 }; /* of a name in a message; several fit in one */

/* Does item `a` stand before item `b`? */
typedef bool (*mmqi_before_fn)(const void *context, uint32_t a, uint32_t b);

/* Put order[0..n) in order. Heap sort: n log n steps for hostile input too, in place; make
 * `before` a total order (the index last) where the result must not depend on chance. */
void mmqi_sort(uint32_t *order, size_t n, mmqi_before_fn before, const void *context);

/* The integer that `text` spells as JSON would; false where it spells another number or one that
 * does not fit, and then *value is left as it is. */
bool mmqi_parse_integer(const char *text, int64_t *value);

/* The length to print (with %.*s) of a name that may be too long for a message: all of it, or
 * the whole characters among the first MMQI_CLIP_BYTES bytes. */
int mmqi_clip(const char *text, size_t size);

#endif
