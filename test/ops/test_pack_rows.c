/*
 * Packing rows on a device: the same bytes as the formats' own packing, for every format, method
 * and awkward matrix, alone, by chunks, and file to file.
 *
 * TEST_DEVICE names the device ("cpu" without it, "cuda:0"), TEST_CUDA_LIBRARY the library of its
 * backend (without it, the one built in this tree). Every mismatch is a line, and the next case
 * goes on: one run tells everything.
 */
#include <time.h>

#include "backend/host.h"
#include "backend/loader.h"
#include "backend/packer.h"
#include "backend/registry.h"
#include "core/dtype.h"
#include "core/status.h"
#include "cuda/pack_cases.h"
#include "mmq.h"
#include "scratch.h"

/* ---- the device ---- */

static struct {
    struct mmqi_loaded loaded;
    struct mmqi_pool *pool;
    const struct mmqi_backend *backend;
    struct mmqi_device *device;
    int64_t n_cases, n_bad; /* of the test that runs */
} rig;

static const char *rig_device(void)
{
    const char *name = getenv("TEST_DEVICE");

    return name && *name ? name : "cpu";
}

static const char *rig_library(void)
{
    static const char *const places[] = {"build/release/lib", "build/debug/lib", "lib"};
    const char *named = getenv("TEST_CUDA_LIBRARY"), *path;

    if (named && *named)
        return named;
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        path = support_text("%s/libmmq-cuda.so", source_path(places[i]));
        if (access(path, R_OK) == 0)
            return path;
    }
    return "no libmmq-cuda.so is built";
}

static int32_t rig_open(void)
{
    const struct mmqi_backend *list[] = {&mmqi_cpu_backend, NULL, NULL};
    struct mmqi_device_options options = {.host = &mmqi_backend_host};
    int32_t status = mmqi_pool_create(&rig.pool, 2);

    if (status == MMQ_OK && strncmp(rig_device(), "cuda", 4) == 0)
        status = mmqi_loader_open(&rig.loaded, "cuda", rig_library());
    list[1] = rig.loaded.backend;
    if (status == MMQ_OK)
        status = mmqi_registry_find(&rig.backend, &options.index, list, rig_device());
    options.pool = rig.pool;
    return status == MMQ_OK ? rig.backend->open(&rig.device, &options) : status;
}

static void rig_close(void)
{
    if (rig.device)
        rig.backend->close(rig.device);
    mmqi_loader_close(&rig.loaded);
    mmqi_pool_free(rig.pool);
}

static void bad(const char *what)
{
    rig.n_bad++;
    printf("BAD %s %s\n", rig_device(), what);
}

static void went(int32_t status, const char *what)
{
    if (status != MMQ_OK)
        bad(support_text("%s: status %d: %s", what, (int)status, mmqi_message()));
}

static void rig_end(const char *what)
{
    printf("%s: %lld cases, %lld bad\n", what, (long long)rig.n_cases, (long long)rig.n_bad);
    ck_assert_int_eq(rig.n_bad, 0);
    rig.n_cases = 0;
}

/* ---- rows alone ---- */

enum { BLOCK_BYTES = 12 << 20, GUARD = 192 };

/* One block on the device and its copies here: the rows, then each part between guards. */
static struct {
    uint8_t *there, *got, *want;
    uint64_t at[MMQI_MAX_PARTS], bytes[MMQI_MAX_PARTS], end;
} bench;

/* Parts begin off all greater alignments, as those of a chunk in the middle of a matrix do. */
static void lay_out(const struct mmqi_format_info *info, const struct pack_case *c)
{
    struct mmqi_layout layout;
    uint64_t item;

    ck_assert_int_eq(info->layout(&layout, c->rows, c->cols), MMQ_OK);
    bench.end = ((uint64_t)(c->rows * c->cols) * sizeof(float) + 255) / 256 * 256;
    for (int32_t i = 0; i < MMQI_MAX_PARTS; i++) {
        bool flat = info->nested && i == 1, none = i >= layout.n_parts || (info->nested && i > 1);

        item = none || flat ? sizeof(float) : mmqi_dtype_size(layout.part[i].dtype);
        bench.at[i] = bench.end + GUARD + item;
        bench.bytes[i] = none ? 0 : layout.part[i].bytes * (flat ? sizeof(float) : 1);
        bench.end = (bench.at[i] + bench.bytes[i] + 2 * GUARD - 1) / GUARD * GUARD;
    }
    bench.end = (bench.end + 255) / 256 * 256;
    ck_assert_uint_le(bench.end, BLOCK_BYTES);
}

