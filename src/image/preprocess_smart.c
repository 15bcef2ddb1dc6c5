/* Qwen's smart resize. */
#include <math.h>

#include "core/status.h"
#include "image/preprocess_parts.h"

enum {
    MAX_PATCH = 256,
    MAX_AREA = 1 << 28,
    MAX_RATIO = 200 /* of the sides of a picture */
};

static int32_t read_area(struct mmqi_recipe_source *source, const char *name, const char *part,
                         int64_t *area)
{
    return mmqi_settings_int(source->settings, mmqi_source_key(source, name, part), 1, MAX_AREA,
                             area);
}

/* Both bounds of an area below `size`, by these two keys; false where it has neither. */
static bool read_areas(struct mmqi_recipe *recipe, struct mmqi_recipe_source *source,
                       const char *least, const char *most, int32_t *status)
{
    if (*status != MMQ_OK ||
        (!mmqi_source_has(source, "size", least) && !mmqi_source_has(source, "size", most)))
        return false;
    if (!mmqi_source_has(source, "size", least) || !mmqi_source_has(source, "size", most))
        *status = mmqi_fail(MMQ_ERR_FORMAT, "%s: '%s' is missing",
                            mmqi_settings_name(source->settings), source->key);
    if (*status == MMQ_OK)
        *status = read_area(source, "size", least, &recipe->min_pixels);
    if (*status == MMQ_OK)
        *status = read_area(source, "size", most, &recipe->max_pixels);
    return true;
}

static int32_t read_smart(struct mmqi_recipe *recipe, struct mmqi_recipe_source *source)
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
    if (status == MMQ_OK && !found && mmqi_source_has(source, "size", ""))
        status = mmqi_fail(MMQ_ERR_FORMAT, "%s: '%s' gives no areas",
                           mmqi_settings_name(source->settings), source->key);
    if (status == MMQ_OK)
        status = read_area(source, "min_pixels", "", &recipe->min_pixels);
    if (status == MMQ_OK)
        status = read_area(source, "max_pixels", "", &recipe->max_pixels);
    for (size_t i = 0; i < sizeof sides / sizeof *sides && status == MMQ_OK; i++) {
        value = *sides[i].value;
        status = mmqi_settings_int(source->settings, mmqi_source_key(source, sides[i].name, ""), 1,
                                   MAX_PATCH, &value);
        *sides[i].value = (int32_t)value;
    }
    return status;
}

static int32_t check_smart(struct mmqi_recipe *recipe, struct mmqi_recipe_source *source)
{
    int32_t status = mmqi_source_refuse(source, "do_center_crop", recipe->do_center_crop,
                                        "this processor does not crop");

    return status == MMQ_OK
               ? mmqi_source_refuse(source, "do_pad", recipe->do_pad, "this processor does not pad")
               : status;
}

/*
 * Sides rounded to multiples of f, half to even as Python's round() does; where the area leaves its
 * bounds, both scaled by one factor and rounded towards the bounds. All in double, in this order.
 */
static void smart_size(struct mmqi_view *view, const struct mmqi_recipe *recipe, double width,
                       double height)
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
    view->width = (int32_t)w;
    view->height = (int32_t)h;
}

static int32_t measure_smart(struct mmqi_views *out, const struct mmqi_recipe *recipe)
{
    double width = out->width, height = out->height;
    struct mmqi_view view = {out->width, out->height};

    if (recipe->do_resize && fmax(width, height) / fmin(width, height) > MAX_RATIO)
        return mmqi_fail(MMQ_ERR_LIMIT, "preprocess: sides of %d x %d differ more than %d times",
                         (int)out->width, (int)out->height, MAX_RATIO);
    if (recipe->do_resize)
        smart_size(&view, recipe, width, height);
    return mmqi_views_add(out, view.width, view.height);
}

static int32_t lay_smart(struct mmqi_drawing *drawing, const struct mmqi_recipe *recipe,
                         const struct mmqi_image *image)
{
    const struct mmqi_view *view = &drawing->views.view[0];

    drawing->layer[0] = (struct mmqi_layer){image, view->width, view->height, recipe->filter, 0, 0};
    return MMQ_OK;
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

static const struct mmqi_recipe smart_defaults = {
    .kind = MMQI_RECIPE_SMART,
    .do_resize = true,
    .do_rescale = true,
    .do_normalize = true,
    .filter = MMQI_FILTER_BICUBIC,
    .rescale = MMQI_RESCALE,
    MMQI_CLIP_COLOURS,
    .min_pixels = 56 * 56,
    .max_pixels = 28 * 28 * 1280,
    .patch = 14,
    .merge = 2,
    .frames = 2,
};

const struct mmqi_recipe_ops mmqi_recipe_smart = {
    .defaults = &smart_defaults,
    .read = read_smart,
    .check = check_smart,
    .measure = measure_smart,
    .lay = lay_smart,
    .max_views = mmqi_recipe_one_view,
};
