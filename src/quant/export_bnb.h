/*
 * Packed weights as bitsandbytes and transformers read them: the names of a
 * matrix's tensors, what describes it, and the quantization_config of the folder.
 *
 *   nf4   X.weight  X.weight.absmax  X.weight.quant_map  X.weight.quant_state.bitsandbytes__nf4
 *   int8  X.weight  X.SCB  X.weight_format
 */
#ifndef MMQI_QUANT_EXPORT_BNB_H
#define MMQI_QUANT_EXPORT_BNB_H

#include "model/model.h"
#include "quant/save.h"

/* A matrix on its way into a file. */
struct mmqi_bnb_matrix {
    const char *file_name; /* "X.weight", as the checkpoint spells it */
    int32_t format;        /* MMQI_FORMAT_INT8 or MMQI_FORMAT_NF4 */
    int32_t source_dtype;  /* what it dequantizes to, for other readers */
    int64_t rows, cols;
    const struct mmqi_layout *layout;
};

/* Declare its tensors: layout->n_parts ids from *first, in order, then those that describe it.
 * MMQ_ERR_UNSUPPORTED for a name that does not end in ".weight". */
int32_t mmqi_bnb_declare(struct mmqi_save *save, size_t *first,
                         const struct mmqi_bnb_matrix *matrix);
/* Write the tensors that describe it (the parts are the caller's to write). */
int32_t mmqi_bnb_write_extra(struct mmqi_save *save, size_t first,
                             const struct mmqi_bnb_matrix *matrix);

/*
 * The text of config.json with a top-level "quantization_config" put in at its end, or in
 * place of the one that is there; the rest stays as it is. `quantized[i]` tells which weights of
 * `model` are stored in `format`; *out is freed with mmqi_free().
 */
int32_t mmqi_bnb_config(char **out, size_t *out_size, const char *text, size_t size,
                        const struct mmqi_model *model, const bool *quantized, int32_t format);

#endif
