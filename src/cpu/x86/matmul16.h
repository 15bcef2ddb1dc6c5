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
#include "cpu/x86/weights16.h"

enum { ROW_BLOCK = 16 * TILE_ROWS };
enum { AHEAD = 16384 };

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
 * Ask for the 64 elements AHEAD bytes after column k of a row, which other rows fill: left alone,
 * hardware begins anew with every page and row. Into the second cache, whose requests are more
 * than the first one's. Reading past the end is no fault.
 */
V16_INLINE void ask_ahead(struct stored_row row, const enum stored as, int64_t k)
{
    const uint8_t *p = row.bytes + k * stored_bits[as] / 8 + AHEAD;

    for (int32_t line = 0; line < RUN * stored_bits[as] / 8; line += 64)
        __builtin_prefetch(p + line, 0, 2);
}

/* A few rows of x and of weights, and their sums: sums[j][i] of row j of x. */
struct dots {
    const float *x[2], *stored_x[2]; /* the second in the order of stored16() */
    struct stored_row row[4];
    int64_t at[4]; /* the rows' numbers */
    v16 sums[2][4];
};

/* Columns [begin, cols) by way of the format's table. */
V16_INLINE void dot_slow(struct dots *d, const struct mmqi_wmat *w, int64_t begin,
                         const int32_t n_x, const int32_t n_w)
{
    float slow[4][RUN];
    int64_t lanes;
    v16 x;

    for (int64_t k = begin; k < w->cols; k += RUN) {
        for (int32_t i = 0; i < n_w; i++)
            unpack64(slow[i], w, d->at[i], k);
        for (int64_t s = k; s < k + RUN && s < w->cols; s += MMQI_LANES) {
            lanes = w->cols - s < MMQI_LANES ? w->cols - s : MMQI_LANES;
            V16_EACH(j, n_x)
            {
                x = v16_load_n(d->x[j] + s, lanes); /* lanes past the row's end are left out */
                V16_EACH(i, n_w)
                d->sums[j][i] = v16_fma(x, v16_load(slow[i] + (s - k)), d->sums[j][i]);
            }
        }
    }
}

/* Columns [begin, begin + n), runs in one stretch; x as struct dots has it. */
V16_INLINE void dot_stretch(struct dots *d, const struct blocks *blocks, const enum stored as,
                            int64_t begin, int64_t n, const int32_t n_x, const int32_t n_w)
{
    struct scales scales[4];
    v16_table table[4];
    v16 x[2], v;

    V16_EACH(i, n_w) read_scales(&scales[i], blocks, as, d->row[i], begin, n);
    for (int64_t k = 0; k < n; k += RUN) {
        V16_EACH(i, n_w)
        {
            table[i] = block_table(&scales[i], blocks, as, k);
            ask_ahead(d->row[i], as, begin + k);
        }
        V16_EACH(s, STEPS)
        {
            if (has_blocks(as) && s == STEPS / 2 && blocks->shift == 5)
                V16_EACH(i, n_w)
            table[i] = block_table(&scales[i], blocks, as, k + RUN / 2);
            V16_EACH(j, n_x) x[j] = v16_load(d->stored_x[j] + begin + k + s * MMQI_LANES);
            V16_EACH(i, n_w)
            {
                v = stored16(d->row[i], as, begin + k + s * MMQI_LANES, table[i]);
                V16_EACH(j, n_x) d->sums[j][i] = v16_fma(x[j], v, d->sums[j][i]);
            }
        }
    }
}

/* Columns [0, fast). */
V16_INLINE void dot_fast(struct dots *d, const struct blocks *blocks, const enum stored as,
                         int64_t fast, const int32_t n_x, const int32_t n_w)
{
    int64_t stretch = has_blocks(as) ? STRETCH : fast;

    for (int64_t k = 0; k < fast; k += stretch)
        dot_stretch(d, blocks, as, k, fast - k < stretch ? fast - k : stretch, n_x, n_w);
    V16_EACH(j, n_x) V16_EACH(i, n_w) d->sums[j][i] = of_stored(d->sums[j][i], as);
}

/* sums[j][i]: of d's rows of x with weight row n + i; those past the last repeat it. */
V16_INLINE void dot_rows(float *sums, struct dots *d, const struct mmqi_matmul_job *job, int64_t n,
                         const struct blocks *blocks, const enum stored as, const int32_t n_x,
                         const int32_t n_w)
{
    int64_t fast = fast_cols(job->w, as);

    V16_EACH(i, n_w)
    {
        d->at[i] = n + i < job->end ? n + i : job->end - 1;
        d->row[i] = stored_row(blocks, as, d->at[i]);
        V16_EACH(j, n_x) d->sums[j][i] = v16_zero();
    }
    dot_fast(d, blocks, as, fast, n_x, n_w);
    if (fast < job->w->cols)
        dot_slow(d, job->w, fast, n_x, n_w);
    V16_EACH(j, n_x) V16_EACH(i, n_w) sums[j * MMQI_PANEL_ROWS + i] = v16_sum(d->sums[j][i]);
}

