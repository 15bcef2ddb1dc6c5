/*
 * The llava family against transformers: the shared golden cases, segment by
 * segment through the graphs alone; and what the model promises of its files.
 */
#include <check.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/mem.h"
#include "core/status.h"
#include "core/thread.h"
#include "io/safetensors.h"
#include "model/family.h"
#include "model/model.h"
#include "support.h"

enum { N_STEPS = 16 };

static const double tolerance = 2e-4;

#define OK(call) ck_assert_msg((call) == MMQ_OK, "%s: %s", #call, mmqi_message())

/* ---- the reference ---- */

struct golden {
    struct mmqi_store *store;
    struct mmqi_file *file;
    struct mmqi_safetensors tensors;
    json_t *root;
    int n_compared;
    double worst;
};

static void golden_open(struct golden *g, const char *name)
{
    const char *path;
    json_error_t error;
    bool exists;

    memset(g, 0, sizeof *g);
    path = shared_path(support_text("golden/%s/golden.json", name));
    ck_assert_ptr_nonnull(path);
    g->root = json_load_file(path, 0, &error);
    ck_assert_msg(g->root != NULL, "%s", error.text);
    path = shared_path(support_text("golden/%s", name));
    OK(mmqi_store_open_folder(&g->store, path));
    OK(mmqi_file_exists(&exists, g->store, "golden.safetensors"));
    if (!exists) {
        mmqi_store_release(g->store);
        OK(mmqi_store_open_folder(&g->store, shared_path("golden/llava")));
    }
    OK(mmqi_file_open(&g->file, g->store, "golden.safetensors"));
    OK(mmqi_safetensors_parse(&g->tensors, g->file));
}

static void golden_close(struct golden *g)
{
    mmqi_safetensors_clear(&g->tensors);
    mmqi_file_close(g->file);
    mmqi_store_release(g->store);
    json_decref(g->root);
}

/* The f32 tensor of this name, to be freed; NULL where there is none. */
static float *golden_tensor(const struct golden *g, const char *name, int64_t *n)
{
    for (size_t i = 0; i < g->tensors.n_entries; i++) {
        const struct mmqi_entry *entry = &g->tensors.entries[i];
        float *data;

        if (strcmp(entry->name, name) != 0)
            continue;
        data = malloc((size_t)entry->bytes);
        ck_assert_ptr_nonnull(data);
        OK(mmqi_file_read_at(g->file, entry->offset, data, (size_t)entry->bytes));
        *n = (int64_t)entry->bytes / 4;
        return data;
    }
    return NULL;
}

static void compare(struct golden *g, const char *name, const float *values, int64_t n)
{
    int64_t wanted_n = 0;
    float *wanted = golden_tensor(g, name, &wanted_n);

    ck_assert_msg(wanted != NULL, "no tensor %s", name);
    ck_assert_msg(n <= wanted_n, "%s has %lld numbers", name, (long long)wanted_n);
    for (int64_t i = 0; i < n; i++) {
        double difference = fabs((double)values[i] - wanted[i]);

        ck_assert_msg(difference <= tolerance, "%s[%lld] is %.7g, not %.7g", name, (long long)i,
                      values[i], wanted[i]);
        if (difference > g->worst)
            g->worst = difference;
    }
    g->n_compared++;
    free(wanted);
}

/* ---- a model on the CPU, its graphs planned ---- */

struct rig {
    struct mmqi_store *store;
    struct mmqi_model *model;
    struct mmqi_view view; /* of any picture: all are resized to the same */
    struct mmqi_view_rows count;
    struct mmqi_pool *pool;
    struct mmqi_place place;
    struct mmqi_stream *stream;
    struct mmqi_plan *vision, *language;
    void *arena;
    float *image, *logits, *pages;
    struct mmqi_kv *kv;
    int32_t *index[MMQI_N_INDEX];
    struct mmqi_span *spans;
    int64_t n_slots, max_rows;
};

