/*
 * The vocabulary of the vector kernels in AVX-512: 16 lanes of f32 in one
 * register. v16_avx2.h is its twin; what both give is the same to the bit.
 */
#ifndef MMQI_CPU_X86_V16_AVX512_H
#define MMQI_CPU_X86_V16_AVX512_H

#include <immintrin.h>
#include <stdbool.h>
#include <stdint.h>

#define V16_INLINE static inline __attribute__((always_inline))

/* for (i = 0; i < n; i++) with a constant n, unrolled, so that arrays of vectors are registers. */
#define V16_EACH(i, n) _Pragma("GCC unroll 16") for (int32_t i = 0; i < (n); i++)

typedef __m512 v16;

V16_INLINE v16 v16_zero(void)
{
    return _mm512_setzero_ps();
}

V16_INLINE v16 v16_set1(float x)
{
    return _mm512_set1_ps(x);
}

V16_INLINE v16 v16_load(const float *p)
{
    return _mm512_loadu_ps(p);
}

V16_INLINE void v16_store(float *p, v16 v)
{
    _mm512_storeu_ps(p, v);
}

V16_INLINE __mmask16 v16_first(int64_t n)
{
    return (__mmask16)(n >= 16 ? 0xFFFF : (1u << n) - 1);
}

/* The first n lanes, 0 <= n <= 16; others are 0, and their memory is not touched. */
V16_INLINE v16 v16_load_n(const float *p, int64_t n)
{
    return _mm512_maskz_loadu_ps(v16_first(n), p);
}

V16_INLINE void v16_store_n(float *p, v16 v, int64_t n)
{
    _mm512_mask_storeu_ps(p, v16_first(n), v);
}

/* Zeros in place of the lanes from n on. */
V16_INLINE v16 v16_keep_n(v16 v, int64_t n)
{
    return _mm512_maskz_mov_ps(v16_first(n), v);
}

V16_INLINE v16 v16_add(v16 a, v16 b)
{
    return _mm512_add_ps(a, b);
}

V16_INLINE v16 v16_sub(v16 a, v16 b)
{
    return _mm512_sub_ps(a, b);
}

V16_INLINE v16 v16_mul(v16 a, v16 b)
{
    return _mm512_mul_ps(a, b);
}

V16_INLINE v16 v16_div(v16 a, v16 b)
{
    return _mm512_div_ps(a, b);
}

/* a * b + c, rounded once. */
V16_INLINE v16 v16_fma(v16 a, v16 b, v16 c)
{
    return _mm512_fmadd_ps(a, b, c);
}

/* b where either is NaN. */
V16_INLINE v16 v16_max(v16 a, v16 b)
{
    return _mm512_max_ps(a, b);
}

V16_INLINE v16 v16_min(v16 a, v16 b)
{
    return _mm512_min_ps(a, b);
}

V16_INLINE v16 v16_abs(v16 a)
{
    return _mm512_abs_ps(a);
}

/* |a| with the sign of s. */
V16_INLINE v16 v16_copysign(v16 a, v16 s)
{
    const __m512i sign = _mm512_set1_epi32((int)0x80000000u);

    return _mm512_castsi512_ps(
        _mm512_ternarylogic_epi32(sign, _mm512_castps_si512(s), _mm512_castps_si512(a), 0xCA));
}

/* a < b ? yes : no. */
V16_INLINE v16 v16_if_less(v16 a, v16 b, v16 yes, v16 no)
{
    return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a, b, _CMP_LT_OQ), no, yes);
}

/* Bit i: a[i] == b[i]. */
V16_INLINE uint32_t v16_equal(v16 a, v16 b)
{
    return _mm512_cmp_ps_mask(a, b, _CMP_EQ_OQ);
}

/* To the nearest whole number, ties to even. */
V16_INLINE v16 v16_round(v16 a)
{
    return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

/* a * 2^n for whole -126 <= n <= 127, where the result is normal. */
V16_INLINE v16 v16_scale(v16 a, v16 n)
{
    return _mm512_scalef_ps(a, n);
}

/* Lane j + lane j + 8: the first step of the tree. */
V16_INLINE __m256 v16_fold(v16 a)
{
    return _mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1));
}

V16_INLINE float v16_first_lane(v16 a)
{
    return _mm512_cvtss_f32(a);
}

