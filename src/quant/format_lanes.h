/*
 * Four numbers side by side, as packing computes: a vector of the compiler's in C; in C++, and so
 * in CUDA, a struct with the same operators. Every operation is that of IEEE on each lane by
 * itself, so both give the same bits (CUDA: with --fmad=false).
 */
#ifndef MMQI_QUANT_FORMAT_LANES_H
#define MMQI_QUANT_FORMAT_LANES_H

#include "core/dtype.h"

enum { MMQI_F4 = 4 /* lanes */ };

#if !defined(__cplusplus)

typedef float mmqi_f32x4 __attribute__((vector_size(16)));
typedef uint32_t mmqi_u32x4 __attribute__((vector_size(16)));

MMQI_ALWAYS_INLINE mmqi_f32x4 mmqi_f32x4_all(float x)
{
    return (mmqi_f32x4){x, x, x, x};
}

MMQI_ALWAYS_INLINE mmqi_u32x4 mmqi_u32x4_all(uint32_t x)
{
    return (mmqi_u32x4){x, x, x, x};
}

/* The same bits. */
MMQI_ALWAYS_INLINE mmqi_u32x4 mmqi_u32x4_bits(mmqi_f32x4 x)
{
    return (mmqi_u32x4)x;
}

MMQI_ALWAYS_INLINE mmqi_f32x4 mmqi_f32x4_bits(mmqi_u32x4 x)
{
    return (mmqi_f32x4)x;
}

MMQI_ALWAYS_INLINE mmqi_f32x4 mmqi_f32x4_load(const float *x)
{
    mmqi_f32x4 lanes;

    memcpy(&lanes, x, sizeof lanes);
    return lanes;
}

/* `x` where x < y, else `y`. */
MMQI_ALWAYS_INLINE mmqi_f32x4 mmqi_f32x4_least(mmqi_f32x4 x, mmqi_f32x4 y)
{
    mmqi_u32x4 less = (mmqi_u32x4)(x < y);

    return (mmqi_f32x4)(((mmqi_u32x4)x & less) | ((mmqi_u32x4)y & ~less));
}

/* `x` where x > y, else `y`. */
MMQI_ALWAYS_INLINE mmqi_f32x4 mmqi_f32x4_most(mmqi_f32x4 x, mmqi_f32x4 y)
{
    mmqi_u32x4 more = (mmqi_u32x4)(x > y);

    return (mmqi_f32x4)(((mmqi_u32x4)x & more) | ((mmqi_u32x4)y & ~more));
}

MMQI_ALWAYS_INLINE mmqi_u32x4 mmqi_u32x4_most(mmqi_u32x4 x, mmqi_u32x4 y)
{
    mmqi_u32x4 more = (mmqi_u32x4)(x > y);

    return (x & more) | (y & ~more);
}

/* `step` where x > y, else 0. */
MMQI_ALWAYS_INLINE mmqi_u32x4 mmqi_u32x4_where_above(mmqi_f32x4 x, mmqi_f32x4 y, mmqi_u32x4 step)
{
    return (mmqi_u32x4)(x > y) & step;
}

#else

struct mmqi_f32x4 {
    float lane[4];
};
struct mmqi_u32x4 {
    uint32_t lane[4];
};

/* A function of two vectors, each lane `value` of x and y. */
#define MMQI_LANEWISE(RESULT, NAME, TYPE, value)                                                   \
    MMQI_ALWAYS_INLINE RESULT NAME(TYPE a, TYPE b)                                                 \
    {                                                                                              \
        RESULT out;                                                                                \
                                                                                                   \
        for (int i = 0; i < MMQI_F4; i++) {                                                        \
            auto x = a.lane[i], y = b.lane[i];                                                     \
                                                                                                   \
            out.lane[i] = value;                                                                   \
        }                                                                                          \
        return out;                                                                                \
    }

MMQI_LANEWISE(mmqi_f32x4, operator+, mmqi_f32x4, x + y)
MMQI_LANEWISE(mmqi_f32x4, operator-, mmqi_f32x4, x - y)
MMQI_LANEWISE(mmqi_f32x4, operator*, mmqi_f32x4, x *y)
MMQI_LANEWISE(mmqi_f32x4, operator/, mmqi_f32x4, x / y)
MMQI_LANEWISE(mmqi_u32x4, operator+, mmqi_u32x4, x + y)
MMQI_LANEWISE(mmqi_u32x4, operator-, mmqi_u32x4, x - y)
MMQI_LANEWISE(mmqi_u32x4, operator&, mmqi_u32x4, x &y)
MMQI_LANEWISE(mmqi_f32x4, mmqi_f32x4_least, mmqi_f32x4, x < y ? x : y)
MMQI_LANEWISE(mmqi_f32x4, mmqi_f32x4_most, mmqi_f32x4, x > y ? x : y)
MMQI_LANEWISE(mmqi_u32x4, mmqi_u32x4_most, mmqi_u32x4, x > y ? x : y)
#undef MMQI_LANEWISE

MMQI_ALWAYS_INLINE mmqi_f32x4 mmqi_f32x4_all(float x)
{
    mmqi_f32x4 lanes = {{x, x, x, x}};

    return lanes;
}

MMQI_ALWAYS_INLINE mmqi_u32x4 mmqi_u32x4_all(uint32_t x)
{
    mmqi_u32x4 lanes = {{x, x, x, x}};

    return lanes;
}

MMQI_ALWAYS_INLINE mmqi_u32x4 mmqi_u32x4_bits(mmqi_f32x4 x)
{
    mmqi_u32x4 bits;

    for (int i = 0; i < MMQI_F4; i++)
        bits.lane[i] = mmqi_bits_from_f32(x.lane[i]);
    return bits;
}

MMQI_ALWAYS_INLINE mmqi_f32x4 mmqi_f32x4_bits(mmqi_u32x4 x)
{
    mmqi_f32x4 floats;

    for (int i = 0; i < MMQI_F4; i++)
        floats.lane[i] = mmqi_f32_from_bits(x.lane[i]);
    return floats;
}

MMQI_ALWAYS_INLINE mmqi_f32x4 mmqi_f32x4_load(const float *x)
{
    mmqi_f32x4 lanes = {{x[0], x[1], x[2], x[3]}};

    return lanes;
}

MMQI_ALWAYS_INLINE mmqi_u32x4 mmqi_u32x4_where_above(mmqi_f32x4 x, mmqi_f32x4 y, mmqi_u32x4 step)
{
    mmqi_u32x4 out;

    for (int i = 0; i < MMQI_F4; i++)
        out.lane[i] = x.lane[i] > y.lane[i] ? step.lane[i] : 0;
    return out;
}

#endif

/* Sixteen lanes added in halves: 16, 8, 4, 2. */
MMQI_ALWAYS_INLINE float mmqi_f32x16_sum(const mmqi_f32x4 x[4])
{
    mmqi_f32x4 sum = (x[0] + x[2]) + (x[1] + x[3]);
    float lane[MMQI_F4];

    memcpy(lane, &sum, sizeof lane);
    return (lane[0] + lane[2]) + (lane[1] + lane[3]);
}

#endif
