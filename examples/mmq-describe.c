/* mmq-describe: answer a question about pictures. */
#include <stdlib.h>
#include <string.h>

#include "memory.h"
#include "policy.h"

enum { MOST_PICTURES = 64 };

static const char usage[] =
    "usage: mmq-describe MODEL IMAGE... [-p PROMPT] [options]\n"
    "\n"
    "Prints what the model says about the pictures (PNG or JPEG).\n"
    "\n"
    "  -p PROMPT           the question (default: Describe the picture.)\n"
    "  --max-tokens N      end the answer after N tokens (default 256)\n"
    "  --temperature T     0 is greedy (default); with --top-k N --top-p P --min-p P --seed N\n"
    "  --quantize P        pack the weights while they are loaded: nf4, int8, layered, or rules\n"
    "  --device D          cpu, cuda:0, or a device map: '* = cpu; vision.* = cuda:0'\n"
    "  --mode M            exact or fast (default: fast where the device has it)\n"
    "  --memory-limit N    bytes that weights and session may take\n"
    "  --memory-limits L   the same by device: 'cuda:0 = 8GiB; cpu = 4GiB'\n"
    "  --vision-path DIR   the folder of a vision tower that the model keeps apart\n"
    "  --context N         tokens that the session can hold\n"
    "  --memory            tell on stderr what was estimated, and what was taken\n"
    "  --threads N         of the CPU (default: all)\n"
    "  --isa NAME          c, avx2 or avx512 (default: the best there is)\n"
    "  --json              one object with answer, tokens and times\n";

struct settings {
    const char *prompt, *device, *mode, *memory_limits, *isa, *quantize, *vision_path;
    int32_t max_tokens, top_k, context, threads;
    int64_t seed, memory_limit;
    float temperature, top_p, min_p;
    bool json, memory, help;
};

/* Everything a run holds; freed in one place. */
struct run {
    mmq_model *model;
    mmq_session *session;
    mmq_image *images[MOST_PICTURES];
    size_t n_images;
    mmq_result *result;
    mmq_session_options options;
    struct memory_figures memory;
};

static void free_run(struct run *run)
{
    size_t i;

    mmq_result_free(run->result);
    mmq_session_free(run->session);
    for (i = 0; i < run->n_images; i++)
        mmq_image_free(run->images[i]);
    mmq_model_free(run->model);
}

static int32_t print_piece(void *user, const char *text, size_t size, const int32_t *ids,
                           size_t n_ids)
{
    (void)user;
    (void)ids;
    (void)n_ids;
    if (fwrite(text, 1, size, stdout) != size)
        return 1;
    return fflush(stdout) == 0 ? 0 : 1;
}

/* `policy` is the text of the rules, or NULL. */
static mmq_status open_all(struct run *run, const char **operands, int n, const struct settings *s,
                           const char *policy)
{
    mmq_load_options load = {
        .struct_size = sizeof load,
        .device = s->device,
        .memory_limits = s->memory_limits,
        .memory_limit = (uint64_t)s->memory_limit,
        .n_threads = s->threads,
        .isa = s->isa,
        .vision_path = s->vision_path,
        .on_progress = show_progress,
        .progress_user = (void *)"loading",
        .quantize = policy,
    };
    mmq_status status;
    int i;

    run->options = (mmq_session_options){
        .struct_size = sizeof run->options, .context = s->context, .mode = s->mode};
    run->memory.before = process_bytes();
    status = mmq_load(&run->model, operands[0], &load);
    run->memory.loaded = process_bytes();
    for (i = 1; i < n && status == MMQ_OK; i++) {
        status = mmq_image_read_file(&run->images[run->n_images], operands[i], NULL);
        if (status == MMQ_OK)
            run->n_images++;
    }
    if (status == MMQ_OK)
        status = mmq_session_create(&run->session, run->model, &run->options);
    return status;
}

