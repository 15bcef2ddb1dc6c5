/*
 * From a picture to the pixel values that a tower reads.
 *
 * A recipe is data: the steps of a family's image processor with the numbers
 * of the folder's preprocessor_config.json (or the image_processor object
 * inside processor_config.json). mmqi_recipe_read() fills it; the family says
 * which kind of recipe it uses and its class defaults.
 */
#ifndef MMQI_IMAGE_PREPROCESS_H
#define MMQI_IMAGE_PREPROCESS_H

#include <stdbool.h>

#include "image/image.h"
#include "io/settings.h"

enum mmqi_recipe_kind {
    MMQI_RECIPE_CLIP = 0, /* resize the shortest edge, centre crop, rescale, normalise */
    /* Qwen's "smart resize": both sides to multiples of patch * merge, the area within bounds, the
     * shape kept about; rescale, normalise. */
    MMQI_RECIPE_SMART = 1,
    /* LLaVA's: as CLIP, but do_pad first puts the picture on a square of the mean's colour. */
    MMQI_RECIPE_PAD = 2,
    /* LLaVA-NeXT's: the picture as one tile; then tiles, cut from the best of the pinpoints, into
     * which it is resized with its shape kept and black around it. */
    MMQI_RECIPE_ANYRES = 3,
    /* Idefics3's: resized to a longest edge, then to whole tiles, which are cut; then all of it as
     * one tile. Just that where it is not split or makes one tile. */
    MMQI_RECIPE_SPLIT = 4
};

enum { MMQI_MAX_VIEWS = 128, MMQI_MAX_PINPOINTS = 64, MMQI_MAX_VIDEO_PIXELS = 1 << 28 };

/* One of the images that a tower reads of a picture: the whole of it, or a tile; in pixels. */
struct mmqi_view {
    int32_t width, height;
};

struct mmqi_recipe {
    int32_t kind; /* enum mmqi_recipe_kind */
    bool do_resize, do_center_crop, do_rescale, do_normalize;
    bool do_pad;           /* PAD */
    bool do_split;         /* SPLIT */
    int32_t shortest_edge; /* 0 when the size is given by height and width */
    int32_t longest_edge;  /* SPLIT: instead of a shortest edge */
    int32_t height, width; /* exact size of the resize; 0 with an edge */
    int32_t crop_height, crop_width;
    int32_t filter; /* enum mmqi_filter */
    double rescale; /* 1/255 as the file spells it */
    double mean[3], std[3];
    int64_t min_pixels, max_pixels; /* SMART: of the area */
    int32_t patch, merge, frames;   /* SMART: as the file tells them */
    int32_t tile;                   /* ANYRES, SPLIT: side of a tile */
    /* SMART, of a video: how many rows all of it may make about, shared by its frames; 0: any. */
    int64_t max_video_rows;
    int32_t n_pinpoints; /* ANYRES: in the order of the file, whole tiles */
    struct mmqi_view pinpoints[MMQI_MAX_PINPOINTS];
};

/* The class defaults of transformers' processor of this kind (CLIPImageProcessor and so on; SMART:
 * Qwen2VLImageProcessor; SPLIT: Idefics3ImageProcessor, which SmolVLM's equals). */
void mmqi_recipe_defaults(struct mmqi_recipe *recipe, int32_t kind);

/*
 * Read the keys at `prefix` ("" or "image_processor.") over the defaults already in *recipe. Sizes
 * must be 1..8192, std > 0.
 *
 *   CLIP, PAD  `size` is an int, {"shortest_edge"} or {"height", "width"}; `crop_size` an int or
 *              {"height", "width"}
 *   SMART      `size` is {"shortest_edge", "longest_edge"}, both of them areas, or {"min_pixels",
 *              "max_pixels"}, which also stand beside it and then win
 *   ANYRES     `size` and `crop_size` as CLIP's, of one square; `image_grid_pinpoints`, a list of
 *              [height, width]; `recipe` without any keeps none, to be given them later
 *   SPLIT      `size` is {"longest_edge"} or {"height", "width"}; `max_image_size`, a tile, is
 *              {"longest_edge"}; `do_image_splitting`
 *
 * A recipe that could make more than MMQI_MAX_VIEWS of a picture of any size is refused.
 */
