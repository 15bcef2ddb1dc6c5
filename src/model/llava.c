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
#include <string.h>

#include "core/mem.h"
#include "core/status.h"
#include "core/text.h"
#include "model/config.h"
#include "model/lm_llama.h"
#include "model/tower_clip.h"

struct facts {
    struct mmqi_clip clip;
    struct mmqi_llama llama;
    bool keep_class; /* "full" */
    bool projector_bias;
    int32_t projector_act;
};

static const struct mmqi_prefix prefixes[] = {
    {"model.language_model.", "language_model.model."},
    {"lm_head.", "language_model.lm_head."},
    {"model.multi_modal_projector.", "multi_modal_projector."},
    {"model.vision_tower.vision_model.", "vision_tower."},
    {"model.vision_tower.", "vision_tower."},
    {"vision_tower.vision_model.", "vision_tower."},
    {NULL, NULL},
};

/* clang-format off */
#define CLIP(file) "vision_tower." file
#define CLIP_LAYER(file) "vision_tower.encoder.layers.{}." file

static const struct mmqi_alias aliases[] = {
    {CLIP("embeddings.patch_embedding.weight"), "vision.patch"},
    {CLIP("embeddings.class_embedding"), "vision.class"},
    {CLIP("embeddings.position_embedding.weight"), "vision.positions"},
    {CLIP("embeddings.position_ids"), NULL},
    {CLIP("pre_layrnorm.weight"), "vision.pre_norm"},
    {CLIP("pre_layrnorm.bias"), "vision.pre_norm.bias"},
    {CLIP("post_layernorm.weight"), "vision.post_norm"},
    {CLIP("post_layernorm.bias"), "vision.post_norm.bias"},
    {CLIP_LAYER("layer_norm1.weight"), "vision.blocks.{}.norm1"},
    {CLIP_LAYER("layer_norm1.bias"), "vision.blocks.{}.norm1.bias"},
    {CLIP_LAYER("layer_norm2.weight"), "vision.blocks.{}.norm2"},
    {CLIP_LAYER("layer_norm2.bias"), "vision.blocks.{}.norm2.bias"},
    {CLIP_LAYER("self_attn.q_proj.weight"), "vision.blocks.{}.attn.q"},
    {CLIP_LAYER("self_attn.q_proj.bias"), "vision.blocks.{}.attn.q.bias"},
    {CLIP_LAYER("self_attn.k_proj.weight"), "vision.blocks.{}.attn.k"},
    {CLIP_LAYER("self_attn.k_proj.bias"), "vision.blocks.{}.attn.k.bias"},
    {CLIP_LAYER("self_attn.v_proj.weight"), "vision.blocks.{}.attn.v"},
    {CLIP_LAYER("self_attn.v_proj.bias"), "vision.blocks.{}.attn.v.bias"},
    {CLIP_LAYER("self_attn.out_proj.weight"), "vision.blocks.{}.attn.o"},
    {CLIP_LAYER("self_attn.out_proj.bias"), "vision.blocks.{}.attn.o.bias"},
    {CLIP_LAYER("mlp.fc1.weight"), "vision.blocks.{}.mlp.fc1"},
    {CLIP_LAYER("mlp.fc1.bias"), "vision.blocks.{}.mlp.fc1.bias"},
    {CLIP_LAYER("mlp.fc2.weight"), "vision.blocks.{}.mlp.fc2"},
    {CLIP_LAYER("mlp.fc2.bias"), "vision.blocks.{}.mlp.fc2.bias"},
    {"multi_modal_projector.linear_1.weight", "projector.0"},
    {"multi_modal_projector.linear_1.bias", "projector.0.bias"},
    {"multi_modal_projector.linear_2.weight", "projector.1"},
    {"multi_modal_projector.linear_2.bias", "projector.1.bias"},
    {"language_model.lm_head.weight", "language.head"},
    MMQI_LLAMA_ALIASES("language_model.model."),
    {NULL, NULL},
};
/* clang-format on */

static bool detect(const struct mmqi_settings *config)
{
    bool named =
        mmqi_settings_has(config, "architectures")
            ? mmqi_config_is(config, "architectures", "0", "LlavaForConditionalGeneration", false)
            : mmqi_config_is(config, "", "model_type", "llava", false) &&
                  !mmqi_settings_has(config, "mm_vision_tower");

    return named &&
           mmqi_config_is(config, "vision_config", "model_type", "clip_vision_model", true);
}

/* ---- settings ---- */

/* CLIPVisionConfig's defaults where there is a vision_config, LlavaConfig's tower where there is
 * none. */
