/* The matmul op of every instruction set against products summed in double. */
#include "ops/harness.h"

enum { N_FORMATS = MMQI_N_FORMATS }; /* every format, by its number */

struct shape {
    int64_t rows, n, k; /* of x, of W */
};

/* Around the edges of: rows per tile (3), few rows (4), row blocks (48); panels (8), chunks (32);
 * lanes (16), runs of 64; and widths of real models. */
static const struct shape shapes[] = {
    {1, 1, 1},     {1, 8, 16},    {2, 7, 15},    {3, 9, 17},    {4, 31, 63},   {5, 33, 64},
    {6, 8, 65},    {7, 17, 80},   {8, 40, 127},  {9, 65, 128},  {47, 24, 129}, {48, 16, 48},
    {49, 33, 192}, {51, 9, 100},  {1, 130, 576}, {3, 70, 384},  {13, 72, 576}, {5, 9, 1536},
    {97, 8, 33},   {2, 300, 640}, {1, 65, 1},    {6, 260, 96},  {5, 11, 2080}, {1, 3, 4112},
    {6, 9, 8200},  {5, 3, 16384}, {7, 5, 16385}, {1, 2, 20000},
};
enum { N_SHAPES = sizeof shapes / sizeof *shapes, MAX_COLS = 20000 };

struct product {
    struct matrix x, y;
    struct weight w;
    float *bias; /* on the device, or NULL */
    float *bias_host;
};

static struct product product_new(struct target *t, const struct shape *s, int32_t format,
                                  bool with_bias)
{
    struct product p = {0};

    p.x = matrix_random(t, s->rows, s->k, 3, 1, 1.0f);
    p.y = matrix_new(t, s->rows, s->n, 5);
    p.w = weight_new(t, format, s->n, s->k, 2);
    if (with_bias) {
        p.bias_host = malloc((size_t)s->n * sizeof(float));
        for (int64_t i = 0; i < s->n; i++)
            p.bias_host[i] = random_at(3, (uint64_t)i);
        p.bias = device_copy(t, p.bias_host, (size_t)s->n * sizeof(float));
    }
    return p;
}

static void product_run(struct target *t, struct product *p)
{
    ck_assert_int_eq(t->ops->matmul(t->stream, &p->y.mat, &p->x.mat, &p->w.mat, p->bias), MMQ_OK);
    matrix_read(t, &p->y);
}

static void product_free(struct target *t, struct product *p)
{
    matrix_free(t, &p->x);
    matrix_free(t, &p->y);
    weight_free(t, &p->w);
    if (p->bias)
        device_free(t, p->bias);
    free(p->bias_host);
}

/* |error| <= (k + 8) u sum |x w| + 2 u |y|, whatever the order of k f32 additions. */
static void check_product(const struct product *p)
{
    const double u = 0x1p-24;
    int64_t k = p->w.mat.cols;
    double sum, size, term, bound;

    for (int64_t r = 0; r < p->y.mat.rows; r++)
        for (int64_t n = 0; n < p->y.mat.cols; n++) {
            sum = p->bias_host ? p->bias_host[n] : 0.0;
            size = fabs(sum);
            for (int64_t i = 0; i < k; i++) {
                term = (double)*at(&p->x, r, i) * p->w.values[n * k + i];
                sum += term;
                size += fabs(term);
            }
            bound = (double)(k + 8) * u * size + 2 * u * fabs(sum);
            ck_assert_msg(fabs(*at(&p->y, r, n) - sum) <= bound,
                          "format %d, [%lld x %lld] x [%lld]: y[%lld, %lld] is %.9g, not %.9g",
                          (int)p->w.mat.format, (long long)p->y.mat.rows, (long long)k,
                          (long long)p->y.mat.cols, (long long)r, (long long)n,
                          (double)*at(&p->y, r, n), sum);
        }
}

START_TEST(products_are_right_in_every_format_and_shape)
{
    struct target t;
    struct product p;

    if (!target_open(&t, all_isas[_i], 2, MAX_COLS))
        return;
    for (int32_t s = 0; s < N_SHAPES; s++)
        for (int32_t f = 0; f < N_FORMATS; f++) {
            p = product_new(&t, &shapes[s], f, (s + f) % 2);
            product_run(&t, &p);
            check_product(&p);
            product_free(&t, &p);
        }
    target_close(&t);
}
END_TEST

/* x picks one column: whatever the kernel, y is the weight as the format's table unpacks it. */
START_TEST(kernels_see_the_same_weights_as_the_format_table)
{
    static const struct shape small[] = {{1, 9, 64}, {6, 9, 64},  {2, 5, 70}, {5, 12, 35},
                                         {3, 4, 16}, {1, 3, 192}, {5, 3, 192}};
    struct target t;
    struct product p;
    const struct shape *s;

    if (!target_open(&t, all_isas[_i], 1, 192))
        return;
    for (size_t i = 0; i < sizeof small / sizeof *small; i++)
        for (int32_t f = 0; f < N_FORMATS; f++) {
            s = &small[i];
            p = product_new(&t, s, f, false);
            for (int64_t k = 0; k < s->k; k++) {
                for (int64_t r = 0; r < s->rows; r++)
                    for (int64_t c = 0; c < s->k; c++)
                        *at(&p.x, r, c) = c == k;
                upload(&t, &p.x);
                product_run(&t, &p);
                for (int64_t r = 0; r < s->rows; r++)
                    for (int64_t n = 0; n < s->n; n++)
                        ck_assert(*at(&p.y, r, n) == p.w.values[n * s->k + k]);
            }
            product_free(&t, &p);
        }
    target_close(&t);
}
END_TEST

