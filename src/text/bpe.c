#include "text/bpe.h"

#include <stdlib.h>
#include <string.h>

#include "core/mem.h"
#include "core/status.h"
#include "text/merge_queue.h"
#include "text/utf8.h"

enum { SHORT_WORD = 24 }; /* symbols; longer ones are worth the queue */

static size_t hash_pair(int32_t left, int32_t right)
{
    uint64_t hash = (uint64_t)(uint32_t)left << 32 | (uint32_t)right;

    hash *= UINT64_C(0xD6E8FEB86659FD93);
    hash ^= hash >> 32;
    hash *= UINT64_C(0xD6E8FEB86659FD93);
    return (size_t)(hash >> 32);
}

/* The slot that holds the pair, or the free one where it would go. */
static struct mmqi_bpe_pair *pair_slot(const struct mmqi_bpe *bpe, int32_t left, int32_t right)
{
    size_t at = hash_pair(left, right) & (bpe->n_slots - 1);

    while (bpe->pairs[at].left >= 0 &&
           (bpe->pairs[at].left != left || bpe->pairs[at].right != right))
        at = (at + 1) & (bpe->n_slots - 1);
    return &bpe->pairs[at];
}

/* The slot for a new pair or the one it has already; NULL when its chain is too long. */
static struct mmqi_bpe_pair *bounded_slot(const struct mmqi_bpe *bpe, int32_t left, int32_t right)
{
    size_t first = hash_pair(left, right) & (bpe->n_slots - 1);
    struct mmqi_bpe_pair *slot = pair_slot(bpe, left, right);
    size_t chain = ((size_t)(slot - bpe->pairs) - first) & (bpe->n_slots - 1);

    return chain < MMQI_MAX_CHAIN ? slot : NULL;
}

static int32_t grow_pairs(struct mmqi_bpe *bpe, const char *name)
{
    struct mmqi_bpe_pair *before = bpe->pairs, *slot;
    size_t n_before = bpe->n_slots, i;
    int32_t status = MMQ_OK;

    bpe->n_slots = n_before ? n_before * 2 : 1024;
    bpe->pairs = mmqi_alloc_array(bpe->n_slots, sizeof *bpe->pairs);
    if (!bpe->pairs) {
        bpe->pairs = before;
        bpe->n_slots = n_before;
        return mmqi_fail(MMQ_ERR_NOMEM, "%s: no memory for the merges", name);
    }
    for (i = 0; i < bpe->n_slots; i++)
        bpe->pairs[i].left = -1;
    for (i = 0; i < n_before && status == MMQ_OK; i++) {
        if (before[i].left < 0)
            continue;
        slot = bounded_slot(bpe, before[i].left, before[i].right);
        if (slot)
            *slot = before[i];
        else
            status = mmqi_fail(MMQ_ERR_LIMIT, "%s: the merges collide", name);
    }
    mmqi_free(before);
    return status;
}

/* The id of left + right, -1 if the vocabulary lacks it. */
static int32_t find_union(const struct mmqi_bpe *bpe, const char *left, size_t left_size,
                          const char *right, size_t right_size, bool *no_memory)
{
    char small[128], *text = small;
    int32_t id;

    if (left_size + right_size > sizeof small) {
        text = mmqi_alloc(left_size + right_size);
        *no_memory = !text;
        if (!text)
            return -1;
    }
    memcpy(text, left, left_size);
    memcpy(text + left_size, right, right_size);
    id = mmqi_vocab_find(&bpe->vocab, text, left_size + right_size);
    if (text != small)
        mmqi_free(text);
    return id;
}

static int32_t add_pair(struct mmqi_bpe *bpe, const char *name, int32_t left, int32_t right,
                        int32_t joined, uint32_t rank)
{
    struct mmqi_bpe_pair *slot;
    int32_t status = MMQ_OK;

    if (rank > MMQI_MAX_ID)
        return mmqi_fail(MMQ_ERR_LIMIT, "%s: more than %d merges", name, MMQI_MAX_ID);
    if ((bpe->n_pairs + 1) * 2 > bpe->n_slots)
        status = grow_pairs(bpe, name);
    if (status != MMQ_OK)
        return status;
    slot = bounded_slot(bpe, left, right);
    if (!slot)
        return mmqi_fail(MMQ_ERR_LIMIT, "%s: the merges collide", name);
    bpe->n_pairs += slot->left < 0;
    *slot = (struct mmqi_bpe_pair){left, right, rank, joined}; /* of two the last counts */
    if (rank >= bpe->n_ranks)
        bpe->n_ranks = (size_t)rank + 1;
    return MMQ_OK;
}

