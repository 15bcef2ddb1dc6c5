/*
 * Running rows through the graphs: pictures into rows, rows into keys, values and logits.
 *
 * A graph runs leg by leg of its route. Between two legs the first one's stream is waited for, and
 * the values that the second needs are copied to its place, by way of the host.
 */
#include <string.h>

#include "core/mem.h"
#include "core/os.h"
#include "core/status.h"
#include "graph/op.h"
#include "runtime/session.h"

/* ---- moving ---- */

/* The part of the index block that mmqi_session_place_index() laid out, to wherever the graph whose
 * segments are at `places` runs. */
static int32_t upload_index(struct mmqi_session *session, const struct mmqi_graph *graph,
                            const int32_t *places, size_t begin, size_t size)
{
    int32_t status = MMQ_OK;

    for (int32_t i = 0; i < session->layout.n_places && status == MMQ_OK; i++) {
        const struct mmqi_place *at = &session->host->place[i].at;

        if (mmqi_place_runs(graph, places, i))
            status = at->backend->upload(at->device, (char *)session->parts[i].index_block + begin,
                                         (const char *)session->host_block + begin, size);
    }
    return status;
}

/* From one place to another; what wrote it is done. */
static int32_t move(struct mmqi_session *session, int32_t to, void *dst, int32_t from,
                    const void *src, size_t size)
{
    const struct mmqi_place *target = &session->host->place[to].at;
    const struct mmqi_place *source = &session->host->place[from].at;
    int32_t status = MMQ_OK;

    if (source->backend->host_memory)
        return target->backend->upload(target->device, dst, src, size);
    if (target->backend->host_memory)
        return source->backend->download(source->device, dst, src, size);
    for (size_t at = 0, n; at < size && status == MMQ_OK; at += n) {
        n = size - at < session->layout.staging_bytes ? size - at
                                                      : (size_t)session->layout.staging_bytes;
        status =
            source->backend->download(source->device, session->staging, (const char *)src + at, n);
        if (status == MMQ_OK)
            status = target->backend->upload(target->device, (char *)dst + at, session->staging, n);
    }
    return status;
}

/* ---- running ---- */

/* A graph, where its values lie, and how it is cut. */
struct course {
    const struct mmqi_graph *graph;
    const struct mmqi_plan *plan;
    const struct mmqi_route *route;
    struct mmqi_run run; /* rows and pictures; the rest is that of the leg in hand */
    bool is_decoder;
};

static float *bound_at(const struct mmqi_session_part *part, int32_t binding)
{
    float *const bound[] = {
        [MMQI_BIND_PIXELS] = part->pixels,
        [MMQI_BIND_IMAGE] = part->image,
        [MMQI_BIND_LOGITS] = part->logits,
    };

    return bound[binding];
}

static void enter_place(struct course *course, const struct mmqi_session *session, int32_t place)
{
    const struct mmqi_session_part *part = &session->parts[place];
    const struct mmqi_session_index *index = &part->index;
    struct mmqi_run *run = &course->run;

    run->arena = part->arena;
    for (int32_t i = MMQI_BIND_PIXELS; i <= MMQI_BIND_LOGITS; i++)
        run->bound[i] = bound_at(part, i);
    run->index[MMQI_INDEX_IDS] = index->ids;
    run->index[MMQI_INDEX_POSITIONS] = index->positions;
    run->index[MMQI_INDEX_SLOTS] = index->slots;
    run->index[MMQI_INDEX_PLACE] = index->place;
    run->index[MMQI_INDEX_PICK] = index->pick;
    run->spans = index->spans;
    run->kv = course->is_decoder ? part->kv_layers : NULL;
    run->weights = session->model->placed[place].weights;
}

static void *value_at(const struct course *course, const struct mmqi_session_part *part,
                      int32_t value)
{
    const struct mmqi_value *v = mmqi_graph_value_at(course->graph, value);

    if (v->kind == MMQI_VALUE_ARENA)
        return (char *)part->arena + mmqi_plan_offset(course->plan, value);
    return bound_at(part, v->binding);
}

static int32_t bring(const struct course *course, struct mmqi_session *session, int32_t place,
                     const struct mmqi_crossing *crossing)
{
    const struct mmqi_value *v = mmqi_graph_value_at(course->graph, crossing->value);
    int64_t rows = mmqi_extent_rows(&v->rows, course->run.rows);

    return move(session, place, value_at(course, &session->parts[place], crossing->value),
                crossing->from, value_at(course, &session->parts[crossing->from], crossing->value),
                (size_t)(rows * v->cols) * sizeof(float));
}

