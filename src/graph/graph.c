/*
 * Building a graph and reading it.
 *
 * Values, nodes and segments are arrays that grow while a family builds; a
 * node is checked as it is added. mmqi_graph_finish() then walks the nodes in
 * order for the two laws that need the order: values are written (at least
 * in part) before they are read, and cross segments only as live-outs.
 */
#include "graph/graph.h"

#include <string.h>

#include "core/mem.h"
#include "core/status.h"
#include "graph/op.h"

enum {
    MAX_ITEMS = 1 << 20, /* values, nodes or segments */
    MAX_EXTENT = 1 << 30 /* columns, and the numbers of an extent */
};

struct mmqi_graph {
    struct mmqi_value *values;
    struct mmqi_node *nodes;
    struct mmqi_segment *segments;
    int32_t n_values, n_nodes, n_segments;
    size_t value_room, node_room, segment_room;
    int64_t max_cols;
    int32_t status; /* of the first failure */
    bool open;      /* between begin_segment and end_segment */
};

int32_t mmqi_graph_create(struct mmqi_graph **out)
{
    *out = mmqi_calloc(1, sizeof **out);
    return *out ? MMQ_OK : mmqi_fail(MMQ_ERR_NOMEM, "graph: no memory");
}

void mmqi_graph_free(struct mmqi_graph *graph)
{
    if (!graph)
        return;
    for (int32_t i = 0; i < graph->n_values; i++)
        mmqi_free((char *)graph->values[i].name);
    for (int32_t i = 0; i < graph->n_segments; i++) {
        mmqi_free((char *)graph->segments[i].name);
        mmqi_free(graph->segments[i].live_out);
    }
    mmqi_free(graph->values);
    mmqi_free(graph->nodes);
    mmqi_free(graph->segments);
    mmqi_free(graph);
}

/* The first failure is kept; its message stands until another call of the library fails. */
#define fail_builder(graph, code, ...)                                                             \
    do {                                                                                           \
        if ((graph)->status == MMQ_OK)                                                             \
            (graph)->status = mmqi_fail((code), __VA_ARGS__);                                      \
    } while (0)

static const char *where(const struct mmqi_graph *graph)
{
    return graph->open ? graph->segments[graph->n_segments - 1].name : "between segments";
}

/* Room for one more item in an array of `n`; false, and the builder failed, where there is none. */
static bool grow(struct mmqi_graph *graph, void **items, size_t *room, int32_t n, size_t size)
{
    size_t wanted = *room ? *room * 2 : 64;
    void *grown;

    if ((size_t)n < *room)
        return true;
    if (n >= MAX_ITEMS) {
        fail_builder(graph, MMQ_ERR_LIMIT, "graph: more than %d items", MAX_ITEMS);
        return false;
    }
    grown = mmqi_realloc_array(*items, wanted, size);
    if (!grown) {
        fail_builder(graph, MMQ_ERR_NOMEM, "graph: no memory for %zu items", wanted);
        return false;
    }
    *items = grown;
    *room = wanted;
    return true;
}

static bool extent_is_valid(const struct mmqi_extent *rows)
{
    if (rows->symbol < 0 || rows->symbol >= MMQI_N_SYMBOLS || rows->mul < 0 || rows->add < 0 ||
        rows->mul > MAX_EXTENT || rows->add > MAX_EXTENT)
        return false;
    return rows->symbol == MMQI_ROWS_CONST ? rows->mul == 0 : rows->mul > 0;
}

static int32_t add_value(struct mmqi_graph *graph, const struct mmqi_value *value)
{
    struct mmqi_value *v;
    const char *name = value->name ? value->name : "";

    if (graph->status != MMQ_OK)
        return -1;
    if (!extent_is_valid(&value->rows) || value->cols < 1 || value->cols > MAX_EXTENT) {
        fail_builder(graph, MMQ_ERR_INTERNAL, "graph: %s: value '%s' has an impossible shape",
                     where(graph), name);
        return -1;
    }
    if (!grow(graph, (void **)&graph->values, &graph->value_room, graph->n_values,
              sizeof *graph->values))
        return -1;
    v = &graph->values[graph->n_values];
    *v = *value;
    if (v->kind != MMQI_VALUE_SLICE)
        v->stride = v->cols;
    v->name = mmqi_strdup(name);
    if (!v->name) {
        fail_builder(graph, MMQ_ERR_NOMEM, "graph: no memory for a name");
        return -1;
    }
    return graph->n_values++;
}

