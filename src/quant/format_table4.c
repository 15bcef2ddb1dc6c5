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

#include <float.h>
#include <math.h>
#include <string.h>

#include "core/status.h"

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

/* What tells nf4 from fp4 to the packer. */
struct coding {
    const float *table;
    float threshold[15]; /* ascending */
    uint8_t code[16];    /* of a number with so many thresholds below it */
    uint8_t zero;        /* code of 0 */
};

static const struct coding nf4 = {
    .table = mmqi_nf4_table,
    .threshold = {-0.8480964004993439f, -0.6106329262256622f, -0.4599952697753906f,
                  -0.33967943489551544f, -0.23460740596055984f, -0.13791173323988914f,
                  -0.045525018125772476f, 0.03979014977812767f, 0.1202552504837513f,
                  0.2035212516784668f, 0.2920137718319893f, 0.3893125355243683f,
                  0.5016634166240692f, 0.6427869200706482f, 0.8614784181118011f},
    .code = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15},
    .zero = 7,
};

static const struct coding fp4 = {
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

enum { MAX_BLOCK = 128, LANES = 4, STRIP = 4 * LANES /* elements in registers at a time */ };

typedef float f32x4 __attribute__((vector_size(16)));
typedef uint32_t u32x4 __attribute__((vector_size(16)));

#define INLINE static inline __attribute__((always_inline))

/*
 * A staircase over the thresholds: a number stands at `first` and climbs by step[t] for each
 * threshold below it. As sums of 32-bit patterns wrap, the same climb gives codes and the bits
 * of floats, exactly.
 */
struct stairs {
    u32x4 first, step[15];
};

struct packer {
    f32x4 threshold[15];
    struct stairs code, value;
    uint8_t zero;
};

INLINE f32x4 spread(float x)
{
    return (f32x4){x, x, x, x};
}

static void make_stairs(struct stairs *stairs, const uint32_t at[16])
{
    stairs->first = (u32x4){at[0], at[0], at[0], at[0]};
    for (int t = 0; t < 15; t++) {
        uint32_t step = at[t + 1] - at[t];

        stairs->step[t] = (u32x4){step, step, step, step};
    }
}

static void make_packer(struct packer *packer, const struct coding *coding)
{
    uint32_t code[16], value[16];

    for (int i = 0; i < 16; i++) {
        code[i] = coding->code[i];
        value[i] = mmqi_bits_from_f32(coding->table[coding->code[i]]);
    }
    make_stairs(&packer->code, code);
    make_stairs(&packer->value, value);
    for (int t = 0; t < 15; t++)
        packer->threshold[t] = spread(coding->threshold[t]);
    packer->zero = coding->zero;
}

/* Where the 16 numbers w * inverse stand on the stairs. */
INLINE void climb(u32x4 at[4], const float *w, float inverse, const f32x4 threshold[15],
                  const struct stairs *stairs)
{
    f32x4 x[4];

    memcpy(x, w, sizeof x);
    for (int i = 0; i < 4; i++) {
        x[i] = x[i] * spread(inverse);
        at[i] = stairs->first;
    }
    for (int t = 0; t < 15; t++)
        for (int i = 0; i < 4; i++)
            at[i] += (u32x4)(x[i] > threshold[t]) & stairs->step[t];
}

INLINE float greatest_magnitude(const float *w, int64_t n)
{
    u32x4 most[4] = {{0}}, bits[4];
    uint32_t lane[STRIP], all = 0;

    for (int64_t k = 0; k < n; k += STRIP) {
        memcpy(bits, w + k, sizeof bits);
        for (int i = 0; i < 4; i++) { /* magnitudes are in the order of their bits */
            u32x4 magnitude = bits[i] & 0x7fffffffu, more = (u32x4)(magnitude > most[i]);

            most[i] = (magnitude & more) | (most[i] & ~more);
        }
    }
    memcpy(lane, most, sizeof lane);
    for (int i = 0; i < STRIP; i++)
        all = lane[i] > all ? lane[i] : all;
    return mmqi_f32_from_bits(all);
}

/* Codes of n elements, a multiple of STRIP. */
INLINE void encode(uint8_t *bytes, const float *w, int64_t n, float inverse,
                   const struct packer *packer)
{
    uint32_t code[STRIP];
    u32x4 at[4];

    for (int64_t k = 0; k < n; k += STRIP) {
        climb(at, w + k, inverse, packer->threshold, &packer->code);
        memcpy(code, at, sizeof code);
        for (int i = 0; i < STRIP / 2; i++)
            bytes[k / 2 + i] = (uint8_t)(code[2 * i] << 4 | code[2 * i + 1]);
    }
}

/*
 * Squared error of n elements (a multiple of STRIP) under a scale, in units of 1 / unit^2, which
 * keeps it far from the ends of f32. Lane i sums elements i, i + 16, i + 32 ... in order; the
 * lanes are then added in halves: 16, 8, 4, 2.
 */
INLINE float squared_error(const float *w, int64_t n, float scale, float inverse, float unit,
                           const struct packer *packer)
{
    f32x4 sum[4] = {{0}}, x[4];
    float lane[LANES];
    u32x4 at[4];

    for (int64_t k = 0; k < n; k += STRIP) {
        climb(at, w + k, inverse, packer->threshold, &packer->value);
        memcpy(x, w + k, sizeof x);
        for (int i = 0; i < 4; i++) {
            f32x4 error = (x[i] - (f32x4)at[i] * spread(scale)) * spread(unit);

            sum[i] += error * error;
        }
    }
    sum[0] = (sum[0] + sum[2]) + (sum[1] + sum[3]);
    memcpy(lane, sum, sizeof lane);
    return (lane[0] + lane[2]) + (lane[1] + lane[3]);
}

/*
 * The grid: absmax * j / 64, the factor exact in f32. Below 1 the greatest magnitudes are cut off and all
 * others have finer steps; above 1 the greatest comes nearer to its level, or takes the next one. On
 * weights of real models a finer or wider grid gains less than 0.4 % of the error's root.
 */
enum { GRID = 64 };
static const uint8_t grid[] = {51, 52, 53, 54, 55, 56, 57, 58, 59, 60, 61, 62,
                               63, 65, 66, 67, 68, 69, 72, 76, 80, 84, 88, 92};

/*
 * A scale must beat that of round to nearest by more than the sums can err, so the error never grows by
 * choosing; among the others the first of the least wins.
 */
INLINE float search_scale(const float *w, int64_t n, float absmax, const struct packer *packer)
{
    float unit = 1.0f / absmax, best = absmax, least;

    least = squared_error(w, n, absmax, unit, unit, packer) * (1.0f - 0x1p-16f);
    for (size_t j = 0; j < sizeof grid; j++) {
        float scale = absmax * ((float)grid[j] / GRID), inverse = 1.0f / scale, error;

        if (!(scale <= FLT_MAX) || !(inverse <= FLT_MAX))
            continue;
        error = squared_error(w, n, scale, inverse, unit, packer);
        if (error < least) {
            least = error;
            best = scale;
        }
    }
    return best;
}

/* `n` <= block elements; returns the block's scale. */
static float pack_block(uint8_t *codes, const float *w, int64_t n, int64_t block, int32_t method,
                        const struct packer *packer)
{
    float padded[MAX_BLOCK] = {0}; /* zeros become the code of zero, as the padding half must */
    uint8_t bytes[MAX_BLOCK / 2];
    float absmax;

    if (n < block) {
        memcpy(padded, w, (size_t)n * sizeof *w);
        w = padded;
    }
    absmax = greatest_magnitude(w, block);
    if (1.0f / absmax <= FLT_MAX) {
        if (method == MMQI_METHOD_SEARCH)
            absmax = search_scale(w, block, absmax, packer);
        encode(bytes, w, block, 1.0f / absmax, packer);
    } else {
        memset(bytes, packer->zero << 4 | packer->zero, (size_t)block / 2);
    }
    memcpy(codes, bytes, (size_t)(n / 2 + n % 2));
    return absmax;
}

static void pack_blocks(uint8_t *const part[], const float *w, int64_t rows, int64_t cols,
                        int32_t method, int64_t block, const struct coding *coding)
{
    int64_t count = rows * cols;
    struct packer packer;

    make_packer(&packer, coding);
    for (int64_t begin = 0; begin < count; begin += block) {
        int64_t n = count - begin < block ? count - begin : block;
        float absmax = pack_block(part[0] + begin / 2, w + begin, n, block, method, &packer);

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

#define FUNCTIONS(ID, coding, text, size, is_nested)                                               \
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
        pack_blocks(part, w, rows, cols, method, size, &coding);                                   \
    }                                                                                              \
    static void unpack_##ID(float *w, const uint8_t *const part[], int64_t rows, int64_t cols,     \
                            int64_t begin, int64_t n)                                              \
    {                                                                                              \
        (void)rows;                                                                                \
        (void)cols;                                                                                \
        unpack_blocks(w, part, begin, n, size, is_nested, coding.table);                           \
    }
FORMATS(FUNCTIONS)

#define INFO(ID, coding, text, size, is_nested)                                                    \
    {                                                                                              \
        .name = text,                                                                              \
        .format = MMQI_FORMAT_##ID,                                                                \
        .kind = MMQI_KIND_TABLE4,                                                                  \
        .dtype = MMQI_U8,                                                                          \
        .block = size,                                                                             \
        .nested = is_nested,                                                                       \
        .table = mmqi_##coding##_table,                                                            \
        .layout = layout_##ID,                                                                     \
        .row_step = row_step_##ID,                                                                 \
        .pack = pack_##ID,                                                                         \
        .unpack = unpack_##ID,                                                                     \
        .nest = is_nested ? mmqi_nest : NULL,                                                      \
    },
const struct mmqi_format_info mmqi_formats_table4[12] = {FORMATS(INFO)};