static struct mmqi_clip default_tower(const struct mmqi_settings *config)
{
    static const struct mmqi_clip base = {768, 3072, 12, 12, 224, 32, MMQI_ACT_QUICK_GELU, 1e-5, 0};
    static const struct mmqi_clip large = {1024, 4096, 24, 16, 336, 14, MMQI_ACT_QUICK_GELU,
                                           1e-5, 0};

    return mmqi_settings_has(config, "vision_config") ? base : large;
}

/* Hidden state k follows k layers; negative ones count from the last. A list of one is that one. */
static int32_t read_feature_layer(struct facts *facts, const struct mmqi_settings *config)
{
    static const char key[] = "vision_feature_layer";
    int32_t layer = -2, n = facts->clip.n_layers, status;
    int64_t count = mmqi_settings_count(config, key);

    if (count >= 0 && count != 1)
        return mmqi_fail(MMQ_ERR_UNSUPPORTED, "%s: %s lists %lld layers; one is run",
                         mmqi_settings_name(config), key, (long long)count);
    status = count == 1 ? mmqi_config_int(config, key, "0", -n - 1, n, &layer)
                        : mmqi_config_int(config, "", key, -n - 1, n, &layer);
    facts->clip.n_run = layer < 0 ? n + 1 + layer : layer;
    return status;
}

static int32_t read_strategy(struct facts *facts, const struct mmqi_settings *config)
{
    const char *strategy = "default";
    int32_t status = mmqi_config_string(config, "", "vision_feature_select_strategy", &strategy);

    if (status != MMQ_OK)
        return status;
    facts->keep_class = strcmp(strategy, "full") == 0;
    if (!facts->keep_class && strcmp(strategy, "default") != 0)
        return mmqi_fail(MMQ_ERR_UNSUPPORTED,
                         "%s: vision_feature_select_strategy '%s' is not run by this build",
                         mmqi_settings_name(config), strategy);
    return MMQ_OK;
}

static int32_t read_text(struct mmqi_llama *llama, const struct mmqi_settings *config)
{
    static const char prefix[] = "text_config";
    int32_t status = mmqi_config_only(config, prefix, "model_type", "llama");

    if (status == MMQ_OK)
        status = mmqi_config_bool(config, prefix, "attention_bias", &llama->qkv_bias);
    llama->o_bias = llama->qkv_bias;
    if (status == MMQ_OK)
        status = mmqi_config_bool(config, prefix, "mlp_bias", &llama->mlp_bias);
    return status == MMQ_OK ? mmqi_llama_configure(llama, config, prefix) : status;
}

static int32_t read_facts(struct facts *facts, const struct mmqi_settings *config)
{
    int32_t status;

    facts->clip = default_tower(config);
    facts->llama = mmqi_llama_defaults;
    facts->projector_bias = true;
    facts->projector_act = MMQI_ACT_GELU;
    status = mmqi_clip_configure(&facts->clip, config, "vision_config");
    if (status == MMQ_OK)
        status = read_text(&facts->llama, config);
    if (status == MMQ_OK)
        status = read_feature_layer(facts, config);
    if (status == MMQ_OK)
        status = read_strategy(facts, config);
    if (status == MMQ_OK)
        status = mmqi_config_bool(config, "", "multimodal_projector_bias", &facts->projector_bias);
    if (status == MMQ_OK)
        status = mmqi_config_activation(config, "", "projector_hidden_act", &facts->projector_act);
    return status;
}

/* Other processors pad or cut pictures up; only CLIP's steps are run. */
static int32_t check_processor(const struct mmqi_settings *settings, const char *prefix)
{
    const char *type = "CLIP";
    bool do_pad = false;
    int32_t status = mmqi_config_string(settings, prefix, "image_processor_type", &type);

    if (status == MMQ_OK)
        status = mmqi_config_bool(settings, prefix, "do_pad", &do_pad);
    if (status != MMQ_OK)
        return status;
    if (!mmqi_starts_with(type, "CLIP") && !mmqi_starts_with(type, "LlavaImageProcessor"))
        return mmqi_fail(MMQ_ERR_UNSUPPORTED, "%s: image_processor_type '%s' is not run",
                         mmqi_settings_name(settings), type);
    if (do_pad)
        return mmqi_fail(MMQ_ERR_UNSUPPORTED, "%s: do_pad is not run",
                         mmqi_settings_name(settings));
    return MMQ_OK;
}

