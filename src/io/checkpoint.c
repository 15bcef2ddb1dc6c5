/*
 * The index of a checkpoint's tensors over its shards.
 *
 * One file ("model.safetensors") or many, which model.safetensors.index.json
 * names: {"weight_map": {"tensor": "shard file"}}. The map is read first and
 * believed nothing: each shard's own header tells where its tensors lie, and
 * the two must name the same tensors. What torch saved is the same under
 * other names; which container a shard is, its first bytes tell.
 */
#include "io/checkpoint.h"

#include <inttypes.h>
#include <stdatomic.h>
#include <string.h>

#include "core/dtype.h"
#include "core/mem.h"
#include "core/status.h"
#include "core/text.h"
#include "io/json.h"
#include "io/safetensors.h"
#include "io/torch.h"
#include "io/util.h"

enum { MAX_SHARDS = 1000, MAX_TENSORS = 1 << 20, MAX_INDEX = 100000000 };

bool mmqi_entry_size(const struct mmqi_entry *entry, uint64_t *bytes)
{
    uint64_t total = mmqi_dtype_size(entry->dtype);
    bool empty = false;

    for (int32_t i = 0; i < entry->rank; i++) {
        if (entry->shape[i] == 0)
            empty = true;
        else if (!mmqi_mul_u64(total, (uint64_t)entry->shape[i], &total))
            return false;
    }
    *bytes = empty ? 0 : total;
    return total <= INT64_MAX;
}

/* What a checkpoint may be called; the first that is there is taken. */
static const struct {
    const char *name;
    bool is_index;
} known_names[] = {
    {"model.safetensors", false}, {"model.safetensors.index.json", true},
    {"pytorch_model.bin", false}, {"pytorch_model.bin.index.json", true},
    {"pytorch_model.pt", false},  {"pytorch_model.pt.index.json", true},
    {"pytorch_model.pth", false}, {"pytorch_model.pth.index.json", true},
    {"model.pt", false},          {"model.pth", false},
};

struct shard {
    struct mmqi_file *file;
    struct mmqi_entry *entries; /* until they are moved to the checkpoint */
    size_t n_entries;
    char *names; /* of the entries; they stay */
};

struct mmqi_checkpoint {
    atomic_int refs;
    struct mmqi_store *store;
    struct shard *shards;
    int32_t n_shards;
    struct mmqi_entry *entries; /* by name */
    size_t n_entries;
};

/* What the index file says, while the checkpoint is opened. */
struct map_item {
    const char *tensor, *file;
    int32_t shard;
};

struct map {
    const char *name; /* of the index file */
    char *text;       /* the block that the items point into */
    size_t text_size;
    struct map_item *items;
    size_t n_items, capacity;
};

/* ---- the index file ---- */

static bool is_plain(const char *name, size_t size)
{
    return size > 0 && strlen(name) == size && !strpbrk(name, "/\\:") && strcmp(name, ".") != 0 &&
           strcmp(name, "..") != 0;
}

/* Copies the text in hand to the block, which is as large as the file that spells it. */
static const char *keep(struct map *map, const struct mmqi_json *json)
{
    const size_t size = mmqi_json_size(json);
    char *const text = map->text + map->text_size;

    memcpy(text, mmqi_json_text(json), size + 1);
    map->text_size += size + 1;
    return text;
}

/* The key in hand and the file name after it. */
static int32_t read_item(struct map *map, struct mmqi_json *json)
{
    const size_t capacity = map->capacity ? 2 * map->capacity : 256;
    enum mmqi_json_event event;
    struct map_item *items;
    const char *tensor;
    int32_t status;

    if (strlen(mmqi_json_text(json)) != mmqi_json_size(json))
        return mmqi_json_fail(json, MMQ_ERR_FORMAT, "a tensor's name with a zero byte in it");
    if (map->n_items == MAX_TENSORS)
        return mmqi_json_fail(json, MMQ_ERR_FORMAT, "more than %d tensors", MAX_TENSORS);
    if (map->n_items == map->capacity) {
        items = mmqi_realloc_array(map->items, capacity, sizeof *items);
        if (!items)
            return mmqi_json_fail(json, MMQ_ERR_NOMEM, "no memory for the list of tensors");
        map->items = items;
        map->capacity = capacity;
    }
    tensor = keep(map, json);
    status = mmqi_json_next(json, &event);
    if (status != MMQ_OK)
        return status;
    if (event != MMQI_JSON_STRING || !is_plain(mmqi_json_text(json), mmqi_json_size(json)))
        return mmqi_json_fail(json, MMQ_ERR_FORMAT,
                              "tensor '%.*s' needs the plain name of a file in the same folder",
                              mmqi_clip(tensor, strlen(tensor)), tensor);
    map->items[map->n_items++] = (struct map_item){tensor, keep(map, json), -1};
    return MMQ_OK;
}

