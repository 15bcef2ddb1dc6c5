/*
 * Quantizing layer by layer.
 *
 *   choose    which weights are packed, and refuse what cannot be
 *   declare   the folder's tensors, so that its headers are known
 *   pack      weight by weight, chunk by chunk, to memory and file
 *   copy      what is kept, byte for byte, and the small files
 */
#include "quant/apply.h"

#include <inttypes.h>
#include <string.h>

#include "core/dtype.h"
#include "core/mem.h"
#include "core/status.h"
#include "io/file.h"
#include "quant/export_bnb.h"
#include "quant/save.h"

enum {
    CHUNK_BYTES = 4 << 20,
    SLICE_BYTES = 64 << 10, /* of f32 rows that one thread packs at a time */
    MIN_BUFFER = 64 << 10,
    MAX_CONFIG = 1 << 20
};

/* Files of a checkpoint folder that are copied as they are. */
static const char *const small_files[] = {
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.json",
    "chat_template.jinja",
    "generation_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "video_preprocessor_config.json",
};

struct job {
    const struct mmqi_model *source;
    const struct mmqi_quantize_options *options;
    const struct mmqi_format_info *info; /* of the format asked for */
    struct mmqi_model *model;            /* the result in memory, or NULL */
    struct mmqi_save *save;              /* the result on disk, or NULL */
    struct mmqi_report *report;
    bool *pack;      /* [n_weights] to be packed */
    bool *is_stored; /* [n_weights] packed, or in the format already */
    int32_t n_packed;
    size_t *first;  /* [n_weights] id of a packed weight's first tensor in `save` */
    int32_t *owner; /* [entries of the checkpoint] the packed weight it belongs to, or -1 */
    size_t *copy;   /* [entries] id in `save` of one that is copied */
    float *rows;    /* the chunk in hand; copies pass through it too */
    size_t rows_bytes;
    uint8_t *packed; /* the packed chunk where there is no model to pack into */
    size_t packed_bytes;
    uint64_t done, total; /* bytes of the source */
};

static int32_t no_memory(void)
{
    return mmqi_fail(MMQ_ERR_NOMEM, "no memory to quantize");
}

/* ---- choosing ---- */

static int32_t choose_weight(struct job *job, int32_t i)
{
    const struct mmqi_weight *weight = &job->source->weights[i];
    const struct mmqi_format_info *is = mmqi_format_info(weight->format);

    if (weight->role != MMQI_ROLE_LINEAR || weight->same_as >= 0)
        return MMQ_OK;
    if (is->is_float) {
        job->pack[i] = true;
        job->is_stored[i] = true;
        job->n_packed++;
        return MMQ_OK;
    }
    if (weight->format != job->options->format)
        return mmqi_fail(MMQ_ERR_UNSUPPORTED, "%s: '%s' is already %s; quantize the original to %s",
                         job->source->path, weight->name, is->name, job->info->name);
    if (weight->block)
        return mmqi_fail(MMQ_ERR_UNSUPPORTED,
                         "'%s' is already %s in memory; save it from its source", weight->name,
                         is->name);
    job->is_stored[i] = true;
    return MMQ_OK;
}

static int32_t choose(struct job *job)
{
    size_t n = (size_t)job->source->n_weights;
    int32_t status = MMQ_OK;

    job->pack = mmqi_calloc(n, sizeof *job->pack);
    job->is_stored = mmqi_calloc(n, sizeof *job->is_stored);
    job->first = mmqi_calloc(n, sizeof *job->first);
    if (!job->pack || !job->is_stored || !job->first)
        return no_memory();
    for (int32_t i = 0; i < job->source->n_weights && status == MMQ_OK; i++)
        status = choose_weight(job, i);
    return status;
}

/* ---- chunks and buffers ---- */

/* Rows of one chunk: whole steps of the format within chunk_bytes, one step at the least. */
static int64_t chunk_rows(const struct job *job, const struct mmqi_weight *weight)
{
    uint64_t limit = job->options->chunk_bytes ? job->options->chunk_bytes : CHUNK_BYTES;
    int64_t step = job->info->row_step(weight->cols), rows;

    if (weight->cols == 0)
        return weight->rows;
    rows = (int64_t)(limit / sizeof(float) / (uint64_t)weight->cols);
    rows = rows < step ? step : rows / step * step;
    return rows < weight->rows ? rows : weight->rows;
}

