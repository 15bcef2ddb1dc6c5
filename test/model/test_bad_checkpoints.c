/*
 * What every family says of a checkpoint that is not right: each committed tiny case, read into
 * memory, with one thing changed. A family's own peculiarities are in test_NAME.c; this is what
 * all have in common, for every tensor and every setting of every case under test/golden.
 *
 * The rule: a status, and one line that names the file, the key or the tensor. What opens all the
 * same stands in one of two tables here, which docs/FAMILIES.md tells, too: settings that nothing
 * reads, and values that fit.
 */
#include <check.h>
#include <dirent.h>
#include <fnmatch.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "core/dtype.h"
#include "core/status.h"
#include "memory_files.h"
#include "mmq.h"
#include "model/family.h"
#include "model/tiny.h"
#include "scratch.h"
#include "support.h"
/* What a model's marker is, is only to be seen inside. */
#include "api/api.h"

enum { MAX_CASES = 64, MAX_FILES = 32 };

/* Folders of cases: the committed ones, and those beside the checkout where they are. */
static char cases[MAX_CASES][512];
static int n_cases;

/* ---- a folder in memory ---- */

struct folder {
    const char *name; /* of the case */
    char names[MAX_FILES][96];
    char *data[MAX_FILES];
    size_t size[MAX_FILES];
    int n;
};

static int compare_cases(const void *a, const void *b)
{
    return strcmp(a, b);
}

static void find_cases_in(const char *text)
{
    DIR *golden = opendir(text);
    char path[sizeof cases[0]];

    if (!golden)
        return;
    snprintf(path, sizeof path, "%s", text); /* `text` is good for a few calls alone */
    for (struct dirent *item = readdir(golden); item; item = readdir(golden)) {
        const char *folder = support_text("%s/%s", path, item->d_name);
        struct stat info;

        if (stat(support_text("%s/model/config.json", folder), &info) != 0 ||
            strlen(folder) >= sizeof cases[0] || n_cases == MAX_CASES)
            continue;
        strcpy(cases[n_cases++], folder);
    }
    closedir(golden);
}

/* No test runs yet that could fail: the first of them counts the cases. */
static void find_cases(void)
{
    find_cases_in(source_path("test/golden"));
    if (shared_path("golden"))
        find_cases_in(shared_path("golden"));
    qsort(cases, (size_t)n_cases, sizeof cases[0], compare_cases);
}

/* The files of `path`, named "beside/NAME" or just "NAME". */
static void add_files(struct folder *f, const char *path, const char *beside)
{
    DIR *folder = opendir(path);
    char file[1024];

    ck_assert_ptr_nonnull(folder);
    for (struct dirent *item = readdir(folder); item; item = readdir(folder)) {
        if (item->d_name[0] == '.')
            continue;
        ck_assert_int_lt(f->n, MAX_FILES);
        ck_assert_int_lt(snprintf(f->names[f->n], sizeof f->names[0], "%s%s%s", beside,
                                  beside[0] ? "/" : "", item->d_name),
                         (int)sizeof f->names[0]);
        snprintf(file, sizeof file, "%s/%s", path, item->d_name);
        f->data[f->n] = read_file(file, &f->size[f->n]);
        f->n++;
    }
    closedir(folder);
}

/* The model of a case, and the folders of other checkpoints that lie beside it (a tower's). */
static struct folder *read_folder(const char *name)
{
    struct folder *f = calloc(1, sizeof *f);
    DIR *all = opendir(name);
    char path[1024];
    struct stat info;

    ck_assert_ptr_nonnull(all);
    f->name = name;
    snprintf(path, sizeof path, "%s/model", name);
    add_files(f, path, "");
    for (struct dirent *item = readdir(all); item; item = readdir(all)) {
        snprintf(path, sizeof path, "%s/%s/config.json", name, item->d_name);
        if (item->d_name[0] == '.' || strcmp(item->d_name, "model") == 0 || stat(path, &info) != 0)
            continue;
        snprintf(path, sizeof path, "%s/%s", name, item->d_name);
        add_files(f, path, item->d_name);
    }
    closedir(all);
    return f;
}

static void free_folder(struct folder *f)
{
    for (int i = 0; i < f->n; i++)
        free(f->data[i]);
    free(f);
}

static int find_file(const struct folder *f, const char *name)
{
    for (int i = 0; i < f->n; i++)
        if (strcmp(f->names[i], name) == 0)
            return i;
    return -1;
}

