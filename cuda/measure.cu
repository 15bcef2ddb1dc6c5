/*
 * What the device reaches at best: reading memory from end to end, copying one half of it over the
 * other, and a large dense product by cuBLASLt in the type of each mode.
 *
 * All memory is one block of the bytes that were given. Numbers are random, as power, and so the
 * clock, depends on them.
 */
#include <stddef.h>
#include <string.h>

#include "cuda/device.h"

enum { N_TRIES = 5, THREADS = 256, BLOCKS_PER_SM = 8, ROWS = 2048, WIDTH = 4096 };

/* Random numbers of size 0.5 to 1: bits that are random, and those that are not. */
struct numbers {
    uint32_t random, fixed;
};

static const struct numbers f32_numbers = {0x807fffffu, 0x3f000000u};
static const struct numbers bf16_numbers = {0x807f807fu, 0x3f003f00u};
static const struct numbers f16_numbers = {0x83ff83ffu, 0x38003800u};

struct measuring {
    struct mmqi_device *device;
    cudaStream_t stream;
    cudaEvent_t begin, end;
    cublasLtHandle_t lt;
    uint8_t *memory;
    size_t bytes; /* a multiple of 64 */
    cublasLtMatmulDescOpaque_t product;
    cublasLtMatrixLayoutOpaque_t w, x, y;
    cublasLtMatmulAlgo_t algo;
    size_t item; /* bytes of a number of the product */
};

// words[i] = random numbers; one word a thread and step.
__global__ void fill_kernel(uint32_t *words, size_t n, struct numbers numbers)
{
    size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    size_t step = (size_t)gridDim.x * blockDim.x;

    for (; i < n; i += step) {
        uint64_t x = (i + 1) * 0x9E3779B97F4A7C15u;

        x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9u;
        words[i] = ((uint32_t)(x >> 29) & numbers.random) | numbers.fixed;
    }
}

// Reads n words of 16 bytes, four at a time a thread; writes next to nothing.
__global__ void read_kernel(uint32_t *sink, const uint4 *words, size_t n)
{
    size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    size_t step = (size_t)gridDim.x * blockDim.x;
    uint32_t sum = 0;

    for (; i + 3 * step < n; i += 4 * step) {
        uint4 a = words[i], b = words[i + step], c = words[i + 2 * step], d = words[i + 3 * step];

        sum ^= a.x ^ a.y ^ a.z ^ a.w ^ b.x ^ b.y ^ b.z ^ b.w;
        sum ^= c.x ^ c.y ^ c.z ^ c.w ^ d.x ^ d.y ^ d.z ^ d.w;
    }
    for (; i < n; i += step)
        sum ^= words[i].x ^ words[i].y ^ words[i].z ^ words[i].w;
    if (sum == 0x9E3779B9u) // hardly ever: but the compiler cannot know, and must read
        *sink = sum;
}

static unsigned grid_of(const struct measuring *m)
{
    return (unsigned)(m->device->n_multiprocessors * BLOCKS_PER_SM);
}

static int32_t fill(struct measuring *m, const struct numbers *numbers)
{
    fill_kernel<<<grid_of(m), THREADS, 0, m->stream>>>((uint32_t *)m->memory, m->bytes / 4,
                                                       *numbers);
    return MMQI_CUDA(m->device, cudaGetLastError());
}

static int32_t start_read(struct measuring *m)
{
    read_kernel<<<grid_of(m), THREADS, 0, m->stream>>>((uint32_t *)m->memory,
                                                       (const uint4 *)m->memory, m->bytes / 16);
    return MMQI_CUDA(m->device, cudaGetLastError());
}

static int32_t start_copy(struct measuring *m)
{
    return MMQI_CUDA(m->device, cudaMemcpyAsync(m->memory, m->memory + m->bytes / 2, m->bytes / 2,
                                                cudaMemcpyDeviceToDevice, m->stream));
}

static int32_t start_product(struct measuring *m)
{
    const float one = 1.0f, zero = 0.0f;
    uint8_t *w = m->memory + MMQI_CUDA_WORKSPACE, *x = w + (size_t)WIDTH * WIDTH * m->item;
    uint8_t *y = x + (size_t)ROWS * WIDTH * m->item;

    return MMQI_CUBLAS(m->device, cublasLtMatmul(m->lt, &m->product, &one, w, &m->w, x, &m->x,
                                                 &zero, y, &m->y, y, &m->y, &m->algo, m->memory,
                                                 MMQI_CUDA_WORKSPACE, m->stream));
}

/* *best becomes the most of `amount` a second of some tries, of which the first warms up. */
static int32_t time_job(struct measuring *m, int32_t (*start)(struct measuring *), double amount,
                        double *best)
{
    int32_t status = start(m);
    float milliseconds = 0;

    for (int i = 0; i < N_TRIES && status == MMQ_OK; i++) {
        status = MMQI_CUDA(m->device, cudaEventRecord(m->begin, m->stream));
        if (status == MMQ_OK)
            status = start(m);
        if (status == MMQ_OK)
            status = MMQI_CUDA(m->device, cudaEventRecord(m->end, m->stream));
        if (status == MMQ_OK)
            status = MMQI_CUDA(m->device, cudaEventSynchronize(m->end));
        if (status == MMQ_OK)
            status = MMQI_CUDA(m->device, cudaEventElapsedTime(&milliseconds, m->begin, m->end));
        if (status == MMQ_OK && milliseconds > 0 && amount * 1e3 / milliseconds > *best)
            *best = amount * 1e3 / milliseconds;
    }
    return status;
}

/* ---- products ---- */

