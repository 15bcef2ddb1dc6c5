#include "backend/loader.h"

#include <stdio.h>
#include <string.h>

#include "backend/host.h"
#include "core/mem.h"
#include "core/os.h"
#include "core/status.h"

static int32_t enter(struct mmqi_loaded *loaded, const char *name, const char *path)
{
    mmqi_backend_entry entry;
    char symbol[64];
    int32_t status;

    snprintf(symbol, sizeof symbol, "mmqi_%s_backend", name);
    *(void **)&entry = mmqi_os_library_symbol(loaded->library, symbol);
    if (!entry)
        return mmqi_fail(MMQ_ERR_UNSUPPORTED, "%s: has no %s: not a backend of libmmq", path,
                         symbol);
    status = entry(MMQI_BACKEND_ABI, &mmqi_backend_host, &loaded->backend);
    if (status != MMQ_OK || !loaded->backend)
        return mmqi_fail(MMQ_ERR_UNSUPPORTED,
                         "%s: of another version: this libmmq takes backends of number %u", path,
                         MMQI_BACKEND_ABI);
    return MMQ_OK;
}

int32_t mmqi_loader_open(struct mmqi_loaded *out, const char *name, const char *path)
{
    struct mmqi_loaded loaded = {NULL, NULL};
    char file[64], *beside = NULL;
    int32_t status;

    memset(out, 0, sizeof *out);
    snprintf(file, sizeof file, "libmmq-%s.so", name);
    if (!path)
        path = beside = mmqi_os_beside(&mmqi_backend_host, file);
    if (!path)
        return mmqi_fail(MMQ_ERR_NO_DEVICE, "%s: the folder of libmmq is not known", file);
    status = mmqi_os_library_open(&loaded.library, path);
    if (status == MMQ_ERR_NOT_FOUND)
        status = mmqi_fail(MMQ_ERR_NO_DEVICE, "%s: there is no such library", path);
    if (status == MMQ_OK)
        status = enter(&loaded, name, path);
    if (status == MMQ_OK)
        *out = loaded;
    else
        mmqi_loader_close(&loaded);
    mmqi_free(beside);
    return status;
}

void mmqi_loader_close(struct mmqi_loaded *loaded)
{
    mmqi_os_library_close(loaded->library);
    memset(loaded, 0, sizeof *loaded);
}