/* The folder with `file` (-1: none) holding these bytes instead. */
static void fill(struct memory_files *files, const struct folder *f, int file, const void *data,
                 size_t size)
{
    memset(files, 0, sizeof *files);
    for (int i = 0; i < f->n; i++)
        memory_add(files, f->names[i], i == file ? data : f->data[i],
                   i == file ? size : f->size[i]);
}

/* The case's folder, and its family; NULL for one of the shared cases that this build does not run,
 * which is told. */
static struct folder *begin(const char *path, const char **family)
{
    static struct memory_files files;
    struct folder *f = read_folder(path);
    bool committed =
        strncmp(path, source_path("test/golden"), strlen(source_path("test/golden"))) == 0;
    struct mmqi_store *store;
    struct mmqi_model *model;
    int32_t status;

    fill(&files, f, -1, NULL, 0);
    store = memory_store(&files);
    status = mmqi_model_open(&model, store);
    ck_assert_msg(status == MMQ_OK || (!committed && status == MMQ_ERR_UNSUPPORTED), "%s: %s", path,
                  mmqi_message());
    if (status == MMQ_OK && family)
        *family = model->family->name;
    mmqi_model_close(model);
    mmqi_store_release(store);
    if (status == MMQ_OK)
        return f;
    printf("SKIPPED: %s\n", mmqi_message());
    free_folder(f);
    return NULL;
}

/* Open the folder with one file changed; what it says is left in mmqi_message(). */
static int32_t try_open(const struct folder *f, int file, const void *data, size_t size)
{
    static struct memory_files files;
    struct mmqi_store *store;
    struct mmqi_model *model;
    int32_t status;

    fill(&files, f, file, data, size);
    store = memory_store(&files);
    status = mmqi_model_open(&model, store);
    ck_assert((status == MMQ_OK) == (model != NULL));
    mmqi_model_close(model);
    mmqi_store_release(store);
    ck_assert_int_eq(files.n_open, 0);
    return status;
}

static int n_faults;

/* Told, and counted: one run shows all faults of a case. */
__attribute__((format(printf, 1, 2))) static void fault(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    vprintf(format, args);
    va_end(args);
    putchar('\n');
    fflush(stdout);
    n_faults++;
}

static bool says(const char *text)
{
    return strstr(mmqi_message(), text) != NULL;
}

static bool is_fault_of_files(int32_t status)
{
    return status == MMQ_ERR_FORMAT || status == MMQ_ERR_MISMATCH ||
           status == MMQ_ERR_UNSUPPORTED || status == MMQ_ERR_LIMIT;
}

/* ---- settings ---- */

static const char *base_name(const char *name)
{
    const char *slash = strrchr(name, '/');

    return slash ? slash + 1 : name;
}

static bool holds_settings(const char *name)
{
    static const char *const files[] = {"config.json", "generation_config.json",
                                        "preprocessor_config.json", "processor_config.json",
                                        "video_preprocessor_config.json"};

    for (size_t i = 0; i < sizeof files / sizeof *files; i++)
        if (strcmp(base_name(name), files[i]) == 0)
            return true;
    return false;
}

struct allowed {
    const char *family, *file, *key, *value; /* patterns of fnmatch() */
};

/* clang-format off */

