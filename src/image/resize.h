/*
 * Pillow's 8-bit resize, exact: two passes with 22-bit fixed-point
 * coefficients normalised in double, rounded and clipped to 0..255 between the
 * passes; horizontal first, or vertical first where rows shrink by more than
 * twice as many pixels as columns (specs: Pillow 13 src/libImaging/Resample.c).
 *
 * Or, on demand, torch's of 8-bit pictures with antialias: the same kernels,
 * but weights of as many bits as make the greatest one fit in 16 (its sign
 * among them), axis by axis, and always horizontal first.
 */
#ifndef MMQI_IMAGE_RESIZE_H
#define MMQI_IMAGE_RESIZE_H

#include "image/image.h"

/* The numbers are Pillow's, as preprocessor_config.json spells "resample". */
enum mmqi_filter {
    MMQI_FILTER_NEAREST = 0,
    MMQI_FILTER_LANCZOS = 1,
    MMQI_FILTER_BILINEAR = 2,
    MMQI_FILTER_BICUBIC = 3,
    MMQI_FILTER_TORCH = 16 /* beside BILINEAR or BICUBIC: as torch rounds */
};

/* A new picture of width x height (both >= 1). MMQ_ERR_UNSUPPORTED for another filter. */
int32_t mmqi_resize(struct mmqi_image **out, const struct mmqi_image *image, int32_t width,
                    int32_t height, int32_t filter);

/* A part of a picture, in pixels. */
struct mmqi_region {
    int32_t left, top, width, height;
};

/* The part `region`, which lies inside, of what mmqi_resize() would make; the rest is never
 * computed, and width and height may pass the limits of a picture. */
int32_t mmqi_resize_region(struct mmqi_image **out, const struct mmqi_image *image, int32_t width,
                           int32_t height, int32_t filter, const struct mmqi_region *region);

#endif
