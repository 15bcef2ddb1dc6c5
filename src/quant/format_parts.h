/*
 * What the format_*.c files share: their table entries, and the way a layout is put together.
 */
#ifndef MMQI_QUANT_FORMAT_PARTS_H
#define MMQI_QUANT_FORMAT_PARTS_H

#include "core/dtype.h"
#include "quant/format.h"

/* Each in the order of enum mmqi_format. */
extern const struct mmqi_format_info mmqi_formats_plain[3];
extern const struct mmqi_format_info mmqi_format_int8_info;
extern const struct mmqi_format_info mmqi_formats_table4[12];
extern const struct mmqi_format_info mmqi_formats_int4[6];

/* rows * cols, or MMQ_ERR_LIMIT where it is negative or wraps an int64_t. */
int32_t mmqi_layout_count(int64_t *count, int64_t rows, int64_t cols);

/* Append a part at the next multiple of MMQI_PART_ALIGN; `dim1` is -1 for a part of
 * rank 1. The layout must have been zeroed. MMQ_ERR_LIMIT where sizes would wrap. */
int32_t mmqi_layout_add(struct mmqi_layout *layout, const char *suffix, int32_t dtype, int64_t dim0,
                        int64_t dim1);

/* The `nest` of every nested format. */
void mmqi_nest(uint8_t *const part[], const float *absmax, int64_t n);

#endif
