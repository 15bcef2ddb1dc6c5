/*
 * The family qwen3_vl on the committed tiny model: learned positions, DeepStack
 * in chunks and beside text, and what it says of files that do not fit. The
 * committed case compares what it computes.
 */
#include <math.h>

#include "model/checkpoint.h"
#include "model/family.h"
#include "model/names.h"
#include "model/tiny.h"
#include "runtime/session.h"

#define TINY "qwen3_vl_tiny"
#define MARK "<|vision_start|><|image_pad|><|vision_end|>"

START_TEST(knows_the_names_of_the_hub)
{
    static const char *const names[][2] = {
        {"model.visual.pos_embed.weight", "vision.positions"},
        {"model.visual.patch_embed.proj.bias", "vision.patch.bias"},
        {"model.visual.blocks.7.mlp.linear_fc1.bias", "vision.blocks.7.mlp.fc1.bias"},
        {"model.visual.merger.linear_fc2.weight", "projector.1"},
        {"model.visual.deepstack_merger_list.2.norm.weight", "projector.deepstack.2.norm"},
        {"model.language_model.layers.3.self_attn.q_norm.weight", "language.layers.3.attn.q_norm"},
        {"lm_head.weight", "language.head"},
    };
    char name[MMQI_MAX_WEIGHT_NAME];

    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        ck_assert_int_eq(mmqi_canonical_name(name, &mmqi_family_qwen3_vl, names[i][0]),
                         MMQI_NAME_KNOWN);
        ck_assert_str_eq(name, names[i][1]);
    }
}
END_TEST

/* ---- learned positions ---- */

/* A grid of 4 x 4 for 2 x 6 patches: computed by transformers. */
START_TEST(positions_are_mixed_as_the_reference_mixes_them)
{
    static const int32_t taps[12][4] = {{0, 1, 4, 5},     {0, 1, 4, 5},     {12, 13, 12, 13},
                                        {12, 13, 12, 13}, {1, 2, 5, 6},     {1, 2, 5, 6},
                                        {13, 14, 13, 14}, {13, 14, 13, 14}, {2, 3, 6, 7},
                                        {3, 3, 7, 7},     {14, 15, 14, 15}, {15, 15, 15, 15}};
    static const float first[12] = {1.0f,        0.39999998f, 1.0f,        0.39999998f,
                                    0.79999995f, 0.20000005f, 0.79999995f, 0.20000005f,
                                    0.5999999f,  1.0f,        0.5999999f,  1.0f};
    const struct mmqi_spec spec = {.patch = 8, .merge = 2, .tower_axes = 2, .position_side = 4};
    const struct mmqi_view view = {48, 16};
    int32_t slots[12], positions[24], made[48];
    struct mmqi_span spans[12];
    float weights[48];
    const struct mmqi_session_index index = {.slots = slots,
                                             .positions = positions,
                                             .spans = spans,
                                             .taps = made,
                                             .tap_weights = weights};
    struct mmqi_view_rows rows;

    mmqi_view_count(&rows, &spec, &view);
    mmqi_tower_fill_index(&index, &spec, &rows);
    for (int i = 0; i < 12; i++) {
        ck_assert_mem_eq(made + 4 * i, taps[i], sizeof taps[i]);
        ck_assert_float_eq_tol(weights[4 * i], first[i], 1e-7f);
        ck_assert_float_eq_tol(weights[4 * i + 1], 1.0f - first[i], 1e-7f);
        ck_assert_float_eq(weights[4 * i + 2], 0.0f);
        ck_assert_float_eq(weights[4 * i + 3], 0.0f);
    }
}
END_TEST

/* One patch high is the grid's first row; never a row that is not there. */
START_TEST(taps_stay_inside_the_learned_grid)
{
    enum { MOST = 40 * 4 };
    int32_t slots[MOST], positions[2 * MOST], taps[4 * MOST];
    struct mmqi_span spans[MOST];
    float weights[4 * MOST], sum;
    const struct mmqi_session_index index = {.slots = slots,
                                             .positions = positions,
                                             .spans = spans,
                                             .taps = taps,
                                             .tap_weights = weights};
    struct mmqi_spec spec = {.patch = 8, .merge = 1, .tower_axes = 2};
    struct mmqi_view_rows rows;

    for (spec.position_side = 1; spec.position_side < 60; spec.position_side += 7)
        for (int32_t across = 1; across <= 40; across++) {
            const struct mmqi_view view = {8 * across, 8 * (1 + across % 4)};

            mmqi_view_count(&rows, &spec, &view);
            mmqi_tower_fill_index(&index, &spec, &rows);
            for (int32_t i = 0; i < rows.patches; i++) {
                sum = 0.0f;
                for (int k = 0; k < 4; k++) {
                    ck_assert_int_ge(taps[4 * i + k], 0);
                    ck_assert_int_lt(taps[4 * i + k], spec.position_side * spec.position_side);
                    sum += weights[4 * i + k];
                }
                ck_assert_float_eq_tol(sum, 1.0f, 1e-5f);
            }
        }
}
END_TEST

