/* The public header's own promises: statuses, structs, handles, text. */
#include "model/tiny.h"

START_TEST(every_status_has_a_name_and_a_text)
{
    static const mmq_status all[] = {
        MMQ_OK,
        MMQ_ERR_INVALID,
        MMQ_ERR_STATE,
        MMQ_ERR_UNSUPPORTED,
        MMQ_ERR_NOMEM,
        MMQ_ERR_LIMIT,
        MMQ_ERR_CONTEXT_FULL,
        MMQ_ERR_IO,
        MMQ_ERR_NOT_FOUND,
        MMQ_ERR_FORMAT,
        MMQ_ERR_EXISTS,
        MMQ_ERR_MISMATCH,
        MMQ_ERR_CANCELLED,
        MMQ_ERR_CALLBACK,
        MMQ_ERR_DEVICE,
        MMQ_ERR_NO_DEVICE,
        MMQ_ERR_INTERNAL,
    };
    size_t n = sizeof all / sizeof all[0], i, j;

    for (i = 0; i < n; i++)
        for (j = 0; j < i; j++) {
            ck_assert_str_ne(mmq_status_name(all[i]), mmq_status_name(all[j]));
            ck_assert_str_ne(mmq_status_text(all[i]), mmq_status_text(all[j]));
        }
    ck_assert_str_eq(mmq_status_name(MMQ_ERR_FORMAT), "MMQ_ERR_FORMAT");
    ck_assert_str_eq(mmq_status_name(-9999), "MMQ_ERR_?");
    ck_assert_str_eq(mmq_status_name(1), "MMQ_ERR_?");
}
END_TEST

START_TEST(the_version_is_the_headers)
{
    char text[32];

    snprintf(text, sizeof text, "%d.%d.%d", MMQ_VERSION_MAJOR, MMQ_VERSION_MINOR,
             MMQ_VERSION_PATCH);
    ck_assert_str_eq(mmq_version_string(), text);
    ck_assert_int_eq(mmq_version(),
                     MMQ_VERSION_MAJOR << 16 | MMQ_VERSION_MINOR << 8 | MMQ_VERSION_PATCH);
}
END_TEST

START_TEST(a_larger_struct_is_taken_if_what_the_library_does_not_know_is_zero)
{
    struct {
        mmq_load_options known;
        uint64_t later;
    } options = {{.struct_size = sizeof options}, 0};
    struct {
        mmq_model_facts known;
        uint64_t later;
    } facts = {{.struct_size = sizeof facts}, 99};
    mmq_model *model = tiny_model(&options.known);

    ASSERT_OK(mmq_model_info(&facts.known, model));
    ck_assert_uint_eq(facts.later, 0); /* what the library does not know, it says nothing of */
    ck_assert_int_eq(facts.known.n_eos, 1);
    mmq_model_free(model);
    options.later = 1;
    ASSERT_FAILS(MMQ_ERR_INVALID, "mmq_load_options",
                 mmq_load(&model, source_path("test/golden/llava_tiny/model"), &options.known));
    ck_assert_ptr_null(model);
}
END_TEST

START_TEST(a_smaller_struct_means_defaults_and_a_senseless_size_is_refused)
{
    mmq_load_options options = {.struct_size = sizeof(size_t), .n_threads = -77};
    mmq_model *model = tiny_model(&options); /* n_threads is past the struct's end */

    mmq_model_free(model);
    options.struct_size = 0;
    ASSERT_FAILS(MMQ_ERR_INVALID, "struct_size", mmq_load(&model, "nowhere", &options));
    options.struct_size = SIZE_MAX;
    ASSERT_FAILS(MMQ_ERR_INVALID, "struct_size", mmq_load(&model, "nowhere", &options));
    options.struct_size = sizeof options;
    ASSERT_FAILS(MMQ_ERR_INVALID, "threads", mmq_load(&model, "nowhere", &options));
}
END_TEST

START_TEST(what_is_not_there_is_named)
{
    mmq_load_options options = {.struct_size = sizeof options};
    mmq_image *image;
    mmq_model *model;

    ASSERT_FAILS(MMQ_ERR_NOT_FOUND, "/no/such/folder", mmq_load(&model, "/no/such/folder", NULL));
    ASSERT_FAILS(MMQ_ERR_NOT_FOUND, "/no/such.png",
                 mmq_image_read_file(&image, "/no/such.png", NULL));
    options.device = "cuda:7";
    ASSERT_FAILS(MMQ_ERR_NO_DEVICE, "cuda:7", mmq_load(&model, "nowhere", &options));
    options.device = "cpu:1";
    ASSERT_FAILS(MMQ_ERR_NO_DEVICE, "cpu:1", mmq_load(&model, "nowhere", &options));
    options.device = "cpu";
    options.isa = "mmx";
    ASSERT_FAILS(MMQ_ERR_INVALID, "mmx", mmq_load(&model, "nowhere", &options));
}
END_TEST

