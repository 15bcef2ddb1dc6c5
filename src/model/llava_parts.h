/*
 * What the LLaVA models share: a CLIP tower of which one layer's rows are kept, a projector of two
 * layers, a Llama decoder; and how Hugging Face's files name and set them.
 */
#ifndef MMQI_MODEL_LLAVA_PARTS_H
#define MMQI_MODEL_LLAVA_PARTS_H

#include "model/family.h"
#include "model/lm_llama.h"
#include "model/tower_clip.h"

struct mmqi_llava {
    struct mmqi_vit clip;
    struct mmqi_llama llama;
    bool keep_class;  /* the class row is kept, before the patches */
    bool newline;     /* a row of its own comes behind the rows of every view: pictures in tiles */
    bool plain_unpad; /* what is kept of the tiles follows from int(x), not from int(round(x, 7)) */
    bool projector_bias;
    int32_t projector_act;
};

/* The spellings of transformers 5 to the hub's: its modules', and what it saves, with or without
 * "vision_model.". */
extern const struct mmqi_prefix mmqi_llava_prefixes[];

/* clang-format off */
#define MMQI_LLAVA_ALIASES                                      \
    MMQI_CLIP_ALIASES("vision_tower."),                         \
    {"multi_modal_projector.linear_1.weight", "projector.0"},   \
    {"multi_modal_projector.linear_1.bias", "projector.0.bias"},\
    {"multi_modal_projector.linear_2.weight", "projector.1"},   \
    {"multi_modal_projector.linear_2.bias", "projector.1.bias"},\
    {"language_model.lm_head.weight", "language.head"},         \
    MMQI_LLAMA_ALIASES("language_model.model.")
/* clang-format on */

/* Read the keys of a CLIPVisionConfig below `prefix`, over its class's defaults; n_run is the
 * caller's. */
int32_t mmqi_llava_configure_tower(struct mmqi_llava *llava, const struct mmqi_settings *settings,
                                   const char *prefix);
/* openai/clip-vit-large-patch14-336, the tower of LLaVA-1.5 and 1.6. */
extern const struct mmqi_vit mmqi_llava_large;

/* Read config.json as Hugging Face's classes do, over nothing. */
int32_t mmqi_llava_configure(struct mmqi_llava *llava, const struct mmqi_settings *config);
/* What the runtime asks, all but the recipe and the image token: a picture is one view. */
int32_t mmqi_llava_fill_spec(const struct mmqi_llava *llava, struct mmqi_model *model);
/* Whatever the picture, its pixels must be the tower's: `file` tells the recipe. */
int32_t mmqi_llava_check_recipe(const struct mmqi_llava *llava, const struct mmqi_recipe *recipe,
                                const char *file);

/* ---- pictures in tiles (llava_grid.c) ---- */

/* Bounds of a picture's rows by the recipe, whose tiles must be the tower's; `file` tells it. */
int32_t mmqi_llava_fill_grid(const struct mmqi_llava *llava, struct mmqi_spec *spec,
                             const char *file);
/* A family's hooks; a picture that is not in tiles keeps its rows as they are. */
int32_t mmqi_llava_measure(struct mmqi_picture *picture, const struct mmqi_model *model);
void mmqi_llava_order(int32_t *order, const struct mmqi_model *model,
                      const struct mmqi_picture *picture);

/* ---- a family's hooks; the model's facts are a struct mmqi_llava ---- */

int32_t mmqi_llava_declare(struct mmqi_model *model);
int32_t mmqi_llava_build_vision(struct mmqi_model *model);
int32_t mmqi_llava_build_language(struct mmqi_model *model);

#endif
