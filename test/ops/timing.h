/*
 * `test_ops --time [ISA [THREADS [NAME]]]`: how long each op (whose name holds NAME) takes on each
 * instruction set, beside the rates that the same process reaches: reading memory, and fused
 * multiply-adds. ISA "all": every one; THREADS 0: one per processor.
 */
#ifndef TEST_OPS_TIMING_H
#define TEST_OPS_TIMING_H

#include "core/os.h"
#include "ops/harness.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

enum { READ_BYTES = 256 << 20, READ_CHUNK = 1 << 20, FMA_ROUNDS = 100000 };

/* ---- what the machine can do ---- */

struct probe {
    const uint64_t *data;
    _Atomic uint64_t sink;
    int32_t isa;
};

/* 64 bytes; the compiler makes of it what the machine has. */
typedef uint64_t line_t __attribute__((vector_size(64)));

static void read_chunk(void *arg, int64_t chunk, int32_t worker)
{
    struct probe *probe = arg;
    const uint64_t *p = probe->data + chunk * (READ_CHUNK / 8);
    line_t sum[4] = {{0}}, line;

    (void)worker;
    for (int64_t i = 0; i < READ_CHUNK / 8; i += 32)
        for (int32_t j = 0; j < 4; j++) {
            memcpy(&line, p + i + 8 * j, sizeof line);
            sum[j] += line;
        }
    probe->sink += sum[0][0] + sum[1][1] + sum[2][2] + sum[3][3];
}

#if defined(__x86_64__)
__attribute__((target("avx512f"))) static void fma_avx512(struct probe *probe)
{
    __m512 acc[12], x = _mm512_set1_ps(0.999f), y = _mm512_set1_ps(1e-3f);

    for (int32_t j = 0; j < 12; j++)
        acc[j] = _mm512_set1_ps((float)j);
    for (int32_t i = 0; i < FMA_ROUNDS; i++)
#pragma GCC unroll 12
        for (int32_t j = 0; j < 12; j++)
            acc[j] = _mm512_fmadd_ps(acc[j], x, y);
    for (int32_t j = 0; j < 12; j++)
        probe->sink += (uint64_t)_mm512_cvtss_f32(acc[j]);
}

__attribute__((target("avx2,fma"))) static void fma_avx2(struct probe *probe)
{
    __m256 acc[12], x = _mm256_set1_ps(0.999f), y = _mm256_set1_ps(1e-3f);

    for (int32_t j = 0; j < 12; j++)
        acc[j] = _mm256_set1_ps((float)j);
    for (int32_t i = 0; i < FMA_ROUNDS; i++)
#pragma GCC unroll 12
        for (int32_t j = 0; j < 12; j++)
            acc[j] = _mm256_fmadd_ps(acc[j], x, y);
    for (int32_t j = 0; j < 12; j++)
        probe->sink += (uint64_t)_mm256_cvtss_f32(acc[j]);
}
#endif

static void fma_chunk(void *arg, int64_t chunk, int32_t worker)
{
    struct probe *probe = arg;

    (void)chunk;
    (void)worker;
#if defined(__x86_64__)
    if (probe->isa == MMQI_ISA_AVX512)
        fma_avx512(probe);
    else if (probe->isa == MMQI_ISA_AVX2)
        fma_avx2(probe);
#endif
}

/* Seconds of the fastest of several calls. */
static double fastest(void (*call)(void *arg), void *arg)
{
    uint64_t begin, took, best = UINT64_MAX, all = 0;

    for (int32_t i = 0; i < 200 && (i < 3 || all < 300000000u); i++) {
        begin = mmqi_os_nanoseconds();
        call(arg);
        took = mmqi_os_nanoseconds() - begin;
        best = took < best ? took : best;
        all += took;
    }
    return (double)best * 1e-9;
}

struct rates {
    double read, fma; /* bytes and floating-point operations per second; fma 0: unknown */
};

struct rate_call {
    struct target *t;
    struct probe *probe;
    int64_t chunks;
    mmqi_chunk_fn fn;
};

static void run_rate(void *arg)
{
    struct rate_call *call = arg;

    mmqi_pool_run(call->t->pool, call->chunks, call->fn, call->probe);
}

