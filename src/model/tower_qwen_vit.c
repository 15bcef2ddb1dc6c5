/*
 * The vision towers of Qwen-VL.
 *
 * Facts that bite: Qwen2-VL's "hidden_size" is the width of the merger's
 * output, the tower's own is "embed_dim"; patches follow each other by squares, so that
 * the rows of a square lie together for the merger; half of a head's
 * frequencies read the patch's row, half its column; a picture fills every
 * frame of the patch convolution with itself; the epsilon of the norms is no
 * setting.
 */
#include "model/tower_qwen_vit.h"

#include <math.h>
#include <stdio.h>

#include "core/mem.h"
#include "core/status.h"
#include "model/config.h"

enum {
    MAX_RATIO = 64,
    MAX_PATCH = 256,
    MAX_MERGE = 16,
    MAX_FRAMES = 16,
    MAX_POSITIONS = 1 << 20,
    MAX_PER_SECOND = 1000
};

static const float norm_eps = 1e-6f;

static int32_t check_sizes(const struct mmqi_qwen_vit *vit, const struct mmqi_settings *settings,
                           const char *prefix, const int32_t channels[2])
{
    const char *file = mmqi_settings_name(settings);

    if (channels[0] != 3 || channels[1] != 3)
        return mmqi_fail(MMQ_ERR_UNSUPPORTED, "%s: %s.in_channels %d; only 3 are run", file, prefix,
                         (int)(channels[0] != 3 ? channels[0] : channels[1]));
    if (vit->hidden % vit->n_heads != 0 || vit->hidden / vit->n_heads % 4 != 0)
        return mmqi_fail(MMQ_ERR_FORMAT, "%s: %s.%s %d does not make %d heads of a multiple of 4",
                         file, prefix, vit->by_ratio ? "embed_dim" : "hidden_size",
                         (int)vit->hidden, (int)vit->n_heads);
    if (vit->inner > MMQI_MAX_INNER)
        return mmqi_fail(MMQ_ERR_FORMAT, "%s: %s: an inner width of %d", file, prefix,
                         (int)vit->inner);
    return MMQ_OK;
}

static int32_t read_rope(struct mmqi_qwen_vit *vit, const struct mmqi_settings *settings,
                         const char *prefix)
{
    int32_t status = mmqi_config_only(settings, prefix, "rope_parameters.rope_type", "axial");

    return status == MMQ_OK ? mmqi_config_number(settings, prefix, "rope_parameters.rope_theta",
                                                 1.0, 1e15, &vit->theta)
                            : status;
}

/* Windows of whole squares, the blocks that go without, and how fast time goes in videos. */
static int32_t read_windows(struct mmqi_qwen_vit *vit, const struct mmqi_settings *settings,
                            const char *prefix)
{
    int32_t square = vit->patch * vit->merge;
    int32_t status =
        mmqi_config_int(settings, prefix, "window_size", 1, MMQI_MAX_IMAGE_SIDE, &vit->window_size);

    if (status == MMQ_OK)
        status = mmqi_config_int(settings, prefix, "tokens_per_second", 1, MAX_PER_SECOND,
                                 &vit->tokens_per_second);
    if (status == MMQ_OK)
        status = mmqi_config_ints(settings, prefix, "fullatt_block_indexes", 0, vit->n_layers - 1,
                                  vit->full, MMQI_QWEN_LISTED, &vit->n_full);
    if (status == MMQ_OK && vit->window_size % square != 0)
        status =
            mmqi_fail(MMQ_ERR_FORMAT, "%s: %s.window_size %d is no whole number of squares of %d",
                      mmqi_settings_name(settings), prefix, (int)vit->window_size, (int)square);
    vit->window = vit->window_size / square;
    return status;
}

static int32_t read_positions(struct mmqi_qwen_vit *vit, const struct mmqi_settings *settings,
                              const char *prefix)
{
    int32_t side = 1;
    int32_t status = mmqi_config_int(settings, prefix, "num_position_embeddings", 1, MAX_POSITIONS,
                                     &vit->positions);

    while (status == MMQ_OK && side * side < vit->positions)
        side++;
    if (status == MMQ_OK && side * side != vit->positions)
        status = mmqi_fail(MMQ_ERR_FORMAT, "%s: %s.num_position_embeddings %d is no square number",
                           mmqi_settings_name(settings), prefix, (int)vit->positions);
    vit->position_side = side;
    return status;
}

