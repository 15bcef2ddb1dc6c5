/*
 * Reading a weight from its source: canonical bytes as they are stored, and rows as f32.
 */
#include <inttypes.h>
#include <string.h>

#include "core/mem.h"
#include "core/status.h"
#include "model/model.h"
#include "backend/packer.h"

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
    if (w->block)
        memcpy(dst, w->block + p->offset + begin, (size_t)size);
    else if (!p->suffix)
        memcpy(dst, (const uint8_t *)&w->nested_offset + begin, (size_t)size);
    else
        return mmqi_checkpoint_read(model->checkpoint, w->entry[part], begin, dst, (size_t)size);
    return MMQ_OK;
}

/* Rows of a weight as they are stored, ready to be unpacked. */
struct piece {
    const struct mmqi_format_info *format;
    uint8_t *block; /* what the parts lie in; freed by the caller */
    const uint8_t *part[MMQI_MAX_PARTS];
};

/* A nested format with its scales made flat is another of the table. */
static const struct mmqi_format_info *flat_format(const struct mmqi_format_info *nested)
{
    const struct mmqi_format_info *flat = nested;

    for (int32_t i = 0; i < MMQI_N_FORMATS && flat == nested; i++) {
        const struct mmqi_format_info *other = mmqi_format_info(i);

        if (!other->nested && other->kind == nested->kind && other->table == nested->table &&
            other->block == nested->block)
            flat = other;
    }
    return flat;
}

/* The f32 absmax of `n` blocks from block `first` on, of a nested weight. */
static int32_t read_absmax(const struct mmqi_model *model, int32_t weight, int64_t first, int64_t n,
                           float *absmax)
{
    int64_t group = first / MMQI_NESTED_BLOCK, skipped = first % MMQI_NESTED_BLOCK;
    int64_t n_groups = n > 0 ? (first + n - 1) / MMQI_NESTED_BLOCK - group + 1 : 0;
    uint64_t codes = ((uint64_t)(skipped + n) + 7) / 8 * 8, groups = (uint64_t)n_groups * 4;
    uint8_t *data = mmqi_alloc(codes + groups + 4);
    const uint8_t *part[MMQI_MAX_PARTS];
    int32_t status;

    if (!data)
        return mmqi_fail(MMQ_ERR_NOMEM, "%s: no memory for the scales of '%s'", model->path,
                         model->weights[weight].name);
    part[0] = NULL;
    part[1] = data;
    part[2] = data + codes;
    part[3] = data + codes + groups;
    status = mmqi_model_read_part(model, weight, 1, (uint64_t)first, data + skipped, (uint64_t)n);
    if (status == MMQ_OK)
        status = mmqi_model_read_part(model, weight, 2, (uint64_t)group * 4, data + codes, groups);
    if (status == MMQ_OK)
        status = mmqi_model_read_part(model, weight, 3, 0, data + codes + groups, 4);
    for (int64_t i = 0; i < n && status == MMQ_OK; i++)
        absmax[i] = mmqi_nested_absmax(part, skipped + i);
    mmqi_free(data);
    return status;
}

/* Rows [begin, end), whole steps of the format, as bytes of each part. */
static int32_t read_piece(struct piece *piece, const struct mmqi_model *model, int32_t weight,
                          int64_t begin, int64_t end)
{
    const struct mmqi_weight *w = &model->weights[weight];
    bool nested = mmqi_format_info(w->stored)->nested;
    struct mmqi_layout before, upto, here;
    int32_t status;

    memset(piece, 0, sizeof *piece);
    piece->format = mmqi_format_info(w->stored);
    if (nested)
        piece->format = flat_format(piece->format);
    status = piece->format->layout(&before, begin, w->cols);
    if (status == MMQ_OK)
        status = piece->format->layout(&upto, end, w->cols);
    if (status == MMQ_OK)
        status = piece->format->layout(&here, end - begin, w->cols);
    if (status != MMQ_OK)
        return status;
    piece->block = mmqi_alloc_aligned((size_t)here.bytes);
    if (!piece->block)
        return mmqi_fail(MMQ_ERR_NOMEM, "%s: no memory for rows of '%s'", model->path, w->name);
    for (int32_t i = 0; i < here.n_parts && status == MMQ_OK; i++) {
        uint64_t first = before.part[i].bytes, size = upto.part[i].bytes - first;
        uint8_t *dst = piece->block + here.part[i].offset;

        piece->part[i] = dst;
        status = nested && i == 1 ? read_absmax(model, weight, (int64_t)first / 4,
                                                (int64_t)size / 4, (float *)dst)
                                  : mmqi_model_read_part(model, weight, i, first, dst, size);
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
    int64_t step = mmqi_format_info(w->stored)->row_step(w->cols), from, upto, last;
    int32_t status = MMQ_OK;

    if (begin < 0 || begin > end || end > w->rows)
        return mmqi_fail(MMQ_ERR_INTERNAL, "%s: '%s' has no such rows", model->path, w->name);
    while (begin < end && status == MMQ_OK) {
        struct piece piece;

        from = begin - begin % step;
        upto = piece_end(w, step, from, end);
        last = upto < end ? upto : end;
        status = read_piece(&piece, model, weight, from, upto);
        if (status == MMQ_OK)
            piece.format->unpack(dst, piece.part, upto - from, w->cols, (begin - from) * w->cols,
                                 (last - begin) * w->cols);
        mmqi_free(piece.block);
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
