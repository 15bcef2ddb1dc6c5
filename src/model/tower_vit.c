/* Settings and blocks of CLIP's and SigLIP's vision transformers. */
#include "model/tower_vit.h"

#include <stdio.h>

#include "core/status.h"
#include "model/config.h"

int32_t mmqi_vit_patches(const struct mmqi_vit *vit)
{
    return (vit->image / vit->patch) * (vit->image / vit->patch);
}

static int32_t check_sizes(const struct mmqi_vit *vit, const struct mmqi_settings *settings,
                           const char *prefix, int32_t channels)
{
    const char *file = mmqi_settings_name(settings);

    if (channels != 3)
        return mmqi_fail(MMQ_ERR_UNSUPPORTED, "%s: %s.num_channels %d; only 3 are run", file,
                         prefix, (int)channels);
    if (vit->hidden % vit->n_heads != 0)
        return mmqi_fail(MMQ_ERR_FORMAT, "%s: %s.hidden_size %d is no multiple of %d heads", file,
                         prefix, (int)vit->hidden, (int)vit->n_heads);
    if (vit->patch > vit->image)
        return mmqi_fail(MMQ_ERR_FORMAT, "%s: %s.image_size %d is less than patch_size %d", file,
                         prefix, (int)vit->image, (int)vit->patch);
    return MMQ_OK;
}

int32_t mmqi_vit_configure(struct mmqi_vit *vit, const struct mmqi_settings *settings,
                           const char *prefix)
{
    const struct {
        const char *key;
        int32_t max, *value;
    } sizes[] = {
        {"hidden_size", MMQI_MAX_HIDDEN, &vit->hidden},
        {"intermediate_size", MMQI_MAX_INNER, &vit->inner},
        {"num_hidden_layers", MMQI_MAX_LAYERS, &vit->n_layers},
        {"num_attention_heads", MMQI_MAX_HEADS, &vit->n_heads},
        {"image_size", MMQI_MAX_IMAGE_SIDE, &vit->image},
        {"patch_size", MMQI_MAX_IMAGE_SIDE, &vit->patch},
    };
    int32_t channels = 3, status = MMQ_OK;

    for (size_t i = 0; i < sizeof sizes / sizeof *sizes && status == MMQ_OK; i++)
        status = mmqi_config_int(settings, prefix, sizes[i].key, 1, sizes[i].max, sizes[i].value);
    if (status == MMQ_OK)
        status = mmqi_config_int(settings, prefix, "num_channels", 1, 1024, &channels);
    if (status == MMQ_OK)
        status = mmqi_config_number(settings, prefix, "layer_norm_eps", 1e-12, 1.0, &vit->eps);
    if (status == MMQ_OK)
        status = mmqi_config_activation(settings, prefix, "hidden_act", &vit->act);
    return status == MMQ_OK ? check_sizes(vit, settings, prefix, channels) : status;
}

static void declare_block(struct mmqi_declare *d, const struct mmqi_vit *vit, int32_t layer)
{
    char at[MMQI_MAX_WEIGHT_NAME];

    snprintf(at, sizeof at, "vision.blocks.%d", (int)layer);
    d->at = at;
    d->flags = layer < vit->n_run ? 0 : MMQI_WEIGHT_UNUSED;
    mmqi_declare_norm(d, "norm1", vit->hidden, true);
    mmqi_declare_linear(d, "attn.q", vit->hidden, vit->hidden, true);
    mmqi_declare_linear(d, "attn.k", vit->hidden, vit->hidden, true);
    mmqi_declare_linear(d, "attn.v", vit->hidden, vit->hidden, true);
    mmqi_declare_linear(d, "attn.o", vit->hidden, vit->hidden, true);
    mmqi_declare_norm(d, "norm2", vit->hidden, true);
    mmqi_declare_linear(d, "mlp.fc1", vit->inner, vit->hidden, true);
    mmqi_declare_linear(d, "mlp.fc2", vit->hidden, vit->inner, true);
    d->at = "vision";
    d->flags = 0;
}

void mmqi_vit_declare_blocks(struct mmqi_declare *d, const struct mmqi_vit *vit)
{
    for (int32_t i = 0; i < vit->n_layers; i++)
        declare_block(d, vit, i);
}

int32_t mmqi_vit_build_patches(struct mmqi_build *b, const struct mmqi_vit *vit, int32_t merge)
{
    struct mmqi_extent rows = {MMQI_ROWS_CONST, 0, mmqi_vit_patches(vit)};
    int64_t cols = 3 * (int64_t)vit->patch * vit->patch;
    struct mmqi_node node = mmqi_node(MMQI_OP_PATCHES);

    node.in[0] = mmqi_graph_input(b->graph, "pixels", MMQI_BIND_PIXELS, rows, cols);
    node.out = mmqi_graph_value(b->graph, "patches", rows, cols);
    node.channels = 3;
    node.patch = vit->patch;
    node.frames = 1;
    node.merge = merge;
    mmqi_build_node(b, &node);
    return node.out;
}

static int32_t build_attention(struct mmqi_build *b, const struct mmqi_vit *vit, int32_t in)
{
    int32_t q = mmqi_build_linear(b, "attn.q", in);
    int32_t k = mmqi_build_linear(b, "attn.k", in);
    int32_t v = mmqi_build_linear(b, "attn.v", in);

    return mmqi_build_linear(b, "attn.o", mmqi_build_page_attention(b, q, k, v, vit->n_heads));
}

static int32_t build_block(struct mmqi_build *b, const struct mmqi_vit *vit, int32_t layer,
                           int32_t x)
{
    char at[MMQI_MAX_WEIGHT_NAME];
    int32_t y;

    snprintf(at, sizeof at, "vision.blocks.%d", (int)layer);
    b->at = at;
    mmqi_graph_begin_segment(b->graph, at);
    y = mmqi_build_layer_norm(b, "norm1", x, (float)vit->eps);
    x = mmqi_build_add(b, x, build_attention(b, vit, y));
    x = mmqi_build_mlp(b, x, vit->act, (float)vit->eps);
    mmqi_graph_end_segment(b->graph, &x, 1);
    b->at = "vision";
    return x;
}

int32_t mmqi_vit_build_blocks(struct mmqi_build *b, const struct mmqi_vit *vit, int32_t x)
{
    for (int32_t i = 0; i < vit->n_run; i++)
        x = build_block(b, vit, i, x);
    return x;
}
