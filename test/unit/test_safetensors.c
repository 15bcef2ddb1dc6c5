/* src/io/safetensors: every rule of the format, one by one, and the writer. */
#include <check.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "core/buf.h"
#include "core/dtype.h"
#include "core/mem.h"
#include "core/status.h"
#include "io/safetensors.h"
#include "memory_files.h"
#include "meter.h"

/* A file with this header and `data` zero bytes. */
static struct mmqi_buf file_of(const char *header, size_t data)
{
    const uint64_t size = strlen(header);
    struct mmqi_buf buf = {0};
    char bytes[8];
    size_t i;

    for (i = 0; i < 8; i++)
        bytes[i] = (char)(size >> 8 * i & 0xFF);
    mmqi_buf_append(&buf, bytes, 8);
    mmqi_buf_text(&buf, header);
    for (i = 0; i < data; i++)
        mmqi_buf_append(&buf, "", 1);
    return buf;
}

static int32_t parse_bytes(struct mmqi_safetensors *st, const void *data, size_t size)
{
    struct memory_files memory = {0};
    struct mmqi_store *store = memory_store(&memory);
    struct mmqi_file *file;
    int32_t status;

    memory_add(&memory, "m.safetensors", data, size);
    ck_assert_int_eq(mmqi_file_open(&file, store, "m.safetensors"), MMQ_OK);
    status = mmqi_safetensors_parse(st, file);
    if (status != MMQ_OK) {
        ck_assert_ptr_null(st->entries);
        ck_assert_ptr_null(st->names);
        ck_assert_uint_eq(st->n_entries, 0);
        ck_assert_ptr_eq(strstr(mmqi_message(), "memory/m.safetensors: "), mmqi_message());
    }
    mmqi_file_close(file);
    mmqi_store_release(store);
    return status;
}

static int32_t parse(struct mmqi_safetensors *st, const char *header, size_t data)
{
    struct mmqi_buf buf = file_of(header, data);
    int32_t status = parse_bytes(st, buf.data, buf.size);

    mmqi_buf_free(&buf);
    return status;
}

static const char two[] = "{\"__metadata__\":{\"format\":\"pt\"},"
                          "\"b\":{\"dtype\":\"BF16\",\"shape\":[3],\"data_offsets\":[24,30]},"
                          "\"a\":{\"shape\":[2,3],\"data_offsets\":[0,24],\"dtype\":\"F32\"}}    ";

START_TEST(reads_names_dtypes_shapes_and_places)
{
    struct mmqi_safetensors st;
    const uint64_t data = 8 + strlen(two);

    ck_assert_int_eq(parse(&st, two, 30), MMQ_OK);
    ck_assert_uint_eq(st.n_entries, 2);
    ck_assert_str_eq(st.entries[0].name, "a"); /* in the order of the data */
    ck_assert_int_eq(st.entries[0].dtype, MMQI_F32);
    ck_assert_int_eq(st.entries[0].rank, 2);
    ck_assert_int_eq(st.entries[0].shape[0], 2);
    ck_assert_int_eq(st.entries[0].shape[1], 3);
    ck_assert_uint_eq(st.entries[0].offset, data);
    ck_assert_uint_eq(st.entries[0].bytes, 24);
    ck_assert_str_eq(st.entries[1].name, "b");
    ck_assert_int_eq(st.entries[1].dtype, MMQI_BF16);
    ck_assert_uint_eq(st.entries[1].offset, data + 24);
    ck_assert_uint_eq(st.entries[1].bytes, 6);
    mmqi_safetensors_clear(&st);
    ck_assert_ptr_null(st.entries);
    mmqi_safetensors_clear(&st); /* once more does nothing */
}
END_TEST

#define ENTRY(dtype, shape, offsets)                                                               \
    "{\"dtype\":\"" dtype "\",\"shape\":[" shape "],\"data_offsets\":[" offsets "]}"
#define ONE(dtype, shape, offsets) "{\"w\":" ENTRY(dtype, shape, offsets) "}"

