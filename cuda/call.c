/*
 * Calls of the CUDA runtime: counted, made to fail for tests, and their
 * errors turned into statuses with one line.
 */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "cuda/cuda.h"

/* Errors after which nothing works on the device in this process. */
static bool is_fatal(cudaError_t error)
{
    switch (error) {
    case cudaErrorECCUncorrectable:
    case cudaErrorNvlinkUncorrectable:
    case cudaErrorContained:
    case cudaErrorIllegalAddress:
    case cudaErrorLaunchTimeout:
    case cudaErrorContextIsDestroyed:
    case cudaErrorAssert:
    case cudaErrorHardwareStackError:
    case cudaErrorIllegalInstruction:
    case cudaErrorMisalignedAddress:
    case cudaErrorInvalidAddressSpace:
    case cudaErrorInvalidPc:
    case cudaErrorLaunchFailure:
    case cudaErrorTensorMemoryLeak:
    case cudaErrorMpsClientTerminated:
    case cudaErrorExternalDevice:
        return true;
    default:
        return false;
    }
}

int32_t mmqi_cuda_fail(struct mmqi_device *device, int32_t status, const char *format, ...)
{
    char text[256], line[320];
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    snprintf(line, sizeof line, "cuda:%d: %s", (int)device->index, text);
    return device->host->fail(status, line);
}

cudaError_t mmqi_cuda_fault(struct mmqi_device *device, bool is_alloc)
{
    int64_t call = __atomic_add_fetch(&device->n_calls, 1, __ATOMIC_RELAXED);
    int64_t alloc = is_alloc ? __atomic_add_fetch(&device->n_allocs, 1, __ATOMIC_RELAXED) : 0;
    int32_t lost = __atomic_load_n(&device->lost, __ATOMIC_RELAXED);
    const struct mmqi_fault *fault = &device->fault;

    if (lost != 0)
        return (cudaError_t)lost;
    /* An nth below 1 counts calls and makes none fail. */
    if (fault->kind == MMQI_FAULT_ALLOC && is_alloc && alloc == fault->nth)
        return cudaErrorMemoryAllocation;
    if (fault->kind == MMQI_FAULT_CALL && call == fault->nth)
        return is_alloc ? cudaErrorMemoryAllocation : cudaErrorLaunchOutOfResources;
    if (fault->kind == MMQI_FAULT_LOST && call == fault->nth)
        return cudaErrorLaunchFailure;
    return cudaSuccess;
}

int32_t mmqi_cuda_faulted(struct mmqi_device *device, const char *what)
{
    return mmqi_cuda_check(device, mmqi_cuda_fault(device, false), what);
}

/* "cudaMalloc" of "cudaMalloc(&memory, size)". */
static int name_size(const char *what)
{
    return (int)strcspn(what, "(");
}

int32_t mmqi_cuda_check(struct mmqi_device *device, cudaError_t error, const char *what)
{
    const char *lost = "";
    int32_t status = MMQ_ERR_DEVICE;

    if (error == cudaSuccess)
        return MMQ_OK;
    cudaGetLastError(); /* one that can be got over is not met again */
    if (error == cudaErrorMemoryAllocation)
        status = MMQ_ERR_NOMEM;
    else if (error == cudaErrorNoKernelImageForDevice || error == cudaErrorUnsupportedPtxVersion)
        status = MMQ_ERR_UNSUPPORTED;
    if (is_fatal(error)) {
        __atomic_store_n(&device->lost, (int32_t)error, __ATOMIC_RELAXED);
        lost = "; the device is lost";
    }
    return mmqi_cuda_fail(device, status, "%.*s: %s%s", name_size(what), what,
                          cudaGetErrorString(error), lost);
}

int32_t mmqi_cuda_check_lt(struct mmqi_device *device, cublasStatus_t error, const char *what)
{
    int32_t lost = __atomic_load_n(&device->lost, __ATOMIC_RELAXED);

    if (error == CUBLAS_STATUS_SUCCESS)
        return MMQ_OK;
    if (lost != 0)
        return mmqi_cuda_check(device, (cudaError_t)lost, what);
    return mmqi_cuda_fail(device,
                          error == CUBLAS_STATUS_ALLOC_FAILED ? MMQ_ERR_NOMEM : MMQ_ERR_DEVICE,
                          "%.*s: %s", name_size(what), what, cublasLtGetStatusString(error));
}

int32_t mmqi_cuda_launched(struct mmqi_stream *s, const char *what)
{
    cudaError_t launch = cudaGetLastError(), fault = mmqi_cuda_fault(s->device, false);

    if (launch == cudaSuccess && fault == cudaSuccess)
        return MMQ_OK;
    return mmqi_cuda_check(s->device, launch != cudaSuccess ? launch : fault, what);
}
