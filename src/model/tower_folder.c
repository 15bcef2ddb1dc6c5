/* The folder of a tower that is a checkpoint of its own. */
#include "model/tower_folder.h"

#include <string.h>

#include "core/buf.h"
#include "core/mem.h"
#include "core/status.h"
#include "core/text.h"
#include "io/json.h"
#include "model/config.h"
#include "model/names.h"

enum { MAX_CONFIG = 1 << 20 };

/* The last part of `name`, a hub's or a path, without slashes at its end; *size 0: none. */
static const char *last_part(const char *name, size_t *size)
{
    size_t end = strlen(name), begin;

    while (end > 0 && name[end - 1] == '/')
        end--;
    for (begin = end; begin > 0 && name[begin - 1] != '/'; begin--)
        ;
    *size = end - begin;
    return name + begin;
}

/* What the folder is called; *name is freed with mmqi_free(). */
static int32_t name_folder(char **name, const struct mmqi_model *model)
{
    const char *file = mmqi_settings_name(model->config), *key = model->family->tower_key;
    const char *whole = NULL, *part;
    size_t size = 0;
    int32_t status = mmqi_config_string(model->config, "", key, &whole);

    *name = NULL;
    if (status != MMQ_OK)
        return status;
    part = whole ? last_part(whole, &size) : "";
    if (size == 0 || strpbrk(part, "\\:") || (size == 1 && part[0] == '.') ||
        (size == 2 && part[0] == '.' && part[1] == '.'))
        return mmqi_fail(MMQ_ERR_FORMAT, "%s: '%s' names no folder of a vision tower: '%.96s'",
                         file, key, whole ? whole : "");
    *name = mmqi_strndup(part, size);
    return *name ? MMQ_OK
                 : mmqi_fail(MMQ_ERR_NOMEM, "%s: no memory to find its tower", model->path);
}

/* Keep the store that was opened with `status` if it has a config.json; go on where there is no
 * such folder or file. */
static int32_t keep_if_there(struct mmqi_model *model, struct mmqi_store *store, int32_t status)
{
    bool exists = false;

    if (status == MMQ_ERR_NOT_FOUND || status == MMQ_ERR_IO)
        return MMQ_OK;
    if (status == MMQ_OK)
        status = mmqi_file_exists(&exists, store, "config.json");
    if (status == MMQ_OK && exists)
        model->tower_store = store;
    else
        mmqi_store_release(store);
    return status;
}

static int32_t open_beside(struct mmqi_store **out, const struct mmqi_model *model,
                           const char *name)
{
    struct mmqi_buf path = {0};
    int32_t status;

    *out = NULL;
    mmqi_buf_format(&path, "%s/../%s", mmqi_store_name(model->store), name);
    status = mmqi_buf_failed(&path)
                 ? mmqi_fail(MMQ_ERR_NOMEM, "%s: no memory to find its tower", model->path)
                 : mmqi_store_open_folder(out, path.data);
    mmqi_buf_free(&path);
    return status;
}

static int32_t find_folder(struct mmqi_model *model)
{
    struct mmqi_store *store;
    char *name;
    int32_t status = name_folder(&name, model);

    if (status == MMQ_OK) {
        status = mmqi_store_open_inside(&store, model->store, name);
        status = keep_if_there(model, store, status);
    }
    if (status == MMQ_OK && !model->tower_store && mmqi_store_is_folder(model->store)) {
        status = open_beside(&store, model, name);
        status = keep_if_there(model, store, status);
    }
    if (status == MMQ_OK && !model->tower_store &&
        !(model->family->has_tower && model->family->has_tower(model->config)))
        status =
            mmqi_fail(MMQ_ERR_NOT_FOUND,
                      "%s: its vision tower is a folder '%s' of its own, which lies neither in "
                      "this one nor beside it; the load option vision_path tells where it is",
                      model->path, name);
    mmqi_free(name);
    return status;
}

static int32_t open_told(struct mmqi_model *model, const char *path)
{
    return mmqi_store_is_folder(model->store)
               ? mmqi_store_open_folder(&model->tower_store, path)
               : mmqi_store_open_inside(&model->tower_store, model->store, path);
}

