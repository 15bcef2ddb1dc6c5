/*
 * What the op suites share: targets (a backend, an instruction set, a number
 * of threads), and matrices whose surroundings are watched.
 *
 * Every float that is not an element is poison: rows of guard before and
 * after, and the spare columns up to the stride. Poison is a NaN of one bit
 * pattern, so a kernel that reads it spoils its result, and one that writes it is seen.
 *
 * TEST_DEVICE names another device than the CPU ("cuda:0"), TEST_CUDA_LIBRARY the library of its
 * backend (without it, the one of this build). Tests for each instruction set run once then.
 */
#ifndef TEST_OPS_HARNESS_H
#define TEST_OPS_HARNESS_H

#include <check.h>
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend/host.h"
#include "backend/loader.h"
#include "backend/registry.h"
#include "core/dtype.h"
#include "core/rng.h"
#include "core/status.h"
#include "support.h"

enum { GUARD_ROWS = 2, POISON = 0x7FC0BEEF };

static const int32_t all_isas[] = {MMQI_ISA_C, MMQI_ISA_AVX2, MMQI_ISA_AVX512};
enum { N_ISAS = 3 };

__attribute__((unused)) static const char *isa_name(int32_t isa)
{
    static const char *const names[] = {"auto", "c", "avx2", "avx512"};

    return names[isa];
}

/* ---- targets ---- */

struct target {
    const struct mmqi_backend *backend;
    const struct mmqi_ops *ops;
    struct mmqi_pool *pool;
    struct mmqi_device *device;
    struct mmqi_stream *stream;
};

__attribute__((unused)) static const char *cuda_library(void)
{
    const char *named = getenv("TEST_CUDA_LIBRARY");

    return named && *named ? named : source_path(BUILD_FOLDER "/lib/libmmq-cuda.so");
}

/* The device of that name, without a stream: t->pool, t->device, t->backend, t->ops. */
static int32_t target_device(struct target *t, struct mmqi_loaded *loaded, const char *name,
                             int32_t isa, int32_t threads)
{
    const struct mmqi_backend *list[3] = {&mmqi_cpu_backend, NULL, NULL};
    struct mmqi_device_options options = {.isa = isa, .host = &mmqi_backend_host};
    int32_t status = MMQ_OK;

    memset(t, 0, sizeof *t);
    if (strncmp(name, "cuda", 4) == 0 && !loaded->backend)
        status = mmqi_loader_open(loaded, "cuda", cuda_library());
    if (loaded->backend)
        list[0] = loaded->backend, list[1] = &mmqi_cpu_backend;
    if (status == MMQ_OK)
        status = mmqi_registry_find(&t->backend, &options.index, list, name);
    if (status == MMQ_OK)
        status = mmqi_pool_create(&t->pool, threads);
    if (status != MMQ_OK)
        return status;
    options.pool = t->pool;
    t->ops = t->backend->ops;
    return t->backend->open(&t->device, &options);
}

static const char *test_device(void)
{
    const char *name = getenv("TEST_DEVICE");

    return name && *name ? name : "cpu";
}

/* TEST_MODE "fast" opens streams of that mode; MMQI_MODE_EXACT without it. */
__attribute__((unused)) static int32_t test_mode(void)
{
    const char *mode = getenv("TEST_MODE");

    return mode && strcmp(mode, "fast") == 0 ? MMQI_MODE_FAST : MMQI_MODE_EXACT;
}

/* False, and a line that says so, where the machine lacks the instruction set. On a device that is
 * not the CPU the plain C's turn is the device's, and the others are passed over. */
__attribute__((unused)) static bool target_open(struct target *t, int32_t isa, int32_t threads,
                                                int64_t max_cols)
{
    struct mmqi_loaded loaded = {0}; /* its code stays in the process */
    struct mmqi_stream_options needs = {.mode = test_mode(),
                                        .max_cols = max_cols,
                                        .max_product = INT64_C(32) << 20,
                                        .max_heads = max_cols};
    int32_t status;

    if (strcmp(test_device(), "cpu") != 0 && isa != MMQI_ISA_C && isa != MMQI_ISA_AUTO)
        return false;
    status = target_device(t, &loaded, test_device(), isa, threads);
    if (status == MMQ_ERR_UNSUPPORTED) {
        printf("SKIPPED: %s\n", mmqi_message());
        mmqi_pool_free(t->pool);
        return false;
    }
    ck_assert_msg(status == MMQ_OK, "%s", mmqi_message());
    ck_assert_int_eq(t->backend->stream_open(t->device, &needs, &t->stream), MMQ_OK);
    return true;
}

