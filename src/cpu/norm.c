/*
 * Layer norm and RMS norm.
 *
 *   mean = (sum x) / n                        16-lane sums (cpu.h), f32
 *   var  = (sum (x - mean)^2) / n             square rounded, then added
 *   y    = (x - mean) * (1 / sqrt(var + eps)) * w + b
 *
 *   y    = x * (1 / sqrt((sum x^2) / n + eps)) * w
 *
 * Every step is rounded to f32 in this order on every instruction set, so all give the same bits.
 */
#include <math.h>

#include "cpu/cpu.h"

/* The tree that ends a 16-lane sum. */
static float lane_tree(float lane[MMQI_LANES])
{
    for (int32_t half = MMQI_LANES / 2; half >= 1; half /= 2)
        for (int32_t j = 0; j < half; j++)
            lane[j] = lane[j] + lane[j + half];
    return lane[0];
}

static float sum(const float *x, int64_t n)
{
    float lane[MMQI_LANES] = {0};

    for (int64_t k = 0; k < n; k++)
        lane[k % MMQI_LANES] += x[k];
    return lane_tree(lane);
}

static float sum_squares(const float *x, float mean, int64_t n)
{
    float lane[MMQI_LANES] = {0}, d;

    for (int64_t k = 0; k < n; k++) {
        d = x[k] - mean;
        lane[k % MMQI_LANES] += d * d;
    }
    return lane_tree(lane);
}

void mmqi_c_layer_norm(float *y, const float *x, const float *w, const float *b, float eps,
                       int64_t n)
{
    float mean = sum(x, n) / (float)n;
    float inverse = 1.0f / sqrtf(sum_squares(x, mean, n) / (float)n + eps);

    for (int64_t k = 0; k < n; k++)
        y[k] = (x[k] - mean) * inverse * w[k] + b[k];
}

void mmqi_c_rms_norm(float *y, const float *x, const float *w, float eps, int64_t n)
{
    float inverse = 1.0f / sqrtf(sum_squares(x, 0.0f, n) / (float)n + eps);

    for (int64_t k = 0; k < n; k++)
        y[k] = x[k] * inverse * w[k];
}

struct norm_args {
    const struct mmqi_cpu_kernels *kernels;
    const struct mmqi_mat *y, *x;
    const float *w, *b; /* b NULL: RMS norm */
    float eps;
};

static void norm_rows(void *arg, int64_t chunk, int32_t worker)
{
    const struct norm_args *a = arg;
    int64_t step = mmqi_cpu_row_step(a->x->cols), begin = chunk * step;

    (void)worker;
    for (int64_t r = begin; r < begin + step && r < a->x->rows; r++) {
        if (a->b)
            a->kernels->layer_norm(mmqi_cpu_row(a->y, r), mmqi_cpu_row(a->x, r), a->w, a->b, a->eps,
                                   a->x->cols);
        else
            a->kernels->rms_norm(mmqi_cpu_row(a->y, r), mmqi_cpu_row(a->x, r), a->w, a->eps,
                                 a->x->cols);
    }
}

int32_t mmqi_cpu_layer_norm(struct mmqi_stream *s, const struct mmqi_mat *y,
                            const struct mmqi_mat *x, const float *w, const float *b, float eps)
{
    struct norm_args args = {s->kernels, y, x, w, b, eps};

    mmqi_pool_run(s->pool, mmqi_cpu_ceil_div(x->rows, mmqi_cpu_row_step(x->cols)), norm_rows,
                  &args);
    return MMQ_OK;
}

int32_t mmqi_cpu_rms_norm(struct mmqi_stream *s, const struct mmqi_mat *y, const struct mmqi_mat *x,
                          const float *w, float eps)
{
    struct norm_args args = {s->kernels, y, x, w, NULL, eps};

    mmqi_pool_run(s->pool, mmqi_cpu_ceil_div(x->rows, mmqi_cpu_row_step(x->cols)), norm_rows,
                  &args);
    return MMQ_OK;
}
