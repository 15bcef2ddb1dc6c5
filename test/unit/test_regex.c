/* src/text/regex: the patterns of tokenizers, their preferences, and what is refused. */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "core/status.h"
#include "text/regex.h"

static struct mmqi_regex *compile(const char *pattern)
{
    struct mmqi_regex *regex = NULL;
    const char *why;
    size_t at;

    ck_assert_msg(mmqi_regex_compile(&regex, pattern, strlen(pattern), &why, &at) == MMQ_OK,
                  "'%s': %s at %zu", pattern, why, at);
    return regex;
}

/* Bytes that the pattern takes at the start of `text`; -1 for no match. */
static int taken(const char *pattern, const char *text)
{
    struct mmqi_regex *regex = compile(pattern);
    size_t length = 0;
    uint64_t work = 0;
    bool found = mmqi_regex_match(regex, text, strlen(text), &length, &work);

    mmqi_regex_free(regex);
    return found ? (int)length : -1;
}

static const char qwen[] = "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| "
                           "?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";

START_TEST(cuts_as_the_pattern_of_qwen_says)
{
    ck_assert_int_eq(taken(qwen, "'LL be"), 3);
    ck_assert_int_eq(taken(qwen, "'\xC5\xBF"), 3); /* a long s is an s without regard to case */
    ck_assert_int_eq(taken(qwen, "'x"), 2);
    ck_assert_int_eq(taken(qwen, " word word"), 5);
    ck_assert_int_eq(taken(qwen, "123"), 1);
    ck_assert_int_eq(taken(qwen, " ...\r\n\nx"), 7);
    ck_assert_int_eq(taken(qwen, "  \n  x"), 3);
    ck_assert_int_eq(taken(qwen, "   x"), 2); /* the last space goes to the word */
    ck_assert_int_eq(taken(qwen, "   "), 3);
    ck_assert_int_eq(taken(qwen, "\tx"), 2);
    ck_assert_int_eq(taken(qwen, "\xE4\xBD\xA0\xE5\xA5\xBD"), 6);
    ck_assert_int_eq(taken(qwen, ""), -1);
}
END_TEST

START_TEST(the_first_alternative_that_matches_wins)
{
    ck_assert_int_eq(taken("a|ab", "ab"), 1);
    ck_assert_int_eq(taken("ab|a", "ab"), 2);
    ck_assert_int_eq(taken("ab|a", "ac"), 1);
    ck_assert_int_eq(taken("(?:a|ab)(?:c|bcd)", "abcd"), 4);
    ck_assert_int_eq(taken("(a|b)*c|ab", "abab"), 2);
    ck_assert_int_eq(taken("x|", "y"), 0);
}
END_TEST

START_TEST(repeats_take_as_much_as_lets_the_rest_match)
{
    ck_assert_int_eq(taken("a*ab", "aaab"), 4);
    ck_assert_int_eq(taken("a{2}", "aaa"), 2);
    ck_assert_int_eq(taken("a{2}", "a"), -1);
    ck_assert_int_eq(taken("a{1,3}", "aaaa"), 3);
    ck_assert_int_eq(taken("a{2,}", "aaaa"), 4);
    ck_assert_int_eq(taken("a{2,}", "a"), -1);
    ck_assert_int_eq(taken("(ab|c){2,3}d", "abcabd"), 6);
    ck_assert_int_eq(taken("(ab|c){2,3}d", "abcabcd"), -1);
    ck_assert_int_eq(taken("(a?)*b", "aab"), 3); /* a loop over nothing ends */
    ck_assert_int_eq(taken("(a|b)?c", "c"), 1);
}
END_TEST

START_TEST(classes_know_ranges_categories_and_what_they_leave_out)
{
    ck_assert_int_eq(taken("[a-cx]+", "abxcd"), 4);
    ck_assert_int_eq(taken("[^a-c]", "b"), -1);
    ck_assert_int_eq(taken("[\\p{Lu}\\p{M}]+", "\xC3\x89\xCC\x81z"), 4);
    ck_assert_int_eq(taken("\\P{L}", "a"), -1);
    ck_assert_int_eq(taken("[\\S]", " "), -1);
    ck_assert_int_eq(taken("\\d+", "1\xD9\xA1z"), 3);
    ck_assert_int_eq(taken("[-a]+", "-a-"), 3);
    ck_assert_int_eq(taken("[a-]+", "-a-"), 3);
    ck_assert_int_eq(taken("[\xC3\xA0-\xC3\xBF]", "\xC3\xA9"), 2);
    ck_assert_int_eq(taken(".+", "ab\nc"), 2);
    ck_assert_int_eq(taken("\\.\\/\\[", "./["), 3);
    ck_assert_int_eq(taken("(?i:k)", "\xE2\x84\xAA"), 3); /* the sign of kelvin */
}
END_TEST

