/*
 * The stores that files come from, and positioned reads of their files.
 *
 * A file holds its store, so either may be let go first.
 */
#include "io/file.h"

#include <stdatomic.h>
#include <string.h>

#include "core/mem.h"
#include "core/os.h"
#include "core/status.h"
#include "io/util.h"

struct mmqi_store {
    atomic_int refs;
    bool folder;
    char *name; /* for messages; a folder's path */
    struct mmqi_reader reader;
    char *prefix; /* of a reader's names, for a store inside another; or NULL */
};

struct mmqi_file {
    struct mmqi_store *store;
    char *path;              /* the store's name, '/', the file's name */
    const char *name;        /* the last part of `path` */
    uint64_t size;           /* as it was when opened */
    struct mmqi_os_file *os; /* of a folder */
    void *handle;            /* of a reader */
    bool open;
};

/* ---- stores ---- */

static int32_t create_store(struct mmqi_store **out, const char *name)
{
    struct mmqi_store *store = mmqi_calloc(1, sizeof *store);

    if (store)
        store->name = mmqi_strdup(name);
    if (!store || !store->name) {
        mmqi_free(store);
        return mmqi_fail(MMQ_ERR_NOMEM, "%s: no memory to open it", name);
    }
    atomic_init(&store->refs, 1);
    *out = store;
    return MMQ_OK;
}

int32_t mmqi_store_open_folder(struct mmqi_store **out, const char *path)
{
    int32_t status;

    *out = NULL;
    if (!*path)
        return mmqi_fail(MMQ_ERR_INVALID, "the path of the folder is empty");
    switch (mmqi_os_kind_of(path)) {
    case MMQI_OS_FOLDER:
        break;
    case MMQI_OS_FILE:
        return mmqi_fail(MMQ_ERR_IO, "%s: is a file, not a folder", path);
    case MMQI_OS_NOTHING:
        return mmqi_fail(MMQ_ERR_NOT_FOUND, "%s: there is no such folder", path);
    case MMQI_OS_UNKNOWN:
        return mmqi_fail(MMQ_ERR_IO, "%s: the folder cannot be reached", path);
    }
    status = create_store(out, path);
    if (status == MMQ_OK)
        (*out)->folder = true;
    return status;
}

int32_t mmqi_store_open_reader(struct mmqi_store **out, const char *name,
                               const struct mmqi_reader *reader)
{
    int32_t status;

    *out = NULL;
    if (!reader->open || !reader->size || !reader->read_at || !reader->close)
        return mmqi_fail(MMQ_ERR_INVALID, "%s: a reader needs open, size, read_at and close", name);
    status = create_store(out, name);
    if (status == MMQ_OK)
        (*out)->reader = *reader;
    return status;
}

void mmqi_store_retain(struct mmqi_store *store)
{
    atomic_fetch_add_explicit(&store->refs, 1, memory_order_relaxed);
}

void mmqi_store_release(struct mmqi_store *store)
{
    if (!store || atomic_fetch_sub_explicit(&store->refs, 1, memory_order_acq_rel) != 1)
        return;
    mmqi_free(store->prefix);
    mmqi_free(store->name);
    mmqi_free(store);
}

const char *mmqi_store_name(const struct mmqi_store *store)
{
    return store->name;
}

bool mmqi_store_is_folder(const struct mmqi_store *store)
{
    return store->folder;
}

/* ---- names ---- */

/* Does `name` stay inside the store on every system that this library knows? */
static bool is_inside(const char *name)
{
    const char *part = name;

    if (!*name || *name == '/' || strpbrk(name, "\\:"))
        return false;
    while (part) {
        if (part[0] == '.' && part[1] == '.' && (!part[2] || part[2] == '/'))
            return false;
        part = strchr(part, '/');
        if (part)
            part++;
    }
    return true;
}

/* store + '/' + name, and *tail at the name in it; NULL when there is no memory. */
static char *join(const char *store, const char *name, const char **tail)
{
    size_t head = strlen(store);
    const size_t size = strlen(name);
    char *path;

    while (head > 0 && store[head - 1] == '/')
        head--;
    path = mmqi_alloc(head + size + 2);
    if (!path)
        return NULL;
    memcpy(path, store, head);
    path[head] = '/';
    memcpy(path + head + 1, name, size + 1);
    *tail = path + head + 1;
    return path;
}