static int32_t read_deepstack(struct mmqi_qwen_vit *vit, const struct mmqi_settings *settings,
                              const char *prefix)
{
    static const char key[] = "deepstack_visual_indexes";
    const int32_t *at = vit->deepstack;
    int32_t status = mmqi_config_ints(settings, prefix, key, 0, vit->n_layers - 1, vit->deepstack,
                                      MMQI_QWEN_LISTED, &vit->n_deepstack);

    for (int32_t i = 0; i < vit->n_deepstack && status == MMQ_OK; i++) {
        if (at[i] >= vit->n_layers) /* a default */
            status =
                mmqi_fail(MMQ_ERR_FORMAT, "%s: %s.%s: block %d of %d", mmqi_settings_name(settings),
                          prefix, key, (int)at[i], (int)vit->n_layers);
        else if (i > 0 && at[i] <= at[i - 1])
            status =
                mmqi_fail(MMQ_ERR_UNSUPPORTED, "%s: %s.%s: %d after %d",
                          mmqi_settings_name(settings), prefix, key, (int)at[i], (int)at[i - 1]);
    }
    return status;
}

static int32_t read_widths(struct mmqi_qwen_vit *vit, const struct mmqi_settings *settings,
                           const char *prefix)
{
    int32_t ratio = 4;
    int32_t status = mmqi_config_int(settings, prefix, vit->by_ratio ? "embed_dim" : "hidden_size",
                                     1, MMQI_MAX_HIDDEN, &vit->hidden);

    if (status == MMQ_OK)
        status =
            mmqi_config_int(settings, prefix, vit->by_ratio ? "hidden_size" : "out_hidden_size", 1,
                            MMQI_MAX_HIDDEN, &vit->out);
    if (status == MMQ_OK && !vit->by_ratio)
        return mmqi_config_int(settings, prefix, "intermediate_size", 1, MMQI_MAX_INNER,
                               &vit->inner);
    if (status == MMQ_OK)
        status = mmqi_config_int(settings, prefix, "mlp_ratio", 1, MAX_RATIO, &ratio);
    vit->inner = vit->hidden * ratio;
    return status;
}

int32_t mmqi_qwen_vit_configure(struct mmqi_qwen_vit *vit, const struct mmqi_settings *settings,
                                const char *prefix)
{
    int32_t channels[2] = {3, 3}, status = read_widths(vit, settings, prefix);
    const struct {
        const char *key;
        int32_t max, *value;
    } sizes[] = {
        {"depth", MMQI_MAX_LAYERS, &vit->n_layers},
        {"num_heads", MMQI_MAX_HEADS, &vit->n_heads},
        {"patch_size", MAX_PATCH, &vit->patch},
        {"spatial_merge_size", MAX_MERGE, &vit->merge},
        {"temporal_patch_size", MAX_FRAMES, &vit->frames},
        {"in_channels", 1024, &channels[0]},
        {"in_chans", 1024, &channels[1]},
    };

    for (size_t i = 0; i < sizeof sizes / sizeof *sizes && status == MMQ_OK; i++)
        status = mmqi_config_int(settings, prefix, sizes[i].key, 1, sizes[i].max, sizes[i].value);
    if (status == MMQ_OK)
        status = mmqi_config_activation(settings, prefix, "hidden_act", &vit->act);
    if (status == MMQ_OK)
        status = read_rope(vit, settings, prefix);
    if (status == MMQ_OK && vit->window_size > 0)
        status = read_windows(vit, settings, prefix);
    if (status == MMQ_OK && vit->positions > 0)
        status = read_positions(vit, settings, prefix);
    if (status == MMQ_OK && vit->n_deepstack > 0)
        status = read_deepstack(vit, settings, prefix);
    return status == MMQ_OK ? check_sizes(vit, settings, prefix, channels) : status;
}

/* ---- weights ---- */

/* Of a head's frequencies the first half reads the row (axis 0), the second the same for the
 * column. */
