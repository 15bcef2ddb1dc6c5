#include "runtime/host.h"

#include <stdio.h>
#include <string.h>

#include "backend/host.h"
#include "core/buf.h"
#include "core/mem.h"
#include "core/status.h"

/* The runtime's threads, or some of our own. */
static int32_t find_pool(struct mmqi_host *host, const struct mmqi_host_options *options)
{
    int32_t n;

    if (!options->runtime)
        return mmqi_pool_create(&host->pool, options->n_threads);
    n = mmqi_pool_threads(options->runtime->pool);
    if (options->n_threads != 0 && options->n_threads != n)
        return mmqi_fail(MMQ_ERR_INVALID, "device: %d threads; its runtime has %d",
                         (int)options->n_threads, (int)n);
    host->runtime = mmqi_runtime_retain(options->runtime);
    host->pool = host->runtime->pool;
    return MMQ_OK;
}

enum { MAX_BACKENDS = 8 };

static int32_t open_cuda(struct mmqi_host *host)
{
    const char *path = host->runtime ? host->runtime->cuda_library : NULL;
    int32_t status, n;

    if (path && *path == '\0')
        return mmqi_fail(MMQ_ERR_NO_DEVICE, "cuda: the runtime's options leave it out");
    status = host->cuda.backend ? MMQ_OK : mmqi_loader_open(&host->cuda, "cuda", path);
    if (status == MMQ_OK)
        status = host->cuda.backend->count(&mmqi_backend_host, &n);
    return status;
}

/* The message with the device's name before it. */
static int32_t name_device(int32_t status, const char *device)
{
    char reason[MMQI_MESSAGE_BYTES];

    snprintf(reason, sizeof reason, "%s", mmqi_message());
    return mmqi_fail(status, "device '%s': %s", device, reason);
}

/* The backend of the device's name, and the index there. */
static int32_t find_backend(struct mmqi_host *host, const struct mmqi_backend **out, int32_t *index,
                            const struct mmqi_backend *const *backends, const char *device)
{
    const struct mmqi_backend *list[MAX_BACKENDS + 1] = {NULL};
    bool any = !device || strcmp(device, "auto") == 0;
    int32_t status = MMQ_OK, n = 0;

    if (any || strncmp(device, "cuda", 4) == 0) {
        status = open_cuda(host);
        if (status != MMQ_OK && !any)
            return name_device(status, device);
        if (status != MMQ_OK)
            mmqi_log(mmqi_host_log(host), MMQ_LOG_INFO, "auto: not on CUDA: %s", mmqi_message());
        else
            list[n++] = host->cuda.backend;
    }
    for (; *backends && n < MAX_BACKENDS; backends++)
        list[n++] = *backends;
    return mmqi_registry_find(out, index, list, device);
}

/* ---- places ---- */

int32_t mmqi_host_find_place(const struct mmqi_host *host, const char *device)
{
    size_t size = strlen(device);

    for (int32_t i = 0; i < host->n_places; i++) {
        const char *name = host->place[i].name, *rest = name + size;

        if (strncmp(name, device, size) == 0 && (*rest == '\0' || strcmp(rest, ":0") == 0))
            return i;
    }
    return -1;
}

static void name_place(char name[MMQI_DEVICE_NAME_BYTES], const struct mmqi_backend *backend,
                       int32_t index)
{
    if (backend->host_memory)
        snprintf(name, MMQI_DEVICE_NAME_BYTES, "%.20s", backend->name);
    else
        snprintf(name, MMQI_DEVICE_NAME_BYTES, "%.16s:%d", backend->name, (int)index);
}

