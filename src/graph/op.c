/*
 * The table of ops and the shape rules of their nodes.
 *
 * A graph is built by this library's own families, so a node that breaks a
 * rule is a bug here and not a bad file: MMQ_ERR_INTERNAL.
 */
#include "graph/op.h"

#include "core/status.h"

static const struct mmqi_op_info ops[MMQI_N_OPS] = {
    [MMQI_OP_EMBED] = {"embed", 0, true, false, false, false, false},
    [MMQI_OP_PLACE_ROWS] = {"place_rows", 1, false, false, true, false, false},
    [MMQI_OP_GATHER] = {"gather", 1, false, false, false, false, false},
    [MMQI_OP_COPY] = {"copy", 1, false, false, false, false, false},
    [MMQI_OP_ADD] = {"add", 2, false, false, false, true, false},
    [MMQI_OP_LAYER_NORM] = {"layer_norm", 1, true, true, false, true, false},
    [MMQI_OP_RMS_NORM] = {"rms_norm", 1, true, false, false, true, false},
    [MMQI_OP_MATMUL] = {"matmul", 1, true, false, false, false, false},
    [MMQI_OP_ACTIVATE] = {"activate", 1, false, false, false, true, false},
    [MMQI_OP_GATE] = {"gate", 2, false, false, false, true, false},
    [MMQI_OP_ROPE] = {"rope", 0, true, false, true, false, false},
    [MMQI_OP_STORE_KV] = {"store_kv", 2, false, false, false, false, true},
    [MMQI_OP_ATTENTION] = {"attention", 1, false, false, false, false, false},
    [MMQI_OP_PATCHES] = {"patches", 1, false, false, false, false, false},
    [MMQI_OP_INTERPOLATE] = {"interpolate", 1, false, false, true, false, false},
};

const struct mmqi_op_info *mmqi_op_info(int32_t op)
{
    return op >= 0 && op < MMQI_N_OPS ? &ops[op] : NULL;
}

int32_t mmqi_node_reads(const struct mmqi_node *node, int32_t reads[3])
{
    int32_t n = 0;

    for (int i = 0; i < 2; i++)
        if (node->in[i] >= 0)
            reads[n++] = node->in[i];
    if (ops[node->op].updates_out && node->out >= 0)
        reads[n++] = node->out;
    return n;
}

int32_t mmqi_value_root(const struct mmqi_graph *graph, int32_t value)
{
    const struct mmqi_value *v = mmqi_graph_value_at(graph, value);

    return v->kind == MMQI_VALUE_SLICE ? v->base : value;
}

/* What the shape rules look at: the values of one node, NULL where it has none. */
struct operands {
    const struct mmqi_node *node;
    const struct mmqi_value *out, *a, *b;
};

static bool same_rows(const struct mmqi_value *x, const struct mmqi_value *y)
{
    return x->rows.symbol == y->rows.symbol && x->rows.mul == y->rows.mul &&
           x->rows.add == y->rows.add;
}

static bool same_shape(const struct mmqi_value *x, const struct mmqi_value *y)
{
    return same_rows(x, y) && x->cols == y->cols;
}

static bool rows_are(const struct mmqi_value *x, int32_t symbol, int64_t mul, int64_t add)
{
    return x->rows.symbol == symbol && x->rows.mul == mul && x->rows.add == add;
}

/* Rows of tokens, or those of a tower; never rows beside them. */
static bool check_embed(const struct operands *o)
{
    return o->out->rows.symbol != MMQI_ROWS_PICK &&
           (o->out->rows.symbol == MMQI_ROWS_CONST || o->out->rows.add == 0);
}

static bool check_place_rows(const struct operands *o)
{
    return rows_are(o->out, MMQI_ROWS_MAIN, 1, 0) && o->out->cols == o->a->cols;
}

