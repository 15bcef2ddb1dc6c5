/*
 * Reading tokenizer.json: one pass over the file, in which sections of
 * stages and the merges, which need the vocabulary, are only noted and read
 * afterwards.
 */
#include <string.h>

#include "core/mem.h"
#include "core/status.h"
#include "io/json.h"
#include "text/tokenizer.h"
#include "text/tokenizer_parts.h"

struct slice {
    const char *json; /* NULL: absent or null */
    size_t size;
};

struct reading {
    struct mmqi_tokenizer *tokenizer;
    const char *name, *text;
    struct mmqi_json *json;
    struct slice normalizer, pre_tokenizer, post_processor, decoder, merges;
    bool has_model, has_vocab;
    char *unk;
    size_t unk_size;
};

/* ---- values ---- */

static int32_t need(struct reading *reading, enum mmqi_json_event wanted, const char *what)
{
    enum mmqi_json_event event;
    int32_t status = mmqi_json_next(reading->json, &event);

    if (status == MMQ_OK && event != wanted)
        status = mmqi_json_fail(reading->json, MMQ_ERR_FORMAT, "%s", what);
    return status;
}

/* The next value is noted as text and passed over. */
static int32_t note(struct reading *reading, struct slice *slice)
{
    enum mmqi_json_event event;
    int32_t status = mmqi_json_next(reading->json, &event);
    size_t begin;

    if (status != MMQ_OK || event == MMQI_JSON_NULL)
        return status;
    if (event != MMQI_JSON_OBJECT && event != MMQI_JSON_ARRAY)
        return mmqi_json_fail(reading->json, MMQ_ERR_FORMAT,
                              "neither an object, an array nor null");
    begin = mmqi_json_offset(reading->json);
    status = mmqi_json_skip(reading->json);
    slice->json = reading->text + begin;
    slice->size = mmqi_json_offset(reading->json) + 1 - begin;
    return status;
}

static int32_t read_bool(struct reading *reading, bool *out)
{
    enum mmqi_json_event event;
    int32_t status = mmqi_json_next(reading->json, &event);

    if (status != MMQ_OK)
        return status;
    if (event != MMQI_JSON_TRUE && event != MMQI_JSON_FALSE && event != MMQI_JSON_NULL)
        return mmqi_json_fail(reading->json, MMQ_ERR_FORMAT, "not a bool");
    *out = event == MMQI_JSON_TRUE;
    return MMQ_OK;
}

static int32_t read_id(struct reading *reading, int64_t *id)
{
    int32_t status = need(reading, MMQI_JSON_NUMBER, "an id is not a number");

    return status == MMQ_OK ? mmqi_json_integer(reading->json, id) : status;
}

/* ---- added tokens ---- */

struct added_token {
    char *content;
    size_t size;
    int64_t id;
    uint8_t flags;
};

static int32_t read_added_field(struct reading *reading, struct added_token *token)
{
    static const struct {
        const char *key;
        uint8_t flag;
    } flags[] = {{"special", MMQI_ADDED_SPECIAL},
                 {"normalized", MMQI_ADDED_NORMALIZED},
                 {"lstrip", MMQI_ADDED_LSTRIP},
                 {"rstrip", MMQI_ADDED_RSTRIP},
                 {"single_word", MMQI_ADDED_SINGLE_WORD}};
    const char *key = mmqi_json_text(reading->json);
    bool on = false;
    int32_t status;
    size_t i;

    if (strcmp(key, "id") == 0)
        return read_id(reading, &token->id);
    if (strcmp(key, "content") == 0) {
        status = need(reading, MMQI_JSON_STRING, "the content of an added token is not a string");
        if (status != MMQ_OK)
            return status;
        token->size = mmqi_json_size(reading->json);
        token->content = mmqi_strndup(mmqi_json_text(reading->json), token->size);
        return token->content ? MMQ_OK : mmqi_fail(MMQ_ERR_NOMEM, "%s: no memory", reading->name);
    }
    for (i = 0; i < sizeof flags / sizeof *flags; i++) {
        if (strcmp(key, flags[i].key) != 0)
            continue;
        status = read_bool(reading, &on);
        token->flags |= on ? flags[i].flag : 0;
        return status;
    }
    return mmqi_json_skip(reading->json);
}

