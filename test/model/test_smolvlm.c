/*
 * The family smolvlm on the committed tiny model: what it has of its own
 * beside idefics3 (test_idefics3.c), and what it says of files that do not
 * fit.
 */
#include "model/checkpoint.h"
#include "model/family.h"
#include "model/names.h"

#define NAME "smolvlm_tiny"

START_TEST(is_known_by_its_class_or_by_its_type)
{
    struct checkpoint *c = tiny_checkpoint(NAME);
    struct mmqi_model *model = opens(c);

    ck_assert_ptr_eq(model->family, &mmqi_family_smolvlm);
    ck_assert_int_eq(model->spec.merge, 2);
    ck_assert_int_eq(model->spec.view_width, 32);
    ck_assert_int_eq(model->spec.image_rows, 20);
    free_checkpoint(c);
    c = tiny_checkpoint(NAME);
    set(c->config, "architectures", NULL);
    ck_assert_ptr_eq(opens(c)->family, &mmqi_family_smolvlm);
    free_checkpoint(c);
    c = tiny_checkpoint(NAME);
    set(c->config, "architectures", "[\"SmolVLMModel\"]");
    fails(c, MMQ_ERR_UNSUPPORTED, "SmolVLMModel");
}
END_TEST

/* The first SmolVLM is an Idefics3 in all its files. */
START_TEST(says_idefics3_as_well)
{
    struct checkpoint *c = tiny_checkpoint(NAME);

    set(c->config, "architectures", "[\"Idefics3ForConditionalGeneration\"]");
    set(c->config, "model_type", "\"idefics3\"");
    set(c->preprocessor, "image_processor_type", "\"Idefics3ImageProcessor\"");
    ck_assert_ptr_eq(opens(c)->family, &mmqi_family_idefics3);
    free_checkpoint(c);
}
END_TEST

START_TEST(knows_the_names_of_its_tensors)
{
    static const char *const names[][2] = {
        {"model.text_model.layers.3.self_attn.q_proj.weight", "language.layers.3.attn.q"},
        {"model.text_model.embed_tokens.weight", "language.embed"},
        {"model.vision_model.encoder.layers.7.self_attn.out_proj.bias",
         "vision.blocks.7.attn.o.bias"},
        {"model.vision_model.embeddings.position_embedding.weight", "vision.positions"},
        {"model.vision_model.post_layernorm.weight", "vision.post_norm"},
        {"model.connector.modality_projection.proj.weight", "projector.0"},
        {"lm_head.weight", "language.head"},
    };
    char name[MMQI_MAX_WEIGHT_NAME];

    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        ck_assert_int_eq(mmqi_canonical_name(name, &mmqi_family_smolvlm, names[i][0]),
                         MMQI_NAME_KNOWN);
        ck_assert_str_eq(name, names[i][1]);
    }
}
END_TEST

/* Its processor would write other tags than those of the model. */
START_TEST(refuses_a_tokenizer_that_names_other_tags)
{
    static const char *const texts[][2] = {
        {"{\"fake_image_token\": \"<|im_end|>\"}", "fake_image_token '<|im_end|>'"},
        {"{\"extra_special_tokens\": {\"global_image_token\": \"<g>\"}}", "'<g>'"},
        {"{\"image_token\": \"<picture>\"}", "'<picture>'"},
        {"{\"image_token\": {\"content\": \"<picture>\"}}", "'<picture>'"},
    };
    static const char *const fine[] = {
        "{\"image_token\": \"<image>\", \"global_image_token\": \"<global-img>\", "
        "\"video_token\": \"<video>\"}",
        "{\"extra_special_tokens\": [\"<fake_token_around_image>\", \"<image>\"]}",
        "{\"extra_special_tokens\": {\"image_token\": {\"content\": \"<image>\", \"special\": "
        "true}}}",
    };
    struct checkpoint *c;

    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        c = tiny_checkpoint(NAME);
        memory_add(&c->files, "tokenizer_config.json", texts[i][0], strlen(texts[i][0]));
        fails(c, MMQ_ERR_UNSUPPORTED, texts[i][1]);
    }
    for (size_t i = 0; i < sizeof fine / sizeof *fine; i++) {
        c = tiny_checkpoint(NAME);
        memory_add(&c->files, "tokenizer_config.json", fine[i], strlen(fine[i]));
        opens(c);
        free_checkpoint(c);
    }
}
END_TEST

START_TEST(accounts_for_tensors_both_ways)
{
    static const char positions[] = "model.vision_model.embeddings.position_embedding.weight";
    struct checkpoint *c = tiny_checkpoint(NAME);

    drop_tensor(c, "model.connector.modality_projection.proj.weight");
    fails(c, MMQ_ERR_MISMATCH, "1 missing (projector.0)");
    c = tiny_checkpoint(NAME);
    drop_tensor(c, "lm_head.weight");
    fails(c, MMQ_ERR_MISMATCH, "1 missing (language.head)");
    c = tiny_checkpoint(NAME); /* tied, as some save it */
    drop_tensor(c, "lm_head.weight");
    set(c->config, "tie_word_embeddings", "true");
    set(c->config, "text_config.tie_word_embeddings", "true");
    opens(c);
    free_checkpoint(c);
    c = tiny_checkpoint(NAME);
    json_decref(find_tensor(c, positions)->shape);
    find_tensor(c, positions)->shape = json_pack("[i, i]", 24, 16);
    fails(c, MMQ_ERR_MISMATCH, "[24, 16], not float [16, 24]");
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("smolvlm");
    TCase *files = tcase_create("files");
    SRunner *runner = srunner_create(suite);
    int failed;

    tcase_add_test(files, is_known_by_its_class_or_by_its_type);
    tcase_add_test(files, says_idefics3_as_well);
    tcase_add_test(files, knows_the_names_of_its_tensors);
    tcase_add_test(files, refuses_a_tokenizer_that_names_other_tags);
    tcase_add_test(files, accounts_for_tensors_both_ways);
    suite_add_tcase(suite, files);
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? 1 : 0;
}
