/* Questions to models: pictures, the true answer by teacher forcing, the answer that is given. */
#include "eval_quiz_run.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common.h"

enum { MID_GREY = 128 };

/* Something failed while question i was at work. */
static bool fail_question(struct quiz_run *run, size_t i, const char *what, const char *why)
{
    return EVAL_FAIL(run, "%s:%zu: %s: %s", run->quiz.path, i + 1, what, why);
}

/* ---- opening --------------------------------------------------------------------------------- */

static bool open_side(struct quiz_run *run, struct eval_model *side, size_t n_images)
{
    if (!eval_model_open(side, side == run->side, &run->settings, run->error, sizeof run->error))
        return false;
    return eval_model_session(side, n_images, run->settings.max_tokens, run->settings.context) ==
               MMQ_OK ||
           EVAL_FAIL(run, "%s", mmq_last_error_message());
}

static bool open_sides(struct quiz_run *run)
{
    size_t most = 0, i;

    for (i = 0; i < run->n; i++)
        if (run->quiz.items[i].n_images > most)
            most = run->quiz.items[i].n_images;
    if (!open_side(run, &run->side[0], most))
        return false;
    return !run->settings.candidate ||
           (open_side(run, &run->side[1], most) &&
            eval_models_match(&run->side[0], &run->side[1], run->error, sizeof run->error));
}

bool quiz_run_open(struct quiz_run *run, const struct eval_settings *settings)
{
    char path[1024];

    memset(run, 0, sizeof *run);
    run->settings = *settings;
    run->measured = &run->side[settings->candidate ? 1 : 0];
    if ((size_t)snprintf(path, sizeof path, "%s/questions.jsonl", settings->data) >= sizeof path)
        return EVAL_FAIL(run, "--data: the path is too long");
    if (!quiz_read(&run->quiz, path))
        return EVAL_FAIL(run, "%s", run->quiz.error);
    run->n = settings->limit < run->quiz.n ? settings->limit : run->quiz.n;
    if (!open_sides(run))
        return false;
    if (!settings->answers)
        return true;
    run->answers = fopen(settings->answers, "wb");
    return run->answers || EVAL_FAIL(run, "%s: %s", settings->answers, strerror(errno));
}

static void forget_pictures(struct quiz_picture *pictures, size_t n)
{
    size_t i;

    for (i = 0; i < n; i++) {
        mmq_image_free(pictures[i].image);
        free(pictures[i].name);
    }
}

void quiz_run_close(struct quiz_run *run)
{
    int i;

    for (i = 0; i < 2; i++)
        eval_model_close(&run->side[i]);
    forget_pictures(run->pictures, run->n_pictures);
    run->n_pictures = 0;
    eval_force_free(&run->force);
    quiz_free(&run->quiz);
    if (run->answers)
        fclose(run->answers);
    run->answers = NULL;
}

/* ---- pictures -------------------------------------------------------------------------------- */

/* Put a grey picture of its size in the place of *image. */
static mmq_status turn_grey(mmq_image **image)
{
    int32_t width, height;
    uint8_t *pixels;
    mmq_image *grey = NULL;
    mmq_status status = mmq_image_size(&width, &height, *image);

    if (status != MMQ_OK)
        return status;
    pixels = malloc((size_t)width * (size_t)height);
    if (!pixels)
        return MMQ_ERR_NOMEM;
    memset(pixels, MID_GREY, (size_t)width * (size_t)height);
    status = mmq_image_from_pixels(&grey, pixels, width, height, 1, 0, NULL);
    free(pixels);
    if (status != MMQ_OK)
        return status;
    mmq_image_free(*image);
    *image = grey;
    return MMQ_OK;
}

static bool read_picture(struct quiz_run *run, size_t i, const char *name, mmq_image **image)
{
    char path[4096];
    mmq_status status;

    if ((size_t)snprintf(path, sizeof path, "%s/%s", run->settings.data, name) >= sizeof path)
        return fail_question(run, i, name, "the path is too long");
    if (mmq_image_read_file(image, path, NULL) != MMQ_OK)
        return fail_question(run, i, name, mmq_last_error_message());
    if (!run->settings.grey)
        return true;
    status = turn_grey(image);
    return status == MMQ_OK || fail_question(run, i, name, mmq_status_text(status));
}

/* Take the picture from those of the last question, or read it. */
static bool find_picture(struct quiz_run *run, size_t i, const char *name,
                         struct quiz_picture *picture)
{
    size_t k;

    for (k = 0; k < run->n_pictures; k++)
        if (run->pictures[k].name && strcmp(run->pictures[k].name, name) == 0) {
            *picture = run->pictures[k];
            run->pictures[k] = (struct quiz_picture){NULL, NULL};
            return true;
        }
    picture->name = malloc(strlen(name) + 1);
    if (!picture->name)
        return fail_question(run, i, name, "no memory");
    strcpy(picture->name, name);
    return read_picture(run, i, name, &picture->image);
}

