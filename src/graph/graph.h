/*
 * The graph: a forward pass told once, without arithmetic.
 *
 * A list of segments (one per block), each a list of nodes over values. A
 * value is a matrix of f32 whose row count is symbolic: mul * rows[symbol] +
 * add. A graph is built by a family, planned once for the greatest row counts
 * and run at any smaller ones with the same arena offsets, so the exact
 * bytes are known before anything is allocated.
 *
 * Values cross from one segment into a later one only when the earlier one
 * declared them live-out: a device map cuts, calibration spills and bisecting compares there.
 */
#ifndef MMQI_GRAPH_GRAPH_H
#define MMQI_GRAPH_GRAPH_H

#include <stdbool.h>

#include "backend/ops.h"

struct mmqi_stream_options; /* backend/backend.h */

enum mmqi_symbol {
    MMQI_ROWS_CONST = 0, /* rows = add */
    MMQI_ROWS_MAIN = 1,  /* tokens of a decoder chunk, or patches of a picture */
    MMQI_ROWS_PICK = 2,  /* rows whose logits are asked for */
    MMQI_ROWS_IMAGE = 3, /* rows that a tower made, waiting to be placed */
    MMQI_N_SYMBOLS
};

struct mmqi_extent {
    int32_t symbol;
    int64_t mul, add;
};

enum mmqi_op {
    MMQI_OP_EMBED,      /* out, weight; index IDS */
    MMQI_OP_PLACE_ROWS, /* out (kept elsewhere), in[0], accumulate; index PLACE */
    MMQI_OP_GATHER,     /* out = in[0] rows by `index` (place_rows onto a fresh value) */
    MMQI_OP_COPY,       /* out, in[0] */
    MMQI_OP_ADD,        /* out, in[0], in[1] */
    MMQI_OP_LAYER_NORM, /* out, in[0], weight, bias, eps */
    MMQI_OP_RMS_NORM,   /* out, in[0], weight, eps */
    MMQI_OP_MATMUL,     /* out, in[0], weight, bias or -1 */
    MMQI_OP_ACTIVATE,   /* out, in[0], act */
    MMQI_OP_GATE,       /* out, in[0] gate, in[1] up, act */
    MMQI_OP_ROPE,       /* out (in place), n_heads, head_dim, n_axes, weight = inverse frequencies,
                           bias = the axis of each (mmqi_declare_indices) or -1; index POSITIONS */
    MMQI_OP_STORE_KV,   /* in[0] k, in[1] v; kv: layer of the cache, or out = a value that serves as
                           the one page; index SLOTS */
    MMQI_OP_ATTENTION,  /* out, in[0] q, in[1] = the page's value or -1 for the cache's layer;
                           n_heads, n_kv_heads, head_dim, scale, windows */
    MMQI_OP_PATCHES, /* out, in[0] pixels (rows of out, channels * patch * patch: as many numbers as
                        the picture has), channels, patch, frames, merge; the run's picture size */
    MMQI_OP_INTERPOLATE, /* out (in place), in[0] = the table; index TAPS, weights of the run */
    MMQI_N_OPS
};

enum mmqi_index {
    MMQI_INDEX_IDS = 0,   /* [rows of embed's out] token ids, or rows of another table */
    MMQI_INDEX_POSITIONS, /* [rows of rope's out, n_axes] */
    MMQI_INDEX_SLOTS,     /* [rows of k] slots of the timeline, or rows of the page */
    MMQI_INDEX_PLACE,     /* [MAIN] row of the picture rows, or -1 */
    MMQI_INDEX_PICK,      /* [PICK] rows to keep for the head */
    MMQI_INDEX_ORDER,     /* [IMAGE] which square of a picture's grid comes when: by windows */
    MMQI_INDEX_UNDO,      /* [IMAGE] where each square of the grid came */
    MMQI_INDEX_TAPS,      /* [rows of interpolate's out, MMQI_TAPS] rows of its table */
    MMQI_N_INDEX
};

