/* mmq-inspect: what a checkpoint folder holds, without placing a weight. */
#include <inttypes.h>
#include <string.h>

#include "common.h"

static const char usage[] =
    "usage: mmq-inspect MODEL [--context N] [--json]\n"
    "\n"
    "Prints the family, sizes and every tensor by its canonical name, with format and bytes, and\n"
    "the memory that the model with one session will take.\n";

static mmq_status print_tensors(const mmq_model *model, int32_t n, bool json)
{
    mmq_tensor_facts t = {.struct_size = sizeof t};
    mmq_status status = MMQ_OK;
    int32_t i;

    for (i = 0; i < n && status == MMQ_OK; i++) {
        status = mmq_model_tensor_info(&t, model, i);
        if (status != MMQ_OK)
            break;
        if (!json) {
            printf("%-40s %-12s %-5s %7" PRId64 " x %-7" PRId64 " %12" PRIu64 "\n", t.name, t.role,
                   t.format, t.rows, t.cols, t.bytes);
            continue;
        }
        printf("%s\n  {\"name\": \"%s\", \"file_name\": ", i ? "," : "", t.name);
        if (t.file_name)
            print_json_string(stdout, t.file_name);
        else
            fputs("null", stdout);
        printf(", \"role\": \"%s\", \"format\": \"%s\", \"rows\": %" PRId64 ", \"cols\": %" PRId64
               ", \"bytes\": %" PRIu64 "}",
               t.role, t.format, t.rows, t.cols, t.bytes);
    }
    return status;
}

static void print_facts(const mmq_model_facts *f, const mmq_memory *m, bool json)
{
    if (json) {
        printf("{\"family\": \"%s\", \"parameters\": %" PRIu64 ", \"stored_bytes\": %" PRIu64
               ", \"vocabulary\": %d, \"max_context\": %d, \"hidden\": %d, \"image_rows\": %d,\n"
               " \"memory\": {\"weights\": %" PRIu64 ", \"kv_cache\": %" PRIu64
               ", \"activations\": %" PRIu64 ", \"scratch\": %" PRIu64 ", \"total\": %" PRIu64
               "},\n \"tensors\": [",
               f->family, f->n_parameters, f->stored_bytes, (int)f->vocab_size, (int)f->max_context,
               (int)f->hidden_size, (int)f->image_rows, m->weights, m->kv_cache, m->activations,
               m->scratch, m->total);
        return;
    }
    printf("family       %s\nparameters   %" PRIu64 "\nstored bytes %" PRIu64 "\n", f->family,
           f->n_parameters, f->stored_bytes);
    printf("vocabulary   %d\ncontext      %d\nhidden       %d\npicture rows %d\n",
           (int)f->vocab_size, (int)f->max_context, (int)f->hidden_size, (int)f->image_rows);
    printf("memory       %" PRIu64 " = weights %" PRIu64 " + kv cache %" PRIu64
           " + activations %" PRIu64 " + scratch %" PRIu64 " bytes (%s, one session)\n\n",
           m->total, m->weights, m->kv_cache, m->activations, m->scratch, f->device);
}

int main(int argc, char **argv)
{
    const char *operands[1];
    bool json = false, help = false;
    mmq_session_options session = {.struct_size = sizeof session};
    const struct option_row rows[] = {{"--context", .count = &session.context},
                                      {"--json", .flag = &json},
                                      {"--help", .flag = &help},
                                      {NULL}};
    int n = read_arguments(argc, argv, rows, operands, 1), code = EXIT_DONE;
    mmq_model_facts facts = {.struct_size = sizeof facts};
    mmq_memory memory = {.struct_size = sizeof memory};
    mmq_model *model = NULL;

    if (help) {
        fputs(usage, stdout);
        return EXIT_DONE;
    }
    if (n != 1) {
        if (n >= 0)
            fputs(usage, stderr);
        return EXIT_USAGE;
    }
    if (mmq_load(&model, operands[0], NULL) != MMQ_OK || mmq_model_info(&facts, model) != MMQ_OK ||
        mmq_estimate(&memory, model, &session) != MMQ_OK) {
        code = report_failure("mmq-inspect");
    } else {
        print_facts(&facts, &memory, json);
        if (print_tensors(model, facts.n_tensors, json) != MMQ_OK)
            code = report_failure("mmq-inspect");
        else if (json)
            fputs("\n]}\n", stdout);
    }
    mmq_model_free(model);
    return finish_output("mmq-inspect", code);
}
