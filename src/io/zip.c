/*
 * Zip archives: from the end record to each entry's place in the file.
 *
 * The end record is the last of the file and tells where the directory lies;
 * sizes and offsets that do not fit in 32 bits stand in an extra field of
 * their entry and in the zip64 end record. Nothing is believed before it is
 * compared with the size of the file, and nothing of an entry's bytes is read.
 */
#include "io/zip.h"

#include <inttypes.h>
#include <string.h>

#include "core/mem.h"
#include "core/status.h"
#include "io/util.h"

enum {
    MAX_ENTRIES = 1 << 20,
    MAX_DIRECTORY = 100000000,
    MAX_NAME = 1024,
    MAX_COMMENT = 65535,
    END_BYTES = 22,
    END64_BYTES = 56,
    LOCATOR_BYTES = 20,
    CENTRAL_BYTES = 46,
    LOCAL_BYTES = 30
};

enum { FLAG_ENCRYPTED = 1, FLAG_STRONG = 64, FLAG_MASKED = 1 << 13 };

static const uint8_t end_mark[] = {'P', 'K', 5, 6}, end64_mark[] = {'P', 'K', 6, 6},
                     locator_mark[] = {'P', 'K', 6, 7}, central_mark[] = {'P', 'K', 1, 2},
                     local_mark[] = {'P', 'K', 3, 4};

struct directory {
    uint64_t n, offset, bytes;
    uint64_t end; /* where the records after it begin: it lies before that */
};

struct reading {
    struct mmqi_zip *zip;
    struct mmqi_file *file;
    const char *path;
    struct directory directory;
    size_t names_size;
};

static uint64_t read_le(const uint8_t *bytes, int n)
{
    uint64_t value = 0;

    while (n > 0)
        value = value << 8 | bytes[--n];
    return value;
}

static bool is_marked(const uint8_t *bytes, const uint8_t mark[4])
{
    return memcmp(bytes, mark, 4) == 0;
}

static int32_t fail_entry(const struct reading *r, const char *name, int32_t status,
                          const char *fault)
{
    return mmqi_fail(status, "%s: zip entry '%.*s' %s", r->path, mmqi_clip(name, strlen(name)),
                     name, fault);
}

/* ---- the end records ---- */

/* The end record of a file that ends with `tail`: the last one whose comment ends where the file
 * does. NULL where there is none. */
static const uint8_t *find_end(const uint8_t *tail, size_t size)
{
    size_t at;

    if (size < END_BYTES)
        return NULL;
    for (at = size - END_BYTES + 1; at > 0; at--) {
        const uint8_t *end = tail + at - 1;

        if (is_marked(end, end_mark) && read_le(end + 20, 2) == size - END_BYTES - (at - 1))
            return end;
    }
    return NULL;
}

static int32_t fail_disks(const struct reading *r)
{
    return mmqi_fail(MMQ_ERR_UNSUPPORTED, "%s: a zip archive of several disks", r->path);
}

/* The zip64 end record, which the locator just before the end record points to. */
static int32_t read_end64(struct reading *r, const uint8_t *locator, uint64_t locator_at)
{
    struct directory *d = &r->directory;
    const uint64_t at = read_le(locator + 8, 8);
    uint8_t end[END64_BYTES];
    int32_t status;

    if (read_le(locator + 4, 4) != 0 || read_le(locator + 16, 4) > 1)
        return fail_disks(r);
    if (at > locator_at || locator_at - at < END64_BYTES)
        return mmqi_fail(MMQ_ERR_FORMAT,
                         "%s: the zip64 end record is said to lie at byte %" PRIu64
                         ", its locator at %" PRIu64,
                         r->path, at, locator_at);
    status = mmqi_file_read_at(r->file, at, end, sizeof end);
    if (status != MMQ_OK)
        return status;
    if (!is_marked(end, end64_mark))
        return mmqi_fail(MMQ_ERR_FORMAT, "%s: no zip64 end record at byte %" PRIu64, r->path, at);
    if (read_le(end + 16, 4) != 0 || read_le(end + 20, 4) != 0 ||
        read_le(end + 24, 8) != read_le(end + 32, 8))
        return fail_disks(r);
    d->n = read_le(end + 32, 8);
    d->bytes = read_le(end + 40, 8);
    d->offset = read_le(end + 48, 8);
    d->end = at;
    return MMQ_OK;
}

