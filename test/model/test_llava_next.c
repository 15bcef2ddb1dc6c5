/*
 * LLaVA-NeXT on the committed tiny model: how many rows pictures take and in which order, its
 * spellings, the authors' form among them, sessions that take fewer tiles; and what is said of
 * files that do not fit.
 */
#include "model/checkpoint.h"
#include "model/tiny.h"

#define CASE "llava_next_tiny"

/* ---- rows ---- */

/* Sizes and counts as transformers' select_best_resolution() and LlavaNextProcessor tell them. */
START_TEST(rows_follow_from_the_size_of_a_picture)
{
    static const struct {
        int32_t width, height, across, down, rows;
    } cases[] = {
        {1, 1, 2, 1, 36},    {24, 24, 2, 1, 36},    {48, 48, 2, 2, 88},    {97, 70, 2, 2, 70},
        {31, 47, 2, 2, 72},  {131, 24, 3, 1, 42},   {24, 131, 1, 3, 52},   {1, 3000, 2, 1, 20},
        {3000, 1, 2, 1, 16}, {600, 400, 2, 2, 70},  {400, 600, 2, 2, 72},  {7, 5, 2, 1, 44},
        {50, 90, 2, 2, 56},  {1000, 333, 3, 1, 68}, {333, 1000, 1, 3, 76}, {2400, 1375, 2, 2, 52},
        {47, 46, 2, 2, 88},
    };
    struct checkpoint *c = tiny_checkpoint(CASE);
    struct mmqi_model *model = opens(c);
    struct mmqi_picture picture;

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        OK(mmqi_model_measure(&picture, model, cases[i].width, cases[i].height));
        ck_assert_int_eq(picture.views.across, cases[i].across);
        ck_assert_int_eq(picture.views.down, cases[i].down);
        ck_assert_int_eq(picture.views.n, 1 + cases[i].across * cases[i].down);
        ck_assert_int_eq(picture.rows, cases[i].rows);
        ck_assert_int_eq(picture.made_rows, 17 * picture.views.n);
        ck_assert_int_eq(picture.n_runs, 1);
    }
    ck_assert_int_eq(model->spec.image_rows, 16 + 8 * 9);
    ck_assert_int_eq(model->spec.made_rows, 17 * 5);
    free_checkpoint(c);
}
END_TEST

/* 97 x 70 in 2 x 2 tiles of 4 x 4 rows, of whose 8 lines the first and the last are dropped. */
START_TEST(lines_of_the_tiles_end_with_the_newline)
{
    struct checkpoint *c = tiny_checkpoint(CASE);
    struct mmqi_model *model = opens(c);
    struct mmqi_picture picture;
    int32_t *order, i = 16;

    OK(mmqi_model_measure(&picture, model, 97, 70));
    OK(mmqi_model_order(&order, model, &picture));
    for (int32_t row = 0; row < 16; row++)
        ck_assert_int_eq(order[row], row);
    for (int32_t y = 1; y < 7; y++) {
        for (int32_t x = 0; x < 8; x++)
            ck_assert_int_eq(order[i++], 17 * (1 + y / 4 * 2 + x / 4) + y % 4 * 4 + x % 4);
        ck_assert_int_eq(order[i++], 16);
    }
    ck_assert_int_eq(i, picture.rows);
    mmqi_free(order);
    free_checkpoint(c);
}
END_TEST

/* ---- sessions ---- */

struct logits {
    float data[4096];
    size_t n;
};

static int32_t keep_logits(void *user, size_t index, const float *row, size_t n_vocab)
{
    struct logits *logits = user;

    (void)index;
    ck_assert_uint_le(logits->n + n_vocab, sizeof logits->data / sizeof *row);
    memcpy(logits->data + logits->n, row, n_vocab * sizeof *row);
    logits->n += n_vocab;
    return 0;
}

/* What a session makes of two pictures and some words. */
static void evaluate(struct logits *logits, mmq_session *session)
{
    static const int32_t targets[] = {290, 301, 275, 288};
    mmq_image *images[] = {tiny_picture(97, 40, 1), tiny_picture(31, 47, 1)};
    const mmq_image *list[] = {images[0], images[1]};
    mmq_prompt prompt = {.struct_size = sizeof prompt,
                         .text = "USER: Compare <image> with <image>: which is brighter?",
                         .images = list,
                         .n_images = 2};
    mmq_evaluate_request request = {.struct_size = sizeof request,
                                    .prompt = &prompt,
                                    .targets = targets,
                                    .n_targets = 4,
                                    .on_logits = keep_logits,
                                    .logits_user = logits};
    mmq_evaluation *evaluation;

    logits->n = 0;
    ASSERT_OK(mmq_evaluate(&evaluation, session, &request));
    mmq_evaluation_free(evaluation);
    mmq_image_free(images[0]);
    mmq_image_free(images[1]);
}