START_TEST(null_arguments_are_an_error_and_never_a_crash)
{
    mmq_model *model = tiny_model(NULL), *other;
    mmq_session *session;
    mmq_result *result;
    mmq_evaluation *evaluation;
    mmq_generate_request request = {.struct_size = sizeof request};
    mmq_evaluate_request evaluate = {.struct_size = sizeof evaluate};
    mmq_prompt prompt = {.struct_size = sizeof prompt};
    size_t n;
    char *text;

    ASSERT_OK(mmq_session_create(&session, model, NULL));
    ASSERT_FAILS(MMQ_ERR_INVALID, "", mmq_load(NULL, "x", NULL));
    ASSERT_FAILS(MMQ_ERR_INVALID, "", mmq_load(&other, NULL, NULL));
    ASSERT_FAILS(MMQ_ERR_INVALID, "request", mmq_generate(&result, session, NULL));
    ASSERT_FAILS(MMQ_ERR_INVALID, "mmq_prompt", mmq_generate(&result, session, &request));
    request.prompt = &prompt;
    ASSERT_FAILS(MMQ_ERR_INVALID, "mmq_prompt", mmq_generate(&result, session, &request));
    ASSERT_FAILS(MMQ_ERR_INVALID, "mmq_prompt", mmq_evaluate(&evaluation, session, &evaluate));
    ASSERT_FAILS(MMQ_ERR_INVALID, "", mmq_render_chat(&text, &n, NULL, &prompt));
    ASSERT_FAILS(MMQ_ERR_INVALID, "", mmq_tokenize(NULL, &n, NULL, "", 0, 0));
    ASSERT_FAILS(MMQ_ERR_INVALID, "", mmq_quantize_layerwise(NULL, NULL, NULL, NULL));
    ASSERT_FAILS(MMQ_ERR_INVALID, "", mmq_model_place(NULL));
    ck_assert_str_eq(mmq_result_text(NULL), "");
    ck_assert_str_eq(mmq_report_json(NULL), "");
    mmq_session_free(session);
    mmq_model_free(model);
    mmq_session_free(NULL);
    mmq_result_free(NULL);
    mmq_evaluation_free(NULL);
    mmq_report_free(NULL);
    mmq_image_free(NULL);
    mmq_cancel_free(NULL);
    mmq_ids_free(NULL);
    mmq_text_free(NULL);
    mmq_model_free(NULL);
}
END_TEST

/* Not NULL: what a failure must clear. */
#define STALE ((void *)&stale)

START_TEST(results_are_null_or_zero_after_any_failure)
{
    static const uint8_t pixel[3];
    char stale = 0, *text = STALE;
    mmq_model *model = STALE;
    mmq_session *session = STALE;
    mmq_result *result = STALE;
    mmq_evaluation *evaluation = STALE;
    mmq_image *image = STALE;
    int32_t *ids = STALE, width = 7, height = 7;
    size_t n = 7;

    ASSERT_FAILS(MMQ_ERR_INVALID, "", mmq_load(&model, NULL, NULL));
    ck_assert_ptr_null(model);
    ASSERT_FAILS(MMQ_ERR_INVALID, "", mmq_session_create(&session, NULL, NULL));
    ck_assert_ptr_null(session);
    ASSERT_FAILS(MMQ_ERR_INVALID, "", mmq_generate(&result, NULL, NULL));
    ck_assert_ptr_null(result);
    ASSERT_FAILS(MMQ_ERR_INVALID, "", mmq_evaluate(&evaluation, NULL, NULL));
    ck_assert_ptr_null(evaluation);
    ASSERT_FAILS(MMQ_ERR_INVALID, "", mmq_image_read_file(&image, NULL, NULL));
    ck_assert_ptr_null(image);
    image = STALE;
    ASSERT_FAILS(MMQ_ERR_INVALID, "", mmq_image_read_memory(&image, NULL, 4, NULL));
    ck_assert_ptr_null(image);
    image = STALE;
    ASSERT_FAILS(MMQ_ERR_INVALID, "", mmq_image_from_pixels(&image, NULL, 1, 1, 3, 0, NULL));
    ck_assert_ptr_null(image);
    image = STALE;
    ASSERT_FAILS(MMQ_ERR_INVALID, "", mmq_image_from_pixels(&image, pixel, 1, 1, 3, 2, NULL));
    ck_assert_ptr_null(image);
    ASSERT_FAILS(MMQ_ERR_INVALID, "", mmq_image_size(&width, &height, NULL));
    ck_assert(width == 0 && height == 0);
    ASSERT_FAILS(MMQ_ERR_INVALID, "", mmq_tokenize(&ids, &n, NULL, "a", 1, 0));
    ck_assert(ids == NULL && n == 0);
    n = 7;
    ASSERT_FAILS(MMQ_ERR_INVALID, "", mmq_detokenize(&text, &n, NULL, NULL, 0, 0));
    ck_assert(text == NULL && n == 0);
    text = STALE;
    ASSERT_FAILS(MMQ_ERR_INVALID, "", mmq_render_chat(&text, &n, NULL, NULL));
    ck_assert_ptr_null(text);
}
END_TEST

