#include "text/added_read.h"

#include <string.h>

#include "core/mem.h"
#include "core/status.h"
#include "io/json.h"
#include "text/added.h"

static const struct {
    const char *key;
    uint8_t flag;
} flags[] = {{"special", MMQI_ADDED_SPECIAL},
             {"normalized", MMQI_ADDED_NORMALIZED},
             {"lstrip", MMQI_ADDED_LSTRIP},
             {"rstrip", MMQI_ADDED_RSTRIP},
             {"single_word", MMQI_ADDED_SINGLE_WORD}};

static int32_t read_content(struct mmqi_added_token *token, struct mmqi_json *json)
{
    enum mmqi_json_event event;
    int32_t status = mmqi_json_next(json, &event);

    if (status != MMQ_OK)
        return status;
    if (event != MMQI_JSON_STRING)
        return mmqi_json_fail(json, MMQ_ERR_FORMAT,
                              "the content of an added token is not a string");
    token->size = mmqi_json_size(json);
    token->content = mmqi_strndup(mmqi_json_text(json), token->size);
    return token->content ? MMQ_OK : mmqi_json_fail(json, MMQ_ERR_NOMEM, "no memory");
}

static int32_t read_id(struct mmqi_added_token *token, struct mmqi_json *json)
{
    enum mmqi_json_event event;
    int32_t status = mmqi_json_next(json, &event);

    if (status == MMQ_OK && event != MMQI_JSON_NUMBER)
        return mmqi_json_fail(json, MMQ_ERR_FORMAT, "an id is not a number");
    return status == MMQ_OK ? mmqi_json_integer(json, &token->id) : status;
}

static int32_t read_flag(struct mmqi_added_token *token, struct mmqi_json *json, uint8_t flag)
{
    enum mmqi_json_event event;
    int32_t status = mmqi_json_next(json, &event);

    if (status != MMQ_OK)
        return status;
    if (event != MMQI_JSON_TRUE && event != MMQI_JSON_FALSE && event != MMQI_JSON_NULL)
        return mmqi_json_fail(json, MMQ_ERR_FORMAT, "not a bool");
    token->flags |= event == MMQI_JSON_TRUE ? flag : 0;
    token->has_normalized |= flag == MMQI_ADDED_NORMALIZED && event != MMQI_JSON_NULL;
    return MMQ_OK;
}

static int32_t read_member(struct mmqi_added_token *token, struct mmqi_json *json)
{
    const char *key = mmqi_json_text(json);
    size_t i;

    if (strcmp(key, "id") == 0)
        return read_id(token, json);
    if (strcmp(key, "content") == 0)
        return read_content(token, json);
    for (i = 0; i < sizeof flags / sizeof *flags; i++)
        if (strcmp(key, flags[i].key) == 0)
            return read_flag(token, json, flags[i].flag);
    return mmqi_json_skip(json);
}

int32_t mmqi_added_token_read(struct mmqi_added_token *token, struct mmqi_json *json)
{
    enum mmqi_json_event event;
    int32_t status;

    *token = (struct mmqi_added_token){.id = -1};
    do {
        status = mmqi_json_next(json, &event);
        if (status == MMQ_OK && event == MMQI_JSON_KEY)
            status = read_member(token, json);
    } while (status == MMQ_OK && event == MMQI_JSON_KEY);
    if (status == MMQ_OK && !token->content)
        status = mmqi_json_fail(json, MMQ_ERR_FORMAT, "an added token without content");
    return status;
}
