/* Models opened, prompted and forced. */
#include "eval_model.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool eval_fail(char *error, size_t size, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(error, size, format, arguments);
    va_end(arguments);
    return false;
}

/* ---- opening --------------------------------------------------------------------------------- */

bool eval_model_open(struct eval_model *m, bool reference, const struct eval_settings *settings,
                     char *error, size_t size)
{
    const char *path = reference ? settings->reference : settings->candidate;
    mmq_load_options load = {
        .struct_size = sizeof load,
        .device = settings->device,
        .n_threads = settings->n_threads,
        .isa = settings->isa,
    };
    mmq_model_facts facts = {.struct_size = sizeof facts};

    if (reference && settings->reference_device)
        load.device = settings->reference_device;
    m->wanted_mode =
        reference && settings->reference_mode ? settings->reference_mode : settings->mode;
    if (mmq_load(&m->model, path, &load) != MMQ_OK || mmq_model_info(&facts, m->model) != MMQ_OK)
        return eval_fail(error, size, "%s", mmq_last_error_message());
    m->device = facts.device;
    m->n_vocab = (size_t)facts.vocab_size;
    m->eos = facts.n_eos > 0 ? facts.eos[0] : -1;
    m->max_context = facts.max_context;
    m->image_rows = facts.image_rows;
    if (m->eos < 0)
        return eval_fail(error, size, "%s: the model has no end token", path);
    return true;
}

mmq_status eval_model_session(struct eval_model *m, size_t n_images, int32_t n_answer,
                              int32_t context)
{
    mmq_session_options options = {
        .struct_size = sizeof options, .context = context, .mode = m->wanted_mode};
    int64_t wanted = (int64_t)n_images * m->image_rows + EVAL_TEXT_TOKENS + n_answer;
    mmq_status status;

    if (context == 0)
        options.context = wanted < m->max_context ? (int32_t)wanted : m->max_context;
    status = mmq_session_create(&m->session, m->model, &options);
    m->mode = mmq_session_mode(m->session);
    return status;
}

void eval_model_close(struct eval_model *m)
{
    mmq_session_free(m->session);
    mmq_model_free(m->model);
    m->session = NULL;
    m->model = NULL;
}

bool eval_models_match(const struct eval_model *a, const struct eval_model *b, char *error,
                       size_t size)
{
    return a->n_vocab == b->n_vocab ||
           eval_fail(error, size, "reference and candidate have vocabularies of %zu and %zu tokens",
                     a->n_vocab, b->n_vocab);
}

/* ---- prompts --------------------------------------------------------------------------------- */

void eval_prompt_chat(struct eval_prompt *p, const mmq_image *const *images, size_t n_images,
                      const char *words)
{
    size_t i;

    for (i = 0; i <= n_images; i++) {
        p->part[i] = (mmq_part){.struct_size = sizeof p->part[i]};
        if (i < n_images)
            p->part[i].image = images[i];
        else
            p->part[i].text = words;
        p->parts[i] = &p->part[i];
    }
    p->message = (mmq_message){sizeof p->message, "user", p->parts, n_images + 1};
    p->messages[0] = &p->message;
    p->prompt =
        (mmq_prompt){.struct_size = sizeof p->prompt, .messages = p->messages, .n_messages = 1};
}

void eval_prompt_raw(struct eval_prompt *p, const mmq_image *const *images, size_t n_images,
                     const char *text)
{
    size_t i;

    for (i = 0; i < n_images; i++)
        p->images[i] = images[i];
    p->prompt = (mmq_prompt){
        .struct_size = sizeof p->prompt, .text = text, .images = p->images, .n_images = n_images};
}

/* ---- teacher forcing ------------------------------------------------------------------------- */

struct force_work {
    struct eval_force *force;
    const struct eval_model *m;
    enum eval_logits logits;
    int32_t *ids; /* of the text, then the end token */
    size_t n;
};

static bool make_tokens(struct force_work *work, const char *text)
{
    int32_t *made = NULL;
    size_t n = 0;

    if (mmq_tokenize(&made, &n, work->m->model, text, SIZE_MAX, 0) != MMQ_OK)
        return EVAL_FAIL(work->force, "the text: %s", mmq_last_error_message());
    work->ids = calloc(n + 1, sizeof *work->ids);
    if (work->ids) {
        if (n > 0)
            memcpy(work->ids, made, n * sizeof *work->ids);
        work->ids[n] = work->m->eos;
        work->n = n + 1;
    }
    mmq_ids_free(made);
    return work->ids || EVAL_FAIL(work->force, "no memory for %zu tokens", n);
}

