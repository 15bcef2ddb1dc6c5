/*
 * A device under test beside the CPU's plain C, for programs that compare the two.
 *
 * TEST_DEVICE names the device (ops/harness.h). A mismatch is printed and counted, and the next
 * case goes on: one run tells everything.
 */
#ifndef TEST_OPS_DEVICE_H
#define TEST_OPS_DEVICE_H

#include <stdarg.h>

#include "ops/harness.h"

/* ---- the two devices ---- */

struct rig {
    struct mmqi_loaded loaded;
    struct target dev; /* under test */
    struct target ref; /* the CPU's plain C, on every processor */
    int32_t mode;
    int64_t n_cases, n_bad; /* of the test that runs */
    double worst;           /* greatest error met, in bounds */
};

static struct rig rig;

/* Streams of `mode` that take the sizes of any case. */
static const struct mmqi_stream_options rig_needs = {
    .max_cols = 131072, .max_product = INT64_C(8) << 20, .max_heads = 16384};

static int32_t rig_open(int32_t mode)
{
    struct mmqi_stream_options needs = rig_needs;
    int32_t status = target_device(&rig.ref, &rig.loaded, "cpu", MMQI_ISA_C, 0);

    if (status == MMQ_OK)
        status = rig.ref.backend->stream_open(rig.ref.device, &needs, &rig.ref.stream);
    if (status == MMQ_OK)
        status = target_device(&rig.dev, &rig.loaded, test_device(), MMQI_ISA_AUTO, 0);
    needs.mode = rig.mode = mode;
    if (status == MMQ_OK)
        status = rig.dev.backend->stream_open(rig.dev.device, &needs, &rig.dev.stream);
    return status;
}

static void rig_close(void)
{
    if (rig.dev.device)
        target_close(&rig.dev);
    if (rig.ref.device)
        target_close(&rig.ref);
    memset(&rig.dev, 0, sizeof rig.dev);
    memset(&rig.ref, 0, sizeof rig.ref);
}

static bool rig_on_cpu(void)
{
    return rig.dev.backend == &mmqi_cpu_backend;
}

/* ---- what a case says ---- */

__attribute__((format(printf, 1, 2))) static void bad(const char *format, ...)
{
    va_list args;

    rig.n_bad++;
    printf("BAD %s %s: ", test_device(), rig.mode == MMQI_MODE_FAST ? "fast" : "exact");
    va_start(args, format);
    vprintf(format, args);
    va_end(args);
    putchar('\n');
    fflush(stdout);
}

/* The call on the device went well. */
static bool went(const char *what, int32_t status)
{
    if (status == MMQ_OK)
        status = rig.dev.backend->stream_wait(rig.dev.stream);
    if (status != MMQ_OK)
        bad("%s: status %d: %s", what, (int)status, mmqi_message());
    return status == MMQ_OK;
}

/* TEST_SMALL=1, for tools under which all is slow: one case of `nth`, and none of more work (about
 * one multiplication each). Of this case: whether it is left out. */
static bool left_out(int64_t nth, double work)
{
    const char *small = getenv("TEST_SMALL");
    static int64_t n;

    if (!small || !*small)
        return false;
    return n++ % nth != 0 || work > 4e6;
}

static void rig_begin(void)
{
    rig.n_cases = rig.n_bad = 0;
    rig.worst = 0;
}

static void rig_end(const char *op)
{
    printf("%-12s %s: %lld cases, %lld bad, greatest error %.2f of the bound\n", op,
           rig.mode == MMQI_MODE_FAST ? "fast" : "exact", (long long)rig.n_cases,
           (long long)rig.n_bad, rig.worst);
    fflush(stdout);
    ck_assert_int_eq(rig.n_bad, 0);
}

/* ---- the same matrix on both ---- */

struct both {
    struct matrix dev, ref;
};

static struct both both_new(int64_t rows, int64_t cols, int64_t spare)
{
    return (struct both){matrix_new(&rig.dev, rows, cols, spare),
                         matrix_new(&rig.ref, rows, cols, spare)};
}

/* Of the reference's elements, all set by the caller; guards stay poison. */
static void both_upload(struct both *m)
{
    memcpy(m->dev.host_block, m->ref.host_block, m->ref.floats * sizeof(float));
    upload(&rig.dev, &m->dev);
    upload(&rig.ref, &m->ref);
}

static struct both both_random(int64_t rows, int64_t cols, int64_t spare, uint64_t stream,
                               float scale)
{
    struct both m = both_new(rows, cols, spare);

    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < cols; c++)
            *at(&m.ref, r, c) = scale * random_at(stream, (uint64_t)(r * cols + c));
    both_upload(&m);
    return m;
}