static mmq_model *load(void)
{
    mmq_model *model;

    ASSERT_OK(mmq_load(&model, source_path("test/golden/" CASE "/model"), NULL));
    return model;
}

START_TEST(logits_are_bit_equal_for_every_chunk_size)
{
    static const int32_t chunks[] = {512, 1, 13};
    static struct logits first, other;
    mmq_model *model = load();

    for (size_t i = 0; i < sizeof chunks / sizeof *chunks; i++) {
        mmq_session_options options = {.struct_size = sizeof options, .chunk = chunks[i]};
        mmq_session *session;

        ASSERT_OK(mmq_session_create(&session, model, &options));
        evaluate(i ? &other : &first, session);
        ck_assert(i == 0 || (other.n == first.n &&
                             memcmp(other.data, first.data, first.n * sizeof(float)) == 0));
        mmq_session_free(session);
    }
    mmq_model_free(model);
}
END_TEST

START_TEST(a_session_refuses_more_tiles_than_it_takes_and_goes_on)
{
    mmq_session_options options = {.struct_size = sizeof options, .image_rows = 52};
    mmq_image *large = tiny_picture(97, 70, 1), *small = tiny_picture(24, 131, 1);
    const mmq_image *list[] = {large};
    mmq_prompt prompt = {
        .struct_size = sizeof prompt, .text = "See <image>.", .images = list, .n_images = 1};
    mmq_generate_request request = {
        .struct_size = sizeof request, .prompt = &prompt, .max_new_tokens = 2};
    mmq_model *model = load();
    mmq_session *session;
    mmq_result *result;

    ASSERT_OK(mmq_session_create(&session, model, &options));
    ASSERT_FAILS(MMQ_ERR_LIMIT,
                 "picture 0 of 97 x 70 takes 70 rows; the session takes pictures "
                 "of 52",
                 mmq_generate(&result, session, &request));
    list[0] = small;
    ASSERT_OK(mmq_generate(&result, session, &request));
    mmq_result_free(result);
    mmq_session_free(session);
    mmq_model_free(model);
    mmq_image_free(large);
    mmq_image_free(small);
}
END_TEST

/* ---- spellings ---- */

static void read_weight(float dst[48], struct mmqi_model *model, const char *name)
{
    int32_t weight = mmqi_model_find(model, name);

    ck_assert_msg(weight >= 0, "no %s", name);
    OK(mmqi_model_read_rows(model, weight, 0, 1, dst));
}

/* The names of transformers 5's modules, and of what it saves from a config. */
static void respell(struct checkpoint *c, int spelling)
{
    static const char *const modules[][2] = {
        {"image_newline", "model.image_newline"},
        {"vision_tower.vision_model.", "model.vision_tower."},
        {"multi_modal_projector.", "model.multi_modal_projector."},
        {"language_model.lm_head.", "lm_head."},
        {"language_model.model.", "model.language_model."},
    };

    if (spelling == 2)
        rename_tensors(c, "vision_tower.vision_model.", "vision_tower.");
    for (size_t i = 0; spelling == 1 && i < sizeof modules / sizeof *modules; i++)
        rename_tensors(c, modules[i][0], modules[i][1]);
}

START_TEST(every_spelling_names_the_same_weights)
{
    static const char *const names[] = {"projector.newline", "vision.blocks.0.norm1",
                                        "projector.0.bias", "language.norm"};
    float want[4][48], have[48];

    for (int spelling = 0; spelling < 3; spelling++) {
        struct checkpoint *c = tiny_checkpoint(CASE);
        struct mmqi_model *model;

        respell(c, spelling);
        if (spelling == 1) { /* as 5.x saves settings */
            set(c->config, "architectures", NULL);
            set(c->config, "text_config.rope_theta", NULL);
            set(c->config, "text_config.rope_parameters",
                "{\"rope_type\": \"default\", \"rope_theta\": 1000000.0}");
        }
        model = opens(c);
        for (int i = 0; i < 4; i++) {
            read_weight(spelling ? have : want[i], model, names[i]);
            ck_assert(!spelling || memcmp(have, want[i], sizeof(float) * (i == 1 ? 24 : 48)) == 0);
        }
        free_checkpoint(c);
    }
}
END_TEST

