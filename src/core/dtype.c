#include "core/dtype.h"

#include <assert.h>

static const struct {
    const char *name;
    size_t size;
} dtypes[] = {
    [MMQI_F32] = {"F32", 4},   [MMQI_F16] = {"F16", 2},         [MMQI_BF16] = {"BF16", 2},
    [MMQI_F64] = {"F64", 8},   [MMQI_I8] = {"I8", 1},           [MMQI_U8] = {"U8", 1},
    [MMQI_I16] = {"I16", 2},   [MMQI_U16] = {"U16", 2},         [MMQI_I32] = {"I32", 4},
    [MMQI_U32] = {"U32", 4},   [MMQI_I64] = {"I64", 8},         [MMQI_U64] = {"U64", 8},
    [MMQI_BOOL] = {"BOOL", 1}, [MMQI_F8_E4M3] = {"F8_E4M3", 1}, [MMQI_F8_E5M2] = {"F8_E5M2", 1},
};
static_assert(sizeof dtypes / sizeof dtypes[0] == MMQI_N_DTYPES, "one row per type");

size_t mmqi_dtype_size(int32_t dtype)
{
    return dtype >= 0 && dtype < MMQI_N_DTYPES ? dtypes[dtype].size : 0;
}

const char *mmqi_dtype_name(int32_t dtype)
{
    return dtype >= 0 && dtype < MMQI_N_DTYPES ? dtypes[dtype].name : "?";
}

int32_t mmqi_dtype_from_name(const char *name)
{
    int32_t dtype;

    for (dtype = 0; dtype < MMQI_N_DTYPES; dtype++)
        if (strcmp(dtypes[dtype].name, name) == 0)
            return dtype;
    return -1;
}

void mmqi_to_f32(float *dst, const void *src, int32_t dtype, size_t n)
{
    const unsigned char *from = src;
    uint16_t half;
    size_t i;

    if (dtype == MMQI_F32) {
        memcpy(dst, src, n * sizeof *dst);
        return;
    }
    for (i = 0; i < n; i++) {
        memcpy(&half, from + 2 * i, 2);
        dst[i] = dtype == MMQI_BF16 ? mmqi_f32_from_bf16(half) : mmqi_f32_from_f16(half);
    }
}
