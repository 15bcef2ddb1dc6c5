/*
 * The family qwen2_vl on the committed tiny model: pictures of their own
 * sizes, positions, reuse; and what it says of files that do not fit.
 */
#include <math.h>

#include "model/checkpoint.h"
#include "model/family.h"
#include "model/names.h"
#include "model/pair.h"
#include "runtime/prompt.h"

#define CASE "test/golden/qwen2_vl_tiny"
#define MARK "<|vision_start|><|image_pad|><|vision_end|>"

/* ---- conversations through the public API ---- */

static const int32_t targets[] = {20, 41, 300, 7, 99, 123, 8, 250};
enum { N_TARGETS = sizeof targets / sizeof *targets };

static void open_fixture(struct pair *f, int32_t chunk)
{
    open_pair(f, CASE "/model", "Compare " MARK " with " MARK ": which is brighter?",
              tiny_picture(97, 40, 1), tiny_picture(31, 47, 2), chunk);
    f->targets = targets;
    f->n_targets = N_TARGETS;
}

START_TEST(logits_are_bit_equal_for_every_chunk_size)
{
    static const int32_t chunks[] = {512, 1, 7};

    check_chunks(open_fixture, chunks, sizeof chunks / sizeof *chunks);
}
END_TEST

/* Also in the middle of a picture: positions go on as if nothing had been forgotten. */
START_TEST(truncation_anywhere_changes_no_bit)
{
    check_truncation(open_fixture);
}
END_TEST

/* What chooses token i of an answer is what teacher forcing computes all at once: decoding goes on
 * at the positions after the pictures. */
START_TEST(decoding_goes_on_where_the_prompt_ended)
{
    struct logits one_by_one = {0}, at_once = {0};
    struct pair f;
    mmq_generate_request generate = {.struct_size = sizeof generate,
                                     .prompt = &f.prompt,
                                     .max_new_tokens = 12,
                                     .ignore_eos = 1,
                                     .on_logits = keep_logits,
                                     .logits_user = &one_by_one};
    mmq_evaluate_request request = {.struct_size = sizeof request,
                                    .prompt = &f.prompt,
                                    .on_logits = keep_logits,
                                    .logits_user = &at_once};
    mmq_evaluation *evaluation;
    mmq_result *result;

    open_fixture(&f, 0);
    ASSERT_OK(mmq_generate(&result, f.session, &generate));
    ASSERT_OK(mmq_session_reset(f.session));
    request.targets = mmq_result_ids(result, &request.n_targets);
    ASSERT_OK(mmq_evaluate(&evaluation, f.session, &request));
    same_logits(&one_by_one, &at_once);
    mmq_evaluation_free(evaluation);
    mmq_result_free(result);
    free(one_by_one.data);
    free(at_once.data);
    close_pair(&f);
}
END_TEST

/* A talk of messages; the second question comes with the first answer before it. */
struct talk {
    mmq_part parts[6];
    const mmq_part *part_list[6];
    mmq_message messages[3];
    const mmq_message *list[3];
    mmq_prompt prompt;
};

static void begin_talk(struct talk *t, const struct pair *f)
{
    static const size_t begin[] = {0, 4, 5, 6};
    static const char *const texts[] = {NULL, NULL, "Which one's", " brighter?", NULL, "And why?"};

    memset(t, 0, sizeof *t);
    for (size_t i = 0; i < 6; i++) {
        t->parts[i] = (mmq_part){.struct_size = sizeof *t->parts, .text = texts[i]};
        t->part_list[i] = &t->parts[i];
    }
    t->parts[0].image = f->images[0];
    t->parts[1].image = f->images[1];
    for (size_t i = 0; i < 3; i++) {
        t->messages[i] = (mmq_message){sizeof *t->messages, i == 1 ? "assistant" : "user",
                                       t->part_list + begin[i], begin[i + 1] - begin[i]};
        t->list[i] = &t->messages[i];
    }
    t->prompt = (mmq_prompt){.struct_size = sizeof t->prompt, .messages = t->list, .n_messages = 1};
}

