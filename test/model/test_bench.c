/* mmq-bench's made-up checkpoints and what it counts. */
#include "model/tiny.h"

/* The programs' sources belong to no library. */
#include "../../examples/bench_model.c"
#include "../../examples/bench_run.c"

static mmq_model *load_shape(struct bench_model *files, const char *name, const char *format)
{
    mmq_reader reader = bench_reader(files);
    mmq_load_options load = {
        .struct_size = sizeof load, .n_threads = 2, .quantize = format, .reader = &reader};
    mmq_model *model;

    ASSERT_OK(mmq_load(&model, name, &load));
    return model;
}

START_TEST(bytes_do_not_depend_on_how_they_are_read)
{
    struct bench_model *files = open_bench_model(find_bench_shape("llava-tiny"));
    mmq_reader reader = bench_reader(files);
    uint64_t size, at;
    size_t n, cut;
    char *whole, *parts;
    void *file;

    ck_assert_ptr_nonnull(files);
    ck_assert_int_eq(reader.open(reader.user, "none.json", &file), MMQ_ERR_NOT_FOUND);
    ck_assert_int_eq(reader.open(reader.user, "model.safetensors", &file), MMQ_OK);
    ck_assert_int_eq(reader.size(reader.user, file, &size), MMQ_OK);
    whole = malloc(size);
    parts = malloc(size);
    ck_assert_int_eq(reader.read_at(reader.user, file, 0, whole, size), MMQ_OK);
    for (cut = 1; cut < 5000; cut = cut * 3 + 2) {
        for (at = 0; at < size; at += n) {
            n = size - at < cut ? size - at : cut;
            ck_assert_int_eq(reader.read_at(reader.user, file, at, parts + at, n), MMQ_OK);
        }
        ck_assert_int_eq(memcmp(whole, parts, size), 0);
    }
    ck_assert_int_eq(reader.read_at(reader.user, file, size, parts, 1), MMQ_ERR_FORMAT);
    reader.close(reader.user, file);
    free(whole);
    free(parts);
    close_bench_model(files);
}
END_TEST

static const struct {
    const char *name;
    double parameters; /* in millions */
} expected[] = {{"llava-tiny", 0.36},  {"llava-1b", 1412},    {"llava-1.5-7b", 7063},
                {"llava-8b", 8356},    {"qwen2-vl-2b", 2209}, {"qwen2-vl-7b", 8291},
                {"qwen2-vl-tiny", 0.4}};

START_TEST(every_shape_is_a_checkpoint_that_loads)
{
    struct bench_model *files = open_bench_model(find_bench_shape(expected[_i].name));
    mmq_model *model = load_shape(files, expected[_i].name, NULL);
    mmq_model_facts facts = {.struct_size = sizeof facts};

    ASSERT_OK(mmq_model_info(&facts, model));
    ck_assert_str_eq(facts.family, expected[_i].name[0] == 'q' ? "qwen2_vl" : "llava");
    ck_assert_double_eq_tol((double)facts.n_parameters * 1e-6, expected[_i].parameters,
                            expected[_i].parameters * 0.1);
    mmq_model_free(model);
    close_bench_model(files);
}
END_TEST

START_TEST(an_unknown_shape_is_none)
{
    ck_assert_ptr_null(find_bench_shape("llava-2b"));
}
END_TEST

static const char *const formats[] = {"bf16", "int8", "nf4", "int4"};

