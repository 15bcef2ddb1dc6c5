/* mmq-eval: how well a model speaks about pictures, against a record of reference figures, and how
 * far a candidate's next-token distributions are from a reference's. */
#define _POSIX_C_SOURCE 200809L
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common.h"
#include "eval_print.h"
#include "eval_run.h"

static const char usage[] =
    "usage: mmq-eval REFERENCE [CANDIDATE] --data DIR [options]\n"
    "\n"
    "DIR holds record.json and images/. Prints the caption loss with the right and with a wrong\n"
    "picture, the accuracy of yes/no answers and how many greedy captions equal the record's: of\n"
    "the candidate when one is given, else of the reference; with a candidate also the divergence\n"
    "KL(reference || candidate) at the captions' tokens.\n"
    "\n"
    "  --data DIR          the pictures and the record\n"
    "  --limit N           the first N pictures (default: all)\n"
    "  --threads N         of the CPU (default: all)\n"
    "  --isa NAME          c, avx2 or avx512 (default: the best there is)\n"
    "  --json              one object instead of a table\n";

static double seconds_now(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

/* "[####    ] 12/500 pictures, 7:31 left" on stderr, only when it is a terminal. */
static void show_pictures(size_t done, size_t total, double seconds)
{
    enum { WIDTH = 30 };
    static const char bar[] = "##############################";
    int filled = (int)(done * WIDTH / total);
    double left = done > 0 ? seconds / (double)done * (double)(total - done) : 0;

    if (!isatty(STDERR_FILENO))
        return;
    fprintf(stderr, "\r[%-30.*s] %zu/%zu pictures", filled, bar, done, total);
    if (done == total)
        fputs("             \n", stderr);
    else if (done > 0)
        fprintf(stderr, ", %d:%02d left ", (int)left / 60, (int)left % 60);
}

static bool run_pictures(struct eval_run *run)
{
    size_t total = 0, done = 0, j;
    double begin = seconds_now();

    for (j = 0; j < run->record.n; j++)
        total += eval_run_needs(run, j);
    show_pictures(0, total, 0);
    for (j = 0; j < run->record.n; j++) {
        if (!eval_run_needs(run, j))
            continue;
        if (!eval_run_picture(run, j)) {
            if (isatty(STDERR_FILENO))
                fputc('\n', stderr);
            return false;
        }
        show_pictures(++done, total, seconds_now() - begin);
    }
    return true;
}

static int evaluate(const struct eval_settings *settings, bool json)
{
    struct eval_run run;
    double begin = seconds_now();
    int code = EXIT_FAILED;

    if (!eval_run_open(&run, settings) || !run_pictures(&run)) {
        fprintf(stderr, "mmq-eval: %s\n", run.error);
    } else {
        (json ? eval_print_json : eval_print_table)(&run, seconds_now() - begin);
        code = finish_output("mmq-eval", EXIT_DONE);
    }
    eval_run_close(&run);
    return code;
}

int main(int argc, char **argv)
{
    struct eval_settings settings = {0};
    int64_t limit = INT64_MAX;
    bool json = false, help = false;
    const struct option_row rows[] = {
        {"--data", .text = &settings.data},
        {"--limit", .number = &limit},
        {"--threads", .count = &settings.n_threads},
        {"--isa", .text = &settings.isa},
        {"--json", .flag = &json},
        {"--help", .flag = &help},
        {.name = NULL},
    };
    const char *operands[2] = {NULL, NULL};
    int n = read_arguments(argc, argv, rows, operands, 2);

    if (help) {
        fputs(usage, stdout);
        return EXIT_DONE;
    }
    if (n < 1 || !settings.data || limit == 0) {
        if (n >= 0)
            fputs(usage, stderr);
        return EXIT_USAGE;
    }
    settings.reference = operands[0];
    settings.candidate = operands[1];
    settings.limit = (uint64_t)limit < SIZE_MAX ? (size_t)limit : SIZE_MAX;
    return evaluate(&settings, json);
}
