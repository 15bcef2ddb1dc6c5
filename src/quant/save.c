/*
 * The writer of checkpoint folders.
 */
#include "quant/save.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/buf.h"
#include "core/dtype.h"
#include "core/mem.h"
#include "core/os.h"
#include "core/status.h"
#include "io/safetensors.h"

#define DEFAULT_SHARD_BYTES (UINT64_C(4) << 30)

enum { MAX_PARTIAL = 1000, MAX_TENSORS = 1 << 20, FILE_NAME_BYTES = 80 };

struct shard {
    struct mmqi_os_file *file;
    char name[FILE_NAME_BYTES];
    size_t begin, end; /* its tensors among mmqi_save.placed */
};

struct mmqi_save {
    char *path;    /* where the folder will be, without a slash at its end */
    char *partial; /* where it is made; NULL before */
    bool committed;
    struct mmqi_entry *tensors; /* as declared; `shard` is the group until open, names are owned */
    size_t n_tensors, capacity;
    struct mmqi_entry *placed; /* by shard, in the order of the file */
    size_t *place;             /* [n_tensors] id -> index in `placed` */
    struct shard *shards;
    size_t n_shards;
    char **made; /* files in the partial folder, to be removed on failure */
    size_t n_made;
    uint64_t file_bytes, tensor_bytes, written;
};

static int32_t no_memory(const struct mmqi_save *save)
{
    return mmqi_fail(MMQ_ERR_NOMEM, "%s: no memory to write it", save->path);
}

/* What the system will not tell is left to the call that makes it. */
static bool exists(const char *path)
{
    enum mmqi_os_kind kind = mmqi_os_kind_of(path);

    return kind == MMQI_OS_FILE || kind == MMQI_OS_FOLDER;
}

int32_t mmqi_save_create(struct mmqi_save **out, const char *path)
{
    struct mmqi_save *save;
    size_t length = strlen(path);

    *out = NULL;
    while (length > 1 && path[length - 1] == '/')
        length--;
    if (length == 0 || (length == 1 && path[0] == '/'))
        return mmqi_fail(MMQ_ERR_INVALID, "'%s' cannot name a new folder", path);
    save = mmqi_calloc(1, sizeof *save);
    if (save)
        save->path = mmqi_strndup(path, length);
    if (!save || !save->path) {
        mmqi_free(save);
        return mmqi_fail(MMQ_ERR_NOMEM, "%s: no memory to write it", path);
    }
    if (exists(save->path)) {
        mmqi_save_free(save);
        return mmqi_fail(MMQ_ERR_EXISTS, "%s: exists already", path);
    }
    *out = save;
    return MMQ_OK;
}

/* "FOLDER/NAME", to be freed. */
static char *join(const char *folder, const char *name)
{
    struct mmqi_buf buf = {0};
    char *path;

    mmqi_buf_format(&buf, "%s/%s", folder, name);
    path = mmqi_buf_take(&buf);
    mmqi_buf_free(&buf);
    return path;
}

static void remove_partial(struct mmqi_save *save)
{
    for (size_t i = 0; i < save->n_made; i++)
        mmqi_os_remove_file(save->made[i]);
    mmqi_os_remove_folder(save->partial);
}

void mmqi_save_free(struct mmqi_save *save)
{
    if (!save)
        return;
    for (size_t i = 0; i < save->n_shards; i++)
        mmqi_os_close(save->shards[i].file);
    if (save->partial && !save->committed)
        remove_partial(save);
    for (size_t i = 0; i < save->n_made; i++)
        mmqi_free(save->made[i]);
    for (size_t i = 0; i < save->n_tensors; i++)
        mmqi_free((char *)save->tensors[i].name);
    mmqi_free(save->made);
    mmqi_free(save->shards);
    mmqi_free(save->place);
    mmqi_free(save->placed);
    mmqi_free(save->tensors);
    mmqi_free(save->partial);
    mmqi_free(save->path);
    mmqi_free(save);
}

/* ---- declaring ---- */

size_t mmqi_save_count(const struct mmqi_save *save)
{
    return save->n_tensors;
}

