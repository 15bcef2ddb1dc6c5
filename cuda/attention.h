/*
 * Attention over pages: what its kernels share.
 *
 * Queries of one key head, (row, head) pairs, are dealt to blocks in order; a block visits the keys
 * of its queries' spans by blocks of slots [32 i, 32 i + 32).
 */
#ifndef MMQI_CUDA_ATTENTION_H
#define MMQI_CUDA_ATTENTION_H

#include "cuda/kernel.h"
#include "cuda/scratch.h"

enum {
    KEYS = 32,         /* slots of a block of keys */
    SPLITS = 16,       /* parts of a span where few rows leave the device idle */
    MAX_SPLIT_ROWS = 8 /* of a call that is split */
};

struct attention {
    struct mmqi_mat y, q;
    struct mmqi_kv kv;
    const struct mmqi_span *spans;
    float scale;
    int32_t n_heads;
    float *partial;    /* split: [rows, n_heads, SPLITS, head_dim + 2], o then m and l; else NULL */
    unsigned *arrived; /* split: [rows, n_kv_heads] zeros, to count parts; NULL: join() adds them */
};

/* First query head that reads key head `kv_head`: the least h with h * n_kv / n_heads == kv_head.
 */
static __host__ __device__ inline int32_t first_head(int32_t kv_head, int32_t n_heads, int32_t n_kv)
{
    return (int32_t)ceil_div((int64_t)kv_head * n_heads, n_kv);
}

/* Key of a slot's head; its value lies page_rows * n_heads * head_dim further. */
static __device__ inline const float *key_of(const struct mmqi_kv &kv, int32_t slot, int32_t head)
{
    return kv.pages + key_offset(kv, slot) + (int64_t)head * kv.head_dim;
}

static __device__ inline struct mmqi_span span_part(struct mmqi_span span, int part, int parts)
{
    int32_t length = span.end - span.begin, each;

    if (length <= 0 || parts == 1)
        return span;
    each = (length + parts - 1) / parts;
    each = (each + KEYS - 1) / KEYS * KEYS;
    span.begin += part * each < length ? part * each : length;
    span.end = span.end - span.begin < each ? span.end : span.begin + each;
    return span;
}

/* y of a row's head from its parts, added in order, by the threads `thread` of `threads`. */
static __device__ inline void join_parts(const struct attention &a, int64_t row, int64_t head,
                                         int thread, int threads)
{
    int dim = a.kv.head_dim;
    const float *parts = a.partial + (row * a.n_heads + head) * SPLITS * (dim + 2), *part;
    float most = -INFINITY, sum = 0.0f, o, factor[SPLITS];

#pragma unroll
    for (int i = 0; i < SPLITS; i++)
        most = fmaxf(most, __ldcg(&parts[i * (dim + 2) + dim]));
#pragma unroll
    for (int i = 0; i < SPLITS; i++) {
        float l = __ldcg(&parts[i * (dim + 2) + dim + 1]);

        part = parts + i * (dim + 2);
        factor[i] = l > 0.0f ? expf(__ldcg(&part[dim]) - most) : 0.0f;
        sum = fmaf(l, factor[i], sum);
    }
    for (int d = thread; d < dim; d += threads) {
        o = 0.0f;
#pragma unroll
        for (int i = 0; i < SPLITS; i++)
            o = fmaf(__ldcg(&parts[i * (dim + 2) + d]), factor[i], o);
        row_of(a.y, row)[head * dim + d] =
            a.spans[row].begin < a.spans[row].end ? __fdiv_rn(o, sum) : 0.0f;
    }
}

/* The parts of few rows' spans, to a->partial, and with a->arrived to y. False where it cannot
 * serve this call. */
bool mmqi_cuda_split_attention_serves(const struct attention *a);
int32_t mmqi_cuda_split_attention(struct mmqi_stream *s, const struct attention *a);

/* Many rows in `fast` mode, on tensor cores. False where it cannot serve this call. */
bool mmqi_cuda_tensor_attention_serves(const struct mmqi_stream *s, const struct attention *a);
int32_t mmqi_cuda_tensor_attention(struct mmqi_stream *s, const struct attention *a);

#endif
