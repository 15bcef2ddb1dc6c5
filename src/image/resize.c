/*
 * Resizing: for each output column and row the taps (where they begin, how
 * many, their weights), then a horizontal and a vertical pass.
 *
 *   s = max(in / out, 1), c = (i + 1/2) in / out, r = radius of the kernel
 *   taps    int(c - r s + 1/2) .. int(c + r s + 1/2), cut to the picture
 *   weights k((j - c + 1/2) / s), normalised in double, then 22-bit fixed point
 *
 * Both passes round and clip to bytes. A window of horizontally resized rows
 * slides down the picture, so memory is that of the rows one output row
 * needs, and rows that nobody needs are never touched. Pillow 13's order of
 * operations is kept throughout, down to the last bit.
 */
#include "image/resize.h"

#include <math.h>
#include <stdbool.h>

#include "core/mem.h"
#include "core/status.h"

enum { WEIGHT_BITS = 22, ONE = 1 << WEIGHT_BITS, HALF = 1 << (WEIGHT_BITS - 1) };

/* How the outputs [first, first + n) of one axis come from its inputs. */
struct taps {
    int32_t n;
    int32_t stride;   /* weights kept for each output */
    int32_t *begin;   /* [n] first input */
    int32_t *count;   /* [n] inputs, at most `stride` */
    int32_t *weights; /* [n, stride] */
};

static double bilinear(double x)
{
    x = fabs(x);
    return x < 1.0 ? 1.0 - x : 0.0;
}

/* Keys' cubic with a = -1/2. */
static double bicubic(double x)
{
    const double a = -0.5;

    x = fabs(x);
    if (x < 1.0)
        return ((a + 2.0) * x - (a + 3.0)) * x * x + 1;
    if (x < 2.0)
        return (((x - 5) * x + 8) * x - 4) * a;
    return 0.0;
}

static double sinc(double x)
{
    const double pi = 3.14159265358979323846;

    if (x == 0.0)
        return 1.0;
    x *= pi;
    return sin(x) / x;
}

static double lanczos(double x)
{
    return x >= -3.0 && x < 3.0 ? sinc(x) * sinc(x / 3) : 0.0;
}

static double weigh(int32_t filter, double x)
{
    if (filter == MMQI_FILTER_BILINEAR)
        return bilinear(x);
    return filter == MMQI_FILTER_BICUBIC ? bicubic(x) : lanczos(x);
}

static double radius(int32_t filter)
{
    if (filter == MMQI_FILTER_BILINEAR)
        return 1.0;
    return filter == MMQI_FILTER_BICUBIC ? 2.0 : 3.0;
}

static void free_taps(struct taps *taps)
{
    mmqi_free(taps->begin);
    mmqi_free(taps->count);
    mmqi_free(taps->weights);
}

static int32_t alloc_taps(struct taps *taps, int32_t n, int32_t stride)
{
    size_t n_weights;

    taps->n = n;
    taps->stride = stride;
    taps->begin = mmqi_alloc_array((size_t)n, sizeof *taps->begin);
    taps->count = mmqi_alloc_array((size_t)n, sizeof *taps->count);
    if (mmqi_mul_size((size_t)n, (size_t)stride, &n_weights))
        taps->weights = mmqi_alloc_array(n_weights, sizeof *taps->weights);
    if (!taps->begin || !taps->count || !taps->weights)
        return mmqi_fail(MMQ_ERR_NOMEM, "resize: no memory for %d x %d weights", (int)n,
                         (int)stride);
    return MMQ_OK;
}

/* Positions are summed up step by step, as Pillow does: the roundings are part of the result. */
static int32_t nearest_taps(struct taps *taps, int32_t in, int32_t out, int32_t first, int32_t n)
{
    double scale = (double)in / out, position = scale * 0.5;
    int32_t status = alloc_taps(taps, n, 1);

    if (status != MMQ_OK)
        return status;
    for (int32_t i = 0; i < first; i++)
        position += scale;
    for (int32_t i = 0; i < n; i++, position += scale) {
        taps->begin[i] = position < in ? (int32_t)position : in - 1;
        taps->count[i] = 1;
        taps->weights[i] = ONE;
    }
    return MMQ_OK;
}