static int32_t read_weight_map(struct map *map, struct mmqi_json *json)
{
    enum mmqi_json_event event;
    int32_t status = mmqi_json_next(json, &event);

    if (status == MMQ_OK && event != MMQI_JSON_OBJECT)
        return mmqi_json_fail(json, MMQ_ERR_FORMAT, "expected weight_map to be an object");
    while (status == MMQ_OK) {
        status = mmqi_json_next(json, &event);
        if (status != MMQ_OK || event == MMQI_JSON_OBJECT_END)
            break;
        status = read_item(map, json);
    }
    return status;
}

static int32_t read_members(struct map *map, struct mmqi_json *json)
{
    enum mmqi_json_event event;
    int32_t status = mmqi_json_next(json, &event);

    if (status == MMQ_OK && event != MMQI_JSON_OBJECT)
        return mmqi_json_fail(json, MMQ_ERR_FORMAT, "expected an object");
    while (status == MMQ_OK) {
        status = mmqi_json_next(json, &event);
        if (status != MMQ_OK || event == MMQI_JSON_OBJECT_END)
            break;
        if (mmqi_json_is(json, "weight_map"))
            status = read_weight_map(map, json);
        else
            status = mmqi_json_skip(json);
    }
    if (status != MMQ_OK)
        return status;
    status = mmqi_json_next(json, &event); /* nothing may follow */
    if (status == MMQ_OK && map->n_items == 0)
        status = mmqi_json_fail(json, MMQ_ERR_FORMAT, "the weight_map names no tensor");
    return status;
}

static int32_t read_map(struct map *map, struct mmqi_store *store)
{
    struct mmqi_json *json = NULL;
    char *text;
    size_t size;
    int32_t status;

    status = mmqi_file_read_all(&text, &size, store, map->name, MAX_INDEX);
    if (status != MMQ_OK)
        return status;
    map->text = mmqi_alloc(size + 1);
    if (!map->text) {
        status = mmqi_fail(MMQ_ERR_NOMEM, "%s: no memory for its %zu bytes", map->name, size);
        goto done;
    }
    status = mmqi_json_open(&json, map->name, text, size);
    if (status == MMQ_OK)
        status = read_members(map, json);
done:
    mmqi_json_close(json);
    mmqi_free(text);
    return status;
}

static void free_map(struct map *map)
{
    mmqi_free(map->text);
    mmqi_free(map->items);
}

/* ---- shards ---- */

/* Is `file` torch's? Safetensors have a '{' after eight bytes of length, where no zip archive has
 * one; what is neither goes by its name. */
static int32_t is_torch(bool *torch, struct mmqi_file *file)
{
    const char *name = mmqi_file_name(file);
    char head[9] = "";
    int32_t status = MMQ_OK;

    if (mmqi_file_size(file) >= sizeof head)
        status = mmqi_file_read_at(file, 0, head, sizeof head);
    *torch = head[8] != '{' && (memcmp(head, "PK\3\4", 4) == 0 || mmqi_ends_with(name, ".bin") ||
                                mmqi_ends_with(name, ".pt") || mmqi_ends_with(name, ".pth"));
    return status;
}

static int32_t parse_shard(struct shard *shard)
{
    struct mmqi_safetensors st = {0};
    struct mmqi_torch torch = {0};
    bool is;
    int32_t status = is_torch(&is, shard->file);

    if (status != MMQ_OK)
        return status;
    status = is ? mmqi_torch_parse(&torch, shard->file) : mmqi_safetensors_parse(&st, shard->file);
    shard->entries = is ? torch.entries : st.entries;
    shard->n_entries = is ? torch.n_entries : st.n_entries;
    shard->names = is ? torch.names : st.names;
    return status;
}

