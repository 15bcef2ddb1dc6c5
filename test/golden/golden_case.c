/*
 * golden_case [--device NAME] DIR...: does libmmq compute what the family's own code computed?
 *
 * Each DIR has the form of a golden case: model/ (a checkpoint), golden.json and the tensors it
 * names. Sessions run in `exact` mode, on the CPU or the device named ("cuda:0"), whose library is
 * TEST_CUDA_LIBRARY where that is set. One line per case; exit status 0 only if every case holds. A
 * case that is absent, or of a family that the library does not run, does not hold.
 */
#include <jansson.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/api.h"
#include "core/mem.h"
#include "core/text.h"
#include "golden/hidden.h"
#include "io/safetensors.h"

/* What a case may differ by: absolute, against float32 references. */
static const double most_pixels = 1e-5;
static double most_vision = 2e-4, most_logits = 2e-4; /* of the CPU; main() knows other devices' */
static const char *device = "cpu";

enum { MOST_IMAGES = 16, MOST_MESSAGES = 32, MOST_PARTS = 128, MOST_IDS = 65536 };

struct golden {
    const char *dir;
    struct mmqi_settings *json;
    json_t *texts;            /* the same file, for strings that hold zero bytes */
    struct mmqi_store *store; /* of the folder that holds the tensors */
    struct mmqi_file *file;
    struct mmqi_safetensors tensors;
    mmq_model *model;
    mmq_session *session;
};

/* Sums over the prompts of a case. */
struct tally {
    int n_prompts, n_ids, n_texts; /* prompts; with equal ids; with equal texts */
    size_t greedy, n_greedy;       /* tokens equal, of how many */
    double pixels, vision, logits; /* greatest absolute differences */
    int n_pictures, n_logits;      /* pictures and rows of logits compared */
    double blocks[2];              /* of the blocks of tower and decoder, as `logits` */
    int n_blocks[2];
};

/* One prompt in the form that the public API takes. */
struct conversation {
    mmq_message messages[MOST_MESSAGES];
    const mmq_message *message_list[MOST_MESSAGES];
    mmq_part parts[MOST_PARTS];
    const mmq_part *part_list[MOST_PARTS];
    mmq_image *images[MOST_IMAGES];
    size_t n_messages, n_parts, n_images;
    mmq_prompt prompt;
};

/* Formatted text that lives for a few more calls. */
static const char *text_of(const char *format, ...)
{
    static char ring[8][4096];
    static unsigned next;
    char *text = ring[next++ % 8];
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof ring[0], format, args);
    va_end(args);
    return text;
}

static int complain(const struct golden *golden, const char *what)
{
    fprintf(stderr, "%s: %s: %s\n", golden->dir, what, mmq_last_error_message());
    return 1;
}

static const char *string_at(const struct golden *golden, const char *path)
{
    const char *value = NULL;

    mmqi_settings_string(golden->json, path, &value);
    return value;
}

/* The whole numbers of the array at `path`, to be freed; n 0 when it is absent. */
static int32_t *ids_at(const struct golden *golden, const char *path, size_t *n)
{
    int64_t count = mmqi_settings_count(golden->json, path), value, i;
    int32_t *ids = calloc(MOST_IDS, sizeof *ids);
    char base[256];

    snprintf(base, sizeof base, "%s", path); /* `path` may be one of text_of()'s */
    *n = count < 0 || count > MOST_IDS ? 0 : (size_t)count;
    for (i = 0; i < (int64_t)*n; i++) {
        value = -1;
        mmqi_settings_int(golden->json, text_of("%s.%lld", base, (long long)i), INT32_MIN,
                          INT32_MAX, &value);
        ids[i] = (int32_t)value;
    }
    return ids;
}

/* f32 of a golden tensor, to be freed; NULL when the case has none of that name. */
static float *tensor_at(const struct golden *golden, const char *name, size_t *n)
{
    const struct mmqi_entry *entry;
    float *data;
    size_t i;

    for (i = 0; i < golden->tensors.n_entries; i++) {
        entry = &golden->tensors.entries[i];
        if (strcmp(entry->name, name) != 0 || entry->dtype != 0 /* F32 */)
            continue;
        data = malloc((size_t)entry->bytes);
        *n = (size_t)entry->bytes / sizeof *data;
        if (mmqi_file_read_at(golden->file, entry->offset, data, (size_t)entry->bytes) == MMQ_OK)
            return data;
        free(data);
    }
    *n = 0;
    return NULL;
}

