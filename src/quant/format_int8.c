/*
 * int8, one scale per row, as LLM.int8 stores it (bitsandbytes).
 *
 *   part 0   NAME.weight [rows, cols]  I8 codes in -127..127
 *   part 1   NAME.SCB    [rows]        F32 greatest magnitude of the row
 *
 *   q = round to nearest even(w * (127 * (1 / absmax)))    every step rounded to f32
 *   w = q * (absmax / 127)                                 the division first
 *
 * A row whose 127 / absmax is beyond f32 (all below 3.8e-37, zeros too) has the codes 0.
 *
 * Both methods make the same bytes: with 127 steps a smaller scale gains next to nothing over the
 * width of a row, and only absmax / 127 is what other readers of SCB expect to see.
 */
#include "quant/format_parts.h"

#include <math.h>
#include <string.h>

#include "core/dtype.h"
#include "core/status.h"
#include "quant/format_block.h"

static int32_t int8_layout(struct mmqi_layout *layout, int64_t rows, int64_t cols)
{
    int64_t count;
    int32_t status;

    memset(layout, 0, sizeof *layout);
    status = mmqi_layout_count(&count, rows, cols);
    if (status == MMQ_OK)
        status = mmqi_layout_add(layout, "", MMQI_I8, rows, cols);
    if (status == MMQ_OK)
        status = mmqi_layout_add(layout, "@SCB", MMQI_F32, rows, -1);
    return status;
}

static int64_t int8_row_step(int64_t cols)
{
    (void)cols;
    return 1;
}

static float pack_row(uint8_t *codes, const float *w, int64_t cols)
{
    float absmax = 0.0f, inverse;

    for (int64_t i = 0; i < cols; i++) {
        float magnitude = fabsf(w[i]);

        absmax = magnitude > absmax ? magnitude : absmax;
    }
    inverse = mmqi_int8_inverse(absmax);
    for (int64_t i = 0; i < cols; i++)
        codes[i] = mmqi_int8_code(w[i], inverse);
    return absmax;
}

static void int8_pack(uint8_t *const part[], const float *w, int64_t rows, int64_t cols,
                      int32_t method)
{
    (void)method;
    for (int64_t row = 0; row < rows; row++) {
        float absmax = pack_row(part[0] + row * cols, w + row * cols, cols);

        memcpy(part[1] + 4 * row, &absmax, sizeof absmax);
    }
}

static void int8_unpack(float *w, const uint8_t *const part[], int64_t rows, int64_t cols,
                        int64_t begin, int64_t n)
{
    int64_t end = begin + n;

    (void)rows;
    while (begin < end) {
        int64_t row = begin / cols;
        int64_t stop = (row + 1) * cols < end ? (row + 1) * cols : end;
        float scale;

        memcpy(&scale, part[1] + 4 * row, sizeof scale);
        scale /= 127.0f;
        for (; begin < stop; begin++)
            *w++ = (float)(int8_t)part[0][begin] * scale;
    }
}

const struct mmqi_format_info mmqi_format_int8_info = {
    .name = "int8",
    .format = MMQI_FORMAT_INT8,
    .kind = MMQI_KIND_INT8,
    .dtype = MMQI_I8,
    .layout = int8_layout,
    .row_step = int8_row_step,
    .pack = int8_pack,
    .unpack = int8_unpack,
};
