/*
 * Declaring weights, and the index by name.
 *
 * The table grows by doubling; it is complete before anything points into it.
 */
#include "model/weights.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/mem.h"
#include "core/status.h"

enum { MAX_WEIGHTS = 1 << 20 };

bool mmqi_join_name(char out[MMQI_MAX_WEIGHT_NAME], const char *at, const char *name)
{
    int length = snprintf(out, MMQI_MAX_WEIGHT_NAME, "%s%s%s", at, at[0] ? "." : "", name);

    return length > 0 && length < MMQI_MAX_WEIGHT_NAME;
}

/* A zeroed weight at the end of the table, named; NULL after a failure. */
static struct mmqi_weight *new_weight(struct mmqi_declare *d, const char *name, int32_t role)
{
    struct mmqi_model *model = d->model;
    size_t n = (size_t)model->n_weights;
    char full[MMQI_MAX_WEIGHT_NAME];
    struct mmqi_weight *weight, *grown;

    if (d->status != MMQ_OK)
        return NULL;
    if (n >= MAX_WEIGHTS || !mmqi_join_name(full, d->at, name)) {
        d->status = mmqi_fail(MMQ_ERR_LIMIT, "%s: too many weights or too long a name at '%s'",
                              model->path, name);
        return NULL;
    }
    if ((n & (n - 1)) == 0) {
        grown = mmqi_realloc_array(model->weights, n ? 2 * n : 1, sizeof *model->weights);
        if (grown)
            model->weights = grown;
        else
            d->status = MMQ_ERR_NOMEM;
    }
    weight = d->status == MMQ_OK ? &model->weights[n] : NULL;
    if (weight) {
        memset(weight, 0, sizeof *weight);
        weight->name = mmqi_strdup(full);
    }
    if (!weight || !weight->name) {
        d->status = mmqi_fail(MMQ_ERR_NOMEM, "%s: no memory for the weight table", model->path);
        return NULL;
    }
    weight->role = role;
    weight->flags = d->flags;
    weight->same_as = -1;
    model->n_weights++;
    return weight;
}

void mmqi_declare_weight(struct mmqi_declare *d, const char *name, int32_t role, int32_t rank,
                         const int64_t *shape)
{
    struct mmqi_weight *weight = new_weight(d, name, role);

    if (!weight)
        return;
    weight->rank = rank;
    weight->rows = rank == 1 ? 1 : shape[0];
    weight->cols = rank == 1 ? shape[0] : 1;
    for (int32_t i = 0; i < rank; i++) {
        weight->shape[i] = shape[i];
        if (i > 0)
            weight->cols *= shape[i]; /* families bound every number: no product wraps */
    }
}

void mmqi_declare_vector(struct mmqi_declare *d, const char *name, int64_t n)
{
    mmqi_declare_weight(d, name, MMQI_ROLE_VECTOR, 1, &n);
}

static void declare_bias(struct mmqi_declare *d, const char *name, int64_t n)
{
    char bias[MMQI_MAX_WEIGHT_NAME];

    if (!mmqi_join_name(bias, name, "bias") && d->status == MMQ_OK)
        d->status = mmqi_fail(MMQ_ERR_LIMIT, "%s: too long a name: '%s'", d->model->path, name);
    mmqi_declare_vector(d, bias, n);
}

void mmqi_declare_linear(struct mmqi_declare *d, const char *name, int64_t rows, int64_t cols,
                         bool bias)
{
    const int64_t shape[2] = {rows, cols};

    mmqi_declare_weight(d, name, MMQI_ROLE_LINEAR, 2, shape);
    if (bias)
        declare_bias(d, name, rows);
}

void mmqi_declare_norm(struct mmqi_declare *d, const char *name, int64_t n, bool bias)
{
    mmqi_declare_vector(d, name, n);
    if (bias)
        declare_bias(d, name, n);
}

/* n numbers of four bytes that no file brings. */
static void declare_words(struct mmqi_declare *d, const char *name, const void *words, int64_t n)
{
    struct mmqi_weight *weight;

    mmqi_declare_weight(d, name, MMQI_ROLE_CONSTANT, 1, &n);
    if (d->status != MMQ_OK)
        return;
    weight = &d->model->weights[d->model->n_weights - 1];
    weight->format = MMQI_FORMAT_F32;
    weight->block = mmqi_alloc_aligned((size_t)n * 4);
    if (!weight->block) {
        d->status = mmqi_fail(MMQ_ERR_NOMEM, "%s: no memory for '%s'", d->model->path, name);
        return;
    }
    memcpy(weight->block, words, (size_t)n * 4);
}

void mmqi_declare_constant(struct mmqi_declare *d, const char *name, const float *values, int64_t n)
{
    declare_words(d, name, values, n);
}

void mmqi_declare_indices(struct mmqi_declare *d, const char *name, const int32_t *values,
                          int64_t n)
{
    declare_words(d, name, values, n);
}

void mmqi_declare_tied(struct mmqi_declare *d, const char *name, const char *target, int64_t rows,
                       int64_t cols)
{
    const int64_t shape[2] = {rows, cols};
    struct mmqi_weight *weight;

    mmqi_declare_weight(d, name, MMQI_ROLE_EMBED, 2, shape);
    if (d->status != MMQ_OK)
        return;
    weight = &d->model->weights[d->model->n_weights - 1];
    for (int32_t i = 0; i < d->model->n_weights - 1; i++)
        if (strcmp(d->model->weights[i].name, target) == 0)
            weight->same_as = i;
    if (weight->same_as < 0)
        d->status = mmqi_fail(MMQ_ERR_INTERNAL, "%s: '%s' is tied to '%s', which is not declared",
                              d->model->path, name, target);
}

void mmqi_weights_free(struct mmqi_model *model)
{
    for (int32_t i = 0; i < model->n_weights; i++) {
        mmqi_free(model->weights[i].name);
        mmqi_free(model->weights[i].block);
    }
    mmqi_free(model->weights);
    mmqi_free(model->by_name);
    model->weights = NULL;
    model->by_name = NULL;
    model->n_weights = 0;
}

int32_t mmqi_model_find(const struct mmqi_model *model, const char *name)
{
    int32_t low = 0, high = model->n_weights, middle;
    int order;

    while (low < high) {
        middle = low + (high - low) / 2;
        order = strcmp(name, model->by_name[middle].name);
        if (order == 0)
            return model->by_name[middle].weight;
        if (order < 0)
            high = middle;
        else
            low = middle + 1;
    }
    return -1;
}
