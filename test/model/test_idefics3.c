/*
 * The family idefics3 on the committed tiny model: pictures of several views,
 * the runs of their rows among tags, reuse; and what it says of files that do
 * not fit.
 */
#include "api/api.h"
#include "core/buf.h"
#include "model/checkpoint.h"
#include "model/family.h"
#include "model/pair.h"
#include "runtime/prompt.h"
#include "runtime/session.h"

#define NAME "idefics3_tiny"
#define ROW(r, c) "<fake_token_around_image><row_" #r "_col_" #c "><image>"
#define WHOLE "<fake_token_around_image><global-img><image><fake_token_around_image>"

/* ---- views, runs, words ---- */

static void expect_views(const struct mmqi_model *model, int32_t width, int32_t height,
                         int32_t across, int32_t down)
{
    int32_t n = across * down + 1;
    struct mmqi_picture picture;

    OK(mmqi_model_measure(&picture, model, width, height));
    ck_assert_int_eq(picture.views.across, across);
    ck_assert_int_eq(picture.views.down, down);
    ck_assert_int_eq(picture.views.n, n);
    ck_assert_int_eq(picture.n_runs, n);
    ck_assert_int_eq(picture.made_rows, 4 * n);
    ck_assert_int_eq(picture.rows, 4 * n);
    for (int32_t k = 0; k < n; k++) {
        ck_assert_int_eq(picture.views.view[k].width, 36);
        ck_assert_int_eq(picture.views.view[k].height, 36);
    }
}

START_TEST(a_picture_is_its_tiles_and_the_whole)
{
    struct checkpoint *c = tiny_checkpoint(NAME);
    struct mmqi_model *model = opens(c);

    ck_assert_int_eq(model->spec.image_rows, 20); /* of 2 x 2 tiles and the whole */
    expect_views(model, 97, 70, 2, 2);
    expect_views(model, 81, 30, 2, 1);
    expect_views(model, 30, 81, 1, 2);
    expect_views(model, 1, 1, 2, 2);
    expect_views(model, 5000, 1, 2, 1);
    free_checkpoint(c);
    c = tiny_checkpoint(NAME);
    set(c->preprocessor, "do_image_splitting", "false");
    model = opens(c);
    ck_assert_int_eq(model->spec.image_rows, 4);
    expect_views(model, 97, 70, 0, 0);
    free_checkpoint(c);
    c = tiny_checkpoint(NAME);
    set(c->preprocessor, "size.longest_edge", "36");
    model = opens(c);
    expect_views(model, 97, 70, 0, 0);
    free_checkpoint(c);
}
END_TEST

static void expect_text(const struct mmqi_model *model, int32_t width, int32_t height,
                        const char *text)
{
    struct mmqi_picture picture;
    struct mmqi_buf buf = {0};

    OK(mmqi_model_measure(&picture, model, width, height));
    model->family->write_marker(&buf, model, &picture);
    ck_assert_str_eq(buf.data, text);
    mmqi_buf_free(&buf);
}

/* As the processor of the reference writes it. */
START_TEST(tags_stand_around_the_rows_of_each_view)
{
    struct checkpoint *c = tiny_checkpoint(NAME);
    struct mmqi_model *model = opens(c);

    expect_text(model, 97, 70,
                ROW(1, 1) ROW(1, 2) "\n" ROW(2, 1) ROW(2, 2) "\n"
                                                             "\n" WHOLE);
    expect_text(model, 81, 30, ROW(1, 1) ROW(1, 2) "\n\n" WHOLE);
    expect_text(model, 30, 81,
                ROW(1, 1) "\n" ROW(2, 1) "\n"
                                         "\n" WHOLE);
    free_checkpoint(c);
    c = tiny_checkpoint(NAME);
    set(c->preprocessor, "do_image_splitting", "false");
    expect_text(opens(c), 97, 70, WHOLE);
    free_checkpoint(c);
}
END_TEST

