/*
 * How a checkpoint stores a matrix: which forms are recognised, and which are
 * refused, by what name.
 */
#include <check.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/dtype.h"
#include "core/status.h"
#include "quant/stored.h"

/* ---- a checkpoint in memory, tensor by tensor ---- */

struct fixture {
    char header[16384];
    uint8_t data[16384];
    size_t header_size, data_size;
    uint8_t *file;
    size_t file_size;
    struct mmqi_store *store;
    struct mmqi_checkpoint *checkpoint;
};

static int32_t reader_open(void *user, const char *name, void **file)
{
    *file = user;
    return strcmp(name, "model.safetensors") == 0 ? MMQ_OK : MMQ_ERR_NOT_FOUND;
}

static int32_t reader_size(void *user, void *file, uint64_t *size)
{
    (void)file;
    *size = ((struct fixture *)user)->file_size;
    return MMQ_OK;
}

static int32_t reader_read_at(void *user, void *file, uint64_t offset, void *dst, size_t size)
{
    struct fixture *f = user;

    (void)file;
    if (offset > f->file_size || size > f->file_size - offset)
        return MMQ_ERR_IO;
    memcpy(dst, f->file + offset, size);
    return MMQ_OK;
}

static void reader_close(void *user, void *file)
{
    (void)user;
    (void)file;
}

/* `shape` as JSON: "[3, 4]". `bytes` NULL: zeros. */
static void add(struct fixture *f, const char *name, const char *dtype, const char *shape,
                const void *bytes, size_t size)
{
    f->header_size += (size_t)snprintf(
        f->header + f->header_size, sizeof f->header - f->header_size,
        "%s\"%s\":{\"dtype\":\"%s\",\"shape\":%s,\"data_offsets\":[%zu,%zu]}",
        f->header_size > 0 ? "," : "{", name, dtype, shape, f->data_size, f->data_size + size);
    if (bytes)
        memcpy(f->data + f->data_size, bytes, size);
    f->data_size += size;
}

static void open_fixture(struct fixture *f)
{
    struct mmqi_reader reader = {reader_open, reader_size, reader_read_at, reader_close, f};
    uint64_t size;

    f->header[f->header_size++] = '}';
    size = f->header_size;
    f->file_size = 8 + f->header_size + f->data_size;
    f->file = malloc(f->file_size);
    memcpy(f->file, &size, 8);
    memcpy(f->file + 8, f->header, f->header_size);
    memcpy(f->file + 8 + f->header_size, f->data, f->data_size);
    ck_assert_int_eq(mmqi_store_open_reader(&f->store, "memory", &reader), MMQ_OK);
    ck_assert_msg(mmqi_checkpoint_open(&f->checkpoint, f->store) == MMQ_OK, "%s", mmqi_message());
}

static void close_fixture(struct fixture *f)
{
    mmqi_checkpoint_release(f->checkpoint);
    mmqi_store_release(f->store);
    free(f->file);
    memset(f, 0, sizeof *f);
}

/* What mmqi_stored_find says of "m.weight"; the fixture is spent. */
static int32_t find(struct fixture *f, struct mmqi_stored *stored, int64_t rows, int64_t cols)
{
    int32_t status;

    open_fixture(f);
    memset(stored, 0xa5, sizeof *stored);
    status = mmqi_stored_find(stored, f->checkpoint, "m.weight", rows, cols);
    if (status != MMQ_OK) {
        static const struct mmqi_stored nothing;

        ck_assert_mem_eq(stored, &nothing, sizeof nothing);
    }
    return status;
}

/* It is refused with `status`, and the message holds `text`. */
static void refused(struct fixture *f, int64_t rows, int64_t cols, int32_t status, const char *text)
{
    struct mmqi_stored stored;

    ck_assert_int_eq(find(f, &stored, rows, cols), status);
    ck_assert_msg(strstr(mmqi_message(), text) != NULL, "'%s' is not in: %s", text, mmqi_message());
    close_fixture(f);
}

static const char state_json[] = "{\"quant_type\": \"nf4\", \"blocksize\": 64, \"dtype\": "
                                 "\"bfloat16\", \"shape\": [3, 50]}";