static int32_t tensor_bytes(const struct mmqi_save *save, struct mmqi_entry *entry)
{
    entry->bytes = mmqi_dtype_size(entry->dtype);
    for (int32_t i = 0; i < entry->rank; i++)
        if (entry->shape[i] < 0 ||
            !mmqi_mul_u64(entry->bytes, (uint64_t)entry->shape[i], &entry->bytes))
            return mmqi_fail(MMQ_ERR_LIMIT, "%s: tensor '%s' is too large", save->path,
                             entry->name);
    return MMQ_OK;
}

static int32_t reserve_tensor(struct mmqi_save *save)
{
    size_t capacity = save->capacity < 256 ? 256 : save->capacity * 2;
    struct mmqi_entry *tensors;

    if (save->n_tensors >= MAX_TENSORS)
        return mmqi_fail(MMQ_ERR_LIMIT, "%s: more than %d tensors", save->path, MAX_TENSORS);
    if (save->n_tensors < save->capacity)
        return MMQ_OK;
    tensors = mmqi_realloc_array(save->tensors, capacity, sizeof *tensors);
    if (!tensors)
        return no_memory(save);
    save->tensors = tensors;
    save->capacity = capacity;
    return MMQ_OK;
}

int32_t mmqi_save_tensor(struct mmqi_save *save, const char *name, int32_t dtype, int32_t rank,
                         const int64_t *shape, bool joined)
{
    struct mmqi_entry entry = {.dtype = dtype, .rank = rank};
    int32_t status = reserve_tensor(save);

    if (status != MMQ_OK)
        return status;
    for (int32_t i = 0; i < rank; i++)
        entry.shape[i] = shape[i];
    if (save->n_tensors > 0)
        entry.shard = save->tensors[save->n_tensors - 1].shard + (joined ? 0 : 1);
    entry.name = name;
    status = tensor_bytes(save, &entry);
    if (status != MMQ_OK)
        return status;
    entry.name = mmqi_strdup(name);
    if (!entry.name)
        return no_memory(save);
    save->tensors[save->n_tensors++] = entry;
    return MMQ_OK;
}

/* ---- laying out the files ---- */

/*
 * Within a file, wide types first and then by name: every tensor then starts at a multiple of its
 * own element size, which readers that map the file rely on.
 */
static int compare_placed(const void *a, const void *b)
{
    const struct mmqi_entry *x = *(const struct mmqi_entry *const *)a;
    const struct mmqi_entry *y = *(const struct mmqi_entry *const *)b;
    size_t x_size = mmqi_dtype_size(x->dtype), y_size = mmqi_dtype_size(y->dtype);

    if (x->shard != y->shard)
        return x->shard < y->shard ? -1 : 1;
    if (x_size != y_size)
        return x_size > y_size ? -1 : 1;
    return strcmp(x->name, y->name);
}

/* Turn groups into shards: as many groups, in order, as shard_bytes holds. Returns how many shards.
 */
static size_t assign_shards(struct mmqi_save *save, uint64_t shard_bytes)
{
    uint64_t used = 0;
    int32_t shard = 0;

    for (size_t begin = 0, end; begin < save->n_tensors; begin = end) {
        uint64_t bytes = 0;
        int32_t group = save->tensors[begin].shard;

        for (end = begin; end < save->n_tensors && save->tensors[end].shard == group; end++)
            bytes += save->tensors[end].bytes;
        if (used > 0 && (bytes > shard_bytes || used > shard_bytes - bytes)) {
            shard++;
            used = 0;
        }
        used += bytes;
        for (size_t i = begin; i < end; i++)
            save->tensors[i].shard = shard;
    }
    return (size_t)shard + 1;
}

static int32_t place_tensors(struct mmqi_save *save)
{
    const struct mmqi_entry **order = mmqi_alloc_array(save->n_tensors, sizeof(void *));
    size_t n = save->n_tensors;

    save->placed = mmqi_alloc_array(n, sizeof *save->placed);
    save->place = mmqi_alloc_array(n, sizeof *save->place);
    if (!order || !save->placed || !save->place) {
        mmqi_free((void *)order);
        return no_memory(save);
    }
    for (size_t i = 0; i < n; i++)
        order[i] = &save->tensors[i];
    if (n > 1)
        qsort((void *)order, n, sizeof *order, compare_placed);
    for (size_t i = 0; i < n; i++) {
        save->placed[i] = *order[i];
        save->place[order[i] - save->tensors] = i;
    }
    mmqi_free((void *)order);
    return MMQ_OK;
}

