/*
 * A backend: one kind of device behind a table of function pointers.
 *
 * Tables are const and every slot is filled. A device is opened once per
 * model and place; streams are cheap and one per session. Memory is bytes at
 * an address that only the backend's own functions touch (on the CPU, plain
 * memory). Errors: a status and a message, as everywhere.
 */
#ifndef MMQI_BACKEND_BACKEND_H
#define MMQI_BACKEND_BACKEND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "backend/ops.h"
#include "core/thread.h"

struct mmqi_backend_host; /* backend/host.h */
struct mmqi_device;       /* an opened device of a backend */
struct mmqi_graph;
struct mmqi_log;
struct mmqi_plan;
struct mmqi_run;

enum mmqi_isa { MMQI_ISA_AUTO = 0, MMQI_ISA_C = 1, MMQI_ISA_AVX2 = 2, MMQI_ISA_AVX512 = 3 };

/* How a stream computes. */
enum mmqi_mode {
    MMQI_MODE_EXACT = 0, /* f32 activations, f32 sums */
    MMQI_MODE_FAST = 1   /* as the backend states at its matmul and attention */
};

/* Made to fail, for tests: the nth call of its kind from now on, and no other. */
enum mmqi_fault_kind {
    MMQI_FAULT_NONE = 0,
    MMQI_FAULT_ALLOC = 1, /* the device refuses memory */
    MMQI_FAULT_CALL = 2,  /* a call of the driver fails (allocations count too) */
    MMQI_FAULT_LOST = 3   /* so, and the device with it */
};

struct mmqi_fault {
    int32_t kind; /* enum mmqi_fault_kind */
    int64_t nth;  /* counted from 1 */
};

struct mmqi_device_options {
    int32_t index;          /* which device of its kind */
    int32_t isa;            /* enum mmqi_isa; one that the machine lacks is MMQ_ERR_UNSUPPORTED */
    struct mmqi_pool *pool; /* the CPU's threads; outlives the device */
    const struct mmqi_backend_host *host; /* for a backend in a library of its own */
    const struct mmqi_log *log;           /* NULL: none; outlives the device */
    struct mmqi_fault fault;              /* for tests */
};

/* What there is, before a device is opened. */
struct mmqi_device_info {
    char name[128];     /* as its maker calls it */
    uint64_t total;     /* bytes of its memory; 0: the host's */
    int32_t compute[2]; /* CUDA: compute capability, major and minor; else 0 */
};

/* Bytes of an open device. */
struct mmqi_device_memory {
    uint64_t taken, peak; /* by alloc and stream_open */
    uint64_t driver;      /* by its driver for this device: context, modules, captured graphs; as
                             far as the driver tells, others' use of the device may blur it */
    uint64_t free, total; /* as the driver tells; 0: the host's memory */
};

/* The greatest sizes that the ops of a stream will see. */
struct mmqi_stream_options {
    int32_t mode;        /* enum mmqi_mode */
    int64_t max_cols;    /* widest matrix row (mmqi_wmat.cols, mmqi_mat.cols) */
    int64_t max_product; /* most elements (rows * cols) of a matmul's x */
    int64_t max_heads;   /* widest row of an attention's y: n_heads * head_dim */
};

/* What a device can do at best; 0: not measured. */
struct mmqi_rates {
    double read, copy; /* bytes per second; a copy's are those read and those written */
    double product[2]; /* by enum mmqi_mode: multiplications and additions per second of a large
                          dense product */
};

/* Rows to pack: as format->pack of quant/format.h, all of it memory of the device. */
struct mmqi_pack_job {
    int32_t format, method; /* enum mmqi_format, enum mmqi_method */
    int64_t rows, cols;     /* whole steps of the format, or up to the matrix's end */
    const float *w;         /* [rows, cols] */
    /* Receive these rows' bytes; aligned to the numbers they hold. Of a nested format part 1
     * receives the flat f32 absmax instead, and the parts after it nothing. */
    uint8_t *part[MMQI_MAX_PARTS];
};

