/*
 * A committed tiny checkpoint, read into memory, to be changed before a model
 * is opened from it.
 */
#ifndef MMQ_TEST_CHECKPOINT_H
#define MMQ_TEST_CHECKPOINT_H

#include <check.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "core/mem.h"
#include "core/status.h"
#include "memory_files.h"
#include "model/model.h"
#include "scratch.h"
#include "support.h"

#define OK(call) ck_assert_msg((call) == MMQ_OK, "%s: %s", #call, mmqi_message())

/* ---- a checkpoint that can be changed ---- */

enum { MAX_TENSORS = 256 };

struct tensor {
    char *name;
    char dtype[8];
    json_t *shape;
    char *data;
    size_t size;
};

struct checkpoint {
    struct tensor tensors[MAX_TENSORS];
    int n;
    json_t *config, *generation, *preprocessor;
    char *tokenizer, *template, *container; /* NULL: no such file */
    char *texts[3];
    size_t tokenizer_size, template_size;
    struct memory_files files;
    struct mmqi_store *store;
    struct mmqi_model *model;
};

__attribute__((unused)) static char *tiny_file(const char *of, const char *name, size_t *size)
{
    return read_file(source_path(support_text("test/golden/%s/model/%s", of, name)), size);
}

__attribute__((unused)) static json_t *tiny_json(const char *of, const char *name)
{
    size_t size;
    char *text = tiny_file(of, name, &size);
    json_t *root = json_loadb(text, size, 0, NULL);

    ck_assert_ptr_nonnull(root);
    free(text);
    return root;
}

__attribute__((unused)) static void add_tensor(struct checkpoint *c, const char *name,
                                               const char *dtype, json_t *shape, const void *data,
                                               size_t size)
{
    struct tensor *t = &c->tensors[c->n++];

    ck_assert_int_lt(c->n, MAX_TENSORS);
    t->name = strdup(name);
    snprintf(t->dtype, sizeof t->dtype, "%s", dtype);
    t->shape = shape;
    t->data = calloc(1, size + 1);
    if (data)
        memcpy(t->data, data, size);
    t->size = size;
}

__attribute__((unused)) static struct checkpoint *tiny_checkpoint(const char *of)
{
    struct checkpoint *c = calloc(1, sizeof *c);
    size_t size, n = 0;
    char *file = tiny_file(of, "model.safetensors", &size);
    const char *name;
    json_t *header, *item;

    memcpy(&n, file, 8);
    header = json_loadb(file + 8, n, 0, NULL);
    ck_assert_ptr_nonnull(header);
    json_object_foreach(header, name, item)
    {
        json_t *range = json_object_get(item, "data_offsets");
        size_t begin = (size_t)json_integer_value(json_array_get(range, 0));

        if (strcmp(name, "__metadata__") == 0)
            continue;
        add_tensor(c, name, json_string_value(json_object_get(item, "dtype")),
                   json_deep_copy(json_object_get(item, "shape")), file + 8 + n + begin,
                   (size_t)json_integer_value(json_array_get(range, 1)) - begin);
    }
    json_decref(header);
    free(file);
    c->config = tiny_json(of, "config.json");
    c->generation = tiny_json(of, "generation_config.json");
    c->preprocessor = tiny_json(of, "preprocessor_config.json");
    c->tokenizer = tiny_file(of, "tokenizer.json", &c->tokenizer_size);
    c->template = tiny_file(of, "chat_template.json", &c->template_size);
    return c;
}

__attribute__((unused)) static struct tensor *find_tensor(struct checkpoint *c, const char *name)
{
    for (int i = 0; i < c->n; i++)
        if (strcmp(c->tensors[i].name, name) == 0)
            return &c->tensors[i];
    ck_abort_msg("no tensor %s", name);
    return NULL;
}

__attribute__((unused)) static void clear_tensor(struct tensor *t)
{
    free(t->name);
    json_decref(t->shape);
    free(t->data);
}

__attribute__((unused)) static void drop_tensor(struct checkpoint *c, const char *name)
{
    struct tensor *t = find_tensor(c, name);

    clear_tensor(t);
    *t = c->tensors[--c->n];
}

/* Drop what begins so. */
__attribute__((unused)) static void drop_tensors(struct checkpoint *c, const char *prefix)
{
    for (int i = c->n - 1; i >= 0; i--)
        if (strncmp(c->tensors[i].name, prefix, strlen(prefix)) == 0)
            drop_tensor(c, c->tensors[i].name);
}