START_TEST(a_row_alone_gives_the_bits_it_has_in_company)
{
    static const struct shape some[] = {{100, 37, 576}, {7, 20, 100}, {51, 9, 33}, {6, 5, 16390}};
    struct target t;
    struct product p;
    struct matrix few;
    struct mmqi_mat x, y;

    if (!target_open(&t, all_isas[_i], 1, MAX_COLS))
        return;
    for (size_t i = 0; i < sizeof some / sizeof *some; i++)
        for (int32_t f = 0; f < N_FORMATS; f++) {
            p = product_new(&t, &some[i], f, true);
            product_run(&t, &p);
            few = matrix_new(&t, some[i].rows, some[i].n, 0);
            /* calls of 1, 2, 3 ... 6 rows, then again */
            for (int64_t r = 0, n = 1; r < some[i].rows; r += n, n = n % 6 + 1) {
                n = n < some[i].rows - r ? n : some[i].rows - r;
                x = one_row(&p.x.mat, r);
                y = one_row(&few.mat, r);
                x.rows = y.rows = n;
                ck_assert_int_eq(t.ops->matmul(t.stream, &y, &x, &p.w.mat, p.bias), MMQ_OK);
            }
            matrix_read(&t, &few);
            ck_assert(same_bits(&few, &p.y));
            matrix_free(&t, &few);
            product_free(&t, &p);
        }
    target_close(&t);
}
END_TEST

/* The bits of one product on a target of so many threads. */
static bool product_on(int32_t isa, int32_t threads, const struct shape *s, int32_t format,
                       float *out)
{
    struct target t;
    struct product p;

    if (!target_open(&t, isa, threads, MAX_COLS))
        return false;
    p = product_new(&t, s, format, true);
    product_run(&t, &p);
    for (int64_t r = 0; r < s->rows; r++)
        memcpy(out + r * s->n, at(&p.y, r, 0), (size_t)s->n * sizeof(float));
    product_free(&t, &p);
    target_close(&t);
    return true;
}

static void check_same(int32_t isa_a, int32_t threads_a, int32_t isa_b, int32_t threads_b)
{
    static const struct shape some[] = {{1, 700, 576}, {3, 260, 130}, {60, 300, 192}, {9, 33, 77}};
    size_t bytes;
    float *a, *b;

    for (size_t i = 0; i < sizeof some / sizeof *some; i++)
        for (int32_t f = 0; f < N_FORMATS; f++) {
            bytes = (size_t)(some[i].rows * some[i].n) * sizeof(float);
            a = calloc(1, bytes);
            b = calloc(1, bytes);
            if (product_on(isa_a, threads_a, &some[i], f, a) &&
                product_on(isa_b, threads_b, &some[i], f, b))
                ck_assert_int_eq(memcmp(a, b, bytes), 0);
            free(a);
            free(b);
        }
}

START_TEST(the_number_of_threads_changes_no_bit)
{
    check_same(all_isas[_i], 1, all_isas[_i], 2);
    check_same(all_isas[_i], 1, all_isas[_i], 5);
}
END_TEST

START_TEST(avx2_and_avx512_give_the_same_bits)
{
    check_same(MMQI_ISA_AVX2, 2, MMQI_ISA_AVX512, 2);
}
END_TEST

START_TEST(no_rows_write_nothing)
{
    static const struct shape none = {0, 9, 32};
    struct target t;
    struct product p;

    if (!target_open(&t, all_isas[_i], 2, 64))
        return;
    p = product_new(&t, &none, MMQI_FORMAT_F32, true);
    product_run(&t, &p);
    product_free(&t, &p);
    target_close(&t);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("matmul");
    TCase *tcase = tcase_create("matmul");

    tcase_set_timeout(tcase, 300);
    tcase_add_loop_test(tcase, products_are_right_in_every_format_and_shape, 0, N_ISAS);
    tcase_add_loop_test(tcase, kernels_see_the_same_weights_as_the_format_table, 0, N_ISAS);
    tcase_add_loop_test(tcase, a_row_alone_gives_the_bits_it_has_in_company, 0, N_ISAS);
    tcase_add_loop_test(tcase, the_number_of_threads_changes_no_bit, 0, N_ISAS);
    tcase_add_test(tcase, avx2_and_avx512_give_the_same_bits);
    tcase_add_loop_test(tcase, no_rows_write_nothing, 0, N_ISAS);
    suite_add_tcase(suite, tcase);
    return run_suite(suite);
}
