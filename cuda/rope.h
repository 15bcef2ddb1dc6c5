/* The turn of rotary positions, to the same bits in every kernel; and how products pass into it. */
#ifndef MMQI_CUDA_ROPE_H
#define MMQI_CUDA_ROPE_H

#include "cuda/kernel.h"

/* What turns have in common, and where keys and values go. */
struct turning {
    struct mmqi_rope rope;
    const int32_t *positions;
    struct mmqi_kv kv;
    const int32_t *slots; /* or NULL: nothing goes to the cache */
};

struct turn {
    float c, s;
};

/* Of pair i of a head at row r's positions: the angle's product is rounded, then its cosine and
 * sine. */
static __device__ inline struct turn find_turn(const struct turning &t, int64_t r, int32_t i)
{
    int32_t axis = t.rope.axis ? t.rope.axis[i] : 0;
    float angle = __fmul_rn((float)t.positions[r * t.rope.n_axes + axis], t.rope.inv_freq[i]);
    struct turn turn = {cosf(angle), sinf(angle)};

    return turn;
}

/* Of the pair (a, b); products and sums are rounded one by one. */
static __device__ inline float turned_low(struct turn t, float a, float b)
{
    return __fadd_rn(__fmul_rn(a, t.c), -__fmul_rn(b, t.s));
}

static __device__ inline float turned_high(struct turn t, float a, float b)
{
    return __fadd_rn(__fmul_rn(b, t.c), __fmul_rn(a, t.s));
}

#endif
