/*
 * A recipe's numbers from preprocessor_config.json, and a picture put
 * through them: resize, centre crop, rescale, normalise.
 *
 * Only the part of the resized picture that the crop keeps is computed, so a
 * picture of extreme shape costs no more memory than its crop.
 */
#include "image/preprocess.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "core/mem.h"
#include "core/status.h"
#include "image/resize.h"

enum {
    MAX_SIZE = 8192,
    MAX_KEY = 160,
    MAX_PATCH = 256,
    MAX_AREA = 1 << 28,
    MAX_RATIO = 200 /* of the sides of a picture that is resized the smart way */
};

/* Where the keys are read from; `key` is the path in hand. */
struct source {
    const struct mmqi_settings *settings;
    const char *prefix;
    char key[MAX_KEY];
};

static const char *key_of(struct source *source, const char *name, const char *part)
{
    snprintf(source->key, sizeof source->key, "%s%s%s", source->prefix, name, part);
    return source->key;
}

static bool has(struct source *source, const char *name, const char *part)
{
    return mmqi_settings_has(source->settings, key_of(source, name, part));
}

static int32_t read_side(struct source *source, const char *name, const char *part, int32_t *side)
{
    int64_t value = *side;
    int32_t status =
        mmqi_settings_int(source->settings, key_of(source, name, part), 1, MAX_SIZE, &value);

    if (status == MMQ_OK)
        *side = (int32_t)value;
    return status;
}

/* Both sides of {"height", "width"}; one alone is an error. */
static int32_t read_sides(struct source *source, const char *name, int32_t *height, int32_t *width)
{
    int32_t status;

    if (!has(source, name, ".height") || !has(source, name, ".width"))
        return mmqi_fail(MMQ_ERR_FORMAT, "%s: '%s%s' gives no height and width",
                         mmqi_settings_name(source->settings), source->prefix, name);
    status = read_side(source, name, ".height", height);
    if (status == MMQ_OK)
        status = read_side(source, name, ".width", width);
    return status;
}

/* Keys of `size` that other image processors know and that would change the result. */
static int32_t refuse_other_sizes(struct source *source)
{
    static const char *const others[] = {".longest_edge", ".max_height", ".max_width",
                                         ".min_pixels", ".max_pixels"};

    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        if (has(source, "size", others[i]))
            return mmqi_fail(MMQ_ERR_UNSUPPORTED, "%s: '%s' is not read by this image processor",
                             mmqi_settings_name(source->settings), source->key);
    return MMQ_OK;
}

/* An integer (the shortest edge), {"shortest_edge"} or {"height", "width"}. */
static int32_t read_size(struct mmqi_recipe *recipe, struct source *source)
{
    struct mmqi_recipe found = {0};
    bool is_object = has(source, "size", ".shortest_edge") || has(source, "size", ".height") ||
                     has(source, "size", ".width");
    int32_t status;

    if (!has(source, "size", ""))
        return MMQ_OK;
    status = refuse_other_sizes(source);
    if (status != MMQ_OK)
        return status;
    if (!is_object)
        status = read_side(source, "size", "", &found.shortest_edge);
    else if (has(source, "size", ".shortest_edge"))
        status = read_side(source, "size", ".shortest_edge", &found.shortest_edge);
    else
        status = read_sides(source, "size", &found.height, &found.width);
    if (status != MMQ_OK)
        return status;
    recipe->shortest_edge = found.shortest_edge;
    recipe->height = found.height;
    recipe->width = found.width;
    return MMQ_OK;
}

/* An integer (a square) or {"height", "width"}. */
static int32_t read_crop(struct mmqi_recipe *recipe, struct source *source)
{
    int32_t status;

    if (!has(source, "crop_size", ""))
        return MMQ_OK;
    if (has(source, "crop_size", ".height") || has(source, "crop_size", ".width"))
        return read_sides(source, "crop_size", &recipe->crop_height, &recipe->crop_width);
    status = read_side(source, "crop_size", "", &recipe->crop_height);
    recipe->crop_width = recipe->crop_height;
    return status;
}