int32_t mmqi_bpe_add_merge(struct mmqi_bpe *bpe, const char *name, const char *left,
                           size_t left_size, const char *right, size_t right_size)
{
    int32_t left_id = mmqi_vocab_find(&bpe->vocab, left, left_size);
    int32_t right_id = mmqi_vocab_find(&bpe->vocab, right, right_size), id;
    bool no_memory = false;

    if (left_id < 0 || right_id < 0)
        return mmqi_fail(MMQ_ERR_FORMAT, "%s: merge %zu: '%.*s' is not in the vocabulary", name,
                         bpe->n_ranks, (int)(left_id < 0 ? left_size : right_size),
                         left_id < 0 ? left : right);
    id = find_union(bpe, left, left_size, right, right_size, &no_memory);
    if (no_memory)
        return mmqi_fail(MMQ_ERR_NOMEM, "%s: no memory for merge %zu", name, bpe->n_ranks);
    if (id < 0)
        return mmqi_fail(MMQ_ERR_FORMAT, "%s: merge %zu: '%.*s%.*s' is not in the vocabulary", name,
                         bpe->n_ranks, (int)left_size, left, (int)right_size, right);
    return add_pair(bpe, name, left_id, right_id, id, (uint32_t)bpe->n_ranks);
}

/* The id of a character's symbol, by its text. */
static int32_t look_up(const struct mmqi_bpe *bpe, const char *text, size_t size)
{
    int32_t id = mmqi_vocab_find(&bpe->vocab, text, size);

    if (id >= 0 || bpe->lone.n_ids == 0)
        return id;
    id = mmqi_vocab_find(&bpe->lone, text, size);
    return id < 0 ? -1 : bpe->first_lone + id;
}

void mmqi_bpe_seal(struct mmqi_bpe *bpe)
{
    static const char digits[] = "0123456789ABCDEF";
    char text[4], byte[] = "<0x00>";
    int32_t code;
    int i;

    for (code = 0; code < MMQI_BPE_DIRECT; code++)
        bpe->direct[code] = look_up(bpe, text, mmqi_utf8_encode(text, code));
    for (i = 0; i < 256; i++) {
        byte[3] = digits[i >> 4];
        byte[4] = digits[i & 15];
        bpe->bytes[i] = mmqi_vocab_find(&bpe->vocab, byte, 6);
    }
}

void mmqi_bpe_free(struct mmqi_bpe *bpe)
{
    mmqi_vocab_free(&bpe->vocab);
    mmqi_vocab_free(&bpe->lone);
    mmqi_free(bpe->pairs);
    memset(bpe, 0, sizeof *bpe);
}

/* ---- one word ---- */

static void add_symbol(struct mmqi_bpe_work *work, int32_t id)
{
    struct mmqi_symbol *symbol = &work->symbols[work->n];

    symbol->id = id;
    symbol->previous = (int32_t)work->n - 1;
    symbol->next = (int32_t)work->n + 1;
    symbol->rank = MMQI_NO_RANK;
    work->n++;
}

/* Is there a token for each byte of a character that has none? */
static bool has_bytes(const struct mmqi_bpe *bpe, const char *text, size_t size)
{
    for (size_t i = 0; i < size; i++)
        if (bpe->bytes[(unsigned char)text[i]] < 0)
            return false;
    return bpe->byte_fallback;
}

/* The id of a character's symbol, -1 when it has none. */
static int32_t find_character(const struct mmqi_bpe *bpe, int32_t code, const char *text,
                              size_t size)
{
    return code >= 0 && code < MMQI_BPE_DIRECT ? bpe->direct[code] : look_up(bpe, text, size);
}

/*
 * One symbol per character. An unknown one waits in `pending` so that its
 * neighbours may join it; a character that falls back to bytes does not send
 * it off (so unknown characters can come out after later bytes, as they do
 * in the tokenizers library).
 */
static int32_t split_word(const struct mmqi_bpe *bpe, struct mmqi_bpe_work *work, const char *text,
                          size_t size)
{
    bool pending = false;
    size_t at, length, i;
    int32_t code, id;

    work->n = 0;
    for (at = 0; at < size; at += length) {
        code = mmqi_utf8_decode(text + at, size - at, &length);
        id = find_character(bpe, code, text + at, length);
        if (id < 0 && has_bytes(bpe, text + at, length)) {
            for (i = 0; i < length; i++)
                add_symbol(work, bpe->bytes[(unsigned char)text[at + i]]);
            continue;
        }
        if (id < 0 && bpe->unk == MMQI_BPE_NO_UNK)
            continue;
        if (id < 0 && bpe->unk == MMQI_BPE_LOST_UNK)
            return mmqi_fail(MMQ_ERR_FORMAT,
                             "tokenizer: '%.*s' needs the unknown token, which is "
                             "not in the vocabulary",
                             (int)length, text + at);
        if (pending && (id >= 0 || !bpe->fuse_unk))
            add_symbol(work, bpe->unk);
        pending = id < 0;
        if (id >= 0)
            add_symbol(work, id);
    }
    if (pending)
        add_symbol(work, bpe->unk);
    if (work->n > 0)
        work->symbols[work->n - 1].next = -1;
    return MMQ_OK;
}

