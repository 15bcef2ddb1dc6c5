/*
 * Policies: the grammar with its lines and columns, the patterns, the presets, and the choice that
 * they make for every weight of a small model's table.
 */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/mem.h"
#include "core/rules.h"
#include "core/status.h"
#include "quant/plan.h"

static const struct mmqi_rules_kind kind = {"policy", "a format", "FORMAT"};

/* ---- a model that is only a table ---- */

enum { MAX_TABLE = 64 };

struct table {
    struct mmqi_model model;
    struct mmqi_weight weights[MAX_TABLE];
    struct mmqi_weight_name names[MAX_TABLE];
    char text[MAX_TABLE][64];
};

static struct mmqi_weight *add(struct table *t, int32_t role, int64_t rows, int64_t cols,
                               const char *name)
{
    int32_t i = t->model.n_weights++;
    struct mmqi_weight *w = &t->weights[i];

    ck_assert_int_lt(i, MAX_TABLE);
    snprintf(t->text[i], sizeof t->text[i], "%s", name);
    w->name = t->text[i];
    w->role = role;
    w->rows = rows;
    w->cols = cols;
    w->same_as = -1;
    w->format = w->stored = role == MMQI_ROLE_VECTOR ? MMQI_FORMAT_F32 : MMQI_FORMAT_BF16;
    return w;
}

static void add_block(struct table *t, const char *at, const char *const *linears)
{
    char name[64];

    for (; *linears; linears++) {
        snprintf(name, sizeof name, "%s.%s", at, *linears);
        add(t, MMQI_ROLE_LINEAR, 64, 64, name);
    }
    snprintf(name, sizeof name, "%s.norm1", at);
    add(t, MMQI_ROLE_VECTOR, 1, 64, name);
    snprintf(name, sizeof name, "%s.attn.q.bias", at);
    add(t, MMQI_ROLE_VECTOR, 1, 64, name);
}

static int compare(const void *a, const void *b)
{
    return strcmp(((const struct mmqi_weight_name *)a)->name,
                  ((const struct mmqi_weight_name *)b)->name);
}

/* Two blocks of a tower, a projector, two layers (3 and 12), embedding and head. */
static struct table *make_table(void)
{
    static const char *const vision[] = {"attn.q",  "attn.k",  "attn.v", "attn.o",
                                         "mlp.fc1", "mlp.fc2", NULL};
    static const char *const layer[] = {"attn.q",   "attn.k", "attn.v",   "attn.o",
                                        "mlp.gate", "mlp.up", "mlp.down", NULL};
    struct table *t = calloc(1, sizeof *t);

    t->model.path = (char *)"a folder";
    t->model.weights = t->weights;
    t->model.by_name = t->names;
    add(t, MMQI_ROLE_CONV, 64, 75, "vision.patch");
    add_block(t, "vision.blocks.0", vision);
    add_block(t, "vision.blocks.1", vision);
    add(t, MMQI_ROLE_LINEAR, 64, 64, "projector.0");
    add(t, MMQI_ROLE_LINEAR, 64, 64, "projector.1");
    add(t, MMQI_ROLE_EMBED, 100, 64, "language.embed");
    add(t, MMQI_ROLE_CONSTANT, 1, 16, "language.rope");
    add_block(t, "language.layers.3", layer);
    add_block(t, "language.layers.12", layer);
    add(t, MMQI_ROLE_VECTOR, 1, 64, "language.norm");
    add(t, MMQI_ROLE_EMBED, 100, 64, "language.head");
    for (int32_t i = 0; i < t->model.n_weights; i++) {
        struct mmqi_weight *w = &t->weights[i];

        mmqi_format_info(w->stored)->layout(&w->layout, w->rows, w->cols);
        w->stored_layout = w->layout;
        t->names[i] = (struct mmqi_weight_name){w->name, i};
    }
    qsort(t->names, (size_t)t->model.n_weights, sizeof t->names[0], compare);
    return t;
}

/* ---- what tests ask ---- */

static struct mmqi_choice *apply(const struct table *t, const char *policy)
{
    struct mmqi_choice *choices;

    ck_assert_msg(mmqi_policy_apply(&choices, &t->model, policy, MMQI_METHOD_RTN) == MMQ_OK,
                  "'%s': %s", policy, mmqi_message());
    return choices;
}

