/* mmq_plan: what a policy would do. */
#include "api/api.h"
#include "core/mem.h"
#include "quant/plan.h"

mmq_status mmq_plan_create(mmq_plan **out, const mmq_model *model, const char *policy)
{
    const struct mmqi_mem_hooks *hooks;
    mmq_plan *plan;
    int32_t status;

    if (out)
        *out = NULL;
    if (!out || !model || !policy)
        return mmqi_model_failed(
            model, mmqi_fail(MMQ_ERR_INVALID, "mmq_plan_create: out, model or policy is NULL"));
    hooks = mmqi_model_enter(model);
    plan = mmqi_calloc(1, sizeof *plan);
    status = plan ? mmqi_quant_plan_create(&plan->core, model->core, policy, MMQI_METHOD_RTN)
                  : mmqi_fail(MMQ_ERR_NOMEM, "mmq_plan_create: no memory for the plan");
    if (status == MMQ_OK)
        *out = plan;
    else
        mmq_plan_free(plan);
    mmqi_mem_enter(hooks);
    return mmqi_model_failed(model, status);
}

const char *mmq_plan_json(const mmq_plan *plan)
{
    return plan ? mmqi_report_json(plan->core->report) : "";
}

void mmq_plan_free(mmq_plan *plan)
{
    if (!plan)
        return;
    mmqi_quant_plan_free(plan->core);
    mmqi_free(plan);
}
