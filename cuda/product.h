/*
 * Products: the one order in which y[r, n] = sum_k x[r, k] * W[n, k] is
 * summed, and the kernels that share it.
 *
 * A row of W is cut into runs of V elements, what 16 bytes hold: 4 of f32, 8 of f16 and bf16, 16 of
 * int8, 32 of the 4-bit formats. Lane l of 32 takes runs l, l + 32, l + 64 ...:
 *
 *   no scale, or one for the row   acc = fma(x, code, acc)          element by element
 *   blocks made of whole runs      s = fma(x, code, s) over the run, from 0;
 *                                  acc = fma(s, scale, acc)
 *   other blocks                   acc = fma(x, code * scale rounded, acc)
 *
 * then the lanes are added to 0 in order, a row's scale multiplies the sum, and the bias is added.
 * Which of the three holds depends on the format and on W's width alone (enum weight_scale), so
 * in `exact` mode a row's result is the same to the bit whatever company it has: up to
 * MMQI_FEW_ROWS rows by gemv.cu, more by sgemm.cu.
 *
 * `fast` mode takes the same way for up to MMQI_FEW_ROWS rows: weights and x are not rounded. More
 * rows go through tensor cores (tensor.cu): x and W rounded to bf16 (f16 on devices before compute
 * capability 8.0), products summed in f32 in cuBLASLt's order, results f32.
 */
#ifndef MMQI_CUDA_PRODUCT_H
#define MMQI_CUDA_PRODUCT_H

#include "cuda/rope.h"
#include "cuda/scratch.h"
#include "cuda/unpack.h"

enum { MMQI_FEW_ROWS = 8, LANES = 32, RUN_BYTES = 16 };

struct product {
    struct weight_view w;
    struct mmqi_mat y, x;
    const float *bias;  /* or NULL */
    const float *added; /* of one row of x alone: NULL, or `sum` becomes added + y as well */
    float *sum;         /* may be `added` */
};

/* V. */
static __host__ __device__ inline int run_elements(int32_t kind, int32_t dtype)
{
    switch (kind) {
    case MMQI_KIND_INT8:
        return 16;
    case MMQI_KIND_TABLE4:
    case MMQI_KIND_INT4:
        return 32;
    default:
        return dtype == MMQI_F32 ? 4 : 8;
    }
}

/* What becomes of a sum of lanes. */
static __device__ inline float finish_sum(const struct product &p, int64_t n, float sum)
{
    if (p.w.scale == SCALE_ROW)
        sum = mul_rn(sum, weight_scale_at(p.w, n, 0));
    return p.bias ? add_rn(sum, p.bias[n]) : sum;
}

/* At most MMQI_FEW_ROWS rows of x. */
int32_t mmqi_cuda_gemv(struct mmqi_stream *s, const struct product *p);
/* Whether p may be given to mmqi_cuda_gemv_group(): one row of x, W read 16 bytes at a time. */
bool mmqi_cuda_gemv_groups(const struct product *p);
/* 1 to MMQI_CUDA_GROUP such products, of the same x and format of W, in one launch. */
int32_t mmqi_cuda_gemv_group(struct mmqi_stream *s, const struct product *p, int32_t n);
/* Two such products, of as many rows of W: gate and up, and y = act(gate) * up after them. y may be
 * the output of one of them. */
int32_t mmqi_cuda_gemv_gate(struct mmqi_stream *s, const struct product *gate,
                            const struct product *up, float *y, int32_t act);
/* What becomes of a product of one row: heads that are turned, those that go to the cache as keys
 * as well, and values, which go there as they are. */
enum turned_role { ROLE_TURNED = 0, ROLE_KEY = 1, ROLE_VALUE = 2 };

/* Three such products, of whole heads of an even width: y as it is when turned. */
int32_t mmqi_cuda_gemv_turned(struct mmqi_stream *s, const struct product *p, const int32_t *role,
                              const struct turning *how);
/* Whether the three products that wait are q, k and v, of which q and k wait to be turned, and all
 * is launched; then nothing waits, and *status is the launch's. */
bool mmqi_cuda_store_products(struct mmqi_stream *s, const struct turning *how,
                              const struct mmqi_mat *k, const struct mmqi_mat *v, int32_t *status);
/* Launch the products that wait, but no turns. */
int32_t mmqi_cuda_flush_products(struct mmqi_stream *s);
/* Any number of rows. */
int32_t mmqi_cuda_sgemm(struct mmqi_stream *s, const struct product *p);
/* Any number of rows, in `fast` mode. */
int32_t mmqi_cuda_tensor_product(struct mmqi_stream *s, const struct product *p);

#endif
