/*
 * nf4 and fp4: 4-bit codes into a table of 16 values, in flat blocks, as bitsandbytes stores them.
 *
 *   part 0   NAME.weight        [ceil(n / 2), 1]      U8, element 2j in the high half of byte j
 *   part 1   NAME.weight.absmax [ceil(n / block)]     F32 scale of the block; U8 where nested
 *   part 2, 3                                         what decodes nested scales: format_nested.c
 *
 * n = rows * cols: blocks run across the ends of rows, the last may be short, and the
 * low half after an odd n holds the code of zero.
 *
 *   code = that of the number of thresholds strictly below w * (1 / absmax)
 *   w    = table[code] * absmax                           every step rounded to f32
 *
 * Round to nearest takes the greatest magnitude of the block as absmax. The search tries a
 * grid of scales around it and keeps the one with the least squared error of the block. (Of nested
 * formats too: the scales are chosen before they are nested.)
 *
 * A block whose 1 / absmax is beyond f32 (zeros, and magnitudes below 2.9e-39) has the code of zero
 * throughout.
 */
#include "quant/format_parts.h"

#include <string.h>

#include "core/status.h"
#include "quant/format_block.h"

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

/* Bit 3 is the sign; code 8 is zero too. */
const float mmqi_fp4_table[16] = {
    0.0f,
    0.0052083334885537624f,
    0.6666666865348816f,
    1.0f,
    0.3333333432674408f,
    0.5f,
    0.1666666716337204f,
    0.25f,
    0.0f,
    -0.0052083334885537624f,
    -0.6666666865348816f,
    -1.0f,
    -0.3333333432674408f,
    -0.5f,
    -0.1666666716337204f,
    -0.25f,
};

const struct mmqi_table4 mmqi_nf4_coding = {
    .table = mmqi_nf4_table,
    .threshold = {-0.8480964004993439f, -0.6106329262256622f, -0.4599952697753906f,
                  -0.33967943489551544f, -0.23460740596055984f, -0.13791173323988914f,
                  -0.045525018125772476f, 0.03979014977812767f, 0.1202552504837513f,
                  0.2035212516784668f, 0.2920137718319893f, 0.3893125355243683f,
                  0.5016634166240692f, 0.6427869200706482f, 0.8614784181118011f},
    .code = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15},
    .zero = 7,
};

const struct mmqi_table4 mmqi_fp4_coding = {
    .table = mmqi_fp4_table,
    .threshold = {-0.8333333730697632f, -0.5833333730697632f, -0.4166666865348816f,
                  -0.2916666865348816f, -0.2083333432674408f, -0.0859375f, -0.0026041667442768812f,
                  0.0f, 0.0026041667442768812f, 0.0859375f, 0.2083333432674408f,
                  0.2916666865348816f, 0.4166666865348816f, 0.5833333730697632f,
                  0.8333333730697632f},
    .code = {11, 10, 13, 12, 15, 14, 9, 0, 8, 1, 6, 7, 4, 5, 2, 3},
    .zero = 0,
};

/* ---- layout ---- */

static int64_t count_blocks(int64_t count, int64_t block)
{
    return count / block + (count % block != 0);
}

static int32_t layout_blocks(struct mmqi_layout *layout, int64_t rows, int64_t cols, int64_t block,
                             bool nested)
{
    int64_t count, blocks;
    int32_t status;

    memset(layout, 0, sizeof *layout);
    status = mmqi_layout_count(&count, rows, cols);
    if (status == MMQ_OK)
        status = mmqi_layout_add(layout, "", MMQI_U8, count / 2 + count % 2, 1);
    if (status != MMQ_OK)
        return status;
    blocks = count_blocks(count, block);
    if (!nested)
        return mmqi_layout_add(layout, ".absmax", MMQI_F32, blocks, -1);
    status = mmqi_layout_add(layout, ".absmax", MMQI_U8, blocks, -1);
    if (status == MMQ_OK)
        status = mmqi_layout_add(layout, ".nested_absmax", MMQI_F32,
                                 count_blocks(blocks, MMQI_NESTED_BLOCK), -1);
    if (status == MMQ_OK)
        status = mmqi_layout_add(layout, NULL, MMQI_F32, 1, -1);
    return status;
}

/* block / gcd(block, cols): block is a power of two, so the gcd is cols' lowest set bit. */
static int64_t step_of_blocks(int64_t cols, int64_t block)
{
    int64_t low = cols & -cols;

    return low == 0 || low >= block ? 1 : block / low;
}

/* ---- packing ---- */

