/*
 * Devices: what there are, opening one, and its memory.
 *
 * A device uses the runtime's primary context, as everyone in the process
 * does. Every slot makes it current on its thread and puts back what was.
 * Blocks are kept in a list, since freeing must know their bytes.
 */
#include "cuda/device.h"

#include <cuda.h>
#include <stdio.h>
#include <string.h>

/* ---- what there are ---- */

static int32_t no_device(const struct mmqi_backend_host *host, cudaError_t error)
{
    int driver = 0, runtime = 0;
    char line[256];

    cudaDriverGetVersion(&driver);
    cudaRuntimeGetVersion(&runtime);
    if (driver == 0)
        snprintf(line, sizeof line, "cuda: there is no NVIDIA driver (libcuda)");
    else if (error == cudaErrorInsufficientDriver || error == cudaErrorCompatNotSupportedOnDevice)
        snprintf(line, sizeof line, "cuda: the NVIDIA driver is for CUDA %d.%d, %d.%d is needed",
                 driver / 1000, driver % 1000 / 10, runtime / 1000, runtime % 1000 / 10);
    else if (error == cudaSuccess || error == cudaErrorNoDevice)
        snprintf(line, sizeof line, "cuda: the NVIDIA driver shows no device");
    else
        snprintf(line, sizeof line, "cuda: the NVIDIA driver fails: %s", cudaGetErrorString(error));
    return host->fail(MMQ_ERR_NO_DEVICE, line);
}

int32_t mmqi_cuda_count(const struct mmqi_backend_host *host, int32_t *n)
{
    int count = 0;
    cudaError_t error = cudaGetDeviceCount(&count);

    *n = 0;
    if (error != cudaSuccess)
        cudaGetLastError();
    if (error != cudaSuccess || count <= 0)
        return no_device(host, error);
    *n = count;
    return MMQ_OK;
}

static int32_t check_index(const struct mmqi_backend_host *host, int32_t index)
{
    int32_t n, status = mmqi_cuda_count(host, &n);
    char line[80];

    if (status != MMQ_OK || (index >= 0 && index < n))
        return status;
    snprintf(line, sizeof line, "cuda:%d: there are %d", (int)index, (int)n);
    return host->fail(MMQ_ERR_NO_DEVICE, line);
}

int32_t mmqi_cuda_info(const struct mmqi_backend_host *host, int32_t index,
                       struct mmqi_device_info *info)
{
    struct cudaDeviceProp p;
    int32_t status = check_index(host, index);
    cudaError_t error;

    memset(info, 0, sizeof *info);
    if (status != MMQ_OK)
        return status;
    error = cudaGetDeviceProperties(&p, index);
    if (error != cudaSuccess) {
        cudaGetLastError();
        return no_device(host, error);
    }
    snprintf(info->name, sizeof info->name, "%.127s", p.name);
    info->total = p.totalGlobalMem;
    info->compute[0] = p.major;
    info->compute[1] = p.minor;
    return MMQ_OK;
}

/* ---- the current device ---- */

int mmqi_cuda_enter(const struct mmqi_device *device)
{
    int before = device->index;

    if (cudaGetDevice(&before) != cudaSuccess)
        cudaGetLastError();
    if (before != device->index && cudaSetDevice(device->index) != cudaSuccess)
        cudaGetLastError(); /* the call that follows fails, and tells */
    return before;
}

/* A device that nobody uses is not made current: it would get a context, and lose memory to it. */
void mmqi_cuda_leave(const struct mmqi_device *device, int before)
{
    unsigned flags;
    int active = 0;

    if (before == device->index || !device->context_state)
        return;
    if (device->context_state(before, &flags, &active) == 0 && active &&
        cudaSetDevice(before) != cudaSuccess)
        cudaGetLastError();
}

/* ---- opening ---- */

static int32_t attribute(struct mmqi_device *device, enum cudaDeviceAttr name, int *value)
{
    return MMQI_CUDA(device, cudaDeviceGetAttribute(value, name, device->index));
}

static int32_t find_facts(struct mmqi_device *device)
{
    int n = 0, major = 0, minor = 0, shared = 0;
    enum cudaDriverEntryPointQueryResult found;
    void *state = NULL;
    int32_t status = attribute(device, cudaDevAttrMultiProcessorCount, &n);

    if (status == MMQ_OK)
        status = attribute(device, cudaDevAttrComputeCapabilityMajor, &major);
    if (status == MMQ_OK)
        status = attribute(device, cudaDevAttrComputeCapabilityMinor, &minor);
    if (status == MMQ_OK)
        status = attribute(device, cudaDevAttrMaxSharedMemoryPerBlockOptin, &shared);
    if (status == MMQ_OK)
        status =
            MMQI_CUDA(device, cudaGetDriverEntryPointByVersion("cuDevicePrimaryCtxGetState", &state,
                                                               12000, cudaEnableDefault, &found));
    if (status != MMQ_OK)
        return status;
    if (found == cudaDriverEntryPointSuccess)
        *(void **)&device->context_state = state;
    device->n_multiprocessors = n;
    device->compute = 10 * major + minor;
    device->shared_bytes = (size_t)shared;
    if (device->compute < MMQI_CUDA_LEAST_COMPUTE)
        return mmqi_cuda_fail(device, MMQ_ERR_UNSUPPORTED,
                              "of compute capability %d.%d; 7.5 is the least", major, minor);
    return MMQ_OK;
}

