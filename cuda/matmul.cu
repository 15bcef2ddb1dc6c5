/*
 * The matmul op: which way a product takes (product.h tells what each one promises), and which
 * products are launched together.
 *
 * A product of one row that gemv.cu reads 16 bytes at a time is not launched at once. It waits for
 * others of the same x and the same format (q, k and v; gate and up), whose blocks join its grid,
 * or for the addition of a residual to it, which its threads then make as they store y; two of them
 * may be gate and up, whose rows one warp then takes side by side, and three q, k and v, on whose
 * turns (rope.cu) they go on waiting. Whatever is launched next on the stream launches it first. No
 * sum changes for that: every element has the same bits either way.
 */
#include "cuda/product.h"

static bool view_product(struct product *p, struct mmqi_stream *s,
                         const struct mmqi_cuda_waiting *one)
{
    p->y = one->y;
    p->x = one->x;
    p->bias = one->bias;
    p->added = one->added;
    p->sum = one->sum;
    return mmqi_weight_view_of(&p->w, s, &one->w);
}

/* Whether `one` may be launched with those that wait. */
static bool may_join(const struct mmqi_stream *s, const struct mmqi_cuda_waiting *one)
{
    const struct mmqi_cuda_waiting *first = &s->waiting[0];

    if (s->n_waiting == MMQI_CUDA_GROUP || first->added || one->x.data != first->x.data ||
        one->x.cols != first->x.cols || one->w.format != first->w.format ||
        one->w.cols != first->w.cols || matrices_meet(&one->y, &first->x))
        return false;
    for (int32_t i = 0; i < s->n_waiting; i++)
        if (matrices_meet(&one->y, &s->waiting[i].y))
            return false;
    return true;
}

static int32_t wait_for_company(struct mmqi_stream *s, const struct mmqi_cuda_waiting *one)
{
    int32_t status = MMQ_OK;

    if (s->n_turns > 0 || (s->n_waiting > 0 && !may_join(s, one)))
        status = mmqi_cuda_flush(s);
    if (status == MMQ_OK)
        s->waiting[s->n_waiting++] = *one;
    return status;
}

int32_t mmqi_cuda_flush_products(struct mmqi_stream *s)
{
    struct product p[MMQI_CUDA_GROUP];
    int32_t n = s->n_waiting, n_turns = s->n_turns, status;

    s->n_waiting = s->n_turns = 0; /* the launch itself finds none */
    for (int32_t i = 0; i < n; i++)
        if (!view_product(&p[i], s, &s->waiting[i]))
            return mmqi_cuda_fail(s->device, MMQ_ERR_INTERNAL, "matmul: a weight format is lost");
    status = n > 0 ? mmqi_cuda_gemv_group(s, p, n) : MMQ_OK;
    s->n_turns = status == MMQ_OK ? n_turns : 0;
    return status;
}

/* Turns wait for what products make, so they come after them. */
extern "C" int32_t mmqi_cuda_flush(struct mmqi_stream *s)
{
    int32_t status = s->n_waiting > 0 ? mmqi_cuda_flush_products(s) : MMQ_OK;

    return status == MMQ_OK && s->n_turns > 0 ? mmqi_cuda_flush_turns(s) : status;
}

extern "C" bool mmqi_cuda_add_waiting(struct mmqi_stream *s, const struct mmqi_mat *sum,
                                      const struct mmqi_mat *a, const struct mmqi_mat *b)
{
    struct mmqi_cuda_waiting *one = &s->waiting[0];
    const struct mmqi_mat *added = b->data == one->y.data ? a : b;
    const struct mmqi_mat *product = added == a ? b : a;

    if (s->n_waiting != 1 || s->n_turns > 0 || one->added || product->data != one->y.data ||
        sum->rows != 1 || a->rows != 1 || b->rows != 1 || sum->cols != one->y.cols ||
        matrices_meet(added, &one->y) || matrices_meet(sum, &one->x) ||
        (sum->data != one->y.data && matrices_meet(sum, &one->y)) ||
        (sum->data != added->data && matrices_meet(sum, added)))
        return false;
    one->added = added->data;
    one->sum = sum->data;
    return true;
}

