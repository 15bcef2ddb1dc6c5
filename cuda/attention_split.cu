/*
 * Attention of few rows in `fast` mode, f32: the parts of a span that attention.cu joins, for heads
 * of up to 128 elements, a multiple of 4, of which up to 8 share a key head.
 *
 * A block takes one part of one row's span for all query heads of a key head, so that K and V are
 * read once; its 8 warps take 4 slots each in turn, a lane 4 elements of a head:
 *
 *   t[i] = (lanes' sums of q K[i], in halves) * scale
 *   m' = max(m, t...);  p[i] = e^(t[i] - m');  l = l * e^(m - m') + sum_i p[i];  o likewise with V
 *
 * then the warps are added in order, and the parts by whichever block finishes last, in order as
 * well. What a row gives depends on its own span alone.
 */
#include "cuda/attention.h"

enum {
    THREADS = 256,
    WARPS = THREADS / WARP,
    SLOTS = 4, /* of a warp at a time */
    MOST_HEADS = 8,
    MOST_DIM = 4 * WARP
};

/* Of one warp, for a head. */
struct state {
    float4 o;
    float m, l;
};

static __device__ inline float4 four_at(const float *from, bool is_there)
{
    return is_there ? *reinterpret_cast<const float4 *>(from) : make_float4(0.0f, 0.0f, 0.0f, 0.0f);
}

static __device__ inline float dot_of(float4 a, float4 b)
{
    return warp_sum(fmaf(a.w, b.w, fmaf(a.z, b.z, fmaf(a.y, b.y, a.x * b.x))));
}

static __device__ inline float4 scaled(float4 a, float by)
{
    return make_float4(a.x * by, a.y * by, a.z * by, a.w * by);
}

static __device__ inline float4 added(float4 sum, float4 v, float by)
{
    return make_float4(fmaf(by, v.x, sum.x), fmaf(by, v.y, sum.y), fmaf(by, v.z, sum.z),
                       fmaf(by, v.w, sum.w));
}

/* `n` slots, at least one, of a head. */
static __device__ inline void add_slots(struct state &s, float4 q, const float4 k[SLOTS],
                                        const float4 v[SLOTS], int n, float scale)
{
    float t[SLOTS], most = s.m, again, p;

#pragma unroll
    for (int i = 0; i < SLOTS; i++) {
        t[i] = dot_of(q, k[i]) * scale;
        if (i < n)
            most = fmaxf(most, t[i]);
    }
    again = expf(s.m - most);
    s.l *= again;
    s.o = scaled(s.o, again);
#pragma unroll
    for (int i = 0; i < SLOTS; i++) {
        p = i < n ? expf(t[i] - most) : 0.0f;
        s.l += p;
        s.o = added(s.o, v[i], p);
    }
    s.m = most;
}

/* The warps' states of the block's heads to this part's place. */
template <int kHeads>
static __device__ inline void store_part(const struct attention &a, const struct state s[kHeads],
                                         int first, int n)
{
    __shared__ __align__(16) float o[WARPS][kHeads][MOST_DIM];
    __shared__ float m[WARPS][kHeads], l[WARPS][kHeads];
    int warp = (int)threadIdx.x / WARP, lane = (int)threadIdx.x % WARP, dim = a.kv.head_dim;

#pragma unroll
    for (int h = 0; h < kHeads; h++) {
        *reinterpret_cast<float4 *>(&o[warp][h][4 * lane]) = s[h].o;
        if (lane == 0) {
            m[warp][h] = s[h].m;
            l[warp][h] = s[h].l;
        }
    }
    __syncthreads();
    for (int h = warp; h < n; h += WARPS) {
        float most = -INFINITY, sum = 0.0f, factor[WARPS];
        float *to =
            a.partial +
            (((int64_t)blockIdx.x * a.n_heads + first + h) * SPLITS + blockIdx.z) * (dim + 2);

#pragma unroll
        for (int w = 0; w < WARPS; w++)
            most = fmaxf(most, m[w][h]);
#pragma unroll
        for (int w = 0; w < WARPS; w++) {
            factor[w] = l[w][h] == 0.0f ? 0.0f : expf(m[w][h] - most);
            sum = fmaf(l[w][h], factor[w], sum);
        }
        for (int d = lane; d < dim; d += WARP) {
            float all = 0.0f;

#pragma unroll
            for (int w = 0; w < WARPS; w++)
                all = fmaf(o[w][h][d], factor[w], all);
            to[d] = all;
        }
        if (lane == 0) {
            to[dim] = most;
            to[dim + 1] = sum;
        }
    }
}