START_TEST(a_bench_runs_what_it_says_and_counts_the_bytes_that_decoding_reads)
{
    const struct bench_settings settings = {
        .n_prompt = 50, .n_decode = 5, .n_tries = 2, .vision = true, .letters = true};
    struct bench_model *files = open_bench_model(find_bench_shape("llava-tiny"));
    mmq_model *model = load_shape(files, "tiny", _i > 0 ? formats[_i] : NULL);
    struct bench_figures f = {.n_prompt = 0};
    /* Of every layer: four products of attention, three of the mlp; then the head, in bf16. */
    uint64_t linears = 3 * (2 * 96 * 96 + 2 * 32 * 96 + 3 * 112 * 96), head = 456 * 96;
    uint64_t vectors = (3 * 2 + 1) * 96 * 4, least, most;

    ASSERT_OK(measure_rates(&f.rates, model, NULL, 1 << 22));
    ck_assert_double_gt(f.rates.read, 0);
    ck_assert_double_gt(f.rates.copy, 0);
    ASSERT_OK(run_bench(&f, model, &settings));
    ck_assert_str_eq(f.mode, "exact");
    ck_assert_int_eq(f.n_prompt, 50);
    ck_assert_int_eq(f.n_decode, 5);
    ck_assert_double_gt(f.prefill_seconds, 0);
    ck_assert_double_gt(f.decode_seconds, 0);
    ck_assert_double_gt(f.encode_seconds, 0);
    ck_assert_double_eq(f.row_products, 2.0 * (double)linears);
    ck_assert_double_eq(f.prompt_products, 2.0 * (double)head);
    ck_assert_int_eq(f.n_products, 4);
    least = vectors + 2 * head + (_i == 0 ? 2 * linears : _i == 1 ? linears : linears / 2);
    most = least + (_i == 0 ? 0 : linears / 8 + 21 * 64 * 4);
    ck_assert_uint_ge(f.token_bytes, least);
    ck_assert_uint_le(f.token_bytes, most);
    ck_assert_int_eq(f.n_formats, _i == 0 ? 1 : 2);
    mmq_model_free(model);
    close_bench_model(files);
}
END_TEST

START_TEST(a_qwen2_vl_of_random_weights_runs_pictures_and_words)
{
    const struct bench_settings settings = {
        .n_prompt = 50, .n_decode = 5, .n_tries = 1, .vision = true, .letters = true};
    struct bench_model *files = open_bench_model(find_bench_shape("qwen2-vl-tiny"));
    mmq_model *model = load_shape(files, "tiny", "int4-g32");
    struct bench_figures f = {.n_prompt = 0};

    ASSERT_OK(run_bench(&f, model, &settings));
    ck_assert_int_eq(f.n_decode, 5);
    ck_assert_double_gt(f.encode_seconds, 0);
    ck_assert_uint_gt(f.token_bytes, 2 * 456 * 96); /* the tied head is read */
    mmq_model_free(model);
    close_bench_model(files);
}
END_TEST

START_TEST(a_prompt_of_no_given_length_fits_the_context)
{
    const struct bench_settings settings = {
        .n_prompt = -1, .n_decode = 3, .n_tries = 1, .letters = true};
    struct bench_model *files = open_bench_model(find_bench_shape("llava-tiny"));
    mmq_model *model = load_shape(files, "tiny", NULL);
    mmq_model_facts facts = {.struct_size = sizeof facts};
    struct bench_figures f = {.n_prompt = 0};

    ASSERT_OK(mmq_model_info(&facts, model));
    ck_assert_int_le(facts.max_context, 512); /* so that 512 rows and an answer do not fit */
    ASSERT_OK(run_bench(&f, model, &settings));
    ck_assert_int_gt(f.n_prompt, facts.max_context / 2);
    ck_assert_int_le(f.n_prompt + f.n_decode, facts.max_context);
    mmq_model_free(model);
    close_bench_model(files);
}
END_TEST

START_TEST(a_folder_is_prompted_with_as_many_tokens_as_wanted)
{
    mmq_model *model = tiny_model(NULL);
    mmq_status status;
    size_t n;
    int32_t *ids;
    char *text = make_prompt(&status, model, 40, false);

    ASSERT_OK(status);
    ASSERT_OK(mmq_tokenize(&ids, &n, model, text, SIZE_MAX, 1));
    ck_assert_uint_ge(n, 38);
    ck_assert_uint_le(n, 42);
    mmq_ids_free(ids);
    free(text);
    mmq_model_free(model);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("bench");
    TCase *tests = tcase_create("bench");
    SRunner *runner = srunner_create(suite);
    int failed;

    tcase_set_timeout(tests, 60);
    tcase_add_test(tests, bytes_do_not_depend_on_how_they_are_read);
    tcase_add_loop_test(tests, every_shape_is_a_checkpoint_that_loads, 0, 7);
    tcase_add_test(tests, an_unknown_shape_is_none);
    tcase_add_test(tests, a_qwen2_vl_of_random_weights_runs_pictures_and_words);
    tcase_add_loop_test(tests, a_bench_runs_what_it_says_and_counts_the_bytes_that_decoding_reads,
                        0, sizeof formats / sizeof formats[0]);
    tcase_add_test(tests, a_prompt_of_no_given_length_fits_the_context);
    tcase_add_test(tests, a_folder_is_prompted_with_as_many_tokens_as_wanted);
    suite_add_tcase(suite, tests);
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? 1 : 0;
}
