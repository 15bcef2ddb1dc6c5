/*
 * The vision tower of Qwen2-VL: pictures of any size in whole squares of
 * patches, turned by row and column, and the merger that makes one row of
 * every square.
 */
#ifndef MMQI_MODEL_TOWER_QWEN_VIT_H
#define MMQI_MODEL_TOWER_QWEN_VIT_H

#include "model/blocks.h"

struct mmqi_qwen_vit {
    int32_t hidden, inner, n_layers, n_heads;
    int32_t patch, merge, frames; /* side of a patch in pixels, of a square in patches; frames */
    int32_t out;                  /* width of the rows that the merger makes */
    int32_t act;                  /* enum mmqi_activation */
    double theta;
};

/* Read the keys below `prefix` over what *vit holds: the class's defaults. */
int32_t mmqi_qwen_vit_configure(struct mmqi_qwen_vit *vit, const struct mmqi_settings *settings,
                                const char *prefix);
/* "vision.*" and the merger, "projector.norm", "projector.0" and "projector.1". */
int32_t mmqi_qwen_vit_declare(struct mmqi_model *model, const struct mmqi_qwen_vit *vit);
/* Segments "vision.embed", "vision.blocks.N" and "projector"; finishes the graph. */
int32_t mmqi_qwen_vit_build(struct mmqi_build *b, const struct mmqi_qwen_vit *vit);

#endif
