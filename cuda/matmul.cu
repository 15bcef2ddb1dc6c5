/* The matmul op: which way a product takes. product.h tells what each one promises. */
#include "cuda/product.h"

extern "C" int32_t mmqi_cuda_matmul(struct mmqi_stream *s, const struct mmqi_mat *y,
                                    const struct mmqi_mat *x, const struct mmqi_wmat *w,
                                    const float *bias)
{
    struct product p;

    p.y = *y;
    p.x = *x;
    p.bias = bias;
    if (!mmqi_weight_view_of(&p.w, s, w))
        return mmqi_cuda_fail(s->device, MMQ_ERR_UNSUPPORTED, "matmul: weight format %d is unknown",
                              (int)w->format);
    if (x->rows == 0 || w->rows == 0)
        return MMQ_OK;
    if (x->rows <= MMQI_FEW_ROWS)
        return mmqi_cuda_gemv(s, &p);
    if (s->options.mode == MMQI_MODE_FAST)
        return mmqi_cuda_tensor_product(s, &p);
    return mmqi_cuda_sgemm(s, &p);
}
