/* mmq_session: create, forget, generate, evaluate; and their results. */
#include <string.h>

#include "api/api.h"
#include "core/mem.h"
#include "core/text.h"

struct mmq_result {
    struct mmqi_answer answer;
};

struct mmq_evaluation {
    size_t n;
    double *logprobs;
    int32_t *top1;
};

static int32_t session_failed(mmq_session *session, int32_t status)
{
    if (status != MMQ_OK && session)
        mmqi_copy_text(session->error, sizeof session->error, mmqi_message());
    return status;
}

/* What a callback may not ask of the session that it is called for. */
static int32_t check_idle(const mmq_session *session, const char *what)
{
    return session->at_work
               ? mmqi_fail(MMQ_ERR_INVALID, "%s: the session is at work, and calls back", what)
               : MMQ_OK;
}

const char *mmqi_mode_name(int32_t mode)
{
    return mode == MMQI_MODE_FAST ? "fast" : "exact";
}

static int32_t take_mode(int32_t *out, const char *mode)
{
    *out = MMQI_WANT_BEST;
    if (!mode)
        return MMQ_OK;
    if (strcmp(mode, "exact") == 0)
        *out = MMQI_WANT_EXACT;
    else if (strcmp(mode, "fast") == 0)
        *out = MMQI_WANT_FAST;
    else
        return mmqi_fail(MMQ_ERR_INVALID, "session: mode '%s' is neither 'exact' nor 'fast'", mode);
    return MMQ_OK;
}

int32_t mmqi_take_session_options(struct mmqi_session_options *out,
                                  const mmq_session_options *options)
{
    mmq_session_options o;
    int32_t status = MMQI_TAKE(&o, options, "mmq_session_options");

    *out = (struct mmqi_session_options){o.context, o.chunk, o.image_rows, MMQI_WANT_BEST};
    if (status == MMQ_OK)
        status = take_mode(&out->mode, o.mode);
    if (status == MMQ_OK && o.reserved != 0)
        status = mmqi_fail(MMQ_ERR_INVALID, "mmq_session_options: reserved is not 0");
    return status;
}

static int32_t create(mmq_session *session, mmq_model *model, const mmq_session_options *options)
{
    struct mmqi_session_options session_options;
    int32_t status = mmqi_take_session_options(&session_options, options);

    if (status == MMQ_OK)
        status = mmqi_model_check_room(model, &session_options);
    if (status == MMQ_OK)
        status = mmq_model_place(model);
    if (status != MMQ_OK)
        return status;
    return mmqi_session_create(&session->core, model->core, model->host, &session_options);
}

static void log_created(const mmq_session *session)
{
    const struct mmqi_session_layout *layout = &session->core->layout;

    mmqi_log(mmqi_host_log(session->model->host), MMQ_LOG_INFO,
             "%s: session: a context of %d, chunks of %d, %s mode, %llu bytes",
             session->model->core->path, (int)layout->context, (int)layout->chunk,
             mmqi_mode_name(layout->mode), (unsigned long long)layout->sum.total);
}

mmq_status mmq_session_create(mmq_session **out, mmq_model *model,
                              const mmq_session_options *options)
{
    const struct mmqi_mem_hooks *hooks;
    mmq_session *session = NULL;
    int32_t status;

    if (out)
        *out = NULL;
    if (!out || !model)
        return mmqi_model_failed(
            model, mmqi_fail(MMQ_ERR_INVALID, "mmq_session_create: out or model is NULL"));
    hooks = mmqi_model_enter(model);
    session = mmqi_calloc(1, sizeof *session);
    if (session)
        status = create(session, model, options);
    else
        status = mmqi_fail(MMQ_ERR_NOMEM, "mmq_session_create: no memory");
    mmqi_mem_enter(hooks);
    if (status != MMQ_OK) {
        mmqi_free(session);
        return mmqi_model_failed(model, status);
    }
    mmqi_model_retain(model);
    session->model = model;
    log_created(session);
    *out = session;
    return MMQ_OK;
}

void mmq_session_free(mmq_session *session)
{
    if (!session)
        return;
    mmqi_session_free(session->core);
    mmq_model_free(session->model);
    mmqi_free(session);
}

const char *mmq_session_mode(const mmq_session *session)
{
    return mmqi_mode_name(session ? session->core->layout.mode : MMQI_MODE_EXACT);
}

const char *mmq_session_error(const mmq_session *session)
{
    return session ? session->error : "";
}

