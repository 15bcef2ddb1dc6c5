/*
 * Idefics3 and SmolVLM, which has its own classes and Idefics3's everything
 * else: pictures cut into tiles, each through a SigLIP tower and a pixel
 * shuffle, tags around the tiles, a Llama decoder.
 *
 * Facts that bite:
 * - Every tile has the size of the tower's image; the whole picture as one
 *   tile comes last, or alone where the picture is not cut.
 * - The shuffle puts a square of patches, row by row, into one row; patches
 *   that were cut in squares lie so already.
 * - In the prompt "\n" ends every row of tiles and one more begins what
 *   stands for the whole, so that "\n\n" is there for the tokenizer to merge.
 * - "<global-img>" and "<row_1_col_1>" are tokens of SmolVLM, text to Idefics3,
 *   whose tokenizer has none for them; so are tags of larger grids to both.
 * - image_seq_len of processor_config.json is what the reference writes; any
 *   number but the tower's makes it fail.
 * - The first SmolVLM says Idefics3, the second SmolVLM.
 * - SmolVLM's videos are not run: "<video>" is text like any other.
 * - qk_layer_norms, use_resampler and perceiver_config in text settings mean
 *   nothing.
 */
#include <stdio.h>

#include "core/mem.h"
#include "core/status.h"
#include "model/config.h"
#include "model/lm_llama.h"
#include "model/templates.h"
#include "model/tower_siglip.h"

enum { MAX_SCALE = 256, MOST_ROWS = 1 << 28 };

static const char around[] = "<fake_token_around_image>", whole[] = "<global-img>";

struct facts {
    struct mmqi_vit vit;
    struct mmqi_llama llama;
    int32_t scale; /* patches on a side of the square that makes a row */
};

static const struct mmqi_prefix prefixes[] = {{NULL, NULL}};

/* clang-format off */
#define TOWER(file) "model.vision_model." file

static const struct mmqi_alias aliases[] = {
    {TOWER("embeddings.patch_embedding.weight"), "vision.patch"},
    {TOWER("embeddings.patch_embedding.bias"), "vision.patch.bias"},
    {TOWER("embeddings.position_embedding.weight"), "vision.positions"},
    {TOWER("post_layernorm.weight"), "vision.post_norm"},
    {TOWER("post_layernorm.bias"), "vision.post_norm.bias"},
    MMQI_VIT_ALIASES("model.vision_model."),
    {"model.connector.modality_projection.proj.weight", "projector.0"},
    {"lm_head.weight", "language.head"},
    MMQI_LLAMA_ALIASES("model.text_model."),
    {NULL, NULL},
};
/* clang-format on */

static bool detect_idefics3(const struct mmqi_settings *config)
{
    return mmqi_config_names(config, "Idefics3ForConditionalGeneration", "idefics3");
}

static bool detect_smolvlm(const struct mmqi_settings *config)
{
    return mmqi_config_names(config, "SmolVLMForConditionalGeneration", "smolvlm");
}

/* ---- settings ---- */

/* Idefics3VisionConfig's and SmolVLMVisionConfig's. */
static const struct mmqi_vit default_tower = {1152, 3072, 12, 16, 224, 32, MMQI_ACT_GELU_TANH,
                                              1e-6, 0};

static int32_t read_facts(struct facts *facts, const struct mmqi_settings *config)
{
    int32_t grid, status;

    facts->vit = default_tower;
    facts->llama = mmqi_llama_defaults;
    facts->scale = 2;
    if (!mmqi_settings_has(config, "text_config"))
        facts->llama.eps = 1e-5;
    status = mmqi_vit_configure(&facts->vit, config, "vision_config");
    facts->vit.n_run = facts->vit.n_layers;
    if (status == MMQ_OK)
        status = mmqi_llama_configure_plain(&facts->llama, config, "text_config");
    if (status == MMQ_OK)
        status = mmqi_config_int(config, "", "scale_factor", 1, MAX_SCALE, &facts->scale);
    if (status != MMQ_OK)
        return status;
    grid = facts->vit.image / facts->vit.patch;
    if (grid % facts->scale != 0)
        return mmqi_fail(MMQ_ERR_FORMAT, "%s: scale_factor %d does not divide %d patches",
                         mmqi_settings_name(config), (int)facts->scale, (int)grid);
    if ((int64_t)facts->vit.hidden * facts->scale * facts->scale > MMQI_MAX_INNER)
        return mmqi_fail(MMQ_ERR_FORMAT, "%s: scale_factor %d makes rows of %lld",
                         mmqi_settings_name(config), (int)facts->scale,
                         (long long)facts->vit.hidden * facts->scale * facts->scale);
    return MMQ_OK;
}

