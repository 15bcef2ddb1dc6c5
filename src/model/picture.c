/* What becomes of a picture: its views, the rows that they make, and their places in the timeline;
 * and what plans are made for. */
#include "core/mem.h"
#include "core/status.h"
#include "model/family.h"

void mmqi_view_count(struct mmqi_view_rows *out, const struct mmqi_spec *spec,
                     const struct mmqi_view *view)
{
    int32_t side = spec->patch * spec->merge, squares;

    out->across = view->width / side;
    out->down = view->height / side;
    squares = out->across * out->down;
    out->patches = squares * spec->merge * spec->merge;
    out->tower_rows = out->patches + spec->extra_tower_rows;
    out->rows = squares + spec->extra_rows;
}

/* Does the tower read views of this size? */
static int32_t check_view(const struct mmqi_model *model, const struct mmqi_views *views, int32_t k)
{
    const struct mmqi_spec *spec = &model->spec;
    int32_t side = spec->patch * spec->merge;
    int32_t width = views->view[k].width, height = views->view[k].height;

    if (spec->view_width > 0 && (width != spec->view_width || height != spec->view_height))
        return mmqi_fail(MMQ_ERR_UNSUPPORTED,
                         "%s: a picture of %d x %d becomes %d x %d pixels, the tower takes %d x %d",
                         model->path, (int)views->width, (int)views->height, (int)width,
                         (int)height, (int)spec->view_width, (int)spec->view_height);
    if (spec->view_width == 0 &&
        (width < side || height < side || width % side != 0 || height % side != 0))
        return mmqi_fail(MMQ_ERR_UNSUPPORTED,
                         "%s: a picture of %d x %d becomes %d x %d pixels, not whole squares of %d",
                         model->path, (int)views->width, (int)views->height, (int)width,
                         (int)height, (int)side);
    return MMQ_OK;
}

/* The rows of all views; they have no more pixels than a picture may have, so nothing wraps. */
static int32_t count_block(struct mmqi_picture *picture, const struct mmqi_model *model)
{
    struct mmqi_view_rows view;
    int32_t status = MMQ_OK;

    for (int32_t k = 0; k < picture->views.n && status == MMQ_OK; k++) {
        status = check_view(model, &picture->views, k);
        if (status != MMQ_OK)
            return status;
        mmqi_view_count(&view, &model->spec, &picture->views.view[k]);
        picture->made_rows += view.rows;
        if (picture->views.n == 1) {
            picture->across = view.across;
            picture->down = view.down;
        }
    }
    picture->rows = picture->made_rows;
    picture->n_runs = 1;
    return MMQ_OK;
}

/* Families and recipes bound what they make; whoever takes memory relies on it. */
static int32_t check_bounds(const struct mmqi_picture *picture, const struct mmqi_model *model)
{
    const struct mmqi_spec *spec = &model->spec;
    int32_t made = spec->made_rows > 0 ? spec->made_rows : picture->rows;
    int32_t most = picture->frames > 0 ? spec->video_rows : spec->image_rows;

    if (picture->rows < 1 || picture->rows > most)
        return mmqi_fail(MMQ_ERR_INTERNAL, "%s: a picture of %d rows where %d are the most",
                         model->path, (int)picture->rows, (int)most);
    if (picture->made_rows > made)
        return mmqi_fail(MMQ_ERR_INTERNAL,
                         "%s: %d rows are made for a picture where %d are the "
                         "most",
                         model->path, (int)picture->made_rows, (int)made);
    if (picture->n_runs < 1 || picture->rows % picture->n_runs != 0)
        return mmqi_fail(MMQ_ERR_INTERNAL, "%s: a picture of %d rows in %d runs", model->path,
                         (int)picture->rows, (int)picture->n_runs);
    return MMQ_OK;
}

