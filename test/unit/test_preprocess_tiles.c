/* Recipes that pad pictures and cut them into tiles: bounds, bad settings, extreme pictures. What
 * they make is compared with transformers in test/golden/preproc_tiny. */
#include <check.h>
#include <string.h>

#include "core/mem.h"
#include "core/status.h"
#include "image/preprocess.h"
#include "image/resize.h"
#include "meter.h"

static int32_t read_recipe(struct mmqi_recipe *recipe, const char *text)
{
    struct mmqi_settings *settings = NULL;
    int32_t status = mmqi_settings_parse(&settings, "p.json", text, strlen(text));

    if (status == MMQ_OK)
        status = mmqi_recipe_read(recipe, settings, "");
    mmqi_settings_free(settings);
    return status;
}

/* The class defaults with this text read over them. */
static struct mmqi_recipe recipe_of(int32_t kind, const char *text)
{
    struct mmqi_recipe recipe;

    mmqi_recipe_defaults(&recipe, kind);
    ck_assert_msg(read_recipe(&recipe, text) == MMQ_OK, "%s", mmqi_message());
    return recipe;
}

#define TILES_28                                                                                   \
    "{\"size\": {\"shortest_edge\": 28}, \"crop_size\": 28, \"image_grid_pinpoints\": [[28, 56], " \
    "[56, 28], [84, 84]]}"
#define SPLIT_64 "{\"size\": {\"longest_edge\": 64}, \"max_image_size\": {\"longest_edge\": 32}}"
#define SPLIT_75 "{\"size\": {\"longest_edge\": 75}, \"max_image_size\": {\"longest_edge\": 25}}"
#define PAD_14 "{\"do_pad\": true, \"size\": 14, \"crop_size\": 14}"

static struct mmqi_image *flat_picture(int32_t width, int32_t height, int value)
{
    size_t size = (size_t)width * (size_t)height;
    uint8_t *pixels = malloc(size);
    struct mmqi_image *image;

    memset(pixels, value, size);
    ck_assert_int_eq(mmqi_image_from_pixels(&image, pixels, width, height, 1, 0, NULL), MMQ_OK);
    free(pixels);
    return image;
}

/* ---- bounds ---- */

START_TEST(no_picture_makes_more_views_than_told_and_one_makes_as_many)
{
    static const struct {
        int32_t kind;
        const char *text;
        int32_t most;
    } cases[] = {
        {MMQI_RECIPE_PAD, PAD_14, 1},
        {MMQI_RECIPE_ANYRES, TILES_28, 10},
        {MMQI_RECIPE_ANYRES, "{\"size\": 336, \"crop_size\": 336}", 5},
        {MMQI_RECIPE_SPLIT, SPLIT_64, 5},
        {MMQI_RECIPE_SPLIT, "{\"do_image_splitting\": false}", 1},
        {MMQI_RECIPE_SPLIT, "{}", 17},
        {MMQI_RECIPE_SPLIT, SPLIT_75, 17},
        {MMQI_RECIPE_SPLIT, "{\"size\": {\"height\": 30, \"width\": 364}}", 1},
    };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct mmqi_recipe recipe = recipe_of(cases[i].kind, cases[i].text);
        struct mmqi_views views;
        int32_t greatest = 0;

        ck_assert_int_eq(mmqi_recipe_max_views(&recipe), cases[i].most);
        for (int32_t w = 1; w <= 5000; w += 1 + w / 9)
            for (int32_t h = 1; h <= 5000; h += 1 + h / 11) {
                ck_assert_int_eq(mmqi_preprocess_views(&views, &recipe, w, h), MMQ_OK);
                ck_assert(views.across == 0 || views.n == views.across * views.down + 1);
                greatest = views.n > greatest ? views.n : greatest;
            }
        ck_assert_int_eq(greatest, cases[i].most);
    }
}
END_TEST

