/*
 * Quantizing layer by layer.
 *
 *   measure   the greatest chunk, and the bytes that progress counts; take memory for it
 *   declare   the folder's tensors, so that its headers are known
 *   pack      weight by weight, chunk by chunk, to memory and file
 *   copy      what is kept, byte for byte, and the small files
 */
#include "quant/apply.h"

#include <inttypes.h>
#include <string.h>

#include "backend/packer.h"
#include "core/dtype.h"
#include "core/mem.h"
#include "core/status.h"
#include "quant/folder.h"

enum { CHUNK_BYTES = 4 << 20, MIN_BUFFER = 64 << 10 };

struct job {
    const struct mmqi_model *source;
    const struct mmqi_quantize_options *options;
    struct mmqi_model *model;   /* the result in memory, or NULL */
    struct mmqi_folder *folder; /* the result on disk, or NULL */
    struct mmqi_report *report;
    float *rows; /* the chunk in hand; copies pass through it too */
    size_t rows_bytes;
    uint8_t *packed; /* the packed chunk where there is no model to pack into */
    size_t packed_bytes;
    struct mmqi_packing packing;
    uint64_t done, total; /* bytes of the source */
};

/* A weight that is packed. */
struct work {
    int32_t weight;
    struct mmqi_packer packer;
    uint8_t *block;  /* of the new model's weight, or NULL */
    uint8_t *scales; /* of a nested format without a block: its parts from 1 on */
};

static int32_t no_memory(void)
{
    return mmqi_fail(MMQ_ERR_NOMEM, "no memory to quantize");
}

/* A weight that shares another's storage changes with it. */
static bool changes(const struct job *job, int32_t i)
{
    return job->options->choices[i].change && job->source->weights[i].same_as < 0;
}

/* Of memory that the job holds now. */
static void note_peak(struct job *job, uint64_t beside)
{
    uint64_t now = job->report->memory_bytes + job->rows_bytes + job->packed_bytes + beside;

    if (now > job->report->peak_bytes)
        job->report->peak_bytes = now;
}

/* ---- measuring ---- */

static int64_t chunk_rows(const struct job *job, int32_t i)
{
    const struct mmqi_weight *w = &job->source->weights[i];
    uint64_t limit = job->options->chunk_bytes ? job->options->chunk_bytes : CHUNK_BYTES;

    return mmqi_packer_step(job->options->choices[i].format, w->rows, w->cols, limit);
}

static int32_t measure_weight(struct job *job, int32_t i)
{
    const struct mmqi_weight *w = &job->source->weights[i];
    int64_t rows = chunk_rows(job, i);
    struct mmqi_layout layout;
    uint64_t beside;
    size_t bytes;
    int32_t status =
        mmqi_format_info(job->options->choices[i].format)->layout(&layout, rows, w->cols);

    if (status != MMQ_OK)
        return status;
    if (!mmqi_mul_size((size_t)rows, (size_t)w->cols, &bytes) ||
        !mmqi_mul_size(bytes, sizeof(float), &bytes))
        return mmqi_fail(MMQ_ERR_LIMIT, "'%s' is too wide to quantize", w->name);
    job->rows_bytes = bytes > job->rows_bytes ? bytes : job->rows_bytes;
    beside =
        mmqi_packing_bytes(job->packing.backend, job->options->choices[i].format, rows, w->cols);
    if (beside > job->report->device_bytes)
        job->report->device_bytes = beside;
    if (!job->model && layout.bytes > job->packed_bytes)
        job->packed_bytes = (size_t)layout.bytes;
    job->total += mmqi_layout_part_bytes(&w->stored_layout);
    return MMQ_OK;
}