/* Room for the rows of work->n tokens, or the check that both models count alike. */
static bool prepare_rows(const struct force_work *work)
{
    struct eval_force *force = work->force;
    float *rows;

    if (work->logits == EVAL_COMPARE && force->n_rows != work->n)
        return EVAL_FAIL(force, "reference and candidate make %zu and %zu tokens of the text",
                         force->n_rows, work->n);
    if (work->logits != EVAL_KEEP)
        return true;
    force->n_rows = work->n;
    if (work->n <= force->most_rows)
        return true;
    if (work->n > SIZE_MAX / sizeof *rows / work->m->n_vocab)
        return EVAL_FAIL(force, "a text of %zu tokens is too long", work->n);
    rows = realloc(force->rows, work->n * work->m->n_vocab * sizeof *rows);
    if (!rows)
        return EVAL_FAIL(force, "no memory for %zu rows of logits", work->n);
    force->rows = rows;
    force->most_rows = work->n;
    return true;
}

/* An mmq_logits_fn: keep the reference's row, or compare the candidate's with it. */
static int32_t take_row(void *user, size_t index, const float *logits, size_t n_vocab)
{
    const struct force_work *work = user;
    struct eval_force *force = work->force;
    struct eval_divergence *divergence = &force->divergence;
    float *row;

    if (index >= work->n || n_vocab != work->m->n_vocab) {
        EVAL_FAIL(force, "logits of another shape than the model tells");
        return 1;
    }
    row = force->rows + index * n_vocab;
    if (work->logits == EVAL_KEEP) {
        memcpy(row, logits, n_vocab * sizeof *row);
        return 0;
    }
    if (!eval_divergence_add(divergence, row, logits, n_vocab)) {
        EVAL_FAIL(force, "no memory for %zu divergences", divergence->n + 1);
        return 1;
    }
    if (!isfinite(divergence->kl[divergence->n - 1])) {
        EVAL_FAIL(force, "the divergence at token %zu is not finite", index);
        return 1;
    }
    return 0;
}

static void add_up(struct eval_forced *out, const struct force_work *work,
                   const mmq_evaluation *evaluation)
{
    size_t n, n_top, i;
    const double *logprobs = mmq_evaluation_logprobs(evaluation, &n);
    const int32_t *top1 = mmq_evaluation_top1(evaluation, &n_top);

    *out = (struct eval_forced){.tokens = work->n};
    for (i = 0; i < n && i < work->n; i++)
        out->nll_sum -= logprobs[i];
    for (i = 0; i < n_top && i < work->n; i++)
        out->top1 += top1[i] == work->ids[i];
}

static bool evaluate_text(struct eval_forced *out, struct force_work *work,
                          const mmq_prompt *prompt)
{
    mmq_evaluation *evaluation = NULL;
    mmq_evaluate_request request = {.struct_size = sizeof request,
                                    .prompt = prompt,
                                    .targets = work->ids,
                                    .n_targets = work->n};

    if (work->logits != EVAL_IGNORE) {
        request.on_logits = take_row;
        request.logits_user = work;
    }
    work->force->error[0] = '\0';
    if (mmq_evaluate(&evaluation, work->m->session, &request) == MMQ_OK) {
        add_up(out, work, evaluation);
        mmq_evaluation_free(evaluation);
        return true;
    }
    if (work->force->error[0] == '\0') /* take_row() tells its own */
        EVAL_FAIL(work->force, "the text: %s", mmq_last_error_message());
    return false;
}

bool eval_force_text(struct eval_force *force, struct eval_forced *out, const struct eval_model *m,
                     const mmq_prompt *prompt, const char *text, enum eval_logits logits)
{
    struct force_work work = {.force = force, .m = m, .logits = logits};
    bool done =
        make_tokens(&work, text) && prepare_rows(&work) && evaluate_text(out, &work, prompt);

    free(work.ids);
    return done;
}

void eval_force_free(struct eval_force *force)
{
    eval_divergence_free(&force->divergence);
    free(force->rows);
    *force = (struct eval_force){0};
}
