/* Streams: a queue of work, the scratch of its ops, cuBLASLt, and notes for the host. */
#include <assert.h>
#include <string.h>

#include "cuda/device.h"

enum {
    COUNTER_BYTES = MMQI_CUDA_COUNTERS * sizeof(unsigned),
    OWN_BYTES = MMQI_CUDA_WORKSPACE + COUNTER_BYTES +
                MMQI_CUDA_PICKS * sizeof(struct mmqi_cuda_pick) /* beside scratch */
};
static_assert(OWN_BYTES % MMQI_CUDA_ALIGN == 0, "scratch follows");

static size_t round_up(size_t bytes)
{
    return (bytes + MMQI_CUDA_ALIGN - 1) / MMQI_CUDA_ALIGN * MMQI_CUDA_ALIGN;
}

size_t mmqi_cuda_stream_bytes(const struct mmqi_device *device,
                              const struct mmqi_stream_options *options)
{
    size_t scratch = mmqi_cuda_scratch_bytes(device, options);

    /* What no device holds is refused when it is asked for. */
    if (scratch > SIZE_MAX / 2)
        return SIZE_MAX / 2;
    return round_up(scratch) + OWN_BYTES;
}

static int32_t open_notes(struct mmqi_stream *stream)
{
    struct mmqi_device *device = stream->device;
    int32_t status = MMQI_CUDA_ALLOC(
        device, cudaMallocHost((void **)&stream->notes, (size_t)MMQI_NOTES * MMQI_NOTE_BYTES));

    for (int i = 0; i < MMQI_NOTES && status == MMQ_OK; i++)
        status =
            MMQI_CUDA(device, cudaEventCreateWithFlags(&stream->noted[i], cudaEventDisableTiming));
    return status;
}

static int32_t open_queue(struct mmqi_stream *stream)
{
    struct mmqi_device *device = stream->device;
    size_t bytes = mmqi_cuda_stream_bytes(device, &stream->options);
    void *memory;
    int32_t status = mmqi_cuda_alloc(device, &memory, bytes);

    if (status != MMQ_OK)
        return status;
    stream->workspace = memory;
    stream->counters = (unsigned *)((uint8_t *)memory + MMQI_CUDA_WORKSPACE);
    stream->picks = (struct mmqi_cuda_pick *)(stream->counters + MMQI_CUDA_COUNTERS);
    stream->scratch = (uint8_t *)memory + OWN_BYTES;
    stream->scratch_bytes = bytes - OWN_BYTES;
    status = MMQI_CUDA(device, cudaStreamCreateWithFlags(&stream->stream, cudaStreamNonBlocking));
    if (status == MMQ_OK)
        status =
            MMQI_CUDA(device, cudaMemsetAsync(stream->counters, 0, COUNTER_BYTES, stream->stream));
    if (status == MMQ_OK)
        status = MMQI_CUBLAS(device, cublasLtCreate(&stream->lt));
    return status == MMQ_OK ? open_notes(stream) : status;
}

int32_t mmqi_cuda_stream_open(struct mmqi_device *device, const struct mmqi_stream_options *options,
                              struct mmqi_stream **out)
{
    struct mmqi_stream *stream;
    int32_t status;
    int before;

    *out = NULL;
    if (options->mode != MMQI_MODE_EXACT && options->mode != MMQI_MODE_FAST)
        return mmqi_cuda_fail(device, MMQ_ERR_UNSUPPORTED, "there is no mode %d",
                              (int)options->mode);
    stream = device->host->calloc(1, sizeof *stream);
    if (!stream)
        return mmqi_cuda_fail(device, MMQ_ERR_NOMEM, "no memory on the host for a stream");
    stream->device = device;
    stream->options = *options;
    before = mmqi_cuda_enter(device);
    status = open_queue(stream);
    mmqi_cuda_leave(device, before);
    if (status == MMQ_OK)
        *out = stream;
    else
        mmqi_cuda_stream_close(stream);
    return status;
}

int32_t mmqi_cuda_stream_wait(struct mmqi_stream *stream)
{
    int before = mmqi_cuda_enter(stream->device);
    int32_t flushed = mmqi_cuda_flush(stream);
    int32_t status = MMQI_CUDA(stream->device, cudaStreamSynchronize(stream->stream));

    mmqi_cuda_leave(stream->device, before);
    return flushed == MMQ_OK ? status : flushed;
}

int32_t mmqi_cuda_note(struct mmqi_stream *stream, int32_t note, const void *src, size_t size)
{
    struct mmqi_device *device = stream->device;
    uint8_t *dst = stream->notes + (size_t)note * MMQI_NOTE_BYTES;
    int before = mmqi_cuda_enter(device);
    int32_t status = mmqi_cuda_flush(stream);

    if (status == MMQ_OK)
        status = MMQI_CUDA(device,
                           cudaMemcpyAsync(dst, src, size, cudaMemcpyDeviceToHost, stream->stream));
    if (status == MMQ_OK)
        status = MMQI_CUDA(device, cudaEventRecord(stream->noted[note], stream->stream));
    mmqi_cuda_leave(device, before);
    return status;
}

int32_t mmqi_cuda_read_note(struct mmqi_stream *stream, int32_t note, void *dst, size_t size)
{
    int before = mmqi_cuda_enter(stream->device);
    int32_t status = MMQI_CUDA(stream->device, cudaEventSynchronize(stream->noted[note]));

    mmqi_cuda_leave(stream->device, before);
    if (status == MMQ_OK)
        memcpy(dst, stream->notes + (size_t)note * MMQI_NOTE_BYTES, size);
    return status;
}

void mmqi_cuda_stream_close(struct mmqi_stream *stream)
{
    int before;

    if (!stream)
        return;
    before = mmqi_cuda_enter(stream->device);
    if (stream->stream)
        cudaStreamSynchronize(stream->stream);
    mmqi_cuda_forget_compiled(stream);
    for (int i = 0; i < MMQI_NOTES; i++)
        if (stream->noted[i])
            cudaEventDestroy(stream->noted[i]);
    if (stream->notes)
        cudaFreeHost(stream->notes);
    if (stream->lt)
        cublasLtDestroy(stream->lt);
    if (stream->stream)
        cudaStreamDestroy(stream->stream);
    mmqi_cuda_free(stream->device, stream->workspace);
    cudaGetLastError(); /* of a lost device */
    mmqi_cuda_leave(stream->device, before);
    stream->device->host->free(stream);
}
