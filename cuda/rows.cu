/*
 * Ops that move whole rows: embed, place_rows, copy, store_kv, patches;
 * interpolate, which mixes some; pick, which reads a row and tells one index;
 * and advance, to the row after.
 *
 * A thread moves one column of a row; each byte is read once and written once.
 */
#include "cuda/unpack.h"

static __global__ void embed_kernel(struct mmqi_mat y, const __grid_constant__ weight_view w,
                                    const int32_t *ids)
{
    int64_t col = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;

    wait_for_inputs();
    if (col >= y.cols)
        return;
    for (int64_t r = blockIdx.y; r < y.rows; r += gridDim.y)
        row_of(y, r)[col] = weight_at(w, ids[r], col);
}

extern "C" int32_t mmqi_cuda_embed(struct mmqi_stream *s, const struct mmqi_mat *y,
                                   const struct mmqi_wmat *table, const int32_t *ids)
{
    struct weight_view w;

    if (!mmqi_weight_view_of(&w, s, table))
        return mmqi_cuda_fail(s->device, MMQ_ERR_UNSUPPORTED, "embed: weight format %d is unknown",
                              (int)table->format);
    if (y->rows == 0 || y->cols == 0)
        return MMQ_OK;
    return launch(s, "embed", embed_kernel, element_grid(y->rows, y->cols), dim3(256), 0, *y, w,
                  ids);
}

/* index NULL: row r from row r. */
template <bool kAdd>
static __global__ void place_kernel(struct mmqi_mat y, struct mmqi_mat x, const int32_t *index)
{
    int64_t col = (int64_t)blockIdx.x * blockDim.x + threadIdx.x, from;

    wait_for_inputs();
    if (col >= y.cols)
        return;
    for (int64_t r = blockIdx.y; r < y.rows; r += gridDim.y) {
        from = index ? index[r] : r;
        if (from >= 0)
            row_of(y, r)[col] =
                kAdd ? row_of(y, r)[col] + row_of(x, from)[col] : row_of(x, from)[col];
    }
}

extern "C" int32_t mmqi_cuda_place_rows(struct mmqi_stream *s, const struct mmqi_mat *y,
                                        const struct mmqi_mat *x, const int32_t *index,
                                        bool accumulate)
{
    if (y->rows == 0 || y->cols == 0)
        return MMQ_OK;
    return launch(s, "place_rows", accumulate ? place_kernel<true> : place_kernel<false>,
                  element_grid(y->rows, y->cols), dim3(256), 0, *y, *x, index);
}

extern "C" int32_t mmqi_cuda_copy(struct mmqi_stream *s, const struct mmqi_mat *y,
                                  const struct mmqi_mat *x)
{
    return mmqi_cuda_place_rows(s, y, x, NULL, false);
}

static __global__ void store_kv_kernel(struct mmqi_kv kv, struct mmqi_mat k, struct mmqi_mat v,
                                       const int32_t *slots)
{
    int64_t col = (int64_t)blockIdx.x * blockDim.x + threadIdx.x, at;

    wait_for_inputs();
    if (col >= k.cols)
        return;
    for (int64_t r = blockIdx.y; r < k.rows; r += gridDim.y) {
        at = key_offset(kv, slots[r]) + col;
        kv.pages[at] = row_of(k, r)[col];
        kv.pages[at + value_offset(kv)] = row_of(v, r)[col];
    }
}

extern "C" int32_t mmqi_cuda_store_kv(struct mmqi_stream *s, const struct mmqi_kv *kv,
                                      const struct mmqi_mat *k, const struct mmqi_mat *v,
                                      const int32_t *slots)
{
    int32_t status;

    if (k->rows == 0 || k->cols == 0)
        return MMQ_OK;
    if (mmqi_cuda_store_waiting(s, kv, k, v, slots, &status))
        return status;
    return launch(s, "store_kv", store_kv_kernel, element_grid(k->rows, k->cols), dim3(256), 0, *kv,
                  *k, *v, slots);
}

static __global__ void patches_kernel(struct mmqi_mat y, const float *pixels,
                                      struct mmqi_patches how)
{
    int32_t col = (int32_t)(blockIdx.x * blockDim.x + threadIdx.x);
    int32_t patch = how.patch, merge = how.merge, side = merge * patch, across = how.width / side;
    int32_t square, inside, top, left;
    int64_t channel, i, j;

    wait_for_inputs();
    if (col >= y.cols)
        return;
    j = col % patch;
    i = col / patch % patch;
    channel = col / (patch * patch * how.frames);
    for (int64_t r = blockIdx.y; r < y.rows; r += gridDim.y) {
        square = (int32_t)r / (merge * merge);
        inside = (int32_t)r % (merge * merge);
        top = square / across * side + inside / merge * patch;
        left = square % across * side + inside % merge * patch;
        row_of(y, r)[col] = pixels[(channel * how.height + top + i) * how.width + left + j];
    }
}

extern "C" int32_t mmqi_cuda_patches(struct mmqi_stream *s, const struct mmqi_mat *y,
                                     const float *pixels, const struct mmqi_patches *how)
{
    if (y->rows == 0 || y->cols == 0)
        return MMQ_OK;
    return launch(s, "patches", patches_kernel, element_grid(y->rows, y->cols), dim3(256), 0, *y,
                  pixels, *how);
}

