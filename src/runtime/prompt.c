#include "runtime/prompt.h"

#include <string.h>

#include "core/mem.h"
#include "core/status.h"
#include "core/text.h"
#include "model/family.h"
#include "text/mark.h"

static int32_t add_token(struct mmqi_tokens *tokens, const struct mmqi_token *token)
{
    struct mmqi_token *data;
    size_t capacity;

    if (tokens->n == tokens->capacity) {
        capacity = tokens->capacity ? tokens->capacity * 2 : 64;
        data = mmqi_realloc_array(tokens->data, capacity, sizeof *data);
        if (!data)
            return mmqi_fail(MMQ_ERR_NOMEM, "prompt: no memory for %zu tokens", capacity);
        tokens->data = data;
        tokens->capacity = capacity;
    }
    for (int i = 0; i < MMQI_MAX_AXES; i++)
        if ((tokens->n == 0 && i == 0) || token->position[i] > tokens->most)
            tokens->most = token->position[i];
    tokens->data[tokens->n++] = *token;
    return MMQ_OK;
}

/* One past the greatest place of the last token in its grid: time does not count, text goes on
 * behind the longer side of a video that lasts longer than that. */
static int32_t next_position(const struct mmqi_tokens *tokens)
{
    const int32_t *last;
    int32_t most = -1;

    if (tokens->n == 0)
        return 0;
    last = tokens->data[tokens->n - 1].position;
    for (int i = 1; i < MMQI_MAX_AXES; i++)
        if (last[i] > most)
            most = last[i];
    return most + 1;
}

int32_t mmqi_tokens_add(struct mmqi_tokens *tokens, int32_t id)
{
    int32_t at = next_position(tokens);

    return add_token(tokens, &(struct mmqi_token){id, -1, -1, {at, at, at}});
}

int32_t mmqi_tokens_answer(struct mmqi_tokens *tokens, int32_t id)
{
    int32_t at = tokens->n > 0 ? tokens->most + 1 : 0;

    return add_token(tokens, &(struct mmqi_token){id, -1, -1, {at, at, at}});
}

/* From where the run begins: time by view, row and column in its grid. */
static void place_in_grid(struct mmqi_token *token, const struct mmqi_picture *picture, int32_t i)
{
    int32_t across = picture->across, in_view = i;

    if (picture->frames > 0) {
        in_view = i % (across * picture->down);
        token->position[0] += i / (across * picture->down) * picture->time_step;
    }
    token->position[1] += in_view / across;
    token->position[2] += in_view % across;
}

int32_t mmqi_tokens_add_run(struct mmqi_tokens *tokens, int32_t id, int32_t index,
                            const struct mmqi_picture *picture, int32_t run, const int32_t *order,
                            int32_t n_axes)
{
    int32_t begin = next_position(tokens), n = picture->rows / picture->n_runs, status = MMQ_OK;
    struct mmqi_token token = {.id = id, .picture = index};

    for (int32_t i = 0; i < n && status == MMQ_OK; i++) {
        token.row = order ? order[run * n + i] : run * n + i;
        for (int k = 0; k < MMQI_MAX_AXES; k++)
            token.position[k] = n_axes == 1 ? begin + i : begin;
        if (n_axes > 1)
            place_in_grid(&token, picture, i);
        status = add_token(tokens, &token);
    }
    return status;
}

void mmqi_tokens_free(struct mmqi_tokens *tokens)
{
    mmqi_free(tokens->data);
    memset(tokens, 0, sizeof *tokens);
}

/* The text of a token id, for the template's variables; NULL for none. */
static const char *token_text(const struct mmqi_model *model, int32_t id)
{
    return id >= 0 ? mmqi_tokenizer_content(model->tokenizer, id) : NULL;
}

/* The prompt in words. Where *marked comes out true, special tokens in the messages' texts have
 * marks (text/mark.h). */
static int32_t render(char **text, size_t *size, bool *marked, const struct mmqi_model *model,
                      const struct mmqi_prompt *prompt)
{
    struct mmqi_chat_input input = prompt->chat;
    struct mmqi_marked marks = {0};
    int32_t status = MMQ_OK;

    *text = NULL;
    *marked = input.n_messages > 0 && !prompt->parse_special;
    if (input.n_messages == 0) {
        *size = strlen(prompt->text);
        *text = mmqi_strndup(prompt->text, *size);
        return *text ? MMQ_OK : mmqi_fail(MMQ_ERR_NOMEM, "prompt: no memory for its text");
    }
    if (!model->chat && model->chat_error)
        return mmqi_fail(MMQ_ERR_UNSUPPORTED, "%s; give raw text", model->chat_error);
    if (!model->chat)
        return mmqi_fail(MMQ_ERR_UNSUPPORTED, "%s: there is no chat template; give raw text",
                         model->path);
    input.add_generation_prompt = true;
    input.bos_token = token_text(model, model->spec.bos);
    input.eos_token = model->spec.n_eos > 0 ? token_text(model, model->spec.eos[0]) : NULL;
    if (*marked)
        status = mmqi_mark_chat(&marks, model->tokenizer, model->spec.image_marker, &input);
    if (status == MMQ_OK)
        status = mmqi_chat_render(model->chat, text, size, *marked ? &marks.input : &input);
    mmqi_marked_free(&marks);
    return status;
}

