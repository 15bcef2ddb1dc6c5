// Packing rows: the bytes that the CPU makes, to the bit.
//
// The arithmetic is that of quant/format_block.h, one thread per block (nf4, fp4, int4), in its
// order; a group of threads per row (int8), where only a greatest magnitude is shared, whose order
// is free. Compiled with --fmad=false and IEEE division: every product and sum is rounded by
// itself.
//
// Reads the rows once, 4 bytes per weight, and writes the packed bytes; the search computes about
// 25 times as much as rounding does, from shared memory.
#include "cuda/pack_rows.h"
#include "cuda/pack_work.h"

namespace
{

enum { kRowThreads = 256, kPlainThreads = 256 };
const int64_t kMaxGroups = 1 << 20;

// codes[i] = w[i] as f16 or bf16.
__global__ __launch_bounds__(kPlainThreads) void pack_half_kernel(uint16_t *__restrict__ codes,
                                                                  const float *__restrict__ w,
                                                                  int64_t n, bool bf16)
{
    const int64_t step = (int64_t)gridDim.x * kPlainThreads;

    for (int64_t i = (int64_t)blockIdx.x * kPlainThreads + threadIdx.x; i < n; i += step)
        codes[i] = bf16 ? mmqi_bf16_from_f32(w[i]) : mmqi_f16_from_f32(w[i]);
}

// One group of threads per row.
__global__
__launch_bounds__(kRowThreads) void pack_int8_kernel(uint8_t *__restrict__ codes, // [rows, cols]
                                                     float *__restrict__ absmax,  // [rows]
                                                     const float *__restrict__ w, // [rows, cols]
                                                     int64_t cols)
{
    __shared__ uint32_t warp_most[kRowThreads / 32];
    const int64_t row = blockIdx.x;
    uint32_t most = mmqi_pack_row_most(w + row * cols, cols, threadIdx.x, kRowThreads);

    for (int distance = 16; distance > 0; distance /= 2) {
        uint32_t other = __shfl_xor_sync(0xffffffffu, most, distance);

        most = other > most ? other : most;
    }
    if (threadIdx.x % 32 == 0)
        warp_most[threadIdx.x / 32] = most;
    __syncthreads();
    for (int i = 0; i < kRowThreads / 32; i++)
        most = warp_most[i] > most ? warp_most[i] : most;
    if (threadIdx.x == 0)
        absmax[row] = mmqi_f32_from_bits(most);
    mmqi_pack_row_codes(codes + row * cols, w + row * cols, cols, mmqi_f32_from_bits(most),
                        threadIdx.x, kRowThreads);
}

// A thread per block: cuda/pack_work.h.
__global__ __launch_bounds__(MMQI_PACK_THREADS) void pack_table4_kernel(
    uint8_t *__restrict__ codes, float *__restrict__ absmax,
    const __grid_constant__ struct mmqi_pack_grid grid,
    const __grid_constant__ struct mmqi_coding coding)
{
    __shared__ float staged[MMQI_PACK_STAGED];
    const int64_t first = (int64_t)blockIdx.x * MMQI_PACK_THREADS;

    mmqi_pack_stage(staged, &grid, first, threadIdx.x);
    __syncthreads();
    mmqi_pack_table4(codes, absmax, staged, &grid, first, threadIdx.x, &coding);
}

__global__ __launch_bounds__(MMQI_PACK_THREADS) void pack_int4_kernel(
    uint8_t *__restrict__ codes, uint16_t *__restrict__ scale, uint8_t *__restrict__ zero,
    const __grid_constant__ struct mmqi_pack_grid grid, int32_t scale_dtype)
{
    __shared__ float staged[MMQI_PACK_STAGED];
    const int64_t first = (int64_t)blockIdx.x * MMQI_PACK_THREADS;
    const struct mmqi_scale_type type = mmqi_scale_type_of(scale_dtype);

    mmqi_pack_stage(staged, &grid, first, threadIdx.x);
    __syncthreads();
    mmqi_pack_int4(codes, scale, zero, staged, &grid, first, threadIdx.x, &type);
}

// ---- launching ----

// Groups of threads, one for each `each` of n; 0: the grid would be too large.
unsigned n_groups(int64_t n, int64_t each)
{
    int64_t groups = n / each + (n % each != 0);

    return groups <= INT32_MAX ? (unsigned)groups : 0;
}

cudaError_t launch_plain(cudaStream_t stream, const struct mmqi_pack_job *job,
                         const struct mmqi_format_info *info)
{
    const int64_t n = job->rows * job->cols;
    const int64_t groups = n / kPlainThreads + 1;

    if (info->dtype == MMQI_F32)
        return cudaMemcpyAsync(job->part[0], job->w, (size_t)n * sizeof(float),
                               cudaMemcpyDeviceToDevice, stream);
    pack_half_kernel<<<(unsigned)(groups < kMaxGroups ? groups : kMaxGroups), kPlainThreads, 0,
                       stream>>>((uint16_t *)job->part[0], job->w, n, info->dtype == MMQI_BF16);
    return cudaGetLastError();
}

cudaError_t launch_int8(cudaStream_t stream, const struct mmqi_pack_job *job)
{
    const unsigned groups = n_groups(job->rows, 1);

    if (groups == 0)
        return cudaErrorInvalidValue;
    pack_int8_kernel<<<groups, kRowThreads, 0, stream>>>(job->part[0], (float *)job->part[1],
                                                         job->w, job->cols);
    return cudaGetLastError();
}

cudaError_t launch_table4(cudaStream_t stream, const struct mmqi_pack_job *job,
                          const struct mmqi_format_info *info)
{
    const struct mmqi_pack_grid grid =
        mmqi_pack_grid_of(job->w, 1, job->rows * job->cols, info->block, job->method);
    const unsigned groups = n_groups(mmqi_pack_blocks(&grid), MMQI_PACK_THREADS);
    struct mmqi_coding coding;

    if (groups == 0)
        return cudaErrorInvalidValue;
    mmqi_coding_make(&coding, info->coding);
    pack_table4_kernel<<<groups, MMQI_PACK_THREADS, 0, stream>>>(
        job->part[0], (float *)job->part[1], grid, coding);
    return cudaGetLastError();
}

cudaError_t launch_int4(cudaStream_t stream, const struct mmqi_pack_job *job,
                        const struct mmqi_format_info *info)
{
    const struct mmqi_pack_grid grid =
        mmqi_pack_grid_of(job->w, job->rows, job->cols, info->block, job->method);
    const unsigned groups = n_groups(mmqi_pack_blocks(&grid), MMQI_PACK_THREADS);

    if (groups == 0)
        return cudaErrorInvalidValue;
    pack_int4_kernel<<<groups, MMQI_PACK_THREADS, 0, stream>>>(
        job->part[0], (uint16_t *)job->part[1], job->part[2], grid, info->scale_dtype);
    return cudaGetLastError();
}

} // namespace

cudaError_t mmqi_cuda_launch_pack(cudaStream_t stream, const struct mmqi_pack_job *job,
                                  const struct mmqi_format_info *info)
{
    if (job->rows == 0)
        return cudaSuccess;
    if (info->kind == MMQI_KIND_INT8) // scales of rows without columns too
        return launch_int8(stream, job);
    if (job->cols == 0)
        return cudaSuccess;
    switch (info->kind) {
    case MMQI_KIND_FLOAT:
        return launch_plain(stream, job, info);
    case MMQI_KIND_TABLE4:
        return launch_table4(stream, job, info);
    case MMQI_KIND_INT4:
        return launch_int4(stream, job, info);
    default:
        return cudaErrorNotSupported;
    }
}