static const struct {
    const char *header;
    size_t data;
    size_t n;
} good[] = {
    {"{}", 0, 0},
    {"{}      ", 0, 0},
    {"{\"__metadata__\":{}}", 0, 0},
    {ONE("F32", "", "0,4"), 4, 1},  /* a scalar */
    {ONE("F32", "0", "0,0"), 0, 1}, /* empty */
    {ONE("F32", "0,281474976710655", "0,0"), 0, 1},
    {ONE("U8", "1,1,1,1,1,1,1,3", "0,3"), 3, 1}, /* rank 8; not aligned to anything */
    {ONE("BOOL", "5", "0,5"), 5, 1},
    {ONE("F8_E4M3", "5", "0,5"), 5, 1},
    {ONE("F8_E5M2", "5", "0,5"), 5, 1},
    {ONE("F64", "1", "0,8"), 8, 1},
    {ONE("I64", "1", "0,8"), 8, 1},
    {ONE("U64", "1", "0,8"), 8, 1},
    {ONE("I16", "1", "0,2"), 2, 1},
    {ONE("U16", "1", "0,2"), 2, 1},
    {ONE("F16", "1", "0,2"), 2, 1},
    {ONE("I32", "1", "0,4"), 4, 1},
    {ONE("U32", "1", "0,4"), 4, 1},
    {ONE("I8", "1", "0,1"), 1, 1},
    {"{\"\":" ENTRY("U8", "1", "0,1") "}", 1, 1},
    /* empty tensors at the begin, between two others and at the end */
    {"{\"x\":" ENTRY("U8", "1", "0,1") ",\"e0\":" ENTRY("F32", "0", "0,0") ",\"e1\":" ENTRY(
         "F32", "2,0", "1,1") ",\"y\":" ENTRY("F32", "1", "1,5") ",\"e2\":" ENTRY("U8", "0",
                                                                                  "5,5") "}",
     5, 5},
};

START_TEST(accepts_what_the_format_allows)
{
    struct mmqi_safetensors st;

    ck_assert_msg(parse(&st, good[_i].header, good[_i].data) == MMQ_OK, "%s: %s", good[_i].header,
                  mmqi_message());
    ck_assert_uint_eq(st.n_entries, good[_i].n);
    mmqi_safetensors_clear(&st);
}
END_TEST

