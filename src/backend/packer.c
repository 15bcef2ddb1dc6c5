/*
 * Packing by chunks; and by slices of a chunk, on the host. Slices are whole steps of the format,
 * so their bytes are disjoint, and depend on sizes alone.
 */
#include "backend/packer.h"

#include <string.h>

#include "core/dtype.h"
#include "core/mem.h"
#include "core/status.h"

enum { SLICE_BYTES = 64 << 10 /* of f32 rows that one thread packs at a time */ };

static uint64_t n_blocks(const struct mmqi_format_info *info, int64_t rows, int64_t cols)
{
    uint64_t count = (uint64_t)rows * (uint64_t)cols, block = (uint64_t)info->block;

    return count / block + (count % block != 0);
}

/* The bytes that n rows make on a device: the flat scales of a nested format with them. */
static int32_t find_work(const struct mmqi_format_info *info, struct mmqi_packed_rows *out,
                         int64_t n, int64_t cols)
{
    struct mmqi_layout layout;
    int32_t status = info->layout(&layout, n, cols);

    memset(out, 0, sizeof *out);
    for (int32_t i = 0; status == MMQ_OK && i < layout.n_parts && !(info->nest && i > 0); i++)
        out->bytes[i] = layout.part[i].bytes;
    if (info->nest)
        out->bytes[1] = n_blocks(info, n, cols) * sizeof(float);
    return status;
}

/* ---- what packs ---- */

static uint64_t rows_bytes(int64_t n, int64_t cols)
{
    uint64_t bytes = (uint64_t)n * (uint64_t)cols * sizeof(float);

    return (bytes + MMQI_PART_ALIGN - 1) / MMQI_PART_ALIGN * MMQI_PART_ALIGN;
}

uint64_t mmqi_packing_bytes(const struct mmqi_backend *backend, int32_t format, int64_t n,
                            int64_t cols)
{
    struct mmqi_packed_rows at;
    uint8_t *part[MMQI_MAX_PARTS];

    if (!backend || backend->host_memory)
        return 0;
    if (find_work(mmqi_format_info(format), &at, n, cols) != MMQ_OK ||
        (uint64_t)n * (uint64_t)cols > UINT64_MAX / 16) /* no byte more for a part than for f32 */
        return UINT64_MAX;
    return rows_bytes(n, cols) + mmqi_packed_lay_out(part, NULL, &at);
}

int32_t mmqi_packing_open(struct mmqi_packing *by, uint64_t bytes)
{
    int32_t status;

    if (bytes == 0)
        return MMQ_OK;
    if (bytes > SIZE_MAX)
        return mmqi_fail(MMQ_ERR_LIMIT, "packing: a chunk is too large");
    status = by->backend->alloc(by->device, &by->memory, (size_t)bytes);
    if (status == MMQ_OK)
        by->bytes = bytes;
    return status;
}

void mmqi_packing_close(struct mmqi_packing *by)
{
    if (by->memory)
        by->backend->free(by->device, by->memory);
    by->memory = NULL;
    by->bytes = 0;
}

/* ---- packers ---- */

int32_t mmqi_packer_open(struct mmqi_packer *packer, int32_t format, int32_t method, int64_t rows,
                         int64_t cols, const struct mmqi_packing *by)
{
    const struct mmqi_format_info *info = mmqi_format_info(format);
    int32_t status;

    memset(packer, 0, sizeof *packer);
    packer->info = info;
    packer->method = method;
    packer->rows = rows;
    packer->cols = cols;
    packer->by = *by;
    status = info->layout(&packer->layout, rows, cols);
    if (status != MMQ_OK || !info->nest)
        return status;
    packer->absmax = mmqi_alloc_array(n_blocks(info, rows, cols), sizeof *packer->absmax);
    if (!packer->absmax)
        return mmqi_fail(MMQ_ERR_NOMEM, "no memory for the scales of %s", info->name);
    return MMQ_OK;
}

void mmqi_packer_close(struct mmqi_packer *packer)
{
    mmqi_free(packer->absmax);
    packer->absmax = NULL;
}

uint64_t mmqi_packer_bytes(int32_t format, int64_t rows, int64_t cols)
{
    const struct mmqi_format_info *info = mmqi_format_info(format);

    return info->nest ? n_blocks(info, rows, cols) * sizeof(float) : 0;
}

