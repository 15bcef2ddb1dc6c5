/*
 * libmmq-emulated.so: the kernels of cuda/ on the host, behind the table of the CUDA backend, for
 * TEST_DEVICE=cuda:0 TEST_CUDA_LIBRARY=.../libmmq-emulated.so. It tests what kernels compute and
 * touch, not the CUDA runtime around them: memory is the host's, every op is done when it returns.
 *
 * EMULATED_COMPUTE (90) and EMULATED_SHARED (232448) choose another device, as 75 and 65536;
 * EMULATED_DEVICES (1) says how many there are.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cuda/cuda.h"

/* ---- the calls of the CUDA runtime that cuda/call.c makes ---- */

cudaError_t cudaGetLastError(void)
{
    return cudaSuccess;
}

const char *cudaGetErrorString(cudaError_t error)
{
    return error == cudaErrorMemoryAllocation ? "out of memory" : "an emulated error";
}

const char *cublasLtGetStatusString(cublasStatus_t status)
{
    return status == CUBLAS_STATUS_NOT_SUPPORTED ? "not supported" : "an emulated error";
}

/* ---- devices ---- */

static int setting(const char *name, int otherwise)
{
    const char *value = getenv(name);

    return value && *value ? atoi(value) : otherwise;
}

static int32_t emulated_count(const struct mmqi_backend_host *host, int32_t *n)
{
    (void)host;
    *n = setting("EMULATED_DEVICES", 1);
    return MMQ_OK;
}

static int32_t emulated_info(const struct mmqi_backend_host *host, int32_t index,
                             struct mmqi_device_info *info)
{
    (void)host, (void)index;
    memset(info, 0, sizeof *info);
    snprintf(info->name, sizeof info->name, "emulated");
    info->compute[0] = setting("EMULATED_COMPUTE", 90) / 10;
    return MMQ_OK;
}

static int32_t emulated_open(struct mmqi_device **out, const struct mmqi_device_options *options)
{
    struct mmqi_device *device = calloc(1, sizeof *device);

    *out = device;
    if (!device)
        return options->host->fail(MMQ_ERR_NOMEM, "no memory for an emulated device");
    device->host = options->host;
    device->index = options->index;
    device->fault = options->fault;
    device->n_multiprocessors = 132;
    device->compute = setting("EMULATED_COMPUTE", 90);
    device->shared_bytes = (size_t)setting("EMULATED_SHARED", 227 * 1024);
    if (MMQI_CUDA(device, cudaSuccess) == MMQ_OK)
        return MMQ_OK;
    free(device);
    *out = NULL;
    return MMQ_ERR_DEVICE;
}

static void emulated_close(struct mmqi_device *device)
{
    free(device);
}

static const char *emulated_describe(const struct mmqi_device *device)
{
    (void)device;
    return "emulated";
}

/* What lies in front of every block. */
struct front {
    _Alignas(MMQI_CUDA_ALIGN) size_t size;
};

static cudaError_t take(struct mmqi_device *device, void **out, size_t size)
{
    size_t rounded = (size + MMQI_CUDA_ALIGN - 1) / MMQI_CUDA_ALIGN * MMQI_CUDA_ALIGN;
    struct front *front = aligned_alloc(MMQI_CUDA_ALIGN, sizeof *front + rounded);

    if (!front)
        return cudaErrorMemoryAllocation;
    front->size = size;
    *out = memset(front + 1, 0xff, rounded); /* NaN */
    device->taken += size;
    device->peak = device->taken > device->peak ? device->taken : device->peak;
    return cudaSuccess;
}

static int32_t emulated_alloc(struct mmqi_device *device, void **out, size_t size)
{
    *out = NULL;
    return MMQI_CUDA_ALLOC(device, take(device, out, size));
}

static void emulated_free(struct mmqi_device *device, void *memory)
{
    if (!memory)
        return;
    device->taken -= ((struct front *)memory - 1)->size;
    free((struct front *)memory - 1);
}

static int32_t emulated_move(struct mmqi_device *device, void *dst, const void *src, size_t size)
{
    int32_t status = MMQI_CUDA(device, cudaSuccess);

    if (status == MMQ_OK && size > 0)
        memmove(dst, src, size);
    return status;
}

static int32_t emulated_pack(struct mmqi_device *device, struct mmqi_wmat *w, void *block,
                             const struct mmqi_layout *layout)
{
    (void)device;
    memset(w->part, 0, sizeof w->part);
    for (int32_t i = 0; i < layout->n_parts; i++)
        w->part[i] = (const uint8_t *)block + layout->part[i].offset;
    return MMQ_OK;
}

static int32_t emulated_pack_rows(struct mmqi_device *device, const struct mmqi_pack_job *job)
{
    device->host->format_info(job->format)
        ->pack(job->part, job->w, job->rows, job->cols, job->method);
    return MMQ_OK;
}

static void emulated_memory(struct mmqi_device *device, struct mmqi_device_memory *memory)
{
    memset(memory, 0, sizeof *memory);
    memory->taken = device->taken;
    memory->peak = device->peak;
}

