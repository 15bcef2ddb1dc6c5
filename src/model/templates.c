/*
 * Chat templates for folders that have none of their own, as each family's
 * sheet tells its prompt. They are run by the same engine as a folder's.
 */
#include "model/templates.h"

#include <stdio.h>
#include <string.h>

#include "core/mem.h"
#include "core/status.h"
#include "model/config.h"
#include "model/family.h"

#define FOR_MESSAGES "{%- for m in messages -%}"
#define END_FOR "{%- endfor -%}"
#define IMAGES "{%- for c in m['content'] if c['type'] == 'image' -%}{{- '<image>\\n' -}}" END_FOR
#define TEXTS "{%- for c in m['content'] if c['type'] == 'text' -%}{{- c['text'] -}}" END_FOR
#define GENERATE(text) "{%- if add_generation_prompt -%}{{- '" text "' -}}{%- endif -%}"

/* Vicuna v1 as the Hugging Face folders have it: no words before the first turn, and a space behind
 * each text. */
static const char vicuna[] = FOR_MESSAGES
    "{%- if m['role'] != 'system' -%}{{- m['role'] | upper + ': ' -}}{%- endif -%}" IMAGES
    "{%- for c in m['content'] if c['type'] == 'text' -%}{{- c['text'] + ' ' -}}" END_FOR END_FOR
        GENERATE("ASSISTANT:");

/* Vicuna v1 as its authors have it. */
static const char vicuna_v1[] = FOR_MESSAGES
    "{%- if loop.first and m['role'] != 'system' -%}"
    "{{- \"A chat between a curious user and an artificial intelligence assistant. The assistant "
    "gives helpful, detailed, and polite answers to the user's questions. \" -}}{%- endif -%}"
    "{%- if m['role'] != 'system' -%}{{- m['role'] | upper + ': ' -}}{%- endif -%}" IMAGES TEXTS
    "{%- if m['role'] == 'assistant' -%}{{- '</s>' -}}{%- else -%}{{- ' ' -}}{%- endif -%}" END_FOR
        GENERATE("ASSISTANT:");

static const char mistral[] = FOR_MESSAGES
    "{%- if m['role'] == 'system' -%}{{- '<<SYS>>\\n' -}}" TEXTS "{{- '\\n<</SYS>>\\n\\n' -}}"
    "{%- elif m['role'] == 'user' -%}{{- '[INST] ' -}}" IMAGES TEXTS "{{- ' [/INST]' -}}"
    "{%- else -%}{{- ' ' -}}" TEXTS "{{- '</s>' -}}{%- endif -%}" END_FOR;

#define QWEN_TURNS                                                                                 \
    "{{- '<|im_start|>' + m['role'] + '\\n' -}}{%- for c in m['content'] -%}"                      \
    "{%- if c['type'] == 'image' -%}{{- '<|vision_start|><|image_pad|><|vision_end|>' -}}"         \
    "{%- elif c['type'] == 'video' -%}{{- '<|vision_start|><|video_pad|><|vision_end|>' -}}"       \
    "{%- else -%}{{- c['text'] -}}{%- endif -%}" END_FOR                                           \
    "{{- '<|im_end|>\\n' -}}" END_FOR GENERATE("<|im_start|>assistant\\n")

static const char qwen2[] = FOR_MESSAGES "{%- if loop.first and m['role'] != 'system' -%}"
                                         "{{- '<|im_start|>system\\nYou are a helpful "
                                         "assistant.<|im_end|>\\n' -}}{%- endif -%}" QWEN_TURNS;

static const char qwen3[] = FOR_MESSAGES QWEN_TURNS;

static const char idefics3[] =
    "<|im_start|>" FOR_MESSAGES "{{- m['role'] | capitalize -}}"
    "{%- if m['content'] and m['content'][0]['type'] == 'image' -%}{{- ':' -}}"
    "{%- else -%}{{- ': ' -}}{%- endif -%}{%- for c in m['content'] -%}"
    "{%- if c['type'] == 'image' -%}{{- '<image>' -}}"
    "{%- elif c['type'] == 'text' -%}{{- c['text'] -}}{%- endif -%}" END_FOR
    "{{- '<end_of_utterance>\\n' -}}" END_FOR GENERATE("Assistant:");

/* ---- which ---- */

/* A vocabulary with ChatML's tokens was trained on a prompt that is none of these two. */
const char *mmqi_template_llava(const struct mmqi_model *model)
{
    if (mmqi_tokenizer_id(model->tokenizer, "<|im_start|>") >= 0)
        return NULL;
    return mmqi_config_is(model->config, "text_config", "model_type", "mistral", false) ? mistral
                                                                                        : vicuna;
}

const char *mmqi_template_vicuna_v1(const struct mmqi_model *model)
{
    (void)model;
    return vicuna_v1;
}

const char *mmqi_template_qwen2_vl(const struct mmqi_model *model)
{
    (void)model;
    return qwen2;
}

const char *mmqi_template_qwen3_vl(const struct mmqi_model *model)
{
    (void)model;
    return qwen3;
}

const char *mmqi_template_idefics3(const struct mmqi_model *model)
{
    (void)model;
    return idefics3;
}

int32_t mmqi_template_build_in(struct mmqi_model *model)
{
    const char *source;
    char name[64];

    if (model->chat || model->chat_error || !model->family->chat_template)
        return MMQ_OK;
    source = model->family->chat_template(model);
    if (!source)
        return MMQ_OK;
    snprintf(name, sizeof name, "the built-in template of %s", model->family->name);
    return mmqi_chat_compile(&model->chat, name, source, strlen(source));
}