/* Open the device of a name, unless it is open; *at is its place. */
static int32_t open_place(struct mmqi_host *host, int32_t *at,
                          const struct mmqi_backend *const *backends,
                          const struct mmqi_host_options *options, const char *device)
{
    struct mmqi_device_options how = {
        .host = &mmqi_backend_host, .pool = host->pool, .log = mmqi_host_log(host)};
    struct mmqi_host_place place = {.limit = options->limit ? options->limit : UINT64_MAX};
    int32_t status = find_backend(host, &place.at.backend, &how.index, backends, device);

    if (status == MMQ_OK)
        status = mmqi_isa_find(&how.isa, options->isa);
    if (status != MMQ_OK)
        return status;
    name_place(place.name, place.at.backend, how.index);
    *at = mmqi_host_find_place(host, place.name);
    if (*at >= 0)
        return MMQ_OK;
    if (host->n_places == MMQI_MAX_PLACES)
        return mmqi_fail(MMQ_ERR_LIMIT, "device '%s': a model is on %d devices at most", place.name,
                         MMQI_MAX_PLACES);
    status = place.at.backend->open(&place.at.device, &how);
    if (status != MMQ_OK)
        return status;
    *at = host->n_places;
    host->place[host->n_places++] = place;
    return MMQ_OK;
}

/* ---- device maps ---- */

static int32_t open_rule(struct mmqi_host *host, size_t r,
                         const struct mmqi_backend *const *backends,
                         const struct mmqi_host_options *options)
{
    const struct mmqi_rule *rule = &host->map.rule[r];
    char device[MMQI_DEVICE_NAME_BYTES];

    if (rule->extra.size > 0)
        return mmqi_rule_fail(MMQ_ERR_INVALID, &rule->extra, "'%.*s' after the device",
                              (int)rule->extra.size, rule->extra.text);
    if (rule->target.size >= sizeof device)
        return mmqi_rule_fail(MMQ_ERR_NO_DEVICE, &rule->target, "'%.*s' is no device",
                              (int)rule->target.size, rule->target.text);
    memcpy(device, rule->target.text, rule->target.size);
    device[rule->target.size] = '\0';
    return open_place(host, &host->map_places[r], backends, options, device);
}

static int32_t open_map(struct mmqi_host *host, const struct mmqi_backend *const *backends,
                        const struct mmqi_host_options *options)
{
    static const struct mmqi_rules_kind kind = {"device map", "a device", "DEVICE"};
    int32_t status;

    host->map_text = mmqi_strdup(options->device);
    if (!host->map_text)
        return mmqi_fail(MMQ_ERR_NOMEM, "device map: no memory for it");
    status = mmqi_rules_parse(&host->map, host->map_text, &kind);
    if (status != MMQ_OK)
        return status;
    host->map_places = mmqi_calloc(host->map.n, sizeof *host->map_places);
    if (!host->map_places)
        return mmqi_fail(MMQ_ERR_NOMEM, "device map: no memory for %zu rules", host->map.n);
    for (size_t r = 0; r < host->map.n && status == MMQ_OK; r++)
        status = open_rule(host, r, backends, options);
    if (status == MMQ_OK && options->limit && host->n_places > 1)
        status = mmqi_fail(MMQ_ERR_INVALID,
                           "device map: one memory limit for %d devices; limits by device are "
                           "rules, 'cuda:0 = 8GiB'",
                           (int)host->n_places);
    return status;
}

int32_t mmqi_host_split(const struct mmqi_host *host, struct mmqi_model *model)
{
    if (!host->map_text)
        return MMQ_OK;
    return mmqi_model_split(model, &host->map, host->map_places, host->n_places);
}

/* ---- limits ---- */

/* "8GiB", "500MiB", "1024": at least 1. */
static bool read_bytes(uint64_t *bytes, const struct mmqi_rule_word *word)
{
    static const char *const units[] = {"", "KiB", "MiB", "GiB", "TiB"};
    uint64_t value = 0;
    size_t n = 0;

    for (; n < word->size && word->text[n] >= '0' && word->text[n] <= '9'; n++)
        if (!mmqi_mul_u64(value, 10, &value) ||
            !mmqi_add_u64(value, (uint64_t)(word->text[n] - '0'), &value))
            return false;
    for (size_t i = 0; i < sizeof units / sizeof *units; i++)
        if (strlen(units[i]) == word->size - n &&
            memcmp(units[i], word->text + n, word->size - n) == 0)
            return mmqi_mul_u64(value, UINT64_C(1) << 10 * i, bytes) && *bytes > 0;
    return false;
}

