/*
 * LLaVA-1.5 in its authors' form: LlavaLlamaForCausalLM, whose CLIP tower is
 * a checkpoint in a folder of its own.
 *
 * Facts that bite:
 * - model_type is "llava", as Hugging Face's form says too; the architecture
 *   tells them apart.
 * - config.json is a Llama's with keys "mm_..." beside; tower and image
 *   processor are set by the files of the tower's folder, which may be that of
 *   a whole CLIP: its text half is left out.
 * - mm_vision_select_layer counts hidden states as vision_feature_layer does;
 *   "patch" drops the class row, "cls_patch" keeps it.
 * - image_aspect_ratio "pad" puts a picture on a square of the mean's colour
 *   first; without it the processor alone is run.
 * - "<image>" is no token: the words before and behind it are tokenized each by
 *   themselves.
 */
#include <string.h>

#include "core/mem.h"
#include "core/status.h"
#include "model/config.h"
#include "model/llava_parts.h"

static const struct mmqi_prefix prefixes[] = {
    {"model.vision_tower.vision_tower.vision_model.", "vision_tower."},
    {NULL, NULL},
};

/* clang-format off */
static const struct mmqi_alias aliases[] = {
    MMQI_CLIP_ALIASES("vision_tower."),
    {"model.mm_projector.0.weight", "projector.0"},
    {"model.mm_projector.0.bias", "projector.0.bias"},
    {"model.mm_projector.2.weight", "projector.1"},
    {"model.mm_projector.2.bias", "projector.1.bias"},
    {"lm_head.weight", "language.head"},
    MMQI_LLAMA_ALIASES("model."),
    {NULL, NULL},
};
/* clang-format on */

static bool detect(const struct mmqi_settings *config)
{
    if (mmqi_settings_has(config, "architectures"))
        return mmqi_config_is(config, "architectures", "0", "LlavaLlamaForCausalLM", false);
    return mmqi_config_is(config, "", "model_type", "llava", false) &&
           mmqi_settings_has(config, "mm_vision_tower");
}

/* ---- settings ---- */

/* Whose settings the tower has, and below which key. */
static int32_t read_tower(struct mmqi_llava *llava, const struct mmqi_model *model)
{
    const struct mmqi_settings *settings = model->tower_config;
    const char *type = "clip";
    int32_t status;

    if (!settings)
        return mmqi_llava_configure_tower(llava, model->config, "vision_config");
    status = mmqi_config_string(settings, "", "model_type", &type);
    if (status != MMQ_OK)
        return status;
    if (strcmp(type, "clip") == 0)
        return mmqi_llava_configure_tower(llava, settings, "vision_config");
    if (strcmp(type, "clip_vision_model") == 0)
        return mmqi_llava_configure_tower(llava, settings, "");
    return mmqi_fail(MMQ_ERR_UNSUPPORTED, "%s: model_type '%s' is no CLIP, the tower of a %s",
                     mmqi_settings_name(settings), type, model->family->name);
}

static int32_t read_features(struct mmqi_llava *llava, const struct mmqi_settings *config)
{
    static const char key[] = "mm_vision_select_layer";
    const char *feature = "patch";
    int32_t layer = 0, n = llava->clip.n_layers, status;

    if (!mmqi_settings_has(config, key))
        return mmqi_fail(MMQ_ERR_FORMAT, "%s: there is no %s", mmqi_settings_name(config), key);
    status = mmqi_config_int(config, "", key, -n - 1, n, &layer);
    llava->clip.n_run = layer < 0 ? n + 1 + layer : layer;
    if (status == MMQ_OK)
        status = mmqi_config_string(config, "", "mm_vision_select_feature", &feature);
    if (status != MMQ_OK)
        return status;
    llava->keep_class = strcmp(feature, "cls_patch") == 0;
    return llava->keep_class ? MMQ_OK
                             : mmqi_config_only(config, "", "mm_vision_select_feature", "patch");
}

/* "mlp2x_gelu": two layers and an exact GELU between them; without the key it is one layer. */
static int32_t read_projector(struct mmqi_llava *llava, const struct mmqi_settings *config)
{
    static const char key[] = "mm_projector_type";
    int32_t width = llava->clip.hidden, status;

    llava->projector_bias = true;
    llava->projector_act = MMQI_ACT_GELU;
    if (!mmqi_settings_has(config, key))
        return mmqi_fail(MMQ_ERR_UNSUPPORTED,
                         "%s: without %s the projector is 'linear', which is "
                         "not run by this build",
                         mmqi_settings_name(config), key);
    status = mmqi_config_only(config, "", key, "mlp2x_gelu");
    if (status == MMQ_OK)
        status = mmqi_config_int(config, "", "mm_hidden_size", 1, MMQI_MAX_HIDDEN, &width);
    if (status == MMQ_OK && width != llava->clip.hidden)
        status = mmqi_fail(MMQ_ERR_FORMAT, "%s: mm_hidden_size %d, but the tower's rows have %d",
                           mmqi_settings_name(config), (int)width, (int)llava->clip.hidden);
    return status;
}

