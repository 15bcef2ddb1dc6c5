/* The attention and store_kv ops of every instruction set against softmax in double. */
#include "ops/harness.h"
#include "ops/scene.h"

/* Around the edges of: blocks of 64 slots, vectors of 16, groups of 3 and 6, tasks of 48, heads of
 * 256. */
static const struct scene scenes[] = {
    {1, 1, 1, 1, 1, 1, FULL, 1},         {1, 64, 1, 1, 16, 64, FULL, 1},
    {1, 65, 3, 1, 64, 16, FULL, 1},      {7, 63, 2, 2, 15, 10, FULL, 1},
    {13, 130, 6, 2, 33, 7, CAUSAL, 1},   {70, 70, 9, 3, 64, 100, CAUSAL, 1},
    {50, 197, 6, 6, 64, 197, FULL, 1},   {49, 300, 4, 4, 80, 64, WINDOW, 1},
    {60, 200, 5, 2, 24, 33, MIXED, 1},   {5, 90, 7, 3, 100, 16, MIXED, 1},
    {3, 40, 100, 2, 8, 40, CAUSAL, 1},   {4, 70, 2, 1, 256, 50, MIXED, 1},
    {4, 70, 2, 1, 260, 50, MIXED, 1},    {20, 150, 3, 3, 128, 64, CAUSAL, 40},
    {33, 600, 2, 2, 16, 128, WINDOW, 4}, {208, 208, 9, 3, 64, 32, CAUSAL, 1},
    {1, 1000, 4, 1, 128, 64, FULL, 1},   {3, 600, 7, 2, 80, 64, CAUSAL, 1},
    {8, 530, 2, 1, 128, 64, MIXED, 1},
};
enum { N_SCENES = sizeof scenes / sizeof *scenes, MAX_COLS = 1024 };

struct stage {
    struct matrix q, y, pages;
    struct mmqi_kv kv;
    struct mmqi_span *spans, *device_spans;
    int32_t *table;
    float *k, *v; /* [slots, n_kv_heads * head_dim], here */
    float scale;
};

/* Keys and values go in through store_kv, into pages in a shuffled order. */
static void fill_pages(struct target *t, struct stage *g, const struct scene *s)
{
    int64_t width = (int64_t)s->n_kv_heads * s->head_dim;
    int32_t n_pages = (s->slots + s->page_rows - 1) / s->page_rows, used = 0, *slots;
    int32_t *table = malloc((size_t)n_pages * sizeof *table);
    struct matrix k, v;

    for (int32_t p = 0; p < n_pages; p++)
        table[p] = n_pages - 1 - p;
    g->table = device_copy(t, table, (size_t)n_pages * sizeof *table);
    g->pages = matrix_new(t, n_pages, 2 * s->page_rows * width, 11);
    g->kv = (struct mmqi_kv){g->pages.mat.data, g->pages.mat.stride, s->page_rows,
                             g->table,          s->n_kv_heads,       s->head_dim};
    slots = malloc((size_t)s->slots * sizeof *slots);
    k = matrix_new(t, s->slots, width, 1);
    v = matrix_new(t, s->slots, width, 2);
    g->k = calloc((size_t)(s->slots * width), sizeof(float));
    g->v = calloc((size_t)(s->slots * width), sizeof(float));
    for (int32_t slot = 0; slot < s->slots; slot++) {
        if (!slot_used(s, slot))
            continue;
        slots[used] = slot;
        for (int64_t c = 0; c < width; c++) {
            *at(&k, used, c) = g->k[slot * width + c] = random_at(1, (uint64_t)(slot * width + c));
            *at(&v, used, c) = g->v[slot * width + c] = random_at(2, (uint64_t)(slot * width + c));
        }
        used++;
    }
    upload(t, &k);
    upload(t, &v);
    k.mat.rows = v.mat.rows = used;
    int32_t *device_slots = device_copy(t, slots, (size_t)used * sizeof *slots);
    ck_assert_int_eq(t->ops->store_kv(t->stream, &g->kv, &k.mat, &v.mat, device_slots), MMQ_OK);
    matrix_read(t, &g->pages);
    device_free(t, device_slots);
    matrix_free(t, &k);
    matrix_free(t, &v);
    free(slots);
    free(table);
}

static struct stage stage_new(struct target *t, const struct scene *s)
{
    struct stage g = {.scale = 1.0f / sqrtf((float)s->head_dim)};
    int64_t width = (int64_t)s->n_heads * s->head_dim;

    fill_pages(t, &g, s);
    g.q = matrix_random(t, s->rows, width, 3, 3, s->q_scale);
    g.y = matrix_new(t, s->rows, width, 5);
    g.spans = malloc((size_t)s->rows * sizeof *g.spans);
    for (int32_t r = 0; r < s->rows; r++)
        g.spans[r] = span_of(s, r);
    g.device_spans = device_copy(t, g.spans, (size_t)s->rows * sizeof *g.spans);
    return g;
}