int32_t mmqi_store_open_inside(struct mmqi_store **out, struct mmqi_store *outer, const char *name)
{
    const char *tail;
    char *path;
    int32_t status;

    *out = NULL;
    if (!is_inside(name))
        return mmqi_fail(MMQ_ERR_FORMAT, "%s: '%.*s' names no folder inside it", outer->name,
                         mmqi_clip(name, strlen(name)), name);
    path = join(outer->name, name, &tail);
    if (!path)
        return mmqi_fail(MMQ_ERR_NOMEM, "%s: no memory to open %s", outer->name, name);
    status = outer->folder ? mmqi_store_open_folder(out, path)
                           : mmqi_store_open_reader(out, path, &outer->reader);
    if (status == MMQ_OK && !outer->folder) {
        (*out)->prefix = outer->prefix ? join(outer->prefix, name, &tail) : mmqi_strdup(name);
        if (!(*out)->prefix) {
            status = mmqi_fail(MMQ_ERR_NOMEM, "%s: no memory to open it", path);
            mmqi_store_release(*out);
            *out = NULL;
        }
    }
    mmqi_free(path);
    return status;
}

/* ---- files ---- */

/*
 * A host's reader gives a status, or anything else but 0 for a failure. What no reader can mean
 * is a callback that failed.
 */
static int32_t reader_failed(int32_t status, const char *path, const char *verb)
{
    static const int32_t meant[] = {MMQ_ERR_UNSUPPORTED, MMQ_ERR_NOMEM,  MMQ_ERR_LIMIT,
                                    MMQ_ERR_IO,          MMQ_ERR_FORMAT, MMQ_ERR_CANCELLED};
    int32_t given = MMQ_ERR_CALLBACK;
    size_t i;

    if (status == MMQ_ERR_NOT_FOUND)
        return mmqi_fail(status, "%s: there is no such file", path);
    for (i = 0; i < sizeof meant / sizeof meant[0]; i++)
        if (status == meant[i])
            given = status;
    return mmqi_fail(given, "%s: the host's reader could not %s it (%d)", path, verb, (int)status);
}

/* The host's callbacks, each with no hooks entered (see core/mem.h). */

/* *status is the reader's; what is returned fails before it is asked. */
static int32_t call_open(int32_t *status, const struct mmqi_store *store, const char *name,
                         void **handle)
{
    const struct mmqi_mem_hooks *hooks;
    const char *tail;
    char *whole = store->prefix ? join(store->prefix, name, &tail) : NULL;

    if (store->prefix && !whole)
        return mmqi_fail(MMQ_ERR_NOMEM, "%s: no memory to open %s", store->name, name);
    hooks = mmqi_mem_enter(NULL);
    *status = store->reader.open(store->reader.user, whole ? whole : name, handle);
    mmqi_mem_enter(hooks);
    mmqi_free(whole);
    return MMQ_OK;
}

static int32_t call_size(const struct mmqi_reader *reader, void *handle, uint64_t *size)
{
    const struct mmqi_mem_hooks *hooks = mmqi_mem_enter(NULL);
    int32_t status = reader->size(reader->user, handle, size);

    mmqi_mem_enter(hooks);
    return status;
}

static int32_t call_read_at(const struct mmqi_reader *reader, void *handle, uint64_t offset,
                            void *dst, size_t size)
{
    const struct mmqi_mem_hooks *hooks = mmqi_mem_enter(NULL);
    int32_t status = reader->read_at(reader->user, handle, offset, dst, size);

    mmqi_mem_enter(hooks);
    return status;
}

static void call_close(const struct mmqi_reader *reader, void *handle)
{
    const struct mmqi_mem_hooks *hooks = mmqi_mem_enter(NULL);

    reader->close(reader->user, handle);
    mmqi_mem_enter(hooks);
}

static int32_t open_with_reader(struct mmqi_file *file)
{
    const struct mmqi_reader *reader = &file->store->reader;
    int32_t said = MMQ_OK, status = call_open(&said, file->store, file->name, &file->handle);

    if (status != MMQ_OK || said != MMQ_OK)
        return status != MMQ_OK ? status : reader_failed(said, file->path, "open");
    file->open = true;
    status = call_size(reader, file->handle, &file->size);
    if (status != MMQ_OK)
        return reader_failed(status, file->path, "measure");
    return MMQ_OK;
}

static int32_t open_in_folder(struct mmqi_file *file)
{
    int32_t status;

    switch (mmqi_os_kind_of(file->path)) {
    case MMQI_OS_FILE:
    case MMQI_OS_UNKNOWN: /* opening it tells why */
        break;
    case MMQI_OS_FOLDER:
        return mmqi_fail(MMQ_ERR_IO, "%s: is a folder, not a file", file->path);
    case MMQI_OS_NOTHING:
        return mmqi_fail(MMQ_ERR_NOT_FOUND, "%s: there is no such file", file->path);
    }
    status = mmqi_os_open_read(&file->os, file->path);
    if (status == MMQ_OK)
        file->size = mmqi_os_file_size(file->os);
    return status;
}

