/*
 * Quantizing layer by layer: the same bytes in memory and on disk however the
 * work is cut, and a folder that is complete or not there.
 *
 * The source is the committed tiny LLaVA (bf16); where the shared data lies
 * beside the checkout, the f32 case of the reference too.
 */
#include <check.h>
#include <jansson.h>

#include "backend/packer.h"
#include "core/dtype.h"
#include "core/os.h"
#include "mmq.h"
#include "quantizing.h"

/* Every preset, some formats, and a policy of rules with everything in it. */
static const char *const policies[] = {
    "int8",
    "nf4",
    "layered",
    "int4",
    "nf4-nested",
    "fp4-32 search",
    "int4-g32-bf16 search",
    "vision.* = fp4-128-nested search; language.* = nf4-32-nested; projector.* = nf4-128",
    ("vision.* = nf4; projector.* = f32; language.layers.*.mlp.* = int8\n"
     "language.{embed,head} = int8 # and the rest as it is"),
};
static const size_t n_policies = sizeof policies / sizeof *policies;

/* ---- results ---- */

static void check_memory_and_disk(const char *path)
{
    for (size_t i = 0; i < n_policies; i++) {
        struct mmqi_model *source = open_model(path), *reloaded;
        struct mmqi_model *both = quantize(source, policies[i], "both", true);
        struct mmqi_model *memory = quantize(source, policies[i], NULL, true);

        quantize(source, policies[i], "alone", false);
        mmqi_model_close(source); /* the results live on without it */
        reloaded = open_model("both");
        same_weights(both, reloaded);
        same_weights(memory, reloaded);
        same_files("both/model.safetensors", "alone/model.safetensors");
        same_files("both/config.json", "alone/config.json");
        quantize(memory, "* = keep", "saved", false);
        same_files("saved/model.safetensors", "alone/model.safetensors");
        same_files("saved/config.json", "alone/config.json");
        mmqi_model_close(reloaded);
        mmqi_model_close(memory);
        mmqi_model_close(both);
        ck_assert_int_eq(system("rm -r alone both saved"), 0);
    }
}

START_TEST(memory_and_a_reloaded_folder_hold_the_same_bytes)
{
    check_memory_and_disk(tiny_path());
}
END_TEST

START_TEST(memory_and_a_reloaded_folder_hold_the_same_bytes_of_the_reference_model)
{
    if (!shared_path("golden/llava/model"))
        SKIP("golden/llava is absent");
    check_memory_and_disk(shared_path("golden/llava/model"));
}
END_TEST

/* Packed in one go by the format itself. */
static void check_packed(const struct mmqi_model *source, const struct mmqi_model *model, int32_t i,
                         const struct mmqi_choice *choice)
{
    const struct mmqi_weight *w = &source->weights[i], *q = &model->weights[i];
    const struct mmqi_format_info *info = mmqi_format_info(choice->format);
    const struct mmqi_packing alone = {0};
    struct mmqi_packer packer;
    uint8_t *part[MMQI_MAX_PARTS], *block;
    float *rows = malloc((size_t)(w->rows * w->cols) * sizeof *rows);

    ck_assert_int_eq(q->format, choice->format);
    ck_assert_int_eq(q->stored, choice->format);
    ck_assert_ptr_nonnull(q->block);
    ck_assert_int_eq(
        mmqi_packer_open(&packer, choice->format, choice->method, w->rows, w->cols, &alone),
        MMQ_OK);
    block = calloc(1, packer.layout.bytes);
    for (int32_t k = 0; k < MMQI_MAX_PARTS; k++)
        part[k] = block + packer.layout.part[k].offset;
    ck_assert_int_eq(mmqi_model_read_rows(source, i, 0, w->rows, rows), MMQ_OK);
    if (info->nest)
        part[1] = (uint8_t *)packer.absmax;
    info->pack(part, rows, w->rows, w->cols, choice->method);
    part[1] = block + packer.layout.part[1].offset;
    mmqi_packer_finish(&packer, part);
    ck_assert_uint_eq(q->layout.bytes, packer.layout.bytes);
    ck_assert_mem_eq(q->block, block, packer.layout.bytes);
    mmqi_packer_close(&packer);
    free(block);
    free(rows);
}

