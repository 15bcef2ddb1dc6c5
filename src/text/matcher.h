/*
 * Finding many patterns in a text at once: leftmost, of equals the longest,
 * not overlapping.
 *
 * An automaton (Aho and Corasick) of the reversed patterns runs over the
 * text from its end: where it stands, it knows the longest pattern that
 * begins there, so one pass in linear time serves, whatever the patterns.
 */
#ifndef MMQI_TEXT_MATCHER_H
#define MMQI_TEXT_MATCHER_H

#include <stddef.h>
#include <stdint.h>

struct mmqi_matcher {
    struct mmqi_matcher_node *nodes; /* nodes[0] is the root */
    size_t n_nodes, capacity;
    int32_t first[256]; /* the root's children by byte, 0: none */
};

struct mmqi_match {
    size_t begin, size;
    int32_t value;
};

struct mmqi_matches {
    struct mmqi_match *list;
    size_t n, capacity;
};

/* Each returns MMQ_OK or MMQ_ERR_NOMEM and writes no message. An empty pattern never matches. */
int32_t mmqi_matcher_add(struct mmqi_matcher *matcher, const char *pattern, size_t size,
                         int32_t value);
int32_t mmqi_matcher_seal(struct mmqi_matcher *matcher); /* after the last pattern */
/* The matches in `text` from left to right, in place of what `matches` held. */
int32_t mmqi_matcher_find(const struct mmqi_matcher *matcher, struct mmqi_matches *matches,
                          const char *text, size_t size);
/* A pattern of mmqi_matcher_find_ends(); a matcher of these has no others. */
int32_t mmqi_matcher_add_start(struct mmqi_matcher *matcher, const char *pattern, size_t size);
/* The longest end of `text` that begins a pattern, then the next shorter one, and so on: where each
 * begins, in place of what `matches` held. */
int32_t mmqi_matcher_find_ends(const struct mmqi_matcher *matcher, struct mmqi_matches *matches,
                               const char *text, size_t size);
/* The longest match at each place where one begins, from left to right; they may overlap. */
int32_t mmqi_matcher_find_all(const struct mmqi_matcher *matcher, struct mmqi_matches *matches,
                              const char *text, size_t size);
/* What mmqi_matcher_find() would have kept of those. */
void mmqi_matches_keep_leftmost(struct mmqi_matches *matches);
void mmqi_matcher_free(struct mmqi_matcher *matcher);

#endif