/* A matrix of 3 x 50 in nf4, but for the tensor whose suffix is `without`. */
static void add_nf4(struct fixture *f, const char *json, const char *without)
{
    char shape[32];

    snprintf(shape, sizeof shape, "[%zu]", strlen(json));
    if (strcmp(without, "weight") != 0)
        add(f, "m.weight", "U8", "[75, 1]", NULL, 75);
    if (strcmp(without, "absmax") != 0)
        add(f, "m.weight.absmax", "F32", "[3]", NULL, 12);
    if (strcmp(without, "quant_map") != 0)
        add(f, "m.weight.quant_map", "F32", "[16]", mmqi_nf4_table, 64);
    if (strcmp(without, "quant_state") != 0)
        add(f, "m.weight.quant_state.bitsandbytes__nf4", "U8", shape, json, strlen(json));
}

static const char nested_json[] =
    "{\"quant_type\": \"nf4\", \"blocksize\": 32, \"dtype\": \"bfloat16\", \"shape\": [3, 50], "
    "\"nested_blocksize\": 256, \"nested_dtype\": \"float32\", \"nested_offset\": 0.25}";

/* The same in blocks of 32 with nested scales, but for the tensor whose suffix is `without`. */
static void add_nested(struct fixture *f, const char *json, const char *without)
{
    char shape[32];

    snprintf(shape, sizeof shape, "[%zu]", strlen(json));
    add(f, "m.weight", "U8", "[75, 1]", NULL, 75);
    add(f, "m.weight.absmax", "U8", "[5]", NULL, 5);
    add(f, "m.weight.quant_map", "F32", "[16]", mmqi_nf4_table, 64);
    add(f, "m.weight.quant_state.bitsandbytes__nf4", "U8", shape, json, strlen(json));
    if (strcmp(without, "nested_absmax") != 0)
        add(f, "m.weight.nested_absmax", "F32", "[1]", NULL, 4);
    if (strcmp(without, "nested_quant_map") != 0)
        add(f, "m.weight.nested_quant_map", "F32", "[256]", mmqi_nested_table, 1024);
}

/* A matrix of 3 x 50 in int4, but for the tensor whose suffix is `without`. */
static void add_int4(struct fixture *f, int64_t group, const char *scale_dtype, const char *without)
{
    const int64_t shape[3] = {3, 50, group};
    size_t groups = group == 32 ? 6 : 3;
    char text[32];

    snprintf(text, sizeof text, "[3, %zu]", groups / 3);
    if (strcmp(without, "packed") != 0)
        add(f, "m.weight_packed", "U8", "[3, 25]", NULL, 75);
    if (strcmp(without, "scale") != 0)
        add(f, "m.weight_scale", scale_dtype, text, NULL, 2 * groups);
    if (strcmp(without, "zero_point") != 0)
        add(f, "m.weight_zero_point", "U8", text, NULL, groups);
    if (strcmp(without, "shape") != 0)
        add(f, "m.weight_shape", "I64", "[3]", shape, sizeof shape);
}

/* ---- what is recognised ---- */

START_TEST(a_plain_matrix_is_found_in_each_float_type)
{
    static const char *const types[] = {"F32", "F16", "BF16"};

    for (int32_t i = 0; i < 3; i++) {
        struct fixture f = {0};
        struct mmqi_stored stored;

        add(&f, "m.weight", types[i], "[3, 4]", NULL, i == 0 ? 48 : 24);
        ck_assert_int_eq(find(&f, &stored, 3, 4), MMQ_OK);
        ck_assert_int_eq(stored.format, i);
        ck_assert_str_eq(stored.entry[0]->name, "m.weight");
        ck_assert_ptr_null(stored.entry[1]);
        ck_assert_int_eq(stored.n_extra, 0);
        close_fixture(&f);
    }
}
END_TEST

START_TEST(a_vector_a_convolution_and_a_name_without_weight_are_plain)
{
    struct fixture f = {0};
    struct mmqi_stored stored;

    add(&f, "norm.weight", "F32", "[6]", NULL, 24);
    add(&f, "conv.weight", "F32", "[2, 3, 1, 1]", NULL, 24);
    add(&f, "embedding", "F32", "[6]", NULL, 24);
    add(&f, "scale", "F32", "[]", NULL, 4);
    open_fixture(&f);
    ck_assert_int_eq(mmqi_stored_find(&stored, f.checkpoint, "norm.weight", 1, 6), MMQ_OK);
    ck_assert_int_eq(mmqi_stored_find(&stored, f.checkpoint, "conv.weight", 2, 3), MMQ_OK);
    ck_assert_int_eq(mmqi_stored_find(&stored, f.checkpoint, "embedding", 1, 6), MMQ_OK);
    ck_assert_int_eq(mmqi_stored_find(&stored, f.checkpoint, "scale", 1, 1), MMQ_OK);
    ck_assert_int_eq(mmqi_stored_find(&stored, f.checkpoint, "embedding", 2, 3), MMQ_ERR_MISMATCH);
    close_fixture(&f);
}
END_TEST