/* "nf4", "int8 search", or "-" for what stays. */
static const char *choice_of(const struct table *t, const struct mmqi_choice *choices,
                             const char *name)
{
    static char text[64];
    int32_t i = mmqi_model_find(&t->model, name);
    const struct mmqi_choice *choice = &choices[i];

    ck_assert_msg(i >= 0, "no weight %s", name);
    snprintf(text, sizeof text, "%s%s",
             choice->change ? mmqi_format_info(choice->format)->name : "-",
             choice->method == MMQI_METHOD_SEARCH ? " search" : "");
    if (!choice->change)
        ck_assert_int_eq(choice->format, t->weights[i].stored);
    return text;
}

/* The policy makes of each named weight what stands beside it. */
#define MAKES(policy, ...)                                                                         \
    do {                                                                                           \
        static const char *const pairs_[][2] = {__VA_ARGS__};                                      \
        struct table *t_ = make_table();                                                           \
        struct mmqi_choice *choices_ = apply(t_, policy);                                          \
                                                                                                   \
        for (size_t i_ = 0; i_ < sizeof pairs_ / sizeof *pairs_; i_++)                             \
            ck_assert_str_eq(choice_of(t_, choices_, pairs_[i_][0]), pairs_[i_][1]);               \
        mmqi_free(choices_);                                                                       \
        free(t_);                                                                                  \
    } while (0)

/* The policy is refused with `status` at that place, and the message holds `text`. */
static void refuses(const char *policy, int32_t status, int line, int column, const char *text)
{
    struct table *t = make_table();
    struct mmqi_choice *choices = (void *)t;
    char place[64];
    int32_t is = mmqi_policy_apply(&choices, &t->model, policy, MMQI_METHOD_RTN);

    snprintf(place, sizeof place, "policy, line %d, column %d: ", line, column);
    ck_assert_msg(is == status, "'%s': %d, %s", policy, is, mmqi_message());
    ck_assert_ptr_null(choices);
    ck_assert_msg(strncmp(mmqi_message(), place, strlen(place)) == 0, "'%s': %s, not %s", policy,
                  mmqi_message(), place);
    ck_assert_msg(strstr(mmqi_message(), text) != NULL, "'%s': %s", policy, mmqi_message());
    free(t);
}

static bool matches(const char *pattern, const char *name)
{
    char text[512];
    struct mmqi_rules rules;
    bool yes;

    snprintf(text, sizeof text, "%s = nf4", pattern);
    ck_assert_msg(mmqi_rules_parse(&rules, text, &kind) == MMQ_OK, "%s", mmqi_message());
    yes = mmqi_rule_matches(&rules.rule[0].pattern, name);
    mmqi_rules_free(&rules);
    return yes;
}

/* ---- patterns ---- */

START_TEST(a_star_is_any_text_and_none)
{
    ck_assert(matches("*", "language.embed"));
    ck_assert(matches("vision.*", "vision.blocks.0.attn.q"));
    ck_assert(matches("vision.*", "vision."));
    ck_assert(!matches("vision.*", "vision"));
    ck_assert(!matches("vision.*", "revision.x"));
    ck_assert(matches("*.q", "language.layers.3.attn.q"));
    ck_assert(!matches("*.q", "language.layers.3.attn.q.bias"));
    ck_assert(matches("*layers*attn*", "language.layers.3.attn.q"));
    ck_assert(matches("**a**", "bab"));
    ck_assert(matches("*ab*ab", "abxabab"));
    ck_assert(!matches("*ab*ab", "abxaba"));
    ck_assert(!matches("language.layers", "language.layers.3"));
}
END_TEST

START_TEST(braces_are_a_choice_of_names)
{
    ck_assert(matches("a.{q,k,v}", "a.k"));
    ck_assert(!matches("a.{q,k,v}", "a.o"));
    ck_assert(!matches("a.{q,k,v}", "a.q,k,v"));
    ck_assert(matches("{vision,projector}.*", "projector.0"));
    ck_assert(matches("{a,ab}c", "abc"));
    ck_assert(matches("{a,ab}{bc,c}", "abc"));
    ck_assert(matches("{attn.q,mlp.up}", "mlp.up"));
    ck_assert(matches("*{a}*", "bab"));
}
END_TEST

