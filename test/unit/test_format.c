/*
 * Weight formats: the bytes that bitsandbytes makes, and the promises that
 * every format gives (chunks do not matter, odd sizes work, packing settles).
 */
#include <check.h>
#include <jansson.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/dtype.h"
#include "core/status.h"
#include "quant/format.h"
#include "scratch.h"
#include "unit/packing.h"

/* ---- reading the reference vectors, with jansson rather than the library's own parser ---- */

struct vectors {
    json_t *index, *header;
    uint8_t *data;
};

/* False where the shared folder is absent. */
static bool open_vectors(struct vectors *v)
{
    size_t index_size, size;
    uint64_t header_size;
    char *index, *file;

    if (!shared_path("golden/quant"))
        return false;
    index = read_file(shared_path("golden/quant/index.json"), &index_size);
    file = read_file(shared_path("golden/quant/vectors.safetensors"), &size);
    memcpy(&header_size, file, 8);
    v->index = json_loadb(index, index_size, 0, NULL);
    v->header = json_loadb(file + 8, header_size, 0, NULL);
    ck_assert_ptr_nonnull(v->index);
    ck_assert_ptr_nonnull(v->header);
    v->data = malloc(size - 8 - header_size);
    memcpy(v->data, file + 8 + header_size, size - 8 - header_size);
    free(file);
    free(index);
    return true;
}

static void close_vectors(struct vectors *v)
{
    json_decref(v->index);
    json_decref(v->header);
    free(v->data);
}

/* The bytes of tensor "PREFIX SUFFIX"; they stay with the vectors. */
static const uint8_t *tensor(const struct vectors *v, const char *prefix, const char *suffix,
                             size_t *bytes, int32_t *dtype)
{
    char name[256];
    const json_t *entry, *offsets;

    snprintf(name, sizeof name, "%s%s", prefix, suffix);
    entry = json_object_get(v->header, name);
    ck_assert_msg(entry != NULL, "no tensor %s", name);
    offsets = json_object_get(entry, "data_offsets");
    *bytes = (size_t)(json_integer_value(json_array_get(offsets, 1)) -
                      json_integer_value(json_array_get(offsets, 0)));
    *dtype = mmqi_dtype_from_name(json_string_value(json_object_get(entry, "dtype")));
    return v->data + json_integer_value(json_array_get(offsets, 0));
}

static float *tensor_f32(const struct vectors *v, const char *name, const char *suffix,
                         size_t count)
{
    size_t bytes;
    int32_t dtype;
    const uint8_t *data = tensor(v, name, suffix, &bytes, &dtype);
    float *w = malloc(count * sizeof *w);

    ck_assert_uint_eq(bytes, count * mmqi_dtype_size(dtype));
    mmqi_to_f32(w, data, dtype, count);
    return w;
}

static void assert_tensor(const struct vectors *v, const struct packed *p, int32_t i,
                          const char *name, const char *suffix)
{
    size_t bytes;
    int32_t dtype;
    const uint8_t *expected = tensor(v, name, suffix, &bytes, &dtype);

    ck_assert_int_eq(p->layout.part[i].dtype, dtype);
    assert_part(p, i, expected, bytes);
}

/* ---- reference vectors ---- */

static float round_to(float value, const char *dtype)
{
    if (strcmp(dtype, "bfloat16") == 0)
        return mmqi_f32_from_bf16(mmqi_bf16_from_f32(value));
    if (strcmp(dtype, "float16") == 0)
        return mmqi_f32_from_f16(mmqi_f16_from_f32(value));
    return value;
}

/* What the vector's quantization state says. */
static json_t *read_state(const struct vectors *v, const json_t *item)
{
    char suffix[64];
    size_t bytes;
    int32_t type;
    const uint8_t *text;

    snprintf(suffix, sizeof suffix, ".weight.quant_state.bitsandbytes__%s",
             json_string_value(json_object_get(item, "quant_type")));
    text = tensor(v, json_string_value(json_object_get(item, "name")), suffix, &bytes, &type);
    return json_loadb((const char *)text, bytes, 0, NULL);
}

static int64_t ulps(float a, float b)
{
    return llabs((int64_t)mmqi_bits_from_f32(a) - (int64_t)mmqi_bits_from_f32(b));
}

