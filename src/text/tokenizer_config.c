/*
 * The tokens that the files beside a tokenizer list and name.
 */
#include <string.h>

#include "core/mem.h"
#include "core/status.h"
#include "core/text.h"
#include "io/json.h"
#include "text/added_read.h"
#include "text/tokenizer_folder.h"
#include "text/tokenizer_parts.h"

/* A file while it is read. */
struct source {
    struct mmqi_tokenizer *tokenizer;
    struct mmqi_json *json;
    const char *name;
    char key[64]; /* that lists or names the token in hand */
    bool legacy;  /* added_tokens.json was read */
    bool extra;   /* the token in hand is one of a list */
};

/* A token under `id`; -1: under the one it has in the model, else the next one that is free. */
static int32_t put_token(const struct source *source, const struct mmqi_added_token *token,
                         int64_t id)
{
    struct mmqi_added *added = &source->tokenizer->added;
    const struct mmqi_vocab *vocab = mmqi_tokenizer_vocab(source->tokenizer);
    uint8_t flags = token->flags;
    int32_t known;

    if (source->tokenizer->pieces_are_normal)
        flags &= (uint8_t)~MMQI_ADDED_NORMALIZED;

    if (token->size == 0)
        return MMQ_OK;
    known = mmqi_vocab_find(&added->vocab, token->content, token->size);
    if (known >= 0 && (id < 0 || id == known)) {
        added->flags[known] = flags;
        return MMQ_OK;
    }
    if (known < 0)
        known = mmqi_vocab_find(vocab, token->content, token->size);
    if (known >= 0 && id >= 0 && id != known)
        return mmqi_fail(MMQ_ERR_FORMAT, "%s: %s: '%s' has id %lld, in the tokenizer %d",
                         source->name, source->key, token->content, (long long)id, (int)known);
    if (id < 0 && known >= 0)
        id = known;
    else if (id < 0)
        id = (int64_t)(vocab->n_ids > added->vocab.n_ids ? vocab->n_ids : added->vocab.n_ids);
    if (known < 0 && id <= MMQI_MAX_ID && mmqi_vocab_text(vocab, (int32_t)id, NULL))
        return mmqi_fail(MMQ_ERR_FORMAT, "%s: %s: '%s' has the id %lld of '%s'", source->name,
                         source->key, token->content, (long long)id,
                         mmqi_vocab_text(vocab, (int32_t)id, NULL));
    return mmqi_added_add(added, source->name, token->content, token->size, id, flags);
}

/* ---- "added_tokens_decoder" ---- */

/* A key that is an id; -1 for any other. */
static int64_t id_of(const char *key)
{
    int64_t id = 0;
    size_t i;

    for (i = 0; key[i] >= '0' && key[i] <= '9' && i < 9; i++)
        id = id * 10 + (key[i] - '0');
    return i > 0 && key[i] == '\0' ? id : -1;
}

static int32_t list_token(struct source *source)
{
    struct mmqi_added_token token = {0};
    enum mmqi_json_event event;
    int64_t id = id_of(mmqi_json_text(source->json));
    int32_t status;

    if (id < 0)
        return mmqi_json_fail(source->json, MMQ_ERR_FORMAT, "%s: '%.20s' is no id", source->key,
                              mmqi_json_text(source->json));
    status = mmqi_json_next(source->json, &event);
    if (status == MMQ_OK && event != MMQI_JSON_OBJECT)
        status = mmqi_json_fail(source->json, MMQ_ERR_FORMAT, "%s: an added token is no object",
                                source->key);
    if (status == MMQ_OK)
        status = mmqi_added_token_read(&token, source->json);
    if (status == MMQ_OK && !token.has_normalized && !(token.flags & MMQI_ADDED_SPECIAL))
        token.flags |= MMQI_ADDED_NORMALIZED;
    if (status == MMQ_OK)
        status = put_token(source, &token, id);
    mmqi_free(token.content);
    return status;
}