static void pack_one(const struct mmqi_format_info *info, const struct pack_case *c, int32_t method)
{
    struct mmqi_pack_job job = {.format = info->format, .method = method, .rows = c->rows};
    const char *what = support_text("%s method %d, %s %d x %d", info->name, (int)method,
                                    pack_fill_name(c->fill), (int)c->rows, (int)c->cols);
    uint8_t *part[MMQI_MAX_PARTS];
    int32_t status;

    rig.n_cases++;
    memset(bench.want + c->rows * c->cols * 4, 0xa5, bench.end - (uint64_t)(c->rows * c->cols) * 4);
    status = rig.backend->upload(rig.device, bench.there, bench.want, bench.end);
    for (int32_t i = 0; i < MMQI_MAX_PARTS; i++) {
        job.part[i] = bench.there + bench.at[i];
        part[i] = bench.want + bench.at[i];
    }
    job.cols = c->cols;
    job.w = (const float *)bench.there;
    if (status == MMQ_OK)
        status = rig.backend->pack_rows(rig.device, &job);
    if (status == MMQ_OK)
        status = rig.backend->download(rig.device, bench.got, bench.there, bench.end);
    went(status, what);
    if (status != MMQ_OK)
        return;
    info->pack(part, (const float *)bench.want, c->rows, c->cols, method);
    for (uint64_t k = 0; k < bench.end; k++)
        if (bench.got[k] != bench.want[k]) {
            int32_t i = 0;

            while (i < MMQI_MAX_PARTS - 1 && k >= bench.at[i] + bench.bytes[i])
                i++;
            bad(support_text("%s: part %d, byte %lld: %02x, not %02x", what, (int)i,
                             (long long)k - (long long)bench.at[i], bench.got[k], bench.want[k]));
            return;
        }
}

START_TEST(packs_every_format_by_every_method_to_the_same_bytes_and_writes_nothing_else)
{
    void *memory;

    ck_assert_int_eq(rig.backend->alloc(rig.device, &memory, BLOCK_BYTES), MMQ_OK);
    bench.there = memory;
    bench.got = malloc(BLOCK_BYTES);
    bench.want = malloc(BLOCK_BYTES);
    for (int32_t i = 0; i < pack_n_cases(); i++) {
        struct pack_case c = pack_case_at(i);

        pack_fill((float *)bench.want, &c);
        for (int32_t format = 0; format < MMQI_N_FORMATS; format++) {
            lay_out(mmqi_format_info(format), &c);
            for (int32_t method = 0; method < 2; method++)
                pack_one(mmqi_format_info(format), &c, method);
        }
    }
    rig.backend->free(rig.device, bench.there);
    free(bench.got);
    free(bench.want);
    rig_end("rows");
}
END_TEST

START_TEST(rows_without_columns_and_no_rows_at_all_are_packed)
{
    void *memory;
    uint32_t scales[3] = {7, 7, 7};

    ck_assert_int_eq(rig.backend->alloc(rig.device, &memory, 256), MMQ_OK);
    for (int32_t format = 0; format < MMQI_N_FORMATS; format++) {
        struct mmqi_pack_job job = {.format = format, .w = memory};

        for (int32_t i = 0; i < MMQI_MAX_PARTS; i++)
            job.part[i] = memory;
        rig.n_cases += 2;
        job.cols = 5;
        went(rig.backend->pack_rows(rig.device, &job), mmqi_format_info(format)->name);
        job.rows = 3;
        job.cols = 0;
        went(rig.backend->pack_rows(rig.device, &job), mmqi_format_info(format)->name);
        if (format != MMQI_FORMAT_INT8)
            continue;
        went(rig.backend->download(rig.device, scales, memory, sizeof scales), "int8, no columns");
        if (scales[0] != 0 || scales[1] != 0 || scales[2] != 0)
            bad("int8: the scale of a row without columns is not 0");
    }
    rig.backend->free(rig.device, memory);
    rig_end("nothing");
}
END_TEST

/* ---- chunks ---- */

