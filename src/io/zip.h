/*
 * The central directory of a zip archive, whose entries are read in place.
 *
 *   local header | name, extra | bytes | ... | central directory | zip64 end | end
 *
 * Only what is stored as it is: a compressed or encrypted entry is refused,
 * and so is an archive of several disks, one that does not begin at the
 * file's first byte, entries that overlap, that reach past what the
 * directory leaves them, that have one name, or a name that leaves the
 * archive ("..", a leading '/', a backslash, a zero byte).
 */
#ifndef MMQI_IO_ZIP_H
#define MMQI_IO_ZIP_H

#include <stddef.h>
#include <stdint.h>

#include "io/file.h"

struct mmqi_zip_entry {
    const char *name;
    uint64_t header; /* bytes from the start of the file to its local header */
    uint64_t offset; /* and to its own bytes */
    uint64_t bytes;
};

struct mmqi_zip {
    struct mmqi_zip_entry *entries; /* sorted by name */
    size_t n_entries;
    char *names; /* the block that the entries' names point into */
};

/*
 * Reads the directory and the local headers of `file`, at most 2^20 entries. On failure `out` is
 * empty. MMQ_ERR_FORMAT: a rule is broken; MMQ_ERR_UNSUPPORTED: compressed, encrypted, or on
 * several disks; the message names the entry.
 */
int32_t mmqi_zip_parse(struct mmqi_zip *out, struct mmqi_file *file);
const struct mmqi_zip_entry *mmqi_zip_find(const struct mmqi_zip *zip,
                                           const char *name); /* or NULL */
void mmqi_zip_clear(struct mmqi_zip *zip);

#endif
