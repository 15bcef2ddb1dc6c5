/*
 * Models on a CUDA device: the CPU's tokens wherever they are split, the bytes that were told,
 * and every way in which the device can fail. TEST_DEVICE=cuda:0 names it, TEST_CUDA_LIBRARY the
 * library (without it, the one of this build); without a device all is skipped. TEST_SCENES names
 * the folder of a larger Qwen2-VL that is asked too, with a picture sample/0000.jpg in it.
 *
 * Every test is a process of its own, since one of them spoils the device for its process. What
 * was found stands in lines that begin with FIGURE.
 */
#include <stdio.h>
#include <time.h>

#include "api/api.h"
#include "backend/backend.h"
#include "tiny.h"

static const char *const device_names[] = {"cuda:0", "cuda:1"};

static const char *cuda_library(void)
{
    const char *named = getenv("TEST_CUDA_LIBRARY");

    return named && *named ? named : source_path(BUILD_FOLDER "/lib/libmmq-cuda.so");
}

/* Of the list of devices; 0 without TEST_DEVICE. */
static int32_t count_devices(mmq_runtime *runtime)
{
    const char *named = getenv("TEST_DEVICE");
    mmq_device_facts facts = {.struct_size = sizeof facts};
    int32_t n = 0, n_cuda = 0;

    if (!named || strncmp(named, "cuda", 4) != 0)
        return 0;
    ASSERT_OK(mmq_device_count(&n, runtime));
    for (int32_t i = 0; i < n; i++) {
        ASSERT_OK(mmq_device_info(&facts, runtime, i));
        n_cuda += strncmp(facts.id, "cuda:", 5) == 0;
    }
    return n_cuda;
}

/* ---- fixture ---- */

static mmq_runtime *runtime;
static int32_t n_devices;

static void set_up(void)
{
    mmq_runtime_options options = {
        .struct_size = sizeof options, .cuda_library = cuda_library(), .n_threads = 2};

    ASSERT_OK(mmq_runtime_create(&runtime, &options));
    n_devices = count_devices(runtime);
}

static void tear_down(void)
{
    mmq_runtime_free(runtime);
}

#define NEEDS_DEVICES(n)                                                                           \
    if (n_devices < (n))                                                                           \
    SKIP("%d of %d CUDA devices, TEST_DEVICE names them", (int)n_devices, (int)(n))

/* ---- models, and what they answer ---- */

enum { N_TOKENS = 16, N_PICTURES = 3, N_IDS = N_PICTURES * N_TOKENS };

struct family {
    const char *name, *folder, *text;
    const char *maps[8]; /* with D for the device, E for a second one */
};

static const struct family llava = {
    "llava_tiny",
    "test/golden/llava_tiny/model",
    "USER: <image>\nWhat is it? ASSISTANT:",
    {"* = D; vision.* = cpu", "* = D; language.layers.{1-2}.* = cpu",
     "* = D; language.{norm,head} = cpu", "* = cpu; language.layers.1.* = D", "* = D"}};
static const struct family qwen = {"qwen2_vl_tiny",
                                   "test/golden/qwen2_vl_tiny/model",
                                   "<|vision_start|><|image_pad|><|vision_end|>What is it?",
                                   {"* = D; vision.* = cpu", "* = D; language.layers.1.* = cpu",
                                    "* = D; language.{norm,head} = cpu",
                                    "* = cpu; language.layers.1.* = D", "* = D"}};
static const struct family idefics = {"idefics3_tiny",
                                      "test/golden/idefics3_tiny/model",
                                      "<|im_start|>User:<image>What is it?",
                                      {"* = D; vision.* = cpu", "* = D; projector.* = cpu",
                                       "* = cpu; vision.blocks.1.* = D", "* = D"}};
static const struct family scenes = {
    "scenes",
    NULL,
    "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>Describe the picture."
    "<|im_end|>\n<|im_start|>assistant\n",
    {"* = D; vision.* = cpu", "* = D; language.layers.{1-2}.* = cpu",
     "* = D; language.{norm,head} = cpu", "* = cpu; language.layers.3.* = D", "* = D"}};
static const char *const maps_of_two[] = {"* = D; vision.* = E", "* = D; language.layers.1.* = E",
                                          "* = D; language.{norm,head} = E",
                                          "* = cpu; vision.* = E; language.layers.1.* = D"};