static const struct {
    const char *why; /* a part of the message */
    const char *header;
    size_t data;
} bad[] = {
    /* text */
    {"does not begin with '{'", " {}", 0},
    {"does not begin with '{'", "[]", 0},
    {"does not begin with '{'", "\xEF\xBB\xBF{}", 0},
    {"does not begin with '{'", "", 0},
    {"expected a key", "{", 0},
    {"expected the end of the text", "{}x", 0},
    {"expected the end of the text", "{}{}", 0},
    {"UTF-8", "{\"\xFF\":" ENTRY("U8", "1", "0,1") "}", 1},
    {"expected", "{\"w\":[[[[[[1]]]]]]}", 0},
    /* metadata */
    {"__metadata__", "{\"__metadata__\":null}", 0},
    {"__metadata__", "{\"__metadata__\":[]}", 0},
    {"__metadata__", "{\"__metadata__\":{\"a\":1}}", 0},
    {"__metadata__", "{\"__metadata__\":{\"a\":{}}}", 0},
    {"stands here again", "{\"__metadata__\":{\"a\":\"\",\"a\":\"\"}}", 0},
    {"stands here again", "{\"__metadata__\":{},\"__metadata__\":{}}", 0},
    /* fields */
    {"an object", "{\"w\":1}", 0},
    {"an object", "{\"w\":null}", 0},
    {"needs the fields", "{\"w\":{}}", 0},
    {"needs the fields", "{\"w\":{\"shape\":[1],\"data_offsets\":[0,4]}}", 4},
    {"needs the fields", "{\"w\":{\"dtype\":\"F32\",\"data_offsets\":[0,4]}}", 4},
    {"needs the fields", "{\"w\":{\"dtype\":\"F32\",\"shape\":[1]}}", 4},
    {"unknown field",
     "{\"w\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4],\"strides\":[1]}}", 4},
    {"stands here again",
     "{\"w\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4],\"shape\":[1]}}", 4},
    /* dtype */
    {"unknown dtype", ONE("F33", "1", "0,4"), 4},
    {"unknown dtype", ONE("f32", "1", "0,4"), 4},
    {"unknown dtype", ONE("", "1", "0,4"), 4},
    {"unknown dtype", ONE("F32\\u0000", "1", "0,4"), 4},
    {"the dtype, a string", "{\"w\":{\"dtype\":0,\"shape\":[1],\"data_offsets\":[0,4]}}", 4},
    /* shape */
    {"an array", "{\"w\":{\"dtype\":\"F32\",\"shape\":1,\"data_offsets\":[0,4]}}", 4},
    {"shape takes", ONE("F32", "-1", "0,4"), 4},
    {"shape takes", ONE("F32", "281474976710656", "0,4"), 4},
    {"expected an integer", ONE("F32", "9223372036854775808", "0,4"), 4},
    {"expected an integer", ONE("F32", "1.0", "0,4"), 4},
    {"expected an integer", ONE("F32", "1e0", "0,4"), 4},
    {"expected an integer", ONE("F32", "true", "0,4"), 4},
    {"expected an integer", ONE("F32", "[1]", "0,4"), 4},
    {"shape takes", ONE("F32", "1,1,1,1,1,1,1,1,1", "0,4"), 4},   /* rank 9 */
    {"overflows", ONE("F32", "4294967296,4294967296", "0,0"), 0}, /* 2^64 elements: 0 if it wraps */
    {"overflows", ONE("U8", "4294967296,2147483648", "0,4"), 4},
    {"overflows", ONE("F32", "4294967296,4294967296,0", "0,0"), 0},
    {"overflows", ONE("F32", "0,281474976710655,281474976710655", "0,0"), 0},
    /* offsets */
    {"data_offsets", ONE("F32", "1", ""), 4},
    {"data_offsets", ONE("F32", "1", "0"), 4},
    {"data_offsets", ONE("F32", "1", "0,4,4"), 4},
    {"data_offsets", ONE("F32", "1", "-4,0"), 4},
    {"lies at bytes 4..0 of 4", ONE("F32", "1", "4,0"), 4},
    {"lies at bytes 0..4 of 3", ONE("F32", "1", "0,4"), 3}, /* a truncated file */
    {"lies at bytes 9223372036854775803..9223372036854775807",
     ONE("F32", "1", "9223372036854775803,9223372036854775807"), 4},
    {"expected an integer", ONE("F32", "1", "0,18446744073709551616"), 4},
    {"has 8 bytes, its dtype and shape need 4", ONE("F32", "1", "0,8"), 8},
    {"has 4 bytes, its dtype and shape need 2", ONE("F16", "1", "0,4"), 4},
    {"has 0 bytes, its dtype and shape need 4", ONE("F32", "", "0,0"), 0},
    {"has 4 bytes, its dtype and shape need 0", ONE("F32", "0", "0,4"), 4},
    /* layout */
    {"'w' begins at byte 63, what lies before it ends at 62: a hole", ONE("F32", "1", "1,5"), 5},
    {"the tensors end at byte 66, the file at 67", ONE("F32", "1", "0,4"), 5},
    {"the tensors end at byte 10, the file at 11", "{}", 1},
    {"'b' begins at byte", "{\"a\":" ENTRY("U8", "2", "0,2") ",\"b\":" ENTRY("U8", "2", "3,5") "}",
     5},
    {": an overlap", "{\"a\":" ENTRY("U8", "2", "0,2") ",\"b\":" ENTRY("U8", "2", "1,3") "}", 3},
    {": an overlap", "{\"a\":" ENTRY("U8", "2", "0,2") ",\"b\":" ENTRY("U8", "2", "0,2") "}", 2},
    {": an overlap", /* an empty one inside another */
     "{\"a\":" ENTRY("U8", "2", "0,2") ",\"b\":" ENTRY("U8", "0", "1,1") "}", 2},
    /* names */
    {"stands here again", "{\"w\":" ENTRY("U8", "1", "0,1") ",\"w\":" ENTRY("U8", "1", "1,2") "}",
     2},
    {"stands here again",
     "{\"w\":" ENTRY("U8", "1", "0,1") ",\"\\u0077\":" ENTRY("U8", "1", "1,2") "}", 2},
    {"none of them zero", "{\"w\\u0000\":" ENTRY("U8", "1", "0,1") "}", 1},
};

