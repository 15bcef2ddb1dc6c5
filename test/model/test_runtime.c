/*
 * The host's own parts, through the public API: its allocator, log, threads
 * and files, and the logits of every choice.
 */
#include <dirent.h>
#include <pthread.h>

#include "core/mem.h"
#include "memory_files.h"
#include "meter.h"
#include "model/tiny.h"
#include "scratch.h"

#define QUESTION "USER: <image>\nWhat is in the picture? ASSISTANT:"

/* ---- the host's memory ---- */

static mmq_status create_runtime(mmq_runtime **out, struct meter *memory)
{
    mmq_runtime_options options = {
        .struct_size = sizeof options,
        .alloc = meter_alloc,
        .free = meter_free,
        .memory_user = memory,
        .n_threads = 2,
    };

    return mmq_runtime_create(out, &options);
}

/* ---- a whole life ---- */

struct life {
    mmq_runtime *runtime;
    mmq_model *model, *quantized, *packed;
    mmq_session *session, *second;
    mmq_result *result;
    mmq_evaluation *evaluation;
    mmq_report *report;
    mmq_plan *plan;
    int32_t *ids;
    char *text, *chat;
    int n_calls; /* of the callbacks below */
};

/* In a callback the host's own allocations are its own, whatever the library is doing. */
static int32_t look_around(struct life *life)
{
    mmq_image *image;

    life->n_calls++;
    ck_assert_ptr_null(mmqi_mem_current());
    image = tiny_image(3);
    mmq_image_free(image);
    return 0;
}

static int32_t on_progress(void *user, uint64_t done, uint64_t total)
{
    ck_assert_uint_le(done, total);
    return look_around(user);
}

static int32_t on_text(void *user, const char *text, size_t size, const int32_t *ids, size_t n_ids)
{
    (void)text, (void)size, (void)ids, (void)n_ids;
    return look_around(user);
}

static int32_t on_logits(void *user, size_t index, const float *logits, size_t n_vocab)
{
    (void)index, (void)logits, (void)n_vocab;
    return look_around(user);
}

static mmq_status generate(mmq_result **out, mmq_session *session, const mmq_image *image,
                           struct life *life)
{
    const mmq_image *images[] = {image};
    mmq_prompt prompt = {
        .struct_size = sizeof prompt, .text = QUESTION, .images = images, .n_images = 1};
    mmq_generate_request request = {.struct_size = sizeof request,
                                    .prompt = &prompt,
                                    .max_new_tokens = 4,
                                    .ignore_eos = 1,
                                    .on_text = life ? on_text : NULL,
                                    .text_user = life,
                                    .on_logits = life ? on_logits : NULL,
                                    .logits_user = life};

    return mmq_generate(out, session, &request);
}

static mmq_status begin(struct life *l, mmq_load_options *load)
{
    mmq_memory memory = {.struct_size = sizeof memory};
    size_t n;
    mmq_status status;

    load->on_progress = on_progress;
    load->progress_user = l;
    load->runtime = l->runtime;
    status = mmq_load(&l->model, source_path("test/golden/llava_tiny/model"), load);
    if (status == MMQ_OK)
        status = mmq_estimate(&memory, l->model, NULL);
    if (status == MMQ_OK)
        status = mmq_tokenize(&l->ids, &n, l->model, "USER: words", SIZE_MAX, 1);
    if (status == MMQ_OK)
        status = mmq_detokenize(&l->text, &n, l->model, l->ids, n, 0);
    if (status == MMQ_OK)
        status = mmq_model_place(l->model);
    return status;
}

static mmq_status quantize(struct life *l)
{
    mmq_quantize_options options = {
        .struct_size = sizeof options,
        .out_path = "out",
        .on_progress = on_progress,
        .progress_user = l,
    };
    mmq_status status = mmq_plan_create(&l->plan, l->model, "layered");

    if (status != MMQ_OK)
        return status;
    options.plan = l->plan;
    return mmq_quantize_layerwise(&l->quantized, l->model, &options, &l->report);
}

