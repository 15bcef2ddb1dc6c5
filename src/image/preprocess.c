/*
 * A picture put through a recipe: the kind of the recipe says which views it makes and what they
 * show; here is what all kinds share, from bytes to normalised values.
 */
#include "core/mem.h"
#include "core/status.h"
#include "image/preprocess_parts.h"

enum { MAX_PIXELS = 1 << 28 };

const struct mmqi_recipe_ops *mmqi_recipe_ops(const struct mmqi_recipe *recipe)
{
    static const struct mmqi_recipe_ops *const kinds[] = {
        [MMQI_RECIPE_CLIP] = &mmqi_recipe_clip,   [MMQI_RECIPE_SMART] = &mmqi_recipe_smart,
        [MMQI_RECIPE_PAD] = &mmqi_recipe_pad,     [MMQI_RECIPE_ANYRES] = &mmqi_recipe_anyres,
        [MMQI_RECIPE_SPLIT] = &mmqi_recipe_split,
    };

    return kinds[recipe->kind];
}

void mmqi_recipe_defaults(struct mmqi_recipe *recipe, int32_t kind)
{
    *recipe = (struct mmqi_recipe){.kind = kind};
    *recipe = *mmqi_recipe_ops(recipe)->defaults;
}

/* ---- sizes ---- */

int32_t mmqi_views_add(struct mmqi_views *views, int32_t width, int32_t height)
{
    int32_t status;

    if (views->n == MMQI_MAX_VIEWS)
        return mmqi_fail(MMQ_ERR_LIMIT, "preprocess: %d x %d pixels make more than %d tiles",
                         (int)views->width, (int)views->height, MMQI_MAX_VIEWS - 1);
    status = mmqi_image_check("preprocess", (uint64_t)width, (uint64_t)height, NULL);
    if (status == MMQ_OK)
        views->view[views->n++] = (struct mmqi_view){width, height};
    return status;
}

size_t mmqi_views_pixels(const struct mmqi_views *views)
{
    size_t pixels = 0;

    for (int32_t i = 0; i < views->n; i++)
        pixels += (size_t)views->view[i].width * (size_t)views->view[i].height;
    return pixels;
}

int32_t mmqi_preprocess_views(struct mmqi_views *out, const struct mmqi_recipe *recipe,
                              int32_t width, int32_t height)
{
    int32_t status;

    *out = (struct mmqi_views){.width = width, .height = height};
    status = mmqi_recipe_ops(recipe)->measure(out, recipe);
    if (status == MMQ_OK && mmqi_views_pixels(out) > MAX_PIXELS)
        status = mmqi_fail(MMQ_ERR_LIMIT, "preprocess: %d views of a picture have %zu pixels",
                           (int)out->n, mmqi_views_pixels(out));
    return status;
}

int32_t mmqi_recipe_max_views(const struct mmqi_recipe *recipe)
{
    return mmqi_recipe_ops(recipe)->max_views(recipe);
}

int32_t mmqi_recipe_one_view(const struct mmqi_recipe *recipe)
{
    (void)recipe;
    return 1;
}

/* ---- values ---- */

/* Rescaled in double and rounded to f32, then normalised in f32. */
static void make_table(struct mmqi_pixel_table *table, const struct mmqi_recipe *recipe)
{
    for (int c = 0; c < 3; c++)
        for (int byte = 0; byte < 256; byte++) {
            float value = (float)byte;

            if (recipe->do_rescale)
                value = (float)(byte * recipe->rescale);
            if (recipe->do_normalize)
                value = (value - (float)recipe->mean[c]) / (float)recipe->std[c];
            table->value[c][byte] = value;
        }
}

/* Pixels that a view shows: those of `image` from (left, top) on; they land at (x, y). */
struct shown {
    const struct mmqi_image *image;
    int32_t left, top, width, height;
    int32_t x, y;
};

/* The part of [begin, begin + size), a view, that lies in [0, whole): its begin there, its place in
 * the view, its length; 0 where there is none. */
static void cut_axis(int32_t begin, int32_t size, int32_t whole, int32_t *first, int32_t *place,
                     int32_t *length)
{
    int32_t end = begin + size < whole ? begin + size : whole;

    *first = begin > 0 ? begin : 0;
    *place = *first - begin;
    *length = end > *first ? end - *first : 0;
}

static void fill(float *values, size_t n, float value)
{
    for (size_t i = 0; i < n; i++)
        values[i] = value;
}

