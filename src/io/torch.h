/*
 * What torch.save writes: a zip archive of a pickle and one entry per storage.
 *
 *   NAME/data.pkl | NAME/byteorder | NAME/data/0 | NAME/data/1 | ... | NAME/version
 *
 * A tensor is a view of a storage; several may share one. Only contiguous
 * views are taken, in little-endian files. The forms from before torch 1.6
 * (pickles one after the other, and before these tar archives) and scripted
 * modules are refused by name.
 */
#ifndef MMQI_IO_TORCH_H
#define MMQI_IO_TORCH_H

#include "io/checkpoint.h"

struct mmqi_torch {
    struct mmqi_entry *entries; /* in the dict's order; offsets from the start of the file */
    size_t n_entries;
    char *names; /* the block that the entries' names point into */
};

/*
 * Reads the archive's directory and its pickle, and nothing of the data. On failure `out` is empty.
 *
 *   MMQ_ERR_FORMAT       a rule is broken: the message names tensor, entry or byte
 *   MMQ_ERR_UNSUPPORTED  an older form, big-endian, compressed, a view with gaps, or a pickle that
 *                        asks for what is not on the list
 */
int32_t mmqi_torch_parse(struct mmqi_torch *out, struct mmqi_file *file);
void mmqi_torch_clear(struct mmqi_torch *torch);

#endif
