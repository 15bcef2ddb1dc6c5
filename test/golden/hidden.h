/*
 * Block by block: what every segment makes against the modules' outputs that a case holds for its
 * first prompt, pK.hidden.MODULE. Modules without a segment of their own are left to what follows.
 */
#ifndef TEST_GOLDEN_HIDDEN_H
#define TEST_GOLDEN_HIDDEN_H

#include <stdlib.h>
#include <string.h>

#include "core/mem.h"
#include "model/family.h"
#include "runtime/session.h"

/* A module's place in a file's name, and the segment it is. */
static const struct {
    const char *module, *segment;
} hidden_modules[] = {
    {"visual.blocks.", "vision.blocks."},
    {"vision_tower.encoder.layers.", "vision.blocks."},
    {"vision_model.encoder.layers.", "vision.blocks."},
    {"language_model.layers.", "language.layers."},
    {"text_model.layers.", "language.layers."},
    {"vision_model.embeddings", "vision.embed"},
    {"vision_model.post_layernorm", "vision.norm"},
    {"connector", "projector"},
};

/* Rows that a segment made, in the order in which they came. */
struct hidden {
    const char *segment;
    struct mmqi_session *session;
    float *rows;
    size_t n;
    int32_t status;
};

/* Towers that look positions up may have their patches in an order of their own: then row i, from
 * `rows` on, is that of patch ids[i]. */
static int32_t sort_patches(const struct hidden *h, float *rows, const struct mmqi_mat *live_out)
{
    const struct mmqi_model *model = h->session->model;
    size_t n = (size_t)live_out->rows, cols = (size_t)live_out->cols;
    int32_t *ids = malloc(n * sizeof *ids);
    float *copy = malloc(n * cols * sizeof *copy);
    int32_t status = ids && copy ? MMQ_OK : MMQ_ERR_NOMEM;

    if (status == MMQ_OK) {
        memcpy(copy, rows, n * cols * sizeof *copy);
        model->family->patch_ids(ids, model, &h->session->picture.views.view[0]);
        for (size_t i = 0; i < n; i++)
            memcpy(rows + (size_t)ids[i] * cols, copy + i * cols, cols * sizeof *copy);
    }
    free(ids);
    free(copy);
    return status;
}

static int32_t keep_rows(void *user, const struct mmqi_segment *segment,
                         const struct mmqi_mat *live_out)
{
    struct hidden *h = user;
    int32_t place = 0; /* golden cases are not split */
    const struct mmqi_place *at = &h->session->host->place[place].at;
    float *rows;

    if (!live_out || live_out->stride != live_out->cols || strcmp(segment->name, h->segment) != 0)
        return MMQ_OK;
    size_t n = (size_t)(live_out->rows * live_out->cols);
    rows = realloc(h->rows, (h->n + n) * sizeof *rows);
    if (!rows)
        return MMQ_ERR_NOMEM;
    h->rows = rows;
    h->status = at->backend->stream_wait(h->session->parts[place].stream);
    if (h->status == MMQ_OK)
        h->status =
            at->backend->download(at->device, rows + h->n, live_out->data, n * sizeof *rows);
    if (h->status == MMQ_OK && h->session->model->family->patch_ids &&
        strncmp(segment->name, "vision.", 7) == 0)
        h->status = sort_patches(h, rows + h->n, live_out);
    h->n += n;
    return h->status;
}

static int32_t ignore_logits(void *user, size_t index, const float *logits)
{
    (void)user, (void)index, (void)logits;
    return MMQ_OK;
}

/* The segment of a tensor "p0.hidden.MODULE" in `name` [64]; false when it has none. */
static bool find_segment(char *name, const char *tensor)
{
    static const char prefix[] = "p0.hidden.";
    size_t skip = sizeof prefix - 1, n;

    if (strncmp(tensor, prefix, skip) != 0)
        return false;
    for (size_t i = 0; i < sizeof hidden_modules / sizeof *hidden_modules; i++) {
        n = strlen(hidden_modules[i].module);
        if (strncmp(tensor + skip, hidden_modules[i].module, n) != 0)
            continue;
        snprintf(name, 64, "%s%s", hidden_modules[i].segment, tensor + skip + n);
        return true;
    }
    return false;
}

/* Layers behind the one that the projector reads are in files and not in the graph. */
static bool has_segment(const struct mmqi_model *model, const char *name)
{
    const struct mmqi_graph *graphs[] = {model->vision, model->language};

    for (int i = 0; i < 2; i++)
        for (int32_t s = 0; s < mmqi_graph_n_segments(graphs[i]); s++)
            if (strcmp(mmqi_graph_segment_at(graphs[i], s)->name, name) == 0)
                return true;
    return false;
}

/* All that `segment` makes of the prompt: h->rows is the caller's to free. */
static int32_t run_hidden(struct hidden *h, const struct mmqi_tokens *tokens,
                          const struct mmqi_prompt *prompt)
{
    struct mmqi_watch watch = {.after = keep_rows, .after_user = h};
    struct mmqi_session *session = h->session;
    int32_t kept, status;

    mmqi_session_truncate(session, 0);
    session->encoded = -1;
    status = mmqi_session_match(session, (struct mmqi_tokens *)tokens, prompt->images,
                                prompt->n_images, 0, &kept);
    if (status == MMQ_OK)
        status = mmqi_session_run(session, tokens->data, tokens->n, tokens->n - 1, ignore_logits,
                                  NULL, &watch);
    mmqi_session_truncate(session, 0);
    return status;
}

#endif
