/*
 * Quantizing layer by layer: the same bytes in memory and on disk however the
 * work is cut, and a folder that is complete or not there.
 *
 * The source is the committed tiny LLaVA (bf16); where the shared data lies
 * beside the checkout, the f32 case of the reference too.
 */
#include <check.h>
#include <jansson.h>
#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "core/dtype.h"
#include "core/mem.h"
#include "core/os.h"
#include "core/status.h"
#include "quant/apply.h"
#include "scratch.h"

static const int32_t formats[] = {MMQI_FORMAT_INT8, MMQI_FORMAT_NF4};

static const char *tiny(void)
{
    return source_path("test/golden/llava_tiny/model");
}

static struct mmqi_model *open_model(const char *path)
{
    struct mmqi_store *store;
    struct mmqi_model *model;

    ck_assert_msg(mmqi_store_open_folder(&store, path) == MMQ_OK, "%s", mmqi_message());
    ck_assert_msg(mmqi_model_open(&model, store) == MMQ_OK, "%s", mmqi_message());
    mmqi_store_release(store);
    return model;
}

/* Quantize into `out_path` (NULL: none) and, if asked for, memory; it must succeed. */
static struct mmqi_model *quantize(const struct mmqi_model *source, int32_t format,
                                   const char *out_path, bool in_memory)
{
    struct mmqi_quantize_options options = {.format = format, .out_path = out_path};
    struct mmqi_model *model = NULL;

    ck_assert_msg(mmqi_quantize(in_memory ? &model : NULL, source, &options, NULL) == MMQ_OK, "%s",
                  mmqi_message());
    return model;
}

/* Canonical bytes of one part; to be freed. */
static uint8_t *part_bytes(const struct mmqi_model *model, int32_t weight, int32_t part)
{
    uint64_t size = model->weights[weight].layout.part[part].bytes;
    uint8_t *data = malloc(size + 1);

    ck_assert_msg(mmqi_model_read_part(model, weight, part, 0, data, size) == MMQ_OK, "%s",
                  mmqi_message());
    return data;
}

static void same_weights(const struct mmqi_model *a, const struct mmqi_model *b)
{
    ck_assert_int_eq(a->n_weights, b->n_weights);
    for (int32_t i = 0; i < a->n_weights; i++) {
        const struct mmqi_weight *x = &a->weights[i], *y = &b->weights[i];

        ck_assert_str_eq(x->name, y->name);
        ck_assert_msg(x->format == y->format, "%s: %d, %d", x->name, x->format, y->format);
        ck_assert_int_eq(x->layout.n_parts, y->layout.n_parts);
        ck_assert_int_eq(x->same_as, y->same_as);
        for (int32_t k = 0; k < x->layout.n_parts; k++) {
            uint8_t *p = part_bytes(a, i, k), *q = part_bytes(b, i, k);

            ck_assert_uint_eq(x->layout.part[k].bytes, y->layout.part[k].bytes);
            ck_assert_msg(memcmp(p, q, x->layout.part[k].bytes) == 0, "%s, part %d", x->name, k);
            free(p);
            free(q);
        }
    }
}

/* ---- results ---- */

static void check_memory_and_disk(const char *path)
{
    for (size_t f = 0; f < 2; f++) {
        struct mmqi_model *source = open_model(path), *reloaded;
        const char *folder = f == 0 ? "int8" : "nf4";
        struct mmqi_model *both = quantize(source, formats[f], folder, true);
        struct mmqi_model *memory = quantize(source, formats[f], NULL, true);

        quantize(source, formats[f], "alone", false);
        mmqi_model_close(source); /* the results live on without it */
        reloaded = open_model(folder);
        same_weights(both, reloaded);
        same_weights(memory, reloaded);
        same_files(support_text("%s/model.safetensors", folder), "alone/model.safetensors");
        same_files(support_text("%s/config.json", folder), "alone/config.json");
        mmqi_model_close(reloaded);
        mmqi_model_close(memory);
        mmqi_model_close(both);
        ck_assert_int_eq(system("rm -r alone int8 nf4 2>/dev/null; test ! -e alone"), 0);
    }
}

