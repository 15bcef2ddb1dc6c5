/*
 * Policies: text that says which weight becomes what (the grammar stands in mmq.h), and the choice
 * that it makes for every weight of a model.
 *
 * Only linears, embedding and head can be chosen; other weights that a pattern covers are kept. A
 * weight that shares another's storage follows it, and a rule may name either.
 */
#ifndef MMQI_QUANT_POLICY_H
#define MMQI_QUANT_POLICY_H

#include "model/model.h"

struct mmqi_choice {
    int32_t format; /* enum mmqi_format: what the weight becomes */
    int32_t method; /* enum mmqi_method */
    bool change;    /* false: it stays as it is stored */
    /* "rule 2: vision.* = nf4", "layered: language mlp", "kept: norm" ... */
    char reason[96];
};

/*
 * choices[n_weights], freed with mmqi_free(). `method` is that of rules that name none. The choices
 * are about what the weights' source holds (mmqi_weight.stored).
 *
 *   MMQ_ERR_INVALID      does not parse, matches nothing, or splits a group (q k v; gate up): line
 *                        and column
 *   MMQ_ERR_LIMIT        more than 64 KiB of text
 *   MMQ_ERR_UNSUPPORTED  an unknown format, method or preset; a change of a weight that is
 *                        quantized already
 */
int32_t mmqi_policy_apply(struct mmqi_choice **choices, const struct mmqi_model *model,
                          const char *policy, int32_t method);

/* "rtn", "search"; "none" for any other number. Static text. */
const char *mmqi_method_name(int32_t method);
/* enum mmqi_method; -1 for an unknown name. */
int32_t mmqi_method_find(const char *name);

#endif
