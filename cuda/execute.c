/*
 * Running graphs. A run of one row is compiled: the launches of a decoding
 * step are captured once as a CUDA graph and launched as one from then on.
 *
 * A run is captured when it is seen for the second time, so that the first
 * has loaded the kernels. Two runs are the same where all that capture fixes
 * is: the graph's segments, the row counts and every address. What a step
 * changes (ids, positions, slots, spans, tables) lies behind those addresses.
 */
#include <string.h>

#include "cuda/device.h"

enum { COMPILED_ROWS = 1 }; /* up to this many rows a run is compiled */

struct compiled {
    uint64_t key; /* 0: the place is free */
    cudaGraphExec_t exec;
    bool plain; /* it could not be captured */
};

struct mmqi_cuda_compiled {
    struct compiled list[MMQI_CUDA_COMPILED];
    int32_t turn; /* the place to take next */
};

/* What execute was asked for. */
struct call {
    struct mmqi_stream *stream;
    const struct mmqi_graph *graph;
    const struct mmqi_plan *plan;
    const struct mmqi_run *run;
    int32_t begin, end;
};

/* All of it is launched when this returns; of a run that failed, no product waits on. */
static int32_t run_plain(const struct call *c)
{
    int32_t status = c->stream->device->host->graph_execute(c->stream, &mmqi_cuda_ops, c->graph,
                                                            c->plan, c->run, c->begin, c->end);

    if (status != MMQ_OK)
        mmqi_cuda_forget_waiting(c->stream);
    return status == MMQ_OK ? mmqi_cuda_flush(c->stream) : status;
}

/* ---- what a capture fixes ---- */

static void mix(uint64_t *key, uint64_t value)
{
    *key = (*key ^ value) * UINT64_C(0x9e3779b97f4a7c15);
    *key ^= *key >> 29;
}

static void mix_address(uint64_t *key, const void *address)
{
    mix(key, (uint64_t)(uintptr_t)address);
}

static void mix_weight(uint64_t *key, const struct mmqi_run_weight *w)
{
    for (int32_t i = 0; i < MMQI_MAX_PARTS; i++)
        mix_address(key, w->mat.part[i]);
    mix_address(key, w->vector);
}

static void mix_cache(uint64_t *key, const struct mmqi_kv *kv)
{
    mix_address(key, kv->pages);
    mix_address(key, kv->table);
    mix(key, (uint64_t)kv->page_stride);
    mix(key, (uint64_t)kv->page_rows);
}

static void mix_node(uint64_t *key, const struct mmqi_run *run, const struct mmqi_node *node)
{
    if (node->weight >= 0)
        mix_weight(key, &run->weights[node->weight]);
    if (node->bias >= 0)
        mix_weight(key, &run->weights[node->bias]);
    if (node->layer >= 0 && run->kv)
        mix_cache(key, &run->kv[node->layer]);
}

static uint64_t key_of(const struct call *c)
{
    const struct mmqi_backend_host *host = c->stream->device->host;
    const struct mmqi_run *run = c->run;
    uint64_t key = 1;
    int32_t i;

    mix_address(&key, c->graph);
    mix_address(&key, c->plan);
    mix(&key, (uint64_t)(uint32_t)c->begin << 32 | (uint32_t)c->end);
    for (i = 0; i < MMQI_N_SYMBOLS; i++)
        mix(&key, (uint64_t)run->rows[i]);
    mix_address(&key, run->arena);
    mix_address(&key, run->spans);
    mix_address(&key, run->window_spans);
    mix_address(&key, run->tap_weights);
    mix_address(&key, run->next ? run->next->id : NULL);
    mix(&key, (uint64_t)(uint32_t)run->picture_height << 32 | (uint32_t)run->picture_width);
    mix(&key, (uint64_t)(uint32_t)run->picture_frames);
    for (i = 0; i < MMQI_MAX_BINDINGS; i++)
        mix_address(&key, run->bound[i]);
    for (i = 0; i < MMQI_N_INDEX; i++)
        mix_address(&key, run->index[i]);
    for (int32_t s = c->begin; s < c->end; s++) {
        const struct mmqi_segment *segment = host->segment_at(c->graph, s);

        for (i = segment->begin; i < segment->end; i++)
            mix_node(&key, run, host->node_at(c->graph, i));
    }
    return key | 1;
}

/* ---- the graphs of a stream ---- */

static void forget(struct compiled *compiled)
{
    if (compiled->exec)
        cudaGraphExecDestroy(compiled->exec);
    memset(compiled, 0, sizeof *compiled);
}

void mmqi_cuda_forget_compiled(struct mmqi_stream *stream)
{
    if (!stream->compiled)
        return;
    for (int32_t i = 0; i < MMQI_CUDA_COMPILED; i++)
        forget(&stream->compiled->list[i]);
    stream->device->host->free(stream->compiled);
    stream->compiled = NULL;
}

