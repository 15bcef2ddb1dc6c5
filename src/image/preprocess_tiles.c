/*
 * Processors that cut pictures into tiles: LLaVA-NeXT's and Idefics3's. All sizes are computed in
 * double and truncated, in the order of the references.
 */
#include <math.h>
#include <stdio.h>

#include "core/status.h"
#include "image/preprocess_parts.h"

enum {
    MAX_TILES = MMQI_MAX_VIEWS - 1,
    MAX_SIDE = 8192,   /* of a pinpoint */
    MAX_LONGEST = 4096 /* SPLIT: a picture that became longer is scaled down to this */
};

static int32_t add_tiles(struct mmqi_views *out, int32_t side, int32_t n)
{
    int32_t status = MMQ_OK;

    for (int32_t i = 0; i < n && status == MMQ_OK; i++)
        status = mmqi_views_add(out, side, side);
    return status;
}

/* ---- any resolution ---- */

static int32_t read_pinpoint(struct mmqi_view *pinpoint, struct mmqi_recipe_source *source,
                             const char *item)
{
    const struct {
        const char *part;
        int32_t *value;
    } sides[] = {{".0", &pinpoint->height}, {".1", &pinpoint->width}};
    int32_t status = MMQ_OK;
    int64_t value;

    if (mmqi_settings_count(source->settings, item) != 2)
        return mmqi_fail(MMQ_ERR_FORMAT, "%s: '%s' is no [height, width]",
                         mmqi_settings_name(source->settings), item);
    for (int i = 0; i < 2 && status == MMQ_OK; i++) {
        value = 0;
        status = mmqi_settings_int(source->settings, mmqi_source_key(source, item, sides[i].part),
                                   1, MAX_SIDE, &value);
        if (status == MMQ_OK && value == 0)
            status = mmqi_fail(MMQ_ERR_FORMAT, "%s: '%s' is null, expected pixels",
                               mmqi_settings_name(source->settings), source->key);
        *sides[i].value = (int32_t)value;
    }
    return status;
}

int32_t mmqi_recipe_read_pinpoints(struct mmqi_recipe *recipe, const struct mmqi_settings *settings,
                                   const char *path)
{
    struct mmqi_recipe_source source = {.settings = settings, .prefix = ""};
    int64_t count = mmqi_settings_count(settings, path);
    char item[MMQI_MAX_SOURCE_KEY];
    int32_t status = MMQ_OK;

    if (!mmqi_settings_has(settings, path))
        return MMQ_OK;
    if (count < 1 || count > MMQI_MAX_PINPOINTS)
        return mmqi_fail(MMQ_ERR_FORMAT, "%s: '%s' is no list of 1 to %d resolutions",
                         mmqi_settings_name(settings), path, MMQI_MAX_PINPOINTS);
    for (int32_t i = 0; i < count && status == MMQ_OK; i++) {
        snprintf(item, sizeof item, "%s.%d", path, (int)i);
        status = read_pinpoint(&recipe->pinpoints[i], &source, item);
    }
    recipe->n_pinpoints = (int32_t)count;
    return status;
}

static int32_t read_anyres(struct mmqi_recipe *recipe, struct mmqi_recipe_source *source)
{
    char path[MMQI_MAX_SOURCE_KEY];
    int32_t status = mmqi_source_size(source, recipe);

    if (status == MMQ_OK)
        status = mmqi_source_crop(source, recipe);
    if (status != MMQ_OK)
        return status;
    snprintf(path, sizeof path, "%simage_grid_pinpoints", source->prefix);
    return mmqi_recipe_read_pinpoints(recipe, source->settings, path);
}

static int32_t count_tiles(const struct mmqi_recipe *recipe, int32_t pinpoint)
{
    const struct mmqi_view *size = &recipe->pinpoints[pinpoint];

    return size->width / recipe->tile * (size->height / recipe->tile);
}

