/*
 * Byte-pair encoding of one word: characters become symbols, the pair of
 * neighbours of lowest rank is merged (the leftmost of equals) until no pair
 * has a rank. Both dialects are here: byte-level vocabularies and those made
 * from SentencePiece (byte_fallback, fuse_unk).
 */
#ifndef MMQI_TEXT_BPE_H
#define MMQI_TEXT_BPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "text/tokenizer.h"
#include "text/vocab.h"

enum {
    MMQI_BPE_DIRECT = 0x180, /* code points whose ids are in an array */
    MMQI_BPE_KEPT = 1024,
    MMQI_BPE_NO_UNK = -1,  /* there is no unknown token */
    MMQI_BPE_LOST_UNK = -2 /* one is named but is not in the vocabulary: an error once needed */
};

struct mmqi_bpe {
    struct mmqi_vocab vocab;
    struct mmqi_bpe_pair {
        int32_t left, right; /* left -1: a free slot */
        uint32_t rank;
        int32_t joined; /* the id that the pair becomes */
    } * pairs;
    size_t n_slots, n_pairs; /* n_slots is 0 or a power of two */
    size_t n_ranks;
    int32_t unk; /* MMQI_BPE_NO_UNK: a character without a token vanishes */
    bool byte_fallback, fuse_unk, ignore_merges;
    int32_t direct[MMQI_BPE_DIRECT]; /* id of the character, -1 */
    /* Characters that are no tokens but parts of some: symbols with ids from first_lone on, which
     * become other symbols or, in the end, unknown characters. */
    struct mmqi_vocab lone;
    int32_t first_lone;
    int32_t bytes[256]; /* id of "<0xNN>", -1 */
};

/* The next merge in order of rank. Both tokens and their union must be in the vocabulary. */
int32_t mmqi_bpe_add_merge(struct mmqi_bpe *bpe, const char *name, const char *left,
                           size_t left_size, const char *right, size_t right_size);
/*
 * For vocabularies without a list of merges, where any two tokens may become
 * the one that they spell together, in order of its rank: the merges that
 * come to this. `ranks` and `mergeable` are by id (NULL: all are); tokens that
 * are not mergeable are neither parts nor wholes. The model must be sealed.
 */
int32_t mmqi_bpe_add_wholes(struct mmqi_bpe *bpe, const char *name, const uint32_t *ranks,
                            const uint8_t *mergeable);
/* Once vocabulary and flags are set, before the first word. */
void mmqi_bpe_seal(struct mmqi_bpe *bpe);
void mmqi_bpe_free(struct mmqi_bpe *bpe);

/* Scratch of one caller, zeroed before the first use; it grows to the longest word. */
struct mmqi_bpe_work {
    struct mmqi_symbol *symbols;
    size_t n, capacity;
    struct mmqi_merge_queue *queue;
    struct mmqi_bpe_pair *kept; /* the last answers, MMQI_BPE_KEPT of them */
};

/* Append the ids of one word: valid UTF-8, below 2^31 characters. */
int32_t mmqi_bpe_encode(const struct mmqi_bpe *bpe, struct mmqi_bpe_work *work,
                        struct mmqi_ids *ids, const char *text, size_t size);
void mmqi_bpe_work_free(struct mmqi_bpe_work *work);

#endif
