/* mmq-eval's questions on the tiny model: what is answered, scored and compared. */
#include <check.h>
#include <math.h>

#include "scratch.h"
#include "tiny.h"

/* The programs' sources belong to no library. */
#include "../../examples/common.c"
#include "../../examples/eval_figures.c"
#include "../../examples/eval_model.c"
#include "../../examples/eval_quiz.c"
#include "../../examples/eval_quiz_run.c"
#include "../../examples/eval_record.c"
#include "../../examples/json.c"

enum { N_QUESTIONS = 5, MAX_TOKENS = 6 };

static const struct {
    const char *images, *question, *kind;
} asked[N_QUESTIONS] = {
    {"\"images/rings.jpg\"", "What is this?", "read"},
    {"\"images/rings.jpg\"", "What are these?", "describe"},
    {"\"images/steps.png\", \"images/rings.jpg\"", "Which is larger?", "two"},
    {"\"images/rings.jpg\", \"images/rings.jpg\"", "Are they equal?", "two"},
    {"", "And without a picture?", "none"},
};

/* questions.jsonl and images/ in the folder at work; truths NULL: "?" for all. */
static void write_questions(char *const truths[N_QUESTIONS])
{
    FILE *file = fopen("questions.jsonl", "w");
    int i;

    ck_assert_ptr_nonnull(file);
    symlink(source_path("test/golden/llava_tiny/images"), "images"); /* may be there */
    for (i = 0; i < N_QUESTIONS; i++) {
        fprintf(file, "{\"images\": [%s], \"question\": \"%s\", \"kind\": \"%s\", \"answer\": ",
                asked[i].images, asked[i].question, asked[i].kind);
        print_json_string(file, truths ? truths[i] : "?");
        fputs("}\n", file);
    }
    ck_assert_int_eq(fclose(file), 0);
}

static bool run_all(struct quiz_run *run, const struct eval_settings *asked_for)
{
    struct eval_settings settings = *asked_for;
    bool done;
    size_t i;

    settings.reference = source_path("test/golden/llava_tiny/model");
    settings.data = ".";
    settings.n_threads = 1;
    settings.max_tokens = settings.max_tokens ? settings.max_tokens : MAX_TOKENS;
    settings.limit = settings.limit ? settings.limit : SIZE_MAX;
    done = quiz_run_open(run, &settings);
    for (i = 0; done && i < run->n; i++)
        done = quiz_run_question(run, i);
    return done && quiz_run_finish(run);
}

/* What a session that holds nothing answers; to be freed. */
static char *answer_alone(const char *const *pictures, size_t n, const char *question)
{
    mmq_model *model = tiny_model(NULL);
    mmq_part parts[3];
    const mmq_part *list[3];
    mmq_message message = {sizeof message, "user", list, n + 1};
    const mmq_message *messages[] = {&message};
    mmq_prompt prompt = {.struct_size = sizeof prompt, .messages = messages, .n_messages = 1};
    mmq_generate_request request = {
        .struct_size = sizeof request, .prompt = &prompt, .max_new_tokens = MAX_TOKENS};
    mmq_image *images[2];
    mmq_session *session;
    mmq_result *result;
    char *text;
    size_t i;

    for (i = 0; i <= n; i++) {
        parts[i] = (mmq_part){.struct_size = sizeof parts[i]};
        if (i < n) {
            ASSERT_OK(mmq_image_read_file(&images[i], pictures[i], NULL));
            parts[i].image = images[i];
        } else {
            parts[i].text = question;
        }
        list[i] = &parts[i];
    }
    ASSERT_OK(mmq_session_create(&session, model, NULL));
    ASSERT_OK(mmq_generate(&result, session, &request));
    text = strdup(mmq_result_text(result));
    mmq_result_free(result);
    mmq_session_free(session);
    for (i = 0; i < n; i++)
        mmq_image_free(images[i]);
    mmq_model_free(model);
    return text;
}

