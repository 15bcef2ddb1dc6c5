/* Version, statuses, messages, structs and cancelling. */
#include <string.h>

#include "api/api.h"
#include "core/mem.h"

int32_t mmq_version(void)
{
    return MMQ_VERSION_MAJOR << 16 | MMQ_VERSION_MINOR << 8 | MMQ_VERSION_PATCH;
}

const char *mmq_version_string(void)
{
    return "0.1.0";
}

static const struct {
    mmq_status status;
    const char *name, *text;
} statuses[] = {
    {MMQ_OK, "MMQ_OK", "success"},
    {MMQ_ERR_INVALID, "MMQ_ERR_INVALID", "a bad argument"},
    {MMQ_ERR_STATE, "MMQ_ERR_STATE", "right call, wrong moment"},
    {MMQ_ERR_UNSUPPORTED, "MMQ_ERR_UNSUPPORTED", "valid, but not run by this build or device"},
    {MMQ_ERR_NOMEM, "MMQ_ERR_NOMEM", "no memory"},
    {MMQ_ERR_LIMIT, "MMQ_ERR_LIMIT", "a limit would be passed"},
    {MMQ_ERR_CONTEXT_FULL, "MMQ_ERR_CONTEXT_FULL", "the session holds no more tokens"},
    {MMQ_ERR_IO, "MMQ_ERR_IO", "a file cannot be opened, read or written"},
    {MMQ_ERR_NOT_FOUND, "MMQ_ERR_NOT_FOUND", "no such file, tensor or name"},
    {MMQ_ERR_FORMAT, "MMQ_ERR_FORMAT", "the bytes are not what they should be"},
    {MMQ_ERR_EXISTS, "MMQ_ERR_EXISTS", "the destination exists"},
    {MMQ_ERR_MISMATCH, "MMQ_ERR_MISMATCH", "tensors missing, unused or of another shape"},
    {MMQ_ERR_CANCELLED, "MMQ_ERR_CANCELLED", "cancelled"},
    {MMQ_ERR_CALLBACK, "MMQ_ERR_CALLBACK", "a callback ended the call"},
    {MMQ_ERR_DEVICE, "MMQ_ERR_DEVICE", "the device failed"},
    {MMQ_ERR_NO_DEVICE, "MMQ_ERR_NO_DEVICE", "no such device"},
    {MMQ_ERR_INTERNAL, "MMQ_ERR_INTERNAL", "a bug in the library"},
};

const char *mmq_status_name(mmq_status status)
{
    size_t i;

    for (i = 0; i < sizeof statuses / sizeof statuses[0]; i++)
        if (statuses[i].status == status)
            return statuses[i].name;
    return "MMQ_ERR_?";
}

const char *mmq_status_text(mmq_status status)
{
    size_t i;

    for (i = 0; i < sizeof statuses / sizeof statuses[0]; i++)
        if (statuses[i].status == status)
            return statuses[i].text;
    return "an unknown status";
}

const char *mmq_last_error_message(void)
{
    return mmqi_message();
}

/* The size that a caller's struct begins with; MMQ_ERR_INVALID where it cannot be one. */
static int32_t read_size(size_t *size, const void *from, const char *name)
{
    memcpy(size, from, sizeof *size);
    if (*size < sizeof *size || *size > 1 << 16)
        return mmqi_fail(MMQ_ERR_INVALID, "%s: struct_size is %zu; set it to sizeof", name, *size);
    return MMQ_OK;
}

int32_t mmqi_take_struct(void *dst, size_t known, const void *src, const char *name)
{
    const unsigned char *bytes = src;
    size_t size, i;
    int32_t status;

    memset(dst, 0, known);
    if (!src)
        return MMQ_OK;
    status = read_size(&size, src, name);
    if (status != MMQ_OK)
        return status;
    for (i = known; i < size; i++)
        if (bytes[i] != 0)
            return mmqi_fail(MMQ_ERR_INVALID, "%s: byte %zu is set, this library knows %zu", name,
                             i, known);
    memcpy(dst, src, size < known ? size : known);
    return MMQ_OK;
}

int32_t mmqi_clear_struct(void *dst, const char *name)
{
    size_t size;
    int32_t status;

    if (!dst)
        return mmqi_fail(MMQ_ERR_INVALID, "%s: it is NULL", name);
    status = read_size(&size, dst, name);
    if (status == MMQ_OK)
        memset((char *)dst + sizeof size, 0, size - sizeof size);
    return status;
}

void mmqi_give_struct(void *dst, const void *src, size_t known)
{
    size_t size;

    memcpy(&size, dst, sizeof size);
    memcpy((char *)dst + sizeof size, (const char *)src + sizeof size,
           (size < known ? size : known) - sizeof size);
}

mmq_status mmq_cancel_create(mmq_cancel **out)
{
    if (!out)
        return mmqi_fail(MMQ_ERR_INVALID, "mmq_cancel_create: out is NULL");
    *out = mmqi_calloc(1, sizeof **out);
    return *out ? MMQ_OK : mmqi_fail(MMQ_ERR_NOMEM, "mmq_cancel_create: no memory");
}

void mmq_cancel_raise(mmq_cancel *cancel)
{
    if (cancel)
        __atomic_store_n(&cancel->raised, 1, __ATOMIC_RELAXED);
}

void mmq_cancel_free(mmq_cancel *cancel)
{
    mmqi_free(cancel);
}

const int32_t *mmqi_cancel_flag(const mmq_cancel *cancel)
{
    return cancel ? &cancel->raised : NULL;
}
