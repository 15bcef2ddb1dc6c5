/*
 * What bitsandbytes and transformers find in a folder that libmmq wrote, and
 * the report of the work, read back with jansson.
 */
#include <check.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/dtype.h"
#include "core/mem.h"
#include "core/status.h"
#include "quant/export_bnb.h"
#include "quant/report.h"
#include "quant/stored.h"
#include "scratch.h"

/* ---- a model that is only its weight table ---- */

static const struct mmqi_entry entries[] = {
    {.name = "language_model.model.embed_tokens.weight", .dtype = MMQI_BF16},
    {.name = "language_model.model.layers.1.mlp.up_proj.weight", .dtype = MMQI_BF16},
    {.name = "language_model.model.layers.10.mlp.up_proj.weight", .dtype = MMQI_BF16},
    {.name = "language_model.lm_head.weight", .dtype = MMQI_BF16},
    {.name = "tower.patch.weight", .dtype = MMQI_BF16},
    {.name = "tower.patch_proj.weight", .dtype = MMQI_BF16},
    {.name = "tower.norm.weight", .dtype = MMQI_BF16},
};

static struct mmqi_weight weights[] = {
    {.role = MMQI_ROLE_EMBED, .same_as = -1, .entry = {&entries[0]}},
    {.role = MMQI_ROLE_LINEAR, .same_as = -1, .entry = {&entries[1]}},
    {.role = MMQI_ROLE_LINEAR, .same_as = -1, .entry = {&entries[2]}},
    {.role = MMQI_ROLE_EMBED, .same_as = -1, .entry = {&entries[3]}},
    {.role = MMQI_ROLE_CONV, .same_as = -1, .entry = {&entries[4]}},
    {.role = MMQI_ROLE_LINEAR, .same_as = -1, .entry = {&entries[5]}},
    {.role = MMQI_ROLE_VECTOR, .same_as = -1, .entry = {&entries[6]}},
};

static const bool quantized[] = {false, true, true, false, false, true, false};

static struct mmqi_model model = {.weights = weights, .n_weights = 7};

/* The config where weights 1, 2 and 5 are in these formats. */
static char *mixed_config(const char *text, int32_t f1, int32_t f2, int32_t f5)
{
    const int32_t formats[7] = {[0] = MMQI_FORMAT_BF16,
                                [1] = f1,
                                [2] = f2,
                                [3] = MMQI_FORMAT_BF16,
                                [4] = MMQI_FORMAT_BF16,
                                [5] = f5,
                                [6] = MMQI_FORMAT_F32};
    char *out;
    size_t size;

    ck_assert_msg(mmqi_bnb_config(&out, &size, text, strlen(text), &model, formats) == MMQ_OK, "%s",
                  mmqi_message());
    ck_assert_uint_eq(size, strlen(out));
    return out;
}

static char *config(const char *text, int32_t format)
{
    return mixed_config(text, format, format, format);
}

/* The quantization_config of the text; the root is the caller's to free. */
static json_t *parse(const char *text, json_t **root)
{
    json_error_t error;

    *root = json_loads(text, JSON_REJECT_DUPLICATES, &error);
    ck_assert_msg(*root != NULL, "%s in: %s", error.text, text);
    return json_object_get(*root, "quantization_config");
}

START_TEST(the_config_says_which_method_made_the_weights)
{
    for (int eight = 0; eight < 2; eight++) {
        char *text =
            config("{\"model_type\": \"llava\"}", eight ? MMQI_FORMAT_INT8 : MMQI_FORMAT_NF4);
        json_t *root, *q = parse(text, &root);

        ck_assert_str_eq(json_string_value(json_object_get(root, "model_type")), "llava");
        ck_assert_str_eq(json_string_value(json_object_get(q, "quant_method")), "bitsandbytes");
        ck_assert(json_is_true(json_object_get(q, "load_in_8bit")) == (eight != 0));
        ck_assert(json_is_true(json_object_get(q, "load_in_4bit")) == (eight == 0));
        ck_assert_str_eq(json_string_value(json_object_get(q, "bnb_4bit_quant_type")), "nf4");
        ck_assert(json_is_false(json_object_get(q, "bnb_4bit_use_double_quant")));
        ck_assert_str_eq(json_string_value(json_object_get(q, "bnb_4bit_compute_dtype")),
                         "bfloat16");
        json_decref(root);
        mmqi_free(text);
    }
}
END_TEST

