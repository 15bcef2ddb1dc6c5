/* What the families of Qwen-VL share. */
#include "model/qwen_vl.h"

#include "core/mem.h"
#include "core/status.h"
#include "core/text.h"
#include "image/resize.h"
#include "model/config.h"

const struct mmqi_prefix mmqi_qwen_vl_prefixes[] = {
    {"model.language_model.", "model."},
    {"model.visual.", "visual."},
    {NULL, NULL},
};

/* ---- settings ---- */

static int32_t read_text(struct mmqi_qwen_vl *facts, const struct mmqi_settings *config)
{
    struct mmqi_llama *llama = &facts->llama;
    bool nested = facts->nested_text || mmqi_settings_has(config, "text_config");
    const char *prefix = nested ? "text_config" : "";
    const char *file = mmqi_settings_name(config);
    bool window = false;
    int32_t status = mmqi_config_bool(config, prefix, "use_sliding_window", &window);

    if (status == MMQ_OK && window)
        status =
            mmqi_fail(MMQ_ERR_UNSUPPORTED, "%s: use_sliding_window is not run by this build", file);
    if (status == MMQ_OK)
        status = mmqi_llama_configure(llama, config, prefix);
    if (status == MMQ_OK && !llama->qk_norm && llama->n_heads * llama->head_dim != llama->hidden)
        status = mmqi_fail(MMQ_ERR_FORMAT, "%s: %d heads of %d do not make a hidden_size of %d",
                           file, (int)llama->n_heads, (int)llama->head_dim, (int)llama->hidden);
    return status;
}

static int32_t read_facts(struct mmqi_qwen_vl *facts, const struct mmqi_settings *config)
{
    int32_t status = read_text(facts, config);

    if (status == MMQ_OK)
        status = mmqi_qwen_vit_configure(&facts->vit, config, "vision_config");
    if (status == MMQ_OK && facts->vit.out != facts->llama.hidden)
        status = mmqi_fail(
            MMQ_ERR_FORMAT, "%s: the tower makes rows of %d, the decoder takes rows of %d",
            mmqi_settings_name(config), (int)facts->vit.out, (int)facts->llama.hidden);
    if (status == MMQ_OK && facts->vit.n_deepstack > facts->llama.n_layers)
        status = mmqi_fail(
            MMQ_ERR_FORMAT,
            "%s: vision_config.deepstack_visual_indexes names %d blocks for %d layers",
            mmqi_settings_name(config), (int)facts->vit.n_deepstack, (int)facts->llama.n_layers);
    facts->llama.n_deepstack = facts->vit.n_deepstack;
    return status;
}

static int32_t check_patches(const struct mmqi_recipe *recipe, const struct mmqi_qwen_vit *vit,
                             const struct mmqi_settings *settings)
{
    if (recipe->patch == vit->patch && recipe->merge == vit->merge && recipe->frames == vit->frames)
        return MMQ_OK;
    return mmqi_fail(MMQ_ERR_FORMAT,
                     "%s: patches of %d in squares of %d, %d frames; the tower takes %d, %d and %d",
                     mmqi_settings_name(settings), (int)recipe->patch, (int)recipe->merge,
                     (int)recipe->frames, (int)vit->patch, (int)vit->merge, (int)vit->frames);
}

static int32_t read_recipe(struct mmqi_model *model, const struct mmqi_qwen_vit *vit)
{
    static const struct mmqi_processor known[] = {{"Qwen2VLImageProcessor", MMQI_RECIPE_SMART},
                                                  {NULL, 0}};
    const struct mmqi_settings *settings;
    int32_t status = mmqi_config_read_recipe(model, known, &settings);

    return status == MMQ_OK ? check_patches(&model->spec.recipe, vit, settings) : status;
}

/* Qwen2VLVideoProcessor's: bounds of a frame, and, where cap_pixels_per_frame, of all of them. */
static int32_t read_video_recipe(struct mmqi_recipe *recipe, const struct mmqi_settings *settings,
                                 const char *prefix)
{
    const char *type = "Qwen2VLVideoProcessor";
    int32_t rows = 128000, status;
    bool cap = false;

    mmqi_recipe_defaults(recipe, MMQI_RECIPE_SMART);
    recipe->min_pixels = 128 * 28 * 28;
    recipe->max_pixels = 768 * 28 * 28;
    status = mmqi_config_string(settings, prefix, "video_processor_type", &type);
    if (status == MMQ_OK && !mmqi_starts_with(type, "Qwen2VLVideoProcessor"))
        status = mmqi_fail(MMQ_ERR_UNSUPPORTED, "%s: video_processor_type '%s' is not run",
                           mmqi_settings_name(settings), type);
    if (status == MMQ_OK)
        status = mmqi_recipe_read(recipe, settings, prefix[0] ? "video_processor." : "");
    if (status == MMQ_OK)
        status = mmqi_config_bool(settings, prefix, "cap_pixels_per_frame", &cap);
    if (status == MMQ_OK)
        status = mmqi_config_int(settings, prefix, "max_video_tokens", 1, 1 << 24, &rows);
    recipe->max_video_rows = cap ? rows : 0;
    if (recipe->filter == MMQI_FILTER_BILINEAR || recipe->filter == MMQI_FILTER_BICUBIC)
        recipe->filter |= MMQI_FILTER_TORCH; /* it has no Pillow form */
    return status;
}

