/* src/io/file: stores over a folder and over a host's reader. */
#include <check.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/mem.h"
#include "core/status.h"
#include "io/file.h"
#include "memory_files.h"
#include "meter.h"

static char folder[64];

static void write_file(const char *name, const char *text)
{
    char path[256];
    FILE *file;

    snprintf(path, sizeof path, "%s/%s", folder, name);
    file = fopen(path, "wb");
    ck_assert_ptr_nonnull(file);
    fputs(text, file);
    fclose(file);
}

static void make_folder(void)
{
    char path[256];

    strcpy(folder, "/tmp/mmq-test-file-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/sub", folder);
    ck_assert_int_eq(mkdir(path, 0700), 0);
    write_file("a.txt", "0123456789");
    write_file("sub/b.txt", "inside");
    write_file("empty", "");
}

static void remove_folder(void)
{
    static const char *const names[] = {"a.txt", "sub/b.txt", "empty", "link", "sub", ""};
    char path[256];
    size_t i;

    for (i = 0; i < sizeof names / sizeof names[0]; i++) {
        snprintf(path, sizeof path, "%s/%s", folder, names[i]);
        remove(path);
    }
}

static struct mmqi_store *folder_store(void)
{
    struct mmqi_store *store;

    ck_assert_int_eq(mmqi_store_open_folder(&store, folder), MMQ_OK);
    return store;
}

static bool exists(struct mmqi_store *store, const char *name)
{
    bool result;

    ck_assert_msg(mmqi_file_exists(&result, store, name) == MMQ_OK, "%s", mmqi_message());
    return result;
}

START_TEST(reads_a_file_of_a_folder_at_any_place)
{
    struct mmqi_store *store = folder_store();
    struct mmqi_file *file;
    char text[16] = "";

    ck_assert_str_eq(mmqi_store_name(store), folder);
    ck_assert_int_eq(mmqi_file_open(&file, store, "a.txt"), MMQ_OK);
    ck_assert_uint_eq(mmqi_file_size(file), 10);
    ck_assert_str_eq(mmqi_file_name(file), "a.txt");
    ck_assert_ptr_eq(strstr(mmqi_file_path(file), folder), mmqi_file_path(file));
    ck_assert_int_eq(mmqi_file_read_at(file, 3, text, 4), MMQ_OK);
    ck_assert_str_eq(text, "3456");
    ck_assert_int_eq(mmqi_file_read_at(file, 10, text, 0), MMQ_OK);
    mmqi_file_close(file);
    ck_assert_int_eq(mmqi_file_open(&file, store, "sub/b.txt"), MMQ_OK);
    mmqi_file_close(file);
    mmqi_file_close(NULL);
    mmqi_store_release(store);
    mmqi_store_release(NULL);
}
END_TEST

START_TEST(refuses_to_read_past_the_end)
{
    struct mmqi_store *store = folder_store();
    struct mmqi_file *file;
    char text[16];

    ck_assert_int_eq(mmqi_file_open(&file, store, "a.txt"), MMQ_OK);
    ck_assert_int_eq(mmqi_file_read_at(file, 7, text, 4), MMQ_ERR_FORMAT);
    ck_assert_ptr_nonnull(strstr(mmqi_message(), "a.txt: needs bytes 7..+4 of 10"));
    ck_assert_int_eq(mmqi_file_read_at(file, UINT64_MAX, text, 4), MMQ_ERR_FORMAT);
    ck_assert_int_eq(mmqi_file_read_at(file, 11, text, 0), MMQ_ERR_FORMAT);
    ck_assert_int_eq(mmqi_file_read_at(file, 6, text, 4), MMQ_OK); /* still usable */
    mmqi_file_close(file);
    mmqi_store_release(store);
}
END_TEST

static const char *const hostile_names[] = {
    "",      "/etc/passwd", "..",      "../a.txt", "sub/..", "sub/../a.txt", "sub/../../a",
    "..\\a", "a\\b",        "C:a.txt",
};

START_TEST(refuses_names_that_leave_the_folder)
{
    struct mmqi_store *store = folder_store();
    struct mmqi_file *file;

    ck_assert_int_eq(mmqi_file_open(&file, store, hostile_names[_i]), MMQ_ERR_FORMAT);
    ck_assert_ptr_null(file);
    ck_assert_ptr_nonnull(strstr(mmqi_message(), "names no file inside it"));
    ck_assert(!exists(store, hostile_names[_i]));
    mmqi_store_release(store);
}
END_TEST

START_TEST(takes_names_that_only_look_like_leaving)
{
    struct mmqi_store *store = folder_store();
    struct mmqi_file *file;

    ck_assert_int_eq(mmqi_file_open(&file, store, "..a"), MMQ_ERR_NOT_FOUND);
    ck_assert_int_eq(mmqi_file_open(&file, store, "sub/b.."), MMQ_ERR_NOT_FOUND);
    ck_assert_int_eq(mmqi_file_open(&file, store, "./a.txt"), MMQ_OK);
    mmqi_file_close(file);
    mmqi_store_release(store);
}
END_TEST

