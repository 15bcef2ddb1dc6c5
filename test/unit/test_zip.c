/* src/io/zip: what lies where in an archive, and archives that lie. */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "core/mem.h"
#include "core/rng.h"
#include "core/status.h"
#include "io/zip.h"
#include "memory_files.h"
#include "meter.h"
#include "torch_file.h"

static struct memory_files memory;

static int32_t parse_bytes(struct mmqi_zip *zip, const void *data, size_t size)
{
    struct mmqi_store *store = memory_store(&memory);
    struct mmqi_file *file;
    int32_t status;

    memory.n_files = 0;
    memory_add(&memory, "a.bin", data, size);
    ck_assert_int_eq(mmqi_file_open(&file, store, "a.bin"), MMQ_OK);
    status = mmqi_zip_parse(zip, file);
    mmqi_file_close(file);
    mmqi_store_release(store);
    ck_assert_int_eq(memory.n_open, 0);
    return status;
}

static int32_t parse(struct mmqi_zip *zip, const struct zip_item *items, size_t n,
                     const struct zip_end *end)
{
    struct mmqi_buf buf = {0};
    int32_t status;

    zip_make(&buf, items, n, end);
    status = parse_bytes(zip, buf.data, buf.size);
    mmqi_buf_free(&buf);
    return status;
}

static void expect(int32_t wanted, const char *why, const struct zip_item *items, size_t n,
                   const struct zip_end *end)
{
    struct mmqi_zip zip;

    ck_assert_msg(parse(&zip, items, n, end) == wanted, "%s: '%s'", why, mmqi_message());
    ck_assert_msg(strstr(mmqi_message(), why) != NULL, "'%s' says not '%s'", mmqi_message(), why);
    ck_assert_ptr_null(zip.entries);
    ck_assert_ptr_null(zip.names);
}

static const struct zip_item three[] = {
    {.name = "m/z", .data = "zzzz", .size = 4, .local_extra = 7},
    {.name = "m/a", .data = "aa", .size = 2, .wide = true, .flags = 0x808},
    {.name = "m/dir/", .size = 0},
};

static void check_three(const struct mmqi_buf *buf)
{
    struct mmqi_zip zip;
    const struct mmqi_zip_entry *entry;

    ck_assert_msg(parse_bytes(&zip, buf->data, buf->size) == MMQ_OK, "%s", mmqi_message());
    ck_assert_uint_eq(zip.n_entries, 3);
    ck_assert_str_eq(zip.entries[0].name, "m/a");
    entry = mmqi_zip_find(&zip, "m/z");
    ck_assert_ptr_eq(entry, &zip.entries[2]);
    ck_assert_uint_eq(entry->bytes, 4);
    ck_assert_mem_eq(buf->data + entry->offset, "zzzz", 4);
    entry = mmqi_zip_find(&zip, "m/a");
    ck_assert_uint_eq(entry->bytes, 2);
    ck_assert_mem_eq(buf->data + entry->offset, "aa", 2);
    ck_assert_ptr_null(mmqi_zip_find(&zip, "m"));
    mmqi_zip_clear(&zip);
}

START_TEST(finds_entries_by_name_with_and_without_64_bit_records)
{
    static const struct zip_end ends[] = {{.wide = false},
                                          {.wide = true},
                                          {.comment = "a comment"},
                                          {.comment = "PK\5\6", .wide = 1}};
    struct mmqi_buf buf = {0};

    zip_make(&buf, three, 3, &ends[_i]);
    check_three(&buf);
    mmqi_buf_free(&buf);
}
END_TEST

START_TEST(an_archive_without_entries_is_one)
{
    struct mmqi_zip zip;

    ck_assert_int_eq(parse(&zip, NULL, 0, NULL), MMQ_OK);
    ck_assert_uint_eq(zip.n_entries, 0);
    ck_assert_ptr_null(mmqi_zip_find(&zip, ""));
    mmqi_zip_clear(&zip);
}
END_TEST