static __global__ void interpolate_kernel(struct mmqi_mat y, struct mmqi_mat table,
                                          const int32_t *taps, const float *weights)
{
    int64_t col = (int64_t)blockIdx.x * blockDim.x + threadIdx.x, at;
    float sum;

    wait_for_inputs();
    if (col >= y.cols)
        return;
    for (int64_t r = blockIdx.y; r < y.rows; r += gridDim.y) {
        at = r * MMQI_TAPS;
        sum = __fmul_rn(weights[at], row_of(table, taps[at])[col]);
        for (int k = 1; k < MMQI_TAPS; k++)
            sum = __fadd_rn(sum, __fmul_rn(weights[at + k], row_of(table, taps[at + k])[col]));
        row_of(y, r)[col] = __fadd_rn(row_of(y, r)[col], sum);
    }
}

extern "C" int32_t mmqi_cuda_interpolate(struct mmqi_stream *s, const struct mmqi_mat *y,
                                         const struct mmqi_mat *table, const int32_t *taps,
                                         const float *weights)
{
    if (y->rows == 0 || y->cols == 0)
        return MMQ_OK;
    return launch(s, "interpolate", interpolate_kernel, element_grid(y->rows, y->cols), dim3(256),
                  0, *y, *table, taps, weights);
}

enum { PICK_THREADS = 1024, WIDE_PICK = 8192 /* columns, of which blocks take parts */ };

/* Is candidate (x, i) before (best, at)? A negative index is none; NaN is never a candidate. */
static __device__ inline bool goes_before(float x, int64_t i, float best, int64_t at)
{
    return i >= 0 && (at < 0 || x > best || (x == best && i < at));
}

/* The first greatest of the block's threads, to thread 0: in halves. */
static __device__ inline void pick_of_block(float &best, int32_t &at)
{
    __shared__ float value[PICK_THREADS];
    __shared__ int32_t index[PICK_THREADS];
    int t = (int)threadIdx.x;

    __syncthreads(); /* readers of an earlier one are done */
    value[t] = best;
    index[t] = at;
    for (int half = PICK_THREADS / 2; half >= 1; half /= 2) {
        __syncthreads();
        if (t < half && goes_before(value[t + half], index[t + half], value[t], index[t])) {
            value[t] = value[t + half];
            index[t] = index[t + half];
        }
    }
    if (t == 0) { /* others would read what it may still write */
        best = value[0];
        at = index[0];
    }
}

/* blockIdx.x: the row, blockIdx.y: a part of its columns. Each thread finds the first
 * greatest of its columns. With more than one part, of one row, the last block compares them. */
static __global__ __launch_bounds__(PICK_THREADS) void pick_kernel(int32_t *out, struct mmqi_mat x,
                                                                   struct mmqi_cuda_pick *parts,
                                                                   unsigned *arrived)
{
    const float *row = row_of(x, blockIdx.x);
    int t = (int)threadIdx.x;
    float best = 0.0f;
    int32_t at = -1;

    wait_for_inputs();
#pragma unroll 8
    for (int64_t i = (int64_t)blockIdx.y * PICK_THREADS + t; i < x.cols;
         i += (int64_t)gridDim.y * PICK_THREADS)
        if (!isnan(row[i]) && (at < 0 || row[i] > best)) {
            best = row[i];
            at = (int32_t)i;
        }
    pick_of_block(best, at);
    if (gridDim.y > 1) {
        if (t == 0) {
            parts[blockIdx.y].value = best;
            parts[blockIdx.y].index = at;
        }
        if (!is_last_block(arrived, gridDim.y))
            return;
        at = t < (int)gridDim.y ? __ldcg(&parts[t].index) : -1;
        best = t < (int)gridDim.y ? __ldcg(&parts[t].value) : 0.0f;
        pick_of_block(best, at);
    }
    if (t == 0)
        out[blockIdx.x] = at < 0 ? 0 : at;
}

extern "C" int32_t mmqi_cuda_pick(struct mmqi_stream *s, int32_t *out, const struct mmqi_mat *x)
{
    bool wide = MMQI_CUDA_FUSE >= 2 && x->rows == 1 && x->cols >= WIDE_PICK;
    dim3 grid((unsigned)x->rows, wide ? MMQI_CUDA_PICKS : 1);

    if (x->rows == 0)
        return MMQ_OK;
    return launch(s, "pick", pick_kernel, grid, dim3(PICK_THREADS), 0, out, *x, s->picks,
                  s->counters);
}

/* One warp: a thread per axis. */
static __global__ void advance_kernel(struct mmqi_step step)
{
    wait_for_inputs();
    for (int32_t i = (int32_t)threadIdx.x; i < step.n_axes; i += WARP)
        step.positions[i]++;
    if (threadIdx.x == 0) {
        ++*step.slot;
        step.span->end++;
    }
}

extern "C" int32_t mmqi_cuda_advance(struct mmqi_stream *s, const struct mmqi_step *step)
{
    return launch(s, "advance", advance_kernel, dim3(1), dim3(WARP), 0, *step);
}
