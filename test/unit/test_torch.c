/* src/io/torch and pickle: what torch.save wrote, and files that would have it do something else.
 *
 * The files under test/unit/data were written by test/tools/make_torch_files.py. */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "core/dtype.h"
#include "core/mem.h"
#include "core/rng.h"
#include "core/status.h"
#include "io/torch.h"
#include "memory_files.h"
#include "meter.h"
#include "scratch.h"
#include "torch_file.h"

static struct memory_files memory;

static int32_t parse_bytes(struct mmqi_torch *torch, const void *data, size_t size)
{
    struct mmqi_store *store = memory_store(&memory);
    struct mmqi_file *file;
    int32_t status;

    memory.n_files = 0;
    memory_add(&memory, "m.bin", data, size);
    ck_assert_int_eq(mmqi_file_open(&file, store, "m.bin"), MMQ_OK);
    status = mmqi_torch_parse(torch, file);
    mmqi_file_close(file);
    mmqi_store_release(store);
    ck_assert_int_eq(memory.n_open, 0);
    if (status != MMQ_OK) {
        ck_assert_ptr_null(torch->entries);
        ck_assert_ptr_null(torch->names);
    }
    return status;
}

/* ---- what torch wrote ---- */

struct saved {
    char *data;
    size_t size;
    struct mmqi_torch torch;
};

static int32_t read_saved(struct saved *saved, const char *name)
{
    saved->data = read_file(source_path(support_text("test/unit/data/%s", name)), &saved->size);
    return parse_bytes(&saved->torch, saved->data, saved->size);
}

static void open_saved(struct saved *saved, const char *name)
{
    ck_assert_msg(read_saved(saved, name) == MMQ_OK, "%s", mmqi_message());
}

static void close_saved(struct saved *saved)
{
    mmqi_torch_clear(&saved->torch);
    free(saved->data);
}

static const struct mmqi_entry *find(const struct saved *saved, const char *name)
{
    for (size_t i = 0; i < saved->torch.n_entries; i++)
        if (strcmp(saved->torch.entries[i].name, name) == 0)
            return &saved->torch.entries[i];
    ck_abort_msg("there is no '%s'", name);
    return NULL;
}

/* Element `index`, as a number. */
static double element(const struct saved *saved, const struct mmqi_entry *entry, int64_t index)
{
    const size_t size = mmqi_dtype_size(entry->dtype);
    const char *at = saved->data + entry->offset + (size_t)index * size;
    int64_t whole = 0;
    double wide;
    float value;

    ck_assert_uint_le((uint64_t)(index + 1) * size, entry->bytes);
    ck_assert_uint_le(entry->offset + entry->bytes, saved->size);
    if (entry->dtype == MMQI_F64) {
        memcpy(&wide, at, sizeof wide);
        return wide;
    }
    if (entry->dtype == MMQI_F32 || entry->dtype == MMQI_F16 || entry->dtype == MMQI_BF16) {
        mmqi_to_f32(&value, at, entry->dtype, 1);
        return value;
    }
    memcpy(&whole, at, size);
    return (double)whole;
}

/* `name` counts up from `first`, by `step`. */
static void expect_tensor(const struct saved *saved, const char *name, int32_t dtype, int32_t rank,
                          int64_t rows, int64_t cols, double first, double step)
{
    const struct mmqi_entry *entry = find(saved, name);
    const int64_t shape[] = {rows, cols}, n = rank == 0 ? 1 : rank == 1 ? rows : rows * cols;

    ck_assert_int_eq(entry->dtype, dtype);
    ck_assert_int_eq(entry->rank, rank);
    for (int32_t i = 0; i < rank; i++)
        ck_assert_int_eq(entry->shape[i], shape[i]);
    ck_assert_uint_eq(entry->bytes, (uint64_t)n * mmqi_dtype_size(dtype));
    for (int64_t i = 0; i < n; i++)
        ck_assert_double_eq(element(saved, entry, i), first + step * (double)i);
}

START_TEST(reads_every_dtype)
{
    static const struct {
        const char *name;
        int32_t dtype;
    } all[] = {{"t.f32", MMQI_F32}, {"t.f16", MMQI_F16}, {"t.bf16", MMQI_BF16},
               {"t.f64", MMQI_F64}, {"t.i8", MMQI_I8},   {"t.u8", MMQI_U8},
               {"t.i16", MMQI_I16}, {"t.i32", MMQI_I32}, {"t.i64", MMQI_I64}};
    struct saved saved;

    open_saved(&saved, "torch_dtypes.bin");
    ck_assert_uint_eq(saved.torch.n_entries, 10);
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        expect_tensor(&saved, all[i].name, all[i].dtype, 2, 2, 3, 1, 1);
    expect_tensor(&saved, "t.bool", MMQI_BOOL, 2, 2, 3, 1, 0);
    close_saved(&saved);
}
END_TEST

