/*
 * Products of few rows of x, straight from the packed bytes of W: what decoding
 * a token waits for.
 *
 * A warp takes kRows rows of W side by side, a lane 16 bytes of each at a time; two steps of loads
 * are in flight while an earlier one is computed. x lies in shared memory in the order in which
 * lanes read it: part i of step j's run of lane l is at float4 (j * Q + i) * 32 + (l ^ (i & 7)), Q
 * being the float4 of a run, so that neither filling nor reading meets bank conflicts.
 *
 * The 4-bit tables are looked up by whole bytes: 256 pairs of numbers, each 16 times side by side,
 * so that every lane of half a warp reads banks of its own.
 *
 * Bytes: W is read once; x once per block of 8 * kRows rows of W (from L2). Arithmetic, of a 4-bit
 * weight: about 3 instructions and one shared-memory access of 4 bytes.
 */
#include "cuda/activation.h"
#include "cuda/product.h"

enum {
    THREADS = 256,
    WARPS = THREADS / WARP,
    PAIR_COPIES = 16,
    PAIR_BYTES = 256 * PAIR_COPIES * 8,
    MAP_BYTES = 256 * 4,
    MUCH_SHARED = 99 * 1024,
    MOST_COLS = 1 << 24,  /* so that the rows of a block lie within 2^32 bytes */
    FEW_X_FLOATS = 7168,  /* of x in shared memory at a time: 28 KiB beside 33 of tables */
    MOST_X_FLOATS = 14336 /* the same where a block may have MUCH_SHARED */
};

enum code { CODE_F32, CODE_F16, CODE_BF16, CODE_INT8, CODE_TABLE4, CODE_NESTED4, CODE_INT4 };

static __host__ __device__ constexpr int run_of(int code)
{
    return code == CODE_F32 ? 4 : code <= CODE_BF16 ? 8 : code == CODE_INT8 ? 16 : 32;
}

static __host__ __device__ constexpr bool has_table(int code)
{
    return code == CODE_TABLE4 || code == CODE_NESTED4;
}

static __host__ __device__ constexpr int table_bytes(int code)
{
    return !has_table(code) ? 0 : code == CODE_NESTED4 ? PAIR_BYTES + MAP_BYTES : PAIR_BYTES;
}

/* One run as it lies in memory: codes, and what its scale is made of. */
struct piece {
    uint4 codes;
    uint32_t a, b; /* TABLE4: absmax; nested: its code and absmax's scale; INT4: scale, zero */
};

#ifndef MMQI_EMULATED
/* 16 bytes that are read once, so need not stay in the caches; zeros, and no access, where they are
 * not there. As one instruction under a predicate: a branch would cost moves of the result. */
static __device__ inline uint4 read_codes(const uint8_t *p, bool is_there)
{
    uint4 v;

    asm volatile("{\n\t.reg .pred there;\n\tsetp.ne.u32 there, %5, 0;\n\t"
                 "mov.u32 %0, 0;\n\tmov.u32 %1, 0;\n\tmov.u32 %2, 0;\n\tmov.u32 %3, 0;\n\t"
                 "@there ld.global.cs.v4.u32 {%0, %1, %2, %3}, [%4];\n\t}"
                 : "=&r"(v.x), "=&r"(v.y), "=&r"(v.z), "=&r"(v.w)
                 : "l"(p), "r"((uint32_t)is_there));
    return v;
}

/* kBytes of 1, 2 or 4 of a scale, likewise. */
template <int kBytes> static __device__ inline uint32_t read_scale(const uint8_t *p, bool is_there)
{
    uint32_t v;

    if (kBytes == 4)
        asm volatile("{\n\t.reg .pred there;\n\tsetp.ne.u32 there, %2, 0;\n\tmov.u32 %0, 0;\n\t"
                     "@there ld.global.u32 %0, [%1];\n\t}"
                     : "=&r"(v)
                     : "l"(p), "r"((uint32_t)is_there));
    else if (kBytes == 2)
        asm volatile("{\n\t.reg .pred there;\n\tsetp.ne.u32 there, %2, 0;\n\tmov.u32 %0, 0;\n\t"
                     "@there ld.global.u16 %0, [%1];\n\t}"
                     : "=&r"(v)
                     : "l"(p), "r"((uint32_t)is_there));
    else
        asm volatile("{\n\t.reg .pred there;\n\tsetp.ne.u32 there, %2, 0;\n\tmov.u32 %0, 0;\n\t"
                     "@there ld.global.u8 %0, [%1];\n\t}"
                     : "=&r"(v)
                     : "l"(p), "r"((uint32_t)is_there));
    return v;
}

/* x as the compiler must not compute it anew, which it otherwise does in every step. */
static __device__ inline uint32_t kept(uint32_t x)
{
    asm volatile("" : "+r"(x));
    return x;
}
#endif

