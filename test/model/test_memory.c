/*
 * How much memory quantizing takes: a checkpoint of 1 GB with an embedding of 400 MB is written to
 * build/tmp (with holes, so that it takes no disk), quantized in processes of their own, and taken
 * away again.
 */
#include "model/large.h"

/* ---- the checkpoint ---- */

static const char config[] =
    "{\"architectures\": [\"LlavaForConditionalGeneration\"], \"image_token_index\": 449,\n"
    " \"model_type\": \"llava\", \"pad_token_id\": 450, \"tie_word_embeddings\": true,\n"
    " \"text_config\": {\"model_type\": \"llama\", \"vocab_size\": 102400, \"hidden_size\": 2048,\n"
    "  \"num_attention_heads\": 32, \"num_key_value_heads\": 4, \"intermediate_size\": 14720,\n"
    "  \"num_hidden_layers\": 3, \"max_position_embeddings\": 512, \"rms_norm_eps\": 1e-05},\n"
    " \"vision_config\": {\"model_type\": \"clip_vision_model\", \"hidden_size\": 48,\n"
    "  \"intermediate_size\": 100, \"num_hidden_layers\": 3, \"num_attention_heads\": 3,\n"
    "  \"image_size\": 42, \"patch_size\": 14, \"projection_dim\": 32},\n"
    " \"vision_feature_layer\": -2, \"vision_feature_select_strategy\": \"default\"}\n";

static void enter(void)
{
    static const struct large large = {
        "llava_tiny", config, {{96, 2048}, {112, 14720}, {456, 102400}, {32, 256}}};

    ck_assert_uint_gt(make_large(&large), UINT64_C(1000000000));
}

static bool load(mmq_model **model, const char *quantize)
{
    mmq_load_options options = {.struct_size = sizeof options, .quantize = quantize};

    return mmq_load(model, "large", &options) == MMQ_OK;
}

/* What mmq-quantize does. */
static bool file_to_file(const char *policy, uint64_t *result)
{
    mmq_quantize_options options = {
        .struct_size = sizeof options, .format = policy, .out_path = "out"};
    mmq_report *report;
    mmq_model *model;

    *result = 0; /* none of it stays in memory */
    return load(&model, NULL) && mmq_quantize_layerwise(NULL, model, &options, &report) == MMQ_OK;
}

static bool at_load(const char *policy, uint64_t *result)
{
    mmq_model_facts facts = {.struct_size = sizeof facts};
    mmq_model *model;

    if (!load(&model, policy) || mmq_model_place(model) != MMQ_OK ||
        mmq_model_info(&facts, model) != MMQ_OK)
        return false;
    *result = facts.placed_bytes;
    return true;
}

/* Quantized in memory, then placed on a device whose memory is the host's. */
static bool in_memory(const char *policy, uint64_t *result)
{
    mmq_quantize_options options = {.struct_size = sizeof options, .format = policy};
    mmq_model_facts facts = {.struct_size = sizeof facts};
    mmq_model *source, *model;

    if (!load(&source, NULL) || mmq_quantize_layerwise(&model, source, &options, NULL) != MMQ_OK ||
        mmq_model_place(model) != MMQ_OK || mmq_model_info(&facts, model) != MMQ_OK)
        return false;
    *result = facts.placed_bytes;
    return true;
}

/* ---- promises ---- */

START_TEST(file_to_file_takes_at_most_192_mib)
{
    static const char *const policies[] = {"nf4", "* = nf4-128-nested; language.embed = int8"};

    if (SANITIZED)
        SKIP("a sanitizer takes memory of its own");
    for (size_t i = 0; i < 2; i++) {
        struct taken taken = measure(file_to_file, policies[i]);

        ck_assert_uint_gt(taken.peak, MIB); /* it was measured */
        ck_assert_uint_le(taken.peak, 192 * MIB);
        ck_assert_int_eq(system("rm -r out"), 0);
    }
}
END_TEST

static void takes_its_result(bool (*work)(const char *policy, uint64_t *result), const char *policy,
                             uint64_t least)
{
    struct taken taken = measure(work, policy);

    ck_assert_uint_gt(taken.result, least);
    ck_assert_uint_gt(taken.peak, taken.result);
    ck_assert_uint_le(taken.peak, taken.result + 192 * MIB);
}

START_TEST(quantize_at_load_takes_its_result_and_at_most_192_mib)
{
    if (SANITIZED)
        SKIP("a sanitizer takes memory of its own");
    takes_its_result(at_load, "nf4", 500 * MIB);
    takes_its_result(at_load, "* = nf4-nested", 200 * MIB);
}
END_TEST

START_TEST(a_model_quantized_in_memory_is_not_held_twice)
{
    if (SANITIZED)
        SKIP("a sanitizer takes memory of its own");
    takes_its_result(in_memory, "* = int8", 400 * MIB);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("memory");
    TCase *tests = tcase_create("memory");
    SRunner *runner = srunner_create(suite);
    int failed;

    tcase_add_checked_fixture(tests, enter, scratch_leave);
    tcase_set_timeout(tests, 60);
    tcase_add_test(tests, file_to_file_takes_at_most_192_mib);
    tcase_add_test(tests, quantize_at_load_takes_its_result_and_at_most_192_mib);
    tcase_add_test(tests, a_model_quantized_in_memory_is_not_held_twice);
    suite_add_tcase(suite, tests);
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? 1 : 0;
}