static void declare_rope(struct mmqi_declare *d, const struct mmqi_qwen_vit *vit)
{
    int32_t n = vit->hidden / vit->n_heads / 2;
    float *values = mmqi_alloc_array((size_t)n, sizeof *values);
    int32_t *axis = mmqi_alloc_array((size_t)n, sizeof *axis);

    if (!values || !axis)
        d->status = mmqi_fail(MMQ_ERR_NOMEM, "%s: no memory for frequencies", d->model->path);
    for (int32_t i = 0; i < n && d->status == MMQ_OK; i++) {
        float exponent = (float)(2 * (i % (n / 2))) / (float)n;

        values[i] = 1.0f / (float)pow(vit->theta, (double)exponent);
        axis[i] = i / (n / 2);
    }
    if (d->status == MMQ_OK) {
        mmqi_declare_constant(d, "rope", values, n);
        mmqi_declare_indices(d, "rope.axis", axis, n);
    }
    mmqi_free(values);
    mmqi_free(axis);
}

static void declare_block(struct mmqi_declare *d, const struct mmqi_qwen_vit *vit, int32_t layer)
{
    char at[MMQI_MAX_WEIGHT_NAME];

    snprintf(at, sizeof at, "vision.blocks.%d", (int)layer);
    d->at = at;
    mmqi_declare_norm(d, "norm1", vit->hidden, !vit->gated);
    mmqi_declare_linear(d, "attn.qkv", 3 * (int64_t)vit->hidden, vit->hidden, true);
    mmqi_declare_linear(d, "attn.o", vit->hidden, vit->hidden, true);
    mmqi_declare_norm(d, "norm2", vit->hidden, !vit->gated);
    if (vit->gated) {
        mmqi_declare_linear(d, "mlp.gate", vit->inner, vit->hidden, true);
        mmqi_declare_linear(d, "mlp.up", vit->inner, vit->hidden, true);
        mmqi_declare_linear(d, "mlp.down", vit->hidden, vit->inner, true);
    } else {
        mmqi_declare_linear(d, "mlp.fc1", vit->inner, vit->hidden, true);
        mmqi_declare_linear(d, "mlp.fc2", vit->hidden, vit->inner, true);
    }
    d->at = "vision";
}

/* Numbers of a square of patches in a row. */
static int64_t square_of(const struct mmqi_qwen_vit *vit)
{
    return (int64_t)vit->hidden * vit->merge * vit->merge;
}

static void declare_merger(struct mmqi_declare *d, const struct mmqi_qwen_vit *vit, int64_t normed)
{
    mmqi_declare_norm(d, "norm", normed, !vit->gated);
    mmqi_declare_linear(d, "0", square_of(vit), square_of(vit), true);
    mmqi_declare_linear(d, "1", vit->out, square_of(vit), true);
}

int32_t mmqi_qwen_vit_declare(struct mmqi_model *model, const struct mmqi_qwen_vit *vit)
{
    const int64_t patch[5] = {vit->hidden, 3, vit->frames, vit->patch, vit->patch};
    const int64_t positions[2] = {vit->positions, vit->hidden};
    struct mmqi_declare d = {.model = model, .at = "vision"};
    char at[MMQI_MAX_WEIGHT_NAME];

    mmqi_declare_weight(&d, "patch", MMQI_ROLE_CONV, 5, patch);
    if (vit->patch_bias)
        mmqi_declare_vector(&d, "patch.bias", vit->hidden);
    if (vit->positions > 0)
        mmqi_declare_weight(&d, "positions", MMQI_ROLE_VECTOR, 2, positions);
    declare_rope(&d, vit);
    for (int32_t i = 0; i < vit->n_layers; i++)
        declare_block(&d, vit, i);
    d.at = "projector";
    declare_merger(&d, vit, vit->hidden);
    for (int32_t i = 0; i < vit->n_deepstack; i++) {
        snprintf(at, sizeof at, "projector.deepstack.%d", (int)i);
        d.at = at;
        declare_merger(&d, vit, square_of(vit));
    }
    return d.status;
}

/* ---- the graph: a run has merge * merge patches for every row of the picture ---- */

static struct mmqi_extent patch_rows(const struct mmqi_qwen_vit *vit)
{
    return (struct mmqi_extent){MMQI_ROWS_IMAGE, (int64_t)vit->merge * vit->merge, 0};
}

