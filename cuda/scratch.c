/* Scratch of a stream: what the neediest of its ops takes, as they run one after another. */
#include "cuda/scratch.h"

size_t mmqi_cuda_scratch_bytes(const struct mmqi_device *device,
                               const struct mmqi_stream_options *options)
{
    size_t product = mmqi_cuda_tensor_scratch(options);
    size_t attention = mmqi_cuda_attention_scratch(options);
    size_t bytes = product > attention ? product : attention;

    (void)device;
    return (bytes + MMQI_CUDA_ALIGN - 1) / MMQI_CUDA_ALIGN * MMQI_CUDA_ALIGN;
}
