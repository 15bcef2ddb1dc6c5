/* src/image/image, png, jpeg: what is decoded to which pixels, and what is refused. */
#include "pictures.h"

#include <dirent.h>
#include <jansson.h>
#include <png.h>
#include <turbojpeg.h>

/* ---- pictures made here, so that a clone without the shared folder tests the decoders too ---- */

enum { WIDTH = 45, HEIGHT = 31 };

static void paint(uint8_t *pixels, int channels)
{
    for (int y = 0; y < HEIGHT; y++)
        for (int x = 0; x < WIDTH; x++)
            for (int c = 0; c < channels; c++)
                *pixels++ = (uint8_t)(x * 5 + y * (3 + c) + c * 60);
}

/* Pictures are encoded by the libraries themselves, which a build without a decoder need not have:
 * of such pictures it promises nothing but to refuse them. */
#ifdef MMQ_NO_PNG
enum { HAS_PNG = 0 };
#else
enum { HAS_PNG = 1 };
#endif
#ifdef MMQ_NO_JPEG
enum { HAS_JPEG = 0 };
#else
enum { HAS_JPEG = 1 };
#endif

#define NEED(has, name)                                                                            \
    do {                                                                                           \
        if (!(has)) {                                                                              \
            printf("SKIPPED: %s: no " name " decoder in this build\n", __func__);                  \
            return;                                                                                \
        }                                                                                          \
    } while (0)
#define NEED_PNG() NEED(HAS_PNG, "PNG")
#define NEED_JPEG() NEED(HAS_JPEG, "JPEG")

static struct bytes encode_png(uint32_t format, int channels)
{
    uint8_t pixels[WIDTH * HEIGHT * 4];
    png_image image = {
        .version = PNG_IMAGE_VERSION, .width = WIDTH, .height = HEIGHT, .format = format};
    png_alloc_size_t size = 0;
    struct bytes file;

    paint(pixels, channels);
    ck_assert(png_image_write_to_memory(&image, NULL, &size, 0, pixels, 0, NULL));
    file.data = malloc(size);
    ck_assert(png_image_write_to_memory(&image, file.data, &size, 0, pixels, 0, NULL));
    file.size = size;
    return file;
}

static struct bytes encode_jpeg(int format, int channels, int subsampling, int flags)
{
    uint8_t pixels[WIDTH * HEIGHT * 4];
    tjhandle codec = tjInitCompress();
    unsigned char *jpeg = NULL;
    unsigned long size = 0;
    struct bytes file;

    paint(pixels, channels);
    ck_assert_int_eq(
        tjCompress2(codec, pixels, WIDTH, 0, HEIGHT, format, &jpeg, &size, subsampling, 90, flags),
        0);
    file.size = size;
    file.data = malloc(size);
    memcpy(file.data, jpeg, size);
    tjFree(jpeg);
    tjDestroy(codec);
    return file;
}

static struct bytes rgb_png(void)
{
    return encode_png(PNG_FORMAT_RGB, 3);
}

static struct bytes rgb_jpeg(int flags)
{
    return encode_jpeg(TJPF_RGB, 3, TJSAMP_420, flags);
}

/* ---- checks ---- */

static struct mmqi_image *decode(struct bytes file)
{
    struct mmqi_image *image;

    ck_assert_msg(mmqi_image_decode(&image, "t", file.data, file.size, NULL) == MMQ_OK, "%s",
                  mmqi_message());
    ck_assert_int_eq(image->n_users, 1);
    return image;
}

static void check_message(const char *name)
{
    ck_assert_uint_gt(strlen(mmqi_message()), strlen(name));
    ck_assert(strncmp(mmqi_message(), name, strlen(name)) == 0);
    ck_assert_ptr_null(strchr(mmqi_message(), '\n'));
}

/* Refused with `status` and a line that opens with the name; nothing stays allocated. The file is
 * copied to a block of its exact size. */