static void rig_memory(struct rig *r)
{
    const struct mmqi_spec *spec = &r->model->spec;
    int64_t kv_dim = (int64_t)spec->n_kv_heads * spec->head_dim, page = 2 * r->n_slots * kv_dim;
    uint64_t bytes = mmqi_plan_bytes(r->vision);

    if (mmqi_plan_bytes(r->language) > bytes)
        bytes = mmqi_plan_bytes(r->language);
    r->arena = aligned_alloc(64, bytes);
    memset(r->arena, 0xff, bytes); /* NaN: what is read was written */
    r->image = calloc((size_t)(spec->image_rows * spec->hidden), 4);
    r->logits = calloc((size_t)(r->max_rows * spec->vocab_size), 4);
    r->pages = calloc((size_t)(page * spec->n_layers), 4);
    r->kv = calloc((size_t)spec->n_layers, sizeof *r->kv);
    for (int32_t i = 0; i < spec->n_layers; i++)
        r->kv[i] = (struct mmqi_kv){r->pages + i * page, page,          r->n_slots, NULL,
                                    spec->n_kv_heads,    spec->head_dim};
    for (int i = 0; i < MMQI_N_INDEX; i++)
        r->index[i] = calloc((size_t)(r->max_rows + r->count.tower_rows), sizeof(int32_t));
    r->spans = calloc((size_t)(r->max_rows + r->count.tower_rows), sizeof *r->spans);
}

static void rig_open(struct rig *r, const char *folder, int64_t max_rows, int64_t n_slots)
{
    const int64_t none[MMQI_N_SYMBOLS] = {0};
    int64_t rows[MMQI_N_SYMBOLS] = {0, max_rows, max_rows, 0};
    struct mmqi_stream_options needs = {0};
    struct mmqi_device_options options = {0};
    struct mmqi_picture picture; /* of any size: all become the same */

    memset(r, 0, sizeof *r);
    r->max_rows = max_rows;
    r->n_slots = n_slots;
    OK(mmqi_store_open_folder(&r->store, folder));
    OK(mmqi_model_open(&r->model, r->store));
    OK(mmqi_model_measure(&picture, r->model, 40, 30));
    r->view = picture.views.view[0];
    mmqi_view_count(&r->count, &r->model->spec, &r->view);
    OK(mmqi_pool_create(&r->pool, 2));
    options.pool = r->pool;
    r->place.backend = &mmqi_cpu_backend;
    OK(mmqi_cpu_backend.open(&r->place.device, &options));
    OK(mmqi_model_place(r->model, &r->place, NULL, NULL));
    rows[MMQI_ROWS_IMAGE] = r->model->spec.image_rows;
    OK(mmqi_plan_create(&r->vision, r->model->vision, none));
    OK(mmqi_plan_create(&r->language, r->model->language, rows));
    mmqi_plan_needs(&needs, r->model->vision, r->vision);
    mmqi_plan_needs(&needs, r->model->language, r->language);
    OK(mmqi_cpu_backend.stream_open(r->place.device, &needs, &r->stream));
    rig_memory(r);
}

static void rig_close(struct rig *r)
{
    mmqi_cpu_backend.stream_close(r->stream);
    mmqi_plan_free(r->vision);
    mmqi_plan_free(r->language);
    mmqi_model_close(r->model);
    mmqi_store_release(r->store);
    mmqi_cpu_backend.close(r->place.device);
    mmqi_pool_free(r->pool);
    free(r->arena);
    free(r->image);
    free(r->logits);
    free(r->pages);
    free(r->kv);
    free(r->spans);
    for (int i = 0; i < MMQI_N_INDEX; i++)
        free(r->index[i]);
}

static struct mmqi_run rig_run(const struct rig *r)
{
    struct mmqi_run run = {0};

    run.arena = r->arena;
    run.bound[MMQI_BIND_IMAGE] = r->image;
    run.bound[MMQI_BIND_LOGITS] = r->logits;
    for (int i = 0; i < MMQI_N_INDEX; i++)
        run.index[i] = r->index[i];
    run.spans = r->spans;
    run.kv = r->kv;
    run.weights = r->model->placed[0].weights;
    run.rows[MMQI_ROWS_IMAGE] = r->model->spec.image_rows;
    run.picture_height = r->view.height;
    run.picture_width = r->view.width;
    return run;
}