/* `map` with the names of devices. */
static const char *name_devices(const char *map)
{
    char text[256];
    size_t n = 0;

    for (; *map; map++) {
        const char *word = *map == 'D' ? device_names[0] : *map == 'E' ? device_names[1] : NULL;

        ck_assert_uint_lt(n, sizeof text - 8);
        if (word)
            n += (size_t)snprintf(text + n, sizeof text - n, "%s", word);
        else
            text[n++] = *map;
    }
    text[n] = '\0';
    return support_text("%s", text);
}

static const char *folder_of(const struct family *family)
{
    return family->folder ? source_path(family->folder) : getenv("TEST_SCENES");
}

static mmq_model *load_on(const struct family *family, const char *map, uint64_t limit)
{
    mmq_load_options options = {
        .struct_size = sizeof options, .runtime = runtime, .device = map, .memory_limit = limit};
    mmq_model *model;

    ASSERT_OK(mmq_load(&model, folder_of(family), &options));
    return model;
}

static const mmq_session_options exact = {
    .struct_size = sizeof exact, .context = 256, .mode = "exact"};

struct answer {
    int32_t ids[N_IDS];
    int32_t n; /* pictures asked about */
};

static mmq_image *picture(const struct family *family, int i)
{
    mmq_image *image;

    if (family->folder || i > 0)
        return tiny_image(i + 1);
    ASSERT_OK(
        mmq_image_read_file(&image, support_text("%s/sample/0000.jpg", folder_of(family)), NULL));
    return image;
}

/* Greedy tokens for the first `n` pictures. */
static mmq_status ask(struct answer *answer, mmq_session *session, const struct family *family,
                      int n)
{
    mmq_status status = MMQ_OK;

    memset(answer, 0, sizeof *answer);
    for (int i = 0; i < n && status == MMQ_OK; i++) {
        mmq_image *image = picture(family, i);
        const mmq_image *images[] = {image};
        mmq_prompt prompt = {
            .struct_size = sizeof prompt, .text = family->text, .images = images, .n_images = 1};
        mmq_generate_request request = {.struct_size = sizeof request,
                                        .prompt = &prompt,
                                        .max_new_tokens = N_TOKENS,
                                        .ignore_eos = 1};
        mmq_result *result = NULL;
        size_t n_ids;

        status = mmq_generate(&result, session, &request);
        if (status == MMQ_OK) {
            const int32_t *ids = mmq_result_ids(result, &n_ids);

            ck_assert_uint_eq(n_ids, N_TOKENS);
            memcpy(answer->ids + i * N_TOKENS, ids, N_TOKENS * sizeof *ids);
            answer->n = i + 1;
        }
        mmq_result_free(result);
        mmq_image_free(image);
    }
    return status;
}

static struct answer answer_on(const struct family *family, const char *map, int n)
{
    mmq_model *model = load_on(family, map, 0);
    mmq_session *session;
    struct answer answer;

    ASSERT_OK(mmq_session_create(&session, model, &exact));
    ASSERT_OK(ask(&answer, session, family, n));
    mmq_session_free(session);
    mmq_model_free(model);
    return answer;
}

static int count_same(const struct answer *a, const struct answer *b)
{
    int n = 0;

    for (int i = 0; i < a->n * N_TOKENS; i++)
        n += a->ids[i] == b->ids[i];
    return n;
}

/* ---- splits ---- */

static void check_splits(const struct family *family, const char *const *maps, int n_maps)
{
    struct answer want, have;
    int same, n_wrong = 0;

    if (!folder_of(family)) {
        printf("SKIPPED: TEST_SCENES is not set\n");
        return;
    }
    want = answer_on(family, "cpu", N_PICTURES);
    for (int i = 0; i < n_maps && maps[i]; i++) {
        const char *map = name_devices(maps[i]);

        have = answer_on(family, map, N_PICTURES);
        same = count_same(&want, &have);
        printf("FIGURE split of %s: %d of %d greedy tokens are the CPU's with '%s'\n", family->name,
               same, N_IDS, map);
        n_wrong += same != N_IDS;
    }
    ck_assert_int_eq(n_wrong, 0);
}

START_TEST(a_model_split_anywhere_gives_the_cpus_tokens)
{
    NEEDS_DEVICES(1);
    check_splits(&llava, llava.maps, 8);
    check_splits(&qwen, qwen.maps, 8);
    check_splits(&idefics, idefics.maps, 8);
}
END_TEST

