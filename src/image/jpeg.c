/*
 * JPEG to RGB through TurboJPEG, from memory: the accurate inverse DCT and
 * smooth upsampling, as Pillow asks of libjpeg. EXIF orientation is not
 * applied. Four-ink pictures are taken as stored inverted (Adobe's way).
 *
 * TurboJPEG says "warning" both for a file that ends early and for damage
 * that a decoder can step over. Pillow refuses the first and takes the
 * second; looking for the end marker tells them apart.
 */
#include "image/image.h"

#include "core/status.h"

#ifdef MMQ_NO_JPEG

int32_t mmqi_jpeg_decode(struct mmqi_image **out, const char *name, const void *data, size_t size,
                         const struct mmqi_image_limits *limits)
{
    (void)data, (void)size, (void)limits;
    *out = NULL;
    return mmqi_fail(MMQ_ERR_UNSUPPORTED, "%s: this build has no JPEG decoder", name);
}

#else

#include <limits.h>
#include <stdbool.h>
#include <turbojpeg.h>

#include "core/mem.h"

/* Of a Huffman-coded file: a block of 8 x 8 takes a bit at least, and 4 x 4 blocks of
 * pixels may share one block of a component. */
enum { MAX_PIXELS_PER_BYTE = 8 * 64 * 16 };

struct outline {
    bool ended;      /* the end-of-image marker is there */
    bool arithmetic; /* arithmetic codes, which may take less than a bit */
};

/* Walk the markers; segments are passed by their lengths, entropy-coded data byte by byte. */
static struct outline read_outline(const uint8_t *data, size_t size)
{
    struct outline outline = {false, false};
    size_t at = 0;

    while (at + 1 < size) {
        uint8_t code = data[at + 1];
        bool is_bare = code <= 0x01 || (code >= 0xD0 && code <= 0xD8); /* no length follows */

        if (data[at] != 0xFF || code == 0xFF) {
            at++;
            continue;
        }
        at += 2;
        if (code == 0xD9) {
            outline.ended = true;
            break;
        }
        if (is_bare)
            continue;
        if (code >= 0xC9 && code <= 0xCF && code != 0xCC)
            outline.arithmetic = true;
        if (size - at < 2)
            break;
        at += (size_t)(data[at] << 8 | data[at + 1]); /* may pass the end */
    }
    return outline;
}

struct reader {
    const char *name;
    const uint8_t *data;
    size_t size;
    struct outline outline;
    tjhandle codec;
    int width, height, subsampling, colorspace;
};

/* TurboJPEG reports odd subsampling as an error after it has filled in the rest; it decodes it. */
static int32_t read_header(struct reader *reader)
{
    reader->colorspace = -1;
    if (reader->size > ULONG_MAX)
        return mmqi_fail(MMQ_ERR_LIMIT, "%s: JPEG of %zu bytes", reader->name, reader->size);
    if (tjDecompressHeader3(reader->codec, reader->data, (unsigned long)reader->size,
                            &reader->width, &reader->height, &reader->subsampling,
                            &reader->colorspace) != 0 &&
        (reader->width < 1 || reader->height < 1 || reader->colorspace < 0))
        return mmqi_fail(MMQ_ERR_FORMAT, "%s: JPEG: %s", reader->name,
                         tjGetErrorStr2(reader->codec));
    return MMQ_OK;
}

/* Make the picture, once its size is allowed and the file could hold its pixels at all. */
static int32_t create_picture(struct mmqi_image **out, const struct reader *reader,
                              const struct mmqi_image_limits *limits)
{
    uint64_t width = (uint64_t)reader->width, height = (uint64_t)reader->height;
    int32_t status = mmqi_image_check(reader->name, width, height, limits);

    if (status != MMQ_OK)
        return status;
    if (!reader->outline.arithmetic && width * height / MAX_PIXELS_PER_BYTE > reader->size)
        return mmqi_fail(MMQ_ERR_FORMAT, "%s: JPEG: %zu bytes cannot hold %d x %d pixels",
                         reader->name, reader->size, reader->width, reader->height);
    return mmqi_image_create(out, reader->name, width, height, limits);
}

static int32_t read_pixels(uint8_t *pixels, int format, const struct reader *reader)
{
    if (tjDecompress2(reader->codec, reader->data, (unsigned long)reader->size, pixels,
                      reader->width, 0, reader->height, format,
                      TJFLAG_ACCURATEDCT | TJFLAG_LIMITSCANS) == 0)
        return MMQ_OK;
    if (tjGetErrorCode(reader->codec) == TJERR_WARNING && reader->outline.ended)
        return MMQ_OK;
    return mmqi_fail(MMQ_ERR_FORMAT, "%s: JPEG of %zu bytes: %s", reader->name, reader->size,
                     tjGetErrorStr2(reader->codec));
}

/* a * b / 255, rounded, for bytes */
static int32_t multiply_255(int32_t a, int32_t b)
{
    int32_t product = a * b + 128;

    return (product + (product >> 8)) >> 8;
}

/* Stored values are 255 - ink. RGB is (255 - k) - c (255 - k) / 255. */
static void convert_inks(uint8_t *rgb, const uint8_t *inks, size_t n_pixels)
{
    for (size_t i = 0; i < n_pixels; i++, rgb += 3, inks += 4)
        for (int c = 0; c < 3; c++)
            rgb[c] = (uint8_t)(inks[3] - multiply_255(255 - inks[c], inks[3]));
}

static int32_t read_inks(struct mmqi_image *image, const struct reader *reader)
{
    size_t n_pixels = (size_t)image->width * (size_t)image->height;
    uint8_t *inks = mmqi_alloc_array(n_pixels, 4);
    int32_t status;

    if (!inks)
        return mmqi_fail(MMQ_ERR_NOMEM, "%s: no memory for %d x %d pixels of four inks",
                         reader->name, reader->width, reader->height);
    status = read_pixels(inks, TJPF_CMYK, reader);
    if (status == MMQ_OK)
        convert_inks(image->rgb, inks, n_pixels);
    mmqi_free(inks);
    return status;
}

int32_t mmqi_jpeg_decode(struct mmqi_image **out, const char *name, const void *data, size_t size,
                         const struct mmqi_image_limits *limits)
{
    struct reader reader = {.name = name, .data = data, .size = size};
    struct mmqi_image *image = NULL;
    int32_t status;

    *out = NULL;
    reader.codec = tjInitDecompress();
    if (!reader.codec)
        return mmqi_fail(MMQ_ERR_NOMEM, "%s: no memory to read the JPEG", name);
    reader.outline = read_outline(data, size);
    status = read_header(&reader);
    if (status != MMQ_OK)
        goto done;
    status = create_picture(&image, &reader, limits);
    if (status != MMQ_OK)
        goto done;
    if (reader.colorspace == TJCS_CMYK || reader.colorspace == TJCS_YCCK)
        status = read_inks(image, &reader);
    else
        status = read_pixels(image->rgb, TJPF_RGB, &reader);
    if (status != MMQ_OK)
        goto done;
    mmqi_image_finish(image);
    *out = image;
    image = NULL;
done:
    mmqi_image_release(image);
    tjDestroy(reader.codec);
    return status;
}

#endif
