/*
 * The CLIP vision tower (ViT with a class row, pre-norm blocks, quick GELU),
 * as LLaVA-1.5 and others carry it.
 */
#ifndef MMQI_MODEL_TOWER_CLIP_H
#define MMQI_MODEL_TOWER_CLIP_H

#include "model/tower_vit.h"

/* clang-format off */
/* The names of its tensors in files, below a prefix that ends with a dot. */
#define MMQI_CLIP_ALIASES(p)                                         \
    {p "embeddings.patch_embedding.weight", "vision.patch"},         \
    {p "embeddings.class_embedding", "vision.class"},                \
    {p "embeddings.position_embedding.weight", "vision.positions"},  \
    {p "embeddings.position_ids", NULL},                             \
    {p "pre_layrnorm.weight", "vision.pre_norm"},                    \
    {p "pre_layrnorm.bias", "vision.pre_norm.bias"},                 \
    {p "post_layernorm.weight", "vision.post_norm"},                 \
    {p "post_layernorm.bias", "vision.post_norm.bias"},              \
    MMQI_VIT_ALIASES(p)
/* clang-format on */

/* mmqi_vit_configure(), of an image that is whole patches; the tower has one row more. */
int32_t mmqi_clip_configure(struct mmqi_vit *clip, const struct mmqi_settings *settings,
                            const char *prefix);
int32_t mmqi_clip_declare(struct mmqi_model *model, const struct mmqi_vit *clip);
/* Segments "vision.embed" and "vision.blocks.N"; the value [patches + 1, hidden] that the last one
 * leaves, or -1. */
int32_t mmqi_clip_build(struct mmqi_build *b, const struct mmqi_vit *clip);

#endif