/* Rows count on from run to run; positions count on over tags and rows alike. */
START_TEST(runs_of_rows_stand_among_the_tags)
{
    static uint8_t pixels[81 * 30 * 3];
    struct checkpoint *c = tiny_checkpoint(NAME);
    struct mmqi_model *model = opens(c);
    struct mmqi_image *images[2];
    struct mmqi_prompt prompt = {.text = "a <image> b <image>", .images = images, .n_images = 2};
    struct mmqi_tokens tokens = {0};
    int32_t rows[2] = {0}, n_text = 0;

    OK(mmqi_image_from_pixels(&images[0], pixels, 81, 30, 3, 0, NULL));
    OK(mmqi_image_from_pixels(&images[1], pixels, 30, 30, 3, 0, NULL));
    OK(mmqi_prompt_tokens(&tokens, model, &prompt));
    for (size_t i = 0; i < tokens.n; i++) {
        const struct mmqi_token *token = &tokens.data[i];

        ck_assert_int_eq(token->position[0], (int32_t)i);
        ck_assert_int_eq(token->picture >= 0, token->id == model->spec.image_token);
        if (token->picture >= 0)
            ck_assert_int_eq(token->row, rows[token->picture]++);
        else
            n_text++;
    }
    ck_assert_int_eq(rows[0], 12);
    ck_assert_int_eq(rows[1], 20);
    ck_assert_int_gt(n_text, 3 * 2 + 5 * 2);
    mmqi_tokens_free(&tokens);
    mmqi_image_release(images[0]);
    mmqi_image_release(images[1]);
    free_checkpoint(c);
}
END_TEST

START_TEST(a_run_takes_the_rows_that_the_order_tells)
{
    static const int32_t order[] = {5, 0, 5, 2, 1, 7}, all[] = {0, 1, 2, 3, 4, 5};
    const struct mmqi_picture picture = {.rows = 6, .n_runs = 2, .made_rows = 8};
    struct mmqi_tokens tokens = {0};

    OK(mmqi_tokens_add_run(&tokens, 9, 3, &picture, 0, order, 1));
    OK(mmqi_tokens_add(&tokens, 1));
    OK(mmqi_tokens_add_run(&tokens, 9, 3, &picture, 1, order, 1));
    OK(mmqi_tokens_add_run(&tokens, 9, 4, &picture, 0, NULL, 1));
    OK(mmqi_tokens_add_run(&tokens, 9, 4, &picture, 1, NULL, 1));
    ck_assert_uint_eq(tokens.n, 13);
    for (int i = 0; i < 6; i++) {
        ck_assert_int_eq(tokens.data[i + i / 3].row, order[i]);
        ck_assert_int_eq(tokens.data[i + i / 3].picture, 3);
        ck_assert_int_eq(tokens.data[i + 7].row, all[i]);
    }
    for (int i = 0; i < 13; i++)
        ck_assert_int_eq(tokens.data[i].position[0], i);
    mmqi_tokens_free(&tokens);
}
END_TEST

/* ---- sessions ---- */

static void open_fixture(struct pair *f, int32_t chunk)
{
    static const int32_t targets[] = {20, 41, 300, 7, 99};

    open_pair(f, "test/golden/" NAME "/model", "Compare <image> with <image>: which is brighter?",
              tiny_image(1), tiny_image(2), chunk);
    f->targets = targets;
    f->n_targets = sizeof targets / sizeof *targets;
}

START_TEST(logits_are_bit_equal_for_every_chunk_size)
{
    static const int32_t chunks[] = {512, 1, 3, 19};

    check_chunks(open_fixture, chunks, sizeof chunks / sizeof *chunks);
}
END_TEST

/* Also between the runs of a picture, and inside of one. */
START_TEST(truncation_anywhere_changes_no_bit)
{
    check_truncation(open_fixture);
}
END_TEST

static mmq_result *answer(struct pair *f)
{
    mmq_generate_request request = {
        .struct_size = sizeof request, .prompt = &f->prompt, .max_new_tokens = 4};
    mmq_result *result;

    ASSERT_OK(mmq_generate(&result, f->session, &request));
    return result;
}

