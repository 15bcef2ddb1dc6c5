/*
 * LLaVA-1.5 and 1.6 in their authors' form: LlavaLlamaForCausalLM and
 * LlavaMistralForCausalLM. The CLIP tower of 1.5 is a checkpoint in a folder of
 * its own; 1.6 has its tensors, and may have its settings from such a folder.
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
 * - "anyres" with "spatial_unpad" is LLaVA-NeXT: the pinpoints are [width,
 *   height], in config.json; tiles are resized bicubically whatever the
 *   processor says; what is kept of them is not rounded to 7 places before it is
 *   cut to a whole number.
 * - "<image>" is no token: the words before and behind it are tokenized each by
 *   themselves.
 */
#include <string.h>

#include "core/mem.h"
#include "core/status.h"
#include "image/resize.h"
#include "model/config.h"
#include "model/llava_parts.h"
#include "model/templates.h"

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
    {"model.image_newline", "projector.newline"},
    {"lm_head.weight", "language.head"},
    MMQI_LLAMA_ALIASES("model."),
    {NULL, NULL},
};
/* clang-format on */

static bool is_named(const struct mmqi_settings *config, const char *architecture, const char *type)
{
    return mmqi_config_names(config, architecture, type) &&
           (mmqi_settings_has(config, "architectures") ||
            mmqi_settings_has(config, "mm_vision_tower"));
}

static bool is_mistral(const struct mmqi_settings *config)
{
    return is_named(config, "LlavaMistralForCausalLM", "llava_mistral");
}

static bool detect(const struct mmqi_settings *config)
{
    return is_named(config, "LlavaLlamaForCausalLM", "llava") ||
           is_named(config, "LlavaLlamaForCausalLM", "llava_llama") || is_mistral(config);
}

static bool is_in_tiles(const struct mmqi_settings *config)
{
    return mmqi_config_is(config, "", "image_aspect_ratio", "anyres", false);
}

/* The tower whose settings are known without its folder. */
static bool has_tower(const struct mmqi_settings *config)
{
    return is_in_tiles(config) && mmqi_config_is(config, "", "mm_vision_tower",
                                                 "openai/clip-vit-large-patch14-336", false);
}

/* ---- settings ---- */

