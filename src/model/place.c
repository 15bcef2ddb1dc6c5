/*
 * Reading a weight's canonical bytes, and placing the table on a device.
 *
 * Matrices are placed as their canonical block; vectors and constants as f32,
 * converted exactly. One small buffer of host memory carries everything, so
 * placing costs the device's bytes and no more.
 */
#include <stdlib.h>
#include <string.h>

#include "core/dtype.h"
#include "core/mem.h"
#include "core/status.h"
#include "model/model.h"

enum { CHUNK_BYTES = 1 << 20 };

int32_t mmqi_model_read_part(const struct mmqi_model *model, int32_t weight, int32_t part,
                             uint64_t begin, void *dst, uint64_t size)
{
    const struct mmqi_weight *w = &model->weights[weight];
    const struct mmqi_part *p;

    if (w->same_as >= 0)
        w = &model->weights[w->same_as];
    p = part >= 0 && part < w->layout.n_parts ? &w->layout.part[part] : NULL;
    if (!p || begin > p->bytes || size > p->bytes - begin || size > SIZE_MAX)
        return mmqi_fail(MMQ_ERR_INTERNAL, "%s: '%s' has no such bytes", model->path, w->name);
    if (!w->block)
        return mmqi_checkpoint_read(model->checkpoint, w->entry[part], begin, dst, (size_t)size);
    memcpy(dst, w->block + p->offset + begin, (size_t)size);
    return MMQ_OK;
}

/* Rows [begin, end), whole steps of the format, as bytes of each part in one block of memory. */
static int32_t read_packed(const struct mmqi_model *model, int32_t weight, int64_t begin,
                           int64_t end, uint8_t **block, const uint8_t *part[MMQI_MAX_PARTS])
{
    const struct mmqi_weight *w = &model->weights[weight];
    const struct mmqi_format_info *format = mmqi_format_info(w->format);
    struct mmqi_layout before, upto, here;
    int32_t status;

    *block = NULL;
    status = format->layout(&before, begin, w->cols);
    if (status == MMQ_OK)
        status = format->layout(&upto, end, w->cols);
    if (status == MMQ_OK)
        status = format->layout(&here, end - begin, w->cols);
    if (status != MMQ_OK)
        return status;
    *block = mmqi_alloc_aligned((size_t)here.bytes);
    if (!*block)
        return mmqi_fail(MMQ_ERR_NOMEM, "%s: no memory for rows of '%s'", model->path, w->name);
    for (int32_t i = 0; i < here.n_parts && status == MMQ_OK; i++) {
        part[i] = *block + here.part[i].offset;
        status = mmqi_model_read_part(model, weight, i, before.part[i].bytes,
                                      *block + here.part[i].offset,
                                      upto.part[i].bytes - before.part[i].bytes);
    }
    return status;
}

/* How far one piece reads from row `from` (a multiple of the step) on its way to `end`: whole
 * steps, or all there is. */
static int64_t piece_end(const struct mmqi_weight *w, int64_t step, int64_t from, int64_t end)
{
    int64_t rows = CHUNK_BYTES / (int64_t)sizeof(float) / (w->cols > 0 ? w->cols : 1);
    int64_t needed = (end - from + step - 1) / step * step;

    rows = rows < step ? step : rows / step * step;
    if (rows > needed)
        rows = needed;
    return rows < w->rows - from ? from + rows : w->rows;
}

int32_t mmqi_model_read_rows(const struct mmqi_model *model, int32_t weight, int64_t begin,
                             int64_t end, float *dst)
{
    const struct mmqi_weight *w = &model->weights[weight];
    const struct mmqi_format_info *format = mmqi_format_info(w->format);
    int64_t step = format->row_step(w->cols), from, upto, last;
    int32_t status = MMQ_OK;
    uint8_t *block;

    if (begin < 0 || begin > end || end > w->rows)
        return mmqi_fail(MMQ_ERR_INTERNAL, "%s: '%s' has no such rows", model->path, w->name);
    while (begin < end && status == MMQ_OK) {
        const uint8_t *part[MMQI_MAX_PARTS] = {NULL};

        from = begin - begin % step;
        upto = piece_end(w, step, from, end);
        last = upto < end ? upto : end;
        status = read_packed(model, weight, from, upto, &block, part);
        if (status == MMQ_OK)
            format->unpack(dst, part, upto - from, w->cols, (begin - from) * w->cols,
                           (last - begin) * w->cols);
        mmqi_free(block);
        dst += (last - begin) * w->cols;
        begin = last;
    }
    return status;
}

