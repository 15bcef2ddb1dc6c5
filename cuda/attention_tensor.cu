/*
 * Attention of many rows in `fast` mode, on tensor cores: for heads of up to 128 elements on
 * devices from compute capability 8.0 on; elsewhere attention.cu serves.
 *
 * A block takes 128 queries of one key head, or 64 where that fills the device better, a warp 16 of
 * them, and visits the slots of their spans 64 at a time. q, K, V and the weights p are rounded to
 * bf16; scores, their maxima, the sums of p (before rounding) and of p V are f32:
 *
 *   t = (q . K[j]) * scale;  m' = max(m, t...);  p[j] = 2^((t - m') log2 e)
 *   l = l * 2^((m - m') log2 e) + sum_j p[j];  o likewise with p[j] V[j];  y = o / l
 *
 * Slots that no query of the block may see are zeros, and never read. How many queries share a
 * block changes no bit.
 *
 * In shared memory K lies [slot][element], V turned [element][slot], with 8 elements of padding
 * each, so that the pairs a fragment needs are one word and its lanes read banks of their own.
 */
#include "cuda/attention.h"

enum {
    FEW_WARPS = 4, /* of a block */
    MANY_WARPS = 8,
    EACH_QUERIES = 16, /* of a warp */
    SLOTS = 64,        /* of a step */
    PAD = 8
};

#ifndef MMQI_EMULATED
/* c[16, 8] += a[16, 16] b[16, 8]. With g = lane / 4 and t = lane % 4, a lane holds
 *   a: rows g, g + 8, g, g + 8, columns 2t and 2t + 1 of the first, first, second, second eight
 *   b: rows 2t, 2t + 1 of the first and of the second eight, column g
 *   c: row g columns 2t, 2t + 1, then row g + 8 */
static __device__ inline void mma_bf16(float c[4], const uint32_t a[4], uint32_t b0, uint32_t b1)
{
#if __CUDA_ARCH__ >= 800
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
                 "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#endif
}
#endif

static __device__ inline uint32_t pair_of(float low, float high)
{
    return (uint32_t)__bfloat16_as_ushort(__float2bfloat16_rn(low)) |
           (uint32_t)__bfloat16_as_ushort(__float2bfloat16_rn(high)) << 16;
}

struct place {
    int32_t row, head; /* row -1: none */
};

/* Query i of the block. */
template <int kWarps>
static __device__ inline struct place place_of(const struct attention &a, int i)
{
    int32_t first = first_head((int32_t)blockIdx.y, a.n_heads, a.kv.n_heads);
    int32_t n = first_head((int32_t)blockIdx.y + 1, a.n_heads, a.kv.n_heads) - first;
    int64_t pair = (int64_t)blockIdx.x * (kWarps * EACH_QUERIES) + i;
    struct place none = {-1, 0}, place;

    if (n <= 0 || pair / n >= a.q.rows)
        return none;
    place.row = (int32_t)(pair / n);
    place.head = first + (int32_t)(pair % n);
    return place;
}

/* An empty one where there is no query. */
static __device__ inline struct mmqi_span span_of(const struct attention &a, struct place place)
{
    struct mmqi_span none = {0, 0}, span;

    if (place.row < 0)
        return none;
    span = a.spans[place.row];
    return span.begin < span.end ? span : none;
}

static __device__ inline bool meets(struct mmqi_span span, int32_t begin, int32_t end)
{
    return span.begin < end && span.end > begin && span.begin < span.end;
}

/* The spans of all queries of the block, a few in each lane. */
template <int kWarps> struct all_spans {
    struct mmqi_span mine[kWarps * EACH_QUERIES / WARP];
    int32_t begin, end; /* of all */
};

template <int kWarps>
static __device__ inline all_spans<kWarps> find_spans(const struct attention &a)
{
    all_spans<kWarps> all = {{}, INT32_MAX, 0};
    int lane = (int)threadIdx.x % WARP;
    int32_t begin, end;

    for (int i = 0; i < kWarps * EACH_QUERIES / WARP; i++) {
        all.mine[i] = span_of(a, place_of<kWarps>(a, lane + i * WARP));
        if (all.mine[i].begin < all.mine[i].end) {
            all.begin = all.mine[i].begin < all.begin ? all.mine[i].begin : all.begin;
            all.end = all.mine[i].end > all.end ? all.mine[i].end : all.end;
        }
    }
    for (int half = WARP / 2; half >= 1; half /= 2) {
        begin = __shfl_xor_sync(ALL_LANES, all.begin, half);
        end = __shfl_xor_sync(ALL_LANES, all.end, half);
        all.begin = begin < all.begin ? begin : all.begin;
        all.end = end > all.end ? end : all.end;
    }
    return all;
}

