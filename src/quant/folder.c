/*
 * Writing the folder of a quantized model.
 */
#include "quant/folder.h"

#include <inttypes.h>
#include <string.h>

#include "core/dtype.h"
#include "core/mem.h"
#include "core/os.h"
#include "core/status.h"
#include "io/file.h"
#include "model/tower_folder.h"
#include "quant/export_bnb.h"
#include "quant/save.h"

enum { MAX_CONFIG = 1 << 20 };

static const char preprocessor_name[] = "preprocessor_config.json";

/* Files of a checkpoint folder that are copied as they are. */
static const char *const small_files[] = {
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "tekken.json",
    "qwen.tiktoken",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.json",
    "chat_template.jinja",
    "generation_config.json",
    preprocessor_name,
    "processor_config.json",
    "video_preprocessor_config.json",
};

struct mmqi_folder {
    const struct mmqi_model *source;
    const struct mmqi_choice *choices;
    struct mmqi_save *save;
    struct mmqi_layout *layout; /* [n_weights] of what a weight becomes */
    size_t *first;              /* [n_weights] id of the first tensor of one that is written */
    int32_t *owner; /* [entries of the checkpoint] the written weight it belongs to, or -1 */
    size_t *copy;   /* [entries] id of one that is copied */
    uint64_t copy_bytes;
};

static int32_t no_memory(void)
{
    return mmqi_fail(MMQ_ERR_NOMEM, "no memory to write a folder");
}

static bool is_packed(int32_t format)
{
    return !mmqi_format_info(format)->is_float;
}

/* A weight whose tensors are written anew: one that changes, or that lies in memory alone. */
static bool is_written(const struct mmqi_folder *folder, int32_t weight)
{
    const struct mmqi_weight *w = &folder->source->weights[weight];

    return w->role != MMQI_ROLE_CONSTANT && w->same_as < 0 &&
           (folder->choices[weight].change || w->block);
}

/* ---- declaring ---- */

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

static int32_t find_owner(struct mmqi_folder *folder, int32_t weight)
{
    const struct mmqi_weight *w = &folder->source->weights[weight];
    const struct mmqi_checkpoint *checkpoint = folder->source->checkpoint;
    int64_t entry = w->entry[0] ? entry_index(checkpoint, w->entry[0]->name) : -1;

    if (entry < 0 || folder->owner[entry] >= 0)
        return mmqi_fail(MMQ_ERR_UNSUPPORTED,
                         "'%s' is no tensor of its own in the checkpoint: it cannot be saved",
                         w->name);
    folder->owner[entry] = weight;
    return mmqi_format_info(folder->choices[weight].format)
        ->layout(&folder->layout[weight], w->rows, w->cols);
}

static int32_t find_owners(struct mmqi_folder *folder)
{
    size_t n = mmqi_checkpoint_count(folder->source->checkpoint);
    size_t n_weights = (size_t)folder->source->n_weights;
    int32_t status = MMQ_OK;

    folder->owner = mmqi_alloc_array(n, sizeof *folder->owner);
    folder->copy = mmqi_calloc(n, sizeof *folder->copy);
    folder->first = mmqi_calloc(n_weights, sizeof *folder->first);
    folder->layout = mmqi_calloc(n_weights, sizeof *folder->layout);
    if (!folder->owner || !folder->copy || !folder->first || !folder->layout)
        return no_memory();
    for (size_t i = 0; i < n; i++)
        folder->owner[i] = -1;
    for (int32_t i = 0; i < folder->source->n_weights && status == MMQ_OK; i++)
        if (is_written(folder, i))
            status = find_owner(folder, i);
    return status;
}

static struct mmqi_bnb_matrix bnb_matrix(const struct mmqi_folder *folder, int32_t weight)
{
    const struct mmqi_weight *w = &folder->source->weights[weight];

    return (struct mmqi_bnb_matrix){.file_name = w->entry[0]->name,
                                    .format = folder->choices[weight].format,
                                    .source_dtype = w->entry[0]->dtype,
                                    .rows = w->rows,
                                    .cols = w->cols,
                                    .layout = &folder->layout[weight]};
}

static int32_t declare_entry(struct mmqi_folder *folder, size_t index)
{
    const struct mmqi_entry *entry = mmqi_checkpoint_entry(folder->source->checkpoint, index);
    int32_t weight = folder->owner[index], dtype = entry->dtype;
    struct mmqi_bnb_matrix matrix;

    if (weight >= 0 && is_packed(folder->choices[weight].format)) {
        matrix = bnb_matrix(folder, weight);
        return mmqi_bnb_declare(folder->save, &folder->first[weight], &matrix);
    }
    if (weight >= 0) {
        folder->first[weight] = mmqi_save_count(folder->save);
        dtype = mmqi_format_info(folder->choices[weight].format)->dtype;
    } else {
        folder->copy[index] = mmqi_save_count(folder->save);
        folder->copy_bytes += entry->bytes;
    }
    return mmqi_save_tensor(folder->save, entry->name, dtype, entry->rank, entry->shape, false);
}

