/*
 * Chat templates: a bounded subset of Jinja, compiled once, run with limits.
 *
 * trim_blocks and lstrip_blocks are on, as transformers sets them. A
 * construct outside the subset is MMQ_ERR_UNSUPPORTED with line and column.
 * Rendering is bounded in steps and in bytes, so no template can hang.
 */
#ifndef MMQI_TEXT_CHAT_H
#define MMQI_TEXT_CHAT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum mmqi_chat_part_kind { MMQI_PART_TEXT = 0, MMQI_PART_IMAGE = 1, MMQI_PART_VIDEO = 2 };

struct mmqi_chat_part {
    int32_t is_image; /* enum mmqi_chat_part_kind: not 0 for pictures, videos among them */
    const char *text;
};

struct mmqi_chat_message {
    const char *role;
    const struct mmqi_chat_part *parts;
    size_t n_parts;
};

struct mmqi_chat_input {
    const struct mmqi_chat_message *messages;
    size_t n_messages;
    bool add_generation_prompt;
    const char *bos_token, *eos_token; /* variables of the template; NULL: undefined */
};

struct mmqi_chat;

/* `source` is the template's text; `name` opens every message. At most 256 KiB. */
int32_t mmqi_chat_compile(struct mmqi_chat **out, const char *name, const char *source,
                          size_t size);
void mmqi_chat_free(struct mmqi_chat *chat); /* accepts NULL */
/* *out is freed with mmqi_free(). Immutable after compiling: any thread. */
int32_t mmqi_chat_render(const struct mmqi_chat *chat, char **out, size_t *size,
                         const struct mmqi_chat_input *input);

#endif
