/*
 * The writer of checkpoint folders: complete or not there, and the same
 * bytes however it was fed.
 */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/dtype.h"
#include "core/os.h"
#include "core/status.h"
#include "quant/save.h"
#include "scratch.h"

/* Six tensors in four groups of 24, 7 + 12, 1 and 40 + 8 bytes. */
static const struct {
    const char *name;
    int32_t dtype, rank;
    int64_t shape[2];
    bool joined;
    size_t bytes;
} tensors[] = {
    {"a.weight", MMQI_F32, 2, {2, 3}, false, 24},    {"b.weight", MMQI_U8, 2, {7, 1}, false, 7},
    {"b.weight.absmax", MMQI_F32, 1, {3}, true, 12}, {"c", MMQI_U8, 0, {0}, false, 1},
    {"d.weight", MMQI_BF16, 2, {4, 5}, false, 40},   {"d.bias", MMQI_F64, 1, {1}, true, 8},
};

enum { N_TENSORS = sizeof tensors / sizeof *tensors };

static void fill(uint8_t *data, size_t id)
{
    for (size_t i = 0; i < tensors[id].bytes; i++)
        data[i] = (uint8_t)(31 * id + i);
}

static struct mmqi_save *create(const char *path, uint64_t shard_bytes)
{
    struct mmqi_save *save;

    ck_assert_msg(mmqi_save_create(&save, path) == MMQ_OK, "%s", mmqi_message());
    for (size_t i = 0; i < N_TENSORS; i++) {
        ck_assert_uint_eq(mmqi_save_count(save), i);
        ck_assert_int_eq(mmqi_save_tensor(save, tensors[i].name, tensors[i].dtype, tensors[i].rank,
                                          tensors[i].shape, tensors[i].joined),
                         MMQ_OK);
    }
    ck_assert_msg(mmqi_save_open(save, shard_bytes) == MMQ_OK, "%s", mmqi_message());
    return save;
}

static void write_all(struct mmqi_save *save)
{
    uint8_t data[64];

    for (size_t i = 0; i < N_TENSORS; i++) {
        fill(data, i);
        ck_assert_int_eq(mmqi_save_write(save, i, 0, data, tensors[i].bytes), MMQ_OK);
    }
}

static void check_folder(const char *path)
{
    struct mmqi_store *store;
    struct mmqi_checkpoint *checkpoint;
    uint8_t data[64], expected[64];

    ck_assert_int_eq(mmqi_store_open_folder(&store, path), MMQ_OK);
    ck_assert_msg(mmqi_checkpoint_open(&checkpoint, store) == MMQ_OK, "%s", mmqi_message());
    ck_assert_uint_eq(mmqi_checkpoint_count(checkpoint), N_TENSORS);
    for (size_t i = 0; i < N_TENSORS; i++) {
        const struct mmqi_entry *entry = mmqi_checkpoint_find(checkpoint, tensors[i].name);

        ck_assert_ptr_nonnull(entry);
        ck_assert_int_eq(entry->dtype, tensors[i].dtype);
        ck_assert_int_eq(entry->rank, tensors[i].rank);
        ck_assert_uint_eq(entry->bytes, tensors[i].bytes);
        ck_assert_uint_eq(entry->offset % mmqi_dtype_size(entry->dtype), 0);
        ck_assert_int_eq(mmqi_checkpoint_read(checkpoint, entry, 0, data, entry->bytes), MMQ_OK);
        fill(expected, i);
        ck_assert_mem_eq(data, expected, entry->bytes);
    }
    mmqi_checkpoint_release(checkpoint);
    mmqi_store_release(store);
}

START_TEST(what_was_written_is_read_back)
{
    struct mmqi_save *save;

    save = create("out/", 0);
    write_all(save);
    ck_assert_int_eq(mmqi_save_text(save, "config.json", "{}", 2), MMQ_OK);
    ck_assert_msg(mmqi_save_commit(save) == MMQ_OK, "%s", mmqi_message());
    mmqi_save_free(save);
    check_folder("out");
    ck_assert_int_eq(count_files("out"), 2);
    ck_assert_int_eq(count_files("."), 1);
}
END_TEST

START_TEST(nothing_has_the_name_before_the_commit_and_nothing_stays_without_one)
{
    struct mmqi_save *save;

    save = create("out", 0);
    write_all(save);
    ck_assert_int_eq(mmqi_save_text(save, "config.json", "{}", 2), MMQ_OK);
    ck_assert_int_eq(mmqi_os_kind_of("out"), MMQI_OS_NOTHING);
    ck_assert_int_eq(count_files("."), 1);
    mmqi_save_free(save);
    ck_assert_int_eq(count_files("."), 0);
}
END_TEST

