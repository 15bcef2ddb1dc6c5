/*
 * Placing the weight table on the devices that it is split over.
 *
 * Matrices are placed as their canonical block; vectors and constants as f32, converted exactly.
 * Small buffers of host memory carry everything, so placing costs the device's bytes and no more. A
 * matrix whose format is not the stored one is packed on its way by the device, a chunk of rows at
 * a time: with memory of its own, that takes some of it as long as weights are placed.
 */
#include <string.h>

#include "core/dtype.h"
#include "core/mem.h"
#include "core/status.h"
#include "model/model.h"
#include "backend/packer.h"

enum {
    CHUNK_BYTES = 1 << 20,
    PACK_BYTES = 4 << 20 /* of f32 rows that are packed at a time */
};

static bool is_vector(const struct mmqi_weight *w)
{
    return w->role == MMQI_ROLE_VECTOR || w->role == MMQI_ROLE_CONSTANT;
}

static bool is_at(const struct mmqi_model *model, int32_t weight, int32_t place)
{
    return model->split.weights[weight] >> place & 1;
}

/* Bytes that a weight takes at a place. */
static uint64_t device_bytes(const struct mmqi_model *model, int32_t weight, int32_t place)
{
    const struct mmqi_weight *w = &model->weights[weight];

    if ((w->flags & MMQI_WEIGHT_UNUSED) || w->same_as >= 0 || !is_at(model, weight, place))
        return 0;
    return is_vector(w) ? (uint64_t)w->rows * (uint64_t)w->cols * sizeof(float) : w->layout.bytes;
}

uint64_t mmqi_model_place_bytes(const struct mmqi_model *model, int32_t place)
{
    uint64_t total = 0;

    for (int32_t i = 0; i < model->n_weights; i++)
        if (!mmqi_add_u64(total, device_bytes(model, i, place), &total))
            return UINT64_MAX;
    return total;
}

static bool is_packed(const struct mmqi_model *model, int32_t weight, int32_t place)
{
    const struct mmqi_weight *w = &model->weights[weight];

    return device_bytes(model, weight, place) > 0 && !is_vector(w) && w->format != w->stored;
}

static int64_t chunk_rows(const struct mmqi_weight *w)
{
    return mmqi_packer_step(w->format, w->rows, w->cols, PACK_BYTES);
}

uint64_t mmqi_model_pack_bytes(const struct mmqi_model *model, int32_t place,
                               const struct mmqi_backend *backend)
{
    uint64_t most = 0;

    for (int32_t i = 0; i < model->n_weights; i++) {
        const struct mmqi_weight *w = &model->weights[i];
        uint64_t bytes;

        if (!is_packed(model, i, place))
            continue;
        bytes = mmqi_packing_bytes(backend, w->format, chunk_rows(w), w->cols);
        most = bytes > most ? bytes : most;
    }
    return most;
}

/* What the pieces of placing share. */
struct placing {
    struct mmqi_model *model;
    struct mmqi_placement *placed; /* at the place in hand */
    int32_t place;
    const struct mmqi_backend *backend; /* there */
    struct mmqi_device *device;
    int32_t (*progress)(void *user, uint64_t done, uint64_t total); /* or NULL */
    void *user;
    uint64_t total;
    uint8_t *chunk; /* CHUNK_BYTES of host memory */
    struct mmqi_packing packing;
};

/* `bytes` of the weight in hand are on the device, after those of the weights before it. */
static int32_t tell(const struct placing *p, uint64_t bytes)
{
    return p->progress ? p->progress(p->user, p->model->placed_bytes + bytes, p->total) : MMQ_OK;
}

/* The greatest magnitude that one scale decodes to, in scales: what decodes nested ones is added
 * up, and the levels of int4 count from a zero point. */
static float greatest_level(const struct mmqi_format_info *info)
{
    if (info->kind == MMQI_KIND_INT4)
        return 15.0f;
    return info->nested ? 2.0f : 1.0f;
}

/* Scales come from a file that may be hostile: a kernel would spread what is not finite. */
static int32_t check_scales(const struct placing *p, const struct mmqi_weight *w, int32_t dtype,
                            size_t size)
{
    const float level = greatest_level(mmqi_format_info(w->format));
    size_t item = mmqi_dtype_size(dtype);

    for (size_t i = 0; i + item <= size; i += item) {
        float scale;

        mmqi_to_f32(&scale, p->chunk + i, dtype, 1);
        if ((mmqi_bits_from_f32(scale * level) & 0x7fffffffu) >= 0x7f800000u)
            return mmqi_fail(MMQ_ERR_FORMAT, "%s: a scale of '%s' is not finite", p->model->path,
                             w->name);
    }
    return MMQ_OK;
}

