/*
 * The CLIP vision tower.
 *
 * Facts that bite: hidden state 0 is what follows the first norm (pre_norm,
 * "pre_layrnorm" in files); post_norm belongs to the pooled output alone and
 * never touches patch rows; the class row is row 0.
 */
#include "model/tower_clip.h"

#include <stdio.h>

#include "core/status.h"
#include "model/config.h"

int32_t mmqi_clip_patches(const struct mmqi_clip *clip)
{
    return (clip->image / clip->patch) * (clip->image / clip->patch);
}

static int32_t check_sizes(const struct mmqi_clip *clip, const struct mmqi_settings *settings,
                           const char *prefix, int32_t channels)
{
    const char *file = mmqi_settings_name(settings);

    if (channels != 3)
        return mmqi_fail(MMQ_ERR_UNSUPPORTED, "%s: %s.num_channels %d; only 3 are run", file,
                         prefix, (int)channels);
    if (clip->hidden % clip->n_heads != 0)
        return mmqi_fail(MMQ_ERR_FORMAT, "%s: %s.hidden_size %d is no multiple of %d heads", file,
                         prefix, (int)clip->hidden, (int)clip->n_heads);
    if (clip->image % clip->patch != 0)
        return mmqi_fail(MMQ_ERR_UNSUPPORTED,
                         "%s: %s.image_size %d is no multiple of patch_size %d", file, prefix,
                         (int)clip->image, (int)clip->patch);
    return MMQ_OK;
}

int32_t mmqi_clip_configure(struct mmqi_clip *clip, const struct mmqi_settings *settings,
                            const char *prefix)
{
    const struct {
        const char *key;
        int32_t max, *value;
    } sizes[] = {
        {"hidden_size", MMQI_MAX_HIDDEN, &clip->hidden},
        {"intermediate_size", MMQI_MAX_INNER, &clip->inner},
        {"num_hidden_layers", MMQI_MAX_LAYERS, &clip->n_layers},
        {"num_attention_heads", MMQI_MAX_HEADS, &clip->n_heads},
        {"image_size", MMQI_MAX_IMAGE_SIDE, &clip->image},
        {"patch_size", MMQI_MAX_IMAGE_SIDE, &clip->patch},
    };
    int32_t channels = 3, status = MMQ_OK;

    for (size_t i = 0; i < sizeof sizes / sizeof *sizes && status == MMQ_OK; i++)
        status = mmqi_config_int(settings, prefix, sizes[i].key, 1, sizes[i].max, sizes[i].value);
    if (status == MMQ_OK)
        status = mmqi_config_int(settings, prefix, "num_channels", 1, 1024, &channels);
    if (status == MMQ_OK)
        status = mmqi_config_number(settings, prefix, "layer_norm_eps", 1e-12, 1.0, &clip->eps);
    if (status == MMQ_OK)
        status = mmqi_config_activation(settings, prefix, "hidden_act", &clip->act);
    return status == MMQ_OK ? check_sizes(clip, settings, prefix, channels) : status;
}

static void declare_block(struct mmqi_declare *d, const struct mmqi_clip *clip, int32_t layer)
{
    char at[MMQI_MAX_WEIGHT_NAME];

    snprintf(at, sizeof at, "vision.blocks.%d", (int)layer);
    d->at = at;
    d->flags = layer < clip->n_run ? 0 : MMQI_WEIGHT_UNUSED;
    mmqi_declare_norm(d, "norm1", clip->hidden, true);
    mmqi_declare_linear(d, "attn.q", clip->hidden, clip->hidden, true);
    mmqi_declare_linear(d, "attn.k", clip->hidden, clip->hidden, true);
    mmqi_declare_linear(d, "attn.v", clip->hidden, clip->hidden, true);
    mmqi_declare_linear(d, "attn.o", clip->hidden, clip->hidden, true);
    mmqi_declare_norm(d, "norm2", clip->hidden, true);
    mmqi_declare_linear(d, "mlp.fc1", clip->inner, clip->hidden, true);
    mmqi_declare_linear(d, "mlp.fc2", clip->hidden, clip->inner, true);
    d->at = "vision";
    d->flags = 0;
}