enum { ROWS = 1000, COLS = 516 };

/* A matrix packed by `by` in chunks: to the host, or placed on the device and brought here. */
static uint8_t *pack_chunks(int32_t format, const float *w, const struct mmqi_packing *by,
                            int64_t step, bool placed)
{
    uint8_t *part[MMQI_MAX_PARTS], *chunk[MMQI_MAX_PARTS], *block;
    struct mmqi_packer packer;
    void *there = NULL;

    ck_assert_int_eq(mmqi_packer_open(&packer, format, MMQI_METHOD_SEARCH, ROWS, COLS, by), MMQ_OK);
    block = calloc(1, packer.layout.bytes);
    if (placed) {
        went(rig.backend->alloc(rig.device, &there, packer.layout.bytes), "alloc");
        went(rig.backend->upload(rig.device, there, block, packer.layout.bytes), "zeros");
    }
    for (int64_t begin = 0, n; begin < ROWS; begin += n) {
        struct mmqi_packed_rows at;

        n = ROWS - begin < step ? ROWS - begin : step;
        ck_assert_int_eq(mmqi_packer_find(&packer, &at, begin, n), MMQ_OK);
        for (int32_t i = 0; i < MMQI_MAX_PARTS; i++)
            chunk[i] = block + packer.layout.part[i].offset + at.begin[i];
        went(placed ? mmqi_packer_place(&packer, there, w + begin * COLS, begin, n)
                    : mmqi_packer_pack(&packer, chunk, w + begin * COLS, begin, n),
             packer.info->name);
    }
    if (placed)
        went(rig.backend->download(rig.device, block, there, packer.layout.bytes), "download");
    for (int32_t i = 0; i < MMQI_MAX_PARTS; i++)
        part[i] = block + packer.layout.part[i].offset;
    mmqi_packer_finish(&packer, part);
    mmqi_packer_close(&packer);
    rig.backend->free(rig.device, there);
    return block;
}

static void compare_chunks(int32_t format, const float *w)
{
    const struct mmqi_packing alone = {.pool = rig.pool};
    struct mmqi_packing by = {.backend = rig.backend, .device = rig.device};
    const struct mmqi_format_info *info = mmqi_format_info(format);
    uint8_t *want = pack_chunks(format, w, &alone, ROWS, false), *got;
    int64_t step = 8 * info->row_step(COLS);
    struct mmqi_layout layout;

    ck_assert_int_eq(info->layout(&layout, ROWS, COLS), MMQ_OK);
    went(mmqi_packing_open(&by, mmqi_packing_bytes(rig.backend, format, step, COLS)), "memory");
    for (int placed = 0; placed < 2; placed++) {
        rig.n_cases++;
        got = pack_chunks(format, w, &by, step, placed);
        for (int32_t i = 0; i < layout.n_parts; i++)
            if (memcmp(got + layout.part[i].offset, want + layout.part[i].offset,
                       layout.part[i].bytes) != 0)
                bad(support_text("%s in chunks%s: part %d differs", info->name,
                                 placed ? ", placed" : "", (int)i));
        free(got);
    }
    mmqi_packing_close(&by);
    free(want);
}

START_TEST(chunks_are_the_whole_matrix_on_the_host_and_on_the_device)
{
    const struct pack_case c = {ROWS, COLS, PACK_NORMAL};
    float *w = malloc(sizeof(float) * ROWS * COLS);

    pack_fill(w, &c);
    for (int32_t format = 0; format < MMQI_N_FORMATS; format++)
        compare_chunks(format, w);
    free(w);
    rig_end("chunks");
}
END_TEST

/* ---- file to file ---- */

static void quantize(const char *device, const char *policy, const char *out_path)
{
    mmq_runtime_options runtime_options = {.struct_size = sizeof runtime_options,
                                           .cuda_library = rig_library()};
    mmq_load_options load = {.struct_size = sizeof load, .device = "cpu"};
    mmq_quantize_options options = {.struct_size = sizeof options,
                                    .format = policy,
                                    .out_path = out_path,
                                    .chunk_bytes = 30000,
                                    .device = device};
    mmq_runtime *runtime;
    mmq_model *model;

    ck_assert_int_eq(mmq_runtime_create(&runtime, &runtime_options), MMQ_OK);
    load.runtime = runtime;
    ck_assert_int_eq(mmq_load(&model, source_path("test/golden/llava_tiny/model"), &load), MMQ_OK);
    went(mmq_quantize_layerwise(NULL, model, &options, NULL), policy);
    mmq_model_free(model);
    mmq_runtime_free(runtime);
}

