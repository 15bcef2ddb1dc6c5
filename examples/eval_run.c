/* The models of mmq-eval on a record: captions by teacher forcing, answers, questions. */
#include "eval_run.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum {
    MOST_NEW_TOKENS = 40,
    MOST_WORDS = EVAL_MOST_CAPTION_BYTES + 64,
};

static const char describe[] = "Describe the picture.";

/* Something failed while entry `index` was at work. */
static bool fail_entry(struct eval_run *run, size_t index, const char *what, const char *why)
{
    return EVAL_FAIL(run, "entry %zu (%s): %s: %s", index, run->record.entries[index].file, what,
                     why);
}

/* ---- prompts --------------------------------------------------------------------------------- */

/* A prompt of one picture and words, in the form that the model takes. It points into itself. */
struct one_prompt {
    char text[MOST_WORDS];
    struct eval_prompt form;
};

static void set_prompt(struct one_prompt *p, bool chat_template, const mmq_image *image,
                       const char *words)
{
    snprintf(p->text, sizeof p->text, "USER: <image>\n%s ASSISTANT:", words);
    if (chat_template)
        eval_prompt_chat(&p->form, &image, 1, words);
    else
        eval_prompt_raw(&p->form, &image, 1, p->text);
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
    status = mmq_render_chat(&text, &size, side->m.model, &p.form.prompt);
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
    status = mmq_tokenize(&yes, &n_yes, side->m.model, " Yes", SIZE_MAX, 0);
    if (status == MMQ_OK)
        status = mmq_tokenize(&no, &n_no, side->m.model, " No", SIZE_MAX, 0);
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

static bool open_side(struct eval_run *run, struct eval_side *side)
{
    bool reference = side == run->side;
    const char *path = reference ? run->settings.reference : run->settings.candidate;

    if (!eval_model_open(&side->m, reference, &run->settings, run->error, sizeof run->error))
        return false;
    if (try_chat_template(side) != MMQ_OK || find_answers(side) != MMQ_OK ||
        eval_model_session(&side->m, 1, 0, run->settings.context) != MMQ_OK)
        return EVAL_FAIL(run, "%s", mmq_last_error_message());
    if (side->yes < 0 || side->no < 0 || (size_t)side->yes >= side->m.n_vocab ||
        (size_t)side->no >= side->m.n_vocab)
        return EVAL_FAIL(run, "%s: ' Yes' and ' No' have no tokens of their own", path);
    return true;
}

bool eval_run_open(struct eval_run *run, const struct eval_settings *settings)
{
    char path[4096];

    memset(run, 0, sizeof *run);
    run->settings = *settings;
    run->measured = &run->side[settings->candidate ? 1 : 0];
    if ((size_t)snprintf(path, sizeof path, "%s/record.json", settings->data) >= sizeof path)
        return EVAL_FAIL(run, "--data: the path is too long");
    if (!eval_record_read(&run->record, path))
        return EVAL_FAIL(run, "%s", run->record.error);
    run->n = settings->limit < run->record.n ? settings->limit : run->record.n;
    if (!open_side(run, &run->side[0]))
        return false;
    return !settings->candidate ||
           (open_side(run, &run->side[1]) &&
            eval_models_match(&run->side[0].m, &run->side[1].m, run->error, sizeof run->error));
}

void eval_run_close(struct eval_run *run)
{
    int i;

    for (i = 0; i < 2; i++)
        eval_model_close(&run->side[i].m);
    eval_force_free(&run->force);
    eval_record_free(&run->record);
}

/* ---- captions -------------------------------------------------------------------------------- */

/* The first caption of entry `index` after `image`. */
static bool force_caption(struct eval_run *run, struct eval_side *side, size_t index,
                          const mmq_image *image, struct eval_forced *out, enum eval_logits logits)
{
    char text[EVAL_MOST_CAPTION_BYTES + 2];
    struct one_prompt p;

    snprintf(text, sizeof text, " %s", run->record.entries[index].caption);
    set_prompt(&p, side->chat_template, image, describe);
    return eval_force_text(&run->force, out, &side->m, &p.form.prompt, text, logits) ||
           fail_entry(run, index, "the caption", run->force.error);
}

static bool own_caption(struct eval_run *run, const mmq_image *image, size_t j)
{
    bool two = run->settings.candidate != NULL;
    struct eval_forced forced;
    int i;

    for (i = 0; i < (two ? 2 : 1); i++) {
        struct eval_side *side = &run->side[i];
        enum eval_logits logits = i == 1 ? EVAL_COMPARE : two ? EVAL_KEEP : EVAL_IGNORE;

        if (!force_caption(run, side, j, image, &forced, logits))
            return false;
        eval_tally_caption(&side->tally, &run->record.entries[j], j, forced.nll_sum, forced.tokens,
                           forced.top1);
    }
    return true;
}

static bool wrong_caption(struct eval_run *run, const mmq_image *image, size_t owner)
{
    struct eval_forced forced;

    if (!force_caption(run, run->measured, owner, image, &forced, EVAL_IGNORE))
        return false;
    eval_tally_wrong_picture(&run->measured->tally, &run->record.entries[owner], owner,
                             forced.nll_sum, forced.tokens);
    return true;
}

/* ---- answers --------------------------------------------------------------------------------- */

static bool greedy_caption(struct eval_run *run, const mmq_image *image, size_t j)
{
    struct eval_side *side = run->measured;
    struct one_prompt p;
    mmq_result *result = NULL;
    mmq_generate_request request = {
        .struct_size = sizeof request, .prompt = &p.form.prompt, .max_new_tokens = MOST_NEW_TOKENS};

    set_prompt(&p, side->chat_template, image, describe);
    if (mmq_generate(&result, side->m.session, &request) != MMQ_OK)
        return fail_entry(run, j, "the greedy caption", mmq_last_error_message());
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

    if (index != 0 || n_vocab != margin->side->m.n_vocab)
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
                                        .prompt = &p.form.prompt,
                                        .on_logits = take_margin,
                                        .logits_user = &margin};

        set_prompt(&p, side->chat_template, image, entry->questions[i].text);
        if (mmq_evaluate(&evaluation, side->m.session, &request) != MMQ_OK)
            return fail_entry(run, j, "a question", mmq_last_error_message());
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
        return EVAL_FAIL(run, "--data: the path is too long");
    if (mmq_image_read_file(&image, path, NULL) != MMQ_OK)
        return fail_entry(run, j, "the picture", mmq_last_error_message());
    if (j < run->n)
        done = own_caption(run, image, j);
    if (done && owner < run->n)
        done = wrong_caption(run, image, owner);
    if (done && j < run->n) /* the same words as before first, then those that differ */
        done = greedy_caption(run, image, j) && questions(run, image, j);
    mmq_image_free(image);
    return done;
}
