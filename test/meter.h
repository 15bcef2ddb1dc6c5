/*
 * A host's allocator for tests: it counts the blocks that live and that were
 * made, notes the largest, and refuses once `left` is used up. Any thread may
 * take and give.
 */
#ifndef MMQ_TEST_METER_H
#define MMQ_TEST_METER_H

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>

#include "core/mem.h"

struct meter {
    int64_t live, made; /* blocks */
    int64_t left;       /* blocks that will still be given */
    size_t largest;
};

/* One of the blocks that are left, if any. */
__attribute__((unused)) static bool meter_allows(struct meter *meter)
{
    if (__atomic_fetch_sub(&meter->left, 1, __ATOMIC_RELAXED) > 0)
        return true;
    __atomic_fetch_add(&meter->left, 1, __ATOMIC_RELAXED);
    return false;
}

__attribute__((unused)) static void *meter_alloc(void *user, size_t size)
{
    struct meter *meter = user;
    size_t largest = __atomic_load_n(&meter->largest, __ATOMIC_RELAXED);
    void *block = meter_allows(meter) ? malloc(size) : NULL;

    if (!block)
        return NULL;
    __atomic_fetch_add(&meter->live, 1, __ATOMIC_RELAXED);
    __atomic_fetch_add(&meter->made, 1, __ATOMIC_RELAXED);
    while (size > largest && !__atomic_compare_exchange_n(&meter->largest, &largest, size, true,
                                                          __ATOMIC_RELAXED, __ATOMIC_RELAXED))
        ;
    return block;
}

__attribute__((unused)) static void meter_free(void *user, void *block)
{
    struct meter *meter = user;

    __atomic_fetch_sub(&meter->live, block != NULL, __ATOMIC_RELAXED);
    free(block);
}

/* Blocks that live, while other threads may take and give. */
__attribute__((unused)) static int64_t meter_live(const struct meter *meter)
{
    return __atomic_load_n(&meter->live, __ATOMIC_RELAXED);
}

#endif