START_TEST(a_range_is_a_whole_number)
{
    ck_assert(matches("layers.{5-9}.q", "layers.5.q"));
    ck_assert(matches("layers.{5-9}.q", "layers.9.q"));
    ck_assert(!matches("layers.{5-9}.q", "layers.4.q"));
    ck_assert(!matches("layers.{5-9}.q", "layers.10.q"));
    ck_assert(matches("layers.{5-12}.q", "layers.10.q"));
    ck_assert(!matches("*{5-9}.q", "layers.15.q"));
    ck_assert(!matches("layers.{5-9}*", "layers.51.q"));
    ck_assert(!matches("layers.{5-9}.q", "layers.07.q"));
    ck_assert(matches("layers.{0-0}.q", "layers.0.q"));
    ck_assert(matches("layers.{1,4-6,9}.q", "layers.5.q"));
    ck_assert(matches("layers.{1,4-6,9}.q", "layers.9.q"));
    ck_assert(!matches("layers.{1,4-6,9}.q", "layers.7.q"));
    ck_assert(!matches("layers.{0-999999999}.q", "layers.9999999999.q"));
    ck_assert(matches("layers.{0-999999999}.q", "layers.999999999.q"));
}
END_TEST

/* The longest text there may be, of what costs most, against a name that nearly fits. */
START_TEST(a_long_pattern_takes_no_long_time)
{
    static char text[MMQI_MAX_RULES_BYTES + 1];
    static const char tail[] = "b = nf4";
    struct mmqi_rules rules;
    char name[128];
    bool found = false;

    memset(name, 'a', sizeof name - 1);
    name[sizeof name - 1] = '\0';
    for (size_t i = 0; i < sizeof text - sizeof tail; i++)
        text[i] = i % 2 ? 'a' : '*';
    strcpy(text + sizeof text - sizeof tail, tail);
    ck_assert_int_eq(mmqi_rules_parse(&rules, text, &kind), MMQ_OK);
    for (int i = 0; i < 100; i++)
        found = found || mmqi_rule_matches(&rules.rule[0].pattern, name);
    ck_assert(!found);
    mmqi_rules_free(&rules);
}
END_TEST

/* ---- rules ---- */

START_TEST(weights_that_no_rule_matches_are_kept)
{
    MAKES("vision.blocks.1.mlp.* = nf4", {"vision.blocks.1.mlp.fc1", "nf4"},
          {"vision.blocks.1.mlp.fc2", "nf4"}, {"vision.blocks.0.mlp.fc1", "-"},
          {"vision.blocks.1.attn.o", "-"}, {"language.embed", "-"});
}
END_TEST

START_TEST(the_last_rule_that_matches_wins)
{
    MAKES("* = nf4; language.* = int8\nlanguage.layers.{5-20}.attn.* = keep; *.mlp.fc1 = int4-g32",
          {"vision.blocks.0.attn.q", "nf4"}, {"vision.blocks.0.mlp.fc1", "int4-g32"},
          {"projector.0", "nf4"}, {"language.layers.3.attn.q", "int8"},
          {"language.layers.12.attn.q", "-"}, {"language.layers.12.mlp.up", "int8"},
          {"language.embed", "int8"}, {"language.head", "int8"});
}
END_TEST

START_TEST(blanks_comments_and_empty_rules_do_not_count)
{
    MAKES("\n # a comment; not a rule = x\n;;\t projector.0=nf4;;  projector.1 =  int8\tsearch "
          "# the end\r\n \n",
          {"projector.0", "nf4"}, {"projector.1", "int8 search"}, {"language.embed", "-"});
}
END_TEST

START_TEST(convolutions_and_norms_that_a_pattern_covers_are_kept)
{
    MAKES("vision.* = nf4", {"vision.patch", "-"}, {"vision.blocks.0.norm1", "-"},
          {"vision.blocks.0.attn.q.bias", "-"}, {"vision.blocks.0.attn.q", "nf4"});
}
END_TEST