static void refuse(const char *name, const uint8_t *data, size_t size, int32_t status,
                   const struct mmqi_image_limits *limits, struct meter *meter)
{
    struct mmqi_image *image = (struct mmqi_image *)meter;
    struct mmqi_mem_hooks hooks = {meter_alloc, meter_free, meter};
    uint8_t *copy = malloc(size ? size : 1);
    int32_t found;

    memcpy(copy, data, size);
    mmqi_mem_enter(&hooks);
    *meter = (struct meter){.left = 1000};
    found = mmqi_image_decode(&image, name, copy, size, limits);
    mmqi_mem_enter(NULL);
    free(copy);
    ck_assert_msg(found == status, "%s of %zu bytes: %d, not %d", name, size, found, status);
    ck_assert_ptr_null(image);
    ck_assert_int_eq(meter->live, 0);
    check_message(name);
}

static void refuse_bytes(struct bytes file, int32_t status)
{
    struct meter meter;

    refuse("t", file.data, file.size, status, NULL, &meter);
}

/* ---- from_pixels, sharing, comparing ---- */

START_TEST(takes_grey_rgb_and_rgba_pixels_with_any_row_length)
{
    static const uint8_t grey[] = {1, 2, 99, 3, 4, 99}, rgba[] = {1, 2, 3, 0, 4, 5, 6, 255};
    static const uint8_t rgb[] = {9, 8, 7, 6, 5, 4};
    struct mmqi_image *image;

    ck_assert_int_eq(mmqi_image_from_pixels(&image, grey, 2, 2, 1, 3, NULL), MMQ_OK);
    ck_assert_mem_eq(image->rgb, "\1\1\1\2\2\2\3\3\3\4\4\4", 12);
    mmqi_image_release(image);
    ck_assert_int_eq(mmqi_image_from_pixels(&image, rgba, 1, 2, 4, 0, NULL), MMQ_OK);
    ck_assert_mem_eq(image->rgb, "\1\2\3\4\5\6", 6);
    mmqi_image_release(image);
    ck_assert_int_eq(mmqi_image_from_pixels(&image, rgb, 2, 1, 3, 0, NULL), MMQ_OK);
    ck_assert_mem_eq(image->rgb, rgb, 6);
    ck_assert(image->rgb != rgb);
    mmqi_image_release(image);
}
END_TEST

START_TEST(refuses_pixels_that_cannot_be_a_picture)
{
    static const uint8_t pixels[12];
    const struct mmqi_image_limits limits = {.max_pixels = 3};
    struct mmqi_image *image = NULL;

    ck_assert_int_eq(mmqi_image_from_pixels(&image, NULL, 2, 2, 3, 0, NULL), MMQ_ERR_INVALID);
    ck_assert_int_eq(mmqi_image_from_pixels(&image, pixels, 0, 2, 3, 0, NULL), MMQ_ERR_INVALID);
    ck_assert_int_eq(mmqi_image_from_pixels(&image, pixels, 2, -1, 3, 0, NULL), MMQ_ERR_INVALID);
    ck_assert_int_eq(mmqi_image_from_pixels(&image, pixels, 2, 2, 2, 0, NULL), MMQ_ERR_INVALID);
    ck_assert_int_eq(mmqi_image_from_pixels(&image, pixels, 2, 2, 3, 5, NULL), MMQ_ERR_INVALID);
    ck_assert_int_eq(mmqi_image_from_pixels(&image, pixels, 2, 2, 3, 0, &limits), MMQ_ERR_LIMIT);
    ck_assert_int_eq(mmqi_image_from_pixels(&image, pixels, 65536, 1, 1, 0, NULL), MMQ_ERR_LIMIT);
    ck_assert_ptr_null(image);
}
END_TEST