static bool check_gather(const struct operands *o)
{
    int32_t symbol = o->node->index == MMQI_INDEX_PICK ? MMQI_ROWS_PICK : MMQI_ROWS_IMAGE;

    return (o->node->index == MMQI_INDEX_PICK || o->node->index == MMQI_INDEX_ORDER ||
            o->node->index == MMQI_INDEX_UNDO) &&
           rows_are(o->out, symbol, 1, 0) && o->out->cols == o->a->cols;
}

static bool check_same(const struct operands *o)
{
    return same_shape(o->out, o->a);
}

static bool check_add(const struct operands *o)
{
    return same_shape(o->out, o->a) && o->b->cols == o->out->cols &&
           (same_rows(o->b, o->out) || rows_are(o->b, MMQI_ROWS_CONST, 0, 1));
}

/* The columns stand for the weight's shape; whoever builds compares them with the weight table. */
static bool check_matmul(const struct operands *o)
{
    return same_rows(o->out, o->a);
}

static bool check_activate(const struct operands *o)
{
    return same_shape(o->out, o->a) && o->node->act >= MMQI_ACT_SILU &&
           o->node->act <= MMQI_ACT_QUICK_GELU;
}

static bool check_gate(const struct operands *o)
{
    return check_activate(o) && same_shape(o->b, o->out);
}

static bool heads_fit(int32_t n_heads, int32_t head_dim, int64_t cols)
{
    return n_heads > 0 && head_dim > 0 && (int64_t)n_heads * head_dim == cols;
}

static bool check_rope(const struct operands *o)
{
    return o->node->head_dim % 2 == 0 && o->node->n_axes >= 1 &&
           (o->node->n_axes == 1 || o->node->bias >= 0) &&
           heads_fit(o->node->n_heads, o->node->head_dim, o->out->cols);
}

static bool page_fits(const struct mmqi_value *page, const struct mmqi_node *node)
{
    return page->rows.mul % 2 == 0 && page->rows.add % 2 == 0 &&
           heads_fit(node->n_kv_heads, node->head_dim, page->cols);
}

static bool check_store_kv(const struct operands *o)
{
    if (!same_shape(o->a, o->b) || !heads_fit(o->node->n_kv_heads, o->node->head_dim, o->a->cols))
        return false;
    if (!o->out)
        return o->node->layer >= 0;
    return page_fits(o->out, o->node) &&
           rows_are(o->out, o->a->rows.symbol, 2 * o->a->rows.mul, 2 * o->a->rows.add);
}

static bool check_attention(const struct operands *o)
{
    if (!same_shape(o->out, o->a) || !heads_fit(o->node->n_heads, o->node->head_dim, o->a->cols) ||
        o->node->n_kv_heads < 1 || o->node->n_heads % o->node->n_kv_heads != 0)
        return false;
    return o->b ? page_fits(o->b, o->node) : o->node->layer >= 0;
}

static bool check_patches(const struct operands *o)
{
    const struct mmqi_node *node = o->node;
    int64_t merge = node->merge;

    if (node->channels < 1 || node->patch < 1 || node->frames < 1 || merge < 1)
        return false;
    return same_rows(o->out, o->a) && o->out->rows.mul % (merge * merge) == 0 &&
           o->out->rows.add % (merge * merge) == 0 &&
           o->a->cols == (int64_t)node->channels * node->patch * node->patch &&
           o->out->cols == o->a->cols * node->frames;
}

static bool check_interpolate(const struct operands *o)
{
    return o->a->rows.symbol == MMQI_ROWS_CONST && o->out->cols == o->a->cols;
}

