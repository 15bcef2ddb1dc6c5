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
 * - A video has bounds of its own where a file tells them apart, else those of
 *   pictures; its views, two frames each, count 1 on the axis of time.
 */
#include "core/mem.h"
#include "model/config.h"
#include "model/family.h"
#include "model/qwen_vl.h"
#include "model/templates.h"

static const struct mmqi_alias aliases[] = {
    MMQI_QWEN_VL_ALIASES,
    MMQI_QWEN_MERGER_ALIASES,
    {MMQI_QWEN_BLOCK("norm1.bias"), "vision.blocks.{}.norm1.bias"},
    {MMQI_QWEN_BLOCK("norm2.bias"), "vision.blocks.{}.norm2.bias"},
    {MMQI_QWEN_BLOCK("mlp.fc1.weight"), "vision.blocks.{}.mlp.fc1"},
    {MMQI_QWEN_BLOCK("mlp.fc1.bias"), "vision.blocks.{}.mlp.fc1.bias"},
    {MMQI_QWEN_BLOCK("mlp.fc2.weight"), "vision.blocks.{}.mlp.fc2"},
    {MMQI_QWEN_BLOCK("mlp.fc2.bias"), "vision.blocks.{}.mlp.fc2.bias"},
    {"visual.merger.ln_q.bias", "projector.norm.bias"},
    {NULL, NULL},
};

/* Qwen2VLVisionConfig's and Qwen2VLTextConfig's. */
static const struct mmqi_qwen_vl defaults = {
    .vit =
        {
            .by_ratio = true,
            .hidden = 1280,
            .n_layers = 32,
            .n_heads = 16,
            .patch = 14,
            .merge = 2,
            .frames = 2,
            .out = 3584,
            .act = MMQI_ACT_QUICK_GELU,
            .theta = 10000.0,
        },
    .llama = MMQI_QWEN2_VL_TEXT,
    .video = true,
    .bos = 151643,
    .eos = 151645,
};

static bool detect(const struct mmqi_settings *config)
{
    return mmqi_config_names(config, "Qwen2VLForConditionalGeneration", "qwen2_vl");
}

static int32_t configure(struct mmqi_model *model)
{
    return mmqi_qwen_vl_configure(model, &defaults);
}

const struct mmqi_family mmqi_family_qwen2_vl = {
    .name = "qwen2_vl",
    .detect = detect,
    .prefixes = mmqi_qwen_vl_prefixes,
    .aliases = aliases,
    .configure = configure,
    .declare = mmqi_qwen_vl_declare,
    .build_vision = mmqi_qwen_vl_build_vision,
    .build_language = mmqi_qwen_vl_build_language,
    .free_facts = mmqi_free,
    .chat_template = mmqi_template_qwen2_vl,
};
