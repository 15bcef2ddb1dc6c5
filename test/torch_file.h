/*
 * Zip archives and pickles made byte by byte, for tests: sound ones, and ones
 * that lie where a test tells them to.
 */
#ifndef MMQ_TEST_TORCH_FILE_H
#define MMQ_TEST_TORCH_FILE_H

#include <check.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "core/buf.h"
#include "core/dtype.h"
#include "io/pickle.h"

/* One entry, stored. What is not 0 from `method` on replaces what would be true. */
struct zip_item {
    const char *name;
    const void *data;
    size_t size;
    uint16_t method, flags;
    const char *local_name; /* in its own header */
    int64_t said_size;      /* in the directory, both sizes; -1: 0 */
    int64_t said_packed;    /* the packed one alone */
    uint64_t said_offset;
    uint16_t local_extra; /* bytes of zeros after the local name */
    bool wide;            /* sizes and offset in the zip64 extra field */
};

/* Of the end records, likewise. */
struct zip_end {
    bool wide; /* a zip64 end record and its locator */
    uint64_t said_n, said_size, said_offset, said_end64;
    uint16_t disk;
    const char *comment;
};

__attribute__((unused)) static void put_le(struct mmqi_buf *buf, uint64_t value, int n)
{
    for (; n > 0; n--, value >>= 8)
        mmqi_buf_append(buf, &(char){(char)(value & 0xFF)}, 1);
}

__attribute__((unused)) static void zip_local(struct mmqi_buf *buf, const struct zip_item *item)
{
    const char *name = item->local_name ? item->local_name : item->name;

    mmqi_buf_append(buf, "PK\3\4", 4);
    put_le(buf, 20, 2);
    put_le(buf, item->flags, 2);
    put_le(buf, item->method, 2);
    put_le(buf, 0, 8); /* time, checksum */
    put_le(buf, item->size, 4);
    put_le(buf, item->size, 4);
    put_le(buf, strlen(name), 2);
    put_le(buf, item->local_extra, 2);
    mmqi_buf_text(buf, name);
    for (int i = 0; i < item->local_extra; i++)
        put_le(buf, 0, 1);
    mmqi_buf_append(buf, item->data, item->size);
}

__attribute__((unused)) static void zip_central(struct mmqi_buf *buf, const struct zip_item *item,
                                                uint64_t offset)
{
    uint64_t size = item->size, packed;

    size = item->said_size > 0 ? (uint64_t)item->said_size : item->said_size < 0 ? 0 : size;
    packed = item->said_packed ? (uint64_t)item->said_packed : size;
    offset = item->said_offset ? item->said_offset : offset;
    mmqi_buf_append(buf, "PK\1\2", 4);
    put_le(buf, 20, 2);
    put_le(buf, 20, 2);
    put_le(buf, item->flags, 2);
    put_le(buf, item->method, 2);
    put_le(buf, 0, 8);
    put_le(buf, item->wide ? UINT32_MAX : packed, 4);
    put_le(buf, item->wide ? UINT32_MAX : size, 4);
    put_le(buf, strlen(item->name), 2);
    put_le(buf, item->wide ? 32 : 0, 2);
    put_le(buf, 0, 10);
    put_le(buf, item->wide ? UINT32_MAX : offset, 4);
    mmqi_buf_text(buf, item->name);
    if (!item->wide)
        return;
    put_le(buf, 0xBEEF, 2); /* an extra field that is none of ours */
    put_le(buf, 0, 2);
    put_le(buf, 1, 2);
    put_le(buf, 24, 2);
    put_le(buf, size, 8);
    put_le(buf, packed, 8);
    put_le(buf, offset, 8);
}

__attribute__((unused)) static void zip_end64(struct mmqi_buf *buf, size_t n, uint64_t size,
                                              uint64_t offset, const struct zip_end *end)
{
    const uint64_t at = buf->size;

    mmqi_buf_append(buf, "PK\6\6", 4);
    put_le(buf, 44, 8);
    put_le(buf, 45, 2);
    put_le(buf, 45, 2);
    put_le(buf, end->disk, 4);
    put_le(buf, end->disk, 4);
    put_le(buf, n, 8);
    put_le(buf, n, 8);
    put_le(buf, size, 8);
    put_le(buf, offset, 8);
    mmqi_buf_append(buf, "PK\6\7", 4);
    put_le(buf, 0, 4);
    put_le(buf, end->said_end64 ? end->said_end64 : at, 8);
    put_le(buf, 1, 4);
}

