/*
 * A recipe's numbers from preprocessor_config.json: what all kinds have, and readers for what
 * some have.
 */
#include <stdio.h>

#include "core/status.h"
#include "image/preprocess_parts.h"

enum { MAX_SIZE = 8192 };

const char *mmqi_source_key(struct mmqi_recipe_source *source, const char *name, const char *part)
{
    snprintf(source->key, sizeof source->key, "%s%s%s", source->prefix, name, part);
    return source->key;
}

bool mmqi_source_has(struct mmqi_recipe_source *source, const char *name, const char *part)
{
    return mmqi_settings_has(source->settings, mmqi_source_key(source, name, part));
}

int32_t mmqi_source_side(struct mmqi_recipe_source *source, const char *name, const char *part,
                         int32_t *side)
{
    int64_t value = *side;
    int32_t status = mmqi_settings_int(source->settings, mmqi_source_key(source, name, part), 1,
                                       MAX_SIZE, &value);

    if (status == MMQ_OK)
        *side = (int32_t)value;
    return status;
}

int32_t mmqi_source_sides(struct mmqi_recipe_source *source, const char *name, int32_t *height,
                          int32_t *width)
{
    int32_t status;

    if (!mmqi_source_has(source, name, ".height") || !mmqi_source_has(source, name, ".width"))
        return mmqi_fail(MMQ_ERR_FORMAT, "%s: '%s%s' gives no height and width",
                         mmqi_settings_name(source->settings), source->prefix, name);
    status = mmqi_source_side(source, name, ".height", height);
    if (status == MMQ_OK)
        status = mmqi_source_side(source, name, ".width", width);
    return status;
}

/* Keys of `size` that other image processors know and that would change the result. */
static int32_t refuse_other_sizes(struct mmqi_recipe_source *source)
{
    static const char *const others[] = {".longest_edge", ".max_height", ".max_width",
                                         ".min_pixels", ".max_pixels"};

    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        if (mmqi_source_has(source, "size", others[i]))
            return mmqi_fail(MMQ_ERR_UNSUPPORTED, "%s: '%s' is not read by this image processor",
                             mmqi_settings_name(source->settings), source->key);
    return MMQ_OK;
}

int32_t mmqi_source_size(struct mmqi_recipe_source *source, struct mmqi_recipe *recipe)
{
    struct mmqi_recipe found = {0};
    bool is_object = mmqi_source_has(source, "size", ".shortest_edge") ||
                     mmqi_source_has(source, "size", ".height") ||
                     mmqi_source_has(source, "size", ".width");
    int32_t status;

    if (!mmqi_source_has(source, "size", ""))
        return MMQ_OK;
    status = refuse_other_sizes(source);
    if (status != MMQ_OK)
        return status;
    if (!is_object)
        status = mmqi_source_side(source, "size", "", &found.shortest_edge);
    else if (mmqi_source_has(source, "size", ".shortest_edge"))
        status = mmqi_source_side(source, "size", ".shortest_edge", &found.shortest_edge);
    else
        status = mmqi_source_sides(source, "size", &found.height, &found.width);
    if (status != MMQ_OK)
        return status;
    recipe->shortest_edge = found.shortest_edge;
    recipe->height = found.height;
    recipe->width = found.width;
    return MMQ_OK;
}

int32_t mmqi_source_crop(struct mmqi_recipe_source *source, struct mmqi_recipe *recipe)
{
    int32_t status;

    if (!mmqi_source_has(source, "crop_size", ""))
        return MMQ_OK;
    if (mmqi_source_has(source, "crop_size", ".height") ||
        mmqi_source_has(source, "crop_size", ".width"))
        return mmqi_source_sides(source, "crop_size", &recipe->crop_height, &recipe->crop_width);
    status = mmqi_source_side(source, "crop_size", "", &recipe->crop_height);
    recipe->crop_width = recipe->crop_height;
    return status;
}