int32_t mmqi_model_measure(struct mmqi_picture *out, const struct mmqi_model *model, int32_t width,
                           int32_t height)
{
    int32_t status;

    *out = (struct mmqi_picture){0};
    status = mmqi_preprocess_views(&out->views, &model->spec.recipe, width, height);
    if (status == MMQ_OK)
        status = count_block(out, model);
    if (status == MMQ_OK && model->family->measure)
        status = model->family->measure(out, model);
    return status == MMQ_OK ? check_bounds(out, model) : status;
}

/* Views of the same size, whose grid is that of each. */
int32_t mmqi_model_measure_image(struct mmqi_picture *out, const struct mmqi_model *model,
                                 const struct mmqi_image *image)
{
    const struct mmqi_spec *spec = &model->spec;
    struct mmqi_view_rows view;
    int32_t status;

    if (!image->frames)
        return mmqi_model_measure(out, model, image->width, image->height);
    *out = (struct mmqi_picture){0};
    if (!spec->video_marker)
        return mmqi_fail(MMQ_ERR_UNSUPPORTED, "%s: a model of the family %s takes no videos here",
                         model->path, model->family->name);
    status = mmqi_preprocess_video_views(&out->views, &spec->video_recipe, image);
    if (status == MMQ_OK)
        status = count_block(out, model);
    if (status != MMQ_OK)
        return status;
    mmqi_view_count(&view, spec, &out->views.view[0]);
    out->across = view.across;
    out->down = view.down;
    out->frames = spec->video_recipe.frames;
    out->time_step = spec->tokens_per_second > 0
                         ? spec->tokens_per_second * (int32_t)(out->frames / image->fps)
                         : 1;
    return check_bounds(out, model);
}

int32_t mmqi_model_order(int32_t **order, const struct mmqi_model *model,
                         const struct mmqi_picture *picture)
{
    int32_t *rows;

    *order = NULL;
    if (!model->family->order)
        return MMQ_OK;
    rows = mmqi_alloc_array((size_t)picture->rows, sizeof *rows);
    if (!rows)
        return mmqi_fail(MMQ_ERR_NOMEM, "%s: no memory for the rows of a picture", model->path);
    model->family->order(rows, model, picture);
    for (int32_t i = 0; i < picture->rows; i++)
        if (rows[i] < 0 || rows[i] >= picture->made_rows) {
            int32_t row = rows[i];

            mmqi_free(rows);
            return mmqi_fail(MMQ_ERR_INTERNAL, "%s: row %d of a picture is row %d of %d",
                             model->path, (int)i, (int)row, (int)picture->made_rows);
        }
    *order = rows;
    return MMQ_OK;
}

/* Pixels of the greatest view of `squares` squares at most: a picture's, or all frames of a
 * video's. */
static int64_t greatest_pixels(const struct mmqi_spec *spec, int32_t squares)
{
    int64_t side = (int64_t)spec->patch * spec->merge, video = 0;

    if (spec->video_marker) {
        video = mmqi_recipe_max_video_squares(&spec->video_recipe);
        if (video > squares)
            video = squares;
        video *= spec->video_recipe.frames;
    }
    return (video > squares ? video : squares) * side * side;
}

void mmqi_model_greatest(struct mmqi_greatest *out, const struct mmqi_model *model, int32_t rows)
{
    const struct mmqi_spec *spec = &model->spec;
    int32_t most = spec->view_rows > 0 && spec->view_rows < rows ? spec->view_rows : rows;
    int32_t squares = most > spec->extra_rows ? most - spec->extra_rows : 1;
    struct mmqi_view view = {spec->view_width, spec->view_height};

    if (spec->view_width > 0) {
        mmqi_view_count(&out->view, spec, &view);
        out->pixels = (int64_t)view.width * view.height;
    } else {
        out->view = (struct mmqi_view_rows){.across = 1, .down = squares};
        out->view.patches = squares * spec->merge * spec->merge;
        out->view.tower_rows = out->view.patches + spec->extra_tower_rows;
        out->view.rows = squares + spec->extra_rows;
        out->pixels = greatest_pixels(spec, squares);
    }
    out->made_rows = spec->made_rows > 0 ? spec->made_rows : rows;
    if (out->made_rows < out->view.rows)
        out->made_rows = out->view.rows;
}