static void fix_weights(int32_t *fixed, const double *weights, int32_t n, double total)
{
    for (int32_t j = 0; j < n; j++) {
        double weight = total != 0.0 ? weights[j] / total : weights[j];

        fixed[j] = (int32_t)(weight < 0 ? -0.5 + weight * ONE : 0.5 + weight * ONE);
    }
}

static int32_t kernel_taps(struct taps *taps, int32_t in, int32_t out, int32_t first, int32_t n,
                           int32_t filter)
{
    double scale = (double)in / out, shrink = scale > 1.0 ? scale : 1.0;
    double support = radius(filter) * shrink, inverse = 1.0 / shrink;
    int32_t stride = (int32_t)ceil(support) * 2 + 1;
    double *weights = mmqi_alloc_array((size_t)stride, sizeof *weights);
    int32_t status = alloc_taps(taps, n, stride);

    if (!weights)
        status = mmqi_fail(MMQ_ERR_NOMEM, "resize: no memory for %d weights", (int)stride);
    for (int32_t i = 0; status == MMQ_OK && i < n; i++) {
        double center = ((double)first + i + 0.5) * scale, total = 0.0;
        int32_t begin = (int32_t)(center - support + 0.5), end = (int32_t)(center + support + 0.5);

        begin = begin < 0 ? 0 : begin;
        end = end > in ? in : end;
        for (int32_t j = 0; j < end - begin; j++) {
            weights[j] = weigh(filter, (j + begin - center + 0.5) * inverse);
            total += weights[j];
        }
        fix_weights(taps->weights + (size_t)i * (size_t)stride, weights, end - begin, total);
        taps->begin[i] = begin;
        taps->count[i] = end - begin;
    }
    mmqi_free(weights);
    return status;
}

static int32_t make_taps(struct taps *taps, int32_t in, int32_t out, int32_t first, int32_t n,
                         int32_t filter)
{
    if (filter == MMQI_FILTER_NEAREST)
        return nearest_taps(taps, in, out, first, n);
    return kernel_taps(taps, in, out, first, n, filter);
}

static uint8_t clip(int32_t sum)
{
    sum >>= WEIGHT_BITS;
    return (uint8_t)(sum < 0 ? 0 : sum > 255 ? 255 : sum);
}

/* dst [taps.n, 3] from one row of the picture. */
static void resize_row(uint8_t *dst, const uint8_t *row, const struct taps *taps)
{
    const int32_t *weights = taps->weights;

    for (int32_t i = 0; i < taps->n; i++, dst += 3, weights += taps->stride) {
        const uint8_t *pixel = row + (size_t)taps->begin[i] * 3;
        int32_t red = HALF, green = HALF, blue = HALF;

        for (int32_t j = 0; j < taps->count[i]; j++, pixel += 3) {
            red += pixel[0] * weights[j];
            green += pixel[1] * weights[j];
            blue += pixel[2] * weights[j];
        }
        dst[0] = clip(red);
        dst[1] = clip(green);
        dst[2] = clip(blue);
    }
}

/* The window of horizontally resized rows: input row y is at y % n_rows, for the last n_rows. */
struct window {
    uint8_t *rows; /* [n_rows, row_bytes] */
    int32_t *sums; /* [row_bytes] */
    size_t row_bytes;
    int32_t n_rows, next; /* `next`: the first input row not yet taken in */
};

static uint8_t *window_row(const struct window *window, int32_t y)
{
    return window->rows + (size_t)(y % window->n_rows) * window->row_bytes;
}

