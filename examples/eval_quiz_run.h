/*
 * Answering the questions of a data folder, one after another. The pictures of the last question
 * are kept, so that a session that is asked about them again has seen them.
 */
#ifndef EXAMPLES_EVAL_QUIZ_RUN_H
#define EXAMPLES_EVAL_QUIZ_RUN_H

#include <stdio.h>

#include "eval_model.h"
#include "eval_quiz.h"

struct quiz_picture {
    char *name; /* owned */
    mmq_image *image;
};

struct quiz_run {
    struct eval_settings settings;
    struct quiz quiz;
    size_t n;                  /* questions that are asked: the first n */
    struct eval_model side[2]; /* the reference, the candidate */
    struct eval_model *measured;
    struct quiz_tally tally; /* of the measured one's answers */
    struct eval_force force; /* of the true answers; the candidate's divergence */
    struct quiz_picture pictures[EVAL_MOST_IMAGES]; /* of the last question */
    size_t n_pictures;
    FILE *answers;
    char error[1024]; /* after a failure: one line */
};

/* Read the questions and open the models. False with run->error told; quiz_run_close() either
 * way. */
bool quiz_run_open(struct quiz_run *run, const struct eval_settings *settings);
void quiz_run_close(struct quiz_run *run);

/* Ask question i. False with run->error told. */
bool quiz_run_question(struct quiz_run *run, size_t i);

/* After the last question: what was written is in the file. False with run->error told. */
bool quiz_run_finish(struct quiz_run *run);

#endif
