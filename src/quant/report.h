/*
 * What quantization did, weight by weight, with totals, and the same as JSON.
 */
#ifndef MMQI_QUANT_REPORT_H
#define MMQI_QUANT_REPORT_H

#include <stddef.h>
#include <stdint.h>

struct mmqi_report_item {
    char *name;            /* canonical */
    const char *format;    /* as it is now: "nf4"; static text, as are the next three */
    const char *was;       /* format of the source */
    const char *method;    /* "rtn": round to nearest; "none": kept */
    const char *reason;    /* "policy", "kept: embedding" ... */
    int64_t rows, cols;    /* a vector is [1, n] */
    uint64_t source_bytes; /* 0 for a weight that shares another's storage */
    uint64_t bytes;        /* of all parts, without padding */
};

struct mmqi_report {
    const char *format; /* that was asked for; static text */
    struct mmqi_report_item *items;
    size_t n_items, capacity;
    int32_t n_quantized;
    uint64_t source_bytes, bytes; /* sums over the items */
    uint64_t memory_bytes; /* held by the new model's weights, padding included; 0 without one */
    uint64_t file_bytes;   /* of the folder's weight files; 0 without one */
    /* Greatest sum of memory_bytes so far and the chunk's buffers; reading adds up to 1 MiB. */
    uint64_t peak_bytes;
    char *json; /* made by mmqi_report_finish() */
};

int32_t mmqi_report_create(struct mmqi_report **out, const char *format);
void mmqi_report_free(struct mmqi_report *report); /* accepts NULL */

/* Append a copy of `item` (its name too) and add it to the totals. MMQ_ERR_NOMEM. */
int32_t mmqi_report_add(struct mmqi_report *report, const struct mmqi_report_item *item);
/* Write report->json; nothing is added afterwards. MMQ_ERR_NOMEM. */
int32_t mmqi_report_finish(struct mmqi_report *report);
/* One JSON object; lives with the report. "" before mmqi_report_finish(). */
const char *mmqi_report_json(const struct mmqi_report *report);

#endif