START_TEST(one_scheme_of_bitsandbytes_may_have_many_block_sizes)
{
    char *text = mixed_config("{}", MMQI_FORMAT_FP4_NESTED, MMQI_FORMAT_FP4_32_NESTED,
                              MMQI_FORMAT_FP4_128_NESTED);
    json_t *root, *q = parse(text, &root);

    ck_assert_str_eq(json_string_value(json_object_get(q, "quant_method")), "bitsandbytes");
    ck_assert(json_is_true(json_object_get(q, "load_in_4bit")));
    ck_assert_str_eq(json_string_value(json_object_get(q, "bnb_4bit_quant_type")), "fp4");
    ck_assert(json_is_true(json_object_get(q, "bnb_4bit_use_double_quant")));
    json_decref(root);
    mmqi_free(text);
}
END_TEST

START_TEST(what_bitsandbytes_cannot_load_as_one_is_mapped_by_module)
{
    static const int32_t mixes[][3] = {
        {MMQI_FORMAT_NF4, MMQI_FORMAT_INT8, MMQI_FORMAT_NF4},
        {MMQI_FORMAT_NF4, MMQI_FORMAT_NF4, MMQI_FORMAT_NF4_NESTED},
        {MMQI_FORMAT_NF4, MMQI_FORMAT_FP4, MMQI_FORMAT_NF4},
        {MMQI_FORMAT_INT4_G64, MMQI_FORMAT_INT4_G64, MMQI_FORMAT_INT4_G64},
        {MMQI_FORMAT_INT8, MMQI_FORMAT_BF16, MMQI_FORMAT_INT4_G32_BF16}};

    for (size_t i = 0; i < sizeof mixes / sizeof *mixes; i++) {
        char *text = mixed_config("{\"z\": 1}", mixes[i][0], mixes[i][1], mixes[i][2]);
        json_t *root, *q = parse(text, &root), *modules = json_object_get(q, "modules");

        ck_assert_str_eq(json_string_value(json_object_get(q, "quant_method")), "libmmq");
        ck_assert_uint_eq(json_object_size(q), 2);
        ck_assert_uint_eq(json_object_size(modules), mixes[i][1] == MMQI_FORMAT_BF16 ? 2 : 3);
        ck_assert_str_eq(json_string_value(
                             json_object_get(modules, "language_model.model.layers.1.mlp.up_proj")),
                         mmqi_format_info(mixes[i][0])->name);
        ck_assert_str_eq(json_string_value(json_object_get(modules, "tower.patch_proj")),
                         mmqi_format_info(mixes[i][2])->name);
        json_decref(root);
        mmqi_free(text);
    }
}
END_TEST

START_TEST(nothing_packed_leaves_the_config_as_it_is)
{
    static const char text[] = "{\"a\": 1, \"quantization_config\": {\"b\": 2}, \"c\": 3}\n";
    char *out = config(text, MMQI_FORMAT_BF16);

    ck_assert_str_eq(out, text);
    mmqi_free(out);
}
END_TEST

START_TEST(the_rest_of_the_config_stays_as_it_is)
{
    static const char text[] = "{\n  \"a\": [1.50, {\"b\": \"\\u00e9\"}],\n\t\"c\": {} \n}\n";
    char *out = config(text, MMQI_FORMAT_NF4);
    size_t kept = strlen("{\n  \"a\": [1.50, {\"b\": \"\\u00e9\"}],\n\t\"c\": {}");

    ck_assert_mem_eq(out, text, kept);
    ck_assert_mem_eq(out + kept, ",\n  \"quantization_config\": {", 28);
    ck_assert_str_eq(out + strlen(out) - 8, "]\n  } \n}\n" + 1);
    mmqi_free(out);
}
END_TEST