/* Settings that no computation reads, whatever they hold. */
static const struct allowed unread[] = {
    {"*", "*", "*transformers_version", "*"},
    {"*", "*", "*_name_or_path", "*"},
    {"*", "*", "*_from_model_config", "*"},
    {"*", "*", "*processor_class", "*"},
    {"*", "*", "*do_convert_rgb", "*"}, /* pictures are RGB */
    {"*", "*config.json", "*dtype", "*"}, /* tensors tell their types */
    {"*", "config.json", "*_config.architectures*", "*"},
    {"*", "*config.json", "*vision_config.vocab_size", "*"}, /* text_config's counts */
    {"llava*", "config.json", "vocab_size", "*"},
    {"llava*", "config.json", "image_seq_length", "*"}, /* the tower tells; files are wrong */
    {"*", "*config.json", "*ignore_index", "*"}, /* of training, as the next ones */
    {"*", "*config.json", "*attention_dropout", "*"},
    {"*", "*config.json", "*initializer_range", "*"},
    {"*", "*config.json", "*initializer_factor", "*"},
    {"*", "config.json", "*pretraining_tp", "*"},
    {"*", "config.json", "*use_cache", "*"},
    {"*", "config.json", "*video_token_id", "*"},
    {"*", "config.json", "*vision_*token_id", "*"}, /* the template writes them */
    {"*", "*config.json", "*projection_dim", "*"}, /* of the pooled output */
    {"qwen*", "config.json", "*sliding_window", "*"}, /* without use_sliding_window */
    {"qwen*", "config.json", "*max_window_layers", "*"},
    {"qwen*", "config.json", "text_config.model_type", "*"},
    {"*", "config.json", "*spatial_patch_size", "*"},
    {"qwen2_5_vl", "config.json", "*tokens_per_second", "*"}, /* of videos */
    {"qwen3_vl", "config.json", "*mrope_interleaved", "*"}, /* the class always does */
    {"llava_next", "config.json", "use_image_newline_parameter", "*"}, /* likewise */
    {"llava_next", "preprocessor_config.json", "aspect_ratio_setting", "*"}, /* likewise */
    {"[is]*", "config.json", "vocab_size", "*"}, /* idefics3, smolvlm: text_config's counts */
    {"[is]*", "config.json", "image_seq_len", "*"}, /* the tower tells */
    {"[is]*", "config.json", "vision_config.max_image_size*", "*"}, /* the processor's file tells */
    {"[is]*", "config.json", "vision_config.size*", "*"},
    {"[is]*", "config.json", "vision_config.tie_word_embeddings", "*"},
    {"[is]*", "config.json", "vision_config.use_base_siglip", "*"},
    {"[is]*", "config.json", "text_config.is_llama_config", "*"}, /* no class reads it, nor: */
    {"[is]*", "config.json", "text_config.qk_layer_norms", "*"},
    {"[is]*", "config.json", "text_config.rope_interleaved", "*"},
    {"[is]*", "config.json", "text_config.use_resampler", "*"},
    {"llava", "config.json", "*freeze_*", "*"}, /* of the original's training, as the next ones */
    {"llava", "config.json", "tune_*", "*"},
    {"llava", "config.json", "use_mm_proj", "*"},
    {"llava", "*config.json", "max_length", "*"}, /* requests say how much */
    {"llava", "*/config.json", "architectures*", "*"}, /* of a CLIP, whose model_type tells */
    {"llava", "*/config.json", "vision_config.model_type", "*"},
    {"llava", "*/config.json", "text_config*", "*"}, /* its text tower is never run */
    {"llava", "*/config.json", "*logit_scale_init_value", "*"},
    {"llava", "*/config.json", "*dropout", "*"},
    {"llava", "*/preprocessor_config.json", "feature_extractor_type", "*"},
    {"*", "generation_config.json", "do_sample", "*"}, /* requests say how to sample */
    {"*", "generation_config.json", "temperature", "*"},
    {"*", "generation_config.json", "top_[kp]", "*"},
    {"*", "generation_config.json", "repetition_penalty", "*"},
    {"*", "*", "*m[ai][xn]_frames", "*"}, /* a caller chooses a video's frames */
    {"*", "*", "*do_sample_frames", "*"},
    {"*", "*", "*return_metadata", "*"},
    {"llava*", "processor_config.json", "[!i]*", "*"}, /* beside the image processor */
    {"llava*", "processor_config.json", "image_token*", "*"},
};

/* Values that mean something to the reference, too. */
static const struct allowed fitting[] = {
    {"*", "*", "*_token_id", "[07]"},
    {"*", "*", "*pad_token_id", "*-1*"}, /* none */
    {"*", "*", "*_token_id", "[[][]]"},
    {"*", "*", "*_token_id.[0-9]", "0"},
    {"*", "config.json", "model_type", "\"*\""}, /* where architectures tells the class */
    {"*", "config.json", "*vision_config.model_type", "\"*\""}, /* likewise */
    {"*", "config.json", "image_token_index", "0"},
    {"*", "*config.json", "*_norm_eps", "0.5"},
    {"qwen*", "config.json", "*_indexes.[0-9]", "0"}, /* of blocks */
    {"*", "config.json", "*rope_theta", "2147483648"},
    {"llava", "config.json", "mm_vision_select_layer", "0"},
    {"llava", "config.json", "mm_vision_select_layer", "-1"},
    {"llava", "config.json", "mm_vision_tower", "\"absurd\""}, /* MMQ_ERR_NOT_FOUND */
    {"*", "config.json", "vision_feature_layer", "0"},
    {"*", "config.json", "vision_feature_layer", "-1"},
    {"*", "config.json", "vision_feature_layer", "[[]-1[]]"},
    {"*", "*processor_config.json", "*image_mean", "7"}, /* for all channels */
    {"*", "*processor_config.json", "*image_mean", "-1"},
    {"*", "*processor_config.json", "*image_std", "7"},
    {"*", "*processor_config.json", "*image_mean.[0-2]", "0"},
    {"*", "*processor_config.json", "*image_mean.[0-2]", "-1"},
    {"*", "*processor_config.json", "*image_mean.[0-2]", "0.5"},
    {"*", "*processor_config.json", "*image_std.[0-2]", "0.5"},
    {"*", "*processor_config.json", "*rescale_factor", "0"},
    {"*", "*processor_config.json", "*rescale_factor", "0.5"},
    {"*", "*processor_config.json", "*resample", "0"},
    {"llava*", "*processor_config.json", "*size", "7"}, /* the shortest edge */
};

