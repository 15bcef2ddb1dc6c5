/* src/runtime/sampler.c: what may be drawn, and that draws repeat. */
#include <check.h>
#include <math.h>
#include <stdlib.h>

#include "core/status.h"
#include "runtime/sampler.h"

enum { N = 6 };
static const float logits[N] = {1.0f, 3.0f, 3.0f, -2.0f, 0.0f, 2.0f};

static struct mmqi_sampler *make(struct mmqi_sampling settings)
{
    struct mmqi_sampler *sampler;

    ck_assert_int_eq(mmqi_sampler_create(&sampler, &settings, N), MMQ_OK);
    return sampler;
}

/* How often each id is drawn in `draws`. */
static void count(int *counts, struct mmqi_sampling settings, int draws)
{
    struct mmqi_sampler *sampler = make(settings);
    int i;

    for (i = 0; i < N; i++)
        counts[i] = 0;
    for (i = 0; i < draws; i++)
        counts[mmqi_sampler_pick(sampler, logits, (uint64_t)i)]++;
    mmqi_sampler_free(sampler);
}

START_TEST(greedy_takes_the_lowest_of_the_likeliest)
{
    const float broken[3] = {NAN, 1.0f, NAN};
    struct mmqi_sampler *sampler = make((struct mmqi_sampling){0});

    ck_assert_int_eq(mmqi_sampler_pick(sampler, logits, 0), 1);
    ck_assert_int_eq(mmqi_argmax(broken, 3), 1);
    mmqi_sampler_free(sampler);
}
END_TEST

START_TEST(sampling_follows_the_softmax_at_its_temperature)
{
    double total = 0, p;
    int counts[N], i;

    count(counts, (struct mmqi_sampling){.temperature = 2.0f, .seed = 7}, 100000);
    for (i = 0; i < N; i++)
        total += exp(logits[i] / 2.0);
    for (i = 0; i < N; i++) {
        p = exp(logits[i] / 2.0) / total;
        ck_assert_double_lt(fabs(counts[i] / 1e5 - p), 5 * sqrt(p * (1 - p) / 1e5));
    }
}
END_TEST

START_TEST(top_k_top_p_and_min_p_leave_out_what_they_should)
{
    int counts[N];

    count(counts, (struct mmqi_sampling){.temperature = 1, .top_k = 2}, 2000);
    ck_assert_int_eq(counts[1] + counts[2], 2000);
    ck_assert_int_gt(counts[2], 800);
    /* p: 0.39 0.39 0.14 0.05 ...: the third crosses 0.85 */
    count(counts, (struct mmqi_sampling){.temperature = 1, .top_p = 0.85f}, 2000);
    ck_assert_int_eq(counts[1] + counts[2] + counts[5], 2000);
    ck_assert_int_gt(counts[5], 0);
    count(counts, (struct mmqi_sampling){.temperature = 1, .min_p = 0.3f}, 2000);
    ck_assert_int_eq(counts[1] + counts[2] + counts[5], 2000);
    count(counts, (struct mmqi_sampling){.temperature = 1, .min_p = 1.0f}, 2000);
    ck_assert_int_eq(counts[1] + counts[2], 2000);
    count(counts, (struct mmqi_sampling){.temperature = 1, .top_k = 1, .top_p = 0.01f}, 100);
    ck_assert_int_eq(counts[1], 100);
}
END_TEST

START_TEST(token_i_depends_on_seed_and_i_alone)
{
    struct mmqi_sampling settings = {.temperature = 3, .seed = 11};
    struct mmqi_sampler *a = make(settings), *b = make(settings);
    int32_t forward[50];
    int i, differs = 0;

    for (i = 0; i < 50; i++)
        forward[i] = mmqi_sampler_pick(a, logits, (uint64_t)i);
    for (i = 49; i >= 0; i--)
        ck_assert_int_eq(mmqi_sampler_pick(b, logits, (uint64_t)i), forward[i]);
    mmqi_sampler_free(b);
    settings.seed = 12;
    b = make(settings);
    for (i = 0; i < 50; i++)
        differs += mmqi_sampler_pick(b, logits, (uint64_t)i) != forward[i];
    ck_assert_int_gt(differs, 5);
    mmqi_sampler_free(a);
    mmqi_sampler_free(b);
}
END_TEST