static int32_t describe_device(struct mmqi_device *device)
{
    struct cudaDeviceProp p;
    int32_t status = MMQI_CUDA(device, cudaGetDeviceProperties(&p, device->index));

    if (status == MMQ_OK)
        snprintf(device->text, sizeof device->text,
                 "cuda:%d %.100s, compute capability %d.%d, %d multiprocessors", (int)device->index,
                 p.name, p.major, p.minor, p.multiProcessorCount);
    return status;
}

int32_t mmqi_cuda_open(struct mmqi_device **out, const struct mmqi_device_options *options)
{
    const struct mmqi_backend_host *host = options->host;
    struct mmqi_device *device;
    int32_t status;
    int before;

    *out = NULL;
    status = check_index(host, options->index);
    if (status != MMQ_OK)
        return status;
    device = host->calloc(1, sizeof *device);
    if (!device)
        return host->fail(MMQ_ERR_NOMEM, "cuda: no memory for a device");
    device->host = host;
    device->index = options->index;
    device->fault = options->fault;
    device->log = options->log;
    device->mutex = host->mutex_create();
    before = mmqi_cuda_enter(device);
    if (!device->mutex)
        status = host->fail(MMQ_ERR_NOMEM, "cuda: no memory for a lock");
    if (status == MMQ_OK)
        status = MMQI_CUDA(device, cudaSetDevice(device->index));
    if (status == MMQ_OK)
        status = find_facts(device);
    if (status == MMQ_OK)
        status = mmqi_cuda_probe(device);
    if (status == MMQ_OK)
        status = describe_device(device);
    if (status == MMQ_OK)
        status = mmqi_cuda_open_transfers(device);
    mmqi_cuda_leave(device, before);
    if (status == MMQ_OK)
        *out = device;
    else
        mmqi_cuda_close(device);
    return status;
}

void mmqi_cuda_close(struct mmqi_device *device)
{
    struct mmqi_cuda_block *block;
    int before;

    if (!device)
        return;
    before = mmqi_cuda_enter(device);
    mmqi_cuda_close_transfers(device);
    while ((block = device->blocks)) { /* none, where users free what they took */
        device->blocks = block->next;
        cudaFree(block->memory);
        device->host->free(block);
    }
    cudaGetLastError(); /* of a lost device */
    mmqi_cuda_leave(device, before);
    if (device->mutex)
        device->host->mutex_free(device->mutex);
    device->host->free(device);
}

const char *mmqi_cuda_describe(const struct mmqi_device *device)
{
    return device->text;
}

int64_t mmqi_cuda_set_fault(struct mmqi_device *device, struct mmqi_fault fault)
{
    int64_t n = device->fault.kind == MMQI_FAULT_ALLOC ? device->n_allocs : device->n_calls;

    device->fault = fault;
    device->n_calls = device->n_allocs = 0;
    return n;
}

/* ---- memory ---- */

static void count_block(struct mmqi_device *device, struct mmqi_cuda_block *block)
{
    device->host->lock(device->mutex);
    block->next = device->blocks;
    device->blocks = block;
    device->taken += block->size;
    if (device->taken > device->peak)
        device->peak = device->taken;
    device->host->unlock(device->mutex);
}

int32_t mmqi_cuda_alloc(struct mmqi_device *device, void **out, size_t size)
{
    struct mmqi_cuda_block *block = device->host->calloc(1, sizeof *block);
    int32_t status;
    int before;

    *out = NULL;
    if (!block)
        return mmqi_cuda_fail(device, MMQ_ERR_NOMEM, "no memory on the host for a block's record");
    before = mmqi_cuda_enter(device);
    status = MMQI_CUDA_ALLOC(device, cudaMalloc(&block->memory, size > 0 ? size : 1));
    mmqi_cuda_leave(device, before);
    if (status == MMQ_ERR_NOMEM)
        mmqi_cuda_fail(device, status, "no memory for %zu bytes", size);
    if (status != MMQ_OK) {
        device->host->free(block);
        return status;
    }
    block->size = size;
    *out = block->memory;
    count_block(device, block);
    return MMQ_OK;
}

/* The record of a block, taken out of the list; NULL where it is none of ours. */
static struct mmqi_cuda_block *forget_block(struct mmqi_device *device, const void *memory)
{
    struct mmqi_cuda_block **link, *block = NULL;

    device->host->lock(device->mutex);
    for (link = &device->blocks; *link && (*link)->memory != memory; link = &(*link)->next)
        ;
    if (*link) {
        block = *link;
        *link = block->next;
        device->taken -= block->size;
    }
    device->host->unlock(device->mutex);
    return block;
}

void mmqi_cuda_free(struct mmqi_device *device, void *memory)
{
    struct mmqi_cuda_block *block = memory ? forget_block(device, memory) : NULL;
    int before;

    if (!block)
        return;
    before = mmqi_cuda_enter(device);
    if (cudaFree(block->memory) != cudaSuccess)
        cudaGetLastError(); /* a lost device's memory went with it */
    mmqi_cuda_leave(device, before);
    device->host->free(block);
}

void mmqi_cuda_memory(struct mmqi_device *device, struct mmqi_device_memory *memory)
{
    size_t free = 0, total = 0, used;
    int before = mmqi_cuda_enter(device);

    memset(memory, 0, sizeof *memory);
    if (cudaMemGetInfo(&free, &total) != cudaSuccess) {
        cudaGetLastError();
        free = total = 0;
    }
    mmqi_cuda_leave(device, before);
    device->host->lock(device->mutex);
    memory->taken = device->taken;
    memory->peak = device->peak;
    device->host->unlock(device->mutex);
    used = total - free;
    memory->free = free;
    memory->total = total;
    memory->driver = used > memory->taken ? used - memory->taken : 0;
}
