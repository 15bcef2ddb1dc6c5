/*
 * tokenizer_case [--tokenizers DIR] FILE|DIR...: do tokenizers give what their library gave?
 *
 * Each FILE has the form of ../shared/golden/tokenizer (a DIR stands for all its FILE.json): every
 * string is encoded with and without special tokens, and decoded with and without them, at once and
 * as a stream. Its "tokenizer" names the folder below the DIR of tokenizers. One line per file;
 * exit status 0 only if every string of every file holds.
 */
#include <dirent.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/buf.h"
#include "core/mem.h"
#include "core/status.h"
#include "core/text.h"
#include "text/tokenizer_folder.h"

enum { MOST_FILES = 64, MOST_SAID = 5 };

/* One file of vectors at work. */
struct vectors {
    const char *path;
    json_t *root;
    struct mmqi_tokenizer *tokenizer;
    int n, ids, special, decoded, skipped; /* strings; of them, those that hold */
    int n_said;
};

static const char *tokenizers = "build/tokenizers";

/* Say what went wrong with a string, of the first few. */
static int wrong(struct vectors *v, const char *what, const json_t *text)
{
    if (v->n_said++ < MOST_SAID)
        fprintf(stderr, "%s: %s of '%.60s' differ\n", v->path, what, json_string_value(text));
    return 0;
}

/* The ids of a list; *ids is freed with free(). */
static size_t ids_of(int32_t **ids, const json_t *list)
{
    size_t i, n = json_array_size(list);

    *ids = calloc(n + 1, sizeof **ids);
    for (i = 0; i < n; i++)
        (*ids)[i] = (int32_t)json_integer_value(json_array_get(list, i));
    return n;
}

static int encodes(const struct vectors *v, const json_t *text, const json_t *list, int32_t flags)
{
    struct mmqi_ids made = {0};
    int32_t *want;
    size_t n = ids_of(&want, list);
    int same = mmqi_tokenizer_encode(v->tokenizer, &made, json_string_value(text),
                                     json_string_length(text), flags) == MMQ_OK &&
               made.n == n && (n == 0 || memcmp(made.data, want, n * sizeof *want) == 0);

    mmqi_free(made.data);
    free(want);
    return same;
}

/* All that a stream gives out, at *text; NULL where it fails. */
static char *stream(const struct vectors *v, const int32_t *ids, size_t n, bool skip, size_t *size)
{
    struct mmqi_decoder *decoder = NULL;
    struct mmqi_buf all = {0};
    const char *piece;
    size_t n_piece;
    int32_t status = mmqi_decoder_create(&decoder, v->tokenizer, skip);

    for (size_t i = 0; i <= n && status == MMQ_OK; i++) {
        status = i < n ? mmqi_decoder_feed(decoder, ids[i], &piece, &n_piece)
                       : mmqi_decoder_finish(decoder, &piece, &n_piece);
        if (status == MMQ_OK)
            mmqi_buf_append(&all, piece, n_piece);
    }
    mmqi_decoder_free(decoder);
    *size = all.size;
    return mmqi_buf_take(&all);
}

static int decodes(const struct vectors *v, const json_t *list, const json_t *text, bool skip)
{
    char *made = NULL, *streamed;
    int32_t *ids;
    size_t n = ids_of(&ids, list), size = 0, n_streamed;
    int same = mmqi_tokenizer_decode(v->tokenizer, &made, &size, ids, n, skip) == MMQ_OK &&
               size == json_string_length(text) && memcmp(made, json_string_value(text), size) == 0;

    streamed = stream(v, ids, n, skip, &n_streamed);
    same = same && streamed && n_streamed == size && memcmp(streamed, made, size) == 0;
    mmqi_free(streamed);
    mmqi_free(made);
    free(ids);
    return same;
}

