/*
 * Parsing rules, and matching patterns.
 */
#include "core/rules.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "core/mem.h"
#include "core/status.h"

enum { MAX_NAME = 128, MAX_RANGE_DIGITS = 9 };

int32_t mmqi_rule_fail(int32_t status, const struct mmqi_rule_word *at, const char *format, ...)
{
    char text[MMQI_MESSAGE_BYTES];
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    return mmqi_fail(status, "%s, line %d, column %d: %s", at->kind->name, (int)at->line,
                     (int)at->column, text);
}

bool mmqi_rule_word_is(const struct mmqi_rule_word *word, const char *text)
{
    return strlen(text) == word->size && memcmp(word->text, text, word->size) == 0;
}

/* ---- scanning ---- */

struct scanner {
    const char *at;         /* the next byte; a zero byte ends the text */
    const char *line_begin; /* of the line that `at` is in */
    int32_t line;
    const struct mmqi_rules_kind *kind;
};

/* An empty word where the scanner stands. */
static struct mmqi_rule_word here(const struct scanner *s)
{
    return (struct mmqi_rule_word){
        .text = s->at,
        .line = s->line,
        .column = (int32_t)(s->at - s->line_begin) + 1,
        .kind = s->kind,
    };
}

/* Blanks within a line, and a comment up to its end. */
static void skip_blanks(struct scanner *s)
{
    while (*s->at == ' ' || *s->at == '\t' || *s->at == '\r')
        s->at++;
    if (*s->at == '#')
        s->at += strcspn(s->at, "\n");
}

/* Everything between two rules. */
static void skip_ends(struct scanner *s)
{
    for (skip_blanks(s); *s->at == ';' || *s->at == '\n'; skip_blanks(s)) {
        if (*s->at++ == '\n') {
            s->line++;
            s->line_begin = s->at;
        }
    }
}

