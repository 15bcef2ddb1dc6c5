/*
 * Every op of a device against the CPU's plain C: edges of tiles, odd sizes, real widths; inputs
 * and outputs of other strides, poisoned outputs, watched surroundings. TEST_DEVICE=cuda:0 names
 * the device; without it the CPU's best kernels are compared. In one process, in `exact` mode and
 * then in `fast`, where there is one; every mismatch is a line and no mismatch ends a test.
 * TEST_SMALL=1 leaves most cases out, for tools under which all is slow.
 */
#include "ops/device.h"
#include "ops/scene.h"

static const double u = 0x1p-24; /* half the distance of f32 numbers at 1 */
#define BF16 0x1p-8              /* of bf16 numbers, 8 bits of precision; f16 is finer */

#define COUNT(list) ((int32_t)(sizeof(list) / sizeof *(list)))

/* ---- rows: embed, place_rows, copy, add ---- */

static const int64_t widths[] = {1,    2,    3,    4,    5,    7,    15,   16,   17,   31,
                                 33,   63,   64,   65,   127,  128,  129,  255,  257,  576,
                                 1023, 1024, 1025, 1280, 1536, 3584, 4096, 4097, 8960, 14336};
static const int64_t few_rows[] = {1, 3, 34};

START_TEST(embed_gives_the_same_bits_in_every_format)
{
    static const int64_t cols[] = {1, 2, 15, 64, 65, 130, 576, 1536, 4096};
    static const int32_t ids[] = {0, 6, 3, 3, 6};
    struct pair where = pair_copy(ids, sizeof ids);
    struct both_weight table;
    struct both y;

    rig_begin();
    for (int32_t f = 0; f < MMQI_N_FORMATS; f++)
        for (int32_t i = 0; i < COUNT(cols); i++) {
            if (left_out(5, 1))
                continue;
            table = both_weight_new(f, 7, cols[i], 1);
            y = both_new(5, cols[i], 3);
            rig.ref.ops->embed(rig.ref.stream, &y.ref.mat, &table.ref.mat, where.ref);
            if (went("embed",
                     rig.dev.ops->embed(rig.dev.stream, &y.dev.mat, &table.dev, where.dev)))
                compare(&y, NULL, NULL, "embed %s [5 x %d]", mmqi_format_info(f)->name,
                        (int)cols[i]);
            both_free(&y);
            both_weight_free(&table);
        }
    pair_free(&where);
    rig_end("embed");
}
END_TEST

START_TEST(place_rows_and_copy_give_the_same_bits)
{
    static const int32_t index[] = {2, -1, 0, 1, -1};
    struct pair where = pair_copy(index, sizeof index);
    struct both x, y;

    rig_begin();
    for (int32_t i = 0; i < COUNT(widths); i++) {
        if (left_out(3, 1))
            continue;
        x = both_random(3, widths[i], 3, 1, 1.0f);
        y = both_random(5, widths[i], 5, 2, 1.0f);
        for (int add = 0; add < 2; add++) {
            rig.ref.ops->place_rows(rig.ref.stream, &y.ref.mat, &x.ref.mat, where.ref, add);
            if (went("place_rows", rig.dev.ops->place_rows(rig.dev.stream, &y.dev.mat, &x.dev.mat,
                                                           where.dev, add)))
                compare(&y, NULL, NULL, "place_rows [5 x %d], adding %d", (int)widths[i], add);
        }
        both_free(&y);
        y = both_new(3, widths[i], 0);
        rig.ref.ops->copy(rig.ref.stream, &y.ref.mat, &x.ref.mat);
        if (went("copy", rig.dev.ops->copy(rig.dev.stream, &y.dev.mat, &x.dev.mat)))
            compare(&y, NULL, NULL, "copy [3 x %d]", (int)widths[i]);
        both_free(&x);
        both_free(&y);
    }
    pair_free(&where);
    rig_end("rows");
}
END_TEST

START_TEST(interpolate_gives_the_same_bits)
{
    enum { N_ROWS = 34, N_TABLE = 9 };
    int32_t taps[N_ROWS * MMQI_TAPS];
    float weights[N_ROWS * MMQI_TAPS];
    struct pair where, scale;
    struct both table, y;

    for (int32_t i = 0; i < N_ROWS * MMQI_TAPS; i++) {
        taps[i] = i * 5 % N_TABLE;
        weights[i] = (float)(i % 7) / 9.0f;
    }
    where = pair_copy(taps, sizeof taps);
    scale = pair_copy(weights, sizeof weights);
    rig_begin();
    for (int32_t i = 0; i < COUNT(widths); i++) {
        if (left_out(5, 1))
            continue;
        table = both_random(N_TABLE, widths[i], 0, 1, 1.0f);
        y = both_random(N_ROWS, widths[i], i % 3, 2, 1.0f);
        rig.ref.ops->interpolate(rig.ref.stream, &y.ref.mat, &table.ref.mat, where.ref, scale.ref);
        if (went("interpolate", rig.dev.ops->interpolate(rig.dev.stream, &y.dev.mat, &table.dev.mat,
                                                         where.dev, scale.dev)))
            compare(&y, NULL, NULL, "interpolate [34 x %d]", (int)widths[i]);
        both_free(&table);
        both_free(&y);
    }
    pair_free(&where);
    pair_free(&scale);
    rig_end("interpolate");
}
END_TEST