/* What packs, and its memory; given back by close_packing(). */
static int32_t open_packing(struct job *job)
{
    struct mmqi_host *host = job->options->host;
    uint64_t bytes = job->report->device_bytes;
    int32_t status;

    if (bytes == 0)
        return MMQ_OK;
    status = mmqi_host_take_at(host, job->options->place, bytes, "packing weights");
    if (status != MMQ_OK)
        return status;
    status = mmqi_packing_open(&job->packing, bytes);
    if (status != MMQ_OK)
        mmqi_host_give_at(host, job->options->place, bytes);
    return status;
}

static void close_packing(struct job *job)
{
    uint64_t bytes = job->packing.bytes;

    mmqi_packing_close(&job->packing);
    if (bytes > 0)
        mmqi_host_give_at(job->options->host, job->options->place, bytes);
}

static int32_t make_buffers(struct job *job)
{
    int32_t status = MMQ_OK;

    job->rows_bytes = MIN_BUFFER;
    for (int32_t i = 0; i < job->source->n_weights && status == MMQ_OK; i++)
        if (changes(job, i))
            status = measure_weight(job, i);
    if (status != MMQ_OK)
        return status;
    job->rows = mmqi_alloc_aligned(job->rows_bytes);
    job->packed = mmqi_alloc_aligned(job->packed_bytes);
    if (!job->rows || !job->packed)
        return no_memory();
    note_peak(job, 0);
    return open_packing(job);
}

/* ---- packing ---- */

static int32_t check_cancel(const struct job *job)
{
    const int32_t *flag = job->options->cancel;

    if (flag && __atomic_load_n(flag, __ATOMIC_RELAXED) != 0)
        return mmqi_fail(MMQ_ERR_CANCELLED, "quantization was cancelled after %" PRIu64 " bytes",
                         job->done);
    return MMQ_OK;
}

/* `bytes` more of the source are dealt with. */
static int32_t tick(void *user, uint64_t bytes)
{
    struct job *job = user;
    const struct mmqi_quantize_options *options = job->options;
    int32_t status;

    job->done += bytes;
    status = check_cancel(job);
    if (status != MMQ_OK)
        return status;
    if (options->progress && options->progress(options->progress_user, job->done, job->total) != 0)
        return mmqi_fail(MMQ_ERR_CALLBACK, "the progress callback ended quantization");
    return MMQ_OK;
}

/* Where the bytes `at` of the weight are packed to: their place in the new model, or the buffer. */
static void find_parts(uint8_t *part[MMQI_MAX_PARTS], const struct job *job,
                       const struct work *work, const struct mmqi_packed_rows *at)
{
    if (!work->block) {
        mmqi_packed_lay_out(part, job->packed, at);
        return;
    }
    for (int32_t i = 0; i < MMQI_MAX_PARTS; i++)
        part[i] = work->block + work->packer.layout.part[i].offset + at->begin[i];
}

static int32_t save_parts(struct job *job, const struct work *work,
                          uint8_t *const part[MMQI_MAX_PARTS], const struct mmqi_packed_rows *at)
{
    int32_t status = MMQ_OK;

    for (int32_t i = 0; i < MMQI_MAX_PARTS && job->folder && status == MMQ_OK; i++)
        if (at->bytes[i] > 0)
            status = mmqi_folder_write(job->folder, work->weight, i, at->begin[i], part[i],
                                       (size_t)at->bytes[i]);
    return status;
}

static int32_t quantize_chunk(struct job *job, struct work *work, int64_t begin, int64_t n)
{
    const struct mmqi_weight *w = &job->source->weights[work->weight];
    size_t item = mmqi_dtype_size(mmqi_format_info(w->stored)->dtype);
    struct mmqi_packed_rows at;
    uint8_t *part[MMQI_MAX_PARTS];
    int32_t status = mmqi_model_read_to_pack(job->source, work->weight, begin, begin + n,
                                             work->packer.info->format, job->rows);

    if (status == MMQ_OK)
        status = mmqi_packer_find(&work->packer, &at, begin, n);
    if (status != MMQ_OK)
        return status;
    find_parts(part, job, work, &at);
    status = mmqi_packer_pack(&work->packer, part, job->rows, begin, n);
    if (status == MMQ_OK)
        status = save_parts(job, work, part, &at);
    return status == MMQ_OK ? tick(job, (uint64_t)(n * w->cols) * item) : status;
}

