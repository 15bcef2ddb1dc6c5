#include "text/spell.h"

#include <string.h>

#include "core/mem.h"
#include "core/status.h"
#include "core/utf8.h"
#include "text/mark.h"
#include "text/matcher.h"
#include "text/stage.h"
#include "text/tokenizer_parts.h"
#include "text/utf8.h"

#define VISIBLE_SPACE "\xE2\x96\x81" /* U+2581 */

enum { MAX_RULE = 256 }; /* bytes that a rule replaces, and writes: the most to be looked at */

struct mmqi_spell {
    struct mmqi_spell_options options;
    uint32_t *units; /* the trie; NULL: there are no rules */
    size_t n_units;
    char *texts; /* the replacements, with a zero byte more behind them */
    size_t texts_size;
    struct mmqi_matcher kept;
};

static uint32_t unit_at(const char *bytes)
{
    const unsigned char *b = (const unsigned char *)bytes;

    return b[0] | (uint32_t)b[1] << 8 | (uint32_t)b[2] << 16 | (uint32_t)b[3] << 24;
}

/* UTF-8, and none so long that a text of theirs would take forever. */
static bool texts_are_valid(const char *texts, size_t size)
{
    size_t at, length;

    for (at = 0; at < size; at += length + 1) {
        length = strnlen(texts + at, size - at);
        if (length > MAX_RULE || !mmqi_utf8_valid(texts + at, length))
            return false;
    }
    return true;
}

static int32_t copy_rules(struct mmqi_spell *spell, const char *name, const char *rules,
                          size_t size)
{
    size_t trie, i;

    if (size < 4 || (trie = unit_at(rules)) > size - 4 || trie % 4 != 0 || trie == 0)
        return mmqi_fail(MMQ_ERR_FORMAT,
                         "%s: normalizer_spec: %zu bytes are no rules with a trie in front", name,
                         size);
    spell->n_units = trie / 4;
    spell->units = mmqi_alloc_array(spell->n_units, sizeof *spell->units);
    spell->texts_size = size - 4 - trie;
    spell->texts = mmqi_strndup(rules + 4 + trie, spell->texts_size);
    if (!spell->units || !spell->texts)
        return mmqi_fail(MMQ_ERR_NOMEM, "%s: no memory for the normalizer's rules", name);
    for (i = 0; i < spell->n_units; i++)
        spell->units[i] = unit_at(rules + 4 + 4 * i);
    if (!texts_are_valid(spell->texts, spell->texts_size))
        return mmqi_fail(MMQ_ERR_FORMAT,
                         "%s: normalizer_spec: a rule writes what is not UTF-8 "
                         "of at most %d bytes",
                         name, MAX_RULE);
    return MMQ_OK;
}

int32_t mmqi_spell_create(struct mmqi_spell **out, const char *name,
                          const struct mmqi_spell_options *options, const char *rules, size_t size)
{
    struct mmqi_spell *spell = mmqi_calloc(1, sizeof *spell);
    int32_t status = MMQ_OK;

    *out = NULL;
    if (!spell)
        return mmqi_fail(MMQ_ERR_NOMEM, "%s: no memory for the normalizer", name);
    spell->options = *options;
    if (size > 0)
        status = copy_rules(spell, name, rules, size);
    if (status == MMQ_OK)
        *out = spell;
    else
        mmqi_spell_free(spell);
    return status;
}

void mmqi_spell_free(struct mmqi_spell *spell)
{
    if (!spell)
        return;
    mmqi_free(spell->units);
    mmqi_free(spell->texts);
    mmqi_matcher_free(&spell->kept);
    mmqi_free(spell);
}

int32_t mmqi_spell_keep(struct mmqi_spell *spell, const char *text, size_t size)
{
    /* Without rules a text stays as it is anyhow, but for spaces, which are seen to in any text. */
    return spell->units ? mmqi_matcher_add(&spell->kept, text, size, 0) : MMQ_OK;
}

int32_t mmqi_spell_seal(struct mmqi_spell *spell)
{
    return mmqi_matcher_seal(&spell->kept);
}

/* ---- the rules ---- */

/*
 * A unit of the trie: its byte and, for a value, bit 31 are the label; bit 8
 * says that the unit at its offset is a value; the offset is bits 10 to 30,
 * times 256 if bit 9 is set. Nodes are found by exclusive or.
 */
static size_t offset_of(uint32_t unit)
{
    return (size_t)(unit >> 10) << ((unit & 0x200) >> 6);
}

/* Bytes of the longest rule at the start of `text` and where its replacement is; 0: there is none.
 * The trie may hold anything: no step leaves it. */
static size_t find_rule(const struct mmqi_spell *spell, const char *text, size_t size,
                        size_t *replacement)
{
    size_t node = offset_of(spell->units[0]), found = 0, i, value;
    uint32_t unit;

    for (i = 0; i < size && i < MAX_RULE; i++) {
        node ^= (unsigned char)text[i];
        if (node >= spell->n_units)
            break;
        unit = spell->units[node];
        if ((unit & 0x800000FF) != (unsigned char)text[i])
            break;
        node ^= offset_of(unit);
        if (!(unit & 0x100) || node >= spell->n_units)
            continue;
        value = spell->units[node] & 0x7FFFFFFF;
        if (value > spell->texts_size || ((unsigned char)spell->texts[value] & 0xC0) == 0x80)
            continue;
        *replacement = value;
        found = i + 1;
    }
    return found;
}