int32_t mmqi_recipe_check_pinpoints(const struct mmqi_recipe *recipe,
                                    const struct mmqi_settings *settings, const char *path)
{
    for (int32_t i = 0; i < recipe->n_pinpoints; i++) {
        const struct mmqi_view *size = &recipe->pinpoints[i];

        if (size->width % recipe->tile || size->height % recipe->tile ||
            count_tiles(recipe, i) > MAX_TILES)
            return mmqi_fail(MMQ_ERR_UNSUPPORTED,
                             "%s: '%s.%d' is %d high and %d wide, not 1 to %d whole tiles of %d",
                             mmqi_settings_name(settings), path, (int)i, (int)size->height,
                             (int)size->width, MAX_TILES, (int)recipe->tile);
    }
    return MMQ_OK;
}

/* Each tile goes through the steps of CLIP, which change no square of the size that they make. */
static int32_t check_anyres(struct mmqi_recipe *recipe, struct mmqi_recipe_source *source)
{
    int32_t height = recipe->shortest_edge ? recipe->shortest_edge : recipe->height;
    int32_t width = recipe->shortest_edge ? recipe->shortest_edge : recipe->width;

    recipe->tile = recipe->crop_height ? recipe->crop_height : height;
    if (height != recipe->tile || width != recipe->tile || !recipe->tile)
        return mmqi_fail(MMQ_ERR_UNSUPPORTED, "%s: '%s' is %d x %d, tiles are %d x %d",
                         mmqi_settings_name(source->settings), mmqi_source_key(source, "size", ""),
                         (int)height, (int)width, (int)recipe->tile, (int)recipe->tile);
    if (recipe->crop_width && recipe->crop_width != recipe->tile)
        return mmqi_fail(MMQ_ERR_UNSUPPORTED, "%s: '%s' is no square",
                         mmqi_settings_name(source->settings),
                         mmqi_source_key(source, "crop_size", ""));
    return mmqi_recipe_check_pinpoints(recipe, source->settings,
                                       mmqi_source_key(source, "image_grid_pinpoints", ""));
}

/* The pinpoint that keeps most of the picture's pixels, of those the one that wastes least. */
static struct mmqi_view best_pinpoint(const struct mmqi_recipe *recipe, double width, double height)
{
    int64_t most = 0, least = INT64_MAX;
    int32_t best = 0;

    for (int32_t i = 0; i < recipe->n_pinpoints; i++) {
        const struct mmqi_view *size = &recipe->pinpoints[i];
        double scale = fmin(size->width / width, size->height / height);
        int64_t kept = (int64_t)(width * scale) * (int64_t)(height * scale), wasted;

        if (kept > (int64_t)(width * height))
            kept = (int64_t)(width * height);
        wasted = (int64_t)size->width * size->height - kept;
        if (kept > most || (kept == most && wasted < least)) {
            most = kept;
            least = wasted;
            best = i;
        }
    }
    return recipe->pinpoints[best];
}

static int32_t measure_anyres(struct mmqi_views *out, const struct mmqi_recipe *recipe)
{
    struct mmqi_view canvas = best_pinpoint(recipe, out->width, out->height);

    out->across = canvas.width / recipe->tile;
    out->down = canvas.height / recipe->tile;
    return add_tiles(out, recipe->tile, 1 + out->across * out->down);
}

/* The picture in the middle of its tiles, as great as they take it. */
static struct mmqi_layer lay_in_middle(const struct mmqi_views *views, int32_t tile,
                                       const struct mmqi_image *image)
{
    double width = views->across * tile, height = views->down * tile;
    double across = width / image->width, down = height / image->height;
    struct mmqi_layer layer = {.image = image};

    if (across < down)
        height = fmin(ceil(image->height * across), height);
    else
        width = fmin(ceil(image->width * down), width);
    layer.width = (int32_t)width;
    layer.height = (int32_t)height;
    layer.left = (views->across * tile - layer.width) / 2;
    layer.top = (views->down * tile - layer.height) / 2;
    return layer;
}

static int32_t lay_anyres(struct mmqi_drawing *drawing, const struct mmqi_recipe *recipe,
                          const struct mmqi_image *image)
{
    struct mmqi_layer layer = lay_in_middle(&drawing->views, recipe->tile, image);

    layer.filter = recipe->filter;
    drawing->layer[0] =
        (struct mmqi_layer){image, recipe->tile, recipe->tile, recipe->filter, 0, 0};
    mmqi_drawing_tiles(drawing, 1, &layer);
    return MMQ_OK;
}