static int32_t size_for_weight(struct job *job, const struct mmqi_weight *weight)
{
    int64_t rows = chunk_rows(job, weight);
    struct mmqi_layout layout;
    size_t bytes;
    int32_t status = job->info->layout(&layout, rows, weight->cols);

    if (status != MMQ_OK)
        return status;
    if (!mmqi_mul_size((size_t)rows, (size_t)weight->cols, &bytes) ||
        !mmqi_mul_size(bytes, sizeof(float), &bytes))
        return mmqi_fail(MMQ_ERR_LIMIT, "'%s' is too wide to quantize", weight->name);
    job->rows_bytes = bytes > job->rows_bytes ? bytes : job->rows_bytes;
    if (!job->model && layout.bytes > job->packed_bytes)
        job->packed_bytes = (size_t)layout.bytes;
    return MMQ_OK;
}

static uint64_t stored_bytes(const struct mmqi_layout *layout)
{
    uint64_t bytes = 0;

    for (int32_t i = 0; i < layout->n_parts; i++)
        bytes += layout->part[i].bytes;
    return bytes;
}

static int32_t make_buffers(struct job *job)
{
    int32_t status = MMQ_OK;

    job->rows_bytes = MIN_BUFFER;
    for (int32_t i = 0; i < job->source->n_weights && status == MMQ_OK; i++)
        if (job->pack[i]) {
            status = size_for_weight(job, &job->source->weights[i]);
            job->total += stored_bytes(&job->source->weights[i].layout);
        }
    if (status != MMQ_OK)
        return status;
    job->rows = mmqi_alloc_aligned(job->rows_bytes);
    job->packed = mmqi_alloc_aligned(job->packed_bytes);
    if (!job->rows || !job->packed)
        return no_memory();
    job->report->peak_bytes = job->rows_bytes + job->packed_bytes;
    return MMQ_OK;
}

/* ---- declaring the folder's tensors ---- */

/* Index of the entry of that name; entries are sorted by name. -1: none. */
static int64_t entry_index(const struct mmqi_checkpoint *checkpoint, const char *name)
{
    size_t low = 0, high = mmqi_checkpoint_count(checkpoint);

    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = strcmp(mmqi_checkpoint_entry(checkpoint, middle)->name, name);

        if (order == 0)
            return (int64_t)middle;
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return -1;
}

static int32_t find_owners(struct job *job)
{
    size_t n = mmqi_checkpoint_count(job->source->checkpoint);

    job->owner = mmqi_alloc_array(n, sizeof *job->owner);
    job->copy = mmqi_calloc(n, sizeof *job->copy);
    if (!job->owner || !job->copy)
        return no_memory();
    for (size_t i = 0; i < n; i++)
        job->owner[i] = -1;
    for (int32_t i = 0; i < job->source->n_weights; i++) {
        const struct mmqi_weight *weight = &job->source->weights[i];
        int64_t entry;

        if (!job->pack[i])
            continue;
        entry =
            weight->entry[0] ? entry_index(job->source->checkpoint, weight->entry[0]->name) : -1;
        if (entry < 0 || job->owner[entry] >= 0)
            return mmqi_fail(MMQ_ERR_UNSUPPORTED,
                             "'%s' is no tensor of its own in the checkpoint: it cannot be saved",
                             weight->name);
        job->owner[entry] = i;
    }
    return MMQ_OK;
}

static struct mmqi_bnb_matrix bnb_matrix(const struct job *job, int32_t weight,
                                         const struct mmqi_layout *layout)
{
    const struct mmqi_weight *w = &job->source->weights[weight];

    return (struct mmqi_bnb_matrix){.file_name = w->entry[0]->name,
                                    .format = job->options->format,
                                    .source_dtype = w->entry[0]->dtype,
                                    .rows = w->rows,
                                    .cols = w->cols,
                                    .layout = layout};
}