/* y = a + b on both; in place where y is a. */
static void add_on_both(struct both *y, struct both *a, struct both *b, const char *what)
{
    rig.ref.ops->add(rig.ref.stream, &y->ref.mat, &a->ref.mat, &b->ref.mat);
    if (went(what, rig.dev.ops->add(rig.dev.stream, &y->dev.mat, &a->dev.mat, &b->dev.mat)))
        compare(y, NULL, NULL, "%s [%d x %d]", what, (int)a->ref.mat.rows, (int)a->ref.mat.cols);
}

START_TEST(add_gives_the_same_bits)
{
    struct both a, b, row, y;

    rig_begin();
    for (int32_t i = 0; i < COUNT(widths); i++)
        for (int32_t r = 0; r < COUNT(few_rows); r++) {
            if (left_out(7, 1))
                continue;
            a = both_random(few_rows[r], widths[i], 3, 1, 1.0f);
            b = both_random(few_rows[r], widths[i], i % 4, 2, 1.0f);
            row = both_random(1, widths[i], 0, 3, 1.0f);
            y = both_new(few_rows[r], widths[i], i % 3);
            add_on_both(&y, &a, &b, "add");
            add_on_both(&y, &a, &row, "add of a row");
            add_on_both(&a, &a, &b, "add in place");
            add_on_both(&b, &a, &b, "add onto b");
            both_free(&a);
            both_free(&b);
            both_free(&row);
            both_free(&y);
        }
    rig_end("add");
}
END_TEST

/* ---- norms ---- */

struct norm_case {
    float offset; /* of every element: a mean far from zero costs digits */
};

static double norm_bound(const void *arg, int64_t row, int64_t col, double value)
{
    const struct norm_case *c = arg;

    (void)row;
    (void)col;
    return 16 * u * (fabs(value) + 4 * (1 + fabs((double)c->offset)));
}

static void norm_on_both(const struct norm_case *c, struct both *y, struct both *x, bool rms)
{
    int64_t cols = x->ref.mat.cols;
    struct pair w = pair_random(cols, 2, 1.0f), b = pair_random(cols, 3, 1.0f);
    const struct mmqi_mat *ry = &y->ref.mat, *rx = &x->ref.mat, *dy = &y->dev.mat,
                          *dx = &x->dev.mat;
    int32_t status;

    if (rms) {
        rig.ref.ops->rms_norm(rig.ref.stream, ry, rx, w.ref, 1e-6f);
        status = rig.dev.ops->rms_norm(rig.dev.stream, dy, dx, w.dev, 1e-6f);
    } else {
        rig.ref.ops->layer_norm(rig.ref.stream, ry, rx, w.ref, b.ref, 1e-5f);
        status = rig.dev.ops->layer_norm(rig.dev.stream, dy, dx, w.dev, b.dev, 1e-5f);
    }
    if (went("norm", status))
        compare(y, norm_bound, c, "%s_norm%s [%d x %d]%s", rms ? "rms" : "layer",
                y == x ? " in place" : "", (int)rx->rows, (int)cols,
                c->offset != 0 ? " far from zero" : "");
    pair_free(&w);
    pair_free(&b);
}

START_TEST(norms_are_near)
{
    struct norm_case c = {0};
    struct both x, y;

    rig_begin();
    for (int32_t i = 0; i < COUNT(widths); i++)
        for (int32_t r = 0; r < COUNT(few_rows); r++)
            for (int32_t far = 0; far < 2; far++) {
                if (left_out(11, 1))
                    continue;
                c.offset = far ? 20.0f : 0.0f;
                x = both_random(few_rows[r], widths[i], i % 5, 1, 1.0f);
                for (int64_t k = 0; k < few_rows[r] * widths[i]; k++)
                    *at(&x.ref, k / widths[i], k % widths[i]) += c.offset;
                both_upload(&x);
                y = both_new(few_rows[r], widths[i], i % 3);
                norm_on_both(&c, &y, &x, true);
                if (widths[i] > 8) /* of few, the variance is chance */
                    norm_on_both(&c, &y, &x, false);
                norm_on_both(&c, &x, &x, true);
                both_free(&x);
                both_free(&y);
            }
    rig_end("norms");
}
END_TEST

/* ---- activations ---- */

/* Around zero, where they bend, far out, and subnormal. */
static float act_input(int64_t i)
{
    static const float points[] = {0.0f,  -0.0f,  1.0f,  -1.0f,  1.41421354f, 5.65f,  -5.65f,
                                   88.7f, -88.7f, 104.f, -104.f, 1e30f,       -1e30f, 1e-40f};

    if (i < COUNT(points))
        return points[i];
    return i % 2 ? 12.0f * random_at(1, (uint64_t)i)
                 : 100.0f * powf(random_at(1, (uint64_t)i), 5.0f);
}

/* By which the input and, of a gate, the other factor stretch an error. */
struct act_case {
    const struct both *x, *up;
};

static double act_bound(const void *arg, int64_t row, int64_t col, double value)
{
    const struct act_case *c = arg;
    double x = fabs((double)*at(&c->x->ref, row, col));
    double up = c->up ? fabs((double)*at(&c->up->ref, row, col)) : 1;

    /* Where an exponential of x is near its end, x in the last bit is many bits of the result. */
    return (16 * u * fabs(value) + 8 * u * (x < 20 ? x : 20) * up) + 1e-36;
}

