/*
 * Pieces of a forward pass that towers and decoders share.
 *
 * Each call adds one node (or a few) to the segment in hand and returns the
 * value it makes, -1 after a failure. Weights are named below `at`; a linear
 * has a bias where the table has "NAME.bias".
 */
#ifndef MMQI_MODEL_BLOCKS_H
#define MMQI_MODEL_BLOCKS_H

#include "model/weights.h"

struct mmqi_build {
    const struct mmqi_model *model;
    struct mmqi_graph *graph;
    const char *at; /* "language.layers.3"; also the name of the values made */
    bool windows;   /* page attention goes by the spans of windows */
    int32_t status; /* the first failure that the graph itself does not know */
};

/* Index of the weight "at.name"; -1, and a failure, where the table lacks it. */
int32_t mmqi_build_weight(struct mmqi_build *b, const char *name);
/* A fresh value with the rows of `like`. */
int32_t mmqi_build_like(struct mmqi_build *b, int32_t like, int64_t cols);
/* Add a node unless something failed. */
void mmqi_build_node(struct mmqi_build *b, const struct mmqi_node *node);

int32_t mmqi_build_linear(struct mmqi_build *b, const char *name, int32_t in);
/* The same into a value that is there already. */
void mmqi_build_linear_into(struct mmqi_build *b, const char *name, int32_t in, int32_t out);
int32_t mmqi_build_layer_norm(struct mmqi_build *b, const char *name, int32_t in, float eps);
int32_t mmqi_build_rms_norm(struct mmqi_build *b, const char *name, int32_t in, float eps);
int32_t mmqi_build_add(struct mmqi_build *b, int32_t x, int32_t y);
int32_t mmqi_build_activate(struct mmqi_build *b, int32_t in, int32_t act);
int32_t mmqi_build_gate(struct mmqi_build *b, int32_t gate, int32_t up, int32_t act);

/* The second half of a tower's block: x + fc2(act(fc1(norm2(x)))), layer-normed with eps. */
int32_t mmqi_build_mlp(struct mmqi_build *b, int32_t x, int32_t act, float eps);

/* down(act(gate(y)) * up(y)), "mlp.gate" and so on. */
int32_t mmqi_build_gated(struct mmqi_build *b, int32_t y, int32_t act);

/* Attention in which every row sees the rows that the run's spans tell it of, all of this graph:
 * keys and values are one page. Returns rows as wide as q. */
int32_t mmqi_build_page_attention(struct mmqi_build *b, int32_t q, int32_t k, int32_t v,
                                  int32_t n_heads);

/* The first failure of the builder or of its graph. */
int32_t mmqi_build_finish(struct mmqi_build *b);

#endif