START_TEST(reads_views_that_share_a_storage)
{
    struct saved saved;

    open_saved(&saved, "torch_views.bin");
    ck_assert_uint_eq(saved.torch.n_entries, 8);
    expect_tensor(&saved, "whole", MMQI_F32, 2, 4, 5, 0, 1);
    expect_tensor(&saved, "tied", MMQI_F32, 2, 4, 5, 0, 1);
    ck_assert_uint_eq(find(&saved, "tied")->offset, find(&saved, "whole")->offset);
    expect_tensor(&saved, "rows", MMQI_F32, 2, 2, 5, 5, 1);
    expect_tensor(&saved, "row", MMQI_F32, 1, 5, 0, 15, 1);
    expect_tensor(&saved, "element", MMQI_F32, 0, 0, 0, 12, 1);
    expect_tensor(&saved, "one_wide", MMQI_F32, 2, 1, 1, 7, 1);
    expect_tensor(&saved, "empty", MMQI_F32, 2, 0, 5, 0, 1);
    ck_assert_int_eq(find(&saved, "none")->rank, 3);
    ck_assert_uint_eq(find(&saved, "none")->bytes, 0);
    close_saved(&saved);
}
END_TEST

/* A module's dict: an OrderedDict with metadata; alone, inside other things, of protocol 4. */
static void check_module(const char *file)
{
    struct saved saved;

    open_saved(&saved, file);
    ck_assert_uint_eq(saved.torch.n_entries, 7);
    expect_tensor(&saved, "0.weight", MMQI_F32, 2, 2, 3, 0, 1);
    expect_tensor(&saved, "0.bias", MMQI_F32, 1, 2, 0, 10, 1);
    expect_tensor(&saved, "1.running_var", MMQI_F32, 1, 2, 0, 50, 1);
    expect_tensor(&saved, "1.num_batches_tracked", MMQI_I64, 0, 0, 0, 60, 1);
    close_saved(&saved);
}

START_TEST(reads_the_dict_of_a_module)
{
    check_module("torch_module.pth");
}
END_TEST

START_TEST(finds_the_dict_in_dicts_and_passes_over_what_is_beside_it)
{
    check_module("torch_nested.pt");
    check_module("torch_protocol4.pt");
}
END_TEST

START_TEST(reads_a_parameter_as_its_tensor)
{
    struct saved saved;

    open_saved(&saved, "torch_parameter.pt");
    ck_assert_uint_eq(saved.torch.n_entries, 1);
    expect_tensor(&saved, "p", MMQI_F32, 2, 2, 2, 5, 1);
    close_saved(&saved);
}
END_TEST

static const struct {
    const char *file, *why;
} refused_files[] = {
    {"torch_legacy.bin", "memory/m.bin: the legacy form of torch.save"},
    {"torch_turned.bin", "tensor 'turned' is a view with strides of its own"},
    {"torch_code.bin", "asks for 'torch.nn.modules.linear.Linear' at byte"},
    {"torch_complex.bin", "asks for 'torch.ComplexFloatStorage' at byte"},
};

START_TEST(refuses_by_name_what_torch_can_write_and_this_library_does_not_read)
{
    struct saved saved;

    ck_assert_int_eq(read_saved(&saved, refused_files[_i].file), MMQ_ERR_UNSUPPORTED);
    ck_assert_msg(strstr(mmqi_message(), refused_files[_i].why) != NULL, "%s", mmqi_message());
    close_saved(&saved);
}
END_TEST

START_TEST(refuses_the_tar_form_by_name)
{
    struct mmqi_torch torch;
    char tar[512] = "storages";

    memcpy(tar + 257, "ustar", 5);
    ck_assert_int_eq(parse_bytes(&torch, tar, sizeof tar), MMQ_ERR_UNSUPPORTED);
    ck_assert_ptr_nonnull(strstr(mmqi_message(), "the tar form of torch.save"));
}
END_TEST

/* ---- archives made here ---- */

#define TEXT(text) text, sizeof text - 1

/* An archive of this pickle, two storages of 24 and 0 bytes, and `extra` (or NULL). */
static void make_archive(struct mmqi_buf *buf, const struct mmqi_buf *pickle,
                         const struct zip_item *extra)
{
    static const float six[] = {0, 1, 2, 3, 4, 5};
    struct zip_item items[] = {{.name = "m/data.pkl", .data = pickle->data, .size = pickle->size},
                               {.name = "m/data/0", .data = six, .size = sizeof six},
                               {.name = "m/data/1"},
                               {0}};

    if (extra)
        items[3] = *extra;
    zip_make(buf, items, extra ? 4 : 3, NULL);
}