/* Rows [r, r + n_x) of x with all weight rows of the job, n_w at a time. */
V16_INLINE void x_rows(const struct mmqi_matmul_job *job, float *scratch, int64_t r,
                       const struct blocks *blocks, const enum stored as, const int32_t n_x,
                       const int32_t n_w)
{
    int64_t fast = fast_cols(job->w, as);
    float sums[2][MMQI_PANEL_ROWS];
    struct finish finish;
    struct dots d;

    V16_EACH(j, n_x)
    {
        d.x[j] = d.stored_x[j] = mmqi_cpu_row(job->x, r + j);
        if (has_blocks(as) && !CODES_IN_ORDER) {
            d.stored_x[j] = scratch + j * fast;
            for (int64_t k = 0; k < fast; k += MMQI_LANES)
                v16_store(scratch + j * fast + k, to_stored(v16_load(d.x[j] + k), as));
        }
    }
    for (int64_t n = job->begin; n < job->end; n += MMQI_PANEL_ROWS) {
        finish = tile_finish(job, n);
#pragma GCC unroll 1
        for (int32_t i = 0; i < MMQI_PANEL_ROWS; i += n_w)
            dot_rows(&sums[0][i], &d, job, n + i, blocks, as, n_x, n_w);
        V16_EACH(j, n_x)
        finish_tile(mmqi_cpu_row(job->y, r + j) + n, _mm256_loadu_ps(sums[j]), &finish);
    }
}

V16_INLINE void few_rows_of(const struct mmqi_matmul_job *job, float *scratch, const enum stored as)
{
    const struct blocks blocks = blocks_of(job->w, as);
    int64_t r = 0;

    for (; r + 2 <= job->x->rows; r += 2)
        x_rows(job, scratch, r, &blocks, as, 2, DOT_ROWS_OF_2);
    if (r < job->x->rows)
        x_rows(job, scratch, r, &blocks, as, 1, DOT_ROWS(as));
}

/* ---- many rows ---- */

/* Elements [begin, begin + n) of one weight row, runs in one stretch, into a panel. */
V16_INLINE void fill_stretch(float *panel, int64_t steps, int32_t i, struct stored_row row,
                             const struct blocks *blocks, int64_t begin, int64_t n,
                             const enum stored as)
{
    struct scales scales;
    v16_table table;

    read_scales(&scales, blocks, as, row, begin, n);
    for (int64_t k = 0; k < n; k += RUN) {
        table = block_table(&scales, blocks, as, k);
        V16_EACH(s, STEPS)
        {
            if (has_blocks(as) && s == STEPS / 2 && blocks->shift == 5)
                table = block_table(&scales, blocks, as, k + RUN / 2);
            panel_store(panel, steps, i, (begin + k) / MMQI_LANES + s,
                        of_stored(stored16(row, as, begin + k + s * MMQI_LANES, table), as));
        }
    }
}

/* Weight rows [n, n + 8) as a panel; rows from job->end on are zeros. */
V16_INLINE void fill_panel_of(float *panel, const struct mmqi_matmul_job *job, int64_t n,
                              const enum stored as)
{
    int64_t cols = job->w->cols, fast = fast_cols(job->w, as);
    int64_t steps = mmqi_cpu_ceil_div(cols, MMQI_LANES);
    const struct blocks blocks = blocks_of(job->w, as);
    struct stored_row row;
    float slow[RUN];

    for (int32_t i = 0; i < MMQI_PANEL_ROWS; i++) {
        if (n + i >= job->end) {
            for (int64_t s = 0; s < steps; s++)
                panel_store(panel, steps, i, s, v16_zero());
            continue;
        }
        row = stored_row(&blocks, as, n + i);
        for (int64_t k = 0; k < fast; k += STRETCH)
            fill_stretch(panel, steps, i, row, &blocks, k, fast - k < STRETCH ? fast - k : STRETCH,
                         as);
        for (int64_t k = fast; k < cols; k += RUN) {
            unpack64(slow, job->w, n + i, k);
            for (int64_t s = k; s < k + RUN && s < cols; s += MMQI_LANES)
                panel_store(panel, steps, i, s / MMQI_LANES, v16_load(slow + (s - k)));
        }
    }
}

