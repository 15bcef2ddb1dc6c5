/*
 * nf4, 4-bit normal floats in flat blocks of 64, as bitsandbytes stores them.
 *
 *   part 0   NAME.weight        [ceil(n / 2), 1]  U8, element 2j in the high half of byte j
 *   part 1   NAME.weight.absmax [ceil(n / 64)]    F32 greatest magnitude of the block
 *
 * n = rows * cols: blocks run across the ends of rows, the last may be short, and the
 * low half after an odd n holds the code of zero.
 *
 *   code = number of thresholds strictly below clamp(w * (1 / absmax), -1, 1)
 *   w    = table[code] * absmax                           every step rounded to f32
 *
 * A block whose 1 / absmax is beyond f32 (zeros, and magnitudes below 2.9e-39) has the code of zero
 * throughout.
 */
#include "quant/format_parts.h"

#include <float.h>
#include <math.h>
#include <string.h>

#include "core/dtype.h"
#include "core/status.h"

enum { BLOCK = 64, ZERO_CODE = 7 };

const float mmqi_nf4_table[16] = {
    -1.0f,
    -0.6961928009986877f,
    -0.5250730514526367f,
    -0.39491748809814453f,
    -0.28444138169288635f,
    -0.18477343022823334f,
    -0.09105003625154495f,
    0.0f,
    0.07958029955625534f,
    0.16093020141124725f,
    0.24611230194568634f,
    0.33791524171829224f,
    0.44070982933044434f,
    0.5626170039176941f,
    0.7229568362236023f,
    1.0f,
};

static const float thresholds[15] = {
    -0.8480964004993439f,  -0.6106329262256622f,  -0.4599952697753906f,   -0.33967943489551544f,
    -0.23460740596055984f, -0.13791173323988914f, -0.045525018125772476f, 0.03979014977812767f,
    0.1202552504837513f,   0.2035212516784668f,   0.2920137718319893f,    0.3893125355243683f,
    0.5016634166240692f,   0.6427869200706482f,   0.8614784181118011f,
};

static int32_t nf4_layout(struct mmqi_layout *layout, int64_t rows, int64_t cols)
{
    int64_t count;
    int32_t status;

    memset(layout, 0, sizeof *layout);
    status = mmqi_layout_count(&count, rows, cols);
    if (status == MMQ_OK)
        status = mmqi_layout_add(layout, "", MMQI_U8, count / 2 + count % 2, 1);
    if (status == MMQ_OK)
        status =
            mmqi_layout_add(layout, ".absmax", MMQI_F32, count / BLOCK + (count % BLOCK != 0), -1);
    return status;
}

/* BLOCK / gcd(BLOCK, cols): BLOCK is a power of two, so the gcd is cols' lowest set bit. */
static int64_t nf4_row_step(int64_t cols)
{
    int64_t low = cols & -cols;

    return low == 0 || low >= BLOCK ? 1 : BLOCK / low;
}

/* Codes of a whole block. The loops have fixed counts, so they become vector compares. */
static void encode_block(uint8_t *bytes, const float w[BLOCK], float inverse)
{
    float s[BLOCK];
    int32_t code[BLOCK] = {0};

    for (int i = 0; i < BLOCK; i++) {
        float x = w[i] * inverse;

        x = x > 1.0f ? 1.0f : x;
        s[i] = x < -1.0f ? -1.0f : x;
    }
    for (int t = 0; t < 15; t++)
        for (int i = 0; i < BLOCK; i++)
            code[i] += s[i] > thresholds[t];
    for (int i = 0; i < BLOCK / 2; i++)
        bytes[i] = (uint8_t)(code[2 * i] << 4 | code[2 * i + 1]);
}

/* `n` <= BLOCK elements; returns the block's absmax. */
static float pack_block(uint8_t *codes, const float *w, int64_t n)
{
    float absmax = 0.0f, inverse;
    float padded[BLOCK] = {0}; /* zeros encode as ZERO_CODE, as the padding half must */
    uint8_t bytes[BLOCK / 2];

    memcpy(padded, w, (size_t)n * sizeof *w);
    for (int i = 0; i < BLOCK; i++) {
        float magnitude = fabsf(padded[i]);

        absmax = magnitude > absmax ? magnitude : absmax;
    }
    inverse = 1.0f / absmax;
    if (inverse <= FLT_MAX)
        encode_block(bytes, padded, inverse);
    else
        memset(bytes, ZERO_CODE << 4 | ZERO_CODE, sizeof bytes);
    memcpy(codes, bytes, (size_t)(n / 2 + n % 2));
    return absmax;
}

static void nf4_pack(uint8_t *const part[], const float *w, int64_t rows, int64_t cols)
{
    int64_t count = rows * cols;

    for (int64_t begin = 0; begin < count; begin += BLOCK) {
        int64_t n = count - begin < BLOCK ? count - begin : BLOCK;
        float absmax = pack_block(part[0] + begin / 2, w + begin, n);

        memcpy(part[1] + begin / BLOCK * 4, &absmax, sizeof absmax);
    }
}

static void nf4_unpack(float *w, const uint8_t *const part[], int64_t rows, int64_t cols,
                       int64_t begin, int64_t n)
{
    int64_t end = begin + n;

    (void)rows;
    (void)cols;
    while (begin < end) {
        int64_t block = begin / BLOCK;
        int64_t stop = (block + 1) * BLOCK < end ? (block + 1) * BLOCK : end;
        float absmax;

        memcpy(&absmax, part[1] + 4 * block, sizeof absmax);
        for (; begin < stop; begin++) {
            uint8_t byte = part[0][begin / 2];

            *w++ = mmqi_nf4_table[begin % 2 ? byte & 15 : byte >> 4] * absmax;
        }
    }
}

const struct mmqi_format_info mmqi_format_nf4_info = {
    .name = "nf4",
    .format = MMQI_FORMAT_NF4,
    .dtype = MMQI_U8,
    .layout = nf4_layout,
    .row_step = nf4_row_step,
    .pack = nf4_pack,
    .unpack = nf4_unpack,
};