START_TEST(facts_are_zero_after_a_failure)
{
    mmq_model *model = tiny_model(NULL);
    mmq_session_options options = {.struct_size = sizeof options, .chunk = -1};
    mmq_model_facts facts = {.struct_size = sizeof facts, .hidden_size = 7};
    mmq_tensor_facts tensor = {.struct_size = sizeof tensor, .rows = 7, .name = "stale"};
    mmq_memory memory = {.struct_size = sizeof memory, .total = 7};
    mmq_result_facts result = {.struct_size = sizeof result, .n_prompt = 7};

    ASSERT_FAILS(MMQ_ERR_INVALID, "model", mmq_model_info(&facts, NULL));
    ck_assert_int_eq(facts.hidden_size, 0);
    ck_assert_uint_eq(facts.struct_size, sizeof facts);
    ASSERT_FAILS(MMQ_ERR_NOT_FOUND, "-1", mmq_model_tensor_info(&tensor, model, -1));
    ck_assert(tensor.rows == 0 && tensor.name == NULL);
    ASSERT_FAILS(MMQ_ERR_INVALID, "chunk", mmq_estimate(&memory, model, &options));
    ck_assert_uint_eq(memory.total, 0);
    ASSERT_FAILS(MMQ_ERR_INVALID, "result", mmq_result_info(&result, NULL));
    ck_assert_int_eq(result.n_prompt, 0);
    facts.struct_size = 3;
    ASSERT_FAILS(MMQ_ERR_INVALID, "struct_size", mmq_model_info(&facts, model));
    ASSERT_FAILS(MMQ_ERR_INVALID, "NULL", mmq_model_info(NULL, model));
    mmq_model_free(model);
}
END_TEST

START_TEST(the_model_keeps_the_line_of_every_call_that_failed_on_it)
{
    mmq_model *model = tiny_model(NULL), *out;
    mmq_session_options session = {.struct_size = sizeof session, .context = -5};
    mmq_quantize_options quantize = {.struct_size = sizeof quantize, .format = "int3"};
    mmq_tensor_facts tensor = {.struct_size = sizeof tensor};
    mmq_memory memory = {.struct_size = sizeof memory};
    mmq_session *made;
    int32_t *ids;
    size_t n;

    ck_assert_str_eq(mmq_model_error(model), "");
    ASSERT_FAILS(MMQ_ERR_NOT_FOUND, "", mmq_model_tensor_info(&tensor, model, 12345));
    ck_assert_ptr_nonnull(strstr(mmq_model_error(model), "12345"));
    ASSERT_FAILS(MMQ_ERR_UNSUPPORTED, "", mmq_quantize_layerwise(&out, model, &quantize, NULL));
    ck_assert_ptr_nonnull(strstr(mmq_model_error(model), "int3"));
    ASSERT_FAILS(MMQ_ERR_INVALID, "", mmq_estimate(&memory, model, &session));
    ck_assert_ptr_nonnull(strstr(mmq_model_error(model), "-5"));
    ASSERT_FAILS(MMQ_ERR_INVALID, "", mmq_tokenize(&ids, &n, model, NULL, 0, 0));
    ck_assert_ptr_nonnull(strstr(mmq_model_error(model), "mmq_tokenize"));
    session.context = 0;
    session.mode = "quick";
    ASSERT_FAILS(MMQ_ERR_INVALID, "", mmq_session_create(&made, model, &session));
    ck_assert_ptr_nonnull(strstr(mmq_model_error(model), "quick"));
    mmq_model_free(model);
}
END_TEST

