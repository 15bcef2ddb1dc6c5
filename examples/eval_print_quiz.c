/* The figures of questions. */
#include "eval_print.h"

#include <stdio.h>

#include "common.h"

void eval_print_quiz(struct quiz_run *run, double seconds)
{
    size_t i;

    eval_print_model("reference", &run->side[0], run->settings.reference, "chat template");
    if (run->settings.candidate)
        eval_print_model("candidate", &run->side[1], run->settings.candidate, "chat template");
    printf("%zu questions%s, %.1f s\n\n", run->tally.all.n,
           run->settings.grey ? " about grey pictures" : "", seconds);
    printf("%-22s %12s %12s\n", "kind", "questions", "score, %");
    for (i = 0; i < run->quiz.n_kinds; i++)
        if (run->tally.kind[i].n > 0)
            printf("%-22s %12zu %12.2f\n", run->quiz.kinds[i], run->tally.kind[i].n,
                   100 * quiz_mean(&run->tally.kind[i]));
    printf("%-22s %12zu %12.2f\n", "all", run->tally.all.n, 100 * quiz_mean(&run->tally.all));
    if (run->settings.candidate)
        eval_print_divergence(&run->force.divergence, "answer");
}

static void print_by_kind(const struct quiz_run *run)
{
    const char *comma = "";
    size_t i;

    fputs(" \"by_kind\": {", stdout);
    for (i = 0; i < run->quiz.n_kinds; i++) {
        if (run->tally.kind[i].n == 0)
            continue;
        printf("%s\n  ", comma);
        print_json_string(stdout, run->quiz.kinds[i]);
        printf(": {\"n\": %zu, \"score\": %.9g}", run->tally.kind[i].n,
               quiz_mean(&run->tally.kind[i]));
        comma = ",";
    }
    puts("\n },");
}

void eval_print_quiz_json(struct quiz_run *run, double seconds)
{
    puts("{");
    eval_print_number("exact_match", quiz_mean(&run->tally.all));
    print_by_kind(run);
    if (run->settings.candidate) {
        eval_print_json_divergence(&run->force.divergence);
        eval_print_count("tokens", run->force.divergence.n);
        eval_print_text("candidate", run->settings.candidate);
    }
    eval_print_text("reference", run->settings.reference);
    eval_print_text("device", run->measured->device);
    eval_print_text("mode", run->measured->mode);
    eval_print_count("questions", run->tally.all.n);
    printf(" \"grey\": %s,\n", run->settings.grey ? "true" : "false");
    printf(" \"seconds\": %.3f\n}\n", seconds);
}
