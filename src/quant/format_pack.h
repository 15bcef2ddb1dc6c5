/*
 * Packing a matrix chunk by chunk, the rows of a chunk side by side in a pool.
 *
 * Chunks are whole steps of the format in ascending order; the bytes depend neither on how rows are
 * cut nor on the threads. The scales of a nested format are made when the last row is there: until
 * then the packer holds 4 bytes per block.
 */
#ifndef MMQI_QUANT_FORMAT_PACK_H
#define MMQI_QUANT_FORMAT_PACK_H

#include "core/thread.h"
#include "quant/format.h"

struct mmqi_packer {
    const struct mmqi_format_info *info;
    int32_t method;
    int64_t rows, cols;
    struct mmqi_layout layout; /* of the whole matrix */
    struct mmqi_pool *pool;    /* NULL: this thread alone */
    float *absmax;             /* of a nested format: flat, one per block; else NULL */
};

/* The bytes that rows make: of each part, [begin, begin + bytes). */
struct mmqi_packed_rows {
    uint64_t begin[MMQI_MAX_PARTS], bytes[MMQI_MAX_PARTS];
};

/* MMQ_ERR_NOMEM, MMQ_ERR_LIMIT. Closed with mmqi_packer_close(), also after a failure. */
int32_t mmqi_packer_open(struct mmqi_packer *packer, int32_t format, int32_t method, int64_t rows,
                         int64_t cols, struct mmqi_pool *pool);
void mmqi_packer_close(struct mmqi_packer *packer);

/* Bytes that a packer of such a matrix holds. */
uint64_t mmqi_packer_bytes(int32_t format, int64_t rows, int64_t cols);
/* Rows of a chunk: whole steps of the format within `bytes` of f32, one step at the least. */
int64_t mmqi_packer_step(int32_t format, int64_t rows, int64_t cols, uint64_t bytes);

/* Where rows [begin, begin + n) go. Of a nested format that is part 0 alone. */
int32_t mmqi_packer_find(const struct mmqi_packer *packer, struct mmqi_packed_rows *out,
                         int64_t begin, int64_t n);
/* Parts one after another from `base` on, each at a multiple of MMQI_PART_ALIGN. Returns the bytes
 * of all; `base` NULL: only that, and every part is NULL. */
uint64_t mmqi_packed_lay_out(uint8_t *part[MMQI_MAX_PARTS], uint8_t *base,
                             const struct mmqi_packed_rows *at);
/* Pack rows [begin, begin + n), f32 at `w`; part[i] receives the bytes of out->bytes[i]. */
void mmqi_packer_pack(struct mmqi_packer *packer, uint8_t *const part[MMQI_MAX_PARTS],
                      const float *w, int64_t begin, int64_t n);
/* After the last row: parts 1 and up of a nested format, whole. Nothing for the others. */
void mmqi_packer_finish(const struct mmqi_packer *packer, uint8_t *const part[MMQI_MAX_PARTS]);

/* Index of the first NaN or Inf; -1 when all are finite. */
int64_t mmqi_first_nonfinite(const float *w, int64_t n);
/* Index of the first number that a plain format would turn into Inf; -1. */
int64_t mmqi_first_beyond(const float *w, int64_t n, int32_t format);

#endif
