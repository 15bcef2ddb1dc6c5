/*
 * The kernels in AVX-512 (F, BW, VL, DQ).
 */
#if defined(__x86_64__)

#include "cpu/x86/v16_avx512.h"

#include "cpu/x86/math16.h"

/* Registers set the tiles: 3 x 8 sums, 3 rows of x and a weight of 32. */
enum { TILE_ROWS = 3, ATTEND_ROWS = 6, ATTEND_VECTORS = 4, DOT_ROWS_OF_2 = 4 };
#define DOT_ROWS(as) 4

/* A panel is [steps, 8, 16]. */
V16_INLINE void panel_store(float *panel, int64_t steps, int64_t row, int64_t step, v16 v)
{
    (void)steps;
    v16_store(panel + (step * 8 + row) * 16, v);
}

/* One step of 16 columns for n_x rows. */
V16_INLINE void tile_step(v16 acc[TILE_ROWS][8], const v16 in[TILE_ROWS], const float *panel,
                          const int32_t n_x)
{
    v16 w;

    V16_EACH(i, 8)
    {
        w = vreg_keep(v16_load(panel + i * 16));
        V16_EACH(j, n_x) acc[j][i] = v16_fma(in[j], w, acc[j][i]);
    }
}

/* sums[j][i]: the 16-lane sum of row j of x with panel row i. */
V16_INLINE void tile_sums(__m256 *sums, const float *x, int64_t stride, const float *panel,
                          int64_t cols, const int32_t n_x)
{
    v16 acc[TILE_ROWS][8], in[TILE_ROWS];
    int64_t k = 0;

    V16_EACH(j, n_x) V16_EACH(i, 8) acc[j][i] = v16_zero();
    for (; k + 16 <= cols; k += 16, panel += 8 * 16) {
        V16_EACH(j, n_x) in[j] = v16_load(x + j * stride + k);
        tile_step(acc, in, panel, n_x);
    }
    if (k < cols) {
        V16_EACH(j, n_x) in[j] = v16_load_n(x + j * stride + k, cols - k);
        tile_step(acc, in, panel, n_x);
    }
    V16_EACH(j, n_x)
    sums[j] = _mm256_set_m128(
        tree4(v16_fold(acc[j][4]), v16_fold(acc[j][5]), v16_fold(acc[j][6]), v16_fold(acc[j][7])),
        tree4(v16_fold(acc[j][0]), v16_fold(acc[j][1]), v16_fold(acc[j][2]), v16_fold(acc[j][3])));
}

#include "cpu/x86/attention16.h"
#include "cpu/x86/matmul16.h"
#include "cpu/x86/rows16.h"

const struct mmqi_cpu_kernels mmqi_cpu_kernels_avx512 = {
    .name = "avx512",
    .isa = MMQI_ISA_AVX512,
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