/* The first picture stays, another second one of the same size does not pass for the first. */
START_TEST(a_session_reuses_the_pictures_that_are_the_same)
{
    mmq_result_facts facts = {.struct_size = sizeof facts};
    struct logits reused, fresh;
    mmq_image *third = tiny_image(3);
    struct pair f;
    mmq_result *result;

    open_fixture(&f, 0);
    mmq_result_free(answer(&f));
    f.list[1] = third;
    result = answer(&f);
    ASSERT_OK(mmq_result_info(&facts, result));
    ck_assert_int_eq(facts.n_pictures_encoded, 1);
    ck_assert_int_gt(facts.n_reused, 20);
    ck_assert_int_lt(facts.n_reused, facts.n_prompt - 20);
    mmq_result_free(result);
    reused = evaluate(&f);
    ASSERT_OK(mmq_session_reset(f.session));
    fresh = evaluate(&f);
    same_logits(&reused, &fresh);
    free(reused.data);
    free(fresh.data);
    mmq_image_free(third);
    close_pair(&f);
}
END_TEST

/* The arena and the pixels are those of a view, the block has the rows of all. */
START_TEST(plans_are_for_a_view_and_blocks_for_all)
{
    mmq_session_options options = {.struct_size = sizeof options, .image_rows = 12};
    const struct mmqi_session_layout *layout;
    mmq_memory whole = {.struct_size = sizeof whole}, small = {.struct_size = sizeof small};
    mmq_generate_request request = {.struct_size = sizeof request, .max_new_tokens = 1};
    mmq_session *bounded;
    mmq_result *result;
    struct pair f;

    open_fixture(&f, 0);
    layout = &f.session->core->layout;
    ck_assert_int_eq(layout->greatest.view.patches, 36);
    ck_assert_int_eq(layout->greatest.view.rows, 4);
    ck_assert_int_eq(layout->greatest.made_rows, 20);
    ck_assert_uint_eq(layout->sum.pixels, 36 * 36 * 3 * 4);
    ck_assert_uint_eq(layout->sum.image, 20 * 48 * 4);
    ASSERT_OK(mmq_estimate(&whole, f.model, NULL));
    ASSERT_OK(mmq_estimate(&small, f.model, &options));
    ck_assert_uint_eq(whole.total - small.total, 8 * 48 * 4);
    ASSERT_OK(mmq_session_create(&bounded, f.model, &options));
    request.prompt = &f.prompt;
    ASSERT_FAILS(MMQ_ERR_LIMIT, "takes 20 rows; the session takes pictures of 12",
                 mmq_generate(&result, bounded, &request));
    mmq_session_free(bounded);
    close_pair(&f);
}
END_TEST

START_TEST(prompts_that_do_not_fit_their_pictures_are_refused)
{
    mmq_generate_request request = {.struct_size = sizeof request, .max_new_tokens = 1};
    static const char *const texts[][2] = {
        {"<image><image><image>", "3 '<image>' for 2"},
        {"see <image", "0 '<image>' for 2"},
        {"", "0 '<image>' for 2"},
        {"<fake_token_around_image><global-img><image><fake_token_around_image>",
         "1 '<image>' for 2"},
    };
    struct pair f;
    mmq_result *result;

    open_fixture(&f, 0);
    request.prompt = &f.prompt;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        f.prompt.text = texts[i][0];
        ASSERT_FAILS(MMQ_ERR_INVALID, texts[i][1], mmq_generate(&result, f.session, &request));
    }
    f.prompt.text = "<image>";
    f.prompt.n_images = 0;
    ASSERT_FAILS(MMQ_ERR_INVALID, "1 '<image>' for 0", mmq_generate(&result, f.session, &request));
    f.prompt.n_images = 1;
    ASSERT_OK(mmq_generate(&result, f.session, &request));
    mmq_result_free(result);
    close_pair(&f);
}
END_TEST

