/*
 * Videos as lists of frames, on the committed tiny models: what a list must be,
 * where it may stand, and how its rows are counted and placed. The committed
 * cases compare what becomes of it.
 */
#include "model/checkpoint.h"
#include "model/tiny.h"
#include "runtime/prompt.h"

#define FOLDER "test/golden/qwen2_vl_tiny/model"
#define PICTURE "<|vision_start|><|image_pad|><|vision_end|>"
#define VIDEO "<|vision_start|><|video_pad|><|vision_end|>"

enum { MOST_FRAMES = 300 };

/* n frames of 48 x 32, which nobody else holds. */
static mmq_image *video_of(int n, double fps)
{
    mmq_video_options options = {.struct_size = sizeof options, .fps = fps};
    mmq_image *frames[MOST_FRAMES] = {NULL}, *video;

    for (int i = 0; i < n; i++)
        frames[i] = tiny_picture(48, 32, i + 1);
    ASSERT_OK(mmq_image_from_frames(&video, (const mmq_image *const *)frames, (size_t)n, &options));
    for (int i = 0; i < n; i++)
        mmq_image_free(frames[i]);
    return video;
}

/* ---- what a video is ---- */

START_TEST(a_video_is_frames_of_one_size)
{
    mmq_video_options options = {.struct_size = sizeof options};
    mmq_image *a = tiny_picture(48, 32, 1), *b = tiny_picture(32, 48, 2), *video = video_of(3, 0.0);
    const mmq_image *list[3] = {a, b, NULL};
    mmq_image *out = a;
    int32_t width, height;

    ASSERT_OK(mmq_image_size(&width, &height, video));
    ck_assert_int_eq(width, 48);
    ck_assert_int_eq(height, 32);
    ASSERT_FAILS(MMQ_ERR_INVALID, "frame 1 is 32 x 48, frame 0 48 x 32",
                 mmq_image_from_frames(&out, list, 2, NULL));
    ck_assert_ptr_null(out);
    ASSERT_FAILS(MMQ_ERR_INVALID, "0 frames", mmq_image_from_frames(&out, list, 0, NULL));
    ASSERT_FAILS(MMQ_ERR_INVALID, "frames", mmq_image_from_frames(&out, list, 65537, NULL));
    ASSERT_FAILS(MMQ_ERR_INVALID, "is NULL", mmq_image_from_frames(&out, NULL, 1, NULL));
    ASSERT_FAILS(MMQ_ERR_INVALID, "is NULL", mmq_image_from_frames(NULL, list, 1, NULL));
    list[1] = NULL;
    ASSERT_FAILS(MMQ_ERR_INVALID, "frame 1 is NULL", mmq_image_from_frames(&out, list, 2, NULL));
    list[1] = video;
    ASSERT_FAILS(MMQ_ERR_INVALID, "frame 1 is a video", mmq_image_from_frames(&out, list, 2, NULL));
    for (int i = 0; i < 4; i++) {
        static const double rates[] = {-1.0, 0.001, 1e9, 0.0 / 0.0};

        options.fps = rates[i];
        ASSERT_FAILS(MMQ_ERR_INVALID, "frames a second",
                     mmq_image_from_frames(&out, list, 1, &options));
    }
    mmq_image_free(video);
    mmq_image_free(a);
    mmq_image_free(b);
}
END_TEST

/* Equal videos are those of equal frames at an equal rate. */
START_TEST(videos_are_compared_by_their_frames)
{
    mmq_image *one = video_of(3, 2.0), *same = video_of(3, 2.0), *longer = video_of(4, 2.0);
    mmq_image *slower = video_of(3, 1.0), *picture = tiny_picture(48, 32, 1);
    const struct mmqi_image *video = (struct mmqi_image *)one;

    ck_assert_int_eq(mmqi_image_equal(video, (struct mmqi_image *)same), 1);
    ck_assert_int_eq(mmqi_image_equal(video, (struct mmqi_image *)longer), 0);
    ck_assert_int_eq(mmqi_image_equal(video, (struct mmqi_image *)slower), 0);
    ck_assert_int_eq(mmqi_image_equal(video, (struct mmqi_image *)picture), 0);
    ck_assert_int_eq(mmqi_image_equal((struct mmqi_image *)picture, video), 0);
    mmq_image_free(one);
    mmq_image_free(same);
    mmq_image_free(longer);
    mmq_image_free(slower);
    mmq_image_free(picture);
}
END_TEST

/* ---- bounds: computed by transformers ---- */

