/*
 * Weights on the device: what a kernel is told of a matrix, and one element
 * of it, in every format, for the host and the device alike.
 *
 * w = code * scale, rounded once, to the bit as quant/format.h prescribes.
 * The arithmetic is IEEE's and no product is fused into a sum, so the host can test it.
 */
#ifndef MMQI_CUDA_UNPACK_H
#define MMQI_CUDA_UNPACK_H

#include <string.h>

#include "core/dtype.h"
#include "cuda/kernel.h"

/* How a scale meets a product's sum: see product.h. */
enum weight_scale {
    SCALE_NONE = 0, /* the code is the weight */
    SCALE_ROW = 1,  /* one for the row: applied to the finished sum */
    SCALE_RUN = 2,  /* one for each run of elements that a lane takes: applied to its sum */
    SCALE_EACH = 3  /* blocks that cross the ends of runs: applied to each element */
};

/* Passed to kernels by value, its tables with it. */
struct weight_view {
    const uint8_t *part[MMQI_MAX_PARTS];
    int64_t rows, cols;
    int32_t kind;  /* enum mmqi_format_kind */
    int32_t dtype; /* of plain numbers; of INT4's scales */
    int32_t block; /* TABLE4, INT4 */
    int32_t shift; /* block == 1 << shift */
    int32_t scale; /* enum weight_scale */
    bool nested;
    float table[16]; /* TABLE4 */
    float map[256];  /* nested: value of a scale's code */
};

/* False for a format that is unknown. */
bool mmqi_weight_view_of(struct weight_view *view, struct mmqi_stream *s,
                         const struct mmqi_wmat *w);
/* The same from the format's row of the table. */
void mmqi_weight_view_fill(struct weight_view *view, const struct mmqi_format_info *info,
                           const struct mmqi_wmat *w);

static __host__ __device__ inline float float_of_bits(uint32_t bits)
{
#ifdef __CUDA_ARCH__
    return __uint_as_float(bits);
#else
    float value;

    memcpy(&value, &bits, sizeof value);
    return value;
#endif
}

static __host__ __device__ inline float float_of_bf16(uint32_t bits)
{
    return float_of_bits(bits << 16);
}

static __host__ __device__ inline float float_of_f16(uint32_t bits)
{
#ifdef __CUDA_ARCH__
    return __half2float(__ushort_as_half((unsigned short)bits));
#else
    uint32_t sign = (bits & 0x8000u) << 16, exponent = bits >> 10 & 0x1f, mantissa = bits & 0x3ff;
    float magnitude;

    if (exponent == 0x1f)
        return float_of_bits(sign | 0x7f800000u | mantissa << 13);
    if (exponent == 0) {
        magnitude = (float)mantissa * 5.9604644775390625e-08f; /* 2^-24, exact */
        return sign ? -magnitude : magnitude;
    }
    return float_of_bits(sign | (exponent + 112) << 23 | mantissa << 13);
#endif
}

static __host__ __device__ inline float mul_rn(float a, float b)
{
#ifdef __CUDA_ARCH__
    return __fmul_rn(a, b);
#else
    return a * b;
#endif
}

static __host__ __device__ inline float add_rn(float a, float b)
{
#ifdef __CUDA_ARCH__
    return __fadd_rn(a, b);
#else
    return a + b;
#endif
}

/* absmax / 127, an IEEE division. */
static __host__ __device__ inline float int8_scale(float absmax)
{
#ifdef __CUDA_ARCH__
    return __fdiv_rn(absmax, 127.0f);
#else
    return absmax / 127.0f;
#endif
}

/* Scale of TABLE4's flat block. */
static __host__ __device__ inline float table4_scale(const struct weight_view &w, int64_t block)
{
    float most, offset;

    if (!w.nested)
        return reinterpret_cast<const float *>(w.part[1])[block];
    most = reinterpret_cast<const float *>(w.part[2])[block / MMQI_NESTED_BLOCK];
    offset = reinterpret_cast<const float *>(w.part[3])[0];
    return add_rn(mul_rn(w.map[w.part[1][block]], most), offset);
}

static __host__ __device__ inline float scale_of_bits(const struct weight_view &w, uint32_t bits)
{
    return w.dtype == MMQI_BF16 ? float_of_bf16(bits) : float_of_f16(bits);
}

/* Groups in a row of INT4. */
static __host__ __device__ inline int64_t int4_groups(const struct weight_view &w)
{
    return (w.cols + w.block - 1) >> w.shift;
}

/* Scale of element (row, col); 1 for plain numbers. */
static __host__ __device__ inline float weight_scale_at(const struct weight_view &w, int64_t row,
                                                        int64_t col)
{
    switch (w.kind) {
    case MMQI_KIND_INT8:
        return int8_scale(reinterpret_cast<const float *>(w.part[1])[row]);
    case MMQI_KIND_TABLE4:
        return table4_scale(w, (row * w.cols + col) >> w.shift);
    case MMQI_KIND_INT4:
        return scale_of_bits(w, reinterpret_cast<const uint16_t *>(
                                    w.part[1])[row * int4_groups(w) + (col >> w.shift)]);
    default:
        return 1.0f;
    }
}

/* The number that the scale multiplies; of plain numbers the weight. */
static __host__ __device__ inline float weight_code_at(const struct weight_view &w, int64_t row,
                                                       int64_t col)
{
    int64_t i = row * w.cols + col;
    uint32_t byte;

    switch (w.kind) {
    case MMQI_KIND_INT8:
        return (float)(int8_t)w.part[0][i];
    case MMQI_KIND_TABLE4:
        byte = w.part[0][i >> 1];
        return w.table[i & 1 ? byte & 15 : byte >> 4];
    case MMQI_KIND_INT4:
        byte = w.part[0][row * ((w.cols + 1) >> 1) + (col >> 1)];
        return (float)((int32_t)(col & 1 ? byte >> 4 : byte & 15) -
                       (int32_t)w.part[2][row * int4_groups(w) + (col >> w.shift)]);
    default:
        if (w.dtype == MMQI_F32)
            return reinterpret_cast<const float *>(w.part[0])[i];
        byte = reinterpret_cast<const uint16_t *>(w.part[0])[i];
        return w.dtype == MMQI_F16 ? float_of_f16(byte) : float_of_bf16(byte);
    }
}

/* The weight as the format's sheet gives it. */
static __host__ __device__ inline float weight_at(const struct weight_view &w, int64_t row,
                                                  int64_t col)
{
    float code = weight_code_at(w, row, col);

    return w.kind == MMQI_KIND_FLOAT ? code : mul_rn(code, weight_scale_at(w, row, col));
}

#endif