static void stage_run(struct target *t, struct stage *g, const struct scene *s)
{
    ck_assert_int_eq(t->ops->attention(t->stream, &g->y.mat, &g->q.mat, s->n_heads, &g->kv,
                                       g->device_spans, g->scale),
                     MMQ_OK);
    matrix_read(t, &g->y);
}

static void stage_free(struct target *t, struct stage *g)
{
    matrix_free(t, &g->q);
    matrix_free(t, &g->y);
    matrix_free(t, &g->pages);
    device_free(t, g->table);
    device_free(t, g->device_spans);
    free(g->spans);
    free(g->k);
    free(g->v);
}

/*
 * With every score within e of the true one, weights are within a factor 1 +- 2 e, and the sums of
 * n of them add (n + 16) u; e comes from head_dim additions of products, exp and the maximum.
 */
static void check_query(const struct stage *g, const struct scene *s, int32_t r, int32_t h)
{
    const double u = 0x1p-24;
    struct mmqi_span span = g->spans[r];
    int64_t kv_head = (int64_t)h * s->n_kv_heads / s->n_heads, width = s->n_kv_heads * s->head_dim;
    double t[1024], most = -INFINITY, sum = 0, size = 0, e = 0, y, magnitude, bound;
    const float *q = at(&g->q, r, (int64_t)h * s->head_dim);
    const float *k = g->k + kv_head * s->head_dim, *v = g->v + kv_head * s->head_dim;

    for (int32_t j = span.begin; j < span.end; j++) {
        t[j] = size = 0;
        for (int32_t d = 0; d < s->head_dim; d++) {
            t[j] += (double)q[d] * k[j * width + d] * g->scale;
            size += fabs((double)q[d] * k[j * width + d] * g->scale);
        }
        most = t[j] > most ? t[j] : most;
        e = (s->head_dim + 4) * u * size > e ? (s->head_dim + 4) * u * size : e;
    }
    for (int32_t j = span.begin; j < span.end; j++)
        sum += t[j] = exp(t[j] - most);
    for (int32_t d = 0; d < s->head_dim; d++) {
        y = magnitude = 0;
        for (int32_t j = span.begin; j < span.end; j++) {
            y += t[j] / sum * v[j * width + d];
            magnitude += fabs(t[j] / sum * v[j * width + d]);
        }
        bound = (4 * e + (2 * (span.end - span.begin) + 32) * u) * magnitude + 1e-30;
        ck_assert_msg(fabs(*at(&g->y, r, (int64_t)h * s->head_dim + d) - y) <= bound,
                      "row %d of %d, head %d of %d, element %d: %.9g, not %.9g", r, s->rows, h,
                      s->n_heads, d, (double)*at(&g->y, r, (int64_t)h * s->head_dim + d), y);
    }
}

/* In `fast` mode a device may round the operands of many rows. */
static bool is_f32(const struct scene *s)
{
    return test_mode() == MMQI_MODE_EXACT || s->rows <= 8;
}

START_TEST(attention_is_right_over_pages_spans_and_heads)
{
    struct target t;
    struct stage g;

    if (!target_open(&t, all_isas[_i], 2, MAX_COLS))
        return;
    for (int32_t i = 0; i < N_SCENES; i++) {
        if (!is_f32(&scenes[i]))
            continue;
        g = stage_new(&t, &scenes[i]);
        stage_run(&t, &g, &scenes[i]);
        for (int32_t r = 0; r < scenes[i].rows; r++)
            for (int32_t h = 0; h < scenes[i].n_heads; h++)
                check_query(&g, &scenes[i], r, h);
        stage_free(&t, &g);
    }
    target_close(&t);
}
END_TEST

START_TEST(an_empty_span_gives_zeros)
{
    static const struct scene none = {2, 10, 2, 1, 20, 10, FULL, 1};
    struct target t;
    struct stage g;

    if (!target_open(&t, all_isas[_i], 1, MAX_COLS))
        return;
    g = stage_new(&t, &none);
    g.spans[0] = (struct mmqi_span){4, 4};
    g.spans[1] = (struct mmqi_span){7, 3};
    ck_assert_int_eq(t.backend->upload(t.device, g.device_spans, g.spans, 2 * sizeof *g.spans),
                     MMQ_OK);
    stage_run(&t, &g, &none);
    for (int64_t i = 0; i < 2 * 40; i++)
        ck_assert(*at(&g.y, i / 40, i % 40) == 0.0f);
    stage_free(&t, &g);
    target_close(&t);
}
END_TEST

