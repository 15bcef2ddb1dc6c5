/*
 * Safetensors headers: read strictly, written deterministically.
 *
 *   {"__metadata__": {"key": "text"},
 *    "name": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}}
 *
 * data_offsets count from the end of the header. Nothing here reads a
 * tensor's bytes, and no size is believed before it is compared with the file's.
 */
#include "io/safetensors.h"

#include <inttypes.h>
#include <string.h>

#include "core/buf.h"
#include "core/dtype.h"
#include "core/mem.h"
#include "core/status.h"
#include "core/utf8.h"
#include "io/json.h"
#include "io/util.h"

enum { MAX_HEADER = 100000000, MAX_TENSORS = 1 << 20, MAX_NAME = 1024 };

#define MAX_DIM ((INT64_C(1) << 48) - 1)
#define METADATA "__metadata__"

/* Types that the format has and this library does not. */
static const char *const other_dtypes[] = {"F4",          "F6_E2M3",     "F6_E3M2", "F8_E8M0",
                                           "F8_E4M3FNUZ", "F8_E5M2FNUZ", "C64"};

struct reading {
    struct mmqi_safetensors *st;
    struct mmqi_file *file;
    struct mmqi_json *json;
    uint64_t data_begin, data_size; /* bytes, from the start of the file and after that */
    size_t names_size, capacity;
};

/* The next event, which must be `wanted`. */
static int32_t expect(struct mmqi_json *json, enum mmqi_json_event wanted, const char *what)
{
    enum mmqi_json_event event;
    int32_t status = mmqi_json_next(json, &event);

    if (status == MMQ_OK && event != wanted)
        status = mmqi_json_fail(json, MMQ_ERR_FORMAT, "expected %s", what);
    return status;
}

static int32_t fail_tensor(struct mmqi_json *json, const struct mmqi_entry *entry, int32_t status,
                           const char *fault)
{
    return mmqi_json_fail(json, status, "tensor '%.*s' %s",
                          mmqi_clip(entry->name, strlen(entry->name)), entry->name, fault);
}

/* ---- one tensor's fields ---- */

static int32_t read_dtype(struct reading *r, struct mmqi_entry *entry)
{
    const char *name;
    int32_t status;
    size_t i;

    status = expect(r->json, MMQI_JSON_STRING, "the dtype, a string");
    if (status != MMQ_OK)
        return status;
    name = mmqi_json_text(r->json);
    entry->dtype = strlen(name) == mmqi_json_size(r->json) ? mmqi_dtype_from_name(name) : -1;
    if (entry->dtype >= 0)
        return MMQ_OK;
    for (i = 0; i < sizeof other_dtypes / sizeof other_dtypes[0]; i++) {
        if (mmqi_json_is(r->json, other_dtypes[i]))
            return fail_tensor(r->json, entry, MMQ_ERR_UNSUPPORTED,
                               "has a dtype that this library does not read");
    }
    return fail_tensor(r->json, entry, MMQ_ERR_FORMAT, "has an unknown dtype");
}

/* The integers of an array, each from 0 to `max`, at most `limit` of them. */
static int32_t read_array(struct reading *r, const struct mmqi_entry *entry, const char *field,
                          int64_t max, int64_t *values, int32_t limit, int32_t *count)
{
    enum mmqi_json_event event;
    int32_t status = expect(r->json, MMQI_JSON_ARRAY, "an array of integers");
    int64_t value = 0;

    *count = 0;
    while (status == MMQ_OK) {
        status = mmqi_json_next(r->json, &event);
        if (status != MMQ_OK || event == MMQI_JSON_ARRAY_END)
            break;
        status = mmqi_json_integer(r->json, &value);
        if (status != MMQ_OK)
            break;
        if (value < 0 || value > max || *count == limit)
            return mmqi_json_fail(r->json, MMQ_ERR_FORMAT,
                                  "tensor '%.*s': %s takes at most %d integers from 0 to %" PRId64,
                                  mmqi_clip(entry->name, strlen(entry->name)), entry->name, field,
                                  (int)limit, max);
        values[(*count)++] = value;
    }
    return status;
}

