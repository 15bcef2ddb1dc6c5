/*
 * The CLIP vision tower.
 *
 * Facts that bite: hidden state 0 is what follows the first norm (pre_norm,
 * "pre_layrnorm" in files); post_norm belongs to the pooled output alone and
 * never touches patch rows; the class row is row 0.
 */
#include "model/tower_clip.h"

#include "core/status.h"
#include "model/config.h"

int32_t mmqi_clip_configure(struct mmqi_vit *clip, const struct mmqi_settings *settings,
                            const char *prefix)
{
    int32_t status = mmqi_vit_configure(clip, settings, prefix);

    if (status == MMQ_OK && clip->image % clip->patch != 0)
        status =
            mmqi_fail(MMQ_ERR_UNSUPPORTED, "%s: %s.image_size %d is no multiple of patch_size %d",
                      mmqi_settings_name(settings), prefix, (int)clip->image, (int)clip->patch);
    return status;
}

int32_t mmqi_clip_declare(struct mmqi_model *model, const struct mmqi_vit *clip)
{
    const int64_t patch[4] = {clip->hidden, 3, clip->patch, clip->patch};
    const int64_t positions[2] = {mmqi_vit_patches(clip) + 1, clip->hidden};
    struct mmqi_declare d = {.model = model, .at = "vision"};

    mmqi_declare_weight(&d, "patch", MMQI_ROLE_CONV, 4, patch);
    mmqi_declare_vector(&d, "class", clip->hidden);
    mmqi_declare_weight(&d, "positions", MMQI_ROLE_VECTOR, 2, positions);
    mmqi_declare_norm(&d, "pre_norm", clip->hidden, true);
    mmqi_vit_declare_blocks(&d, clip);
    d.flags = MMQI_WEIGHT_UNUSED;
    mmqi_declare_norm(&d, "post_norm", clip->hidden, true);
    return d.status;
}

static struct mmqi_extent fixed(int64_t rows)
{
    return (struct mmqi_extent){MMQI_ROWS_CONST, 0, rows};
}

/* The class row, then the patches, all with their positions, normed: hidden state 0. */
static int32_t build_embed(struct mmqi_build *b, const struct mmqi_vit *clip)
{
    int32_t n = mmqi_vit_patches(clip), rows, positions, patches, out;
    struct mmqi_node copy = mmqi_node(MMQI_OP_COPY);

    b->at = "vision";
    mmqi_graph_begin_segment(b->graph, "vision.embed");
    patches = mmqi_vit_build_patches(b, clip, 1);
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

int32_t mmqi_clip_build(struct mmqi_build *b, const struct mmqi_vit *clip)
{
    return mmqi_vit_build_blocks(b, clip, build_embed(b, clip));
}