/* What a stream notes for the host: so many bytes, this often at a time. */
enum { MMQI_NOTE_BYTES = 64, MMQI_NOTES = 2 };

struct mmqi_backend {
    const char *name; /* "cpu", "cuda" */
    /* Device memory is the host's, and pack leaves the canonical bytes: a block of the host's
     * serves where it lies. */
    bool host_memory;
    bool fast; /* streams may be in MMQI_MODE_FAST */
    /* Devices of this kind that can be opened now. None: MMQ_ERR_NO_DEVICE with the reason (no
     * driver, an old one, no device), *n 0. */
    int32_t (*count)(const struct mmqi_backend_host *host, int32_t *n);
    int32_t (*info)(const struct mmqi_backend_host *host, int32_t index,
                    struct mmqi_device_info *info);
    int32_t (*open)(struct mmqi_device **out, const struct mmqi_device_options *options);
    void (*close)(struct mmqi_device *device); /* accepts NULL */
    /* One line: name of the device and what was chosen ("cpu avx512, 2 threads"). Lives with the
     * device. */
    const char *(*describe)(const struct mmqi_device *device);
    int32_t (*alloc)(struct mmqi_device *device, void **out, size_t size); /* aligned to 64 */
    void (*free)(struct mmqi_device *device, void *memory);                /* accepts NULL */
    int32_t (*upload)(struct mmqi_device *device, void *dst, const void *src, size_t size);
    int32_t (*download)(struct mmqi_device *device, void *dst, const void *src, size_t size);
    int32_t (*copy)(struct mmqi_device *device, void *dst, const void *src,
                    size_t size); /* on the device */
    /* Make a weight's canonical block, already on the device, ready for the kernels: fills w->part.
     * The CPU computes from canonical bytes; another backend may rearrange in place. */
    int32_t (*pack)(struct mmqi_device *device, struct mmqi_wmat *w, void *block,
                    const struct mmqi_layout *layout);
    /* Pack rows: the bytes that the CPU makes, to the bit. Done when it returns. */
    int32_t (*pack_rows)(struct mmqi_device *device, const struct mmqi_pack_job *job);
    void (*memory)(struct mmqi_device *device, struct mmqi_device_memory *memory);
    /* Takes `bytes` of its memory while it measures: far more than caches hold. */
    int32_t (*measure)(struct mmqi_device *device, uint64_t bytes, struct mmqi_rates *rates);
    /* Set the fault to come (kind NONE: none); returns the calls of that kind since the last. */
    int64_t (*fault)(struct mmqi_device *device, struct mmqi_fault fault);
    /* MMQ_ERR_UNSUPPORTED: a mode that this backend does not have. */
    int32_t (*stream_open)(struct mmqi_device *device, const struct mmqi_stream_options *options,
                           struct mmqi_stream **out);
    int32_t (*stream_wait)(struct mmqi_stream *stream); /* until all its work is done */
    void (*stream_close)(struct mmqi_stream *stream);   /* accepts NULL */
    /* Note `size` bytes of the device (at most MMQI_NOTE_BYTES), as the work before leaves them and
     * the work behind may change them, as the stream's note number `note`; waits for nothing. */
    int32_t (*note)(struct mmqi_stream *stream, int32_t note, const void *src, size_t size);
    /* Bring the first `size` bytes of that note here when it is taken; work behind it is not waited
     * for. */
    int32_t (*read_note)(struct mmqi_stream *stream, int32_t note, void *dst, size_t size);
    /* Bytes that stream_open takes: exact, and part of mmq_estimate. */
    size_t (*stream_bytes)(const struct mmqi_device *device,
                           const struct mmqi_stream_options *options);
    /* Run the segments [begin, end) of a planned graph; done when stream_wait returns. */
    int32_t (*execute)(struct mmqi_stream *stream, const struct mmqi_graph *graph,
                       const struct mmqi_plan *plan, const struct mmqi_run *run, int32_t begin,
                       int32_t end);
    const struct mmqi_ops *ops;
};

extern const struct mmqi_backend mmqi_cpu_backend; /* src/cpu/backend.c */

#endif
