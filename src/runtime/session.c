/* Layout, life and timeline of a session. Running it is run.c. */
#include "runtime/session.h"

#include <string.h>

#include "core/mem.h"
#include "core/status.h"

static int32_t round_up(int32_t value, int32_t step)
{
    return (value + step - 1) / step * step;
}

/* Defaults and bounds of the options. */
static int32_t choose_sizes(struct mmqi_session_layout *layout, const struct mmqi_model *model,
                            const struct mmqi_session_options *options)
{
    int32_t most = model->spec.max_positions, rows;

    layout->context = options->context;
    if (layout->context == 0)
        layout->context = most < MMQI_DEFAULT_CONTEXT ? most : MMQI_DEFAULT_CONTEXT;
    if (layout->context < 1 || layout->context > most)
        return mmqi_fail(MMQ_ERR_INVALID,
                         "session: a context of %d; the model has positions for 1..%d",
                         (int)options->context, (int)most);
    layout->chunk = options->chunk                   ? options->chunk
                    : layout->mode == MMQI_MODE_FAST ? MMQI_FAST_CHUNK
                                                     : MMQI_DEFAULT_CHUNK;
    if (layout->chunk < 1 || layout->chunk > MMQI_MAX_CHUNK)
        return mmqi_fail(MMQ_ERR_INVALID, "session: a chunk of %d rows, not 1..%d",
                         (int)options->chunk, MMQI_MAX_CHUNK);
    if (layout->chunk > layout->context)
        layout->chunk = layout->context;
    if (options->image_rows < 0)
        return mmqi_fail(MMQ_ERR_INVALID, "session: pictures of %d rows", (int)options->image_rows);
    layout->image_rows = options->image_rows ? options->image_rows : layout->context;
    rows = model->spec.image_rows > model->spec.video_rows ? model->spec.image_rows
                                                           : model->spec.video_rows;
    if (layout->image_rows > rows)
        layout->image_rows = rows;
    mmqi_model_greatest(&layout->greatest, model, layout->image_rows);
    layout->n_pages = round_up(layout->context, MMQI_PAGE_ROWS) / MMQI_PAGE_ROWS;
    return MMQ_OK;
}

static int32_t plan_graphs(struct mmqi_session_layout *layout, const struct mmqi_model *model)
{
    int64_t tower[MMQI_N_SYMBOLS] = {0}, decoder[MMQI_N_SYMBOLS] = {0};
    int32_t status;

    tower[MMQI_ROWS_MAIN] = layout->greatest.view.patches;
    tower[MMQI_ROWS_IMAGE] = layout->greatest.view.rows;
    decoder[MMQI_ROWS_MAIN] = layout->chunk;
    decoder[MMQI_ROWS_PICK] = layout->chunk < MMQI_MAX_PICK ? layout->chunk : MMQI_MAX_PICK;
    decoder[MMQI_ROWS_IMAGE] = layout->greatest.made_rows;
    status = mmqi_plan_create(&layout->vision, model->vision, tower);
    if (status == MMQ_OK)
        status = mmqi_plan_create(&layout->language, model->language, decoder);
    if (status == MMQ_OK)
        status = mmqi_route_create(&layout->vision_route, model->vision, model->split.vision);
    if (status == MMQ_OK)
        status = mmqi_route_create(&layout->language_route, model->language, model->split.language);
    return status;
}

/* An array of n elements at *at of the block, which goes on behind it; NULL for none. */
static int32_t *next_array(int32_t *base, uint64_t *at, uint64_t n)
{
    int32_t *array = n > 0 && base ? base + *at : NULL;

    *at += n;
    return array;
}

/* int32 elements of the index block for a run, and where each array begins in `base` (NULL: sizes
 * only). */
static uint64_t place_index(struct mmqi_session_index *index, int32_t *base,
                            const struct mmqi_session_layout *layout,
                            const struct mmqi_index_shape *shape)
{
    uint64_t rows = (uint64_t)round_up(shape->rows, 16), at = 0;
    uint64_t squares = (uint64_t)round_up(shape->squares, 16);
    uint64_t taps = (uint64_t)round_up(shape->taps, 16) * MMQI_TAPS;

    index->table = next_array(base, &at, (uint64_t)round_up(layout->n_pages, 16));
    index->ids = next_array(base, &at, rows);
    index->positions = next_array(base, &at, rows * (uint64_t)shape->n_axes);
    index->slots = next_array(base, &at, rows);
    index->place = next_array(base, &at, rows);
    index->spans = (struct mmqi_span *)next_array(base, &at, 2 * rows);
    index->window_spans = (struct mmqi_span *)next_array(base, &at, squares > 0 ? 2 * rows : 0);
    index->order = next_array(base, &at, squares);
    index->undo = next_array(base, &at, squares);
    index->taps = next_array(base, &at, taps);
    index->tap_weights = (float *)(void *)next_array(base, &at, taps);
    index->pick = next_array(base, &at, MMQI_MAX_PICK);
    return at;
}

