/*
 * Reading tokenizer.json: one pass over the file, in which sections of
 * stages and the merges, which need the vocabulary, are only noted and read
 * afterwards.
 */
#include <string.h>

#include "core/mem.h"
#include "core/status.h"
#include "io/json.h"
#include "text/added_read.h"
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
    struct slice sections[MMQI_N_SECTIONS], merges;
    struct slice pieces; /* the vocabulary of a Unigram */
    bool has_model, has_vocab, is_unigram, has_unk_id;
    int64_t unk_id;
    char *unk;
    size_t unk_size;
};

/* ---- values ---- */

static int32_t need(struct mmqi_json *json, enum mmqi_json_event wanted, const char *what)
{
    enum mmqi_json_event event;
    int32_t status = mmqi_json_next(json, &event);

    if (status == MMQ_OK && event != wanted)
        status = mmqi_json_fail(json, MMQ_ERR_FORMAT, "%s", what);
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

/* ---- added tokens ---- */

/* An object of the list, its '{' read. A token without text is passed over: it matches nothing. */
static int32_t read_added_token(struct reading *reading)
{
    struct mmqi_added_token token;
    int32_t status = mmqi_added_token_read(&token, reading->json);

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

/* The members of {"token": id, ..}, its '{' read. */
static int32_t read_vocab_members(struct mmqi_vocab *vocab, const char *name, const char *where,
                                  struct mmqi_json *json)
{
    struct mmqi_buf token = {0};
    enum mmqi_json_event event;
    int64_t id = 0;
    int32_t status = MMQ_OK;

    while (status == MMQ_OK) {
        status = mmqi_json_next(json, &event);
        if (status != MMQ_OK || event != MMQI_JSON_KEY)
            break;
        mmqi_buf_clear(&token);
        mmqi_buf_append(&token, mmqi_json_text(json), mmqi_json_size(json));
        if (mmqi_buf_failed(&token))
            status = mmqi_fail(MMQ_ERR_NOMEM, "%s: no memory for a token", name);
        if (status == MMQ_OK)
            status = need(json, MMQI_JSON_NUMBER, "an id is not a number");
        if (status == MMQ_OK)
            status = mmqi_json_integer(json, &id);
        if (status == MMQ_OK)
            status = mmqi_vocab_add(vocab, name, where, token.data, token.size, id);
    }
    mmqi_buf_free(&token);
    return status;
}

int32_t mmqi_tokenizer_read_vocab(struct mmqi_vocab *vocab, const char *name, const char *where,
                                  struct mmqi_json *json)
{
    int32_t status = need(json, MMQI_JSON_OBJECT, "the vocabulary of a BPE is not an object");

    return status == MMQ_OK ? read_vocab_members(vocab, name, where, json) : status;
}

/* An object of ids, or an array of scores, which is only noted. */
static int32_t read_vocab(struct reading *reading)
{
    struct slice *pieces = &reading->pieces;
    enum mmqi_json_event event;
    int32_t status = mmqi_json_next(reading->json, &event);
    size_t begin;

    reading->has_vocab = true;
    if (status != MMQ_OK)
        return status;
    if (event == MMQI_JSON_OBJECT)
        return read_vocab_members(&reading->tokenizer->bpe.vocab, reading->name, "model.vocab",
                                  reading->json);
    if (event != MMQI_JSON_ARRAY)
        return mmqi_json_fail(reading->json, MMQ_ERR_FORMAT,
                              "the vocabulary is neither an object nor an array");
    begin = mmqi_json_offset(reading->json);
    status = mmqi_json_skip(reading->json);
    pieces->json = reading->text + begin;
    pieces->size = mmqi_json_offset(reading->json) + 1 - begin;
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
    int32_t status = need(reading->json, MMQI_JSON_STRING, "the type of the model is not a string");

    if (status != MMQ_OK)
        return status;
    reading->is_unigram = mmqi_json_is(reading->json, "Unigram");
    if (reading->is_unigram || mmqi_json_is(reading->json, "BPE"))
        return MMQ_OK;
    return mmqi_json_fail(reading->json, MMQ_ERR_UNSUPPORTED, "model: type '%s' is not supported",
                          mmqi_json_text(reading->json));
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

static int32_t read_unk_id(struct reading *reading)
{
    enum mmqi_json_event event;
    int32_t status = mmqi_json_next(reading->json, &event);

    if (status != MMQ_OK || event == MMQI_JSON_NULL)
        return status;
    if (event != MMQI_JSON_NUMBER)
        return mmqi_json_fail(reading->json, MMQ_ERR_FORMAT, "unk_id is not a number");
    reading->has_unk_id = true;
    return mmqi_json_integer(reading->json, &reading->unk_id);
}

static int32_t read_model_field(struct reading *reading)
{
    struct mmqi_bpe *bpe = &reading->tokenizer->bpe;
    const char *key = mmqi_json_text(reading->json);

    if (strcmp(key, "type") == 0)
        return read_model_type(reading);
    if (strcmp(key, "vocab") == 0)
        return read_vocab(reading);
    if (strcmp(key, "unk_id") == 0)
        return read_unk_id(reading);
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
    int32_t status = need(reading->json, MMQI_JSON_OBJECT, "the model is not an object");

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

int32_t mmqi_tokenizer_read_merge(struct mmqi_bpe *bpe, const char *name, const char *text,
                                  size_t size)
{
    const char *space;
    size_t left;

    if (size >= 8 && memcmp(text, "#version", 8) == 0)
        return MMQ_OK;
    space = memchr(text, ' ', size);
    left = space ? (size_t)(space - text) : 0;
    if (!space || memchr(space + 1, ' ', size - left - 1))
        return mmqi_fail(MMQ_ERR_FORMAT, "%s: merge %zu: '%.*s' is not two tokens", name,
                         bpe->n_ranks, (int)(size < 100 ? size : 100), text);
    return mmqi_bpe_add_merge(bpe, name, text, left, space + 1, size - left - 1);
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
            status = mmqi_tokenizer_read_merge(&reading->tokenizer->bpe, reading->name,
                                               mmqi_json_text(json), mmqi_json_size(json));
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

/* ---- what the type makes of them ---- */

/* A BPE's merges, or a Unigram's pieces. */
static int32_t finish_model(struct reading *reading)
{
    const struct slice *pieces = &reading->pieces;

    if (reading->is_unigram != (pieces->json != NULL))
        return mmqi_fail(MMQ_ERR_FORMAT, "%s: model.vocab: no vocabulary of a %s", reading->name,
                         reading->is_unigram ? "Unigram" : "BPE");
    if (reading->is_unigram && !reading->has_unk_id)
        return mmqi_fail(MMQ_ERR_UNSUPPORTED, "%s: model.unk_id is null", reading->name);
    if (reading->is_unigram)
        return mmqi_tokenizer_read_pieces(reading->tokenizer, reading->name, reading->unk_id,
                                          pieces->json, pieces->size);
    if (reading->unk)
        mmqi_tokenizer_set_unk(reading->tokenizer, reading->unk, reading->unk_size);
    return reading->merges.json ? read_merges(reading) : MMQ_OK;
}

/* ---- the whole ---- */

static int32_t read_version(struct reading *reading)
{
    int32_t status = need(reading->json, MMQI_JSON_STRING, "the version is not a string");

    if (status == MMQ_OK && strcmp(mmqi_json_text(reading->json), "1.0") != 0)
        status = mmqi_json_fail(reading->json, MMQ_ERR_UNSUPPORTED, "version '%s' is not 1.0",
                                mmqi_json_text(reading->json));
    return status;
}

/* "truncation" and "padding" are passed over: they are about batches, not about text. */
static int32_t read_top_field(struct reading *reading)
{
    const char *key = mmqi_json_text(reading->json);
    int i;

    if (strcmp(key, "version") == 0)
        return read_version(reading);
    if (strcmp(key, "added_tokens") == 0)
        return read_added(reading);
    for (i = 0; i < MMQI_N_SECTIONS; i++)
        if (strcmp(key, mmqi_section_name((enum mmqi_section)i)) == 0)
            return note(reading, &reading->sections[i]);
    if (strcmp(key, "model") == 0)
        return read_model(reading);
    return mmqi_json_skip(reading->json);
}

static int32_t read_file(struct reading *reading)
{
    enum mmqi_json_event event;
    int32_t status = need(reading->json, MMQI_JSON_OBJECT, "a tokenizer is a JSON object");

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
    const struct slice *slice;
    int32_t status = MMQ_OK;
    int i;

    for (i = 0; i < MMQI_N_SECTIONS && status == MMQ_OK; i++) {
        slice = &reading->sections[i];
        if (slice->json)
            status = mmqi_tokenizer_set_section(reading->tokenizer, reading->name,
                                                (enum mmqi_section)i, slice->json, slice->size);
    }
    return status;
}

int32_t mmqi_tokenizer_read_json(struct mmqi_tokenizer *tokenizer, const char *name,
                                 const char *text, size_t size)
{
    struct reading reading = {.tokenizer = tokenizer, .name = name, .text = text};
    int32_t status;

    if (size > MMQI_MAX_TOKENIZER_BYTES)
        return mmqi_fail(MMQ_ERR_LIMIT, "%s: %zu bytes, more than %d", name, size,
                         MMQI_MAX_TOKENIZER_BYTES);
    status = mmqi_json_open(&reading.json, name, text, size);
    if (status == MMQ_OK)
        status = read_file(&reading);
    if (status == MMQ_OK)
        status = finish_model(&reading);
    if (status == MMQ_OK)
        status = read_sections(&reading);
    mmqi_json_close(reading.json);
    mmqi_free(reading.unk);
    return status;
}

int32_t mmqi_tokenizer_parse(struct mmqi_tokenizer **out, const char *name, const char *text,
                             size_t size)
{
    int32_t status = mmqi_tokenizer_create(out, name);

    if (status == MMQ_OK)
        status = mmqi_tokenizer_read_json(*out, name, text, size);
    if (status == MMQ_OK)
        status = mmqi_tokenizer_finish(*out, name);
    if (status != MMQ_OK) {
        mmqi_tokenizer_free(*out);
        *out = NULL;
    }
    return status;
}