static int32_t read_area(struct source *source, const char *name, const char *part, int64_t *area)
{
    return mmqi_settings_int(source->settings, key_of(source, name, part), 1, MAX_AREA, area);
}

/* Both bounds of an area below `size`, by these two keys; false where it has neither. */
static bool read_areas(struct mmqi_recipe *recipe, struct source *source, const char *least,
                       const char *most, int32_t *status)
{
    if (*status != MMQ_OK || (!has(source, "size", least) && !has(source, "size", most)))
        return false;
    if (!has(source, "size", least) || !has(source, "size", most))
        *status = mmqi_fail(MMQ_ERR_FORMAT, "%s: '%s' is missing",
                            mmqi_settings_name(source->settings), source->key);
    if (*status == MMQ_OK)
        *status = read_area(source, "size", least, &recipe->min_pixels);
    if (*status == MMQ_OK)
        *status = read_area(source, "size", most, &recipe->max_pixels);
    return true;
}

static int32_t read_smart(struct mmqi_recipe *recipe, struct source *source)
{
    const struct {
        const char *name;
        int32_t *value;
    } sides[] = {{"patch_size", &recipe->patch},
                 {"merge_size", &recipe->merge},
                 {"temporal_patch_size", &recipe->frames}};
    int32_t status = MMQ_OK;
    int64_t value;
    bool found;

    found = read_areas(recipe, source, ".shortest_edge", ".longest_edge", &status) ||
            read_areas(recipe, source, ".min_pixels", ".max_pixels", &status);
    if (status == MMQ_OK && !found && has(source, "size", ""))
        status = mmqi_fail(MMQ_ERR_FORMAT, "%s: '%s' gives no areas",
                           mmqi_settings_name(source->settings), source->key);
    if (status == MMQ_OK)
        status = read_area(source, "min_pixels", "", &recipe->min_pixels);
    if (status == MMQ_OK)
        status = read_area(source, "max_pixels", "", &recipe->max_pixels);
    for (size_t i = 0; i < sizeof sides / sizeof *sides && status == MMQ_OK; i++) {
        value = *sides[i].value;
        status = mmqi_settings_int(source->settings, key_of(source, sides[i].name, ""), 1,
                                   MAX_PATCH, &value);
        *sides[i].value = (int32_t)value;
    }
    if (status == MMQ_OK && recipe->do_center_crop)
        status =
            mmqi_fail(MMQ_ERR_UNSUPPORTED, "%s: '%s' is true; this processor does not crop",
                      mmqi_settings_name(source->settings), key_of(source, "do_center_crop", ""));
    return status;
}

static int32_t read_filter(struct mmqi_recipe *recipe, struct source *source)
{
    int64_t filter = recipe->filter;
    int32_t status =
        mmqi_settings_int(source->settings, key_of(source, "resample", ""), 0, 5, &filter);

    if (status != MMQ_OK)
        return status;
    if (filter > MMQI_FILTER_BICUBIC)
        return mmqi_fail(MMQ_ERR_UNSUPPORTED, "%s: '%s' is %d, filters 0 to 3 are there",
                         mmqi_settings_name(source->settings), source->key, (int)filter);
    recipe->filter = (int32_t)filter;
    return MMQ_OK;
}

/* Three numbers, or one for all channels. */
static int32_t read_channels(struct source *source, const char *name, double min, double values[3])
{
    static const char *const parts[] = {".0", ".1", ".2"};
    int64_t count = mmqi_settings_count(source->settings, key_of(source, name, ""));
    int32_t status = MMQ_OK;

    if (count < 0) {
        status = mmqi_settings_number(source->settings, source->key, min, 1e6, &values[0]);
        if (status == MMQ_OK && has(source, name, ""))
            values[1] = values[2] = values[0];
        return status;
    }
    if (count != 3)
        return mmqi_fail(MMQ_ERR_FORMAT, "%s: '%s' has %d numbers, not 3",
                         mmqi_settings_name(source->settings), source->key, (int)count);
    for (int i = 0; i < 3 && status == MMQ_OK; i++) {
        if (!has(source, name, parts[i])) /* a null: no number, and no default for one channel */
            return mmqi_fail(MMQ_ERR_FORMAT, "%s: '%s' is null, expected a number",
                             mmqi_settings_name(source->settings), source->key);
        status = mmqi_settings_number(source->settings, source->key, min, 1e6, &values[i]);
    }
    return status;
}

