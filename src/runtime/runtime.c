#include "runtime/runtime.h"

#include <string.h>

#include "core/status.h"

/* The last user and the last block are gone. The runtime's own block is no block of core/mem.h
 * where the host allocates: it could not hold itself. */
static void end_runtime(struct mmqi_mem_owner *owner)
{
    struct mmqi_runtime *runtime = (struct mmqi_runtime *)owner;
    struct mmqi_mem_hooks hooks = runtime->hooks;

    if (hooks.alloc)
        hooks.free(hooks.user, runtime);
    else
        mmqi_free(runtime);
}

static struct mmqi_runtime *make_runtime(const struct mmqi_runtime_options *options)
{
    struct mmqi_runtime *runtime = options->alloc
                                       ? options->alloc(options->memory_user, sizeof *runtime)
                                       : mmqi_alloc(sizeof *runtime);

    if (!runtime)
        return NULL;
    memset(runtime, 0, sizeof *runtime);
    runtime->owner = (struct mmqi_mem_owner){1, end_runtime}; /* held by the users together */
    runtime->hooks = (struct mmqi_mem_hooks){options->alloc, options->free, options->memory_user,
                                             &runtime->owner};
    runtime->log = options->log;
    runtime->n_users = 1;
    return runtime;
}

int32_t mmqi_runtime_create(struct mmqi_runtime **out, const struct mmqi_runtime_options *options)
{
    const struct mmqi_mem_hooks *hooks;
    struct mmqi_runtime *runtime;
    int32_t status;

    *out = NULL;
    if (!options->alloc != !options->free)
        return mmqi_fail(MMQ_ERR_INVALID, "runtime: alloc and free go together");
    runtime = make_runtime(options);
    if (!runtime)
        return mmqi_fail(MMQ_ERR_NOMEM, "runtime: no memory for its handle");
    hooks = mmqi_runtime_enter(runtime);
    if (options->parallel)
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
    mmqi_mem_let_go(&runtime->owner);
}

const struct mmqi_mem_hooks *mmqi_runtime_enter(const struct mmqi_runtime *runtime)
{
    if (!runtime || !runtime->hooks.alloc)
        return mmqi_mem_current();
    return mmqi_mem_enter(&runtime->hooks);
}