static int32_t declare_entry(struct job *job, size_t index)
{
    const struct mmqi_entry *entry = mmqi_checkpoint_entry(job->source->checkpoint, index);
    int32_t weight = job->owner[index], status;
    struct mmqi_bnb_matrix matrix;
    struct mmqi_layout layout;

    if (weight < 0) {
        job->copy[index] = mmqi_save_count(job->save);
        job->total += entry->bytes;
        return mmqi_save_tensor(job->save, entry->name, entry->dtype, entry->rank, entry->shape,
                                false);
    }
    status = job->info->layout(&layout, job->source->weights[weight].rows,
                               job->source->weights[weight].cols);
    if (status != MMQ_OK)
        return status;
    matrix = bnb_matrix(job, weight, &layout);
    return mmqi_bnb_declare(job->save, &job->first[weight], &matrix);
}

static int32_t open_folder(struct job *job)
{
    size_t n = mmqi_checkpoint_count(job->source->checkpoint);
    int32_t status = mmqi_save_create(&job->save, job->options->out_path);

    if (status == MMQ_OK)
        status = find_owners(job);
    for (size_t i = 0; i < n && status == MMQ_OK; i++)
        status = declare_entry(job, i);
    if (status == MMQ_OK)
        status = mmqi_save_open(job->save, job->options->shard_bytes);
    if (status == MMQ_OK)
        job->report->file_bytes = mmqi_save_bytes(job->save);
    return status;
}

/* ---- packing ---- */

/* `bytes` more of the source are dealt with. */
static int32_t tick(struct job *job, uint64_t bytes)
{
    const struct mmqi_quantize_options *options = job->options;

    job->done += bytes;
    if (options->cancel && __atomic_load_n(options->cancel, __ATOMIC_RELAXED) != 0)
        return mmqi_fail(MMQ_ERR_CANCELLED, "quantization was cancelled after %" PRIu64 " bytes",
                         job->done);
    if (options->progress && options->progress(options->progress_user, job->done, job->total) != 0)
        return mmqi_fail(MMQ_ERR_CALLBACK, "the progress callback ended quantization");
    return MMQ_OK;
}

/* Index of the first NaN or Inf; -1 when all are finite. */
static int64_t first_nonfinite(const float *w, int64_t n)
{
    for (int64_t begin = 0; begin < n; begin += 256) {
        int64_t end = n - begin < 256 ? n : begin + 256;
        uint32_t bad = 0;

        for (int64_t i = begin; i < end; i++)
            bad |= (mmqi_bits_from_f32(w[i]) & 0x7f800000u) == 0x7f800000u;
        for (int64_t i = begin; bad && i < end; i++)
            if ((mmqi_bits_from_f32(w[i]) & 0x7f800000u) == 0x7f800000u)
                return i;
    }
    return -1;
}

static int32_t check_finite(const struct job *job, int32_t weight, int64_t first_row, int64_t rows)
{
    const struct mmqi_weight *w = &job->source->weights[weight];
    int64_t at = first_nonfinite(job->rows, rows * w->cols);

    if (at < 0)
        return MMQ_OK;
    return mmqi_fail(MMQ_ERR_FORMAT, "%s: '%s' (%s) is %s at [%" PRId64 ", %" PRId64 "]",
                     job->source->path, w->entry[0] ? w->entry[0]->name : w->name, w->name,
                     job->rows[at] != job->rows[at] ? "NaN" : "infinite", first_row + at / w->cols,
                     at % w->cols);
}

/* Rows packed side by side into one block; slices are whole steps, so their bytes are disjoint. */
struct slices {
    const struct mmqi_format_info *info;
    const struct mmqi_layout *layout; /* of the block */
    uint8_t *block;
    const float *w;
    int64_t first_row; /* of the block where w's first row goes: whole steps */
    int64_t rows, cols, slice_rows;
};

