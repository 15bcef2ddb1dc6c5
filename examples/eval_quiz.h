/*
 * Questions with their true answers: questions.jsonl, one JSON object a line, beside its pictures.
 *
 *   {"images": ["a.png", "more/b.jpg"], "question": "...", "answer": "...", "kind": "colour"}
 *
 * Other keys are not looked at. Every line is checked when it is read; an error names file and
 * line, counted from 1.
 */
#ifndef EXAMPLES_EVAL_QUIZ_H
#define EXAMPLES_EVAL_QUIZ_H

#include <stdbool.h>
#include <stddef.h>

#include "eval_model.h"

enum {
    QUIZ_MOST_ITEMS = 1000000,
    QUIZ_MOST_KINDS = 64,
    QUIZ_MOST_KIND_BYTES = 64,
    QUIZ_MOST_TEXT_BYTES = 4096, /* of a question or an answer */
    QUIZ_MOST_NAME_BYTES = 255,  /* of a picture */
    QUIZ_MOST_LINE_BYTES = 65536,
    QUIZ_MOST_BYTES = 256 << 20, /* of the file */
};

struct quiz_item {
    char *images; /* n_images names, one after another; the block that holds all texts */
    const char *question, *answer;
    unsigned char n_images, kind;
};

struct quiz {
    struct quiz_item *items; /* items[i] stands in line i + 1 */
    size_t n, capacity;
    char kinds[QUIZ_MOST_KINDS][QUIZ_MOST_KIND_BYTES + 1]; /* in the order of appearance */
    size_t n_kinds;
    char path[1024];
    char error[1024]; /* after a failure: one line */
};

/* Read `path`. False with quiz->error told and nothing to free; else the caller calls
 * quiz_free(). */
bool quiz_read(struct quiz *quiz, const char *path);
void quiz_free(struct quiz *quiz); /* accepts zeros */

/* How good an answer is, from 0 to 1: 1 when it equals `truth`, both without blanks at their ends.
 * Of kind "describe" it is the F1 of the items between ", ", each counted as often as it stands
 * there; two empty texts agree. */
double quiz_score(const char *kind, const char *truth, const char *answer);

/* Sums over the questions that were answered. Zeros are an empty tally. */
struct quiz_tally {
    struct quiz_sum {
        size_t n;
        double score;
    } all, kind[QUIZ_MOST_KINDS];
};

void quiz_tally_add(struct quiz_tally *tally, size_t kind, double score);
double quiz_mean(const struct quiz_sum *sum); /* NaN where nothing was answered */

#endif
