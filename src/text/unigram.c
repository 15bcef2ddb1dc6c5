#include "text/unigram.h"

#include <float.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "core/mem.h"
#include "core/status.h"
#include "core/utf8.h"
#include "text/vocab.h"

enum { MAX_PIECE = 512 }; /* bytes: at each place of a text so many steps are made at most */

static const float unk_penalty = 10;
static const double own_bonus = 0.1; /* for each byte of a user's piece but the first */

/* A start of pieces. The children of a node lie side by side, in order of their bytes. */
struct node {
    int32_t first;      /* of its children */
    int32_t id;         /* of the piece that ends here, -1 */
    uint16_t n;         /* children */
    unsigned char byte; /* the last one of this start */
    uint8_t kind;       /* of the piece */
};

struct mmqi_unigram {
    struct node *nodes; /* nodes[0] is the root */
    size_t n_nodes;
    float *scores; /* by id */
    float unk_score;
    int32_t unk;
    bool spells_bytes;
    bool wide; /* sums are doubles */
    int32_t bytes[256];
};

/* The best way to put the text before this place together. */
struct mmqi_unigram_end {
    double score;  /* a float unless the model is wide */
    int32_t begin; /* of its last piece, -1: there is no way */
    int32_t id;
};

/* ---- the trie ---- */

struct piece {
    const char *text;
    size_t size;
    int32_t id;
};

/* What is known of a node while the trie grows: the pieces that begin with it, and its length. */
struct range {
    size_t begin, end, depth;
};

static int compare_pieces(const void *a, const void *b)
{
    const struct piece *x = a, *y = b;
    int order = memcmp(x->text, y->text, x->size < y->size ? x->size : y->size);

    return order ? order : x->size < y->size ? -1 : x->size > y->size;
}

static int32_t collect(struct piece *pieces, size_t *n, size_t *n_bytes, const char *name,
                       const struct mmqi_vocab *vocab, const uint8_t *kinds)
{
    struct piece *piece;

    *n = 0;
    *n_bytes = 0;
    for (size_t id = 0; id < vocab->n_ids; id++) {
        if (kinds[id] == MMQI_PIECE_LEFT_OUT)
            continue;
        piece = &pieces[*n];
        piece->id = (int32_t)id;
        piece->text = mmqi_vocab_text(vocab, piece->id, &piece->size);
        if (!piece->text)
            continue;
        if (piece->size > MAX_PIECE)
            return mmqi_fail(MMQ_ERR_LIMIT, "%s: piece %zu has %zu bytes, more than %d", name, id,
                             piece->size, MAX_PIECE);
        *n_bytes += piece->size;
        ++*n;
    }
    qsort(pieces, *n, sizeof *pieces, compare_pieces);
    return MMQ_OK;
}

/* The children of node `at`, behind the nodes that are there. */
static void grow_node(struct mmqi_unigram *unigram, struct range *ranges,
                      const struct piece *pieces, const uint8_t *kinds, size_t at)
{
    struct node *node = &unigram->nodes[at], *child = NULL;
    struct range range = ranges[at];
    unsigned char byte;

    node->first = (int32_t)unigram->n_nodes;
    node->id = -1;
    for (size_t i = range.begin; i < range.end; i++) {
        if (pieces[i].size == range.depth) {
            node->id = pieces[i].id;
            node->kind = kinds[node->id];
            continue;
        }
        byte = (unsigned char)pieces[i].text[range.depth];
        if (!child || child->byte != byte) {
            child = &unigram->nodes[unigram->n_nodes];
            child->byte = byte;
            ranges[unigram->n_nodes++] = (struct range){i, i, range.depth + 1};
            node->n++;
        }
        ranges[unigram->n_nodes - 1].end = i + 1;
    }
}

static int32_t build_trie(struct mmqi_unigram *unigram, const char *name,
                          const struct mmqi_vocab *vocab, const uint8_t *kinds)
{
    struct piece *pieces = mmqi_alloc_array(vocab->n_ids + 1, sizeof *pieces);
    struct range *ranges = NULL;
    size_t n, n_bytes;
    int32_t status = MMQ_ERR_NOMEM;

    if (!pieces)
        goto done;
    status = collect(pieces, &n, &n_bytes, name, vocab, kinds);
    if (status != MMQ_OK)
        goto done;
    ranges = mmqi_alloc_array(n_bytes + 1, sizeof *ranges);
    unigram->nodes = mmqi_calloc(n_bytes + 1, sizeof *unigram->nodes);
    if (!ranges || !unigram->nodes || n_bytes > INT32_MAX) {
        status = MMQ_ERR_NOMEM;
        goto done;
    }
    ranges[0] = (struct range){0, n, 0};
    unigram->n_nodes = 1;
    for (size_t at = 0; at < unigram->n_nodes; at++)
        grow_node(unigram, ranges, pieces, kinds, at);
done:
    mmqi_free(pieces);
    mmqi_free(ranges);
    return status;
}

/* What a character is worth that no piece has. */
static float score_unknown(const struct mmqi_unigram *unigram, const struct mmqi_vocab *vocab,
                           const uint8_t *kinds)
{
    float least = FLT_MAX;

    for (size_t id = 0; id < vocab->n_ids; id++)
        if (kinds[id] == MMQI_PIECE_NORMAL && unigram->scores[id] < least)
            least = unigram->scores[id];
    return least - unk_penalty;
}

