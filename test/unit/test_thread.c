/* src/core/thread.c: the pool runs every chunk once, whoever submits. */
#include <check.h>
#include <fenv.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "core/mem.h"
#include "core/os.h"
#include "core/status.h"
#include "core/thread.h"
#include "meter.h"

enum { MAX_CHUNKS = 5000, MAX_WORKERS = 64 };

struct count {
    _Atomic int32_t times[MAX_CHUNKS];
    _Atomic int32_t inside[MAX_WORKERS]; /* chunks running with this worker number now */
    _Atomic int32_t clashes;
    int32_t n_workers;
};

static void count_chunk(void *arg, int64_t chunk, int32_t worker)
{
    struct count *count = arg;

    if (worker < 0 || worker >= count->n_workers)
        atomic_fetch_add(&count->clashes, 1);
    else if (atomic_fetch_add(&count->inside[worker], 1) != 0)
        atomic_fetch_add(&count->clashes, 1);
    atomic_fetch_add(&count->times[chunk], 1);
    if (worker >= 0 && worker < count->n_workers)
        atomic_fetch_sub(&count->inside[worker], 1);
}

static void check_counts(struct mmqi_pool *pool, int64_t n_chunks)
{
    struct count *count = calloc(1, sizeof *count);

    count->n_workers = mmqi_pool_threads(pool);
    mmqi_pool_run(pool, n_chunks, count_chunk, count);
    for (int64_t i = 0; i < MAX_CHUNKS; i++)
        ck_assert_int_eq(atomic_load(&count->times[i]), i < n_chunks);
    ck_assert_int_eq(atomic_load(&count->clashes), 0);
    free(count);
}

START_TEST(every_chunk_runs_exactly_once)
{
    static const int32_t threads[] = {1, 2, 3, 5, 16};
    static const int64_t chunks[] = {0, 1, 2, 3, 7, 64, MAX_CHUNKS};
    struct mmqi_pool *pool;

    ck_assert_int_eq(mmqi_pool_create(&pool, threads[_i]), MMQ_OK);
    ck_assert_int_eq(mmqi_pool_threads(pool), threads[_i]);
    for (int32_t again = 0; again < 20; again++)
        for (size_t i = 0; i < sizeof chunks / sizeof *chunks; i++)
            check_counts(pool, chunks[i]);
    mmqi_pool_free(pool);
}
END_TEST

START_TEST(zero_threads_means_one_per_processor)
{
    struct mmqi_pool *pool;

    ck_assert_int_eq(mmqi_pool_create(&pool, 0), MMQ_OK);
    ck_assert_int_eq(mmqi_pool_threads(pool), mmqi_os_cpu_count());
    mmqi_pool_free(pool);
}
END_TEST

START_TEST(refuses_a_negative_and_an_absurd_number_of_threads)
{
    struct mmqi_pool *pool = (struct mmqi_pool *)&pool;

    ck_assert_int_eq(mmqi_pool_create(&pool, -1), MMQ_ERR_INVALID);
    ck_assert_ptr_null(pool);
    ck_assert_int_eq(mmqi_pool_create(&pool, INT32_MAX), MMQ_ERR_INVALID);
    ck_assert_ptr_null(pool);
    mmqi_pool_free(NULL);
}
END_TEST

struct submitter {
    struct mmqi_pool *pool;
    struct count *count;
    int32_t wrong;
};

static void submit(void *arg)
{
    struct submitter *self = arg;
    int64_t n;

    for (int32_t round = 0; round < 200; round++) {
        n = 1 + (round * 37) % 300;
        memset(self->count, 0, sizeof *self->count);
        self->count->n_workers = mmqi_pool_threads(self->pool);
        mmqi_pool_run(self->pool, n, count_chunk, self->count);
        for (int64_t i = 0; i < 400; i++)
            self->wrong += atomic_load(&self->count->times[i]) != (i < n);
        self->wrong += atomic_load(&self->count->clashes);
    }
}

START_TEST(several_threads_submit_at_once)
{
    struct submitter submitters[4];
    struct mmqi_os_thread *thread[4];
    struct mmqi_pool *pool;

    ck_assert_int_eq(mmqi_pool_create(&pool, _i), MMQ_OK);
    for (int32_t i = 0; i < 4; i++) {
        submitters[i] = (struct submitter){pool, malloc(sizeof(struct count)), 0};
        thread[i] = mmqi_os_thread_start(submit, &submitters[i]);
        ck_assert_ptr_nonnull(thread[i]);
    }
    for (int32_t i = 0; i < 4; i++) {
        mmqi_os_thread_join(thread[i]);
        ck_assert_int_eq(submitters[i].wrong, 0);
        free(submitters[i].count);
    }
    mmqi_pool_free(pool);
}
END_TEST

