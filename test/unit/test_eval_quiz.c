/* What mmq-eval does with questions without a model: reading them, scoring answers. */
#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The programs' sources belong to no library. */
#include "../../examples/eval_figures.c"
#include "../../examples/eval_model.c"
#include "../../examples/eval_quiz.c"
#include "../../examples/eval_record.c"
#include "../../examples/json.c"

static char path[] = "/tmp/test_eval_quiz_XXXXXX";

static bool read_bytes(struct quiz *quiz, const char *bytes, size_t size)
{
    int file;
    bool done;

    strcpy(path + sizeof path - 7, "XXXXXX");
    file = mkstemp(path);
    ck_assert_int_ge(file, 0);
    ck_assert_int_eq(write(file, bytes, size), (ssize_t)size);
    close(file);
    done = quiz_read(quiz, path);
    unlink(path);
    return done;
}

/* It is refused with one line of file, line number and `what`, and nothing is held. */
static void refuses(const char *bytes, size_t size, size_t line, const char *what)
{
    struct quiz quiz;
    char place[256];

    ck_assert_msg(!read_bytes(&quiz, bytes, size), "read: %.80s", bytes);
    snprintf(place, sizeof place, "%s:%zu: ", path, line);
    ck_assert_msg(strncmp(quiz.error, place, strlen(place)) == 0, "'%s' is not of '%s'", quiz.error,
                  place);
    ck_assert_msg(strstr(quiz.error, what) != NULL, "'%s' does not say '%s'", quiz.error, what);
    ck_assert_ptr_null(strchr(quiz.error, '\n'));
    ck_assert_ptr_null(quiz.items);
}

/* ---- reading --------------------------------------------------------------------------------- */

#define GOOD                                                                                       \
    "{\"images\": [\"a.png\"], \"question\": \"How many?\", \"answer\": \"3\", \"kind\": "         \
    "\"count\"}\n"

START_TEST(questions_hold_what_the_file_says)
{
    static const char text[] =
        GOOD "{\"id\": [7], \"kind\": \"which is \\u00fc\", \"answer\": \" yes\\n\", "
             "\"question\": \"\", \"images\": [\"x/a b.jpg\", \"c.png\"]}\r\n"
             "{\"images\": [], \"question\": \"Q\", \"answer\": \"\", \"kind\": \"count\"}";
    struct quiz quiz;

    ck_assert_msg(read_bytes(&quiz, text, sizeof text - 1), "%s", quiz.error);
    ck_assert_uint_eq(quiz.n, 3);
    ck_assert_uint_eq(quiz.n_kinds, 2);
    ck_assert_str_eq(quiz.kinds[0], "count");
    ck_assert_str_eq(quiz.kinds[1], "which is \xC3\xBC");
    ck_assert_uint_eq(quiz.items[0].n_images, 1);
    ck_assert_str_eq(quiz.items[0].images, "a.png");
    ck_assert_str_eq(quiz.items[0].question, "How many?");
    ck_assert_str_eq(quiz.items[0].answer, "3");
    ck_assert_uint_eq(quiz.items[1].n_images, 2);
    ck_assert_mem_eq(quiz.items[1].images, "x/a b.jpg\0c.png", 16);
    ck_assert_str_eq(quiz.items[1].answer, " yes\n");
    ck_assert_uint_eq(quiz.items[1].kind, 1);
    ck_assert_uint_eq(quiz.items[2].n_images, 0);
    ck_assert_uint_eq(quiz.items[2].kind, 0);
    quiz_free(&quiz);
    quiz_free(&quiz);
}
END_TEST

#define LINE(images, question, answer, kind)                                                       \
    "{\"images\": " images ", \"question\": " question ", \"answer\": " answer ", \"kind\": " kind \
    "}"
