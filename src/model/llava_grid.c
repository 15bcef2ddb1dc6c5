/*
 * Pictures in tiles, as LLaVA-NeXT (1.6) has them: the rows of the whole
 * picture, then those of its tiles as one grid, of which the lines or columns
 * that are padding are dropped, with the newline row behind each line.
 */
#include <math.h>

#include "core/status.h"
#include "model/llava_parts.h"

enum { MAX_ROWS = 1 << 28 };

int32_t mmqi_llava_fill_grid(const struct mmqi_llava *llava, struct mmqi_spec *spec,
                             const char *file)
{
    const struct mmqi_recipe *recipe = &spec->recipe;
    int64_t patches = mmqi_vit_patches(&llava->clip), side = llava->clip.image / llava->clip.patch;
    int64_t made = mmqi_recipe_max_views(recipe) * (patches + 1), most = 0;

    if (recipe->tile != llava->clip.image)
        return mmqi_fail(MMQ_ERR_UNSUPPORTED, "%s: tiles of %d pixels, the tower takes %d", file,
                         (int)recipe->tile, (int)llava->clip.image);
    for (int32_t i = 0; i < recipe->n_pinpoints; i++) {
        int64_t across = recipe->pinpoints[i].width / recipe->tile * side;
        int64_t down = recipe->pinpoints[i].height / recipe->tile * side;

        if ((across + 1) * down > most)
            most = (across + 1) * down;
    }
    if (made > MAX_ROWS || patches + most > MAX_ROWS)
        return mmqi_fail(MMQ_ERR_UNSUPPORTED, "%s: a picture of up to %lld rows is not run", file,
                         (long long)(patches + most));
    spec->made_rows = (int32_t)made;
    spec->image_rows = (int32_t)(patches + most);
    return MMQ_OK;
}

/* What is kept of the grid of the tiles' rows. */
struct grid {
    int32_t side;        /* rows of a tile's side */
    int32_t left, right; /* columns [left, right) */
    int32_t top, bottom; /* lines [top, bottom) */
};

/* int(round(x, 7)) of Python; int(x) where `plain`. */
static int32_t whole(double x, bool plain)
{
    const double half = plain ? 0 : 5e-8;
    double floor_x = floor(x);

    return (int32_t)(floor_x + 1 - x < half ? floor_x + 1 : floor_x);
}

static void unpad(struct grid *grid, const struct mmqi_model *model, const struct mmqi_views *views)
{
    const struct mmqi_llava *llava = model->facts;
    double width = views->width, height = views->height, across, down;
    bool plain = llava->plain_unpad;
    int32_t cut;

    grid->side = model->spec.view_width / model->spec.patch;
    grid->left = grid->top = 0;
    grid->right = views->across * grid->side;
    grid->bottom = views->down * grid->side;
    across = grid->right;
    down = grid->bottom;
    if (width / height > across / down) {
        cut = (grid->bottom - whole(height * (across / width), plain)) / 2;
        grid->top += cut;
        grid->bottom -= cut;
    } else {
        cut = (grid->right - whole(width * (down / height), plain)) / 2;
        grid->left += cut;
        grid->right -= cut;
    }
}

int32_t mmqi_llava_measure(struct mmqi_picture *picture, const struct mmqi_model *model)
{
    const struct mmqi_llava *llava = model->facts;
    struct grid grid;

    if (!llava->newline)
        return MMQ_OK;
    unpad(&grid, model, &picture->views);
    picture->rows = grid.side * grid.side;
    picture->rows += (grid.right - grid.left + 1) * (grid.bottom - grid.top);
    return MMQ_OK;
}

void mmqi_llava_order(int32_t *order, const struct mmqi_model *model,
                      const struct mmqi_picture *picture)
{
    const struct mmqi_llava *llava = model->facts;
    int32_t side, patches = mmqi_vit_patches(&llava->clip), x, y, tile;
    int32_t first = llava->newline ? patches : picture->rows;
    struct grid grid;

    for (int32_t i = 0; i < first; i++)
        *order++ = i;
    if (!llava->newline)
        return;
    unpad(&grid, model, &picture->views);
    side = grid.side;
    for (y = grid.top; y < grid.bottom; y++) {
        for (x = grid.left; x < grid.right; x++) {
            tile = y / side * picture->views.across + x / side;
            *order++ = (1 + tile) * (patches + 1) + y % side * side + x % side;
        }
        *order++ = patches; /* the newline behind the rows of the first view */
    }
}