static int32_t read_decoder(struct source *source)
{
    enum mmqi_json_event event;
    int32_t status = mmqi_json_next(source->json, &event);

    mmqi_copy_text(source->key, sizeof source->key, "added_tokens_decoder");
    if (status == MMQ_OK && event != MMQI_JSON_OBJECT && event != MMQI_JSON_NULL)
        return mmqi_json_fail(source->json, MMQ_ERR_FORMAT, "%s is not an object", source->key);
    while (status == MMQ_OK && event != MMQI_JSON_NULL) {
        status = mmqi_json_next(source->json, &event);
        if (status != MMQ_OK || event != MMQI_JSON_KEY)
            break;
        status = list_token(source);
    }
    return status;
}

/* ---- "eos_token" and its like ---- */

/* A token that is named becomes special. One that is an added token already keeps its other flags,
 * and stays what it is where it is only listed among "extra" ones; but added_tokens.json has no
 * flags, so there the naming decides them. */
static int32_t name_token(struct source *source, const struct mmqi_added_token *token)
{
    struct mmqi_added *added = &source->tokenizer->added;
    struct mmqi_added_token special = *token;
    int32_t known = mmqi_vocab_find(&added->vocab, token->content, token->size);

    special.flags |= MMQI_ADDED_SPECIAL;
    if (known < 0 || (source->legacy && !(added->flags[known] & MMQI_ADDED_SPECIAL)))
        return put_token(source, &special, -1);
    if (!source->extra)
        added->flags[known] |= MMQI_ADDED_SPECIAL;
    return MMQ_OK;
}

/* The value whose first event is `event`: a string or an added token; others are passed over. */
static int32_t read_named(struct source *source, enum mmqi_json_event event)
{
    struct mmqi_added_token token = {.id = -1};
    int32_t status = MMQ_OK;

    if (event == MMQI_JSON_STRING) {
        token.size = mmqi_json_size(source->json);
        token.content = mmqi_strndup(mmqi_json_text(source->json), token.size);
        if (!token.content)
            status = mmqi_fail(MMQ_ERR_NOMEM, "%s: no memory for a token", source->name);
    } else if (event == MMQI_JSON_OBJECT) {
        status = mmqi_added_token_read(&token, source->json);
    } else {
        return event == MMQI_JSON_ARRAY ? mmqi_json_skip(source->json) : MMQ_OK;
    }
    if (status == MMQ_OK)
        status = name_token(source, &token);
    mmqi_free(token.content);
    return status;
}

/* A list of such values, or an object of them. */
static int32_t read_more_named(struct source *source)
{
    enum mmqi_json_event event;
    int32_t status = mmqi_json_next(source->json, &event);

    if (status != MMQ_OK || event == MMQI_JSON_NULL)
        return status;
    if (event != MMQI_JSON_ARRAY && event != MMQI_JSON_OBJECT)
        return mmqi_json_fail(source->json, MMQ_ERR_FORMAT, "%s is not a list", source->key);
    source->extra = event == MMQI_JSON_ARRAY;
    while (status == MMQ_OK) {
        status = mmqi_json_next(source->json, &event);
        if (status != MMQ_OK || event == MMQI_JSON_ARRAY_END || event == MMQI_JSON_OBJECT_END)
            break;
        if (event != MMQI_JSON_KEY)
            status = read_named(source, event);
    }
    source->extra = false;
    return status;
}

/* One member of the file, its key read. */
static int32_t read_special_member(struct source *source)
{
    static const char *const lists[] = {"additional_special_tokens", "extra_special_tokens"};
    enum mmqi_json_event event;
    int32_t status;
    size_t i;

    mmqi_copy_text(source->key, sizeof source->key, mmqi_json_text(source->json));
    for (i = 0; i < 2; i++)
        if (mmqi_json_is(source->json, lists[i]))
            return read_more_named(source);
    if (!mmqi_ends_with(mmqi_json_text(source->json), "_token"))
        return mmqi_json_skip(source->json);
    status = mmqi_json_next(source->json, &event);
    return status == MMQ_OK ? read_named(source, event) : status;
}

