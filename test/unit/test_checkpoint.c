/* src/io/checkpoint: one index over one file or many, and every way they can disagree. */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "core/buf.h"
#include "core/dtype.h"
#include "core/mem.h"
#include "core/status.h"
#include "io/checkpoint.h"
#include "io/safetensors.h"
#include "memory_files.h"
#include "meter.h"
#include "torch_file.h"

enum { MAX_FILES = 8 };

/* The files of one test. A tensor's bytes are all the first letter of its name. */
struct fixture {
    struct memory_files memory;
    struct mmqi_store *store;
    char *data[MAX_FILES];
    int n_data;
};

static struct fixture fx;

static void set_up(void)
{
    memset(&fx, 0, sizeof fx);
    fx.store = memory_store(&fx.memory);
}

static void tear_down(void)
{
    ck_assert_int_eq(fx.memory.n_open, 0);
    while (fx.n_data > 0)
        free(fx.data[--fx.n_data]);
    mmqi_store_release(fx.store);
}

/* A shard with the named tensors, 4 bytes each; names are separated by spaces. */
static void add_shard(const char *file, const char *names)
{
    struct mmqi_entry entries[16] = {{0}};
    char copy[256], *header, *part;
    size_t n = 0, size, i;
    uint64_t whole;

    snprintf(copy, sizeof copy, "%s", names);
    for (part = strtok(copy, " "); part; part = strtok(NULL, " "))
        entries[n++] = (struct mmqi_entry){.name = part, .dtype = MMQI_U8, .rank = 1, .shape = {4}};
    ck_assert_int_eq(mmqi_safetensors_header(&header, &size, &whole, entries, n, NULL), MMQ_OK);
    fx.data[fx.n_data] = malloc(whole);
    memcpy(fx.data[fx.n_data], header, size);
    for (i = 0; i < n; i++)
        memset(fx.data[fx.n_data] + entries[i].offset, entries[i].name[0], 4);
    memory_add(&fx.memory, file, fx.data[fx.n_data++], whole);
    mmqi_free(header);
}

/* The same, as torch.save writes it. */
static void add_torch_shard(const char *file, const char *names)
{
    struct mmqi_pickle_tensor t = {.dtype = MMQI_U8, .rank = 1, .shape = {4}, .length = 4};
    char copy[256], keys[16][16], bytes[16][4], *part;
    struct mmqi_buf pickle = {0}, buf = {0};
    struct zip_item items[17] = {{0}};
    size_t n = 0;

    fill_strides(&t);
    pickle_begin(&pickle);
    snprintf(copy, sizeof copy, "%s", names);
    for (part = strtok(copy, " "); part; part = strtok(NULL, " "), n++) {
        snprintf(keys[n], sizeof keys[n], "m/data/%zu", n);
        memset(bytes[n], part[0], 4);
        t.key = keys[n] + 7;
        pickle_text(&pickle, part);
        pickle_tensor(&pickle, &t);
        items[n + 1] = (struct zip_item){.name = keys[n], .data = bytes[n], .size = 4};
    }
    pickle_end(&pickle);
    items[0] = (struct zip_item){.name = "m/data.pkl", .data = pickle.data, .size = pickle.size};
    zip_make(&buf, items, n + 1, NULL);
    fx.data[fx.n_data] = malloc(buf.size);
    memcpy(fx.data[fx.n_data], buf.data, buf.size);
    memory_add(&fx.memory, file, fx.data[fx.n_data++], buf.size);
    mmqi_buf_free(&buf);
    mmqi_buf_free(&pickle);
}

static void add_text(const char *file, const char *text)
{
    memory_add(&fx.memory, file, text, strlen(text));
}

static const char index_file[] = "model.safetensors.index.json";

#define INDEX(map) "{\"metadata\":{\"total_size\":24,\"x\":[1,{}]},\"weight_map\":{" map "}}"

static void expect_failure(int32_t status, const char *why)
{
    struct mmqi_checkpoint *checkpoint;

    ck_assert_int_eq(mmqi_checkpoint_open(&checkpoint, fx.store), status);
    ck_assert_ptr_null(checkpoint);
    ck_assert_msg(strstr(mmqi_message(), why) != NULL, "'%s' says not '%s'", mmqi_message(), why);
}