START_TEST(activations_and_gates_are_near)
{
    struct both x = both_new(9, 20001, 1), up = both_random(9, 20001, 2, 4, 5.0f), y;
    struct act_case c = {&x, NULL};

    rig_begin();
    for (int64_t i = 0; i < 9 * 20001; i++)
        *at(&x.ref, i / 20001, i % 20001) = act_input(i);
    both_upload(&x);
    for (int32_t act = MMQI_ACT_SILU; act <= MMQI_ACT_QUICK_GELU; act++) {
        y = both_new(9, 20001, 0);
        c.up = NULL;
        rig.ref.ops->activate(rig.ref.stream, &y.ref.mat, &x.ref.mat, act);
        if (went("activate", rig.dev.ops->activate(rig.dev.stream, &y.dev.mat, &x.dev.mat, act)))
            compare(&y, act_bound, &c, "activation %d", (int)act);
        c.up = &up;
        rig.ref.ops->gate(rig.ref.stream, &y.ref.mat, &x.ref.mat, &up.ref.mat, act);
        if (went("gate",
                 rig.dev.ops->gate(rig.dev.stream, &y.dev.mat, &x.dev.mat, &up.dev.mat, act)))
            compare(&y, act_bound, &c, "gate %d", (int)act);
        both_free(&y);
    }
    both_free(&x);
    both_free(&up);
    rig_end("activations");
}
END_TEST

START_TEST(activations_take_any_size_in_place)
{
    struct act_case c = {NULL, NULL};
    struct both x, kept, up;

    rig_begin();
    for (int32_t i = 0; i < COUNT(widths); i++)
        for (int32_t r = 0; r < COUNT(few_rows); r++) {
            if (left_out(7, 1))
                continue;
            x = both_random(few_rows[r], widths[i], i % 5, 1, 3.0f);
            kept = both_random(few_rows[r], widths[i], 0, 1, 3.0f);
            up = both_random(few_rows[r], widths[i], i % 2, 2, 1.0f);
            c.x = &kept;
            c.up = &up;
            rig.ref.ops->gate(rig.ref.stream, &x.ref.mat, &x.ref.mat, &up.ref.mat, MMQI_ACT_SILU);
            if (went("gate", rig.dev.ops->gate(rig.dev.stream, &x.dev.mat, &x.dev.mat, &up.dev.mat,
                                               MMQI_ACT_SILU)))
                compare(&x, act_bound, &c, "gate in place [%d x %d]", (int)few_rows[r],
                        (int)widths[i]);
            both_free(&x);
            both_free(&kept);
            both_free(&up);
        }
    rig_end("gate");
}
END_TEST

/* ---- rope, patches, pick ---- */

static double rope_bound(const void *arg, int64_t row, int64_t col, double value)
{
    (void)arg;
    (void)row;
    (void)col;
    (void)value;
    return 16 * u; /* of elements in [-1, 1] */
}

static void rope_on_both(int32_t n_heads, int32_t dim, int32_t n_axes, int64_t rows)
{
    struct mmqi_rope ref = {n_heads, dim, n_axes, NULL, NULL}, dev;
    int32_t *positions = malloc((size_t)(rows * n_axes) * sizeof *positions);
    int32_t *axis = malloc((size_t)dim * sizeof *axis);
    float *frequencies = malloc((size_t)dim * sizeof *frequencies);
    struct both x = both_random(rows, (int64_t)n_heads * dim, 3, 1, 1.0f);
    struct pair where, which, turns;

    for (int64_t i = 0; i < rows * n_axes; i++)
        positions[i] = (int32_t)(i * 2654435761u % 5000);
    for (int32_t i = 0; i < dim / 2; i++) {
        axis[i] = i * n_axes / (dim / 2);
        frequencies[i] = powf(10000.0f, -2.0f * (float)i / (float)dim);
    }
    where = pair_copy(positions, (size_t)(rows * n_axes) * sizeof *positions);
    which = pair_copy(axis, (size_t)dim / 2 * sizeof *axis);
    turns = pair_copy(frequencies, (size_t)dim / 2 * sizeof *frequencies);
    dev = ref;
    ref.inv_freq = turns.ref;
    dev.inv_freq = turns.dev;
    ref.axis = n_axes > 1 ? which.ref : NULL;
    dev.axis = n_axes > 1 ? which.dev : NULL;
    rig.ref.ops->rope(rig.ref.stream, &x.ref.mat, &ref, where.ref);
    if (went("rope", rig.dev.ops->rope(rig.dev.stream, &x.dev.mat, &dev, where.dev)))
        compare(&x, rope_bound, NULL, "rope of %d heads of %d, %d axes, %d rows", (int)n_heads,
                (int)dim, (int)n_axes, (int)rows);
    pair_free(&where);
    pair_free(&which);
    pair_free(&turns);
    both_free(&x);
    free(positions);
    free(axis);
    free(frequencies);
}

START_TEST(rope_is_near)
{
    static const int32_t dims[] = {2, 6, 16, 64, 80, 96, 128, 256};

    rig_begin();
    for (int32_t i = 0; i < COUNT(dims); i++)
        for (int32_t axes = 1; axes <= 3; axes++) {
            if (left_out(5, 1))
                continue;
            rope_on_both(1, dims[i], axes, 1);
            rope_on_both(3, dims[i], axes, 37);
            rope_on_both(32, dims[i], axes, 2);
        }
    rig_end("rope");
}
END_TEST

