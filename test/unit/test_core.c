/* src/core: what the rest of the library stands on. */
#include <check.h>
#include <locale.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/buf.h"
#include "core/dtype.h"
#include "core/log.h"
#include "core/mem.h"
#include "core/os.h"
#include "core/rng.h"
#include "core/status.h"
#include "core/text.h"
#include "core/utf8.h"
#include "meter.h"

START_TEST(a_message_is_one_printable_line_cut_at_a_whole_character)
{
    char name[2 * MMQI_MESSAGE_BYTES + 1];
    size_t i;

    ck_assert_int_eq(mmqi_fail(MMQ_ERR_IO, "%s: bad", "a\nb\x1b[2J"), MMQ_ERR_IO);
    ck_assert_str_eq(mmqi_message(), "a?b?[2J: bad");
    for (i = 0; i + 1 < sizeof name; i += 2)
        memcpy(name + i, "\xC3\xA4", 2); /* two-byte characters: a cut may fall inside one */
    name[sizeof name - 1] = '\0';
    mmqi_fail(MMQ_ERR_IO, "x%s", name);
    ck_assert_uint_lt(strlen(mmqi_message()), MMQI_MESSAGE_BYTES);
    ck_assert_uint_eq((strlen(mmqi_message()) - 1) % 2, 0);
}
END_TEST

START_TEST(a_message_is_utf8_that_moves_no_cursor_and_turns_no_line)
{
    /* A path's own bytes, a C1 control, a line separator and a right-to-left override. */
    mmqi_fail(MMQ_ERR_IO, "a\xFF"
                          "b\xC2\x9B"
                          "c\xE2\x80\xA8"
                          "d\xE2\x80\xAE"
                          "e\xC3\xA4");
    ck_assert_str_eq(mmqi_message(), "a?b?c?d?e\xC3\xA4");
    mmqi_fail(MMQ_ERR_IO, "%s", "\xE2\x82");
    ck_assert_str_eq(mmqi_message(), "");
}
END_TEST

static void copy_line(void *user, int32_t level, const char *line)
{
    ck_assert_int_eq(level, MMQ_LOG_WARNING);
    ck_assert_ptr_null(mmqi_mem_current());
    snprintf(user, MMQI_MESSAGE_BYTES, "%s", line);
}

START_TEST(a_log_line_is_one_printable_line_and_no_log_formats_nothing)
{
    char line[MMQI_MESSAGE_BYTES] = "";
    const struct mmqi_mem_hooks hooks = {NULL, NULL, NULL};
    const struct mmqi_log log = {copy_line, line}, none = {NULL, line};
    int n = 7;

    mmqi_mem_enter(&hooks);
    mmqi_log(&log, MMQ_LOG_WARNING, "%s: %d", "a\nb", 5);
    ck_assert_ptr_eq(mmqi_mem_current(), &hooks);
    mmqi_mem_enter(NULL);
    ck_assert_str_eq(line, "a?b: 5");
    mmqi_log(NULL, MMQ_LOG_WARNING, "abc%n", &n);
    mmqi_log(&none, MMQ_LOG_WARNING, "abc%n", &n);
    ck_assert_int_eq(n, 7);
    ck_assert_str_eq(line, "a?b: 5");
}
END_TEST

START_TEST(sizes_that_would_wrap_give_no_block)
{
    size_t out = 7;

    ck_assert_ptr_null(mmqi_calloc(SIZE_MAX / 2, 3));
    ck_assert_ptr_null(mmqi_alloc_array(SIZE_MAX, 2));
    ck_assert_ptr_null(mmqi_alloc(SIZE_MAX - 8));
    ck_assert(!mmqi_mul_size(SIZE_MAX, 2, &out));
    ck_assert(!mmqi_add_size(SIZE_MAX, 1, &out));
    ck_assert_uint_eq(out, 7);
}
END_TEST