/* Raise *most to the greatest |a - b|; anything not finite is infinitely far. */
static void compare(double *most, const float *a, const float *b, size_t n)
{
    double d;
    size_t i;

    for (i = 0; i < n; i++) {
        d = fabs((double)a[i] - (double)b[i]);
        if (!(d <= *most))
            *most = isfinite(d) ? d : INFINITY;
    }
}

/* ---- opening a case ---- */

static int open_model(struct golden *golden)
{
    mmq_runtime_options runtime_options = {.struct_size = sizeof runtime_options,
                                           .cuda_library = getenv("TEST_CUDA_LIBRARY")};
    mmq_session_options session = {.struct_size = sizeof session, .mode = "exact"};
    mmq_load_options load = {.struct_size = sizeof load, .device = device};
    mmq_runtime *runtime = NULL;
    int32_t status = mmq_runtime_create(&runtime, &runtime_options);

    load.runtime = runtime;
    if (status == MMQ_OK)
        status = mmq_load(&golden->model, text_of("%s/model", golden->dir), &load);
    if (status == MMQ_OK)
        status = mmq_session_create(&golden->session, golden->model, &session);
    mmq_runtime_free(runtime);
    return status == MMQ_OK ? 0 : complain(golden, "model");
}

static int open_golden(struct golden *golden, const char *dir)
{
    struct mmqi_store *folder = NULL;
    char *text = NULL, *slash;
    const char *tensors;
    char path[4096];
    size_t size;
    int32_t status;

    golden->dir = dir;
    golden->texts = json_load_file(text_of("%s/golden.json", dir), JSON_ALLOW_NUL, NULL);
    status = mmqi_store_open_folder(&folder, dir);
    if (status == MMQ_OK)
        status = mmqi_file_read_all(&text, &size, folder, "golden.json", 1 << 24);
    if (status == MMQ_OK)
        status = mmqi_settings_parse(&golden->json, "golden.json", text, size);
    mmqi_store_release(folder);
    mmqi_free(text);
    if (status != MMQ_OK)
        return complain(golden, "golden.json");
    tensors = string_at(golden, "tensors");
    snprintf(path, sizeof path, "%s/%s", dir, tensors ? tensors : "golden.safetensors");
    slash = strrchr(path, '/');
    *slash = '\0';
    status = mmqi_store_open_folder(&golden->store, path);
    if (status == MMQ_OK)
        status = mmqi_file_open(&golden->file, golden->store, slash + 1);
    if (status == MMQ_OK)
        status = mmqi_safetensors_parse(&golden->tensors, golden->file);
    if (status != MMQ_OK)
        return complain(golden, "tensors");
    return open_model(golden);
}

static void close_golden(struct golden *golden)
{
    mmq_session_free(golden->session);
    mmq_model_free(golden->model);
    mmqi_safetensors_clear(&golden->tensors);
    mmqi_file_close(golden->file);
    mmqi_store_release(golden->store);
    mmqi_settings_free(golden->json);
    json_decref(golden->texts);
}

/* ---- one prompt ---- */

/* "photos/X" is a shared photograph unless the case brings one; other names lie in the case. */
static mmq_image *read_picture(const struct golden *golden, const char *name)
{
    const char *places[] = {"%s/%s", "%s/../../data/%s", "%s/../../data/photos/%s"};
    mmq_image *image = NULL;
    size_t i;

    for (i = 0; i < 3 && !image; i++)
        if (mmq_image_read_file(&image, text_of(places[i], golden->dir, name), NULL) == MMQ_OK)
            break;
    return image;
}

/* The video whose frames the part at `path` lists; NULL where one is not there. */
static mmq_image *read_video(const struct golden *golden, const char *path, int64_t n)
{
    mmq_video_options options = {.struct_size = sizeof options};
    mmq_image *frames[MOST_IMAGES] = {NULL}, *video = NULL;
    char at[128], file[256];
    int64_t i;

    if (n > MOST_IMAGES)
        return NULL;
    snprintf(at, sizeof at, "%s", path); /* `path` may be one of text_of()'s */
    mmqi_settings_number(golden->json, text_of("%s.fps", at), 0.0, 1e3, &options.fps);
    for (i = 0; i < n; i++) {
        snprintf(file, sizeof file, "%s.video.%lld", at, (long long)i);
        frames[i] = read_picture(golden, string_at(golden, file));
    }
    mmq_image_from_frames(&video, (const mmq_image *const *)frames, (size_t)n, &options);
    for (i = 0; i < n; i++)
        mmq_image_free(frames[i]);
    return video;
}

