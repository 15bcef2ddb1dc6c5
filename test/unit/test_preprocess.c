/* src/image/preprocess: recipes read from settings, and pixel values equal to the reference's. */
#include "pictures.h"

#include <jansson.h>
#include <math.h>

#include "image/preprocess.h"
#include "image/resize.h"
#include "io/settings.h"

#define CLIP_NUMBERS                                                                               \
    "\"image_mean\": [0.48145466, 0.4578275, 0.40821073],"                                         \
    "\"image_std\": [0.26862954, 0.26130258, 0.27577711]"

/* The defaults of CLIP's image processor. */
static struct mmqi_recipe clip_recipe(int size)
{
    return (struct mmqi_recipe){.kind = MMQI_RECIPE_CLIP,
                                .do_resize = true,
                                .do_center_crop = true,
                                .do_rescale = true,
                                .do_normalize = true,
                                .shortest_edge = size,
                                .crop_height = size,
                                .crop_width = size,
                                .filter = MMQI_FILTER_BICUBIC,
                                .rescale = 1 / 255.0,
                                .mean = {0.48145466, 0.4578275, 0.40821073},
                                .std = {0.26862954, 0.26130258, 0.27577711}};
}

static struct mmqi_settings *parse(const char *text)
{
    struct mmqi_settings *settings;

    ck_assert_msg(mmqi_settings_parse(&settings, "p.json", text, strlen(text)) == MMQ_OK, "%s",
                  mmqi_message());
    return settings;
}

/* Of recipes that make one view. */
static int32_t measure(const struct mmqi_recipe *recipe, int32_t width, int32_t height,
                       int32_t *out_width, int32_t *out_height)
{
    struct mmqi_views views;
    int32_t status = mmqi_preprocess_views(&views, recipe, width, height);

    ck_assert(status != MMQ_OK || (views.n == 1 && views.across == 0 && views.down == 0));
    ck_assert(views.width == width && views.height == height);
    *out_width = views.view[0].width;
    *out_height = views.view[0].height;
    return status;
}

static int32_t make(float **out, int32_t *width, int32_t *height, const struct mmqi_recipe *recipe,
                    const struct mmqi_image *image)
{
    struct mmqi_views views;
    int32_t status = mmqi_preprocess_views(&views, recipe, image->width, image->height);

    *out = NULL;
    *width = views.view[0].width;
    *height = views.view[0].height;
    return status == MMQ_OK ? mmqi_preprocess(out, &views, recipe, image) : status;
}

static int32_t read_recipe(struct mmqi_recipe *recipe, const char *text, const char *prefix)
{
    struct mmqi_settings *settings = parse(text);
    int32_t status = mmqi_recipe_read(recipe, settings, prefix);

    mmqi_settings_free(settings);
    return status;
}

/* ---- a reader of safetensors, enough for the golden files ---- */

/* The f32 tensor `name` in the bytes of a file; *n is its number of values. */
static const float *find_tensor(struct bytes file, const char *name, size_t *n)
{
    uint64_t header_size;
    json_t *header, *tensor, *offsets;
    size_t begin, end;

    memcpy(&header_size, file.data, 8);
    header = json_loadb((const char *)file.data + 8, header_size, 0, NULL);
    tensor = json_object_get(header, name);
    ck_assert_msg(tensor != NULL, "no tensor %s", name);
    ck_assert_str_eq(json_string_value(json_object_get(tensor, "dtype")), "F32");
    offsets = json_object_get(tensor, "data_offsets");
    begin = (size_t)json_integer_value(json_array_get(offsets, 0));
    end = (size_t)json_integer_value(json_array_get(offsets, 1));
    json_decref(header);
    *n = (end - begin) / 4;
    return (const float *)(const void *)(file.data + 8 + header_size + begin);
}

static double greatest_difference(const float *a, const float *b, size_t n)
{
    double most = 0;

    for (size_t i = 0; i < n; i++) {
        double difference = fabs((double)a[i] - b[i]);

        if (!(difference <= most)) /* NaN too */
            most = difference;
    }
    return most;
}

/* ---- golden pixels ---- */

