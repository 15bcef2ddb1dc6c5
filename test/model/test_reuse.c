/*
 * A second question about the same picture: what the session holds is not
 * computed again, and the answer is that of a session that starts with the
 * whole conversation. How soon it begins counts in release alone.
 */
#include <stdbool.h>
#include <sys/stat.h>

#include "model/tiny.h"

#define REAL_MODEL "build/models/llava-flickr"

enum { N_NEW = 12, MAX_VOCAB = 1 << 16, N_TRIES = SPEED_COUNTS ? 4 : 1 };

static bool has_real_model(void)
{
    struct stat info;

    return stat(source_path(REAL_MODEL), &info) == 0;
}

/* User, assistant, user: the first `n` of them make the prompt. */
struct conversation {
    mmq_part parts[4];
    const mmq_part *lists[3][2];
    mmq_message messages[3];
    const mmq_message *list[3];
    mmq_prompt prompt;
};

static void set_message(struct conversation *c, int i, const char *role, const mmq_part *first,
                        size_t n_parts)
{
    c->lists[i][0] = first;
    c->lists[i][1] = first + 1;
    c->messages[i] = (mmq_message){sizeof c->messages[i], role, c->lists[i], n_parts};
    c->list[i] = &c->messages[i];
}

static const mmq_prompt *begin(struct conversation *c, const mmq_image *image, const char *first,
                               const char *second)
{
    *c = (struct conversation){
        .parts = {{.struct_size = sizeof(mmq_part), .image = image},
                  {.struct_size = sizeof(mmq_part), .text = first},
                  {.struct_size = sizeof(mmq_part)},
                  {.struct_size = sizeof(mmq_part), .text = second}},
        .prompt = {.struct_size = sizeof c->prompt, .messages = c->list, .n_messages = 1},
    };
    set_message(c, 0, "user", &c->parts[0], 2);
    set_message(c, 1, "assistant", &c->parts[2], 1);
    set_message(c, 2, "user", &c->parts[3], 1);
    return &c->prompt;
}

/* Go on with what the model said (as the template wants it, without the space in front). */
static const mmq_prompt *go_on(struct conversation *c, const char *answer)
{
    c->parts[2].text = answer + strspn(answer, " ");
    c->prompt.n_messages = 3;
    return &c->prompt;
}

struct logits {
    float row[N_NEW][MAX_VOCAB];
    size_t n, n_vocab;
};

static int32_t keep(void *user, size_t index, const float *logits, size_t n_vocab)
{
    struct logits *kept = user;

    ck_assert_uint_le(n_vocab, MAX_VOCAB);
    ck_assert_uint_lt(index, N_NEW);
    memcpy(kept->row[index], logits, n_vocab * sizeof *logits);
    kept->n = index + 1;
    kept->n_vocab = n_vocab;
    return 0;
}

static mmq_result *ask(mmq_result_facts *facts, struct logits *logits, mmq_session *session,
                       const mmq_prompt *prompt)
{
    mmq_generate_request request = {.struct_size = sizeof request,
                                    .prompt = prompt,
                                    .max_new_tokens = N_NEW,
                                    .ignore_eos = 1,
                                    .on_logits = keep,
                                    .logits_user = logits};
    mmq_result *result;

    facts->struct_size = sizeof *facts;
    ASSERT_OK(mmq_generate(&result, session, &request));
    ASSERT_OK(mmq_result_info(facts, result));
    return result;
}

static void check_same(const struct logits *a, const struct logits *b)
{
    ck_assert_uint_eq(a->n, N_NEW);
    ck_assert_uint_eq(b->n, N_NEW);
    ck_assert_uint_eq(a->n_vocab, b->n_vocab);
    for (int i = 0; i < N_NEW; i++)
        ck_assert_int_eq(memcmp(a->row[i], b->row[i], a->n_vocab * sizeof(float)), 0);
}

/* A conversation in one session against the whole of it in a new one. */
static void converse(mmq_session *session, mmq_session *fresh, const mmq_image *image)
{
    static struct logits logits, continued, whole;
    struct conversation c;
    mmq_result *one, *two, *three;
    mmq_result_facts first, second, facts;

    one = ask(&first, &logits, session,
              begin(&c, image, "What is in the picture?", "Is it day or night?"));
    ck_assert_int_eq(first.n_pictures_encoded, 1);
    ck_assert_uint_gt(first.encode_nanoseconds, 0);
    ck_assert_uint_lt(first.encode_nanoseconds, first.prefill_nanoseconds);
    two = ask(&second, &continued, session, go_on(&c, mmq_result_text(one)));
    ck_assert_int_eq(second.n_pictures_encoded, 0);
    ck_assert_uint_eq(second.encode_nanoseconds, 0);
    ck_assert_int_ge(second.n_reused, first.n_prompt - 1);
    three = ask(&facts, &whole, fresh, &c.prompt);
    ck_assert_int_eq(facts.n_reused, 0);
    ck_assert_int_eq(facts.n_pictures_encoded, 1);
    ck_assert_int_eq(facts.n_prompt, second.n_prompt);
    check_same(&continued, &whole);
    ck_assert_str_eq(mmq_result_text(two), mmq_result_text(three));
    ck_assert_int_eq(mmq_session_length(session), mmq_session_length(fresh));
    mmq_result_free(one);
    mmq_result_free(two);
    mmq_result_free(three);
}