/* An object of the list, its '{' read. A token without text is passed over: it matches nothing. */
static int32_t read_added_token(struct reading *reading)
{
    struct added_token token = {.id = -1};
    enum mmqi_json_event event;
    int32_t status;

    do {
        status = mmqi_json_next(reading->json, &event);
        if (status == MMQ_OK && event == MMQI_JSON_KEY)
            status = read_added_field(reading, &token);
    } while (status == MMQ_OK && event == MMQI_JSON_KEY);
    if (status == MMQ_OK && !token.content)
        status = mmqi_json_fail(reading->json, MMQ_ERR_FORMAT, "an added token without content");
    if (status == MMQ_OK && token.size > 0)
        status = mmqi_added_add(&reading->tokenizer->added, reading->name, token.content,
                                token.size, token.id, token.flags);
    mmqi_free(token.content);
    return status;
}

static int32_t read_added(struct reading *reading)
{
    enum mmqi_json_event event;
    int32_t status = mmqi_json_next(reading->json, &event);

    if (status != MMQ_OK || event == MMQI_JSON_NULL)
        return status;
    if (event != MMQI_JSON_ARRAY)
        return mmqi_json_fail(reading->json, MMQ_ERR_FORMAT, "added_tokens is not an array");
    for (;;) {
        status = mmqi_json_next(reading->json, &event);
        if (status != MMQ_OK || event == MMQI_JSON_ARRAY_END)
            return status;
        if (event != MMQI_JSON_OBJECT)
            return mmqi_json_fail(reading->json, MMQ_ERR_FORMAT, "an added token is no object");
        status = read_added_token(reading);
        if (status != MMQ_OK)
            return status;
    }
}

/* ---- the model ---- */

static int32_t read_vocab(struct reading *reading)
{
    struct mmqi_vocab *vocab = &reading->tokenizer->bpe.vocab;
    struct mmqi_buf token = {0};
    enum mmqi_json_event event;
    int64_t id = 0;
    int32_t status = need(reading, MMQI_JSON_OBJECT, "the vocabulary of a BPE is not an object");

    reading->has_vocab = true;
    while (status == MMQ_OK) {
        status = mmqi_json_next(reading->json, &event);
        if (status != MMQ_OK || event != MMQI_JSON_KEY)
            break;
        mmqi_buf_clear(&token);
        mmqi_buf_append(&token, mmqi_json_text(reading->json), mmqi_json_size(reading->json));
        if (mmqi_buf_failed(&token))
            status = mmqi_fail(MMQ_ERR_NOMEM, "%s: no memory for a token", reading->name);
        if (status == MMQ_OK)
            status = read_id(reading, &id);
        if (status == MMQ_OK)
            status =
                mmqi_vocab_add(vocab, reading->name, "model.vocab", token.data, token.size, id);
    }
    mmqi_buf_free(&token);
    return status;
}

/* A setting that has to be null, zero or empty. */
static int32_t read_absent(struct reading *reading, const char *what)
{
    enum mmqi_json_event event;
    int32_t status = mmqi_json_next(reading->json, &event);

    if (status != MMQ_OK || event == MMQI_JSON_NULL ||
        (event == MMQI_JSON_STRING && mmqi_json_size(reading->json) == 0) ||
        (event == MMQI_JSON_NUMBER && mmqi_json_number(reading->json) == 0))
        return status;
    return mmqi_json_fail(reading->json, MMQ_ERR_UNSUPPORTED, "model.%s is not supported", what);
}

static int32_t read_model_type(struct reading *reading)
{
    int32_t status = need(reading, MMQI_JSON_STRING, "the type of the model is not a string");

    if (status == MMQ_OK && strcmp(mmqi_json_text(reading->json), "BPE") != 0)
        status = mmqi_json_fail(reading->json, MMQ_ERR_UNSUPPORTED,
                                "model: type '%s' is not supported", mmqi_json_text(reading->json));
    return status;
}

