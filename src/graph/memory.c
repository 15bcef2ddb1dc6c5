/*
 * Where every value lies: lifetimes of values turned into arena offsets.
 *
 * A buffer is the memory of one arena value, or of a chain of them: the
 * output of an op that may work in place takes over the memory of an input
 * of the same shape that dies there. A buffer lives from the first node that
 * writes it to the last that touches it, both counted (an op reads while it
 * writes), and a live-out lives at least to the end of its segment. Buffers
 * whose lives meet get disjoint ranges, sized for the greatest row counts.
 *
 * Placing is first fit, tried in two orders, the greatest first and the
 * earliest first; the smaller arena wins. The order is total (ties by
 * value), so a plan is a pure function of graph and row counts.
 */
#include <stdlib.h>
#include <string.h>

#include "core/mem.h"
#include "core/status.h"
#include "graph/op.h"

enum { ARENA_ALIGN = 64 };

struct buffer {
    int32_t value;       /* the first value that lived here */
    int32_t first, last; /* moments, both counted; first > last: never written */
    uint64_t bytes;      /* a multiple of ARENA_ALIGN */
    uint64_t offset;
};

struct mmqi_plan {
    int64_t max_rows[MMQI_N_SYMBOLS];
    uint64_t *offset; /* [values]; UINT64_MAX outside the arena */
    uint64_t bytes;
};

struct planner {
    const struct mmqi_graph *graph;
    const int64_t *max_rows;
    int32_t *owner; /* [values] root arena value -> index of its buffer, -1 */
    struct buffer *buffers;
    int32_t n_buffers;
    struct buffer **order, **placed; /* [buffers] */
};

static int32_t too_large(const struct mmqi_value *value)
{
    return mmqi_fail(MMQ_ERR_LIMIT, "plan: '%s' is too large", value->name);
}

/* Bytes of a value at the greatest row counts, rounded up. */
static int32_t value_bytes(const struct planner *p, const struct mmqi_value *value, uint64_t *bytes)
{
    uint64_t rows, size;

    if (!mmqi_mul_u64((uint64_t)value->rows.mul, (uint64_t)p->max_rows[value->rows.symbol],
                      &rows) ||
        !mmqi_add_u64(rows, (uint64_t)value->rows.add, &rows) || rows > INT64_MAX ||
        !mmqi_mul_u64(rows, (uint64_t)value->cols, &size) ||
        !mmqi_mul_u64(size, sizeof(float), &size) || !mmqi_add_u64(size, ARENA_ALIGN - 1, &size) ||
        size > INT64_MAX)
        return too_large(value);
    *bytes = size & ~(uint64_t)(ARENA_ALIGN - 1);
    return MMQ_OK;
}

static int32_t make_buffers(struct planner *p)
{
    int32_t status;

    for (int32_t i = 0; i < mmqi_graph_n_values(p->graph); i++) {
        const struct mmqi_value *value = mmqi_graph_value_at(p->graph, i);
        struct buffer *b = &p->buffers[p->n_buffers];

        p->owner[i] = -1;
        if (value->kind != MMQI_VALUE_ARENA)
            continue;
        *b = (struct buffer){.value = i, .first = INT32_MAX, .last = -1};
        status = value_bytes(p, value, &b->bytes);
        if (status != MMQ_OK)
            return status;
        p->owner[i] = p->n_buffers++;
    }
    return MMQ_OK;
}

static struct buffer *buffer_of(const struct planner *p, int32_t value)
{
    int32_t root = value < 0 ? -1 : mmqi_value_root(p->graph, value);

    return root < 0 || p->owner[root] < 0 ? NULL : &p->buffers[p->owner[root]];
}

/* Node i is moment 2 i; the end of a segment is the moment between two nodes. */
static int32_t moment_of(int32_t node)
{
    return 2 * node;
}

static void touch(const struct planner *p, int32_t value, int32_t moment)
{
    struct buffer *b = buffer_of(p, value);

    if (!b)
        return;
    if (moment < b->first)
        b->first = moment;
    if (moment > b->last)
        b->last = moment;
}

static void find_lives(const struct planner *p)
{
    for (int32_t i = 0; i < mmqi_graph_n_nodes(p->graph); i++) {
        const struct mmqi_node *node = mmqi_graph_node_at(p->graph, i);

        touch(p, node->out, moment_of(i));
        touch(p, node->in[0], moment_of(i));
        touch(p, node->in[1], moment_of(i));
    }
    for (int32_t i = 0; i < mmqi_graph_n_segments(p->graph); i++) {
        const struct mmqi_segment *segment = mmqi_graph_segment_at(p->graph, i);

        for (int32_t k = 0; k < segment->n_live_out; k++)
            touch(p, segment->live_out[k], moment_of(segment->end) - 1);
    }
}

