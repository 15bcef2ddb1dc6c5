/*
 * The SigLIP vision tower in the form of Idefics2 and later.
 *
 * Facts that bite:
 * - An image that is not whole patches (384 by 14) loses what is over.
 * - The position of a patch is looked up by its fraction of the grid, put into
 *   as many buckets as the table has rows. All patches of a full image have
 *   the bucket of their own index. The reference computes fractions and
 *   bounds in f32, where for some grids (19, 25, 29, 31, 38; none of a
 *   released model) some patches fall into the bucket before, which of them
 *   depending on its machine; here they never do.
 * - post_norm is applied, unlike CLIP's.
 */
#include "model/tower_siglip.h"

int32_t mmqi_siglip_declare(struct mmqi_model *model, const struct mmqi_vit *siglip)
{
    const int64_t patch[4] = {siglip->hidden, 3, siglip->patch, siglip->patch};
    const int64_t positions[2] = {mmqi_vit_patches(siglip), siglip->hidden};
    struct mmqi_declare d = {.model = model, .at = "vision"};

    mmqi_declare_weight(&d, "patch", MMQI_ROLE_CONV, 4, patch);
    mmqi_declare_vector(&d, "patch.bias", siglip->hidden);
    mmqi_declare_weight(&d, "positions", MMQI_ROLE_VECTOR, 2, positions);
    mmqi_vit_declare_blocks(&d, siglip);
    mmqi_declare_norm(&d, "post_norm", siglip->hidden, true);
    return d.status;
}

void mmqi_siglip_patch_ids(int32_t *ids, const struct mmqi_vit *siglip, int32_t merge)
{
    int32_t grid = siglip->image / siglip->patch, across = grid / merge, in_square = merge * merge;

    for (int32_t i = 0; i < grid * grid; i++) {
        int32_t square = i / in_square, inside = i % in_square;
        int32_t row = square / across * merge + inside / merge;

        ids[i] = row * grid + square % across * merge + inside % merge;
    }
}

static int32_t build_embed(struct mmqi_build *b, const struct mmqi_vit *siglip, int32_t merge)
{
    struct mmqi_node look_up = mmqi_node(MMQI_OP_EMBED);
    int32_t x;

    b->at = "vision";
    mmqi_graph_begin_segment(b->graph, "vision.embed");
    x = mmqi_build_linear(b, "patch", mmqi_vit_build_patches(b, siglip, merge));
    look_up.out = mmqi_build_like(b, x, siglip->hidden);
    look_up.weight = mmqi_build_weight(b, "positions");
    mmqi_build_node(b, &look_up);
    x = mmqi_build_add(b, x, look_up.out);
    mmqi_graph_end_segment(b->graph, &x, 1);
    return x;
}

int32_t mmqi_siglip_build(struct mmqi_build *b, const struct mmqi_vit *siglip, int32_t merge)
{
    int32_t x = mmqi_vit_build_blocks(b, siglip, build_embed(b, siglip, merge));

    mmqi_graph_begin_segment(b->graph, "vision.norm");
    x = mmqi_build_layer_norm(b, "post_norm", x, (float)siglip->eps);
    mmqi_graph_end_segment(b->graph, &x, 1);
    return x;
}
