/*
 * Products of many rows in `fast` mode: tiles of x and of W are rounded to bf16 (f16 before compute
 * capability 8.0) in scratch, and cuBLASLt multiplies them on tensor cores, summing in f32.
 *
 * A weight w = code * scale is rounded to f32 first, then to 16 bits, to nearest even both times.
 * W that is of the 16-bit type itself is used where it lies. Rows in scratch are padded with
 * zeros to a multiple of 8 elements. Widths or addresses that cuBLASLt refuses take sgemm.cu's way.
 *
 * Bytes: W's codes are read once per tile of x, and the tile is written and read once.
 */
#include "cuda/product.h"

enum {
    THREADS = 256,
    EIGHT = 8, /* elements of a thread: 16 bytes of a tile */
    LEAST_ROWS = 128
};

#define W_TILE_BYTES ((size_t)64 << 20)
#define MOST_X_TILE_BYTES ((size_t)128 << 20)

static __host__ __device__ inline int64_t padded(int64_t cols)
{
    return ceil_div(cols, EIGHT) * EIGHT;
}

/* ---- rounding ---- */

static __device__ inline uint16_t round_one(float x, bool to_f16)
{
    return to_f16 ? __half_as_ushort(__float2half_rn(x))
                  : __bfloat16_as_ushort(__float2bfloat16_rn(x));
}

static __device__ inline uint32_t round_two(float low, float high, bool to_f16)
{
    return (uint32_t)round_one(low, to_f16) | (uint32_t)round_one(high, to_f16) << 16;
}

static __device__ inline void store_eight(uint16_t *to, const float v[EIGHT], bool to_f16)
{
    *reinterpret_cast<uint4 *>(to) =
        make_uint4(round_two(v[0], v[1], to_f16), round_two(v[2], v[3], to_f16),
                   round_two(v[4], v[5], to_f16), round_two(v[6], v[7], to_f16));
}

/* Rows [first, first + rows) of x to `to` [rows, ld]. */
static __global__ void round_x_kernel(uint16_t *to, struct mmqi_mat x, int64_t first, int64_t rows,
                                      int64_t ld, bool to_f16)
{
    int64_t col = ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) * EIGHT;
    float v[EIGHT];

    wait_for_inputs();
    if (col >= ld)
        return;
    for (int64_t r = blockIdx.y; r < rows; r += gridDim.y) {
        const float *from = row_of(x, first + r);

#pragma unroll
        for (int i = 0; i < EIGHT; i++)
            v[i] = col + i < x.cols ? from[col + i] : 0.0f;
        store_eight(to + r * ld + col, v, to_f16);
    }
}

/* Eight weights of whole bytes that share a scale: 4-bit codes, of which `table` is a copy in
 * shared memory. */
static __device__ inline void unpack_eight(float v[EIGHT], const struct weight_view &w, int64_t row,
                                           int64_t col, const float *table)
{
    int64_t at = row * w.cols + col;
    uint32_t x = *reinterpret_cast<const uint32_t *>(w.part[0] + at / 2), low, high;
    float scale = weight_scale_at(w, row, col);
    int32_t zero = 0;

    if (w.kind == MMQI_KIND_INT4)
        zero = w.part[2][row * int4_groups(w) + (col >> w.shift)];
#pragma unroll
    for (int j = 0; j < EIGHT / 2; j++) {
        low = x >> (8 * j) & 15;
        high = x >> (8 * j + 4) & 15;
        if (w.kind == MMQI_KIND_TABLE4) {
            v[2 * j] = mul_rn(table[high], scale);
            v[2 * j + 1] = mul_rn(table[low], scale);
        } else {
            v[2 * j] = mul_rn((float)((int32_t)low - zero), scale);
            v[2 * j + 1] = mul_rn((float)((int32_t)high - zero), scale);
        }
    }
}

