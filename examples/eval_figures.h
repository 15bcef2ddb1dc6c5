/*
 * The figures of mmq-eval and their arithmetic: what one model says about the entries, against the
 * record, and how far the next-token distributions of two models lie apart.
 */
#ifndef EXAMPLES_EVAL_FIGURES_H
#define EXAMPLES_EVAL_FIGURES_H

#include <stdbool.h>
#include <stddef.h>

#include "eval_record.h"

/* A greatest value and the entry that it was found in. */
struct eval_worst {
    double value;
    size_t entry;
};

/* Sums over the entries that were measured. Zeros are an empty tally. */
struct eval_tally {
    size_t pictures; /* first captions with the right picture */
    size_t tokens, top1, same_token_count;
    double nll_sum, nll_sum_wrong_picture; /* nats */
    size_t tokens_wrong_picture;
    size_t captions, captions_equal;
    size_t questions, answers_right, answers_as_recorded;
    struct eval_worst nll_deviation, wrong_deviation, margin_deviation; /* from the record */
};

void eval_tally_caption(struct eval_tally *tally, const struct eval_entry *entry, size_t index,
                        double nll_sum, size_t tokens, size_t top1);
void eval_tally_wrong_picture(struct eval_tally *tally, const struct eval_entry *entry,
                              size_t index, double nll_sum, size_t tokens);
void eval_tally_question(struct eval_tally *tally, const struct eval_question *question,
                         size_t index, double margin);

/* `text` as it was generated: blanks at both ends do not count. */
void eval_tally_greedy(struct eval_tally *tally, const struct eval_entry *entry, const char *text);

/* The tally that the recorded model would get on the first `n` entries. */
void eval_tally_record(struct eval_tally *tally, const struct eval_record *record, size_t n);

/* NaN where nothing was measured. */
double eval_caption_loss(const struct eval_tally *tally);
double eval_wrong_picture_loss(const struct eval_tally *tally);
double eval_yes_no_accuracy(const struct eval_tally *tally);
double eval_token_top1(const struct eval_tally *tally);

/* `text` without blanks at both ends: where it begins; *n, its bytes. */
const char *eval_strip(const char *text, size_t *n);

/* The index of the greatest of n values; the lowest of equal ones. */
size_t eval_argmax(const float *values, size_t n);

/* KL(p || q) in nats of the distributions with these logits, in double. Not finite when a logit
 * that counts is not. */
double eval_kl(const float *p, const float *q, size_t n);

/* sorted[floor(n * thousandths / 1000)] of n > 0 values in ascending order; thousandths < 1000. */
double eval_percentile(const double *sorted, size_t n, size_t thousandths);

/* One KL divergence per position. Zeros are empty; free with eval_divergence_free(). */
struct eval_divergence {
    double *kl;
    size_t n, capacity;
    size_t top1_equal;
};

/* Add a position with the logits p and q [n_vocab]. False without memory. */
bool eval_divergence_add(struct eval_divergence *divergence, const float *p, const float *q,
                         size_t n_vocab);
void eval_divergence_free(struct eval_divergence *divergence);

struct eval_divergence_figures {
    double mean_kl, kl_p99, kl_p999, top1_agreement; /* NaN without positions */
};

/* Sorts the values. */
struct eval_divergence_figures eval_divergence_figures(struct eval_divergence *divergence);

#endif
