/* What the tables and objects of all runs share. */
#include "eval_print.h"

#include <math.h>
#include <stdio.h>

#include "common.h"

void eval_print_model(const char *name, const struct eval_model *m, const char *path,
                      const char *how)
{
    printf("%-10s %s (%s, %s, %s)\n", name, path, m->device, m->mode, how);
}

void eval_print_divergence(struct eval_divergence *divergence, const char *tokens)
{
    struct eval_divergence_figures figures = eval_divergence_figures(divergence);

    printf("\nKL(reference || candidate) in nats at %zu %s tokens\n", divergence->n, tokens);
    printf("  %-20s %12.6f\n", "mean", figures.mean_kl);
    printf("  %-20s %12.6f\n", "p99", figures.kl_p99);
    printf("  %-20s %12.6f\n", "p99.9", figures.kl_p999);
    printf("  %-20s %12.2f\n", "top-1 agreement, %", 100 * figures.top1_agreement);
}

void eval_print_text(const char *key, const char *value)
{
    printf(" \"%s\": ", key);
    print_json_string(stdout, value);
    puts(",");
}

void eval_print_count(const char *key, size_t value)
{
    printf(" \"%s\": %zu,\n", key, value);
}

void eval_print_number(const char *key, double value)
{
    if (isfinite(value))
        printf(" \"%s\": %.9g,\n", key, value);
    else
        printf(" \"%s\": null,\n", key);
}

void eval_print_json_divergence(struct eval_divergence *divergence)
{
    struct eval_divergence_figures figures = eval_divergence_figures(divergence);

    eval_print_number("mean_kl", figures.mean_kl);
    eval_print_number("kl_p99", figures.kl_p99);
    eval_print_number("kl_p999", figures.kl_p999);
    eval_print_number("top1_agreement", figures.top1_agreement);
}