static const struct {
    int32_t status;
    const char *why;
    struct zip_item item;
} bad_items[] = {
    {MMQ_ERR_UNSUPPORTED, "'m/a' is compressed (method 8)", {.name = "m/a", .method = 8}},
    {MMQ_ERR_UNSUPPORTED, "'m/a' is encrypted", {.name = "m/a", .flags = 1}},
    {MMQ_ERR_UNSUPPORTED, "'m/a' is encrypted", {.name = "m/a", .flags = 0x40}},
    {MMQ_ERR_FORMAT, "'m/../a' has a name", {.name = "m/../a"}},
    {MMQ_ERR_FORMAT, "'..' has a name", {.name = ".."}},
    {MMQ_ERR_FORMAT, "'/a' has a name", {.name = "/a"}},
    {MMQ_ERR_FORMAT, "'m\\a' has a name", {.name = "m\\a"}},
    {MMQ_ERR_FORMAT, "'c:a' has a name", {.name = "c:a"}},
    {MMQ_ERR_FORMAT, "'' has a name", {.name = ""}},
    {MMQ_ERR_FORMAT, "'m/a' has no header", {.name = "m/a", .local_name = "m/b"}},
    {MMQ_ERR_FORMAT, "'m/a' has no header", {.name = "m/a", .local_name = "m/aa"}},
    {MMQ_ERR_FORMAT,
     "'m/a' has no header",
     {.name = "m/a", .data = "1234", .size = 4, .said_offset = 1}},
    {MMQ_ERR_FORMAT, "'m/a' lies past", {.name = "m/a", .said_offset = 1000}},
    {MMQ_ERR_FORMAT, "'m/a' lies past", {.name = "m/a", .said_offset = UINT64_MAX, .wide = true}},
    {MMQ_ERR_FORMAT, "'m/a' of 5 bytes reaches past", {.name = "m/a", .said_size = 5}},
    {MMQ_ERR_FORMAT, "reaches past", {.name = "m/a", .said_size = INT64_MAX, .wide = true}},
    {MMQ_ERR_FORMAT, "'m/a' lacks its 64-bit", {.name = "m/a", .said_size = UINT32_MAX}},
    {MMQ_ERR_FORMAT,
     "with two sizes",
     {.name = "m/a", .data = "1234", .size = 4, .said_packed = 2}},
};

START_TEST(refuses_an_entry_that_is_not_stored_or_not_where_it_says)
{
    expect(bad_items[_i].status, bad_items[_i].why, &bad_items[_i].item, 1, NULL);
}
END_TEST

START_TEST(refuses_two_entries_of_one_name)
{
    const struct zip_item items[] = {{.name = "m/a", .data = "1", .size = 1},
                                     {.name = "m/b"},
                                     {.name = "m/a", .data = "2", .size = 1}};

    expect(MMQ_ERR_FORMAT, "'m/a' is there twice", items, 3, NULL);
}
END_TEST

START_TEST(refuses_entries_that_overlap)
{
    struct zip_item items[] = {{.name = "m/a", .data = "1", .size = 1},
                               {.name = "m/b", .data = "2", .size = 1}};

    items[0].said_size = 2;
    expect(MMQ_ERR_FORMAT, "'m/b' overlaps", items, 2, NULL);
    items[0].said_size = 30;
    expect(MMQ_ERR_FORMAT, "'m/b' overlaps", items, 2, NULL);
}
END_TEST

static const struct {
    int32_t status;
    const char *why;
    struct zip_end end;
} bad_ends[] = {
    {MMQ_ERR_UNSUPPORTED, "several disks", {.disk = 1}},
    {MMQ_ERR_UNSUPPORTED, "several disks", {.disk = 1, .wide = true}},
    {MMQ_ERR_FORMAT, "cannot hold", {.said_n = 4}},
    {MMQ_ERR_FORMAT, "in the zip directory's last", {.said_size = 178}},
    {MMQ_ERR_FORMAT, "are no entry", {.said_n = 2}},
    {MMQ_ERR_FORMAT, "cannot hold", {.said_n = 1000}},
    {MMQ_ERR_FORMAT, "at most", {.said_n = UINT64_MAX, .wide = true}},
    {MMQ_ERR_FORMAT, "the zip directory needs bytes", {.said_size = 10000}},
    {MMQ_ERR_FORMAT, "the zip directory needs bytes", {.said_size = UINT64_MAX, .wide = true}},
    {MMQ_ERR_FORMAT, "the zip directory needs bytes", {.said_offset = 10000}},
    {MMQ_ERR_FORMAT, "the zip directory needs bytes", {.said_offset = UINT64_MAX, .wide = true}},
    {MMQ_ERR_FORMAT, "fewer entries than it counts", {.said_offset = 4}},
    {MMQ_ERR_FORMAT, "is said to lie at byte", {.said_end64 = UINT64_MAX, .wide = true}},
    {MMQ_ERR_FORMAT, "is said to lie at byte", {.said_end64 = 5000, .wide = true}},
    {MMQ_ERR_FORMAT, "no zip64 end record at byte 3", {.said_end64 = 3, .wide = true}},
};

START_TEST(refuses_end_records_that_lie)
{
    expect(bad_ends[_i].status, bad_ends[_i].why, three, 3, &bad_ends[_i].end);
}
END_TEST

