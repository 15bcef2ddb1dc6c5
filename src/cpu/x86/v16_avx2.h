/*
 * The vocabulary of the vector kernels in AVX2 with FMA and F16C: 16 lanes of
 * f32 in two registers. v16_avx512.h is its twin; what both give is the same
 * to the bit.
 */
#ifndef MMQI_CPU_X86_V16_AVX2_H
#define MMQI_CPU_X86_V16_AVX2_H

#include <immintrin.h>
#include <stdbool.h>
#include <stdint.h>

#define V16_INLINE static inline __attribute__((always_inline))

/* for (i = 0; i < n; i++) with a constant n, unrolled, so that arrays of vectors are registers. */
#define V16_EACH(i, n) _Pragma("GCC unroll 16") for (int32_t i = 0; i < (n); i++)

typedef struct {
    __m256 low, high; /* lanes 0..7 and 8..15 */
} v16;

#define V16_BOTH(op, a, b) ((v16){op((a).low, (b).low), op((a).high, (b).high)})

V16_INLINE v16 v16_zero(void)
{
    return (v16){_mm256_setzero_ps(), _mm256_setzero_ps()};
}

V16_INLINE v16 v16_set1(float x)
{
    return (v16){_mm256_set1_ps(x), _mm256_set1_ps(x)};
}

V16_INLINE v16 v16_load(const float *p)
{
    return (v16){_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)};
}

V16_INLINE void v16_store(float *p, v16 v)
{
    _mm256_storeu_ps(p, v.low);
    _mm256_storeu_ps(p + 8, v.high);
}