/* Where the rows of W of a block begin: the same for its threads. Whatever lies further is less
 * than 2^32 away. */
struct source {
    const uint8_t *codes, *scales, *more; /* part 0, part 1, part 2 */
    uint32_t more_shift;                  /* nested: blocks from `more`'s first scale to `scales` */
    uint32_t row_bytes;
    int64_t row0, block0; /* first row; the scale of its first element */
};

template <int kCode>
static __device__ inline struct source find_source(const struct weight_view &w, int64_t row0)
{
    struct source s = {};

    s.row0 = row0;
    s.row_bytes = (uint32_t)(w.cols / run_of(kCode) * RUN_BYTES);
    s.codes = w.part[0] + row0 * s.row_bytes;
    if (has_table(kCode)) {
        s.block0 = (row0 * w.cols) >> w.shift;
        s.scales = w.part[1] + s.block0 * (kCode == CODE_NESTED4 ? 1 : 4);
        s.more = w.part[2] + s.block0 / MMQI_NESTED_BLOCK * 4;
        s.more_shift = (uint32_t)(s.block0 % MMQI_NESTED_BLOCK);
    } else if (kCode == CODE_INT4) {
        s.block0 = row0 * int4_groups(w);
        s.scales = w.part[1] + s.block0 * 2;
        s.more = w.part[2] + s.block0;
    }
    return s;
}

/* Of a lane's first run of a row: how far it and its scale are from where the block begins. Steps
 * are whole blocks, so both move on by the same amount from step to step. */
struct cursor {
    uint32_t codes, scale;
};

template <int kCode>
static __device__ inline struct cursor find_cursor(const struct weight_view &w,
                                                   const struct source &s, int64_t row, int lane)
{
    struct cursor c = {(uint32_t)(row - s.row0) * s.row_bytes + RUN_BYTES * lane, 0};

    if (has_table(kCode))
        c.scale = (uint32_t)(((row * w.cols + run_of(kCode) * lane) >> w.shift) - s.block0);
    else if (kCode == CODE_INT4)
        c.scale = (uint32_t)(row * int4_groups(w) + ((run_of(kCode) * lane) >> w.shift) - s.block0);
    c.codes = kept(c.codes);
    c.scale = kept(c.scale);
    return c;
}

/* Zeros where there is no such run. */
template <int kCode>
static __device__ inline struct piece load_piece(const struct source &s, struct cursor c, int step,
                                                 uint32_t blocks /* of a step */, bool is_there)
{
    struct piece p = {};
    uint32_t at = c.scale + step * blocks;

    p.codes = read_codes(s.codes + (c.codes + (uint32_t)step * (RUN_BYTES * LANES)), is_there);
    if (kCode == CODE_TABLE4)
        p.a = read_scale<4>(s.scales + at * 4, is_there);
    if (kCode == CODE_NESTED4) {
        p.a = read_scale<1>(s.scales + at, is_there);
        p.b = read_scale<4>(s.more + (at + s.more_shift) / MMQI_NESTED_BLOCK * 4, is_there);
    }
    if (kCode == CODE_INT4) {
        p.a = read_scale<2>(s.scales + at * 2, is_there);
        p.b = read_scale<1>(s.more + at, is_there);
    }
    return p;
}

/* ---- four numbers of a run ---- */

/* Byte j of x as the float 2^23 + byte. */
template <int kByte> static __device__ inline float float_of_byte(uint32_t x)
{
    return __uint_as_float(__byte_perm(x, 0x4b000000u, 0x7440 + kByte));
}

/* The pair of byte kByte of x, from the copy that begins `copy` bytes into shared memory. */
template <int kByte> static __device__ inline float2 pair_of_byte(uint32_t x, uint32_t copy)
{
    MMQI_SHARED(unsigned char, pairs);
    uint32_t offset = kByte == 0 ? x << 7 : x >> (kByte == 0 ? 0 : 8 * kByte - 7);

    return *reinterpret_cast<const float2 *>(pairs + ((offset & 0x7f80u) | copy));
}

static __device__ inline uint32_t word_of(const uint4 &v, int i)
{
    return i == 0 ? v.x : i == 1 ? v.y : i == 2 ? v.z : v.w;
}

/* Numbers [4 i, 4 i + 4) of the run; `zero` is 2^23 + the code that means 0. i is a constant where
 * this is unrolled. */
