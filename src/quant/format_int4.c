/*
 * int4, asymmetric groups of 32, 64 or 128 columns.
 *
 *   part 0   NAME.weight_packed     [rows, ceil(cols / 2)]  U8, element 2j of a row in the low half
 *   part 1   NAME.weight_scale      [rows, groups]          F16 or BF16
 *   part 2   NAME.weight_zero_point [rows, groups]          U8 in 0..15
 *
 * Groups end with the row, so the last one of a row may be short; the high half after an odd row
 * is 0. `low` and `high` are the least and the greatest weight of the group and of 0:
 *
 *   scale = (high - low) / 15, rounded to the type it is stored in
 *   z     = clamp(round to nearest even(-low / scale), 0, 15)
 *   q     = clamp(round to nearest even(w / scale) + z, 0, 15)
 *   w     = (q - z) * scale                              every step rounded to f32
 *
 * The quotients are IEEE divisions: as a scale has few bits, none of them rounds to a tie that it
 * is not, and q is that of exact arithmetic. A scale beyond its type is the greatest that decodes
 * to finite numbers; one that would vanish is the smallest above 0; a group of zeros has scale 0.
 *
 * The search tries a grid of fractions of `low` and `high`, and keeps what has the least squared error
 * of the group.
 */
#include "quant/format_parts.h"

#include <float.h>
#include <string.h>

#include "core/status.h"

#define ROUNDER 12582912.0f /* 1.5 * 2^23 */

enum { MAX_GROUP = 128, LANES = 4, STRIP = 4 * LANES /* elements in registers at a time */ };

typedef float f32x4 __attribute__((vector_size(16)));
typedef uint32_t u32x4 __attribute__((vector_size(16)));

#define INLINE static inline __attribute__((always_inline))

static int64_t count_groups(int64_t cols, int64_t group)
{
    return cols / group + (cols % group != 0);
}

static int32_t layout_groups(struct mmqi_layout *layout, int64_t rows, int64_t cols, int64_t group,
                             int32_t dtype)
{
    int64_t count, groups;
    int32_t status;

    memset(layout, 0, sizeof *layout);
    status = mmqi_layout_count(&count, rows, cols);
    if (status != MMQ_OK)
        return status;
    groups = count_groups(cols, group);
    status = mmqi_layout_add(layout, "_packed", MMQI_U8, rows, cols / 2 + cols % 2);
    if (status == MMQ_OK)
        status = mmqi_layout_add(layout, "_scale", dtype, rows, groups);
    if (status == MMQ_OK)
        status = mmqi_layout_add(layout, "_zero_point", MMQI_U8, rows, groups);
    return status;
}

static int64_t row_step(int64_t cols)
{
    (void)cols;
    return 1;
}

/* ---- scales ---- */

/* How a scale is stored. */
struct scale_type {
    float most;  /* (q - z) * most is finite */
    float least; /* above 0 */
    bool is_f16; /* bf16 otherwise */
};

static const struct scale_type f16 = {.most = 65504.0f, .least = 0x1p-24f, .is_f16 = true};
static const struct scale_type bf16 = {.most = 0x1.1p124f, .least = 0x1p-133f};

static uint16_t scale_bits(float scale, const struct scale_type *type)
{
    return type->is_f16 ? mmqi_f16_from_f32(scale) : mmqi_bf16_from_f32(scale);
}

static float scale_of_bits(uint16_t bits, const struct scale_type *type)
{
    return type->is_f16 ? mmqi_f32_from_f16(bits) : mmqi_f32_from_bf16(bits);
}

static float round_scale(float scale, const struct scale_type *type)
{
    float rounded = scale_of_bits(scale_bits(scale, type), type);

    if (rounded > type->most)
        return type->most;
    return rounded == 0.0f && scale > 0.0f ? type->least : rounded;
}

/* ---- packing ---- */

/* What a group decodes by. */
struct grid {
    float scale;
    int32_t zero;
};

INLINE f32x4 spread(float x)
{
    return (f32x4){x, x, x, x};
}

INLINE f32x4 least_of(f32x4 a, f32x4 b)
{
    u32x4 less = (u32x4)(a < b);

    return (f32x4)(((u32x4)a & less) | ((u32x4)b & ~less));
}

INLINE f32x4 greatest_of(f32x4 a, f32x4 b)
{
    u32x4 more = (u32x4)(a > b);

    return (f32x4)(((u32x4)a & more) | ((u32x4)b & ~more));
}