/* All ones in the first n of 8 lanes; n may be negative or beyond 8. */
V16_INLINE __m256i v8_first(int64_t n)
{
    int32_t count = n < 0 ? 0 : n > 8 ? 8 : (int32_t)n;

    return _mm256_cmpgt_epi32(_mm256_set1_epi32(count), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

/* The first n lanes, 0 <= n <= 16; others are 0, and their memory is not touched. */
V16_INLINE v16 v16_load_n(const float *p, int64_t n)
{
    v16 v = {_mm256_maskload_ps(p, v8_first(n)), _mm256_setzero_ps()};

    if (n > 8)
        v.high = _mm256_maskload_ps(p + 8, v8_first(n - 8));
    return v;
}

V16_INLINE void v16_store_n(float *p, v16 v, int64_t n)
{
    _mm256_maskstore_ps(p, v8_first(n), v.low);
    if (n > 8)
        _mm256_maskstore_ps(p + 8, v8_first(n - 8), v.high);
}

/* Zeros in place of the lanes from n on. */
V16_INLINE v16 v16_keep_n(v16 v, int64_t n)
{
    v.low = _mm256_and_ps(v.low, _mm256_castsi256_ps(v8_first(n)));
    v.high = _mm256_and_ps(v.high, _mm256_castsi256_ps(v8_first(n - 8)));
    return v;
}

V16_INLINE v16 v16_add(v16 a, v16 b)
{
    return V16_BOTH(_mm256_add_ps, a, b);
}

V16_INLINE v16 v16_sub(v16 a, v16 b)
{
    return V16_BOTH(_mm256_sub_ps, a, b);
}

V16_INLINE v16 v16_mul(v16 a, v16 b)
{
    return V16_BOTH(_mm256_mul_ps, a, b);
}

V16_INLINE v16 v16_div(v16 a, v16 b)
{
    return V16_BOTH(_mm256_div_ps, a, b);
}

/* a * b + c, rounded once. */
V16_INLINE v16 v16_fma(v16 a, v16 b, v16 c)
{
    return (v16){_mm256_fmadd_ps(a.low, b.low, c.low), _mm256_fmadd_ps(a.high, b.high, c.high)};
}

/* b where either is NaN. */
V16_INLINE v16 v16_max(v16 a, v16 b)
{
    return V16_BOTH(_mm256_max_ps, a, b);
}

V16_INLINE v16 v16_min(v16 a, v16 b)
{
    return V16_BOTH(_mm256_min_ps, a, b);
}

V16_INLINE __m256 v8_sign(void)
{
    return _mm256_castsi256_ps(_mm256_set1_epi32((int)0x80000000u));
}

V16_INLINE v16 v16_abs(v16 a)
{
    return (v16){_mm256_andnot_ps(v8_sign(), a.low), _mm256_andnot_ps(v8_sign(), a.high)};
}

/* |a| with the sign of s. */
V16_INLINE v16 v16_copysign(v16 a, v16 s)
{
    v16 sign = {_mm256_and_ps(v8_sign(), s.low), _mm256_and_ps(v8_sign(), s.high)};
    v16 size = v16_abs(a);

    return V16_BOTH(_mm256_or_ps, sign, size);
}

/* a < b ? yes : no. */
V16_INLINE v16 v16_if_less(v16 a, v16 b, v16 yes, v16 no)
{
    return (v16){_mm256_blendv_ps(no.low, yes.low, _mm256_cmp_ps(a.low, b.low, _CMP_LT_OQ)),
                 _mm256_blendv_ps(no.high, yes.high, _mm256_cmp_ps(a.high, b.high, _CMP_LT_OQ))};
}

/* Bit i: a[i] == b[i]. */
V16_INLINE uint32_t v16_equal(v16 a, v16 b)
{
    uint32_t low = (uint32_t)_mm256_movemask_ps(_mm256_cmp_ps(a.low, b.low, _CMP_EQ_OQ));
    uint32_t high = (uint32_t)_mm256_movemask_ps(_mm256_cmp_ps(a.high, b.high, _CMP_EQ_OQ));

    return low | high << 8;
}

/* To the nearest whole number, ties to even. */
V16_INLINE v16 v16_round(v16 a)
{
    return (v16){_mm256_round_ps(a.low, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC),
                 _mm256_round_ps(a.high, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
}

/* 2^n by its exponent bits. */
V16_INLINE __m256 v8_pow2(__m256 n)
{
    __m256i biased = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));

    return _mm256_castsi256_ps(_mm256_slli_epi32(biased, 23));
}

/* a * 2^n for whole -126 <= n <= 127, where the result is normal. */
V16_INLINE v16 v16_scale(v16 a, v16 n)
{
    v16 power = {v8_pow2(n.low), v8_pow2(n.high)};

    return v16_mul(a, power);
}

/* Lane j + lane j + 8: the first step of the tree. */
V16_INLINE __m256 v16_fold(v16 a)
{
    return _mm256_add_ps(a.low, a.high);
}

V16_INLINE float v16_first_lane(v16 a)
{
    return _mm256_cvtss_f32(a.low);
}

V16_INLINE float v16_greatest(v16 a)
{
    __m256 v8 = _mm256_max_ps(a.low, a.high);
    __m128 v4 = _mm_max_ps(_mm256_castps256_ps128(v8), _mm256_extractf128_ps(v8, 1));
    __m128 v2 = _mm_max_ps(v4, _mm_movehl_ps(v4, v4));

    return _mm_cvtss_f32(_mm_max_ss(v2, _mm_shuffle_ps(v2, v2, 1)));
}

/* ---- weights: 16 elements of a stored row ---- */

V16_INLINE v16 v16_from_f16(const uint8_t *p)
{
    return (v16){_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p)),
                 _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(p + 16)))};
}

V16_INLINE __m256 v8_from_bf16(const uint8_t *p)
{
    __m256i bits = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)p));

    return _mm256_castsi256_ps(_mm256_slli_epi32(bits, 16));
}

V16_INLINE v16 v16_from_bf16(const uint8_t *p)
{
    return (v16){v8_from_bf16(p), v8_from_bf16(p + 16)};
}

V16_INLINE v16 v16_from_i8(const uint8_t *p)
{
    return (v16){
        _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)p))),
        _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)(p + 8))))};
}

V16_INLINE v16 v16_from_u8(const uint8_t *p)
{
    return (v16){
        _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)p))),
        _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(p + 8))))};
}

