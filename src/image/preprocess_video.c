/*
 * Videos as Qwen2-VL's processor takes them: all frames resized alike, frames
 * taken together by the patch convolution's depth.
 */
#include <string.h>

#include "core/mem.h"
#include "core/status.h"
#include "image/preprocess.h"

/* The greatest area of a frame: where the rows of all are bounded, an even share of them, but
 * little more than the least area at least. As the processor computes, in double and in whole
 * numbers. */
static int64_t greatest_area(const struct mmqi_recipe *recipe, int32_t n_frames)
{
    int64_t square = (int64_t)recipe->patch * recipe->merge, share, least;

    if (recipe->max_video_rows == 0)
        return recipe->max_pixels;
    share = (int64_t)((double)(recipe->max_video_rows * square * square) * 0.9) * recipe->frames /
            n_frames;
    least = (int64_t)((double)recipe->min_pixels * 1.05);
    if (share > recipe->max_pixels)
        share = recipe->max_pixels;
    return share > least ? share : least;
}

int64_t mmqi_recipe_max_video_squares(const struct mmqi_recipe *recipe)
{
    struct mmqi_recipe bounded = *recipe;
    int64_t least = (int64_t)((double)recipe->min_pixels * 1.05);

    if (recipe->max_video_rows > 0 && bounded.max_pixels < least)
        bounded.max_pixels = least;
    return mmqi_recipe_max_squares(&bounded);
}

int32_t mmqi_preprocess_video_views(struct mmqi_views *out, const struct mmqi_recipe *recipe,
                                    const struct mmqi_image *video)
{
    struct mmqi_recipe bounded = *recipe;
    int32_t n = (video->n_frames + recipe->frames - 1) / recipe->frames, status;

    bounded.max_pixels = greatest_area(recipe, video->n_frames);
    status = mmqi_preprocess_views(out, &bounded, video->width, video->height);
    if (status != MMQ_OK)
        return status;
    if (n > MMQI_MAX_VIEWS)
        return mmqi_fail(MMQ_ERR_LIMIT, "preprocess: a video of %d frames, at most %d are taken",
                         (int)video->n_frames, MMQI_MAX_VIEWS * (int)recipe->frames);
    for (out->n = 1; out->n < n; out->n++)
        out->view[out->n] = out->view[0];
    if (mmqi_views_pixels(out) > MMQI_MAX_VIDEO_PIXELS)
        return mmqi_fail(MMQ_ERR_LIMIT, "preprocess: %d views of a video have %zu pixels", (int)n,
                         mmqi_views_pixels(out));
    return MMQ_OK;
}

/* Frame f of the video as plane f of each channel. */
static int32_t draw_frame(float *pixels, const struct mmqi_view *view,
                          const struct mmqi_recipe *recipe, const struct mmqi_image *frame,
                          int32_t f)
{
    struct mmqi_views one = {.width = frame->width, .height = frame->height, .n = 1};
    size_t plane = (size_t)view->width * (size_t)view->height;
    float *drawn = NULL;
    int32_t status;

    one.view[0] = *view;
    status = mmqi_preprocess(&drawn, &one, recipe, frame);
    for (size_t c = 0; c < 3 && status == MMQ_OK; c++)
        memcpy(pixels + (c * (size_t)recipe->frames + (size_t)f) * plane, drawn + c * plane,
               plane * sizeof *pixels);
    mmqi_free(drawn);
    return status;
}

int32_t mmqi_preprocess_group(float **out, const struct mmqi_views *views, int32_t k,
                              const struct mmqi_recipe *recipe, const struct mmqi_image *video)
{
    const struct mmqi_view *view = &views->view[k];
    size_t plane = (size_t)view->width * (size_t)view->height;
    int32_t first = k * recipe->frames, last = video->n_frames - 1, status = MMQ_OK;
    float *pixels = mmqi_alloc_array(plane, 3 * (size_t)recipe->frames * sizeof *pixels);

    *out = NULL;
    if (!pixels)
        return mmqi_fail(MMQ_ERR_NOMEM, "preprocess: no memory for frames of %d x %d pixels",
                         (int)view->width, (int)view->height);
    for (int32_t f = 0; f < recipe->frames && status == MMQ_OK; f++)
        status =
            draw_frame(pixels, view, recipe, video->frames[first + f < last ? first + f : last], f);
    if (status == MMQ_OK)
        *out = pixels;
    else
        mmqi_free(pixels);
    return status;
}