static void nap(uint64_t nanoseconds)
{
    uint64_t end = mmqi_os_nanoseconds() + nanoseconds;

    while (mmqi_os_nanoseconds() < end)
        ;
}

START_TEST(wakes_workers_that_have_gone_to_sleep)
{
    struct mmqi_pool *pool;

    ck_assert_int_eq(mmqi_pool_create(&pool, 3), MMQ_OK);
    for (int32_t i = 0; i < 20; i++) {
        nap(1000000); /* far longer than an idle worker spins */
        check_counts(pool, 50);
    }
    mmqi_pool_free(pool);
}
END_TEST

struct meeting {
    _Atomic int32_t arrived;
    int32_t wanted;
    _Atomic int32_t met;
};

static void meet(void *arg, int64_t chunk, int32_t worker)
{
    struct meeting *meeting = arg;
    uint64_t end = mmqi_os_nanoseconds() + 10000000000u;

    (void)chunk;
    (void)worker;
    atomic_fetch_add(&meeting->arrived, 1);
    while (atomic_load(&meeting->arrived) < meeting->wanted)
        if (mmqi_os_nanoseconds() > end)
            return;
    atomic_fetch_add(&meeting->met, 1);
}

START_TEST(all_threads_and_the_submitter_work_on_one_job)
{
    struct meeting meeting = {.wanted = 4};
    struct mmqi_pool *pool;

    ck_assert_int_eq(mmqi_pool_create(&pool, 4), MMQ_OK);
    mmqi_pool_run(pool, 4, meet, &meeting); /* each chunk waits for the three others */
    ck_assert_int_eq(atomic_load(&meeting.met), 4);
    mmqi_pool_free(pool);
}
END_TEST

struct rounding {
    _Atomic int32_t others; /* chunks that saw another mode than to-nearest */
};

static void look_at_rounding(void *arg, int64_t chunk, int32_t worker)
{
    struct rounding *rounding = arg;

    (void)chunk;
    (void)worker;
    if (fegetround() != FE_TONEAREST)
        atomic_fetch_add(&rounding->others, 1);
    nap(1000);
}

START_TEST(chunks_run_in_the_default_floating_point_mode_and_the_host_keeps_its_own)
{
    struct rounding rounding = {0};
    struct mmqi_pool *pool;

    fesetround(FE_UPWARD);
    ck_assert_int_eq(mmqi_pool_create(&pool, 2), MMQ_OK);
    mmqi_pool_run(pool, 1, look_at_rounding, &rounding);
    mmqi_pool_run(pool, 100, look_at_rounding, &rounding);
    ck_assert_int_eq(fegetround(), FE_UPWARD);
    fesetround(FE_TONEAREST);
    ck_assert_int_eq(atomic_load(&rounding.others), 0);
    mmqi_pool_free(pool);
}
END_TEST

struct looks {
    struct meeting meeting;
    const struct mmqi_mem_hooks *seen[2]; /* by worker */
};

static void look_at_hooks(void *arg, int64_t chunk, int32_t worker)
{
    struct looks *looks = arg;

    looks->seen[worker] = mmqi_mem_current();
    meet(&looks->meeting, chunk, worker);
}

START_TEST(workers_allocate_as_the_maker_of_the_pool_did)
{
    struct meter meter = {.left = 100};
    struct mmqi_mem_hooks hooks = {meter_alloc, meter_free, &meter};
    struct looks looks = {.meeting = {.wanted = 2}};
    struct mmqi_pool *pool;

    mmqi_mem_enter(&hooks);
    ck_assert_int_eq(mmqi_pool_create(&pool, 2), MMQ_OK);
    mmqi_mem_enter(NULL);
    mmqi_pool_run(pool, 2, look_at_hooks, &looks);
    ck_assert_ptr_null(looks.seen[0]);
    ck_assert_ptr_eq(looks.seen[1], &hooks);
    mmqi_pool_free(pool);
    ck_assert_int_eq(meter.live, 0);
}
END_TEST

static void look_at_signals(void *arg)
{
    static const int asynchronous[] = {SIGINT, SIGTERM, SIGALRM, SIGUSR1, SIGCHLD, SIGPIPE};
    static const int faults[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGPROF};
    int32_t *wrong = arg;
    sigset_t blocked;

    pthread_sigmask(SIG_BLOCK, NULL, &blocked);
    for (size_t i = 0; i < sizeof asynchronous / sizeof *asynchronous; i++)
        *wrong += sigismember(&blocked, asynchronous[i]) != 1;
    for (size_t i = 0; i < sizeof faults / sizeof *faults; i++)
        *wrong += sigismember(&blocked, faults[i]) != 0;
}

