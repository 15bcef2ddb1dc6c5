/* src/io/util: sorting, UTF-8, integers, clipped names. */
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

/* The same by decoding: every value that UTF-8 may spell, in its one spelling. */
static size_t plain_utf8_size(const unsigned char *p, size_t left)
{
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    size_t n = p[0] < 0x80 ? 1 : p[0] >> 5 == 6 ? 2 : p[0] >> 4 == 14 ? 3 : p[0] >> 3 == 30 ? 4 : 0;
    uint32_t c = n == 1 ? p[0] : n == 0 ? 0 : p[0] & (0x7Fu >> n);
    size_t i;

    if (n == 0 || n > left)
        return 0;
    for (i = 1; i < n; i++) {
        if (p[i] >> 6 != 2)
            return 0;
        c = c << 6 | (p[i] & 0x3F);
    }
    return c < least[n] || c > 0x10FFFF || (c >= 0xD800 && c <= 0xDFFF) ? 0 : n;
}

START_TEST(measures_utf8_as_decoding_does)
{
    static const unsigned char last[] = {0x00, 0x7F, 0x80, 0xBF, 0xC0, 0xFF};
    unsigned char p[4];
    unsigned a, b;
    size_t i, k, left;

    for (a = 0; a < 256; a++) {
        for (b = 0; b < 256; b++) {
            for (i = 0; i < sizeof last; i++) {
                for (k = 0; k < sizeof last; k++) {
                    p[0] = (unsigned char)a;
                    p[1] = (unsigned char)b;
                    p[2] = last[i];
                    p[3] = last[k];
                    for (left = 1; left <= 4; left++)
                        ck_assert_uint_eq(mmqi_utf8_size((const char *)p, left),
                                          plain_utf8_size(p, left));
                }
            }
        }
    }
    ck_assert_uint_eq(mmqi_utf8_size("a", 0), 0);
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
    tcase_add_test(tests, measures_utf8_as_decoding_does);
    tcase_add_test(tests, clips_long_names_at_whole_characters);
    tcase_add_test(tests, parses_integers_whole_or_not_at_all);
    suite_add_tcase(suite, tests);
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
