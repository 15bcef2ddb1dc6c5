/*
 * The graph: builder laws, the memory plan against a brute-force simulation,
 * and the plain executor with a table of ops that only take notes.
 */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/status.h"
#include "graph/graph.h"
#include "graph/op.h"

static const struct mmqi_extent main_rows = {MMQI_ROWS_MAIN, 1, 0};

static struct mmqi_extent constant(int64_t rows)
{
    return (struct mmqi_extent){MMQI_ROWS_CONST, 0, rows};
}

static struct mmqi_graph *new_graph(void)
{
    struct mmqi_graph *graph;

    ck_assert_int_eq(mmqi_graph_create(&graph), MMQ_OK);
    return graph;
}

static void unary(struct mmqi_graph *graph, int32_t op, int32_t out, int32_t in)
{
    struct mmqi_node node = mmqi_node(op);

    node.out = out;
    node.in[0] = in;
    node.weight = mmqi_op_info(op)->needs_weight ? 0 : -1;
    node.bias = mmqi_op_info(op)->needs_bias ? 0 : -1;
    node.act = MMQI_ACT_SILU;
    mmqi_graph_node(graph, &node);
}

static void binary(struct mmqi_graph *graph, int32_t op, int32_t out, int32_t a, int32_t b)
{
    struct mmqi_node node = mmqi_node(op);

    node.out = out;
    node.in[0] = a;
    node.in[1] = b;
    node.act = MMQI_ACT_SILU;
    mmqi_graph_node(graph, &node);
}

static void embed(struct mmqi_graph *graph, int32_t out)
{
    struct mmqi_node node = mmqi_node(MMQI_OP_EMBED);

    node.out = out;
    node.weight = 0;
    mmqi_graph_node(graph, &node);
}

/* ---- the builder ---- */

static void finish_fails_with(struct mmqi_graph *graph, const char *text)
{
    ck_assert_int_eq(mmqi_graph_finish(graph), MMQ_ERR_INTERNAL);
    ck_assert_msg(strstr(mmqi_message(), text) != NULL, "'%s' lacks '%s'", mmqi_message(), text);
    mmqi_graph_free(graph);
}

START_TEST(refuses_a_value_read_before_it_is_written)
{
    struct mmqi_graph *graph = new_graph();
    int32_t a = mmqi_graph_value(graph, "early", main_rows, 8);
    int32_t b = mmqi_graph_value(graph, "b", main_rows, 8);

    mmqi_graph_begin_segment(graph, "one");
    unary(graph, MMQI_OP_ACTIVATE, b, a);
    mmqi_graph_end_segment(graph, NULL, 0);
    finish_fails_with(graph, "'early' before it is written");
}
END_TEST

START_TEST(refuses_a_value_that_crosses_segments_undeclared)
{
    struct mmqi_graph *graph = new_graph();
    int32_t a = mmqi_graph_value(graph, "hidden", main_rows, 8);
    int32_t b = mmqi_graph_value(graph, "b", main_rows, 8);

    mmqi_graph_begin_segment(graph, "one");
    embed(graph, a);
    mmqi_graph_end_segment(graph, NULL, 0);
    mmqi_graph_begin_segment(graph, "two");
    unary(graph, MMQI_OP_ACTIVATE, b, a);
    mmqi_graph_end_segment(graph, &b, 1);
    finish_fails_with(graph, "two reads 'hidden', which is no live-out of one");
}
END_TEST

START_TEST(lets_a_declared_value_cross_segments)
{
    struct mmqi_graph *graph = new_graph();
    int32_t a = mmqi_graph_value(graph, "hidden", main_rows, 8);
    int32_t b = mmqi_graph_value(graph, "b", main_rows, 8);

    mmqi_graph_begin_segment(graph, "one");
    embed(graph, a);
    mmqi_graph_end_segment(graph, &a, 1);
    mmqi_graph_begin_segment(graph, "two");
    unary(graph, MMQI_OP_ACTIVATE, b, a);
    mmqi_graph_end_segment(graph, &b, 1);
    ck_assert_int_eq(mmqi_graph_finish(graph), MMQ_OK);
    ck_assert_int_eq(mmqi_graph_n_segments(graph), 2);
    ck_assert_str_eq(mmqi_graph_segment_at(graph, 1)->name, "two");
    ck_assert_int_eq(mmqi_graph_n_nodes(graph), 2);
    mmqi_graph_free(graph);
}
END_TEST

START_TEST(refuses_shapes_that_do_not_fit)
{
    struct mmqi_graph *graph = new_graph();
    int32_t a = mmqi_graph_value(graph, "a", main_rows, 8);
    int32_t b = mmqi_graph_value(graph, "b", main_rows, 9);

    mmqi_graph_begin_segment(graph, "one");
    embed(graph, a);
    unary(graph, MMQI_OP_RMS_NORM, b, a);
    mmqi_graph_end_segment(graph, NULL, 0);
    finish_fails_with(graph, "one: the shapes of rms_norm");
}
END_TEST

/* By an index that is no order of rows; onto rows that are not the index's; from a table that is no
 * weight's, and one of another width. */
