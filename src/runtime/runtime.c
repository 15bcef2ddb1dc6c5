#include "runtime/runtime.h"

#include <string.h>

#include "core/status.h"

/* The last user and the last block are gone. */
static void let_go(struct mmqi_runtime *runtime)
{
    struct mmqi_mem_hooks memory = runtime->memory;

    if (__atomic_sub_fetch(&runtime->n_holders, 1, __ATOMIC_ACQ_REL) > 0)
        return;
    if (memory.alloc)
        memory.free(memory.user, runtime);
    else
        mmqi_free(runtime);
}

static void *take_block(void *user, size_t size)
{
    struct mmqi_runtime *runtime = user;
    void *block = runtime->memory.alloc(runtime->memory.user, size);

    if (block)
        __atomic_add_fetch(&runtime->n_holders, 1, __ATOMIC_RELAXED);
    return block;
}

static void give_block(void *user, void *block)
{
    struct mmqi_runtime *runtime = user;

    runtime->memory.free(runtime->memory.user, block);
    let_go(runtime);
}

/* The runtime's own block is the host's without a header: it could not hold itself. */
static struct mmqi_runtime *make_runtime(const struct mmqi_runtime_options *options)
{
    const struct mmqi_mem_hooks *memory = &options->memory;
    struct mmqi_runtime *runtime =
        memory->alloc ? memory->alloc(memory->user, sizeof *runtime) : mmqi_alloc(sizeof *runtime);

    if (!runtime)
        return NULL;
    memset(runtime, 0, sizeof *runtime);
    runtime->memory = *memory;
    runtime->hooks = (struct mmqi_mem_hooks){take_block, give_block, runtime};
    runtime->log = options->log;
    runtime->n_users = 1;
    runtime->n_holders = 1;
    return runtime;
}

int32_t mmqi_runtime_create(struct mmqi_runtime **out, const struct mmqi_runtime_options *options)
{
    const struct mmqi_mem_hooks *hooks;
    struct mmqi_runtime *runtime;
    int32_t status;

    *out = NULL;
    if (!options->memory.alloc != !options->memory.free)
        return mmqi_fail(MMQ_ERR_INVALID, "runtime: alloc and free go together");
    runtime = make_runtime(options);
    if (!runtime)
        return mmqi_fail(MMQ_ERR_NOMEM, "runtime: no memory for its handle");
    hooks = mmqi_runtime_enter(runtime);
    if (options->cuda_library)
        runtime->cuda_library = mmqi_strdup(options->cuda_library);
    if (options->cuda_library && !runtime->cuda_library)
        status = mmqi_fail(MMQ_ERR_NOMEM, "runtime: no memory for the path of a library");
    else if (options->parallel)
        status = mmqi_pool_create_hosted(&runtime->pool, options->n_threads, options->parallel,
                                         options->parallel_user);
    else
        status = mmqi_pool_create(&runtime->pool, options->n_threads);
    mmqi_mem_enter(hooks);
    if (status == MMQ_OK)
        *out = runtime;
    else
        mmqi_runtime_release(runtime);
    return status;
}

struct mmqi_runtime *mmqi_runtime_retain(struct mmqi_runtime *runtime)
{
    __atomic_add_fetch(&runtime->n_users, 1, __ATOMIC_RELAXED);
    return runtime;
}

void mmqi_runtime_release(struct mmqi_runtime *runtime)
{
    if (!runtime || __atomic_sub_fetch(&runtime->n_users, 1, __ATOMIC_ACQ_REL) > 0)
        return;
    mmqi_pool_free(runtime->pool);
    mmqi_free(runtime->cuda_library);
    let_go(runtime);
}

const struct mmqi_mem_hooks *mmqi_runtime_enter(const struct mmqi_runtime *runtime)
{
    if (!runtime || !runtime->memory.alloc)
        return mmqi_mem_current();
    return mmqi_mem_enter(&runtime->hooks);
}