size_t mmqi_session_place_index(struct mmqi_session *session, const struct mmqi_index_shape *shape,
                                size_t *begin)
{
    const struct mmqi_session_layout *layout = &session->layout;
    uint64_t end;

    for (int32_t i = 0; i < layout->n_places; i++)
        if (session->parts[i].index_block)
            place_index(&session->parts[i].index, session->parts[i].index_block, layout, shape);
    end = place_index(&session->host_index, session->host_block, layout, shape);
    *begin = 4 * (size_t)(session->host_index.ids - session->host_index.table);
    return 4 * (size_t)end - *begin;
}

/* a * b * c * d with the fact noted when it wraps. */
static uint64_t product(uint64_t a, uint64_t b, uint64_t c, uint64_t d, bool *wrapped)
{
    uint64_t value = 0;

    if (!mmqi_mul_u64(a, b, &value) || !mmqi_mul_u64(value, c, &value) ||
        !mmqi_mul_u64(value, d, &value) || value > UINT64_MAX / 16)
        *wrapped = true;
    return value;
}

/* ---- bytes ---- */

/* Of each thing, wherever it lies. */
struct sizes {
    uint64_t layer; /* keys and values of one layer */
    uint64_t pixels, image, logits, index;
    bool wrapped;
};

static void find_sizes(struct sizes *s, const struct mmqi_session_layout *layout,
                       const struct mmqi_spec *spec)
{
    const struct mmqi_greatest *greatest = &layout->greatest;
    const struct mmqi_index_shape rows = {.rows = layout->chunk, .n_axes = spec->rope_axes};
    const struct mmqi_index_shape tower = mmqi_tower_index_shape(spec, &greatest->view);
    struct mmqi_session_index index;
    uint64_t chunk;

    s->wrapped = false;
    s->layer = product(2 * MMQI_PAGE_ROWS, (uint64_t)spec->n_kv_heads, (uint64_t)spec->head_dim, 4,
                       &s->wrapped);
    s->layer = product(s->layer, (uint64_t)layout->n_pages, 1, 1, &s->wrapped);
    s->pixels = product(3, (uint64_t)greatest->pixels, 4, 1, &s->wrapped);
    s->image =
        product((uint64_t)greatest->made_rows, (uint64_t)spec->image_width, 4, 1, &s->wrapped);
    s->logits = product(MMQI_MAX_PICK, (uint64_t)spec->vocab_size, 4, 1, &s->wrapped);
    s->index = 4 * place_index(&index, NULL, layout, &tower);
    chunk = 4 * place_index(&index, NULL, layout, &rows);
    if (chunk > s->index)
        s->index = chunk;
}

static bool binds(const struct mmqi_model *model, int32_t place, int32_t binding)
{
    return mmqi_place_binds(model->vision, model->split.vision, place, binding) ||
           mmqi_place_binds(model->language, model->split.language, place, binding);
}

static bool runs(const struct mmqi_model *model, int32_t place)
{
    return mmqi_place_runs(model->vision, model->split.vision, place) ||
           mmqi_place_runs(model->language, model->split.language, place);
}

static uint64_t count_arena(const struct mmqi_session_layout *layout,
                            const struct mmqi_model *model, int32_t place)
{
    uint64_t vision = mmqi_plan_bytes_at(layout->vision, model->vision, model->split.vision, place);
    uint64_t language =
        mmqi_plan_bytes_at(layout->language, model->language, model->split.language, place);

    return vision > language ? vision : language;
}

static uint64_t count_kv(const struct mmqi_model *model, int32_t place, uint64_t layer,
                         bool *wrapped)
{
    uint64_t n = 0;

    for (int32_t i = 0; i < model->spec.n_layers; i++)
        n += mmqi_place_keeps(model->language, model->split.language, place, i);
    return product(layer, n, 1, 1, wrapped);
}

