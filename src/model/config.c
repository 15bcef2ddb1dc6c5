/*
 * The small files of a model folder.
 *
 * config.json and a tokenizer are needed; the others are read where they are.
 * A chat template outside of what this build runs does not keep a model from
 * opening: its message is kept for whoever renders.
 */
#include "model/config.h"

#include <stdio.h>
#include <string.h>

#include "core/mem.h"
#include "core/status.h"
#include "core/text.h"
#include "text/tokenizer_folder.h"

enum {
    MAX_LABEL = 256,
    MAX_MARKER = 256, /* bytes; texts are searched for it */
    MAX_CONFIG_BYTES = 1 << 20,
    MAX_TEMPLATE_BYTES = 1 << 18
};

/* ---- typed keys ---- */

const char *mmqi_config_path(char path[MMQI_MAX_CONFIG_KEY], const char *prefix, const char *key)
{
    snprintf(path, MMQI_MAX_CONFIG_KEY, "%s%s%s", prefix, prefix[0] ? "." : "", key);
    return path;
}

int32_t mmqi_config_int(const struct mmqi_settings *settings, const char *prefix, const char *key,
                        int32_t min, int32_t max, int32_t *value)
{
    char path[MMQI_MAX_CONFIG_KEY];
    int64_t wide = *value;
    int32_t status =
        mmqi_settings_int(settings, mmqi_config_path(path, prefix, key), min, max, &wide);

    if (status == MMQ_OK)
        *value = (int32_t)wide;
    return status;
}

int32_t mmqi_config_ints(const struct mmqi_settings *settings, const char *prefix, const char *key,
                         int32_t min, int32_t max, int32_t *values, int32_t room, int32_t *n)
{
    char path[MMQI_MAX_CONFIG_KEY], item[MMQI_MAX_CONFIG_KEY + 12];
    int64_t count, value;
    int32_t status = MMQ_OK;

    mmqi_config_path(path, prefix, key);
    if (!mmqi_settings_has(settings, path))
        return MMQ_OK;
    count = mmqi_settings_count(settings, path);
    if (count < 0 || count > room)
        return mmqi_fail(MMQ_ERR_FORMAT, "%s: %s is no list of at most %d numbers",
                         mmqi_settings_name(settings), path, (int)room);
    for (int32_t i = 0; i < count && status == MMQ_OK; i++) {
        value = values[i];
        snprintf(item, sizeof item, "%s.%d", path, (int)i);
        status = mmqi_settings_int(settings, item, min, max, &value);
        values[i] = (int32_t)value;
    }
    *n = (int32_t)count;
    return status;
}

int32_t mmqi_config_number(const struct mmqi_settings *settings, const char *prefix,
                           const char *key, double min, double max, double *value)
{
    char path[MMQI_MAX_CONFIG_KEY];

    return mmqi_settings_number(settings, mmqi_config_path(path, prefix, key), min, max, value);
}

int32_t mmqi_config_bool(const struct mmqi_settings *settings, const char *prefix, const char *key,
                         bool *value)
{
    char path[MMQI_MAX_CONFIG_KEY];

    return mmqi_settings_bool(settings, mmqi_config_path(path, prefix, key), value);
}

int32_t mmqi_config_string(const struct mmqi_settings *settings, const char *prefix,
                           const char *key, const char **value)
{
    char path[MMQI_MAX_CONFIG_KEY];

    return mmqi_settings_string(settings, mmqi_config_path(path, prefix, key), value);
}

static int32_t unsupported(const struct mmqi_settings *settings, const char *prefix,
                           const char *key, const char *value)
{
    char path[MMQI_MAX_CONFIG_KEY];

    return mmqi_fail(MMQ_ERR_UNSUPPORTED, "%s: %s '%s' is not run by this build",
                     mmqi_settings_name(settings), mmqi_config_path(path, prefix, key), value);
}

int32_t mmqi_config_activation(const struct mmqi_settings *settings, const char *prefix,
                               const char *key, int32_t *act)
{
    static const struct {
        const char *name;
        int32_t act;
    } names[] = {
        {"silu", MMQI_ACT_SILU},          {"swish", MMQI_ACT_SILU},
        {"gelu", MMQI_ACT_GELU},          {"gelu_pytorch_tanh", MMQI_ACT_GELU_TANH},
        {"gelu_new", MMQI_ACT_GELU_TANH}, {"quick_gelu", MMQI_ACT_QUICK_GELU},
    };
    const char *name = NULL;
    int32_t status = mmqi_config_string(settings, prefix, key, &name);

    if (status != MMQ_OK || !name)
        return status;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (strcmp(name, names[i].name) == 0) {
            *act = names[i].act;
            return MMQ_OK;
        }
    }
    return unsupported(settings, prefix, key, name);
}

