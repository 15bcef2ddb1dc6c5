/*
 * PNG to RGB through libpng's row API, from memory.
 *
 * libpng's errors come back through setjmp in read_picture() alone; whatever
 * must outlive the jump lives in struct reader. Rows are read into the picture
 * itself: as RGB, which libpng converts to, but for 16-bit greys, which stand
 * in the front of each row and are then widened in place.
 */
#include "image/image.h"

#include "core/status.h"

#ifdef MMQ_NO_PNG

int32_t mmqi_png_decode(struct mmqi_image **out, const char *name, const void *data, size_t size,
                        const struct mmqi_image_limits *limits)
{
    (void)data, (void)size, (void)limits;
    *out = NULL;
    return mmqi_fail(MMQ_ERR_UNSUPPORTED, "%s: this build has no PNG decoder", name);
}

#else

#include <png.h>
#include <setjmp.h>
#include <stdbool.h>
#include <string.h>

#include "core/mem.h"

enum {
    MAX_CHUNKS = 64,           /* kept ancillary chunks; tRNS is the only one not skipped */
    MAX_CHUNK_BYTES = 1 << 26, /* of one chunk that is not pixels */
    MAX_DEFLATE_RATIO = 1032   /* 258 bytes from two bits */
};

struct reader {
    const char *name;
    const uint8_t *data;
    size_t size, position;
    const struct mmqi_image_limits *limits;
    struct mmqi_image *image; /* NULL until the header was read */
    png_structp png;
    png_infop info;
    bool is_grey16, no_memory;
    char message[96]; /* libpng's own */
};

static void *allocate(png_structp png, png_alloc_size_t size)
{
    struct reader *reader = png_get_mem_ptr(png);
    void *block = mmqi_alloc(size);

    reader->no_memory |= !block;
    return block;
}

static void release(png_structp png, void *block)
{
    (void)png;
    mmqi_free(block);
}

static void on_error(png_structp png, const char *message)
{
    struct reader *reader = png_get_error_ptr(png);
    size_t n = strnlen(message, sizeof reader->message - 1);

    memcpy(reader->message, message, n);
    reader->message[n] = '\0';
    png_longjmp(png, 1);
}

static void on_warning(png_structp png, const char *message)
{
    (void)png, (void)message;
}

static void read_bytes(png_structp png, uint8_t *dst, size_t size)
{
    struct reader *reader = png_get_io_ptr(png);

    if (size > reader->size - reader->position)
        png_error(png, "the file ends here");
    memcpy(dst, reader->data + reader->position, size);
    reader->position += size;
}

/* Everything that bounds libpng, before it sees a byte. It may take any side that the format knows:
 * mmqi_image_check() refuses the long ones by their sizes, and no pixel is allocated before. */
static void set_limits(struct reader *reader)
{
    png_structp png = reader->png;

    png_set_user_limits(png, PNG_UINT_31_MAX, PNG_UINT_31_MAX);
    png_set_chunk_cache_max(png, MAX_CHUNKS);
    png_set_chunk_malloc_max(png, MAX_CHUNK_BYTES);
    png_set_keep_unknown_chunks(png, PNG_HANDLE_CHUNK_NEVER, NULL, -1);
    png_set_crc_action(png, PNG_CRC_ERROR_QUIT, PNG_CRC_DEFAULT);
}

/* Ask libpng for rows of RGB, or of two bytes of grey a pixel. Palette indices without an entry are
 * black. */
static void choose_rows(struct reader *reader)
{
    png_structp png = reader->png;
    int color = png_get_color_type(png, reader->info);

    reader->is_grey16 = color == PNG_COLOR_TYPE_GRAY && png_get_bit_depth(png, reader->info) == 16;
    if (reader->is_grey16)
        return;
    png_set_strip_16(png);
    png_set_strip_alpha(png);
    if (color == PNG_COLOR_TYPE_PALETTE)
        png_set_palette_to_rgb(png);
    if (color == PNG_COLOR_TYPE_GRAY)
        png_set_expand_gray_1_2_4_to_8(png);
    if (color == PNG_COLOR_TYPE_GRAY || color == PNG_COLOR_TYPE_GRAY_ALPHA)
        png_set_gray_to_rgb(png);
}

