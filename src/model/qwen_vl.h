/*
 * What the families of Qwen-VL share: names, settings, the recipe, and graphs
 * of the same two parts, a tower for pictures of any size and a decoder with
 * M-RoPE. A family is its class's defaults and the names that are its own.
 */
#ifndef MMQI_MODEL_QWEN_VL_H
#define MMQI_MODEL_QWEN_VL_H

#include "model/lm_llama.h"
#include "model/tower_qwen_vit.h"

struct mmqi_qwen_vl {
    struct mmqi_qwen_vit vit;
    struct mmqi_llama llama;
    bool nested_text; /* text settings stand in text_config alone, never on top */
    bool video;       /* takes videos, where the folder has a token for them */
    int32_t bos, eos; /* where no file tells them; -1: none */
};

extern const struct mmqi_prefix mmqi_qwen_vl_prefixes[];

/* The text defaults of Qwen2-VL and 2.5, whose classes say the same. */
#define MMQI_QWEN2_VL_TEXT                                                                         \
    {                                                                                              \
        .vocab = 152064, .hidden = 8192, .inner = 29568, .n_layers = 80, .n_heads = 64,            \
        .n_kv_heads = 8, .max_positions = 32768, .act = MMQI_ACT_SILU, .eps = 1e-5,                \
        .theta = 1000000.0, .qkv_bias = true, .sections = {16, 24, 24},                            \
    }

/* clang-format off */
#define MMQI_QWEN_BLOCK(file) "visual.blocks.{}." file
/* The names that all have, in the hub's spelling; biases where a family has them. */
#define MMQI_QWEN_VL_ALIASES                                                \
    {"visual.patch_embed.proj.weight", "vision.patch"},                     \
    {MMQI_QWEN_BLOCK("norm1.weight"), "vision.blocks.{}.norm1"},            \
    {MMQI_QWEN_BLOCK("norm2.weight"), "vision.blocks.{}.norm2"},            \
    {MMQI_QWEN_BLOCK("attn.qkv.weight"), "vision.blocks.{}.attn.qkv"},      \
    {MMQI_QWEN_BLOCK("attn.qkv.bias"), "vision.blocks.{}.attn.qkv.bias"},   \
    {MMQI_QWEN_BLOCK("attn.proj.weight"), "vision.blocks.{}.attn.o"},       \
    {MMQI_QWEN_BLOCK("attn.proj.bias"), "vision.blocks.{}.attn.o.bias"},    \
    {"lm_head.weight", "language.head"},                                    \
    MMQI_LLAMA_ALIASES("model.")
/* Of a merger as Qwen2-VL and 2.5 name it. */
#define MMQI_QWEN_MERGER_ALIASES                            \
    {"visual.merger.ln_q.weight", "projector.norm"},        \
    {"visual.merger.mlp.0.weight", "projector.0"},          \
    {"visual.merger.mlp.0.bias", "projector.0.bias"},       \
    {"visual.merger.mlp.2.weight", "projector.1"},          \
    {"visual.merger.mlp.2.bias", "projector.1.bias"}
/* clang-format on */

/* The hook `configure`, over the class's defaults: the model's facts are a struct mmqi_qwen_vl. */
int32_t mmqi_qwen_vl_configure(struct mmqi_model *model, const struct mmqi_qwen_vl *defaults);

int32_t mmqi_qwen_vl_declare(struct mmqi_model *model);
int32_t mmqi_qwen_vl_build_vision(struct mmqi_model *model);
int32_t mmqi_qwen_vl_build_language(struct mmqi_model *model);

#endif
