/*
 * Attention over pages, several queries of one key head together.
 *
 * Included by kernels_*.c after a vocabulary. The order of a query's
 * arithmetic is that of src/cpu/attention.c with fused multiply-adds; the sum
 * of a block's weights is a 16-lane sum by slot, and e^t is v16_exp(). For each
 * block of 64 slots the keys are turned on their side once, [head_dim, 64],
 * and serve all queries of the task; values are read where they lie. A
 * query's own span decides which products enter, so company changes no bit.
 */
#ifndef MMQI_CPU_X86_ATTENTION16_H
#define MMQI_CPU_X86_ATTENTION16_H

#include <assert.h>
#include <string.h>

#include "cpu/cpu.h"

static_assert(MMQI_KEY_BLOCK == 64, "a block's slots are the bits of a uint64_t");

/* A (row, head) pair on its way: running maximum, sum of weights, and output. */
struct query {
    const float *q;
    float *o;
    int64_t begin, end;
    float most, sum;
};

/* 64 slots from `base` on: keys turned on their side, values by address (NULL: nobody's slot). */
struct block {
    int64_t base;
    float *keys; /* [head_dim, 64] */
    const float *value[MMQI_KEY_BLOCK];
};

/* Up to ATTEND_ROWS queries with slots [begin, end) of the block. */
struct group {
    struct query *query[ATTEND_ROWS];
    int32_t begin[ATTEND_ROWS], end[ATTEND_ROWS];
    int32_t n;
    float again[ATTEND_ROWS]; /* what o is multiplied by before the block's values enter */
    float weight[ATTEND_ROWS][MMQI_KEY_BLOCK] __attribute__((aligned(64)));
};