/* The CPU's plain C, whatever TEST_DEVICE is. */
__attribute__((unused)) static void target_open_c(struct target *t, int64_t max_cols)
{
    struct mmqi_stream_options needs = {.max_cols = max_cols};
    struct mmqi_loaded none = {0};

    ck_assert_int_eq(target_device(t, &none, "cpu", MMQI_ISA_C, 1), MMQ_OK);
    ck_assert_int_eq(t->backend->stream_open(t->device, &needs, &t->stream), MMQ_OK);
}

static void target_close(struct target *t)
{
    t->backend->stream_close(t->stream);
    t->backend->close(t->device);
    mmqi_pool_free(t->pool);
}

/* ---- random numbers ---- */

/* In [-1, 1), the same for the same stream and index. */
static float random_at(uint64_t stream, uint64_t i)
{
    return (float)(2.0 * mmqi_rng_uniform(7, stream, i) - 1.0);
}

/* ---- matrices ---- */

struct matrix {
    struct mmqi_mat mat; /* as ops take it, on the device */
    float *host;         /* element (0, 0) of a copy here, of the same stride */
    float *host_block, *device_block;
    size_t floats; /* of a block, guards included */
};

static void upload(struct target *t, struct matrix *m)
{
    ck_assert_int_eq(
        t->backend->upload(t->device, m->device_block, m->host_block, m->floats * sizeof(float)),
        MMQ_OK);
}

static void download(struct target *t, struct matrix *m)
{
    ck_assert_int_eq(t->backend->stream_wait(t->stream), MMQ_OK);
    ck_assert_int_eq(
        t->backend->download(t->device, m->host_block, m->device_block, m->floats * sizeof(float)),
        MMQ_OK);
}

static float *at(const struct matrix *m, int64_t row, int64_t col)
{
    return m->host + row * m->mat.stride + col;
}

/* All poison. */
static struct matrix matrix_new(struct target *t, int64_t rows, int64_t cols, int64_t spare)
{
    struct matrix m = {.mat = {.rows = rows, .cols = cols, .stride = cols + spare}};
    uint32_t poison = POISON;
    void *memory;

    m.floats = (size_t)((rows + 2 * GUARD_ROWS) * m.mat.stride);
    m.host_block = malloc(m.floats * sizeof(float));
    ck_assert_ptr_nonnull(m.host_block);
    for (size_t i = 0; i < m.floats; i++)
        memcpy(&m.host_block[i], &poison, sizeof poison);
    ck_assert_int_eq(t->backend->alloc(t->device, &memory, m.floats * sizeof(float)), MMQ_OK);
    m.device_block = memory;
    m.host = m.host_block + GUARD_ROWS * m.mat.stride;
    m.mat.data = m.device_block + GUARD_ROWS * m.mat.stride;
    upload(t, &m);
    return m;
}

__attribute__((unused)) static struct matrix matrix_random(struct target *t, int64_t rows,
                                                           int64_t cols, int64_t spare,
                                                           uint64_t stream, float scale)
{
    struct matrix m = matrix_new(t, rows, cols, spare);

    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < cols; c++)
            *at(&m, r, c) = scale * random_at(stream, (uint64_t)(r * cols + c));
    upload(t, &m);
    return m;
}

/* Bring the elements here, and see that nothing else was written. */
__attribute__((unused)) static void matrix_read(struct target *t, struct matrix *m)
{
    int64_t rows = (int64_t)m->floats / m->mat.stride, row, col;

    download(t, m);
    for (int64_t i = 0; i < rows * m->mat.stride; i++) {
        row = i / m->mat.stride - GUARD_ROWS;
        col = i % m->mat.stride;
        if (row < 0 || row >= m->mat.rows || col >= m->mat.cols)
            ck_assert_msg(mmqi_bits_from_f32(m->host_block[i]) == POISON,
                          "written outside [%lld, %lld): row %lld, column %lld",
                          (long long)m->mat.rows, (long long)m->mat.cols, (long long)row,
                          (long long)col);
    }
}

static void matrix_free(struct target *t, struct matrix *m)
{
    t->backend->free(t->device, m->device_block);
    free(m->host_block);
}

/* Same bits in every element. */
__attribute__((unused)) static bool same_bits(const struct matrix *a, const struct matrix *b)
{
    for (int64_t r = 0; r < a->mat.rows; r++)
        if (memcmp(at(a, r, 0), at(b, r, 0), (size_t)a->mat.cols * sizeof(float)) != 0)
            return false;
    return true;
}

/* A view of one row, for calls on a row alone. */
__attribute__((unused)) static struct mmqi_mat one_row(const struct mmqi_mat *m, int64_t row)
{
    return (struct mmqi_mat){m->data + row * m->stride, 1, m->cols, m->stride};
}

/* ---- vectors and indices on the device ---- */