START_TEST(memory_and_a_reloaded_folder_hold_the_same_bytes)
{
    check_memory_and_disk(tiny());
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
START_TEST(every_linear_is_what_its_format_packs_and_nothing_else_is_changed)
{
    struct mmqi_model *source = open_model(tiny());

    for (size_t f = 0; f < 2; f++) {
        struct mmqi_model *model = quantize(source, formats[f], NULL, true);
        const struct mmqi_format_info *info = mmqi_format_info(formats[f]);
        int32_t n_linear = 0;

        for (int32_t i = 0; i < source->n_weights; i++) {
            const struct mmqi_weight *w = &source->weights[i], *q = &model->weights[i];
            uint8_t *block, *part[MMQI_MAX_PARTS];
            struct mmqi_layout layout;
            float *rows;

            if (w->role != MMQI_ROLE_LINEAR) {
                ck_assert_int_eq(q->format, w->format);
                ck_assert_ptr_eq(q->entry[0], w->entry[0]);
                continue;
            }
            n_linear++;
            ck_assert_int_eq(q->format, formats[f]);
            ck_assert_ptr_nonnull(q->block);
            ck_assert_ptr_null(q->entry[0]);
            ck_assert_int_eq(info->layout(&layout, w->rows, w->cols), MMQ_OK);
            rows = malloc((size_t)(w->rows * w->cols) * sizeof *rows);
            block = calloc(1, layout.bytes);
            for (int32_t k = 0; k < layout.n_parts; k++)
                part[k] = block + layout.part[k].offset;
            ck_assert_int_eq(mmqi_model_read_rows(source, i, 0, w->rows, rows), MMQ_OK);
            info->pack(part, rows, w->rows, w->cols, MMQI_METHOD_RTN);
            ck_assert_uint_eq(q->layout.bytes, layout.bytes);
            ck_assert_mem_eq(q->block, block, layout.bytes);
            free(block);
            free(rows);
        }
        ck_assert_int_ge(n_linear, 3 * 6 + 2 + 3 * 7 - 6);
        mmqi_model_close(model);
    }
    mmqi_model_close(source);
}
END_TEST

START_TEST(the_files_do_not_depend_on_chunks_or_threads)
{
    static const uint64_t chunks[] = {1, 777, 5000, 40000, UINT64_MAX};
    struct mmqi_model *source = open_model(tiny());

    for (size_t f = 0; f < 2; f++) {
        quantize(source, formats[f], "expected", false);
        for (size_t i = 0; i < sizeof chunks / sizeof *chunks; i++) {
            struct mmqi_quantize_options options = {
                .format = formats[f], .out_path = "out", .chunk_bytes = chunks[i]};
            struct mmqi_model *model = NULL;

            ck_assert_int_eq(mmqi_pool_create(&options.pool, 1 + (int32_t)i), MMQ_OK);
            ck_assert_msg(mmqi_quantize(i % 2 ? &model : NULL, source, &options, NULL) == MMQ_OK,
                          "%s", mmqi_message());
            same_files("out/model.safetensors", "expected/model.safetensors");
            mmqi_model_close(model);
            mmqi_pool_free(options.pool);
            ck_assert_int_eq(system("rm -r out"), 0);
        }
        ck_assert_int_eq(system("rm -r expected"), 0);
    }
    mmqi_model_close(source);
}
END_TEST

START_TEST(shards_hold_the_same_weights)
{
    struct mmqi_model *source = open_model(tiny()), *model, *reloaded;
    struct mmqi_quantize_options options = {
        .format = MMQI_FORMAT_NF4, .out_path = "out", .shard_bytes = 100000};

    ck_assert_msg(mmqi_quantize(&model, source, &options, NULL) == MMQ_OK, "%s", mmqi_message());
    ck_assert_int_eq(mmqi_os_kind_of("out/model.safetensors"), MMQI_OS_NOTHING);
    ck_assert_int_eq(mmqi_os_kind_of("out/model.safetensors.index.json"), MMQI_OS_FILE);
    reloaded = open_model("out");
    same_weights(model, reloaded);
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
    struct mmqi_model *source = open_model(tiny()), *reloaded;

    quantize(source, MMQI_FORMAT_INT8, "out", false);
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
        same_files(support_text("%s/%s", tiny(), files[i]), support_text("out/%s", files[i]));
    mmqi_model_close(reloaded);
    mmqi_model_close(source);
}
END_TEST

/* ---- sources that are quantized already ---- */

START_TEST(a_source_in_another_format_is_refused_and_one_in_the_same_is_copied)
{
    struct mmqi_model *source = open_model(tiny()), *nf4, *again;
    struct mmqi_quantize_options options = {.format = MMQI_FORMAT_INT8, .out_path = "wrong"};

    quantize(source, MMQI_FORMAT_NF4, "nf4", false);
    nf4 = open_model("nf4");
    ck_assert_int_eq(mmqi_quantize(NULL, nf4, &options, NULL), MMQ_ERR_UNSUPPORTED);
    ck_assert_ptr_nonnull(strstr(mmqi_message(), "already nf4"));
    again = quantize(nf4, MMQI_FORMAT_NF4, "again", true);
    same_weights(nf4, again);
    same_files("nf4/model.safetensors", "again/model.safetensors");
    same_files("nf4/config.json", "again/config.json");
    ck_assert_int_eq(count_files("."), 2);
    mmqi_model_close(again);
    mmqi_model_close(nf4);
    mmqi_model_close(source);
}
END_TEST

START_TEST(a_source_quantized_in_memory_is_refused)
{
    struct mmqi_model *source = open_model(tiny());
    struct mmqi_model *memory = quantize(source, MMQI_FORMAT_NF4, NULL, true), *out;
    struct mmqi_quantize_options options = {.format = MMQI_FORMAT_NF4, .out_path = "out"};

    ck_assert_int_eq(mmqi_quantize(NULL, memory, &options, NULL), MMQ_ERR_UNSUPPORTED);
    options.format = MMQI_FORMAT_INT8;
    options.out_path = NULL;
    ck_assert_int_eq(mmqi_quantize(&out, memory, &options, NULL), MMQ_ERR_UNSUPPORTED);
    ck_assert_ptr_null(out);
    ck_assert_int_eq(count_files("."), 0);
    mmqi_model_close(memory);
    mmqi_model_close(source);
}
END_TEST

/* ---- refusals and interruptions ---- */

START_TEST(options_that_ask_for_nothing_are_refused)
{
    struct mmqi_model *source = open_model(tiny()), *out = source;
    struct mmqi_report *report = NULL;
    struct mmqi_quantize_options options = {.format = MMQI_FORMAT_NF4};

    ck_assert_int_eq(mmqi_quantize(NULL, source, &options, &report), MMQ_ERR_INVALID);
    options.format = MMQI_FORMAT_BF16;
    ck_assert_int_eq(mmqi_quantize(&out, source, &options, &report), MMQ_ERR_INVALID);
    ck_assert_ptr_null(out);
    options.format = 99;
    ck_assert_int_eq(mmqi_quantize(&out, source, &options, &report), MMQ_ERR_INVALID);
    ck_assert_ptr_null(report);
    mmqi_model_close(source);
}
END_TEST

START_TEST(an_existing_destination_is_left_alone)
{
    struct mmqi_model *source = open_model(tiny()), *out;
    struct mmqi_quantize_options options = {.format = MMQI_FORMAT_NF4, .out_path = "out"};

    ck_assert_int_eq(system("mkdir out"), 0);
    ck_assert_int_eq(mmqi_quantize(&out, source, &options, NULL), MMQ_ERR_EXISTS);
    ck_assert_ptr_null(out);
    ck_assert_int_eq(count_files("out"), 0);
    ck_assert_int_eq(count_files("."), 1);
    ck_assert_int_eq(rmdir("out"), 0);
    ck_assert_int_eq(mmqi_quantize(&out, source, &options, NULL), MMQ_OK);
    mmqi_model_close(out);
    mmqi_model_close(source);
}
END_TEST

/* Quantizing into `path` fails so, says `text`, and leaves `n` names here. */
static void refuses_destination(const struct mmqi_model *source, const char *path, int32_t wanted,
                                const char *text, int n)
{
    struct mmqi_quantize_options options = {.format = MMQI_FORMAT_INT8, .out_path = path};
    struct mmqi_model *out;
    int32_t status = mmqi_quantize(&out, source, &options, NULL);

    ck_assert_msg(status == wanted, "'%.40s': %d: %s", path, (int)status, mmqi_message());
    ck_assert_msg(strstr(mmqi_message(), text) != NULL, "'%s' does not say %s", mmqi_message(),
                  text);
    ck_assert_ptr_null(out);
    ck_assert_int_eq(count_files("."), n);
}

START_TEST(a_destination_that_cannot_be_made_is_told_and_leaves_nothing)
{
    struct mmqi_model *source = open_model(tiny());
    char name[300];

    memset(name, 'n', sizeof name);
    name[sizeof name - 1] = '\0';
    refuses_destination(source, "", MMQ_ERR_INVALID, "''", 0);
    refuses_destination(source, "//", MMQ_ERR_INVALID, "'//'", 0);
    refuses_destination(source, "no/such/parent", MMQ_ERR_IO, "no/such/parent", 0);
    refuses_destination(source, "/proc/out", MMQ_ERR_IO, "/proc/out", 0);
    refuses_destination(source, name, MMQ_ERR_IO, "nnnn", 0);
    ck_assert_int_eq(system("touch file; ln -s loop loop"), 0);
    refuses_destination(source, "file/out", MMQ_ERR_IO, "file/out", 2);
    refuses_destination(source, "file", MMQ_ERR_EXISTS, "file", 2);
    refuses_destination(source, "loop", MMQ_ERR_IO, "loop", 2);
    mmqi_model_close(source);
}
END_TEST

START_TEST(a_device_that_is_full_is_told_and_leaves_nothing)
{
    static const rlim_t limits[] = {0, 20000, 200000};
    struct mmqi_model *source = open_model(tiny()), *out;
    struct rlimit before, limit;

    signal(SIGXFSZ, SIG_IGN); /* a host's choice: the write then fails */
    ck_assert_int_eq(getrlimit(RLIMIT_FSIZE, &before), 0);
    for (size_t i = 0; i < sizeof limits / sizeof *limits; i++) {
        limit = (struct rlimit){limits[i], before.rlim_max};
        ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
        refuses_destination(source, "out", MMQ_ERR_IO, "cannot write", 0);
        ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &before), 0);
    }
    out = quantize(source, MMQI_FORMAT_INT8, "out", true); /* once there is room again */
    mmqi_model_close(out);
    mmqi_model_close(source);
}
END_TEST