START_TEST(llm_int8_is_found_with_and_without_its_weight_format)
{
    for (int with = 0; with < 2; with++) {
        struct fixture f = {0};
        struct mmqi_stored stored;

        add(&f, "m.weight", "I8", "[3, 4]", NULL, 12);
        add(&f, "m.SCB", "F32", "[3]", NULL, 12);
        if (with)
            add(&f, "m.weight_format", "U8", "[]", NULL, 1);
        ck_assert_int_eq(find(&f, &stored, 3, 4), MMQ_OK);
        ck_assert_int_eq(stored.format, MMQI_FORMAT_INT8);
        ck_assert_str_eq(stored.entry[0]->name, "m.weight");
        ck_assert_str_eq(stored.entry[1]->name, "m.SCB");
        ck_assert_int_eq(stored.n_extra, with);
        if (with)
            ck_assert_str_eq(stored.extra[0]->name, "m.weight_format");
        close_fixture(&f);
    }
}
END_TEST

START_TEST(bitsandbytes_nf4_is_found_with_all_its_tensors)
{
    struct fixture f = {0};
    struct mmqi_stored stored;

    add_nf4(&f, state_json, "");
    ck_assert_msg(find(&f, &stored, 3, 50) == MMQ_OK, "%s", mmqi_message());
    ck_assert_int_eq(stored.format, MMQI_FORMAT_NF4);
    ck_assert_str_eq(stored.entry[0]->name, "m.weight");
    ck_assert_str_eq(stored.entry[1]->name, "m.weight.absmax");
    ck_assert_ptr_null(stored.entry[2]);
    ck_assert_int_eq(stored.n_extra, 2);
    close_fixture(&f);
}
END_TEST

START_TEST(nested_scales_are_found_with_their_offset)
{
    struct fixture f = {0};
    struct mmqi_stored stored;

    add_nested(&f, nested_json, "");
    ck_assert_msg(find(&f, &stored, 3, 50) == MMQ_OK, "%s", mmqi_message());
    ck_assert_int_eq(stored.format, MMQI_FORMAT_NF4_32_NESTED);
    ck_assert_str_eq(stored.entry[1]->name, "m.weight.absmax");
    ck_assert_str_eq(stored.entry[2]->name, "m.weight.nested_absmax");
    ck_assert_ptr_null(stored.entry[3]);
    ck_assert(stored.has_offset && stored.nested_offset == 0.25f);
    ck_assert_int_eq(stored.n_extra, 3);
    close_fixture(&f);
}
END_TEST

/* Other versions of torch round some of its values to the next float. */
START_TEST(a_nested_map_may_differ_in_the_last_bit_and_no_more)
{
    struct fixture f = {0};
    struct mmqi_stored stored;
    float map[256];

    memcpy(map, mmqi_nested_table, sizeof map);
    map[3] = nextafterf(map[3], 0.0f);
    map[250] = nextafterf(map[250], 2.0f);
    add_nested(&f, nested_json, "nested_quant_map");
    add(&f, "m.weight.nested_quant_map", "F32", "[256]", map, sizeof map);
    ck_assert_int_eq(find(&f, &stored, 3, 50), MMQ_OK);
    close_fixture(&f);
    map[77] *= 1.0001f;
    add_nested(&f, nested_json, "nested_quant_map");
    add(&f, "m.weight.nested_quant_map", "F32", "[256]", map, sizeof map);
    refused(&f, 3, 50, MMQ_ERR_UNSUPPORTED, "value 77");
    map[77] = NAN;
    add_nested(&f, nested_json, "nested_quant_map");
    add(&f, "m.weight.nested_quant_map", "F32", "[256]", map, sizeof map);
    refused(&f, 3, 50, MMQ_ERR_UNSUPPORTED, "value 77");
}
END_TEST

