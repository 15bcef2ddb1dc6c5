/*
 * What a whole description takes, against what mmq_estimate() said of it: a Qwen2-VL of 310 MB with
 * holes for weights, packed as nf4 while it is loaded, answers about a picture in a process of its
 * own. `make sized-check` asks the same of the real size.
 */
#include "model/large.h"

/* The greatest picture that the settings allow, and a context that it and the question fill. */
enum { SIDE = 448, ROWS = 784, CONTEXT = 816, ANSWER = 8, TARGETS = 17 };

static const char config[] =
    "{\"architectures\": [\"Qwen2VLForConditionalGeneration\"], \"model_type\": \"qwen2_vl\",\n"
    " \"bos_token_id\": 396, \"eos_token_id\": 398, \"image_token_id\": 402, \"vocab_size\": "
    "120000,\n"
    " \"hidden_size\": 1024, \"intermediate_size\": 4096, \"max_position_embeddings\": 4096,\n"
    " \"num_attention_heads\": 8, \"num_key_value_heads\": 2, \"num_hidden_layers\": 2,\n"
    " \"rms_norm_eps\": 1e-06, \"rope_theta\": 1000000.0, \"tie_word_embeddings\": true,\n"
    " \"rope_scaling\": {\"type\": \"mrope\", \"mrope_section\": [16, 24, 24]},\n"
    " \"vision_config\": {\"depth\": 2, \"embed_dim\": 256, \"hidden_size\": 1024, \"mlp_ratio\": "
    "3,\n"
    "  \"num_heads\": 4, \"patch_size\": 8, \"spatial_merge_size\": 2, \"temporal_patch_size\": "
    "2}}\n";

static const char preprocessor[] =
    "{\"image_processor_type\": \"Qwen2VLImageProcessor\", \"min_pixels\": 1024,\n"
    " \"max_pixels\": 200704, \"patch_size\": 8, \"merge_size\": 2, \"temporal_patch_size\": 2}\n";

static void enter(void)
{
    /* 24 is the tower's width and that of keys alike, 72 thrice it, 96 the merger's */
    static const struct large large = {
        "qwen2_vl_tiny",
        config,
        {{48, 1024}, {56, 4096}, {24, 256}, {72, 768}, {96, 1024}, {408, 120000}}};
    FILE *file;

    ck_assert_uint_gt(make_large(&large), 280 * MIB);
    file = fopen("large/preprocessor_config.json", "w");
    ck_assert_ptr_nonnull(file);
    ck_assert_uint_eq(fwrite(preprocessor, 1, sizeof preprocessor - 1, file),
                      sizeof preprocessor - 1);
    fclose(file);
}

static const mmq_session_options session_options = {
    .struct_size = sizeof session_options, .context = CONTEXT, .image_rows = ROWS};

static bool load(mmq_model **model, const char *quantize, uint64_t limit)
{
    mmq_load_options options = {.struct_size = sizeof options,
                                .device = "cpu",
                                .quantize = quantize,
                                .memory_limit = limit,
                                .n_threads = 2};

    return mmq_load(model, "large", &options) == MMQ_OK;
}

static uint64_t estimate(const char *quantize)
{
    mmq_memory memory = {.struct_size = sizeof memory};
    mmq_model *model;

    ck_assert(load(&model, quantize, 0));
    ASSERT_OK(mmq_estimate(&memory, model, &session_options));
    mmq_model_free(model);
    return memory.total;
}

/* As many targets as there are rows of logits, so that all of them are written. */
static bool evaluate(mmq_session *session, const mmq_prompt *prompt)
{
    int32_t targets[TARGETS] = {0};
    mmq_evaluate_request request = {
        .struct_size = sizeof request, .prompt = prompt, .targets = targets, .n_targets = TARGETS};
    mmq_evaluation *evaluation;

    return mmq_evaluate(&evaluation, session, &request) == MMQ_OK;
}

