/* Teacher forcing: the probability of given tokens after a prompt. */
#include <math.h>

#include "core/mem.h"
#include "core/status.h"
#include "runtime/generate.h"

struct scoring {
    const struct mmqi_evaluate_options *options;
    double *logprobs;
    int32_t *top1;
    size_t n_vocab;
};

/* log softmax(logits)[target], the sum in double in index order. */
static double log_probability(const float *logits, size_t n, int32_t target)
{
    double greatest = logits[mmqi_argmax(logits, (int32_t)n)], sum = 0;
    size_t i;

    for (i = 0; i < n; i++)
        sum += exp((double)logits[i] - greatest);
    return (double)logits[target] - greatest - log(sum);
}

static int32_t score_row(void *user, size_t index, const float *logits)
{
    const struct scoring *scoring = user;
    const struct mmqi_evaluate_options *options = scoring->options;
    const struct mmqi_mem_hooks *hooks;
    int32_t answer;

    if (index < options->n_targets) {
        scoring->logprobs[index] =
            log_probability(logits, scoring->n_vocab, options->targets[index]);
        scoring->top1[index] = mmqi_argmax(logits, (int32_t)scoring->n_vocab);
    }
    if (!options->on_logits)
        return MMQ_OK;
    hooks = mmqi_mem_enter(NULL);
    answer = options->on_logits(options->user, index, logits, scoring->n_vocab);
    mmqi_mem_enter(hooks);
    if (answer != 0)
        return mmqi_fail(MMQ_ERR_CALLBACK, "evaluate: the callback ended it at row %zu", index);
    return MMQ_OK;
}

/* Every target but the last is read by the model; the last is only asked for. */
static int32_t add_targets(struct mmqi_tokens *tokens, const struct mmqi_model *model,
                           const struct mmqi_evaluate_options *options)
{
    int32_t status = MMQ_OK, id;
    size_t i;

    for (i = 0; i < options->n_targets && status == MMQ_OK; i++) {
        id = options->targets[i];
        if (id < 0 || id >= model->spec.vocab_size)
            return mmqi_fail(MMQ_ERR_INVALID,
                             "evaluate: target %zu is %d, outside the vocabulary of %d", i, (int)id,
                             (int)model->spec.vocab_size);
        if (i + 1 < options->n_targets)
            status = mmqi_tokens_answer(tokens, id);
    }
    return status;
}

int32_t mmqi_evaluate(double *logprobs, int32_t *top1, struct mmqi_session *session,
                      const struct mmqi_evaluate_options *options)
{
    const struct mmqi_model *model = session->model;
    struct scoring scoring = {options, logprobs, top1, (size_t)model->spec.vocab_size};
    struct mmqi_tokens tokens = {0};
    size_t first_logit = 0;
    int32_t kept, status;

    status = mmqi_session_tokens(&tokens, session, &options->prompt);
    if (status != MMQ_OK)
        goto done;
    first_logit = tokens.n - 1;
    status = add_targets(&tokens, model, options);
    if (status != MMQ_OK)
        goto done;
    status = mmqi_session_match(session, &tokens, options->prompt.images, options->prompt.n_images,
                                first_logit, &kept);
    if (status == MMQ_OK)
        status = mmqi_session_run(session, tokens.data, tokens.n, first_logit, score_row, &scoring,
                                  &options->watch);
done:
    mmqi_tokens_free(&tokens);
    return status;
}