START_TEST(lists_the_tensors_of_one_file_by_name)
{
    struct mmqi_checkpoint *checkpoint;
    const struct mmqi_entry *entry;
    char bytes[5] = "";

    add_shard("model.safetensors", "c.weight a.weight b.weight");
    ck_assert_int_eq(mmqi_checkpoint_open(&checkpoint, fx.store), MMQ_OK);
    ck_assert_uint_eq(mmqi_checkpoint_count(checkpoint), 3);
    ck_assert_str_eq(mmqi_checkpoint_entry(checkpoint, 0)->name, "a.weight");
    ck_assert_str_eq(mmqi_checkpoint_entry(checkpoint, 1)->name, "b.weight");
    ck_assert_str_eq(mmqi_checkpoint_entry(checkpoint, 2)->name, "c.weight");
    ck_assert_ptr_null(mmqi_checkpoint_entry(checkpoint, 3));
    entry = mmqi_checkpoint_find(checkpoint, "b.weight");
    ck_assert_ptr_eq(entry, mmqi_checkpoint_entry(checkpoint, 1));
    ck_assert_int_eq(entry->dtype, MMQI_U8);
    ck_assert_int_eq(entry->rank, 1);
    ck_assert_int_eq(entry->shape[0], 4);
    ck_assert_str_eq(mmqi_checkpoint_shard_name(checkpoint, entry->shard), "model.safetensors");
    ck_assert_int_eq(mmqi_checkpoint_read(checkpoint, entry, 0, bytes, 4), MMQ_OK);
    ck_assert_str_eq(bytes, "bbbb");
    ck_assert_ptr_null(mmqi_checkpoint_find(checkpoint, "b"));
    ck_assert_ptr_null(mmqi_checkpoint_find(checkpoint, ""));
    ck_assert_ptr_null(mmqi_checkpoint_find(checkpoint, "z"));
    mmqi_checkpoint_release(checkpoint);
    mmqi_checkpoint_release(NULL);
}
END_TEST

START_TEST(reads_no_byte_outside_a_tensor)
{
    struct mmqi_checkpoint *checkpoint;
    const struct mmqi_entry *entry;
    char bytes[8] = "";

    add_shard("model.safetensors", "a b");
    ck_assert_int_eq(mmqi_checkpoint_open(&checkpoint, fx.store), MMQ_OK);
    entry = mmqi_checkpoint_find(checkpoint, "a");
    ck_assert_int_eq(mmqi_checkpoint_read(checkpoint, entry, 2, bytes, 2), MMQ_OK);
    ck_assert_str_eq(bytes, "aa");
    ck_assert_int_eq(mmqi_checkpoint_read(checkpoint, entry, 4, bytes, 0), MMQ_OK);
    ck_assert_int_eq(mmqi_checkpoint_read(checkpoint, entry, 2, bytes, 3), MMQ_ERR_INVALID);
    ck_assert_str_eq(mmqi_message(), "tensor 'a': asked for bytes 2..+3 of 4");
    ck_assert_int_eq(mmqi_checkpoint_read(checkpoint, entry, 5, bytes, 0), MMQ_ERR_INVALID);
    ck_assert_int_eq(mmqi_checkpoint_read(checkpoint, entry, UINT64_MAX, bytes, 2),
                     MMQ_ERR_INVALID);
    fx.memory.fail_with = MMQ_ERR_IO;
    ck_assert_int_eq(mmqi_checkpoint_read(checkpoint, entry, 0, bytes, 4), MMQ_ERR_IO);
    fx.memory.fail_with = 0;
    ck_assert_int_eq(mmqi_checkpoint_read(checkpoint, entry, 0, bytes, 4), MMQ_OK);
    mmqi_checkpoint_release(checkpoint);
}
END_TEST