/* Does any query of the block see a slot of [begin, end)? The same for every warp. */
template <int kWarps>
static __device__ inline bool any_meets(const all_spans<kWarps> &all, int32_t begin, int32_t end)
{
    bool any = false;

    for (int i = 0; i < kWarps * EACH_QUERIES / WARP; i++)
        any = any || meets(all.mine[i], begin, end);
    return __any_sync(ALL_LANES, any);
}

/* Elements d and d + 1 of a row of `dim`, zeros beyond its end or where `from` is NULL. */
static __device__ inline float2 two_of(const float *from, int d, int dim, bool even)
{
    if (!from || d >= dim)
        return make_float2(0.0f, 0.0f);
    if (even)
        return *reinterpret_cast<const float2 *>(from + d);
    return make_float2(from[d], d + 1 < dim ? from[d + 1] : 0.0f);
}

/* Which of the warp's slots from `at` on some query of the block sees, as bits. */
template <int kWarps>
static __device__ inline uint32_t used_slots(const all_spans<kWarps> &all, int32_t at)
{
    constexpr int kEach = SLOTS / kWarps;
    uint32_t used = 0;

    for (int i = 0; i < kWarps * EACH_QUERIES / WARP; i++) {
        int32_t begin = all.mine[i].begin > at ? all.mine[i].begin - at : 0;
        int32_t end = all.mine[i].end - at < kEach ? all.mine[i].end - at : kEach;

        if (begin < end)
            used |= (1u << end) - (1u << begin);
    }
    for (int half = WARP / 2; half >= 1; half /= 2)
        used |= __shfl_xor_sync(ALL_LANES, used, half);
    return used;
}

/* Where slot j of the warp's is: `from` is slot 0's key if they all lie in one page, else NULL. */
static __device__ inline const float *slot_at(const struct attention &a, const float *from,
                                              int32_t at, int j, uint32_t used)
{
    if (!(used >> j & 1))
        return NULL;
    return from ? from + (int64_t)j * a.kv.n_heads * a.kv.head_dim
                : key_of(a.kv, at + j, (int32_t)blockIdx.y);
}

/* A warp's slots of the step: keys to `keys` [SLOTS][kDim + PAD], values to `values`
 * [kDim][SLOTS + PAD], both bf16. Unrolled, so that all of the loads are under way at once. */
template <int kDim, int kWarps>
static __device__ inline void load_step(uint16_t *keys, uint16_t *values, const struct attention &a,
                                        const all_spans<kWarps> &all, int32_t base, bool even)
{
    constexpr int kEach = SLOTS / kWarps;
    int lane = (int)threadIdx.x % WARP, first = (int)threadIdx.x / WARP * kEach;
    int dim = a.kv.head_dim;
    int64_t to_value = a.kv.page_rows * a.kv.n_heads * dim;
    uint32_t used = used_slots(all, base + first);
    const float *page = used && a.kv.page_rows % kEach == 0
                            ? key_of(a.kv, base + first, (int32_t)blockIdx.y)
                            : NULL;

#pragma unroll
    for (int j = 0; j < kEach; j++) {
        const float *from = slot_at(a, page, base + first, j, used);

#pragma unroll
        for (int d = 2 * lane; d < kDim; d += 2 * WARP) {
            float2 v = two_of(from, d, dim, even);

            *reinterpret_cast<uint32_t *>(keys + (first + j) * (kDim + PAD) + d) =
                pair_of(v.x, v.y);
        }
    }
#pragma unroll
    for (int i = 0; i < kEach / 8; i++) {
        int j = 8 * i + 2 * (lane / 8);
        const float *v0 = slot_at(a, page, base + first, j, used);
        const float *v1 = slot_at(a, page, base + first, j + 1, used);

        v0 = v0 ? v0 + to_value : NULL;
        v1 = v1 ? v1 + to_value : NULL;
#pragma unroll
        for (int n = 0; n < kDim / 8; n++) {
            int d = lane % 8 + 8 * n;

            *reinterpret_cast<uint32_t *>(values + d * (SLOTS + PAD) + first + j) =
                pair_of(v0 && d < dim ? v0[d] : 0.0f, v1 && d < dim ? v1[d] : 0.0f);
        }
    }
}