/* Nested codes fall on ties, and torch sums in another order: a step and an ulp are allowed. */
static void check_nested(const struct vectors *v, const json_t *item, const struct packed *p)
{
    const char *name = json_string_value(json_object_get(item, "name"));
    json_t *state = read_state(v, item);
    int64_t n = p->layout.part[1].shape[0], n_nested = p->layout.part[2].shape[0];
    float *nested = tensor_f32(v, name, ".weight.nested_absmax", (size_t)n_nested), ours, offset;
    size_t bytes;
    int32_t type;
    const uint8_t *codes = tensor(v, name, ".weight.absmax", &bytes, &type);

    ck_assert_uint_eq(bytes, (size_t)n);
    for (int64_t i = 0; i < n; i++)
        ck_assert_int_le(abs(codes[i] - p->part[1][i]), 1);
    for (int64_t i = 0; i < n_nested; i++) {
        memcpy(&ours, p->part[2] + 4 * i, sizeof ours);
        ck_assert_int_le(ulps(ours, nested[i]), 1);
    }
    offset = (float)json_number_value(json_object_get(state, "nested_offset"));
    memcpy(&ours, p->part[3], sizeof ours);
    ck_assert_int_le(ulps(ours, offset), 1);
    ck_assert_mem_eq(mmqi_nested_table, tensor(v, name, ".weight.nested_quant_map", &bytes, &type),
                     sizeof mmqi_nested_table);
    json_decref(state);
    free(nested);
}

/* What the stored tensors themselves decode to, rounded to the type of the state. */
static void check_decode(const struct vectors *v, const json_t *item, const struct packed *p)
{
    const char *name = json_string_value(json_object_get(item, "name"));
    json_t *state = read_state(v, item);
    size_t count = (size_t)(p->rows * p->cols), bytes;
    float offset = (float)json_number_value(json_object_get(state, "nested_offset"));
    float *expected = tensor_f32(v, name, ".dequant", count), *w = malloc(count * sizeof *w);
    const uint8_t *part[MMQI_MAX_PARTS] = {NULL};
    int32_t type;

    part[0] = tensor(v, name, ".weight", &bytes, &type);
    part[1] = tensor(v, name, ".weight.absmax", &bytes, &type);
    if (p->info->nested) {
        part[2] = tensor(v, name, ".weight.nested_absmax", &bytes, &type);
        part[3] = (const uint8_t *)&offset;
    }
    p->info->unpack(w, part, p->rows, p->cols, 0, (int64_t)count);
    for (size_t i = 0; i < count; i++)
        w[i] = round_to(w[i], json_string_value(json_object_get(state, "dtype")));
    ck_assert_mem_eq(w, expected, count * sizeof *w);
    json_decref(state);
    free(w);
    free(expected);
}

static void check_bnb4_vector(const struct vectors *v, const json_t *item)
{
    const char *name = json_string_value(json_object_get(item, "name"));
    const char *type = json_string_value(json_object_get(item, "quant_type"));
    const json_t *shape = json_object_get(item, "shape");
    int64_t rows = json_integer_value(json_array_get(shape, 0));
    int64_t cols = json_integer_value(json_array_get(shape, 1));
    int64_t block = json_integer_value(json_object_get(item, "blocksize"));
    bool nested = json_is_true(json_object_get(item, "nested"));
    float *input =
        tensor_f32(v, json_string_value(json_object_get(item, "input")), "", (size_t)(rows * cols));
    char format[32];
    struct packed p;
    size_t bytes;
    int32_t dtype;

    snprintf(format, sizeof format, "%s%s%s", type,
             block == 64   ? ""
             : block == 32 ? "-32"
                           : "-128",
             nested ? "-nested" : "");
    p = pack(format, input, rows, cols, rows);
    ck_assert_int_eq(p.info->block, block);
    assert_tensor(v, &p, 0, name, ".weight");
    if (nested)
        check_nested(v, item, &p);
    else
        assert_tensor(v, &p, 1, name, ".weight.absmax");
    ck_assert_mem_eq(p.info->table, tensor(v, name, ".weight.quant_map", &bytes, &dtype), 64);
    check_decode(v, item, &p);
    free_packed(&p);
    free(input);
}

START_TEST(nf4_and_fp4_make_the_bytes_of_bitsandbytes)
{
    struct vectors v;
    size_t i;
    json_t *item;

    if (!open_vectors(&v))
        SKIP("golden/quant is absent");
    json_array_foreach(json_object_get(v.index, "bnb4"), i, item) check_bnb4_vector(&v, item);
    ck_assert_uint_eq(i, 60);
    close_vectors(&v);
}
END_TEST

