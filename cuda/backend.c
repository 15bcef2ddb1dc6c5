/* The backend's table, and the one function that libmmq-cuda.so exports. */
#include <string.h>

#include "cuda/device.h"
#include "cuda/pack_rows.h"

/* Kernels read the canonical bytes as they are. */
int32_t mmqi_cuda_pack(struct mmqi_device *device, struct mmqi_wmat *w, void *block,
                       const struct mmqi_layout *layout)
{
    if (!device->host->format_info(w->format))
        return mmqi_cuda_fail(device, MMQ_ERR_UNSUPPORTED, "weight format %d is unknown",
                              (int)w->format);
    memset(w->part, 0, sizeof w->part);
    for (int32_t i = 0; i < layout->n_parts; i++)
        w->part[i] = (const uint8_t *)block + layout->part[i].offset;
    return MMQ_OK;
}

static const struct mmqi_backend cuda_backend = {
    .name = "cuda",
    .host_memory = false,
    .fast = true,
    .count = mmqi_cuda_count,
    .info = mmqi_cuda_info,
    .open = mmqi_cuda_open,
    .close = mmqi_cuda_close,
    .describe = mmqi_cuda_describe,
    .alloc = mmqi_cuda_alloc,
    .free = mmqi_cuda_free,
    .upload = mmqi_cuda_upload,
    .download = mmqi_cuda_download,
    .copy = mmqi_cuda_move,
    .pack = mmqi_cuda_pack,
    .pack_rows = mmqi_cuda_pack_rows,
    .memory = mmqi_cuda_memory,
    .measure = mmqi_cuda_measure,
    .fault = mmqi_cuda_set_fault,
    .stream_open = mmqi_cuda_stream_open,
    .stream_wait = mmqi_cuda_stream_wait,
    .stream_close = mmqi_cuda_stream_close,
    .note = mmqi_cuda_note,
    .read_note = mmqi_cuda_read_note,
    .stream_bytes = mmqi_cuda_stream_bytes,
    .execute = mmqi_cuda_execute,
    .ops = &mmqi_cuda_ops,
};

__attribute__((visibility("default"))) int32_t
mmqi_cuda_backend(uint32_t abi, const struct mmqi_backend_host *host,
                  const struct mmqi_backend **out);

int32_t mmqi_cuda_backend(uint32_t abi, const struct mmqi_backend_host *host,
                          const struct mmqi_backend **out)
{
    (void)host; /* every slot is given it, or has it from its device */
    if (abi != MMQI_BACKEND_ABI)
        return MMQ_ERR_UNSUPPORTED;
    *out = &cuda_backend;
    return MMQ_OK;
}
