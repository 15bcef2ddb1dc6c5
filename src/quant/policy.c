/*
 * Applying a policy to the weights of a model.
 */
#include "quant/policy.h"

#include <stdio.h>
#include <string.h>

#include "core/mem.h"
#include "core/rules.h"
#include "core/status.h"
#include "core/text.h"

/* A part of a preset: linears whose name begins with `prefix` and has `inside` after it. */
struct preset_part {
    const char *prefix, *inside, *title;
    int32_t format;
};

struct preset {
    const char *name;
    struct preset_part part[4]; /* the first that fits; ends with a NULL prefix */
};

static const struct mmqi_rules_kind kind = {"policy", "a format", "FORMAT"};

static const struct preset presets[] = {
    {"int4", {{"", "", "every linear", MMQI_FORMAT_INT4_G64}}},
    {"layered",
     {{"vision.", "", "vision", MMQI_FORMAT_NF4},
      {"projector.", "", "projector", MMQI_FORMAT_INT8},
      {"language.", ".mlp.", "language mlp", MMQI_FORMAT_INT8}}},
};

/* What a rule asks for. */
struct target {
    int32_t format; /* -1: to keep */
    int32_t method;
};

struct job {
    const struct mmqi_model *model;
    struct mmqi_rules rules;
    struct target *targets; /* [rules.n] */
    int32_t *rule_of;       /* [n_weights] the last rule that matches its storage, or -1 */
    struct mmqi_choice *choices;
    int32_t method; /* of rules that name none */
};

/* ---- names ---- */

static const char *const methods[] = {
    [MMQI_METHOD_RTN] = "rtn",
    [MMQI_METHOD_SEARCH] = "search",
};

const char *mmqi_method_name(int32_t method)
{
    return method >= 0 && method <= MMQI_METHOD_SEARCH ? methods[method] : "none";
}

int32_t mmqi_method_find(const char *name)
{
    for (int32_t i = 0; i <= MMQI_METHOD_SEARCH; i++)
        if (strcmp(methods[i], name) == 0)
            return i;
    return -1;
}

/* The format of that name, "int4" among them; -1. */
static int32_t find_format(const struct mmqi_rule_word *word)
{
    if (mmqi_rule_word_is(word, "int4"))
        return MMQI_FORMAT_INT4_G64;
    for (int32_t i = 0; i < MMQI_N_FORMATS; i++)
        if (mmqi_format_info(i) && mmqi_rule_word_is(word, mmqi_format_info(i)->name))
            return i;
    return -1;
}

static const struct preset *find_preset(const struct mmqi_rule_word *word)
{
    for (size_t i = 0; i < sizeof presets / sizeof *presets; i++)
        if (mmqi_rule_word_is(word, presets[i].name))
            return &presets[i];
    return NULL;
}

static bool is_float(int32_t format)
{
    return mmqi_format_info(format)->is_float;
}

/* The method that a rule names, or the one of rules that name none. */
static int32_t read_method(int32_t *method, const struct job *job, const struct mmqi_rule *rule)
{
    *method = job->method;
    if (rule->extra.size == 0)
        return MMQ_OK;
    for (int32_t i = 0; i <= MMQI_METHOD_SEARCH; i++)
        if (mmqi_rule_word_is(&rule->extra, methods[i])) {
            *method = i;
            return MMQ_OK;
        }
    return mmqi_rule_fail(MMQ_ERR_UNSUPPORTED, &rule->extra, "unknown method '%.*s'",
                          (int)rule->extra.size, rule->extra.text);
}

/* Numbers that are kept or only rounded have no scales to search. */
static int32_t check_method(struct target *target, const struct mmqi_rule *rule)
{
    bool plain = target->format < 0 || is_float(target->format);

    if (!plain || target->method == MMQI_METHOD_RTN)
        return MMQ_OK;
    if (rule->extra.size > 0)
        return mmqi_rule_fail(MMQ_ERR_INVALID, &rule->extra, "'%.*s' has no scales to %s",
                              (int)rule->target.size, rule->target.text,
                              mmqi_method_name(target->method));
    target->method = MMQI_METHOD_RTN;
    return MMQ_OK;
}