/* Appends a whole archive to the empty `buf`. `end` may be NULL. */
__attribute__((unused)) static void zip_make(struct mmqi_buf *buf, const struct zip_item *items,
                                             size_t n, const struct zip_end *end)
{
    const struct zip_end none = {0};
    uint64_t offsets[512], begin, size;
    const char *comment;
    size_t i;

    end = end ? end : &none;
    comment = end->comment ? end->comment : "";
    ck_assert_uint_le(n, sizeof offsets / sizeof offsets[0]);
    for (i = 0; i < n; i++) {
        offsets[i] = buf->size;
        zip_local(buf, &items[i]);
    }
    begin = buf->size;
    for (i = 0; i < n; i++)
        zip_central(buf, &items[i], offsets[i]);
    size = end->said_size ? end->said_size : buf->size - begin;
    n = end->said_n ? end->said_n : n;
    begin = end->said_offset ? end->said_offset : begin;
    if (end->wide)
        zip_end64(buf, n, size, begin, end);
    mmqi_buf_append(buf, "PK\5\6", 4);
    put_le(buf, end->wide ? 0 : end->disk, 4);
    put_le(buf, end->wide ? UINT16_MAX : n, 2);
    put_le(buf, end->wide ? UINT16_MAX : n, 2);
    put_le(buf, end->wide ? UINT32_MAX : size, 4);
    put_le(buf, end->wide ? UINT32_MAX : begin, 4);
    put_le(buf, strlen(comment), 2);
    mmqi_buf_text(buf, comment);
    ck_assert(!mmqi_buf_failed(buf));
}

/* ---- pickles ---- */

__attribute__((unused)) static void pickle_text(struct mmqi_buf *buf, const char *text)
{
    mmqi_buf_text(buf, "X");
    put_le(buf, strlen(text), 4);
    mmqi_buf_text(buf, text);
}

__attribute__((unused)) static void pickle_int(struct mmqi_buf *buf, int64_t value)
{
    mmqi_buf_append(buf, "\x8a\x08", 2);
    put_le(buf, (uint64_t)value, 8);
}

__attribute__((unused)) static const char *storage_class(int32_t dtype)
{
    static const char *const classes[MMQI_N_DTYPES] = {
        [MMQI_F32] = "FloatStorage",  [MMQI_F16] = "HalfStorage", [MMQI_BF16] = "BFloat16Storage",
        [MMQI_F64] = "DoubleStorage", [MMQI_I8] = "CharStorage",  [MMQI_U8] = "ByteStorage",
        [MMQI_I16] = "ShortStorage",  [MMQI_I32] = "IntStorage",  [MMQI_I64] = "LongStorage",
        [MMQI_BOOL] = "BoolStorage"};

    return classes[dtype] ? classes[dtype] : "NoStorage";
}

/* A call that makes a tensor of storage `key`, which has `length` elements. */
__attribute__((unused)) static void pickle_tensor(struct mmqi_buf *buf,
                                                  const struct mmqi_pickle_tensor *t)
{
    int32_t i;

    mmqi_buf_text(buf, "ctorch._utils\n_rebuild_tensor_v2\n((");
    pickle_text(buf, "storage");
    mmqi_buf_format(buf, "ctorch\n%s\n", storage_class(t->dtype));
    pickle_text(buf, t->key);
    pickle_text(buf, "cpu");
    pickle_int(buf, t->length);
    mmqi_buf_text(buf, "tQ");
    pickle_int(buf, t->offset);
    mmqi_buf_text(buf, "(");
    for (i = 0; i < t->rank; i++)
        pickle_int(buf, t->shape[i]);
    mmqi_buf_text(buf, "t(");
    for (i = 0; i < t->rank; i++)
        pickle_int(buf, t->stride[i]);
    mmqi_buf_text(buf, "t\x89"
                       "ccollections\nOrderedDict\n)RtR");
}

__attribute__((unused)) static void pickle_begin(struct mmqi_buf *buf)
{
    mmqi_buf_append(buf, "\x80\x02}(", 4);
}

__attribute__((unused)) static void pickle_end(struct mmqi_buf *buf)
{
    mmqi_buf_text(buf, "u.");
}

/* Strides of a contiguous tensor. */
__attribute__((unused)) static void fill_strides(struct mmqi_pickle_tensor *t)
{
    int64_t step = 1;
    int32_t i;

    for (i = t->rank - 1; i >= 0; i--) {
        t->stride[i] = step;
        step *= t->shape[i];
    }
}

#endif