static int32_t read_unk(struct reading *reading)
{
    enum mmqi_json_event event;
    int32_t status = mmqi_json_next(reading->json, &event);

    if (status != MMQ_OK || event == MMQI_JSON_NULL)
        return status;
    if (event != MMQI_JSON_STRING)
        return mmqi_json_fail(reading->json, MMQ_ERR_FORMAT, "unk_token is not a string");
    reading->unk_size = mmqi_json_size(reading->json);
    reading->unk = mmqi_strndup(mmqi_json_text(reading->json), reading->unk_size);
    return reading->unk ? MMQ_OK : mmqi_fail(MMQ_ERR_NOMEM, "%s: no memory", reading->name);
}

static int32_t read_model_field(struct reading *reading)
{
    struct mmqi_bpe *bpe = &reading->tokenizer->bpe;
    const char *key = mmqi_json_text(reading->json);

    if (strcmp(key, "type") == 0)
        return read_model_type(reading);
    if (strcmp(key, "vocab") == 0)
        return read_vocab(reading);
    if (strcmp(key, "merges") == 0)
        return note(reading, &reading->merges);
    if (strcmp(key, "unk_token") == 0)
        return read_unk(reading);
    if (strcmp(key, "byte_fallback") == 0)
        return read_bool(reading, &bpe->byte_fallback);
    if (strcmp(key, "fuse_unk") == 0)
        return read_bool(reading, &bpe->fuse_unk);
    if (strcmp(key, "ignore_merges") == 0)
        return read_bool(reading, &bpe->ignore_merges);
    if (strcmp(key, "dropout") == 0)
        return read_absent(reading, "dropout");
    if (strcmp(key, "continuing_subword_prefix") == 0)
        return read_absent(reading, "continuing_subword_prefix");
    if (strcmp(key, "end_of_word_suffix") == 0)
        return read_absent(reading, "end_of_word_suffix");
    return mmqi_json_skip(reading->json);
}

static int32_t read_model(struct reading *reading)
{
    enum mmqi_json_event event;
    int32_t status = need(reading, MMQI_JSON_OBJECT, "the model is not an object");

    reading->has_model = true;
    while (status == MMQ_OK) {
        status = mmqi_json_next(reading->json, &event);
        if (status != MMQ_OK || event != MMQI_JSON_KEY)
            break;
        status = read_model_field(reading);
    }
    return status;
}

/* ---- merges, when the vocabulary is known ---- */

/* "a b", as older files have it. */
static int32_t read_spaced_merge(struct reading *reading, struct mmqi_json *json)
{
    const char *text = mmqi_json_text(json), *space;
    size_t size = mmqi_json_size(json), left;

    if (size >= 8 && memcmp(text, "#version", 8) == 0)
        return MMQ_OK;
    space = memchr(text, ' ', size);
    left = space ? (size_t)(space - text) : 0;
    if (!space || memchr(space + 1, ' ', size - left - 1))
        return mmqi_fail(MMQ_ERR_FORMAT, "%s: merge %zu: '%s' is not two tokens", reading->name,
                         reading->tokenizer->bpe.n_ranks, text);
    return mmqi_bpe_add_merge(&reading->tokenizer->bpe, reading->name, text, left, space + 1,
                              size - left - 1);
}

/* ["a", "b"], its '[' read. */
static int32_t read_pair_merge(struct reading *reading, struct mmqi_json *json,
                               struct mmqi_buf *left)
{
    enum mmqi_json_event event;
    int32_t status = mmqi_json_next(json, &event);

