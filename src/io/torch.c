/*
 * Torch archives: the pickle's tensors, laid over the zip's entries.
 *
 * The pickle says which storage a tensor views and how many elements that
 * has; the zip says how many bytes lie there. The two must agree to the byte.
 */
#include "io/torch.h"

#include <inttypes.h>
#include <string.h>

#include "core/dtype.h"
#include "core/mem.h"
#include "core/status.h"
#include "core/utf8.h"
#include "io/pickle.h"
#include "io/util.h"
#include "io/zip.h"

enum { MAX_PICKLE = 16 << 20, MAX_NAME = 1024, MAX_PATH = 1100, HEAD_BYTES = 264 };

struct reading {
    struct mmqi_torch *torch;
    struct mmqi_file *file;
    const char *path;
    struct mmqi_zip zip;
    const struct mmqi_zip_entry *data; /* data.pkl */
    size_t archive;                    /* bytes of its name before "data.pkl" */
    size_t names_size;
};

/* ---- which form it is ---- */

/* A file that is no zip archive: what else torch may have written. */
static int32_t refuse_others(const char *path, const uint8_t *head, size_t size)
{
    static const uint8_t magic[] = {0x8a, 0x0a, 0x6c, 0xfc, 0x9c, 0x46,
                                    0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19};

    if (size >= 2 + sizeof magic && head[0] == 0x80 && memcmp(head + 2, magic, sizeof magic) == 0)
        return mmqi_fail(MMQ_ERR_UNSUPPORTED,
                         "%s: the legacy form of torch.save, from before torch 1.6; saved again by "
                         "a newer torch, it is a zip archive, which is read",
                         path);
    if (size >= 262 && memcmp(head + 257, "ustar", 5) == 0)
        return mmqi_fail(MMQ_ERR_UNSUPPORTED,
                         "%s: the tar form of torch.save, from before torch 0.2; saved again by a "
                         "newer torch, it is a zip archive, which is read",
                         path);
    return mmqi_fail(MMQ_ERR_FORMAT, "%s: no zip archive, which torch.save writes", path);
}

static int32_t check_form(struct mmqi_file *file)
{
    const uint64_t whole = mmqi_file_size(file);
    const size_t size = (size_t)(whole < HEAD_BYTES ? whole : HEAD_BYTES);
    uint8_t head[HEAD_BYTES];
    int32_t status = mmqi_file_read_at(file, 0, head, size);

    if (status != MMQ_OK)
        return status;
    if (size >= 4 && memcmp(head, "PK\3\4", 4) == 0)
        return MMQ_OK;
    return refuse_others(mmqi_file_path(file), head, size);
}

/* ---- entries of the archive ---- */

/* The entry NAME/`tail`, or NULL. */
static const struct mmqi_zip_entry *find_entry(const struct reading *r, const char *tail,
                                               size_t size)
{
    char name[MAX_PATH];

    if (size >= sizeof name - r->archive)
        return NULL;
    memcpy(name, r->data->name, r->archive);
    memcpy(name + r->archive, tail, size);
    name[r->archive + size] = '\0';
    return strlen(name) == r->archive + size ? mmqi_zip_find(&r->zip, name) : NULL;
}

/* NAME/data.pkl, with one NAME. */
static int32_t find_pickle(struct reading *r)
{
    static const char tail[] = "/data.pkl", constants[] = "constants.pkl";
    size_t i;

    for (i = 0; i < r->zip.n_entries; i++) {
        const struct mmqi_zip_entry *entry = &r->zip.entries[i];
        const char *slash = strchr(entry->name, '/');

        if (!slash || strcmp(slash, tail) != 0)
            continue;
        if (r->data)
            return mmqi_fail(MMQ_ERR_FORMAT, "%s: holds '%.*s' and '%.*s'", r->path,
                             mmqi_clip(r->data->name, strlen(r->data->name)), r->data->name,
                             mmqi_clip(entry->name, strlen(entry->name)), entry->name);
        r->data = entry;
        r->archive = (size_t)(slash - entry->name) + 1;
    }
    if (!r->data)
        return mmqi_fail(MMQ_ERR_FORMAT, "%s: a zip archive without torch's data.pkl", r->path);
    if (find_entry(r, constants, strlen(constants)))
        return mmqi_fail(MMQ_ERR_UNSUPPORTED, "%s: a scripted module, not a dict of tensors",
                         r->path);
    return MMQ_OK;
}

