/*
 * Qwen2-VL: pictures of any size through a tower with positions by row and
 * column, a merger of squares of patches, a Qwen2 decoder with M-RoPE.
 *
 * Facts that bite:
 * - Text settings stand at the top of the hub's config.json, in text_config
 *   where transformers 5 wrote it; absent keys mean the class's defaults, those
 *   of the largest model.
 * - The hub says rope type "mrope", others "default": the frequencies are the
 *   plain ones, and mrope_section tells which axis they read.
 * - q, k and v have biases, o has none; no setting says so.
 * - size.shortest_edge and longest_edge are areas, no edges.
 * - One prompt holds as many image tokens for a picture as its grid has rows.
 * - Videos are not run: the video token is a token like any other.
 */
#include <string.h>

#include "core/mem.h"
#include "core/status.h"
#include "core/text.h"
#include "image/resize.h"
#include "model/config.h"
#include "model/lm_llama.h"
#include "model/tower_qwen_vit.h"

struct facts {
    struct mmqi_qwen_vit vit;
    struct mmqi_llama llama;
};

static const struct mmqi_prefix prefixes[] = {
    {"model.language_model.", "model."},
    {"model.visual.", "visual."},
    {NULL, NULL},
};

/* clang-format off */
#define BLOCK(file) "visual.blocks.{}." file

static const struct mmqi_alias aliases[] = {
    {"visual.patch_embed.proj.weight", "vision.patch"},
    {BLOCK("norm1.weight"), "vision.blocks.{}.norm1"},
    {BLOCK("norm1.bias"), "vision.blocks.{}.norm1.bias"},
    {BLOCK("norm2.weight"), "vision.blocks.{}.norm2"},
    {BLOCK("norm2.bias"), "vision.blocks.{}.norm2.bias"},
    {BLOCK("attn.qkv.weight"), "vision.blocks.{}.attn.qkv"},
    {BLOCK("attn.qkv.bias"), "vision.blocks.{}.attn.qkv.bias"},
    {BLOCK("attn.proj.weight"), "vision.blocks.{}.attn.o"},
    {BLOCK("attn.proj.bias"), "vision.blocks.{}.attn.o.bias"},
    {BLOCK("mlp.fc1.weight"), "vision.blocks.{}.mlp.fc1"},
    {BLOCK("mlp.fc1.bias"), "vision.blocks.{}.mlp.fc1.bias"},
    {BLOCK("mlp.fc2.weight"), "vision.blocks.{}.mlp.fc2"},
    {BLOCK("mlp.fc2.bias"), "vision.blocks.{}.mlp.fc2.bias"},
    {"visual.merger.ln_q.weight", "projector.norm"},
    {"visual.merger.ln_q.bias", "projector.norm.bias"},
    {"visual.merger.mlp.0.weight", "projector.0"},
    {"visual.merger.mlp.0.bias", "projector.0.bias"},
    {"visual.merger.mlp.2.weight", "projector.1"},
    {"visual.merger.mlp.2.bias", "projector.1.bias"},
    {"lm_head.weight", "language.head"},
    MMQI_LLAMA_ALIASES("model."),
    {NULL, NULL},
};
/* clang-format on */

static bool detect(const struct mmqi_settings *config)
{
    return mmqi_settings_has(config, "architectures")
               ? mmqi_config_is(config, "architectures", "0", "Qwen2VLForConditionalGeneration",
                                false)
               : mmqi_config_is(config, "", "model_type", "qwen2_vl", false);
}

/* ---- settings ---- */

/* Qwen2VLTextConfig's. */
static const struct mmqi_llama default_text = {
    .vocab = 152064,
    .hidden = 8192,
    .inner = 29568,
    .n_layers = 80,
    .n_heads = 64,
    .n_kv_heads = 8,
    .max_positions = 32768,
    .act = MMQI_ACT_SILU,
    .eps = 1e-5,
    .theta = 1000000.0,
    .qkv_bias = true,
    .sections = {16, 24, 24},
};

static int32_t read_text(struct mmqi_llama *llama, const struct mmqi_settings *config)
{
    const char *prefix = mmqi_settings_has(config, "text_config") ? "text_config" : "";
    const char *file = mmqi_settings_name(config);
    bool window = false;
    int32_t status = mmqi_config_bool(config, prefix, "use_sliding_window", &window);

    if (status == MMQ_OK && window)
        status =
            mmqi_fail(MMQ_ERR_UNSUPPORTED, "%s: use_sliding_window is not run by this build", file);
    *llama = default_text;
    if (status == MMQ_OK)
        status = mmqi_llama_configure(llama, config, prefix);
    if (status == MMQ_OK && llama->n_heads * llama->head_dim != llama->hidden)
        status = mmqi_fail(MMQ_ERR_FORMAT, "%s: %d heads of %d do not make a hidden_size of %d",
                           file, (int)llama->n_heads, (int)llama->head_dim, (int)llama->hidden);
    return status;
}

