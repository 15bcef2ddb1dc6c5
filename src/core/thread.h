/*
 * The thread pool: one per model (or per runtime), many submitters.
 *
 * A job is n chunks; the boundaries are the caller's and never depend on the
 * number of workers, so what a chunk computes cannot either. The calling
 * thread works too; a pool of one thread starts none. A pool of the host's
 * threads starts none either: it lends them out, job by job, from a callback.
 */
#ifndef MMQI_CORE_THREAD_H
#define MMQI_CORE_THREAD_H

#include <stdint.h>

struct mmqi_pool;

/* `worker` counts from 0 below mmqi_pool_threads(), for per-worker scratch of
 * one job; two chunks never run at once with the same job and worker. */
typedef void (*mmqi_chunk_fn)(void *arg, int64_t chunk, int32_t worker);

/* n_threads 0: one per processor that the process may use. */
int32_t mmqi_pool_create(struct mmqi_pool **out, int32_t n_threads);
/*
 * The host's threads: `fn` runs body(arg, i, worker) for every i of [0, n), with worker below
 * n_threads (0: one per processor), and returns when all are done; several threads may call it at
 * once. A call that leaves some i out only costs time.
 */
typedef void (*mmqi_parallel_fn)(void *user, int64_t n,
                                 void (*body)(void *arg, int64_t i, int32_t worker), void *arg);
int32_t mmqi_pool_create_hosted(struct mmqi_pool **out, int32_t n_threads, mmqi_parallel_fn fn,
                                void *user);
int32_t mmqi_pool_threads(const struct mmqi_pool *pool);
/* Run fn for the chunks [0, n_chunks), in any order, and return when all are done. Any thread; not
 * from a chunk. */
void mmqi_pool_run(struct mmqi_pool *pool, int64_t n_chunks, mmqi_chunk_fn fn, void *arg);
void mmqi_pool_free(struct mmqi_pool *pool); /* accepts NULL; no job may be running */

#endif
