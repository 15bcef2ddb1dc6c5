/*
 * The wire format of protocol buffers, one message at a time: a list of
 * fields, each a number, a wire type and a value. Nothing is copied, nothing
 * outside of the message is looked at.
 */
#ifndef MMQI_TEXT_PROTO_H
#define MMQI_TEXT_PROTO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum mmqi_proto_wire {
    MMQI_PROTO_VARINT = 0,
    MMQI_PROTO_FIXED64 = 1,
    MMQI_PROTO_BYTES = 2, /* strings, messages in the message, packed lists */
    MMQI_PROTO_FIXED32 = 5
};

struct mmqi_proto {
    const char *name, *what; /* the file and the message, for messages */
    const char *data;
    size_t size, at;
};

struct mmqi_proto_field {
    uint32_t number;
    enum mmqi_proto_wire wire;
    uint64_t value; /* of a number, as its bits */
    const char *bytes;
    size_t size;
};

/* The next field; false in *more at the end of the message. MMQ_ERR_FORMAT for a number or a length
 * that goes past it, and for wire types that are none or that nobody writes any more (groups). */
int32_t mmqi_proto_next(struct mmqi_proto *proto, struct mmqi_proto_field *field, bool *more);

/* The field must be of this wire type: MMQ_ERR_FORMAT. */
int32_t mmqi_proto_need(const struct mmqi_proto *proto, const struct mmqi_proto_field *field,
                        enum mmqi_proto_wire wire);
/* Of fields that a reader has a use for: a bool, an int32 and a float. */
int32_t mmqi_proto_bool(const struct mmqi_proto *proto, const struct mmqi_proto_field *field,
                        bool *out);
int32_t mmqi_proto_int(const struct mmqi_proto *proto, const struct mmqi_proto_field *field,
                       int32_t *out);
int32_t mmqi_proto_float(const struct mmqi_proto *proto, const struct mmqi_proto_field *field,
                         float *out);
/* The message in the message. */
int32_t mmqi_proto_open(struct mmqi_proto *inner, const char *what, const struct mmqi_proto *proto,
                        const struct mmqi_proto_field *field);

#endif