START_TEST(more_tiles_than_can_be_are_refused_before_they_are_made)
{
    struct mmqi_recipe recipe = recipe_of(
        MMQI_RECIPE_SPLIT, "{\"do_resize\": false, \"max_image_size\": {\"longest_edge\": 100}}");
    struct mmqi_views views;

    ck_assert_int_eq(mmqi_recipe_max_views(&recipe), MMQI_MAX_VIEWS);
    ck_assert_int_eq(mmqi_preprocess_views(&views, &recipe, 12700, 100), MMQ_OK);
    ck_assert_int_eq(views.n, 128);
    ck_assert_int_eq(mmqi_preprocess_views(&views, &recipe, 12701, 90), MMQ_ERR_LIMIT);
    ck_assert_ptr_nonnull(strstr(mmqi_message(), "12701 x 90 pixels make more than 127 tiles"));
    ck_assert_int_eq(mmqi_preprocess_views(&views, &recipe, 65535, 65535), MMQ_ERR_LIMIT);
    recipe.tile = 8192;
    ck_assert_int_eq(mmqi_preprocess_views(&views, &recipe, 16384, 8192), MMQ_OK);
    ck_assert_int_eq(mmqi_preprocess_views(&views, &recipe, 16384, 16384), MMQ_ERR_LIMIT);
    ck_assert_ptr_nonnull(strstr(mmqi_message(), "5 views"));
}
END_TEST

START_TEST(a_square_beyond_any_picture_is_refused_before_it_is_made)
{
    struct mmqi_recipe recipe = recipe_of(MMQI_RECIPE_PAD, PAD_14);
    struct mmqi_views views;

    ck_assert_int_eq(mmqi_preprocess_views(&views, &recipe, 1, 16384), MMQ_OK);
    ck_assert_int_eq(mmqi_preprocess_views(&views, &recipe, 1, 16385), MMQ_ERR_LIMIT);
    ck_assert_ptr_nonnull(strstr(mmqi_message(), "on a square"));
    recipe.do_pad = false;
    ck_assert_int_eq(mmqi_preprocess_views(&views, &recipe, 1, 65535), MMQ_OK);
}
END_TEST

/* ---- pixels ---- */

START_TEST(a_tile_that_the_picture_does_not_reach_is_black)
{
    struct mmqi_recipe recipe = recipe_of(
        MMQI_RECIPE_ANYRES,
        "{\"size\": 28, \"crop_size\": 28, \"image_grid_pinpoints\": [[28, 84]], \"do_normalize\": "
        "false}");
    struct mmqi_image *image = flat_picture(10, 40, 255);
    struct mmqi_views views;
    float *values;

    ck_assert_int_eq(mmqi_preprocess_views(&views, &recipe, 10, 40), MMQ_OK);
    ck_assert(views.n == 4 && views.across == 3 && views.down == 1);
    ck_assert_int_eq(mmqi_preprocess(&values, &views, &recipe, image), MMQ_OK);
    for (size_t i = 0; i < 3 * 28 * 28; i++) {
        bool inside = i % 28 >= 10 && i % 28 < 17; /* 28 / 40 of ten columns */

        ck_assert_float_eq(values[i], 1.0f);
        ck_assert_float_eq(values[3 * 28 * 28 + i], 0.0f);
        ck_assert_float_eq(values[2 * 3 * 28 * 28 + i], inside ? 1.0f : 0.0f);
        ck_assert_float_eq(values[3 * 3 * 28 * 28 + i], 0.0f);
    }
    mmqi_free(values);
    mmqi_image_release(image);
}
END_TEST

START_TEST(a_square_has_the_colour_of_the_mean)
{
    struct mmqi_recipe recipe =
        recipe_of(MMQI_RECIPE_PAD, "{\"do_pad\": true, \"do_resize\": false, \"crop_size\": 5, "
                                   "\"do_rescale\": false, \"do_normalize\": false}");
    struct mmqi_image *image = flat_picture(5, 2, 9);
    static const float colour[] = {122, 116, 104};
    struct mmqi_views views;
    float *values;

    ck_assert_int_eq(mmqi_preprocess_views(&views, &recipe, 5, 2), MMQ_OK);
    ck_assert_int_eq(mmqi_preprocess(&values, &views, &recipe, image), MMQ_OK);
    for (int i = 0; i < 75; i++) /* lines 1 and 2 of five */
        ck_assert_float_eq(values[i], i % 25 / 5 == 1 || i % 25 / 5 == 2 ? 9 : colour[i / 25]);
    mmqi_free(values);
    mmqi_image_release(image);
}
END_TEST