START_TEST(a_llama_may_stand_in_for_the_mistral)
{
    struct checkpoint *c = tiny_checkpoint(CASE);

    set(c->config, "text_config.model_type", "\"llama\"");
    set(c->config, "text_config.sliding_window", NULL);
    opens(c);
    free_checkpoint(c);
}
END_TEST

/* ---- the authors' form ---- */

static const char original_config[] =
    "{\"architectures\": [\"LlavaMistralForCausalLM\"], \"model_type\": \"llava_mistral\","
    " \"hidden_size\": 48, \"intermediate_size\": 60, \"num_hidden_layers\": 2,"
    " \"num_attention_heads\": 6, \"num_key_value_heads\": 2, \"vocab_size\": 456,"
    " \"max_position_embeddings\": 512, \"rms_norm_eps\": 1e-05, \"rope_theta\": 1000000.0,"
    " \"sliding_window\": null, \"mm_vision_tower\": \"openai/clip-tiny\", \"mm_hidden_size\": 24,"
    " \"mm_projector_type\": \"mlp2x_gelu\", \"mm_vision_select_layer\": -2,"
    " \"mm_vision_select_feature\": \"patch\", \"mm_patch_merge_type\": \"spatial_unpad\","
    " \"image_aspect_ratio\": \"anyres\", \"image_grid_pinpoints\": [[48, 24], [24, 48], [48, 48],"
    " [24, 72], [72, 24]], \"mm_use_im_start_end\": false, \"mm_use_im_patch_token\": false,"
    " \"tie_word_embeddings\": false}";

/* The same checkpoint by its authors' names; the tower's settings stand in config.json, as in a
 * folder that was saved. */
static struct checkpoint *original(void)
{
    struct checkpoint *c = tiny_checkpoint(CASE);
    json_t *config = json_loads(original_config, 0, NULL);

    rename_tensors(c, "vision_tower.", "model.vision_tower.vision_tower.");
    rename_tensors(c, "multi_modal_projector.linear_1.", "model.mm_projector.0.");
    rename_tensors(c, "multi_modal_projector.linear_2.", "model.mm_projector.2.");
    rename_tensors(c, "image_newline", "model.image_newline");
    rename_tensors(c, "language_model.", "");
    json_object_set(config, "vision_config", json_object_get(c->config, "vision_config"));
    json_decref(c->config);
    c->config = config;
    set(c->preprocessor, "image_grid_pinpoints", NULL);
    set(c->preprocessor, "image_processor_type", "\"CLIPImageProcessor\"");
    set(c->preprocessor, "resample", "2"); /* not that of the tiles */
    return c;
}

static void write_bytes(const char *path, const void *data, size_t size)
{
    FILE *file = fopen(path, "wb");

    ck_assert_msg(file != NULL, "%s", path);
    ck_assert_uint_eq(fwrite(data, 1, size, file), size);
    fclose(file);
}

/* The checkpoint as a folder "m". */
static void write_folder(struct checkpoint *c)
{
    char *config = json_dumps(c->config, 0), *preprocessor = json_dumps(c->preprocessor, 0);
    size_t size = write_container(c);

    ck_assert_int_eq(mkdir("m", 0777), 0);
    write_bytes("m/config.json", config, strlen(config));
    write_bytes("m/preprocessor_config.json", preprocessor, strlen(preprocessor));
    write_bytes("m/tokenizer.json", c->tokenizer, c->tokenizer_size);
    write_bytes("m/model.safetensors", c->container, size);
    free(config);
    free(preprocessor);
}

START_TEST(the_authors_form_gives_the_same_bits)
{
    static struct logits first, other;
    struct checkpoint *c = original();
    mmq_model *models[] = {load(), NULL};
    mmq_session *session;

    write_folder(c);
    ASSERT_OK(mmq_load(&models[1], "m", NULL));
    for (int i = 0; i < 2; i++) {
        ASSERT_OK(mmq_session_create(&session, models[i], NULL));
        evaluate(i ? &other : &first, session);
        mmq_session_free(session);
        mmq_model_free(models[i]);
    }
    ck_assert_uint_eq(first.n, other.n);
    ck_assert_mem_eq(first.data, other.data, first.n * sizeof *first.data);
    free_checkpoint(c);
}
END_TEST

