/*
 * The ops: what a backend must compute, at the grain of the papers.
 *
 * The CPU's plain C (src/cpu/) is the definition; every slot of every backend
 * is filled. Matrices are row-major f32 in `exact` mode; a row is one token
 * or patch. Outputs may be the same memory as an input only where said.
 * Sizes are checked by the graph, not here. An op returns MMQ_OK or the
 * status of its device; the CPU's cannot fail.
 *
 * In `exact` mode an output row depends on its own input rows alone: never on
 * how many rows there are, on the number of threads or on chunking.
 */
#ifndef MMQI_BACKEND_OPS_H
#define MMQI_BACKEND_OPS_H

#include <stdbool.h>
#include <stdint.h>

#include "quant/format.h"

struct mmqi_stream; /* a backend's queue of work: on the CPU the pool and its scratch */

struct mmqi_mat {
    float *data;
    int64_t rows, cols;
    int64_t stride; /* elements from one row to the next, >= cols */
};

/* A placed weight matrix [rows, cols] as kernels see it. */
struct mmqi_wmat {
    int32_t format; /* enum mmqi_format */
    int64_t rows, cols;
    const uint8_t *part[MMQI_MAX_PARTS];
};

enum mmqi_activation {
    MMQI_ACT_SILU = 0,      /* x * sigmoid(x) */
    MMQI_ACT_GELU = 1,      /* 0.5 x (1 + erf(x / sqrt 2)) */
    MMQI_ACT_GELU_TANH = 2, /* the tanh form, "gelu_pytorch_tanh" */
    MMQI_ACT_QUICK_GELU = 3 /* x * sigmoid(1.702 x) */
};

/*
 * Keys and values in pages. A page holds page_rows slots of one layer:
 * K [page_rows, n_heads, head_dim] then V the same. Slot s of the timeline
 * lies in page table[s / page_rows]; table NULL is the identity.
 */
struct mmqi_kv {
    float *pages;        /* page p of this layer begins at pages + p * page_stride */
    int64_t page_stride; /* elements */
    int64_t page_rows;
    const int32_t *table; /* or NULL */
    int32_t n_heads, head_dim;
};

/* One row's keys: slots [begin, end). Masks are data. */
struct mmqi_span {
    int32_t begin, end;
};

/*
 * How heads are turned by position. A row has a position on each of n_axes axes: one for text; the
 * row and column of a patch; time, row and column (M-RoPE). Each frequency reads one of them.
 */
struct mmqi_rope {
    int32_t n_heads, head_dim;
    int32_t n_axes;
    const float *inv_freq; /* [head_dim / 2] */
    const int32_t *axis;   /* [head_dim / 2], of 0 .. n_axes - 1; NULL: all read axis 0 */
};

/*
 * How pixels [channels, height, width] are cut into patches: [channels, frames, patch, patch] each,
 * the same picture in every frame. The grid is visited by squares of merge x merge patches, squares
 * row by row and patches row by row within one; merge 1 is the grid row by row. Pixels right of and
 * below the last whole square are left out.
 */
struct mmqi_patches {
    int32_t channels, height, width;
    int32_t patch, frames, merge;
};

enum { MMQI_TAPS = 4 }; /* of bilinear interpolation */

/*
 * The row of a decoding step, on the device: its token, its positions [n_axes], its slot and its
 * keys.
 */
struct mmqi_step {
    int32_t *id, *positions, *slot;
    struct mmqi_span *span;
    int32_t n_axes;
};

