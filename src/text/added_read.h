/*
 * An added token as JSON has it, in tokenizer.json and in
 * tokenizer_config.json: {"content": .., "special": .., "lstrip": ..}.
 */
#ifndef MMQI_TEXT_ADDED_READ_H
#define MMQI_TEXT_ADDED_READ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct mmqi_json;

struct mmqi_added_token {
    char *content; /* freed with mmqi_free(), after a failure too */
    size_t size;
    int64_t id; /* -1: it has none */
    uint8_t flags;
    bool has_normalized;
};

/* An object whose '{' was read; members of other names are passed over. */
int32_t mmqi_added_token_read(struct mmqi_added_token *token, struct mmqi_json *json);

#endif
