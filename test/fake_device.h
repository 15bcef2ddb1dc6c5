/*
 * Devices that are not there, for tests: they compute as the CPU does, in
 * memory of their own that nobody may touch while they are not called.
 *
 * Each device has a region of addresses that can be read and written only
 * inside of its functions, so that a pointer to it that the host follows ends
 * the test, and so does one to another device. Fresh memory is all NaN.
 * Addresses that are handed in must lie in blocks that were taken. What was
 * taken is counted, and the nth allocation or call of a device can fail.
 */
#ifndef MMQ_TEST_FAKE_DEVICE_H
#define MMQ_TEST_FAKE_DEVICE_H

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "backend/backend.h"
#include "backend/packer.h"
#include "core/status.h"
#include "graph/graph.h"

enum { FAKE_DEVICES = 3, FAKE_BLOCKS = 4096, FAKE_REGION = 64 << 20 };

/* The fault of a device, and what it did; kept while it is closed. */
struct fake_state {
    struct mmqi_fault fault;
    int64_t n_calls, n_allocs; /* ever */
    uint64_t taken, peak;      /* bytes, streams counted */
    int n_blocks, n_streams, n_open;
    int n_executed; /* segments */
};

static struct fake_state fake_states[FAKE_DEVICES];

struct fake_block {
    size_t begin, end;
};

struct fake_device {
    struct mmqi_device *inner;
    struct mmqi_pool *pool;
    struct fake_state *state;
    uint8_t *region;
    struct fake_block blocks[FAKE_BLOCKS]; /* sorted */
    int n_blocks, entered;
    bool lost;
    char text[32];
};

struct fake_stream {
    struct fake_device *device;
    struct mmqi_stream *inner;
    size_t bytes;
};

static struct fake_device *fake_of(const struct mmqi_device *device)
{
    return (struct fake_device *)device;
}

static void fake_enter(struct fake_device *d)
{
    if (d->entered++ == 0)
        ck_assert_int_eq(mprotect(d->region, FAKE_REGION, PROT_READ | PROT_WRITE), 0);
}

static void fake_leave(struct fake_device *d)
{
    if (--d->entered == 0)
        ck_assert_int_eq(mprotect(d->region, FAKE_REGION, PROT_NONE), 0);
}

/* [at, at + size) is inside one block of the device. */
static void fake_own(const struct fake_device *d, const void *at, size_t size)
{
    size_t begin = (size_t)((const uint8_t *)at - d->region);

    for (int i = 0; i < d->n_blocks; i++)
        if (begin >= d->blocks[i].begin && begin < d->blocks[i].end + (size == 0)) {
            ck_assert_uint_le(size, d->blocks[i].end - begin);
            return;
        }
    ck_abort_msg("%s: %p is none of its addresses", d->text, at);
}

/* ---- faults ---- */

static int32_t fake_call(struct fake_device *d, bool is_alloc)
{
    struct mmqi_fault *fault = &d->state->fault;
    int32_t kind = fault->kind;

    d->state->n_calls++;
    d->state->n_allocs += is_alloc;
    if (d->lost)
        return mmqi_fail(MMQ_ERR_DEVICE, "%s: lost", d->text);
    if (kind == MMQI_FAULT_NONE || (kind == MMQI_FAULT_ALLOC && !is_alloc) || --fault->nth > 0)
        return MMQ_OK;
    fault->kind = MMQI_FAULT_NONE;
    if (kind == MMQI_FAULT_ALLOC)
        return mmqi_fail(MMQ_ERR_NOMEM, "%s: refuses memory", d->text);
    d->lost = kind == MMQI_FAULT_LOST;
    return mmqi_fail(MMQ_ERR_DEVICE, "%s: a call fails", d->text);
}

/* ---- devices ---- */

static int32_t fake_count(const struct mmqi_backend_host *host, int32_t *n)
{
    (void)host;
    *n = FAKE_DEVICES;
    return MMQ_OK;
}

static int32_t fake_info(const struct mmqi_backend_host *host, int32_t index,
                         struct mmqi_device_info *info)
{
    (void)host;
    memset(info, 0, sizeof *info);
    snprintf(info->name, sizeof info->name, "fake number %d", (int)index);
    info->total = FAKE_REGION;
    return MMQ_OK;
}