/* Rows [first, first + rows) of W to `to` [rows, ld]. */
static __global__
__launch_bounds__(THREADS) void round_w_kernel(uint16_t *to, const __grid_constant__ weight_view w,
                                               int64_t first, int64_t rows, int64_t ld, bool to_f16)
{
    __shared__ float table[16];
    int64_t col = ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) * EIGHT;
    bool by_eight = (w.kind == MMQI_KIND_TABLE4 || w.kind == MMQI_KIND_INT4) && w.cols % 32 == 0;
    float v[EIGHT], scale;

    wait_for_inputs();
    if (threadIdx.x < 16)
        table[threadIdx.x] = w.table[threadIdx.x];
    __syncthreads();
    if (col >= ld)
        return;
    for (int64_t r = blockIdx.y; r < rows; r += gridDim.y) {
        if (by_eight) {
            unpack_eight(v, w, first + r, col, table);
        } else if (w.kind == MMQI_KIND_TABLE4 || w.kind == MMQI_KIND_INT4) {
            for (int i = 0; i < EIGHT; i++)
                v[i] = col + i < w.cols ? weight_at(w, first + r, col + i) : 0.0f;
        } else {
            scale = weight_scale_at(w, first + r, 0);
#pragma unroll
            for (int i = 0; i < EIGHT; i++)
                v[i] =
                    col + i < w.cols ? mul_rn(weight_code_at(w, first + r, col + i), scale) : 0.0f;
        }
        store_eight(to + r * ld + col, v, to_f16);
    }
}

/* ---- cuBLASLt ---- */

/* y [rows, n] = x tile [rows, k] times W tile [n, k], told to cuBLASLt, which counts by columns, as
 * its transpose. */
struct tile_product {
    const void *w, *x;
    float *y;
    const float *bias;
    int64_t n, rows, k, w_ld, x_ld, y_ld;
    bool is_f16;
};

struct lt_call {
    cublasLtMatmulDescOpaque_t product;
    cublasLtMatrixLayoutOpaque_t w, x, y;
};

static int32_t describe(struct mmqi_stream *s, struct lt_call *c, const struct tile_product *t)
{
    cudaDataType_t type = t->is_f16 ? CUDA_R_16F : CUDA_R_16BF;
    cublasOperation_t turned = CUBLAS_OP_T;
    cublasLtEpilogue_t epilogue = CUBLASLT_EPILOGUE_BIAS;
    cublasStatus_t e = cublasLtMatmulDescInit(&c->product, CUBLAS_COMPUTE_32F, CUDA_R_32F);

    if (e == CUBLAS_STATUS_SUCCESS)
        e = cublasLtMatmulDescSetAttribute(&c->product, CUBLASLT_MATMUL_DESC_TRANSA, &turned,
                                           sizeof turned);
    if (e == CUBLAS_STATUS_SUCCESS && t->bias)
        e = cublasLtMatmulDescSetAttribute(&c->product, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue,
                                           sizeof epilogue);
    if (e == CUBLAS_STATUS_SUCCESS && t->bias)
        e = cublasLtMatmulDescSetAttribute(&c->product, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &t->bias,
                                           sizeof t->bias);
    if (e == CUBLAS_STATUS_SUCCESS)
        e = cublasLtMatrixLayoutInit(&c->w, type, (uint64_t)t->k, (uint64_t)t->n, t->w_ld);
    if (e == CUBLAS_STATUS_SUCCESS)
        e = cublasLtMatrixLayoutInit(&c->x, type, (uint64_t)t->k, (uint64_t)t->rows, t->x_ld);
    if (e == CUBLAS_STATUS_SUCCESS)
        e = cublasLtMatrixLayoutInit(&c->y, CUDA_R_32F, (uint64_t)t->n, (uint64_t)t->rows, t->y_ld);
    return mmqi_cuda_check_lt(s->device, e, "matmul: describing it to cuBLASLt");
}

/* Bytes, a power of two up to 256, that divide an address. */
static uint32_t alignment_of(const void *address)
{
    uintptr_t low = (uintptr_t)address | 256;

    return (uint32_t)(low & -low);
}