/* The module casts a weight to f16 before it quantizes; input_weight is that f16
 * weight, so these vectors do not depend on the cast, which libmmq does not make. */
START_TEST(int8_makes_the_bytes_of_llm_int8)
{
    struct vectors v;
    size_t i;
    json_t *item;
    int n = 0;

    if (!open_vectors(&v))
        SKIP("golden/quant is absent");
    json_array_foreach(json_object_get(v.index, "int8"), i, item)
    {
        const char *name = json_string_value(json_object_get(item, "name"));
        int64_t rows = json_integer_value(json_object_get(item, "N"));
        int64_t cols = json_integer_value(json_object_get(item, "K"));
        size_t count = (size_t)(rows * cols), bytes;
        int32_t dtype;
        float *input, *expected, *w;
        struct packed p;

        tensor(&v, name, ".input_weight", &bytes, &dtype);
        ck_assert_int_eq(dtype, MMQI_F16);
        input = tensor_f32(&v, name, ".input_weight", count);
        expected = tensor_f32(&v, name, ".dequant", count);
        p = pack("int8", input, rows, cols, rows);
        w = unpack(&p);
        assert_tensor(&v, &p, 0, name, ".weight");
        assert_tensor(&v, &p, 1, name, ".SCB");
        ck_assert_mem_eq(w, expected, count * sizeof *w);
        free(w);
        free_packed(&p);
        free(expected);
        free(input);
        n++;
    }
    ck_assert_int_eq(n, 3);
    close_vectors(&v);
}
END_TEST

/* x[i] = (((37 i + 11) mod 101) - 50) / 64 * (1 + i / 64), i / 64 whole: exact in f32. */
START_TEST(nf4_packs_the_sheet_s_sequence)
{
    static const uint8_t first[16] = {0x17, 0xe2, 0x9f, 0x3b, 0x05, 0xd1, 0x7e, 0x2a,
                                      0xf4, 0xc0, 0x6d, 0x18, 0xe2, 0xa0, 0x4c, 0x16};
    static const float absmax[8] = {.78125f,  1.53125f, 2.34375f, 3.125f,
                                    3.90625f, 4.6875f,  5.46875f, 6.25f};
    float w[512];
    struct packed p;

    for (int i = 0; i < 512; i++)
        w[i] = (float)((i * 37 + 11) % 101 - 50) / 64.0f * (float)(1 + i / 64);
    p = pack("nf4", w, 8, 64, 8);
    ck_assert_mem_eq(p.part[0], first, sizeof first);
    ck_assert_mem_eq(p.part[1], absmax, sizeof absmax);
    free_packed(&p);
}
END_TEST

START_TEST(int8_packs_the_sheet_s_row)
{
    static const float w[4] = {.5f, -1.25f, 3.0f, -2.0f};
    static const int8_t codes[4] = {21, -53, 127, -85};
    struct packed p = pack("int8", w, 1, 4, 1);
    float scb;

    memcpy(&scb, p.part[1], sizeof scb);
    ck_assert_mem_eq(p.part[0], codes, sizeof codes);
    ck_assert(scb == 3.0f);
    free_packed(&p);
}
END_TEST

/* ---- rounding ---- */

/* A second way to say it: the C library's rounding, one number at a time. */
START_TEST(int8_rounds_ties_to_even)
{
    float w[512];
    struct packed p;

    for (int i = 0; i < 509; i++)
        w[i] = ((float)i - 254.0f) / 2.0f;
    w[509] = 127.0f;
    w[510] = -0.0f;
    w[511] = 0.5f;
    p = pack("int8", w, 1, 512, 1);
    for (int i = 0; i < 512; i++) {
        float scale = 127.0f * (1.0f / 127.0f);

        ck_assert_int_eq((int8_t)p.part[0][i], (int8_t)nearbyintf(w[i] * scale));
    }
    free_packed(&p);
}
END_TEST

START_TEST(nf4_takes_the_lower_code_at_a_threshold)
{
    /* absmax 1, so the scaled number is the number: t7, the next f32 above, and both ends */
    float w[64] = {1.0f, 0.03979014977812767f, 0.0f, -1.0f};
    struct packed p;

    w[2] = nextafterf(w[1], 1.0f);
    p = pack("nf4", w, 1, 64, 1);
    ck_assert_uint_eq(p.part[0][0], 0xf7);
    ck_assert_uint_eq(p.part[0][1], 0x80);
    ck_assert_uint_eq(p.part[0][2], 0x77);
    free_packed(&p);
}
END_TEST