START_TEST(a_larger_model_split_anywhere_gives_the_cpus_tokens)
{
    NEEDS_DEVICES(1);
    check_splits(&scenes, scenes.maps, 8);
}
END_TEST

START_TEST(a_model_split_between_two_devices_gives_the_cpus_tokens)
{
    NEEDS_DEVICES(2);
    check_splits(&llava, maps_of_two, 4);
    check_splits(&qwen, maps_of_two, 4);
    check_splits(&idefics, maps_of_two, 4);
    check_splits(&scenes, maps_of_two, 4);
}
END_TEST

/* ---- bytes ---- */

static const struct mmqi_place *place_of(const mmq_model *model)
{
    return &model->host->place[0].at;
}

static struct mmqi_device_memory memory_of(const mmq_model *model)
{
    struct mmqi_device_memory memory;

    place_of(model)->backend->memory(place_of(model)->device, &memory);
    return memory;
}

static uint64_t estimate(const mmq_model *model)
{
    mmq_device_memory memory = {.struct_size = sizeof memory};

    ASSERT_OK(mmq_estimate_device(&memory, model, &exact, 0));
    return memory.total;
}

START_TEST(takes_exactly_what_was_told_and_tells_the_drivers_apart)
{
    mmq_device_memory told = {.struct_size = sizeof told};
    struct mmqi_device_memory memory;
    struct answer answer;
    mmq_session *session;
    mmq_model *model;
    uint64_t total;

    NEEDS_DEVICES(1);
    model = load_on(&llava, device_names[0], 0);
    total = estimate(model);
    ck_assert_uint_eq(memory_of(model).taken, 0);
    ASSERT_OK(mmq_session_create(&session, model, &exact));
    ck_assert_uint_eq(memory_of(model).taken, total);
    ASSERT_OK(ask(&answer, session, &llava, N_PICTURES));
    memory = memory_of(model);
    ASSERT_OK(mmq_estimate_device(&told, model, &exact, 0));
    printf("FIGURE bytes: on %s %llu told, %llu taken, %llu at most; %llu more by the driver, "
           "%llu in all\n",
           device_names[0], (unsigned long long)total, (unsigned long long)memory.taken,
           (unsigned long long)memory.peak, (unsigned long long)told.driver,
           (unsigned long long)(memory.taken + told.driver));
    ck_assert_uint_eq(memory.taken, total);
    ck_assert_uint_eq(memory.peak, total);
    ck_assert_uint_eq(told.taken, total);
    mmq_session_free(session);
    ck_assert_uint_eq(memory_of(model).taken, told.weights);
    mmq_model_free(model);
}
END_TEST

START_TEST(refuses_a_limit_below_before_anything_is_taken)
{
    struct answer answer;
    mmq_session *session;
    mmq_model *model;
    uint64_t total;

    NEEDS_DEVICES(1);
    model = load_on(&llava, device_names[0], 0);
    total = estimate(model);
    mmq_model_free(model);

    model = load_on(&llava, device_names[0], total - 1);
    ASSERT_FAILS(MMQ_ERR_LIMIT,
                 support_text("needs %llu bytes, the limit of %llu ", (unsigned long long)total,
                              (unsigned long long)total - 1),
                 mmq_session_create(&session, model, &exact));
    printf("FIGURE limit: %s\n", mmq_last_error_message());
    ck_assert_uint_eq(memory_of(model).peak, 0);
    mmq_model_free(model);

    model = load_on(&llava, device_names[0], total);
    ASSERT_OK(mmq_session_create(&session, model, &exact));
    ASSERT_OK(ask(&answer, session, &llava, 1));
    ck_assert_uint_eq(memory_of(model).peak, total);
    mmq_session_free(session);
    mmq_model_free(model);
}
END_TEST

/* ---- faults ---- */

static bool status_fits(int32_t kind, mmq_status status)
{
    if (kind == MMQI_FAULT_ALLOC)
        return status == MMQ_ERR_NOMEM;
    if (kind == MMQI_FAULT_LOST)
        return status == MMQ_ERR_DEVICE;
    /* A run that cannot be captured goes on without. */
    return status == MMQ_ERR_DEVICE || status == MMQ_ERR_NOMEM || status == MMQ_OK;
}

