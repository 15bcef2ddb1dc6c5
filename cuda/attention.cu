/*
 * Attention over pages in f32, 16 queries of one key head per block, 16 threads each.
 *
 * A query visits its keys in blocks of slots [32 i, 32 i + 32), cut to its span:
 *
 *   t[j] = (sum_d q[d] * K[j, d]) * scale           one chain of fma in the order of d
 *   m'   = max(m, t[j]...);  a = e^(m - m');  p[j] = e^(t[j] - m')
 *   l    = fma(l, a, sum_j p[j])                    p[j] + p[j + 16], then halves: 8, 4, 2, 1
 *   o[d] = o[d] * a, then fma(p[j], V[j, d], o[d])  in the order of j
 *
 * and y = o / l at the end, zeros for an empty span. Blocks that do not meet a query's span are
 * passed over, slots outside of it not read for it, so its bits do not depend on the company.
 * Keys and values are read once per block of queries. No scores beyond a block are stored.
 *
 * In `exact` mode that is all, whatever the number of rows. In `fast` mode up to 8 rows are split:
 * part i of 16 of each span, in whole blocks of 32, is computed by a block of its own (of
 * attention_split.cu where it serves), and the last block of a head that is done, or a second
 * kernel, adds the parts in order; more rows go through tensor cores where attention_tensor.cu
 * serves them.
 */
#include "cuda/attention.h"

enum { THREADS = 256, QUERIES = 16, LANES = 16 /* threads of a query */ };

/* One query as its threads see it. */
struct query {
    int32_t row, head; /* row -1: none */
    struct mmqi_span span;
    float m, l;
};

static __device__ inline struct query find_query(const struct attention &a)
{
    int32_t first = first_head((int32_t)blockIdx.y, a.n_heads, a.kv.n_heads);
    int32_t n = first_head((int32_t)blockIdx.y + 1, a.n_heads, a.kv.n_heads) - first;
    int64_t pair = (int64_t)blockIdx.x * QUERIES + threadIdx.x / LANES;
    struct query q = {-1, 0, {0, 0}, -INFINITY, 0.0f};

    if (n <= 0 || pair / n >= a.q.rows)
        return q;
    q.row = (int32_t)(pair / n);
    q.head = first + (int32_t)(pair % n);
    q.span = span_part(a.spans[q.row], (int)blockIdx.z, (int)gridDim.z);
    return q;
}

/* Where the spans of the block's queries begin and end, one with another. */
static __device__ inline struct mmqi_span all_spans(const struct query &q)
{
    __shared__ int32_t begin[QUERIES], end[QUERIES];
    struct mmqi_span all = {INT32_MAX, 0};

    if (threadIdx.x % LANES == 0) {
        begin[threadIdx.x / LANES] = q.span.begin;
        end[threadIdx.x / LANES] = q.span.end;
    }
    __syncthreads();
    for (int i = 0; i < QUERIES; i++) {
        if (begin[i] >= end[i])
            continue;
        all.begin = begin[i] < all.begin ? begin[i] : all.begin;
        all.end = end[i] > all.end ? end[i] : all.end;
    }
    return all;
}

/* Keys (offset 0) or values of the slots [base, base + KEYS) that are in `all`; others zero. */
static __device__ inline void load_rows(float *to, const struct attention &a, int32_t base,
                                        struct mmqi_span all, int64_t offset)
{
    int lane = (int)threadIdx.x % WARP, dim = a.kv.head_dim;

    for (int j = (int)threadIdx.x / WARP; j < KEYS; j += THREADS / WARP) {
        bool used = base + j >= all.begin && base + j < all.end;
        const float *from = used ? key_of(a.kv, base + j, (int32_t)blockIdx.y) + offset : NULL;

        for (int d = lane; d < dim; d += WARP)
            to[j * (dim + 1) + d] = used ? from[d] : 0.0f;
    }
}