static int32_t read_fields(struct reading *r, struct mmqi_entry *entry, int64_t span[2])
{
    bool dtype = false, shape = false, offsets = false;
    enum mmqi_json_event event;
    int32_t status = MMQ_OK, count = 0;

    while (status == MMQ_OK) {
        status = mmqi_json_next(r->json, &event); /* each key comes once: the parser sees to it */
        if (status != MMQ_OK || event == MMQI_JSON_OBJECT_END)
            break;
        if (mmqi_json_is(r->json, "dtype")) {
            dtype = true;
            status = read_dtype(r, entry);
        } else if (mmqi_json_is(r->json, "shape")) {
            shape = true;
            status =
                read_array(r, entry, "shape", MAX_DIM, entry->shape, MMQI_MAX_RANK, &entry->rank);
        } else if (mmqi_json_is(r->json, "data_offsets")) {
            offsets = true;
            status = read_array(r, entry, "data_offsets", INT64_MAX, span, 2, &count);
        } else {
            return fail_tensor(r->json, entry, MMQ_ERR_FORMAT, "has an unknown field");
        }
    }
    if (status != MMQ_OK)
        return status;
    if (!dtype || !shape || !offsets)
        return fail_tensor(r->json, entry, MMQ_ERR_FORMAT,
                           "needs the fields dtype, shape and data_offsets");
    if (count != 2)
        return fail_tensor(r->json, entry, MMQ_ERR_FORMAT, "needs two data_offsets");
    return MMQ_OK;
}

static int32_t check_span(struct reading *r, struct mmqi_entry *entry, const int64_t span[2])
{
    const uint64_t begin = (uint64_t)span[0], end = (uint64_t)span[1];
    const int clip = mmqi_clip(entry->name, strlen(entry->name));

    if (end < begin || end > r->data_size)
        return mmqi_json_fail(r->json, MMQ_ERR_FORMAT,
                              "tensor '%.*s' lies at bytes %" PRIu64 "..%" PRIu64 " of %" PRIu64,
                              clip, entry->name, begin, end, r->data_size);
    if (!mmqi_entry_size(entry, &entry->bytes))
        return fail_tensor(r->json, entry, MMQ_ERR_FORMAT, "has a shape whose size overflows");
    if (entry->bytes != end - begin)
        return mmqi_json_fail(r->json, MMQ_ERR_FORMAT,
                              "tensor '%.*s' has %" PRIu64
                              " bytes, its dtype and shape need %" PRIu64,
                              clip, entry->name, end - begin, entry->bytes);
    entry->offset = r->data_begin + begin;
    return MMQ_OK;
}

/* ---- the header ---- */

/* The key in hand becomes the name of a new entry. The names' block is as large as the header,
 * which holds each of them with two quotes and more: it cannot overflow, and stays in place. */
static int32_t add_entry(struct reading *r, struct mmqi_entry **out)
{
    struct mmqi_safetensors *const st = r->st;
    const char *const name = mmqi_json_text(r->json);
    const size_t size = mmqi_json_size(r->json);
    const size_t capacity = r->capacity ? 2 * r->capacity : 64;
    struct mmqi_entry *entries;

    if (size > MAX_NAME || strlen(name) != size)
        return mmqi_json_fail(
            r->json, MMQ_ERR_FORMAT,
            "the name '%.*s' has %zu bytes: at most %d, none of them zero, are read",
            mmqi_clip(name, size), name, size, MAX_NAME);
    if (st->n_entries == MAX_TENSORS)
        return mmqi_json_fail(r->json, MMQ_ERR_FORMAT, "more than %d tensors", MAX_TENSORS);
    if (st->n_entries == r->capacity) {
        entries = mmqi_realloc_array(st->entries, capacity, sizeof *entries);
        if (!entries)
            return mmqi_json_fail(r->json, MMQ_ERR_NOMEM, "no memory for the list of tensors");
        st->entries = entries;
        r->capacity = capacity;
    }
    *out = &st->entries[st->n_entries++];
    memset(*out, 0, sizeof **out);
    (*out)->name = memcpy(st->names + r->names_size, name, size + 1);
    r->names_size += size + 1;
    return MMQ_OK;
}

static int32_t read_metadata(struct mmqi_json *json)
{
    enum mmqi_json_event event = MMQI_JSON_KEY;
    int32_t status = expect(json, MMQI_JSON_OBJECT, METADATA ", an object of strings");

    while (status == MMQ_OK) {
        status = mmqi_json_next(json, &event);
        if (status != MMQ_OK || event == MMQI_JSON_OBJECT_END)
            break;
        status = expect(json, MMQI_JSON_STRING, "a string in " METADATA);
    }
    return status;
}

