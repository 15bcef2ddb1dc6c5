/* src/io/settings: config files as paths, and what is said of wrong values. */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "core/buf.h"
#include "core/mem.h"
#include "core/status.h"
#include "io/settings.h"
#include "meter.h"

static int32_t parse(struct mmqi_settings **out, const char *text)
{
    return mmqi_settings_parse(out, "config.json", text, strlen(text));
}

static struct mmqi_settings *settings_of(const char *text)
{
    struct mmqi_settings *settings;

    ck_assert_msg(parse(&settings, text) == MMQ_OK, "%s", mmqi_message());
    return settings;
}

static const char sample[] =
    "{\"model_type\":\"llava\",\"text_config\":{\"hidden_size\":64,\"rope_theta\":1e4,"
    "\"rope\":[1,2.5,{\"type\":\"x\"}],\"tie\":false,\"empty\":{},\"none\":null},"
    "\"list\":[],\"use\":true,\"eps\":1e-05,\"big\":1000000000000000019884624838656,"
    "\"neg\":-3,\"zero\":\"a\\u0000b\"}";

START_TEST(finds_every_value_by_its_path)
{
    struct mmqi_settings *s = settings_of(sample);
    int64_t whole = 0;
    double number = 0;
    bool flag = true;
    const char *text = NULL;

    ck_assert_str_eq(mmqi_settings_name(s), "config.json");
    ck_assert_int_eq(mmqi_settings_string(s, "model_type", &text), MMQ_OK);
    ck_assert_str_eq(text, "llava");
    ck_assert_int_eq(mmqi_settings_int(s, "text_config.hidden_size", 1, 64, &whole), MMQ_OK);
    ck_assert_int_eq(whole, 64);
    ck_assert_int_eq(mmqi_settings_int(s, "neg", -3, 0, &whole), MMQ_OK);
    ck_assert_int_eq(whole, -3);
    ck_assert_int_eq(mmqi_settings_int(s, "text_config.rope.0", 0, 9, &whole), MMQ_OK);
    ck_assert_int_eq(whole, 1);
    ck_assert_int_eq(mmqi_settings_number(s, "text_config.rope_theta", 0, 1e9, &number), MMQ_OK);
    ck_assert_double_eq(number, 1e4);
    ck_assert_int_eq(mmqi_settings_number(s, "text_config.hidden_size", 0, 1e9, &number), MMQ_OK);
    ck_assert_double_eq(number, 64);
    ck_assert_int_eq(mmqi_settings_number(s, "text_config.rope.1", 0, 9, &number), MMQ_OK);
    ck_assert_double_eq(number, 2.5);
    ck_assert_int_eq(mmqi_settings_number(s, "big", 0, 1e300, &number), MMQ_OK);
    ck_assert_double_eq(number, 1000000000000000019884624838656.0);
    ck_assert_int_eq(mmqi_settings_string(s, "text_config.rope.2.type", &text), MMQ_OK);
    ck_assert_str_eq(text, "x");
    ck_assert_int_eq(mmqi_settings_bool(s, "text_config.tie", &flag), MMQ_OK);
    ck_assert(!flag);
    ck_assert_int_eq(mmqi_settings_bool(s, "use", &flag), MMQ_OK);
    ck_assert(flag);
    mmqi_settings_free(s);
    mmqi_settings_free(NULL);
}
END_TEST

START_TEST(keeps_the_default_where_a_path_is_absent_or_null)
{
    static const char *const paths[] = {
        "none", "text_config.none", "text_config.rope.3", "text_config.rope.00", "", "text_config.",
        "Use"};
    struct mmqi_settings *s = settings_of(sample);
    size_t i;

    for (i = 0; i < sizeof paths / sizeof paths[0]; i++) {
        int64_t whole = 7;
        double number = 7;
        bool flag = true;
        const char *text = "seven";

        ck_assert(!mmqi_settings_has(s, paths[i]));
        ck_assert_int_eq(mmqi_settings_int(s, paths[i], 0, 1, &whole), MMQ_OK);
        ck_assert_int_eq(mmqi_settings_number(s, paths[i], 0, 1, &number), MMQ_OK);
        ck_assert_int_eq(mmqi_settings_bool(s, paths[i], &flag), MMQ_OK);
        ck_assert_int_eq(mmqi_settings_string(s, paths[i], &text), MMQ_OK);
        ck_assert_int_eq(mmqi_settings_count(s, paths[i]), -1);
        ck_assert(whole == 7 && number == 7 && flag && strcmp(text, "seven") == 0);
    }
    mmqi_settings_free(s);
}
END_TEST