static cublasStatus_t describe(struct measuring *m, cudaDataType_t type,
                               cublasComputeType_t compute)
{
    cublasOperation_t turned = CUBLAS_OP_T;
    cublasStatus_t e = cublasLtMatmulDescInit(&m->product, compute, CUDA_R_32F);

    if (e == CUBLAS_STATUS_SUCCESS)
        e = cublasLtMatmulDescSetAttribute(&m->product, CUBLASLT_MATMUL_DESC_TRANSA, &turned,
                                           sizeof turned);
    if (e == CUBLAS_STATUS_SUCCESS)
        e = cublasLtMatrixLayoutInit(&m->w, type, WIDTH, WIDTH, WIDTH);
    if (e == CUBLAS_STATUS_SUCCESS)
        e = cublasLtMatrixLayoutInit(&m->x, type, WIDTH, ROWS, WIDTH);
    if (e == CUBLAS_STATUS_SUCCESS)
        e = cublasLtMatrixLayoutInit(&m->y, type, WIDTH, ROWS, WIDTH);
    return e;
}

static cublasStatus_t choose(struct measuring *m, int *n_found)
{
    cublasLtMatmulPreferenceOpaque_t wish;
    cublasLtMatmulHeuristicResult_t found;
    size_t workspace = MMQI_CUDA_WORKSPACE;
    cublasStatus_t e = cublasLtMatmulPreferenceInit(&wish);

    *n_found = 0;
    if (e == CUBLAS_STATUS_SUCCESS)
        e = cublasLtMatmulPreferenceSetAttribute(&wish, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                                 &workspace, sizeof workspace);
    if (e == CUBLAS_STATUS_SUCCESS)
        e = cublasLtMatmulAlgoGetHeuristic(m->lt, &m->product, &m->w, &m->x, &m->y, &m->y, &wish, 1,
                                           &found, n_found);
    if (e == CUBLAS_STATUS_SUCCESS && *n_found > 0)
        m->algo = found.algo;
    return e;
}

/* Where the memory suffices, and cuBLASLt has a way; else *rate stays 0. */
static int32_t measure_product(struct measuring *m, int32_t mode, double *rate)
{
    bool exact = mode == MMQI_MODE_EXACT, old = m->device->compute < 80;
    cudaDataType_t type = exact ? CUDA_R_32F : old ? CUDA_R_16F : CUDA_R_16BF;
    cublasStatus_t e;
    int n_found = 0;
    int32_t status;

    m->item = exact ? 4 : 2;
    if (m->bytes < MMQI_CUDA_WORKSPACE + ((size_t)WIDTH + 2 * ROWS) * WIDTH * m->item)
        return MMQ_OK;
    e = describe(m, type, exact ? CUBLAS_COMPUTE_32F_PEDANTIC : CUBLAS_COMPUTE_32F);
    if (e == CUBLAS_STATUS_SUCCESS)
        e = choose(m, &n_found);
    if (e != CUBLAS_STATUS_SUCCESS || n_found == 0)
        return MMQ_OK;
    status = fill(m, exact ? &f32_numbers : old ? &f16_numbers : &bf16_numbers);
    return status == MMQ_OK ? time_job(m, start_product, 2.0 * ROWS * WIDTH * (double)WIDTH, rate)
                            : status;
}

/* ---- the slot ---- */

static int32_t open_all(struct measuring *m, uint64_t bytes)
{
    struct mmqi_device *device = m->device;
    int32_t status = mmqi_cuda_alloc(device, (void **)&m->memory, (size_t)bytes);

    m->bytes = (size_t)bytes / 64 * 64;
    if (status == MMQ_OK)
        status = MMQI_CUDA(device, cudaStreamCreateWithFlags(&m->stream, cudaStreamNonBlocking));
    if (status == MMQ_OK)
        status = MMQI_CUDA(device, cudaEventCreate(&m->begin));
    if (status == MMQ_OK)
        status = MMQI_CUDA(device, cudaEventCreate(&m->end));
    if (status == MMQ_OK)
        status = MMQI_CUBLAS(device, cublasLtCreate(&m->lt));
    return status;
}

static void close_all(struct measuring *m)
{
    if (m->stream)
        cudaStreamSynchronize(m->stream);
    if (m->lt)
        cublasLtDestroy(m->lt);
    if (m->end)
        cudaEventDestroy(m->end);
    if (m->begin)
        cudaEventDestroy(m->begin);
    if (m->stream)
        cudaStreamDestroy(m->stream);
    mmqi_cuda_free(m->device, m->memory);
    cudaGetLastError(); /* of a lost device */
}

int32_t mmqi_cuda_measure(struct mmqi_device *device, uint64_t bytes, struct mmqi_rates *rates)
{
    struct measuring m;
    int32_t status;
    int before;

    memset(&m, 0, sizeof m);
    memset(rates, 0, sizeof *rates);
    m.device = device;
    if (bytes < 64)
        return mmqi_cuda_fail(device, MMQ_ERR_INVALID, "measure: %llu bytes are too few",
                              (unsigned long long)bytes);
    before = mmqi_cuda_enter(device);
    status = open_all(&m, bytes);
    if (status == MMQ_OK)
        status = fill(&m, &f32_numbers);
    if (status == MMQ_OK)
        status = time_job(&m, start_read, (double)m.bytes, &rates->read);
    if (status == MMQ_OK)
        status = time_job(&m, start_copy, (double)m.bytes, &rates->copy);
    for (int32_t mode = MMQI_MODE_EXACT; mode <= MMQI_MODE_FAST && status == MMQ_OK; mode++)
        status = measure_product(&m, mode, &rates->product[mode]);
    close_all(&m);
    mmqi_cuda_leave(device, before);
    return status;
}
