/*
 * What every family promises alike, on its committed tiny model: packed weights are the same bytes
 * wherever they lie, what is estimated is what is taken, and pictures of several sizes come to the
 * same logits whatever a session has done before.
 */
#include "tiny.h"

#include "scratch.h"

#define VISION "<|vision_start|><|image_pad|><|vision_end|>"

static const struct {
    const char *name, *marker;
} families[] = {
    {"llava_tiny", "<image>"},       {"llava_orig_tiny", "<image>"}, {"llava_next_tiny", "<image>"},
    {"qwen2_vl_video_tiny", VISION}, {"qwen2_5_vl_tiny", VISION},    {"qwen3_vl_tiny", VISION},
    {"idefics3_tiny", "<image>"},    {"smolvlm_tiny", "<image>"},
};

enum { N_FAMILIES = sizeof families / sizeof *families, N_TARGETS = 3, MAX_LOGITS = 3 * 600 };

static const char *const policies[] = {
    "int8",
    "nf4",
    "layered",
    "int4",
    "nf4-nested",
    "fp4-32 search",
    "vision.* = fp4-128-nested search; language.* = nf4-32-nested; projector.* = nf4-128",
};

enum { N_POLICIES = sizeof policies / sizeof *policies };

struct answer {
    float logits[MAX_LOGITS];
    size_t n;
    int32_t n_tokens;
};

static int32_t keep_logits(void *user, size_t index, const float *logits, size_t n_vocab)
{
    struct answer *answer = user;

    ck_assert_uint_le((index + 1) * n_vocab, MAX_LOGITS);
    memcpy(answer->logits + index * n_vocab, logits, n_vocab * sizeof *logits);
    answer->n = (index + 1) * n_vocab;
    return 0;
}

/* Pictures [first, first + n) of a few sizes, with words around them. */
static mmq_status ask(struct answer *answer, mmq_session *session, int family, int first, int n)
{
    static const int32_t sizes[][2] = {{60, 50}, {31, 97}, {120, 40}, {57, 57}};
    static const int32_t targets[N_TARGETS] = {5, 17, 200};
    mmq_image *images[4] = {NULL};
    char text[512] = "Look: ";
    mmq_prompt prompt = {.struct_size = sizeof prompt,
                         .text = text,
                         .images = (const mmq_image *const *)images,
                         .n_images = (size_t)n};
    mmq_evaluate_request request = {.struct_size = sizeof request,
                                    .prompt = &prompt,
                                    .targets = targets,
                                    .n_targets = N_TARGETS,
                                    .on_logits = keep_logits,
                                    .logits_user = answer};
    mmq_evaluation *evaluation = NULL;
    mmq_status status;

    memset(answer, 0, sizeof *answer);
    for (int i = 0; i < n; i++) {
        const int32_t *size = sizes[(first + i) % 4];

        images[i] = tiny_picture(size[0], size[1], first + i);
        strcat(text, families[family].marker);
        strcat(text, i % 2 ? "" : " and ");
    }
    status = mmq_evaluate(&evaluation, session, &request);
    answer->n_tokens = mmq_session_length(session);
    mmq_evaluation_free(evaluation);
    for (int i = 0; i < n; i++)
        mmq_image_free(images[i]);
    return status;
}

static void expect_same(const struct answer *a, const struct answer *b, const char *what)
{
    ck_assert_msg(a->n > 0 && a->n == b->n, "%s: %zu, %zu", what, a->n, b->n);
    ck_assert_msg(memcmp(a->logits, b->logits, a->n * sizeof *a->logits) == 0, "%s", what);
}

static mmq_model *open_family(const char *folder, const char *policy)
{
    mmq_load_options options = {.struct_size = sizeof options, .quantize = policy, .n_threads = 1};
    mmq_model *model;

    ASSERT_OK(mmq_load(&model, folder, &options));
    return model;
}

static const char *folder_of(int family)
{
    return source_path(support_text("test/golden/%s/model", families[family].name));
}

static mmq_session *session_of(mmq_model *model, int32_t context, int32_t chunk)
{
    mmq_session_options options = {
        .struct_size = sizeof options, .context = context, .chunk = chunk};
    mmq_session *session;

    ASSERT_OK(mmq_session_create(&session, model, &options));
    return session;
}

static struct answer answer_of(mmq_model *model, int family, int32_t chunk)
{
    mmq_session *session = session_of(model, 0, chunk);
    struct answer answer;

    ASSERT_OK(ask(&answer, session, family, 0, 1));
    mmq_session_free(session);
    return answer;
}

/* ---- packed weights ---- */

/* At load, in memory, from a folder, and from the folder that is saved from memory. */
static void compare_ways(int family, const char *policy)
{
    mmq_quantize_options options = {
        .struct_size = sizeof options, .format = policy, .out_path = "folder"};
    mmq_quantize_options again = {
        .struct_size = sizeof again, .format = "* = keep", .out_path = "saved"};
    mmq_model *source = open_family(folder_of(family), NULL), *memory, *other;
    struct answer want, have;

    ASSERT_OK(mmq_quantize_layerwise(&memory, source, &options, NULL));
    ASSERT_OK(mmq_quantize_layerwise(NULL, memory, &again, NULL));
    mmq_model_free(source);
    want = answer_of(memory, family, 0);
    mmq_model_free(memory);
    for (int i = 0; i < 3; i++) {
        other = i == 0 ? open_family(folder_of(family), policy)
                       : open_family(i == 1 ? "folder" : "saved", NULL);
        have = answer_of(other, family, 7);
        expect_same(&want, &have, support_text("%s, %s, %d", families[family].name, policy, i));
        mmq_model_free(other);
    }
    ck_assert_int_eq(system("rm -r folder saved"), 0);
}

