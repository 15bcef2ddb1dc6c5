/*
 * Memory: checked sizes and the host's allocator.
 *
 * Every block remembers the hooks that made it, so mmqi_free() is right on
 * any thread. The hooks in force are a thread-local pointer, set by the api
 * layer (and by the pool for its workers) with mmqi_mem_enter(); NULL means
 * malloc and free. The host's own code always runs with NULL: whoever calls
 * back enters it for the time of the call, so that what the host makes there
 * belongs to the runtime that it names, or to none. Freeing a block may end
 * the hooks that made it.
 */
#ifndef MMQI_CORE_MEM_H
#define MMQI_CORE_MEM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct mmqi_mem_hooks {
    void *(*alloc)(void *user, size_t size); /* NULL when there is none; aligned to 16 */
    void (*free)(void *user, void *block);
    void *user;
};

/* Make `hooks` (or NULL) the current ones of this thread; returns those
 * before, to be handed back when the call into the library ends. */
const struct mmqi_mem_hooks *mmqi_mem_enter(const struct mmqi_mem_hooks *hooks);
const struct mmqi_mem_hooks *mmqi_mem_current(void);

/* Blocks aligned to 16 bytes; size 0 gives a block too. NULL when refused;
 * no message is written (the caller knows what the memory was for). */
void *mmqi_alloc(size_t size);
void *mmqi_calloc(size_t count, size_t size);      /* zeroed; a product that wraps gives NULL */
void *mmqi_alloc_array(size_t count, size_t size); /* not zeroed; checked product */
void *mmqi_realloc_array(void *block, size_t count,
                         size_t size); /* block may be NULL; kept on failure */
void *mmqi_alloc_aligned(size_t size); /* aligned to 64, for tensors; freed by mmqi_free() too */
char *mmqi_strdup(const char *text);
char *mmqi_strndup(const char *text, size_t size);
void mmqi_free(void *block); /* accepts NULL */

/* Checked arithmetic: false, and *out untouched, where the result would wrap. */
static inline bool mmqi_add_size(size_t a, size_t b, size_t *out)
{
    size_t sum;

    if (__builtin_add_overflow(a, b, &sum))
        return false;
    *out = sum;
    return true;
}

static inline bool mmqi_mul_size(size_t a, size_t b, size_t *out)
{
    size_t product;

    if (__builtin_mul_overflow(a, b, &product))
        return false;
    *out = product;
    return true;
}

static inline bool mmqi_add_u64(uint64_t a, uint64_t b, uint64_t *out)
{
    uint64_t sum;

    if (__builtin_add_overflow(a, b, &sum))
        return false;
    *out = sum;
    return true;
}

static inline bool mmqi_mul_u64(uint64_t a, uint64_t b, uint64_t *out)
{
    uint64_t product;

    if (__builtin_mul_overflow(a, b, &product))
        return false;
    *out = product;
    return true;
}

#endif