__attribute__((unused)) static void rename_tensors(struct checkpoint *c, const char *from,
                                                   const char *to)
{
    char name[1200];

    for (int i = 0; i < c->n; i++) {
        if (strncmp(c->tensors[i].name, from, strlen(from)) != 0)
            continue;
        snprintf(name, sizeof name, "%s%s", to, c->tensors[i].name + strlen(from));
        free(c->tensors[i].name);
        c->tensors[i].name = strdup(name);
    }
}

/* Set "a.b.c" of an object to the value that `text` spells; NULL takes it away. */
__attribute__((unused)) static void set(json_t *root, const char *path, const char *text)
{
    char *copy = strdup(path), *key = copy, *dot;

    while ((dot = strchr(key, '.')) != NULL) {
        *dot = '\0';
        root = json_object_get(root, key);
        ck_assert_ptr_nonnull(root);
        key = dot + 1;
    }
    if (text)
        ck_assert_int_eq(json_object_set_new(root, key, json_loads(text, JSON_DECODE_ANY, NULL)),
                         0);
    else
        ck_assert_int_eq(json_object_del(root, key), 0);
    free(copy);
}

__attribute__((unused)) static size_t write_container(struct checkpoint *c)
{
    json_t *header = json_object();
    size_t at = 0, length;
    char *text;

    for (int i = 0; i < c->n; i++) {
        const struct tensor *t = &c->tensors[i];

        json_object_set_new(header, t->name,
                            json_pack("{s:s, s:O, s:[I, I]}", "dtype", t->dtype, "shape", t->shape,
                                      "data_offsets", (json_int_t)at, (json_int_t)(at + t->size)));
        at += t->size;
    }
    text = json_dumps(header, JSON_COMPACT);
    length = strlen(text);
    c->container = malloc(8 + length + at);
    memcpy(c->container, &length, 8);
    memcpy(c->container + 8, text, length);
    at = 8 + length;
    for (int i = 0; i < c->n; i++) {
        memcpy(c->container + at, c->tensors[i].data, c->tensors[i].size);
        at += c->tensors[i].size;
    }
    free(text);
    json_decref(header);
    return at;
}

__attribute__((unused)) static void add_json(struct checkpoint *c, int i, const char *name,
                                             const json_t *root)
{
    if (!root)
        return;
    c->texts[i] = json_dumps(root, 0);
    memory_add(&c->files, name, c->texts[i], strlen(c->texts[i]));
}

/* Make the store, once, from what the checkpoint is by now. */
__attribute__((unused)) static void make_store(struct checkpoint *c)
{
    size_t size;

    add_json(c, 0, "config.json", c->config);
    add_json(c, 1, "generation_config.json", c->generation);
    add_json(c, 2, "preprocessor_config.json", c->preprocessor);
    if (c->tokenizer)
        memory_add(&c->files, "tokenizer.json", c->tokenizer, c->tokenizer_size);
    if (c->template)
        memory_add(&c->files, "chat_template.json", c->template, c->template_size);
    size = write_container(c);
    memory_add(&c->files, "model.safetensors", c->container, size);
    c->store = memory_store(&c->files);
}

__attribute__((unused)) static void free_checkpoint(struct checkpoint *c)
{
    mmqi_model_close(c->model);
    mmqi_store_release(c->store);
    ck_assert_int_eq(c->files.n_open, 0);
    for (int i = 0; i < c->n; i++)
        clear_tensor(&c->tensors[i]);
    json_decref(c->config);
    json_decref(c->generation);
    json_decref(c->preprocessor);
    free(c->tokenizer);
    free(c->template);
    free(c->container);
    for (int i = 0; i < 3; i++)
        free(c->texts[i]);
    free(c);
}

__attribute__((unused)) static struct mmqi_model *opens(struct checkpoint *c)
{
    make_store(c);
    OK(mmqi_model_open(&c->model, c->store));
    return c->model;
}

/* It fails so, says `text`, and leaves nothing; ends the checkpoint. */
__attribute__((unused)) static void fails(struct checkpoint *c, int32_t status, const char *text)
{
    make_store(c);
    ck_assert_msg(mmqi_model_open(&c->model, c->store) == status, "status of '%s'", mmqi_message());
    ck_assert_ptr_null(c->model);
    ck_assert_msg(strstr(mmqi_message(), text) != NULL, "'%s' does not say '%s'", mmqi_message(),
                  text);
    free_checkpoint(c);
}

#endif