static bool answer(mmq_session *session)
{
    static uint8_t pixels[SIDE * SIDE * 3];
    mmq_image *image;
    const mmq_image *images[1];
    mmq_prompt prompt = {.struct_size = sizeof prompt,
                         .text = "<|vision_start|><|image_pad|><|vision_end|>What is this?",
                         .images = images,
                         .n_images = 1};
    mmq_generate_request request = {.struct_size = sizeof request,
                                    .prompt = &prompt,
                                    .max_new_tokens = ANSWER,
                                    .ignore_eos = 1};
    mmq_result_facts facts = {.struct_size = sizeof facts};
    mmq_result *result;

    for (size_t i = 0; i < sizeof pixels; i++)
        pixels[i] = (uint8_t)(i * 37 >> 3);
    if (mmq_image_from_pixels(&image, pixels, SIDE, SIDE, 3, 0, NULL) != MMQ_OK)
        return false;
    images[0] = image;
    if (mmq_generate(&result, session, &request) != MMQ_OK ||
        mmq_result_info(&facts, result) != MMQ_OK)
        return false;
    return facts.n_prompt > CONTEXT - 40 && facts.n_generated == ANSWER &&
           evaluate(session, &prompt);
}

/* In the child: under a limit of just the estimate. What is measured ends with the answer. */
static bool describe(const char *quantize, uint64_t *result)
{
    mmq_memory memory = {.struct_size = sizeof memory};
    mmq_device_memory device = {.struct_size = sizeof device};
    mmq_model *model;
    mmq_session *session;

    if (!load(&model, quantize, 0) || mmq_estimate(&memory, model, &session_options) != MMQ_OK)
        return false;
    mmq_model_free(model);
    if (!load(&model, quantize, memory.total) ||
        mmq_session_create(&session, model, &session_options) != MMQ_OK || !answer(session) ||
        mmq_estimate_device(&device, model, &session_options, 0) != MMQ_OK)
        return false;
    *result = device.taken;
    return true;
}

/* A process that does nothing but load. */
static bool only_load(const char *quantize, uint64_t *result)
{
    mmq_model *model;

    *result = 0;
    return load(&model, quantize, 0);
}

START_TEST(the_estimate_is_what_is_taken_and_within_2_percent_of_what_the_process_takes)
{
    static const char *const policies[] = {"nf4", "* = bf16", "* = int8"};

    if (SANITIZED)
        SKIP("a sanitizer takes memory of its own");
    for (size_t i = 0; i < sizeof policies / sizeof *policies; i++) {
        uint64_t wanted = estimate(policies[i]);
        struct taken before = measure(only_load, policies[i]);
        struct taken taken = measure(describe, policies[i]);
        double process = (double)(taken.peak - before.peak);

        printf("%s: estimate %.2f MiB, process %.2f MiB (%+.2f %%)\n", policies[i],
               (double)wanted / (double)MIB, process / (double)MIB,
               100.0 * (process / (double)wanted - 1.0));
        fflush(stdout);
        ck_assert_uint_eq(taken.result, wanted);
        ck_assert_double_ge(process, 0.98 * (double)wanted);
        ck_assert_double_le(process, 1.02 * (double)wanted);
    }
}
END_TEST

START_TEST(a_limit_one_byte_below_the_estimate_is_refused_before_anything_is_placed)
{
    uint64_t wanted = estimate("nf4");
    mmq_model_facts facts = {.struct_size = sizeof facts};
    mmq_session *session;
    mmq_model *model;

    ck_assert(load(&model, "nf4", wanted - 1));
    ASSERT_FAILS(MMQ_ERR_LIMIT, "needs", mmq_session_create(&session, model, &session_options));
    ASSERT_OK(mmq_model_info(&facts, model));
    ck_assert_uint_eq(facts.placed_bytes, 0);
    mmq_model_free(model);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("peak");
    TCase *tests = tcase_create("peak");
    SRunner *runner = srunner_create(suite);
    int failed;

    tcase_add_checked_fixture(tests, enter, scratch_leave);
    tcase_set_timeout(tests, 60);
    tcase_add_test(tests,
                   the_estimate_is_what_is_taken_and_within_2_percent_of_what_the_process_takes);
    tcase_add_test(tests, a_limit_one_byte_below_the_estimate_is_refused_before_anything_is_placed);
    suite_add_tcase(suite, tests);
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? 1 : 0;
}
