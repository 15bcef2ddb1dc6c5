/*
 * Memory refused at every allocation of every step of a model's life, through
 * the public API: a status, NULL results, handles that go on, and nothing left
 * behind.
 */
#include "core/mem.h"
#include "meter.h"
#include "model/tiny.h"
#include "scratch.h"

static const struct family {
    const char *folder, *question;
} families[] = {
    {"test/golden/llava_tiny/model", "USER: <image>\nWhat is in the picture? ASSISTANT:"},
    {"test/golden/qwen2_vl_tiny/model",
     "<|vision_start|><|image_pad|><|vision_end|>What's cafe\u0301?"},
    {"test/golden/idefics3_tiny/model", "<|im_start|>User:<image>What is it?"},
    {"test/golden/llava_orig_tiny/model", "USER: <image>\nWhat is it?"},
    {"test/golden/llava_next_tiny/model", "<image>What is it?"},
    {"test/golden/qwen3_vl_tiny/model", "<|vision_start|><|image_pad|><|vision_end|>What is it?"},
};

/* Everything that the steps make; each makes its own part anew. */
struct life {
    mmq_runtime *runtime;
    mmq_model *model, *quantized;
    mmq_session *session;
    mmq_image *image;
    mmq_result *result;
    mmq_evaluation *evaluation;
    mmq_report *report;
    mmq_cancel *cancel;
    int32_t *ids;
    char *text;
    const struct family *family;
    uint64_t limit; /* bytes of the model with its one session: no refusal may eat of it */
};

/* The host's allocator as hosts give it; what belongs to no model takes it from the hooks. */
static mmq_status create_runtime(struct life *l)
{
    const struct mmqi_mem_hooks *hooks = mmqi_mem_current();
    mmq_runtime_options options = {
        .struct_size = sizeof options,
        .alloc = hooks->alloc,
        .free = hooks->free,
        .memory_user = hooks->user,
        .n_threads = 2,
    };

    return mmq_runtime_create(&l->runtime, &options);
}

static mmq_status load(struct life *l)
{
    mmq_load_options options = {
        .struct_size = sizeof options, .runtime = l->runtime, .memory_limit = l->limit};

    return mmq_load(&l->model, source_path(l->family->folder), &options);
}

static mmq_status read_picture(struct life *l)
{
    return mmq_image_read_file(&l->image, source_path("test/golden/llava_tiny/images/rings.jpg"),
                               NULL);
}

static mmq_status make_cancel(struct life *l)
{
    return mmq_cancel_create(&l->cancel);
}

static mmq_status place(struct life *l)
{
    return mmq_model_place(l->model);
}

static mmq_status create_session(struct life *l)
{
    return mmq_session_create(&l->session, l->model, NULL);
}

static mmq_status generate(struct life *l)
{
    const char *stop[] = {"never to be seen"};
    const mmq_image *images[] = {l->image};
    mmq_prompt prompt = {
        .struct_size = sizeof prompt, .text = l->family->question, .images = images, .n_images = 1};
    mmq_generate_request request = {.struct_size = sizeof request,
                                    .prompt = &prompt,
                                    .max_new_tokens = 20,
                                    .ignore_eos = 1,
                                    .stop = stop,
                                    .n_stop = 1};

    mmq_session_reset(l->session);
    return mmq_generate(&l->result, l->session, &request);
}

static mmq_status evaluate(struct life *l)
{
    static const int32_t targets[] = {5, 12, 19};
    mmq_part parts[] = {{.struct_size = sizeof parts[0], .image = l->image},
                        {.struct_size = sizeof parts[0], .text = "What is it?"}};
    const mmq_part *list[] = {&parts[0], &parts[1]};
    mmq_message message = {sizeof message, "user", list, 2};
    const mmq_message *messages[] = {&message};
    mmq_prompt prompt = {.struct_size = sizeof prompt, .messages = messages, .n_messages = 1};
    mmq_evaluate_request request = {
        .struct_size = sizeof request, .prompt = &prompt, .targets = targets, .n_targets = 3};

    return mmq_evaluate(&l->evaluation, l->session, &request);
}

static mmq_status tokenize(struct life *l)
{
    size_t n;

    return mmq_tokenize(&l->ids, &n, l->model, "USER: <image> words of a text", SIZE_MAX, 1);
}

static mmq_status detokenize(struct life *l)
{
    static const int32_t ids[] = {40, 41, 42, 43};
    size_t size;

    return mmq_detokenize(&l->text, &size, l->model, ids, 4, 0);
}