START_TEST(the_repetition_penalty_divides_positive_and_multiplies_negative_logits)
{
    const float few[N] = {2.0f, 1.5f, -1.0f, -9.0f, -9.0f, -9.0f};
    const float low[N] = {-1.0f, -1.5f, -9.0f, -9.0f, -9.0f, -9.0f};
    struct mmqi_sampler *sampler = make((struct mmqi_sampling){.repetition_penalty = 2});

    ck_assert_int_eq(mmqi_sampler_pick(sampler, few, 0), 0);
    mmqi_sampler_see(sampler, 0);
    ck_assert_int_eq(mmqi_sampler_pick(sampler, few, 0), 1); /* 2.0 / 2 < 1.5 */
    ck_assert_int_eq(mmqi_sampler_pick(sampler, low, 0), 1); /* -1.0 * 2 < -1.5 */
    mmqi_sampler_see(sampler, -1);
    mmqi_sampler_see(sampler, N);
    mmqi_sampler_free(sampler);
}
END_TEST

/* Draw once per seed: how often `id` came. */
static int draws_of(int32_t id, struct mmqi_sampling settings, const float *x, int seen)
{
    int n = 0;

    for (settings.seed = 0; settings.seed < 50; settings.seed++) {
        struct mmqi_sampler *sampler = make(settings);

        mmqi_sampler_see(sampler, seen);
        n += mmqi_sampler_pick(sampler, x, 0) == id;
        mmqi_sampler_free(sampler);
    }
    return n;
}

START_TEST(extreme_logits_and_settings_draw_the_likeliest_still)
{
    const float inf[N] = {1, INFINITY, 0, 0, 0, 0}, plain[N] = {1, 2, 3, 4, 5, 4.999f};
    const float none[N] = {NAN, NAN, NAN, NAN, NAN, NAN};
    const float low[N] = {-INFINITY, -INFINITY, -INFINITY, -5, -INFINITY, -INFINITY};

    ck_assert_int_eq(draws_of(1, (struct mmqi_sampling){.temperature = 1}, inf, -1), 50);
    ck_assert_int_eq(draws_of(3, (struct mmqi_sampling){.temperature = 1}, low, -1), 50);
    ck_assert_int_eq(draws_of(4, (struct mmqi_sampling){.temperature = 1e-40f}, plain, -1), 50);
    /* 1 / 1e-39 is beyond float: the likeliest by far, not the least likely. */
    ck_assert_int_eq(
        draws_of(0, (struct mmqi_sampling){.temperature = 1, .repetition_penalty = 1e-39f}, plain,
                 0),
        50);
    ck_assert_int_eq(draws_of(0, (struct mmqi_sampling){.temperature = 1}, none, -1), 50);
    ck_assert_int_eq(draws_of(0, (struct mmqi_sampling){0}, none, -1), 50);
}
END_TEST

START_TEST(equal_logits_are_drawn_alike)
{
    const float flat[N] = {-3, -3, -3, -3, -3, -3};
    int i;

    for (i = 0; i < N; i++)
        ck_assert_int_gt(draws_of(i, (struct mmqi_sampling){.temperature = 0.7f}, flat, -1), 0);
    ck_assert_int_eq(draws_of(0, (struct mmqi_sampling){.temperature = 0.7f, .top_k = 1}, flat, -1),
                     50);
    ck_assert_int_eq(
        draws_of(0, (struct mmqi_sampling){.temperature = 0.7f, .top_p = 1e-9f}, flat, -1), 50);
}
END_TEST

START_TEST(settings_out_of_range_are_refused)
{
    const struct mmqi_sampling bad[] = {
        {.temperature = -1}, {.temperature = NAN}, {.top_k = -1},
        {.top_p = 1.5f},     {.min_p = -0.1f},     {.repetition_penalty = INFINITY},
    };
    struct mmqi_sampler *sampler;
    size_t i;

    for (i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        ck_assert_int_eq(mmqi_sampler_create(&sampler, &bad[i], N), MMQ_ERR_INVALID);
        ck_assert_ptr_null(sampler);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("sampler");
    TCase *tests = tcase_create("sampler");
    SRunner *runner = srunner_create(suite);
    int failed;

    tcase_add_test(tests, greedy_takes_the_lowest_of_the_likeliest);
    tcase_add_test(tests, sampling_follows_the_softmax_at_its_temperature);
    tcase_add_test(tests, top_k_top_p_and_min_p_leave_out_what_they_should);
    tcase_add_test(tests, token_i_depends_on_seed_and_i_alone);
    tcase_add_test(tests, the_repetition_penalty_divides_positive_and_multiplies_negative_logits);
    tcase_add_test(tests, extreme_logits_and_settings_draw_the_likeliest_still);
    tcase_add_test(tests, equal_logits_are_drawn_alike);
    tcase_add_test(tests, settings_out_of_range_are_refused);
    suite_add_tcase(suite, tests);
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? 1 : 0;
}
