/*
 * Added tokens: texts that are found in the input before anything else sees
 * it and become one id each, by the rules the file gives them.
 */
#ifndef MMQI_TEXT_ADDED_H
#define MMQI_TEXT_ADDED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "text/matcher.h"
#include "text/vocab.h"

enum {
    MMQI_ADDED_SPECIAL = 1,
    MMQI_ADDED_NORMALIZED = 2, /* looked for in the normalized text, else in the raw one */
    MMQI_ADDED_LSTRIP = 4,     /* takes the white space on its left along */
    MMQI_ADDED_RSTRIP = 8,
    MMQI_ADDED_SINGLE_WORD = 16 /* counts only between characters that are not \w */
};

struct mmqi_added {
    struct mmqi_vocab vocab;
    uint8_t *flags; /* by id, as many as `vocab` has capacity for; NULL before the first token */
    size_t n_flags;
    struct mmqi_matcher raw, normalized;
    struct mmqi_matcher special; /* the special ones of both kinds, as they are spelled */
    struct mmqi_matcher starts;  /* and what begins one */
};

struct mmqi_marks;

/* Part of a text: an added token, or what lies between two of them (id -1; never empty). */
struct mmqi_segment {
    size_t begin, end;
    int32_t id;
};

/* Scratch and result of a search, zeroed before the first use. */
struct mmqi_segments {
    struct mmqi_segment *list;
    size_t n, capacity;
    struct mmqi_matches matches;
};

int32_t mmqi_added_add(struct mmqi_added *added, const char *name, const char *text, size_t size,
                       int64_t id, uint8_t flags);
uint8_t mmqi_added_flags(const struct mmqi_added *added, int32_t id); /* 0 for other ids */

/* Cut `text` at the tokens that `matcher` (one of the first two) finds. `plain`: special ones stay
 * text; so does a place with a mark (`marks` may be NULL). */
int32_t mmqi_added_split(const struct mmqi_added *added, const struct mmqi_matcher *matcher,
                         struct mmqi_segments *segments, const char *text, size_t size, bool plain,
                         const struct mmqi_marks *marks);
void mmqi_segments_free(struct mmqi_segments *segments);
void mmqi_added_free(struct mmqi_added *added);

#endif
