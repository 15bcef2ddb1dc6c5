/*
 * The plain formats: f32, f16 and bf16 numbers, row after row.
 *
 *   part 0   NAME.weight [rows, cols]
 *
 * f16 and bf16 round to nearest even, by either method; a number beyond f16's range becomes Inf.
 */
#include "quant/format_parts.h"

#include <string.h>

#include "core/dtype.h"
#include "core/status.h"

static int32_t plain_layout(struct mmqi_layout *layout, int32_t dtype, int64_t rows, int64_t cols)
{
    int64_t count;
    int32_t status;

    memset(layout, 0, sizeof *layout);
    status = mmqi_layout_count(&count, rows, cols);
    if (status != MMQ_OK)
        return status;
    return mmqi_layout_add(layout, "", dtype, rows, cols);
}

static int64_t plain_row_step(int64_t cols)
{
    (void)cols;
    return 1;
}

static int32_t f32_layout(struct mmqi_layout *layout, int64_t rows, int64_t cols)
{
    return plain_layout(layout, MMQI_F32, rows, cols);
}

static int32_t f16_layout(struct mmqi_layout *layout, int64_t rows, int64_t cols)
{
    return plain_layout(layout, MMQI_F16, rows, cols);
}

static int32_t bf16_layout(struct mmqi_layout *layout, int64_t rows, int64_t cols)
{
    return plain_layout(layout, MMQI_BF16, rows, cols);
}

static void f32_pack(uint8_t *const part[], const float *w, int64_t rows, int64_t cols,
                     int32_t method)
{
    (void)method;
    memcpy(part[0], w, (size_t)(rows * cols) * sizeof *w);
}

static void f16_pack(uint8_t *const part[], const float *w, int64_t rows, int64_t cols,
                     int32_t method)
{
    (void)method;
    for (int64_t i = 0; i < rows * cols; i++) {
        uint16_t bits = mmqi_f16_from_f32(w[i]);

        memcpy(part[0] + 2 * i, &bits, sizeof bits);
    }
}

static void bf16_pack(uint8_t *const part[], const float *w, int64_t rows, int64_t cols,
                      int32_t method)
{
    (void)method;
    for (int64_t i = 0; i < rows * cols; i++) {
        uint16_t bits = mmqi_bf16_from_f32(w[i]);

        memcpy(part[0] + 2 * i, &bits, sizeof bits);
    }
}

static void f32_unpack(float *w, const uint8_t *const part[], int64_t rows, int64_t cols,
                       int64_t begin, int64_t n)
{
    (void)rows;
    (void)cols;
    memcpy(w, part[0] + 4 * begin, (size_t)n * sizeof *w);
}

static void f16_unpack(float *w, const uint8_t *const part[], int64_t rows, int64_t cols,
                       int64_t begin, int64_t n)
{
    (void)rows;
    (void)cols;
    mmqi_to_f32(w, part[0] + 2 * begin, MMQI_F16, (size_t)n);
}

static void bf16_unpack(float *w, const uint8_t *const part[], int64_t rows, int64_t cols,
                        int64_t begin, int64_t n)
{
    (void)rows;
    (void)cols;
    mmqi_to_f32(w, part[0] + 2 * begin, MMQI_BF16, (size_t)n);
}

#define PLAIN(ID, id)                                                                              \
    {                                                                                              \
        .name = #id, .format = MMQI_FORMAT_##ID, .kind = MMQI_KIND_FLOAT, .is_float = true,        \
        .dtype = MMQI_##ID, .layout = id##_layout, .row_step = plain_row_step, .pack = id##_pack,  \
        .unpack = id##_unpack,                                                                     \
    }

const struct mmqi_format_info mmqi_formats_plain[3] = {
    PLAIN(F32, f32),
    PLAIN(F16, f16),
    PLAIN(BF16, bf16),
};
