/*
 * The turn of rotary positions ("rotate half"), on pairs (i, i + head_dim / 2) of a head:
 *
 *   angle = position * inv_freq[i]; c = cos(angle), s = sin(angle)
 *   x[i] = x[i] * c - x[i + half] * s;  x[i + half] = x[i + half] * c + x[i] * s
 *
 * The angle's product, and those of the turn, are rounded one by one, as on the CPU. One thread per
 * pair.
 *
 * A turn of few rows waits for another at the same positions (q and k), and for the write of what
 * it turns, with the values beside it, to the cache: one launch for all. Where the products that
 * make q, k and v still wait, it is theirs as well (gemv.cu). No bit changes for that.
 */
#include "cuda/product.h"
#include "cuda/rope.h"

enum { FEW_ROWS = 8, THREADS = 256 };

/* Up to two matrices to turn, of the same rows and positions; then, where slots are given, number
 * `keys` of them and v go to the cache. */
struct turns {
    struct turning how;
    struct mmqi_mat x[MMQI_CUDA_TURNS];
    int32_t pairs[MMQI_CUDA_TURNS]; /* of a row; 0: there is no such matrix */
    struct mmqi_mat v;
    int32_t keys;
};

static __device__ inline void turn_pair(const struct turns &t, int which, int32_t pair, int64_t r)
{
    int32_t dim = t.how.rope.head_dim, half = dim / 2, i = pair % half;
    struct turn turn = find_turn(t.how, r, i);
    int64_t col = (int64_t)(pair / half) * dim + i;
    float *at = row_of(t.x[which], r) + col;
    float a = at[0], b = at[half], low = turned_low(turn, a, b), high = turned_high(turn, a, b);

    at[0] = low;
    at[half] = high;
    if (t.how.slots && which == t.keys) {
        at = t.how.kv.pages + key_offset(t.how.kv, t.how.slots[r]) + col;
        at[0] = low;
        at[half] = high;
    }
}

/* A row's threads: the pairs of each matrix, then the columns of v. */
static __global__ __launch_bounds__(THREADS) void turn_kernel(const __grid_constant__ turns t)
{
    int32_t i = (int32_t)(blockIdx.x * THREADS + threadIdx.x);

    wait_for_inputs();
    for (int64_t r = blockIdx.y; r < t.x[0].rows; r += gridDim.y) {
        int32_t col = i - t.pairs[0] - t.pairs[1];

        if (i < t.pairs[0])
            turn_pair(t, 0, i, r);
        else if (col < 0)
            turn_pair(t, 1, i - t.pairs[0], r);
        else if (t.how.slots && col < t.v.cols)
            t.how.kv.pages[key_offset(t.how.kv, t.how.slots[r]) + value_offset(t.how.kv) + col] =
                row_of(t.v, r)[col];
    }
}

static int32_t run_turns(struct mmqi_stream *s, const struct turns *t)
{
    int64_t threads = (int64_t)t->pairs[0] + t->pairs[1] + (t->how.slots ? t->v.cols : 0);

    return launch(s, "rope", turn_kernel, element_grid(t->x[0].rows, threads), dim3(THREADS), 0,
                  *t);
}

static int32_t pairs_of(const struct mmqi_rope *rope)
{
    return rope->n_heads * (rope->head_dim / 2);
}

/* The turns that wait, which then wait no more. */
static struct turns take_turns(struct mmqi_stream *s)
{
    struct turns t = {};

    for (int32_t i = 0; i < s->n_turns; i++) {
        t.x[i] = s->turns[i].x;
        t.pairs[i] = pairs_of(&s->turns[i].rope);
    }
    t.how.rope = s->turns[0].rope;
    t.how.positions = s->turns[0].positions;
    s->n_turns = 0;
    return t;
}

extern "C" int32_t mmqi_cuda_flush_turns(struct mmqi_stream *s)
{
    struct turns t = take_turns(s);

    return run_turns(s, &t);
}

static bool may_join(const struct mmqi_stream *s, const struct mmqi_cuda_turn *one)
{
    const struct mmqi_cuda_turn *first = &s->turns[0];

    return s->n_turns < MMQI_CUDA_TURNS && one->x.rows == first->x.rows &&
           one->positions == first->positions && one->rope.head_dim == first->rope.head_dim &&
           one->rope.n_axes == first->rope.n_axes && one->rope.inv_freq == first->rope.inv_freq &&
           one->rope.axis == first->rope.axis && !matrices_meet(&one->x, &first->x);
}

/* Whether x is what one of the products that wait makes, in whole heads. */
static bool is_product(const struct mmqi_stream *s, const struct mmqi_mat *x,
                       const struct mmqi_rope *rope)
{
    for (int32_t i = 0; i < s->n_waiting; i++)
        if (s->waiting[i].y.data == x->data && s->waiting[i].y.cols == x->cols &&
            !s->waiting[i].added && rope->head_dim % 2 == 0 &&
            (int64_t)rope->n_heads * rope->head_dim == x->cols)
            return true;
    return false;
}

extern "C" int32_t mmqi_cuda_rope(struct mmqi_stream *s, const struct mmqi_mat *x,
                                  const struct mmqi_rope *rope, const int32_t *positions)
{
    struct mmqi_cuda_turn one = {*x, *rope, positions};
    int32_t status = MMQ_OK;

    if (x->rows == 0 || pairs_of(rope) == 0)
        return MMQ_OK;
    if ((s->n_turns > 0 && !may_join(s, &one)) || (s->n_waiting > 0 && !is_product(s, x, rope)))
        status = mmqi_cuda_flush(s);
    if (status != MMQ_OK)
        return status;
    s->turns[s->n_turns++] = one;
    return MMQI_CUDA_FUSE >= 2 && x->rows <= FEW_ROWS ? MMQ_OK : mmqi_cuda_flush(s);
}

static bool is_same(const struct mmqi_mat *a, const struct mmqi_mat *b)
{
    return a->data == b->data && a->rows == b->rows && a->cols == b->cols && a->stride == b->stride;
}

extern "C" bool mmqi_cuda_store_waiting(struct mmqi_stream *s, const struct mmqi_kv *kv,
                                        const struct mmqi_mat *k, const struct mmqi_mat *v,
                                        const int32_t *slots, int32_t *status)
{
    int32_t keys = -1;
    struct turning how;
    struct turns t;

    for (int32_t i = 0; i < s->n_turns; i++) {
        if (matrices_meet(v, &s->turns[i].x))
            return false;
        if (is_same(k, &s->turns[i].x))
            keys = i;
    }
    if (keys < 0 || s->turns[keys].rope.n_heads != kv->n_heads ||
        s->turns[keys].rope.head_dim != kv->head_dim || kv->head_dim % 2 != 0 || v->cols != k->cols)
        return false;
    how = (struct turning){s->turns[0].rope, s->turns[0].positions, *kv, slots};
    if (mmqi_cuda_store_products(s, &how, k, v, status))
        return true;
    *status = mmqi_cuda_flush_products(s);
    if (*status != MMQ_OK)
        return true;
    t = take_turns(s);
    t.how = how;
    t.v = *v;
    t.keys = keys;
    *status = run_turns(s, &t);
    return true;
}