/* The model again, after the fault: as if nothing had been, or lost. */
static void check_again(mmq_model *model, mmq_session *session, bool lost,
                        const struct answer *want, const char *what)
{
    struct answer answer;
    mmq_status status = MMQ_OK;

    if (!session)
        status = mmq_session_create(&session, model, &exact);
    if (status == MMQ_OK)
        status = ask(&answer, session, &llava, 1);
    if (lost) {
        ck_assert_msg(status == MMQ_ERR_DEVICE, "%s: then %s", what, mmq_status_name(status));
        ck_assert_ptr_nonnull(strstr(mmq_last_error_message(), "lost"));
    } else {
        ck_assert_msg(status == MMQ_OK, "%s: then %s: %s", what, mmq_status_name(status),
                      mmq_last_error_message());
        ck_assert_msg(count_same(want, &answer) == N_TOKENS, "%s: then other tokens", what);
    }
    mmq_session_free(session);
}

/* Place, open a session, ask: with a fault to come, then without. False: it did not come. */
static bool survives(int32_t kind, int64_t nth, const struct answer *want)
{
    mmq_model *model = load_on(&llava, device_names[0], 0);
    const struct mmqi_place *at = place_of(model);
    const char *what = support_text("fault %d at call %lld", (int)kind, (long long)nth);
    mmq_session *session = NULL;
    struct answer answer;
    mmq_status status;
    bool met;

    at->backend->fault(at->device, (struct mmqi_fault){kind, nth});
    status = mmq_session_create(&session, model, &exact);
    if (status == MMQ_OK)
        status = ask(&answer, session, &llava, 1);
    met = at->backend->fault(at->device, (struct mmqi_fault){MMQI_FAULT_NONE, 0}) >= nth;
    ck_assert_msg(met ? status_fits(kind, status) : status == MMQ_OK, "%s: %s: %s", what,
                  mmq_status_name(status), mmq_last_error_message());
    if (status == MMQ_OK)
        ck_assert_msg(count_same(want, &answer) == N_TOKENS, "%s: other tokens", what);
    check_again(model, session, met && kind == MMQI_FAULT_LOST, want, what);
    /* Of a lost device all is given back too. */
    ck_assert_msg(memory_of(model).taken == model->taken, "%s: not given back", what);
    mmq_model_free(model);
    return met;
}

static void survives_every(int32_t kind, int64_t step, int64_t least)
{
    struct answer want = answer_on(&llava, device_names[0], 1);
    int64_t nth = 1, n = 0;
    time_t begin = time(NULL);

    for (; survives(kind, nth, &want); nth += step)
        n++;
    printf("FIGURE faults: %lld %s, each survived; %lld s\n", (long long)n,
           kind == MMQI_FAULT_ALLOC  ? "allocations refused"
           : kind == MMQI_FAULT_CALL ? "calls failed"
                                     : "losses of the device",
           (long long)(time(NULL) - begin));
    ck_assert_int_ge(nth, least);
}

START_TEST(survives_each_allocation_that_the_device_refuses)
{
    NEEDS_DEVICES(1);
    survives_every(MMQI_FAULT_ALLOC, 1, 10);
}
END_TEST

START_TEST(survives_each_call_that_fails)
{
    const char *step = getenv("TEST_STEP");

    NEEDS_DEVICES(1);
    survives_every(MMQI_FAULT_CALL, step && *step ? atoi(step) : 1, 100);
}
END_TEST

START_TEST(tells_that_the_device_is_lost_wherever_it_happens)
{
    NEEDS_DEVICES(1);
    survives_every(MMQI_FAULT_LOST, 37, 100);
}
END_TEST

/* A kernel reads an address that is none. */
static void run_into_nowhere(const struct mmqi_place *at)
{
    struct mmqi_stream_options options = {.max_cols = 64, .max_product = 256, .max_heads = 64};
    struct mmqi_mat nowhere = {(float *)(uintptr_t)0x1000, 1, 64, 64};
    struct mmqi_stream *stream;
    int32_t status;

    ck_assert_int_eq(at->backend->stream_open(at->device, &options, &stream), MMQ_OK);
    status = at->backend->ops->add(stream, &nowhere, &nowhere, &nowhere);
    if (status == MMQ_OK)
        status = at->backend->stream_wait(stream);
    printf("FIGURE faulting kernel: %s: %s\n", mmq_status_name(status), mmq_last_error_message());
    ck_assert_int_eq(status, MMQ_ERR_DEVICE);
    ck_assert_ptr_nonnull(strstr(mmq_last_error_message(), "lost"));
    at->backend->stream_close(stream);
}

