/* mmq-eval's runs on the tiny model: what is measured, whatever a session holds by then. */
#include <check.h>
#include <math.h>
#include <unistd.h>

#include "tiny.h"

/* The programs' sources belong to no library. */
#include "../../examples/json.c"
#include "../../examples/eval_record.c"
#include "../../examples/eval_run.c"
#include "../../examples/eval_figures.c"
#include "../../examples/eval_model.c"

enum { N_ENTRIES = 3 };

static const char *const pictures[N_ENTRIES] = {"rings.jpg", "steps.png", "waves.png"};
static const char *const captions[N_ENTRIES] = {"Rings of colour.", "Steps, up and down",
                                                "Waves in the sea that go on and on"};

/* A folder of three entries. The recorded figures are not the model's. */
struct data {
    char dir[64];
};

static void write_data(struct data *data, const char *first_picture)
{
    char path[128];
    FILE *file;
    int i;

    strcpy(data->dir, "/tmp/test_eval_run_XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(data->dir));
    snprintf(path, sizeof path, "%s/images", data->dir);
    ck_assert_int_eq(symlink(source_path("test/golden/llava_tiny/images"), path), 0);
    snprintf(path, sizeof path, "%s/record.json", data->dir);
    file = fopen(path, "w");
    ck_assert_ptr_nonnull(file);
    for (i = 0; i < N_ENTRIES; i++)
        fprintf(file,
                "%s{\"file\": \"%s\", \"captions\": [\"%s\"], \"greedy\": \"\", \"nll_sum\": 0, "
                "\"nll_sum_wrong_picture\": 0, \"tokens\": 1, \"top1\": 0, \"questions\": "
                "[{\"question\": \"Is it %s?\", \"answer\": \"Yes\", \"model\": \"No\", "
                "\"margin\": 0}]}",
                i ? "," : "[", i || !first_picture ? pictures[i] : first_picture, captions[i],
                captions[i]);
    fputs("]", file);
    ck_assert_int_eq(fclose(file), 0);
}

static void remove_data(const struct data *data)
{
    char path[128];

    snprintf(path, sizeof path, "%s/images", data->dir);
    unlink(path);
    snprintf(path, sizeof path, "%s/record.json", data->dir);
    unlink(path);
    rmdir(data->dir);
}

static bool run_all(struct eval_run *run, const struct data *data, const char *candidate,
                    size_t limit)
{
    struct eval_settings settings = {
        .reference = source_path("test/golden/llava_tiny/model"),
        .candidate = candidate,
        .data = data->dir,
        .n_threads = 1,
        .limit = limit,
    };
    bool done = eval_run_open(run, &settings);
    size_t j;

    for (j = 0; done && j < run->record.n; j++)
        if (eval_run_needs(run, j))
            done = eval_run_picture(run, j);
    return done;
}

/* One caption after one picture by a session that holds nothing, from raw text. */
static double nll_alone(const struct eval_run *run, size_t caption, size_t picture, size_t *tokens)
{
    mmq_model *model = run->side[0].m.model;
    mmq_session *session;
    mmq_image *image;
    mmq_evaluation *evaluation;
    mmq_prompt prompt = {.struct_size = sizeof prompt,
                         .text = "USER: <image>\nDescribe the picture. ASSISTANT:",
                         .n_images = 1};
    mmq_evaluate_request request = {.struct_size = sizeof request, .prompt = &prompt};
    char text[100];
    int32_t *ids, targets[100];
    const double *logprobs;
    double nll = 0;
    size_t n, i;

    snprintf(text, sizeof text, " %s", captions[caption]);
    ASSERT_OK(mmq_tokenize(&ids, &n, model, text, SIZE_MAX, 0));
    memcpy(targets, ids, n * sizeof *targets);
    targets[n] = 2;
    snprintf(text, sizeof text, "test/golden/llava_tiny/images/%s", pictures[picture]);
    ASSERT_OK(mmq_image_read_file(&image, source_path(text), NULL));
    prompt.images = (const mmq_image *[]){image};
    request.targets = targets;
    request.n_targets = n + 1;
    ASSERT_OK(mmq_session_create(&session, model, NULL));
    ASSERT_OK(mmq_evaluate(&evaluation, session, &request));
    logprobs = mmq_evaluation_logprobs(evaluation, tokens);
    for (i = 0; i < *tokens; i++)
        nll -= logprobs[i];
    mmq_evaluation_free(evaluation);
    mmq_session_free(session);
    mmq_image_free(image);
    mmq_ids_free(ids);
    return nll;
}

START_TEST(losses_are_those_of_each_caption_alone)
{
    struct eval_run run;
    struct data data;
    double right = 0, wrong = 0;
    size_t tokens = 0, n, i;
    const struct eval_tally *tally;

    write_data(&data, NULL);
    ck_assert_msg(run_all(&run, &data, NULL, SIZE_MAX), "%s", run.error);
    ck_assert(run.side[0].chat_template);
    for (i = 0; i < N_ENTRIES; i++) {
        right += nll_alone(&run, i, i, &n);
        tokens += n;
        wrong += nll_alone(&run, i, (i + 2) % N_ENTRIES, &n);
    }
    tally = &run.measured->tally;
    ck_assert_uint_eq(tally->pictures, N_ENTRIES);
    ck_assert_uint_eq(tally->tokens, tokens);
    ck_assert_uint_eq(tally->captions, N_ENTRIES);
    ck_assert_uint_eq(tally->questions, N_ENTRIES);
    ck_assert_double_eq_tol(tally->nll_sum, right, 1e-4 * right);
    ck_assert_double_eq_tol(tally->nll_sum_wrong_picture, wrong, 1e-4 * wrong);
    ck_assert_double_gt(fabs(right - wrong), 1e-3);
    ck_assert_double_gt(tally->margin_deviation.value, 0);
    ck_assert(isfinite(tally->margin_deviation.value));
    eval_run_close(&run);
    remove_data(&data);
}
END_TEST

START_TEST(a_limit_keeps_the_wrong_picture_of_the_whole_record)
{
    struct eval_run run;
    struct data data;
    size_t n;

    write_data(&data, NULL);
    ck_assert_msg(run_all(&run, &data, NULL, 1), "%s", run.error);
    ck_assert(eval_run_needs(&run, 0));
    ck_assert(!eval_run_needs(&run, 1));
    ck_assert(eval_run_needs(&run, 2)); /* the wrong picture of entry 0 of 3 */
    ck_assert_uint_eq(run.measured->tally.pictures, 1);
    ck_assert_uint_eq(run.measured->tally.captions, 1);
    ck_assert_double_eq_tol(run.measured->tally.nll_sum, nll_alone(&run, 0, 0, &n), 1e-3);
    ck_assert_double_eq_tol(run.measured->tally.nll_sum_wrong_picture, nll_alone(&run, 0, 2, &n),
                            1e-3);
    eval_run_close(&run);
    remove_data(&data);
}
END_TEST

START_TEST(a_candidate_that_is_the_reference_does_not_diverge)
{
    struct eval_divergence_figures figures;
    struct eval_run run;
    struct data data;

    write_data(&data, NULL);
    ck_assert_msg(run_all(&run, &data, source_path("test/golden/llava_tiny/model"), SIZE_MAX), "%s",
                  run.error);
    ck_assert_ptr_eq(run.measured, &run.side[1]);
    ck_assert_uint_eq(run.force.divergence.n, run.side[0].tally.tokens);
    figures = eval_divergence_figures(&run.force.divergence);
    ck_assert_double_eq(figures.mean_kl, 0);
    ck_assert_double_eq(figures.kl_p999, 0);
    ck_assert_double_eq(figures.top1_agreement, 1);
    ck_assert_double_eq(run.side[0].tally.nll_sum, run.side[1].tally.nll_sum);
    eval_run_close(&run);
    remove_data(&data);
}
END_TEST

/* Logits as a callback of the library gives them, in place of a model. */
START_TEST(rows_of_another_shape_or_not_finite_end_the_run)
{
    struct eval_force force = {.n_rows = 2};
    struct eval_model model = {.n_vocab = 2};
    struct force_work work = {.force = &force, .m = &model, .logits = EVAL_KEEP, .n = 2};
    const float row[] = {0, 1, 2}, broken[] = {NAN, NAN};

    ck_assert(prepare_rows(&work));
    ck_assert_int_eq(take_row(&work, 1, row, 2), 0);
    ck_assert_int_eq(take_row(&work, 2, row, 2), 1);
    ck_assert_int_eq(take_row(&work, 0, row, 3), 1);
    ck_assert_ptr_nonnull(strstr(force.error, "another shape"));
    work.logits = EVAL_COMPARE;
    ck_assert_int_eq(take_row(&work, 1, row, 2), 0);
    ck_assert_int_eq(take_row(&work, 1, broken, 2), 1);
    ck_assert_ptr_nonnull(strstr(force.error, "not finite"));
    work.n = 3;
    ck_assert(!prepare_rows(&work));
    ck_assert_ptr_nonnull(strstr(force.error, "2 and 3 tokens"));
    eval_force_free(&force);
}
END_TEST

START_TEST(what_is_missing_is_named)
{
    struct eval_run run;
    struct data data;
    const struct data nowhere = {"/nonexistent"};

    ck_assert(!run_all(&run, &nowhere, NULL, 1));
    ck_assert_ptr_nonnull(strstr(run.error, "/nonexistent/record.json"));
    eval_run_close(&run);
    write_data(&data, "absent.png");
    ck_assert(!run_all(&run, &data, NULL, 1));
    ck_assert_ptr_nonnull(strstr(run.error, "entry 0 (absent.png): the picture: "));
    eval_run_close(&run);
    ck_assert(!run_all(&run, &data, "/nonexistent/model", 1));
    ck_assert_ptr_nonnull(strstr(run.error, "/nonexistent/model"));
    eval_run_close(&run);
    remove_data(&data);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("eval_run");
    TCase *tcase = tcase_create("eval_run");
    SRunner *runner = srunner_create(suite);
    int failed;

    suite_add_tcase(suite, tcase);
    tcase_set_timeout(tcase, 120);
    tcase_add_test(tcase, losses_are_those_of_each_caption_alone);
    tcase_add_test(tcase, a_limit_keeps_the_wrong_picture_of_the_whole_record);
    tcase_add_test(tcase, a_candidate_that_is_the_reference_does_not_diverge);
    tcase_add_test(tcase, rows_of_another_shape_or_not_finite_end_the_run);
    tcase_add_test(tcase, what_is_missing_is_named);
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? 0 : 1;
}