/* The path of a picture that a case's golden.json names. */
static void picture_path(char path[800], const char *folder, const char *file)
{
    if (strncmp(file, "photos/", 7) == 0)
        snprintf(path, 800, "%s/../../data/%s", folder, file);
    else
        snprintf(path, 800, "%s/%s", folder, file);
}

static void check_prompt(const char *folder, json_t *prompt, size_t index, struct bytes tensors,
                         const struct mmqi_recipe *recipe)
{
    json_t *images = json_object_get(prompt, "images"), *entry;
    char path[800], name[64];
    size_t i, n, plane = 3 * 56 * 56;
    const float *golden;

    snprintf(name, sizeof name, "p%zu.pixel_values", index);
    if (json_array_size(images) == 0)
        return;
    golden = find_tensor(tensors, name, &n);
    ck_assert_uint_eq(n, json_array_size(images) * plane);
    json_array_foreach(images, i, entry)
    {
        struct mmqi_image *image;
        int32_t width, height;
        float *values;

        picture_path(path, folder, json_string_value(json_object_get(entry, "file")));
        image = decode_file(path);
        ck_assert_int_eq(make(&values, &width, &height, recipe, image), MMQ_OK);
        ck_assert(width == 56 && height == 56);
        ck_assert_msg(greatest_difference(values, golden + i * plane, plane) <= 1e-5, "%s: %s: %g",
                      folder, name, greatest_difference(values, golden + i * plane, plane));
        mmqi_free(values);
        mmqi_image_release(image);
    }
}

/* Every picture of a case, through the recipe of its own folder. */
static int check_case(const char *folder, const char *settings_name, const char *prefix)
{
    struct mmqi_recipe recipe = clip_recipe(224);
    struct bytes text, tensors;
    struct mmqi_settings *settings;
    json_t *golden, *prompts, *prompt;
    char path[800];
    size_t i;
    int n = 0;

    snprintf(path, sizeof path, "%s/model/%s", folder, settings_name);
    text = read_file(path);
    ck_assert_int_eq(mmqi_settings_parse(&settings, path, (char *)text.data, text.size), MMQ_OK);
    ck_assert_msg(mmqi_recipe_read(&recipe, settings, prefix) == MMQ_OK, "%s", mmqi_message());
    mmqi_settings_free(settings);
    free(text.data);
    snprintf(path, sizeof path, "%s/golden.json", folder);
    golden = json_load_file(path, 0, NULL);
    snprintf(path, sizeof path, "%s/%s", folder,
             json_string_value(json_object_get(golden, "tensors")));
    tensors = read_file(path);
    prompts = json_object_get(golden, "prompts");
    json_array_foreach(prompts, i, prompt)
    {
        check_prompt(folder, prompt, i, tensors, &recipe);
        n += (int)json_array_size(json_object_get(prompt, "images"));
    }
    free(tensors.data);
    json_decref(golden);
    return n;
}

START_TEST(pixels_equal_those_of_the_golden_cases)
{
    static const char *const cases[][3] = {
        {"golden/llava", "preprocessor_config.json", ""},
        {"golden/llava_wide", "preprocessor_config.json", ""},
        {"golden/llava_v5", "processor_config.json", "image_processor."}};
    char folder[512];

    for (size_t i = 0; i < 3; i++) {
        NEED_SHARED(folder, cases[i][0]);
        ck_assert_int_ge(check_case(folder, cases[i][1], cases[i][2]), 3);
    }
}
END_TEST

static uint32_t crc_field(json_t *object, const char *name)
{
    return (uint32_t)strtoul(json_string_value(json_object_get(object, name)), NULL, 16);
}

/* The defaults of Qwen2-VL's image processor, with the bounds of the hub's files. */
static struct mmqi_recipe smart_recipe(void)
{
    struct mmqi_recipe recipe = clip_recipe(0);

    recipe.kind = MMQI_RECIPE_SMART;
    recipe.do_center_crop = false;
    recipe.min_pixels = 3136;
    recipe.max_pixels = 12845056;
    recipe.patch = 14;
    recipe.merge = recipe.frames = 2;
    return recipe;
}