START_TEST(refuses_orders_and_tables_that_do_not_fit)
{
    struct mmqi_extent image = {MMQI_ROWS_IMAGE, 1, 0};
    struct mmqi_graph *graph = new_graph();
    int32_t picture = mmqi_graph_input(graph, "picture", 0, image, 8);
    int32_t ordered = mmqi_graph_value(graph, "ordered", image, 8);
    int32_t rows = mmqi_graph_value(graph, "rows", main_rows, 8);
    int32_t table = mmqi_graph_weight_value(graph, 0, 9, _i == 3 ? 7 : 8);
    struct mmqi_node node = mmqi_node(_i < 2 ? MMQI_OP_GATHER : MMQI_OP_INTERPOLATE);

    mmqi_graph_begin_segment(graph, "one");
    embed(graph, rows);
    node.in[0] = _i < 3 ? picture : table;
    node.out = _i == 0 ? ordered : rows;
    node.index = _i == 0 ? MMQI_INDEX_SLOTS : MMQI_INDEX_ORDER;
    mmqi_graph_node(graph, &node);
    finish_fails_with(graph, _i < 2 ? "the shapes of gather" : "the shapes of interpolate");
}
END_TEST

START_TEST(refuses_heads_that_do_not_make_a_row)
{
    struct mmqi_graph *graph = new_graph();
    int32_t q = mmqi_graph_value(graph, "q", main_rows, 24);
    struct mmqi_node node = mmqi_node(MMQI_OP_ROPE);

    mmqi_graph_begin_segment(graph, "one");
    embed(graph, q);
    node.out = q;
    node.weight = 0;
    node.n_heads = 3;
    node.head_dim = 6;
    node.n_axes = 1;
    mmqi_graph_node(graph, &node);
    finish_fails_with(graph, "one: the shapes of rope");
}
END_TEST

START_TEST(refuses_several_axes_without_a_word_on_which_frequency_reads_which)
{
    struct mmqi_graph *graph = new_graph();
    int32_t q = mmqi_graph_value(graph, "q", main_rows, 24);
    struct mmqi_node node = mmqi_node(MMQI_OP_ROPE);

    mmqi_graph_begin_segment(graph, "one");
    embed(graph, q);
    node.out = q;
    node.weight = 0;
    node.n_heads = 3;
    node.head_dim = 8;
    node.n_axes = 3;
    mmqi_graph_node(graph, &node);
    finish_fails_with(graph, "one: the shapes of rope");
}
END_TEST

START_TEST(refuses_a_matmul_over_its_own_input)
{
    struct mmqi_graph *graph = new_graph();
    int32_t a = mmqi_graph_value(graph, "a", main_rows, 8);

    mmqi_graph_begin_segment(graph, "one");
    embed(graph, a);
    unary(graph, MMQI_OP_MATMUL, a, a);
    mmqi_graph_end_segment(graph, NULL, 0);
    finish_fails_with(graph, "matmul writes over its own input");
}
END_TEST

START_TEST(refuses_to_write_an_input)
{
    struct mmqi_graph *graph = new_graph();
    int32_t in = mmqi_graph_input(graph, "in", 0, main_rows, 8);

    mmqi_graph_begin_segment(graph, "one");
    embed(graph, in);
    mmqi_graph_end_segment(graph, NULL, 0);
    finish_fails_with(graph, "writes an input");
}
END_TEST

START_TEST(refuses_a_slice_that_leaves_its_base)
{
    struct mmqi_graph *graph = new_graph();
    int32_t a = mmqi_graph_value(graph, "a", (struct mmqi_extent){MMQI_ROWS_MAIN, 1, 1}, 8);

    ck_assert_int_ge(mmqi_graph_slice(graph, a, 1, main_rows), 0);
    ck_assert_int_ge(mmqi_graph_slice(graph, a, 0, constant(1)), 0);
    ck_assert_int_eq(mmqi_graph_slice(graph, a, 2, main_rows), -1);
    finish_fails_with(graph, "a slice of 'a' leaves it");
}
END_TEST

START_TEST(refuses_impossible_extents)
{
    struct mmqi_graph *graph = new_graph();

    ck_assert_int_eq(mmqi_graph_value(graph, "bad", constant(-1), 8), -1);
    finish_fails_with(graph, "'bad' has an impossible shape");
    graph = new_graph();
    ck_assert_int_eq(mmqi_graph_value(graph, "none", constant(1), 0), -1);
    finish_fails_with(graph, "'none' has an impossible shape");
}
END_TEST

START_TEST(refuses_a_binding_out_of_range)
{
    struct mmqi_graph *graph = new_graph();

    ck_assert_int_eq(mmqi_graph_output(graph, "o", MMQI_MAX_BINDINGS, main_rows, 1), -1);
    finish_fails_with(graph, "has binding 8 of 8");
}
END_TEST

START_TEST(refuses_nodes_and_ends_outside_of_segments)
{
    struct mmqi_graph *graph = new_graph();

    embed(graph, mmqi_graph_value(graph, "a", main_rows, 8));
    finish_fails_with(graph, "outside of every segment");
    graph = new_graph();
    mmqi_graph_begin_segment(graph, "one");
    finish_fails_with(graph, "'one' never ends");
    graph = new_graph();
    mmqi_graph_end_segment(graph, NULL, 0);
    finish_fails_with(graph, "never began");
}
END_TEST

