/*
 * preproc_case DIR...: do pictures become what transformers' image processors make of them?
 *
 * DIR holds preproc.json (pictures, and for each processor its class, settings and results) and
 * samples.safetensors. For each picture the sizes, the grid, every stride-th value, and CRC-32 of
 * all values and of the bytes before rescaling must be equal. A processor that the library does not
 * run is SKIPPED by name. One line per processor; exit status 0 only if all that are run hold.
 */
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/mem.h"
#include "core/status.h"
#include "image/preprocess.h"
#include "io/safetensors.h"

static const double most_difference = 1e-5;

enum { MOST_FILE = 1 << 26 };

/* What one picture becomes by one processor, in the order of the reference. */
struct made {
    struct mmqi_views views;
    float *values;
    size_t n;
};

struct vectors {
    const char *dir;
    json_t *index;
    struct mmqi_store *store;
    struct mmqi_file *file;
    struct mmqi_safetensors samples;
};

/* Over the pictures of one processor. */
struct tally {
    int n, n_sizes, n_values, n_bytes; /* pictures; with equal sizes, CRC of values, of bytes */
    double difference;
};

static int complain(const char *family, const char *picture, const char *what)
{
    fprintf(stderr, "%s/%s: %s\n", family, picture, what);
    return 1;
}

static uint32_t crc32_of(const void *data, size_t size)
{
    const uint8_t *bytes = data;
    uint32_t table[256], crc = ~UINT32_C(0);

    for (uint32_t i = 0; i < 256; i++) {
        table[i] = i;
        for (int bit = 0; bit < 8; bit++)
            table[i] = table[i] >> 1 ^ (table[i] & 1 ? UINT32_C(0xEDB88320) : 0);
    }
    for (size_t i = 0; i < size; i++)
        crc = crc >> 8 ^ table[(crc ^ bytes[i]) & 255];
    return ~crc;
}

static bool is_crc(json_t *result, const char *key, const void *data, size_t size)
{
    const char *text = json_string_value(json_object_get(result, key));

    return text && crc32_of(data, size) == (uint32_t)strtoul(text, NULL, 16);
}

/* ---- the order of the reference ---- */

/* Qwen's: patches of equal frames, by squares of merge x merge. */
static float *cut_patches(const float *values, const struct mmqi_view *view,
                          const struct mmqi_recipe *recipe, size_t *n)
{
    int32_t side = recipe->patch, merge = recipe->merge, frames = recipe->frames;
    int32_t across = view->width / side, patches = across * (view->height / side);
    float *result = malloc(*n * (size_t)frames * sizeof *result), *to = result;

    for (int32_t i = 0; result && i < patches; i++) {
        int32_t square = i / (merge * merge), inside = i % (merge * merge);
        int32_t y = square / (across / merge) * merge + inside / merge;
        int32_t x = square % (across / merge) * merge + inside % merge;

        for (int32_t line = 0; line < 3 * frames * side; line++, to += side) {
            size_t row = (size_t)(line / (frames * side)) * (size_t)view->height +
                         (size_t)(y * side + line % side);

            memcpy(to, values + row * (size_t)view->width + (size_t)(x * side),
                   (size_t)side * sizeof *to);
        }
    }
    *n *= (size_t)frames;
    return result;
}

static int32_t make(struct made *made, const struct mmqi_recipe *recipe,
                    const struct mmqi_image *image)
{
    float *values;
    int32_t status = mmqi_preprocess_views(&made->views, recipe, image->width, image->height);

    made->values = NULL;
    if (status == MMQ_OK)
        status = mmqi_preprocess(&values, &made->views, recipe, image);
    if (status != MMQ_OK)
        return status;
    made->n = 3 * mmqi_views_pixels(&made->views);
    if (recipe->kind == MMQI_RECIPE_SMART) {
        made->values = cut_patches(values, &made->views.view[0], recipe, &made->n);
    } else {
        made->values = malloc(made->n * sizeof *values);
        if (made->values)
            memcpy(made->values, values, made->n * sizeof *values);
    }
    mmqi_free(values);
    return made->values ? MMQ_OK : MMQ_ERR_NOMEM;
}

/* ---- one picture ---- */

/* Is the list at `key` [[...]] of these? */
static bool is_list(json_t *result, const char *key, const int32_t *values, size_t n)
{
    json_t *list = json_array_get(json_object_get(result, key), 0);

    if (json_array_size(list) != n)
        return false;
    for (size_t i = 0; i < n; i++)
        if (json_integer_value(json_array_get(list, i)) != values[i])
            return false;
    return true;
}

