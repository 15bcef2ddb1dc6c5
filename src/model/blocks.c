/* Pieces of a forward pass. Shapes are compared with the weight table here, where both are known.
 */
#include "model/blocks.h"

#include <math.h>

#include "core/status.h"

int32_t mmqi_build_weight(struct mmqi_build *b, const char *name)
{
    char full[MMQI_MAX_WEIGHT_NAME];
    int32_t weight = -1;

    if (b->status != MMQ_OK)
        return -1;
    if (mmqi_join_name(full, b->at, name))
        weight = mmqi_model_find(b->model, full);
    if (weight < 0)
        b->status =
            mmqi_fail(MMQ_ERR_INTERNAL, "%s: no weight '%s.%s'", b->model->path, b->at, name);
    return weight;
}

/* The weight "at.name.bias", or -1. */
static int32_t find_bias(const struct mmqi_build *b, const char *name)
{
    char bias[MMQI_MAX_WEIGHT_NAME], full[MMQI_MAX_WEIGHT_NAME];

    if (!mmqi_join_name(bias, name, "bias") || !mmqi_join_name(full, b->at, bias))
        return -1;
    return mmqi_model_find(b->model, full);
}

/* Does the weight have this shape? A width of 0 is that of a value which the graph failed to
 * make. */
static void check_shape(struct mmqi_build *b, int32_t weight, int64_t rows, int64_t cols)
{
    const struct mmqi_weight *w;

    if (b->status != MMQ_OK || weight < 0 || rows == 0 || cols == 0)
        return;
    w = &b->model->weights[weight];
    if (w->rows != rows || w->cols != cols)
        b->status = mmqi_fail(MMQ_ERR_INTERNAL, "%s: '%s' meets values of another width",
                              b->model->path, w->name);
}

static int64_t cols_of(const struct mmqi_build *b, int32_t value)
{
    return value < 0 ? 0 : mmqi_graph_value_at(b->graph, value)->cols;
}

int32_t mmqi_build_like(struct mmqi_build *b, int32_t like, int64_t cols)
{
    if (b->status != MMQ_OK || like < 0)
        return -1;
    return mmqi_graph_value(b->graph, b->at, mmqi_graph_value_at(b->graph, like)->rows, cols);
}

void mmqi_build_node(struct mmqi_build *b, const struct mmqi_node *node)
{
    if (b->status == MMQ_OK)
        mmqi_graph_node(b->graph, node);
}

void mmqi_build_linear_into(struct mmqi_build *b, const char *name, int32_t in, int32_t out)
{
    struct mmqi_node node = mmqi_node(MMQI_OP_MATMUL);

    node.out = out;
    node.in[0] = in;
    node.weight = mmqi_build_weight(b, name);
    node.bias = find_bias(b, name);
    check_shape(b, node.weight, cols_of(b, out), cols_of(b, in));
    check_shape(b, node.bias, 1, cols_of(b, out));
    mmqi_build_node(b, &node);
}

int32_t mmqi_build_linear(struct mmqi_build *b, const char *name, int32_t in)
{
    int32_t weight = mmqi_build_weight(b, name), out;

    if (weight < 0)
        return -1;
    out = mmqi_build_like(b, in, b->model->weights[weight].rows);
    mmqi_build_linear_into(b, name, in, out);
    return out;
}

static int32_t build_norm(struct mmqi_build *b, int32_t op, const char *name, int32_t in, float eps)
{
    struct mmqi_node node = mmqi_node(op);

    node.out = mmqi_build_like(b, in, cols_of(b, in));
    node.in[0] = in;
    node.eps = eps;
    node.weight = mmqi_build_weight(b, name);
    node.bias = op == MMQI_OP_LAYER_NORM ? find_bias(b, name) : -1;
    check_shape(b, node.weight, 1, cols_of(b, in));
    check_shape(b, node.bias, 1, cols_of(b, in));
    mmqi_build_node(b, &node);
    return node.out;
}

int32_t mmqi_build_layer_norm(struct mmqi_build *b, const char *name, int32_t in, float eps)
{
    return build_norm(b, MMQI_OP_LAYER_NORM, name, in, eps);
}

int32_t mmqi_build_rms_norm(struct mmqi_build *b, const char *name, int32_t in, float eps)
{
    return build_norm(b, MMQI_OP_RMS_NORM, name, in, eps);
}

static int32_t build_pointwise(struct mmqi_build *b, int32_t op, int32_t x, int32_t y, int32_t act)
{
    struct mmqi_node node = mmqi_node(op);

    node.out = mmqi_build_like(b, x, cols_of(b, x));
    node.in[0] = x;
    node.in[1] = y;
    node.act = act;
    mmqi_build_node(b, &node);
    return node.out;
}

int32_t mmqi_build_add(struct mmqi_build *b, int32_t x, int32_t y)
{
    return build_pointwise(b, MMQI_OP_ADD, x, y, -1);
}

int32_t mmqi_build_activate(struct mmqi_build *b, int32_t in, int32_t act)
{
    return build_pointwise(b, MMQI_OP_ACTIVATE, in, -1, act);
}

int32_t mmqi_build_gate(struct mmqi_build *b, int32_t gate, int32_t up, int32_t act)
{
    return build_pointwise(b, MMQI_OP_GATE, gate, up, act);
}

int32_t mmqi_build_mlp(struct mmqi_build *b, int32_t x, int32_t act, float eps)
{
    int32_t y = mmqi_build_layer_norm(b, "norm2", x, eps);

    y = mmqi_build_linear(b, "mlp.fc1", y);
    y = mmqi_build_linear(b, "mlp.fc2", mmqi_build_activate(b, y, act));
    return mmqi_build_add(b, x, y);
}

int32_t mmqi_build_gated(struct mmqi_build *b, int32_t y, int32_t act)
{
    int32_t gate = mmqi_build_linear(b, "mlp.gate", y);

    y = mmqi_build_gate(b, gate, mmqi_build_linear(b, "mlp.up", y), act);
    return mmqi_build_linear(b, "mlp.down", y);
}

int32_t mmqi_build_page_attention(struct mmqi_build *b, int32_t q, int32_t k, int32_t v,
                                  int32_t n_heads)
{
    struct mmqi_node store = mmqi_node(MMQI_OP_STORE_KV), attend = mmqi_node(MMQI_OP_ATTENTION);
    struct mmqi_extent rows;
    int64_t width = cols_of(b, q);

    if (b->status != MMQ_OK || q < 0)
        return -1;
    rows = mmqi_graph_value_at(b->graph, q)->rows;
    rows.mul *= 2;
    rows.add *= 2;
    store.in[0] = k;
    store.in[1] = v;
    store.out = attend.in[1] = mmqi_graph_value(b->graph, "page", rows, width);
    store.n_kv_heads = attend.n_heads = attend.n_kv_heads = n_heads;
    store.head_dim = attend.head_dim = (int32_t)(width / n_heads);
    mmqi_build_node(b, &store);
    attend.in[0] = q;
    attend.out = mmqi_build_like(b, q, width);
    attend.scale = 1.0f / sqrtf((float)attend.head_dim);
    attend.windows = b->windows;
    mmqi_build_node(b, &attend);
    return attend.out;
}

int32_t mmqi_build_finish(struct mmqi_build *b)
{
    return b->status != MMQ_OK ? b->status : mmqi_graph_finish(b->graph);
}