START_TEST(a_failed_builder_stays_failed_and_reports_the_first_failure)
{
    struct mmqi_graph *graph = new_graph();

    ck_assert_int_eq(mmqi_graph_value(graph, "first", main_rows, -3), -1);
    ck_assert_int_eq(mmqi_graph_value(graph, "fine", main_rows, 8), -1);
    mmqi_graph_begin_segment(graph, "one");
    finish_fails_with(graph, "'first'");
}
END_TEST

START_TEST(knows_the_widest_row_that_an_op_sees)
{
    struct mmqi_graph *graph = new_graph();
    int32_t pixels = mmqi_graph_input(graph, "pixels", 0, constant(4), 3 * 14 * 14);
    int32_t rows = mmqi_graph_value(graph, "rows", constant(4), 2 * 3 * 14 * 14);
    struct mmqi_node node = mmqi_node(MMQI_OP_PATCHES);

    node.out = rows;
    node.in[0] = pixels;
    node.channels = 3;
    node.patch = 14;
    node.frames = node.merge = 2;
    mmqi_graph_begin_segment(graph, "one");
    mmqi_graph_node(graph, &node);
    mmqi_graph_end_segment(graph, &rows, 1);
    ck_assert_int_eq(mmqi_graph_finish(graph), MMQ_OK);
    ck_assert_int_eq(mmqi_graph_max_cols(graph), 2 * 3 * 14 * 14);
    mmqi_graph_free(graph);
}
END_TEST

/* ---- the plan ---- */

/* a = embed; b = act(a); out = a + b: a and b live together, out takes a's memory. */
START_TEST(counts_exact_bytes)
{
    struct mmqi_graph *graph = new_graph();
    const int64_t rows[MMQI_N_SYMBOLS] = {0, 5, 0, 0};
    int32_t a = mmqi_graph_value(graph, "a", main_rows, 24);
    int32_t b = mmqi_graph_value(graph, "b", main_rows, 24);
    int32_t out = mmqi_graph_value(graph, "out", main_rows, 24);
    struct mmqi_plan *plan;

    mmqi_graph_begin_segment(graph, "one");
    embed(graph, a);
    unary(graph, MMQI_OP_ACTIVATE, b, a);
    binary(graph, MMQI_OP_ADD, out, a, b);
    mmqi_graph_end_segment(graph, &out, 1);
    ck_assert_int_eq(mmqi_graph_finish(graph), MMQ_OK);
    ck_assert_int_eq(mmqi_plan_create(&plan, graph, rows), MMQ_OK);
    /* 5 * 24 * 4 = 480, rounded to 512 */
    ck_assert_uint_eq(mmqi_plan_bytes(plan), 1024);
    ck_assert_uint_eq(mmqi_plan_offset(plan, out), mmqi_plan_offset(plan, a));
    ck_assert_int_eq(mmqi_plan_max_rows(plan, MMQI_ROWS_MAIN), 5);
    mmqi_plan_free(plan);
    mmqi_graph_free(graph);
}
END_TEST

START_TEST(keeps_a_row_that_is_added_to_every_row)
{
    struct mmqi_graph *graph = new_graph();
    const int64_t rows[MMQI_N_SYMBOLS] = {0, 2, 0, 0};
    int32_t a = mmqi_graph_value(graph, "a", main_rows, 8);
    int32_t row = mmqi_graph_value(graph, "row", constant(1), 8);
    int32_t out = mmqi_graph_value(graph, "out", main_rows, 8);
    int32_t w = mmqi_graph_weight_value(graph, 0, 1, 8);
    struct mmqi_plan *plan;

    mmqi_graph_begin_segment(graph, "one");
    embed(graph, a);
    unary(graph, MMQI_OP_COPY, row, w);
    binary(graph, MMQI_OP_ADD, out, a, row);
    mmqi_graph_end_segment(graph, &a, 1); /* a lives on, so only `row` could be taken */
    ck_assert_int_eq(mmqi_graph_finish(graph), MMQ_OK);
    ck_assert_int_eq(mmqi_plan_create(&plan, graph, rows), MMQ_OK);
    ck_assert_uint_ne(mmqi_plan_offset(plan, out), mmqi_plan_offset(plan, row));
    ck_assert_uint_ne(mmqi_plan_offset(plan, out), mmqi_plan_offset(plan, a));
    mmqi_plan_free(plan);
    mmqi_graph_free(graph);
}
END_TEST

