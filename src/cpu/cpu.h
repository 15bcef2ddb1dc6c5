/*
 * The CPU backend's inner contract: ops (src/cpu/NAME.c) cut their work into
 * chunks and hand each to a kernel of the device's instruction set.
 *
 * The plain C kernels are the definition. Chunk boundaries depend on sizes
 * only, and a kernel's result for an output element depends on its own inputs
 * alone, never on which other rows or columns the call covers.
 *
 * "The 16-lane sum" of t[0..n): lane j adds t[j], t[j + 16], ... in that
 * order, starting at 0; then lanes j and j + 8 are added, then j and j + 4,
 * j and j + 2, j and j + 1. Norms use it on every instruction set; the vector
 * kernels' products use it too, each term entering by a fused multiply-add.
 */
#ifndef MMQI_CPU_CPU_H
#define MMQI_CPU_CPU_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "backend/backend.h"
#include "core/status.h"

enum {
    MMQI_LANES = 16,
    MMQI_PANEL_ROWS = 8,         /* weight rows that a vector kernel unpacks side by side */
    MMQI_MAX_PANEL_COLS = 16384, /* wider weights are multiplied without unpacked panels */
    MMQI_PANEL_FLOATS = 65536,   /* several panels are kept when they fit in this many floats */
    MMQI_MAX_PANELS = 4,
    MMQI_FEW_ROWS = 4,          /* up to this many rows of x, weights are unpacked in registers */
    MMQI_KEY_BLOCK = 64,        /* attention visits keys by blocks of slots [64 i, 64 i + 64) */
    MMQI_TASK_QUERIES = 48,     /* (row, head) pairs of one attention task, about */
    MMQI_MAX_VECTOR_HEAD = 256, /* wider heads take the plain C path */
    MMQI_CHUNK_ELEMENTS = 16384 /* of an elementwise op */
};

/* Some rows and weight rows [begin, end) of a product. */
struct mmqi_matmul_job {
    const struct mmqi_mat *y, *x;
    const struct mmqi_wmat *w;
    const float *bias; /* or NULL */
    int64_t begin, end;
    int64_t next; /* where this worker will probably begin after this, to ask memory for it */
};

/* Rows [begin, end) of the query heads [head_begin, head_end), which all read key head kv_head. */
struct mmqi_attention_job {
    const struct mmqi_mat *y, *q;
    const struct mmqi_kv *kv;
    const struct mmqi_span *spans;
    float scale;
    int32_t kv_head, head_begin, head_end, head_dim;
    int64_t begin, end;
};

/* One instruction set. Vectors of n elements are contiguous; `y` may be an input. */
struct mmqi_cpu_kernels {
    const char *name; /* "c", "avx2", "avx512" */
    int32_t isa;      /* enum mmqi_isa */
    void (*add)(float *y, const float *a, const float *b, int64_t n);
    void (*layer_norm)(float *y, const float *x, const float *w, const float *b, float eps,
                       int64_t n);
    void (*rms_norm)(float *y, const float *x, const float *w, float eps, int64_t n);
    void (*activate)(float *y, const float *x, int64_t n, int32_t act);
    void (*gate)(float *y, const float *g, const float *up, int64_t n, int32_t act);
    /* (x[i], x[half + i]) turned by the angle of (c[i], s[i]). */
    void (*rotate)(float *x, const float *c, const float *s, int64_t half);
    void (*matmul)(const struct mmqi_matmul_job *job, float *scratch);
    void (*attention)(const struct mmqi_attention_job *job, float *scratch);
    int64_t (*pick)(const float *x, int64_t n);
};

extern const struct mmqi_cpu_kernels mmqi_cpu_kernels_c;
extern const struct mmqi_cpu_kernels mmqi_cpu_kernels_avx2;
extern const struct mmqi_cpu_kernels mmqi_cpu_kernels_avx512;

struct mmqi_device {
    const struct mmqi_cpu_kernels *kernels;
    struct mmqi_pool *pool;
    char text[64];
};

struct mmqi_stream {
    const struct mmqi_cpu_kernels *kernels;
    struct mmqi_pool *pool;
    float *scratch; /* [threads, scratch_stride], aligned to 64 */
    size_t scratch_stride;
    uint8_t notes[MMQI_NOTES][MMQI_NOTE_BYTES];
};

/* Floats of scratch that one worker needs for any op on rows of up to max_cols. */
size_t mmqi_cpu_scratch(int64_t max_cols);
/* Panels of MMQI_PANEL_ROWS weight rows that one product job unpacks at most; 0: too wide. */
int64_t mmqi_cpu_panels(int64_t cols);

static inline float *mmqi_cpu_worker_scratch(const struct mmqi_stream *stream, int32_t worker)
{
    return stream->scratch + (size_t)worker * stream->scratch_stride;
}

static inline int64_t mmqi_cpu_ceil_div(int64_t a, int64_t b)
{
    return a / b + (a % b != 0);
}

