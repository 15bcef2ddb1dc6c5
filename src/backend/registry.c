#include "backend/registry.h"

#include <string.h>

#include "backend/host.h"
#include "core/status.h"

/* The number after "cuda:", 0 when there is none; -1 when it is no number below 1,000. */
static int32_t parse_index(const char *text)
{
    int32_t value = 0, digits = 0;

    if (*text == '\0')
        return 0;
    if (*text++ != ':')
        return -1;
    for (; *text >= '0' && *text <= '9' && digits < 3; text++, digits++)
        value = value * 10 + (*text - '0');
    return *text == '\0' && digits > 0 ? value : -1;
}

int32_t mmqi_registry_find(const struct mmqi_backend **out, int32_t *index,
                           const struct mmqi_backend *const *backends, const char *device)
{
    int32_t n, status;
    size_t size;

    if (!device)
        device = "auto";
    *index = 0;
    for (; *backends; backends++) {
        size = strlen((*backends)->name);
        if (strcmp(device, "auto") == 0 && (*backends)->count(&mmqi_backend_host, &n) == MMQ_OK &&
            n > 0)
            break;
        if (strncmp(device, (*backends)->name, size) != 0)
            continue;
        *index = parse_index(device + size);
        if (*index < 0)
            continue;
        status = (*backends)->count(&mmqi_backend_host, &n);
        if (status != MMQ_OK)
            return status;
        if (*index < n)
            break;
        return mmqi_fail(MMQ_ERR_NO_DEVICE, "device '%s': there are %d of its kind", device,
                         (int)n);
    }
    *out = *backends;
    if (!*backends)
        return mmqi_fail(MMQ_ERR_NO_DEVICE, "device '%s': this build knows no such device", device);
    return MMQ_OK;
}

int32_t mmqi_isa_find(int32_t *isa, const char *name)
{
    static const struct {
        const char *name;
        int32_t isa;
    } rows[] = {
        {"auto", MMQI_ISA_AUTO},
        {"c", MMQI_ISA_C},
        {"avx2", MMQI_ISA_AVX2},
        {"avx512", MMQI_ISA_AVX512},
    };
    size_t i;

    *isa = MMQI_ISA_AUTO;
    if (!name)
        return MMQ_OK;
    for (i = 0; i < sizeof rows / sizeof rows[0]; i++)
        if (strcmp(rows[i].name, name) == 0) {
            *isa = rows[i].isa;
            return MMQ_OK;
        }
    return mmqi_fail(MMQ_ERR_INVALID, "isa '%s': not one of auto, c, avx2, avx512", name);
}