START_TEST(refuses_columns_and_joined_rows_that_leave_their_base)
{
    struct mmqi_graph *graph = new_graph();
    int32_t a = mmqi_graph_value(graph, "a", (struct mmqi_extent){MMQI_ROWS_MAIN, 4, 8}, 6);
    int32_t columns = mmqi_graph_columns(graph, a, 4, 2);

    ck_assert_int_ge(columns, 0);
    ck_assert_int_ge(mmqi_graph_join_rows(graph, a, 4), 0);
    mmqi_graph_begin_segment(graph, "one");
    switch (_i) {
    case 0:
        ck_assert_int_eq(mmqi_graph_columns(graph, a, 5, 2), -1);
        finish_fails_with(graph, "columns of 'a' leave it");
        break;
    case 1: /* 4 MAIN + 8 rows are no whole number of eights */
        ck_assert_int_eq(mmqi_graph_join_rows(graph, a, 8), -1);
        finish_fails_with(graph, "rows of 'a' cannot be joined by 8");
        break;
    default: /* between one row of columns and the next lies something else */
        ck_assert_int_eq(mmqi_graph_join_rows(graph, columns, 4), -1);
        finish_fails_with(graph, "rows of 'a' cannot be joined by 4");
        break;
    }
}
END_TEST

/* [8, 6] as two rows of 24, and the last two columns of each row of the second half. */
START_TEST(columns_and_joined_rows_are_views_of_the_same_memory)
{
    struct mmqi_graph *graph = new_graph();
    int32_t a = mmqi_graph_value(graph, "a", constant(8), 6);
    int32_t joined = mmqi_graph_join_rows(graph, a, 4);
    int32_t lower = mmqi_graph_slice(graph, joined, 1, constant(1));
    int32_t columns = mmqi_graph_columns(graph, mmqi_graph_slice(graph, a, 4, constant(4)), 4, 2);
    const struct mmqi_value *value;

    value = mmqi_graph_value_at(graph, joined);
    ck_assert_int_eq(value->rows.add, 2);
    ck_assert_int_eq(value->cols, 24);
    ck_assert_int_eq(value->stride, 24);
    value = mmqi_graph_value_at(graph, lower);
    ck_assert_int_eq(value->first, 24);
    ck_assert_int_eq(value->base, a);
    value = mmqi_graph_value_at(graph, columns);
    ck_assert_int_eq(value->first, 28);
    ck_assert_int_eq(value->cols, 2);
    ck_assert_int_eq(value->stride, 6);
    ck_assert_int_eq(value->base, a);
    mmqi_graph_free(graph);
}
END_TEST

/* [8, 6] as sixteen rows of 3, and back. */
START_TEST(split_rows_are_a_view_of_the_same_memory)
{
    struct mmqi_graph *graph = new_graph();
    struct mmqi_extent rows = {MMQI_ROWS_MAIN, 2, 1};
    int32_t a = mmqi_graph_value(graph, "a", rows, 6);
    int32_t split = mmqi_graph_split_rows(graph, a, 2);
    int32_t again = mmqi_graph_join_rows(graph, split, 2);
    const struct mmqi_value *value;

    value = mmqi_graph_value_at(graph, split);
    ck_assert_int_eq(value->rows.mul, 4);
    ck_assert_int_eq(value->rows.add, 2);
    ck_assert_int_eq(value->cols, 3);
    ck_assert_int_eq(value->stride, 3);
    ck_assert_int_eq(value->base, a);
    value = mmqi_graph_value_at(graph, again);
    ck_assert_int_eq(value->rows.mul, 2);
    ck_assert_int_eq(value->cols, 6);
    ck_assert_int_eq(value->base, a);
    mmqi_graph_begin_segment(graph, "one");
    if (_i == 0) {
        ck_assert_int_eq(mmqi_graph_split_rows(graph, a, 4), -1);
        finish_fails_with(graph, "rows of 'a' cannot be split in 4");
    } else { /* between one row of columns and the next lies something else */
        ck_assert_int_eq(mmqi_graph_split_rows(graph, mmqi_graph_columns(graph, a, 0, 4), 2), -1);
        finish_fails_with(graph, "rows of 'a' cannot be split in 2");
    }
}
END_TEST

START_TEST(slices_lie_inside_their_base)
{
    struct mmqi_graph *graph = new_graph();
    const int64_t rows[MMQI_N_SYMBOLS] = {0, 7, 0, 0};
    int32_t base = mmqi_graph_value(graph, "base", (struct mmqi_extent){MMQI_ROWS_MAIN, 1, 2}, 6);
    int32_t tail = mmqi_graph_slice(graph, base, 1, (struct mmqi_extent){MMQI_ROWS_MAIN, 1, 1});
    int32_t inner = mmqi_graph_slice(graph, tail, 1, main_rows);
    struct mmqi_plan *plan;

    mmqi_graph_begin_segment(graph, "one");
    embed(graph, inner);
    mmqi_graph_end_segment(graph, &base, 1);
    ck_assert_int_eq(mmqi_graph_finish(graph), MMQ_OK);
    ck_assert_int_eq(mmqi_plan_create(&plan, graph, rows), MMQ_OK);
    ck_assert_uint_eq(mmqi_plan_offset(plan, tail), mmqi_plan_offset(plan, base) + 6 * 4);
    ck_assert_uint_eq(mmqi_plan_offset(plan, inner), mmqi_plan_offset(plan, base) + 2 * 6 * 4);
    ck_assert_uint_eq(mmqi_plan_bytes(plan), 256); /* 9 * 6 * 4 = 216 */
    mmqi_plan_free(plan);
    mmqi_graph_free(graph);
}
END_TEST