static int add_part(struct conversation *c, const struct golden *golden, const char *path)
{
    const char *picture = string_at(golden, text_of("%s.image", path));
    int64_t n_frames = mmqi_settings_count(golden->json, text_of("%s.video", path));
    mmq_part *part = &c->parts[c->n_parts];

    if (c->n_parts == MOST_PARTS || c->n_images == MOST_IMAGES)
        return complain(golden, "too many parts");
    *part = (mmq_part){.struct_size = sizeof *part};
    if (picture || n_frames > 0) {
        part->image = c->images[c->n_images] =
            picture ? read_picture(golden, picture) : read_video(golden, path, n_frames);
        if (!part->image)
            return complain(golden, picture ? picture : "video");
        c->n_images++;
    } else {
        part->text = string_at(golden, text_of("%s.text", path));
    }
    c->part_list[c->n_parts++] = part;
    return 0;
}

static int read_conversation(struct conversation *c, const struct golden *golden, int prompt)
{
    const char *base = text_of("prompts.%d.messages", prompt);
    char messages[64], content[128];
    int64_t n, n_parts, i, j;
    mmq_message *message;

    snprintf(messages, sizeof messages, "%s", base);
    n = mmqi_settings_count(golden->json, messages);
    for (i = 0; i < n && i < MOST_MESSAGES; i++) {
        message = &c->messages[i];
        snprintf(content, sizeof content, "%s.%lld.content", messages, (long long)i);
        *message = (mmq_message){sizeof *message, NULL, &c->part_list[c->n_parts], 0};
        message->role = string_at(golden, text_of("%s.%lld.role", messages, (long long)i));
        n_parts = mmqi_settings_count(golden->json, content);
        for (j = 0; j < n_parts; j++)
            if (add_part(c, golden, text_of("%s.%lld", content, (long long)j)) != 0)
                return 1;
        message->n_parts = (size_t)(n_parts < 0 ? 0 : n_parts);
        c->message_list[i] = message;
    }
    c->prompt = (mmq_prompt){.struct_size = sizeof c->prompt,
                             .messages = c->message_list,
                             .n_messages = (size_t)(n < 0 ? 0 : i)};
    return 0;
}

/* The words and the ids that the prompt becomes. */
static int check_ids(struct tally *tally, struct mmqi_tokens *tokens, const struct golden *golden,
                     const struct mmqi_prompt *taken, const char *at)
{
    const char *rendered = string_at(golden, text_of("%s.rendered", at));
    size_t n, size, i;
    /* Of a family whose marker is no token, the form with a number for each row. */
    int32_t *want = ids_at(golden, text_of("%s.input_ids_expanded", at), &n);
    char *text = NULL;
    int same;

    if (n == 0) {
        free(want);
        want = ids_at(golden, text_of("%s.input_ids", at), &n);
    }
    if (mmqi_prompt_text(&text, &size, golden->model->core, taken) != MMQ_OK ||
        mmqi_prompt_tokens(tokens, golden->model->core, taken) != MMQ_OK) {
        free(want);
        mmqi_free(text);
        return complain(golden, "prompt");
    }
    same = rendered && strcmp(rendered, text) == 0 && tokens->n == n && n > 0;
    for (i = 0; same && i < n; i++)
        same = tokens->data[i].id == want[i];
    tally->n_ids += same;
    free(want);
    mmqi_free(text);
    return 0;
}

/* Compare pixels [3, height, width] of a view, or [3, frames, height, width] of a video's, with
 * what the processor returned: the same, or, for a tower that takes patches in squares,
 * [patches, 3 * frames * patch * patch]. Returns how many numbers of the reference that are. */
static size_t compare_view(double *most, const float *made, const struct mmqi_view *view,
                           const struct mmqi_spec *spec, bool is_video, const float *want, size_t n)
{
    size_t width = (size_t)view->width, height = (size_t)view->height, seen = 0;
    int32_t patch = spec->patch, merge = spec->merge, frames = spec->recipe.frames;
    struct mmqi_view_rows count;

    mmqi_view_count(&count, spec, view);
    if (spec->recipe.kind != MMQI_RECIPE_SMART) {
        if (3 * width * height <= n)
            compare(most, made, want, 3 * width * height);
        return 3 * width * height;
    }
    for (int32_t i = 0; i < count.patches; i++) {
        int32_t square = i / (merge * merge), inside = i % (merge * merge);
        int32_t top = (square / count.across * merge + inside / merge) * patch;
        int32_t left = (square % count.across * merge + inside % merge) * patch;

        for (int32_t k = 0; k < 3 * frames * patch; k++, seen += (size_t)patch) {
            size_t plane = (size_t)(is_video ? k / patch : k / (frames * patch));
            size_t row = plane * height + (size_t)(top + k % patch);

            if (seen + (size_t)patch <= n)
                compare(most, made + row * width + (size_t)left, want + seen, (size_t)patch);
        }
    }
    return seen;
}