static int32_t open_shard(struct mmqi_checkpoint *checkpoint, const char *name)
{
    struct shard *const shard = &checkpoint->shards[checkpoint->n_shards++];
    int32_t status = mmqi_file_open(&shard->file, checkpoint->store, name);

    if (status == MMQ_OK)
        status = parse_shard(shard);
    if (status == MMQ_OK && shard->n_entries > MAX_TENSORS - checkpoint->n_entries)
        status = mmqi_fail(MMQ_ERR_FORMAT, "%s: with this shard there are more than %d tensors",
                           mmqi_file_path(shard->file), MAX_TENSORS);
    if (status == MMQ_OK)
        checkpoint->n_entries += shard->n_entries;
    return status;
}

static int32_t alloc_shards(struct mmqi_checkpoint *checkpoint, size_t n)
{
    checkpoint->shards = mmqi_calloc(n, sizeof *checkpoint->shards);
    if (!checkpoint->shards)
        return mmqi_fail(MMQ_ERR_NOMEM, "%s: no memory for %zu shards",
                         mmqi_store_name(checkpoint->store), n);
    return MMQ_OK;
}

static bool file_before(const void *context, uint32_t a, uint32_t b)
{
    const struct map_item *const items = context;
    const int way = strcmp(items[a].file, items[b].file);

    return way != 0 ? way < 0 : a < b;
}

static bool tensor_before(const void *context, uint32_t a, uint32_t b)
{
    const struct map_item *const items = context;

    return strcmp(items[a].tensor, items[b].tensor) < 0;
}

/* Number the files by name, and set `first` to one item of each. */
static int32_t number_shards(struct map *map, const uint32_t *order, uint32_t *first, size_t *n)
{
    size_t i;

    *n = 0;
    for (i = 0; i < map->n_items; i++) {
        struct map_item *const item = &map->items[order[i]];

        if (i == 0 || strcmp(item->file, map->items[order[i - 1]].file) != 0) {
            if (*n == MAX_SHARDS)
                return mmqi_fail(MMQ_ERR_FORMAT, "%s: names more than %d shards", map->name,
                                 MAX_SHARDS);
            first[(*n)++] = order[i];
        }
        item->shard = (int32_t)*n - 1;
    }
    return MMQ_OK;
}

/* Open every file that the map names, once; `order` is scratch for as many items as the map has. */
static int32_t open_shards(struct mmqi_checkpoint *checkpoint, struct map *map, uint32_t *order)
{
    uint32_t first[MAX_SHARDS];
    size_t i, n;
    int32_t status;

    for (i = 0; i < map->n_items; i++)
        order[i] = (uint32_t)i;
    mmqi_sort(order, map->n_items, file_before, map->items);
    status = number_shards(map, order, first, &n);
    if (status == MMQ_OK)
        status = alloc_shards(checkpoint, n);
    for (i = 0; i < n && status == MMQ_OK; i++)
        status = open_shard(checkpoint, map->items[first[i]].file);
    return status;
}

/* ---- entries ---- */

static bool name_before(const void *context, uint32_t a, uint32_t b)
{
    const struct mmqi_entry *const entries = context;
    const int way = strcmp(entries[a].name, entries[b].name);

    return way != 0 ? way < 0 : entries[a].shard < entries[b].shard;
}

/* Move the shards' entries into one list, in the order of the shards. */
static void gather(struct mmqi_checkpoint *checkpoint, struct mmqi_entry *list)
{
    int32_t shard;
    size_t i;

    for (shard = 0; shard < checkpoint->n_shards; shard++) {
        struct shard *const from = &checkpoint->shards[shard];

        for (i = 0; i < from->n_entries; i++) {
            *list = from->entries[i];
            list->shard = shard;
            list++;
        }
        mmqi_free(from->entries);
        from->entries = NULL;
    }
}

static int32_t fail_twice(const struct mmqi_checkpoint *checkpoint, const struct mmqi_entry *entry)
{
    return mmqi_fail(MMQ_ERR_FORMAT, "%s: tensor '%.*s' is in %s and %sin %s",
                     mmqi_store_name(checkpoint->store),
                     mmqi_clip(entry->name, strlen(entry->name)), entry->name,
                     mmqi_checkpoint_shard_name(checkpoint, entry[-1].shard),
                     entry->shard == entry[-1].shard ? "again " : "",
                     mmqi_checkpoint_shard_name(checkpoint, entry->shard));
}

