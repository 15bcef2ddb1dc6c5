/*
 * The Llama decoder: RMS norms, rotary positions by halves, grouped keys and
 * values, gated MLP; with picture rows placed among the token rows. Qwen2 is
 * one, with biases on q, k and v and, in Qwen-VL, positions on three axes;
 * Qwen3 norms the heads of q and k, and adds more rows of the picture after
 * its first layers (DeepStack).
 */
#ifndef MMQI_MODEL_LM_LLAMA_H
#define MMQI_MODEL_LM_LLAMA_H

#include "model/blocks.h"

struct mmqi_llama {
    int32_t vocab, hidden, inner, n_layers, n_heads, n_kv_heads, head_dim;
    int32_t max_positions;
    int32_t act; /* enum mmqi_activation */
    double eps, theta;
    bool qkv_bias, o_bias, mlp_bias;
    /* M-RoPE: how many frequencies read time, row and column, one after another; all 0: plain. */
    int32_t sections[3];
    bool interleaved; /* M-RoPE: the axes take turns; time has what is left over */
    bool qk_norm;
    int32_t n_deepstack; /* layers after which rows of the picture are added */
    int32_t tied;        /* 0 no, 1 yes, -1 the settings disagree: only where no head is stored */
};

/* clang-format off */
/* The names of its tensors in files, all but the head, below a prefix that ends with a dot. */
#define MMQI_LLAMA_LAYER(p, file) p "layers.{}." file
#define MMQI_LLAMA_ALIASES(p)                                                                 \
    {p "embed_tokens.weight", "language.embed"},                                              \
    {p "norm.weight", "language.norm"},                                                       \
    {MMQI_LLAMA_LAYER(p, "input_layernorm.weight"), "language.layers.{}.norm1"},              \
    {MMQI_LLAMA_LAYER(p, "post_attention_layernorm.weight"), "language.layers.{}.norm2"},     \
    {MMQI_LLAMA_LAYER(p, "self_attn.q_proj.weight"), "language.layers.{}.attn.q"},            \
    {MMQI_LLAMA_LAYER(p, "self_attn.q_proj.bias"), "language.layers.{}.attn.q.bias"},         \
    {MMQI_LLAMA_LAYER(p, "self_attn.k_proj.weight"), "language.layers.{}.attn.k"},            \
    {MMQI_LLAMA_LAYER(p, "self_attn.k_proj.bias"), "language.layers.{}.attn.k.bias"},         \
    {MMQI_LLAMA_LAYER(p, "self_attn.v_proj.weight"), "language.layers.{}.attn.v"},            \
    {MMQI_LLAMA_LAYER(p, "self_attn.v_proj.bias"), "language.layers.{}.attn.v.bias"},         \
    {MMQI_LLAMA_LAYER(p, "self_attn.o_proj.weight"), "language.layers.{}.attn.o"},            \
    {MMQI_LLAMA_LAYER(p, "self_attn.o_proj.bias"), "language.layers.{}.attn.o.bias"},         \
    {MMQI_LLAMA_LAYER(p, "self_attn.rotary_emb.inv_freq"), NULL},                             \
    {MMQI_LLAMA_LAYER(p, "mlp.gate_proj.weight"), "language.layers.{}.mlp.gate"},             \
    {MMQI_LLAMA_LAYER(p, "mlp.gate_proj.bias"), "language.layers.{}.mlp.gate.bias"},          \
    {MMQI_LLAMA_LAYER(p, "mlp.up_proj.weight"), "language.layers.{}.mlp.up"},                 \
    {MMQI_LLAMA_LAYER(p, "mlp.up_proj.bias"), "language.layers.{}.mlp.up.bias"},              \
    {MMQI_LLAMA_LAYER(p, "mlp.down_proj.weight"), "language.layers.{}.mlp.down"},             \
    {MMQI_LLAMA_LAYER(p, "mlp.down_proj.bias"), "language.layers.{}.mlp.down.bias"}
/* With qk_norm. */
#define MMQI_LLAMA_QK_NORM_ALIASES(p)                                                         \
    {MMQI_LLAMA_LAYER(p, "self_attn.q_norm.weight"), "language.layers.{}.attn.q_norm"},       \
    {MMQI_LLAMA_LAYER(p, "self_attn.k_norm.weight"), "language.layers.{}.attn.k_norm"}
/* clang-format on */

extern const struct mmqi_llama mmqi_llama_defaults; /* LlamaConfig's */

/* Read the keys below `prefix` ("" for the top) over what *llama holds: the family's class
 * defaults, its biases, and sections where it has M-RoPE. MMQ_ERR_UNSUPPORTED names what is not
 * run. */
int32_t mmqi_llama_configure(struct mmqi_llama *llama, const struct mmqi_settings *settings,
                             const char *prefix);
/* The same of a decoder whose class is Llama's own: only that model_type, with the biases that its
 * settings tell. */
int32_t mmqi_llama_configure_plain(struct mmqi_llama *llama, const struct mmqi_settings *settings,
                                   const char *prefix);
/* The same of a Mistral: a Llama with a window, a class default that only null takes away; it is
 * refused. */
int32_t mmqi_llama_configure_mistral(struct mmqi_llama *llama, const struct mmqi_settings *settings,
                                     const char *prefix);
/* What the runtime asks of any decoder. */
void mmqi_llama_fill_spec(const struct mmqi_llama *llama, struct mmqi_spec *spec);
int32_t mmqi_llama_declare(struct mmqi_model *model, const struct mmqi_llama *llama);
/* Segments "language.embed", "language.layers.N" and "language.head"; finishes the graph. */
int32_t mmqi_llama_build(struct mmqi_build *b, const struct mmqi_llama *llama);

#endif