static int32_t check_zero_points(const struct placing *p, const struct mmqi_weight *w, size_t size)
{
    for (size_t i = 0; i < size; i++)
        if (p->chunk[i] > 15)
            return mmqi_fail(MMQ_ERR_FORMAT, "%s: a zero point of '%s' is %d, beyond 15",
                             p->model->path, w->name, (int)p->chunk[i]);
    return MMQ_OK;
}

/* The first `size` bytes of the chunk are of part `part` of the weight: numbers to decode by? */
static int32_t check_part(const struct placing *p, const struct mmqi_weight *w, int32_t part,
                          size_t size)
{
    const struct mmqi_format_info *info = mmqi_format_info(w->format);
    int32_t dtype = w->layout.part[part].dtype;

    if (!info->is_float && mmqi_format_from_dtype(dtype) >= 0)
        return check_scales(p, w, dtype, size);
    return info->kind == MMQI_KIND_INT4 && part == 2 ? check_zero_points(p, w, size) : MMQ_OK;
}

static int32_t upload_part(const struct placing *p, int32_t weight, int32_t part, uint8_t *memory)
{
    const struct mmqi_weight *w = &p->model->weights[weight];
    const struct mmqi_part *info = &w->layout.part[part];
    uint64_t at = 0, size;
    int32_t status = MMQ_OK;

    for (; at < info->bytes && status == MMQ_OK; at += size) {
        size = info->bytes - at < CHUNK_BYTES ? info->bytes - at : CHUNK_BYTES;
        status = mmqi_model_read_part(p->model, weight, part, at, p->chunk, size);
        if (status == MMQ_OK)
            status = check_part(p, w, part, (size_t)size);
        if (status == MMQ_OK)
            status =
                p->backend->upload(p->device, memory + info->offset + at, p->chunk, (size_t)size);
        if (status == MMQ_OK && size == CHUNK_BYTES)
            status = tell(p, info->offset + at + size);
    }
    return status;
}

/* ---- packing on the way ---- */

/* A weight that is packed while it is placed. */
struct packing {
    const struct placing *p;
    int32_t weight;
    uint8_t *memory; /* of the weight, on the device */
    struct mmqi_packer packer;
    float *rows;     /* of a chunk */
    uint8_t *scales; /* of a nested format: its parts from 1 on */
};

static int32_t pack_chunk(struct packing *k, int64_t begin, int64_t n)
{
    struct mmqi_packed_rows at;
    int32_t status = mmqi_model_read_to_pack(k->p->model, k->weight, begin, begin + n,
                                             k->packer.info->format, k->rows);

    if (status == MMQ_OK)
        status = mmqi_packer_place(&k->packer, k->memory, k->rows, begin, n);
    if (status == MMQ_OK)
        status = mmqi_packer_find(&k->packer, &at, begin, n);
    return status == MMQ_OK ? tell(k->p, at.begin[0] + at.bytes[0]) : status;
}

/* The scales of a nested format, which are known when all rows are. */
static int32_t pack_nested(struct packing *k)
{
    const struct mmqi_layout *layout = &k->packer.layout;
    uint64_t head = layout->part[1].offset;
    uint8_t *part[MMQI_MAX_PARTS] = {NULL};

    if (!k->packer.info->nest)
        return MMQ_OK;
    k->scales = mmqi_alloc_aligned((size_t)(layout->bytes - head));
    if (!k->scales)
        return mmqi_fail(MMQ_ERR_NOMEM, "%s: no memory to pack '%s'", k->p->model->path,
                         k->p->model->weights[k->weight].name);
    memset(k->scales, 0, (size_t)(layout->bytes - head));
    for (int32_t i = 1; i < layout->n_parts; i++)
        part[i] = k->scales + (layout->part[i].offset - head);
    mmqi_packer_finish(&k->packer, part);
    return k->p->backend->upload(k->p->device, k->memory + head, k->scales,
                                 (size_t)(layout->bytes - head));
}

