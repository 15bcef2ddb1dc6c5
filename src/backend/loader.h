/*
 * Backends that lie in libraries of their own, opened while the program runs,
 * so that libmmq itself never needs what they link to.
 */
#ifndef MMQI_BACKEND_LOADER_H
#define MMQI_BACKEND_LOADER_H

#include "backend/backend.h"

struct mmqi_os_library;

/* A library that was opened, and its table. All zero: none. */
struct mmqi_loaded {
    struct mmqi_os_library *library;
    const struct mmqi_backend *backend;
};

/*
 * Open libmmq-NAME.so at `path`; NULL: beside this library, which for a program that is linked
 * statically is beside the program. Whatever fails, the message names the library:
 *
 *   MMQ_ERR_NO_DEVICE    there is no such library
 *   MMQ_ERR_UNSUPPORTED  it cannot be loaded (something it needs is missing), is no backend, or is
 *                        one of another version
 */
int32_t mmqi_loader_open(struct mmqi_loaded *out, const char *name, const char *path);
void mmqi_loader_close(struct mmqi_loaded *loaded); /* accepts what is all zero */

#endif
