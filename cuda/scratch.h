/* Bytes of scratch that single ops use, each from the beginning. */
#ifndef MMQI_CUDA_SCRATCH_H
#define MMQI_CUDA_SCRATCH_H

#include "cuda/cuda.h"

#ifdef __cplusplus
extern "C" {
#endif

size_t mmqi_cuda_tensor_scratch(const struct mmqi_stream_options *options);    /* tensor.cu */
size_t mmqi_cuda_attention_scratch(const struct mmqi_stream_options *options); /* attention.cu */

#ifdef __cplusplus
}
#endif

#endif
