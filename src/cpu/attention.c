/*
 * Attention over pages, one row of queries at a time.
 *
 * A query visits its keys in blocks of slots [64 i, 64 i + 64), cut to its span:
 *
 *   t[j] = (sum_d q[d] * K[j, d]) * scale           in the order of d
 *   m'   = max(m, t[j]...);  a = e^(m - m');  p[j] = e^(t[j] - m')
 *   l    = l * a + sum_j p[j]                       m = -inf, l = 0, o = 0 at first
 *   o[d] = o[d] * a + sum_j p[j] * V[j, d]          in the order of j
 *
 * and y = o / l at the end, zeros for an empty span. o is kept in y itself; no scores beyond a
 * block are stored. Slots outside the span are never read.
 */
#include <math.h>
#include <string.h>

#include "cpu/cpu.h"

/* One block's worth of slots [begin, end) for one query; o [head_dim]. */
static void attend_block(const struct mmqi_attention_job *job, float *o, const float *q, float *m,
                         float *l, int64_t begin, int64_t end)
{
    float t[MMQI_KEY_BLOCK], most = *m, again, sum = 0.0f, dot;
    const float *k, *v;

    for (int64_t j = begin; j < end; j++) {
        k = mmqi_cpu_key(job->kv, j, job->kv_head);
        dot = 0.0f;
        for (int32_t d = 0; d < job->head_dim; d++)
            dot += q[d] * k[d];
        t[j - begin] = dot * job->scale;
        if (!(t[j - begin] <= most))
            most = t[j - begin];
    }
    again = expf(*m - most);
    for (int32_t d = 0; d < job->head_dim; d++)
        o[d] *= again;
    for (int64_t j = begin; j < end; j++) {
        v = mmqi_cpu_key(job->kv, j, job->kv_head) + mmqi_cpu_value_offset(job->kv);
        t[j - begin] = expf(t[j - begin] - most);
        sum += t[j - begin];
        for (int32_t d = 0; d < job->head_dim; d++)
            o[d] += t[j - begin] * v[d];
    }
    *l = *l * again + sum;
    *m = most;
}

static void attend(const struct mmqi_attention_job *job, float *o, const float *q,
                   struct mmqi_span span)
{
    float m = -INFINITY, l = 0.0f;
    int64_t end;

    memset(o, 0, (size_t)job->head_dim * sizeof *o);
    for (int64_t begin = span.begin; begin < span.end; begin = end) {
        end = (begin / MMQI_KEY_BLOCK + 1) * MMQI_KEY_BLOCK;
        end = end < span.end ? end : span.end;
        attend_block(job, o, q, &m, &l, begin, end);
    }
    for (int32_t d = 0; d < job->head_dim && span.begin < span.end; d++)
        o[d] /= l;
}

void mmqi_c_attention(const struct mmqi_attention_job *job, float *scratch)
{
    int64_t column;

    (void)scratch;
    for (int64_t r = job->begin; r < job->end; r++)
        for (int32_t h = job->head_begin; h < job->head_end; h++) {
            column = (int64_t)h * job->head_dim;
            attend(job, mmqi_cpu_row(job->y, r) + column, mmqi_cpu_row(job->q, r) + column,
                   job->spans[r]);
        }
}

struct attention_args {
    const struct mmqi_stream *stream;
    struct mmqi_attention_job job;
    int32_t n_heads;
    int64_t row_step, row_chunks;
};

/* First query head that reads key head `kv_head`: the least h with h * n_kv / n_heads == kv_head.
 */
static int32_t first_head(int64_t kv_head, int64_t n_heads, int64_t n_kv)
{
    return (int32_t)mmqi_cpu_ceil_div(kv_head * n_heads, n_kv);
}

static void attention_chunk(void *arg, int64_t chunk, int32_t worker)
{
    const struct attention_args *a = arg;
    struct mmqi_attention_job job = a->job;

    job.kv_head = (int32_t)(chunk / a->row_chunks);
    job.head_begin = first_head(job.kv_head, a->n_heads, job.kv->n_heads);
    job.head_end = first_head(job.kv_head + 1, a->n_heads, job.kv->n_heads);
    job.begin = chunk % a->row_chunks * a->row_step;
    job.end = job.begin + a->row_step < job.q->rows ? job.begin + a->row_step : job.q->rows;
    a->stream->kernels->attention(&job, mmqi_cpu_worker_scratch(a->stream, worker));
}

int32_t mmqi_cpu_attention(struct mmqi_stream *s, const struct mmqi_mat *y,
                           const struct mmqi_mat *q, int32_t n_heads, const struct mmqi_kv *kv,
                           const struct mmqi_span *spans, float scale)
{
    struct attention_args args = {
        .stream = s,
        .job = {.y = y, .q = q, .kv = kv, .spans = spans, .scale = scale, .head_dim = kv->head_dim},
        .n_heads = n_heads,
    };
    int64_t group = mmqi_cpu_ceil_div(n_heads, kv->n_heads);

    args.row_step = group < MMQI_TASK_QUERIES ? MMQI_TASK_QUERIES / group : 1;
    args.row_chunks = mmqi_cpu_ceil_div(q->rows, args.row_step);
    mmqi_pool_run(s->pool, args.row_chunks * kv->n_heads, attention_chunk, &args);
    return MMQ_OK;
}
