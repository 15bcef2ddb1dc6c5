/*
 * Kernels on single rows: add, norms, activations, rotary turns, pick.
 *
 * Included by kernels_*.c after a vocabulary. Rows are read and written in
 * vectors of 16 with a masked tail, so nothing past n is touched.
 */
#ifndef MMQI_CPU_X86_ROWS16_H
#define MMQI_CPU_X86_ROWS16_H

#include "cpu/cpu.h"

static void add_row(float *y, const float *a, const float *b, int64_t n)
{
    int64_t i = 0;

    for (; i + 16 <= n; i += 16)
        v16_store(y + i, v16_add(v16_load(a + i), v16_load(b + i)));
    if (i < n)
        v16_store_n(y + i, v16_add(v16_load_n(a + i, n - i), v16_load_n(b + i, n - i)), n - i);
}

static float row_sum(const float *x, int64_t n)
{
    v16 lanes = v16_zero();
    int64_t i = 0;

    for (; i + 16 <= n; i += 16)
        lanes = v16_add(lanes, v16_load(x + i));
    return v16_sum(v16_add(lanes, v16_load_n(x + i, n - i)));
}

static float row_sum_squares(const float *x, float mean, int64_t n)
{
    v16 lanes = v16_zero(), m = v16_set1(mean), d;
    int64_t i = 0;

    for (; i + 16 <= n; i += 16) {
        d = v16_sub(v16_load(x + i), m);
        lanes = v16_add(lanes, v16_mul(d, d));
    }
    d = v16_keep_n(v16_sub(v16_load_n(x + i, n - i), m), n - i);
    return v16_sum(v16_add(lanes, v16_mul(d, d)));
}

V16_INLINE v16 normed(v16 x, v16 mean, v16 inverse, v16 w, v16 b)
{
    return v16_add(v16_mul(v16_mul(v16_sub(x, mean), inverse), w), b);
}

static void layer_norm_row(float *y, const float *x, const float *w, const float *b, float eps,
                           int64_t n)
{
    float mean = row_sum(x, n) / (float)n;
    float inverse = 1.0f / sqrtf(row_sum_squares(x, mean, n) / (float)n + eps);
    v16 m = v16_set1(mean), inv = v16_set1(inverse);
    int64_t i = 0, rest;

    for (; i + 16 <= n; i += 16)
        v16_store(y + i, normed(v16_load(x + i), m, inv, v16_load(w + i), v16_load(b + i)));
    rest = n - i;
    if (rest)
        v16_store_n(y + i,
                    normed(v16_load_n(x + i, rest), m, inv, v16_load_n(w + i, rest),
                           v16_load_n(b + i, rest)),
                    rest);
}

static void rms_norm_row(float *y, const float *x, const float *w, float eps, int64_t n)
{
    v16 inv = v16_set1(1.0f / sqrtf(row_sum_squares(x, 0.0f, n) / (float)n + eps));
    int64_t i = 0, rest;

    for (; i + 16 <= n; i += 16)
        v16_store(y + i, v16_mul(v16_mul(v16_load(x + i), inv), v16_load(w + i)));
    rest = n - i;
    if (rest)
        v16_store_n(y + i, v16_mul(v16_mul(v16_load_n(x + i, rest), inv), v16_load_n(w + i, rest)),
                    rest);
}

/* The tanh form by 1 + tanh u = 2 sigmoid(2 u). */
V16_INLINE v16 act16(v16 x, const int32_t act)
{
    v16 t;

    switch (act) {
    case MMQI_ACT_SILU:
        return v16_swish(x, x);
    case MMQI_ACT_GELU:
        t = v16_add(v16_set1(1.0f), v16_erf(v16_mul(x, v16_set1(0.70710678f))));
        return v16_mul(v16_mul(v16_set1(0.5f), x), t);
    case MMQI_ACT_GELU_TANH:
        t = v16_fma(v16_mul(v16_set1(0.044715f), v16_mul(x, x)), x, x);
        return v16_swish(x, v16_mul(v16_set1(1.59576912f), t));
    default: /* MMQI_ACT_QUICK_GELU */
        return v16_swish(x, v16_mul(v16_set1(1.702f), x));
    }
}

/* y = act(x), times up where that is not NULL. */
V16_INLINE void act_row(float *y, const float *x, const float *up, int64_t n, const int32_t act)
{
    int64_t i = 0;
    v16 t;

    for (; i + 16 <= n; i += 16) {
        t = act16(v16_load(x + i), act);
        v16_store(y + i, up ? v16_mul(t, v16_load(up + i)) : t);
    }
    if (i == n)
        return;
    t = act16(v16_load_n(x + i, n - i), act);
    v16_store_n(y + i, up ? v16_mul(t, v16_load_n(up + i, n - i)) : t, n - i);
}

static void gate_row(float *y, const float *g, const float *up, int64_t n, int32_t act)
{
    switch (act) {
    case MMQI_ACT_SILU:
        act_row(y, g, up, n, MMQI_ACT_SILU);
        break;
    case MMQI_ACT_GELU:
        act_row(y, g, up, n, MMQI_ACT_GELU);
        break;
    case MMQI_ACT_GELU_TANH:
        act_row(y, g, up, n, MMQI_ACT_GELU_TANH);
        break;
    default:
        act_row(y, g, up, n, MMQI_ACT_QUICK_GELU);
        break;
    }
}

static void activate_row(float *y, const float *x, int64_t n, int32_t act)
{
    gate_row(y, x, NULL, n, act);
}

/* Pairs [i, i + n) of a head. */
V16_INLINE void rotate16(float *x, const float *c, const float *s, int64_t half, int64_t i,
                         const int64_t n)
{
    v16 a = v16_load_some(x + i, n), b = v16_load_some(x + half + i, n);
    v16 cos = v16_load_some(c + i, n), sin = v16_load_some(s + i, n);

    v16_store_some(x + i, v16_sub(v16_mul(a, cos), v16_mul(b, sin)), n);
    v16_store_some(x + half + i, v16_add(v16_mul(b, cos), v16_mul(a, sin)), n);
}

static void rotate_head(float *x, const float *c, const float *s, int64_t half)
{
    int64_t i = 0;

    for (; i + 16 <= half; i += 16)
        rotate16(x, c, s, half, i, 16);
    if (i < half)
        rotate16(x, c, s, half, i, half - i);
}

/* The greatest value first, then where it stands first. NaN is never the greatest. */
static int64_t pick_row(const float *x, int64_t n)
{
    v16 most = v16_set1(-INFINITY);
    float greatest;
    uint32_t found;
    int64_t i = 0;

    for (; i + 16 <= n; i += 16)
        most = v16_max(v16_load(x + i), most);
    greatest = v16_greatest(most);
    for (; i < n; i++)
        if (x[i] > greatest)
            greatest = x[i];
    for (i = 0; i + 16 <= n; i += 16) {
        found = v16_equal(v16_load(x + i), v16_set1(greatest));
        if (found)
            return i + __builtin_ctz(found);
    }
    for (; i < n; i++)
        if (x[i] == greatest)
            return i;
    return 0;
}

#endif