static int32_t prepare_packing(struct packing *k)
{
    const struct mmqi_weight *w = &k->p->model->weights[k->weight];
    size_t bytes;
    int32_t status =
        mmqi_packer_open(&k->packer, w->format, w->method, w->rows, w->cols, &k->p->packing);

    if (status != MMQ_OK)
        return status;
    if (!mmqi_mul_size((size_t)chunk_rows(w), (size_t)w->cols, &bytes) ||
        !mmqi_mul_size(bytes, sizeof(float), &bytes))
        return mmqi_fail(MMQ_ERR_LIMIT, "%s: '%s' is too wide to pack", k->p->model->path, w->name);
    k->rows = mmqi_alloc_aligned(bytes);
    if (!k->rows)
        return mmqi_fail(MMQ_ERR_NOMEM, "%s: no memory to pack '%s'", k->p->model->path, w->name);
    return MMQ_OK;
}

static int32_t pack_weight(const struct placing *p, int32_t weight, uint8_t *memory)
{
    const struct mmqi_weight *w = &p->model->weights[weight];
    struct packing k = {.p = p, .weight = weight, .memory = memory};
    int64_t step = chunk_rows(w);
    int32_t status = prepare_packing(&k);

    for (int64_t begin = 0; begin < w->rows && status == MMQ_OK; begin += step)
        status = pack_chunk(&k, begin, w->rows - begin < step ? w->rows - begin : step);
    if (status == MMQ_OK)
        status = pack_nested(&k);
    mmqi_free(k.scales);
    mmqi_free(k.rows);
    mmqi_packer_close(&k.packer);
    return status;
}

/* ---- one weight ---- */

/* Vectors of the table are rows of at most a position embedding's width: some of them at a time. */
static int32_t upload_vector(const struct placing *p, int32_t weight, uint8_t *memory)
{
    const struct mmqi_weight *w = &p->model->weights[weight];
    int64_t n = CHUNK_BYTES / (int64_t)sizeof(float) / w->cols, begin = 0, end;
    int32_t status = MMQ_OK;

    if (n < 1)
        return mmqi_fail(MMQ_ERR_LIMIT, "%s: '%s' is too wide", p->model->path, w->name);
    for (; begin < w->rows && status == MMQ_OK; begin = end) {
        end = w->rows - begin < n ? w->rows : begin + n;
        status = mmqi_model_read_rows(p->model, weight, begin, end, (float *)p->chunk);
        if (status == MMQ_OK)
            status =
                p->backend->upload(p->device, memory + (uint64_t)(begin * w->cols) * sizeof(float),
                                   p->chunk, (size_t)((end - begin) * w->cols) * sizeof(float));
    }
    return status;
}

static int32_t place_matrix(const struct placing *p, int32_t weight, uint8_t *memory)
{
    const struct mmqi_weight *w = &p->model->weights[weight];
    struct mmqi_run_weight *placed = &p->placed->weights[weight];
    int32_t status = MMQ_OK;

    placed->mat.format = w->format;
    if (w->format != w->stored)
        status = pack_weight(p, weight, memory);
    for (int32_t i = 0; i < w->layout.n_parts && w->format == w->stored && status == MMQ_OK; i++)
        if (memory != w->block)
            status = upload_part(p, weight, i, memory);
    return status == MMQ_OK ? p->backend->pack(p->device, &placed->mat, memory, &w->layout)
                            : status;
}

/* A block that lies in the device's own memory serves where it is. */
static bool is_in_place(const struct placing *p, const struct mmqi_weight *w)
{
    return w->block && p->backend->host_memory && !is_vector(w) && w->format == w->stored;
}

static int32_t place_weight(const struct placing *p, int32_t weight)
{
    struct mmqi_model *model = p->model;
    struct mmqi_weight *w = &model->weights[weight];
    struct mmqi_run_weight *placed = &p->placed->weights[weight];
    uint64_t bytes = device_bytes(model, weight, p->place);
    void *memory = w->block;
    int32_t status = MMQ_OK;

    if (bytes > SIZE_MAX)
        return mmqi_fail(MMQ_ERR_LIMIT, "%s: '%s' is too large", model->path, w->name);
    if (!is_in_place(p, w)) {
        status = p->backend->alloc(p->device, &p->placed->memory[weight], (size_t)bytes);
        memory = p->placed->memory[weight];
    }
    if (status != MMQ_OK)
        return status;
    placed->mat.rows = w->rows;
    placed->mat.cols = w->cols;
    if (is_vector(w)) {
        placed->mat.format = MMQI_FORMAT_F32;
        placed->mat.part[0] = memory;
        placed->vector = memory;
        status = upload_vector(p, weight, memory);
    } else {
        status = place_matrix(p, weight, memory);
    }
    w->placed_bytes += bytes;
    model->placed_bytes += bytes;
    return status;
}

