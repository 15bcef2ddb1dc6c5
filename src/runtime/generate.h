/* Answering a prompt, and measuring how likely an answer is. */
#ifndef MMQI_RUNTIME_GENERATE_H
#define MMQI_RUNTIME_GENERATE_H

#include "core/buf.h"
#include "runtime/sampler.h"
#include "runtime/session.h"

struct mmqi_generate_options {
    struct mmqi_prompt prompt;
    struct mmqi_sampling sampling;
    int32_t max_new_tokens; /* 0: to the end of the context */
    bool ignore_eos;
    const char *const *stop;
    size_t n_stop;
    /* Whole characters, and the ids sampled since the last call; nonzero ends the work. NULL: none.
     */
    int32_t (*on_text)(void *user, const char *text, size_t size, const int32_t *ids, size_t n_ids);
    void *user;
    /* The logits that choose token `index` of the answer; nonzero ends the work. NULL: none. */
    int32_t (*on_logits)(void *user, size_t index, const float *logits, size_t n_vocab);
    void *logits_user;
    struct mmqi_watch watch;
};

/* The numbers are the public MMQ_FINISH_... */
struct mmqi_answer {
    struct mmqi_buf text; /* without special tokens and what a stop string cut */
    struct mmqi_ids ids;
    int32_t finish;
    int32_t n_prompt, n_reused, n_encoded;
    uint64_t prefill_ns, decode_ns, encode_ns; /* encode_ns is part of prefill_ns */
};

int32_t mmqi_generate(struct mmqi_answer *answer, struct mmqi_session *session,
                      const struct mmqi_generate_options *options);
void mmqi_answer_clear(struct mmqi_answer *answer);

struct mmqi_evaluate_options {
    struct mmqi_prompt prompt;
    const int32_t *targets;
    size_t n_targets;
    int32_t (*on_logits)(void *user, size_t index, const float *logits,
                         size_t n_vocab); /* or NULL */
    void *user;
    struct mmqi_watch watch;
};

/* logprobs and top1 hold n_targets each. */
int32_t mmqi_evaluate(double *logprobs, int32_t *top1, struct mmqi_session *session,
                      const struct mmqi_evaluate_options *options);

#endif