static int32_t read_switches(struct mmqi_recipe *recipe, struct source *source)
{
    const struct {
        const char *name;
        bool *value;
    } switches[] = {{"do_resize", &recipe->do_resize},
                    {"do_center_crop", &recipe->do_center_crop},
                    {"do_rescale", &recipe->do_rescale},
                    {"do_normalize", &recipe->do_normalize}};
    int32_t status = MMQ_OK;
    bool pads = false;

    for (size_t i = 0; i < sizeof switches / sizeof *switches && status == MMQ_OK; i++)
        status = mmqi_settings_bool(source->settings, key_of(source, switches[i].name, ""),
                                    switches[i].value);
    if (status == MMQ_OK)
        status = mmqi_settings_bool(source->settings, key_of(source, "do_pad", ""), &pads);
    if (status == MMQ_OK && pads)
        status = mmqi_fail(MMQ_ERR_UNSUPPORTED, "%s: '%s' is true, padding is not there",
                           mmqi_settings_name(source->settings), source->key);
    return status;
}

/* What the steps that are on need must be there, from the file or from the defaults. */
static int32_t check_recipe(const struct mmqi_recipe *recipe, const struct source *source)
{
    const char *missing = NULL;

    if (recipe->kind == MMQI_RECIPE_SMART)
        return MMQ_OK;
    if (recipe->do_resize && !recipe->shortest_edge && !(recipe->height && recipe->width))
        missing = "size";
    else if (recipe->do_center_crop && !(recipe->crop_height && recipe->crop_width))
        missing = "crop_size";
    if (missing)
        return mmqi_fail(MMQ_ERR_FORMAT, "%s: no '%s%s'", mmqi_settings_name(source->settings),
                         source->prefix, missing);
    return MMQ_OK;
}

int32_t mmqi_recipe_read(struct mmqi_recipe *recipe, const struct mmqi_settings *settings,
                         const char *prefix)
{
    const double least_std = 1e-9, most_scale = 1e6;
    struct source source = {.settings = settings, .prefix = prefix};
    struct mmqi_recipe result = *recipe;
    int32_t status = read_switches(&result, &source);

    if (status == MMQ_OK && result.kind == MMQI_RECIPE_SMART)
        status = read_smart(&result, &source);
    if (status == MMQ_OK && result.kind == MMQI_RECIPE_CLIP)
        status = read_size(&result, &source);
    if (status == MMQ_OK && result.kind == MMQI_RECIPE_CLIP)
        status = read_crop(&result, &source);
    if (status == MMQ_OK)
        status = read_filter(&result, &source);
    if (status == MMQ_OK)
        status = mmqi_settings_number(settings, key_of(&source, "rescale_factor", ""), 0.0,
                                      most_scale, &result.rescale);
    if (status == MMQ_OK)
        status = read_channels(&source, "image_mean", -1e6, result.mean);
    if (status == MMQ_OK)
        status = read_channels(&source, "image_std", least_std, result.std);
    if (status == MMQ_OK)
        status = check_recipe(&result, &source);
    if (status == MMQ_OK)
        *recipe = result;
    return status;
}

/*
 * Sides rounded to multiples of f, half to even as Python's round() does; where the area leaves its
 * bounds, both scaled by one factor and rounded towards the bounds. All in double, in this order.
 */