static void name_shards(struct mmqi_save *save)
{
    size_t next = 0;

    for (size_t i = 0; i < save->n_shards; i++) {
        struct shard *shard = &save->shards[i];

        if (save->n_shards == 1)
            snprintf(shard->name, sizeof shard->name, "model.safetensors");
        else
            snprintf(shard->name, sizeof shard->name, "model-%05zu-of-%05zu.safetensors", i + 1,
                     save->n_shards);
        shard->begin = next;
        while (next < save->n_tensors && (size_t)save->placed[next].shard == i)
            next++;
        shard->end = next;
    }
}

/* ---- the partial folder ---- */

static int32_t make_partial(struct mmqi_save *save)
{
    int32_t status = MMQ_ERR_EXISTS;

    for (int i = 0; i < MAX_PARTIAL && status == MMQ_ERR_EXISTS; i++) {
        struct mmqi_buf buf = {0};
        char *partial;

        mmqi_buf_format(&buf, "%s.partial-%d", save->path, i);
        partial = mmqi_buf_take(&buf);
        mmqi_buf_free(&buf);
        if (!partial)
            return no_memory(save);
        status = mmqi_os_make_folder(partial);
        if (status == MMQ_OK)
            save->partial = partial;
        else
            mmqi_free(partial);
    }
    return status;
}

/* A new file in the partial folder, remembered for removal. */
static int32_t make_file(struct mmqi_save *save, struct mmqi_os_file **file, const char *name)
{
    char *path = join(save->partial, name), **made;
    int32_t status;

    *file = NULL;
    made = path ? mmqi_realloc_array(save->made, save->n_made + 1, sizeof *made) : NULL;
    if (!made) {
        mmqi_free(path);
        return no_memory(save);
    }
    save->made = made;
    status = mmqi_os_create(file, path);
    if (status != MMQ_OK) {
        mmqi_free(path);
        return status;
    }
    save->made[save->n_made++] = path;
    return MMQ_OK;
}

static int32_t open_shard(struct mmqi_save *save, struct shard *shard)
{
    struct mmqi_entry *entries = save->placed + shard->begin;
    size_t n = shard->end - shard->begin, header_size;
    char *header = NULL;
    uint64_t file_size;
    int32_t status;

    status = mmqi_safetensors_header(&header, &header_size, &file_size, entries, n,
                                     "{\"format\":\"pt\"}");
    if (status != MMQ_OK)
        return status;
    status = make_file(save, &shard->file, shard->name);
    if (status == MMQ_OK)
        status = mmqi_os_write_at(shard->file, 0, header, header_size);
    mmqi_free(header);
    save->file_bytes += file_size;
    return status;
}

int32_t mmqi_save_open(struct mmqi_save *save, uint64_t shard_bytes)
{
    int32_t status;

    for (size_t i = 0; i < save->n_tensors; i++)
        if (!mmqi_add_u64(save->tensor_bytes, save->tensors[i].bytes, &save->tensor_bytes))
            return mmqi_fail(MMQ_ERR_LIMIT, "%s: the tensors are too large", save->path);
    save->n_shards = assign_shards(save, shard_bytes ? shard_bytes : DEFAULT_SHARD_BYTES);
    save->shards = mmqi_calloc(save->n_shards, sizeof *save->shards);
    if (!save->shards) {
        save->n_shards = 0;
        return no_memory(save);
    }
    status = place_tensors(save);
    if (status != MMQ_OK)
        return status;
    name_shards(save);
    status = make_partial(save);
    for (size_t i = 0; i < save->n_shards && status == MMQ_OK; i++)
        status = open_shard(save, &save->shards[i]);
    return status;
}

/* ---- writing ---- */

int32_t mmqi_save_write(struct mmqi_save *save, size_t id, uint64_t begin, const void *data,
                        size_t size)
{
    const struct mmqi_entry *entry = &save->placed[save->place[id]];
    int32_t status;

    if (begin > entry->bytes || size > entry->bytes - begin)
        return mmqi_fail(MMQ_ERR_INTERNAL, "%s: write past the end of tensor '%s'", save->path,
                         entry->name);
    status = mmqi_os_write_at(save->shards[entry->shard].file, entry->offset + begin, data, size);
    if (status == MMQ_OK)
        save->written += size;
    return status;
}

