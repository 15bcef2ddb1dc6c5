/*
 * The plain executor: node after node through a table of ops.
 *
 * It turns values into matrices (an address in the arena, a binding or a
 * weight, and the rows of this run) and calls the slot. A node whose rows are
 * none in this run (no picture rows to place, no row to pick) is passed over.
 */
#include "core/status.h"
#include "graph/op.h"

struct context {
    struct mmqi_stream *stream;
    const struct mmqi_ops *ops;
    const struct mmqi_graph *graph;
    const struct mmqi_plan *plan;
    const struct mmqi_run *run;
    const struct mmqi_segment *segment; /* in hand */
};

static int32_t missing(const struct context *c, const char *what)
{
    return mmqi_fail(MMQ_ERR_INTERNAL, "run: %s: %s is not bound", c->segment->name, what);
}

/* First row of a value that is no slice; NULL where the run does not bring it. */
static float *memory_of(const struct context *c, int32_t value)
{
    const struct mmqi_value *v = mmqi_graph_value_at(c->graph, value);

    switch (v->kind) {
    case MMQI_VALUE_ARENA:
        return (float *)((char *)c->run->arena + mmqi_plan_offset(c->plan, value));
    case MMQI_VALUE_WEIGHT: /* never an output, so never written */
        return (float *)c->run->weights[v->weight].vector;
    default:
        return c->run->bound[v->binding];
    }
}

static int32_t resolve(const struct context *c, int32_t value, struct mmqi_mat *mat)
{
    const struct mmqi_value *v = mmqi_graph_value_at(c->graph, value);
    int32_t root = mmqi_value_root(c->graph, value);

    mat->rows = mmqi_extent_rows(&v->rows, c->run->rows);
    mat->cols = v->cols;
    mat->stride = v->stride;
    mat->data = memory_of(c, root);
    if (!mat->data)
        return mat->rows == 0 ? MMQ_OK : missing(c, mmqi_graph_value_at(c->graph, root)->name);
    if (v->kind == MMQI_VALUE_SLICE)
        mat->data += v->first;
    return MMQ_OK;
}

/* The matrices of one node, resolved before its op is called. */
struct operands {
    struct mmqi_mat y, a, b;
    const struct mmqi_wmat *w;
    const float *vector, *bias;
};

static const int32_t *index_of(const struct context *c, int32_t index)
{
    return c->run->index[index];
}

static int32_t run_embed(const struct context *c, const struct mmqi_node *n, struct operands *o)
{
    const int32_t *ids = index_of(c, MMQI_INDEX_IDS);

    (void)n;
    return ids ? c->ops->embed(c->stream, &o->y, o->w, ids) : missing(c, "ids");
}

static int32_t run_place_rows(const struct context *c, const struct mmqi_node *n,
                              struct operands *o)
{
    const int32_t *index = index_of(c, MMQI_INDEX_PLACE);

    if (o->a.rows == 0)
        return MMQ_OK;
    return index ? c->ops->place_rows(c->stream, &o->y, &o->a, index, n->accumulate)
                 : missing(c, "place");
}

static int32_t run_gather(const struct context *c, const struct mmqi_node *n, struct operands *o)
{
    const int32_t *index = index_of(c, n->index);

    return index ? c->ops->place_rows(c->stream, &o->y, &o->a, index, false)
                 : missing(c, "an order of rows");
}

static int32_t run_copy(const struct context *c, const struct mmqi_node *n, struct operands *o)
{
    (void)n;
    return c->ops->copy(c->stream, &o->y, &o->a);
}

static int32_t run_add(const struct context *c, const struct mmqi_node *n, struct operands *o)
{
    (void)n;
    return c->ops->add(c->stream, &o->y, &o->a, &o->b);
}

static int32_t run_layer_norm(const struct context *c, const struct mmqi_node *n,
                              struct operands *o)
{
    if (!o->vector || !o->bias)
        return missing(c, "a norm");
    return c->ops->layer_norm(c->stream, &o->y, &o->a, o->vector, o->bias, n->eps);
}

static int32_t run_rms_norm(const struct context *c, const struct mmqi_node *n, struct operands *o)
{
    if (!o->vector)
        return missing(c, "a norm");
    return c->ops->rms_norm(c->stream, &o->y, &o->a, o->vector, n->eps);
}

static int32_t run_matmul(const struct context *c, const struct mmqi_node *n, struct operands *o)
{
    (void)n;
    if (o->w->rows != o->y.cols || o->w->cols != o->a.cols)
        return mmqi_fail(MMQ_ERR_INTERNAL, "run: %s: a weight of another shape", c->segment->name);
    return c->ops->matmul(c->stream, &o->y, &o->a, o->w, o->bias);
}

