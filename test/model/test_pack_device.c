/*
 * Packing on a device whose memory is its own: the same bytes as the host's, counted memory, and
 * what happens when a call fails. The device is a pretence: its addresses are of no use to the
 * host, which must bring everything there and back.
 */
#include "backend/packer.h"
#include "core/os.h"
#include "model/quantizing.h"
#include "quant/plan.h"

/* ---- the device ---- */

#define HIDDEN (UINT64_C(1) << 63) /* no address of a process */

static struct {
    uint64_t taken, peak;
    int64_t n_blocks;
    int64_t calls_left; /* the call after these fails; below 0: none */
} far;

static void *hide(const void *memory)
{
    return (void *)((uintptr_t)memory ^ HIDDEN);
}

static int32_t call(void)
{
    if (far.calls_left < 0 || far.calls_left-- > 0)
        return MMQ_OK;
    return mmqi_fail(MMQ_ERR_DEVICE, "far: a call fails");
}

static int32_t far_alloc(struct mmqi_device *device, void **out, size_t size)
{
    uint64_t *block;

    (void)device;
    *out = NULL;
    if (call() != MMQ_OK)
        return mmqi_fail(MMQ_ERR_NOMEM, "far: no memory");
    block = aligned_alloc(64, 64 + (size + 63) / 64 * 64);
    ck_assert_ptr_nonnull(block);
    memset(block, 0xa5, 64 + size);
    block[0] = size;
    far.n_blocks++;
    far.taken += size;
    far.peak = far.taken > far.peak ? far.taken : far.peak;
    *out = hide(block + 8);
    return MMQ_OK;
}

static void far_free(struct mmqi_device *device, void *memory)
{
    uint64_t *block = (uint64_t *)hide(memory) - 8;

    (void)device;
    if (!memory)
        return;
    far.n_blocks--;
    far.taken -= block[0];
    free(block);
}

static int32_t far_upload(struct mmqi_device *device, void *dst, const void *src, size_t size)
{
    (void)device;
    memcpy(hide(dst), src, size);
    return call();
}

static int32_t far_download(struct mmqi_device *device, void *dst, const void *src, size_t size)
{
    (void)device;
    memcpy(dst, hide(src), size);
    return call();
}

static int32_t far_pack_rows(struct mmqi_device *device, const struct mmqi_pack_job *job)
{
    struct mmqi_pack_job own = *job;

    (void)device;
    own.w = hide(job->w);
    for (int32_t i = 0; i < MMQI_MAX_PARTS; i++)
        own.part[i] = hide(job->part[i]);
    mmqi_pack_rows(NULL, &own);
    return call();
}

static int32_t far_pack(struct mmqi_device *device, struct mmqi_wmat *w, void *block,
                        const struct mmqi_layout *layout)
{
    (void)device;
    for (int32_t i = 0; i < layout->n_parts; i++)
        w->part[i] = (uint8_t *)block + layout->part[i].offset;
    return MMQ_OK;
}

static const struct mmqi_backend far_backend = {
    .name = "far",
    .alloc = far_alloc,
    .free = far_free,
    .upload = far_upload,
    .download = far_download,
    .pack = far_pack,
    .pack_rows = far_pack_rows,
};

/* A host with it. */
static struct mmqi_host far_host(void)
{
    memset(&far, 0, sizeof far);
    far.calls_left = -1;
    return (struct mmqi_host){.place = {{.at = {.backend = &far_backend}, .limit = UINT64_MAX}},
                              .n_places = 1,
                              .mutex = mmqi_os_mutex_create()};
}

static void check_given_back(struct mmqi_host *host)
{
    ck_assert_int_eq(far.n_blocks, 0);
    ck_assert_uint_eq(far.taken, 0);
    ck_assert_uint_eq(host->place[0].used, 0);
    mmqi_os_mutex_free(host->mutex);
}

/* ---- tests ---- */

