#include "bench_memory.h"

#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* 64 bytes; the compiler makes of it what the machine has. */
typedef uint64_t row_t __attribute__((vector_size(64)));

enum job { JOB_FILL, JOB_READ, JOB_COPY };

struct part {
    enum job job;
    row_t *rows;
    size_t n;
    row_t sum; /* so that the reads are not left out */
};

static void read_rows(struct part *part)
{
    row_t a = {0}, b = {0}, c = {0}, d = {0};
    const row_t *rows = part->rows;

    for (size_t i = 0; i + 4 <= part->n; i += 4) {
        a += rows[i];
        b += rows[i + 1];
        c += rows[i + 2];
        d += rows[i + 3];
    }
    part->sum = a + b + c + d;
}

static void *run_part(void *arg)
{
    struct part *part = arg;

    switch (part->job) {
    case JOB_FILL:
        memset(part->rows, 1, part->n * sizeof *part->rows);
        break;
    case JOB_READ:
        read_rows(part);
        break;
    case JOB_COPY:
        memcpy(part->rows, part->rows + part->n / 2, part->n / 2 * sizeof *part->rows);
        break;
    }
    return NULL;
}

static double now(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

/* Seconds that the job takes, each thread on its own part; this thread has one as well. */
static double run_job(struct part *parts, pthread_t *threads, int n_threads, enum job job)
{
    double begin = now();
    bool started[1024];
    int i;

    for (i = n_threads - 1; i >= 0; i--) {
        parts[i].job = job;
        started[i] = i > 0 && pthread_create(&threads[i], NULL, run_part, &parts[i]) == 0;
        if (!started[i])
            run_part(&parts[i]);
    }
    for (i = 1; i < n_threads; i++)
        if (started[i])
            pthread_join(threads[i], NULL);
    return now() - begin;
}

bool measure_bandwidth(struct bandwidth *best, size_t bytes, int n_threads, int n_tries)
{
    row_t *rows = NULL;
    struct part *parts = NULL;
    pthread_t *threads = NULL;
    size_t n;
    double rate;
    bool ok = false;

    if (n_threads < 1 || n_threads > 1024)
        return false;
    n = bytes / sizeof *rows / (size_t)n_threads / 4 * 4;
    if (posix_memalign((void **)&rows, sizeof *rows, n * (size_t)n_threads * sizeof *rows) != 0)
        return false;
    threads = calloc((size_t)n_threads, sizeof *threads);
    if (posix_memalign((void **)&parts, sizeof *rows, (size_t)n_threads * sizeof *parts) != 0)
        parts = NULL;
    if (!threads || !parts)
        goto done;
    for (int i = 0; i < n_threads; i++)
        parts[i] = (struct part){.rows = rows + (size_t)i * n, .n = n};
    run_job(parts, threads, n_threads, JOB_FILL);
    bytes = n * (size_t)n_threads * sizeof *rows;
    for (int i = 0; i < n_tries; i++) {
        rate = (double)bytes / run_job(parts, threads, n_threads, JOB_READ);
        best->read = rate > best->read ? rate : best->read;
        rate = (double)bytes / run_job(parts, threads, n_threads, JOB_COPY);
        best->copy = rate > best->copy ? rate : best->copy;
    }
    ok = true;
done:
    free(parts);
    free(threads);
    free(rows);
    return ok;
}
