/* The committed tiny model and one of its pictures, for tests through the public API. */
#ifndef MMQ_TEST_TINY_H
#define MMQ_TEST_TINY_H

#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "mmq.h"
#include "support.h"

#define ASSERT_OK(call)                                                                            \
    do {                                                                                           \
        mmq_status status_ = (call);                                                               \
        ck_assert_msg(status_ == MMQ_OK, "%s: %s: %s", #call, mmq_status_name(status_),            \
                      mmq_last_error_message());                                                   \
    } while (0)

/* The call fails so, and its one line holds `text`. */
#define ASSERT_FAILS(status, text, call)                                                           \
    do {                                                                                           \
        mmq_status status_ = (call);                                                               \
        ck_assert_msg(status_ == (status), "%s: %s: %s", #call, mmq_status_name(status_),          \
                      mmq_last_error_message());                                                   \
        ck_assert_msg(strstr(mmq_last_error_message(), text) != NULL, "'%s' does not say '%s'",    \
                      mmq_last_error_message(), text);                                             \
    } while (0)

__attribute__((unused)) static mmq_model *tiny_model(const mmq_load_options *options)
{
    mmq_model *model;

    ASSERT_OK(mmq_load(&model, source_path("test/golden/llava_tiny/model"), options));
    return model;
}

/* A picture by formula; `seed` makes another. */
__attribute__((unused)) static mmq_image *tiny_image(int seed)
{
    static uint8_t pixels[60 * 50 * 3];
    mmq_image *image;
    int i;

    for (i = 0; i < (int)sizeof pixels; i++)
        pixels[i] = (uint8_t)((i * 37 + (i / 180) * seed * 11 + seed * 91) >> 1);
    ASSERT_OK(mmq_image_from_pixels(&image, pixels, 60, 50, 3, 0, NULL));
    return image;
}

/* The same of any size. */
__attribute__((unused)) static mmq_image *tiny_picture(int32_t width, int32_t height, int seed)
{
    uint8_t *pixels = malloc((size_t)width * (size_t)height * 3);
    mmq_image *image;

    for (int32_t i = 0; i < width * height * 3; i++)
        pixels[i] = (uint8_t)((i * 37 + i / 91 * seed * 11 + seed * 91) >> 1);
    ASSERT_OK(mmq_image_from_pixels(&image, pixels, width, height, 3, 0, NULL));
    free(pixels);
    return image;
}

#endif