/* Whose settings the tower has, and below which key. */
static int32_t read_tower(struct mmqi_llava *llava, const struct mmqi_model *model)
{
    const struct mmqi_settings *settings = model->tower_config;
    const char *type = "clip";
    int32_t status;

    if (!settings && mmqi_settings_has(model->config, "vision_config"))
        return mmqi_llava_configure_tower(llava, model->config, "vision_config");
    if (!settings) {
        llava->clip = mmqi_llava_large;
        return MMQ_OK;
    }
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

/* 1.6 joins the rows of tiles in one way of several. */
static int32_t read_tiles(struct mmqi_llava *llava, const struct mmqi_settings *config)
{
    llava->newline = llava->plain_unpad = is_in_tiles(config);
    if (!llava->newline)
        return MMQ_OK;
    if (!mmqi_config_is(config, "", "mm_patch_merge_type", "spatial_unpad", false))
        return mmqi_fail(MMQ_ERR_UNSUPPORTED,
                         "%s: mm_patch_merge_type is not 'spatial_unpad' (absent: 'flat'); others "
                         "are not run with image_aspect_ratio 'anyres'",
                         mmqi_settings_name(config));
    if (llava->keep_class)
        return mmqi_fail(MMQ_ERR_UNSUPPORTED,
                         "%s: mm_vision_select_feature 'cls_patch' makes no grid of rows",
                         mmqi_settings_name(config));
    return MMQ_OK;
}

static int32_t read_text(struct mmqi_llama *llama, const struct mmqi_settings *config)
{
    int32_t status;

    *llama = mmqi_llama_defaults;
    if (is_mistral(config))
        return mmqi_llama_configure_mistral(llama, config, "");
    status = mmqi_config_bool(config, "", "attention_bias", &llama->qkv_bias);
    llama->o_bias = llama->qkv_bias;
    return status == MMQ_OK ? mmqi_llama_configure(llama, config, "") : status;
}

static int32_t read_facts(struct mmqi_llava *llava, const struct mmqi_model *model)
{
    const struct mmqi_settings *config = model->config;
    int32_t status = read_tower(llava, model);

    if (status == MMQ_OK)
        status = read_features(llava, config);
    if (status == MMQ_OK)
        status = read_projector(llava, config);
    if (status == MMQ_OK)
        status = refuse_tokens(config);
    if (status == MMQ_OK)
        status = read_tiles(llava, config);
    return status == MMQ_OK ? read_text(&llava->llama, config) : status;
}

/* The settings of the tower's processor; *settings NULL: those of a known tower, in `recipe`. */
static int32_t find_processor(const struct mmqi_settings **settings, const char **prefix,
                              const struct mmqi_model *model, struct mmqi_recipe *recipe)
{
    *settings = model->tower_preprocessor;
    *prefix = "";
    if (*settings)
        return MMQ_OK;
    if (model->tower_store)
        return mmqi_fail(MMQ_ERR_NOT_FOUND,
                         "%s: the tower's folder has no preprocessor_config.json",
                         mmqi_store_name(model->tower_store));
    if (!has_tower(model->config) || model->preprocessor || model->processor)
        return mmqi_config_processor(model, settings, prefix);
    recipe->shortest_edge = recipe->crop_width = recipe->crop_height = mmqi_llava_large.image;
    recipe->tile = mmqi_llava_large.image;
    return MMQ_OK;
}

/* [width, height]; the recipe's are spelled [height, width]. */
static int32_t read_pinpoints(struct mmqi_recipe *recipe, const struct mmqi_settings *config)
{
    static const char key[] = "image_grid_pinpoints";
    int32_t status = mmqi_recipe_read_pinpoints(recipe, config, key);

    if (status == MMQ_OK && !mmqi_settings_has(config, key))
        status = mmqi_fail(MMQ_ERR_FORMAT, "%s: there is no %s", mmqi_settings_name(config), key);
    if (status != MMQ_OK)
        return status;
    for (int32_t i = 0; i < recipe->n_pinpoints; i++)
        recipe->pinpoints[i] =
            (struct mmqi_view){recipe->pinpoints[i].height, recipe->pinpoints[i].width};
    return mmqi_recipe_check_pinpoints(recipe, config, key);
}

/* A tile is what the tower's processor makes of any picture; bicubic, whatever that says. */
static int32_t read_tile_recipe(struct mmqi_model *model, const struct mmqi_llava *llava)
{
    struct mmqi_recipe *recipe = &model->spec.recipe;
    const struct mmqi_settings *settings;
    const char *prefix;
    int32_t status;

    mmqi_recipe_defaults(recipe, MMQI_RECIPE_ANYRES);
    recipe->n_pinpoints = 0;
    status = find_processor(&settings, &prefix, model, recipe);
    if (status == MMQ_OK)
        status = mmqi_recipe_read(recipe, settings, prefix[0] ? "image_processor." : "");
    if (status == MMQ_OK)
        status = read_pinpoints(recipe, model->config);
    recipe->filter = MMQI_FILTER_BICUBIC;
    return status == MMQ_OK ? mmqi_llava_fill_grid(llava, &model->spec, model->path) : status;
}

/* The tower's processor, on a padded picture where config.json says so. */
static int32_t read_recipe(struct mmqi_model *model, const struct mmqi_llava *llava)
{
    const struct mmqi_settings *settings, *config = model->config;
    struct mmqi_recipe *recipe = &model->spec.recipe;
    bool pad = mmqi_config_is(config, "", "image_aspect_ratio", "pad", false);
    const char *prefix;
    int32_t status = MMQ_OK;

    if (llava->newline)
        return read_tile_recipe(model, llava);
    if (!pad)
        status = mmqi_config_only(config, "", "image_aspect_ratio", "square");
    if (status == MMQ_OK)
        status = find_processor(&settings, &prefix, model, recipe);
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

const struct mmqi_family mmqi_family_llava_orig = {
    .name = "llava",
    .detect = detect,
    .prefixes = prefixes,
    .aliases = aliases,
    .configure = configure,
    .declare = mmqi_llava_declare,
    .build_vision = mmqi_llava_build_vision,
    .build_language = mmqi_llava_build_language,
    .free_facts = mmqi_free,
    .chat_template = mmqi_template_vicuna_v1,
    .tower_key = "mm_vision_tower",
    .tower_from = "vision_model.",
    .tower_to = "vision_tower.",
    .has_tower = has_tower,
    .measure = mmqi_llava_measure,
    .order = mmqi_llava_order,
};
