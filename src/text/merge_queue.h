/*
 * The pairs of a word that may be merged, taken in order of rank, then of
 * position.
 *
 * One list of symbols per rank: in a long word the pairs of one rank mostly
 * arrive from left to right, so putting one in and taking one out cost a few
 * steps however many wait. A pair that arrives out of order goes to a heap.
 */
#ifndef MMQI_TEXT_MERGE_QUEUE_H
#define MMQI_TEXT_MERGE_QUEUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MMQI_NO_RANK UINT32_MAX

/* A symbol of the word; the pair it forms with the next one waits under `rank`. */
struct mmqi_symbol {
    int32_t id;             /* -1: merged into the symbol on its left */
    int32_t previous, next; /* neighbours in the word, -1 at its ends */
    uint32_t rank;          /* MMQI_NO_RANK: the pair is not waiting */
    int32_t before, after;  /* neighbours in the list of the rank, -1 at its ends */
    int32_t joined;         /* the id that the pair becomes; the queue's user keeps it */
};

struct mmqi_merge_queue;

/* NULL when there is no memory. */
struct mmqi_merge_queue *mmqi_merge_queue_create(size_t n_ranks);
void mmqi_merge_queue_free(struct mmqi_merge_queue *queue); /* accepts NULL */

/* False when there is no memory; the queue is then good for mmqi_merge_queue_free() alone. */
bool mmqi_merge_queue_put(struct mmqi_merge_queue *queue, struct mmqi_symbol *symbols, int32_t at,
                          uint32_t rank);
/* Take the pair at `at` out if it waits. */
void mmqi_merge_queue_drop(struct mmqi_merge_queue *queue, struct mmqi_symbol *symbols, int32_t at);
/* Position of the next pair, taken out; its rank in *rank. -1 when none waits. */
int32_t mmqi_merge_queue_take(struct mmqi_merge_queue *queue, struct mmqi_symbol *symbols,
                              uint32_t *rank);

#endif