/* Of a place; nothing where no segment runs. */
static void count_place(struct mmqi_session_layout *layout, const struct mmqi_model *model,
                        const struct mmqi_place *at, int32_t place, struct sizes *s)
{
    struct mmqi_session_bytes *b = &layout->at[place];

    if (!runs(model, place))
        return;
    mmqi_plan_needs_at(&b->stream, model->vision, layout->vision, model->split.vision, place);
    mmqi_plan_needs_at(&b->stream, model->language, layout->language, model->split.language, place);
    b->stream.mode = at->backend->fast ? layout->mode : MMQI_MODE_EXACT;
    b->arena = count_arena(layout, model, place);
    b->kv = count_kv(model, place, s->layer, &s->wrapped);
    b->pixels = binds(model, place, MMQI_BIND_PIXELS) ? s->pixels : 0;
    b->image = binds(model, place, MMQI_BIND_IMAGE) ? s->image : 0;
    b->logits = binds(model, place, MMQI_BIND_LOGITS) ? s->logits : 0;
    b->index = s->index;
    b->scratch = at->backend->stream_bytes(at->device, &b->stream);
    b->activations = b->arena + b->pixels + b->image + b->logits + b->index;
    b->total = b->activations + b->kv + b->scratch;
}

static void add_bytes(struct mmqi_session_bytes *sum, const struct mmqi_session_bytes *b)
{
    sum->arena += b->arena;
    sum->kv += b->kv;
    sum->pixels += b->pixels;
    sum->image += b->image;
    sum->logits += b->logits;
    sum->index += b->index;
    sum->scratch += b->scratch;
    sum->activations += b->activations;
    sum->total += b->total;
}

static int32_t count_bytes(struct mmqi_session_layout *layout, const struct mmqi_model *model,
                           const struct mmqi_host *host)
{
    struct mmqi_session_bytes *sum = &layout->sum;
    struct sizes sizes;
    bool wrapped;

    find_sizes(&sizes, layout, &model->spec);
    for (int32_t i = 0; i < layout->n_places; i++)
        count_place(layout, model, &host->place[i].at, i, &sizes);
    wrapped = sizes.wrapped;
    for (int32_t i = 0; i < layout->n_places; i++) {
        add_bytes(sum, &layout->at[i]);
        wrapped = wrapped || sum->total < sum->kv || sum->total > SIZE_MAX / 2;
        if (layout->at[i].logits > 0)
            layout->logits_at = i;
    }
    if (wrapped)
        return mmqi_fail(MMQ_ERR_LIMIT, "session: a context of %d passes any memory",
                         (int)layout->context);
    return MMQ_OK;
}

/* ---- what crosses ---- */

/* Bytes that a value going from one place to another needs of the staging buffer. */
static void stage(struct mmqi_session_layout *layout, const struct mmqi_host *host, int32_t from,
                  int32_t to, uint64_t bytes)
{
    if (host->place[from].at.backend->host_memory || host->place[to].at.backend->host_memory)
        return;
    if (bytes > MMQI_MAX_STAGING)
        bytes = MMQI_MAX_STAGING;
    if (bytes > layout->staging_bytes)
        layout->staging_bytes = bytes;
}

static void stage_route(struct mmqi_session_layout *layout, const struct mmqi_host *host,
                        const struct mmqi_graph *graph, const struct mmqi_plan *plan,
                        const struct mmqi_route *route)
{
    for (int32_t i = 0; i < route->n_legs; i++) {
        const struct mmqi_leg *leg = &route->legs[i];

        for (int32_t k = 0; k < leg->n_crossings; k++) {
            const struct mmqi_crossing *crossing = &route->crossings[leg->first_crossing + k];
            const struct mmqi_value *value = mmqi_graph_value_at(graph, crossing->value);

            stage(layout, host, crossing->from, leg->place,
                  (uint64_t)(mmqi_plan_value_rows(plan, &value->rows) * value->cols) *
                      sizeof(float));
        }
    }
}

static void count_staging(struct mmqi_session_layout *layout, const struct mmqi_model *model,
                          const struct mmqi_host *host)
{
    const struct mmqi_route *route = &layout->vision_route;

    stage_route(layout, host, model->vision, layout->vision, route);
    stage_route(layout, host, model->language, layout->language, &layout->language_route);
    if (route->n_legs > 0) /* the tower ends with the rows of the picture */
        layout->image_from = route->legs[route->n_legs - 1].place;
    for (int32_t i = 0; i < layout->n_places; i++)
        if (i != layout->image_from && layout->at[i].image > 0)
            stage(layout, host, layout->image_from, i, layout->at[i].image);
}

/* ---- the layout ---- */

