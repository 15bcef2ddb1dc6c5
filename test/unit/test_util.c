/* src/io/util: sorting, integers, clipped names. */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "io/util.h"

static bool key_before(const void *context, uint32_t a, uint32_t b)
{
    const uint32_t *keys = context;

    return keys[a] != keys[b] ? keys[a] < keys[b] : a < b;
}

START_TEST(sorts_any_order_of_any_length)
{
    uint32_t keys[257], order[257], seen[257], state = 5;
    size_t n, i;
    int kind;

    for (n = 0; n <= 257; n++) {
        for (kind = 0; kind < 4; kind++) {
            memset(seen, 0, sizeof seen);
            for (i = 0; i < n; i++) {
                state = state * 1664525 + 1013904223;
                keys[i] = kind == 0   ? (uint32_t)i
                          : kind == 1 ? (uint32_t)(n - i)
                          : kind == 2 ? 7
                                      : state >> 24;
                order[i] = (uint32_t)i;
            }
            mmqi_sort(order, n, key_before, keys);
            for (i = 0; i < n; i++) {
                ck_assert(i == 0 || key_before(keys, order[i - 1], order[i]));
                ck_assert_uint_eq(seen[order[i]]++, 0);
            }
        }
    }
}
END_TEST

START_TEST(clips_long_names_at_whole_characters)
{
    char name[2 * MMQI_CLIP_BYTES];

    memset(name, 'x', sizeof name);
    ck_assert_int_eq(mmqi_clip(name, 5), 5);
    ck_assert_int_eq(mmqi_clip(name, MMQI_CLIP_BYTES), MMQI_CLIP_BYTES);
    ck_assert_int_eq(mmqi_clip(name, sizeof name), MMQI_CLIP_BYTES);
    memcpy(name + MMQI_CLIP_BYTES - 2, "\xE2\x82\xAC", 3);
    ck_assert_int_eq(mmqi_clip(name, sizeof name), MMQI_CLIP_BYTES - 2);
    name[MMQI_CLIP_BYTES] = 'x';
    memcpy(name + MMQI_CLIP_BYTES - 3, "\xE2\x82\xAC", 3);
    ck_assert_int_eq(mmqi_clip(name, sizeof name), MMQI_CLIP_BYTES);
    memset(name, 0x80, sizeof name); /* no UTF-8 at all */
    ck_assert_int_eq(mmqi_clip(name, sizeof name), 0);
}
END_TEST

START_TEST(parses_integers_whole_or_not_at_all)
{
    int64_t value = 7;

    ck_assert(mmqi_parse_integer("-9223372036854775808", &value) && value == INT64_MIN);
    ck_assert(mmqi_parse_integer("9223372036854775807", &value) && value == INT64_MAX);
    ck_assert(mmqi_parse_integer("-0", &value) && value == 0);
    value = 7;
    ck_assert(!mmqi_parse_integer("9223372036854775808", &value));
    ck_assert(!mmqi_parse_integer("-9223372036854775809", &value));
    ck_assert(!mmqi_parse_integer("", &value));
    ck_assert(!mmqi_parse_integer("-", &value));
    ck_assert(!mmqi_parse_integer("1.0", &value));
    ck_assert(!mmqi_parse_integer("1e3", &value));
    ck_assert_int_eq(value, 7);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("util");
    TCase *tests = tcase_create("util");
    SRunner *runner = srunner_create(suite);
    int failed;

    tcase_set_timeout(tests, 60);
    tcase_add_test(tests, sorts_any_order_of_any_length);
    tcase_add_test(tests, clips_long_names_at_whole_characters);
    tcase_add_test(tests, parses_integers_whole_or_not_at_all);
    suite_add_tcase(suite, tests);
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
