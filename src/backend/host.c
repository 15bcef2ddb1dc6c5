#include "backend/host.h"

#include <assert.h>

#include "core/log.h"
#include "core/mem.h"
#include "core/os.h"
#include "core/status.h"

/* What the number stands for, as far as sizes tell it: who changes one counts both up here. */
static_assert(MMQI_BACKEND_ABI == 5, "the sizes below are those of this number");
static_assert(sizeof(void *) != 8 ||
                  (sizeof(struct mmqi_backend_host) == 144 && sizeof(struct mmqi_backend) == 200 &&
                   sizeof(struct mmqi_ops) == 128 && sizeof(struct mmqi_run) == 256 &&
                   sizeof(struct mmqi_node) == 80 && sizeof(struct mmqi_value) == 80 &&
                   sizeof(struct mmqi_segment) == 32 && sizeof(struct mmqi_format_info) == 96 &&
                   sizeof(struct mmqi_device_options) == 48 &&
                   sizeof(struct mmqi_stream_options) == 32),
              "count MMQI_BACKEND_ABI up");

static int32_t fail(int32_t status, const char *line)
{
    return mmqi_fail(status, "%s", line);
}

static void log_line(const struct mmqi_log *log, int32_t level, const char *line)
{
    mmqi_log(log, level, "%s", line);
}

const struct mmqi_backend_host mmqi_backend_host = {
    .alloc = mmqi_alloc,
    .calloc = mmqi_calloc,
    .free = mmqi_free,
    .fail = fail,
    .message = mmqi_message,
    .log = log_line,
    .mutex_create = mmqi_os_mutex_create,
    .mutex_free = mmqi_os_mutex_free,
    .lock = mmqi_os_lock,
    .unlock = mmqi_os_unlock,
    .format_info = mmqi_format_info,
    .n_segments = mmqi_graph_n_segments,
    .segment_at = mmqi_graph_segment_at,
    .node_at = mmqi_graph_node_at,
    .value_at = mmqi_graph_value_at,
    .plan_offset = mmqi_plan_offset,
    .plan_bytes = mmqi_plan_bytes,
    .graph_execute = mmqi_graph_execute,
};
