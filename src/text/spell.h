/*
 * SentencePiece's normalizer: rules that rewrite characters, white space
 * that is trimmed and made visible, a mark before the text.
 *
 * The rules come compiled, as a trie in the form of Darts (a double array)
 * over what is replaced, and one text that holds the replacements, each up
 * to a zero byte:
 *   byte 0..3   size of the trie in bytes, little-endian
 *   then        the trie's units, 4 bytes each
 *   then        the replacements
 */
#ifndef MMQI_TEXT_SPELL_H
#define MMQI_TEXT_SPELL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/buf.h"

struct mmqi_spell;
struct mmqi_stage_kind;

struct mmqi_spell_options {
    bool dummy_prefix;        /* a space before the text */
    bool remove_extra_spaces; /* at the ends, and all but one of a run */
    bool escape_spaces;       /* written as U+2581 */
};

/* `rules` (copied) may be empty. MMQ_ERR_FORMAT where they are not of the form above, or a
 * replacement is not UTF-8. */
int32_t mmqi_spell_create(struct mmqi_spell **out, const char *name,
                          const struct mmqi_spell_options *options, const char *rules, size_t size);
void mmqi_spell_free(struct mmqi_spell *spell); /* accepts NULL */
/* A text that the rules leave alone wherever it is: before mmqi_spell_seal(). */
int32_t mmqi_spell_keep(struct mmqi_spell *spell, const char *text, size_t size);
int32_t mmqi_spell_seal(struct mmqi_spell *spell);

/* As a stage of a tokenizer: its `spell` is owned by it. */
extern const struct mmqi_stage_kind mmqi_spell_kind;

#endif