/* The merge of two ids; its rank is MMQI_NO_RANK where there is none. Short words ask for the same
 * few pairs over and over, and the table is larger than what is near: the last answers are kept. */
static const struct mmqi_bpe_pair *
find_merge(const struct mmqi_bpe *bpe, struct mmqi_bpe_work *work, int32_t left, int32_t right)
{
    struct mmqi_bpe_pair *kept = &work->kept[hash_pair(left, right) % MMQI_BPE_KEPT];

    if (kept->left == left && kept->right == right)
        return kept;
    *kept = *pair_slot(bpe, left, right);
    if (kept->left < 0)
        *kept = (struct mmqi_bpe_pair){left, right, MMQI_NO_RANK, -1};
    return kept;
}

/* Look the pair at `at` up again and let it wait if it has a rank. */
static bool requeue(const struct mmqi_bpe *bpe, struct mmqi_bpe_work *work, int32_t at)
{
    struct mmqi_symbol *symbols = work->symbols;
    const struct mmqi_bpe_pair *pair;

    mmqi_merge_queue_drop(work->queue, symbols, at);
    if (symbols[at].next < 0)
        return true;
    pair = pair_slot(bpe, symbols[at].id, symbols[symbols[at].next].id);
    if (pair->left < 0)
        return true;
    symbols[at].joined = pair->joined;
    return mmqi_merge_queue_put(work->queue, symbols, at, pair->rank);
}

/* Join the symbol at `at` with the one on its right. */
static bool merge_at(const struct mmqi_bpe *bpe, struct mmqi_bpe_work *work, int32_t at)
{
    struct mmqi_symbol *symbols = work->symbols;
    int32_t right = symbols[at].next;

    mmqi_merge_queue_drop(work->queue, symbols, right);
    symbols[at].id = symbols[at].joined;
    symbols[at].next = symbols[right].next;
    if (symbols[at].next >= 0)
        symbols[symbols[at].next].previous = at;
    symbols[right].id = -1;
    return (symbols[at].previous < 0 || requeue(bpe, work, symbols[at].previous)) &&
           requeue(bpe, work, at);
}

/* A word of few symbols: the lowest rank is looked for among all. */
static void merge_short(const struct mmqi_bpe *bpe, struct mmqi_bpe_work *work)
{
    struct mmqi_symbol *symbols = work->symbols;
    struct mmqi_bpe_pair found[SHORT_WORD]; /* of symbol i and the next one */
    size_t n = work->n, i, best;

    for (i = 0; i + 1 < n; i++)
        found[i] = *find_merge(bpe, work, symbols[i].id, symbols[i + 1].id);
    while (n > 1) {
        for (best = 0, i = 1; i + 1 < n; i++)
            best = found[i].rank < found[best].rank ? i : best;
        if (found[best].rank == MMQI_NO_RANK)
            break;
        symbols[best].id = found[best].joined;
        n--;
        for (i = best + 1; i < n; i++) {
            symbols[i].id = symbols[i + 1].id;
            found[i - 1] = found[i];
        }
        if (best > 0)
            found[best - 1] = *find_merge(bpe, work, symbols[best - 1].id, symbols[best].id);
        if (best + 1 < n)
            found[best] = *find_merge(bpe, work, symbols[best].id, symbols[best + 1].id);
    }
    symbols[n - 1].next = -1;
}

static int32_t merge_word(const struct mmqi_bpe *bpe, struct mmqi_bpe_work *work)
{
    uint32_t rank;
    size_t i;
    int32_t at;

    if (!work->kept) {
        work->kept = mmqi_alloc_array(MMQI_BPE_KEPT, sizeof *work->kept);
        for (i = 0; work->kept && i < MMQI_BPE_KEPT; i++)
            work->kept[i].left = -1;
    }
    if (!work->kept)
        goto no_memory;
    if (work->n <= SHORT_WORD) {
        merge_short(bpe, work);
        return MMQ_OK;
    }
    if (!work->queue)
        work->queue = mmqi_merge_queue_create(bpe->n_ranks);
    if (!work->queue)
        goto no_memory;
    for (i = 0; i + 1 < work->n; i++)
        if (!requeue(bpe, work, (int32_t)i))
            goto no_memory;
    while ((at = mmqi_merge_queue_take(work->queue, work->symbols, &rank)) >= 0)
        if (!merge_at(bpe, work, at))
            goto no_memory;
    return MMQ_OK;
no_memory:
    return mmqi_fail(MMQ_ERR_NOMEM, "tokenizer: no memory for a word of %zu symbols", work->n);
}