START_TEST(rows_and_blocks_of_zeros_and_of_the_smallest_numbers_stay_finite)
{
    static const char *const names[] = {"int8", "nf4", "fp4", "nf4-32", "fp4-128"};
    float w[256] = {0.0f};

    for (int i = 0; i < 64; i++) {
        w[64 + i] = i % 3 ? 1e-45f : -2e-39f;
        w[128 + i] = i % 2 ? 3.4e38f : -3.4e38f;
        w[192 + i] = -0.0f;
    }
    for (size_t f = 0; f < 10; f++) {
        struct packed p = pack_by(names[f / 2], f % 2, w, 4, 64, 4);
        float *back = unpack(&p);

        for (int i = 0; i < 256; i++) {
            ck_assert(isfinite(back[i]));
            ck_assert(fabsf(back[i] - w[i]) <= fabsf(w[i]));
        }
        ck_assert(back[0] == 0.0f && back[200] == 0.0f && back[129] == 3.4e38f);
        ck_assert_uint_eq(p.part[0][0], p.info->table == mmqi_nf4_table ? 0x77 : 0x00);
        free(back);
        free_packed(&p);
    }
}
END_TEST

START_TEST(nf4_pads_an_odd_count_with_the_code_of_zero)
{
    static const int64_t counts[] = {1, 7, 63, 65, 129};

    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        float *w = numbers(counts[i], 9);
        struct packed p = pack("nf4", w, 1, counts[i], 1);

        ck_assert_uint_eq(p.layout.part[0].bytes, (uint64_t)(counts[i] + 1) / 2);
        ck_assert_uint_eq(p.part[0][counts[i] / 2] & 15, 7);
        free_packed(&p);
        free(w);
    }
}
END_TEST

/* ---- promises of every format ---- */

static const struct {
    int64_t rows, cols;
} shapes[] = {{1, 1},    {1, 7},   {3, 5},    {64, 64}, {33, 130},
              {130, 66}, {17, 96}, {5, 4304}, {9, 3420}};

static void check_cuts(const char *format, int32_t method, int64_t rows, int64_t cols)
{
    float *w = numbers(rows * cols, 17);
    struct packed whole = pack_by(format, method, w, rows, cols, rows);
    int64_t step = whole.info->row_step(cols);

    for (int64_t chunk = step; chunk < rows; chunk += method == MMQI_METHOD_RTN ? step : 7 * step) {
        struct packed cut = pack_by(format, method, w, rows, cols, chunk);

        for (int32_t i = 0; i < whole.layout.n_parts; i++)
            assert_part(&cut, i, whole.part[i], whole.layout.part[i].bytes);
        free_packed(&cut);
    }
    free_packed(&whole);
    free(w);
}

START_TEST(bytes_do_not_depend_on_how_rows_are_cut)
{
    for (int32_t f = 0; f < MMQI_N_FORMATS; f++)
        for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++)
            for (int32_t method = 0; method < 2; method++)
                check_cuts(mmqi_format_info(f)->name, method, shapes[s].rows, shapes[s].cols);
}
END_TEST

START_TEST(a_row_step_ends_at_whole_blocks_and_is_the_smallest)
{
    for (int32_t f = MMQI_FORMAT_NF4; f < MMQI_FORMAT_INT4_G32; f++)
        for (int64_t cols = 0; cols < 300; cols++) {
            const struct mmqi_format_info *info = mmqi_format_info(f);
            int64_t step = info->row_step(cols);

            ck_assert_int_eq(step * cols % info->block, 0);
            for (int64_t less = 1; less < step; less++)
                ck_assert_int_ne(less * cols % info->block, 0);
        }
    ck_assert_int_eq(mmqi_format_find("int4")->row_step(4305), 1);
    ck_assert_int_eq(mmqi_format_find("int8")->row_step(4304), 1);
    ck_assert_int_eq(mmqi_format_find("bf16")->row_step(4304), 1);
}
END_TEST