static int32_t open_window(struct window *window, const struct taps *columns,
                           const struct taps *rows)
{
    int32_t most = 1;

    for (int32_t i = 0; i < rows->n; i++)
        most = rows->count[i] > most ? rows->count[i] : most;
    window->n_rows = most;
    window->row_bytes = (size_t)columns->n * 3;
    window->rows = mmqi_alloc_array(window->row_bytes, (size_t)most);
    window->sums = mmqi_alloc_array(window->row_bytes, sizeof *window->sums);
    if (!window->rows || !window->sums)
        return mmqi_fail(MMQ_ERR_NOMEM, "resize: no memory for %d rows of %zu bytes", (int)most,
                         window->row_bytes);
    return MMQ_OK;
}

static void close_window(struct window *window)
{
    mmqi_free(window->rows);
    mmqi_free(window->sums);
}

/* One output row from the window's rows [begin, begin + count). */
static void blend_rows(uint8_t *dst, const struct window *window, int32_t begin, int32_t count,
                       const int32_t *weights)
{
    int32_t *sums = window->sums;
    size_t n = window->row_bytes;

    for (size_t x = 0; x < n; x++)
        sums[x] = HALF;
    for (int32_t j = 0; j < count; j++) {
        const uint8_t *row = window_row(window, begin + j);
        int32_t weight = weights[j];

        for (size_t x = 0; x < n; x++)
            sums[x] += row[x] * weight;
    }
    for (size_t x = 0; x < n; x++)
        dst[x] = clip(sums[x]);
}

static void run_passes(uint8_t *dst, const struct mmqi_image *image, struct window *window,
                       const struct taps *columns, const struct taps *rows)
{
    size_t image_row_bytes = (size_t)image->width * 3;

    for (int32_t i = 0; i < rows->n; i++, dst += window->row_bytes) {
        int32_t begin = rows->begin[i], end = begin + rows->count[i];

        if (window->next < begin)
            window->next = begin;
        for (; window->next < end; window->next++)
            resize_row(window_row(window, window->next),
                       image->rgb + (size_t)window->next * image_row_bytes, columns);
        blend_rows(dst, window, begin, rows->count[i],
                   rows->weights + (size_t)i * (size_t)rows->stride);
    }
}

static bool is_inside(int32_t begin, int32_t size, int32_t whole)
{
    return begin >= 0 && size >= 1 && begin <= whole - size;
}

int32_t mmqi_resize_region(struct mmqi_image **out, const struct mmqi_image *image, int32_t width,
                           int32_t height, int32_t filter, const struct mmqi_region *region)
{
    struct taps columns = {0}, rows = {0};
    struct window window = {0};
    int32_t status;

    *out = NULL;
    if (filter < MMQI_FILTER_NEAREST || filter > MMQI_FILTER_BICUBIC)
        return mmqi_fail(MMQ_ERR_UNSUPPORTED, "resize: filter %d, not 0 to 3", (int)filter);
    if (!is_inside(region->left, region->width, width) ||
        !is_inside(region->top, region->height, height))
        return mmqi_fail(MMQ_ERR_INVALID, "resize: %d x %d at %d, %d is not inside %d x %d",
                         (int)region->width, (int)region->height, (int)region->left,
                         (int)region->top, (int)width, (int)height);
    status =
        mmqi_image_create(out, "resize", (uint64_t)region->width, (uint64_t)region->height, NULL);
    if (status == MMQ_OK)
        status = make_taps(&columns, image->width, width, region->left, region->width, filter);
    if (status == MMQ_OK)
        status = make_taps(&rows, image->height, height, region->top, region->height, filter);
    if (status == MMQ_OK)
        status = open_window(&window, &columns, &rows);
    if (status == MMQ_OK) {
        run_passes((*out)->rgb, image, &window, &columns, &rows);
        mmqi_image_finish(*out);
    } else {
        mmqi_image_release(*out);
        *out = NULL;
    }
    close_window(&window);
    free_taps(&rows);
    free_taps(&columns);
    return status;
}

int32_t mmqi_resize(struct mmqi_image **out, const struct mmqi_image *image, int32_t width,
                    int32_t height, int32_t filter)
{
    struct mmqi_region whole = {0, 0, width, height};

    return mmqi_resize_region(out, image, width, height, filter, &whole);
}