START_TEST(says_when_bytes_would_wrap)
{
    struct mmqi_graph *graph = new_graph();
    const int64_t rows[MMQI_N_SYMBOLS] = {0, INT64_MAX / 8, 0, 0};
    int32_t a = mmqi_graph_value(graph, "vast", main_rows, 1 << 20);
    struct mmqi_plan *plan = NULL;

    mmqi_graph_begin_segment(graph, "one");
    embed(graph, a);
    mmqi_graph_end_segment(graph, &a, 1);
    ck_assert_int_eq(mmqi_graph_finish(graph), MMQ_OK);
    ck_assert_int_eq(mmqi_plan_create(&plan, graph, rows), MMQ_ERR_LIMIT);
    ck_assert_ptr_null(plan);
    ck_assert_ptr_nonnull(strstr(mmqi_message(), "'vast'"));
    mmqi_graph_free(graph);
}
END_TEST

/*
 * The brute force. Memory is an array of cells of one float; a cell carries
 * the tag of the value that wrote it. Every read must find its own tag in
 * every cell, whatever was written in between.
 */
static uint64_t random_state;

static int32_t random_below(int32_t n)
{
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (int32_t)((random_state >> 33) % (uint64_t)n);
}

enum { N_LIVE = 6, N_COLS = 3 };

static const int64_t widths[N_COLS] = {3, 16, 21};

/* One random node that makes a fresh value from those alive; returns it. */
static int32_t random_node(struct mmqi_graph *graph, const int32_t *live)
{
    int32_t a = live[random_below(N_LIVE)], b = live[random_below(N_LIVE)];
    int64_t cols = mmqi_graph_value_at(graph, a)->cols;
    int32_t out, slice, kind = random_below(6);

    if (kind == 0) {
        struct mmqi_extent rows = {MMQI_ROWS_MAIN, 1, 1};

        out = mmqi_graph_value(graph, "sliced", rows, cols);
        slice = mmqi_graph_slice(graph, out, 1, main_rows);
        unary(graph, MMQI_OP_COPY, slice, a);
        slice = mmqi_graph_slice(graph, out, 0, constant(1));
        unary(graph, MMQI_OP_COPY, slice, mmqi_graph_weight_value(graph, 0, 1, cols));
        return mmqi_graph_slice(graph, out, 0, main_rows);
    }
    if (kind == 1 && mmqi_graph_value_at(graph, b)->cols == cols) {
        out = mmqi_graph_value(graph, "sum", main_rows, cols);
        binary(graph, random_below(2) ? MMQI_OP_ADD : MMQI_OP_GATE, out, a, b);
        return out;
    }
    if (kind == 2) {
        unary(graph, MMQI_OP_ACTIVATE, a, a);
        return a;
    }
    if (kind == 3) {
        out = mmqi_graph_value(graph, "product", main_rows, widths[random_below(N_COLS)]);
        unary(graph, MMQI_OP_MATMUL, out, a);
        return out;
    }
    out = mmqi_graph_value(graph, "norm", main_rows, cols);
    unary(graph, kind == 4 ? MMQI_OP_RMS_NORM : MMQI_OP_LAYER_NORM, out, a);
    return out;
}

static struct mmqi_graph *random_graph(void)
{
    struct mmqi_graph *graph = new_graph();
    int32_t live[N_LIVE], n_segments = 2 + random_below(4);
    char name[16];

    for (int s = 0; s < n_segments; s++) {
        snprintf(name, sizeof name, "s%d", s);
        mmqi_graph_begin_segment(graph, name);
        for (int i = 0; s == 0 && i < N_LIVE; i++) {
            live[i] = mmqi_graph_value(graph, "start", main_rows, widths[i % N_COLS]);
            embed(graph, live[i]);
        }
        for (int i = random_below(20); i > 0; i--)
            live[random_below(N_LIVE)] = random_node(graph, live);
        mmqi_graph_end_segment(graph, live, N_LIVE);
        /* What crosses was written by an older segment, perhaps: rewrite it, so that the law holds.
         */
        for (int i = 0; i < N_LIVE; i++)
            live[i] = live[i % (N_LIVE - 1)];
    }
    ck_assert_msg(mmqi_graph_finish(graph) == MMQ_OK, "%s", mmqi_message());
    return graph;
}

struct cells {
    const struct mmqi_graph *graph;
    const struct mmqi_plan *plan;
    const int64_t *rows;
    int32_t *tag;
    size_t n;
};

static void cells_of(const struct cells *c, int32_t value, size_t *begin, size_t *end)
{
    const struct mmqi_value *v = mmqi_graph_value_at(c->graph, value);

    *begin = mmqi_plan_offset(c->plan, value) / 4;
    *end = *begin + (size_t)(mmqi_extent_rows(&v->rows, c->rows) * v->cols);
    ck_assert_uint_le(*end, c->n);
}

