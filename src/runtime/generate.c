/*
 * The loop from a prompt to an answer: prefill, sample, stream, stop.
 *
 * Where nobody wants to see logits and the likeliest token is taken, the device goes on by itself:
 * it may be one step ahead of what is read here, and what it computed behind a stop is forgotten.
 */
#include "runtime/generate.h"

#include <string.h>

#include "core/mem.h"
#include "core/os.h"
#include "core/status.h"
#include "core/text.h"
#include "text/utf8.h"

/* One call at work. */
struct generation {
    struct mmqi_session *session;
    const struct mmqi_generate_options *options;
    struct mmqi_answer *answer;
    struct mmqi_sampler *sampler;
    struct mmqi_decoder *decoder;
    struct mmqi_tokens tokens;    /* prompt, then what was sampled */
    size_t text_given, ids_given; /* what on_text has had */
    int32_t next;                 /* sampled, not yet run */
    bool ended;
};

static int32_t show_logits(const struct generation *g, const float *logits)
{
    const struct mmqi_generate_options *options = g->options;
    const struct mmqi_mem_hooks *hooks;
    int32_t answer;

    if (!options->on_logits)
        return MMQ_OK;
    hooks = mmqi_mem_enter(NULL);
    answer = options->on_logits(options->logits_user, g->answer->ids.n, logits,
                                (size_t)g->session->model->spec.vocab_size);
    mmqi_mem_enter(hooks);
    if (answer != 0)
        return mmqi_fail(MMQ_ERR_CALLBACK, "generate: the callback ended it at the logits of %zu",
                         g->answer->ids.n);
    return MMQ_OK;
}

static int32_t pick_row(void *user, size_t index, const float *logits)
{
    struct generation *g = user;
    int32_t status = show_logits(g, logits);

    (void)index;
    if (status != MMQ_OK)
        return status;
    g->next = mmqi_sampler_pick(g->sampler, logits, g->answer->ids.n);
    return MMQ_OK;
}

/* Where the first stop string begins at or after `from`; the text's size for nowhere. The text may
 * hold zero bytes: a token of one is a token like any other. */
static size_t find_stop(const struct generation *g, size_t from)
{
    const struct mmqi_buf *text = &g->answer->text;
    size_t best = text->size, i, at;

    for (i = 0; i < g->options->n_stop; i++) {
        const char *stop = g->options->stop[i];

        at = mmqi_find_word(text->data, text->size, from, stop, strlen(stop));
        if (at < best)
            best = at;
    }
    return best;
}

/* Bytes at the end of the text that may yet grow into a stop string. */
static size_t held_back(const struct generation *g)
{
    const struct mmqi_buf *text = &g->answer->text;
    size_t most = 0, i, size;

    for (i = 0; i < g->options->n_stop; i++) {
        size = strlen(g->options->stop[i]) - 1;
        if (size > text->size)
            size = text->size;
        for (; size > most; size--)
            if (memcmp(text->data + text->size - size, g->options->stop[i], size) == 0)
                most = size;
    }
    return most;
}

/* Give the caller the text up to `end`, with the ids that were sampled since. */
static int32_t give_text(struct generation *g, size_t end)
{
    const struct mmqi_answer *answer = g->answer;
    const struct mmqi_mem_hooks *hooks;
    size_t begin = g->text_given, first = g->ids_given;
    int32_t said;

    /* A stop string may begin in text that was given before it was known: never take back. */
    if (end < begin)
        end = begin;
    g->text_given = end;
    g->ids_given = answer->ids.n;
    if (!g->options->on_text || (begin == end && first == answer->ids.n))
        return MMQ_OK;
    hooks = mmqi_mem_enter(NULL);
    said = g->options->on_text(g->options->user, answer->text.data ? answer->text.data + begin : "",
                               end - begin, answer->ids.data + first, answer->ids.n - first);
    mmqi_mem_enter(hooks);
    if (said != 0)
        return mmqi_fail(MMQ_ERR_CALLBACK, "generate: the callback ended it after %zu tokens",
                         answer->ids.n);
    return MMQ_OK;
}