static void check_string(struct vectors *v, const json_t *vector)
{
    const json_t *text = json_object_get(vector, "text"), *ids = json_object_get(vector, "ids");
    const json_t *special = json_object_get(vector, "ids_special");
    const json_t *decoded = json_object_get(vector, "decoded");
    const json_t *skipped = json_object_get(vector, "decoded_skip_special");

    if (!special) /* written only where they differ */
        special = ids;
    if (!skipped)
        skipped = decoded;
    v->n++;
    v->ids += encodes(v, text, ids, 0) || wrong(v, "ids", text);
    v->special += encodes(v, text, special, MMQI_TOKENIZE_POST) || wrong(v, "ids_special", text);
    v->decoded += decodes(v, ids, decoded, false) || wrong(v, "decoded", text);
    v->skipped += decodes(v, special, skipped, true) || wrong(v, "decoded_skip_special", text);
}

static int open_vectors(struct vectors *v)
{
    struct mmqi_store *store = NULL;
    char folder[4096];
    int32_t status;

    v->root = json_load_file(v->path, JSON_ALLOW_NUL, NULL);
    snprintf(folder, sizeof folder, "%s/%s", tokenizers,
             json_string_value(json_object_get(v->root, "tokenizer"))
                 ? json_string_value(json_object_get(v->root, "tokenizer"))
                 : "?");
    status = v->root ? mmqi_store_open_folder(&store, folder) : MMQ_ERR_FORMAT;
    if (status == MMQ_OK)
        status = mmqi_tokenizer_open(&v->tokenizer, store);
    mmqi_store_release(store);
    if (status != MMQ_OK)
        fprintf(stderr, "%s: %s\n", v->path, v->root ? mmqi_message() : "it is no JSON file");
    return status == MMQ_OK;
}

static int check_file(const char *path)
{
    struct vectors v = {.path = path};
    json_t *vector;
    size_t i;
    int holds;

    if (open_vectors(&v))
        json_array_foreach(json_object_get(v.root, "strings"), i, vector) check_string(&v, vector);
    holds = v.n > 0 && v.ids == v.n && v.special == v.n && v.decoded == v.n && v.skipped == v.n;
    printf("%s: ids %d/%d special %d/%d decoded %d/%d skipped %d/%d: %s\n", path, v.ids, v.n,
           v.special, v.n, v.decoded, v.n, v.skipped, v.n, holds ? "holds" : "DOES NOT HOLD");
    mmqi_tokenizer_free(v.tokenizer);
    json_decref(v.root);
    return holds ? 0 : 1;
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* The files of a folder in order of their names; returns how many of them do not hold. */
static int check_folder(const char *path, DIR *folder, int *n_files)
{
    char *files[MOST_FILES], name[4096];
    const struct dirent *entry;
    int n = 0, failed = 0, i;

    while (n < MOST_FILES && (entry = readdir(folder)) != NULL) {
        if (!mmqi_ends_with(entry->d_name, ".json"))
            continue;
        snprintf(name, sizeof name, "%s/%s", path, entry->d_name);
        files[n++] = strdup(name);
    }
    qsort(files, (size_t)n, sizeof *files, compare_names);
    for (i = 0; i < n; i++) {
        failed += check_file(files[i]);
        free(files[i]);
    }
    *n_files += n;
    return failed;
}

int main(int argc, char **argv)
{
    int failed = 0, n_files = 0, i;
    DIR *folder;

    for (i = 1; i + 1 < argc; i++)
        if (strcmp(argv[i], "--tokenizers") == 0)
            tokenizers = argv[i + 1];
    for (i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--tokenizers") == 0) {
            i++;
            continue;
        }
        folder = opendir(argv[i]);
        if (folder) {
            failed += check_folder(argv[i], folder, &n_files);
            closedir(folder);
        } else {
            failed += check_file(argv[i]);
            n_files++;
        }
    }
    if (n_files == 0)
        fprintf(stderr, "usage: tokenizer_case [--tokenizers DIR] FILE|DIR...\n");
    printf("%d passed, %d failed\n", n_files - failed, failed);
    return failed || n_files == 0 ? 1 : 0;
}
