/* Devices: what there is to load models on, and how fast one is. */
#include <stdio.h>
#include <string.h>

#include "api/api.h"
#include "core/os.h"

/* A list of devices needs the runtime's hooks: the library of CUDA devices may be opened for it. */
static int32_t find(struct mmqi_device_listing *out, int32_t *n, const mmq_runtime *runtime,
                    int32_t index)
{
    struct mmqi_runtime *core = mmqi_runtime_of(runtime);
    const struct mmqi_mem_hooks *hooks = mmqi_runtime_enter(core);
    int32_t status = mmqi_host_find(out, n, mmqi_backends, core, index);

    mmqi_mem_enter(hooks);
    return status;
}

mmq_status mmq_device_count(int32_t *n, const mmq_runtime *runtime)
{
    if (!n)
        return mmqi_fail(MMQ_ERR_INVALID, "mmq_device_count: n is NULL");
    return find(NULL, n, runtime, 0);
}

mmq_status mmq_device_info(mmq_device_facts *facts, const mmq_runtime *runtime, int32_t index)
{
    struct mmqi_device_listing listing = {{0}, {0}, false, {{0}, 0, {0}}};
    mmq_device_facts f = {0};
    int32_t n, status = mmqi_clear_struct(facts, "mmq_device_facts");

    if (status == MMQ_OK)
        status = find(&listing, &n, runtime, index);
    if (status == MMQ_OK && (index < 0 || index >= n))
        status = mmqi_fail(MMQ_ERR_NOT_FOUND, "there is no device number %d", (int)index);
    if (status != MMQ_OK)
        return status;
    snprintf(f.id, sizeof f.id, "%s", listing.id);
    snprintf(f.kind, sizeof f.kind, "%s", listing.kind);
    snprintf(f.name, sizeof f.name, "%s", listing.info.name);
    if (listing.info.compute[0] > 0)
        snprintf(f.compute, sizeof f.compute, "%d.%d", (int)listing.info.compute[0],
                 (int)listing.info.compute[1]);
    f.total_bytes = listing.info.total;
    if (strcmp(f.kind, "cpu") == 0)
        mmqi_os_memory(&f.total_bytes, &f.free_bytes);
    f.has_fast = listing.fast;
    MMQI_GIVE(facts, &f);
    return MMQ_OK;
}

enum { MEASURED_BYTES = 1 << 30 };

static int32_t measure(struct mmqi_rates *rates, struct mmqi_host *host, int32_t index,
                       uint64_t bytes)
{
    const struct mmqi_place *at = &host->place[index].at;
    int32_t status;

    if (bytes > SIZE_MAX / 2)
        return mmqi_fail(MMQ_ERR_LIMIT, "mmq_measure_device: %llu bytes are more than any memory",
                         (unsigned long long)bytes);
    status = mmqi_host_take_at(host, index, bytes, "measuring");
    if (status != MMQ_OK)
        return status;
    status = at->backend->measure(at->device, bytes, rates);
    mmqi_host_give_at(host, index, bytes);
    return status;
}

mmq_status mmq_measure_device(mmq_rates *rates, const mmq_model *model, int32_t index,
                              uint64_t bytes)
{
    const struct mmqi_mem_hooks *hooks;
    struct mmqi_rates measured;
    mmq_rates r = {0};
    int32_t status = mmqi_clear_struct(rates, "mmq_rates");

    if (status == MMQ_OK && !model)
        status = mmqi_fail(MMQ_ERR_INVALID, "mmq_measure_device: model is NULL");
    if (status == MMQ_OK && (index < 0 || index >= model->host->n_places))
        status = mmqi_fail(MMQ_ERR_NOT_FOUND, "%s: it is on no device number %d", model->core->path,
                           (int)index);
    if (status != MMQ_OK)
        return mmqi_model_failed(model, status);
    hooks = mmqi_model_enter(model);
    status = measure(&measured, model->host, index, bytes ? bytes : MEASURED_BYTES);
    mmqi_mem_enter(hooks);
    if (status != MMQ_OK)
        return mmqi_model_failed(model, status);
    r.read_bytes_per_second = measured.read;
    r.copy_bytes_per_second = measured.copy;
    r.exact_flop_per_second = measured.product[MMQI_MODE_EXACT];
    r.fast_flop_per_second = measured.product[MMQI_MODE_FAST];
    MMQI_GIVE(rates, &r);
    return MMQ_OK;
}