static int32_t read_target(struct target *target, const struct job *job,
                           const struct mmqi_rule *rule)
{
    int32_t status = read_method(&target->method, job, rule);

    if (status != MMQ_OK)
        return status;
    target->format = find_format(&rule->target);
    if (target->format < 0 && !mmqi_rule_word_is(&rule->target, "keep"))
        return mmqi_rule_fail(MMQ_ERR_UNSUPPORTED, &rule->target, "unknown format '%.*s'",
                              (int)rule->target.size, rule->target.text);
    return check_method(target, rule);
}

/* ---- one weight ---- */

static bool is_choosable(const struct mmqi_weight *weight)
{
    return weight->role == MMQI_ROLE_LINEAR || weight->role == MMQI_ROLE_EMBED;
}

static void keep(struct mmqi_choice *choice, const struct mmqi_weight *weight)
{
    static const char *const reasons[] = {
        [MMQI_ROLE_LINEAR] = "kept: linear",       [MMQI_ROLE_EMBED] = "kept: embedding",
        [MMQI_ROLE_CONV] = "kept: convolution",    [MMQI_ROLE_VECTOR] = "kept: vector",
        [MMQI_ROLE_CONSTANT] = "kept: a constant",
    };
    const char *reason = reasons[weight->role];

    if (weight->role == MMQI_ROLE_VECTOR && mmqi_ends_with(weight->name, ".bias"))
        reason = "kept: bias";
    else if (weight->role == MMQI_ROLE_VECTOR && strstr(weight->name, "norm"))
        reason = "kept: norm";
    else if (weight->role == MMQI_ROLE_EMBED && mmqi_ends_with(weight->name, ".head"))
        reason = "kept: head";
    choice->format = weight->stored;
    choice->method = MMQI_METHOD_RTN;
    choice->change = false;
    if (is_float(weight->stored))
        mmqi_copy_text(choice->reason, sizeof choice->reason, reason);
    else
        snprintf(choice->reason, sizeof choice->reason, "kept: stored as %s",
                 mmqi_format_info(weight->stored)->name);
}

/* `at` is where the policy asks for it. The reason is the caller's to write. */
static int32_t choose(const struct job *job, int32_t i, const struct target *target,
                      const struct mmqi_rule_word *at)
{
    const struct mmqi_weight *weight = &job->model->weights[i];
    struct mmqi_choice *choice = &job->choices[i];

    choice->change = target->format != weight->stored;
    choice->format = target->format;
    choice->method = choice->change ? target->method : MMQI_METHOD_RTN;
    if (!choice->change || is_float(weight->stored))
        return MMQ_OK;
    return mmqi_rule_fail(MMQ_ERR_UNSUPPORTED, at,
                          "%s: '%s' is already %s; quantize the original to %s", job->model->path,
                          weight->name, mmqi_format_info(weight->stored)->name,
                          mmqi_format_info(target->format)->name);
}

/* ---- a name for the whole ---- */

static bool fits(const struct preset_part *part, const char *name)
{
    return mmqi_starts_with(name, part->prefix) &&
           strstr(name + strlen(part->prefix), part->inside);
}

/* The part that fits linear `i`; NULL: none. */
static const struct preset_part *part_of(const struct job *job, const struct preset *preset,
                                         int32_t i)
{
    const struct mmqi_weight *weight = &job->model->weights[i];

    if (weight->role != MMQI_ROLE_LINEAR || weight->same_as >= 0)
        return NULL;
    for (const struct preset_part *part = preset->part; part->prefix; part++)
        if (fits(part, weight->name))
            return part;
    return NULL;
}