START_TEST(every_format_can_be_named)
{
    struct table *t = make_table();
    char policy[64];

    for (int32_t i = 0; i < MMQI_N_FORMATS; i++) {
        const char *name = mmqi_format_info(i)->name;
        struct mmqi_choice *choices;

        snprintf(policy, sizeof policy, "projector.0 = %s", name);
        choices = apply(t, policy);
        ck_assert_str_eq(choice_of(t, choices, "projector.0"), i == MMQI_FORMAT_BF16 ? "-" : name);
        mmqi_free(choices);
        choices = apply(t, name);
        ck_assert_str_eq(choice_of(t, choices, "language.layers.3.attn.o"),
                         i == MMQI_FORMAT_BF16 ? "-" : name);
        mmqi_free(choices);
    }
    MAKES("projector.0 = int4", {"projector.0", "int4-g64"});
    free(t);
}
END_TEST

START_TEST(a_method_stands_after_the_format_or_comes_from_the_caller)
{
    struct table *t = make_table();
    struct mmqi_choice *choices;

    MAKES("projector.0 = nf4 search; projector.1 = nf4 rtn", {"projector.0", "nf4 search"},
          {"projector.1", "nf4"});
    MAKES("nf4 search", {"projector.0", "nf4 search"}, {"language.embed", "-"});
    MAKES("layered search", {"projector.0", "int8 search"},
          {"vision.blocks.0.attn.o", "nf4 search"});
    ck_assert_int_eq(mmqi_policy_apply(&choices, &t->model,
                                       "projector.0 = nf4 rtn; projector.1 = nf4; vision.* = f32",
                                       MMQI_METHOD_SEARCH),
                     MMQ_OK);
    ck_assert_str_eq(choice_of(t, choices, "projector.0"), "nf4");
    ck_assert_str_eq(choice_of(t, choices, "projector.1"), "nf4 search");
    ck_assert_str_eq(choice_of(t, choices, "vision.blocks.0.attn.o"), "f32");
    mmqi_free(choices);
    free(t);
}
END_TEST

START_TEST(methods_have_names)
{
    ck_assert_int_eq(mmqi_method_find("rtn"), MMQI_METHOD_RTN);
    ck_assert_int_eq(mmqi_method_find("search"), MMQI_METHOD_SEARCH);
    ck_assert_int_eq(mmqi_method_find("magic"), -1);
    ck_assert_str_eq(mmqi_method_name(MMQI_METHOD_SEARCH), "search");
    ck_assert_str_eq(mmqi_method_name(7), "none");
}
END_TEST

START_TEST(plain_formats_convert_what_is_stored_otherwise)
{
    MAKES("language.* = bf16; projector.* = f16", {"language.layers.3.attn.q", "-"},
          {"language.head", "-"}, {"projector.0", "f16"});
}
END_TEST

/* ---- presets ---- */

START_TEST(a_format_alone_is_for_every_linear)
{
    static const char *const all[] = {"int8", "nf4", "int4"};

    for (size_t k = 0; k < 3; k++) {
        struct table *t = make_table();
        struct mmqi_choice *choices = apply(t, all[k]);

        for (int32_t i = 0; i < t->model.n_weights; i++)
            ck_assert_str_eq(choice_of(t, choices, t->weights[i].name),
                             t->weights[i].role != MMQI_ROLE_LINEAR ? "-"
                             : k == 2                               ? "int4-g64"
                                                                    : all[k]);
        mmqi_free(choices);
        free(t);
    }
}
END_TEST

START_TEST(layered_packs_the_tower_most_and_leaves_attention_alone)
{
    MAKES("  layered # the preset\n", {"vision.patch", "-"}, {"vision.blocks.1.attn.q", "nf4"},
          {"vision.blocks.0.mlp.fc2", "nf4"}, {"projector.0", "int8"}, {"projector.1", "int8"},
          {"language.embed", "-"}, {"language.layers.3.attn.q", "-"},
          {"language.layers.3.attn.o", "-"}, {"language.layers.12.mlp.gate", "int8"},
          {"language.layers.12.mlp.down", "int8"}, {"language.head", "-"});
}
END_TEST

/* ---- reasons ---- */

static void has_reason(const struct table *t, const struct mmqi_choice *choices, const char *name,
                       const char *reason)
{
    ck_assert_str_eq(choices[mmqi_model_find(&t->model, name)].reason, reason);
}