START_TEST(any_range_unpacks_as_the_whole_does)
{
    for (int32_t f = 0; f < MMQI_N_FORMATS; f++) {
        float *w = numbers(33 * 37, 5), *whole, part[33 * 37];
        struct packed p = pack(mmqi_format_info(f)->name, w, 33, 37, 33);

        whole = unpack(&p);
        for (int64_t begin = 0; begin < 33 * 37; begin += 11)
            for (int64_t n = 0; begin + n <= 33 * 37; n += 61) {
                p.info->unpack(part, p.part, 33, 37, begin, n);
                ck_assert_mem_eq(part, whole + begin, (size_t)n * sizeof *part);
            }
        free(whole);
        free_packed(&p);
        free(w);
    }
}
END_TEST

/* Half of the greatest step of the codes, relative to the greatest magnitude (at most 1 here; int4's
 * range is at most 2, its scale errs by 2^-11 or 2^-8, and its ends by another half step). */
START_TEST(a_weight_errs_by_half_a_step_at_most)
{
    static const struct {
        const char *name;
        float bound;
    } formats[] = {{"f32", 0.0f},
                   {"f16", 0.000489f},
                   {"bf16", 0.00391f},
                   {"int8", 0.5001f / 127.0f},
                   {"nf4", 0.15191f},
                   {"nf4-32", 0.15191f},
                   {"nf4-128", 0.15191f},
                   {"nf4-nested", 0.165f},
                   {"nf4-128-nested", 0.165f},
                   {"fp4", 0.16667f},
                   {"fp4-32", 0.16667f},
                   {"fp4-32-nested", 0.18f},
                   {"int4-g32", 2.0f / 15.0f * 1.001f},
                   {"int4-g64", 2.0f / 15.0f * 1.001f},
                   {"int4-g128", 2.0f / 15.0f * 1.001f},
                   {"int4-g64-bf16", 2.0f / 15.0f * 1.06f}};

    for (size_t f = 0; f < sizeof formats / sizeof *formats; f++)
        for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) {
            int64_t count = shapes[s].rows * shapes[s].cols;
            float *w = numbers(count, 3), *back;
            struct packed p =
                pack(formats[f].name, w, shapes[s].rows, shapes[s].cols, shapes[s].rows);

            back = unpack(&p);
            for (int64_t i = 0; i < count; i++)
                ck_assert(fabsf(back[i] - w[i]) <= formats[f].bound);
            free(back);
            free_packed(&p);
            free(w);
        }
}
END_TEST

/*
 * The greatest magnitude of each row or block comes back exactly, so a second packing finds the
 * same scales; each code's value lies within its own interval, so it finds the same codes. fp4 has
 * two codes of zero, of which only one comes back; nested scales and the ends of an int4 group do not come
 * back exactly.
 */
START_TEST(packing_what_was_unpacked_gives_the_same_weights)
{
    for (int32_t f = 0; f < MMQI_FORMAT_INT4_G32; f++)
        for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) {
            const struct mmqi_format_info *info = mmqi_format_info(f);
            int64_t rows = shapes[s].rows, cols = shapes[s].cols;
            float *w = numbers(rows * cols, 29), *back, *again;
            struct packed first = pack(info->name, w, rows, cols, rows), second;

            back = unpack(&first);
            second = pack(info->name, back, rows, cols, rows);
            again = unpack(&second);
            if (!info->nested)
                ck_assert_mem_eq(again, back, (size_t)(rows * cols) * sizeof *back);
            if (!info->nested && info->table != mmqi_fp4_table)
                assert_part(&second, 0, first.part[0], first.layout.part[0].bytes);
            free(again);
            free(back);
            free_packed(&second);
            free_packed(&first);
            free(w);
        }
}
END_TEST

/* ---- the table and the layouts ---- */

START_TEST(every_format_is_found_by_number_and_by_name)
{
    static const char *const names[MMQI_N_FORMATS] = {
        "f32",       "f16",           "bf16",          "int8",           "nf4",      "nf4-32",
        "nf4-128",   "nf4-nested",    "nf4-32-nested", "nf4-128-nested", "fp4",      "fp4-32",
        "fp4-128",   "fp4-nested",    "fp4-32-nested", "fp4-128-nested", "int4-g32", "int4-g64",
        "int4-g128", "int4-g32-bf16", "int4-g64-bf16", "int4-g128-bf16"};

    for (int32_t f = 0; f < MMQI_N_FORMATS; f++) {
        ck_assert_int_eq(mmqi_format_info(f)->format, f);
        ck_assert_str_eq(mmqi_format_info(f)->name, names[f]);
        ck_assert_ptr_eq(mmqi_format_find(names[f]), mmqi_format_info(f));
    }
    ck_assert_ptr_eq(mmqi_format_find("int4"), mmqi_format_info(MMQI_FORMAT_INT4_G64));
    ck_assert_int_eq(mmqi_format_from_dtype(MMQI_F32), MMQI_FORMAT_F32);
    ck_assert_int_eq(mmqi_format_from_dtype(MMQI_F16), MMQI_FORMAT_F16);
    ck_assert_int_eq(mmqi_format_from_dtype(MMQI_BF16), MMQI_FORMAT_BF16);
}
END_TEST