static mmq_result *ask(struct logits *logits, mmq_result_facts *facts, mmq_session *session,
                       const mmq_prompt *prompt)
{
    mmq_generate_request request = {.struct_size = sizeof request,
                                    .prompt = prompt,
                                    .max_new_tokens = 10,
                                    .ignore_eos = 1,
                                    .on_logits = keep_logits,
                                    .logits_user = logits};
    mmq_result *result;

    facts->struct_size = sizeof *facts;
    ASSERT_OK(mmq_generate(&result, session, &request));
    ASSERT_OK(mmq_result_info(facts, result));
    return result;
}

START_TEST(a_second_question_equals_the_whole_conversation_at_once)
{
    struct logits ignored = {0}, continued = {0}, whole = {0};
    mmq_result *one, *two, *three;
    mmq_session *fresh;
    mmq_result_facts facts;
    struct pair f;
    struct talk t;

    open_fixture(&f, 7);
    ASSERT_OK(mmq_session_create(&fresh, f.model, NULL));
    begin_talk(&t, &f);
    one = ask(&ignored, &facts, f.session, &t.prompt);
    ck_assert_int_eq(facts.n_pictures_encoded, 2);
    t.parts[4].text = "The first one is brighter.";
    t.prompt.n_messages = 3;
    two = ask(&continued, &facts, f.session, &t.prompt);
    ck_assert_int_eq(facts.n_pictures_encoded, 0);
    ck_assert_int_gt(facts.n_reused, 12);
    three = ask(&whole, &facts, fresh, &t.prompt);
    ck_assert_int_eq(facts.n_reused, 0);
    same_logits(&continued, &whole);
    ck_assert_str_eq(mmq_result_text(two), mmq_result_text(three));
    mmq_result_free(one);
    mmq_result_free(two);
    mmq_result_free(three);
    mmq_session_free(fresh);
    free(ignored.data);
    free(continued.data);
    free(whole.data);
    close_pair(&f);
}
END_TEST

/* ---- positions ---- */

static void expect_axis(const struct mmqi_tokens *tokens, int axis, const int32_t *want, size_t n)
{
    ck_assert_uint_eq(tokens->n, n);
    for (size_t i = 0; i < n; i++)
        ck_assert_msg(tokens->data[i].position[axis] == want[i], "axis %d of %zu: %d, not %d", axis,
                      i, (int)tokens->data[i].position[axis], (int)want[i]);
}

/* Text, a picture of 2 x 3 rows, two of text, one of 3 x 1, text: computed by transformers. */
START_TEST(positions_are_those_of_the_reference)
{
    static const int32_t time[] = {0, 1, 2, 3, 3, 3, 3, 3, 3, 6, 7, 8, 9, 9, 9, 12, 13, 14};
    static const int32_t row[] = {0, 1, 2, 3, 3, 3, 4, 4, 4, 6, 7, 8, 9, 10, 11, 12, 13, 14};
    static const int32_t column[] = {0, 1, 2, 3, 4, 5, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14};
    const struct mmqi_picture wide = {.across = 3, .down = 2, .rows = 6, .n_runs = 1};
    const struct mmqi_picture tall = {.across = 1, .down = 3, .rows = 3, .n_runs = 1};
    struct mmqi_tokens tokens = {0};

    for (int i = 0; i < 3; i++)
        OK(mmqi_tokens_add(&tokens, 5));
    OK(mmqi_tokens_add_run(&tokens, 9, 0, &wide, 0, NULL, 3));
    for (int i = 0; i < 3; i++)
        OK(mmqi_tokens_add(&tokens, 5));
    OK(mmqi_tokens_add_run(&tokens, 9, 1, &tall, 0, NULL, 3));
    for (int i = 0; i < 3; i++)
        OK(mmqi_tokens_add(&tokens, 5));
    expect_axis(&tokens, 0, time, sizeof time / sizeof *time);
    expect_axis(&tokens, 1, row, sizeof row / sizeof *row);
    expect_axis(&tokens, 2, column, sizeof column / sizeof *column);
    mmqi_tokens_free(&tokens);
}
END_TEST

/* ---- pictures of any size ---- */