/* [3, height, width] as the reference has it: Qwen's in patches of two equal frames, by squares of
 * 2 x 2. Takes `values`; *n becomes the count of the result. */
static float *in_reference_order(float *values, int32_t width, int32_t height,
                                 const struct mmqi_recipe *recipe, size_t *n)
{
    int32_t side = 2 * 14, across = width / side, c, square, inside;
    float *result, *to;

    *n = 3 * (size_t)width * (size_t)height;
    if (recipe->kind != MMQI_RECIPE_SMART)
        return values;
    to = result = mmqi_alloc(2 * *n * sizeof *result);
    for (int32_t patch = 0; patch < height / 14 * (width / 14); patch++)
        for (int32_t line = 0; line < 3 * 2 * 14; line++, to += 14) {
            c = line / 28;
            square = patch / 4;
            inside = patch % 4;
            memcpy(to,
                   values +
                       (size_t)(c * height + square / across * side + inside / 2 * 14 + line % 14) *
                           (size_t)width +
                       (size_t)(square % across * side + inside % 2 * 14),
                   14 * sizeof *to);
        }
    *n *= 2;
    mmqi_free(values);
    return result;
}

/* One picture at real settings: every value's bits, and the bytes before rescaling. */
static void check_real_settings(const char *path, json_t *result, struct bytes samples,
                                const char *sample, struct mmqi_recipe recipe)
{
    struct mmqi_image *image = decode_file(path);
    size_t n, count, stride;
    const float *golden = find_tensor(samples, sample, &n);
    int32_t width, height;
    uint8_t *bytes;
    float *values;

    stride = (size_t)json_integer_value(json_object_get(result, "stride"));
    ck_assert_int_eq(make(&values, &width, &height, &recipe, image), MMQ_OK);
    values = in_reference_order(values, width, height, &recipe, &count);
    bytes = malloc(count);
    ck_assert_uint_lt((n - 1) * stride, count);
    for (size_t i = 0; i < n; i++)
        ck_assert_msg(fabs((double)values[i * stride] - golden[i]) <= 1e-5, "%s: %zu", sample, i);
    ck_assert_msg(crc32_of(values, count * sizeof *values) == crc_field(result, "crc32"), "%s",
                  sample);
    mmqi_free(values);
    recipe.do_rescale = recipe.do_normalize = false;
    ck_assert_int_eq(make(&values, &width, &height, &recipe, image), MMQ_OK);
    values = in_reference_order(values, width, height, &recipe, &count);
    for (size_t i = 0; i < count; i++)
        bytes[i] = (uint8_t)values[i];
    ck_assert_msg(crc32_of(bytes, count) == crc_field(result, "crc32_u8"), "%s", sample);
    mmqi_free(values);
    free(bytes);
    mmqi_image_release(image);
}

static const char *const real_families[] = {"llava", "qwen2_vl"};

START_TEST(pixels_equal_the_reference_bit_for_bit_at_real_settings)
{
    const char *family = real_families[_i];
    char folder[512], path[800], sample[64];
    struct bytes samples;
    json_t *index, *results, *result;
    const char *key;
    int n = 0;

    NEED_SHARED(folder, "golden/preproc");
    snprintf(path, sizeof path, "%s/preproc.json", folder);
    index = json_load_file(path, 0, NULL);
    snprintf(path, sizeof path, "%s/samples.safetensors", folder);
    samples = read_file(path);
    results =
        json_object_get(json_object_get(json_object_get(index, "families"), family), "results");
    json_object_foreach(results, key, result)
    {
        json_t *picture = json_object_get(json_object_get(index, "pictures"), key);

        snprintf(path, sizeof path, "%s/%s", folder,
                 json_string_value(json_object_get(picture, "file")));
        snprintf(sample, sizeof sample, "%s/%s", family, key);
        check_real_settings(path, result, samples, sample, _i ? smart_recipe() : clip_recipe(336));
        n++;
    }
    ck_assert_int_eq(n, 8);
    free(samples.data);
    json_decref(index);
}
END_TEST

/* ---- the steps ---- */