/* Run fn on the chunks of `rows` rows of `cols` elements; fn's chunk covers rows [chunk * step,
 * ...). */
static inline int64_t mmqi_cpu_row_step(int64_t cols)
{
    return cols >= MMQI_CHUNK_ELEMENTS ? 1 : MMQI_CHUNK_ELEMENTS / (cols < 1 ? 1 : cols);
}

static inline float *mmqi_cpu_row(const struct mmqi_mat *mat, int64_t row)
{
    return mat->data + row * mat->stride;
}

/* Slot `slot` of head `head`: its key, and its value one page half further. */
static inline float *mmqi_cpu_key(const struct mmqi_kv *kv, int64_t slot, int64_t head)
{
    int64_t page = slot / kv->page_rows;

    if (kv->table)
        page = kv->table[page];
    return kv->pages + page * kv->page_stride +
           (slot % kv->page_rows * kv->n_heads + head) * kv->head_dim;
}

static inline int64_t mmqi_cpu_value_offset(const struct mmqi_kv *kv)
{
    return kv->page_rows * kv->n_heads * kv->head_dim;
}

/* Row kernels in plain C: the definition. */
void mmqi_c_add(float *y, const float *a, const float *b, int64_t n);
void mmqi_c_layer_norm(float *y, const float *x, const float *w, const float *b, float eps,
                       int64_t n);
void mmqi_c_rms_norm(float *y, const float *x, const float *w, float eps, int64_t n);
void mmqi_c_activate(float *y, const float *x, int64_t n, int32_t act);
void mmqi_c_gate(float *y, const float *g, const float *up, int64_t n, int32_t act);
void mmqi_c_rotate(float *x, const float *c, const float *s, int64_t half);
void mmqi_c_matmul(const struct mmqi_matmul_job *job, float *scratch);
void mmqi_c_attention(const struct mmqi_attention_job *job, float *scratch);
int64_t mmqi_c_pick(const float *x, int64_t n);

/* The slots of struct mmqi_ops. */
int32_t mmqi_cpu_embed(struct mmqi_stream *s, const struct mmqi_mat *y,
                       const struct mmqi_wmat *table, const int32_t *ids);
int32_t mmqi_cpu_place_rows(struct mmqi_stream *s, const struct mmqi_mat *y,
                            const struct mmqi_mat *x, const int32_t *index, bool accumulate);
int32_t mmqi_cpu_copy(struct mmqi_stream *s, const struct mmqi_mat *y, const struct mmqi_mat *x);
int32_t mmqi_cpu_add(struct mmqi_stream *s, const struct mmqi_mat *y, const struct mmqi_mat *a,
                     const struct mmqi_mat *b);
int32_t mmqi_cpu_layer_norm(struct mmqi_stream *s, const struct mmqi_mat *y,
                            const struct mmqi_mat *x, const float *w, const float *b, float eps);
int32_t mmqi_cpu_rms_norm(struct mmqi_stream *s, const struct mmqi_mat *y, const struct mmqi_mat *x,
                          const float *w, float eps);
int32_t mmqi_cpu_matmul(struct mmqi_stream *s, const struct mmqi_mat *y, const struct mmqi_mat *x,
                        const struct mmqi_wmat *w, const float *bias);
int32_t mmqi_cpu_activate(struct mmqi_stream *s, const struct mmqi_mat *y, const struct mmqi_mat *x,
                          int32_t act);
int32_t mmqi_cpu_gate(struct mmqi_stream *s, const struct mmqi_mat *y, const struct mmqi_mat *gate,
                      const struct mmqi_mat *up, int32_t act);
int32_t mmqi_cpu_rope(struct mmqi_stream *s, const struct mmqi_mat *x, const struct mmqi_rope *rope,
                      const int32_t *positions);
int32_t mmqi_cpu_store_kv(struct mmqi_stream *s, const struct mmqi_kv *kv, const struct mmqi_mat *k,
                          const struct mmqi_mat *v, const int32_t *slots);
int32_t mmqi_cpu_attention(struct mmqi_stream *s, const struct mmqi_mat *y,
                           const struct mmqi_mat *q, int32_t n_heads, const struct mmqi_kv *kv,
                           const struct mmqi_span *spans, float scale);
int32_t mmqi_cpu_patches(struct mmqi_stream *s, const struct mmqi_mat *y, const float *pixels,
                         const struct mmqi_patches *how);
int32_t mmqi_cpu_interpolate(struct mmqi_stream *s, const struct mmqi_mat *y,
                             const struct mmqi_mat *table, const int32_t *taps,
                             const float *weights);
int32_t mmqi_cpu_pick(struct mmqi_stream *s, int32_t *out, const struct mmqi_mat *x);
int32_t mmqi_cpu_advance(struct mmqi_stream *s, const struct mmqi_step *step);

/* The slot `measure` (measure.c). */
int32_t mmqi_cpu_measure(struct mmqi_device *device, uint64_t bytes, struct mmqi_rates *rates);

#endif
