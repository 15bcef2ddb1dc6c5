/*
 * The ops that work row by row, of every instruction set, against their
 * formulas in double; where all instruction sets promise the same bits, against plain C.
 */
#include "ops/harness.h"

static const int64_t widths[] = {1, 2, 7, 15, 16, 17, 31, 33, 64, 100, 384, 576, 1536, 20001};
enum { N_WIDTHS = sizeof widths / sizeof *widths, ROWS = 5, MAX_COLS = 49152 };

static const double u = 0x1p-24;

/* ---- plain C beside the instruction set under test ---- */

struct pair {
    struct target c, t;
};

static bool pair_open(struct pair *p, int32_t isa, int32_t threads)
{
    if (!target_open(&p->t, isa, threads, MAX_COLS))
        return false;
    target_open_c(&p->c, MAX_COLS);
    return true;
}

static void pair_close(struct pair *p)
{
    target_close(&p->c);
    target_close(&p->t);
}

/* ---- norms ---- */

struct norm {
    struct matrix x, y;
    float *w, *b;
};

static struct norm norm_new(struct target *t, int64_t cols)
{
    struct norm n = {matrix_random(t, ROWS, cols, 3, 1, 2.0f), matrix_new(t, ROWS, cols, 2),
                     device_random(t, cols, 2, 1.0f), device_random(t, cols, 3, 1.0f)};

    for (int64_t c = 0; c < cols; c++)
        *at(&n.x, 1, c) = 100.0f + *at(&n.x, 1, c); /* a mean far from zero */
    upload(t, &n.x);
    return n;
}

static void norm_run(struct target *t, struct norm *n, bool rms)
{
    if (rms)
        ck_assert_int_eq(t->ops->rms_norm(t->stream, &n->y.mat, &n->x.mat, n->w, 1e-5f), MMQ_OK);
    else
        ck_assert_int_eq(t->ops->layer_norm(t->stream, &n->y.mat, &n->x.mat, n->w, n->b, 1e-5f),
                         MMQ_OK);
    matrix_read(t, &n->y);
}

static void norm_free(struct target *t, struct norm *n)
{
    matrix_free(t, &n->x);
    matrix_free(t, &n->y);
    device_free(t, n->w);
    device_free(t, n->b);
}

/*
 * Relative errors: of the mean (n / 16 + 8) u of mean |x|, which moves x - mean; of the deviation's
 * square as many again.
 */
static void check_norm(const struct norm *m, bool rms, int64_t row)
{
    int64_t n = m->x.mat.cols;
    double mean = 0, size = 0, square = 0, inverse, y, moved, e = (double)(n / 16 + 12) * u, bound;

    for (int64_t c = 0; c < n && !rms; c++) {
        mean += *at(&m->x, row, c) / (double)n;
        size += fabs(*at(&m->x, row, c)) / (double)n;
    }
    for (int64_t c = 0; c < n; c++)
        square += pow(*at(&m->x, row, c) - mean, 2) / (double)n;
    inverse = 1 / sqrt(square + 1e-5f);
    moved = e * size; /* how far the mean may be off */
    for (int64_t c = 0; c < n; c++) {
        y = (*at(&m->x, row, c) - mean) * inverse * random_at(2, (uint64_t)c);
        bound = fabs(y) * (2 * e + 8 * u + moved * inverse * 4) +
                fabs(random_at(2, (uint64_t)c)) * inverse * (moved + u * size) * 2 + 1e-30;
        y += rms ? 0 : random_at(3, (uint64_t)c);
        bound += 2 * u * fabs(y);
        ck_assert_msg(fabs(*at(&m->y, row, c) - y) <= bound,
                      "width %lld, column %lld: %.9g, not %.9g", (long long)n, (long long)c,
                      (double)*at(&m->y, row, c), y);
    }
}

