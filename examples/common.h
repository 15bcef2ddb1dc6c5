/*
 * What the example programs share: arguments, errors, a progress bar.
 *
 * Tokens and figures go to stdout, everything else to stderr. Exit status: 0 done, 1 failed
 * (one line on stderr says why), 2 wrong usage.
 */
#ifndef EXAMPLES_COMMON_H
#define EXAMPLES_COMMON_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "mmq.h"

enum { EXIT_DONE = 0, EXIT_FAILED = 1, EXIT_USAGE = 2 };

/* One option of a program. Exactly one of the targets is set; `flag` takes no value. */
struct option_row {
    const char *name;  /* "--limit"; "-p" for a short one */
    const char **text; /* takes the next argument as it is */
    int32_t *count;    /* takes the next argument as a whole number from 0 to INT32_MAX */
    int64_t *number;   /* the same, to INT64_MAX */
    float *real;       /* takes the next argument as a number >= 0 */
    bool *flag;
};

/*
 * Sort argv into options (rows end with a NULL name) and operands, in order. Returns the number of
 * operands, or -1 after a line on stderr. "--" ends the options.
 */
int read_arguments(int argc, char **argv, const struct option_row *rows, const char **operands,
                   int most);

/* "PROGRAM: message" with the library's last error; returns EXIT_FAILED. */
int report_failure(const char *program);

/* Flush stdout before the program ends with `code`; EXIT_FAILED, and a line on stderr, where not
 * all of it could be written. */
int finish_output(const char *program, int code);

/* A bar on stderr, only when stderr is a terminal; `user` is the label. An mmq_progress_fn. */
int32_t show_progress(void *user, uint64_t done, uint64_t total);

/* `text` as a JSON string, quotes included. */
void print_json_string(FILE *out, const char *text);

#endif