template <int kCode>
static __device__ inline float4 four_of(const uint4 &codes, int i, float zero, uint32_t copy)
{
    uint32_t x, low, high;
    float2 a, b;

    if (kCode == CODE_F32)
        return make_float4(__uint_as_float(codes.x), __uint_as_float(codes.y),
                           __uint_as_float(codes.z), __uint_as_float(codes.w));
    if (kCode == CODE_F16 || kCode == CODE_BF16) {
        low = word_of(codes, 2 * i);
        high = word_of(codes, 2 * i + 1);
        if (kCode == CODE_F16)
            return make_float4(float_of_f16(low & 0xffffu), float_of_f16(low >> 16),
                               float_of_f16(high & 0xffffu), float_of_f16(high >> 16));
        return make_float4(__uint_as_float(low << 16), __uint_as_float(low & 0xffff0000u),
                           __uint_as_float(high << 16), __uint_as_float(high & 0xffff0000u));
    }
    if (kCode == CODE_INT8) {
        x = word_of(codes, i) ^ 0x80808080u;
        return make_float4(float_of_byte<0>(x) - zero, float_of_byte<1>(x) - zero,
                           float_of_byte<2>(x) - zero, float_of_byte<3>(x) - zero);
    }
    x = word_of(codes, i / 2);
    if (kCode == CODE_INT4) {
        low = x & 0x0f0f0f0fu;
        high = x >> 4 & 0x0f0f0f0fu;
        if (i % 2 == 0)
            return make_float4(float_of_byte<0>(low) - zero, float_of_byte<0>(high) - zero,
                               float_of_byte<1>(low) - zero, float_of_byte<1>(high) - zero);
        return make_float4(float_of_byte<2>(low) - zero, float_of_byte<2>(high) - zero,
                           float_of_byte<3>(low) - zero, float_of_byte<3>(high) - zero);
    }
    a = i % 2 == 0 ? pair_of_byte<0>(x, copy) : pair_of_byte<2>(x, copy);
    b = i % 2 == 0 ? pair_of_byte<1>(x, copy) : pair_of_byte<3>(x, copy);
    return make_float4(a.x, a.y, b.x, b.y);
}

/* ---- shared memory ---- */

/* The table as pairs: entry b holds the numbers of byte b, high half first. */
static __device__ inline void fill_pairs(float2 *pairs, const struct weight_view &w)
{
    for (int i = (int)threadIdx.x; i < 256 * PAIR_COPIES; i += THREADS) {
        int byte = i / PAIR_COPIES;

        pairs[i] = make_float2(w.table[byte >> 4], w.table[byte & 15]);
    }
}

/* Elements [begin, begin + n) of kX rows of x, zeros beyond its end; n is a multiple of 32 kRun. */
template <int kRun, int kX>
static __device__ inline void fill_x(float4 *xs, const struct mmqi_mat &x, int64_t begin, int n)
{
    constexpr int kQuads = kRun / 4;

    for (int c = (int)threadIdx.x; c < n / 4; c += THREADS) {
        int i = c % kQuads, lane = c / kQuads % LANES, step = c / (kQuads * LANES);
        int slot = (step * kQuads + i) * LANES + (lane ^ (i & 7));
        int64_t k = begin + 4 * (int64_t)c;

        for (int r = 0; r < kX; r++) {
            const float *row = row_of(x, r < x.rows ? r : 0) + k;
            float4 v = make_float4(0.0f, 0.0f, 0.0f, 0.0f);

            if (r < x.rows) {
                if (k < x.cols)
                    v.x = row[0];
                if (k + 1 < x.cols)
                    v.y = row[1];
                if (k + 2 < x.cols)
                    v.z = row[2];
                if (k + 3 < x.cols)
                    v.w = row[3];
            }
            xs[r * (n / 4) + slot] = v;
        }
    }
}

/* ---- the kernel ---- */

/* What the scale of a piece is. */
template <int kCode>
static __device__ inline float piece_scale(const struct piece &p, const struct weight_view &w,
                                           const float *map, float offset)
{
    if (kCode == CODE_TABLE4)
        return __uint_as_float(p.a);
    if (kCode == CODE_NESTED4)
        return add_rn(mul_rn(map[p.a], __uint_as_float(p.b)), offset);
    return scale_of_bits(w, p.a);
}

/* One run of one row of W, for kX rows of x; `xs` is the step's first float4 of row 0. */
template <int kCode, int kX>
static __device__ inline void add_run(float acc[kX], const struct piece &p, float scale,
                                      const float4 *xs, int stride, uint32_t copy)
{
    constexpr int kQuads = run_of(kCode) / 4;
    constexpr bool kScaled = has_table(kCode) || kCode == CODE_INT4;
    float zero = kCode == CODE_INT4 ? 8388608.0f + (float)p.b : 8388608.0f + 128.0f;
    int lane = (int)threadIdx.x % WARP;
    float sum[kX];

    for (int r = 0; r < kX; r++)
        sum[r] = kScaled ? 0.0f : acc[r];
#pragma unroll
    for (int i = 0; i < kQuads; i++) {
        float4 c = four_of<kCode>(p.codes, i, zero, copy);
#pragma unroll
        for (int r = 0; r < kX; r++) {
            float4 x = xs[r * stride + i * LANES + (lane ^ (i & 7))];

            sum[r] = fmaf(x.x, c.x, sum[r]);
            sum[r] = fmaf(x.y, c.y, sum[r]);
            sum[r] = fmaf(x.z, c.z, sum[r]);
            sum[r] = fmaf(x.w, c.w, sum[r]);
        }
    }
#pragma unroll
    for (int r = 0; r < kX; r++)
        acc[r] = kScaled ? fmaf(sum[r], scale, acc[r]) : sum[r];
}