static struct rates measure_rates(struct target *t, int32_t isa)
{
    uint64_t *data = malloc(READ_BYTES);
    struct probe probe = {.data = data, .isa = isa};
    struct rate_call call = {t, &probe, READ_BYTES / READ_CHUNK, read_chunk};
    struct rates rates = {0};
    double lanes = isa == MMQI_ISA_AVX512 ? 16 : isa == MMQI_ISA_AVX2 ? 8 : 0;

    memset(data, 1, READ_BYTES);
    rates.read = READ_BYTES / fastest(run_rate, &call);
    call.fn = fma_chunk;
    call.chunks = 2 * mmqi_pool_threads(t->pool);
    rates.fma = 2.0 * 12 * lanes * FMA_ROUNDS * (double)call.chunks / fastest(run_rate, &call);
    free(data);
    printf("%-8s %-38s %10s %8.1f GFLOP/s %8.1f GB/s\n", isa_name(isa), "the machine: fma, reading",
           "", rates.fma * 1e-9, rates.read * 1e-9);
    return rates;
}

/* ---- the ops ---- */

struct timed {
    struct target *t;
    const struct timed_op *op;
    struct matrix a, b, y;
    struct weight w;
    float *vector[2];
    int32_t *index;
    struct mmqi_span *spans;
    struct mmqi_kv kv;
    struct matrix page;
};

struct timed_op {
    const char *name;
    void (*run)(struct timed *c);
    int64_t rows, cols, n; /* n: rows of the weight, or keys */
    int32_t format, n_heads, n_kv_heads, act;
};

static void time_matmul(struct timed *c)
{
    c->t->ops->matmul(c->t->stream, &c->y.mat, &c->a.mat, &c->w.mat, NULL);
}

static void time_add(struct timed *c)
{
    c->t->ops->add(c->t->stream, &c->y.mat, &c->a.mat, &c->b.mat);
}

static void time_layer_norm(struct timed *c)
{
    c->t->ops->layer_norm(c->t->stream, &c->y.mat, &c->a.mat, c->vector[0], c->vector[1], 1e-5f);
}

static void time_rms_norm(struct timed *c)
{
    c->t->ops->rms_norm(c->t->stream, &c->y.mat, &c->a.mat, c->vector[0], 1e-5f);
}

static void time_activate(struct timed *c)
{
    c->t->ops->activate(c->t->stream, &c->y.mat, &c->a.mat, c->op->act);
}

static void time_gate(struct timed *c)
{
    c->t->ops->gate(c->t->stream, &c->y.mat, &c->a.mat, &c->b.mat, c->op->act);
}

static void time_rope(struct timed *c)
{
    const struct mmqi_rope rope = {c->op->n_heads, (int32_t)c->op->cols / c->op->n_heads, 1,
                                   c->vector[0], NULL};

    c->t->ops->rope(c->t->stream, &c->a.mat, &rope, c->index);
}

static void time_attention(struct timed *c)
{
    c->t->ops->attention(c->t->stream, &c->y.mat, &c->a.mat, c->op->n_heads, &c->kv, c->spans,
                         0.125f);
}

static void time_pick(struct timed *c)
{
    c->t->ops->pick(c->t->stream, c->index, &c->a.mat);
}

#define GEMM(what, rows, cols, n, format)                                                          \
    {                                                                                              \
        "matmul " what, time_matmul, rows, cols, n, format, 0, 0, 0                                \
    }
/* Weights far beyond any cache, in rows of two lengths. */
#define GEMV(name, format)                                                                         \
    GEMM(name " [1 x 2048] x 98304", 1, 2048, 98304, format),                                      \
        GEMM(name " [1 x 5632] x 32768", 1, 5632, 32768, format)
/* Of a decoder like TinyLlama's. */
#define PREFILL(name, format)                                                                      \
    GEMM(name " [512 x 2048] x 5632", 512, 2048, 5632, format),                                    \
        GEMM(name " [512 x 5632] x 2048", 512, 5632, 2048, format)
#define ROWS(what, run, rows, cols, act)                                                           \
    {                                                                                              \
        what, run, rows, cols, 0, 0, 1, 1, act                                                     \
    }

