/*
 * What a backend in a library of its own (libmmq-cuda.so) is lent by libmmq,
 * and the one function by which the two meet.
 *
 * Such a library links to nothing of libmmq: all it calls comes through this
 * table. The number below names table, backend.h, ops.h, graph.h and format.h
 * together: whoever changes the layout or meaning of one of them counts it up.
 */
#ifndef MMQI_BACKEND_HOST_H
#define MMQI_BACKEND_HOST_H

#include "backend/backend.h"
#include "graph/graph.h"

#define MMQI_BACKEND_ABI 5u

struct mmqi_backend_host {
    /* As core/mem.h: under the hooks in force, for blocks of the host's memory alone. */
    void *(*alloc)(size_t size);
    void *(*calloc)(size_t count, size_t size);
    void (*free)(void *block); /* accepts NULL */
    /* Keep `line` as this thread's message; returns `status`. */
    int32_t (*fail)(int32_t status, const char *line);
    const char *(*message)(void); /* of this thread's last failure */
    /* Give `line` to the log of the device's options; level is MMQ_LOG_.... */
    void (*log)(const struct mmqi_log *log, int32_t level, const char *line);
    struct mmqi_os_mutex *(*mutex_create)(void);
    void (*mutex_free)(struct mmqi_os_mutex *mutex);
    void (*lock)(struct mmqi_os_mutex *mutex);
    void (*unlock)(struct mmqi_os_mutex *mutex);
    /* As quant/format.h: the const rows, their tables and functions with them. */
    const struct mmqi_format_info *(*format_info)(int32_t format);
    /* As graph/graph.h. */
    int32_t (*n_segments)(const struct mmqi_graph *graph);
    const struct mmqi_segment *(*segment_at)(const struct mmqi_graph *graph, int32_t segment);
    const struct mmqi_node *(*node_at)(const struct mmqi_graph *graph, int32_t node);
    const struct mmqi_value *(*value_at)(const struct mmqi_graph *graph, int32_t value);
    uint64_t (*plan_offset)(const struct mmqi_plan *plan, int32_t value);
    uint64_t (*plan_bytes)(const struct mmqi_plan *plan);
    int32_t (*graph_execute)(struct mmqi_stream *stream, const struct mmqi_ops *ops,
                             const struct mmqi_graph *graph, const struct mmqi_plan *plan,
                             const struct mmqi_run *run, int32_t begin, int32_t end);
};

/* The table of this libmmq. */
extern const struct mmqi_backend_host mmqi_backend_host;

/*
 * What such a library exports, under the name "mmqi_NAME_backend". Another number than its own is
 * MMQ_ERR_UNSUPPORTED: the table is not looked at then, and no message is written. `host` and the
 * backend are const and live as long as their libraries.
 */
typedef int32_t (*mmqi_backend_entry)(uint32_t abi, const struct mmqi_backend_host *host,
                                      const struct mmqi_backend **out);

#endif