static bool same_shape(const struct mmqi_value *x, const struct mmqi_value *y)
{
    return x->rows.symbol == y->rows.symbol && x->rows.mul == y->rows.mul &&
           x->rows.add == y->rows.add && x->cols == y->cols;
}

/* May in[k] of node i hand its memory to the output? It dies here, is whole, and is read by rows as
 * the output is written: another operand must not be a different part of it, and a row added to
 * every row keeps its own. */
static bool can_hand_over(const struct planner *p, int32_t i, int k)
{
    const struct mmqi_node *node = mmqi_graph_node_at(p->graph, i);
    const struct buffer *in = buffer_of(p, node->in[k]), *other = buffer_of(p, node->in[1 - k]);
    const struct mmqi_value *value;

    if (!in || in->last != moment_of(i) || (other == in && node->in[0] != node->in[1]))
        return false;
    value = mmqi_graph_value_at(p->graph, node->in[k]);
    return value->kind == MMQI_VALUE_ARENA &&
           same_shape(value, mmqi_graph_value_at(p->graph, node->out));
}

/* Let the output of node i take over the memory of an input that dies there. */
static void share_in_place(const struct planner *p, int32_t i)
{
    const struct mmqi_node *node = mmqi_graph_node_at(p->graph, i);
    struct buffer *out = buffer_of(p, node->out), *in;

    if (!mmqi_op_info(node->op)->in_place || !out || out->first != moment_of(i) ||
        mmqi_graph_value_at(p->graph, node->out)->kind != MMQI_VALUE_ARENA)
        return;
    for (int k = 0; k < 2; k++) {
        in = buffer_of(p, node->in[k]);
        if (in == out || !can_hand_over(p, i, k))
            continue;
        in->last = out->last;
        out->first = INT32_MAX; /* empty from now on */
        out->last = -1;
        p->owner[node->out] = (int32_t)(in - p->buffers);
        return;
    }
}

static int by_size(const void *a, const void *b)
{
    const struct buffer *x = *(struct buffer *const *)a, *y = *(struct buffer *const *)b;

    if (x->bytes != y->bytes)
        return x->bytes > y->bytes ? -1 : 1;
    return (x->value > y->value) - (x->value < y->value);
}

static int by_time(const void *a, const void *b)
{
    const struct buffer *x = *(struct buffer *const *)a, *y = *(struct buffer *const *)b;

    if (x->first != y->first)
        return x->first < y->first ? -1 : 1;
    return by_size(a, b);
}

static bool lives_meet(const struct buffer *x, const struct buffer *y)
{
    return x->first <= y->last && y->first <= x->last;
}

/* Give `b` the lowest offset that is free for all its life; `placed` stays sorted by offset. */
static int32_t place(struct planner *p, int32_t n_placed, struct buffer *b)
{
    uint64_t end;
    int32_t at = n_placed;

    b->offset = 0;
    for (int32_t i = 0; i < n_placed; i++) {
        const struct buffer *other = p->placed[i];

        if (!lives_meet(b, other))
            continue;
        if (other->offset >= b->offset && other->offset - b->offset >= b->bytes)
            break;
        if (other->offset + other->bytes > b->offset)
            b->offset = other->offset + other->bytes;
    }
    if (!mmqi_add_u64(b->offset, b->bytes, &end) || end > INT64_MAX)
        return too_large(mmqi_graph_value_at(p->graph, b->value));
    while (at > 0 && p->placed[at - 1]->offset > b->offset) {
        p->placed[at] = p->placed[at - 1];
        at--;
    }
    p->placed[at] = b;
    return MMQ_OK;
}

/* First fit in the order that `compare` gives; *bytes is the arena's size. */
static int32_t place_all(struct planner *p, int (*compare)(const void *, const void *),
                         uint64_t *bytes)
{
    int32_t n = 0, status;

    for (int32_t i = 0; i < p->n_buffers; i++)
        if (p->buffers[i].first <= p->buffers[i].last)
            p->order[n++] = &p->buffers[i];
    if (n > 1)
        qsort(p->order, (size_t)n, sizeof *p->order, compare);
    *bytes = 0;
    for (int32_t i = 0; i < n; i++) {
        status = place(p, i, p->order[i]);
        if (status != MMQ_OK)
            return status;
        if (p->order[i]->offset + p->order[i]->bytes > *bytes)
            *bytes = p->order[i]->offset + p->order[i]->bytes;
    }
    return MMQ_OK;
}