/* The words "<image>" and tags of a message are words: pictures stand where its parts say. */
START_TEST(markers_spelled_in_a_message_stay_text)
{
    struct pair f;
    mmq_part parts[] = {{.struct_size = sizeof(mmq_part)},
                        {.struct_size = sizeof(mmq_part),
                         .text = "a <image> with <fake_token_around_image><image>"}};
    const mmq_part *part_list[] = {&parts[0], &parts[1]};
    mmq_message message = {sizeof message, "user", part_list, 2};
    const mmq_message *list[] = {&message};
    mmq_generate_request request = {.struct_size = sizeof request, .max_new_tokens = 1};
    mmq_result *result;

    open_fixture(&f, 0);
    parts[0].image = f.images[0];
    f.prompt = (mmq_prompt){.struct_size = sizeof f.prompt, .messages = list, .n_messages = 1};
    request.prompt = &f.prompt;
    ASSERT_OK(mmq_generate(&result, f.session, &request));
    mmq_result_free(result);
    f.prompt.parse_special = 1;
    ASSERT_FAILS(MMQ_ERR_INVALID, "3 '<image>' for 1", mmq_generate(&result, f.session, &request));
    close_pair(&f);
}
END_TEST

/* ---- files ---- */

/* Put `to`, of the same length, in place of `from` all over tokenizer.json. */
static void change_tokenizer(struct checkpoint *c, const char *from, const char *to)
{
    size_t n = strlen(from), found = 0;

    ck_assert_uint_eq(n, strlen(to));
    for (size_t at = 0; at + n <= c->tokenizer_size; at++)
        if (memcmp(c->tokenizer + at, from, n) == 0) {
            memcpy(c->tokenizer + at, to, n);
            found++;
        }
    ck_assert_uint_gt(found, 0);
}

START_TEST(needs_the_tag_around_a_picture)
{
    struct checkpoint *c = tiny_checkpoint(NAME);

    change_tokenizer(c, "<fake_token_around_image>", "<fake_token_around_im4ge>");
    fails(c, MMQ_ERR_FORMAT, "tokenizer.json has no token '<fake_token_around_image>'");
}
END_TEST

/* A token of which the marker is a part swallows one. */
/* The added token `content` becomes `other`. */
static void rename_token(struct checkpoint *c, const char *content, const char *other)
{
    json_t *root = json_loadb(c->tokenizer, c->tokenizer_size, 0, NULL), *item;
    size_t i;

    json_array_foreach(json_object_get(root, "added_tokens"), i, item)
    {
        if (strcmp(json_string_value(json_object_get(item, "content")), content) == 0)
            json_object_set_new(item, "content", json_string(other));
    }
    free(c->tokenizer);
    c->tokenizer = json_dumps(root, JSON_COMPACT);
    c->tokenizer_size = strlen(c->tokenizer);
    json_decref(root);
}

START_TEST(refuses_a_marker_that_is_no_mark_but_a_text)
{
    struct checkpoint *c = tiny_checkpoint(NAME);
    char marker[258];

    memset(marker, 'm', sizeof marker);
    marker[257] = '\0';
    rename_token(c, "<image>", marker);
    fails(c, MMQ_ERR_LIMIT, "a text of 257 bytes, more than 256");
}
END_TEST

START_TEST(refuses_a_tokenizer_that_reads_other_markers)
{
    static uint8_t pixels[30 * 30 * 3];
    struct checkpoint *c = tiny_checkpoint(NAME);
    struct mmqi_tokens tokens = {0};
    struct mmqi_image *image;
    struct mmqi_prompt prompt = {.text = "<image>?", .images = &image, .n_images = 1};

    rename_token(c, "<end_of_utterance>", "<image><fake_token_around_image>");
    opens(c);
    OK(mmqi_image_from_pixels(&image, pixels, 30, 30, 3, 0, NULL));
    ck_assert_int_eq(mmqi_prompt_tokens(&tokens, c->model, &prompt), MMQ_ERR_FORMAT);
    ck_assert_msg(strstr(mmqi_message(), "reads 2 '<image>' in a prompt that has 5") != NULL, "%s",
                  mmqi_message());
    mmqi_tokens_free(&tokens);
    mmqi_image_release(image);
    free_checkpoint(c);
}
END_TEST

struct change {
    const char *key, *value; /* value NULL: without the key */
    int32_t status;
    const char *says;
};