START_TEST(joins_shards_and_opens_each_once)
{
    struct mmqi_checkpoint *checkpoint;
    char bytes[5] = "";
    int i;

    add_shard("s-2.safetensors", "d a");
    add_shard("s-1.safetensors", "c b e");
    add_text(index_file, INDEX("\"a\":\"s-2.safetensors\",\"b\":\"s-1.safetensors\","
                               "\"d\":\"s-2.safetensors\",\"c\":\"s-1.safetensors\","
                               "\"e\":\"s-1.safetensors\""));
    ck_assert_msg(mmqi_checkpoint_open(&checkpoint, fx.store) == MMQ_OK, "%s", mmqi_message());
    ck_assert_uint_eq(mmqi_checkpoint_count(checkpoint), 5);
    for (i = 0; i < 5; i++) {
        const struct mmqi_entry *entry = mmqi_checkpoint_entry(checkpoint, (size_t)i);
        const char want[] = {(char)('a' + i), 0};

        ck_assert_str_eq(entry->name, want);
        ck_assert_ptr_eq(mmqi_checkpoint_find(checkpoint, want), entry);
        ck_assert_str_eq(mmqi_checkpoint_shard_name(checkpoint, entry->shard),
                         strchr("ad", 'a' + i) ? "s-2.safetensors" : "s-1.safetensors");
        ck_assert_int_eq(mmqi_checkpoint_read(checkpoint, entry, 0, bytes, 4), MMQ_OK);
        ck_assert_int_eq(bytes[3], 'a' + i);
    }
    ck_assert_int_eq(fx.memory.files[0].opened, 1);
    ck_assert_int_eq(fx.memory.files[1].opened, 1);
    mmqi_checkpoint_release(checkpoint);
}
END_TEST

START_TEST(prefers_the_single_file_to_the_index)
{
    struct mmqi_checkpoint *checkpoint;

    add_shard("model.safetensors", "a");
    add_text(index_file, "broken");
    ck_assert_int_eq(mmqi_checkpoint_open(&checkpoint, fx.store), MMQ_OK);
    mmqi_checkpoint_release(checkpoint);
}
END_TEST

/* "a" to "e" in order, each of its own letter. */
static void expect_letters(int n)
{
    struct mmqi_checkpoint *checkpoint;
    char bytes[5] = "";

    ck_assert_msg(mmqi_checkpoint_open(&checkpoint, fx.store) == MMQ_OK, "%s", mmqi_message());
    ck_assert_uint_eq(mmqi_checkpoint_count(checkpoint), (size_t)n);
    for (int i = 0; i < n; i++) {
        const struct mmqi_entry *entry = mmqi_checkpoint_entry(checkpoint, (size_t)i);
        const char want[] = {(char)('a' + i), 0};

        ck_assert_str_eq(entry->name, want);
        ck_assert_int_eq(mmqi_checkpoint_read(checkpoint, entry, 0, bytes, 4), MMQ_OK);
        ck_assert_int_eq(bytes[0], 'a' + i);
        ck_assert_int_eq(bytes[3], 'a' + i);
    }
    mmqi_checkpoint_release(checkpoint);
}

START_TEST(reads_what_torch_saved_under_each_of_its_names)
{
    static const char *const names[] = {"pytorch_model.bin", "pytorch_model.pt",
                                        "pytorch_model.pth", "model.pt", "model.pth"};

    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        fx.memory.n_files = 0;
        add_torch_shard(names[i], "c a b");
        expect_letters(3);
    }
}
END_TEST

START_TEST(joins_shards_of_torch)
{
    add_torch_shard("p-1.bin", "d a");
    add_torch_shard("p-2.bin", "c b e");
    add_text("pytorch_model.bin.index.json",
             INDEX("\"a\":\"p-1.bin\",\"b\":\"p-2.bin\",\"d\":\"p-1.bin\",\"c\":\"p-2.bin\","
                   "\"e\":\"p-2.bin\""));
    expect_letters(5);
}
END_TEST

START_TEST(a_shard_is_what_its_bytes_are_and_not_what_it_is_called)
{
    add_torch_shard("x.safetensors", "a c");
    add_shard("y.bin", "b");
    add_text(index_file, INDEX("\"a\":\"x.safetensors\",\"b\":\"y.bin\",\"c\":\"x.safetensors\""));
    expect_letters(3);
}
END_TEST

START_TEST(prefers_safetensors_to_what_torch_saved)
{
    add_shard("s", "a");
    add_text(index_file, INDEX("\"a\":\"s\""));
    add_text("pytorch_model.bin", "broken");
    expect_letters(1);
    add_shard("model.safetensors", "a b");
    expect_letters(2);
}
END_TEST

