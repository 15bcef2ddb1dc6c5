/*
 * Writing a checkpoint folder that appears under its name only when it is
 * complete: everything goes into a sibling folder NAME.partial-N, each file
 * is synced, and one rename at the end makes it NAME. Until then a failure or
 * mmqi_save_free() removes what was made.
 *
 * Order of calls: create, tensor ... (declare them all), open, then write,
 * text and copy in any order, commit. The bytes of the files depend on the
 * declared tensors and shard_bytes alone, not on the order of writes.
 *
 * "model.safetensors", or shards with an index where the tensors take more than shard_bytes.
 */
#ifndef MMQI_QUANT_SAVE_H
#define MMQI_QUANT_SAVE_H

#include <stdbool.h>

#include "io/checkpoint.h"

struct mmqi_save;

/* MMQ_ERR_EXISTS where `path` exists; nothing is made yet. */
int32_t mmqi_save_create(struct mmqi_save **out, const char *path);
/* Removes the partial folder unless committed; accepts NULL. */
void mmqi_save_free(struct mmqi_save *save);

/* Declare a tensor (its name is copied); ids count from 0. Tensors of one group stay in one shard:
 * `joined` puts it into the group of the tensor before it. */
int32_t mmqi_save_tensor(struct mmqi_save *save, const char *name, int32_t dtype, int32_t rank,
                         const int64_t *shape, bool joined);
size_t mmqi_save_count(const struct mmqi_save *save); /* tensors declared so far: the next id */

/* Make the partial folder and the headers. shard_bytes 0: 4 GiB; a group larger than that has a
 * shard of its own. */
int32_t mmqi_save_open(struct mmqi_save *save, uint64_t shard_bytes);
/* Bytes [begin, begin + size) of the tensor's own bytes; every byte once. */
int32_t mmqi_save_write(struct mmqi_save *save, size_t id, uint64_t begin, const void *data,
                        size_t size);
int32_t mmqi_save_text(struct mmqi_save *save, const char *name, const char *text, size_t size);
/* Copy a file of `store` through `buffer`; one that is not there is passed over. */
int32_t mmqi_save_copy(struct mmqi_save *save, struct mmqi_store *store, const char *name,
                       void *buffer, size_t buffer_bytes);
uint64_t mmqi_save_bytes(const struct mmqi_save *save); /* of the weight files; after open */

/* Sync and rename. MMQ_ERR_EXISTS where the destination has come to exist meanwhile;
 * MMQ_ERR_INTERNAL where bytes of a tensor were never written. */
int32_t mmqi_save_commit(struct mmqi_save *save);

#endif
