/* Tokens, text and prompts. */
#include <string.h>

#include "api/api.h"
#include "core/mem.h"

static int32_t tokenize(struct mmqi_ids *made, const mmq_model *model, const char *text,
                        size_t size, int32_t add_special)
{
    int32_t status = mmqi_tokenizer_encode(model->core->tokenizer, made, text,
                                           size == SIZE_MAX ? strlen(text) : size,
                                           add_special ? MMQI_TOKENIZE_POST : 0);

    if (status == MMQ_OK && !made->data) { /* no ids: still a block to free */
        made->data = mmqi_alloc(sizeof *made->data);
        if (!made->data)
            status = mmqi_fail(MMQ_ERR_NOMEM, "mmq_tokenize: no memory");
    }
    return status;
}

mmq_status mmq_tokenize(int32_t **ids, size_t *n_ids, const mmq_model *model, const char *text,
                        size_t size, int32_t add_special)
{
    const struct mmqi_mem_hooks *hooks = mmqi_model_enter(model);
    struct mmqi_ids made = {0};
    int32_t status;

    if (ids)
        *ids = NULL;
    if (n_ids)
        *n_ids = 0;
    if (!ids || !n_ids || !model || !text)
        status = mmqi_fail(MMQ_ERR_INVALID, "mmq_tokenize: an argument is NULL");
    else
        status = tokenize(&made, model, text, size, add_special);
    mmqi_mem_enter(hooks);
    if (status != MMQ_OK) {
        mmqi_free(made.data);
        return mmqi_model_failed(model, status);
    }
    *ids = made.data;
    *n_ids = made.n;
    return MMQ_OK;
}

void mmq_ids_free(int32_t *ids)
{
    mmqi_free(ids);
}

/* A text to be made: nothing, until it is. */
static int32_t clear_text(char **text, size_t *size)
{
    if (text)
        *text = NULL;
    if (size)
        *size = 0;
    return text && size ? MMQ_OK : mmqi_fail(MMQ_ERR_INVALID, "text: text or size is NULL");
}

mmq_status mmq_detokenize(char **text, size_t *size, const mmq_model *model, const int32_t *ids,
                          size_t n_ids, int32_t skip_special)
{
    const struct mmqi_mem_hooks *hooks = mmqi_model_enter(model);
    int32_t status = clear_text(text, size);

    if (status == MMQ_OK && (!model || (!ids && n_ids > 0)))
        status = mmqi_fail(MMQ_ERR_INVALID, "mmq_detokenize: model or ids is NULL");
    if (status == MMQ_OK)
        status = mmqi_tokenizer_decode(model->core->tokenizer, text, size, ids, n_ids,
                                       skip_special != 0);
    mmqi_mem_enter(hooks);
    return mmqi_model_failed(model, status);
}

void mmq_text_free(char *text)
{
    mmqi_free(text);
}

/* One part, and the picture it may bring. */
static int32_t take_part(struct mmqi_chat_part *out, const mmq_image **image, const mmq_part *part)
{
    mmq_part p;
    int32_t status;

    if (!part)
        return mmqi_fail(MMQ_ERR_INVALID, "mmq_prompt: a part is NULL");
    status = MMQI_TAKE(&p, part, "mmq_part");
    if (status != MMQ_OK)
        return status;
    if (!p.text == !p.image)
        return mmqi_fail(MMQ_ERR_INVALID, "mmq_part: exactly one of text and image must be set");
    out->is_image = MMQI_PART_TEXT;
    if (p.image)
        out->is_image =
            ((const struct mmqi_image *)p.image)->frames ? MMQI_PART_VIDEO : MMQI_PART_IMAGE;
    out->text = p.text ? p.text : "";
    *image = p.image;
    return MMQ_OK;
}

static int32_t take_message(mmq_message *out, const mmq_message *message)
{
    int32_t status;

    if (!message)
        return mmqi_fail(MMQ_ERR_INVALID, "mmq_prompt: a message is NULL");
    status = MMQI_TAKE(out, message, "mmq_message");
    if (status == MMQ_OK && (!out->role || (!out->parts && out->n_parts > 0)))
        status = mmqi_fail(MMQ_ERR_INVALID, "mmq_message: role or parts is NULL");
    return status;
}

static int32_t count_parts(size_t *n_parts, const mmq_prompt *prompt)
{
    mmq_message message;
    int32_t status = MMQ_OK;
    size_t i;

    *n_parts = 0;
    for (i = 0; i < prompt->n_messages && status == MMQ_OK; i++) {
        status = take_message(&message, prompt->messages[i]);
        if (status == MMQ_OK && !mmqi_add_size(*n_parts, message.n_parts, n_parts))
            status = mmqi_fail(MMQ_ERR_INVALID, "mmq_prompt: more parts than memory has addresses");
    }
    return status;
}

