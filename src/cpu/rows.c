/*
 * Ops that move whole rows: embed, place_rows, copy, store_kv, patches;
 * interpolate, which mixes some; pick, which reads a row and tells one index;
 * and advance, to the row after.
 */
#include <math.h>
#include <string.h>

#include "cpu/cpu.h"

struct row_args {
    const struct mmqi_cpu_kernels *kernels;
    const struct mmqi_mat *y, *x;
    const struct mmqi_wmat *table;
    const int32_t *index;
    const float *weights;
    bool accumulate;
    const struct mmqi_kv *kv;
    int32_t *out;
};

/* The rows of a chunk of `mat`. */
static void chunk_rows(const struct mmqi_mat *mat, int64_t chunk, int64_t *begin, int64_t *end)
{
    int64_t step = mmqi_cpu_row_step(mat->cols);

    *begin = chunk * step;
    *end = *begin + step < mat->rows ? *begin + step : mat->rows;
}

static void run_rows(struct mmqi_stream *s, const struct mmqi_mat *mat, mmqi_chunk_fn fn,
                     struct row_args *args)
{
    args->kernels = s->kernels;
    mmqi_pool_run(s->pool, mmqi_cpu_ceil_div(mat->rows, mmqi_cpu_row_step(mat->cols)), fn, args);
}

static void copy_row(float *y, const float *x, int64_t cols)
{
    memcpy(y, x, (size_t)cols * sizeof *y);
}

static void embed_rows(void *arg, int64_t chunk, int32_t worker)
{
    const struct row_args *a = arg;
    const struct mmqi_wmat *w = a->table;
    int64_t begin, end;

    (void)worker;
    chunk_rows(a->y, chunk, &begin, &end);
    for (int64_t r = begin; r < end; r++)
        mmqi_format_info(w->format)->unpack(mmqi_cpu_row(a->y, r), w->part, w->rows, w->cols,
                                            a->index[r] * w->cols, w->cols);
}

int32_t mmqi_cpu_embed(struct mmqi_stream *s, const struct mmqi_mat *y,
                       const struct mmqi_wmat *table, const int32_t *ids)
{
    struct row_args args = {.y = y, .table = table, .index = ids};

    run_rows(s, y, embed_rows, &args);
    return MMQ_OK;
}

static void place_some_rows(void *arg, int64_t chunk, int32_t worker)
{
    const struct row_args *a = arg;
    int64_t begin, end;

    (void)worker;
    chunk_rows(a->y, chunk, &begin, &end);
    for (int64_t r = begin; r < end; r++) {
        float *to = mmqi_cpu_row(a->y, r);

        if (a->index[r] < 0)
            continue;
        if (a->accumulate)
            a->kernels->add(to, to, mmqi_cpu_row(a->x, a->index[r]), a->y->cols);
        else
            copy_row(to, mmqi_cpu_row(a->x, a->index[r]), a->y->cols);
    }
}

int32_t mmqi_cpu_place_rows(struct mmqi_stream *s, const struct mmqi_mat *y,
                            const struct mmqi_mat *x, const int32_t *index, bool accumulate)
{
    struct row_args args = {.y = y, .x = x, .index = index, .accumulate = accumulate};

    run_rows(s, y, place_some_rows, &args);
    return MMQ_OK;
}

static void copy_rows(void *arg, int64_t chunk, int32_t worker)
{
    const struct row_args *a = arg;
    int64_t begin, end;

    (void)worker;
    chunk_rows(a->y, chunk, &begin, &end);
    for (int64_t r = begin; r < end; r++)
        copy_row(mmqi_cpu_row(a->y, r), mmqi_cpu_row(a->x, r), a->y->cols);
}

int32_t mmqi_cpu_copy(struct mmqi_stream *s, const struct mmqi_mat *y, const struct mmqi_mat *x)
{
    struct row_args args = {.y = y, .x = x};

    run_rows(s, y, copy_rows, &args);
    return MMQ_OK;
}

/* y is k, x is v. */
static void store_rows(void *arg, int64_t chunk, int32_t worker)
{
    const struct row_args *a = arg;
    int64_t begin, end;
    float *key;

    (void)worker;
    chunk_rows(a->y, chunk, &begin, &end);
    for (int64_t r = begin; r < end; r++) {
        key = mmqi_cpu_key(a->kv, a->index[r], 0);
        copy_row(key, mmqi_cpu_row(a->y, r), a->y->cols);
        copy_row(key + mmqi_cpu_value_offset(a->kv), mmqi_cpu_row(a->x, r), a->y->cols);
    }
}