/* The entry "byteorder" says "little"; archives from before torch 2.1 have none, and are. */
static int32_t check_byte_order(const struct reading *r)
{
    static const char tail[] = "byteorder", little[] = "little";
    const struct mmqi_zip_entry *entry = find_entry(r, tail, strlen(tail));
    char text[sizeof little] = "";
    int32_t status;

    if (!entry)
        return MMQ_OK;
    if (entry->bytes > sizeof text - 1)
        return mmqi_fail(MMQ_ERR_FORMAT, "%s: its byteorder has %" PRIu64 " bytes", r->path,
                         entry->bytes);
    status = mmqi_file_read_at(r->file, entry->offset, text, (size_t)entry->bytes);
    if (status == MMQ_OK && strcmp(text, little) != 0)
        return mmqi_fail(MMQ_ERR_UNSUPPORTED, "%s: its byteorder is '%s', only '%s' is read",
                         r->path, text, little);
    return status;
}

/* ---- tensors ---- */

static int32_t fail_tensor(const struct reading *r, const struct mmqi_entry *entry, int32_t status,
                           const char *fault)
{
    return mmqi_fail(status, "%s: tensor '%.*s' %s", r->path,
                     mmqi_clip(entry->name, strlen(entry->name)), entry->name, fault);
}

/* The names' block is as large as the pickle's names and a zero byte for each. */
static int32_t take_name(struct reading *r, struct mmqi_entry *entry,
                         const struct mmqi_pickle_tensor *tensor)
{
    char *name = r->torch->names + r->names_size;

    if (tensor->name_size > MAX_NAME || memchr(tensor->name, 0, tensor->name_size) ||
        !mmqi_utf8_valid(tensor->name, tensor->name_size))
        return mmqi_fail(MMQ_ERR_FORMAT,
                         "%s: the name '%.*s' of a tensor has %zu bytes: at most %d of UTF-8, none "
                         "of them zero, are read",
                         r->path, mmqi_clip(tensor->name, tensor->name_size), tensor->name,
                         tensor->name_size, MAX_NAME);
    memcpy(name, tensor->name, tensor->name_size);
    name[tensor->name_size] = '\0';
    r->names_size += tensor->name_size + 1;
    entry->name = name;
    return MMQ_OK;
}

/* Row after row, without a gap? A dimension of one element has any stride. */
static bool is_contiguous(const struct mmqi_pickle_tensor *tensor)
{
    uint64_t step = 1;
    int32_t i;

    for (i = tensor->rank - 1; i >= 0; i--) {
        if (tensor->shape[i] != 1 && (uint64_t)tensor->stride[i] != step)
            return false;
        step *= (uint64_t)tensor->shape[i]; /* mmqi_entry_size() has seen that this does not wrap */
    }
    return true;
}

/* The entry data/KEY, with as many bytes as the storage has elements. */
static int32_t find_storage(const struct reading *r, const struct mmqi_entry *entry,
                            const struct mmqi_pickle_tensor *tensor,
                            const struct mmqi_zip_entry **storage)
{
    static const char folder[] = "data/";
    char tail[128];
    uint64_t bytes;

    *storage = NULL;
    if (tensor->key_size < sizeof tail - strlen(folder)) {
        memcpy(tail, folder, strlen(folder));
        memcpy(tail + strlen(folder), tensor->key, tensor->key_size);
        *storage = find_entry(r, tail, strlen(folder) + tensor->key_size);
    }
    if (!*storage)
        return mmqi_fail(MMQ_ERR_FORMAT,
                         "%s: tensor '%.*s' lies in storage '%.*s', which the archive has not",
                         r->path, mmqi_clip(entry->name, strlen(entry->name)), entry->name,
                         mmqi_clip(tensor->key, tensor->key_size), tensor->key);
    if (!mmqi_mul_u64((uint64_t)tensor->length, mmqi_dtype_size(tensor->dtype), &bytes) ||
        bytes != (*storage)->bytes)
        return mmqi_fail(MMQ_ERR_FORMAT,
                         "%s: tensor '%.*s': storage '%.*s' has %" PRIu64 " bytes, not %" PRId64
                         " elements of %s",
                         r->path, mmqi_clip(entry->name, strlen(entry->name)), entry->name,
                         mmqi_clip(tensor->key, tensor->key_size), tensor->key, (*storage)->bytes,
                         tensor->length, mmqi_dtype_name(tensor->dtype));
    return MMQ_OK;
}