/* Everything that a model can do, on the host's memory, up to the first failure. */
static mmq_status live(struct life *l, struct meter *memory, const mmq_image *image)
{
    static const int32_t targets[] = {5, 12, 19};
    mmq_load_options load = {.struct_size = sizeof load};
    mmq_part part = {.struct_size = sizeof part, .text = "What is it?"};
    const mmq_part *parts[] = {&part};
    mmq_message message = {sizeof message, "user", parts, 1};
    const mmq_message *messages[] = {&message};
    mmq_prompt prompt = {.struct_size = sizeof prompt, .messages = messages, .n_messages = 1};
    mmq_evaluate_request score = {.struct_size = sizeof score,
                                  .prompt = &prompt,
                                  .targets = targets,
                                  .n_targets = 3,
                                  .on_logits = on_logits,
                                  .logits_user = l};
    mmq_status status = create_runtime(&l->runtime, memory);
    size_t size;

    if (status == MMQ_OK)
        status = begin(l, &load);
    if (status == MMQ_OK)
        status = mmq_session_create(&l->session, l->model, NULL);
    if (status == MMQ_OK)
        status = generate(&l->result, l->session, image, l);
    if (status == MMQ_OK)
        status = mmq_evaluate(&l->evaluation, l->session, &score);
    if (status == MMQ_OK)
        status = mmq_render_chat(&l->chat, &size, l->model, &prompt);
    if (status == MMQ_OK)
        status = quantize(l);
    if (status == MMQ_OK)
        status = mmq_session_create(&l->second, l->quantized, NULL);
    load.quantize = "int8";
    if (status == MMQ_OK)
        status = mmq_load(&l->packed, source_path("test/golden/llava_tiny/model"), &load);
    if (status == MMQ_OK)
        status = mmq_model_place(l->packed);
    return status;
}

/* The runtime's handle goes first, what was made goes last. */
static void end(struct life *l)
{
    mmq_runtime_free(l->runtime);
    mmq_model_free(l->model);
    mmq_model_free(l->quantized);
    mmq_model_free(l->packed);
    mmq_session_free(l->session);
    mmq_session_free(l->second);
    mmq_ids_free(l->ids);
    mmq_text_free(l->text);
    mmq_text_free(l->chat);
    mmq_report_free(l->report);
    mmq_plan_free(l->plan);
    mmq_evaluation_free(l->evaluation);
    mmq_result_free(l->result);
}

START_TEST(every_allocation_of_a_life_is_the_hosts_and_all_come_back)
{
    struct meter memory = {.left = INT64_MAX}, outside = {.left = INT64_MAX};
    const struct mmqi_mem_hooks hooks = {meter_alloc, meter_free, &outside};
    mmq_image *image = tiny_image(1);
    struct life life = {0};
    mmq_status status;

    /* Whatever did not enter the runtime's allocator would take from the one around it. */
    mmqi_mem_enter(&hooks);
    status = live(&life, &memory, image);
    ck_assert_msg(status == MMQ_OK, "%s", mmq_last_error_message());
    ck_assert_ptr_eq(mmqi_mem_current(), &hooks);
    ck_assert_int_eq(outside.made, 0);
    ck_assert_int_gt(memory.made, 200);
    ck_assert_int_gt(life.n_calls, 10);
    ck_assert_str_ne(mmq_result_text(life.result), "");
    end(&life);
    mmqi_mem_enter(NULL);
    ck_assert_int_eq(meter_live(&memory), 0);
    mmq_image_free(image);
}
END_TEST

START_TEST(what_a_session_made_outlives_the_last_model_and_the_runtime)
{
    struct meter memory = {.left = INT64_MAX};
    mmq_load_options load = {.struct_size = sizeof load};
    mmq_image *image = tiny_image(1);
    mmq_session *session;
    mmq_result *result;
    mmq_model *model;
    mmq_runtime *runtime;
    size_t n;

    ASSERT_OK(create_runtime(&runtime, &memory));
    load.runtime = runtime;
    model = tiny_model(&load);
    mmq_runtime_free(runtime);
    ASSERT_OK(mmq_session_create(&session, model, NULL));
    ASSERT_OK(generate(&result, session, image, NULL));
    mmq_session_free(session);
    mmq_model_free(model);
    ck_assert_int_gt(meter_live(&memory), 0);
    ck_assert_ptr_nonnull(mmq_result_ids(result, &n));
    ck_assert_uint_eq(n, 4);
    mmq_result_free(result);
    ck_assert_int_eq(meter_live(&memory), 0);
    mmq_image_free(image);
}
END_TEST