START_TEST(equal_pictures_are_equal_and_have_equal_hashes)
{
    uint8_t pixels[WIDTH * HEIGHT * 3];
    struct mmqi_image *a, *b, *c, *d;

    paint(pixels, 3);
    mmqi_image_from_pixels(&a, pixels, WIDTH, HEIGHT, 3, 0, NULL);
    mmqi_image_from_pixels(&b, pixels, WIDTH, HEIGHT, 3, 0, NULL);
    mmqi_image_from_pixels(&c, pixels, HEIGHT, WIDTH, 3, 0, NULL);
    pixels[sizeof pixels - 1] ^= 1;
    mmqi_image_from_pixels(&d, pixels, WIDTH, HEIGHT, 3, 0, NULL);
    ck_assert_int_eq(mmqi_image_equal(a, a), 1);
    ck_assert_int_eq(mmqi_image_equal(a, b), 1);
    ck_assert_uint_eq(a->hash, b->hash);
    ck_assert_int_eq(mmqi_image_equal(a, c), 0);
    ck_assert_uint_ne(a->hash, c->hash);
    ck_assert_int_eq(mmqi_image_equal(a, d), 0);
    ck_assert_uint_ne(a->hash, d->hash);
    mmqi_image_release(a);
    mmqi_image_release(b);
    mmqi_image_release(c);
    mmqi_image_release(d);
}
END_TEST

START_TEST(a_picture_lives_until_its_last_user_lets_go)
{
    static const uint8_t pixel[] = {1, 2, 3};
    struct meter meter = {.left = 10};
    struct mmqi_mem_hooks hooks = {meter_alloc, meter_free, &meter};
    struct mmqi_image *image;

    mmqi_mem_enter(&hooks);
    ck_assert_int_eq(mmqi_image_from_pixels(&image, pixel, 1, 1, 3, 0, NULL), MMQ_OK);
    ck_assert_ptr_eq(mmqi_image_retain(image), image);
    mmqi_image_release(image);
    ck_assert_int_eq(meter.live, 2);
    ck_assert_mem_eq(image->rgb, pixel, 3);
    mmqi_image_release(image);
    ck_assert_int_eq(meter.live, 0);
    mmqi_image_release(NULL);
    mmqi_mem_enter(NULL);
}
END_TEST

/* ---- PNG ---- */

START_TEST(reads_png_of_grey_rgb_and_alpha)
{
    NEED_PNG();

    static const struct {
        uint32_t format;
        int channels;
    } kinds[] = {{PNG_FORMAT_GRAY, 1}, {PNG_FORMAT_RGB, 3}, {PNG_FORMAT_RGBA, 4}};

    for (size_t i = 0; i < 3; i++) {
        struct bytes file = encode_png(kinds[i].format, kinds[i].channels);
        struct mmqi_image *image = decode(file), *same;
        uint8_t pixels[WIDTH * HEIGHT * 4];

        paint(pixels, kinds[i].channels);
        mmqi_image_from_pixels(&same, pixels, WIDTH, HEIGHT, kinds[i].channels, 0, NULL);
        ck_assert(mmqi_image_equal(image, same));
        mmqi_image_release(image);
        mmqi_image_release(same);
        free(file.data);
    }
}
END_TEST

/* A PngSuite value as a byte of RGB: 16-bit greys saturate, other 16-bit values keep the high byte.
 */
static int expected_byte(const struct bytes *file, json_int_t value)
{
    bool is_16 = file->data[24] == 16, is_grey = file->data[25] == PNG_COLOR_TYPE_GRAY;

    if (!is_16)
        return (int)value;
    return is_grey ? (value > 255 ? 255 : (int)value) : (int)(value >> 8);
}

static void check_suite_picture(const char *folder, const char *name)
{
    char path[800];
    struct bytes file;
    struct mmqi_image *image;
    json_t *values;
    size_t n;

    snprintf(path, sizeof path, "%s/png/%s", folder, name);
    file = read_file(path);
    image = decode_file(path);
    snprintf(path, sizeof path, "%s/json/%.8s.json", folder, name);
    values = json_load_file(path, 0, NULL);
    ck_assert_ptr_nonnull(values);
    n = (size_t)image->width * (size_t)image->height;
    ck_assert_uint_eq(json_array_size(values), n * 4); /* RGBA */
    for (size_t i = 0; i < n * 4; i++)
        if (i % 4 != 3)
            ck_assert_msg(image->rgb[i / 4 * 3 + i % 4] ==
                              expected_byte(&file, json_integer_value(json_array_get(values, i))),
                          "%s: value %zu", name, i);
    json_decref(values);
    mmqi_image_release(image);
    free(file.data);
}