START_TEST(refuses_what_breaks_a_rule)
{
    struct mmqi_safetensors st;

    ck_assert_msg(parse(&st, bad[_i].header, bad[_i].data) == MMQ_ERR_FORMAT, "%s", bad[_i].header);
    ck_assert_msg(strstr(mmqi_message(), bad[_i].why) != NULL, "'%s' says not '%s'", mmqi_message(),
                  bad[_i].why);
}
END_TEST

static const char *const foreign[] = {"F4",          "F6_E2M3",     "F6_E3M2", "F8_E8M0",
                                      "F8_E4M3FNUZ", "F8_E5M2FNUZ", "C64"};

START_TEST(tells_a_dtype_it_does_not_read_from_one_that_is_none)
{
    struct mmqi_safetensors st;
    char header[128];

    snprintf(header, sizeof header, ONE("%s", "2", "0,16"), foreign[_i]);
    ck_assert_int_eq(parse(&st, header, 16), MMQ_ERR_UNSUPPORTED);
    ck_assert_ptr_nonnull(strstr(mmqi_message(), "tensor 'w' has a dtype that this library"));
}
END_TEST

START_TEST(refuses_a_file_cut_off_at_any_byte)
{
    struct mmqi_buf buf = file_of(two, 30);
    struct mmqi_safetensors st;
    size_t size;

    for (size = 0; size < buf.size; size++)
        ck_assert_int_eq(parse_bytes(&st, buf.data, size), MMQ_ERR_FORMAT);
    mmqi_buf_free(&buf);
}
END_TEST

START_TEST(refuses_a_header_larger_than_the_limit_or_the_file)
{
    static const uint64_t sizes[] = {3,          100000000,     100000001, UINT64_C(1) << 63,
                                     UINT64_MAX, UINT64_MAX - 7};
    struct mmqi_safetensors st;
    size_t i, k;

    for (i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        struct mmqi_buf buf = file_of("{}", 0);

        for (k = 0; k < 8; k++)
            buf.data[k] = (char)(sizes[i] >> 8 * k & 0xFF);
        ck_assert_int_eq(parse_bytes(&st, buf.data, buf.size), MMQ_ERR_FORMAT);
        ck_assert_ptr_nonnull(
            strstr(mmqi_message(), sizes[i] > 100000000 ? "at most" : "in a file of 10"));
        mmqi_buf_free(&buf);
    }
}
END_TEST

START_TEST(bounds_names_and_shows_long_ones_cut)
{
    struct mmqi_safetensors st;
    char name[1026], header[1200];

    memset(name, 'n', sizeof name);
    name[1024] = 0;
    snprintf(header, sizeof header, "{\"%s\":" ENTRY("U8", "1", "0,1") "}", name);
    ck_assert_int_eq(parse(&st, header, 1), MMQ_OK);
    ck_assert_str_eq(st.entries[0].name, name);
    mmqi_safetensors_clear(&st);
    ck_assert_int_eq(parse(&st, header, 2), MMQ_ERR_FORMAT);
    name[1024] = 'n';
    name[1025] = 0;
    snprintf(header, sizeof header, "{\"%s\":" ENTRY("U8", "1", "0,1") "}", name);
    ck_assert_int_eq(parse(&st, header, 1), MMQ_ERR_FORMAT);
    ck_assert_ptr_nonnull(strstr(mmqi_message(), "has 1025 bytes: at most 1024"));
}
END_TEST