START_TEST(lists_containers_so_that_presence_can_be_asked)
{
    struct mmqi_settings *s = settings_of(sample);

    ck_assert(mmqi_settings_has(s, "text_config"));
    ck_assert(mmqi_settings_has(s, "text_config.empty"));
    ck_assert(mmqi_settings_has(s, "list"));
    ck_assert(mmqi_settings_has(s, "text_config.tie"));
    ck_assert_int_eq(mmqi_settings_count(s, "list"), 0);
    ck_assert_int_eq(mmqi_settings_count(s, "text_config.rope"), 3);
    ck_assert_int_eq(mmqi_settings_count(s, "text_config"), -1);
    ck_assert_int_eq(mmqi_settings_count(s, "use"), -1);
    mmqi_settings_free(s);
}
END_TEST

START_TEST(says_file_key_value_and_what_was_expected)
{
    struct mmqi_settings *s = settings_of(sample);
    int64_t whole = 7;
    double number = 7;
    bool flag = false;
    const char *text = NULL;

    ck_assert_int_eq(mmqi_settings_int(s, "text_config.hidden_size", 65, 99, &whole),
                     MMQ_ERR_FORMAT);
    ck_assert_str_eq(mmqi_message(), "config.json: 'text_config.hidden_size' is 64, expected an "
                                     "integer from 65 to 99");
    ck_assert_int_eq(mmqi_settings_int(s, "eps", 0, 99, &whole), MMQ_ERR_FORMAT);
    ck_assert_int_eq(mmqi_settings_int(s, "big", 0, INT64_MAX, &whole), MMQ_ERR_FORMAT);
    ck_assert_int_eq(mmqi_settings_int(s, "use", 0, 99, &whole), MMQ_ERR_FORMAT);
    ck_assert_int_eq(mmqi_settings_int(s, "list", 0, 99, &whole), MMQ_ERR_FORMAT);
    ck_assert_ptr_nonnull(strstr(mmqi_message(), "'list' is an array"));
    ck_assert_int_eq(mmqi_settings_number(s, "eps", 0.5, 1, &number), MMQ_ERR_FORMAT);
    ck_assert_str_eq(mmqi_message(),
                     "config.json: 'eps' is 1e-05, expected a number from 0.5 to 1");
    ck_assert_int_eq(mmqi_settings_number(s, "model_type", 0, 1, &number), MMQ_ERR_FORMAT);
    ck_assert_int_eq(mmqi_settings_bool(s, "eps", &flag), MMQ_ERR_FORMAT);
    ck_assert_int_eq(mmqi_settings_bool(s, "model_type", &flag), MMQ_ERR_FORMAT);
    ck_assert_str_eq(mmqi_message(), "config.json: 'model_type' is the string \"llava\", expected "
                                     "true or false");
    ck_assert_int_eq(mmqi_settings_string(s, "use", &text), MMQ_ERR_FORMAT);
    ck_assert_ptr_nonnull(strstr(mmqi_message(), "'use' is true, expected a string"));
    ck_assert_int_eq(mmqi_settings_string(s, "zero", &text), MMQ_ERR_FORMAT);
    ck_assert(whole == 7 && number == 7 && !flag && !text);
    mmqi_settings_free(s);
}
END_TEST

START_TEST(a_path_below_what_cannot_hold_it_is_not_absent)
{
    static const struct {
        const char *path, *message;
    } wrong[] = {
        {"model_type.name",
         "config.json: 'model_type' is the string \"llava\", expected an object"},
        {"text_config.hidden_size.0", "'text_config.hidden_size' is 64, expected an array"},
        {"text_config.rope.type", "'text_config.rope' is an array, expected an object"},
        {"text_config.0", "'text_config' is an object, expected an array"},
        {"use.a.b", "'use' is true, expected an object"},
    };
    struct mmqi_settings *s = settings_of(sample);
    int64_t whole = 7;

    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        ck_assert_int_eq(mmqi_settings_int(s, wrong[i].path, 0, 9, &whole), MMQ_ERR_FORMAT);
        ck_assert_ptr_nonnull(strstr(mmqi_message(), wrong[i].message));
        ck_assert_int_eq(whole, 7);
    }
    ck_assert_int_eq(mmqi_settings_int(s, "text_config.none.a", 0, 9, &whole), MMQ_OK);
    ck_assert_int_eq(mmqi_settings_int(s, "no.such.path", 0, 9, &whole), MMQ_OK);
    mmqi_settings_free(s);
}
END_TEST

START_TEST(no_settings_hold_nothing)
{
    int64_t whole = 7;

    ck_assert(!mmqi_settings_has(NULL, "a"));
    ck_assert_int_eq(mmqi_settings_int(NULL, "a", 0, 1, &whole), MMQ_OK);
    ck_assert_int_eq(whole, 7);
    ck_assert_int_eq(mmqi_settings_count(NULL, "a"), -1);
    ck_assert_str_eq(mmqi_settings_name(NULL), "");
}
END_TEST