static const struct timed_op timed_ops[] = {
    GEMM("f32 [208 x 576] x 1536", 208, 576, 1536, MMQI_FORMAT_F32),
    GEMM("bf16 [208 x 576] x 1536", 208, 576, 1536, MMQI_FORMAT_BF16),
    GEMM("int8 [208 x 576] x 1536", 208, 576, 1536, MMQI_FORMAT_INT8),
    GEMM("nf4 [208 x 576] x 1536", 208, 576, 1536, MMQI_FORMAT_NF4),
    GEMM("bf16 [208 x 1536] x 576", 208, 1536, 576, MMQI_FORMAT_BF16),
    GEMM("bf16 [208 x 576] x 192", 208, 576, 192, MMQI_FORMAT_BF16),
    GEMM("f32 [197 x 384] x 1536", 197, 384, 1536, MMQI_FORMAT_F32),
    GEMM("bf16 [197 x 384] x 1536", 197, 384, 1536, MMQI_FORMAT_BF16),
    GEMM("bf16 [8 x 576] x 1536", 8, 576, 1536, MMQI_FORMAT_BF16),
    GEMM("bf16 [4 x 576] x 1536", 4, 576, 1536, MMQI_FORMAT_BF16),
    GEMM("bf16 [2 x 576] x 1536", 2, 576, 1536, MMQI_FORMAT_BF16),
    GEMM("bf16 [1 x 576] x 1536", 1, 576, 1536, MMQI_FORMAT_BF16),
    GEMM("f32 [1 x 4096] x 16384", 1, 4096, 16384, MMQI_FORMAT_F32),
    GEMM("f16 [1 x 4096] x 32768", 1, 4096, 32768, MMQI_FORMAT_F16),
    GEMV("bf16", MMQI_FORMAT_BF16),
    GEMV("int8", MMQI_FORMAT_INT8),
    GEMV("nf4", MMQI_FORMAT_NF4),
    GEMV("nf4-32", MMQI_FORMAT_NF4_32),
    GEMV("nf4-nested", MMQI_FORMAT_NF4_NESTED),
    GEMV("fp4-128", MMQI_FORMAT_FP4_128),
    GEMV("int4-g32", MMQI_FORMAT_INT4_G32),
    GEMV("int4-g64", MMQI_FORMAT_INT4_G64),
    GEMV("int4-g128-bf16", MMQI_FORMAT_INT4_G128_BF16),
    PREFILL("f32", MMQI_FORMAT_F32),
    PREFILL("bf16", MMQI_FORMAT_BF16),
    PREFILL("int8", MMQI_FORMAT_INT8),
    PREFILL("nf4", MMQI_FORMAT_NF4),
    PREFILL("int4-g64", MMQI_FORMAT_INT4_G64),
    {"attention 197 of 197, 6 heads of 64", time_attention, 197, 384, 197, 0, 6, 6, 0},
    {"attention causal 208, 9/3 heads of 64", time_attention, 208, 576, 208, 0, 9, 3, 1},
    {"attention 1 of 300, 9/3 heads of 64", time_attention, 1, 576, 300, 0, 9, 3, 0},
    ROWS("add [208 x 576]", time_add, 208, 576, 0),
    ROWS("layer_norm [197 x 384]", time_layer_norm, 197, 384, 0),
    ROWS("rms_norm [208 x 576]", time_rms_norm, 208, 576, 0),
    ROWS("quick_gelu [197 x 1536]", time_activate, 197, 1536, MMQI_ACT_QUICK_GELU),
    ROWS("gelu [197 x 1536]", time_activate, 197, 1536, MMQI_ACT_GELU),
    ROWS("gelu_tanh [197 x 1536]", time_activate, 197, 1536, MMQI_ACT_GELU_TANH),
    ROWS("silu gate [208 x 1536]", time_gate, 208, 1536, MMQI_ACT_SILU),
    {"rope [208 x 576], 9 heads", time_rope, 208, 576, 0, 0, 9, 9, 0},
    ROWS("pick [1 x 49152]", time_pick, 1, 49152, 0),
};

