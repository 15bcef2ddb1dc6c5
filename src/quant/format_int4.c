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
 * The search tries a grid of fractions of `low` and `high`, and keeps what has the least squared
 * error of the group.
 */
#include "quant/format_parts.h"

#include <string.h>

#include "core/status.h"
#include "quant/format_block.h"

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

/* ---- packing ---- */

/* `n` <= group elements. */
static struct mmqi_int4_grid pack_group(uint8_t *codes, const float *w, int64_t n, int64_t group,
                                        int32_t method, const struct mmqi_scale_type *type)
{
    float padded[MMQI_MAX_BLOCK] = {0};
    uint8_t bytes[MMQI_MAX_BLOCK / 2];
    struct mmqi_int4_grid grid;

    if (n < group) {
        memcpy(padded, w, (size_t)n * sizeof *w);
        w = padded;
    }
    grid = mmqi_int4_pack(bytes, w, group, method, type);
    if (n % 2)
        bytes[n / 2] &= 15;
    memcpy(codes, bytes, (size_t)(n / 2 + n % 2));
    return grid;
}

static void pack_groups(uint8_t *const part[], const float *w, int64_t rows, int64_t cols,
                        int32_t method, int64_t group, int32_t dtype)
{
    const struct mmqi_scale_type type = mmqi_scale_type_of(dtype);
    int64_t row_bytes = cols / 2 + cols % 2, at = 0;

    for (int64_t row = 0; row < rows; row++)
        for (int64_t begin = 0; begin < cols; begin += group, at++) {
            int64_t n = cols - begin < group ? cols - begin : group;
            uint8_t *codes = part[0] + row * row_bytes + begin / 2;
            struct mmqi_int4_grid grid =
                pack_group(codes, w + row * cols + begin, n, group, method, &type);
            uint16_t bits = mmqi_scale_bits(grid.scale, &type);

            memcpy(part[1] + 2 * at, &bits, sizeof bits);
            part[2][at] = (uint8_t)grid.zero;
        }
}

/* ---- unpacking ---- */

static void unpack_groups(float *w, const uint8_t *const part[], int64_t cols, int64_t begin,
                          int64_t n, int64_t group, int32_t dtype)
{
    const struct mmqi_scale_type type = mmqi_scale_type_of(dtype);
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
        scale = mmqi_scale_from_bits(bits, &type);
        begin += stop - col;
        for (; col < stop; col++) {
            int32_t q = col % 2 ? bytes[col / 2] >> 4 : bytes[col / 2] & 15;

            *w++ = (float)(q - zero) * scale;
        }
    }
}

/* ---- the formats ---- */

#define FORMATS(X)                                                                                 \
    X(G32, "int4-g32", 32, F16)                                                                    \
    X(G64, "int4-g64", 64, F16)                                                                    \
    X(G128, "int4-g128", 128, F16)                                                                 \
    X(G32_BF16, "int4-g32-bf16", 32, BF16)                                                         \
    X(G64_BF16, "int4-g64-bf16", 64, BF16)                                                         \
    X(G128_BF16, "int4-g128-bf16", 128, BF16)

#define FUNCTIONS(ID, text, group, TYPE)                                                           \
    static int32_t layout_##ID(struct mmqi_layout *layout, int64_t rows, int64_t cols)             \
    {                                                                                              \
        return layout_groups(layout, rows, cols, group, MMQI_##TYPE);                              \
    }                                                                                              \
    static void pack_##ID(uint8_t *const part[], const float *w, int64_t rows, int64_t cols,       \
                          int32_t method)                                                          \
    {                                                                                              \
        pack_groups(part, w, rows, cols, method, group, MMQI_##TYPE);                              \
    }                                                                                              \
    static void unpack_##ID(float *w, const uint8_t *const part[], int64_t rows, int64_t cols,     \
                            int64_t begin, int64_t n)                                              \
    {                                                                                              \
        (void)rows;                                                                                \
        unpack_groups(w, part, cols, begin, n, group, MMQI_##TYPE);                                \
    }
FORMATS(FUNCTIONS)

#define INFO(ID, text, group, TYPE)                                                                \
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