/* clang-format on */

static bool is_listed(const struct allowed *list, size_t n, const char *family, const char *file,
                      const char *key, const char *value)
{
    for (size_t i = 0; i < n; i++)
        if (fnmatch(list[i].family, family, 0) == 0 && fnmatch(list[i].file, file, 0) == 0 &&
            fnmatch(list[i].key, key, 0) == 0 && fnmatch(list[i].value, value, 0) == 0)
            return true;
    return false;
}

#define LISTED(list, ...) is_listed(list, sizeof(list) / sizeof *(list), __VA_ARGS__)

/* A file of settings, and the value of it that is being changed. */
struct changing {
    const struct folder *folder;
    const char *family;
    int file;
    json_t *root;
};

static const char mark[] = "\"@value@\"";

/* The file's text with `value`, as it is spelled, in the place of the mark. */
static char *spell(const json_t *root, const char *value, size_t *size)
{
    char *text = json_dumps(root, JSON_INDENT(1)), *at = strstr(text, mark), *out;
    size_t before;

    ck_assert_ptr_nonnull(at);
    before = (size_t)(at - text);
    *size = strlen(text) - (sizeof mark - 1) + strlen(value);
    out = malloc(*size + 1);
    memcpy(out, text, before);
    strcpy(out + before, value);
    strcat(out, at + sizeof mark - 1);
    free(text);
    return out;
}

/* The value at `key` is marked: with `value` there, the model must not open, and say why. */
static void try_value(const struct changing *c, const char *key, const char *value)
{
    const char *file = c->folder->names[c->file];
    size_t size;
    char *text;
    int32_t status;

    if (LISTED(unread, c->family, file, key, value) || LISTED(fitting, c->family, file, key, value))
        return;
    text = spell(c->root, value, &size);
    status = try_open(c->folder, c->file, text, size);
    if (status == MMQ_OK)
        fault("%s: %s: '%s' of %s opens", c->folder->name, file, key, value);
    else if (!is_fault_of_files(status) || (!says(file) && !says("tensors do not make a ")))
        fault("%s: %s: '%s' of %s: status %d, '%s'", c->folder->name, file, key, value, (int)status,
              mmqi_message());
    free(text);
}

static const char *const absurd_numbers[] = {
    "-1",    "0",      "2147483648", "9223372036854775808",
    "1e300", "-1e300", "1e999",      "NaN",
    "0.5",   "\"7\"",  "\"nan\"",    "true",
    "{}",    "[]",     "[-1]",
};
static const char *const absurd_strings[] = {"7", "-1", "true", "[]", "{}", "\"\"", "\"absurd\""};
static const char *const absurd_bools[] = {"1", "0", "\"true\"", "[]", "{}", "NaN"};
static const char *const absurd_containers[] = {"7", "-1", "true", "\"absurd\"", "NaN"};

static void try_values(const struct changing *c, const char *key, const json_t *was)
{
#define TRY_ALL(values)                                                                            \
    for (size_t i = 0; i < sizeof(values) / sizeof *(values); i++)                                 \
    try_value(c, key, (values)[i])
    if (json_is_number(was))
        TRY_ALL(absurd_numbers);
    else if (json_is_string(was))
        TRY_ALL(absurd_strings);
    else if (json_is_boolean(was))
        TRY_ALL(absurd_bools);
    else if (!json_is_null(was))
        TRY_ALL(absurd_containers);
#undef TRY_ALL
}

/* Every value below `node` in turn, containers themselves too. The depth of a config is small. */
static void walk(const struct changing *c, json_t *node, const char *path)
{
    const char *dot = path[0] ? "." : "", *name;
    char key[256];
    json_t *item, *copy;
    size_t i;
    void *next;

    json_object_foreach_safe(node, next, name, item)
    {
        snprintf(key, sizeof key, "%s%s%s", path, dot, name);
        json_incref(item);
        json_object_set_new(node, name, json_string("@value@"));
        try_values(c, key, item);
        json_object_set_new(node, name, item);
        walk(c, item, key);
    }
    for (i = 0; i < json_array_size(node); i++) {
        snprintf(key, sizeof key, "%s%s%zu", path, dot, i);
        copy = json_incref(json_array_get(node, i));
        json_array_set_new(node, i, json_string("@value@"));
        try_values(c, key, copy);
        json_array_set_new(node, i, copy);
        walk(c, copy, key);
    }
}

