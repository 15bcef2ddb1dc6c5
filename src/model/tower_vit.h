/*
 * What the vision transformers of CLIP and SigLIP share: settings that are
 * spelled alike, and blocks of pre-norm attention and an MLP of two linears,
 * with biases everywhere.
 */
#ifndef MMQI_MODEL_TOWER_VIT_H
#define MMQI_MODEL_TOWER_VIT_H

#include "model/blocks.h"

struct mmqi_vit {
    int32_t hidden, inner, n_layers, n_heads;
    int32_t image, patch; /* sides in pixels */
    int32_t act;          /* enum mmqi_activation */
    double eps;
    int32_t n_run; /* layers that run, 0..n_layers; the others are known and unused */
};

/* clang-format off */
/* The names of the blocks' tensors in files, below a prefix that ends with a dot. */
#define MMQI_VIT_LAYER(p, file) p "encoder.layers.{}." file
#define MMQI_VIT_ALIASES(p)                                                                   \
    {MMQI_VIT_LAYER(p, "layer_norm1.weight"), "vision.blocks.{}.norm1"},                      \
    {MMQI_VIT_LAYER(p, "layer_norm1.bias"), "vision.blocks.{}.norm1.bias"},                   \
    {MMQI_VIT_LAYER(p, "layer_norm2.weight"), "vision.blocks.{}.norm2"},                      \
    {MMQI_VIT_LAYER(p, "layer_norm2.bias"), "vision.blocks.{}.norm2.bias"},                   \
    {MMQI_VIT_LAYER(p, "self_attn.q_proj.weight"), "vision.blocks.{}.attn.q"},                \
    {MMQI_VIT_LAYER(p, "self_attn.q_proj.bias"), "vision.blocks.{}.attn.q.bias"},             \
    {MMQI_VIT_LAYER(p, "self_attn.k_proj.weight"), "vision.blocks.{}.attn.k"},                \
    {MMQI_VIT_LAYER(p, "self_attn.k_proj.bias"), "vision.blocks.{}.attn.k.bias"},             \
    {MMQI_VIT_LAYER(p, "self_attn.v_proj.weight"), "vision.blocks.{}.attn.v"},                \
    {MMQI_VIT_LAYER(p, "self_attn.v_proj.bias"), "vision.blocks.{}.attn.v.bias"},             \
    {MMQI_VIT_LAYER(p, "self_attn.out_proj.weight"), "vision.blocks.{}.attn.o"},              \
    {MMQI_VIT_LAYER(p, "self_attn.out_proj.bias"), "vision.blocks.{}.attn.o.bias"},           \
    {MMQI_VIT_LAYER(p, "mlp.fc1.weight"), "vision.blocks.{}.mlp.fc1"},                        \
    {MMQI_VIT_LAYER(p, "mlp.fc1.bias"), "vision.blocks.{}.mlp.fc1.bias"},                     \
    {MMQI_VIT_LAYER(p, "mlp.fc2.weight"), "vision.blocks.{}.mlp.fc2"},                        \
    {MMQI_VIT_LAYER(p, "mlp.fc2.bias"), "vision.blocks.{}.mlp.fc2.bias"}
/* clang-format on */

/* Whole patches of an image. */
int32_t mmqi_vit_patches(const struct mmqi_vit *vit);
/* Read the keys below `prefix` over what *vit holds; n_run is the caller's. */
int32_t mmqi_vit_configure(struct mmqi_vit *vit, const struct mmqi_settings *settings,
                           const char *prefix);

/* "vision.blocks.N"; those beyond n_run are unused. */
void mmqi_vit_declare_blocks(struct mmqi_declare *d, const struct mmqi_vit *vit);

/* Pixels to [patches, 3 * patch * patch], in squares of merge x merge. */
int32_t mmqi_vit_build_patches(struct mmqi_build *b, const struct mmqi_vit *vit, int32_t merge);
/* The blocks that run, a segment "vision.blocks.N" each; what the last one leaves. */
int32_t mmqi_vit_build_blocks(struct mmqi_build *b, const struct mmqi_vit *vit, int32_t x);

#endif