V16_INLINE void transpose8(float *to, const float *const from[8], int64_t d, int64_t n)
{
    const __m256i keep = _mm256_cmpgt_epi32(_mm256_set1_epi32(n < 8 ? (int32_t)n : 8),
                                            _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
    __m256 a[8], b[8];

    V16_EACH(i, 8)
    a[i] = n >= 8 ? _mm256_loadu_ps(from[i] + d) : _mm256_maskload_ps(from[i] + d, keep);
    V16_EACH(i, 4)
    {
        b[2 * i] = _mm256_unpacklo_ps(a[2 * i], a[2 * i + 1]);
        b[2 * i + 1] = _mm256_unpackhi_ps(a[2 * i], a[2 * i + 1]);
    }
    V16_EACH(i, 2)
    {
        a[4 * i] = _mm256_shuffle_ps(b[4 * i], b[4 * i + 2], 0x44);
        a[4 * i + 1] = _mm256_shuffle_ps(b[4 * i], b[4 * i + 2], 0xEE);
        a[4 * i + 2] = _mm256_shuffle_ps(b[4 * i + 1], b[4 * i + 3], 0x44);
        a[4 * i + 3] = _mm256_shuffle_ps(b[4 * i + 1], b[4 * i + 3], 0xEE);
    }
    V16_EACH(i, 4)
    {
        b[i] = _mm256_permute2f128_ps(a[i], a[i + 4], 0x20);
        b[i + 4] = _mm256_permute2f128_ps(a[i], a[i + 4], 0x31);
    }
    V16_EACH(i, 8)
    {
        if (i < n)
            _mm256_storeu_ps(to + i * MMQI_KEY_BLOCK, b[i]);
    }
}

static const float no_key[MMQI_MAX_VECTOR_HEAD];

/* Find the slots that `used` names and turn their keys; the others count as zeros. */
static void load_block(struct block *block, const struct mmqi_attention_job *job, int64_t base,
                       uint64_t used)
{
    const float *key[MMQI_KEY_BLOCK];
    int64_t offset = mmqi_cpu_value_offset(job->kv);

    block->base = base;
    for (int32_t j = 0; j < MMQI_KEY_BLOCK; j++) {
        key[j] = no_key;
        block->value[j] = NULL;
        if (used >> j & 1) {
            key[j] = mmqi_cpu_key(job->kv, base + j, job->kv_head);
            block->value[j] = key[j] + offset;
        }
    }
    for (int32_t j = 0; j < MMQI_KEY_BLOCK; j += 8)
        for (int32_t d = 0; d < job->head_dim && (used >> j & 0xFF); d += 8)
            transpose8(block->keys + (int64_t)d * MMQI_KEY_BLOCK + j, key + j, d,
                       job->head_dim - d);
}

/* Scores of the slots of n_v registers from `at` on, for the whole group. */
V16_INLINE void score(struct group *group, const struct block *block, int32_t head_dim, int32_t at,
                      const int32_t n_v)
{
    const float *q[ATTEND_ROWS], *keys = block->keys + at;
    vreg acc[ATTEND_ROWS][ATTEND_VECTORS], query[ATTEND_ROWS], key;

    V16_EACH(r, ATTEND_ROWS)
    {
        q[r] = group->query[r < group->n ? r : 0]->q;
        V16_EACH(v, n_v) acc[r][v] = vreg_zero();
    }
    for (int64_t d = 0; d < head_dim; d++, keys += MMQI_KEY_BLOCK) {
        V16_EACH(r, ATTEND_ROWS) query[r] = vreg_keep(vreg_set1(q[r][d]));
        V16_EACH(v, n_v)
        {
            key = vreg_keep(vreg_load(keys + v * VREG_LANES));
            V16_EACH(r, ATTEND_ROWS) acc[r][v] = vreg_fma(query[r], key, acc[r][v]);
        }
    }
    V16_EACH(r, ATTEND_ROWS)
    V16_EACH(v, n_v) vreg_store(group->weight[r] + at + v * VREG_LANES, acc[r][v]);
}

static void score_group(struct group *group, const struct block *block, int32_t head_dim)
{
    int32_t begin = group->begin[0], end = group->end[0], step = ATTEND_VECTORS * VREG_LANES;

    for (int32_t r = 1; r < group->n; r++) {
        begin = group->begin[r] < begin ? group->begin[r] : begin;
        end = group->end[r] > end ? group->end[r] : end;
    }
    begin = begin / MMQI_LANES * MMQI_LANES; /* as soften() reads them */
    for (; end - begin > step - MMQI_LANES; begin += step)
        score(group, block, head_dim, begin, ATTEND_VECTORS);
    for (; begin < end; begin += MMQI_LANES)
        score(group, block, head_dim, begin, MMQI_LANES / VREG_LANES);
}

/* Turn scores of [begin, end) into weights e^(t - most) in place; those beside them become 0. */
static void soften(struct query *query, float *t, float *again, int32_t begin, int32_t end,
                   float scale)
{
    int32_t first = begin / MMQI_LANES, last = (end + MMQI_LANES - 1) / MMQI_LANES;
    v16 most = v16_set1(-INFINITY), sums = v16_zero(), w;
    float greatest;

    for (int32_t v = first; v < last; v++)
        v16_store(t + v * MMQI_LANES, v16_mul(v16_load(t + v * MMQI_LANES), v16_set1(scale)));
    for (int32_t j = first * MMQI_LANES; j < begin; j++)
        t[j] = -INFINITY;
    for (int32_t j = end; j < last * MMQI_LANES; j++)
        t[j] = -INFINITY;
    for (int32_t v = first; v < last; v++)
        most = v16_max(most, v16_load(t + v * MMQI_LANES));
    greatest = v16_greatest(most);
    greatest = greatest > query->most ? greatest : query->most;
    for (int32_t v = first; v < last; v++) {
        w = v16_exp(v16_sub(v16_load(t + v * MMQI_LANES), v16_set1(greatest)));
        v16_store(t + v * MMQI_LANES, w);
        sums = v16_add(sums, w);
    }
    *again = v16_first_lane(v16_exp(v16_set1(query->most - greatest)));
    query->sum = query->sum * *again + v16_sum(sums);
    query->most = greatest;
}

/* A whole register where n is the constant VREG_LANES. */
V16_INLINE vreg load_some(const float *p, const int64_t n)
{
    return n == VREG_LANES ? vreg_load(p) : vreg_load_n(p, n);
}

/* o[d ..] = o[d ..] * again + sum over slots [begin, end) of weight * value, for n_q queries. */
V16_INLINE void mix(const struct group *group, int32_t first, const float *again,
                    const struct block *block, int32_t begin, int32_t end, int64_t d,
                    const int32_t n_q, const int32_t n_v, const int64_t lanes)
{
    vreg acc[ATTEND_ROWS][ATTEND_VECTORS], weight[ATTEND_ROWS], value;
    float *o[ATTEND_ROWS];

    V16_EACH(r, n_q)
    {
        o[r] = group->query[first + r]->o + d;
        V16_EACH(v, n_v)
        acc[r][v] = vreg_mul(load_some(o[r] + v * VREG_LANES, lanes), vreg_set1(again[r]));
    }
    for (int64_t j = begin; j < end; j++) {
        V16_EACH(r, n_q) weight[r] = vreg_keep(vreg_set1(group->weight[first + r][j]));
        V16_EACH(v, n_v)
        {
            value = vreg_keep(load_some(block->value[j] + d + v * VREG_LANES, lanes));
            V16_EACH(r, n_q) acc[r][v] = vreg_fma(weight[r], value, acc[r][v]);
        }
    }
    V16_EACH(r, n_q) V16_EACH(v, n_v)
    {
        if (lanes == VREG_LANES)
            vreg_store(o[r] + v * VREG_LANES, acc[r][v]);
        else
            vreg_store_n(o[r] + v * VREG_LANES, acc[r][v], lanes);
    }
}

/* mix() over the whole head. */
V16_INLINE void mix_head(const struct group *group, int32_t first, const float *again,
                         const struct block *block, int32_t begin, int32_t end, int32_t head_dim,
                         const int32_t n_q)
{
    int64_t d = 0;

    for (; d + ATTEND_VECTORS * VREG_LANES <= head_dim; d += ATTEND_VECTORS * VREG_LANES)
        mix(group, first, again, block, begin, end, d, n_q, ATTEND_VECTORS, VREG_LANES);
    for (; d + VREG_LANES <= head_dim; d += VREG_LANES)
        mix(group, first, again, block, begin, end, d, n_q, 1, VREG_LANES);
    if (d < head_dim)
        mix(group, first, again, block, begin, end, d, n_q, 1, head_dim - d);
}

/* Slots that all queries share from their common begin are mixed together, the rest one by one. */
static void mix_group(const struct group *group, const struct block *block, int32_t head_dim)
{
    static const float kept = 1.0f;
    int32_t begin = group->begin[0], end = group->end[0];
    bool together = group->n == ATTEND_ROWS;

    for (int32_t r = 1; r < group->n; r++) {
        together = together && group->begin[r] == begin;
        end = group->end[r] < end ? group->end[r] : end;
    }
    if (together)
        mix_head(group, 0, group->again, block, begin, end, head_dim, ATTEND_ROWS);
    for (int32_t r = 0; r < group->n; r++) {
        if (!together)
            mix_head(group, r, &group->again[r], block, group->begin[r], group->end[r], head_dim,
                     1);
        else if (end < group->end[r])
            mix_head(group, r, &kept, block, end, group->end[r], head_dim, 1);
    }
}

static void attend_group(struct group *group, const struct block *block, int32_t head_dim,
                         float scale)
{
    if (group->n == 0)
        return;
    score_group(group, block, head_dim);
    for (int32_t r = 0; r < group->n; r++)
        soften(group->query[r], group->weight[r], &group->again[r], group->begin[r], group->end[r],
               scale);
    mix_group(group, block, head_dim);
    group->n = 0;
}

/* The query's slots in the block at `base`, [*begin, *end) from its first; false if there is none.
 */
static bool slots_in_block(const struct query *query, int64_t base, int32_t *begin, int32_t *end)
{
    int64_t from = query->begin - base, to = query->end - base;

    *begin = from < 0 ? 0 : from > MMQI_KEY_BLOCK ? MMQI_KEY_BLOCK : (int32_t)from;
    *end = to < 0 ? 0 : to > MMQI_KEY_BLOCK ? MMQI_KEY_BLOCK : (int32_t)to;
    return *begin < *end;
}

/* Bits [begin, end), begin < end <= 64. */
static uint64_t bit_range(int32_t begin, int32_t end)
{
    return (UINT64_MAX << begin) & (UINT64_MAX >> (64 - end));
}

static void attend_block(struct query *queries, int32_t n, const struct mmqi_attention_job *job,
                         int64_t base, float *scratch)
{
    struct block block = {.keys = scratch};
    struct group group = {.n = 0};
    uint64_t used = 0;
    int32_t begin, end;

    for (int32_t i = 0; i < n; i++)
        if (slots_in_block(&queries[i], base, &begin, &end))
            used |= bit_range(begin, end);
    if (!used)
        return;
    load_block(&block, job, base, used);
    for (int32_t i = 0; i < n; i++) {
        if (!slots_in_block(&queries[i], base, &begin, &end))
            continue;
        group.query[group.n] = &queries[i];
        group.begin[group.n] = begin;
        group.end[group.n] = end;
        if (++group.n == ATTEND_ROWS)
            attend_group(&group, &block, job->head_dim, job->scale);
    }
    attend_group(&group, &block, job->head_dim, job->scale);
}

static void finish_query(const struct query *query, int32_t head_dim)
{
    int64_t n;

    for (int64_t d = 0; d < head_dim && query->begin < query->end; d += MMQI_LANES) {
        n = head_dim - d < MMQI_LANES ? head_dim - d : MMQI_LANES;
        v16_store_n(query->o + d, v16_div(v16_load_n(query->o + d, n), v16_set1(query->sum)), n);
    }
}

/* All rows of the job for heads [head, head_end): at most MMQI_TASK_QUERIES pairs. */
static void attend_heads(const struct mmqi_attention_job *job, int32_t head, int32_t head_end,
                         float *scratch)
{
    struct query queries[MMQI_TASK_QUERIES];
    int64_t low = INT64_MAX, high = INT64_MIN, column;
    struct mmqi_span span;
    int32_t n = 0;

    for (int64_t r = job->begin; r < job->end; r++)
        for (int32_t h = head; h < head_end; h++) {
            column = (int64_t)h * job->head_dim;
            span = job->spans[r];
            queries[n] = (struct query){mmqi_cpu_row(job->q, r) + column,
                                        mmqi_cpu_row(job->y, r) + column,
                                        span.begin,
                                        span.end,
                                        -INFINITY,
                                        0.0f};
            memset(queries[n].o, 0, (size_t)job->head_dim * sizeof(float));
            low = span.begin < span.end && span.begin < low ? span.begin : low;
            high = span.begin < span.end && span.end > high ? span.end : high;
            n++;
        }
    for (int64_t base = low / MMQI_KEY_BLOCK * MMQI_KEY_BLOCK; base < high; base += MMQI_KEY_BLOCK)
        attend_block(queries, n, job, base, scratch);
    for (int32_t i = 0; i < n; i++)
        finish_query(&queries[i], job->head_dim);
}

static void attention_rows(const struct mmqi_attention_job *job, float *scratch)
{
    int32_t end;

    if (job->head_dim > MMQI_MAX_VECTOR_HEAD) {
        mmqi_c_attention(job, scratch);
        return;
    }
    for (int32_t head = job->head_begin; head < job->head_end; head = end) {
        end = job->head_end - head < MMQI_TASK_QUERIES ? job->head_end : head + MMQI_TASK_QUERIES;
        attend_heads(job, head, end, scratch);
    }
}

#endif
