/* mmq-quantize: quantize a checkpoint folder into a new one, layer by layer. */
#include <stdlib.h>
#include <string.h>

#include "policy.h"

static const char usage[] =
    "usage: mmq-quantize SRC DST --format F [options]\n"
    "       mmq-quantize SRC DST --policy P [options]\n"
    "       mmq-quantize SRC --policy P --plan\n"
    "\n"
    "Reads the folder SRC and makes the folder DST. SRC is not changed; DST must not exist, may "
    "not\n"
    "lie inside SRC, and appears when it is complete.\n"
    "\n"
    "  --format F          for every linear layer: int8, nf4, fp4, int4, nf4-32 ...; or the "
    "preset\n"
    "                      layered: tower nf4, projector and mlp int8, attention and tables kept\n"
    "  --policy P          rules, in a file or as they are: 'vision.* = nf4; *.mlp.* = int8 "
    "search'\n"
    "  --method M          of rules that name none: rtn (default), search\n"
    "  --plan              print what would be done, and stop\n"
    "  --device D          what packs: cpu (default), cuda:0; the bytes are the same\n"
    "  --vision-path DIR   the folder of a vision tower that SRC keeps apart; DST holds it\n"
    "  --chunk-bytes N     of f32 rows in hand at once (default 4 MiB)\n"
    "  --json              the report, or the plan, as JSON on stdout\n";

struct settings {
    const char *format, *policy, *method, *device, *vision_path;
    int64_t chunk;
    bool plan, json, help;
};

static int complain(const char *what)
{
    fprintf(stderr, "mmq-quantize: %s\n", what);
    return EXIT_FAILED;
}

static int print_result(const char *json, bool as_json)
{
    if (!as_json && !print_plan(stdout, json))
        return complain("no memory for the plan");
    if (as_json)
        fputs(json, stdout);
    return EXIT_DONE;
}

/* A plan takes the method of a format from its text: "nf4 search". */
static int show_plan(const mmq_model *model, const struct settings *s, const char *policy)
{
    size_t size = strlen(policy) + 34;
    char *text = malloc(size);
    mmq_plan *plan = NULL;
    int code;

    if (!text)
        return complain("no memory for the plan");
    snprintf(text, size, "%s %.32s", policy, s->method ? s->method : "");
    if (mmq_plan_create(&plan, model, text) != MMQ_OK)
        code = report_failure("mmq-quantize");
    else
        code = print_result(mmq_plan_json(plan), s->json);
    mmq_plan_free(plan);
    free(text);
    return code;
}

static int quantize(const mmq_model *model, const struct settings *s, const char *policy,
                    const char *destination)
{
    mmq_quantize_options options = {
        .struct_size = sizeof options,
        .format = policy,
        .method = s->method,
        .out_path = destination,
        .chunk_bytes = (uint64_t)s->chunk,
        .on_progress = show_progress,
        .progress_user = (void *)"quantizing",
        .device = s->device,
    };
    mmq_report *report = NULL;
    int code = EXIT_DONE;

    if (mmq_quantize_layerwise(NULL, model, &options, &report) != MMQ_OK)
        code = report_failure("mmq-quantize");
    else if (s->json)
        code = print_result(mmq_report_json(report), true);
    mmq_report_free(report);
    return code;
}

static bool is_usable(const struct settings *s, int n)
{
    return (s->plan ? n == 1 || n == 2 : n == 2) && !s->format != !s->policy;
}

int main(int argc, char **argv)
{
    const char *operands[2] = {NULL, NULL};
    struct settings s = {0};
    const struct option_row rows[] = {
        {"--format", .text = &s.format},       {"--policy", .text = &s.policy},
        {"--method", .text = &s.method},       {"--plan", .flag = &s.plan},
        {"--device", .text = &s.device},       {"--vision-path", .text = &s.vision_path},
        {"--chunk-bytes", .number = &s.chunk}, {"--json", .flag = &s.json},
        {"--help", .flag = &s.help},           {NULL},
    };
    int n = read_arguments(argc, argv, rows, operands, 2), code;
    mmq_load_options load = {.struct_size = sizeof load};
    mmq_model *model = NULL;
    char *policy;

    load.device = s.device ? s.device : "cpu";
    load.vision_path = s.vision_path;
    if (s.help) {
        fputs(usage, stdout);
        return EXIT_DONE;
    }
    if (!is_usable(&s, n)) {
        if (n >= 0)
            fputs(usage, stderr);
        return EXIT_USAGE;
    }
    if (s.plan && s.policy && s.method) {
        complain("--plan shows the methods that stand in the rules; --method goes with --format");
        return EXIT_USAGE;
    }
    policy = s.format ? strdup(s.format) : read_policy("mmq-quantize", s.policy);
    if (!policy)
        return EXIT_FAILED;
    if (mmq_load(&model, operands[0], &load) != MMQ_OK)
        code = report_failure("mmq-quantize");
    else
        code = s.plan ? show_plan(model, &s, policy) : quantize(model, &s, policy, operands[1]);
    mmq_model_free(model);
    free(policy);
    return finish_output("mmq-quantize", code);
}