static int32_t run_activate(const struct context *c, const struct mmqi_node *n, struct operands *o)
{
    return c->ops->activate(c->stream, &o->y, &o->a, n->act);
}

static int32_t run_gate(const struct context *c, const struct mmqi_node *n, struct operands *o)
{
    return c->ops->gate(c->stream, &o->y, &o->a, &o->b, n->act);
}

static int32_t run_rope(const struct context *c, const struct mmqi_node *n, struct operands *o)
{
    const int32_t *positions = index_of(c, MMQI_INDEX_POSITIONS);
    struct mmqi_rope rope = {n->n_heads, n->head_dim, n->n_axes, o->vector, NULL};

    if (!positions || !o->vector)
        return missing(c, "positions");
    rope.axis = (const int32_t *)(const void *)o->bias; /* mmqi_declare_indices() put them there */
    return c->ops->rope(c->stream, &o->y, &rope, positions);
}

/* The one page that a value of [2 * rows, n_kv_heads * head_dim] makes: K rows, then V rows. */
static struct mmqi_kv page_of(const struct mmqi_node *n, const struct mmqi_mat *page)
{
    struct mmqi_kv kv = {.pages = page->data, .page_rows = page->rows / 2};

    kv.page_stride = page->rows * page->cols;
    kv.n_heads = n->n_kv_heads;
    kv.head_dim = n->head_dim;
    return kv;
}

static int32_t run_store_kv(const struct context *c, const struct mmqi_node *n, struct operands *o)
{
    const int32_t *slots = index_of(c, MMQI_INDEX_SLOTS);
    struct mmqi_kv kv;

    if (!slots)
        return missing(c, "slots");
    if (n->out < 0 && !c->run->kv)
        return missing(c, "the cache");
    kv = n->out < 0 ? c->run->kv[n->layer] : page_of(n, &o->y);
    return c->ops->store_kv(c->stream, &kv, &o->a, &o->b, slots);
}

static int32_t run_attention(const struct context *c, const struct mmqi_node *n, struct operands *o)
{
    const struct mmqi_span *spans = n->windows ? c->run->window_spans : c->run->spans;
    struct mmqi_kv kv;

    if (!spans)
        return missing(c, n->windows ? "window spans" : "spans");
    if (n->in[1] < 0 && !c->run->kv)
        return missing(c, "the cache");
    kv = n->in[1] < 0 ? c->run->kv[n->layer] : page_of(n, &o->b);
    return c->ops->attention(c->stream, &o->y, &o->a, n->n_heads, &kv, spans, n->scale);
}

static int32_t run_interpolate(const struct context *c, const struct mmqi_node *n,
                               struct operands *o)
{
    const int32_t *taps = index_of(c, MMQI_INDEX_TAPS);

    (void)n;
    if (!taps || !c->run->tap_weights)
        return missing(c, "taps");
    return c->ops->interpolate(c->stream, &o->y, &o->a, taps, c->run->tap_weights);
}

static int32_t run_patches(const struct context *c, const struct mmqi_node *n, struct operands *o)
{
    struct mmqi_patches how = {
        n->channels, c->run->picture_height, c->run->picture_width, n->patch, n->frames, n->merge};
    int64_t side = (int64_t)n->patch * n->merge;
    int64_t squares = how.height / side * (how.width / side);

    if (how.height < 0 || squares * n->merge * n->merge != o->y.rows)
        return mmqi_fail(MMQ_ERR_INTERNAL, "run: %s: a picture of %d x %d does not make %lld rows",
                         c->segment->name, (int)how.width, (int)how.height, (long long)o->y.rows);
    if (c->run->picture_frames > 0) { /* the frames of a channel lie as channels would */
        if (c->run->picture_frames != n->frames)
            return mmqi_fail(MMQ_ERR_INTERNAL, "run: %s: %d frames, patches of %d",
                             c->segment->name, (int)c->run->picture_frames, (int)n->frames);
        how.channels *= how.frames;
        how.frames = 1;
    }
    return c->ops->patches(c->stream, &o->y, o->a.data, &how);
}

static int32_t (*const runners[MMQI_N_OPS])(const struct context *, const struct mmqi_node *,
                                            struct operands *) = {
    [MMQI_OP_EMBED] = run_embed,
    [MMQI_OP_PLACE_ROWS] = run_place_rows,
    [MMQI_OP_GATHER] = run_gather,
    [MMQI_OP_COPY] = run_copy,
    [MMQI_OP_ADD] = run_add,
    [MMQI_OP_LAYER_NORM] = run_layer_norm,
    [MMQI_OP_RMS_NORM] = run_rms_norm,
    [MMQI_OP_MATMUL] = run_matmul,
    [MMQI_OP_ACTIVATE] = run_activate,
    [MMQI_OP_GATE] = run_gate,
    [MMQI_OP_ROPE] = run_rope,
    [MMQI_OP_STORE_KV] = run_store_kv,
    [MMQI_OP_ATTENTION] = run_attention,
    [MMQI_OP_PATCHES] = run_patches,
    [MMQI_OP_INTERPOLATE] = run_interpolate,
};

