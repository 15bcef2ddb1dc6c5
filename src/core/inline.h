/*
 * Functions that a header brings along: for C, and for CUDA C++, where they run on host and device.
 */
#ifndef MMQI_CORE_INLINE_H
#define MMQI_CORE_INLINE_H

#if defined(__CUDACC__)
#define MMQI_INLINE static __host__ __device__ inline
#define MMQI_ALWAYS_INLINE static __host__ __device__ __forceinline__
#else
#define MMQI_INLINE static inline
#define MMQI_ALWAYS_INLINE static inline __attribute__((always_inline))
#endif

#endif
