/*
 * What a model says of files that do not fit: every case is the committed
 * tiny checkpoint, read into memory, with one thing changed.
 */
#include <check.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/mem.h"
#include "core/status.h"
#include "core/thread.h"
#include "meter.h"
#include "model/checkpoint.h"
#include "scratch.h"
#include "support.h"

#define DECODER "language_model.model.layers.1."
#define TOWER "vision_tower.vision_model."

/* ---- tensors ---- */

START_TEST(opens_the_unchanged_checkpoint)
{
    struct checkpoint *c = tiny_checkpoint("llava_tiny");
    struct mmqi_model *model = opens(c);

    ck_assert_int_eq(model->spec.image_token, 449);
    ck_assert_int_eq(model->spec.image_rows, 9);
    free_checkpoint(c);
}
END_TEST

START_TEST(names_missing_tensors)
{
    struct checkpoint *c = tiny_checkpoint("llava_tiny");

    drop_tensor(c, "language_model.model.norm.weight");
    drop_tensor(c, TOWER "embeddings.patch_embedding.weight");
    fails(c, MMQ_ERR_MISMATCH,
          "tensors do not make a llava; 2 missing (vision.patch, language.norm)");
}
END_TEST

START_TEST(names_unused_tensors)
{
    struct checkpoint *c = tiny_checkpoint("llava_tiny");

    add_tensor(c, DECODER "self_attn.q_norm.weight", "F32", json_pack("[i]", 2), NULL, 8);
    fails(c, MMQ_ERR_MISMATCH, "; 1 unused ('" DECODER "self_attn.q_norm.weight')");
}
END_TEST

START_TEST(a_layer_too_many_is_unused)
{
    struct checkpoint *c = tiny_checkpoint("llava_tiny");

    set(c->config, "text_config.num_hidden_layers", "2");
    fails(c, MMQ_ERR_MISMATCH,
          "; 9 unused ('language_model.model.layers.2.input_layernorm.weight', ");
}
END_TEST

START_TEST(names_tensors_of_another_shape)
{
    struct checkpoint *c = tiny_checkpoint("llava_tiny");
    struct tensor *t = find_tensor(c, DECODER "mlp.down_proj.weight");

    json_decref(t->shape);
    t->shape = json_pack("[i, i]", 112, 96);
    fails(c, MMQ_ERR_MISMATCH,
          "; 1 of another shape or type ('" DECODER
          "mlp.down_proj.weight' BF16 [112, 96], not float [96, 112])");
}
END_TEST

START_TEST(a_shape_of_the_same_numbers_in_another_order_is_another)
{
    struct checkpoint *c = tiny_checkpoint("llava_tiny");
    struct tensor *t = find_tensor(c, TOWER "embeddings.patch_embedding.weight");

    json_decref(t->shape);
    t->shape = json_pack("[i, i, i, i]", 48, 14, 14, 3);
    fails(c, MMQ_ERR_MISMATCH, "BF16 [48, 14, 14, 3], not float [48, 3, 14, 14])");
    c = tiny_checkpoint("llava_tiny");
    t = find_tensor(c, DECODER "mlp.up_proj.weight");
    json_decref(t->shape);
    t->shape = json_pack("[i, i, i]", 112, 96, 1);
    fails(c, MMQ_ERR_MISMATCH, "BF16 [112, 96, 1], not float [112, 96])");
}
END_TEST

START_TEST(names_tensors_of_another_type)
{
    struct checkpoint *c = tiny_checkpoint("llava_tiny");

    strcpy(find_tensor(c, "language_model.model.norm.weight")->dtype, "I16");
    fails(c, MMQ_ERR_MISMATCH, "('language_model.model.norm.weight' I16 [96], not float [96])");
    c = tiny_checkpoint("llava_tiny");
    strcpy(find_tensor(c, DECODER "mlp.up_proj.weight")->dtype, "I16");
    fails(c, MMQ_ERR_UNSUPPORTED, "'" DECODER "mlp.up_proj.weight' is of type I16");
}
END_TEST