/* p[j] of the block, in shared memory; returns a, by which what was summed before is multiplied. */
static __device__ inline float weigh_keys(struct query &q, bool meets, float *p, const float *qs,
                                          const float *keys, int32_t base, int dim, float scale)
{
    int lane = (int)threadIdx.x % LANES;
    float t[KEYS / LANES], most = q.m, again, sum = 0.0f;
    bool used[KEYS / LANES];

    for (int i = 0; i < KEYS / LANES; i++) {
        int j = lane + i * LANES;
        float dot = 0.0f;

        used[i] = base + j >= q.span.begin && base + j < q.span.end;
        for (int d = 0; used[i] && d < dim; d++)
            dot = fmaf(qs[d], keys[j * (dim + 1) + d], dot);
        t[i] = __fmul_rn(dot, scale);
        most = used[i] ? fmaxf(most, t[i]) : most;
    }
    for (int half = LANES / 2; half >= 1; half /= 2)
        most = fmaxf(most, __shfl_xor_sync(ALL_LANES, most, half));
    again = expf(q.m - most);
    for (int i = 0; i < KEYS / LANES; i++) {
        t[i] = used[i] ? expf(t[i] - most) : 0.0f;
        p[lane + i * LANES] = t[i];
        sum = __fadd_rn(sum, t[i]);
    }
    for (int half = LANES / 2; half >= 1; half /= 2)
        sum = __fadd_rn(sum, __shfl_xor_sync(ALL_LANES, sum, half));
    if (meets) {
        q.m = most;
        q.l = fmaf(q.l, again, sum);
        return again;
    }
    return 1.0f;
}

template <int kDims>
static __device__ inline void add_values(float o[kDims], const struct query &q, float again,
                                         const float *p, const float *values, int32_t base, int dim)
{
    int lane = (int)threadIdx.x % LANES;
    int begin = q.span.begin > base ? q.span.begin - base : 0;
    int end = q.span.end - base < KEYS ? q.span.end - base : KEYS;

#pragma unroll
    for (int i = 0; i < kDims; i++)
        o[i] = __fmul_rn(o[i], again);
    for (int j = begin; j < end; j++)
#pragma unroll
        for (int i = 0; i < kDims; i++)
            if (lane + i * LANES < dim)
                o[i] = fmaf(p[j], values[j * (dim + 1) + lane + i * LANES], o[i]);
}

template <int kDims>
static __device__ inline void store_query(const struct attention &a, const struct query &q,
                                          const float o[kDims])
{
    int lane = (int)threadIdx.x % LANES, dim = a.kv.head_dim;
    bool empty = q.span.begin >= q.span.end;
    float *to;

    if (q.row < 0)
        return;
    if (!a.partial) {
        to = row_of(a.y, q.row) + (int64_t)q.head * dim;
#pragma unroll
        for (int i = 0; i < kDims; i++)
            if (lane + i * LANES < dim)
                to[lane + i * LANES] = empty ? 0.0f : __fdiv_rn(o[i], q.l);
        return;
    }
    to = a.partial + (((int64_t)q.row * a.n_heads + q.head) * SPLITS + blockIdx.z) * (dim + 2);
#pragma unroll
    for (int i = 0; i < kDims; i++)
        if (lane + i * LANES < dim)
            to[lane + i * LANES] = o[i];
    if (lane == 0) {
        to[dim] = q.m;
        to[dim + 1] = q.l;
    }
}

template <int kDims>
static __global__ __launch_bounds__(THREADS) void attention_kernel(struct attention a)
{
    MMQI_SHARED(float, memory);
    int dim = a.kv.head_dim, mine = (int)threadIdx.x / LANES;
    float *qs = memory, *rows = qs + QUERIES * dim;
    float *p = rows + KEYS * (dim + 1) + mine * (KEYS + 1), o[kDims] = {}, again;
    int64_t values = a.kv.page_rows * a.kv.n_heads * dim;
    struct mmqi_span all;
    struct query q;

    wait_for_inputs();
    q = find_query(a);
    all = all_spans(q);
    for (int d = (int)threadIdx.x % LANES; d < dim; d += LANES)
        qs[mine * dim + d] = q.row < 0 ? 0.0f : row_of(a.q, q.row)[(int64_t)q.head * dim + d];
    for (int32_t base = all.begin / KEYS * KEYS; base < all.end; base += KEYS) {
        bool meets = base < q.span.end && base + KEYS > q.span.begin && q.span.begin < q.span.end;

        if (!__syncthreads_or(meets)) /* and all are done with the block before */
            continue;
        load_rows(rows, a, base, all, 0);
        __syncthreads();
        again = weigh_keys(q, meets, p, qs + mine * dim, rows, base, dim, a.scale);
        __syncthreads();
        load_rows(rows, a, base, all, values);
        __syncthreads();
        if (meets)
            add_values<kDims>(o, q, again, p, rows, base, dim);
    }
    store_query<kDims>(a, q, o);
}