START_TEST(there_are_cases)
{
    ck_assert_int_gt(n_cases, 1);
}
END_TEST

START_TEST(refuses_every_setting_of_another_kind_or_beyond_its_bounds_by_file_and_key)
{
    const char *family;
    struct folder *f = begin(cases[_i], &family);
    struct changing c = {.folder = f};

    if (!f)
        return;
    c.family = family;
    for (c.file = 0; c.file < f->n; c.file++) {
        if (!holds_settings(f->names[c.file]))
            continue;
        c.root = json_loadb(f->data[c.file], f->size[c.file], 0, NULL);
        ck_assert_ptr_nonnull(c.root);
        walk(&c, c.root, "");
        json_decref(c.root);
    }
    free_folder(f);
    ck_assert_int_eq(n_faults, 0);
}
END_TEST

/* ---- tensors ---- */

/* model.safetensors, apart. */
struct container {
    const struct folder *folder;
    int file;
    json_t *header;
    const char *data; /* after the header */
    size_t data_size;
};

static bool open_container(struct container *k, const struct folder *f)
{
    uint64_t n;

    *k = (struct container){.folder = f, .file = find_file(f, "model.safetensors")};
    if (k->file < 0)
        return false;
    memcpy(&n, f->data[k->file], 8);
    k->header = json_loadb(f->data[k->file] + 8, (size_t)n, 0, NULL);
    ck_assert_ptr_nonnull(k->header);
    k->data = f->data[k->file] + 8 + n;
    k->data_size = f->size[k->file] - 8 - (size_t)n;
    return true;
}

/* Open with this header before the same data, of which `more` bytes are added or cut. */
static int32_t try_header(const struct container *k, const json_t *header, int more)
{
    char *text = json_dumps(header, JSON_COMPACT), *file;
    uint64_t n = strlen(text);
    size_t size = 8 + (size_t)n + k->data_size + (more > 0 ? (size_t)more : 0);
    int32_t status;

    file = calloc(1, size);
    memcpy(file, &n, 8);
    memcpy(file + 8, text, n);
    memcpy(file + 8 + n, k->data, k->data_size);
    status = try_open(k->folder, k->file, file, more < 0 ? size - (size_t)-more : size);
    free(file);
    free(text);
    return status;
}

/* Parts of a tower that never run may be absent. */
static bool is_needed(const struct mmqi_model *model, const char *name)
{
    for (int32_t i = 0; i < model->n_weights; i++) {
        const struct mmqi_weight *w = &model->weights[i];

        for (int part = 0; part < MMQI_MAX_PARTS; part++)
            if (w->entry[part] && strcmp(w->entry[part]->name, name) == 0)
                return !(w->flags & MMQI_WEIGHT_UNUSED);
    }
    return false;
}

static bool is_model_fault(int32_t status, const char *text)
{
    return is_fault_of_files(status) && says(text);
}

/* The tensors of the case in hand, whose model is open beside. */
struct tensors {
    struct folder *folder;
    struct container k;
    struct memory_files files;
    struct mmqi_store *store;
    struct mmqi_model *model;
};

static bool begin_tensors(struct tensors *t, const char *name)
{
    t->folder = begin(name, NULL);
    if (!t->folder)
        return false;
    if (!open_container(&t->k, t->folder)) {
        printf("SKIPPED: %s has no model.safetensors\n", name);
        free_folder(t->folder);
        return false;
    }
    fill(&t->files, t->folder, -1, NULL, 0);
    t->store = memory_store(&t->files);
    ck_assert_msg(mmqi_model_open(&t->model, t->store) == MMQ_OK, "%s: %s", name, mmqi_message());
    return true;
}

static void end_tensors(struct tensors *t)
{
    mmqi_model_close(t->model);
    mmqi_store_release(t->store);
    json_decref(t->k.header);
    free_folder(t->folder);
    ck_assert_int_eq(n_faults, 0);
}

START_TEST(refuses_a_checkpoint_without_any_one_tensor_it_needs)
{
    static struct tensors t;
    const char *name;
    json_t *item;
    int n = 0;

    if (!begin_tensors(&t, cases[_i]))
        return;
    json_object_foreach(t.k.header, name, item)
    {
        json_t *header = json_copy(t.k.header);
        bool needed = is_needed(t.model, name);
        int32_t status;

        json_object_del(header, name);
        status = try_header(&t.k, header, 0);
        json_decref(header);
        if (needed && !(status == MMQ_ERR_MISMATCH && says("; 1 missing (")) &&
            !(status == MMQ_ERR_FORMAT && says("model.safetensors")))
            fault("%s without '%s': status %d, '%s'", cases[_i], name, (int)status, mmqi_message());
        n += needed;
    }
    ck_assert_int_gt(n, 20);
    end_tensors(&t);
}
END_TEST