static void expect_tag(const struct cells *c, int32_t value)
{
    int32_t root = mmqi_value_root(c->graph, value);
    size_t begin, end;

    if (mmqi_graph_value_at(c->graph, root)->kind != MMQI_VALUE_ARENA)
        return;
    if (value == root)
        ck_assert_uint_eq(mmqi_plan_offset(c->plan, value) % 64, 0);
    cells_of(c, value, &begin, &end);
    for (size_t i = begin; i < end; i++)
        ck_assert_msg(c->tag[i] == root, "cell %zu of value %d holds value %d", i, root, c->tag[i]);
}

/* An output lies apart from an input, or exactly on it where the op allows that. */
static void expect_apart(const struct cells *c, const struct mmqi_node *node, int32_t in)
{
    size_t begin, end, in_begin, in_end;

    if (mmqi_graph_value_at(c->graph, mmqi_value_root(c->graph, in))->kind != MMQI_VALUE_ARENA)
        return;
    cells_of(c, node->out, &begin, &end);
    cells_of(c, in, &in_begin, &in_end);
    if (begin >= in_end || in_begin >= end)
        return;
    ck_assert(mmqi_op_info(node->op)->in_place);
    ck_assert_uint_eq(begin, in_begin);
    ck_assert_uint_eq(end, in_end);
}

static void simulate(const struct cells *c)
{
    size_t begin, end;

    for (int32_t s = 0; s < mmqi_graph_n_segments(c->graph); s++) {
        const struct mmqi_segment *segment = mmqi_graph_segment_at(c->graph, s);

        for (int32_t i = segment->begin; i < segment->end; i++) {
            const struct mmqi_node *node = mmqi_graph_node_at(c->graph, i);

            for (int k = 0; k < 2; k++) {
                if (node->in[k] < 0)
                    continue;
                expect_tag(c, node->in[k]);
                expect_apart(c, node, node->in[k]);
            }
            cells_of(c, node->out, &begin, &end);
            for (size_t cell = begin; cell < end; cell++)
                c->tag[cell] = mmqi_value_root(c->graph, node->out);
        }
        for (int32_t k = 0; k < segment->n_live_out; k++)
            expect_tag(c, segment->live_out[k]);
    }
}

START_TEST(no_two_live_values_overlap_at_any_row_count)
{
    for (int round = 0; round < 300; round++) {
        int64_t rows[MMQI_N_SYMBOLS] = {0};
        struct mmqi_graph *graph;
        struct cells c = {.rows = rows};
        struct mmqi_plan *plan;

        random_state = (uint64_t)round;
        graph = random_graph();
        rows[MMQI_ROWS_MAIN] = 1 + random_below(40);
        ck_assert_int_eq(mmqi_plan_create(&plan, graph, rows), MMQ_OK);
        c.graph = graph;
        c.plan = plan;
        c.n = mmqi_plan_bytes(plan) / 4;
        while (rows[MMQI_ROWS_MAIN] > 0) { /* the same offsets, ever fewer rows */
            c.tag = calloc(c.n + 1, sizeof *c.tag);
            ck_assert_ptr_nonnull(c.tag);
            simulate(&c);
            free(c.tag);
            rows[MMQI_ROWS_MAIN] /= 2;
        }
        mmqi_plan_free(plan);
        mmqi_graph_free(graph);
    }
}
END_TEST

START_TEST(a_long_chain_needs_no_more_than_a_short_one)
{
    uint64_t bytes[2];

    for (int round = 0; round < 2; round++) {
        const int64_t rows[MMQI_N_SYMBOLS] = {0, 10, 0, 0};
        struct mmqi_graph *graph = new_graph();
        int32_t x = mmqi_graph_value(graph, "x", main_rows, 16), norm, wide, back, sum;
        struct mmqi_plan *plan;

        mmqi_graph_begin_segment(graph, "embed");
        embed(graph, x);
        mmqi_graph_end_segment(graph, &x, 1);
        for (int layer = 0; layer < (round ? 40 : 2); layer++) {
            norm = mmqi_graph_value(graph, "norm", main_rows, 16);
            wide = mmqi_graph_value(graph, "wide", main_rows, 48);
            back = mmqi_graph_value(graph, "back", main_rows, 16);
            sum = mmqi_graph_value(graph, "sum", main_rows, 16);
            mmqi_graph_begin_segment(graph, "layer");
            unary(graph, MMQI_OP_RMS_NORM, norm, x);
            unary(graph, MMQI_OP_MATMUL, wide, norm);
            unary(graph, MMQI_OP_MATMUL, back, wide);
            binary(graph, MMQI_OP_ADD, sum, x, back);
            mmqi_graph_end_segment(graph, &sum, 1);
            x = sum;
        }
        ck_assert_int_eq(mmqi_graph_finish(graph), MMQ_OK);
        ck_assert_int_eq(mmqi_plan_create(&plan, graph, rows), MMQ_OK);
        bytes[round] = mmqi_plan_bytes(plan);
        mmqi_plan_free(plan);
        mmqi_graph_free(graph);
    }
    ck_assert_uint_eq(bytes[0], bytes[1]);
    ck_assert_uint_eq(bytes[0], (16 + 16 + 48) * 10 * 4);
}
END_TEST

/* ---- the executor ---- */