/* What a progress callback saw, and when it acts. */
struct watch {
    uint64_t done, total, at;
    int32_t calls, raise, result;
};

static int32_t watch_progress(void *user, uint64_t done, uint64_t total)
{
    struct watch *watch = user;

    ck_assert_uint_ge(done, watch->done);
    ck_assert(watch->calls == 0 || total == watch->total);
    watch->done = done;
    watch->total = total;
    watch->calls++;
    if (done < watch->at)
        return 0;
    watch->raise = 1;
    return watch->result;
}

START_TEST(progress_ends_at_the_total)
{
    struct mmqi_model *source = open_model(tiny()), *out;

    for (int folder = 0; folder < 2; folder++) {
        struct watch watch = {.at = UINT64_MAX};
        struct mmqi_quantize_options options = {.format = MMQI_FORMAT_INT8,
                                                .out_path = folder ? "out" : NULL,
                                                .chunk_bytes = 4000,
                                                .progress = watch_progress,
                                                .progress_user = &watch};

        ck_assert_int_eq(mmqi_quantize(&out, source, &options, NULL), MMQ_OK);
        mmqi_model_close(out);
        ck_assert_int_gt(watch.calls, 100);
        ck_assert_uint_eq(watch.done, watch.total);
    }
    mmqi_model_close(source);
}
END_TEST

