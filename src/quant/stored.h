/*
 * How a checkpoint stores one matrix: which weight format, in which tensors.
 *
 * Decided per module from the tensors that exist, never from a list of names
 * in a config:
 *
 *   X.weight F32, F16 or BF16                                plain
 *   X.weight I8 + X.SCB                                      int8 (LLM.int8, rows in plain order)
 *   X.weight U8 + X.weight.quant_state.bitsandbytes__nf4     nf4; with __fp4: fp4
 *     blocks of 32, 64 or 128; nested where the state says so
 *     (+ X.weight.nested_absmax, X.weight.nested_quant_map)
 *   X.weight_packed U8 + X.weight_scale F16 or BF16          int4, libmmq's own names
 *     + X.weight_zero_point U8 + X.weight_shape I64: rows, cols, columns of a group
 *
 * A module that matches two of them, whose tensors disagree with each other,
 * or that carries the tensors of a method that is not read (GPTQ, AWQ, FP8,
 * compressed-tensors, other block sizes ...) is refused by name.
 */
#ifndef MMQI_QUANT_STORED_H
#define MMQI_QUANT_STORED_H

#include "io/checkpoint.h"
#include "quant/format.h"

enum { MMQI_STORED_EXTRA = 4 };

struct mmqi_stored {
    int32_t format;                                    /* enum mmqi_format */
    const struct mmqi_entry *entry[MMQI_MAX_PARTS];    /* one per part of the format; NULL after */
    const struct mmqi_entry *extra[MMQI_STORED_EXTRA]; /* other tensors that describe the matrix */
    int32_t n_extra;
    /* Of a nested format: its part 3, which no tensor holds (entry[3] is NULL); it stands in the
     * JSON of the quantization state. Who reads the weight takes the part's 4 bytes from here. */
    float nested_offset; /* finite */
    bool has_offset;
};

/*
 * Length of the matrix's name ("X.weight", what mmqi_stored_find() takes) in the name of a tensor
 * that may be its first part: all of it, but for "X.weight_packed" without "_packed".
 */
size_t mmqi_stored_name_length(const char *tensor_name);

/*
 * Find the matrix [rows, cols] that the checkpoint names `file_name`
 * ("language_model.model.layers.0.mlp.up_proj.weight"; a name without
 * ".weight" at its end can only be plain). A plain tensor fits when its first dimension is
 * `rows` and the others multiply to `cols` (a convolution), or when rows is 1
 * and it is [cols]. Entries belong to the checkpoint. Every tensor of
 * out->entry and out->extra counts as used. The first bytes of an entry are
 * those of its part; 4-bit codes kept in a wider type (bnb_4bit_quant_storage)
 * may have padding after them. Scales are not read here, so whether they are
 * finite is for the reader of the weight to check. A nested map may differ from
 * mmqi_nested_table in the last bits, as other versions of torch round it: 2^-22 of a value at
 * most. On failure *out is all zero.
 *
 *   MMQ_ERR_NOT_FOUND    no tensor of this module in any form
 *   MMQ_ERR_MISMATCH     found, of another shape
 *   MMQ_ERR_FORMAT       its tensors contradict each other, or a part is missing
 *   MMQ_ERR_UNSUPPORTED  stored in a way this build does not read
 */
int32_t mmqi_stored_find(struct mmqi_stored *out, const struct mmqi_checkpoint *checkpoint,
                         const char *file_name, int64_t rows, int64_t cols);

#endif