struct notes {
    char text[256];
    int32_t fail_at; /* this many segments may end */
    int n_after;
};

static struct notes notes;

static void note(const char *what, int64_t rows)
{
    size_t used = strlen(notes.text);

    snprintf(notes.text + used, sizeof notes.text - used, "%s%lld ", what, (long long)rows);
}

static int32_t note_embed(struct mmqi_stream *s, const struct mmqi_mat *y,
                          const struct mmqi_wmat *table, const int32_t *ids)
{
    (void)s, (void)table, (void)ids;
    note("embed", y->rows);
    return MMQ_OK;
}

static int32_t note_place(struct mmqi_stream *s, const struct mmqi_mat *y, const struct mmqi_mat *x,
                          const int32_t *index, bool accumulate)
{
    (void)s, (void)x, (void)index;
    note(accumulate ? "add" : "place", y->rows);
    return MMQ_OK;
}

static int32_t note_activate(struct mmqi_stream *s, const struct mmqi_mat *y,
                             const struct mmqi_mat *x, int32_t act)
{
    (void)s, (void)x, (void)act;
    note("activate", y->rows);
    return MMQ_OK;
}

static const struct mmqi_ops noting_ops = {
    .embed = note_embed, .place_rows = note_place, .activate = note_activate};

static int32_t after_segment(void *user, const struct mmqi_segment *segment,
                             const struct mmqi_mat *live_out)
{
    ck_assert_ptr_eq(user, &notes);
    ck_assert_ptr_nonnull(live_out);
    note(segment->name, live_out->rows);
    return ++notes.n_after == notes.fail_at ? MMQ_ERR_CANCELLED : MMQ_OK;
}

static struct mmqi_graph *decoder_graph(void)
{
    struct mmqi_graph *graph = new_graph();
    struct mmqi_extent image = {MMQI_ROWS_IMAGE, 1, 0}, pick = {MMQI_ROWS_PICK, 1, 0};
    int32_t picture = mmqi_graph_input(graph, "picture", 0, image, 4);
    int32_t out = mmqi_graph_output(graph, "logits", 1, pick, 4);
    int32_t x = mmqi_graph_value(graph, "x", main_rows, 4);
    int32_t kept = mmqi_graph_value(graph, "kept", pick, 4);

    mmqi_graph_begin_segment(graph, "E");
    embed(graph, x);
    unary(graph, MMQI_OP_PLACE_ROWS, x, picture);
    mmqi_graph_end_segment(graph, &x, 1);
    mmqi_graph_begin_segment(graph, "H");
    unary(graph, MMQI_OP_GATHER, kept, x);
    unary(graph, MMQI_OP_ACTIVATE, out, kept);
    mmqi_graph_end_segment(graph, &kept, 1);
    ck_assert_msg(mmqi_graph_finish(graph) == MMQ_OK, "%s", mmqi_message());
    return graph;
}

struct decoder {
    struct mmqi_graph *graph;
    struct mmqi_plan *plan;
    struct mmqi_run run;
    struct mmqi_run_weight weight;
    float buffers[2][64];
    int32_t index[64];
};

static void decoder_open(struct decoder *d)
{
    const int64_t rows[MMQI_N_SYMBOLS] = {0, 8, 2, 3};

    memset(d, 0, sizeof *d);
    memset(&notes, 0, sizeof notes);
    d->graph = decoder_graph();
    ck_assert_int_eq(mmqi_plan_create(&d->plan, d->graph, rows), MMQ_OK);
    d->run.arena = aligned_alloc(64, mmqi_plan_bytes(d->plan));
    memcpy(d->run.rows, rows, sizeof rows);
    d->run.weights = &d->weight;
    d->run.bound[0] = d->buffers[0];
    d->run.bound[1] = d->buffers[1];
    for (int i = 0; i < MMQI_N_INDEX; i++)
        d->run.index[i] = d->index;
    d->run.after = after_segment;
    d->run.after_user = &notes;
}

static int32_t decoder_run(struct decoder *d)
{
    return mmqi_graph_execute(NULL, &noting_ops, d->graph, d->plan, &d->run, 0, 2);
}

static void decoder_close(struct decoder *d)
{
    free(d->run.arena);
    mmqi_plan_free(d->plan);
    mmqi_graph_free(d->graph);
}

START_TEST(runs_every_node_and_calls_after_each_segment)
{
    struct decoder d;

    decoder_open(&d);
    ck_assert_msg(decoder_run(&d) == MMQ_OK, "%s", mmqi_message());
    ck_assert_str_eq(notes.text, "embed8 place8 E8 place2 activate2 H2 ");
    decoder_close(&d);
}
END_TEST

START_TEST(passes_over_nodes_without_rows)
{
    struct decoder d;

    decoder_open(&d);
    d.run.rows[MMQI_ROWS_MAIN] = 5;
    d.run.rows[MMQI_ROWS_IMAGE] = d.run.rows[MMQI_ROWS_PICK] = 0;
    d.run.bound[0] = d.run.bound[1] = NULL;
    d.run.index[MMQI_INDEX_PLACE] = d.run.index[MMQI_INDEX_PICK] = NULL;
    ck_assert_msg(decoder_run(&d) == MMQ_OK, "%s", mmqi_message());
    ck_assert_str_eq(notes.text, "embed5 E5 H0 ");
    decoder_close(&d);
}
END_TEST