/* Bytes of the blocks of memory that mmqi_folder_copy() writes. */
static void count_blocks(struct mmqi_folder *folder)
{
    for (int32_t i = 0; i < folder->source->n_weights; i++)
        if (is_written(folder, i) && !folder->choices[i].change)
            for (int32_t k = 0; k < folder->layout[i].n_parts; k++)
                folder->copy_bytes += folder->layout[i].part[k].bytes;
}

static int32_t open_save(struct mmqi_folder *folder, const char *path, uint64_t shard_bytes)
{
    const struct mmqi_store *store = folder->source->store;
    size_t n = mmqi_checkpoint_count(folder->source->checkpoint);
    int32_t status;

    if (mmqi_store_is_folder(store) && mmqi_os_is_inside(path, mmqi_store_name(store)))
        return mmqi_fail(MMQ_ERR_INVALID, "%s: lies inside the source '%s'", path,
                         mmqi_store_name(store));
    status = mmqi_save_create(&folder->save, path);
    if (status == MMQ_OK)
        status = find_owners(folder);
    for (size_t i = 0; i < n && status == MMQ_OK; i++)
        status = declare_entry(folder, i);
    count_blocks(folder);
    return status == MMQ_OK ? mmqi_save_open(folder->save, shard_bytes) : status;
}

int32_t mmqi_folder_open(struct mmqi_folder **out, const struct mmqi_model *source,
                         const struct mmqi_choice *choices, const char *path, uint64_t shard_bytes)
{
    struct mmqi_folder *folder = mmqi_calloc(1, sizeof *folder);
    int32_t status;

    *out = NULL;
    if (!folder)
        return no_memory();
    folder->source = source;
    folder->choices = choices;
    status = open_save(folder, path, shard_bytes);
    if (status != MMQ_OK) {
        mmqi_folder_free(folder);
        return status;
    }
    *out = folder;
    return MMQ_OK;
}

void mmqi_folder_free(struct mmqi_folder *folder)
{
    if (!folder)
        return;
    mmqi_save_free(folder->save);
    mmqi_free(folder->copy);
    mmqi_free(folder->owner);
    mmqi_free(folder->first);
    mmqi_free(folder->layout);
    mmqi_free(folder);
}

uint64_t mmqi_folder_file_bytes(const struct mmqi_folder *folder)
{
    return mmqi_save_bytes(folder->save);
}

uint64_t mmqi_folder_copy_bytes(const struct mmqi_folder *folder)
{
    return folder->copy_bytes;
}

/* ---- what is written ---- */

int32_t mmqi_folder_write(struct mmqi_folder *folder, int32_t weight, int32_t part, uint64_t begin,
                          const void *data, size_t size)
{
    if (!folder->layout[weight].part[part].suffix)
        return MMQ_OK; /* it is told by what describes the weight */
    return mmqi_save_write(folder->save, folder->first[weight] + (size_t)part, begin, data, size);
}

int32_t mmqi_folder_describe(struct mmqi_folder *folder, int32_t weight, float nested_offset)
{
    struct mmqi_bnb_matrix matrix;

    if (!is_packed(folder->choices[weight].format))
        return MMQ_OK;
    matrix = bnb_matrix(folder, weight);
    matrix.nested_offset = nested_offset;
    return mmqi_bnb_write_extra(folder->save, folder->first[weight], &matrix);
}

/* ---- what is copied ---- */

/* What copying carries along. */
struct copying {
    struct mmqi_folder *folder;
    uint8_t *buffer;
    size_t buffer_bytes;
    mmqi_folder_tick tick;
    void *user;
};

static int32_t copy_entry(const struct copying *c, size_t index)
{
    const struct mmqi_checkpoint *checkpoint = c->folder->source->checkpoint;
    const struct mmqi_entry *entry = mmqi_checkpoint_entry(checkpoint, index);
    int32_t status = MMQ_OK;

    for (uint64_t begin = 0; begin < entry->bytes && status == MMQ_OK; begin += c->buffer_bytes) {
        uint64_t left = entry->bytes - begin;
        size_t n = left < c->buffer_bytes ? (size_t)left : c->buffer_bytes;

        status = mmqi_checkpoint_read(checkpoint, entry, begin, c->buffer, n);
        if (status == MMQ_OK)
            status = mmqi_save_write(c->folder->save, c->folder->copy[index], begin, c->buffer, n);
        if (status == MMQ_OK)
            status = c->tick(c->user, n);
    }
    return status;
}

