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
#include "eval_record.h"
#include "mmq.h"

/* One model at work. */
struct eval_side {
    mmq_model *model;
    mmq_session *session;
    const char *device;
    bool chat_template; /* it words the prompts as the record does, so it is used */
    int32_t yes, no;    /* the tokens of " Yes" and " No" */
    int32_t eos;
    size_t n_vocab;
    struct eval_tally tally;
};

struct eval_settings {
    const char *reference, *candidate; /* folders; candidate NULL: the reference is measured */
    const char *data;                  /* the folder with record.json and images/ */
    const char *isa;                   /* NULL: the best there is */
    int32_t n_threads;                 /* 0: all */
    size_t limit;                      /* of entries */
};

struct eval_run {
    struct eval_settings settings;
    struct eval_record record;
    size_t n;                 /* entries that are measured: the first n */
    struct eval_side side[2]; /* the reference, the candidate */
    struct eval_side *measured;
    struct eval_divergence divergence;
    float *rows; /* the reference's logits at the caption in hand, [most_rows, n_vocab] */
    size_t n_rows, most_rows;
    char error[1024]; /* after a failure: one line */
};

/* Read the record and open the models. False with run->error told; eval_run_close() either way. */
bool eval_run_open(struct eval_run *run, const struct eval_settings *settings);
void eval_run_close(struct eval_run *run);

/* Whether picture j of the record is needed for one of the entries that are measured. */
bool eval_run_needs(const struct eval_run *run, size_t j);

/* Do everything that picture j is needed for. False with run->error told. */
bool eval_run_picture(struct eval_run *run, size_t j);

#endif
