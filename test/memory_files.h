/*
 * A store of files that lie in memory, for tests: a host's reader that counts
 * what is open and can be told to fail.
 */
#ifndef TEST_MEMORY_FILES_H
#define TEST_MEMORY_FILES_H

#include <check.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "io/file.h"
#include "mmq.h"

enum { MAX_MEMORY_FILES = 1200 };

struct memory_file {
    char name[96];
    const void *data;
    size_t size;
    int opened; /* how often */
};

struct memory_files {
    struct memory_file files[MAX_MEMORY_FILES];
    int n_files;
    int n_open;             /* now */
    int32_t fail_with;      /* what read_at returns instead of reading */
    int32_t fail_open_with; /* what open returns instead of opening */
};

static int32_t memory_open(void *user, const char *name, void **file)
{
    struct memory_files *all = user;
    int i;

    if (all->fail_open_with)
        return all->fail_open_with;
    for (i = 0; i < all->n_files; i++) {
        if (strcmp(all->files[i].name, name) == 0) {
            all->files[i].opened++;
            all->n_open++;
            *file = &all->files[i];
            return MMQ_OK;
        }
    }
    return MMQ_ERR_NOT_FOUND;
}

static int32_t memory_size(void *user, void *file, uint64_t *size)
{
    (void)user;
    *size = ((struct memory_file *)file)->size;
    return MMQ_OK;
}

static int32_t memory_read_at(void *user, void *file, uint64_t offset, void *dst, size_t size)
{
    const struct memory_file *memory = file;
    struct memory_files *all = user;

    if (all->fail_with)
        return all->fail_with;
    ck_assert_uint_le(offset, memory->size);
    ck_assert_uint_le(size, memory->size - offset);
    memcpy(dst, (const char *)memory->data + offset, size);
    return MMQ_OK;
}

static void memory_close(void *user, void *file)
{
    (void)file;
    ((struct memory_files *)user)->n_open--;
}

/* `data` must outlive the store. */
static void memory_add(struct memory_files *all, const char *name, const void *data, size_t size)
{
    struct memory_file *file = &all->files[all->n_files++];

    ck_assert_int_le(all->n_files, MAX_MEMORY_FILES);
    ck_assert_uint_lt(strlen(name), sizeof file->name);
    strcpy(file->name, name);
    file->data = data;
    file->size = size;
    file->opened = 0;
}

__attribute__((unused)) static struct mmqi_store *memory_store(struct memory_files *all)
{
    const struct mmqi_reader reader = {memory_open, memory_size, memory_read_at, memory_close, all};
    struct mmqi_store *store;

    ck_assert_int_eq(mmqi_store_open_reader(&store, "memory", &reader), MMQ_OK);
    return store;
}

#endif