int64_t mmqi_packer_step(int32_t format, int64_t rows, int64_t cols, uint64_t bytes)
{
    int64_t step = mmqi_format_info(format)->row_step(cols), n;

    if (cols == 0)
        return rows;
    n = (int64_t)(bytes / sizeof(float) / (uint64_t)cols);
    n = n < step ? step : n / step * step;
    return n < rows ? n : rows;
}

int32_t mmqi_packer_find(const struct mmqi_packer *packer, struct mmqi_packed_rows *out,
                         int64_t begin, int64_t n)
{
    int32_t n_parts = packer->info->nest ? 1 : packer->layout.n_parts;
    struct mmqi_layout before, upto;
    int32_t status;

    memset(out, 0, sizeof *out);
    status = packer->info->layout(&before, begin, packer->cols);
    if (status == MMQ_OK)
        status = packer->info->layout(&upto, begin + n, packer->cols);
    for (int32_t i = 0; i < n_parts && status == MMQ_OK; i++) {
        out->begin[i] = before.part[i].bytes;
        out->bytes[i] = upto.part[i].bytes - before.part[i].bytes;
    }
    return status;
}

uint64_t mmqi_packed_lay_out(uint8_t *part[MMQI_MAX_PARTS], uint8_t *base,
                             const struct mmqi_packed_rows *at)
{
    uint64_t bytes = 0;

    for (int32_t i = 0; i < MMQI_MAX_PARTS; i++) {
        part[i] = base ? base + bytes : NULL;
        bytes += (at->bytes[i] + MMQI_PART_ALIGN - 1) / MMQI_PART_ALIGN * MMQI_PART_ALIGN;
    }
    return bytes;
}

/* ---- the host ---- */

struct chunk {
    const struct mmqi_format_info *info;
    const struct mmqi_pack_job *job;
    int64_t slice_rows;
};

static void pack_slice(void *arg, int64_t index, int32_t worker)
{
    const struct chunk *chunk = arg;
    const struct mmqi_format_info *info = chunk->info;
    const struct mmqi_pack_job *job = chunk->job;
    int64_t row = index * chunk->slice_rows;
    int64_t n = job->rows - row < chunk->slice_rows ? job->rows - row : chunk->slice_rows;
    uint8_t *part[MMQI_MAX_PARTS] = {NULL};
    struct mmqi_packed_rows before = {{0}, {0}};

    (void)worker;
    find_work(info, &before, row, job->cols); /* less than the whole: it cannot fail */
    for (int32_t i = 0; i < MMQI_MAX_PARTS; i++)
        if (job->part[i])
            part[i] = job->part[i] + before.bytes[i];
    info->pack(part, job->w + row * job->cols, n, job->cols, job->method);
}

void mmqi_pack_rows(struct mmqi_pool *pool, const struct mmqi_pack_job *job)
{
    struct chunk chunk = {.info = mmqi_format_info(job->format), .job = job};
    int64_t n_slices;

    chunk.slice_rows = mmqi_packer_step(job->format, job->rows, job->cols, SLICE_BYTES);
    n_slices = job->rows > 0 ? (job->rows + chunk.slice_rows - 1) / chunk.slice_rows : 0;
    if (pool) {
        mmqi_pool_run(pool, n_slices, pack_slice, &chunk);
        return;
    }
    for (int64_t i = 0; i < n_slices; i++)
        pack_slice(&chunk, i, 0);
}

/* ---- a chunk ---- */

static struct mmqi_pack_job make_job(const struct mmqi_packer *packer, const float *w, int64_t n)
{
    return (struct mmqi_pack_job){
        .format = packer->info->format,
        .method = packer->method,
        .rows = n,
        .cols = packer->cols,
        .w = w,
    };
}

/* Of rows from `begin` on, in the packer's flat scales. */
static float *absmax_at(const struct mmqi_packer *packer, int64_t begin)
{
    return packer->absmax + begin * packer->cols / packer->info->block;
}

/* All is the host's memory. */
static int32_t pack_here(const struct mmqi_packer *packer, uint8_t *const part[MMQI_MAX_PARTS],
                         const float *w, int64_t begin, int64_t n)
{
    struct mmqi_pack_job job = make_job(packer, w, n);

    memcpy(job.part, part, sizeof job.part);
    if (packer->absmax)
        job.part[1] = (uint8_t *)absmax_at(packer, begin);
    if (packer->by.backend)
        return packer->by.backend->pack_rows(packer->by.device, &job);
    mmqi_pack_rows(packer->by.pool, &job);
    return MMQ_OK;
}

/* Rows to the device, and packed there: to the parts of *job that are given, the others to its
 * memory behind the rows. *at tells the bytes of each part. */