/* The algorithm for a shape: what cuBLASLt thinks best of those whose workspace fits. */
static cublasStatus_t ask(struct mmqi_stream *s, struct lt_call *c, const struct tile_product *t,
                          cublasLtMatmulAlgo_t *algo)
{
    cublasLtMatmulPreferenceOpaque_t wish;
    cublasLtMatmulHeuristicResult_t found;
    size_t workspace = MMQI_CUDA_WORKSPACE;
    uint32_t align[3] = {alignment_of(t->w), alignment_of(t->x), alignment_of(t->y)};
    cublasStatus_t e = cublasLtMatmulPreferenceInit(&wish);
    int n = 0;

    if (e == CUBLAS_STATUS_SUCCESS)
        e = cublasLtMatmulPreferenceSetAttribute(&wish, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                                 &workspace, sizeof workspace);
    if (e == CUBLAS_STATUS_SUCCESS)
        e = cublasLtMatmulPreferenceSetAttribute(&wish, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES,
                                                 &align[0], sizeof align[0]);
    if (e == CUBLAS_STATUS_SUCCESS)
        e = cublasLtMatmulPreferenceSetAttribute(&wish, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
                                                 &align[1], sizeof align[1]);
    if (e == CUBLAS_STATUS_SUCCESS)
        e = cublasLtMatmulPreferenceSetAttribute(&wish, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES,
                                                 &align[2], sizeof align[2]);
    if (e == CUBLAS_STATUS_SUCCESS)
        e = cublasLtMatmulPreferenceSetAttribute(&wish, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES,
                                                 &align[2], sizeof align[2]);
    if (e == CUBLAS_STATUS_SUCCESS)
        e = cublasLtMatmulAlgoGetHeuristic(s->lt, &c->product, &c->w, &c->x, &c->y, &c->y, &wish, 1,
                                           &found, &n);
    if (e != CUBLAS_STATUS_SUCCESS)
        return e;
    *algo = found.algo;
    return n > 0 ? found.state : CUBLAS_STATUS_NOT_SUPPORTED;
}

/* The stream's memory of what was chosen; the oldest entry makes room. *refused: cuBLASLt has no
 * algorithm for it. */
static int32_t choose(struct mmqi_stream *s, struct lt_call *c, const struct tile_product *t,
                      const cublasLtMatmulAlgo_t **algo, bool *refused)
{
    struct mmqi_cuda_choice key = {};
    struct mmqi_cuda_choice *at;
    cublasStatus_t e;

    key.shape[0] = t->n;
    key.shape[1] = t->rows;
    key.shape[2] = t->k;
    key.shape[3] = t->w_ld;
    key.shape[4] = t->y_ld;
    key.shape[5] = alignment_of(t->w) | (int64_t)alignment_of(t->y) << 16 |
                   (int64_t)(t->bias != NULL) << 32 | (int64_t)t->is_f16 << 33;
    for (int i = 0; i < MMQI_CUDA_CHOICES; i++)
        if (memcmp(s->choices[i].shape, key.shape, sizeof key.shape) == 0) {
            *refused = s->choices[i].refused;
            *algo = &s->choices[i].algo;
            return MMQ_OK;
        }
    e = ask(s, c, t, &key.algo);
    key.refused = e == CUBLAS_STATUS_NOT_SUPPORTED || e == CUBLAS_STATUS_INVALID_VALUE;
    if (e != CUBLAS_STATUS_SUCCESS && !key.refused)
        return mmqi_cuda_check_lt(s->device, e, "matmul: choosing an algorithm");
    at = &s->choices[s->next_choice++ % MMQI_CUDA_CHOICES];
    *at = key;
    *refused = at->refused;
    *algo = &at->algo;
    return MMQ_OK;
}

static int32_t multiply(struct mmqi_stream *s, const struct tile_product *t, bool *refused)
{
    const cublasLtMatmulAlgo_t *algo = NULL;
    const float one = 1.0f, zero = 0.0f;
    struct lt_call c;
    int32_t status = describe(s, &c, t);

    if (status == MMQ_OK)
        status = choose(s, &c, t, &algo, refused);
    if (status != MMQ_OK || *refused)
        return status;
    return MMQI_CUBLAS(s->device, cublasLtMatmul(s->lt, &c.product, &one, t->w, &c.w, t->x, &c.x,
                                                 &zero, t->y, &c.y, t->y, &c.y, algo, s->workspace,
                                                 MMQI_CUDA_WORKSPACE, s->stream));
}

/* ---- tiles ---- */

/* How a product is cut, and where its tiles lie. */
struct tiling {
    uint16_t *w, *x;
    int64_t w_rows, x_rows, ld;
    bool is_f16, w_in_place;
};

static size_t x_tile_bytes(const struct mmqi_stream_options *options)
{
    size_t most = 2 * (size_t)options->max_product;
    size_t least = 2 * (size_t)padded(options->max_cols) * LEAST_ROWS;

    most = most < MOST_X_TILE_BYTES ? most : MOST_X_TILE_BYTES;
    return (most < least ? least : most) / 256 * 256 + 256;
}