START_TEST(frames_share_the_rows_of_a_video_where_they_are_bounded)
{
    static const struct {
        int n;
        int64_t rows, least, most;
        int32_t width, height;
    } cases[] = {
        {4, 128000, 128 * 784, 768 * 784, 644, 476},  {256, 128000, 128 * 784, 768 * 784, 644, 476},
        {256, 20000, 128 * 784, 768 * 784, 364, 280}, {256, 0, 128 * 784, 768 * 784, 644, 476},
        {3, 100, 4 * 784, 768 * 784, 224, 168},
    };
    mmq_image *frame = tiny_picture(640, 480, 1);
    const mmq_image *list[MOST_FRAMES];
    struct mmqi_recipe recipe;
    struct mmqi_views views;
    mmq_image *video;

    for (int i = 0; i < MOST_FRAMES; i++)
        list[i] = frame;
    mmqi_recipe_defaults(&recipe, MMQI_RECIPE_SMART);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        ASSERT_OK(mmq_image_from_frames(&video, list, (size_t)cases[i].n, NULL));
        recipe.min_pixels = cases[i].least;
        recipe.max_pixels = cases[i].most;
        recipe.max_video_rows = cases[i].rows;
        OK(mmqi_preprocess_video_views(&views, &recipe, (struct mmqi_image *)video));
        ck_assert_int_eq(views.n, (cases[i].n + 1) / 2);
        ck_assert_int_eq(views.view[views.n - 1].width, cases[i].width);
        ck_assert_int_eq(views.view[views.n - 1].height, cases[i].height);
        mmq_image_free(video);
    }
    ASSERT_OK(mmq_image_from_frames(&video, list, 257, NULL));
    ck_assert_int_eq(mmqi_preprocess_video_views(&views, &recipe, (struct mmqi_image *)video),
                     MMQ_ERR_LIMIT);
    ck_assert_ptr_nonnull(strstr(mmqi_message(), "a video of 257 frames, at most 256"));
    mmq_image_free(video);
    mmq_image_free(frame);
}
END_TEST

/* ---- positions: computed by transformers ---- */

static void expect_time(int32_t step, const int32_t *want, int32_t answer)
{
    const struct mmqi_picture video = {.across = 3,
                                       .down = 2,
                                       .rows = 18,
                                       .made_rows = 18,
                                       .n_runs = 1,
                                       .frames = 2,
                                       .time_step = step};
    struct mmqi_tokens tokens = {0};

    OK(mmqi_tokens_add(&tokens, 5));
    OK(mmqi_tokens_add(&tokens, 5));
    OK(mmqi_tokens_add_run(&tokens, 9, 0, &video, 0, NULL, 3));
    for (int i = 0; i < 3; i++)
        OK(mmqi_tokens_add(&tokens, 5));
    OK(mmqi_tokens_answer(&tokens, 5));
    OK(mmqi_tokens_answer(&tokens, 5));
    ck_assert_uint_eq(tokens.n, 25);
    for (int i = 0; i < 23; i++)
        ck_assert_int_eq(tokens.data[i].position[0], want[i]);
    for (int i = 0; i < 18; i++) {
        ck_assert_int_eq(tokens.data[2 + i].row, i);
        ck_assert_int_eq(tokens.data[2 + i].position[1], 2 + i / 3 % 2);
        ck_assert_int_eq(tokens.data[2 + i].position[2], 2 + i % 3);
    }
    for (int axis = 0; axis < 3; axis++) {
        ck_assert_int_eq(tokens.data[23].position[axis], answer);
        ck_assert_int_eq(tokens.data[24].position[axis], answer + 1);
    }
    mmqi_tokens_free(&tokens);
}

/* Text goes on behind the longer side of a view, the answer behind the latest position of all. */
START_TEST(time_goes_on_from_view_to_view)
{
    static const int32_t by_one[] = {0, 1, 2, 2, 2, 2, 2, 2, 3, 3, 3, 3,
                                     3, 3, 4, 4, 4, 4, 4, 4, 5, 6, 7};
    static const int32_t by_four[] = {0, 1, 2,  2,  2,  2,  2,  2,  6, 6, 6, 6,
                                      6, 6, 10, 10, 10, 10, 10, 10, 5, 6, 7};

    expect_time(1, by_one, 8);
    expect_time(4, by_four, 11);
}
END_TEST

/* ---- prompts ---- */

struct fixture {
    mmq_model *model;
    mmq_session *session;
    mmq_image *video, *picture;
    const mmq_image *list[2];
    mmq_prompt prompt;
};

