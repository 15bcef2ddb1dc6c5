/*
 * The model of a Unigram in tokenizer.json: pieces with their scores.
 */
#include <math.h>
#include <string.h>

#include "core/mem.h"
#include "core/status.h"
#include "io/json.h"
#include "text/tokenizer_parts.h"

struct reading {
    struct mmqi_tokenizer *tokenizer;
    const char *name;
    struct mmqi_json *json;
    float *scores; /* by id */
    size_t n, capacity;
};

static int32_t push_score(struct reading *reading, double score)
{
    size_t capacity = reading->capacity ? reading->capacity * 2 : 1024;
    float *grown;

    if (reading->n == reading->capacity) {
        grown = mmqi_realloc_array(reading->scores, capacity, sizeof *grown);
        if (!grown)
            return mmqi_fail(MMQ_ERR_NOMEM, "%s: no memory for the scores", reading->name);
        reading->scores = grown;
        reading->capacity = capacity;
    }
    reading->scores[reading->n] = (float)score;
    if (!isfinite(reading->scores[reading->n]))
        return mmqi_fail(MMQ_ERR_FORMAT, "%s: model.vocab[%zu]: its score is no float",
                         reading->name, reading->n);
    reading->n++;
    return MMQ_OK;
}

/* ["piece", score], its '[' read. */
static int32_t read_piece(struct reading *reading)
{
    struct mmqi_vocab *vocab = mmqi_tokenizer_vocab(reading->tokenizer);
    enum mmqi_json_event event;
    int32_t status = mmqi_json_next(reading->json, &event);

    if (status == MMQ_OK && event != MMQI_JSON_STRING)
        goto no_piece;
    if (status == MMQ_OK)
        status = mmqi_vocab_add(vocab, reading->name, "model.vocab", mmqi_json_text(reading->json),
                                mmqi_json_size(reading->json), (int64_t)reading->n);
    if (status == MMQ_OK)
        status = mmqi_json_next(reading->json, &event);
    if (status == MMQ_OK && event != MMQI_JSON_NUMBER)
        goto no_piece;
    if (status == MMQ_OK)
        status = push_score(reading, mmqi_json_number(reading->json));
    if (status == MMQ_OK)
        status = mmqi_json_next(reading->json, &event);
    if (status != MMQ_OK || event == MMQI_JSON_ARRAY_END)
        return status;
no_piece:
    return mmqi_fail(MMQ_ERR_FORMAT, "%s: model.vocab[%zu] is not a piece and its score",
                     reading->name, reading->n);
}

static int32_t read_list(struct reading *reading, const char *json, size_t size)
{
    enum mmqi_json_event event;
    int32_t status = mmqi_json_open(&reading->json, reading->name, json, size);

    if (status == MMQ_OK)
        status = mmqi_json_next(reading->json, &event); /* '[' */
    while (status == MMQ_OK) {
        status = mmqi_json_next(reading->json, &event);
        if (status != MMQ_OK || event == MMQI_JSON_ARRAY_END)
            break;
        status =
            event == MMQI_JSON_ARRAY
                ? read_piece(reading)
                : mmqi_fail(MMQ_ERR_FORMAT, "%s: model.vocab[%zu] is not a piece and its score",
                            reading->name, reading->n);
    }
    mmqi_json_close(reading->json);
    return status;
}

/* The pieces "<0xNN>", which spell a character that no other has: all of them or none. */
static int32_t find_bytes(const struct reading *reading, const int32_t **bytes)
{
    struct mmqi_bpe *bpe = &reading->tokenizer->bpe;
    size_t n = 0;

    *bytes = NULL;
    mmqi_bpe_seal(bpe);
    for (int i = 0; i < 256; i++)
        n += bpe->bytes[i] >= 0;
    if (!bpe->byte_fallback || n == 0)
        return MMQ_OK;
    *bytes = bpe->bytes;
    return n == 256
               ? MMQ_OK
               : mmqi_fail(MMQ_ERR_UNSUPPORTED,
                           "%s: model.vocab has pieces for %zu of the 256 bytes", reading->name, n);
}

int32_t mmqi_tokenizer_read_pieces(struct mmqi_tokenizer *tokenizer, const char *name, int64_t unk,
                                   const char *json, size_t size)
{
    struct reading reading = {.tokenizer = tokenizer, .name = name};
    const int32_t *bytes = NULL;
    uint8_t *kinds = NULL;
    int32_t status = read_list(&reading, json, size);

    if (status == MMQ_OK && (unk < 0 || unk >= (int64_t)reading.n))
        status = mmqi_fail(MMQ_ERR_FORMAT, "%s: model.unk_id %lld is none of %zu pieces", name,
                           (long long)unk, reading.n);
    if (status == MMQ_OK)
        status = find_bytes(&reading, &bytes);
    if (status == MMQ_OK) {
        kinds = mmqi_alloc_array(reading.n, sizeof *kinds);
        if (!kinds)
            status = mmqi_fail(MMQ_ERR_NOMEM, "%s: no memory for the pieces", name);
    }
    if (status == MMQ_OK) {
        memset(kinds, MMQI_PIECE_NORMAL, reading.n);
        status = mmqi_unigram_create(&tokenizer->unigram, name, mmqi_tokenizer_vocab(tokenizer),
                                     kinds, reading.scores, (int32_t)unk, bytes);
    }
    if (status == MMQ_OK)
        mmqi_unigram_widen(tokenizer->unigram);
    mmqi_free(kinds);
    mmqi_free(reading.scores);
    return status;
}
