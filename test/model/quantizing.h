/* What tests of quantization share: the tiny model (bf16), policies applied, weights compared. */
#ifndef TEST_QUANTIZING_H
#define TEST_QUANTIZING_H

#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "core/mem.h"
#include "core/status.h"
#include "quant/apply.h"
#include "scratch.h"

static inline const char *tiny_path(void)
{
    return source_path("test/golden/llava_tiny/model");
}

static inline struct mmqi_model *open_model(const char *path)
{
    struct mmqi_store *store;
    struct mmqi_model *model;

    ck_assert_msg(mmqi_store_open_folder(&store, path) == MMQ_OK, "%s", mmqi_message());
    ck_assert_msg(mmqi_model_open(&model, store) == MMQ_OK, "%s", mmqi_message());
    mmqi_store_release(store);
    return model;
}

/* To be freed with mmqi_free(). */
static inline struct mmqi_choice *choose(const struct mmqi_model *source, const char *policy)
{
    struct mmqi_choice *choices;

    ck_assert_msg(mmqi_policy_apply(&choices, source, policy, MMQI_METHOD_RTN) == MMQ_OK, "%s: %s",
                  policy, mmqi_message());
    return choices;
}

/* Quantize into `out_path` (NULL: none) and, if asked for, memory; it must succeed. */
static inline struct mmqi_model *quantize(const struct mmqi_model *source, const char *policy,
                                          const char *out_path, bool in_memory)
{
    struct mmqi_choice *choices = choose(source, policy);
    struct mmqi_quantize_options options = {.choices = choices, .out_path = out_path};
    struct mmqi_model *model = NULL;

    ck_assert_msg(mmqi_quantize(in_memory ? &model : NULL, source, &options, NULL) == MMQ_OK,
                  "%s: %s", policy, mmqi_message());
    mmqi_free(choices);
    return model;
}

/* Canonical bytes of one part as it is stored; to be freed. */
static inline uint8_t *part_bytes(const struct mmqi_model *model, int32_t weight, int32_t part)
{
    uint64_t size = model->weights[weight].stored_layout.part[part].bytes;
    uint8_t *data = malloc(size + 1);

    ck_assert_msg(mmqi_model_read_part(model, weight, part, 0, data, size) == MMQ_OK, "%s",
                  mmqi_message());
    return data;
}

static inline void same_weight(const struct mmqi_model *a, const struct mmqi_model *b, int32_t i)
{
    const struct mmqi_weight *x = &a->weights[i], *y = &b->weights[i];

    ck_assert_str_eq(x->name, y->name);
    ck_assert_msg(x->stored == y->stored, "%s: %d, %d", x->name, x->stored, y->stored);
    ck_assert_int_eq(x->stored_layout.n_parts, y->stored_layout.n_parts);
    ck_assert_int_eq(x->same_as, y->same_as);
    for (int32_t k = 0; k < x->stored_layout.n_parts; k++) {
        uint8_t *p = part_bytes(a, i, k), *q = part_bytes(b, i, k);

        ck_assert_uint_eq(x->stored_layout.part[k].bytes, y->stored_layout.part[k].bytes);
        ck_assert_msg(memcmp(p, q, x->stored_layout.part[k].bytes) == 0, "%s, part %d", x->name, k);
        free(p);
        free(q);
    }
}

static inline void same_weights(const struct mmqi_model *a, const struct mmqi_model *b)
{
    ck_assert_int_eq(a->n_weights, b->n_weights);
    for (int32_t i = 0; i < a->n_weights; i++)
        same_weight(a, b, i);
}

#endif
