/*
 * What the C files of the CUDA backend share beside cuda.h: the slots of the
 * table, and the current device.
 */
#ifndef MMQI_CUDA_DEVICE_H
#define MMQI_CUDA_DEVICE_H

#include "cuda/cuda.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { MMQI_CUDA_LEAST_COMPUTE = 75 };

/* A block of device memory that was taken. */
struct mmqi_cuda_block {
    struct mmqi_cuda_block *next;
    void *memory;
    size_t size; /* as asked for */
};

/* Make the device current on this thread; returns the one before, for mmqi_cuda_leave(). */
int mmqi_cuda_enter(const struct mmqi_device *device);
void mmqi_cuda_leave(const struct mmqi_device *device, int before);

/* ---- devices (device.c) ---- */

int32_t mmqi_cuda_count(const struct mmqi_backend_host *host, int32_t *n);
int32_t mmqi_cuda_info(const struct mmqi_backend_host *host, int32_t index,
                       struct mmqi_device_info *info);
int32_t mmqi_cuda_open(struct mmqi_device **out, const struct mmqi_device_options *options);
void mmqi_cuda_close(struct mmqi_device *device); /* accepts NULL and the half-opened */
const char *mmqi_cuda_describe(const struct mmqi_device *device);
int64_t mmqi_cuda_set_fault(struct mmqi_device *device, struct mmqi_fault fault);
int32_t mmqi_cuda_alloc(struct mmqi_device *device, void **out, size_t size);
void mmqi_cuda_free(struct mmqi_device *device, void *memory);
void mmqi_cuda_memory(struct mmqi_device *device, struct mmqi_device_memory *memory);

/* ---- bytes between host and device (transfer.c) ---- */

int32_t mmqi_cuda_open_transfers(struct mmqi_device *device);
void mmqi_cuda_close_transfers(struct mmqi_device *device);
int32_t mmqi_cuda_upload(struct mmqi_device *device, void *dst, const void *src, size_t size);
int32_t mmqi_cuda_download(struct mmqi_device *device, void *dst, const void *src, size_t size);
int32_t mmqi_cuda_move(struct mmqi_device *device, void *dst, const void *src, size_t size);

/* ---- streams (stream.c) ---- */

int32_t mmqi_cuda_stream_open(struct mmqi_device *device, const struct mmqi_stream_options *options,
                              struct mmqi_stream **out);
int32_t mmqi_cuda_stream_wait(struct mmqi_stream *stream);
void mmqi_cuda_stream_close(struct mmqi_stream *stream);
int32_t mmqi_cuda_note(struct mmqi_stream *stream, int32_t note, const void *src, size_t size);
int32_t mmqi_cuda_read_note(struct mmqi_stream *stream, int32_t note, void *dst, size_t size);
size_t mmqi_cuda_stream_bytes(const struct mmqi_device *device,
                              const struct mmqi_stream_options *options);

/* ---- running (execute.c) ---- */

int32_t mmqi_cuda_execute(struct mmqi_stream *stream, const struct mmqi_graph *graph,
                          const struct mmqi_plan *plan, const struct mmqi_run *run, int32_t begin,
                          int32_t end);
void mmqi_cuda_forget_compiled(struct mmqi_stream *stream); /* all of them */

#ifdef __cplusplus
}
#endif

#endif