static void interrupted(struct watch watch, bool by_flag, int32_t status)
{
    struct mmqi_model *source = open_model(tiny()), *out;
    struct mmqi_report *report;
    struct mmqi_quantize_options options = {.format = MMQI_FORMAT_NF4,
                                            .out_path = "out",
                                            .chunk_bytes = 8000,
                                            .progress = watch_progress,
                                            .progress_user = &watch,
                                            .cancel = by_flag ? &watch.raise : NULL};

    ck_assert_int_eq(mmqi_quantize(&out, source, &options, &report), status);
    ck_assert_ptr_null(out);
    ck_assert_ptr_null(report);
    ck_assert_uint_lt(watch.done, watch.total);
    ck_assert_int_eq(count_files("."), 0);
    options.progress = NULL;
    options.cancel = NULL;
    ck_assert_int_eq(mmqi_quantize(&out, source, &options, &report), MMQ_OK);
    mmqi_report_free(report);
    mmqi_model_close(out);
    mmqi_model_close(source);
}

START_TEST(a_raised_cancel_flag_ends_the_work_and_a_retry_succeeds)
{
    interrupted((struct watch){.at = 100000}, true, MMQ_ERR_CANCELLED);
}
END_TEST

START_TEST(a_callback_that_says_no_ends_the_work_and_a_retry_succeeds)
{
    interrupted((struct watch){.at = 300000, .result = 7}, false, MMQ_ERR_CALLBACK);
}
END_TEST

