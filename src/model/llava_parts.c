/* The LLaVA models' tower, projector and decoder. */
#include "model/llava_parts.h"

#include <string.h>

#include "core/status.h"
#include "model/config.h"

const struct mmqi_prefix mmqi_llava_prefixes[] = {
    {"model.language_model.", "language_model.model."},
    {"lm_head.", "language_model.lm_head."},
    {"model.multi_modal_projector.", "multi_modal_projector."},
    {"model.image_newline", "image_newline"},
    {"model.vision_tower.vision_model.", "vision_tower."},
    {"model.vision_tower.", "vision_tower."},
    {"vision_tower.vision_model.", "vision_tower."},
    {NULL, NULL},
};

/* ---- settings ---- */

const struct mmqi_vit mmqi_llava_large = {1024, 4096, 24, 16, 336, 14, MMQI_ACT_QUICK_GELU,
                                          1e-5, 0};

int32_t mmqi_llava_configure_tower(struct mmqi_llava *llava, const struct mmqi_settings *settings,
                                   const char *prefix)
{
    static const struct mmqi_vit base = {768, 3072, 12, 12, 224, 32, MMQI_ACT_QUICK_GELU, 1e-5, 0};

    llava->clip = base;
    return mmqi_clip_configure(&llava->clip, settings, prefix);
}

/* CLIPVisionConfig's defaults where there is a vision_config, LlavaConfig's tower where there is
 * none. */
static int32_t read_tower(struct mmqi_llava *llava, const struct mmqi_settings *config)
{
    if (mmqi_settings_has(config, "vision_config"))
        return mmqi_llava_configure_tower(llava, config, "vision_config");
    llava->clip = mmqi_llava_large;
    return MMQ_OK;
}

/* Hidden state k follows k layers; negative ones count from the last. A list of one is that one. */
static int32_t read_feature_layer(struct mmqi_llava *llava, const struct mmqi_settings *config)
{
    static const char key[] = "vision_feature_layer";
    int32_t layer = -2, n = llava->clip.n_layers, status;
    int64_t count = mmqi_settings_count(config, key);

    if (count >= 0 && count != 1)
        return mmqi_fail(MMQ_ERR_UNSUPPORTED, "%s: %s lists %lld layers; one is run",
                         mmqi_settings_name(config), key, (long long)count);
    status = count == 1 ? mmqi_config_int(config, key, "0", -n - 1, n, &layer)
                        : mmqi_config_int(config, "", key, -n - 1, n, &layer);
    llava->clip.n_run = layer < 0 ? n + 1 + layer : layer;
    return status;
}

static int32_t read_strategy(struct mmqi_llava *llava, const struct mmqi_settings *config)
{
    const char *strategy = "default";
    int32_t status = mmqi_config_string(config, "", "vision_feature_select_strategy", &strategy);

    if (status != MMQ_OK)
        return status;
    llava->keep_class = strcmp(strategy, "full") == 0;
    if (!llava->keep_class && strcmp(strategy, "default") != 0)
        return mmqi_fail(MMQ_ERR_UNSUPPORTED,
                         "%s: vision_feature_select_strategy '%s' is not run by this build",
                         mmqi_settings_name(config), strategy);
    return MMQ_OK;
}

static int32_t read_text(struct mmqi_llama *llama, const struct mmqi_settings *config)
{
    if (mmqi_config_is(config, "text_config", "model_type", "mistral", false))
        return mmqi_llama_configure_mistral(llama, config, "text_config");
    return mmqi_llama_configure_plain(llama, config, "text_config");
}

int32_t mmqi_llava_configure(struct mmqi_llava *llava, const struct mmqi_settings *config)
{
    int32_t status;

    llava->llama = mmqi_llama_defaults;
    llava->projector_bias = true;
    llava->projector_act = MMQI_ACT_GELU;
    status = read_tower(llava, config);
    if (status == MMQ_OK)
        status = read_text(&llava->llama, config);
    if (status == MMQ_OK)
        status = read_feature_layer(llava, config);
    if (status == MMQ_OK)
        status = read_strategy(llava, config);
    if (status == MMQ_OK)
        status = mmqi_config_bool(config, "", "multimodal_projector_bias", &llava->projector_bias);
    if (status == MMQ_OK)
        status = mmqi_config_activation(config, "", "projector_hidden_act", &llava->projector_act);
    return status;
}

