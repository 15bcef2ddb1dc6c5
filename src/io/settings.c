/*
 * Settings: the events of a JSON file laid out as sorted entries.
 *
 * All text (paths, strings, numbers as spelled) lies in one block; entries
 * hold offsets into it, since it moves while it grows.
 */
#include "io/settings.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "core/buf.h"
#include "core/mem.h"
#include "core/status.h"
#include "io/json.h"
#include "io/util.h"

enum { MAX_ENTRIES = 65536, MAX_TEXT = 1 << 20, MAX_KEPT = 4 << 20, MAX_ASKED = 256 };

struct entry {
    size_t path, text; /* offsets into the block */
    size_t text_size;
    enum mmqi_json_event kind; /* OBJECT, ARRAY or a scalar's */
    bool integer;              /* a number that `whole` holds */
    int64_t whole;
    double number;
    int64_t count; /* of an array's items */
};

struct mmqi_settings {
    char *name;
    struct mmqi_buf block;
    struct entry *entries; /* in the order of the file, the root first */
    size_t n_entries, capacity;
    uint32_t *order; /* entries by path, without the root */
    size_t n_paths;
};

/* An open container while the file is read. */
struct level {
    size_t entry;
    size_t path_size; /* of the container's own path */
};

struct reading {
    struct mmqi_settings *settings;
    struct mmqi_json *json;
    struct mmqi_buf path; /* of the value in hand */
    struct level levels[MMQI_JSON_DEPTH];
};

/* ---- reading ---- */

static int32_t keep(struct reading *r, const char *text, size_t size, size_t *offset)
{
    struct mmqi_buf *const block = &r->settings->block;

    if (size >= MAX_KEPT - block->size)
        return mmqi_json_fail(r->json, MMQ_ERR_FORMAT, "more than %d bytes of paths and strings",
                              MAX_KEPT);
    *offset = block->size;
    mmqi_buf_append(block, text, size);
    mmqi_buf_append(block, "", 1);
    if (mmqi_buf_failed(block))
        return mmqi_json_fail(r->json, MMQ_ERR_NOMEM, "no memory for the settings");
    return MMQ_OK;
}

static int32_t add_entry(struct reading *r, struct entry **out)
{
    struct mmqi_settings *const settings = r->settings;
    const size_t capacity = settings->capacity ? 2 * settings->capacity : 64;
    struct entry *entries;

    if (settings->n_entries == MAX_ENTRIES)
        return mmqi_json_fail(r->json, MMQ_ERR_FORMAT, "more than %d settings", MAX_ENTRIES);
    if (settings->n_entries == settings->capacity) {
        entries = mmqi_realloc_array(settings->entries, capacity, sizeof *entries);
        if (!entries)
            return mmqi_json_fail(r->json, MMQ_ERR_NOMEM, "no memory for the settings");
        settings->entries = entries;
        settings->capacity = capacity;
    }
    *out = &settings->entries[settings->n_entries++];
    memset(*out, 0, sizeof **out);
    return MMQ_OK;
}

/* The path of the next value: the container's, '.', and the key or the index. */
static int32_t set_path(struct reading *r, const struct level *level, const char *key, size_t size)
{
    r->path.size = level->path_size;
    if (level->path_size > 0)
        mmqi_buf_append(&r->path, ".", 1);
    mmqi_buf_append(&r->path, key, size);
    if (mmqi_buf_failed(&r->path))
        return mmqi_json_fail(r->json, MMQ_ERR_NOMEM, "no memory for the settings");
    return MMQ_OK;
}

static int32_t take_key(struct reading *r, const struct level *level)
{
    const char *const key = mmqi_json_text(r->json);
    const size_t size = mmqi_json_size(r->json);

    if (strlen(key) != size)
        return mmqi_json_fail(r->json, MMQ_ERR_FORMAT, "a key with a zero byte in it");
    return set_path(r, level, key, size);
}

static int32_t take_index(struct reading *r, const struct level *level)
{
    char digits[24], *p = digits + sizeof digits;
    int64_t n = r->settings->entries[level->entry].count++;

    do {
        *--p = (char)('0' + n % 10);
        n /= 10;
    } while (n > 0);
    return set_path(r, level, p, (size_t)(digits + sizeof digits - p));
}

/* The value in hand, at the path in hand. */
static int32_t take_value(struct reading *r, enum mmqi_json_event event)
{
    struct entry *entry = NULL;
    int32_t status = add_entry(r, &entry);

    if (status != MMQ_OK)
        return status;
    entry->kind = event;
    entry->number = mmqi_json_number(r->json);
    status = keep(r, r->path.data ? r->path.data : "", r->path.size, &entry->path);
    if (status == MMQ_OK && (event == MMQI_JSON_STRING || event == MMQI_JSON_NUMBER)) {
        entry->text_size = mmqi_json_size(r->json);
        status = keep(r, mmqi_json_text(r->json), entry->text_size, &entry->text);
    }
    if (event == MMQI_JSON_NUMBER)
        entry->integer = mmqi_parse_integer(mmqi_json_text(r->json), &entry->whole);
    if (event == MMQI_JSON_OBJECT || event == MMQI_JSON_ARRAY)
        r->levels[mmqi_json_depth(r->json) - 1] =
            (struct level){r->settings->n_entries - 1, r->path.size};
    return status;
}