START_TEST(every_chosen_weight_is_what_its_format_packs_and_nothing_else_is_changed)
{
    struct mmqi_model *source = open_model(tiny_path());

    for (size_t f = 0; f < n_policies; f++) {
        struct mmqi_model *model = quantize(source, policies[f], NULL, true);
        struct mmqi_choice *choices = choose(source, policies[f]);
        int32_t n_changed = 0;

        for (int32_t i = 0; i < source->n_weights; i++) {
            if (source->weights[i].role == MMQI_ROLE_CONSTANT)
                continue;
            n_changed += choices[i].change;
            if (choices[i].change) {
                check_packed(source, model, i, &choices[i]);
                continue;
            }
            ck_assert_ptr_null(model->weights[i].block);
            same_weight(source, model, i);
        }
        ck_assert_int_ge(n_changed, 20);
        mmqi_free(choices);
        mmqi_model_close(model);
    }
    mmqi_model_close(source);
}
END_TEST

/* Any rows of a packed matrix, from its file, are what all of its bytes unpack to. */
static void check_rows(const struct mmqi_model *model, int32_t i)
{
    static const int64_t cuts[] = {0, 1, 2, 7, 40, 41, 48, 90};
    const struct mmqi_weight *w = &model->weights[i];
    const struct mmqi_format_info *info = mmqi_format_info(w->stored);
    size_t n = (size_t)(w->rows * w->cols);
    float *all = malloc(n * sizeof *all), *some = malloc(n * sizeof *some);
    uint8_t *part[MMQI_MAX_PARTS] = {NULL};

    for (int32_t k = 0; k < w->stored_layout.n_parts; k++)
        part[k] = part_bytes(model, i, k);
    info->unpack(all, (const uint8_t *const *)part, w->rows, w->cols, 0, (int64_t)n);
    for (size_t a = 0; a < sizeof cuts / sizeof *cuts; a++) {
        int64_t begin = cuts[a] < w->rows ? cuts[a] : w->rows - 1;
        int64_t end = w->rows - begin > 3 ? begin + 3 : w->rows;

        ck_assert_int_eq(mmqi_model_read_rows(model, i, begin, end, some), MMQ_OK);
        ck_assert_mem_eq(some, all + begin * w->cols, (size_t)((end - begin) * w->cols) * 4);
    }
    ck_assert_int_eq(mmqi_model_read_rows(model, i, 0, w->rows, some), MMQ_OK);
    ck_assert_mem_eq(some, all, n * sizeof *all);
    for (int32_t k = 0; k < MMQI_MAX_PARTS; k++)
        free(part[k]);
    free(all);
    free(some);
}

START_TEST(rows_read_from_a_packed_folder_are_what_its_bytes_unpack_to)
{
    struct mmqi_model *source = open_model(tiny_path());

    for (size_t f = 0; f < n_policies; f++) {
        struct mmqi_model *model;

        quantize(source, policies[f], "out", false);
        model = open_model("out");
        for (int32_t i = 0; i < model->n_weights; i++)
            if (!mmqi_format_info(model->weights[i].stored)->is_float)
                check_rows(model, i);
        mmqi_model_close(model);
        ck_assert_int_eq(system("rm -r out"), 0);
    }
    mmqi_model_close(source);
}
END_TEST

START_TEST(the_files_do_not_depend_on_chunks_or_threads)
{
    static const uint64_t chunks[] = {1, 777, 5000, 40000, UINT64_MAX};
    static const int32_t threads[] = {5, 2, 1, 5, 2};
    struct mmqi_model *source = open_model(tiny_path());

    for (size_t f = 0; f < n_policies; f++) {
        struct mmqi_choice *choices = choose(source, policies[f]);

        quantize(source, policies[f], "expected", false);
        for (size_t i = 0; i < sizeof chunks / sizeof *chunks; i++) {
            struct mmqi_quantize_options options = {
                .choices = choices, .out_path = "out", .chunk_bytes = chunks[i]};
            struct mmqi_model *model = NULL;

            ck_assert_int_eq(mmqi_pool_create(&options.pool, threads[i]), MMQ_OK);
            ck_assert_msg(mmqi_quantize(i % 2 ? &model : NULL, source, &options, NULL) == MMQ_OK,
                          "%s", mmqi_message());
            same_files("out/model.safetensors", "expected/model.safetensors");
            mmqi_model_close(model);
            mmqi_pool_free(options.pool);
            ck_assert_int_eq(system("rm -r out"), 0);
        }
        mmqi_free(choices);
        ck_assert_int_eq(system("rm -r expected"), 0);
    }
    mmqi_model_close(source);
}
END_TEST

