/*
 * Scalar types as checkpoints store them, and the conversions between f32
 * and the 16-bit types (round to nearest even; NaN stays NaN).
 */
#ifndef MMQI_CORE_DTYPE_H
#define MMQI_CORE_DTYPE_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

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

static inline float mmqi_f32_from_bits(uint32_t bits)
{
    float value;

    memcpy(&value, &bits, sizeof value);
    return value;
}

static inline uint32_t mmqi_bits_from_f32(float value)
{
    uint32_t bits;

    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static inline float mmqi_f32_from_bf16(uint16_t bits)
{
    return mmqi_f32_from_bits((uint32_t)bits << 16);
}

float mmqi_f32_from_f16(uint16_t bits);
uint16_t mmqi_bf16_from_f32(float value);
uint16_t mmqi_f16_from_f32(float value);

/* n elements of a float type (F32, F16, BF16) at `src`, of any alignment, to f32. */
void mmqi_to_f32(float *dst, const void *src, int32_t dtype, size_t n);

#endif
