/*
 * The backend's table: opening, memory, streams. With --time
 * [all|c|avx2|avx512 [THREADS [NAME]]] it measures ops instead (ops/timing.h).
 */
#include "core/mem.h"
#include "ops/harness.h"
#include "ops/timing.h"

START_TEST(every_slot_is_filled)
{
    const void *const *slot = (const void *const *)mmqi_cpu_backend.ops;
    int32_t n;

    for (size_t i = 0; i < sizeof *mmqi_cpu_backend.ops / sizeof *slot; i++)
        ck_assert_ptr_nonnull(slot[i]);
    slot = (const void *const *)&mmqi_cpu_backend;
    for (size_t i = 0; i < sizeof mmqi_cpu_backend / sizeof *slot; i++)
        ck_assert_ptr_nonnull(slot[i]);
    ck_assert_int_eq(mmqi_cpu_backend.count(NULL, &n), MMQ_OK);
    ck_assert_int_eq(n, 1);
}
END_TEST

START_TEST(automatic_is_the_best_that_can_be_forced)
{
    struct target t;
    const char *best = "?";
    char expected[64];

    for (int32_t i = 0; i < N_ISAS; i++)
        if (target_open(&t, all_isas[i], 3, 64)) {
            best = isa_name(all_isas[i]);
            snprintf(expected, sizeof expected, "cpu %s, 3 threads", best);
            ck_assert_str_eq(t.backend->describe(t.device), expected);
            target_close(&t);
        }
    ck_assert(target_open(&t, MMQI_ISA_AUTO, 1, 64));
    snprintf(expected, sizeof expected, "cpu %s, 1 thread", best);
    ck_assert_str_eq(t.backend->describe(t.device), expected);
    target_close(&t);
}
END_TEST

START_TEST(refuses_what_is_not_here_and_says_it)
{
    struct mmqi_device_options options = {.isa = 99};
    struct mmqi_device *device = (struct mmqi_device *)&options;

    ck_assert_int_eq(mmqi_pool_create(&options.pool, 1), MMQ_OK);
    ck_assert_int_eq(mmqi_cpu_backend.open(&device, &options), MMQ_ERR_UNSUPPORTED);
    ck_assert_ptr_null(device);
    ck_assert_ptr_nonnull(strstr(mmqi_message(), "99"));
    options = (struct mmqi_device_options){.index = 1, .pool = options.pool};
    ck_assert_int_eq(mmqi_cpu_backend.open(&device, &options), MMQ_ERR_NO_DEVICE);
    options.index = 0;
    mmqi_pool_free(options.pool);
    options.pool = NULL;
    ck_assert_int_eq(mmqi_cpu_backend.open(&device, &options), MMQ_ERR_INVALID);
    mmqi_cpu_backend.close(NULL);
    mmqi_cpu_backend.stream_close(NULL);
}
END_TEST

struct meter {
    size_t live, calls, limit;
};

static void *meter_alloc(void *user, size_t size)
{
    struct meter *meter = user;

    if (meter->calls == meter->limit)
        return NULL;
    meter->calls++;
    meter->live += size;
    return malloc(size);
}

static void meter_free(void *user, void *block)
{
    (void)user;
    free(block);
}

/* Every block carries a header of core/mem.c and at most 64 bytes to align it. */
enum { BLOCK_OVERHEAD = 128 };

START_TEST(a_stream_takes_the_bytes_it_tells_and_ops_take_none)
{
    static const int64_t widths[] = {1, 17, 64, 576, 2049, 16384, 100000};
    struct meter meter = {.limit = SIZE_MAX};
    struct mmqi_mem_hooks hooks = {meter_alloc, meter_free, &meter};
    struct mmqi_stream_options needs = {0};
    struct mmqi_stream *stream;
    struct target t;
    struct matrix x, y;
    struct weight w;
    size_t told, calls;

    ck_assert(target_open(&t, MMQI_ISA_AUTO, 2, 1));
    for (size_t i = 0; i < sizeof widths / sizeof *widths; i++) {
        meter.live = 0;
        mmqi_mem_enter(&hooks);
        needs.max_cols = widths[i];
        told = t.backend->stream_bytes(t.device, &needs);
        ck_assert_int_eq(t.backend->stream_open(t.device, &needs, &stream), MMQ_OK);
        mmqi_mem_enter(NULL);
        ck_assert_uint_ge(meter.live, told);
        ck_assert_uint_le(meter.live, told + 2 * BLOCK_OVERHEAD);
        x = matrix_random(&t, 7, widths[i], 0, 1, 1.0f);
        y = matrix_new(&t, 7, 3, 0);
        w = weight_new(&t, MMQI_FORMAT_NF4, 3, widths[i], 2);
        calls = meter.calls;
        mmqi_mem_enter(&hooks);
        ck_assert_int_eq(t.ops->matmul(stream, &y.mat, &x.mat, &w.mat, NULL), MMQ_OK);
        mmqi_mem_enter(NULL);
        ck_assert_uint_eq(meter.calls, calls);
        t.backend->stream_close(stream);
        weight_free(&t, &w);
        matrix_free(&t, &x);
        matrix_free(&t, &y);
    }
    target_close(&t);
}
END_TEST

