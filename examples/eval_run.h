/*
 * Measuring models on the entries of a record, picture by picture: a session keeps the prompt and
 * the picture that it holds, so everything that needs one picture is asked while it is held.
 */
#ifndef EXAMPLES_EVAL_RUN_H
#define EXAMPLES_EVAL_RUN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "eval_figures.h"
#include "eval_model.h"
#include "eval_record.h"

/* One model at work. */
struct eval_side {
    struct eval_model m;
    bool chat_template; /* it words the prompts as the record does, so it is used */
    int32_t yes, no;    /* the tokens of " Yes" and " No" */
    struct eval_tally tally;
};

struct eval_run {
    struct eval_settings settings;
    struct eval_record record;
    size_t n;                 /* entries that are measured: the first n */
    struct eval_side side[2]; /* the reference, the candidate */
    struct eval_side *measured;
    struct eval_force force; /* of captions; the candidate's divergence */
    char error[1024];        /* after a failure: one line */
};

/* Read the record and open the models. False with run->error told; eval_run_close() either way. */
bool eval_run_open(struct eval_run *run, const struct eval_settings *settings);
void eval_run_close(struct eval_run *run);

/* Whether picture j of the record is needed for one of the entries that are measured. */
bool eval_run_needs(const struct eval_run *run, size_t j);

/* Do everything that picture j is needed for. False with run->error told. */
bool eval_run_picture(struct eval_run *run, size_t j);

#endif