static const char *const policies[] = {
    "int8",
    "nf4 search",
    "fp4-128-nested",
    "int4-g32 search",
    "vision.* = f16; projector.* = nf4-32-nested; language.* = int4-g128-bf16; language.head = f32",
};
enum { N_POLICIES = sizeof policies / sizeof *policies };

static void quantize_with(struct mmqi_host *host, const struct mmqi_model *source,
                          const char *policy, uint64_t chunk, const char *path)
{
    struct mmqi_choice *choices = choose(source, policy);
    struct mmqi_quantize_options options = {
        .choices = choices, .out_path = path, .chunk_bytes = chunk, .host = host};
    struct mmqi_model *model = NULL, *own = quantize(source, policy, NULL, true);
    struct mmqi_report *report = NULL;

    far.peak = 0;
    ck_assert_msg(mmqi_quantize(&model, source, &options, &report) == MMQ_OK, "%s: %s", policy,
                  mmqi_message());
    same_weights(model, own);
    ck_assert_uint_gt(report->device_bytes, 0);
    ck_assert_uint_eq(report->device_bytes, far.peak);
    ck_assert_ptr_nonnull(strstr(mmqi_report_json(report), "\"device_bytes\": "));
    mmqi_report_free(report);
    mmqi_model_close(model);
    mmqi_model_close(own);
    mmqi_free(choices);
}

START_TEST(a_device_packs_the_same_model_and_folder_whatever_the_chunks)
{
    struct mmqi_model *source = open_model(tiny_path());
    struct mmqi_host host = far_host();

    for (int i = 0; i < N_POLICIES; i++) {
        quantize_with(&host, source, policies[i], 0, "far");
        quantize_with(&host, source, policies[i], 5000, "far5000");
        quantize(source, policies[i], "near", false);
        ck_assert_int_eq(system("diff -r far near"), 0);
        ck_assert_int_eq(system("diff -r far5000 near"), 0);
        ck_assert_int_eq(system("rm -rf far far5000 near"), 0);
    }
    mmqi_model_close(source);
    check_given_back(&host);
}
END_TEST

enum { ROWS = 96, COLS = 132, STEP = 32 /* whole blocks of any format */ };

/* Pack by chunks straight into a block of the device's; to be freed. */
static uint8_t *place_chunks(int32_t format, const float *w, const struct mmqi_layout *layout)
{
    struct mmqi_packing by = {.backend = &far_backend};
    struct mmqi_packer packer;
    uint8_t *part[MMQI_MAX_PARTS], *block = malloc(layout->bytes), *there;

    ck_assert_int_eq(
        mmqi_packing_open(&by, mmqi_packing_bytes(&far_backend, format, 2 * STEP, COLS)), MMQ_OK);
    ck_assert_int_eq(mmqi_packer_open(&packer, format, MMQI_METHOD_RTN, ROWS, COLS, &by), MMQ_OK);
    ck_assert_int_eq(far_alloc(NULL, (void **)&there, layout->bytes), MMQ_OK);
    for (int64_t begin = 0, n; begin < ROWS; begin += n) {
        n = begin == 0 ? STEP : 2 * STEP;
        ck_assert_int_eq(mmqi_packer_place(&packer, there, w + begin * COLS, begin, n), MMQ_OK);
    }
    memcpy(block, hide(there), layout->bytes);
    for (int32_t i = 0; i < MMQI_MAX_PARTS; i++)
        part[i] = block + layout->part[i].offset;
    mmqi_packer_finish(&packer, part);
    mmqi_packer_close(&packer);
    mmqi_packing_close(&by);
    far_free(NULL, there);
    return block;
}