START_TEST(follows_links_as_hub_caches_have_them)
{
    struct mmqi_store *store = folder_store();
    struct mmqi_file *file;
    char path[256];

    snprintf(path, sizeof path, "%s/link", folder);
    ck_assert_int_eq(symlink("sub/b.txt", path), 0);
    ck_assert(exists(store, "link"));
    ck_assert_int_eq(mmqi_file_open(&file, store, "link"), MMQ_OK);
    ck_assert_uint_eq(mmqi_file_size(file), 6);
    mmqi_file_close(file);
    mmqi_store_release(store);
}
END_TEST

START_TEST(says_which_file_is_not_there)
{
    struct mmqi_store *store = folder_store();
    struct mmqi_file *file;

    ck_assert_int_eq(mmqi_file_open(&file, store, "none.json"), MMQ_ERR_NOT_FOUND);
    ck_assert_ptr_null(file);
    ck_assert_ptr_nonnull(strstr(mmqi_message(), folder));
    ck_assert_ptr_nonnull(strstr(mmqi_message(), "none.json"));
    ck_assert_int_eq(mmqi_file_open(&file, store, "sub"), MMQ_ERR_IO);
    ck_assert_ptr_nonnull(strstr(mmqi_message(), "is a folder"));
    ck_assert(exists(store, "a.txt"));
    ck_assert(!exists(store, "none.json"));
    ck_assert(!exists(store, "sub"));
    mmqi_store_release(store);
}
END_TEST

/* A link that leads to itself can be neither read nor called absent. */
START_TEST(what_cannot_be_reached_is_not_taken_for_absent)
{
    struct mmqi_store *store = folder_store(), *other;
    struct mmqi_file *file;
    bool there;
    char path[256];

    snprintf(path, sizeof path, "%s/link", folder);
    ck_assert_int_eq(symlink("link", path), 0);
    ck_assert_int_eq(mmqi_file_exists(&there, store, "link"), MMQ_ERR_IO);
    ck_assert(!there);
    ck_assert_ptr_nonnull(strstr(mmqi_message(), "link cannot be reached"));
    ck_assert_int_eq(mmqi_file_open(&file, store, "link"), MMQ_ERR_IO);
    ck_assert_ptr_nonnull(strstr(mmqi_message(), "link: cannot open"));
    ck_assert_int_eq(mmqi_store_open_folder(&other, path), MMQ_ERR_IO);
    ck_assert_ptr_null(other);
    mmqi_store_release(store);
}
END_TEST

START_TEST(no_memory_to_look_is_not_taken_for_absent)
{
    struct meter meter = {.left = 0};
    const struct mmqi_mem_hooks hooks = {meter_alloc, meter_free, &meter}, *before;
    struct mmqi_store *store = folder_store();
    int32_t status;
    bool there;

    before = mmqi_mem_enter(&hooks);
    status = mmqi_file_exists(&there, store, "a.txt");
    mmqi_mem_enter(before);
    ck_assert_int_eq(status, MMQ_ERR_NOMEM);
    mmqi_store_release(store);
}
END_TEST

START_TEST(refuses_a_store_that_is_no_folder)
{
    struct mmqi_store *store;
    char path[256];

    snprintf(path, sizeof path, "%s/a.txt", folder);
    ck_assert_int_eq(mmqi_store_open_folder(&store, path), MMQ_ERR_IO);
    ck_assert_ptr_null(store);
    snprintf(path, sizeof path, "%s/none", folder);
    ck_assert_int_eq(mmqi_store_open_folder(&store, path), MMQ_ERR_NOT_FOUND);
    ck_assert_ptr_nonnull(strstr(mmqi_message(), path));
    ck_assert_int_eq(mmqi_store_open_folder(&store, ""), MMQ_ERR_INVALID);
}
END_TEST

START_TEST(a_file_outlives_the_store_it_came_from)
{
    struct mmqi_store *store;
    struct mmqi_file *file;
    char path[80], text[4] = "";

    snprintf(path, sizeof path, "%s//", folder); /* as a shell completes it */
    ck_assert_int_eq(mmqi_store_open_folder(&store, path), MMQ_OK);
    mmqi_store_retain(store);
    ck_assert_int_eq(mmqi_file_open(&file, store, "a.txt"), MMQ_OK);
    ck_assert_ptr_null(strstr(mmqi_file_path(file), "//"));
    mmqi_store_release(store);
    mmqi_store_release(store);
    ck_assert_int_eq(mmqi_file_read_at(file, 0, text, 3), MMQ_OK);
    ck_assert_str_eq(text, "012");
    mmqi_file_close(file);
}
END_TEST

