/*
 * What the tests of attention share: how many rows of how many heads look at how many slots, which
 * of them each row sees, and which slots any of them sees.
 */
#ifndef MMQ_TEST_OPS_SCENE_H
#define MMQ_TEST_OPS_SCENE_H

#include "backend/ops.h"

enum span_kind { FULL, CAUSAL, WINDOW, MIXED };

struct scene {
    int32_t rows, slots, n_heads, n_kv_heads, head_dim, page_rows;
    enum span_kind kind;
    float q_scale;
};

static struct mmqi_span span_of(const struct scene *s, int32_t r)
{
    int32_t end = s->slots - s->rows + r + 1, begin;

    switch (s->kind) {
    case FULL:
        return (struct mmqi_span){0, s->slots};
    case CAUSAL:
        return (struct mmqi_span){0, end};
    case WINDOW:
        begin = end - 37;
        return (struct mmqi_span){begin < 0 ? 0 : begin, end};
    default: /* empty ones, single slots, and pieces that lie apart */
        begin = (int32_t)((uint32_t)r * 2654435761u % (uint32_t)s->slots);
        end = begin + r % 5 * r % 70;
        return (struct mmqi_span){begin, end < s->slots ? end : s->slots};
    }
}

/* A value that is only stored where some span may read it; all else in the pages stays NaN. */
static bool slot_used(const struct scene *s, int32_t slot)
{
    struct mmqi_span span;

    for (int32_t r = 0; r < s->rows; r++) {
        span = span_of(s, r);
        if (slot >= span.begin && slot < span.end)
            return true;
    }
    return false;
}

#endif