static int32_t pack_there(const struct mmqi_packer *packer, struct mmqi_pack_job *job,
                          struct mmqi_packed_rows *at, const float *w)
{
    const struct mmqi_packing *by = &packer->by;
    uint8_t *part[MMQI_MAX_PARTS];
    int32_t status = find_work(packer->info, at, job->rows, job->cols);

    if (status != MMQ_OK)
        return status;
    mmqi_packed_lay_out(part, (uint8_t *)by->memory + rows_bytes(job->rows, job->cols), at);
    for (int32_t i = 0; i < MMQI_MAX_PARTS; i++)
        if (!job->part[i])
            job->part[i] = part[i];
    job->w = by->memory;
    status =
        by->backend->upload(by->device, by->memory, w, (size_t)(job->rows * job->cols) * sizeof *w);
    return status == MMQ_OK ? by->backend->pack_rows(by->device, job) : status;
}

static bool is_there(const struct mmqi_packer *packer)
{
    return packer->by.backend && !packer->by.backend->host_memory;
}

static int32_t fetch(const struct mmqi_packer *packer, void *dst, const void *src, uint64_t bytes)
{
    if (bytes == 0)
        return MMQ_OK;
    return packer->by.backend->download(packer->by.device, dst, src, (size_t)bytes);
}

int32_t mmqi_packer_pack(struct mmqi_packer *packer, uint8_t *const part[MMQI_MAX_PARTS],
                         const float *w, int64_t begin, int64_t n)
{
    struct mmqi_pack_job job = make_job(packer, w, n);
    struct mmqi_packed_rows at;
    int32_t status;

    if (!is_there(packer))
        return pack_here(packer, part, w, begin, n);
    status = pack_there(packer, &job, &at, w);
    for (int32_t i = 0; i < MMQI_MAX_PARTS && status == MMQ_OK; i++)
        if (packer->absmax && i == 1)
            status = fetch(packer, absmax_at(packer, begin), job.part[i], at.bytes[i]);
        else
            status = fetch(packer, part[i], job.part[i], at.bytes[i]);
    return status;
}

int32_t mmqi_packer_place(struct mmqi_packer *packer, uint8_t *block, const float *w, int64_t begin,
                          int64_t n)
{
    struct mmqi_pack_job job = make_job(packer, w, n);
    struct mmqi_packed_rows at;
    int32_t status = mmqi_packer_find(packer, &at, begin, n);

    for (int32_t i = 0; i < packer->layout.n_parts && !(packer->absmax && i > 0); i++)
        job.part[i] = block + packer->layout.part[i].offset + at.begin[i];
    if (status != MMQ_OK)
        return status;
    if (!is_there(packer))
        return pack_here(packer, job.part, w, begin, n);
    status = pack_there(packer, &job, &at, w);
    if (status == MMQ_OK && packer->absmax)
        status = fetch(packer, absmax_at(packer, begin), job.part[1], at.bytes[1]);
    return status;
}

void mmqi_packer_finish(const struct mmqi_packer *packer, uint8_t *const part[MMQI_MAX_PARTS])
{
    if (packer->absmax)
        packer->info->nest(part, packer->absmax,
                           (int64_t)n_blocks(packer->info, packer->rows, packer->cols));
}

/* ---- numbers ---- */

/* Index of the first whose magnitude has bits of at least `limit`. */
static int64_t first_above(const float *w, int64_t n, uint32_t limit)
{
    for (int64_t begin = 0; begin < n; begin += 256) {
        int64_t end = n - begin < 256 ? n : begin + 256;
        uint32_t bad = 0;

        for (int64_t i = begin; i < end; i++)
            bad |= (mmqi_bits_from_f32(w[i]) & 0x7fffffffu) >= limit;
        for (int64_t i = begin; bad && i < end; i++)
            if ((mmqi_bits_from_f32(w[i]) & 0x7fffffffu) >= limit)
                return i;
    }
    return -1;
}

int64_t mmqi_first_nonfinite(const float *w, int64_t n)
{
    return first_above(w, n, 0x7f800000u);
}

int64_t mmqi_first_beyond(const float *w, int64_t n, int32_t format)
{
    /* The least magnitudes that round up to Inf. */
    if (format == MMQI_FORMAT_F16)
        return first_above(w, n, 0x477ff000u);
    return first_above(w, n, format == MMQI_FORMAT_BF16 ? 0x7f7f8000u : 0x7f800000u);
}