/* 16 values that 4-bit codes stand for; of int4 the scale (low) and the zero point (high). */
typedef v16 v16_table;

/*
 * Lanes in the order that codes are read in, and back: sums of products take their other factor in
 * that order, rearranged beforehand where it differs. Here the order is that of the elements.
 */
enum { CODES_IN_ORDER = 1 };

V16_INLINE v16 v16_to_codes(v16 v)
{
    return v;
}

V16_INLINE v16 v16_of_codes(v16 v)
{
    return v;
}

V16_INLINE v16_table v16_table_scaled(v16 values, float scale)
{
    return v16_mul(values, v16_set1(scale));
}

V16_INLINE v16_table v16_table_int4(float scale, float zero)
{
    return (v16){_mm256_set1_ps(scale), _mm256_set1_ps(zero)};
}

/* 4 bytes as 8 codes in the low bits, with others above them. */
V16_INLINE __m256i v8_codes(const uint8_t *p, __m256i shift)
{
    int32_t bytes;

    __builtin_memcpy(&bytes, p, 4);
    return _mm256_srlv_epi32(_mm256_set1_epi32(bytes), shift);
}

/* Bit 3 of the code chooses the half of the table. */
V16_INLINE __m256 v8_look_up(__m256i codes, v16_table table)
{
    return _mm256_blendv_ps(_mm256_permutevar8x32_ps(table.low, codes),
                            _mm256_permutevar8x32_ps(table.high, codes),
                            _mm256_castsi256_ps(_mm256_slli_epi32(codes, 28)));
}

/* 8 bytes, element 2j in the high half of byte j. */
V16_INLINE v16 v16_from_table(const uint8_t *p, v16_table table)
{
    const __m256i shift = _mm256_setr_epi32(4, 0, 12, 8, 20, 16, 28, 24);

    return (v16){v8_look_up(v8_codes(p, shift), table), v8_look_up(v8_codes(p + 4, shift), table)};
}

/* (code - zero) * scale costs less than a table of two registers. */
V16_INLINE __m256 v8_int4(__m256i codes, v16_table table)
{
    __m256 code = _mm256_cvtepi32_ps(_mm256_and_si256(codes, _mm256_set1_epi32(15)));

    return _mm256_mul_ps(_mm256_sub_ps(code, table.high), table.low);
}

/* 8 bytes, element 2j in the low half of byte j. */
V16_INLINE v16 v16_from_int4(const uint8_t *p, v16_table table)
{
    const __m256i shift = _mm256_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28);

    return (v16){v8_int4(v8_codes(p, shift), table), v8_int4(v8_codes(p + 4, shift), table)};
}

/* ---- one register, for tiles: the lanes do not meet, so their number changes no bit ---- */

typedef __m256 vreg;

enum { VREG_LANES = 8 };

V16_INLINE vreg vreg_zero(void)
{
    return _mm256_setzero_ps();
}

V16_INLINE vreg vreg_set1(float x)
{
    return _mm256_set1_ps(x);
}

V16_INLINE vreg vreg_load(const float *p)
{
    return _mm256_loadu_ps(p);
}

/* The first n lanes, 0 < n <= VREG_LANES. */
V16_INLINE vreg vreg_load_n(const float *p, int64_t n)
{
    return _mm256_maskload_ps(p, v8_first(n));
}

V16_INLINE void vreg_store(float *p, vreg v)
{
    _mm256_storeu_ps(p, v);
}

V16_INLINE void vreg_store_n(float *p, vreg v, int64_t n)
{
    _mm256_maskstore_ps(p, v8_first(n), v);
}

V16_INLINE vreg vreg_mul(vreg a, vreg b)
{
    return _mm256_mul_ps(a, b);
}

V16_INLINE vreg vreg_fma(vreg a, vreg b, vreg c)
{
    return _mm256_fmadd_ps(a, b, c);
}

/* Keeps compilers from folding one load into each of its uses: loads are what limits the tiles. */
V16_INLINE vreg vreg_keep(vreg v)
{
    __asm__("" : "+x"(v));
    return v;
}

#endif