static int32_t limit_places(struct mmqi_host *host, const struct mmqi_rule *rule)
{
    uint64_t bytes = 0;
    bool found = false;

    if (rule->extra.size > 0 || rule->pattern.size == 0 || !read_bytes(&bytes, &rule->target))
        return mmqi_rule_fail(MMQ_ERR_INVALID, &rule->target,
                              "'%.*s': a limit is 'DEVICE = BYTES', the bytes a whole number with "
                              "KiB, MiB, GiB or TiB, or none of them",
                              (int)rule->target.size, rule->target.text);
    for (int32_t i = 0; i < host->n_places; i++)
        if (mmqi_rule_matches(&rule->pattern, host->place[i].name)) {
            host->place[i].limit = bytes;
            found = true;
        }
    return found ? MMQ_OK
                 : mmqi_rule_fail(MMQ_ERR_INVALID, &rule->pattern,
                                  "'%.*s' matches no device of this model", (int)rule->pattern.size,
                                  rule->pattern.text);
}

static int32_t read_limits(struct mmqi_host *host, const struct mmqi_host_options *options)
{
    static const struct mmqi_rules_kind kind = {"memory limits", "a number of bytes", "BYTES"};
    struct mmqi_rules rules;
    int32_t status;

    if (!options->limits)
        return MMQ_OK;
    if (options->limit)
        return mmqi_fail(MMQ_ERR_INVALID, "device: one memory limit and limits by device");
    status = mmqi_rules_parse(&rules, options->limits, &kind);
    for (size_t r = 0; r < rules.n && status == MMQ_OK; r++)
        status = limit_places(host, &rules.rule[r]);
    mmqi_rules_free(&rules);
    return status;
}

/* ---- the whole ---- */

static int32_t join_texts(struct mmqi_host *host)
{
    struct mmqi_buf text = {0};

    if (host->n_places == 1)
        return MMQ_OK;
    for (int32_t i = 0; i < host->n_places; i++) {
        const struct mmqi_place *at = &host->place[i].at;

        mmqi_buf_text(&text, i > 0 ? " + " : "");
        mmqi_buf_text(&text, at->backend->describe(at->device));
    }
    host->text = mmqi_buf_take(&text);
    return host->text ? MMQ_OK : mmqi_fail(MMQ_ERR_NOMEM, "device: no memory for a text");
}

static int32_t open_places(struct mmqi_host *host, const struct mmqi_backend *const *backends,
                           const struct mmqi_host_options *options)
{
    int32_t status = find_pool(host, options), at;

    if (status == MMQ_OK && options->device && strchr(options->device, '='))
        status = open_map(host, backends, options);
    else if (status == MMQ_OK)
        status = open_place(host, &at, backends, options, options->device);
    if (status == MMQ_OK)
        status = read_limits(host, options);
    return status == MMQ_OK ? join_texts(host) : status;
}

int32_t mmqi_host_create(struct mmqi_host **out, const struct mmqi_backend *const *backends,
                         const struct mmqi_host_options *options)
{
    struct mmqi_host *host = mmqi_calloc(1, sizeof *host);
    int32_t status;

    *out = NULL;
    if (!host)
        return mmqi_fail(MMQ_ERR_NOMEM, "device: no memory for its handle");
    host->n_users = 1;
    host->mutex = mmqi_os_mutex_create();
    if (!host->mutex)
        status = mmqi_fail(MMQ_ERR_NOMEM, "device: no memory for its lock");
    else
        status = open_places(host, backends, options);
    if (status == MMQ_OK)
        *out = host;
    else
        mmqi_host_release(host);
    return status;
}

struct mmqi_host *mmqi_host_retain(struct mmqi_host *host)
{
    __atomic_add_fetch(&host->n_users, 1, __ATOMIC_RELAXED);
    return host;
}

void mmqi_host_release(struct mmqi_host *host)
{
    if (!host || __atomic_sub_fetch(&host->n_users, 1, __ATOMIC_ACQ_REL) > 0)
        return;
    for (int32_t i = 0; i < host->n_places; i++)
        host->place[i].at.backend->close(host->place[i].at.device);
    mmqi_loader_close(&host->cuda);
    if (host->runtime)
        mmqi_runtime_release(host->runtime);
    else
        mmqi_pool_free(host->pool);
    mmqi_os_mutex_free(host->mutex);
    mmqi_rules_free(&host->map);
    mmqi_free(host->map_places);
    mmqi_free(host->map_text);
    mmqi_free(host->text);
    mmqi_free(host);
}

