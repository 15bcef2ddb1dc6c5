/* mmq-bench: how fast a model runs, as a fraction of what its device reaches. */
#define _GNU_SOURCE /* sched_getaffinity */
#include <inttypes.h>
#include <sched.h>
#include <string.h>

#include "bench_model.h"
#include "bench_run.h"
#include "common.h"

static const char usage[] =
    "usage: mmq-bench MODEL [options]\n"
    "       mmq-bench --random SHAPE [options]\n"
    "\n"
    "Measures prefill, decoding and pictures of a model, or of random weights of a real shape\n"
    "(llava-1b, llava-1.5-7b, llava-8b, qwen2-vl-2b, qwen2-vl-7b; llava-tiny, qwen2-vl-tiny),\n"
    "beside what the device reaches: memory with as many threads, and on CUDA large products.\n"
    "Every figure is the best of several tries.\n"
    "\n"
    "  --format F     quantize while loading: a format, a preset or rules (default: as stored;\n"
    "                 random weights are bf16)\n"
    "  --prompt N     rows to prefill (default 512, or what fits)\n"
    "  --decode N     tokens to decode (default 32)\n"
    "  --no-vision    leave the pictures out\n"
    "  --device D     cpu, cuda:0, or a device map (default: the best there is)\n"
    "  --mode M       exact or fast (default: fast where the device has it)\n"
    "  --threads N    of the CPU (default: one per processor)\n"
    "  --isa NAME     c, avx2 or avx512 (default: the best there is)\n"
    "  --repeat N     tries (default 3)\n"
    "  --buffer N     MiB of memory that are read for the bandwidth (default 1024)\n"
    "  --json --csv   one object; or a line of names and one of figures\n";

struct settings {
    const char *random, *format, *device, *mode, *isa;
    int32_t prompt, decode, threads, repeat, buffer;
    bool no_vision, json, csv, help;
};

/* What is printed, however it is printed. */
struct row {
    const char *name; /* "prefill_tokens_per_second" */
    double value;
};

enum { MOST_ROWS = 24 };

static int make_rows(struct row rows[MOST_ROWS], const struct bench_figures *f)
{
    double token_rate = f->decode_seconds > 0 ? f->n_decode / f->decode_seconds : 0;
    double prefill_rate = f->prefill_seconds > 0 ? f->n_prompt / f->prefill_seconds : 0;
    double products = f->n_prompt * f->row_products + f->prompt_products;
    const struct row all[] = {
        {"read_bytes_per_second", f->rates.read},
        {"copy_bytes_per_second", f->rates.copy},
        {"product_flop_per_second", f->rates.product},
        {"load_seconds", f->load_seconds},
        {"placed_bytes", (double)f->placed_bytes},
        {"prefill_rows", f->n_prompt},
        {"prefill_tokens_per_second", prefill_rate},
        {"prefill_flop_per_second", f->prefill_seconds > 0 ? products / f->prefill_seconds : 0},
        {"fraction_of_product_rate", f->rates.product > 0 && f->prefill_seconds > 0
                                         ? products / f->prefill_seconds / f->rates.product
                                         : 0},
        {"decode_tokens", f->n_decode},
        {"decode_tokens_per_second", token_rate},
        {"weight_bytes_per_token", (double)f->token_bytes},
        {"weight_bytes_per_second", token_rate * (double)f->token_bytes},
        {"fraction_of_read_bandwidth", token_rate * (double)f->token_bytes / f->rates.read},
        {"pictures_per_second", f->encode_seconds > 0 ? 1 / f->encode_seconds : 0},
    };

    memcpy(rows, all, sizeof all);
    return (int)(sizeof all / sizeof all[0]);
}

static void print_json(const char *name, const char *device, const struct bench_figures *f)
{
    struct row rows[MOST_ROWS];
    int n = make_rows(rows, f), i;

    fputs("{\"model\": ", stdout);
    print_json_string(stdout, name);
    fputs(", \"device\": ", stdout);
    print_json_string(stdout, device);
    printf(", \"mode\": \"%s\",\n \"formats\": {", f->mode);
    for (i = 0; i < f->n_formats; i++)
        printf("%s\"%s\": %" PRIu64, i ? ", " : "", f->formats[i].name, f->formats[i].bytes);
    fputs("},\n \"products\": [", stdout);
    for (i = 0; i < f->n_products; i++)
        printf("%s[%" PRId64 ", %" PRId64 ", %d]", i ? ", " : "", f->products[i].rows,
               f->products[i].cols, f->products[i].count);
    fputs("],\n", stdout);
    for (i = 0; i < n; i++)
        printf(" \"%s\": %.6g%s\n", rows[i].name, rows[i].value, i + 1 < n ? "," : "}");
}

static void print_formats(const struct bench_figures *f, const char *separator)
{
    for (int i = 0; i < f->n_formats; i++)
        printf("%s%s %.1f MB", i ? separator : "", f->formats[i].name,
               (double)f->formats[i].bytes * 1e-6);
}

static void print_csv(const char *name, const char *device, const struct bench_figures *f)
{
    struct row rows[MOST_ROWS];
    int n = make_rows(rows, f), i;

    fputs("model,device,mode,formats", stdout);
    for (i = 0; i < n; i++)
        printf(",%s", rows[i].name);
    printf("\n\"%s\",\"%s\",%s,", name, device, f->mode);
    print_formats(f, " + ");
    for (i = 0; i < n; i++)
        printf(",%.6g", rows[i].value);
    putchar('\n');
}