static void open_fixture(struct fixture *f, int32_t chunk)
{
    mmq_session_options options = {.struct_size = sizeof options, .chunk = chunk};

    memset(f, 0, sizeof *f);
    ASSERT_OK(mmq_load(&f->model, source_path(FOLDER), NULL));
    ASSERT_OK(mmq_session_create(&f->session, f->model, &options));
    f->list[0] = f->video = video_of(3, 0.0);
    f->list[1] = f->picture = tiny_picture(31, 47, 9);
    f->prompt = (mmq_prompt){.struct_size = sizeof f->prompt,
                             .text = "First " VIDEO ", then " PICTURE ": what moves?",
                             .images = f->list,
                             .n_images = 2};
}

static void close_fixture(struct fixture *f)
{
    mmq_session_free(f->session);
    mmq_image_free(f->video);
    mmq_image_free(f->picture);
    mmq_model_free(f->model);
}

struct logits {
    float data[6 * 600];
    size_t n;
};

static int32_t keep_logits(void *user, size_t index, const float *row, size_t n_vocab)
{
    struct logits *logits = user;

    ck_assert_uint_le((index + 1) * n_vocab, sizeof logits->data / sizeof *row);
    memcpy(logits->data + index * n_vocab, row, n_vocab * sizeof *row);
    logits->n = (index + 1) * n_vocab;
    return 0;
}

static mmq_status evaluate(struct logits *logits, const struct fixture *f)
{
    static const int32_t targets[] = {20, 41, 300, 7, 99, 123};
    mmq_evaluate_request request = {.struct_size = sizeof request,
                                    .prompt = &f->prompt,
                                    .targets = targets,
                                    .n_targets = 6,
                                    .on_logits = keep_logits,
                                    .logits_user = logits};
    mmq_evaluation *evaluation;
    mmq_status status = mmq_evaluate(&evaluation, f->session, &request);

    mmq_evaluation_free(evaluation);
    return status;
}

START_TEST(logits_are_bit_equal_for_every_chunk_size_and_after_truncation)
{
    static const int32_t chunks[] = {512, 1, 7};
    struct logits first = {.n = 0}, other;
    struct fixture f;

    for (int i = 0; i < 3; i++) {
        open_fixture(&f, chunks[i]);
        ASSERT_OK(evaluate(i == 0 ? &first : &other, &f));
        ASSERT_OK(mmq_session_truncate(f.session, 9)); /* inside the video */
        ASSERT_OK(evaluate(&other, &f));
        ck_assert_uint_eq(first.n, other.n);
        ck_assert_mem_eq(first.data, other.data, first.n * sizeof(float));
        close_fixture(&f);
    }
}
END_TEST

/* Two views of 3 x 2 squares each. */
START_TEST(a_video_takes_the_rows_of_its_views)
{
    struct logits logits;
    struct fixture f;
    int32_t with, without;

    open_fixture(&f, 0);
    ASSERT_OK(evaluate(&logits, &f));
    with = mmq_session_length(f.session);
    f.prompt.text = "First , then " PICTURE ": what moves?";
    f.list[0] = f.picture;
    f.prompt.n_images = 1;
    ASSERT_OK(evaluate(&logits, &f));
    without = mmq_session_length(f.session);
    ck_assert_int_ge(with - without, 12 + 1);
    ck_assert_int_le(with - without, 12 + 3);
    close_fixture(&f);
}
END_TEST

START_TEST(markers_must_be_those_of_what_stands_there)
{
    struct logits logits;
    struct fixture f;

    open_fixture(&f, 0);
    f.prompt.text = "First " PICTURE ", then " PICTURE;
    ASSERT_FAILS(MMQ_ERR_INVALID, "2 '<|image_pad|>' for 1 pictures", evaluate(&logits, &f));
    f.prompt.text = "First " VIDEO VIDEO ", then " PICTURE;
    ASSERT_FAILS(MMQ_ERR_INVALID, "2 '<|video_pad|>' for 1 videos", evaluate(&logits, &f));
    f.prompt.text = "First " PICTURE ", then " VIDEO;
    ASSERT_FAILS(MMQ_ERR_INVALID, "picture 0 is a video where '<|image_pad|>' stands",
                 evaluate(&logits, &f));
    f.prompt.text = "None";
    f.prompt.n_images = 0;
    ASSERT_OK(evaluate(&logits, &f));
    close_fixture(&f);
}
END_TEST

