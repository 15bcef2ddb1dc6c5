/*
 * SentencePiece's tokenizer.model: a protocol buffer of pieces with types
 * and scores, of what the trainer was told, and of the normalizer's rules.
 *
 * Control pieces and the unknown one become added tokens, as transformers
 * makes them. A BPE's merges are all ways to put a piece together of two, by
 * the score of the whole; a user's pieces are cut out before it runs.
 */
#include <stdlib.h>
#include <string.h>

#include "core/mem.h"
#include "core/status.h"
#include "text/proto.h"
#include "text/tokenizer_build.h"
#include "text/tokenizer_parts.h"
#include "text/utf8.h"

enum piece_type { NORMAL = 1, UNKNOWN = 2, CONTROL = 3, OWN = 4, UNUSED = 5, BYTE = 6 };
enum model_type { UNIGRAM = 1, BPE = 2 };

struct piece {
    float score;
    int32_t type;
};

struct reading {
    struct mmqi_tokenizer *tokenizer;
    const char *name;
    struct piece *pieces; /* by id */
    size_t n, capacity;
    uint8_t *kinds; /* by id, MMQI_PIECE_... */
    int32_t unk;
    /* trainer_spec */
    int32_t model_type, bos, eos;
    bool byte_fallback, space_is_suffix;
    /* normalizer_spec */
    struct mmqi_spell_options options;
    const char *rules;
    size_t rules_size;
};

/* ---- the message ---- */

static int32_t read_piece_fields(struct mmqi_proto *proto, struct piece *piece,
                                 struct mmqi_proto_field *text)
{
    struct mmqi_proto_field field;
    bool more;
    int32_t status = mmqi_proto_next(proto, &field, &more);

    for (; status == MMQ_OK && more; status = mmqi_proto_next(proto, &field, &more)) {
        if (field.number == 1) {
            status = mmqi_proto_need(proto, &field, MMQI_PROTO_BYTES);
            *text = field;
        } else if (field.number == 2) {
            status = mmqi_proto_float(proto, &field, &piece->score);
        } else if (field.number == 3) {
            status = mmqi_proto_int(proto, &field, &piece->type);
        }
        if (status != MMQ_OK)
            break;
    }
    return status;
}

static int32_t check_piece(const struct reading *reading, const struct piece *piece,
                           const struct mmqi_proto_field *text)
{
    if (text->size == 0)
        return mmqi_fail(MMQ_ERR_FORMAT, "%s: piece %zu has no text", reading->name, reading->n);
    if (!mmqi_utf8_valid(text->bytes, text->size))
        return mmqi_fail(MMQ_ERR_FORMAT, "%s: piece %zu is not UTF-8", reading->name, reading->n);
    if (!__builtin_isfinite(piece->score))
        return mmqi_fail(MMQ_ERR_FORMAT, "%s: piece %zu has a score that is not finite",
                         reading->name, reading->n);
    if (piece->type < NORMAL || piece->type > BYTE)
        return mmqi_fail(MMQ_ERR_FORMAT, "%s: piece %zu has type %d", reading->name, reading->n,
                         (int)piece->type);
    return MMQ_OK;
}

static int32_t read_piece(struct reading *reading, const struct mmqi_proto *outer,
                          const struct mmqi_proto_field *field)
{
    struct mmqi_proto proto;
    struct mmqi_proto_field text = {0};
    struct piece piece = {.type = NORMAL}, *grown;
    int32_t status = mmqi_proto_open(&proto, "pieces", outer, field);

    if (status == MMQ_OK)
        status = read_piece_fields(&proto, &piece, &text);
    if (status == MMQ_OK)
        status = check_piece(reading, &piece, &text);
    if (status == MMQ_OK)
        status = mmqi_vocab_add(&reading->tokenizer->bpe.vocab, reading->name, "pieces", text.bytes,
                                text.size, (int64_t)reading->n);
    if (status != MMQ_OK)
        return status;
    if (reading->n == reading->capacity) {
        reading->capacity = reading->capacity ? reading->capacity * 2 : 1024;
        grown = mmqi_realloc_array(reading->pieces, reading->capacity, sizeof *grown);
        if (!grown)
            return mmqi_fail(MMQ_ERR_NOMEM, "%s: no memory for the pieces", reading->name);
        reading->pieces = grown;
    }
    reading->pieces[reading->n++] = piece;
    return MMQ_OK;
}