START_TEST(refused_memory_is_a_status)
{
    struct meter meter = {0};
    struct mmqi_mem_hooks hooks = {meter_alloc, meter_free, &meter};
    struct mmqi_device_options options = {0};
    struct mmqi_stream_options needs = {.max_cols = 64};
    struct mmqi_stream *stream;
    struct mmqi_device *device;
    struct target t;
    void *memory;

    ck_assert(target_open(&t, MMQI_ISA_AUTO, 2, 64));
    options.pool = t.pool;
    mmqi_mem_enter(&hooks);
    ck_assert_int_eq(t.backend->open(&device, &options), MMQ_ERR_NOMEM);
    ck_assert_int_eq(t.backend->alloc(t.device, &memory, 100), MMQ_ERR_NOMEM);
    for (meter.limit = 0; meter.limit < 2; meter.limit++) {
        meter.calls = 0;
        ck_assert_int_eq(t.backend->stream_open(t.device, &needs, &stream), MMQ_ERR_NOMEM);
        ck_assert_ptr_null(stream);
    }
    mmqi_mem_enter(NULL);
    target_close(&t);
}
END_TEST

START_TEST(memory_is_aligned_and_moves_both_ways)
{
    static const char text[] = "bytes as they are";
    char back[sizeof text] = "";
    struct target t;
    void *a, *b;

    ck_assert(target_open(&t, MMQI_ISA_AUTO, 1, 64));
    ck_assert_int_eq(t.backend->alloc(t.device, &a, sizeof text), MMQ_OK);
    ck_assert_int_eq(t.backend->alloc(t.device, &b, sizeof text), MMQ_OK);
    ck_assert_uint_eq((uintptr_t)a % 64, 0);
    ck_assert_int_eq(t.backend->upload(t.device, a, text, sizeof text), MMQ_OK);
    ck_assert_int_eq(t.backend->copy(t.device, b, a, sizeof text), MMQ_OK);
    ck_assert_int_eq(t.backend->download(t.device, back, b, sizeof text), MMQ_OK);
    ck_assert_str_eq(back, text);
    t.backend->free(t.device, a);
    t.backend->free(t.device, b);
    t.backend->free(t.device, NULL);
    target_close(&t);
}
END_TEST

START_TEST(refuses_to_place_an_unknown_format)
{
    struct mmqi_wmat w = {.format = MMQI_N_FORMATS, .rows = 1, .cols = 1};
    struct mmqi_layout layout = {0};
    struct target t;

    ck_assert(target_open(&t, MMQI_ISA_AUTO, 1, 64));
    ck_assert_int_eq(t.backend->pack(t.device, &w, NULL, &layout), MMQ_ERR_UNSUPPORTED);
    target_close(&t);
}
END_TEST

static struct timed_choice timed;

START_TEST(time_every_op)
{
    time_all(&timed);
}
END_TEST

static int run_timing(int n, char **words)
{
    Suite *suite = suite_create("time");
    TCase *tcase = tcase_create("time");

    timed.isa = n > 0 && strcmp(words[0], "all") != 0 ? words[0] : NULL;
    timed.threads = n > 1 ? atoi(words[1]) : 0;
    timed.name = n > 2 ? words[2] : NULL;
    tcase_set_timeout(tcase, 0);
    tcase_add_test(tcase, time_every_op);
    suite_add_tcase(suite, tcase);
    return run_suite(suite);
}

int main(int argc, char **argv)
{
    Suite *suite;
    TCase *tcase;

    if (argc > 1 && strcmp(argv[1], "--time") == 0)
        return run_timing(argc - 2, argv + 2);
    suite = suite_create("backend");
    tcase = tcase_create("backend");
    tcase_set_timeout(tcase, 60);
    tcase_add_test(tcase, every_slot_is_filled);
    tcase_add_test(tcase, automatic_is_the_best_that_can_be_forced);
    tcase_add_test(tcase, refuses_what_is_not_here_and_says_it);
    tcase_add_test(tcase, a_stream_takes_the_bytes_it_tells_and_ops_take_none);
    tcase_add_test(tcase, refused_memory_is_a_status);
    tcase_add_test(tcase, memory_is_aligned_and_moves_both_ways);
    tcase_add_test(tcase, refuses_to_place_an_unknown_format);
    suite_add_tcase(suite, tcase);
    return run_suite(suite);
}