START_TEST(every_table_and_block_size_is_found)
{
    static const int32_t formats[2][3] = {
        {MMQI_FORMAT_NF4_32, MMQI_FORMAT_NF4, MMQI_FORMAT_NF4_128},
        {MMQI_FORMAT_FP4_32, MMQI_FORMAT_FP4, MMQI_FORMAT_FP4_128}};

    for (int t = 0; t < 2; t++)
        for (int b = 0; b < 3; b++) {
            int block = 32 << b, n = (150 + block - 1) / block;
            struct fixture f = {0};
            struct mmqi_stored stored;
            char json[160], shape[32];

            snprintf(json, sizeof json,
                     "{\"quant_type\":\"%s\",\"blocksize\":%d,\"dtype\":\"float32\","
                     "\"shape\":[3,50]}  ",
                     t ? "fp4" : "nf4", block);
            add(&f, "m.weight", "U8", "[75, 1]", NULL, 75);
            snprintf(shape, sizeof shape, "[%d]", n);
            add(&f, "m.weight.absmax", "F32", shape, NULL, (size_t)n * 4);
            add(&f, "m.weight.quant_map", "F32", "[16]", t ? mmqi_fp4_table : mmqi_nf4_table, 64);
            snprintf(shape, sizeof shape, "[%zu]", strlen(json));
            add(&f,
                t ? "m.weight.quant_state.bitsandbytes__fp4"
                  : "m.weight.quant_state.bitsandbytes__nf4",
                "U8", shape, json, strlen(json));
            ck_assert_msg(find(&f, &stored, 3, 50) == MMQ_OK, "%s", mmqi_message());
            ck_assert_int_eq(stored.format, formats[t][b]);
            ck_assert(!stored.has_offset);
            close_fixture(&f);
        }
}
END_TEST

START_TEST(int4_is_found_in_each_group_and_scale_type)
{
    static const int32_t formats[2][3] = {
        {MMQI_FORMAT_INT4_G32, MMQI_FORMAT_INT4_G64, MMQI_FORMAT_INT4_G128},
        {MMQI_FORMAT_INT4_G32_BF16, MMQI_FORMAT_INT4_G64_BF16, MMQI_FORMAT_INT4_G128_BF16}};

    for (int t = 0; t < 2; t++)
        for (int g = 0; g < 3; g++) {
            struct fixture f = {0};
            struct mmqi_stored stored;

            add_int4(&f, 32 << g, t ? "BF16" : "F16", "");
            ck_assert_msg(find(&f, &stored, 3, 50) == MMQ_OK, "%s", mmqi_message());
            ck_assert_int_eq(stored.format, formats[t][g]);
            ck_assert_str_eq(stored.entry[0]->name, "m.weight_packed");
            ck_assert_str_eq(stored.entry[1]->name, "m.weight_scale");
            ck_assert_str_eq(stored.entry[2]->name, "m.weight_zero_point");
            ck_assert_int_eq(stored.n_extra, 1);
            ck_assert_str_eq(stored.extra[0]->name, "m.weight_shape");
            close_fixture(&f);
        }
}
END_TEST

START_TEST(the_name_of_a_matrix_is_in_that_of_its_first_part)
{
    ck_assert_uint_eq(mmqi_stored_name_length("a.b.weight_packed"), 10);
    ck_assert_uint_eq(mmqi_stored_name_length("a.b.weight"), 10);
    ck_assert_uint_eq(mmqi_stored_name_length("a.b.bias"), 8);
    ck_assert_uint_eq(mmqi_stored_name_length("weight_packed"), 13);
    ck_assert_uint_eq(mmqi_stored_name_length(".weight_packed"), 14);
    ck_assert_uint_eq(mmqi_stored_name_length("_packed"), 7);
    ck_assert_uint_eq(mmqi_stored_name_length(""), 0);
}
END_TEST

START_TEST(nf4_codes_may_be_stored_in_a_wider_type)
{
    struct fixture f = {0};
    struct mmqi_stored stored;

    add_nf4(&f, state_json, "weight");
    add(&f, "m.weight", "BF16", "[38, 1]", NULL, 76); /* 75 bytes of codes and one of padding */
    ck_assert_msg(find(&f, &stored, 3, 50) == MMQ_OK, "%s", mmqi_message());
    ck_assert_int_eq(stored.format, MMQI_FORMAT_NF4);
    close_fixture(&f);
}
END_TEST

/* ---- what is refused ---- */

START_TEST(an_absent_matrix_is_not_found)
{
    struct fixture f = {0};

    add(&f, "other.weight", "F32", "[1]", NULL, 4);
    refused(&f, 3, 4, MMQ_ERR_NOT_FOUND, "'m.weight'");
}
END_TEST

