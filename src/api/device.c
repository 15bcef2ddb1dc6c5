/* mmq_device_count and mmq_device_info: what there is to load models on. */
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