static int32_t take_event(struct reading *r, enum mmqi_json_event event)
{
    const bool opens = event == MMQI_JSON_OBJECT || event == MMQI_JSON_ARRAY;
    const int32_t depth = mmqi_json_depth(r->json) - opens; /* of what the value lies in */
    const struct level *const level = depth > 0 ? &r->levels[depth - 1] : NULL;
    int32_t status = MMQ_OK;

    if (!level && event != MMQI_JSON_OBJECT)
        return event == MMQI_JSON_OBJECT_END
                   ? MMQ_OK
                   : mmqi_json_fail(r->json, MMQ_ERR_FORMAT, "expected an object");
    if (event == MMQI_JSON_OBJECT_END || event == MMQI_JSON_ARRAY_END)
        return MMQ_OK;
    if (event == MMQI_JSON_KEY)
        return take_key(r, level);
    if (level && r->settings->entries[level->entry].kind == MMQI_JSON_ARRAY)
        status = take_index(r, level);
    return status == MMQ_OK ? take_value(r, event) : status;
}

static const char *path_of(const struct mmqi_settings *settings, uint32_t index)
{
    return settings->block.data + settings->entries[index].path;
}

static bool path_before(const void *context, uint32_t a, uint32_t b)
{
    return strcmp(path_of(context, a), path_of(context, b)) < 0;
}

/* All but the root, which has no path. {"a": {"b": 1}, "a.b": 2} is fair JSON, but no list of
 * paths. */
static int32_t sort_entries(struct mmqi_settings *settings)
{
    const size_t n = settings->n_entries - 1;
    size_t i;

    settings->order = mmqi_alloc_array(n, sizeof *settings->order);
    if (!settings->order)
        return mmqi_fail(MMQ_ERR_NOMEM, "%s: no memory for the settings", settings->name);
    settings->n_paths = n;
    for (i = 0; i < n; i++)
        settings->order[i] = (uint32_t)i + 1;
    mmqi_sort(settings->order, n, path_before, settings);
    for (i = 1; i < n; i++) {
        const char *const path = path_of(settings, settings->order[i]);

        if (strcmp(path, path_of(settings, settings->order[i - 1])) == 0)
            return mmqi_fail(MMQ_ERR_FORMAT, "%s: two values have the path '%.*s'", settings->name,
                             mmqi_clip(path, strlen(path)), path);
    }
    return MMQ_OK;
}

int32_t mmqi_settings_parse(struct mmqi_settings **out, const char *name, const char *text,
                            size_t size)
{
    struct reading r = {0};
    enum mmqi_json_event event = MMQI_JSON_NULL;
    int32_t status;

    *out = NULL;
    if (size > MAX_TEXT)
        return mmqi_fail(MMQ_ERR_FORMAT, "%s: has %zu bytes, at most %d are read", name, size,
                         MAX_TEXT);
    r.settings = mmqi_calloc(1, sizeof *r.settings);
    if (r.settings)
        r.settings->name = mmqi_strdup(name);
    if (!r.settings || !r.settings->name) {
        mmqi_settings_free(r.settings);
        return mmqi_fail(MMQ_ERR_NOMEM, "%s: no memory for the settings", name);
    }
    status = mmqi_json_open(&r.json, name, text, size);
    if (status == MMQ_OK)
        status = mmqi_json_next(r.json, &event);
    while (status == MMQ_OK && event != MMQI_JSON_END) {
        status = take_event(&r, event);
        if (status == MMQ_OK)
            status = mmqi_json_next(r.json, &event);
    }
    mmqi_json_close(r.json);
    mmqi_buf_free(&r.path);
    if (status == MMQ_OK)
        status = sort_entries(r.settings);
    if (status != MMQ_OK)
        mmqi_settings_free(r.settings);
    else
        *out = r.settings;
    return status;
}

void mmqi_settings_free(struct mmqi_settings *settings)
{
    if (!settings)
        return;
    mmqi_free(settings->name);
    mmqi_buf_free(&settings->block);
    mmqi_free(settings->entries);
    mmqi_free(settings->order);
    mmqi_free(settings);
}

const char *mmqi_settings_name(const struct mmqi_settings *settings)
{
    return settings ? settings->name : "";
}

/* ---- asking ---- */

static const struct entry *find_any(const struct mmqi_settings *settings, const char *path)
{
    size_t begin = 0, end = settings ? settings->n_paths : 0;

    while (begin < end) {
        const size_t middle = begin + (end - begin) / 2;
        const uint32_t index = settings->order[middle];
        const int way = strcmp(path, path_of(settings, index));

        if (way == 0)
            return &settings->entries[index];
        if (way < 0)
            end = middle;
        else
            begin = middle + 1;
    }
    return NULL;
}