START_TEST(reads_a_whole_file_up_to_a_limit)
{
    struct mmqi_store *store = folder_store();
    char *text;
    size_t size;

    ck_assert_int_eq(mmqi_file_read_all(&text, &size, store, "a.txt", 10), MMQ_OK);
    ck_assert_uint_eq(size, 10);
    ck_assert_str_eq(text, "0123456789"); /* a zero byte after it */
    mmqi_free(text);
    ck_assert_int_eq(mmqi_file_read_all(&text, &size, store, "empty", 0), MMQ_OK);
    ck_assert_uint_eq(size, 0);
    ck_assert_str_eq(text, "");
    mmqi_free(text);
    ck_assert_int_eq(mmqi_file_read_all(&text, &size, store, "a.txt", 9), MMQ_ERR_FORMAT);
    ck_assert_ptr_null(text);
    ck_assert_ptr_nonnull(strstr(mmqi_message(), "a.txt: has 10 bytes, at most 9 are read"));
    ck_assert_int_eq(mmqi_file_read_all(&text, &size, store, "none", 9), MMQ_ERR_NOT_FOUND);
    mmqi_store_release(store);
}
END_TEST

/* ---- a host's reader ---- */

START_TEST(reads_through_the_hosts_reader_and_closes_what_it_opened)
{
    struct memory_files memory = {0};
    struct mmqi_store *store = memory_store(&memory);
    struct mmqi_file *file;
    char text[4] = "", *all;
    size_t size;
    bool there;

    memory_add(&memory, "x.bin", "abcdef", 6);
    ck_assert_int_eq(mmqi_file_open(&file, store, "x.bin"), MMQ_OK);
    mmqi_store_release(store);
    ck_assert_uint_eq(mmqi_file_size(file), 6);
    ck_assert_str_eq(mmqi_file_path(file), "memory/x.bin");
    ck_assert_int_eq(mmqi_file_read_at(file, 2, text, 3), MMQ_OK);
    ck_assert_str_eq(text, "cde");
    ck_assert_int_eq(mmqi_file_read_at(file, 5, text, 3), MMQ_ERR_FORMAT); /* never asked of it */
    mmqi_file_close(file);
    ck_assert_int_eq(memory.n_open, 0);
    store = memory_store(&memory);
    ck_assert(exists(store, "x.bin"));
    ck_assert(!exists(store, "y.bin"));
    memory.fail_open_with = MMQ_ERR_IO;
    ck_assert_int_eq(mmqi_file_exists(&there, store, "x.bin"), MMQ_ERR_IO);
    ck_assert_ptr_nonnull(strstr(mmqi_message(), "x.bin"));
    memory.fail_open_with = 0;
    ck_assert_int_eq(mmqi_file_read_all(&all, &size, store, "x.bin", 100), MMQ_OK);
    ck_assert_str_eq(all, "abcdef");
    mmqi_free(all);
    ck_assert_int_eq(memory.n_open, 0);
    mmqi_store_release(store);
}
END_TEST

START_TEST(passes_the_readers_own_failure_up)
{
    struct memory_files memory = {0};
    struct mmqi_store *store = memory_store(&memory);
    char *text;
    size_t size;

    memory_add(&memory, "x.bin", "abcdef", 6);
    ck_assert_int_eq(mmqi_file_read_all(&text, &size, store, "y.bin", 100), MMQ_ERR_NOT_FOUND);
    ck_assert_ptr_nonnull(strstr(mmqi_message(), "memory/y.bin"));
    memory.fail_with = MMQ_ERR_IO;
    ck_assert_int_eq(mmqi_file_read_all(&text, &size, store, "x.bin", 100), MMQ_ERR_IO);
    ck_assert_ptr_nonnull(strstr(mmqi_message(), "memory/x.bin"));
    memory.fail_with = 7; /* no status of ours */
    ck_assert_int_eq(mmqi_file_read_all(&text, &size, store, "x.bin", 100), MMQ_ERR_CALLBACK);
    memory.fail_with = 0;
    ck_assert_int_eq(mmqi_file_read_all(&text, &size, store, "x.bin", 100), MMQ_OK);
    mmqi_free(text);
    ck_assert_int_eq(memory.n_open, 0);
    mmqi_store_release(store);
}
END_TEST

static int32_t lying_size(void *user, void *file, uint64_t *size)
{
    (void)user;
    (void)file;
    *size = UINT64_MAX;
    return MMQ_OK;
}