static const struct {
    const char *line, *error;
} bad_lines[] = {
    {"", "byte "},
    {"no json", "byte "},
    {GOOD " x", "byte "}, /* two lines: the second is bad */
    {"{\"images\": []", "byte "},
    {"\xEF\xBB\xBF{}", "byte "},
    {"{\"a\": \"\x80\"}", "byte "},
    {"{\"answer\": \"a\", \"answer\": \"b\"}", "byte "},
    {"[]", "no object"},
    {"7", "no object"},
    {"null", "no object"},
    {"{}", "'images' is missing"},
    {LINE("\"a.png\"", "\"\"", "\"\"", "\"k\""), "'images' is no array"},
    {LINE("[1]", "\"\"", "\"\"", "\"k\""), "'images' holds what is no string"},
    {LINE("[\"\"]", "\"\"", "\"\"", "\"k\""), "'images' holds what is no file name in the folder"},
    {LINE("[\"/etc/a\"]", "\"\"", "\"\"", "\"k\""), "no file name in the folder"},
    {LINE("[\"../a\"]", "\"\"", "\"\"", "\"k\""), "no file name in the folder"},
    {LINE("[\"a/../b\"]", "\"\"", "\"\"", "\"k\""), "no file name in the folder"},
    {LINE("[\"a//b\"]", "\"\"", "\"\"", "\"k\""), "no file name in the folder"},
    {LINE("[\"a/\"]", "\"\"", "\"\"", "\"k\""), "no file name in the folder"},
    {LINE("[\"a\\nb\"]", "\"\"", "\"\"", "\"k\""), "no file name in the folder"},
    {LINE("[0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0]", "\"\"", "\"\"", "\"k\""), "'images' is too long"},
    {"{\"images\": [], \"answer\": \"\", \"kind\": \"k\"}", "'question' is missing"},
    {LINE("[]", "null", "\"\"", "\"k\""), "'question' is no string"},
    {"{\"images\": [], \"question\": \"\", \"kind\": \"k\"}", "'answer' is missing"},
    {LINE("[]", "\"\"", "3", "\"k\""), "'answer' is no string"},
    {"{\"images\": [], \"question\": \"\", \"answer\": \"\"}", "'kind' is missing"},
    {LINE("[]", "\"\"", "\"\"", "[\"k\"]"), "'kind' is no string"},
    {LINE("[]", "\"\"", "\"\"", "\"\""), "'kind' is empty"},
    {LINE("[]", "\"\"", "\"\"", "\"a\\u001b[2J\""), "'kind' holds control characters"},
};

START_TEST(a_bad_line_is_named_by_file_and_number)
{
    char text[1024];
    int n = snprintf(text, sizeof text, "%s%s\n%s", GOOD, bad_lines[_i].line, GOOD);

    refuses(text, (size_t)n, strncmp(bad_lines[_i].line, GOOD, 20) == 0 ? 3 : 2,
            bad_lines[_i].error);
}
END_TEST

START_TEST(a_zero_byte_is_refused)
{
    refuses("{\0}\n", 4, 1, "byte 1");
}
END_TEST

START_TEST(no_questions_and_no_file_are_told)
{
    struct quiz quiz;

    refuses("", 0, 1, "no questions");
    ck_assert(!quiz_read(&quiz, "/nonexistent/questions.jsonl"));
    ck_assert_ptr_nonnull(strstr(quiz.error, "/nonexistent/questions.jsonl: No such file"));
    ck_assert(!quiz_read(&quiz, "/"));
    ck_assert_int_eq(strncmp(quiz.error, "/", 1), 0);
}
END_TEST

START_TEST(texts_and_lines_have_a_greatest_length)
{
    static const char *const format =
        "{\"images\": [%s], \"question\": \"%s\", \"answer\": \"%s\", "
        "\"kind\": \"%s\"}";
    static const struct {
        int which;
        size_t most;
        const char *error;
    } rows[] = {{0, QUIZ_MOST_NAME_BYTES, "'images' holds what is no file name"},
                {1, QUIZ_MOST_TEXT_BYTES, "'question' is too long"},
                {2, QUIZ_MOST_TEXT_BYTES, "'answer' is too long"},
                {3, QUIZ_MOST_KIND_BYTES, "'kind' is too long"}};
    char *text = malloc(2 * QUIZ_MOST_LINE_BYTES), *longest = malloc(QUIZ_MOST_TEXT_BYTES + 4);
    struct quiz quiz;

    for (size_t r = 0; r < sizeof rows / sizeof *rows; r++)
        for (size_t more = 0; more < 2; more++) {
            const char *part[4] = {"", "", "", "k"};
            size_t n = rows[r].most + more, quotes = rows[r].which == 0;

            memset(longest, 'x', n + 2 * quotes);
            longest[n + 2 * quotes] = '\0';
            if (quotes)
                longest[0] = longest[n + 1] = '"';
            part[rows[r].which] = longest;
            n = (size_t)sprintf(text, format, part[0], part[1], part[2], part[3]);
            if (more)
                refuses(text, n, 1, rows[r].error);
            else
                ck_assert_msg(read_bytes(&quiz, text, n), "%s", quiz.error);
            if (!more)
                quiz_free(&quiz);
        }
    memset(text, ' ', 2 * QUIZ_MOST_LINE_BYTES);
    memcpy(text, GOOD, sizeof GOOD - 2);
    ck_assert_msg(read_bytes(&quiz, text, QUIZ_MOST_LINE_BYTES), "%s", quiz.error);
    quiz_free(&quiz);
    refuses(text, QUIZ_MOST_LINE_BYTES + 1, 1, "a line of more than 65536 bytes");
    free(longest);
    free(text);
}
END_TEST

