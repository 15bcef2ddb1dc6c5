#include "core/mem.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "core/os.h"

enum {
    TENSOR_ALIGN = 64,
    LARGE = 2 << 20 /* bytes from which a tensor gets large pages */
};

/* What stands before every block. 16 bytes keep the block at the hooks' own alignment. */
struct header {
    const struct mmqi_mem_hooks *hooks; /* NULL: malloc; &large_pages: the system's large pages */
    uint64_t size_and_pad;              /* size << 8 | bytes from the hooks' block to the header */
};
static_assert(sizeof(struct header) == 16, "blocks keep the allocator's alignment of 16");

/* Stands for the system's large pages in a header; never called. */
static const struct mmqi_mem_hooks large_pages;

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

static void *from_hooks(const struct mmqi_mem_hooks *hooks, size_t total)
{
    if (!hooks)
        return malloc(total);
    return hooks == &large_pages ? mmqi_os_alloc_large(total) : hooks->alloc(hooks->user, total);
}

/* Of a block with its header, wherever it must begin. */
static size_t total_of(size_t size, size_t align)
{
    return size + align + sizeof(struct header);
}

/* A block of `size` bytes at a multiple of `align` (16 or 64). */
static void *take(size_t size, size_t align)
{
    const struct mmqi_mem_hooks *hooks = current;
    size_t total;
    uintptr_t address;
    char *raw;
    struct header *header;

    if (size > SIZE_MAX >> 9)
        return NULL;
    total = total_of(size, align);
    if (!hooks && align == TENSOR_ALIGN && total >= LARGE)
        hooks = &large_pages;
    raw = from_hooks(hooks, total);
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
    return take(size, TENSOR_ALIGN);
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
    if (!header->hooks)
        free(raw);
    else if (header->hooks == &large_pages)
        mmqi_os_free_large(raw, total_of((size_t)(header->size_and_pad >> 8), TENSOR_ALIGN));
    else
        header->hooks->free(header->hooks->user, raw);
}