static int32_t apply_preset(struct job *job, const struct preset *preset, int32_t method)
{
    const struct mmqi_rule *rule = &job->rules.rule[0];

    for (int32_t i = 0; i < job->model->n_weights; i++) {
        const struct preset_part *part = part_of(job, preset, i);
        struct target target;
        int32_t status;

        if (!part)
            continue;
        target = (struct target){part->format, method};
        status = check_method(&target, rule);
        if (status == MMQ_OK)
            status = choose(job, i, &target, &rule->target);
        if (status != MMQ_OK)
            return status;
        snprintf(job->choices[i].reason, sizeof job->choices[i].reason, "%s: %s", preset->name,
                 part->title);
    }
    return MMQ_OK;
}

/* A policy of one name: a preset, or a format for every linear. */
static int32_t apply_name(struct job *job)
{
    const struct mmqi_rule *rule = &job->rules.rule[0];
    const struct preset *preset = find_preset(&rule->target);
    struct preset every = {NULL, {{"", "", "every linear", 0}}};
    int32_t method, status = read_method(&method, job, rule);

    if (status != MMQ_OK)
        return status;
    every.part[0].format = find_format(&rule->target);
    if (!preset && every.part[0].format < 0)
        return mmqi_rule_fail(MMQ_ERR_UNSUPPORTED, &rule->target, "unknown format or preset '%.*s'",
                              (int)rule->target.size, rule->target.text);
    if (!preset)
        every.name = mmqi_format_info(every.part[0].format)->name;
    return apply_preset(job, preset ? preset : &every, method);
}

/* ---- rules ---- */

/* Give rule `r` every storage that it matches under any name. */
static int32_t match_rule(struct job *job, size_t r)
{
    const struct mmqi_rule *rule = &job->rules.rule[r];
    bool found = false;

    for (int32_t i = 0; i < job->model->n_weights; i++) {
        const struct mmqi_weight *weight = &job->model->weights[i];

        if (!is_choosable(weight) || !mmqi_rule_matches(&rule->pattern, weight->name))
            continue;
        job->rule_of[weight->same_as >= 0 ? weight->same_as : i] = (int32_t)r;
        found = true;
    }
    if (found)
        return MMQ_OK;
    return mmqi_rule_fail(MMQ_ERR_INVALID, &rule->pattern,
                          "'%.*s' matches no linear, embedding or head of this model",
                          (int)rule->pattern.size, rule->pattern.text);
}

static int32_t apply_rule(struct job *job, int32_t i)
{
    size_t r = (size_t)job->rule_of[i];
    const struct mmqi_rule *rule = &job->rules.rule[r];
    struct mmqi_choice *choice = &job->choices[i];
    char reason[256];
    int32_t status = MMQ_OK;

    if (job->targets[r].format >= 0)
        status = choose(job, i, &job->targets[r], &rule->target);
    snprintf(reason, sizeof reason, "rule %zu: %.*s = %.*s", r + 1, (int)rule->pattern.size,
             rule->pattern.text, (int)rule->target.size, rule->target.text);
    mmqi_copy_text(choice->reason, sizeof choice->reason, reason);
    return status;
}

static int32_t apply_rules(struct job *job)
{
    size_t n = (size_t)job->model->n_weights;
    int32_t status = MMQ_OK;

    job->targets = mmqi_calloc(job->rules.n, sizeof *job->targets);
    if (!job->targets)
        return mmqi_fail(MMQ_ERR_NOMEM, "policy: no memory for %zu rules", job->rules.n);
    for (size_t r = 0; r < job->rules.n && status == MMQ_OK; r++)
        status = read_target(&job->targets[r], job, &job->rules.rule[r]);
    for (size_t r = 0; r < job->rules.n && status == MMQ_OK; r++)
        status = match_rule(job, r);
    for (size_t i = 0; i < n && status == MMQ_OK; i++)
        if (job->rule_of[i] >= 0)
            status = apply_rule(job, (int32_t)i);
    return status;
}

/* ---- what belongs together ---- */