START_TEST(refuses_a_tensor_too_many)
{
    static struct tensors t;
    json_t *header;

    if (!begin_tensors(&t, cases[_i]))
        return;
    header = json_copy(t.k.header);
    json_object_set_new(header, "no.such.weight",
                        json_pack("{s:s, s:[i], s:[I, I]}", "dtype", "F32", "shape", 1,
                                  "data_offsets", (json_int_t)t.k.data_size,
                                  (json_int_t)t.k.data_size + 4));
    ck_assert_int_eq(try_header(&t.k, header, 4), MMQ_ERR_MISMATCH);
    ck_assert_msg(says("; 1 unused ('no.such.weight')"), "%s", mmqi_message());
    json_decref(header);
    end_tensors(&t);
}
END_TEST

/* Another order of the same sides; false where there is none. */
static bool turn(json_t *shape)
{
    size_t n = json_array_size(shape);
    json_int_t first = json_integer_value(json_array_get(shape, 0));
    json_int_t last = json_integer_value(json_array_get(shape, n - 1));

    if (n == 1) /* a vector: as a column */
        return json_array_append_new(shape, json_integer(1)) == 0;
    json_array_set_new(shape, 0, json_integer(last));
    json_array_set_new(shape, n - 1, json_integer(first));
    return n > 1 && first != last;
}

/* Open with one member of one tensor's entry changed. */
static int32_t try_member(const struct container *k, const char *name, const char *member,
                          json_t *value)
{
    json_t *header = json_deep_copy(k->header);
    int32_t status;

    json_object_set_new(json_object_get(header, name), member, value);
    status = try_header(k, header, 0);
    json_decref(header);
    return status;
}

START_TEST(refuses_every_tensor_transposed_by_its_name)
{
    static struct tensors t;
    const char *name;
    json_t *item;
    int n = 0;

    if (!begin_tensors(&t, cases[_i]))
        return;
    json_object_foreach(t.k.header, name, item)
    {
        json_t *shape = json_deep_copy(json_object_get(item, "shape"));
        int32_t status;

        if (!shape || !turn(shape)) {
            json_decref(shape);
            continue;
        }
        status = try_member(&t.k, name, "shape", shape);
        if (!(status == MMQ_ERR_MISMATCH && says(name)))
            fault("%s, '%s' transposed: status %d, '%s'", cases[_i], name, (int)status,
                  mmqi_message());
        n++;
    }
    ck_assert_int_gt(n, 20);
    end_tensors(&t);
}
END_TEST

/* A type of the same bytes. */
static const char *other_type(const char *dtype, bool is_float)
{
    if (strcmp(dtype, "F32") == 0)
        return is_float ? NULL : "I32";
    if (strcmp(dtype, "BF16") == 0)
        return is_float ? "F16" : "I16";
    return is_float ? "BF16" : "U16";
}

START_TEST(refuses_every_tensor_of_whole_numbers_and_takes_another_float)
{
    static struct tensors t;
    const char *name;
    json_t *item;
    int n = 0;

    if (!begin_tensors(&t, cases[_i]))
        return;
    json_object_foreach(t.k.header, name, item)
    {
        const char *dtype = json_string_value(json_object_get(item, "dtype"));
        int32_t status;

        if (!dtype || dtype[0] == 'I')
            continue;
        status = try_member(&t.k, name, "dtype", json_string(other_type(dtype, false)));
        if (!is_model_fault(status, name))
            fault("%s, '%s' of whole numbers: status %d, '%s'", cases[_i], name, (int)status,
                  mmqi_message());
        n++;
        if (!other_type(dtype, true))
            continue;
        status = try_member(&t.k, name, "dtype", json_string(other_type(dtype, true)));
        if (status != MMQ_OK)
            fault("%s, '%s' of another float: status %d, '%s'", cases[_i], name, (int)status,
                  mmqi_message());
    }
    ck_assert_int_gt(n, 20);
    end_tensors(&t);
}
END_TEST