static int32_t check_directory(const struct reading *r)
{
    const struct directory *d = &r->directory;

    if (d->offset > d->end || d->bytes > d->end - d->offset)
        return mmqi_fail(MMQ_ERR_FORMAT,
                         "%s: the zip directory needs bytes %" PRIu64 "..+%" PRIu64 " of %" PRIu64,
                         r->path, d->offset, d->bytes, d->end);
    if (d->bytes > MAX_DIRECTORY || d->n > MAX_ENTRIES)
        return mmqi_fail(MMQ_ERR_FORMAT,
                         "%s: a zip directory of %" PRIu64 " entries in %" PRIu64
                         " bytes, at most %d in %d are read",
                         r->path, d->n, d->bytes, MAX_ENTRIES, MAX_DIRECTORY);
    if (d->bytes / CENTRAL_BYTES < d->n)
        return mmqi_fail(MMQ_ERR_FORMAT,
                         "%s: a zip directory of %" PRIu64 " bytes cannot hold %" PRIu64 " entries",
                         r->path, d->bytes, d->n);
    return MMQ_OK;
}

static int32_t read_end(struct reading *r, const uint8_t *tail, size_t size)
{
    const uint8_t *end = find_end(tail, size);
    struct directory *d = &r->directory;
    uint64_t at;
    int32_t status = MMQ_OK;

    if (!end)
        return mmqi_fail(MMQ_ERR_FORMAT,
                         "%s: no zip archive, or one that is cut off: it has no end record",
                         r->path);
    at = mmqi_file_size(r->file) - size + (uint64_t)(end - tail);
    d->n = read_le(end + 10, 2);
    d->bytes = read_le(end + 12, 4);
    d->offset = read_le(end + 16, 4);
    d->end = at;
    if (end - tail >= LOCATOR_BYTES && is_marked(end - LOCATOR_BYTES, locator_mark))
        status = read_end64(r, end - LOCATOR_BYTES, at - LOCATOR_BYTES);
    else if (read_le(end + 4, 2) != 0 || read_le(end + 6, 2) != 0 || read_le(end + 8, 2) != d->n)
        status = fail_disks(r);
    return status == MMQ_OK ? check_directory(r) : status;
}

static int32_t find_directory(struct reading *r)
{
    const uint64_t whole = mmqi_file_size(r->file);
    const uint64_t most = MAX_COMMENT + END_BYTES + LOCATOR_BYTES;
    const size_t size = (size_t)(whole < most ? whole : most);
    uint8_t *tail = mmqi_alloc(size);
    int32_t status;

    if (!tail)
        return mmqi_fail(MMQ_ERR_NOMEM, "%s: no memory for its last %zu bytes", r->path, size);
    status = mmqi_file_read_at(r->file, whole - size, tail, size);
    if (status == MMQ_OK)
        status = read_end(r, tail, size);
    mmqi_free(tail);
    return status;
}

/* ---- entries ---- */

/* Does `name` stay inside an archive that is unpacked, on every system? */
static bool is_inside(const char *name, size_t size)
{
    const char *part = name;

    if (size == 0 || size > MAX_NAME || strlen(name) != size || *name == '/' ||
        strpbrk(name, "\\:"))
        return false;
    for (;;) {
        if (part[0] == '.' && part[1] == '.' && (!part[2] || part[2] == '/'))
            return false;
        part = strchr(part, '/');
        if (!part)
            return true;
        part++;
    }
}

static int32_t take_name(struct reading *r, struct mmqi_zip_entry *entry, const uint8_t *name,
                         size_t size)
{
    char *text = r->zip->names + r->names_size; /* the block is as large as the directory */

    memcpy(text, name, size);
    text[size] = '\0';
    r->names_size += size + 1;
    entry->name = text;
    return is_inside(text, size)
               ? MMQ_OK
               : fail_entry(r, text, MMQ_ERR_FORMAT, "has a name that no archive should have");
}

/* Sizes and offset that need 64 bits stand in the extra field 1, in this order, each only where its
 * own 32 bits are all ones. */
static bool read_wide(const uint8_t *extra, size_t size, uint64_t *const fields[3])
{
    size_t at = 0, left, i;

    for (i = 0; i < 3 && *fields[i] != UINT32_MAX; i++)
        ;
    if (i == 3)
        return true;
    while (size - at >= 4 && read_le(extra + at, 2) != 1) {
        left = size - at - 4;
        if (read_le(extra + at + 2, 2) > left)
            return false;
        at += 4 + (size_t)read_le(extra + at + 2, 2);
    }
    if (size - at < 4 || read_le(extra + at + 2, 2) > size - at - 4)
        return false;
    left = (size_t)read_le(extra + at + 2, 2);
    at += 4;
    for (; i < 3; i++) {
        if (*fields[i] != UINT32_MAX)
            continue;
        if (left < 8)
            return false;
        *fields[i] = read_le(extra + at, 8);
        at += 8;
        left -= 8;
    }
    return true;
}

