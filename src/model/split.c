/*
 * Splitting a model over places: which device each segment of the graphs runs on, and which devices
 * hold each weight.
 *
 * Rules over canonical names give weights their places. Segments are not cut: a segment runs where
 * its weights are. A weight that several segments read (a tied head) lies wherever one of them
 * runs; constants, which no rule names, likewise.
 */
#include <string.h>

#include "core/mem.h"
#include "core/status.h"
#include "graph/op.h"
#include "model/model.h"

struct splitting {
    struct mmqi_model *model;
    const struct mmqi_rules *rules;
    const int32_t *places; /* [rules->n] */
    int32_t *rule_of;      /* [n_weights] the last rule that matches, -1: none; NULL: no rules */
};

static int32_t alloc_split(struct mmqi_split *split, const struct mmqi_model *model)
{
    size_t n_vision = (size_t)mmqi_graph_n_segments(model->vision) + 1;
    size_t n_language = (size_t)mmqi_graph_n_segments(model->language) + 1;

    split->vision = mmqi_calloc(n_vision, sizeof *split->vision);
    split->language = mmqi_calloc(n_language, sizeof *split->language);
    split->weights = mmqi_calloc((size_t)model->n_weights + 1, sizeof *split->weights);
    if (split->vision && split->language && split->weights)
        return MMQ_OK;
    return mmqi_fail(MMQ_ERR_NOMEM, "%s: no memory to split %d weights", model->path,
                     (int)model->n_weights);
}

void mmqi_split_clear(struct mmqi_split *split)
{
    mmqi_free(split->vision);
    mmqi_free(split->language);
    mmqi_free(split->weights);
    memset(split, 0, sizeof *split);
}

/* ---- rules ---- */

static bool is_named(const struct mmqi_weight *weight)
{
    return weight->role != MMQI_ROLE_CONSTANT;
}

static int32_t match_rule(const struct splitting *s, size_t r)
{
    const struct mmqi_rule_word *pattern = &s->rules->rule[r].pattern;
    bool found = false;

    for (int32_t i = 0; i < s->model->n_weights; i++) {
        const struct mmqi_weight *weight = &s->model->weights[i];

        if (!is_named(weight) || !mmqi_rule_matches(pattern, weight->name))
            continue;
        s->rule_of[i] = (int32_t)r;
        found = true;
    }
    if (found)
        return MMQ_OK;
    return mmqi_rule_fail(MMQ_ERR_INVALID, pattern, "'%.*s' matches no weight of this model",
                          (int)pattern->size, pattern->text);
}

/* A rule that one later rule takes everything from was meant to come after it. */
static int32_t check_hidden(const struct splitting *s, size_t r)
{
    const struct mmqi_rule_word *pattern = &s->rules->rule[r].pattern, *by;
    int32_t winner = -1;

    for (int32_t i = 0; i < s->model->n_weights; i++) {
        const struct mmqi_weight *weight = &s->model->weights[i];

        if (!is_named(weight) || !mmqi_rule_matches(pattern, weight->name))
            continue;
        if (s->rule_of[i] == (int32_t)r || (winner >= 0 && s->rule_of[i] != winner))
            return MMQ_OK;
        winner = s->rule_of[i];
    }
    by = &s->rules->rule[winner].pattern;
    return mmqi_rule_fail(MMQ_ERR_INVALID, pattern,
                          "'%.*s' gives no weight its device: '%.*s' comes later and wins",
                          (int)pattern->size, pattern->text, (int)by->size, by->text);
}

static int32_t match_rules(struct splitting *s)
{
    struct mmqi_model *model = s->model;
    size_t n = (size_t)model->n_weights;
    int32_t status = MMQ_OK;

    s->rule_of = mmqi_alloc_array(n + 1, sizeof *s->rule_of);
    if (!s->rule_of)
        return mmqi_fail(MMQ_ERR_NOMEM, "%s: no memory to split %zu weights", model->path, n);
    for (size_t i = 0; i < n; i++)
        s->rule_of[i] = -1;
    for (size_t r = 0; r < s->rules->n && status == MMQ_OK; r++)
        status = match_rule(s, r);
    for (size_t r = 0; r < s->rules->n && status == MMQ_OK; r++)
        status = check_hidden(s, r);
    for (size_t i = 0; i < n && status == MMQ_OK; i++)
        if (is_named(&model->weights[i]) && s->rule_of[i] < 0)
            status = mmqi_fail(MMQ_ERR_INVALID,
                               "%s: no rule gives a device to '%s'; the first may be '* = DEVICE'",
                               s->rules->rule[0].target.kind->name, model->weights[i].name);
    return status;
}

/* ---- segments ---- */

