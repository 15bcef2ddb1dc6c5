/*
 * The report of a quantization, and its JSON.
 */
#include "quant/report.h"

#include <inttypes.h>
#include <string.h>

#include "core/buf.h"
#include "core/mem.h"
#include "core/status.h"

int32_t mmqi_report_create(struct mmqi_report **out, const char *format)
{
    *out = mmqi_calloc(1, sizeof **out);
    if (!*out)
        return mmqi_fail(MMQ_ERR_NOMEM, "no memory for the report");
    (*out)->format = format;
    return MMQ_OK;
}

void mmqi_report_free(struct mmqi_report *report)
{
    if (!report)
        return;
    for (size_t i = 0; i < report->n_items; i++)
        mmqi_free(report->items[i].name);
    mmqi_free(report->items);
    mmqi_free(report->json);
    mmqi_free(report);
}

static int32_t reserve(struct mmqi_report *report)
{
    size_t capacity = report->capacity < 64 ? 64 : report->capacity * 2;
    struct mmqi_report_item *items;

    if (report->n_items < report->capacity)
        return MMQ_OK;
    items = mmqi_realloc_array(report->items, capacity, sizeof *items);
    if (!items)
        return mmqi_fail(MMQ_ERR_NOMEM, "no memory for the report");
    report->items = items;
    report->capacity = capacity;
    return MMQ_OK;
}

int32_t mmqi_report_add(struct mmqi_report *report, const struct mmqi_report_item *item)
{
    int32_t status = reserve(report);
    char *name;

    if (status != MMQ_OK)
        return status;
    name = mmqi_strdup(item->name);
    if (!name)
        return mmqi_fail(MMQ_ERR_NOMEM, "no memory for the report");
    report->items[report->n_items] = *item;
    report->items[report->n_items].name = name;
    report->n_items++;
    report->source_bytes += item->source_bytes;
    report->bytes += item->bytes;
    report->n_quantized += strcmp(item->method, "none") != 0;
    return MMQ_OK;
}

static void print_item(struct mmqi_buf *buf, const struct mmqi_report_item *item)
{
    mmqi_buf_text(buf, "{\"name\": ");
    mmqi_buf_json_string(buf, item->name, strlen(item->name));
    mmqi_buf_format(buf,
                    ", \"rows\": %" PRId64 ", \"cols\": %" PRId64 ", \"source_format\": \"%s\", "
                    "\"format\": \"%s\", \"method\": \"%s\", \"reason\": \"%s\", "
                    "\"source_bytes\": %" PRIu64 ", \"bytes\": %" PRIu64 "}",
                    item->rows, item->cols, item->was, item->format, item->method, item->reason,
                    item->source_bytes, item->bytes);
}

int32_t mmqi_report_finish(struct mmqi_report *report)
{
    struct mmqi_buf buf = {0};

    mmqi_buf_format(&buf,
                    "{\"format\": \"%s\", \"method\": \"rtn\", \"n_quantized\": %d, "
                    "\"n_kept\": %zu, \"source_bytes\": %" PRIu64 ", \"bytes\": %" PRIu64
                    ", \"memory_bytes\": %" PRIu64 ", \"file_bytes\": %" PRIu64
                    ", \"peak_bytes\": %" PRIu64 ", \"tensors\": [",
                    report->format, report->n_quantized,
                    report->n_items - (size_t)report->n_quantized, report->source_bytes,
                    report->bytes, report->memory_bytes, report->file_bytes, report->peak_bytes);
    for (size_t i = 0; i < report->n_items; i++) {
        mmqi_buf_text(&buf, i > 0 ? ",\n" : "\n");
        print_item(&buf, &report->items[i]);
    }
    mmqi_buf_text(&buf, "]}\n");
    mmqi_free(report->json);
    report->json = mmqi_buf_take(&buf);
    mmqi_buf_free(&buf);
    if (!report->json)
        return mmqi_fail(MMQ_ERR_NOMEM, "no memory for the report");
    return MMQ_OK;
}

const char *mmqi_report_json(const struct mmqi_report *report)
{
    return report->json ? report->json : "";
}