static const struct change config_changes[] = {
    {"scale_factor", "4", MMQ_ERR_FORMAT, "scale_factor 4 does not divide 6 patches"},
    {"scale_factor", "0", MMQ_ERR_FORMAT, "scale_factor"},
    {"scale_factor", "-3", MMQ_ERR_FORMAT, "scale_factor"},
    {"scale_factor", "2147483648", MMQ_ERR_FORMAT, "scale_factor"},
    {"scale_factor", "2.5", MMQ_ERR_FORMAT, "scale_factor"},
    {"scale_factor", "6", MMQ_ERR_MISMATCH, "another shape"},
    {"scale_factor", NULL, MMQ_ERR_MISMATCH, "another shape"}, /* the class's default, 2 */
    {"image_token_id", "4000", MMQ_ERR_FORMAT, "4000 is outside the vocabulary"},
    {"image_token_id", NULL, MMQ_ERR_FORMAT, "128257 is outside the vocabulary"},
    {"vision_config.image_size", "42", MMQ_ERR_FORMAT, "does not divide 7"},
    {"vision_config.image_size", "54", MMQ_ERR_UNSUPPORTED,
     "tiles of 36 pixels, the tower takes 54"},
    {"vision_config.image_size", "5", MMQ_ERR_FORMAT, "image_size 5 is less than patch_size 6"},
    {"vision_config.image_size", "[36, 36]", MMQ_ERR_FORMAT, "image_size"},
    {"vision_config.patch_size", "4", MMQ_ERR_MISMATCH, "another shape"},
    {"vision_config.patch_size", NULL, MMQ_ERR_FORMAT, "does not divide 1"}, /* 32 */
    {"vision_config.num_channels", "1", MMQ_ERR_UNSUPPORTED, "num_channels 1"},
    {"vision_config.num_hidden_layers", "3", MMQ_ERR_MISMATCH, "vision.blocks.2"},
    {"vision_config.num_attention_heads", "5", MMQ_ERR_FORMAT, "no multiple of 5"},
    {"vision_config.hidden_act", "\"relu\"", MMQ_ERR_UNSUPPORTED, "'relu'"},
    {"text_config.model_type", "\"mixtral\"", MMQ_ERR_UNSUPPORTED, "mixtral"},
    {"text_config.vocab_size", "0", MMQ_ERR_FORMAT, "vocab_size"},
    {"text_config.num_hidden_layers", "3", MMQ_ERR_MISMATCH, "language.layers.2"},
    {"tie_word_embeddings", "\"yes\"", MMQ_ERR_FORMAT, "tie_word_embeddings"},
    {"architectures", "[\"Idefics3Model\"]", MMQ_ERR_UNSUPPORTED, "Idefics3Model"},
};

START_TEST(refuses_settings_that_do_not_fit)
{
    const struct change *change = &config_changes[_i];
    struct checkpoint *c = tiny_checkpoint(NAME);

    set(c->config, change->key, change->value);
    fails(c, change->status, change->says);
}
END_TEST

static const struct change processor_changes[] = {
    {"image_processor_type", "\"CLIPImageProcessor\"", MMQ_ERR_UNSUPPORTED, "CLIPImageProcessor"},
    {"max_image_size", "{\"longest_edge\": 48}", MMQ_ERR_UNSUPPORTED, "tiles of 48 pixels"},
    {"max_image_size", NULL, MMQ_ERR_UNSUPPORTED, "tiles of 364 pixels"},
    {"max_image_size", "{\"longest_edge\": 0}", MMQ_ERR_FORMAT, "max_image_size"},
    {"size", "{\"longest_edge\": -1}", MMQ_ERR_FORMAT, "size.longest_edge"},
    {"size", "{\"longest_edge\": 4000}", MMQ_ERR_UNSUPPORTED, "tiles of 36"},
    {"do_image_splitting", "1", MMQ_ERR_FORMAT, "do_image_splitting"},
    {"image_std", "[0.5, 0.0, 0.5]", MMQ_ERR_FORMAT, "image_std"},
};