static int32_t parse_pickle(struct mmqi_torch *torch, const struct mmqi_buf *pickle,
                            const struct zip_item *extra)
{
    struct mmqi_buf buf = {0};
    int32_t status;

    make_archive(&buf, pickle, extra);
    status = parse_bytes(torch, buf.data, buf.size);
    mmqi_buf_free(&buf);
    return status;
}

static struct mmqi_pickle_tensor plain_tensor(void)
{
    struct mmqi_pickle_tensor t = {
        .key = "0", .dtype = MMQI_F32, .rank = 2, .shape = {2, 3}, .length = 6};

    fill_strides(&t);
    return t;
}

/* A dict of one tensor, `name`. */
static void one_tensor(struct mmqi_buf *pickle, const char *name,
                       const struct mmqi_pickle_tensor *tensor)
{
    pickle_begin(pickle);
    pickle_text(pickle, name);
    pickle_tensor(pickle, tensor);
    pickle_end(pickle);
}

static void expect_tensor_verdict(int32_t wanted, const char *why,
                                  const struct mmqi_pickle_tensor *tensor)
{
    struct mmqi_buf pickle = {0};
    struct mmqi_torch torch;
    int32_t status;

    one_tensor(&pickle, "w", tensor);
    status = parse_pickle(&torch, &pickle, NULL);
    ck_assert_msg(status == wanted, "%d: %s", status, mmqi_message());
    if (status != MMQ_OK)
        ck_assert_msg(strstr(mmqi_message(), why) != NULL, "'%s' says not '%s'", mmqi_message(),
                      why);
    mmqi_torch_clear(&torch);
    mmqi_buf_free(&pickle);
}

START_TEST(a_tensor_lies_inside_its_storage_to_the_element)
{
    struct mmqi_pickle_tensor t = plain_tensor();

    expect_tensor_verdict(MMQ_OK, "", &t);
    t.offset = 1;
    expect_tensor_verdict(MMQ_ERR_FORMAT, "tensor 'w' needs elements 1..+6 of 6", &t);
    t.offset = INT64_MAX;
    expect_tensor_verdict(MMQ_ERR_FORMAT, "tensor 'w' needs elements", &t);
    t.offset = -1;
    expect_tensor_verdict(MMQ_ERR_FORMAT, "makes a tensor of what is no storage", &t);
    t = plain_tensor();
    t.shape[0] = 1;
    t.offset = 3;
    expect_tensor_verdict(MMQ_OK, "", &t);
    t.offset = 4;
    expect_tensor_verdict(MMQ_ERR_FORMAT, "tensor 'w' needs elements 4..+3 of 6", &t);
    t.shape[0] = 0;
    t.offset = 6;
    expect_tensor_verdict(MMQ_OK, "", &t);
    t.offset = 7;
    expect_tensor_verdict(MMQ_ERR_FORMAT, "tensor 'w' needs elements 7..+0 of 6", &t);
}
END_TEST

START_TEST(a_storage_has_exactly_the_bytes_of_its_elements)
{
    struct mmqi_pickle_tensor t = plain_tensor();

    t.length = 7;
    expect_tensor_verdict(MMQ_ERR_FORMAT,
                          "tensor 'w': storage '0' has 24 bytes, not 7 elements of F32", &t);
    t.length = 5;
    expect_tensor_verdict(MMQ_ERR_FORMAT, "storage '0' has 24 bytes", &t);
    t.length = INT64_MAX;
    expect_tensor_verdict(MMQ_ERR_FORMAT, "storage '0' has 24 bytes", &t);
    t.length = -1;
    expect_tensor_verdict(MMQ_ERR_FORMAT, "names no storage", &t);
    t = plain_tensor();
    t.dtype = MMQI_F16;
    expect_tensor_verdict(MMQ_ERR_FORMAT, "not 6 elements of F16", &t);
    t.dtype = MMQI_U16;
    expect_tensor_verdict(MMQ_ERR_UNSUPPORTED, "'torch.NoStorage'", &t);
    t = plain_tensor();
    t.key = "2";
    expect_tensor_verdict(MMQ_ERR_FORMAT, "storage '2', which the archive has not", &t);
    t.key = "../data/0";
    expect_tensor_verdict(MMQ_ERR_FORMAT, "which the archive has not", &t);
    t.key = "";
    expect_tensor_verdict(MMQ_ERR_FORMAT, "which the archive has not", &t);
}
END_TEST

