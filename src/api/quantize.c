/* mmq_quantize_layerwise and its report. */
#include <string.h>

#include "api/api.h"
#include "core/mem.h"
#include "quant/apply.h"

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

static int32_t take_options(struct mmqi_quantize_options *out, struct progress *progress,
                            const mmq_quantize_options *options)
{
    const struct mmqi_format_info *info;
    mmq_quantize_options o;
    int32_t status;

    memset(out, 0, sizeof *out);
    status = MMQI_TAKE(&o, options, "mmq_quantize_options");
    if (status != MMQ_OK)
        return status;
    if (!o.format)
        return mmqi_fail(MMQ_ERR_INVALID, "mmq_quantize_layerwise: no format is given");
    info = mmqi_format_find(o.format);
    if (!info || info->is_float)
        return mmqi_fail(MMQ_ERR_UNSUPPORTED, "format '%s': not one of int8, nf4", o.format);
    out->format = info->format;
    out->out_path = o.out_path;
    out->chunk_bytes = o.chunk_bytes;
    *progress = (struct progress){o.on_progress, o.progress_user};
    out->progress = o.on_progress ? tell_progress : NULL;
    out->progress_user = progress;
    out->cancel = mmqi_cancel_flag(o.cancel);
    return MMQ_OK;
}

/*
 * Quantize into handles that are there before the work begins: once a folder has its name, nothing
 * can fail any more. `model` and `report` are NULL where none is wanted.
 */
static int32_t quantize(mmq_model *model, const mmq_model *source,
                        const mmq_quantize_options *options, mmq_report *report)
{
    struct mmqi_quantize_options core_options;
    struct progress progress;
    int32_t status = take_options(&core_options, &progress, options);

    if (status != MMQ_OK)
        return status;
    core_options.pool = source->host->pool;
    return mmqi_quantize(model ? &model->core : NULL, source->core, &core_options,
                         report ? &report->core : NULL);
}

static void log_quantized(const mmq_model *source, const mmq_quantize_options *options,
                          bool in_memory)
{
    const struct mmqi_log *log = mmqi_host_log(source->host);
    mmq_quantize_options o;

    if (!log || MMQI_TAKE(&o, options, "mmq_quantize_options") != MMQ_OK)
        return;
    mmqi_log(log, MMQ_LOG_INFO, "%s: quantized%s%s%s", source->core->path,
             in_memory ? " into memory" : "", o.out_path ? " into " : "",
             o.out_path ? o.out_path : "");
}

/* The whole call, under the hooks of the source's runtime. */
static int32_t quantize_layerwise(mmq_model **quantized, const mmq_model *source,
                                  const mmq_quantize_options *options, mmq_report **report)
{
    mmq_model *model = NULL;
    mmq_report *made = NULL;
    int32_t status = MMQ_OK;

    if (report && !(made = mmqi_calloc(1, sizeof *made)))
        status = mmqi_fail(MMQ_ERR_NOMEM, "mmq_quantize_layerwise: no memory for the report");
    if (status == MMQ_OK && quantized)
        status = mmqi_model_handle(&model, mmqi_host_retain(source->host));
    if (status == MMQ_OK)
        status = quantize(model, source, options, made);
    if (status != MMQ_OK) {
        mmq_model_free(model);
        mmq_report_free(made);
        return mmqi_model_failed(source, status);
    }
    log_quantized(source, options, quantized != NULL);
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
