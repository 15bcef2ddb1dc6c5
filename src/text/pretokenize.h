/*
 * Pre-tokenizers: each cuts every piece of a text further; the pieces are
 * the words that the model then encodes one by one.
 */
#ifndef MMQI_TEXT_PRETOKENIZE_H
#define MMQI_TEXT_PRETOKENIZE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/buf.h"

/* Piece i is text[ends[i-1], ends[i]), the first one from 0; none is empty. */
struct mmqi_pieces {
    struct mmqi_buf text;
    size_t *ends;
    size_t n, capacity;
    bool begins; /* the first piece is the beginning of all that is encoded */
    bool failed; /* no memory: the pieces are good for nothing */
    bool slow;   /* neither are they here: a pattern went over the text too often */
};

/* Empty it but keep its memory. */
void mmqi_pieces_clear(struct mmqi_pieces *pieces);
/* End a piece where the text ends now, unless it would be empty. */
void mmqi_pieces_cut(struct mmqi_pieces *pieces);
bool mmqi_pieces_failed(const struct mmqi_pieces *pieces);
void mmqi_pieces_free(struct mmqi_pieces *pieces);

/*
 * Bytes at the start of `text` (UTF-8, not empty) that GPT-2's pattern takes:
 * 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
 */
size_t mmqi_gpt2_word(const char *text, size_t size);

/*
 * The byte-level alphabet: each byte as a printable character. Bytes that
 * are printable Latin-1 stand for themselves; the others, in order, are the
 * characters from U+0100 on.
 */
int32_t mmqi_byte_to_letter(unsigned char byte);
int32_t mmqi_letter_to_byte(int32_t code); /* -1: not in the alphabet */

#endif