/* A warp's 16 queries as fragments; rows g and g + 8 are this lane's. */
template <int kDim>
static __device__ inline void load_queries(uint32_t q[kDim / 16][4], const struct attention &a,
                                           const struct place place[2])
{
    int t = (int)threadIdx.x % 4, dim = a.kv.head_dim;

    for (int half = 0; half < 2; half++) {
        const float *from = place[half].row < 0
                                ? NULL
                                : row_of(a.q, place[half].row) + (int64_t)place[half].head * dim;

#pragma unroll
        for (int i = 0; i < kDim / 16; i++) {
            float2 low = two_of(from, 16 * i + 2 * t, dim, false);
            float2 high = two_of(from, 16 * i + 2 * t + 8, dim, false);

            q[i][half] = pair_of(low.x, low.y);
            q[i][half + 2] = pair_of(high.x, high.y);
        }
    }
}

/* t[16, SLOTS] of the step, in units that 2^ takes. */
template <int kDim>
static __device__ inline void score(float t[SLOTS / 8][4], const uint32_t q[kDim / 16][4],
                                    const uint16_t *keys)
{
    int g = (int)threadIdx.x % WARP / 4, pair = (int)threadIdx.x % 4;

#pragma unroll
    for (int n = 0; n < SLOTS / 8; n++) {
        const uint16_t *row = keys + (8 * n + g) * (kDim + PAD) + 2 * pair;

        t[n][0] = t[n][1] = t[n][2] = t[n][3] = 0.0f;
#pragma unroll
        for (int i = 0; i < kDim / 16; i++)
            mma_bf16(t[n], q[i], *reinterpret_cast<const uint32_t *>(row + 16 * i),
                     *reinterpret_cast<const uint32_t *>(row + 16 * i + 8));
    }
}

/* Running maximum and sum of a row. */
struct running {
    float m, l;
};

/* Scores of row `half` of the lane to weights; returns what the sums before are multiplied by. */
static __device__ inline float weigh(float t[SLOTS / 8][4], struct running &run, int half,
                                     struct mmqi_span span, int32_t base, float scale)
{
    int pair = (int)threadIdx.x % 4;
    float most = run.m, again, sum = 0.0f;

#pragma unroll
    for (int i = 0; i < SLOTS / 4; i++) {
        int32_t slot = base + i / 2 * 8 + 2 * pair + i % 2;
        float &at = t[i / 2][2 * half + i % 2];

        at = slot >= span.begin && slot < span.end ? at * scale : -INFINITY;
        most = fmaxf(most, at);
    }
    most = fmaxf(most, __shfl_xor_sync(ALL_LANES, most, 1));
    most = fmaxf(most, __shfl_xor_sync(ALL_LANES, most, 2));
    if (most == -INFINITY)
        most = 0.0f; /* no slot yet: all weights are 2^-inf */
#pragma unroll
    for (int i = 0; i < SLOTS / 4; i++) {
        float &at = t[i / 2][2 * half + i % 2];

        at = exp2f(at - most);
        sum += at;
    }
    sum += __shfl_xor_sync(ALL_LANES, sum, 1);
    sum += __shfl_xor_sync(ALL_LANES, sum, 2);
    again = exp2f(run.m - most);
    run.l = run.l * again + sum;
    run.m = sum > 0.0f || run.l > 0.0f ? most : run.m;
    return again;
}

/* o[16, kDim] += p[16, SLOTS] V. */
template <int kDim>
static __device__ inline void add_values(float o[kDim / 8][4], const float p[SLOTS / 8][4],
                                         const uint16_t *values)
{
    int g = (int)threadIdx.x % WARP / 4, pair = (int)threadIdx.x % 4;

#pragma unroll
    for (int k = 0; k < SLOTS / 16; k++) {
        uint32_t a[4] = {pair_of(p[2 * k][0], p[2 * k][1]), pair_of(p[2 * k][2], p[2 * k][3]),
                         pair_of(p[2 * k + 1][0], p[2 * k + 1][1]),
                         pair_of(p[2 * k + 1][2], p[2 * k + 1][3])};

#pragma unroll
        for (int n = 0; n < kDim / 8; n++) {
            const uint16_t *row = values + (8 * n + g) * (SLOTS + PAD) + 16 * k + 2 * pair;

            mma_bf16(o[n], a, *reinterpret_cast<const uint32_t *>(row),
                     *reinterpret_cast<const uint32_t *>(row + 8));
        }
    }
}

