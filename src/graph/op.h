/*
 * The ops of a graph: what each one needs of its node, and the check of a
 * node's shapes. The meaning of an op is told in backend/ops.h.
 */
#ifndef MMQI_GRAPH_OP_H
#define MMQI_GRAPH_OP_H

#include "graph/graph.h"

struct mmqi_op_info {
    const char *name;
    int32_t n_in;      /* inputs that must be given: in[0 .. n_in) */
    bool needs_weight; /* node.weight must be given */
    bool needs_bias;   /* node.bias must be given (MATMUL's is free) */
    bool updates_out;  /* `out` keeps rows or is changed in place: it is read, too */
    bool in_place;     /* `out` may be the memory of an input of the same shape */
    bool out_free;     /* `out` may be -1 */
};

const struct mmqi_op_info *mmqi_op_info(int32_t op); /* NULL for an unknown op */

/* Values that a node reads (its updated `out` among them): at most 3, each once or more. Returns
 * how many. */
int32_t mmqi_node_reads(const struct mmqi_node *node, int32_t reads[3]);

/* References in range, kinds that may be read or written, and every shape. MMQ_ERR_INTERNAL, naming
 * `where`. */
int32_t mmqi_node_check(const struct mmqi_graph *graph, const struct mmqi_node *node,
                        const char *where);

/* The value whose memory `value` lies in: itself, or the base of a slice. */
int32_t mmqi_value_root(const struct mmqi_graph *graph, int32_t value);

static inline int64_t mmqi_extent_rows(const struct mmqi_extent *extent,
                                       const int64_t rows[MMQI_N_SYMBOLS])
{
    return extent->mul * rows[extent->symbol] + extent->add;
}

#endif