/* One channel: the shown pixels through their table, zeros around them through it too. */
static void write_channel(float *plane, const struct mmqi_view *view, const struct shown *shown,
                          int c, const float table[256])
{
    if (shown->width < view->width || shown->height < view->height)
        fill(plane, (size_t)view->width * (size_t)view->height, table[0]);
    for (int32_t y = 0; y < shown->height; y++) {
        size_t first = (size_t)(shown->top + y) * (size_t)shown->image->width + (size_t)shown->left;
        const uint8_t *bytes = shown->image->rgb + first * 3 + c;
        float *row = plane + (size_t)(shown->y + y) * (size_t)view->width + (size_t)shown->x;

        for (int32_t x = 0; x < shown->width; x++)
            row[x] = table[bytes[(size_t)x * 3]];
    }
}

/* values [3, height, width] of a view that shows `layer` on black. */
static int32_t draw_view(float *values, const struct mmqi_view *view,
                         const struct mmqi_layer *layer, const struct mmqi_pixel_table *table)
{
    struct shown shown = {.image = layer->image};
    struct mmqi_image *resized = NULL;
    struct mmqi_region region;
    int32_t status = MMQ_OK;

    cut_axis(-layer->left, view->width, layer->width, &shown.left, &shown.x, &shown.width);
    cut_axis(-layer->top, view->height, layer->height, &shown.top, &shown.y, &shown.height);
    if (!shown.width || !shown.height) {
        shown.width = shown.height = 0;
    } else if (layer->width != layer->image->width || layer->height != layer->image->height) {
        region = (struct mmqi_region){shown.left, shown.top, shown.width, shown.height};
        status = mmqi_resize_region(&resized, layer->image, layer->width, layer->height,
                                    layer->filter, &region);
        shown.image = resized;
        shown.left = shown.top = 0;
    }
    if (status != MMQ_OK)
        return status;
    for (int c = 0; c < 3; c++)
        write_channel(values + (size_t)c * (size_t)view->width * (size_t)view->height, view, &shown,
                      c, table->value[c]);
    mmqi_image_release(resized);
    return MMQ_OK;
}

void mmqi_drawing_tiles(struct mmqi_drawing *drawing, int32_t first, const struct mmqi_layer *layer)
{
    const struct mmqi_views *views = &drawing->views;

    for (int32_t i = 0; i < views->across * views->down; i++) {
        const struct mmqi_view *tile = &views->view[first + i];

        drawing->layer[first + i] = *layer;
        drawing->layer[first + i].left -= i % views->across * tile->width;
        drawing->layer[first + i].top -= i / views->across * tile->height;
    }
}

int32_t mmqi_drawing_create(struct mmqi_drawing **out, const struct mmqi_views *views,
                            const struct mmqi_recipe *recipe, const struct mmqi_image *image)
{
    struct mmqi_drawing *drawing = mmqi_calloc(1, sizeof *drawing);
    int32_t status;

    *out = NULL;
    if (!drawing)
        return mmqi_fail(MMQ_ERR_NOMEM, "preprocess: no memory for %d views", (int)views->n);
    drawing->views = *views;
    make_table(&drawing->table, recipe);
    status = mmqi_recipe_ops(recipe)->lay(drawing, recipe, image);
    if (status == MMQ_OK)
        *out = drawing;
    else
        mmqi_drawing_free(drawing);
    return status;
}

int32_t mmqi_drawing_view(const struct mmqi_drawing *drawing, int32_t k, float *values)
{
    return draw_view(values, &drawing->views.view[k], &drawing->layer[k], &drawing->table);
}

void mmqi_drawing_free(struct mmqi_drawing *drawing)
{
    if (!drawing)
        return;
    mmqi_image_release(drawing->held);
    mmqi_free(drawing);
}

int32_t mmqi_preprocess(float **out, const struct mmqi_views *views,
                        const struct mmqi_recipe *recipe, const struct mmqi_image *image)
{
    size_t n = mmqi_views_pixels(views), at = 0;
    float *values = mmqi_alloc_array(n, 3 * sizeof *values);
    struct mmqi_drawing *drawing = NULL;
    int32_t status;

    *out = NULL;
    if (!values)
        return mmqi_fail(MMQ_ERR_NOMEM, "preprocess: no memory for 3 x %zu values", n);
    status = mmqi_drawing_create(&drawing, views, recipe, image);
    for (int32_t k = 0; k < views->n && status == MMQ_OK; k++) {
        status = mmqi_drawing_view(drawing, k, values + at);
        at += 3 * (size_t)views->view[k].width * (size_t)views->view[k].height;
    }
    mmqi_drawing_free(drawing);
    if (status == MMQ_OK)
        *out = values;
    else
        mmqi_free(values);
    return status;
}
