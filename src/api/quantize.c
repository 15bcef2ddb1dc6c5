/* mmq_quantize_layerwise and its report. */
#include <string.h>

#include "api/api.h"
#include "core/mem.h"
#include "quant/apply.h"
#include "quant/plan.h"

struct mmq_report {
    struct mmqi_report *core;
};

/* The caller's progress, called as the host's own code. */
struct progress {
    mmq_progress_fn fn;
    void *user;
};

static int32_t tell_progress(void *user, uint64_t done, uint64_t total)
{
    const struct progress *progress = user;
    const struct mmqi_mem_hooks *hooks = mmqi_mem_enter(NULL);
    int32_t said = progress->fn(progress->user, done, total);

    mmqi_mem_enter(hooks);
    return said;
}

/* *made is what out->choices lie in, freed with mmqi_quant_plan_free(); NULL where the caller's
 * plan serves. */
static int32_t take_choices(struct mmqi_quantize_options *out, struct mmqi_quant_plan **made,
                            const struct mmqi_model *source, const mmq_quantize_options *o)
{
    int32_t method = MMQI_METHOD_RTN, status;

    *made = NULL;
    if (o->method)
        method = mmqi_method_find(o->method);
    if (method < 0)
        return mmqi_fail(MMQ_ERR_UNSUPPORTED, "method '%s': not one of rtn, search", o->method);
    if (!o->plan && !o->format)
        return mmqi_fail(MMQ_ERR_INVALID, "mmq_quantize_layerwise: no format and no plan is given");
    if (o->plan && (o->format || o->method))
        return mmqi_fail(MMQ_ERR_INVALID,
                         "mmq_quantize_layerwise: a plan leaves no format or method to give");
    if (o->plan) {
        out->choices = o->plan->core->choices;
        return mmqi_quant_plan_check(o->plan->core, source);
    }
    status = mmqi_quant_plan_create(made, source, o->format, method);
    if (status == MMQ_OK)
        out->choices = (*made)->choices;
    return status;
}

/* The host of the device that packs, to be released: the source's own where it has it. NULL without
 * a device. */
static int32_t take_host(struct mmqi_quantize_options *out, const mmq_model *source,
                         const char *device)
{
    struct mmqi_host_options options = {.device = device, .runtime = source->host->runtime};
    int32_t place;

    if (!device)
        return MMQ_OK;
    if (strchr(device, '='))
        return mmqi_fail(MMQ_ERR_INVALID, "mmq_quantize_layerwise: one device packs, no map");
    place = mmqi_host_find_place(source->host, device);
    if (place < 0)
        return mmqi_host_create(&out->host, mmqi_backends, &options);
    out->host = mmqi_host_retain(source->host);
    out->place = place;
    return MMQ_OK;
}

/*
 * Quantize into handles that are there before the work begins: once a folder has its name, nothing
 * can fail any more. `model` and `report` are NULL where none is wanted.
 */
static int32_t quantize(mmq_model *model, const mmq_model *source, const mmq_quantize_options *o,
                        mmq_report *report)
{
    struct progress progress = {o->on_progress, o->progress_user};
    struct mmqi_quantize_options core = {0};
    struct mmqi_quant_plan *made = NULL;
    int32_t status = take_choices(&core, &made, source->core, o);

    if (status == MMQ_OK)
        status = take_host(&core, source, o->device);
    if (status == MMQ_OK) {
        core.out_path = o->out_path;
        core.chunk_bytes = o->chunk_bytes;
        core.progress = o->on_progress ? tell_progress : NULL;
        core.progress_user = &progress;
        core.cancel = mmqi_cancel_flag(o->cancel);
        core.pool = source->host->pool;
        status = mmqi_quantize(model ? &model->core : NULL, source->core, &core,
                               report ? &report->core : NULL);
    }
    mmqi_host_release(core.host);
    mmqi_quant_plan_free(made);
    return status;
}

static void log_quantized(const mmq_model *source, const mmq_quantize_options *o, bool in_memory)
{
    mmqi_log(mmqi_host_log(source->host), MMQ_LOG_INFO, "%s: quantized by %s%s%s%s",
             source->core->path, o->plan ? "a plan" : o->format, in_memory ? " into memory" : "",
             o->out_path ? " into " : "", o->out_path ? o->out_path : "");
}

/* The whole call, under the hooks of the source's runtime. */
static int32_t quantize_layerwise(mmq_model **quantized, const mmq_model *source,
                                  const mmq_quantize_options *options, mmq_report **report)
{
    mmq_model *model = NULL;
    mmq_report *made = NULL;
    mmq_quantize_options o;
    int32_t status = MMQI_TAKE(&o, options, "mmq_quantize_options");

    if (status == MMQ_OK && report && !(made = mmqi_calloc(1, sizeof *made)))
        status = mmqi_fail(MMQ_ERR_NOMEM, "mmq_quantize_layerwise: no memory for the report");
    if (status == MMQ_OK && quantized)
        status = mmqi_model_handle(&model, mmqi_host_retain(source->host));
    if (status == MMQ_OK)
        status = quantize(model, source, &o, made);
    if (status != MMQ_OK) {
        mmq_model_free(model);
        mmq_report_free(made);
        return mmqi_model_failed(source, status);
    }
    log_quantized(source, &o, quantized != NULL);
    if (quantized)
        *quantized = model;
    if (report)
        *report = made;
    return MMQ_OK;
}

mmq_status mmq_quantize_layerwise(mmq_model **quantized, const mmq_model *source,
                                  const mmq_quantize_options *options, mmq_report **report)
{
    const struct mmqi_mem_hooks *hooks;
    int32_t status;

    if (quantized)
        *quantized = NULL;
    if (report)
        *report = NULL;
    if (!source)
        return mmqi_fail(MMQ_ERR_INVALID, "mmq_quantize_layerwise: source is NULL");
    hooks = mmqi_model_enter(source);
    status = quantize_layerwise(quantized, source, options, report);
    mmqi_mem_enter(hooks);
    return status;
}

const char *mmq_report_json(const mmq_report *report)
{
    return report ? mmqi_report_json(report->core) : "";
}

void mmq_report_free(mmq_report *report)
{
    if (!report)
        return;
    mmqi_report_free(report->core);
    mmqi_free(report);
}
