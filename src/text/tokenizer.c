/*
 * Encoding: text is cut at the added tokens, what lies between is
 * normalized, cut into words, and each word goes through the model.
 */
#include "text/tokenizer.h"

#include <string.h>

#include "core/mem.h"
#include "core/status.h"
#include "text/mark.h"
#include "text/pretokenize.h"
#include "text/tokenizer_parts.h"
#include "text/utf8.h"

/* Everything one call of encode needs on the way. */
struct encoder {
    const struct mmqi_tokenizer *tokenizer;
    struct mmqi_ids *ids;
    bool plain;
    bool inside; /* what comes next goes on behind an added token; else it is a beginning */
    struct mmqi_segments outer, inner; /* cut at the raw, at the normalized added tokens */
    struct mmqi_marks marks;           /* of the whole text */
    struct mmqi_marks normal_marks;    /* of the normalized part in hand */
    struct mmqi_buf marked, unmarked;
    struct mmqi_buf normal[2];
    struct mmqi_pieces pieces[2];
    struct mmqi_bpe_work work;
    struct mmqi_unigram_path path;
};

int32_t mmqi_ids_append(struct mmqi_ids *ids, const int32_t *data, size_t n)
{
    size_t need, capacity = ids->capacity ? ids->capacity : 64;
    int32_t *grown;

    if (!mmqi_add_size(ids->n, n, &need) || need > SIZE_MAX / 8)
        return mmqi_fail(MMQ_ERR_NOMEM, "tokenizer: no memory for the ids");
    if (need > ids->capacity) {
        while (capacity < need)
            capacity *= 2;
        grown = mmqi_realloc_array(ids->data, capacity, sizeof *grown);
        if (!grown)
            return mmqi_fail(MMQ_ERR_NOMEM, "tokenizer: no memory for %zu ids", need);
        ids->data = grown;
        ids->capacity = capacity;
    }
    if (n > 0)
        memcpy(ids->data + ids->n, data, n * sizeof *data);
    ids->n = need;
    return MMQ_OK;
}

int32_t mmqi_tokenizer_vocab_size(const struct mmqi_tokenizer *tokenizer)
{
    return tokenizer->vocab_size;
}

int32_t mmqi_tokenizer_id(const struct mmqi_tokenizer *tokenizer, const char *content)
{
    int32_t id = mmqi_vocab_find(&tokenizer->added.vocab, content, strlen(content));

    return id >= 0 ? id : mmqi_vocab_find(&tokenizer->bpe.vocab, content, strlen(content));
}

bool mmqi_tokenizer_is_special(const struct mmqi_tokenizer *tokenizer, int32_t id)
{
    return mmqi_added_flags(&tokenizer->added, id) & MMQI_ADDED_SPECIAL;
}

const char *mmqi_tokenizer_text(const struct mmqi_tokenizer *tokenizer, int32_t id, size_t *size)
{
    const char *text = mmqi_vocab_text(&tokenizer->added.vocab, id, size);

    return text ? text : mmqi_vocab_text(&tokenizer->bpe.vocab, id, size);
}

const char *mmqi_tokenizer_content(const struct mmqi_tokenizer *tokenizer, int32_t id)
{
    return mmqi_tokenizer_text(tokenizer, id, NULL);
}

/* ---- encoding ---- */

static int32_t check_size(size_t size)
{
    if (size > MMQI_MAX_TEXT_BYTES)
        return mmqi_fail(MMQ_ERR_LIMIT, "tokenizer: a text of %zu bytes, more than %d", size,
                         MMQI_MAX_TEXT_BYTES);
    return MMQ_OK;
}

int32_t mmqi_tokenizer_normalize(const struct mmqi_tokenizer *tokenizer, bool inside,
                                 struct mmqi_buf pair[2], const char **text, size_t *size)
{
    const struct mmqi_stages *stages = &tokenizer->sections[MMQI_NORMALIZER];
    const struct mmqi_stage *stage;
    struct mmqi_buf *out;
    int32_t status = MMQ_OK;
    size_t i;

    for (i = 0; i < stages->n && status == MMQ_OK; i++) {
        out = &pair[i % 2];
        mmqi_buf_clear(out);
        stage = &stages->list[i];
        if (inside && stage->kind->normalize_inside)
            stage->kind->normalize_inside(stage, out, *text, *size);
        else
            stage->kind->normalize(stage, out, *text, *size);
        if (mmqi_buf_failed(out))
            return mmqi_fail(MMQ_ERR_NOMEM, "tokenizer: no memory for a normalized text");
        *text = out->size > 0 ? out->data : "";
        *size = out->size;
        status = check_size(*size);
    }
    return status;
}