/* Whether `a` is b, or shares nothing with it. */
static bool is_or_misses(const struct mmqi_mat *a, const struct mmqi_mat *b)
{
    return a->data == b->data || !matrices_meet(a, b);
}

extern "C" bool mmqi_cuda_gate_waiting(struct mmqi_stream *s, const struct mmqi_mat *y,
                                       const struct mmqi_mat *gate, const struct mmqi_mat *up,
                                       int32_t act, int32_t *status)
{
    const struct mmqi_cuda_waiting *one = &s->waiting[0], *two = &s->waiting[1];
    struct product p, q;

    if (MMQI_CUDA_FUSE < 2 || s->n_waiting != 2 || s->n_turns > 0)
        return false;
    if (gate->data == two->y.data) {
        one = two;
        two = &s->waiting[0];
    }
    if (y->rows != 1 || gate->data != one->y.data || up->data != two->y.data ||
        one->y.cols != two->y.cols || y->cols != one->y.cols || matrices_meet(y, &one->x) ||
        !is_or_misses(y, &one->y) || !is_or_misses(y, &two->y) || !view_product(&p, s, one) ||
        !view_product(&q, s, two))
        return false;
    s->n_waiting = 0;
    *status = mmqi_cuda_gemv_gate(s, &p, &q, y->data, act);
    return true;
}

/* What becomes of the output of a product that waits; -1: nothing that is known. */
static int32_t role_of(const struct mmqi_stream *s, const struct mmqi_cuda_waiting *one,
                       const struct mmqi_mat *k, const struct mmqi_mat *v)
{
    for (int32_t i = 0; i < s->n_turns; i++)
        if (s->turns[i].x.data == one->y.data)
            return k->data == one->y.data ? ROLE_KEY : ROLE_TURNED;
    return v->data == one->y.data && v->cols == one->y.cols ? ROLE_VALUE : -1;
}

bool mmqi_cuda_store_products(struct mmqi_stream *s, const struct turning *how,
                              const struct mmqi_mat *k, const struct mmqi_mat *v, int32_t *status)
{
    int32_t role[MMQI_CUDA_GROUP], n[3] = {0}, dim = how->kv.head_dim;
    struct product p[MMQI_CUDA_GROUP];

    /* pages without a table are a value of the arena, and may lie where x does */
    if (s->n_waiting != MMQI_CUDA_GROUP || s->n_turns != MMQI_CUDA_TURNS || k->rows != 1 ||
        v->cols != k->cols || !how->kv.table)
        return false;
    for (int32_t i = 0; i < MMQI_CUDA_GROUP; i++) {
        role[i] = role_of(s, &s->waiting[i], k, v);
        if (role[i] < 0 || s->waiting[i].y.cols % dim != 0 ||
            !view_product(&p[i], s, &s->waiting[i]))
            return false;
        n[role[i]]++;
    }
    /* so that the rows of W of a block lie within 2^32 bytes */
    if (n[ROLE_TURNED] != 1 || n[ROLE_KEY] != 1 ||
        8 * (2 * (int64_t)dim + 64) * p->w.cols > UINT32_MAX)
        return false;
    s->n_waiting = s->n_turns = 0;
    *status = mmqi_cuda_gemv_turned(s, p, role, how);
    return true;
}

extern "C" int32_t mmqi_cuda_matmul(struct mmqi_stream *s, const struct mmqi_mat *y,
                                    const struct mmqi_mat *x, const struct mmqi_wmat *w,
                                    const float *bias)
{
    struct mmqi_cuda_waiting one = {*y, *x, *w, bias, NULL, NULL};
    struct product p;

    if (!view_product(&p, s, &one))
        return mmqi_cuda_fail(s->device, MMQ_ERR_UNSUPPORTED, "matmul: weight format %d is unknown",
                              (int)w->format);
    if (x->rows == 0 || w->rows == 0)
        return MMQ_OK;
    if (MMQI_CUDA_FUSE && mmqi_cuda_gemv_groups(&p))
        return wait_for_company(s, &one);
    if (x->rows <= MMQI_FEW_ROWS)
        return mmqi_cuda_gemv(s, &p);
    if (s->options.mode == MMQI_MODE_FAST)
        return mmqi_cuda_tensor_product(s, &p);
    return mmqi_cuda_sgemm(s, &p);
}