START_TEST(chunks_placed_one_by_one_are_the_whole_matrix_in_every_format)
{
    struct mmqi_host host = far_host();
    float *w = malloc(sizeof(float) * ROWS * COLS);

    for (int64_t i = 0; i < ROWS * COLS; i++)
        w[i] = (float)((i * 7919) % 1009 - 504) / 512.0f * (float)(1 + i / 1000);
    for (int32_t format = 0; format < MMQI_N_FORMATS; format++) {
        const struct mmqi_format_info *info = mmqi_format_info(format);
        const struct mmqi_packing alone = {0};
        struct mmqi_packer packer;
        uint8_t *block, *part[MMQI_MAX_PARTS], *want;

        ck_assert_int_eq(STEP % info->row_step(COLS), 0);
        ck_assert_int_eq(mmqi_packer_open(&packer, format, MMQI_METHOD_RTN, ROWS, COLS, &alone),
                         MMQ_OK);
        want = malloc(packer.layout.bytes);
        block = place_chunks(format, w, &packer.layout);
        for (int32_t i = 0; i < MMQI_MAX_PARTS; i++)
            part[i] = want + packer.layout.part[i].offset;
        ck_assert_int_eq(mmqi_packer_pack(&packer, part, w, 0, ROWS), MMQ_OK);
        mmqi_packer_finish(&packer, part);
        for (int32_t i = 0; i < packer.layout.n_parts; i++)
            ck_assert_msg(memcmp(block + packer.layout.part[i].offset, part[i],
                                 packer.layout.part[i].bytes) == 0,
                          "%s, part %d", info->name, i);
        mmqi_packer_close(&packer);
        free(block);
        free(want);
    }
    free(w);
    check_given_back(&host);
}
END_TEST

/* What lies on the device is what quantizing in memory makes. */
static void check_placed(const struct mmqi_model *placed, const struct mmqi_model *made)
{
    for (int32_t i = 0; i < placed->n_weights; i++) {
        const struct mmqi_weight *w = &placed->weights[i];

        if (w->format == w->stored || w->same_as >= 0 || (w->flags & MMQI_WEIGHT_UNUSED))
            continue;
        ck_assert_int_eq(w->format, made->weights[i].stored);
        for (int32_t k = 0; k < w->layout.n_parts; k++) {
            uint8_t *want = part_bytes(made, i, k);

            ck_assert_msg(memcmp(hide(placed->placed[0].weights[i].mat.part[k]), want,
                                 w->layout.part[k].bytes) == 0,
                          "%s, part %d", w->name, k);
            free(want);
        }
    }
}

START_TEST(placing_on_a_device_packs_there_with_no_more_memory_than_told)
{
    struct mmqi_model *source = open_model(tiny_path());
    struct mmqi_host host = far_host();

    for (int i = 0; i < N_POLICIES; i++) {
        struct mmqi_model *model = open_model(tiny_path());
        struct mmqi_model *made = quantize(source, policies[i], NULL, true);
        uint64_t bytes, beside;

        ck_assert_msg(mmqi_quant_at_load(model, policies[i]) == MMQ_OK, "%s", mmqi_message());
        bytes = mmqi_model_place_bytes(model, 0);
        beside = mmqi_model_pack_bytes(model, 0, &far_backend);
        ck_assert_uint_gt(beside, 0);
        ck_assert_uint_eq(mmqi_model_pack_bytes(model, 0, &mmqi_cpu_backend), 0);
        far.peak = 0;
        ck_assert_msg(mmqi_model_place(model, &host.place[0].at, NULL, NULL) == MMQ_OK, "%s",
                      mmqi_message());
        ck_assert_uint_eq(far.taken, bytes);
        ck_assert_uint_eq(far.peak, bytes + beside);
        check_placed(model, made);
        mmqi_model_unplace(model);
        mmqi_model_close(model);
        mmqi_model_close(made);
    }
    mmqi_model_close(source);
    check_given_back(&host);
}
END_TEST

