/*
 * LLaVA-NeXT (1.6) in Hugging Face form: LLaVA-1.5, but a picture is read as a
 * whole and in tiles.
 *
 * Facts that bite:
 * - Pinpoints are [height, width], and stand in config.json and in the
 *   processor's file: the tiles come from these, their places from those.
 * - The tiles' rows are one grid, of which the rows or columns that show
 *   nothing but padding are dropped; each line of it ends with the newline
 *   row. The whole picture's rows come first and have none.
 * - A line that the picture fills in part is dropped as well: what remains
 *   follows from the picture's size, not from its pixels, by a rounding of its
 *   own (unpad_image), which differs from that of the resize.
 * - The text is a Mistral or a Llama.
 */
#include "core/mem.h"
#include "core/status.h"
#include "model/config.h"
#include "model/llava_parts.h"
#include "model/templates.h"

/* clang-format off */
static const struct mmqi_alias aliases[] = {
    {"image_newline", "projector.newline"},
    MMQI_LLAVA_ALIASES,
    {NULL, NULL},
};
/* clang-format on */

static bool detect(const struct mmqi_settings *config)
{
    return mmqi_config_names(config, "LlavaNextForConditionalGeneration", "llava_next") &&
           mmqi_config_is(config, "vision_config", "model_type", "clip_vision_model", true);
}

/* ---- settings ---- */

/* Where the tiles are put must be where they come from. */
static int32_t check_pinpoints(const struct mmqi_recipe *recipe, const struct mmqi_settings *config,
                               const char *file)
{
    static const char key[] = "image_grid_pinpoints";
    struct mmqi_recipe other;
    bool equal;
    int32_t status;

    mmqi_recipe_defaults(&other, MMQI_RECIPE_ANYRES);
    status = mmqi_recipe_read_pinpoints(&other, config, key);
    if (status != MMQ_OK)
        return status;
    equal = other.n_pinpoints == recipe->n_pinpoints;
    for (int32_t i = 0; i < recipe->n_pinpoints && equal; i++)
        equal = other.pinpoints[i].width == recipe->pinpoints[i].width &&
                other.pinpoints[i].height == recipe->pinpoints[i].height;
    if (!equal)
        return mmqi_fail(MMQ_ERR_UNSUPPORTED, "%s: %s are others than those of %s", file, key,
                         mmqi_settings_name(config));
    return MMQ_OK;
}

static int32_t read_recipe(struct mmqi_model *model, const struct mmqi_llava *llava)
{
    static const struct mmqi_processor known[] = {{"LlavaNextImageProcessor", MMQI_RECIPE_ANYRES},
                                                  {NULL, 0}};
    const struct mmqi_settings *settings;
    int32_t status = mmqi_config_read_recipe(model, known, &settings);

    if (status == MMQ_OK)
        status = check_pinpoints(&model->spec.recipe, model->config, mmqi_settings_name(settings));
    return status == MMQ_OK
               ? mmqi_llava_fill_grid(llava, &model->spec, mmqi_settings_name(settings))
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
    if (status == MMQ_OK && llava->keep_class)
        status = mmqi_fail(MMQ_ERR_UNSUPPORTED,
                           "%s: vision_feature_select_strategy 'full' makes no grid of rows",
                           mmqi_settings_name(model->config));
    llava->newline = true;
    if (status == MMQ_OK)
        status = mmqi_llava_fill_spec(llava, model);
    if (status == MMQ_OK)
        status = mmqi_config_read_image_token(model, image_keys, 32000);
    return status == MMQ_OK ? read_recipe(model, llava) : status;
}

const struct mmqi_family mmqi_family_llava_next = {
    .name = "llava_next",
    .detect = detect,
    .prefixes = mmqi_llava_prefixes,
    .aliases = aliases,
    .configure = configure,
    .declare = mmqi_llava_declare,
    .build_vision = mmqi_llava_build_vision,
    .build_language = mmqi_llava_build_language,
    .free_facts = mmqi_free,
    .chat_template = mmqi_template_llava,
    .measure = mmqi_llava_measure,
    .order = mmqi_llava_order,
};