/* Take in text that became final; ends the answer at a stop string. */
static int32_t take_text(struct generation *g, const char *text, size_t size, bool last)
{
    struct mmqi_buf *buf = &g->answer->text;
    size_t stop;

    mmqi_buf_append(buf, text, size);
    if (mmqi_buf_failed(buf))
        return mmqi_fail(MMQ_ERR_NOMEM, "generate: no memory for the text");
    stop = find_stop(g, g->text_given);
    if (stop < buf->size) {
        buf->size = stop;
        buf->data[stop] = '\0';
        g->answer->finish = MMQ_FINISH_STOP;
        g->ended = true;
    }
    return give_text(g, g->ended || last ? buf->size : buf->size - held_back(g));
}

static bool is_eos(const struct mmqi_spec *spec, int32_t id)
{
    int32_t i;

    for (i = 0; i < spec->n_eos; i++)
        if (spec->eos[i] == id)
            return true;
    return false;
}

/* Account for the token just sampled: ids, text, and whether the answer ends with it. */
static int32_t take_token(struct generation *g)
{
    const struct mmqi_generate_options *options = g->options;
    const char *text = "";
    size_t size = 0;
    int32_t status;

    status = mmqi_ids_append(&g->answer->ids, &g->next, 1);
    if (status != MMQ_OK)
        return status;
    mmqi_sampler_see(g->sampler, g->next);
    if (!options->ignore_eos && is_eos(&g->session->model->spec, g->next)) {
        g->answer->finish = MMQ_FINISH_EOS;
        g->ended = true;
        return MMQ_OK; /* its text is no part of the answer */
    }
    status = mmqi_decoder_feed(g->decoder, g->next, &text, &size);
    if (status == MMQ_OK)
        status = take_text(g, text, size, false);
    if (status != MMQ_OK || g->ended)
        return status;
    if (options->max_new_tokens > 0 && g->answer->ids.n >= (size_t)options->max_new_tokens) {
        g->answer->finish = MMQ_FINISH_LENGTH;
        g->ended = true;
    } else if (g->tokens.n >= (size_t)g->session->layout.context) {
        g->answer->finish = MMQ_FINISH_CONTEXT;
        g->ended = true;
    }
    return MMQ_OK;
}

/* Run what is new and sample from the last row's logits. */
static int32_t step(struct generation *g)
{
    return mmqi_session_run(g->session, g->tokens.data, g->tokens.n, g->tokens.n - 1, pick_row, g,
                            &g->options->watch);
}

static int32_t prefill(struct generation *g)
{
    const struct mmqi_prompt *prompt = &g->options->prompt;
    int32_t status, encoded = g->session->n_encoded;
    uint64_t encode_ns = g->session->encode_ns;
    size_t i;

    status = mmqi_session_tokens(&g->tokens, g->session, prompt);
    if (status != MMQ_OK)
        return status;
    /* The last token is always run: its logits choose the first of the answer. */
    status = mmqi_session_match(g->session, &g->tokens, prompt->images, prompt->n_images,
                                g->tokens.n - 1, &g->answer->n_reused);
    if (status != MMQ_OK)
        return status;
    g->answer->n_prompt = (int32_t)g->tokens.n;
    for (i = 0; i < g->tokens.n; i++)
        if (g->tokens.data[i].picture < 0)
            mmqi_sampler_see(g->sampler, g->tokens.data[i].id);
    status = step(g);
    g->answer->n_encoded = g->session->n_encoded - encoded;
    g->answer->encode_ns = g->session->encode_ns - encode_ns;
    return status;
}

/* From token to token, each picked here. */
static int32_t decode_here(struct generation *g)
{
    int32_t status = MMQ_OK;

    while (status == MMQ_OK && !g->ended) {
        status = mmqi_tokens_answer(&g->tokens, g->next);
        if (status == MMQ_OK)
            status = step(g);
        if (status == MMQ_OK)
            status = take_token(g);
    }
    return status;
}

/* Whether the device may pick: what it would pick is what the sampler would. */
static bool device_picks(const struct generation *g)
{
    const struct mmqi_sampling *sampling = &g->options->sampling;
    float penalty = sampling->repetition_penalty;

    return sampling->temperature == 0 && (penalty == 0 || penalty == 1) && !g->options->on_logits &&
           mmqi_session_can_step(g->session);
}

/* Ask for as many steps as there may be tokens. */
static int32_t ask_ahead(struct generation *g)
{
    struct mmqi_session *session = g->session;
    size_t most = (size_t)g->options->max_new_tokens;
    int32_t status = MMQ_OK;

    while (status == MMQ_OK && mmqi_session_may_step(session) &&
           (most == 0 || g->answer->ids.n + (size_t)(session->n_asked - session->n_read) < most))
        status = mmqi_session_step(session, &g->options->watch);
    return status;
}