START_TEST(gives_everything_back_wherever_memory_ends)
{
    static const struct {
        int32_t kind;
        const char *text;
    } cases[] = {
        {MMQI_RECIPE_PAD, PAD_14}, {MMQI_RECIPE_ANYRES, TILES_28}, {MMQI_RECIPE_SPLIT, SPLIT_64}};
    struct mmqi_image *image = flat_picture(40, 30, 77);

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct mmqi_recipe recipe = recipe_of(cases[i].kind, cases[i].text);
        struct meter meter = {0};
        struct mmqi_mem_hooks hooks = {meter_alloc, meter_free, &meter};
        int32_t status = MMQ_ERR_NOMEM, budget;
        struct mmqi_views views;
        float *values = NULL;

        ck_assert_int_eq(mmqi_preprocess_views(&views, &recipe, 40, 30), MMQ_OK);
        mmqi_mem_enter(&hooks);
        for (budget = 0; status != MMQ_OK; budget++) {
            meter.left = budget;
            status = mmqi_preprocess(&values, &views, &recipe, image);
            ck_assert(status == MMQ_OK || status == MMQ_ERR_NOMEM);
            ck_assert(status == MMQ_OK || (!values && meter.live == 0));
        }
        ck_assert_int_gt(budget, 8);
        mmqi_free(values);
        ck_assert_int_eq(meter.live, 0);
        mmqi_mem_enter(NULL);
    }
    mmqi_image_release(image);
}
END_TEST

/* ---- settings ---- */

START_TEST(an_empty_file_keeps_the_class_defaults)
{
    static const int32_t kinds[] = {MMQI_RECIPE_CLIP, MMQI_RECIPE_SMART, MMQI_RECIPE_PAD,
                                    MMQI_RECIPE_SPLIT};

    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        struct mmqi_recipe recipe, before;

        mmqi_recipe_defaults(&recipe, kinds[i]);
        before = recipe;
        ck_assert_int_eq(read_recipe(&recipe, "{}"), MMQ_OK);
        ck_assert_mem_eq(&recipe, &before, sizeof recipe);
    }
}
END_TEST

/* As the reference's own defaults are: pinpoints of 336 with tiles of 224. */
START_TEST(pinpoints_that_are_no_whole_tiles_are_refused_even_as_defaults)
{
    struct mmqi_recipe recipe;

    mmqi_recipe_defaults(&recipe, MMQI_RECIPE_ANYRES);
    ck_assert_int_eq(read_recipe(&recipe, "{}"), MMQ_ERR_UNSUPPORTED);
    ck_assert_ptr_nonnull(strstr(mmqi_message(), "image_grid_pinpoints.0"));
}
END_TEST

#define PINPOINTS(list) "{\"size\": 28, \"crop_size\": 28, \"image_grid_pinpoints\": " list "}"