static int32_t read_tensor(struct reading *r)
{
    struct mmqi_entry *entry = NULL;
    int64_t span[2] = {0, 0};
    int32_t status = add_entry(r, &entry);

    if (status == MMQ_OK)
        status = expect(r->json, MMQI_JSON_OBJECT, "a tensor's fields, an object");
    if (status == MMQ_OK)
        status = read_fields(r, entry, span);
    if (status == MMQ_OK)
        status = check_span(r, entry, span);
    return status;
}

static int32_t read_entries(struct reading *r)
{
    enum mmqi_json_event event;
    int32_t status = expect(r->json, MMQI_JSON_OBJECT, "an object");

    while (status == MMQ_OK) {
        status = mmqi_json_next(r->json, &event);
        if (status != MMQ_OK || event == MMQI_JSON_OBJECT_END)
            break;
        status = mmqi_json_is(r->json, METADATA) ? read_metadata(r->json) : read_tensor(r);
    }
    return status == MMQ_OK ? expect(r->json, MMQI_JSON_END, "the end of the header") : status;
}

/* Empty tensors stand before the one that begins where they do; equals keep the header's order. */
static bool lies_before(const void *context, uint32_t a, uint32_t b)
{
    const struct mmqi_entry *const entries = context;

    if (entries[a].offset != entries[b].offset)
        return entries[a].offset < entries[b].offset;
    if (entries[a].bytes != entries[b].bytes)
        return entries[a].bytes < entries[b].bytes;
    return a < b;
}

/* Put the entries in the order of the file. */
static int32_t sort_entries(struct reading *r)
{
    struct mmqi_safetensors *const st = r->st;
    struct mmqi_entry *sorted = mmqi_alloc_array(st->n_entries, sizeof *sorted);
    uint32_t *order = mmqi_alloc_array(st->n_entries, sizeof *order);
    int32_t status = MMQ_OK;
    size_t i;

    if (!sorted || !order) {
        status = mmqi_fail(MMQ_ERR_NOMEM, "%s: no memory for the list of tensors",
                           mmqi_file_path(r->file));
        goto done;
    }
    for (i = 0; i < st->n_entries; i++)
        order[i] = (uint32_t)i;
    mmqi_sort(order, st->n_entries, lies_before, st->entries);
    for (i = 0; i < st->n_entries; i++)
        sorted[i] = st->entries[order[i]];
    mmqi_free(st->entries);
    st->entries = sorted;
    sorted = NULL;
done:
    mmqi_free(sorted);
    mmqi_free(order);
    return status;
}

/* The tensors fill the rest of the file, each beginning where the one before it ends. */
static int32_t check_layout(const struct reading *r)
{
    uint64_t at = r->data_begin;
    size_t i;

    for (i = 0; i < r->st->n_entries; i++) {
        const struct mmqi_entry *const entry = &r->st->entries[i];

        if (entry->offset != at)
            return mmqi_fail(MMQ_ERR_FORMAT,
                             "%s: tensor '%.*s' begins at byte %" PRIu64
                             ", what lies before it ends at %" PRIu64 ": %s",
                             mmqi_file_path(r->file), mmqi_clip(entry->name, strlen(entry->name)),
                             entry->name, entry->offset, at,
                             entry->offset < at ? "an overlap" : "a hole");
        at += entry->bytes; /* at most the file's size: check_span() has seen to it */
    }
    if (at != r->data_begin + r->data_size)
        return mmqi_fail(MMQ_ERR_FORMAT,
                         "%s: the tensors end at byte %" PRIu64 ", the file at %" PRIu64,
                         mmqi_file_path(r->file), at, r->data_begin + r->data_size);
    return MMQ_OK;
}

/* The length of the header, checked against the file's. */
static int32_t read_size(struct mmqi_file *file, size_t *size)
{
    const char *const path = mmqi_file_path(file);
    const uint64_t whole = mmqi_file_size(file);
    uint8_t bytes[8];
    uint64_t header = 0;
    int32_t status;
    int i;

    if (whole < 8)
        return mmqi_fail(MMQ_ERR_FORMAT,
                         "%s: has %" PRIu64 " bytes, too few for a safetensors file", path, whole);
    status = mmqi_file_read_at(file, 0, bytes, sizeof bytes);
    if (status != MMQ_OK)
        return status;
    for (i = 7; i >= 0; i--)
        header = header << 8 | bytes[i];
    if (header > MAX_HEADER)
        return mmqi_fail(MMQ_ERR_FORMAT, "%s: a header of %" PRIu64 " bytes, at most %d are read",
                         path, header, MAX_HEADER);
    if (header > whole - 8)
        return mmqi_fail(MMQ_ERR_FORMAT, "%s: a header of %" PRIu64 " bytes in a file of %" PRIu64,
                         path, header, whole);
    *size = (size_t)header;
    return MMQ_OK;
}