/* 309 * (12 / 1236) is a little less than 3: two of four lines, or all. */
START_TEST(the_authors_round_down_what_hugging_face_rounds_first)
{
    struct checkpoint *of_authors = original(), *of_hub = tiny_checkpoint(CASE);
    struct mmqi_picture picture;

    OK(mmqi_model_measure(&picture, opens(of_hub), 1236, 309));
    ck_assert_int_eq(picture.rows, 16 + 4 * 13);
    OK(mmqi_model_measure(&picture, opens(of_authors), 1236, 309));
    ck_assert_int_eq(picture.rows, 16 + 2 * 13);
    free_checkpoint(of_authors);
    free_checkpoint(of_hub);
}
END_TEST

/* The settings of the known tower are there without its folder; this one has other tensors. */
START_TEST(the_known_tower_needs_no_folder)
{
    struct checkpoint *c = original();

    set(c->config, "vision_config", NULL);
    set(c->config, "mm_vision_tower", "\"openai/clip-vit-large-patch14-336\"");
    set(c->config, "mm_hidden_size", "1024");
    set(c->config, "image_grid_pinpoints", "[[336, 672], [672, 336]]");
    json_decref(c->preprocessor);
    c->preprocessor = NULL;
    fails(c, MMQ_ERR_MISMATCH, "of another shape or type");
    c = original();
    set(c->config, "vision_config", NULL);
    fails(c, MMQ_ERR_NOT_FOUND, "'clip-tiny'");
}
END_TEST

static void refuses_original(const char *key, const char *value, int32_t status, const char *text)
{
    struct checkpoint *c = original();

    set(c->config, key, value);
    fails(c, status, text);
}

START_TEST(settings_of_the_authors_that_do_not_fit_are_named)
{
    static const char pinpoints[] = "image_grid_pinpoints", merge[] = "mm_patch_merge_type";

    refuses_original(pinpoints, NULL, MMQ_ERR_FORMAT, "config.json: there is no image_grid_pinp");
    refuses_original(pinpoints, "[]", MMQ_ERR_FORMAT, "config.json: 'image_grid_pinpoints'");
    refuses_original(pinpoints, "\"(1x1),...,(6x6)\"", MMQ_ERR_FORMAT, "no list of 1 to 64");
    refuses_original(pinpoints, "[[48, 30]]", MMQ_ERR_UNSUPPORTED,
                     "config.json: 'image_grid_pinpoints.0' is 30 high and 48 wide");
    refuses_original(pinpoints, "[[48, -1]]", MMQ_ERR_FORMAT, "'image_grid_pinpoints.0.1'");
    refuses_original(merge, NULL, MMQ_ERR_UNSUPPORTED, "mm_patch_merge_type");
    refuses_original(merge, "\"spatial\"", MMQ_ERR_UNSUPPORTED, "mm_patch_merge_type");
    refuses_original("image_aspect_ratio", "\"anyres_max_9\"", MMQ_ERR_UNSUPPORTED,
                     "'anyres_max_9'");
    refuses_original("mm_vision_select_feature", "\"cls_patch\"", MMQ_ERR_UNSUPPORTED,
                     "'cls_patch' makes no grid");
    refuses_original("sliding_window", NULL, MMQ_ERR_UNSUPPORTED, "sliding_window");
}
END_TEST

/* ---- what does not fit ---- */

static void refuses_config(const char *key, const char *value, int32_t status, const char *text)
{
    struct checkpoint *c = tiny_checkpoint(CASE);

    set(c->config, key, value);
    fails(c, status, text);
}

static void refuses_preprocessor(const char *key, const char *value, int32_t status,
                                 const char *text)
{
    struct checkpoint *c = tiny_checkpoint(CASE);

    set(c->preprocessor, key, value);
    fails(c, status, text);
}