/* The whole checkpoint once more, every number as f32. */
START_TEST(opens_with_all_tensors_of_f32)
{
    static struct tensors t;
    char *data;
    size_t at = 0, size = 0;
    const char *name;
    json_t *item, *header;

    if (!begin_tensors(&t, cases[_i]))
        return;
    data = calloc(2, t.k.data_size);
    header = json_object();
    json_object_foreach(t.k.header, name, item)
    {
        const char *dtype = json_string_value(json_object_get(item, "dtype"));
        json_t *range = json_object_get(item, "data_offsets");
        json_int_t begin = json_integer_value(json_array_get(range, 0));
        json_int_t end = json_integer_value(json_array_get(range, 1));
        int32_t type = dtype && strcmp(dtype, "BF16") == 0  ? MMQI_BF16
                       : dtype && strcmp(dtype, "F16") == 0 ? MMQI_F16
                                                            : -1;

        if (!dtype)
            continue;
        size = (size_t)(end - begin) * (type < 0 ? 1 : 2);
        if (type < 0)
            memcpy(data + at, t.k.data + begin, size);
        else
            mmqi_to_f32((float *)(void *)(data + at), t.k.data + begin, type, size / 4);
        json_object_set_new(header, name,
                            json_pack("{s:s, s:O, s:[I, I]}", "dtype", type < 0 ? dtype : "F32",
                                      "shape", json_object_get(item, "shape"), "data_offsets",
                                      (json_int_t)at, (json_int_t)(at + size)));
        at += size;
    }
    t.k.data = data;
    t.k.data_size = at;
    ck_assert_msg(try_header(&t.k, header, 0) == MMQ_OK, "%s: %s", cases[_i], mmqi_message());
    json_decref(header);
    free(data);
    end_tensors(&t);
}
END_TEST

START_TEST(refuses_counts_that_are_not_the_bytes)
{
    static struct tensors t;
    static const uint64_t lengths[] = {0, 7, UINT64_C(1) << 31, UINT64_MAX};
    const char *name, *file = "model.safetensors";
    json_t *item;

    if (!begin_tensors(&t, cases[_i]))
        return;
    if (!is_model_fault(try_header(&t.k, t.k.header, -1), file))
        fault("%s, one byte too few: '%s'", cases[_i], mmqi_message());
    if (!is_model_fault(try_header(&t.k, t.k.header, 1), file))
        fault("%s, one byte too many: '%s'", cases[_i], mmqi_message());
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        char *copy = malloc(t.folder->size[t.k.file]);

        memcpy(copy, t.folder->data[t.k.file], t.folder->size[t.k.file]);
        memcpy(copy, &lengths[i], 8);
        if (!is_model_fault(try_open(t.folder, t.k.file, copy, t.folder->size[t.k.file]), file))
            fault("%s, a header of %llu: '%s'", cases[_i], (unsigned long long)lengths[i],
                  mmqi_message());
        free(copy);
    }
    json_object_foreach(t.k.header, name, item)
    {
        json_t *range = json_object_get(item, "data_offsets"), *shape;
        json_int_t begin = json_integer_value(json_array_get(range, 0));
        json_int_t end = json_integer_value(json_array_get(range, 1));

        if (!range)
            continue;
        if (!is_model_fault(try_member(&t.k, name, "data_offsets",
                                       json_pack("[I, I]", begin, (json_int_t)1 << 62)),
                            file) ||
            !is_model_fault(try_member(&t.k, name, "data_offsets", json_pack("[I, I]", end, begin)),
                            file) ||
            !is_model_fault(
                try_member(&t.k, name, "data_offsets", json_pack("[I, I]", begin, end - 2)), file))
            fault("%s, '%s' at other bytes: '%s'", cases[_i], name, mmqi_message());
        shape = json_deep_copy(json_object_get(item, "shape"));
        json_array_set_new(shape, 0, json_integer((json_int_t)1 << 62));
        if (!is_model_fault(try_member(&t.k, name, "shape", shape), file))
            fault("%s, '%s' of 2^62 rows: '%s'", cases[_i], name, mmqi_message());
    }
    end_tensors(&t);
}
END_TEST

/* ---- prompts ---- */

static mmq_model *load_memory(struct memory_files *files)
{
    mmq_reader reader = {.struct_size = sizeof reader,
                         .open = memory_open,
                         .size = memory_size,
                         .read_at = memory_read_at,
                         .close = memory_close,
                         .user = files};
    mmq_load_options options = {
        .struct_size = sizeof options, .reader = &reader, .n_threads = 1, .device = "cpu"};
    mmq_model *model;

    ASSERT_OK(mmq_load(&model, "memory", &options));
    return model;
}

