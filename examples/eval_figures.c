/* Sums, divergences and percentiles: no model is needed to test them. */
#include "eval_figures.h"

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* Not-a-number counts as the worst. */
static void keep_worst(struct eval_worst *worst, double value, size_t entry)
{
    if (isnan(worst->value) || value <= worst->value)
        return;
    *worst = (struct eval_worst){value, entry};
}

void eval_tally_caption(struct eval_tally *tally, const struct eval_entry *entry, size_t index,
                        double nll_sum, size_t tokens, size_t top1)
{
    tally->pictures++;
    tally->tokens += tokens;
    tally->top1 += top1;
    tally->same_token_count += tokens == entry->tokens;
    tally->nll_sum += nll_sum;
    keep_worst(&tally->nll_deviation, fabs(nll_sum - entry->nll_sum), index);
}

void eval_tally_wrong_picture(struct eval_tally *tally, const struct eval_entry *entry,
                              size_t index, double nll_sum, size_t tokens)
{
    tally->nll_sum_wrong_picture += nll_sum;
    tally->tokens_wrong_picture += tokens;
    keep_worst(&tally->wrong_deviation, fabs(nll_sum - entry->nll_sum_wrong_picture), index);
}

void eval_tally_question(struct eval_tally *tally, const struct eval_question *question,
                         size_t index, double margin)
{
    bool yes = margin > 0;

    tally->questions++;
    tally->answers_right += yes == question->answer;
    tally->answers_as_recorded += yes == question->model;
    keep_worst(&tally->margin_deviation, fabs(margin - question->margin), index);
}

void eval_tally_greedy(struct eval_tally *tally, const struct eval_entry *entry, const char *text)
{
    size_t n, n_recorded;
    const char *made = eval_strip(text, &n), *recorded = eval_strip(entry->greedy, &n_recorded);

    tally->captions++;
    tally->captions_equal += n == n_recorded && memcmp(made, recorded, n) == 0;
}

void eval_tally_record(struct eval_tally *tally, const struct eval_record *record, size_t n)
{
    size_t i, k;

    memset(tally, 0, sizeof *tally);
    for (i = 0; i < n && i < record->n; i++) {
        const struct eval_entry *entry = &record->entries[i];

        eval_tally_caption(tally, entry, i, entry->nll_sum, entry->tokens, entry->top1);
        eval_tally_wrong_picture(tally, entry, i, entry->nll_sum_wrong_picture, entry->tokens);
        eval_tally_greedy(tally, entry, entry->greedy);
        for (k = 0; k < entry->n_questions; k++) {
            const struct eval_question *question = &entry->questions[k];

            tally->questions++;
            tally->answers_right += question->model == question->answer;
            tally->answers_as_recorded++;
        }
    }
}

static double ratio(double sum, size_t n)
{
    return n > 0 ? sum / (double)n : NAN;
}

double eval_caption_loss(const struct eval_tally *tally)
{
    return ratio(tally->nll_sum, tally->tokens);
}

double eval_wrong_picture_loss(const struct eval_tally *tally)
{
    return ratio(tally->nll_sum_wrong_picture, tally->tokens_wrong_picture);
}

double eval_yes_no_accuracy(const struct eval_tally *tally)
{
    return ratio((double)tally->answers_right, tally->questions);
}

double eval_token_top1(const struct eval_tally *tally)
{
    return ratio((double)tally->top1, tally->tokens);
}

static bool is_blank(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r') || (c >= 0x1C && c <= 0x1F);
}

const char *eval_strip(const char *text, size_t *n)
{
    size_t size;

    while (is_blank(*text))
        text++;
    for (size = strlen(text); size > 0 && is_blank(text[size - 1]);)
        size--;
    *n = size;
    return text;
}

size_t eval_argmax(const float *values, size_t n)
{
    size_t best = 0, i;

    for (i = 1; i < n; i++)
        if (values[i] > values[best])
            best = i;
    return best;
}

/*
 * With a = p - max p and b = q - max q:
 *   KL = sum of softmax(a) * (a - b)  -  log sum exp a  +  log sum exp b
 * which needs two exponentials a value. Where exp(a) is zero, the value adds nothing (0 log 0 = 0).
 */
double eval_kl(const float *p, const float *q, size_t n)
{
    double p_max = p[eval_argmax(p, n)], q_max = q[eval_argmax(q, n)];
    double p_sum = 0, q_sum = 0, cross = 0;
    size_t i;

    for (i = 0; i < n; i++) {
        double a = (double)p[i] - p_max, b = (double)q[i] - q_max, e = exp(a);

        p_sum += e;
        q_sum += exp(b);
        if (e != 0)
            cross += e * (a - b);
    }
    return cross / p_sum - log(p_sum) + log(q_sum);
}

double eval_percentile(const double *sorted, size_t n, size_t thousandths)
{
    return sorted[n / 1000 * thousandths + n % 1000 * thousandths / 1000];
}

bool eval_divergence_add(struct eval_divergence *divergence, const float *p, const float *q,
                         size_t n_vocab)
{
    if (divergence->n == divergence->capacity) {
        size_t capacity = divergence->capacity > 0 ? 2 * divergence->capacity : 1024;
        double *kl;

        if (capacity > SIZE_MAX / sizeof *kl)
            return false;
        kl = realloc(divergence->kl, capacity * sizeof *kl);
        if (!kl)
            return false;
        divergence->kl = kl;
        divergence->capacity = capacity;
    }
    divergence->kl[divergence->n++] = eval_kl(p, q, n_vocab);
    divergence->top1_equal += eval_argmax(p, n_vocab) == eval_argmax(q, n_vocab);
    return true;
}

void eval_divergence_free(struct eval_divergence *divergence)
{
    free(divergence->kl);
    *divergence = (struct eval_divergence){0};
}

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

struct eval_divergence_figures eval_divergence_figures(struct eval_divergence *divergence)
{
    struct eval_divergence_figures figures = {NAN, NAN, NAN, NAN};
    double sum = 0;
    size_t i, n = divergence->n;

    if (n == 0)
        return figures;
    qsort(divergence->kl, n, sizeof *divergence->kl, compare_doubles);
    for (i = 0; i < n; i++)
        sum += divergence->kl[i];
    figures.mean_kl = sum / (double)n;
    figures.kl_p99 = eval_percentile(divergence->kl, n, 990);
    figures.kl_p999 = eval_percentile(divergence->kl, n, 999);
    figures.top1_agreement = (double)divergence->top1_equal / (double)n;
    return figures;
}
