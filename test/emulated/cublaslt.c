/* The few calls of cuBLASLt that cuda/tensor.cu makes: f32 results of turned 16-bit matrices. */
#include <cublasLt.h>
#include <stdlib.h>
#include <string.h>

#include "core/dtype.h"

struct product {
    cublasOperation_t turned;
    cublasLtEpilogue_t epilogue;
    const float *bias;
};

struct matrix {
    cudaDataType type;
    uint64_t rows, cols;
    int64_t ld;
};

cublasStatus_t cublasLtMatmulDescInit_internal(cublasLtMatmulDesc_t desc, size_t size,
                                               cublasComputeType_t compute, cudaDataType_t scale)
{
    memset(desc, 0, size);
    return compute == CUBLAS_COMPUTE_32F && scale == CUDA_R_32F ? CUBLAS_STATUS_SUCCESS
                                                                : CUBLAS_STATUS_NOT_SUPPORTED;
}

cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t desc,
                                              cublasLtMatmulDescAttributes_t what, const void *from,
                                              size_t size)
{
    struct product *product = (struct product *)desc;

    switch (what) {
    case CUBLASLT_MATMUL_DESC_TRANSA:
        memcpy(&product->turned, from, size);
        return CUBLAS_STATUS_SUCCESS;
    case CUBLASLT_MATMUL_DESC_EPILOGUE:
        memcpy(&product->epilogue, from, size);
        return CUBLAS_STATUS_SUCCESS;
    case CUBLASLT_MATMUL_DESC_BIAS_POINTER:
        memcpy(&product->bias, from, size);
        return CUBLAS_STATUS_SUCCESS;
    default:
        return CUBLAS_STATUS_INVALID_VALUE;
    }
}

cublasStatus_t cublasLtMatrixLayoutInit_internal(cublasLtMatrixLayout_t layout, size_t size,
                                                 cudaDataType type, uint64_t rows, uint64_t cols,
                                                 int64_t ld)
{
    (void)size;
    *(struct matrix *)layout = (struct matrix){type, rows, cols, ld};
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceInit_internal(cublasLtMatmulPreference_t wish, size_t size)
{
    memset(wish, 0, size);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t wish,
                                                    cublasLtMatmulPreferenceAttributes_t what,
                                                    const void *from, size_t size)
{
    (void)wish, (void)what, (void)from, (void)size;
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t lt, cublasLtMatmulDesc_t product,
                                              cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                              cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                              cublasLtMatmulPreference_t wish, int wanted,
                                              cublasLtMatmulHeuristicResult_t *result, int *n)
{
    (void)lt, (void)product, (void)b, (void)c, (void)d, (void)wish, (void)wanted;
    *n = ((const struct matrix *)a)->ld % 8 == 0;
    memset(result, 0, sizeof *result);
    return *n ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_SUPPORTED;
}

static float element(const struct matrix *m, const void *data, uint64_t row, uint64_t col)
{
    uint16_t bits = ((const uint16_t *)data)[col * (uint64_t)m->ld + row];

    return m->type == CUDA_R_16BF ? mmqi_f32_from_bf16(bits) : mmqi_f32_from_f16(bits);
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t lt, cublasLtMatmulDesc_t desc, const void *alpha,
                              const void *a_data, cublasLtMatrixLayout_t a_layout,
                              const void *b_data, cublasLtMatrixLayout_t b_layout, const void *beta,
                              const void *c_data, cublasLtMatrixLayout_t c_layout, void *d_data,
                              cublasLtMatrixLayout_t d_layout, const cublasLtMatmulAlgo_t *algo,
                              void *workspace, size_t workspace_bytes, cudaStream_t stream)
{
    const struct product *product = (const struct product *)desc;
    const struct matrix *a = (const struct matrix *)a_layout, *b = (const struct matrix *)b_layout;
    const struct matrix *d = (const struct matrix *)d_layout;
    float sum, *y = d_data;

    (void)lt, (void)alpha, (void)beta, (void)c_data, (void)c_layout;
    (void)algo, (void)workspace, (void)workspace_bytes, (void)stream;
    if (product->turned != CUBLAS_OP_T || a->rows != b->rows || a->cols != d->rows ||
        b->cols != d->cols || d->type != CUDA_R_32F)
        return CUBLAS_STATUS_INVALID_VALUE;
    for (uint64_t col = 0; col < d->cols; col++)
        for (uint64_t row = 0; row < d->rows; row++) {
            sum = 0.0f;
            for (uint64_t k = 0; k < a->rows; k++)
                sum += element(a, a_data, k, row) * element(b, b_data, k, col);
            if (product->epilogue == CUBLASLT_EPILOGUE_BIAS)
                sum += product->bias[row];
            y[col * (uint64_t)d->ld + row] = sum;
        }
    return CUBLAS_STATUS_SUCCESS;
}