/* The patches of a square as one row. */
static int32_t join_square(struct mmqi_build *b, const struct mmqi_qwen_vit *vit, int32_t x)
{
    return x < 0 ? -1 : mmqi_graph_join_rows(b->graph, x, (int64_t)vit->merge * vit->merge);
}

/* Learned positions, mixed for the picture's grid, onto x. */
static void build_positions(struct mmqi_build *b, const struct mmqi_qwen_vit *vit, int32_t x)
{
    struct mmqi_node node = mmqi_node(MMQI_OP_INTERPOLATE);

    node.out = x;
    node.in[0] = mmqi_graph_weight_value(b->graph, mmqi_build_weight(b, "positions"),
                                         vit->positions, vit->hidden);
    mmqi_build_node(b, &node);
}

/* Squares in the order of windows. */
static int32_t build_windows(struct mmqi_build *b, const struct mmqi_qwen_vit *vit, int32_t x)
{
    struct mmqi_node node = mmqi_node(MMQI_OP_GATHER);
    int32_t y = mmqi_graph_value(b->graph, b->at, patch_rows(vit), vit->hidden);

    node.in[0] = join_square(b, vit, x);
    node.out = join_square(b, vit, y);
    node.index = MMQI_INDEX_ORDER;
    mmqi_build_node(b, &node);
    return y;
}

static int32_t build_embed(struct mmqi_build *b, const struct mmqi_qwen_vit *vit)
{
    struct mmqi_extent rows = patch_rows(vit);
    int64_t cols = 3 * (int64_t)vit->patch * vit->patch;
    struct mmqi_node node = mmqi_node(MMQI_OP_PATCHES);
    int32_t x;

    b->at = "vision";
    mmqi_graph_begin_segment(b->graph, "vision.embed");
    node.in[0] = mmqi_graph_input(b->graph, "pixels", MMQI_BIND_PIXELS, rows, cols);
    node.out = mmqi_graph_value(b->graph, "patches", rows, cols * vit->frames);
    node.channels = 3;
    node.patch = vit->patch;
    node.frames = vit->frames;
    node.merge = vit->merge;
    mmqi_build_node(b, &node);
    x = mmqi_build_linear(b, "patch", node.out);
    if (vit->positions > 0)
        build_positions(b, vit, x);
    if (vit->window > 0)
        x = build_windows(b, vit, x);
    mmqi_graph_end_segment(b->graph, &x, 1);
    return x;
}

static void build_rope(struct mmqi_build *b, const struct mmqi_qwen_vit *vit, int32_t x)
{
    struct mmqi_node node = mmqi_node(MMQI_OP_ROPE);

    node.out = x;
    node.weight = mmqi_model_find(b->model, "vision.rope");
    node.bias = mmqi_model_find(b->model, "vision.rope.axis");
    node.n_axes = 2;
    node.n_heads = vit->n_heads;
    node.head_dim = vit->hidden / vit->n_heads;
    mmqi_build_node(b, &node);
}

/* q, k and v lie beside each other in every row. */
static int32_t build_attention(struct mmqi_build *b, const struct mmqi_qwen_vit *vit, int32_t in)
{
    int32_t qkv = mmqi_build_linear(b, "attn.qkv", in), part[3], y;

    for (int i = 0; i < 3; i++)
        part[i] =
            qkv < 0 ? -1 : mmqi_graph_columns(b->graph, qkv, i * (int64_t)vit->hidden, vit->hidden);
    build_rope(b, vit, part[0]);
    build_rope(b, vit, part[1]);
    y = mmqi_build_page_attention(b, part[0], part[1], part[2], vit->n_heads);
    return mmqi_build_linear(b, "attn.o", y);
}

static int32_t build_norm(struct mmqi_build *b, const struct mmqi_qwen_vit *vit, const char *name,
                          int32_t x)
{
    return vit->gated ? mmqi_build_rms_norm(b, name, x, norm_eps)
                      : mmqi_build_layer_norm(b, name, x, norm_eps);
}

/* Does a block see windows alone? */
static bool sees_windows(const struct mmqi_qwen_vit *vit, int32_t layer)
{
    for (int32_t i = 0; i < vit->n_full; i++)
        if (vit->full[i] == layer)
            return false;
    return vit->window > 0;
}