static int32_t run_node(const struct context *c, const struct mmqi_node *n)
{
    struct operands o = {0};
    int32_t status = MMQ_OK;

    if (n->out >= 0)
        status = resolve(c, n->out, &o.y);
    if (status == MMQ_OK && n->in[0] >= 0)
        status = resolve(c, n->in[0], &o.a);
    if (status == MMQ_OK && n->in[1] >= 0)
        status = resolve(c, n->in[1], &o.b);
    if (status != MMQ_OK)
        return status;
    if ((n->out >= 0 ? o.y.rows : o.a.rows) == 0)
        return MMQ_OK;
    if (n->weight >= 0) {
        o.w = &c->run->weights[n->weight].mat;
        o.vector = c->run->weights[n->weight].vector;
    }
    if (n->bias >= 0) {
        o.bias = c->run->weights[n->bias].vector;
        if (!o.bias)
            return missing(c, "a bias");
    }
    return runners[n->op](c, n, &o);
}

static int32_t call_after(const struct context *c)
{
    struct mmqi_mat mat = {0};
    int32_t status = MMQ_OK;

    if (c->run->cancelled && __atomic_load_n(c->run->cancelled, __ATOMIC_RELAXED))
        return mmqi_fail(MMQ_ERR_CANCELLED, "run: cancelled at %s", c->segment->name);
    if (!c->run->after)
        return MMQ_OK;
    if (c->segment->n_live_out > 0)
        status = resolve(c, c->segment->live_out[0], &mat);
    if (status != MMQ_OK)
        return status;
    return c->run->after(c->run->after_user, c->segment, mat.data ? &mat : NULL);
}

/* The token that follows, and the row that it will be. */
static int32_t run_next(const struct context *c)
{
    struct mmqi_mat row = {0};
    int32_t status = MMQ_OK;

    if (c->segment && c->segment->n_live_out > 0)
        status = resolve(c, c->segment->live_out[0], &row);
    if (status == MMQ_OK && (row.rows != 1 || !row.data))
        status = mmqi_fail(MMQ_ERR_INTERNAL, "run: %lld rows to pick the next token from",
                           (long long)row.rows);
    if (status == MMQ_OK)
        status = c->ops->pick(c->stream, c->run->next->id, &row);
    return status == MMQ_OK ? c->ops->advance(c->stream, c->run->next) : status;
}

static int32_t check_run(const struct context *c, int32_t begin, int32_t end)
{
    if (begin < 0 || begin > end || end > mmqi_graph_n_segments(c->graph))
        return mmqi_fail(MMQ_ERR_INTERNAL, "run: segments [%d, %d) of %d", begin, end,
                         mmqi_graph_n_segments(c->graph));
    for (int32_t i = 1; i < MMQI_N_SYMBOLS; i++)
        if (c->run->rows[i] < 0 || c->run->rows[i] > mmqi_plan_max_rows(c->plan, i))
            return mmqi_fail(MMQ_ERR_INTERNAL, "run: %lld rows where %lld were planned",
                             (long long)c->run->rows[i], (long long)mmqi_plan_max_rows(c->plan, i));
    if (!c->run->arena && mmqi_plan_bytes(c->plan) > 0)
        return mmqi_fail(MMQ_ERR_INTERNAL, "run: no arena");
    return MMQ_OK;
}

int32_t mmqi_graph_execute(struct mmqi_stream *stream, const struct mmqi_ops *ops,
                           const struct mmqi_graph *graph, const struct mmqi_plan *plan,
                           const struct mmqi_run *run, int32_t begin, int32_t end)
{
    struct context c = {stream, ops, graph, plan, run, NULL};
    int32_t status = check_run(&c, begin, end);

    for (int32_t s = begin; s < end && status == MMQ_OK; s++) {
        c.segment = mmqi_graph_segment_at(graph, s);
        for (int32_t i = c.segment->begin; i < c.segment->end && status == MMQ_OK; i++)
            status = run_node(&c, mmqi_graph_node_at(graph, i));
        if (status == MMQ_OK)
            status = call_after(&c);
    }
    return status == MMQ_OK && run->next ? run_next(&c) : status;
}