/* NULL where the path is absent or null. */
static const struct entry *find(const struct mmqi_settings *settings, const char *path)
{
    const struct entry *const entry = find_any(settings, path);

    return entry && entry->kind != MMQI_JSON_NULL ? entry : NULL;
}

static int32_t fail_value(const struct mmqi_settings *settings, const struct entry *entry,
                          const char *expected)
{
    static const char *const kinds[] = {
        [MMQI_JSON_OBJECT] = "an object",   [MMQI_JSON_ARRAY] = "an array",
        [MMQI_JSON_STRING] = "the string ", [MMQI_JSON_NUMBER] = "",
        [MMQI_JSON_TRUE] = "true",          [MMQI_JSON_FALSE] = "false",
    };
    const char *const path = settings->block.data + entry->path;
    const char *const text = settings->block.data + entry->text;
    const char *const quote = entry->kind == MMQI_JSON_STRING ? "\"" : "";

    return mmqi_fail(MMQ_ERR_FORMAT, "%s: '%.*s' is %s%s%.*s%s, expected %s", settings->name,
                     mmqi_clip(path, strlen(path)), path, kinds[entry->kind], quote,
                     mmqi_clip(text, entry->text_size), text, quote, expected);
}

/* MMQ_OK for a path that is absent, unless what should hold it is there and cannot: a number in the
 * place of an object would else mean every default. */
static int32_t check_absent(const struct mmqi_settings *settings, const char *path)
{
    char parent[MAX_ASKED];
    int32_t status = MMQ_OK;

    for (const char *dot = strchr(path, '.'); dot && status == MMQ_OK; dot = strchr(dot + 1, '.')) {
        const bool item = dot[1] >= '0' && dot[1] <= '9';
        const size_t size = (size_t)(dot - path);
        const struct entry *entry;

        if (size >= sizeof parent)
            break;
        memcpy(parent, path, size);
        parent[size] = '\0';
        entry = find(settings, parent);
        if (entry && entry->kind != (item ? MMQI_JSON_ARRAY : MMQI_JSON_OBJECT))
            status = fail_value(settings, entry, item ? "an array" : "an object");
    }
    return status;
}

bool mmqi_settings_has(const struct mmqi_settings *settings, const char *path)
{
    return find(settings, path) != NULL;
}

bool mmqi_settings_is_null(const struct mmqi_settings *settings, const char *path)
{
    const struct entry *const entry = find_any(settings, path);

    return entry && entry->kind == MMQI_JSON_NULL;
}

int32_t mmqi_settings_int(const struct mmqi_settings *settings, const char *path, int64_t min,
                          int64_t max, int64_t *value)
{
    const struct entry *const entry = find(settings, path);
    char expected[96];

    if (!entry)
        return check_absent(settings, path);
    if (!entry->integer || entry->whole < min || entry->whole > max) {
        snprintf(expected, sizeof expected, "an integer from %" PRId64 " to %" PRId64, min, max);
        return fail_value(settings, entry, expected);
    }
    *value = entry->whole;
    return MMQ_OK;
}

int32_t mmqi_settings_number(const struct mmqi_settings *settings, const char *path, double min,
                             double max, double *value)
{
    const struct entry *const entry = find(settings, path);
    struct mmqi_buf expected = {0};
    int32_t status;

    if (!entry)
        return check_absent(settings, path);
    if (entry->kind == MMQI_JSON_NUMBER && entry->number >= min && entry->number <= max) {
        *value = entry->number;
        return MMQ_OK;
    }
    mmqi_buf_text(&expected, "a number from ");
    mmqi_buf_number(&expected, min);
    mmqi_buf_text(&expected, " to ");
    mmqi_buf_number(&expected, max);
    status = fail_value(settings, entry, mmqi_buf_failed(&expected) ? "a number" : expected.data);
    mmqi_buf_free(&expected);
    return status;
}

int32_t mmqi_settings_bool(const struct mmqi_settings *settings, const char *path, bool *value)
{
    const struct entry *const entry = find(settings, path);

    if (!entry)
        return check_absent(settings, path);
    if (entry->kind != MMQI_JSON_TRUE && entry->kind != MMQI_JSON_FALSE)
        return fail_value(settings, entry, "true or false");
    *value = entry->kind == MMQI_JSON_TRUE;
    return MMQ_OK;
}

int32_t mmqi_settings_string(const struct mmqi_settings *settings, const char *path,
                             const char **value)
{
    const struct entry *const entry = find(settings, path);

    if (!entry)
        return check_absent(settings, path);
    if (entry->kind != MMQI_JSON_STRING)
        return fail_value(settings, entry, "a string");
    if (strlen(settings->block.data + entry->text) != entry->text_size)
        return fail_value(settings, entry, "a string without zero bytes");
    *value = settings->block.data + entry->text;
    return MMQ_OK;
}

int64_t mmqi_settings_count(const struct mmqi_settings *settings, const char *path)
{
    const struct entry *const entry = find(settings, path);

    return entry && entry->kind == MMQI_JSON_ARRAY ? entry->count : -1;
}