/* Adds the parts of a row's head, one block each, in order. */
static __global__ void join_kernel(struct attention a)
{
    wait_for_inputs();
    join_parts(a, blockIdx.y, blockIdx.x, (int)threadIdx.x, (int)blockDim.x);
}

/* ---- launching ---- */

static int32_t join(struct mmqi_stream *s, const struct attention *a)
{
    return launch(s, "attention", join_kernel, dim3((unsigned)a->n_heads, (unsigned)a->q.rows),
                  dim3(128), 0, *a);
}

template <int kDims> static int32_t run_attention(struct mmqi_stream *s, const struct attention *a)
{
    int64_t dim = a->kv.head_dim, group = ceil_div(a->n_heads, a->kv.n_heads);
    size_t shared =
        (size_t)(QUERIES * dim + KEYS * (dim + 1) + QUERIES * (KEYS + 1)) * sizeof(float);
    dim3 grid((unsigned)ceil_div(a->q.rows * group, QUERIES), (unsigned)a->kv.n_heads,
              a->partial ? SPLITS : 1);
    int32_t status;

    if (shared > s->device->shared_bytes)
        return mmqi_cuda_fail(s->device, MMQ_ERR_UNSUPPORTED, "attention: heads of %d elements",
                              (int)dim);
    status = allow_shared(s, attention_kernel<kDims>, shared);
    if (status == MMQ_OK)
        status = launch(s, "attention", attention_kernel<kDims>, grid, dim3(THREADS), shared, *a);
    return status == MMQ_OK && a->partial ? join(s, a) : status;
}

extern "C" size_t mmqi_cuda_attention_scratch(const struct mmqi_stream_options *options)
{
    if (options->mode != MMQI_MODE_FAST)
        return 0;
    /* head_dim + 2 <= 3 * head_dim */
    return (size_t)(3 * MAX_SPLIT_ROWS * SPLITS) * (size_t)options->max_heads * sizeof(float);
}

extern "C" int32_t mmqi_cuda_attention(struct mmqi_stream *s, const struct mmqi_mat *y,
                                       const struct mmqi_mat *q, int32_t n_heads,
                                       const struct mmqi_kv *kv, const struct mmqi_span *spans,
                                       float scale)
{
    struct attention a = {*y, *q, *kv, spans, scale, n_heads, NULL, NULL};
    int32_t status;

    if (q->rows == 0 || n_heads == 0 || kv->head_dim == 0)
        return MMQ_OK;
    if (s->options.mode == MMQI_MODE_FAST && q->rows <= MAX_SPLIT_ROWS &&
        (int64_t)n_heads * kv->head_dim <= s->options.max_heads)
        a.partial = reinterpret_cast<float *>(s->scratch);
    else if (mmqi_cuda_tensor_attention_serves(s, &a))
        return mmqi_cuda_tensor_attention(s, &a);
    if (mmqi_cuda_split_attention_serves(&a)) {
        if (MMQI_CUDA_FUSE >= 2 && q->rows * kv->n_heads <= MMQI_CUDA_COUNTERS)
            a.arrived = s->counters;
        status = mmqi_cuda_split_attention(s, &a);
        return status == MMQ_OK && !a.arrived ? join(s, &a) : status;
    }
    if (kv->head_dim <= 4 * LANES)
        return run_attention<4>(s, &a);
    if (kv->head_dim <= 8 * LANES)
        return run_attention<8>(s, &a);
    if (kv->head_dim <= 16 * LANES)
        return run_attention<16>(s, &a);
    if (kv->head_dim <= 32 * LANES)
        return run_attention<32>(s, &a);
    return mmqi_cuda_fail(s->device, MMQ_ERR_UNSUPPORTED, "attention: heads of %d elements",
                          (int)kv->head_dim);
}
