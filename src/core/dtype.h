/*
 * Scalar types as checkpoints store them, and the conversions between f32
 * and the 16-bit types (round to nearest even; NaN stays NaN).
 */
#ifndef MMQI_CORE_DTYPE_H
#define MMQI_CORE_DTYPE_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "core/inline.h"

enum mmqi_dtype {
    MMQI_F32 = 0,
    MMQI_F16 = 1,
    MMQI_BF16 = 2,
    MMQI_F64 = 3,
    MMQI_I8 = 4,
    MMQI_U8 = 5,
    MMQI_I16 = 6,
    MMQI_U16 = 7,
    MMQI_I32 = 8,
    MMQI_U32 = 9,
    MMQI_I64 = 10,
    MMQI_U64 = 11,
    MMQI_BOOL = 12,
    MMQI_F8_E4M3 = 13,
    MMQI_F8_E5M2 = 14,
    MMQI_N_DTYPES
};

size_t mmqi_dtype_size(int32_t dtype); /* bytes of one element; 0 for an unknown type */
const char *
mmqi_dtype_name(int32_t dtype); /* as safetensors spells it: "F32", "BF16"; "?" if unknown */
int32_t mmqi_dtype_from_name(const char *name); /* -1 if unknown */

MMQI_INLINE float mmqi_f32_from_bits(uint32_t bits)
{
    float value;

    memcpy(&value, &bits, sizeof value);
    return value;
}

MMQI_INLINE uint32_t mmqi_bits_from_f32(float value)
{
    uint32_t bits;

    memcpy(&bits, &value, sizeof bits);
    return bits;
}

MMQI_INLINE float mmqi_f32_from_bf16(uint16_t bits)
{
    return mmqi_f32_from_bits((uint32_t)bits << 16);
}

MMQI_INLINE float mmqi_f32_from_f16(uint16_t bits)
{
    uint32_t sign = (uint32_t)(bits & 0x8000) << 16;
    uint32_t exponent = bits >> 10 & 0x1f, mantissa = bits & 0x3ff;
    float magnitude;

    if (exponent == 0x1f)
        return mmqi_f32_from_bits(sign | 0x7f800000u | mantissa << 13);
    if (exponent == 0) {
        magnitude = (float)mantissa * 0x1p-24f; /* exact */
        return mmqi_f32_from_bits(sign | mmqi_bits_from_f32(magnitude));
    }
    return mmqi_f32_from_bits(sign | (exponent + 112) << 23 | mantissa << 13);
}

MMQI_INLINE uint16_t mmqi_bf16_from_f32(float value)
{
    uint32_t bits = mmqi_bits_from_f32(value);

    if ((bits & 0x7fffffffu) > 0x7f800000u)
        return (uint16_t)(bits >> 16 | 0x40); /* a NaN stays one */
    return (uint16_t)((bits + 0x7fffu + (bits >> 16 & 1)) >> 16);
}

MMQI_INLINE uint16_t mmqi_f16_from_f32(float value)
{
    uint32_t bits = mmqi_bits_from_f32(value), sign = bits >> 16 & 0x8000, rest;

    bits &= 0x7fffffffu;
    if (bits > 0x7f800000u)
        return (uint16_t)(sign | 0x7e00 | (bits >> 13 & 0x3ff));
    if (bits >= 0x477ff000u) /* from 65520 on, the nearest f16 is infinity */
        return (uint16_t)(sign | 0x7c00);
    if (bits < 0x38800000u) { /* below 2^-14: adding 0.5 lines the subnormal's bits up */
        rest = mmqi_bits_from_f32(mmqi_f32_from_bits(bits) + 0.5f);
        return (uint16_t)(sign | (rest - 0x3f000000u));
    }
    rest = bits - 0x38000000u;
    return (uint16_t)(sign | (rest + 0xfffu + (rest >> 13 & 1)) >> 13);
}

/* n elements of a float type (F32, F16, BF16) at `src`, of any alignment, to f32. */
void mmqi_to_f32(float *dst, const void *src, int32_t dtype, size_t n);

#endif
