/*
 * What the suites of src/text share: files in memory, ids compared, JSON vectors.
 */
#ifndef MMQ_TEST_TOKENIZING_H
#define MMQ_TEST_TOKENIZING_H

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/mem.h"
#include "core/status.h"
#include "io/file.h"
#include "support.h"
#include "text/tokenizer.h"
#include "text/tokenizer_folder.h"

/* A whole file, to be freed with free(); NULL where there is none. */
__attribute__((unused)) static char *read_whole(const char *path, size_t *size)
{
    FILE *file = path ? fopen(path, "rb") : NULL;
    char *data = NULL;
    long length;

    if (!file)
        return NULL;
    fseek(file, 0, SEEK_END);
    length = ftell(file);
    rewind(file);
    data = malloc((size_t)length + 1);
    *size = fread(data, 1, (size_t)length, file);
    data[*size] = '\0';
    fclose(file);
    return data;
}

/* NULL where there is no such file; one that cannot be read fails the test. */
__attribute__((unused)) static struct mmqi_tokenizer *load_tokenizer(const char *path)
{
    struct mmqi_tokenizer *tokenizer = NULL;
    size_t size = 0;
    char *text = read_whole(path, &size);

    if (!text)
        return NULL;
    ck_assert_msg(mmqi_tokenizer_parse(&tokenizer, path, text, size) == MMQ_OK, "%s",
                  mmqi_message());
    free(text);
    return tokenizer;
}

/* That of a folder, in whichever spelling; NULL where there is no such folder. */
__attribute__((unused)) static struct mmqi_tokenizer *open_tokenizer(const char *folder)
{
    struct mmqi_tokenizer *tokenizer = NULL;
    struct mmqi_store *store = NULL;

    if (mmqi_store_open_folder(&store, folder) != MMQ_OK)
        return NULL;
    ck_assert_msg(mmqi_tokenizer_open(&tokenizer, store) == MMQ_OK, "%s", mmqi_message());
    mmqi_store_release(store);
    return tokenizer;
}

/* A tokenizer from JSON text that must be good. */
__attribute__((unused)) static struct mmqi_tokenizer *parse_tokenizer(const char *text)
{
    struct mmqi_tokenizer *tokenizer = NULL;

    ck_assert_msg(mmqi_tokenizer_parse(&tokenizer, "tokenizer.json", text, strlen(text)) == MMQ_OK,
                  "%s", mmqi_message());
    return tokenizer;
}

/* "1 2 3" */
__attribute__((unused)) static char *ids_text(const int32_t *ids, size_t n)
{
    char *text = calloc(n + 1, 12), *end = text;
    size_t i;

    for (i = 0; i < n; i++)
        end += sprintf(end, i ? " %d" : "%d", (int)ids[i]);
    return text;
}

/* The ids of `text` in the form of ids_text(). */
__attribute__((unused)) static char *encode_text(const struct mmqi_tokenizer *tokenizer,
                                                 const char *text, size_t size, int32_t flags)
{
    struct mmqi_ids ids = {0};
    char *result;

    ck_assert_msg(mmqi_tokenizer_encode(tokenizer, &ids, text, size, flags) == MMQ_OK, "%s",
                  mmqi_message());
    result = ids_text(ids.data, ids.n);
    mmqi_free(ids.data);
    return result;
}

__attribute__((unused)) static void expect_ids(const struct mmqi_tokenizer *tokenizer,
                                               const char *text, const char *expected)
{
    char *ids = encode_text(tokenizer, text, strlen(text), 0);

    ck_assert_msg(strcmp(ids, expected) == 0, "'%s' gives %s, not %s", text, ids, expected);
    free(ids);
}

/* Decode all at once and piece by piece: both must be `expected`. */
__attribute__((unused)) static void expect_text(const struct mmqi_tokenizer *tokenizer,
                                                const int32_t *ids, size_t n, bool skip_special,
                                                const char *expected, size_t expected_size)
{
    char *text = NULL, *pieces = calloc(expected_size + 65536, 1);
    struct mmqi_decoder *decoder = NULL;
    const char *piece;
    size_t size, n_pieces = 0, i;

    ck_assert_int_eq(mmqi_tokenizer_decode(tokenizer, &text, &size, ids, n, skip_special), MMQ_OK);
    ck_assert_msg(size == expected_size && memcmp(text, expected, size) == 0,
                  "decoded '%s' and not '%s'", text, expected);
    ck_assert_int_eq(mmqi_decoder_create(&decoder, tokenizer, skip_special), MMQ_OK);
    for (i = 0; i <= n; i++) {
        int32_t status = i < n ? mmqi_decoder_feed(decoder, ids[i], &piece, &size)
                               : mmqi_decoder_finish(decoder, &piece, &size);

        ck_assert_int_eq(status, MMQ_OK);
        ck_assert_uint_lt(n_pieces + size, expected_size + 65536);
        memcpy(pieces + n_pieces, piece, size);
        n_pieces += size;
    }
    ck_assert_msg(n_pieces == expected_size && memcmp(pieces, expected, n_pieces) == 0,
                  "the pieces are '%s' and not '%s'", pieces, expected);
    mmqi_decoder_free(decoder);
    mmqi_free(text);
    free(pieces);
}

/* Hooks that give memory out a number of times and count what is held. */
struct scarce {
    size_t left, live;
};

__attribute__((unused)) static void *scarce_alloc(void *user, size_t size)
{
    struct scarce *scarce = user;

    if (scarce->left == 0)
        return NULL;
    scarce->left--;
    scarce->live++;
    return malloc(size);
}

__attribute__((unused)) static void scarce_free(void *user, void *block)
{
    struct scarce *scarce = user;

    scarce->live--;
    free(block);
}

#endif
