/* Legs and crossings of a graph over several places. */
#include "graph/route.h"

#include <string.h>

#include "backend/backend.h"
#include "core/mem.h"
#include "core/status.h"
#include "graph/op.h"

struct router {
    const struct mmqi_graph *graph;
    struct mmqi_route *route;
    uint32_t *valid; /* [values] of a whole value: bit per place where its newest rows lie */
    int32_t place;   /* of the leg in hand */
    int32_t capacity;
};

static int32_t add_crossing(struct router *r, int32_t value)
{
    struct mmqi_route *route = r->route;
    struct mmqi_crossing *grown;
    int32_t from = 0;

    while (!(r->valid[value] >> from & 1))
        from++;
    if (route->n_crossings == r->capacity) {
        grown = mmqi_realloc_array(route->crossings, 2 * (size_t)r->capacity + 8, sizeof *grown);
        if (!grown)
            return mmqi_fail(MMQ_ERR_NOMEM, "graph: no memory for its route");
        route->crossings = grown;
        r->capacity = 2 * r->capacity + 8;
    }
    route->crossings[route->n_crossings++] = (struct mmqi_crossing){value, from};
    r->valid[value] |= UINT32_C(1) << r->place;
    return MMQ_OK;
}

/* Whether runs write this value: inputs and weights are where they are read. */
static bool is_written(const struct mmqi_value *value)
{
    return value->kind == MMQI_VALUE_ARENA || value->kind == MMQI_VALUE_OUTPUT;
}

/* The leg reads `value`, which may be a slice: bring the whole, unless it is here. */
static int32_t need(struct router *r, int32_t value)
{
    int32_t root = mmqi_value_root(r->graph, value);

    if (!is_written(mmqi_graph_value_at(r->graph, root)) || r->valid[root] == 0 ||
        (r->valid[root] >> r->place & 1))
        return MMQ_OK;
    return add_crossing(r, root);
}

static int32_t visit_node(struct router *r, const struct mmqi_node *node)
{
    int32_t reads[3], n = mmqi_node_reads(node, reads), status = MMQ_OK;

    for (int32_t i = 0; i < n && status == MMQ_OK; i++)
        status = need(r, reads[i]);
    if (node->out < 0 || status != MMQ_OK)
        return status;
    /* Rows beside those that a slice covers are kept. */
    if (mmqi_value_root(r->graph, node->out) != node->out)
        status = need(r, node->out);
    r->valid[mmqi_value_root(r->graph, node->out)] = UINT32_C(1) << r->place;
    return status;
}

/* The leg that begins at a segment; its crossings come before those of the next. */
static int32_t add_leg(struct router *r, const int32_t *places, int32_t begin)
{
    struct mmqi_leg *leg = &r->route->legs[r->route->n_legs++];
    int32_t n = mmqi_graph_n_segments(r->graph), status = MMQ_OK;

    *leg = (struct mmqi_leg){places[begin], begin, begin, r->route->n_crossings, 0};
    r->place = leg->place;
    for (; leg->end < n && places[leg->end] == leg->place && status == MMQ_OK; leg->end++) {
        const struct mmqi_segment *segment = mmqi_graph_segment_at(r->graph, leg->end);

        for (int32_t i = segment->begin; i < segment->end && status == MMQ_OK; i++)
            status = visit_node(r, mmqi_graph_node_at(r->graph, i));
    }
    leg->n_crossings = r->route->n_crossings - leg->first_crossing;
    return status;
}

int32_t mmqi_route_create(struct mmqi_route *out, const struct mmqi_graph *graph,
                          const int32_t *places)
{
    int32_t n = mmqi_graph_n_segments(graph), status = MMQ_OK;
    struct router r = {.graph = graph, .route = out};

    memset(out, 0, sizeof *out);
    out->legs = mmqi_calloc((size_t)n + 1, sizeof *out->legs);
    r.valid = mmqi_calloc((size_t)mmqi_graph_n_values(graph) + 1, sizeof *r.valid);
    if (!out->legs || !r.valid)
        status = mmqi_fail(MMQ_ERR_NOMEM, "graph: no memory for its route");
    for (int32_t begin = 0; begin < n && status == MMQ_OK; begin = out->legs[out->n_legs - 1].end)
        status = add_leg(&r, places, begin);
    mmqi_free(r.valid);
    return status;
}

