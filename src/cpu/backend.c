/*
 * The CPU as a device: choosing the instruction set, memory, streams, and
 * the two tables.
 */
#include <stdio.h>
#include <string.h>
#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include "backend/packer.h"
#include "core/mem.h"
#include "cpu/cpu.h"
#include "graph/graph.h"

const struct mmqi_cpu_kernels mmqi_cpu_kernels_c = {
    .name = "c",
    .isa = MMQI_ISA_C,
    .add = mmqi_c_add,
    .layer_norm = mmqi_c_layer_norm,
    .rms_norm = mmqi_c_rms_norm,
    .activate = mmqi_c_activate,
    .gate = mmqi_c_gate,
    .rotate = mmqi_c_rotate,
    .matmul = mmqi_c_matmul,
    .attention = mmqi_c_attention,
    .pick = mmqi_c_pick,
};

static const struct mmqi_ops cpu_ops = {
    .embed = mmqi_cpu_embed,
    .place_rows = mmqi_cpu_place_rows,
    .copy = mmqi_cpu_copy,
    .add = mmqi_cpu_add,
    .layer_norm = mmqi_cpu_layer_norm,
    .rms_norm = mmqi_cpu_rms_norm,
    .matmul = mmqi_cpu_matmul,
    .activate = mmqi_cpu_activate,
    .gate = mmqi_cpu_gate,
    .rope = mmqi_cpu_rope,
    .store_kv = mmqi_cpu_store_kv,
    .attention = mmqi_cpu_attention,
    .patches = mmqi_cpu_patches,
    .interpolate = mmqi_cpu_interpolate,
    .pick = mmqi_cpu_pick,
    .advance = mmqi_cpu_advance,
};

#if defined(__x86_64__)
/* Register state that the operating system saves (XCR0): bits 1, 2 are SSE and AVX, 5..7 AVX-512.
 * The compiler's own builtins would keep a table that every user of the process shares. */
static uint32_t saved_state(void)
{
    uint32_t a, b, c, d;

    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_OSXSAVE))
        return 0;
    __asm__ volatile("xgetbv" : "=a"(a), "=d"(d) : "c"(0));
    return a;
}

static bool has_avx2(void)
{
    const uint32_t basic = bit_FMA | bit_AVX | bit_F16C;
    uint32_t a, b, c, d;

    if ((saved_state() & 6) != 6 || !__get_cpuid(1, &a, &b, &c, &d) || (c & basic) != basic)
        return false;
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b & bit_AVX2);
}

static bool has_avx512(void)
{
    const uint32_t wanted = bit_AVX512F | bit_AVX512BW | bit_AVX512VL | bit_AVX512DQ;
    uint32_t a, b, c, d;

    return has_avx2() && (saved_state() & 0xe6) == 0xe6 &&
           __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b & wanted) == wanted;
}
#endif

/* The kernels of an instruction set, or NULL where this build or this machine lacks it. */
static const struct mmqi_cpu_kernels *kernels_of(int32_t isa)
{
    switch (isa) {
    case MMQI_ISA_C:
        return &mmqi_cpu_kernels_c;
#if defined(__x86_64__)
    case MMQI_ISA_AVX2:
        return has_avx2() ? &mmqi_cpu_kernels_avx2 : NULL;
    case MMQI_ISA_AVX512:
        return has_avx512() ? &mmqi_cpu_kernels_avx512 : NULL;
#endif
    default:
        return NULL;
    }
}

static const char *isa_name(int32_t isa)
{
    static const char *const names[] = {"automatic", "c", "avx2", "avx512"};

    return isa >= 0 && isa <= MMQI_ISA_AVX512 ? names[isa] : "unknown";
}

static int32_t cpu_count(const struct mmqi_backend_host *host, int32_t *n)
{
    (void)host;
    *n = 1;
    return MMQ_OK;
}

static int32_t cpu_info(const struct mmqi_backend_host *host, int32_t index,
                        struct mmqi_device_info *info)
{
    (void)host;
    memset(info, 0, sizeof *info);
    if (index != 0)
        return mmqi_fail(MMQ_ERR_NO_DEVICE, "cpu:%d: there is only cpu:0", (int)index);
    snprintf(info->name, sizeof info->name, "cpu");
    return MMQ_OK;
}

