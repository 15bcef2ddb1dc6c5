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
    int32_t most = model->spec.max_positions;

    layout->context = options->context;
    if (layout->context == 0)
        layout->context = most < MMQI_DEFAULT_CONTEXT ? most : MMQI_DEFAULT_CONTEXT;
    if (layout->context < 1 || layout->context > most)
        return mmqi_fail(MMQ_ERR_INVALID,
                         "session: a context of %d; the model has positions for 1..%d",
                         (int)options->context, (int)most);
    layout->chunk = options->chunk ? options->chunk : MMQI_DEFAULT_CHUNK;
    if (layout->chunk < 1 || layout->chunk > MMQI_MAX_CHUNK)
        return mmqi_fail(MMQ_ERR_INVALID, "session: a chunk of %d rows, not 1..%d",
                         (int)options->chunk, MMQI_MAX_CHUNK);
    if (layout->chunk > layout->context)
        layout->chunk = layout->context;
    if (options->image_rows < 0)
        return mmqi_fail(MMQ_ERR_INVALID, "session: pictures of %d rows", (int)options->image_rows);
    layout->image_rows = options->image_rows ? options->image_rows : layout->context;
    if (layout->image_rows > model->spec.image_rows)
        layout->image_rows = model->spec.image_rows;
    mmqi_model_greatest(&layout->greatest, model, layout->image_rows);
    layout->n_pages = round_up(layout->context, MMQI_PAGE_ROWS) / MMQI_PAGE_ROWS;
    return MMQ_OK;
}

static int32_t plan_graphs(struct mmqi_session_layout *layout, const struct mmqi_model *model)
{
    int64_t tower[MMQI_N_SYMBOLS] = {0}, decoder[MMQI_N_SYMBOLS] = {0};
    int64_t cols;
    int32_t status;

    tower[MMQI_ROWS_MAIN] = layout->greatest.patches;
    tower[MMQI_ROWS_IMAGE] = layout->greatest.rows;
    decoder[MMQI_ROWS_MAIN] = layout->chunk;
    decoder[MMQI_ROWS_PICK] = layout->chunk < MMQI_MAX_PICK ? layout->chunk : MMQI_MAX_PICK;
    decoder[MMQI_ROWS_IMAGE] = layout->greatest.rows;
    status = mmqi_plan_create(&layout->vision, model->vision, tower);
    if (status == MMQ_OK)
        status = mmqi_plan_create(&layout->language, model->language, decoder);
    if (status != MMQ_OK)
        return status;
    layout->arena_bytes = mmqi_plan_bytes(layout->vision);
    if (mmqi_plan_bytes(layout->language) > layout->arena_bytes)
        layout->arena_bytes = mmqi_plan_bytes(layout->language);
    layout->max_cols = mmqi_graph_max_cols(model->vision);
    cols = mmqi_graph_max_cols(model->language);
    if (cols > layout->max_cols)
        layout->max_cols = cols;
    return MMQ_OK;
}

/* int32 elements of the index block for a run of `n_rows` rows, and where each array begins in
 * `base` (NULL: sizes only). */
static uint64_t place_index(struct mmqi_session_index *index, int32_t *base,
                            const struct mmqi_session_layout *layout, int32_t n_rows,
                            int32_t n_axes)
{
    uint64_t rows = (uint64_t)round_up(n_rows, 16), at = 0;

    index->table = base + at, at += (uint64_t)round_up(layout->n_pages, 16);
    index->ids = base + at, at += rows;
    index->positions = base + at, at += rows * (uint64_t)n_axes;
    index->slots = base + at, at += rows;
    index->place = base + at, at += rows;
    index->spans = (struct mmqi_span *)(base + at), at += 2 * rows;
    index->pick = base + at, at += MMQI_MAX_PICK;
    return at;
}