/* Where row `row` begins in each part of the block. A smaller layout cannot fail. */
static void find_parts(uint8_t *part[MMQI_MAX_PARTS], const struct slices *s, int64_t row)
{
    struct mmqi_layout before = {0};

    s->info->layout(&before, row, s->cols);
    for (int32_t i = 0; i < s->layout->n_parts; i++)
        part[i] = s->block + s->layout->part[i].offset + before.part[i].bytes;
}

static void pack_slice(void *arg, int64_t index, int32_t worker)
{
    const struct slices *s = arg;
    int64_t begin = index * s->slice_rows;
    int64_t n = s->rows - begin < s->slice_rows ? s->rows - begin : s->slice_rows;
    uint8_t *part[MMQI_MAX_PARTS];

    (void)worker;
    find_parts(part, s, s->first_row + begin);
    s->info->pack(part, s->w + begin * s->cols, n, s->cols, MMQI_METHOD_RTN);
}

static void pack_rows(struct job *job, struct slices *s)
{
    int64_t step = s->info->row_step(s->cols), n_slices;

    s->slice_rows = s->cols > 0 ? SLICE_BYTES / (int64_t)sizeof(float) / s->cols : s->rows;
    s->slice_rows = s->slice_rows < step ? step : s->slice_rows / step * step;
    n_slices = (s->rows + s->slice_rows - 1) / s->slice_rows;
    if (job->options->pool) {
        mmqi_pool_run(job->options->pool, n_slices, pack_slice, s);
        return;
    }
    for (int64_t i = 0; i < n_slices; i++)
        pack_slice(s, i, 0);
}

/* The rows just packed, from the block to their tensors. */
static int32_t save_rows(struct job *job, int32_t weight, const struct slices *s, int64_t begin)
{
    struct mmqi_layout before, chunk;
    uint8_t *part[MMQI_MAX_PARTS];
    int32_t status = s->info->layout(&before, begin, s->cols);

    if (status == MMQ_OK)
        status = s->info->layout(&chunk, s->rows, s->cols);
    if (status != MMQ_OK)
        return status;
    find_parts(part, s, s->first_row);
    for (int32_t i = 0; i < chunk.n_parts && status == MMQ_OK; i++)
        status = mmqi_save_write(job->save, job->first[weight] + (size_t)i, before.part[i].bytes,
                                 part[i], (size_t)chunk.part[i].bytes);
    return status;
}

/* Rows [begin, begin + n) of a weight; `whole` is the layout of all of it. */
static int32_t quantize_chunk(struct job *job, int32_t weight, const struct mmqi_layout *whole,
                              int64_t begin, int64_t n)
{
    const struct mmqi_weight *w = &job->source->weights[weight];
    struct mmqi_layout chunk, plain;
    struct slices s = {
        .info = job->info, .w = job->rows, .rows = n, .cols = w->cols, .layout = whole};
    int32_t status = mmqi_model_read_rows(job->source, weight, begin, begin + n, job->rows);

    if (status == MMQ_OK)
        status = check_finite(job, weight, begin, n);
    if (status == MMQ_OK)
        status = job->info->layout(&chunk, n, w->cols);
    if (status == MMQ_OK)
        status = mmqi_format_info(w->format)->layout(&plain, n, w->cols);
    if (status != MMQ_OK)
        return status;
    s.block = job->model ? job->model->weights[weight].block : job->packed;
    s.first_row = job->model ? begin : 0;
    s.layout = job->model ? whole : &chunk;
    pack_rows(job, &s);
    if (job->save)
        status = save_rows(job, weight, &s, begin);
    return status == MMQ_OK ? tick(job, stored_bytes(&plain)) : status;
}

/* Give the new model's weight a block of its own in place of the source's tensors. */
static int32_t make_block(struct job *job, int32_t weight, const struct mmqi_layout *layout)
{
    struct mmqi_weight *w = &job->model->weights[weight];
    struct mmqi_report *report = job->report;
    uint64_t now;

    w->block = mmqi_alloc_aligned((size_t)layout->bytes);
    if (!w->block)
        return mmqi_fail(MMQ_ERR_NOMEM, "no memory for '%s' (%" PRIu64 " bytes)", w->name,
                         layout->bytes);
    memset(w->block, 0, (size_t)layout->bytes);
    w->format = job->options->format;
    w->layout = *layout;
    memset((void *)w->entry, 0, sizeof w->entry);
    report->memory_bytes += layout->bytes;
    now = report->memory_bytes + job->rows_bytes + job->packed_bytes;
    report->peak_bytes = now > report->peak_bytes ? now : report->peak_bytes;
    return MMQ_OK;
}

