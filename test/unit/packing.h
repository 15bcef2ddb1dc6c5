/*
 * Packing a matrix as the quantizer does, for the tests of weight formats.
 */
#ifndef MMQ_TEST_UNIT_PACKING_H
#define MMQ_TEST_UNIT_PACKING_H

#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "core/status.h"
#include "quant/format.h"

struct packed {
    const struct mmqi_format_info *info;
    struct mmqi_layout layout;
    int64_t rows, cols;
    uint8_t *block;
    float *flat; /* absmax before nesting; NULL for the other formats */
    const uint8_t *part[MMQI_MAX_PARTS];
};

static void pack_chunk(struct packed *p, const float *w, int64_t begin, int64_t n, int32_t method)
{
    uint8_t *part[MMQI_MAX_PARTS] = {NULL};
    struct mmqi_layout before;

    ck_assert_int_eq(p->info->layout(&before, begin, p->cols), MMQ_OK);
    for (int32_t i = 0; i < p->layout.n_parts; i++)
        part[i] = p->block + p->layout.part[i].offset + before.part[i].bytes;
    if (p->info->nested)
        part[1] = (uint8_t *)(p->flat + before.part[1].shape[0]);
    p->info->pack(part, w + begin * p->cols, n, p->cols, method);
}

/* In chunks of `chunk` rows; each part ends where the next begins. */
static struct packed pack_by(const char *format, int32_t method, const float *w, int64_t rows,
                             int64_t cols, int64_t chunk)
{
    struct packed p = {.info = mmqi_format_find(format), .rows = rows, .cols = cols};
    uint8_t *part[MMQI_MAX_PARTS] = {NULL};

    ck_assert_ptr_nonnull(p.info);
    ck_assert_int_eq(p.info->layout(&p.layout, rows, cols), MMQ_OK);
    p.block = malloc(p.layout.bytes + 1);
    memset(p.block, 0xa5, p.layout.bytes);
    if (p.info->nested)
        p.flat = malloc((size_t)p.layout.part[1].shape[0] * sizeof *p.flat + 1);
    for (int64_t begin = 0; begin < rows; begin += chunk)
        pack_chunk(&p, w, begin, rows - begin < chunk ? rows - begin : chunk, method);
    for (int32_t i = 0; i < p.layout.n_parts; i++)
        p.part[i] = part[i] = p.block + p.layout.part[i].offset;
    if (p.info->nested)
        p.info->nest(part, p.flat, p.layout.part[1].shape[0]);
    return p;
}

__attribute__((unused)) static struct packed pack(const char *format, const float *w, int64_t rows,
                                                  int64_t cols, int64_t chunk)
{
    return pack_by(format, MMQI_METHOD_RTN, w, rows, cols, chunk);
}

static void free_packed(struct packed *p)
{
    free(p->block);
    free(p->flat);
}

static float *unpack(const struct packed *p)
{
    float *w = malloc((size_t)(p->rows * p->cols) * sizeof *w + 1);

    p->info->unpack(w, p->part, p->rows, p->cols, 0, p->rows * p->cols);
    return w;
}

__attribute__((unused)) static void assert_part(const struct packed *p, int32_t i,
                                                const uint8_t *expected, size_t bytes)
{
    ck_assert_uint_eq(p->layout.part[i].bytes, bytes);
    ck_assert_mem_eq(p->part[i], expected, bytes);
}

/* Numbers of a fixed sequence in (-1, 1), some exactly zero. */
static float *numbers(int64_t count, uint32_t seed)
{
    float *w = malloc((size_t)count * sizeof *w + 1);

    for (int64_t i = 0; i < count; i++) {
        seed = seed * 1664525u + 1013904223u;
        w[i] = seed >> 28 == 0 ? 0.0f : (float)(int32_t)seed / 2147483648.0f;
    }
    return w;
}

#endif