int32_t mmq_session_length(const mmq_session *session)
{
    return session ? session->core->n_tokens : 0;
}

mmq_status mmq_session_truncate(mmq_session *session, int32_t length)
{
    int32_t status;

    if (!session)
        return mmqi_fail(MMQ_ERR_INVALID, "mmq_session_truncate: session is NULL");
    status = check_idle(session, "mmq_session_truncate");
    if (status == MMQ_OK && (length < 0 || length > session->core->n_tokens))
        status = mmqi_fail(MMQ_ERR_INVALID, "session: it holds %d tokens, not %d",
                           (int)session->core->n_tokens, (int)length);
    if (status != MMQ_OK)
        return session_failed(session, status);
    mmqi_session_truncate(session->core, length);
    return MMQ_OK;
}

mmq_status mmq_session_reset(mmq_session *session)
{
    return mmq_session_truncate(session, 0);
}

static int32_t take_request(struct mmqi_generate_options *out, void **held,
                            const mmq_generate_request *request)
{
    mmq_generate_request r;
    int32_t status;

    memset(out, 0, sizeof *out);
    *held = NULL;
    if (!request)
        return mmqi_fail(MMQ_ERR_INVALID, "mmq_generate: request is NULL");
    status = MMQI_TAKE(&r, request, "mmq_generate_request");
    if (status == MMQ_OK && !r.stop && r.n_stop > 0)
        status = mmqi_fail(MMQ_ERR_INVALID, "mmq_generate: stop is NULL");
    if (status != MMQ_OK)
        return status;
    out->sampling = (struct mmqi_sampling){
        r.temperature, r.top_k, r.top_p, r.min_p, r.repetition_penalty, r.seed,
    };
    out->max_new_tokens = r.max_new_tokens;
    out->ignore_eos = r.ignore_eos != 0;
    out->stop = r.stop;
    out->n_stop = r.n_stop;
    out->on_text = r.on_text;
    out->user = r.text_user;
    out->on_logits = r.on_logits;
    out->logits_user = r.logits_user;
    out->watch.cancelled = mmqi_cancel_flag(r.cancel);
    return mmqi_take_prompt(&out->prompt, held, r.prompt);
}

mmq_status mmq_generate(mmq_result **out, mmq_session *session, const mmq_generate_request *request)
{
    const struct mmqi_mem_hooks *hooks;
    struct mmqi_generate_options options;
    mmq_result *result = NULL;
    void *held;
    int32_t status;

    if (out)
        *out = NULL;
    if (!out || !session)
        return session_failed(session,
                              mmqi_fail(MMQ_ERR_INVALID, "mmq_generate: out or session is NULL"));
    status = check_idle(session, "mmq_generate");
    if (status != MMQ_OK)
        return session_failed(session, status);
    session->at_work = true;
    hooks = mmqi_model_enter(session->model);
    status = take_request(&options, &held, request);
    if (status != MMQ_OK)
        goto done;
    result = mmqi_calloc(1, sizeof *result);
    if (!result) {
        status = mmqi_fail(MMQ_ERR_NOMEM, "mmq_generate: no memory");
        goto done;
    }
    status = mmqi_generate(&result->answer, session->core, &options);
    if (status == MMQ_OK)
        *out = result;
    else
        mmq_result_free(result);
done:
    mmqi_free(held);
    mmqi_mem_enter(hooks);
    session->at_work = false;
    return session_failed(session, status);
}

const char *mmq_result_text(const mmq_result *result)
{
    return result && result->answer.text.data ? result->answer.text.data : "";
}

const int32_t *mmq_result_ids(const mmq_result *result, size_t *n_ids)
{
    if (n_ids)
        *n_ids = result ? result->answer.ids.n : 0;
    return result ? result->answer.ids.data : NULL;
}

int32_t mmq_result_finish(const mmq_result *result)
{
    return result ? result->answer.finish : MMQ_FINISH_EOS;
}

const char *mmq_result_finish_name(const mmq_result *result)
{
    static const char *const names[] = {
        [MMQ_FINISH_EOS] = "eos",
        [MMQ_FINISH_LENGTH] = "length",
        [MMQ_FINISH_STOP] = "stop",
        [MMQ_FINISH_CONTEXT] = "context",
    };

    return names[mmq_result_finish(result)];
}