/* What mmq_generate() says of raw text with one picture. */
static mmq_status ask(mmq_session *session, const mmq_image *image, const char *text)
{
    const mmq_image *images[] = {image};
    mmq_prompt prompt = {
        .struct_size = sizeof prompt, .text = text, .images = images, .n_images = image ? 1 : 0};
    mmq_generate_request request = {
        .struct_size = sizeof request, .prompt = &prompt, .max_new_tokens = 1};
    mmq_result *result = NULL;
    mmq_status status = mmq_generate(&result, session, &request);

    ck_assert((status == MMQ_OK) == (result != NULL));
    mmq_result_free(result);
    return status;
}

START_TEST(refuses_image_tokens_that_are_not_the_pictures_number)
{
    static struct memory_files files;
    struct folder *f = begin(cases[_i], NULL);
    mmq_image *image;
    mmq_model *model;
    mmq_session *session;
    const char *marker;
    char text[256];

    if (!f)
        return;
    image = tiny_image(1);
    fill(&files, f, -1, NULL, 0);
    model = load_memory(&files);
    ASSERT_OK(mmq_session_create(&session, model, NULL));
    marker = model->core->spec.image_marker;
    ck_assert_uint_gt(strlen(marker), 2);
    ASSERT_FAILS(MMQ_ERR_INVALID, marker, ask(session, image, "What is this?"));
    snprintf(text, sizeof text, "%s%s What is this?", marker, marker);
    ASSERT_FAILS(MMQ_ERR_INVALID, marker, ask(session, image, text));
    snprintf(text, sizeof text, "%s What is this?", marker);
    ASSERT_FAILS(MMQ_ERR_INVALID, marker, ask(session, NULL, text));
    ASSERT_OK(ask(session, image, text)); /* the session is as good as before */
    mmq_session_free(session);
    mmq_model_free(model);
    mmq_image_free(image);
    free_folder(f);
}
END_TEST

/* tokenizer.json with one more token, whose id the model's vocabulary lacks. */
static char *add_token(const struct folder *f, int file, int32_t id)
{
    json_t *root = json_loadb(f->data[file], f->size[file], 0, NULL);
    char *text;

    ck_assert_ptr_nonnull(root);
    json_array_append_new(json_object_get(root, "added_tokens"),
                          json_pack("{s:i, s:s, s:b, s:b, s:b, s:b, s:b}", "id", (int)id, "content",
                                    "<outside>", "single_word", 0, "lstrip", 0, "rstrip", 0,
                                    "normalized", 0, "special", 1));
    text = json_dumps(root, 0);
    json_decref(root);
    return text;
}

START_TEST(refuses_an_id_outside_the_vocabulary)
{
    static struct memory_files files;
    struct folder *f = begin(cases[_i], NULL);
    int file = f ? find_file(f, "tokenizer.json") : -1;
    mmq_model_facts facts = {.struct_size = sizeof facts};
    mmq_model *model;
    mmq_session *session;
    char *text;

    if (!f)
        return;
    if (file < 0) {
        free_folder(f);
        SKIP("%s has no tokenizer.json", cases[_i]);
    }
    fill(&files, f, -1, NULL, 0);
    model = load_memory(&files);
    ASSERT_OK(mmq_model_info(&facts, model));
    mmq_model_free(model);
    text = add_token(f, file, facts.vocab_size);
    fill(&files, f, file, text, strlen(text));
    model = load_memory(&files);
    ASSERT_OK(mmq_session_create(&session, model, NULL));
    ASSERT_FAILS(MMQ_ERR_FORMAT, support_text("%d", (int)facts.vocab_size),
                 ask(session, NULL, "What is <outside>?"));
    ASSERT_OK(ask(session, NULL, "What is this?"));
    mmq_session_free(session);
    mmq_model_free(model);
    free(text);
    free_folder(f);
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("bad checkpoints");
    TCase *c = tcase_create("every family");

    find_cases();
    tcase_set_timeout(c, 60);
    tcase_add_test(c, there_are_cases);
#define EVERY(test) tcase_add_loop_test(c, test, 0, n_cases)
    EVERY(refuses_every_setting_of_another_kind_or_beyond_its_bounds_by_file_and_key);
    EVERY(refuses_a_checkpoint_without_any_one_tensor_it_needs);
    EVERY(refuses_a_tensor_too_many);
    EVERY(refuses_every_tensor_transposed_by_its_name);
    EVERY(refuses_every_tensor_of_whole_numbers_and_takes_another_float);
    EVERY(opens_with_all_tensors_of_f32);
    EVERY(refuses_counts_that_are_not_the_bytes);
    EVERY(refuses_image_tokens_that_are_not_the_pictures_number);
    EVERY(refuses_an_id_outside_the_vocabulary);
#undef EVERY
    suite_add_tcase(s, c);
    return s;
}

int main(void)
{
    SRunner *runner = srunner_create(suite());
    int failed;

    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? 1 : 0;
}
