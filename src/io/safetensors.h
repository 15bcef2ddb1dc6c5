/*
 * The safetensors container: a checked header, and a writer.
 *
 *   u64 LE header length H | H bytes of JSON | tensor bytes
 *
 * Read: every rule of the format, strictly (contiguous, no holes, no
 * overlap, no trailing bytes, sizes equal to shape x dtype, no duplicate
 * names; H <= 100,000,000, at most 2^20 tensors, rank <= 8, names <= 1024 bytes).
 * Write: the header is known before the first tensor byte, so tensors may be
 * written in any order and in pieces; the bytes of a file depend on nothing
 * but its tensors.
 */
#ifndef MMQI_IO_SAFETENSORS_H
#define MMQI_IO_SAFETENSORS_H

#include "io/checkpoint.h"

struct mmqi_safetensors {
    struct mmqi_entry *entries; /* in file order; offsets from the start of the file */
    size_t n_entries;
    char *names; /* the block that the entries' names point into */
};

/*
 * Reads the header of `file`, and nothing of the data. On failure `out` is empty.
 * MMQ_ERR_FORMAT: a rule is broken; MMQ_ERR_UNSUPPORTED: a dtype that enum mmqi_dtype lacks.
 */
int32_t mmqi_safetensors_parse(struct mmqi_safetensors *out, struct mmqi_file *file);
void mmqi_safetensors_clear(struct mmqi_safetensors *st);

/*
 * The first bytes of a file: the length and the header for `n` entries (name, dtype, rank and shape
 * given; their order kept; offset, from the start of the file, and bytes filled in), padded with
 * spaces to a multiple of 8. *header is freed with mmqi_free(); *file_size is the whole file's.
 * MMQ_ERR_INVALID where mmqi_safetensors_parse() would refuse the file.
 */
int32_t mmqi_safetensors_header(char **header, size_t *header_size, uint64_t *file_size,
                                struct mmqi_entry *entries, size_t n,
                                const char *metadata_json /* object text or NULL */);

#endif