static void open_sessions(mmq_session *sessions[2], mmq_model *model)
{
    mmq_session_options options = {.struct_size = sizeof options, .chunk = 7};

    ASSERT_OK(mmq_session_create(&sessions[0], model, NULL));
    ASSERT_OK(mmq_session_create(&sessions[1], model, &options)); /* chunks change nothing */
}

static void check_conversation(mmq_model *model)
{
    mmq_image *image = tiny_image(1);
    mmq_session *sessions[2];

    open_sessions(sessions, model);
    converse(sessions[0], sessions[1], image);
    mmq_session_free(sessions[0]);
    mmq_session_free(sessions[1]);
    mmq_image_free(image);
    mmq_model_free(model);
}

START_TEST(a_session_continued_equals_one_that_starts_with_the_whole_conversation)
{
    check_conversation(tiny_model(NULL));
}
END_TEST

START_TEST(that_holds_for_a_real_model)
{
    mmq_model *model;

    if (!has_real_model())
        SKIP(REAL_MODEL " is absent; make real-model unpacks it");
    ASSERT_OK(mmq_load(&model, source_path(REAL_MODEL), NULL));
    check_conversation(model);
}
END_TEST

static void take_least(uint64_t *least, uint64_t value)
{
    *least = value < *least ? value : *least;
}

/* The shortest time to the first token of a first question, and of a second one after it: the
 * machine may be busy with something else. */
static void measure(uint64_t *first, uint64_t *second, mmq_session *session, const mmq_image *image)
{
    static struct logits logits;
    struct conversation c;
    mmq_result_facts facts;
    mmq_result *answer;
    int32_t length;

    for (int i = 0; i < N_TRIES; i++) {
        ASSERT_OK(mmq_session_reset(session));
        begin(&c, image, "What is in the picture?", "Is it day or night?");
        answer = ask(&facts, &logits, session, &c.prompt);
        take_least(first, facts.prefill_nanoseconds);
        length = mmq_session_length(session);
        go_on(&c, mmq_result_text(answer));
        for (int again = 0; again < N_TRIES; again++) {
            ASSERT_OK(mmq_session_truncate(session, length));
            mmq_result_free(ask(&facts, &logits, session, &c.prompt));
            take_least(second, facts.prefill_nanoseconds);
            ck_assert_int_eq(facts.n_reused, length);
        }
        mmq_result_free(answer);
    }
}

START_TEST(the_second_question_begins_to_be_answered_in_a_tenth_of_the_first_ones_time)
{
    uint64_t first = UINT64_MAX, second = UINT64_MAX;
    mmq_session *session;
    mmq_model *model;
    mmq_image *image;

    if (!has_real_model())
        SKIP(REAL_MODEL " is absent; make real-model unpacks it");
    image = tiny_image(1);
    ASSERT_OK(mmq_load(&model, source_path(REAL_MODEL), NULL));
    ASSERT_OK(mmq_session_create(&session, model, NULL));
    measure(&first, &second, session, image);
    printf("time to first token: %.1f ms, then %.1f ms, %.1f %%\n", (double)first * 1e-6,
           (double)second * 1e-6, (double)second / (double)first * 100);
    fflush(stdout);
    if (SPEED_COUNTS)
        ck_assert_uint_le(10 * second, first);
    mmq_session_free(session);
    mmq_image_free(image);
    mmq_model_free(model);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("reuse");
    TCase *tests = tcase_create("reuse");
    SRunner *runner = srunner_create(suite);
    int failed;

    tcase_set_timeout(tests, 60);
    tcase_add_test(tests, a_session_continued_equals_one_that_starts_with_the_whole_conversation);
    tcase_add_test(tests, that_holds_for_a_real_model);
    tcase_add_test(tests,
                   the_second_question_begins_to_be_answered_in_a_tenth_of_the_first_ones_time);
    suite_add_tcase(suite, tests);
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? 1 : 0;
}