START_TEST(shapes_and_strides_are_possible_and_contiguous)
{
    struct mmqi_pickle_tensor t = plain_tensor();

    t.stride[0] = 4;
    expect_tensor_verdict(MMQ_ERR_UNSUPPORTED, "strides of its own", &t);
    t.stride[0] = 0;
    expect_tensor_verdict(MMQ_ERR_UNSUPPORTED, "strides of its own", &t);
    t.stride[0] = -3;
    expect_tensor_verdict(MMQ_ERR_FORMAT, "of an impossible shape", &t);
    t = plain_tensor();
    t.shape[1] = -3;
    expect_tensor_verdict(MMQ_ERR_FORMAT, "of an impossible shape", &t);
    t.shape[1] = INT64_C(1) << 48;
    expect_tensor_verdict(MMQ_ERR_FORMAT, "of an impossible shape", &t);
    t = plain_tensor();
    t.shape[0] = t.shape[1] = (INT64_C(1) << 48) - 1;
    expect_tensor_verdict(MMQ_ERR_FORMAT, "whose size overflows", &t);
    t.rank = 3;
    t.shape[2] = 0;
    expect_tensor_verdict(MMQ_ERR_FORMAT, "whose size overflows", &t);
    t = plain_tensor();
    t.rank = MMQI_MAX_RANK;
    for (int i = 0; i < t.rank; i++)
        t.shape[i] = 1;
    fill_strides(&t);
    expect_tensor_verdict(MMQ_OK, "", &t);
}
END_TEST

START_TEST(a_tensors_name_is_short_text)
{
    static const char *const bad[] = {"\xff", "a\xc3"};
    const struct mmqi_pickle_tensor t = plain_tensor();
    char name[1026];
    struct mmqi_torch torch;

    memset(name, 'n', sizeof name);
    for (size_t size = 1024; size <= 1025; size++) {
        struct mmqi_buf pickle = {0};

        name[size] = '\0';
        one_tensor(&pickle, name, &t);
        name[size] = 'n';
        ck_assert_int_eq(parse_pickle(&torch, &pickle, NULL),
                         size > 1024 ? MMQ_ERR_FORMAT : MMQ_OK);
        mmqi_torch_clear(&torch);
        mmqi_buf_free(&pickle);
    }
    for (size_t i = 0; i < 2; i++) {
        struct mmqi_buf pickle = {0};

        one_tensor(&pickle, bad[i], &t);
        ck_assert_int_eq(parse_pickle(&torch, &pickle, NULL), MMQ_ERR_FORMAT);
        mmqi_buf_free(&pickle);
    }
}
END_TEST

START_TEST(looks_for_one_pickle_and_its_byte_order)
{
    static const struct {
        int32_t status;
        const char *why;
        struct zip_item extra;
    } all[] = {
        {MMQ_OK, "", {.name = "m/byteorder", .data = TEXT("little")}},
        {MMQ_ERR_UNSUPPORTED,
         "its byteorder is 'big'",
         {.name = "m/byteorder", .data = TEXT("big")}},
        {MMQ_ERR_UNSUPPORTED, "its byteorder is ''", {.name = "m/byteorder"}},
        {MMQ_ERR_FORMAT, "its byteorder has 7", {.name = "m/byteorder", .data = TEXT("little\n")}},
        {MMQ_OK, "", {.name = "n/byteorder", .data = TEXT("big")}},
        {MMQ_ERR_FORMAT, "holds 'm/data.pkl' and 'n/data.pkl'", {.name = "n/data.pkl"}},
        {MMQ_OK, "", {.name = "m/n/data.pkl"}},
        {MMQ_ERR_UNSUPPORTED, "a scripted module", {.name = "m/constants.pkl"}},
    };
    const struct mmqi_pickle_tensor t = plain_tensor();
    struct mmqi_torch torch;
    struct mmqi_buf pickle = {0}, buf = {0};

    one_tensor(&pickle, "w", &t);
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        ck_assert_int_eq(parse_pickle(&torch, &pickle, &all[i].extra), all[i].status);
        if (all[i].status != MMQ_OK)
            ck_assert_ptr_nonnull(strstr(mmqi_message(), all[i].why));
        mmqi_torch_clear(&torch);
    }
    zip_make(&buf, &(struct zip_item){.name = "m/other"}, 1, NULL);
    ck_assert_int_eq(parse_bytes(&torch, buf.data, buf.size), MMQ_ERR_FORMAT);
    ck_assert_ptr_nonnull(strstr(mmqi_message(), "without torch's data.pkl"));
    mmqi_buf_free(&buf);
    mmqi_buf_free(&pickle);
}
END_TEST

/* ---- pickles that are no state dicts ---- */