static const struct {
    int32_t status;
    const char *file, *text, *why;
} broken_torch[] = {
    {MMQ_ERR_FORMAT, "pytorch_model.bin", "none at all", "model.bin: no zip archive, which torch"},
    {MMQ_ERR_FORMAT, "model.pth", "", "model.pth: no zip archive, which torch"},
    {MMQ_ERR_UNSUPPORTED, "model.pt", "\x80\2\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.",
     "model.pt: the legacy form of torch.save"},
    {MMQ_ERR_FORMAT, "pytorch_model.bin", "PK\3\4 and no more",
     "no zip archive, or one that is cut"},
    {MMQ_ERR_NOT_FOUND, "pytorch_model.bin.index.json", INDEX("\"a\":\"p.bin\""), "memory/p.bin"},
    {MMQ_ERR_FORMAT, "pytorch_model.bin.index.json", "{}",
     "pytorch_model.bin.index.json: line 1, column 3: the weight_map names no tensor"},
};

START_TEST(names_the_file_of_torch_that_is_broken)
{
    add_text(broken_torch[_i].file, broken_torch[_i].text);
    expect_failure(broken_torch[_i].status, broken_torch[_i].why);
}
END_TEST

START_TEST(refuses_one_name_twice_in_a_file_of_torch)
{
    add_torch_shard("pytorch_model.bin", "a b a");
    expect_failure(MMQ_ERR_FORMAT,
                   "tensor 'a' is in pytorch_model.bin and again in pytorch_model.bin");
}
END_TEST

START_TEST(joins_the_tensors_of_another_folder_by_new_names)
{
    struct mmqi_checkpoint *checkpoint;
    const struct mmqi_entry *entry;
    struct mmqi_store *inner;
    char bytes[5] = "";

    add_shard("model.safetensors", "b.x z.x");
    add_torch_shard("t/p-1.bin", "v.a v.b other");
    add_torch_shard("t/p-2.bin", "v.c");
    add_text("t/pytorch_model.bin.index.json",
             INDEX("\"v.a\":\"p-1.bin\",\"v.b\":\"p-1.bin\",\"other\":\"p-1.bin\","
                   "\"v.c\":\"p-2.bin\""));
    ck_assert_int_eq(mmqi_store_open_inside(&inner, fx.store, "t"), MMQ_OK);
    ck_assert_int_eq(mmqi_checkpoint_open(&checkpoint, fx.store), MMQ_OK);
    ck_assert_int_eq(mmqi_checkpoint_join(checkpoint, inner, "v.", "tower."), MMQ_OK);
    mmqi_store_release(inner);
    ck_assert_uint_eq(mmqi_checkpoint_count(checkpoint), 5);
    ck_assert_str_eq(mmqi_checkpoint_entry(checkpoint, 0)->name, "b.x");
    ck_assert_str_eq(mmqi_checkpoint_entry(checkpoint, 4)->name, "z.x");
    ck_assert_ptr_null(mmqi_checkpoint_find(checkpoint, "other"));
    entry = mmqi_checkpoint_find(checkpoint, "tower.c");
    ck_assert_str_eq(mmqi_checkpoint_shard_name(checkpoint, entry->shard), "p-2.bin");
    ck_assert_int_eq(mmqi_checkpoint_read(checkpoint, entry, 0, bytes, 4), MMQ_OK);
    ck_assert_str_eq(bytes, "vvvv");
    entry = mmqi_checkpoint_find(checkpoint, "b.x");
    ck_assert_int_eq(mmqi_checkpoint_read(checkpoint, entry, 0, bytes, 4), MMQ_OK);
    ck_assert_str_eq(bytes, "bbbb");
    mmqi_checkpoint_release(checkpoint);
}
END_TEST

START_TEST(a_join_that_makes_one_name_twice_is_refused)
{
    struct mmqi_checkpoint *checkpoint;
    struct mmqi_store *inner;

    add_shard("model.safetensors", "a.x b.x");
    add_shard("t/model.safetensors", "v.x");
    ck_assert_int_eq(mmqi_store_open_inside(&inner, fx.store, "t"), MMQ_OK);
    ck_assert_int_eq(mmqi_checkpoint_open(&checkpoint, fx.store), MMQ_OK);
    ck_assert_int_eq(mmqi_checkpoint_join(checkpoint, inner, "v.", "a."), MMQ_ERR_FORMAT);
    ck_assert_ptr_nonnull(strstr(mmqi_message(), "tensor 'a.x' is in model.safetensors and in"));
    mmqi_checkpoint_release(checkpoint);
    mmqi_store_release(inner);
}
END_TEST