/* The scales of a nested format, known when all rows are; *offset is what its files tell apart. */
static int32_t finish_scales(struct job *job, struct work *work, float *offset)
{
    const struct mmqi_layout *layout = &work->packer.layout;
    struct mmqi_packed_rows at = {{0}, {0}};
    uint8_t *part[MMQI_MAX_PARTS] = {NULL};
    uint64_t head = layout->part[1].offset;

    *offset = 0.0f;
    if (!work->packer.info->nest)
        return MMQ_OK;
    if (!work->block)
        work->scales = mmqi_alloc_aligned((size_t)(layout->bytes - head));
    if (!work->block && !work->scales)
        return no_memory();
    for (int32_t i = 1; i < layout->n_parts; i++) {
        at.bytes[i] = layout->part[i].bytes;
        part[i] = work->block ? work->block + layout->part[i].offset
                              : work->scales + (layout->part[i].offset - head);
    }
    note_peak(job,
              mmqi_packer_bytes(work->packer.info->format, work->packer.rows, work->packer.cols) +
                  (work->scales ? layout->bytes - head : 0));
    mmqi_packer_finish(&work->packer, part);
    memcpy(offset, part[layout->n_parts - 1], sizeof *offset);
    return save_parts(job, work, part, &at);
}

/* A zeroed block for a weight of the new model, in place of the source's tensors. */
static int32_t make_block(struct job *job, int32_t weight, int32_t format,
                          const struct mmqi_layout *layout)
{
    struct mmqi_weight *w = &job->model->weights[weight];

    w->block = mmqi_alloc_aligned((size_t)layout->bytes);
    if (!w->block)
        return mmqi_fail(MMQ_ERR_NOMEM, "no memory for '%s' (%" PRIu64 " bytes)", w->name,
                         layout->bytes);
    memset(w->block, 0, (size_t)layout->bytes);
    w->format = w->stored = format;
    w->layout = w->stored_layout = *layout;
    job->report->memory_bytes += layout->bytes;
    note_peak(job, 0);
    return MMQ_OK;
}

static int32_t pack_weight(struct job *job, struct work *work)
{
    const struct mmqi_weight *w = &job->source->weights[work->weight];
    int64_t step = chunk_rows(job, work->weight);
    float offset;
    int32_t status = MMQ_OK;

    for (int64_t begin = 0; begin < w->rows && status == MMQ_OK; begin += step)
        status = quantize_chunk(job, work, begin, w->rows - begin < step ? w->rows - begin : step);
    if (status == MMQ_OK)
        status = finish_scales(job, work, &offset);
    if (status == MMQ_OK && job->folder)
        status = mmqi_folder_describe(job->folder, work->weight, offset);
    return status;
}

static int32_t quantize_weight(struct job *job, int32_t weight)
{
    const struct mmqi_weight *w = &job->source->weights[weight];
    const struct mmqi_choice *choice = &job->options->choices[weight];
    struct work work = {.weight = weight};
    int32_t status = mmqi_packer_open(&work.packer, choice->format, choice->method, w->rows,
                                      w->cols, &job->packing);

    note_peak(job, mmqi_packer_bytes(choice->format, w->rows, w->cols));
    if (status == MMQ_OK && job->model)
        status = make_block(job, weight, choice->format, &work.packer.layout);
    if (status == MMQ_OK && job->model)
        work.block = job->model->weights[weight].block;
    if (status == MMQ_OK)
        status = pack_weight(job, &work);
    mmqi_free(work.scales);
    mmqi_packer_close(&work.packer);
    return status;
}