/* The weights that a node reads, at most 4. */
static int32_t weights_of(const struct mmqi_graph *graph, const struct mmqi_node *node,
                          int32_t weights[4])
{
    int32_t n = 0;

    if (node->weight >= 0)
        weights[n++] = node->weight;
    if (node->bias >= 0)
        weights[n++] = node->bias;
    for (int k = 0; k < 2; k++) {
        const struct mmqi_value *value;

        if (node->in[k] < 0)
            continue;
        value = mmqi_graph_value_at(graph, mmqi_value_root(graph, node->in[k]));
        if (value->kind == MMQI_VALUE_WEIGHT)
            weights[n++] = value->weight;
    }
    return n;
}

static int32_t cut(const struct splitting *s, const struct mmqi_segment *segment, int32_t a,
                   int32_t b)
{
    const struct mmqi_rule *x = &s->rules->rule[s->rule_of[a]], *y = &s->rules->rule[s->rule_of[b]];
    const struct mmqi_weight *weights = s->model->weights;

    return mmqi_rule_fail(
        MMQ_ERR_INVALID, x > y ? &x->pattern : &y->pattern,
        "segment '%s' runs on one device, but '%s' would be on %.*s and '%s' on %.*s",
        segment->name, weights[a].name, (int)x->target.size, x->target.text, weights[b].name,
        (int)y->target.size, y->target.text);
}

/* *place of the segment that its weights are at; -1 where it has none that rules name. */
static int32_t find_place(const struct splitting *s, const struct mmqi_graph *graph,
                          const struct mmqi_segment *segment, int32_t *place)
{
    int32_t weights[4], first = -1;

    *place = -1;
    for (int32_t i = segment->begin; i < segment->end; i++) {
        int32_t n = weights_of(graph, mmqi_graph_node_at(graph, i), weights);

        for (int32_t k = 0; k < n; k++) {
            int32_t w = weights[k], at;

            if (!is_named(&s->model->weights[w]))
                continue;
            at = s->places[s->rule_of[w]];
            if (first >= 0 && at != *place)
                return cut(s, segment, first, w);
            first = w;
            *place = at;
        }
    }
    return MMQ_OK;
}

/* A segment without weights runs with the one before it, or after it. */
static int32_t find_places(const struct splitting *s, const struct mmqi_graph *graph, int32_t *out)
{
    int32_t n = mmqi_graph_n_segments(graph), last = -1, status = MMQ_OK;

    for (int32_t i = 0; i < n && status == MMQ_OK; i++) {
        status = find_place(s, graph, mmqi_graph_segment_at(graph, i), &out[i]);
        if (out[i] < 0)
            out[i] = last;
        last = out[i];
    }
    for (int32_t i = n - 1, next = 0; i >= 0; next = out[i--])
        if (out[i] < 0)
            out[i] = next;
    return status;
}

/* ---- weights ---- */

static void note_use(struct mmqi_split *split, const struct mmqi_model *model, int32_t weight,
                     int32_t place)
{
    int32_t same_as = model->weights[weight].same_as;

    split->weights[same_as >= 0 ? same_as : weight] |= UINT32_C(1) << place;
}

static void note_uses(struct mmqi_split *split, const struct mmqi_model *model,
                      const struct mmqi_graph *graph, const int32_t *places)
{
    int32_t weights[4];

    for (int32_t i = 0; i < mmqi_graph_n_segments(graph); i++) {
        const struct mmqi_segment *segment = mmqi_graph_segment_at(graph, i);

        for (int32_t k = segment->begin; k < segment->end; k++) {
            int32_t n = weights_of(graph, mmqi_graph_node_at(graph, k), weights);

            while (n > 0)
                note_use(split, model, weights[--n], places[i]);
        }
    }
}

/* What no segment reads lies where its name says. */
static void find_weights(struct mmqi_split *split, const struct splitting *s)
{
    const struct mmqi_model *model = s->model;

    note_uses(split, model, model->vision, split->vision);
    note_uses(split, model, model->language, split->language);
    for (int32_t i = 0; i < model->n_weights; i++)
        if (split->weights[i] == 0 && model->weights[i].same_as < 0)
            note_use(split, model, i,
                     s->rule_of && s->rule_of[i] >= 0 ? s->places[s->rule_of[i]] : 0);
}

int32_t mmqi_model_split(struct mmqi_model *model, const struct mmqi_rules *rules,
                         const int32_t *places, int32_t n_places)
{
    struct splitting s = {.model = model, .rules = rules, .places = places};
    struct mmqi_split split = {.n_places = n_places};
    int32_t status = alloc_split(&split, model);

    if (status == MMQ_OK && rules)
        status = match_rules(&s);
    if (status == MMQ_OK && rules)
        status = find_places(&s, model->vision, split.vision);
    if (status == MMQ_OK && rules)
        status = find_places(&s, model->language, split.language);
    if (status == MMQ_OK) {
        find_weights(&split, &s);
        mmqi_split_clear(&model->split);
        model->split = split;
    } else {
        mmqi_split_clear(&split);
    }
    mmqi_free(s.rule_of);
    return status;
}