START_TEST(settings_that_do_not_fit_are_named)
{
    static const char pinpoints[] = "image_grid_pinpoints";

    refuses_config(pinpoints, "[[24, 48]]", MMQ_ERR_UNSUPPORTED,
                   "others than those of memory/config.json");
    refuses_config(pinpoints, NULL, MMQ_ERR_UNSUPPORTED, "others than those of memory/config.json");
    refuses_config(pinpoints, "[]", MMQ_ERR_FORMAT, "config.json: 'image_grid_pinpoints'");
    refuses_config(pinpoints, "[[24, 2147483648]]", MMQ_ERR_FORMAT,
                   "config.json: 'image_grid_pinpoints.0.1'");
    refuses_config("vision_feature_select_strategy", "\"full\"", MMQ_ERR_UNSUPPORTED, "'full'");
    refuses_config("vision_feature_layer", "[-2, -1]", MMQ_ERR_UNSUPPORTED,
                   "vision_feature_layer lists 2");
    refuses_config("text_config.sliding_window", "4096", MMQ_ERR_UNSUPPORTED,
                   "text_config.sliding_window");
    refuses_config("text_config.sliding_window", NULL, MMQ_ERR_UNSUPPORTED, "(absent: 4096)");
    refuses_config("text_config.model_type", "\"qwen2\"", MMQ_ERR_UNSUPPORTED, "'qwen2'");
    refuses_preprocessor(pinpoints, "[]", MMQ_ERR_FORMAT, "image_grid_pinpoints");
    refuses_preprocessor(pinpoints, "[[24, 0]]", MMQ_ERR_FORMAT, "image_grid_pinpoints.0.1");
    refuses_preprocessor(pinpoints, "[[24, -48]]", MMQ_ERR_FORMAT, "image_grid_pinpoints.0.1");
    refuses_preprocessor(pinpoints, "[[24, 30]]", MMQ_ERR_UNSUPPORTED, "image_grid_pinpoints.0");
    refuses_preprocessor(pinpoints, "[[24, 3072]]", MMQ_ERR_UNSUPPORTED, "image_grid_pinpoints.0");
    refuses_preprocessor(pinpoints, NULL, MMQ_ERR_UNSUPPORTED, /* the class defaults */
                         "image_grid_pinpoints.0' is 336 high and 672 wide");
    refuses_preprocessor("size", "{\"shortest_edge\": 12}", MMQ_ERR_UNSUPPORTED, "'size'");
    refuses_preprocessor("image_processor_type", "\"CLIPImageProcessor\"", MMQ_ERR_UNSUPPORTED,
                         "'CLIPImageProcessor'");
}
END_TEST

START_TEST(tiles_that_the_tower_does_not_take_are_refused)
{
    struct checkpoint *c = tiny_checkpoint(CASE);

    set(c->preprocessor, "size", "12");
    set(c->preprocessor, "crop_size", "12");
    fails(c, MMQ_ERR_UNSUPPORTED, "tiles of 12 pixels, the tower takes 24");
}
END_TEST

START_TEST(a_newline_that_does_not_fit_is_named)
{
    struct checkpoint *c = tiny_checkpoint(CASE);
    struct tensor *t;

    drop_tensor(c, "image_newline");
    fails(c, MMQ_ERR_MISMATCH, "1 missing (projector.newline)");
    c = tiny_checkpoint(CASE);
    t = find_tensor(c, "image_newline");
    json_decref(t->shape);
    t->shape = json_pack("[i]", 24);
    t->size = 48;
    fails(c, MMQ_ERR_MISMATCH, "image_newline");
    c = tiny_checkpoint(CASE);
    snprintf(find_tensor(c, "image_newline")->dtype, 8, "I16");
    fails(c, MMQ_ERR_MISMATCH, "image_newline");
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("llava_next");
    TCase *tests = tcase_create("llava_next");
    SRunner *runner;
    int failed;

    tcase_set_timeout(tests, 60);
    tcase_add_checked_fixture(tests, scratch_enter, scratch_leave);
    tcase_add_test(tests, rows_follow_from_the_size_of_a_picture);
    tcase_add_test(tests, lines_of_the_tiles_end_with_the_newline);
    tcase_add_test(tests, logits_are_bit_equal_for_every_chunk_size);
    tcase_add_test(tests, a_session_refuses_more_tiles_than_it_takes_and_goes_on);
    tcase_add_test(tests, every_spelling_names_the_same_weights);
    tcase_add_test(tests, a_llama_may_stand_in_for_the_mistral);
    tcase_add_test(tests, the_authors_form_gives_the_same_bits);
    tcase_add_test(tests, the_authors_round_down_what_hugging_face_rounds_first);
    tcase_add_test(tests, the_known_tower_needs_no_folder);
    tcase_add_test(tests, settings_of_the_authors_that_do_not_fit_are_named);
    tcase_add_test(tests, settings_that_do_not_fit_are_named);
    tcase_add_test(tests, tiles_that_the_tower_does_not_take_are_refused);
    tcase_add_test(tests, a_newline_that_does_not_fit_is_named);
    suite_add_tcase(suite, tests);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