/* ---- DeepStack ---- */

struct logits {
    float *data;
    size_t n;
};

static int32_t keep_logits(void *user, size_t index, const float *row, size_t n_vocab)
{
    struct logits *logits = user;

    (void)index;
    logits->data = realloc(logits->data, (logits->n + n_vocab) * sizeof *row);
    memcpy(logits->data + logits->n, row, n_vocab * sizeof *row);
    logits->n += n_vocab;
    return 0;
}

/* Teacher forcing over a prompt of two pictures, in chunks. */
static struct logits evaluate(mmq_session *session)
{
    static const int32_t targets[] = {20, 41, 300, 7, 99};
    mmq_image *images[] = {tiny_image(1), tiny_image(2)};
    const mmq_image *list[] = {images[0], images[1]};
    mmq_prompt prompt = {.struct_size = sizeof prompt,
                         .text = "Compare " MARK " with " MARK ": which is brighter?",
                         .images = list,
                         .n_images = 2};
    struct logits logits = {0};
    mmq_evaluate_request request = {.struct_size = sizeof request,
                                    .prompt = &prompt,
                                    .targets = targets,
                                    .n_targets = 5,
                                    .on_logits = keep_logits,
                                    .logits_user = &logits};
    mmq_evaluation *evaluation;

    ASSERT_OK(mmq_evaluate(&evaluation, session, &request));
    mmq_evaluation_free(evaluation);
    mmq_image_free(images[0]);
    mmq_image_free(images[1]);
    return logits;
}

START_TEST(logits_are_bit_equal_for_every_chunk_size_and_after_truncation)
{
    static const int32_t chunks[] = {512, 1, 7};
    struct logits first = {0}, other;
    mmq_session_options options = {.struct_size = sizeof options};
    mmq_session *session;
    mmq_model *model;

    ASSERT_OK(mmq_load(&model, source_path("test/golden/" TINY "/model"), NULL));
    for (size_t i = 0; i < sizeof chunks / sizeof *chunks; i++) {
        options.chunk = chunks[i];
        ASSERT_OK(mmq_session_create(&session, model, &options));
        for (int turn = 0; turn < 2; turn++) {
            other = evaluate(session);
            if (!first.data)
                first = other;
            ck_assert_uint_eq(first.n, other.n);
            ck_assert_mem_eq(first.data, other.data, first.n * sizeof *first.data);
            if (first.data != other.data)
                free(other.data);
            ASSERT_OK(mmq_session_truncate(session, 12 + 3 * (int32_t)i)); /* inside a picture */
        }
        mmq_session_free(session);
    }
    free(first.data);
    mmq_model_free(model);
}
END_TEST

START_TEST(a_pictures_row_is_wider_than_a_tokens)
{
    struct checkpoint *c = tiny_checkpoint(TINY);
    struct mmqi_model *model = opens(c);

    ck_assert_int_eq(model->spec.image_width, 3 * model->spec.hidden);
    ck_assert_int_eq(model->spec.rope_axes, 3);
    ck_assert_int_eq(model->spec.position_side, 4);
    free_checkpoint(c);
}
END_TEST

/* ---- files ---- */

struct change {
    const char *key, *value; /* value NULL: without the key */
    int32_t status;
    const char *says;
};

#define DEEP "vision_config.deepstack_visual_indexes"
#define SECTION "text_config.rope_scaling.mrope_section"