START_TEST(unknown_formats_are_not_found)
{
    ck_assert_ptr_null(mmqi_format_info(-1));
    ck_assert_ptr_null(mmqi_format_info(MMQI_N_FORMATS));
    ck_assert_ptr_null(mmqi_format_find("q3_k"));
    ck_assert_ptr_null(mmqi_format_find("INT8"));
    ck_assert_ptr_null(mmqi_format_find(""));
    ck_assert_ptr_null(mmqi_format_find(NULL));
    ck_assert_int_eq(mmqi_format_from_dtype(MMQI_I8), -1);
    ck_assert_int_eq(mmqi_format_from_dtype(MMQI_U8), -1);
    ck_assert_int_eq(mmqi_format_from_dtype(MMQI_F64), -1);
    ck_assert_int_eq(mmqi_format_from_dtype(-1), -1);
}
END_TEST

START_TEST(layouts_are_as_the_file_holds_them)
{
    struct mmqi_layout layout;

    ck_assert_int_eq(mmqi_format_find("int8")->layout(&layout, 33, 130), MMQ_OK);
    ck_assert_int_eq(layout.n_parts, 2);
    ck_assert_str_eq(layout.part[1].suffix, "@SCB");
    ck_assert_int_eq(layout.part[1].rank, 1);
    ck_assert_int_eq(layout.part[1].shape[0], 33);
    ck_assert_uint_eq(layout.part[1].offset, 4352); /* 4290 to the next multiple of 64 */
    ck_assert_uint_eq(layout.bytes, 4352 + 192);

    ck_assert_int_eq(mmqi_format_find("nf4")->layout(&layout, 3, 5), MMQ_OK);
    ck_assert_int_eq(layout.n_parts, 2);
    ck_assert_int_eq(layout.part[0].rank, 2);
    ck_assert_int_eq(layout.part[0].shape[0], 8);
    ck_assert_int_eq(layout.part[0].shape[1], 1);
    ck_assert_uint_eq(layout.part[0].bytes, 8);
    ck_assert_str_eq(layout.part[1].suffix, ".absmax");
    ck_assert_int_eq(layout.part[1].shape[0], 1);
    ck_assert_uint_eq(layout.part[1].offset, 64);

    ck_assert_int_eq(mmqi_format_find("fp4-32-nested")->layout(&layout, 300, 33), MMQ_OK);
    ck_assert_int_eq(layout.n_parts, 4);
    ck_assert_int_eq(layout.part[1].dtype, MMQI_U8);
    ck_assert_int_eq(layout.part[1].shape[0], 310); /* of 9900 */
    ck_assert_str_eq(layout.part[2].suffix, ".nested_absmax");
    ck_assert_int_eq(layout.part[2].shape[0], 2);
    ck_assert_ptr_null(layout.part[3].suffix);
    ck_assert_uint_eq(layout.part[3].bytes, 4);
    ck_assert_uint_eq(layout.bytes, 4992 + 320 + 64 + 64);

    ck_assert_int_eq(mmqi_format_find("int4-g32-bf16")->layout(&layout, 3, 65), MMQ_OK);
    ck_assert_int_eq(layout.n_parts, 3);
    ck_assert_str_eq(layout.part[0].suffix, "_packed");
    ck_assert_int_eq(layout.part[0].shape[0], 3);
    ck_assert_int_eq(layout.part[0].shape[1], 33);
    ck_assert_str_eq(layout.part[1].suffix, "_scale");
    ck_assert_int_eq(layout.part[1].dtype, MMQI_BF16);
    ck_assert_int_eq(layout.part[1].shape[1], 3);
    ck_assert_str_eq(layout.part[2].suffix, "_zero_point");
    ck_assert_uint_eq(layout.part[2].bytes, 9);

    ck_assert_int_eq(mmqi_format_find("bf16")->layout(&layout, 3, 5), MMQ_OK);
    ck_assert_int_eq(layout.n_parts, 1);
    ck_assert_uint_eq(layout.part[0].bytes, 30);
    ck_assert_uint_eq(layout.bytes, 64);
}
END_TEST

