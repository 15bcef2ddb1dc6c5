/*
 * Answers whose tokens the device picks by itself are those that are picked from downloaded logits,
 * wherever and however they end. A callback for logits is what makes the host pick.
 *
 * On the CPU, which is never ahead, on a device of its own (test/fake_device.h), which is, and on
 * TEST_DEVICE of TEST_CUDA_LIBRARY where that is set.
 */
#include "fake_device.h"
#include "tiny.h"

#include "api/api.h"

static const struct mmqi_backend *const backends[] = {&mmqi_cpu_backend, &fake_backend, NULL};

static const char *const folders[] = {"test/golden/llava_tiny/model",
                                      "test/golden/qwen2_vl_tiny/model"};
static const char *const texts[] = {"USER: <image>\nWhat is it? ASSISTANT:",
                                    "<|vision_start|><|image_pad|><|vision_end|>What is it?"};
static const char video_text[] = "<|vision_start|><|video_pad|><|vision_end|>What?";

enum { CPU = 0, FAKE = 1, CUDA = 2, N_PLACES, N_SCENES = 2 * N_PLACES, MOST = 64 };

/* A model at a place, and a session of it. */
struct scene {
    mmq_runtime *runtime;
    mmq_model *model;
    mmq_session *session;
    const char *text;
};

/* False where there is no such place. */
static bool open_scene(struct scene *s, int i, int32_t context)
{
    const char *cuda = getenv("TEST_DEVICE"), *library = getenv("TEST_CUDA_LIBRARY");
    mmq_runtime_options how = {
        .struct_size = sizeof how,
        .n_threads = 1,
        .cuda_library = library ? library : source_path(BUILD_FOLDER "/lib/libmmq-cuda.so")};
    mmq_load_options load = {.struct_size = sizeof load, .device = "cpu", .n_threads = 1};
    mmq_session_options options = {
        .struct_size = sizeof options, .context = context, .chunk = 24, .mode = "exact"};

    memset(s, 0, sizeof *s);
    s->text = texts[i % 2];
    if (i / 2 == CUDA) {
        if (!cuda || strncmp(cuda, "cuda", 4) != 0)
            return false;
        ASSERT_OK(mmq_runtime_create(&s->runtime, &how));
        load.runtime = s->runtime;
        load.device = cuda;
        load.n_threads = 0;
        ASSERT_OK(mmq_load(&s->model, source_path(folders[i % 2]), &load));
    } else {
        load.device = i / 2 == CPU ? "cpu" : "* = fake:0";
        ASSERT_OK(mmqi_load(&s->model, source_path(folders[i % 2]), &load, backends));
    }
    ASSERT_OK(mmq_session_create(&s->session, s->model, &options));
    return true;
}

static void close_scene(struct scene *s)
{
    mmq_session_free(s->session);
    mmq_model_free(s->model);
    mmq_runtime_free(s->runtime);
}

/* How an answer is asked for, and what is done on the way. */
struct question {
    int32_t most;
    const char *stop;
    bool takes_eos;
    int32_t end_at;    /* the callback ends it with its nth piece; 0: never */
    int32_t cancel_at; /* likewise raises the flag */
    bool shows_logits; /* so that the host picks */
    bool of_video;
    float temperature;
};

struct answer {
    mmq_status status;
    int32_t ids[MOST], finish;
    size_t n_ids;
    char text[1024];
    int32_t n_held, held[256]; /* by the session afterwards */
    int32_t n_pieces, n_logits;
    char piece[MOST][16];
    const struct question *question;
    mmq_cancel *cancel;
};

static int32_t take_piece(void *user, const char *text, size_t size, const int32_t *ids,
                          size_t n_ids)
{
    struct answer *a = user;
    int32_t n = ++a->n_pieces;

    (void)ids, (void)n_ids;
    if (n <= MOST && size < sizeof a->piece[0])
        memcpy(a->piece[n - 1], text, size);
    if (a->cancel && n == a->question->cancel_at)
        mmq_cancel_raise(a->cancel);
    return n == a->question->end_at;
}

static int32_t see_logits(void *user, size_t index, const float *logits, size_t n_vocab)
{
    (void)index, (void)logits, (void)n_vocab;
    ((struct answer *)user)->n_logits++;
    return 0;
}

static void keep_result(struct answer *a, const mmq_result *result)
{
    const int32_t *ids = mmq_result_ids(result, &a->n_ids);

    ck_assert_uint_le(a->n_ids, MOST);
    memcpy(a->ids, ids, a->n_ids * sizeof *ids);
    a->finish = mmq_result_finish(result);
    snprintf(a->text, sizeof a->text, "%s", mmq_result_text(result));
}