enum mmqi_value_kind {
    MMQI_VALUE_ARENA = 0,  /* lives in the arena between its first write and last read */
    MMQI_VALUE_INPUT = 1,  /* bound by the run */
    MMQI_VALUE_OUTPUT = 2, /* bound by the run */
    MMQI_VALUE_WEIGHT = 3, /* an f32 weight read as a matrix */
    MMQI_VALUE_SLICE = 4   /* rows, columns or all of another value, seen as a matrix */
};

struct mmqi_value {
    const char *name; /* canonical where it has one: "language.layers.3"; owned by the graph */
    int32_t kind;
    struct mmqi_extent rows;
    int64_t cols;
    int64_t stride;  /* elements from one row to the next; `cols` unless it is columns of another */
    int32_t base;    /* SLICE: the value sliced, no slice itself */
    int64_t first;   /* SLICE: element of the base where it begins */
    int32_t weight;  /* WEIGHT: index in the weight table */
    int32_t binding; /* INPUT, OUTPUT: index in mmqi_run.bound */
};

struct mmqi_node {
    int32_t op;
    int32_t out, in[2];   /* values; -1 for none */
    int32_t weight, bias; /* weight table; -1 for none */
    int32_t act;          /* enum mmqi_activation */
    int32_t n_heads, n_kv_heads, head_dim;
    int32_t layer; /* of the KV cache; -1 for none */
    float eps, scale;
    int32_t n_axes;
    int32_t channels, patch, frames, merge;
    int32_t index;   /* GATHER: enum mmqi_index, PICK, ORDER or UNDO */
    bool accumulate; /* PLACE_ROWS: add to what is there */
    bool windows;    /* ATTENTION: by the run's window_spans */
};

struct mmqi_segment {
    const char *name;   /* "vision.blocks.3", "language.layers.0", "language.head" */
    int32_t begin, end; /* nodes */
    int32_t *live_out;  /* values that later segments may read */
    int32_t n_live_out;
};

struct mmqi_graph; /* opaque; accessors below */

/* ---- building: a failed builder stays failed, mmqi_graph_finish() reports it ---- */

int32_t mmqi_graph_create(struct mmqi_graph **out);
void mmqi_graph_free(struct mmqi_graph *graph); /* accepts NULL */
int32_t mmqi_graph_value(struct mmqi_graph *graph, const char *name, struct mmqi_extent rows,
                         int64_t cols);
int32_t mmqi_graph_input(struct mmqi_graph *graph, const char *name, int32_t binding,
                         struct mmqi_extent rows, int64_t cols);
int32_t mmqi_graph_output(struct mmqi_graph *graph, const char *name, int32_t binding,
                          struct mmqi_extent rows, int64_t cols);
int32_t mmqi_graph_weight_value(struct mmqi_graph *graph, int32_t weight, int64_t rows,
                                int64_t cols);
int32_t mmqi_graph_slice(struct mmqi_graph *graph, int32_t base, int64_t first_row,
                         struct mmqi_extent rows);
/* Columns [first_col, first_col + cols) of every row of `base`. */
int32_t mmqi_graph_columns(struct mmqi_graph *graph, int32_t base, int64_t first_col, int64_t cols);
/* All of `base`, n consecutive rows as one. */
int32_t mmqi_graph_join_rows(struct mmqi_graph *graph, int32_t base, int64_t n);
/* All of `base`, each row as n, one after another. */
int32_t mmqi_graph_split_rows(struct mmqi_graph *graph, int32_t base, int64_t n);
void mmqi_graph_node(struct mmqi_graph *graph, const struct mmqi_node *node);
/* A node with every reference -1, to be filled by the caller. */
struct mmqi_node mmqi_node(int32_t op);
void mmqi_graph_begin_segment(struct mmqi_graph *graph, const char *name);
void mmqi_graph_end_segment(struct mmqi_graph *graph, const int32_t *live_out, int32_t n_live_out);
/* Checks shapes of every node, that values are written before they are read, and the live-out law.
 */
int32_t mmqi_graph_finish(struct mmqi_graph *graph);

/* ---- reading ---- */

