/*
 * Products of one x, and a residual that is added to one: a device may make them together, but
 * every bit is what it is when each op is waited for.
 */
#include "ops/harness.h"

#define COUNT(list) ((int32_t)(sizeof(list) / sizeof *(list)))

/* What becomes of the first product and a residual. */
enum sum_kind { NO_SUM, SUM, SUM_IN_PLACE, SUM_OVER_Y };

/* n products of x [x_rows, cols]; number i has rows[i] columns, and format first + step[i]. */
struct scene {
    int32_t n, step[4];
    int64_t rows[4], x_rows, cols;
    enum sum_kind kind;
};

struct props {
    struct matrix x;
    struct weight w[4];
    float *bias;
};

struct outcome {
    struct matrix y[4], residual, sum;
    int64_t n_calls; /* of the device, where it counts them */
};

static struct props props_new(struct target *t, const struct scene *s, int32_t format)
{
    struct props p = {.x = matrix_random(t, s->x_rows, s->cols, 0, 1, 1.0f),
                      .bias = device_random(t, 4096, 3, 1.0f)};

    for (int32_t i = 0; i < s->n; i++)
        p.w[i] = weight_new(t, (format + s->step[i]) % MMQI_N_FORMATS, s->rows[i], s->cols,
                            (uint64_t)i + 4);
    return p;
}

static void props_free(struct target *t, const struct scene *s, struct props *p)
{
    for (int32_t i = 0; i < s->n; i++)
        weight_free(t, &p->w[i]);
    device_free(t, p->bias);
    matrix_free(t, &p->x);
}

/* The ops of the scene, each waited for or none; the first status that is none of success. */
static int32_t play(struct target *t, const struct scene *s, const struct props *p,
                    const struct outcome *o, bool waits)
{
    const struct mmqi_mat *sums[] = {
        [SUM] = &o->sum.mat, [SUM_IN_PLACE] = &o->residual.mat, [SUM_OVER_Y] = &o->y[0].mat};
    int32_t status = MMQ_OK;

    for (int32_t i = 0; i < s->n && status == MMQ_OK; i++) {
        status = t->ops->matmul(t->stream, &o->y[i].mat, &p->x.mat, &p->w[i].mat,
                                i % 2 ? NULL : p->bias);
        if (waits && status == MMQ_OK)
            status = t->backend->stream_wait(t->stream);
    }
    if (s->kind != NO_SUM && status == MMQ_OK)
        status = t->ops->add(t->stream, sums[s->kind], &o->residual.mat, &o->y[0].mat);
    return status == MMQ_OK ? t->backend->stream_wait(t->stream) : status;
}

static struct outcome outcome_of(struct target *t, const struct scene *s, const struct props *p,
                                 bool waits)
{
    const struct mmqi_fault none = {MMQI_FAULT_NONE, 0};
    struct outcome o = {.residual = matrix_random(t, s->x_rows, s->rows[0], 1, 7, 1.0f),
                        .sum = matrix_new(t, s->x_rows, s->rows[0], 3)};

    for (int32_t i = 0; i < s->n; i++)
        o.y[i] = matrix_new(t, s->x_rows, s->rows[i], i);
    t->backend->fault(t->device, none);
    ck_assert_int_eq(play(t, s, p, &o, waits), MMQ_OK);
    o.n_calls = t->backend->fault(t->device, none);
    for (int32_t i = 0; i < s->n; i++)
        matrix_read(t, &o.y[i]);
    matrix_read(t, &o.residual);
    matrix_read(t, &o.sum);
    return o;
}

static void outcome_free(struct target *t, const struct scene *s, struct outcome *o)
{
    for (int32_t i = 0; i < s->n; i++)
        matrix_free(t, &o->y[i]);
    matrix_free(t, &o->residual);
    matrix_free(t, &o->sum);
}