static struct mmqi_image *flat_picture(int width, int height, int value)
{
    size_t size = (size_t)width * (size_t)height;
    uint8_t *pixels = malloc(size);
    struct mmqi_image *image;

    memset(pixels, value, size);
    ck_assert_int_eq(mmqi_image_from_pixels(&image, pixels, width, height, 1, 0, NULL), MMQ_OK);
    free(pixels);
    return image;
}

START_TEST(a_crop_larger_than_the_picture_is_padded_with_black)
{
    struct mmqi_recipe recipe = clip_recipe(8);
    struct mmqi_image *image = flat_picture(3, 4, 255);
    int32_t width, height;
    float *values;

    recipe.do_resize = false;
    recipe.crop_height = 7;
    ck_assert_int_eq(make(&values, &width, &height, &recipe, image), MMQ_OK);
    ck_assert(width == 8 && height == 7);
    for (int c = 0; c < 3; c++)
        for (int y = 0; y < 7; y++)
            for (int x = 0; x < 8; x++) {
                /* The odd pixel of the padding stands before: 3 left of 5, 2 above of 3. */
                bool inside = x >= 3 && x < 6 && y >= 2 && y < 6;
                float value =
                    ((inside ? 1.0f : 0.0f) - (float)recipe.mean[c]) / (float)recipe.std[c];

                ck_assert_float_eq(values[(c * 7 + y) * 8 + x], value);
            }
    mmqi_free(values);
    mmqi_image_release(image);
}
END_TEST

START_TEST(one_side_may_be_cropped_and_the_other_padded)
{
    static const uint8_t pixels[] = {10, 20, 30, 40, 50, 60};
    struct mmqi_recipe recipe = {.do_center_crop = true, .crop_width = 3, .crop_height = 3};
    struct mmqi_image *image;
    int32_t width, height;
    float *values;

    ck_assert_int_eq(mmqi_image_from_pixels(&image, pixels, 6, 1, 1, 0, NULL), MMQ_OK);
    ck_assert_int_eq(make(&values, &width, &height, &recipe, image), MMQ_OK);
    ck_assert(width == 3 && height == 3);
    for (int i = 0; i < 27; i++)
        ck_assert_float_eq(values[i], i % 9 >= 3 && i % 9 < 6 ? (float)pixels[i % 3 + 1] : 0.0f);
    mmqi_free(values);
    mmqi_image_release(image);
}
END_TEST

START_TEST(tells_the_size_that_it_will_make)
{
    struct mmqi_recipe recipe = clip_recipe(336);
    struct mmqi_image *image = flat_picture(50, 37, 9);
    int32_t width, height, made_width, made_height;
    float *values;

    for (int i = 0; i < 4; i++) {
        recipe.do_center_crop = i & 1;
        recipe.do_resize = i & 2;
        ck_assert_int_eq(measure(&recipe, 50, 37, &width, &height), MMQ_OK);
        ck_assert_int_eq(make(&values, &made_width, &made_height, &recipe, image), MMQ_OK);
        ck_assert(width == made_width && height == made_height);
        mmqi_free(values);
    }
    recipe.do_center_crop = false;
    ck_assert_int_eq(measure(&recipe, 500, 333, &width, &height), MMQ_OK);
    ck_assert(width == 504 && height == 336); /* 504.5 is truncated */
    ck_assert_int_eq(measure(&recipe, 333, 500, &width, &height), MMQ_OK);
    ck_assert(width == 336 && height == 504);
    recipe.shortest_edge = 0;
    recipe.width = 11;
    recipe.height = 12;
    ck_assert_int_eq(measure(&recipe, 333, 500, &width, &height), MMQ_OK);
    ck_assert(width == 11 && height == 12);
    mmqi_image_release(image);
}
END_TEST

