/*
 * Activations of one element, to the same bits in every kernel: nothing is left to the compiler to
 * fuse.
 *
 *   SILU        x * sigmoid(x)            sigmoid(t) = 1 / (1 + e^-t)
 *   GELU        0.5 x (1 + erf(x / sqrt 2))
 *   GELU_TANH   0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)))
 *   QUICK_GELU  x * sigmoid(1.702 x)
 */
#ifndef MMQI_CUDA_ACTIVATION_H
#define MMQI_CUDA_ACTIVATION_H

#include "cuda/kernel.h"

/* x * sigmoid(t) */
static __device__ inline float times_sigmoid(float x, float t)
{
    return __fmul_rn(x, __fdiv_rn(1.0f, __fadd_rn(1.0f, expf(-t))));
}

static __device__ inline float act_of(float x, int32_t act)
{
    float cube;

    switch (act) {
    case MMQI_ACT_SILU:
        return times_sigmoid(x, x);
    case MMQI_ACT_GELU:
        return __fmul_rn(__fmul_rn(0.5f, x), __fadd_rn(1.0f, erff(__fmul_rn(x, 0.70710678f))));
    case MMQI_ACT_GELU_TANH:
        cube = __fmul_rn(__fmul_rn(__fmul_rn(0.044715f, x), x), x);
        return __fmul_rn(__fmul_rn(0.5f, x),
                         __fadd_rn(1.0f, tanhf(__fmul_rn(0.79788456f, __fadd_rn(x, cube)))));
    default: /* MMQI_ACT_QUICK_GELU */
        return times_sigmoid(x, __fmul_rn(1.702f, x));
    }
}

static __device__ inline float gated(float gate, float up, int32_t act)
{
    return __fmul_rn(act_of(gate, act), up);
}

#endif