    if (status == MMQ_OK && event != MMQI_JSON_STRING)
        goto no_pair;
    mmqi_buf_clear(left);
    mmqi_buf_append(left, mmqi_json_text(json), mmqi_json_size(json));
    if (mmqi_buf_failed(left))
        return mmqi_fail(MMQ_ERR_NOMEM, "%s: no memory for a merge", reading->name);
    if (status == MMQ_OK)
        status = mmqi_json_next(json, &event);
    if (status == MMQ_OK && event != MMQI_JSON_STRING)
        goto no_pair;
    if (status == MMQ_OK)
        status = mmqi_bpe_add_merge(&reading->tokenizer->bpe, reading->name, left->data, left->size,
                                    mmqi_json_text(json), mmqi_json_size(json));
    if (status == MMQ_OK)
        status = mmqi_json_next(json, &event);
    if (status != MMQ_OK || event == MMQI_JSON_ARRAY_END)
        return status;
no_pair:
    return mmqi_fail(MMQ_ERR_FORMAT, "%s: merge %zu is not a pair of strings", reading->name,
                     reading->tokenizer->bpe.n_ranks);
}

static int32_t read_merges(struct reading *reading)
{
    struct mmqi_json *json = NULL;
    struct mmqi_buf left = {0};
    enum mmqi_json_event event;
    int32_t status =
        mmqi_json_open(&json, reading->name, reading->merges.json, reading->merges.size);

    if (status == MMQ_OK)
        status = mmqi_json_next(json, &event);
    if (status == MMQ_OK && event != MMQI_JSON_ARRAY)
        status = mmqi_fail(MMQ_ERR_FORMAT, "%s: model.merges is not an array", reading->name);
    while (status == MMQ_OK) {
        status = mmqi_json_next(json, &event);
        if (status != MMQ_OK || event == MMQI_JSON_ARRAY_END)
            break;
        if (event == MMQI_JSON_STRING)
            status = read_spaced_merge(reading, json);
        else if (event == MMQI_JSON_ARRAY)
            status = read_pair_merge(reading, json, &left);
        else
            status = mmqi_fail(MMQ_ERR_FORMAT, "%s: merge %zu is not a pair of strings",
                               reading->name, reading->tokenizer->bpe.n_ranks);
    }
    mmqi_buf_free(&left);
    mmqi_json_close(json);
    return status;
}

/* ---- the whole ---- */

static int32_t read_version(struct reading *reading)
{
    int32_t status = need(reading, MMQI_JSON_STRING, "the version is not a string");

    if (status == MMQ_OK && strcmp(mmqi_json_text(reading->json), "1.0") != 0)
        status = mmqi_json_fail(reading->json, MMQ_ERR_UNSUPPORTED, "version '%s' is not 1.0",
                                mmqi_json_text(reading->json));
    return status;
}

/* "truncation" and "padding" are passed over: they are about batches, not about text. */
static int32_t read_top_field(struct reading *reading)
{
    const char *key = mmqi_json_text(reading->json);

    if (strcmp(key, "version") == 0)
        return read_version(reading);
    if (strcmp(key, "added_tokens") == 0)
        return read_added(reading);
    if (strcmp(key, "normalizer") == 0)
        return note(reading, &reading->normalizer);
    if (strcmp(key, "pre_tokenizer") == 0)
        return note(reading, &reading->pre_tokenizer);
    if (strcmp(key, "post_processor") == 0)
        return note(reading, &reading->post_processor);
    if (strcmp(key, "decoder") == 0)
        return note(reading, &reading->decoder);
    if (strcmp(key, "model") == 0)
        return read_model(reading);
    return mmqi_json_skip(reading->json);
}

static int32_t read_file(struct reading *reading)
{
    enum mmqi_json_event event;
    int32_t status = need(reading, MMQI_JSON_OBJECT, "a tokenizer is a JSON object");

    while (status == MMQ_OK) {
        status = mmqi_json_next(reading->json, &event);
        if (status != MMQ_OK || event != MMQI_JSON_KEY)
            break;
        status = read_top_field(reading);
    }
    if (status == MMQ_OK)
        status = mmqi_json_next(reading->json, &event); /* nothing may follow */
    if (status == MMQ_OK && !reading->has_model)
        status = mmqi_fail(MMQ_ERR_FORMAT, "%s: there is no 'model'", reading->name);
    if (status == MMQ_OK && !reading->has_vocab)
        status = mmqi_fail(MMQ_ERR_FORMAT, "%s: there is no 'model.vocab'", reading->name);
    return status;
}

