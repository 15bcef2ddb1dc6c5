/*
 * Ops on single elements: add, activations, gated activations.
 *
 * One thread per element, or per four where add and gate meet aligned rows; each input is read
 * once, the output written once.
 */
#include "cuda/activation.h"

/* Can rows be taken as float4? */
static bool by_four(const struct mmqi_mat *m)
{
    return m->cols % 4 == 0 && m->stride % 4 == 0 && (uintptr_t)m->data % 16 == 0;
}

static __device__ inline float4 *four_at(const struct mmqi_mat &m, int64_t row, int64_t col)
{
    return reinterpret_cast<float4 *>(row_of(m, row) + col);
}

static __global__ void add_kernel(struct mmqi_mat y, struct mmqi_mat a, struct mmqi_mat b)
{
    int64_t col = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;

    wait_for_inputs();
    if (col >= y.cols)
        return;
    for (int64_t r = blockIdx.y; r < y.rows; r += gridDim.y)
        row_of(y, r)[col] = row_of(a, r)[col] + row_of(b, b.rows == 1 ? 0 : r)[col];
}

/* Four columns per thread. */
static __global__ void add_four_kernel(struct mmqi_mat y, struct mmqi_mat a, struct mmqi_mat b)
{
    int64_t col = 4 * ((int64_t)blockIdx.x * blockDim.x + threadIdx.x);

    wait_for_inputs();
    if (col >= y.cols)
        return;
    for (int64_t r = blockIdx.y; r < y.rows; r += gridDim.y) {
        float4 p = *four_at(a, r, col), q = *four_at(b, b.rows == 1 ? 0 : r, col);

        *four_at(y, r, col) = make_float4(p.x + q.x, p.y + q.y, p.z + q.z, p.w + q.w);
    }
}

extern "C" int32_t mmqi_cuda_add(struct mmqi_stream *s, const struct mmqi_mat *y,
                                 const struct mmqi_mat *a, const struct mmqi_mat *b)
{
    if (y->rows == 0 || y->cols == 0)
        return MMQ_OK;
    if (mmqi_cuda_add_waiting(s, y, a, b))
        return MMQ_OK;
    if (by_four(y) && by_four(a) && by_four(b))
        return launch(s, "add", add_four_kernel, element_grid(y->rows, y->cols / 4), dim3(256), 0,
                      *y, *a, *b);
    return launch(s, "add", add_kernel, element_grid(y->rows, y->cols), dim3(256), 0, *y, *a, *b);
}

static __global__ void activate_kernel(struct mmqi_mat y, struct mmqi_mat x, int32_t act)
{
    int64_t col = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;

    wait_for_inputs();
    if (col >= y.cols)
        return;
    for (int64_t r = blockIdx.y; r < y.rows; r += gridDim.y)
        row_of(y, r)[col] = act_of(row_of(x, r)[col], act);
}

extern "C" int32_t mmqi_cuda_activate(struct mmqi_stream *s, const struct mmqi_mat *y,
                                      const struct mmqi_mat *x, int32_t act)
{
    if (y->rows == 0 || y->cols == 0)
        return MMQ_OK;
    return launch(s, "activate", activate_kernel, element_grid(y->rows, y->cols), dim3(256), 0, *y,
                  *x, act);
}

static __global__ void gate_kernel(struct mmqi_mat y, struct mmqi_mat gate, struct mmqi_mat up,
                                   int32_t act)
{
    int64_t col = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;

    wait_for_inputs();
    if (col >= y.cols)
        return;
    for (int64_t r = blockIdx.y; r < y.rows; r += gridDim.y)
        row_of(y, r)[col] = gated(row_of(gate, r)[col], row_of(up, r)[col], act);
}

/* Four columns per thread. */
static __global__ void gate_four_kernel(struct mmqi_mat y, struct mmqi_mat gate, struct mmqi_mat up,
                                        int32_t act)
{
    int64_t col = 4 * ((int64_t)blockIdx.x * blockDim.x + threadIdx.x);

    wait_for_inputs();
    if (col >= y.cols)
        return;
    for (int64_t r = blockIdx.y; r < y.rows; r += gridDim.y) {
        float4 g = *four_at(gate, r, col), u = *four_at(up, r, col);

        *four_at(y, r, col) = make_float4(gated(g.x, u.x, act), gated(g.y, u.y, act),
                                          gated(g.z, u.z, act), gated(g.w, u.w, act));
    }
}

extern "C" int32_t mmqi_cuda_gate(struct mmqi_stream *s, const struct mmqi_mat *y,
                                  const struct mmqi_mat *gate, const struct mmqi_mat *up,
                                  int32_t act)
{
    int32_t status;

    if (y->rows == 0 || y->cols == 0)
        return MMQ_OK;
    if (mmqi_cuda_gate_waiting(s, y, gate, up, act, &status))
        return status;
    if (by_four(y) && by_four(gate) && by_four(up))
        return launch(s, "gate", gate_four_kernel, element_grid(y->rows, y->cols / 4), dim3(256), 0,
                      *y, *gate, *up, act);
    return launch(s, "gate", gate_kernel, element_grid(y->rows, y->cols), dim3(256), 0, *y, *gate,
                  *up, act);
}