/* Of n elements, a multiple of STRIP, and of 0. */
static void find_range(float *low, float *high, const float *w, int64_t n)
{
    f32x4 least = {0}, most = {0}, x;
    float lane[2][LANES];

    for (int64_t k = 0; k < n; k += LANES) {
        memcpy(&x, w + k, sizeof x);
        least = least_of(x, least);
        most = greatest_of(x, most);
    }
    memcpy(lane[0], &least, sizeof lane[0]);
    memcpy(lane[1], &most, sizeof lane[1]);
    *low = *high = 0.0f;
    for (int i = 0; i < LANES; i++) {
        *low = lane[0][i] < *low ? lane[0][i] : *low;
        *high = lane[1][i] > *high ? lane[1][i] : *high;
    }
}

static int32_t zero_point(float low, float scale)
{
    float x = -low / scale;

    return mmqi_round_to_even(x < 15.0f ? x : 15.0f);
}

/* q - z, with ROUNDER added: the low bits of the sum are the integer, see mmqi_round_to_even(). */
INLINE f32x4 nearest_level(f32x4 x, const struct grid *grid)
{
    x = least_of(x / spread(grid->scale), spread((float)(15 - grid->zero)));
    return greatest_of(x, spread((float)-grid->zero)) + spread(ROUNDER);
}

/* Codes of n elements, a multiple of STRIP. */
static void encode(uint8_t *bytes, const float *w, int64_t n, const struct grid *grid)
{
    uint32_t bias = 0x4b400000u - (uint32_t)grid->zero, code[STRIP];
    f32x4 x[4];
    u32x4 at[4];

    for (int64_t k = 0; k < n; k += STRIP) {
        memcpy(x, w + k, sizeof x);
        for (int i = 0; i < 4; i++)
            at[i] = (u32x4)nearest_level(x[i], grid) - bias;
        memcpy(code, at, sizeof code);
        for (int i = 0; i < STRIP / 2; i++)
            bytes[k / 2 + i] = (uint8_t)(code[2 * i] | code[2 * i + 1] << 4);
    }
}

/*
 * Squared error of n elements, a multiple of STRIP, in units of 1 / unit^2. Lane i sums elements
 * i, i + 16, i + 32 ... in order; the lanes are then added in halves: 16, 8, 4, 2.
 */
static float squared_error(const float *w, int64_t n, const struct grid *grid, float unit)
{
    f32x4 sum[4] = {{0}}, x[4];
    float lane[LANES];

    for (int64_t k = 0; k < n; k += STRIP) {
        memcpy(x, w + k, sizeof x);
        for (int i = 0; i < 4; i++) {
            f32x4 level = nearest_level(x[i], grid) - spread(ROUNDER);
            f32x4 error = (x[i] - level * spread(grid->scale)) * spread(unit);

            sum[i] += error * error;
        }
    }
    sum[0] = (sum[0] + sum[2]) + (sum[1] + sum[3]);
    memcpy(lane, sum, sizeof lane);
    return (lane[0] + lane[2]) + (lane[1] + lane[3]);
}

/* The fractions: j / 64, exact in f32. Other zero points than that of the scale gain nothing more. */
enum { GRID_BEGIN = 48, GRID_END = 73, GRID = 64 };

/* Replace *grid, that of round to nearest, where another has an error that is smaller by more than
 * the sums can err; among the others the first of the least wins. */
static void search_grid(struct grid *grid, const float *w, int64_t n, float low, float high,
                        const struct scale_type *type)
{
    float unit = 1.0f / grid->scale, least, error, fraction;
    struct grid other;

    if (!(unit <= FLT_MAX))
        return;
    least = squared_error(w, n, grid, unit) * (1.0f - 0x1p-16f);
    for (int j = GRID_BEGIN; j < GRID_END; j++) {
        fraction = (float)j / GRID;
        other.scale = round_scale((high - low) * fraction / 15.0f, type);
        other.zero = zero_point(low * fraction, other.scale);
        error = squared_error(w, n, &other, unit);
        if (error < least) {
            least = error;
            *grid = other;
        }
    }
}

/* `n` <= group elements. */
static struct grid pack_group(uint8_t *codes, const float *w, int64_t n, int64_t group,
                              int32_t method, const struct scale_type *type)
{
    float padded[MAX_GROUP] = {0}, low, high;
    struct grid grid = {0};
    uint8_t bytes[MAX_GROUP / 2] = {0};

    if (n < group) {
        memcpy(padded, w, (size_t)n * sizeof *w);
        w = padded;
    }
    find_range(&low, &high, w, group);
    grid.scale = round_scale((high - low) / 15.0f, type);
    if (grid.scale > 0.0f) {
        grid.zero = zero_point(low, grid.scale);
        if (method == MMQI_METHOD_SEARCH)
            search_grid(&grid, w, group, low, high, type);
        encode(bytes, w, group, &grid);
    }
    if (n % 2)
        bytes[n / 2] &= 15;
    memcpy(codes, bytes, (size_t)(n / 2 + n % 2));
    return grid;
}