size_t mmqi_session_place_index(struct mmqi_session *session, int32_t rows, int32_t n_axes,
                                size_t *begin)
{
    const struct mmqi_session_layout *layout = &session->layout;
    uint64_t end;

    place_index(&session->device_index, session->index_block, layout, rows, n_axes);
    end = place_index(&session->host_index, session->host_block, layout, rows, n_axes);
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

static int32_t count_bytes(struct mmqi_session_layout *layout, const struct mmqi_model *model,
                           const struct mmqi_backend *backend, const struct mmqi_device *device)
{
    const struct mmqi_spec *spec = &model->spec;
    struct mmqi_session_index index;
    bool wrapped = false;
    uint64_t page, chunk;

    page = product(2 * MMQI_PAGE_ROWS, (uint64_t)spec->n_kv_heads, (uint64_t)spec->head_dim, 4,
                   &wrapped);
    layout->kv_bytes =
        product(page, (uint64_t)layout->n_pages, (uint64_t)spec->n_layers, 1, &wrapped);
    layout->pixel_bytes = product(3 * (uint64_t)layout->greatest.patches, (uint64_t)spec->patch,
                                  (uint64_t)spec->patch, 4, &wrapped);
    layout->image_bytes =
        product((uint64_t)layout->greatest.rows, (uint64_t)spec->hidden, 4, 1, &wrapped);
    layout->logit_bytes = product(MMQI_MAX_PICK, (uint64_t)spec->vocab_size, 4, 1, &wrapped);
    layout->index_bytes =
        4 * place_index(&index, NULL, layout, layout->greatest.tower_rows, spec->tower_axes);
    chunk = 4 * place_index(&index, NULL, layout, layout->chunk, spec->rope_axes);
    if (chunk > layout->index_bytes)
        layout->index_bytes = chunk;
    layout->stream_bytes = backend->stream_bytes(device, layout->max_cols);
    layout->activation_bytes = layout->arena_bytes + layout->pixel_bytes + layout->image_bytes +
                               layout->logit_bytes + layout->index_bytes;
    layout->total_bytes = layout->activation_bytes + layout->kv_bytes + layout->stream_bytes;
    if (wrapped || layout->total_bytes < layout->kv_bytes || layout->total_bytes > SIZE_MAX / 2)
        return mmqi_fail(MMQ_ERR_LIMIT, "session: a context of %d passes any memory",
                         (int)layout->context);
    return MMQ_OK;
}

int32_t mmqi_session_layout(struct mmqi_session_layout *layout, const struct mmqi_model *model,
                            const struct mmqi_backend *backend, const struct mmqi_device *device,
                            const struct mmqi_session_options *options)
{
    int32_t status;

    memset(layout, 0, sizeof *layout);
    status = choose_sizes(layout, model, options);
    if (status == MMQ_OK)
        status = plan_graphs(layout, model);
    if (status == MMQ_OK)
        status = count_bytes(layout, model, backend, device);
    if (status != MMQ_OK)
        mmqi_session_layout_clear(layout);
    return status;
}

void mmqi_session_layout_clear(struct mmqi_session_layout *layout)
{
    mmqi_plan_free(layout->vision);
    mmqi_plan_free(layout->language);
    memset(layout, 0, sizeof *layout);
}

/* Memory of the session on its device; the budget was taken for all of it at once. */
static int32_t take_device_memory(struct mmqi_session *session)
{
    const struct mmqi_session_layout *layout = &session->layout;
    const struct mmqi_backend *backend = session->host->backend;
    struct {
        void **out;
        uint64_t bytes;
    } blocks[] = {
        {&session->arena, layout->arena_bytes},
        {(void **)&session->kv, layout->kv_bytes},
        {(void **)&session->pixels, layout->pixel_bytes},
        {(void **)&session->image, layout->image_bytes},
        {(void **)&session->logits, layout->logit_bytes},
        {&session->index_block, layout->index_bytes},
    };
    int32_t status = MMQ_OK;
    size_t i;

    for (i = 0; i < sizeof blocks / sizeof blocks[0] && status == MMQ_OK; i++)
        status = backend->alloc(session->host->device, blocks[i].out, (size_t)blocks[i].bytes);
    if (status == MMQ_OK)
        status = backend->stream_open(session->host->device, layout->max_cols, &session->stream);
    return status;
}

/* The page table of a session of its own is the identity: page p of the pool is its p-th. */
static int32_t fill_table(struct mmqi_session *session)
{
    const struct mmqi_spec *spec = &session->model->spec;
    int64_t stride = 2 * (int64_t)MMQI_PAGE_ROWS * spec->n_kv_heads * spec->head_dim;
    int32_t n_pages = session->layout.n_pages, i;

    for (i = 0; i < n_pages; i++)
        session->host_index.table[i] = i;
    for (i = 0; i < spec->n_layers; i++)
        session->kv_layers[i] = (struct mmqi_kv){
            .pages = session->kv + (int64_t)i * n_pages * stride,
            .page_stride = stride,
            .page_rows = MMQI_PAGE_ROWS,
            .table = session->device_index.table,
            .n_heads = spec->n_kv_heads,
            .head_dim = spec->head_dim,
        };
    return session->host->backend->upload(session->host->device, session->device_index.table,
                                          session->host_index.table, (size_t)n_pages * 4);
}

static int32_t take_host_memory(struct mmqi_session *session)
{
    const struct mmqi_session_layout *layout = &session->layout;

    session->host_block = mmqi_calloc(1, (size_t)layout->index_bytes);
    session->tokens = mmqi_calloc((size_t)layout->context, sizeof *session->tokens);
    session->kv_layers =
        mmqi_calloc((size_t)session->model->spec.n_layers, sizeof *session->kv_layers);
    if (!session->host_block || !session->tokens || !session->kv_layers)
        return mmqi_fail(MMQ_ERR_NOMEM, "session: no memory for a context of %d",
                         (int)layout->context);
    return MMQ_OK;
}

int32_t mmqi_session_create(struct mmqi_session **out, const struct mmqi_model *model,
                            struct mmqi_host *host, const struct mmqi_session_options *options)
{
    struct mmqi_session *session = mmqi_calloc(1, sizeof *session);
    int32_t status;
    size_t begin;

    *out = NULL;
    if (!session)
        return mmqi_fail(MMQ_ERR_NOMEM, "session: no memory for its handle");
    session->model = model;
    session->encoded = -1;
    status = mmqi_session_layout(&session->layout, model, host->backend, host->device, options);
    if (status == MMQ_OK)
        status = mmqi_host_take(host, session->layout.total_bytes, "session");
    if (status != MMQ_OK)
        goto fail;
    session->host = mmqi_host_retain(host); /* from here on, free gives the budget back */
    status = take_host_memory(session);
    if (status == MMQ_OK)
        status = take_device_memory(session);
    if (status != MMQ_OK)
        goto fail;
    mmqi_session_place_index(session, 1, model->spec.rope_axes, &begin);
    status = fill_table(session);
    if (status != MMQ_OK)
        goto fail;
    *out = session;
    return MMQ_OK;
fail:
    mmqi_session_free(session);
    return status;
}

static void free_device_memory(struct mmqi_session *session)
{
    const struct mmqi_backend *backend = session->host->backend;
    void *blocks[] = {session->arena, session->kv,     session->pixels,
                      session->image, session->logits, session->index_block};
    size_t i;

    backend->stream_close(session->stream);
    for (i = 0; i < sizeof blocks / sizeof blocks[0]; i++)
        backend->free(session->host->device, blocks[i]);
}

void mmqi_session_free(struct mmqi_session *session)
{
    if (!session)
        return;
    mmqi_session_truncate(session, 0);
    mmqi_free(session->pictures);
    if (session->host) {
        free_device_memory(session);
        mmqi_host_give(session->host, session->layout.total_bytes);
        mmqi_host_release(session->host);
    }
    mmqi_free(session->host_block);
    mmqi_free(session->kv_layers);
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

static bool tokens_equal(const struct mmqi_session *session, struct mmqi_token have,
                         struct mmqi_token want, struct mmqi_image *const *images)
{
    if (have.id != want.id || have.row != want.row || (have.picture < 0) != (want.picture < 0))
        return false;
    /* Row 0 compared the pixels; later rows of a picture follow it in both. */
    return want.picture < 0 || want.row > 0 ||
           mmqi_image_equal(session->pictures[have.picture], images[want.picture]);
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
        status = mmqi_model_measure(&picture, session->model, image->width, image->height);
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

    *kept = 0;
    if (tokens->n > (size_t)session->layout.context)
        return mmqi_fail(MMQ_ERR_CONTEXT_FULL, "session: a prompt of %zu tokens, a context of %d",
                         tokens->n, (int)session->layout.context);
    if (most > tokens->n)
        most = tokens->n;
    if (most > max_keep)
        most = max_keep;
    while (n < most && tokens_equal(session, session->tokens[n], tokens->data[n], images))
        n++;
    mmqi_session_truncate(session, (int32_t)n);
    *kept = (int32_t)n;
    /* Kept pictures have the same index in both: both lists count from 0 in order of appearance. */
    if (n_images <= (size_t)session->n_pictures)
        return MMQ_OK;
    i = (size_t)session->n_pictures;
    return adopt_pictures(session, images, i, n_images);
}
