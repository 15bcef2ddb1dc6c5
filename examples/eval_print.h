/* The figures of a run on stdout: a table to read, or one JSON object. */
#ifndef EXAMPLES_EVAL_PRINT_H
#define EXAMPLES_EVAL_PRINT_H

#include "eval_run.h"

void eval_print_table(struct eval_run *run, double seconds);
void eval_print_json(struct eval_run *run, double seconds);

#endif