START_TEST(patches_give_the_same_bits)
{
    static const struct mmqi_patches cuts[] = {
        {1, 1, 1, 1, 1, 1},      {3, 28, 42, 14, 1, 1}, {3, 30, 45, 14, 1, 1},
        {3, 56, 84, 14, 2, 2},   {3, 60, 90, 14, 2, 2}, {3, 336, 336, 14, 1, 1},
        {3, 224, 224, 16, 1, 1}, {1, 35, 21, 7, 3, 1},  {3, 252, 392, 14, 2, 2},
    };
    struct pair pixels;
    struct both y;

    rig_begin();
    for (int32_t i = 0; i < COUNT(cuts); i++) {
        const struct mmqi_patches *cut = &cuts[i];
        int32_t side = cut->patch * cut->merge;
        int64_t squares = (int64_t)(cut->height / side) * (cut->width / side);

        if (left_out(2, 1))
            continue;
        pixels = pair_random((int64_t)cut->channels * cut->height * cut->width, 1, 1.0f);
        y = both_new(squares * cut->merge * cut->merge,
                     (int64_t)cut->channels * cut->frames * cut->patch * cut->patch, 1);
        rig.ref.ops->patches(rig.ref.stream, &y.ref.mat, pixels.ref, cut);
        if (went("patches", rig.dev.ops->patches(rig.dev.stream, &y.dev.mat, pixels.dev, cut)))
            compare(&y, NULL, NULL, "patches of %d in %d x %d, merge %d", (int)cut->patch,
                    (int)cut->width, (int)cut->height, (int)cut->merge);
        both_free(&y);
        pair_free(&pixels);
    }
    rig_end("patches");
}
END_TEST

/* The greatest twice, NaN among the others, nothing but NaN, nothing but -inf. */
static void spoil(struct matrix *x, int64_t cols)
{
    *at(x, 0, cols - 1) = *at(x, 0, cols / 2) = 2.0f;
    for (int64_t c = 0; c < cols; c++) {
        *at(x, 2, c) = c % 3 == 0 ? NAN : *at(x, 2, c);
        *at(x, 3, c) = NAN;
        *at(x, 4, c) = -INFINITY;
    }
}

START_TEST(pick_takes_the_same)
{
    static const int64_t cols[] = {1, 2, 7, 32, 33, 1000, 1024, 1025, 32064, 49152, 128256};
    enum { ROWS = 5 };
    int32_t none[ROWS] = {-7, -7, -7, -7, -7}, found[ROWS], wanted[ROWS];
    struct both x;
    struct pair out;

    rig_begin();
    for (int32_t i = 0; i < COUNT(cols); i++, rig.n_cases++) {
        if (left_out(3, 1))
            continue;
        x = both_random(ROWS, cols[i], 3, 1, 1.0f);
        spoil(&x.ref, cols[i]);
        both_upload(&x);
        out = pair_copy(none, sizeof none);
        rig.ref.ops->pick(rig.ref.stream, out.ref, &x.ref.mat);
        memcpy(wanted, out.ref, sizeof wanted);
        if (went("pick", rig.dev.ops->pick(rig.dev.stream, out.dev, &x.dev.mat)) &&
            went("download",
                 rig.dev.backend->download(rig.dev.device, found, out.dev, sizeof found)))
            for (int32_t r = 0; r < ROWS; r++)
                if (found[r] != wanted[r])
                    bad("pick of %d, row %d: %d, not %d", (int)cols[i], (int)r, (int)found[r],
                        (int)wanted[r]);
        pair_free(&out);
        both_free(&x);
    }
    rig_end("pick");
}
END_TEST

/* ---- products ---- */

struct shape {
    int64_t rows, n, k; /* of x, of W */
};

struct product_case {
    double *x_size, *w_size; /* lengths of the rows of x and of W */
    double *x_most;          /* greatest magnitude in a row of x */
};

/*
 * Sums of k products in f32, in any order, of random terms: their roundings add up like the terms.
 * In `fast` mode every factor is rounded once more; the errors of one sum add up like noise.
 */
static double product_bound(const void *arg, int64_t row, int64_t col, double value)
{
    const struct product_case *c = arg;
    double exact = 16 * u * c->x_size[row] * c->w_size[col] + 4 * u * fabs(value);

    if (rig.mode == MMQI_MODE_EXACT)
        return exact;
    return exact + 3 * BF16 * c->x_most[row] * c->w_size[col];
}

static double length_of(const float *row, int64_t n)
{
    double sum = 0;

    for (int64_t i = 0; i < n; i++)
        sum += (double)row[i] * row[i];
    return sqrt(sum);
}

static struct product_case product_case(const struct both *x, const struct both_weight *w)
{
    int64_t rows = x->ref.mat.rows, k = x->ref.mat.cols, n = w->ref.mat.rows;
    struct product_case c = {malloc((size_t)rows * sizeof(double)),
                             malloc((size_t)n * sizeof(double)),
                             calloc((size_t)rows, sizeof(double))};

    for (int64_t r = 0; r < rows; r++) {
        c.x_size[r] = length_of(at(&x->ref, r, 0), k);
        for (int64_t i = 0; i < k; i++)
            c.x_most[r] = fmax(c.x_most[r], fabs((double)*at(&x->ref, r, i)));
    }
    for (int64_t i = 0; i < n; i++)
        c.w_size[i] = length_of(w->ref.values + i * k, k);
    return c;
}

