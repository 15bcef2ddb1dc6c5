/*
 * What a tower's run is told of its view: which rows see which, where each
 * patch is, in which order the squares come, and which rows of a learned grid
 * make up a patch's position. All of it follows from the view's grid.
 *
 * The tower takes patches by squares of merge x merge, squares row by row, as
 * the patches op cuts them; with windows, window by window and row by row
 * inside each, so that the rows of a window lie together.
 */
#include <math.h>

#include "runtime/session.h"

struct mmqi_index_shape mmqi_tower_index_shape(const struct mmqi_spec *spec,
                                               const struct mmqi_view_rows *view)
{
    struct mmqi_index_shape shape = {.rows = view->tower_rows, .n_axes = spec->tower_axes};

    if (spec->window > 0)
        shape.squares = view->across * view->down;
    if (spec->position_side > 0)
        shape.taps = view->tower_rows;
    return shape;
}

/* The squares of the window that begins at row `top`, column `left`, from the n-th on; all patches
 * of them see each other. Returns how many squares there are now. */
static int32_t fill_window(const struct mmqi_session_index *index, const struct mmqi_spec *spec,
                           const struct mmqi_view_rows *view, int32_t top, int32_t left, int32_t n)
{
    int32_t first = n, in_square = spec->merge * spec->merge;
    struct mmqi_span span;

    for (int32_t y = top; y < top + spec->window && y < view->down; y++)
        for (int32_t x = left; x < left + spec->window && x < view->across; x++) {
            index->order[n] = y * view->across + x;
            index->undo[index->order[n]] = n;
            n++;
        }
    span = (struct mmqi_span){first * in_square, n * in_square};
    for (int32_t i = span.begin; i < span.end; i++)
        index->window_spans[i] = span;
    return n;
}

static void fill_windows(const struct mmqi_session_index *index, const struct mmqi_spec *spec,
                         const struct mmqi_view_rows *view)
{
    int32_t n = 0;

    for (int32_t top = 0; top < view->down; top += spec->window)
        for (int32_t left = 0; left < view->across; left += spec->window)
            n = fill_window(index, spec, view, top, left, n);
}

/* Row and column of patch i of the run. */
static void find_patch(int32_t at[2], const struct mmqi_session_index *index,
                       const struct mmqi_spec *spec, const struct mmqi_view_rows *view, int32_t i)
{
    int32_t merge = spec->merge, inside = i % (merge * merge), square = i / (merge * merge);

    if (index->order)
        square = index->order[square];
    at[0] = square / view->across * merge + inside / merge;
    at[1] = square % view->across * merge + inside % merge;
}

/* The two places of `side` that place i of n lies between when both grids' ends meet, and how much
 * of each it takes; in f32, as the reference computes. */
static void find_taps(int32_t taps[2], float weights[2], int32_t i, int32_t n, int32_t side)
{
    float at = (float)i * (float)(side - 1) / (float)(n > 1 ? n - 1 : 1);
    float first = floorf(at), beyond = at - first;

    taps[0] = (int32_t)first;
    taps[1] = taps[0] + 1 < side ? taps[0] + 1 : side - 1;
    weights[0] = 1.0f - beyond;
    weights[1] = 1.0f - fabsf(at - first - 1.0f);
}

/* Bilinear: the four rows of the learned grid around a patch. */
static void fill_taps(const struct mmqi_session_index *index, const struct mmqi_spec *spec,
                      const struct mmqi_view_rows *view)
{
    int32_t side = spec->position_side, at[2], rows[2], columns[2];
    float down[2], across[2];

    for (int32_t i = 0; i < view->patches; i++) {
        find_patch(at, index, spec, view, i);
        find_taps(rows, down, at[0], view->down * spec->merge, side);
        find_taps(columns, across, at[1], view->across * spec->merge, side);
        for (int32_t k = 0; k < MMQI_TAPS; k++) {
            index->taps[i * MMQI_TAPS + k] = rows[k / 2] * side + columns[k % 2];
            index->tap_weights[i * MMQI_TAPS + k] = down[k / 2] * across[k % 2];
        }
    }
}

void mmqi_tower_fill_index(const struct mmqi_session_index *index, const struct mmqi_spec *spec,
                           const struct mmqi_view_rows *view)
{
    int32_t rows = view->tower_rows;

    for (int32_t i = 0; i < rows; i++) {
        index->slots[i] = i;
        index->spans[i] = (struct mmqi_span){0, rows};
    }
    if (spec->window > 0)
        fill_windows(index, spec, view);
    if (spec->tower_axes == 2)
        for (int32_t i = 0; i < view->patches; i++)
            find_patch(index->positions + 2 * (size_t)i, index, spec, view, i);
    if (spec->position_side > 0)
        fill_taps(index, spec, view);
}
