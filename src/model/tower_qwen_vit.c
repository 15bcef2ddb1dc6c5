/*
 * The vision tower of Qwen2-VL.
 *
 * Facts that bite: "hidden_size" is the width of the merger's output, the
 * tower's own is "embed_dim"; patches follow each other by squares, so that
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

enum { MAX_RATIO = 64, MAX_PATCH = 256, MAX_MERGE = 16, MAX_FRAMES = 16 };

static const float norm_eps = 1e-6f;

static int32_t check_sizes(const struct mmqi_qwen_vit *vit, const struct mmqi_settings *settings,
                           const char *prefix, const int32_t channels[2])
{
    const char *file = mmqi_settings_name(settings);

    if (channels[0] != 3 || channels[1] != 3)
        return mmqi_fail(MMQ_ERR_UNSUPPORTED, "%s: %s.in_channels %d; only 3 are run", file, prefix,
                         (int)(channels[0] != 3 ? channels[0] : channels[1]));
    if (vit->hidden % vit->n_heads != 0 || vit->hidden / vit->n_heads % 4 != 0)
        return mmqi_fail(MMQ_ERR_FORMAT,
                         "%s: %s.embed_dim %d does not make %d heads of a multiple of 4", file,
                         prefix, (int)vit->hidden, (int)vit->n_heads);
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

int32_t mmqi_qwen_vit_configure(struct mmqi_qwen_vit *vit, const struct mmqi_settings *settings,
                                const char *prefix)
{
    int32_t channels[2] = {3, 3}, ratio = 4, status = MMQ_OK;
    const struct {
        const char *key;
        int32_t max, *value;
    } sizes[] = {
        {"embed_dim", MMQI_MAX_HIDDEN, &vit->hidden},
        {"mlp_ratio", MAX_RATIO, &ratio},
        {"depth", MMQI_MAX_LAYERS, &vit->n_layers},
        {"num_heads", MMQI_MAX_HEADS, &vit->n_heads},
        {"hidden_size", MMQI_MAX_HIDDEN, &vit->out},
        {"patch_size", MAX_PATCH, &vit->patch},
        {"spatial_merge_size", MAX_MERGE, &vit->merge},
        {"temporal_patch_size", MAX_FRAMES, &vit->frames},
        {"in_channels", 1024, &channels[0]},
        {"in_chans", 1024, &channels[1]},
    };

    for (size_t i = 0; i < sizeof sizes / sizeof *sizes && status == MMQ_OK; i++)
        status = mmqi_config_int(settings, prefix, sizes[i].key, 1, sizes[i].max, sizes[i].value);
    vit->inner = vit->hidden * ratio;
    if (status == MMQ_OK)
        status = mmqi_config_activation(settings, prefix, "hidden_act", &vit->act);
    if (status == MMQ_OK)
        status = read_rope(vit, settings, prefix);
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
    mmqi_declare_norm(d, "norm1", vit->hidden, true);
    mmqi_declare_linear(d, "attn.qkv", 3 * (int64_t)vit->hidden, vit->hidden, true);
    mmqi_declare_linear(d, "attn.o", vit->hidden, vit->hidden, true);
    mmqi_declare_norm(d, "norm2", vit->hidden, true);
    mmqi_declare_linear(d, "mlp.fc1", vit->inner, vit->hidden, true);
    mmqi_declare_linear(d, "mlp.fc2", vit->hidden, vit->inner, true);
    d->at = "vision";
}

int32_t mmqi_qwen_vit_declare(struct mmqi_model *model, const struct mmqi_qwen_vit *vit)
{
    const int64_t patch[5] = {vit->hidden, 3, vit->frames, vit->patch, vit->patch};
    int64_t square = (int64_t)vit->hidden * vit->merge * vit->merge;
    struct mmqi_declare d = {.model = model, .at = "vision"};

    mmqi_declare_weight(&d, "patch", MMQI_ROLE_CONV, 5, patch);
    declare_rope(&d, vit);
    for (int32_t i = 0; i < vit->n_layers; i++)
        declare_block(&d, vit, i);
    d.at = "projector";
    mmqi_declare_norm(&d, "norm", vit->hidden, true);
    mmqi_declare_linear(&d, "0", square, square, true);
    mmqi_declare_linear(&d, "1", vit->out, square, true);
    return d.status;
}

/* ---- the graph: a run has merge * merge patches for every row of the picture ---- */

static int32_t build_embed(struct mmqi_build *b, const struct mmqi_qwen_vit *vit)
{
    struct mmqi_extent rows = {MMQI_ROWS_IMAGE, (int64_t)vit->merge * vit->merge, 0};
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

static int32_t build_block(struct mmqi_build *b, const struct mmqi_qwen_vit *vit, int32_t layer,
                           int32_t x)
{
    char at[MMQI_MAX_WEIGHT_NAME];
    int32_t y;

    snprintf(at, sizeof at, "vision.blocks.%d", (int)layer);
    b->at = at;
    mmqi_graph_begin_segment(b->graph, at);
    y = mmqi_build_layer_norm(b, "norm1", x, norm_eps);
    x = mmqi_build_add(b, x, build_attention(b, vit, y));
    x = mmqi_build_mlp(b, x, vit->act, norm_eps);
    mmqi_graph_end_segment(b->graph, &x, 1);
    b->at = "vision";
    return x;
}

/* The patches of a square, normed one by one, become one row. */
static void build_merger(struct mmqi_build *b, const struct mmqi_qwen_vit *vit, int32_t x)
{
    struct mmqi_extent rows = {MMQI_ROWS_IMAGE, 1, 0};
    int32_t out;

    b->at = "projector";
    mmqi_graph_begin_segment(b->graph, "projector");
    x = mmqi_build_layer_norm(b, "norm", x, norm_eps);
    x = x < 0 ? -1 : mmqi_graph_join_rows(b->graph, x, (int64_t)vit->merge * vit->merge);
    x = mmqi_build_linear(b, "0", x);
    x = mmqi_build_activate(b, x, MMQI_ACT_GELU);
    out = mmqi_graph_output(b->graph, "projector", MMQI_BIND_IMAGE, rows, vit->out);
    mmqi_build_linear_into(b, "1", x, out);
    mmqi_graph_end_segment(b->graph, &out, 1);
}

int32_t mmqi_qwen_vit_build(struct mmqi_build *b, const struct mmqi_qwen_vit *vit)
{
    int32_t x = build_embed(b, vit);

    for (int32_t i = 0; i < vit->n_layers; i++)
        x = build_block(b, vit, i, x);
    build_merger(b, vit, x);
    return mmqi_build_finish(b);
}
