/*
 * Resizing: for each output column and row the taps (where they begin, how
 * many, their weights), then a horizontal and a vertical pass.
 *
 *   s = max(in / out, 1), c = (i + 1/2) in / out, r = radius of the kernel
 *   taps    int(c - r s + 1/2) .. int(c + r s + 1/2), cut to the picture
 *   weights k((j - c + 1/2) / s), normalised in double, then 22-bit fixed point
 *
 * Both passes round and clip to bytes. Their order is Pillow 13's (earlier ones
 * always went horizontally first), as is the order of operations throughout:
 * results are equal to the last bit. Horizontally resized rows live in a
 * window that slides down the picture, so memory is that of the rows one
 * output row needs, and rows that nobody needs are never touched.
 */
#include "image/resize.h"

#include <math.h>
#include <stdbool.h>

#include "core/mem.h"
#include "core/status.h"

enum { WEIGHT_BITS = 22, TORCH_LIMIT = 1 << 15 };

/* How the outputs [first, first + n) of one axis come from its inputs. */
struct taps {
    int32_t n;
    int32_t stride;   /* weights kept for each output */
    int32_t bits;     /* weights are fractions of 2^bits */
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
    taps->bits = WEIGHT_BITS;
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
        taps->weights[i] = 1 << WEIGHT_BITS;
    }
    return MMQ_OK;
}

static int32_t fix_weight(double weight, int32_t bits)
{
    double scaled = weight * (double)(1 << bits);

    return (int32_t)(weight < 0 ? -0.5 + scaled : 0.5 + scaled);
}

/* Where output i of the axis begins, and its weights, that add up to 1; returns how many. */
static int32_t weigh_output(double *weights, int32_t *begin, int32_t i, int32_t in, int32_t out,
                            int32_t filter)
{
    double scale = (double)in / out, shrink = scale > 1.0 ? scale : 1.0;
    double support = radius(filter) * shrink, inverse = 1.0 / shrink;
    double center = ((double)i + 0.5) * scale, total = 0.0;
    int32_t end = (int32_t)(center + support + 0.5);

    *begin = (int32_t)(center - support + 0.5);
    *begin = *begin < 0 ? 0 : *begin;
    end = end > in ? in : end;
    for (int32_t j = 0; j < end - *begin; j++) {
        weights[j] = weigh(filter, (j + *begin - center + 0.5) * inverse);
        total += weights[j];
    }
    for (int32_t j = 0; j < end - *begin && total != 0.0; j++)
        weights[j] /= total;
    return end - *begin;
}

/* As many bits as torch gives the weights of an axis: the greatest of all its outputs fits. */
static int32_t torch_bits(double *weights, int32_t in, int32_t out, int32_t filter)
{
    double most = 0.0;
    int32_t n, begin, bits = 0;

    for (int32_t i = 0; i < out; i++) {
        n = weigh_output(weights, &begin, i, in, out, filter);
        for (int32_t j = 0; j < n; j++)
            most = weights[j] > most ? weights[j] : most;
    }
    while (bits < WEIGHT_BITS && (int32_t)(0.5 + most * (double)(1 << (bits + 1))) < TORCH_LIMIT)
        bits++;
    return bits;
}

