/*
 * The unigram model of SentencePiece: of all ways to put a text together of
 * pieces, the one whose scores add up to most.
 */
#ifndef MMQI_TEXT_UNIGRAM_H
#define MMQI_TEXT_UNIGRAM_H

#include <stddef.h>
#include <stdint.h>

#include "text/tokenizer.h"

struct mmqi_vocab;
struct mmqi_unigram;

enum {
    MMQI_PIECE_LEFT_OUT = 0, /* never made from text: control, unknown, byte and unused pieces */
    MMQI_PIECE_NORMAL = 1,
    MMQI_PIECE_OWN = 2 /* a user's: chosen wherever its text is */
};

/*
 * Of the vocabulary's pieces, with `kinds` and finite `scores` by id; neither is kept, and the
 * vocabulary is not either. `unk` is the id for characters that no piece has; `bytes` [256], by
 * which such a character is spelled, or NULL for `unk` itself, one for each run of them.
 */
int32_t mmqi_unigram_create(struct mmqi_unigram **out, const char *name,
                            const struct mmqi_vocab *vocab, const uint8_t *kinds,
                            const float *scores, int32_t unk, const int32_t *bytes);
/* Sums of scores are doubles from now on, as those of the tokenizers library are; SentencePiece's
 * own are floats. */
void mmqi_unigram_widen(struct mmqi_unigram *unigram);
void mmqi_unigram_free(struct mmqi_unigram *unigram); /* accepts NULL */

/* Scratch of one caller, zeroed before the first use. */
struct mmqi_unigram_path {
    struct mmqi_unigram_end *ends;
    size_t capacity;
};

/* Append the ids of `text`, valid UTF-8 below 2^31 bytes. */
int32_t mmqi_unigram_encode(const struct mmqi_unigram *unigram, struct mmqi_unigram_path *path,
                            struct mmqi_ids *ids, const char *text, size_t size);
void mmqi_unigram_path_free(struct mmqi_unigram_path *path);

#endif