static int32_t place_best(struct planner *p, struct mmqi_plan *plan)
{
    uint64_t sized, timed;
    int32_t status = place_all(p, by_time, &timed);

    if (status == MMQ_OK)
        status = place_all(p, by_size, &sized);
    if (status == MMQ_OK && timed < sized)
        status = place_all(p, by_time, &sized);
    plan->bytes = status == MMQ_OK ? sized : 0;
    return status;
}

static void write_offsets(const struct planner *p, struct mmqi_plan *plan)
{
    for (int32_t i = 0; i < mmqi_graph_n_values(p->graph); i++) {
        const struct mmqi_value *value = mmqi_graph_value_at(p->graph, i);
        const struct buffer *b = buffer_of(p, i);

        plan->offset[i] = UINT64_MAX;
        if (!b || b->first > b->last)
            continue;
        plan->offset[i] = b->offset;
        if (value->kind == MMQI_VALUE_SLICE)
            plan->offset[i] += (uint64_t)value->first * sizeof(float);
    }
}

static int32_t check_max_rows(const struct planner *p)
{
    for (int32_t i = 0; i < mmqi_graph_n_values(p->graph); i++) {
        const struct mmqi_value *value = mmqi_graph_value_at(p->graph, i);

        if (value->rows.symbol != MMQI_ROWS_CONST && p->max_rows[value->rows.symbol] < 0)
            return mmqi_fail(MMQ_ERR_INVALID, "plan: '%s' has a negative row count", value->name);
    }
    return MMQ_OK;
}

static int32_t make_plan(struct planner *p, struct mmqi_plan *plan)
{
    int32_t status = check_max_rows(p);

    if (status == MMQ_OK)
        status = make_buffers(p);
    if (status != MMQ_OK)
        return status;
    find_lives(p);
    for (int32_t i = 0; i < mmqi_graph_n_nodes(p->graph); i++)
        share_in_place(p, i);
    status = place_best(p, plan);
    if (status == MMQ_OK)
        write_offsets(p, plan);
    return status;
}

int32_t mmqi_plan_create(struct mmqi_plan **out, const struct mmqi_graph *graph,
                         const int64_t max_rows[MMQI_N_SYMBOLS])
{
    size_t n = (size_t)mmqi_graph_n_values(graph);
    struct planner p = {.graph = graph, .max_rows = max_rows};
    struct mmqi_plan *plan = mmqi_calloc(1, sizeof *plan);
    int32_t status = MMQ_OK;

    *out = NULL;
    p.owner = mmqi_alloc_array(n, sizeof *p.owner);
    p.buffers = mmqi_alloc_array(n + 1, sizeof *p.buffers);
    p.order = mmqi_alloc_array(n, sizeof(struct buffer *));
    p.placed = mmqi_alloc_array(n, sizeof(struct buffer *));
    if (plan)
        plan->offset = mmqi_alloc_array(n, sizeof *plan->offset);
    if (!plan || !plan->offset || !p.owner || !p.buffers || !p.order || !p.placed)
        status = mmqi_fail(MMQ_ERR_NOMEM, "plan: no memory for %zu values", n);
    if (status == MMQ_OK) {
        memcpy(plan->max_rows, max_rows, sizeof plan->max_rows);
        status = make_plan(&p, plan);
    }
    mmqi_free(p.owner);
    mmqi_free(p.buffers);
    mmqi_free(p.order);
    mmqi_free(p.placed);
    if (status != MMQ_OK) {
        mmqi_plan_free(plan);
        return status;
    }
    *out = plan;
    return MMQ_OK;
}

void mmqi_plan_free(struct mmqi_plan *plan)
{
    if (!plan)
        return;
    mmqi_free(plan->offset);
    mmqi_free(plan);
}

uint64_t mmqi_plan_bytes(const struct mmqi_plan *plan)
{
    return plan->bytes;
}

uint64_t mmqi_plan_offset(const struct mmqi_plan *plan, int32_t value)
{
    return plan->offset[value];
}

int64_t mmqi_plan_max_rows(const struct mmqi_plan *plan, int32_t symbol)
{
    return plan->max_rows[symbol];
}