static int32_t cpu_open(struct mmqi_device **out, const struct mmqi_device_options *options)
{
    const struct mmqi_cpu_kernels *kernels = NULL;
    struct mmqi_device *device;

    *out = NULL;
    if (options->index != 0)
        return mmqi_fail(MMQ_ERR_NO_DEVICE, "cpu:%d: there is only cpu:0", (int)options->index);
    if (!options->pool)
        return mmqi_fail(MMQ_ERR_INVALID, "the CPU needs a thread pool");
    if (options->isa != MMQI_ISA_AUTO)
        kernels = kernels_of(options->isa);
    for (int32_t isa = MMQI_ISA_AVX512; options->isa == MMQI_ISA_AUTO && !kernels; isa--)
        kernels = kernels_of(isa);
    if (!kernels)
        return mmqi_fail(MMQ_ERR_UNSUPPORTED, "instruction set %d (%s) is not here",
                         (int)options->isa, isa_name(options->isa));
    device = mmqi_calloc(1, sizeof *device);
    if (!device)
        return mmqi_fail(MMQ_ERR_NOMEM, "no memory for the CPU device");
    device->kernels = kernels;
    device->pool = options->pool;
    snprintf(device->text, sizeof device->text, "cpu %s, %d thread%s", kernels->name,
             (int)mmqi_pool_threads(options->pool),
             mmqi_pool_threads(options->pool) == 1 ? "" : "s");
    *out = device;
    return MMQ_OK;
}

static void cpu_close(struct mmqi_device *device)
{
    mmqi_free(device);
}

static const char *cpu_describe(const struct mmqi_device *device)
{
    return device->text;
}

static int32_t cpu_alloc(struct mmqi_device *device, void **out, size_t size)
{
    (void)device;
    *out = mmqi_alloc_aligned(size);
    if (!*out)
        return mmqi_fail(MMQ_ERR_NOMEM, "cpu: no memory for %zu bytes", size);
    return MMQ_OK;
}

static void cpu_free(struct mmqi_device *device, void *memory)
{
    (void)device;
    mmqi_free(memory);
}

/* Memory of the CPU is the host's: upload, download and copy are one thing. Ranges may overlap. */
static int32_t cpu_move(struct mmqi_device *device, void *dst, const void *src, size_t size)
{
    (void)device;
    if (size > 0)
        memmove(dst, src, size);
    return MMQ_OK;
}

static int32_t cpu_pack(struct mmqi_device *device, struct mmqi_wmat *w, void *block,
                        const struct mmqi_layout *layout)
{
    (void)device;
    if (!mmqi_format_info(w->format))
        return mmqi_fail(MMQ_ERR_UNSUPPORTED, "cpu: weight format %d is unknown", (int)w->format);
    memset(w->part, 0, sizeof w->part);
    for (int32_t i = 0; i < layout->n_parts; i++)
        w->part[i] = (const uint8_t *)block + layout->part[i].offset;
    return MMQ_OK;
}

static int32_t cpu_pack_rows(struct mmqi_device *device, const struct mmqi_pack_job *job)
{
    mmqi_pack_rows(device->pool, job);
    return MMQ_OK;
}

/* The greatest need of: unpacked panels, a block of keys turned on its side, two rows. */
size_t mmqi_cpu_scratch(int64_t max_cols)
{
    int64_t cols = mmqi_cpu_ceil_div(max_cols < 1 ? 1 : max_cols, MMQI_LANES) * MMQI_LANES;
    int64_t panel = MMQI_PANEL_ROWS * (cols < MMQI_MAX_PANEL_COLS ? cols : MMQI_MAX_PANEL_COLS);
    int64_t panels = MMQI_MAX_PANELS * panel, floats = 2 * cols;
    int64_t keys = MMQI_KEY_BLOCK * (cols < MMQI_MAX_VECTOR_HEAD ? cols : MMQI_MAX_VECTOR_HEAD);

    if (panels > MMQI_PANEL_FLOATS)
        panels = panel > MMQI_PANEL_FLOATS ? panel : MMQI_PANEL_FLOATS;
    floats = floats < panels ? panels : floats;
    return (size_t)(floats < keys ? keys : floats);
}