START_TEST(reads_every_picture_of_pngsuite)
{
    NEED_PNG();

    char path[512];
    struct dirent *entry;
    int n = 0;
    DIR *folder;

    NEED_SHARED(path, "data/pngsuite/png");
    folder = opendir(path);
    ck_assert_ptr_nonnull(folder);
    *strrchr(path, '/') = '\0';
    while ((entry = readdir(folder)) != NULL)
        if (strstr(entry->d_name, ".png") && entry->d_name[0] != 'x') {
            check_suite_picture(path, entry->d_name);
            n++;
        }
    closedir(folder);
    ck_assert_int_ge(n, 160);
}
END_TEST

START_TEST(refuses_every_broken_picture_of_pngsuite)
{
    NEED_PNG();

    char folder_path[512], path[800];
    struct dirent *entry;
    int n = 0;
    DIR *folder;

    NEED_SHARED(folder_path, "data/pngsuite/png");
    folder = opendir(folder_path);
    ck_assert_ptr_nonnull(folder);
    while ((entry = readdir(folder)) != NULL)
        if (entry->d_name[0] == 'x') {
            struct meter meter;
            struct bytes file;

            snprintf(path, sizeof path, "%s/%s", folder_path, entry->d_name);
            file = read_file(path);
            refuse(entry->d_name, file.data, file.size, MMQ_ERR_FORMAT, NULL, &meter);
            free(file.data);
            n++;
        }
    closedir(folder);
    ck_assert_int_eq(n, 14);
}
END_TEST

START_TEST(refuses_a_png_cut_at_any_byte)
{
    NEED_PNG();

    struct bytes file = rgb_png();

    for (size_t size = 0; size < file.size; size++)
        refuse_bytes((struct bytes){file.data, size}, MMQ_ERR_FORMAT);
    free(file.data);
}
END_TEST

static void put_be32(uint8_t *at, uint32_t value)
{
    for (int i = 0; i < 4; i++)
        at[i] = (uint8_t)(value >> (24 - 8 * i));
}

/* The PNG with other sizes in its header, under a right checksum. */
static struct bytes png_of_size(uint32_t width, uint32_t height)
{
    struct bytes file = rgb_png();

    put_be32(file.data + 16, width);
    put_be32(file.data + 20, height);
    put_be32(file.data + 29, crc32_of(file.data + 12, 17));
    return file;
}

START_TEST(refuses_a_huge_png_before_it_takes_memory)
{
    NEED_PNG();

    static const struct {
        uint32_t width, height;
        int32_t status;
    } cases[] = {{0x7fffffff, 0x7fffffff, MMQ_ERR_LIMIT},
                 {65536, 1, MMQ_ERR_LIMIT},
                 {1, 65536, MMQ_ERR_LIMIT},
                 {65535, 65535, MMQ_ERR_LIMIT},
                 {16000, 16000, MMQ_ERR_FORMAT},
                 {0, 5, MMQ_ERR_FORMAT},
                 {0x80000000, 1, MMQ_ERR_FORMAT},
                 {WIDTH, HEIGHT + 1, MMQ_ERR_FORMAT}};
    const struct mmqi_image_limits limits = {.max_pixels = WIDTH * HEIGHT - 1};
    struct meter meter;
    struct bytes file;

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        file = png_of_size(cases[i].width, cases[i].height);
        refuse("t", file.data, file.size, cases[i].status, NULL, &meter);
        ck_assert_uint_lt(meter.largest, 100000);
        free(file.data);
    }
    file = png_of_size(70000, 3);
    refuse("t", file.data, file.size, MMQ_ERR_LIMIT, NULL, &meter);
    ck_assert_ptr_nonnull(strstr(mmqi_message(), "70000 x 3"));
    free(file.data);
    file = rgb_png();
    refuse("t", file.data, file.size, MMQ_ERR_LIMIT, &limits, &meter);
    free(file.data);
}
END_TEST

START_TEST(refuses_a_png_with_a_flipped_byte_in_its_pixels)
{
    NEED_PNG();

    struct bytes file = rgb_png();

    file.data[file.size / 2] ^= 0x10;
    refuse_bytes(file, MMQ_ERR_FORMAT);
    free(file.data);
}
END_TEST