/* Tokens that some training set-ups put around pictures. */
static int32_t refuse_tokens(const struct mmqi_settings *config)
{
    bool patch = true, ends = false; /* the authors' defaults */
    int32_t status = mmqi_config_bool(config, "", "mm_use_im_patch_token", &patch);

    if (status == MMQ_OK)
        status = mmqi_config_bool(config, "", "mm_use_im_start_end", &ends);
    if (status == MMQ_OK && (patch || ends))
        status = mmqi_fail(MMQ_ERR_UNSUPPORTED, "%s: %s is true%s; not run by this build",
                           mmqi_settings_name(config),
                           patch ? "mm_use_im_patch_token" : "mm_use_im_start_end",
                           patch ? ", or absent" : "");
    return status;
}

static int32_t read_facts(struct mmqi_llava *llava, const struct mmqi_model *model)
{
    const struct mmqi_settings *config = model->config;
    int32_t status = read_tower(llava, model);

    llava->llama = mmqi_llama_defaults;
    if (status == MMQ_OK)
        status = read_features(llava, config);
    if (status == MMQ_OK)
        status = read_projector(llava, config);
    if (status == MMQ_OK)
        status = refuse_tokens(config);
    if (status == MMQ_OK)
        status = mmqi_config_bool(config, "", "attention_bias", &llava->llama.qkv_bias);
    llava->llama.o_bias = llava->llama.qkv_bias;
    return status == MMQ_OK ? mmqi_llama_configure(&llava->llama, config, "") : status;
}

/* The tower's processor, on a padded picture where config.json says so. */
static int32_t read_recipe(struct mmqi_model *model, const struct mmqi_llava *llava)
{
    const struct mmqi_settings *settings = model->tower_preprocessor;
    struct mmqi_recipe *recipe = &model->spec.recipe;
    const char *ratio = "square", *prefix = "";
    int32_t status = mmqi_config_string(model->config, "", "image_aspect_ratio", &ratio);
    bool pad = strcmp(ratio, "pad") == 0;

    if (status == MMQ_OK && !pad)
        status = mmqi_config_only(model->config, "", "image_aspect_ratio", "square");
    if (status == MMQ_OK && model->tower_store && !settings)
        status =
            mmqi_fail(MMQ_ERR_NOT_FOUND, "%s: the tower's folder has no preprocessor_config.json",
                      mmqi_store_name(model->tower_store));
    if (status == MMQ_OK && !settings)
        status = mmqi_config_processor(model, &settings, &prefix);
    if (status != MMQ_OK)
        return status;
    mmqi_recipe_defaults(recipe, pad ? MMQI_RECIPE_PAD : MMQI_RECIPE_CLIP);
    recipe->do_pad = pad;
    status = mmqi_recipe_read(recipe, settings, prefix[0] ? "image_processor." : "");
    recipe->do_pad = pad; /* CLIP's processor knows no such key */
    return status == MMQ_OK ? mmqi_llava_check_recipe(llava, recipe, mmqi_settings_name(settings))
                            : status;
}

static int32_t configure(struct mmqi_model *model)
{
    struct mmqi_llava *llava = mmqi_calloc(1, sizeof *llava);
    int32_t status;

    if (!llava)
        return mmqi_fail(MMQ_ERR_NOMEM, "%s: no memory for settings", model->path);
    model->facts = llava;
    status = read_facts(llava, model);
    if (status == MMQ_OK)
        status = mmqi_llava_fill_spec(llava, model);
    if (status != MMQ_OK)
        return status;
    model->spec.image_marker = "<image>";
    model->spec.image_token = model->spec.vocab_size;
    model->spec.marker_splits = true;
    return read_recipe(model, llava);
}

static int32_t declare(struct mmqi_model *model)
{
    return mmqi_llava_declare(model, model->facts);
}

static int32_t build_vision(struct mmqi_model *model)
{
    return mmqi_llava_build_vision(model, model->facts);
}

static int32_t build_language(struct mmqi_model *model)
{
    return mmqi_llava_build_language(model, model->facts);
}

const struct mmqi_family mmqi_family_llava_orig = {
    .name = "llava",
    .detect = detect,
    .prefixes = prefixes,
    .aliases = aliases,
    .configure = configure,
    .declare = declare,
    .build_vision = build_vision,
    .build_language = build_language,
    .free_facts = mmqi_free,
    .tower_key = "mm_vision_tower",
    .tower_from = "vision_model.",
    .tower_to = "vision_tower.",
};
