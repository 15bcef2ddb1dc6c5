/*
 * Routes: legs and crossings of graphs cut at random, against a simulation in which every place has
 * its own copy of each value's version.
 */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/status.h"
#include "graph/op.h"
#include "graph/route.h"

static const struct mmqi_extent main_rows = {MMQI_ROWS_MAIN, 1, 0};

static uint64_t random_state;

static int32_t random_below(int32_t n)
{
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (int32_t)((random_state >> 33) % (uint64_t)n);
}

enum { N_SEGMENTS = 9, COLS = 16 };

/* A chain of segments that each read one or two values of earlier ones, and rotate some in place;
 * all values are declared live. */
static struct mmqi_graph *random_graph(void)
{
    struct mmqi_graph *graph;
    int32_t live[N_SEGMENTS];

    ck_assert_int_eq(mmqi_graph_create(&graph), MMQ_OK);
    for (int32_t s = 0; s < N_SEGMENTS; s++) {
        struct mmqi_node node = mmqi_node(s == 0 ? MMQI_OP_EMBED : MMQI_OP_ADD);

        mmqi_graph_begin_segment(graph, "segment");
        live[s] = node.out = mmqi_graph_value(graph, "value", main_rows, COLS);
        if (s == 0)
            node.weight = 0;
        for (int k = 0; k < 2 && s > 0; k++)
            node.in[k] = live[random_below(s)];
        mmqi_graph_node(graph, &node);
        if (s > 0 && random_below(2)) {
            struct mmqi_node rope = mmqi_node(MMQI_OP_ROPE);

            rope.out = live[random_below(s)];
            rope.weight = 0;
            rope.n_heads = rope.n_axes = 1;
            rope.head_dim = COLS;
            mmqi_graph_node(graph, &rope);
        }
        mmqi_graph_end_segment(graph, live, s + 1);
    }
    ck_assert_msg(mmqi_graph_finish(graph) == MMQ_OK, "%s", mmqi_message());
    return graph;
}

/* version[place][value] as it lies there, newest[value] as it is. */
struct world {
    int version[MMQI_MAX_PLACES][64], newest[64];
};

static void simulate_leg(struct world *w, const struct mmqi_graph *graph,
                         const struct mmqi_route *route, const struct mmqi_leg *leg)
{
    for (int32_t i = 0; i < leg->n_crossings; i++) {
        const struct mmqi_crossing *c = &route->crossings[leg->first_crossing + i];

        ck_assert_int_ne(c->from, leg->place);
        w->version[leg->place][c->value] = w->version[c->from][c->value];
    }
    for (int32_t s = leg->begin; s < leg->end; s++) {
        const struct mmqi_segment *segment = mmqi_graph_segment_at(graph, s);

        for (int32_t i = segment->begin; i < segment->end; i++) {
            const struct mmqi_node *node = mmqi_graph_node_at(graph, i);
            int32_t reads[3], n = mmqi_node_reads(node, reads);

            while (n-- > 0)
                ck_assert_int_eq(w->version[leg->place][reads[n]], w->newest[reads[n]]);
            w->version[leg->place][node->out] = ++w->newest[node->out];
        }
    }
}

START_TEST(every_leg_reads_the_newest_values)
{
    int32_t places[N_SEGMENTS], end;
    struct mmqi_route route;

    for (random_state = 1; random_state < 3000; random_state += 7) {
        uint64_t seed = random_state;
        struct mmqi_graph *graph = random_graph();
        struct world *w = calloc(1, sizeof *w);

        for (int32_t s = 0; s < N_SEGMENTS; s++)
            places[s] = random_below(3);
        ck_assert_int_eq(mmqi_route_create(&route, graph, places), MMQ_OK);
        end = 0;
        for (int32_t i = 0; i < route.n_legs; i++) {
            ck_assert_int_eq(route.legs[i].begin, end);
            simulate_leg(w, graph, &route, &route.legs[i]);
            end = route.legs[i].end;
            for (int32_t s = route.legs[i].begin; s < end; s++)
                ck_assert_int_eq(places[s], route.legs[i].place);
        }
        ck_assert_int_eq(end, N_SEGMENTS);
        mmqi_route_clear(&route);
        mmqi_graph_free(graph);
        free(w);
        random_state = seed;
    }
}
END_TEST

START_TEST(one_place_is_one_leg_without_a_crossing)
{
    const int64_t rows[MMQI_N_SYMBOLS] = {0, 5, 0, 0};
    const int32_t places[N_SEGMENTS] = {0};
    struct mmqi_graph *graph = random_graph();
    struct mmqi_route route;
    struct mmqi_plan *plan;

    ck_assert_int_eq(mmqi_route_create(&route, graph, places), MMQ_OK);
    ck_assert_int_eq(route.n_legs, 1);
    ck_assert_int_eq(route.n_crossings, 0);
    ck_assert_int_eq(mmqi_plan_create(&plan, graph, rows), MMQ_OK);
    ck_assert_uint_eq(mmqi_plan_bytes_at(plan, graph, places, 0), mmqi_plan_bytes(plan));
    ck_assert_uint_eq(mmqi_plan_bytes_at(plan, graph, NULL, 0), mmqi_plan_bytes(plan));
    ck_assert_uint_eq(mmqi_plan_bytes_at(plan, graph, places, 1), 0);
    ck_assert(mmqi_place_runs(graph, places, 0));
    ck_assert(!mmqi_place_runs(graph, places, 1));
    mmqi_plan_free(plan);
    mmqi_route_clear(&route);
    mmqi_graph_free(graph);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("route");
    TCase *tests = tcase_create("route");
    SRunner *runner;
    int n_failed;

    suite_add_tcase(suite, tests);
    tcase_add_test(tests, every_leg_reads_the_newest_values);
    tcase_add_test(tests, one_place_is_one_leg_without_a_crossing);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    n_failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return n_failed > 0;
}