START_TEST(a_plain_matrix_of_another_shape_or_type_is_refused)
{
    struct fixture f = {0};

    add(&f, "m.weight", "F32", "[4, 3]", NULL, 48);
    refused(&f, 3, 4, MMQ_ERR_MISMATCH, "[4, 3], not [3, 4]");
    add(&f, "m.weight", "F32", "[12]", NULL, 48);
    refused(&f, 3, 4, MMQ_ERR_MISMATCH, "[12]");
    add(&f, "m.weight", "I64", "[3, 4]", NULL, 96);
    refused(&f, 3, 4, MMQ_ERR_UNSUPPORTED, "I64");
    add(&f, "m.weight", "F8_E4M3", "[3, 4]", NULL, 12);
    refused(&f, 3, 4, MMQ_ERR_UNSUPPORTED, "F8_E4M3");
}
END_TEST

START_TEST(int8_with_a_part_that_is_absent_or_wrong_is_refused)
{
    struct fixture f = {0};
    static const uint8_t col_turing = 2;

    add(&f, "m.weight", "I8", "[3, 4]", NULL, 12);
    refused(&f, 3, 4, MMQ_ERR_FORMAT, "m.SCB");
    add(&f, "m.SCB", "F32", "[3]", NULL, 12);
    refused(&f, 3, 4, MMQ_ERR_FORMAT, "m.weight");
    add(&f, "m.weight", "I8", "[3, 4]", NULL, 12);
    add(&f, "m.SCB", "F32", "[4]", NULL, 16);
    refused(&f, 3, 4, MMQ_ERR_MISMATCH, "m.SCB");
    add(&f, "m.weight", "I8", "[3, 4]", NULL, 12);
    add(&f, "m.SCB", "F16", "[3]", NULL, 6);
    refused(&f, 3, 4, MMQ_ERR_UNSUPPORTED, "m.SCB");
    add(&f, "m.weight", "I8", "[4, 3]", NULL, 12);
    add(&f, "m.SCB", "F32", "[3]", NULL, 12);
    refused(&f, 3, 4, MMQ_ERR_MISMATCH, "m.weight");
    add(&f, "m.weight", "I8", "[3, 4]", NULL, 12);
    add(&f, "m.SCB", "F32", "[3]", NULL, 12);
    add(&f, "m.weight_format", "U8", "[]", &col_turing, 1);
    refused(&f, 3, 4, MMQ_ERR_UNSUPPORTED, "m.weight_format' is 2");
    add(&f, "m.weight", "I8", "[3, 4]", NULL, 12);
    add(&f, "m.SCB", "F32", "[3]", NULL, 12);
    add(&f, "m.weight_format", "F32", "[]", NULL, 4);
    refused(&f, 3, 4, MMQ_ERR_FORMAT, "m.weight_format");
}
END_TEST

START_TEST(nf4_with_a_part_that_is_absent_is_refused)
{
    struct fixture f = {0};

    add_nf4(&f, state_json, "weight");
    refused(&f, 3, 50, MMQ_ERR_FORMAT, "m.weight");
    add_nf4(&f, state_json, "absmax");
    refused(&f, 3, 50, MMQ_ERR_FORMAT, "m.weight.absmax");
    add_nf4(&f, state_json, "quant_map");
    refused(&f, 3, 50, MMQ_ERR_FORMAT, "quant_map");
    add_nf4(&f, state_json, "quant_state");
    refused(&f, 3, 50, MMQ_ERR_FORMAT, "quantization state is absent");
}
END_TEST

START_TEST(nf4_with_counts_that_do_not_fit_is_refused)
{
    struct fixture f = {0};
    float map[16];

    add_nf4(&f, state_json, "");
    refused(&f, 3, 51, MMQ_ERR_MISMATCH, "[3, 50], not [3, 51]");
    add_nf4(&f, state_json, "weight");
    add(&f, "m.weight", "U8", "[74, 1]", NULL, 74);
    refused(&f, 3, 50, MMQ_ERR_MISMATCH, "74 bytes");
    add_nf4(&f, state_json, "weight");
    add(&f, "m.weight", "BF16", "[3, 50]", NULL, 300);
    refused(&f, 3, 50, MMQ_ERR_MISMATCH, "300 bytes");
    add_nf4(&f, state_json, "weight");
    add(&f, "m.weight", "I32", "[19]", NULL, 76);
    refused(&f, 3, 50, MMQ_ERR_FORMAT, "I32");
    add_nf4(&f, state_json, "absmax");
    add(&f, "m.weight.absmax", "F32", "[2]", NULL, 8);
    refused(&f, 3, 50, MMQ_ERR_MISMATCH, "m.weight.absmax");
    add_nf4(&f, state_json, "quant_map");
    add(&f, "m.weight.quant_map", "F32", "[15]", NULL, 60);
    refused(&f, 3, 50, MMQ_ERR_FORMAT, "m.weight.quant_map");
    memcpy(map, mmqi_nf4_table, sizeof map);
    map[3] = -0.4f;
    add_nf4(&f, state_json, "quant_map");
    add(&f, "m.weight.quant_map", "F32", "[16]", map, 64);
    refused(&f, 3, 50, MMQ_ERR_UNSUPPORTED, "value 3");
}
END_TEST