/* The module of transformers whose output a segment's live-out is; NULL for none. */
static const char *module_of(const char *segment)
{
    static const char *const pairs[][2] = {
        {"vision.embed", "vision_tower.pre_layrnorm"},
        {"projector", "multi_modal_projector"},
        {"language.embed", "inputs_embeds"},
    };

    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++)
        if (strcmp(segment, pairs[i][0]) == 0)
            return pairs[i][1];
    if (strncmp(segment, "vision.blocks.", 14) == 0)
        return support_text("vision_tower.encoder.layers.%s", segment + 14);
    if (strncmp(segment, "language.layers.", 16) == 0)
        return support_text("language_model.layers.%s", segment + 16);
    return NULL;
}

static int32_t compare_segment(void *user, const struct mmqi_segment *segment,
                               const struct mmqi_mat *live_out)
{
    const char *module = module_of(segment->name);

    if (module)
        compare(user, support_text("p0.hidden.%s", module), live_out->data,
                live_out->rows * live_out->cols);
    return MMQ_OK;
}

static void run_vision(struct rig *r, struct golden *g, const char *pixels_name, bool hidden)
{
    int64_t rows = r->count.tower_rows, n;
    struct mmqi_run run = rig_run(r);
    float *pixels = golden_tensor(g, pixels_name, &n);

    ck_assert_int_ge(n, 3 * r->view.width * r->view.height);
    run.rows[MMQI_ROWS_IMAGE] = 0;
    run.bound[MMQI_BIND_PIXELS] = pixels;
    run.kv = NULL;
    for (int64_t i = 0; i < rows; i++) {
        r->index[MMQI_INDEX_SLOTS][i] = (int32_t)i;
        r->spans[i] = (struct mmqi_span){0, (int32_t)rows};
    }
    run.after = hidden ? compare_segment : NULL;
    run.after_user = g;
    OK(mmqi_cpu_backend.execute(r->stream, r->model->vision, r->vision, &run, 0,
                                mmqi_graph_n_segments(r->model->vision)));
    free(pixels);
}

/* Rows of the timeline from `begin`; logits of the last n_pick of them. Picture rows count on from
 * *image_row. */
static void run_language(struct rig *r, struct golden *g, const int32_t *ids, int64_t begin,
                         int64_t rows, int64_t n_pick, int32_t *image_row, bool hidden)
{
    struct mmqi_run run = rig_run(r);

    for (int64_t i = 0; i < rows; i++) {
        bool is_image = ids[i] == r->model->spec.image_token;

        r->index[MMQI_INDEX_IDS][i] = ids[i];
        r->index[MMQI_INDEX_POSITIONS][i] = r->index[MMQI_INDEX_SLOTS][i] = (int32_t)(begin + i);
        r->index[MMQI_INDEX_PLACE][i] = is_image ? (*image_row)++ : -1;
        r->spans[i] = (struct mmqi_span){0, (int32_t)(begin + i + 1)};
    }
    for (int64_t i = 0; i < n_pick; i++)
        r->index[MMQI_INDEX_PICK][i] = (int32_t)(rows - n_pick + i);
    run.rows[MMQI_ROWS_MAIN] = rows;
    run.rows[MMQI_ROWS_PICK] = n_pick;
    run.after = hidden ? compare_segment : NULL;
    run.after_user = g;
    OK(mmqi_cpu_backend.execute(r->stream, r->model->language, r->language, &run, 0,
                                mmqi_graph_n_segments(r->model->language)));
}

/* The final norm is no live-out, but nothing after it writes the arena. */
static void compare_norm(struct rig *r, struct golden *g, int64_t rows)
{
    const struct mmqi_graph *graph = r->model->language;
    const struct mmqi_node *node = mmqi_graph_node_at(graph, mmqi_graph_n_nodes(graph) - 2);

    ck_assert_int_eq(node->op, MMQI_OP_RMS_NORM);
    compare(g, "p0.hidden.language_model.norm",
            (float *)((char *)r->arena + mmqi_plan_offset(r->language, node->out)),
            rows * r->model->spec.hidden);
}