/* One word by the model. */
static int32_t encode_word(struct encoder *encoder, const char *text, size_t size)
{
    const struct mmqi_tokenizer *tokenizer = encoder->tokenizer;

    if (tokenizer->unigram)
        return mmqi_unigram_encode(tokenizer->unigram, &encoder->path, encoder->ids, text, size);
    return mmqi_bpe_encode(&tokenizer->bpe, &encoder->work, encoder->ids, text, size);
}

/* Normalized text without added tokens, to the end. */
static int32_t encode_words(struct encoder *encoder, const char *text, size_t size, bool begins)
{
    const struct mmqi_stages *stages = &encoder->tokenizer->sections[MMQI_PRE_TOKENIZER];
    struct mmqi_pieces *now = &encoder->pieces[0], *next = &encoder->pieces[1], *swap;
    int32_t status = MMQ_OK;
    size_t i, begin = 0;

    if (stages->n == 0)
        return encode_word(encoder, text, size);
    mmqi_pieces_clear(now);
    mmqi_buf_append(&now->text, text, size);
    mmqi_pieces_cut(now);
    now->begins = begins;
    for (i = 0; i < stages->n && status == MMQ_OK && !mmqi_pieces_failed(now); i++) {
        mmqi_pieces_clear(next);
        next->begins = begins;
        stages->list[i].kind->cut(&stages->list[i], next, now);
        status = next->slow ? mmqi_fail(MMQ_ERR_LIMIT,
                                        "tokenizer: its pattern goes over a text of %zu bytes too "
                                        "often",
                                        size)
                            : check_size(next->text.size);
        swap = now;
        now = next;
        next = swap;
    }
    if (status == MMQ_OK && mmqi_pieces_failed(now))
        status = mmqi_fail(MMQ_ERR_NOMEM, "tokenizer: no memory to cut a text into words");
    for (i = 0; status == MMQ_OK && i < now->n; begin = now->ends[i++])
        status = encode_word(encoder, now->text.data + begin, now->ends[i] - begin);
    return status;
}

/* Normalize text[begin, end) with its marks in it, then take them out again. */
static int32_t normalize_marked(struct encoder *encoder, const char **text, size_t *size,
                                size_t begin, size_t end)
{
    int32_t status;

    mmqi_buf_clear(&encoder->marked);
    mmqi_buf_clear(&encoder->unmarked);
    mmqi_marks_put(&encoder->marks, &encoder->marked, *text, begin, end);
    if (mmqi_buf_failed(&encoder->marked))
        return mmqi_fail(MMQ_ERR_NOMEM, "tokenizer: no memory for %zu bytes", end - begin);
    *text = encoder->marked.data;
    *size = encoder->marked.size;
    status =
        mmqi_tokenizer_normalize(encoder->tokenizer, encoder->inside, encoder->normal, text, size);
    if (status == MMQ_OK &&
        mmqi_marks_take(&encoder->normal_marks, &encoder->unmarked, *text, *size) != MMQ_OK)
        status = mmqi_fail(MMQ_ERR_NOMEM, "tokenizer: no memory for %zu bytes", *size);
    *text = encoder->unmarked.size > 0 ? encoder->unmarked.data : "";
    *size = encoder->unmarked.size;
    return status;
}

/* text[begin, end), which lies between two added tokens. */
static int32_t encode_text(struct encoder *encoder, const char *text, size_t begin, size_t end)
{
    const struct mmqi_added *added = &encoder->tokenizer->added;
    const struct mmqi_segment *segment;
    const struct mmqi_marks *marks = NULL;
    size_t i, size = end - begin;
    int32_t status;

    if (mmqi_marks_any(&encoder->marks, begin, end) && added->normalized.n_nodes > 0) {
        marks = &encoder->normal_marks;
        status = normalize_marked(encoder, &text, &size, begin, end);
    } else {
        text += begin;
        status = mmqi_tokenizer_normalize(encoder->tokenizer, encoder->inside, encoder->normal,
                                          &text, &size);
    }
    if (status == MMQ_OK)
        status = mmqi_added_split(added, &added->normalized, &encoder->inner, text, size,
                                  encoder->plain, marks);
    for (i = 0; status == MMQ_OK && i < encoder->inner.n; i++) {
        segment = &encoder->inner.list[i];
        status = segment->id >= 0
                     ? mmqi_ids_append(encoder->ids, &segment->id, 1)
                     : encode_words(encoder, text + segment->begin, segment->end - segment->begin,
                                    begin + segment->begin == 0);
    }
    return status;
}

