/*
 * Reading packed weights 16 at a time, in terms of the vocabulary of v16_*.h.
 *
 * Kernels are compiled once per way of storing, not per format. Rows are read in
 * runs of 64 elements; what does not fill one, and every row of a matrix whose
 * blocks begin inside runs, is unpacked by the format's table (unpack64).
 *
 * 4-bit codes are looked up in a table of the block's 16 values, each made as the
 * format's sheet says: value * absmax, or (code - zero) * scale.
 */
#ifndef MMQI_CPU_X86_WEIGHTS16_H
#define MMQI_CPU_X86_WEIGHTS16_H

#include <string.h>

#include "core/dtype.h"
#include "cpu/cpu.h"

enum { RUN = 64, STEPS = RUN / MMQI_LANES, SHORT_BLOCK = 32, STRETCH = 2048 };

/* Ways of storing. */
enum stored {
    STORED_F32,
    STORED_F16,
    STORED_BF16,
    STORED_INT8,
    STORED_FLAT,   /* codes into a table, f32 absmax */
    STORED_NESTED, /* codes into a table, nested absmax */
    STORED_INT4,   /* codes with scale and zero point */
    STORED_OTHER   /* known to the format's table alone */
};

static const int32_t stored_bits[] = {32, 16, 16, 8, 4, 4, 4, 0};

static enum stored stored_as(int32_t format)
{
    const struct mmqi_format_info *info = mmqi_format_info(format);
    bool whole = info->block == 32 || info->block == 64 || info->block == 128;

    switch (info->kind) {
    case MMQI_KIND_FLOAT:
        return format == MMQI_FORMAT_F32    ? STORED_F32
               : format == MMQI_FORMAT_F16  ? STORED_F16
               : format == MMQI_FORMAT_BF16 ? STORED_BF16
                                            : STORED_OTHER;
    case MMQI_KIND_INT8:
        return STORED_INT8;
    case MMQI_KIND_TABLE4:
        return !whole ? STORED_OTHER : info->nested ? STORED_NESTED : STORED_FLAT;
    case MMQI_KIND_INT4:
        return whole ? STORED_INT4 : STORED_OTHER;
    default:
        return STORED_OTHER;
    }
}

V16_INLINE bool has_blocks(const enum stored as)
{
    return as == STORED_FLAT || as == STORED_NESTED || as == STORED_INT4;
}

/* Elements of a row that are read in runs. Blocks of codes into a table run on from row to row. */
V16_INLINE int64_t fast_cols(const struct mmqi_wmat *w, const enum stored as)
{
    if (as == STORED_OTHER || ((as == STORED_FLAT || as == STORED_NESTED) && w->cols % RUN != 0))
        return 0;
    return w->cols / RUN * RUN;
}

/* What all blocks of a matrix share. */
struct blocks {
    const struct mmqi_wmat *w;
    v16 values;    /* that codes into a table stand for, unscaled */
    float offset;  /* of nested absmax */
    int32_t shift; /* log2 of the elements of a block */
    bool is_bf16;  /* the scale of int4; f16 otherwise */
};

V16_INLINE struct blocks blocks_of(const struct mmqi_wmat *w, const enum stored as)
{
    struct blocks blocks = {.w = w};
    const struct mmqi_format_info *info;

    if (!has_blocks(as))
        return blocks;
    info = mmqi_format_info(w->format);
    if (as != STORED_INT4)
        blocks.values = v16_load(info->table);
    if (as == STORED_NESTED)
        memcpy(&blocks.offset, w->part[3], sizeof blocks.offset);
    blocks.shift = info->block == 32 ? 5 : info->block == 64 ? 6 : 7;
    blocks.is_bf16 = info->scale_dtype == MMQI_BF16;
    return blocks;
}

/* Where a row begins: its first byte, and how many elements of blocks are before it. */
struct stored_row {
    const uint8_t *bytes;
    int64_t begin;
};

V16_INLINE struct stored_row stored_row(const struct blocks *blocks, const enum stored as,
                                        int64_t n)
{
    const struct mmqi_wmat *w = blocks->w;
    struct stored_row row = {w->part[0], 0};

    if (as == STORED_INT4) { /* whole bytes and whole blocks to a row */
        row.bytes += n * (w->cols / 2 + w->cols % 2);
        row.begin = n * ((((w->cols - 1) >> blocks->shift) + 1) << blocks->shift);
    } else {
        row.bytes += n * w->cols * stored_bits[as] / 8;
        row.begin = n * w->cols;
    }
    return row;
}

/*
 * Scales of the blocks of a stretch of a row, in f32. A row may begin in the middle of a block of
 * 128: element k of the stretch is in block (k + skip) >> shift.
 */
