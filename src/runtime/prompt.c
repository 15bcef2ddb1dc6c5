#include "runtime/prompt.h"

#include <string.h>

#include "core/mem.h"
#include "core/status.h"

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
    tokens->data[tokens->n++] = *token;
    return MMQ_OK;
}

/* One past the greatest position of the last token. */
static int32_t next_position(const struct mmqi_tokens *tokens)
{
    const int32_t *last;
    int32_t most = -1;

    if (tokens->n == 0)
        return 0;
    last = tokens->data[tokens->n - 1].position;
    for (int i = 0; i < MMQI_MAX_AXES; i++)
        if (last[i] > most)
            most = last[i];
    return most + 1;
}

int32_t mmqi_tokens_add(struct mmqi_tokens *tokens, int32_t id)
{
    int32_t at = next_position(tokens);

    return add_token(tokens, &(struct mmqi_token){id, -1, -1, {at, at, at}});
}

int32_t mmqi_tokens_add_picture(struct mmqi_tokens *tokens, int32_t id, int32_t index,
                                const struct mmqi_picture *picture, int32_t n_axes)
{
    int32_t begin = next_position(tokens), status = MMQ_OK;
    struct mmqi_token token = {.id = id, .picture = index};

    for (int32_t row = 0; row < picture->rows && status == MMQ_OK; row++) {
        token.row = row;
        for (int i = 0; i < MMQI_MAX_AXES; i++)
            token.position[i] = n_axes == 1 ? begin + row : begin;
        if (n_axes > 1) {
            token.position[1] += row / picture->across;
            token.position[2] += row % picture->across;
        }
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

int32_t mmqi_prompt_text(char **text, size_t *size, const struct mmqi_model *model,
                         const struct mmqi_prompt *prompt)
{
    struct mmqi_chat_input input = prompt->chat;

    *text = NULL;
    if (input.n_messages == 0) {
        *size = strlen(prompt->text);
        *text = mmqi_strndup(prompt->text, *size);
        return *text ? MMQ_OK : mmqi_fail(MMQ_ERR_NOMEM, "prompt: no memory for its text");
    }
    if (!model->chat && model->chat_error)
        return mmqi_fail(MMQ_ERR_UNSUPPORTED, "%s; give raw text", model->chat_error);
    if (!model->chat)
        return mmqi_fail(MMQ_ERR_UNSUPPORTED, "%s: the folder has no chat template; give raw text",
                         model->path);
    input.add_generation_prompt = true;
    input.bos_token = token_text(model, model->spec.bos);
    input.eos_token = model->spec.n_eos > 0 ? token_text(model, model->spec.eos[0]) : NULL;
    return mmqi_chat_render(model->chat, text, size, &input);
}

/* Templates that write the BOS themselves must not get a second one from the tokenizer. */
static int32_t encode_flags(const struct mmqi_model *model, const char *text)
{
    const char *bos = token_text(model, model->spec.bos);

    if (bos && bos[0] != '\0' && strncmp(text, bos, strlen(bos)) == 0)
        return 0;
    return MMQI_TOKENIZE_POST;
}

/* One token per picture row in place of each image token; as many of them as pictures. */
static int32_t expand(struct mmqi_tokens *tokens, const struct mmqi_model *model,
                      const struct mmqi_ids *ids, struct mmqi_image *const *images)
{
    const struct mmqi_spec *spec = &model->spec;
    struct mmqi_picture picture;
    int32_t n = 0, status = MMQ_OK, id;
    size_t i;

    for (i = 0; i < ids->n && status == MMQ_OK; i++) {
        id = ids->data[i];
        if (id < 0 || id >= spec->vocab_size)
            return mmqi_fail(MMQ_ERR_FORMAT, "%s: token id %d is outside the vocabulary of %d",
                             model->path, (int)id, (int)spec->vocab_size);
        if (id != spec->image_token) {
            status = mmqi_tokens_add(tokens, id);
            continue;
        }
        status = mmqi_model_measure(&picture, model, images[n]->width, images[n]->height);
        if (status == MMQ_OK)
            status = mmqi_tokens_add_picture(tokens, id, n++, &picture, spec->rope_axes);
    }
    return status;
}

static size_t count_markers(const struct mmqi_model *model, const struct mmqi_ids *ids)
{
    size_t i, n = 0;

    for (i = 0; i < ids->n; i++)
        n += ids->data[i] == model->spec.image_token;
    return n;
}

int32_t mmqi_prompt_tokens(struct mmqi_tokens *tokens, const struct mmqi_model *model,
                           const struct mmqi_prompt *prompt)
{
    struct mmqi_ids ids = {0};
    char *text = NULL;
    size_t size, n_markers;
    int32_t status;

    status = mmqi_prompt_text(&text, &size, model, prompt);
    if (status != MMQ_OK)
        goto done;
    status = mmqi_tokenizer_encode(model->tokenizer, &ids, text, size, encode_flags(model, text));
    if (status != MMQ_OK)
        goto done;
    n_markers = count_markers(model, &ids);
    if (n_markers != prompt->n_images) {
        status = mmqi_fail(MMQ_ERR_INVALID, "prompt: %zu '%s' for %zu pictures", n_markers,
                           model->spec.image_marker, prompt->n_images);
        goto done;
    }
    status = expand(tokens, model, &ids, prompt->images);
    if (status == MMQ_OK && tokens->n == 0)
        status = mmqi_fail(MMQ_ERR_INVALID, "prompt: it has no tokens");
done:
    mmqi_free(ids.data);
    mmqi_free(text);
    return status;
}
