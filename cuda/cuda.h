/*
 * The CUDA backend's inner contract: the device and the stream, how calls are
 * checked, and the ops.
 *
 * Every op is asynchronous on its stream, takes device addresses, allocates
 * nothing, and can be captured in a CUDA graph: its grid depends on the sizes
 * of its matrices alone, and what changes from token to token (ids, positions,
 * slots, spans, page tables) is read on the device. Results never depend on
 * timing: no float atomics, fixed splits and fixed orders of summation.
 *
 * Products of one row and turns of few (rope) wait for others that can share their launch, until
 * another op is launched or mmqi_cuda_flush() is called; an error of theirs is that call's.
 *
 * A call of the CUDA runtime that can fail is written
 *     status = MMQI_CUDA(device, cudaStreamSynchronize(stream));
 * and a launch is followed by
 *     return mmqi_cuda_launched(s, "rms_norm");
 * so that tests can make the nth of them fail. An error that leaves the
 * context unusable marks the device lost: MMQ_ERR_DEVICE ever after for all
 * that was opened on it, while freeing still works.
 */
#ifndef MMQI_CUDA_CUDA_H
#define MMQI_CUDA_CUDA_H

#include <cublasLt.h>
#include <cuda_runtime.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "backend/host.h"
#include "mmq.h"

