/*
 * CUDA kernels as plain C++ of the host: what kernel files need to be compiled by
 * the host's compiler and run without a device.
 *
 * Included in front of every kernel file (-include). A block's threads are fibers (blocks.c): each
 * runs until it meets a barrier, in ascending order in even blocks and in descending order in odd
 * ones, so that a missing barrier shows. Shared memory is filled with NaN before each block, what
 * lies behind it is watched, and a misaligned vector load stops the program. Arithmetic is the
 * host's, IEEE and uncontracted; expf and its like may differ from a device's in their last bits.
 */
#ifndef TEST_EMULATED_EMULATE_H
#define TEST_EMULATED_EMULATE_H

#define MMQI_EMULATED 1

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

#include "emulated/blocks.h"

#include "cuda/cuda.h"

#undef __shared__
#define __shared__ static
#undef __launch_bounds__
#define __launch_bounds__(...)
#undef __grid_constant__
#define __grid_constant__

#define threadIdx (*emulated_thread())
#define blockIdx (*emulated_block())
#define blockDim (*emulated_block_size())
#define gridDim (*emulated_grid_size())
#define MMQI_SHARED(type, name) type *name = reinterpret_cast<type *>(emulated_shared())

/* ---- launching ---- */

template <typename F> static void call_kernel(void *f)
{
    (*static_cast<F *>(f))();
}

template <typename... P, typename... A>
static inline int32_t launch(struct mmqi_stream *s, const char *what, void (*kernel)(P...),
                             dim3 grid, dim3 block, size_t shared, A... args)
{
    auto call = [=] { kernel(static_cast<P>(args)...); };
    struct emulated_size g = {grid.x, grid.y, grid.z}, b = {block.x, block.y, block.z};
    int32_t status = mmqi_cuda_flush(s);

    if (status != MMQ_OK)
        return status;
    emulated_run(what, g, b, shared, call_kernel<decltype(call)>, &call);
    return mmqi_cuda_launched(s, what);
}

template <typename... P>
static inline int32_t allow_shared(struct mmqi_stream *, void (*)(P...), size_t)
{
    return MMQ_OK;
}

/* ---- barriers and exchanges ---- */

static inline void __syncthreads()
{
    emulated_barrier(0);
}

static inline int __syncthreads_or(int x)
{
    return emulated_barrier(x);
}

/* Blocks run one after another. */
static inline void __threadfence()
{
}

static inline unsigned atomicAdd(unsigned *at, unsigned x)
{
    unsigned before = *at;

    *at += x;
    return before;
}

template <typename T> static inline T __ldcg(const T *at)
{
    return *at;
}

static inline void __syncwarp(unsigned = 0xffffffffu)
{
    uint64_t all[32];

    emulated_exchange(0, all);
}

template <typename T> static inline T __shfl_xor_sync(unsigned, T x, int mask)
{
    uint64_t all[32], bits = 0;

    memcpy(&bits, &x, sizeof x);
    memcpy(&x, &all[emulated_exchange(bits, all) ^ mask], sizeof x);
    return x;
}

static inline int __any_sync(unsigned, int x)
{
    uint64_t all[32], any = 0;

    emulated_exchange(x != 0, all);
    for (int i = 0; i < 32; i++)
        any |= all[i];
    return any != 0;
}

/* ---- arithmetic ---- */

static inline float __fmul_rn(float a, float b)
{
    return a * b;
}

static inline float __fadd_rn(float a, float b)
{
    return a + b;
}

static inline float __fdiv_rn(float a, float b)
{
    return a / b;
}

static inline float __fsqrt_rn(float a)
{
    return sqrtf(a);
}

static inline float __uint_as_float(unsigned bits)
{
    float x;

    memcpy(&x, &bits, sizeof x);
    return x;
}

static inline unsigned __byte_perm(unsigned x, unsigned y, unsigned selector)
{
    uint64_t both = (uint64_t)y << 32 | x;
    unsigned result = 0;

    for (int i = 0; i < 4; i++)
        result |= (unsigned)(both >> (8 * (selector >> 4 * i & 7)) & 255) << 8 * i;
    return result;
}

/* ---- what the kernels write in PTX ---- */

static inline uint4 read_codes(const uint8_t *p, bool is_there)
{
    uint4 v = {0, 0, 0, 0};

    emulated_check_aligned(is_there ? p : NULL, sizeof v);
    if (is_there)
        memcpy(&v, p, sizeof v);
    return v;
}

template <int kBytes> static inline uint32_t read_scale(const uint8_t *p, bool is_there)
{
    uint32_t v = 0;

    emulated_check_aligned(is_there ? p : NULL, kBytes);
    if (is_there)
        memcpy(&v, p, kBytes);
    return v;
}

static inline void wait_for_inputs()
{
}

static inline uint32_t kept(uint32_t x)
{
    return x;
}

static inline float float_of_bf16_bits(uint64_t bits)
{
    return __uint_as_float((unsigned)(bits & 0xffff) << 16);
}

/* mma.sync.m16n8k16: every lane gathers both fragments and makes its own four elements. */
static inline void mma_bf16(float c[4], const uint32_t a[4], uint32_t b0, uint32_t b1)
{
    uint64_t part[3][32];
    float left[16][16], right[16][8];
    int lane = emulated_exchange((uint64_t)a[1] << 32 | a[0], part[0]);

    emulated_exchange((uint64_t)a[3] << 32 | a[2], part[1]);
    emulated_exchange((uint64_t)b1 << 32 | b0, part[2]);
    for (int l = 0; l < 32; l++) {
        for (int i = 0; i < 8; i++) /* a[i / 2]'s half i % 2 */
            left[l / 4 + i / 2 % 2 * 8][l % 4 * 2 + i / 4 * 8 + i % 2] =
                float_of_bf16_bits(part[i / 4][l] >> (i / 2 % 2 * 32 + i % 2 * 16));
        for (int i = 0; i < 4; i++)
            right[l % 4 * 2 + i / 2 * 8 + i % 2][l / 4] =
                float_of_bf16_bits(part[2][l] >> (i / 2 * 32 + i % 2 * 16));
    }
    for (int i = 0; i < 4; i++)
        for (int k = 0; k < 16; k++)
            c[i] += left[lane / 4 + i / 2 * 8][k] * right[k][lane % 4 * 2 + i % 2];
}

#endif
