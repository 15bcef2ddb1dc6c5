/*
 * The product with packed weights: y[r, n] = (16-lane sum of x[r, k] * W[n, k]) * scale[n] +
 * bias[n].
 *
 * Included by kernels_*.c after a vocabulary and its tile. scale is the row
 * scale of int8, taken out of the sum, and 1 for every other format; no bias is 0.
 * Every path runs the same ceil(cols / 16) steps in the same order, with zeros
 * past the end, so how many rows there are changes no bit:
 *
 *   few rows   a tile of 8 weight rows at a time, weights unpacked in registers
 *   many rows  panels of 8 weight rows are unpacked to scratch once, then used for all rows of x
 */
#ifndef MMQI_CPU_X86_MATMUL16_H
#define MMQI_CPU_X86_MATMUL16_H

#include <assert.h>
#include <string.h>

#include "cpu/cpu.h"

enum {
    UNPACK = 64,
    STEPS = UNPACK / MMQI_LANES,
    ROW_BLOCK = 16 * TILE_ROWS,
    BY_TABLE = MMQI_N_FORMATS /* in place of a format that the vocabulary does not know */
};
enum { AHEAD_MOST = 32768, AHEAD_IN_ROW = 2048 };

/* Elements of a row that the vocabulary unpacks itself: whole runs of 64. */
V16_INLINE int64_t fast_cols(const struct mmqi_wmat *w, const int32_t format)
{
    if (format == BY_TABLE || (format == MMQI_FORMAT_NF4 && w->cols % UNPACK != 0))
        return 0; /* nf4: blocks begin inside rows */
    return w->cols / UNPACK * UNPACK;
}

/* Where row n begins, and for nf4 the scale of its first block. */
struct stored_row {
    const uint8_t *bytes;
    const uint8_t *absmax;
};

/* Of the formats that the vocabulary knows; 0: no fast columns. */
static const int32_t weight_bits[MMQI_N_FORMATS + 1] = {32, 16, 16, 8, 4};

V16_INLINE struct stored_row stored_row(const struct mmqi_wmat *w, const int32_t format, int64_t n)
{
    struct stored_row row = {w->part[0] + n * w->cols * weight_bits[format] / 8, NULL};

    if (format == MMQI_FORMAT_NF4)
        row.absmax = w->part[1] + n * w->cols / 64 * (int64_t)sizeof(float);
    return row;
}

V16_INLINE v16_table block_table(struct stored_row row, const int32_t format, int64_t k)
{
    float absmax = 0.0f;

    if (format == MMQI_FORMAT_NF4)
        memcpy(&absmax, row.absmax + k / 64 * (int64_t)sizeof absmax, sizeof absmax);
    return v16_table_scaled(mmqi_nf4_table, absmax);
}

/* Elements [k, k + 16) of a row; int8 without its scale. */
V16_INLINE v16 stored16(struct stored_row row, const int32_t format, int64_t k, v16_table table)
{
    switch (format) {
    case MMQI_FORMAT_F32:
        return v16_load((const float *)(const void *)(row.bytes + 4 * k));
    case MMQI_FORMAT_F16:
        return v16_from_f16(row.bytes + 2 * k);
    case MMQI_FORMAT_BF16:
        return v16_from_bf16(row.bytes + 2 * k);
    case MMQI_FORMAT_INT8:
        return v16_from_i8(row.bytes + k);
    default: /* MMQI_FORMAT_NF4 */
        return v16_from_nibbles(row.bytes + k / 2, table);
    }
}

/* Elements [k, k + 64) of row n, zeros past its end, the slow way; int8 without its scale. */
static void unpack64(float out[UNPACK], const struct mmqi_wmat *w, int64_t n, int64_t k)
{
    int64_t count = w->cols - k < UNPACK ? w->cols - k : UNPACK, at = n * w->cols + k;

    memset(out, 0, UNPACK * sizeof *out);
    if (w->format == MMQI_FORMAT_INT8)
        for (int64_t i = 0; i < count; i++)
            out[i] = (int8_t)w->part[0][at + i];
    else
        mmqi_format_info(w->format)->unpack(out, w->part, w->rows, w->cols, at, count);
}