static int32_t read_filter(struct mmqi_recipe *recipe, struct mmqi_recipe_source *source)
{
    int64_t filter = recipe->filter;
    int32_t status =
        mmqi_settings_int(source->settings, mmqi_source_key(source, "resample", ""), 0, 5, &filter);

    if (status != MMQ_OK)
        return status;
    if (filter > MMQI_FILTER_BICUBIC)
        return mmqi_fail(MMQ_ERR_UNSUPPORTED, "%s: '%s' is %d, filters 0 to 3 are there",
                         mmqi_settings_name(source->settings), source->key, (int)filter);
    recipe->filter = (int32_t)filter;
    return MMQ_OK;
}

/* Three numbers, or one for all channels. */
static int32_t read_channels(struct mmqi_recipe_source *source, const char *name, double min,
                             double values[3])
{
    static const char *const parts[] = {".0", ".1", ".2"};
    int64_t count = mmqi_settings_count(source->settings, mmqi_source_key(source, name, ""));
    int32_t status = MMQ_OK;

    if (count < 0) {
        status = mmqi_settings_number(source->settings, source->key, min, 1e6, &values[0]);
        if (status == MMQ_OK && mmqi_source_has(source, name, ""))
            values[1] = values[2] = values[0];
        return status;
    }
    if (count != 3)
        return mmqi_fail(MMQ_ERR_FORMAT, "%s: '%s' has %d numbers, not 3",
                         mmqi_settings_name(source->settings), source->key, (int)count);
    for (int i = 0; i < 3 && status == MMQ_OK; i++) {
        if (!mmqi_source_has(source, name,
                             parts[i])) /* a null: no number, and no default for one channel */
            return mmqi_fail(MMQ_ERR_FORMAT, "%s: '%s' is null, expected a number",
                             mmqi_settings_name(source->settings), source->key);
        status = mmqi_settings_number(source->settings, source->key, min, 1e6, &values[i]);
    }
    return status;
}

static int32_t read_switches(struct mmqi_recipe *recipe, struct mmqi_recipe_source *source)
{
    const struct {
        const char *name;
        bool *value;
    } switches[] = {{"do_resize", &recipe->do_resize},
                    {"do_center_crop", &recipe->do_center_crop},
                    {"do_rescale", &recipe->do_rescale},
                    {"do_normalize", &recipe->do_normalize},
                    {"do_pad", &recipe->do_pad}};
    int32_t status = MMQ_OK;

    for (size_t i = 0; i < sizeof switches / sizeof *switches && status == MMQ_OK; i++)
        status = mmqi_settings_bool(source->settings, mmqi_source_key(source, switches[i].name, ""),
                                    switches[i].value);
    return status;
}

int32_t mmqi_source_refuse(struct mmqi_recipe_source *source, const char *name, bool on,
                           const char *why)
{
    if (!on)
        return MMQ_OK;
    return mmqi_fail(MMQ_ERR_UNSUPPORTED, "%s: '%s' is true; %s",
                     mmqi_settings_name(source->settings), mmqi_source_key(source, name, ""), why);
}

int32_t mmqi_recipe_read(struct mmqi_recipe *recipe, const struct mmqi_settings *settings,
                         const char *prefix)
{
    const double least_std = 1e-9, most_scale = 1e6;
    struct mmqi_recipe_source source = {.settings = settings, .prefix = prefix};
    const struct mmqi_recipe_ops *ops = mmqi_recipe_ops(recipe);
    struct mmqi_recipe result = *recipe;
    int32_t status = read_switches(&result, &source);

    if (status == MMQ_OK)
        status = ops->read(&result, &source);
    if (status == MMQ_OK)
        status = read_filter(&result, &source);
    if (status == MMQ_OK)
        status = mmqi_settings_number(settings, mmqi_source_key(&source, "rescale_factor", ""), 0.0,
                                      most_scale, &result.rescale);
    if (status == MMQ_OK)
        status = read_channels(&source, "image_mean", -1e6, result.mean);
    if (status == MMQ_OK)
        status = read_channels(&source, "image_std", least_std, result.std);
    if (status == MMQ_OK)
        status = ops->check(&result, &source);
    if (status == MMQ_OK)
        *recipe = result;
    return status;
}
