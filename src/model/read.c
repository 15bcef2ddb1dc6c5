/*
 * Reading a weight from its source: canonical bytes as they are stored, and rows as f32.
 */
#include <inttypes.h>
#include <string.h>

#include "core/mem.h"
#include "core/status.h"
#include "model/model.h"
#include "quant/format_pack.h"

enum { PIECE_BYTES = 1 << 20 };

int32_t mmqi_model_read_part(const struct mmqi_model *model, int32_t weight, int32_t part,
                             uint64_t begin, void *dst, uint64_t size)
{
    const struct mmqi_weight *w = &model->weights[weight];
    const struct mmqi_part *p;

    if (w->same_as >= 0)
        w = &model->weights[w->same_as];
    p = part >= 0 && part < w->stored_layout.n_parts ? &w->stored_layout.part[part] : NULL;
    if (!p || begin > p->bytes || size > p->bytes - begin || size > SIZE_MAX)
        return mmqi_fail(MMQ_ERR_INTERNAL, "%s: '%s' has no such bytes", model->path, w->name);
    if (!w->block && !w->entry[part])
        memcpy(dst, (const uint8_t *)&w->nested_offset + begin, (size_t)size);
    if (!w->block && w->entry[part])
        return mmqi_checkpoint_read(model->checkpoint, w->entry[part], begin, dst, (size_t)size);
    if (w->block)
        memcpy(dst, w->block + p->offset + begin, (size_t)size);
    return MMQ_OK;
}

/* Rows [begin, end), whole steps of the format, as bytes of each part in one block of memory. */
static int32_t read_packed(const struct mmqi_model *model, int32_t weight, int64_t begin,
                           int64_t end, uint8_t **block, const uint8_t *part[MMQI_MAX_PARTS])
{
    const struct mmqi_weight *w = &model->weights[weight];
    const struct mmqi_format_info *format = mmqi_format_info(w->stored);
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
    int64_t rows = PIECE_BYTES / (int64_t)sizeof(float) / (w->cols > 0 ? w->cols : 1);
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
    const struct mmqi_format_info *format = mmqi_format_info(w->stored);
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

int32_t mmqi_model_read_to_pack(const struct mmqi_model *model, int32_t weight, int64_t begin,
                                int64_t end, int32_t format, float *dst)
{
    const struct mmqi_weight *w = &model->weights[weight];
    const char *file_name = w->entry[0] ? w->entry[0]->name : w->name;
    int64_t n = (end - begin) * w->cols, at;
    int32_t status = mmqi_model_read_rows(model, weight, begin, end, dst);

    if (status != MMQ_OK)
        return status;
    at = mmqi_first_nonfinite(dst, n);
    if (at >= 0)
        return mmqi_fail(MMQ_ERR_FORMAT, "%s: '%s' (%s) is %s at [%" PRId64 ", %" PRId64 "]",
                         model->path, file_name, w->name, dst[at] != dst[at] ? "NaN" : "infinite",
                         begin + at / w->cols, at % w->cols);
    at = mmqi_first_beyond(dst, n, format);
    if (at >= 0)
        return mmqi_fail(MMQ_ERR_UNSUPPORTED,
                         "%s: '%s' (%s) is beyond the range of %s at [%" PRId64 ", %" PRId64 "]",
                         model->path, file_name, w->name, mmqi_format_info(format)->name,
                         begin + at / w->cols, at % w->cols);
    return MMQ_OK;
}