START_TEST(a_quantization_config_that_is_there_is_replaced)
{
    static const char *const old[] = {"{\"quant_method\": \"gptq\", \"x\": [{}]}", "null", "3.5e1",
                                      "\"text\"", "[ ]"};
    static const char *const shapes[] = {"{\"quantization_config\": %s, \"z\": 1}",
                                         "{\"a\": {\"quantization_config\": 5},\n"
                                         "\"quantization_config\" : %s \n, \"z\": 1}",
                                         "{\"z\": 1, \"quantization_config\": %s\n}"};

    for (size_t i = 0; i < 5; i++)
        for (size_t s = 0; s < 3; s++) {
            char text[256], *out;
            json_t *root, *q;

            snprintf(text, sizeof text, shapes[s], old[i]);
            out = config(text, MMQI_FORMAT_INT8);
            q = parse(out, &root);
            ck_assert_str_eq(json_string_value(json_object_get(q, "quant_method")), "bitsandbytes");
            ck_assert_int_eq(json_integer_value(json_object_get(root, "z")), 1);
            json_decref(root);
            mmqi_free(out);
        }
}
END_TEST

START_TEST(an_empty_config_gets_its_first_key)
{
    char *out = config("{}", MMQI_FORMAT_NF4);
    json_t *root, *q = parse(out, &root);

    ck_assert(json_is_object(q));
    json_decref(root);
    mmqi_free(out);
}
END_TEST

START_TEST(a_broken_config_is_refused)
{
    static const char *const bad[] = {"", "[]", "{", "{\"a\":}", "{} {}", "{\"a\": 1, \"a\": 2}"};

    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        const int32_t formats[7] = {[1] = MMQI_FORMAT_NF4};
        char *out;
        size_t size;

        ck_assert_int_eq(mmqi_bnb_config(&out, &size, bad[i], strlen(bad[i]), &model, formats),
                         MMQ_ERR_FORMAT);
        ck_assert_ptr_null(out);
        ck_assert_ptr_nonnull(strstr(mmqi_message(), "config.json"));
    }
}
END_TEST

static bool ends_with(const char *name, const char *key)
{
    return strlen(key) <= strlen(name) && strcmp(name + strlen(name) - strlen(key), key) == 0;
}

/* Both rules of transformers, said again: no entry may keep a module that is quantized. */
START_TEST(the_skip_list_names_the_kept_modules_and_no_quantized_one_under_either_rule)
{
    char *text = config("{\"m\": 1}", MMQI_FORMAT_NF4);
    json_t *root, *list = json_object_get(parse(text, &root), "llm_int8_skip_modules"), *item;
    bool head = false, full = false, embed = false, patch = false;
    size_t i;

    json_array_foreach(list, i, item)
    {
        const char *key = json_string_value(item);

        head |= strcmp(key, "lm_head") == 0;
        full |= strcmp(key, "language_model.lm_head") == 0;
        embed |= strcmp(key, "language_model.model.embed_tokens") == 0;
        patch |= strcmp(key, "tower.patch") == 0;
        for (size_t w = 0; w < 7; w++) {
            char name[128], inner[128];

            if (!quantized[w])
                continue;
            snprintf(name, sizeof name, "%.*s", (int)strlen(entries[w].name) - 7, entries[w].name);
            snprintf(inner, sizeof inner, "%s.", key);
            ck_assert_ptr_null(strstr(name, inner));
            ck_assert(strncmp(name, key, strlen(key)) != 0);
            ck_assert(!ends_with(name, key));
        }
    }
    ck_assert(head && full && embed);
    ck_assert(
        !patch); /* it is a prefix of "tower.patch_proj", and a convolution is never converted */
    json_decref(root);
    mmqi_free(text);
}
END_TEST

/* ---- tensors ---- */

