/*
 * A plan: the choices of a policy for a model, and what they come to, before any work.
 */
#ifndef MMQI_QUANT_PLAN_H
#define MMQI_QUANT_PLAN_H

#include "quant/report.h"

struct mmqi_quant_plan {
    struct mmqi_choice *choices; /* [n_weights of the model it was made for] */
    int32_t n_weights;
    struct mmqi_report *report; /* finished; without what is measured */
};

/* Errors as of mmqi_policy_apply(). */
int32_t mmqi_quant_plan_create(struct mmqi_quant_plan **out, const struct mmqi_model *model,
                               const char *policy, int32_t method);
void mmqi_quant_plan_free(struct mmqi_quant_plan *plan); /* accepts NULL */

/* MMQ_ERR_MISMATCH where `model` has other weights than the one that the plan was made for. */
int32_t mmqi_quant_plan_check(const struct mmqi_quant_plan *plan, const struct mmqi_model *model);

/* Quantize-at-load: have the weights of a model that is not placed packed by `policy` when they are
 * placed. Errors as of mmqi_policy_apply(). */
int32_t mmqi_quant_at_load(struct mmqi_model *model, const char *policy);

#endif
