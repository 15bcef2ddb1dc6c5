#include "text/merge_queue.h"

#include "core/mem.h"

enum {
    LEVELS = 3,  /* bits of the ranks, bits of their words, bits of those */
    IN_HEAP = -2 /* in mmqi_symbol.before */
};

struct mmqi_merge_queue {
    struct list {
        int32_t first, last; /* meaningful while the rank's bit is set */
    } * lists;
    uint64_t *bits[LEVELS]; /* bits[0]: ranks with a list; bits[k+1]: words of bits[k] not zero */
    size_t n_top;           /* words of the highest level */
    uint64_t *heap;         /* rank << 32 | position, least first; an entry may be out of date */
    size_t n_heap, heap_capacity;
};

struct mmqi_merge_queue *mmqi_merge_queue_create(size_t n_ranks)
{
    struct mmqi_merge_queue *queue = mmqi_calloc(1, sizeof *queue);
    size_t words = n_ranks + 1;
    int level;

    if (!queue)
        return NULL;
    queue->lists = mmqi_alloc_array(n_ranks + 1, sizeof *queue->lists);
    if (!queue->lists)
        goto fail;
    for (level = 0; level < LEVELS; level++) {
        words = (words + 63) / 64;
        queue->bits[level] = mmqi_calloc(words, sizeof **queue->bits);
        if (!queue->bits[level])
            goto fail;
    }
    queue->n_top = words;
    return queue;
fail:
    mmqi_merge_queue_free(queue);
    return NULL;
}

void mmqi_merge_queue_free(struct mmqi_merge_queue *queue)
{
    int level;

    if (!queue)
        return;
    for (level = 0; level < LEVELS; level++)
        mmqi_free(queue->bits[level]);
    mmqi_free(queue->lists);
    mmqi_free(queue->heap);
    mmqi_free(queue);
}

static bool has_list(const struct mmqi_merge_queue *queue, uint32_t rank)
{
    return queue->bits[0][rank / 64] >> (rank % 64) & 1;
}

static void mark_list(struct mmqi_merge_queue *queue, size_t rank)
{
    int level;

    for (level = 0; level < LEVELS; level++, rank /= 64)
        queue->bits[level][rank / 64] |= UINT64_C(1) << (rank % 64);
}

static void unmark_list(struct mmqi_merge_queue *queue, size_t rank)
{
    int level;

    for (level = 0; level < LEVELS; level++, rank /= 64) {
        queue->bits[level][rank / 64] &= ~(UINT64_C(1) << (rank % 64));
        if (queue->bits[level][rank / 64])
            return;
    }
}

/* The lowest rank that has a list; MMQI_NO_RANK when none has. */
static uint32_t lowest_rank(const struct mmqi_merge_queue *queue)
{
    size_t word = 0;
    int level;

    while (word < queue->n_top && queue->bits[LEVELS - 1][word] == 0)
        word++;
    if (word == queue->n_top)
        return MMQI_NO_RANK;
    for (level = LEVELS - 1; level >= 0; level--)
        word = word * 64 + (size_t)__builtin_ctzll(queue->bits[level][word]);
    return (uint32_t)word;
}

static bool heap_push(struct mmqi_merge_queue *queue, uint64_t entry)
{
    size_t capacity, at;
    uint64_t *heap;

    if (queue->n_heap == queue->heap_capacity) {
        capacity = queue->heap_capacity ? queue->heap_capacity * 2 : 64;
        heap = mmqi_realloc_array(queue->heap, capacity, sizeof *heap);
        if (!heap)
            return false;
        queue->heap = heap;
        queue->heap_capacity = capacity;
    }
    for (at = queue->n_heap++; at > 0 && queue->heap[(at - 1) / 4] > entry; at = (at - 1) / 4)
        queue->heap[at] = queue->heap[(at - 1) / 4];
    queue->heap[at] = entry;
    return true;
}

static void heap_pop(struct mmqi_merge_queue *queue)
{
    uint64_t entry = queue->heap[--queue->n_heap];
    size_t at = 0, child, end, least;

    for (;;) {
        child = at * 4 + 1;
        if (child >= queue->n_heap)
            break;
        end = child + 4 < queue->n_heap ? child + 4 : queue->n_heap;
        for (least = child; child < end; child++)
            if (queue->heap[child] < queue->heap[least])
                least = child;
        if (queue->heap[least] >= entry)
            break;
        queue->heap[at] = queue->heap[least];
        at = least;
    }
    if (queue->n_heap > 0)
        queue->heap[at] = entry;
}

bool mmqi_merge_queue_put(struct mmqi_merge_queue *queue, struct mmqi_symbol *symbols, int32_t at,
                          uint32_t rank)
{
    struct list *list = &queue->lists[rank];

    symbols[at].rank = rank;
    symbols[at].after = -1;
    if (!has_list(queue, rank)) {
        symbols[at].before = -1;
        list->first = list->last = at;
        mark_list(queue, rank);
        return true;
    }
    if (at < list->last) {
        symbols[at].before = IN_HEAP;
        return heap_push(queue, (uint64_t)rank << 32 | (uint32_t)at);
    }
    symbols[at].before = list->last;
    symbols[list->last].after = at;
    list->last = at;
    return true;
}

void mmqi_merge_queue_drop(struct mmqi_merge_queue *queue, struct mmqi_symbol *symbols, int32_t at)
{
    struct mmqi_symbol *symbol = &symbols[at];
    struct list *list;

    if (symbol->rank == MMQI_NO_RANK)
        return;
    list = &queue->lists[symbol->rank];
    if (symbol->before != IN_HEAP) {
        if (symbol->before >= 0)
            symbols[symbol->before].after = symbol->after;
        else
            list->first = symbol->after;
        if (symbol->after >= 0)
            symbols[symbol->after].before = symbol->before;
        else
            list->last = symbol->before;
        if (list->first < 0)
            unmark_list(queue, symbol->rank);
    }
    symbol->rank = MMQI_NO_RANK;
}

/* Whether the top of the heap no longer says what waits. */
static bool heap_top_is_stale(const struct mmqi_merge_queue *queue,
                              const struct mmqi_symbol *symbols)
{
    const struct mmqi_symbol *symbol = &symbols[(uint32_t)queue->heap[0]];

    return symbol->before != IN_HEAP || symbol->rank != queue->heap[0] >> 32;
}

int32_t mmqi_merge_queue_take(struct mmqi_merge_queue *queue, struct mmqi_symbol *symbols,
                              uint32_t *rank)
{
    uint64_t best = UINT64_MAX;
    int32_t at;

    *rank = lowest_rank(queue);
    if (*rank != MMQI_NO_RANK)
        best = (uint64_t)*rank << 32 | (uint32_t)queue->lists[*rank].first;
    while (queue->n_heap > 0 && heap_top_is_stale(queue, symbols))
        heap_pop(queue);
    if (queue->n_heap > 0 && queue->heap[0] < best) {
        best = queue->heap[0];
        heap_pop(queue);
    }
    if (best == UINT64_MAX)
        return -1;
    *rank = (uint32_t)(best >> 32);
    at = (int32_t)(uint32_t)best;
    mmqi_merge_queue_drop(queue, symbols, at);
    return at;
}