static int32_t choose_mode(struct mmqi_session_layout *layout, const struct mmqi_host *host,
                           int32_t wanted)
{
    layout->mode = MMQI_MODE_EXACT;
    for (int32_t i = 0; i < host->n_places && wanted != MMQI_WANT_EXACT; i++)
        if (host->place[i].at.backend->fast)
            layout->mode = MMQI_MODE_FAST;
    if (wanted == MMQI_WANT_FAST && layout->mode != MMQI_MODE_FAST)
        return mmqi_fail(MMQ_ERR_UNSUPPORTED, "session: mode 'fast'; %s has 'exact'",
                         mmqi_host_describe(host));
    return MMQ_OK;
}

int32_t mmqi_session_layout(struct mmqi_session_layout *layout, const struct mmqi_model *model,
                            const struct mmqi_host *host,
                            const struct mmqi_session_options *options)
{
    int32_t status;

    memset(layout, 0, sizeof *layout);
    layout->n_places = host->n_places;
    status = choose_mode(layout, host, options->mode);
    if (status == MMQ_OK)
        status = choose_sizes(layout, model, options);
    if (status == MMQ_OK)
        status = plan_graphs(layout, model);
    if (status == MMQ_OK)
        status = count_bytes(layout, model, host);
    if (status == MMQ_OK)
        count_staging(layout, model, host);
    else
        mmqi_session_layout_clear(layout);
    return status;
}

void mmqi_session_layout_clear(struct mmqi_session_layout *layout)
{
    mmqi_plan_free(layout->vision);
    mmqi_plan_free(layout->language);
    mmqi_route_clear(&layout->vision_route);
    mmqi_route_clear(&layout->language_route);
    memset(layout, 0, sizeof *layout);
}

/* ---- memory ---- */

/* Memory of a part on its device; the budget was taken for all parts at once. */
static int32_t take_device_memory(struct mmqi_session *session, int32_t place)
{
    const struct mmqi_session_bytes *bytes = &session->layout.at[place];
    const struct mmqi_place *at = &session->host->place[place].at;
    struct mmqi_session_part *part = &session->parts[place];
    struct {
        void **out;
        uint64_t bytes;
    } blocks[] = {
        {&part->arena, bytes->arena},
        {(void **)&part->kv, bytes->kv},
        {(void **)&part->pixels, bytes->pixels},
        {(void **)&part->image, bytes->image},
        {(void **)&part->logits, bytes->logits},
        {&part->index_block, bytes->index},
    };
    int32_t status = MMQ_OK;
    size_t i;

    if (bytes->total == 0)
        return MMQ_OK;
    for (i = 0; i < sizeof blocks / sizeof blocks[0] && status == MMQ_OK; i++)
        if (blocks[i].bytes > 0)
            status = at->backend->alloc(at->device, blocks[i].out, (size_t)blocks[i].bytes);
    if (status == MMQ_OK)
        status = at->backend->stream_open(at->device, &bytes->stream, &part->stream);
    return status;
}

static void free_device_memory(struct mmqi_session *session, int32_t place)
{
    const struct mmqi_place *at = &session->host->place[place].at;
    struct mmqi_session_part *part = &session->parts[place];
    void *blocks[] = {part->arena, part->kv,     part->pixels,
                      part->image, part->logits, part->index_block};
    size_t i;

    at->backend->stream_close(part->stream);
    for (i = 0; i < sizeof blocks / sizeof blocks[0]; i++)
        at->backend->free(at->device, blocks[i]);
    mmqi_free(part->kv_layers);
}

/* The page table of a session of its own is the identity: page p of the pool is its p-th. */
static int32_t fill_table(struct mmqi_session *session, int32_t place)
{
    const struct mmqi_spec *spec = &session->model->spec;
    const struct mmqi_place *at = &session->host->place[place].at;
    struct mmqi_session_part *part = &session->parts[place];
    int64_t stride = 2 * (int64_t)MMQI_PAGE_ROWS * spec->n_kv_heads * spec->head_dim, n = 0;
    int32_t n_pages = session->layout.n_pages, i;

    if (!part->index_block)
        return MMQ_OK;
    for (i = 0; i < n_pages; i++)
        session->host_index.table[i] = i;
    for (i = 0; i < spec->n_layers; i++) {
        if (!mmqi_place_keeps(session->model->language, session->model->split.language, place, i))
            continue;
        part->kv_layers[i] = (struct mmqi_kv){
            .pages = part->kv + n++ * n_pages * stride,
            .page_stride = stride,
            .page_rows = MMQI_PAGE_ROWS,
            .table = part->index.table,
            .n_heads = spec->n_kv_heads,
            .head_dim = spec->head_dim,
        };
    }
    return at->backend->upload(at->device, part->index.table, session->host_index.table,
                               (size_t)n_pages * 4);
}