static int32_t kernel_taps(struct taps *taps, int32_t in, int32_t out, int32_t first, int32_t n,
                           int32_t filter)
{
    double scale = (double)in / out, shrink = scale > 1.0 ? scale : 1.0;
    int32_t kernel = filter & ~MMQI_FILTER_TORCH;
    int32_t stride = (int32_t)ceil(radius(kernel) * shrink) * 2 + 1;
    double *weights = mmqi_alloc_array((size_t)stride, sizeof *weights);
    int32_t status = alloc_taps(taps, n, stride);

    if (!weights)
        status = mmqi_fail(MMQ_ERR_NOMEM, "resize: no memory for %d weights", (int)stride);
    if (status == MMQ_OK && filter != kernel)
        taps->bits = torch_bits(weights, in, out, kernel);
    for (int32_t i = 0; status == MMQ_OK && i < n; i++) {
        int32_t *fixed = taps->weights + (size_t)i * (size_t)stride;

        taps->count[i] = weigh_output(weights, &taps->begin[i], first + i, in, out, kernel);
        for (int32_t j = 0; j < taps->count[i]; j++)
            fixed[j] = fix_weight(weights[j], taps->bits);
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

static uint8_t clip(int32_t sum, int32_t bits)
{
    sum >>= bits;
    return (uint8_t)(sum < 0 ? 0 : sum > 255 ? 255 : sum);
}

/* dst [taps.n, 3] from one row of the picture. */
static void resize_row(uint8_t *dst, const uint8_t *row, const struct taps *taps)
{
    const int32_t *weights = taps->weights;
    int32_t half = 1 << taps->bits >> 1;

    for (int32_t i = 0; i < taps->n; i++, dst += 3, weights += taps->stride) {
        const uint8_t *pixel = row + (size_t)taps->begin[i] * 3;
        int32_t red = half, green = half, blue = half;

        for (int32_t j = 0; j < taps->count[i]; j++, pixel += 3) {
            red += pixel[0] * weights[j];
            green += pixel[1] * weights[j];
            blue += pixel[2] * weights[j];
        }
        dst[0] = clip(red, taps->bits);
        dst[1] = clip(green, taps->bits);
        dst[2] = clip(blue, taps->bits);
    }
}

/* Rows of bytes in memory: row y stands at y % n, so a few can be a window that slides. */
struct strip {
    const uint8_t *bytes; /* [n, row_bytes] */
    size_t row_bytes;
    int32_t n;
};

static const uint8_t *strip_row(const struct strip *strip, int32_t y)
{
    return strip->bytes + (size_t)(y % strip->n) * strip->row_bytes;
}

/* dst [n] = bytes [first, first + n) of output row i, blended from the rows of the strip. */
static void blend_rows(uint8_t *dst, int32_t *sums, const struct strip *strip, size_t first,
                       size_t n, const struct taps *taps, int32_t i)
{
    const int32_t *weights = taps->weights + (size_t)i * (size_t)taps->stride;

    for (size_t x = 0; x < n; x++)
        sums[x] = 1 << taps->bits >> 1;
    for (int32_t j = 0; j < taps->count[i]; j++) {
        const uint8_t *row = strip_row(strip, taps->begin[i] + j) + first;
        int32_t weight = weights[j];

        for (size_t x = 0; x < n; x++)
            sums[x] += row[x] * weight;
    }
    for (size_t x = 0; x < n; x++)
        dst[x] = clip(sums[x], taps->bits);
}

/* Resized rows are kept in a window as long as an output row needs them; unneeded ones are skipped.
 */
static int32_t run_horizontal_first(uint8_t *dst, const struct strip *source,
                                    const struct taps *columns, const struct taps *rows)
{
    size_t row_bytes = (size_t)columns->n * 3;
    int32_t *sums = mmqi_alloc_array(row_bytes, sizeof *sums);
    int32_t most = 1, next = 0;
    struct strip strip;
    uint8_t *window;

    for (int32_t i = 0; i < rows->n; i++)
        most = rows->count[i] > most ? rows->count[i] : most;
    window = mmqi_alloc_array(row_bytes, (size_t)most);
    strip = (struct strip){window, row_bytes, most};
    for (int32_t i = 0; window && sums && i < rows->n; i++, dst += row_bytes) {
        int32_t begin = rows->begin[i], end = begin + rows->count[i];

        for (next = next < begin ? begin : next; next < end; next++)
            resize_row(window + (size_t)(next % most) * row_bytes, strip_row(source, next),
                       columns);
        blend_rows(dst, sums, &strip, 0, row_bytes, rows, i);
    }
    mmqi_free(window);
    mmqi_free(sums);
    if (!window || !sums)
        return mmqi_fail(MMQ_ERR_NOMEM, "resize: no memory for %d rows of %zu bytes", (int)most,
                         row_bytes);
    return MMQ_OK;
}

/* Each output row is blended over the columns that some output column needs, then resized. */
static int32_t run_vertical_first(uint8_t *dst, const struct strip *source,
                                  const struct taps *columns, const struct taps *rows)
{
    int32_t last = columns->n - 1;
    size_t first = (size_t)columns->begin[0] * 3;
    size_t n = (size_t)(columns->begin[last] + columns->count[last]) * 3 - first;
    int32_t *sums = mmqi_alloc_array(n, sizeof *sums);
    uint8_t *line = mmqi_alloc(source->row_bytes);

    for (int32_t i = 0; line && sums && i < rows->n; i++, dst += (size_t)columns->n * 3) {
        blend_rows(line + first, sums, source, first, n, rows, i);
        resize_row(dst, line, columns);
    }
    mmqi_free(line);
    mmqi_free(sums);
    if (!line || !sums)
        return mmqi_fail(MMQ_ERR_NOMEM, "resize: no memory for a row of %zu bytes", n);
    return MMQ_OK;
}

/* Pillow 13 goes vertically first where that shrinks more than twice as much, in pixels. */
static int32_t run_passes(uint8_t *dst, const struct mmqi_image *image, int32_t width,
                          int32_t height, int32_t filter, const struct taps *columns,
                          const struct taps *rows)
{
    struct strip source = {image->rgb, (size_t)image->width * 3, image->height};
    int64_t fewer_columns = (int64_t)image->width - width;
    int64_t fewer_rows = (int64_t)image->height - height;

    if (!(filter & MMQI_FILTER_TORCH) && fewer_rows > 0 && fewer_rows > 2 * fewer_columns)
        return run_vertical_first(dst, &source, columns, rows);
    return run_horizontal_first(dst, &source, columns, rows);
}

static bool is_inside(int32_t begin, int32_t size, int32_t whole)
{
    return begin >= 0 && size >= 1 && begin <= whole - size;
}

int32_t mmqi_resize_region(struct mmqi_image **out, const struct mmqi_image *image, int32_t width,
                           int32_t height, int32_t filter, const struct mmqi_region *region)
{
    struct taps columns = {0}, rows = {0};
    int32_t status;

    *out = NULL;
    if ((filter < MMQI_FILTER_NEAREST || filter > MMQI_FILTER_BICUBIC) &&
        filter != (MMQI_FILTER_BILINEAR | MMQI_FILTER_TORCH) &&
        filter != (MMQI_FILTER_BICUBIC | MMQI_FILTER_TORCH))
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
        status = run_passes((*out)->rgb, image, width, height, filter, &columns, &rows);
    if (status == MMQ_OK) {
        mmqi_image_finish(*out);
    } else {
        mmqi_image_release(*out);
        *out = NULL;
    }
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
