#include "runtime/prompt.h"

#include <string.h>

#include "core/mem.h"
#include "core/status.h"

int32_t mmqi_tokens_add(struct mmqi_tokens *tokens, struct mmqi_token token)
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
    tokens->data[tokens->n++] = token;
    return MMQ_OK;
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

/* One token per picture row in place of each image token. */
static int32_t expand(struct mmqi_tokens *tokens, const struct mmqi_model *model,
                      const struct mmqi_ids *ids)
{
    struct mmqi_token token;
    int32_t picture = 0, row, status = MMQ_OK;
    size_t i;

    for (i = 0; i < ids->n && status == MMQ_OK; i++) {
        token = (struct mmqi_token){ids->data[i], -1, -1};
        if (token.id < 0 || token.id >= model->spec.vocab_size)
            return mmqi_fail(MMQ_ERR_FORMAT, "%s: token id %d is outside the vocabulary of %d",
                             model->path, (int)token.id, (int)model->spec.vocab_size);
        if (token.id != model->spec.image_token) {
            status = mmqi_tokens_add(tokens, token);
            continue;
        }
        token.picture = picture++;
        for (row = 0; row < model->spec.image_rows && status == MMQ_OK; row++) {
            token.row = row;
            status = mmqi_tokens_add(tokens, token);
        }
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
    status = expand(tokens, model, &ids);
    if (status == MMQ_OK && tokens->n == 0)
        status = mmqi_fail(MMQ_ERR_INVALID, "prompt: it has no tokens");
done:
    mmqi_free(ids.data);
    mmqi_free(text);
    return status;
}