START_TEST(refuses_preprocessing_that_does_not_fit)
{
    const struct change *change = &processor_changes[_i];
    struct checkpoint *c = tiny_checkpoint(NAME);

    set(c->preprocessor, change->key, change->value);
    fails(c, change->status, change->says);
}
END_TEST

START_TEST(image_seq_len_is_what_a_tile_makes)
{
    static const struct change lengths[] = {
        {"{\"image_seq_len\": 5}", NULL, MMQ_ERR_FORMAT, "image_seq_len 5; a tile makes 4 rows"},
        {"{\"image_seq_len\": 0}", NULL, MMQ_ERR_FORMAT, "image_seq_len"},
        {"{\"image_seq_len\": \"4\"}", NULL, MMQ_ERR_FORMAT, "image_seq_len"},
    };

    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        struct checkpoint *c = tiny_checkpoint(NAME);

        memory_add(&c->files, "processor_config.json", lengths[i].key, strlen(lengths[i].key));
        fails(c, lengths[i].status, lengths[i].says);
    }
}
END_TEST

START_TEST(accounts_for_tensors_both_ways)
{
    static const char conv[] = "model.vision_model.embeddings.patch_embedding.bias";
    static const char shuffle[] = "model.connector.modality_projection.proj.weight";
    struct checkpoint *c = tiny_checkpoint(NAME);

    drop_tensor(c, conv);
    fails(c, MMQ_ERR_MISMATCH, "1 missing (vision.patch.bias)");
    c = tiny_checkpoint(NAME);
    drop_tensor(c, "model.vision_model.post_layernorm.weight");
    fails(c, MMQ_ERR_MISMATCH, "1 missing (vision.post_norm)");
    c = tiny_checkpoint(NAME);
    add_tensor(c, "model.connector.modality_projection.proj.bias", "BF16", json_pack("[i]", 48),
               NULL, 96);
    fails(c, MMQ_ERR_MISMATCH, "1 unused");
    c = tiny_checkpoint(NAME);
    json_decref(find_tensor(c, shuffle)->shape);
    find_tensor(c, shuffle)->shape = json_pack("[i, i]", 216, 48);
    fails(c, MMQ_ERR_MISMATCH, "[216, 48], not float [48, 216]");
}
END_TEST

#define COUNT(array) (int)(sizeof(array) / sizeof *(array))

int main(void)
{
    Suite *suite = suite_create("idefics3");
    TCase *tests = tcase_create("runs"), *files = tcase_create("files");
    SRunner *runner = srunner_create(suite);
    int failed;

    tcase_set_timeout(tests, 60);
    tcase_add_test(tests, a_picture_is_its_tiles_and_the_whole);
    tcase_add_test(tests, tags_stand_around_the_rows_of_each_view);
    tcase_add_test(tests, runs_of_rows_stand_among_the_tags);
    tcase_add_test(tests, a_run_takes_the_rows_that_the_order_tells);
    tcase_add_test(tests, logits_are_bit_equal_for_every_chunk_size);
    tcase_add_test(tests, truncation_anywhere_changes_no_bit);
    tcase_add_test(tests, a_session_reuses_the_pictures_that_are_the_same);
    tcase_add_test(tests, plans_are_for_a_view_and_blocks_for_all);
    tcase_add_test(tests, prompts_that_do_not_fit_their_pictures_are_refused);
    tcase_add_test(tests, markers_spelled_in_a_message_stay_text);
    suite_add_tcase(suite, tests);
    tcase_add_test(files, needs_the_tag_around_a_picture);
    tcase_add_test(files, refuses_a_marker_that_is_no_mark_but_a_text);
    tcase_add_test(files, refuses_a_tokenizer_that_reads_other_markers);
    tcase_add_loop_test(files, refuses_settings_that_do_not_fit, 0, COUNT(config_changes));
    tcase_add_loop_test(files, refuses_preprocessing_that_does_not_fit, 0,
                        COUNT(processor_changes));
    tcase_add_test(files, image_seq_len_is_what_a_tile_makes);
    tcase_add_test(files, accounts_for_tensors_both_ways);
    suite_add_tcase(suite, files);
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? 1 : 0;
}