START_TEST(an_existing_destination_is_refused_and_left_alone)
{
    struct mmqi_save *save;

    ck_assert_int_eq(system("mkdir folder && echo x > file"), 0);
    ck_assert_int_eq(mmqi_save_create(&save, "folder"), MMQ_ERR_EXISTS);
    ck_assert_ptr_null(save);
    ck_assert_int_eq(mmqi_save_create(&save, "folder//"), MMQ_ERR_EXISTS);
    ck_assert_int_eq(mmqi_save_create(&save, "file"), MMQ_ERR_EXISTS);
    ck_assert_ptr_nonnull(strstr(mmqi_message(), "file"));
    ck_assert_int_eq(count_files("."), 2);
}
END_TEST

START_TEST(a_destination_that_appears_meanwhile_is_not_replaced)
{
    struct mmqi_save *save;

    save = create("out", 0);
    write_all(save);
    ck_assert_int_eq(system("mkdir out"), 0);
    ck_assert_int_eq(mmqi_save_commit(save), MMQ_ERR_EXISTS);
    mmqi_save_free(save);
    ck_assert_int_eq(count_files("out"), 0);
    ck_assert_int_eq(count_files("."), 1);
}
END_TEST

START_TEST(a_name_that_cannot_be_a_new_folder_is_refused)
{
    struct mmqi_save *save;

    ck_assert_int_eq(mmqi_save_create(&save, ""), MMQ_ERR_INVALID);
    ck_assert_int_eq(mmqi_save_create(&save, "//"), MMQ_ERR_INVALID);
    ck_assert_int_eq(mmqi_save_create(&save, "no/such/parent"), MMQ_OK);
    ck_assert_int_eq(mmqi_save_open(save, 0), MMQ_ERR_IO);
    mmqi_save_free(save);
    ck_assert_int_eq(count_files("."), 0);
}
END_TEST

START_TEST(what_an_earlier_crash_left_is_neither_used_nor_removed)
{
    struct mmqi_save *save;

    ck_assert_int_eq(system("mkdir out.partial-0 && echo x > out.partial-0/x"), 0);
    save = create("out", 0);
    write_all(save);
    ck_assert_int_eq(mmqi_save_commit(save), MMQ_OK);
    mmqi_save_free(save);
    check_folder("out");
    ck_assert_int_eq(count_files("out.partial-0"), 1);
    ck_assert_int_eq(count_files("."), 2);
}
END_TEST

START_TEST(shards_hold_whole_groups_and_are_read_back)
{
    struct mmqi_save *save;
    struct mmqi_store *store;
    struct mmqi_checkpoint *checkpoint;
    static const int32_t shard[N_TENSORS] = {0, 1, 1, 1, 2, 2};

    save = create("out", 30); /* 24 | 7 + 12, 1 | 40 + 8, more than a shard */
    write_all(save);
    ck_assert_int_eq(mmqi_save_commit(save), MMQ_OK);
    mmqi_save_free(save);
    check_folder("out");
    ck_assert_int_eq(count_files("out"), 4);
    ck_assert_int_eq(mmqi_store_open_folder(&store, "out"), MMQ_OK);
    ck_assert_int_eq(mmqi_checkpoint_open(&checkpoint, store), MMQ_OK);
    for (size_t i = 0; i < N_TENSORS; i++) {
        const struct mmqi_entry *entry = mmqi_checkpoint_find(checkpoint, tensors[i].name);
        char name[64];

        snprintf(name, sizeof name, "model-%05d-of-00003.safetensors", shard[i] + 1);
        ck_assert_str_eq(mmqi_checkpoint_shard_name(checkpoint, entry->shard), name);
    }
    mmqi_checkpoint_release(checkpoint);
    mmqi_store_release(store);
}
END_TEST

START_TEST(bytes_do_not_depend_on_the_order_of_writes)
{
    struct mmqi_save *save;
    uint8_t data[64];

    save = create("a", 0);
    write_all(save);
    ck_assert_int_eq(mmqi_save_commit(save), MMQ_OK);
    mmqi_save_free(save);
    save = create("b", 0);
    for (size_t i = N_TENSORS; i-- > 0;) {
        fill(data, i);
        for (size_t begin = tensors[i].bytes; begin-- > 0;)
            ck_assert_int_eq(mmqi_save_write(save, i, begin, data + begin, 1), MMQ_OK);
    }
    ck_assert_int_eq(mmqi_save_commit(save), MMQ_OK);
    mmqi_save_free(save);
    same_files("a/model.safetensors", "b/model.safetensors");
}
END_TEST