START_TEST(a_block_goes_back_to_the_hooks_that_made_it)
{
    struct meter meter = {.left = 4};
    struct mmqi_mem_hooks hooks = {meter_alloc, meter_free, &meter};
    void *plain = mmqi_alloc(10), *hooked, *aligned;

    ck_assert_ptr_null(mmqi_mem_enter(&hooks));
    hooked = mmqi_alloc(10);
    aligned = mmqi_alloc_aligned(100);
    ck_assert_uint_eq((uintptr_t)aligned % 64, 0);
    ck_assert_ptr_eq(mmqi_mem_enter(NULL), &hooks);
    ck_assert_int_eq(meter.live, 2);
    hooked = mmqi_realloc_array(hooked, 50, 1); /* outside the hooks: moves to malloc */
    ck_assert_int_eq(meter.live, 1);
    mmqi_free(aligned);
    mmqi_free(hooked);
    mmqi_free(plain);
    ck_assert_int_eq(meter.live, 0);
    meter.left = 0;
    mmqi_mem_enter(&hooks);
    ck_assert_ptr_null(mmqi_alloc(1));
    mmqi_mem_enter(NULL);
}
END_TEST

START_TEST(a_buffer_that_was_refused_memory_says_so_at_the_end)
{
    struct meter meter = {.left = 1};
    struct mmqi_mem_hooks hooks = {meter_alloc, meter_free, &meter};
    struct mmqi_buf buf = {0};
    int i;

    mmqi_mem_enter(&hooks);
    for (i = 0; i < 100; i++)
        mmqi_buf_format(&buf, "%d,", i);
    ck_assert(mmqi_buf_failed(&buf));
    ck_assert_ptr_null(mmqi_buf_take(&buf));
    mmqi_mem_enter(NULL);
    ck_assert_int_eq(meter.live, 0);
}
END_TEST

START_TEST(json_strings_escape_and_replace_what_is_not_utf8)
{
    struct mmqi_buf buf = {0};
    char *text;

    mmqi_buf_json_string(&buf, "a\"\\\n\x01\xC3\xA4\xFF\xED\xA0\x80", 11);
    text = mmqi_buf_take(&buf);
    ck_assert_str_eq(text, "\"a\\\"\\\\\\n\\u0001\xC3\xA4\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD"
                           "\xEF\xBF\xBD\"");
    mmqi_free(text);
}
END_TEST

/* The character at p as plain arithmetic reads it: its one spelling, its value; -1 for none. */
static int32_t plain_utf8(const unsigned char *p, size_t left, size_t *length)
{
    static const int32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    size_t n = p[0] < 0x80 ? 1 : p[0] >> 5 == 6 ? 2 : p[0] >> 4 == 14 ? 3 : p[0] >> 3 == 30 ? 4 : 0;
    int32_t code = n == 1 ? p[0] : p[0] & (0x7F >> n);

    if (n == 0 || n > left)
        return -1;
    for (size_t i = 1; i < n; i++) {
        if (p[i] >> 6 != 2)
            return -1;
        code = code << 6 | (p[i] & 0x3F);
    }
    *length = n;
    return code < least[n] || code > 0x10FFFF || (code >= 0xD800 && code <= 0xDFFF) ? -1 : code;
}

static bool reads_and_writes(const unsigned char p[4])
{
    size_t length, expected = 0;
    char again[4];

    for (size_t left = 1; left <= 4; left++) {
        int32_t code = mmqi_utf8_decode((const char *)p, left, &length);

        if ((code < 0 ? -1 : code) != plain_utf8(p, left, &expected) || length < 1 || length > left)
            return false;
        if (code >= 0 && (length != expected || mmqi_utf8_encode(again, code) != length ||
                          memcmp(again, p, length) != 0))
            return false;
    }
    return true;
}

START_TEST(utf8_is_read_and_written_as_plain_arithmetic_does)
{
    static const unsigned char last[] = {0x00, 0x7F, 0x80, 0xBF, 0xC0, 0xFF};
    unsigned char p[4];
    int n_wrong = 0;

    for (int start = 0; start < 65536; start++)
        for (size_t i = 0; i < sizeof last * sizeof last; i++) {
            p[0] = (unsigned char)(start >> 8);
            p[1] = (unsigned char)start;
            p[2] = last[i / sizeof last];
            p[3] = last[i % sizeof last];
            n_wrong += !reads_and_writes(p);
        }
    ck_assert_int_eq(n_wrong, 0);
}
END_TEST

