/* src/image/resize: Pillow's results and torch's, to the last bit. */
#include "pictures.h"

#include "image/resize.h"

/* The formula of test/tools/make_resize_vectors.py. */
static struct mmqi_image *formula_picture(int width, int height)
{
    uint8_t *pixels = malloc((size_t)width * (size_t)height * 3), *at = pixels;
    struct mmqi_image *image;

    for (int y = 0; y < height; y++)
        for (int x = 0; x < width; x++)
            for (int c = 0; c < 3; c++)
                *at++ = (uint8_t)((x / 3 + y / 4 + c) % 2 * 170 +
                                  (x * x * 7 + y * y * 13 + x * y * 5 + c * 29) % 86);
    ck_assert_int_eq(mmqi_image_from_pixels(&image, pixels, width, height, 3, 0, NULL), MMQ_OK);
    free(pixels);
    return image;
}

/* Against a file of records; returns how many. */
static int compare_records(const char *path)
{
    struct bytes file = read_file(path);
    size_t at = 0;
    int n = 0;

    for (; at + 10 <= file.size; n++) {
        struct mmqi_image *image, *out;
        int field[5];

        for (int i = 0; i < 5; i++, at += 2)
            field[i] = file.data[at] | file.data[at + 1] << 8;
        image = formula_picture(field[0], field[1]);
        ck_assert_int_eq(mmqi_resize(&out, image, field[2], field[3], field[4]), MMQ_OK);
        ck_assert_int_eq(out->width, field[2]);
        ck_assert_int_eq(out->height, field[3]);
        ck_assert_msg(
            memcmp(out->rgb, file.data + at, (size_t)field[2] * (size_t)field[3] * 3) == 0,
            "%d x %d to %d x %d by filter %d", field[0], field[1], field[2], field[3], field[4]);
        at += (size_t)field[2] * (size_t)field[3] * 3;
        mmqi_image_release(out);
        mmqi_image_release(image);
    }
    ck_assert_uint_eq(at, file.size);
    free(file.data);
    return n;
}

START_TEST(equals_pillow_to_the_last_bit)
{
    ck_assert_int_eq(compare_records("test/unit/data/resize.bin"), 96);
}
END_TEST

START_TEST(equals_torch_to_the_last_bit)
{
    ck_assert_int_eq(compare_records("test/unit/data/resize_torch.bin"), 38);
}
END_TEST

START_TEST(the_same_size_gives_an_equal_picture)
{
    struct mmqi_image *image = formula_picture(37, 22), *out;

    for (int filter = 0; filter < 4; filter++) {
        ck_assert_int_eq(mmqi_resize(&out, image, 37, 22, filter), MMQ_OK);
        ck_assert(mmqi_image_equal(out, image));
        mmqi_image_release(out);
    }
    mmqi_image_release(image);
}
END_TEST

static void check_region(const struct mmqi_image *part, const struct mmqi_image *whole,
                         const struct mmqi_region *region)
{
    ck_assert_int_eq(part->width, region->width);
    ck_assert_int_eq(part->height, region->height);
    for (int y = 0; y < region->height; y++) {
        size_t first = (size_t)(region->top + y) * (size_t)whole->width + (size_t)region->left;

        ck_assert_mem_eq(part->rgb + (size_t)y * (size_t)region->width * 3, whole->rgb + first * 3,
                         (size_t)region->width * 3);
    }
}

START_TEST(a_region_is_that_part_of_the_whole)
{
    static const int sizes[][2] = {{90, 41}, {20, 13}, {90, 9}, {11, 120}};
    struct mmqi_image *image = formula_picture(33, 57), *whole, *part;

    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        for (int filter = 0; filter < 4; filter++) {
            int width = sizes[i][0], height = sizes[i][1];
            struct mmqi_region region = {width / 3, height / 4, width / 2, height / 3};

            ck_assert_int_eq(mmqi_resize(&whole, image, width, height, filter), MMQ_OK);
            ck_assert_int_eq(mmqi_resize_region(&part, image, width, height, filter, &region),
                             MMQ_OK);
            check_region(part, whole, &region);
            mmqi_image_release(part);
            mmqi_image_release(whole);
        }
    mmqi_image_release(image);
}
END_TEST