START_TEST(norms_are_right_and_the_same_bits_as_plain_c)
{
    struct pair p;
    struct norm a, b;

    if (!pair_open(&p, all_isas[_i], 2))
        return;
    for (int32_t i = 0; i < N_WIDTHS; i++)
        for (int32_t rms = 0; rms < 2; rms++) {
            a = norm_new(&p.t, widths[i]);
            b = norm_new(&p.c, widths[i]);
            norm_run(&p.t, &a, rms);
            norm_run(&p.c, &b, rms);
            ck_assert(!p.t.backend->host_memory || same_bits(&a.y, &b.y));
            for (int64_t r = 0; r < ROWS; r++)
                check_norm(&a, rms, r);
            norm_free(&p.t, &a);
            norm_free(&p.c, &b);
        }
    pair_close(&p);
}
END_TEST

START_TEST(norms_may_write_where_they_read)
{
    struct target t;
    struct norm a;
    struct matrix x;

    if (!target_open(&t, all_isas[_i], 2, MAX_COLS))
        return;
    for (int32_t rms = 0; rms < 2; rms++) {
        a = norm_new(&t, 100);
        norm_run(&t, &a, rms);
        x = a.y;
        a.y = a.x;
        norm_run(&t, &a, rms);
        ck_assert(same_bits(&a.y, &x));
        a.y = x;
        norm_free(&t, &a);
    }
    target_close(&t);
}
END_TEST

/* ---- activations ---- */