/* Also after a failure nothing of the leg is on its way when this returns. */
static int32_t run_leg(struct course *course, struct mmqi_session *session,
                       const struct mmqi_leg *leg, int32_t end)
{
    const struct mmqi_backend *backend = session->host->place[leg->place].at.backend;
    struct mmqi_stream *stream = session->parts[leg->place].stream;
    int32_t status = MMQ_OK, waited;

    for (int32_t i = 0; i < leg->n_crossings && status == MMQ_OK; i++)
        status =
            bring(course, session, leg->place, &course->route->crossings[leg->first_crossing + i]);
    if (status != MMQ_OK)
        return status;
    enter_place(course, session, leg->place);
    status = backend->execute(stream, course->graph, course->plan, &course->run, leg->begin, end);
    waited = backend->stream_wait(stream);
    return status == MMQ_OK ? waited : status;
}

/* Segments [0, end). */
static int32_t run_course(struct course *course, struct mmqi_session *session, int32_t end,
                          const struct mmqi_watch *watch)
{
    int32_t status = MMQ_OK;

    course->run.cancelled = watch ? watch->cancelled : NULL;
    course->run.after = watch ? watch->after : NULL;
    course->run.after_user = watch ? watch->after_user : NULL;
    for (int32_t i = 0; i < course->route->n_legs && status == MMQ_OK; i++) {
        const struct mmqi_leg *leg = &course->route->legs[i];

        if (leg->begin < end)
            status = run_leg(course, session, leg, leg->end < end ? leg->end : end);
    }
    return status;
}

/* ---- pictures ---- */

/* To every place that reads them. */
static int32_t move_pixels(struct mmqi_session *session, const float *pixels, size_t size)
{
    int32_t status = MMQ_OK;

    for (int32_t i = 0; i < session->layout.n_places && status == MMQ_OK; i++) {
        const struct mmqi_place *at = &session->host->place[i].at;

        if (session->parts[i].pixels)
            status = at->backend->upload(at->device, session->parts[i].pixels, pixels, size);
    }
    return status;
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
        status = move_pixels(session, pixels, (size_t)width * (size_t)height * 3 * sizeof *pixels);
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
    return upload_index(session, session->model->vision, session->model->split.vision, begin, size);
}

/* The picture's rows, from where the tower made them to where they are placed. */
static int32_t move_image(struct mmqi_session *session)
{
    int32_t from = session->layout.image_from, status = MMQ_OK;
    size_t size =
        (size_t)session->picture.rows * (size_t)session->model->spec.hidden * sizeof(float);

    for (int32_t i = 0; i < session->layout.n_places && status == MMQ_OK; i++)
        if (i != from && session->parts[i].image)
            status =
                move(session, i, session->parts[i].image, from, session->parts[from].image, size);
    return status;
}

int32_t mmqi_session_read_image(struct mmqi_session *session, float *dst)
{
    int32_t from = session->layout.image_from;
    const struct mmqi_place *at = &session->host->place[from].at;

    return at->backend->download(at->device, dst, session->parts[from].image,
                                 (size_t)session->picture.rows *
                                     (size_t)session->model->spec.hidden * sizeof *dst);
}

int32_t mmqi_session_encode(struct mmqi_session *session, int32_t picture,
                            const struct mmqi_watch *watch)
{
    const struct mmqi_model *model = session->model;
    struct course course = {
        .graph = model->vision,
        .plan = session->layout.vision,
        .route = &session->layout.vision_route,
    };
    int32_t status;
    uint64_t begin = mmqi_os_nanoseconds();

    if (session->encoded == picture)
        return MMQ_OK;
    session->encoded = -1;
    status = upload_pixels(session, session->pictures[picture]);
    if (status == MMQ_OK)
        status = upload_tower_index(session);
    if (status != MMQ_OK)
        return status;
    course.run.rows[MMQI_ROWS_MAIN] = session->picture.patches;
    course.run.rows[MMQI_ROWS_IMAGE] = session->picture.rows;
    course.run.picture_height = session->picture.height;
    course.run.picture_width = session->picture.width;
    status = run_course(&course, session, mmqi_graph_n_segments(model->vision), watch);
    if (status == MMQ_OK)
        status = move_image(session);
    if (status != MMQ_OK)
        return status;
    session->encoded = picture;
    session->n_encoded++;
    session->encode_ns += mmqi_os_nanoseconds() - begin;
    return MMQ_OK;
}

/* ---- tokens ---- */

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
    return upload_index(session, session->model->language, session->model->split.language, begin,
                        size);
}

/* The decoder, for `rows` rows. */
static struct course decoder_course(const struct mmqi_session *session, int32_t rows,
                                    int32_t n_pick)
{
    struct course course = {
        .graph = session->model->language,
        .plan = session->layout.language,
        .route = &session->layout.language_route,
        .is_decoder = true,
    };

    course.run.rows[MMQI_ROWS_MAIN] = rows;
    course.run.rows[MMQI_ROWS_PICK] = n_pick;
    course.run.rows[MMQI_ROWS_IMAGE] = session->encoded >= 0 ? session->picture.rows : 0;
    return course;
}