enum { N_ISAS = 3 };

/* The tiny model with the kernels of one instruction set; NULL where the machine lacks it. */
static mmq_model *load_for(const char *isa)
{
    mmq_load_options options = {.struct_size = sizeof options, .isa = isa, .n_threads = 1};
    mmq_model *model = NULL;
    mmq_status status = mmq_load(&model, tiny_path(), &options);
    mmq_model_facts facts = {.struct_size = sizeof facts};

    if (status == MMQ_ERR_UNSUPPORTED) {
        printf("SKIPPED: %s\n", mmq_last_error_message());
        return NULL;
    }
    ck_assert_msg(status == MMQ_OK, "%s", mmq_last_error_message());
    ck_assert_int_eq(mmq_model_place(model), MMQ_OK); /* the kernels are in use */
    ck_assert_int_eq(mmq_model_info(&facts, model), MMQ_OK);
    ck_assert_str_eq(facts.device, support_text("cpu %s, 1 thread", isa));
    return model;
}

static void check_instruction_sets(mmq_model *const models[N_ISAS], const struct mmqi_model *source,
                                   const char *policy)
{
    mmq_quantize_options options = {
        .struct_size = sizeof options, .format = policy, .out_path = "out"};

    quantize(source, policy, "expected", false);
    for (int k = 0; k < N_ISAS; k++) {
        if (!models[k])
            continue;
        ck_assert_msg(mmq_quantize_layerwise(NULL, models[k], &options, NULL) == MMQ_OK, "%s: %s",
                      policy, mmq_last_error_message());
        same_files("out/model.safetensors", "expected/model.safetensors");
        same_files("out/config.json", "expected/config.json");
        ck_assert_int_eq(system("rm -r out"), 0);
    }
    ck_assert_int_eq(system("rm -r expected"), 0);
}

/* Rules that give each kind of matrix another format and method, in turn from *turn on. False when
 * every format had its turn with both. */
static bool next_rules(char rules[1024], int32_t *turn)
{
    static const char *const kinds[] = {"vision.*.attn", "vision.*.mlp", "projector",
                                        "language.*.attn", "language.*.mlp"};
    const struct mmqi_format_info *info = mmqi_format_info(*turn / 2);
    size_t n = 0;

    for (size_t k = 0; k < sizeof kinds / sizeof *kinds && info; k++) {
        n += (size_t)snprintf(rules + n, 1024 - n, "%s.* = %s %s; ", kinds[k], info->name,
                              *turn % 2 && !info->is_float ? "search" : "rtn");
        info = mmqi_format_info(++*turn / 2);
    }
    return n > 0;
}

START_TEST(the_files_do_not_depend_on_instruction_sets)
{
    mmq_model *models[N_ISAS] = {load_for("c"), load_for("avx2"), load_for("avx512")};
    struct mmqi_model *source = open_model(tiny_path());
    char rules[1024];
    int32_t turn = 0;

    ck_assert_ptr_nonnull(models[0]);
    for (size_t f = 0; f < n_policies; f++)
        check_instruction_sets(models, source, policies[f]);
    while (next_rules(rules, &turn))
        check_instruction_sets(models, source, rules);
    ck_assert_int_eq(turn, 2 * MMQI_N_FORMATS);
    mmqi_model_close(source);
    for (int k = 0; k < N_ISAS; k++)
        mmq_model_free(models[k]);
}
END_TEST

START_TEST(shards_hold_the_same_weights)
{
    struct mmqi_model *source = open_model(tiny_path()), *model, *reloaded;
    struct mmqi_choice *choices = choose(source, "layered");
    struct mmqi_quantize_options options = {
        .choices = choices, .out_path = "out", .shard_bytes = 100000};

    ck_assert_msg(mmqi_quantize(&model, source, &options, NULL) == MMQ_OK, "%s", mmqi_message());
    ck_assert_int_eq(mmqi_os_kind_of("out/model.safetensors"), MMQI_OS_NOTHING);
    ck_assert_int_eq(mmqi_os_kind_of("out/model.safetensors.index.json"), MMQI_OS_FILE);
    reloaded = open_model("out");
    same_weights(model, reloaded);
    mmqi_free(choices);
    mmqi_model_close(reloaded);
    mmqi_model_close(model);
    mmqi_model_close(source);
}
END_TEST