const struct mmqi_log *mmqi_host_log(const struct mmqi_host *host)
{
    return host->runtime ? &host->runtime->log : NULL;
}

const char *mmqi_host_describe(const struct mmqi_host *host)
{
    const struct mmqi_place *at = &host->place[0].at;

    return host->text ? host->text : at->backend->describe(at->device);
}

/* Under the lock. */
static int32_t check_budget(const struct mmqi_host *host, int32_t place, uint64_t bytes,
                            const char *what)
{
    const struct mmqi_host_place *p = &host->place[place];
    bool one = host->n_places == 1;

    if (bytes <= p->limit - p->used)
        return MMQ_OK;
    return mmqi_fail(MMQ_ERR_LIMIT, "%s%s%s: needs %llu bytes, the limit of %llu has %llu left",
                     what, one ? "" : " on ", one ? "" : p->name, (unsigned long long)bytes,
                     (unsigned long long)p->limit, (unsigned long long)(p->limit - p->used));
}

int32_t mmqi_host_take(struct mmqi_host *host, const uint64_t *bytes, const char *what)
{
    int32_t status = MMQ_OK;

    mmqi_os_lock(host->mutex);
    for (int32_t i = 0; i < host->n_places && status == MMQ_OK; i++)
        status = check_budget(host, i, bytes[i], what);
    for (int32_t i = 0; i < host->n_places && status == MMQ_OK; i++)
        host->place[i].used += bytes[i];
    mmqi_os_unlock(host->mutex);
    return status;
}

void mmqi_host_give(struct mmqi_host *host, const uint64_t *bytes)
{
    mmqi_os_lock(host->mutex);
    for (int32_t i = 0; i < host->n_places; i++)
        host->place[i].used -= bytes[i];
    mmqi_os_unlock(host->mutex);
}

int32_t mmqi_host_take_at(struct mmqi_host *host, int32_t place, uint64_t bytes, const char *what)
{
    int32_t status;

    mmqi_os_lock(host->mutex);
    status = check_budget(host, place, bytes, what);
    if (status == MMQ_OK)
        host->place[place].used += bytes;
    mmqi_os_unlock(host->mutex);
    return status;
}

void mmqi_host_give_at(struct mmqi_host *host, int32_t place, uint64_t bytes)
{
    mmqi_os_lock(host->mutex);
    host->place[place].used -= bytes;
    mmqi_os_unlock(host->mutex);
}

uint64_t mmqi_host_used(struct mmqi_host *host, int32_t place)
{
    uint64_t used;

    mmqi_os_lock(host->mutex);
    used = host->place[place].used;
    mmqi_os_unlock(host->mutex);
    return used;
}

/* ---- what there is ---- */

/* A host that has opened nothing but the library of CUDA devices, if it is there. */
static int32_t list_backends(struct mmqi_host *host, const struct mmqi_backend **list,
                             const struct mmqi_backend *const *backends)
{
    int32_t n = 0;

    if (open_cuda(host) == MMQ_OK)
        list[n++] = host->cuda.backend;
    for (; *backends && n < MAX_BACKENDS; backends++)
        list[n++] = *backends;
    return n;
}

int32_t mmqi_host_find(struct mmqi_device_listing *out, int32_t *n,
                       const struct mmqi_backend *const *backends, struct mmqi_runtime *runtime,
                       int32_t index)
{
    struct mmqi_host host = {.runtime = runtime};
    const struct mmqi_backend *list[MAX_BACKENDS + 1];
    int32_t n_lists = list_backends(&host, list, backends), status = MMQ_OK, count;

    *n = 0;
    for (int32_t i = 0; i < n_lists && status == MMQ_OK; i++) {
        if (list[i]->count(&mmqi_backend_host, &count) != MMQ_OK)
            continue;
        if (out && index >= *n && index - *n < count) {
            name_place(out->id, list[i], index - *n);
            snprintf(out->kind, sizeof out->kind, "%s", list[i]->name);
            out->fast = list[i]->fast;
            status = list[i]->info(&mmqi_backend_host, index - *n, &out->info);
        }
        *n += count;
    }
    mmqi_loader_close(&host.cuda);
    return status;
}