START_TEST(a_device_writes_the_folder_that_the_cpu_writes)
{
    static const char *const policies[] = {
        "int8",
        "nf4-nested search",
        "fp4-32",
        "int4 search",
        "vision.* = nf4-128-nested; projector.* = f16; language.* = int4-g32-bf16 search",
    };

    for (size_t i = 0; i < sizeof policies / sizeof *policies; i++) {
        rig.n_cases++;
        quantize(NULL, policies[i], "cpu");
        quantize(rig_device(), policies[i], "device");
        if (system("diff -r cpu device") != 0)
            bad(support_text("'%s': the folders differ", policies[i]));
        ck_assert_int_eq(system("rm -rf cpu device"), 0);
    }
    rig_end("folders");
}
END_TEST

/* ---- speed ---- */

static double seconds(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Of rows in host memory to bytes there. */
START_TEST(tells_how_fast_chunks_are_packed)
{
    static const char *const formats[] = {"int8", "nf4", "nf4-nested", "int4"};
    const struct pack_case c = {256, 4096, PACK_NORMAL};
    float *w = malloc(sizeof(float) * 256 * 4096);
    uint8_t *block = malloc(sizeof(float) * 256 * 4096), *part[MMQI_MAX_PARTS];

    pack_fill(w, &c);
    for (size_t i = 0; i < 2 * sizeof formats / sizeof *formats; i++) {
        int32_t format = mmqi_format_find(formats[i / 2])->format, n = 0;
        struct mmqi_packing by = {.backend = rig.backend, .device = rig.device};
        struct mmqi_packer packer;
        double begin;

        went(mmqi_packing_open(&by, mmqi_packing_bytes(rig.backend, format, c.rows, c.cols)), "by");
        ck_assert_int_eq(mmqi_packer_open(&packer, format, (int32_t)(i % 2), c.rows, c.cols, &by),
                         MMQ_OK);
        for (int32_t k = 0; k < MMQI_MAX_PARTS; k++)
            part[k] = block + packer.layout.part[k].offset;
        went(mmqi_packer_pack(&packer, part, w, 0, c.rows), "first");
        for (begin = seconds(); n < 3 || seconds() - begin < 0.05; n++)
            went(mmqi_packer_pack(&packer, part, w, 0, c.rows), "again");
        printf("%s %s on %s: %.0f million weights a second\n", formats[i / 2],
               i % 2 ? "search" : "rtn", rig_device(),
               (double)(c.rows * c.cols) * n / (seconds() - begin) / 1e6);
        mmqi_packer_close(&packer);
        mmqi_packing_close(&by);
    }
    free(block);
    free(w);
    rig_end("speed");
}
END_TEST

/* All in this process: the device is opened once, and a test that fails does not end the others. */
static int run(void)
{
    Suite *suite = suite_create("pack rows");
    TCase *tests = tcase_create("pack rows");
    SRunner *runner = srunner_create(suite);
    int failed;

    tcase_add_checked_fixture(tests, scratch_enter, scratch_leave);
    tcase_add_test(tests,
                   packs_every_format_by_every_method_to_the_same_bytes_and_writes_nothing_else);
    tcase_add_test(tests, rows_without_columns_and_no_rows_at_all_are_packed);
    tcase_add_test(tests, chunks_are_the_whole_matrix_on_the_host_and_on_the_device);
    tcase_add_test(tests, a_device_writes_the_folder_that_the_cpu_writes);
    tcase_add_test(tests, tells_how_fast_chunks_are_packed);
    suite_add_tcase(suite, tests);
    srunner_set_fork_status(runner, CK_NOFORK);
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}

int main(void)
{
    int32_t status, failed;

    setvbuf(stdout, NULL, _IOLBF, 0);
    status = rig_open();
    if (status == MMQ_OK) {
        printf("%s\n", rig.backend->describe(rig.device));
        failed = run();
    } else {
        printf("FAIL: %s\n", mmqi_message());
        failed = 1;
    }
    rig_close();
    return failed;
}