int32_t mmqi_cpu_store_kv(struct mmqi_stream *s, const struct mmqi_kv *kv, const struct mmqi_mat *k,
                          const struct mmqi_mat *v, const int32_t *slots)
{
    struct row_args args = {.y = k, .x = v, .kv = kv, .index = slots};

    run_rows(s, k, store_rows, &args);
    return MMQ_OK;
}

struct patch_args {
    const struct mmqi_mat *y;
    const float *pixels;
    const struct mmqi_patches *how;
};

/* Where patch r begins in a channel's plane. */
static int64_t patch_corner(const struct mmqi_patches *how, int64_t r)
{
    int64_t merge = how->merge, side = merge * how->patch, across = how->width / side;
    int64_t square = r / (merge * merge), inside = r % (merge * merge);
    int64_t top = square / across * side + inside / merge * how->patch;
    int64_t left = square % across * side + inside % merge * how->patch;

    return top * how->width + left;
}

static void cut_patches(void *arg, int64_t chunk, int32_t worker)
{
    const struct patch_args *a = arg;
    int64_t patch = a->how->patch, height = a->how->height, width = a->how->width, begin, end;
    const float *corner;
    float *to;

    (void)worker;
    chunk_rows(a->y, chunk, &begin, &end);
    for (int64_t r = begin; r < end; r++) {
        to = mmqi_cpu_row(a->y, r);
        corner = a->pixels + patch_corner(a->how, r);
        for (int64_t c = 0; c < a->how->channels; c++)
            for (int64_t f = 0; f < a->how->frames; f++)
                for (int64_t i = 0; i < patch; i++, to += patch)
                    copy_row(to, corner + (c * height + i) * width, patch);
    }
}

int32_t mmqi_cpu_patches(struct mmqi_stream *s, const struct mmqi_mat *y, const float *pixels,
                         const struct mmqi_patches *how)
{
    struct patch_args args = {y, pixels, how};

    mmqi_pool_run(s->pool, mmqi_cpu_ceil_div(y->rows, mmqi_cpu_row_step(y->cols)), cut_patches,
                  &args);
    return MMQ_OK;
}

static void mix_rows(void *arg, int64_t chunk, int32_t worker)
{
    const struct row_args *a = arg;
    int64_t begin, end;

    (void)worker;
    chunk_rows(a->y, chunk, &begin, &end);
    for (int64_t r = begin; r < end; r++) {
        const int32_t *taps = a->index + r * MMQI_TAPS;
        const float *weights = a->weights + r * MMQI_TAPS;
        float *to = mmqi_cpu_row(a->y, r), sum;

        for (int64_t i = 0; i < a->y->cols; i++) {
            sum = weights[0] * mmqi_cpu_row(a->x, taps[0])[i];
            for (int k = 1; k < MMQI_TAPS; k++)
                sum += weights[k] * mmqi_cpu_row(a->x, taps[k])[i];
            to[i] += sum;
        }
    }
}

int32_t mmqi_cpu_interpolate(struct mmqi_stream *s, const struct mmqi_mat *y,
                             const struct mmqi_mat *table, const int32_t *taps,
                             const float *weights)
{
    struct row_args args = {.y = y, .x = table, .index = taps, .weights = weights};

    run_rows(s, y, mix_rows, &args);
    return MMQ_OK;
}

/* NaN is never the greatest; a row of nothing else gives 0. */
int64_t mmqi_c_pick(const float *x, int64_t n)
{
    int64_t best = -1;

    for (int64_t i = 0; i < n; i++)
        if (!isnan(x[i]) && (best < 0 || x[i] > x[best]))
            best = i;
    return best < 0 ? 0 : best;
}

static void pick_rows(void *arg, int64_t chunk, int32_t worker)
{
    const struct row_args *a = arg;
    int64_t begin, end;

    (void)worker;
    chunk_rows(a->x, chunk, &begin, &end);
    for (int64_t r = begin; r < end; r++)
        a->out[r] = (int32_t)a->kernels->pick(mmqi_cpu_row(a->x, r), a->x->cols);
}

int32_t mmqi_cpu_pick(struct mmqi_stream *s, int32_t *out, const struct mmqi_mat *x)
{
    struct row_args args = {.x = x, .out = out};

    run_rows(s, x, pick_rows, &args);
    return MMQ_OK;
}

int32_t mmqi_cpu_advance(struct mmqi_stream *s, const struct mmqi_step *step)
{
    (void)s;
    for (int32_t i = 0; i < step->n_axes; i++)
        step->positions[i]++;
    ++*step->slot;
    step->span->end++;
    return MMQ_OK;
}