START_TEST(every_choice_tells_its_reason)
{
    struct table *t = make_table();
    struct mmqi_choice *choices =
        apply(t, "vision.* = nf4\n# no rule\nlanguage.head = keep; projector.{0,1} = int8 search");

    has_reason(t, choices, "vision.blocks.0.attn.q", "rule 1: vision.* = nf4");
    has_reason(t, choices, "language.head", "rule 2: language.head = keep");
    has_reason(t, choices, "projector.1", "rule 3: projector.{0,1} = int8");
    has_reason(t, choices, "vision.patch", "kept: convolution");
    has_reason(t, choices, "vision.blocks.0.norm1", "kept: norm");
    has_reason(t, choices, "vision.blocks.0.attn.q.bias", "kept: bias");
    has_reason(t, choices, "language.embed", "kept: embedding");
    has_reason(t, choices, "language.layers.3.attn.o", "kept: linear");
    mmqi_free(choices);
    choices = apply(t, "layered");
    has_reason(t, choices, "language.layers.3.mlp.up", "layered: language mlp");
    has_reason(t, choices, "language.head", "kept: head");
    mmqi_free(choices);
    choices = apply(t, "int4");
    has_reason(t, choices, "projector.0", "int4: every linear");
    mmqi_free(choices);
    free(t);
}
END_TEST

START_TEST(a_long_rule_gives_a_reason_that_is_cut)
{
    struct table *t = make_table();
    struct mmqi_choice *choices;
    char policy[1024] = "projector.{";
    int32_t i = mmqi_model_find(&t->model, "projector.0");

    for (int k = 0; k < 60; k++)
        strcat(policy, "nothing,");
    strcat(policy, "0} = nf4");
    choices = apply(t, policy);
    ck_assert_str_eq(choice_of(t, choices, "projector.0"), "nf4");
    ck_assert_uint_eq(strlen(choices[i].reason), sizeof choices[i].reason - 1);
    mmqi_free(choices);
    free(t);
}
END_TEST

/* ---- what does not parse ---- */

START_TEST(what_does_not_parse_is_told_by_line_and_column)
{
    refuses("", MMQ_ERR_INVALID, 1, 1, "no rule");
    refuses("\n # nothing\n  ", MMQ_ERR_INVALID, 3, 3, "no rule");
    refuses("= nf4", MMQ_ERR_INVALID, 1, 1, "'=' where a pattern");
    refuses("vision.* nf4", MMQ_ERR_INVALID, 1, 10, "'n' where '='");
    refuses("vision.*", MMQ_ERR_INVALID, 1, 9, "ends where '='");
    refuses("vision.* =", MMQ_ERR_INVALID, 1, 11, "ends where a format");
    refuses("vision.* = ;", MMQ_ERR_INVALID, 1, 12, "ends where a format");
    refuses("vision.* = # nf4", MMQ_ERR_INVALID, 1, 17, "ends where a format");
    refuses("vision.* = *", MMQ_ERR_INVALID, 1, 12, "'*' where a format");
    refuses("projector.* = nf4\nvision.* = nf4 rtn x", MMQ_ERR_INVALID, 2, 20,
            "'x' where the end of the rule");
    refuses("vision.* = nf4 = int8", MMQ_ERR_INVALID, 1, 16, "'=' where the end");
    refuses("a b c", MMQ_ERR_INVALID, 1, 5, "'c' where '='");
    refuses("vision.$ = nf4", MMQ_ERR_INVALID, 1, 8, "where '='");
    refuses("vision.* = nf4, language.* = int8", MMQ_ERR_INVALID, 1, 15, "','");
    refuses("vision.\xc3\xa9 = nf4", MMQ_ERR_INVALID, 1, 8, "");
}
END_TEST

START_TEST(braces_that_do_not_parse_are_told_by_line_and_column)
{
    refuses("projector.0 = nf4;  vision.{q,k = nf4", MMQ_ERR_INVALID, 1, 32, "',' or '}'");
    refuses("\nvision.{q,k", MMQ_ERR_INVALID, 2, 8, "'{' is not closed");
    refuses("vision.{q,k;v} = nf4", MMQ_ERR_INVALID, 1, 8, "'{' is not closed");
    refuses("vision.{} = nf4", MMQ_ERR_INVALID, 1, 9, "'}' where a name");
    refuses("vision.{a,} = nf4", MMQ_ERR_INVALID, 1, 11, "'}' where a name");
    refuses("vision.{a,{b}} = nf4", MMQ_ERR_INVALID, 1, 11, "'{' where a name");
    refuses("vision.{a*} = nf4", MMQ_ERR_INVALID, 1, 10, "'*' where ',' or '}'");
    refuses("vision.a} = nf4", MMQ_ERR_INVALID, 1, 9, "'}'");
    refuses("vision.{9-5} = nf4", MMQ_ERR_INVALID, 1, 9, "'9-5' is no range");
    refuses("vision.{5-} = nf4", MMQ_ERR_INVALID, 1, 9, "'5-' is no range");
    refuses("vision.{a-b} = nf4", MMQ_ERR_INVALID, 1, 9, "'a-b' is no range");
    refuses("vision.{1-2-3} = nf4", MMQ_ERR_INVALID, 1, 9, "is no range");
    refuses("vision.{1-9999999999} = nf4", MMQ_ERR_INVALID, 1, 9, "is no range");
}
END_TEST