static int32_t max_views_anyres(const struct mmqi_recipe *recipe)
{
    int32_t most = 0;

    for (int32_t i = 0; i < recipe->n_pinpoints; i++)
        if (count_tiles(recipe, i) > most)
            most = count_tiles(recipe, i);
    return 1 + most;
}

static const struct mmqi_recipe anyres_defaults = {
    .kind = MMQI_RECIPE_ANYRES,
    MMQI_CLIP_STEPS,
    .do_pad = true,
    .tile = 224,
    .n_pinpoints = 5,
    .pinpoints = {{672, 336}, {336, 672}, {672, 672}, {336, 1008}, {1008, 336}},
};

const struct mmqi_recipe_ops mmqi_recipe_anyres = {
    .defaults = &anyres_defaults,
    .read = read_anyres,
    .check = check_anyres,
    .measure = measure_anyres,
    .lay = lay_anyres,
    .max_views = max_views_anyres,
};

/* ---- split ---- */

static int32_t read_split_size(struct mmqi_recipe *recipe, struct mmqi_recipe_source *source)
{
    struct mmqi_recipe found = {0};
    int32_t status;

    if (!mmqi_source_has(source, "size", ""))
        return MMQ_OK;
    if (mmqi_source_has(source, "size", ".longest_edge"))
        status = mmqi_source_side(source, "size", ".longest_edge", &found.longest_edge);
    else
        status = mmqi_source_sides(source, "size", &found.height, &found.width);
    if (status != MMQ_OK)
        return status;
    recipe->longest_edge = found.longest_edge;
    recipe->height = found.height;
    recipe->width = found.width;
    return MMQ_OK;
}

static int32_t read_split(struct mmqi_recipe *recipe, struct mmqi_recipe_source *source)
{
    int32_t status = read_split_size(recipe, source);

    if (status == MMQ_OK)
        status = mmqi_settings_bool(
            source->settings, mmqi_source_key(source, "do_image_splitting", ""), &recipe->do_split);
    if (status != MMQ_OK || !mmqi_source_has(source, "max_image_size", ""))
        return status;
    if (!mmqi_source_has(source, "max_image_size", ".longest_edge"))
        return mmqi_fail(MMQ_ERR_FORMAT, "%s: '%s' is missing",
                         mmqi_settings_name(source->settings), source->key);
    return mmqi_source_side(source, "max_image_size", ".longest_edge", &recipe->tile);
}

static int32_t divide_up(int32_t a, int32_t b)
{
    return a / b + (a % b != 0);
}

static int32_t greater(int32_t a, int32_t b)
{
    return a > b ? a : b;
}

/* A square of tiles as long as the longest edge holds what any picture becomes. An odd other edge
 * is rounded up. */
static int32_t max_tiles_across(const struct mmqi_recipe *recipe)
{
    int32_t longest = recipe->longest_edge + recipe->longest_edge % 2;

    if (longest > MAX_LONGEST)
        longest = MAX_LONGEST;
    if (!longest)
        longest = greater(recipe->height, recipe->width);
    return divide_up(longest, recipe->tile);
}

static int32_t max_views_split(const struct mmqi_recipe *recipe)
{
    int32_t across = max_tiles_across(recipe);

    if (!recipe->do_split)
        return 1;
    if (!recipe->do_resize)
        return MMQI_MAX_VIEWS;
    return across == 1 ? 1 : across * across + 1;
}

static int32_t check_split(struct mmqi_recipe *recipe, struct mmqi_recipe_source *source)
{
    bool is_bound = recipe->do_resize && recipe->do_split;

    if (is_bound && max_views_split(recipe) > MMQI_MAX_VIEWS)
        return mmqi_fail(MMQ_ERR_UNSUPPORTED,
                         "%s: '%s' makes up to %d x %d tiles of %d; %d are run",
                         mmqi_settings_name(source->settings), mmqi_source_key(source, "size", ""),
                         (int)max_tiles_across(recipe), (int)max_tiles_across(recipe),
                         (int)recipe->tile, MAX_TILES);
    return mmqi_source_refuse(source, "do_center_crop", recipe->do_center_crop,
                              "this processor does not crop");
}