template <int kDim>
static __device__ inline void store_rows(const struct attention &a, const float o[kDim / 8][4],
                                         const struct place place[2], const struct running run[2])
{
    int pair = (int)threadIdx.x % 4, dim = a.kv.head_dim;

    for (int half = 0; half < 2; half++) {
        float *to, inverse = run[half].l > 0.0f ? 1.0f / run[half].l : 0.0f;

        if (place[half].row < 0)
            continue;
        to = row_of(a.y, place[half].row) + (int64_t)place[half].head * dim;
#pragma unroll
        for (int i = 0; i < kDim / 4; i++) {
            int d = i / 2 * 8 + 2 * pair + i % 2;

            if (d < dim)
                to[d] =
                    run[half].l != run[half].l ? run[half].l : o[i / 2][2 * half + i % 2] * inverse;
        }
    }
}

template <int kDim, int kWarps>
static __global__ __launch_bounds__(kWarps *WARP) void tensor_attention_kernel(struct attention a,
                                                                               bool even)
{
    __shared__ __align__(16) uint16_t keys[SLOTS * (kDim + PAD)];
    __shared__ __align__(16) uint16_t values[kDim * (SLOTS + PAD)];
    int mine = (int)threadIdx.x / WARP * EACH_QUERIES + (int)threadIdx.x % WARP / 4;
    struct place place[2] = {place_of<kWarps>(a, mine), place_of<kWarps>(a, mine + 8)};
    struct running run[2] = {{-INFINITY, 0.0f}, {-INFINITY, 0.0f}};
    float o[kDim / 8][4] = {}, t[SLOTS / 8][4], again[2], scale = a.scale * 1.44269504f;
    uint32_t q[kDim / 16][4];
    struct mmqi_span span[2];
    all_spans<kWarps> all;

    wait_for_inputs();
    span[0] = span_of(a, place[0]);
    span[1] = span_of(a, place[1]);
    all = find_spans<kWarps>(a);
    load_queries<kDim>(q, a, place);
    for (int32_t base = all.begin / SLOTS * SLOTS; base < all.end; base += SLOTS) {
        if (!any_meets(all, base, base + SLOTS))
            continue;
        __syncthreads(); /* all are done with the step before */
        load_step<kDim, kWarps>(keys, values, a, all, base, even);
        __syncthreads();
        score<kDim>(t, q, keys);
        again[0] = weigh(t, run[0], 0, span[0], base, scale);
        again[1] = weigh(t, run[1], 1, span[1], base, scale);
#pragma unroll
        for (int n = 0; n < kDim / 8; n++)
#pragma unroll
            for (int i = 0; i < 4; i++)
                o[n][i] *= again[i / 2];
        add_values<kDim>(o, t, values);
    }
    store_rows<kDim>(a, o, place, run);
}

bool mmqi_cuda_tensor_attention_serves(const struct mmqi_stream *s, const struct attention *a)
{
    return s->options.mode == MMQI_MODE_FAST && s->device->compute >= 80 && a->kv.head_dim <= 128 &&
           !a->partial;
}

template <int kDim, int kWarps>
static int32_t run_tensor_attention(struct mmqi_stream *s, const struct attention *a)
{
    int64_t group = ceil_div(a->n_heads, a->kv.n_heads);
    dim3 grid((unsigned)ceil_div(a->q.rows * group, kWarps * EACH_QUERIES),
              (unsigned)a->kv.n_heads);
    bool even =
        a->kv.head_dim % 2 == 0 && a->kv.page_stride % 2 == 0 && (uintptr_t)a->kv.pages % 8 == 0;

    return launch(s, "attention", tensor_attention_kernel<kDim, kWarps>, grid, dim3(kWarps * WARP),
                  0, *a, even);
}

template <int kDim> static int32_t run_width(struct mmqi_stream *s, const struct attention *a)
{
    int64_t queries = a->q.rows * ceil_div(a->n_heads, a->kv.n_heads);
    int64_t blocks = ceil_div(queries, MANY_WARPS * EACH_QUERIES) * a->kv.n_heads;

    if (blocks >= 2 * (int64_t)s->device->n_multiprocessors)
        return run_tensor_attention<kDim, MANY_WARPS>(s, a);
    return run_tensor_attention<kDim, FEW_WARPS>(s, a);
}

int32_t mmqi_cuda_tensor_attention(struct mmqi_stream *s, const struct attention *a)
{
    if (a->kv.head_dim <= 64)
        return run_width<64>(s, a);
    return a->kv.head_dim <= 80 ? run_width<80>(s, a) : run_width<128>(s, a);
}