/* Whoever counts rows must not meet a size that preprocessing would refuse. */
START_TEST(refuses_a_size_beyond_any_picture_before_it_is_made)
{
    struct mmqi_recipe recipe = smart_recipe();
    int32_t width, height;

    recipe.min_pixels = recipe.max_pixels = 1 << 28;
    ck_assert_int_eq(measure(&recipe, 2, 300, &width, &height), MMQ_ERR_LIMIT);
    recipe.do_resize = false;
    ck_assert_int_eq(measure(&recipe, 65535, 65535, &width, &height), MMQ_ERR_LIMIT);
    ck_assert_int_eq(measure(&recipe, 16384, 16384, &width, &height), MMQ_OK);
}
END_TEST

START_TEST(a_picture_of_extreme_shape_costs_its_crop)
{
    struct mmqi_recipe recipe = clip_recipe(336);
    struct mmqi_image *image = flat_picture(65535, 1, 255);
    struct meter meter = {.left = 100};
    struct mmqi_mem_hooks hooks = {meter_alloc, meter_free, &meter};
    int32_t width, height;
    float *values;

    mmqi_mem_enter(&hooks);
    ck_assert_int_eq(make(&values, &width, &height, &recipe, image), MMQ_OK);
    ck_assert(width == 336 && height == 336);
    ck_assert_float_eq(values[5], (1.0f - (float)recipe.mean[0]) / (float)recipe.std[0]);
    ck_assert_uint_lt(meter.largest, 2000000);
    mmqi_free(values);
    recipe.do_center_crop = false;
    ck_assert_int_eq(make(&values, &width, &height, &recipe, image), MMQ_ERR_LIMIT);
    ck_assert_ptr_null(values);
    ck_assert_int_eq(meter.live, 0);
    mmqi_mem_enter(NULL);
    mmqi_image_release(image);
}
END_TEST

START_TEST(gives_everything_back_wherever_memory_ends)
{
    struct mmqi_recipe recipe = clip_recipe(16);
    struct mmqi_image *image = flat_picture(40, 30, 77);
    struct meter meter = {0};
    struct mmqi_mem_hooks hooks = {meter_alloc, meter_free, &meter};
    int32_t width, height, status = MMQ_ERR_NOMEM;
    float *values = NULL;
    int budget;

    mmqi_mem_enter(&hooks);
    for (budget = 0; status != MMQ_OK; budget++) {
        meter.left = budget;
        status = make(&values, &width, &height, &recipe, image);
        ck_assert(status == MMQ_OK || status == MMQ_ERR_NOMEM);
        ck_assert(status == MMQ_OK || (!values && meter.live == 0));
    }
    ck_assert_int_gt(budget, 8);
    mmqi_free(values);
    ck_assert_int_eq(meter.live, 0);
    mmqi_mem_enter(NULL);
    mmqi_image_release(image);
}
END_TEST

/* ---- recipes ---- */

START_TEST(an_empty_file_keeps_the_defaults)
{
    struct mmqi_recipe recipe = clip_recipe(224), before = recipe;

    ck_assert_int_eq(read_recipe(&recipe, "{}", ""), MMQ_OK);
    ck_assert_mem_eq(&recipe, &before, sizeof recipe);
    ck_assert_int_eq(read_recipe(&recipe, "{\"size\": null, \"do_pad\": null}", ""), MMQ_OK);
    ck_assert_mem_eq(&recipe, &before, sizeof recipe);
}
END_TEST

START_TEST(reads_every_key_at_its_prefix)
{
    struct mmqi_recipe recipe = clip_recipe(224);

    ck_assert_int_eq(
        read_recipe(&recipe,
                    "{\"p\": {\"do_resize\": false, \"do_center_crop\": false, \"do_rescale\": "
                    "false, \"do_normalize\": false, \"size\": {\"height\": 5, \"width\": 6}, "
                    "\"crop_size\": {\"height\": 7, \"width\": 8}, \"resample\": 2, "
                    "\"rescale_factor\": 0.5, \"image_mean\": [1, 2, 3.5], \"image_std\": 2}}",
                    "p."),
        MMQ_OK);
    ck_assert(!recipe.do_resize && !recipe.do_center_crop && !recipe.do_rescale &&
              !recipe.do_normalize);
    ck_assert(recipe.shortest_edge == 0 && recipe.height == 5 && recipe.width == 6);
    ck_assert(recipe.crop_height == 7 && recipe.crop_width == 8);
    ck_assert_int_eq(recipe.filter, MMQI_FILTER_BILINEAR);
    ck_assert_double_eq(recipe.rescale, 0.5);
    ck_assert(recipe.mean[0] == 1 && recipe.mean[1] == 2 && recipe.mean[2] == 3.5);
    ck_assert(recipe.std[0] == 2 && recipe.std[1] == 2 && recipe.std[2] == 2);
}
END_TEST