static int32_t read_trainer_field(struct reading *reading, const struct mmqi_proto *proto,
                                  const struct mmqi_proto_field *field)
{
    switch (field->number) {
    case 3:
        return mmqi_proto_int(proto, field, &reading->model_type);
    case 24:
        return mmqi_proto_bool(proto, field, &reading->space_is_suffix);
    case 35:
        return mmqi_proto_bool(proto, field, &reading->byte_fallback);
    case 41:
        return mmqi_proto_int(proto, field, &reading->bos);
    case 42:
        return mmqi_proto_int(proto, field, &reading->eos);
    default:
        return MMQ_OK;
    }
}

static int32_t read_normalizer_field(struct reading *reading, const struct mmqi_proto *proto,
                                     const struct mmqi_proto_field *field)
{
    switch (field->number) {
    case 2:
        reading->rules = field->bytes;
        reading->rules_size = field->size;
        return mmqi_proto_need(proto, field, MMQI_PROTO_BYTES);
    case 3:
        return mmqi_proto_bool(proto, field, &reading->options.dummy_prefix);
    case 4:
        return mmqi_proto_bool(proto, field, &reading->options.remove_extra_spaces);
    case 5:
        return mmqi_proto_bool(proto, field, &reading->options.escape_spaces);
    default:
        return MMQ_OK;
    }
}

/* Rules for the way back from pieces to text, which hardly anyone gives a model. */
static int32_t read_denormalizer_field(struct reading *reading, const struct mmqi_proto *proto,
                                       const struct mmqi_proto_field *field)
{
    if (field->number != 2 || field->size == 0)
        return MMQ_OK;
    return mmqi_fail(MMQ_ERR_UNSUPPORTED, "%s: %s with rules is not supported", reading->name,
                     proto->what);
}

static int32_t read_part(struct reading *reading, const char *what, const struct mmqi_proto *outer,
                         const struct mmqi_proto_field *part,
                         int32_t (*read)(struct reading *reading, const struct mmqi_proto *proto,
                                         const struct mmqi_proto_field *field))
{
    struct mmqi_proto proto;
    struct mmqi_proto_field field;
    bool more = true;
    int32_t status = mmqi_proto_open(&proto, what, outer, part);

    while (status == MMQ_OK && more) {
        status = mmqi_proto_next(&proto, &field, &more);
        if (status == MMQ_OK && more)
            status = read(reading, &proto, &field);
    }
    return status;
}

static int32_t read_model(struct reading *reading, const char *data, size_t size)
{
    struct mmqi_proto proto = {
        .name = reading->name, .what = "the model", .data = data, .size = size};
    struct mmqi_proto_field field;
    bool more = true;
    int32_t status = MMQ_OK;

    while (status == MMQ_OK && more) {
        status = mmqi_proto_next(&proto, &field, &more);
        if (status != MMQ_OK || !more)
            break;
        if (field.number == 1)
            status = read_piece(reading, &proto, &field);
        else if (field.number == 2)
            status = read_part(reading, "trainer_spec", &proto, &field, read_trainer_field);
        else if (field.number == 3)
            status = read_part(reading, "normalizer_spec", &proto, &field, read_normalizer_field);
        else if (field.number == 5)
            status =
                read_part(reading, "denormalizer_spec", &proto, &field, read_denormalizer_field);
    }
    if (status == MMQ_OK && reading->n == 0)
        status = mmqi_fail(MMQ_ERR_FORMAT, "%s: there are no pieces", reading->name);
    return status;
}

/* ---- the model ---- */

/* Control pieces and the unknown one are found in raw text; a BPE's user's ones where the
 * normalizer is done. */
static int32_t place_piece(struct reading *reading, int32_t id)
{
    struct mmqi_tokenizer *tokenizer = reading->tokenizer;
    size_t size = 0;
    const char *text = mmqi_vocab_text(&tokenizer->bpe.vocab, id, &size);
    int32_t type = reading->pieces[id].type;

    if (type == UNUSED && reading->model_type == BPE)
        return mmqi_fail(MMQ_ERR_UNSUPPORTED, "%s: piece %d, '%s', is unused, in a BPE",
                         reading->name, (int)id, text);
    if (type == UNKNOWN && reading->unk >= 0)
        return mmqi_fail(MMQ_ERR_FORMAT, "%s: '%s' is a second unknown piece", reading->name, text);
    if (type == UNKNOWN)
        reading->unk = id;
    if (type == UNKNOWN || type == CONTROL)
        return mmqi_added_add(&tokenizer->added, reading->name, text, size, id, MMQI_ADDED_SPECIAL);
    reading->kinds[id] = type == NORMAL ? MMQI_PIECE_NORMAL : MMQI_PIECE_LEFT_OUT;
    if (type == OWN && reading->model_type == BPE)
        return mmqi_added_add(&tokenizer->added, reading->name, text, size, id,
                              MMQI_ADDED_NORMALIZED);
    if (type == OWN)
        reading->kinds[id] = MMQI_PIECE_OWN;
    return MMQ_OK;
}