START_TEST(names_with_control_bytes_cannot_move_the_readers_cursor)
{
    struct mmqi_safetensors st;
    const char *p;

    ck_assert_int_eq(parse(&st, "{\"a\\u001b[2J\\n\\u007f\":" ENTRY("F32", "1", "0,8") "}", 8),
                     MMQ_ERR_FORMAT);
    ck_assert_ptr_nonnull(strstr(mmqi_message(), "'a?[2J?"
                                                 "?'"));
    for (p = mmqi_message(); *p; p++)
        ck_assert_int_ge((unsigned char)*p, 0x20);
}
END_TEST

START_TEST(bounds_the_number_of_tensors)
{
    struct mmqi_safetensors st;
    struct mmqi_buf buf = {0}, whole;
    int i;

    mmqi_buf_text(&buf, "{");
    for (i = 0; i < (1 << 20); i++)
        mmqi_buf_format(&buf, "%s\"%x\":" ENTRY("U8", "0", "0,0"), i ? "," : "", i);
    mmqi_buf_text(&buf, "}");
    whole = file_of(buf.data, 0);
    ck_assert_int_eq(parse_bytes(&st, whole.data, whole.size), MMQ_OK);
    ck_assert_uint_eq(st.n_entries, 1 << 20);
    mmqi_safetensors_clear(&st);
    mmqi_buf_free(&whole);
    buf.size--;
    mmqi_buf_text(&buf, ",\"last\":" ENTRY("U8", "0", "0,0") "}");
    whole = file_of(buf.data, 0);
    ck_assert_int_eq(parse_bytes(&st, whole.data, whole.size), MMQ_ERR_FORMAT);
    ck_assert_ptr_nonnull(strstr(mmqi_message(), "more than 1048576 tensors"));
    mmqi_buf_free(&whole);
    mmqi_buf_free(&buf);
}
END_TEST

START_TEST(passes_a_read_failure_up)
{
    struct memory_files memory = {0};
    struct mmqi_store *store = memory_store(&memory);
    struct mmqi_buf buf = file_of(two, 30);
    struct mmqi_safetensors st;
    struct mmqi_file *file;

    memory_add(&memory, "m.safetensors", buf.data, buf.size);
    ck_assert_int_eq(mmqi_file_open(&file, store, "m.safetensors"), MMQ_OK);
    memory.fail_with = MMQ_ERR_IO;
    ck_assert_int_eq(mmqi_safetensors_parse(&st, file), MMQ_ERR_IO);
    memory.fail_with = 0;
    ck_assert_int_eq(mmqi_safetensors_parse(&st, file), MMQ_OK); /* the same file, again */
    mmqi_safetensors_clear(&st);
    mmqi_file_close(file);
    mmqi_store_release(store);
    mmqi_buf_free(&buf);
}
END_TEST

/* ---- random damage ---- */

static uint32_t draw(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(*state >> 33);
}

START_TEST(what_survives_random_damage_still_keeps_the_rules)
{
    struct mmqi_buf buf = file_of(two, 30);
    uint64_t state = 7;
    int round, survived = 0;

    for (round = 0; round < 20000; round++) {
        struct mmqi_safetensors st;
        const size_t at = draw(&state) % (buf.size - 30);
        const char kept = buf.data[at];
        uint64_t end = 0;
        size_t i;

        buf.data[at] = round % 2 ? (char)draw(&state) : (char)('0' + draw(&state) % 10);
        if (parse_bytes(&st, buf.data, buf.size) == MMQ_OK) {
            survived++;
            for (i = 0; i < st.n_entries; i++) {
                if (i > 0)
                    ck_assert_uint_eq(st.entries[i].offset, end);
                end = st.entries[i].offset + st.entries[i].bytes;
            }
            ck_assert_uint_eq(end, buf.size);
            mmqi_safetensors_clear(&st);
        }
        buf.data[at] = kept;
    }
    ck_assert_int_gt(survived, 100); /* changed names and metadata */
    mmqi_buf_free(&buf);
}
END_TEST

/* ---- the writer ---- */

static struct mmqi_entry entry_of(const char *name, int32_t dtype, int32_t rank, int64_t rows,
                                  int64_t cols)
{
    struct mmqi_entry entry = {.name = name, .dtype = dtype, .rank = rank};

    entry.shape[0] = rows;
    entry.shape[1] = cols;
    return entry;
}