static bool same_outcome(const struct scene *s, const struct outcome *a, const struct outcome *b)
{
    bool same = same_bits(&a->residual, &b->residual) && same_bits(&a->sum, &b->sum);

    for (int32_t i = 0; i < s->n; i++)
        same = same && same_bits(&a->y[i], &b->y[i]);
    return same;
}

/* The same bits whether ops are waited for or not; returns the calls that it took not to. */
static int64_t compare(struct target *t, const struct scene *s, int32_t format)
{
    struct props p = props_new(t, s, format);
    struct outcome together = outcome_of(t, s, &p, false), each = outcome_of(t, s, &p, true);
    int64_t n_calls = together.n_calls;

    ck_assert_msg(same_outcome(s, &together, &each), "%d products of %s [%d x %d] x %d, sum %d",
                  (int)s->n, mmqi_format_info(format)->name, (int)s->x_rows, (int)s->cols,
                  (int)s->rows[0], (int)s->kind);
    outcome_free(t, s, &together);
    outcome_free(t, s, &each);
    props_free(t, s, &p);
    return n_calls;
}

START_TEST(products_of_one_x_give_the_same_bits_together)
{
    static const struct scene scenes[] = {
        {1, {0}, {37}, 1, 256, SUM},
        {1, {0}, {700}, 1, 128, SUM_IN_PLACE},
        {1, {0}, {37}, 1, 1088, SUM_OVER_Y},
        {1, {0}, {37}, 2, 256, SUM_IN_PLACE},
        {2, {0}, {41, 41}, 1, 256, NO_SUM},
        {2, {0}, {41, 41}, 1, 1088, SUM},
        {2, {0}, {41, 13}, 1, 33, SUM},
        {3, {0}, {700, 300, 100}, 1, 128, NO_SUM},
        {3, {0}, {2112, 1056, 7}, 1, 128, NO_SUM},
        {3, {0, 1}, {37, 17, 9}, 1, 256, NO_SUM},
        {3, {0}, {37, 17, 9}, 3, 256, NO_SUM},
        {4, {0}, {37, 17, 9, 1}, 1, 256, NO_SUM},
    };
    struct target t;

    if (!target_open(&t, MMQI_ISA_AUTO, 2, 4096))
        return;
    for (int32_t i = 0; i < COUNT(scenes); i++)
        compare(&t, &scenes[i], _i);
    target_close(&t);
}
END_TEST

/* As many calls as one product takes: this is what is won. */
START_TEST(a_group_of_products_or_a_sum_costs_no_more_calls_than_one_product)
{
    struct scene s = {1, {0}, {64, 64, 64}, 1, 256, NO_SUM};
    struct target t;
    int64_t one;

    if (!target_open(&t, MMQI_ISA_AUTO, 2, 4096))
        return;
    one = compare(&t, &s, _i);
    for (s.n = 2; s.n <= 3; s.n++)
        ck_assert_int_eq(compare(&t, &s, _i), one);
    s.n = 1;
    s.kind = SUM;
    ck_assert_int_eq(compare(&t, &s, _i), one);
    target_close(&t);
}
END_TEST

/* As the arena lays them out: only what really overlaps is kept apart. */
START_TEST(outputs_that_lie_side_by_side_are_one_launch)
{
    const struct mmqi_fault none = {MMQI_FAULT_NONE, 0};
    const struct scene s = {3, {0}, {64, 8, 16}, 1, 256, NO_SUM};
    static const int64_t first[] = {24, 16, 0};
    struct matrix all;
    struct mmqi_mat y;
    struct target t;
    struct props p;
    int64_t n[2];

    if (!target_open(&t, MMQI_ISA_AUTO, 2, 4096))
        return;
    p = props_new(&t, &s, MMQI_FORMAT_NF4);
    all = matrix_new(&t, 1, 88, 0);
    for (int32_t turn = 0; turn < 2; turn++) {
        t.backend->fault(t.device, none);
        for (int32_t i = 0; i < (turn ? s.n : 1); i++) {
            y = (struct mmqi_mat){all.mat.data + first[i], 1, s.rows[i], s.rows[i]};
            ck_assert_int_eq(t.ops->matmul(t.stream, &y, &p.x.mat, &p.w[i].mat, NULL), MMQ_OK);
        }
        ck_assert_int_eq(t.backend->stream_wait(t.stream), MMQ_OK);
        n[turn] = t.backend->fault(t.device, none);
    }
    ck_assert_int_eq(n[0], n[1]);
    matrix_read(&t, &all);
    matrix_free(&t, &all);
    props_free(&t, &s, &p);
    target_close(&t);
}
END_TEST