/* `n` <= block elements; returns the block's scale. */
static float pack_block(uint8_t *codes, const float *w, int64_t n, int64_t block, int32_t method,
                        const struct mmqi_coding *coding)
{
    float padded[MMQI_MAX_BLOCK] = {
        0}; /* zeros become the code of zero, as the padding half must */
    uint8_t bytes[MMQI_MAX_BLOCK / 2];
    float absmax;

    if (n < block) {
        memcpy(padded, w, (size_t)n * sizeof *w);
        w = padded;
    }
    absmax = mmqi_table4_pack(bytes, w, block, method, coding);
    memcpy(codes, bytes, (size_t)(n / 2 + n % 2));
    return absmax;
}

static void pack_blocks(uint8_t *const part[], const float *w, int64_t rows, int64_t cols,
                        int32_t method, int64_t block, const struct mmqi_table4 *table)
{
    int64_t count = rows * cols;
    struct mmqi_coding coding;

    mmqi_coding_make(&coding, table);
    for (int64_t begin = 0; begin < count; begin += block) {
        int64_t n = count - begin < block ? count - begin : block;
        float absmax = pack_block(part[0] + begin / 2, w + begin, n, block, method, &coding);

        memcpy(part[1] + begin / block * 4, &absmax, sizeof absmax);
    }
}

/* ---- unpacking ---- */

static void unpack_blocks(float *w, const uint8_t *const part[], int64_t begin, int64_t n,
                          int64_t block, bool nested, const float *table)
{
    int64_t end = begin + n;

    while (begin < end) {
        int64_t at = begin / block;
        int64_t stop = (at + 1) * block < end ? (at + 1) * block : end;
        float absmax;

        if (nested)
            absmax = mmqi_nested_absmax(part, at);
        else
            memcpy(&absmax, part[1] + 4 * at, sizeof absmax);
        for (; begin < stop; begin++) {
            uint8_t byte = part[0][begin / 2];

            *w++ = table[begin % 2 ? byte & 15 : byte >> 4] * absmax;
        }
    }
}

/* ---- the formats ---- */

#define FORMATS(X)                                                                                 \
    X(NF4, nf4, "nf4", 64, false)                                                                  \
    X(NF4_32, nf4, "nf4-32", 32, false)                                                            \
    X(NF4_128, nf4, "nf4-128", 128, false)                                                         \
    X(NF4_NESTED, nf4, "nf4-nested", 64, true)                                                     \
    X(NF4_32_NESTED, nf4, "nf4-32-nested", 32, true)                                               \
    X(NF4_128_NESTED, nf4, "nf4-128-nested", 128, true)                                            \
    X(FP4, fp4, "fp4", 64, false)                                                                  \
    X(FP4_32, fp4, "fp4-32", 32, false)                                                            \
    X(FP4_128, fp4, "fp4-128", 128, false)                                                         \
    X(FP4_NESTED, fp4, "fp4-nested", 64, true)                                                     \
    X(FP4_32_NESTED, fp4, "fp4-32-nested", 32, true)                                               \
    X(FP4_128_NESTED, fp4, "fp4-128-nested", 128, true)

#define FUNCTIONS(ID, table4, text, size, is_nested)                                               \
    static int32_t layout_##ID(struct mmqi_layout *layout, int64_t rows, int64_t cols)             \
    {                                                                                              \
        return layout_blocks(layout, rows, cols, size, is_nested);                                 \
    }                                                                                              \
    static int64_t row_step_##ID(int64_t cols)                                                     \
    {                                                                                              \
        return step_of_blocks(cols, size);                                                         \
    }                                                                                              \
    static void pack_##ID(uint8_t *const part[], const float *w, int64_t rows, int64_t cols,       \
                          int32_t method)                                                          \
    {                                                                                              \
        pack_blocks(part, w, rows, cols, method, size, &mmqi_##table4##_coding);                   \
    }                                                                                              \
    static void unpack_##ID(float *w, const uint8_t *const part[], int64_t rows, int64_t cols,     \
                            int64_t begin, int64_t n)                                              \
    {                                                                                              \
        (void)rows;                                                                                \
        (void)cols;                                                                                \
        unpack_blocks(w, part, begin, n, size, is_nested, mmqi_##table4##_table);                  \
    }
FORMATS(FUNCTIONS)

#define INFO(ID, table4, text, size, is_nested)                                                    \
    {                                                                                              \
        .name = text,                                                                              \
        .format = MMQI_FORMAT_##ID,                                                                \
        .kind = MMQI_KIND_TABLE4,                                                                  \
        .dtype = MMQI_U8,                                                                          \
        .block = size,                                                                             \
        .nested = is_nested,                                                                       \
        .table = mmqi_##table4##_table,                                                            \
        .coding = &mmqi_##table4##_coding,                                                         \
        .layout = layout_##ID,                                                                     \
        .row_step = row_step_##ID,                                                                 \
        .pack = pack_##ID,                                                                         \
        .unpack = unpack_##ID,                                                                     \
        .nest = is_nested ? mmqi_nest : NULL,                                                      \
    },
const struct mmqi_format_info mmqi_formats_table4[12] = {FORMATS(INFO)};