START_TEST(tells_all_kinds_of_faults_in_one_message)
{
    struct checkpoint *c = tiny_checkpoint("llava_tiny");

    rename_tensors(c, "multi_modal_projector.linear_1.", "multi_modal_projector.linear_3.");
    strcpy(find_tensor(c, "language_model.model.norm.weight")->dtype, "I16");
    make_store(c);
    ck_assert_int_eq(mmqi_model_open(&c->model, c->store), MMQ_ERR_MISMATCH);
    ck_assert_ptr_nonnull(strstr(mmqi_message(), "2 missing (projector.0, projector.0.bias)"));
    ck_assert_ptr_nonnull(strstr(mmqi_message(), "2 unused ('multi_modal_projector.linear_3.bias"));
    ck_assert_ptr_nonnull(strstr(mmqi_message(), "1 of another shape or type ("));
    free_checkpoint(c);
}
END_TEST

START_TEST(the_message_holds_whatever_the_names)
{
    struct checkpoint *c = tiny_checkpoint("llava_tiny");
    char name[1025];

    memset(name, 'n', sizeof name - 1);
    name[sizeof name - 1] = '\0';
    for (int i = 0; i < 40; i++) {
        name[0] = (char)('A' + i);
        add_tensor(c, name, "F32", json_pack("[i]", 1), NULL, 4);
    }
    drop_tensors(c, "language_model.");
    strcpy(find_tensor(c, TOWER "pre_layrnorm.weight")->dtype, "I16");
    make_store(c);
    ck_assert_int_eq(mmqi_model_open(&c->model, c->store), MMQ_ERR_MISMATCH);
    ck_assert_ptr_nonnull(strstr(mmqi_message(), "; 30 missing (language.embed"));
    ck_assert_ptr_nonnull(strstr(mmqi_message(), "; 40 unused ('Annn"));
    ck_assert_ptr_nonnull(strstr(mmqi_message(), "I16 [48], not float [48])"));
    free_checkpoint(c);
}
END_TEST

START_TEST(two_spellings_of_one_tensor_leave_one_unused)
{
    struct checkpoint *c = tiny_checkpoint("llava_tiny");

    add_tensor(c, "vision_tower.pre_layrnorm.bias", "F32", json_pack("[i]", 48), NULL, 192);
    fails(c, MMQ_ERR_MISMATCH, "; 1 unused ('vision_tower.vision_model.pre_layrnorm.bias')");
}
END_TEST

START_TEST(parts_that_never_run_may_be_absent)
{
    struct checkpoint *c = tiny_checkpoint("llava_tiny");
    struct mmqi_model *model;

    drop_tensors(c, TOWER "encoder.layers.2.");
    drop_tensors(c, TOWER "post_layernorm.");
    model = opens(c);
    ck_assert_int_eq(mmqi_model_find(model, "vision.blocks.2.attn.q"), -1);
    ck_assert_int_eq(mmqi_model_find(model, "vision.post_norm"), -1);
    ck_assert_int_ge(mmqi_model_find(model, "vision.blocks.1.attn.q"), 0);
    free_checkpoint(c);
}
END_TEST

START_TEST(a_part_that_never_runs_must_fit_all_the_same)
{
    struct checkpoint *c = tiny_checkpoint("llava_tiny");
    struct tensor *t = find_tensor(c, TOWER "encoder.layers.2.mlp.fc1.weight");

    json_decref(t->shape);
    t->shape = json_pack("[i, i]", 48, 100);
    fails(c, MMQ_ERR_MISMATCH, "mlp.fc1.weight' BF16 [48, 100], not float [100, 48])");
}
END_TEST

START_TEST(buffers_that_are_no_weights_are_passed_over)
{
    struct checkpoint *c = tiny_checkpoint("llava_tiny");

    add_tensor(c, TOWER "embeddings.position_ids", "I64", json_pack("[i, i]", 1, 10), NULL, 80);
    add_tensor(c, DECODER "self_attn.rotary_emb.inv_freq", "F32", json_pack("[i]", 8), NULL, 32);
    opens(c);
    free_checkpoint(c);
}
END_TEST

START_TEST(the_modules_own_names_open_too)
{
    struct checkpoint *c = tiny_checkpoint("llava_tiny");

    rename_tensors(c, "language_model.model.", "model.language_model.");
    rename_tensors(c, "language_model.lm_head.", "lm_head.");
    rename_tensors(c, "multi_modal_projector.", "model.multi_modal_projector.");
    rename_tensors(c, "vision_tower.", "model.vision_tower.");
    opens(c);
    free_checkpoint(c);
    c = tiny_checkpoint("llava_tiny");
    rename_tensors(c, TOWER, "model.vision_tower.");
    opens(c);
    free_checkpoint(c);
}
END_TEST