static void smart_size(const struct mmqi_recipe *recipe, double width, double height,
                       int32_t *out_width, int32_t *out_height)
{
    double f = (double)recipe->patch * recipe->merge, scale;
    double w = rint(width / f) * f, h = rint(height / f) * f;

    if (h * w > (double)recipe->max_pixels) {
        scale = sqrt(height * width / (double)recipe->max_pixels);
        h = fmax(f, floor(height / scale / f) * f);
        w = fmax(f, floor(width / scale / f) * f);
    } else if (h * w < (double)recipe->min_pixels) {
        scale = sqrt((double)recipe->min_pixels / (height * width));
        h = ceil(height * scale / f) * f;
        w = ceil(width * scale / f) * f;
    }
    *out_width = (int32_t)w;
    *out_height = (int32_t)h;
}

/*
 * An area between the bounds makes at most max / f^2 squares. One that was too large is scaled down
 * to max, but never below one square on its shorter side: the longer is then at most
 * sqrt(ratio * max). One that was too small is scaled up to min, each side then rounded up.
 */
int64_t mmqi_recipe_max_squares(const struct mmqi_recipe *recipe)
{
    double f = (double)recipe->patch * recipe->merge, min = (double)recipe->min_pixels;
    double max = (double)recipe->max_pixels, most;

    if (!recipe->do_resize)
        return (int64_t)(MAX_AREA / (f * f));
    most = fmax(max / (f * f), sqrt(MAX_RATIO * max) / f);
    most = fmax(most, min / (f * f) + (sqrt(MAX_RATIO * min) + sqrt(min / MAX_RATIO)) / f + 1);
    return (int64_t)ceil(most);
}

/* The size after the resize step. The longer edge is truncated, as Python's int() does. */
static void resized_size(const struct mmqi_recipe *recipe, int32_t width, int32_t height,
                         int32_t *out_width, int32_t *out_height)
{
    int32_t edge = recipe->shortest_edge;

    *out_width = width;
    *out_height = height;
    if (!recipe->do_resize)
        return;
    if (recipe->kind == MMQI_RECIPE_SMART) {
        smart_size(recipe, width, height, out_width, out_height);
    } else if (!edge) {
        *out_width = recipe->width;
        *out_height = recipe->height;
    } else if (width <= height) {
        *out_width = edge;
        *out_height = (int32_t)((double)edge * height / width);
    } else {
        *out_width = (int32_t)((double)edge * width / height);
        *out_height = edge;
    }
}

/* The one view of a picture that is not cut. */
static int32_t measure(struct mmqi_view *view, const struct mmqi_recipe *recipe, int32_t width,
                       int32_t height)
{
    double longer = width > height ? width : height, shorter = width > height ? height : width;

    if (recipe->kind == MMQI_RECIPE_SMART && recipe->do_resize && longer / shorter > MAX_RATIO)
        return mmqi_fail(MMQ_ERR_LIMIT, "preprocess: sides of %d x %d differ more than %d times",
                         (int)width, (int)height, MAX_RATIO);
    resized_size(recipe, width, height, &view->width, &view->height);
    if (recipe->do_center_crop) {
        view->width = recipe->crop_width;
        view->height = recipe->crop_height;
    }
    return mmqi_image_check("preprocess", (uint64_t)view->width, (uint64_t)view->height, NULL);
}

int32_t mmqi_preprocess_views(struct mmqi_views *out, const struct mmqi_recipe *recipe,
                              int32_t width, int32_t height)
{
    *out = (struct mmqi_views){.width = width, .height = height, .n = 1};
    return measure(&out->view[0], recipe, width, height);
}

size_t mmqi_views_pixels(const struct mmqi_views *views)
{
    size_t pixels = 0;

    for (int32_t i = 0; i < views->n; i++)
        pixels += (size_t)views->view[i].width * (size_t)views->view[i].height;
    return pixels;
}

/* floor((whole - crop) / 2): where the crop begins; below 0, how much is padded before. */
static int32_t crop_begin(int32_t whole, int32_t crop)
{
    return (whole - crop) >> 1;
}

/* Pixels that the crop keeps: those of `image` from (left, top) on; they land at (x, y) of the
 * result. */
struct kept {
    const struct mmqi_image *image;
    struct mmqi_image *resized; /* `image`, where resizing made it; else NULL */
    int32_t left, top, width, height;
    int32_t x, y;
};

/* The part of [begin, begin + size) that lies in [0, whole): its begin there, its place, its
 * length. */
