/*
 * The text of a policy as a list of rules, and which names a rule's pattern matches.
 *
 * The grammar stands in mmq.h above mmq_plan_create. Rules point into the text, which must outlive
 * them. Nothing recurses; a text has at most 64 KiB.
 */
#ifndef MMQI_QUANT_POLICY_RULES_H
#define MMQI_QUANT_POLICY_RULES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { MMQI_MAX_POLICY_BYTES = 64 << 10 };

/* A word of the text and where it stands. Lines and columns (bytes) count from 1. */
struct mmqi_policy_word {
    const char *text;
    size_t size; /* 0: there is no such word */
    int32_t line, column;
};

/* "pattern = target method", or, alone in its text, "target method" with an empty pattern. */
struct mmqi_policy_rule {
    struct mmqi_policy_word pattern, target, method;
};

struct mmqi_policy_rules {
    struct mmqi_policy_rule *rule;
    size_t n;
};

/*
 * At least one rule; a rule without a pattern is the only one. Freed with mmqi_policy_rules_free()
 * also after a failure.
 *
 *   MMQ_ERR_INVALID  does not parse: line and column
 *   MMQ_ERR_LIMIT    the text is too long
 */
int32_t mmqi_policy_rules_parse(struct mmqi_policy_rules *out, const char *text);
void mmqi_policy_rules_free(struct mmqi_policy_rules *rules);

/* Fail with "policy, line L, column C: " before the message. */
int32_t mmqi_policy_fail(int32_t status, const struct mmqi_policy_word *at, const char *format, ...)
    __attribute__((format(printf, 3, 4), cold));

bool mmqi_policy_word_is(const struct mmqi_policy_word *word, const char *text);

/* Whether a pattern of a parsed rule matches all of `name`. */
bool mmqi_policy_matches(const struct mmqi_policy_word *pattern, const char *name);

#endif