START_TEST(sizes_may_be_numbers)
{
    struct mmqi_recipe recipe = clip_recipe(224);

    recipe.shortest_edge = 0;
    recipe.height = recipe.width = 9;
    ck_assert_int_eq(
        read_recipe(&recipe, "{\"size\": 336, \"crop_size\": 300, " CLIP_NUMBERS "}", ""), MMQ_OK);
    ck_assert(recipe.shortest_edge == 336 && recipe.height == 0 && recipe.width == 0);
    ck_assert(recipe.crop_height == 300 && recipe.crop_width == 300);
    ck_assert_double_eq(recipe.std[2], 0.27577711);
}
END_TEST

START_TEST(refuses_wrong_values_and_leaves_the_recipe_alone)
{
    static const struct {
        const char *text, *word;
        int32_t status;
    } cases[] = {
        {"{\"size\": 0}", "size", MMQ_ERR_FORMAT},
        {"{\"size\": {\"shortest_edge\": 8193}}", "size", MMQ_ERR_FORMAT},
        {"{\"size\": {\"height\": 3}}", "size", MMQ_ERR_FORMAT},
        {"{\"size\": {}}", "size", MMQ_ERR_FORMAT},
        {"{\"size\": \"big\"}", "size", MMQ_ERR_FORMAT},
        {"{\"size\": {\"shortest_edge\": 3, \"longest_edge\": 9}}", "longest_edge",
         MMQ_ERR_UNSUPPORTED},
        {"{\"crop_size\": -1}", "crop_size", MMQ_ERR_FORMAT},
        {"{\"crop_size\": {\"width\": 3}}", "crop_size", MMQ_ERR_FORMAT},
        {"{\"resample\": 4}", "resample", MMQ_ERR_UNSUPPORTED},
        {"{\"resample\": 99}", "resample", MMQ_ERR_FORMAT},
        {"{\"do_resize\": 1}", "do_resize", MMQ_ERR_FORMAT},
        {"{\"do_pad\": true}", "do_pad", MMQ_ERR_UNSUPPORTED},
        {"{\"rescale_factor\": \"1/255\"}", "rescale_factor", MMQ_ERR_FORMAT},
        {"{\"image_mean\": [1, 2]}", "image_mean", MMQ_ERR_FORMAT},
        {"{\"image_mean\": {\"a\": 1}}", "image_mean", MMQ_ERR_FORMAT},
        {"{\"image_std\": [1, 0, 1]}", "image_std", MMQ_ERR_FORMAT},
        {"{\"image_std\": [1, 1, true]}", "image_std", MMQ_ERR_FORMAT},
        {"{\"image_mean\": [1, null, 1]}", "image_mean.1", MMQ_ERR_FORMAT},
    };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct mmqi_recipe recipe = clip_recipe(224), before = recipe;

        ck_assert_msg(read_recipe(&recipe, cases[i].text, "") == cases[i].status, "%s: %s",
                      cases[i].text, mmqi_message());
        ck_assert_msg(strstr(mmqi_message(), cases[i].word) != NULL, "%s", mmqi_message());
        ck_assert_msg(strncmp(mmqi_message(), "p.json", 6) == 0, "%s", mmqi_message());
        ck_assert_mem_eq(&recipe, &before, sizeof recipe);
    }
}
END_TEST

START_TEST(refuses_a_recipe_without_the_sizes_it_needs)
{
    struct mmqi_recipe recipe = {.do_resize = true}, crop = {.do_center_crop = true};

    ck_assert_int_eq(read_recipe(&recipe, "{}", ""), MMQ_ERR_FORMAT);
    ck_assert_ptr_nonnull(strstr(mmqi_message(), "'size'"));
    ck_assert_int_eq(read_recipe(&crop, "{}", ""), MMQ_ERR_FORMAT);
    ck_assert_ptr_nonnull(strstr(mmqi_message(), "'crop_size'"));
}
END_TEST