/* The entries by name; each name may be there once. */
static int32_t order_entries(struct mmqi_checkpoint *checkpoint)
{
    const size_t n = checkpoint->n_entries;
    struct mmqi_entry *sorted = mmqi_alloc_array(n, sizeof *sorted);
    uint32_t *order = mmqi_alloc_array(n, sizeof *order);
    int32_t status = MMQ_OK;
    size_t i;

    if (!sorted || !order) {
        status = mmqi_fail(MMQ_ERR_NOMEM, "%s: no memory for the list of %zu tensors",
                           mmqi_store_name(checkpoint->store), n);
        goto done;
    }
    for (i = 0; i < n; i++)
        order[i] = (uint32_t)i;
    mmqi_sort(order, n, name_before, checkpoint->entries);
    for (i = 0; i < n && status == MMQ_OK; i++) {
        sorted[i] = checkpoint->entries[order[i]];
        if (i > 0 && strcmp(sorted[i].name, sorted[i - 1].name) == 0)
            status = fail_twice(checkpoint, &sorted[i]);
    }
    if (status != MMQ_OK)
        goto done;
    mmqi_free(checkpoint->entries);
    checkpoint->entries = sorted;
    sorted = NULL;
done:
    mmqi_free(sorted);
    mmqi_free(order);
    return status;
}

static int32_t sort_entries(struct mmqi_checkpoint *checkpoint)
{
    checkpoint->entries = mmqi_alloc_array(checkpoint->n_entries, sizeof *checkpoint->entries);
    if (!checkpoint->entries)
        return mmqi_fail(MMQ_ERR_NOMEM, "%s: no memory for the list of %zu tensors",
                         mmqi_store_name(checkpoint->store), checkpoint->n_entries);
    gather(checkpoint, checkpoint->entries);
    return order_entries(checkpoint);
}

static int32_t fail_map(const struct mmqi_checkpoint *checkpoint, const struct map *map,
                        const char *tensor, int32_t shard, const char *fault)
{
    return mmqi_fail(MMQ_ERR_FORMAT, "%s: tensor '%.*s' %s %s", map->name,
                     mmqi_clip(tensor, strlen(tensor)), tensor, fault,
                     mmqi_checkpoint_shard_name(checkpoint, shard));
}

/* Both lists by name, side by side: the first that differs is the fault. */
static int32_t check_map(const struct mmqi_checkpoint *checkpoint, const struct map *map,
                         uint32_t *order)
{
    size_t i = 0, j = 0;

    for (; i < map->n_items; i++)
        order[i] = (uint32_t)i;
    mmqi_sort(order, map->n_items, tensor_before, map->items);
    for (i = 0; i < map->n_items || j < checkpoint->n_entries; i++, j++) {
        const struct map_item *item = i < map->n_items ? &map->items[order[i]] : NULL;
        const struct mmqi_entry *entry = j < checkpoint->n_entries ? &checkpoint->entries[j] : NULL;
        const int way = !item ? 1 : !entry ? -1 : strcmp(item->tensor, entry->name);

        if (way < 0)
            return fail_map(checkpoint, map, item->tensor, item->shard,
                            "is mapped to, but not in,");
        if (way > 0)
            return fail_map(checkpoint, map, entry->name, entry->shard, "is not mapped, but in");
        if (item->shard != entry->shard)
            return fail_map(checkpoint, map, item->tensor, item->shard,
                            "is mapped to, but not in,");
    }
    return MMQ_OK;
}

/* ---- opening ---- */

static int32_t open_single(struct mmqi_checkpoint *checkpoint, const char *name)
{
    int32_t status = alloc_shards(checkpoint, 1);

    if (status == MMQ_OK)
        status = open_shard(checkpoint, name);
    return status == MMQ_OK ? sort_entries(checkpoint) : status;
}

static int32_t open_sharded(struct mmqi_checkpoint *checkpoint, const char *name)
{
    struct map map = {.name = name};
    uint32_t *order = NULL;
    int32_t status = read_map(&map, checkpoint->store);

    if (status != MMQ_OK)
        goto done;
    order = mmqi_alloc_array(map.n_items, sizeof *order);
    if (!order) {
        status = mmqi_fail(MMQ_ERR_NOMEM, "%s: no memory for its %zu tensors", name, map.n_items);
        goto done;
    }
    status = open_shards(checkpoint, &map, order);
    if (status == MMQ_OK)
        status = sort_entries(checkpoint);
    if (status == MMQ_OK)
        status = check_map(checkpoint, &map, order);
done:
    mmqi_free(order);
    free_map(&map);
    return status;
}