static int32_t encode_all(struct encoder *encoder, const char *text, size_t size)
{
    const struct mmqi_added *added = &encoder->tokenizer->added;
    const struct mmqi_segment *segment;
    size_t i;
    int32_t status = mmqi_added_split(added, &added->raw, &encoder->outer, text, size,
                                      encoder->plain, &encoder->marks);

    for (i = 0; i < encoder->outer.n && status == MMQ_OK; i++) {
        segment = &encoder->outer.list[i];
        if (segment->id < 0) {
            status = encode_text(encoder, text, segment->begin, segment->end);
            continue;
        }
        status = mmqi_ids_append(encoder->ids, &segment->id, 1);
        encoder->inside = encoder->tokenizer->begins_once;
    }
    return status;
}

static void free_encoder(struct encoder *encoder)
{
    int i;

    for (i = 0; i < 2; i++) {
        mmqi_buf_free(&encoder->normal[i]);
        mmqi_pieces_free(&encoder->pieces[i]);
    }
    mmqi_buf_free(&encoder->marked);
    mmqi_buf_free(&encoder->unmarked);
    mmqi_marks_free(&encoder->marks);
    mmqi_marks_free(&encoder->normal_marks);
    mmqi_segments_free(&encoder->outer);
    mmqi_segments_free(&encoder->inner);
    mmqi_bpe_work_free(&encoder->work);
    mmqi_unigram_path_free(&encoder->path);
}

/* The post-processors: each one's ids go around what those before it made. */
static int32_t add_around(const struct mmqi_tokenizer *tokenizer, struct mmqi_ids *ids, bool before)
{
    const struct mmqi_stages *stages = &tokenizer->sections[MMQI_POST_PROCESSOR];
    const struct mmqi_ids *part;
    int32_t status = MMQ_OK;
    size_t i;

    for (i = 0; i < stages->n && status == MMQ_OK; i++) {
        part = before ? &stages->list[stages->n - 1 - i].before : &stages->list[i].after;
        status = mmqi_ids_append(ids, part->data, part->n);
    }
    return status;
}

/* The text without marks and in UTF-8: `text` itself where it is so already. */
static int32_t clean_text(struct encoder *encoder, struct mmqi_buf *clean, const char **text,
                          size_t *size, bool marked)
{
    int32_t status = check_size(*size);

    if (status != MMQ_OK || mmqi_utf8_valid(*text, *size))
        return status;
    if (marked)
        status = mmqi_marks_take(&encoder->marks, clean, *text, *size);
    else
        mmqi_utf8_repair(clean, *text, *size);
    if (status != MMQ_OK || mmqi_buf_failed(clean))
        return mmqi_fail(MMQ_ERR_NOMEM, "tokenizer: no memory for %zu bytes", *size);
    *text = clean->size > 0 ? clean->data : "";
    *size = clean->size;
    return MMQ_OK;
}

int32_t mmqi_tokenizer_encode(const struct mmqi_tokenizer *tokenizer, struct mmqi_ids *ids,
                              const char *text, size_t size, int32_t flags)
{
    struct encoder encoder = {.tokenizer = tokenizer, .ids = ids};
    struct mmqi_buf clean = {0};
    size_t n_before = ids->n;
    int32_t status = clean_text(&encoder, &clean, &text, &size, flags & MMQI_TOKENIZE_MARKED);

    encoder.plain = flags & MMQI_TOKENIZE_PLAIN;
    if (status == MMQ_OK && (flags & MMQI_TOKENIZE_POST))
        status = add_around(tokenizer, ids, true);
    if (status == MMQ_OK)
        status = encode_all(&encoder, text, size);
    if (status == MMQ_OK && (flags & MMQI_TOKENIZE_POST))
        status = add_around(tokenizer, ids, false);
    if (status != MMQ_OK)
        ids->n = n_before;
    free_encoder(&encoder);
    mmqi_buf_free(&clean);
    return status;
}