/* The given answer in line i of a file of answers, and its score; the text to be freed. */
static char *answer_in(const char *path, int i, double *score)
{
    struct json_document json;
    size_t size;
    char *all = read_file(path, &size), *line = all, *text;

    while (i-- > 0)
        line = strchr(line, '\n') + 1;
    ck_assert_msg(json_read_text(&json, line, strcspn(line, "\n")), "%s", json.error);
    text = strdup(json_get(&json.values[0], "given")->text);
    *score = json_get(&json.values[0], "score")->number;
    json_free(&json);
    free(all);
    return text;
}

/* The answers of a run become the truths of the next. */
static void learn_truths(char *truths[N_QUESTIONS])
{
    const struct eval_settings settings = {.answers = "answers.jsonl"};
    struct quiz_run run;
    double score;
    int i;

    write_questions(NULL);
    ck_assert_msg(run_all(&run, &settings), "%s", run.error);
    ck_assert_double_eq(quiz_mean(&run.tally.all), 0);
    quiz_run_close(&run);
    for (i = 0; i < N_QUESTIONS; i++) {
        truths[i] = answer_in("answers.jsonl", i, &score);
        ck_assert_double_eq(score, 0);
    }
    write_questions(truths);
}

static void free_truths(char *truths[N_QUESTIONS])
{
    for (int i = 0; i < N_QUESTIONS; i++)
        free(truths[i]);
}

START_TEST(answers_are_those_of_each_question_alone)
{
    static const char *const pictures[N_QUESTIONS][2] = {
        {"images/rings.jpg"},
        {"images/rings.jpg"},
        {"images/steps.png", "images/rings.jpg"},
        {"images/rings.jpg", "images/rings.jpg"},
    };
    static const size_t n_pictures[N_QUESTIONS] = {1, 1, 2, 2, 0};
    char *truths[N_QUESTIONS];
    int i;

    learn_truths(truths);
    for (i = 0; i < N_QUESTIONS; i++) {
        char *alone = answer_alone(pictures[i], n_pictures[i], asked[i].question);

        ck_assert_str_eq(truths[i], alone);
        ck_assert_uint_gt(strlen(alone), 0);
        free(alone);
    }
    free_truths(truths);
}
END_TEST

START_TEST(true_answers_score_one_and_a_wrong_one_lowers_its_kind)
{
    const struct eval_settings settings = {.answers = "again.jsonl"};
    struct quiz_run run;
    char *truths[N_QUESTIONS], *text;
    double score;

    learn_truths(truths);
    ck_assert_msg(run_all(&run, &settings), "%s", run.error);
    ck_assert_uint_eq(run.tally.all.n, N_QUESTIONS);
    ck_assert_double_eq(quiz_mean(&run.tally.all), 1);
    quiz_run_close(&run);
    free(truths[2]);
    truths[2] = strdup("another answer");
    write_questions(truths);
    ck_assert_msg(run_all(&run, &settings), "%s", run.error);
    ck_assert_double_eq(quiz_mean(&run.tally.all), 0.8);
    ck_assert_str_eq(run.quiz.kinds[2], "two");
    ck_assert_uint_eq(run.tally.kind[2].n, 2);
    ck_assert_double_eq(quiz_mean(&run.tally.kind[2]), 0.5);
    ck_assert_double_eq(quiz_mean(&run.tally.kind[0]), 1);
    quiz_run_close(&run);
    text = answer_in("again.jsonl", 2, &score);
    ck_assert_double_eq(score, 0);
    free(text);
    free_truths(truths);
}
END_TEST