START_TEST(packed_weights_answer_alike_wherever_they_lie)
{
    for (int i = 0; i < N_POLICIES; i++)
        compare_ways(_i, policies[i]);
}
END_TEST

/* ---- memory ---- */

static mmq_device_memory estimate(const mmq_model *model, const mmq_session_options *options)
{
    mmq_device_memory memory = {.struct_size = sizeof memory};

    ASSERT_OK(mmq_estimate_device(&memory, model, options, 0));
    return memory;
}

START_TEST(what_is_estimated_is_what_is_taken)
{
    static const int32_t shapes[][3] = {{0, 0, 0}, {300, 1, 0}, {300, 64, 40}, {511, 13, 1}};

    for (int k = 0; k < 2; k++)
        for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
            mmq_model *model = open_family(folder_of(_i), k ? "nf4" : NULL);
            mmq_session_options options = {.struct_size = sizeof options,
                                           .context = shapes[i][0],
                                           .chunk = shapes[i][1],
                                           .image_rows = shapes[i][2]};
            mmq_device_memory told = estimate(model, &options), taken;
            mmq_session *session;
            struct answer answer;

            ck_assert_uint_eq(told.taken, 0);
            ASSERT_OK(mmq_session_create(&session, model, &options));
            taken = estimate(model, &options);
            ck_assert_uint_eq(taken.taken, told.total);
            ask(&answer, session, _i, 0, 2); /* it may not fit */
            taken = estimate(model, &options);
            ck_assert_uint_eq(taken.taken, told.total);
            mmq_session_free(session);
            mmq_model_free(model);
        }
}
END_TEST

/* ---- pictures ---- */

/* The second prompt shares a picture with the first, the third none, the fourth all. */
START_TEST(pictures_of_several_sizes_come_out_alike_in_any_session)
{
    static const int asked[][2] = {{0, 3}, {0, 2}, {1, 3}, {1, 3}, {0, 0}, {2, 1}, {0, 3}};
    static const int32_t chunks[] = {512, 1, 5};
    mmq_model *model = open_family(folder_of(_i), NULL);
    struct answer want, have;

    for (int k = 0; k < 3; k++) {
        mmq_session *used = session_of(model, 0, chunks[k]);

        for (size_t i = 0; i < sizeof asked / sizeof *asked; i++) {
            mmq_session *fresh = session_of(model, 0, 64);
            mmq_status status = ask(&want, fresh, _i, asked[i][0], asked[i][1]);

            ck_assert_msg(status == MMQ_OK || status == MMQ_ERR_CONTEXT_FULL, "%s",
                          mmq_last_error_message());
            ck_assert_int_eq(ask(&have, used, _i, asked[i][0], asked[i][1]), status);
            if (status == MMQ_OK)
                expect_same(&want, &have, support_text("%s, %d", families[_i].name, (int)i));
            mmq_session_free(fresh);
        }
        mmq_session_free(used);
    }
    mmq_model_free(model);
}
END_TEST

/* A context that the prompt fills to its last token is enough, one less refuses it, and the
 * session goes on. */
START_TEST(a_context_may_be_full_to_its_last_row)
{
    mmq_model *model = open_family(folder_of(_i), NULL);
    mmq_session *session = session_of(model, 0, 64);
    struct answer want, have;
    int32_t n;

    ASSERT_OK(ask(&want, session, _i, 0, 1));
    n = want.n_tokens;
    mmq_session_free(session);
    for (int32_t less = 0; less < n; less += less < 3 ? 1 : 11) {
        session = session_of(model, n - less, 9);
        if (less == 0) {
            ASSERT_OK(ask(&have, session, _i, 0, 1));
            expect_same(&want, &have, families[_i].name);
        } else {
            ck_assert_int_eq(ask(&have, session, _i, 0, 1), MMQ_ERR_CONTEXT_FULL);
        }
        if (n - less > 12)
            ASSERT_OK(ask(&have, session, _i, 0, 0));
        mmq_session_free(session);
    }
    mmq_model_free(model);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("families");
    TCase *tests = tcase_create("every family");
    SRunner *runner = srunner_create(suite);
    int failed;

    tcase_add_checked_fixture(tests, scratch_enter, scratch_leave);
    tcase_set_timeout(tests, 120);
    tcase_add_loop_test(tests, packed_weights_answer_alike_wherever_they_lie, 0, N_FAMILIES);
    tcase_add_loop_test(tests, what_is_estimated_is_what_is_taken, 0, N_FAMILIES);
    tcase_add_loop_test(tests, pictures_of_several_sizes_come_out_alike_in_any_session, 0,
                        N_FAMILIES);
    tcase_add_loop_test(tests, a_context_may_be_full_to_its_last_row, 0, N_FAMILIES);
    suite_add_tcase(suite, tests);
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? 1 : 0;
}
