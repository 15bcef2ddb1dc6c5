/* mmq_quantize_layerwise and its report. */
#include <string.h>

#include "api/api.h"
#include "core/mem.h"
#include "quant/apply.h"

struct mmq_report {
    struct mmqi_report *core;
};

static int32_t take_options(struct mmqi_quantize_options *out, const mmq_quantize_options *options)
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
    out->progress = o.on_progress;
    out->progress_user = o.progress_user;
    out->cancel = mmqi_cancel_flag(o.cancel);
    return MMQ_OK;
}

/* Hand the core's results to the caller in handles of the api. */
static int32_t wrap(mmq_model **quantized, mmq_report **report, struct mmqi_model *core,
                    struct mmqi_report *core_report, const mmq_model *source)
{
    mmq_report *made = NULL;
    int32_t status = MMQ_OK;

    if (report) {
        made = mmqi_calloc(1, sizeof *made);
        if (!made) {
            mmqi_report_free(core_report);
            mmqi_model_close(core);
            return mmqi_fail(MMQ_ERR_NOMEM, "mmq_quantize_layerwise: no memory for the report");
        }
        made->core = core_report;
    }
    if (core)
        status = mmqi_model_wrap(quantized, core, mmqi_host_retain(source->host));
    if (status == MMQ_OK && report)
        *report = made;
    else
        mmq_report_free(made);
    return status;
}

mmq_status mmq_quantize_layerwise(mmq_model **quantized, const mmq_model *source,
                                  const mmq_quantize_options *options, mmq_report **report)
{
    struct mmqi_quantize_options core_options;
    struct mmqi_model *core = NULL;
    struct mmqi_report *core_report = NULL;
    int32_t status;

    if (quantized)
        *quantized = NULL;
    if (report)
        *report = NULL;
    if (!source)
        return mmqi_fail(MMQ_ERR_INVALID, "mmq_quantize_layerwise: source is NULL");
    status = take_options(&core_options, options);
    if (status != MMQ_OK)
        return status;
    core_options.pool = source->host->pool;
    status = mmqi_quantize(quantized ? &core : NULL, source->core, &core_options,
                           report ? &core_report : NULL);
    if (status != MMQ_OK)
        return status;
    return wrap(quantized, report, core, core_report, source);
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