static bool is_end(const struct scanner *s)
{
    return *s->at == '\0' || *s->at == '\n' || *s->at == ';';
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool is_plain(char c)
{
    return is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' ||
           c == '.' || c == '-' || c == ':';
}

static int32_t unexpected(const struct scanner *s, const char *wanted)
{
    struct mmqi_rule_word at = here(s);

    if (is_end(s))
        return mmqi_rule_fail(MMQ_ERR_INVALID, &at, "the rule ends where %s is needed", wanted);
    return mmqi_rule_fail(MMQ_ERR_INVALID, &at, "'%c' where %s is needed", *s->at, wanted);
}

/* A word of plain characters; an empty one where there is none. */
static struct mmqi_rule_word scan_word(struct scanner *s)
{
    struct mmqi_rule_word word = here(s);

    while (is_plain(*s->at))
        s->at++;
    word.size = (size_t)(s->at - word.text);
    skip_blanks(s);
    return word;
}

/* ---- patterns ---- */

/* The number at `text` and the bytes it takes; 0 where there is none, or one too long. */
static size_t read_number(int32_t *value, const char *text)
{
    size_t n = 0;

    for (*value = 0; n <= MAX_RANGE_DIGITS && is_digit(text[n]); n++)
        *value = n < MAX_RANGE_DIGITS ? *value * 10 + (text[n] - '0') : *value;
    return n <= MAX_RANGE_DIGITS ? n : 0;
}

/* "5-9"; false for anything else. Whether it ascends is for the parser to check. */
static bool read_range(int32_t range[2], const char *text, size_t size)
{
    size_t first = read_number(&range[0], text), second;

    if (first == 0 || first >= size || text[first] != '-')
        return false;
    second = read_number(&range[1], text + first + 1);
    return second > 0 && first + 1 + second == size;
}

/* One of the alternatives in braces; the scanner stands at its first byte. */
static int32_t scan_alternative(struct scanner *s)
{
    struct mmqi_rule_word at = here(s);
    int32_t range[2];

    while (is_plain(*s->at))
        s->at++;
    at.size = (size_t)(s->at - at.text);
    if (at.size == 0)
        return unexpected(s, "a name or a number");
    if (!memchr(at.text, '-', at.size))
        return MMQ_OK;
    if (!read_range(range, at.text, at.size) || range[0] > range[1])
        return mmqi_rule_fail(MMQ_ERR_INVALID, &at, "'%.*s' is no range of numbers", (int)at.size,
                              at.text);
    return MMQ_OK;
}

/* "{a,5-9}"; the scanner stands at the brace. */
static int32_t scan_choice(struct scanner *s)
{
    struct mmqi_rule_word brace = here(s);
    int32_t status;

    do {
        s->at++;
        status = scan_alternative(s);
    } while (status == MMQ_OK && *s->at == ',');
    if (status != MMQ_OK)
        return status;
    if (is_end(s))
        return mmqi_rule_fail(MMQ_ERR_INVALID, &brace, "'{' is not closed");
    if (*s->at != '}')
        return unexpected(s, "',' or '}'");
    s->at++;
    return MMQ_OK;
}

static int32_t scan_pattern(struct mmqi_rule_word *pattern, struct scanner *s)
{
    int32_t status = MMQ_OK;

    *pattern = here(s);
    while (status == MMQ_OK) {
        if (*s->at == '{')
            status = scan_choice(s);
        else if (*s->at == '*' || is_plain(*s->at))
            s->at++;
        else
            break;
    }
    pattern->size = (size_t)(s->at - pattern->text);
    if (status == MMQ_OK && pattern->size == 0)
        status = unexpected(s, "a pattern");
    skip_blanks(s);
    return status;
}

/* ---- rules ---- */

static bool is_name(const struct mmqi_rule_word *word)
{
    for (size_t i = 0; i < word->size; i++)
        if (!is_plain(word->text[i]))
            return false;
    return true;
}

/* Everything after the pattern. A rule without "=" has none: its first word is the target. */
static int32_t scan_target(struct mmqi_rule *rule, struct scanner *s)
{
    if (*s->at == '=') {
        s->at++;
        skip_blanks(s);
        rule->target = scan_word(s);
        if (rule->target.size == 0)
            return unexpected(s, s->kind->target);
    } else {
        if (!is_name(&rule->pattern))
            return unexpected(s, "'='");
        rule->target = rule->pattern;
        rule->pattern.size = 0;
    }
    rule->extra = scan_word(s);
    return is_end(s) ? MMQ_OK : unexpected(s, rule->pattern.size ? "the end of the rule" : "'='");
}

static int32_t add_rule(struct mmqi_rules *rules, const struct mmqi_rule *rule)
{
    struct mmqi_rule *grown;

    if ((rules->n & (rules->n - 1)) == 0) {
        grown = mmqi_realloc_array(rules->rule, rules->n ? 2 * rules->n : 1, sizeof *grown);
        if (!grown)
            return mmqi_fail(MMQ_ERR_NOMEM, "rules: no memory for them");
        rules->rule = grown;
    }
    rules->rule[rules->n++] = *rule;
    return MMQ_OK;
}

/* A target stands alone; among other rules it is a pattern that lacks its target. */
static int32_t check_alone(const struct mmqi_rules *rules)
{
    for (size_t i = 0; i < rules->n && rules->n > 1; i++) {
        const struct mmqi_rule *rule = &rules->rule[i];

        if (rule->pattern.size == 0)
            return mmqi_rule_fail(
                MMQ_ERR_INVALID, &rule->target, "'%.*s' stands alone or is followed by '= %s'",
                (int)rule->target.size, rule->target.text, rule->target.kind->place);
    }
    return MMQ_OK;
}

int32_t mmqi_rules_parse(struct mmqi_rules *out, const char *text,
                         const struct mmqi_rules_kind *kind)
{
    struct scanner s = {.at = text, .line_begin = text, .line = 1, .kind = kind};
    int32_t status = MMQ_OK;

    memset(out, 0, sizeof *out);
    if (strnlen(text, MMQI_MAX_RULES_BYTES + 1) > MMQI_MAX_RULES_BYTES)
        return mmqi_fail(MMQ_ERR_LIMIT, "%s: more than %d bytes", kind->name, MMQI_MAX_RULES_BYTES);
    skip_ends(&s);
    while (*s.at != '\0' && status == MMQ_OK) {
        struct mmqi_rule rule = {0};

        status = scan_pattern(&rule.pattern, &s);
        if (status == MMQ_OK)
            status = scan_target(&rule, &s);
        if (status == MMQ_OK)
            status = add_rule(out, &rule);
        skip_ends(&s);
    }
    if (status == MMQ_OK && out->n == 0) {
        struct mmqi_rule_word end = here(&s);

        status = mmqi_rule_fail(MMQ_ERR_INVALID, &end, "no rule");
    }
    return status == MMQ_OK ? check_alone(out) : status;
}

void mmqi_rules_free(struct mmqi_rules *rules)
{
    mmqi_free(rules->rule);
    rules->rule = NULL;
    rules->n = 0;
}

/* ---- matching ---- */

/*
 * at[i] tells that the pattern so far can end before byte i of the name. Each piece of the pattern
 * makes the next set from it, so that the work is bounded by pattern times name.
 */
struct reach {
    bool at[MAX_NAME + 1];
};

static bool is_empty(const struct reach *reach, size_t n)
{
    return !memchr(reach->at, true, n + 1);
}

static void step_star(struct reach *reach, size_t n)
{
    bool *first = memchr(reach->at, true, n + 1);

    if (first)
        memset(first, true, n + 1 - (size_t)(first - reach->at));
}

static void step_byte(struct reach *reach, const char *name, size_t n, char c)
{
    for (size_t i = n; i > 0; i--)
        reach->at[i] = reach->at[i - 1] && name[i - 1] == c;
    reach->at[0] = false;
}

/* Bytes of the whole number in [range[0], range[1]] that stands at `name + i`; 0: none. */
static size_t number_in(const int32_t range[2], const char *name, size_t i)
{
    int32_t value;
    size_t size = read_number(&value, name + i);

    if (size == 0 || (i > 0 && is_digit(name[i - 1])) || (size > 1 && name[i] == '0'))
        return 0;
    return value >= range[0] && value <= range[1] ? size : 0;
}

static void add_alternative(struct reach *next, const struct reach *reach, const char *name,
                            size_t n, const char *text, size_t size)
{
    int32_t range[2];
    bool is_range = read_range(range, text, size);

    for (size_t i = 0; i <= n; i++) {
        size_t taken = 0;

        if (!reach->at[i])
            continue;
        if (is_range)
            taken = number_in(range, name, i);
        else if (size <= n - i && memcmp(name + i, text, size) == 0)
            taken = size;
        if (taken > 0)
            next->at[i + taken] = true;
    }
}

/* Returns the bytes of the choice, from its brace on. */
static size_t step_choice(struct reach *reach, const char *name, size_t n, const char *pattern)
{
    struct reach next = {{false}};
    size_t at = 0, size;

    do {
        at++;
        size = strcspn(pattern + at, ",}");
        add_alternative(&next, reach, name, n, pattern + at, size);
        at += size;
    } while (pattern[at] == ',');
    *reach = next;
    return at + 1;
}

bool mmqi_rule_matches(const struct mmqi_rule_word *pattern, const char *name)
{
    struct reach reach = {{true}};
    size_t n = strlen(name), at = 0;

    if (n > MAX_NAME)
        return false;
    while (at < pattern->size && !is_empty(&reach, n)) {
        char c = pattern->text[at];

        if (c == '{') {
            at += step_choice(&reach, name, n, pattern->text + at);
            continue;
        }
        if (c != '*')
            step_byte(&reach, name, n, c);
        else if (at == 0 || pattern->text[at - 1] != '*')
            step_star(&reach, n);
        at++;
    }
    return at == pattern->size && reach.at[n];
}