/* Spans: everything, or causal where op->act is 1. */
static void prepare_attention(struct timed *c)
{
    const struct timed_op *op = c->op;
    struct mmqi_span *spans = malloc((size_t)op->rows * sizeof *spans);
    int32_t head_dim = (int32_t)(op->cols / op->n_heads);

    for (int32_t r = 0; r < op->rows; r++)
        spans[r] = (struct mmqi_span){0, op->act ? r + 1 : (int32_t)op->n};
    c->spans = device_copy(c->t, spans, (size_t)op->rows * sizeof *spans);
    c->page = matrix_random(c->t, 2 * op->n, (int64_t)op->n_kv_heads * head_dim, 0, 5, 1.0f);
    c->kv = (struct mmqi_kv){.pages = c->page.mat.data,
                             .page_rows = op->n,
                             .n_heads = op->n_kv_heads,
                             .head_dim = head_dim};
    free(spans);
}

static void call_timed(void *arg)
{
    struct timed *c = arg;

    c->op->run(c);
}

static void time_op(struct target *t, int32_t isa, const struct timed_op *op, struct rates rates)
{
    struct timed c = {.t = t, .op = op};
    int32_t *positions = calloc((size_t)op->rows, sizeof *positions);
    double seconds, flops = 0, bytes = 0;
    char flop_text[48] = "", byte_text[48] = "";

    c.a = matrix_random(t, op->rows, op->cols, 0, 1, 1.0f);
    c.b = matrix_random(t, op->rows, op->cols, 0, 2, 1.0f);
    c.y = matrix_new(t, op->rows, op->run == time_matmul ? op->n : op->cols, 0);
    c.vector[0] = device_random(t, op->cols, 3, 1.0f);
    c.vector[1] = device_random(t, op->cols, 4, 1.0f);
    for (int32_t r = 0; r < op->rows; r++)
        positions[r] = r;
    c.index = device_copy(t, positions, (size_t)op->rows * sizeof *positions);
    if (op->run == time_matmul) {
        c.w = weight_new(t, op->format, op->n, op->cols, 6);
        flops = 2.0 * (double)op->rows * (double)op->cols * (double)op->n;
        bytes = (double)c.w.layout.bytes;
    } else if (op->run == time_attention) {
        prepare_attention(&c);
        flops = 4.0 * (double)op->rows * (double)op->cols * (double)op->n * (op->act ? 0.5 : 1.0);
    } else {
        bytes = 8.0 * (double)op->rows * (double)op->cols;
    }
    seconds = fastest(call_timed, &c);
    if (flops > 0)
        snprintf(flop_text, sizeof flop_text, "%8.1f GFLOP/s (%3.0f%%)", flops / seconds * 1e-9,
                 rates.fma > 0 ? 100 * flops / seconds / rates.fma : 0.0);
    if (bytes > 0)
        snprintf(byte_text, sizeof byte_text, "%8.1f GB/s (%3.0f%%)", bytes / seconds * 1e-9,
                 100 * bytes / seconds / rates.read);
    printf("%-8s %-38s %8.1fus %23s %20s\n", isa_name(isa), op->name, seconds * 1e6, flop_text,
           byte_text);
    fflush(stdout);
    if (c.w.block)
        weight_free(t, &c.w);
    if (c.spans) {
        device_free(t, c.spans);
        matrix_free(t, &c.page);
    }
    device_free(t, c.index);
    device_free(t, c.vector[0]);
    device_free(t, c.vector[1]);
    matrix_free(t, &c.a);
    matrix_free(t, &c.b);
    matrix_free(t, &c.y);
    free(positions);
}

struct timed_choice {
    const char *isa, *name; /* NULL: all */
    int32_t threads;        /* 0: one per processor */
};

static void time_all(const struct timed_choice *choice)
{
    struct target t;
    struct rates rates;

    for (int32_t i = 0; i < N_ISAS; i++) {
        if (choice->isa && strcmp(choice->isa, isa_name(all_isas[i])) != 0)
            continue;
        if (!target_open(&t, all_isas[i], choice->threads, 49152))
            continue;
        printf("%s\n", t.backend->describe(t.device));
        rates = measure_rates(&t, all_isas[i]);
        for (size_t o = 0; o < sizeof timed_ops / sizeof *timed_ops; o++)
            if (!choice->name || strstr(timed_ops[o].name, choice->name))
                time_op(&t, all_isas[i], &timed_ops[o], rates);
        target_close(&t);
    }
}

#endif