START_TEST(what_is_no_character_counts_as_its_longest_start)
{
    size_t length;

    ck_assert_int_eq(mmqi_utf8_decode("\xF0\x9F\x98\x80", 3, &length), MMQI_UTF8_PARTIAL);
    ck_assert_uint_eq(length, 3);
    ck_assert_int_eq(mmqi_utf8_decode("\xF0\x9Fx", 3, &length), MMQI_UTF8_INVALID);
    ck_assert_uint_eq(length, 2);
    ck_assert_int_eq(mmqi_utf8_decode("\xED\xA0\x80", 3, &length), MMQI_UTF8_INVALID);
    ck_assert_uint_eq(length, 1);
}
END_TEST

/* German numbers: the machine's, or else made here where the sources of locales are. */
static bool enter_comma_locale(void)
{
    char folder[] = "/tmp/mmq_locale_XXXXXX", command[256];
    bool entered = setlocale(LC_ALL, "de_DE.UTF-8") != NULL;

    if (entered || !mkdtemp(folder))
        return entered;
    snprintf(command, sizeof command, "localedef -i de_DE -f UTF-8 %s/de_DE.UTF-8 >%s/log 2>&1",
             folder, folder);
    if (system(command) == 0 && setenv("LOCPATH", folder, 1) == 0)
        entered = setlocale(LC_ALL, "de_DE.UTF-8") != NULL;
    snprintf(command, sizeof command, "rm -r %s", folder);
    return system(command) == 0 && entered;
}

START_TEST(numbers_do_not_follow_the_hosts_locale)
{
    struct mmqi_buf buf = {0};
    char *end, *text;

    if (!enter_comma_locale()) {
        printf("SKIPPED: there is no locale with a decimal comma\n");
        return;
    }
    ck_assert_double_eq(strtod("1,5", &end), 1.5); /* the host's own numbers do follow it */
    ck_assert_double_eq(mmqi_os_parse_number("1.5x", &end), 1.5);
    ck_assert_str_eq(end, "x");
    mmqi_buf_number(&buf, 0.25);
    mmqi_buf_text(&buf, " ");
    mmqi_buf_number(&buf, NAN);
    text = mmqi_buf_take(&buf);
    ck_assert_str_eq(text, "0.25 null");
    mmqi_free(text);
    setlocale(LC_ALL, "C");
}
END_TEST

START_TEST(every_f16_and_bf16_survives_the_way_to_f32_and_back)
{
    uint32_t bits;

    for (bits = 0; bits < 65536; bits++) {
        float h = mmqi_f32_from_f16((uint16_t)bits), b = mmqi_f32_from_bf16((uint16_t)bits);

        if (isnan(h))
            ck_assert(isnan(mmqi_f32_from_f16(mmqi_f16_from_f32(h))));
        else
            ck_assert_uint_eq(mmqi_f16_from_f32(h), bits);
        if (isnan(b))
            ck_assert(isnan(mmqi_f32_from_bf16(mmqi_bf16_from_f32(b))));
        else
            ck_assert_uint_eq(mmqi_bf16_from_f32(b), bits);
    }
}
END_TEST

START_TEST(sixteen_bit_types_round_to_nearest_even)
{
    /* Ties: to the even one below, then above. */
    ck_assert_uint_eq(mmqi_bf16_from_f32(mmqi_f32_from_bits(0x3f808000)), 0x3f80);
    ck_assert_uint_eq(mmqi_bf16_from_f32(mmqi_f32_from_bits(0x3f818000)), 0x3f82);
    ck_assert_uint_eq(mmqi_bf16_from_f32(mmqi_f32_from_bits(0x3f808001)), 0x3f81);
    ck_assert_uint_eq(mmqi_f16_from_f32(1.0f + 0x1p-11f), 0x3c00);
    ck_assert_uint_eq(mmqi_f16_from_f32(1.0f + 0x3p-11f), 0x3c02);
    ck_assert_uint_eq(mmqi_f16_from_f32(65519.996f), 0x7bff);
    ck_assert_uint_eq(mmqi_f16_from_f32(65520.0f), 0x7c00);
    ck_assert_uint_eq(mmqi_f16_from_f32(0x1p-25f), 0);
    ck_assert_uint_eq(mmqi_f16_from_f32(-0x1.8p-25f), 0x8001);
}
END_TEST

