/*
 * Pictures: decoded 8-bit RGB, immutable and counted.
 *
 * Decoders check the pixel limit and the file's own sizes before pixels are
 * allocated. Conversion to RGB is Pillow's convert("RGB"): grey replicated,
 * alpha dropped, palette looked up (its transparency ignored), 16-bit grey
 * saturated at 255, CMYK by clip(nk - MULDIV255(c, nk)).
 */
#ifndef MMQI_IMAGE_IMAGE_H
#define MMQI_IMAGE_IMAGE_H

#include <stddef.h>
#include <stdint.h>

struct mmqi_image {
    int32_t width, height;
    uint64_t hash;   /* of size and pixels; equal pictures have equal hashes */
    uint8_t *rgb;    /* [height, width, 3], rows contiguous */
    int32_t n_users; /* changed with atomics only */
    /* A video: pictures of this size, and rgb NULL. A picture has no frames. */
    struct mmqi_image **frames;
    int32_t n_frames;
    double fps; /* frames a second */
};

enum { MMQI_MAX_FRAMES = 1 << 16 };

/* Limits of a decode; zero fields mean the defaults: 2^28 pixels, sides of at most 65,535. */
struct mmqi_image_limits {
    uint64_t max_pixels;
};

/* PNG or JPEG by their first bytes; `name` opens every message. */
int32_t mmqi_image_decode(struct mmqi_image **out, const char *name, const void *data, size_t size,
                          const struct mmqi_image_limits *limits);
/* channels 1 (grey), 3 (RGB) or 4 (RGBA, alpha dropped); row_bytes 0 means width * channels. The
 * pixels are copied. */
int32_t mmqi_image_from_pixels(struct mmqi_image **out, const uint8_t *pixels, int32_t width,
                               int32_t height, int32_t channels, size_t row_bytes,
                               const struct mmqi_image_limits *limits);
/* A video of these pictures, which it keeps. MMQ_ERR_INVALID where they differ in size, are none or
 * too many, or one is a video; for a rate that is not 0.01 .. 1000. */
int32_t mmqi_image_from_frames(struct mmqi_image **out, struct mmqi_image *const *frames, size_t n,
                               double fps);
struct mmqi_image *mmqi_image_retain(struct mmqi_image *image); /* any thread */
void mmqi_image_release(struct mmqi_image *image);              /* accepts NULL */
int mmqi_image_equal(const struct mmqi_image *a,
                     const struct mmqi_image *b); /* 1 when size and pixels are equal */

/* Shared by the decoders (png.c, jpeg.c). MMQ_ERR_LIMIT names the sizes; a side of 0 is
 * MMQ_ERR_FORMAT. */
int32_t mmqi_image_check(const char *name, uint64_t width, uint64_t height,
                         const struct mmqi_image_limits *limits);
/* The same check, then the memory; the pixels are not set. */
int32_t mmqi_image_create(struct mmqi_image **out, const char *name, uint64_t width,
                          uint64_t height, const struct mmqi_image_limits *limits);
void mmqi_image_finish(struct mmqi_image *image); /* computes the hash once the pixels are there */
int32_t mmqi_png_decode(struct mmqi_image **out, const char *name, const void *data, size_t size,
                        const struct mmqi_image_limits *limits);
int32_t mmqi_jpeg_decode(struct mmqi_image **out, const char *name, const void *data, size_t size,
                         const struct mmqi_image_limits *limits);

#endif