static int32_t place_pieces(struct reading *reading)
{
    size_t n_bytes = 0, id;
    int32_t status = MMQ_OK;

    reading->unk = -1;
    reading->kinds = mmqi_calloc(reading->n, 1);
    if (!reading->kinds)
        return mmqi_fail(MMQ_ERR_NOMEM, "%s: no memory for the pieces", reading->name);
    if (reading->model_type != UNIGRAM && reading->model_type != BPE)
        return mmqi_fail(MMQ_ERR_UNSUPPORTED, "%s: trainer_spec: model type %d is not supported",
                         reading->name, (int)reading->model_type);
    for (id = 0; id < reading->n && status == MMQ_OK; id++) {
        n_bytes += reading->pieces[id].type == BYTE;
        status = place_piece(reading, (int32_t)id);
    }
    if (status == MMQ_OK && reading->unk < 0)
        status = mmqi_fail(MMQ_ERR_FORMAT, "%s: there is no unknown piece", reading->name);
    if (status == MMQ_OK && n_bytes != (reading->byte_fallback ? 256 : 0))
        status = mmqi_fail(MMQ_ERR_FORMAT, "%s: %zu pieces are bytes, byte_fallback is %s",
                           reading->name, n_bytes, reading->byte_fallback ? "true" : "false");
    return status;
}

struct scored {
    float score;
    int32_t id;
};

static int compare_scores(const void *a, const void *b)
{
    const struct scored *x = a, *y = b;

    if (x->score != y->score)
        return x->score > y->score ? -1 : 1;
    return x->id < y->id ? -1 : x->id > y->id;
}

/* The best score first; pieces of equal scores are equals. */
static int32_t add_merges(struct reading *reading)
{
    struct scored *order = mmqi_alloc_array(reading->n, sizeof *order);
    uint32_t *ranks = mmqi_alloc_array(reading->n, sizeof *ranks), rank = 0;
    int32_t status = MMQ_ERR_NOMEM;
    size_t i;

    if (!order || !ranks)
        goto done;
    for (i = 0; i < reading->n; i++)
        order[i] = (struct scored){reading->pieces[i].score, (int32_t)i};
    qsort(order, reading->n, sizeof *order, compare_scores);
    for (i = 0; i < reading->n; i++) {
        rank += i > 0 && order[i].score < order[i - 1].score;
        ranks[order[i].id] = rank;
    }
    status = mmqi_bpe_add_wholes(&reading->tokenizer->bpe, reading->name, ranks, reading->kinds);
done:
    mmqi_free(order);
    mmqi_free(ranks);
    return status == MMQ_ERR_NOMEM
               ? mmqi_fail(MMQ_ERR_NOMEM, "%s: no memory for the merges", reading->name)
               : status;
}

static int32_t build_model(struct reading *reading)
{
    struct mmqi_bpe *bpe = &reading->tokenizer->bpe;
    float *scores;
    int32_t status = MMQ_OK, i;

    bpe->unk = reading->unk;
    bpe->byte_fallback = reading->byte_fallback;
    bpe->fuse_unk = true;
    mmqi_bpe_seal(bpe);
    for (i = 0; i < 256 && bpe->byte_fallback; i++)
        if (bpe->bytes[i] < 0 || reading->pieces[bpe->bytes[i]].type != BYTE)
            return mmqi_fail(MMQ_ERR_FORMAT, "%s: there is no piece for byte %d", reading->name,
                             (int)i);
    if (reading->model_type == BPE)
        return add_merges(reading);
    scores = mmqi_alloc_array(reading->n, sizeof *scores);
    if (!scores)
        return mmqi_fail(MMQ_ERR_NOMEM, "%s: no memory for the scores", reading->name);
    for (size_t id = 0; id < reading->n; id++)
        scores[id] = reading->pieces[id].score;
    status = mmqi_unigram_create(&reading->tokenizer->unigram, reading->name, &bpe->vocab,
                                 reading->kinds, scores, bpe->unk,
                                 bpe->byte_fallback ? bpe->bytes : NULL);
    mmqi_free(scores);
    return status;
}

