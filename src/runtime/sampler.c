#include "runtime/sampler.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "core/mem.h"
#include "core/rng.h"
#include "core/status.h"

static bool in_range(float value, float most)
{
    return value >= 0 && value <= most; /* false for NaN */
}

static int32_t check_settings(const struct mmqi_sampling *settings)
{
    if (!in_range(settings->temperature, 1e6f))
        return mmqi_fail(MMQ_ERR_INVALID, "sampling: temperature outside 0..1e6");
    if (settings->top_k < 0)
        return mmqi_fail(MMQ_ERR_INVALID, "sampling: top_k %d is negative", (int)settings->top_k);
    if (!in_range(settings->top_p, 1) || !in_range(settings->min_p, 1))
        return mmqi_fail(MMQ_ERR_INVALID, "sampling: top_p and min_p are probabilities, 0..1");
    if (!in_range(settings->repetition_penalty, 1e6f))
        return mmqi_fail(MMQ_ERR_INVALID, "sampling: repetition_penalty outside 0..1e6");
    return MMQ_OK;
}

int32_t mmqi_sampler_create(struct mmqi_sampler **out, const struct mmqi_sampling *settings,
                            int32_t n_vocab)
{
    struct mmqi_sampler *sampler;
    size_t n = (size_t)n_vocab;
    int32_t status = check_settings(settings);

    *out = NULL;
    if (status != MMQ_OK)
        return status;
    sampler = mmqi_calloc(1, sizeof *sampler);
    if (!sampler)
        return mmqi_fail(MMQ_ERR_NOMEM, "sampling: no memory");
    sampler->settings = *settings;
    sampler->n_vocab = n_vocab;
    sampler->logits = mmqi_alloc_array(n, sizeof *sampler->logits);
    sampler->heap = mmqi_alloc_array(n, sizeof *sampler->heap);
    sampler->kept = mmqi_alloc_array(n, sizeof *sampler->kept);
    sampler->seen = mmqi_calloc(n, 1);
    if (!sampler->logits || !sampler->heap || !sampler->kept || !sampler->seen) {
        mmqi_sampler_free(sampler);
        return mmqi_fail(MMQ_ERR_NOMEM, "sampling: no memory for %zu candidates", n);
    }
    *out = sampler;
    return MMQ_OK;
}

void mmqi_sampler_free(struct mmqi_sampler *sampler)
{
    if (!sampler)
        return;
    mmqi_free(sampler->logits);
    mmqi_free(sampler->heap);
    mmqi_free(sampler->kept);
    mmqi_free(sampler->seen);
    mmqi_free(sampler);
}

void mmqi_sampler_see(struct mmqi_sampler *sampler, int32_t id)
{
    if (id >= 0 && id < sampler->n_vocab)
        sampler->seen[id] = 1;
}

int32_t mmqi_argmax(const float *x, int32_t n)
{
    int32_t best = 0, i;

    for (i = 1; i < n; i++)
        if (x[i] > x[best] || (isnan(x[best]) && !isnan(x[i])))
            best = i;
    return best;
}

static void penalise(struct mmqi_sampler *sampler, const float *logits)
{
    float penalty = sampler->settings.repetition_penalty;
    int32_t i;

    memcpy(sampler->logits, logits, (size_t)sampler->n_vocab * sizeof *logits);
    if (penalty == 0 || penalty == 1)
        return;
    for (i = 0; i < sampler->n_vocab; i++)
        if (sampler->seen[i])
            sampler->logits[i] = logits[i] > 0 ? logits[i] / penalty : logits[i] * penalty;
}

/* Does candidate a come before b: likelier, or as likely with the lower id? */
static bool before(const float *logits, int32_t a, int32_t b)
{
    return logits[a] > logits[b] || (logits[a] == logits[b] && a < b);
}

static void sift_down(const float *logits, int32_t *heap, int32_t n, int32_t at)
{
    int32_t child, id = heap[at];

    for (; (child = 2 * at + 1) < n; at = child) {
        if (child + 1 < n && before(logits, heap[child + 1], heap[child]))
            child++;
        if (!before(logits, heap[child], id))
            break;
        heap[at] = heap[child];
    }
    heap[at] = id;
}

static int32_t make_heap(struct mmqi_sampler *sampler)
{
    int32_t n = 0, i;

    for (i = 0; i < sampler->n_vocab; i++)
        if (!isnan(sampler->logits[i]))
            sampler->heap[n++] = i;
    for (i = n / 2 - 1; i >= 0; i--)
        sift_down(sampler->logits, sampler->heap, n, i);
    return n;
}

/* exp((logit - greatest) / temperature): a probability but for its normaliser. A penalty may have
 * made the greatest infinite; its difference to itself is still nothing. */
static double weight(const struct mmqi_sampler *sampler, int32_t id, float greatest)
{
    if (sampler->logits[id] == greatest)
        return 1;
    return exp(((double)sampler->logits[id] - greatest) / sampler->settings.temperature);
}

/* The likeliest candidates within top-k, in order, into kept[]; their total weight. */
static double take_top_k(struct mmqi_sampler *sampler, int32_t *n_kept, float *greatest)
{
    int32_t n = make_heap(sampler), k = sampler->settings.top_k, i;
    double total = 0;

    if (k == 0 || k > n)
        k = n;
    *greatest = n > 0 ? sampler->logits[sampler->heap[0]] : 0;
    for (i = 0; i < k; i++) {
        sampler->kept[i] = sampler->heap[0];
        sampler->heap[0] = sampler->heap[--n];
        if (n > 0)
            sift_down(sampler->logits, sampler->heap, n, 0);
        total += weight(sampler, sampler->kept[i], *greatest);
    }
    *n_kept = k;
    return total;
}

static int32_t sample(struct mmqi_sampler *sampler, uint64_t index)
{
    const struct mmqi_sampling *settings = &sampler->settings;
    double total, mass = 0, target;
    int32_t n, end = 0, i;
    float greatest;

    total = take_top_k(sampler, &n, &greatest);
    if (n == 0)
        return 0;
    for (; end < n; end++) { /* top-p keeps the candidate that crosses p; min-p ends at the first
                                too unlikely */
        double w = weight(sampler, sampler->kept[end], greatest);

        if (end > 0 && settings->top_p > 0 && settings->top_p < 1 &&
            mass >= settings->top_p * total)
            break;
        if (w < settings->min_p)
            break;
        mass += w;
    }
    target = mmqi_rng_uniform(settings->seed, 0, index) * mass;
    for (i = 0; i + 1 < end; i++) {
        target -= weight(sampler, sampler->kept[i], greatest);
        if (target < 0)
            break;
    }
    return sampler->kept[i];
}

int32_t mmqi_sampler_pick(struct mmqi_sampler *sampler, const float *logits, uint64_t index)
{
    penalise(sampler, logits);
    if (sampler->settings.temperature == 0)
        return mmqi_argmax(sampler->logits, sampler->n_vocab);
    return sample(sampler, index);
}
