/*
 * Qwen2.5-VL: Qwen2-VL with a tower of RMS norms and gated MLPs, most of whose
 * blocks see windows of the picture.
 *
 * Facts that bite:
 * - vision_config.hidden_size is the tower's own width here; the class default
 *   is that of the text.
 * - Windows are cut from the grid of squares, the last of a row or column as
 *   large as what is left; a picture smaller than a window is one.
 * - Every linear of the tower has a bias, no norm has one.
 * - Time in a video goes on by tokens_per_second for every whole second of a
 *   view: views of less than a second stand still.
 */
#include "core/mem.h"
#include "model/config.h"
#include "model/family.h"
#include "model/qwen_vl.h"
#include "model/templates.h"

static const struct mmqi_alias aliases[] = {
    MMQI_QWEN_VL_ALIASES,
    MMQI_QWEN_MERGER_ALIASES,
    {MMQI_QWEN_BLOCK("mlp.gate_proj.weight"), "vision.blocks.{}.mlp.gate"},
    {MMQI_QWEN_BLOCK("mlp.gate_proj.bias"), "vision.blocks.{}.mlp.gate.bias"},
    {MMQI_QWEN_BLOCK("mlp.up_proj.weight"), "vision.blocks.{}.mlp.up"},
    {MMQI_QWEN_BLOCK("mlp.up_proj.bias"), "vision.blocks.{}.mlp.up.bias"},
    {MMQI_QWEN_BLOCK("mlp.down_proj.weight"), "vision.blocks.{}.mlp.down"},
    {MMQI_QWEN_BLOCK("mlp.down_proj.bias"), "vision.blocks.{}.mlp.down.bias"},
    {NULL, NULL},
};

/* Qwen2_5_VLVisionConfig's and Qwen2_5_VLTextConfig's. */
static const struct mmqi_qwen_vl defaults = {
    .vit =
        {
            .gated = true,
            .hidden = 3584,
            .inner = 3420,
            .n_layers = 32,
            .n_heads = 16,
            .patch = 14,
            .merge = 2,
            .frames = 2,
            .out = 3584,
            .act = MMQI_ACT_SILU,
            .theta = 10000.0,
            .window_size = 112,
            .n_full = 4,
            .full = {7, 15, 23, 31},
            .tokens_per_second = 4,
        },
    .llama = MMQI_QWEN2_VL_TEXT,
    .video = true,
    .bos = 151643,
    .eos = 151645,
};

static bool detect(const struct mmqi_settings *config)
{
    return mmqi_config_names(config, "Qwen2_5_VLForConditionalGeneration", "qwen2_5_vl");
}

static int32_t configure(struct mmqi_model *model)
{
    return mmqi_qwen_vl_configure(model, &defaults);
}

const struct mmqi_family mmqi_family_qwen2_5_vl = {
    .name = "qwen2_5_vl",
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