static int32_t read_listed_member(struct source *source)
{
    return mmqi_json_is(source->json, "added_tokens_decoder") ? read_decoder(source)
                                                              : mmqi_json_skip(source->json);
}

/* added_tokens.json: "token": id. Which are special is told elsewhere. */
static int32_t read_legacy_member(struct source *source)
{
    struct mmqi_added_token token = {.flags = MMQI_ADDED_NORMALIZED};
    enum mmqi_json_event event;
    int32_t status;

    mmqi_copy_text(source->key, sizeof source->key, "added tokens");
    token.size = mmqi_json_size(source->json);
    token.content = mmqi_strndup(mmqi_json_text(source->json), token.size);
    if (!token.content)
        return mmqi_fail(MMQ_ERR_NOMEM, "%s: no memory for a token", source->name);
    status = mmqi_json_next(source->json, &event);
    if (status == MMQ_OK && event != MMQI_JSON_NUMBER)
        status = mmqi_json_fail(source->json, MMQ_ERR_FORMAT, "an id is not a number");
    if (status == MMQ_OK)
        status = mmqi_json_integer(source->json, &token.id);
    if (status == MMQ_OK && token.id < 0)
        status = mmqi_json_fail(source->json, MMQ_ERR_FORMAT, "an id is negative");
    if (status == MMQ_OK)
        status = put_token(source, &token, token.id);
    mmqi_free(token.content);
    return status;
}

/* ---- files ---- */

/* Read every member of the object that `text` is. */
static int32_t read_text(struct source *source, const char *text, size_t size,
                         int32_t (*member)(struct source *source))
{
    enum mmqi_json_event event;
    int32_t status = mmqi_json_open(&source->json, source->name, text, size);

    if (status == MMQ_OK)
        status = mmqi_json_next(source->json, &event);
    if (status == MMQ_OK && event != MMQI_JSON_OBJECT)
        status = mmqi_json_fail(source->json, MMQ_ERR_FORMAT, "it is not an object");
    while (status == MMQ_OK) {
        status = mmqi_json_next(source->json, &event);
        if (status != MMQ_OK || event != MMQI_JSON_KEY)
            break;
        status = member(source);
    }
    mmqi_json_close(source->json);
    source->json = NULL;
    return status;
}

/* The same of a file, if it is there; *exists tells. */
static int32_t read_file(struct source *source, const struct mmqi_tokenizer_folder *folder,
                         const char *name, int32_t (*member)(struct source *source), bool *exists)
{
    char label[MMQI_MAX_LABEL], *text = NULL;
    size_t size = 0;
    int32_t status = mmqi_file_exists(exists, folder->store, name);

    if (status != MMQ_OK || !*exists)
        return status;
    source->name = mmqi_tokenizer_label(label, folder, name);
    status = mmqi_file_read_all(&text, &size, folder->store, name, MMQI_MAX_TOKENIZER_CONFIG);
    if (status == MMQ_OK)
        status = read_text(source, text, size, member);
    mmqi_free(text);
    return status;
}

int32_t mmqi_tokenizer_add_configured(struct mmqi_tokenizer *tokenizer,
                                      const struct mmqi_tokenizer_folder *folder)
{
    struct source source = {.tokenizer = tokenizer};
    bool listed = mmqi_settings_has(folder->settings, "added_tokens_decoder"), exists;
    char label[MMQI_MAX_LABEL];
    int32_t status = MMQ_OK;

    mmqi_tokenizer_label(label, folder, "tokenizer_config.json");
    source.name = label;
    if (listed)
        status = read_text(&source, folder->config, folder->config_size, read_listed_member);
    else
        status =
            read_file(&source, folder, "added_tokens.json", read_legacy_member, &source.legacy);
    if (status == MMQ_OK && !listed)
        status =
            read_file(&source, folder, "special_tokens_map.json", read_special_member, &exists);
    source.name = label;
    if (status == MMQ_OK && folder->config)
        status = read_text(&source, folder->config, folder->config_size, read_special_member);
    return status;
}