static mmq_status answer(struct run *run, const struct settings *s)
{
    mmq_part parts[MOST_PICTURES + 1];
    const mmq_part *part_list[MOST_PICTURES + 1];
    mmq_message message = {sizeof message, "user", part_list, run->n_images + 1};
    const mmq_message *messages[] = {&message};
    mmq_prompt prompt = {.struct_size = sizeof prompt, .messages = messages, .n_messages = 1};
    mmq_generate_request request = {
        .struct_size = sizeof request,
        .prompt = &prompt,
        .max_new_tokens = s->max_tokens,
        .temperature = s->temperature,
        .top_k = s->top_k,
        .top_p = s->top_p,
        .min_p = s->min_p,
        .seed = (uint64_t)s->seed,
        .on_text = s->json ? NULL : print_piece,
    };
    size_t i;

    for (i = 0; i <= run->n_images; i++) {
        parts[i] = (mmq_part){.struct_size = sizeof parts[i]};
        if (i < run->n_images)
            parts[i].image = run->images[i];
        else
            parts[i].text = s->prompt;
        part_list[i] = &parts[i];
    }
    return mmq_generate(&run->result, run->session, &request);
}

static void print_json(const struct run *run)
{
    mmq_result_facts facts = {.struct_size = sizeof facts};
    mmq_model_facts model = {.struct_size = sizeof model};
    size_t n, i;
    const int32_t *ids = mmq_result_ids(run->result, &n);

    mmq_result_info(&facts, run->result);
    mmq_model_info(&model, run->model);
    printf("{\"text\": ");
    print_json_string(stdout, mmq_result_text(run->result));
    printf(", \"finish\": \"%s\", \"ids\": [", mmq_result_finish_name(run->result));
    for (i = 0; i < n; i++)
        printf("%s%d", i ? ", " : "", (int)ids[i]);
    printf("], \"prompt_tokens\": %d, \"prefill_seconds\": %.6f, \"decode_seconds\": %.6f, "
           "\"mode\": \"%s\", \"device\": \"%s\", \"memory\": ",
           (int)facts.n_prompt, (double)facts.prefill_nanoseconds * 1e-9,
           (double)facts.decode_nanoseconds * 1e-9, mmq_session_mode(run->session), model.device);
    print_memory_json(stdout, &run->memory);
    puts("}");
}

int main(int argc, char **argv)
{
    struct settings s = {.prompt = "Describe the picture.", .max_tokens = 256};
    const struct option_row rows[] = {
        {"-p", .text = &s.prompt},
        {"--prompt", .text = &s.prompt},
        {"--max-tokens", .count = &s.max_tokens},
        {"--temperature", .real = &s.temperature},
        {"--top-k", .count = &s.top_k},
        {"--top-p", .real = &s.top_p},
        {"--min-p", .real = &s.min_p},
        {"--seed", .number = &s.seed},
        {"--quantize", .text = &s.quantize},
        {"--device", .text = &s.device},
        {"--mode", .text = &s.mode},
        {"--memory-limits", .text = &s.memory_limits},
        {"--memory-limit", .number = &s.memory_limit},
        {"--context", .count = &s.context},
        {"--threads", .count = &s.threads},
        {"--isa", .text = &s.isa},
        {"--vision-path", .text = &s.vision_path},
        {"--json", .flag = &s.json},
        {"--memory", .flag = &s.memory},
        {"--help", .flag = &s.help},
        {NULL},
    };
    const char *operands[MOST_PICTURES + 1];
    struct run run = {0};
    char *policy = NULL;
    int n = read_arguments(argc, argv, rows, operands, MOST_PICTURES + 1), code = EXIT_DONE;

    if (s.help) {
        fputs(usage, stdout);
        return EXIT_DONE;
    }
    if (n < 2) {
        if (n >= 0)
            fputs(usage, stderr);
        return EXIT_USAGE;
    }
    if (s.quantize && !(policy = read_policy("mmq-describe", s.quantize)))
        return EXIT_FAILED;
    if (open_all(&run, operands, n, &s, policy) != MMQ_OK || answer(&run, &s) != MMQ_OK ||
        read_memory(&run.memory, run.model, &run.options) != MMQ_OK)
        code = report_failure("mmq-describe");
    else if (s.json)
        print_json(&run);
    else
        putchar('\n');
    if (s.memory && code == EXIT_DONE)
        print_memory(stderr, &run.memory);
    free_run(&run);
    free(policy);
    return finish_output("mmq-describe", code);
}