static double act_of(double x, int32_t act)
{
    switch (act) {
    case MMQI_ACT_SILU:
        return x / (1 + exp(-x));
    case MMQI_ACT_GELU:
        return 0.5 * x * (1 + erf(x / sqrt(2)));
    case MMQI_ACT_GELU_TANH:
        return 0.5 * x * (1 + tanh(sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
    default:
        return x / (1 + exp(-1.702 * x));
    }
}

/* How much y may be off: sigmoids keep their relative error, the forms with 1 + ... lose it. */
static double act_bound(double x, int32_t act)
{
    double y = fabs(act_of(x, act)), t = fabs(act == MMQI_ACT_QUICK_GELU ? 1.702 * x : x);

    if (act == MMQI_ACT_GELU || act == MMQI_ACT_GELU_TANH)
        return 6 * u * fabs(x) + 1e-37;
    return (8 + 2 * t) * u * y +
           1e-36 * (1 + fabs(x)); /* 1.702 and t are rounded: e^-t moves by 2 t u */
}

/* A sweep of every magnitude and sign, and the awkward points. */
static float act_input(int64_t i)
{
    static const float points[] = {0.0f,  -0.0f,  1.0f,    -1.0f,    0.99999994f, 1.41421354f,
                                   5.65f, -5.65f, 88.376f, -88.376f, 88.73f,      -88.73f,
                                   104.f, -104.f, 1e30f,   -1e30f,   1e-40f,      -3e-39f};

    if (i < (int64_t)(sizeof points / sizeof *points))
        return points[i];
    if (i % 2)
        return 12.0f * random_at(1, (uint64_t)i);
    return 100.0f * powf(random_at(1, (uint64_t)i), 5.0f);
}

START_TEST(activations_are_right_everywhere)
{
    struct target t;
    struct matrix x, y;

    if (!target_open(&t, all_isas[_i], 2, MAX_COLS))
        return;
    x = matrix_new(&t, 10, 20001, 1);
    y = matrix_new(&t, 10, 20001, 2);
    for (int64_t i = 0; i < 200010; i++)
        *at(&x, i / 20001, i % 20001) = act_input(i);
    upload(&t, &x);
    for (int32_t act = MMQI_ACT_SILU; act <= MMQI_ACT_QUICK_GELU; act++) {
        ck_assert_int_eq(t.ops->activate(t.stream, &y.mat, &x.mat, act), MMQ_OK);
        matrix_read(&t, &y);
        for (int64_t i = 0; i < 200010; i++)
            ck_assert_msg(fabs(*at(&y, i / 20001, i % 20001) - act_of(act_input(i), act)) <=
                              act_bound(act_input(i), act),
                          "activation %d of %.9g: %.9g, not %.9g", act, (double)act_input(i),
                          (double)*at(&y, i / 20001, i % 20001), act_of(act_input(i), act));
    }
    matrix_free(&t, &x);
    matrix_free(&t, &y);
    target_close(&t);
}
END_TEST

START_TEST(nan_stays_nan)
{
    struct target t;
    struct matrix x, y;

    if (!target_open(&t, all_isas[_i], 1, MAX_COLS))
        return;
    x = matrix_new(&t, 1, 19, 0);
    y = matrix_new(&t, 1, 19, 0);
    for (int64_t c = 0; c < 19; c++)
        *at(&x, 0, c) = c % 2 ? NAN : 1.0f;
    upload(&t, &x);
    for (int32_t act = MMQI_ACT_SILU; act <= MMQI_ACT_QUICK_GELU; act++) {
        ck_assert_int_eq(t.ops->activate(t.stream, &y.mat, &x.mat, act), MMQ_OK);
        matrix_read(&t, &y);
        for (int64_t c = 0; c < 19; c++)
            ck_assert_int_eq(!isnan(*at(&y, 0, c)), c % 2 == 0);
    }
    matrix_free(&t, &x);
    matrix_free(&t, &y);
    target_close(&t);
}
END_TEST

START_TEST(a_gate_is_the_activation_times_up_even_in_place)
{
    struct target t;
    struct matrix g, up, y, z;

    if (!target_open(&t, all_isas[_i], 2, MAX_COLS))
        return;
    for (int32_t i = 0; i < N_WIDTHS; i++)
        for (int32_t act = MMQI_ACT_SILU; act <= MMQI_ACT_QUICK_GELU; act++) {
            g = matrix_random(&t, ROWS, widths[i], 1, 1, 5.0f);
            up = matrix_random(&t, ROWS, widths[i], 2, 2, 5.0f);
            y = matrix_new(&t, ROWS, widths[i], 3);
            z = matrix_new(&t, ROWS, widths[i], 4);
            ck_assert_int_eq(t.ops->gate(t.stream, &y.mat, &g.mat, &up.mat, act), MMQ_OK);
            ck_assert_int_eq(t.ops->activate(t.stream, &z.mat, &g.mat, act), MMQ_OK);
            ck_assert_int_eq(t.ops->gate(t.stream, &up.mat, &g.mat, &up.mat, act), MMQ_OK);
            ck_assert_int_eq(t.ops->activate(t.stream, &g.mat, &g.mat, act), MMQ_OK);
            matrix_read(&t, &y);
            matrix_read(&t, &z);
            matrix_read(&t, &up);
            matrix_read(&t, &g);
            ck_assert(same_bits(&z, &g));
            ck_assert(same_bits(&y, &up));
            for (int64_t r = 0; r < ROWS; r++)
                for (int64_t c = 0; c < widths[i]; c++)
                    ck_assert(*at(&y, r, c) ==
                              *at(&z, r, c) * (5.0f * random_at(2, (uint64_t)(r * widths[i] + c))));
            matrix_free(&t, &g);
            matrix_free(&t, &up);
            matrix_free(&t, &y);
            matrix_free(&t, &z);
        }
    target_close(&t);
}
END_TEST

/* ---- add, copy, rows ---- */

START_TEST(add_adds_a_matrix_or_one_row_even_in_place)
{
    struct target t;
    struct matrix a, b, row, y;

    if (!target_open(&t, all_isas[_i], 2, MAX_COLS))
        return;
    for (int32_t i = 0; i < N_WIDTHS; i++) {
        a = matrix_random(&t, ROWS, widths[i], 1, 1, 1.0f);
        b = matrix_random(&t, ROWS, widths[i], 2, 2, 1.0f);
        row = matrix_random(&t, 1, widths[i], 0, 3, 1.0f);
        y = matrix_new(&t, ROWS, widths[i], 3);
        ck_assert_int_eq(t.ops->add(t.stream, &y.mat, &a.mat, &row.mat), MMQ_OK);
        matrix_read(&t, &y);
        for (int64_t r = 0; r < ROWS; r++)
            for (int64_t c = 0; c < widths[i]; c++)
                ck_assert(*at(&y, r, c) == *at(&a, r, c) + *at(&row, 0, c));
        ck_assert_int_eq(t.ops->add(t.stream, &y.mat, &a.mat, &b.mat), MMQ_OK);
        ck_assert_int_eq(t.ops->add(t.stream, &b.mat, &a.mat, &b.mat), MMQ_OK);
        matrix_read(&t, &y);
        for (int64_t r = 0; r < ROWS; r++)
            for (int64_t c = 0; c < widths[i]; c++)
                ck_assert(*at(&y, r, c) == *at(&a, r, c) + *at(&b, r, c));
        matrix_read(&t, &b);
        ck_assert(same_bits(&y, &b));
        matrix_free(&t, &a);
        matrix_free(&t, &b);
        matrix_free(&t, &row);
        matrix_free(&t, &y);
    }
    target_close(&t);
}
END_TEST

START_TEST(embed_gives_the_rows_that_the_format_table_unpacks)
{
    static const int32_t ids[] = {6, 0, 3, 3, 1};
    struct target t;
    struct weight w;
    struct matrix y;
    int32_t *index;

    if (!target_open(&t, all_isas[_i], 2, MAX_COLS))
        return;
    index = device_copy(&t, ids, sizeof ids);
    for (int32_t format = 0; format < MMQI_N_FORMATS; format++)
        for (int32_t i = 0; i < N_WIDTHS; i++) {
            w = weight_new(&t, format, 7, widths[i], 1);
            y = matrix_new(&t, ROWS, widths[i], 3);
            ck_assert_int_eq(t.ops->embed(t.stream, &y.mat, &w.mat, index), MMQ_OK);
            matrix_read(&t, &y);
            for (int64_t r = 0; r < ROWS; r++)
                ck_assert_mem_eq(at(&y, r, 0), w.values + ids[r] * widths[i],
                                 (size_t)widths[i] * sizeof(float));
            weight_free(&t, &w);
            matrix_free(&t, &y);
        }
    device_free(&t, index);
    target_close(&t);
}
END_TEST

START_TEST(place_rows_leaves_the_other_rows_and_copy_takes_all)
{
    static const int32_t places[] = {2, -1, 0, -1, 2};
    struct target t;
    struct matrix x, y, before;
    int32_t *index;

    if (!target_open(&t, all_isas[_i], 2, MAX_COLS))
        return;
    index = device_copy(&t, places, sizeof places);
    for (int32_t i = 0; i < N_WIDTHS; i++) {
        x = matrix_random(&t, 3, widths[i], 1, 1, 1.0f);
        y = matrix_random(&t, ROWS, widths[i], 3, 2, 1.0f);
        before = matrix_new(&t, ROWS, widths[i], 2);
        ck_assert_int_eq(t.ops->copy(t.stream, &before.mat, &y.mat), MMQ_OK);
        ck_assert_int_eq(t.ops->place_rows(t.stream, &y.mat, &x.mat, index, false), MMQ_OK);
        matrix_read(&t, &before);
        matrix_read(&t, &y);
        for (int64_t r = 0; r < ROWS; r++)
            for (int64_t c = 0; c < widths[i]; c++) {
                ck_assert(*at(&before, r, c) == random_at(2, (uint64_t)(r * widths[i] + c)));
                ck_assert(*at(&y, r, c) ==
                          (places[r] < 0 ? *at(&before, r, c) : *at(&x, places[r], c)));
            }
        matrix_free(&t, &x);
        matrix_free(&t, &y);
        matrix_free(&t, &before);
    }
    device_free(&t, index);
    target_close(&t);
}
END_TEST

START_TEST(place_rows_adds_where_it_is_asked_to)
{
    static const int32_t places[] = {2, -1, 0, -1, 2};
    struct target t;
    struct matrix x, y;
    int32_t *index;
    float old;

    if (!target_open(&t, all_isas[_i], 2, MAX_COLS))
        return;
    index = device_copy(&t, places, sizeof places);
    for (int32_t i = 0; i < N_WIDTHS; i++) {
        x = matrix_random(&t, 3, widths[i], 1, 1, 1.0f);
        y = matrix_random(&t, ROWS, widths[i], 3, 2, 1.0f);
        ck_assert_int_eq(t.ops->place_rows(t.stream, &y.mat, &x.mat, index, true), MMQ_OK);
        matrix_read(&t, &y);
        for (int64_t r = 0; r < ROWS; r++)
            for (int64_t c = 0; c < widths[i]; c++) {
                old = random_at(2, (uint64_t)(r * widths[i] + c));
                ck_assert(*at(&y, r, c) == (places[r] < 0 ? old : old + *at(&x, places[r], c)));
            }
        matrix_free(&t, &x);
        matrix_free(&t, &y);
    }
    device_free(&t, index);
    target_close(&t);
}
END_TEST

/* y + ((w0 t0 + w1 t1) + w2 t2) + w3 t3, each step rounded. */
START_TEST(interpolate_adds_four_weighted_rows_of_the_table)
{
    static const int32_t taps[ROWS][MMQI_TAPS] = {
        {0, 1, 2, 3}, {6, 6, 6, 6}, {3, 2, 1, 0}, {0, 6, 0, 6}, {5, 4, 5, 4}};
    static const float weights[ROWS][MMQI_TAPS] = {{1.0f, 0.0f, 0.0f, 0.0f},
                                                   {0.25f, 0.25f, 0.25f, 0.25f},
                                                   {0.7f, 0.1f, 0.15f, 0.05f},
                                                   {0.0f, 0.3f, 0.0f, 0.7f},
                                                   {0.123f, 0.456f, 0.321f, 0.1f}};
    struct target t;
    struct matrix table, y;
    int32_t *index;
    float *scale, sum;

    if (!target_open(&t, all_isas[_i], 2, MAX_COLS))
        return;
    index = device_copy(&t, taps, sizeof taps);
    scale = device_copy(&t, weights, sizeof weights);
    for (int32_t i = 0; i < N_WIDTHS; i++) {
        table = matrix_random(&t, 7, widths[i], 0, 1, 1.0f);
        y = matrix_random(&t, ROWS, widths[i], 3, 2, 1.0f);
        ck_assert_int_eq(t.ops->interpolate(t.stream, &y.mat, &table.mat, index, scale), MMQ_OK);
        matrix_read(&t, &y);
        for (int64_t r = 0; r < ROWS; r++)
            for (int64_t c = 0; c < widths[i]; c++) {
                sum = weights[r][0] * *at(&table, taps[r][0], c);
                for (int k = 1; k < MMQI_TAPS; k++)
                    sum += weights[r][k] * *at(&table, taps[r][k], c);
                ck_assert(*at(&y, r, c) == random_at(2, (uint64_t)(r * widths[i] + c)) + sum);
            }
        matrix_free(&t, &table);
        matrix_free(&t, &y);
    }
    device_free(&t, scale);
    device_free(&t, index);
    target_close(&t);
}
END_TEST

/* ---- rope ---- */

/* One device's part of a comparison: heads, positions, frequencies and what they become. */
struct turned {
    struct target *t;
    struct matrix x;
    struct mmqi_rope rope;
    int32_t *positions;
};

static const int32_t rope_where[] = {0, 1, 77,  4095, 100000, 3,  0, 9, 12,
                                     5, 5, 200, 31,   77,     64, 1, 2, 3};
enum { ROPE_HEADS = 3 };

/* Which axis frequency i reads: sections, or in turn. */
static int32_t rope_axis(int32_t i, int32_t half, int32_t n_axes, bool in_turn)
{
    return in_turn ? i % n_axes : i * n_axes / half;
}

static struct turned turn(struct target *t, int32_t dim, int32_t n_axes, bool in_turn)
{
    struct turned turned = {.t = t, .rope = {ROPE_HEADS, dim, n_axes, NULL, NULL}};
    int32_t axis[64], half = dim / 2;

    for (int32_t i = 0; i < half; i++)
        axis[i] = rope_axis(i, half, n_axes, in_turn);
    turned.x = matrix_random(t, ROWS, ROPE_HEADS * dim, 3, 1, 1.0f);
    turned.positions = device_copy(t, rope_where, sizeof rope_where);
    turned.rope.inv_freq = device_random(t, half, 5, 1.0f);
    if (n_axes > 1)
        turned.rope.axis = device_copy(t, axis, (size_t)half * sizeof *axis);
    ck_assert_int_eq(t->ops->rope(t->stream, &turned.x.mat, &turned.rope, turned.positions),
                     MMQ_OK);
    matrix_read(t, &turned.x);
    return turned;
}

static void turned_free(struct turned *turned)
{
    device_free(turned->t, turned->positions);
    device_free(turned->t, (void *)turned->rope.inv_freq);
    device_free(turned->t, (void *)turned->rope.axis);
    matrix_free(turned->t, &turned->x);
}

/* Element c of row r, by the formula in double, within the rounding of products and sum. */
static void check_turn(const struct turned *turned, int64_t r, int32_t c, bool in_turn)
{
    int32_t dim = turned->rope.head_dim, half = dim / 2, i = c % dim % half, base = c / dim * dim;
    int32_t axis = rope_axis(i, half, turned->rope.n_axes, in_turn);
    float angle = (float)rope_where[r * turned->rope.n_axes + axis] * random_at(5, (uint64_t)i);
    double a = random_at(1, (uint64_t)(r * ROPE_HEADS * dim + base + i));
    double b = random_at(1, (uint64_t)(r * ROPE_HEADS * dim + base + half + i));
    double cosine = cos((double)angle), sine = sin((double)angle);
    double y = c % dim < half ? a * cosine - b * sine : b * cosine + a * sine;

    ck_assert(fabs(*at(&turned->x, r, c) - y) <= 4 * u * (fabs(a) + fabs(b)));
}

/* Text, the row and column of a patch, and M-RoPE, by sections and interleaved. */
START_TEST(rope_turns_pairs_and_is_the_same_bits_as_plain_c)
{
    static const int32_t dims[] = {2, 6, 16, 32, 34, 64, 80, 128};
    struct turned turned, same;
    struct pair p;

    if (!pair_open(&p, all_isas[_i], 2))
        return;
    for (size_t d = 0; d < sizeof dims / sizeof *dims; d++)
        for (int32_t n_axes = 1; n_axes <= 3; n_axes++)
            for (int in_turn = 0; in_turn < 2; in_turn++) {
                turned = turn(&p.t, dims[d], n_axes, in_turn);
                same = turn(&p.c, dims[d], n_axes, in_turn);
                ck_assert(!p.t.backend->host_memory || same_bits(&turned.x, &same.x));
                for (int64_t r = 0; r < ROWS; r++)
                    for (int32_t c = 0; c < ROPE_HEADS * dims[d]; c++)
                        check_turn(&turned, r, c, in_turn);
                turned_free(&turned);
                turned_free(&same);
            }
    pair_close(&p);
}
END_TEST

/* ---- patches, pick ---- */

/* Pixels beyond the last whole square, and a row of patches that a square does not fill, are left
 * out: with merge 2 the grid of 3 x 4 patches gives 2 x 4. */
static void check_patches(struct target *t, int32_t frames, int32_t merge)
{
    enum { CHANNELS = 3, HEIGHT = 13, WIDTH = 17, PATCH = 4 };
    const struct mmqi_patches how = {CHANNELS, HEIGHT, WIDTH, PATCH, frames, merge};
    int32_t across = WIDTH / (PATCH * merge), n = HEIGHT / (PATCH * merge) * across * merge * merge;
    float *pixels = device_random(t, CHANNELS * HEIGHT * WIDTH, 1, 1.0f);
    struct matrix y = matrix_new(t, n, CHANNELS * frames * PATCH * PATCH, 3);

    ck_assert_int_eq(t->ops->patches(t->stream, &y.mat, pixels, &how), MMQ_OK);
    matrix_read(t, &y);
    for (int32_t r = 0; r < n; r++) {
        int32_t square = r / (merge * merge), inside = r % (merge * merge);
        int32_t top = (square / across * merge + inside / merge) * PATCH;
        int32_t left = (square % across * merge + inside % merge) * PATCH;

        for (int32_t k = 0; k < CHANNELS * frames * PATCH * PATCH; k++) {
            int32_t c = k / (frames * PATCH * PATCH), i = k / PATCH % PATCH, j = k % PATCH;

            ck_assert(*at(&y, r, k) ==
                      random_at(1, (uint64_t)((c * HEIGHT + top + i) * WIDTH + left + j)));
        }
    }
    device_free(t, pixels);
    matrix_free(t, &y);
}

START_TEST(patches_are_cut_channel_first_in_the_order_of_squares)
{
    struct target t;

    if (!target_open(&t, all_isas[_i], 2, MAX_COLS))
        return;
    check_patches(&t, 1, 1);
    check_patches(&t, 2, 1);
    check_patches(&t, 1, 2);
    check_patches(&t, 2, 2);
    check_patches(&t, 3, 3);
    target_close(&t);
}
END_TEST

static int32_t pick_of(struct target *t, struct matrix *x)
{
    int32_t out = -1, *memory = device_copy(t, &out, sizeof out);

    upload(t, x);
    ck_assert_int_eq(t->ops->pick(t->stream, memory, &x->mat), MMQ_OK);
    device_read(t, &out, memory, sizeof out);
    device_free(t, memory);
    return out;
}

START_TEST(pick_takes_the_greatest_and_the_lowest_index_of_a_tie)
{
    struct target t;
    struct matrix x;
    int64_t n;

    if (!target_open(&t, all_isas[_i], 2, MAX_COLS))
        return;
    for (int32_t i = 0; i < N_WIDTHS; i++) {
        n = widths[i];
        x = matrix_random(&t, 1, n, 3, 1, 1.0f);
        for (int64_t k = 0; k < n; k += 1 + n / 37) {
            float kept = *at(&x, 0, k), last = *at(&x, 0, n - 1);

            *at(&x, 0, n - 1) = 2.0f;
            *at(&x, 0, k) = 2.0f;
            ck_assert_int_eq(pick_of(&t, &x), k);
            *at(&x, 0, n - 1) = last;
            *at(&x, 0, k) = kept;
        }
        for (int64_t c = 0; c < n; c++)
            *at(&x, 0, c) = c == n / 2 ? -INFINITY : NAN;
        ck_assert_int_eq(pick_of(&t, &x), n / 2);
        *at(&x, 0, n / 2) = NAN;
        ck_assert_int_eq(pick_of(&t, &x), 0);
        matrix_free(&t, &x);
    }
    target_close(&t);
}
END_TEST

/* Whose columns every thread visits more than once, wherever they are dealt to several blocks. */
START_TEST(pick_takes_the_lowest_index_of_a_whole_vocabulary)
{
    static const int64_t ties[][2] = {{0, 152063}, {65535, 65536}, {1023, 131071}, {70000, 70001}};
    struct target t;
    struct matrix x;

    if (!target_open(&t, all_isas[_i], 2, 152064))
        return;
    x = matrix_random(&t, 1, 152064, 0, 1, 1.0f);
    for (size_t i = 0; i < sizeof ties / sizeof *ties; i++) {
        *at(&x, 0, ties[i][0]) = *at(&x, 0, ties[i][1]) = 2.0f + (float)i;
        ck_assert_int_eq(pick_of(&t, &x), ties[i][0]);
    }
    matrix_free(&t, &x);
    target_close(&t);
}
END_TEST

START_TEST(pick_answers_for_every_row)
{
    struct target t;
    struct matrix x;
    int32_t out[300], *memory;

    if (!target_open(&t, all_isas[_i], 2, MAX_COLS))
        return;
    x = matrix_random(&t, 300, 200, 3, 1, 1.0f);
    for (int32_t r = 0; r < 300; r++)
        *at(&x, r, r * 7 % 200) = 3.0f;
    upload(&t, &x);
    memory = device_copy(&t, out, sizeof out);
    ck_assert_int_eq(t.ops->pick(t.stream, memory, &x.mat), MMQ_OK);
    device_read(&t, out, memory, sizeof out);
    for (int32_t r = 0; r < 300; r++)
        ck_assert_int_eq(out[r], r * 7 % 200);
    device_free(&t, memory);
    matrix_free(&t, &x);
    target_close(&t);
}
END_TEST

/* ---- the row of the next step, and what the host is told of it ---- */

START_TEST(advance_goes_on_by_one_and_leaves_the_token)
{
    static const int32_t first[] = {7, 31, 40, 63, 9, 0, 63};
    static const int32_t wanted[] = {7, 34, 43, 66, 12, 0, 66};
    int32_t *memory, got[7];
    struct mmqi_step step = {.n_axes = 3};
    struct target t;

    if (!target_open(&t, all_isas[_i], 1, MAX_COLS))
        return;
    memory = device_copy(&t, first, sizeof first);
    step.id = memory;
    step.positions = memory + 1;
    step.slot = memory + 4;
    step.span = (struct mmqi_span *)(memory + 5);
    for (int turn = 0; turn < 3; turn++)
        ck_assert_int_eq(t.ops->advance(t.stream, &step), MMQ_OK);
    device_read(&t, got, memory, sizeof got);
    ck_assert_mem_eq(got, wanted, sizeof got);
    device_free(&t, memory);
    target_close(&t);
}
END_TEST

START_TEST(a_note_tells_what_was_there_when_it_was_taken)
{
    int32_t at[MMQI_NOTE_BYTES / 4] = {41}, *memory, got[MMQI_NOTES] = {0};
    struct mmqi_step step = {.n_axes = 1};
    struct target t;

    if (!target_open(&t, MMQI_ISA_AUTO, 1, MAX_COLS))
        return;
    memory = device_copy(&t, at, sizeof at);
    step.positions = memory;
    step.slot = memory + 1;
    step.span = (struct mmqi_span *)(memory + 2);
    for (int turn = 0; turn < 3; turn++) { /* the third in place of the first */
        ck_assert_int_eq(t.ops->advance(t.stream, &step), MMQ_OK);
        ck_assert_int_eq(t.backend->note(t.stream, turn % MMQI_NOTES, memory, sizeof at), MMQ_OK);
    }
    ck_assert_int_eq(t.ops->advance(t.stream, &step), MMQ_OK);
    for (int32_t i = 0; i < MMQI_NOTES; i++)
        ck_assert_int_eq(t.backend->read_note(t.stream, i, &got[i], sizeof got[i]), MMQ_OK);
    ck_assert_int_eq(got[0], 44);
    ck_assert_int_eq(got[1], 43);
    device_read(&t, got, memory, sizeof *got);
    ck_assert_int_eq(got[0], 45);
    device_free(&t, memory);
    target_close(&t);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("rows");
    TCase *tcase = tcase_create("rows");

    tcase_set_timeout(tcase, 300);
    tcase_add_loop_test(tcase, norms_are_right_and_the_same_bits_as_plain_c, 0, N_ISAS);
    tcase_add_loop_test(tcase, norms_may_write_where_they_read, 0, N_ISAS);
    tcase_add_loop_test(tcase, activations_are_right_everywhere, 0, N_ISAS);
    tcase_add_loop_test(tcase, nan_stays_nan, 0, N_ISAS);
    tcase_add_loop_test(tcase, a_gate_is_the_activation_times_up_even_in_place, 0, N_ISAS);
    tcase_add_loop_test(tcase, add_adds_a_matrix_or_one_row_even_in_place, 0, N_ISAS);
    tcase_add_loop_test(tcase, embed_gives_the_rows_that_the_format_table_unpacks, 0, N_ISAS);
    tcase_add_loop_test(tcase, place_rows_leaves_the_other_rows_and_copy_takes_all, 0, N_ISAS);
    tcase_add_loop_test(tcase, place_rows_adds_where_it_is_asked_to, 0, N_ISAS);
    tcase_add_loop_test(tcase, interpolate_adds_four_weighted_rows_of_the_table, 0, N_ISAS);
    tcase_add_loop_test(tcase, rope_turns_pairs_and_is_the_same_bits_as_plain_c, 0, N_ISAS);
    tcase_add_loop_test(tcase, patches_are_cut_channel_first_in_the_order_of_squares, 0, N_ISAS);
    tcase_add_loop_test(tcase, pick_takes_the_greatest_and_the_lowest_index_of_a_tie, 0, N_ISAS);
    tcase_add_loop_test(tcase, pick_takes_the_lowest_index_of_a_whole_vocabulary, 0, N_ISAS);
    tcase_add_loop_test(tcase, pick_answers_for_every_row, 0, N_ISAS);
    tcase_add_loop_test(tcase, advance_goes_on_by_one_and_leaves_the_token, 0, N_ISAS);
    tcase_add_test(tcase, a_note_tells_what_was_there_when_it_was_taken);
    suite_add_tcase(suite, tcase);
    return run_suite(suite);
}