static int64_t read_ids(const json_t *prompt, const char *key, int32_t *ids, int64_t room)
{
    const json_t *list = json_object_get(prompt, key);
    int64_t n = (int64_t)json_array_size(list);

    ck_assert_int_gt(n, 0);
    ck_assert_int_le(n, room);
    for (int64_t i = 0; i < n; i++)
        ids[i] = (int32_t)json_integer_value(json_array_get(list, (size_t)i));
    return n;
}

/* The first prompt: every segment, the logits of all steps, the tokens they choose. */
static void check_case(const char *name)
{
    const char *folder = shared_path(support_text("golden/%s/model", name));
    int32_t ids[256], steps[N_STEPS], image_row = 0;
    struct golden g;
    struct rig r;
    int64_t n, vocab, n_logits = 0;
    float *wanted;

    if (!folder)
        SKIP("../shared/golden/%s is absent", name);
    rig_open(&r, folder, 128, 256); /* before `folder`, a buffer in turn, is used again */
    golden_open(&g, name);
    vocab = r.model->spec.vocab_size;
    n = read_ids(json_array_get(json_object_get(g.root, "prompts"), 0), "input_ids", ids, 128);
    read_ids(json_array_get(json_object_get(g.root, "prompts"), 0), "new_ids", steps, N_STEPS);
    run_vision(&r, &g, "p0.pixel_values", true);
    compare(&g, "p0.vision_out", r.image, (int64_t)r.model->spec.image_rows * r.model->spec.hidden);
    run_language(&r, &g, ids, 0, n, n, &image_row, true);
    ck_assert_int_eq(image_row, r.model->spec.image_rows);
    compare_norm(&r, &g, n);
    compare(&g, "p0.logits", r.logits + (n - 1) * vocab, vocab);
    wanted = golden_tensor(&g, "p0.logits", &n_logits);
    ck_assert_int_eq(n_logits, N_STEPS * vocab);
    for (int i = 1; i < N_STEPS; i++) {
        run_language(&r, &g, &steps[i - 1], n + i - 1, 1, 1, &image_row, false);
        for (int64_t k = 0; k < vocab; k++) {
            ck_assert(fabs((double)r.logits[k] - wanted[i * vocab + k]) <= tolerance);
            ck_assert(k == steps[i] || r.logits[k] < r.logits[steps[i]]);
        }
    }
    printf("%s: %d tensors, greatest difference %.2e\n", name, g.n_compared, g.worst);
    ck_assert_int_ge(g.n_compared, 8);
    free(wanted);
    rig_close(&r);
    golden_close(&g);
}

START_TEST(every_segment_of_llava_is_as_transformers_computes_it)
{
    check_case("llava");
}
END_TEST

START_TEST(every_segment_of_a_wide_bf16_llava_is_as_transformers_computes_it)
{
    check_case("llava_wide");
}
END_TEST

START_TEST(every_segment_of_a_llava_saved_by_transformers_5_is_the_same)
{
    check_case("llava_v5");
}
END_TEST

START_TEST(the_second_picture_of_a_prompt_is_its_own)
{
    const char *folder = shared_path("golden/llava/model");
    struct golden g;
    struct rig r;
    int64_t n;
    float *wanted, *pixels, *rows;
    int64_t picture;

    if (!folder)
        SKIP("../shared/golden/llava is absent");
    rig_open(&r, folder, 8, 8);
    golden_open(&g, "llava");
    picture = 3 * (int64_t)r.view.width * r.view.height;
    wanted = golden_tensor(&g, "p1.vision_out", &n);
    pixels = golden_tensor(&g, "p1.pixel_values", &n);
    ck_assert_int_eq(n, 2 * picture);
    for (int i = 0; i < 2; i++) {
        struct mmqi_run run = rig_run(&r);
        int64_t size = (int64_t)r.model->spec.image_rows * r.model->spec.hidden;

        for (int32_t k = 0; k < r.count.tower_rows; k++) {
            r.index[MMQI_INDEX_SLOTS][k] = k;
            r.spans[k] = (struct mmqi_span){0, r.count.tower_rows};
        }
        run.rows[MMQI_ROWS_IMAGE] = 0;
        run.bound[MMQI_BIND_PIXELS] = pixels + i * picture;
        OK(mmqi_cpu_backend.execute(r.stream, r.model->vision, r.vision, &run, 0,
                                    mmqi_graph_n_segments(r.model->vision)));
        rows = wanted + i * size;
        for (int64_t k = 0; k < size; k++)
            ck_assert(fabs((double)r.image[k] - rows[k]) <= tolerance);
    }
    free(wanted);
    free(pixels);
    rig_close(&r);
    golden_close(&g);
}
END_TEST