int32_t mmqi_safetensors_parse(struct mmqi_safetensors *out, struct mmqi_file *file)
{
    struct reading r = {.st = out, .file = file};
    const char *const path = mmqi_file_path(file);
    char *header = NULL;
    size_t size = 0;
    int32_t status;

    memset(out, 0, sizeof *out);
    status = read_size(file, &size);
    if (status != MMQ_OK)
        return status;
    header = mmqi_alloc(size + 1);
    out->names = mmqi_alloc(size + 1);
    if (!header || !out->names) {
        status = mmqi_fail(MMQ_ERR_NOMEM, "%s: no memory for its header of %zu bytes", path, size);
        goto done;
    }
    status = mmqi_file_read_at(file, 8, header, size);
    if (status != MMQ_OK)
        goto done;
    if (size == 0 || header[0] != '{') {
        status = mmqi_fail(MMQ_ERR_FORMAT, "%s: the header does not begin with '{'", path);
        goto done;
    }
    r.data_begin = 8 + size;
    r.data_size = mmqi_file_size(file) - r.data_begin;
    status = mmqi_json_open(&r.json, path, header, size);
    if (status == MMQ_OK)
        status = read_entries(&r);
    if (status == MMQ_OK)
        status = sort_entries(&r);
    if (status == MMQ_OK)
        status = check_layout(&r);
done:
    mmqi_json_close(r.json);
    mmqi_free(header);
    if (status != MMQ_OK)
        mmqi_safetensors_clear(out);
    return status;
}

void mmqi_safetensors_clear(struct mmqi_safetensors *st)
{
    mmqi_free(st->entries);
    mmqi_free(st->names);
    memset(st, 0, sizeof *st);
}

/* ---- writing ---- */

static bool name_before(const void *context, uint32_t a, uint32_t b)
{
    const struct mmqi_entry *const entries = context;

    return strcmp(entries[a].name, entries[b].name) < 0;
}

/* A file is not begun that mmqi_safetensors_parse() would refuse. */
static int32_t check_entry(const struct mmqi_entry *entry)
{
    const size_t size = strlen(entry->name);
    uint64_t bytes;
    int32_t i;

    if (size > MAX_NAME || !mmqi_utf8_valid(entry->name, size) ||
        strcmp(entry->name, METADATA) == 0)
        goto refuse;
    if (entry->rank < 0 || entry->rank > MMQI_MAX_RANK || mmqi_dtype_size(entry->dtype) == 0)
        goto refuse;
    for (i = 0; i < entry->rank; i++) {
        if (entry->shape[i] < 0 || entry->shape[i] > MAX_DIM)
            goto refuse;
    }
    if (mmqi_entry_size(entry, &bytes))
        return MMQ_OK;
refuse:
    return mmqi_fail(MMQ_ERR_INVALID,
                     "tensor '%.*s' has a name, dtype or shape that safetensors cannot hold",
                     mmqi_clip(entry->name, size), entry->name);
}

static int32_t check_names(const struct mmqi_entry *entries, size_t n)
{
    uint32_t *order = mmqi_alloc_array(n, sizeof *order);
    int32_t status = MMQ_OK;
    size_t i;

    if (!order)
        return mmqi_fail(MMQ_ERR_NOMEM, "no memory for the header of %zu tensors", n);
    for (i = 0; i < n; i++)
        order[i] = (uint32_t)i;
    mmqi_sort(order, n, name_before, entries);
    for (i = 1; i < n && status == MMQ_OK; i++) {
        const char *const name = entries[order[i]].name;

        if (strcmp(name, entries[order[i - 1]].name) == 0)
            status = mmqi_fail(MMQ_ERR_INVALID, "two tensors have the name '%.*s'",
                               mmqi_clip(name, strlen(name)), name);
    }
    mmqi_free(order);
    return status;
}