START_TEST(writes_a_header_that_reads_back_the_same)
{
    struct mmqi_entry entries[] = {
        entry_of("z.weight", MMQI_F32, 2, 3, 5), entry_of("a\"\\\n\xC3\xA4", MMQI_BF16, 1, 7, 0),
        entry_of("scalar", MMQI_U8, 0, 0, 0), entry_of("empty", MMQI_I64, 2, 0, 4)};
    struct mmqi_safetensors st;
    struct mmqi_buf buf = {0};
    char *header;
    size_t size, i;
    uint64_t whole;

    ck_assert_int_eq(
        mmqi_safetensors_header(&header, &size, &whole, entries, 4, "{\"format\":\"pt\"}"), MMQ_OK);
    ck_assert_uint_eq(size % 8, 0);
    ck_assert_uint_eq(whole, size + 60 + 14 + 1);
    ck_assert_uint_eq(entries[0].offset, size);
    mmqi_buf_append(&buf, header, size);
    while (buf.size < whole)
        mmqi_buf_append(&buf, "", 1);
    ck_assert_msg(parse_bytes(&st, buf.data, buf.size) == MMQ_OK, "%s", mmqi_message());
    ck_assert_uint_eq(st.n_entries, 4);
    for (i = 0; i < 4; i++) { /* the last, an empty one, keeps its place at the end */
        ck_assert_str_eq(st.entries[i].name, entries[i].name);
        ck_assert_int_eq(st.entries[i].dtype, entries[i].dtype);
        ck_assert_int_eq(st.entries[i].rank, entries[i].rank);
        ck_assert_uint_eq(st.entries[i].offset, entries[i].offset);
        ck_assert_uint_eq(st.entries[i].bytes, entries[i].bytes);
    }
    mmqi_safetensors_clear(&st);
    mmqi_buf_free(&buf);
    mmqi_free(header);
}
END_TEST

START_TEST(writes_the_same_bytes_each_time_and_the_known_ones)
{
    static const char want[] = "\x48\0\0\0\0\0\0\0"
                               "{\"__metadata__\":{},\"w\":{\"dtype\":\"F16\",\"shape\":[2],"
                               "\"data_offsets\":[0,4]}}";
    struct mmqi_entry entry = entry_of("w", MMQI_F16, 1, 2, 0);
    char *header;
    size_t size;
    uint64_t whole;

    ck_assert_int_eq(mmqi_safetensors_header(&header, &size, &whole, &entry, 1, "{}"), MMQ_OK);
    ck_assert_uint_eq(size, sizeof want - 1);
    ck_assert_mem_eq(header, want, size);
    ck_assert_uint_eq(whole, size + 4);
    mmqi_free(header);
    ck_assert_int_eq(mmqi_safetensors_header(&header, &size, &whole, NULL, 0, NULL), MMQ_OK);
    ck_assert_uint_eq(size, 16);
    ck_assert_mem_eq(header, "\x08\0\0\0\0\0\0\0{}      ", 16);
    mmqi_free(header);
}
END_TEST

START_TEST(refuses_to_write_what_it_would_not_read)
{
    struct mmqi_entry entries[2] = {entry_of("w", MMQI_F32, 1, 2, 0),
                                    entry_of("v", MMQI_F32, 1, 2, 0)};
    char long_name[1026], *header;
    size_t size;
    uint64_t whole;
    int i;

    memset(long_name, 'n', sizeof long_name);
    long_name[1025] = 0;
    for (i = 0; i < 10; i++) {
        struct mmqi_entry *const e = &entries[1];
        const char *metadata = "{}";

        *e = entry_of("v", MMQI_F32, 1, 2, 0);
        switch (i) {
        case 0:
            e->name = "w";
            break;
        case 1:
            e->name = long_name;
            break;
        case 2:
            e->name = "__metadata__";
            break;
        case 3:
            e->name = "\xFF";
            break;
        case 4:
            e->dtype = 99;
            break;
        case 5:
            e->rank = 9;
            break;
        case 6:
            e->shape[0] = -1;
            break;
        case 7:
            *e = entry_of("v", MMQI_F32, 2, INT64_C(1) << 40, INT64_C(1) << 40);
            break;
        case 8:
            metadata = "{\"a\":1}";
            break;
        default:
            metadata = "{";
            break;
        }
        ck_assert_int_eq(mmqi_safetensors_header(&header, &size, &whole, entries, 2, metadata),
                         i < 8 ? MMQ_ERR_INVALID : MMQ_ERR_FORMAT);
        ck_assert_ptr_null(header);
    }
}
END_TEST