static int32_t build_block(struct mmqi_build *b, const struct mmqi_qwen_vit *vit, int32_t layer,
                           int32_t x)
{
    char at[MMQI_MAX_WEIGHT_NAME];
    int32_t y;

    snprintf(at, sizeof at, "vision.blocks.%d", (int)layer);
    b->at = at;
    b->windows = sees_windows(vit, layer);
    mmqi_graph_begin_segment(b->graph, at);
    y = build_norm(b, vit, "norm1", x);
    x = mmqi_build_add(b, x, build_attention(b, vit, y));
    if (vit->gated) {
        y = build_norm(b, vit, "norm2", x);
        x = mmqi_build_add(b, x, mmqi_build_gated(b, y, vit->act));
    } else {
        x = mmqi_build_mlp(b, x, vit->act, norm_eps);
    }
    mmqi_graph_end_segment(b->graph, &x, 1);
    b->at = "vision";
    return x;
}

/* The squares of block `layer`, normed as a whole, as rows to be added after a layer. */
static int32_t build_deepstack(struct mmqi_build *b, const struct mmqi_qwen_vit *vit, int32_t k,
                               int32_t x)
{
    char at[MMQI_MAX_WEIGHT_NAME];

    snprintf(at, sizeof at, "projector.deepstack.%d", (int)k);
    b->at = at;
    mmqi_graph_begin_segment(b->graph, at);
    x = build_norm(b, vit, "norm", join_square(b, vit, x));
    x = mmqi_build_activate(b, mmqi_build_linear(b, "0", x), MMQI_ACT_GELU);
    x = mmqi_build_linear(b, "1", x);
    mmqi_graph_end_segment(b->graph, &x, 1);
    b->at = "vision";
    return x;
}

/* Windows' rows back into the order of the grid. */
static void undo_windows(struct mmqi_build *b, int32_t x, int32_t out)
{
    struct mmqi_node node = mmqi_node(MMQI_OP_GATHER);

    node.in[0] = x;
    node.out = out;
    node.index = MMQI_INDEX_UNDO;
    mmqi_build_node(b, &node);
}

/* The patches of a square, normed one by one, become one row; beside it those of DeepStack. */
static void build_merger(struct mmqi_build *b, const struct mmqi_qwen_vit *vit, int32_t x,
                         const int32_t *deepstack)
{
    struct mmqi_extent rows = {MMQI_ROWS_IMAGE, 1, 0};
    int64_t width = vit->out;
    int32_t out, first;

    b->at = "projector";
    mmqi_graph_begin_segment(b->graph, "projector");
    x = join_square(b, vit, build_norm(b, vit, "norm", x));
    x = mmqi_build_activate(b, mmqi_build_linear(b, "0", x), MMQI_ACT_GELU);
    out = mmqi_graph_output(b->graph, "projector", MMQI_BIND_IMAGE, rows,
                            width * (1 + vit->n_deepstack));
    first = out < 0 ? -1 : mmqi_graph_columns(b->graph, out, 0, width);
    if (vit->window > 0)
        undo_windows(b, mmqi_build_linear(b, "1", x), first);
    else
        mmqi_build_linear_into(b, "1", x, first);
    for (int32_t i = 0; i < vit->n_deepstack; i++) {
        struct mmqi_node copy = mmqi_node(MMQI_OP_COPY);

        copy.in[0] = deepstack[i];
        copy.out = out < 0 ? -1 : mmqi_graph_columns(b->graph, out, (i + 1) * width, width);
        mmqi_build_node(b, &copy);
    }
    mmqi_graph_end_segment(b->graph, &out, 1);
}

int32_t mmqi_qwen_vit_build(struct mmqi_build *b, const struct mmqi_qwen_vit *vit)
{
    int32_t x = build_embed(b, vit), deepstack[MMQI_QWEN_LISTED], n = 0;

    for (int32_t i = 0; i < vit->n_layers; i++) {
        x = build_block(b, vit, i, x);
        if (n < vit->n_deepstack && vit->deepstack[n] == i) {
            deepstack[n] = build_deepstack(b, vit, n, x);
            n++;
        }
    }
    build_merger(b, vit, x, deepstack);
    return mmqi_build_finish(b);
}