START_TEST(a_quantization_state_that_says_something_else_is_refused)
{
    static const struct {
        const char *json;
        int32_t status;
        const char *text;
    } cases[] = {
        {"{\"quant_type\":\"fp4\",\"blocksize\":64,\"dtype\":\"float32\",\"shape\":[3,50]}",
         MMQ_ERR_FORMAT, "'fp4'"},
        {"{\"quant_type\":\"nf4\",\"blocksize\":256,\"dtype\":\"float32\",\"shape\":[3,50]}",
         MMQ_ERR_UNSUPPORTED, "blocks of 256"},
        {"{\"quant_type\":\"nf4\",\"blocksize\":48,\"dtype\":\"float32\",\"shape\":[3,50]}",
         MMQ_ERR_FORMAT, "blocksize 48"},
        {"{\"quant_type\":\"nf4\",\"dtype\":\"float32\",\"shape\":[3,50]}", MMQ_ERR_FORMAT,
         "blocksize 0"},
        {"{\"quant_type\":\"nf4\",\"blocksize\":64,\"dtype\":\"float64\",\"shape\":[3,50]}",
         MMQ_ERR_FORMAT, "float64"},
        {"{\"quant_type\":\"nf4\",\"blocksize\":64,\"dtype\":\"float32\",\"shape\":[150]}",
         MMQ_ERR_FORMAT, "shape"},
        {"{\"quant_type\":\"nf4\",\"blocksize\":64,\"dtype\":\"float32\",\"shape\":[50,3]}",
         MMQ_ERR_MISMATCH, "[50, 3], not [3, 50]"},
        {"{\"quant_type\":\"nf4\",\"blocksize\":64,\"dtype\":\"float32\",\"shape\":[3,50],"
         "\"nested_blocksize\":256,\"nested_dtype\":\"float32\",\"nested_offset\":0.5}",
         MMQ_ERR_UNSUPPORTED, "only U8 is read"},
        {"{\"quant_type\":\"nf4\",\"blocksize\":64,", MMQ_ERR_FORMAT, "m.weight.quant_state"},
        {"", MMQ_ERR_FORMAT, "m.weight.quant_state"},
    };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct fixture f = {0};

        add_nf4(&f, cases[i].json, "");
        refused(&f, 3, 50, cases[i].status, cases[i].text);
    }
}
END_TEST