static const struct change config_changes[] = {
    {DEEP, "[0, 3]", MMQ_ERR_FORMAT, "deepstack_visual_indexes.1"},
    {DEEP, "[-1, 1]", MMQ_ERR_FORMAT, "deepstack_visual_indexes.0"},
    {DEEP, "[1, 0]", MMQ_ERR_UNSUPPORTED, "0 after 1"},
    {DEEP, "[1, 1]", MMQ_ERR_UNSUPPORTED, "1 after 1"},
    {DEEP, "[0, 1, 2]", MMQ_ERR_FORMAT, "names 3 blocks for 2 layers"},
    {DEEP, "{}", MMQ_ERR_FORMAT, "is no list"},
    {DEEP, "[0]", MMQ_ERR_MISMATCH, "unused"},
    {DEEP, NULL, MMQ_ERR_FORMAT, "block 8 of 3"}, /* the class's default */
    {"vision_config.num_position_embeddings", "15", MMQ_ERR_FORMAT, "15 is no square number"},
    {"vision_config.num_position_embeddings", "0", MMQ_ERR_FORMAT, "num_position_embeddings"},
    {"vision_config.num_position_embeddings", "4294967296", MMQ_ERR_FORMAT, "num_position"},
    {"vision_config.num_position_embeddings", "9", MMQ_ERR_MISMATCH, "another shape"},
    {"vision_config.out_hidden_size", "52", MMQ_ERR_FORMAT, "rows of 52"},
    {"vision_config.patch_size", "16", MMQ_ERR_FORMAT, "the tower takes 16"},
    {SECTION, "[4, 2, 3]", MMQ_ERR_FORMAT, "4 + 2 + 3"},
    {SECTION, "[8, 0]", MMQ_ERR_FORMAT, "not 3"},
    {"text_config.rope_scaling.rope_type", "\"yarn\"", MMQ_ERR_UNSUPPORTED, "'yarn'"},
    {"text_config.head_dim", "15", MMQ_ERR_FORMAT, "odd width"},
    {"text_config.head_dim", NULL, MMQ_ERR_FORMAT, "half of heads of 128"},
    {"text_config.attention_bias", "true", MMQ_ERR_MISMATCH, "language.layers.0.attn.q.bias"},
    {"text_config", NULL, MMQ_ERR_FORMAT, "rows of 48, the decoder takes rows of 4096"},
    {"image_token_id", "4000", MMQ_ERR_FORMAT, "4000 is outside the vocabulary"},
    {"architectures", "[\"Qwen3VLMoeForConditionalGeneration\"]", MMQ_ERR_UNSUPPORTED,
     "Qwen3VLMoeForConditionalGeneration"},
};

START_TEST(refuses_settings_that_do_not_fit)
{
    const struct change *change = &config_changes[_i];
    struct checkpoint *c = tiny_checkpoint(TINY);

    set(c->config, change->key, change->value);
    fails(c, change->status, change->says);
}
END_TEST

START_TEST(refuses_experts_by_name)
{
    struct checkpoint *c = tiny_checkpoint(TINY);

    set(c->config, "architectures", NULL);
    set(c->config, "model_type", "\"qwen3_vl_moe\"");
    fails(c, MMQ_ERR_UNSUPPORTED, "qwen3_vl_moe");
}
END_TEST

START_TEST(accounts_for_tensors_both_ways)
{
    struct checkpoint *c = tiny_checkpoint(TINY);

    drop_tensor(c, "model.visual.deepstack_merger_list.1.norm.bias");
    fails(c, MMQ_ERR_MISMATCH, "1 missing (projector.deepstack.1.norm.bias)");
    c = tiny_checkpoint(TINY);
    drop_tensor(c, "model.language_model.layers.1.self_attn.k_norm.weight");
    fails(c, MMQ_ERR_MISMATCH, "1 missing (language.layers.1.attn.k_norm)");
    c = tiny_checkpoint(TINY);
    add_tensor(c, "model.language_model.layers.0.self_attn.q_proj.bias", "BF16",
               json_pack("[i]", 64), NULL, 128);
    fails(c, MMQ_ERR_MISMATCH, "1 unused ('model.language_model.layers.0.self_attn.q_proj.bias')");
    c = tiny_checkpoint(TINY);
    json_decref(find_tensor(c, "model.visual.pos_embed.weight")->shape);
    find_tensor(c, "model.visual.pos_embed.weight")->shape = json_pack("[i, i]", 24, 16);
    fails(c, MMQ_ERR_MISMATCH, "[24, 16], not float [16, 24]");
}
END_TEST

#define COUNT(array) (int)(sizeof(array) / sizeof *(array))

int main(void)
{
    Suite *suite = suite_create("qwen3_vl");
    TCase *tests = tcase_create("runs"), *files = tcase_create("files");
    SRunner *runner = srunner_create(suite);
    int failed;

    tcase_set_timeout(tests, 60);
    tcase_add_test(tests, positions_are_mixed_as_the_reference_mixes_them);
    tcase_add_test(tests, taps_stay_inside_the_learned_grid);
    tcase_add_test(tests, logits_are_bit_equal_for_every_chunk_size_and_after_truncation);
    tcase_add_test(tests, a_pictures_row_is_wider_than_a_tokens);
    suite_add_tcase(suite, tests);
    tcase_add_test(files, knows_the_names_of_the_hub);
    tcase_add_test(files, refuses_experts_by_name);
    tcase_add_test(files, accounts_for_tensors_both_ways);
    tcase_add_loop_test(files, refuses_settings_that_do_not_fit, 0, COUNT(config_changes));
    suite_add_tcase(suite, files);
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? 1 : 0;
}