/* What a conversation becomes, in one block. */
struct block {
    struct mmqi_chat_message *messages;
    struct mmqi_chat_part *parts;
    struct mmqi_image **images;
};

static int32_t make_block(struct block *block, void **held, size_t n_messages, size_t n_parts)
{
    size_t messages, parts, images, total;

    if (!mmqi_mul_size(n_messages, sizeof *block->messages, &messages) ||
        !mmqi_mul_size(n_parts, sizeof *block->parts, &parts) ||
        !mmqi_mul_size(n_parts, sizeof *block->images, &images) ||
        !mmqi_add_size(messages, parts, &total) || !mmqi_add_size(total, images, &total))
        return mmqi_fail(MMQ_ERR_INVALID, "mmq_prompt: more parts than memory has addresses");
    *held = mmqi_calloc(1, total);
    if (!*held)
        return mmqi_fail(MMQ_ERR_NOMEM, "mmq_prompt: no memory for %zu parts", n_parts);
    block->messages = *held;
    block->parts = (struct mmqi_chat_part *)((char *)*held + messages);
    block->images = (struct mmqi_image **)((char *)*held + messages + parts);
    return MMQ_OK;
}

static int32_t take_messages(struct mmqi_prompt *out, void **held, const mmq_prompt *prompt)
{
    struct block block = {0};
    mmq_message message = {0};
    const mmq_image *image = NULL;
    size_t n_parts, i, j, part = 0;
    int32_t status;

    status = count_parts(&n_parts, prompt);
    if (status == MMQ_OK)
        status = make_block(&block, held, prompt->n_messages, n_parts);
    for (i = 0; i < prompt->n_messages && status == MMQ_OK; i++) {
        status = take_message(&message, prompt->messages[i]);
        block.messages[i] =
            (struct mmqi_chat_message){message.role, block.parts + part, message.n_parts};
        for (j = 0; j < message.n_parts && status == MMQ_OK; j++, part++) {
            status = take_part(&block.parts[part], &image, message.parts[j]);
            if (status == MMQ_OK && image)
                block.images[out->n_images++] = (struct mmqi_image *)image;
        }
    }
    if (status != MMQ_OK)
        return status;
    out->chat.messages = block.messages;
    out->chat.n_messages = prompt->n_messages;
    out->images = block.images;
    return MMQ_OK;
}

int32_t mmqi_take_prompt(struct mmqi_prompt *out, void **held, const mmq_prompt *prompt)
{
    mmq_prompt p;
    int32_t status;
    size_t i;

    memset(out, 0, sizeof *out);
    *held = NULL;
    if (!prompt)
        return mmqi_fail(MMQ_ERR_INVALID, "mmq_prompt: it is NULL");
    status = MMQI_TAKE(&p, prompt, "mmq_prompt");
    if (status != MMQ_OK)
        return status;
    if (p.reserved != 0)
        return mmqi_fail(MMQ_ERR_INVALID, "mmq_prompt: reserved is not 0");
    if (p.n_messages > 0) {
        if (!p.messages || p.text || p.n_images > 0)
            return mmqi_fail(MMQ_ERR_INVALID,
                             "mmq_prompt: messages go alone, without text or images");
        out->parse_special = p.parse_special != 0;
        return take_messages(out, held, &p);
    }
    if (!p.text || (!p.images && p.n_images > 0))
        return mmqi_fail(MMQ_ERR_INVALID,
                         "mmq_prompt: neither messages nor text, or images is NULL");
    for (i = 0; i < p.n_images; i++)
        if (!p.images[i])
            return mmqi_fail(MMQ_ERR_INVALID, "mmq_prompt: picture %zu is NULL", i);
    out->text = p.text;
    out->images = (struct mmqi_image *const *)p.images;
    out->n_images = p.n_images;
    return MMQ_OK;
}

mmq_status mmq_render_chat(char **text, size_t *size, const mmq_model *model,
                           const mmq_prompt *prompt)
{
    const struct mmqi_mem_hooks *hooks = mmqi_model_enter(model);
    struct mmqi_prompt taken;
    void *held = NULL;
    int32_t status = clear_text(text, size);

    if (status == MMQ_OK && !model)
        status = mmqi_fail(MMQ_ERR_INVALID, "mmq_render_chat: model is NULL");
    if (status == MMQ_OK)
        status = mmqi_take_prompt(&taken, &held, prompt);
    if (status == MMQ_OK)
        status = mmqi_prompt_text(text, size, model->core, &taken);
    mmqi_free(held);
    mmqi_mem_enter(hooks);
    return mmqi_model_failed(model, status);
}
