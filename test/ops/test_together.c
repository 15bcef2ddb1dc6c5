/*
 * Products of one x, a residual that is added to one, turns of q and k and their way to the cache:
 * a device may make them together, but every bit is what it is when each op is waited for.
 */
#include "ops/harness.h"

#define COUNT(list) ((int32_t)(sizeof(list) / sizeof *(list)))

/* What becomes of the first product and a residual; or, of the first two, one gates the other, into
 * `sum` or over one of them. */
enum sum_kind {
    NO_SUM,
    SUM,
    SUM_IN_PLACE,
    SUM_OVER_Y,
    GATE,
    GATE_TURNED,
    GATE_OVER_Y,
    GATE_OVER_UP
};

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
                      .bias = device_random(t, 8192, 3, 1.0f)};

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

/* The last op of the scene, if any. */
static int32_t play_end(struct target *t, const struct scene *s, const struct outcome *o)
{
    const struct mmqi_mat *sums[] = {
        [SUM] = &o->sum.mat,          [SUM_IN_PLACE] = &o->residual.mat,
        [SUM_OVER_Y] = &o->y[0].mat,  [GATE] = &o->sum.mat,
        [GATE_TURNED] = &o->sum.mat,  [GATE_OVER_Y] = &o->y[0].mat,
        [GATE_OVER_UP] = &o->y[1].mat};
    const struct mmqi_mat *first = &o->y[0].mat, *second = &o->y[1].mat;

    if (s->kind == NO_SUM)
        return MMQ_OK;
    if (s->kind <= SUM_OVER_Y)
        return t->ops->add(t->stream, sums[s->kind], &o->residual.mat, first);
    if (s->kind == GATE_TURNED)
        return t->ops->gate(t->stream, sums[s->kind], second, first, MMQI_ACT_GELU_TANH);
    return t->ops->gate(t->stream, sums[s->kind], first, second, MMQI_ACT_SILU);
}