int32_t mmqi_graph_value(struct mmqi_graph *graph, const char *name, struct mmqi_extent rows,
                         int64_t cols)
{
    struct mmqi_value value = {.name = name, .kind = MMQI_VALUE_ARENA, .rows = rows, .cols = cols};

    value.base = value.weight = value.binding = -1;
    return add_value(graph, &value);
}

static int32_t add_bound(struct mmqi_graph *graph, const char *name, int32_t kind, int32_t binding,
                         struct mmqi_extent rows, int64_t cols)
{
    struct mmqi_value value = {.name = name, .kind = kind, .rows = rows, .cols = cols};

    value.base = value.weight = -1;
    value.binding = binding;
    if (binding < 0 || binding >= MMQI_MAX_BINDINGS) {
        fail_builder(graph, MMQ_ERR_INTERNAL, "graph: '%s' has binding %d of %d", name, binding,
                     MMQI_MAX_BINDINGS);
        return -1;
    }
    return add_value(graph, &value);
}

int32_t mmqi_graph_input(struct mmqi_graph *graph, const char *name, int32_t binding,
                         struct mmqi_extent rows, int64_t cols)
{
    return add_bound(graph, name, MMQI_VALUE_INPUT, binding, rows, cols);
}

int32_t mmqi_graph_output(struct mmqi_graph *graph, const char *name, int32_t binding,
                          struct mmqi_extent rows, int64_t cols)
{
    return add_bound(graph, name, MMQI_VALUE_OUTPUT, binding, rows, cols);
}

int32_t mmqi_graph_weight_value(struct mmqi_graph *graph, int32_t weight, int64_t rows,
                                int64_t cols)
{
    struct mmqi_value value = {.kind = MMQI_VALUE_WEIGHT, .cols = cols, .weight = weight};

    value.rows = (struct mmqi_extent){MMQI_ROWS_CONST, 0, rows};
    value.base = value.binding = -1;
    if (weight < 0) {
        fail_builder(graph, MMQ_ERR_INTERNAL, "graph: %s: a weight is not there", where(graph));
        return -1;
    }
    return add_value(graph, &value);
}

/* The value to be sliced, or NULL. */
static const struct mmqi_value *sliced(struct mmqi_graph *graph, int32_t base)
{
    if (graph->status != MMQ_OK)
        return NULL;
    if (base >= 0 && base < graph->n_values)
        return &graph->values[base];
    fail_builder(graph, MMQ_ERR_INTERNAL, "graph: %s: a slice of nothing", where(graph));
    return NULL;
}

/* A slice that is all of `of`, to be narrowed. */
static struct mmqi_value slice_of(const struct mmqi_value *of, int32_t base)
{
    struct mmqi_value value = *of;

    if (of->kind != MMQI_VALUE_SLICE) {
        value.base = base;
        value.first = 0;
    }
    value.kind = MMQI_VALUE_SLICE;
    value.weight = value.binding = -1;
    return value;
}

int32_t mmqi_graph_slice(struct mmqi_graph *graph, int32_t base, int64_t first_row,
                         struct mmqi_extent rows)
{
    const struct mmqi_value *of = sliced(graph, base);
    struct mmqi_value value;

    if (!of)
        return -1;
    /* Inside its base at every row count: so for none, and growing no faster. */
    if (first_row < 0 || first_row > MAX_EXTENT ||
        (rows.symbol != of->rows.symbol && rows.symbol != MMQI_ROWS_CONST) ||
        rows.mul > of->rows.mul || first_row + rows.add > of->rows.add) {
        fail_builder(graph, MMQ_ERR_INTERNAL, "graph: %s: a slice of '%s' leaves it", where(graph),
                     of->name);
        return -1;
    }
    value = slice_of(of, base);
    value.rows = rows;
    value.first += first_row * of->stride;
    return add_value(graph, &value);
}

int32_t mmqi_graph_columns(struct mmqi_graph *graph, int32_t base, int64_t first_col, int64_t cols)
{
    const struct mmqi_value *of = sliced(graph, base);
    struct mmqi_value value;

    if (!of)
        return -1;
    if (first_col < 0 || cols < 1 || first_col > of->cols || cols > of->cols - first_col) {
        fail_builder(graph, MMQ_ERR_INTERNAL, "graph: %s: columns of '%s' leave it", where(graph),
                     of->name);
        return -1;
    }
    value = slice_of(of, base);
    value.first += first_col;
    value.cols = cols;
    return add_value(graph, &value);
}