__attribute__((unused)) static void *device_copy(struct target *t, const void *data, size_t size)
{
    void *memory;

    ck_assert_int_eq(t->backend->alloc(t->device, &memory, size ? size : 1), MMQ_OK);
    ck_assert_int_eq(t->backend->upload(t->device, memory, data, size), MMQ_OK);
    return memory;
}

__attribute__((unused)) static float *device_random(struct target *t, int64_t n, uint64_t stream,
                                                    float scale)
{
    float *host = malloc((size_t)n * sizeof *host), *memory;

    for (int64_t i = 0; i < n; i++)
        host[i] = scale * random_at(stream, (uint64_t)i);
    memory = device_copy(t, host, (size_t)n * sizeof *host);
    free(host);
    return memory;
}

__attribute__((unused)) static void device_free(struct target *t, const void *memory)
{
    t->backend->free(t->device, (void *)(uintptr_t)memory);
}

/* Bytes of the device, when all that was asked of it is done. */
__attribute__((unused)) static void device_read(struct target *t, void *dst, const void *src,
                                                size_t size)
{
    ck_assert_int_eq(t->backend->stream_wait(t->stream), MMQ_OK);
    ck_assert_int_eq(t->backend->download(t->device, dst, src, size), MMQ_OK);
}

/* ---- weights ---- */

struct weight {
    struct mmqi_wmat mat;
    struct mmqi_layout layout;
    void *block;   /* on the device */
    uint8_t *host; /* the same canonical bytes here */
    float *values; /* [rows, cols] as the format's table unpacks them */
};

/* A random matrix, packed by the format's own table. */
__attribute__((unused)) static struct weight weight_new(struct target *t, int32_t format,
                                                        int64_t rows, int64_t cols, uint64_t stream)
{
    const struct mmqi_format_info *info = mmqi_format_info(format);
    struct weight w = {.mat = {.format = format, .rows = rows, .cols = cols}};
    const uint8_t *part[MMQI_MAX_PARTS] = {0};
    uint8_t *to[MMQI_MAX_PARTS] = {0};
    float *source = malloc((size_t)(rows * cols) * sizeof *source);
    float *absmax = malloc((size_t)(rows * cols) * sizeof *absmax); /* of blocks, before nesting */

    ck_assert_ptr_nonnull(info);
    ck_assert_int_eq(info->layout(&w.layout, rows, cols), MMQ_OK);
    w.host = calloc(1, w.layout.bytes + 1);
    w.values = malloc((size_t)(rows * cols) * sizeof *w.values);
    for (int64_t i = 0; i < rows * cols; i++)
        source[i] = random_at(stream, (uint64_t)i);
    for (int32_t i = 0; i < w.layout.n_parts; i++)
        part[i] = to[i] = w.host + w.layout.part[i].offset;
    if (info->nested)
        to[1] = (uint8_t *)absmax;
    info->pack(to, source, rows, cols, MMQI_METHOD_RTN);
    to[1] = w.host + w.layout.part[1].offset;
    if (info->nested)
        info->nest(to, absmax, w.layout.part[1].shape[0]);
    info->unpack(w.values, part, rows, cols, 0, rows * cols);
    w.block = device_copy(t, w.host, w.layout.bytes);
    ck_assert_int_eq(t->backend->pack(t->device, &w.mat, w.block, &w.layout), MMQ_OK);
    free(absmax);
    free(source);
    return w;
}

/* Bytes of the format that no one packed, for timing: codes at random, scales all alike. */
__attribute__((unused)) static struct weight weight_any(struct target *t, int32_t format,
                                                        int64_t rows, int64_t cols)
{
    const struct mmqi_format_info *info = mmqi_format_info(format);
    struct weight w = {.mat = {.format = format, .rows = rows, .cols = cols}};
    uint64_t state = 1;

    ck_assert_int_eq(info->layout(&w.layout, rows, cols), MMQ_OK);
    w.host = malloc(w.layout.bytes + 8);
    memset(w.host, 0x3c, w.layout.bytes); /* a small number in f32, bf16 and f16 */
    for (uint64_t i = 0; !info->is_float && i + 8 <= w.layout.part[0].bytes; i += 8) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        memcpy(w.host + w.layout.part[0].offset + i, &state, 8);
    }
    w.block = device_copy(t, w.host, w.layout.bytes);
    ck_assert_int_eq(t->backend->pack(t->device, &w.mat, w.block, &w.layout), MMQ_OK);
    return w;
}

__attribute__((unused)) static void weight_free(struct target *t, struct weight *w)
{
    t->backend->free(t->device, w->block);
    free(w->host);
    free(w->values);
}

/* ---- the end of every suite's main ---- */

__attribute__((unused)) static int run_suite(Suite *suite)
{
    SRunner *runner = srunner_create(suite);
    int failed;

    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}

#endif