START_TEST(a_join_without_memory_fails_cleanly)
{
    struct meter meter = {0};
    struct mmqi_mem_hooks hooks = {meter_alloc, meter_free, &meter};
    int32_t status = MMQ_ERR_NOMEM;

    add_shard("model.safetensors", "a.x b.x");
    add_torch_shard("t/pytorch_model.bin", "v.x v.y");
    for (int n = 0; status == MMQ_ERR_NOMEM; n++) {
        const struct mmqi_mem_hooks *before = mmqi_mem_enter(&hooks);
        struct mmqi_checkpoint *checkpoint = NULL;
        struct mmqi_store *inner = NULL;

        meter.left = n;
        status = mmqi_store_open_inside(&inner, fx.store, "t");
        if (status == MMQ_OK)
            status = mmqi_checkpoint_open(&checkpoint, fx.store);
        if (status == MMQ_OK)
            status = mmqi_checkpoint_join(checkpoint, inner, "v.", "a.b.");
        mmqi_checkpoint_release(checkpoint);
        mmqi_store_release(inner);
        mmqi_mem_enter(before);
        ck_assert_int_eq(meter.live, 0);
        ck_assert_int_eq(fx.memory.n_open, 0);
        ck_assert_int_lt(n, 200);
    }
    ck_assert_msg(status == MMQ_OK, "%s", mmqi_message());
}
END_TEST

START_TEST(outlives_its_store_and_lives_as_long_as_the_last_holder)
{
    struct mmqi_checkpoint *checkpoint;

    add_shard("model.safetensors", "a");
    mmqi_store_retain(fx.store);
    ck_assert_int_eq(mmqi_checkpoint_open(&checkpoint, fx.store), MMQ_OK);
    mmqi_store_release(fx.store);
    mmqi_checkpoint_retain(checkpoint);
    mmqi_checkpoint_release(checkpoint);
    ck_assert_int_eq(fx.memory.n_open, 1);
    ck_assert_uint_eq(mmqi_checkpoint_count(checkpoint), 1);
    mmqi_checkpoint_release(checkpoint);
}
END_TEST

START_TEST(names_the_folder_that_holds_no_checkpoint)
{
    expect_failure(MMQ_ERR_NOT_FOUND, "memory: holds neither model.safetensors nor");
}
END_TEST

START_TEST(a_file_that_cannot_be_looked_for_is_not_taken_for_an_absent_one)
{
    add_shard("model.safetensors", "a");
    fx.memory.fail_open_with = MMQ_ERR_IO;
    expect_failure(MMQ_ERR_IO, "memory/model.safetensors: the host's reader could not open it");
    fx.memory.fail_open_with = 0;
}
END_TEST

START_TEST(names_the_shard_that_is_not_there)
{
    add_shard("s-1.safetensors", "a");
    add_text(index_file, INDEX("\"a\":\"s-1.safetensors\",\"b\":\"s-2.safetensors\""));
    expect_failure(MMQ_ERR_NOT_FOUND, "s-2.safetensors");
}
END_TEST

START_TEST(names_the_shard_that_is_broken)
{
    add_shard("s-1.safetensors", "a");
    add_text("s-2.safetensors", "not a shard at all");
    add_text(index_file, INDEX("\"a\":\"s-1.safetensors\",\"b\":\"s-2.safetensors\""));
    expect_failure(MMQ_ERR_FORMAT, "s-2.safetensors: a header of");
}
END_TEST

START_TEST(refuses_a_mapped_tensor_that_its_shard_has_not)
{
    add_shard("s-1.safetensors", "a d");
    add_shard("s-2.safetensors", "e");
    add_text(index_file, INDEX("\"d\":\"s-1.safetensors\",\"c\":\"s-2.safetensors\","
                               "\"b\":\"s-1.safetensors\",\"a\":\"s-1.safetensors\","
                               "\"e\":\"s-2.safetensors\""));
    expect_failure(MMQ_ERR_FORMAT, "tensor 'b' is mapped to, but not in, s-1.safetensors");
}
END_TEST

START_TEST(refuses_a_tensor_that_the_map_puts_into_another_shard)
{
    add_shard("s-1.safetensors", "a b");
    add_shard("s-2.safetensors", "c");
    add_text(index_file, INDEX("\"a\":\"s-1.safetensors\",\"b\":\"s-2.safetensors\","
                               "\"c\":\"s-2.safetensors\""));
    expect_failure(MMQ_ERR_FORMAT, "tensor 'b' is mapped to, but not in, s-2.safetensors");
}
END_TEST

