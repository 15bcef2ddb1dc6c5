/* One model, many threads: a session each, and a flag raised from outside. */
#include <pthread.h>

#include "model/tiny.h"

enum { N_THREADS = 8, N_NEW = 6, N_VOCAB = 456, N_ROUNDS = 2 };

static const char *const questions[] = {
    "USER: <image>\nWhat is in the picture? ASSISTANT:",
    "USER: How many boats were there? ASSISTANT:",
    "USER: <image>\nIs it red? ASSISTANT:",
    "USER: Write a list of three things. ASSISTANT:",
};

/* What one session answers: everything that could differ. */
struct answer {
    char text[512];
    int32_t ids[N_NEW];
    double logprobs[N_NEW];
    float last[N_VOCAB]; /* the logits that chose the last token */
    int wrong;           /* statuses that were no success */
};

struct worker {
    mmq_model *model;
    mmq_image *image;
    int number;
    struct answer answer;
};

static int32_t keep_last(void *user, size_t index, const float *logits, size_t n_vocab)
{
    (void)index;
    memcpy(((struct answer *)user)->last, logits, n_vocab * sizeof *logits);
    return 0;
}

static mmq_prompt question(const mmq_image *const *image, int number)
{
    const char *text = questions[number % 4];

    return (mmq_prompt){.struct_size = sizeof(mmq_prompt),
                        .text = text,
                        .images = image,
                        .n_images = strstr(text, "<image>") != NULL};
}

static mmq_status score(struct answer *answer, mmq_session *session, const mmq_prompt *prompt)
{
    mmq_evaluate_request request = {.struct_size = sizeof request,
                                    .prompt = prompt,
                                    .targets = answer->ids,
                                    .n_targets = N_NEW};
    mmq_evaluation *evaluation = NULL;
    mmq_status status = mmq_evaluate(&evaluation, session, &request);
    size_t n;

    if (status == MMQ_OK)
        memcpy(answer->logprobs, mmq_evaluation_logprobs(evaluation, &n), sizeof answer->logprobs);
    mmq_evaluation_free(evaluation);
    return status;
}

/* No ck_assert here: it would leave from a thread that Check does not know. */
static void *ask(void *arg)
{
    struct worker *w = arg;
    const mmq_image *images[] = {w->image};
    mmq_prompt prompt = question(images, w->number);
    mmq_generate_request request = {.struct_size = sizeof request,
                                    .prompt = &prompt,
                                    .max_new_tokens = N_NEW,
                                    .ignore_eos = 1,
                                    .temperature = w->number % 2 ? 0.8F : 0,
                                    .seed = (uint64_t)w->number,
                                    .on_logits = keep_last,
                                    .logits_user = &w->answer};
    mmq_session *session = NULL;
    mmq_result *result = NULL;
    size_t n;

    w->answer.wrong += mmq_session_create(&session, w->model, NULL) != MMQ_OK;
    for (int round = 0; round < N_ROUNDS && session; round++) {
        w->answer.wrong += mmq_generate(&result, session, &request) != MMQ_OK;
        snprintf(w->answer.text, sizeof w->answer.text, "%s", mmq_result_text(result));
        if (result)
            memcpy(w->answer.ids, mmq_result_ids(result, &n), sizeof w->answer.ids);
        mmq_result_free(result);
        w->answer.wrong += score(&w->answer, session, &prompt) != MMQ_OK;
        w->answer.wrong += mmq_session_reset(session) != MMQ_OK;
    }
    mmq_session_free(session);
    return NULL;
}

static void check_same(const struct answer *alone, const struct answer *together)
{
    ck_assert_int_eq(alone->wrong, 0);
    ck_assert_int_eq(together->wrong, 0);
    ck_assert_str_eq(alone->text, together->text);
    ck_assert_int_eq(memcmp(alone->ids, together->ids, sizeof alone->ids), 0);
    ck_assert_int_eq(memcmp(alone->logprobs, together->logprobs, sizeof alone->logprobs), 0);
    ck_assert_int_eq(memcmp(alone->last, together->last, sizeof alone->last), 0);
}

/* A runtime of three threads, or none: the model's own. */
static mmq_model *shared_model(mmq_runtime *runtime)
{
    mmq_load_options load = {
        .struct_size = sizeof load, .n_threads = runtime ? 0 : 2, .runtime = runtime};

    return tiny_model(&load);
}

