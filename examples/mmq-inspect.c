/* mmq-inspect: what a checkpoint folder holds, without placing a weight. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "policy.h"

static const char usage[] =
    "usage: mmq-inspect MODEL [--context N] [--policy P] [--vision-path DIR] [--json]\n"
    "\n"
    "Prints the family, sizes and every tensor by its canonical name, with format and bytes, and\n"
    "the memory that the model with one session will take.\n"
    "\n"
    "  --policy P          as it would be, quantized by these rules (a file, or the text itself):\n"
    "                      every tensor with format, method, bytes and reason\n"
    "  --vision-path DIR   the folder of a vision tower that the model keeps apart\n";

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
            printf("%-40s %-12s %-18s %7" PRId64 " x %-7" PRId64 " %12" PRIu64 "  -  stored\n",
                   t.name, t.role, t.format, t.rows, t.cols, t.bytes);
            continue;
        }
        printf("%s\n  {\"name\": \"%s\", \"file_name\": ", i ? "," : "", t.name);
        if (t.file_name)
            print_json_string(stdout, t.file_name);
        else
            fputs("null", stdout);
        printf(", \"role\": \"%s\", \"format\": \"%s\", \"rows\": %" PRId64 ", \"cols\": %" PRId64
               ", \"bytes\": %" PRIu64 ", \"method\": \"none\", \"reason\": \"stored\"}",
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

/* The tensors as the policy would make them, from the plan's own JSON. */
static mmq_status print_planned(const mmq_model *model, const char *policy, bool json)
{
    mmq_plan *plan = NULL;
    mmq_status status = mmq_plan_create(&plan, model, policy);
    const char *text = mmq_plan_json(plan);

    if (status == MMQ_OK && json)
        printf("], \"plan\": %s}\n", text);
    else if (status == MMQ_OK && !print_plan(stdout, text))
        status = MMQ_ERR_NOMEM;
    mmq_plan_free(plan);
    return status;
}

static int inspect(const char *path, const char *vision, const char *policy, int32_t context,
                   bool json)
{
    mmq_load_options load = {.struct_size = sizeof load, .vision_path = vision};
    mmq_session_options session = {.struct_size = sizeof session, .context = context};
    mmq_model_facts facts = {.struct_size = sizeof facts};
    mmq_memory memory = {.struct_size = sizeof memory};
    char *rules = policy ? read_policy("mmq-inspect", policy) : NULL;
    mmq_model *model = NULL;
    mmq_status status;

    if (policy && !rules)
        return EXIT_FAILED;
    load.quantize = rules;
    status = mmq_load(&model, path, &load);
    if (status == MMQ_OK)
        status = mmq_model_info(&facts, model);
    if (status == MMQ_OK)
        status = mmq_estimate(&memory, model, &session);
    if (status == MMQ_OK)
        print_facts(&facts, &memory, json);
    if (status == MMQ_OK)
        status =
            rules ? print_planned(model, rules, json) : print_tensors(model, facts.n_tensors, json);
    if (status == MMQ_OK && json && !rules)
        fputs("\n]}\n", stdout);
    mmq_model_free(model);
    free(rules);
    return status == MMQ_OK ? EXIT_DONE : report_failure("mmq-inspect");
}

int main(int argc, char **argv)
{
    const char *operands[1], *policy = NULL, *vision = NULL;
    int32_t context = 0;
    bool json = false, help = false;
    const struct option_row rows[] = {
        {"--context", .count = &context},   {"--policy", .text = &policy},
        {"--vision-path", .text = &vision}, {"--json", .flag = &json},
        {"--help", .flag = &help},          {NULL}};
    int n = read_arguments(argc, argv, rows, operands, 1);

    if (help) {
        fputs(usage, stdout);
        return EXIT_DONE;
    }
    if (n != 1) {
        if (n >= 0)
            fputs(usage, stderr);
        return EXIT_USAGE;
    }
    return finish_output("mmq-inspect", inspect(operands[0], vision, policy, context, json));
}