START_TEST(numbers_in_names_are_plain_decimals)
{
    struct checkpoint *c = tiny_checkpoint("llava_tiny");

    rename_tensors(c, DECODER "input_layernorm", "language_model.model.layers.01.input_layernorm");
    fails(c, MMQ_ERR_MISMATCH, "1 missing (language.layers.1.norm1); 1 unused");
    c = tiny_checkpoint("llava_tiny");
    rename_tensors(c, DECODER "input_layernorm",
                   "language_model.model.layers.4294967297.input_layernorm");
    fails(c, MMQ_ERR_MISMATCH, "1 missing (language.layers.1.norm1); 1 unused");
}
END_TEST

/* ---- the tied head ---- */

static void expect_head(struct checkpoint *c, bool tied)
{
    struct mmqi_model *model = opens(c);
    int32_t head = mmqi_model_find(model, "language.head");
    int32_t embed = mmqi_model_find(model, "language.embed");

    ck_assert_int_eq(model->weights[head].same_as, tied ? embed : -1);
    ck_assert(tied == (model->weights[head].entry[0] == NULL));
    free_checkpoint(c);
}

START_TEST(a_tied_head_is_the_embedding)
{
    struct checkpoint *c = tiny_checkpoint("llava_tiny");

    set(c->config, "tie_word_embeddings", "true");
    drop_tensor(c, "language_model.lm_head.weight");
    expect_head(c, true);
    c = tiny_checkpoint("llava_tiny"); /* a copy that is stored is passed over */
    set(c->config, "tie_word_embeddings", "true");
    expect_head(c, true);
    c = tiny_checkpoint("llava_tiny");
    set(c->config, "tie_word_embeddings", NULL);
    set(c->config, "text_config.tie_word_embeddings", "true");
    expect_head(c, true);
}
END_TEST

START_TEST(where_settings_disagree_the_file_decides)
{
    struct checkpoint *c = tiny_checkpoint("llava_tiny");

    set(c->config, "text_config.tie_word_embeddings", "true");
    expect_head(c, false);
    c = tiny_checkpoint("llava_tiny");
    set(c->config, "text_config.tie_word_embeddings", "true");
    drop_tensor(c, "language_model.lm_head.weight");
    expect_head(c, true);
}
END_TEST

START_TEST(an_untied_head_is_needed)
{
    struct checkpoint *c = tiny_checkpoint("llava_tiny");

    drop_tensor(c, "language_model.lm_head.weight");
    fails(c, MMQ_ERR_MISMATCH, "1 missing (language.head)");
}
END_TEST

/* ---- packed matrices ---- */

/* One projection as LLM.int8 stores it: codes 1, -2, 3 ... and one scale per row. */
static void store_int8(struct checkpoint *c, float scale)
{
    const char *name = DECODER "self_attn.k_proj.weight";
    int8_t codes[32 * 96];
    float scales[32];

    drop_tensor(c, name);
    for (int i = 0; i < 32 * 96; i++)
        codes[i] = (int8_t)(i % 2 ? -(i % 127) : i % 127);
    for (int i = 0; i < 32; i++)
        scales[i] = scale;
    add_tensor(c, name, "I8", json_pack("[i, i]", 32, 96), codes, sizeof codes);
    add_tensor(c, DECODER "self_attn.k_proj.SCB", "F32", json_pack("[i]", 32), scales,
               sizeof scales);
}

/* The same projection as int4 in groups of 96 / 32, with one scale and zero point everywhere. */
static void store_int4(struct checkpoint *c, const char *type, uint16_t scale, uint8_t zero)
{
    static const char name[] = DECODER "self_attn.k_proj.weight";
    static const int64_t shape[3] = {32, 96, 32};
    uint8_t codes[32 * 48], zeros[32 * 3];
    uint16_t scales[32 * 3];

    memset(codes, 0x1f, sizeof codes);
    memset(zeros, zero, sizeof zeros);
    for (size_t i = 0; i < sizeof scales / sizeof *scales; i++)
        scales[i] = scale;
    drop_tensor(c, name);
    add_tensor(c, DECODER "self_attn.k_proj.weight_packed", "U8", json_pack("[i, i]", 32, 48),
               codes, sizeof codes);
    add_tensor(c, DECODER "self_attn.k_proj.weight_scale", type, json_pack("[i, i]", 32, 3), scales,
               sizeof scales);
    add_tensor(c, DECODER "self_attn.k_proj.weight_zero_point", "U8", json_pack("[i, i]", 32, 3),
               zeros, sizeof zeros);
    add_tensor(c, DECODER "self_attn.k_proj.weight_shape", "I64", json_pack("[i]", 3), shape,
               sizeof shape);
}