START_TEST(a_hook_ends_the_run_with_its_status)
{
    struct decoder d;

    decoder_open(&d);
    notes.fail_at = 1;
    ck_assert_int_eq(decoder_run(&d), MMQ_ERR_CANCELLED);
    ck_assert_str_eq(notes.text, "embed8 place8 E8 ");
    decoder_close(&d);
}
END_TEST

START_TEST(a_raised_flag_ends_the_run_after_the_segment_in_hand)
{
    int32_t cancelled = 0;
    struct decoder d;

    decoder_open(&d);
    d.run.cancelled = &cancelled;
    ck_assert_int_eq(decoder_run(&d), MMQ_OK);
    cancelled = 1;
    notes = (struct notes){0};
    ck_assert_int_eq(decoder_run(&d), MMQ_ERR_CANCELLED);
    ck_assert_str_eq(notes.text, "embed8 place8 ");
    decoder_close(&d);
}
END_TEST

START_TEST(refuses_more_rows_than_were_planned)
{
    struct decoder d;

    decoder_open(&d);
    d.run.rows[MMQI_ROWS_MAIN] = 9;
    ck_assert_int_eq(decoder_run(&d), MMQ_ERR_INTERNAL);
    ck_assert_ptr_nonnull(strstr(mmqi_message(), "9 rows where 8 were planned"));
    ck_assert_str_eq(notes.text, "");
    decoder_close(&d);
}
END_TEST

START_TEST(says_which_binding_is_missing)
{
    struct decoder d;

    decoder_open(&d);
    d.run.bound[1] = NULL;
    ck_assert_int_eq(decoder_run(&d), MMQ_ERR_INTERNAL);
    ck_assert_ptr_nonnull(strstr(mmqi_message(), "H: logits is not bound"));
    d.run.bound[1] = d.buffers[1];
    d.run.index[MMQI_INDEX_IDS] = NULL;
    ck_assert_int_eq(decoder_run(&d), MMQ_ERR_INTERNAL);
    ck_assert_ptr_nonnull(strstr(mmqi_message(), "E: ids is not bound"));
    decoder_close(&d);
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("graph");
    TCase *c = tcase_create("builder");

    tcase_add_test(c, refuses_a_value_read_before_it_is_written);
    tcase_add_test(c, refuses_a_value_that_crosses_segments_undeclared);
    tcase_add_test(c, lets_a_declared_value_cross_segments);
    tcase_add_test(c, refuses_shapes_that_do_not_fit);
    tcase_add_loop_test(c, refuses_orders_and_tables_that_do_not_fit, 0, 4);
    tcase_add_test(c, refuses_heads_that_do_not_make_a_row);
    tcase_add_test(c, refuses_several_axes_without_a_word_on_which_frequency_reads_which);
    tcase_add_loop_test(c, refuses_columns_and_joined_rows_that_leave_their_base, 0, 3);
    tcase_add_test(c, refuses_a_matmul_over_its_own_input);
    tcase_add_test(c, refuses_to_write_an_input);
    tcase_add_test(c, refuses_a_slice_that_leaves_its_base);
    tcase_add_test(c, refuses_impossible_extents);
    tcase_add_test(c, refuses_a_binding_out_of_range);
    tcase_add_test(c, refuses_nodes_and_ends_outside_of_segments);
    tcase_add_test(c, a_failed_builder_stays_failed_and_reports_the_first_failure);
    tcase_add_test(c, knows_the_widest_row_that_an_op_sees);
    suite_add_tcase(s, c);
    c = tcase_create("plan");
    tcase_set_timeout(c, 60);
    tcase_add_test(c, counts_exact_bytes);
    tcase_add_test(c, keeps_a_row_that_is_added_to_every_row);
    tcase_add_test(c, slices_lie_inside_their_base);
    tcase_add_test(c, columns_and_joined_rows_are_views_of_the_same_memory);
    tcase_add_loop_test(c, split_rows_are_a_view_of_the_same_memory, 0, 2);
    tcase_add_test(c, says_when_bytes_would_wrap);
    tcase_add_test(c, no_two_live_values_overlap_at_any_row_count);
    tcase_add_test(c, a_long_chain_needs_no_more_than_a_short_one);
    suite_add_tcase(s, c);
    c = tcase_create("executor");
    tcase_add_test(c, runs_every_node_and_calls_after_each_segment);
    tcase_add_test(c, passes_over_nodes_without_rows);
    tcase_add_test(c, a_hook_ends_the_run_with_its_status);
    tcase_add_test(c, a_raised_flag_ends_the_run_after_the_segment_in_hand);
    tcase_add_test(c, refuses_more_rows_than_were_planned);
    tcase_add_test(c, says_which_binding_is_missing);
    suite_add_tcase(s, c);
    return s;
}

int main(void)
{
    SRunner *runner = srunner_create(suite());
    int failed;

    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? 1 : 0;
}