START_TEST(kinds_are_at_most_64)
{
    char *text = malloc(1 << 16), *end = text;
    struct quiz quiz;
    int i;

    for (i = 0; i < 2 * QUIZ_MOST_KINDS; i++)
        end += sprintf(end,
                       "{\"images\": [], \"question\": \"\", \"answer\": \"\", \"kind\": "
                       "\"k%d\"}\n",
                       i % QUIZ_MOST_KINDS);
    ck_assert_msg(read_bytes(&quiz, text, (size_t)(end - text)), "%s", quiz.error);
    ck_assert_uint_eq(quiz.n_kinds, QUIZ_MOST_KINDS);
    ck_assert_str_eq(quiz.kinds[quiz.items[127].kind], "k63");
    quiz_free(&quiz);
    end += sprintf(end, GOOD);
    refuses(text, (size_t)(end - text), 129, "'kind' is one kind too many");
    free(text);
}
END_TEST

START_TEST(a_million_questions_are_read_and_one_more_is_refused)
{
    static const char line[] = "{\"images\":[],\"question\":\"\",\"answer\":\"\",\"kind\":\"k\"}\n";
    size_t size = sizeof line - 1, i;
    char *text = malloc(size * (QUIZ_MOST_ITEMS + 1));
    struct quiz quiz;

    for (i = 0; i <= QUIZ_MOST_ITEMS; i++)
        memcpy(text + i * size, line, size);
    ck_assert_msg(read_bytes(&quiz, text, size * QUIZ_MOST_ITEMS), "%s", quiz.error);
    ck_assert_uint_eq(quiz.n, QUIZ_MOST_ITEMS);
    quiz_free(&quiz);
    refuses(text, size * (QUIZ_MOST_ITEMS + 1), QUIZ_MOST_ITEMS + 1, "more than 1000000 questions");
    free(text);
}
END_TEST

START_TEST(a_file_cut_anywhere_is_read_to_a_whole_line_or_refused)
{
    static const char text[] = GOOD GOOD;
    size_t line = sizeof GOOD - 1, n;
    struct quiz quiz;

    for (n = 1; n < sizeof text - 1; n++) {
        bool whole = n == line - 1 || n == line || n == 2 * line - 1;

        if (!whole) {
            refuses(text, n, n < line ? 1 : 2, "byte ");
            continue;
        }
        ck_assert_msg(read_bytes(&quiz, text, n), "%s", quiz.error);
        ck_assert_uint_eq(quiz.n, n <= line ? 1 : 2);
        quiz_free(&quiz);
    }
}
END_TEST

/* ---- scores ---------------------------------------------------------------------------------- */

START_TEST(an_answer_scores_when_it_is_equal_but_for_blanks_at_its_ends)
{
    ck_assert_double_eq(quiz_score("count", "3", "3"), 1);
    ck_assert_double_eq(quiz_score("count", " 3\n", "\t3 "), 1);
    ck_assert_double_eq(quiz_score("count", "", " \n"), 1);
    ck_assert_double_eq(quiz_score("count", "3", "4"), 0);
    ck_assert_double_eq(quiz_score("count", "3", "3."), 0);
    ck_assert_double_eq(quiz_score("count", "3", ""), 0);
    ck_assert_double_eq(quiz_score("colour", "red, blue", "blue, red"), 0);
    ck_assert_double_eq(quiz_score("colour", "Red", "red"), 0);
    ck_assert_double_eq(quiz_score("read", "a b", "a  b"), 0);
}
END_TEST