START_TEST(chunks_of_a_prompt_change_no_bit)
{
    const char *folder = shared_path("golden/llava/model");
    int32_t ids[256], row = 0;
    struct golden g;
    struct rig r;
    int64_t n, vocab, done = 0;
    float *whole;

    if (!folder)
        SKIP("../shared/golden/llava is absent");
    rig_open(&r, folder, 128, 256);
    golden_open(&g, "llava");
    vocab = r.model->spec.vocab_size;
    whole = malloc((size_t)vocab * 4);
    n = read_ids(json_array_get(json_object_get(g.root, "prompts"), 0), "input_ids", ids, 128);
    run_vision(&r, &g, "p0.pixel_values", false);
    run_language(&r, &g, ids, 0, n, 1, &row, false);
    memcpy(whole, r.logits, (size_t)vocab * 4);
    for (row = 0; done < n; done += 7) { /* no logits but of the last */
        int64_t rows = n - done < 7 ? n - done : 7;

        run_language(&r, &g, ids + done, done, rows, done + rows == n, &row, false);
    }
    ck_assert_int_eq(memcmp(whole, r.logits, (size_t)vocab * 4), 0);
    free(whole);
    rig_close(&r);
    golden_close(&g);
}
END_TEST

/* ---- the model itself ---- */

START_TEST(weights_bear_canonical_names_and_the_unused_are_known)
{
    const char *folder = shared_path("golden/llava/model");
    struct mmqi_store *store;
    struct mmqi_model *model;
    int32_t w;

    if (!folder)
        SKIP("../shared/golden/llava is absent");
    OK(mmqi_store_open_folder(&store, folder));
    OK(mmqi_model_open(&model, store));
    mmqi_store_release(store); /* the model keeps it */
    ck_assert_str_eq(model->family->name, "llava");
    w = mmqi_model_find(model, "language.layers.2.attn.k");
    ck_assert_int_ge(w, 0);
    ck_assert_int_eq(model->weights[w].role, MMQI_ROLE_LINEAR);
    ck_assert_int_eq(model->weights[w].rows, 32);
    ck_assert_int_eq(model->weights[w].cols, 96);
    ck_assert_str_eq(model->weights[w].entry[0]->name,
                     "language_model.model.layers.2.self_attn.k_proj.weight");
    w = mmqi_model_find(model, "vision.blocks.2.mlp.fc1");
    ck_assert_int_ge(w, 0);
    ck_assert_uint_eq(model->weights[w].flags, MMQI_WEIGHT_UNUSED);
    ck_assert_int_eq(model->weights[w].role, MMQI_ROLE_LINEAR);
    ck_assert_int_ge(mmqi_model_find(model, "vision.post_norm.bias"), 0);
    ck_assert_int_eq(mmqi_model_find(model, "vision.blocks.3.mlp.fc1"), -1);
    ck_assert_int_eq(mmqi_model_find(model, ""), -1);
    w = mmqi_model_find(model, "vision.patch");
    ck_assert_int_eq(model->weights[w].cols, 3 * 14 * 14);
    ck_assert_int_eq(model->weights[w].rank, 4);
    mmqi_model_close(model);
}
END_TEST

START_TEST(placing_takes_exactly_the_bytes_that_were_told)
{
    const char *folder = shared_path("golden/llava_wide/model");
    struct rig r;
    uint64_t bytes = 0;

    if (!folder)
        SKIP("../shared/golden/llava_wide is absent");
    rig_open(&r, folder, 8, 8);
    for (int32_t i = 0; i < r.model->n_weights; i++)
        bytes += r.model->weights[i].placed_bytes;
    ck_assert_uint_eq(bytes, mmqi_model_place_bytes(r.model, 0));
    ck_assert_uint_eq(bytes, r.model->placed_bytes);
    ck_assert_int_eq(mmqi_model_place(r.model, &r.place, NULL, NULL), MMQ_ERR_STATE);
    ck_assert_ptr_null(
        r.model->placed[0]
            .memory[mmqi_model_find(r.model, "vision.blocks.2.attn.q")]); /* never runs */
    rig_close(&r);
}
END_TEST