int32_t mmqi_llava_fill_spec(const struct mmqi_llava *llava, struct mmqi_model *model)
{
    struct mmqi_spec *spec = &model->spec;

    mmqi_llama_fill_spec(&llava->llama, spec);
    spec->patch = llava->clip.patch;
    spec->merge = 1;
    spec->view_width = spec->view_height = llava->clip.image;
    spec->extra_tower_rows = 1;
    spec->extra_rows = llava->keep_class + llava->newline;
    spec->image_rows = mmqi_vit_patches(&llava->clip) + spec->extra_rows;
    spec->bos = 1; /* LlamaConfig's defaults */
    spec->eos[0] = 2;
    spec->n_eos = 1;
    spec->pad = -1;
    return mmqi_config_read_tokens(model);
}

int32_t mmqi_llava_check_recipe(const struct mmqi_llava *llava, const struct mmqi_recipe *recipe,
                                const char *file)
{
    int32_t height = 0, width = 0, side = llava->clip.image;

    if (recipe->do_center_crop) {
        height = recipe->crop_height;
        width = recipe->crop_width;
    } else if (recipe->do_resize) {
        height = recipe->height;
        width = recipe->width;
    }
    if (height != side || width != side)
        return mmqi_fail(MMQ_ERR_UNSUPPORTED,
                         "%s: pictures become %d x %d pixels (0: any size), the tower takes %d x "
                         "%d",
                         file, (int)height, (int)width, (int)side, (int)side);
    return MMQ_OK;
}

/* ---- weights and graphs ---- */

int32_t mmqi_llava_declare(struct mmqi_model *model)
{
    const struct mmqi_llava *llava = model->facts;
    struct mmqi_declare d = {.model = model, .at = "projector"};
    int32_t status = mmqi_clip_declare(model, &llava->clip);

    if (status != MMQ_OK)
        return status;
    mmqi_declare_linear(&d, "0", llava->llama.hidden, llava->clip.hidden, llava->projector_bias);
    mmqi_declare_linear(&d, "1", llava->llama.hidden, llava->llama.hidden, llava->projector_bias);
    if (llava->newline)
        mmqi_declare_vector(&d, "newline", llava->llama.hidden);
    return d.status == MMQ_OK ? mmqi_llama_declare(model, &llava->llama) : d.status;
}

static struct mmqi_extent fixed(int64_t rows)
{
    return (struct mmqi_extent){MMQI_ROWS_CONST, 0, rows};
}

static void build_newline(struct mmqi_build *b, int32_t out, int32_t row)
{
    struct mmqi_node copy = mmqi_node(MMQI_OP_COPY);

    copy.in[0] = mmqi_graph_weight_value(b->graph, mmqi_build_weight(b, "newline"), 1,
                                         b->model->spec.hidden);
    copy.out = mmqi_graph_slice(b->graph, out, row, fixed(1));
    mmqi_build_node(b, &copy);
}

int32_t mmqi_llava_build_vision(struct mmqi_model *model)
{
    const struct mmqi_llava *llava = model->facts;
    struct mmqi_build b = {.model = model, .graph = model->vision};
    int32_t n = mmqi_vit_patches(&llava->clip) + llava->keep_class;
    int32_t x = mmqi_clip_build(&b, &llava->clip), out;

    b.at = "projector";
    mmqi_graph_begin_segment(b.graph, "projector");
    x = mmqi_graph_slice(b.graph, x, llava->keep_class ? 0 : 1, fixed(n));
    x = mmqi_build_linear(&b, "0", x);
    x = mmqi_build_activate(&b, x, llava->projector_act);
    out = mmqi_graph_output(b.graph, "projector", MMQI_BIND_IMAGE, fixed(n + llava->newline),
                            model->spec.hidden);
    mmqi_build_linear_into(&b, "1", x,
                           llava->newline ? mmqi_graph_slice(b.graph, out, 0, fixed(n)) : out);
    if (llava->newline)
        build_newline(&b, out, n);
    mmqi_graph_end_segment(b.graph, &out, 1);
    return mmqi_build_finish(&b);
}

int32_t mmqi_llava_build_language(struct mmqi_model *model)
{
    const struct mmqi_llava *llava = model->facts;
    struct mmqi_build b = {.model = model, .graph = model->language};

    return mmqi_llama_build(&b, &llava->llama);
}