static size_t w_tile_bytes(const struct mmqi_stream_options *options)
{
    size_t least = 2 * (size_t)padded(options->max_cols) * LEAST_ROWS;

    return (W_TILE_BYTES < least ? least : W_TILE_BYTES) / 256 * 256 + 256;
}

extern "C" size_t mmqi_cuda_tensor_scratch(const struct mmqi_stream_options *options)
{
    if (options->mode != MMQI_MODE_FAST)
        return 0;
    return w_tile_bytes(options) + x_tile_bytes(options);
}

/* False where scratch has not the room for rows of this width. */
static bool cut(struct tiling *t, const struct mmqi_stream *s, const struct product *p)
{
    size_t w_bytes = w_tile_bytes(&s->options), x_bytes = x_tile_bytes(&s->options);

    if (p->w.cols == 0 || p->w.cols > s->options.max_cols)
        return false;
    t->is_f16 = s->device->compute < 80;
    t->ld = padded(p->w.cols);
    t->w_in_place = p->w.kind == MMQI_KIND_FLOAT &&
                    p->w.dtype == (t->is_f16 ? MMQI_F16 : MMQI_BF16) && t->ld == p->w.cols &&
                    (uintptr_t)p->w.part[0] % 16 == 0;
    t->w = reinterpret_cast<uint16_t *>(s->scratch);
    t->x = reinterpret_cast<uint16_t *>(s->scratch + w_bytes);
    t->x_rows = (int64_t)(x_bytes / 2) / t->ld;
    t->w_rows = t->w_in_place ? p->w.rows : (int64_t)(w_bytes / 2) / t->ld / EIGHT * EIGHT;
    return t->x_rows > 0 && t->w_rows > 0;
}

static int32_t round_x(struct mmqi_stream *s, const struct product *p, const struct tiling *t,
                       int64_t first, int64_t rows)
{
    return launch(s, "matmul", round_x_kernel, element_grid(rows, t->ld / EIGHT), dim3(THREADS), 0,
                  t->x, p->x, first, rows, t->ld, t->is_f16);
}

static int32_t round_w(struct mmqi_stream *s, const struct product *p, const struct tiling *t,
                       int64_t first, int64_t rows)
{
    return launch(s, "matmul", round_w_kernel, element_grid(rows, t->ld / EIGHT), dim3(THREADS), 0,
                  t->w, p->w, first, rows, t->ld, t->is_f16);
}

/* All of W for the tile of x that begins with row `first`. */
static int32_t run_x_tile(struct mmqi_stream *s, const struct product *p, const struct tiling *t,
                          int64_t first, int64_t rows, bool *refused)
{
    struct tile_product tp = {t->w,  t->x,  NULL,  NULL,        0,        rows,
                              t->ld, t->ld, t->ld, p->y.stride, t->is_f16};
    int32_t status = round_x(s, p, t, first, rows);

    for (int64_t n = 0; n < p->w.rows && status == MMQ_OK && !*refused; n += t->w_rows) {
        tp.n = p->w.rows - n < t->w_rows ? p->w.rows - n : t->w_rows;
        tp.y = p->y.data + first * p->y.stride + n;
        tp.bias = p->bias ? p->bias + n : NULL;
        if (t->w_in_place)
            tp.w = p->w.part[0];
        else
            status = round_w(s, p, t, n, tp.n);
        if (status == MMQ_OK)
            status = multiply(s, &tp, refused);
    }
    return status;
}

int32_t mmqi_cuda_tensor_product(struct mmqi_stream *s, const struct product *p)
{
    bool refused = p->bias && (uintptr_t)p->bias % 16 != 0;
    int32_t status = MMQ_OK;
    struct tiling t;
    int64_t rows;

    refused = !cut(&t, s, p) || refused;
    for (int64_t first = 0; first < p->x.rows && status == MMQ_OK && !refused; first += rows) {
        rows = p->x.rows - first < t.x_rows ? p->x.rows - first : t.x_rows;
        status = run_x_tile(s, p, &t, first, rows, &refused);
    }
    return status == MMQ_OK && refused ? mmqi_cuda_sgemm(s, p) : status;
}