START_TEST(a_grey_picture_takes_the_place_of_each)
{
    const struct eval_settings settings = {.grey = true};
    struct quiz_run run;
    char *truths[N_QUESTIONS];
    int32_t width, height, was_width, was_height;
    mmq_image *image;

    learn_truths(truths);
    ck_assert_msg(run_all(&run, &settings), "%s", run.error);
    ck_assert_double_lt(quiz_mean(&run.tally.kind[0]), 1);
    ck_assert_double_eq(quiz_mean(&run.tally.kind[3]), 1); /* no picture to be replaced */
    ck_assert(quiz_run_question(&run, 0));
    ASSERT_OK(mmq_image_size(&width, &height, run.pictures[0].image));
    ASSERT_OK(mmq_image_read_file(&image, "images/rings.jpg", NULL));
    ASSERT_OK(mmq_image_size(&was_width, &was_height, image));
    ck_assert_int_eq(width, was_width);
    ck_assert_int_eq(height, was_height);
    mmq_image_free(image);
    quiz_run_close(&run);
    free_truths(truths);
}
END_TEST

START_TEST(the_pictures_of_the_last_question_are_kept)
{
    const struct eval_settings settings = {.limit = 1};
    struct quiz_run run;
    const mmq_image *rings, *steps;

    write_questions(NULL);
    ck_assert_msg(run_all(&run, &settings), "%s", run.error);
    ck_assert_uint_eq(run.tally.all.n, 1);
    rings = run.pictures[0].image;
    ck_assert(quiz_run_question(&run, 1));
    ck_assert_ptr_eq(run.pictures[0].image, rings);
    ck_assert(quiz_run_question(&run, 2));
    steps = run.pictures[0].image;
    ck_assert_ptr_ne(steps, rings);
    ck_assert_ptr_eq(run.pictures[1].image, rings);
    ck_assert(quiz_run_question(&run, 3));
    ck_assert_ptr_eq(run.pictures[0].image, rings);
    ck_assert(quiz_run_question(&run, 4));
    ck_assert_uint_eq(run.n_pictures, 0);
    quiz_run_close(&run);
}
END_TEST

START_TEST(a_candidate_is_compared_at_the_tokens_of_the_true_answers)
{
    struct eval_settings settings = {.candidate = SOURCE_ROOT "/test/golden/llava_tiny/model"};
    struct eval_divergence_figures figures;
    mmq_quantize_options nf4 = {.struct_size = sizeof nf4, .format = "nf4", .out_path = "packed"};
    mmq_model *model = tiny_model(NULL);
    struct quiz_run run;
    char *truths[N_QUESTIONS];
    size_t tokens = 0, n;
    int32_t *ids;
    int i;

    learn_truths(truths);
    for (i = 0; i < N_QUESTIONS; i++) {
        ASSERT_OK(mmq_tokenize(&ids, &n, model, support_text(" %s", truths[i]), SIZE_MAX, 0));
        tokens += n + 1; /* the end */
        mmq_ids_free(ids);
    }
    ck_assert_msg(run_all(&run, &settings), "%s", run.error);
    ck_assert_ptr_eq(run.measured, &run.side[1]);
    ck_assert_double_eq(quiz_mean(&run.tally.all), 1);
    ck_assert_uint_eq(run.force.divergence.n, tokens);
    figures = eval_divergence_figures(&run.force.divergence);
    ck_assert_double_eq(figures.mean_kl, 0);
    ck_assert_double_eq(figures.kl_p99, 0);
    ck_assert_double_eq(figures.top1_agreement, 1);
    quiz_run_close(&run);

    ASSERT_OK(mmq_quantize_layerwise(NULL, model, &nf4, NULL));
    settings.candidate = "packed";
    ck_assert_msg(run_all(&run, &settings), "%s", run.error);
    ck_assert_double_lt(quiz_mean(&run.tally.all), 1); /* its answers, not the reference's */
    figures = eval_divergence_figures(&run.force.divergence);
    ck_assert_double_gt(figures.mean_kl, 1e-4);
    quiz_run_close(&run);
    mmq_model_free(model);
    free_truths(truths);
}
END_TEST