int32_t mmqi_file_open(struct mmqi_file **out, struct mmqi_store *store, const char *name)
{
    struct mmqi_file *file;
    int32_t status;

    *out = NULL;
    if (!is_inside(name))
        return mmqi_fail(MMQ_ERR_FORMAT, "%s: '%.*s' names no file inside it", store->name,
                         mmqi_clip(name, strlen(name)), name);
    file = mmqi_calloc(1, sizeof *file);
    if (file)
        file->path = join(store->name, name, &file->name);
    if (!file || !file->path) {
        mmqi_free(file);
        return mmqi_fail(MMQ_ERR_NOMEM, "%s: no memory to open %s", store->name, name);
    }
    file->store = store;
    mmqi_store_retain(store);
    status = store->folder ? open_in_folder(file) : open_with_reader(file);
    if (status == MMQ_OK && file->size > INT64_MAX)
        status = mmqi_fail(MMQ_ERR_FORMAT, "%s: no file has %llu bytes", file->path,
                           (unsigned long long)file->size);
    if (status != MMQ_OK) {
        mmqi_file_close(file);
        return status;
    }
    *out = file;
    return MMQ_OK;
}

/* Of a reader, whose open() alone can tell. */
static int32_t reader_has(bool *exists, const struct mmqi_store *store, const char *path,
                          const char *name)
{
    void *handle = NULL;
    int32_t said = MMQ_OK, status = call_open(&said, store, name, &handle);

    if (status != MMQ_OK)
        return status;
    *exists = said == MMQ_OK;
    if (*exists)
        call_close(&store->reader, handle);
    return *exists || said == MMQ_ERR_NOT_FOUND ? MMQ_OK : reader_failed(said, path, "open");
}

int32_t mmqi_file_exists(bool *exists, struct mmqi_store *store, const char *name)
{
    enum mmqi_os_kind kind;
    const char *tail;
    char *path;
    int32_t status = MMQ_OK;

    *exists = false;
    if (!is_inside(name))
        return MMQ_OK;
    path = join(store->name, name, &tail);
    if (!path)
        return mmqi_fail(MMQ_ERR_NOMEM, "%s: no memory to look for %s", store->name, name);
    if (store->folder) {
        kind = mmqi_os_kind_of(path);
        *exists = kind == MMQI_OS_FILE;
        if (kind == MMQI_OS_UNKNOWN)
            status = mmqi_fail(MMQ_ERR_IO, "%s: %s cannot be reached", store->name, name);
    } else {
        status = reader_has(exists, store, path, name);
    }
    mmqi_free(path);
    return status;
}

uint64_t mmqi_file_size(const struct mmqi_file *file)
{
    return file->size;
}

const char *mmqi_file_name(const struct mmqi_file *file)
{
    return file->name;
}

const char *mmqi_file_path(const struct mmqi_file *file)
{
    return file->path;
}

int32_t mmqi_file_read_at(struct mmqi_file *file, uint64_t offset, void *dst, size_t size)
{
    const struct mmqi_reader *reader = &file->store->reader;
    int32_t status;

    /* offset + size may wrap; file->size - offset, checked first, cannot. */
    if (offset > file->size || size > file->size - offset)
        return mmqi_fail(MMQ_ERR_FORMAT, "%s: needs bytes %llu..+%zu of %llu", file->path,
                         (unsigned long long)offset, size, (unsigned long long)file->size);
    if (size == 0)
        return MMQ_OK;
    if (file->store->folder)
        return mmqi_os_read_at(file->os, offset, dst, size);
    status = call_read_at(reader, file->handle, offset, dst, size);
    if (status != MMQ_OK)
        return reader_failed(status, file->path, "read");
    return MMQ_OK;
}

void mmqi_file_close(struct mmqi_file *file)
{
    if (!file)
        return;
    if (file->open)
        call_close(&file->store->reader, file->handle);
    mmqi_os_close(file->os);
    mmqi_store_release(file->store);
    mmqi_free(file->path);
    mmqi_free(file);
}

int32_t mmqi_file_read_all(char **out, size_t *size, struct mmqi_store *store, const char *name,
                           size_t limit)
{
    struct mmqi_file *file;
    char *text = NULL;
    int32_t status;

    *out = NULL;
    *size = 0;
    status = mmqi_file_open(&file, store, name);
    if (status != MMQ_OK)
        return status;
    if (file->size > limit || file->size > SIZE_MAX - 1) {
        status = mmqi_fail(MMQ_ERR_FORMAT, "%s: has %llu bytes, at most %zu are read", file->path,
                           (unsigned long long)file->size, limit);
        goto done;
    }
    text = mmqi_alloc((size_t)file->size + 1);
    if (!text) {
        status = mmqi_fail(MMQ_ERR_NOMEM, "%s: no memory for its %llu bytes", file->path,
                           (unsigned long long)file->size);
        goto done;
    }
    status = mmqi_file_read_at(file, 0, text, (size_t)file->size);
    if (status != MMQ_OK)
        goto done;
    text[file->size] = 0;
    *size = (size_t)file->size;
    *out = text;
    text = NULL;
done:
    mmqi_free(text);
    mmqi_file_close(file);
    return status;
}