static int32_t quantize_weight(struct job *job, int32_t weight)
{
    const struct mmqi_weight *w = &job->source->weights[weight];
    int64_t step = chunk_rows(job, w);
    struct mmqi_bnb_matrix matrix;
    struct mmqi_layout layout;
    int32_t status = job->info->layout(&layout, w->rows, w->cols);

    if (status == MMQ_OK && job->model)
        status = make_block(job, weight, &layout);
    for (int64_t begin = 0; begin < w->rows && status == MMQ_OK; begin += step) {
        int64_t n = w->rows - begin < step ? w->rows - begin : step;

        status = quantize_chunk(job, weight, &layout, begin, n);
    }
    if (status != MMQ_OK || !job->save)
        return status;
    matrix = bnb_matrix(job, weight, &layout);
    return mmqi_bnb_write_extra(job->save, job->first[weight], &matrix);
}

/* Weights that share a packed weight's storage are what it has become. */
static void follow_shared(struct mmqi_model *model, const bool *pack)
{
    for (int32_t i = 0; i < model->n_weights; i++) {
        struct mmqi_weight *w = &model->weights[i];

        if (w->same_as < 0 || !pack[w->same_as])
            continue;
        w->format = model->weights[w->same_as].format;
        w->layout = model->weights[w->same_as].layout;
        memset((void *)w->entry, 0, sizeof w->entry);
    }
}

/* ---- what is kept ---- */

static int32_t copy_entry(struct job *job, size_t index)
{
    const struct mmqi_entry *entry = mmqi_checkpoint_entry(job->source->checkpoint, index);
    int32_t status = MMQ_OK;

    for (uint64_t begin = 0; begin < entry->bytes && status == MMQ_OK; begin += job->rows_bytes) {
        uint64_t left = entry->bytes - begin;
        size_t n = left < job->rows_bytes ? (size_t)left : job->rows_bytes;

        status = mmqi_checkpoint_read(job->source->checkpoint, entry, begin, job->rows, n);
        if (status == MMQ_OK)
            status = mmqi_save_write(job->save, job->copy[index], begin, job->rows, n);
        if (status == MMQ_OK)
            status = tick(job, n);
    }
    return status;
}

/* A source that has the format already says so itself. */
static int32_t write_config(struct job *job)
{
    char *text = NULL, *config = NULL;
    size_t size, config_size;
    int32_t status;

    if (job->n_packed == 0)
        return mmqi_save_copy(job->save, job->source->store, "config.json", job->rows,
                              job->rows_bytes);
    status = mmqi_file_read_all(&text, &size, job->source->store, "config.json", MAX_CONFIG);
    if (status == MMQ_OK)
        status = mmqi_bnb_config(&config, &config_size, text, size, job->source, job->is_stored,
                                 job->options->format);
    if (status == MMQ_OK)
        status = mmqi_save_text(job->save, "config.json", config, config_size);
    mmqi_free(config);
    mmqi_free(text);
    return status;
}

static int32_t complete_folder(struct job *job)
{
    size_t n = mmqi_checkpoint_count(job->source->checkpoint);
    int32_t status = MMQ_OK;

    for (size_t i = 0; i < n && status == MMQ_OK; i++)
        if (job->owner[i] < 0)
            status = copy_entry(job, i);
    if (status == MMQ_OK)
        status = write_config(job);
    for (size_t i = 0; i < sizeof small_files / sizeof *small_files && status == MMQ_OK; i++)
        status = mmqi_save_copy(job->save, job->source->store, small_files[i], job->rows,
                                job->rows_bytes);
    return status == MMQ_OK ? mmqi_save_commit(job->save) : status;
}

/* ---- the report ---- */

