/*
 * Sums and functions of 16 lanes, in terms of the vocabulary of v16_*.h.
 *
 * exp, erf: minimax polynomials fitted for these files; exp errs by less than
 * 1.5 units in the last place, erf by less than 1e-7 in all.
 */
#ifndef MMQI_CPU_X86_MATH16_H
#define MMQI_CPU_X86_MATH16_H

#include <math.h>

/* Whole vectors without a mask where n is the constant 16. */
V16_INLINE v16 v16_load_some(const float *p, const int64_t n)
{
    return n == 16 ? v16_load(p) : v16_load_n(p, n);
}

V16_INLINE void v16_store_some(float *p, v16 v, const int64_t n)
{
    if (n == 16)
        v16_store(p, v);
    else
        v16_store_n(p, v, n);
}

/* The rest of the tree (cpu.h) for four folded vectors: their sums, in order. */
V16_INLINE __m128 tree4(__m256 a, __m256 b, __m256 c, __m256 d)
{
    /* [a.lane 0..3 + 4..7, c the same], [b ..., d ...] */
    __m256 ac =
        _mm256_add_ps(_mm256_permute2f128_ps(a, c, 0x20), _mm256_permute2f128_ps(a, c, 0x31));
    __m256 bd =
        _mm256_add_ps(_mm256_permute2f128_ps(b, d, 0x20), _mm256_permute2f128_ps(b, d, 0x31));
    /* [a0+a2, b0+b2, a1+a3, b1+b3, c ... d ...] */
    __m256 t = _mm256_add_ps(_mm256_unpacklo_ps(ac, bd), _mm256_unpackhi_ps(ac, bd));

    return _mm_add_ps(_mm_movelh_ps(_mm256_castps256_ps128(t), _mm256_extractf128_ps(t, 1)),
                      _mm_movehl_ps(_mm256_extractf128_ps(t, 1), _mm256_castps256_ps128(t)));
}

/* The 16-lane sum's tree for one vector. */
V16_INLINE float v16_sum(v16 a)
{
    __m256 v8 = v16_fold(a);
    __m128 v4 = _mm_add_ps(_mm256_castps256_ps128(v8), _mm256_extractf128_ps(v8, 1));
    __m128 v2 = _mm_add_ps(v4, _mm_movehl_ps(v4, v4));

    return _mm_cvtss_f32(_mm_add_ss(v2, _mm_shuffle_ps(v2, v2, 1)));
}

/*
 * e^x = 2^n e^r with n = round(x / ln 2), r = x - n ln 2 in two steps, and
 * e^r = 1 + r + r^2 P(r). Below the least normal result: 0; above 2^127.5: infinity.
 */
V16_INLINE v16 v16_exp(v16 x)
{
    const v16 least = v16_set1(-87.33654f), most = v16_set1(88.37626f);
    v16 c = v16_min(most, v16_max(least, x)); /* NaN stays */
    v16 n = v16_round(v16_mul(c, v16_set1(1.442695022f)));
    v16 r = v16_fma(n, v16_set1(-0.693145751953125f), c);
    v16 p;

    r = v16_fma(n, v16_set1(-1.428606765e-06f), r);
    p = v16_fma(v16_set1(1.381476526e-03f), r, v16_set1(8.368737996e-03f));
    p = v16_fma(p, r, v16_set1(4.166838527e-02f));
    p = v16_fma(p, r, v16_set1(1.666652113e-01f));
    p = v16_fma(p, r, v16_set1(4.999999404e-01f));
    p = v16_fma(p, v16_mul(r, r), r);
    p = v16_scale(v16_add(p, v16_set1(1.0f)), n);
    p = v16_if_less(x, least, v16_zero(), p);
    return v16_if_less(most, x, v16_set1(INFINITY), p);
}

/* |x| < 1: x Q(x^2). Else 1 - e^-R(|x|) with the sign of x, R = -ln erfc on [1, 4]; 1 beyond. */
V16_INLINE v16 v16_erf(v16 x)
{
    v16 a = v16_min(v16_set1(4.0f), v16_abs(x)), s = v16_mul(x, x), q, r;

    q = v16_fma(v16_set1(7.853839634e-05f), s, v16_set1(-8.010186721e-04f));
    q = v16_fma(q, s, v16_set1(5.188326817e-03f));
    q = v16_fma(q, s, v16_set1(-2.685381100e-02f));
    q = v16_fma(q, s, v16_set1(1.128358543e-01f));
    q = v16_fma(q, s, v16_set1(-3.761262596e-01f));
    q = v16_mul(v16_fma(q, s, v16_set1(1.128379107e+00f)), x);
    r = v16_fma(v16_set1(-1.855728915e-04f), a, v16_set1(2.939596539e-03f));
    r = v16_fma(r, a, v16_set1(-2.180527523e-02f));
    r = v16_fma(r, a, v16_set1(1.030372828e-01f));
    r = v16_fma(r, a, v16_set1(6.382257938e-01f));
    r = v16_fma(r, a, v16_set1(1.127040029e+00f));
    r = v16_fma(r, a, v16_set1(3.537333105e-04f));
    r = v16_sub(v16_set1(1.0f), v16_exp(v16_sub(v16_zero(), r)));
    return v16_if_less(a, v16_set1(1.0f), q, v16_copysign(r, x));
}

/* x * sigmoid(t) = x / (1 + e^-t). */
V16_INLINE v16 v16_swish(v16 x, v16 t)
{
    return v16_div(x, v16_add(v16_set1(1.0f), v16_exp(v16_sub(v16_zero(), t))));
}

#endif