static bool is_shape(json_t *result, const int32_t *shape, size_t n)
{
    json_t *list = json_object_get(result, "shape");

    if (json_array_size(list) != n)
        return false;
    for (size_t i = 0; i < n; i++)
        if (json_integer_value(json_array_get(list, i)) != shape[i])
            return false;
    return true;
}

static bool sizes_equal(json_t *result, const struct mmqi_recipe *recipe,
                        const struct mmqi_views *views)
{
    struct mmqi_view view = views->view[0];

    if (recipe->kind == MMQI_RECIPE_SMART) {
        int32_t side = recipe->patch;
        int32_t grid[] = {1, view.height / side, view.width / side};
        int32_t shape[] = {grid[1] * grid[2], 3 * recipe->frames * side * side};

        return is_list(result, "image_grid_thw", grid, 3) && is_shape(result, shape, 2);
    }
    if (recipe->kind == MMQI_RECIPE_ANYRES || recipe->kind == MMQI_RECIPE_SPLIT) {
        int32_t shape[] = {1, views->n, 3, view.height, view.width};
        int32_t size[] = {views->height, views->width};

        if (!is_shape(result, shape, 5))
            return false;
        if (recipe->kind == MMQI_RECIPE_ANYRES)
            return views->n == 1 + views->across * views->down &&
                   is_list(result, "image_sizes", size, 2);
        return is_list(result, "rows", &views->down, 1) &&
               is_list(result, "cols", &views->across, 1);
    }
    return is_shape(result, (int32_t[]){1, 3, view.height, view.width}, 4) && views->n == 1;
}

/* The greatest difference of the samples; infinite where they are missing or not as many. */
static double compare_samples(const struct vectors *vectors, const char *family,
                              const char *picture, const struct made *made, size_t stride)
{
    const struct mmqi_entry *entry = NULL;
    double most = INFINITY;
    char name[256];
    float *want;
    size_t n;

    snprintf(name, sizeof name, "%s/%s", family, picture);
    for (size_t i = 0; i < vectors->samples.n_entries; i++)
        if (strcmp(vectors->samples.entries[i].name, name) == 0)
            entry = &vectors->samples.entries[i];
    if (!entry || entry->bytes == 0 || stride == 0)
        return most;
    n = (size_t)entry->bytes / sizeof *want;
    want = malloc((size_t)entry->bytes);
    if (want && (n - 1) * stride < made->n &&
        mmqi_file_read_at(vectors->file, entry->offset, want, (size_t)entry->bytes) == MMQ_OK)
        for (size_t i = most = 0; i < n; i++)
            most = fmax(most, fabs((double)made->values[i * stride] - want[i]));
    free(want);
    return most;
}

/* The same without rescaling and normalising. */
static bool bytes_equal(json_t *result, struct mmqi_recipe recipe, const struct mmqi_image *image)
{
    struct made made;
    uint8_t *bytes;
    bool equal = false;

    if (json_is_null(json_object_get(result, "crc32_u8")))
        return true;
    recipe.do_rescale = recipe.do_normalize = false;
    if (make(&made, &recipe, image) != MMQ_OK)
        return false;
    bytes = malloc(made.n);
    if (bytes) {
        for (size_t i = 0; i < made.n; i++)
            bytes[i] = (uint8_t)made.values[i];
        equal = is_crc(result, "crc32_u8", bytes, made.n);
    }
    free(bytes);
    free(made.values);
    return equal;
}

static struct mmqi_image *read_picture(const struct vectors *vectors, const char *picture)
{
    json_t *entry = json_object_get(json_object_get(vectors->index, "pictures"), picture);
    const char *file = json_string_value(json_object_get(entry, "file"));
    struct mmqi_image *image = NULL;
    char *data = NULL;
    size_t size;

    if (file && mmqi_file_read_all(&data, &size, vectors->store, file, MOST_FILE) == MMQ_OK)
        mmqi_image_decode(&image, file, data, size, NULL);
    mmqi_free(data);
    return image;
}

static void check_picture(struct tally *tally, const struct vectors *vectors, const char *family,
                          const char *picture, json_t *result, const struct mmqi_recipe *recipe)
{
    struct mmqi_image *image = read_picture(vectors, picture);
    size_t stride = (size_t)json_integer_value(json_object_get(result, "stride"));
    struct made made = {.values = NULL};

    tally->n++;
    if (!image || make(&made, recipe, image) != MMQ_OK) {
        complain(family, picture, mmqi_message());
    } else {
        bool sizes = sizes_equal(result, recipe, &made.views);
        bool values = is_crc(result, "crc32", made.values, made.n * sizeof(float));
        bool bytes = bytes_equal(result, *recipe, image);
        double difference = compare_samples(vectors, family, picture, &made, stride);

        if (!sizes || !values || !bytes || !(difference <= most_difference))
            complain(family, picture, !sizes ? "other sizes" : "other values");
        tally->n_sizes += sizes;
        tally->n_values += values;
        tally->n_bytes += bytes;
        tally->difference = fmax(tally->difference, difference);
    }
    free(made.values);
    mmqi_image_release(image);
}

