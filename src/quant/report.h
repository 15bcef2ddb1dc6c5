/*
 * What quantization did, or will do, weight by weight, with totals, and the same as JSON.
 */
#ifndef MMQI_QUANT_REPORT_H
#define MMQI_QUANT_REPORT_H

#include "quant/policy.h"

struct mmqi_report_item {
    char *name;         /* canonical */
    const char *format; /* as it is now: "nf4"; static text, as are the next two */
    const char *was;    /* format of the source */
    const char *method; /* "rtn", "search"; "none": kept */
    char reason[sizeof((struct mmqi_choice *)0)->reason]; /* as in mmqi_choice */
    int64_t rows, cols;                                   /* a vector is [1, n] */
    uint64_t source_bytes; /* 0 for a weight that shares another's storage */
    uint64_t bytes;        /* of all parts, without padding */
};

struct mmqi_report {
    struct mmqi_report_item *items;
    size_t n_items, capacity;
    int32_t n_quantized;          /* weights that changed: a method is told */
    uint64_t source_bytes, bytes; /* sums over the items */
    /* What was measured; all 0 in a plan, whose JSON leaves them out. */
    uint64_t memory_bytes; /* held by the new model's weights, padding included; 0 without one */
    uint64_t file_bytes;   /* of the folder's weight files; 0 without one */
    /* Greatest sum of memory_bytes so far and the chunk's buffers; reading adds up to 1 MiB. */
    uint64_t peak_bytes;
    uint64_t device_bytes; /* taken of the device that packed; 0 where the host did */
    char *json;            /* made by mmqi_report_finish() */
};

int32_t mmqi_report_create(struct mmqi_report **out);
void mmqi_report_free(struct mmqi_report *report); /* accepts NULL */

/* Append a copy of `item` (its name too) and add it to the totals. MMQ_ERR_NOMEM. */
int32_t mmqi_report_add(struct mmqi_report *report, const struct mmqi_report_item *item);
/* An item for every weight of `model` but constants, as it becomes by choices[n_weights]. */
int32_t mmqi_report_add_choices(struct mmqi_report *report, const struct mmqi_model *model,
                                const struct mmqi_choice *choices);
/* Write report->json; nothing is added afterwards. MMQ_ERR_NOMEM. */
int32_t mmqi_report_finish(struct mmqi_report *report);
/* One JSON object; lives with the report. "" before mmqi_report_finish(). */
const char *mmqi_report_json(const struct mmqi_report *report);

/* Bytes of all parts, without padding. */
uint64_t mmqi_layout_part_bytes(const struct mmqi_layout *layout);

#endif