static int32_t emulated_measure(struct mmqi_device *device, uint64_t bytes,
                                struct mmqi_rates *rates)
{
    (void)bytes;
    memset(rates, 0, sizeof *rates);
    return mmqi_cuda_fail(device, MMQ_ERR_UNSUPPORTED, "emulated: it has no speed");
}

static int64_t emulated_fault(struct mmqi_device *device, struct mmqi_fault fault)
{
    int64_t n = device->fault.kind == MMQI_FAULT_ALLOC ? device->n_allocs : device->n_calls;

    device->fault = fault;
    device->n_calls = device->n_allocs = 0;
    return n;
}

/* ---- streams ---- */

static size_t emulated_stream_bytes(const struct mmqi_device *device,
                                    const struct mmqi_stream_options *options)
{
    return mmqi_cuda_scratch_bytes(device, options);
}

static void emulated_stream_close(struct mmqi_stream *stream)
{
    if (!stream)
        return;
    emulated_free(stream->device, stream->scratch);
    free(stream->picks);
    free(stream->counters);
    free(stream->notes);
    free(stream);
}

static int32_t emulated_stream_open(struct mmqi_device *device,
                                    const struct mmqi_stream_options *options,
                                    struct mmqi_stream **out)
{
    struct mmqi_stream *stream = calloc(1, sizeof *stream);
    void *scratch = NULL;
    int32_t status = MMQ_ERR_NOMEM;

    *out = NULL;
    if (!stream)
        return status;
    stream->notes = calloc(MMQI_NOTES, MMQI_NOTE_BYTES);
    stream->counters = calloc(MMQI_CUDA_COUNTERS, sizeof *stream->counters);
    stream->picks = calloc(MMQI_CUDA_PICKS, sizeof *stream->picks);
    if (stream->notes && stream->counters && stream->picks) {
        stream->device = device;
        stream->options = *options;
        if (setting("EMULATED_FAST", 0))
            stream->options.mode = MMQI_MODE_FAST;
        stream->scratch_bytes = mmqi_cuda_scratch_bytes(device, &stream->options);
        status = emulated_alloc(device, &scratch, stream->scratch_bytes);
        stream->scratch = scratch;
    }
    if (status == MMQ_OK) {
        *out = stream;
        return MMQ_OK;
    }
    free(stream->picks);
    free(stream->counters);
    free(stream->notes);
    free(stream);
    return status;
}

static int32_t emulated_stream_wait(struct mmqi_stream *stream)
{
    int32_t status = mmqi_cuda_flush(stream);

    return status == MMQ_OK ? MMQI_CUDA(stream->device, cudaSuccess) : status;
}

static int32_t emulated_note(struct mmqi_stream *stream, int32_t note, const void *src, size_t size)
{
    int32_t status = mmqi_cuda_flush(stream);

    if (status == MMQ_OK)
        status = MMQI_CUDA(stream->device, cudaSuccess);
    if (status == MMQ_OK)
        memcpy(stream->notes + note * MMQI_NOTE_BYTES, src, size);
    return status;
}

static int32_t emulated_read_note(struct mmqi_stream *stream, int32_t note, void *dst, size_t size)
{
    int32_t status = MMQI_CUDA(stream->device, cudaSuccess);

    if (status == MMQ_OK)
        memcpy(dst, stream->notes + note * MMQI_NOTE_BYTES, size);
    return status;
}

static int32_t emulated_execute(struct mmqi_stream *stream, const struct mmqi_graph *graph,
                                const struct mmqi_plan *plan, const struct mmqi_run *run,
                                int32_t begin, int32_t end)
{
    int32_t status =
        stream->device->host->graph_execute(stream, &mmqi_cuda_ops, graph, plan, run, begin, end);

    if (status != MMQ_OK)
        mmqi_cuda_forget_waiting(stream);
    return status == MMQ_OK ? mmqi_cuda_flush(stream) : status;
}

static const struct mmqi_backend emulated_backend = {
    .name = "cuda",
    .fast = true,
    .count = emulated_count,
    .info = emulated_info,
    .open = emulated_open,
    .close = emulated_close,
    .describe = emulated_describe,
    .alloc = emulated_alloc,
    .free = emulated_free,
    .upload = emulated_move,
    .download = emulated_move,
    .copy = emulated_move,
    .pack = emulated_pack,
    .pack_rows = emulated_pack_rows,
    .memory = emulated_memory,
    .measure = emulated_measure,
    .fault = emulated_fault,
    .stream_open = emulated_stream_open,
    .stream_wait = emulated_stream_wait,
    .stream_close = emulated_stream_close,
    .note = emulated_note,
    .read_note = emulated_read_note,
    .stream_bytes = emulated_stream_bytes,
    .execute = emulated_execute,
    .ops = &mmqi_cuda_ops,
};

__attribute__((visibility("default"))) int32_t
mmqi_cuda_backend(uint32_t abi, const struct mmqi_backend_host *host,
                  const struct mmqi_backend **out);

int32_t mmqi_cuda_backend(uint32_t abi, const struct mmqi_backend_host *host,
                          const struct mmqi_backend **out)
{
    (void)host;
    if (abi != MMQI_BACKEND_ABI)
        return MMQ_ERR_UNSUPPORTED;
    *out = &emulated_backend;
    return MMQ_OK;
}