V16_INLINE float v16_greatest(v16 a)
{
    return _mm512_reduce_max_ps(a);
}

/* ---- weights: 16 elements of a stored row ---- */

V16_INLINE v16 v16_from_f16(const uint8_t *p)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p));
}

V16_INLINE v16 v16_from_bf16(const uint8_t *p)
{
    __m512i bits = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)p));

    return _mm512_castsi512_ps(_mm512_slli_epi32(bits, 16));
}

V16_INLINE v16 v16_from_i8(const uint8_t *p)
{
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)p)));
}

V16_INLINE v16 v16_from_u8(const uint8_t *p)
{
    return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)p)));
}

/* 16 values that 4-bit codes stand for. */
typedef __m512 v16_table;

/*
 * Lanes in the order that codes are read in, and back: sums of products take their other factor in
 * that order, rearranged beforehand. Elements j and j + 8, whose codes are 32 bits apart, stand
 * side by side.
 */
enum { CODES_IN_ORDER = 0 };

V16_INLINE v16 v16_to_codes(v16 v)
{
    return _mm512_permutexvar_ps(
        _mm512_setr_epi32(0, 8, 1, 9, 2, 10, 3, 11, 4, 12, 5, 13, 6, 14, 7, 15), v);
}

V16_INLINE v16 v16_of_codes(v16 v)
{
    return _mm512_permutexvar_ps(
        _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 1, 3, 5, 7, 9, 11, 13, 15), v);
}

V16_INLINE v16_table v16_table_scaled(v16 values, float scale)
{
    return _mm512_mul_ps(values, _mm512_set1_ps(scale));
}

V16_INLINE v16_table v16_table_int4(float scale, float zero)
{
    const __m512 codes = _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);

    return _mm512_mul_ps(_mm512_sub_ps(codes, _mm512_set1_ps(zero)), _mm512_set1_ps(scale));
}

/* All 64 bits go to each pair of lanes, and one shift brings both their codes to the low bits. */
V16_INLINE v16 v16_look_up(const uint8_t *p, v16_table table, __m512i shift)
{
    int64_t bytes;

    __builtin_memcpy(&bytes, p, 8);
    return _mm512_permutexvar_ps(_mm512_srlv_epi64(_mm512_set1_epi64(bytes), shift), table);
}

/* 8 bytes, element 2j in the high half of byte j. */
V16_INLINE v16 v16_from_table(const uint8_t *p, v16_table table)
{
    return v16_look_up(p, table, _mm512_setr_epi64(4, 0, 12, 8, 20, 16, 28, 24));
}

/* 8 bytes, element 2j in the low half of byte j. */
V16_INLINE v16 v16_from_int4(const uint8_t *p, v16_table table)
{
    return v16_look_up(p, table, _mm512_setr_epi64(0, 4, 8, 12, 16, 20, 24, 28));
}

/* ---- one register, for tiles: the lanes do not meet, so their number changes no bit ---- */

typedef __m512 vreg;

enum { VREG_LANES = 16 };

V16_INLINE vreg vreg_zero(void)
{
    return _mm512_setzero_ps();
}

V16_INLINE vreg vreg_set1(float x)
{
    return _mm512_set1_ps(x);
}

V16_INLINE vreg vreg_load(const float *p)
{
    return _mm512_loadu_ps(p);
}

/* The first n lanes, 0 < n <= VREG_LANES. */
V16_INLINE vreg vreg_load_n(const float *p, int64_t n)
{
    return v16_load_n(p, n);
}

V16_INLINE void vreg_store(float *p, vreg v)
{
    _mm512_storeu_ps(p, v);
}

V16_INLINE void vreg_store_n(float *p, vreg v, int64_t n)
{
    v16_store_n(p, v, n);
}

V16_INLINE vreg vreg_mul(vreg a, vreg b)
{
    return _mm512_mul_ps(a, b);
}

V16_INLINE vreg vreg_fma(vreg a, vreg b, vreg c)
{
    return _mm512_fmadd_ps(a, b, c);
}

/* Keeps compilers from folding one load into each of its uses: loads are what limits the tiles. */
V16_INLINE vreg vreg_keep(vreg v)
{
    __asm__("" : "+v"(v));
    return v;
}

#endif