/* The product with each of these numbers of rows: few take another way than many. */
static void product_on_both(int32_t format, const struct shape *s, const int64_t *rows,
                            int32_t n_rows, bool with_bias)
{
    struct both_weight w = both_weight_new(format, s->n, s->k, 2);
    struct pair bias = pair_random(s->n, 3, 1.0f);
    struct both x, y;
    struct product_case c;

    for (int32_t i = 0; i < n_rows; i++) {
        if (left_out(23, (double)rows[i] * (double)s->k * (double)s->n))
            continue;
        x = both_random(rows[i], s->k, i % 4, 1, 1.0f);
        y = both_new(rows[i], s->n, i % 3);
        c = product_case(&x, &w);
        rig.ref.ops->matmul(rig.ref.stream, &y.ref.mat, &x.ref.mat, &w.ref.mat,
                            with_bias ? bias.ref : NULL);
        if (went("matmul", rig.dev.ops->matmul(rig.dev.stream, &y.dev.mat, &x.dev.mat, &w.dev,
                                               with_bias ? bias.dev : NULL)))
            compare(&y, product_bound, &c, "matmul %s [%d x %d] x %d%s",
                    mmqi_format_info(format)->name, (int)rows[i], (int)s->k, (int)s->n,
                    with_bias ? " with bias" : "");
        free(c.x_size);
        free(c.w_size);
        free(c.x_most);
        both_free(&x);
        both_free(&y);
    }
    pair_free(&bias);
    both_weight_free(&w);
}

START_TEST(products_are_near_in_every_format_and_shape)
{
    static const struct shape shapes[] = {
        {0, 1, 1},     {0, 8, 16},    {0, 7, 15},   {0, 9, 17},   {0, 31, 63},
        {0, 33, 64},   {0, 8, 65},    {0, 17, 80},  {0, 40, 127}, {0, 65, 128},
        {0, 24, 129},  {0, 127, 192}, {0, 9, 100},  {0, 130, 96}, {0, 70, 384},
        {0, 129, 576}, {0, 65, 1},    {0, 5, 2080}, {0, 3, 4112},
    };
    static const int64_t rows[] = {1, 2, 8, 9, 33};

    rig_begin();
    for (int32_t f = 0; f < MMQI_N_FORMATS; f++)
        for (int32_t s = 0; s < COUNT(shapes); s++)
            product_on_both(f, &shapes[s], rows, COUNT(rows), (f + s) % 2);
    rig_end("matmul");
}
END_TEST

START_TEST(products_of_real_widths_are_near)
{
    static const struct shape shapes[] = {
        {0, 4096, 4096}, {0, 257, 14336}, {0, 1536, 8960}, {0, 8960, 1536}, {0, 1280, 1176},
    };
    static const int32_t formats[] = {
        MMQI_FORMAT_F32,        MMQI_FORMAT_BF16, MMQI_FORMAT_INT8,     MMQI_FORMAT_NF4,
        MMQI_FORMAT_NF4_NESTED, MMQI_FORMAT_FP4,  MMQI_FORMAT_INT4_G64, MMQI_FORMAT_INT4_G128_BF16};
    static const int64_t rows[] = {1, 4, 130};

    rig_begin();
    for (int32_t f = 0; f < COUNT(formats) && !rig_on_cpu(); f++)
        for (int32_t s = 0; s < COUNT(shapes); s++)
            product_on_both(formats[f], &shapes[s], rows, COUNT(rows), s % 2);
    rig_end("matmul");
}
END_TEST

/* In `exact` mode a row of a product does not depend on its company. */
START_TEST(a_row_alone_has_the_bits_that_it_has_in_company)
{
    static const struct shape some[] = {{100, 37, 576}, {17, 20, 100}, {51, 130, 33}};
    struct mmqi_mat x_row, y_row;
    struct both x, many, alone;
    struct both_weight w;

    rig_begin();
    for (int32_t i = 0; i < COUNT(some) && rig.mode == MMQI_MODE_EXACT; i++)
        for (int32_t f = 0; f < MMQI_N_FORMATS; f++, rig.n_cases++) {
            if (left_out(11, 1))
                continue;
            x = both_random(some[i].rows, some[i].k, 0, 1, 1.0f);
            many = both_new(some[i].rows, some[i].n, 0);
            alone = both_new(some[i].rows, some[i].n, 0);
            w = both_weight_new(f, some[i].n, some[i].k, 2);
            went("matmul",
                 rig.dev.ops->matmul(rig.dev.stream, &many.dev.mat, &x.dev.mat, &w.dev, NULL));
            for (int64_t r = 0; r < some[i].rows; r += r % 3 + 1) {
                x_row = one_row(&x.dev.mat, r);
                y_row = one_row(&alone.dev.mat, r);
                x_row.rows = y_row.rows = some[i].rows - r < r % 3 + 1 ? 1 : r % 3 + 1;
                went("matmul", rig.dev.ops->matmul(rig.dev.stream, &y_row, &x_row, &w.dev, NULL));
            }
            download(&rig.dev, &many.dev);
            download(&rig.dev, &alone.dev);
            for (int64_t r = 0; r < some[i].rows; r++)
                if (memcmp(at(&many.dev, r, 0), at(&alone.dev, r, 0), (size_t)some[i].n * 4) != 0 &&
                    mmqi_bits_from_f32(*at(&alone.dev, r, 0)) != POISON) {
                    bad("matmul %s [%d x %d] x %d: row %d differs alone", mmqi_format_info(f)->name,
                        (int)some[i].rows, (int)some[i].k, (int)some[i].n, (int)r);
                    break;
                }
            both_free(&x);
            both_free(&many);
            both_free(&alone);
            both_weight_free(&w);
        }
    rig_end("company");
}
END_TEST

