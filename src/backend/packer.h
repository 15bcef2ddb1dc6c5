/*
 * Packing a matrix chunk by chunk: on a device, or by the host's threads.
 *
 * Chunks are whole steps of the format in ascending order; the bytes depend neither on how rows are
 * cut nor on what packs them. The scales of a nested format are made by the host when the last row
 * is there: until then the packer holds 4 bytes per block.
 */
#ifndef MMQI_BACKEND_PACKER_H
#define MMQI_BACKEND_PACKER_H

#include "backend/backend.h"

/* What packs. All zeros is the calling thread alone. */
struct mmqi_packing {
    struct mmqi_pool *pool;             /* without a device: the host's threads, or NULL */
    const struct mmqi_backend *backend; /* of `device`; NULL: the host packs */
    struct mmqi_device *device;
    /* The device's, for one chunk's rows and bytes; none where its memory is the host's. */
    void *memory;
    uint64_t bytes;
};

struct mmqi_packer {
    const struct mmqi_format_info *info;
    int32_t method;
    int64_t rows, cols;
    struct mmqi_layout layout; /* of the whole matrix */
    struct mmqi_packing by;
    float *absmax; /* of a nested format: flat, one per block; else NULL */
};

/* The bytes that rows make: of each part, [begin, begin + bytes). */
struct mmqi_packed_rows {
    uint64_t begin[MMQI_MAX_PARTS], bytes[MMQI_MAX_PARTS];
};

/* Device memory that packing n rows of such a matrix takes beside the host's: 0 for the host, and
 * for a backend (NULL: the host) whose memory is the host's. */
uint64_t mmqi_packing_bytes(const struct mmqi_backend *backend, int32_t format, int64_t n,
                            int64_t cols);
/* Take by->memory: `bytes` of the device, for every packer that it is given to. MMQ_ERR_NOMEM and
 * what the device says. */
int32_t mmqi_packing_open(struct mmqi_packing *by, uint64_t bytes);
void mmqi_packing_close(struct mmqi_packing *by); /* accepts one that was not opened */

/* `by`, which is copied, packs; its memory suffices for the chunks to come. MMQ_ERR_NOMEM,
 * MMQ_ERR_LIMIT. Closed with mmqi_packer_close(), also after a failure. */
int32_t mmqi_packer_open(struct mmqi_packer *packer, int32_t format, int32_t method, int64_t rows,
                         int64_t cols, const struct mmqi_packing *by);
void mmqi_packer_close(struct mmqi_packer *packer);

/* Bytes that a packer of such a matrix holds. */
uint64_t mmqi_packer_bytes(int32_t format, int64_t rows, int64_t cols);
/* Rows of a chunk: whole steps of the format within `bytes` of f32, one step at the least. */
int64_t mmqi_packer_step(int32_t format, int64_t rows, int64_t cols, uint64_t bytes);

/* Where rows [begin, begin + n) go. Of a nested format that is part 0 alone. */
int32_t mmqi_packer_find(const struct mmqi_packer *packer, struct mmqi_packed_rows *out,
                         int64_t begin, int64_t n);
/* Parts one after another from `base` on, each at a multiple of MMQI_PART_ALIGN. Returns the bytes
 * of all; `base` NULL: only that, and every part is NULL. */
uint64_t mmqi_packed_lay_out(uint8_t *part[MMQI_MAX_PARTS], uint8_t *base,
                             const struct mmqi_packed_rows *at);
/* Pack rows [begin, begin + n), f32 at `w`; part[i] receives the bytes of out->bytes[i]. Fails as
 * the device does. */
int32_t mmqi_packer_pack(struct mmqi_packer *packer, uint8_t *const part[MMQI_MAX_PARTS],
                         const float *w, int64_t begin, int64_t n);
/* The same to their place in the whole canonical block at `block`, which is the device's memory. */
int32_t mmqi_packer_place(struct mmqi_packer *packer, uint8_t *block, const float *w, int64_t begin,
                          int64_t n);
/* After the last row: parts 1 and up of a nested format, whole. Nothing for the others. */
void mmqi_packer_finish(const struct mmqi_packer *packer, uint8_t *const part[MMQI_MAX_PARTS]);

/* The slot pack_rows of a device whose memory is the host's. NULL: this thread alone. */
void mmqi_pack_rows(struct mmqi_pool *pool, const struct mmqi_pack_job *job);

/* Index of the first NaN or Inf; -1 when all are finite. */
int64_t mmqi_first_nonfinite(const float *w, int64_t n);
/* Index of the first number that a plain format would turn into Inf; -1. */
int64_t mmqi_first_beyond(const float *w, int64_t n, int32_t format);

#endif
