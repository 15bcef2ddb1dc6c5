/*
 * The report of a quantization, which also is the plan of one, and its JSON.
 */
#include "quant/report.h"

#include <inttypes.h>
#include <string.h>

#include "core/buf.h"
#include "core/mem.h"
#include "core/status.h"
#include "core/text.h"

uint64_t mmqi_layout_part_bytes(const struct mmqi_layout *layout)
{
    uint64_t bytes = 0;

    for (int32_t i = 0; i < layout->n_parts; i++)
        bytes += layout->part[i].bytes;
    return bytes;
}

int32_t mmqi_report_create(struct mmqi_report **out)
{
    *out = mmqi_calloc(1, sizeof **out);
    if (!*out)
        return mmqi_fail(MMQ_ERR_NOMEM, "no memory for the report");
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

static int32_t add_choice(struct mmqi_report *report, const struct mmqi_weight *weight,
                          const struct mmqi_choice *choice)
{
    const struct mmqi_format_info *format = mmqi_format_info(choice->format);
    bool shared = weight->same_as >= 0;
    struct mmqi_report_item item = {.name = weight->name,
                                    .was = mmqi_format_info(weight->stored)->name,
                                    .format = format->name,
                                    .method = "none",
                                    .rows = weight->rows,
                                    .cols = weight->cols};
    struct mmqi_layout layout;
    int32_t status = format->layout(&layout, weight->rows, weight->cols);

    if (status != MMQ_OK)
        return status;
    if (choice->change && !shared)
        item.method = mmqi_method_name(choice->method);
    mmqi_copy_text(item.reason, sizeof item.reason, choice->reason);
    item.source_bytes = shared ? 0 : mmqi_layout_part_bytes(&weight->stored_layout);
    item.bytes = shared ? 0 : mmqi_layout_part_bytes(&layout);
    return mmqi_report_add(report, &item);
}

int32_t mmqi_report_add_choices(struct mmqi_report *report, const struct mmqi_model *model,
                                const struct mmqi_choice *choices)
{
    int32_t status = MMQ_OK;

    for (int32_t i = 0; i < model->n_weights && status == MMQ_OK; i++)
        if (model->weights[i].role != MMQI_ROLE_CONSTANT)
            status = add_choice(report, &model->weights[i], &choices[i]);
    return status;
}

/* ---- JSON ---- */

/* What all changed weights have in common: one format, one method; "mixed", or "none". */
static void find_common(const struct mmqi_report *report, const char **format, const char **method)
{
    *format = *method = "none";
    for (size_t i = 0; i < report->n_items; i++) {
        const struct mmqi_report_item *item = &report->items[i];

        if (strcmp(item->method, "none") == 0)
            continue;
        if (strcmp(*format, "none") == 0)
            *format = item->format;
        if (strcmp(*method, "none") == 0)
            *method = item->method;
        *format = strcmp(*format, item->format) == 0 ? *format : "mixed";
        *method = strcmp(*method, item->method) == 0 ? *method : "mixed";
    }
}

static void print_totals(struct mmqi_buf *buf, const struct mmqi_report *report)
{
    const char *format, *method;

    find_common(report, &format, &method);
    mmqi_buf_format(buf,
                    "{\"format\": \"%s\", \"method\": \"%s\", \"n_quantized\": %d, "
                    "\"n_kept\": %zu, \"source_bytes\": %" PRIu64 ", \"bytes\": %" PRIu64,
                    format, method, report->n_quantized,
                    report->n_items - (size_t)report->n_quantized, report->source_bytes,
                    report->bytes);
    if (report->peak_bytes > 0)
        mmqi_buf_format(buf,
                        ", \"memory_bytes\": %" PRIu64 ", \"file_bytes\": %" PRIu64
                        ", \"peak_bytes\": %" PRIu64,
                        report->memory_bytes, report->file_bytes, report->peak_bytes);
    if (report->device_bytes > 0)
        mmqi_buf_format(buf, ", \"device_bytes\": %" PRIu64, report->device_bytes);
}

static void print_item(struct mmqi_buf *buf, const struct mmqi_report_item *item)
{
    mmqi_buf_text(buf, "{\"name\": ");
    mmqi_buf_json_string(buf, item->name, strlen(item->name));
    mmqi_buf_format(buf,
                    ", \"rows\": %" PRId64 ", \"cols\": %" PRId64 ", \"source_format\": \"%s\", "
                    "\"format\": \"%s\", \"method\": \"%s\", \"reason\": ",
                    item->rows, item->cols, item->was, item->format, item->method);
    mmqi_buf_json_string(buf, item->reason, strlen(item->reason));
    mmqi_buf_format(buf, ", \"source_bytes\": %" PRIu64 ", \"bytes\": %" PRIu64 "}",
                    item->source_bytes, item->bytes);
}

int32_t mmqi_report_finish(struct mmqi_report *report)
{
    struct mmqi_buf buf = {0};

    print_totals(&buf, report);
    mmqi_buf_text(&buf, ", \"tensors\": [");
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