START_TEST(what_is_kept_is_copied_byte_for_byte)
{
    static const char *const files[] = {"tokenizer.json",           "tokenizer_config.json",
                                        "chat_template.json",       "generation_config.json",
                                        "preprocessor_config.json", "processor_config.json"};
    struct mmqi_model *source = open_model(tiny_path()), *reloaded;

    quantize(source, "int8", "out", false);
    reloaded = open_model("out");
    for (size_t i = 0; i < mmqi_checkpoint_count(source->checkpoint); i++) {
        const struct mmqi_entry *was = mmqi_checkpoint_entry(source->checkpoint, i);
        const struct mmqi_entry *is = mmqi_checkpoint_find(reloaded->checkpoint, was->name);
        uint8_t *a, *b;

        ck_assert_msg(is != NULL, "no %s", was->name);
        if (is->dtype == MMQI_I8)
            continue;
        ck_assert_int_eq(is->dtype, was->dtype);
        ck_assert_int_eq(is->rank, was->rank);
        ck_assert_mem_eq(is->shape, was->shape, sizeof is->shape);
        a = malloc(was->bytes);
        b = malloc(was->bytes);
        ck_assert_int_eq(mmqi_checkpoint_read(source->checkpoint, was, 0, a, was->bytes), MMQ_OK);
        ck_assert_int_eq(mmqi_checkpoint_read(reloaded->checkpoint, is, 0, b, was->bytes), MMQ_OK);
        ck_assert_mem_eq(a, b, was->bytes);
        free(a);
        free(b);
    }
    for (size_t i = 0; i < sizeof files / sizeof *files; i++)
        same_files(support_text("%s/%s", tiny_path(), files[i]), support_text("out/%s", files[i]));
    mmqi_model_close(reloaded);
    mmqi_model_close(source);
}
END_TEST

START_TEST(every_spelling_of_a_tokenizer_comes_along)
{
    static const char *const files[] = {
        "tekken.json", "tokenizer.model", "qwen.tiktoken",           "added_tokens.json",
        "vocab.json",  "merges.txt",      "special_tokens_map.json", "chat_template.jinja"};
    struct mmqi_model *source;

    ck_assert_int_eq(system(support_text("cp -r '%s' source && chmod -R u+w source", tiny_path())),
                     0);
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        FILE *file = fopen(support_text("source/%s", files[i]), "w");

        fprintf(file, "{\"%zu\":\"\"}", i);
        fclose(file);
    }
    source = open_model("source");
    quantize(source, "int8", "out", false);
    for (size_t i = 0; i < sizeof files / sizeof *files; i++)
        same_files(support_text("source/%s", files[i]), support_text("out/%s", files[i]));
    mmqi_model_close(source);
}
END_TEST

/* ---- sources that are quantized already ---- */

START_TEST(a_source_in_another_format_is_refused_and_one_in_the_same_is_copied)
{
    struct mmqi_model *source = open_model(tiny_path()), *nf4, *again;
    struct mmqi_choice *choices;

    quantize(source, "nf4", "nf4", false);
    nf4 = open_model("nf4");
    ck_assert_int_eq(mmqi_policy_apply(&choices, nf4, "int8", MMQI_METHOD_RTN),
                     MMQ_ERR_UNSUPPORTED);
    ck_assert_ptr_null(choices);
    ck_assert_ptr_nonnull(strstr(mmqi_message(), "already nf4"));
    again = quantize(nf4, "nf4", "again", true);
    same_weights(nf4, again);
    same_files("nf4/model.safetensors", "again/model.safetensors");
    same_files("nf4/config.json", "again/config.json");
    mmqi_model_close(again);
    mmqi_model_close(nf4);
    mmqi_model_close(source);
}
END_TEST