START_TEST(areas_are_read_in_every_spelling)
{
    static const struct {
        const char *text;
        int64_t min, max;
    } cases[] = {
        {"{}", 3136, 12845056},
        {"{\"min_pixels\": 100, \"max_pixels\": 200}", 100, 200},
        {"{\"size\": {\"shortest_edge\": 5, \"longest_edge\": 6}}", 5, 6},
        {"{\"size\": {\"min_pixels\": 5, \"max_pixels\": 6}}", 5, 6},
        {"{\"size\": {\"shortest_edge\": 5, \"longest_edge\": 6}, \"max_pixels\": 7}", 5, 7},
        {"{\"size\": null, \"min_pixels\": 9}", 9, 12845056},
    };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct mmqi_recipe recipe = smart_recipe();

        ck_assert_int_eq(read_recipe(&recipe, cases[i].text, ""), MMQ_OK);
        ck_assert_int_eq(recipe.min_pixels, cases[i].min);
        ck_assert_int_eq(recipe.max_pixels, cases[i].max);
    }
}
END_TEST

/* Bounds far apart, close together, and the wrong way round. */
START_TEST(no_picture_makes_more_squares_than_told)
{
    static const int64_t bounds[][2] = {{3136, 12845056}, {3136, 3136}, {1, 784},
                                        {100000, 120000}, {5000, 800},  {1, 1}};

    for (size_t i = 0; i < sizeof bounds / sizeof *bounds; i++) {
        struct mmqi_recipe recipe = smart_recipe();
        int64_t most, greatest = 0;

        recipe.min_pixels = bounds[i][0];
        recipe.max_pixels = bounds[i][1];
        most = mmqi_recipe_max_squares(&recipe);
        for (int32_t w = 1; w <= 6000; w += 1 + w / 9)
            for (int32_t h = w / 200 + 1; h <= 200 * w && h <= 60000; h += 1 + h / 7) {
                int32_t width, height;

                ck_assert_int_eq(measure(&recipe, w, h, &width, &height), MMQ_OK);
                ck_assert(width >= 28 && height >= 28 && width % 28 == 0 && height % 28 == 0);
                if ((int64_t)(width / 28) * (height / 28) > greatest)
                    greatest = (int64_t)(width / 28) * (height / 28);
            }
        ck_assert_int_le(greatest, most);
        ck_assert_int_le(most, 3 * greatest + 1);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("preprocess");
    TCase *tests = tcase_create("preprocess");
    SRunner *runner;
    int failed;

    tcase_set_timeout(tests, 60);
    tcase_add_test(tests, pixels_equal_those_of_the_golden_cases);
    tcase_add_loop_test(tests, pixels_equal_the_reference_bit_for_bit_at_real_settings, 0, 2);
    tcase_add_test(tests, areas_are_read_in_every_spelling);
    tcase_add_test(tests, no_picture_makes_more_squares_than_told);
    tcase_add_test(tests, a_crop_larger_than_the_picture_is_padded_with_black);
    tcase_add_test(tests, one_side_may_be_cropped_and_the_other_padded);
    tcase_add_test(tests, tells_the_size_that_it_will_make);
    tcase_add_test(tests, refuses_a_size_beyond_any_picture_before_it_is_made);
    tcase_add_test(tests, a_picture_of_extreme_shape_costs_its_crop);
    tcase_add_test(tests, gives_everything_back_wherever_memory_ends);
    tcase_add_test(tests, an_empty_file_keeps_the_defaults);
    tcase_add_test(tests, reads_every_key_at_its_prefix);
    tcase_add_test(tests, sizes_may_be_numbers);
    tcase_add_test(tests, refuses_wrong_values_and_leaves_the_recipe_alone);
    tcase_add_test(tests, refuses_a_recipe_without_the_sizes_it_needs);
    suite_add_tcase(suite, tests);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