int32_t mmqi_tower_open(struct mmqi_model *model, const char *path)
{
    int32_t status;

    if (!model->family->tower_key)
        return path ? mmqi_fail(MMQ_ERR_INVALID,
                                "%s: vision_path is given, but a %s holds its tower itself",
                                model->path, model->family->name)
                    : MMQ_OK;
    if (mmqi_settings_has(model->config, "vision_config"))
        return MMQ_OK;
    status = path ? open_told(model, path) : find_folder(model);
    if (status != MMQ_OK || !model->tower_store)
        return status;
    status = mmqi_config_read_settings(&model->tower_config, model->tower_store, "config.json");
    if (status == MMQ_OK)
        status = mmqi_config_read_settings_if_there(&model->tower_preprocessor, model->tower_store,
                                                    "preprocessor_config.json");
    return status;
}

/* Is any tensor of the model's own files one of the tower? */
static bool has_tower(const struct mmqi_model *model)
{
    char name[MMQI_MAX_WEIGHT_NAME];

    for (size_t i = 0; i < mmqi_checkpoint_count(model->checkpoint); i++) {
        const struct mmqi_entry *entry = mmqi_checkpoint_entry(model->checkpoint, i);

        if (mmqi_canonical_name(name, model->family, entry->name) == MMQI_NAME_KNOWN &&
            mmqi_starts_with(name, "vision."))
            return true;
    }
    return false;
}

int32_t mmqi_tower_join(struct mmqi_model *model)
{
    if (!model->tower_store || has_tower(model))
        return MMQ_OK;
    return mmqi_checkpoint_join(model->checkpoint, model->tower_store, model->family->tower_from,
                                model->family->tower_to);
}

/* Where the object of settings lies in a config.json: all of it, or its "vision_config". */
static int32_t find_settings(const char **begin, size_t *size, struct mmqi_json *json,
                             const char *text, size_t text_size)
{
    enum mmqi_json_event event;
    size_t at;
    int32_t status = mmqi_json_next(json, &event);

    *begin = text;
    *size = text_size;
    while (status == MMQ_OK) {
        status = mmqi_json_next(json, &event);
        if (status != MMQ_OK || event != MMQI_JSON_KEY)
            break;
        if (!mmqi_json_is(json, "vision_config")) {
            status = mmqi_json_skip(json);
            continue;
        }
        status = mmqi_json_next(json, &event);
        if (status != MMQ_OK || event != MMQI_JSON_OBJECT)
            break;
        at = mmqi_json_offset(json);
        status = mmqi_json_skip(json);
        *begin = text + at;
        *size = mmqi_json_offset(json) + 1 - at;
        break;
    }
    return status;
}

/* text[0 .. size), an object, with `settings` as its first value. */
static int32_t put_in(char **out, size_t *out_size, const struct mmqi_model *model,
                      const char *text, size_t size, const char *settings, size_t settings_size)
{
    const char *open = memchr(text, '{', size);
    struct mmqi_buf buf = {0};

    if (!open) /* the settings were read from this text */
        return mmqi_fail(MMQ_ERR_FORMAT, "%s: config.json has changed", model->path);
    mmqi_buf_append(&buf, text, (size_t)(open - text) + 1);
    mmqi_buf_text(&buf, "\n  \"vision_config\": ");
    mmqi_buf_append(&buf, settings, settings_size);
    mmqi_buf_text(&buf, ",");
    mmqi_buf_append(&buf, open + 1, size - (size_t)(open - text) - 1);
    *out_size = buf.size;
    *out = mmqi_buf_failed(&buf) ? NULL : mmqi_buf_take(&buf);
    mmqi_buf_free(&buf);
    return *out ? MMQ_OK : mmqi_fail(MMQ_ERR_NOMEM, "%s: no memory for its settings", model->path);
}

int32_t mmqi_tower_config(char **out, size_t *out_size, const struct mmqi_model *model,
                          const char *text, size_t size)
{
    struct mmqi_json *json = NULL;
    const char *settings;
    char *tower;
    size_t tower_size, settings_size;
    int32_t status =
        mmqi_file_read_all(&tower, &tower_size, model->tower_store, "config.json", MAX_CONFIG);

    *out = NULL;
    if (status == MMQ_OK)
        status = mmqi_json_open(&json, "config.json", tower, tower_size);
    if (status == MMQ_OK)
        status = find_settings(&settings, &settings_size, json, tower, tower_size);
    if (status == MMQ_OK)
        status = put_in(out, out_size, model, text, size, settings, settings_size);
    mmqi_json_close(json);
    mmqi_free(tower);
    return status;
}