START_TEST(fails_cleanly_wherever_memory_runs_out)
{
    struct meter meter = {0};
    int n, writes;
    struct mmqi_mem_hooks hooks = {meter_alloc, meter_free, &meter};
    struct memory_files memory = {0};
    struct mmqi_store *store = memory_store(&memory);
    struct mmqi_buf buf = file_of(two, 30);
    struct mmqi_file *file;

    memory_add(&memory, "m.safetensors", buf.data, buf.size);
    ck_assert_int_eq(mmqi_file_open(&file, store, "m.safetensors"), MMQ_OK);
    for (writes = 0; writes < 2; writes++) {
        int32_t status = MMQ_ERR_NOMEM;

        for (n = 0; status == MMQ_ERR_NOMEM; n++) {
            struct mmqi_entry entry = entry_of("w", MMQI_F16, 1, 2, 0);
            const struct mmqi_mem_hooks *before = mmqi_mem_enter(&hooks);
            struct mmqi_safetensors st = {0};
            char *header = NULL;
            size_t size;
            uint64_t whole;

            meter.left = n;
            if (writes)
                status = mmqi_safetensors_header(&header, &size, &whole, &entry, 1, "{}");
            else
                status = mmqi_safetensors_parse(&st, file);
            mmqi_safetensors_clear(&st);
            mmqi_free(header);
            mmqi_mem_enter(before);
            ck_assert_int_eq(meter.live, 0);
            ck_assert_int_lt(n, 40);
        }
        ck_assert_int_eq(status, MMQ_OK);
        ck_assert_int_gt(n, 3);
    }
    mmqi_file_close(file);
    mmqi_store_release(store);
    mmqi_buf_free(&buf);
}
END_TEST

#define COUNT(array) ((int)(sizeof(array) / sizeof(array)[0]))

int main(void)
{
    Suite *suite = suite_create("safetensors");
    TCase *tests = tcase_create("safetensors");
    SRunner *runner = srunner_create(suite);
    int failed;

    tcase_set_timeout(tests, 120);
    tcase_add_test(tests, reads_names_dtypes_shapes_and_places);
    tcase_add_loop_test(tests, accepts_what_the_format_allows, 0, COUNT(good));
    tcase_add_loop_test(tests, refuses_what_breaks_a_rule, 0, COUNT(bad));
    tcase_add_loop_test(tests, tells_a_dtype_it_does_not_read_from_one_that_is_none, 0,
                        COUNT(foreign));
    tcase_add_test(tests, refuses_a_file_cut_off_at_any_byte);
    tcase_add_test(tests, refuses_a_header_larger_than_the_limit_or_the_file);
    tcase_add_test(tests, bounds_names_and_shows_long_ones_cut);
    tcase_add_test(tests, names_with_control_bytes_cannot_move_the_readers_cursor);
    tcase_add_test(tests, bounds_the_number_of_tensors);
    tcase_add_test(tests, passes_a_read_failure_up);
    tcase_add_test(tests, what_survives_random_damage_still_keeps_the_rules);
    tcase_add_test(tests, writes_a_header_that_reads_back_the_same);
    tcase_add_test(tests, writes_the_same_bytes_each_time_and_the_known_ones);
    tcase_add_test(tests, refuses_to_write_what_it_would_not_read);
    tcase_add_test(tests, fails_cleanly_wherever_memory_runs_out);
    suite_add_tcase(suite, tests);
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