static int32_t check_kind(const struct reading *r, const char *name, uint64_t flags,
                          uint64_t method)
{
    if (flags & (FLAG_ENCRYPTED | FLAG_STRONG | FLAG_MASKED))
        return fail_entry(r, name, MMQ_ERR_UNSUPPORTED, "is encrypted");
    if (method != 0)
        return mmqi_fail(MMQ_ERR_UNSUPPORTED,
                         "%s: zip entry '%.*s' is compressed (method %d), not stored", r->path,
                         mmqi_clip(name, strlen(name)), name, (int)method);
    return MMQ_OK;
}

/* The entry whose record is `at`, `left` bytes before the directory's end; *size: of the record. */
static int32_t read_entry(struct reading *r, struct mmqi_zip_entry *entry, const uint8_t *at,
                          size_t left, size_t *size)
{
    uint64_t packed, bytes, header;
    uint64_t *const fields[] = {&bytes, &packed, &header};
    size_t name_size, extra_size;
    int32_t status;

    if (left < CENTRAL_BYTES || !is_marked(at, central_mark))
        return mmqi_fail(MMQ_ERR_FORMAT, "%s: the zip directory has fewer entries than it counts",
                         r->path);
    name_size = (size_t)read_le(at + 28, 2);
    extra_size = (size_t)read_le(at + 30, 2);
    *size = CENTRAL_BYTES + name_size + extra_size + (size_t)read_le(at + 32, 2);
    if (*size > left)
        return mmqi_fail(MMQ_ERR_FORMAT,
                         "%s: a record of %zu bytes in the zip directory's last "
                         "%zu",
                         r->path, *size, left);
    status = take_name(r, entry, at + CENTRAL_BYTES, name_size);
    if (status == MMQ_OK)
        status = check_kind(r, entry->name, read_le(at + 8, 2), read_le(at + 10, 2));
    if (status != MMQ_OK)
        return status;
    packed = read_le(at + 20, 4);
    bytes = read_le(at + 24, 4);
    header = read_le(at + 42, 4);
    if (!read_wide(at + CENTRAL_BYTES + name_size, extra_size, fields))
        return fail_entry(r, entry->name, MMQ_ERR_FORMAT, "lacks its 64-bit sizes");
    if (packed != bytes)
        return fail_entry(r, entry->name, MMQ_ERR_FORMAT, "is stored, with two sizes");
    entry->header = header;
    entry->bytes = bytes;
    return MMQ_OK;
}

/* Where the bytes begin is known to the local header alone; it must speak of the same entry. */
static int32_t read_local(struct reading *r, struct mmqi_zip_entry *entry)
{
    const uint64_t end = r->directory.offset;
    const size_t name_size = strlen(entry->name);
    uint8_t local[LOCAL_BYTES + MAX_NAME];
    uint64_t left;
    int32_t status;

    if (entry->header > end || end - entry->header < LOCAL_BYTES + name_size)
        return fail_entry(r, entry->name, MMQ_ERR_FORMAT, "lies past the zip directory");
    status = mmqi_file_read_at(r->file, entry->header, local, LOCAL_BYTES + name_size);
    if (status != MMQ_OK)
        return status;
    if (!is_marked(local, local_mark) || read_le(local + 26, 2) != name_size ||
        memcmp(local + LOCAL_BYTES, entry->name, name_size) != 0)
        return fail_entry(r, entry->name, MMQ_ERR_FORMAT, "has no header of that name");
    status = check_kind(r, entry->name, read_le(local + 6, 2), read_le(local + 8, 2));
    if (status != MMQ_OK)
        return status;
    left = end - entry->header - LOCAL_BYTES - name_size;
    if (read_le(local + 28, 2) > left || entry->bytes > left - read_le(local + 28, 2))
        return mmqi_fail(MMQ_ERR_FORMAT,
                         "%s: zip entry '%.*s' of %" PRIu64 " bytes reaches past byte %" PRIu64
                         ", where the directory begins",
                         r->path, mmqi_clip(entry->name, name_size), entry->name, entry->bytes,
                         end);
    entry->offset = entry->header + LOCAL_BYTES + name_size + read_le(local + 28, 2);
    return MMQ_OK;
}

static int32_t read_entries(struct reading *r, const uint8_t *directory)
{
    const size_t size = (size_t)r->directory.bytes;
    size_t at = 0, record = 0;
    int32_t status = MMQ_OK;

    while (r->zip->n_entries < r->directory.n && status == MMQ_OK) {
        struct mmqi_zip_entry *entry = &r->zip->entries[r->zip->n_entries++];

        status = read_entry(r, entry, directory + at, size - at, &record);
        if (status == MMQ_OK)
            status = read_local(r, entry);
        at += record;
    }
    if (status == MMQ_OK && at != size)
        status = mmqi_fail(MMQ_ERR_FORMAT, "%s: %zu bytes of the zip directory are no entry",
                           r->path, size - at);
    return status;
}