/* A copy of the tiny model with one bf16 number of a matrix replaced. */
static void plant(const char *name, int64_t index, uint16_t bits)
{
    struct mmqi_model *source = open_model(tiny());
    const struct mmqi_entry *entry = mmqi_checkpoint_find(source->checkpoint, name);
    char command[8192];
    FILE *file;

    ck_assert_ptr_nonnull(entry);
    ck_assert_int_eq(entry->dtype, MMQI_BF16);
    snprintf(command, sizeof command, "rm -rf bad && cp -r '%s' bad && chmod -R u+w bad", tiny());
    ck_assert_int_eq(system(command), 0);
    file = fopen("bad/model.safetensors", "r+b");
    ck_assert_ptr_nonnull(file);
    fseek(file, (long)(entry->offset + 2 * (uint64_t)index), SEEK_SET);
    ck_assert_uint_eq(fwrite(&bits, 2, 1, file), 1);
    fclose(file);
    mmqi_model_close(source);
}

START_TEST(a_weight_that_is_not_finite_is_refused_by_tensor_and_place)
{
    static const struct {
        uint16_t bits;
        const char *text;
    } cases[] = {{0x7fc0, "NaN at [95, 7]"}, {0xff80, "infinite at [95, 7]"}};
    static const char name[] = "language_model.model.layers.1.mlp.down_proj.weight";

    for (size_t i = 0; i < 2; i++)
        for (size_t f = 0; f < 2; f++) {
            struct mmqi_quantize_options options = {
                .format = formats[f], .out_path = "out", .chunk_bytes = 4000};
            struct mmqi_model *source, *out;

            plant(name, 95 * 112 + 7, cases[i].bits);
            source = open_model("bad");
            ck_assert_int_eq(mmqi_quantize(&out, source, &options, NULL), MMQ_ERR_FORMAT);
            ck_assert_msg(strstr(mmqi_message(), name) != NULL, "%s", mmqi_message());
            ck_assert_ptr_nonnull(strstr(mmqi_message(), "language.layers.1.mlp.down"));
            ck_assert_msg(strstr(mmqi_message(), cases[i].text) != NULL, "%s", mmqi_message());
            ck_assert_int_eq(count_files("."), 1);
            mmqi_model_close(source);
        }
}
END_TEST