#define STORAGE                                                                                    \
    "(X\7\0\0\0storagectorch\nFloatStorage\nX\1\0\0\0"                                             \
    "0X\3\0\0\0cpuK\6tQ"
#define TENSOR "ctorch._utils\n_rebuild_tensor_v2\n(" STORAGE "K\0K\6\x85K\1\x85\x89NtR"

static const struct {
    int32_t status;
    const char *why, *bytes;
    size_t size;
} programs[] = {
    /* What is executed by other readers, and not here. */
    {MMQ_ERR_UNSUPPORTED, "asks for 'os.system' at byte 2",
     TEXT("\x80\2cos\nsystem\n(X\2\0\0\0lstR.")},
    {MMQ_ERR_UNSUPPORTED, "asks for 'builtins.eval'",
     TEXT("\x80\4\x8c\x08"
          "builtins\x8c\4eval\x93.")},
    {MMQ_ERR_UNSUPPORTED, "asks for 'torch.load'", TEXT("\x80\2ctorch\nload\n.")},
    {MMQ_ERR_UNSUPPORTED, "asks for 'collections.OrderedDict.x'",
     TEXT("\x80\2ccollections\nOrderedDict.x\n.")},
    {MMQ_ERR_UNSUPPORTED, "asks for 'argparse.Namespace'",
     TEXT("\x80\2cargparse\nNamespace\n)\x81.")},
    {MMQ_ERR_UNSUPPORTED, "opcode 0x69 at byte 3", TEXT("\x80\2(ios\nsystem\n.")}, /* INST */
    {MMQ_ERR_UNSUPPORTED, "opcode 0x6f at byte 4", TEXT("\x80\2(}o.")},            /* OBJ */
    {MMQ_ERR_UNSUPPORTED, "opcode 0x81 at byte 28",
     TEXT("\x80\2ccollections\nOrderedDict\n)\x81.")},                     /* NEWOBJ */
    {MMQ_ERR_UNSUPPORTED, "opcode 0x82 at byte 2", TEXT("\x80\2\x82\1.")}, /* EXT1 */
    {MMQ_ERR_UNSUPPORTED, "opcode 0x97 at byte 2", TEXT("\x80\5\x97.")},   /* NEXT_BUFFER */
    {MMQ_ERR_UNSUPPORTED, "opcode 0x50 at byte 2", TEXT("\x80\2P0\n.")},   /* PERSID */
    {MMQ_ERR_UNSUPPORTED, "opcode 0x49 at byte 2", TEXT("\x80\2I1\n.")},   /* INT */
    {MMQ_ERR_UNSUPPORTED, "opcode 0x8b at byte 2", TEXT("\x80\2\x8b\xff\xff\xff\x7f.")}, /* LONG4 */
    {MMQ_ERR_UNSUPPORTED, "opcode 0x00 at byte 2", TEXT("\x80\2\0.")},
    {MMQ_ERR_UNSUPPORTED, "protocol other than 2 to 5", TEXT("\x80\6}.")},
    {MMQ_ERR_UNSUPPORTED, "protocol other than 2 to 5", TEXT("\x80\1}.")},
    /* Calls of what may be called, otherwise. */
    {MMQ_ERR_UNSUPPORTED, "calls torch.FloatStorage with 0 values",
     TEXT("\x80\2ctorch\nFloatStorage\n)R.")},
    {MMQ_ERR_UNSUPPORTED, "calls collections.OrderedDict with 1 values",
     TEXT("\x80\2ccollections\nOrderedDict\n]\x85R.")},
    {MMQ_ERR_UNSUPPORTED, "calls torch.Size with 2 values", TEXT("\x80\2ctorch\nSize\nNN\x86R.")},
    {MMQ_ERR_UNSUPPORTED, "calls torch._utils._rebuild_parameter",
     TEXT("\x80\2ctorch._utils\n_rebuild_parameter\nN\x85R.")},
    {MMQ_ERR_UNSUPPORTED, "calls what is no function", TEXT("\x80\2})R.")},
    {MMQ_ERR_UNSUPPORTED, "calls what is no function", TEXT("\x80\2ctorch\nSize\n}R.")},
    {MMQ_ERR_UNSUPPORTED, "sets the state of what is no dict", TEXT("\x80\2]}b.")},
    {MMQ_ERR_FORMAT, "makes a tensor of what is no storage",
     TEXT("\x80\2ctorch._utils\n_rebuild_tensor_v2\n)R.")},
    {MMQ_ERR_FORMAT, "makes a tensor of what is no storage",
     TEXT("\x80\2ctorch._utils\n_rebuild_tensor_v2\n(NK\0))\x89NtR.")},
    {MMQ_ERR_FORMAT, "of an impossible shape",
     TEXT("\x80\2ctorch._utils\n_rebuild_tensor_v2\n(" STORAGE "K\0N\x85N\x85\x89NtR.")},
    {MMQ_ERR_FORMAT, "of an impossible shape",
     TEXT("\x80\2ctorch._utils\n_rebuild_tensor_v2\n(" STORAGE "K\0K\6\x85)\x89NtR.")},
    {MMQ_ERR_FORMAT, "persistent id of five values", TEXT("\x80\2)Q.")},
    {MMQ_ERR_FORMAT, "persistent id of five values", TEXT("\x80\2X\1\0\0\0aQ.")},
    {MMQ_ERR_FORMAT, "names no storage", TEXT("\x80\2(NNNNNtQ.")},
    {MMQ_ERR_FORMAT, "names no storage",
     TEXT("\x80\2(X\7\0\0\0storagectorch\nSize\nX\1\0\0\0"
          "0X\3\0\0\0cpuK\6tQ.")},
    /* Stack, marks and memo. */
    {MMQ_ERR_FORMAT, "finds too few values", TEXT("\x80\2\x87.")},
    {MMQ_ERR_FORMAT, "finds too few values", TEXT("\x80\2N(\x85.")},
    {MMQ_ERR_FORMAT, "finds too few values", TEXT("\x80\2q\0.")},
    {MMQ_ERR_FORMAT, "finds too few values", TEXT("\x80\2NNs.")},
    {MMQ_ERR_FORMAT, "finds too few values", TEXT("\x80\2]a.")},
    {MMQ_ERR_FORMAT, "finds no mark", TEXT("\x80\2t.")},
    {MMQ_ERR_FORMAT, "finds no mark", TEXT("\x80\2}u.")},
    {MMQ_ERR_FORMAT, "finds no mark", TEXT("\x80\2]e.")},
    {MMQ_ERR_FORMAT, "appends to no list", TEXT("\x80\2}Na.")},
    {MMQ_ERR_FORMAT, "appends to no list", TEXT("\x80\2(e.")},
    {MMQ_ERR_FORMAT, "fills no dict", TEXT("\x80\2](NNu.")},
    {MMQ_ERR_FORMAT, "fills no dict", TEXT("\x80\2}(Nu.")},
    {MMQ_ERR_FORMAT, "fills no dict", TEXT("\x80\2(NNu.")},
    {MMQ_ERR_FORMAT, "what the memo has not", TEXT("\x80\2h\0.")},
    {MMQ_ERR_FORMAT, "what the memo has not", TEXT("\x80\2}q\2h\1.")},
    {MMQ_ERR_FORMAT, "what the memo has not", TEXT("\x80\2j\xff\xff\xff\xff.")},
    {MMQ_ERR_FORMAT, "a memo of more rows", TEXT("\x80\2}r\xff\xff\xff\xff.")},
    {MMQ_ERR_FORMAT, "finds no names on the stack", TEXT("\x80\4NN\x93.")},
    {MMQ_ERR_FORMAT, "with other than one value", TEXT("\x80\2.")},
    {MMQ_ERR_FORMAT, "with other than one value", TEXT("\x80\2}}.")},
    {MMQ_ERR_FORMAT, "with other than one value", TEXT("\x80\2(}.")},
    {MMQ_ERR_FORMAT, "before its last byte", TEXT("\x80\2}..")},
    {MMQ_ERR_FORMAT, "has no end", TEXT("\x80\2}")},
    {MMQ_ERR_FORMAT, "has no end", TEXT("")},
    /* Counts that are not the bytes. */
    {MMQ_ERR_FORMAT, "more bytes than there are",
     TEXT("\x80\2X\xff\xff\xff\xff"
          "a.")},
    {MMQ_ERR_FORMAT, "more bytes than there are",
     TEXT("\x80\4\x8d\xff\xff\xff\xff\xff\xff\xff\xff"
          "a.")},
    {MMQ_ERR_FORMAT, "more bytes than there are",
     TEXT("\x80\4\x95\xff\xff\xff\xff\xff\xff\xff\xff}.")},
    {MMQ_ERR_FORMAT, "more bytes than there are", TEXT("\x80\2\x8a\xff\0.")},
    {MMQ_ERR_FORMAT, "more bytes than there are", TEXT("\x80\2X\1\0")},
    {MMQ_ERR_FORMAT, "more bytes than there are", TEXT("\x80\2ctorch")},
    {MMQ_ERR_FORMAT, "more bytes than there are", TEXT("\x80\2G\0.")},
    /* Sound pickles of something else. */
    {MMQ_ERR_FORMAT, "is no dict of tensors", TEXT("\x80\2N.")},
    {MMQ_ERR_FORMAT, "is no dict of tensors", TEXT("\x80\2" TENSOR ".")},
    {MMQ_ERR_FORMAT, "holds no tensor", TEXT("\x80\2}.")},
    {MMQ_ERR_FORMAT, "holds no tensor", TEXT("\x80\2}X\1\0\0\0aK\1s.")},
    {MMQ_ERR_FORMAT, "a tensor's key in its pickle is no string", TEXT("\x80\2}K\1" TENSOR "s.")},
    /* A dict that holds itself. */
    {MMQ_ERR_FORMAT, "deeper than 8 dicts", TEXT("\x80\2}q\0X\5\0\0\0modelh\0s.")},
    /* What is sound. */
    {MMQ_OK, "", TEXT("\x80\2}X\1\0\0\0w" TENSOR "s.")},
    {MMQ_OK, "", TEXT("}(X\1\0\0\0w" TENSOR "(t)u.")},
};

