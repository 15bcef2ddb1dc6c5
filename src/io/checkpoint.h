/*
 * One index of named tensors over the shards of a checkpoint.
 *
 * Opening reads headers only. Entries are sorted by name and immutable, so
 * any thread may look up and read. Safetensors, single ("model.safetensors")
 * or sharded ("model.safetensors.index.json"), come before what torch saved:
 * "pytorch_model.bin", ".pt", ".pth", or an index of these, "model.pt",
 * "model.pth". Another container adds a parser that fills the same entries.
 */
#ifndef MMQI_IO_CHECKPOINT_H
#define MMQI_IO_CHECKPOINT_H

#include <stdbool.h>

#include "io/file.h"

enum { MMQI_MAX_RANK = 8 };

struct mmqi_entry {
    const char *name;
    int32_t dtype; /* enum mmqi_dtype */
    int32_t rank;
    int64_t shape[MMQI_MAX_RANK];
    int32_t shard;   /* which file */
    uint64_t offset; /* bytes from the start of that file */
    uint64_t bytes;
};

/* Bytes that dtype and shape ask for; false where they overflow. The dimensions that are not 0 must
 * not wrap either: code that multiplies some of them is then safe. */
bool mmqi_entry_size(const struct mmqi_entry *entry, uint64_t *bytes);

struct mmqi_checkpoint;

/*
 * The one file of tensors, or the shards of the index (at most 1000, each opened once; what the map
 * and the shards' headers name must be the same). None of them: MMQ_ERR_NOT_FOUND.
 */
int32_t mmqi_checkpoint_open(struct mmqi_checkpoint **out, struct mmqi_store *store);
/*
 * Take the tensors whose names begin with `from` of the checkpoint in another store, by names that
 * begin with `to` instead; nobody else holds `checkpoint` yet. After a failure it can be released
 * and nothing else.
 */
int32_t mmqi_checkpoint_join(struct mmqi_checkpoint *checkpoint, struct mmqi_store *store,
                             const char *from, const char *to);
void mmqi_checkpoint_retain(struct mmqi_checkpoint *checkpoint);  /* any thread */
void mmqi_checkpoint_release(struct mmqi_checkpoint *checkpoint); /* accepts NULL */

size_t mmqi_checkpoint_count(const struct mmqi_checkpoint *checkpoint);
const struct mmqi_entry *mmqi_checkpoint_entry(const struct mmqi_checkpoint *checkpoint,
                                               size_t index);
const struct mmqi_entry *mmqi_checkpoint_find(const struct mmqi_checkpoint *checkpoint,
                                              const char *name); /* or NULL */
const char *mmqi_checkpoint_shard_name(const struct mmqi_checkpoint *checkpoint, int32_t shard);
/* Bytes [begin, begin + size) of the tensor's own bytes. */
int32_t mmqi_checkpoint_read(const struct mmqi_checkpoint *checkpoint,
                             const struct mmqi_entry *entry, uint64_t begin, void *dst,
                             size_t size);

#endif
