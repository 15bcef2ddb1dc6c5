#include "backend/host.h"

#include "core/log.h"
#include "core/mem.h"
#include "core/os.h"
#include "core/status.h"

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