int32_t mmqi_save_text(struct mmqi_save *save, const char *name, const char *text, size_t size)
{
    struct mmqi_os_file *file;
    int32_t status = make_file(save, &file, name);

    if (status == MMQ_OK)
        status = mmqi_os_write_at(file, 0, text, size);
    if (status == MMQ_OK)
        status = mmqi_os_sync(file);
    mmqi_os_close(file);
    return status;
}

int32_t mmqi_save_copy(struct mmqi_save *save, struct mmqi_store *store, const char *name,
                       void *buffer, size_t buffer_bytes)
{
    struct mmqi_file *source = NULL;
    struct mmqi_os_file *file = NULL;
    uint64_t size;
    bool there;
    int32_t status = mmqi_file_exists(&there, store, name);

    if (status != MMQ_OK || !there)
        return status;
    status = mmqi_file_open(&source, store, name);
    if (status != MMQ_OK)
        return status;
    size = mmqi_file_size(source);
    status = make_file(save, &file, name);
    for (uint64_t begin = 0; begin < size && status == MMQ_OK; begin += buffer_bytes) {
        size_t n = size - begin < buffer_bytes ? (size_t)(size - begin) : buffer_bytes;

        status = mmqi_file_read_at(source, begin, buffer, n);
        if (status == MMQ_OK)
            status = mmqi_os_write_at(file, begin, buffer, n);
    }
    if (status == MMQ_OK)
        status = mmqi_os_sync(file);
    mmqi_os_close(file);
    mmqi_file_close(source);
    return status;
}

uint64_t mmqi_save_bytes(const struct mmqi_save *save)
{
    return save->file_bytes;
}

/* ---- completing ---- */

static int32_t write_index(struct mmqi_save *save)
{
    struct mmqi_buf buf = {0};
    int32_t status;

    mmqi_buf_format(
        &buf, "{\n  \"metadata\": {\n    \"total_size\": %" PRIu64 "\n  },\n  \"weight_map\": {",
        save->tensor_bytes);
    for (size_t i = 0; i < save->n_tensors; i++) {
        const struct mmqi_entry *entry = &save->tensors[i];

        mmqi_buf_text(&buf, i > 0 ? ",\n    " : "\n    ");
        mmqi_buf_json_string(&buf, entry->name, strlen(entry->name));
        mmqi_buf_format(&buf, ": \"%s\"", save->shards[entry->shard].name);
    }
    mmqi_buf_text(&buf, "\n  }\n}\n");
    status = mmqi_buf_failed(&buf)
                 ? no_memory(save)
                 : mmqi_save_text(save, "model.safetensors.index.json", buf.data, buf.size);
    mmqi_buf_free(&buf);
    return status;
}

/* The folder that the new one lies in, to be freed; NULL when there is no memory. */
static char *parent_of(const char *path)
{
    const char *slash = strrchr(path, '/');

    if (!slash)
        return mmqi_strdup(".");
    return mmqi_strndup(path, slash == path ? 1 : (size_t)(slash - path));
}

/*
 * Give the folder its name. That is on disk once the parent is synced; where it cannot be, the
 * name is taken back, so that a failure leaves nothing.
 */
static int32_t take_name(struct mmqi_save *save)
{
    char *parent = parent_of(save->path);
    int32_t status = MMQ_OK;

    if (!parent)
        return no_memory(save);
    if (exists(save->path))
        status = mmqi_fail(MMQ_ERR_EXISTS, "%s: exists already", save->path);
    if (status == MMQ_OK)
        status = mmqi_os_rename(save->partial, save->path);
    if (status == MMQ_OK) {
        status = mmqi_os_sync_folder(parent);
        save->committed = status == MMQ_OK || !mmqi_os_take_back(save->path, save->partial);
    }
    mmqi_free(parent);
    return status;
}

int32_t mmqi_save_commit(struct mmqi_save *save)
{
    int32_t status = MMQ_OK;

    if (save->written != save->tensor_bytes)
        return mmqi_fail(MMQ_ERR_INTERNAL, "%s: %" PRIu64 " of %" PRIu64 " bytes were written",
                         save->path, save->written, save->tensor_bytes);
    if (save->n_shards > 1)
        status = write_index(save);
    for (size_t i = 0; i < save->n_shards && status == MMQ_OK; i++)
        status = mmqi_os_sync(save->shards[i].file);
    if (status == MMQ_OK)
        status = mmqi_os_sync_folder(save->partial);
    return status == MMQ_OK ? take_name(save) : status;
}