/* One file of tensors, or an index of several. */
static int32_t open_files(struct mmqi_checkpoint *checkpoint)
{
    struct mmqi_store *store = checkpoint->store;
    bool exists = false;
    int32_t status;
    size_t i;

    for (i = 0; i < sizeof known_names / sizeof known_names[0]; i++) {
        const char *name = known_names[i].name;

        status = mmqi_file_exists(&exists, store, name);
        if (status != MMQ_OK)
            return status;
        if (exists)
            return known_names[i].is_index ? open_sharded(checkpoint, name)
                                           : open_single(checkpoint, name);
    }
    return mmqi_fail(MMQ_ERR_NOT_FOUND,
                     "%s: holds neither model.safetensors nor pytorch_model.bin, whole or with an "
                     "index of shards",
                     mmqi_store_name(store));
}

int32_t mmqi_checkpoint_open(struct mmqi_checkpoint **out, struct mmqi_store *store)
{
    struct mmqi_checkpoint *checkpoint;
    int32_t status;

    *out = NULL;
    checkpoint = mmqi_calloc(1, sizeof *checkpoint);
    if (!checkpoint)
        return mmqi_fail(MMQ_ERR_NOMEM, "%s: no memory to open it", mmqi_store_name(store));
    atomic_init(&checkpoint->refs, 1);
    checkpoint->store = store;
    mmqi_store_retain(store);
    status = open_files(checkpoint);
    if (status == MMQ_OK)
        *out = checkpoint;
    else
        mmqi_checkpoint_release(checkpoint);
    return status;
}

/* ---- joining ---- */

/* Does a name begin with `from`, and how long will it be with `to` instead? */
static bool measure_name(const char *name, const char *from, const char *to, size_t *size)
{
    if (!mmqi_starts_with(name, from))
        return false;
    *size += strlen(name) - strlen(from) + strlen(to) + 1;
    return true;
}

/* Room in both lists of `checkpoint` for the shards and entries of another one. */
static int32_t make_room(struct mmqi_checkpoint *checkpoint, int32_t n_shards, size_t n_entries)
{
    const size_t shards = (size_t)(checkpoint->n_shards + n_shards);
    const size_t entries = checkpoint->n_entries + n_entries;
    struct shard *more_shards;
    struct mmqi_entry *more_entries;

    if (entries > MAX_TENSORS || shards > MAX_SHARDS)
        return mmqi_fail(MMQ_ERR_FORMAT, "%s: more than %d tensors or %d shards, joined",
                         mmqi_store_name(checkpoint->store), MAX_TENSORS, MAX_SHARDS);
    more_shards = mmqi_realloc_array(checkpoint->shards, shards, sizeof *more_shards);
    if (more_shards)
        checkpoint->shards = more_shards;
    more_entries = mmqi_realloc_array(checkpoint->entries, entries, sizeof *more_entries);
    if (more_entries)
        checkpoint->entries = more_entries;
    if (!more_shards || !more_entries)
        return mmqi_fail(MMQ_ERR_NOMEM, "%s: no memory for the list of %zu tensors",
                         mmqi_store_name(checkpoint->store), entries);
    return MMQ_OK;
}

/* The entries of `other` that begin with `from`, by their new names, which `names` holds. */
static void take_entries(struct mmqi_checkpoint *checkpoint, const struct mmqi_checkpoint *other,
                         const char *from, const char *to, char *names)
{
    size_t i, size;

    for (i = 0; i < other->n_entries; i++) {
        struct mmqi_entry entry = other->entries[i];

        size = 0;
        if (!measure_name(entry.name, from, to, &size))
            continue;
        memcpy(names, to, strlen(to));
        strcpy(names + strlen(to), entry.name + strlen(from));
        entry.name = names;
        entry.shard += checkpoint->n_shards;
        checkpoint->entries[checkpoint->n_entries++] = entry;
        names += size;
    }
}

