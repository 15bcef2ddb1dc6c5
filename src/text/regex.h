/*
 * The patterns by which tokenizers cut text: regular expressions over code
 * points, of the dialect of the tokenizers library as far as their files use
 * it. Alternatives (the first that matches wins, as in Perl), groups, (?i:),
 * classes, \p{..}, \s, greedy repeats, and (?!x) of one class; what is more
 * (captures, anchors, lazy and possessive repeats) is refused.
 */
#ifndef MMQI_TEXT_REGEX_H
#define MMQI_TEXT_REGEX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { MMQI_MAX_PATTERN = 4096 /* bytes */, MMQI_REGEX_STEP = 1024 };

struct mmqi_regex; /* immutable: any thread may match */

/* Compile `pattern`, valid UTF-8. MMQ_ERR_UNSUPPORTED: *why tells what, *at where in the pattern;
 * MMQ_ERR_NOMEM likewise. No message is written. */
int32_t mmqi_regex_compile(struct mmqi_regex **out, const char *pattern, size_t size,
                           const char **why, size_t *at);
void mmqi_regex_free(struct mmqi_regex *regex); /* accepts NULL */

/*
 * Does it match at the start of `text` (valid UTF-8)? *length is the bytes that it takes. Time is
 * linear in what is looked at, which may be more than is taken: *work grows by the instructions
 * that were reached, MMQI_REGEX_STEP of them at most per character looked at, so that a caller who
 * matches again and again can bound the whole.
 */
bool mmqi_regex_match(const struct mmqi_regex *regex, const char *text, size_t size, size_t *length,
                      uint64_t *work);

#endif
