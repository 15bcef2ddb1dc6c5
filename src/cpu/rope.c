/*
 * Rotary positions, "rotate half": in each head the pair (x[i], x[i + half])
 * turns by the angle position * inv_freq[i], where the row
 * has a position on several axes, that on axis[i].
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
    const struct mmqi_rope *rope;
    const int32_t *positions;
};

/* Cosine and sine of each frequency's angle at a row's positions [n_axes]. */
static void make_turns(float *c, float *s, const struct mmqi_rope *rope, const int32_t *position)
{
    int64_t half = rope->head_dim / 2;
    float angle;

    for (int64_t i = 0; i < half; i++) {
        angle = (float)position[rope->axis ? rope->axis[i] : 0] * rope->inv_freq[i];
        c[i] = cosf(angle);
        s[i] = sinf(angle);
    }
}

static void rope_rows(void *arg, int64_t chunk, int32_t worker)
{
    const struct rope_args *a = arg;
    const struct mmqi_rope *rope = a->rope;
    int64_t step = mmqi_cpu_row_step(a->x->cols), begin = chunk * step, half = rope->head_dim / 2;
    float *c = mmqi_cpu_worker_scratch(a->stream, worker), *s = c + half;

    for (int64_t r = begin; r < begin + step && r < a->x->rows; r++) {
        make_turns(c, s, rope, a->positions + r * rope->n_axes);
        for (int32_t h = 0; h < rope->n_heads; h++)
            a->stream->kernels->rotate(mmqi_cpu_row(a->x, r) + (int64_t)h * rope->head_dim, c, s,
                                       half);
    }
}

int32_t mmqi_cpu_rope(struct mmqi_stream *s, const struct mmqi_mat *x, const struct mmqi_rope *rope,
                      const int32_t *positions)
{
    struct rope_args args = {s, x, rope, positions};

    mmqi_pool_run(s->pool, mmqi_cpu_ceil_div(x->rows, mmqi_cpu_row_step(x->cols)), rope_rows,
                  &args);
    return MMQ_OK;
}