static void both_free(struct both *m)
{
    matrix_free(&rig.dev, &m->dev);
    matrix_free(&rig.ref, &m->ref);
}

/* An array of any kind on both. */
struct pair {
    void *dev, *ref;
};

static struct pair pair_copy(const void *data, size_t size)
{
    return (struct pair){device_copy(&rig.dev, data, size), device_copy(&rig.ref, data, size)};
}

static struct pair pair_random(int64_t n, uint64_t stream, float scale)
{
    return (struct pair){device_random(&rig.dev, n, stream, scale),
                         device_random(&rig.ref, n, stream, scale)};
}

static void pair_free(struct pair *p)
{
    device_free(&rig.dev, p->dev);
    device_free(&rig.ref, p->ref);
}

struct both_weight {
    struct weight ref; /* with the values that the format's table unpacks */
    struct mmqi_wmat dev;
    void *block;
};

static struct both_weight both_weight_new(int32_t format, int64_t rows, int64_t cols,
                                          uint64_t stream)
{
    struct both_weight w = {.ref = weight_new(&rig.ref, format, rows, cols, stream)};

    w.dev = (struct mmqi_wmat){.format = format, .rows = rows, .cols = cols};
    w.block = device_copy(&rig.dev, w.ref.host, w.ref.layout.bytes);
    ck_assert_int_eq(rig.dev.backend->pack(rig.dev.device, &w.dev, w.block, &w.ref.layout), MMQ_OK);
    return w;
}

static void both_weight_free(struct both_weight *w)
{
    device_free(&rig.dev, w->block);
    weight_free(&rig.ref, &w->ref);
}

/* ---- comparing ---- */

/* How far y[row, col] may be from the plain C's `value`; 0: the same bits. */
typedef double (*bound_fn)(const void *arg, int64_t row, int64_t col, double value);

/* Elements that are not poison outside of the matrix. */
static int64_t count_spilled(const struct matrix *m)
{
    int64_t rows = (int64_t)m->floats / m->mat.stride, n = 0, row, col;

    for (int64_t i = 0; i < rows * m->mat.stride; i++) {
        row = i / m->mat.stride - GUARD_ROWS;
        col = i % m->mat.stride;
        if (row < 0 || row >= m->mat.rows || col >= m->mat.cols)
            n += mmqi_bits_from_f32(m->host_block[i]) != POISON;
    }
    return n;
}

static double error_of(float found, float wanted, double bound)
{
    double error = fabs((double)found - wanted);

    if (mmqi_bits_from_f32(found) == mmqi_bits_from_f32(wanted) || (isnan(found) && isnan(wanted)))
        return 0;
    if (isnan(error) || bound <= 0)
        return INFINITY;
    return error / bound;
}

/* y, after the same call on both; what the case is, as printf spells it. */
__attribute__((format(printf, 4, 5))) static void compare(struct both *y, bound_fn bound,
                                                          const void *arg, const char *format, ...)
{
    int64_t n_wrong = 0, n_spilled, first[2] = {0, 0};
    double error, most = 0;
    char what[200];
    va_list args;

    va_start(args, format);
    vsnprintf(what, sizeof what, format, args);
    va_end(args);
    rig.n_cases++;
    download(&rig.dev, &y->dev);
    download(&rig.ref, &y->ref);
    n_spilled = count_spilled(&y->dev);
    for (int64_t r = 0; r < y->ref.mat.rows; r++)
        for (int64_t c = 0; c < y->ref.mat.cols; c++) {
            float wanted = *at(&y->ref, r, c);

            error = error_of(*at(&y->dev, r, c), wanted, bound ? bound(arg, r, c, wanted) : 0);
            if (error > 1 && n_wrong++ == 0)
                first[0] = r, first[1] = c;
            most = error > most ? error : most;
        }
    rig.worst = most > rig.worst ? most : rig.worst;
    if (n_wrong > 0)
        bad("%s: %lld of %lld wrong, the first [%lld, %lld] is %.9g, not %.9g; greatest error %.3g "
            "bounds",
            what, (long long)n_wrong, (long long)(y->ref.mat.rows * y->ref.mat.cols),
            (long long)first[0], (long long)first[1], (double)*at(&y->dev, first[0], first[1]),
            (double)*at(&y->ref, first[0], first[1]), most);
    if (n_spilled > 0)
        bad("%s: %lld floats written outside of it", what, (long long)n_spilled);
}

#endif
