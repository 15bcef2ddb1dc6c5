/*
 * A host's allocator for tests: it counts the blocks that live, notes the
 * largest, and refuses once `left` is used up.
 */
#ifndef MMQ_TEST_METER_H
#define MMQ_TEST_METER_H

#include <stdlib.h>

#include "core/mem.h"

struct meter {
    int live; /* changed with atomics: a pool's threads may free */
    int left; /* blocks that will still be given */
    size_t largest;
};

__attribute__((unused)) static void *meter_alloc(void *user, size_t size)
{
    struct meter *meter = user;
    void *block = meter->left > 0 ? malloc(size) : NULL;

    if (!block)
        return NULL;
    meter->left--;
    __atomic_add_fetch(&meter->live, 1, __ATOMIC_RELAXED);
    if (size > meter->largest)
        meter->largest = size;
    return block;
}

__attribute__((unused)) static void meter_free(void *user, void *block)
{
    struct meter *meter = user;

    __atomic_sub_fetch(&meter->live, 1, __ATOMIC_RELAXED);
    free(block);
}

#endif