static int32_t place_on_cpu(struct mmqi_model *model)
{
    struct mmqi_device_options options = {0};
    struct mmqi_place place = {&mmqi_cpu_backend, NULL};
    int32_t status;

    OK(mmqi_pool_create(&options.pool, 1));
    OK(mmqi_cpu_backend.open(&place.device, &options));
    status = mmqi_model_place(model, &place, NULL, NULL);
    mmqi_model_unplace(model);
    mmqi_cpu_backend.close(place.device);
    mmqi_pool_free(options.pool);
    return status;
}

START_TEST(a_matrix_stored_as_int8_is_read_as_such)
{
    struct checkpoint *c = tiny_checkpoint("llava_tiny");
    struct mmqi_model *model;
    float rows[2 * 96];
    int32_t w;

    store_int8(c, 127.0f);
    model = opens(c);
    w = mmqi_model_find(model, "language.layers.1.attn.k");
    ck_assert_int_eq(model->weights[w].format, MMQI_FORMAT_INT8);
    ck_assert_ptr_nonnull(model->weights[w].entry[1]);
    OK(mmqi_model_read_rows(model, w, 3, 5, rows));
    for (int i = 0; i < 2 * 96; i++) {
        int at = 3 * 96 + i;

        ck_assert(fabsf(rows[i] - (float)(at % 2 ? -(at % 127) : at % 127)) < 1e-4f);
    }
    ck_assert_int_eq(place_on_cpu(model), MMQ_OK);
    free_checkpoint(c);
}
END_TEST

START_TEST(a_scale_that_is_not_finite_is_not_placed)
{
    struct checkpoint *c = tiny_checkpoint("llava_tiny");
    struct mmqi_model *model;

    store_int8(c, INFINITY);
    model = opens(c);
    ck_assert_int_eq(place_on_cpu(model), MMQ_ERR_FORMAT);
    ck_assert_ptr_nonnull(
        strstr(mmqi_message(), "a scale of 'language.layers.1.attn.k' is not finite"));
    free_checkpoint(c);
}
END_TEST

/* `text` NULL: it is placed. */
static void places_int4(const char *type, uint16_t scale, uint8_t zero, const char *text)
{
    struct checkpoint *c = tiny_checkpoint("llava_tiny");
    struct mmqi_model *model;
    int32_t status;

    store_int4(c, type, scale, zero);
    model = opens(c);
    status = place_on_cpu(model);
    ck_assert_msg(status == (text ? MMQ_ERR_FORMAT : MMQ_OK), "%s %04x %d: %d: %s", type, scale,
                  zero, (int)status, mmqi_message());
    ck_assert(!text || strstr(mmqi_message(), text));
    free_checkpoint(c);
}

START_TEST(int4_of_scales_that_overflow_or_zero_points_beyond_15_is_not_placed)
{
    places_int4("F16", 0x7bff, 15, NULL);
    places_int4("F16", 0x7c00, 0, "a scale of 'language.layers.1.attn.k' is not finite");
    places_int4("BF16", 0x7d88, 15, NULL); /* the greatest that packing makes */
    places_int4("BF16", 0x7e00, 0, "a scale of 'language.layers.1.attn.k' is not finite");
    places_int4("F16", 0x3c00, 16, "a zero point of 'language.layers.1.attn.k' is 16");
    places_int4("BF16", 0x3f80, 255, "is 255, beyond 15");
}
END_TEST

START_TEST(a_packed_matrix_without_its_scales_is_refused)
{
    struct checkpoint *c = tiny_checkpoint("llava_tiny");

    store_int8(c, 1.0f);
    drop_tensor(c, DECODER "self_attn.k_proj.SCB");
    fails(c, MMQ_ERR_FORMAT, DECODER "self_attn.k_proj");
}
END_TEST

/* ---- settings ---- */