START_TEST(an_answer_ends_after_the_tokens_it_is_given)
{
    const struct eval_settings one = {.max_tokens = 1, .limit = 1, .answers = "one.jsonl"};
    struct quiz_run run;
    char *truths[N_QUESTIONS], *text;
    double score;

    learn_truths(truths);
    ck_assert_msg(run_all(&run, &one), "%s", run.error);
    quiz_run_close(&run);
    text = answer_in("one.jsonl", 0, &score);
    ck_assert_uint_lt(strlen(text), strlen(truths[0]));
    ck_assert_int_eq(strncmp(text, truths[0], strlen(text)), 0);
    free(text);
    free_truths(truths);
}
END_TEST

START_TEST(a_question_that_is_longer_than_the_context_is_named_with_its_line)
{
    const struct eval_settings settings = {.context = 20};
    struct quiz_run run;

    write_questions(NULL);
    ck_assert(!run_all(&run, &settings));
    ck_assert_ptr_nonnull(strstr(run.error, "./questions.jsonl:1: the answer: "));
    quiz_run_close(&run);
}
END_TEST

START_TEST(what_is_missing_is_named_with_its_line)
{
    struct eval_settings settings = {.limit = 1};
    struct quiz_run run;
    FILE *file;

    ck_assert(!run_all(&run, &settings));
    ck_assert_ptr_nonnull(strstr(run.error, "./questions.jsonl: No such file"));
    quiz_run_close(&run);
    write_questions(NULL);
    settings.candidate = "/nonexistent/model";
    ck_assert(!run_all(&run, &settings));
    ck_assert_ptr_nonnull(strstr(run.error, "/nonexistent/model"));
    quiz_run_close(&run);
    settings.candidate = NULL;
    settings.answers = "/nonexistent/answers";
    ck_assert(!run_all(&run, &settings));
    ck_assert_ptr_nonnull(strstr(run.error, "/nonexistent/answers: No such file"));
    quiz_run_close(&run);
    settings.answers = NULL;
    settings.limit = 0;
    file = fopen("questions.jsonl", "a");
    fputs("{\"images\": [\"images/rings.jpg\", \"absent.png\"], \"question\": \"\", \"answer\": "
          "\"\", \"kind\": \"k\"}\n",
          file);
    fclose(file);
    ck_assert(!run_all(&run, &settings));
    ck_assert_ptr_nonnull(strstr(run.error, "./questions.jsonl:6: absent.png: "));
    ck_assert_uint_eq(run.tally.all.n, N_QUESTIONS);
    ck_assert(quiz_run_question(&run, 0)); /* the models are as good as before */
    quiz_run_close(&run);
}
END_TEST

START_TEST(answers_that_cannot_be_written_end_the_run)
{
    const struct eval_settings settings = {.answers = "/dev/full", .limit = 1};
    struct quiz_run run;

    write_questions(NULL);
    ck_assert(!run_all(&run, &settings));
    ck_assert_str_eq(run.error, "/dev/full: cannot be written");
    quiz_run_close(&run);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("eval_quiz_run");
    TCase *tcase = tcase_create("eval_quiz_run");
    SRunner *runner = srunner_create(suite);
    int failed;

    suite_add_tcase(suite, tcase);
    tcase_add_checked_fixture(tcase, scratch_enter, scratch_leave);
    tcase_set_timeout(tcase, 60);
    tcase_add_test(tcase, answers_are_those_of_each_question_alone);
    tcase_add_test(tcase, true_answers_score_one_and_a_wrong_one_lowers_its_kind);
    tcase_add_test(tcase, a_grey_picture_takes_the_place_of_each);
    tcase_add_test(tcase, the_pictures_of_the_last_question_are_kept);
    tcase_add_test(tcase, a_candidate_is_compared_at_the_tokens_of_the_true_answers);
    tcase_add_test(tcase, an_answer_ends_after_the_tokens_it_is_given);
    tcase_add_test(tcase, a_question_that_is_longer_than_the_context_is_named_with_its_line);
    tcase_add_test(tcase, what_is_missing_is_named_with_its_line);
    tcase_add_test(tcase, answers_that_cannot_be_written_end_the_run);
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? 0 : 1;
}