/* test_nomem.c refuses every single one, step by step; here the whole way back is the point. */
START_TEST(a_refused_allocation_anywhere_in_a_life_is_a_status_and_leaves_nothing)
{
    mmq_image *image = tiny_image(1);
    mmq_status status = MMQ_ERR_NOMEM;
    int64_t n;

    for (n = 0; status != MMQ_OK; n += 1 + n / 10) {
        struct meter memory = {.left = n};
        struct life life = {0};

        status = live(&life, &memory, image);
        ck_assert_msg(status == MMQ_OK || status == MMQ_ERR_NOMEM, "%d blocks: %s: %s", (int)n,
                      mmq_status_name(status), mmq_last_error_message());
        end(&life);
        ck_assert_msg(meter_live(&memory) == 0, "%d blocks: %d are left", (int)n,
                      (int)meter_live(&memory));
        ck_assert_int_eq(system("rm -rf out"), 0);
    }
    ck_assert_int_gt(n, 200);
    mmq_image_free(image);
}
END_TEST

START_TEST(refuses_half_an_allocator_and_numbers_of_threads_that_cannot_be)
{
    struct meter memory = {.left = INT64_MAX};
    mmq_runtime_options options = {.struct_size = sizeof options, .alloc = meter_alloc};
    mmq_runtime *runtime = (mmq_runtime *)&options;
    mmq_load_options load = {.struct_size = sizeof load, .n_threads = 3};
    mmq_model *model;

    ASSERT_FAILS(MMQ_ERR_INVALID, "go together", mmq_runtime_create(&runtime, &options));
    ck_assert_ptr_null(runtime);
    options.alloc = NULL;
    options.n_threads = -1;
    ASSERT_FAILS(MMQ_ERR_INVALID, "threads", mmq_runtime_create(&runtime, &options));
    options.n_threads = 0;
    options.reserved = 1;
    ASSERT_FAILS(MMQ_ERR_INVALID, "reserved", mmq_runtime_create(&runtime, &options));
    ck_assert_int_eq(mmq_runtime_create(NULL, NULL), MMQ_ERR_INVALID);

    ASSERT_OK(create_runtime(&runtime, &memory));
    load.runtime = runtime;
    ASSERT_FAILS(MMQ_ERR_INVALID, "its runtime has 2",
                 mmq_load(&model, source_path("test/golden/llava_tiny/model"), &load));
    ck_assert_ptr_null(model);
    load.n_threads = 2;
    mmq_model_free(tiny_model(&load));
    mmq_runtime_free(runtime);
    ck_assert_int_eq(meter_live(&memory), 0);
    mmq_runtime_free(NULL);
}
END_TEST

START_TEST(a_runtime_of_all_defaults_changes_nothing)
{
    mmq_load_options load = {.struct_size = sizeof load};
    mmq_model_facts facts = {.struct_size = sizeof facts};
    mmq_runtime *runtime;
    mmq_model *models[2];

    ASSERT_OK(mmq_runtime_create(&runtime, NULL));
    load.runtime = runtime;
    models[0] = tiny_model(&load);
    models[1] = tiny_model(&load);
    mmq_runtime_free(runtime);
    for (int i = 0; i < 2; i++) {
        ASSERT_OK(mmq_model_place(models[i]));
        ASSERT_OK(mmq_model_info(&facts, models[i]));
        ck_assert_uint_gt(facts.placed_bytes, 0);
        mmq_model_free(models[i]);
    }
}
END_TEST

/* ---- the log ---- */

struct lines {
    char text[64][512];
    int32_t level[64];
    int n;
};

static void keep_line(void *user, int32_t level, const char *line)
{
    struct lines *lines = user;

    ck_assert_ptr_null(mmqi_mem_current());
    ck_assert_int_lt(lines->n, 64);
    snprintf(lines->text[lines->n], sizeof lines->text[0], "%s", line);
    lines->level[lines->n++] = level;
}

static void check_line(const struct lines *lines, int at, int32_t level, const char *text)
{
    ck_assert_int_lt(at, lines->n);
    ck_assert_msg(strstr(lines->text[at], text) != NULL, "line %d is '%s', not '%s'", at,
                  lines->text[at], text);
    ck_assert_ptr_null(strchr(lines->text[at], '\n'));
    ck_assert_int_eq(lines->level[at], level);
}