START_TEST(sessions_of_eight_threads_answer_as_each_does_alone)
{
    static struct worker alone[N_THREADS], together[N_THREADS];
    mmq_runtime_options options = {.struct_size = sizeof options, .n_threads = 3};
    pthread_t threads[N_THREADS];
    mmq_runtime *runtime = NULL;
    mmq_image *image = tiny_image(1);
    mmq_model *model;
    int i;

    if (_i == 1)
        ASSERT_OK(mmq_runtime_create(&runtime, &options));
    model = shared_model(runtime);
    for (i = 0; i < N_THREADS; i++) {
        alone[i] = (struct worker){.model = model, .image = image, .number = i};
        ask(&alone[i]);
    }
    mmq_model_free(model);
    /* A model that nobody has placed: the first session does, and the others wait for it. */
    model = shared_model(runtime);
    mmq_runtime_free(runtime);
    for (i = 0; i < N_THREADS; i++) {
        together[i] = (struct worker){.model = model, .image = image, .number = i};
        ck_assert_int_eq(pthread_create(&threads[i], NULL, ask, &together[i]), 0);
    }
    for (i = 0; i < N_THREADS; i++)
        pthread_join(threads[i], NULL);
    for (i = 0; i < N_THREADS; i++)
        check_same(&alone[i].answer, &together[i].answer);
    mmq_model_free(model);
    mmq_image_free(image);
}
END_TEST

/* ---- a flag from another thread ---- */

struct endless {
    mmq_session *session;
    mmq_cancel *cancel;
    int32_t n_pieces; /* changed with atomics only */
    mmq_status status;
    char error[256];
};

static int32_t count_piece(void *user, const char *text, size_t size, const int32_t *ids,
                           size_t n_ids)
{
    (void)text, (void)size, (void)ids, (void)n_ids;
    __atomic_add_fetch(&((struct endless *)user)->n_pieces, 1, __ATOMIC_RELEASE);
    return 0;
}

/* Ask again and again, until something ends it. */
static void *ask_forever(void *arg)
{
    struct endless *e = arg;
    mmq_prompt prompt = {.struct_size = sizeof prompt, .text = questions[3]};
    mmq_generate_request request = {.struct_size = sizeof request,
                                    .prompt = &prompt,
                                    .max_new_tokens = 100,
                                    .ignore_eos = 1,
                                    .on_text = count_piece,
                                    .text_user = e,
                                    .cancel = e->cancel};
    mmq_result *result;

    for (int i = 0; i < 10000 && e->status == MMQ_OK; i++) {
        mmq_session_reset(e->session);
        e->status = mmq_generate(&result, e->session, &request);
        mmq_result_free(result);
    }
    snprintf(e->error, sizeof e->error, "%s", mmq_session_error(e->session));
    return NULL;
}

START_TEST(a_flag_raised_by_another_thread_ends_an_answer_and_the_session_goes_on)
{
    struct endless e = {0};
    mmq_model *model = tiny_model(NULL);
    mmq_prompt prompt = {.struct_size = sizeof prompt, .text = questions[1]};
    mmq_generate_request request = {
        .struct_size = sizeof request, .prompt = &prompt, .max_new_tokens = 2};
    mmq_result *result;
    pthread_t thread;

    ASSERT_OK(mmq_cancel_create(&e.cancel));
    ASSERT_OK(mmq_session_create(&e.session, model, NULL));
    ck_assert_int_eq(pthread_create(&thread, NULL, ask_forever, &e), 0);
    while (__atomic_load_n(&e.n_pieces, __ATOMIC_ACQUIRE) < 5)
        sched_yield();
    mmq_cancel_raise(e.cancel);
    pthread_join(thread, NULL);
    ck_assert_int_eq(e.status, MMQ_ERR_CANCELLED);
    ck_assert_ptr_nonnull(strstr(e.error, "cancelled"));
    ASSERT_OK(mmq_generate(&result, e.session, &request));
    mmq_result_free(result);
    mmq_session_free(e.session);
    mmq_cancel_free(e.cancel);
    mmq_model_free(model);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("threads");
    TCase *tests = tcase_create("threads");
    SRunner *runner = srunner_create(suite);
    int failed;

    tcase_set_timeout(tests, 60);
    tcase_add_loop_test(tests, sessions_of_eight_threads_answer_as_each_does_alone, 0, 2);
    tcase_add_test(tests, a_flag_raised_by_another_thread_ends_an_answer_and_the_session_goes_on);
    suite_add_tcase(suite, tests);
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? 1 : 0;
}
