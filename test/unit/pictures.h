/* What the suites of src/image share: files and the folder of shared data. */
#ifndef TEST_UNIT_PICTURES_H
#define TEST_UNIT_PICTURES_H

#include <check.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/mem.h"
#include "core/status.h"
#include "image/image.h"
#include "meter.h"

#define SHARED_FUNCTION __attribute__((unused)) static

struct bytes {
    uint8_t *data;
    size_t size;
};

/* The path of `name` in the folder of shared data; false where the folder is not there. */
SHARED_FUNCTION bool find_shared(char path[512], const char *name)
{
    static const char *const roots[] = {"../shared", "../../shared"};

    for (size_t i = 0; i < sizeof roots / sizeof *roots; i++) {
        FILE *file;

        snprintf(path, 512, "%s/data/README.md", roots[i]);
        file = fopen(path, "rb");
        if (!file)
            continue;
        fclose(file);
        snprintf(path, 512, "%s/%s", roots[i], name);
        return true;
    }
    return false;
}

#define NEED_SHARED(path, name)                                                                    \
    do {                                                                                           \
        if (!find_shared(path, name)) {                                                            \
            printf("SKIPPED: %s: no folder ../shared\n", __func__);                                \
            return;                                                                                \
        }                                                                                          \
    } while (0)

/* In a block of its exact size, so that a read past its end is seen by the sanitizers. */
SHARED_FUNCTION struct bytes read_file(const char *path)
{
    FILE *file = fopen(path, "rb");
    struct bytes bytes;

    ck_assert_msg(file != NULL, "%s is not there", path);
    fseek(file, 0, SEEK_END);
    bytes.size = (size_t)ftell(file);
    rewind(file);
    bytes.data = malloc(bytes.size ? bytes.size : 1);
    ck_assert_uint_eq(fread(bytes.data, 1, bytes.size, file), bytes.size);
    fclose(file);
    return bytes;
}

SHARED_FUNCTION uint32_t crc32_of(const void *data, size_t size)
{
    const uint8_t *bytes = data;
    uint32_t crc = ~UINT32_C(0);

    for (size_t i = 0; i < size; i++) {
        crc ^= bytes[i];
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (crc & 1 ? UINT32_C(0xEDB88320) : 0);
    }
    return ~crc;
}

SHARED_FUNCTION struct mmqi_image *decode_file(const char *path)
{
    struct bytes file = read_file(path);
    struct mmqi_image *image;

    ck_assert_msg(mmqi_image_decode(&image, path, file.data, file.size, NULL) == MMQ_OK, "%s",
                  mmqi_message());
    free(file.data);
    return image;
}

#endif