/* The longest edge becomes `longest`; the other is truncated, and made even if `even`. */
static struct mmqi_view scale_longest(struct mmqi_view size, int32_t longest, bool even)
{
    double aspect = (double)size.width / size.height;
    struct mmqi_view result = {longest, longest};
    int32_t *other = size.width >= size.height ? &result.height : &result.width;

    *other = (int32_t)(size.width >= size.height ? longest / aspect : longest * aspect);
    if (even)
        *other += *other % 2;
    *other = greater(*other, 1);
    return result;
}

static struct mmqi_view first_size(const struct mmqi_recipe *recipe, int32_t width, int32_t height)
{
    struct mmqi_view size = {width, height};

    if (!recipe->do_resize)
        return size;
    if (!recipe->longest_edge)
        return (struct mmqi_view){recipe->width, recipe->height};
    size = scale_longest(size, recipe->longest_edge, true);
    return greater(size.width, size.height) > MAX_LONGEST ? scale_longest(size, MAX_LONGEST, false)
                                                          : size;
}

/* Whole tiles: the longer edge rounded up, the other scaled with it and then rounded up. */
static struct mmqi_view second_size(const struct mmqi_recipe *recipe, struct mmqi_view first)
{
    double aspect = (double)first.width / first.height;
    int32_t tile = recipe->tile;
    struct mmqi_view size;

    if (first.width >= first.height) {
        size.width = divide_up(first.width, tile) * tile;
        size.height = divide_up((int32_t)(size.width / aspect), tile) * tile;
    } else {
        size.height = divide_up(first.height, tile) * tile;
        size.width = divide_up((int32_t)(size.height * aspect), tile) * tile;
    }
    return size;
}

static int32_t measure_split(struct mmqi_views *out, const struct mmqi_recipe *recipe)
{
    struct mmqi_view size = second_size(recipe, first_size(recipe, out->width, out->height));

    if (recipe->do_split && (size.width > recipe->tile || size.height > recipe->tile)) {
        out->across = size.width / recipe->tile;
        out->down = size.height / recipe->tile;
    }
    return add_tiles(out, recipe->tile, out->across * out->down + 1);
}

/* The picture resized once, then to whole tiles where it is cut. */
static int32_t resize_twice(struct mmqi_image **out, const struct mmqi_views *views,
                            const struct mmqi_recipe *recipe, const struct mmqi_image *image)
{
    struct mmqi_view first = first_size(recipe, image->width, image->height);
    struct mmqi_image *once;
    int32_t status = mmqi_resize(&once, image, first.width, first.height, recipe->filter);

    if (status != MMQ_OK || views->across == 0) {
        *out = once;
        return status;
    }
    status = mmqi_resize(out, once, views->across * recipe->tile, views->down * recipe->tile,
                         recipe->filter);
    mmqi_image_release(once);
    return status;
}

static int32_t lay_split(struct mmqi_drawing *drawing, const struct mmqi_recipe *recipe,
                         const struct mmqi_image *image)
{
    int32_t n_tiles = drawing->views.across * drawing->views.down;
    int32_t status = resize_twice(&drawing->held, &drawing->views, recipe, image);
    struct mmqi_layer layer = {.image = drawing->held, .filter = recipe->filter};

    if (status != MMQ_OK)
        return status;
    layer.width = layer.image->width;
    layer.height = layer.image->height;
    mmqi_drawing_tiles(drawing, 0, &layer);
    layer.width = layer.height = recipe->tile;
    drawing->layer[n_tiles] = layer;
    return MMQ_OK;
}

static const struct mmqi_recipe split_defaults = {
    .kind = MMQI_RECIPE_SPLIT,
    .do_resize = true,
    .do_rescale = true,
    .do_normalize = true,
    .do_pad = true,
    .do_split = true,
    .longest_edge = 4 * 364,
    .filter = MMQI_FILTER_LANCZOS,
    .rescale = MMQI_RESCALE,
    .mean = {0.5, 0.5, 0.5},
    .std = {0.5, 0.5, 0.5},
    .tile = 364,
};

const struct mmqi_recipe_ops mmqi_recipe_split = {
    .defaults = &split_defaults,
    .read = read_split,
    .check = check_split,
    .measure = measure_split,
    .lay = lay_split,
    .max_views = max_views_split,
};