static void clear_placement(struct mmqi_placement *placed, int32_t n_weights)
{
    for (int32_t i = 0; placed->memory && i < n_weights; i++)
        if (placed->memory[i])
            placed->at.backend->free(placed->at.device, placed->memory[i]);
    mmqi_free(placed->memory);
    mmqi_free(placed->weights);
}

void mmqi_model_unplace(struct mmqi_model *model)
{
    for (int32_t i = 0; model->placed && i < model->split.n_places; i++)
        clear_placement(&model->placed[i], model->n_weights);
    for (int32_t i = 0; i < model->n_weights; i++)
        model->weights[i].placed_bytes = 0;
    mmqi_free(model->placed);
    model->placed = NULL;
    model->placed_bytes = 0;
}

/* Every weight at the place in hand. */
static int32_t place_all(const struct placing *p)
{
    struct mmqi_model *model = p->model;
    struct mmqi_run_weight *weights = p->placed->weights;
    int32_t status = MMQ_OK;

    for (int32_t i = 0; i < model->n_weights && status == MMQ_OK; i++) {
        const struct mmqi_weight *w = &model->weights[i];

        if (w->flags & MMQI_WEIGHT_UNUSED)
            continue;
        if (w->same_as >= 0) {
            weights[i] = weights[w->same_as];
            continue;
        }
        if (!is_at(model, i, p->place))
            continue;
        status = place_weight(p, i);
        if (status == MMQ_OK)
            status = tell(p, 0);
    }
    return status;
}

static int32_t place_at(struct placing *p, int32_t place)
{
    struct mmqi_model *model = p->model;
    size_t n = (size_t)model->n_weights;
    int32_t status;

    p->place = place;
    p->placed = &model->placed[place];
    p->backend = p->placed->at.backend;
    p->device = p->placed->at.device;
    p->packing = (struct mmqi_packing){.backend = p->backend, .device = p->device};
    p->placed->weights = mmqi_calloc(n, sizeof *p->placed->weights);
    p->placed->memory = mmqi_calloc(n, sizeof *p->placed->memory);
    if (!p->placed->weights || !p->placed->memory)
        return mmqi_fail(MMQ_ERR_NOMEM, "%s: no memory to place %zu weights", model->path, n);
    status = mmqi_packing_open(&p->packing, mmqi_model_pack_bytes(model, place, p->backend));
    if (status == MMQ_OK)
        status = place_all(p);
    mmqi_packing_close(&p->packing);
    return status;
}

int32_t mmqi_model_place(struct mmqi_model *model, const struct mmqi_place *places,
                         int32_t (*progress)(void *user, uint64_t done, uint64_t total), void *user)
{
    struct placing p = {.model = model, .progress = progress, .user = user};
    int32_t n = model->split.n_places, status = MMQ_OK;

    if (model->placed)
        return mmqi_fail(MMQ_ERR_STATE, "%s: already placed", model->path);
    model->placed = mmqi_calloc((size_t)n, sizeof *model->placed);
    p.chunk = mmqi_alloc_aligned(CHUNK_BYTES);
    if (!model->placed || !p.chunk)
        status = mmqi_fail(MMQ_ERR_NOMEM, "%s: no memory to place %d weights", model->path,
                           (int)model->n_weights);
    for (int32_t i = 0; i < n && status == MMQ_OK; i++) {
        model->placed[i].at = places[i];
        p.total += mmqi_model_place_bytes(model, i);
    }
    for (int32_t i = 0; i < n && status == MMQ_OK; i++)
        status = place_at(&p, i);
    mmqi_free(p.chunk);
    if (status != MMQ_OK)
        mmqi_model_unplace(model);
    return status;
}

int32_t mmqi_model_choose(struct mmqi_model *model, int32_t weight, int32_t format, int32_t method)
{
    struct mmqi_weight *w = &model->weights[weight];
    struct mmqi_layout layout;
    int32_t status = mmqi_format_info(format)->layout(&layout, w->rows, w->cols);

    if (status != MMQ_OK)
        return status;
    if (model->placed)
        return mmqi_fail(MMQ_ERR_STATE, "%s: already placed", model->path);
    w->format = format;
    w->method = method;
    w->layout = layout;
    for (int32_t i = 0; i < model->n_weights; i++)
        if (model->weights[i].same_as == weight) {
            model->weights[i].format = format;
            model->weights[i].layout = layout;
        }
    return MMQ_OK;
}
