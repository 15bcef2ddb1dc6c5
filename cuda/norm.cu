/*
 * Layer norm and RMS norm, one block per row.
 *
 *   mean = (sum x) / n
 *   var  = (sum (x - mean)^2) / n
 *   y    = (x - mean) * (1 / sqrt(var + eps)) * w + b
 *
 *   y    = x * (1 / sqrt((sum x^2) / n + eps)) * w
 *
 * Thread t adds elements t, t + T, t + 2 T ... in order, T being 1,024 where rows are wider than
 * 2,048 and 256 otherwise; kernel.h tells how the threads' sums are added. Of rows up to 8 T wide a
 * thread keeps its elements, and reads those of w before x is there; of others x is read two or
 * three times (again from L1 or L2). y is written once.
 */
#include "cuda/kernel.h"

enum { KEPT = 8 }; /* elements of a row that a thread keeps */

struct norm {
    struct mmqi_mat y, x;
    const float *w, *b; /* b NULL: RMS norm */
    float eps;
};

template <int kThreads>
static __global__ __launch_bounds__(kThreads) void norm_kernel(struct norm n)
{
    __shared__ float shared[kThreads / WARP];
    const float *x = row_of(n.x, blockIdx.x);
    float *y = row_of(n.y, blockIdx.x);
    int64_t cols = n.x.cols;
    float mean = 0.0f, sum = 0.0f, inverse, d;

    wait_for_inputs();
    if (n.b) {
        for (int64_t i = threadIdx.x; i < cols; i += kThreads)
            sum = __fadd_rn(sum, x[i]);
        mean = __fdiv_rn(block_sum<kThreads>(sum, shared), (float)cols);
        sum = 0.0f;
    }
    for (int64_t i = threadIdx.x; i < cols; i += kThreads) {
        d = __fadd_rn(x[i], -mean);
        sum = fmaf(d, d, sum);
    }
    sum = block_sum<kThreads>(sum, shared);
    inverse = __fdiv_rn(1.0f, __fsqrt_rn(__fadd_rn(__fdiv_rn(sum, (float)cols), n.eps)));
    for (int64_t i = threadIdx.x; i < cols; i += kThreads) {
        d = __fmul_rn(__fmul_rn(__fadd_rn(x[i], -mean), inverse), n.w[i]);
        y[i] = n.b ? __fadd_rn(d, n.b[i]) : d;
    }
}

/* The same for cols <= kThreads * KEPT. */
template <int kThreads>
static __global__ __launch_bounds__(kThreads) void short_norm_kernel(struct norm n)
{
    __shared__ float shared[kThreads / WARP];
    const float *x = row_of(n.x, blockIdx.x);
    float *y = row_of(n.y, blockIdx.x);
    int cols = (int)n.x.cols, t = (int)threadIdx.x;
    float kept[KEPT], w[KEPT], mean = 0.0f, sum = 0.0f, inverse, d;

#pragma unroll
    for (int k = 0; k < KEPT; k++)
        w[k] = t + k * kThreads < cols ? n.w[t + k * kThreads] : 0.0f;
    wait_for_inputs();
#pragma unroll
    for (int k = 0; k < KEPT; k++)
        kept[k] = t + k * kThreads < cols ? x[t + k * kThreads] : 0.0f;
    if (n.b) {
#pragma unroll
        for (int k = 0; k < KEPT; k++)
            sum = t + k * kThreads < cols ? __fadd_rn(sum, kept[k]) : sum;
        mean = __fdiv_rn(block_sum<kThreads>(sum, shared), (float)cols);
        sum = 0.0f;
    }
#pragma unroll
    for (int k = 0; k < KEPT; k++) {
        d = __fadd_rn(kept[k], -mean);
        sum = t + k * kThreads < cols ? fmaf(d, d, sum) : sum;
    }
    sum = block_sum<kThreads>(sum, shared);
    inverse = __fdiv_rn(1.0f, __fsqrt_rn(__fadd_rn(__fdiv_rn(sum, (float)cols), n.eps)));
#pragma unroll
    for (int k = 0; k < KEPT; k++) {
        if (t + k * kThreads >= cols)
            break;
        d = __fmul_rn(__fmul_rn(__fadd_rn(kept[k], -mean), inverse), w[k]);
        y[t + k * kThreads] = n.b ? __fadd_rn(d, n.b[t + k * kThreads]) : d;
    }
}

template <int kThreads>
static int32_t launch_norm(struct mmqi_stream *s, const struct norm *n, const char *what)
{
    dim3 grid((unsigned)n->x.rows);

    if (n->x.cols <= kThreads * KEPT)
        return launch(s, what, short_norm_kernel<kThreads>, grid, dim3(kThreads), 0, *n);
    return launch(s, what, norm_kernel<kThreads>, grid, dim3(kThreads), 0, *n);
}

static int32_t run_norm(struct mmqi_stream *s, const struct norm *n, const char *what)
{
    if (n->x.rows == 0 || n->x.cols == 0)
        return MMQ_OK;
    return n->x.cols > 2048 ? launch_norm<1024>(s, n, what) : launch_norm<256>(s, n, what);
}

extern "C" int32_t mmqi_cuda_layer_norm(struct mmqi_stream *s, const struct mmqi_mat *y,
                                        const struct mmqi_mat *x, const float *w, const float *b,
                                        float eps)
{
    struct norm n = {*y, *x, w, b, eps};

    return run_norm(s, &n, "layer_norm");
}

extern "C" int32_t mmqi_cuda_rms_norm(struct mmqi_stream *s, const struct mmqi_mat *y,
                                      const struct mmqi_mat *x, const float *w, float eps)
{
    struct norm n = {*y, *x, w, NULL, eps};

    return run_norm(s, &n, "rms_norm");
}
