/*
 * Weight formats: what the stored bytes of a matrix mean.
 *
 * A matrix is [rows, cols] (out, in), y = W x. Its canonical bytes are up to
 * MMQI_MAX_PARTS parts (codes, scales ...), in memory one block with each part
 * at a multiple of 64; in a file one tensor per part, named by the part's suffix.
 * Files, hashes and bit-equality know only this layout; a backend may
 * rearrange its own copy when it places a weight.
 *
 * Packing is by rows: rows [begin, end) of the source give whole bytes of
 * every part when `begin` is a multiple of format->row_step(cols), so the
 * bytes do not depend on how rows are cut. Unpacking gives the f32 weight
 * exactly as the format's sheet prescribes.
 */
#ifndef MMQI_QUANT_FORMAT_H
#define MMQI_QUANT_FORMAT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum mmqi_format {
    MMQI_FORMAT_F32 = 0,
    MMQI_FORMAT_F16 = 1,
    MMQI_FORMAT_BF16 = 2,
    MMQI_FORMAT_INT8 = 3, /* int8 codes [rows, cols] + f32 absmax per row (LLM.int8) */
    MMQI_FORMAT_NF4 = 4,  /* 4-bit codes, flat blocks of 64 over the flattened matrix + f32 absmax
                             (bitsandbytes) */
    MMQI_N_FORMATS
};

enum { MMQI_MAX_PARTS = 4, MMQI_PART_ALIGN = 64 };

struct mmqi_part {
    const char *suffix; /* after "NAME.weight" in a file: "", ".absmax"; "@SCB" replaces the last
                           component: "NAME.SCB" */
    int32_t dtype;      /* enum mmqi_dtype, as stored */
    int32_t rank;
    int64_t shape[2];
    uint64_t offset; /* of this part in the canonical block */
    uint64_t bytes;
};

struct mmqi_layout {
    int32_t n_parts;
    struct mmqi_part part[MMQI_MAX_PARTS];
    uint64_t bytes; /* of the whole block, padding included */
};

struct mmqi_format_info {
    const char *name; /* "f32", "bf16", "int8", "nf4" ... */
    int32_t format;
    bool is_float; /* stored as plain numbers: no packing, dtype below */
    int32_t dtype; /* of a plain format */
    /* MMQ_ERR_LIMIT where sizes would wrap. rows, cols >= 0. */
    int32_t (*layout)(struct mmqi_layout *layout, int64_t rows, int64_t cols);
    /* Smallest number of rows whose parts end at whole bytes and whole blocks. */
    int64_t (*row_step)(int64_t cols);
    /* Round to nearest: `rows` rows of f32 at `w` to canonical bytes; part[i] points at the first
     * byte of these rows. */
    void (*pack)(uint8_t *const part[], const float *w, int64_t rows, int64_t cols);
    /* f32 of elements [begin, begin + n) of the flattened matrix, from pointers to the whole parts.
     */
    void (*unpack)(float *w, const uint8_t *const part[], int64_t rows, int64_t cols, int64_t begin,
                   int64_t n);
};

const struct mmqi_format_info *mmqi_format_info(int32_t format);   /* NULL for an unknown one */
const struct mmqi_format_info *mmqi_format_find(const char *name); /* NULL for an unknown name */
int32_t mmqi_format_from_dtype(int32_t dtype);                     /* the plain format; -1 */
extern const float mmqi_nf4_table[16];                             /* nf4 code -> value */

#endif
