// Whether this build has code for a device: a kernel that does nothing is asked for.
#include "cuda/cuda.h"

static __global__ void probe_kernel()
{
}

int32_t mmqi_cuda_probe(struct mmqi_device *device)
{
    struct cudaFuncAttributes attributes;

    return MMQI_CUDA(device, cudaFuncGetAttributes(&attributes, (const void *)probe_kernel));
}