/* Make the picture, once its size is allowed and the file could hold its pixels at all. */
static int32_t create_picture(struct reader *reader)
{
    uint64_t width = png_get_image_width(reader->png, reader->info);
    uint64_t height = png_get_image_height(reader->png, reader->info);
    uint64_t bytes = (png_get_rowbytes(reader->png, reader->info) + 1) * height;
    int32_t status = mmqi_image_check(reader->name, width, height, reader->limits);

    if (status != MMQ_OK)
        return status;
    if (bytes / MAX_DEFLATE_RATIO > reader->size)
        return mmqi_fail(MMQ_ERR_FORMAT, "%s: PNG: %zu bytes cannot hold %d x %d pixels",
                         reader->name, reader->size, (int)width, (int)height);
    return mmqi_image_create(&reader->image, reader->name, width, height, reader->limits);
}

static void read_rows(struct reader *reader)
{
    size_t row_bytes = (size_t)reader->image->width * 3;
    int n_passes = png_set_interlace_handling(reader->png);

    png_read_update_info(reader->png, reader->info);
    if (png_get_rowbytes(reader->png, reader->info) > row_bytes)
        png_error(reader->png, "rows are longer than RGB");
    for (int pass = 0; pass < n_passes; pass++)
        for (int32_t y = 0; y < reader->image->height; y++)
            png_read_row(reader->png, reader->image->rgb + (size_t)y * row_bytes, NULL);
    png_read_end(reader->png, NULL);
}

/* The one function that libpng's errors return to. */
static int32_t read_picture(struct reader *reader)
{
    int32_t status;

    if (setjmp(png_jmpbuf(reader->png)))
        return reader->no_memory
                   ? mmqi_fail(MMQ_ERR_NOMEM, "%s: no memory to read the PNG", reader->name)
                   : mmqi_fail(MMQ_ERR_FORMAT, "%s: PNG: %s, at byte %zu of %zu", reader->name,
                               reader->message, reader->position, reader->size);
    set_limits(reader);
    png_set_read_fn(reader->png, reader, read_bytes);
    png_read_info(reader->png, reader->info);
    status = create_picture(reader);
    if (status != MMQ_OK)
        return status;
    choose_rows(reader);
    read_rows(reader);
    return MMQ_OK;
}

/* Big-endian 16-bit greys to RGB, saturated at 255; back to front, so that none is overwritten
 * before its turn. */
static void widen_grey16(uint8_t *row, int32_t width)
{
    for (size_t x = (size_t)width; x-- > 0;)
        memset(row + 3 * x, row[2 * x] ? 255 : row[2 * x + 1], 3);
}

int32_t mmqi_png_decode(struct mmqi_image **out, const char *name, const void *data, size_t size,
                        const struct mmqi_image_limits *limits)
{
    struct reader reader = {.name = name, .data = data, .size = size, .limits = limits};
    int32_t status;

    *out = NULL;
    reader.png = png_create_read_struct_2(PNG_LIBPNG_VER_STRING, &reader, on_error, on_warning,
                                          &reader, allocate, release);
    if (reader.png)
        reader.info = png_create_info_struct(reader.png);
    if (reader.info)
        status = read_picture(&reader);
    else
        status = mmqi_fail(MMQ_ERR_NOMEM, "%s: no memory to read the PNG", name);
    png_destroy_read_struct(&reader.png, &reader.info, NULL);
    if (status != MMQ_OK) {
        mmqi_image_release(reader.image);
        return status;
    }
    for (int32_t y = 0; reader.is_grey16 && y < reader.image->height; y++)
        widen_grey16(reader.image->rgb + (size_t)y * (size_t)reader.image->width * 3,
                     reader.image->width);
    mmqi_image_finish(reader.image);
    *out = reader.image;
    return MMQ_OK;
}

#endif
