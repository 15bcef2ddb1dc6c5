/*
 * The slot pack_rows. It works in the stream of the transfers, so that rows are there before they
 * are packed, and their bytes before they are fetched.
 */
#include "cuda/pack_rows.h"

#include "cuda/device.h"

int32_t mmqi_cuda_pack_rows(struct mmqi_device *device, const struct mmqi_pack_job *job)
{
    const struct mmqi_format_info *info = device->host->format_info(job->format);
    int32_t status;
    int before;

    if (!info)
        return mmqi_cuda_fail(device, MMQ_ERR_UNSUPPORTED, "weight format %d is unknown",
                              (int)job->format);
    before = mmqi_cuda_enter(device);
    status = MMQI_CUDA(device, mmqi_cuda_launch_pack(device->transfers, job, info));
    if (status == MMQ_OK)
        status = MMQI_CUDA(device, cudaStreamSynchronize(device->transfers));
    mmqi_cuda_leave(device, before);
    return status;
}