int32_t mmqi_unigram_create(struct mmqi_unigram **out, const char *name,
                            const struct mmqi_vocab *vocab, const uint8_t *kinds,
                            const float *scores, int32_t unk, const int32_t *bytes)
{
    struct mmqi_unigram *unigram = mmqi_calloc(1, sizeof *unigram);
    int32_t status = MMQ_ERR_NOMEM;

    *out = NULL;
    if (!unigram)
        goto fail;
    unigram->unk = unk;
    unigram->spells_bytes = bytes != NULL;
    if (bytes)
        memcpy(unigram->bytes, bytes, sizeof unigram->bytes);
    unigram->scores = mmqi_alloc_array(vocab->n_ids + 1, sizeof *scores);
    if (!unigram->scores)
        goto fail;
    memcpy(unigram->scores, scores, vocab->n_ids * sizeof *scores);
    unigram->unk_score = score_unknown(unigram, vocab, kinds);
    status = build_trie(unigram, name, vocab, kinds);
    if (status != MMQ_OK)
        goto fail;
    *out = unigram;
    return MMQ_OK;
fail:
    mmqi_unigram_free(unigram);
    return status == MMQ_ERR_NOMEM
               ? mmqi_fail(MMQ_ERR_NOMEM, "%s: no memory for the vocabulary's pieces", name)
               : status;
}

void mmqi_unigram_widen(struct mmqi_unigram *unigram)
{
    unigram->wide = true;
}

void mmqi_unigram_free(struct mmqi_unigram *unigram)
{
    if (!unigram)
        return;
    mmqi_free(unigram->nodes);
    mmqi_free(unigram->scores);
    mmqi_free(unigram);
}

static const struct node *child_of(const struct mmqi_unigram *unigram, const struct node *node,
                                   unsigned char byte)
{
    const struct node *children = unigram->nodes + node->first;
    size_t low = 0, high = node->n, middle;

    while (low < high) {
        middle = (low + high) / 2;
        if (children[middle].byte == byte)
            return &children[middle];
        if (children[middle].byte < byte)
            low = middle + 1;
        else
            high = middle;
    }
    return NULL;
}

/* ---- one text ---- */

/* A way that ends in the piece `id`; of two with equal scores the first counts. */
static void offer(const struct mmqi_unigram *unigram, struct mmqi_unigram_end *end, int32_t begin,
                  int32_t id, double score)
{
    if (!unigram->wide)
        score = (double)(float)score;
    if (end->begin >= 0 && score <= end->score)
        return;
    *end = (struct mmqi_unigram_end){score, begin, id};
}

/* Every piece that begins at `begin`, where a character of `length` bytes is. */
static void offer_pieces(const struct mmqi_unigram *unigram, struct mmqi_unigram_end *ends,
                         const char *text, size_t size, size_t begin, size_t length)
{
    const struct node *node = unigram->nodes;
    double so_far = ends[begin].score;
    bool single = false;
    size_t at = begin;
    double score;

    while (at < size && (node = child_of(unigram, node, (unsigned char)text[at]))) {
        at++;
        if (node->id < 0)
            continue;
        score = node->kind == MMQI_PIECE_OWN ? (double)(at - begin) * own_bonus - own_bonus
                                             : (double)unigram->scores[node->id];
        offer(unigram, &ends[at], (int32_t)begin, node->id, score + so_far);
        single |= at - begin == length;
    }
    if (!single)
        offer(unigram, &ends[begin + length], (int32_t)begin, unigram->unk,
              (double)unigram->unk_score + so_far);
}

/* From the end back, ids last first. */
static int32_t walk_back(const struct mmqi_unigram *unigram, const struct mmqi_unigram_end *ends,
                         struct mmqi_ids *ids, const char *text, size_t size)
{
    size_t n_before = ids->n, at = size, i;
    int32_t status = MMQ_OK;

    for (; at > 0 && status == MMQ_OK; at = (size_t)ends[at].begin) {
        if (ends[at].id == unigram->unk && unigram->spells_bytes) {
            for (i = at; i-- > (size_t)ends[at].begin && status == MMQ_OK;)
                status = mmqi_ids_append(ids, &unigram->bytes[(unsigned char)text[i]], 1);
            continue;
        }
        if (ends[at].id == unigram->unk && ids->n > n_before &&
            ids->data[ids->n - 1] == unigram->unk)
            continue;
        status = mmqi_ids_append(ids, &ends[at].id, 1);
    }
    return status;
}

static void reverse(int32_t *ids, size_t n)
{
    int32_t swap;

    for (size_t i = 0; i < n / 2; i++) {
        swap = ids[i];
        ids[i] = ids[n - 1 - i];
        ids[n - 1 - i] = swap;
    }
}

int32_t mmqi_unigram_encode(const struct mmqi_unigram *unigram, struct mmqi_unigram_path *path,
                            struct mmqi_ids *ids, const char *text, size_t size)
{
    size_t n_before = ids->n, at, length;
    int32_t status;

    if (size >= path->capacity) {
        mmqi_free(path->ends);
        path->ends = mmqi_alloc_array(size + 1, sizeof *path->ends);
        path->capacity = path->ends ? size + 1 : 0;
        if (!path->ends)
            return mmqi_fail(MMQ_ERR_NOMEM, "tokenizer: no memory for a text of %zu bytes", size);
    }
    for (at = 0; at <= size; at++)
        path->ends[at].begin = -1;
    path->ends[0].score = 0;
    for (at = 0; at < size; at += length) {
        mmqi_utf8_decode(text + at, size - at, &length);
        offer_pieces(unigram, path->ends, text, size, at, length);
    }
    status = walk_back(unigram, path->ends, ids, text, size);
    if (status == MMQ_OK)
        reverse(ids->data + n_before, ids->n - n_before);
    return status;
}

void mmqi_unigram_path_free(struct mmqi_unigram_path *path)
{
    mmqi_free(path->ends);
    memset(path, 0, sizeof *path);
}
