/*
 * The vision towers of Qwen-VL: pictures of any size in whole squares of
 * patches, turned by row and column, and the merger that makes one row of
 * every square. Qwen2.5's blocks see windows of the picture, but for some;
 * Qwen3's patches have learned positions beside, and some of its blocks have
 * mergers of their own (DeepStack).
 */
#ifndef MMQI_MODEL_TOWER_QWEN_VIT_H
#define MMQI_MODEL_TOWER_QWEN_VIT_H

#include "model/blocks.h"
#include "model/config.h"

enum { MMQI_QWEN_LISTED = 64 }; /* blocks that a list names, at most */

struct mmqi_qwen_vit {
    int32_t hidden, inner, n_layers, n_heads;
    int32_t patch, merge, frames; /* side of a patch in pixels, of a square in patches; frames */
    int32_t out;                  /* width of the rows that the merger makes */
    int32_t act;                  /* enum mmqi_activation */
    double theta;
    /* The keys are embed_dim, mlp_ratio and, for the merger's rows, hidden_size; later ones say
     * hidden_size, intermediate_size and out_hidden_size. */
    bool by_ratio;
    bool patch_bias;
    bool gated; /* RMS norms and gated MLPs */
    /* Side of a window, in pixels and in squares, and the blocks that see all; 0: all do. */
    int32_t window_size, window;
    int32_t n_full, full[MMQI_QWEN_LISTED];
    int32_t tokens_per_second;        /* of videos; 0: no key says */
    int32_t positions, position_side; /* of the learned grid, a square number; 0: none */
    /* Blocks whose rows are merged too, ascending. */
    int32_t n_deepstack, deepstack[MMQI_QWEN_LISTED];
};

/* Read the keys below `prefix` over what *vit holds: the class's defaults, and what no key says. */
int32_t mmqi_qwen_vit_configure(struct mmqi_qwen_vit *vit, const struct mmqi_settings *settings,
                                const char *prefix);
/* "vision.*" and the merger, "projector.norm", "projector.0" and "projector.1"; those of DeepStack
 * are "projector.deepstack.N". */
int32_t mmqi_qwen_vit_declare(struct mmqi_model *model, const struct mmqi_qwen_vit *vit);
/* Segments "vision.embed", "vision.blocks.N", "projector.deepstack.N" and "projector"; finishes the
 * graph. A row of it is the merger's and then those of DeepStack. */
int32_t mmqi_qwen_vit_build(struct mmqi_build *b, const struct mmqi_qwen_vit *vit);

#endif