static int32_t read_recipe(struct mmqi_model *model, const struct mmqi_vit *vit)
{
    static const struct mmqi_processor known[] = {{"Idefics3ImageProcessor", MMQI_RECIPE_SPLIT},
                                                  {"SmolVLMImageProcessor", MMQI_RECIPE_SPLIT},
                                                  {NULL, 0}};
    const struct mmqi_settings *settings;
    int32_t tile, status = mmqi_config_read_recipe(model, known, &settings);

    if (status != MMQ_OK)
        return status;
    tile = model->spec.recipe.tile;
    if (tile != vit->image)
        return mmqi_fail(MMQ_ERR_UNSUPPORTED, "%s: tiles of %d pixels, the tower takes %d",
                         mmqi_settings_name(settings), (int)tile, (int)vit->image);
    return MMQ_OK;
}

/* The reference writes that many image tokens for a tile. */
static int32_t check_length(const struct mmqi_model *model, int32_t rows)
{
    int32_t length = rows, status = MMQ_OK;

    if (model->processor)
        status =
            mmqi_config_int(model->processor, "", "image_seq_len", 1, MMQI_MAX_POSITIONS, &length);
    if (status == MMQ_OK && length != rows)
        status = mmqi_fail(MMQ_ERR_FORMAT, "%s: image_seq_len %d; a tile makes %d rows",
                           mmqi_settings_name(model->processor), (int)length, (int)rows);
    return status;
}

/* `name` in these settings, as a string or as the content of an added token. */
static int32_t check_name(const struct mmqi_settings *settings, const char *prefix,
                          const char *name, const char *only)
{
    char key[64], path[MMQI_MAX_CONFIG_KEY];
    bool is_object;

    snprintf(key, sizeof key, "%s.content", name);
    is_object = mmqi_settings_has(settings, mmqi_config_path(path, prefix, key));
    return mmqi_config_only(settings, prefix, is_object ? key : name, only);
}

/* SmolVLM's processor takes its tags from the tokenizer where that names some; a list of extra
 * tokens, as transformers 5 writes it, gives them no names. */
static int32_t check_names(const struct mmqi_model *model)
{
    static const char extra[] = "extra_special_tokens";
    const struct mmqi_settings *settings = model->tokenizer_config;
    const char *const names[][2] = {{"fake_image_token", around},
                                    {"global_image_token", whole},
                                    {"image_token", model->spec.image_marker}};
    bool listed = mmqi_settings_count(settings, extra) >= 0;
    int32_t status = MMQ_OK;

    for (size_t i = 0; i < 3 && settings && status == MMQ_OK; i++) {
        status = check_name(settings, "", names[i][0], names[i][1]);
        if (status == MMQ_OK && !listed)
            status = check_name(settings, extra, names[i][0], names[i][1]);
    }
    return status;
}

/* The other tags may be text like any other; a tokenizer without this one gets an id for it that
 * the embedding has no row for. */
static int32_t check_tags(const struct mmqi_model *model)
{
    if (mmqi_tokenizer_id(model->tokenizer, around) < 0)
        return mmqi_fail(MMQ_ERR_FORMAT, "%s: tokenizer.json has no token '%s'", model->path,
                         around);
    return check_names(model);
}

static void fill_spec(struct mmqi_spec *spec, const struct facts *facts)
{
    mmqi_llama_fill_spec(&facts->llama, spec);
    spec->patch = facts->vit.patch;
    spec->merge = facts->scale;
    spec->view_width = spec->view_height = facts->vit.image;
    spec->bos = 1; /* LlamaConfig's defaults */
    spec->eos[0] = 2;
    spec->n_eos = 1;
    spec->pad = -1;
}

/* Rows of the greatest picture; no picture has more pixels than MOST_ROWS. */
static int32_t count_most(int32_t rows, const struct mmqi_recipe *recipe)
{
    int64_t most = (int64_t)rows * mmqi_recipe_max_views(recipe);

    return most < MOST_ROWS ? (int32_t)most : MOST_ROWS;
}