START_TEST(nested_scales_that_do_not_agree_are_refused)
{
    static const struct {
        const char *keys;
        int32_t status;
        const char *text;
    } cases[] = {
        {"\"nested_blocksize\":256,\"nested_dtype\":\"float32\"", MMQ_ERR_FORMAT, "nested_offset"},
        {"\"nested_blocksize\":128,\"nested_dtype\":\"float32\",\"nested_offset\":1",
         MMQ_ERR_UNSUPPORTED, "blocks of 128"},
        {"\"nested_dtype\":\"float32\",\"nested_offset\":1", MMQ_ERR_UNSUPPORTED, "blocks of 0"},
        {"\"nested_blocksize\":256,\"nested_dtype\":\"float16\",\"nested_offset\":1",
         MMQ_ERR_UNSUPPORTED, "'float16'"},
        {"\"nested_blocksize\":256,\"nested_dtype\":\"float32\",\"nested_offset\":4e38",
         MMQ_ERR_FORMAT, "nested_offset"},
        {"\"nested_blocksize\":256,\"nested_dtype\":\"float32\",\"nested_offset\":\"1\"",
         MMQ_ERR_FORMAT, "nested_offset"},
        {"\"nested_blocksize\":256,\"nested_dtype\":\"float32\",\"nested_offset\":NaN",
         MMQ_ERR_FORMAT, "m.weight.quant_state"},
        {"\"nested_blocksize\":256,\"nested_dtype\":\"float32\",\"nested_offset\":Infinity",
         MMQ_ERR_FORMAT, "m.weight.quant_state"},
        {"\"nested_blocksize\":256,\"nested_dtype\":\"float32\",\"nested_offset\":-1e999",
         MMQ_ERR_FORMAT, "m.weight.quant_state"},
        {"\"nested_blocksize\":256,\"nested_dtype\":\"float32\",\"nested_offset\":null",
         MMQ_ERR_FORMAT, "nested_offset"},
    };
    struct fixture f = {0};
    char json[256];

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        snprintf(json, sizeof json,
                 "{\"quant_type\":\"nf4\",\"blocksize\":32,\"dtype\":\"float32\","
                 "\"shape\":[3,50],%s}",
                 cases[i].keys);
        add_nested(&f, json, "");
        refused(&f, 3, 50, cases[i].status, cases[i].text);
    }
    add_nested(&f, nested_json, "nested_absmax");
    refused(&f, 3, 50, MMQ_ERR_FORMAT, "m.weight.nested_absmax");
    add_nested(&f, nested_json, "nested_quant_map");
    refused(&f, 3, 50, MMQ_ERR_FORMAT, "no nested_quant_map");
    add_nf4(&f, state_json, "");
    add(&f, "m.weight.nested_absmax", "F32", "[1]", NULL, 4);
    refused(&f, 3, 50, MMQ_ERR_FORMAT, "not nested");
}
END_TEST

START_TEST(int4_with_a_part_that_is_absent_or_wrong_is_refused)
{
    static const char *const parts[] = {"scale", "zero_point", "shape"};
    static const int64_t shapes[][3] = {{3, 51, 64}, {50, 3, 64}, {3, 50, 16}, {3, 50, -64}};
    struct fixture f = {0};

    for (size_t i = 0; i < 3; i++) {
        add_int4(&f, 64, "F16", parts[i]);
        refused(&f, 3, 50, MMQ_ERR_FORMAT, parts[i]);
    }
    for (size_t i = 0; i < 4; i++) {
        add_int4(&f, 64, "F16", "shape");
        add(&f, "m.weight_shape", "I64", "[3]", shapes[i], sizeof shapes[i]);
        refused(&f, 3, 50, i < 2 ? MMQ_ERR_MISMATCH : MMQ_ERR_FORMAT, "m.weight_shape");
    }
    add_int4(&f, 64, "F16", "shape");
    add(&f, "m.weight_shape", "I64", "[2]", shapes[0], 16);
    refused(&f, 3, 50, MMQ_ERR_FORMAT, "3 I64 numbers");
    add_int4(&f, 64, "F16", "zero_point");
    add(&f, "m.weight_zero_point", "I8", "[3, 1]", NULL, 3);
    refused(&f, 3, 50, MMQ_ERR_UNSUPPORTED, "m.weight_zero_point");
    add_int4(&f, 64, "F16", "zero_point");
    add(&f, "m.weight_zero_point", "U8", "[2, 1]", NULL, 2);
    refused(&f, 3, 50, MMQ_ERR_MISMATCH, "m.weight_zero_point");
    add_int4(&f, 64, "F16", "packed");
    add(&f, "m.weight_packed", "U8", "[3, 24]", NULL, 72);
    refused(&f, 3, 50, MMQ_ERR_MISMATCH, "m.weight_packed");
    add_int4(&f, 64, "F16", "scale");
    add(&f, "m.weight_scale", "F8_E4M3", "[3, 1]", NULL, 3);
    refused(&f, 3, 50, MMQ_ERR_UNSUPPORTED, "compressed-tensors");
    add_int4(&f, 64, "F16", "packed");
    add(&f, "m.weight_packed", "I32", "[3, 7]", NULL, 84);
    refused(&f, 3, 50, MMQ_ERR_UNSUPPORTED, "compressed-tensors");
}
END_TEST