/* What is read or written between two products of one x, or is not what waits, parts them. */
START_TEST(an_op_between_sees_what_was_computed_before_it)
{
    const struct scene s = {3, {0}, {64, 64, 64}, 1, 64, NO_SUM};
    struct matrix wanted, other;
    struct target t;
    struct props p;

    if (!target_open(&t, MMQI_ISA_AUTO, 2, 4096))
        return;
    p = props_new(&t, &s, _i);
    for (int32_t waits = 1; waits >= 0; waits--) {
        struct matrix y = matrix_new(&t, 1, 64, 0), z = matrix_new(&t, 1, 64, 0);
        int32_t (*wait)(struct mmqi_stream *) = t.backend->stream_wait;
        struct matrix x = matrix_random(&t, 1, 64, 0, 1, 1.0f);

#define THEN(call)                                                                                 \
    ck_assert_int_eq(call, MMQ_OK);                                                                \
    ck_assert_int_eq(waits ? wait(t.stream) : MMQ_OK, MMQ_OK)
        THEN(t.ops->matmul(t.stream, &y.mat, &x.mat, &p.w[0].mat, NULL));
        THEN(t.ops->matmul(t.stream, &y.mat, &x.mat, &p.w[1].mat, NULL)); /* the same y */
        THEN(t.ops->matmul(t.stream, &z.mat, &y.mat, &p.w[2].mat, NULL)); /* reads it */
        THEN(t.ops->add(t.stream, &y.mat, &y.mat, &z.mat)); /* writes what z waits to read */
        THEN(t.ops->matmul(t.stream, &z.mat, &x.mat, &p.w[0].mat, NULL));
        THEN(t.ops->add(t.stream, &x.mat, &y.mat, &z.mat)); /* and what z was made of */
        THEN(t.ops->matmul(t.stream, &y.mat, &x.mat, &p.w[1].mat, NULL));
        THEN(t.ops->add(t.stream, &z.mat, &y.mat, &y.mat)); /* twice the same */
#undef THEN
        matrix_read(&t, &z);
        matrix_read(&t, &x);
        if (waits) {
            wanted = z;
            other = x;
            matrix_free(&t, &y);
            continue;
        }
        ck_assert(same_bits(&z, &wanted) && same_bits(&x, &other));
        matrix_free(&t, &x);
        matrix_free(&t, &y);
        matrix_free(&t, &z);
    }
    matrix_free(&t, &wanted);
    matrix_free(&t, &other);
    props_free(&t, &s, &p);
    target_close(&t);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("together");
    TCase *tcase = tcase_create("together");

    tcase_set_timeout(tcase, 300);
    tcase_add_loop_test(tcase, products_of_one_x_give_the_same_bits_together, 0, MMQI_N_FORMATS);
    tcase_add_loop_test(tcase, a_group_of_products_or_a_sum_costs_no_more_calls_than_one_product, 0,
                        MMQI_N_FORMATS);
    tcase_add_test(tcase, outputs_that_lie_side_by_side_are_one_launch);
    tcase_add_loop_test(tcase, an_op_between_sees_what_was_computed_before_it, 0, MMQI_N_FORMATS);
    suite_add_tcase(suite, tcase);
    return run_suite(suite);
}