struct steps {
    uint64_t last, total;
    int n, fail_at;
};

static int32_t note_progress(void *user, uint64_t done, uint64_t total)
{
    struct steps *steps = user;

    ck_assert_uint_ge(done, steps->last);
    steps->last = done;
    steps->total = total;
    return ++steps->n == steps->fail_at ? MMQ_ERR_CALLBACK : MMQ_OK;
}

START_TEST(placing_reports_progress_and_can_be_stopped_and_tried_again)
{
    const char *folder = shared_path("golden/llava/model");
    struct rig r;
    struct steps steps = {.fail_at = 5};

    if (!folder)
        SKIP("../shared/golden/llava is absent");
    rig_open(&r, folder, 8, 8);
    mmqi_model_unplace(r.model);
    ck_assert_int_eq(mmqi_model_place(r.model, &r.place, note_progress, &steps), MMQ_ERR_CALLBACK);
    ck_assert_ptr_null(r.model->placed);
    ck_assert_uint_eq(r.model->placed_bytes, 0);
    steps = (struct steps){0};
    OK(mmqi_model_place(r.model, &r.place, note_progress, &steps));
    ck_assert_uint_eq(steps.last, steps.total);
    ck_assert_uint_eq(steps.total, mmqi_model_place_bytes(r.model, 0));
    rig_close(&r);
}
END_TEST

START_TEST(rows_read_in_pieces_are_those_read_whole)
{
    const char *folder = shared_path("golden/llava_wide/model");
    struct mmqi_store *store;
    struct mmqi_model *model;
    float *whole, *piece;
    int32_t w;

    if (!folder)
        SKIP("../shared/golden/llava_wide is absent");
    OK(mmqi_store_open_folder(&store, folder));
    OK(mmqi_model_open(&model, store));
    w = mmqi_model_find(model, "language.layers.1.mlp.up");
    whole = malloc(512 * 256 * 4);
    piece = malloc(512 * 256 * 4);
    OK(mmqi_model_read_rows(model, w, 0, 512, whole));
    for (int64_t begin = 0; begin < 512; begin += 37) {
        int64_t end = begin + 37 < 512 ? begin + 37 : 512;

        OK(mmqi_model_read_rows(model, w, begin, end, piece));
        ck_assert_int_eq(memcmp(piece, whole + begin * 256, (size_t)(end - begin) * 256 * 4), 0);
    }
    ck_assert_int_eq(mmqi_model_read_rows(model, w, 0, 513, piece), MMQ_ERR_INTERNAL);
    ck_assert_int_eq(mmqi_model_read_part(model, w, 0, 512 * 256 * 2 - 1, piece, 2),
                     MMQ_ERR_INTERNAL);
    ck_assert_int_eq(mmqi_model_read_part(model, w, 1, 0, piece, 0), MMQ_ERR_INTERNAL);
    free(whole);
    free(piece);
    mmqi_model_close(model);
    mmqi_store_release(store);
}
END_TEST

START_TEST(a_clone_outlives_its_source)
{
    const char *folder = shared_path("golden/llava/model");
    struct mmqi_store *store;
    struct mmqi_model *model, *clone;
    float norm[96];

    if (!folder)
        SKIP("../shared/golden/llava is absent");
    OK(mmqi_store_open_folder(&store, folder));
    OK(mmqi_model_open(&model, store));
    OK(mmqi_model_clone(&clone, model));
    ck_assert_int_eq(clone->n_weights, model->n_weights);
    for (int32_t i = 0; i < model->n_weights; i++)
        ck_assert_str_eq(clone->weights[i].name, model->weights[i].name);
    ck_assert_ptr_eq(clone->language, model->language);
    mmqi_model_close(model);
    mmqi_store_release(store);
    OK(mmqi_model_read_rows(clone, mmqi_model_find(clone, "language.norm"), 0, 1, norm));
    ck_assert_str_eq(clone->spec.image_marker, "<image>");
    mmqi_model_close(clone);
}
END_TEST