void mmqi_route_clear(struct mmqi_route *route)
{
    mmqi_free(route->legs);
    mmqi_free(route->crossings);
    memset(route, 0, sizeof *route);
}

bool mmqi_place_runs(const struct mmqi_graph *graph, const int32_t *places, int32_t place)
{
    for (int32_t i = 0; i < mmqi_graph_n_segments(graph); i++)
        if (mmqi_place_of(places, i) == place)
            return true;
    return false;
}

static bool node_binds(const struct mmqi_graph *graph, const struct mmqi_node *node,
                       int32_t binding)
{
    const int32_t values[3] = {node->out, node->in[0], node->in[1]};

    for (int k = 0; k < 3; k++) {
        const struct mmqi_value *value =
            values[k] < 0 ? NULL : mmqi_graph_value_at(graph, mmqi_value_root(graph, values[k]));

        if (value && (value->kind == MMQI_VALUE_INPUT || value->kind == MMQI_VALUE_OUTPUT) &&
            value->binding == binding)
            return true;
    }
    return false;
}

/* Walks the nodes at a place: the first from *node on, -1 past the last. */
static int32_t next_node(const struct mmqi_graph *graph, const int32_t *places, int32_t place,
                         int32_t node)
{
    for (int32_t i = 0; i < mmqi_graph_n_segments(graph); i++) {
        const struct mmqi_segment *segment = mmqi_graph_segment_at(graph, i);

        if (mmqi_place_of(places, i) == place && node < segment->end)
            return node < segment->begin ? segment->begin : node;
    }
    return -1;
}

bool mmqi_place_binds(const struct mmqi_graph *graph, const int32_t *places, int32_t place,
                      int32_t binding)
{
    for (int32_t i = 0; (i = next_node(graph, places, place, i)) >= 0; i++)
        if (node_binds(graph, mmqi_graph_node_at(graph, i), binding))
            return true;
    return false;
}

bool mmqi_place_keeps(const struct mmqi_graph *graph, const int32_t *places, int32_t place,
                      int32_t layer)
{
    for (int32_t i = 0; (i = next_node(graph, places, place, i)) >= 0; i++)
        if (mmqi_graph_node_at(graph, i)->layer == layer)
            return true;
    return false;
}

uint64_t mmqi_plan_bytes_at(const struct mmqi_plan *plan, const struct mmqi_graph *graph,
                            const int32_t *places, int32_t place)
{
    uint64_t most = 0;

    for (int32_t i = 0; (i = next_node(graph, places, place, i)) >= 0; i++) {
        const struct mmqi_node *node = mmqi_graph_node_at(graph, i);
        const int32_t values[3] = {node->out, node->in[0], node->in[1]};

        for (int k = 0; k < 3; k++)
            if (values[k] >= 0 && mmqi_plan_end(plan, values[k]) > most)
                most = mmqi_plan_end(plan, values[k]);
    }
    return most;
}

static void raise_to(int64_t *size, int64_t to)
{
    if (*size < to)
        *size = to;
}

void mmqi_plan_needs_at(struct mmqi_stream_options *needs, const struct mmqi_graph *graph,
                        const struct mmqi_plan *plan, const int32_t *places, int32_t place)
{
    for (int32_t i = 0; (i = next_node(graph, places, place, i)) >= 0; i++) {
        const struct mmqi_node *node = mmqi_graph_node_at(graph, i);
        const int32_t values[3] = {node->out, node->in[0], node->in[1]};
        const struct mmqi_value *x;

        for (int k = 0; k < 3; k++)
            if (values[k] >= 0)
                raise_to(&needs->max_cols, mmqi_graph_value_at(graph, values[k])->cols);
        if (node->op == MMQI_OP_MATMUL) {
            x = mmqi_graph_value_at(graph, node->in[0]);
            raise_to(&needs->max_product, mmqi_plan_value_rows(plan, &x->rows) * x->cols);
        } else if (node->op == MMQI_OP_ATTENTION) {
            raise_to(&needs->max_heads, mmqi_graph_value_at(graph, node->out)->cols);
        }
    }
}

void mmqi_plan_needs(struct mmqi_stream_options *needs, const struct mmqi_graph *graph,
                     const struct mmqi_plan *plan)
{
    mmqi_plan_needs_at(needs, graph, plan, NULL, 0);
}
