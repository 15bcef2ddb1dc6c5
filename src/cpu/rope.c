/*
 * Rotary positions, "rotate half": in each head the pair (x[i], x[i + half])
 * turns by the angle position * inv_freq[i].
 *
 *   angle = position * inv_freq[i] rounded to f32; c = cos(angle), s = sin(angle)
 *   x[i]        = x[i] * c - x[i + half] * s
 *   x[i + half] = x[i + half] * c + x[i] * s
 *
 * Products and sums are rounded one by one, so all instruction sets give the same bits. Cosines and
 * sines are made once per row, for all heads, in the worker's scratch.
 */
#include <math.h>

#include "cpu/cpu.h"

void mmqi_c_rotate(float *x, const float *c, const float *s, int64_t half)
{
    float a, b;

    for (int64_t i = 0; i < half; i++) {
        a = x[i];
        b = x[half + i];
        x[i] = a * c[i] - b * s[i];
        x[half + i] = b * c[i] + a * s[i];
    }
}

struct rope_args {
    const struct mmqi_stream *stream;
    const struct mmqi_mat *x;
    int32_t n_heads, head_dim;
    const int32_t *positions;
    const float *inv_freq;
};

static void rope_rows(void *arg, int64_t chunk, int32_t worker)
{
    const struct rope_args *a = arg;
    int64_t step = mmqi_cpu_row_step(a->x->cols), begin = chunk * step, half = a->head_dim / 2;
    float *c = mmqi_cpu_worker_scratch(a->stream, worker), *s = c + half, angle;

    for (int64_t r = begin; r < begin + step && r < a->x->rows; r++) {
        for (int64_t i = 0; i < half; i++) {
            angle = (float)a->positions[r] * a->inv_freq[i];
            c[i] = cosf(angle);
            s[i] = sinf(angle);
        }
        for (int32_t h = 0; h < a->n_heads; h++)
            a->stream->kernels->rotate(mmqi_cpu_row(a->x, r) + (int64_t)h * a->head_dim, c, s,
                                       half);
    }
}

int32_t mmqi_cpu_rope(struct mmqi_stream *s, const struct mmqi_mat *x, int32_t n_heads,
                      int32_t head_dim, const int32_t *positions, const float *inv_freq)
{
    struct rope_args args = {s, x, n_heads, head_dim, positions, inv_freq};

    mmqi_pool_run(s->pool, mmqi_cpu_ceil_div(x->rows, mmqi_cpu_row_step(x->cols)), rope_rows,
                  &args);
    return MMQ_OK;
}
