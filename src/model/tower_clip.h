/*
 * The CLIP vision tower (ViT with a class row, pre-norm blocks, quick GELU),
 * as LLaVA-1.5 and others carry it.
 */
#ifndef MMQI_MODEL_TOWER_CLIP_H
#define MMQI_MODEL_TOWER_CLIP_H

#include "model/tower_vit.h"

/* mmqi_vit_configure(), of an image that is whole patches; the tower has one row more. */
int32_t mmqi_clip_configure(struct mmqi_vit *clip, const struct mmqi_settings *settings,
                            const char *prefix);
int32_t mmqi_clip_declare(struct mmqi_model *model, const struct mmqi_vit *clip);
/* Segments "vision.embed" and "vision.blocks.N"; the value [patches + 1, hidden] that the last one
 * leaves, or -1. */
int32_t mmqi_clip_build(struct mmqi_build *b, const struct mmqi_vit *clip);

#endif