/* Whatever the picture, the pixels must be the tower's. */
static int32_t check_recipe(const struct mmqi_recipe *recipe, const struct mmqi_clip *clip,
                            const char *file)
{
    int32_t height = 0, width = 0;

    if (recipe->do_center_crop) {
        height = recipe->crop_height;
        width = recipe->crop_width;
    } else if (recipe->do_resize) {
        height = recipe->height;
        width = recipe->width;
    }
    if (height != clip->image || width != clip->image)
        return mmqi_fail(MMQ_ERR_UNSUPPORTED,
                         "%s: pictures become %d x %d pixels (0: any size), the tower takes %d x "
                         "%d",
                         file, (int)height, (int)width, (int)clip->image, (int)clip->image);
    return MMQ_OK;
}

static int32_t read_recipe(struct mmqi_model *model, const struct facts *facts)
{
    const struct mmqi_settings *settings;
    const char *prefix;
    int32_t status = mmqi_config_processor(model, &settings, &prefix);

    if (status == MMQ_OK)
        status = check_processor(settings, prefix);
    if (status != MMQ_OK)
        return status;
    mmqi_recipe_defaults(&model->spec.recipe, MMQI_RECIPE_CLIP);
    status = mmqi_recipe_read(&model->spec.recipe, settings, prefix[0] ? "image_processor." : "");
    return status == MMQ_OK
               ? check_recipe(&model->spec.recipe, &facts->clip, mmqi_settings_name(settings))
               : status;
}

static int32_t configure(struct mmqi_model *model)
{
    struct mmqi_spec *spec = &model->spec;
    static const char *const image_keys[] = {"image_token_index", "image_token_id", NULL};
    struct facts *facts = mmqi_calloc(1, sizeof *facts);
    int32_t status;

    if (!facts)
        return mmqi_fail(MMQ_ERR_NOMEM, "%s: no memory for settings", model->path);
    model->facts = facts;
    status = read_facts(facts, model->config);
    if (status != MMQ_OK)
        return status;
    mmqi_llama_fill_spec(&facts->llama, spec);
    spec->patch = facts->clip.patch;
    spec->merge = 1;
    spec->view_width = spec->view_height = facts->clip.image;
    spec->extra_tower_rows = 1;
    spec->extra_rows = facts->keep_class ? 1 : 0;
    spec->image_rows = mmqi_clip_patches(&facts->clip) + spec->extra_rows;
    spec->bos = 1; /* LlamaConfig's defaults */
    spec->eos[0] = 2;
    spec->n_eos = 1;
    spec->pad = -1;
    status = mmqi_config_read_tokens(model);
    if (status == MMQ_OK)
        status = mmqi_config_read_image_token(model, image_keys, 32000);
    return status == MMQ_OK ? read_recipe(model, facts) : status;
}

/* ---- weights and graphs ---- */

static int32_t declare(struct mmqi_model *model)
{
    const struct facts *facts = model->facts;
    struct mmqi_declare d = {.model = model, .at = "projector"};
    int32_t status = mmqi_clip_declare(model, &facts->clip);

    if (status != MMQ_OK)
        return status;
    mmqi_declare_linear(&d, "0", facts->llama.hidden, facts->clip.hidden, facts->projector_bias);
    mmqi_declare_linear(&d, "1", facts->llama.hidden, facts->llama.hidden, facts->projector_bias);
    return d.status == MMQ_OK ? mmqi_llama_declare(model, &facts->llama) : d.status;
}

static int32_t build_vision(struct mmqi_model *model)
{
    const struct facts *facts = model->facts;
    struct mmqi_build b = {.model = model, .graph = model->vision};
    struct mmqi_extent rows = {MMQI_ROWS_CONST, 0, model->spec.image_rows};
    int32_t x = mmqi_clip_build(&b, &facts->clip), out;

    b.at = "projector";
    mmqi_graph_begin_segment(b.graph, "projector");
    x = mmqi_graph_slice(b.graph, x, facts->keep_class ? 0 : 1, rows);
    x = mmqi_build_linear(&b, "0", x);
    x = mmqi_build_activate(&b, x, facts->projector_act);
    out = mmqi_graph_output(b.graph, "projector", MMQI_BIND_IMAGE, rows, model->spec.hidden);
    mmqi_build_linear_into(&b, "1", x, out);
    mmqi_graph_end_segment(b.graph, &out, 1);
    return mmqi_build_finish(&b);
}

static int32_t build_language(struct mmqi_model *model)
{
    const struct facts *facts = model->facts;
    struct mmqi_build b = {.model = model, .graph = model->language};

    return mmqi_llama_build(&b, &facts->llama);
}

const struct mmqi_family mmqi_family_llava = {
    .name = "llava",
    .detect = detect,
    .prefixes = prefixes,
    .aliases = aliases,
    .configure = configure,
    .declare = declare,
    .build_vision = build_vision,
    .build_language = build_language,
    .free_facts = mmqi_free,
};