/* Room for the symbols of a word: one per byte where bytes are tokens, else one per character. */
static int32_t reserve_symbols(const struct mmqi_bpe *bpe, struct mmqi_bpe_work *work,
                               const char *text, size_t size)
{
    size_t capacity = work->capacity ? work->capacity : 256, n = size, i;

    if (size < work->capacity)
        return MMQ_OK;
    for (i = 0; i < size && !bpe->byte_fallback; i++)
        n -= ((unsigned char)text[i] & 0xC0) == 0x80;
    if (n < work->capacity)
        return MMQ_OK;
    while (capacity <= n)
        capacity *= 2;
    mmqi_free(work->symbols);
    work->symbols = mmqi_alloc_array(capacity, sizeof *work->symbols);
    work->capacity = work->symbols ? capacity : 0;
    return work->symbols
               ? MMQ_OK
               : mmqi_fail(MMQ_ERR_NOMEM, "tokenizer: no memory for a word of %zu bytes", size);
}

/* The symbols that a word becomes: a list from symbols[0] on, unless work->n is 0. */
static int32_t make_symbols(const struct mmqi_bpe *bpe, struct mmqi_bpe_work *work,
                            const char *text, size_t size)
{
    int32_t status = reserve_symbols(bpe, work, text, size);

    if (status == MMQ_OK)
        status = split_word(bpe, work, text, size);
    return status == MMQ_OK && work->n > 1 && bpe->n_pairs > 0 ? merge_word(bpe, work) : status;
}

/* A character that became part of nothing: bytes, or the unknown token, one for a run of them. */
static int32_t append_lone(const struct mmqi_bpe *bpe, struct mmqi_ids *ids, int32_t id, bool first)
{
    size_t size = 0, i;
    const char *text = mmqi_vocab_text(&bpe->lone, id - bpe->first_lone, &size);
    int32_t status = MMQ_OK;

    if (has_bytes(bpe, text, size)) {
        for (i = 0; i < size && status == MMQ_OK; i++)
            status = mmqi_ids_append(ids, &bpe->bytes[(unsigned char)text[i]], 1);
        return status;
    }
    if (bpe->unk < 0 || (!first && ids->data[ids->n - 1] == bpe->unk))
        return MMQ_OK;
    return mmqi_ids_append(ids, &bpe->unk, 1);
}

/* The same with lone characters among the symbols. */
static int32_t append_with_lone(const struct mmqi_bpe *bpe, const struct mmqi_bpe_work *work,
                                struct mmqi_ids *ids)
{
    size_t n_before = ids->n;
    int32_t status = MMQ_OK, at, id;
    bool first;

    for (at = 0; at >= 0 && status == MMQ_OK; at = work->symbols[at].next) {
        id = work->symbols[at].id;
        first = ids->n == n_before;
        if (id >= bpe->first_lone)
            status = append_lone(bpe, ids, id, first);
        else if (first || id != bpe->unk || ids->data[ids->n - 1] != id)
            status = mmqi_ids_append(ids, &id, 1);
    }
    return status;
}

int32_t mmqi_bpe_encode(const struct mmqi_bpe *bpe, struct mmqi_bpe_work *work,
                        struct mmqi_ids *ids, const char *text, size_t size)
{
    int32_t id, status, at;

    if (bpe->ignore_merges) {
        id = mmqi_vocab_find(&bpe->vocab, text, size);
        if (id >= 0)
            return mmqi_ids_append(ids, &id, 1);
    }
    status = make_symbols(bpe, work, text, size);
    if (status != MMQ_OK || work->n == 0)
        return status;
    if (bpe->lone.n_ids > 0)
        return append_with_lone(bpe, work, ids);
    for (at = 0; at >= 0 && status == MMQ_OK; at = work->symbols[at].next)
        status = mmqi_ids_append(ids, &work->symbols[at].id, 1);
    return status;
}

/* ---- merges that a vocabulary implies ---- */

/* A token that waits for its turn. */
struct whole {
    size_t size;
    int32_t id;
};

