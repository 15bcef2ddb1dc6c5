/*
 * A family: how one kind of checkpoint is recognised, named and computed.
 *
 * One file of 200-400 lines per family, from blocks that families share
 * (tower_*.c, lm_*.c, blocks.c). A family file never names a backend, a
 * format or a file layout beyond its names.
 */
#ifndef MMQI_MODEL_FAMILY_H
#define MMQI_MODEL_FAMILY_H

#include "core/buf.h"
#include "model/model.h"

/*
 * One spelling of a tensor: `{}` in both patterns is the same decimal number.
 * "language_model.model.layers.{}.self_attn.q_proj.weight" -> "language.layers.{}.attn.q".
 */
struct mmqi_alias {
    const char *file, *name; /* name NULL: a tensor to ignore */
};

/* A prefix that other spellings use for the same thing, tried in order, the first that matches
 * once. */
struct mmqi_prefix {
    const char *from, *to;
};

struct mmqi_family {
    const char *name; /* "llava" */
    bool (*detect)(const struct mmqi_settings *config);
    const struct mmqi_prefix *prefixes; /* ends with {NULL, NULL} */
    const struct mmqi_alias *aliases;   /* ends with {NULL, NULL} */
    /* Read the settings of `model` into model->spec and model->facts; refuse what the family cannot
     * run. */
    int32_t (*configure)(struct mmqi_model *model);
    /* Declare every weight (mmqi_declare_weight in weights.h), needed or tied. */
    int32_t (*declare)(struct mmqi_model *model);
    int32_t (*build_vision)(struct mmqi_model *model);
    int32_t (*build_language)(struct mmqi_model *model);
    void (*free_facts)(void *facts); /* accepts NULL */
    /* The chat template, of templates.h, for a folder that has none; NULL, or what answers NULL:
     * then there is none. */
    const char *(*chat_template)(const struct mmqi_model *model);

    /*
     * Of a family whose tower lies in a folder of its own: the key of config.json that names it,
     * and how its tensors' names become those that `aliases` know: the beginning `tower_from`
     * becomes `tower_to`, others are left out. NULL: the model's folder has the tower.
     */
    const char *tower_key, *tower_from, *tower_to;
    /* Does a model with this config.json go without that folder, where there is none? NULL: no. */
    bool (*has_tower)(const struct mmqi_settings *config);

    /* ---- pictures of several views; each of these may be NULL ---- */

    /* rows and n_runs of a picture whose views are counted, where they are not the whole block in
     * one run (NULL). */
    int32_t (*measure)(struct mmqi_picture *picture, const struct mmqi_model *model);
    /* Append the text that stands for the picture's marker in a prompt, with a marker for each of
     * its runs; NULL: the marker itself, which is one run. */
    void (*write_marker)(struct mmqi_buf *text, const struct mmqi_model *model,
                         const struct mmqi_picture *picture);
    /* order[i], i < picture->rows: the row of the block that is the i-th in the timeline; NULL: row
     * i. */
    void (*order)(int32_t *order, const struct mmqi_model *model,
                  const struct mmqi_picture *picture);
    /* ids[i], i < patches of the view: what the tower's `embed` looks up for patch i, in the order
     * in which its `patches` op cuts them; NULL: it has none. */
    void (*patch_ids)(int32_t *ids, const struct mmqi_model *model, const struct mmqi_view *view);
};

extern const struct mmqi_family mmqi_family_llava;
extern const struct mmqi_family mmqi_family_llava_next;
extern const struct mmqi_family mmqi_family_llava_orig;
extern const struct mmqi_family mmqi_family_qwen2_vl;
extern const struct mmqi_family mmqi_family_qwen2_5_vl;
extern const struct mmqi_family mmqi_family_qwen3_vl;
extern const struct mmqi_family mmqi_family_idefics3;
extern const struct mmqi_family mmqi_family_smolvlm;

/* The list of families (families.c); NULL when none detects the config. */
const struct mmqi_family *mmqi_family_detect(const struct mmqi_settings *config);

#endif