/* The shards of `other` become those of `checkpoint`; `names` goes with the first. */
static void take_shards(struct mmqi_checkpoint *checkpoint, struct mmqi_checkpoint *other,
                        char *names)
{
    int32_t i;

    for (i = 0; i < other->n_shards; i++) {
        mmqi_free(other->shards[i].names);
        other->shards[i].names = i == 0 ? names : NULL;
        checkpoint->shards[checkpoint->n_shards++] = other->shards[i];
    }
    other->n_shards = 0;
}

static int32_t join(struct mmqi_checkpoint *checkpoint, struct mmqi_checkpoint *other,
                    const char *from, const char *to)
{
    size_t names_size = 0, n = 0, i;
    char *names;
    int32_t status;

    for (i = 0; i < other->n_entries; i++)
        n += measure_name(other->entries[i].name, from, to, &names_size);
    status = make_room(checkpoint, other->n_shards, n);
    if (status != MMQ_OK)
        return status;
    names = mmqi_alloc(names_size);
    if (!names)
        return mmqi_fail(MMQ_ERR_NOMEM, "%s: no memory for the names of %zu tensors",
                         mmqi_store_name(checkpoint->store), n);
    take_entries(checkpoint, other, from, to, names);
    take_shards(checkpoint, other, names);
    return order_entries(checkpoint);
}

int32_t mmqi_checkpoint_join(struct mmqi_checkpoint *checkpoint, struct mmqi_store *store,
                             const char *from, const char *to)
{
    struct mmqi_checkpoint *other;
    int32_t status = mmqi_checkpoint_open(&other, store);

    if (status == MMQ_OK)
        status = join(checkpoint, other, from, to);
    mmqi_checkpoint_release(other);
    return status;
}

void mmqi_checkpoint_retain(struct mmqi_checkpoint *checkpoint)
{
    atomic_fetch_add_explicit(&checkpoint->refs, 1, memory_order_relaxed);
}

void mmqi_checkpoint_release(struct mmqi_checkpoint *checkpoint)
{
    int32_t i;

    if (!checkpoint || atomic_fetch_sub_explicit(&checkpoint->refs, 1, memory_order_acq_rel) != 1)
        return;
    for (i = 0; i < checkpoint->n_shards; i++) {
        mmqi_free(checkpoint->shards[i].entries);
        mmqi_free(checkpoint->shards[i].names);
        mmqi_file_close(checkpoint->shards[i].file);
    }
    mmqi_free(checkpoint->shards);
    mmqi_free(checkpoint->entries);
    mmqi_store_release(checkpoint->store);
    mmqi_free(checkpoint);
}

/* ---- asking ---- */

size_t mmqi_checkpoint_count(const struct mmqi_checkpoint *checkpoint)
{
    return checkpoint->n_entries;
}

const struct mmqi_entry *mmqi_checkpoint_entry(const struct mmqi_checkpoint *checkpoint,
                                               size_t index)
{
    return index < checkpoint->n_entries ? &checkpoint->entries[index] : NULL;
}

const struct mmqi_entry *mmqi_checkpoint_find(const struct mmqi_checkpoint *checkpoint,
                                              const char *name)
{
    size_t begin = 0, end = checkpoint->n_entries;

    while (begin < end) {
        const size_t middle = begin + (end - begin) / 2;
        const int way = strcmp(name, checkpoint->entries[middle].name);

        if (way == 0)
            return &checkpoint->entries[middle];
        if (way < 0)
            end = middle;
        else
            begin = middle + 1;
    }
    return NULL;
}

const char *mmqi_checkpoint_shard_name(const struct mmqi_checkpoint *checkpoint, int32_t shard)
{
    return mmqi_file_name(checkpoint->shards[shard].file);
}

int32_t mmqi_checkpoint_read(const struct mmqi_checkpoint *checkpoint,
                             const struct mmqi_entry *entry, uint64_t begin, void *dst, size_t size)
{
    /* begin + size may wrap; entry->bytes - begin, checked first, cannot. */
    if (begin > entry->bytes || size > entry->bytes - begin)
        return mmqi_fail(
            MMQ_ERR_INVALID, "tensor '%.*s': asked for bytes %" PRIu64 "..+%zu of %" PRIu64,
            mmqi_clip(entry->name, strlen(entry->name)), entry->name, begin, size, entry->bytes);
    return mmqi_file_read_at(checkpoint->shards[entry->shard].file, entry->offset + begin, dst,
                             size);
}