mmq_status mmq_result_info(mmq_result_facts *facts, const mmq_result *result)
{
    mmq_result_facts f = {0};
    int32_t status = mmqi_clear_struct(facts, "mmq_result_facts");

    if (status == MMQ_OK && !result)
        status = mmqi_fail(MMQ_ERR_INVALID, "mmq_result_info: result is NULL");
    if (status != MMQ_OK)
        return status;
    f.n_prompt = result->answer.n_prompt;
    f.n_reused = result->answer.n_reused;
    f.n_generated = (int32_t)result->answer.ids.n;
    f.n_pictures_encoded = result->answer.n_encoded;
    f.prefill_nanoseconds = result->answer.prefill_ns;
    f.decode_nanoseconds = result->answer.decode_ns;
    f.encode_nanoseconds = result->answer.encode_ns;
    MMQI_GIVE(facts, &f);
    return MMQ_OK;
}

void mmq_result_free(mmq_result *result)
{
    if (!result)
        return;
    mmqi_answer_clear(&result->answer);
    mmqi_free(result);
}

static int32_t take_evaluation(struct mmqi_evaluate_options *out, void **held,
                               const mmq_evaluate_request *request)
{
    mmq_evaluate_request r;
    int32_t status;

    memset(out, 0, sizeof *out);
    *held = NULL;
    if (!request)
        return mmqi_fail(MMQ_ERR_INVALID, "mmq_evaluate: request is NULL");
    status = MMQI_TAKE(&r, request, "mmq_evaluate_request");
    if (status == MMQ_OK && !r.targets && r.n_targets > 0)
        status = mmqi_fail(MMQ_ERR_INVALID, "mmq_evaluate: targets is NULL");
    if (status != MMQ_OK)
        return status;
    out->targets = r.targets;
    out->n_targets = r.n_targets;
    out->on_logits = r.on_logits;
    out->user = r.logits_user;
    out->watch.cancelled = mmqi_cancel_flag(r.cancel);
    return mmqi_take_prompt(&out->prompt, held, r.prompt);
}

static mmq_evaluation *make_evaluation(size_t n)
{
    mmq_evaluation *evaluation = mmqi_calloc(1, sizeof *evaluation);

    if (!evaluation)
        return NULL;
    evaluation->n = n;
    evaluation->logprobs = mmqi_calloc(n, sizeof *evaluation->logprobs);
    evaluation->top1 = mmqi_calloc(n, sizeof *evaluation->top1);
    if (evaluation->logprobs && evaluation->top1)
        return evaluation;
    mmq_evaluation_free(evaluation);
    return NULL;
}

mmq_status mmq_evaluate(mmq_evaluation **out, mmq_session *session,
                        const mmq_evaluate_request *request)
{
    const struct mmqi_mem_hooks *hooks;
    struct mmqi_evaluate_options options;
    mmq_evaluation *evaluation = NULL;
    void *held;
    int32_t status;

    if (out)
        *out = NULL;
    if (!out || !session)
        return session_failed(session,
                              mmqi_fail(MMQ_ERR_INVALID, "mmq_evaluate: out or session is NULL"));
    status = check_idle(session, "mmq_evaluate");
    if (status != MMQ_OK)
        return session_failed(session, status);
    session->at_work = true;
    hooks = mmqi_model_enter(session->model);
    status = take_evaluation(&options, &held, request);
    if (status != MMQ_OK)
        goto done;
    evaluation = make_evaluation(options.n_targets);
    if (!evaluation) {
        status =
            mmqi_fail(MMQ_ERR_NOMEM, "mmq_evaluate: no memory for %zu targets", options.n_targets);
        goto done;
    }
    status = mmqi_evaluate(evaluation->logprobs, evaluation->top1, session->core, &options);
    if (status == MMQ_OK)
        *out = evaluation;
    else
        mmq_evaluation_free(evaluation);
done:
    mmqi_free(held);
    mmqi_mem_enter(hooks);
    session->at_work = false;
    return session_failed(session, status);
}

const double *mmq_evaluation_logprobs(const mmq_evaluation *evaluation, size_t *n)
{
    if (n)
        *n = evaluation ? evaluation->n : 0;
    return evaluation ? evaluation->logprobs : NULL;
}

const int32_t *mmq_evaluation_top1(const mmq_evaluation *evaluation, size_t *n)
{
    if (n)
        *n = evaluation ? evaluation->n : 0;
    return evaluation ? evaluation->top1 : NULL;
}

void mmq_evaluation_free(mmq_evaluation *evaluation)
{
    if (!evaluation)
        return;
    mmqi_free(evaluation->logprobs);
    mmqi_free(evaluation->top1);
    mmqi_free(evaluation);
}