/* "sub" of a store has b.txt, which says "inside". */
static void check_inside(struct mmqi_store *outer)
{
    static const char *const leaving[] = {"..", "/sub", "sub/../..", "", "a\\b"};
    struct mmqi_store *store;
    char *text;
    size_t size;

    ck_assert_int_eq(mmqi_store_open_inside(&store, outer, "sub"), MMQ_OK);
    ck_assert(mmqi_store_is_folder(store) == mmqi_store_is_folder(outer));
    ck_assert(exists(store, "b.txt"));
    ck_assert(!exists(store, "a.txt"));
    ck_assert(!exists(store, "../a.txt"));
    ck_assert_int_eq(mmqi_file_read_all(&text, &size, store, "b.txt", 100), MMQ_OK);
    ck_assert_str_eq(text, "inside");
    mmqi_free(text);
    ck_assert_int_eq(mmqi_file_read_all(&text, &size, store, "c.txt", 100), MMQ_ERR_NOT_FOUND);
    ck_assert_ptr_nonnull(strstr(mmqi_message(), "/sub/c.txt: "));
    mmqi_store_release(store);
    for (size_t i = 0; i < sizeof leaving / sizeof leaving[0]; i++) {
        ck_assert_int_eq(mmqi_store_open_inside(&store, outer, leaving[i]), MMQ_ERR_FORMAT);
        ck_assert_ptr_null(store);
    }
}

START_TEST(a_store_inside_another_has_the_files_of_one_folder)
{
    static struct memory_files memory;
    struct mmqi_store *store = folder_store(), *inner, *inmost;

    check_inside(store);
    ck_assert_int_eq(mmqi_store_open_inside(&inner, store, "nowhere"), MMQ_ERR_NOT_FOUND);
    mmqi_store_release(store);
    memory_add(&memory, "a.txt", "outside", 7);
    memory_add(&memory, "sub/b.txt", "inside", 6);
    memory_add(&memory, "sub/c/d.txt", "far", 3);
    store = memory_store(&memory);
    check_inside(store);
    ck_assert_int_eq(mmqi_store_open_inside(&inner, store, "sub"), MMQ_OK);
    ck_assert_int_eq(mmqi_store_open_inside(&inmost, inner, "c"), MMQ_OK);
    mmqi_store_release(store);
    mmqi_store_release(inner);
    ck_assert(exists(inmost, "d.txt"));
    ck_assert(!exists(inmost, "b.txt"));
    mmqi_store_release(inmost);
    ck_assert_int_eq(memory.n_open, 0);
}
END_TEST

START_TEST(refuses_half_a_reader_and_a_size_that_no_file_has)
{
    struct memory_files memory = {0};
    struct mmqi_reader reader = {memory_open, memory_size, memory_read_at, memory_close, &memory};
    struct mmqi_store *store;
    struct mmqi_file *file;

    memory_add(&memory, "x.bin", "abcdef", 6);
    reader.read_at = NULL;
    ck_assert_int_eq(mmqi_store_open_reader(&store, "host", &reader), MMQ_ERR_INVALID);
    ck_assert_ptr_null(store);
    reader.read_at = memory_read_at;
    reader.size = lying_size;
    ck_assert_int_eq(mmqi_store_open_reader(&store, "host", &reader), MMQ_OK);
    ck_assert_int_eq(mmqi_file_open(&file, store, "x.bin"), MMQ_ERR_FORMAT);
    ck_assert_ptr_null(file);
    ck_assert_int_eq(memory.n_open, 0);
    mmqi_store_release(store);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("file");
    TCase *tests = tcase_create("file");
    SRunner *runner = srunner_create(suite);
    int failed;

    tcase_add_checked_fixture(tests, make_folder, remove_folder);
    tcase_add_test(tests, reads_a_file_of_a_folder_at_any_place);
    tcase_add_test(tests, refuses_to_read_past_the_end);
    tcase_add_loop_test(tests, refuses_names_that_leave_the_folder, 0,
                        (int)(sizeof hostile_names / sizeof hostile_names[0]));
    tcase_add_test(tests, takes_names_that_only_look_like_leaving);
    tcase_add_test(tests, follows_links_as_hub_caches_have_them);
    tcase_add_test(tests, says_which_file_is_not_there);
    tcase_add_test(tests, what_cannot_be_reached_is_not_taken_for_absent);
    tcase_add_test(tests, no_memory_to_look_is_not_taken_for_absent);
    tcase_add_test(tests, refuses_a_store_that_is_no_folder);
    tcase_add_test(tests, a_file_outlives_the_store_it_came_from);
    tcase_add_test(tests, reads_a_whole_file_up_to_a_limit);
    tcase_add_test(tests, reads_through_the_hosts_reader_and_closes_what_it_opened);
    tcase_add_test(tests, passes_the_readers_own_failure_up);
    tcase_add_test(tests, a_store_inside_another_has_the_files_of_one_folder);
    tcase_add_test(tests, refuses_half_a_reader_and_a_size_that_no_file_has);
    suite_add_tcase(suite, tests);
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