START_TEST(refuses_a_tensor_of_a_shard_that_is_not_mapped)
{
    add_shard("s-1.safetensors", "a b");
    add_shard("s-2.safetensors", "c d");
    add_text(index_file, INDEX("\"a\":\"s-1.safetensors\",\"b\":\"s-1.safetensors\","
                               "\"c\":\"s-2.safetensors\""));
    expect_failure(MMQ_ERR_FORMAT, "tensor 'd' is not mapped, but in s-2.safetensors");
}
END_TEST

START_TEST(refuses_one_name_in_two_shards)
{
    add_shard("s-1.safetensors", "a b");
    add_shard("s-2.safetensors", "b c");
    add_text(index_file, INDEX("\"a\":\"s-1.safetensors\",\"b\":\"s-1.safetensors\","
                               "\"c\":\"s-2.safetensors\""));
    expect_failure(MMQ_ERR_FORMAT, "tensor 'b' is in s-1.safetensors and in s-2.safetensors");
}
END_TEST

static const struct {
    const char *why, *text;
} broken[] = {
    {"plain name", INDEX("\"a\":\"../s.safetensors\"")},
    {"plain name", INDEX("\"a\":\"/etc/passwd\"")},
    {"plain name", INDEX("\"a\":\"sub/s.safetensors\"")},
    {"plain name", INDEX("\"a\":\"..\\\\s.safetensors\"")},
    {"plain name", INDEX("\"a\":\"C:s.safetensors\"")},
    {"plain name", INDEX("\"a\":\"..\"")},
    {"plain name", INDEX("\"a\":\".\"")},
    {"plain name", INDEX("\"a\":\"\"")},
    {"plain name", INDEX("\"a\":\"s.safetensors\\u0000x\"")},
    {"plain name", INDEX("\"a\":1")},
    {"plain name", INDEX("\"a\":null")},
    {"plain name", INDEX("\"a\":[\"s.safetensors\"]")},
    {"zero byte", INDEX("\"a\\u0000\":\"s.safetensors\"")},
    {"stands here again", INDEX("\"a\":\"s.safetensors\",\"a\":\"s.safetensors\"")},
    {"names no tensor", INDEX("")},
    {"names no tensor", "{}"},
    {"names no tensor", "{\"weight_map\\u0000\":{\"a\":\"s.safetensors\"}}"},
    {"to be an object", "{\"weight_map\":[]}"},
    {"expected an object", "[]"},
    {"the end of the text", INDEX("\"a\":\"s.safetensors\"") "x"},
    {"expected", "{\"weight_map\":{\"a\":\"s.safetensors\""},
};

START_TEST(refuses_an_index_that_breaks_a_rule)
{
    add_shard("s.safetensors", "a");
    add_text(index_file, broken[_i].text);
    expect_failure(MMQ_ERR_FORMAT, broken[_i].why);
    ck_assert_int_eq(fx.memory.files[0].opened, 0); /* seen before any shard is opened */
}
END_TEST

/* t0..tn-1, each in a shard of its own. */
START_TEST(opens_a_thousand_shards_and_no_more)
{
    static char shards[MAX_MEMORY_FILES][96];
    struct mmqi_checkpoint *checkpoint;
    struct mmqi_buf index = {0};
    int i, n;

    for (n = 1000; n <= 1001; n++) {
        mmqi_buf_clear(&index);
        fx.memory.n_files = 0;
        mmqi_buf_text(&index, "{\"weight_map\":{");
        for (i = 0; i < n; i++) {
            struct mmqi_entry entry = {.dtype = MMQI_U8, .rank = 1, .shape = {0}};
            char name[16], *header;
            size_t size;
            uint64_t whole;

            snprintf(name, sizeof name, "t%d", i);
            entry.name = name;
            ck_assert_int_eq(mmqi_safetensors_header(&header, &size, &whole, &entry, 1, NULL),
                             MMQ_OK);
            ck_assert_uint_le(size, sizeof shards[i]);
            memcpy(shards[i], header, size);
            mmqi_free(header);
            snprintf(name, sizeof name, "s%d", i);
            memory_add(&fx.memory, name, shards[i], size);
            mmqi_buf_format(&index, "%s\"t%d\":\"s%d\"", i ? "," : "", i, i);
        }
        mmqi_buf_text(&index, "}}");
        memory_add(&fx.memory, index_file, index.data, index.size);
        if (n > 1000) {
            expect_failure(MMQ_ERR_FORMAT, "names more than 1000 shards");
            ck_assert_int_eq(fx.memory.files[0].opened, 0);
            continue;
        }
        ck_assert_int_eq(mmqi_checkpoint_open(&checkpoint, fx.store), MMQ_OK);
        ck_assert_uint_eq(mmqi_checkpoint_count(checkpoint), 1000);
        mmqi_checkpoint_release(checkpoint);
    }
    mmqi_buf_free(&index);
}
END_TEST

