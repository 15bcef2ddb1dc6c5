/*
 * Ops on single elements: add, activations, gated activations.
 *
 *   SILU        x * sigmoid(x)            sigmoid(t) = 1 / (1 + e^-t)
 *   GELU        0.5 x (1 + erf(x / sqrt 2))
 *   GELU_TANH   0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)))
 *   QUICK_GELU  x * sigmoid(1.702 x)
 */
#include <math.h>

#include "cpu/cpu.h"

void mmqi_c_add(float *y, const float *a, const float *b, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        y[i] = a[i] + b[i];
}

static float act_of(float x, int32_t act)
{
    switch (act) {
    case MMQI_ACT_SILU:
        return x * (1.0f / (1.0f + expf(-x)));
    case MMQI_ACT_GELU:
        return 0.5f * x * (1.0f + erff(x * 0.70710678f));
    case MMQI_ACT_GELU_TANH:
        return 0.5f * x * (1.0f + tanhf(0.79788456f * (x + 0.044715f * x * x * x)));
    default: /* MMQI_ACT_QUICK_GELU */
        return x * (1.0f / (1.0f + expf(-1.702f * x)));
    }
}

void mmqi_c_activate(float *y, const float *x, int64_t n, int32_t act)
{
    for (int64_t i = 0; i < n; i++)
        y[i] = act_of(x[i], act);
}

void mmqi_c_gate(float *y, const float *g, const float *up, int64_t n, int32_t act)
{
    for (int64_t i = 0; i < n; i++)
        y[i] = act_of(g[i], act) * up[i];
}

struct element_args {
    const struct mmqi_cpu_kernels *kernels;
    const struct mmqi_mat *y, *a, *b;
    int32_t act;
};

static int64_t n_chunks(const struct mmqi_mat *y)
{
    return mmqi_cpu_ceil_div(y->rows, mmqi_cpu_row_step(y->cols));
}

static void add_rows(void *arg, int64_t chunk, int32_t worker)
{
    const struct element_args *a = arg;
    int64_t step = mmqi_cpu_row_step(a->y->cols), begin = chunk * step;

    (void)worker;
    for (int64_t r = begin; r < begin + step && r < a->y->rows; r++)
        a->kernels->add(mmqi_cpu_row(a->y, r), mmqi_cpu_row(a->a, r),
                        mmqi_cpu_row(a->b, a->b->rows == 1 ? 0 : r), a->y->cols);
}

int32_t mmqi_cpu_add(struct mmqi_stream *s, const struct mmqi_mat *y, const struct mmqi_mat *a,
                     const struct mmqi_mat *b)
{
    struct element_args args = {s->kernels, y, a, b, 0};

    mmqi_pool_run(s->pool, n_chunks(y), add_rows, &args);
    return MMQ_OK;
}

static void activate_rows(void *arg, int64_t chunk, int32_t worker)
{
    const struct element_args *a = arg;
    int64_t step = mmqi_cpu_row_step(a->y->cols), begin = chunk * step;

    (void)worker;
    for (int64_t r = begin; r < begin + step && r < a->y->rows; r++)
        a->kernels->activate(mmqi_cpu_row(a->y, r), mmqi_cpu_row(a->a, r), a->y->cols, a->act);
}

int32_t mmqi_cpu_activate(struct mmqi_stream *s, const struct mmqi_mat *y, const struct mmqi_mat *x,
                          int32_t act)
{
    struct element_args args = {s->kernels, y, x, NULL, act};

    mmqi_pool_run(s->pool, n_chunks(y), activate_rows, &args);
    return MMQ_OK;
}

static void gate_rows(void *arg, int64_t chunk, int32_t worker)
{
    const struct element_args *a = arg;
    int64_t step = mmqi_cpu_row_step(a->y->cols), begin = chunk * step;

    (void)worker;
    for (int64_t r = begin; r < begin + step && r < a->y->rows; r++)
        a->kernels->gate(mmqi_cpu_row(a->y, r), mmqi_cpu_row(a->a, r), mmqi_cpu_row(a->b, r),
                         a->y->cols, a->act);
}

int32_t mmqi_cpu_gate(struct mmqi_stream *s, const struct mmqi_mat *y, const struct mmqi_mat *gate,
                      const struct mmqi_mat *up, int32_t act)
{
    struct element_args args = {s->kernels, y, gate, up, act};

    mmqi_pool_run(s->pool, n_chunks(y), gate_rows, &args);
    return MMQ_OK;
}
