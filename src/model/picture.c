/* How many rows a picture makes: for its own size, and for plans. */
#include "model/model.h"

#include "core/status.h"

/* The grid of a picture whose pixels are `width` x `height`. */
static void count_rows(struct mmqi_picture *picture, const struct mmqi_spec *spec)
{
    int32_t side = spec->patch * spec->merge;

    picture->across = picture->width / side;
    picture->down = picture->height / side;
    picture->rows = picture->across * picture->down;
    picture->patches = picture->rows * spec->merge * spec->merge;
    picture->rows += spec->extra_rows;
    picture->tower_rows = picture->patches + spec->extra_tower_rows;
}

int32_t mmqi_model_measure(struct mmqi_picture *out, const struct mmqi_model *model, int32_t width,
                           int32_t height)
{
    const struct mmqi_spec *spec = &model->spec;
    int32_t side = spec->patch * spec->merge, status;
    struct mmqi_views views;

    *out = (struct mmqi_picture){0};
    status = mmqi_preprocess_views(&views, &spec->recipe, width, height);
    if (status != MMQ_OK)
        return status;
    out->width = views.view[0].width;
    out->height = views.view[0].height;
    if (out->width < side || out->height < side || out->width % side || out->height % side)
        return mmqi_fail(MMQ_ERR_UNSUPPORTED,
                         "%s: a picture of %d x %d becomes %d x %d pixels, not whole squares of %d",
                         model->path, (int)width, (int)height, (int)out->width, (int)out->height,
                         (int)side);
    count_rows(out, spec);
    if (out->rows > spec->image_rows)
        return mmqi_fail(MMQ_ERR_INTERNAL, "%s: a picture of %d rows where %d are the most",
                         model->path, (int)out->rows, (int)spec->image_rows);
    return MMQ_OK;
}

void mmqi_model_greatest(struct mmqi_picture *out, const struct mmqi_model *model, int32_t rows)
{
    const struct mmqi_spec *spec = &model->spec;
    int32_t side = spec->patch * spec->merge;
    int32_t squares = rows > spec->extra_rows ? rows - spec->extra_rows : 1;

    *out = (struct mmqi_picture){.width = side, .height = side, .across = 1};
    out->down = squares;
    out->rows = squares + spec->extra_rows;
    out->patches = squares * spec->merge * spec->merge;
    out->tower_rows = out->patches + spec->extra_tower_rows;
}