START_TEST(refuses_what_it_does_not_run_and_says_what)
{
    static const char *const patterns[] = {
        "",
        "(",
        ")",
        "a)",
        "(?=a)",
        "(?<=a)",
        "(?!ab)",
        "(?!(a))",
        "a*?",
        "a++",
        "*",
        "|*",
        "^a",
        "a$",
        "\\w",
        "\\b",
        "\\1",
        "\\",
        "\\p",
        "\\p{",
        "\\p{Zz}",
        "\\p{}",
        "\\p{Greek}",
        "[",
        "[]",
        "[a",
        "[a-",
        "[b-a]",
        "[\\d-z]",
        "[[:a:]]",
        "[a&&b]",
        "a{",
        "a{}",
        "a{,3}",
        "a{3,2}",
        "a{0}",
        "a{99}",
        "a{1",
        "a{1,",
        "(?i:[a-z])",
        "(?i:\xC3\xA9)",
        "((((((((a))))))))",
    };
    struct mmqi_regex *regex;
    const char *why;
    size_t at;

    for (size_t i = 0; i < sizeof patterns / sizeof *patterns; i++) {
        ck_assert_msg(mmqi_regex_compile(&regex, patterns[i], strlen(patterns[i]), &why, &at) ==
                          MMQ_ERR_UNSUPPORTED,
                      "'%s' was compiled", patterns[i]);
        ck_assert_ptr_null(regex);
        ck_assert_ptr_nonnull(why);
        ck_assert_uint_le(at, strlen(patterns[i]));
    }
}
END_TEST

/* Repeats of repeats grow a program fast; past the limit it is refused, not cut. */
START_TEST(refuses_a_program_that_grows_too_long)
{
    char pattern[4200];
    struct mmqi_regex *regex;
    const char *why;
    size_t at;

    strcpy(pattern, "(((a{8}){8}){8}){8}");
    ck_assert_int_eq(mmqi_regex_compile(&regex, pattern, strlen(pattern), &why, &at),
                     MMQ_ERR_UNSUPPORTED);
    memset(pattern, 'a', sizeof pattern);
    ck_assert_int_eq(mmqi_regex_compile(&regex, pattern, 4000, &why, &at), MMQ_ERR_UNSUPPORTED);
    ck_assert_int_eq(mmqi_regex_compile(&regex, pattern, 4200, &why, &at), MMQ_ERR_UNSUPPORTED);
}
END_TEST

/* A machine that went back over the text would never end. */
START_TEST(no_pattern_makes_it_go_back_over_the_text)
{
    size_t size = 20000, length;
    uint64_t work = 0;
    char *text = malloc(size);
    struct mmqi_regex *regex = compile("(a*)*(a*)*(a*)*(a|a)*b");

    memset(text, 'a', size);
    ck_assert(!mmqi_regex_match(regex, text, size, &length, &work));
    ck_assert_uint_ge(work, size);
    ck_assert_uint_le(work, MMQI_REGEX_STEP * (size + 1));
    mmqi_regex_free(regex);
    free(text);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("regex");
    TCase *tests = tcase_create("regex");
    SRunner *runner;
    int failed;

    tcase_add_test(tests, cuts_as_the_pattern_of_qwen_says);
    tcase_add_test(tests, the_first_alternative_that_matches_wins);
    tcase_add_test(tests, repeats_take_as_much_as_lets_the_rest_match);
    tcase_add_test(tests, classes_know_ranges_categories_and_what_they_leave_out);
    tcase_add_test(tests, refuses_what_it_does_not_run_and_says_what);
    tcase_add_test(tests, refuses_a_program_that_grows_too_long);
    tcase_add_test(tests, no_pattern_makes_it_go_back_over_the_text);
    suite_add_tcase(suite, tests);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed > 0;
}
