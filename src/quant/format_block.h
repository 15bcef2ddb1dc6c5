/*
 * Packing one block, group or row: the arithmetic that decides codes and scales, for every device.
 *
 * The bytes are promised to the bit on all of them, so there is one text: format_*.c and the CUDA
 * kernels (compiled with --fmad=false) run these functions. What they compute is told in
 * format_table4.c, format_int4.c and format_int8.c. Numbers are finite.
 */
#ifndef MMQI_QUANT_FORMAT_BLOCK_H
#define MMQI_QUANT_FORMAT_BLOCK_H

#include <float.h>

#include "quant/format.h"
#include "quant/format_lanes.h"

enum { MMQI_MAX_BLOCK = 128, MMQI_STRIP = 16 /* elements in registers at a time */ };

#define MMQI_ROUNDER 12582912.0f /* 1.5 * 2^23 */

/*
 * The nearest integer, ties to even, for |x| < 2^22: adding 1.5 * 2^23 leaves
 * no fraction bits, so the f32 addition itself rounds, and the sum's low
 * mantissa bits are the integer.
 */
MMQI_INLINE int32_t mmqi_round_to_even(float x)
{
    return (int32_t)(mmqi_bits_from_f32(x + MMQI_ROUNDER) - 0x4b400000u);
}

/* ---- int8: a row ---- */

/* What weights are multiplied by; a row of codes 0 where it is not finite. */
MMQI_INLINE float mmqi_int8_inverse(float absmax)
{
    return 127.0f * (1.0f / absmax);
}

MMQI_INLINE uint8_t mmqi_int8_code(float w, float inverse)
{
    return inverse <= FLT_MAX ? (uint8_t)mmqi_round_to_even(w * inverse) : 0;
}

/* ---- nf4, fp4: a block ---- */

/*
 * A staircase over the thresholds: a number stands at `first` and climbs by step[t] for each
 * threshold below it. As sums of 32-bit patterns wrap, the same climb gives codes and the bits
 * of floats, exactly.
 */
struct mmqi_stairs {
    mmqi_u32x4 first, step[15];
};

/* What tells nf4 from fp4. */
struct mmqi_table4 {
    const float *table;  /* code -> value */
    float threshold[15]; /* ascending */
    uint8_t code[16];    /* of a number with so many thresholds below it */
    uint8_t zero;        /* code of 0 */
};

extern const struct mmqi_table4 mmqi_nf4_coding, mmqi_fp4_coding; /* format_table4.c */

/* The same as packing reads it. */
struct mmqi_coding {
    mmqi_f32x4 threshold[15];
    struct mmqi_stairs code, value;
    uint8_t zero;
};

MMQI_INLINE void mmqi_stairs_make(struct mmqi_stairs *stairs, const uint32_t at[16])
{
    stairs->first = mmqi_u32x4_all(at[0]);
    for (int t = 0; t < 15; t++)
        stairs->step[t] = mmqi_u32x4_all(at[t + 1] - at[t]);
}

MMQI_INLINE void mmqi_coding_make(struct mmqi_coding *out, const struct mmqi_table4 *from)
{
    uint32_t code[16], value[16];

    for (int i = 0; i < 16; i++) {
        code[i] = from->code[i];
        value[i] = mmqi_bits_from_f32(from->table[from->code[i]]);
    }
    mmqi_stairs_make(&out->code, code);
    mmqi_stairs_make(&out->value, value);
    for (int t = 0; t < 15; t++)
        out->threshold[t] = mmqi_f32x4_all(from->threshold[t]);
    out->zero = from->zero;
}

/* The 16 numbers w * inverse, and where they stand on the stairs. */
MMQI_ALWAYS_INLINE void mmqi_climb(mmqi_u32x4 at[4], const float *w, float inverse,
                                   const mmqi_f32x4 threshold[15], const struct mmqi_stairs *stairs)
{
    mmqi_f32x4 x[4];

    for (int i = 0; i < 4; i++) {
        x[i] = mmqi_f32x4_load(w + MMQI_F4 * i) * mmqi_f32x4_all(inverse);
        at[i] = stairs->first;
    }
    for (int t = 0; t < 15; t++)
        for (int i = 0; i < 4; i++)
            at[i] = at[i] + mmqi_u32x4_where_above(x[i], threshold[t], stairs->step[t]);
}

