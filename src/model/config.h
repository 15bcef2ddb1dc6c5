/*
 * Reading a model folder's small files, and typed keys of its configs.
 *
 * A key is given as prefix ("text_config") and name; absent keys leave the
 * value as it is, so callers put the class default there first.
 */
#ifndef MMQI_MODEL_CONFIG_H
#define MMQI_MODEL_CONFIG_H

#include "model/model.h"

enum {
    MMQI_MAX_HIDDEN = 65536,
    MMQI_MAX_INNER = 1 << 18, /* MLP width; also heads * head_dim */
    MMQI_MAX_LAYERS = 512,
    MMQI_MAX_HEADS = 4096,
    MMQI_MAX_VOCAB = 1 << 24,
    MMQI_MAX_POSITIONS = 1 << 27,
    MMQI_MAX_IMAGE_SIDE = 8192,
    MMQI_MAX_CONFIG_KEY = 128
};

/* "prefix.key", or the key alone where the prefix is ""; returns `path`. */
const char *mmqi_config_path(char path[MMQI_MAX_CONFIG_KEY], const char *prefix, const char *key);

int32_t mmqi_config_int(const struct mmqi_settings *settings, const char *prefix, const char *key,
                        int32_t min, int32_t max, int32_t *value);
int32_t mmqi_config_number(const struct mmqi_settings *settings, const char *prefix,
                           const char *key, double min, double max, double *value);
/* The whole numbers of the list at the key, at most `room`; *n and `values` stay as they are where
 * it is absent. */
int32_t mmqi_config_ints(const struct mmqi_settings *settings, const char *prefix, const char *key,
                         int32_t min, int32_t max, int32_t *values, int32_t room, int32_t *n);
int32_t mmqi_config_bool(const struct mmqi_settings *settings, const char *prefix, const char *key,
                         bool *value);
int32_t mmqi_config_string(const struct mmqi_settings *settings, const char *prefix,
                           const char *key, const char **value);
/* An activation by transformers' name; an unknown one is MMQ_ERR_UNSUPPORTED, named. */
int32_t mmqi_config_activation(const struct mmqi_settings *settings, const char *prefix,
                               const char *key, int32_t *act);
/* Fails with MMQ_ERR_UNSUPPORTED where the string at the key is there and is not `only`. */
int32_t mmqi_config_only(const struct mmqi_settings *settings, const char *prefix, const char *key,
                         const char *only);

/* Is the string at the key `wanted`? `if_absent` where there is none. */
bool mmqi_config_is(const struct mmqi_settings *settings, const char *prefix, const char *key,
                    const char *wanted, bool if_absent);
/* Is it this architecture or, where none is told, this model_type? */
bool mmqi_config_names(const struct mmqi_settings *settings, const char *architecture,
                       const char *type);

/* A small JSON file; *out is freed with mmqi_settings_free(). */
int32_t mmqi_config_read_settings(struct mmqi_settings **out, struct mmqi_store *store,
                                  const char *name);
/* The same; *out stays as it is where there is no such file. */
int32_t mmqi_config_read_settings_if_there(struct mmqi_settings **out, struct mmqi_store *store,
                                           const char *name);
/* config.json into model->config. */
int32_t mmqi_config_read(struct mmqi_model *model);
/* The other files: generation, preprocessor, processor and tokenizer configs where they are, the
 * tokenizer, the template. */
int32_t mmqi_config_read_files(struct mmqi_model *model);
/* spec.bos, eos and pad: generation_config.json, then text_config, then config.json; else the
 * values there already. */
int32_t mmqi_config_read_tokens(struct mmqi_model *model);
/* spec.image_token by these keys of config.json (the last that is there; the list ends with NULL),
 * else `if_absent`; spec.image_marker is its text in the tokenizer. MMQ_ERR_FORMAT for one that the
 * vocabulary or the tokenizer lacks; MMQ_ERR_LIMIT for a text of more than 256 bytes. */
int32_t mmqi_config_read_image_token(struct mmqi_model *model, const char *const *keys,
                                     int32_t if_absent);
/* Where the image processor's settings stand: preprocessor_config.json, prefix "", else
 * processor_config.json, prefix "image_processor". */
int32_t mmqi_config_processor(const struct mmqi_model *model, const struct mmqi_settings **settings,
                              const char **prefix);
/* An image processor whose class has a name that begins with `type`, and the recipe that it is. */
struct mmqi_processor {
    const char *type;
    int32_t kind;
};
/* spec.recipe by the folder's image processor, one of `known` (the list ends with NULL; the first
 * is meant where settings name none): its class's defaults, then its keys. *settings: where they
 * stand. */
int32_t mmqi_config_read_recipe(struct mmqi_model *model, const struct mmqi_processor *known,
                                const struct mmqi_settings **settings);
/* Where the video processor's stand: processor_config.json, prefix "video_processor", else
 * video_preprocessor_config.json, else preprocessor_config.json; false where there is none. */
bool mmqi_config_video_processor(const struct mmqi_model *model,
                                 const struct mmqi_settings **settings, const char **prefix);

#endif