START_TEST(a_source_quantized_in_memory_can_be_taken_further)
{
    struct mmqi_model *source = open_model(tiny_path());
    struct mmqi_model *vision = quantize(source, "vision.* = nf4", NULL, true), *all, *once;

    all = quantize(vision, "projector.* = int8; language.layers.*.mlp.* = int8", "out", true);
    mmqi_model_close(vision);
    once = quantize(source, "layered", "once", true);
    same_weights(all, once);
    same_files("out/model.safetensors", "once/model.safetensors");
    same_files("out/config.json", "once/config.json");
    mmqi_model_close(once);
    mmqi_model_close(all);
    mmqi_model_close(source);
}
END_TEST

/* ---- the report ---- */

START_TEST(the_report_tells_every_weight_and_the_peak)
{
    struct mmqi_model *source = open_model(tiny_path()), *out;
    struct mmqi_choice *choices = choose(source, "nf4");
    struct mmqi_quantize_options options = {
        .choices = choices, .out_path = "out", .chunk_bytes = 65536};
    struct mmqi_report *report;
    uint64_t blocks = 0;
    json_t *root, *item;
    size_t i, size;

    ck_assert_int_eq(mmqi_quantize(&out, source, &options, &report), MMQ_OK);
    for (int32_t w = 0; w < out->n_weights; w++)
        if (out->weights[w].role == MMQI_ROLE_LINEAR)
            blocks += out->weights[w].layout.bytes;
    free(read_file("out/model.safetensors", &size));
    ck_assert_uint_eq(report->memory_bytes, blocks);
    ck_assert_uint_eq(report->peak_bytes, blocks + 65536);
    ck_assert_uint_eq(report->file_bytes, size);
    root = json_loads(mmqi_report_json(report), JSON_REJECT_DUPLICATES, NULL);
    ck_assert_ptr_nonnull(root);
    json_array_foreach(json_object_get(root, "tensors"), i, item)
    {
        const char *name = json_string_value(json_object_get(item, "name"));
        const char *reason = json_string_value(json_object_get(item, "reason"));
        const struct mmqi_weight *w = &source->weights[mmqi_model_find(source, name)];
        bool linear = w->role == MMQI_ROLE_LINEAR;

        ck_assert_str_eq(json_string_value(json_object_get(item, "format")),
                         linear ? "nf4" : "bf16");
        ck_assert_str_eq(json_string_value(json_object_get(item, "method")),
                         linear ? "rtn" : "none");
        ck_assert_msg(linear == (strcmp(reason, "nf4: every linear") == 0), "%s: %s", name, reason);
        ck_assert(linear || strncmp(reason, "kept: ", 6) == 0);
        ck_assert_int_eq(json_integer_value(json_object_get(item, "source_bytes")),
                         2 * w->rows * w->cols);
    }
    ck_assert_uint_eq(i, report->n_items);
    json_decref(root);
    mmqi_report_free(report);
    mmqi_free(choices);
    mmqi_model_close(out);
    mmqi_model_close(source);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("quantize");
    TCase *tests = tcase_create("quantize");
    SRunner *runner;
    int failed;

    tcase_add_checked_fixture(tests, scratch_enter, scratch_leave);
    tcase_set_timeout(tests, 60);
    tcase_add_test(tests, memory_and_a_reloaded_folder_hold_the_same_bytes);
    tcase_add_test(tests, memory_and_a_reloaded_folder_hold_the_same_bytes_of_the_reference_model);
    tcase_add_test(tests, every_chosen_weight_is_what_its_format_packs_and_nothing_else_is_changed);
    tcase_add_test(tests, rows_read_from_a_packed_folder_are_what_its_bytes_unpack_to);
    tcase_add_test(tests, the_files_do_not_depend_on_chunks_or_threads);
    tcase_add_test(tests, the_files_do_not_depend_on_instruction_sets);
    tcase_add_test(tests, shards_hold_the_same_weights);
    tcase_add_test(tests, what_is_kept_is_copied_byte_for_byte);
    tcase_add_test(tests, every_spelling_of_a_tokenizer_comes_along);
    tcase_add_test(tests, a_source_in_another_format_is_refused_and_one_in_the_same_is_copied);
    tcase_add_test(tests, a_source_quantized_in_memory_can_be_taken_further);
    tcase_add_test(tests, the_report_tells_every_weight_and_the_peak);
    suite_add_tcase(suite, tests);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