int32_t mmqi_clip_declare(struct mmqi_model *model, const struct mmqi_clip *clip)
{
    const int64_t patch[4] = {clip->hidden, 3, clip->patch, clip->patch};
    const int64_t positions[2] = {mmqi_clip_patches(clip) + 1, clip->hidden};
    struct mmqi_declare d = {.model = model, .at = "vision"};

    mmqi_declare_weight(&d, "patch", MMQI_ROLE_CONV, 4, patch);
    mmqi_declare_vector(&d, "class", clip->hidden);
    mmqi_declare_weight(&d, "positions", MMQI_ROLE_VECTOR, 2, positions);
    mmqi_declare_norm(&d, "pre_norm", clip->hidden, true);
    for (int32_t i = 0; i < clip->n_layers; i++)
        declare_block(&d, clip, i);
    d.flags = MMQI_WEIGHT_UNUSED;
    mmqi_declare_norm(&d, "post_norm", clip->hidden, true);
    return d.status;
}

static struct mmqi_extent fixed(int64_t rows)
{
    return (struct mmqi_extent){MMQI_ROWS_CONST, 0, rows};
}

/* Pixels to rows of flat patches. */
static int32_t build_patches(struct mmqi_build *b, const struct mmqi_clip *clip)
{
    struct mmqi_extent rows = fixed(mmqi_clip_patches(clip));
    int64_t cols = 3 * (int64_t)clip->patch * clip->patch;
    struct mmqi_node node = mmqi_node(MMQI_OP_PATCHES);

    node.in[0] = mmqi_graph_input(b->graph, "pixels", MMQI_BIND_PIXELS, rows, cols);
    node.out = mmqi_graph_value(b->graph, "patches", rows, cols);
    node.channels = 3;
    node.patch = clip->patch;
    node.frames = node.merge = 1;
    mmqi_build_node(b, &node);
    return node.out;
}

/* The class row, then the patches, all with their positions, normed: hidden state 0. */
static int32_t build_embed(struct mmqi_build *b, const struct mmqi_clip *clip)
{
    int32_t n = mmqi_clip_patches(clip), rows, positions, patches, out;
    struct mmqi_node copy = mmqi_node(MMQI_OP_COPY);

    b->at = "vision";
    mmqi_graph_begin_segment(b->graph, "vision.embed");
    patches = build_patches(b, clip);
    rows = mmqi_graph_value(b->graph, b->at, fixed(n + 1), clip->hidden);
    mmqi_build_linear_into(b, "patch", patches, mmqi_graph_slice(b->graph, rows, 1, fixed(n)));
    copy.in[0] = mmqi_graph_weight_value(b->graph, mmqi_build_weight(b, "class"), 1, clip->hidden);
    copy.out = mmqi_graph_slice(b->graph, rows, 0, fixed(1));
    mmqi_build_node(b, &copy);
    positions =
        mmqi_graph_weight_value(b->graph, mmqi_build_weight(b, "positions"), n + 1, clip->hidden);
    out = mmqi_build_add(b, rows, positions);
    out = mmqi_build_layer_norm(b, "pre_norm", out, (float)clip->eps);
    mmqi_graph_end_segment(b->graph, &out, 1);
    return out;
}

static int32_t build_attention(struct mmqi_build *b, const struct mmqi_clip *clip, int32_t in)
{
    int32_t q = mmqi_build_linear(b, "attn.q", in);
    int32_t k = mmqi_build_linear(b, "attn.k", in);
    int32_t v = mmqi_build_linear(b, "attn.v", in);

    return mmqi_build_linear(b, "attn.o", mmqi_build_page_attention(b, q, k, v, clip->n_heads));
}

static int32_t build_block(struct mmqi_build *b, const struct mmqi_clip *clip, int32_t layer,
                           int32_t x)
{
    char at[MMQI_MAX_WEIGHT_NAME];
    int32_t y;

    snprintf(at, sizeof at, "vision.blocks.%d", (int)layer);
    b->at = at;
    mmqi_graph_begin_segment(b->graph, at);
    y = mmqi_build_layer_norm(b, "norm1", x, (float)clip->eps);
    x = mmqi_build_add(b, x, build_attention(b, clip, y));
    x = mmqi_build_mlp(b, x, clip->act, (float)clip->eps);
    mmqi_graph_end_segment(b->graph, &x, 1);
    b->at = "vision";
    return x;
}

int32_t mmqi_clip_build(struct mmqi_build *b, const struct mmqi_clip *clip)
{
    int32_t x = build_embed(b, clip);

    for (int32_t i = 0; i < clip->n_run; i++)
        x = build_block(b, clip, i, x);
    return x;
}