START_TEST(a_tensor_that_was_not_written_in_full_is_not_committed)
{
    struct mmqi_save *save;
    uint8_t data[64] = {0};

    save = create("out", 0);
    ck_assert_int_eq(mmqi_save_write(save, 0, 0, data, 23), MMQ_OK);
    ck_assert_int_eq(mmqi_save_commit(save), MMQ_ERR_INTERNAL);
    mmqi_save_free(save);
    ck_assert_int_eq(count_files("."), 0);
}
END_TEST

START_TEST(a_write_past_the_end_of_a_tensor_is_refused)
{
    struct mmqi_save *save;
    uint8_t data[64] = {0};

    save = create("out", 0);
    ck_assert_int_eq(mmqi_save_write(save, 0, 1, data, 24), MMQ_ERR_INTERNAL);
    ck_assert_int_eq(mmqi_save_write(save, 0, 25, data, 0), MMQ_ERR_INTERNAL);
    ck_assert_int_eq(mmqi_save_write(save, 0, UINT64_MAX, data, 2), MMQ_ERR_INTERNAL);
    ck_assert_ptr_nonnull(strstr(mmqi_message(), "a.weight"));
    mmqi_save_free(save);
}
END_TEST

START_TEST(a_tensor_whose_size_would_wrap_is_refused)
{
    struct mmqi_save *save;
    int64_t wide[2] = {INT64_MAX, 4}, negative = -1;

    ck_assert_int_eq(mmqi_save_create(&save, "out"), MMQ_OK);
    ck_assert_int_eq(mmqi_save_tensor(save, "w", MMQI_F32, 2, wide, false), MMQ_ERR_LIMIT);
    ck_assert_int_eq(mmqi_save_tensor(save, "n", MMQI_F32, 1, &negative, false), MMQ_ERR_LIMIT);
    wide[1] = 1;
    ck_assert_int_eq(mmqi_save_tensor(save, "x", MMQI_U8, 2, wide, false), MMQ_OK);
    ck_assert_int_eq(mmqi_save_tensor(save, "y", MMQI_U8, 2, wide, true), MMQ_OK);
    ck_assert_int_eq(mmqi_save_tensor(save, "z", MMQI_U8, 2, wide, true), MMQ_OK);
    ck_assert_int_eq(mmqi_save_open(save, 0), MMQ_ERR_LIMIT);
    mmqi_save_free(save);
    ck_assert_int_eq(count_files("."), 0);
}
END_TEST

START_TEST(small_files_are_copied_in_pieces_and_absent_ones_passed_over)
{
    struct mmqi_save *save;
    struct mmqi_store *store;
    char buffer[7];

    ck_assert_int_eq(system("mkdir in && seq 1 500 > in/tokenizer.json && : > in/empty"), 0);
    ck_assert_int_eq(mmqi_store_open_folder(&store, "in"), MMQ_OK);
    save = create("out", 0);
    write_all(save);
    ck_assert_int_eq(mmqi_save_copy(save, store, "tokenizer.json", buffer, sizeof buffer), MMQ_OK);
    ck_assert_int_eq(mmqi_save_copy(save, store, "empty", buffer, sizeof buffer), MMQ_OK);
    ck_assert_int_eq(mmqi_save_copy(save, store, "absent.json", buffer, sizeof buffer), MMQ_OK);
    ck_assert_int_eq(mmqi_save_commit(save), MMQ_OK);
    mmqi_save_free(save);
    mmqi_store_release(store);
    same_files("in/tokenizer.json", "out/tokenizer.json");
    same_files("in/empty", "out/empty");
    ck_assert_int_eq(count_files("out"), 3);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("save");
    TCase *tests = tcase_create("save");
    SRunner *runner;
    int failed;

    tcase_add_test(tests, what_was_written_is_read_back);
    tcase_add_test(tests, nothing_has_the_name_before_the_commit_and_nothing_stays_without_one);
    tcase_add_test(tests, an_existing_destination_is_refused_and_left_alone);
    tcase_add_test(tests, a_destination_that_appears_meanwhile_is_not_replaced);
    tcase_add_test(tests, a_name_that_cannot_be_a_new_folder_is_refused);
    tcase_add_test(tests, what_an_earlier_crash_left_is_neither_used_nor_removed);
    tcase_add_test(tests, shards_hold_whole_groups_and_are_read_back);
    tcase_add_test(tests, bytes_do_not_depend_on_the_order_of_writes);
    tcase_add_test(tests, a_tensor_that_was_not_written_in_full_is_not_committed);
    tcase_add_test(tests, a_write_past_the_end_of_a_tensor_is_refused);
    tcase_add_test(tests, a_tensor_whose_size_would_wrap_is_refused);
    tcase_add_test(tests, small_files_are_copied_in_pieces_and_absent_ones_passed_over);
    tcase_add_checked_fixture(tests, scratch_enter, scratch_leave);
    suite_add_tcase(suite, tests);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
