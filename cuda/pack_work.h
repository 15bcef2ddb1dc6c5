/*
 * What a thread of the packing kernels does, as functions that run on the host too, where tests
 * compare them with the formats' own packing.
 *
 * The matrix is cut into blocks of at most `block` elements that end with the row; for nf4 and fp4,
 * whose blocks run across rows, it is one row. A group of MMQI_PACK_THREADS threads brings as many
 * blocks into shared memory side by side, short ones filled up with zeros; then each thread packs
 * the block of its number. The blocks there are an odd number of floats apart: no bank conflicts.
 */
#ifndef MMQI_CUDA_PACK_WORK_H
#define MMQI_CUDA_PACK_WORK_H

#include "quant/format_block.h"

enum {
    MMQI_PACK_THREADS = 64,
    MMQI_PACK_STAGED = MMQI_PACK_THREADS * (MMQI_MAX_BLOCK + 1) /* floats */
};

struct mmqi_pack_grid {
    const float *w; /* [rows, cols] */
    int64_t rows, cols;
    int64_t row_blocks; /* ceil(cols / block) */
    int32_t block;
    int32_t method;
};

MMQI_INLINE struct mmqi_pack_grid mmqi_pack_grid_of(const float *w, int64_t rows, int64_t cols,
                                                    int32_t block, int32_t method)
{
    struct mmqi_pack_grid grid = {w, rows, cols, cols / block + (cols % block != 0), block, method};

    return grid;
}

/* Blocks of the whole. */
MMQI_INLINE int64_t mmqi_pack_blocks(const struct mmqi_pack_grid *grid)
{
    return grid->rows * grid->row_blocks;
}

/* A thread's share of bringing blocks [first, first + MMQI_PACK_THREADS) to `staged`. */
MMQI_INLINE void mmqi_pack_stage(float *staged, const struct mmqi_pack_grid *grid, int64_t first,
                                 int32_t thread)
{
    const int32_t block = grid->block;
    const int64_t end = mmqi_pack_blocks(grid);

    for (int32_t i = thread; i < MMQI_PACK_THREADS * block; i += MMQI_PACK_THREADS) {
        int32_t slot = i / block, k = i % block;
        int64_t at = first + slot;
        float x = 0.0f;

        if (at < end) {
            int64_t row = at / grid->row_blocks, col = at % grid->row_blocks * block + k;

            if (col < grid->cols)
                x = grid->w[row * grid->cols + col];
        }
        staged[slot * (block + 1) + k] = x;
    }
}

/* Elements of block `at`, and the first byte of its codes. */
MMQI_INLINE int64_t mmqi_pack_find(const struct mmqi_pack_grid *grid, int64_t at, int64_t *byte)
{
    int64_t row = at / grid->row_blocks, col = at % grid->row_blocks * grid->block;
    int64_t left = grid->cols - col;

    *byte = row * (grid->cols / 2 + grid->cols % 2) + col / 2;
    return left < grid->block ? left : grid->block;
}

/* nf4, fp4: block first + thread. */
MMQI_INLINE void mmqi_pack_table4(uint8_t *codes, float *absmax, const float *staged,
                                  const struct mmqi_pack_grid *grid, int64_t first, int32_t thread,
                                  const struct mmqi_coding *coding)
{
    const int64_t at = first + thread;
    uint8_t bytes[MMQI_MAX_BLOCK / 2];
    int64_t n, byte;

    if (at >= mmqi_pack_blocks(grid))
        return;
    n = mmqi_pack_find(grid, at, &byte);
    absmax[at] = mmqi_table4_pack(bytes, staged + thread * (grid->block + 1), grid->block,
                                  grid->method, coding);
    for (int64_t i = 0; i < n / 2 + n % 2; i++)
        codes[byte + i] = bytes[i];
}

/* int4: group first + thread. */
MMQI_INLINE void mmqi_pack_int4(uint8_t *codes, uint16_t *scale, uint8_t *zero, const float *staged,
                                const struct mmqi_pack_grid *grid, int64_t first, int32_t thread,
                                const struct mmqi_scale_type *type)
{
    const int64_t at = first + thread;
    uint8_t bytes[MMQI_MAX_BLOCK / 2];
    struct mmqi_int4_grid found;
    int64_t n, byte;

    if (at >= mmqi_pack_blocks(grid))
        return;
    n = mmqi_pack_find(grid, at, &byte);
    found =
        mmqi_int4_pack(bytes, staged + thread * (grid->block + 1), grid->block, grid->method, type);
    if (n % 2 != 0)
        bytes[n / 2] &= 15;
    for (int64_t i = 0; i < n / 2 + n % 2; i++)
        codes[byte + i] = bytes[i];
    scale[at] = mmqi_scale_bits(found.scale, type);
    zero[at] = (uint8_t)found.zero;
}

/* int8: bits of the greatest magnitude among elements thread, thread + n_threads ... of a row. */
MMQI_INLINE uint32_t mmqi_pack_row_most(const float *w, int64_t cols, int32_t thread,
                                        int32_t n_threads)
{
    uint32_t most = 0;

    for (int64_t i = thread; i < cols; i += n_threads) {
        uint32_t bits = mmqi_bits_from_f32(w[i]) & 0x7fffffffu;

        most = bits > most ? bits : most;
    }
    return most;
}

/* int8: the codes of those elements. */
MMQI_INLINE void mmqi_pack_row_codes(uint8_t *codes, const float *w, int64_t cols, float absmax,
                                     int32_t thread, int32_t n_threads)
{
    const float inverse = mmqi_int8_inverse(absmax);

    for (int64_t i = thread; i < cols; i += n_threads)
        codes[i] = mmqi_int8_code(w[i], inverse);
}

#endif
