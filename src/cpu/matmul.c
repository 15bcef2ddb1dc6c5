/*
 * y[r, n] = sum_k x[r, k] * W[n, k] + bias[n], W in any format.
 *
 * Plain C: W's row is unpacked to f32; terms are added in the order of k,
 * each product rounded; the bias is added last. Vector kernels take 16-lane sums.
 *
 * A chunk is a run of weight rows, taken for all rows of x.
 */
#include "core/dtype.h"
#include "cpu/cpu.h"

enum {
    FEW_CHUNKS = 64,     /* of a product of few rows, which reading weights limits */
    LEAST_CHUNK = 32768, /* bytes of weights: shorter ones are read no faster than they begin */
    MOST_CHUNK = 256 * 1024,
    MIN_CHUNKS = 16 /* of a product of many rows, where the weight has as many panels */
};

void mmqi_c_matmul(const struct mmqi_matmul_job *job, float *scratch)
{
    const struct mmqi_wmat *w = job->w;
    const float *x;
    float sum;

    for (int64_t n = job->begin; n < job->end; n++) {
        mmqi_format_info(w->format)->unpack(scratch, w->part, w->rows, w->cols, n * w->cols,
                                            w->cols);
        for (int64_t r = 0; r < job->x->rows; r++) {
            x = mmqi_cpu_row(job->x, r);
            sum = 0.0f;
            for (int64_t k = 0; k < w->cols; k++)
                sum += x[k] * scratch[k];
            mmqi_cpu_row(job->y, r)[n] = job->bias ? sum + job->bias[n] : sum;
        }
    }
}

int64_t mmqi_cpu_panels(int64_t cols)
{
    int64_t panel = mmqi_cpu_ceil_div(cols, MMQI_LANES) * MMQI_LANES * MMQI_PANEL_ROWS;
    int64_t fit = panel ? MMQI_PANEL_FLOATS / panel : MMQI_MAX_PANELS;

    if (cols > MMQI_MAX_PANEL_COLS)
        return 0;
    return fit < 1 ? 1 : fit > MMQI_MAX_PANELS ? MMQI_MAX_PANELS : fit;
}

/* Bits of one stored weight, scales aside. */
static int64_t weight_bits(int32_t format)
{
    const struct mmqi_format_info *info = mmqi_format_info(format);

    if (info->kind == MMQI_KIND_TABLE4 || info->kind == MMQI_KIND_INT4)
        return 4;
    return 8 * (int64_t)mmqi_dtype_size(info->dtype);
}

/* Weight rows of one chunk, a multiple of MMQI_PANEL_ROWS. */
static int64_t chunk_step(const struct mmqi_wmat *w, int64_t rows)
{
    int64_t bytes = w->cols * weight_bits(w->format) / 8 + 1, most = mmqi_cpu_panels(w->cols);
    int64_t chunk = bytes * w->rows / FEW_CHUNKS, panels;

    if (rows <= MMQI_FEW_ROWS || most == 0) {
        chunk = chunk < LEAST_CHUNK ? LEAST_CHUNK : chunk > MOST_CHUNK ? MOST_CHUNK : chunk;
        panels = chunk / (bytes * MMQI_PANEL_ROWS);
    } else {
        panels = w->rows / (MMQI_PANEL_ROWS * MIN_CHUNKS);
        panels = panels > most ? most : panels;
    }
    return MMQI_PANEL_ROWS * (panels < 1 ? 1 : panels);
}

struct matmul_args {
    const struct mmqi_stream *stream;
    struct mmqi_matmul_job job;
    int64_t step;
};

static void matmul_chunk(void *arg, int64_t chunk, int32_t worker)
{
    const struct matmul_args *a = arg;
    struct mmqi_matmul_job job = a->job;

    job.begin = chunk * a->step;
    job.end = job.begin + a->step < job.w->rows ? job.begin + a->step : job.w->rows;
    job.next = job.begin + mmqi_pool_threads(a->stream->pool) * a->step;
    a->stream->kernels->matmul(&job, mmqi_cpu_worker_scratch(a->stream, worker));
}

int32_t mmqi_cpu_matmul(struct mmqi_stream *s, const struct mmqi_mat *y, const struct mmqi_mat *x,
                        const struct mmqi_wmat *w, const float *bias)
{
    struct matmul_args args = {s, {y, x, w, bias, 0, 0, 0}, chunk_step(w, x->rows)};

    if (x->rows > 0)
        mmqi_pool_run(s->pool, mmqi_cpu_ceil_div(w->rows, args.step), matmul_chunk, &args);
    return MMQ_OK;
}