int32_t mmqi_prompt_text(char **text, size_t *size, const struct mmqi_model *model,
                         const struct mmqi_prompt *prompt)
{
    bool marked;
    int32_t status = render(text, size, &marked, model, prompt);

    if (status == MMQ_OK && marked)
        *size = mmqi_unmark(*text, *size);
    return status;
}

/* Templates that write the BOS themselves must not get a second one from the tokenizer. */
static int32_t encode_flags(const struct mmqi_model *model, const char *text)
{
    const char *bos = token_text(model, model->spec.bos);

    if (bos && bos[0] != '\0' && strncmp(text, bos, strlen(bos)) == 0)
        return 0;
    return MMQI_TOKENIZE_POST;
}

/* ---- pictures in words ---- */

static int32_t measure(struct mmqi_picture *picture, const struct mmqi_model *model,
                       const struct mmqi_image *image)
{
    return mmqi_model_measure_image(picture, model, image);
}

static int32_t fail_count(const struct mmqi_model *model, size_t n_markers, size_t n_images)
{
    return mmqi_fail(MMQ_ERR_INVALID, "prompt: %zu '%s' for %zu pictures", n_markers,
                     model->spec.image_marker, n_images);
}

/* Does this id stand for the rows of videos? */
static bool is_video_token(const struct mmqi_spec *spec, int32_t id)
{
    return spec->video_marker && id == spec->video_token;
}

static size_t count_videos(const struct mmqi_prompt *prompt)
{
    size_t n = 0;

    for (size_t i = 0; i < prompt->n_images; i++)
        n += prompt->images[i]->frames != NULL;
    return n;
}

/* In place of each marker the text that the family writes for its picture; `text` as it is where
 * the family writes none. */
static int32_t write_markers(char **text, size_t *size, const struct mmqi_model *model,
                             const struct mmqi_prompt *prompt)
{
    const char *marker = model->spec.image_marker;
    size_t length = strlen(marker), at = 0, next, n = 0;
    struct mmqi_buf buf = {0};
    struct mmqi_picture picture;
    int32_t status = MMQ_OK;

    if (!model->family->write_marker || length == 0)
        return MMQ_OK;
    while ((next = mmqi_find_word(*text, *size, at, marker, length)) < *size && status == MMQ_OK) {
        mmqi_buf_append(&buf, *text + at, next - at);
        at = next + length;
        if (n < prompt->n_images)
            status = measure(&picture, model, prompt->images[n]);
        if (status == MMQ_OK && n++ < prompt->n_images)
            model->family->write_marker(&buf, model, &picture);
    }
    mmqi_buf_append(&buf, *text + at, *size - at);
    if (status == MMQ_OK && n != prompt->n_images)
        status = fail_count(model, n, prompt->n_images);
    if (status == MMQ_OK && mmqi_buf_failed(&buf))
        status = mmqi_fail(MMQ_ERR_NOMEM, "prompt: no memory for its text");
    if (status == MMQ_OK) {
        mmqi_free(*text);
        *size = buf.size;
        *text = mmqi_buf_take(&buf);
    }
    mmqi_buf_free(&buf);
    return status;
}

/* ---- pictures in tokens ---- */

static size_t count_markers(const struct mmqi_ids *ids, int32_t token)
{
    size_t i, n = 0;

    for (i = 0; i < ids->n; i++)
        n += ids->data[i] == token;
    return n;
}

/* One image token for each picture, one video token for each video. */
static int32_t check_kinds(const struct mmqi_model *model, const struct mmqi_ids *ids,
                           const struct mmqi_prompt *prompt)
{
    const struct mmqi_spec *spec = &model->spec;
    size_t n_videos = count_videos(prompt), n_images = prompt->n_images - n_videos, n;

    n = count_markers(ids, spec->image_token);
    if (n != n_images)
        return fail_count(model, n, n_images);
    n = spec->video_marker ? count_markers(ids, spec->video_token) : 0;
    if (spec->video_marker && n != n_videos)
        return mmqi_fail(MMQ_ERR_INVALID, "prompt: %zu '%s' for %zu videos", n, spec->video_marker,
                         n_videos);
    return MMQ_OK;
}

/* Is there an image token for each run of each picture? */
static int32_t check_markers(const struct mmqi_model *model, const struct mmqi_ids *ids,
                             const struct mmqi_prompt *prompt)
{
    size_t n_markers = count_markers(ids, model->spec.image_token), n_runs = 0;
    struct mmqi_picture picture;
    int32_t status = MMQ_OK;

    if (!model->family->write_marker)
        return check_kinds(model, ids, prompt);
    for (size_t i = 0; i < prompt->n_images && status == MMQ_OK; i++) {
        status = measure(&picture, model, prompt->images[i]);
        n_runs += (size_t)picture.n_runs;
    }
    if (status == MMQ_OK && n_markers != n_runs)
        status = mmqi_fail(MMQ_ERR_FORMAT,
                           "%s: tokenizer.json reads %zu '%s' in a prompt that has %zu, one for "
                           "each run of picture rows",
                           model->path, n_markers, model->spec.image_marker, n_runs);
    return status;
}

