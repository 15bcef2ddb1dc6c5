/* How fast this machine's memory is, to measure everything else against. */
#ifndef EXAMPLES_BENCH_MEMORY_H
#define EXAMPLES_BENCH_MEMORY_H

#include <stdbool.h>
#include <stddef.h>

struct bandwidth {
    double read; /* bytes per second: a sum over the buffer */
    double copy; /* bytes read and bytes written per second: one half into the other */
};

/* The best of `n_tries` with `n_threads` threads over `bytes` of memory, which should be far more
 * than caches hold; takes the better of it and what *best already says. False: no memory. */
bool measure_bandwidth(struct bandwidth *best, size_t bytes, int n_threads, int n_tries);

#endif
