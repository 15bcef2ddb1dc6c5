/*
 * Where a model's files come from: a folder, or callbacks of the host.
 *
 * A store names files relative to its root; names with a leading '/', a
 * backslash, a ':' or a ".." component are refused, so a hostile shard index cannot leave the
 * folder. Stores are counted: a model made from another shares its store.
 */
#ifndef MMQI_IO_FILE_H
#define MMQI_IO_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct mmqi_store;
struct mmqi_file;

/* The host's own reader, as in mmq_load_options; each returns MMQ_OK or a status. */
struct mmqi_reader {
    int32_t (*open)(void *user, const char *name,
                    void **file); /* MMQ_ERR_NOT_FOUND: there is none */
    int32_t (*size)(void *user, void *file, uint64_t *size);
    int32_t (*read_at)(void *user, void *file, uint64_t offset, void *dst,
                       size_t size); /* all or fail */
    void (*close)(void *user, void *file);
    void *user;
};

int32_t mmqi_store_open_folder(struct mmqi_store **out, const char *path);
int32_t mmqi_store_open_reader(struct mmqi_store **out, const char *name,
                               const struct mmqi_reader *reader);
/*
 * The folder `name` inside another store, whose file F is that store's "name/F". MMQ_ERR_NOT_FOUND:
 * there is none, which a reader's store cannot know. MMQ_ERR_FORMAT: `name` leaves the store.
 */
int32_t mmqi_store_open_inside(struct mmqi_store **out, struct mmqi_store *outer, const char *name);
void mmqi_store_retain(struct mmqi_store *store);            /* any thread */
void mmqi_store_release(struct mmqi_store *store);           /* accepts NULL */
const char *mmqi_store_name(const struct mmqi_store *store); /* the folder's path, for messages */
bool mmqi_store_is_folder(const struct mmqi_store *store);   /* false: a reader's */

/* MMQ_ERR_NOT_FOUND when the store has no such file (message written all the same). */
int32_t mmqi_file_open(struct mmqi_file **out, struct mmqi_store *store, const char *name);
/* Fails only where it cannot be known: no memory, or a folder or reader that refuses to tell. */
int32_t mmqi_file_exists(bool *exists, struct mmqi_store *store, const char *name);
uint64_t mmqi_file_size(const struct mmqi_file *file);
const char *mmqi_file_name(const struct mmqi_file *file); /* as it was given */
const char *
mmqi_file_path(const struct mmqi_file *file); /* with the store's name before it, for messages */
int32_t mmqi_file_read_at(struct mmqi_file *file, uint64_t offset, void *dst,
                          size_t size);       /* any thread */
void mmqi_file_close(struct mmqi_file *file); /* accepts NULL */

/* The whole file, with a zero byte after it; *out is freed with mmqi_free(). More than `limit`
 * bytes: MMQ_ERR_FORMAT. */
int32_t mmqi_file_read_all(char **out, size_t *size, struct mmqi_store *store, const char *name,
                           size_t limit);

#endif