static void expect_rows(const struct mmqi_model *model, int32_t width, int32_t height,
                        int32_t across, int32_t down)
{
    struct mmqi_picture picture;
    struct mmqi_view_rows count;

    OK(mmqi_model_measure(&picture, model, width, height));
    ck_assert_int_eq(picture.across, across);
    ck_assert_int_eq(picture.down, down);
    ck_assert_int_eq(picture.rows, across * down);
    ck_assert_int_eq(picture.made_rows, across * down);
    mmqi_view_count(&count, &model->spec, &picture.views.view[0]);
    ck_assert_int_eq(count.patches, 4 * across * down);
    ck_assert_int_eq(picture.views.view[0].width, 16 * across);
}

START_TEST(rows_follow_from_the_size_of_a_picture)
{
    struct checkpoint *c = tiny_checkpoint("qwen2_vl_tiny");
    struct mmqi_model *model = opens(c);
    struct mmqi_picture picture;

    ck_assert_int_eq(model->spec.view_rows, model->spec.image_rows);
    ck_assert_int_eq(model->spec.image_rows,
                     35); /* one square high, sqrt(200 * 1536) pixels wide */
    expect_rows(model, 32, 32, 2, 2);
    expect_rows(model, 40, 24, 2, 2); /* halves to even, then up to the least area */
    expect_rows(model, 200, 100, 3, 1);
    expect_rows(model, 1, 1, 2, 2);
    expect_rows(model, 2, 400, 1, 29);
    expect_rows(model, 10, 1000, 1, 24); /* the shorter side is never below a square */
    ck_assert_int_eq(mmqi_model_measure(&picture, model, 1, 201), MMQ_ERR_LIMIT);
    ck_assert_ptr_nonnull(strstr(mmqi_message(), "1 x 201"));
    for (int32_t w = 1; w <= 400; w += 7)
        for (int32_t h = 1 + w / 200; h <= 200 * w && h <= 400; h += 5)
            OK(mmqi_model_measure(&picture, model, w, h));
    free_checkpoint(c);
}
END_TEST

START_TEST(a_session_refuses_pictures_beyond_its_rows_and_goes_on)
{
    mmq_session_options options = {.struct_size = sizeof options, .image_rows = 4};
    mmq_memory small = {.struct_size = sizeof small}, whole = {.struct_size = sizeof whole};
    struct logits first, other;
    struct pair f;
    mmq_generate_request request = {
        .struct_size = sizeof request, .prompt = &f.prompt, .max_new_tokens = 1};
    mmq_result *result;
    mmq_session *bounded;

    open_fixture(&f, 0);
    ASSERT_OK(mmq_estimate(&small, f.model, &options));
    ASSERT_OK(mmq_estimate(&whole, f.model, NULL));
    ck_assert_uint_lt(small.total, whole.total);
    ASSERT_OK(mmq_session_create(&bounded, f.model, &options));
    ASSERT_FAILS(MMQ_ERR_LIMIT,
                 "picture 1 of 31 x 47 takes 6 rows; the session takes pictures of 4",
                 mmq_generate(&result, bounded, &request));
    ck_assert_int_eq(mmq_session_length(bounded), 0);
    f.list[0] = tiny_picture(30, 30, 5);
    f.prompt.n_images = 1;
    f.prompt.text = "See " MARK;
    first = evaluate(&f);
    mmq_session_free(f.session);
    f.session = bounded;
    other = evaluate(&f);
    same_logits(&first, &other);
    options.image_rows = -1;
    ASSERT_FAILS(MMQ_ERR_INVALID, "pictures of -1 rows",
                 mmq_session_create(&bounded, f.model, &options));
    options.image_rows = 0;
    options.reserved = 1;
    ASSERT_FAILS(MMQ_ERR_INVALID, "reserved", mmq_session_create(&bounded, f.model, &options));
    ASSERT_FAILS(MMQ_ERR_INVALID, "reserved", mmq_estimate(&small, f.model, &options));
    free(first.data);
    free(other.data);
    mmq_image_free((mmq_image *)f.list[0]);
    close_pair(&f);
}
END_TEST