static void check_other_device(mmq_session *session, const struct answer *want)
{
    struct answer answer;
    int32_t status = ask(&answer, session, &llava, 1);

    printf("FIGURE faulting kernel: then %s: %s\n", device_names[1],
           status == MMQ_OK ? "goes on" : mmq_last_error_message());
    if (status == MMQ_OK)
        ck_assert_int_eq(count_same(want, &answer), N_TOKENS);
    else
        ASSERT_FAILS(MMQ_ERR_DEVICE, "cuda:1", status);
}

START_TEST(a_kernel_that_faults_loses_its_device_and_the_cpu_goes_on)
{
    struct answer want, answer;
    mmq_session *session, *late, *other_session = NULL;
    mmq_model *model, *other = NULL, *again;
    mmq_load_options options = {
        .struct_size = sizeof options, .runtime = runtime, .device = device_names[0]};

    NEEDS_DEVICES(1);
    model = load_on(&llava, device_names[0], 0);
    if (strstr(place_of(model)->backend->describe(place_of(model)->device), "emulated")) {
        mmq_model_free(model);
        SKIP("an emulated device faults with its host");
    }
    want = answer_on(&llava, "cpu", 1);
    if (n_devices > 1) {
        other = load_on(&llava, device_names[1], 0);
        ASSERT_OK(mmq_session_create(&other_session, other, &exact));
    }
    ASSERT_OK(mmq_session_create(&session, model, &exact));
    ASSERT_OK(ask(&answer, session, &llava, 1));
    run_into_nowhere(place_of(model));
    ASSERT_FAILS(MMQ_ERR_DEVICE, "cuda:0", ask(&answer, session, &llava, 1));
    ASSERT_FAILS(MMQ_ERR_DEVICE, "lost", mmq_session_create(&late, model, &exact));
    answer = answer_on(&llava, "cpu", 1);
    ck_assert_int_eq(count_same(&want, &answer), N_TOKENS);
    if (other_session) /* the driver may give up every device of the process: then it says so */
        check_other_device(other_session, &want);
    mmq_session_free(other_session);
    mmq_model_free(other);
    mmq_session_free(session);
    mmq_model_free(model);
    /* The driver has given the device up for this process. */
    ck_assert_int_ne(mmq_load(&again, folder_of(&llava), &options), MMQ_OK);
    printf("FIGURE faulting kernel: and then %s\n", mmq_last_error_message());
}
END_TEST

START_TEST(a_device_that_is_not_there_is_named)
{
    mmq_load_options options = {
        .struct_size = sizeof options, .runtime = runtime, .device = "cuda:99"};
    mmq_model *model;

    NEEDS_DEVICES(1);
    ASSERT_FAILS(MMQ_ERR_NO_DEVICE, support_text("'cuda:99': there are %d", (int)n_devices),
                 mmq_load(&model, folder_of(&llava), &options));
    ck_assert_ptr_null(model);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("cuda model");
    TCase *tests = tcase_create("cuda model");
    SRunner *runner;
    int n_failed;

    setvbuf(stdout, NULL, _IOLBF, 0);
    suite_add_tcase(suite, tests);
    tcase_set_timeout(tests, 120);
    tcase_add_checked_fixture(tests, set_up, tear_down);
    tcase_add_test(tests, a_model_split_anywhere_gives_the_cpus_tokens);
    tcase_add_test(tests, a_larger_model_split_anywhere_gives_the_cpus_tokens);
    tcase_add_test(tests, a_model_split_between_two_devices_gives_the_cpus_tokens);
    tcase_add_test(tests, takes_exactly_what_was_told_and_tells_the_drivers_apart);
    tcase_add_test(tests, refuses_a_limit_below_before_anything_is_taken);
    tcase_add_test(tests, a_device_that_is_not_there_is_named);
    tcase_add_test(tests, a_kernel_that_faults_loses_its_device_and_the_cpu_goes_on);
    tcase_add_test(tests, survives_each_allocation_that_the_device_refuses);
    tcase_add_test(tests, tells_that_the_device_is_lost_wherever_it_happens);
    tcase_add_test(tests, survives_each_call_that_fails);
    runner = srunner_create(suite);
    srunner_set_fork_status(runner, CK_FORK);
    srunner_run_all(runner, CK_NORMAL);
    n_failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return n_failed > 0;
}