static struct compiled *find(struct mmqi_stream *stream, uint64_t key)
{
    for (int32_t i = 0; stream->compiled && i < MMQI_CUDA_COMPILED; i++)
        if (stream->compiled->list[i].key == key)
            return &stream->compiled->list[i];
    return NULL;
}

/* Take a place for the run that was just made plainly; what lay there may still run. */
static int32_t remember(struct mmqi_stream *stream, uint64_t key)
{
    struct mmqi_device *device = stream->device;
    struct compiled *place;
    int32_t status = MMQ_OK;

    if (!stream->compiled)
        stream->compiled = device->host->calloc(1, sizeof *stream->compiled);
    if (!stream->compiled)
        return mmqi_cuda_fail(device, MMQ_ERR_NOMEM, "no memory on the host for a graph");
    place = &stream->compiled->list[stream->compiled->turn];
    stream->compiled->turn = (stream->compiled->turn + 1) % MMQI_CUDA_COMPILED;
    if (place->exec)
        status = MMQI_CUDA(device, cudaStreamSynchronize(stream->stream));
    forget(place);
    place->key = key;
    return status;
}

/* ---- compiling ---- */

/* The launches of the run, as a graph. A capture that was begun is ended, whatever failed. */
static int32_t capture(const struct call *c, cudaGraph_t *graph)
{
    struct mmqi_device *device = c->stream->device;
    cudaError_t ended;
    int32_t status = MMQI_CUDA(
        device, cudaStreamBeginCapture(c->stream->stream, cudaStreamCaptureModeThreadLocal));

    *graph = NULL;
    if (status != MMQ_OK)
        return status;
    status = run_plain(c);
    ended = cudaStreamEndCapture(c->stream->stream, graph);
    if (status == MMQ_OK)
        return MMQI_CUDA(device, ended);
    cudaGetLastError();
    return status;
}

static int32_t compile(const struct call *c, struct compiled *compiled)
{
    struct mmqi_device *device = c->stream->device;
    cudaGraph_t graph;
    int32_t status = capture(c, &graph);

    if (status == MMQ_OK)
        status = MMQI_CUDA(device, cudaGraphInstantiate(&compiled->exec, graph, 0));
    if (graph)
        cudaGraphDestroy(graph);
    if (status != MMQ_OK)
        compiled->exec = NULL;
    return status;
}

/* As compile(); a run that cannot be captured goes on plainly, and the log tells why. */
static int32_t try_compile(const struct call *c, struct compiled *compiled)
{
    struct mmqi_device *device = c->stream->device;
    int32_t status = compile(c, compiled);

    if (status == MMQ_OK || status == MMQ_ERR_CANCELLED ||
        __atomic_load_n(&device->lost, __ATOMIC_RELAXED) != 0)
        return status;
    device->host->log(device->log, MMQ_LOG_WARNING, device->host->message());
    compiled->plain = true;
    return MMQ_OK;
}

static int32_t run_compiled(const struct call *c)
{
    struct mmqi_device *device = c->stream->device;
    uint64_t key = key_of(c);
    struct compiled *compiled = find(c->stream, key);
    int32_t status = MMQ_OK;

    if (c->run->cancelled && __atomic_load_n(c->run->cancelled, __ATOMIC_RELAXED))
        return mmqi_cuda_fail(device, MMQ_ERR_CANCELLED, "run: cancelled");
    if (!compiled) {
        status = run_plain(c);
        return status == MMQ_OK ? remember(c->stream, key) : status;
    }
    if (!compiled->exec && !compiled->plain)
        status = try_compile(c, compiled);
    if (status != MMQ_OK || compiled->plain)
        return status == MMQ_OK ? run_plain(c) : status;
    return MMQI_CUDA(device, cudaGraphLaunch(compiled->exec, c->stream->stream));
}

int32_t mmqi_cuda_execute(struct mmqi_stream *stream, const struct mmqi_graph *graph,
                          const struct mmqi_plan *plan, const struct mmqi_run *run, int32_t begin,
                          int32_t end)
{
    const struct call c = {stream, graph, plan, run, begin, end};
    bool compiled = run->rows[MMQI_ROWS_MAIN] > 0 && run->rows[MMQI_ROWS_MAIN] <= COMPILED_ROWS &&
                    !run->after && begin < end;
    int before = mmqi_cuda_enter(stream->device);
    int32_t status = mmqi_cuda_flush(stream);

    if (status == MMQ_OK)
        status = compiled ? run_compiled(&c) : run_plain(&c);
    mmqi_cuda_leave(stream->device, before);
    return status;
}
