/*
 * The thread pool.
 *
 * A job lives on its submitter's stack. Open jobs hang on a list; a worker
 * joins one under the lock (job->helpers counts them), takes chunks from the
 * job's atomic counter without the lock, and leaves under the lock. The
 * submitter takes chunks too; when none is left it takes the job off the
 * list, so that nobody joins any more, and waits for the helpers to leave.
 * After its last touch of `helpers` a worker never looks at the job again.
 *
 * An idle worker spins for SPIN_NANOSECONDS, since the next op of a forward
 * pass comes within microseconds, then sleeps on a condition variable. Where
 * there are more threads than processors nobody spins.
 *
 * Chunks run with the default floating-point environment on every thread, so
 * that a host's rounding or flush-to-zero mode cannot make results depend on
 * which thread computed them.
 *
 * The host's threads are lent for one job at a time: the host is asked to run
 * as many bodies as there are threads, each of which takes chunks until none
 * is left. Whatever the host did with them, the submitter then takes the rest.
 */
#include "core/thread.h"

#include <fenv.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

#include "core/mem.h"
#include "core/os.h"
#include "core/status.h"

enum { SPIN_NANOSECONDS = 40000, SPIN_ROUNDS = 64, MAX_THREADS = 1024 };

struct job {
    struct mmqi_pool *pool;
    mmqi_chunk_fn fn;
    void *arg;
    int64_t n_chunks;
    _Atomic int64_t next;    /* first chunk that nobody took */
    _Atomic int32_t helpers; /* workers inside; written under the lock */
    struct job *link;
};

struct worker {
    struct mmqi_pool *pool;
    struct mmqi_os_thread *thread;
    int32_t index;
};

struct mmqi_pool {
    int32_t n_threads;
    bool spins;
    const struct mmqi_mem_hooks *hooks; /* the creator's, for the workers */
    mmqi_parallel_fn parallel;          /* the host's threads; NULL: workers of our own */
    void *parallel_user;
    struct mmqi_os_mutex *lock;
    struct mmqi_os_cond *work; /* a job was opened, or the pool closes */
    struct mmqi_os_cond *left; /* the last helper left some job */
    struct job *jobs;          /* under the lock */
    int32_t sleepers;          /* under the lock: workers in wait(work) */
    int32_t waiters;           /* under the lock: submitters in wait(left) */
    bool closing;              /* under the lock */
    _Atomic uint32_t opened;   /* jobs opened so far, to be spun on */
    struct worker *workers;    /* [n_threads - 1] */
};

static inline void relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static void run_chunks(struct job *job, int32_t worker)
{
    int64_t chunk;

    for (;;) {
        chunk = atomic_fetch_add_explicit(&job->next, 1, memory_order_relaxed);
        if (chunk >= job->n_chunks)
            return;
        job->fn(job->arg, chunk, worker);
    }
}

/* An open job that still has chunks, or NULL. Under the lock. */
static struct job *find_job(const struct mmqi_pool *pool)
{
    for (struct job *job = pool->jobs; job; job = job->link)
        if (atomic_load_explicit(&job->next, memory_order_relaxed) < job->n_chunks)
            return job;
    return NULL;
}

/* Spin until a job is opened after `seen`; false when the time is up. */
static bool spin_for_job(const struct mmqi_pool *pool, uint32_t seen)
{
    uint64_t end = mmqi_os_nanoseconds() + SPIN_NANOSECONDS;

    do {
        for (int32_t i = 0; i < SPIN_ROUNDS; i++) {
            if (atomic_load_explicit(&pool->opened, memory_order_acquire) != seen)
                return true;
            relax();
        }
    } while (mmqi_os_nanoseconds() < end);
    return false;
}

/* Take part in jobs until there is none with chunks left. Called and left with the lock held. */
static void help(struct mmqi_pool *pool, int32_t worker)
{
    struct job *job;

    while ((job = find_job(pool)) != NULL) {
        atomic_fetch_add_explicit(&job->helpers, 1, memory_order_relaxed);
        mmqi_os_unlock(pool->lock);
        run_chunks(job, worker);
        mmqi_os_lock(pool->lock);
        if (atomic_fetch_sub_explicit(&job->helpers, 1, memory_order_release) == 1 && pool->waiters)
            mmqi_os_wake_all(pool->left);
    }
}