/* ---- all of them ---- */

static bool name_before(const void *context, uint32_t a, uint32_t b)
{
    const struct mmqi_zip_entry *entries = context;
    const int way = strcmp(entries[a].name, entries[b].name);

    return way != 0 ? way < 0 : a < b;
}

static bool lies_before(const void *context, uint32_t a, uint32_t b)
{
    const struct mmqi_zip_entry *entries = context;

    return entries[a].header != entries[b].header ? entries[a].header < entries[b].header : a < b;
}

static int32_t check_overlap(const struct reading *r, const uint32_t *order)
{
    const struct mmqi_zip_entry *entries = r->zip->entries;
    size_t i;

    for (i = 1; i < r->zip->n_entries; i++) {
        const struct mmqi_zip_entry *before = &entries[order[i - 1]];

        if (before->offset + before->bytes > entries[order[i]].header)
            return fail_entry(r, entries[order[i]].name, MMQ_ERR_FORMAT, "overlaps another");
    }
    return MMQ_OK;
}

/* By name; no two have one. `sorted` has room for them. */
static int32_t order_by_name(struct reading *r, const uint32_t *order,
                             struct mmqi_zip_entry *sorted)
{
    size_t i;

    for (i = 0; i < r->zip->n_entries; i++) {
        sorted[i] = r->zip->entries[order[i]];
        if (i > 0 && strcmp(sorted[i].name, sorted[i - 1].name) == 0)
            return fail_entry(r, sorted[i].name, MMQ_ERR_FORMAT, "is there twice");
    }
    return MMQ_OK;
}

static int32_t check_entries(struct reading *r)
{
    struct mmqi_zip *zip = r->zip;
    uint32_t *order = mmqi_alloc_array(zip->n_entries, sizeof *order);
    struct mmqi_zip_entry *sorted = mmqi_alloc_array(zip->n_entries, sizeof *sorted);
    int32_t status = MMQ_OK;
    size_t i;

    if (!order || !sorted) {
        status = mmqi_fail(MMQ_ERR_NOMEM, "%s: no memory for the list of entries", r->path);
        goto done;
    }
    for (i = 0; i < zip->n_entries; i++)
        order[i] = (uint32_t)i;
    mmqi_sort(order, zip->n_entries, lies_before, zip->entries);
    status = check_overlap(r, order);
    if (status != MMQ_OK)
        goto done;
    mmqi_sort(order, zip->n_entries, name_before, zip->entries);
    status = order_by_name(r, order, sorted);
    if (status != MMQ_OK)
        goto done;
    mmqi_free(zip->entries);
    zip->entries = sorted;
    sorted = NULL;
done:
    mmqi_free(order);
    mmqi_free(sorted);
    return status;
}

int32_t mmqi_zip_parse(struct mmqi_zip *out, struct mmqi_file *file)
{
    struct reading r = {.zip = out, .file = file, .path = mmqi_file_path(file)};
    uint8_t *directory = NULL;
    int32_t status;

    memset(out, 0, sizeof *out);
    status = find_directory(&r);
    if (status != MMQ_OK)
        return status;
    directory = mmqi_alloc((size_t)r.directory.bytes);
    out->names = mmqi_alloc((size_t)r.directory.bytes);
    out->entries = mmqi_alloc_array((size_t)r.directory.n, sizeof *out->entries);
    if (!directory || !out->names || !out->entries) {
        status = mmqi_fail(MMQ_ERR_NOMEM, "%s: no memory for a zip directory of %" PRIu64 " bytes",
                           r.path, r.directory.bytes);
        goto done;
    }
    status = mmqi_file_read_at(file, r.directory.offset, directory, (size_t)r.directory.bytes);
    if (status == MMQ_OK)
        status = read_entries(&r, directory);
    if (status == MMQ_OK)
        status = check_entries(&r);
done:
    mmqi_free(directory);
    if (status != MMQ_OK)
        mmqi_zip_clear(out);
    return status;
}

const struct mmqi_zip_entry *mmqi_zip_find(const struct mmqi_zip *zip, const char *name)
{
    size_t begin = 0, end = zip->n_entries;

    while (begin < end) {
        const size_t middle = begin + (end - begin) / 2;
        const int way = strcmp(name, zip->entries[middle].name);

        if (way == 0)
            return &zip->entries[middle];
        if (way < 0)
            end = middle;
        else
            begin = middle + 1;
    }
    return NULL;
}

void mmqi_zip_clear(struct mmqi_zip *zip)
{
    mmqi_free(zip->entries);
    mmqi_free(zip->names);
    memset(zip, 0, sizeof *zip);
}