START_TEST(philox_gives_the_papers_known_answers)
{
    uint32_t out[4];

    mmqi_philox(out, 0, 0, 0);
    ck_assert_uint_eq(out[0], 0x6627e8d5u);
    ck_assert_uint_eq(out[1], 0xe169c58du);
    ck_assert_uint_eq(out[2], 0xbc57ac4cu);
    ck_assert_uint_eq(out[3], 0x9b00dbd8u);
    mmqi_philox(out, UINT64_MAX, UINT64_MAX, UINT64_MAX);
    ck_assert_uint_eq(out[0], 0x408f276du);
    ck_assert_double_lt(mmqi_rng_uniform(1, 2, 3), 1.0);
    ck_assert_double_eq(mmqi_rng_uniform(1, 2, 3), mmqi_rng_uniform(1, 2, 3));
    ck_assert_double_ne(mmqi_rng_uniform(1, 2, 3), mmqi_rng_uniform(1, 2, 4));
}
END_TEST

START_TEST(a_file_is_read_by_position_and_its_end_is_an_error)
{
    struct mmqi_os_file *file;
    char path[] = "/tmp/mmq_core_XXXXXX", bytes[4];

    ck_assert_int_ge(mkstemp(path), 0);
    ck_assert_int_eq(mmqi_os_create(&file, path), MMQ_ERR_EXISTS);
    mmqi_os_remove_file(path);
    ck_assert_int_eq(mmqi_os_create(&file, path), MMQ_OK);
    ck_assert_int_eq(mmqi_os_write_at(file, 2, "cdef", 4), MMQ_OK);
    ck_assert_int_eq(mmqi_os_write_at(file, 0, "ab", 2), MMQ_OK);
    ck_assert_int_eq(mmqi_os_sync(file), MMQ_OK);
    mmqi_os_close(file);
    ck_assert_int_eq(mmqi_os_open_read(&file, path), MMQ_OK);
    ck_assert_uint_eq(mmqi_os_file_size(file), 6);
    ck_assert_int_eq(mmqi_os_read_at(file, 1, bytes, 4), MMQ_OK);
    ck_assert_mem_eq(bytes, "bcde", 4);
    ck_assert_int_eq(mmqi_os_read_at(file, 3, bytes, 4), MMQ_ERR_FORMAT);
    ck_assert_ptr_nonnull(strstr(mmqi_message(), path));
    mmqi_os_close(file);
    mmqi_os_remove_file(path);
    ck_assert_int_eq(mmqi_os_open_read(&file, path), MMQ_ERR_NOT_FOUND);
    ck_assert_int_eq(mmqi_os_open_read(&file, "/tmp"), MMQ_ERR_IO);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("core");
    TCase *tests = tcase_create("core");
    SRunner *runner = srunner_create(suite);
    int failed;

    tcase_add_test(tests, a_message_is_one_printable_line_cut_at_a_whole_character);
    tcase_add_test(tests, a_message_is_utf8_that_moves_no_cursor_and_turns_no_line);
    tcase_add_test(tests, a_log_line_is_one_printable_line_and_no_log_formats_nothing);
    tcase_add_test(tests, sizes_that_would_wrap_give_no_block);
    tcase_add_test(tests, a_block_goes_back_to_the_hooks_that_made_it);
    tcase_add_test(tests, a_buffer_that_was_refused_memory_says_so_at_the_end);
    tcase_add_test(tests, json_strings_escape_and_replace_what_is_not_utf8);
    tcase_add_test(tests, utf8_is_read_and_written_as_plain_arithmetic_does);
    tcase_add_test(tests, what_is_no_character_counts_as_its_longest_start);
    tcase_add_test(tests, numbers_do_not_follow_the_hosts_locale);
    tcase_add_test(tests, every_f16_and_bf16_survives_the_way_to_f32_and_back);
    tcase_add_test(tests, sixteen_bit_types_round_to_nearest_even);
    tcase_add_test(tests, philox_gives_the_papers_known_answers);
    tcase_add_test(tests, a_file_is_read_by_position_and_its_end_is_an_error);
    suite_add_tcase(suite, tests);
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? 1 : 0;
}
