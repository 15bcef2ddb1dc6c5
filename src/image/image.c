/*
 * Pictures as the rest of the library holds them: making, sharing, comparing,
 * and choosing the decoder by a file's first bytes.
 */
#include "image/image.h"

#include <inttypes.h>
#include <stdbool.h>
#include <string.h>

#include "core/mem.h"
#include "core/status.h"

enum { MAX_SIDE = 65535 };
static const uint64_t DEFAULT_MAX_PIXELS = UINT64_C(1) << 28;

int32_t mmqi_image_check(const char *name, uint64_t width, uint64_t height,
                         const struct mmqi_image_limits *limits)
{
    uint64_t max_pixels = limits && limits->max_pixels ? limits->max_pixels : DEFAULT_MAX_PIXELS;

    if (width == 0 || height == 0)
        return mmqi_fail(MMQ_ERR_FORMAT, "%s: a picture of %" PRIu64 " x %" PRIu64 " pixels", name,
                         width, height);
    if (width > MAX_SIDE || height > MAX_SIDE)
        return mmqi_fail(MMQ_ERR_LIMIT,
                         "%s: a picture of %" PRIu64 " x %" PRIu64 " pixels, sides end at %d", name,
                         width, height, MAX_SIDE);
    if (width * height > max_pixels)
        return mmqi_fail(MMQ_ERR_LIMIT,
                         "%s: a picture of %" PRIu64 " x %" PRIu64 " pixels, the limit is %" PRIu64,
                         name, width, height, max_pixels);
    return MMQ_OK;
}

int32_t mmqi_image_create(struct mmqi_image **out, const char *name, uint64_t width,
                          uint64_t height, const struct mmqi_image_limits *limits)
{
    int32_t status = mmqi_image_check(name, width, height, limits);
    struct mmqi_image *image;

    *out = NULL;
    if (status != MMQ_OK)
        return status;
    image = mmqi_calloc(1, sizeof *image);
    if (image)
        image->rgb = mmqi_alloc_array((size_t)width * (size_t)height, 3);
    if (!image || !image->rgb) {
        mmqi_free(image);
        return mmqi_fail(MMQ_ERR_NOMEM,
                         "%s: no memory for a picture of %" PRIu64 " x %" PRIu64 " pixels", name,
                         width, height);
    }
    image->width = (int32_t)width;
    image->height = (int32_t)height;
    image->n_users = 1;
    *out = image;
    return MMQ_OK;
}

static size_t pixel_bytes(const struct mmqi_image *image)
{
    return (size_t)image->width * (size_t)image->height * 3;
}

static uint64_t mix(uint64_t hash, uint64_t word)
{
    hash = (hash ^ word) * UINT64_C(0x9E3779B97F4A7C15);
    return hash ^ hash >> 32;
}

void mmqi_image_finish(struct mmqi_image *image)
{
    size_t size = pixel_bytes(image), at;
    uint64_t hash = mix(mix(0, (uint64_t)image->width), (uint64_t)image->height), word;

    for (at = 0; size - at >= sizeof word; at += sizeof word) {
        memcpy(&word, image->rgb + at, sizeof word);
        hash = mix(hash, word);
    }
    word = 0;
    memcpy(&word, image->rgb + at, size - at);
    image->hash = mix(hash, word);
}

/* One row of `channels` bytes a pixel to RGB: grey replicated, alpha dropped. */
static void copy_row(uint8_t *rgb, const uint8_t *row, int32_t width, int32_t channels)
{
    int32_t second = channels == 1 ? 0 : 1, third = channels == 1 ? 0 : 2;

    if (channels == 3) {
        memcpy(rgb, row, (size_t)width * 3);
        return;
    }
    for (int32_t x = 0; x < width; x++, rgb += 3, row += channels) {
        rgb[0] = row[0];
        rgb[1] = row[second];
        rgb[2] = row[third];
    }
}

int32_t mmqi_image_from_pixels(struct mmqi_image **out, const uint8_t *pixels, int32_t width,
                               int32_t height, int32_t channels, size_t row_bytes,
                               const struct mmqi_image_limits *limits)
{
    size_t least = (size_t)width * (size_t)channels;
    int32_t status;

    *out = NULL;
    if (!pixels || width < 1 || height < 1)
        return mmqi_fail(MMQ_ERR_INVALID, "pixels: %s, %" PRId32 " x %" PRId32,
                         pixels ? "there" : "NULL", width, height);
    if (channels != 1 && channels != 3 && channels != 4)
        return mmqi_fail(MMQ_ERR_INVALID, "pixels: %" PRId32 " channels, not 1, 3 or 4", channels);
    if (row_bytes == 0)
        row_bytes = least;
    if (row_bytes < least)
        return mmqi_fail(MMQ_ERR_INVALID,
                         "pixels: rows of %zu bytes, %" PRId32 " x %" PRId32 " need %zu", row_bytes,
                         width, channels, least);
    status = mmqi_image_create(out, "pixels", (uint64_t)width, (uint64_t)height, limits);
    if (status != MMQ_OK)
        return status;
    for (int32_t y = 0; y < height; y++)
        copy_row((*out)->rgb + (size_t)y * (size_t)width * 3, pixels + (size_t)y * row_bytes, width,
                 channels);
    mmqi_image_finish(*out);
    return MMQ_OK;
}

/* ---- videos ---- */

