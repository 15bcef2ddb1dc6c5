/* mmq-quantize: quantize a checkpoint folder into a new one, layer by layer. */
#include <string.h>

#include "common.h"

static const char usage[] =
    "usage: mmq-quantize SRC DST --format F [options]\n"
    "\n"
    "Reads the folder SRC and makes the folder DST, in which every linear layer is packed as F\n"
    "(int8 or nf4). SRC is not changed; DST must not exist and appears when it is complete.\n"
    "\n"
    "  --format F          int8, nf4\n"
    "  --chunk-bytes N     of f32 rows in hand at once (default 4 MiB)\n"
    "  --json              the report, one entry per tensor, on stdout\n";

int main(int argc, char **argv)
{
    const char *operands[2], *format = NULL;
    int64_t chunk = 0;
    bool json = false, help = false;
    const struct option_row rows[] = {
        {"--format", .text = &format},
        {"--chunk-bytes", .number = &chunk},
        {"--json", .flag = &json},
        {"--help", .flag = &help},
        {NULL},
    };
    int n = read_arguments(argc, argv, rows, operands, 2), code = EXIT_DONE;
    mmq_quantize_options options = {
        .struct_size = sizeof options,
        .on_progress = show_progress,
        .progress_user = (void *)"quantizing",
    };
    mmq_model *model = NULL;
    mmq_report *report = NULL;

    if (help) {
        fputs(usage, stdout);
        return EXIT_DONE;
    }
    if (n != 2 || !format) {
        if (n >= 0)
            fputs(usage, stderr);
        return EXIT_USAGE;
    }
    options.format = format;
    options.out_path = operands[1];
    options.chunk_bytes = (uint64_t)chunk;
    if (mmq_load(&model, operands[0], NULL) != MMQ_OK ||
        mmq_quantize_layerwise(NULL, model, &options, &report) != MMQ_OK)
        code = report_failure("mmq-quantize");
    else if (json)
        puts(mmq_report_json(report));
    mmq_report_free(report);
    mmq_model_free(model);
    return finish_output("mmq-quantize", code);
}
