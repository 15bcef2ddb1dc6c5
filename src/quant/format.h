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

/*
 * Numbers are the library's own: files know formats by their tensors. Flat and nested 4-bit blocks
 * run over the flattened matrix, as bitsandbytes makes them; int4 groups end with the row.
 */
enum mmqi_format {
    MMQI_FORMAT_F32 = 0,
    MMQI_FORMAT_F16 = 1,
    MMQI_FORMAT_BF16 = 2,
    MMQI_FORMAT_INT8 = 3, /* int8 codes [rows, cols] + f32 absmax per row (LLM.int8) */
    MMQI_FORMAT_NF4 = 4,  /* "nf4": blocks of 64, f32 absmax */
    MMQI_FORMAT_NF4_32 = 5,
    MMQI_FORMAT_NF4_128 = 6,
    MMQI_FORMAT_NF4_NESTED =
        7, /* blocks of 64, absmax in 8 bit (bitsandbytes' double quantization) */
    MMQI_FORMAT_NF4_32_NESTED = 8,
    MMQI_FORMAT_NF4_128_NESTED = 9,
    MMQI_FORMAT_FP4 = 10, /* the same six with the fp4 table */
    MMQI_FORMAT_FP4_32 = 11,
    MMQI_FORMAT_FP4_128 = 12,
    MMQI_FORMAT_FP4_NESTED = 13,
    MMQI_FORMAT_FP4_32_NESTED = 14,
    MMQI_FORMAT_FP4_128_NESTED = 15,
    MMQI_FORMAT_INT4_G32 = 16, /* asymmetric: w = (q - z) * scale, q and z in 0..15, f16 scale */
    MMQI_FORMAT_INT4_G64 = 17, /* "int4" is this one */
    MMQI_FORMAT_INT4_G128 = 18,
    MMQI_FORMAT_INT4_G32_BF16 = 19, /* the same with a bf16 scale */
    MMQI_FORMAT_INT4_G64_BF16 = 20,
    MMQI_FORMAT_INT4_G128_BF16 = 21,
    MMQI_N_FORMATS
};

/* What a format's codes are: kernels and packers switch on it and read the rest from the table. */
enum mmqi_format_kind {
    MMQI_KIND_FLOAT = 0,  /* plain numbers of `dtype` */
    MMQI_KIND_INT8 = 1,   /* a code per byte, a scale per row */
    MMQI_KIND_TABLE4 = 2, /* 4-bit codes into `table`, element 2j in the HIGH half of byte j */
    MMQI_KIND_INT4 =
        3 /* 4-bit codes, element 2j of a row in the LOW half; rows begin at whole bytes */
};

/* How codes and scales are chosen. */
enum mmqi_method {
    MMQI_METHOD_RTN = 0, /* round to nearest with the greatest magnitude as scale */
    MMQI_METHOD_SEARCH =
        1 /* the scale of a fixed grid with the least squared error of the weights */
};

enum {
    MMQI_MAX_PARTS = 4,
    MMQI_PART_ALIGN = 64,
    MMQI_NESTED_BLOCK = 256 /* absmax codes that share a nested absmax */
};

struct mmqi_part {
    /* After "NAME.weight" in a file: "", ".absmax", "_scale"; "@SCB" replaces the last component:
     * "NAME.SCB"; NULL: no tensor, the quantization state holds it (nested scales' offset). */
    const char *suffix;
    int32_t dtype; /* enum mmqi_dtype, as stored */
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

struct mmqi_table4;

struct mmqi_format_info {
    const char *name; /* "f32", "bf16", "int8", "nf4", "nf4-32-nested", "int4-g64-bf16" ... */
    int32_t format;
    int32_t kind;        /* enum mmqi_format_kind */
    bool is_float;       /* kind is MMQI_KIND_FLOAT */
    int32_t dtype;       /* of a plain format */
    int32_t block;       /* elements that share a scale; 0: a row */
    bool nested;         /* TABLE4: absmax is part 1 as u8 codes, parts 2 and 3 decode them */
    int32_t scale_dtype; /* INT4: MMQI_F16 or MMQI_BF16 */
    const float *table;  /* TABLE4: 16 values */
    const struct mmqi_table4 *coding; /* TABLE4: how codes are chosen, format_block.h */
    /* MMQ_ERR_LIMIT where sizes would wrap. rows, cols >= 0. */
    int32_t (*layout)(struct mmqi_layout *layout, int64_t rows, int64_t cols);
    /* Smallest number of rows whose parts end at whole bytes and whole blocks. */
    int64_t (*row_step)(int64_t cols);
    /*
     * `rows` rows of f32 at `w` to canonical bytes by `method`; part[i] points at the first byte of
     * these rows. Of a nested format, part[1] receives the flat f32 absmax instead (see nest).
     */
    void (*pack)(uint8_t *const part[], const float *w, int64_t rows, int64_t cols, int32_t method);
    /* f32 of elements [begin, begin + n) of the flattened matrix, from pointers to whole parts. */
    void (*unpack)(float *w, const uint8_t *const part[], int64_t rows, int64_t cols, int64_t begin,
                   int64_t n);
    /*
     * Nested formats alone: all n flat absmax of the matrix into parts 1 (u8 [n]), 2 (f32
     * [ceil(n / 256)]) and 3 (f32 [1], the offset). The absmax of a whole matrix are held until its
     * last row is packed; 4 bytes per block. NULL for the others.
     */
    void (*nest)(uint8_t *const part[], const float *absmax, int64_t n);
};

/*
 *   TABLE4 flat     part 0 codes, part 1 ".absmax" f32 [blocks]
 *   TABLE4 nested   part 0 codes, part 1 ".absmax" u8 [blocks], part 2 ".nested_absmax" f32,
 *                   part 3 offset f32 [1]
 *   INT4            part 0 "_packed" u8 [rows, ceil(cols / 2)], part 1 "_scale" [rows, groups],
 *                   part 2 "_zero_point" u8 [rows, groups]
 */
const struct mmqi_format_info *mmqi_format_info(int32_t format);   /* NULL for an unknown one */
const struct mmqi_format_info *mmqi_format_find(const char *name); /* NULL for an unknown name */
int32_t mmqi_format_from_dtype(int32_t dtype);                     /* the plain format; -1 */
extern const float mmqi_nf4_table[16];                             /* nf4 code -> value */
extern const float mmqi_fp4_table[16];                             /* fp4 code -> value */
extern const float mmqi_nested_table[256]; /* bitsandbytes' signed dynamic map, ascending */
/* absmax of a block, from pointers to the whole parts of a nested format. */
float mmqi_nested_absmax(const uint8_t *const part[], int64_t block);

#endif