static void print_prefill(const struct bench_figures *f)
{
    double products = f->n_prompt * f->row_products + f->prompt_products;
    double rate = products / f->prefill_seconds;

    printf("prefill    %d rows: %.1f tokens/s, %.1f GFLOP/s", f->n_prompt,
           f->n_prompt / f->prefill_seconds, rate * 1e-9);
    if (f->rates.product > 0)
        printf(", %.1f %% of the products", rate / f->rates.product * 100);
    putchar('\n');
}

static void print_text(const char *name, const char *device, const struct bench_figures *f)
{
    double rate;

    printf("%s on %s, %s mode\nweights    ", name, device, f->mode);
    print_formats(f, ", ");
    printf("; placed %.1f MB in %.2f s\n", (double)f->placed_bytes * 1e-6, f->load_seconds);
    printf("memory     read %.2f GB/s, copy %.2f GB/s\n", f->rates.read * 1e-9,
           f->rates.copy * 1e-9);
    if (f->rates.product > 0)
        printf("products   %.1f TFLOP/s\n", f->rates.product * 1e-12);
    if (f->prefill_seconds > 0)
        print_prefill(f);
    if (f->decode_seconds > 0) {
        rate = f->n_decode / f->decode_seconds;
        printf("decode     %d tokens: %.2f tokens/s, %.1f MB of weights each, %.2f GB/s, "
               "%.1f %% of the read bandwidth\n",
               f->n_decode, rate, (double)f->token_bytes * 1e-6,
               rate * (double)f->token_bytes * 1e-9,
               rate * (double)f->token_bytes / f->rates.read * 100);
    }
    if (f->encode_seconds > 0)
        printf("pictures   %.3f a second\n", 1 / f->encode_seconds);
}

static int bench(mmq_model *model, const char *name, const struct settings *s)
{
    struct bench_settings settings = {
        .n_prompt = s->prompt,
        .n_decode = s->decode,
        .mode = s->mode,
        .n_tries = s->repeat,
        .vision = !s->no_vision,
        .letters = s->random != NULL,
    };
    mmq_model_facts facts = {.struct_size = sizeof facts};
    struct bench_figures figures = {.n_prompt = 0};
    uint64_t bytes = (uint64_t)s->buffer << 20;

    /* Before and after: another program may have had the device at one of them. */
    if (mmq_model_info(&facts, model) != MMQ_OK ||
        measure_rates(&figures.rates, model, s->mode, bytes) != MMQ_OK ||
        run_bench(&figures, model, &settings) != MMQ_OK ||
        measure_rates(&figures.rates, model, s->mode, bytes) != MMQ_OK)
        return report_failure("mmq-bench");
    if (s->json)
        print_json(name, facts.device, &figures);
    else if (s->csv)
        print_csv(name, facts.device, &figures);
    else
        print_text(name, facts.device, &figures);
    return EXIT_DONE;
}

static int load_and_bench(const char *name, const mmq_reader *reader, const struct settings *s)
{
    mmq_load_options load = {
        .struct_size = sizeof load,
        .device = s->device,
        .n_threads = s->threads,
        .isa = s->isa,
        .on_progress = show_progress,
        .progress_user = (void *)"loading",
        .quantize = s->format && strcmp(s->format, "bf16") != 0 ? s->format : NULL,
        .reader = reader,
    };
    mmq_model *model = NULL;
    int code;

    if (mmq_load(&model, name, &load) != MMQ_OK)
        return report_failure("mmq-bench");
    code = bench(model, name, s);
    mmq_model_free(model);
    return code;
}

static int bench_random(const struct settings *s)
{
    const struct bench_shape *shape = find_bench_shape(s->random);
    struct bench_model *files;
    mmq_reader reader;
    int code;

    if (!shape) {
        fprintf(stderr, "mmq-bench: no shape '%s': %s\n", s->random, bench_shape_names);
        return EXIT_USAGE;
    }
    files = open_bench_model(shape);
    if (!files) {
        fputs("mmq-bench: no memory\n", stderr);
        return EXIT_FAILED;
    }
    reader = bench_reader(files);
    code = load_and_bench(s->random, &reader, s);
    close_bench_model(files);
    return code;
}

/* That this process may use. */
static int32_t count_processors(void)
{
    cpu_set_t set;

    return sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
}

static bool in_range(const struct settings *s)
{
    return s->prompt <= 65536 && s->decode <= 65536 && s->threads >= 1 && s->threads <= 1024 &&
           s->repeat >= 1 && s->repeat <= 1000 && s->buffer >= 1 && s->buffer <= 1 << 20;
}

int main(int argc, char **argv)
{
    struct settings s = {
        .prompt = -1, .decode = 32, .threads = count_processors(), .repeat = 3, .buffer = 1024};
    const struct option_row rows[] = {
        {"--random", .text = &s.random},
        {"--format", .text = &s.format},
        {"--prompt", .count = &s.prompt},
        {"--decode", .count = &s.decode},
        {"--no-vision", .flag = &s.no_vision},
        {"--device", .text = &s.device},
        {"--mode", .text = &s.mode},
        {"--threads", .count = &s.threads},
        {"--isa", .text = &s.isa},
        {"--repeat", .count = &s.repeat},
        {"--buffer", .count = &s.buffer},
        {"--json", .flag = &s.json},
        {"--csv", .flag = &s.csv},
        {"--help", .flag = &s.help},
        {NULL},
    };
    const char *operands[1];
    int n = read_arguments(argc, argv, rows, operands, 1);

    if (s.help) {
        fputs(usage, stdout);
        return EXIT_DONE;
    }
    if (n < 0)
        return EXIT_USAGE;
    if (n != (s.random ? 0 : 1) || !in_range(&s)) {
        fputs(usage, stderr);
        return EXIT_USAGE;
    }
    return finish_output("mmq-bench",
                         s.random ? bench_random(&s) : load_and_bench(operands[0], NULL, &s));
}