START_TEST(tensors_are_listed_by_canonical_name)
{
    mmq_model_facts facts = {.struct_size = sizeof facts};
    mmq_tensor_facts t = {.struct_size = sizeof t};
    mmq_model *model = tiny_model(NULL);
    uint64_t bytes = 0, parameters = 0;
    int32_t i, found = 0;

    ASSERT_OK(mmq_model_info(&facts, model));
    ck_assert_str_eq(facts.family, "llava");
    for (i = 0; i < facts.n_tensors; i++) {
        ASSERT_OK(mmq_model_tensor_info(&t, model, i));
        bytes += t.bytes;
        parameters += (uint64_t)(t.rows * t.cols);
        if (strcmp(t.name, "language.layers.1.mlp.down") == 0) {
            ck_assert_str_eq(t.file_name, "language_model.model.layers.1.mlp.down_proj.weight");
            ck_assert_str_eq(t.role, "linear");
            found++;
        }
    }
    ck_assert_int_eq(found, 1);
    ck_assert_uint_eq(bytes, facts.stored_bytes);
    ck_assert_uint_eq(parameters, facts.n_parameters);
    ASSERT_FAILS(MMQ_ERR_NOT_FOUND, "tensor", mmq_model_tensor_info(&t, model, facts.n_tensors));
    ASSERT_FAILS(MMQ_ERR_NOT_FOUND, "tensor", mmq_model_tensor_info(&t, model, -1));
    mmq_model_free(model);
}
END_TEST

START_TEST(messages_become_the_templates_words)
{
    mmq_model *model = tiny_model(NULL);
    mmq_image *image = tiny_image(1);
    mmq_part picture = {.struct_size = sizeof picture, .image = image};
    mmq_part text = {.struct_size = sizeof text, .text = "What is it?"};
    mmq_part both = {.struct_size = sizeof both, .text = "x", .image = image};
    const mmq_part *parts[] = {&picture, &text};
    mmq_message message = {sizeof message, "user", parts, 2};
    const mmq_message *messages[] = {&message};
    mmq_prompt prompt = {.struct_size = sizeof prompt, .messages = messages, .n_messages = 1};
    char *words;
    size_t size;

    ASSERT_OK(mmq_render_chat(&words, &size, model, &prompt));
    ck_assert_str_eq(words, "USER: <image>\nWhat is it? ASSISTANT:");
    ck_assert_uint_eq(size, strlen(words));
    mmq_text_free(words);
    parts[0] = &both;
    ASSERT_FAILS(MMQ_ERR_INVALID, "exactly one", mmq_render_chat(&words, &size, model, &prompt));
    parts[0] = NULL;
    ASSERT_FAILS(MMQ_ERR_INVALID, "part is NULL", mmq_render_chat(&words, &size, model, &prompt));
    prompt.text = "both";
    ASSERT_FAILS(MMQ_ERR_INVALID, "alone", mmq_render_chat(&words, &size, model, &prompt));
    mmq_image_free(image);
    mmq_model_free(model);
}
END_TEST

START_TEST(tokens_and_text_go_both_ways)
{
    mmq_model *model = tiny_model(NULL);
    const char *sentence = "A small picture of 3 boats.";
    int32_t *ids;
    size_t n, m, size;
    char *text;

    ASSERT_OK(mmq_tokenize(&ids, &n, model, sentence, SIZE_MAX, 0));
    ASSERT_OK(mmq_detokenize(&text, &size, model, ids, n, 0));
    ck_assert_str_eq(text, sentence);
    ck_assert_uint_eq(size, strlen(sentence));
    mmq_text_free(text);
    mmq_ids_free(ids);
    ASSERT_OK(mmq_tokenize(&ids, &m, model, "", 0, 0));
    ck_assert_uint_eq(m, 0);
    ck_assert_ptr_nonnull(ids);
    mmq_ids_free(ids);
    mmq_model_free(model);
}
END_TEST

START_TEST(a_picture_knows_its_size_and_its_limit)
{
    mmq_image_options options = {.struct_size = sizeof options, .max_pixels = 60 * 50 - 1};
    const uint8_t pixels[4] = {1, 2, 3, 4};
    mmq_image *image = tiny_image(2), *small;
    int32_t width, height;

    ASSERT_OK(mmq_image_size(&width, &height, image));
    ck_assert_int_eq(width, 60);
    ck_assert_int_eq(height, 50);
    mmq_image_free(image);
    ASSERT_FAILS(MMQ_ERR_LIMIT, "", mmq_image_from_pixels(&small, pixels, 60, 50, 1, 0, &options));
    ASSERT_FAILS(MMQ_ERR_INVALID, "", mmq_image_from_pixels(&small, pixels, 0, 2, 1, 0, NULL));
    ASSERT_FAILS(MMQ_ERR_INVALID, "", mmq_image_from_pixels(&small, pixels, 1, 1, 2, 0, NULL));
    ASSERT_FAILS(MMQ_ERR_FORMAT, "picture", mmq_image_read_memory(&small, pixels, 4, NULL));
    ck_assert_ptr_null(small);
}
END_TEST

