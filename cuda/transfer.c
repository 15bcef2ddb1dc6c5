/*
 * Bytes between host and device, through two pinned buffers in turn: while
 * one is copied by the device, the other is filled or emptied here. All is
 * done when a function returns; what streams compute is waited for by the
 * caller, before it downloads.
 */
#include <string.h>

#include "cuda/device.h"

int32_t mmqi_cuda_open_transfers(struct mmqi_device *device)
{
    int32_t status =
        MMQI_CUDA(device, cudaStreamCreateWithFlags(&device->transfers, cudaStreamNonBlocking));

    for (int i = 0; i < MMQI_CUDA_STAGES && status == MMQ_OK; i++) {
        status = MMQI_CUDA_ALLOC(device,
                                 cudaMallocHost((void **)&device->stage[i], MMQI_CUDA_STAGE_BYTES));
        if (status == MMQ_OK)
            status = MMQI_CUDA(
                device, cudaEventCreateWithFlags(&device->staged[i], cudaEventDisableTiming));
    }
    return status;
}

/* Of what was opened; the errors of a lost device are of no more use. */
void mmqi_cuda_close_transfers(struct mmqi_device *device)
{
    for (int i = 0; i < MMQI_CUDA_STAGES; i++) {
        if (device->staged[i])
            cudaEventDestroy(device->staged[i]);
        if (device->stage[i])
            cudaFreeHost(device->stage[i]);
    }
    if (device->transfers)
        cudaStreamDestroy(device->transfers);
}

static size_t piece_bytes(size_t size, size_t at)
{
    return size - at < MMQI_CUDA_STAGE_BYTES ? size - at : MMQI_CUDA_STAGE_BYTES;
}

static int32_t upload_pieces(struct mmqi_device *device, uint8_t *dst, const uint8_t *src,
                             size_t size)
{
    int32_t status = MMQ_OK;
    size_t n;
    int turn = 0;

    for (size_t at = 0; at < size && status == MMQ_OK; at += n, turn ^= 1) {
        n = piece_bytes(size, at);
        status = MMQI_CUDA(device, cudaEventSynchronize(device->staged[turn]));
        if (status != MMQ_OK)
            break;
        memcpy(device->stage[turn], src + at, n);
        status = MMQI_CUDA(device, cudaMemcpyAsync(dst + at, device->stage[turn], n,
                                                   cudaMemcpyHostToDevice, device->transfers));
        if (status == MMQ_OK)
            status = MMQI_CUDA(device, cudaEventRecord(device->staged[turn], device->transfers));
    }
    return status;
}

static int32_t fetch_piece(struct mmqi_device *device, const uint8_t *src, size_t n, int turn)
{
    int32_t status = MMQI_CUDA(device, cudaMemcpyAsync(device->stage[turn], src, n,
                                                       cudaMemcpyDeviceToHost, device->transfers));

    if (status == MMQ_OK)
        status = MMQI_CUDA(device, cudaEventRecord(device->staged[turn], device->transfers));
    return status;
}

/* The piece after this one is on its way while this one is emptied. */
static int32_t download_pieces(struct mmqi_device *device, uint8_t *dst, const uint8_t *src,
                               size_t size)
{
    int32_t status = size > 0 ? fetch_piece(device, src, piece_bytes(size, 0), 0) : MMQ_OK;
    size_t n;
    int turn = 0;

    for (size_t at = 0; at < size && status == MMQ_OK; at += n, turn ^= 1) {
        n = piece_bytes(size, at);
        if (at + n < size)
            status = fetch_piece(device, src + at + n, piece_bytes(size, at + n), turn ^ 1);
        if (status == MMQ_OK)
            status = MMQI_CUDA(device, cudaEventSynchronize(device->staged[turn]));
        if (status == MMQ_OK)
            memcpy(dst + at, device->stage[turn], n);
    }
    return status;
}

/* Make the device current, alone with the buffers, and run `pieces`; nothing is on its way when
 * this returns, whatever failed. */
static int32_t transfer(struct mmqi_device *device, void *dst, const void *src, size_t size,
                        int32_t (*pieces)(struct mmqi_device *, uint8_t *, const uint8_t *, size_t))
{
    int32_t status;
    int before;

    device->host->lock(device->mutex);
    before = mmqi_cuda_enter(device);
    status = pieces(device, dst, src, size);
    if (status == MMQ_OK)
        status = MMQI_CUDA(device, cudaStreamSynchronize(device->transfers));
    else if (cudaStreamSynchronize(device->transfers) != cudaSuccess)
        cudaGetLastError();
    mmqi_cuda_leave(device, before);
    device->host->unlock(device->mutex);
    return status;
}

int32_t mmqi_cuda_upload(struct mmqi_device *device, void *dst, const void *src, size_t size)
{
    return transfer(device, dst, src, size, upload_pieces);
}

int32_t mmqi_cuda_download(struct mmqi_device *device, void *dst, const void *src, size_t size)
{
    return transfer(device, dst, src, size, download_pieces);
}

static int32_t move_pieces(struct mmqi_device *device, uint8_t *dst, const uint8_t *src,
                           size_t size)
{
    return MMQI_CUDA(device,
                     cudaMemcpyAsync(dst, src, size, cudaMemcpyDeviceToDevice, device->transfers));
}

int32_t mmqi_cuda_move(struct mmqi_device *device, void *dst, const void *src, size_t size)
{
    return transfer(device, dst, src, size, move_pieces);
}