/* A weight that lies in memory as it will in the file. */
static int32_t write_block(const struct copying *c, int32_t weight)
{
    const struct mmqi_weight *w = &c->folder->source->weights[weight];
    float offset = 0.0f;
    int32_t status = MMQ_OK;

    for (int32_t i = 0; i < w->stored_layout.n_parts && status == MMQ_OK; i++) {
        const struct mmqi_part *part = &w->stored_layout.part[i];

        status = mmqi_folder_write(c->folder, weight, i, 0, w->block + part->offset,
                                   (size_t)part->bytes);
        if (!part->suffix)
            memcpy(&offset, w->block + part->offset, sizeof offset);
        if (status == MMQ_OK)
            status = c->tick(c->user, part->bytes);
    }
    return status == MMQ_OK ? mmqi_folder_describe(c->folder, weight, offset) : status;
}

/* What every weight is in the folder; *anew: some packed one otherwise than in the source. NULL
 * without memory. */
static int32_t *find_formats(const struct mmqi_folder *folder, bool *anew)
{
    size_t n = (size_t)folder->source->n_weights;
    int32_t *formats = mmqi_alloc_array(n, sizeof *formats);

    *anew = false;
    for (int32_t i = 0; formats && i < folder->source->n_weights; i++) {
        formats[i] = folder->choices[i].format;
        *anew = *anew || (is_packed(formats[i]) && is_written(folder, i));
    }
    return formats;
}

/* The source's config.json, with the settings of a tower from a folder of its own. */
static int32_t read_config(char **text, size_t *size, const struct mmqi_model *source)
{
    char *own;
    int32_t status = mmqi_file_read_all(text, size, source->store, "config.json", MAX_CONFIG);

    if (status != MMQ_OK || !source->tower_store)
        return status;
    own = *text;
    status = mmqi_tower_config(text, size, source, own, *size);
    mmqi_free(own);
    return status;
}

/* A source that has all that is packed already says so itself. */
static int32_t write_config(const struct copying *c)
{
    const struct mmqi_model *source = c->folder->source;
    char *text = NULL, *config = NULL;
    size_t size, config_size;
    bool anew;
    int32_t *formats = find_formats(c->folder, &anew);
    int32_t status = formats ? MMQ_OK : no_memory();

    if (status == MMQ_OK)
        status = read_config(&text, &size, source);
    if (status == MMQ_OK && anew)
        status = mmqi_bnb_config(&config, &config_size, text, size, source, formats);
    if (status == MMQ_OK)
        status = mmqi_save_text(c->folder->save, "config.json", anew ? config : text,
                                anew ? config_size : size);
    mmqi_free(formats);
    mmqi_free(config);
    mmqi_free(text);
    return status;
}

/* Files that are copied as they are; a tower's folder tells how pictures are read. */
static int32_t copy_small_files(const struct copying *c)
{
    const struct mmqi_model *source = c->folder->source;
    int32_t status = MMQ_OK;

    for (size_t i = 0; i < sizeof small_files / sizeof *small_files && status == MMQ_OK; i++) {
        const bool of_tower =
            source->tower_preprocessor && strcmp(small_files[i], preprocessor_name) == 0;

        status = mmqi_save_copy(c->folder->save, of_tower ? source->tower_store : source->store,
                                small_files[i], c->buffer, c->buffer_bytes);
    }
    return status;
}

int32_t mmqi_folder_copy(struct mmqi_folder *folder, void *buffer, size_t buffer_bytes,
                         mmqi_folder_tick tick, void *user)
{
    const struct copying c = {folder, buffer, buffer_bytes, tick, user};
    size_t n = mmqi_checkpoint_count(folder->source->checkpoint);
    int32_t status = MMQ_OK;

    for (size_t i = 0; i < n && status == MMQ_OK; i++)
        if (folder->owner[i] < 0)
            status = copy_entry(&c, i);
    for (int32_t i = 0; i < folder->source->n_weights && status == MMQ_OK; i++)
        if (is_written(folder, i) && !folder->choices[i].change)
            status = write_block(&c, i);
    if (status == MMQ_OK)
        status = write_config(&c);
    return status == MMQ_OK ? copy_small_files(&c) : status;
}

int32_t mmqi_folder_commit(struct mmqi_folder *folder)
{
    return mmqi_save_commit(folder->save);
}