static int32_t stop_once(void *user, uint64_t done, uint64_t total)
{
    int *calls = user;

    ck_assert_uint_le(done, total);
    return ++*calls == 3;
}

START_TEST(placing_can_be_ended_and_done_again)
{
    int calls = 0;
    mmq_load_options options = {
        .struct_size = sizeof options, .on_progress = stop_once, .progress_user = &calls};
    mmq_model_facts facts = {.struct_size = sizeof facts};
    mmq_model *model = tiny_model(&options);

    ASSERT_FAILS(MMQ_ERR_CALLBACK, "callback", mmq_model_place(model));
    ASSERT_OK(mmq_model_info(&facts, model));
    ck_assert_uint_eq(facts.placed_bytes, 0);
    ASSERT_OK(mmq_model_place(model));
    ASSERT_OK(mmq_model_place(model)); /* twice is no error, and no work */
    ASSERT_OK(mmq_model_info(&facts, model));
    ck_assert_uint_gt(facts.placed_bytes, 0);
    mmq_model_free(model);
    options.on_progress = NULL;
    ASSERT_OK(mmq_cancel_create((mmq_cancel **)&options.cancel));
    mmq_cancel_raise((mmq_cancel *)options.cancel);
    model = tiny_model(&options);
    ASSERT_FAILS(MMQ_ERR_CANCELLED, "cancelled", mmq_model_place(model));
    ASSERT_FAILS(MMQ_ERR_CANCELLED, "cancelled", mmq_model_place(model));
    mmq_model_free(model);
    mmq_cancel_free((mmq_cancel *)options.cancel);
}
END_TEST

START_TEST(pictures_are_read_from_files_unless_the_build_has_no_decoder)
{
#ifdef MMQ_NO_PNG
    const mmq_status png = MMQ_ERR_UNSUPPORTED;
#else
    const mmq_status png = MMQ_OK;
#endif
#ifdef MMQ_NO_JPEG
    const mmq_status jpeg = MMQ_ERR_UNSUPPORTED;
#else
    const mmq_status jpeg = MMQ_OK;
#endif
    mmq_image *image;

    ck_assert_int_eq(
        mmq_image_read_file(&image, source_path("test/golden/llava_tiny/images/waves.png"), NULL),
        png);
    ck_assert((image != NULL) == (png == MMQ_OK));
    mmq_image_free(image);
    ck_assert_int_eq(
        mmq_image_read_file(&image, source_path("test/golden/llava_tiny/images/rings.jpg"), NULL),
        jpeg);
    ck_assert((image != NULL) == (jpeg == MMQ_OK));
    mmq_image_free(image);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("api");
    TCase *tests = tcase_create("api");
    SRunner *runner = srunner_create(suite);
    int failed;

    tcase_set_timeout(tests, 60);
    tcase_add_test(tests, every_status_has_a_name_and_a_text);
    tcase_add_test(tests, the_version_is_the_headers);
    tcase_add_test(tests, a_larger_struct_is_taken_if_what_the_library_does_not_know_is_zero);
    tcase_add_test(tests, a_smaller_struct_means_defaults_and_a_senseless_size_is_refused);
    tcase_add_test(tests, what_is_not_there_is_named);
    tcase_add_test(tests, null_arguments_are_an_error_and_never_a_crash);
    tcase_add_test(tests, results_are_null_or_zero_after_any_failure);
    tcase_add_test(tests, facts_are_zero_after_a_failure);
    tcase_add_test(tests, the_model_keeps_the_line_of_every_call_that_failed_on_it);
    tcase_add_test(tests, tensors_are_listed_by_canonical_name);
    tcase_add_test(tests, messages_become_the_templates_words);
    tcase_add_test(tests, tokens_and_text_go_both_ways);
    tcase_add_test(tests, a_picture_knows_its_size_and_its_limit);
    tcase_add_test(tests, placing_can_be_ended_and_done_again);
    tcase_add_test(tests, pictures_are_read_from_files_unless_the_build_has_no_decoder);
    suite_add_tcase(suite, tests);
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? 1 : 0;
}
