/*
 * Policies: text that says which weight becomes what (the grammar stands in mmq.h), and the choice
 * that it makes for every weight of a model.
 *
 * Only linears, embedding and head can be chosen; other weights that a pattern covers are kept. A
 * weight that shares another's storage follows it.
 */
#ifndef MMQI_QUANT_POLICY_H
#define MMQI_QUANT_POLICY_H

#include "model/model.h"

struct mmqi_choice {
    int32_t format; /* enum mmqi_format: what the weight becomes */
    int32_t method; /* enum mmqi_method */
    bool change;    /* false: it stays as it is stored */
    char reason
        [96]; /* "rule 2: vision.* = nf4", "preset layered: language mlp", "kept: norm", "int8: rows too short ..." */
};

/*
 * choices[n_weights], freed with mmqi_free(). `method` is that of rules that name none.
 *
 *   MMQ_ERR_INVALID      does not parse, matches nothing, or splits a group (q k v; gate up): line and column
 *   MMQ_ERR_UNSUPPORTED  an unknown format, method or preset; a change of a weight that is quantized already
 */
int32_t mmqi_policy_apply(struct mmqi_choice **choices, const struct mmqi_model *model,
                          const char *policy, int32_t method);

#endif