START_TEST(fails_cleanly_wherever_memory_runs_out_and_opens_on_a_retry)
{
    struct meter meter = {0};
    int n;
    struct mmqi_mem_hooks hooks = {meter_alloc, meter_free, &meter};
    int32_t status = MMQ_ERR_NOMEM;

    add_shard("s-1.safetensors", "a");
    add_shard("s-2.safetensors", "b");
    add_text(index_file, INDEX("\"a\":\"s-1.safetensors\",\"b\":\"s-2.safetensors\""));
    for (n = 0; status == MMQ_ERR_NOMEM; n++) {
        const struct mmqi_mem_hooks *before = mmqi_mem_enter(&hooks);
        struct mmqi_checkpoint *checkpoint;

        meter.left = n;
        status = mmqi_checkpoint_open(&checkpoint, fx.store);
        mmqi_checkpoint_release(checkpoint);
        mmqi_mem_enter(before);
        ck_assert_int_eq(meter.live, 0);
        ck_assert_int_eq(fx.memory.n_open, 0);
        ck_assert_int_lt(n, 100);
    }
    ck_assert_int_eq(status, MMQ_OK);
    ck_assert_int_gt(n, 10);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("checkpoint");
    TCase *tests = tcase_create("checkpoint");
    SRunner *runner = srunner_create(suite);
    int failed;

    tcase_set_timeout(tests, 60);
    tcase_add_checked_fixture(tests, set_up, tear_down);
    tcase_add_test(tests, lists_the_tensors_of_one_file_by_name);
    tcase_add_test(tests, reads_no_byte_outside_a_tensor);
    tcase_add_test(tests, joins_shards_and_opens_each_once);
    tcase_add_test(tests, prefers_the_single_file_to_the_index);
    tcase_add_test(tests, reads_what_torch_saved_under_each_of_its_names);
    tcase_add_test(tests, joins_shards_of_torch);
    tcase_add_test(tests, a_shard_is_what_its_bytes_are_and_not_what_it_is_called);
    tcase_add_test(tests, prefers_safetensors_to_what_torch_saved);
    tcase_add_loop_test(tests, names_the_file_of_torch_that_is_broken, 0,
                        (int)(sizeof broken_torch / sizeof broken_torch[0]));
    tcase_add_test(tests, refuses_one_name_twice_in_a_file_of_torch);
    tcase_add_test(tests, joins_the_tensors_of_another_folder_by_new_names);
    tcase_add_test(tests, a_join_that_makes_one_name_twice_is_refused);
    tcase_add_test(tests, a_join_without_memory_fails_cleanly);
    tcase_add_test(tests, outlives_its_store_and_lives_as_long_as_the_last_holder);
    tcase_add_test(tests, names_the_folder_that_holds_no_checkpoint);
    tcase_add_test(tests, a_file_that_cannot_be_looked_for_is_not_taken_for_an_absent_one);
    tcase_add_test(tests, names_the_shard_that_is_not_there);
    tcase_add_test(tests, names_the_shard_that_is_broken);
    tcase_add_test(tests, refuses_a_mapped_tensor_that_its_shard_has_not);
    tcase_add_test(tests, refuses_a_tensor_that_the_map_puts_into_another_shard);
    tcase_add_test(tests, refuses_a_tensor_of_a_shard_that_is_not_mapped);
    tcase_add_test(tests, refuses_one_name_in_two_shards);
    tcase_add_loop_test(tests, refuses_an_index_that_breaks_a_rule, 0,
                        (int)(sizeof broken / sizeof broken[0]));
    tcase_add_test(tests, opens_a_thousand_shards_and_no_more);
    tcase_add_test(tests, fails_cleanly_wherever_memory_runs_out_and_opens_on_a_retry);
    suite_add_tcase(suite, tests);
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