/* So many rows that a token for each would take gigabytes: they are counted, not made. */
static void refuse_many_pictures(struct pair *f)
{
    enum { N = 1000000 };
    const mmq_image **list = malloc(N * sizeof *list);
    mmq_prompt prompt = {.struct_size = sizeof prompt, .text = MARK, .images = list, .n_images = N};
    mmq_generate_request request = {
        .struct_size = sizeof request, .prompt = &prompt, .max_new_tokens = 1};
    mmq_result *result;

    for (int i = 0; i < N; i++)
        list[i] = f->images[1];
    ASSERT_FAILS(MMQ_ERR_CONTEXT_FULL, "1000000 pictures of 6000000 rows, a context of 512",
                 mmq_generate(&result, f->session, &request));
    free(list);
}

START_TEST(prompts_that_do_not_fit_their_pictures_are_refused)
{
    mmq_session_options options = {.struct_size = sizeof options, .context = 5};
    struct pair f;
    mmq_generate_request request = {
        .struct_size = sizeof request, .prompt = &f.prompt, .max_new_tokens = 1};
    mmq_result *result;
    mmq_session *small;
    mmq_image *thin;

    open_fixture(&f, 0);
    thin = tiny_picture(1, 201, 1);
    f.prompt.n_images = 1;
    ASSERT_FAILS(MMQ_ERR_INVALID, "2 '<|image_pad|>' for 1",
                 mmq_generate(&result, f.session, &request));
    f.prompt.text = "no mark";
    ASSERT_FAILS(MMQ_ERR_INVALID, "0 '<|image_pad|>' for 1",
                 mmq_generate(&result, f.session, &request));
    f.prompt.text = MARK;
    f.list[0] = thin;
    ASSERT_FAILS(MMQ_ERR_LIMIT, "1 x 201", mmq_generate(&result, f.session, &request));
    f.list[0] = f.images[1];
    ASSERT_OK(mmq_session_create(&small, f.model, &options));
    ASSERT_FAILS(MMQ_ERR_CONTEXT_FULL, "a picture of 6 rows",
                 mmq_generate(&result, small, &request));
    refuse_many_pictures(&f);
    ASSERT_OK(mmq_generate(&result, f.session, &request));
    mmq_result_free(result);
    mmq_session_free(small);
    mmq_image_free(thin);
    close_pair(&f);
}
END_TEST

/* ---- names and files ---- */

START_TEST(knows_the_names_of_the_hub_and_of_the_modules)
{
    static const char *const names[][2] = {
        {"model.layers.3.self_attn.q_proj.weight", "language.layers.3.attn.q"},
        {"model.language_model.layers.3.self_attn.q_proj.bias", "language.layers.3.attn.q.bias"},
        {"visual.blocks.7.attn.qkv.weight", "vision.blocks.7.attn.qkv"},
        {"model.visual.blocks.7.attn.proj.bias", "vision.blocks.7.attn.o.bias"},
        {"model.visual.merger.mlp.2.weight", "projector.1"},
        {"visual.patch_embed.proj.weight", "vision.patch"},
        {"lm_head.weight", "language.head"},
        {"model.embed_tokens.weight", "language.embed"},
    };
    char name[MMQI_MAX_WEIGHT_NAME];

    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        ck_assert_int_eq(mmqi_canonical_name(name, &mmqi_family_qwen2_vl, names[i][0]),
                         MMQI_NAME_KNOWN);
        ck_assert_str_eq(name, names[i][1]);
    }
}
END_TEST