static mmq_model *logged_model(struct lines *lines, const char *path)
{
    mmq_runtime_options options = {
        .struct_size = sizeof options, .log = keep_line, .log_user = lines};
    mmq_load_options load = {.struct_size = sizeof load, .device = "cpu"};
    mmq_runtime *runtime;
    mmq_model *model;

    ASSERT_OK(mmq_runtime_create(&runtime, &options));
    load.runtime = runtime;
    ASSERT_OK(mmq_load(&model, path, &load));
    mmq_runtime_free(runtime);
    return model;
}

START_TEST(the_log_tells_each_step_in_one_line_and_no_prompt)
{
    static struct lines lines;
    mmq_model *model = logged_model(&lines, source_path("test/golden/llava_tiny/model"));
    mmq_quantize_options options = {
        .struct_size = sizeof options, .format = "int8", .out_path = "out"};
    mmq_image *image = tiny_image(1);
    mmq_session *session;
    mmq_result *result;

    check_line(&lines, 0, MMQ_LOG_INFO, "opened: llava");
    ASSERT_OK(mmq_session_create(&session, model, NULL));
    check_line(&lines, 1, MMQ_LOG_INFO, "placed: ");
    check_line(&lines, 2, MMQ_LOG_INFO, "session: a context of ");
    ASSERT_OK(generate(&result, session, image, NULL));
    ASSERT_OK(mmq_quantize_layerwise(NULL, model, &options, NULL));
    check_line(&lines, 3, MMQ_LOG_INFO, "quantized");
    ck_assert_ptr_nonnull(strstr(lines.text[3], "out"));
    for (int i = 0; i < lines.n; i++)
        ck_assert_ptr_null(strstr(lines.text[i], "What is in"));
    mmq_result_free(result);
    mmq_session_free(session);
    mmq_model_free(model);
    mmq_image_free(image);
}
END_TEST

struct replacing {
    mmq_model *model;
    int n_placed;
};

/* Calls the library at every line about a model that is placed. */
static void place_again(void *user, int32_t level, const char *line)
{
    struct replacing *replacing = user;

    (void)level;
    if (!strstr(line, "placed: "))
        return;
    replacing->n_placed++;
    ASSERT_OK(mmq_model_place(replacing->model));
}

START_TEST(the_log_may_call_the_library)
{
    struct replacing replacing = {0};
    mmq_runtime_options options = {
        .struct_size = sizeof options, .log = place_again, .log_user = &replacing};
    mmq_load_options load = {.struct_size = sizeof load};
    mmq_runtime *runtime;

    ASSERT_OK(mmq_runtime_create(&runtime, &options));
    load.runtime = runtime;
    replacing.model = tiny_model(&load);
    mmq_runtime_free(runtime);
    ASSERT_OK(mmq_model_place(replacing.model));
    ck_assert_int_eq(replacing.n_placed, 1);
    mmq_model_free(replacing.model);
}
END_TEST

START_TEST(the_log_warns_of_a_template_that_does_not_run)
{
    static struct lines lines;
    FILE *file;

    ck_assert_int_eq(
        system(support_text("cp -r '%s' model", source_path("test/golden/llava_tiny/model"))), 0);
    file = fopen("model/chat_template.jinja", "w");
    ck_assert_ptr_nonnull(file);
    fputs("{% include 'other' %}", file);
    fclose(file);
    mmq_model_free(logged_model(&lines, "model"));
    check_line(&lines, 1, MMQ_LOG_WARNING, "no chat template");
}
END_TEST

/* ---- the host's threads ---- */

typedef void (*body_fn)(void *arg, int64_t i, int32_t worker);

struct task {
    body_fn body;
    void *arg;
    int64_t i;
    int32_t worker;
};

struct host_threads {
    int64_t n_calls;
    int32_t n_threads;
};

static void *run_task(void *arg)
{
    const struct task *task = arg;

    ck_assert_ptr_null(mmqi_mem_current());
    task->body(task->arg, task->i, task->worker);
    ck_assert_ptr_null(mmqi_mem_current());
    return NULL;
}

