/*
 * CLIP's processor: resize the shortest edge, cut out the centre. And LLaVA's, which may first
 * put the picture on a square.
 *
 * Only the part of the resized picture that the crop keeps is computed, so a picture of extreme
 * shape costs no more memory than its crop, unless it is put on a square.
 */
#include <string.h>

#include "core/status.h"
#include "image/preprocess_parts.h"

static int32_t read_clip(struct mmqi_recipe *recipe, struct mmqi_recipe_source *source)
{
    int32_t status = mmqi_source_size(source, recipe);

    return status == MMQ_OK ? mmqi_source_crop(source, recipe) : status;
}

/* What the steps that are on need must be there, from the file or from the defaults. */
static int32_t check_steps(const struct mmqi_recipe *recipe,
                           const struct mmqi_recipe_source *source)
{
    const char *missing = NULL;

    if (recipe->do_resize && !recipe->shortest_edge && !(recipe->height && recipe->width))
        missing = "size";
    else if (recipe->do_center_crop && !(recipe->crop_height && recipe->crop_width))
        missing = "crop_size";
    if (missing)
        return mmqi_fail(MMQ_ERR_FORMAT, "%s: no '%s%s'", mmqi_settings_name(source->settings),
                         source->prefix, missing);
    return MMQ_OK;
}

static int32_t check_clip(struct mmqi_recipe *recipe, struct mmqi_recipe_source *source)
{
    int32_t status =
        mmqi_source_refuse(source, "do_pad", recipe->do_pad, "this processor does not pad");

    return status == MMQ_OK ? check_steps(recipe, source) : status;
}

/* The size after the resize step. The longer edge is truncated, as Python's int() does. */
static struct mmqi_view resized_size(const struct mmqi_recipe *recipe, int32_t width,
                                     int32_t height)
{
    int32_t edge = recipe->shortest_edge;

    if (!recipe->do_resize)
        return (struct mmqi_view){width, height};
    if (!edge)
        return (struct mmqi_view){recipe->width, recipe->height};
    if (width <= height)
        return (struct mmqi_view){edge, (int32_t)((double)edge * height / width)};
    return (struct mmqi_view){(int32_t)((double)edge * width / height), edge};
}

static int32_t measure_size(struct mmqi_views *out, const struct mmqi_recipe *recipe, int32_t width,
                            int32_t height)
{
    struct mmqi_view view = resized_size(recipe, width, height);

    if (recipe->do_center_crop)
        view = (struct mmqi_view){recipe->crop_width, recipe->crop_height};
    return mmqi_views_add(out, view.width, view.height);
}

static int32_t measure_clip(struct mmqi_views *out, const struct mmqi_recipe *recipe)
{
    return measure_size(out, recipe, out->width, out->height);
}

/* floor((whole - crop) / 2): where the crop begins; below 0, how much is padded before. */
static int32_t crop_begin(int32_t whole, int32_t crop)
{
    return (whole - crop) >> 1;
}

static int32_t lay_clip(struct mmqi_drawing *drawing, const struct mmqi_recipe *recipe,
                        const struct mmqi_image *image)
{
    const struct mmqi_view *view = &drawing->views.view[0];
    struct mmqi_view whole = resized_size(recipe, image->width, image->height);

    drawing->layer[0] = (struct mmqi_layer){
        .image = image,
        .width = whole.width,
        .height = whole.height,
        .filter = recipe->filter,
        .left = -crop_begin(whole.width, view->width),
        .top = -crop_begin(whole.height, view->height),
    };
    return MMQ_OK;
}

static const struct mmqi_recipe clip_defaults = {.kind = MMQI_RECIPE_CLIP, MMQI_CLIP_STEPS};

const struct mmqi_recipe_ops mmqi_recipe_clip = {
    .defaults = &clip_defaults,
    .read = read_clip,
    .check = check_clip,
    .measure = measure_clip,
    .lay = lay_clip,
    .max_views = mmqi_recipe_one_view,
};

/* ---- on a square ---- */

/* The mean's colour is made of bytes. */
static int32_t check_pad(struct mmqi_recipe *recipe, struct mmqi_recipe_source *source)
{
    for (int c = 0; c < 3 && recipe->do_pad; c++)
        if (!(recipe->mean[c] * 255 > -1 && recipe->mean[c] * 255 < 256))
            return mmqi_fail(MMQ_ERR_FORMAT, "%s: '%s' is no colour to pad with",
                             mmqi_settings_name(source->settings),
                             mmqi_source_key(source, "image_mean", ""));
    return check_steps(recipe, source);
}

static int32_t measure_pad(struct mmqi_views *out, const struct mmqi_recipe *recipe)
{
    int32_t side = out->width > out->height ? out->width : out->height, status;

    if (!recipe->do_pad)
        return measure_clip(out, recipe);
    status = mmqi_image_check("preprocess: on a square", (uint64_t)side, (uint64_t)side, NULL);
    return status == MMQ_OK ? measure_size(out, recipe, side, side) : status;
}

/* A square of int(255 mean), the picture in its middle: where it cannot be, nearer to the left top
 * corner. */
static int32_t put_on_square(struct mmqi_image **out, const struct mmqi_image *image,
                             const double mean[3])
{
    int32_t side = image->width > image->height ? image->width : image->height;
    size_t left = (size_t)(side - image->width) / 2, top = (size_t)(side - image->height) / 2;
    size_t row_bytes = (size_t)side * 3, image_bytes = (size_t)image->width * 3;
    uint8_t colour[3];
    int32_t status =
        mmqi_image_create(out, "preprocess: on a square", (uint64_t)side, (uint64_t)side, NULL);

    if (status != MMQ_OK)
        return status;
    for (int c = 0; c < 3; c++)
        colour[c] = (uint8_t)(int32_t)(mean[c] * 255);
    for (size_t i = 0; i < row_bytes * (size_t)side; i++)
        (*out)->rgb[i] = colour[i % 3];
    for (size_t y = 0; y < (size_t)image->height; y++)
        memcpy((*out)->rgb + (top + y) * row_bytes + left * 3, image->rgb + y * image_bytes,
               image_bytes);
    return MMQ_OK;
}

static int32_t lay_pad(struct mmqi_drawing *drawing, const struct mmqi_recipe *recipe,
                       const struct mmqi_image *image)
{
    int32_t status;

    if (!recipe->do_pad || image->width == image->height)
        return lay_clip(drawing, recipe, image);
    status = put_on_square(&drawing->held, image, recipe->mean);
    return status == MMQ_OK ? lay_clip(drawing, recipe, drawing->held) : status;
}

static const struct mmqi_recipe pad_defaults = {.kind = MMQI_RECIPE_PAD, MMQI_CLIP_STEPS};

const struct mmqi_recipe_ops mmqi_recipe_pad = {
    .defaults = &pad_defaults,
    .read = read_clip,
    .check = check_pad,
    .measure = measure_pad,
    .lay = lay_pad,
    .max_views = mmqi_recipe_one_view,
};