/* A folder whose tokenizer or files know no videos takes none. */
static int32_t read_video(struct mmqi_model *model, const struct mmqi_qwen_vit *vit)
{
    struct mmqi_spec *spec = &model->spec;
    const struct mmqi_settings *settings;
    const char *prefix, *marker;
    int64_t rows;
    int32_t status;

    spec->video_token = 151656;
    status =
        mmqi_config_int(model->config, "", "video_token_id", 0, MMQI_MAX_VOCAB, &spec->video_token);
    if (status != MMQ_OK || spec->video_token >= spec->vocab_size ||
        spec->video_token == spec->image_token ||
        !mmqi_config_video_processor(model, &settings, &prefix))
        return status;
    marker = mmqi_tokenizer_content(model->tokenizer, spec->video_token);
    if (!marker)
        return MMQ_OK;
    status = read_video_recipe(&spec->video_recipe, settings, prefix);
    if (status == MMQ_OK)
        status = check_patches(&spec->video_recipe, vit, settings);
    if (status != MMQ_OK)
        return status;
    spec->video_marker = marker;
    spec->tokens_per_second = vit->tokens_per_second;
    rows = mmqi_recipe_max_video_squares(&spec->video_recipe);
    if (rows > spec->view_rows)
        spec->view_rows = (int32_t)rows;
    rows *= MMQI_MAX_VIEWS;
    if (rows > MMQI_MAX_VIDEO_PIXELS)
        rows = MMQI_MAX_VIDEO_PIXELS;
    spec->video_rows = (int32_t)rows;
    return MMQ_OK;
}

static void fill_spec(struct mmqi_spec *spec, const struct mmqi_qwen_vl *facts)
{
    mmqi_llama_fill_spec(&facts->llama, spec);
    spec->patch = facts->vit.patch;
    spec->merge = facts->vit.merge;
    spec->tower_axes = 2;
    spec->window = facts->vit.window;
    spec->position_side = facts->vit.position_side;
    spec->bos = facts->bos;
    spec->eos[0] = facts->eos;
    spec->n_eos = facts->eos >= 0 ? 1 : 0;
    spec->pad = -1;
}

int32_t mmqi_qwen_vl_configure(struct mmqi_model *model, const struct mmqi_qwen_vl *defaults)
{
    static const char *const image_keys[] = {"image_token_id", NULL};
    struct mmqi_qwen_vl *facts = mmqi_calloc(1, sizeof *facts);
    int32_t status;

    if (!facts)
        return mmqi_fail(MMQ_ERR_NOMEM, "%s: no memory for settings", model->path);
    *facts = *defaults;
    model->facts = facts;
    status = read_facts(facts, model->config);
    if (status != MMQ_OK)
        return status;
    fill_spec(&model->spec, facts);
    status = mmqi_config_read_tokens(model);
    if (status == MMQ_OK)
        status = mmqi_config_read_image_token(model, image_keys, 151655);
    if (status == MMQ_OK)
        status = read_recipe(model, &facts->vit);
    if (status == MMQ_OK) /* at most 2^28: as many as a picture may have pixels */
        model->spec.image_rows = (int32_t)mmqi_recipe_max_squares(&model->spec.recipe);
    model->spec.view_rows = model->spec.image_rows;
    return status == MMQ_OK && facts->video ? read_video(model, &facts->vit) : status;
}

/* ---- weights and graphs ---- */

int32_t mmqi_qwen_vl_declare(struct mmqi_model *model)
{
    const struct mmqi_qwen_vl *facts = model->facts;
    int32_t status = mmqi_qwen_vit_declare(model, &facts->vit);

    return status == MMQ_OK ? mmqi_llama_declare(model, &facts->llama) : status;
}

int32_t mmqi_qwen_vl_build_vision(struct mmqi_model *model)
{
    const struct mmqi_qwen_vl *facts = model->facts;
    struct mmqi_build b = {.model = model, .graph = model->vision};

    return mmqi_qwen_vit_build(&b, &facts->vit);
}

int32_t mmqi_qwen_vl_build_language(struct mmqi_model *model)
{
    const struct mmqi_qwen_vl *facts = model->facts;
    struct mmqi_build b = {.model = model, .graph = model->language};

    return mmqi_llama_build(&b, &facts->llama);
}