static void fill_panel(float *panel, const struct mmqi_matmul_job *job, int64_t n)
{
    switch (stored_as(job->w->format)) {
    case STORED_F32:
        fill_panel_of(panel, job, n, STORED_F32);
        break;
    case STORED_F16:
        fill_panel_of(panel, job, n, STORED_F16);
        break;
    case STORED_BF16:
        fill_panel_of(panel, job, n, STORED_BF16);
        break;
    case STORED_INT8:
        fill_panel_of(panel, job, n, STORED_INT8);
        break;
    case STORED_FLAT:
        fill_panel_of(panel, job, n, STORED_FLAT);
        break;
    case STORED_NESTED:
        fill_panel_of(panel, job, n, STORED_NESTED);
        break;
    case STORED_INT4:
        fill_panel_of(panel, job, n, STORED_INT4);
        break;
    default:
        fill_panel_of(panel, job, n, STORED_OTHER);
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

/*
 * The weights of the worker's next job, asked for piece by piece while this one computes: filling
 * panels waits for memory, tiles do not. All of them are asked for during the first block of rows.
 */
struct asking {
    const uint8_t *at;
    int64_t left, piece; /* bytes: in all, for each tile */
};

static struct asking begin_asking(const struct mmqi_matmul_job *job)
{
    int64_t row_bits = job->w->cols * stored_bits[stored_as(job->w->format)];
    int64_t rows = job->x->rows < ROW_BLOCK ? job->x->rows : ROW_BLOCK, n, tiles;
    struct asking asking = {NULL, 0, 0};

    if (job->next >= job->w->rows)
        return asking;
    n = job->w->rows - job->next;
    n = n < job->end - job->begin ? n : job->end - job->begin;
    tiles = mmqi_cpu_ceil_div(rows, TILE_ROWS) *
            mmqi_cpu_ceil_div(job->end - job->begin, MMQI_PANEL_ROWS);
    asking.at = job->w->part[0] + job->next * row_bits / 8;
    asking.left = n * row_bits / 8;
    asking.piece = mmqi_cpu_ceil_div(asking.left, tiles * 64) * 64;
    return asking;
}

V16_INLINE void ask_piece(struct asking *asking)
{
    for (int64_t n = 0; n < asking->piece && asking->left > 0; n += 64, asking->left -= 64) {
        __builtin_prefetch(asking->at, 0, 2);
        asking->at += 64;
    }
}

static_assert(TILE_ROWS == 3, "the rest of panel_rows() is 0, 1 or 2 rows");

static void panel_rows(const struct mmqi_matmul_job *job, const float *panel, int64_t n,
                       int64_t begin, int64_t end, struct asking *asking)
{
    struct finish finish = tile_finish(job, n);
    int64_t r = begin;

    for (; r + TILE_ROWS <= end; r += TILE_ROWS) {
        ask_piece(asking);
        tile_of(job, panel, r, n, &finish, TILE_ROWS);
    }
    ask_piece(asking);
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
    struct asking asking = begin_asking(job);

    for (int64_t n = job->begin; n < job->end; n += MMQI_PANEL_ROWS)
        fill_panel(scratch + (n - job->begin) / MMQI_PANEL_ROWS * panel, job, n);
    for (int64_t r = 0; r < rows; r = r_end) {
        r_end = rows - r < ROW_BLOCK ? rows : r + ROW_BLOCK;
        for (int64_t n = job->begin; n < job->end; n += MMQI_PANEL_ROWS)
            panel_rows(job, scratch + (n - job->begin) / MMQI_PANEL_ROWS * panel, n, r, r_end,
                       &asking);
    }
}

static void matmul_rows(const struct mmqi_matmul_job *job, float *scratch)
{
    if (job->x->rows > MMQI_FEW_ROWS && mmqi_cpu_panels(job->w->cols) > 0) {
        many_rows(job, scratch);
        return;
    }
    switch (stored_as(job->w->format)) {
    case STORED_F32:
        few_rows_of(job, scratch, STORED_F32);
        break;
    case STORED_F16:
        few_rows_of(job, scratch, STORED_F16);
        break;
    case STORED_BF16:
        few_rows_of(job, scratch, STORED_BF16);
        break;
    case STORED_INT8:
        few_rows_of(job, scratch, STORED_INT8);
        break;
    case STORED_FLAT:
        few_rows_of(job, scratch, STORED_FLAT);
        break;
    case STORED_NESTED:
        few_rows_of(job, scratch, STORED_NESTED);
        break;
    case STORED_INT4:
        few_rows_of(job, scratch, STORED_INT4);
        break;
    default:
        few_rows_of(job, scratch, STORED_OTHER);
        break;
    }
}

#endif