static void work(void *arg)
{
    struct worker *self = arg;
    struct mmqi_pool *pool = self->pool;
    uint32_t seen;
    bool woken;

    mmqi_mem_enter(pool->hooks);
    fesetenv(FE_DFL_ENV);
    mmqi_os_lock(pool->lock);
    while (!pool->closing) {
        help(pool, self->index);
        seen = atomic_load_explicit(&pool->opened, memory_order_relaxed);
        woken = false;
        if (pool->spins && !pool->closing) {
            mmqi_os_unlock(pool->lock);
            woken = spin_for_job(pool, seen);
            mmqi_os_lock(pool->lock);
        }
        if (woken || pool->closing || find_job(pool))
            continue;
        pool->sleepers++;
        mmqi_os_wait(pool->work, pool->lock);
        pool->sleepers--;
    }
    mmqi_os_unlock(pool->lock);
}

static void open_job(struct mmqi_pool *pool, struct job *job)
{
    mmqi_os_lock(pool->lock);
    job->link = pool->jobs;
    pool->jobs = job;
    atomic_fetch_add_explicit(&pool->opened, 1, memory_order_release);
    if (pool->sleepers)
        mmqi_os_wake_all(pool->work);
    mmqi_os_unlock(pool->lock);
}

/* Take the job off the list and return when its last helper has left. */
static void close_job(struct mmqi_pool *pool, struct job *job)
{
    struct job **at = &pool->jobs;
    uint64_t end;

    mmqi_os_lock(pool->lock);
    while (*at != job)
        at = &(*at)->link;
    *at = job->link;
    mmqi_os_unlock(pool->lock);

    end = pool->spins ? mmqi_os_nanoseconds() + SPIN_NANOSECONDS : 0;
    while (pool->spins && atomic_load_explicit(&job->helpers, memory_order_acquire) &&
           mmqi_os_nanoseconds() < end)
        relax();
    if (atomic_load_explicit(&job->helpers, memory_order_acquire) == 0)
        return;
    mmqi_os_lock(pool->lock);
    pool->waiters++;
    while (atomic_load_explicit(&job->helpers, memory_order_acquire))
        mmqi_os_wait(pool->left, pool->lock);
    pool->waiters--;
    mmqi_os_unlock(pool->lock);
}

/* One of the bodies that the host runs, on any thread of its own. */
static void run_hosted(void *arg, int64_t i, int32_t worker)
{
    struct job *job = arg;
    const struct mmqi_mem_hooks *hooks;
    fenv_t host;

    (void)i;
    if (worker < 0 || worker >= job->pool->n_threads)
        return; /* there is no scratch for it */
    hooks = mmqi_mem_enter(job->pool->hooks);
    fegetenv(&host);
    fesetenv(FE_DFL_ENV);
    run_chunks(job, worker);
    fesetenv(&host);
    mmqi_mem_enter(hooks);
}

/* Have the host run the job, in the host's own floating-point environment and with no hooks. */
static void lend_job(struct job *job, const fenv_t *host)
{
    const struct mmqi_pool *pool = job->pool;
    int64_t n = job->n_chunks < pool->n_threads ? job->n_chunks : pool->n_threads;
    const struct mmqi_mem_hooks *hooks = mmqi_mem_enter(NULL);

    fesetenv(host);
    pool->parallel(pool->parallel_user, n, run_hosted, job);
    fesetenv(FE_DFL_ENV);
    mmqi_mem_enter(hooks);
}

void mmqi_pool_run(struct mmqi_pool *pool, int64_t n_chunks, mmqi_chunk_fn fn, void *arg)
{
    struct job job = {.pool = pool, .fn = fn, .arg = arg, .n_chunks = n_chunks};
    fenv_t host;

    if (n_chunks <= 0)
        return;
    fegetenv(&host);
    fesetenv(FE_DFL_ENV);
    if (pool->n_threads == 1 || n_chunks == 1) {
        run_chunks(&job, 0);
    } else if (pool->parallel) {
        lend_job(&job, &host);
        run_chunks(&job, 0);
    } else {
        open_job(pool, &job);
        run_chunks(&job, 0);
        close_job(pool, &job);
    }
    fesetenv(&host);
}