int32_t mmqi_config_only(const struct mmqi_settings *settings, const char *prefix, const char *key,
                         const char *only)
{
    const char *value = only;
    int32_t status = mmqi_config_string(settings, prefix, key, &value);

    if (status == MMQ_OK && strcmp(value, only) != 0)
        status = unsupported(settings, prefix, key, value);
    return status;
}

bool mmqi_config_is(const struct mmqi_settings *settings, const char *prefix, const char *key,
                    const char *wanted, bool if_absent)
{
    const char *value = NULL;

    if (mmqi_config_string(settings, prefix, key, &value) != MMQ_OK)
        return false;
    return value ? strcmp(value, wanted) == 0 : if_absent;
}

bool mmqi_config_names(const struct mmqi_settings *settings, const char *architecture,
                       const char *type)
{
    return mmqi_settings_has(settings, "architectures")
               ? mmqi_config_is(settings, "architectures", "0", architecture, false)
               : mmqi_config_is(settings, "", "model_type", type, false);
}

/* ---- files ---- */

/* How messages name a file: below its store's path, unless that would crowd out the message. */
static const char *label_of(char label[MAX_LABEL], const struct mmqi_store *store, const char *name)
{
    int length = snprintf(label, MAX_LABEL, "%s/%s", mmqi_store_name(store), name);

    return length >= 0 && length < MAX_LABEL ? label : name;
}

int32_t mmqi_config_read_settings(struct mmqi_settings **out, struct mmqi_store *store,
                                  const char *name)
{
    char label[MAX_LABEL], *text = NULL;
    size_t size;
    int32_t status = mmqi_file_read_all(&text, &size, store, name, MAX_CONFIG_BYTES);

    if (status == MMQ_OK)
        status = mmqi_settings_parse(out, label_of(label, store, name), text, size);
    mmqi_free(text);
    return status;
}

int32_t mmqi_config_read_settings_if_there(struct mmqi_settings **out, struct mmqi_store *store,
                                           const char *name)
{
    bool exists;
    int32_t status = mmqi_file_exists(&exists, store, name);

    return status == MMQ_OK && exists ? mmqi_config_read_settings(out, store, name) : status;
}

int32_t mmqi_config_read(struct mmqi_model *model)
{
    return mmqi_config_read_settings(&model->config, model->store, "config.json");
}

static int32_t compile_template(struct mmqi_model *model, const char *name, const char *source,
                                size_t size)
{
    int32_t status = mmqi_chat_compile(&model->chat, name, source, size);

    if (status != MMQ_ERR_UNSUPPORTED)
        return status;
    model->chat_error = mmqi_strdup(mmqi_message());
    return model->chat_error ? MMQ_OK
                             : mmqi_fail(MMQ_ERR_NOMEM, "%s: no memory for a message", model->path);
}

static int32_t read_jinja(struct mmqi_model *model)
{
    static const char name[] = "chat_template.jinja";
    char label[MAX_LABEL], *text = NULL;
    size_t size;
    int32_t status = mmqi_file_read_all(&text, &size, model->store, name, MAX_TEMPLATE_BYTES);

    if (status == MMQ_OK)
        status = compile_template(model, label_of(label, model->store, name), text, size);
    mmqi_free(text);
    return status;
}

/* The template named "default" of a list [{"name": .., "template": ..}] of `n`. */
static int32_t find_default(const struct mmqi_settings *settings, int64_t n, const char **source)
{
    const char *name;
    char path[MMQI_MAX_CONFIG_KEY];
    int32_t status = MMQ_OK;

    for (int32_t i = 0; i < n && status == MMQ_OK && !*source; i++) {
        name = "";
        snprintf(path, sizeof path, "chat_template.%d.name", (int)i);
        status = mmqi_settings_string(settings, path, &name);
        snprintf(path, sizeof path, "chat_template.%d.template", (int)i);
        if (status == MMQ_OK && strcmp(name, "default") == 0)
            status = mmqi_settings_string(settings, path, source);
    }
    return status;
}

