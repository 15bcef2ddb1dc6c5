/*
 * A text of rules, "pattern = target", over names: which format, device or limit each gets.
 *
 * The grammar stands in mmq.h above mmq_plan_create. Rules point into the text, which must outlive
 * them. Nothing recurses; a text has at most 64 KiB.
 */
#ifndef MMQI_CORE_RULES_H
#define MMQI_CORE_RULES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { MMQI_MAX_RULES_BYTES = 64 << 10 };

/* What the rules are about, for messages. Static. */
struct mmqi_rules_kind {
    const char *name;   /* "policy" */
    const char *target; /* "a format" */
    const char *place;  /* "FORMAT" */
};

/* A word of the text and where it stands. Lines and columns (bytes) count from 1. */
struct mmqi_rule_word {
    const char *text;
    size_t size; /* 0: there is no such word */
    int32_t line, column;
    const struct mmqi_rules_kind *kind;
};

/* "pattern = target extra", or, alone in its text, "target extra" with an empty pattern. */
struct mmqi_rule {
    struct mmqi_rule_word pattern, target, extra;
};

struct mmqi_rules {
    struct mmqi_rule *rule;
    size_t n;
};

/*
 * At least one rule; a rule without a pattern is the only one. Freed with mmqi_rules_free()
 * also after a failure.
 *
 *   MMQ_ERR_INVALID  does not parse: line and column
 *   MMQ_ERR_LIMIT    the text is too long
 */
int32_t mmqi_rules_parse(struct mmqi_rules *out, const char *text,
                         const struct mmqi_rules_kind *kind);
void mmqi_rules_free(struct mmqi_rules *rules);

/* Fail with "policy, line L, column C: " (the kind's name) before the message. */
int32_t mmqi_rule_fail(int32_t status, const struct mmqi_rule_word *at, const char *format, ...)
    __attribute__((format(printf, 3, 4), cold));

bool mmqi_rule_word_is(const struct mmqi_rule_word *word, const char *text);

/* Whether a pattern of a parsed rule matches all of `name`. */
bool mmqi_rule_matches(const struct mmqi_rule_word *pattern, const char *name);

#endif