static int32_t configure(struct mmqi_model *model)
{
    static const char *const image_keys[] = {"image_token_id", NULL};
    struct mmqi_spec *spec = &model->spec;
    struct facts *facts = mmqi_calloc(1, sizeof *facts);
    int32_t rows, status;

    if (!facts)
        return mmqi_fail(MMQ_ERR_NOMEM, "%s: no memory for settings", model->path);
    model->facts = facts;
    status = read_facts(facts, model->config);
    if (status != MMQ_OK)
        return status;
    fill_spec(spec, facts);
    rows = mmqi_vit_patches(&facts->vit) / (facts->scale * facts->scale);
    status = mmqi_config_read_tokens(model);
    if (status == MMQ_OK)
        status = mmqi_config_read_image_token(model, image_keys, 128257);
    if (status == MMQ_OK)
        status = read_recipe(model, &facts->vit);
    if (status == MMQ_OK)
        status = check_length(model, rows);
    if (status == MMQ_OK)
        spec->image_rows = count_most(rows, &spec->recipe);
    return status == MMQ_OK ? check_tags(model) : status;
}

/* ---- pictures ---- */

static int32_t measure(struct mmqi_picture *picture, const struct mmqi_model *model)
{
    (void)model;
    picture->n_runs = picture->views.n;
    return MMQ_OK;
}

static void write_marker(struct mmqi_buf *text, const struct mmqi_model *model,
                         const struct mmqi_picture *picture)
{
    const char *marker = model->spec.image_marker;

    for (int32_t row = 1; row <= picture->views.down; row++) {
        for (int32_t col = 1; col <= picture->views.across; col++)
            mmqi_buf_format(text, "%s<row_%d_col_%d>%s", around, (int)row, (int)col, marker);
        mmqi_buf_text(text, "\n");
    }
    if (picture->views.down > 0)
        mmqi_buf_text(text, "\n");
    mmqi_buf_format(text, "%s%s%s%s", around, whole, marker, around);
}

static void patch_ids(int32_t *ids, const struct mmqi_model *model, const struct mmqi_view *view)
{
    const struct facts *facts = model->facts;

    (void)view; /* all are full */
    mmqi_siglip_patch_ids(ids, &facts->vit, facts->scale);
}

/* ---- weights and graphs ---- */

static int32_t declare(struct mmqi_model *model)
{
    const struct facts *facts = model->facts;
    int64_t square = (int64_t)facts->vit.hidden * facts->scale * facts->scale;
    struct mmqi_declare d = {.model = model, .at = "projector"};
    int32_t status = mmqi_siglip_declare(model, &facts->vit);

    if (status != MMQ_OK)
        return status;
    mmqi_declare_linear(&d, "0", facts->llama.hidden, square, false);
    return d.status == MMQ_OK ? mmqi_llama_declare(model, &facts->llama) : d.status;
}

static int32_t build_vision(struct mmqi_model *model)
{
    const struct facts *facts = model->facts;
    struct mmqi_build b = {.model = model, .graph = model->vision};
    int32_t in_square = facts->scale * facts->scale, out;
    struct mmqi_extent rows = {MMQI_ROWS_CONST, 0, mmqi_vit_patches(&facts->vit) / in_square};
    int32_t x = mmqi_siglip_build(&b, &facts->vit, facts->scale);

    b.at = "projector";
    mmqi_graph_begin_segment(b.graph, "projector");
    x = x < 0 ? -1 : mmqi_graph_join_rows(b.graph, x, in_square);
    out = mmqi_graph_output(b.graph, "projector", MMQI_BIND_IMAGE, rows, model->spec.hidden);
    mmqi_build_linear_into(&b, "0", x, out);
    mmqi_graph_end_segment(b.graph, &out, 1);
    return mmqi_build_finish(&b);
}

static int32_t build_language(struct mmqi_model *model)
{
    const struct facts *facts = model->facts;
    struct mmqi_build b = {.model = model, .graph = model->language};

    return mmqi_llama_build(&b, &facts->llama);
}

/* clang-format off */
#define SHARED                                                                                \
    .prefixes = prefixes, .aliases = aliases, .configure = configure, .declare = declare,     \
    .build_vision = build_vision, .build_language = build_language, .free_facts = mmqi_free,  \
    .chat_template = mmqi_template_idefics3, .measure = measure,                              \
    .write_marker = write_marker, .patch_ids = patch_ids
/* clang-format on */

const struct mmqi_family mmqi_family_idefics3 = {
    .name = "idefics3", .detect = detect_idefics3, SHARED};
const struct mmqi_family mmqi_family_smolvlm = {
    .name = "smolvlm", .detect = detect_smolvlm, SHARED};