START_TEST(a_matrix_that_is_stored_twice_is_refused)
{
    struct fixture f = {0};

    add(&f, "m.weight", "F32", "[3, 4]", NULL, 48);
    add(&f, "m.SCB", "F32", "[3]", NULL, 12);
    refused(&f, 3, 4, MMQ_ERR_FORMAT, "m.SCB");
    add(&f, "m.weight", "F32", "[3, 4]", NULL, 48);
    add(&f, "m.qweight", "I32", "[1, 4]", NULL, 16);
    refused(&f, 3, 4, MMQ_ERR_FORMAT, "stored twice");
    add_nf4(&f, state_json, "");
    add(&f, "m.SCB", "F32", "[3]", NULL, 12);
    refused(&f, 3, 50, MMQ_ERR_FORMAT, "stored twice");
    add_nf4(&f, state_json, "");
    add(&f, "m.weight.quant_state.bitsandbytes__fp4", "U8", "[2]", "{}", 2);
    refused(&f, 3, 50, MMQ_ERR_FORMAT, "stored twice");
    add_nf4(&f, state_json, "weight");
    add_int4(&f, 64, "F16", "");
    refused(&f, 3, 50, MMQ_ERR_FORMAT, "stored twice");
    add_int4(&f, 64, "F16", "");
    add(&f, "m.weight", "BF16", "[3, 50]", NULL, 300);
    refused(&f, 3, 50, MMQ_ERR_FORMAT, "stored twice");
}
END_TEST

START_TEST(other_methods_are_refused_by_name)
{
    static const struct {
        const char *tensor, *name;
    } cases[] = {
        {"m.qweight", "GPTQ or AWQ"}, {"m.weight_packed", "compressed-tensors"},
        {"m.weight_scale", "FP8"},    {"m.weight_scale_inv", "block FP8"},
        {"m_blocks", "MXFP4"},        {"m.W_q", "HQQ"},
    };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct fixture f = {0};

        add(&f, cases[i].tensor, "I32", "[1]", NULL, 4);
        refused(&f, 3, 4, MMQ_ERR_UNSUPPORTED, cases[i].name);
    }
}
END_TEST

START_TEST(names_of_any_length_are_looked_up_without_harm)
{
    struct fixture f = {0};
    struct mmqi_stored stored;
    char name[4096];

    add(&f, ".weight", "F32", "[1]", NULL, 4);
    open_fixture(&f);
    memset(name, 'a', sizeof name);
    memcpy(name + sizeof name - 8, ".weight", 8);
    ck_assert_int_eq(mmqi_stored_find(&stored, f.checkpoint, name, 1, 1), MMQ_ERR_NOT_FOUND);
    ck_assert_int_eq(mmqi_stored_find(&stored, f.checkpoint, "", 1, 1), MMQ_ERR_NOT_FOUND);
    ck_assert_int_eq(mmqi_stored_find(&stored, f.checkpoint, ".weight", 1, 1), MMQ_OK);
    close_fixture(&f);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("stored");
    TCase *tests = tcase_create("stored");
    SRunner *runner;
    int failed;

    tcase_add_test(tests, a_plain_matrix_is_found_in_each_float_type);
    tcase_add_test(tests, a_vector_a_convolution_and_a_name_without_weight_are_plain);
    tcase_add_test(tests, llm_int8_is_found_with_and_without_its_weight_format);
    tcase_add_test(tests, bitsandbytes_nf4_is_found_with_all_its_tensors);
    tcase_add_test(tests, the_name_of_a_matrix_is_in_that_of_its_first_part);
    tcase_add_test(tests, int4_is_found_in_each_group_and_scale_type);
    tcase_add_test(tests, every_table_and_block_size_is_found);
    tcase_add_test(tests, a_nested_map_may_differ_in_the_last_bit_and_no_more);
    tcase_add_test(tests, nested_scales_are_found_with_their_offset);
    tcase_add_test(tests, nf4_codes_may_be_stored_in_a_wider_type);
    tcase_add_test(tests, an_absent_matrix_is_not_found);
    tcase_add_test(tests, a_plain_matrix_of_another_shape_or_type_is_refused);
    tcase_add_test(tests, int8_with_a_part_that_is_absent_or_wrong_is_refused);
    tcase_add_test(tests, nf4_with_a_part_that_is_absent_is_refused);
    tcase_add_test(tests, nf4_with_counts_that_do_not_fit_is_refused);
    tcase_add_test(tests, a_quantization_state_that_says_something_else_is_refused);
    tcase_add_test(tests, int4_with_a_part_that_is_absent_or_wrong_is_refused);
    tcase_add_test(tests, nested_scales_that_do_not_agree_are_refused);
    tcase_add_test(tests, a_matrix_that_is_stored_twice_is_refused);
    tcase_add_test(tests, other_methods_are_refused_by_name);
    tcase_add_test(tests, names_of_any_length_are_looked_up_without_harm);
    suite_add_tcase(suite, tests);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