static int32_t take_host_memory(struct mmqi_session *session)
{
    const struct mmqi_session_layout *layout = &session->layout;
    size_t n_layers = (size_t)session->model->spec.n_layers;
    uint64_t index = 0;
    bool ok = true;

    session->parts = mmqi_calloc((size_t)layout->n_places, sizeof *session->parts);
    for (int32_t i = 0; session->parts && i < layout->n_places && ok; i++) {
        struct mmqi_session_part *part = &session->parts[i];

        part->kv_layers = mmqi_calloc(n_layers, sizeof *part->kv_layers);
        ok = part->kv_layers != NULL;
        if (layout->at[i].index > index)
            index = layout->at[i].index;
    }
    session->host_block = mmqi_calloc(1, (size_t)index);
    session->tokens = mmqi_calloc((size_t)layout->context, sizeof *session->tokens);
    if (layout->staging_bytes > 0)
        session->staging = mmqi_alloc_aligned((size_t)layout->staging_bytes);
    if (ok && session->parts && session->host_block && session->tokens &&
        (session->staging || layout->staging_bytes == 0))
        return MMQ_OK;
    return mmqi_fail(MMQ_ERR_NOMEM, "session: no memory for a context of %d", (int)layout->context);
}

static void total_bytes(uint64_t bytes[MMQI_MAX_PLACES], const struct mmqi_session_layout *layout)
{
    for (int32_t i = 0; i < layout->n_places; i++)
        bytes[i] = layout->at[i].total;
}

/* Device memory, and what lies in it from the beginning. */
static int32_t make_parts(struct mmqi_session *session)
{
    const struct mmqi_index_shape one = {.rows = 1, .n_axes = session->model->spec.rope_axes};
    int32_t n = session->layout.n_places, status = take_host_memory(session);
    size_t begin;

    for (int32_t i = 0; i < n && status == MMQ_OK; i++)
        status = take_device_memory(session, i);
    if (status != MMQ_OK)
        return status;
    mmqi_session_place_index(session, &one, &begin);
    for (int32_t i = 0; i < n && status == MMQ_OK; i++)
        status = fill_table(session, i);
    return status;
}

int32_t mmqi_session_create(struct mmqi_session **out, const struct mmqi_model *model,
                            struct mmqi_host *host, const struct mmqi_session_options *options)
{
    struct mmqi_session *session = mmqi_calloc(1, sizeof *session);
    uint64_t bytes[MMQI_MAX_PLACES];
    int32_t status;

    *out = NULL;
    if (!session)
        return mmqi_fail(MMQ_ERR_NOMEM, "session: no memory for its handle");
    session->model = model;
    session->encoded = -1;
    status = mmqi_session_layout(&session->layout, model, host, options);
    total_bytes(bytes, &session->layout);
    if (status == MMQ_OK)
        status = mmqi_host_take(host, bytes, "session");
    if (status == MMQ_OK) {
        session->host = mmqi_host_retain(host); /* from here on, free gives the budget back */
        status = make_parts(session);
    }
    if (status == MMQ_OK)
        *out = session;
    else
        mmqi_session_free(session);
    return status;
}

void mmqi_session_free(struct mmqi_session *session)
{
    uint64_t bytes[MMQI_MAX_PLACES];

    if (!session)
        return;
    mmqi_session_truncate(session, 0);
    mmqi_free(session->pictures);
    if (session->host) {
        for (int32_t i = 0; session->parts && i < session->layout.n_places; i++)
            free_device_memory(session, i);
        total_bytes(bytes, &session->layout);
        mmqi_host_give(session->host, bytes);
        mmqi_host_release(session->host);
    }
    mmqi_free(session->parts);
    mmqi_free(session->staging);
    mmqi_free(session->host_block);
    mmqi_free(session->tokens);
    mmqi_session_layout_clear(&session->layout);
    mmqi_free(session);
}

/* Give up pictures that no token of the timeline needs: they were adopted in order, so it is a
 * tail. */
static void drop_pictures(struct mmqi_session *session)
{
    int32_t needed = 0, i;

    for (i = 0; i < session->n_tokens; i++)
        if (session->tokens[i].picture >= needed)
            needed = session->tokens[i].picture + 1;
    while (session->n_pictures > needed)
        mmqi_image_release(session->pictures[--session->n_pictures]);
    if (session->encoded >= needed)
        session->encoded = -1;
}