START_TEST(refuses_what_is_no_archive)
{
    static const char *const texts[] = {"", "P", "PK\3\4", "plain text, longer than an end record"};
    struct mmqi_zip zip;

    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        ck_assert_int_eq(parse_bytes(&zip, texts[i], strlen(texts[i])), MMQ_ERR_FORMAT);
        ck_assert_ptr_nonnull(strstr(mmqi_message(), "memory/a.bin: no zip archive"));
    }
}
END_TEST

START_TEST(refuses_an_archive_cut_off_at_any_byte)
{
    struct mmqi_buf buf = {0};
    struct mmqi_zip zip;

    zip_make(&buf, three, 3, &(struct zip_end){.wide = true});
    for (size_t size = 0; size < buf.size; size++) {
        char *copy = malloc(size + 1);

        memcpy(copy, buf.data, size);
        ck_assert_int_eq(parse_bytes(&zip, copy, size), MMQ_ERR_FORMAT);
        free(copy);
    }
    mmqi_buf_free(&buf);
}
END_TEST

START_TEST(what_survives_random_damage_lies_inside_the_file)
{
    struct mmqi_buf buf = {0};
    int n_good = 0;

    zip_make(&buf, three, 3, &(struct zip_end){.wide = true});
    for (uint64_t round = 0; round < 20000; round++) {
        char *copy = malloc(buf.size);
        struct mmqi_zip zip;

        memcpy(copy, buf.data, buf.size);
        for (uint64_t k = 0; k <= round % 3; k++)
            copy[(size_t)(mmqi_rng_uniform(1, round, k) * (double)buf.size)] =
                (char)(int)(mmqi_rng_uniform(2, round, k) * 256);
        if (parse_bytes(&zip, copy, buf.size) == MMQ_OK) {
            n_good++;
            for (size_t i = 0; i < zip.n_entries; i++) {
                ck_assert_uint_le(zip.entries[i].offset, buf.size);
                ck_assert_uint_le(zip.entries[i].bytes, buf.size - zip.entries[i].offset);
            }
        }
        mmqi_zip_clear(&zip);
        free(copy);
    }
    ck_assert_int_gt(n_good, 100);
    mmqi_buf_free(&buf);
}
END_TEST

START_TEST(fails_cleanly_wherever_memory_runs_out)
{
    struct meter meter = {0};
    struct mmqi_mem_hooks hooks = {meter_alloc, meter_free, &meter};
    struct mmqi_store *store = memory_store(&memory);
    struct mmqi_buf buf = {0};
    struct mmqi_file *file;
    int32_t status = MMQ_ERR_NOMEM;
    int n;

    zip_make(&buf, three, 3, NULL);
    memory_add(&memory, "a.bin", buf.data, buf.size);
    ck_assert_int_eq(mmqi_file_open(&file, store, "a.bin"), MMQ_OK);
    for (n = 0; status == MMQ_ERR_NOMEM; n++) {
        const struct mmqi_mem_hooks *before = mmqi_mem_enter(&hooks);
        struct mmqi_zip zip;

        meter.left = n;
        status = mmqi_zip_parse(&zip, file);
        mmqi_zip_clear(&zip);
        mmqi_mem_enter(before);
        ck_assert_int_eq(meter.live, 0);
        ck_assert_int_lt(n, 20);
    }
    ck_assert_int_eq(status, MMQ_OK);
    ck_assert_int_gt(n, 4);
    memory.fail_with = MMQ_ERR_IO;
    ck_assert_int_eq(mmqi_zip_parse(&(struct mmqi_zip){0}, file), MMQ_ERR_IO);
    mmqi_file_close(file);
    mmqi_store_release(store);
    mmqi_buf_free(&buf);
}
END_TEST

#define COUNT(array) ((int)(sizeof(array) / sizeof(array)[0]))

int main(void)
{
    Suite *suite = suite_create("zip");
    TCase *tests = tcase_create("zip");
    SRunner *runner = srunner_create(suite);
    int failed;

    tcase_set_timeout(tests, 60);
    tcase_add_loop_test(tests, finds_entries_by_name_with_and_without_64_bit_records, 0, 4);
    tcase_add_test(tests, an_archive_without_entries_is_one);
    tcase_add_loop_test(tests, refuses_an_entry_that_is_not_stored_or_not_where_it_says, 0,
                        COUNT(bad_items));
    tcase_add_test(tests, refuses_two_entries_of_one_name);
    tcase_add_test(tests, refuses_entries_that_overlap);
    tcase_add_loop_test(tests, refuses_end_records_that_lie, 0, COUNT(bad_ends));
    tcase_add_test(tests, refuses_what_is_no_archive);
    tcase_add_test(tests, refuses_an_archive_cut_off_at_any_byte);
    tcase_add_test(tests, what_survives_random_damage_lies_inside_the_file);
    tcase_add_test(tests, fails_cleanly_wherever_memory_runs_out);
    suite_add_tcase(suite, tests);
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