START_TEST(refuses_what_a_state_dict_does_not_need)
{
    struct mmqi_buf pickle = {0};
    struct mmqi_torch torch;
    int32_t status;

    mmqi_buf_append(&pickle, programs[_i].bytes, programs[_i].size);
    status = parse_pickle(&torch, &pickle, NULL);
    ck_assert_msg(status == programs[_i].status, "%d: %s", status, mmqi_message());
    if (status != MMQ_OK)
        ck_assert_msg(strstr(mmqi_message(), programs[_i].why) != NULL, "'%s' says not '%s'",
                      mmqi_message(), programs[_i].why);
    mmqi_torch_clear(&torch);
    mmqi_buf_free(&pickle);
}
END_TEST

START_TEST(deep_nesting_and_long_memos_are_bounded_by_the_bytes)
{
    static const char *const repeated[] = {"}", "(", "\x85", "}\x94", "]", ")"};
    struct mmqi_buf pickle = {0};
    struct mmqi_torch torch;

    for (size_t i = 0; i < sizeof repeated / sizeof repeated[0]; i++) {
        mmqi_buf_clear(&pickle);
        mmqi_buf_append(&pickle, "\x80\4)", 3);
        for (int n = 0; n < 1000000; n++)
            mmqi_buf_text(&pickle, repeated[i]);
        mmqi_buf_text(&pickle, ".");
        ck_assert_int_eq(parse_pickle(&torch, &pickle, NULL), MMQ_ERR_FORMAT);
    }
    mmqi_buf_free(&pickle);
}
END_TEST