START_TEST(passes_over_chunks_that_hold_no_pixels_without_keeping_them)
{
    NEED_PNG();

    enum { TEXT = 300000, CHUNK = 8 + TEXT + 4 };
    struct bytes file = rgb_png(), with = {malloc(file.size + CHUNK), file.size + CHUNK};
    struct mmqi_image *a = decode(file), *b;
    struct meter meter = {.left = 1000};
    struct mmqi_mem_hooks hooks = {meter_alloc, meter_free, &meter};
    uint8_t *chunk = with.data + 33; /* after the header */

    memcpy(with.data, file.data, 33);
    put_be32(chunk, TEXT);
    memset(chunk + 4, 'a', CHUNK - 4);
    memcpy(chunk + 4, "tEXta", 6); /* a keyword and its zero byte */
    put_be32(chunk + 8 + TEXT, crc32_of(chunk + 4, TEXT + 4));
    memcpy(chunk + CHUNK, file.data + 33, file.size - 33);
    mmqi_mem_enter(&hooks);
    b = decode(with);
    mmqi_mem_enter(NULL);
    ck_assert(mmqi_image_equal(a, b));
    ck_assert_uint_lt(meter.largest, 100000);
    mmqi_image_release(a);
    mmqi_image_release(b);
    free(with.data);
    free(file.data);
}
END_TEST

/* ---- JPEG ---- */

START_TEST(reads_jpeg_of_every_subsampling_as_libjpeg_decodes_it)
{
    NEED_JPEG();

    for (int subsampling = 0; subsampling < TJ_NUMSAMP; subsampling++)
        for (int progressive = 0; progressive < 2; progressive++) {
            struct bytes file =
                encode_jpeg(TJPF_RGB, 3, subsampling, progressive ? TJFLAG_PROGRESSIVE : 0);
            struct mmqi_image *image = decode(file);
            uint8_t pixels[WIDTH * HEIGHT * 3];
            tjhandle codec = tjInitDecompress();

            ck_assert_int_eq(image->width, WIDTH);
            ck_assert_int_eq(image->height, HEIGHT);
            ck_assert_int_eq(tjDecompress2(codec, file.data, file.size, pixels, WIDTH, 0, HEIGHT,
                                           TJPF_RGB, TJFLAG_ACCURATEDCT),
                             0);
            ck_assert_mem_eq(image->rgb, pixels, sizeof pixels);
            for (size_t i = 0; subsampling == TJSAMP_GRAY && i < sizeof pixels; i += 3)
                ck_assert(image->rgb[i] == image->rgb[i + 1] && image->rgb[i] == image->rgb[i + 2]);
            tjDestroy(codec);
            mmqi_image_release(image);
            free(file.data);
        }
}
END_TEST

START_TEST(four_inks_become_rgb_by_pillows_formula)
{
    NEED_JPEG();

    static const int subsamplings[] = {TJSAMP_444, TJSAMP_420}; /* both stored as YCCK */

    for (size_t s = 0; s < 2; s++) {
        struct bytes file = encode_jpeg(TJPF_CMYK, 4, subsamplings[s], 0);
        struct mmqi_image *image = decode(file);
        uint8_t stored[WIDTH * HEIGHT * 4];
        tjhandle codec = tjInitDecompress();

        ck_assert_int_eq(tjDecompress2(codec, file.data, file.size, stored, WIDTH, 0, HEIGHT,
                                       TJPF_CMYK, TJFLAG_ACCURATEDCT),
                         0);
        for (size_t i = 0; i < WIDTH * HEIGHT; i++)
            for (size_t c = 0; c < 3; c++) {
                int ink = 255 - stored[4 * i + c], light = stored[4 * i + 3];

                ck_assert_int_eq(image->rgb[3 * i + c], light - (ink * light * 2 + 255) / 510);
            }
        tjDestroy(codec);
        mmqi_image_release(image);
        free(file.data);
    }
}
END_TEST