START_TEST(refuses_wrong_values_and_leaves_the_recipe_alone)
{
    static const struct {
        int32_t kind;
        const char *text, *word;
        int32_t status;
    } cases[] = {
        {MMQI_RECIPE_PAD, "{\"do_pad\": 1}", "do_pad", MMQ_ERR_FORMAT},
        {MMQI_RECIPE_PAD, "{\"do_pad\": true, \"image_mean\": [0.5, 2, 0.5]}", "image_mean",
         MMQ_ERR_FORMAT},
        {MMQI_RECIPE_PAD, "{\"do_pad\": true, \"image_mean\": -0.01}", "image_mean",
         MMQ_ERR_FORMAT},
        {MMQI_RECIPE_ANYRES, PINPOINTS("[]"), "image_grid_pinpoints", MMQ_ERR_FORMAT},
        {MMQI_RECIPE_ANYRES, PINPOINTS("5"), "image_grid_pinpoints", MMQ_ERR_FORMAT},
        {MMQI_RECIPE_ANYRES, PINPOINTS("[28]"), "image_grid_pinpoints.0", MMQ_ERR_FORMAT},
        {MMQI_RECIPE_ANYRES, PINPOINTS("[[28]]"), "image_grid_pinpoints.0", MMQ_ERR_FORMAT},
        {MMQI_RECIPE_ANYRES, PINPOINTS("[[28, 28, 28]]"), "image_grid_pinpoints.0", MMQ_ERR_FORMAT},
        {MMQI_RECIPE_ANYRES, PINPOINTS("[[28, 28], [0, 28]]"), "image_grid_pinpoints.1.0",
         MMQ_ERR_FORMAT},
        {MMQI_RECIPE_ANYRES, PINPOINTS("[[28, -28]]"), "image_grid_pinpoints.0.1", MMQ_ERR_FORMAT},
        {MMQI_RECIPE_ANYRES, PINPOINTS("[[28, 2147483648]]"), "image_grid_pinpoints.0.1",
         MMQ_ERR_FORMAT},
        {MMQI_RECIPE_ANYRES, PINPOINTS("[[28, null]]"), "image_grid_pinpoints.0.1", MMQ_ERR_FORMAT},
        {MMQI_RECIPE_ANYRES, PINPOINTS("[[28, 28.5]]"), "image_grid_pinpoints.0.1", MMQ_ERR_FORMAT},
        {MMQI_RECIPE_ANYRES, PINPOINTS("[[28, 30]]"), "image_grid_pinpoints.0",
         MMQ_ERR_UNSUPPORTED},
        {MMQI_RECIPE_ANYRES, PINPOINTS("[[28, 3584]]"), "image_grid_pinpoints.0",
         MMQ_ERR_UNSUPPORTED},
        {MMQI_RECIPE_ANYRES, "{\"size\": 30, \"crop_size\": 28}", "size", MMQ_ERR_UNSUPPORTED},
        {MMQI_RECIPE_ANYRES, "{\"size\": 28, \"crop_size\": {\"height\": 28, \"width\": 30}}",
         "crop_size", MMQ_ERR_UNSUPPORTED},
        {MMQI_RECIPE_SPLIT, "{\"size\": {\"longest_edge\": 0}}", "size.longest_edge",
         MMQ_ERR_FORMAT},
        {MMQI_RECIPE_SPLIT, "{\"size\": {\"longest_edge\": -5}}", "size.longest_edge",
         MMQ_ERR_FORMAT},
        {MMQI_RECIPE_SPLIT, "{\"size\": {\"longest_edge\": 2147483648}}", "size.longest_edge",
         MMQ_ERR_FORMAT},
        {MMQI_RECIPE_SPLIT, "{\"size\": {\"shortest_edge\": 5}}", "size", MMQ_ERR_FORMAT},
        {MMQI_RECIPE_SPLIT, "{\"size\": 5}", "size", MMQ_ERR_FORMAT},
        {MMQI_RECIPE_SPLIT, "{\"max_image_size\": {}}", "max_image_size.longest_edge",
         MMQ_ERR_FORMAT},
        {MMQI_RECIPE_SPLIT, "{\"max_image_size\": {\"longest_edge\": 0}}",
         "max_image_size.longest_edge", MMQ_ERR_FORMAT},
        {MMQI_RECIPE_SPLIT, "{\"max_image_size\": {\"longest_edge\": 100}}", "size",
         MMQ_ERR_UNSUPPORTED},
        {MMQI_RECIPE_SPLIT, "{\"do_image_splitting\": \"yes\"}", "do_image_splitting",
         MMQ_ERR_FORMAT},
        {MMQI_RECIPE_SPLIT, "{\"do_center_crop\": true}", "do_center_crop", MMQ_ERR_UNSUPPORTED},
        {MMQI_RECIPE_SPLIT, "{\"resample\": 5}", "resample", MMQ_ERR_UNSUPPORTED},
        {MMQI_RECIPE_SPLIT, "{\"size\": {\"longest_edge\": NaN}}", "p.json", MMQ_ERR_FORMAT},
    };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct mmqi_recipe recipe, before;

        mmqi_recipe_defaults(&recipe, cases[i].kind);
        before = recipe;
        ck_assert_msg(read_recipe(&recipe, cases[i].text) == cases[i].status, "%s: %s",
                      cases[i].text, mmqi_message());
        ck_assert_msg(strstr(mmqi_message(), cases[i].word) != NULL, "%s", mmqi_message());
        ck_assert_msg(strncmp(mmqi_message(), "p.json", 6) == 0, "%s", mmqi_message());
        ck_assert_mem_eq(&recipe, &before, sizeof recipe);
    }
}
END_TEST