static int32_t fake_open(struct mmqi_device **out, const struct mmqi_device_options *options)
{
    struct mmqi_device_options inner = *options;
    struct fake_device *d;
    int32_t status;

    *out = NULL;
    ck_assert_int_lt(options->index, FAKE_DEVICES);
    d = calloc(1, sizeof *d);
    ck_assert_ptr_nonnull(d);
    inner.index = 0;
    status = mmqi_cpu_backend.open(&d->inner, &inner);
    if (status != MMQ_OK) {
        free(d);
        return status;
    }
    d->region =
        mmap(NULL, FAKE_REGION, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    ck_assert_ptr_ne(d->region, MAP_FAILED);
    d->pool = options->pool;
    d->state = &fake_states[options->index];
    d->state->n_open++;
    snprintf(d->text, sizeof d->text, "fake:%d", (int)options->index);
    *out = (struct mmqi_device *)d;
    return MMQ_OK;
}

static void fake_close(struct mmqi_device *device)
{
    struct fake_device *d = fake_of(device);

    if (!d)
        return;
    ck_assert_int_eq(d->n_blocks, 0);
    ck_assert_int_eq(munmap(d->region, FAKE_REGION), 0);
    mmqi_cpu_backend.close(d->inner);
    d->state->n_open--;
    free(d);
}

static const char *fake_describe(const struct mmqi_device *device)
{
    return fake_of(device)->text;
}

/* ---- memory ---- */

static void fake_count_bytes(struct fake_state *state, size_t size)
{
    state->taken += size;
    if (state->taken > state->peak)
        state->peak = state->taken;
}

static int32_t fake_alloc(struct mmqi_device *device, void **out, size_t size)
{
    struct fake_device *d = fake_of(device);
    int32_t status = fake_call(d, true), at = 0;
    size_t begin = 0;

    *out = NULL;
    if (status != MMQ_OK)
        return status;
    ck_assert_int_lt(d->n_blocks, FAKE_BLOCKS);
    for (; at < d->n_blocks && d->blocks[at].begin - begin < size + 64; at++)
        begin = (d->blocks[at].end + 127) / 64 * 64;
    ck_assert_uint_le(begin + size, FAKE_REGION);
    memmove(d->blocks + at + 1, d->blocks + at, (size_t)(d->n_blocks - at) * sizeof *d->blocks);
    d->blocks[at] = (struct fake_block){begin, begin + size};
    d->n_blocks++;
    d->state->n_blocks++;
    fake_count_bytes(d->state, size);
    *out = d->region + begin;
    fake_enter(d);
    memset(*out, 0xff, size);
    fake_leave(d);
    return MMQ_OK;
}

static void fake_free(struct mmqi_device *device, void *memory)
{
    struct fake_device *d = fake_of(device);
    size_t begin = (size_t)((uint8_t *)memory - d->region);

    for (int i = 0; memory && i < d->n_blocks; i++)
        if (d->blocks[i].begin == begin) {
            d->state->taken -= d->blocks[i].end - begin;
            d->state->n_blocks--;
            d->n_blocks--;
            memmove(d->blocks + i, d->blocks + i + 1,
                    (size_t)(d->n_blocks - i) * sizeof *d->blocks);
            return;
        }
    if (memory)
        ck_abort_msg("%s: frees what it never gave", d->text);
}

static int32_t fake_upload(struct mmqi_device *device, void *dst, const void *src, size_t size)
{
    struct fake_device *d = fake_of(device);
    int32_t status = fake_call(d, false);

    if (status != MMQ_OK)
        return status;
    fake_own(d, dst, size);
    fake_enter(d);
    memcpy(dst, src, size);
    fake_leave(d);
    return MMQ_OK;
}

static int32_t fake_download(struct mmqi_device *device, void *dst, const void *src, size_t size)
{
    struct fake_device *d = fake_of(device);
    int32_t status = fake_call(d, false);

    if (status != MMQ_OK)
        return status;
    fake_own(d, src, size);
    fake_enter(d);
    memcpy(dst, src, size);
    fake_leave(d);
    return MMQ_OK;
}

static int32_t fake_copy(struct mmqi_device *device, void *dst, const void *src, size_t size)
{
    struct fake_device *d = fake_of(device);
    int32_t status = fake_call(d, false);

    if (status != MMQ_OK)
        return status;
    fake_own(d, dst, size);
    fake_own(d, src, size);
    fake_enter(d);
    memmove(dst, src, size);
    fake_leave(d);
    return MMQ_OK;
}

static int32_t fake_pack(struct mmqi_device *device, struct mmqi_wmat *w, void *block,
                         const struct mmqi_layout *layout)
{
    struct fake_device *d = fake_of(device);
    int32_t status = fake_call(d, false);

    if (status != MMQ_OK)
        return status;
    fake_own(d, block, layout->bytes);
    return mmqi_cpu_backend.pack(d->inner, w, block, layout);
}

static int32_t fake_pack_rows(struct mmqi_device *device, const struct mmqi_pack_job *job)
{
    struct fake_device *d = fake_of(device);
    int32_t status = fake_call(d, false);

    if (status != MMQ_OK)
        return status;
    fake_own(d, job->w, (size_t)(job->rows * job->cols) * sizeof *job->w);
    fake_enter(d);
    mmqi_pack_rows(d->pool, job);
    fake_leave(d);
    return MMQ_OK;
}

static void fake_memory(struct mmqi_device *device, struct mmqi_device_memory *memory)
{
    const struct fake_device *d = fake_of(device);

    memset(memory, 0, sizeof *memory);
    memory->taken = d->state->taken;
    memory->peak = d->state->peak;
    memory->driver = 12345;
    memory->total = FAKE_REGION;
}

static int32_t fake_measure(struct mmqi_device *device, uint64_t bytes, struct mmqi_rates *rates)
{
    return mmqi_cpu_backend.measure(fake_of(device)->inner, bytes, rates);
}

static int64_t fake_fault(struct mmqi_device *device, struct mmqi_fault fault)
{
    struct fake_state *state = fake_of(device)->state;

    state->fault = fault;
    return fault.kind == MMQI_FAULT_ALLOC ? state->n_allocs : state->n_calls;
}

/* ---- streams ---- */

/* The CPU has one mode: "fast" streams of the fake compute the same. */
static struct mmqi_stream_options fake_exact(const struct mmqi_stream_options *options)
{
    struct mmqi_stream_options exact = *options;

    exact.mode = MMQI_MODE_EXACT;
    return exact;
}

static size_t fake_stream_bytes(const struct mmqi_device *device,
                                const struct mmqi_stream_options *options)
{
    struct mmqi_stream_options exact = fake_exact(options);

    return mmqi_cpu_backend.stream_bytes(fake_of(device)->inner, &exact);
}

static int32_t fake_stream_open(struct mmqi_device *device,
                                const struct mmqi_stream_options *options, struct mmqi_stream **out)
{
    struct fake_device *d = fake_of(device);
    struct mmqi_stream_options exact = fake_exact(options);
    int32_t status = fake_call(d, true);
    struct fake_stream *s;

    *out = NULL;
    if (status != MMQ_OK)
        return status;
    s = calloc(1, sizeof *s);
    ck_assert_ptr_nonnull(s);
    status = mmqi_cpu_backend.stream_open(d->inner, &exact, &s->inner);
    if (status != MMQ_OK) {
        free(s);
        return status;
    }
    s->device = d;
    s->bytes = fake_stream_bytes(device, options);
    fake_count_bytes(d->state, s->bytes);
    d->state->n_streams++;
    *out = (struct mmqi_stream *)s;
    return MMQ_OK;
}

static int32_t fake_stream_wait(struct mmqi_stream *stream)
{
    return fake_call(((struct fake_stream *)stream)->device, false);
}

static int32_t fake_note(struct mmqi_stream *stream, int32_t note, const void *src, size_t size)
{
    struct fake_stream *s = (struct fake_stream *)stream;
    int32_t status = fake_call(s->device, false);

    if (status != MMQ_OK)
        return status;
    fake_enter(s->device);
    status = mmqi_cpu_backend.note(s->inner, note, src, size);
    fake_leave(s->device);
    return status;
}

static int32_t fake_read_note(struct mmqi_stream *stream, int32_t note, void *dst, size_t size)
{
    struct fake_stream *s = (struct fake_stream *)stream;
    int32_t status = fake_call(s->device, false);

    return status == MMQ_OK ? mmqi_cpu_backend.read_note(s->inner, note, dst, size) : status;
}

static void fake_stream_close(struct mmqi_stream *stream)
{
    struct fake_stream *s = (struct fake_stream *)stream;

    if (!s)
        return;
    s->device->state->taken -= s->bytes;
    s->device->state->n_streams--;
    mmqi_cpu_backend.stream_close(s->inner);
    free(s);
}

/* ---- running ---- */

static void fake_check_weight(const struct fake_device *d, const struct mmqi_run *run, int32_t w)
{
    if (w >= 0)
        fake_own(d, run->weights[w].mat.part[0], 1);
}

/* Everything that the segments read or write is the device's own. */
static void fake_check_run(const struct fake_device *d, const struct mmqi_graph *graph,
                           const struct mmqi_plan *plan, const struct mmqi_run *run, int32_t begin,
                           int32_t end)
{
    uint64_t arena_bytes = 1;

    for (int32_t s = begin; s < end; s++)
        for (int32_t i = mmqi_graph_segment_at(graph, s)->begin;
             i < mmqi_graph_segment_at(graph, s)->end; i++) {
            const struct mmqi_node *node = mmqi_graph_node_at(graph, i);
            const int32_t values[3] = {node->out, node->in[0], node->in[1]};

            for (int k = 0; k < 3; k++)
                if (values[k] >= 0 && mmqi_plan_end(plan, values[k]) > arena_bytes)
                    arena_bytes = mmqi_plan_end(plan, values[k]);
        }
    fake_own(d, run->arena, (size_t)arena_bytes);
    fake_own(d, run->spans, 1);
    for (int i = 0; i < MMQI_N_INDEX; i++)
        if (run->index[i])
            fake_own(d, run->index[i], 1);
    if (run->window_spans)
        fake_own(d, run->window_spans, 1);
    if (run->tap_weights)
        fake_own(d, run->tap_weights, 1);
    for (int i = 0; i < MMQI_MAX_BINDINGS; i++)
        if (run->bound[i])
            fake_own(d, run->bound[i], 1);
    for (int32_t s = begin; s < end; s++) {
        const struct mmqi_segment *segment = mmqi_graph_segment_at(graph, s);

        for (int32_t i = segment->begin; i < segment->end; i++) {
            const struct mmqi_node *node = mmqi_graph_node_at(graph, i);

            fake_check_weight(d, run, node->weight);
            fake_check_weight(d, run, node->bias);
            if (node->layer >= 0) {
                fake_own(d, run->kv[node->layer].pages, 1);
                fake_own(d, run->kv[node->layer].table, 1);
            }
        }
    }
}

static int32_t fake_execute(struct mmqi_stream *stream, const struct mmqi_graph *graph,
                            const struct mmqi_plan *plan, const struct mmqi_run *run, int32_t begin,
                            int32_t end)
{
    struct fake_stream *s = (struct fake_stream *)stream;
    int32_t status = fake_call(s->device, false);

    if (status != MMQ_OK)
        return status;
    fake_check_run(s->device, graph, plan, run, begin, end);
    fake_enter(s->device);
    status = mmqi_cpu_backend.execute(s->inner, graph, plan, run, begin, end);
    fake_leave(s->device);
    s->device->state->n_executed += end - begin;
    return status;
}

#define FAKE_BACKEND(has_fast)                                                                     \
    {                                                                                              \
        .name = "fake", .host_memory = false, .fast = has_fast, .count = fake_count,               \
        .info = fake_info, .open = fake_open, .close = fake_close, .describe = fake_describe,      \
        .alloc = fake_alloc, .free = fake_free, .upload = fake_upload, .download = fake_download,  \
        .copy = fake_copy, .pack = fake_pack, .pack_rows = fake_pack_rows, .memory = fake_memory,  \
        .measure = fake_measure, .fault = fake_fault, .stream_open = fake_stream_open,             \
        .stream_wait = fake_stream_wait, .stream_close = fake_stream_close, .note = fake_note,     \
        .read_note = fake_read_note, .stream_bytes = fake_stream_bytes, .execute = fake_execute,   \
    }

static const struct mmqi_backend fake_backend = FAKE_BACKEND(false);
__attribute__((unused)) static const struct mmqi_backend fake_fast_backend = FAKE_BACKEND(true);

#endif
