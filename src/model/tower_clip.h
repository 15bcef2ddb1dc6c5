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
