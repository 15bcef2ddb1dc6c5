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
#include "model/family.h"
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
    size_t image_first;  /* number of the picture's block where its IMAGE begins */
    bool is_decoder;
};

static float *bound_at(const struct course *course, const struct mmqi_session_part *part,
                       int32_t binding)
{
    float *const bound[] = {
        [MMQI_BIND_PIXELS] = part->pixels,
        [MMQI_BIND_IMAGE] = part->image ? part->image + course->image_first : NULL,
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
        run->bound[i] = bound_at(course, part, i);
    run->index[MMQI_INDEX_IDS] = index->ids;
    run->index[MMQI_INDEX_POSITIONS] = index->positions;
    run->index[MMQI_INDEX_SLOTS] = index->slots;
    run->index[MMQI_INDEX_PLACE] = index->place;
    run->index[MMQI_INDEX_PICK] = index->pick;
    run->index[MMQI_INDEX_ORDER] = index->order;
    run->index[MMQI_INDEX_UNDO] = index->undo;
    run->index[MMQI_INDEX_TAPS] = index->taps;
    run->tap_weights = index->tap_weights;
    run->spans = index->spans;
    run->window_spans = index->window_spans;
    run->kv = course->is_decoder ? part->kv_layers : NULL;
    run->weights = session->model->placed[place].weights;
}

static void *value_at(const struct course *course, const struct mmqi_session_part *part,
                      int32_t value)
{
    const struct mmqi_value *v = mmqi_graph_value_at(course->graph, value);

    if (v->kind == MMQI_VALUE_ARENA)
        return (char *)part->arena + mmqi_plan_offset(course->plan, value);
    return bound_at(course, part, v->binding);
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

/* What becomes of the picture, into session->picture, ready for its views to be drawn; of a video
 * no drawing is made. */
static int32_t open_picture(struct mmqi_drawing **drawing, struct mmqi_session *session,
                            const struct mmqi_image *image)
{
    struct mmqi_picture *picture = &session->picture;
    int32_t status = mmqi_model_measure_image(picture, session->model, image);

    *drawing = NULL;
    if (status == MMQ_OK && (picture->rows > session->layout.image_rows ||
                             picture->made_rows > session->layout.greatest.made_rows))
        status = mmqi_fail(MMQ_ERR_INTERNAL, "session: a picture of %d rows went by",
                           (int)picture->rows);
    if (status != MMQ_OK || image->frames)
        return status;
    return mmqi_drawing_create(drawing, &picture->views, &session->model->spec.recipe, image);
}

static int32_t upload_tower_index(struct mmqi_session *session, const struct mmqi_view *view,
                                  const struct mmqi_view_rows *count)
{
    const struct mmqi_model *model = session->model;
    const struct mmqi_index_shape shape = mmqi_tower_index_shape(&model->spec, count);
    size_t begin, size = mmqi_session_place_index(session, &shape, &begin);

    mmqi_tower_fill_index(&session->host_index, &model->spec, count);
    if (model->family->patch_ids)
        model->family->patch_ids(session->host_index.ids, model, view);
    return upload_index(session, model->vision, model->split.vision, begin, size);
}

/* Numbers that the pixels of a view are. */
static size_t view_numbers(const struct mmqi_picture *picture, const struct mmqi_view *view)
{
    size_t planes = picture->frames > 0 ? 3 * (size_t)picture->frames : 3;

    return planes * (size_t)view->width * (size_t)view->height;
}

/* One view through the tower, to row `first` of the picture's block. */
static int32_t run_view(struct mmqi_session *session, const struct mmqi_view *view,
                        const float *pixels, int32_t first, const struct mmqi_watch *watch)
{
    const struct mmqi_model *model = session->model;
    struct mmqi_view_rows count;
    struct course course = {
        .graph = model->vision,
        .plan = session->layout.vision,
        .route = &session->layout.vision_route,
        .image_first = (size_t)first * (size_t)model->spec.image_width,
    };
    int32_t status;

    mmqi_view_count(&count, &model->spec, view);
    status = move_pixels(session, pixels, view_numbers(&session->picture, view) * sizeof *pixels);
    if (status == MMQ_OK)
        status = upload_tower_index(session, view, &count);
    if (status != MMQ_OK)
        return status;
    course.run.rows[MMQI_ROWS_MAIN] = count.patches;
    course.run.rows[MMQI_ROWS_IMAGE] = count.rows;
    course.run.picture_height = view->height;
    course.run.picture_width = view->width;
    course.run.picture_frames = session->picture.frames;
    return run_course(&course, session, mmqi_graph_n_segments(model->vision), watch);
}

/* Of the greatest view. */
static size_t most_pixels(const struct mmqi_views *views)
{
    size_t most = 0;

    for (int32_t k = 0; k < views->n; k++) {
        size_t pixels = (size_t)views->view[k].width * (size_t)views->view[k].height;

        most = pixels > most ? pixels : most;
    }
    return most;
}

/* A video, view after view: only the frames of one are pixels at a time. */
static int32_t run_groups(struct mmqi_session *session, const struct mmqi_image *video,
                          const struct mmqi_watch *watch)
{
    const struct mmqi_spec *spec = &session->model->spec;
    const struct mmqi_views *views = &session->picture.views;
    int32_t rows = session->picture.made_rows / views->n, status = MMQ_OK;
    float *pixels;

    for (int32_t k = 0; k < views->n && status == MMQ_OK; k++) {
        status = mmqi_preprocess_group(&pixels, views, k, &spec->video_recipe, video);
        if (status == MMQ_OK)
            status = run_view(session, &views->view[k], pixels, k * rows, watch);
        mmqi_free(pixels);
    }
    return status;
}

/* View after view. */
static int32_t run_views(struct mmqi_session *session, const struct mmqi_drawing *drawing,
                         const struct mmqi_watch *watch)
{
    const struct mmqi_views *views = &session->picture.views;
    size_t most = most_pixels(views);
    float *values = mmqi_alloc_array(most, 3 * sizeof *values);
    struct mmqi_view_rows count;
    int32_t first = 0, status = MMQ_OK;

    if (!values)
        status = mmqi_fail(MMQ_ERR_NOMEM, "session: no memory for 3 x %zu values", most);
    for (int32_t k = 0; k < views->n && status == MMQ_OK; k++) {
        status = mmqi_drawing_view(drawing, k, values);
        if (status == MMQ_OK)
            status = run_view(session, &views->view[k], values, first, watch);
        mmqi_view_count(&count, &session->model->spec, &views->view[k]);
        first += count.rows;
    }
    mmqi_free(values);
    return status;
}

/* The picture's block, from where the tower made it to where its rows are placed. */
static int32_t move_image(struct mmqi_session *session)
{
    int32_t from = session->layout.image_from, status = MMQ_OK;
    size_t size = (size_t)session->picture.made_rows * (size_t)session->model->spec.image_width *
                  sizeof(float);

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
                                 (size_t)session->picture.made_rows *
                                     (size_t)session->model->spec.image_width * sizeof *dst);
}

int32_t mmqi_session_encode(struct mmqi_session *session, int32_t picture,
                            const struct mmqi_watch *watch)
{
    uint64_t begin = mmqi_os_nanoseconds();
    struct mmqi_drawing *drawing;
    int32_t status;

    if (session->encoded == picture)
        return MMQ_OK;
    session->encoded = -1;
    status = open_picture(&drawing, session, session->pictures[picture]);
    if (status == MMQ_OK)
        status = drawing ? run_views(session, drawing, watch)
                         : run_groups(session, session->pictures[picture], watch);
    if (status == MMQ_OK)
        status = move_image(session);
    mmqi_drawing_free(drawing);
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
    const struct mmqi_index_shape shape = {.rows = rows, .n_axes = n_axes};
    size_t begin, size = mmqi_session_place_index(session, &shape, &begin);

    for (i = 0; i < rows; i++) {
        index->ids[i] = tokens[i].picture < 0 ? tokens[i].id : 0; /* rows of pictures replace it */
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
    course.run.rows[MMQI_ROWS_IMAGE] = session->encoded >= 0 ? session->picture.made_rows : 0;
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