/* Of n elements, a multiple of MMQI_STRIP; magnitudes are in the order of their bits. */
MMQI_ALWAYS_INLINE float mmqi_greatest_magnitude(const float *w, int64_t n)
{
    mmqi_u32x4 most[4], sign = mmqi_u32x4_all(0x7fffffffu);
    uint32_t lane[MMQI_STRIP], all = 0;

    for (int i = 0; i < 4; i++)
        most[i] = mmqi_u32x4_all(0);
    for (int64_t k = 0; k < n; k += MMQI_STRIP)
        for (int i = 0; i < 4; i++)
            most[i] = mmqi_u32x4_most(mmqi_u32x4_bits(mmqi_f32x4_load(w + k + MMQI_F4 * i)) & sign,
                                      most[i]);
    memcpy(lane, most, sizeof lane);
    for (int i = 0; i < MMQI_STRIP; i++)
        all = lane[i] > all ? lane[i] : all;
    return mmqi_f32_from_bits(all);
}

/* Codes of n elements, a multiple of MMQI_STRIP. */
MMQI_ALWAYS_INLINE void mmqi_table4_encode(uint8_t *bytes, const float *w, int64_t n, float inverse,
                                           const struct mmqi_coding *coding)
{
    uint32_t code[MMQI_STRIP];
    mmqi_u32x4 at[4];

    for (int64_t k = 0; k < n; k += MMQI_STRIP) {
        mmqi_climb(at, w + k, inverse, coding->threshold, &coding->code);
        memcpy(code, at, sizeof code);
        for (int i = 0; i < MMQI_STRIP / 2; i++)
            bytes[k / 2 + i] = (uint8_t)(code[2 * i] << 4 | code[2 * i + 1]);
    }
}

/*
 * Squared error of n elements (a multiple of MMQI_STRIP) under a scale, in units of 1 / unit^2,
 * which keeps it far from the ends of f32. Lane i sums elements i, i + 16, i + 32 ... in order.
 */
MMQI_ALWAYS_INLINE float mmqi_table4_error(const float *w, int64_t n, float scale, float inverse,
                                           float unit, const struct mmqi_coding *coding)
{
    mmqi_f32x4 sum[4];
    mmqi_u32x4 at[4];

    for (int i = 0; i < 4; i++)
        sum[i] = mmqi_f32x4_all(0.0f);
    for (int64_t k = 0; k < n; k += MMQI_STRIP) {
        mmqi_climb(at, w + k, inverse, coding->threshold, &coding->value);
        for (int i = 0; i < 4; i++) {
            mmqi_f32x4 x = mmqi_f32x4_load(w + k + MMQI_F4 * i);
            mmqi_f32x4 error =
                (x - mmqi_f32x4_bits(at[i]) * mmqi_f32x4_all(scale)) * mmqi_f32x4_all(unit);

            sum[i] = sum[i] + error * error;
        }
    }
    return mmqi_f32x16_sum(sum);
}

/*
 * The grid: absmax * j / 64, the factor exact in f32; j = 51 ... 63, 65 ... 69, 72, 76 ... 92.
 * Below 1 the greatest magnitudes are cut off and all others have finer steps; above 1 the greatest
 * comes nearer to its level, or takes the next one. On weights of real models a finer or wider grid
 * gains less than 0.4 % of the error's root.
 */
enum { MMQI_TABLE4_GRID = 24 };

MMQI_ALWAYS_INLINE float mmqi_table4_fraction(int i)
{
    int j = i < 13 ? 51 + i : i < 18 ? 52 + i : 72 + 4 * (i - 18);

    return (float)j / 64;
}

/*
 * A scale must beat that of round to nearest by more than the sums can err, so the error never
 * grows by choosing; among the others the first of the least wins.
 */
MMQI_ALWAYS_INLINE float mmqi_table4_search(const float *w, int64_t n, float absmax,
                                            const struct mmqi_coding *coding)
{
    float unit = 1.0f / absmax, best = absmax, least;

    least = mmqi_table4_error(w, n, absmax, unit, unit, coding) * (1.0f - 0x1p-16f);
    for (int i = 0; i < MMQI_TABLE4_GRID; i++) {
        float scale = absmax * mmqi_table4_fraction(i), inverse = 1.0f / scale, error;

        if (!(scale <= FLT_MAX) || !(inverse <= FLT_MAX))
            continue;
        error = mmqi_table4_error(w, n, scale, inverse, unit, coding);
        if (error < least) {
            least = error;
            best = scale;
        }
    }
    return best;
}