START_TEST(settings_reach_the_spec)
{
    const char *folder = shared_path("golden/llava_v5/model");
    struct mmqi_store *store;
    struct mmqi_picture picture;
    struct mmqi_view_rows count;
    struct mmqi_model *model;

    if (!folder)
        SKIP("../shared/golden/llava_v5 is absent");
    OK(mmqi_store_open_folder(&store, folder));
    OK(mmqi_model_open(&model, store));
    ck_assert_int_eq(model->spec.image_token, 829);
    ck_assert_int_eq(model->spec.image_rows, 16); /* not the file's image_seq_length, 576 */
    OK(mmqi_model_measure(&picture, model, 31, 400));
    ck_assert_int_eq(picture.rows, 16);
    mmqi_view_count(&count, &model->spec, &picture.views.view[0]);
    ck_assert_int_eq(count.tower_rows, 17);
    ck_assert_int_eq(picture.views.n, 1);
    ck_assert_int_eq(picture.views.view[0].width, 56);
    ck_assert_int_eq(model->spec.n_eos, 1);
    ck_assert_int_eq(model->spec.eos[0], 2);
    ck_assert_int_eq(model->spec.bos, 1);
    ck_assert_int_eq(model->spec.pad, 830);
    ck_assert_int_eq(model->spec.n_kv_heads, 2);
    ck_assert_int_eq(model->spec.max_positions, 4096);
    ck_assert_int_eq(model->spec.recipe.crop_width, 56);
    ck_assert_ptr_nonnull(model->chat);
    mmqi_model_close(model);
    mmqi_store_release(store);
}
END_TEST

START_TEST(plans_of_fewer_rows_are_smaller)
{
    const char *folder = shared_path("golden/llava/model");
    const int64_t few[MMQI_N_SYMBOLS] = {0, 1, 1, 16}, many[MMQI_N_SYMBOLS] = {0, 64, 1, 16};
    struct mmqi_store *store;
    struct mmqi_model *model;
    struct mmqi_plan *small, *large;

    if (!folder)
        SKIP("../shared/golden/llava is absent");
    OK(mmqi_store_open_folder(&store, folder));
    OK(mmqi_model_open(&model, store));
    OK(mmqi_plan_create(&small, model->language, few));
    OK(mmqi_plan_create(&large, model->language, many));
    ck_assert_uint_lt(mmqi_plan_bytes(small), mmqi_plan_bytes(large));
    /* x beside norm (or the attention's rows), q, k and v at once: nothing more */
    ck_assert_uint_le(mmqi_plan_bytes(large), 64 * 4 * (96 + 96 + 112 + 112));
    mmqi_plan_free(small);
    mmqi_plan_free(large);
    mmqi_model_close(model);
    mmqi_store_release(store);
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("llava");
    TCase *c = tcase_create("golden");

    tcase_set_timeout(c, 120);
    tcase_add_test(c, every_segment_of_llava_is_as_transformers_computes_it);
    tcase_add_test(c, every_segment_of_a_wide_bf16_llava_is_as_transformers_computes_it);
    tcase_add_test(c, every_segment_of_a_llava_saved_by_transformers_5_is_the_same);
    tcase_add_test(c, the_second_picture_of_a_prompt_is_its_own);
    tcase_add_test(c, chunks_of_a_prompt_change_no_bit);
    suite_add_tcase(s, c);
    c = tcase_create("model");
    tcase_add_test(c, weights_bear_canonical_names_and_the_unused_are_known);
    tcase_add_test(c, placing_takes_exactly_the_bytes_that_were_told);
    tcase_add_test(c, placing_reports_progress_and_can_be_stopped_and_tried_again);
    tcase_add_test(c, rows_read_in_pieces_are_those_read_whole);
    tcase_add_test(c, a_clone_outlives_its_source);
    tcase_add_test(c, settings_reach_the_spec);
    tcase_add_test(c, plans_of_fewer_rows_are_smaller);
    suite_add_tcase(s, c);
    return s;
}

int main(void)
{
    SRunner *runner = srunner_create(suite());
    int failed;

    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? 1 : 0;
}
