/*
 * What models and sessions on one set of devices share: the devices, the
 * CPU's threads, the runtime that may lend them, and the budgets of bytes.
 *
 * Counted: a model, its sessions and models quantized from it hold it. The
 * budgets are checked before memory is asked for, so a limit is never passed.
 */
#ifndef MMQI_RUNTIME_HOST_H
#define MMQI_RUNTIME_HOST_H

#include "backend/loader.h"
#include "backend/registry.h"
#include "core/os.h"
#include "model/model.h"
#include "runtime/runtime.h"

enum { MMQI_DEVICE_NAME_BYTES = 32 };

/* One device, its budget among them. */
struct mmqi_host_place {
    struct mmqi_place at;
    char name[MMQI_DEVICE_NAME_BYTES]; /* as rules spell it: "cpu", "cuda:0" */
    uint64_t limit;                    /* bytes; UINT64_MAX: none */
    uint64_t used;                     /* guarded by the host's mutex */
};

struct mmqi_host {
    struct mmqi_loaded cuda; /* libmmq-cuda.so, where it was opened */
    struct mmqi_host_place place[MMQI_MAX_PLACES];
    int32_t n_places;
    /* The device map, where there is one: its text, its rules, and the place of each. */
    char *map_text;
    struct mmqi_rules map;
    int32_t *map_places;
    char *text; /* of several devices, for mmqi_host_describe() */
    struct mmqi_pool *pool;
    struct mmqi_runtime *runtime; /* whose pool it is; NULL: the pool is the host's own */
    struct mmqi_os_mutex *mutex;
    int32_t n_users; /* changed with atomics only */
};

struct mmqi_host_options {
    const char *device, *isa;     /* NULL: auto */
    int32_t n_threads;            /* 0: one per processor */
    uint64_t limit;               /* of the one device; 0: none */
    const char *limits;           /* rules, "cuda:0 = 8GiB; cpu = 4GiB"; NULL: none */
    struct mmqi_runtime *runtime; /* NULL: threads of its own */
};

/*
 * Under the runtime's hooks, where there is one. `device` is the name of one, or rules that give
 * weights theirs. `backends`, which ends with NULL, are those of this library; that of
 * libmmq-cuda.so comes before them, opened where a device is named "cuda..." or may be any. Any
 * takes what is there, and the log tells why it is not CUDA.
 *
 *   MMQ_ERR_INVALID    a map or limits that do not parse; limits of no device; one limit for
 *                      several devices; another number of threads than the runtime's
 *   MMQ_ERR_LIMIT      more than MMQI_MAX_PLACES devices, or too long a text
 *   MMQ_ERR_NO_DEVICE  and what opening a device says
 */
int32_t mmqi_host_create(struct mmqi_host **out, const struct mmqi_backend *const *backends,
                         const struct mmqi_host_options *options);
struct mmqi_host *mmqi_host_retain(struct mmqi_host *host); /* any thread */
void mmqi_host_release(struct mmqi_host *host);             /* accepts NULL */

/* Split a model that was just opened as the host's map says; errors of mmqi_model_split(). */
int32_t mmqi_host_split(const struct mmqi_host *host, struct mmqi_model *model);

/* "cpu avx512, 2 threads"; several devices are joined by " + ". Lives with the host. */
const char *mmqi_host_describe(const struct mmqi_host *host);

/* The runtime's log, for mmqi_log(); NULL where there is none. */
const struct mmqi_log *mmqi_host_log(const struct mmqi_host *host);

/* The place of a device that this host has; -1 for another one. "cuda" is "cuda:0"; "auto" names
 * none. */
int32_t mmqi_host_find_place(const struct mmqi_host *host, const char *device);

/* Count bytes [n_places] against the budgets, all or none; MMQ_ERR_LIMIT tells `what` needs them,
 * and what is left. Any thread. */
int32_t mmqi_host_take(struct mmqi_host *host, const uint64_t *bytes, const char *what);
void mmqi_host_give(struct mmqi_host *host, const uint64_t *bytes);
/* The same for one place. */
int32_t mmqi_host_take_at(struct mmqi_host *host, int32_t place, uint64_t bytes, const char *what);
void mmqi_host_give_at(struct mmqi_host *host, int32_t place, uint64_t bytes);
uint64_t mmqi_host_used(struct mmqi_host *host, int32_t place); /* now */

/* A device that could be opened. */
struct mmqi_device_listing {
    char id[MMQI_DEVICE_NAME_BYTES], kind[MMQI_DEVICE_NAME_BYTES];
    bool fast;
    struct mmqi_device_info info;
};

/* How many there are, of libmmq-cuda.so and then of `backends`; and which is number `index`, where
 * `out` is not NULL: untouched past the end. `runtime` may be NULL. */
int32_t mmqi_host_find(struct mmqi_device_listing *out, int32_t *n,
                       const struct mmqi_backend *const *backends, struct mmqi_runtime *runtime,
                       int32_t index);

#endif