/* The ops of the scene, each waited for or none; the first status that is none of success. */
static int32_t play(struct target *t, const struct scene *s, const struct props *p,
                    const struct outcome *o, bool waits)
{
    int32_t status = MMQ_OK;

    for (int32_t i = 0; i < s->n && status == MMQ_OK; i++) {
        status = t->ops->matmul(t->stream, &o->y[i].mat, &p->x.mat, &p->w[i].mat,
                                i % 2 ? NULL : p->bias);
        if (waits && status == MMQ_OK)
            status = t->backend->stream_wait(t->stream);
    }
    if (status == MMQ_OK)
        status = play_end(t, s, o);
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
        {2, {0}, {41, 41}, 1, 256, GATE},
        {2, {0}, {41, 41}, 1, 1088, GATE_TURNED},
        {2, {0}, {4219, 4219}, 1, 128, GATE_OVER_Y},
        {2, {0}, {7, 7}, 1, 4096, GATE_OVER_UP},
        {2, {0}, {41, 41}, 1, 33, GATE},
        {2, {0}, {41, 41}, 2, 256, GATE},
        {2, {0, 1}, {41, 41}, 1, 256, GATE},
        {3, {0}, {41, 41, 5}, 1, 256, GATE},
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

START_TEST(a_gate_costs_no_more_calls_than_one_product)
{
    struct scene s = {1, {0}, {64, 64, 64}, 1, 256, NO_SUM};
    struct target t;
    int64_t one, n;

    if (!target_open(&t, MMQI_ISA_AUTO, 2, 4096))
        return;
    one = compare(&t, &s, _i);
    s.n = 2;
    s.kind = GATE;
    n = compare(&t, &s, _i);
    ck_assert_int_eq(n, one);
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

/* Products make the first rows of what is gated; the second rows were there before. */
START_TEST(a_gate_of_more_rows_than_wait_is_made_of_all_of_them)
{
    const struct scene s = {2, {0}, {64, 64}, 1, 256, NO_SUM};
    struct matrix y[2];
    struct target t;
    struct props p;

    if (!target_open(&t, MMQI_ISA_AUTO, 2, 4096))
        return;
    p = props_new(&t, &s, MMQI_FORMAT_NF4);
    for (int32_t waits = 0; waits < 2; waits++) {
        struct matrix gate = matrix_random(&t, 2, 64, 0, 1, 1.0f);
        struct matrix up = matrix_random(&t, 2, 64, 0, 2, 1.0f);
        struct mmqi_mat first[] = {one_row(&gate.mat, 0), one_row(&up.mat, 0)};

        y[waits] = matrix_new(&t, 2, 64, 0);
        for (int32_t i = 0; i < 2; i++)
            ck_assert_int_eq(t.ops->matmul(t.stream, &first[i], &p.x.mat, &p.w[i].mat, NULL),
                             MMQ_OK);
        if (waits)
            ck_assert_int_eq(t.backend->stream_wait(t.stream), MMQ_OK);
        ck_assert_int_eq(t.ops->gate(t.stream, &y[waits].mat, &gate.mat, &up.mat, MMQI_ACT_SILU),
                         MMQ_OK);
        matrix_read(&t, &y[waits]);
        matrix_free(&t, &gate);
        matrix_free(&t, &up);
    }
    ck_assert(same_bits(&y[0], &y[1]));
    matrix_free(&t, &y[0]);
    matrix_free(&t, &y[1]);
    props_free(&t, &s, &p);
    target_close(&t);
}
END_TEST

/* ---- q and k turned, k and v written to the cache ---- */

enum { PAGE_ROWS = 4, N_PAGES = 3, MOST_TURNED = 9 };

struct turning {
    int32_t n_heads, n_kv_heads, dim, n_axes;
    int64_t rows;
    int64_t cols; /* of the products that make q, k and v; 0: there are none */
    int32_t format;
};

/* What it is done with, and to. */
struct turned {
    struct matrix q, k, v, pages;
    struct mmqi_rope rope[2]; /* of q, of k */
    struct mmqi_kv kv;
    const int32_t *positions, *slots, *axis, *table;
    struct matrix x; /* of which q, k and v are made; of no rows in scenes without */
    struct weight w[3];
    float *bias;
};

static struct turned turned_new(struct target *t, const struct turning *s)
{
    static const int32_t positions[3 * MOST_TURNED] = {5, 0, 77, 1, 2, 3, 4095, 7, 9, 6, 6, 6, 1};
    static const int32_t slots[MOST_TURNED] = {7, 2, 11, 0, 4, 9, 1, 3, 10};
    static const int32_t table[N_PAGES] = {2, 0, 1};
    int32_t half = s->dim / 2, axis[64] = {0};
    int64_t width = (int64_t)s->n_kv_heads * s->dim;
    struct turned d = {
        .q = matrix_random(t, s->rows, (int64_t)s->n_heads * s->dim, 3, 1, 1.0f),
        .k = matrix_random(t, s->rows, width, 0, 2, 1.0f),
        .v = matrix_random(t, s->rows, width, 5, 3, 1.0f),
        .pages = matrix_random(t, N_PAGES * PAGE_ROWS * 2, width, 0, 4, 1.0f),
        .positions = device_copy(t, positions, sizeof positions),
        .slots = device_copy(t, slots, sizeof slots),
        .table = device_copy(t, table, sizeof table),
    };

    for (int32_t i = 0; i < half; i++)
        axis[i] = i % s->n_axes;
    d.axis = device_copy(t, axis, sizeof axis);
    d.kv = (struct mmqi_kv){.pages = d.pages.mat.data,
                            .page_stride = 2 * PAGE_ROWS * width,
                            .page_rows = PAGE_ROWS,
                            .table = d.table,
                            .n_heads = s->n_kv_heads,
                            .head_dim = s->dim};
    d.rope[0] = (struct mmqi_rope){s->n_heads, s->dim, s->n_axes, device_random(t, half, 5, 1.0f),
                                   s->n_axes > 1 ? d.axis : NULL};
    d.rope[1] = d.rope[0];
    d.rope[1].n_heads = s->n_kv_heads;
    d.x = matrix_random(t, s->rows, s->cols, 0, 6, 1.0f);
    d.bias = device_random(t, s->n_heads * s->dim, 7, 1.0f);
    for (int32_t i = 0; i < 3 && s->cols > 0; i++)
        d.w[i] = weight_new(t, s->format, (i ? s->n_kv_heads : s->n_heads) * s->dim, s->cols,
                            (uint64_t)i + 8);
    return d;
}

static void turned_free(struct target *t, struct turned *d)
{
    const void *const blocks[] = {d->positions, d->slots, d->table, d->axis, d->rope[0].inv_freq};

    for (int32_t i = 0; i < COUNT(blocks); i++)
        device_free(t, blocks[i]);
    for (int32_t i = 0; i < 3 && d->x.mat.cols > 0; i++)
        weight_free(t, &d->w[i]);
    device_free(t, d->bias);
    matrix_free(t, &d->x);
    matrix_free(t, &d->q);
    matrix_free(t, &d->k);
    matrix_free(t, &d->v);
    matrix_free(t, &d->pages);
}

static void turned_read(struct target *t, struct turned *d)
{
    matrix_read(t, &d->q);
    matrix_read(t, &d->k);
    matrix_read(t, &d->v);
    matrix_read(t, &d->pages);
}

static bool same_turned(const struct turned *a, const struct turned *b)
{
    return same_bits(&a->q, &b->q) && same_bits(&a->k, &b->k) && same_bits(&a->v, &b->v) &&
           same_bits(&a->pages, &b->pages);
}

/* One step: q, k and v are made; Q and K turn, S stores, V turns v as K does k, O stores v as keys
 * and k as values, P turns k at other positions, A adds v to k. */
static int32_t turn_step(struct target *t, const struct turned *d, char what)
{
    struct mmqi_stream *s = t->stream;

    switch (what) {
    case 'q':
        return t->ops->matmul(s, &d->q.mat, &d->x.mat, &d->w[0].mat, d->bias);
    case 'k':
        return t->ops->matmul(s, &d->k.mat, &d->x.mat, &d->w[1].mat, NULL);
    case 'v':
        return t->ops->matmul(s, &d->v.mat, &d->x.mat, &d->w[2].mat, d->bias);
    case 'Q':
        return t->ops->rope(s, &d->q.mat, &d->rope[0], d->positions);
    case 'K':
        return t->ops->rope(s, &d->k.mat, &d->rope[1], d->positions);
    case 'P':
        return t->ops->rope(s, &d->k.mat, &d->rope[1], d->positions + 1);
    case 'V':
        return t->ops->rope(s, &d->v.mat, &d->rope[1], d->positions);
    case 'S':
        return t->ops->store_kv(s, &d->kv, &d->k.mat, &d->v.mat, d->slots);
    case 'O':
        return t->ops->store_kv(s, &d->kv, &d->v.mat, &d->k.mat, d->slots);
    default:
        return t->ops->add(s, &d->k.mat, &d->k.mat, &d->v.mat);
    }
}

static int64_t turn(struct target *t, struct turned *d, const char *steps, bool waits)
{
    const struct mmqi_fault none = {MMQI_FAULT_NONE, 0};
    int64_t n;

    t->backend->fault(t->device, none);
    for (; *steps; steps++) {
        ck_assert_int_eq(turn_step(t, d, *steps), MMQ_OK);
        if (waits)
            ck_assert_int_eq(t->backend->stream_wait(t->stream), MMQ_OK);
    }
    ck_assert_int_eq(t->backend->stream_wait(t->stream), MMQ_OK);
    n = t->backend->fault(t->device, none);
    turned_read(t, d);
    return n;
}

/* Returns the calls that it took not to wait. */
static int64_t compare_turns(struct target *t, const struct turning *s, const char *steps)
{
    struct turned together = turned_new(t, s), each = turned_new(t, s);
    int64_t n = turn(t, &together, steps, false);

    turn(t, &each, steps, true);
    ck_assert_msg(same_turned(&together, &each), "%s of %d and %d heads of %d, %d axes, %d rows",
                  steps, (int)s->n_heads, (int)s->n_kv_heads, (int)s->dim, (int)s->n_axes,
                  (int)s->rows);
    turned_free(t, &together);
    turned_free(t, &each);
    return n;
}

START_TEST(turns_and_their_way_to_the_cache_give_the_same_bits_together)
{
    static const struct turning scenes[] = {
        {1, 1, 2, 1, 1, 0, 0},   {4, 2, 6, 1, 1, 0, 0}, {4, 2, 64, 3, 1, 0, 0},
        {3, 3, 128, 3, 3, 0, 0}, {8, 1, 6, 2, 8, 0, 0}, {2, 2, 34, 1, 9, 0, 0},
        {14, 2, 64, 1, 1, 0, 0},
    };
    static const char *const steps[] = {"QKS", "KQS",  "KS",   "QK",   "QS",    "QQKS", "QKPS",
                                        "KVS", "QKVS", "QKAS", "QKSA", "QKSKS", "KO",   "QKSO"};
    struct target t;

    if (!target_open(&t, MMQI_ISA_AUTO, 2, 4096))
        return;
    for (int32_t i = 0; i < COUNT(scenes); i++)
        for (int32_t j = 0; j < COUNT(steps); j++)
            compare_turns(&t, &scenes[i], steps[j]);
    target_close(&t);
}
END_TEST

START_TEST(products_that_are_turned_and_stored_give_the_same_bits_together)
{
    const struct turning scenes[] = {
        {1, 1, 2, 1, 1, 64, _i},    {4, 2, 6, 1, 1, 256, _i}, {3, 1, 64, 3, 1, 1088, _i},
        {25, 4, 128, 3, 1, 64, _i}, {4, 2, 64, 1, 3, 64, _i}, {4, 2, 10, 1, 1, 33, _i},
    };
    static const char *const steps[] = {"qkvQKS", "qkvKQS", "vkqQKS", "qkvQK",   "qkvQS",
                                        "qkvKS",  "qkvQKA", "qkQKS",  "qQkKvS",  "qkvQKO",
                                        "qkvQKP", "qkvQVS", "qkvS",   "qkvQKSA", "qkvQKSqkvQKS"};
    struct target t;

    if (!target_open(&t, MMQI_ISA_AUTO, 2, 32768))
        return;
    for (int32_t i = 0; i < COUNT(scenes); i++)
        for (int32_t j = 0; j < (scenes[i].dim < 100 ? COUNT(steps) : 3); j++)
            compare_turns(&t, &scenes[i], steps[j]);
    target_close(&t);
}
END_TEST

/* A page that is a value of the arena may lie where x did, of which q, k and v were made. */
START_TEST(products_are_made_before_their_page_takes_the_place_of_x)
{
    const struct turning s = {4, 2, 32, 1, 1, 64, _i};
    struct turned d[2];
    struct target t;

    if (!target_open(&t, MMQI_ISA_AUTO, 2, 4096))
        return;
    for (int32_t waits = 0; waits < 2; waits++) {
        d[waits] = turned_new(&t, &s);
        d[waits].kv.table = NULL;
        d[waits].x.mat.data = d[waits].pages.mat.data;
        d[waits].x.mat.data += d[waits].kv.page_stride + (7 - PAGE_ROWS) * 64; /* slot 7's key */
        turn(&t, &d[waits], "qkvQKS", waits);
    }
    ck_assert(same_turned(&d[0], &d[1]));
    turned_free(&t, &d[0]);
    turned_free(&t, &d[1]);
    target_close(&t);
}
END_TEST

START_TEST(turns_and_their_way_to_the_cache_cost_no_more_calls_than_one_turn)
{
    struct turning s = {4, 2, 64, 1, 1, 0, 0};
    struct target t;
    int64_t one;

    if (!target_open(&t, MMQI_ISA_AUTO, 2, 4096))
        return;
    one = compare_turns(&t, &s, "K");
    ck_assert_int_eq(compare_turns(&t, &s, "QK"), one);
    ck_assert_int_eq(compare_turns(&t, &s, "QKS"), one);
    for (s.format = 0; s.format < MMQI_N_FORMATS; s.format++) {
        s.cols = 256;
        ck_assert_int_eq(compare_turns(&t, &s, "qkvQKS"), compare_turns(&t, &s, "q"));
    }
    target_close(&t);
}
END_TEST

/* ---- attention of few rows, in fast mode ---- */

static const struct mmqi_span few_spans[] = {{0, 1}, {3, 200}, {5, 5}, {0, 600}};

enum { FEW = COUNT(few_spans) };

/* Rows [row, row + rows); returns the calls of the device. */
static int64_t attend(struct target *t, struct matrix *y, const struct matrix *q,
                      const struct mmqi_kv *kv, const struct mmqi_span *spans, int64_t row,
                      int64_t rows)
{
    const struct mmqi_fault none = {MMQI_FAULT_NONE, 0};
    struct mmqi_mat to = y->mat, from = q->mat;

    to.data += row * to.stride;
    from.data += row * from.stride;
    to.rows = from.rows = rows;
    t->backend->fault(t->device, none);
    ck_assert_int_eq(t->ops->attention(t->stream, &to, &from, 6, kv, spans + row, 0.125f), MMQ_OK);
    ck_assert_int_eq(t->backend->stream_wait(t->stream), MMQ_OK);
    return t->backend->fault(t->device, none);
}

/* Rows together and alone, again and again on one stream. */
START_TEST(attention_of_few_rows_is_one_launch_and_the_same_every_time)
{
    struct mmqi_stream_options options = {
        .mode = MMQI_MODE_FAST, .max_cols = 4096, .max_product = 4096, .max_heads = 4096};
    struct matrix q, pages, y[2];
    const struct mmqi_span *spans;
    struct mmqi_kv kv;
    struct target t;

    if (!target_open(&t, MMQI_ISA_AUTO, 2, 4096))
        return;
    t.backend->stream_close(t.stream);
    options.mode = t.backend->fast ? MMQI_MODE_FAST : MMQI_MODE_EXACT;
    ck_assert_int_eq(t.backend->stream_open(t.device, &options, &t.stream), MMQ_OK);
    q = matrix_random(&t, FEW, 6 * 64, 0, 1, 1.0f);
    pages = matrix_random(&t, 2 * 640, 2 * 64, 0, 2, 1.0f);
    spans = device_copy(&t, few_spans, sizeof few_spans);
    kv = (struct mmqi_kv){pages.mat.data, 2 * 640 * 128, 640, NULL, 2, 64};
    for (int32_t i = 0; i < 2; i++)
        y[i] = matrix_new(&t, FEW, 6 * 64, 0);
    for (int32_t turn = 0; turn < 3; turn++) {
        int64_t n = attend(&t, &y[0], &q, &kv, spans, 0, FEW);

        ck_assert_int_le(n, 2); /* with the wait */
        for (int64_t row = 0; row < FEW; row++)
            attend(&t, &y[1], &q, &kv, spans, row, 1);
        matrix_read(&t, &y[0]);
        matrix_read(&t, &y[1]);
        ck_assert(same_bits(&y[0], &y[1]));
    }
    for (int64_t c = 0; c < 6 * 64; c++)
        ck_assert(*at(&y[0], 2, c) == 0.0f && fabsf(*at(&y[0], 3, c)) < 1.0f);
    matrix_free(&t, &y[0]);
    matrix_free(&t, &y[1]);
    matrix_free(&t, &q);
    matrix_free(&t, &pages);
    device_free(&t, spans);
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
    tcase_add_loop_test(tcase, a_gate_costs_no_more_calls_than_one_product, 0, MMQI_N_FORMATS);
    tcase_add_test(tcase, outputs_that_lie_side_by_side_are_one_launch);
    tcase_add_loop_test(tcase, an_op_between_sees_what_was_computed_before_it, 0, MMQI_N_FORMATS);
    tcase_add_test(tcase, a_gate_of_more_rows_than_wait_is_made_of_all_of_them);
    tcase_add_test(tcase, turns_and_their_way_to_the_cache_give_the_same_bits_together);
    tcase_add_loop_test(tcase, products_that_are_turned_and_stored_give_the_same_bits_together, 0,
                        MMQI_N_FORMATS);
    tcase_add_loop_test(tcase, products_are_made_before_their_page_takes_the_place_of_x, 0,
                        MMQI_N_FORMATS);
    tcase_add_test(tcase, turns_and_their_way_to_the_cache_cost_no_more_calls_than_one_turn);
    tcase_add_test(tcase, attention_of_few_rows_is_one_launch_and_the_same_every_time);
    suite_add_tcase(suite, tcase);
    return run_suite(suite);
}