/* A list of ids on its way to a list of tokens. */
struct expansion {
    const struct mmqi_model *model;
    struct mmqi_image *const *images;
    struct mmqi_picture picture; /* in hand */
    int32_t *order;              /* of its rows, or NULL */
    int32_t index, run;          /* of the picture; the next of its runs */
};

/* The rows of the next run in place of an image token. */
static int32_t expand_marker(struct expansion *e, struct mmqi_tokens *tokens, int32_t id)
{
    bool is_video = is_video_token(&e->model->spec, id);
    int32_t status = MMQ_OK;

    if (is_video != (e->images[e->index]->frames != NULL))
        return mmqi_fail(MMQ_ERR_INVALID, "prompt: picture %d is %s video where '%s' stands",
                         (int)e->index, is_video ? "no" : "a",
                         is_video ? e->model->spec.video_marker : e->model->spec.image_marker);
    if (e->run == 0) {
        mmqi_free(e->order);
        e->order = NULL;
        status = measure(&e->picture, e->model, e->images[e->index]);
        if (status == MMQ_OK)
            status = mmqi_model_order(&e->order, e->model, &e->picture);
    }
    if (status == MMQ_OK)
        status = mmqi_tokens_add_run(tokens, id, e->index, &e->picture, e->run, e->order,
                                     e->model->spec.rope_axes);
    if (++e->run == e->picture.n_runs) {
        e->run = 0;
        e->index++;
    }
    return status;
}

/* Rows of pictures in place of image tokens, which are as many as there are runs. */
static int32_t expand(struct mmqi_tokens *tokens, const struct mmqi_model *model,
                      const struct mmqi_ids *ids, struct mmqi_image *const *images)
{
    const struct mmqi_spec *spec = &model->spec;
    struct expansion e = {.model = model, .images = images};
    int32_t status = MMQ_OK, id;

    for (size_t i = 0; i < ids->n && status == MMQ_OK; i++) {
        id = ids->data[i];
        if (id == spec->image_token || is_video_token(spec, id))
            status = expand_marker(&e, tokens, id);
        else if (id < 0 || id >= spec->vocab_size)
            status = mmqi_fail(MMQ_ERR_FORMAT, "%s: token id %d is outside the vocabulary of %d",
                               model->path, (int)id, (int)spec->vocab_size);
        else
            status = mmqi_tokens_add(tokens, id);
    }
    mmqi_free(e.order);
    return status;
}

/* The ids of text[0 .. size), with an image token in place of each marker. */
static int32_t encode_between(struct mmqi_ids *ids, const struct mmqi_model *model,
                              const char *text, size_t size, int32_t flags)
{
    const char *marker = model->spec.image_marker;
    int32_t status = MMQ_OK;
    size_t at = 0, next;

    for (;;) {
        next = mmqi_find_word(text, size, at, marker, strlen(marker));
        status = mmqi_tokenizer_encode(model->tokenizer, ids, text + at, next - at, flags);
        if (status != MMQ_OK || next == size)
            return status;
        status = mmqi_ids_append(ids, &model->spec.image_token, 1);
        if (status != MMQ_OK)
            return status;
        flags &= ~MMQI_TOKENIZE_POST; /* what comes before the first words of a prompt is there */
        at = next + strlen(marker);
    }
}

static int32_t encode(struct mmqi_ids *ids, const struct mmqi_model *model, const char *text,
                      size_t size, int32_t flags)
{
    return model->spec.marker_splits
               ? encode_between(ids, model, text, size, flags)
               : mmqi_tokenizer_encode(model->tokenizer, ids, text, size, flags);
}

int32_t mmqi_prompt_tokens(struct mmqi_tokens *tokens, const struct mmqi_model *model,
                           const struct mmqi_prompt *prompt)
{
    struct mmqi_ids ids = {0};
    char *text = NULL;
    size_t size;
    bool marked;
    int32_t status = render(&text, &size, &marked, model, prompt);

    if (status == MMQ_OK)
        status = write_markers(&text, &size, model, prompt);
    if (status == MMQ_OK)
        status = encode(&ids, model, text, size,
                        encode_flags(model, text) | (marked ? MMQI_TOKENIZE_MARKED : 0));
    if (status == MMQ_OK)
        status = check_markers(model, &ids, prompt);
    if (status == MMQ_OK)
        status = expand(tokens, model, &ids, prompt->images);
    if (status == MMQ_OK && tokens->n == 0)
        status = mmqi_fail(MMQ_ERR_INVALID, "prompt: it has no tokens");
    mmqi_free(ids.data);
    mmqi_free(text);
    return status;
}