/* ---- the report ---- */

START_TEST(the_report_tells_every_weight_and_the_peak)
{
    struct mmqi_model *source = open_model(tiny()), *out;
    struct mmqi_quantize_options options = {
        .format = MMQI_FORMAT_NF4, .out_path = "out", .chunk_bytes = 65536};
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
        ck_assert_msg(linear == (strcmp(reason, "policy") == 0), "%s: %s", name, reason);
        ck_assert_int_eq(json_integer_value(json_object_get(item, "source_bytes")),
                         2 * w->rows * w->cols);
    }
    ck_assert_uint_eq(i, report->n_items);
    json_decref(root);
    mmqi_report_free(report);
    mmqi_model_close(out);
    mmqi_model_close(source);
}
END_TEST

/* ---- memory that is refused ---- */

struct countdown {
    int64_t left; /* allocations until every one is refused */
};

static void *counted_alloc(void *user, size_t size)
{
    struct countdown *countdown = user;

    return countdown->left-- > 0 ? malloc(size) : NULL;
}

static void counted_free(void *user, void *block)
{
    (void)user;
    free(block);
}

START_TEST(memory_refused_at_any_moment_leaves_nothing_behind)
{
    struct mmqi_model *source = open_model(tiny());
    int32_t status = MMQ_ERR_NOMEM;

    for (int64_t n = 0; status == MMQ_ERR_NOMEM; n += n < 60 ? 1 : 41) {
        struct countdown countdown = {n};
        struct mmqi_mem_hooks hooks = {counted_alloc, counted_free, &countdown};
        const struct mmqi_mem_hooks *before = mmqi_mem_enter(&hooks);
        struct mmqi_quantize_options options = {.format = MMQI_FORMAT_NF4, .out_path = "out"};
        struct mmqi_model *out;
        struct mmqi_report *report;

        status = mmqi_quantize(&out, source, &options, &report);
        mmqi_mem_enter(before);
        ck_assert_msg(status == MMQ_OK || status == MMQ_ERR_NOMEM, "%s", mmqi_message());
        ck_assert_int_eq(count_files("."), status == MMQ_OK);
        ck_assert_int_lt(n, 100000);
        mmqi_report_free(report);
        mmqi_model_close(out);
    }
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
    tcase_add_test(tests, every_linear_is_what_its_format_packs_and_nothing_else_is_changed);
    tcase_add_test(tests, the_files_do_not_depend_on_chunks_or_threads);
    tcase_add_test(tests, shards_hold_the_same_weights);
    tcase_add_test(tests, what_is_kept_is_copied_byte_for_byte);
    tcase_add_test(tests, a_source_in_another_format_is_refused_and_one_in_the_same_is_copied);
    tcase_add_test(tests, a_source_quantized_in_memory_is_refused);
    tcase_add_test(tests, options_that_ask_for_nothing_are_refused);
    tcase_add_test(tests, an_existing_destination_is_left_alone);
    tcase_add_test(tests, a_destination_that_cannot_be_made_is_told_and_leaves_nothing);
    tcase_add_test(tests, a_device_that_is_full_is_told_and_leaves_nothing);
    tcase_add_test(tests, progress_ends_at_the_total);
    tcase_add_test(tests, a_raised_cancel_flag_ends_the_work_and_a_retry_succeeds);
    tcase_add_test(tests, a_callback_that_says_no_ends_the_work_and_a_retry_succeeds);
    tcase_add_test(tests, a_weight_that_is_not_finite_is_refused_by_tensor_and_place);
    tcase_add_test(tests, the_report_tells_every_weight_and_the_peak);
    tcase_add_test(tests, memory_refused_at_any_moment_leaves_nothing_behind);
    suite_add_tcase(suite, tests);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