static int compare_wholes(const void *a, const void *b)
{
    const struct whole *x = a, *y = b;

    if (x->size != y->size)
        return x->size < y->size ? -1 : 1;
    return x->id < y->id ? -1 : x->id > y->id;
}

/* Mergeable tokens, the shorter ones first; *n of them. */
static struct whole *sort_wholes(const struct mmqi_bpe *bpe, const uint8_t *mergeable, size_t *n)
{
    struct whole *wholes = mmqi_alloc_array(bpe->vocab.n_ids + 1, sizeof *wholes);

    *n = 0;
    for (size_t id = 0; wholes && id < bpe->vocab.n_ids; id++) {
        if (mergeable && !mergeable[id])
            continue;
        wholes[*n].id = (int32_t)id;
        if (mmqi_vocab_text(&bpe->vocab, (int32_t)id, &wholes[*n].size))
            ++*n;
    }
    if (wholes)
        qsort(wholes, *n, sizeof *wholes, compare_wholes);
    return wholes;
}

/*
 * What is merged inside of a token does not depend on what is around it, as
 * long as nothing is merged across its ends. So there is one pair that can
 * become it: what the merges of shorter tokens leave of its text. If they
 * leave more than two, nothing ever becomes it.
 */
static int32_t add_whole(struct mmqi_bpe *bpe, const char *name, struct mmqi_bpe_work *work,
                         int32_t id, uint32_t rank, const uint8_t *mergeable)
{
    size_t size = 0;
    const char *text = mmqi_vocab_text(&bpe->vocab, id, &size);
    int32_t status = make_symbols(bpe, work, text, size), parts[2], at;

    if (status != MMQ_OK || work->n < 2)
        return status;
    at = work->symbols[0].next;
    if (at < 0 || work->symbols[at].next >= 0)
        return MMQ_OK;
    parts[0] = work->symbols[0].id;
    parts[1] = work->symbols[at].id;
    for (int i = 0; i < 2; i++)
        if (mergeable && parts[i] < bpe->first_lone && !mergeable[parts[i]])
            return MMQ_OK;
    if (work->kept) /* what it knows of this pair is no longer so */
        work->kept[hash_pair(parts[0], parts[1]) % MMQI_BPE_KEPT].left = -1;
    return add_pair(bpe, name, parts[0], parts[1], id, rank);
}

/* The characters of a token that have no symbol yet. */
static int32_t add_lone(struct mmqi_bpe *bpe, const char *name, int32_t whole)
{
    size_t size = 0, at, length;
    const char *text = mmqi_vocab_text(&bpe->vocab, whole, &size);
    int32_t status = MMQ_OK, code, id;

    for (at = 0; at < size && status == MMQ_OK; at += length) {
        code = mmqi_utf8_decode(text + at, size - at, &length);
        if (find_character(bpe, code, text + at, length) >= 0)
            continue;
        id = (int32_t)bpe->lone.n_ids;
        status = mmqi_vocab_add(&bpe->lone, name, "characters", text + at, length, id);
        if (code >= 0 && code < MMQI_BPE_DIRECT)
            bpe->direct[code] = bpe->first_lone + id;
    }
    return status;
}

int32_t mmqi_bpe_add_wholes(struct mmqi_bpe *bpe, const char *name, const uint32_t *ranks,
                            const uint8_t *mergeable)
{
    struct mmqi_bpe_work work = {0};
    int32_t status = MMQ_OK;
    size_t n, i;
    struct whole *wholes = sort_wholes(bpe, mergeable, &n);

    if (!wholes)
        return mmqi_fail(MMQ_ERR_NOMEM, "%s: no memory for the merges", name);
    for (i = 0; i < n; i++) /* the queue of the work is made for all ranks */
        if (ranks[wholes[i].id] >= bpe->n_ranks)
            bpe->n_ranks = (size_t)ranks[wholes[i].id] + 1;
    bpe->first_lone = (int32_t)bpe->vocab.n_ids;
    for (i = 0; i < n && status == MMQ_OK; i++)
        status = add_lone(bpe, name, wholes[i].id);
    for (i = 0; i < n && status == MMQ_OK; i++)
        status = add_whole(bpe, name, &work, wholes[i].id, ranks[wholes[i].id], mergeable);
    mmqi_bpe_work_free(&work);
    mmqi_free(wholes);
    return status;
}

void mmqi_bpe_work_free(struct mmqi_bpe_work *work)
{
    mmqi_free(work->symbols);
    mmqi_merge_queue_free(work->queue);
    mmqi_free(work->kept);
    memset(work, 0, sizeof *work);
}
