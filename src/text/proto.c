#include "text/proto.h"

#include <string.h>

#include "core/status.h"

static int32_t fail_at(const struct mmqi_proto *proto, size_t at, const char *what)
{
    return mmqi_fail(MMQ_ERR_FORMAT, "%s: %s, byte %zu of %zu: %s", proto->name, proto->what, at,
                     proto->size, what);
}

/* Seven bits a byte, the low ones first; bit 7: more come. */
static int32_t read_varint(struct mmqi_proto *proto, uint64_t *value)
{
    size_t begin = proto->at;
    unsigned char byte;

    *value = 0;
    for (int shift = 0; shift < 70; shift += 7) {
        if (proto->at == proto->size)
            return fail_at(proto, begin, "a number goes past the end");
        byte = (unsigned char)proto->data[proto->at++];
        if (shift == 63 && byte > 1)
            break;
        *value |= (uint64_t)(byte & 0x7F) << shift;
        if (byte < 0x80)
            return MMQ_OK;
    }
    return fail_at(proto, begin, "a number of more than 64 bits");
}

static int32_t read_fixed(struct mmqi_proto *proto, size_t size, uint64_t *value)
{
    *value = 0;
    if (proto->size - proto->at < size)
        return fail_at(proto, proto->at, "a number goes past the end");
    for (size_t i = 0; i < size; i++)
        *value |= (uint64_t)(unsigned char)proto->data[proto->at++] << (8 * i);
    return MMQ_OK;
}

static int32_t read_bytes(struct mmqi_proto *proto, struct mmqi_proto_field *field)
{
    size_t begin = proto->at;
    int32_t status = read_varint(proto, &field->value);

    if (status != MMQ_OK)
        return status;
    if (field->value > proto->size - proto->at)
        return fail_at(proto, begin, "a field goes past the end");
    field->bytes = proto->data + proto->at;
    field->size = (size_t)field->value;
    proto->at += field->size;
    return MMQ_OK;
}

int32_t mmqi_proto_next(struct mmqi_proto *proto, struct mmqi_proto_field *field, bool *more)
{
    size_t begin = proto->at;
    uint64_t tag;
    int32_t status;

    memset(field, 0, sizeof *field);
    *more = proto->at < proto->size;
    if (!*more)
        return MMQ_OK;
    status = read_varint(proto, &tag);
    if (status != MMQ_OK)
        return status;
    if (tag >> 3 == 0 || tag > UINT32_MAX)
        return fail_at(proto, begin, "no field has such a number");
    field->number = (uint32_t)tag >> 3;
    field->wire = (enum mmqi_proto_wire)(tag & 7);
    switch (field->wire) {
    case MMQI_PROTO_VARINT:
        return read_varint(proto, &field->value);
    case MMQI_PROTO_FIXED64:
        return read_fixed(proto, 8, &field->value);
    case MMQI_PROTO_BYTES:
        return read_bytes(proto, field);
    case MMQI_PROTO_FIXED32:
        return read_fixed(proto, 4, &field->value);
    }
    return fail_at(proto, begin, "a wire type that is not read");
}

int32_t mmqi_proto_need(const struct mmqi_proto *proto, const struct mmqi_proto_field *field,
                        enum mmqi_proto_wire wire)
{
    if (field->wire == wire)
        return MMQ_OK;
    return mmqi_fail(MMQ_ERR_FORMAT, "%s: %s: field %u has wire type %d, not %d", proto->name,
                     proto->what, (unsigned)field->number, (int)field->wire, (int)wire);
}

int32_t mmqi_proto_bool(const struct mmqi_proto *proto, const struct mmqi_proto_field *field,
                        bool *out)
{
    int32_t status = mmqi_proto_need(proto, field, MMQI_PROTO_VARINT);

    *out = field->value != 0;
    return status;
}

int32_t mmqi_proto_int(const struct mmqi_proto *proto, const struct mmqi_proto_field *field,
                       int32_t *out)
{
    int32_t status = mmqi_proto_need(proto, field, MMQI_PROTO_VARINT);
    int64_t value = (int64_t)field->value;

    *out = 0;
    if (status == MMQ_OK && (value < INT32_MIN || value > INT32_MAX))
        return mmqi_fail(MMQ_ERR_FORMAT, "%s: %s: field %u is %lld", proto->name, proto->what,
                         (unsigned)field->number, (long long)value);
    *out = (int32_t)value;
    return status;
}

int32_t mmqi_proto_float(const struct mmqi_proto *proto, const struct mmqi_proto_field *field,
                         float *out)
{
    int32_t status = mmqi_proto_need(proto, field, MMQI_PROTO_FIXED32);
    uint32_t bits = (uint32_t)field->value;

    memcpy(out, &bits, sizeof bits);
    return status;
}

int32_t mmqi_proto_open(struct mmqi_proto *inner, const char *what, const struct mmqi_proto *proto,
                        const struct mmqi_proto_field *field)
{
    *inner = (struct mmqi_proto){
        .name = proto->name, .what = what, .data = field->bytes, .size = field->size};
    return mmqi_proto_need(proto, field, MMQI_PROTO_BYTES);
}