START_TEST(refuses_a_jpeg_cut_at_any_byte)
{
    NEED_JPEG();

    for (int progressive = 0; progressive < 2; progressive++) {
        struct bytes file = rgb_jpeg(progressive ? TJFLAG_PROGRESSIVE : 0);

        for (size_t size = 0; size < file.size; size++)
            refuse_bytes((struct bytes){file.data, size}, MMQ_ERR_FORMAT);
        free(file.data);
    }
}
END_TEST

START_TEST(takes_a_jpeg_with_stray_bytes_before_its_end)
{
    NEED_JPEG();

    struct bytes file = rgb_jpeg(0), with = {malloc(file.size + 3), file.size + 3};
    struct mmqi_image *a = decode(file), *b;

    memcpy(with.data, file.data, file.size - 2);
    memcpy(with.data + file.size - 2, "\0\0\0\xff\xd9", 5);
    b = decode(with);
    ck_assert(mmqi_image_equal(a, b));
    mmqi_image_release(a);
    mmqi_image_release(b);
    free(with.data);
    free(file.data);
}
END_TEST

/* Where the frame header gives the height; the width follows. */
static uint8_t *jpeg_sizes(struct bytes file)
{
    for (size_t at = 2; at + 9 < file.size;) {
        if (file.data[at + 1] == 0xC0)
            return file.data + at + 5;
        at += 2 + (size_t)(file.data[at + 2] << 8 | file.data[at + 3]);
    }
    ck_abort_msg("no frame header");
    return NULL;
}

START_TEST(refuses_a_huge_jpeg_before_it_takes_memory)
{
    NEED_JPEG();

    static const struct {
        int width, height;
        int32_t status;
    } cases[] = {{65000, 65000, MMQ_ERR_LIMIT},
                 {16000, 16000, MMQ_ERR_FORMAT},
                 {65535, 65535, MMQ_ERR_FORMAT}, /* past libjpeg's own limit */
                 {0, 16, MMQ_ERR_FORMAT},
                 {16, 0, MMQ_ERR_FORMAT}};
    const struct mmqi_image_limits limits = {.max_pixels = WIDTH * HEIGHT - 1};
    struct meter meter;
    struct bytes file;

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        uint8_t *sizes;

        file = rgb_jpeg(0);
        sizes = jpeg_sizes(file);
        sizes[0] = (uint8_t)(cases[i].height >> 8);
        sizes[1] = (uint8_t)cases[i].height;
        sizes[2] = (uint8_t)(cases[i].width >> 8);
        sizes[3] = (uint8_t)cases[i].width;
        refuse("t", file.data, file.size, cases[i].status, NULL, &meter);
        ck_assert_uint_lt(meter.largest, 100000);
        free(file.data);
    }
    file = rgb_jpeg(0);
    refuse("t", file.data, file.size, MMQ_ERR_LIMIT, &limits, &meter);
    free(file.data);
}
END_TEST

/* ---- both ---- */

START_TEST(gives_everything_back_wherever_memory_ends)
{
    NEED_PNG();
    NEED_JPEG();

    struct bytes files[] = {rgb_png(), encode_jpeg(TJPF_CMYK, 4, TJSAMP_444, 0)};

    for (size_t i = 0; i < 2; i++) {
        struct meter meter = {0};
        struct mmqi_mem_hooks hooks = {meter_alloc, meter_free, &meter};
        struct mmqi_image *image = NULL;
        int32_t status = MMQ_ERR_NOMEM;
        int budget;

        mmqi_mem_enter(&hooks);
        for (budget = 0; status != MMQ_OK; budget++) {
            meter.left = budget;
            status = mmqi_image_decode(&image, "t", files[i].data, files[i].size, NULL);
            ck_assert_msg(status == MMQ_OK || status == MMQ_ERR_NOMEM, "%s", mmqi_message());
            ck_assert(status == MMQ_OK || (!image && meter.live == 0));
        }
        ck_assert_int_ge(budget, 4);
        mmqi_image_release(image);
        ck_assert_int_eq(meter.live, 0);
        mmqi_mem_enter(NULL);
        free(files[i].data);
    }
}
END_TEST