START_TEST(a_row_alone_gives_the_bits_it_has_in_company)
{
    struct target t;
    struct stage g;
    struct matrix alone;
    struct mmqi_mat q, y;

    if (!target_open(&t, all_isas[_i], 1, MAX_COLS))
        return;
    for (int32_t i = 0; i < N_SCENES; i++) {
        if (!is_f32(&scenes[i]))
            continue;
        g = stage_new(&t, &scenes[i]);
        stage_run(&t, &g, &scenes[i]);
        alone = matrix_new(&t, g.y.mat.rows, g.y.mat.cols, 0);
        for (int32_t r = 0; r < scenes[i].rows; r++) {
            q = one_row(&g.q.mat, r);
            y = one_row(&alone.mat, r);
            ck_assert_int_eq(t.ops->attention(t.stream, &y, &q, scenes[i].n_heads, &g.kv,
                                              g.device_spans + r, g.scale),
                             MMQ_OK);
        }
        matrix_read(&t, &alone);
        ck_assert(same_bits(&alone, &g.y));
        matrix_free(&t, &alone);
        stage_free(&t, &g);
    }
    target_close(&t);
}
END_TEST

/* The bits of one scene; `out` [rows * cols]. */
static bool scene_on(int32_t isa, int32_t threads, const struct scene *s, float *out)
{
    struct target t;
    struct stage g;

    if (!target_open(&t, isa, threads, MAX_COLS))
        return false;
    g = stage_new(&t, s);
    stage_run(&t, &g, s);
    for (int32_t r = 0; r < s->rows; r++)
        memcpy(out + r * g.y.mat.cols, at(&g.y, r, 0), (size_t)g.y.mat.cols * sizeof(float));
    stage_free(&t, &g);
    target_close(&t);
    return true;
}

/* Both ways to compute each scene agree; page_rows 0: as the scene says. */
static void check_same(int32_t isa_a, int32_t threads_a, int32_t isa_b, int32_t threads_b,
                       int32_t page_rows)
{
    struct scene other;
    size_t bytes;
    float *a, *b;

    for (int32_t i = 0; i < N_SCENES; i++) {
        other = scenes[i];
        if (page_rows)
            other.page_rows = page_rows;
        bytes = (size_t)(other.rows * other.n_heads * other.head_dim) * sizeof(float);
        a = calloc(1, bytes);
        b = calloc(1, bytes);
        if (scene_on(isa_a, threads_a, &scenes[i], a) && scene_on(isa_b, threads_b, &other, b))
            ck_assert_int_eq(memcmp(a, b, bytes), 0);
        free(a);
        free(b);
    }
}

START_TEST(neither_threads_nor_the_size_of_pages_change_a_bit)
{
    check_same(all_isas[_i], 1, all_isas[_i], 2, 0);
    check_same(all_isas[_i], 1, all_isas[_i], 5, 48);
}
END_TEST

START_TEST(avx2_and_avx512_give_the_same_bits)
{
    check_same(MMQI_ISA_AVX2, 2, MMQI_ISA_AVX512, 2, 0);
}
END_TEST

START_TEST(a_missing_page_table_is_the_identity)
{
    static const struct scene s = {9, 100, 4, 2, 32, 25, CAUSAL, 1};
    int32_t identity[] = {0, 1, 2, 3};
    struct target t;
    struct stage g;
    struct matrix first;
    int32_t *table;

    if (!target_open(&t, all_isas[_i], 1, MAX_COLS))
        return;
    g = stage_new(&t, &s);
    table = device_copy(&t, identity, sizeof identity);
    g.kv.table = table; /* other pages than were stored in, but the same ones in both runs */
    for (int64_t i = 0; i < g.pages.mat.rows * g.pages.mat.cols; i++)
        *at(&g.pages, i / g.pages.mat.cols, i % g.pages.mat.cols) = random_at(9, (uint64_t)i);
    upload(&t, &g.pages);
    stage_run(&t, &g, &s);
    first = g.y;
    g.y = matrix_new(&t, first.mat.rows, first.mat.cols, 5);
    g.kv.table = NULL;
    stage_run(&t, &g, &s);
    ck_assert(same_bits(&first, &g.y));
    device_free(&t, table);
    matrix_free(&t, &first);
    stage_free(&t, &g);
    target_close(&t);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("attention");
    TCase *tcase = tcase_create("attention");

    tcase_set_timeout(tcase, 300);
    tcase_add_loop_test(tcase, attention_is_right_over_pages_spans_and_heads, 0, N_ISAS);
    tcase_add_loop_test(tcase, an_empty_span_gives_zeros, 0, N_ISAS);
    tcase_add_loop_test(tcase, a_row_alone_gives_the_bits_it_has_in_company, 0, N_ISAS);
    tcase_add_loop_test(tcase, neither_threads_nor_the_size_of_pages_change_a_bit, 0, N_ISAS);
    tcase_add_test(tcase, avx2_and_avx512_give_the_same_bits);
    tcase_add_loop_test(tcase, a_missing_page_table_is_the_identity, 0, N_ISAS);
    suite_add_tcase(suite, tcase);
    return run_suite(suite);
}