static const struct {
    const char *key, *value;
    int32_t status;
    const char *text;
} absurd[] = {
    {"text_config.hidden_size", "0", MMQ_ERR_FORMAT, "text_config.hidden_size"},
    {"text_config.hidden_size", "-96", MMQ_ERR_FORMAT, "text_config.hidden_size"},
    {"text_config.hidden_size", "65537", MMQ_ERR_FORMAT, "text_config.hidden_size"},
    {"text_config.hidden_size", "\"96\"", MMQ_ERR_FORMAT, "text_config.hidden_size"},
    {"text_config.hidden_size", "95", MMQ_ERR_FORMAT, "hidden_size 95 is no multiple of 6"},
    {"text_config.num_hidden_layers", "513", MMQ_ERR_FORMAT, "text_config.num_hidden_layers"},
    {"text_config.num_hidden_layers", "1e3", MMQ_ERR_FORMAT, "text_config.num_hidden_layers"},
    {"text_config.num_attention_heads", "0", MMQ_ERR_FORMAT, "text_config.num_attention_heads"},
    {"text_config.num_key_value_heads", "4", MMQ_ERR_FORMAT, "6 heads cannot share 4 key heads"},
    {"text_config.head_dim", "15", MMQ_ERR_FORMAT, "heads of an odd width, 15"},
    {"text_config.vocab_size", "4294967297", MMQ_ERR_FORMAT, "text_config.vocab_size"},
    {"text_config.vocab_size", "16777217", MMQ_ERR_FORMAT, "text_config.vocab_size"},
    {"text_config.rms_norm_eps", "0", MMQ_ERR_FORMAT, "text_config.rms_norm_eps"},
    {"text_config.rms_norm_eps", "-1e-5", MMQ_ERR_FORMAT, "text_config.rms_norm_eps"},
    {"text_config.rope_theta", "0", MMQ_ERR_FORMAT, "text_config.rope_theta"},
    {"text_config.max_position_embeddings", "0", MMQ_ERR_FORMAT, "max_position_embeddings"},
    {"text_config.model_type", "\"gemma\"", MMQ_ERR_UNSUPPORTED, "text_config.model_type 'gemma'"},
    {"text_config.model_type", "\"mistral\"", MMQ_ERR_UNSUPPORTED,
     "text_config.sliding_window is not null"},
    {"text_config.hidden_act", "\"relu6\"", MMQ_ERR_UNSUPPORTED, "text_config.hidden_act 'relu6'"},
    {"text_config.rope_scaling", "{\"type\": \"linear\", \"factor\": 2.0}", MMQ_ERR_UNSUPPORTED,
     "text_config.rope_scaling.type 'linear'"},
    {"text_config.rope_parameters", "{\"rope_type\": \"llama3\"}", MMQ_ERR_UNSUPPORTED,
     "text_config.rope_parameters.rope_type 'llama3'"},
    {"text_config.attention_bias", "true", MMQ_ERR_MISMATCH,
     "12 missing (language.layers.0.attn.q.bias"},
    {"text_config.mlp_bias", "true", MMQ_ERR_MISMATCH,
     "9 missing (language.layers.0.mlp.gate.bias"},
    {"vision_config.hidden_size", "47", MMQ_ERR_FORMAT, "hidden_size 47 is no multiple of 3"},
    {"vision_config.num_channels", "1", MMQ_ERR_UNSUPPORTED, "vision_config.num_channels 1"},
    {"vision_config.patch_size", "0", MMQ_ERR_FORMAT, "vision_config.patch_size"},
    {"vision_config.patch_size", "13", MMQ_ERR_UNSUPPORTED,
     "image_size 42 is no multiple of patch_size 13"},
    {"vision_config.image_size", "8193", MMQ_ERR_FORMAT, "vision_config.image_size"},
    {"vision_config.image_size", "56", MMQ_ERR_UNSUPPORTED,
     "pictures become 42 x 42 pixels (0: any size), the tower takes 56 x 56"},
    {"vision_config.hidden_act", "\"gelu\"", MMQ_OK, ""},
    {"vision_config.num_hidden_layers", "600", MMQ_ERR_FORMAT, "vision_config.num_hidden_layers"},
    {"vision_feature_layer", "4", MMQ_ERR_FORMAT, "vision_feature_layer"},
    {"vision_feature_layer", "-5", MMQ_ERR_FORMAT, "vision_feature_layer"},
    {"vision_feature_layer", "[-2, -1]", MMQ_ERR_UNSUPPORTED, "vision_feature_layer lists 2"},
    {"vision_feature_layer", "[]", MMQ_ERR_UNSUPPORTED, "vision_feature_layer lists 0"},
    {"vision_feature_select_strategy", "\"cls\"", MMQ_ERR_UNSUPPORTED,
     "vision_feature_select_strategy 'cls'"},
    {"multimodal_projector_bias", "false", MMQ_ERR_MISMATCH,
     "2 unused ('multi_modal_projector.linear_1.bias'"},
    {"multimodal_projector_bias", "1", MMQ_ERR_FORMAT, "multimodal_projector_bias"},
    {"projector_hidden_act", "\"tanh\"", MMQ_ERR_UNSUPPORTED, "projector_hidden_act 'tanh'"},
    {"image_token_index", "456", MMQ_ERR_FORMAT, "image token 456 is outside the vocabulary"},
    {"image_token_index", "455", MMQ_ERR_FORMAT, "image token 455 is no token of the tokenizer"},
    {"image_token_index", "-1", MMQ_ERR_FORMAT, "image_token_index"},
};

