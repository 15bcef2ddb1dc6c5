/*
 * Packing by chunks and slices. Slices of a chunk are whole steps of the format, so their bytes are
 * disjoint, and depend on sizes alone.
 */
#include "quant/format_pack.h"

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

int32_t mmqi_packer_open(struct mmqi_packer *packer, int32_t format, int32_t method, int64_t rows,
                         int64_t cols, struct mmqi_pool *pool)
{
    const struct mmqi_format_info *info = mmqi_format_info(format);
    int32_t status;

    memset(packer, 0, sizeof *packer);
    packer->info = info;
    packer->method = method;
    packer->rows = rows;
    packer->cols = cols;
    packer->pool = pool;
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

/* The rows of one call of mmqi_packer_pack(). */
struct chunk {
    const struct mmqi_packer *packer;
    uint8_t *const *part;
    const float *w;
    int64_t begin, n, slice_rows;
};

static void pack_slice(void *arg, int64_t index, int32_t worker)
{
    const struct chunk *chunk = arg;
    const struct mmqi_packer *packer = chunk->packer;
    int64_t row = index * chunk->slice_rows;
    int64_t n = chunk->n - row < chunk->slice_rows ? chunk->n - row : chunk->slice_rows;
    uint8_t *part[MMQI_MAX_PARTS] = {NULL};
    struct mmqi_layout before = {0};

    (void)worker;
    packer->info->layout(&before, row, packer->cols); /* less than the whole: it cannot fail */
    for (int32_t i = 0; i < packer->layout.n_parts; i++)
        if (chunk->part[i])
            part[i] = chunk->part[i] + before.part[i].bytes;
    if (packer->absmax)
        part[1] =
            (uint8_t *)(packer->absmax + (chunk->begin + row) * packer->cols / packer->info->block);
    packer->info->pack(part, chunk->w + row * packer->cols, n, packer->cols, packer->method);
}

void mmqi_packer_pack(struct mmqi_packer *packer, uint8_t *const part[MMQI_MAX_PARTS],
                      const float *w, int64_t begin, int64_t n)
{
    struct chunk chunk = {.packer = packer, .part = part, .w = w, .begin = begin, .n = n};
    int64_t n_slices;

    chunk.slice_rows = mmqi_packer_step(packer->info->format, n, packer->cols, SLICE_BYTES);
    n_slices = n > 0 ? (n + chunk.slice_rows - 1) / chunk.slice_rows : 0;
    if (packer->pool) {
        mmqi_pool_run(packer->pool, n_slices, pack_slice, &chunk);
        return;
    }
    for (int64_t i = 0; i < n_slices; i++)
        pack_slice(&chunk, i, 0);
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
