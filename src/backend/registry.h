/*
 * The backends that a build has: a list that the api fills, searched by the
 * device's name as users write it ("auto", "cpu", "cuda:0").
 */
#ifndef MMQI_BACKEND_REGISTRY_H
#define MMQI_BACKEND_REGISTRY_H

#include "backend/backend.h"

/*
 * The backend and device index that `device` names. `backends` ends with NULL, best first; "auto"
 * (and NULL) takes the first that has a device. MMQ_ERR_NO_DEVICE names what is not there.
 */
int32_t mmqi_registry_find(const struct mmqi_backend **out, int32_t *index,
                           const struct mmqi_backend *const *backends, const char *device);

/* MMQI_ISA_... of "auto", "c", "avx2", "avx512" (NULL: auto); MMQ_ERR_INVALID for another word. */
int32_t mmqi_isa_find(int32_t *isa, const char *name);

#endif