/* ---- what is around it ---- */

static int32_t build_normalizer(struct reading *reading)
{
    struct mmqi_stage *stage =
        mmqi_stages_add(&reading->tokenizer->sections[MMQI_NORMALIZER], &mmqi_spell_kind);
    const struct mmqi_vocab *vocab = &reading->tokenizer->bpe.vocab;
    const char *text;
    size_t id, size = 0;
    int32_t status;

    if (!stage)
        return mmqi_fail(MMQ_ERR_NOMEM, "%s: no memory for the normalizer", reading->name);
    if (reading->space_is_suffix)
        return mmqi_fail(MMQ_ERR_UNSUPPORTED,
                         "%s: trainer_spec: treat_whitespace_as_suffix is not supported",
                         reading->name);
    status = mmqi_spell_create(&stage->spell, reading->name, &reading->options, reading->rules,
                               reading->rules_size);
    for (id = 0; id < reading->n && status == MMQ_OK; id++) {
        if (reading->pieces[id].type != OWN)
            continue;
        text = mmqi_vocab_text(vocab, (int32_t)id, &size);
        status = mmqi_spell_keep(stage->spell, text, size);
    }
    if (status == MMQ_OK)
        status = mmqi_spell_seal(stage->spell);
    return status == MMQ_ERR_NOMEM
               ? mmqi_fail(MMQ_ERR_NOMEM, "%s: no memory for the normalizer", reading->name)
               : status;
}

static int32_t build_decoder(struct reading *reading)
{
    static const char spaces[] = "{\"type\":\"Replace\",\"pattern\":{\"String\":\"\xE2\x96\x81\"},"
                                 "\"content\":\" \"},";
    static const char strip[] = ",{\"type\":\"Strip\",\"content\":\" \",\"start\":1,\"stop\":0}";
    struct mmqi_buf json = {0};
    int32_t status;

    mmqi_buf_format(&json,
                    "{\"type\":\"Sequence\",\"decoders\":[%s{\"type\":\"ByteFallback\"},"
                    "{\"type\":\"Fuse\"}%s]}",
                    reading->options.escape_spaces ? spaces : "",
                    reading->options.dummy_prefix ? strip : "");
    status = mmqi_buf_failed(&json)
                 ? mmqi_fail(MMQ_ERR_NOMEM, "%s: no memory for the decoder", reading->name)
                 : mmqi_tokenizer_set_section(reading->tokenizer, reading->name, MMQI_DECODER,
                                              json.data, json.size);
    mmqi_buf_free(&json);
    return status;
}

/* A piece of the trainer's, -1 unless it is there and is a control piece. */
static int32_t control_piece(const struct reading *reading, int32_t id)
{
    return id >= 0 && (size_t)id < reading->n && reading->pieces[id].type == CONTROL ? id : -1;
}

/* "legacy": false is how transformers came to give a text but one mark of its beginning. */
static int32_t read_legacy(struct mmqi_tokenizer *tokenizer, const struct mmqi_settings *config)
{
    bool legacy = true;
    int32_t status = mmqi_settings_bool(config, "legacy", &legacy);

    tokenizer->begins_once = !legacy;
    tokenizer->pieces_are_normal = true;
    return status;
}

int32_t mmqi_tokenizer_read_sentencepiece(struct mmqi_tokenizer *tokenizer, const char *name,
                                          const struct mmqi_settings *config, const char *data,
                                          size_t size)
{
    struct reading reading = {.tokenizer = tokenizer,
                              .name = name,
                              .model_type = UNIGRAM,
                              .bos = 1,
                              .eos = 2,
                              .options = {true, true, true}};
    int32_t status = read_model(&reading, data, size);

    if (status == MMQ_OK)
        status = place_pieces(&reading);
    if (status == MMQ_OK)
        status = build_model(&reading);
    if (status == MMQ_OK)
        status = build_normalizer(&reading);
    if (status == MMQ_OK)
        status = build_decoder(&reading);
    if (status == MMQ_OK)
        status = read_legacy(tokenizer, config);
    if (status == MMQ_OK)
        status = mmqi_build_around(tokenizer, name, config, control_piece(&reading, reading.bos),
                                   control_piece(&reading, reading.eos));
    mmqi_free(reading.pieces);
    mmqi_free(reading.kinds);
    return status;
}
