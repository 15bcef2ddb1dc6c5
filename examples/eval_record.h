/*
 * What mmq-eval measures against: record.json, one entry per picture with captions, questions and
 * the figures of the model in 16 bit. Every figure and name is checked when it is read.
 */
#ifndef EXAMPLES_EVAL_RECORD_H
#define EXAMPLES_EVAL_RECORD_H

#include <stdbool.h>
#include <stddef.h>

#include "json.h"

enum {
    EVAL_MOST_ENTRIES = 100000,
    EVAL_MOST_QUESTIONS = 64,      /* about one picture */
    EVAL_MOST_CAPTION_BYTES = 4096 /* of a caption or question */
};

struct eval_question {
    const char *text;
    bool answer;   /* the true one: Yes */
    bool model;    /* the recorded model's */
    double margin; /* its logit of " Yes" minus that of " No" */
};

struct eval_entry {
    const char *file;    /* a plain name in images/ */
    const char *caption; /* the first one */
    const char *greedy;
    double nll_sum, nll_sum_wrong_picture; /* nats, of the first caption's tokens and the end */
    size_t tokens, top1;
    struct eval_question *questions;
    size_t n_questions;
};

struct eval_record {
    struct json_document json; /* owns the strings */
    struct eval_entry *entries;
    size_t n;
    struct eval_question *questions; /* of all entries */
    char error[512];                 /* after a failure: one line */
};

/* Read `path`. False with record->error told and nothing to free; otherwise the caller calls
 * eval_record_free(). */
bool eval_record_read(struct eval_record *record, const char *path);
void eval_record_free(struct eval_record *record); /* accepts a record of zeros */

/* The entry whose picture is the wrong one of entry i of n, and the entry for which picture j is
 * the wrong one. */
size_t eval_wrong_picture(size_t i, size_t n);
size_t eval_wrong_picture_owner(size_t j, size_t n);

/* A name that cannot leave its folder: not empty, not hidden, no separators, no control bytes. */
bool eval_is_plain_name(const char *name);

#endif
