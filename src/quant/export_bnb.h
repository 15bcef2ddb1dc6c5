/*
 * Packed weights in a folder: the names of a matrix's tensors, what describes it, and the
 * quantization_config. As bitsandbytes and transformers read them, but for int4, whose names are
 * our own:
 *
 *   nf4   X.weight  X.weight.absmax  X.weight.quant_map  X.weight.quant_state.bitsandbytes__nf4
 *         where nested also X.weight.nested_absmax  X.weight.nested_quant_map
 *   fp4   the same with __fp4
 *   int8  X.weight  X.SCB  X.weight_format
 *   int4  X.weight_packed  X.weight_scale  X.weight_zero_point  X.weight_shape (rows, cols, group)
 */
#ifndef MMQI_QUANT_EXPORT_BNB_H
#define MMQI_QUANT_EXPORT_BNB_H

#include "model/model.h"
#include "quant/save.h"

/* A matrix on its way into a file. */
struct mmqi_bnb_matrix {
    const char *file_name; /* "X.weight", as the checkpoint spells it */
    int32_t format;        /* enum mmqi_format, none of the plain ones */
    int32_t source_dtype;  /* what it dequantizes to, for other readers */
    int64_t rows, cols;
    const struct mmqi_layout *layout;
    float nested_offset; /* part 3 of a nested format; only mmqi_bnb_write_extra() looks at it */
};

/*
 * Declare its tensors: ids from *first, one for each part that is a tensor (its suffix is not NULL:
 * all but part 3 of nested formats, which is the last), in order, then those that describe it.
 * MMQ_ERR_UNSUPPORTED for a name that does not end in ".weight".
 */
int32_t mmqi_bnb_declare(struct mmqi_save *save, size_t *first,
                         const struct mmqi_bnb_matrix *matrix);
/* Write the tensors that describe it (the parts are the caller's to write). As the offset is known
 * only when every row is packed, the state's text ends with spaces up to a fixed length. */
int32_t mmqi_bnb_write_extra(struct mmqi_save *save, size_t first,
                             const struct mmqi_bnb_matrix *matrix);

/*
 * The text of config.json with a top-level "quantization_config" put in at its end, or in
 * place of the one that is there; the rest stays as it is. formats[i] is what weight i of
 * `model` is in the folder. Where bitsandbytes has one scheme for all that are packed, linears
 * alone (int8, or nf4 or fp4 of any block size, all flat or all nested), the config is its own;
 * otherwise quant_method is "libmmq", and "modules" maps each packed module to its format. Nothing
 * packed: the text as it is. *out is freed with mmqi_free().
 */
int32_t mmqi_bnb_config(char **out, size_t *out_size, const char *text, size_t size,
                        const struct mmqi_model *model, const int32_t *formats);

#endif