START_TEST(an_empty_matrix_has_empty_parts)
{
    float none = 1.0f;

    for (int32_t f = 0; f < MMQI_N_FORMATS; f++) {
        struct packed p = pack(mmqi_format_info(f)->name, NULL, 0, 5, 1);

        ck_assert_uint_eq(p.layout.part[0].bytes, 0);
        p.info->unpack(&none, p.part, 0, 5, 0, 0);
        ck_assert(none == 1.0f);
        free_packed(&p);
    }
}
END_TEST

START_TEST(a_layout_that_would_wrap_is_refused)
{
    static const int64_t bad[][2] = {
        {INT64_MAX, 2}, {INT64_MAX / 2, 2}, {-1, 4}, {4, -1}, {INT64_C(1) << 32, INT64_C(1) << 31},
        {INT64_MAX, 1}};

    for (int32_t f = 0; f < MMQI_N_FORMATS; f++)
        for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
            struct mmqi_layout layout;
            int32_t status = mmqi_format_info(f)->layout(&layout, bad[i][0], bad[i][1]);
            uint64_t total = 0;

            if (status == MMQ_OK) { /* it may fit: half a byte to a weight */
                for (int32_t k = 0; k < layout.n_parts; k++)
                    total += layout.part[k].bytes;
                ck_assert_uint_le(total, layout.bytes);
                ck_assert_uint_ge(layout.bytes, (uint64_t)bad[i][0] / 2 * (uint64_t)bad[i][1]);
            } else {
                ck_assert_int_eq(status, MMQ_ERR_LIMIT);
            }
        }
    {
        struct mmqi_layout layout;

        ck_assert_int_eq(mmqi_format_find("f32")->layout(&layout, INT64_MAX, 1), MMQ_ERR_LIMIT);
        ck_assert_int_eq(mmqi_format_find("nf4")->layout(&layout, INT64_MAX, 2), MMQ_ERR_LIMIT);
        ck_assert_int_eq(mmqi_format_find("int8")->layout(&layout, -1, 4), MMQ_ERR_LIMIT);
        ck_assert_ptr_nonnull(strstr(mmqi_message(), "-1 x 4"));
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("format");
    TCase *vectors = tcase_create("vectors");
    TCase *promises = tcase_create("promises");
    SRunner *runner;
    int failed;

    tcase_add_test(vectors, nf4_and_fp4_make_the_bytes_of_bitsandbytes);
    tcase_add_test(vectors, int8_makes_the_bytes_of_llm_int8);
    tcase_add_test(vectors, nf4_packs_the_sheet_s_sequence);
    tcase_add_test(vectors, int8_packs_the_sheet_s_row);
    tcase_add_test(promises, int8_rounds_ties_to_even);
    tcase_add_test(promises, nf4_takes_the_lower_code_at_a_threshold);
    tcase_add_test(promises, rows_and_blocks_of_zeros_and_of_the_smallest_numbers_stay_finite);
    tcase_add_test(promises, nf4_pads_an_odd_count_with_the_code_of_zero);
    tcase_add_test(promises, bytes_do_not_depend_on_how_rows_are_cut);
    tcase_add_test(promises, a_row_step_ends_at_whole_blocks_and_is_the_smallest);
    tcase_add_test(promises, any_range_unpacks_as_the_whole_does);
    tcase_add_test(promises, a_weight_errs_by_half_a_step_at_most);
    tcase_add_test(promises, packing_what_was_unpacked_gives_the_same_weights);
    tcase_add_test(promises, every_format_is_found_by_number_and_by_name);
    tcase_add_test(promises, unknown_formats_are_not_found);
    tcase_add_test(promises, layouts_are_as_the_file_holds_them);
    tcase_add_test(promises, an_empty_matrix_has_empty_parts);
    tcase_add_test(promises, a_layout_that_would_wrap_is_refused);
    suite_add_tcase(suite, vectors);
    suite_add_tcase(suite, promises);
    tcase_set_timeout(vectors, 60);
    tcase_set_timeout(promises, 60);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