START_TEST(a_name_for_very_many_tensors_takes_no_more_memory_than_the_pickle)
{
    struct meter meter = {.left = INT64_MAX};
    struct mmqi_mem_hooks hooks = {meter_alloc, meter_free, &meter};
    const struct mmqi_pickle_tensor t = plain_tensor();
    const struct mmqi_mem_hooks *before;
    struct mmqi_buf pickle = {0}, buf = {0};
    struct mmqi_torch torch;
    char name[1000];

    memset(name, 'n', sizeof name - 1);
    name[sizeof name - 1] = '\0';
    mmqi_buf_append(&pickle, "\x80\2}", 3);
    pickle_text(&pickle, name);
    mmqi_buf_append(&pickle, "q\0", 2);
    pickle_tensor(&pickle, &t);
    mmqi_buf_append(&pickle, "q\1s(", 4);
    for (int n = 0; n < 100000; n++)
        mmqi_buf_append(&pickle, "h\0h\1", 4);
    mmqi_buf_text(&pickle, "u.");
    make_archive(&buf, &pickle, NULL);
    before = mmqi_mem_enter(&hooks);
    ck_assert_int_eq(parse_bytes(&torch, buf.data, buf.size), MMQ_ERR_FORMAT);
    mmqi_mem_enter(before);
    ck_assert_int_eq(meter.live, 0);
    ck_assert_uint_lt(meter.largest, 80 * pickle.size);
    mmqi_buf_free(&buf);
    mmqi_buf_free(&pickle);
}
END_TEST

/* ---- damage ---- */

START_TEST(every_cut_of_a_file_is_refused)
{
    size_t size;
    char *data = read_file(source_path("test/unit/data/torch_nested.pt"), &size);
    struct mmqi_torch torch;

    for (size_t cut = 0; cut < size; cut++) {
        char *copy = malloc(cut + 1);

        memcpy(copy, data, cut);
        ck_assert_int_eq(parse_bytes(&torch, copy, cut), MMQ_ERR_FORMAT);
        free(copy);
    }
    free(data);
}
END_TEST