#ifdef __cplusplus
extern "C" {
#endif

enum {
    MMQI_CUDA_STAGES = 2,            /* pinned buffers of an upload */
    MMQI_CUDA_STAGE_BYTES = 8 << 20, /* each */
    MMQI_CUDA_WORKSPACE = 32 << 20,  /* cuBLASLt's, of every stream */
    MMQI_CUDA_ALIGN = 256,           /* of device memory and of the parts of scratch */
    MMQI_CUDA_COMPILED = 4,          /* captured graphs that a stream keeps */
    MMQI_CUDA_CHOICES = 64,          /* shapes of products that a stream remembers */
    MMQI_CUDA_GROUP = 3,             /* products of one launch */
    MMQI_CUDA_TURNS = 2,             /* matrices that one launch turns */
    MMQI_CUDA_COUNTERS = 1024,       /* of blocks that have arrived, of every stream */
    MMQI_CUDA_PICKS = 64             /* parts of a wide row from which one number is picked */
};

struct mmqi_cuda_block; /* cuda/device.h */

struct mmqi_device {
    const struct mmqi_backend_host *host;
    int32_t index;
    int32_t n_multiprocessors;
    int32_t compute;     /* capability, 10 * major + minor: 75, 80, 90, 120 */
    size_t shared_bytes; /* shared memory that one block may opt into */
    char text[192];      /* for describe */
    int (*context_state)(int device, unsigned *flags, int *active); /* the driver's; or NULL */
    int32_t lost;                /* changed with atomics only: the error that lost it, 0: none */
    const struct mmqi_log *log;  /* or NULL */
    struct mmqi_fault fault;     /* set while nothing runs on the device */
    int64_t n_calls, n_allocs;   /* since the fault was set; changed with atomics only */
    struct mmqi_os_mutex *mutex; /* guards the rest: */
    struct mmqi_cuda_block *blocks;
    uint64_t taken, peak; /* bytes of the blocks */
    cudaStream_t transfers;
    uint8_t *stage[MMQI_CUDA_STAGES];     /* pinned */
    cudaEvent_t staged[MMQI_CUDA_STAGES]; /* the buffer's last copy is done */
};

struct mmqi_cuda_compiled; /* cuda/execute.c */

/* What cuBLASLt chose for a shape of product (tensor.cu). */
struct mmqi_cuda_choice {
    int64_t shape[6]; /* the key; all zeros: none */
    bool refused;     /* it has no algorithm */
    cublasLtMatmulAlgo_t algo;
};

/* A product of one row that is not launched yet (matmul.cu). */
struct mmqi_cuda_waiting {
    struct mmqi_mat y, x;
    struct mmqi_wmat w;
    const float *bias;  /* or NULL */
    const float *added; /* NULL, or `sum` is to be added + y as well */
    float *sum;
};

/* Heads that are not turned yet (rope.cu). */
struct mmqi_cuda_turn {
    struct mmqi_mat x;
    struct mmqi_rope rope;
    const int32_t *positions;
};

/* The greatest of a part of a row; index -1: it is all NaN. */
struct mmqi_cuda_pick {
    float value;
    int32_t index;
};

struct mmqi_stream {
    struct mmqi_device *device;
    cudaStream_t stream; /* does not wait for the legacy default stream */
    cublasLtHandle_t lt;
    struct mmqi_stream_options options;
    uint8_t *scratch; /* for one op at a time; aligned to MMQI_CUDA_ALIGN */
    size_t scratch_bytes;
    uint8_t *notes; /* pinned: MMQI_NOTES of MMQI_NOTE_BYTES */
    cudaEvent_t noted[MMQI_NOTES];
    struct mmqi_cuda_pick *picks; /* MMQI_CUDA_PICKS, for pick alone */
    unsigned *counters;           /* MMQI_CUDA_COUNTERS, zeros between kernels */
    void *workspace;              /* MMQI_CUDA_WORKSPACE bytes, for cuBLASLt alone */
    struct mmqi_cuda_compiled *compiled;
    struct mmqi_cuda_choice choices[MMQI_CUDA_CHOICES];
    uint32_t next_choice;
    struct mmqi_cuda_waiting waiting[MMQI_CUDA_GROUP];
    int32_t n_waiting;
    struct mmqi_cuda_turn turns[MMQI_CUDA_TURNS]; /* after the products that wait */
    int32_t n_turns;
};

/* ---- calls, devices (device.c) ---- */

/* MMQ_OK, or the error as a status with the line "cuda:0: WHAT: reason": cudaErrorMemoryAllocation
 * is MMQ_ERR_NOMEM, all else MMQ_ERR_DEVICE. `device` is never NULL. */
int32_t mmqi_cuda_check(struct mmqi_device *device, cudaError_t error, const char *what);
int32_t mmqi_cuda_check_lt(struct mmqi_device *device, cublasStatus_t error, const char *what);
/* Of the launch just made; for a kernel, after <<<>>>. */
int32_t mmqi_cuda_launched(struct mmqi_stream *s, const char *what);
/* A status with a line, as printf spells it. */
int32_t mmqi_cuda_fail(struct mmqi_device *device, int32_t status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* Whether this build has code for the device (probe.cu): MMQ_ERR_UNSUPPORTED. */
int32_t mmqi_cuda_probe(struct mmqi_device *device);
/* Counts a call; cudaSuccess, or the error that it must give without being made (a fault to come,
 * a device that is lost). */
cudaError_t mmqi_cuda_fault(struct mmqi_device *device, bool is_alloc);
/* The same as a status with its line, of a call that is no allocation. */
int32_t mmqi_cuda_faulted(struct mmqi_device *device, const char *what);

/* A call of the runtime, counted and checked; it is not made where a fault takes its place. */
#define MMQI_CUDA(device, call)                                                                    \
    mmqi_cuda_check(device, mmqi_cuda_fault(device, false) ?: (call), #call)
#define MMQI_CUDA_ALLOC(device, call)                                                              \
    mmqi_cuda_check(device, mmqi_cuda_fault(device, true) ?: (call), #call)
/* Of cuBLASLt, likewise. */
#define MMQI_CUBLAS(device, call)                                                                  \
    (mmqi_cuda_faulted(device, #call) ?: mmqi_cuda_check_lt(device, (call), #call))

/* Launch the ops that wait; none waits afterwards, whatever failed. Before every wait for the
 * stream, and before and after what is captured. */
int32_t mmqi_cuda_flush(struct mmqi_stream *s);
/* Of turns alone: a part of mmqi_cuda_flush(). */
int32_t mmqi_cuda_flush_turns(struct mmqi_stream *s);
/* Whether the turn of k waits, and k and v are written to the cache with it: *status is the
 * launch's. */
bool mmqi_cuda_store_waiting(struct mmqi_stream *s, const struct mmqi_kv *kv,
                             const struct mmqi_mat *k, const struct mmqi_mat *v,
                             const int32_t *slots, int32_t *status);
/* After a run that failed: what waits is not launched. */
static inline void mmqi_cuda_forget_waiting(struct mmqi_stream *s)
{
    s->n_waiting = 0;
    s->n_turns = 0;
}

/* Whether the one product that waits makes sum = a + b as well, being a or b; then nothing else is
 * to be done for it. */
bool mmqi_cuda_add_waiting(struct mmqi_stream *s, const struct mmqi_mat *sum,
                           const struct mmqi_mat *a, const struct mmqi_mat *b);

/* Whether the two products that wait are gate and up, and y is made with them: *status is the
 * launch's. */
bool mmqi_cuda_gate_waiting(struct mmqi_stream *s, const struct mmqi_mat *y,
                            const struct mmqi_mat *gate, const struct mmqi_mat *up, int32_t act,
                            int32_t *status);

/* ---- scratch (scratch.c, the kernels' own): bytes that the ops of such a stream need ---- */

size_t mmqi_cuda_scratch_bytes(const struct mmqi_device *device,
                               const struct mmqi_stream_options *options);

/* ---- the slot measure (measure.cu) ---- */

int32_t mmqi_cuda_measure(struct mmqi_device *device, uint64_t bytes, struct mmqi_rates *rates);

/* ---- packing (pack.c): what the slot `pack` does ---- */

int32_t mmqi_cuda_pack(struct mmqi_device *device, struct mmqi_wmat *w, void *block,
                       const struct mmqi_layout *layout);

/* ---- the ops, as backend/ops.h tells them ---- */

int32_t mmqi_cuda_embed(struct mmqi_stream *s, const struct mmqi_mat *y,
                        const struct mmqi_wmat *table, const int32_t *ids);
int32_t mmqi_cuda_place_rows(struct mmqi_stream *s, const struct mmqi_mat *y,
                             const struct mmqi_mat *x, const int32_t *index, bool accumulate);
int32_t mmqi_cuda_copy(struct mmqi_stream *s, const struct mmqi_mat *y, const struct mmqi_mat *x);
int32_t mmqi_cuda_add(struct mmqi_stream *s, const struct mmqi_mat *y, const struct mmqi_mat *a,
                      const struct mmqi_mat *b);
int32_t mmqi_cuda_layer_norm(struct mmqi_stream *s, const struct mmqi_mat *y,
                             const struct mmqi_mat *x, const float *w, const float *b, float eps);
int32_t mmqi_cuda_rms_norm(struct mmqi_stream *s, const struct mmqi_mat *y,
                           const struct mmqi_mat *x, const float *w, float eps);
int32_t mmqi_cuda_matmul(struct mmqi_stream *s, const struct mmqi_mat *y, const struct mmqi_mat *x,
                         const struct mmqi_wmat *w, const float *bias);
int32_t mmqi_cuda_activate(struct mmqi_stream *s, const struct mmqi_mat *y,
                           const struct mmqi_mat *x, int32_t act);
int32_t mmqi_cuda_gate(struct mmqi_stream *s, const struct mmqi_mat *y, const struct mmqi_mat *gate,
                       const struct mmqi_mat *up, int32_t act);
int32_t mmqi_cuda_rope(struct mmqi_stream *s, const struct mmqi_mat *x,
                       const struct mmqi_rope *rope, const int32_t *positions);
int32_t mmqi_cuda_store_kv(struct mmqi_stream *s, const struct mmqi_kv *kv,
                           const struct mmqi_mat *k, const struct mmqi_mat *v,
                           const int32_t *slots);
int32_t mmqi_cuda_attention(struct mmqi_stream *s, const struct mmqi_mat *y,
                            const struct mmqi_mat *q, int32_t n_heads, const struct mmqi_kv *kv,
                            const struct mmqi_span *spans, float scale);
int32_t mmqi_cuda_patches(struct mmqi_stream *s, const struct mmqi_mat *y, const float *pixels,
                          const struct mmqi_patches *how);
int32_t mmqi_cuda_interpolate(struct mmqi_stream *s, const struct mmqi_mat *y,
                              const struct mmqi_mat *table, const int32_t *taps,
                              const float *weights);
int32_t mmqi_cuda_pick(struct mmqi_stream *s, int32_t *out, const struct mmqi_mat *x);
int32_t mmqi_cuda_advance(struct mmqi_stream *s, const struct mmqi_step *step);

extern const struct mmqi_ops mmqi_cuda_ops; /* all of them: ops.c */

#ifdef __cplusplus
}
#endif

#endif