/* The weight that is named as `weight` with the ending `from` replaced by `to`; -1. */
static int32_t find_fellow(const struct mmqi_model *model, const struct mmqi_weight *weight,
                           const char *from, const char *to)
{
    char name[256];
    int length = snprintf(name, sizeof name, "%.*s%s", (int)(strlen(weight->name) - strlen(from)),
                          weight->name, to);

    return length > 0 && (size_t)length < sizeof name ? mmqi_model_find(model, name) : -1;
}

/* Weights `a` and `b` of one group must become the same; stored ones may differ as they are. */
static int32_t check_pair(const struct job *job, int32_t a, int32_t b, const char *group)
{
    const struct mmqi_choice *x = &job->choices[a], *y = &job->choices[b];
    int32_t last = job->rule_of[a] > job->rule_of[b] ? job->rule_of[a] : job->rule_of[b];

    if (x->format == y->format || last < 0)
        return MMQ_OK;
    return mmqi_rule_fail(MMQ_ERR_INVALID, &job->rules.rule[last].pattern,
                          "'%s' would be %s, but '%s' %s: %s share one format",
                          job->model->weights[a].name, mmqi_format_info(x->format)->name,
                          job->model->weights[b].name, mmqi_format_info(y->format)->name, group);
}

static int32_t check_groups(const struct job *job)
{
    static const struct {
        const char *first, *second, *group;
    } pairs[] = {
        {".q", ".k", "q, k and v"}, {".q", ".v", "q, k and v"}, {".gate", ".up", "gate and up"}};
    int32_t status = MMQ_OK;

    for (int32_t i = 0; i < job->model->n_weights && status == MMQ_OK; i++)
        for (size_t k = 0; k < sizeof pairs / sizeof *pairs && status == MMQ_OK; k++) {
            const struct mmqi_weight *weight = &job->model->weights[i];
            int32_t fellow = -1;

            if (weight->role == MMQI_ROLE_LINEAR && mmqi_ends_with(weight->name, pairs[k].first))
                fellow = find_fellow(job->model, weight, pairs[k].first, pairs[k].second);
            if (fellow >= 0)
                status = check_pair(job, i, fellow, pairs[k].group);
        }
    return status;
}

static void follow_shared(const struct job *job)
{
    for (int32_t i = 0; i < job->model->n_weights; i++) {
        const struct mmqi_weight *weight = &job->model->weights[i];
        char reason[256];

        if (weight->same_as < 0)
            continue;
        job->choices[i] = job->choices[weight->same_as];
        snprintf(reason, sizeof reason, "shared: %s", job->model->weights[weight->same_as].name);
        mmqi_copy_text(job->choices[i].reason, sizeof job->choices[i].reason, reason);
    }
}

/* ---- the whole ---- */

static int32_t prepare(struct job *job)
{
    size_t n = (size_t)job->model->n_weights;

    job->choices = mmqi_calloc(n, sizeof *job->choices);
    job->rule_of = mmqi_alloc_array(n, sizeof *job->rule_of);
    if (!job->choices || !job->rule_of)
        return mmqi_fail(MMQ_ERR_NOMEM, "policy: no memory for the choices of %zu weights", n);
    for (size_t i = 0; i < n; i++) {
        keep(&job->choices[i], &job->model->weights[i]);
        job->rule_of[i] = -1;
    }
    return MMQ_OK;
}

int32_t mmqi_policy_apply(struct mmqi_choice **choices, const struct mmqi_model *model,
                          const char *policy, int32_t method)
{
    struct job job = {.model = model, .method = method};
    int32_t status;

    *choices = NULL;
    status = mmqi_rules_parse(&job.rules, policy, &kind);
    if (status == MMQ_OK)
        status = prepare(&job);
    if (status == MMQ_OK)
        status = job.rules.rule[0].pattern.size == 0 ? apply_name(&job) : apply_rules(&job);
    if (status == MMQ_OK)
        status = check_groups(&job);
    if (status == MMQ_OK) {
        follow_shared(&job);
        *choices = job.choices;
        job.choices = NULL;
    }
    mmqi_free(job.choices);
    mmqi_free(job.rule_of);
    mmqi_free(job.targets);
    mmqi_rules_free(&job.rules);
    return status;
}
