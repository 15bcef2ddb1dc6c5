#include "memory.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* "VmHWM:   1234 kB" of /proc/self/status, in bytes. */
static uint64_t status_bytes(const char *key)
{
    FILE *file = fopen("/proc/self/status", "r");
    uint64_t bytes = 0;
    char line[256];

    while (file && fgets(line, sizeof line, file))
        if (strncmp(line, key, strlen(key)) == 0)
            bytes = strtoull(line + strlen(key), NULL, 10) * 1024;
    if (file)
        fclose(file);
    return bytes;
}

uint64_t process_bytes(void)
{
    return status_bytes("RssAnon:") + status_bytes("RssShmem:");
}

/* The system tells the peak of all pages; those of files are the program's and its libraries'. */
uint64_t process_peak(void)
{
    uint64_t peak = status_bytes("VmHWM:"), files = status_bytes("RssFile:");

    return peak > files ? peak - files : 0;
}

mmq_status read_memory(struct memory_figures *figures, const mmq_model *model,
                       const mmq_session_options *options)
{
    mmq_device_memory device = {.struct_size = sizeof device};
    mmq_model_facts facts = {.struct_size = sizeof facts};
    mmq_status status = mmq_model_info(&facts, model);
    int32_t i;

    figures->peak = process_peak();
    figures->taken = 0;
    figures->estimate = (mmq_memory){.struct_size = sizeof figures->estimate};
    if (status == MMQ_OK)
        status = mmq_estimate(&figures->estimate, model, options);
    for (i = 0; i < facts.n_devices && status == MMQ_OK; i++) {
        status = mmq_estimate_device(&device, model, options, i);
        figures->taken += device.taken;
    }
    return status;
}

void print_memory(FILE *out, const struct memory_figures *figures)
{
    const mmq_memory *e = &figures->estimate;
    double total = (double)e->total, run = (double)figures->peak - (double)figures->loaded;

    fprintf(out,
            "memory: estimate %" PRIu64 " = weights %" PRIu64 " + kv cache %" PRIu64
            " + activations %" PRIu64 " + scratch %" PRIu64 " bytes\n",
            e->total, e->weights, e->kv_cache, e->activations, e->scratch);
    fprintf(out, "memory: taken    %" PRIu64 " by the library's own count\n", figures->taken);
    fprintf(out,
            "memory: process  %" PRIu64 " at most = %" PRIu64 " before loading + %" PRIu64
            " of index and tokenizer + %.0f (%+.2f %% of the estimate)\n",
            figures->peak, figures->before, figures->loaded - figures->before, run,
            total > 0 ? 100.0 * (run - total) / total : 0.0);
}

void print_memory_json(FILE *out, const struct memory_figures *figures)
{
    fprintf(out,
            "{\"estimate\": %" PRIu64 ", \"taken\": %" PRIu64 ", \"process_before\": %" PRIu64
            ", \"process_loaded\": %" PRIu64 ", \"process_peak\": %" PRIu64 "}",
            figures->estimate.total, figures->taken, figures->before, figures->loaded,
            figures->peak);
}