START_TEST(a_video_longer_than_the_context_is_refused)
{
    mmq_image *video = video_of(200, 0.0);
    struct logits logits;
    struct fixture f;

    open_fixture(&f, 0);
    f.prompt.text = VIDEO;
    f.list[0] = video;
    f.prompt.n_images = 1;
    ASSERT_FAILS(MMQ_ERR_CONTEXT_FULL, "600 rows, a context of 512", evaluate(&logits, &f));
    ck_assert_int_eq(mmq_session_length(f.session), 0);
    mmq_image_free(video);
    video = video_of(258, 0.0);
    f.list[0] = video;
    ASSERT_FAILS(MMQ_ERR_LIMIT, "a video of 258 frames", evaluate(&logits, &f));
    f.list[0] = f.picture;
    f.prompt.text = PICTURE;
    ASSERT_OK(evaluate(&logits, &f));
    mmq_image_free(video);
    close_fixture(&f);
}
END_TEST

static const struct {
    const char *folder, *text;
} without_videos[] = {
    {"test/golden/llava_tiny/model", "USER: <image>"},
    {"test/golden/qwen3_vl_tiny/model", PICTURE},
    {"test/golden/idefics3_tiny/model", "<|im_start|>User:<image>"},
};

START_TEST(a_model_that_takes_no_videos_says_so)
{
    struct logits logits;
    struct fixture f = {.video = video_of(2, 0.0)};

    ASSERT_OK(mmq_load(&f.model, source_path(without_videos[_i].folder), NULL));
    ASSERT_OK(mmq_session_create(&f.session, f.model, NULL));
    f.list[0] = f.video;
    f.prompt = (mmq_prompt){.struct_size = sizeof f.prompt,
                            .text = without_videos[_i].text,
                            .images = f.list,
                            .n_images = 1};
    ASSERT_FAILS(MMQ_ERR_UNSUPPORTED, "takes no videos", evaluate(&logits, &f));
    close_fixture(&f);
}
END_TEST

/* ---- files ---- */

START_TEST(bounds_of_videos_come_from_the_file_that_tells_them)
{
    struct checkpoint *c = tiny_checkpoint("qwen2_vl_tiny");
    struct mmqi_model *model = opens(c);

    ck_assert_str_eq(model->spec.video_marker, "<|video_pad|>");
    ck_assert_int_eq(model->spec.video_recipe.max_pixels, model->spec.recipe.max_pixels);
    free_checkpoint(c);
    c = tiny_checkpoint("qwen2_vl_tiny");
    set(c->preprocessor, "min_pixels", NULL);
    set(c->preprocessor, "max_pixels", NULL);
    model = opens(c);
    ck_assert_int_eq(model->spec.video_recipe.min_pixels, 128 * 28 * 28);
    ck_assert_int_eq(model->spec.video_recipe.max_pixels, 768 * 28 * 28);
    free_checkpoint(c);
    c = tiny_checkpoint("qwen2_vl_tiny");
    set(c->config, "video_token_id", "407"); /* no token of the tokenizer */
    model = opens(c);
    ck_assert_ptr_null(model->spec.video_marker);
    free_checkpoint(c);
    c = tiny_checkpoint("qwen2_vl_tiny");
    set(c->config, "video_token_id", "-1");
    fails(c, MMQ_ERR_FORMAT, "video_token_id");
    c = tiny_checkpoint("qwen2_vl_tiny");
    set(c->preprocessor, "max_video_tokens", "0");
    fails(c, MMQ_ERR_FORMAT, "max_video_tokens");
    c = tiny_checkpoint("qwen2_5_vl_tiny");
    set(c->config, "vision_config.tokens_per_second", "0");
    fails(c, MMQ_ERR_FORMAT, "tokens_per_second");
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("video");
    TCase *tests = tcase_create("videos");
    SRunner *runner = srunner_create(suite);
    int failed;

    tcase_set_timeout(tests, 60);
    tcase_add_test(tests, a_video_is_frames_of_one_size);
    tcase_add_test(tests, videos_are_compared_by_their_frames);
    tcase_add_test(tests, frames_share_the_rows_of_a_video_where_they_are_bounded);
    tcase_add_test(tests, time_goes_on_from_view_to_view);
    tcase_add_test(tests, logits_are_bit_equal_for_every_chunk_size_and_after_truncation);
    tcase_add_test(tests, a_video_takes_the_rows_of_its_views);
    tcase_add_test(tests, markers_must_be_those_of_what_stands_there);
    tcase_add_test(tests, a_video_longer_than_the_context_is_refused);
    tcase_add_loop_test(tests, a_model_that_takes_no_videos_says_so, 0, 3);
    tcase_add_test(tests, bounds_of_videos_come_from_the_file_that_tells_them);
    suite_add_tcase(suite, tests);
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? 1 : 0;
}