/* Each lane's sum of one of a warp's kRows x kX outputs, added in order; 0 for lanes beyond.
 * `shared` is the warp's own. */
template <int kRows, int kX>
static __device__ inline float add_lanes(float *shared, const float acc[kRows][kX])
{
    int lane = (int)threadIdx.x % WARP;
    float sum = 0.0f;

#pragma unroll
    for (int o = 0; o < kRows * kX; o++)
        shared[o * (WARP + 1) + lane] = acc[o / kX][o % kX];
    __syncwarp();
    if (lane >= kRows * kX)
        return 0.0f;
    for (int l = 0; l < WARP; l++)
        sum = add_rn(sum, shared[lane * (WARP + 1) + l]);
    return sum;
}

template <int kRows, int kX>
static __device__ inline void store_sums(const struct product &p, int64_t first, float *shared,
                                         const float acc[kRows][kX])
{
    int lane = (int)threadIdx.x % WARP, row = lane / kX, r = lane % kX;
    float sum = add_lanes<kRows, kX>(shared, acc);

    if (row >= kRows || first + row >= p.w.rows || r >= p.y.rows)
        return;
    sum = finish_sum(p, first + row, sum);
    row_of(p.y, r)[first + row] = sum;
    if (kX == 1 && p.added)
        p.sum[first + row] = add_rn(p.added[first + row], sum);
}

/* gate and up, in that order, and y = act(gate) * up. */
struct gate_pair {
    struct product p[2];
    float *y;
    int32_t act;
};

/* Even rows of the warp are gate's, odd ones up's; y is written after both, as it may be one of
 * them. */
template <int kRows>
static __device__ inline void store_gated(const struct gate_pair &g, int64_t first, float *shared,
                                          const float acc[kRows][1])
{
    int lane = (int)threadIdx.x % WARP;
    int64_t row = first + lane / 2;
    float sum = add_lanes<kRows, 1>(shared, acc), other;
    bool is_there = lane < kRows && row < g.p[0].w.rows;

    if (is_there)
        sum = finish_sum(g.p[lane % 2], row, sum);
    other = __shfl_xor_sync(ALL_LANES, sum, 1);
    if (!is_there || lane % 2 != 0)
        return;
    g.p[0].y.data[row] = sum;
    g.p[1].y.data[row] = other;
    g.y[row] = gated(sum, other, g.act);
}

/* Rows of W that a warp takes: consecutive ones, the last again where there are no more. */
struct rows_in_order {
    int64_t first, n;
    __device__ int64_t operator()(int e) const
    {
        return first + e < n ? first + e : n - 1;
    }
};

/*
 * Block of kN products of one x and format, whose rows a warp takes in turns: row i of kRows is row
 * rows(i / kN) of product i % kN, and all are of one shape. No warp of the block takes one before
 * row0. x in shared memory `chunk` steps at a time, an even number. Adds the lanes' sums to `acc`.
 */