/* run->pictures becomes those of question i. */
static bool hold_pictures(struct quiz_run *run, size_t i)
{
    const struct quiz_item *item = &run->quiz.items[i];
    struct quiz_picture pictures[EVAL_MOST_IMAGES] = {{NULL, NULL}};
    const char *name = item->images;
    bool done = true;
    size_t k;

    for (k = 0; k < item->n_images && done; k++, name += strlen(name) + 1)
        done = find_picture(run, i, name, &pictures[k]);
    forget_pictures(run->pictures, run->n_pictures);
    memcpy(run->pictures, pictures, sizeof pictures);
    run->n_pictures = item->n_images;
    return done;
}

/* ---- answers --------------------------------------------------------------------------------- */

/* An answer begins after a blank where the prompt does not end in one ("ASSISTANT:"). */
static bool needs_blank(const struct eval_model *side, const mmq_prompt *prompt, bool *blank)
{
    char *text = NULL;
    size_t size;

    if (mmq_render_chat(&text, &size, side->model, prompt) != MMQ_OK)
        return false;
    *blank = size > 0 && text[size - 1] != ' ' && text[size - 1] != '\n';
    mmq_text_free(text);
    return true;
}

/* Both models on the true answer. */
static bool compare_sides(struct quiz_run *run, size_t i, const mmq_prompt *prompt)
{
    char text[QUIZ_MOST_TEXT_BYTES + 2];
    struct eval_forced forced;
    bool blank;
    int k;

    for (k = 0; k < 2; k++) {
        if (!needs_blank(&run->side[k], prompt, &blank))
            return fail_question(run, i, "the prompt", mmq_last_error_message());
        snprintf(text, sizeof text, "%s%s", blank ? " " : "", run->quiz.items[i].answer);
        if (!eval_force_text(&run->force, &forced, &run->side[k], prompt, text,
                             k == 0 ? EVAL_KEEP : EVAL_COMPARE))
            return fail_question(run, i, "the answer", run->force.error);
    }
    return true;
}

/* One line: the question as it was read, the answer given, its score. */
static bool write_answer(struct quiz_run *run, size_t i, const char *given, double score)
{
    const struct quiz_item *item = &run->quiz.items[i];
    const char *name = item->images;
    FILE *file = run->answers;
    size_t k;

    if (!file)
        return true;
    fputs("{\"images\": [", file);
    for (k = 0; k < item->n_images; k++, name += strlen(name) + 1) {
        fputs(k > 0 ? ", " : "", file);
        print_json_string(file, name);
    }
    fputs("], \"question\": ", file);
    print_json_string(file, item->question);
    fputs(", \"answer\": ", file);
    print_json_string(file, item->answer);
    fputs(", \"kind\": ", file);
    print_json_string(file, run->quiz.kinds[item->kind]);
    fputs(", \"given\": ", file);
    print_json_string(file, given);
    fprintf(file, ", \"score\": %.9g}\n", score);
    return !ferror(file) || EVAL_FAIL(run, "%s: cannot be written", run->settings.answers);
}

static bool give_answer(struct quiz_run *run, size_t i, const mmq_prompt *prompt)
{
    const struct quiz_item *item = &run->quiz.items[i];
    mmq_generate_request request = {.struct_size = sizeof request,
                                    .prompt = prompt,
                                    .max_new_tokens = run->settings.max_tokens};
    mmq_result *result = NULL;
    double score;
    bool done;

    if (mmq_generate(&result, run->measured->session, &request) != MMQ_OK)
        return fail_question(run, i, "the answer", mmq_last_error_message());
    score = quiz_score(run->quiz.kinds[item->kind], item->answer, mmq_result_text(result));
    quiz_tally_add(&run->tally, item->kind, score);
    done = write_answer(run, i, mmq_result_text(result), score);
    mmq_result_free(result);
    return done;
}

bool quiz_run_question(struct quiz_run *run, size_t i)
{
    const mmq_image *images[EVAL_MOST_IMAGES];
    struct eval_prompt p;
    size_t k;

    if (!hold_pictures(run, i))
        return false;
    for (k = 0; k < run->n_pictures; k++)
        images[k] = run->pictures[k].image;
    eval_prompt_chat(&p, images, run->n_pictures, run->quiz.items[i].question);
    if (run->settings.candidate && !compare_sides(run, i, &p.prompt))
        return false;
    return give_answer(run, i, &p.prompt);
}

bool quiz_run_finish(struct quiz_run *run)
{
    bool done;

    if (!run->answers)
        return true;
    done = fclose(run->answers) == 0;
    run->answers = NULL;
    return done || EVAL_FAIL(run, "%s: cannot be written", run->settings.answers);
}