START_TEST(a_damaged_file_never_reads_or_writes_outside)
{
    NEED_PNG();
    NEED_JPEG();

    struct bytes files[] = {rgb_png(), rgb_jpeg(0), rgb_jpeg(TJFLAG_PROGRESSIVE)};
    uint32_t random = 1;

    for (size_t i = 0; i < 3; i++) {
        for (int n = 0; n < 2000; n++) {
            struct mmqi_image *image;
            uint8_t *byte, before;

            random = random * 1664525 + 1013904223;
            byte = files[i].data + 2 + (random >> 8) % (files[i].size - 2);
            before = *byte;
            *byte = (uint8_t)(random >> 3);
            if (mmqi_image_decode(&image, "t", files[i].data, files[i].size, NULL) == MMQ_OK)
                mmqi_image_release(image);
            else
                check_message("t: ");
            *byte = before;
        }
        free(files[i].data);
    }
}
END_TEST

START_TEST(a_build_without_a_decoder_says_so)
{
    struct bytes files[] = {rgb_png(), rgb_jpeg(0)};
    const bool has[] = {HAS_PNG, HAS_JPEG};
    const char *const said[] = {"no PNG decoder", "no JPEG decoder"};

    for (int i = 0; i < 2; i++) {
        struct mmqi_image *image;
        int32_t status = mmqi_image_decode(&image, "t", files[i].data, files[i].size, NULL);

        ck_assert_int_eq(status, has[i] ? MMQ_OK : MMQ_ERR_UNSUPPORTED);
        ck_assert(has[i] == (image != NULL));
        ck_assert(has[i] || strstr(mmqi_message(), said[i]));
        mmqi_image_release(image);
        free(files[i].data);
    }
}
END_TEST

START_TEST(says_which_kind_a_foreign_file_is)
{
    static const struct {
        const char *bytes, *word;
        size_t size;
        int32_t status;
    } cases[] = {{"GIF89a", "GIF", 6, MMQ_ERR_UNSUPPORTED},
                 {"RIFF\1\2\3\4WEBPVP8 ", "WebP", 16, MMQ_ERR_UNSUPPORTED},
                 {"II*\0\1\2\3\4", "TIFF", 8, MMQ_ERR_UNSUPPORTED},
                 {"\0\0\0\x1c"
                  "ftypavif",
                  "AVIF", 12, MMQ_ERR_UNSUPPORTED},
                 {"\0\0\0\x1c"
                  "ftypheic",
                  "HEIF", 12, MMQ_ERR_UNSUPPORTED},
                 {"hello", "neither", 5, MMQ_ERR_FORMAT},
                 {"\x89PNG\r\n\x1a", "neither", 7, MMQ_ERR_FORMAT},
                 {"", "empty", 0, MMQ_ERR_FORMAT}};

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct meter meter;

        refuse("t", (const uint8_t *)cases[i].bytes, cases[i].size, cases[i].status, NULL, &meter);
        ck_assert_ptr_nonnull(strstr(mmqi_message(), cases[i].word));
    }
}
END_TEST

START_TEST(photographs_have_the_pixels_that_pillow_gives)
{
    NEED_PNG();
    NEED_JPEG();

    static const struct {
        const char *name;
        int width, height;
        uint32_t crc; /* of Pillow 13's convert("RGB").tobytes() */
    } photos[] = {
        {"acanthus-mollis.jpg", 790, 1024, 0x73cb14a6},
        {"airplane-from-above.jpg", 1024, 717, 0x6ea26d7c},
        {"allium-oreophilum.jpg", 807, 1024, 0x826a0842},
        {"astronaut.png", 512, 512, 0xfdcaa55f},
        {"black-canyon.jpg", 1024, 750, 0x17fd9fa1},
        {"camera.png", 512, 512, 0xdae3fc0b},
        {"chelsea.png", 451, 300, 0x0f829d59},
        {"coffee.png", 600, 400, 0xacf41373},
        {"dust-bowl-home.jpg", 1024, 788, 0x93631659},
        {"french-alpine-landscape.jpg", 1024, 484, 0xf638c025},
        {"hubble_deep_field.jpg", 1000, 872, 0x767b1caf},
        {"locomotion-house-cat.jpg", 1024, 510, 0xc7d14c5b},
        {"march-pastoral.jpg", 1024, 498, 0x42a84198},
        {"nagasaki-boats.jpg", 1024, 819, 0xdaaebaad},
        {"retina.jpg", 1411, 1411, 0xba1cd6d2},
        {"rocket.jpg", 640, 427, 0x49cf24ab},
    };
    char folder[512], path[800];

    NEED_SHARED(folder, "data/photos");
    for (size_t i = 0; i < sizeof photos / sizeof *photos; i++) {
        struct mmqi_image *image;

        snprintf(path, sizeof path, "%s/%s", folder, photos[i].name);
        image = decode_file(path);
        ck_assert_int_eq(image->width, photos[i].width);
        ck_assert_int_eq(image->height, photos[i].height);
        ck_assert_msg(crc32_of(image->rgb, (size_t)image->width * (size_t)image->height * 3) ==
                          photos[i].crc,
                      "%s", photos[i].name);
        mmqi_image_release(image);
    }
}
END_TEST