/* A thread for every i. */
static void on_threads(void *user, int64_t n, body_fn body, void *arg)
{
    struct host_threads *host = user;
    struct task tasks[8];
    pthread_t threads[8];

    host->n_calls++;
    ck_assert_ptr_null(mmqi_mem_current());
    ck_assert_int_le(n, host->n_threads);
    for (int64_t i = 0; i < n; i++) {
        tasks[i] = (struct task){body, arg, i, (int32_t)i};
        ck_assert_int_eq(pthread_create(&threads[i], NULL, run_task, &tasks[i]), 0);
    }
    for (int64_t i = 0; i < n; i++)
        pthread_join(threads[i], NULL);
}

static void backwards(void *user, int64_t n, body_fn body, void *arg)
{
    struct host_threads *host = user;

    host->n_calls++;
    for (int64_t i = n; i-- > 0;)
        body(arg, i, host->n_threads - 1);
}

/* What no host should do: leave bodies out, or name workers that there are not. */
static void none_at_all(void *user, int64_t n, body_fn body, void *arg)
{
    (void)n, (void)body, (void)arg;
    ((struct host_threads *)user)->n_calls++;
}

static void strange_workers(void *user, int64_t n, body_fn body, void *arg)
{
    ((struct host_threads *)user)->n_calls++;
    for (int64_t i = 0; i < n; i++)
        body(arg, i, i % 2 ? -1 : 1 << 20);
}

enum { N_ROWS = 4, N_VOCAB = 456 };

struct logits {
    float row[N_ROWS][N_VOCAB];
    size_t n;
};

static int32_t keep_logits(void *user, size_t index, const float *logits, size_t n_vocab)
{
    struct logits *kept = user;

    ck_assert_uint_eq(n_vocab, N_VOCAB);
    ck_assert_uint_eq(index, kept->n);
    ck_assert_uint_lt(index, N_ROWS);
    memcpy(kept->row[kept->n++], logits, n_vocab * sizeof *logits);
    return 0;
}

/* Four tokens after a question about the picture, and the logits that chose them. */
static void answer(struct logits *logits, int32_t ids[N_ROWS], mmq_model *model)
{
    mmq_image *image = tiny_image(1);
    const mmq_image *images[] = {image};
    mmq_prompt prompt = {
        .struct_size = sizeof prompt, .text = QUESTION, .images = images, .n_images = 1};
    mmq_generate_request request = {.struct_size = sizeof request,
                                    .prompt = &prompt,
                                    .max_new_tokens = N_ROWS,
                                    .ignore_eos = 1,
                                    .on_logits = keep_logits,
                                    .logits_user = logits};
    mmq_session *session;
    mmq_result *result;
    size_t n;

    logits->n = 0;
    ASSERT_OK(mmq_session_create(&session, model, NULL));
    ASSERT_OK(mmq_generate(&result, session, &request));
    ck_assert_uint_eq(logits->n, N_ROWS);
    memcpy(ids, mmq_result_ids(result, &n), N_ROWS * sizeof *ids);
    ck_assert_uint_eq(n, N_ROWS);
    mmq_result_free(result);
    mmq_session_free(session);
    mmq_image_free(image);
}

static void (*const hosts[])(void *, int64_t, body_fn, void *) = {
    on_threads,
    backwards,
    none_at_all,
    strange_workers,
};

START_TEST(the_hosts_threads_give_the_bits_of_the_pool)
{
    static struct logits wanted, got;
    struct host_threads host = {.n_threads = 3};
    mmq_runtime_options options = {.struct_size = sizeof options,
                                   .parallel_for = hosts[_i],
                                   .parallel_user = &host,
                                   .n_threads = host.n_threads};
    mmq_load_options load = {.struct_size = sizeof load, .n_threads = 1};
    int32_t wanted_ids[N_ROWS], ids[N_ROWS];
    mmq_model *model = tiny_model(&load);
    mmq_runtime *runtime;

    answer(&wanted, wanted_ids, model);
    mmq_model_free(model);
    ASSERT_OK(mmq_runtime_create(&runtime, &options));
    load.runtime = runtime;
    load.n_threads = 0;
    model = tiny_model(&load);
    answer(&got, ids, model);
    ck_assert_int_gt(host.n_calls, 0);
    ck_assert_int_eq(memcmp(wanted.row, got.row, sizeof wanted.row), 0);
    ck_assert_int_eq(memcmp(wanted_ids, ids, sizeof ids), 0);
    mmq_model_free(model);
    mmq_runtime_free(runtime);
}
END_TEST