template <int kCode, int kRows, int kX, int kN, typename R>
static __device__ __forceinline__ void gemv_block(float acc[kRows][kX], const struct product *p,
                                                  int64_t row0, const R &rows, int chunk)
{
    constexpr int kRun = run_of(kCode), kStep = kRun * LANES;
    MMQI_SHARED(unsigned char, memory);
    uint32_t copy = threadIdx.x % PAIR_COPIES * sizeof(float2);
    float *map = reinterpret_cast<float *>(memory + PAIR_BYTES);
    float4 *xs = reinterpret_cast<float4 *>(memory + table_bytes(kCode));
    int lane = (int)threadIdx.x % WARP;
    int steps = (int)ceil_div(p->w.cols, kStep), runs = (int)(p->w.cols / kRun);
    int stride = chunk * kStep / 4;
    uint32_t blocks = (uint32_t)kStep >> p->w.shift;
    struct source source[kN];
    struct cursor at[kRows / kN]; /* the same in each product */
    struct piece now[2][kRows];
    float offset[kN] = {};

#pragma unroll
    for (int n = 0; n < kN; n++)
        source[n] = find_source<kCode>(p[n].w, row0);
#pragma unroll
    for (int i = 0; i < kRows; i++) {
        int e = i / kN;

        if (i % kN == 0)
            at[e] = find_cursor<kCode>(p->w, source[0], rows(e), lane);
        now[0][i] = load_piece<kCode>(source[i % kN], at[e], 0, blocks, lane < runs);
        now[1][i] = load_piece<kCode>(source[i % kN], at[e], 1, blocks, LANES + lane < runs);
    }
    if (has_table(kCode))
        fill_pairs(reinterpret_cast<float2 *>(memory), p->w);
    if (kCode == CODE_NESTED4) {
        map[threadIdx.x] = p->w.map[threadIdx.x];
#pragma unroll
        for (int n = 0; n < kN; n++)
            offset[n] = reinterpret_cast<const float *>(p[n].w.part[3])[0];
    }
    wait_for_inputs(); /* W may be read before */
    for (int begin = 0; begin < steps; begin += chunk) {
        int end = begin + chunk < steps ? begin + chunk : steps;
        const float4 *step = xs;

        __syncthreads();
        fill_x<kRun, kX>(xs, p->x, (int64_t)begin * kStep, chunk * kStep);
        __syncthreads();
        for (int t = begin; t < end; t += 2)
#pragma unroll
            for (int h = 0; h < 2; h++, step += kStep / 4) {
                bool is_there = (t + 2 + h) * LANES + lane < runs;
#pragma unroll
                for (int i = 0; i < kRows; i++) {
                    float scale = piece_scale<kCode>(now[h][i], p->w, map, offset[i % kN]);

                    add_run<kCode, kX>(acc[i], now[h][i], scale, step, stride, copy);
                    now[h][i] =
                        load_piece<kCode>(source[i % kN], at[i / kN], t + 2 + h, blocks, is_there);
                }
            }
    }
    __syncthreads();
}

/* Of each product, the warp's first row in block `block`; `each` of one warp. */
static __device__ inline int64_t first_row(unsigned block, int each)
{
    return (int64_t)block * (WARPS * each) + (int)threadIdx.x / WARP * each;
}

/* Shared memory for the lanes' sums of the warp's outputs, when x lies there no more. */
static __device__ inline float *sums_of_warp(int outputs)
{
    MMQI_SHARED(float, memory);

    return memory + threadIdx.x / WARP * outputs * (WARP + 1);
}

template <int kCode, int kRows, int kX>
static __device__ __forceinline__ void store_block(const struct product &p, unsigned block,
                                                   int chunk)
{
    float acc[kRows][kX] = {};
    int64_t row0 = (int64_t)block * (WARPS * kRows), first = first_row(block, kRows);
    const struct rows_in_order rows = {first, p.w.rows};

    gemv_block<kCode, kRows, kX, 1>(acc, &p, row0, rows, chunk);
    store_sums<kRows, kX>(p, first, sums_of_warp(kRows * kX), acc);
}

template <int kCode, int kRows, int kX>
static __global__ __launch_bounds__(THREADS, 2) void gemv_kernel(const __grid_constant__ product p,
                                                                 int chunk)
{
    store_block<kCode, kRows, kX>(p, blockIdx.x, chunk);
}

/* Products of the same x; number i has the blocks from begin[i]. */
struct group {
    struct product p[MMQI_CUDA_GROUP];
    uint32_t begin[MMQI_CUDA_GROUP]; /* UINT32_MAX: there is no such product */
};

static_assert(MMQI_CUDA_GROUP == 3 && sizeof(struct group) + sizeof(int) <= 4096,
              "what a kernel can be told");

template <int kCode, int kRows>
static __global__
__launch_bounds__(THREADS, 2) void gemv_group_kernel(const __grid_constant__ group g, int chunk)
{
    int i = (blockIdx.x >= g.begin[1]) + (blockIdx.x >= g.begin[2]);

    store_block<kCode, kRows, 1>(g.p[i], blockIdx.x - g.begin[i], chunk);
}

template <int kCode, int kRows>
static __global__
__launch_bounds__(THREADS, 2) void gemv_gate_kernel(const __grid_constant__ gate_pair g, int chunk)
{
    float acc[kRows][1] = {};
    int64_t row0 = (int64_t)blockIdx.x * (WARPS * kRows / 2);
    const struct rows_in_order rows = {first_row(blockIdx.x, kRows / 2), g.p[0].w.rows};

    gemv_block<kCode, kRows, 1, 2>(acc, g.p, row0, rows, chunk);
    /* made anew, so that no registers are held for it all along */
    store_gated<kRows>(g, first_row(kept(blockIdx.x), kRows / 2), sums_of_warp(kRows), acc);
}

/* q, k and v, in any order: blocks as of a group. */
struct turned_group {
    struct group g;
    int32_t role[MMQI_CUDA_GROUP]; /* enum turned_role */
    struct turning how;
};