static void declare_matrix(int32_t format, const char *const *names, size_t n, const char *state)
{
    struct mmqi_save *save;
    struct mmqi_store *store;
    struct mmqi_checkpoint *checkpoint;
    struct mmqi_stored stored;
    struct mmqi_layout layout;
    struct mmqi_bnb_matrix matrix = {.file_name = "x.weight",
                                     .format = format,
                                     .source_dtype = MMQI_F16,
                                     .rows = 6,
                                     .cols = 32,
                                     .layout = &layout};
    uint8_t zeros[256] = {0};
    size_t first;

    ck_assert_int_eq(mmqi_format_info(format)->layout(&layout, 6, 32), MMQ_OK);
    ck_assert_int_eq(mmqi_save_create(&save, "out"), MMQ_OK);
    ck_assert_int_eq(mmqi_bnb_declare(save, &first, &matrix), MMQ_OK);
    ck_assert_uint_eq(first, 0);
    if (n > 0)
        ck_assert_uint_eq(mmqi_save_count(save), n);
    ck_assert_int_eq(mmqi_save_open(save, 0), MMQ_OK);
    for (int32_t i = 0; i < layout.n_parts && layout.part[i].suffix; i++)
        ck_assert_int_eq(mmqi_save_write(save, first + (size_t)i, 0, zeros, layout.part[i].bytes),
                         MMQ_OK);
    matrix.nested_offset = -0.196354941f; /* not known when the tensors are declared */
    ck_assert_int_eq(mmqi_bnb_write_extra(save, first, &matrix), MMQ_OK);
    ck_assert_msg(mmqi_save_commit(save) == MMQ_OK, "%s", mmqi_message());
    mmqi_save_free(save);

    ck_assert_int_eq(mmqi_store_open_folder(&store, "out"), MMQ_OK);
    ck_assert_int_eq(mmqi_checkpoint_open(&checkpoint, store), MMQ_OK);
    for (size_t i = 0; i < n; i++) {
        const struct mmqi_entry *entry = mmqi_checkpoint_find(checkpoint, names[i]);

        ck_assert_msg(entry != NULL, "no %s", names[i]);
        if (state && i == n - 1) {
            char text[256];

            ck_assert_int_eq(mmqi_checkpoint_read(checkpoint, entry, 0, text, entry->bytes),
                             MMQ_OK);
            ck_assert_uint_eq(entry->bytes, strlen(state));
            ck_assert_mem_eq(text, state, strlen(state));
        }
    }
    ck_assert_int_eq(mmqi_stored_find(&stored, checkpoint, "x.weight", 6, 32), MMQ_OK);
    ck_assert_int_eq(stored.format, format);
    ck_assert(stored.has_offset == mmqi_format_info(format)->nested);
    ck_assert(stored.nested_offset == (stored.has_offset ? -0.196354941f : 0.0f));
    mmqi_checkpoint_release(checkpoint);
    mmqi_store_release(store);
}

START_TEST(every_packed_format_is_found_again_as_it_was_written)
{
    static const char *const first[] = {"x.weight"}, *const packed[] = {"x.weight_packed"};

    for (int32_t f = MMQI_FORMAT_INT8; f < MMQI_N_FORMATS; f++) {
        declare_matrix(f, f < MMQI_FORMAT_INT4_G32 ? first : packed, 0, NULL);
        ck_assert_int_eq(system("rm -r out"), 0);
    }
}
END_TEST

START_TEST(nested_fp4_has_the_tensors_of_bitsandbytes)
{
    static const char *const names[] = {"x.weight",
                                        "x.weight.absmax",
                                        "x.weight.nested_absmax",
                                        "x.weight.quant_map",
                                        "x.weight.nested_quant_map",
                                        "x.weight.quant_state.bitsandbytes__fp4"};

    declare_matrix(MMQI_FORMAT_FP4_128_NESTED, names, 6,
                   "{\"quant_type\": \"fp4\", \"blocksize\": 128, \"dtype\": \"float16\", "
                   "\"shape\": [6, 32], \"nested_blocksize\": 256, \"nested_dtype\": \"float32\", "
                   "\"nested_offset\": -0.196354941}    ");
}
END_TEST

START_TEST(int4_has_tensors_of_its_own_names)
{
    static const char *const names[] = {"x.weight_packed", "x.weight_scale", "x.weight_zero_point",
                                        "x.weight_shape"};

    declare_matrix(MMQI_FORMAT_INT4_G64_BF16, names, 4, NULL);
}
END_TEST

START_TEST(nf4_has_the_tensors_of_bitsandbytes)
{
    static const char *const names[] = {"x.weight", "x.weight.absmax", "x.weight.quant_map",
                                        "x.weight.quant_state.bitsandbytes__nf4"};

    declare_matrix(MMQI_FORMAT_NF4, names, 4,
                   "{\"quant_type\": \"nf4\", \"blocksize\": 64, \"dtype\": \"float16\", "
                   "\"shape\": [6, 32]}");
}
END_TEST

START_TEST(int8_has_the_tensors_of_llm_int8)
{
    static const char *const names[] = {"x.weight", "x.SCB", "x.weight_format"};

    declare_matrix(MMQI_FORMAT_INT8, names, 3, NULL);
}
END_TEST

