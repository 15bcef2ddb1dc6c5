/*
 * Qwen3-VL: a tower with learned positions, mixed for each picture's grid,
 * beside the turned ones; rows of some of its blocks are added after the first
 * layers of a Qwen3 decoder (DeepStack).
 *
 * Facts that bite:
 * - The axes of M-RoPE take turns among a head's frequencies, whatever
 *   mrope_interleaved says.
 * - The merger norms patches, those of DeepStack norm whole squares.
 * - Heads of q and k are normed; head_dim is a setting of its own.
 * - Text settings stand in text_config alone; no class default names bos or eos.
 * - Every frame of a video is a picture of its own, between words that tell
 *   its time: which is what a caller may write, with pictures.
 * - Experts (qwen3_vl_moe) are another family, which this library does not run.
 */
#include "core/mem.h"
#include "core/status.h"
#include "model/config.h"
#include "model/family.h"
#include "model/qwen_vl.h"
#include "model/templates.h"

#define DEEPSTACK(file) "visual.deepstack_merger_list.{}." file

static const struct mmqi_alias aliases[] = {
    MMQI_QWEN_VL_ALIASES,
    MMQI_LLAMA_QK_NORM_ALIASES("model."),
    {"visual.patch_embed.proj.bias", "vision.patch.bias"},
    {"visual.pos_embed.weight", "vision.positions"},
    {MMQI_QWEN_BLOCK("norm1.bias"), "vision.blocks.{}.norm1.bias"},
    {MMQI_QWEN_BLOCK("norm2.bias"), "vision.blocks.{}.norm2.bias"},
    {MMQI_QWEN_BLOCK("mlp.linear_fc1.weight"), "vision.blocks.{}.mlp.fc1"},
    {MMQI_QWEN_BLOCK("mlp.linear_fc1.bias"), "vision.blocks.{}.mlp.fc1.bias"},
    {MMQI_QWEN_BLOCK("mlp.linear_fc2.weight"), "vision.blocks.{}.mlp.fc2"},
    {MMQI_QWEN_BLOCK("mlp.linear_fc2.bias"), "vision.blocks.{}.mlp.fc2.bias"},
    {"visual.merger.norm.weight", "projector.norm"},
    {"visual.merger.norm.bias", "projector.norm.bias"},
    {"visual.merger.linear_fc1.weight", "projector.0"},
    {"visual.merger.linear_fc1.bias", "projector.0.bias"},
    {"visual.merger.linear_fc2.weight", "projector.1"},
    {"visual.merger.linear_fc2.bias", "projector.1.bias"},
    {DEEPSTACK("norm.weight"), "projector.deepstack.{}.norm"},
    {DEEPSTACK("norm.bias"), "projector.deepstack.{}.norm.bias"},
    {DEEPSTACK("linear_fc1.weight"), "projector.deepstack.{}.0"},
    {DEEPSTACK("linear_fc1.bias"), "projector.deepstack.{}.0.bias"},
    {DEEPSTACK("linear_fc2.weight"), "projector.deepstack.{}.1"},
    {DEEPSTACK("linear_fc2.bias"), "projector.deepstack.{}.1.bias"},
    {NULL, NULL},
};

/* Qwen3VLVisionConfig's and Qwen3VLTextConfig's. */
static const struct mmqi_qwen_vl defaults = {
    .vit =
        {
            .patch_bias = true,
            .hidden = 1152,
            .inner = 4304,
            .n_layers = 27,
            .n_heads = 16,
            .patch = 16,
            .merge = 2,
            .frames = 2,
            .out = 3584,
            .act = MMQI_ACT_GELU_TANH,
            .theta = 10000.0,
            .positions = 2304,
            .n_deepstack = 3,
            .deepstack = {8, 16, 24},
        },
    .llama =
        {
            .vocab = 151936,
            .hidden = 4096,
            .inner = 22016,
            .n_layers = 32,
            .n_heads = 32,
            .n_kv_heads = 32,
            .head_dim = 128,
            .max_positions = 128000,
            .act = MMQI_ACT_SILU,
            .eps = 1e-6,
            .theta = 500000.0,
            .sections = {24, 20, 20},
            .interleaved = true,
            .qk_norm = true,
        },
    .nested_text = true,
    .bos = -1,
    .eos = -1,
};

static bool detect(const struct mmqi_settings *config)
{
    return mmqi_config_names(config, "Qwen3VLForConditionalGeneration", "qwen3_vl");
}

static int32_t configure(struct mmqi_model *model)
{
    struct mmqi_qwen_vl mine = defaults;
    bool bias = false;
    int32_t status = mmqi_config_bool(model->config, "text_config", "attention_bias", &bias);

    mine.llama.qkv_bias = mine.llama.o_bias = bias;
    return status == MMQ_OK ? mmqi_qwen_vl_configure(model, &mine) : status;
}

const struct mmqi_family mmqi_family_qwen3_vl = {
    .name = "qwen3_vl",
    .detect = detect,
    .prefixes = mmqi_qwen_vl_prefixes,
    .aliases = aliases,
    .configure = configure,
    .declare = mmqi_qwen_vl_declare,
    .build_vision = mmqi_qwen_vl_build_vision,
    .build_language = mmqi_qwen_vl_build_language,
    .free_facts = mmqi_free,
    .chat_template = mmqi_template_qwen3_vl,
};