START_TEST(unknown_names_are_told_by_line_and_column)
{
    refuses("vision.* = nf5", MMQ_ERR_UNSUPPORTED, 1, 12, "unknown format 'nf5'");
    refuses("vision.* = layered", MMQ_ERR_UNSUPPORTED, 1, 12, "unknown format 'layered'");
    refuses("vision.* = nf4\n\tprojector.* = NF4", MMQ_ERR_UNSUPPORTED, 2, 16, "'NF4'");
    refuses("vision.* = nf4 magic", MMQ_ERR_UNSUPPORTED, 1, 16, "unknown method 'magic'");
    refuses("  q4_k", MMQ_ERR_UNSUPPORTED, 1, 3, "unknown format or preset 'q4_k'");
    refuses("keep", MMQ_ERR_UNSUPPORTED, 1, 1, "unknown format or preset");
    refuses("nf4 magic", MMQ_ERR_UNSUPPORTED, 1, 5, "unknown method");
    refuses("vision.* = bf16 search", MMQ_ERR_INVALID, 1, 17, "'bf16' has no scales");
    refuses("vision.* = keep search", MMQ_ERR_INVALID, 1, 17, "'keep' has no scales");
    refuses("f16 search", MMQ_ERR_INVALID, 1, 5, "'f16' has no scales");
}
END_TEST

START_TEST(a_rule_that_matches_nothing_is_an_error)
{
    refuses("vision.* = nf4\n  visoin.* = nf4", MMQ_ERR_INVALID, 2, 3,
            "'visoin.*' matches no linear");
    refuses("vision.* = nf4; language.layers.{4-11}.* = nf4", MMQ_ERR_INVALID, 1, 17, "matches no");
    /* Norms, biases and convolutions cannot be chosen. */
    refuses("vision.patch = nf4", MMQ_ERR_INVALID, 1, 1, "matches no");
    refuses("*norm* = f32", MMQ_ERR_INVALID, 1, 1, "matches no");
    refuses("language.rope = f32", MMQ_ERR_INVALID, 1, 1, "matches no");
    refuses("projector.2 = keep", MMQ_ERR_INVALID, 1, 1, "matches no");
    /* One that later rules take everything from has matched. */
    MAKES("projector.0 = nf4; projector.* = int8", {"projector.0", "int8"});
}
END_TEST

START_TEST(names_stand_alone)
{
    refuses("nf4; vision.* = int8", MMQ_ERR_INVALID, 1, 1, "'nf4' stands alone");
    refuses("vision.* = int8\nlayered", MMQ_ERR_INVALID, 2, 1, "'layered' stands alone");
    refuses("nf4; int8", MMQ_ERR_INVALID, 1, 1, "'nf4' stands alone");
}
END_TEST

START_TEST(a_text_beyond_the_limit_is_refused)
{
    char *text = malloc(MMQI_MAX_RULES_BYTES + 2);
    struct table *t = make_table();
    struct mmqi_choice *choices;

    memset(text, ' ', MMQI_MAX_RULES_BYTES + 1);
    text[MMQI_MAX_RULES_BYTES + 1] = '\0';
    memcpy(text, "nf4", 3);
    ck_assert_int_eq(mmqi_policy_apply(&choices, &t->model, text, MMQI_METHOD_RTN), MMQ_ERR_LIMIT);
    ck_assert_ptr_null(choices);
    text[MMQI_MAX_RULES_BYTES] = '\0';
    choices = apply(t, text);
    mmqi_free(choices);
    free(t);
    free(text);
}
END_TEST