/* The same for all views of a picture or a video; *seen of the n numbers of `want` were compared
 * before. */
static int32_t compare_pixels(double *most, const struct mmqi_picture *picture,
                              const struct mmqi_spec *spec, const struct mmqi_image *image,
                              const float *want, size_t n, size_t *seen)
{
    const struct mmqi_views *views = &picture->views;
    float *values = NULL, *made;
    int32_t status = MMQ_OK;

    if (!image->frames)
        status = mmqi_preprocess(&values, views, &spec->recipe, image);
    made = values;
    for (int32_t k = 0; k < views->n && status == MMQ_OK && *seen <= n; k++) {
        const struct mmqi_view *view = &views->view[k];

        if (image->frames)
            status = mmqi_preprocess_group(&made, views, k, &spec->video_recipe, image);
        if (status == MMQ_OK)
            *seen += compare_view(most, made, view, spec, image->frames != NULL, want + *seen,
                                  n - *seen);
        if (image->frames)
            mmqi_free(made);
        else
            made += 3 * (size_t)view->width * (size_t)view->height;
    }
    mmqi_free(values);
    return status;
}

enum { MOST_WIDE = 8 };

/* What rows of pictures are compared with: part 0 is what takes the place of tokens, the others are
 * added after layers. */
struct rows_of_pictures {
    size_t n_parts, seen, n[MOST_WIDE]; /* numbers seen of each part, and that there are */
    float *part[MOST_WIDE];
};

static void read_vision(struct rows_of_pictures *want, const struct golden *golden, int prompt)
{
    const struct mmqi_spec *spec = &golden->model->core->spec;

    *want = (struct rows_of_pictures){.n_parts = (size_t)(spec->image_width / spec->hidden)};
    for (size_t k = 0; k < want->n_parts && k < MOST_WIDE; k++)
        want->part[k] = tensor_at(golden,
                                  k == 0 ? text_of("p%d.vision_out", prompt)
                                         : text_of("p%d.deepstack.%d", prompt, (int)k - 1),
                                  &want->n[k]);
}

/* Was all of the reference compared? */
static bool saw_all(const struct rows_of_pictures *want)
{
    for (size_t k = 0; k < want->n_parts; k++)
        if (k >= MOST_WIDE || want->n[k] != want->seen)
            return false;
    return true;
}

/* The rows of the picture that was encoded last, as they stand in the timeline. */
static int32_t compare_vision(struct tally *tally, struct mmqi_session *core,
                              struct rows_of_pictures *want)
{
    const struct mmqi_picture *picture = &core->picture;
    size_t width = (size_t)core->model->spec.image_width, part = width / want->n_parts;
    float *made = mmqi_alloc_array((size_t)picture->made_rows * width, sizeof *made);
    int32_t *order = NULL, status = made ? mmqi_session_read_image(core, made) : MMQ_ERR_NOMEM;

    if (status == MMQ_OK)
        status = mmqi_model_order(&order, core->model, picture);
    for (int32_t i = 0; i < picture->rows && status == MMQ_OK; i++, want->seen += part)
        for (size_t k = 0; k < MOST_WIDE && want->seen + part <= want->n[k]; k++)
            compare(&tally->vision, made + (size_t)(order ? order[i] : i) * width + k * part,
                    want->part[k] + want->seen, part);
    mmqi_free(order);
    mmqi_free(made);
    return status;
}