static int32_t check_frames(struct mmqi_image *const *frames, size_t n, double fps)
{
    if (n < 1 || n > MMQI_MAX_FRAMES)
        return mmqi_fail(MMQ_ERR_INVALID, "video: %zu frames, not 1..%d", n, MMQI_MAX_FRAMES);
    if (!(fps >= 0.01 && fps <= 1000.0))
        return mmqi_fail(MMQ_ERR_INVALID, "video: frames a second are not 0.01..1000");
    for (size_t i = 0; i < n; i++) {
        if (!frames[i] || frames[i]->frames)
            return mmqi_fail(MMQ_ERR_INVALID, "video: frame %zu is %s", i,
                             frames[i] ? "a video" : "NULL");
        if (frames[i]->width != frames[0]->width || frames[i]->height != frames[0]->height)
            return mmqi_fail(
                MMQ_ERR_INVALID,
                "video: frame %zu is %" PRId32 " x %" PRId32 ", frame 0 %" PRId32 " x %" PRId32, i,
                frames[i]->width, frames[i]->height, frames[0]->width, frames[0]->height);
    }
    return MMQ_OK;
}

int32_t mmqi_image_from_frames(struct mmqi_image **out, struct mmqi_image *const *frames, size_t n,
                               double fps)
{
    int32_t status = check_frames(frames, n, fps);
    struct mmqi_image *video;

    *out = NULL;
    if (status != MMQ_OK)
        return status;
    video = mmqi_calloc(1, sizeof *video);
    if (video)
        video->frames = mmqi_alloc_array(n, sizeof *video->frames);
    if (!video || !video->frames) {
        mmqi_free(video);
        return mmqi_fail(MMQ_ERR_NOMEM, "video: no memory for %zu frames", n);
    }
    video->n_users = 1;
    video->width = frames[0]->width;
    video->height = frames[0]->height;
    video->fps = fps;
    video->n_frames = (int32_t)n;
    for (size_t i = 0; i < n; i++) {
        video->frames[i] = mmqi_image_retain(frames[i]);
        video->hash = video->hash * UINT64_C(0x9e3779b97f4a7c15) + frames[i]->hash;
    }
    *out = video;
    return MMQ_OK;
}

/* ---- files ---- */

static bool starts_with(const uint8_t *data, size_t size, size_t at, const char *text, size_t n)
{
    return size >= at + n && memcmp(data + at, text, n) == 0;
}

/* What the bytes are, of the kinds that people try and this library does not read; or NULL. */
static const char *foreign_kind(const uint8_t *data, size_t size)
{
    if (starts_with(data, size, 0, "GIF8", 4))
        return "GIF";
    if (starts_with(data, size, 0, "RIFF", 4) && starts_with(data, size, 8, "WEBP", 4))
        return "WebP";
    if (starts_with(data, size, 0, "II*\0", 4) || starts_with(data, size, 0, "MM\0*", 4))
        return "TIFF";
    if (starts_with(data, size, 4, "ftypavi", 7))
        return "AVIF";
    if (starts_with(data, size, 4, "ftyphei", 7) || starts_with(data, size, 4, "ftypmif1", 8))
        return "HEIF";
    return NULL;
}

int32_t mmqi_image_decode(struct mmqi_image **out, const char *name, const void *data, size_t size,
                          const struct mmqi_image_limits *limits)
{
    const char *kind;

    *out = NULL;
    if (!data || size == 0)
        return mmqi_fail(MMQ_ERR_FORMAT, "%s: empty, not a picture", name);
    if (starts_with(data, size, 0, "\x89PNG\r\n\x1a\n", 8))
        return mmqi_png_decode(out, name, data, size, limits);
    if (starts_with(data, size, 0, "\xff\xd8\xff", 3))
        return mmqi_jpeg_decode(out, name, data, size, limits);
    kind = foreign_kind(data, size);
    if (kind)
        return mmqi_fail(MMQ_ERR_UNSUPPORTED, "%s: a %s picture; PNG and JPEG are read", name,
                         kind);
    return mmqi_fail(MMQ_ERR_FORMAT, "%s: the first bytes are neither a PNG's nor a JPEG's", name);
}

struct mmqi_image *mmqi_image_retain(struct mmqi_image *image)
{
    __atomic_fetch_add(&image->n_users, 1, __ATOMIC_RELAXED);
    return image;
}

static bool was_last_user(struct mmqi_image *image)
{
    return __atomic_sub_fetch(&image->n_users, 1, __ATOMIC_ACQ_REL) == 0;
}

void mmqi_image_release(struct mmqi_image *image)
{
    if (!image || !was_last_user(image))
        return;
    for (int32_t i = 0; i < image->n_frames; i++) { /* pictures, with no frames of their own */
        if (!was_last_user(image->frames[i]))
            continue;
        mmqi_free(image->frames[i]->rgb);
        mmqi_free(image->frames[i]);
    }
    mmqi_free(image->frames);
    mmqi_free(image->rgb);
    mmqi_free(image);
}

int mmqi_image_equal(const struct mmqi_image *a, const struct mmqi_image *b)
{
    if (a == b)
        return 1;
    if (a->width != b->width || a->height != b->height || a->hash != b->hash ||
        a->n_frames != b->n_frames)
        return 0;
    if (!a->frames)
        return memcmp(a->rgb, b->rgb, pixel_bytes(a)) == 0;
    for (int32_t i = 0; i < a->n_frames; i++)
        if (a->frames[i]->hash != b->frames[i]->hash ||
            memcmp(a->frames[i]->rgb, b->frames[i]->rgb, pixel_bytes(a)) != 0)
            return 0;
    return a->fps == b->fps;
}
