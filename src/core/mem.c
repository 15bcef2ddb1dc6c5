#include "core/mem.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "core/os.h"

enum { LARGE = 2 << 20 }; /* bytes from which a tensor gets large pages */

/* What stands before every block. 16 bytes keep the block at the hooks' own alignment. */
struct header {
    const struct mmqi_mem_hooks *hooks; /* NULL: malloc */
    uint64_t size_and_pad;              /* size << 8 | bytes from the hooks' block to the header */
};
static_assert(sizeof(struct header) == 16, "blocks keep the allocator's alignment of 16");

static _Thread_local const struct mmqi_mem_hooks *current;

const struct mmqi_mem_hooks *mmqi_mem_enter(const struct mmqi_mem_hooks *hooks)
{
    const struct mmqi_mem_hooks *before = current;

    current = hooks;
    return before;
}

const struct mmqi_mem_hooks *mmqi_mem_current(void)
{
    return current;
}

static void *from_system(size_t total, size_t align)
{
    return align == 64 && total >= LARGE ? mmqi_os_alloc_large(total) : malloc(total);
}

/* A block of `size` bytes at a multiple of `align` (16 or 64). */
static void *take(size_t size, size_t align)
{
    const struct mmqi_mem_hooks *hooks = current;
    size_t total;
    uintptr_t address;
    char *raw;
    struct header *header;

    if (size > SIZE_MAX >> 9 || !mmqi_add_size(size, align + sizeof *header, &total))
        return NULL;
    raw = hooks ? hooks->alloc(hooks->user, total) : from_system(total, align);
    if (!raw)
        return NULL;
    address = ((uintptr_t)raw + sizeof *header + align - 1) & ~(uintptr_t)(align - 1);
    header = (struct header *)(address - sizeof *header);
    header->hooks = hooks;
    header->size_and_pad = (uint64_t)size << 8 | (uint64_t)((char *)header - raw);
    return (void *)address;
}

void *mmqi_alloc(size_t size)
{
    return take(size, 16);
}

void *mmqi_alloc_aligned(size_t size)
{
    return take(size, 64);
}

void *mmqi_alloc_array(size_t count, size_t size)
{
    size_t bytes;

    return mmqi_mul_size(count, size, &bytes) ? take(bytes, 16) : NULL;
}

void *mmqi_calloc(size_t count, size_t size)
{
    size_t bytes;
    void *block = NULL;

    if (mmqi_mul_size(count, size, &bytes))
        block = take(bytes, 16);
    if (block)
        memset(block, 0, bytes);
    return block;
}

void *mmqi_realloc_array(void *block, size_t count, size_t size)
{
    size_t bytes, before;
    void *moved;

    if (!mmqi_mul_size(count, size, &bytes))
        return NULL;
    moved = take(bytes, 16);
    if (!moved || !block)
        return moved;
    before = (size_t)(((struct header *)block)[-1].size_and_pad >> 8);
    memcpy(moved, block, before < bytes ? before : bytes);
    mmqi_free(block);
    return moved;
}

char *mmqi_strndup(const char *text, size_t size)
{
    char *copy = size < SIZE_MAX ? mmqi_alloc(size + 1) : NULL;

    if (copy) {
        memcpy(copy, text, size);
        copy[size] = '\0';
    }
    return copy;
}

char *mmqi_strdup(const char *text)
{
    return mmqi_strndup(text, strlen(text));
}

void mmqi_free(void *block)
{
    struct header *header;
    char *raw;

    if (!block)
        return;
    header = (struct header *)block - 1;
    raw = (char *)header - (header->size_and_pad & 0xff);
    if (header->hooks)
        header->hooks->free(header->hooks->user, raw);
    else
        free(raw);
}