static int check_pictures(struct tally *tally, const struct golden *golden,
                          const struct mmqi_prompt *taken, struct mmqi_tokens *tokens, int prompt)
{
    struct mmqi_session *core = golden->session->core;
    const struct mmqi_spec *spec = &golden->model->core->spec;
    size_t n_pixels, i, seen_pixels = 0;
    struct rows_of_pictures vision;
    float *pixels = tensor_at(golden, text_of("p%d.pixel_values", prompt), &n_pixels);
    int32_t kept, status = MMQ_OK;
    struct mmqi_picture picture;

    read_vision(&vision, golden, prompt);
    mmqi_session_truncate(core, 0);
    status = mmqi_session_match(core, tokens, taken->images, taken->n_images, 0, &kept);
    for (i = 0; i < taken->n_images && status == MMQ_OK; i++) {
        status = mmqi_model_measure_image(&picture, golden->model->core, taken->images[i]);
        if (status == MMQ_OK)
            status = compare_pixels(&tally->pixels, &picture, spec, taken->images[i], pixels,
                                    n_pixels, &seen_pixels);
        if (status != MMQ_OK || seen_pixels > n_pixels)
            break;
        status = mmqi_session_encode(core, (int32_t)i, NULL);
        if (status == MMQ_OK)
            status = compare_vision(tally, core, &vision);
    }
    tally->n_pictures += (int)taken->n_images;
    if (seen_pixels != n_pixels) /* all of the reference must have been compared */
        tally->pixels = INFINITY;
    if (!saw_all(&vision))
        tally->vision = INFINITY;
    mmqi_session_truncate(core, 0);
    free(pixels);
    for (size_t k = 0; k < MOST_WIDE; k++)
        free(vision.part[k]);
    return status == MMQ_OK ? 0 : complain(golden, "picture");
}

/* Every block of the first prompt whose output the case holds. */
static int check_blocks(struct tally *tally, const struct golden *golden,
                        const struct mmqi_prompt *taken, const struct mmqi_tokens *tokens)
{
    struct hidden h = {.session = golden->session->core};
    int32_t status = MMQ_OK;
    char segment[64];
    float *want;
    bool is_decoder;
    size_t n, i;

    for (i = 0; i < golden->tensors.n_entries && status == MMQ_OK; i++) {
        if (!find_segment(segment, golden->tensors.entries[i].name) ||
            !has_segment(golden->model->core, segment))
            continue;
        h.segment = segment;
        h.n = 0;
        status = run_hidden(&h, tokens, taken);
        is_decoder = strncmp(segment, "language.", 9) == 0;
        want = tensor_at(golden, golden->tensors.entries[i].name, &n);
        compare(&tally->blocks[is_decoder], h.rows, want, h.n < n ? h.n : n);
        if (n != h.n || !want)
            tally->blocks[is_decoder] = INFINITY;
        tally->n_blocks[is_decoder]++;
        free(want);
    }
    free(h.rows);
    return status == MMQ_OK ? 0 : complain(golden, "blocks");
}

struct rows {
    const float *want;
    size_t n;
    struct tally *tally;
};

static int32_t compare_row(void *user, size_t index, const float *logits, size_t n_vocab)
{
    struct rows *rows = user;

    if ((index + 1) * n_vocab > rows->n)
        return 1;
    compare(&rows->tally->logits, logits, rows->want + index * n_vocab, n_vocab);
    rows->tally->n_logits++;
    return 0;
}

static int32_t append_text(void *user, const char *text, size_t size, const int32_t *ids,
                           size_t n_ids)
{
    (void)ids;
    (void)n_ids;
    mmqi_buf_append(user, text, size);
    return 0;
}

/* Is the string `key` of a prompt these bytes, zero bytes among them? */
static int text_is(const struct golden *golden, int prompt, const char *key, const char *text,
                   size_t size)
{
    json_t *list = json_object_get(golden->texts, "prompts");
    json_t *value = json_object_get(json_array_get(list, (size_t)prompt), key);

    return json_is_string(value) && json_string_length(value) == size &&
           memcmp(json_string_value(value), text, size) == 0;
}

