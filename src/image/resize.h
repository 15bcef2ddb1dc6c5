/*
 * Pillow's 8-bit resize, exact: two passes (horizontal, then vertical), 22-bit
 * fixed-point coefficients normalised in double, rounded and clipped to
 * 0..255 between the passes (specs: Pillow src/libImaging/Resample.c).
 */
#ifndef MMQI_IMAGE_RESIZE_H
#define MMQI_IMAGE_RESIZE_H

#include "image/image.h"

/* The numbers are Pillow's, as preprocessor_config.json spells "resample". */
enum mmqi_filter {
    MMQI_FILTER_NEAREST = 0,
    MMQI_FILTER_LANCZOS = 1,
    MMQI_FILTER_BILINEAR = 2,
    MMQI_FILTER_BICUBIC = 3
};

/* A new picture of width x height (both >= 1). MMQ_ERR_UNSUPPORTED for another filter. */
int32_t mmqi_resize(struct mmqi_image **out, const struct mmqi_image *image, int32_t width,
                    int32_t height, int32_t filter);

#endif