/* ---- groups, shared storage, packed sources ---- */

START_TEST(a_rule_that_splits_a_group_is_an_error)
{
    refuses("vision.* = nf4\nlanguage.layers.3.attn.q = nf4", MMQ_ERR_INVALID, 2, 1,
            "q, k and v share one format");
    refuses("language.layers.*.attn.{q,k} = nf4", MMQ_ERR_INVALID, 1, 1, "q, k and v share");
    refuses("* = nf4;  language.layers.12.attn.v = keep", MMQ_ERR_INVALID, 1, 11,
            "'language.layers.12.attn.q' would be nf4");
    refuses("*.mlp.up = int8", MMQ_ERR_INVALID, 1, 1, "gate and up share one format");
    /* Methods may differ, and one format by two rules is one. */
    MAKES("*.attn.q = nf4; *.attn.{k,v} = nf4 search", {"vision.blocks.0.attn.q", "nf4"},
          {"vision.blocks.0.attn.v", "nf4 search"}, {"language.layers.3.attn.o", "-"});
    MAKES("language.layers.3.attn.q = bf16", {"language.layers.3.attn.q", "-"});
}
END_TEST

START_TEST(a_shared_weight_follows_its_storage_under_either_name)
{
    static const char *const policies[] = {"language.embed = int8", "language.head = int8",
                                           "language.head = nf4; language.embed = int8"};

    for (size_t k = 0; k < 3; k++) {
        struct table *t = make_table();
        int32_t embed = mmqi_model_find(&t->model, "language.embed");
        struct mmqi_choice *choices;

        t->weights[mmqi_model_find(&t->model, "language.head")].same_as = embed;
        choices = apply(t, policies[k]);
        ck_assert_str_eq(choice_of(t, choices, "language.embed"), "int8");
        ck_assert_str_eq(choice_of(t, choices, "language.head"), "int8");
        has_reason(t, choices, "language.head", "shared: language.embed");
        mmqi_free(choices);
        free(t);
    }
}
END_TEST

START_TEST(what_is_packed_already_stays_or_is_refused)
{
    struct table *t = make_table();
    struct mmqi_choice *choices;

    t->weights[mmqi_model_find(&t->model, "projector.1")].stored = MMQI_FORMAT_INT8;
    choices = apply(t, "layered");
    ck_assert_str_eq(choice_of(t, choices, "projector.0"), "int8");
    ck_assert_str_eq(choice_of(t, choices, "projector.1"), "-");
    mmqi_free(choices);
    choices = apply(t, "vision.* = nf4");
    has_reason(t, choices, "projector.1", "kept: stored as int8");
    mmqi_free(choices);
    ck_assert_int_eq(
        mmqi_policy_apply(&choices, &t->model, "vision.* = nf4\n* = bf16", MMQI_METHOD_RTN),
        MMQ_ERR_UNSUPPORTED);
    ck_assert_str_eq(mmqi_message(), "policy, line 2, column 5: a folder: 'projector.1' is already "
                                     "int8; quantize the original to bf16");
    free(t);
}
END_TEST

/* ---- plans ---- */

START_TEST(a_plan_is_for_models_of_the_same_weights)
{
    struct table *t = make_table();
    struct mmqi_quant_plan *plan;

    ck_assert_int_eq(mmqi_quant_plan_create(&plan, &t->model, "layered", MMQI_METHOD_RTN), MMQ_OK);
    ck_assert_int_eq(mmqi_quant_plan_check(plan, &t->model), MMQ_OK);
    ck_assert_ptr_nonnull(strstr(mmqi_report_json(plan->report), "layered: projector"));
    ck_assert_ptr_null(strstr(mmqi_report_json(plan->report), "peak_bytes"));
    t->weights[3].rows++;
    ck_assert_int_eq(mmqi_quant_plan_check(plan, &t->model), MMQ_ERR_MISMATCH);
    ck_assert_ptr_nonnull(strstr(mmqi_message(), t->weights[3].name));
    t->weights[3].rows--;
    t->weights[3].stored = MMQI_FORMAT_INT8;
    ck_assert_int_eq(mmqi_quant_plan_check(plan, &t->model), MMQ_ERR_MISMATCH);
    t->weights[3].stored = MMQI_FORMAT_BF16;
    t->text[5][0] = 'x';
    ck_assert_int_eq(mmqi_quant_plan_check(plan, &t->model), MMQ_ERR_MISMATCH);
    t->text[5][0] = 'v';
    t->model.n_weights--;
    ck_assert_int_eq(mmqi_quant_plan_check(plan, &t->model), MMQ_ERR_MISMATCH);
    mmqi_quant_plan_free(plan);
    ck_assert_int_eq(mmqi_quant_plan_create(&plan, &t->model, "x.* = nf4", MMQI_METHOD_RTN),
                     MMQ_ERR_INVALID);
    ck_assert_ptr_null(plan);
    mmqi_quant_plan_free(NULL);
    free(t);
}
END_TEST