START_TEST(packing_on_the_hosts_threads_gives_the_bytes_of_the_pool)
{
    struct host_threads host = {.n_threads = 3};
    mmq_runtime_options options = {.struct_size = sizeof options,
                                   .parallel_for = on_threads,
                                   .parallel_user = &host,
                                   .n_threads = host.n_threads};
    mmq_quantize_options quantize_options = {.struct_size = sizeof quantize_options,
                                             .format = "nf4"};
    mmq_load_options load = {.struct_size = sizeof load};
    mmq_model *model = tiny_model(NULL);
    mmq_runtime *runtime;

    quantize_options.out_path = "pool";
    ASSERT_OK(mmq_quantize_layerwise(NULL, model, &quantize_options, NULL));
    mmq_model_free(model);
    ASSERT_OK(mmq_runtime_create(&runtime, &options));
    load.runtime = runtime;
    model = tiny_model(&load);
    quantize_options.out_path = "host";
    ASSERT_OK(mmq_quantize_layerwise(NULL, model, &quantize_options, NULL));
    mmq_model_free(model);
    mmq_runtime_free(runtime);
    same_files("pool/model.safetensors", "host/model.safetensors");
}
END_TEST

/* ---- the host's files ---- */

struct flaky {
    struct memory_files files;
    int64_t left; /* calls until one fails */
    int32_t with;
};

static bool fails(struct flaky *flaky)
{
    ck_assert_ptr_null(mmqi_mem_current());
    return flaky->left-- == 0;
}

static int32_t flaky_open(void *user, const char *name, void **file)
{
    struct flaky *flaky = user;

    return fails(flaky) ? flaky->with : memory_open(&flaky->files, name, file);
}

static int32_t flaky_size(void *user, void *file, uint64_t *size)
{
    struct flaky *flaky = user;

    return fails(flaky) ? flaky->with : memory_size(&flaky->files, file, size);
}

static int32_t flaky_read_at(void *user, void *file, uint64_t offset, void *dst, size_t size)
{
    struct flaky *flaky = user;

    return fails(flaky) ? flaky->with : memory_read_at(&flaky->files, file, offset, dst, size);
}

static void flaky_close(void *user, void *file)
{
    memory_close(&((struct flaky *)user)->files, file);
}

static mmq_reader reader_of(struct flaky *flaky)
{
    return (mmq_reader){sizeof(mmq_reader), flaky_open,  flaky_size,
                        flaky_read_at,      flaky_close, flaky};
}

/* The tiny model's folder in memory; freed with free_files(). */
static struct flaky *tiny_files(void)
{
    struct flaky *flaky = calloc(1, sizeof *flaky);
    char path[4096];
    DIR *folder;
    size_t size;

    snprintf(path, sizeof path, "%s", source_path("test/golden/llava_tiny/model"));
    folder = opendir(path);
    ck_assert_ptr_nonnull(folder);
    for (struct dirent *item = readdir(folder); item; item = readdir(folder)) {
        if (item->d_name[0] == '.')
            continue;
        char *data = read_file(support_text("%s/%s", path, item->d_name), &size);

        memory_add(&flaky->files, item->d_name, data, size);
    }
    closedir(folder);
    flaky->left = INT64_MAX;
    return flaky;
}

static void free_files(struct flaky *flaky)
{
    for (int i = 0; i < flaky->files.n_files; i++)
        free((void *)flaky->files.files[i].data);
    free(flaky);
}

