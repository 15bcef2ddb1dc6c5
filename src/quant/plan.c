/*
 * Plans, and policies for weights that are packed while they are placed.
 */
#include "quant/plan.h"

#include <string.h>

#include "core/mem.h"
#include "core/status.h"

int32_t mmqi_quant_plan_create(struct mmqi_quant_plan **out, const struct mmqi_model *model,
                               const char *policy, int32_t method)
{
    struct mmqi_quant_plan *plan = mmqi_calloc(1, sizeof *plan);
    int32_t status;

    *out = NULL;
    if (!plan)
        return mmqi_fail(MMQ_ERR_NOMEM, "no memory for a plan");
    plan->n_weights = model->n_weights;
    status = mmqi_policy_apply(&plan->choices, model, policy, method);
    if (status == MMQ_OK)
        status = mmqi_report_create(&plan->report);
    if (status == MMQ_OK)
        status = mmqi_report_add_choices(plan->report, model, plan->choices);
    if (status == MMQ_OK)
        status = mmqi_report_finish(plan->report);
    if (status != MMQ_OK) {
        mmqi_quant_plan_free(plan);
        return status;
    }
    *out = plan;
    return MMQ_OK;
}

void mmqi_quant_plan_free(struct mmqi_quant_plan *plan)
{
    if (!plan)
        return;
    mmqi_report_free(plan->report);
    mmqi_free(plan->choices);
    mmqi_free(plan);
}

static bool is_same(const struct mmqi_weight *weight, const struct mmqi_report_item *item)
{
    return strcmp(weight->name, item->name) == 0 && weight->rows == item->rows &&
           weight->cols == item->cols && (weight->same_as >= 0) == (item->source_bytes == 0) &&
           strcmp(mmqi_format_info(weight->stored)->name, item->was) == 0;
}

int32_t mmqi_quant_plan_check(const struct mmqi_quant_plan *plan, const struct mmqi_model *model)
{
    const struct mmqi_report *report = plan->report;
    size_t n = 0;

    if (plan->n_weights != model->n_weights)
        return mmqi_fail(MMQ_ERR_MISMATCH, "%s: has %d weights, the plan is for %d", model->path,
                         (int)model->n_weights, (int)plan->n_weights);
    for (int32_t i = 0; i < model->n_weights; i++) {
        const struct mmqi_weight *weight = &model->weights[i];

        if (weight->role == MMQI_ROLE_CONSTANT)
            continue;
        if (n >= report->n_items || !is_same(weight, &report->items[n++]))
            return mmqi_fail(MMQ_ERR_MISMATCH, "%s: '%s' is not as in the plan", model->path,
                             weight->name);
    }
    return MMQ_OK;
}

int32_t mmqi_quant_at_load(struct mmqi_model *model, const char *policy)
{
    struct mmqi_choice *choices;
    int32_t status = mmqi_policy_apply(&choices, model, policy, MMQI_METHOD_RTN);

    for (int32_t i = 0; i < model->n_weights && status == MMQ_OK; i++)
        if (choices[i].change && model->weights[i].same_as < 0)
            status = mmqi_model_choose(model, i, choices[i].format, choices[i].method);
    mmqi_free(choices);
    return status;
}