static bool is_vector(const struct mmqi_weight *w)
{
    return w->role == MMQI_ROLE_VECTOR || w->role == MMQI_ROLE_CONSTANT;
}

/* Bytes that a weight takes on the device. */
static uint64_t device_bytes(const struct mmqi_weight *w)
{
    if ((w->flags & MMQI_WEIGHT_UNUSED) || w->same_as >= 0)
        return 0;
    return is_vector(w) ? (uint64_t)w->rows * (uint64_t)w->cols * sizeof(float) : w->layout.bytes;
}

uint64_t mmqi_model_place_bytes(const struct mmqi_model *model)
{
    uint64_t total = 0;

    for (int32_t i = 0; i < model->n_weights; i++)
        if (!mmqi_add_u64(total, device_bytes(&model->weights[i]), &total))
            return UINT64_MAX;
    return total;
}

/* What the pieces of placing share. */
struct placing {
    struct mmqi_model *model;
    const struct mmqi_backend *backend;
    struct mmqi_device *device;
    uint8_t *chunk; /* CHUNK_BYTES of host memory */
};

/* Scales come from a file that may be hostile: a kernel would spread what is not finite. */
static int32_t check_finite(const struct mmqi_model *model, const struct mmqi_weight *w,
                            const uint8_t *bytes, size_t size)
{
    for (size_t i = 0; i + sizeof(float) <= size; i += sizeof(float)) {
        uint32_t bits;

        memcpy(&bits, bytes + i, sizeof bits);
        if ((bits & 0x7f800000u) == 0x7f800000u)
            return mmqi_fail(MMQ_ERR_FORMAT, "%s: a scale of '%s' is not finite", model->path,
                             w->name);
    }
    return MMQ_OK;
}

static int32_t upload_part(const struct placing *p, int32_t weight, int32_t part, uint8_t *memory)
{
    const struct mmqi_weight *w = &p->model->weights[weight];
    const struct mmqi_part *info = &w->layout.part[part];
    bool is_scale = !mmqi_format_info(w->format)->is_float && info->dtype == MMQI_F32;
    uint64_t at = 0, size;
    int32_t status = MMQ_OK;

    for (; at < info->bytes && status == MMQ_OK; at += size) {
        size = info->bytes - at < CHUNK_BYTES ? info->bytes - at : CHUNK_BYTES;
        status = mmqi_model_read_part(p->model, weight, part, at, p->chunk, size);
        if (status == MMQ_OK && is_scale)
            status = check_finite(p->model, w, p->chunk, (size_t)size);
        if (status == MMQ_OK)
            status =
                p->backend->upload(p->device, memory + info->offset + at, p->chunk, (size_t)size);
    }
    return status;
}

/* Vectors of the table are rows of at most a position embedding's width: some of them at a time. */
static int32_t upload_vector(const struct placing *p, int32_t weight, uint8_t *memory)
{
    const struct mmqi_weight *w = &p->model->weights[weight];
    int64_t n = CHUNK_BYTES / (int64_t)sizeof(float) / w->cols, begin = 0, end;
    int32_t status = MMQ_OK;

    if (n < 1)
        return mmqi_fail(MMQ_ERR_LIMIT, "%s: '%s' is too wide", p->model->path, w->name);
    for (; begin < w->rows && status == MMQ_OK; begin = end) {
        end = w->rows - begin < n ? w->rows : begin + n;
        status = mmqi_model_read_rows(p->model, weight, begin, end, (float *)p->chunk);
        if (status == MMQ_OK)
            status =
                p->backend->upload(p->device, memory + (uint64_t)(begin * w->cols) * sizeof(float),
                                   p->chunk, (size_t)((end - begin) * w->cols) * sizeof(float));
    }
    return status;
}