static const char *const broken[] = {
    "",
    "[]",
    "[1]",
    "1",
    "null",
    "{",
    "{\"a\":1}x",
    "{\"a\":1,\"a\":2}",
    "{\"a.b\":1,\"a\":{\"b\":2}}",
    "{\"a\":[1],\"a.0\":2}",
    "{\"\":{\"a\":1},\"a\":2}",
    "{\"a\\u0000\":1}",
};

START_TEST(refuses_what_is_no_list_of_settings)
{
    struct mmqi_settings *settings;

    ck_assert_int_eq(parse(&settings, broken[_i]), MMQ_ERR_FORMAT);
    ck_assert_ptr_null(settings);
    ck_assert_ptr_eq(strstr(mmqi_message(), "config.json: "), mmqi_message());
}
END_TEST

START_TEST(takes_an_empty_object_and_an_empty_key)
{
    struct mmqi_settings *s = settings_of("{}");

    ck_assert(!mmqi_settings_has(s, ""));
    mmqi_settings_free(s);
    s = settings_of("{\"\":1}");
    ck_assert(mmqi_settings_has(s, ""));
    mmqi_settings_free(s);
}
END_TEST

/* {"<key>":[0,0,...]} */
static int32_t parse_items(size_t key_size, int n)
{
    struct mmqi_buf buf = {0};
    struct mmqi_settings *settings;
    int32_t status;
    size_t i;

    mmqi_buf_text(&buf, "{\"");
    for (i = 0; i < key_size; i++)
        mmqi_buf_text(&buf, "k");
    mmqi_buf_text(&buf, "\":[0");
    for (i = 1; i < (size_t)n; i++)
        mmqi_buf_text(&buf, ",0");
    mmqi_buf_text(&buf, "]}");
    status = mmqi_settings_parse(&settings, "config.json", buf.data, buf.size);
    ck_assert_int_eq(mmqi_settings_count(settings, "k"),
                     status == MMQ_OK && key_size == 1 ? n : -1);
    mmqi_settings_free(settings);
    mmqi_buf_free(&buf);
    return status;
}

START_TEST(bounds_entries_and_text)
{
    ck_assert_int_eq(parse_items(1, 65534), MMQ_OK); /* with the root and the array: 65536 */
    ck_assert_int_eq(parse_items(1, 65535), MMQ_ERR_FORMAT);
    ck_assert_ptr_nonnull(strstr(mmqi_message(), "more than 65536 settings"));
    ck_assert_int_eq(parse_items(1000, 1000), MMQ_OK);
    ck_assert_int_eq(parse_items(100000, 1000), MMQ_ERR_FORMAT); /* paths of 100 MB in all */
    ck_assert_ptr_nonnull(strstr(mmqi_message(), "more than 4194304 bytes of paths"));
    ck_assert_int_eq(parse_items((1 << 20) - 7, 1), MMQ_ERR_FORMAT);
    ck_assert_str_eq(mmqi_message(), "config.json: has 1048577 bytes, at most 1048576 are read");
    ck_assert_int_eq(parse_items((1 << 20) - 8, 1), MMQ_OK);
}
END_TEST

START_TEST(fails_cleanly_wherever_memory_runs_out)
{
    struct meter meter = {0};
    int n;
    struct mmqi_mem_hooks hooks = {meter_alloc, meter_free, &meter};
    int32_t status = MMQ_ERR_NOMEM;

    for (n = 0; status == MMQ_ERR_NOMEM; n++) {
        const struct mmqi_mem_hooks *before = mmqi_mem_enter(&hooks);
        struct mmqi_settings *settings;

        meter.left = n;
        status = parse(&settings, sample);
        mmqi_settings_free(settings);
        mmqi_mem_enter(before);
        ck_assert_int_eq(meter.live, 0);
        ck_assert_int_lt(n, 60);
    }
    ck_assert_int_eq(status, MMQ_OK);
    ck_assert_int_gt(n, 6);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("settings");
    TCase *tests = tcase_create("settings");
    SRunner *runner = srunner_create(suite);
    int failed;

    tcase_set_timeout(tests, 60);
    tcase_add_test(tests, finds_every_value_by_its_path);
    tcase_add_test(tests, keeps_the_default_where_a_path_is_absent_or_null);
    tcase_add_test(tests, lists_containers_so_that_presence_can_be_asked);
    tcase_add_test(tests, says_file_key_value_and_what_was_expected);
    tcase_add_test(tests, a_path_below_what_cannot_hold_it_is_not_absent);
    tcase_add_test(tests, no_settings_hold_nothing);
    tcase_add_loop_test(tests, refuses_what_is_no_list_of_settings, 0,
                        (int)(sizeof broken / sizeof broken[0]));
    tcase_add_test(tests, takes_an_empty_object_and_an_empty_key);
    tcase_add_test(tests, bounds_entries_and_text);
    tcase_add_test(tests, fails_cleanly_wherever_memory_runs_out);
    suite_add_tcase(suite, tests);
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