START_TEST(a_region_of_an_enormous_picture_takes_little_memory)
{
    struct mmqi_image *image = formula_picture(3000, 1), *out;
    struct meter meter = {.left = 100};
    struct mmqi_mem_hooks hooks = {meter_alloc, meter_free, &meter};
    struct mmqi_region region = {12000000, 4000, 20, 10};

    mmqi_mem_enter(&hooks);
    ck_assert_int_eq(mmqi_resize_region(&out, image, 24000000, 8000, MMQI_FILTER_BICUBIC, &region),
                     MMQ_OK);
    ck_assert_uint_lt(meter.largest, 20000);
    mmqi_image_release(out);
    ck_assert_int_eq(meter.live, 0);
    mmqi_mem_enter(NULL);
    mmqi_image_release(image);
}
END_TEST

START_TEST(refuses_unknown_filters_and_sizes_out_of_range)
{
    struct mmqi_image *image = formula_picture(8, 8), *out = image;
    struct mmqi_region outside = {5, 0, 4, 8};

    ck_assert_int_eq(mmqi_resize(&out, image, 4, 4, 4), MMQ_ERR_UNSUPPORTED);
    ck_assert_ptr_null(out);
    ck_assert_int_eq(mmqi_resize(&out, image, 4, 4, -1), MMQ_ERR_UNSUPPORTED);
    ck_assert_int_eq(mmqi_resize(&out, image, 0, 4, 2), MMQ_ERR_INVALID);
    ck_assert_int_eq(mmqi_resize(&out, image, 4, -3, 2), MMQ_ERR_INVALID);
    ck_assert_int_eq(mmqi_resize(&out, image, 65536, 1, 2), MMQ_ERR_LIMIT);
    ck_assert_int_eq(mmqi_resize_region(&out, image, 8, 8, 2, &outside), MMQ_ERR_INVALID);
    ck_assert_ptr_null(out);
    mmqi_image_release(image);
}
END_TEST

START_TEST(gives_everything_back_wherever_memory_ends)
{
    static const int heights[] = {30, 5}; /* horizontal first, vertical first */

    for (size_t i = 0; i < 2; i++) {
        struct mmqi_image *image = formula_picture(20, 40), *out = NULL;
        struct meter meter = {0};
        struct mmqi_mem_hooks hooks = {meter_alloc, meter_free, &meter};
        int32_t status = MMQ_ERR_NOMEM;
        int budget;

        mmqi_mem_enter(&hooks);
        for (budget = 0; status != MMQ_OK; budget++) {
            meter.left = budget;
            status = mmqi_resize(&out, image, 15, heights[i], MMQI_FILTER_BICUBIC);
            ck_assert(status == MMQ_OK || status == MMQ_ERR_NOMEM);
            ck_assert((out != NULL) == (status == MMQ_OK));
            ck_assert(out || meter.live == 0);
        }
        ck_assert_int_gt(budget, 8);
        mmqi_image_release(out);
        ck_assert_int_eq(meter.live, 0);
        mmqi_mem_enter(NULL);
        mmqi_image_release(image);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("resize");
    TCase *tests = tcase_create("resize");
    SRunner *runner;
    int failed;

    tcase_add_test(tests, equals_pillow_to_the_last_bit);
    tcase_add_test(tests, equals_torch_to_the_last_bit);
    tcase_add_test(tests, the_same_size_gives_an_equal_picture);
    tcase_add_test(tests, a_region_is_that_part_of_the_whole);
    tcase_add_test(tests, a_region_of_an_enormous_picture_takes_little_memory);
    tcase_add_test(tests, refuses_unknown_filters_and_sizes_out_of_range);
    tcase_add_test(tests, gives_everything_back_wherever_memory_ends);
    suite_add_tcase(suite, tests);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
