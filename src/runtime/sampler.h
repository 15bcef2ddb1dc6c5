/*
 * Choosing the next token from its logits.
 *
 * Order as transformers: repetition penalty, temperature, top-k, top-p,
 * min-p. Token number i of an answer is a pure function of the settings,
 * (seed, i) and the logits.
 */
#ifndef MMQI_RUNTIME_SAMPLER_H
#define MMQI_RUNTIME_SAMPLER_H

#include <stddef.h>
#include <stdint.h>

struct mmqi_sampling {
    float temperature;        /* 0: greedy */
    int32_t top_k;            /* 0: all */
    float top_p, min_p;       /* top_p 0 or >= 1: all; min_p 0: all */
    float repetition_penalty; /* 0 or 1: off */
    uint64_t seed;
};

struct mmqi_sampler {
    struct mmqi_sampling settings;
    int32_t n_vocab;
    float *logits; /* [n_vocab]: the penalised copy */
    int32_t *heap; /* [n_vocab]: candidates, the likeliest on top */
    int32_t *kept; /* [n_vocab]: those that may be drawn, likeliest first */
    uint8_t *seen; /* [n_vocab]: ids of the timeline */
};

/* MMQ_ERR_INVALID: settings out of range or not finite. */
int32_t mmqi_sampler_create(struct mmqi_sampler **out, const struct mmqi_sampling *settings,
                            int32_t n_vocab);
void mmqi_sampler_free(struct mmqi_sampler *sampler); /* accepts NULL */

/* An id that the repetition penalty applies to from now on. */
void mmqi_sampler_see(struct mmqi_sampler *sampler, int32_t id);

/* Token number `index` of the answer. */
int32_t mmqi_sampler_pick(struct mmqi_sampler *sampler, const float *logits, uint64_t index);

/* Index of the greatest; the lowest wins a tie. NaN loses; 0 where all are NaN. */
int32_t mmqi_argmax(const float *x, int32_t n);

#endif