START_TEST(settings_out_of_bounds_are_refused_by_name)
{
    struct checkpoint *c = tiny_checkpoint("llava_tiny");

    set(c->config, absurd[_i].key, absurd[_i].value);
    if (absurd[_i].status != MMQ_OK) {
        fails(c, absurd[_i].status, absurd[_i].text);
        return;
    }
    opens(c);
    free_checkpoint(c);
}
END_TEST

START_TEST(layers_may_be_counted_from_either_end)
{
    static const char *const same[] = {"2", "-2", "[-2]", "[2]"};

    for (size_t i = 0; i < sizeof same / sizeof *same; i++) {
        struct checkpoint *c = tiny_checkpoint("llava_tiny");
        struct mmqi_model *model;

        set(c->config, "vision_feature_layer", same[i]);
        model = opens(c);
        ck_assert_int_eq(mmqi_graph_n_segments(model->vision), 4); /* embed, 2 blocks, projector */
        free_checkpoint(c);
    }
}
END_TEST

START_TEST(full_keeps_the_class_row)
{
    struct checkpoint *c = tiny_checkpoint("llava_tiny");
    struct mmqi_picture picture;
    struct mmqi_view_rows count;
    struct mmqi_model *model;

    set(c->config, "vision_feature_select_strategy", "\"full\"");
    set(c->config, "vision_feature_layer", "-1");
    model = opens(c);
    ck_assert_int_eq(model->spec.image_rows, 10);
    ck_assert_int_eq(mmqi_model_measure(&picture, model, 31, 400), MMQ_OK);
    mmqi_view_count(&count, &model->spec, &picture.views.view[0]);
    ck_assert_int_eq(count.patches, 9);
    ck_assert_int_eq(picture.rows, 10);
    ck_assert_uint_eq(model->weights[mmqi_model_find(model, "vision.blocks.2.attn.q")].flags, 0);
    free_checkpoint(c);
}
END_TEST

START_TEST(end_tokens_may_be_a_list)
{
    struct checkpoint *c = tiny_checkpoint("llava_tiny");
    struct mmqi_model *model;

    set(c->generation, "eos_token_id", "[2, 7, 11]");
    model = opens(c);
    ck_assert_int_eq(model->spec.n_eos, 3);
    ck_assert_int_eq(model->spec.eos[2], 11);
    free_checkpoint(c);
    c = tiny_checkpoint("llava_tiny");
    json_decref(c->generation);
    c->generation = NULL;
    set(c->config, "text_config.eos_token_id", "9");
    model = opens(c);
    ck_assert_int_eq(model->spec.n_eos, 1);
    ck_assert_int_eq(model->spec.eos[0], 9);
    ck_assert_int_eq(model->spec.bos, 1); /* LlamaConfig's default */
    free_checkpoint(c);
    c = tiny_checkpoint("llava_tiny");
    set(c->generation, "eos_token_id", "[1, 2, 3, 4, 5, 6, 7, 8, 9]");
    fails(c, MMQ_ERR_LIMIT, "eos_token_id lists 9 ids");
    c = tiny_checkpoint("llava_tiny");
    set(c->generation, "eos_token_id", "[2, -1]");
    fails(c, MMQ_ERR_FORMAT, "eos_token_id.1");
}
END_TEST

/* ---- families and files ---- */