/* A whole block, short ones filled up with zeros, to block / 2 bytes; returns its scale. */
MMQI_INLINE float mmqi_table4_pack(uint8_t *bytes, const float *w, int64_t block, int32_t method,
                                   const struct mmqi_coding *coding)
{
    float absmax = mmqi_greatest_magnitude(w, block);

    if (1.0f / absmax <= FLT_MAX) {
        if (method == MMQI_METHOD_SEARCH)
            absmax = mmqi_table4_search(w, block, absmax, coding);
        mmqi_table4_encode(bytes, w, block, 1.0f / absmax, coding);
    } else {
        memset(bytes, coding->zero << 4 | coding->zero, (size_t)block / 2);
    }
    return absmax;
}

/* ---- int4: a group ---- */

/* How a scale is stored. */
struct mmqi_scale_type {
    float most;   /* (q - z) * most is finite */
    float least;  /* above 0 */
    int32_t bf16; /* else f16 */
};

MMQI_ALWAYS_INLINE struct mmqi_scale_type mmqi_scale_type_of(int32_t dtype)
{
    struct mmqi_scale_type f16 = {65504.0f, 0x1p-24f, 0}, bf16 = {0x1.1p124f, 0x1p-133f, 1};

    return dtype == MMQI_BF16 ? bf16 : f16;
}

MMQI_INLINE uint16_t mmqi_scale_bits(float scale, const struct mmqi_scale_type *type)
{
    return type->bf16 ? mmqi_bf16_from_f32(scale) : mmqi_f16_from_f32(scale);
}

MMQI_INLINE float mmqi_scale_from_bits(uint16_t bits, const struct mmqi_scale_type *type)
{
    return type->bf16 ? mmqi_f32_from_bf16(bits) : mmqi_f32_from_f16(bits);
}

MMQI_INLINE float mmqi_round_scale(float scale, const struct mmqi_scale_type *type)
{
    float rounded = mmqi_scale_from_bits(mmqi_scale_bits(scale, type), type);

    if (rounded > type->most)
        return type->most;
    return rounded == 0.0f && scale > 0.0f ? type->least : rounded;
}

/* What a group decodes by. */
struct mmqi_int4_grid {
    float scale;
    int32_t zero;
};

/* Of n elements, a multiple of MMQI_STRIP, and of 0. */
MMQI_INLINE void mmqi_int4_range(float *low, float *high, const float *w, int64_t n)
{
    mmqi_f32x4 least = mmqi_f32x4_all(0.0f), most = least;
    float lane[2][MMQI_F4];

    for (int64_t k = 0; k < n; k += MMQI_F4) {
        mmqi_f32x4 x = mmqi_f32x4_load(w + k);

        least = mmqi_f32x4_least(x, least);
        most = mmqi_f32x4_most(x, most);
    }
    memcpy(lane[0], &least, sizeof lane[0]);
    memcpy(lane[1], &most, sizeof lane[1]);
    *low = *high = 0.0f;
    for (int i = 0; i < MMQI_F4; i++) {
        *low = lane[0][i] < *low ? lane[0][i] : *low;
        *high = lane[1][i] > *high ? lane[1][i] : *high;
    }
}

MMQI_INLINE int32_t mmqi_int4_zero(float low, float scale)
{
    float x = -low / scale;

    return mmqi_round_to_even(x < 15.0f ? x : 15.0f);
}

/* q - z, with MMQI_ROUNDER added: the sum's low bits are the integer, see mmqi_round_to_even(). */
MMQI_ALWAYS_INLINE mmqi_f32x4 mmqi_int4_level(mmqi_f32x4 x, const struct mmqi_int4_grid *grid)
{
    x = mmqi_f32x4_least(x / mmqi_f32x4_all(grid->scale), mmqi_f32x4_all((float)(15 - grid->zero)));
    return mmqi_f32x4_most(x, mmqi_f32x4_all((float)-grid->zero)) + mmqi_f32x4_all(MMQI_ROUNDER);
}

