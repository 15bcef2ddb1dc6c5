/* A grid of blocks of fibers: the runtime of emulate.h. One grid at a time. */
#ifndef TEST_EMULATED_BLOCKS_H
#define TEST_EMULATED_BLOCKS_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct emulated_size {
    unsigned x, y, z;
};

/* Call `kernel(arg)` as every thread of every block. Stops the program where a launch could not be
 * made, at a deadlock and at a write behind the shared memory, naming `what`. */
void emulated_run(const char *what, struct emulated_size grid, struct emulated_size block,
                  size_t shared, void (*kernel)(void *), void *arg);

/* Of the thread that runs. */
const struct emulated_size *emulated_thread(void), *emulated_block(void);
const struct emulated_size *emulated_block_size(void), *emulated_grid_size(void);
unsigned char *emulated_shared(void);

/* All threads of the block meet; whether any of them brought another x than 0. */
int emulated_barrier(int x);
/* All lanes of the warp meet and see what each one brought; returns the caller's lane. */
int emulated_exchange(uint64_t x, uint64_t all[32]);
/* Stops the program where p is no multiple of `size`. */
void emulated_check_aligned(const void *p, size_t size);

#ifdef __cplusplus
}
#endif

#endif
