/*
 * From the names of a file to canonical names: a family's prefixes, then its
 * aliases, both data.
 */
#ifndef MMQI_MODEL_NAMES_H
#define MMQI_MODEL_NAMES_H

#include "model/weights.h"

enum mmqi_name_kind {
    MMQI_NAME_UNKNOWN = 0,
    MMQI_NAME_KNOWN,  /* `out` holds the canonical name */
    MMQI_NAME_IGNORED /* a tensor that no weight comes from */
};

enum mmqi_name_kind mmqi_canonical_name(char out[MMQI_MAX_WEIGHT_NAME],
                                        const struct mmqi_family *family, const char *file_name);

#endif