/* ---- one processor ---- */

static int32_t kind_of(const char *name)
{
    static const struct {
        const char *name;
        int32_t kind;
    } classes[] = {{"CLIPImageProcessorPil", MMQI_RECIPE_CLIP},
                   {"Qwen2VLImageProcessorPil", MMQI_RECIPE_SMART},
                   {"LlavaImageProcessorPil", MMQI_RECIPE_PAD},
                   {"LlavaNextImageProcessorPil", MMQI_RECIPE_ANYRES},
                   {"Idefics3ImageProcessorPil", MMQI_RECIPE_SPLIT},
                   {"SmolVLMImageProcessorPil", MMQI_RECIPE_SPLIT}};

    for (size_t i = 0; name && i < sizeof classes / sizeof *classes; i++)
        if (strcmp(name, classes[i].name) == 0)
            return classes[i].kind;
    return -1;
}

static int32_t read_recipe(struct mmqi_recipe *recipe, int32_t kind, json_t *settings)
{
    char *text = json_dumps(settings, 0);
    struct mmqi_settings *read = NULL;
    int32_t status =
        text ? mmqi_settings_parse(&read, "preproc.json", text, strlen(text)) : MMQ_ERR_FORMAT;

    mmqi_recipe_defaults(recipe, kind);
    if (status == MMQ_OK)
        status = mmqi_recipe_read(recipe, read, "");
    mmqi_settings_free(read);
    free(text);
    return status;
}

static int check_family(const struct vectors *vectors, const char *family, json_t *entry)
{
    const char *name = json_string_value(json_object_get(entry, "cls")), *picture;
    json_t *results = json_object_get(entry, "results"), *result;
    int32_t kind = kind_of(name);
    struct mmqi_recipe recipe;
    struct tally tally = {0};
    bool holds;

    if (kind < 0) {
        printf("SKIPPED: %s/%s: %s is not run\n", vectors->dir, family, name ? name : "?");
        return 0;
    }
    if (read_recipe(&recipe, kind, json_object_get(entry, "settings")) != MMQ_OK)
        return complain(family, "settings", mmqi_message());
    json_object_foreach(results, picture, result)
        check_picture(&tally, vectors, family, picture, result, &recipe);
    holds = tally.n > 0 &&
            tally.n == (int)json_object_size(json_object_get(vectors->index, "pictures")) &&
            tally.n_sizes == tally.n && tally.n_values == tally.n && tally.n_bytes == tally.n &&
            tally.difference <= most_difference;
    printf("%s/%s: sizes %d/%d values %d/%d bytes %d/%d samples %.1e: %s\n", vectors->dir, family,
           tally.n_sizes, tally.n, tally.n_values, tally.n, tally.n_bytes, tally.n,
           tally.difference, holds ? "holds" : "DOES NOT HOLD");
    fflush(stdout);
    return holds ? 0 : 1;
}

static int check_dir(const char *dir)
{
    struct vectors vectors = {.dir = dir};
    char path[4096];
    const char *family;
    int32_t status;
    int failed = 0;
    json_t *entry;

    snprintf(path, sizeof path, "%s/preproc.json", dir);
    vectors.index = json_load_file(path, 0, NULL);
    status = mmqi_store_open_folder(&vectors.store, dir);
    if (status == MMQ_OK)
        status = mmqi_file_open(&vectors.file, vectors.store, "samples.safetensors");
    if (status == MMQ_OK)
        status = mmqi_safetensors_parse(&vectors.samples, vectors.file);
    if (status != MMQ_OK || json_object_size(json_object_get(vectors.index, "families")) == 0)
        failed = complain(dir, "preproc.json", mmqi_message());
    else
        json_object_foreach(json_object_get(vectors.index, "families"), family, entry) failed +=
            check_family(&vectors, family, entry);
    mmqi_safetensors_clear(&vectors.samples);
    mmqi_file_close(vectors.file);
    mmqi_store_release(vectors.store);
    json_decref(vectors.index);
    return failed;
}

int main(int argc, char **argv)
{
    int failed = 0;

    if (argc < 2) {
        fprintf(stderr, "usage: preproc_case DIR...\n");
        return 2;
    }
    for (int i = 1; i < argc; i++)
        failed += check_dir(argv[i]);
    return failed ? 1 : 0;
}