/* ---- attention ---- */

static const struct scene scenes[] = {
    {1, 1, 1, 1, 1, 1, FULL, 1},          {1, 64, 1, 1, 16, 64, FULL, 1},
    {1, 65, 3, 1, 64, 16, FULL, 1},       {7, 63, 2, 2, 15, 10, FULL, 1},
    {13, 130, 6, 2, 33, 7, CAUSAL, 1},    {70, 70, 9, 3, 64, 100, CAUSAL, 1},
    {50, 197, 6, 6, 64, 197, FULL, 1},    {49, 300, 4, 4, 80, 64, WINDOW, 1},
    {60, 200, 5, 2, 24, 33, MIXED, 1},    {5, 90, 7, 3, 100, 16, MIXED, 1},
    {3, 40, 100, 2, 8, 40, CAUSAL, 1},    {4, 70, 2, 1, 256, 50, MIXED, 1},
    {4, 70, 2, 1, 260, 50, MIXED, 1},     {20, 150, 3, 3, 128, 64, CAUSAL, 40},
    {33, 600, 2, 2, 16, 128, WINDOW, 4},  {208, 208, 9, 3, 64, 32, CAUSAL, 1},
    {1, 1000, 32, 8, 128, 64, CAUSAL, 1}, {1, 3001, 12, 2, 128, 64, CAUSAL, 2},
    {2, 129, 32, 8, 128, 64, CAUSAL, 1},  {8, 700, 16, 16, 80, 64, CAUSAL, 1},
    {9, 700, 32, 8, 128, 64, CAUSAL, 1},  {130, 400, 32, 8, 128, 64, CAUSAL, 1},
    {257, 257, 16, 16, 64, 257, FULL, 1}, {256, 256, 16, 16, 80, 256, WINDOW, 1},
};

struct stage {
    struct both pages;
    struct pair table, spans;
    struct mmqi_kv dev, ref;
};

static struct stage stage_new(const struct scene *s)
{
    int64_t width = (int64_t)s->n_kv_heads * s->head_dim;
    int32_t n_pages = (s->slots + s->page_rows - 1) / s->page_rows;
    int32_t *table = malloc((size_t)n_pages * sizeof *table);
    struct mmqi_span *spans = malloc((size_t)s->rows * sizeof *spans);
    struct stage g;

    for (int32_t p = 0; p < n_pages; p++)
        table[p] = n_pages - 1 - p;
    for (int32_t r = 0; r < s->rows; r++)
        spans[r] = span_of(s, r);
    g.table = pair_copy(table, (size_t)n_pages * sizeof *table);
    g.spans = pair_copy(spans, (size_t)s->rows * sizeof *spans);
    g.pages = both_new(n_pages, 2 * s->page_rows * width, 12);
    g.ref = (struct mmqi_kv){g.pages.ref.mat.data, g.pages.ref.mat.stride, s->page_rows,
                             g.table.ref,          s->n_kv_heads,          s->head_dim};
    g.dev = g.ref;
    g.dev.pages = g.pages.dev.mat.data;
    g.dev.table = g.table.dev;
    free(table);
    free(spans);
    return g;
}

static void stage_free(struct stage *g)
{
    both_free(&g->pages);
    pair_free(&g->table);
    pair_free(&g->spans);
}

/* Keys and values of the slots that are read, in through store_kv; the pages end the same. */
static void store_on_both(struct stage *g, const struct scene *s)
{
    int64_t width = (int64_t)s->n_kv_heads * s->head_dim;
    int32_t *slots = malloc((size_t)s->slots * sizeof *slots), used = 0;
    struct both k, v;
    struct pair where;

    for (int32_t slot = s->slots - 1; slot >= 0; slot--)
        if (slot_used(s, slot))
            slots[used++] = slot;
    k = both_random(used, width, 1, 1, 1.0f);
    v = both_random(used, width, 2, 2, 1.0f);
    where = pair_copy(slots, (size_t)used * sizeof *slots);
    rig.ref.ops->store_kv(rig.ref.stream, &g->ref, &k.ref.mat, &v.ref.mat, where.ref);
    if (went("store_kv",
             rig.dev.ops->store_kv(rig.dev.stream, &g->dev, &k.dev.mat, &v.dev.mat, where.dev)))
        compare(&g->pages, NULL, NULL, "store_kv of %d slots, %d heads of %d", (int)used,
                (int)s->n_kv_heads, (int)s->head_dim);
    pair_free(&where);
    both_free(&k);
    both_free(&v);
    free(slots);
}

/*
 * Values lie in [-1, 1], so an error of e in every score moves a result by 2 e at most. A score is
 * scale * sum of head_dim products of q (up to q_scale) and k: e is some roundings of its length.
 */
static double attention_bound(const void *arg, int64_t row, int64_t col, double value)
{
    const struct scene *s = arg;
    double rounding = rig.mode == MMQI_MODE_EXACT ? u : BF16;

    (void)row;
    (void)col;
    return rounding * (4 * (1 + s->q_scale) + 8 * fabs(value)) +
           (rig.mode == MMQI_MODE_EXACT ? 16 * u : 0);
}