int32_t mmqi_pool_threads(const struct mmqi_pool *pool)
{
    return pool->n_threads;
}

/* All of them or a failure; those already started are then joined by mmqi_pool_free(). */
static int32_t start_workers(struct mmqi_pool *pool)
{
    struct worker *worker;

    for (int32_t i = 0; i < pool->n_threads - 1; i++) {
        worker = &pool->workers[i];
        worker->pool = pool;
        worker->index = i + 1;
        worker->thread = mmqi_os_thread_start(work, worker);
        if (!worker->thread)
            return mmqi_fail(MMQ_ERR_NOMEM, "thread %d of %d cannot be started", (int)i + 2,
                             (int)pool->n_threads);
    }
    return MMQ_OK;
}

/* A pool without workers, of 0 (automatic) or more threads. */
static int32_t create_pool(struct mmqi_pool **out, int32_t n_threads)
{
    struct mmqi_pool *pool;

    *out = NULL;
    if (n_threads < 0 || n_threads > MAX_THREADS)
        return mmqi_fail(MMQ_ERR_INVALID, "%d threads: 0 (automatic) to %d are allowed",
                         (int)n_threads, MAX_THREADS);
    if (n_threads == 0)
        n_threads = mmqi_os_cpu_count() < MAX_THREADS ? mmqi_os_cpu_count() : MAX_THREADS;
    pool = mmqi_calloc(1, sizeof *pool);
    if (!pool)
        return mmqi_fail(MMQ_ERR_NOMEM, "no memory for a pool of %d threads", (int)n_threads);
    pool->n_threads = n_threads;
    pool->spins = n_threads <= mmqi_os_cpu_count();
    pool->hooks = mmqi_mem_current();
    *out = pool;
    return MMQ_OK;
}

int32_t mmqi_pool_create_hosted(struct mmqi_pool **out, int32_t n_threads, mmqi_parallel_fn fn,
                                void *user)
{
    int32_t status = create_pool(out, n_threads);

    if (status != MMQ_OK)
        return status;
    (*out)->parallel = fn;
    (*out)->parallel_user = user;
    return MMQ_OK;
}

int32_t mmqi_pool_create(struct mmqi_pool **out, int32_t n_threads)
{
    struct mmqi_pool *pool;
    int32_t status = create_pool(&pool, n_threads);

    *out = NULL;
    if (status != MMQ_OK)
        return status;
    pool->lock = mmqi_os_mutex_create();
    pool->work = mmqi_os_cond_create();
    pool->left = mmqi_os_cond_create();
    pool->workers = mmqi_calloc((size_t)pool->n_threads, sizeof *pool->workers);
    if (!pool->lock || !pool->work || !pool->left || !pool->workers) {
        status =
            mmqi_fail(MMQ_ERR_NOMEM, "no memory for a pool of %d threads", (int)pool->n_threads);
        goto fail;
    }
    status = start_workers(pool);
    if (status != MMQ_OK)
        goto fail;
    *out = pool;
    return MMQ_OK;
fail:
    mmqi_pool_free(pool); /* accepts the half-built */
    return status;
}

void mmqi_pool_free(struct mmqi_pool *pool)
{
    if (!pool)
        return;
    if (pool->lock && pool->work) {
        mmqi_os_lock(pool->lock);
        pool->closing = true;
        atomic_fetch_add_explicit(&pool->opened, 1, memory_order_release);
        mmqi_os_wake_all(pool->work);
        mmqi_os_unlock(pool->lock);
    }
    for (int32_t i = 0; pool->workers && i < pool->n_threads - 1; i++)
        if (pool->workers[i].thread)
            mmqi_os_thread_join(pool->workers[i].thread);
    mmqi_os_cond_free(pool->left);
    mmqi_os_cond_free(pool->work);
    mmqi_os_mutex_free(pool->lock);
    mmqi_free(pool->workers);
    mmqi_free(pool);
}