int32_t mmqi_recipe_read(struct mmqi_recipe *recipe, const struct mmqi_settings *settings,
                         const char *prefix);

/* The list [height, width] at `path` into recipe->pinpoints, if it is there. */
int32_t mmqi_recipe_read_pinpoints(struct mmqi_recipe *recipe, const struct mmqi_settings *settings,
                                   const char *path);
/* Are they whole tiles, and not too many? `settings` and `path` tell where they were read. */
int32_t mmqi_recipe_check_pinpoints(const struct mmqi_recipe *recipe,
                                    const struct mmqi_settings *settings, const char *path);

/* SMART: a bound of the squares of patch * merge that a picture of any size makes. */
int64_t mmqi_recipe_max_squares(const struct mmqi_recipe *recipe);

/* A bound of the views that a picture of any size makes. */
int32_t mmqi_recipe_max_views(const struct mmqi_recipe *recipe);

/* What becomes of a picture, in the order in which the tower reads it. */
struct mmqi_views {
    int32_t width, height; /* of the picture itself */
    int32_t across, down;  /* the grid of its tiles, row-major among the views; 0: it is not cut */
    int32_t n;             /* views: tiles, and the picture as a whole before or after them */
    struct mmqi_view view[MMQI_MAX_VIEWS];
};

/* The views that mmqi_preprocess() will make of a picture of this size, at least one.
 * MMQ_ERR_LIMIT for a shape that the recipe refuses, and where they would have more pixels together
 * than any picture may have. */
int32_t mmqi_preprocess_views(struct mmqi_views *out, const struct mmqi_recipe *recipe,
                              int32_t width, int32_t height);
/* Pixels of all views. */
size_t mmqi_views_pixels(const struct mmqi_views *views);

/*
 * A picture made ready for its views to be drawn one at a time: what they have in common is
 * computed once. `views` are those of a picture of this size; `image` outlives the drawing.
 */
struct mmqi_drawing;
int32_t mmqi_drawing_create(struct mmqi_drawing **out, const struct mmqi_views *views,
                            const struct mmqi_recipe *recipe, const struct mmqi_image *image);
/* values [3, height, width] of view k. */
int32_t mmqi_drawing_view(const struct mmqi_drawing *drawing, int32_t k, float *values);
void mmqi_drawing_free(struct mmqi_drawing *drawing); /* accepts NULL */

/* pixel_values f32, [3, height, width] of each view after each other, freed with mmqi_free(): all
 * that mmqi_drawing_view() gives. x * rescale in double, rounded to float32, then
 * (x - mean) / std in float32, as transformers' Pillow processors compute. Centre crop pads with
 * zeros (before rescaling) where the picture is smaller. */
int32_t mmqi_preprocess(float **out, const struct mmqi_views *views,
                        const struct mmqi_recipe *recipe, const struct mmqi_image *image);

/*
 * SMART: the views of a video, one for every `frames` of it; the last frame stands for those that
 * the last view lacks. mmqi_preprocess_group() makes the pixels of view k, [3, frames, height,
 * width] f32, freed with mmqi_free().
 */
int64_t mmqi_recipe_max_video_squares(const struct mmqi_recipe *recipe); /* of one view */
int32_t mmqi_preprocess_video_views(struct mmqi_views *out, const struct mmqi_recipe *recipe,
                                    const struct mmqi_image *video);
int32_t mmqi_preprocess_group(float **out, const struct mmqi_views *views, int32_t k,
                              const struct mmqi_recipe *recipe, const struct mmqi_image *video);

#endif