static int check_answer(struct tally *tally, const struct golden *golden, struct conversation *c,
                        int prompt, const char *at)
{
    size_t n, n_made, size, i;
    int32_t *want = ids_at(golden, text_of("%s.new_ids", at), &n);
    struct rows rows = {.tally = tally};
    struct mmqi_buf answer = {0};
    float *logits = tensor_at(golden, text_of("p%d.logits", prompt), &rows.n);
    mmq_evaluate_request evaluate = {.struct_size = sizeof evaluate,
                                     .prompt = &c->prompt,
                                     .targets = want,
                                     .n_targets = n,
                                     .on_logits = compare_row,
                                     .logits_user = &rows};
    mmq_generate_request generate = {.struct_size = sizeof generate,
                                     .prompt = &c->prompt,
                                     .max_new_tokens = (int32_t)n,
                                     .ignore_eos = 1,
                                     .on_text = append_text,
                                     .text_user = &answer};
    mmq_evaluation *evaluation = NULL;
    mmq_result *result = NULL;
    const int32_t *made;
    char *decoded = NULL;
    int bad;

    rows.want = logits;
    bad = mmq_evaluate(&evaluation, golden->session, &evaluate) != MMQ_OK ||
          mmq_session_reset(golden->session) != MMQ_OK ||
          mmq_generate(&result, golden->session, &generate) != MMQ_OK ||
          mmq_detokenize(&decoded, &size, golden->model, want, n, 0) != MMQ_OK;
    if (bad) {
        complain(golden, "answer");
    } else {
        made = mmq_result_ids(result, &n_made);
        tally->n_greedy += n;
        for (i = 0; i < n && i < n_made; i++)
            tally->greedy += made[i] == want[i];
        tally->n_texts += text_is(golden, prompt, "text", decoded, size) &&
                          text_is(golden, prompt, "text_skip_special",
                                  answer.size ? answer.data : "", answer.size);
    }
    mmq_text_free(decoded);
    mmqi_buf_free(&answer);
    mmq_result_free(result);
    mmq_evaluation_free(evaluation);
    free(logits);
    free(want);
    return bad;
}

static int check_prompt(struct tally *tally, const struct golden *golden, int prompt)
{
    struct conversation *c = calloc(1, sizeof *c);
    char at[32];
    struct mmqi_prompt taken;
    struct mmqi_tokens tokens = {0};
    void *held = NULL;
    size_t i;
    int bad;

    snprintf(at, sizeof at, "prompts.%d", prompt);
    bad = read_conversation(c, golden, prompt);
    if (!bad && mmqi_take_prompt(&taken, &held, &c->prompt) != MMQ_OK)
        bad = complain(golden, "prompt");
    if (!bad)
        bad = check_ids(tally, &tokens, golden, &taken, at) ||
              check_pictures(tally, golden, &taken, &tokens, prompt) ||
              (prompt == 0 && check_blocks(tally, golden, &taken, &tokens)) ||
              check_answer(tally, golden, c, prompt, at);
    mmqi_tokens_free(&tokens);
    mmqi_free(held);
    for (i = 0; i < c->n_images; i++)
        mmq_image_free(c->images[i]);
    free(c);
    return bad;
}

/* ---- a case ---- */

static int check_case(const char *dir)
{
    struct golden golden = {0};
    struct tally tally = {0};
    int64_t n = 0, i;
    int bad, holds = 0;

    bad = open_golden(&golden, dir);
    if (!bad)
        n = mmqi_settings_count(golden.json, "prompts");
    for (i = 0; i < n && !bad; i++, tally.n_prompts++)
        bad = check_prompt(&tally, &golden, (int)i);
    if (!bad && n > 0)
        holds = tally.n_ids == n && tally.n_texts == n && tally.n_greedy > 0 &&
                tally.greedy == tally.n_greedy && tally.n_logits == (int)tally.n_greedy &&
                tally.n_pictures > 0 && tally.pixels <= most_pixels &&
                tally.vision <= most_vision && tally.logits <= most_logits &&
                tally.blocks[0] <= most_vision && tally.blocks[1] <= most_logits;
    printf("%s: ids %d/%d text %d/%d pixels %.1e tower %.1e (%d) vision %.1e layers %.1e (%d) "
           "logits %.1e greedy "
           "%zu/%zu: %s\n",
           dir, tally.n_ids, (int)n, tally.n_texts, (int)n, tally.pixels, tally.blocks[0],
           tally.n_blocks[0], tally.vision, tally.blocks[1], tally.n_blocks[1], tally.logits,
           tally.greedy, tally.n_greedy, holds ? "holds" : "DOES NOT HOLD");
    close_golden(&golden);
    return holds ? 0 : 1;
}

int main(int argc, char **argv)
{
    int failed = 0, first = 1, i;

    if (argc > 2 && strcmp(argv[1], "--device") == 0) {
        device = argv[2];
        first = 3;
        if (strcmp(device, "cpu") != 0)
            most_vision = most_logits = 1e-3;
    }
    if (argc <= first) {
        fprintf(stderr, "usage: golden_case [--device NAME] DIR...\n");
        return 2;
    }
    for (i = first; i < argc; i++)
        failed += check_case(argv[i]);
    printf("%d passed, %d failed\n", argc - first - failed, failed);
    return failed ? 1 : 0;
}