int32_t mmqi_graph_join_rows(struct mmqi_graph *graph, int32_t base, int64_t n)
{
    const struct mmqi_value *of = sliced(graph, base);
    struct mmqi_value value;

    if (!of)
        return -1;
    if (n < 1 || of->rows.mul % n != 0 || of->rows.add % n != 0 || of->stride != of->cols ||
        of->cols > MAX_EXTENT / n) {
        fail_builder(graph, MMQ_ERR_INTERNAL, "graph: %s: rows of '%s' cannot be joined by %lld",
                     where(graph), of->name, (long long)n);
        return -1;
    }
    value = slice_of(of, base);
    value.rows.mul /= n;
    value.rows.add /= n;
    value.cols *= n;
    value.stride = value.cols;
    return add_value(graph, &value);
}

int32_t mmqi_graph_split_rows(struct mmqi_graph *graph, int32_t base, int64_t n)
{
    const struct mmqi_value *of = sliced(graph, base);
    struct mmqi_value value;

    if (!of)
        return -1;
    if (n < 1 || of->cols % n != 0 || of->stride != of->cols || of->rows.mul > MAX_EXTENT / n ||
        of->rows.add > MAX_EXTENT / n) {
        fail_builder(graph, MMQ_ERR_INTERNAL, "graph: %s: rows of '%s' cannot be split in %lld",
                     where(graph), of->name, (long long)n);
        return -1;
    }
    value = slice_of(of, base);
    value.rows.mul *= n;
    value.rows.add *= n;
    value.cols /= n;
    value.stride = value.cols;
    return add_value(graph, &value);
}

struct mmqi_node mmqi_node(int32_t op)
{
    struct mmqi_node node = {.op = op, .out = -1, .in = {-1, -1}, .index = MMQI_INDEX_PICK};

    node.weight = node.bias = node.act = node.layer = -1;
    return node;
}

void mmqi_graph_node(struct mmqi_graph *graph, const struct mmqi_node *node)
{
    if (graph->status != MMQ_OK)
        return;
    if (!graph->open) {
        fail_builder(graph, MMQ_ERR_INTERNAL, "graph: a node outside of every segment");
        return;
    }
    graph->status = mmqi_node_check(graph, node, where(graph));
    if (graph->status != MMQ_OK || !grow(graph, (void **)&graph->nodes, &graph->node_room,
                                         graph->n_nodes, sizeof *graph->nodes))
        return;
    graph->nodes[graph->n_nodes++] = *node;
}

void mmqi_graph_begin_segment(struct mmqi_graph *graph, const char *name)
{
    struct mmqi_segment segment = {.begin = graph->n_nodes};

    if (graph->status != MMQ_OK)
        return;
    if (graph->open) {
        fail_builder(graph, MMQ_ERR_INTERNAL, "graph: '%s' begins inside '%s'", name, where(graph));
        return;
    }
    if (!grow(graph, (void **)&graph->segments, &graph->segment_room, graph->n_segments,
              sizeof *graph->segments))
        return;
    segment.name = mmqi_strdup(name);
    if (!segment.name) {
        fail_builder(graph, MMQ_ERR_NOMEM, "graph: no memory for a name");
        return;
    }
    graph->segments[graph->n_segments++] = segment;
    graph->open = true;
}

void mmqi_graph_end_segment(struct mmqi_graph *graph, const int32_t *live_out, int32_t n_live_out)
{
    struct mmqi_segment *segment;

    if (graph->status != MMQ_OK)
        return;
    if (!graph->open || n_live_out < 0) {
        fail_builder(graph, MMQ_ERR_INTERNAL, "graph: a segment ends that never began");
        return;
    }
    segment = &graph->segments[graph->n_segments - 1];
    for (int32_t i = 0; i < n_live_out; i++) {
        if (live_out[i] < 0 || live_out[i] >= graph->n_values) {
            fail_builder(graph, MMQ_ERR_INTERNAL, "graph: %s: a live-out that is not there",
                         where(graph));
            return;
        }
    }
    segment->live_out = mmqi_alloc_array((size_t)n_live_out, sizeof *live_out);
    if (!segment->live_out) {
        fail_builder(graph, MMQ_ERR_NOMEM, "graph: no memory for live-outs");
        return;
    }
    if (n_live_out > 0)
        memcpy(segment->live_out, live_out, (size_t)n_live_out * sizeof *live_out);
    segment->n_live_out = n_live_out;
    segment->end = graph->n_nodes;
    graph->open = false;
}

