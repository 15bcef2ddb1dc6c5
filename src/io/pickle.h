/*
 * The pickle of a torch state dict, interpreted and never executed.
 *
 * A pickle is a program for a stack machine that can call anything. This
 * machine knows the opcodes that torch.save writes for dicts of tensors, and
 * the few globals in the table of pickle.c; a call makes a description of a
 * tensor, of a storage or of a dict. Any other opcode, global or call is
 * refused by name, with its offset. Strings, numbers and lists beside the
 * tensors are passed over. Stack, memo and tables grow with the bytes that
 * were read, and nothing recurs.
 */
#ifndef MMQI_IO_PICKLE_H
#define MMQI_IO_PICKLE_H

#include "io/checkpoint.h"

/* A named view of a storage. Sizes and offsets are not checked against the storage's bytes. */
struct mmqi_pickle_tensor {
    const char *name; /* not ended by a zero byte, and may hold some; so is key */
    size_t name_size;
    const char *key; /* of its storage */
    size_t key_size;
    int32_t dtype; /* enum mmqi_dtype, of the storage */
    int32_t rank;
    int64_t shape[MMQI_MAX_RANK], stride[MMQI_MAX_RANK]; /* elements; none negative */
    int64_t offset, length; /* elements: where the view begins, and the storage's */
};

struct mmqi_pickle {
    struct mmqi_pickle_tensor *tensors; /* in the order of the dict */
    size_t n_tensors;
};

/*
 * The tensors of the dict that `bytes` describe: of the dict under "module", "state_dict" or
 * "model" (the first of these that is there), as often as there is one. `bytes` must outlive `out`;
 * `path` opens every message. On failure `out` is empty.
 *
 *   MMQ_ERR_FORMAT       no pickle, or none of a dict of tensors
 *   MMQ_ERR_UNSUPPORTED  an opcode, global, call or storage that is not on the list
 */
int32_t mmqi_pickle_read(struct mmqi_pickle *out, const char *path, const void *bytes, size_t size);
void mmqi_pickle_clear(struct mmqi_pickle *pickle);

#endif
