/* The models of mmq-eval at work: captions by teacher forcing, answers, questions. */
#include "eval_run.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    MOST_NEW_TOKENS = 40,
    TEXT_TOKENS = 512, /* what a session holds beside the picture, if the model can */
    MOST_WORDS = EVAL_MOST_CAPTION_BYTES + 64,
};

static const char describe[] = "Describe the picture.";

static bool fail_run(struct eval_run *run, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static bool fail_run(struct eval_run *run, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(run->error, sizeof run->error, format, arguments);
    va_end(arguments);
    return false;
}

/* A call of the library failed while entry `index` was at work. */
static bool fail_entry(struct eval_run *run, size_t index, const char *what)
{
    return fail_run(run, "entry %zu (%s): %s: %s", index, run->record.entries[index].file, what,
                    mmq_last_error_message());
}

/* ---- prompts --------------------------------------------------------------------------------- */

/* A prompt of one picture and words, in the form that the model takes. It points into itself. */
struct one_prompt {
    mmq_part picture, words;
    const mmq_part *parts[2];
    mmq_message message;
    const mmq_message *messages[1];
    const mmq_image *images[1];
    char text[MOST_WORDS];
    mmq_prompt prompt;
};

static void set_prompt(struct one_prompt *p, bool chat_template, const mmq_image *image,
                       const char *words)
{
    p->prompt = (mmq_prompt){.struct_size = sizeof p->prompt};
    snprintf(p->text, sizeof p->text, "USER: <image>\n%s ASSISTANT:", words);
    if (chat_template) {
        p->picture = (mmq_part){.struct_size = sizeof p->picture, .image = image};
        p->words = (mmq_part){.struct_size = sizeof p->words, .text = words};
        p->parts[0] = &p->picture;
        p->parts[1] = &p->words;
        p->message = (mmq_message){sizeof p->message, "user", p->parts, 2};
        p->messages[0] = &p->message;
        p->prompt.messages = p->messages;
        p->prompt.n_messages = 1;
    } else {
        p->images[0] = image;
        p->prompt.text = p->text;
        p->prompt.images = p->images;
        p->prompt.n_images = 1;
    }
}

/* Whether the model's chat template says what the record's prompts say: then it is used. */
static mmq_status try_chat_template(struct eval_side *side)
{
    static const uint8_t black[3] = {0};
    struct one_prompt p;
    mmq_image *image = NULL;
    char *text = NULL;
    size_t size;
    mmq_status status;

    status = mmq_image_from_pixels(&image, black, 1, 1, 3, 0, NULL);
    if (status != MMQ_OK)
        return status;
    set_prompt(&p, true, image, describe);
    status = mmq_render_chat(&text, &size, side->model, &p.prompt);
    side->chat_template = status == MMQ_OK && strcmp(text, p.text) == 0;
    mmq_text_free(text);
    mmq_image_free(image);
    return status == MMQ_ERR_UNSUPPORTED ? MMQ_OK : status;
}

/* ---- opening --------------------------------------------------------------------------------- */

/* The first tokens in which " Yes" and " No" differ: a tokenizer may begin both with a blank. */
static mmq_status find_answers(struct eval_side *side)
{
    int32_t *yes = NULL, *no = NULL;
    size_t n_yes = 0, n_no = 0, i = 0;
    mmq_status status;

    side->yes = side->no = -1;
    status = mmq_tokenize(&yes, &n_yes, side->model, " Yes", SIZE_MAX, 0);
    if (status == MMQ_OK)
        status = mmq_tokenize(&no, &n_no, side->model, " No", SIZE_MAX, 0);
    if (status == MMQ_OK) {
        while (i < n_yes && i < n_no && yes[i] == no[i])
            i++;
        if (i < n_yes && i < n_no) {
            side->yes = yes[i];
            side->no = no[i];
        }
    }
    mmq_ids_free(yes);
    mmq_ids_free(no);
    return status;
}

static mmq_status open_session(struct eval_side *side, const mmq_model_facts *facts)
{
    mmq_session_options options = {.struct_size = sizeof options};

    options.context = facts->max_context;
    if (options.context > facts->image_rows + TEXT_TOKENS)
        options.context = facts->image_rows + TEXT_TOKENS;
    return mmq_session_create(&side->session, side->model, &options);
}

static bool open_side(struct eval_run *run, struct eval_side *side, const char *path)
{
    mmq_load_options load = {
        .struct_size = sizeof load,
        .n_threads = run->settings.n_threads,
        .isa = run->settings.isa,
    };
    mmq_model_facts facts = {.struct_size = sizeof facts};

    if (mmq_load(&side->model, path, &load) != MMQ_OK ||
        mmq_model_info(&facts, side->model) != MMQ_OK || try_chat_template(side) != MMQ_OK ||
        find_answers(side) != MMQ_OK || open_session(side, &facts) != MMQ_OK)
        return fail_run(run, "%s", mmq_last_error_message());
    side->device = facts.device;
    side->n_vocab = (size_t)facts.vocab_size;
    side->eos = facts.n_eos > 0 ? facts.eos[0] : -1;
    if (side->eos < 0)
        return fail_run(run, "%s: the model has no end token", path);
    if (side->yes < 0 || side->no < 0 || side->yes >= facts.vocab_size ||
        side->no >= facts.vocab_size)
        return fail_run(run, "%s: ' Yes' and ' No' have no tokens of their own", path);
    return true;
}

bool eval_run_open(struct eval_run *run, const struct eval_settings *settings)
{
    char path[4096];

    memset(run, 0, sizeof *run);
    run->settings = *settings;
    run->measured = &run->side[settings->candidate ? 1 : 0];
    if ((size_t)snprintf(path, sizeof path, "%s/record.json", settings->data) >= sizeof path)
        return fail_run(run, "--data: the path is too long");
    if (!eval_record_read(&run->record, path))
        return fail_run(run, "%s", run->record.error);
    run->n = settings->limit < run->record.n ? settings->limit : run->record.n;
    if (!open_side(run, &run->side[0], settings->reference))
        return false;
    if (!settings->candidate)
        return true;
    if (!open_side(run, &run->side[1], settings->candidate))
        return false;
    if (run->side[0].n_vocab != run->side[1].n_vocab)
        return fail_run(run, "reference and candidate have vocabularies of %zu and %zu tokens",
                        run->side[0].n_vocab, run->side[1].n_vocab);
    return true;
}

void eval_run_close(struct eval_run *run)
{
    int i;

    for (i = 0; i < 2; i++) {
        mmq_session_free(run->side[i].session);
        mmq_model_free(run->side[i].model);
    }
    eval_divergence_free(&run->divergence);
    eval_record_free(&run->record);
    free(run->rows);
    run->rows = NULL;
}

/* ---- captions -------------------------------------------------------------------------------- */

/* One caption under teacher forcing. */
struct caption_work {
    struct eval_run *run;
    struct eval_side *side;
    bool keep, compare; /* the reference's logits; the candidate's with them */
    size_t entry;
    int32_t *ids; /* of a space + the caption, then the end token */
    size_t n;
    double nll_sum; /* measured */
    size_t top1;
};

static bool make_tokens(struct caption_work *work)
{
    struct eval_run *run = work->run;
    char text[EVAL_MOST_CAPTION_BYTES + 2];
    int32_t *made = NULL;
    size_t n = 0;

    snprintf(text, sizeof text, " %s", run->record.entries[work->entry].caption);
    if (mmq_tokenize(&made, &n, work->side->model, text, SIZE_MAX, 0) != MMQ_OK)
        return fail_entry(run, work->entry, "the caption");
    work->ids = calloc(n + 1, sizeof *work->ids);
    if (work->ids) {
        if (n > 0)
            memcpy(work->ids, made, n * sizeof *work->ids);
        work->ids[n] = work->side->eos;
        work->n = n + 1;
    }
    mmq_ids_free(made);
    return work->ids || fail_run(run, "entry %zu: no memory for %zu tokens", work->entry, n);
}

/* An mmq_logits_fn: keep the reference's row, or compare the candidate's with it. */
static int32_t take_row(void *user, size_t index, const float *logits, size_t n_vocab)
{
    const struct caption_work *work = user;
    struct eval_run *run = work->run;
    struct eval_divergence *divergence = &run->divergence;
    float *row;

    if (index >= work->n || n_vocab != work->side->n_vocab) {
        fail_run(run, "entry %zu: logits of another shape than the model tells", work->entry);
        return 1;
    }
    row = run->rows + index * n_vocab;
    if (work->keep) {
        memcpy(row, logits, n_vocab * sizeof *row);
        return 0;
    }
    if (!eval_divergence_add(divergence, row, logits, n_vocab)) {
        fail_run(run, "entry %zu: no memory for %zu divergences", work->entry, divergence->n + 1);
        return 1;
    }
    if (!isfinite(divergence->kl[divergence->n - 1])) {
        fail_run(run, "entry %zu: the divergence at token %zu is not finite", work->entry, index);
        return 1;
    }
    return 0;
}

/* Room for the rows of a caption of work->n tokens, or the check that both models count alike. */
static bool prepare_rows(const struct caption_work *work)
{
    struct eval_run *run = work->run;
    float *rows;

    if (work->compare && run->n_rows != work->n)
        return fail_run(run,
                        "entry %zu: reference and candidate make %zu and %zu tokens of the caption",
                        work->entry, run->n_rows, work->n);
    if (!work->keep)
        return true;
    run->n_rows = work->n;
    if (work->n <= run->most_rows)
        return true;
    if (work->n > SIZE_MAX / sizeof *rows / work->side->n_vocab)
        return fail_run(run, "entry %zu: a caption of %zu tokens is too long", work->entry,
                        work->n);
    rows = realloc(run->rows, work->n * work->side->n_vocab * sizeof *rows);
    if (!rows)
        return fail_run(run, "entry %zu: no memory for %zu rows of logits", work->entry, work->n);
    run->rows = rows;
    run->most_rows = work->n;
    return true;
}

static void add_up(struct caption_work *work, const mmq_evaluation *evaluation)
{
    size_t n, n_top, i;
    const double *logprobs = mmq_evaluation_logprobs(evaluation, &n);
    const int32_t *top1 = mmq_evaluation_top1(evaluation, &n_top);

    for (i = 0; i < n && i < work->n; i++)
        work->nll_sum -= logprobs[i];
    for (i = 0; i < n_top && i < work->n; i++)
        work->top1 += top1[i] == work->ids[i];
}

static bool evaluate_caption(struct caption_work *work, const mmq_image *image)
{
    struct eval_run *run = work->run;
    struct one_prompt p;
    mmq_evaluation *evaluation = NULL;
    mmq_evaluate_request request = {.struct_size = sizeof request,
                                    .prompt = &p.prompt,
                                    .targets = work->ids,
                                    .n_targets = work->n};

    set_prompt(&p, work->side->chat_template, image, describe);
    if (work->keep || work->compare) {
        request.on_logits = take_row;
        request.logits_user = work;
    }
    run->error[0] = '\0';
    if (mmq_evaluate(&evaluation, work->side->session, &request) == MMQ_OK) {
        add_up(work, evaluation);
        mmq_evaluation_free(evaluation);
        return true;
    }
    if (run->error[0] == '\0') /* take_row() tells its own */
        fail_entry(run, work->entry, "the caption");
    return false;
}

/* Measure the entry's first caption after `image`. */
static bool force_caption(struct caption_work *work, const mmq_image *image)
{
    bool done = make_tokens(work) && prepare_rows(work) && evaluate_caption(work, image);

    free(work->ids);
    work->ids = NULL;
    return done;
}

static bool own_caption(struct eval_run *run, const mmq_image *image, size_t j)
{
    bool two = run->settings.candidate != NULL;
    int i;

    for (i = 0; i < (two ? 2 : 1); i++) {
        struct eval_side *side = &run->side[i];
        struct caption_work work = {
            .run = run, .side = side, .entry = j, .keep = two && i == 0, .compare = two && i == 1};

        if (!force_caption(&work, image))
            return false;
        eval_tally_caption(&side->tally, &run->record.entries[j], j, work.nll_sum, work.n,
                           work.top1);
    }
    return true;
}

static bool wrong_caption(struct eval_run *run, const mmq_image *image, size_t owner)
{
    struct caption_work work = {.run = run, .side = run->measured, .entry = owner};

    if (!force_caption(&work, image))
        return false;
    eval_tally_wrong_picture(&run->measured->tally, &run->record.entries[owner], owner,
                             work.nll_sum, work.n);
    return true;
}

/* ---- answers --------------------------------------------------------------------------------- */

static bool greedy_caption(struct eval_run *run, const mmq_image *image, size_t j)
{
    struct eval_side *side = run->measured;
    struct one_prompt p;
    mmq_result *result = NULL;
    mmq_generate_request request = {
        .struct_size = sizeof request, .prompt = &p.prompt, .max_new_tokens = MOST_NEW_TOKENS};

    set_prompt(&p, side->chat_template, image, describe);
    if (mmq_generate(&result, side->session, &request) != MMQ_OK)
        return fail_entry(run, j, "the greedy caption");
    eval_tally_greedy(&side->tally, &run->record.entries[j], mmq_result_text(result));
    mmq_result_free(result);
    return true;
}

struct margin {
    const struct eval_side *side;
    double value;
};

/* An mmq_logits_fn: by how much Yes is likelier than No. */
static int32_t take_margin(void *user, size_t index, const float *logits, size_t n_vocab)
{
    struct margin *margin = user;

    if (index != 0 || n_vocab != margin->side->n_vocab)
        return 1;
    margin->value = (double)logits[margin->side->yes] - (double)logits[margin->side->no];
    return 0;
}

static bool questions(struct eval_run *run, const mmq_image *image, size_t j)
{
    const struct eval_entry *entry = &run->record.entries[j];
    struct eval_side *side = run->measured;
    struct one_prompt p;
    size_t i;

    for (i = 0; i < entry->n_questions; i++) {
        struct margin margin = {.side = side, .value = NAN};
        mmq_evaluation *evaluation = NULL;
        mmq_evaluate_request request = {.struct_size = sizeof request,
                                        .prompt = &p.prompt,
                                        .on_logits = take_margin,
                                        .logits_user = &margin};

        set_prompt(&p, side->chat_template, image, entry->questions[i].text);
        if (mmq_evaluate(&evaluation, side->session, &request) != MMQ_OK)
            return fail_entry(run, j, "a question");
        mmq_evaluation_free(evaluation);
        eval_tally_question(&side->tally, &entry->questions[i], j, margin.value);
    }
    return true;
}

bool eval_run_needs(const struct eval_run *run, size_t j)
{
    return j < run->n || eval_wrong_picture_owner(j, run->record.n) < run->n;
}

bool eval_run_picture(struct eval_run *run, size_t j)
{
    size_t owner = eval_wrong_picture_owner(j, run->record.n);
    char path[4096];
    mmq_image *image = NULL;
    bool done = true;

    if ((size_t)snprintf(path, sizeof path, "%s/images/%s", run->settings.data,
                         run->record.entries[j].file) >= sizeof path)
        return fail_run(run, "--data: the path is too long");
    if (mmq_image_read_file(&image, path, NULL) != MMQ_OK)
        return fail_entry(run, j, "the picture");
    if (j < run->n)
        done = own_caption(run, image, j);
    if (done && owner < run->n)
        done = wrong_caption(run, image, owner);
    if (done && j < run->n) /* the same words as before first, then those that differ */
        done = greedy_caption(run, image, j) && questions(run, image, j);
    mmq_image_free(image);
    return done;
}