START_TEST(a_matrix_without_weight_in_its_name_is_refused)
{
    struct mmqi_save *save;
    struct mmqi_layout layout;
    struct mmqi_bnb_matrix matrix = {.file_name = "in_proj",
                                     .format = MMQI_FORMAT_NF4,
                                     .rows = 6,
                                     .cols = 32,
                                     .layout = &layout};
    size_t first;

    ck_assert_int_eq(mmqi_format_info(MMQI_FORMAT_NF4)->layout(&layout, 6, 32), MMQ_OK);
    ck_assert_int_eq(mmqi_save_create(&save, "out"), MMQ_OK);
    ck_assert_int_eq(mmqi_bnb_declare(save, &first, &matrix), MMQ_ERR_UNSUPPORTED);
    ck_assert_ptr_nonnull(strstr(mmqi_message(), "'in_proj'"));
    mmqi_save_free(save);
}
END_TEST

/* ---- the report ---- */

START_TEST(the_report_is_json_with_totals)
{
    struct mmqi_report *report;
    struct mmqi_report_item item = {.name = (char *)"language.\"x\"",
                                    .format = "nf4",
                                    .was = "bf16",
                                    .method = "rtn",
                                    .reason = "policy",
                                    .rows = 3,
                                    .cols = 50,
                                    .source_bytes = 300,
                                    .bytes = 87};
    json_t *root, *tensors;

    ck_assert_int_eq(mmqi_report_create(&report), MMQ_OK);
    ck_assert_str_eq(mmqi_report_json(report), "");
    for (int i = 0; i < 100; i++)
        ck_assert_int_eq(mmqi_report_add(report, &item), MMQ_OK);
    item.method = "none";
    ck_assert_int_eq(mmqi_report_add(report, &item), MMQ_OK);
    report->peak_bytes = UINT64_C(1) << 40;
    ck_assert_int_eq(mmqi_report_finish(report), MMQ_OK);
    root = json_loads(mmqi_report_json(report), JSON_REJECT_DUPLICATES, NULL);
    ck_assert_ptr_nonnull(root);
    tensors = json_object_get(root, "tensors");
    ck_assert_uint_eq(json_array_size(tensors), 101);
    ck_assert_int_eq(json_integer_value(json_object_get(root, "n_quantized")), 100);
    ck_assert_int_eq(json_integer_value(json_object_get(root, "n_kept")), 1);
    ck_assert_int_eq(json_integer_value(json_object_get(root, "source_bytes")), 30300);
    ck_assert_int_eq(json_integer_value(json_object_get(root, "bytes")), 8787);
    ck_assert_int_eq(json_integer_value(json_object_get(root, "peak_bytes")), INT64_C(1) << 40);
    ck_assert_str_eq(json_string_value(json_object_get(json_array_get(tensors, 7), "name")),
                     "language.\"x\"");
    json_decref(root);
    mmqi_report_free(report);
    mmqi_report_free(NULL);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("export_bnb");
    TCase *tests = tcase_create("export_bnb");
    SRunner *runner;
    int failed;

    tcase_add_test(tests, the_config_says_which_method_made_the_weights);
    tcase_add_test(tests, the_rest_of_the_config_stays_as_it_is);
    tcase_add_test(tests, a_quantization_config_that_is_there_is_replaced);
    tcase_add_test(tests, an_empty_config_gets_its_first_key);
    tcase_add_test(tests, a_broken_config_is_refused);
    tcase_add_test(tests,
                   the_skip_list_names_the_kept_modules_and_no_quantized_one_under_either_rule);
    tcase_add_test(tests, one_scheme_of_bitsandbytes_may_have_many_block_sizes);
    tcase_add_test(tests, what_bitsandbytes_cannot_load_as_one_is_mapped_by_module);
    tcase_add_test(tests, nothing_packed_leaves_the_config_as_it_is);
    tcase_add_test(tests, every_packed_format_is_found_again_as_it_was_written);
    tcase_add_test(tests, nested_fp4_has_the_tensors_of_bitsandbytes);
    tcase_add_test(tests, int4_has_tensors_of_its_own_names);
    tcase_add_test(tests, nf4_has_the_tensors_of_bitsandbytes);
    tcase_add_test(tests, int8_has_the_tensors_of_llm_int8);
    tcase_add_test(tests, a_matrix_without_weight_in_its_name_is_refused);
    tcase_add_test(tests, the_report_is_json_with_totals);
    tcase_add_checked_fixture(tests, scratch_enter, scratch_leave);
    suite_add_tcase(suite, tests);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