static mmq_status quantize(struct life *l)
{
    mmq_quantize_options options = {
        .struct_size = sizeof options, .format = "nf4", .out_path = "out"};

    return mmq_quantize_layerwise(&l->quantized, l->model, &options, &l->report);
}

/* A step: what it is called, what it makes, how many refusals are skipped as their number grows. */
static const struct step {
    const char *name;
    mmq_status (*run)(struct life *life);
    int64_t coarse;
} steps[] = {
    {"runtime", create_runtime, 0}, {"load", load, 0},         {"picture", read_picture, 0},
    {"cancel", make_cancel, 0},     {"place", place, 0},       {"session", create_session, 0},
    {"generate", generate, 0},      {"evaluate", evaluate, 0}, {"tokenize", tokenize, 0},
    {"detokenize", detokenize, 0},  {"quantize", quantize, 0},
};

static void end_life(struct life *l)
{
    mmq_report_free(l->report);
    mmq_evaluation_free(l->evaluation);
    mmq_result_free(l->result);
    mmq_image_free(l->image);
    mmq_model_free(l->quantized);
    mmq_model_free(l->model);
    mmq_session_free(l->session);
    mmq_cancel_free(l->cancel);
    mmq_ids_free(l->ids);
    mmq_text_free(l->text);
    mmq_runtime_free(l->runtime);
}

/* What a failed step may not have left: results, or a folder. */
static void check_nothing_made(const struct life *l, const struct step *step)
{
    ck_assert(step->run != create_runtime || !l->runtime);
    ck_assert(step->run != load || !l->model);
    ck_assert(step->run != read_picture || !l->image);
    ck_assert(step->run != make_cancel || !l->cancel);
    ck_assert(step->run != create_session || !l->session);
    ck_assert(step->run != generate || !l->result);
    ck_assert(step->run != evaluate || !l->evaluation);
    ck_assert(step->run != tokenize || !l->ids);
    ck_assert(step->run != detokenize || !l->text);
    ck_assert(step->run != quantize || (!l->quantized && !l->report));
    ck_assert_msg(step->run != quantize || count_files(".") == 0, "a folder is left");
}

/* What the model with one session takes, to the byte. */
static uint64_t needed_bytes(const struct family *family)
{
    mmq_load_options options = {.struct_size = sizeof options, .n_threads = 2};
    mmq_memory memory = {.struct_size = sizeof memory};
    mmq_model *model;

    ASSERT_OK(mmq_load(&model, source_path(family->folder), &options));
    ASSERT_OK(mmq_estimate(&memory, model, NULL));
    mmq_model_free(model);
    return memory.total;
}

START_TEST(a_refused_allocation_is_a_status_and_a_retry_on_the_same_handles_succeeds)
{
    const size_t n_steps = sizeof steps / sizeof steps[0];
    struct meter meter = {.left = INT64_MAX};
    struct mmqi_mem_hooks hooks = {meter_alloc, meter_free, &meter};
    const struct mmqi_mem_hooks *before = mmqi_mem_enter(&hooks);
    struct life life = {.family = &families[_i], .limit = needed_bytes(&families[_i])};
    mmq_status status;

    for (size_t i = 0; i < n_steps; i++) {
        int64_t n = 0;

        for (status = MMQ_ERR_NOMEM; status != MMQ_OK;
             n += 1 + (steps[i].coarse ? n / steps[i].coarse : 0)) {
            meter.left = n;
            status = steps[i].run(&life);
            meter.left = INT64_MAX;
            ck_assert_msg(status == MMQ_OK || status == MMQ_ERR_NOMEM, "%s, %d blocks: %s: %s",
                          steps[i].name, (int)n, mmq_status_name(status), mmq_last_error_message());
            if (status != MMQ_OK)
                check_nothing_made(&life, &steps[i]);
        }
        ck_assert_msg(n > 1, "%s asked for no memory", steps[i].name);
    }
    ck_assert_uint_gt(strlen(mmq_result_text(life.result)), 0);
    end_life(&life);
    ck_assert_int_eq(meter.live, 0);
    mmqi_mem_enter(before);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("no memory");
    TCase *tests = tcase_create("no memory");
    SRunner *runner = srunner_create(suite);
    int failed;

    tcase_add_checked_fixture(tests, scratch_enter, scratch_leave);
    tcase_set_timeout(tests, 120);
    tcase_add_loop_test(tests,
                        a_refused_allocation_is_a_status_and_a_retry_on_the_same_handles_succeeds,
                        0, (int)(sizeof families / sizeof *families));
    suite_add_tcase(suite, tests);
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? 1 : 0;
}