START_TEST(odd_modes_have_the_pixels_that_pillow_gives)
{
    NEED_PNG();
    NEED_JPEG();

    char folder[512], path[800];
    json_t *index, *pictures, *picture;
    const char *key;
    int n = 0;

    NEED_SHARED(folder, "golden/preproc");
    snprintf(path, sizeof path, "%s/preproc.json", folder);
    index = json_load_file(path, 0, NULL);
    pictures = json_object_get(index, "pictures");
    json_object_foreach(pictures, key, picture)
    {
        struct mmqi_image *image;
        uint32_t crc =
            (uint32_t)strtoul(json_string_value(json_object_get(picture, "rgb_crc32")), NULL, 16);

        snprintf(path, sizeof path, "%s/%s", folder,
                 json_string_value(json_object_get(picture, "file")));
        image = decode_file(path);
        ck_assert_msg(crc32_of(image->rgb, (size_t)image->width * (size_t)image->height * 3) == crc,
                      "%s", key);
        mmqi_image_release(image);
        n++;
    }
    ck_assert_int_eq(n, 8);
    json_decref(index);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("image");
    TCase *tests = tcase_create("image");
    SRunner *runner;
    int failed;

    tcase_set_timeout(tests, 60);
    tcase_add_test(tests, takes_grey_rgb_and_rgba_pixels_with_any_row_length);
    tcase_add_test(tests, refuses_pixels_that_cannot_be_a_picture);
    tcase_add_test(tests, equal_pictures_are_equal_and_have_equal_hashes);
    tcase_add_test(tests, a_picture_lives_until_its_last_user_lets_go);
    tcase_add_test(tests, reads_png_of_grey_rgb_and_alpha);
    tcase_add_test(tests, reads_every_picture_of_pngsuite);
    tcase_add_test(tests, refuses_every_broken_picture_of_pngsuite);
    tcase_add_test(tests, refuses_a_png_cut_at_any_byte);
    tcase_add_test(tests, refuses_a_huge_png_before_it_takes_memory);
    tcase_add_test(tests, refuses_a_png_with_a_flipped_byte_in_its_pixels);
    tcase_add_test(tests, passes_over_chunks_that_hold_no_pixels_without_keeping_them);
    tcase_add_test(tests, reads_jpeg_of_every_subsampling_as_libjpeg_decodes_it);
    tcase_add_test(tests, four_inks_become_rgb_by_pillows_formula);
    tcase_add_test(tests, refuses_a_jpeg_cut_at_any_byte);
    tcase_add_test(tests, takes_a_jpeg_with_stray_bytes_before_its_end);
    tcase_add_test(tests, refuses_a_huge_jpeg_before_it_takes_memory);
    tcase_add_test(tests, gives_everything_back_wherever_memory_ends);
    tcase_add_test(tests, a_damaged_file_never_reads_or_writes_outside);
    tcase_add_test(tests, a_build_without_a_decoder_says_so);
    tcase_add_test(tests, says_which_kind_a_foreign_file_is);
    tcase_add_test(tests, photographs_have_the_pixels_that_pillow_gives);
    tcase_add_test(tests, odd_modes_have_the_pixels_that_pillow_gives);
    suite_add_tcase(suite, tests);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