static int32_t read_facts(struct facts *facts, const struct mmqi_settings *config)
{
    int32_t status = read_text(&facts->llama, config);

    if (status == MMQ_OK)
        status = mmqi_qwen_vit_configure(&facts->vit, config, "vision_config");
    if (status == MMQ_OK && facts->vit.out != facts->llama.hidden)
        status = mmqi_fail(
            MMQ_ERR_FORMAT, "%s: the tower makes rows of %d, the decoder takes rows of %d",
            mmqi_settings_name(config), (int)facts->vit.out, (int)facts->llama.hidden);
    return status;
}

/* Qwen2VLImageProcessor's class defaults. */
static const struct mmqi_recipe default_recipe = {
    .kind = MMQI_RECIPE_SMART,
    .do_resize = true,
    .do_rescale = true,
    .do_normalize = true,
    .filter = MMQI_FILTER_BICUBIC,
    .rescale = 0.00392156862745098,
    .mean = {0.48145466, 0.4578275, 0.40821073},
    .std = {0.26862954, 0.26130258, 0.27577711},
    .min_pixels = 56 * 56,
    .max_pixels = 28 * 28 * 1280,
    .patch = 14,
    .merge = 2,
    .frames = 2,
};

static int32_t read_recipe(struct mmqi_model *model, const struct mmqi_qwen_vit *vit)
{
    struct mmqi_recipe *recipe = &model->spec.recipe;
    const struct mmqi_settings *settings;
    const char *prefix, *type = "Qwen2VLImageProcessor";
    int32_t status = mmqi_config_processor(model, &settings, &prefix);

    if (status == MMQ_OK)
        status = mmqi_config_string(settings, prefix, "image_processor_type", &type);
    if (status == MMQ_OK && !mmqi_starts_with(type, "Qwen2VLImageProcessor"))
        status = mmqi_fail(MMQ_ERR_UNSUPPORTED, "%s: image_processor_type '%s' is not run",
                           mmqi_settings_name(settings), type);
    *recipe = default_recipe;
    if (status == MMQ_OK)
        status = mmqi_recipe_read(recipe, settings, prefix[0] ? "image_processor." : "");
    if (status == MMQ_OK && (recipe->patch != vit->patch || recipe->merge != vit->merge ||
                             recipe->frames != vit->frames))
        status = mmqi_fail(MMQ_ERR_FORMAT,
                           "%s: patches of %d in squares of %d, %d frames; the tower takes %d, %d "
                           "and %d",
                           mmqi_settings_name(settings), (int)recipe->patch, (int)recipe->merge,
                           (int)recipe->frames, (int)vit->patch, (int)vit->merge, (int)vit->frames);
    return status;
}

static void fill_spec(struct mmqi_spec *spec, const struct facts *facts)
{
    mmqi_llama_fill_spec(&facts->llama, spec);
    spec->patch = facts->vit.patch;
    spec->merge = facts->vit.merge;
    spec->tower_axes = 2;
    spec->bos = 151643;
    spec->eos[0] = 151645;
    spec->n_eos = 1;
    spec->pad = -1;
}

static int32_t configure(struct mmqi_model *model)
{
    static const char *const image_keys[] = {"image_token_id", NULL};
    struct facts *facts = mmqi_calloc(1, sizeof *facts);
    int32_t status;

    if (!facts)
        return mmqi_fail(MMQ_ERR_NOMEM, "%s: no memory for settings", model->path);
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
    return status;
}

/* ---- weights and graphs ---- */

static int32_t declare(struct mmqi_model *model)
{
    const struct facts *facts = model->facts;
    int32_t status = mmqi_qwen_vit_declare(model, &facts->vit);

    return status == MMQ_OK ? mmqi_llama_declare(model, &facts->llama) : status;
}

static int32_t build_vision(struct mmqi_model *model)
{
    const struct facts *facts = model->facts;
    struct mmqi_build b = {.model = model, .graph = model->vision};

    return mmqi_qwen_vit_build(&b, &facts->vit);
}

static int32_t build_language(struct mmqi_model *model)
{
    const struct facts *facts = model->facts;
    struct mmqi_build b = {.model = model, .graph = model->language};

    return mmqi_llama_build(&b, &facts->llama);
}

const struct mmqi_family mmqi_family_qwen2_vl = {
    .name = "qwen2_vl",
    .detect = detect,
    .prefixes = prefixes,
    .aliases = aliases,
    .configure = configure,
    .declare = declare,
    .build_vision = build_vision,
    .build_language = build_language,
    .free_facts = mmqi_free,
};
