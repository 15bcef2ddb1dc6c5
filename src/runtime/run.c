/* Running rows through the graphs: pictures into rows, rows into keys, values and logits. */
#include <string.h>

#include "core/mem.h"
#include "core/os.h"
#include "core/status.h"
#include "runtime/session.h"

static int32_t check_cancel(void *user, const struct mmqi_segment *segment,
                            const struct mmqi_mat *live_out)
{
    const struct mmqi_watch *watch = user;

    (void)segment;
    (void)live_out;
    if (watch && watch->cancelled && __atomic_load_n(watch->cancelled, __ATOMIC_RELAXED))
        return mmqi_fail(MMQ_ERR_CANCELLED, "session: cancelled");
    return MMQ_OK;
}

/* The part of the index block that mmqi_session_place_index() laid out. */
static int32_t upload_index(struct mmqi_session *session, size_t begin, size_t size)
{
    return session->host->backend->upload(session->host->device,
                                          (char *)session->index_block + begin,
                                          (const char *)session->host_block + begin, size);
}

/* What both graphs' runs share. */
static void begin_run(struct mmqi_run *run, struct mmqi_session *session,
                      const struct mmqi_watch *watch)
{
    const struct mmqi_session_index *index = &session->device_index;

    memset(run, 0, sizeof *run);
    run->arena = session->arena;
    run->bound[MMQI_BIND_PIXELS] = session->pixels;
    run->bound[MMQI_BIND_IMAGE] = session->image;
    run->bound[MMQI_BIND_LOGITS] = session->logits;
    run->index[MMQI_INDEX_IDS] = index->ids;
    run->index[MMQI_INDEX_POSITIONS] = index->positions;
    run->index[MMQI_INDEX_SLOTS] = index->slots;
    run->index[MMQI_INDEX_PLACE] = index->place;
    run->index[MMQI_INDEX_PICK] = index->pick;
    run->spans = index->spans;
    run->weights = session->model->placed;
    run->after = check_cancel;
    run->after_user = (void *)watch;
}

/* Pixels onto the device; session->picture tells their size. */
static int32_t upload_pixels(struct mmqi_session *session, const struct mmqi_image *image)
{
    struct mmqi_picture *picture = &session->picture;
    int32_t width, height, status;
    float *pixels = NULL;

    status = mmqi_model_measure(picture, session->model, image->width, image->height);
    if (status == MMQ_OK && picture->rows > session->layout.image_rows)
        status = mmqi_fail(MMQ_ERR_INTERNAL, "session: a picture of %d rows went by",
                           (int)picture->rows);
    if (status != MMQ_OK)
        return status;
    status = mmqi_preprocess(&pixels, &width, &height, &session->model->spec.recipe, image);
    if (status == MMQ_OK)
        status =
            session->host->backend->upload(session->host->device, session->pixels, pixels,
                                           (size_t)width * (size_t)height * 3 * sizeof *pixels);
    mmqi_free(pixels);
    return status;
}

/* Row and column of each patch, in the order in which the patches op cuts them. */
static void fill_patch_positions(int32_t *positions, const struct mmqi_spec *spec,
                                 const struct mmqi_picture *picture)
{
    int32_t merge = spec->merge, in_square = merge * merge, square, inside;

    for (int32_t i = 0; i < picture->patches; i++) {
        square = i / in_square;
        inside = i % in_square;
        positions[2 * i] = square / picture->across * merge + inside / merge;
        positions[2 * i + 1] = square % picture->across * merge + inside % merge;
    }
}

/* Every row of the tower sees every row of its picture. */
static int32_t upload_tower_index(struct mmqi_session *session)
{
    const struct mmqi_spec *spec = &session->model->spec;
    int32_t rows = session->picture.tower_rows;
    size_t begin, size = mmqi_session_place_index(session, rows, spec->tower_axes, &begin);

    for (int32_t i = 0; i < rows; i++) {
        session->host_index.slots[i] = i;
        session->host_index.spans[i] = (struct mmqi_span){0, rows};
    }
    if (spec->tower_axes == 2)
        fill_patch_positions(session->host_index.positions, spec, &session->picture);
    return upload_index(session, begin, size);
}

int32_t mmqi_session_encode(struct mmqi_session *session, int32_t picture,
                            const struct mmqi_watch *watch)
{
    const struct mmqi_model *model = session->model;
    int32_t status;
    uint64_t begin = mmqi_os_nanoseconds();
    struct mmqi_run run;

    if (session->encoded == picture)
        return MMQ_OK;
    session->encoded = -1;
    status = upload_pixels(session, session->pictures[picture]);
    if (status == MMQ_OK)
        status = upload_tower_index(session);
    if (status != MMQ_OK)
        return status;
    begin_run(&run, session, watch);
    run.rows[MMQI_ROWS_MAIN] = session->picture.patches;
    run.rows[MMQI_ROWS_IMAGE] = session->picture.rows;
    run.picture_height = session->picture.height;
    run.picture_width = session->picture.width;
    status = session->host->backend->execute(session->stream, model->vision, session->layout.vision,
                                             &run, 0, mmqi_graph_n_segments(model->vision));
    if (status == MMQ_OK)
        status = session->host->backend->stream_wait(session->stream);
    if (status != MMQ_OK)
        return status;
    session->encoded = picture;
    session->n_encoded++;
    session->encode_ns += mmqi_os_nanoseconds() - begin;
    return MMQ_OK;
}