/* What a tile's sums are multiplied by, and what is added. */
struct finish {
    __m256 scale, bias;
    __m256i keep;
    int64_t count;
};

static struct finish tile_finish(const struct mmqi_matmul_job *job, int64_t n)
{
    float scale[8] = {1, 1, 1, 1, 1, 1, 1, 1}, bias[8] = {0};
    int64_t count = job->end - n < 8 ? job->end - n : 8;
    struct finish finish;

    for (int64_t i = 0; i < count; i++) {
        if (job->w->format == MMQI_FORMAT_INT8) {
            memcpy(&scale[i], job->w->part[1] + (n + i) * (int64_t)sizeof(float), sizeof(float));
            scale[i] /= 127.0f;
        }
        if (job->bias)
            bias[i] = job->bias[n + i];
    }
    finish.scale = _mm256_loadu_ps(scale);
    finish.bias = _mm256_loadu_ps(bias);
    finish.keep = _mm256_cmpgt_epi32(_mm256_set1_epi32((int32_t)count),
                                     _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
    finish.count = count;
    return finish;
}

V16_INLINE void finish_tile(float *y, __m256 sums, const struct finish *finish)
{
    sums = _mm256_add_ps(_mm256_mul_ps(sums, finish->scale), finish->bias);
    if (finish->count == 8)
        _mm256_storeu_ps(y, sums);
    else
        _mm256_maskstore_ps(y, finish->keep, sums);
}

/* ---- few rows ---- */

/*
 * How far ahead few rows ask for weights, in bytes: the same place of the rows after these, or,
 * where those are far, of the same row. Left alone, hardware begins anew with every page, which
 * short rows feel; for 16 bits and more it does well enough, and asking costs more than it gives.
 */
V16_INLINE int64_t ahead_of(const struct mmqi_wmat *w, const int32_t format, const int32_t n_w)
{
    int64_t bytes = n_w * w->cols * weight_bits[format] / 8;

    return bytes <= AHEAD_MOST ? bytes : AHEAD_IN_ROW;
}

/* Ask for the 64 elements `ahead` bytes after column k; reading past the end is no fault. */
V16_INLINE void ask_ahead(struct stored_row row, const int32_t format, int64_t k, int64_t ahead)
{
    const uint8_t *p = row.bytes + k * weight_bits[format] / 8 + ahead;

    if (weight_bits[format] <= 8)
        __builtin_prefetch(p);
}

/* One step of 16 columns: lanes of x past the row's end are left out. */
V16_INLINE void dot_step(v16 acc[2][4], const float *const x[2], int64_t k, const int64_t lanes,
                         v16 w, const int32_t i, const int32_t n_x)
{
    V16_EACH(j, n_x) acc[j][i] = v16_fma(v16_load_some(x[j] + k, lanes), w, acc[j][i]);
}

/* Columns [begin, cols) by way of the format's table. */
V16_INLINE void dot_slow(v16 acc[2][4], const struct mmqi_matmul_job *job, const float *const x[2],
                         const int64_t n[4], int64_t begin, const int32_t n_x, const int32_t n_w)
{
    int64_t cols = job->w->cols, lanes;
    float slow[4][UNPACK];

    for (int64_t k = begin; k < cols; k += UNPACK) {
        for (int32_t i = 0; i < n_w; i++)
            unpack64(slow[i], job->w, n[i], k);
        for (int64_t s = k; s < k + UNPACK && s < cols; s += MMQI_LANES) {
            lanes = cols - s < MMQI_LANES ? cols - s : MMQI_LANES;
            V16_EACH(i, n_w) dot_step(acc, x, s, lanes, v16_load(slow[i] + s - k), i, n_x);
        }
    }
}

/* sums[j][i]: row r + j of x with weight row n + i; those past the last repeat it. */
V16_INLINE void dot_rows(float *sums, const struct mmqi_matmul_job *job, int64_t r, int64_t n,
                         const int32_t format, const int32_t n_x, const int32_t n_w)
{
    int64_t fast = fast_cols(job->w, format), ahead = ahead_of(job->w, format, n_w), at[4];
    struct stored_row row[4];
    const float *x[2];
    v16_table table[4];
    v16 acc[2][4];

    V16_EACH(i, n_w)
    {
        at[i] = n + i < job->end ? n + i : job->end - 1;
        row[i] = stored_row(job->w, format, at[i]);
    }
    V16_EACH(j, n_x)
    {
        x[j] = mmqi_cpu_row(job->x, r + j);
        V16_EACH(i, n_w) acc[j][i] = v16_zero();
    }
    for (int64_t k = 0; k < fast; k += UNPACK) {
        V16_EACH(i, n_w)
        {
            table[i] = block_table(row[i], format, k);
            ask_ahead(row[i], format, k, ahead);
        }
        V16_EACH(s, STEPS)
        V16_EACH(i, n_w)
        dot_step(acc, x, k + s * MMQI_LANES, MMQI_LANES,
                 stored16(row[i], format, k + s * MMQI_LANES, table[i]), i, n_x);
    }
    if (fast < job->w->cols)
        dot_slow(acc, job, x, at, fast, n_x, n_w);
    V16_EACH(j, n_x) V16_EACH(i, n_w) sums[j * MMQI_PANEL_ROWS + i] = v16_sum(acc[j][i]);
}

V16_INLINE void few_rows_of(const struct mmqi_matmul_job *job, const int32_t format)
{
    const int32_t n_w = DOT_ROWS(format);
    float sums[2][MMQI_PANEL_ROWS];
    struct finish finish;
    int64_t r;

    for (int64_t n = job->begin; n < job->end; n += MMQI_PANEL_ROWS) {
        finish = tile_finish(job, n);
        for (r = 0; r + 2 <= job->x->rows; r += 2) {
#pragma GCC unroll 1
            for (int32_t i = 0; i < MMQI_PANEL_ROWS; i += DOT_ROWS_OF_2)
                dot_rows(&sums[0][i], job, r, n + i, format, 2, DOT_ROWS_OF_2);
            finish_tile(mmqi_cpu_row(job->y, r) + n, _mm256_loadu_ps(sums[0]), &finish);
            finish_tile(mmqi_cpu_row(job->y, r + 1) + n, _mm256_loadu_ps(sums[1]), &finish);
        }
        if (r == job->x->rows)
            continue;
#pragma GCC unroll 1
        for (int32_t i = 0; i < MMQI_PANEL_ROWS; i += n_w)
            dot_rows(&sums[0][i], job, r, n + i, format, 1, n_w);
        finish_tile(mmqi_cpu_row(job->y, r) + n, _mm256_loadu_ps(sums[0]), &finish);
    }
}

/* ---- many rows ---- */

/* Weight rows [n, n + 8) as a panel; rows from job->end on are zeros. */
V16_INLINE void fill_panel_of(float *panel, const struct mmqi_matmul_job *job, int64_t n,
                              const int32_t format)
{
    int64_t cols = job->w->cols, fast = fast_cols(job->w, format);
    int64_t steps = mmqi_cpu_ceil_div(cols, MMQI_LANES);
    struct stored_row row;
    float slow[UNPACK];
    v16_table table;

    for (int32_t i = 0; i < MMQI_PANEL_ROWS; i++) {
        if (n + i >= job->end) {
            for (int64_t s = 0; s < steps; s++)
                panel_store(panel, steps, i, s, v16_zero());
            continue;
        }
        row = stored_row(job->w, format, n + i);
        for (int64_t k = 0; k < fast; k += UNPACK) {
            table = block_table(row, format, k);
            for (int64_t s = k; s < k + UNPACK; s += MMQI_LANES)
                panel_store(panel, steps, i, s / MMQI_LANES, stored16(row, format, s, table));
        }
        for (int64_t k = fast; k < cols; k += UNPACK) {
            unpack64(slow, job->w, n + i, k);
            for (int64_t s = k; s < k + UNPACK && s < cols; s += MMQI_LANES)
                panel_store(panel, steps, i, s / MMQI_LANES, v16_load(slow + s - k));
        }
    }
}

static void fill_panel(float *panel, const struct mmqi_matmul_job *job, int64_t n)
{
    switch (job->w->format) {
    case MMQI_FORMAT_F32:
        fill_panel_of(panel, job, n, MMQI_FORMAT_F32);
        break;
    case MMQI_FORMAT_F16:
        fill_panel_of(panel, job, n, MMQI_FORMAT_F16);
        break;
    case MMQI_FORMAT_BF16:
        fill_panel_of(panel, job, n, MMQI_FORMAT_BF16);
        break;
    case MMQI_FORMAT_INT8:
        fill_panel_of(panel, job, n, MMQI_FORMAT_INT8);
        break;
    case MMQI_FORMAT_NF4:
        fill_panel_of(panel, job, n, MMQI_FORMAT_NF4);
        break;
    default:
        fill_panel_of(panel, job, n, BY_TABLE);
        break;
    }
}

/* Rows [r, r + n_x) of x with one panel. */
V16_INLINE void tile_of(const struct mmqi_matmul_job *job, const float *panel, int64_t r, int64_t n,
                        const struct finish *finish, const int32_t n_x)
{
    __m256 sums[TILE_ROWS];

    tile_sums(sums, mmqi_cpu_row(job->x, r), job->x->stride, panel, job->w->cols, n_x);
    V16_EACH(j, n_x) finish_tile(mmqi_cpu_row(job->y, r + j) + n, sums[j], finish);
}

static_assert(TILE_ROWS == 3, "the rest of panel_rows() is 0, 1 or 2 rows");

static void panel_rows(const struct mmqi_matmul_job *job, const float *panel, int64_t n,
                       int64_t begin, int64_t end)
{
    struct finish finish = tile_finish(job, n);
    int64_t r = begin;

    for (; r + TILE_ROWS <= end; r += TILE_ROWS)
        tile_of(job, panel, r, n, &finish, TILE_ROWS);
    if (end - r == 2)
        tile_of(job, panel, r, n, &finish, 2);
    else if (end - r == 1)
        tile_of(job, panel, r, n, &finish, 1);
}

/* Blocks of rows small enough for the cache, each with every panel of the job. */
static void many_rows(const struct mmqi_matmul_job *job, float *scratch)
{
    int64_t panel = mmqi_cpu_ceil_div(job->w->cols, MMQI_LANES) * MMQI_LANES * MMQI_PANEL_ROWS;
    int64_t rows = job->x->rows, r_end;

    for (int64_t n = job->begin; n < job->end; n += MMQI_PANEL_ROWS)
        fill_panel(scratch + (n - job->begin) / MMQI_PANEL_ROWS * panel, job, n);
    for (int64_t r = 0; r < rows; r = r_end) {
        r_end = rows - r < ROW_BLOCK ? rows : r + ROW_BLOCK;
        for (int64_t n = job->begin; n < job->end; n += MMQI_PANEL_ROWS)
            panel_rows(job, scratch + (n - job->begin) / MMQI_PANEL_ROWS * panel, n, r, r_end);
    }
}

static void matmul_rows(const struct mmqi_matmul_job *job, float *scratch)
{
    if (job->x->rows > MMQI_FEW_ROWS && mmqi_cpu_panels(job->w->cols) > 0) {
        many_rows(job, scratch);
        return;
    }
    switch (job->w->format) {
    case MMQI_FORMAT_F32:
        few_rows_of(job, MMQI_FORMAT_F32);
        break;
    case MMQI_FORMAT_F16:
        few_rows_of(job, MMQI_FORMAT_F16);
        break;
    case MMQI_FORMAT_BF16:
        few_rows_of(job, MMQI_FORMAT_BF16);
        break;
    case MMQI_FORMAT_INT8:
        few_rows_of(job, MMQI_FORMAT_INT8);
        break;
    case MMQI_FORMAT_NF4:
        few_rows_of(job, MMQI_FORMAT_NF4);
        break;
    default:
        few_rows_of(job, BY_TABLE);
        break;
    }
}

#endif