static int32_t place_weight(const struct placing *p, int32_t weight)
{
    struct mmqi_model *model = p->model;
    struct mmqi_weight *w = &model->weights[weight];
    struct mmqi_run_weight *placed = &model->placed[weight];
    uint64_t bytes = device_bytes(w);
    int32_t status = MMQ_OK;

    if (bytes > SIZE_MAX)
        return mmqi_fail(MMQ_ERR_LIMIT, "%s: '%s' is too large", model->path, w->name);
    status = p->backend->alloc(p->device, &model->memory[weight], (size_t)bytes);
    if (status != MMQ_OK)
        return status;
    placed->mat.rows = w->rows;
    placed->mat.cols = w->cols;
    if (is_vector(w)) {
        placed->mat.format = MMQI_FORMAT_F32;
        placed->mat.part[0] = model->memory[weight];
        placed->vector = model->memory[weight];
        status = upload_vector(p, weight, model->memory[weight]);
    } else {
        placed->mat.format = w->format;
        for (int32_t i = 0; i < w->layout.n_parts && status == MMQ_OK; i++)
            status = upload_part(p, weight, i, model->memory[weight]);
        if (status == MMQ_OK)
            status = p->backend->pack(p->device, &placed->mat, model->memory[weight], &w->layout);
    }
    w->placed_bytes = bytes;
    model->placed_bytes += bytes;
    return status;
}

void mmqi_model_unplace(struct mmqi_model *model)
{
    for (int32_t i = 0; i < model->n_weights; i++) {
        if (model->memory && model->memory[i])
            model->backend->free(model->device, model->memory[i]);
        model->weights[i].placed_bytes = 0;
    }
    mmqi_free(model->memory);
    mmqi_free(model->placed);
    model->memory = NULL;
    model->placed = NULL;
    model->backend = NULL;
    model->device = NULL;
    model->placed_bytes = 0;
}

static int32_t place_all(const struct placing *p,
                         int32_t (*progress)(void *user, uint64_t done, uint64_t total), void *user)
{
    struct mmqi_model *model = p->model;
    uint64_t total = mmqi_model_place_bytes(model);
    int32_t status = MMQ_OK;

    for (int32_t i = 0; i < model->n_weights && status == MMQ_OK; i++) {
        const struct mmqi_weight *w = &model->weights[i];

        if (w->flags & MMQI_WEIGHT_UNUSED)
            continue;
        if (w->same_as >= 0) {
            model->placed[i] = model->placed[w->same_as];
            continue;
        }
        status = place_weight(p, i);
        if (status == MMQ_OK && progress)
            status = progress(user, model->placed_bytes, total);
    }
    return status;
}

int32_t mmqi_model_place(struct mmqi_model *model, const struct mmqi_backend *backend,
                         struct mmqi_device *device,
                         int32_t (*progress)(void *user, uint64_t done, uint64_t total), void *user)
{
    struct placing p = {model, backend, device, NULL};
    size_t n = (size_t)model->n_weights;
    int32_t status;

    if (model->placed)
        return mmqi_fail(MMQ_ERR_STATE, "%s: already placed", model->path);
    model->backend = backend;
    model->device = device;
    model->placed = mmqi_calloc(n, sizeof *model->placed);
    model->memory = mmqi_calloc(n, sizeof *model->memory);
    p.chunk = mmqi_alloc_aligned(CHUNK_BYTES);
    if (!model->placed || !model->memory || !p.chunk)
        status = mmqi_fail(MMQ_ERR_NOMEM, "%s: no memory to place %zu weights", model->path, n);
    else
        status = place_all(&p, progress, user);
    mmqi_free(p.chunk);
    if (status != MMQ_OK)
        mmqi_model_unplace(model);
    return status;
}