/* ---- a text ---- */

/* A walk over a text by the units that rules see: kept texts, what a rule takes, characters. */
struct walk {
    const struct mmqi_spell *spell;
    const char *text;
    size_t size, at, taken;
    const char *piece; /* what stands for text[at, at + taken) */
    size_t piece_size;
    struct mmqi_matches kept;
    size_t next_kept;
};

/* The match of a kept text at this place, if there is one. */
static const struct mmqi_match *kept_here(struct walk *walk)
{
    const struct mmqi_match *match;

    while (walk->next_kept < walk->kept.n) {
        match = &walk->kept.list[walk->next_kept];
        if (match->begin >= walk->at)
            return match->begin == walk->at ? match : NULL;
        walk->next_kept++;
    }
    return NULL;
}

/* Look at what is at `at`; false at the end. */
static bool look(struct walk *walk)
{
    const struct mmqi_spell *spell = walk->spell;
    const char *here = walk->text + walk->at;
    size_t left = walk->size - walk->at, replacement;
    const struct mmqi_match *match;

    if (left == 0)
        return false;
    walk->piece = here;
    match = kept_here(walk);
    if (match) {
        walk->taken = walk->piece_size = match->size;
        return true;
    }
    if (spell->units && (walk->taken = find_rule(spell, here, left, &replacement)) > 0) {
        walk->piece = spell->texts + replacement;
        walk->piece_size = strlen(walk->piece);
        return true;
    }
    if (mmqi_utf8_decode(here, left, &walk->taken) < 0 && here[0] != MMQI_MARK[0]) {
        /* a rule took a part of a character */
        walk->taken = 1;
        walk->piece = MMQI_REPLACEMENT;
        walk->piece_size = 3;
        return true;
    }
    walk->piece_size = walk->taken;
    return true;
}

static void put(const struct mmqi_spell *spell, struct mmqi_buf *out, const char *text, size_t size)
{
    const char *space;
    size_t run;

    while (size > 0) {
        space = spell->options.escape_spaces ? memchr(text, ' ', size) : NULL;
        run = space ? (size_t)(space - text) : size;
        mmqi_buf_append(out, text, run);
        if (space)
            mmqi_buf_append(out, VISIBLE_SPACE, 3);
        run += space != NULL;
        text += run;
        size -= run;
    }
}

static void put_all(struct walk *walk, struct mmqi_buf *out)
{
    bool trim = walk->spell->options.remove_extra_spaces, after_space = trim;

    while (out->size <= MMQI_MAX_TEXT_BYTES && look(walk)) {
        for (; after_space && walk->piece_size > 0 && walk->piece[0] == ' '; walk->piece_size--)
            walk->piece++;
        put(walk->spell, out, walk->piece, walk->piece_size);
        if (walk->piece_size > 0)
            after_space = trim && walk->piece[walk->piece_size - 1] == ' ';
        walk->at += walk->taken;
    }
}

static void trim_end(const struct mmqi_spell *spell, struct mmqi_buf *out)
{
    const char *space = spell->options.escape_spaces ? VISIBLE_SPACE : " ";
    size_t n = strlen(space);

    while (!mmqi_buf_failed(out) && out->size >= n &&
           memcmp(out->data + out->size - n, space, n) == 0)
        out->data[out->size -= n] = '\0';
}

static void spell_text(const struct mmqi_spell *spell, struct mmqi_buf *out, const char *text,
                       size_t size, bool begins)
{
    struct walk walk = {.spell = spell, .text = text, .size = size};
    bool trim = spell->options.remove_extra_spaces;

    if (spell->kept.n_nodes > 0 &&
        mmqi_matcher_find(&spell->kept, &walk.kept, text, size) != MMQ_OK) {
        out->failed = true;
        return;
    }
    while (trim && look(&walk) && walk.piece_size == 1 && walk.piece[0] == ' ')
        walk.at += walk.taken;
    if (walk.at < size) {
        if (begins && spell->options.dummy_prefix)
            put(spell, out, " ", 1);
        if (!spell->units && !trim)
            put(spell, out, text, size);
        else
            put_all(&walk, out);
        if (trim)
            trim_end(spell, out);
    }
    mmqi_free(walk.kept.list);
}

static void spell_beginning(const struct mmqi_stage *stage, struct mmqi_buf *out, const char *text,
                            size_t size)
{
    spell_text(stage->spell, out, text, size, true);
}

static void spell_inside(const struct mmqi_stage *stage, struct mmqi_buf *out, const char *text,
                         size_t size)
{
    spell_text(stage->spell, out, text, size, false);
}

const struct mmqi_stage_kind mmqi_spell_kind = {
    .type = "SentencePiece", .normalize = spell_beginning, .normalize_inside = spell_inside};