static const struct {
    const char *truth, *answer;
    double f1;
} f1_rows[] = {
    {"", "", 1},
    {" ", "\n", 1},
    {"a", "", 0},
    {"", "a", 0},
    {"a", "a", 1},
    {"a, b", "b, a", 1},
    {" a, b\n", "a, b", 1},
    {"a, b", "a", 2.0 / 3},
    {"a", "a, b", 2.0 / 3},
    {"a, a, b", "a, b, b", 4.0 / 6}, /* as often as it stands there */
    {"a, a, a", "a", 2.0 / 4},
    {"a, b, c", "d, e", 0},
    {"a,b", "a, b", 0}, /* one item, two items */
    {"big red disc, a", "big red disc, b", 2.0 / 4},
    {"a, ", "a,", 1},            /* stripped first: "a," both */
    {"a, , b", "a, b", 4.0 / 5}, /* an empty item is one */
};

START_TEST(a_description_scores_the_f1_of_its_items)
{
    ck_assert_double_eq_tol(quiz_score("describe", f1_rows[_i].truth, f1_rows[_i].answer),
                            f1_rows[_i].f1, 1e-15);
}
END_TEST

START_TEST(a_description_of_very_many_items_is_scored)
{
    size_t n = QUIZ_MOST_TEXT_BYTES, i;
    char *truth = malloc(n + 1), *answer = malloc(2 * n + 1);

    for (i = 0; i < 2 * n; i++)
        answer[i] = i % 2 ? ' ' : ',';
    answer[2 * n - 1] = 'x';
    answer[2 * n] = '\0';
    memcpy(truth, answer, n);
    truth[n - 1] = 'x';
    truth[n] = '\0';
    /* n / 2 - 1 separators and "x" behind the last comma: empty items but the last */
    ck_assert_double_eq_tol(quiz_score("describe", truth, answer),
                            2.0 * (double)(n / 2) / (1.5 * (double)n), 1e-12);
    ck_assert_double_eq(quiz_score("describe", truth, truth), 1);
    free(truth);
    free(answer);
}
END_TEST

START_TEST(the_mean_is_over_all_questions_and_over_those_of_a_kind)
{
    struct quiz_tally tally = {.all.n = 0};

    ck_assert(isnan(quiz_mean(&tally.all)));
    quiz_tally_add(&tally, 0, 1);
    quiz_tally_add(&tally, 0, 0.5);
    quiz_tally_add(&tally, 2, 0);
    ck_assert_double_eq(quiz_mean(&tally.all), 0.5);
    ck_assert_double_eq(quiz_mean(&tally.kind[0]), 0.75);
    ck_assert_double_eq(quiz_mean(&tally.kind[2]), 0);
    ck_assert_uint_eq(tally.kind[0].n, 2);
    ck_assert(isnan(quiz_mean(&tally.kind[1])));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("eval_quiz");
    TCase *reading = tcase_create("reading"), *scores = tcase_create("scores");
    SRunner *runner = srunner_create(suite);
    int failed;

    suite_add_tcase(suite, reading);
    suite_add_tcase(suite, scores);
    tcase_set_timeout(reading, 60);
    tcase_add_test(reading, questions_hold_what_the_file_says);
    tcase_add_loop_test(reading, a_bad_line_is_named_by_file_and_number, 0,
                        sizeof bad_lines / sizeof *bad_lines);
    tcase_add_test(reading, a_zero_byte_is_refused);
    tcase_add_test(reading, no_questions_and_no_file_are_told);
    tcase_add_test(reading, texts_and_lines_have_a_greatest_length);
    tcase_add_test(reading, kinds_are_at_most_64);
    tcase_add_test(reading, a_million_questions_are_read_and_one_more_is_refused);
    tcase_add_test(reading, a_file_cut_anywhere_is_read_to_a_whole_line_or_refused);
    tcase_add_test(scores, an_answer_scores_when_it_is_equal_but_for_blanks_at_its_ends);
    tcase_add_loop_test(scores, a_description_scores_the_f1_of_its_items, 0,
                        sizeof f1_rows / sizeof *f1_rows);
    tcase_add_test(scores, a_description_of_very_many_items_is_scored);
    tcase_add_test(scores, the_mean_is_over_all_questions_and_over_those_of_a_kind);
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? 0 : 1;
}
