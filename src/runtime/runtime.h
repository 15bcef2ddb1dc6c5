/*
 * A runtime: the host's allocator, log and threads, shared by any number of
 * models.
 *
 * Counted twice. Users (the handle, and the devices of its models) keep the
 * threads; users and every block that the host's allocator gave keep the
 * runtime itself, since a block finds its way back through the hooks that
 * lie in here. So a result may be freed after the last model.
 */
#ifndef MMQI_RUNTIME_RUNTIME_H
#define MMQI_RUNTIME_RUNTIME_H

#include "core/log.h"
#include "core/mem.h"
#include "core/thread.h"

struct mmqi_runtime_options {
    struct mmqi_mem_hooks memory; /* alloc and free, or neither: malloc */
    struct mmqi_log log;
    mmqi_parallel_fn parallel; /* NULL: threads of the library */
    void *parallel_user;
    int32_t n_threads;        /* 0: one per processor */
    const char *cuda_library; /* copied; NULL: beside libmmq; "": none */
};

struct mmqi_runtime {
    struct mmqi_mem_hooks memory; /* the host's; alloc NULL: malloc */
    struct mmqi_mem_hooks hooks;  /* those of our blocks: the host's, and a holder more */
    struct mmqi_log log;
    struct mmqi_pool *pool;
    char *cuda_library; /* or NULL */
    int32_t n_users;    /* changed with atomics only, as is this: */
    int64_t n_holders;  /* blocks, and one for all users together */
};

/* MMQ_ERR_INVALID: one of alloc and free alone, or an absurd number of threads. */
int32_t mmqi_runtime_create(struct mmqi_runtime **out, const struct mmqi_runtime_options *options);
struct mmqi_runtime *mmqi_runtime_retain(struct mmqi_runtime *runtime); /* any thread */
void mmqi_runtime_release(struct mmqi_runtime *runtime);                /* accepts NULL */

/* Make the runtime's hooks the current ones; returns those before, for mmqi_mem_enter(). NULL, or a
 * runtime without an allocator, changes nothing. */
const struct mmqi_mem_hooks *mmqi_runtime_enter(const struct mmqi_runtime *runtime);

#endif