/* "chat_template" of a config: the text itself, or several by name, of which the "default" one
 * counts. */
static int32_t find_template(const struct mmqi_settings *settings, const char **source)
{
    int64_t n = mmqi_settings_count(settings, "chat_template");

    if (n >= 0)
        return find_default(settings, n, source);
    if (mmqi_settings_has(settings, "chat_template.default"))
        return mmqi_settings_string(settings, "chat_template.default", source);
    return mmqi_settings_string(settings, "chat_template", source);
}

/* The first of these files that has a template: chat_template.jinja, chat_template.json,
 * processor_config.json, tokenizer_config.json. */
static int32_t read_template(struct mmqi_model *model)
{
    struct mmqi_settings *settings = NULL;
    const struct mmqi_settings *all[3] = {NULL, model->processor, model->tokenizer_config};
    const char *source = NULL;
    bool exists;
    int32_t status = mmqi_file_exists(&exists, model->store, "chat_template.jinja");
    int i;

    if (status == MMQ_OK && exists)
        return read_jinja(model);
    if (status == MMQ_OK)
        status = mmqi_config_read_settings_if_there(&settings, model->store, "chat_template.json");
    all[0] = settings;
    for (i = 0; i < 3 && status == MMQ_OK && !source; i++)
        status = find_template(all[i], &source);
    if (status == MMQ_OK && source)
        status = compile_template(model, mmqi_settings_name(all[i - 1]), source, strlen(source));
    mmqi_settings_free(settings);
    return status;
}

int32_t mmqi_config_read_files(struct mmqi_model *model)
{
    int32_t status = mmqi_config_read_settings_if_there(&model->generation, model->store,
                                                        "generation_config.json");

    if (status == MMQ_OK)
        status = mmqi_config_read_settings_if_there(&model->preprocessor, model->store,
                                                    "preprocessor_config.json");
    if (status == MMQ_OK)
        status = mmqi_config_read_settings_if_there(&model->video_preprocessor, model->store,
                                                    "video_preprocessor_config.json");
    if (status == MMQ_OK)
        status = mmqi_config_read_settings_if_there(&model->processor, model->store,
                                                    "processor_config.json");
    if (status == MMQ_OK)
        status = mmqi_config_read_settings_if_there(&model->tokenizer_config, model->store,
                                                    "tokenizer_config.json");
    if (status == MMQ_OK)
        status = mmqi_tokenizer_open(&model->tokenizer, model->store);
    return status == MMQ_OK ? read_template(model) : status;
}

/* ---- token ids ---- */

/* The one id, or the list of ids, at `path`; *n stays as it is where there is none. */
static int32_t read_ids(const struct mmqi_settings *settings, const char *path, int32_t least,
                        int32_t ids[8], int32_t *n)
{
    int64_t count = mmqi_settings_count(settings, path);
    char item[MMQI_MAX_CONFIG_KEY];
    int32_t status = MMQ_OK;

    if (count > 8)
        return mmqi_fail(MMQ_ERR_LIMIT, "%s: %s lists %lld ids; 8 are read",
                         mmqi_settings_name(settings), path, (long long)count);
    if (count < 0 && !mmqi_settings_has(settings, path))
        return MMQ_OK;
    if (count < 0) {
        *n = 1;
        return mmqi_config_int(settings, "", path, least, MMQI_MAX_VOCAB, &ids[0]);
    }
    for (int32_t i = 0; i < count && status == MMQ_OK; i++) {
        snprintf(item, sizeof item, "%s.%d", path, (int)i);
        status = mmqi_config_int(settings, "", item, least, MMQI_MAX_VOCAB, &ids[i]);
    }
    *n = (int32_t)count;
    return status;
}

/* Where more than one file tells them, the last of these decides; the others must make sense all
 * the same. */
static int32_t read_tokens_of(struct mmqi_model *model, const char *name, int32_t least,
                              int32_t ids[8], int32_t *n)
{
    char text_key[MMQI_MAX_CONFIG_KEY];
    int32_t status = read_ids(model->config, name, least, ids, n);

    if (status == MMQ_OK)
        status =
            read_ids(model->config, mmqi_config_path(text_key, "text_config", name), least, ids, n);
    if (status == MMQ_OK)
        status = read_ids(model->generation, name, least, ids, n);
    for (int32_t i = 0; i < *n && status == MMQ_OK; i++)
        if (least == 0 && model->spec.vocab_size > 0 && ids[i] >= model->spec.vocab_size)
            status = mmqi_fail(MMQ_ERR_FORMAT, "%s: %s %d is outside the vocabulary of %d",
                               mmqi_settings_name(model->config), name, (int)ids[i],
                               (int)model->spec.vocab_size);
    return status;
}