static void check_survivor(const struct mmqi_torch *torch, size_t size)
{
    for (size_t i = 0; i < torch->n_entries; i++) {
        const struct mmqi_entry *entry = &torch->entries[i];

        ck_assert_uint_le(entry->offset, size);
        ck_assert_uint_le(entry->bytes, size - entry->offset);
        ck_assert_int_le(entry->rank, MMQI_MAX_RANK);
        ck_assert_uint_le(strlen(entry->name), 1024);
    }
}

START_TEST(what_survives_random_damage_lies_inside_the_file)
{
    static const char *const files[] = {"torch_nested.pt", "torch_protocol4.pt", "torch_views.bin"};
    size_t size;
    char *data = read_file(source_path(support_text("test/unit/data/%s", files[_i])), &size);
    int n_good = 0;

    for (uint64_t round = 0; round < 20000; round++) {
        char *copy = malloc(size);
        struct mmqi_torch torch;

        memcpy(copy, data, size);
        for (uint64_t k = 0; k <= round % 4; k++)
            copy[(size_t)(mmqi_rng_uniform(1, round, k) * (double)size)] =
                (char)(int)(mmqi_rng_uniform(2, round, k) * 256);
        if (parse_bytes(&torch, copy, size) == MMQ_OK) {
            n_good++;
            check_survivor(&torch, size);
        }
        mmqi_torch_clear(&torch);
        free(copy);
    }
    ck_assert_int_gt(n_good, 1000);
    free(data);
}
END_TEST

START_TEST(fails_cleanly_wherever_memory_runs_out)
{
    struct meter meter = {0};
    struct mmqi_mem_hooks hooks = {meter_alloc, meter_free, &meter};
    struct mmqi_store *store = memory_store(&memory);
    size_t size;
    char *data = read_file(source_path("test/unit/data/torch_nested.pt"), &size);
    struct mmqi_file *file;
    int32_t status = MMQ_ERR_NOMEM;
    int n;

    memory_add(&memory, "m.bin", data, size);
    ck_assert_int_eq(mmqi_file_open(&file, store, "m.bin"), MMQ_OK);
    for (n = 0; status == MMQ_ERR_NOMEM; n++) {
        const struct mmqi_mem_hooks *before = mmqi_mem_enter(&hooks);
        struct mmqi_torch torch;

        meter.left = n;
        status = mmqi_torch_parse(&torch, file);
        mmqi_torch_clear(&torch);
        mmqi_mem_enter(before);
        ck_assert_int_eq(meter.live, 0);
        ck_assert_int_lt(n, 100);
    }
    ck_assert_int_eq(status, MMQ_OK);
    ck_assert_int_gt(n, 12);
    mmqi_file_close(file);
    mmqi_store_release(store);
    free(data);
}
END_TEST

#define COUNT(array) ((int)(sizeof(array) / sizeof(array)[0]))

int main(void)
{
    Suite *suite = suite_create("torch");
    TCase *tests = tcase_create("torch");
    SRunner *runner = srunner_create(suite);
    int failed;

    tcase_set_timeout(tests, 120);
    tcase_add_test(tests, reads_every_dtype);
    tcase_add_test(tests, reads_views_that_share_a_storage);
    tcase_add_test(tests, reads_the_dict_of_a_module);
    tcase_add_test(tests, finds_the_dict_in_dicts_and_passes_over_what_is_beside_it);
    tcase_add_test(tests, reads_a_parameter_as_its_tensor);
    tcase_add_loop_test(tests, refuses_by_name_what_torch_can_write_and_this_library_does_not_read,
                        0, COUNT(refused_files));
    tcase_add_test(tests, refuses_the_tar_form_by_name);
    tcase_add_test(tests, a_tensor_lies_inside_its_storage_to_the_element);
    tcase_add_test(tests, a_storage_has_exactly_the_bytes_of_its_elements);
    tcase_add_test(tests, shapes_and_strides_are_possible_and_contiguous);
    tcase_add_test(tests, a_tensors_name_is_short_text);
    tcase_add_test(tests, looks_for_one_pickle_and_its_byte_order);
    tcase_add_loop_test(tests, refuses_what_a_state_dict_does_not_need, 0, COUNT(programs));
    tcase_add_test(tests, deep_nesting_and_long_memos_are_bounded_by_the_bytes);
    tcase_add_test(tests, a_name_for_very_many_tensors_takes_no_more_memory_than_the_pickle);
    tcase_add_test(tests, every_cut_of_a_file_is_refused);
    tcase_add_loop_test(tests, what_survives_random_damage_lies_inside_the_file, 0, 3);
    tcase_add_test(tests, fails_cleanly_wherever_memory_runs_out);
    suite_add_tcase(suite, tests);
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
