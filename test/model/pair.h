/*
 * Two pictures in one prompt, and a session that may have been used before: what holds of every
 * family, whatever its pictures become. A test says how its fixture is opened.
 */
#ifndef MMQ_TEST_PAIR_H
#define MMQ_TEST_PAIR_H

#include "model/tiny.h"

struct pair {
    mmq_model *model;
    mmq_session *session;
    mmq_image *images[2];
    const mmq_image *list[2];
    mmq_prompt prompt;
    const int32_t *targets; /* that logits are asked for */
    size_t n_targets;
};

struct logits {
    float *data;
    size_t n;
};

__attribute__((unused)) static int32_t keep_logits(void *user, size_t index, const float *row,
                                                   size_t n_vocab)
{
    struct logits *logits = user;

    (void)index;
    logits->data = realloc(logits->data, (logits->n + n_vocab) * sizeof *row);
    memcpy(logits->data + logits->n, row, n_vocab * sizeof *row);
    logits->n += n_vocab;
    return 0;
}

__attribute__((unused)) static void same_logits(struct logits *a, struct logits *b)
{
    ck_assert_uint_eq(a->n, b->n);
    ck_assert_uint_gt(a->n, 0);
    ck_assert_mem_eq(a->data, b->data, a->n * sizeof *a->data);
}

/* `text` has a marker for each of the two pictures, which the pair owns from here on. */
__attribute__((unused)) static void open_pair(struct pair *p, const char *folder, const char *text,
                                              mmq_image *first, mmq_image *second, int32_t chunk)
{
    mmq_session_options options = {.struct_size = sizeof options, .chunk = chunk};

    memset(p, 0, sizeof *p);
    ASSERT_OK(mmq_load(&p->model, source_path(folder), NULL));
    ASSERT_OK(mmq_session_create(&p->session, p->model, &options));
    p->list[0] = p->images[0] = first;
    p->list[1] = p->images[1] = second;
    p->prompt = (mmq_prompt){
        .struct_size = sizeof p->prompt, .text = text, .images = p->list, .n_images = 2};
}

__attribute__((unused)) static void close_pair(struct pair *p)
{
    mmq_session_free(p->session);
    mmq_image_free(p->images[0]);
    mmq_image_free(p->images[1]);
    mmq_model_free(p->model);
}

__attribute__((unused)) static struct logits evaluate(struct pair *p)
{
    struct logits logits = {0};
    mmq_evaluate_request request = {.struct_size = sizeof request,
                                    .prompt = &p->prompt,
                                    .targets = p->targets,
                                    .n_targets = p->n_targets,
                                    .on_logits = keep_logits,
                                    .logits_user = &logits};
    mmq_evaluation *evaluation;

    ASSERT_OK(mmq_evaluate(&evaluation, p->session, &request));
    mmq_evaluation_free(evaluation);
    return logits;
}

/* The logits are the same to the bit whatever the chunk. */
__attribute__((unused)) static void check_chunks(void (*open)(struct pair *, int32_t chunk),
                                                 const int32_t *chunks, size_t n)
{
    struct logits first = {0}, other;
    struct pair p;

    for (size_t i = 0; i < n; i++) {
        open(&p, chunks[i]);
        other = evaluate(&p);
        if (i == 0)
            first = other;
        same_logits(&first, &other);
        if (i > 0)
            free(other.data);
        close_pair(&p);
    }
    free(first.data);
}

/* And wherever the session was truncated before. */
__attribute__((unused)) static void check_truncation(void (*open)(struct pair *, int32_t chunk))
{
    struct logits first, other;
    struct pair p;
    int32_t length;

    open(&p, 0);
    first = evaluate(&p);
    length = mmq_session_length(p.session);
    for (int32_t keep = 0; keep < length; keep += 3) {
        ASSERT_OK(mmq_session_truncate(p.session, keep));
        other = evaluate(&p);
        same_logits(&first, &other);
        free(other.data);
    }
    free(first.data);
    close_pair(&p);
}

#endif