int32_t mmqi_graph_n_values(const struct mmqi_graph *graph);
const struct mmqi_value *mmqi_graph_value_at(const struct mmqi_graph *graph, int32_t value);
int32_t mmqi_graph_n_nodes(const struct mmqi_graph *graph);
const struct mmqi_node *mmqi_graph_node_at(const struct mmqi_graph *graph, int32_t node);
int32_t mmqi_graph_n_segments(const struct mmqi_graph *graph);
const struct mmqi_segment *mmqi_graph_segment_at(const struct mmqi_graph *graph, int32_t segment);
/* The widest row that an op sees, for streams. */
int64_t mmqi_graph_max_cols(const struct mmqi_graph *graph);

/* ---- planning (memory.c) ---- */

struct mmqi_plan; /* arena offset of every value */

/* max_rows[symbol] for every symbol that the graph uses. MMQ_ERR_LIMIT where bytes would wrap. */
int32_t mmqi_plan_create(struct mmqi_plan **out, const struct mmqi_graph *graph,
                         const int64_t max_rows[MMQI_N_SYMBOLS]);
void mmqi_plan_free(struct mmqi_plan *plan);            /* accepts NULL */
uint64_t mmqi_plan_bytes(const struct mmqi_plan *plan); /* exact size of the arena */
/* Byte offset of an arena value (slices: of their first row). */
uint64_t mmqi_plan_offset(const struct mmqi_plan *plan, int32_t value);
/* Byte of the arena where the memory of a value ends, at the greatest row counts; 0 for a value
 * that lies elsewhere. */
uint64_t mmqi_plan_end(const struct mmqi_plan *plan, int32_t value);
int64_t mmqi_plan_value_rows(const struct mmqi_plan *plan, const struct mmqi_extent *rows);
int64_t mmqi_plan_max_rows(const struct mmqi_plan *plan, int32_t symbol); /* as planned for */
/* Raise the sizes in `needs` to what the ops of this graph see, run as planned (route.c). */
void mmqi_plan_needs(struct mmqi_stream_options *needs, const struct mmqi_graph *graph,
                     const struct mmqi_plan *plan);

/* ---- running (execute.c) ---- */

enum { MMQI_MAX_BINDINGS = 8 };

/* A weight as runs see it: a matrix for matmul and embed, and for vectors (and small f32 matrices)
 * the f32 numbers. */
struct mmqi_run_weight {
    struct mmqi_wmat mat;
    const float *vector;
};

struct mmqi_run {
    int64_t rows[MMQI_N_SYMBOLS]; /* <= the plan's */
    void *arena;                  /* mmqi_plan_bytes() bytes on the device, aligned to 64 */
    float *bound[MMQI_MAX_BINDINGS];
    int32_t picture_height, picture_width; /* of the pixels that a tower reads */
    int32_t picture_frames; /* planes of each channel, one a frame; 0: one plane is every frame */
    const int32_t *index[MMQI_N_INDEX];
    const struct mmqi_span *spans;        /* per row of the attention's q */
    const struct mmqi_span *window_spans; /* the same, for nodes with `windows` */
    const float *tap_weights;             /* beside index TAPS */
    const struct mmqi_kv *kv;             /* [layers] of the cache; NULL for a tower */
    const struct mmqi_run_weight *weights;
    /* After the last segment, whose first live-out is one row: pick next->id from it, and advance.
     * NULL: neither. */
    const struct mmqi_step *next;
    /* Read with atomics after each segment, once by a compiled run; nonzero ends the run with
     * MMQ_ERR_CANCELLED. NULL: none. */
    const int32_t *cancelled;
    /* Called after each segment with its first live-out, for bisecting against goldens; a status
     * other than MMQ_OK ends the run with it. Such a run is never compiled. NULL: none. */
    int32_t (*after)(void *user, const struct mmqi_segment *segment,
                     const struct mmqi_mat *live_out);
    void *after_user;
};

/* The plain executor: node by node through `ops`. Backends use it as their execute slot or in front
 * of a compiled one. */
int32_t mmqi_graph_execute(struct mmqi_stream *stream, const struct mmqi_ops *ops,
                           const struct mmqi_graph *graph, const struct mmqi_plan *plan,
                           const struct mmqi_run *run, int32_t begin, int32_t end);

#endif
