/*
 * What the kernels share: how they are launched, and the sums within a warp
 * and a block.
 *
 * The order of every sum is fixed by the sizes of one row: threads add their
 * elements in order, then lanes in halves (16, 8, 4, 2, 1), then warps in order.
 * Where bits are promised, a multiplication and an addition that must not be
 * fused are written with __fmul_rn and __fadd_rn, one that must with fmaf.
 */
#ifndef MMQI_CUDA_KERNEL_H
#define MMQI_CUDA_KERNEL_H

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "cuda/cuda.h"

#define ALL_LANES 0xffffffffu

enum { WARP = 32 };

/*
 * Which ops wait for others that can share their launch. The default is all, which devices have
 * shown to give the same bits, and to gain.
 *
 *   0  none, to compare with
 *   1  products of one x, and the sum of one with a residual
 *   2  as well the gate of two such products, the turns of q and k with the write of k and v, and
 *      all of that with the products q, k and v; what several blocks find, of a split attention
 *      and of a wide row's pick, with what the last of them makes of it
 */
#ifndef MMQI_CUDA_FUSE
#define MMQI_CUDA_FUSE 2
#endif

/* 0: one kernel after another, to measure or to bisect. */
#ifndef MMQI_CUDA_OVERLAP
#define MMQI_CUDA_OVERLAP 1
#endif

#ifndef MMQI_EMULATED
/* Bytes of a block's shared memory whose size the launch tells. */
#define MMQI_SHARED(type, name)                                                                    \
    extern __shared__ __align__(16) unsigned char mmqi_shared[];                                   \
    type *name = reinterpret_cast<type *>(mmqi_shared)

/* Launch and check, after the ops that wait. `shared` above 48 KiB must have been allowed, see
 * allow_shared(). */
template <typename... P, typename... A>
static inline int32_t launch(struct mmqi_stream *s, const char *what, void (*kernel)(P...),
                             dim3 grid, dim3 block, size_t shared, A... args)
{
    cudaLaunchConfig_t config = {};
    cudaLaunchAttribute overlap = {};
    int32_t status = mmqi_cuda_flush(s);

    if (status != MMQ_OK)
        return status;
    overlap.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    overlap.val.programmaticStreamSerializationAllowed = 1;
    config.gridDim = grid;
    config.blockDim = block;
    config.dynamicSmemBytes = shared;
    config.stream = s->stream;
    config.attrs = &overlap;
    config.numAttrs = MMQI_CUDA_OVERLAP && s->device->compute >= 90;
    cudaLaunchKernelEx(&config, kernel, static_cast<P>(args)...);
    return mmqi_cuda_launched(s, what); /* which asks for the launch's error */
}

/*
 * Kernels overlap where the device can (compute capability 9.0 on): the next one's blocks may be
 * begun, to read weights and make tables, while this one's last blocks run. So every kernel of this
 * folder that launch() starts calls wait_for_inputs() before it reads or writes what another kernel
 * touches; it returns when all work before is done and seen. A kernel that did not would break the
 * chain for those behind it.
 */
static __device__ inline void wait_for_inputs()
{
#if MMQI_CUDA_OVERLAP && defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;");
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

/* Let a kernel be launched with so many bytes of dynamic shared memory. */
template <typename... P>
static inline int32_t allow_shared(struct mmqi_stream *s, void (*kernel)(P...), size_t shared)
{
    if (shared <= 48 * 1024)
        return MMQ_OK;
    return MMQI_CUDA(s->device, cudaFuncSetAttribute(reinterpret_cast<const void *>(kernel),
                                                     cudaFuncAttributeMaxDynamicSharedMemorySize,
                                                     (int)shared));
}
#endif

static __host__ __device__ inline int64_t ceil_div(int64_t a, int64_t b)
{
    return a / b + (a % b != 0);
}

static __device__ inline float warp_sum(float x)
{
    for (int half = WARP / 2; half >= 1; half /= 2)
        x = __fadd_rn(x, __shfl_xor_sync(ALL_LANES, x, half));
    return x;
}

/* Of a block of kThreads, to all its threads; `shared` [kThreads / 32]. */
template <int kThreads> static __device__ inline float block_sum(float x, float *shared)
{
    float sum = 0.0f;

    x = warp_sum(x);
    __syncthreads(); /* readers of an earlier sum are done */
    if (threadIdx.x % WARP == 0)
        shared[threadIdx.x / WARP] = x;
    __syncthreads();
    for (int i = 0; i < kThreads / WARP; i++)
        sum = __fadd_rn(sum, shared[i]);
    return sum;
}

/*
 * Of `blocks` blocks that share a counter, zero before: whether this one is the last to come here,
 * so that what all of them wrote can be read (past the first cache: __ldcg). By all threads of the
 * block. Who is last depends on timing; what it then computes must not.
 */
static __device__ inline bool is_last_block(unsigned *arrived, unsigned blocks)
{
    __shared__ bool last;

    __threadfence(); /* what this thread wrote, before the block counts as arrived */
    __syncthreads();
    if (threadIdx.x == 0) {
        last = atomicAdd(arrived, 1u) == blocks - 1;
        if (last)
            *arrived = 0; /* for the next kernel */
        __threadfence();
    }
    __syncthreads();
    return last;
}

static __device__ inline float *row_of(const struct mmqi_mat &mat, int64_t row)
{
    return mat.data + row * mat.stride;
}

/* Element of kv.pages where a slot's key begins. */
static __device__ inline int64_t key_offset(const struct mmqi_kv &kv, int32_t slot)
{
    uint32_t page = (uint32_t)slot / (uint32_t)kv.page_rows;
    uint32_t row = (uint32_t)slot % (uint32_t)kv.page_rows;

    if (kv.table)
        page = (uint32_t)kv.table[page];
    return (int64_t)page * kv.page_stride + (int64_t)row * kv.n_heads * kv.head_dim;
}

/* From a slot's key to its value. */
static __device__ inline int64_t value_offset(const struct mmqi_kv &kv)
{
    return kv.page_rows * kv.n_heads * kv.head_dim;
}

/* Whether two matrices have an element in common; as far as rows of one stride cannot mesh. */
static inline bool matrices_meet(const struct mmqi_mat *a, const struct mmqi_mat *b)
{
    uintptr_t x = (uintptr_t)a->data, y = (uintptr_t)b->data;
    int64_t n = (a->rows - 1) * a->stride + a->cols, m = (b->rows - 1) * b->stride + b->cols;

    return x < y + (uintptr_t)m * sizeof(float) && y < x + (uintptr_t)n * sizeof(float);
}

/* (rows, cols) of an elementwise kernel as a grid of blocks of 256 columns; rows beyond the grid's
 * limit are taken in turns. */
static inline dim3 element_grid(int64_t rows, int64_t cols)
{
    return dim3((unsigned)ceil_div(cols, 256), (unsigned)(rows < 65535 ? rows : 65535));
}

#endif
