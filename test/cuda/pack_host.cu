// The packing kernels' work, run on the host in the kernels' order and compared with the formats'
// own packing, byte by byte: every format, method and awkward shape. Needs no GPU and no nvcc: this
// is plain C++ (pack_host.sh).
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

extern "C" {
#include "quant/format.h"
}
#include "cuda/pack_work.h"
#include "test/cuda/pack_cases.h"

static uint64_t guarded(uint64_t bytes)
{
    return bytes + 64;
}

static void run_blocks(uint8_t *const part[], const struct mmqi_format_info *info, const float *w,
                       int64_t rows, int64_t cols, int32_t method)
{
    const bool flat = info->kind == MMQI_KIND_TABLE4;
    const struct mmqi_pack_grid grid =
        mmqi_pack_grid_of(w, flat ? 1 : rows, flat ? rows * cols : cols, info->block, method);
    const struct mmqi_scale_type type = mmqi_scale_type_of(info->scale_dtype);
    float *staged = (float *)malloc(MMQI_PACK_STAGED * sizeof(float));
    struct mmqi_coding coding;

    if (flat)
        mmqi_coding_make(&coding, info->coding);
    for (int64_t first = 0; first < mmqi_pack_blocks(&grid); first += MMQI_PACK_THREADS) {
        memset(staged, 0xff, MMQI_PACK_STAGED * sizeof(float));
        for (int32_t t = 0; t < MMQI_PACK_THREADS; t++)
            mmqi_pack_stage(staged, &grid, first, t);
        for (int32_t t = 0; t < MMQI_PACK_THREADS; t++)
            if (flat)
                mmqi_pack_table4(part[0], (float *)part[1], staged, &grid, first, t, &coding);
            else
                mmqi_pack_int4(part[0], (uint16_t *)part[1], part[2], staged, &grid, first, t,
                               &type);
    }
    free(staged);
}

static void run_rows(uint8_t *const part[], const float *w, int64_t rows, int64_t cols)
{
    enum { THREADS = 256 };

    for (int64_t row = 0; row < rows; row++) {
        uint32_t most = 0;
        float absmax;

        for (int32_t t = 0; t < THREADS; t++) {
            uint32_t own = mmqi_pack_row_most(w + row * cols, cols, t, THREADS);

            most = own > most ? own : most;
        }
        absmax = mmqi_f32_from_bits(most);
        memcpy(part[1] + 4 * row, &absmax, sizeof absmax);
        for (int32_t t = 0; t < THREADS; t++)
            mmqi_pack_row_codes(part[0] + row * cols, w + row * cols, cols, absmax, t, THREADS);
    }
}

static void run_kernel(uint8_t *const part[], const struct mmqi_format_info *info, const float *w,
                       int64_t rows, int64_t cols, int32_t method)
{
    if (info->kind == MMQI_KIND_INT8) {
        run_rows(part, w, rows, cols);
    } else if (info->kind != MMQI_KIND_FLOAT) {
        run_blocks(part, info, w, rows, cols, method);
    } else if (info->dtype == MMQI_F32) {
        memcpy(part[0], w, (size_t)(rows * cols) * sizeof *w);
    } else {
        for (int64_t i = 0; i < rows * cols; i++)
            ((uint16_t *)part[0])[i] =
                info->dtype == MMQI_BF16 ? mmqi_bf16_from_f32(w[i]) : mmqi_f16_from_f32(w[i]);
    }
}

// Bytes of part i that packing writes.
static uint64_t part_bytes(const struct mmqi_format_info *info, const struct mmqi_layout *layout,
                           int32_t i)
{
    if (i >= layout->n_parts || (info->nested && i > 1))
        return 0;
    return info->nested && i == 1 ? layout->part[1].bytes * 4 : layout->part[i].bytes;
}

static int compare(const struct mmqi_format_info *info, const float *w, const struct pack_case *c,
                   int32_t method)
{
    uint8_t *want[MMQI_MAX_PARTS], *got[MMQI_MAX_PARTS];
    struct mmqi_layout layout;
    int n_bad = 0;

    if (info->layout(&layout, c->rows, c->cols) != 0)
        return 1;
    for (int32_t i = 0; i < MMQI_MAX_PARTS; i++) {
        uint64_t bytes = guarded(part_bytes(info, &layout, i));

        want[i] = (uint8_t *)memset(malloc(bytes), 0xa5, bytes);
        got[i] = (uint8_t *)memset(malloc(bytes), 0xa5, bytes);
    }
    info->pack(want, w, c->rows, c->cols, method);
    run_kernel(got, info, w, c->rows, c->cols, method);
    for (int32_t i = 0; i < MMQI_MAX_PARTS; i++) {
        uint64_t bytes = guarded(part_bytes(info, &layout, i));

        for (uint64_t k = 0; k < bytes; k++)
            if (want[i][k] != got[i][k]) {
                printf("%s, method %d, %s %d x %d: part %d, byte %llu: %02x, not %02x\n",
                       info->name, (int)method, pack_fill_name(c->fill), (int)c->rows, (int)c->cols,
                       (int)i, (unsigned long long)k, got[i][k], want[i][k]);
                n_bad++;
                break;
            }
        free(want[i]);
        free(got[i]);
    }
    return n_bad;
}

int main(void)
{
    int n = 0, n_bad = 0;

    for (int32_t i = 0; i < pack_n_cases(); i++) {
        struct pack_case c = pack_case_at(i);
        float *w = (float *)malloc((size_t)(c.rows * c.cols) * sizeof *w + 4);

        pack_fill(w, &c);
        for (int32_t format = 0; format < MMQI_N_FORMATS; format++)
            for (int32_t method = 0; method < 2; method++, n++)
                n_bad += compare(mmqi_format_info(format), w, &c, method);
        free(w);
    }
    printf("packing kernels on the host: %d comparisons, %d parts differ\n", n, n_bad);
    return n_bad > 0;
}
