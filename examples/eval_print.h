/* The figures of a run on stdout: a table to read, or one JSON object. */
#ifndef EXAMPLES_EVAL_PRINT_H
#define EXAMPLES_EVAL_PRINT_H

#include "eval_quiz_run.h"
#include "eval_run.h"

void eval_print_captions(struct eval_run *run, double seconds);
void eval_print_captions_json(struct eval_run *run, double seconds);

void eval_print_quiz(struct quiz_run *run, double seconds);
void eval_print_quiz_json(struct quiz_run *run, double seconds);

/* Lines of a table. `name` is that of a row, `how` of the prompts, `tokens` of what was forced. */
void eval_print_model(const char *name, const struct eval_model *m, const char *path,
                      const char *how);
void eval_print_divergence(struct eval_divergence *divergence, const char *tokens);

/* Members of a JSON object, each with its comma. What was not measured is null. */
void eval_print_text(const char *key, const char *value);
void eval_print_count(const char *key, size_t value);
void eval_print_number(const char *key, double value);
void eval_print_json_divergence(struct eval_divergence *divergence);

#endif