static int32_t read_sections(struct reading *reading)
{
    struct mmqi_tokenizer *tokenizer = reading->tokenizer;
    struct {
        const char *name;
        const struct slice *slice;
        struct mmqi_stages *stages;
        const struct mmqi_stage_kind *kinds;
    } const sections[] = {
        {"normalizer", &reading->normalizer, &tokenizer->normalizer, mmqi_normalizer_kinds},
        {"pre_tokenizer", &reading->pre_tokenizer, &tokenizer->pre_tokenizer,
         mmqi_pre_tokenizer_kinds},
        {"post_processor", &reading->post_processor, &tokenizer->post_processor,
         mmqi_post_processor_kinds},
        {"decoder", &reading->decoder, &tokenizer->decoder, mmqi_decoder_kinds}};
    int32_t status = MMQ_OK;
    size_t i;

    for (i = 0; i < sizeof sections / sizeof *sections && status == MMQ_OK; i++)
        if (sections[i].slice->json)
            status = mmqi_stages_read(sections[i].stages, sections[i].kinds, reading->name,
                                      sections[i].name, sections[i].slice->json,
                                      sections[i].slice->size);
    return status;
}

static int32_t finish_model(struct reading *reading)
{
    struct mmqi_bpe *bpe = &reading->tokenizer->bpe;
    int32_t status = reading->merges.json ? read_merges(reading) : MMQ_OK;

    if (status != MMQ_OK)
        return status;
    bpe->unk = MMQI_BPE_NO_UNK;
    if (reading->unk) {
        bpe->unk = mmqi_vocab_find(&bpe->vocab, reading->unk, reading->unk_size);
        if (bpe->unk < 0)
            bpe->unk = MMQI_BPE_LOST_UNK;
    }
    mmqi_bpe_seal(bpe);
    return MMQ_OK;
}

/* An added token that the model has too must have the same id there, and no other token its id. */
static int32_t check_added(const struct mmqi_tokenizer *tokenizer, const char *name, int32_t id,
                           const char *text, size_t size)
{
    const struct mmqi_vocab *vocab = &tokenizer->bpe.vocab;
    int32_t model_id = mmqi_vocab_find(vocab, text, size);

    if (model_id >= 0 && model_id != id)
        return mmqi_fail(MMQ_ERR_FORMAT, "%s: added token '%s' has id %d, in the vocabulary %d",
                         name, text, (int)id, (int)model_id);
    if (model_id < 0 && mmqi_vocab_text(vocab, id, NULL))
        return mmqi_fail(MMQ_ERR_FORMAT, "%s: added token '%s' has the id %d of '%s'", name, text,
                         (int)id, mmqi_vocab_text(vocab, id, NULL));
    return MMQ_OK;
}

/* Give the token to the matcher of its kind; one of the normalized text in its normalized form. */
static int32_t add_pattern(struct mmqi_tokenizer *tokenizer, const char *name, int32_t id,
                           const char *text, size_t size, struct mmqi_buf pair[2])
{
    struct mmqi_added *added = &tokenizer->added;
    struct mmqi_matcher *matcher = &added->raw;
    int32_t status = MMQ_OK;

    if (added->flags[id] & MMQI_ADDED_NORMALIZED) {
        matcher = &added->normalized;
        status = mmqi_tokenizer_normalize(tokenizer, true, pair, &text, &size);
    }
    if (status == MMQ_OK && mmqi_matcher_add(matcher, text, size, id) != MMQ_OK)
        status = mmqi_fail(MMQ_ERR_NOMEM, "%s: no memory for the added tokens", name);
    return status;
}