/* A frame so often that its time goes far beyond the sides of its grid. */
static mmq_image *long_video(void)
{
    const mmq_image *frames[40];
    mmq_image *frame = tiny_image(1), *video;

    for (int i = 0; i < 40; i++)
        frames[i] = frame;
    ASSERT_OK(mmq_image_from_frames(&video, frames, 40, NULL));
    mmq_image_free(frame);
    return video;
}

static struct answer *ask(struct scene *s, const struct question *question)
{
    mmq_image *image = question->of_video ? long_video() : tiny_image(1);
    const mmq_image *images[] = {image};
    mmq_prompt prompt = {.struct_size = sizeof prompt,
                         .text = question->of_video ? video_text : s->text,
                         .images = images,
                         .n_images = 1};
    struct answer *a = calloc(1, sizeof *a);
    mmq_generate_request request = {.struct_size = sizeof request,
                                    .prompt = &prompt,
                                    .max_new_tokens = question->most,
                                    .temperature = question->temperature,
                                    .stop = &question->stop,
                                    .n_stop = question->stop != NULL,
                                    .ignore_eos = !question->takes_eos,
                                    .on_text = take_piece,
                                    .text_user = a,
                                    .on_logits = question->shows_logits ? see_logits : NULL,
                                    .logits_user = question->shows_logits ? a : NULL};
    const struct mmqi_session *core = s->session->core;
    mmq_result *result = NULL;

    ASSERT_OK(mmq_cancel_create(&a->cancel));
    request.cancel = a->cancel;
    a->question = question;
    a->status = mmq_generate(&result, s->session, &request);
    if (a->status == MMQ_OK)
        keep_result(a, result);
    a->n_held = core->n_tokens;
    ck_assert_int_le(a->n_held, 256);
    for (int32_t i = 0; i < a->n_held; i++)
        a->held[i] = core->tokens[i].id * 1000 + core->tokens[i].position[0];
    mmq_result_free(result);
    mmq_cancel_free(a->cancel);
    mmq_image_free(image);
    return a;
}

static void same_answer(const struct answer *a, const struct answer *b)
{
    ck_assert_int_eq(a->status, b->status);
    ck_assert_uint_eq(a->n_ids, b->n_ids);
    ck_assert_mem_eq(a->ids, b->ids, a->n_ids * sizeof *a->ids);
    ck_assert_int_eq(a->finish, b->finish);
    ck_assert_str_eq(a->text, b->text);
    ck_assert_int_eq(a->n_pieces, b->n_pieces);
    ck_assert_mem_eq(a->piece, b->piece, sizeof a->piece);
}

/* The device's picks and the host's, twice each in one session: what the session then holds is what
 * was computed, and serves the next answer. */
static void compare(struct scene *s, struct question question)
{
    struct answer *seen, *unseen;

    for (int turn = 0; turn < 2; turn++) {
        question.shows_logits = true;
        seen = ask(s, &question);
        ck_assert_int_gt(seen->n_logits, 0);
        question.shows_logits = false;
        unseen = ask(s, &question);
        same_answer(seen, unseen);
        ck_assert_int_eq(seen->n_held, unseen->n_held);
        ck_assert_mem_eq(seen->held, unseen->held, (size_t)seen->n_held * sizeof *seen->held);
        free(seen);
        free(unseen);
    }
}

START_TEST(the_device_picks_what_the_host_would_however_the_answer_ends)
{
    struct question free_run = {.most = 20}, question;
    struct answer *whole;
    struct scene s;

    if (!open_scene(&s, _i, 128))
        return;
    whole = ask(&s, &free_run);
    ck_assert_uint_eq(whole->n_ids, 20);
    for (int32_t most = 1; most <= 4; most++)
        compare(&s, (struct question){.most = most});
    compare(&s, (struct question){.most = 20});
    compare(&s, (struct question){.most = 40, .takes_eos = true});
    for (int32_t at = 1; at <= 7; at += 3)
        compare(&s, (struct question){.most = 20, .end_at = at});
    for (int32_t i = 0; i < whole->n_pieces && i < 9; i++) {
        question = (struct question){.most = 20, .stop = whole->piece[i]};
        if (whole->piece[i][0])
            compare(&s, question);
    }
    free(whole);
    close_scene(&s);
}
END_TEST

START_TEST(the_device_stops_where_the_context_ends)
{
    struct question one = {.most = 1};
    struct answer *prompt;
    struct scene s;
    int32_t n;

    if (!open_scene(&s, _i, 128))
        return;
    prompt = ask(&s, &one);
    n = prompt->n_held;
    free(prompt);
    close_scene(&s);
    for (int32_t more = 0; more <= 5; more++) {
        ck_assert(open_scene(&s, _i, n + more));
        compare(&s, (struct question){.most = 0});
        compare(&s, (struct question){.most = more + 1});
        close_scene(&s);
    }
}
END_TEST