struct countdown {
    int64_t left, n_live;
};

static void *counted_alloc(void *user, size_t size)
{
    struct countdown *countdown = user;
    void *block = countdown->left-- > 0 ? malloc(size) : NULL;

    countdown->n_live += block != NULL;
    return block;
}

static void counted_free(void *user, void *block)
{
    ((struct countdown *)user)->n_live -= block != NULL;
    free(block);
}

START_TEST(memory_refused_at_any_moment_leaks_nothing)
{
    struct table *t = make_table();
    int32_t status = MMQ_ERR_NOMEM;

    for (int64_t n = 0; status == MMQ_ERR_NOMEM; n++) {
        struct countdown countdown = {n, 0};
        struct mmqi_mem_hooks hooks = {counted_alloc, counted_free, &countdown};
        const struct mmqi_mem_hooks *before = mmqi_mem_enter(&hooks);
        struct mmqi_quant_plan *plan;

        status =
            mmqi_quant_plan_create(&plan, &t->model, "* = nf4; vision.* = int8", MMQI_METHOD_RTN);
        ck_assert(status == MMQ_OK || (status == MMQ_ERR_NOMEM && !plan));
        mmqi_quant_plan_free(plan);
        mmqi_mem_enter(before);
        ck_assert_int_eq(countdown.n_live, 0);
    }
    free(t);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("policy");
    TCase *tests = tcase_create("policy");
    SRunner *runner = srunner_create(suite);
    int failed;

    tcase_add_test(tests, a_star_is_any_text_and_none);
    tcase_add_test(tests, braces_are_a_choice_of_names);
    tcase_add_test(tests, a_range_is_a_whole_number);
    tcase_add_test(tests, a_long_pattern_takes_no_long_time);
    tcase_add_test(tests, weights_that_no_rule_matches_are_kept);
    tcase_add_test(tests, the_last_rule_that_matches_wins);
    tcase_add_test(tests, blanks_comments_and_empty_rules_do_not_count);
    tcase_add_test(tests, convolutions_and_norms_that_a_pattern_covers_are_kept);
    tcase_add_test(tests, every_format_can_be_named);
    tcase_add_test(tests, a_method_stands_after_the_format_or_comes_from_the_caller);
    tcase_add_test(tests, methods_have_names);
    tcase_add_test(tests, plain_formats_convert_what_is_stored_otherwise);
    tcase_add_test(tests, a_format_alone_is_for_every_linear);
    tcase_add_test(tests, layered_packs_the_tower_most_and_leaves_attention_alone);
    tcase_add_test(tests, every_choice_tells_its_reason);
    tcase_add_test(tests, a_long_rule_gives_a_reason_that_is_cut);
    tcase_add_test(tests, what_does_not_parse_is_told_by_line_and_column);
    tcase_add_test(tests, braces_that_do_not_parse_are_told_by_line_and_column);
    tcase_add_test(tests, unknown_names_are_told_by_line_and_column);
    tcase_add_test(tests, a_rule_that_matches_nothing_is_an_error);
    tcase_add_test(tests, names_stand_alone);
    tcase_add_test(tests, a_text_beyond_the_limit_is_refused);
    tcase_add_test(tests, a_rule_that_splits_a_group_is_an_error);
    tcase_add_test(tests, a_shared_weight_follows_its_storage_under_either_name);
    tcase_add_test(tests, what_is_packed_already_stays_or_is_refused);
    tcase_add_test(tests, a_plan_is_for_models_of_the_same_weights);
    tcase_add_test(tests, memory_refused_at_any_moment_leaks_nothing);
    suite_add_tcase(suite, tests);
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