static int32_t take_tensor(struct reading *r, const struct mmqi_pickle_tensor *tensor)
{
    struct mmqi_entry *entry = &r->torch->entries[r->torch->n_entries++];
    const struct mmqi_zip_entry *storage;
    const uint64_t size = mmqi_dtype_size(tensor->dtype);
    uint64_t count;
    int32_t status;

    memset(entry, 0, sizeof *entry);
    entry->dtype = tensor->dtype;
    entry->rank = tensor->rank;
    memcpy(entry->shape, tensor->shape, sizeof entry->shape);
    status = take_name(r, entry, tensor);
    if (status == MMQ_OK)
        status = find_storage(r, entry, tensor, &storage);
    if (status != MMQ_OK)
        return status;
    if (!mmqi_entry_size(entry, &entry->bytes))
        return fail_tensor(r, entry, MMQ_ERR_FORMAT, "has a shape whose size overflows");
    count = entry->bytes / size;
    if (count > 0 && !is_contiguous(tensor))
        return fail_tensor(r, entry, MMQ_ERR_UNSUPPORTED,
                           "is a view with strides of its own; only contiguous ones are read");
    /* offset + count may wrap; length - offset, checked first, cannot. */
    if (tensor->offset > tensor->length || count > (uint64_t)(tensor->length - tensor->offset))
        return mmqi_fail(MMQ_ERR_FORMAT,
                         "%s: tensor '%.*s' needs elements %" PRId64 "..+%" PRIu64 " of %" PRId64
                         " in storage '%.*s'",
                         r->path, mmqi_clip(entry->name, strlen(entry->name)), entry->name,
                         tensor->offset, count, tensor->length,
                         mmqi_clip(tensor->key, tensor->key_size), tensor->key);
    entry->offset = storage->offset + (uint64_t)tensor->offset * size;
    return MMQ_OK;
}

static int32_t take_tensors(struct reading *r, const struct mmqi_pickle *pickle)
{
    size_t names = 0, i;
    int32_t status = MMQ_OK;

    /* Two tensors of one name are no checkpoint, so that names lie side by side in the pickle. */
    for (i = 0; i < pickle->n_tensors; i++) {
        names += pickle->tensors[i].name_size;
        if (names > r->data->bytes)
            return mmqi_fail(MMQ_ERR_FORMAT, "%s: its pickle names several tensors alike", r->path);
    }
    r->torch->names = mmqi_alloc(names + pickle->n_tensors);
    r->torch->entries = mmqi_alloc_array(pickle->n_tensors, sizeof *r->torch->entries);
    if (!r->torch->names || !r->torch->entries)
        return mmqi_fail(MMQ_ERR_NOMEM, "%s: no memory for the list of %zu tensors", r->path,
                         pickle->n_tensors);
    for (i = 0; i < pickle->n_tensors && status == MMQ_OK; i++)
        status = take_tensor(r, &pickle->tensors[i]);
    return status;
}

/* ---- the whole ---- */

static int32_t read_pickle(struct reading *r)
{
    struct mmqi_pickle pickle = {0};
    const uint64_t size = r->data->bytes;
    char *bytes;
    int32_t status;

    if (size > MAX_PICKLE)
        return mmqi_fail(MMQ_ERR_FORMAT, "%s: a pickle of %" PRIu64 " bytes, at most %d are read",
                         r->path, size, MAX_PICKLE);
    bytes = mmqi_alloc((size_t)size);
    if (!bytes)
        return mmqi_fail(MMQ_ERR_NOMEM, "%s: no memory for its pickle of %" PRIu64 " bytes",
                         r->path, size);
    status = mmqi_file_read_at(r->file, r->data->offset, bytes, (size_t)size);
    if (status == MMQ_OK)
        status = mmqi_pickle_read(&pickle, r->path, bytes, (size_t)size);
    if (status == MMQ_OK)
        status = take_tensors(r, &pickle);
    mmqi_pickle_clear(&pickle);
    mmqi_free(bytes);
    return status;
}

int32_t mmqi_torch_parse(struct mmqi_torch *out, struct mmqi_file *file)
{
    struct reading r = {.torch = out, .file = file, .path = mmqi_file_path(file)};
    int32_t status;

    memset(out, 0, sizeof *out);
    status = check_form(file);
    if (status == MMQ_OK)
        status = mmqi_zip_parse(&r.zip, file);
    if (status == MMQ_OK)
        status = find_pickle(&r);
    if (status == MMQ_OK)
        status = check_byte_order(&r);
    if (status == MMQ_OK)
        status = read_pickle(&r);
    mmqi_zip_clear(&r.zip);
    if (status != MMQ_OK)
        mmqi_torch_clear(out);
    return status;
}

void mmqi_torch_clear(struct mmqi_torch *torch)
{
    mmqi_free(torch->entries);
    mmqi_free(torch->names);
    memset(torch, 0, sizeof *torch);
}