/* The answer goes on behind the latest time of a video, which is far behind its last word. */
START_TEST(the_device_places_the_answer_to_a_video_where_the_host_does)
{
    struct scene s;

    if (!open_scene(&s, 2 * _i + 1, 256))
        return;
    compare(&s, (struct question){.most = 8, .of_video = true});
    close_scene(&s);
}
END_TEST

/* Also where no further step would be asked for. */
START_TEST(a_raised_flag_ends_the_steps_that_are_under_way)
{
    struct scene s;

    if (!open_scene(&s, _i, 128))
        return;
    for (int32_t at = 1; at <= 4; at++)
        compare(&s, (struct question){.most = 4, .cancel_at = at});
    close_scene(&s);
}
END_TEST

/* The flag is seen before the next token, on the device's way as on the host's; the session goes
 * on. */
START_TEST(a_raised_flag_ends_the_steps)
{
    struct question question = {.most = 20, .cancel_at = 3}, again = {.most = 20};
    struct answer *a, *want;
    struct scene s;

    if (!open_scene(&s, _i, 128))
        return;
    want = ask(&s, &again);
    a = ask(&s, &question);
    ck_assert_int_eq(a->status, MMQ_ERR_CANCELLED);
    ck_assert_int_lt(a->n_held, want->n_held);
    ck_assert_mem_eq(a->held, want->held, (size_t)a->n_held * sizeof *a->held);
    free(a);
    a = ask(&s, &again);
    same_answer(a, want);
    free(a);
    free(want);
    close_scene(&s);
}
END_TEST

/* The device has its own answer under way at every call that fails. */
START_TEST(survives_each_call_that_fails_while_steps_are_under_way)
{
    struct question question = {.most = 6};
    struct answer *want, *a;
    mmq_status status = MMQ_ERR_DEVICE;
    struct scene s;

    if (!open_scene(&s, 2 * FAKE, 128))
        return;
    want = ask(&s, &question);
    for (int64_t nth = 1; status != MMQ_OK; nth++) {
        fake_states[0].fault = (struct mmqi_fault){MMQI_FAULT_CALL, nth};
        a = ask(&s, &question);
        status = a->status;
        ck_assert(status == MMQ_OK || status == MMQ_ERR_DEVICE);
        ck_assert_mem_eq(a->held, want->held, (size_t)a->n_held * sizeof *a->held);
        free(a);
        fake_states[0].fault = (struct mmqi_fault){MMQI_FAULT_NONE, 0};
        a = ask(&s, &question);
        same_answer(a, want);
        free(a);
    }
    free(want);
    close_scene(&s);
}
END_TEST

/* It is one: no logits come to the host, and no index goes to the device, between two tokens. */
START_TEST(a_step_is_three_calls_of_the_device)
{
    struct question few = {.most = 4}, more = {.most = 14};
    int64_t calls[2];
    struct scene s;

    if (!open_scene(&s, 2 * FAKE, 128))
        return;
    free(ask(&s, &few));
    for (int i = 0; i < 2; i++) {
        calls[i] = fake_states[0].n_calls;
        free(ask(&s, i ? &more : &few));
        calls[i] = fake_states[0].n_calls - calls[i];
    }
    ck_assert_int_eq(calls[1] - calls[0], 3 * 10); /* execute, note, read_note */
    close_scene(&s);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("steps");
    TCase *tests = tcase_create("steps");
    SRunner *runner;
    int n_failed;

    suite_add_tcase(suite, tests);
    tcase_set_timeout(tests, 300);
    tcase_add_loop_test(tests, the_device_picks_what_the_host_would_however_the_answer_ends, 0,
                        N_SCENES);
    tcase_add_loop_test(tests, the_device_stops_where_the_context_ends, 0, N_SCENES);
    tcase_add_loop_test(tests, the_device_places_the_answer_to_a_video_where_the_host_does, 0,
                        N_PLACES);
    tcase_add_loop_test(tests, a_raised_flag_ends_the_steps, 0, N_SCENES);
    tcase_add_loop_test(tests, a_raised_flag_ends_the_steps_that_are_under_way, 0, N_SCENES);
    tcase_add_test(tests, survives_each_call_that_fails_while_steps_are_under_way);
    tcase_add_test(tests, a_step_is_three_calls_of_the_device);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    n_failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return n_failed != 0;
}
