/*
 * Products of many rows in f32, in the order of product.h: the way of `exact`
 * mode, and of widths that the tensor cores' way cannot take.
 *
 * A block makes 64 x 64 elements of y, a thread 4 x 4 of them. Lane after lane of the order is
 * summed: its runs are visited 32 elements (32 / V runs) at a time, x and W's codes unpacked to
 * shared memory [k][row]. Elements beyond W's width are zeros in both: adding their product leaves
 * a sum as it is.
 */
#include "cuda/product.h"

enum {
    THREADS = 256,
    SIDE = 64,         /* rows of x and of W of a block */
    DEPTH = 32,        /* elements of k in shared memory */
    STRIDE = SIDE + 4, /* of shared memory, in floats */
    EACH = 4           /* a thread makes EACH x EACH elements */
};

struct tile {
    float x[DEPTH][STRIDE], w[DEPTH][STRIDE];
    float scale[SIDE]; /* SCALE_RUN: of the run */
};

/* Column of element i of a tile that begins with run `first` of a lane. */
static __device__ inline int64_t column_of(int64_t first, int i, int lane, int run)
{
    return ((first + i / run) * LANES + lane) * run + i % run;
}

template <int kScale>
static __device__ inline void load_tile(struct tile &tile, const struct product &p, int64_t row0,
                                        int64_t n0, int64_t first, int lane, int run)
{
    int i = (int)threadIdx.x % DEPTH;
    int64_t k = column_of(first, i, lane, run), n;

    for (int at = (int)threadIdx.x / DEPTH; at < SIDE; at += THREADS / DEPTH) {
        tile.x[i][at] = k < p.x.cols && row0 + at < p.x.rows ? row_of(p.x, row0 + at)[k] : 0.0f;
        n = n0 + at;
        if (k >= p.w.cols || n >= p.w.rows)
            tile.w[i][at] = 0.0f;
        else if (kScale == SCALE_EACH)
            tile.w[i][at] = weight_at(p.w, n, k);
        else
            tile.w[i][at] = weight_code_at(p.w, n, k);
    }
    if (kScale == SCALE_RUN && threadIdx.x < SIDE) {
        n = n0 + threadIdx.x;
        k = column_of(first, 0, lane, run);
        tile.scale[threadIdx.x] = k < p.w.cols && n < p.w.rows ? weight_scale_at(p.w, n, k) : 0.0f;
    }
}

/* acc += x W over the tile, in the order of k. */
static __device__ inline void add_tile(float acc[EACH][EACH], const struct tile &tile, int tx,
                                       int ty)
{
#pragma unroll 8
    for (int k = 0; k < DEPTH; k++) {
        float4 a4 = *reinterpret_cast<const float4 *>(&tile.x[k][EACH * ty]);
        float4 b4 = *reinterpret_cast<const float4 *>(&tile.w[k][EACH * tx]);
        float a[EACH] = {a4.x, a4.y, a4.z, a4.w}, b[EACH] = {b4.x, b4.y, b4.z, b4.w};

#pragma unroll
        for (int i = 0; i < EACH; i++)
#pragma unroll
            for (int j = 0; j < EACH; j++)
                acc[i][j] = fmaf(a[i], b[j], acc[i][j]);
    }
}

/* The sums of one lane. */
template <int kScale>
static __device__ inline void sum_lane(float acc[EACH][EACH], struct tile &tile,
                                       const struct product &p, int64_t row0, int64_t n0, int lane,
                                       int run, int64_t runs)
{
    int tx = (int)threadIdx.x % 16, ty = (int)threadIdx.x / 16;
    float part[EACH][EACH];

    for (int64_t first = 0; first < runs; first += DEPTH / run) {
        load_tile<kScale>(tile, p, row0, n0, first, lane, run);
        __syncthreads();
        if (kScale == SCALE_RUN) {
#pragma unroll
            for (int i = 0; i < EACH * EACH; i++)
                part[i / EACH][i % EACH] = 0.0f;
            add_tile(part, tile, tx, ty);
#pragma unroll
            for (int i = 0; i < EACH * EACH; i++)
                acc[i / EACH][i % EACH] =
                    fmaf(part[i / EACH][i % EACH], tile.scale[EACH * tx + i % EACH],
                         acc[i / EACH][i % EACH]);
        } else {
            add_tile(acc, tile, tx, ty);
        }
        __syncthreads();
    }
}

template <int kScale>
static __global__ __launch_bounds__(THREADS) void sgemm_kernel(const __grid_constant__ product p)
{
    __shared__ __align__(16) struct tile tile;
    int run = run_elements(p.w.kind, p.w.dtype);
    int64_t row0 = (int64_t)blockIdx.y * SIDE, n0 = (int64_t)blockIdx.x * SIDE, row, n;
    int64_t runs = ceil_div(p.w.cols, run);
    float total[EACH][EACH] = {};

    wait_for_inputs();
    for (int lane = 0; lane < LANES && lane < runs; lane++) {
        float acc[EACH][EACH] = {};

        sum_lane<kScale>(acc, tile, p, row0, n0, lane, run, ceil_div(runs - lane, LANES));
#pragma unroll
        for (int i = 0; i < EACH * EACH; i++)
            total[i / EACH][i % EACH] = add_rn(total[i / EACH][i % EACH], acc[i / EACH][i % EACH]);
    }
#pragma unroll
    for (int i = 0; i < EACH * EACH; i++) {
        row = row0 + threadIdx.x / 16 * EACH + i / EACH;
        n = n0 + threadIdx.x % 16 * EACH + i % EACH;
        if (row < p.y.rows && n < p.w.rows)
            row_of(p.y, row)[n] = finish_sum(p, n, total[i / EACH][i % EACH]);
    }
}

int32_t mmqi_cuda_sgemm(struct mmqi_stream *s, const struct product *p)
{
    dim3 grid((unsigned)ceil_div(p->w.rows, SIDE), (unsigned)ceil_div(p->x.rows, SIDE));

    if (grid.y > 65535)
        return mmqi_cuda_fail(s->device, MMQ_ERR_LIMIT, "matmul: %lld rows", (long long)p->x.rows);
    switch (p->w.scale) {
    case SCALE_RUN:
        return launch(s, "matmul", sgemm_kernel<SCALE_RUN>, grid, dim3(THREADS), 0, *p);
    case SCALE_EACH:
        return launch(s, "matmul", sgemm_kernel<SCALE_EACH>, grid, dim3(THREADS), 0, *p);
    default: /* none, or of the row */
        return launch(s, "matmul", sgemm_kernel<SCALE_NONE>, grid, dim3(THREADS), 0, *p);
    }
}