/* Of pair number `pair` of a product's row, the low half's element; the high half's is head_dim / 2
 * further. */
static __device__ inline int64_t low_of_pair(int64_t pair, int32_t head_dim)
{
    int32_t half = head_dim / 2;

    return pair / half * head_dim + pair % half;
}

/* Rows of W that a warp takes: both of one pair after another, the last pair again. */
struct rows_of_pairs {
    int64_t first, n; /* pairs */
    int32_t head_dim;
    __device__ int64_t operator()(int e) const
    {
        int64_t pair = first + e / 2 < n ? first + e / 2 : n - 1;

        return low_of_pair(pair, head_dim) + e % 2 * (head_dim / 2);
    }
};

/* Even lanes have the low half of a pair, odd ones the high half. */
template <int kRows>
static __device__ inline void store_turned(const struct product &p, const struct turning &how,
                                           int32_t role, int64_t first, float *shared,
                                           const float acc[kRows][1])
{
    int lane = (int)threadIdx.x % WARP, dim = how.rope.head_dim;
    int64_t pair = first + lane / 2, low = low_of_pair(pair, dim), row = low + lane % 2 * (dim / 2);
    float sum = add_lanes<kRows, 1>(shared, acc), other;
    bool is_there = lane < kRows && pair < p.w.rows / 2;

    if (is_there)
        sum = finish_sum(p, row, sum);
    other = __shfl_xor_sync(ALL_LANES, sum, 1);
    if (!is_there)
        return;
    if (role != ROLE_VALUE) {
        struct turn turn = find_turn(how, 0, (int32_t)(low % dim));

        sum = lane % 2 == 0 ? turned_low(turn, sum, other) : turned_high(turn, other, sum);
    }
    p.y.data[row] = sum;
    if (role != ROLE_TURNED)
        how.kv.pages[key_offset(how.kv, how.slots[0]) +
                     (role == ROLE_VALUE ? value_offset(how.kv) : 0) + row] = sum;
}

template <int kCode, int kRows>
static __global__
__launch_bounds__(THREADS, 2) void gemv_turned_kernel(const __grid_constant__ turned_group t,
                                                      int chunk)
{
    int i = (blockIdx.x >= t.g.begin[1]) + (blockIdx.x >= t.g.begin[2]);
    const struct product &p = t.g.p[i];
    unsigned block = blockIdx.x - t.g.begin[i];
    int64_t first = first_row(block, kRows / 2);
    const struct rows_of_pairs rows = {first, p.w.rows / 2, t.how.rope.head_dim};
    float acc[kRows][1] = {};

    gemv_block<kCode, kRows, 1, 1>(
        acc, &p, low_of_pair((int64_t)block * (WARPS * kRows / 2), t.how.rope.head_dim), rows,
        chunk);
    store_turned<kRows>(p, t.how, t.role[i], first, sums_of_warp(kRows), acc);
}

/* Any width and alignment: one warp per element of y, in the same order. */
static __global__
__launch_bounds__(THREADS) void slow_gemv_kernel(const __grid_constant__ product p)
{
    __shared__ float lanes[WARPS][WARP];
    int warp = (int)threadIdx.x / WARP, lane = (int)threadIdx.x % WARP;
    int64_t n = (int64_t)blockIdx.x * WARPS + warp, run = run_elements(p.w.kind, p.w.dtype), end;
    const float *x = row_of(p.x, blockIdx.y);
    float acc = 0.0f, s, sum = 0.0f;

    wait_for_inputs();
    for (int64_t k = lane * run; n < p.w.rows && k < p.w.cols; k += LANES * run) {
        end = k + run < p.w.cols ? k + run : p.w.cols;
        if (p.w.scale == SCALE_RUN) {
            s = 0.0f;
            for (int64_t i = k; i < end; i++)
                s = fmaf(x[i], weight_code_at(p.w, n, i), s);
            acc = fmaf(s, weight_scale_at(p.w, n, k), acc);
        } else if (p.w.scale == SCALE_EACH) {
            for (int64_t i = k; i < end; i++)
                acc = fmaf(x[i], weight_at(p.w, n, i), acc);
        } else {
            for (int64_t i = k; i < end; i++)
                acc = fmaf(x[i], weight_code_at(p.w, n, i), acc);
        }
    }
    lanes[warp][lane] = acc;
    __syncwarp();
    if (lane != 0 || n >= p.w.rows)
        return;
    for (int l = 0; l < WARP; l++)
        sum = add_rn(sum, lanes[warp][l]);
    row_of(p.y, blockIdx.y)[n] = finish_sum(p, n, sum);
}

/* ---- launching ---- */

