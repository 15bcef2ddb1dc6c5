/* mmq-eval: how well a model speaks about pictures, against questions with their answers or a
 * record of reference figures, and how far a candidate's next-token distributions are from a
 * reference's. */
#define _POSIX_C_SOURCE 200809L
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common.h"
#include "eval_print.h"

static const char usage[] =
    "usage: mmq-eval REFERENCE [CANDIDATE] --data DIR [options]\n"
    "\n"
    "DIR holds either questions.jsonl, with the pictures beside it, or record.json and images/.\n"
    "\n"
    "Questions, one line each of {\"images\": [...], \"question\", \"answer\", \"kind\"}, are "
    "answered\n"
    "greedily: by the candidate when one is given, else by the reference. An answer scores 1 when\n"
    "it equals the true one but for blanks at the ends; one of kind \"describe\" scores the F1 of\n"
    "its items between \", \". Prints the mean score (exact_match) and that of each kind "
    "(by_kind).\n"
    "\n"
    "Of a record: the caption loss with the right and with a wrong picture, the accuracy of "
    "yes/no\n"
    "answers and how many greedy captions equal the record's.\n"
    "\n"
    "With a candidate also the divergence KL(reference || candidate) at the tokens of the true\n"
    "answers, or of the captions.\n"
    "\n"
    "  --data DIR          the pictures and the questions or the record\n"
    "  --limit N           the first N questions or pictures (default: all)\n"
    "  --max-tokens N      end the answer to a question after N tokens (default 128)\n"
    "  --grey              a grey picture of the same size in place of each: what is chance\n"
    "  --answers FILE      write a JSON line per question: it, the answer given and its score\n"
    "  --context N         tokens that a session holds (default: what pictures and words need)\n"
    "  --device D          cpu, cuda:0, or a device map (default: the best there is)\n"
    "  --mode M            exact or fast (default: fast where the device has it)\n"
    "  --reference-device D, --reference-mode M   of the reference, where they differ\n"
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
static void show_done(const char *what, size_t done, size_t total, double seconds)
{
    enum { WIDTH = 30 };
    static const char bar[] = "##############################";
    int filled = (int)(done * WIDTH / total);
    double left = done > 0 ? seconds / (double)done * (double)(total - done) : 0;

    if (!isatty(STDERR_FILENO))
        return;
    fprintf(stderr, "\r[%-30.*s] %zu/%zu %s", filled, bar, done, total, what);
    if (done == total)
        fputs("             \n", stderr);
    else if (done > 0)
        fprintf(stderr, ", %d:%02d left ", (int)left / 60, (int)left % 60);
}

/* The bar ends where the work does. */
static bool end_early(void)
{
    if (isatty(STDERR_FILENO))
        fputc('\n', stderr);
    return false;
}

static bool run_pictures(struct eval_run *run)
{
    size_t total = 0, done = 0, j;
    double begin = seconds_now();

    for (j = 0; j < run->record.n; j++)
        total += eval_run_needs(run, j);
    show_done("pictures", 0, total, 0);
    for (j = 0; j < run->record.n; j++) {
        if (!eval_run_needs(run, j))
            continue;
        if (!eval_run_picture(run, j))
            return end_early();
        show_done("pictures", ++done, total, seconds_now() - begin);
    }
    return true;
}

static bool run_questions(struct quiz_run *run)
{
    double begin = seconds_now();
    size_t i;

    show_done("questions", 0, run->n, 0);
    for (i = 0; i < run->n; i++) {
        if (!quiz_run_question(run, i))
            return end_early();
        show_done("questions", i + 1, run->n, seconds_now() - begin);
    }
    return quiz_run_finish(run);
}

static int evaluate_record(const struct eval_settings *settings, bool json)
{
    struct eval_run run;
    double begin = seconds_now();
    int code = EXIT_FAILED;

    if (!eval_run_open(&run, settings) || !run_pictures(&run)) {
        fprintf(stderr, "mmq-eval: %s\n", run.error);
    } else {
        (json ? eval_print_captions_json : eval_print_captions)(&run, seconds_now() - begin);
        code = finish_output("mmq-eval", EXIT_DONE);
    }
    eval_run_close(&run);
    return code;
}

static int evaluate_quiz(const struct eval_settings *settings, bool json)
{
    struct quiz_run run;
    double begin = seconds_now();
    int code = EXIT_FAILED;

    if (!quiz_run_open(&run, settings) || !run_questions(&run)) {
        fprintf(stderr, "mmq-eval: %s\n", run.error);
    } else {
        (json ? eval_print_quiz_json : eval_print_quiz)(&run, seconds_now() - begin);
        code = finish_output("mmq-eval", EXIT_DONE);
    }
    quiz_run_close(&run);
    return code;
}

static bool holds(const char *folder, const char *name)
{
    char path[4096];

    return (size_t)snprintf(path, sizeof path, "%s/%s", folder, name) < sizeof path &&
           access(path, F_OK) == 0;
}

static int evaluate(const struct eval_settings *settings, bool json)
{
    bool record = holds(settings->data, "record.json");
    bool quiz = holds(settings->data, "questions.jsonl");

    if (record == quiz) {
        fprintf(stderr, "mmq-eval: %s holds %s record.json %s questions.jsonl\n", settings->data,
                record ? "both" : "neither", record ? "and" : "nor");
        return EXIT_FAILED;
    }
    if (record && (settings->grey || settings->answers)) {
        fprintf(stderr, "mmq-eval: --grey and --answers are for questions, not for a record\n");
        return EXIT_USAGE;
    }
    return (quiz ? evaluate_quiz : evaluate_record)(settings, json);
}

int main(int argc, char **argv)
{
    struct eval_settings settings = {.max_tokens = 128};
    int64_t limit = INT64_MAX;
    bool json = false, help = false;
    const struct option_row rows[] = {
        {"--data", .text = &settings.data},
        {"--limit", .number = &limit},
        {"--max-tokens", .count = &settings.max_tokens},
        {"--grey", .flag = &settings.grey},
        {"--answers", .text = &settings.answers},
        {"--context", .count = &settings.context},
        {"--device", .text = &settings.device},
        {"--mode", .text = &settings.mode},
        {"--reference-device", .text = &settings.reference_device},
        {"--reference-mode", .text = &settings.reference_mode},
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
