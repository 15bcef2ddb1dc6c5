/*
 * The chat templates that this build has, for families' `chat_template`.
 * Each answers with the text of a template that lives on, or NULL.
 */
#ifndef MMQI_MODEL_TEMPLATES_H
#define MMQI_MODEL_TEMPLATES_H

#include "model/model.h"

const char *mmqi_template_llava(const struct mmqi_model *model); /* by its text model */
const char *mmqi_template_vicuna_v1(const struct mmqi_model *model);
const char *mmqi_template_qwen2_vl(const struct mmqi_model *model); /* also Qwen2.5-VL's */
const char *mmqi_template_qwen3_vl(const struct mmqi_model *model);
const char *mmqi_template_idefics3(const struct mmqi_model *model); /* also SmolVLM's */

/* Give a configured model the template of its family if its folder has none at all. */
int32_t mmqi_template_build_in(struct mmqi_model *model);

#endif
