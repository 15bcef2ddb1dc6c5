/*
 * How fast the machine's memory is, to measure everything else against: the threads of the pool
 * read a block, and copy one half of it over the other, each its own part. What a product could
 * reach is not measured.
 */
#include <string.h>

#include "core/mem.h"
#include "core/os.h"
#include "cpu/cpu.h"

/* 64 bytes; the compiler makes of it what the machine has. */
typedef uint64_t row_t __attribute__((vector_size(64)));

enum job { JOB_FILL, JOB_READ, JOB_COPY, N_TRIES = 3 };

struct measuring {
    enum job job;
    row_t *rows;
    int64_t n;     /* rows of a part, a multiple of 4 */
    uint64_t sink; /* so that the reads are not left out; changed with atomics only */
};

static uint64_t read_rows(const row_t *rows, int64_t n)
{
    row_t a = {0}, b = {0}, c = {0}, d = {0};

    for (int64_t i = 0; i < n; i += 4) {
        a += rows[i];
        b += rows[i + 1];
        c += rows[i + 2];
        d += rows[i + 3];
    }
    a += b + c + d;
    return a[0] + a[1] + a[2] + a[3] + a[4] + a[5] + a[6] + a[7];
}

static void run_part(void *arg, int64_t part, int32_t worker)
{
    struct measuring *m = arg;
    row_t *rows = m->rows + part * m->n;
    size_t half = (size_t)(m->n / 2) * sizeof *rows;

    (void)worker;
    if (m->job == JOB_FILL)
        memset(rows, 1, (size_t)m->n * sizeof *rows);
    else if (m->job == JOB_READ)
        __atomic_add_fetch(&m->sink, read_rows(rows, m->n), __ATOMIC_RELAXED);
    else
        memcpy(rows, rows + m->n / 2, half);
}

/* Raises *rate to the bytes per second of this try. */
static void run_job(struct measuring *m, struct mmqi_pool *pool, enum job job, double *rate)
{
    int64_t n_parts = (int64_t)mmqi_pool_threads(pool);
    double bytes = (double)(n_parts * m->n) * sizeof(row_t), now;
    uint64_t begin = mmqi_os_nanoseconds(), end;

    m->job = job;
    mmqi_pool_run(pool, n_parts, run_part, m);
    end = mmqi_os_nanoseconds();
    now = end > begin ? bytes * 1e9 / (double)(end - begin) : 0;
    if (now > *rate)
        *rate = now;
}

int32_t mmqi_cpu_measure(struct mmqi_device *device, uint64_t bytes, struct mmqi_rates *rates)
{
    int64_t n_parts = (int64_t)mmqi_pool_threads(device->pool);
    struct measuring m = {.n = (int64_t)(bytes / sizeof(row_t)) / n_parts / 4 * 4};
    double filling = 0;

    memset(rates, 0, sizeof *rates);
    if (m.n == 0)
        return mmqi_fail(MMQ_ERR_INVALID, "measure: %llu bytes are too few",
                         (unsigned long long)bytes);
    m.rows = mmqi_alloc_aligned((size_t)(n_parts * m.n) * sizeof *m.rows);
    if (!m.rows)
        return mmqi_fail(MMQ_ERR_NOMEM, "measure: no memory for %llu bytes",
                         (unsigned long long)bytes);
    run_job(&m, device->pool, JOB_FILL, &filling);
    for (int i = 0; i < N_TRIES; i++) {
        run_job(&m, device->pool, JOB_READ, &rates->read);
        run_job(&m, device->pool, JOB_COPY, &rates->copy);
    }
    mmqi_free(m.rows);
    return MMQ_OK;
}
