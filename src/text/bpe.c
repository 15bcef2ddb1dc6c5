#include "text/bpe.h"

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

int32_t mmqi_bpe_add_pair(struct mmqi_bpe *bpe, const char *name, int32_t left, int32_t right,
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

int32_t mmqi_bpe_add_splits(struct mmqi_bpe *bpe, const char *name, int32_t id, uint32_t rank,
                            const uint8_t *mergeable)
{
    const char *text;
    size_t size = 0, at, length;
    int32_t left, right, status = MMQ_OK;

    if (mergeable && !mergeable[id])
        return MMQ_OK;
    text = mmqi_vocab_text(&bpe->vocab, id, &size);
    bpe->split_work += (uint64_t)size * size;
    if (bpe->split_work > MMQI_MAX_SPLIT_WORK)
        return mmqi_fail(MMQ_ERR_LIMIT, "%s: the tokens up to %d are too long", name, (int)id);
    mmqi_utf8_decode(text, size, &length);
    for (at = length; at < size && status == MMQ_OK; at += length) {
        mmqi_utf8_decode(text + at, size - at, &length);
        left = mmqi_vocab_find(&bpe->vocab, text, at);
        right = left < 0 ? -1 : mmqi_vocab_find(&bpe->vocab, text + at, size - at);
        if (right >= 0 && (!mergeable || (mergeable[left] && mergeable[right])))
            status = mmqi_bpe_add_pair(bpe, name, left, right, id, rank);
    }
    return status;
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
    return mmqi_bpe_add_pair(bpe, name, left_id, right_id, id, (uint32_t)bpe->n_ranks);
}

void mmqi_bpe_seal(struct mmqi_bpe *bpe)
{
    static const char digits[] = "0123456789ABCDEF";
    char text[4], byte[] = "<0x00>";
    int32_t code;
    int i;

    for (code = 0; code < MMQI_BPE_DIRECT; code++)
        bpe->direct[code] = mmqi_vocab_find(&bpe->vocab, text, mmqi_utf8_encode(text, code));
    for (i = 0; i < 256; i++) {
        byte[3] = digits[i >> 4];
        byte[4] = digits[i & 15];
        bpe->bytes[i] = mmqi_vocab_find(&bpe->vocab, byte, 6);
    }
}

void mmqi_bpe_free(struct mmqi_bpe *bpe)
{
    mmqi_vocab_free(&bpe->vocab);
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

/* The bytes of a character that has no token, as byte tokens; false unless there are all of them.
 */
static bool add_bytes(const struct mmqi_bpe *bpe, struct mmqi_bpe_work *work, const char *text,
                      size_t size)
{
    size_t i;

    for (i = 0; i < size; i++)
        if (bpe->bytes[(unsigned char)text[i]] < 0)
            return false;
    for (i = 0; i < size; i++)
        add_symbol(work, bpe->bytes[(unsigned char)text[i]]);
    return true;
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
    size_t at, length;
    int32_t code, id;

    work->n = 0;
    for (at = 0; at < size; at += length) {
        code = mmqi_utf8_decode(text + at, size - at, &length);
        id = code >= 0 && code < MMQI_BPE_DIRECT ? bpe->direct[code]
                                                 : mmqi_vocab_find(&bpe->vocab, text + at, length);
        if (id < 0 && bpe->byte_fallback && add_bytes(bpe, work, text + at, length))
            continue;
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
static const struct mmqi_bpe_pair *look_up(const struct mmqi_bpe *bpe, struct mmqi_bpe_work *work,
                                           int32_t left, int32_t right)
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
        found[i] = *look_up(bpe, work, symbols[i].id, symbols[i + 1].id);
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
            found[best - 1] = *look_up(bpe, work, symbols[best - 1].id, symbols[best].id);
        if (best + 1 < n)
            found[best] = *look_up(bpe, work, symbols[best].id, symbols[best + 1].id);
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

int32_t mmqi_bpe_encode(const struct mmqi_bpe *bpe, struct mmqi_bpe_work *work,
                        struct mmqi_ids *ids, const char *text, size_t size)
{
    int32_t id, status, at;

    if (bpe->ignore_merges) {
        id = mmqi_vocab_find(&bpe->vocab, text, size);
        if (id >= 0)
            return mmqi_ids_append(ids, &id, 1);
    }
    status = reserve_symbols(bpe, work, text, size);
    if (status != MMQ_OK)
        return status;
    status = split_word(bpe, work, text, size);
    if (status != MMQ_OK || work->n == 0)
        return status;
    if (work->n > 1 && bpe->n_pairs > 0)
        status = merge_word(bpe, work);
    for (at = 0; at >= 0 && status == MMQ_OK; at = work->symbols[at].next)
        status = mmqi_ids_append(ids, &work->symbols[at].id, 1);
    return status;
}

void mmqi_bpe_work_free(struct mmqi_bpe_work *work)
{
    mmqi_free(work->symbols);
    mmqi_merge_queue_free(work->queue);
    mmqi_free(work->kept);
    memset(work, 0, sizeof *work);
}
