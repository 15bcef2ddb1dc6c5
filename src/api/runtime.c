/* mmq_runtime: the public name of struct mmqi_runtime. */
#include "api/api.h"

struct mmqi_runtime *mmqi_runtime_of(const mmq_runtime *runtime)
{
    return (struct mmqi_runtime *)runtime;
}

mmq_status mmq_runtime_create(mmq_runtime **out, const mmq_runtime_options *options)
{
    struct mmqi_runtime_options core_options = {0};
    mmq_runtime_options o;
    int32_t status;

    if (!out)
        return mmqi_fail(MMQ_ERR_INVALID, "mmq_runtime_create: out is NULL");
    *out = NULL;
    status = MMQI_TAKE(&o, options, "mmq_runtime_options");
    if (status == MMQ_OK && o.reserved != 0)
        status = mmqi_fail(MMQ_ERR_INVALID, "mmq_runtime_options: reserved is not 0");
    if (status != MMQ_OK)
        return status;
    core_options.memory = (struct mmqi_mem_hooks){o.alloc, o.free, o.memory_user};
    core_options.log = (struct mmqi_log){o.log, o.log_user};
    core_options.parallel = o.parallel_for;
    core_options.parallel_user = o.parallel_user;
    core_options.n_threads = o.n_threads;
    core_options.cuda_library = o.cuda_library;
    return mmqi_runtime_create((struct mmqi_runtime **)out, &core_options);
}

void mmq_runtime_free(mmq_runtime *runtime)
{
    mmqi_runtime_release(mmqi_runtime_of(runtime));
}

const struct mmqi_mem_hooks *mmqi_model_enter(const mmq_model *model)
{
    return mmqi_runtime_enter(model ? model->host->runtime : NULL);
}