START_TEST(a_list_of_more_pinpoints_than_can_be_is_refused)
{
    char text[4096] = "{\"size\": 28, \"crop_size\": 28, \"image_grid_pinpoints\": [[28, 28]";
    struct mmqi_recipe recipe;

    for (int i = 1; i < MMQI_MAX_PINPOINTS; i++)
        strcat(text, ", [28, 28]");
    mmqi_recipe_defaults(&recipe, MMQI_RECIPE_ANYRES);
    strcat(text, "]}");
    ck_assert_int_eq(read_recipe(&recipe, text), MMQ_OK);
    ck_assert_int_eq(recipe.n_pinpoints, MMQI_MAX_PINPOINTS);
    strcpy(text + strlen(text) - 2, ", [28, 28]]}");
    ck_assert_int_eq(read_recipe(&recipe, text), MMQ_ERR_FORMAT);
    ck_assert_ptr_nonnull(strstr(mmqi_message(), "image_grid_pinpoints"));
}
END_TEST

/* A picture made ready gives any view at any time, the same as all at once. */
START_TEST(views_are_drawn_one_at_a_time)
{
    static const int32_t kinds[] = {MMQI_RECIPE_SPLIT, MMQI_RECIPE_ANYRES, MMQI_RECIPE_CLIP,
                                    MMQI_RECIPE_SMART, MMQI_RECIPE_PAD};
    static uint8_t pixels[90 * 61 * 3];
    struct mmqi_image *image;

    for (size_t i = 0; i < sizeof pixels; i++)
        pixels[i] = (uint8_t)(i * 37 + i / 270 * 11);
    ck_assert_int_eq(mmqi_image_from_pixels(&image, pixels, 90, 61, 3, 0, NULL), MMQ_OK);
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        struct mmqi_drawing *drawing;
        struct mmqi_recipe recipe;
        struct mmqi_views views;
        float *all, *one;
        size_t n;

        mmqi_recipe_defaults(&recipe, kinds[i]);
        ck_assert_int_eq(mmqi_preprocess_views(&views, &recipe, 90, 61), MMQ_OK);
        ck_assert(views.n > 1 || i > 1);
        ck_assert_int_eq(mmqi_preprocess(&all, &views, &recipe, image), MMQ_OK);
        ck_assert_int_eq(mmqi_drawing_create(&drawing, &views, &recipe, image), MMQ_OK);
        n = 3 * (size_t)views.view[0].width * (size_t)views.view[0].height; /* of each */
        one = malloc(n * sizeof *one);
        for (int32_t k = views.n - 1; k >= 0; k--) {
            ck_assert_int_eq(mmqi_drawing_view(drawing, k, one), MMQ_OK);
            ck_assert_mem_eq(one, all + (size_t)k * n, n * sizeof *one);
        }
        mmqi_drawing_free(drawing);
        mmqi_free(all);
        free(one);
    }
    mmqi_image_release(image);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("preprocess_tiles");
    TCase *tests = tcase_create("preprocess_tiles");
    SRunner *runner;
    int failed;

    tcase_set_timeout(tests, 60);
    tcase_add_test(tests, no_picture_makes_more_views_than_told_and_one_makes_as_many);
    tcase_add_test(tests, views_are_drawn_one_at_a_time);
    tcase_add_test(tests, more_tiles_than_can_be_are_refused_before_they_are_made);
    tcase_add_test(tests, a_square_beyond_any_picture_is_refused_before_it_is_made);
    tcase_add_test(tests, a_tile_that_the_picture_does_not_reach_is_black);
    tcase_add_test(tests, a_square_has_the_colour_of_the_mean);
    tcase_add_test(tests, gives_everything_back_wherever_memory_ends);
    tcase_add_test(tests, an_empty_file_keeps_the_class_defaults);
    tcase_add_test(tests, pinpoints_that_are_no_whole_tiles_are_refused_even_as_defaults);
    tcase_add_test(tests, refuses_wrong_values_and_leaves_the_recipe_alone);
    tcase_add_test(tests, a_list_of_more_pinpoints_than_can_be_is_refused);
    suite_add_tcase(suite, tests);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