START_TEST(an_unknown_family_is_named)
{
    struct checkpoint *c = tiny_checkpoint("llava_tiny");

    set(c->config, "architectures", "[\"GPT9ForCausalLM\"]");
    set(c->config, "model_type", "\"gpt9\"");
    fails(c, MMQ_ERR_UNSUPPORTED, "architectures 'GPT9ForCausalLM', model_type 'gpt9'");
    c = tiny_checkpoint("llava_tiny");
    set(c->config, "vision_config.model_type", "\"pixtral\"");
    fails(c, MMQ_ERR_UNSUPPORTED, "model_type 'llava', vision 'pixtral'");
    c = tiny_checkpoint("llava_tiny");
    json_object_clear(c->config);
    fails(c, MMQ_ERR_UNSUPPORTED, "architectures '', model_type ''");
    c = tiny_checkpoint("llava_tiny");
    set(c->config, "architectures", "[7]");
    fails(c, MMQ_ERR_FORMAT, "architectures.0");
    c = tiny_checkpoint("llava_tiny");
    set(c->config, "architectures", "[\"LlavaMptForCausalLM\"]"); /* of LLaVA's authors, too */
    fails(c, MMQ_ERR_UNSUPPORTED, "'LlavaMptForCausalLM'");
}
END_TEST

START_TEST(absent_architectures_leave_the_model_type)
{
    struct checkpoint *c = tiny_checkpoint("llava_tiny");

    set(c->config, "architectures", NULL);
    opens(c);
    free_checkpoint(c);
}
END_TEST

START_TEST(missing_files_are_named)
{
    struct checkpoint *c = tiny_checkpoint("llava_tiny");

    json_decref(c->config);
    c->config = NULL;
    fails(c, MMQ_ERR_NOT_FOUND, "config.json");
    c = tiny_checkpoint("llava_tiny");
    free(c->tokenizer);
    c->tokenizer = NULL;
    fails(c, MMQ_ERR_NOT_FOUND, "tokenizer.json");
    c = tiny_checkpoint("llava_tiny");
    json_decref(c->preprocessor);
    c->preprocessor = NULL;
    fails(c, MMQ_ERR_NOT_FOUND, "preprocessor_config.json");
}
END_TEST

START_TEST(another_image_processor_is_named)
{
    struct checkpoint *c = tiny_checkpoint("llava_tiny");

    set(c->preprocessor, "image_processor_type", "\"PixtralImageProcessor\"");
    fails(c, MMQ_ERR_UNSUPPORTED, "image_processor_type 'PixtralImageProcessor'");
    c = tiny_checkpoint("llava_tiny");
    set(c->preprocessor, "do_pad", "true");
    fails(c, MMQ_ERR_UNSUPPORTED, "do_pad");
    c = tiny_checkpoint("llava_tiny");
    set(c->preprocessor, "do_center_crop", "false");
    fails(c, MMQ_ERR_UNSUPPORTED, "pictures become 0 x 0 pixels");
}
END_TEST

START_TEST(llavas_own_processor_may_pad)
{
    struct checkpoint *c = tiny_checkpoint("llava_tiny");

    set(c->preprocessor, "image_processor_type", "\"LlavaImageProcessorFast\"");
    set(c->preprocessor, "do_pad", "true");
    ck_assert_int_eq(opens(c)->spec.recipe.kind, MMQI_RECIPE_PAD);
    ck_assert(c->model->spec.recipe.do_pad);
    free_checkpoint(c);
}
END_TEST

static void set_template(struct checkpoint *c, const char *text)
{
    json_t *root = json_pack("{s:s}", "chat_template", text);

    free(c->template);
    c->template = json_dumps(root, 0);
    c->template_size = strlen(c->template);
    json_decref(root);
}

START_TEST(a_template_that_does_not_run_keeps_no_model_from_opening)
{
    struct checkpoint *c = tiny_checkpoint("llava_tiny");
    struct mmqi_model *model;

    set_template(c, "{% import 'x' as y %}");
    model = opens(c);
    ck_assert_ptr_null(model->chat);
    ck_assert_ptr_nonnull(model->chat_error);
    ck_assert_ptr_nonnull(strstr(model->chat_error, "import"));
    free_checkpoint(c);
    c = tiny_checkpoint("llava_tiny");
    free(c->template);
    c->template = NULL;
    model = opens(c);
    ck_assert_ptr_nonnull(model->chat); /* the family's */
    ck_assert_ptr_null(model->chat_error);
    free_checkpoint(c);
}
END_TEST

START_TEST(a_file_that_fails_while_placing_leaves_a_model_that_can_try_again)
{
    struct checkpoint *c = tiny_checkpoint("llava_tiny");
    struct mmqi_model *model = opens(c);

    c->files.fail_with = MMQ_ERR_IO;
    ck_assert_int_eq(place_on_cpu(model), MMQ_ERR_IO);
    ck_assert_ptr_null(model->placed);
    c->files.fail_with = 0;
    ck_assert_int_eq(place_on_cpu(model), MMQ_OK);
    free_checkpoint(c);
}
END_TEST

