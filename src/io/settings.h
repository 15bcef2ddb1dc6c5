/*
 * A JSON file as a flat, sorted list "path = scalar", for config files.
 *
 * {"text_config": {"rope": [1, 2]}} holds "text_config.rope.0" = 1 and so
 * on; containers themselves are listed too (kind object or array), so that
 * presence can be asked. Getters tell absent (default kept, MMQ_OK) from
 * wrong (MMQ_ERR_FORMAT with file and key); null counts as absent.
 */
#ifndef MMQI_IO_SETTINGS_H
#define MMQI_IO_SETTINGS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct mmqi_settings;

/* At most 65,536 entries and 1 MiB of text (4 MiB once every path is spelled out). The text is a
 * JSON object; keys hold no zero bytes, and no two values have the same path. Nothing of `text` is
 * kept. */
int32_t mmqi_settings_parse(struct mmqi_settings **out, const char *name, const char *text,
                            size_t size);
void mmqi_settings_free(struct mmqi_settings *settings); /* accepts NULL */

bool mmqi_settings_has(const struct mmqi_settings *settings,
                       const char *path); /* null does not count */
/* Is it there, and null? For the few keys of which null says something else than absence. */
bool mmqi_settings_is_null(const struct mmqi_settings *settings, const char *path);
/* Each leaves *value as it is when the path is absent. NULL settings hold nothing. A path below
 * what is neither object nor array, as the path needs it, is no absent one: MMQ_ERR_FORMAT. */
int32_t mmqi_settings_int(const struct mmqi_settings *settings, const char *path, int64_t min,
                          int64_t max, int64_t *value);
int32_t
mmqi_settings_number(const struct mmqi_settings *settings, const char *path, double min, double max,
                     double *value); /* an integer spelling is a number too; never NaN or Inf */
int32_t mmqi_settings_bool(const struct mmqi_settings *settings, const char *path, bool *value);
int32_t mmqi_settings_string(const struct mmqi_settings *settings, const char *path,
                             const char **value);
/* Items of the array at `path`; -1 when it is absent or no array. */
int64_t mmqi_settings_count(const struct mmqi_settings *settings, const char *path);
const char *mmqi_settings_name(const struct mmqi_settings *settings);

#endif
