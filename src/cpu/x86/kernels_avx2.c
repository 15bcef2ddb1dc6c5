/*
 * The kernels in AVX2 with FMA and F16C.
 */
#if defined(__x86_64__)

#include "cpu/x86/v16_avx2.h"

#include "cpu/x86/math16.h"

/* Registers set the tiles: 3 x 4 half sums, 3 halves of x and one of a weight are 16. */
enum { TILE_ROWS = 3, ATTEND_ROWS = 3, ATTEND_VECTORS = 4, DOT_ROWS_OF_2 = 2 };
#define DOT_ROWS(as) (has_blocks(as) ? 2 : 4) /* a table takes two registers */

/* A panel is [2 halves of the lanes, 2 halves of the rows, steps, 4, 8]: each pass reads on. */
V16_INLINE void panel_store(float *panel, int64_t steps, int64_t row, int64_t step, v16 v)
{
    float *to = panel + (row / 4 * steps + step) * 32 + row % 4 * 8;

    _mm256_storeu_ps(to, v.low);
    _mm256_storeu_ps(to + 2 * steps * 32, v.high);
}

/* One step of 8 lanes for n_x rows. */
V16_INLINE void half_step(__m256 acc[TILE_ROWS][4], const __m256 in[TILE_ROWS], const float *panel,
                          const int32_t n_x)
{
    __m256 w;

    V16_EACH(i, 4)
    {
        w = vreg_keep(_mm256_loadu_ps(panel + i * 8));
        V16_EACH(j, n_x) acc[j][i] = _mm256_fmadd_ps(in[j], w, acc[j][i]);
    }
}

/* Lanes [half, half + 8) of 3 x 4 sums; x begins at lane `half`; panel [steps, 4, 8]. */
V16_INLINE void half_tile(__m256 acc[TILE_ROWS][4], const float *x, int64_t stride,
                          const float *panel, int64_t cols, int64_t half, const int32_t n_x)
{
    __m256 in[TILE_ROWS];
    int64_t k = 0;

    V16_EACH(j, n_x) V16_EACH(i, 4) acc[j][i] = _mm256_setzero_ps();
    for (; k + 16 <= cols; k += 16, panel += 32) {
        V16_EACH(j, n_x) in[j] = _mm256_loadu_ps(x + j * stride + k);
        half_step(acc, in, panel, n_x);
    }
    if (k < cols) {
        V16_EACH(j, n_x)
        in[j] = _mm256_maskload_ps(x + j * stride + k, v8_first(cols - k - half));
        half_step(acc, in, panel, n_x);
    }
}

/* sums[j][i]: the 16-lane sum of row j of x with panel row i. */
V16_INLINE void tile_sums(__m256 *sums, const float *x, int64_t stride, const float *panel,
                          int64_t cols, const int32_t n_x)
{
    int64_t quarter = (cols + 15) / 16 * 32;
    __m256 acc[TILE_ROWS][4], low[TILE_ROWS][4];
    __m128 four[2][TILE_ROWS];

    V16_EACH(rows, 2)
    {
        half_tile(low, x, stride, panel + rows * quarter, cols, 0, n_x);
        half_tile(acc, x + 8, stride, panel + (2 + rows) * quarter, cols, 8, n_x);
        V16_EACH(j, n_x)
        {
            V16_EACH(i, 4) acc[j][i] = _mm256_add_ps(low[j][i], acc[j][i]);
            four[rows][j] = tree4(acc[j][0], acc[j][1], acc[j][2], acc[j][3]);
        }
    }
    V16_EACH(j, n_x) sums[j] = _mm256_set_m128(four[1][j], four[0][j]);
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
