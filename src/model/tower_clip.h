/*
 * The CLIP vision tower (ViT with a class row, pre-norm blocks, quick GELU),
 * as LLaVA-1.5 and others carry it.
 */
#ifndef MMQI_MODEL_TOWER_CLIP_H
#define MMQI_MODEL_TOWER_CLIP_H

#include "model/blocks.h"

struct mmqi_clip {
    int32_t hidden, inner, n_layers, n_heads;
    int32_t image, patch; /* sides in pixels */
    int32_t act;          /* enum mmqi_activation */
    double eps;
    int32_t n_run; /* layers that run, 0..n_layers; the others are known and unused */
};

/* clang-format off */
/* The names of its tensors in files, below a prefix that ends with a dot. */
#define MMQI_CLIP_LAYER(p, file) p "encoder.layers.{}." file
#define MMQI_CLIP_ALIASES(p)                                                         \
    {p "embeddings.patch_embedding.weight", "vision.patch"},                         \
    {p "embeddings.class_embedding", "vision.class"},                                \
    {p "embeddings.position_embedding.weight", "vision.positions"},                  \
    {p "embeddings.position_ids", NULL},                                             \
    {p "pre_layrnorm.weight", "vision.pre_norm"},                                    \
    {p "pre_layrnorm.bias", "vision.pre_norm.bias"},                                 \
    {p "post_layernorm.weight", "vision.post_norm"},                                 \
    {p "post_layernorm.bias", "vision.post_norm.bias"},                              \
    {MMQI_CLIP_LAYER(p, "layer_norm1.weight"), "vision.blocks.{}.norm1"},            \
    {MMQI_CLIP_LAYER(p, "layer_norm1.bias"), "vision.blocks.{}.norm1.bias"},         \
    {MMQI_CLIP_LAYER(p, "layer_norm2.weight"), "vision.blocks.{}.norm2"},            \
    {MMQI_CLIP_LAYER(p, "layer_norm2.bias"), "vision.blocks.{}.norm2.bias"},         \
    {MMQI_CLIP_LAYER(p, "self_attn.q_proj.weight"), "vision.blocks.{}.attn.q"},      \
    {MMQI_CLIP_LAYER(p, "self_attn.q_proj.bias"), "vision.blocks.{}.attn.q.bias"},   \
    {MMQI_CLIP_LAYER(p, "self_attn.k_proj.weight"), "vision.blocks.{}.attn.k"},      \
    {MMQI_CLIP_LAYER(p, "self_attn.k_proj.bias"), "vision.blocks.{}.attn.k.bias"},   \
    {MMQI_CLIP_LAYER(p, "self_attn.v_proj.weight"), "vision.blocks.{}.attn.v"},      \
    {MMQI_CLIP_LAYER(p, "self_attn.v_proj.bias"), "vision.blocks.{}.attn.v.bias"},   \
    {MMQI_CLIP_LAYER(p, "self_attn.out_proj.weight"), "vision.blocks.{}.attn.o"},    \
    {MMQI_CLIP_LAYER(p, "self_attn.out_proj.bias"), "vision.blocks.{}.attn.o.bias"}, \
    {MMQI_CLIP_LAYER(p, "mlp.fc1.weight"), "vision.blocks.{}.mlp.fc1"},              \
    {MMQI_CLIP_LAYER(p, "mlp.fc1.bias"), "vision.blocks.{}.mlp.fc1.bias"},           \
    {MMQI_CLIP_LAYER(p, "mlp.fc2.weight"), "vision.blocks.{}.mlp.fc2"},              \
    {MMQI_CLIP_LAYER(p, "mlp.fc2.bias"), "vision.blocks.{}.mlp.fc2.bias"}
/* clang-format on */

/* Patches of one picture; the tower has one row more. */
int32_t mmqi_clip_patches(const struct mmqi_clip *clip);
/* Read the keys below `prefix` over what *clip holds; n_run is the caller's. */
int32_t mmqi_clip_configure(struct mmqi_clip *clip, const struct mmqi_settings *settings,
                            const char *prefix);
int32_t mmqi_clip_declare(struct mmqi_model *model, const struct mmqi_clip *clip);
/* Segments "vision.embed" and "vision.blocks.N"; the value [patches + 1, hidden] that the last one
 * leaves, or -1. */
int32_t mmqi_clip_build(struct mmqi_build *b, const struct mmqi_clip *clip);

#endif
