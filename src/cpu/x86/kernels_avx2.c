/*
 * The kernels in AVX2 with FMA and F16C.
 */
#if defined(__x86_64__)

#include "cpu/x86/v16_avx2.h"

#include "cpu/x86/math16.h"

/* Registers set the tiles: 3 x 4 half sums, 3 halves of x and one of a weight are 16. */
enum { TILE_ROWS = 3, ATTEND_ROWS = 3, ATTEND_VECTORS = 2, DOT_ROWS_OF_2 = 2 };
#define DOT_ROWS(format) ((format) == MMQI_FORMAT_NF4 ? 2 : 4)

/* A panel is [2 halves of the lanes, 2 halves of the rows, steps, 4, 8]: each pass reads on. */
V16_INLINE void panel_store(float *panel, int64_t steps, int64_t row, int64_t step, v16 v)
{
    float *to = panel + (row / 4 * steps + step) * 32 + row % 4 * 8;

    _mm256_storeu_ps(to, v.low);
    _mm256_storeu_ps(to + 2 * steps * 32, v.high);
}

/* Lanes [half, half + 8) of 3 x 4 sums; panel [steps, 4, 8]. */
V16_INLINE void half_tile(__m256 acc[TILE_ROWS][4], const float *x, int64_t stride,
                          const float *panel, int64_t cols, int64_t half, const int32_t n_x)
{
    __m256 in[TILE_ROWS], w;

    for (int32_t j = 0; j < n_x; j++)
        for (int32_t i = 0; i < 4; i++)
            acc[j][i] = _mm256_setzero_ps();
    for (int64_t k = 0; k < cols; k += 16, panel += 32) {
        for (int32_t j = 0; j < n_x; j++)
            in[j] = cols - k >= 16
                        ? _mm256_loadu_ps(x + j * stride + k + half)
                        : _mm256_maskload_ps(x + j * stride + k + half, v8_first(cols - k - half));
#pragma GCC unroll 4
        for (int32_t i = 0; i < 4; i++) {
            w = _mm256_loadu_ps(panel + i * 8);
            for (int32_t j = 0; j < n_x; j++)
                acc[j][i] = _mm256_fmadd_ps(in[j], w, acc[j][i]);
        }
    }
}

/* sums[j][i]: the 16-lane sum of row j of x with panel row i. */
V16_INLINE void tile_sums(__m256 *sums, const float *x, int64_t stride, const float *panel,
                          int64_t cols, const int32_t n_x)
{
    int64_t quarter = (cols + 15) / 16 * 32;
    __m256 low[TILE_ROWS][4], high[TILE_ROWS][4];
    __m128 four[2][TILE_ROWS];

    for (int32_t rows = 0; rows < 2; rows++) {
        half_tile(low, x, stride, panel + rows * quarter, cols, 0, n_x);
        half_tile(high, x, stride, panel + (2 + rows) * quarter, cols, 8, n_x);
        for (int32_t j = 0; j < n_x; j++)
            four[rows][j] =
                tree4(_mm256_add_ps(low[j][0], high[j][0]), _mm256_add_ps(low[j][1], high[j][1]),
                      _mm256_add_ps(low[j][2], high[j][2]), _mm256_add_ps(low[j][3], high[j][3]));
    }
    for (int32_t j = 0; j < n_x; j++)
        sums[j] = _mm256_set_m128(four[1][j], four[0][j]);
}

#include "cpu/x86/attention16.h"
#include "cpu/x86/matmul16.h"
#include "cpu/x86/rows16.h"

const struct mmqi_cpu_kernels mmqi_cpu_kernels_avx2 = {
    .name = "avx2",
    .isa = MMQI_ISA_AVX2,
    .add = add_row,
    .layer_norm = layer_norm_row,
    .rms_norm = rms_norm_row,
    .activate = activate_row,
    .gate = gate_row,
    .rotate = rotate_head,
    .matmul = matmul_rows,
    .attention = attention_rows,
    .pick = pick_row,
};

#else
typedef int not_for_this_machine;
#endif
