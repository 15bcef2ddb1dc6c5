/*
 * Packing rows on the device: the slot (pack_rows.c), and its kernels (pack_kernel.cu).
 */
#ifndef MMQI_CUDA_PACK_ROWS_H
#define MMQI_CUDA_PACK_ROWS_H

#include "cuda/cuda.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The slot pack_rows. */
int32_t mmqi_cuda_pack_rows(struct mmqi_device *device, const struct mmqi_pack_job *job);

/* Put the work into `stream`, of the device that is current; `info` is of job->format. The first
 * error of a launch. */
cudaError_t mmqi_cuda_launch_pack(cudaStream_t stream, const struct mmqi_pack_job *job,
                                  const struct mmqi_format_info *info);

#ifdef __cplusplus
}
#endif

#endif