/*
 * Rows of the next chunk: at most the chunk size, of at most one picture (its rows lie in one
 * buffer), and at most MMQI_MAX_PICK from `first_pick` on, the first whose logits are wanted. Where
 * chunks end changes nothing in the result.
 */
static size_t chunk_rows(const struct mmqi_session *session, const struct mmqi_token *tokens,
                         size_t begin, size_t n, size_t first_pick, int32_t *picture)
{
    size_t end =
        n - begin > (size_t)session->layout.chunk ? begin + (size_t)session->layout.chunk : n;
    size_t i;

    if (end > first_pick && end - first_pick > MMQI_MAX_PICK)
        end = first_pick + MMQI_MAX_PICK;
    *picture = -1;
    for (i = begin; i < end; i++) {
        if (tokens[i].picture < 0 || tokens[i].picture == *picture)
            continue;
        if (*picture >= 0)
            break;
        *picture = tokens[i].picture;
    }
    return i - begin;
}

/* Ids, places and positions of a chunk that follows what the session holds. */
static int32_t upload_chunk_index(struct mmqi_session *session, const struct mmqi_token *tokens,
                                  int32_t rows, int32_t n_pick)
{
    struct mmqi_session_index *index = &session->host_index;
    int32_t n_axes = session->model->spec.rope_axes, n = session->n_tokens, i;
    size_t begin, size = mmqi_session_place_index(session, rows, n_axes, &begin);

    for (i = 0; i < rows; i++) {
        index->ids[i] = tokens[i].id;
        memcpy(index->positions + (size_t)i * (size_t)n_axes, tokens[i].position,
               (size_t)n_axes * sizeof(int32_t));
        index->slots[i] = n + i;
        index->place[i] = tokens[i].row;
        index->spans[i] = (struct mmqi_span){0, n + i + 1};
    }
    for (i = 0; i < n_pick; i++)
        index->pick[i] = rows - n_pick + i;
    return upload_index(session, begin, size);
}

static int32_t run_chunk(struct mmqi_session *session, const struct mmqi_token *tokens,
                         int32_t rows, int32_t n_pick, const struct mmqi_watch *watch)
{
    const struct mmqi_model *model = session->model;
    int32_t begin = session->n_tokens, n_segments, status;
    struct mmqi_run run;

    status = upload_chunk_index(session, tokens, rows, n_pick);
    if (status != MMQ_OK)
        return status;
    begin_run(&run, session, watch);
    run.rows[MMQI_ROWS_MAIN] = rows;
    run.rows[MMQI_ROWS_PICK] = n_pick;
    run.rows[MMQI_ROWS_IMAGE] = session->encoded >= 0 ? session->picture.rows : 0;
    run.kv = session->kv_layers;
    n_segments = mmqi_graph_n_segments(model->language);
    if (n_pick == 0)
        n_segments--; /* the head comes last: nobody asked for its logits */
    status = session->host->backend->execute(session->stream, model->language,
                                             session->layout.language, &run, 0, n_segments);
    if (status == MMQ_OK)
        status = session->host->backend->stream_wait(session->stream);
    if (status != MMQ_OK)
        return status;
    memcpy(session->tokens + begin, tokens, (size_t)rows * sizeof *tokens);
    session->n_tokens = begin + rows;
    return MMQ_OK;
}

static int32_t give_logits(struct mmqi_session *session, float *row, size_t first, int32_t n,
                           mmqi_row_fn on_logits, void *user)
{
    size_t vocab = (size_t)session->model->spec.vocab_size;
    int32_t status = MMQ_OK, i;

    for (i = 0; i < n && status == MMQ_OK; i++) {
        status = session->host->backend->download(session->host->device, row,
                                                  session->logits + (size_t)i * vocab, vocab * 4);
        if (status == MMQ_OK)
            status = on_logits(user, first + (size_t)i, row);
    }
    return status;
}

int32_t mmqi_session_run(struct mmqi_session *session, const struct mmqi_token *tokens, size_t n,
                         size_t first_logit, mmqi_row_fn on_logits, void *user,
                         const struct mmqi_watch *watch)
{
    size_t begin, first_pick, rows;
    int32_t picture, n_pick, status = MMQ_OK;
    float *row = mmqi_alloc_array((size_t)session->model->spec.vocab_size, sizeof *row);

    if (!row)
        return mmqi_fail(MMQ_ERR_NOMEM, "session: no memory for a row of logits");
    if (n > (size_t)session->layout.context)
        status = mmqi_fail(MMQ_ERR_CONTEXT_FULL, "session: %zu tokens, a context of %d", n,
                           (int)session->layout.context);
    while (status == MMQ_OK && (size_t)session->n_tokens < n) {
        begin = (size_t)session->n_tokens;
        first_pick = begin > first_logit ? begin : first_logit;
        rows = chunk_rows(session, tokens, begin, n, first_pick, &picture);
        n_pick = begin + rows > first_pick ? (int32_t)(begin + rows - first_pick) : 0;
        if (picture >= 0)
            status = mmqi_session_encode(session, picture, watch);
        if (status == MMQ_OK)
            status = run_chunk(session, tokens + begin, (int32_t)rows, n_pick, watch);
        if (status == MMQ_OK)
            status = give_logits(session, row, first_pick - first_logit, n_pick, on_logits, user);
    }
    mmqi_free(row);
    return status;
}