static void pack_groups(uint8_t *const part[], const float *w, int64_t rows, int64_t cols,
                        int32_t method, int64_t group, const struct scale_type *type)
{
    int64_t row_bytes = cols / 2 + cols % 2, at = 0;

    for (int64_t row = 0; row < rows; row++)
        for (int64_t begin = 0; begin < cols; begin += group, at++) {
            int64_t n = cols - begin < group ? cols - begin : group;
            uint8_t *codes = part[0] + row * row_bytes + begin / 2;
            struct grid grid = pack_group(codes, w + row * cols + begin, n, group, method, type);
            uint16_t bits = scale_bits(grid.scale, type);

            memcpy(part[1] + 2 * at, &bits, sizeof bits);
            part[2][at] = (uint8_t)grid.zero;
        }
}

/* ---- unpacking ---- */

static void unpack_groups(float *w, const uint8_t *const part[], int64_t cols, int64_t begin,
                          int64_t n, int64_t group, const struct scale_type *type)
{
    int64_t row_bytes = cols / 2 + cols % 2, groups = count_groups(cols, group), end = begin + n;

    while (begin < end) {
        int64_t row = begin / cols, col = begin % cols, at = row * groups + col / group;
        int64_t stop = (col / group + 1) * group < cols ? (col / group + 1) * group : cols;
        const uint8_t *bytes = part[0] + row * row_bytes;
        float scale;
        uint16_t bits;
        int32_t zero = part[2][at];

        stop = stop - col < end - begin ? stop : col + (end - begin);
        memcpy(&bits, part[1] + 2 * at, sizeof bits);
        scale = scale_of_bits(bits, type);
        begin += stop - col;
        for (; col < stop; col++) {
            int32_t q = col % 2 ? bytes[col / 2] >> 4 : bytes[col / 2] & 15;

            *w++ = (float)(q - zero) * scale;
        }
    }
}

/* ---- the formats ---- */

#define FORMATS(X)                                                                                 \
    X(G32, "int4-g32", 32, F16, f16)                                                               \
    X(G64, "int4-g64", 64, F16, f16)                                                               \
    X(G128, "int4-g128", 128, F16, f16)                                                            \
    X(G32_BF16, "int4-g32-bf16", 32, BF16, bf16)                                                   \
    X(G64_BF16, "int4-g64-bf16", 64, BF16, bf16)                                                   \
    X(G128_BF16, "int4-g128-bf16", 128, BF16, bf16)

#define FUNCTIONS(ID, text, group, TYPE, type)                                                     \
    static int32_t layout_##ID(struct mmqi_layout *layout, int64_t rows, int64_t cols)             \
    {                                                                                              \
        return layout_groups(layout, rows, cols, group, MMQI_##TYPE);                              \
    }                                                                                              \
    static void pack_##ID(uint8_t *const part[], const float *w, int64_t rows, int64_t cols,       \
                          int32_t method)                                                          \
    {                                                                                              \
        pack_groups(part, w, rows, cols, method, group, &type);                                    \
    }                                                                                              \
    static void unpack_##ID(float *w, const uint8_t *const part[], int64_t rows, int64_t cols,     \
                            int64_t begin, int64_t n)                                              \
    {                                                                                              \
        (void)rows;                                                                                \
        unpack_groups(w, part, cols, begin, n, group, &type);                                      \
    }
FORMATS(FUNCTIONS)

#define INFO(ID, text, group, TYPE, type)                                                          \
    {                                                                                              \
        .name = text,                                                                              \
        .format = MMQI_FORMAT_INT4_##ID,                                                           \
        .kind = MMQI_KIND_INT4,                                                                    \
        .dtype = MMQI_U8,                                                                          \
        .block = group,                                                                            \
        .scale_dtype = MMQI_##TYPE,                                                                \
        .layout = layout_##ID,                                                                     \
        .row_step = row_step,                                                                      \
        .pack = pack_##ID,                                                                         \
        .unpack = unpack_##ID,                                                                     \
    },
const struct mmqi_format_info mmqi_formats_int4[6] = {FORMATS(INFO)};