static bool is_live_out(const struct mmqi_graph *graph, int32_t segment, int32_t root)
{
    const struct mmqi_segment *s = &graph->segments[segment];

    for (int32_t i = 0; i < s->n_live_out; i++)
        if (mmqi_value_root(graph, s->live_out[i]) == root)
            return true;
    return false;
}

/* One read of `value` in `segment`; writer[root] is the segment that wrote it last, or -1. */
static int32_t check_read(const struct mmqi_graph *graph, const int32_t *writer, int32_t segment,
                          int32_t value)
{
    int32_t root = mmqi_value_root(graph, value);
    int32_t kind = graph->values[root].kind;

    if (kind != MMQI_VALUE_ARENA && kind != MMQI_VALUE_OUTPUT)
        return MMQ_OK;
    if (writer[root] < 0)
        return mmqi_fail(MMQ_ERR_INTERNAL, "graph: %s reads '%s' before it is written",
                         graph->segments[segment].name, graph->values[root].name);
    if (writer[root] != segment && !is_live_out(graph, writer[root], root))
        return mmqi_fail(MMQ_ERR_INTERNAL, "graph: %s reads '%s', which is no live-out of %s",
                         graph->segments[segment].name, graph->values[root].name,
                         graph->segments[writer[root]].name);
    return MMQ_OK;
}

static int32_t check_segment(const struct mmqi_graph *graph, int32_t *writer, int32_t segment)
{
    const struct mmqi_segment *s = &graph->segments[segment];
    int32_t reads[3], n_reads, status = MMQ_OK;

    for (int32_t i = s->begin; i < s->end; i++) {
        const struct mmqi_node *node = &graph->nodes[i];

        n_reads = mmqi_node_reads(node, reads);
        for (int32_t k = 0; k < n_reads && status == MMQ_OK; k++)
            status = check_read(graph, writer, segment, reads[k]);
        if (status != MMQ_OK)
            return status;
        if (node->out >= 0)
            writer[mmqi_value_root(graph, node->out)] = segment;
    }
    for (int32_t i = 0; i < s->n_live_out; i++) {
        int32_t root = mmqi_value_root(graph, s->live_out[i]);

        if (writer[root] < 0)
            return mmqi_fail(MMQ_ERR_INTERNAL, "graph: %s: its live-out '%s' is never written",
                             s->name, graph->values[root].name);
    }
    return MMQ_OK;
}

static void find_max_cols(struct mmqi_graph *graph)
{
    graph->max_cols = 0;
    for (int32_t i = 0; i < graph->n_nodes; i++) {
        const struct mmqi_node *node = &graph->nodes[i];
        int32_t values[3] = {node->out, node->in[0], node->in[1]};

        for (int k = 0; k < 3; k++)
            if (values[k] >= 0 && graph->values[values[k]].cols > graph->max_cols)
                graph->max_cols = graph->values[values[k]].cols;
    }
}

int32_t mmqi_graph_finish(struct mmqi_graph *graph)
{
    int32_t *writer;

    if (graph->open)
        fail_builder(graph, MMQ_ERR_INTERNAL, "graph: segment '%s' never ends", where(graph));
    if (graph->status != MMQ_OK)
        return graph->status;
    writer = mmqi_alloc_array((size_t)graph->n_values, sizeof *writer);
    if (!writer)
        return graph->status = mmqi_fail(MMQ_ERR_NOMEM, "graph: no memory for the check");
    for (int32_t i = 0; i < graph->n_values; i++)
        writer[i] = -1;
    for (int32_t i = 0; i < graph->n_segments && graph->status == MMQ_OK; i++)
        graph->status = check_segment(graph, writer, i);
    mmqi_free(writer);
    find_max_cols(graph);
    return graph->status;
}

int32_t mmqi_graph_n_values(const struct mmqi_graph *graph)
{
    return graph->n_values;
}

const struct mmqi_value *mmqi_graph_value_at(const struct mmqi_graph *graph, int32_t value)
{
    return &graph->values[value];
}

int32_t mmqi_graph_n_nodes(const struct mmqi_graph *graph)
{
    return graph->n_nodes;
}

const struct mmqi_node *mmqi_graph_node_at(const struct mmqi_graph *graph, int32_t node)
{
    return &graph->nodes[node];
}

int32_t mmqi_graph_n_segments(const struct mmqi_graph *graph)
{
    return graph->n_segments;
}

const struct mmqi_segment *mmqi_graph_segment_at(const struct mmqi_graph *graph, int32_t segment)
{
    return &graph->segments[segment];
}

int64_t mmqi_graph_max_cols(const struct mmqi_graph *graph)
{
    return graph->max_cols;
}
