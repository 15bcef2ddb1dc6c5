/*
 * LLaVA-1.5 in Hugging Face form: a CLIP tower, a two-layer projector, a
 * Llama decoder.
 *
 * Facts that bite:
 * - vision_feature_layer -2 takes the output of the last layer but one, with
 *   no norm after it; the last layer and post_layernorm are in the file all the same.
 *   "default" drops the class row, "full" keeps it.
 * - The tower's quick GELU is a class default that no hub file spells; the
 *   projector's "gelu" is the one with erf.
 * - image_seq_length is wrong in files of transformers 5; the rows of a
 *   picture follow from the tower.
 * - Tensors come in three spellings: the hub's, the modules' of transformers
 *   5, and what it saves, with or without "vision_model.".
 * - Pixtral is LlavaForConditionalGeneration, too: the tower's model_type
 *   tells them apart. The original LLaVA says model_type "llava" as well.
 * - One prompt holds image_rows copies of the image token for every picture.
 */
#include "core/mem.h"
#include "core/status.h"
#include "model/config.h"
#include "model/llava_parts.h"
#include "model/templates.h"

/* clang-format off */
static const struct mmqi_alias aliases[] = {
    MMQI_LLAVA_ALIASES,
    {NULL, NULL},
};
/* clang-format on */

static bool detect(const struct mmqi_settings *config)
{
    bool orig =
        !mmqi_settings_has(config, "architectures") && mmqi_settings_has(config, "mm_vision_tower");

    return !orig && mmqi_config_names(config, "LlavaForConditionalGeneration", "llava") &&
           mmqi_config_is(config, "vision_config", "model_type", "clip_vision_model", true);
}

/* CLIP's processor, or LLaVA's own, which is CLIP's but may pad. */
static int32_t read_recipe(struct mmqi_model *model, const struct mmqi_llava *llava)
{
    static const struct mmqi_processor known[] = {
        {"CLIP", MMQI_RECIPE_CLIP}, {"LlavaImageProcessor", MMQI_RECIPE_PAD}, {NULL, 0}};
    const struct mmqi_settings *settings;
    int32_t status = mmqi_config_read_recipe(model, known, &settings);

    return status == MMQ_OK
               ? mmqi_llava_check_recipe(llava, &model->spec.recipe, mmqi_settings_name(settings))
               : status;
}

static int32_t configure(struct mmqi_model *model)
{
    static const char *const image_keys[] = {"image_token_index", "image_token_id", NULL};
    struct mmqi_llava *llava = mmqi_calloc(1, sizeof *llava);
    int32_t status;

    if (!llava)
        return mmqi_fail(MMQ_ERR_NOMEM, "%s: no memory for settings", model->path);
    model->facts = llava;
    status = mmqi_llava_configure(llava, model->config);
    if (status == MMQ_OK)
        status = mmqi_llava_fill_spec(llava, model);
    if (status == MMQ_OK)
        status = mmqi_config_read_image_token(model, image_keys, 32000);
    return status == MMQ_OK ? read_recipe(model, llava) : status;
}

const struct mmqi_family mmqi_family_llava = {
    .name = "llava",
    .detect = detect,
    .prefixes = mmqi_llava_prefixes,
    .aliases = aliases,
    .configure = configure,
    .declare = mmqi_llava_declare,
    .build_vision = mmqi_llava_build_vision,
    .build_language = mmqi_llava_build_language,
    .free_facts = mmqi_free,
    .chat_template = mmqi_template_llava,
};
