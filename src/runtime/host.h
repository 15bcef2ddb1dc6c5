/*
 * What models and sessions on one device share: the device, the CPU's
 * threads, the runtime that may lend them, and the budget of bytes.
 *
 * Counted: a model, its sessions and models quantized from it hold it. The
 * budget is checked before memory is asked for, so a limit is never passed.
 */
#ifndef MMQI_RUNTIME_HOST_H
#define MMQI_RUNTIME_HOST_H

#include "backend/loader.h"
#include "backend/registry.h"
#include "core/os.h"
#include "runtime/runtime.h"

struct mmqi_host {
    struct mmqi_loaded cuda; /* libmmq-cuda.so, where it was opened */
    const struct mmqi_backend *backend;
    struct mmqi_device *device;
    char name[32]; /* of the device, as options spell it: "cpu", "cuda:0" */
    struct mmqi_pool *pool;
    struct mmqi_runtime *runtime; /* whose pool it is; NULL: the pool is the host's own */
    struct mmqi_os_mutex *mutex;  /* guards `used` */
    uint64_t limit;               /* bytes on the device; UINT64_MAX: none */
    uint64_t used;
    int32_t n_users; /* changed with atomics only */
};

struct mmqi_host_options {
    const char *device, *isa;     /* NULL: auto */
    int32_t n_threads;            /* 0: one per processor */
    uint64_t limit;               /* 0: none */
    struct mmqi_runtime *runtime; /* NULL: threads of its own */
};

/*
 * Under the runtime's hooks, where there is one. `backends`, which ends with NULL, are those of this
 * library; that of libmmq-cuda.so comes before them, opened where the device is named "cuda..." or
 * may be any. Any takes what is there, and the log tells why it is not CUDA. MMQ_ERR_INVALID:
 * another number of threads than the runtime's.
 */
int32_t mmqi_host_create(struct mmqi_host **out, const struct mmqi_backend *const *backends,
                         const struct mmqi_host_options *options);
struct mmqi_host *mmqi_host_retain(struct mmqi_host *host); /* any thread */
void mmqi_host_release(struct mmqi_host *host);             /* accepts NULL */

/* The runtime's log, for mmqi_log(); NULL where there is none. */
const struct mmqi_log *mmqi_host_log(const struct mmqi_host *host);

/* The place of a device that this host has, 0; -1 for another one. "cuda" is "cuda:0"; "auto" names
 * none. */
int32_t mmqi_host_find_place(const struct mmqi_host *host, const char *device);

/* Count `bytes` against the budget; MMQ_ERR_LIMIT tells `what` needs them, and what is left. Any
 * thread. */
int32_t mmqi_host_take(struct mmqi_host *host, uint64_t bytes, const char *what);
void mmqi_host_give(struct mmqi_host *host, uint64_t bytes);

#endif