static int32_t check_metadata(const char *text)
{
    struct mmqi_json *json;
    int32_t status = mmqi_json_open(&json, METADATA, text, strlen(text));

    if (status != MMQ_OK)
        return status;
    status = read_metadata(json);
    if (status == MMQ_OK)
        status = expect(json, MMQI_JSON_END, "the end");
    mmqi_json_close(json);
    return status;
}

/* Sets entry->bytes, and entry->offset from the start of the data. */
static int32_t lay_out(struct mmqi_entry *entries, size_t n, uint64_t *data_size)
{
    uint64_t at = 0;
    size_t i;

    for (i = 0; i < n; i++) {
        const int32_t status = check_entry(&entries[i]);

        if (status != MMQ_OK)
            return status;
        mmqi_entry_size(&entries[i], &entries[i].bytes); /* not too large: check_entry() */
        entries[i].offset = at;
        if (!mmqi_add_u64(at, entries[i].bytes, &at) || at > INT64_MAX - MAX_HEADER - 8)
            return mmqi_fail(MMQ_ERR_INVALID, "the tensors have more bytes than a file can");
    }
    *data_size = at;
    return MMQ_OK;
}

static void put_tensor(struct mmqi_buf *buf, const struct mmqi_entry *entry)
{
    int32_t i;

    mmqi_buf_json_string(buf, entry->name, strlen(entry->name));
    mmqi_buf_format(buf, ":{\"dtype\":\"%s\",\"shape\":[", mmqi_dtype_name(entry->dtype));
    for (i = 0; i < entry->rank; i++)
        mmqi_buf_format(buf, "%s%" PRId64, i > 0 ? "," : "", entry->shape[i]);
    mmqi_buf_format(buf, "],\"data_offsets\":[%" PRIu64 ",%" PRIu64 "]}", entry->offset,
                    entry->offset + entry->bytes);
}

static void put_header(struct mmqi_buf *buf, const struct mmqi_entry *entries, size_t n,
                       const char *metadata_json)
{
    const char *comma = "";
    size_t i;

    mmqi_buf_append(buf, "\0\0\0\0\0\0\0\0", 8);
    mmqi_buf_text(buf, "{");
    if (metadata_json) {
        mmqi_buf_text(buf, "\"" METADATA "\":");
        mmqi_buf_text(buf, metadata_json);
        comma = ",";
    }
    for (i = 0; i < n; i++) {
        mmqi_buf_text(buf, comma);
        put_tensor(buf, &entries[i]);
        comma = ",";
    }
    mmqi_buf_text(buf, "}");
    while (buf->size % 8 != 0 && !mmqi_buf_failed(buf))
        mmqi_buf_append(buf, " ", 1);
}

int32_t mmqi_safetensors_header(char **header, size_t *header_size, uint64_t *file_size,
                                struct mmqi_entry *entries, size_t n, const char *metadata_json)
{
    struct mmqi_buf buf = {0};
    uint64_t data_size = 0;
    int32_t status;
    size_t i;

    *header = NULL;
    if (n > MAX_TENSORS)
        return mmqi_fail(MMQ_ERR_INVALID, "%zu tensors in one file, at most %d", n, MAX_TENSORS);
    status = lay_out(entries, n, &data_size);
    if (status == MMQ_OK)
        status = check_names(entries, n);
    if (status == MMQ_OK && metadata_json)
        status = check_metadata(metadata_json);
    if (status != MMQ_OK)
        return status;
    put_header(&buf, entries, n, metadata_json);
    if (mmqi_buf_failed(&buf)) {
        status = mmqi_fail(MMQ_ERR_NOMEM, "no memory for the header of %zu tensors", n);
        goto fail;
    }
    if (buf.size - 8 > MAX_HEADER) {
        status = mmqi_fail(MMQ_ERR_INVALID, "a header of %zu bytes, at most %d", buf.size - 8,
                           MAX_HEADER);
        goto fail;
    }
    for (i = 0; i < 8; i++)
        buf.data[i] = (char)((uint64_t)(buf.size - 8) >> 8 * i & 0xFF);
    for (i = 0; i < n; i++)
        entries[i].offset += buf.size;
    *header_size = buf.size;
    *file_size = buf.size + data_size;
    *header = mmqi_buf_take(&buf);
    return MMQ_OK;
fail:
    mmqi_buf_free(&buf);
    return status;
}
