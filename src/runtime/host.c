#include "runtime/host.h"

#include <stdio.h>
#include <string.h>

#include "backend/host.h"
#include "core/mem.h"
#include "core/status.h"

/* The runtime's threads, or some of our own. */
static int32_t find_pool(struct mmqi_host *host, const struct mmqi_host_options *options)
{
    int32_t n;

    if (!options->runtime)
        return mmqi_pool_create(&host->pool, options->n_threads);
    n = mmqi_pool_threads(options->runtime->pool);
    if (options->n_threads != 0 && options->n_threads != n)
        return mmqi_fail(MMQ_ERR_INVALID, "device: %d threads; its runtime has %d",
                         (int)options->n_threads, (int)n);
    host->runtime = mmqi_runtime_retain(options->runtime);
    host->pool = host->runtime->pool;
    return MMQ_OK;
}

enum { MAX_BACKENDS = 8 };

static int32_t open_cuda(struct mmqi_host *host)
{
    const char *path = host->runtime ? host->runtime->cuda_library : NULL;
    int32_t status, n;

    if (path && *path == '\0')
        return mmqi_fail(MMQ_ERR_NO_DEVICE, "cuda: the runtime's options leave it out");
    status = mmqi_loader_open(&host->cuda, "cuda", path);
    if (status == MMQ_OK)
        status = host->cuda.backend->count(&mmqi_backend_host, &n);
    return status;
}

/* The message with the device's name before it. */
static int32_t name_device(int32_t status, const char *device)
{
    char reason[MMQI_MESSAGE_BYTES];

    snprintf(reason, sizeof reason, "%s", mmqi_message());
    return mmqi_fail(status, "device '%s': %s", device, reason);
}

/* The backend of the device's name, and the index there. */
static int32_t find_backend(struct mmqi_host *host, int32_t *index,
                            const struct mmqi_backend *const *backends, const char *device)
{
    const struct mmqi_backend *list[MAX_BACKENDS + 1] = {NULL};
    bool any = !device || strcmp(device, "auto") == 0;
    int32_t status = MMQ_OK, n = 0;

    if (any || strncmp(device, "cuda", 4) == 0) {
        status = open_cuda(host);
        if (status != MMQ_OK && !any)
            return name_device(status, device);
        if (status != MMQ_OK)
            mmqi_log(mmqi_host_log(host), MMQ_LOG_INFO, "auto: not on CUDA: %s", mmqi_message());
        else
            list[n++] = host->cuda.backend;
    }
    for (; *backends && n < MAX_BACKENDS; backends++)
        list[n++] = *backends;
    return mmqi_registry_find(&host->backend, index, list, device);
}

static int32_t open_device(struct mmqi_host *host, const struct mmqi_backend *const *backends,
                           const struct mmqi_host_options *options)
{
    struct mmqi_device_options device = {.host = &mmqi_backend_host};
    int32_t status = find_pool(host, options);

    if (status == MMQ_OK)
        status = find_backend(host, &device.index, backends, options->device);
    if (status == MMQ_OK)
        status = mmqi_isa_find(&device.isa, options->isa);
    if (status != MMQ_OK)
        return status;
    if (host->backend->host_memory)
        snprintf(host->name, sizeof host->name, "%s", host->backend->name);
    else
        snprintf(host->name, sizeof host->name, "%s:%d", host->backend->name, (int)device.index);
    device.pool = host->pool;
    device.log = mmqi_host_log(host);
    return host->backend->open(&host->device, &device);
}

int32_t mmqi_host_create(struct mmqi_host **out, const struct mmqi_backend *const *backends,
                         const struct mmqi_host_options *options)
{
    struct mmqi_host *host = mmqi_calloc(1, sizeof *host);
    int32_t status;

    *out = NULL;
    if (!host)
        return mmqi_fail(MMQ_ERR_NOMEM, "device: no memory for its handle");
    host->n_users = 1;
    host->limit = options->limit ? options->limit : UINT64_MAX;
    host->mutex = mmqi_os_mutex_create();
    if (!host->mutex)
        status = mmqi_fail(MMQ_ERR_NOMEM, "device: no memory for its lock");
    else
        status = open_device(host, backends, options);
    if (status == MMQ_OK)
        *out = host;
    else
        mmqi_host_release(host);
    return status;
}

struct mmqi_host *mmqi_host_retain(struct mmqi_host *host)
{
    __atomic_add_fetch(&host->n_users, 1, __ATOMIC_RELAXED);
    return host;
}

void mmqi_host_release(struct mmqi_host *host)
{
    if (!host || __atomic_sub_fetch(&host->n_users, 1, __ATOMIC_ACQ_REL) > 0)
        return;
    if (host->device)
        host->backend->close(host->device);
    mmqi_loader_close(&host->cuda);
    if (host->runtime)
        mmqi_runtime_release(host->runtime);
    else
        mmqi_pool_free(host->pool);
    mmqi_os_mutex_free(host->mutex);
    mmqi_free(host);
}

const struct mmqi_log *mmqi_host_log(const struct mmqi_host *host)
{
    return host->runtime ? &host->runtime->log : NULL;
}

int32_t mmqi_host_find_place(const struct mmqi_host *host, const char *device)
{
    size_t size = strlen(device);
    const char *rest = host->name + size;

    if (strncmp(host->name, device, size) != 0)
        return -1;
    return *rest == '\0' || strcmp(rest, ":0") == 0 ? 0 : -1;
}

int32_t mmqi_host_take(struct mmqi_host *host, uint64_t bytes, const char *what)
{
    int32_t status = MMQ_OK;
    uint64_t left;

    mmqi_os_lock(host->mutex);
    left = host->limit - host->used;
    if (bytes > left)
        status = mmqi_fail(MMQ_ERR_LIMIT, "%s: needs %llu bytes, the limit of %llu has %llu left",
                           what, (unsigned long long)bytes, (unsigned long long)host->limit,
                           (unsigned long long)left);
    else
        host->used += bytes;
    mmqi_os_unlock(host->mutex);
    return status;
}

void mmqi_host_give(struct mmqi_host *host, uint64_t bytes)
{
    mmqi_os_lock(host->mutex);
    host->used -= bytes;
    mmqi_os_unlock(host->mutex);
}