static const char *reason_of(const struct job *job, int32_t weight)
{
    static const char *const kept[] = {
        [MMQI_ROLE_LINEAR] = "kept: quantized already", [MMQI_ROLE_EMBED] = "kept: embedding",
        [MMQI_ROLE_CONV] = "kept: convolution",         [MMQI_ROLE_VECTOR] = "kept: vector",
        [MMQI_ROLE_CONSTANT] = "kept: constant",
    };
    const struct mmqi_weight *w = &job->source->weights[weight];

    if (w->same_as >= 0)
        return "shares the storage of another weight";
    return job->pack[weight] ? "policy" : kept[w->role];
}

static int32_t report_weight(struct job *job, int32_t weight)
{
    const struct mmqi_weight *w = &job->source->weights[weight];
    bool shared = w->same_as >= 0, packed = job->pack[shared ? w->same_as : weight];
    const char *was = mmqi_format_info(w->format)->name;
    struct mmqi_report_item item = {.name = w->name,
                                    .was = was,
                                    .format = packed ? job->info->name : was,
                                    .method = packed && !shared ? "rtn" : "none",
                                    .reason = reason_of(job, weight),
                                    .rows = w->rows,
                                    .cols = w->cols};
    struct mmqi_layout layout = w->layout;
    int32_t status = MMQ_OK;

    if (packed)
        status = job->info->layout(&layout, w->rows, w->cols);
    if (status != MMQ_OK)
        return status;
    item.source_bytes = shared ? 0 : stored_bytes(&w->layout);
    item.bytes = shared ? 0 : stored_bytes(&layout);
    return mmqi_report_add(job->report, &item);
}

static int32_t report_weights(struct job *job)
{
    int32_t status = MMQ_OK;

    for (int32_t i = 0; i < job->source->n_weights && status == MMQ_OK; i++)
        if (job->source->weights[i].role != MMQI_ROLE_CONSTANT)
            status = report_weight(job, i);
    return status == MMQ_OK ? mmqi_report_finish(job->report) : status;
}

/* ---- the whole ---- */

static int32_t check_options(struct job *job, bool in_memory)
{
    const struct mmqi_quantize_options *options = job->options;

    job->info = mmqi_format_info(options->format);
    if (!job->info || job->info->is_float)
        return mmqi_fail(MMQ_ERR_INVALID, "weights cannot be quantized to format %d%s%s",
                         options->format, job->info ? ": " : "", job->info ? job->info->name : "");
    if (!in_memory && !options->out_path)
        return mmqi_fail(MMQ_ERR_INVALID, "neither a folder nor a model is asked for");
    return MMQ_OK;
}

static int32_t run(struct job *job, bool in_memory)
{
    int32_t status = check_options(job, in_memory);

    if (status == MMQ_OK)
        status = mmqi_report_create(&job->report, job->info->name);
    if (status == MMQ_OK)
        status = choose(job);
    if (status == MMQ_OK && in_memory)
        status = mmqi_model_clone(&job->model, job->source);
    if (status == MMQ_OK)
        status = make_buffers(job);
    if (status == MMQ_OK && job->options->out_path)
        status = open_folder(job);
    for (int32_t i = 0; i < job->source->n_weights && status == MMQ_OK; i++)
        if (job->pack[i])
            status = quantize_weight(job, i);
    if (status == MMQ_OK && job->model)
        follow_shared(job->model, job->pack);
    if (status == MMQ_OK)
        status = report_weights(job);
    if (status == MMQ_OK && job->save)
        status = complete_folder(job);
    return status;
}

int32_t mmqi_quantize(struct mmqi_model **quantized, const struct mmqi_model *source,
                      const struct mmqi_quantize_options *options, struct mmqi_report **report)
{
    struct job job = {.source = source, .options = options};
    int32_t status;

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
    mmqi_model_close(job.model);
    mmqi_save_free(job.save);
    mmqi_report_free(job.report);
    mmqi_free(job.packed);
    mmqi_free(job.rows);
    mmqi_free(job.copy);
    mmqi_free(job.owner);
    mmqi_free(job.first);
    mmqi_free(job.is_stored);
    mmqi_free(job.pack);
    return status;
}