int32_t mmqi_tokenizer_finish(struct mmqi_tokenizer *tokenizer, const char *name)
{
    struct mmqi_added *added = &tokenizer->added;
    struct mmqi_buf pair[2] = {{0}};
    const char *text;
    size_t i, size = 0, n_model = tokenizer->bpe.vocab.n_ids;
    int32_t status = MMQ_OK;

    mmqi_matcher_free(&added->raw);
    mmqi_matcher_free(&added->normalized);
    for (i = 0; i < added->vocab.n_ids && status == MMQ_OK; i++) {
        text = mmqi_vocab_text(&added->vocab, (int32_t)i, &size);
        if (!text)
            continue;
        status = check_added(tokenizer, name, (int32_t)i, text, size);
        if (status == MMQ_OK)
            status = add_pattern(tokenizer, name, (int32_t)i, text, size, pair);
    }
    if (status == MMQ_OK && (mmqi_matcher_seal(&added->raw) != MMQ_OK ||
                             mmqi_matcher_seal(&added->normalized) != MMQ_OK))
        status = mmqi_fail(MMQ_ERR_NOMEM, "%s: no memory for the added tokens", name);
    mmqi_buf_free(&pair[0]);
    mmqi_buf_free(&pair[1]);
    tokenizer->vocab_size = (int32_t)(n_model > added->vocab.n_ids ? n_model : added->vocab.n_ids);
    return status;
}

/* The ids of the post-processor must be tokens; of two templates, the tokenizers library would
 * run the second one on pairs. */
static int32_t check_post_processor(const struct reading *reading)
{
    const struct mmqi_tokenizer *tokenizer = reading->tokenizer;
    const struct mmqi_stages *stages = &tokenizer->post_processor;
    const struct mmqi_ids *ids;
    size_t i, j, n_templates = 0;

    for (i = 0; i < stages->n; i++)
        n_templates += stages->list[i].kind->read != NULL;
    if (n_templates > 1)
        return mmqi_fail(MMQ_ERR_UNSUPPORTED, "%s: post_processor: more than one template",
                         reading->name);
    for (i = 0; i < 2 * stages->n; i++) {
        ids = i % 2 ? &stages->list[i / 2].after : &stages->list[i / 2].before;
        for (j = 0; j < ids->n; j++)
            if (!mmqi_tokenizer_content(tokenizer, ids->data[j]))
                return mmqi_fail(MMQ_ERR_FORMAT, "%s: post_processor: there is no token %d",
                                 reading->name, (int)ids->data[j]);
    }
    return MMQ_OK;
}

int32_t mmqi_tokenizer_parse(struct mmqi_tokenizer **out, const char *name, const char *text,
                             size_t size)
{
    struct reading reading = {.name = name, .text = text};
    int32_t status;

    *out = NULL;
    if (size > MMQI_MAX_TOKENIZER_BYTES)
        return mmqi_fail(MMQ_ERR_LIMIT, "%s: %zu bytes, more than %d", name, size,
                         MMQI_MAX_TOKENIZER_BYTES);
    reading.tokenizer = mmqi_calloc(1, sizeof *reading.tokenizer);
    if (!reading.tokenizer)
        return mmqi_fail(MMQ_ERR_NOMEM, "%s: no memory for a tokenizer", name);
    status = mmqi_json_open(&reading.json, name, text, size);
    if (status == MMQ_OK)
        status = read_file(&reading);
    if (status == MMQ_OK)
        status = finish_model(&reading);
    if (status == MMQ_OK)
        status = read_sections(&reading);
    if (status == MMQ_OK)
        status = mmqi_tokenizer_finish(reading.tokenizer, name);
    if (status == MMQ_OK)
        status = check_post_processor(&reading);
    mmqi_json_close(reading.json);
    mmqi_free(reading.unk);
    if (status == MMQ_OK)
        *out = reading.tokenizer;
    else
        mmqi_tokenizer_free(reading.tokenizer);
    return status;
}

void mmqi_tokenizer_free(struct mmqi_tokenizer *tokenizer)
{
    if (!tokenizer)
        return;
    mmqi_bpe_free(&tokenizer->bpe);
    mmqi_added_free(&tokenizer->added);
    mmqi_unigram_free(tokenizer->unigram);
    mmqi_stages_free(&tokenizer->normalizer);
    mmqi_stages_free(&tokenizer->pre_tokenizer);
    mmqi_stages_free(&tokenizer->post_processor);
    mmqi_stages_free(&tokenizer->decoder);
    mmqi_free(tokenizer);
}