/* Steps that are asked for see no flag that is raised later. */
static int32_t check_cancelled(const struct generation *g)
{
    const int32_t *cancelled = g->options->watch.cancelled;

    return cancelled && __atomic_load_n(cancelled, __ATOMIC_RELAXED)
               ? mmqi_fail(MMQ_ERR_CANCELLED, "generate: cancelled after %zu tokens",
                           g->answer->ids.n)
               : MMQ_OK;
}

/* Look at one token after another that the device picked, the next already on its way. */
static int32_t follow_steps(struct generation *g)
{
    int32_t status = MMQ_OK;

    while (status == MMQ_OK && !g->ended) {
        status = ask_ahead(g);
        if (status == MMQ_OK)
            status = check_cancelled(g);
        if (status == MMQ_OK)
            status = mmqi_session_step_read(g->session, &g->tokens.data[g->tokens.n - 1], &g->next);
        if (status == MMQ_OK)
            status = take_token(g);
        if (status == MMQ_OK && !g->ended)
            status = mmqi_tokens_answer(&g->tokens, g->next);
    }
    return status;
}

static int32_t decode_there(struct generation *g)
{
    int32_t status = mmqi_tokens_answer(&g->tokens, g->next), ended;

    if (status == MMQ_OK)
        status = mmqi_session_step_begin(g->session, &g->tokens.data[g->tokens.n - 1]);
    if (status != MMQ_OK)
        return status;
    status = follow_steps(g);
    ended = mmqi_session_step_end(g->session);
    return status == MMQ_OK ? ended : status;
}

static int32_t decode(struct generation *g)
{
    const char *text;
    size_t size;
    int32_t status;

    status = take_token(g);
    if (status == MMQ_OK && !g->ended)
        status = device_picks(g) ? decode_there(g) : decode_here(g);
    if (status != MMQ_OK || g->answer->finish == MMQ_FINISH_STOP)
        return status;
    status = mmqi_decoder_finish(g->decoder, &text, &size);
    if (status == MMQ_OK)
        status = take_text(g, text, size, true);
    return status;
}

static int32_t check_options(const struct mmqi_generate_options *options)
{
    size_t i;

    if (options->max_new_tokens < 0)
        return mmqi_fail(MMQ_ERR_INVALID, "generate: max_new_tokens %d is negative",
                         (int)options->max_new_tokens);
    for (i = 0; i < options->n_stop; i++)
        if (!options->stop[i] || options->stop[i][0] == '\0')
            return mmqi_fail(MMQ_ERR_INVALID, "generate: stop string %zu is empty", i);
    for (i = 0; i < options->n_stop; i++)
        if (!mmqi_utf8_valid(options->stop[i], strlen(options->stop[i])))
            return mmqi_fail(MMQ_ERR_INVALID, "generate: stop string %zu is not UTF-8", i);
    return MMQ_OK;
}

int32_t mmqi_generate(struct mmqi_answer *answer, struct mmqi_session *session,
                      const struct mmqi_generate_options *options)
{
    const struct mmqi_model *model = session->model;
    struct generation g = {.session = session, .options = options, .answer = answer};
    uint64_t begin = mmqi_os_nanoseconds(), middle;
    int32_t status;

    status = check_options(options);
    if (status == MMQ_OK)
        status = mmqi_sampler_create(&g.sampler, &options->sampling, model->spec.vocab_size);
    if (status == MMQ_OK)
        status = mmqi_decoder_create(&g.decoder, model->tokenizer, true);
    if (status == MMQ_OK)
        status = prefill(&g);
    middle = mmqi_os_nanoseconds();
    if (status == MMQ_OK)
        status = decode(&g);
    answer->prefill_ns = middle - begin;
    answer->decode_ns = mmqi_os_nanoseconds() - middle;
    mmqi_decoder_free(g.decoder);
    mmqi_sampler_free(g.sampler);
    mmqi_tokens_free(&g.tokens);
    return status;
}

void mmqi_answer_clear(struct mmqi_answer *answer)
{
    mmqi_buf_free(&answer->text);
    mmqi_free(answer->ids.data);
    memset(answer, 0, sizeof *answer);
}