/* As transformers 5 writes it: text_config, rope_parameters, size, one file for the processor. */
START_TEST(reads_the_layout_of_transformers_5)
{
    struct checkpoint *c = tiny_checkpoint("qwen2_vl_tiny");
    json_t *text = json_deep_copy(c->config), *rope;
    struct mmqi_model *model;

    json_object_del(text, "vision_config");
    json_object_del(text, "architectures");
    rope = json_deep_copy(json_object_get(text, "rope_scaling"));
    json_object_set_new(rope, "rope_theta", json_real(1e6));
    json_object_set_new(rope, "rope_type", json_string("default"));
    json_object_set_new(text, "rope_parameters", rope);
    json_object_del(text, "rope_scaling");
    json_object_del(text, "rope_theta");
    json_object_del(text, "tie_word_embeddings");
    json_object_set_new(text, "model_type", json_string("qwen2_vl_text"));
    json_object_set_new(c->config, "text_config", text);
    {
        static const char *const gone[] = {
            "hidden_size", "vocab_size",          "num_hidden_layers", "rope_scaling",
            "rope_theta",  "num_attention_heads", "rms_norm_eps",      "intermediate_size"};

        for (size_t k = 0; k < sizeof gone / sizeof *gone; k++)
            json_object_del(c->config, gone[k]);
    }
    set(c->preprocessor, "min_pixels", NULL);
    set(c->preprocessor, "max_pixels", NULL);
    set(c->preprocessor, "size", "{\"shortest_edge\": 1024, \"longest_edge\": 1536}");
    set(c->preprocessor, "image_processor_type", "\"Qwen2VLImageProcessorFast\"");
    model = opens(c);
    ck_assert_int_eq(model->spec.hidden, 48);
    ck_assert_int_eq(model->spec.rope_axes, 3);
    ck_assert_int_eq(model->spec.recipe.max_pixels, 1536);
    free_checkpoint(c);
}
END_TEST

struct change {
    const char *key, *value; /* value NULL: without the key */
    int32_t status;
    const char *says;
};

static const struct change config_changes[] = {
    {"use_sliding_window", "true", MMQ_ERR_UNSUPPORTED, "use_sliding_window"},
    {"rope_scaling.type", "\"yarn\"", MMQ_ERR_UNSUPPORTED, "'yarn'"},
    {"rope_scaling.mrope_section", "[1, 3]", MMQ_ERR_FORMAT, "not 3"},
    {"rope_scaling.mrope_section", "[1, 3, 3]", MMQ_ERR_FORMAT, "1 + 3 + 3"},
    {"rope_scaling.mrope_section", "[-1, 5, 2]", MMQ_ERR_FORMAT, "mrope_section.0"},
    {"rope_scaling.mrope_section", "[8192, 8192, 8192]", MMQ_ERR_FORMAT, "8192 + 8192"},
    {"vision_config.hidden_size", "52", MMQ_ERR_FORMAT, "rows of 52, the decoder takes rows of 48"},
    {"hidden_size", "1e9", MMQ_ERR_FORMAT, "hidden_size"},
    {"hidden_size", "\"wide\"", MMQ_ERR_FORMAT, "hidden_size"},
    {"hidden_size", NULL, MMQ_ERR_FORMAT, "heads of 2048"}, /* the class's default */
    {"head_dim", "16", MMQ_ERR_FORMAT, ""},
    {"num_attention_heads", "5", MMQ_ERR_FORMAT, "48 is no multiple of 5"},
    {"num_key_value_heads", "3", MMQ_ERR_FORMAT, "3 key heads"},
    {"num_hidden_layers", "3", MMQ_ERR_MISMATCH, "language.layers.2"},
    {"num_hidden_layers", "1", MMQ_ERR_MISMATCH, "unused"},
    {"num_hidden_layers", "100000", MMQ_ERR_FORMAT, "num_hidden_layers"},
    {"image_token_id", "4000", MMQ_ERR_FORMAT, "4000 is outside the vocabulary"},
    {"image_token_id", "407", MMQ_ERR_FORMAT, "no token of the tokenizer"},
    {"hidden_act", "\"relu\"", MMQ_ERR_UNSUPPORTED, "'relu'"},
    {"tie_word_embeddings", "false", MMQ_ERR_MISMATCH, "language.head"},
    {"vision_config.depth", "3", MMQ_ERR_MISMATCH, "vision.blocks.2"},
    {"vision_config.embed_dim", "26", MMQ_ERR_FORMAT, "multiple of 4"},
    {"vision_config.embed_dim", "32", MMQ_ERR_MISMATCH, "another shape"},
    {"vision_config.embed_dim", "65536", MMQ_ERR_MISMATCH, "another shape"},
    {"vision_config.mlp_ratio", "0", MMQ_ERR_FORMAT, "mlp_ratio"},
    {"vision_config.in_chans", "1", MMQ_ERR_UNSUPPORTED, "in_channels 1"},
    {"vision_config.patch_size", "16", MMQ_ERR_FORMAT, "the tower takes 16"},
    {"vision_config.patch_size", "[8, 8]", MMQ_ERR_FORMAT, "patch_size"},
    {"vision_config.spatial_merge_size", "4", MMQ_ERR_FORMAT, "in squares of 2"},
    {"vision_config.spatial_merge_size", "17", MMQ_ERR_FORMAT, "spatial_merge_size"},
    {"vision_config.temporal_patch_size", "1", MMQ_ERR_FORMAT, "2 frames"},
    {"architectures", "[\"Qwen2VLModel\"]", MMQ_ERR_UNSUPPORTED, "Qwen2VLModel"},
};