static bool (*const shape_rules[MMQI_N_OPS])(const struct operands *) = {
    [MMQI_OP_EMBED] = check_embed,
    [MMQI_OP_PLACE_ROWS] = check_place_rows,
    [MMQI_OP_GATHER] = check_gather,
    [MMQI_OP_COPY] = check_same,
    [MMQI_OP_ADD] = check_add,
    [MMQI_OP_LAYER_NORM] = check_same,
    [MMQI_OP_RMS_NORM] = check_same,
    [MMQI_OP_MATMUL] = check_matmul,
    [MMQI_OP_ACTIVATE] = check_activate,
    [MMQI_OP_GATE] = check_gate,
    [MMQI_OP_ROPE] = check_rope,
    [MMQI_OP_STORE_KV] = check_store_kv,
    [MMQI_OP_ATTENTION] = check_attention,
    [MMQI_OP_PATCHES] = check_patches,
    [MMQI_OP_INTERPOLATE] = check_interpolate,
};

static bool in_range(const struct mmqi_graph *graph, int32_t value)
{
    return value >= -1 && value < mmqi_graph_n_values(graph);
}

static int32_t check_references(const struct mmqi_graph *graph, const struct mmqi_node *node,
                                const char *where)
{
    const struct mmqi_op_info *info = mmqi_op_info(node->op);

    if (!info)
        return mmqi_fail(MMQ_ERR_INTERNAL, "graph: %s: op %d is unknown", where, node->op);
    if (!in_range(graph, node->out) || !in_range(graph, node->in[0]) ||
        !in_range(graph, node->in[1]))
        return mmqi_fail(MMQ_ERR_INTERNAL, "graph: %s: %s refers to a value that is not there",
                         where, info->name);
    if ((node->out < 0 && !info->out_free) || (info->n_in > 0 && node->in[0] < 0) ||
        (info->n_in > 1 && node->in[1] < 0))
        return mmqi_fail(MMQ_ERR_INTERNAL, "graph: %s: %s lacks a value", where, info->name);
    if ((info->needs_weight && node->weight < 0) || (info->needs_bias && node->bias < 0))
        return mmqi_fail(MMQ_ERR_INTERNAL, "graph: %s: %s lacks a weight", where, info->name);
    return MMQ_OK;
}

/* `out` may be written, and shares memory with an input only where the op allows it. */
static int32_t check_out(const struct mmqi_graph *graph, const struct mmqi_node *node,
                         const char *where)
{
    const struct mmqi_op_info *info = mmqi_op_info(node->op);
    int32_t root, kind;

    if (node->out < 0)
        return MMQ_OK;
    root = mmqi_value_root(graph, node->out);
    kind = mmqi_graph_value_at(graph, root)->kind;
    if (kind != MMQI_VALUE_ARENA && kind != MMQI_VALUE_OUTPUT)
        return mmqi_fail(MMQ_ERR_INTERNAL, "graph: %s: %s writes an input or a weight", where,
                         info->name);
    for (int i = 0; i < 2; i++) {
        if (node->in[i] < 0 || mmqi_value_root(graph, node->in[i]) != root)
            continue;
        if (!info->in_place || node->in[i] != node->out)
            return mmqi_fail(MMQ_ERR_INTERNAL, "graph: %s: %s writes over its own input", where,
                             info->name);
    }
    return MMQ_OK;
}

int32_t mmqi_node_check(const struct mmqi_graph *graph, const struct mmqi_node *node,
                        const char *where)
{
    struct operands operands = {.node = node};
    int32_t status = check_references(graph, node, where);

    if (status == MMQ_OK)
        status = check_out(graph, node, where);
    if (status != MMQ_OK)
        return status;
    if (node->out >= 0)
        operands.out = mmqi_graph_value_at(graph, node->out);
    if (node->in[0] >= 0)
        operands.a = mmqi_graph_value_at(graph, node->in[0]);
    if (node->in[1] >= 0)
        operands.b = mmqi_graph_value_at(graph, node->in[1]);
    if (!shape_rules[node->op](&operands))
        return mmqi_fail(MMQ_ERR_INTERNAL, "graph: %s: the shapes of %s do not fit together", where,
                         ops[node->op].name);
    return MMQ_OK;
}