int32_t mmqi_config_read_tokens(struct mmqi_model *model)
{
    struct mmqi_spec *spec = &model->spec;
    int32_t bos[8] = {spec->bos}, pad[8] = {spec->pad}, n_bos = 1, n_pad = 1;
    int32_t status = read_tokens_of(model, "eos_token_id", 0, spec->eos, &spec->n_eos);

    if (status == MMQ_OK)
        status = read_tokens_of(model, "bos_token_id", 0, bos, &n_bos);
    if (status == MMQ_OK)
        status = read_tokens_of(model, "pad_token_id", -1, pad, &n_pad); /* -1 means none */
    spec->bos = n_bos > 0 ? bos[0] : -1;
    spec->pad = n_pad > 0 ? pad[0] : -1;
    return status;
}

int32_t mmqi_config_read_image_token(struct mmqi_model *model, const char *const *keys,
                                     int32_t if_absent)
{
    struct mmqi_spec *spec = &model->spec;
    const char *file = mmqi_settings_name(model->config);
    int32_t status = MMQ_OK;

    spec->image_token = if_absent;
    for (; *keys && status == MMQ_OK; keys++)
        status = mmqi_config_int(model->config, "", *keys, 0, MMQI_MAX_VOCAB, &spec->image_token);
    if (status != MMQ_OK)
        return status;
    if (spec->image_token >= spec->vocab_size)
        return mmqi_fail(MMQ_ERR_FORMAT, "%s: image token %d is outside the vocabulary of %d", file,
                         (int)spec->image_token, (int)spec->vocab_size);
    spec->image_marker = mmqi_tokenizer_content(model->tokenizer, spec->image_token);
    if (!spec->image_marker)
        return mmqi_fail(MMQ_ERR_FORMAT, "%s: image token %d is no token of the tokenizer", file,
                         (int)spec->image_token);
    if (strlen(spec->image_marker) > MAX_MARKER)
        return mmqi_fail(MMQ_ERR_LIMIT, "%s: image token %d is a text of %zu bytes, more than %d",
                         file, (int)spec->image_token, strlen(spec->image_marker), MAX_MARKER);
    return MMQ_OK;
}

int32_t mmqi_config_processor(const struct mmqi_model *model, const struct mmqi_settings **settings,
                              const char **prefix)
{
    bool nested = mmqi_settings_has(model->processor, "image_processor");

    *prefix = "";
    *settings = model->preprocessor;
    if (*settings)
        return MMQ_OK;
    *settings = model->processor;
    *prefix = "image_processor";
    return nested ? MMQ_OK
                  : mmqi_fail(MMQ_ERR_NOT_FOUND,
                              "%s: neither preprocessor_config.json nor an image_processor in "
                              "processor_config.json",
                              model->path);
}

int32_t mmqi_config_read_recipe(struct mmqi_model *model, const struct mmqi_processor *known,
                                const struct mmqi_settings **settings)
{
    struct mmqi_recipe *recipe = &model->spec.recipe;
    const char *prefix, *type = known->type;
    int32_t status = mmqi_config_processor(model, settings, &prefix);

    if (status == MMQ_OK)
        status = mmqi_config_string(*settings, prefix, "image_processor_type", &type);
    if (status != MMQ_OK)
        return status;
    while (known->type && !mmqi_starts_with(type, known->type))
        known++;
    if (!known->type)
        return unsupported(*settings, prefix, "image_processor_type", type);
    mmqi_recipe_defaults(recipe, known->kind);
    return mmqi_recipe_read(recipe, *settings, prefix[0] ? "image_processor." : "");
}

bool mmqi_config_video_processor(const struct mmqi_model *model,
                                 const struct mmqi_settings **settings, const char **prefix)
{
    bool nested = mmqi_settings_has(model->processor, "video_processor");

    *prefix = nested ? "video_processor" : "";
    *settings = nested                      ? model->processor
                : model->video_preprocessor ? model->video_preprocessor
                                            : model->preprocessor;
    return *settings != NULL;
}
