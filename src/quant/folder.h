/*
 * The folder that a quantized model is written to: its tensors in the order of the source's, the
 * packed ones by the names of their parts, everything else copied byte for byte, and the small
 * files with a configuration that says what was done.
 */
#ifndef MMQI_QUANT_FOLDER_H
#define MMQI_QUANT_FOLDER_H

#include "quant/policy.h"

struct mmqi_folder;

/* A copy goes on in pieces; what this returns, not MMQ_OK, ends it. */
typedef int32_t (*mmqi_folder_tick)(void *user, uint64_t bytes);

/*
 * Declare every tensor and write the headers; nothing has the name `path` before
 * mmqi_folder_commit(). `choices` [n_weights] must outlive the folder, as must `source`.
 *
 *   MMQ_ERR_EXISTS       `path` exists
 *   MMQ_ERR_INVALID      `path` lies inside the source
 *   MMQ_ERR_UNSUPPORTED  a packed weight is no tensor of its own, or its name has no parts
 */
int32_t mmqi_folder_open(struct mmqi_folder **out, const struct mmqi_model *source,
                         const struct mmqi_choice *choices, const char *path, uint64_t shard_bytes);
void mmqi_folder_free(struct mmqi_folder *folder); /* removes what is not committed; NULL too */

uint64_t mmqi_folder_file_bytes(const struct mmqi_folder *folder); /* of the weight files */
uint64_t
mmqi_folder_copy_bytes(const struct mmqi_folder *folder); /* that mmqi_folder_copy() tells */

/* Bytes [begin, begin + size) of a part of a weight that changes. */
int32_t mmqi_folder_write(struct mmqi_folder *folder, int32_t weight, int32_t part, uint64_t begin,
                          const void *data, size_t size);
/* The tensors that describe it, once its parts are written. */
int32_t mmqi_folder_describe(struct mmqi_folder *folder, int32_t weight, float nested_offset);

/* Everything that does not change, and the small files, through `buffer`. */
int32_t mmqi_folder_copy(struct mmqi_folder *folder, void *buffer, size_t buffer_bytes,
                         mmqi_folder_tick tick, void *user);
/* Sync, and take the name. Nothing can fail afterwards. */
int32_t mmqi_folder_commit(struct mmqi_folder *folder);

#endif