START_TEST(attention_is_near_over_pages_spans_and_heads)
{
    float scale;
    struct stage g;
    struct both q, y;

    rig_begin();
    for (int32_t i = 0; i < COUNT(scenes); i++) {
        const struct scene *s = &scenes[i];
        int64_t width = (int64_t)s->n_heads * s->head_dim;

        if (left_out(2, (double)s->rows * s->slots * s->n_heads * s->head_dim))
            continue;
        scale = 1.0f / sqrtf((float)s->head_dim);
        g = stage_new(s);
        store_on_both(&g, s);
        q = both_random(s->rows, width, i % 4, 3, s->q_scale);
        y = both_new(s->rows, width, i % 3);
        rig.ref.ops->attention(rig.ref.stream, &y.ref.mat, &q.ref.mat, s->n_heads, &g.ref,
                               g.spans.ref, scale);
        if (went("attention", rig.dev.ops->attention(rig.dev.stream, &y.dev.mat, &q.dev.mat,
                                                     s->n_heads, &g.dev, g.spans.dev, scale)))
            compare(&y, attention_bound, s, "attention %d of %d, %d/%d heads of %d, pages of %d",
                    (int)s->rows, (int)s->slots, (int)s->n_heads, (int)s->n_kv_heads,
                    (int)s->head_dim, (int)s->page_rows);
        both_free(&q);
        both_free(&y);
        stage_free(&g);
    }
    rig_end("attention");
}
END_TEST

/* ---- faults ---- */

static uint64_t taken(void)
{
    struct mmqi_device_memory memory;

    rig.dev.backend->memory(rig.dev.device, &memory);
    return memory.taken;
}

/* Opens a stream, uploads, computes, downloads; the first status that is none of success. */
static int32_t whole_life(const struct both_weight *w, float *sum)
{
    const struct mmqi_backend *backend = rig.dev.backend;
    struct mmqi_device *device = rig.dev.device;
    struct mmqi_stream_options needs = {.max_cols = 64, .max_product = 256, .max_heads = 64};
    float host[128] = {1.0f, 2.0f, 3.0f};
    struct mmqi_mat x = {NULL, 1, 64, 64}, y = x;
    struct mmqi_stream *stream = NULL;
    void *memory = NULL;
    int32_t status = backend->alloc(device, &memory, sizeof host);

    needs.mode = rig.mode;
    if (status == MMQ_OK)
        status = backend->stream_open(device, &needs, &stream);
    if (status == MMQ_OK)
        status = backend->upload(device, memory, host, sizeof host);
    x.data = memory;
    y.data = x.data + 64;
    if (status == MMQ_OK)
        status = rig.dev.ops->add(stream, &x, &x, &x);
    if (status == MMQ_OK)
        status = rig.dev.ops->activate(stream, &x, &x, MMQI_ACT_SILU);
    if (status == MMQ_OK)
        status = rig.dev.ops->matmul(stream, &y, &x, &w->dev, NULL);
    if (status == MMQ_OK)
        status = rig.dev.ops->add(stream, &y, &y, &y);
    if (status == MMQ_OK)
        status = rig.dev.ops->matmul(stream, &y, &x, &w->dev, NULL);
    if (status == MMQ_OK)
        status = backend->stream_wait(stream);
    if (status == MMQ_OK)
        status = backend->download(device, host, memory, sizeof host);
    *sum = host[0] + host[1] + host[2] + host[64] + host[127];
    backend->stream_close(stream);
    backend->free(device, memory);
    return status;
}

static void check_faults(const struct both_weight *w, int32_t kind, int64_t n)
{
    const struct mmqi_backend *backend = rig.dev.backend;
    uint64_t before = taken();
    float sum, again;
    int32_t status;

    whole_life(w, &sum);
    for (int64_t i = 1; i <= n; i++, rig.n_cases++) {
        backend->fault(rig.dev.device, (struct mmqi_fault){kind, i});
        status = whole_life(w, &again);
        backend->fault(rig.dev.device, (struct mmqi_fault){MMQI_FAULT_NONE, 0});
        if (status != MMQ_ERR_DEVICE && status != MMQ_ERR_NOMEM)
            bad("fault %d at call %d: status %d", (int)kind, (int)i, (int)status);
        if (taken() != before)
            bad("fault %d at call %d: %lld bytes are not given back", (int)kind, (int)i,
                (long long)(taken() - before));
        status = whole_life(w, &again);
        if (status != MMQ_OK || again != sum)
            bad("after fault %d at call %d: status %d: %s", (int)kind, (int)i, (int)status,
                mmqi_message());
    }
}

START_TEST(any_call_may_fail_and_the_next_works)
{
    const struct mmqi_backend *backend = rig.dev.backend;
    const struct mmqi_fault none = {MMQI_FAULT_NONE, 0}, count = {MMQI_FAULT_ALLOC, 0};
    int64_t n_calls, n_allocs;
    struct both_weight w;
    float sum;

    rig_begin();
    w = both_weight_new(MMQI_FORMAT_F32, 64, 64, 1);
    backend->fault(rig.dev.device, none);
    ck_assert_int_eq(whole_life(&w, &sum), MMQ_OK);
    n_calls = backend->fault(rig.dev.device, count);
    ck_assert_int_eq(whole_life(&w, &sum), MMQ_OK);
    n_allocs = backend->fault(rig.dev.device, none);
    /* The scene's own, the stream's scratch and its notes. */
    ck_assert(rig_on_cpu() || (n_calls > 5 && n_allocs == 3));
    check_faults(&w, MMQI_FAULT_ALLOC, n_allocs);
    check_faults(&w, MMQI_FAULT_CALL, n_calls);
    both_weight_free(&w);
    rig_end("faults");
}
END_TEST