/* Codes of n elements, a multiple of MMQI_STRIP. */
MMQI_INLINE void mmqi_int4_encode(uint8_t *bytes, const float *w, int64_t n,
                                  const struct mmqi_int4_grid *grid)
{
    mmqi_u32x4 bias = mmqi_u32x4_all(0x4b400000u - (uint32_t)grid->zero), at[4];
    uint32_t code[MMQI_STRIP];

    for (int64_t k = 0; k < n; k += MMQI_STRIP) {
        for (int i = 0; i < 4; i++) {
            mmqi_f32x4 x = mmqi_f32x4_load(w + k + MMQI_F4 * i);

            at[i] = mmqi_u32x4_bits(mmqi_int4_level(x, grid)) - bias;
        }
        memcpy(code, at, sizeof code);
        for (int i = 0; i < MMQI_STRIP / 2; i++)
            bytes[k / 2 + i] = (uint8_t)(code[2 * i] | code[2 * i + 1] << 4);
    }
}

/* Squared error of n elements, a multiple of MMQI_STRIP, in units of 1 / unit^2. Lane i sums
 * elements i, i + 16, i + 32 ... in order. */
MMQI_INLINE float mmqi_int4_error(const float *w, int64_t n, const struct mmqi_int4_grid *grid,
                                  float unit)
{
    mmqi_f32x4 sum[4];

    for (int i = 0; i < 4; i++)
        sum[i] = mmqi_f32x4_all(0.0f);
    for (int64_t k = 0; k < n; k += MMQI_STRIP)
        for (int i = 0; i < 4; i++) {
            mmqi_f32x4 x = mmqi_f32x4_load(w + k + MMQI_F4 * i);
            mmqi_f32x4 level = mmqi_int4_level(x, grid) - mmqi_f32x4_all(MMQI_ROUNDER);
            mmqi_f32x4 error = (x - level * mmqi_f32x4_all(grid->scale)) * mmqi_f32x4_all(unit);

            sum[i] = sum[i] + error * error;
        }
    return mmqi_f32x16_sum(sum);
}

/* The fractions: j / 64, exact in f32. Zero points beside that of the scale gain nothing more. */
enum { MMQI_INT4_GRID_BEGIN = 48, MMQI_INT4_GRID_END = 73 };

/* Replace *grid, that of round to nearest, where another has an error that is smaller by more than
 * the sums can err; among the others the first of the least wins. */
MMQI_INLINE void mmqi_int4_search(struct mmqi_int4_grid *grid, const float *w, int64_t n, float low,
                                  float high, const struct mmqi_scale_type *type)
{
    float unit = 1.0f / grid->scale, least, error, fraction;
    struct mmqi_int4_grid other;

    if (!(unit <= FLT_MAX))
        return;
    least = mmqi_int4_error(w, n, grid, unit) * (1.0f - 0x1p-16f);
    for (int j = MMQI_INT4_GRID_BEGIN; j < MMQI_INT4_GRID_END; j++) {
        fraction = (float)j / 64;
        other.scale = mmqi_round_scale((high - low) * fraction / 15.0f, type);
        other.zero = mmqi_int4_zero(low * fraction, other.scale);
        error = mmqi_int4_error(w, n, &other, unit);
        if (error < least) {
            least = error;
            *grid = other;
        }
    }
}

/* A whole group, short ones filled up with zeros, to group / 2 bytes. */
MMQI_INLINE struct mmqi_int4_grid mmqi_int4_pack(uint8_t *bytes, const float *w, int64_t group,
                                                 int32_t method, const struct mmqi_scale_type *type)
{
    struct mmqi_int4_grid grid = {0.0f, 0};
    float low, high;

    mmqi_int4_range(&low, &high, w, group);
    grid.scale = mmqi_round_scale((high - low) / 15.0f, type);
    if (!(grid.scale > 0.0f)) {
        memset(bytes, 0, (size_t)group / 2);
        return grid;
    }
    grid.zero = mmqi_int4_zero(low, grid.scale);
    if (method == MMQI_METHOD_SEARCH)
        mmqi_int4_search(&grid, w, group, low, high, type);
    mmqi_int4_encode(bytes, w, group, &grid);
    return grid;
}

#endif