START_TEST(refuses_settings_that_do_not_fit)
{
    const struct change *change = &config_changes[_i];
    struct checkpoint *c = tiny_checkpoint("qwen2_vl_tiny");

    set(c->config, change->key, change->value);
    fails(c, change->status, change->says);
}
END_TEST

static const struct change processor_changes[] = {
    {"image_processor_type", "\"CLIPImageProcessor\"", MMQ_ERR_UNSUPPORTED, "CLIPImageProcessor"},
    {"size", "{\"shortest_edge\": 1024}", MMQ_ERR_FORMAT, "size.longest_edge"},
    {"size", "{\"height\": 32, \"width\": 32}", MMQ_ERR_FORMAT, "gives no areas"},
    {"size", "32", MMQ_ERR_FORMAT, "gives no areas"},
    {"min_pixels", "0", MMQ_ERR_FORMAT, "min_pixels"},
    {"max_pixels", "1e30", MMQ_ERR_FORMAT, "max_pixels"},
    {"max_pixels", "-5", MMQ_ERR_FORMAT, "max_pixels"},
    {"do_center_crop", "true", MMQ_ERR_UNSUPPORTED, "do_center_crop"},
    {"merge_size", "1", MMQ_ERR_FORMAT, "in squares of 1"},
    {"resample", "9", MMQ_ERR_FORMAT, "resample"},
};

START_TEST(refuses_preprocessing_that_does_not_fit)
{
    const struct change *change = &processor_changes[_i];
    struct checkpoint *c = tiny_checkpoint("qwen2_vl_tiny");

    set(c->preprocessor, change->key, change->value);
    fails(c, change->status, change->says);
}
END_TEST

START_TEST(accounts_for_tensors_both_ways)
{
    struct checkpoint *c = tiny_checkpoint("qwen2_vl_tiny");

    drop_tensor(c, "visual.merger.ln_q.bias");
    fails(c, MMQ_ERR_MISMATCH, "1 missing (projector.norm.bias)");
    c = tiny_checkpoint("qwen2_vl_tiny");
    drop_tensor(c, "visual.blocks.1.attn.qkv.weight");
    fails(c, MMQ_ERR_MISMATCH, "1 missing (vision.blocks.1.attn.qkv)");
    c = tiny_checkpoint("qwen2_vl_tiny");
    add_tensor(c, "visual.patch_embed.proj.bias", "BF16", json_pack("[i]", 24), NULL, 48);
    fails(c, MMQ_ERR_MISMATCH, "1 unused ('visual.patch_embed.proj.bias')");
    c = tiny_checkpoint("qwen2_vl_tiny");
    json_decref(find_tensor(c, "visual.blocks.0.attn.qkv.weight")->shape);
    find_tensor(c, "visual.blocks.0.attn.qkv.weight")->shape = json_pack("[i, i]", 24, 72);
    fails(c, MMQ_ERR_MISMATCH, "[24, 72], not float [72, 24]");
    c = tiny_checkpoint("qwen2_vl_tiny");
    json_decref(find_tensor(c, "visual.patch_embed.proj.weight")->shape);
    find_tensor(c, "visual.patch_embed.proj.weight")->shape = json_pack("[i, i]", 24, 384);
    fails(c, MMQ_ERR_MISMATCH, "[24, 384], not float [24, 3, 2, 8, 8]");
}
END_TEST