static int32_t run_slow_gemv(struct mmqi_stream *s, const struct product *p)
{
    dim3 grid((unsigned)ceil_div(p->w.rows, WARPS), (unsigned)p->x.rows);

    return launch(s, "matmul", slow_gemv_kernel, grid, dim3(THREADS), 0, *p);
}

/* Returns the blocks of all, of which one has `rows` rows of W. */
static uint32_t fill_group(struct group *g, const struct product *p, int32_t n, int rows)
{
    uint32_t blocks = 0;

    for (int32_t i = 0; i < MMQI_CUDA_GROUP; i++) {
        g->begin[i] = i < n ? blocks : UINT32_MAX;
        if (i >= n)
            continue;
        g->p[i] = p[i];
        blocks += (uint32_t)ceil_div(p[i].w.rows, rows);
    }
    return blocks;
}

template <int kCode, int kRows>
static int32_t run_group(struct mmqi_stream *s, const struct product *p, int32_t n, size_t shared,
                         int chunk)
{
    struct group g = {};
    uint32_t blocks = fill_group(&g, p, n, WARPS * kRows);
    int32_t status = allow_shared(s, gemv_group_kernel<kCode, kRows>, shared);

    if (status != MMQ_OK)
        return status;
    return launch(s, "matmul", gemv_group_kernel<kCode, kRows>, dim3(blocks), dim3(THREADS), shared,
                  g, chunk);
}

/* Steps of x in shared memory at a time, and the bytes of a block. */
template <int kCode>
static size_t find_chunk(const struct mmqi_stream *s, int64_t cols, int rows, int x_rows,
                         int64_t *chunk)
{
    constexpr int kStep = run_of(kCode) * LANES;
    int64_t floats = s->device->shared_bytes < MUCH_SHARED ? FEW_X_FLOATS : MOST_X_FLOATS;
    int64_t most = floats / x_rows / kStep, steps = ceil_div(cols, kStep);
    size_t shared, sums = (size_t)WARPS * rows * x_rows * (WARP + 1) * sizeof(float);

    *chunk = most < 2 ? 2 : most < steps ? most : steps;
    *chunk = *chunk % 2 == 0 ? *chunk : *chunk == most ? *chunk - 1 : *chunk + 1;
    shared = table_bytes(kCode) + (size_t)(*chunk * kStep * x_rows) * sizeof(float);
    return shared < sums ? sums : shared;
}

/* n products, of which more than one have one row of x. */
template <int kCode, int kRows, int kX>
static int32_t run_gemv(struct mmqi_stream *s, const struct product *p, int32_t n)
{
    int64_t chunk;
    size_t shared = find_chunk<kCode>(s, p->w.cols, kRows, kX, &chunk);
    int32_t status = MMQ_OK;

    if (shared > s->device->shared_bytes) {
        for (int32_t i = 0; i < n && status == MMQ_OK; i++)
            status = run_slow_gemv(s, &p[i]);
        return status;
    }
    if constexpr (kX == 1)
        if (n > 1)
            return run_group<kCode, kRows>(s, p, n, shared, (int)chunk);
    status = allow_shared(s, gemv_kernel<kCode, kRows, kX>, shared);
    if (status != MMQ_OK)
        return status;
    return launch(s, "matmul", gemv_kernel<kCode, kRows, kX>,
                  dim3((unsigned)ceil_div(p->w.rows, WARPS * kRows)), dim3(THREADS), shared, *p,
                  (int)chunk);
}

/*
 * Rows of W per warp: what should take the busiest multiprocessor least. A row costs its own
 * lookups, and the reading of x from shared memory as much again, shared by a warp's rows. Two
 * blocks run at a time, and one that is alone waits for memory more than it works: on an H100
 * shared memory was 47 % busy then, against 76 %.
 */
static int rows_of_warp(const struct product *p, int32_t n, int64_t processors, int fewest)
{
    int64_t least = INT64_MAX, blocks, cost;
    int best = fewest;

    for (int each = 4; each >= fewest; each /= 2) {
        blocks = 0;
        for (int32_t i = 0; i < n; i++)
            blocks += ceil_div(p[i].w.rows, WARPS * each);
        blocks = ceil_div(blocks, processors);
        cost = (each + 1) * (blocks / 2 * 2 * 47 + blocks % 2 * 76);
        if (cost < least) {
            least = cost;
            best = each;
        }
    }
    return best;
}

/* What follows products in the same launch. */
struct ending {
    const struct gate_pair *gate; /* or NULL: turns */
    const int32_t *role;          /* [MMQI_CUDA_GROUP] */
    const struct turning *how;
};