static void cut_axis(int32_t begin, int32_t size, int32_t whole, int32_t *first, int32_t *place,
                     int32_t *length)
{
    int32_t end = begin + size < whole ? begin + size : whole;

    *first = begin > 0 ? begin : 0;
    *place = *first - begin;
    *length = end - *first;
}

/* Find the kept pixels, resizing where the recipe wants another size; kept->resized is to be
 * released. */
static int32_t keep_pixels(struct kept *kept, const struct mmqi_recipe *recipe,
                           const struct mmqi_image *image, int32_t out_width, int32_t out_height)
{
    struct mmqi_region region;
    int32_t width, height, status;

    resized_size(recipe, image->width, image->height, &width, &height);
    cut_axis(crop_begin(width, out_width), out_width, width, &kept->left, &kept->x, &kept->width);
    cut_axis(crop_begin(height, out_height), out_height, height, &kept->top, &kept->y,
             &kept->height);
    kept->image = image;
    if (width == image->width && height == image->height)
        return MMQ_OK;
    region = (struct mmqi_region){kept->left, kept->top, kept->width, kept->height};
    status = mmqi_resize_region(&kept->resized, image, width, height, recipe->filter, &region);
    kept->image = kept->resized;
    kept->left = kept->top = 0;
    return status;
}

/* What each byte of each channel becomes: rescaled in double and rounded to f32, then normalised in
 * f32. */
static void make_table(float table[3][256], const struct mmqi_recipe *recipe)
{
    for (int c = 0; c < 3; c++)
        for (int byte = 0; byte < 256; byte++) {
            float value = (float)byte;

            if (recipe->do_rescale)
                value = (float)(byte * recipe->rescale);
            if (recipe->do_normalize)
                value = (value - (float)recipe->mean[c]) / (float)recipe->std[c];
            table[c][byte] = value;
        }
}

static void fill(float *values, size_t n, float value)
{
    for (size_t i = 0; i < n; i++)
        values[i] = value;
}

/* One channel: the kept pixels through their table, zeros around them through it too. */
static void write_channel(float *plane, int32_t width, int32_t height, const struct kept *kept,
                          int c, const float table[256])
{
    if (kept->width < width || kept->height < height)
        fill(plane, (size_t)width * (size_t)height, table[0]);
    for (int32_t y = 0; y < kept->height; y++) {
        size_t first = (size_t)(kept->top + y) * (size_t)kept->image->width + (size_t)kept->left;
        const uint8_t *bytes = kept->image->rgb + first * 3 + c;
        float *row = plane + (size_t)(kept->y + y) * (size_t)width + (size_t)kept->x;

        for (int32_t x = 0; x < kept->width; x++)
            row[x] = table[bytes[(size_t)x * 3]];
    }
}

static int32_t make_view(float *values, const struct mmqi_view *view,
                         const struct mmqi_recipe *recipe, const struct mmqi_image *image)
{
    size_t plane = (size_t)view->width * (size_t)view->height;
    float table[3][256];
    struct kept kept = {0};
    int32_t status = keep_pixels(&kept, recipe, image, view->width, view->height);

    if (status != MMQ_OK)
        return status;
    make_table(table, recipe);
    for (int c = 0; c < 3; c++)
        write_channel(values + (size_t)c * plane, view->width, view->height, &kept, c, table[c]);
    mmqi_image_release(kept.resized);
    return MMQ_OK;
}

int32_t mmqi_preprocess(float **out, const struct mmqi_views *views,
                        const struct mmqi_recipe *recipe, const struct mmqi_image *image)
{
    size_t n = mmqi_views_pixels(views);
    float *values = mmqi_alloc_array(n, 3 * sizeof *values);
    int32_t status;

    *out = NULL;
    if (!values)
        return mmqi_fail(MMQ_ERR_NOMEM, "preprocess: no memory for 3 x %zu values", n);
    status = make_view(values, &views->view[0], recipe, image);
    if (status == MMQ_OK)
        *out = values;
    else
        mmqi_free(values);
    return status;
}
