/*
 * Random numbers by counter: value number i of stream (seed, stream) is a
 * pure function of the three, so a sample does not depend on what was drawn
 * before it or on which thread drew it. Philox4x32-10 (Salmon, Moraes, Dror
 * and Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011).
 */
#ifndef MMQI_CORE_RNG_H
#define MMQI_CORE_RNG_H

#include <stdint.h>

void mmqi_philox(uint32_t out[4], uint64_t seed, uint64_t stream, uint64_t counter);

/* Uniform in [0, 1) with 53 bits. */
double mmqi_rng_uniform(uint64_t seed, uint64_t stream, uint64_t counter);

#endif