START_TEST(a_budget_without_room_for_a_chunk_is_refused_before_anything_is_taken)
{
    struct mmqi_model *source = open_model(tiny_path()), *model;
    struct mmqi_host host = far_host();
    struct mmqi_choice *choices = choose(source, "nf4");
    struct mmqi_quantize_options options = {.choices = choices, .host = &host};
    struct mmqi_report *report;

    ck_assert_int_eq(mmqi_quantize(&model, source, &options, &report), MMQ_OK);
    mmqi_model_close(model);
    host.place[0].limit = report->device_bytes - 1;
    far.peak = 0;
    ck_assert_int_eq(mmqi_quantize(&model, source, &options, NULL), MMQ_ERR_LIMIT);
    ck_assert_ptr_nonnull(strstr(mmqi_message(), "packing weights: needs "));
    ck_assert_ptr_null(model);
    ck_assert_uint_eq(far.peak, 0);
    host.place[0].limit = report->device_bytes;
    ck_assert_int_eq(mmqi_quantize(&model, source, &options, NULL), MMQ_OK);
    mmqi_model_close(model);
    mmqi_report_free(report);
    mmqi_free(choices);
    mmqi_model_close(source);
    check_given_back(&host);
}
END_TEST

START_TEST(whichever_call_of_the_device_fails_quantizing_tells_and_gives_all_back)
{
    struct mmqi_model *source = open_model(tiny_path()), *model;
    struct mmqi_host host = far_host();
    struct mmqi_choice *choices = choose(source, "projector.* = nf4-nested; language.head = int8");
    struct mmqi_quantize_options options = {
        .choices = choices, .out_path = "far", .host = &host, .chunk_bytes = 20000};
    int32_t status = MMQ_ERR_DEVICE, n = 0;

    for (; status != MMQ_OK; n++) {
        far.calls_left = n;
        status = mmqi_quantize(&model, source, &options, NULL);
        if (status == MMQ_OK)
            break;
        ck_assert_int_eq(status, n == 0 ? MMQ_ERR_NOMEM : MMQ_ERR_DEVICE);
        ck_assert_ptr_null(model);
        ck_assert_int_ne(access("far", F_OK), 0);
        ck_assert_int_eq(far.n_blocks, 0);
        ck_assert_uint_eq(host.place[0].used, 0);
    }
    ck_assert_int_gt(n, 20);
    mmqi_model_close(model);
    mmqi_free(choices);
    mmqi_model_close(source);
    check_given_back(&host);
}
END_TEST

START_TEST(whichever_call_of_the_device_fails_placing_tells_and_gives_all_back)
{
    struct mmqi_model *model = open_model(tiny_path());
    struct mmqi_host host = far_host();
    int32_t status = MMQ_ERR_DEVICE, n = 0;

    ck_assert_int_eq(mmqi_quant_at_load(model, "vision.* = fp4-nested; language.* = int4"), MMQ_OK);
    for (; status != MMQ_OK; n++) {
        far.calls_left = n;
        status = mmqi_model_place(model, &host.place[0].at, NULL, NULL);
        if (status == MMQ_OK)
            break;
        ck_assert_msg(status == MMQ_ERR_NOMEM || status == MMQ_ERR_DEVICE, "%d: %s", status,
                      mmqi_message());
        ck_assert_int_eq(far.n_blocks, 0);
    }
    ck_assert_int_gt(n, 50);
    mmqi_model_unplace(model);
    mmqi_model_close(model);
    check_given_back(&host);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("pack on a device");
    TCase *tests = tcase_create("pack on a device");
    SRunner *runner;
    int failed;

    tcase_set_timeout(tests, 60);
    tcase_add_checked_fixture(tests, scratch_enter, scratch_leave);
    tcase_add_test(tests, a_device_packs_the_same_model_and_folder_whatever_the_chunks);
    tcase_add_test(tests, chunks_placed_one_by_one_are_the_whole_matrix_in_every_format);
    tcase_add_test(tests, placing_on_a_device_packs_there_with_no_more_memory_than_told);
    tcase_add_test(tests, a_budget_without_room_for_a_chunk_is_refused_before_anything_is_taken);
    tcase_add_test(tests, whichever_call_of_the_device_fails_quantizing_tells_and_gives_all_back);
    tcase_add_test(tests, whichever_call_of_the_device_fails_placing_tells_and_gives_all_back);
    suite_add_tcase(suite, tests);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? 1 : 0;
}