/* Of the device itself: each call of it in turn, then with none. */
static void open_with_faults(int32_t kind, int64_t least)
{
    struct mmqi_device_options options = {.pool = rig.dev.pool, .host = &mmqi_backend_host};
    const char *colon = strchr(test_device(), ':');
    struct mmqi_device *device = NULL;
    int64_t nth = 0;

    options.index = colon ? atoi(colon + 1) : 0;
    while (!device) {
        int32_t status;

        options.fault = (struct mmqi_fault){kind, ++nth};
        status = rig.dev.backend->open(&device, &options);
        if (!!device != (status == MMQ_OK))
            bad("opening, fault %d at call %d: status %d with a device", (int)kind, (int)nth,
                (int)status);
        if (status != MMQ_OK && status != MMQ_ERR_DEVICE && status != MMQ_ERR_NOMEM)
            bad("opening, fault %d at call %d: status %d", (int)kind, (int)nth, (int)status);
        if (nth > 1000)
            break;
    }
    rig.dev.backend->close(device);
    rig.n_cases += nth;
    if (nth <= least || nth > 1000)
        bad("opening, fault %d: went well after %d", (int)kind, (int)nth);
}

START_TEST(a_device_that_cannot_be_opened_says_so)
{
    if (rig_on_cpu())
        SKIP("the CPU makes no calls");
    rig_begin();
    open_with_faults(MMQI_FAULT_CALL, 1);
    open_with_faults(MMQI_FAULT_ALLOC, 0);
    open_with_faults(MMQI_FAULT_LOST, 1);
    rig_end("opening");
}
END_TEST

/* The last test of all: on a device opened for it alone. */
START_TEST(a_lost_device_says_so_ever_after)
{
    const struct mmqi_backend *backend = rig.dev.backend;
    struct both_weight w;
    struct target other;
    float sum;

    if (rig_on_cpu())
        SKIP("the CPU is never lost");
    rig_begin();
    w = both_weight_new(MMQI_FORMAT_F32, 64, 64, 1);
    ck_assert_int_eq(target_device(&other, &rig.loaded, test_device(), MMQI_ISA_AUTO, 0), MMQ_OK);
    backend->fault(rig.dev.device, (struct mmqi_fault){MMQI_FAULT_LOST, 6});
    ck_assert_int_eq(whole_life(&w, &sum), MMQ_ERR_DEVICE);
    ck_assert_ptr_nonnull(strstr(mmqi_message(), "lost"));
    backend->fault(rig.dev.device, (struct mmqi_fault){MMQI_FAULT_NONE, 0});
    ck_assert_int_eq(whole_life(&w, &sum), MMQ_ERR_DEVICE);
    /* The fault was made up: another handle of the device works. */
    ck_assert_int_eq(backend->upload(other.device, NULL, NULL, 0), MMQ_OK);
    backend->close(other.device);
    mmqi_pool_free(other.pool);
    both_weight_free(&w);
    rig_end("lost");
}
END_TEST

/* All in this process: the device is opened once, and a test that fails does not end the others. */
static int run_modes(const char *mode)
{
    Suite *suite = suite_create(mode);
    TCase *tcase = tcase_create("ops");
    SRunner *runner = srunner_create(suite);
    int failed;

    tcase_add_test(tcase, embed_gives_the_same_bits_in_every_format);
    tcase_add_test(tcase, place_rows_and_copy_give_the_same_bits);
    tcase_add_test(tcase, interpolate_gives_the_same_bits);
    tcase_add_test(tcase, add_gives_the_same_bits);
    tcase_add_test(tcase, norms_are_near);
    tcase_add_test(tcase, activations_and_gates_are_near);
    tcase_add_test(tcase, activations_take_any_size_in_place);
    tcase_add_test(tcase, rope_is_near);
    tcase_add_test(tcase, patches_give_the_same_bits);
    tcase_add_test(tcase, pick_takes_the_same);
    tcase_add_test(tcase, products_are_near_in_every_format_and_shape);
    tcase_add_test(tcase, products_of_real_widths_are_near);
    tcase_add_test(tcase, a_row_alone_has_the_bits_that_it_has_in_company);
    tcase_add_test(tcase, attention_is_near_over_pages_spans_and_heads);
    tcase_add_test(tcase, any_call_may_fail_and_the_next_works);
    tcase_add_test(tcase, a_device_that_cannot_be_opened_says_so);
    tcase_add_test(tcase, a_lost_device_says_so_ever_after);
    suite_add_tcase(suite, tcase);
    srunner_set_fork_status(runner, CK_NOFORK);
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}

int main(void)
{
    static const struct {
        const char *name;
        int32_t mode;
    } modes[] = {{"exact", MMQI_MODE_EXACT}, {"fast", MMQI_MODE_FAST}};
    int32_t status, failed = 0;

    setvbuf(stdout, NULL, _IOLBF, 0);
    for (int32_t i = 0; i < COUNT(modes); i++) {
        status = rig_open(modes[i].mode);
        if (status == MMQ_OK) {
            printf("%s, %s mode\n", rig.dev.backend->describe(rig.dev.device), modes[i].name);
            failed |= run_modes(modes[i].name);
        } else {
            printf("%s: %s\n", status == MMQ_ERR_UNSUPPORTED ? "SKIPPED" : "FAIL", mmqi_message());
            failed |= status != MMQ_ERR_UNSUPPORTED;
        }
        rig_close();
    }
    mmqi_loader_close(&rig.loaded);
    return failed != 0;
}