template <int kCode, int kRows>
static int32_t run_gate(struct mmqi_stream *s, const struct gate_pair *gate)
{
    const struct product *p = gate->p;
    int64_t chunk;
    size_t shared = find_chunk<kCode>(s, p->w.cols, kRows, 1, &chunk);
    int32_t status = allow_shared(s, gemv_gate_kernel<kCode, kRows>, shared);

    if (status != MMQ_OK)
        return status;
    return launch(s, "matmul", gemv_gate_kernel<kCode, kRows>,
                  dim3((unsigned)ceil_div(p->w.rows, WARPS * kRows / 2)), dim3(THREADS), shared,
                  *gate, (int)chunk);
}

template <int kCode, int kRows>
static int32_t run_turned(struct mmqi_stream *s, const struct product *p, const struct ending *end)
{
    struct turned_group t = {};
    uint32_t blocks = fill_group(&t.g, p, MMQI_CUDA_GROUP, WARPS * kRows);
    int64_t chunk;
    size_t shared = find_chunk<kCode>(s, p->w.cols, kRows, 1, &chunk);
    int32_t status = allow_shared(s, gemv_turned_kernel<kCode, kRows>, shared);

    if (status != MMQ_OK)
        return status;
    memcpy(t.role, end->role, sizeof t.role);
    t.how = *end->how;
    return launch(s, "matmul", gemv_turned_kernel<kCode, kRows>, dim3(blocks), dim3(THREADS),
                  shared, t, (int)chunk);
}

/* n products, with one of the endings or none (NULL). */
template <int kCode>
static int32_t run_code(struct mmqi_stream *s, const struct product *p, int32_t n,
                        const struct ending *end)
{
    int64_t processors = s->device->n_multiprocessors;

    if (end && end->gate)
        return rows_of_warp(p, n, processors, 2) == 4 ? run_gate<kCode, 4>(s, end->gate)
                                                      : run_gate<kCode, 2>(s, end->gate);
    if (end)
        return rows_of_warp(p, n, processors, 2) == 4 ? run_turned<kCode, 4>(s, p, end)
                                                      : run_turned<kCode, 2>(s, p, end);
    if (p->x.rows > 4)
        return run_gemv<kCode, 1, 8>(s, p, n);
    if (p->x.rows > 2)
        return run_gemv<kCode, 1, 4>(s, p, n);
    if (p->x.rows > 1)
        return run_gemv<kCode, 2, 2>(s, p, n);
    switch (rows_of_warp(p, n, processors, 1)) {
    case 4:
        return run_gemv<kCode, 4, 1>(s, p, n);
    case 2:
        return run_gemv<kCode, 2, 1>(s, p, n);
    default:
        return run_gemv<kCode, 1, 1>(s, p, n);
    }
}

static bool is_aligned(const struct weight_view *w)
{
    return w->cols > 0 && w->cols <= MOST_COLS && w->cols % run_elements(w->kind, w->dtype) == 0 &&
           w->scale != SCALE_EACH && (uintptr_t)w->part[0] % RUN_BYTES == 0;
}

static int32_t run_any(struct mmqi_stream *s, const struct product *p, int32_t n,
                       const struct ending *end)
{
    switch (p->w.kind) {
    case MMQI_KIND_INT8:
        return run_code<CODE_INT8>(s, p, n, end);
    case MMQI_KIND_TABLE4:
        return p->w.nested ? run_code<CODE_NESTED4>(s, p, n, end)
                           : run_code<CODE_TABLE4>(s, p, n, end);
    case MMQI_KIND_INT4:
        return run_code<CODE_INT4>(s, p, n, end);
    default:
        return p->w.dtype == MMQI_F32   ? run_code<CODE_F32>(s, p, n, end)
               : p->w.dtype == MMQI_F16 ? run_code<CODE_F16>(s, p, n, end)
                                        : run_code<CODE_BF16>(s, p, n, end);
    }
}

int32_t mmqi_cuda_gemv(struct mmqi_stream *s, const struct product *p)
{
    return is_aligned(&p->w) ? run_any(s, p, 1, NULL) : run_slow_gemv(s, p);
}

bool mmqi_cuda_gemv_groups(const struct product *p)
{
    return p->x.rows == 1 && is_aligned(&p->w);
}

int32_t mmqi_cuda_gemv_group(struct mmqi_stream *s, const struct product *p, int32_t n)
{
    return run_any(s, p, n, NULL);
}

int32_t mmqi_cuda_gemv_gate(struct mmqi_stream *s, const struct product *gate,
                            const struct product *up, float *y, int32_t act)
{
    const struct gate_pair pair = {{*gate, *up}, y, act};
    const struct ending end = {&pair, NULL, NULL};

    return run_any(s, pair.p, 2, &end);
}

int32_t mmqi_cuda_gemv_turned(struct mmqi_stream *s, const struct product *p, const int32_t *role,
                              const struct turning *how)
{
    const struct ending end = {NULL, role, how};

    return run_any(s, p, MMQI_CUDA_GROUP, &end);
}