/* ---- memory ---- */

START_TEST(an_allocator_that_gives_out_leaves_nothing_behind)
{
    struct checkpoint *c = tiny_checkpoint("llava_tiny");
    struct meter meter = {0};
    struct mmqi_mem_hooks hooks = {meter_alloc, meter_free, &meter};
    struct mmqi_model *model = NULL, *clone = NULL;
    int32_t status = MMQ_ERR_NOMEM;

    make_store(c);
    for (int64_t n = 0; status != MMQ_OK; n += 1 + n / 24) {
        const struct mmqi_mem_hooks *before = mmqi_mem_enter(&hooks);

        meter = (struct meter){.left = n};
        clone = NULL;
        status = mmqi_model_open(&model, c->store);
        if (status == MMQ_OK)
            status = mmqi_model_clone(&clone, model);
        mmqi_model_close(clone);
        mmqi_model_close(model);
        mmqi_mem_enter(before);
        ck_assert_msg(status == MMQ_OK || status == MMQ_ERR_NOMEM, "%d: %s", (int)status,
                      mmqi_message());
        ck_assert_int_eq(meter.live, 0);
    }
    free_checkpoint(c);
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("model errors");
    TCase *c = tcase_create("tensors");

    tcase_add_test(c, opens_the_unchanged_checkpoint);
    tcase_add_test(c, names_missing_tensors);
    tcase_add_test(c, names_unused_tensors);
    tcase_add_test(c, a_layer_too_many_is_unused);
    tcase_add_test(c, names_tensors_of_another_shape);
    tcase_add_test(c, a_shape_of_the_same_numbers_in_another_order_is_another);
    tcase_add_test(c, names_tensors_of_another_type);
    tcase_add_test(c, tells_all_kinds_of_faults_in_one_message);
    tcase_add_test(c, the_message_holds_whatever_the_names);
    tcase_add_test(c, two_spellings_of_one_tensor_leave_one_unused);
    tcase_add_test(c, parts_that_never_run_may_be_absent);
    tcase_add_test(c, a_part_that_never_runs_must_fit_all_the_same);
    tcase_add_test(c, buffers_that_are_no_weights_are_passed_over);
    tcase_add_test(c, the_modules_own_names_open_too);
    tcase_add_test(c, numbers_in_names_are_plain_decimals);
    tcase_add_test(c, a_tied_head_is_the_embedding);
    tcase_add_test(c, where_settings_disagree_the_file_decides);
    tcase_add_test(c, an_untied_head_is_needed);
    tcase_add_test(c, a_matrix_stored_as_int8_is_read_as_such);
    tcase_add_test(c, a_scale_that_is_not_finite_is_not_placed);
    tcase_add_test(c, int4_of_scales_that_overflow_or_zero_points_beyond_15_is_not_placed);
    tcase_add_test(c, a_packed_matrix_without_its_scales_is_refused);
    suite_add_tcase(s, c);
    c = tcase_create("settings");
    tcase_add_loop_test(c, settings_out_of_bounds_are_refused_by_name, 0,
                        sizeof absurd / sizeof *absurd);
    tcase_add_test(c, layers_may_be_counted_from_either_end);
    tcase_add_test(c, full_keeps_the_class_row);
    tcase_add_test(c, end_tokens_may_be_a_list);
    suite_add_tcase(s, c);
    c = tcase_create("files");
    tcase_set_timeout(c, 120);
    tcase_add_test(c, an_unknown_family_is_named);
    tcase_add_test(c, absent_architectures_leave_the_model_type);
    tcase_add_test(c, missing_files_are_named);
    tcase_add_test(c, another_image_processor_is_named);
    tcase_add_test(c, llavas_own_processor_may_pad);
    tcase_add_test(c, a_template_that_does_not_run_keeps_no_model_from_opening);
    tcase_add_test(c, a_file_that_fails_while_placing_leaves_a_model_that_can_try_again);
    tcase_add_test(c, an_allocator_that_gives_out_leaves_nothing_behind);
    suite_add_tcase(s, c);
    return s;
}

int main(void)
{
    SRunner *runner = srunner_create(suite());
    int failed;

    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? 1 : 0;
}