/* Absent keys are the class's defaults: here they are what the file says anyway. */
START_TEST(absent_keys_are_class_defaults)
{
    static const char *const vision[] = {"in_chans", "spatial_merge_size", "temporal_patch_size"};
    struct checkpoint *c = tiny_checkpoint("qwen2_vl_tiny");
    struct mmqi_model *model;

    for (size_t i = 0; i < sizeof vision / sizeof *vision; i++)
        set(json_object_get(c->config, "vision_config"), vision[i], NULL);
    set(c->config, "rope_theta", NULL);
    set(c->preprocessor, "merge_size", NULL);
    set(c->preprocessor, "temporal_patch_size", NULL);
    set(c->preprocessor, "image_processor_type", NULL);
    set(c->preprocessor, "min_pixels", NULL);
    set(c->preprocessor, "max_pixels", NULL);
    model = opens(c);
    ck_assert_int_eq(model->spec.merge, 2);
    ck_assert_int_eq(model->spec.recipe.min_pixels, 56 * 56);
    ck_assert_int_eq(model->spec.recipe.max_pixels, 28 * 28 * 1280);
    free_checkpoint(c);
}
END_TEST

/* ---- packed weights ---- */

START_TEST(runs_from_a_packed_folder_as_when_packed_in_memory)
{
    mmq_quantize_options options = {.struct_size = sizeof options, .out_path = "packed"};
    mmq_load_options load = {.struct_size = sizeof load};
    struct logits first, other;
    struct pair f;

    options.format = load.quantize = _i ? "int8" : "nf4";
    open_fixture(&f, 0);
    ASSERT_OK(mmq_quantize_layerwise(NULL, f.model, &options, NULL));
    mmq_session_free(f.session);
    mmq_model_free(f.model);
    ASSERT_OK(mmq_load(&f.model, "packed", NULL));
    ASSERT_OK(mmq_session_create(&f.session, f.model, NULL));
    first = evaluate(&f);
    mmq_session_free(f.session);
    mmq_model_free(f.model);
    ASSERT_OK(mmq_load(&f.model, source_path(CASE "/model"), &load));
    ASSERT_OK(mmq_session_create(&f.session, f.model, NULL));
    other = evaluate(&f);
    same_logits(&first, &other);
    free(first.data);
    free(other.data);
    close_pair(&f);
}
END_TEST

#define COUNT(array) (int)(sizeof(array) / sizeof *(array))

int main(void)
{
    Suite *suite = suite_create("qwen2_vl");
    TCase *tests = tcase_create("runs"), *files = tcase_create("files");
    SRunner *runner = srunner_create(suite);
    int failed;

    tcase_set_timeout(tests, 60);
    tcase_add_checked_fixture(tests, scratch_enter, scratch_leave);
    tcase_add_test(tests, logits_are_bit_equal_for_every_chunk_size);
    tcase_add_test(tests, truncation_anywhere_changes_no_bit);
    tcase_add_test(tests, decoding_goes_on_where_the_prompt_ended);
    tcase_add_test(tests, a_second_question_equals_the_whole_conversation_at_once);
    tcase_add_test(tests, positions_are_those_of_the_reference);
    tcase_add_test(tests, rows_follow_from_the_size_of_a_picture);
    tcase_add_test(tests, a_session_refuses_pictures_beyond_its_rows_and_goes_on);
    tcase_add_test(tests, prompts_that_do_not_fit_their_pictures_are_refused);
    tcase_add_loop_test(tests, runs_from_a_packed_folder_as_when_packed_in_memory, 0, 2);
    suite_add_tcase(suite, tests);
    tcase_add_test(files, knows_the_names_of_the_hub_and_of_the_modules);
    tcase_add_test(files, reads_the_layout_of_transformers_5);
    tcase_add_test(files, absent_keys_are_class_defaults);
    tcase_add_test(files, accounts_for_tensors_both_ways);
    tcase_add_loop_test(files, refuses_settings_that_do_not_fit, 0, COUNT(config_changes));
    tcase_add_loop_test(files, refuses_preprocessing_that_does_not_fit, 0,
                        COUNT(processor_changes));
    suite_add_tcase(suite, files);
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? 1 : 0;
}