START_TEST(the_hosts_signals_are_not_delivered_to_the_librarys_threads)
{
    struct mmqi_os_thread *thread;
    sigset_t before, after;
    int32_t wrong = 0;

    sigemptyset(&before);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    thread = mmqi_os_thread_start(look_at_signals, &wrong);
    ck_assert_ptr_nonnull(thread);
    mmqi_os_thread_join(thread);
    ck_assert_int_eq(wrong, 0);
    pthread_sigmask(SIG_SETMASK, NULL, &after);
    ck_assert_int_eq(sigismember(&after, SIGINT), 0); /* the host's own mask is as it was */
}
END_TEST

START_TEST(a_refused_allocation_gives_a_status_and_no_leak)
{
    struct meter meter = {0};
    struct mmqi_mem_hooks hooks = {meter_alloc, meter_free, &meter};
    struct mmqi_pool *pool;
    int32_t status = MMQ_ERR_NOMEM;

    for (int32_t limit = 0; status != MMQ_OK; limit++) {
        ck_assert_int_lt(limit, 100);
        meter.left = limit;
        mmqi_mem_enter(&hooks);
        status = mmqi_pool_create(&pool, 3);
        if (status != MMQ_OK) {
            ck_assert_int_eq(status, MMQ_ERR_NOMEM);
            ck_assert_ptr_null(pool);
            ck_assert_int_eq(meter.live, 0);
        }
        mmqi_mem_enter(NULL);
    }
    mmqi_pool_free(pool);
    ck_assert_int_eq(meter.live, 0);
}
END_TEST

/* ---- the host's threads ---- */

struct lender {
    int64_t n_calls, last_n;
    int32_t worker; /* every body gets this one; -1: its own number */
    bool leaves_out;
};

static void lend(void *user, int64_t n, void (*body)(void *arg, int64_t i, int32_t worker),
                 void *arg)
{
    struct lender *lender = user;

    lender->n_calls++;
    lender->last_n = n;
    ck_assert_int_eq(fegetround(), FE_UPWARD); /* the host's own */
    for (int64_t i = lender->leaves_out; i < n; i++)
        body(arg, i, lender->worker < 0 ? (int32_t)i : lender->worker);
    ck_assert_int_eq(fegetround(), FE_UPWARD);
}

START_TEST(the_hosts_threads_run_every_chunk_once_whatever_the_host_does)
{
    struct lender lenders[] = {
        {.worker = -1},
        {.worker = 2},
        {.worker = 0, .leaves_out = true},
        {.worker = 3}, /* past the last: gets nothing to do */
        {.worker = -1, .leaves_out = true},
    };
    struct lender *lender = &lenders[_i];
    struct rounding rounding = {0};
    struct mmqi_pool *pool;

    ck_assert_int_eq(mmqi_pool_create_hosted(&pool, 3, lend, lender), MMQ_OK);
    ck_assert_int_eq(mmqi_pool_threads(pool), 3);
    fesetround(FE_UPWARD);
    check_counts(pool, 0);
    check_counts(pool, 1);
    ck_assert_int_eq(lender->n_calls, 0); /* not worth a call */
    check_counts(pool, 2);
    ck_assert_int_eq(lender->last_n, 2);
    check_counts(pool, 500);
    ck_assert_int_eq(lender->last_n, 3);
    mmqi_pool_run(pool, 10, look_at_rounding, &rounding);
    ck_assert_int_eq(atomic_load(&rounding.others), 0);
    ck_assert_int_eq(fegetround(), FE_UPWARD);
    fesetround(FE_TONEAREST);
    mmqi_pool_free(pool);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("thread");
    TCase *tcase = tcase_create("pool");
    SRunner *runner = srunner_create(suite);
    int failed;

    tcase_set_timeout(tcase, 120);
    tcase_add_loop_test(tcase, every_chunk_runs_exactly_once, 0, 5);
    tcase_add_test(tcase, zero_threads_means_one_per_processor);
    tcase_add_test(tcase, refuses_a_negative_and_an_absurd_number_of_threads);
    tcase_add_loop_test(tcase, several_threads_submit_at_once, 1, 6);
    tcase_add_test(tcase, wakes_workers_that_have_gone_to_sleep);
    tcase_add_test(tcase, all_threads_and_the_submitter_work_on_one_job);
    tcase_add_test(tcase, chunks_run_in_the_default_floating_point_mode_and_the_host_keeps_its_own);
    tcase_add_test(tcase, workers_allocate_as_the_maker_of_the_pool_did);
    tcase_add_test(tcase, the_hosts_signals_are_not_delivered_to_the_librarys_threads);
    tcase_add_test(tcase, a_refused_allocation_gives_a_status_and_no_leak);
    tcase_add_loop_test(tcase, the_hosts_threads_run_every_chunk_once_whatever_the_host_does, 0, 5);
    suite_add_tcase(suite, tcase);
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
