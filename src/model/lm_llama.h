/*
 * The Llama decoder: RMS norms, rotary positions by halves, grouped keys and
 * values, gated MLP; with picture rows placed among the token rows.
 */
#ifndef MMQI_MODEL_LM_LLAMA_H
#define MMQI_MODEL_LM_LLAMA_H

#include "model/blocks.h"

struct mmqi_llama {
    int32_t vocab, hidden, inner, n_layers, n_heads, n_kv_heads, head_dim;
    int32_t max_positions;
    int32_t act; /* enum mmqi_activation */
    double eps, theta;
    bool attention_bias, mlp_bias;
    int32_t tied; /* 0 no, 1 yes, -1 the settings disagree: only where no head is stored */
};

/* Read the keys below `prefix` over LlamaConfig's defaults; MMQ_ERR_UNSUPPORTED names what is not
 * run. */
int32_t mmqi_llama_configure(struct mmqi_llama *llama, const struct mmqi_settings *settings,
                             const char *prefix);
/* What the runtime asks of any decoder. */
void mmqi_llama_fill_spec(const struct mmqi_llama *llama, struct mmqi_spec *spec);
int32_t mmqi_llama_declare(struct mmqi_model *model, const struct mmqi_llama *llama);
/* Segments "language.embed", "language.layers.N" and "language.head"; finishes the graph. */
int32_t mmqi_llama_build(struct mmqi_build *b, const struct mmqi_llama *llama);

#endif