START_TEST(a_reader_over_memory_gives_what_the_folder_gives)
{
    static struct logits wanted, got;
    struct flaky *flaky = tiny_files();
    mmq_reader reader = reader_of(flaky);
    mmq_load_options load = {.struct_size = sizeof load, .reader = &reader};
    mmq_quantize_options options = {.struct_size = sizeof options, .format = "int8"};
    mmq_model *folder = tiny_model(NULL), *model;
    int32_t wanted_ids[N_ROWS], ids[N_ROWS];

    ASSERT_OK(mmq_load(&model, "a name for messages", &load));
    memset(&reader, 0, sizeof reader); /* it was copied */
    answer(&wanted, wanted_ids, folder);
    answer(&got, ids, model);
    ck_assert_int_eq(memcmp(wanted.row, got.row, sizeof wanted.row), 0);
    ck_assert_int_eq(memcmp(wanted_ids, ids, sizeof ids), 0);
    options.out_path = "from-folder";
    ASSERT_OK(mmq_quantize_layerwise(NULL, folder, &options, NULL));
    options.out_path = "from-reader";
    ASSERT_OK(mmq_quantize_layerwise(NULL, model, &options, NULL));
    same_files("from-folder/model.safetensors", "from-reader/model.safetensors");
    same_files("from-folder/config.json", "from-reader/config.json");
    ck_assert_int_eq(count_files("from-folder"), count_files("from-reader"));
    mmq_model_free(folder);
    mmq_model_free(model);
    ck_assert_int_eq(flaky->files.n_open, 0);
    free_files(flaky);
}
END_TEST

static const struct {
    int32_t with, status;
} failures
    [] =
        {
            {MMQ_ERR_IO, MMQ_ERR_IO},
            {MMQ_ERR_NOMEM, MMQ_ERR_NOMEM},
            {1, MMQ_ERR_CALLBACK},
            {-1, MMQ_ERR_CALLBACK},
            {MMQ_ERR_CONTEXT_FULL, MMQ_ERR_CALLBACK}, /* nothing that a file can say */
};

START_TEST(a_reader_that_fails_at_any_call_gives_a_status_and_every_file_is_closed)
{
    struct flaky *flaky = tiny_files();
    mmq_reader reader = reader_of(flaky);
    mmq_load_options load = {.struct_size = sizeof load, .reader = &reader};
    mmq_status status = MMQ_ERR_IO;
    int64_t n, n_loaded = 0;

    flaky->with = failures[_i].with;
    for (n = 0; status != MMQ_OK; n++) {
        mmq_model *model = NULL;

        flaky->left = n;
        status = mmq_load(&model, "assets", &load);
        if (status == MMQ_OK) {
            n_loaded += n_loaded == 0 ? n : 0;
            status = mmq_model_place(model);
            if (status != MMQ_OK)
                ASSERT_OK(mmq_model_place(model)); /* the reader is well again */
        } else {
            ck_assert_ptr_null(model);
        }
        if (status != MMQ_OK) {
            ck_assert_int_eq(status, failures[_i].status);
            ck_assert_ptr_nonnull(strstr(mmq_last_error_message(), "reader"));
        }
        mmq_model_free(model);
        ck_assert_int_eq(flaky->files.n_open, 0);
    }
    ck_assert_int_gt(n_loaded, 10);
    ck_assert_int_gt(n, n_loaded + 50);
    free_files(flaky);
}
END_TEST

START_TEST(a_reader_without_the_model_or_without_a_callback_is_refused)
{
    struct flaky *flaky = calloc(1, sizeof *flaky);
    mmq_reader reader = reader_of(flaky);
    mmq_load_options load = {.struct_size = sizeof load, .reader = &reader};
    mmq_model *model;

    flaky->left = INT64_MAX;
    ASSERT_FAILS(MMQ_ERR_NOT_FOUND, "assets/config.json", mmq_load(&model, "assets", &load));
    reader.read_at = NULL;
    ASSERT_FAILS(MMQ_ERR_INVALID, "read_at", mmq_load(&model, "assets", &load));
    reader.struct_size = 3;
    ASSERT_FAILS(MMQ_ERR_INVALID, "mmq_reader", mmq_load(&model, "assets", &load));
    free(flaky);
}
END_TEST

/* ---- the logits of every choice ---- */

