/*
 * The table of weight formats, and the arithmetic of their layouts.
 */
#include "quant/format_parts.h"

#include <assert.h>
#include <inttypes.h>
#include <string.h>

#include "core/dtype.h"
#include "core/mem.h"
#include "core/status.h"

static_assert(MMQI_FORMAT_BF16 + 1 == MMQI_FORMAT_INT8 && MMQI_FORMAT_INT8 + 1 == MMQI_FORMAT_NF4 &&
                  MMQI_FORMAT_FP4_128_NESTED + 1 == MMQI_FORMAT_INT4_G32 &&
                  MMQI_FORMAT_INT4_G128_BF16 + 1 == MMQI_N_FORMATS,
              "the formats of a kind stand side by side");

const struct mmqi_format_info *mmqi_format_info(int32_t format)
{
    if (format < 0 || format >= MMQI_N_FORMATS)
        return NULL;
    if (format >= MMQI_FORMAT_INT4_G32)
        return &mmqi_formats_int4[format - MMQI_FORMAT_INT4_G32];
    if (format >= MMQI_FORMAT_NF4)
        return &mmqi_formats_table4[format - MMQI_FORMAT_NF4];
    return format == MMQI_FORMAT_INT8 ? &mmqi_format_int8_info : &mmqi_formats_plain[format];
}

const struct mmqi_format_info *mmqi_format_find(const char *name)
{
    if (!name)
        return NULL;
    if (strcmp(name, "int4") == 0)
        name = "int4-g64";
    for (int32_t i = 0; i < MMQI_N_FORMATS; i++)
        if (strcmp(mmqi_format_info(i)->name, name) == 0)
            return mmqi_format_info(i);
    return NULL;
}

int32_t mmqi_format_from_dtype(int32_t dtype)
{
    for (int32_t i = 0; i < MMQI_N_FORMATS; i++)
        if (mmqi_format_info(i)->is_float && mmqi_format_info(i)->dtype == dtype)
            return i;
    return -1;
}

int32_t mmqi_layout_count(int64_t *count, int64_t rows, int64_t cols)
{
    if (rows < 0 || cols < 0 || __builtin_mul_overflow(rows, cols, count))
        return mmqi_fail(MMQ_ERR_LIMIT, "a matrix of %" PRId64 " x %" PRId64 " is too large", rows,
                         cols);
    return MMQ_OK;
}

int32_t mmqi_layout_add(struct mmqi_layout *layout, const char *suffix, int32_t dtype, int64_t dim0,
                        int64_t dim1)
{
    struct mmqi_part *part = &layout->part[layout->n_parts];
    uint64_t end, padded;

    part->suffix = suffix;
    part->dtype = dtype;
    part->rank = dim1 < 0 ? 1 : 2;
    part->shape[0] = dim0;
    part->shape[1] = dim1 < 0 ? 0 : dim1;
    part->offset = layout->bytes; /* kept at a multiple of MMQI_PART_ALIGN below */
    if (!mmqi_mul_u64((uint64_t)dim0, dim1 < 0 ? 1 : (uint64_t)dim1, &part->bytes) ||
        !mmqi_mul_u64(part->bytes, mmqi_dtype_size(dtype), &part->bytes) ||
        !mmqi_add_u64(part->offset, part->bytes, &end) ||
        !mmqi_add_u64(end, MMQI_PART_ALIGN - 1, &padded))
        return mmqi_fail(MMQ_ERR_LIMIT, "a weight of %" PRId64 " x %" PRId64 " is too large", dim0,
                         dim1 < 0 ? 1 : dim1);
    layout->bytes = padded / MMQI_PART_ALIGN * MMQI_PART_ALIGN;
    layout->n_parts++;
    return MMQ_OK;
}
