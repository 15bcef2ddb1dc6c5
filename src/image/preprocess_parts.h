/*
 * Shared by the kinds of recipes (preprocess_*.c): where their numbers are read from, and how a
 * view is drawn.
 */
#ifndef MMQI_IMAGE_PREPROCESS_PARTS_H
#define MMQI_IMAGE_PREPROCESS_PARTS_H

#include "image/preprocess.h"
#include "image/resize.h"

/* ---- settings (recipe.c) ---- */

enum { MMQI_MAX_SOURCE_KEY = 160 };

/* Where the keys are read from; `key` is the path in hand. */
struct mmqi_recipe_source {
    const struct mmqi_settings *settings;
    const char *prefix;
    char key[MMQI_MAX_SOURCE_KEY];
};

/* prefix name part, kept until the next call. */
const char *mmqi_source_key(struct mmqi_recipe_source *source, const char *name, const char *part);
bool mmqi_source_has(struct mmqi_recipe_source *source, const char *name, const char *part);
/* 1..8192 pixels; as it is where the key is absent. */
int32_t mmqi_source_side(struct mmqi_recipe_source *source, const char *name, const char *part,
                         int32_t *side);
/* Both sides of {"height", "width"}; one alone is an error. */
int32_t mmqi_source_sides(struct mmqi_recipe_source *source, const char *name, int32_t *height,
                          int32_t *width);
/* `size`: an integer (the shortest edge), {"shortest_edge"} or {"height", "width"}. */
int32_t mmqi_source_size(struct mmqi_recipe_source *source, struct mmqi_recipe *recipe);
/* `crop_size`: an integer (a square) or {"height", "width"}. */
int32_t mmqi_source_crop(struct mmqi_recipe_source *source, struct mmqi_recipe *recipe);
/* Fails where the switch at `name`, whose value is `on`, is on: `why` it must not be. */
int32_t mmqi_source_refuse(struct mmqi_recipe_source *source, const char *name, bool on,
                           const char *why);

/* ---- views (preprocess.c) ---- */

/* What each byte of each channel becomes. */
struct mmqi_pixel_table {
    float value[3][256];
};

/* A picture, resized to width x height by `filter` and laid so that its left top corner comes to
 * (left, top) of a view: outside of it where they are negative. */
struct mmqi_layer {
    const struct mmqi_image *image;
    int32_t width, height, filter;
    int32_t left, top;
};

struct mmqi_drawing {
    struct mmqi_views views;
    struct mmqi_layer layer[MMQI_MAX_VIEWS]; /* what each view shows, on black */
    struct mmqi_image *held;                 /* made of the picture, for layers; or NULL */
    struct mmqi_pixel_table table;
};

/* The layers of the grid's tiles, row by row, that show parts of one layer; from `first` on. */
void mmqi_drawing_tiles(struct mmqi_drawing *drawing, int32_t first,
                        const struct mmqi_layer *layer);

/* Append a view. MMQ_ERR_LIMIT for one too many. */
int32_t mmqi_views_add(struct mmqi_views *views, int32_t width, int32_t height);

/* ---- kinds ---- */

struct mmqi_recipe_ops {
    const struct mmqi_recipe *defaults;
    /* The settings that only this kind has. */
    int32_t (*read)(struct mmqi_recipe *recipe, struct mmqi_recipe_source *source);
    /* Whether all settings go together; may fill what follows from them. */
    int32_t (*check)(struct mmqi_recipe *recipe, struct mmqi_recipe_source *source);
    /* Grid and views of a picture whose size `out` tells. */
    int32_t (*measure)(struct mmqi_views *out, const struct mmqi_recipe *recipe);
    /* The layers of all views, and what they hold. */
    int32_t (*lay)(struct mmqi_drawing *drawing, const struct mmqi_recipe *recipe,
                   const struct mmqi_image *image);
    int32_t (*max_views)(const struct mmqi_recipe *recipe);
};

extern const struct mmqi_recipe_ops mmqi_recipe_clip, mmqi_recipe_smart, mmqi_recipe_pad,
    mmqi_recipe_anyres, mmqi_recipe_split;

/* What CLIP's processor and those after its fashion begin with. */
#define MMQI_CLIP_STEPS                                                                            \
    .do_resize = true, .do_center_crop = true, .do_rescale = true, .do_normalize = true,           \
    .shortest_edge = 224, .crop_height = 224, .crop_width = 224, .filter = MMQI_FILTER_BICUBIC,    \
    .rescale = MMQI_RESCALE, MMQI_CLIP_COLOURS
#define MMQI_CLIP_COLOURS                                                                          \
    .mean = {0.48145466, 0.4578275, 0.40821073}, .std = {0.26862954, 0.26130258, 0.27577711}
#define MMQI_RESCALE 0.00392156862745098 /* 1/255 */

const struct mmqi_recipe_ops *mmqi_recipe_ops(const struct mmqi_recipe *recipe);

/* For kinds that do not cut pictures: 1. */
int32_t mmqi_recipe_one_view(const struct mmqi_recipe *recipe);

#endif