START_TEST(logits_are_those_that_chose_each_token)
{
    static struct logits chosen, scored;
    mmq_image *image = tiny_image(1);
    const mmq_image *images[] = {image};
    mmq_prompt prompt = {
        .struct_size = sizeof prompt, .text = QUESTION, .images = images, .n_images = 1};
    mmq_evaluate_request request = {.struct_size = sizeof request,
                                    .prompt = &prompt,
                                    .n_targets = N_ROWS,
                                    .on_logits = keep_logits,
                                    .logits_user = &scored};
    mmq_model *model = tiny_model(NULL);
    mmq_evaluation *evaluation;
    mmq_session *session;
    int32_t ids[N_ROWS];
    int row, i, best;

    answer(&chosen, ids, model);
    for (row = 0; row < N_ROWS; row++) {
        for (i = 1, best = 0; i < N_VOCAB; i++)
            if (chosen.row[row][i] > chosen.row[row][best])
                best = i;
        ck_assert_int_eq(ids[row], best);
    }
    request.targets = ids;
    ASSERT_OK(mmq_session_create(&session, model, NULL));
    ASSERT_OK(mmq_evaluate(&evaluation, session, &request));
    ck_assert_int_eq(memcmp(chosen.row, scored.row, sizeof chosen.row), 0);
    mmq_evaluation_free(evaluation);
    mmq_session_free(session);
    mmq_model_free(model);
    mmq_image_free(image);
}
END_TEST

static int32_t stop_at_two(void *user, size_t index, const float *logits, size_t n_vocab)
{
    (void)logits, (void)n_vocab;
    ++*(int *)user;
    return index == 2;
}

START_TEST(a_logits_callback_can_end_the_answer_and_the_session_goes_on)
{
    mmq_prompt prompt = {.struct_size = sizeof prompt, .text = "USER: words ASSISTANT:"};
    int n_calls = 0;
    mmq_generate_request request = {.struct_size = sizeof request,
                                    .prompt = &prompt,
                                    .max_new_tokens = 8,
                                    .ignore_eos = 1,
                                    .on_logits = stop_at_two,
                                    .logits_user = &n_calls};
    mmq_model *model = tiny_model(NULL);
    mmq_session *session;
    mmq_result *result;
    int32_t length;

    ASSERT_OK(mmq_session_create(&session, model, NULL));
    ASSERT_FAILS(MMQ_ERR_CALLBACK, "logits", mmq_generate(&result, session, &request));
    ck_assert_ptr_null(result);
    ck_assert_int_eq(n_calls, 3);
    length = mmq_session_length(session);
    ck_assert_int_gt(length, 2);
    request.on_logits = NULL;
    ASSERT_OK(mmq_generate(&result, session, &request));
    mmq_result_free(result);
    mmq_session_free(session);
    mmq_model_free(model);
}
END_TEST

static void add_tests(TCase *tests)
{
    tcase_add_checked_fixture(tests, scratch_enter, scratch_leave);
    tcase_set_timeout(tests, 60);
    tcase_add_test(tests, every_allocation_of_a_life_is_the_hosts_and_all_come_back);
    tcase_add_test(tests, what_a_session_made_outlives_the_last_model_and_the_runtime);
    tcase_add_test(tests, a_refused_allocation_anywhere_in_a_life_is_a_status_and_leaves_nothing);
    tcase_add_test(tests, refuses_half_an_allocator_and_numbers_of_threads_that_cannot_be);
    tcase_add_test(tests, a_runtime_of_all_defaults_changes_nothing);
    tcase_add_test(tests, the_log_tells_each_step_in_one_line_and_no_prompt);
    tcase_add_test(tests, the_log_may_call_the_library);
    tcase_add_test(tests, the_log_warns_of_a_template_that_does_not_run);
    tcase_add_loop_test(tests, the_hosts_threads_give_the_bits_of_the_pool, 0,
                        sizeof hosts / sizeof hosts[0]);
    tcase_add_test(tests, packing_on_the_hosts_threads_gives_the_bytes_of_the_pool);
    tcase_add_test(tests, a_reader_over_memory_gives_what_the_folder_gives);
    tcase_add_loop_test(tests,
                        a_reader_that_fails_at_any_call_gives_a_status_and_every_file_is_closed, 0,
                        sizeof failures / sizeof failures[0]);
    tcase_add_test(tests, a_reader_without_the_model_or_without_a_callback_is_refused);
    tcase_add_test(tests, logits_are_those_that_chose_each_token);
    tcase_add_test(tests, a_logits_callback_can_end_the_answer_and_the_session_goes_on);
}

int main(void)
{
    Suite *suite = suite_create("runtime");
    TCase *tests = tcase_create("runtime");
    SRunner *runner = srunner_create(suite);
    int failed;

    add_tests(tests);
    suite_add_tcase(suite, tests);
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? 1 : 0;
}