/* A weight of the source that lies in memory and is kept: the new model has its own. */
static int32_t copy_block(struct job *job, int32_t weight)
{
    const struct mmqi_weight *w = &job->source->weights[weight];
    int32_t status = make_block(job, weight, w->stored, &w->stored_layout);

    if (status == MMQ_OK)
        memcpy(job->model->weights[weight].block, w->block, (size_t)w->stored_layout.bytes);
    return status;
}

static int32_t quantize_weights(struct job *job)
{
    int32_t status = MMQ_OK;

    for (int32_t i = 0; i < job->source->n_weights && status == MMQ_OK; i++) {
        const struct mmqi_weight *w = &job->source->weights[i];

        if (changes(job, i))
            status = quantize_weight(job, i);
        else if (job->model && w->block && w->role != MMQI_ROLE_CONSTANT)
            status = copy_block(job, i);
    }
    return status;
}

/* Weights that share another's storage are what it has become. */
static void follow_shared(struct mmqi_model *model)
{
    for (int32_t i = 0; i < model->n_weights; i++) {
        struct mmqi_weight *w = &model->weights[i];

        if (w->same_as < 0)
            continue;
        w->format = w->stored = model->weights[w->same_as].format;
        w->layout = w->stored_layout = model->weights[w->same_as].layout;
    }
}

/* ---- the whole ---- */

static int32_t open_folder(struct job *job)
{
    int32_t status = mmqi_folder_open(&job->folder, job->source, job->options->choices,
                                      job->options->out_path, job->options->shard_bytes);

    if (status != MMQ_OK)
        return status;
    job->report->file_bytes = mmqi_folder_file_bytes(job->folder);
    job->total += mmqi_folder_copy_bytes(job->folder);
    return MMQ_OK;
}

static int32_t report_all(struct job *job)
{
    int32_t status = mmqi_report_add_choices(job->report, job->source, job->options->choices);

    return status == MMQ_OK ? mmqi_report_finish(job->report) : status;
}

static int32_t run(struct job *job, bool in_memory)
{
    int32_t status = MMQ_OK;

    if (!in_memory && !job->options->out_path)
        return mmqi_fail(MMQ_ERR_INVALID, "neither a folder nor a model is asked for");
    status = mmqi_report_create(&job->report);
    if (status == MMQ_OK && in_memory)
        status = mmqi_model_clone(&job->model, job->source);
    if (status == MMQ_OK)
        status = make_buffers(job);
    if (status == MMQ_OK && job->options->out_path)
        status = open_folder(job);
    if (status == MMQ_OK)
        status = tick(job, 0);
    if (status == MMQ_OK)
        status = quantize_weights(job);
    if (status == MMQ_OK && job->model)
        follow_shared(job->model);
    if (status == MMQ_OK)
        status = report_all(job);
    if (status == MMQ_OK && job->folder)
        status = mmqi_folder_copy(job->folder, job->rows, job->rows_bytes, tick, job);
    if (status == MMQ_OK)
        status = check_cancel(job);
    return status == MMQ_OK && job->folder ? mmqi_folder_commit(job->folder) : status;
}

int32_t mmqi_quantize(struct mmqi_model **quantized, const struct mmqi_model *source,
                      const struct mmqi_quantize_options *options, struct mmqi_report **report)
{
    struct job job = {.source = source, .options = options, .packing = {.pool = options->pool}};
    int32_t status;

    if (options->host) {
        job.packing.backend = options->host->place[options->place].at.backend;
        job.packing.device = options->host->place[options->place].at.device;
    }
    if (quantized)
        *quantized = NULL;
    if (report)
        *report = NULL;
    status = run(&job, quantized != NULL);
    if (status == MMQ_OK && quantized) {
        *quantized = job.model;
        job.model = NULL;
    }
    if (status == MMQ_OK && report) {
        *report = job.report;
        job.report = NULL;
    }
    close_packing(&job);
    mmqi_model_close(job.model);
    mmqi_folder_free(job.folder);
    mmqi_report_free(job.report);
    mmqi_free(job.packed);
    mmqi_free(job.rows);
    return status;
}