struct mmqi_ops {
    /* y[r] = table[ids[r]], unpacked; 0 <= ids[r] < table->rows. */
    int32_t (*embed)(struct mmqi_stream *s, const struct mmqi_mat *y, const struct mmqi_wmat *table,
                     const int32_t *ids);
    /* y[r] = x[index[r]], or with `accumulate` y[r] + that, where index[r] >= 0; other rows of y
     * stay as they are. */
    int32_t (*place_rows)(struct mmqi_stream *s, const struct mmqi_mat *y, const struct mmqi_mat *x,
                          const int32_t *index, bool accumulate);
    /* y = x (same size). */
    int32_t (*copy)(struct mmqi_stream *s, const struct mmqi_mat *y, const struct mmqi_mat *x);
    /* y = a + b; y may be a or b. b of one row is added to every row. */
    int32_t (*add)(struct mmqi_stream *s, const struct mmqi_mat *y, const struct mmqi_mat *a,
                   const struct mmqi_mat *b);
    /* y = (x - mean) / sqrt(var + eps) * w + b, var with divisor n; w, b: [cols]. y may be x. */
    int32_t (*layer_norm)(struct mmqi_stream *s, const struct mmqi_mat *y, const struct mmqi_mat *x,
                          const float *w, const float *b, float eps);
    /* y = x / sqrt(mean(x^2) + eps) * w. y may be x. */
    int32_t (*rms_norm)(struct mmqi_stream *s, const struct mmqi_mat *y, const struct mmqi_mat *x,
                        const float *w, float eps);
    /* y[r, n] = sum_k x[r, k] * W[n, k] + bias[n]; bias [W->rows] or NULL. */
    int32_t (*matmul)(struct mmqi_stream *s, const struct mmqi_mat *y, const struct mmqi_mat *x,
                      const struct mmqi_wmat *w, const float *bias);
    /* y = act(x). y may be x. */
    int32_t (*activate)(struct mmqi_stream *s, const struct mmqi_mat *y, const struct mmqi_mat *x,
                        int32_t act);
    /* y = act(gate) * up. y may be gate or up. */
    int32_t (*gate)(struct mmqi_stream *s, const struct mmqi_mat *y, const struct mmqi_mat *gate,
                    const struct mmqi_mat *up, int32_t act);
    /* Rotate each head of x in place by its row's position ("rotate half": pairs i and i +
     * head_dim/2). positions [rows, n_axes]: angle = positions[r, axis[i]] * inv_freq[i] in f32
     * (the product rounded to f32, then cos and sin of that). */
    int32_t (*rope)(struct mmqi_stream *s, const struct mmqi_mat *x, const struct mmqi_rope *rope,
                    const int32_t *positions);
    /* Write row r of k and v [rows, n_heads * head_dim] to slot slots[r]. */
    int32_t (*store_kv)(struct mmqi_stream *s, const struct mmqi_kv *kv, const struct mmqi_mat *k,
                        const struct mmqi_mat *v, const int32_t *slots);
    /* y[r, h] = softmax(scale * q[r, h] . K[span r]) V, query head h reads key head h * kv->n_heads
     * / n_heads. Scores are never stored beyond one page. A row with an empty span gives zeros. */
    int32_t (*attention)(struct mmqi_stream *s, const struct mmqi_mat *y, const struct mmqi_mat *q,
                         int32_t n_heads, const struct mmqi_kv *kv, const struct mmqi_span *spans,
                         float scale);
    /* y[i] = patch i of pixels. */
    int32_t (*patches)(struct mmqi_stream *s, const struct mmqi_mat *y, const float *pixels,
                       const struct mmqi_patches *how);
    /* y[r] += sum_k weights[r, k] * table[taps[r, k]], k = 0 .. MMQI_TAPS - 1 in this order; taps
     * and weights are [y->rows, MMQI_TAPS]. */
    int32_t (*interpolate)(struct mmqi_stream *s, const struct mmqi_mat *y,
                           const struct mmqi_mat *table, const int32_t *taps, const float *weights);
    /* out[r] = index of the greatest x[r, :]; the lowest index wins a tie. */
    int32_t (*pick)(struct mmqi_stream *s, int32_t *out, const struct mmqi_mat *x);
    /* The row after this one: positions, slot and the end of the span go on by one; the token
     * stays. */
    int32_t (*advance)(struct mmqi_stream *s, const struct mmqi_step *step);
};

#endif