static int32_t run_chunk(struct mmqi_session *session, const struct mmqi_token *tokens,
                         int32_t rows, int32_t n_pick, const struct mmqi_watch *watch)
{
    struct course course = decoder_course(session, rows, n_pick);
    int32_t begin = session->n_tokens, n_segments, status;

    status = upload_chunk_index(session, tokens, rows, n_pick);
    if (status != MMQ_OK)
        return status;
    n_segments = mmqi_graph_n_segments(course.graph);
    if (n_pick == 0)
        n_segments--; /* the head comes last: nobody asked for its logits */
    status = run_course(&course, session, n_segments, watch);
    if (status != MMQ_OK)
        return status;
    memcpy(session->tokens + begin, tokens, (size_t)rows * sizeof *tokens);
    session->n_tokens = begin + rows;
    return MMQ_OK;
}

static int32_t give_logits(struct mmqi_session *session, float *row, size_t first, int32_t n,
                           mmqi_row_fn on_logits, void *user)
{
    int32_t place = session->layout.logits_at, status = MMQ_OK, i;
    const struct mmqi_place *at = &session->host->place[place].at;
    size_t vocab = (size_t)session->model->spec.vocab_size;

    for (i = 0; i < n && status == MMQ_OK; i++) {
        status = at->backend->download(at->device, row,
                                       session->parts[place].logits + (size_t)i * vocab, vocab * 4);
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

/* ---- steps that the device takes by itself ---- */

bool mmqi_session_can_step(const struct mmqi_session *session)
{
    const struct mmqi_route *route = &session->layout.language_route;

    return route->n_legs == 1 && route->legs[0].place == session->layout.logits_at;
}

/* Slots of the steps that are asked for, read or not. */
static int32_t next_slot(const struct mmqi_session *session)
{
    return session->n_tokens + (int32_t)(session->n_asked - session->n_read);
}

/* A device of its own computes one step while the host looks at the one before; the host's has
 * nothing to wait for. */
bool mmqi_session_may_step(const struct mmqi_session *session)
{
    const struct mmqi_place *at = &session->host->place[session->layout.logits_at].at;
    int64_t most = at->backend->host_memory ? 1 : MMQI_NOTES;

    return session->n_asked - session->n_read < most &&
           next_slot(session) < session->layout.context;
}

int32_t mmqi_session_step_begin(struct mmqi_session *session, const struct mmqi_token *token)
{
    session->n_asked = session->n_read = 0;
    return upload_chunk_index(session, token, 1, 1);
}

int32_t mmqi_session_step(struct mmqi_session *session, const struct mmqi_watch *watch)
{
    int32_t place = session->layout.logits_at, status;
    const struct mmqi_backend *backend = session->host->place[place].at.backend;
    const struct mmqi_session_part *part = &session->parts[place];
    const struct mmqi_session_index *index = &part->index;
    const struct mmqi_step next = {index->ids, index->positions, index->slots, index->spans,
                                   session->model->spec.rope_axes};
    struct course course = decoder_course(session, 1, 1);

    if (!mmqi_session_may_step(session))
        return mmqi_fail(MMQ_ERR_INTERNAL, "session: a step too many");
    enter_place(&course, session, place);
    course.run.next = &next;
    course.run.cancelled = watch ? watch->cancelled : NULL;
    status = backend->execute(part->stream, course.graph, course.plan, &course.run, 0,
                              mmqi_graph_n_segments(course.graph));
    if (status == MMQ_OK)
        status = backend->note(part->stream, (int32_t)(session->n_asked % MMQI_NOTES), index->ids,
                               sizeof *index->ids);
    if (status == MMQ_OK)
        session->n_asked++;
    return status;
}

int32_t mmqi_session_step_read(struct mmqi_session *session, const struct mmqi_token *ran,
                               int32_t *picked)
{
    int32_t place = session->layout.logits_at, status;
    const struct mmqi_backend *backend = session->host->place[place].at.backend;

    if (session->n_read == session->n_asked)
        return mmqi_fail(MMQ_ERR_INTERNAL, "session: no step to read");
    status = backend->read_note(session->parts[place].stream,
                                (int32_t)(session->n_read % MMQI_NOTES), picked, sizeof *picked);
    if (status != MMQ_OK)
        return status;
    session->n_read++;
    session->tokens[session->n_tokens++] = *ran;
    return MMQ_OK;
}

int32_t mmqi_session_step_end(struct mmqi_session *session)
{
    int32_t place = session->layout.logits_at;

    session->n_asked = session->n_read;
    return session->host->place[place].at.backend->stream_wait(session->parts[place].stream);
}