struct scales {
    const float *scale;
    int64_t skip;
    float made[STRETCH / SHORT_BLOCK + 1], zero[STRETCH / SHORT_BLOCK + 1];
};

/* Vectors of 16; the last one begins early, so that nothing past the row is read. */
V16_INLINE void int4_scales(struct scales *s, const struct blocks *blocks, int64_t block, int64_t n)
{
    const uint8_t *scale = blocks->w->part[1] + 2 * block, *zero = blocks->w->part[2] + block;
    uint16_t bits;

    if (n < MMQI_LANES) {
        for (int64_t i = 0; i < n; i++) {
            memcpy(&bits, scale + 2 * i, sizeof bits);
            s->made[i] = blocks->is_bf16 ? mmqi_f32_from_bf16(bits) : _cvtsh_ss(bits);
            s->zero[i] = zero[i];
        }
        return;
    }
    for (int64_t i = 0; i < n; i += MMQI_LANES) {
        i = i < n - MMQI_LANES ? i : n - MMQI_LANES;
        v16_store(s->made + i,
                  blocks->is_bf16 ? v16_from_bf16(scale + 2 * i) : v16_from_f16(scale + 2 * i));
        v16_store(s->zero + i, v16_from_u8(zero + i));
    }
}

/* As mmqi_nested_absmax() gives them. */
V16_INLINE void nested_scales(struct scales *s, const struct blocks *blocks, int64_t block,
                              int64_t n)
{
    const uint8_t *code = blocks->w->part[1], *nested = blocks->w->part[2];
    float scale;

    for (int64_t i = 0; i < n; i++) {
        memcpy(&scale, nested + (block + i) / MMQI_NESTED_BLOCK * 4, sizeof scale);
        s->made[i] = mmqi_nested_table[code[block + i]] * scale + blocks->offset;
    }
}

/* Of elements [k, k + n) of a row, n <= STRETCH. */
V16_INLINE void read_scales(struct scales *s, const struct blocks *blocks, const enum stored as,
                            struct stored_row row, int64_t k, int64_t n)
{
    int64_t block = (row.begin + k) >> blocks->shift;
    int64_t count = ((row.begin + k + n - 1) >> blocks->shift) + 1 - block;

    if (!has_blocks(as))
        return;
    s->skip = (row.begin + k) & ((1 << blocks->shift) - 1);
    s->scale = s->made;
    if (as == STORED_FLAT)
        s->scale = (const float *)(const void *)(blocks->w->part[1] + 4 * block);
    else if (as == STORED_NESTED)
        nested_scales(s, blocks, block, count);
    else
        int4_scales(s, blocks, block, count);
}

/* The values of the 16 codes in the block of element k of the stretch. */
V16_INLINE v16_table block_table(const struct scales *s, const struct blocks *blocks,
                                 const enum stored as, int64_t k)
{
    int64_t block = (k + s->skip) >> blocks->shift;

    if (!has_blocks(as))
        return blocks->values;
    if (as == STORED_INT4)
        return v16_table_int4(s->scale[block], s->zero[block]);
    return v16_table_scaled(blocks->values, s->scale[block]);
}

/* Elements [k, k + 16) of a row, 4-bit codes in their order of lanes; int8 without its scale. */
V16_INLINE v16 stored16(struct stored_row row, const enum stored as, int64_t k, v16_table table)
{
    switch (as) {
    case STORED_F32:
        return v16_load((const float *)(const void *)(row.bytes + 4 * k));
    case STORED_F16:
        return v16_from_f16(row.bytes + 2 * k);
    case STORED_BF16:
        return v16_from_bf16(row.bytes + 2 * k);
    case STORED_INT8:
        return v16_from_i8(row.bytes + k);
    case STORED_INT4:
        return v16_from_int4(row.bytes + k / 2, table);
    default:
        return v16_from_table(row.bytes + k / 2, table);
    }
}

/* Lanes in the order of stored16(), and back. */
V16_INLINE v16 to_stored(v16 v, const enum stored as)
{
    return has_blocks(as) ? v16_to_codes(v) : v;
}

V16_INLINE v16 of_stored(v16 v, const enum stored as)
{
    return has_blocks(as) ? v16_of_codes(v) : v;
}

/* Elements [k, k + 64) of row n, zeros past its end, the slow way; int8 without its scale. */
static void unpack64(float out[RUN], const struct mmqi_wmat *w, int64_t n, int64_t k)
{
    int64_t count = w->cols - k < RUN ? w->cols - k : RUN, at = n * w->cols + k;

    memset(out, 0, RUN * sizeof *out);
    if (w->format == MMQI_FORMAT_INT8)
        for (int64_t i = 0; i < count; i++)
            out[i] = (int8_t)w->part[0][at + i];
    else
        mmqi_format_info(w->format)->unpack(out, w->part, w->rows, w->cols, at, count);
}

#endif