void mmqi_session_truncate(struct mmqi_session *session, int32_t length)
{
    session->n_tokens = length;
    drop_pictures(session);
}

/* Both lists count their pictures from 0 in order of appearance. `n_same` pictures are known to be
 * the same; the first row of one more compares its pixels. */
static bool tokens_equal(const struct mmqi_session *session, struct mmqi_token have,
                         struct mmqi_token want, struct mmqi_image *const *images, int32_t *n_same)
{
    if (have.id != want.id || have.row != want.row || have.picture != want.picture ||
        memcmp(have.position, want.position, sizeof have.position) != 0)
        return false;
    if (want.picture < *n_same)
        return true;
    if (!mmqi_image_equal(session->pictures[have.picture], images[want.picture]))
        return false;
    *n_same = want.picture + 1;
    return true;
}

/* Hold the prompt's pictures from `first` on; their index in the session is n_pictures before + i.
 */
static int32_t adopt_pictures(struct mmqi_session *session, struct mmqi_image *const *images,
                              size_t first, size_t n_images)
{
    struct mmqi_image **pictures;
    size_t need = (size_t)session->n_pictures + (n_images - first), i;

    if (need > (size_t)session->pictures_capacity) {
        pictures = mmqi_realloc_array(session->pictures, need, sizeof *pictures);
        if (!pictures)
            return mmqi_fail(MMQ_ERR_NOMEM, "session: no memory for %zu pictures", need);
        session->pictures = pictures;
        session->pictures_capacity = (int32_t)need;
    }
    for (i = first; i < n_images; i++)
        session->pictures[session->n_pictures++] = mmqi_image_retain(images[i]);
    return MMQ_OK;
}

int32_t mmqi_session_tokens(struct mmqi_tokens *tokens, const struct mmqi_session *session,
                            const struct mmqi_prompt *prompt)
{
    const struct mmqi_session_layout *layout = &session->layout;
    const struct mmqi_image *image;
    struct mmqi_picture picture;
    uint64_t rows = 0;
    int32_t status;

    for (size_t i = 0; i < prompt->n_images; i++) {
        image = prompt->images[i];
        status = mmqi_model_measure_image(&picture, session->model, image);
        if (status != MMQ_OK)
            return status;
        if (picture.rows > layout->context)
            return mmqi_fail(MMQ_ERR_CONTEXT_FULL, "session: a picture of %d rows, a context of %d",
                             (int)picture.rows, (int)layout->context);
        if (picture.rows > layout->image_rows)
            return mmqi_fail(MMQ_ERR_LIMIT,
                             "session: picture %zu of %d x %d takes %d rows; the session takes "
                             "pictures of %d",
                             i, (int)image->width, (int)image->height, (int)picture.rows,
                             (int)layout->image_rows);
        rows += (uint64_t)picture.rows;
    }
    if (rows > (uint64_t)layout->context) /* before there is a token for each */
        return mmqi_fail(MMQ_ERR_CONTEXT_FULL,
                         "session: %zu pictures of %llu rows, a context of %d", prompt->n_images,
                         (unsigned long long)rows, (int)layout->context);
    return mmqi_prompt_tokens(tokens, session->model, prompt);
}

int32_t mmqi_session_match(struct mmqi_session *session, struct mmqi_tokens *tokens,
                           struct mmqi_image *const *images, size_t n_images, size_t max_keep,
                           int32_t *kept)
{
    size_t n = 0, i, most = (size_t)session->n_tokens;
    int32_t n_same = 0;

    *kept = 0;
    if (tokens->n > (size_t)session->layout.context)
        return mmqi_fail(MMQ_ERR_CONTEXT_FULL, "session: a prompt of %zu tokens, a context of %d",
                         tokens->n, (int)session->layout.context);
    if (most > tokens->n)
        most = tokens->n;
    if (most > max_keep)
        most = max_keep;
    while (n < most && tokens_equal(session, session->tokens[n], tokens->data[n], images, &n_same))
        n++;
    mmqi_session_truncate(session, (int32_t)n);
    *kept = (int32_t)n;
    /* Kept pictures have the same index in both lists. */
    if (n_images <= (size_t)session->n_pictures)
        return MMQ_OK;
    i = (size_t)session->n_pictures;
    return adopt_pictures(session, images, i, n_images);
}