template <int kHeads>
static __global__ __launch_bounds__(THREADS) void split_kernel(struct attention a)
{
    int warp = (int)threadIdx.x / WARP, lane = (int)threadIdx.x % WARP, dim = a.kv.head_dim;
    int first = first_head((int32_t)blockIdx.y, a.n_heads, a.kv.n_heads);
    int n = first_head((int32_t)blockIdx.y + 1, a.n_heads, a.kv.n_heads) - first;
    int64_t to_value = a.kv.page_rows * a.kv.n_heads * dim;
    bool has_dims = 4 * lane < dim;
    struct mmqi_span span;
    struct state s[kHeads];
    float4 q[kHeads], k[SLOTS], v[SLOTS];

    wait_for_inputs();
    span = span_part(a.spans[blockIdx.x], (int)blockIdx.z, SPLITS);
#pragma unroll
    for (int h = 0; h < kHeads; h++) {
        q[h] = four_at(row_of(a.q, blockIdx.x) + (int64_t)(first + h) * dim + 4 * lane,
                       has_dims && h < n);
        s[h].o = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
        s[h].m = -INFINITY;
        s[h].l = 0.0f;
    }
    for (int32_t at = span.begin + warp * SLOTS; at < span.end; at += WARPS * SLOTS) {
        int here = span.end - at < SLOTS ? span.end - at : SLOTS;

#pragma unroll
        for (int i = 0; i < SLOTS; i++) {
            const float *from =
                key_of(a.kv, i < here ? at + i : at, (int32_t)blockIdx.y) + 4 * lane;

            k[i] = four_at(from, has_dims && i < here);
            v[i] = four_at(from + to_value, has_dims && i < here);
        }
#pragma unroll
        for (int h = 0; h < kHeads; h++)
            add_slots(s[h], q[h], k, v, here, a.scale);
    }
    store_part<kHeads>(a, s, first, n);
    if (!a.arrived || !is_last_block(&a.arrived[blockIdx.x * a.kv.n_heads + blockIdx.y], SPLITS))
        return;
    for (int h = warp; h < n; h += WARPS)
        join_parts(a, blockIdx.x, first + h, lane, WARP);
}

bool mmqi_cuda_split_attention_serves(const struct attention *a)
{
    uintptr_t addresses = (uintptr_t)a->kv.pages | (uintptr_t)a->q.data;

    return a->partial && a->kv.head_dim <= MOST_DIM && a->kv.head_dim % 4 == 0 &&
           a->kv.page_stride % 4 == 0 && a->q.stride % 4 == 0 && addresses % 16 == 0 &&
           ceil_div(a->n_heads, a->kv.n_heads) <= MOST_HEADS;
}

int32_t mmqi_cuda_split_attention(struct mmqi_stream *s, const struct attention *a)
{
    int64_t group = ceil_div(a->n_heads, a->kv.n_heads);
    dim3 grid((unsigned)a->q.rows, (unsigned)a->kv.n_heads, SPLITS);

    if (group <= 1)
        return launch(s, "attention", split_kernel<1>, grid, dim3(THREADS), 0, *a);
    if (group <= 2)
        return launch(s, "attention", split_kernel<2>, grid, dim3(THREADS), 0, *a);
    if (group <= 4)
        return launch(s, "attention", split_kernel<4>, grid, dim3(THREADS), 0, *a);
    return launch(s, "attention", split_kernel<8>, grid, dim3(THREADS), 0, *a);
}
