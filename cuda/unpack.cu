/* What kernels are told of a weight matrix, from its place in the table of formats. */
#include "cuda/unpack.h"

void mmqi_weight_view_fill(struct weight_view *view, const struct mmqi_format_info *info,
                           const struct mmqi_wmat *w)
{
    memset(view, 0, sizeof *view);
    memcpy(view->part, w->part, sizeof view->part);
    view->rows = w->rows;
    view->cols = w->cols;
    view->kind = info->kind;
    view->dtype = info->kind == MMQI_KIND_INT4 ? info->scale_dtype : info->dtype;
    view->block = info->block;
    view->nested = info->nested;
    while (info->block >> view->shift > 1)
        view->shift++;
    switch (info->kind) {
    case MMQI_KIND_INT8:
        view->scale = SCALE_ROW;
        break;
    case MMQI_KIND_INT4:
        view->scale = SCALE_RUN;
        break;
    case MMQI_KIND_TABLE4:
        view->scale = w->cols % 32 == 0 ? SCALE_RUN : SCALE_EACH;
        memcpy(view->table, info->table, sizeof view->table);
        if (info->nested)
            memcpy(view->map, mmqi_nested_table, sizeof view->map);
        break;
    default:
        view->scale = SCALE_NONE;
    }
}

bool mmqi_weight_view_of(struct weight_view *view, struct mmqi_stream *s, const struct mmqi_wmat *w)
{
    const struct mmqi_format_info *info = s->device->host->format_info(w->format);

    if (info)
        mmqi_weight_view_fill(view, info, w);
    return info != NULL;
}