/* The host's memory is the host's to count. */
static void cpu_memory(struct mmqi_device *device, struct mmqi_device_memory *memory)
{
    (void)device;
    memset(memory, 0, sizeof *memory);
}

/* The CPU calls no driver: nothing of its own can fail. */
static int64_t cpu_fault(struct mmqi_device *device, struct mmqi_fault fault)
{
    (void)device;
    (void)fault;
    return 0;
}

static size_t cpu_stream_bytes(const struct mmqi_device *device,
                               const struct mmqi_stream_options *options)
{
    return sizeof(struct mmqi_stream) + mmqi_cpu_scratch(options->max_cols) *
                                            (size_t)mmqi_pool_threads(device->pool) * sizeof(float);
}

static void cpu_stream_close(struct mmqi_stream *stream)
{
    if (!stream)
        return;
    mmqi_free(stream->scratch);
    mmqi_free(stream);
}

static int32_t cpu_stream_open(struct mmqi_device *device,
                               const struct mmqi_stream_options *options, struct mmqi_stream **out)
{
    size_t bytes = cpu_stream_bytes(device, options);
    struct mmqi_stream *stream;

    *out = NULL;
    if (options->mode != MMQI_MODE_EXACT)
        return mmqi_fail(MMQ_ERR_UNSUPPORTED, "cpu: there is no mode but 'exact'");
    stream = mmqi_calloc(1, sizeof *stream);
    if (stream)
        stream->scratch = mmqi_alloc_aligned(bytes - sizeof *stream);
    if (!stream || !stream->scratch) {
        cpu_stream_close(stream);
        return mmqi_fail(MMQ_ERR_NOMEM, "cpu: no memory for a stream of %zu bytes", bytes);
    }
    stream->kernels = device->kernels;
    stream->pool = device->pool;
    stream->scratch_stride = mmqi_cpu_scratch(options->max_cols);
    *out = stream;
    return MMQ_OK;
}

/* Every op is done when it returns. */
static int32_t cpu_stream_wait(struct mmqi_stream *stream)
{
    (void)stream;
    return MMQ_OK;
}

static int32_t cpu_note(struct mmqi_stream *stream, int32_t note, const void *src, size_t size)
{
    memcpy(stream->notes[note], src, size);
    return MMQ_OK;
}

static int32_t cpu_read_note(struct mmqi_stream *stream, int32_t note, void *dst, size_t size)
{
    memcpy(dst, stream->notes[note], size);
    return MMQ_OK;
}

static int32_t cpu_execute(struct mmqi_stream *stream, const struct mmqi_graph *graph,
                           const struct mmqi_plan *plan, const struct mmqi_run *run, int32_t begin,
                           int32_t end)
{
    return mmqi_graph_execute(stream, &cpu_ops, graph, plan, run, begin, end);
}

const struct mmqi_backend mmqi_cpu_backend = {
    .name = "cpu",
    .host_memory = true,
    .count = cpu_count,
    .info = cpu_info,
    .open = cpu_open,
    .close = cpu_close,
    .describe = cpu_describe,
    .alloc = cpu_alloc,
    .free = cpu_free,
    .upload = cpu_move,
    .download = cpu_move,
    .copy = cpu_move,
    .pack = cpu_pack,
    .pack_rows = cpu_pack_rows,
    .memory = cpu_memory,
    .measure = mmqi_cpu_measure,
    .fault = cpu_fault,
    .stream_open = cpu_stream_open,
    .stream_wait = cpu_stream_wait,
    .stream_close = cpu_stream_close,
    .note = cpu_note,
    .read_note = cpu_read_note,
    .stream_bytes = cpu_stream_bytes,
    .execute = cpu_execute,
    .ops = &cpu_ops,
};
