/*
 * One checkpoint in several spellings: containers, shards, names and folders
 * differ, and what is computed is the same to the bit. And what the authors'
 * form of LLaVA says of folders that do not fit.
 *
 * Every spelling is the committed tiny LLaVA, written anew.
 */
#include <errno.h>

#include "meter.h"
#include "model/checkpoint.h"
#include "model/tiny.h"
#include "torch_file.h"

static void write_bytes(const char *path, const void *data, size_t size)
{
    FILE *file = fopen(path, "wb");

    ck_assert_msg(file != NULL, "%s", path);
    ck_assert_uint_eq(fwrite(data, 1, size, file), size);
    fclose(file);
}

static void make_folder(const char *path)
{
    ck_assert(mkdir(path, 0777) == 0 || errno == EEXIST);
}

static void write_json(const char *folder, const char *name, const json_t *root)
{
    char *text = json_dumps(root, 0);

    write_bytes(support_text("%s/%s", folder, name), text, strlen(text));
    free(text);
}

/* ---- containers ---- */

/* Which of the tensors: those whose index is `part` modulo `n_parts`. */
struct share {
    int part, n_parts;
};

static bool is_in(const struct share *share, int i)
{
    return i % share->n_parts == share->part;
}

static void describe(struct mmqi_pickle_tensor *out, const struct tensor *t, const char *key)
{
    *out = (struct mmqi_pickle_tensor){.key = key, .dtype = mmqi_dtype_from_name(t->dtype)};
    out->rank = (int32_t)json_array_size(t->shape);
    out->length = (int64_t)(t->size / mmqi_dtype_size(out->dtype));
    for (int32_t i = 0; i < out->rank; i++)
        out->shape[i] = json_integer_value(json_array_get(t->shape, (size_t)i));
    fill_strides(out);
}

/* A file as torch.save writes it; `wrapper` is the key of a dict around the dict, or NULL. */
static void write_torch(const char *path, const struct checkpoint *c, struct share share,
                        const char *wrapper)
{
    static char keys[MAX_TENSORS][32];
    static struct zip_item items[MAX_TENSORS + 1];
    struct mmqi_buf pickle = {0}, buf = {0};
    struct mmqi_pickle_tensor t;
    size_t n = 1;

    pickle_begin(&pickle);
    if (wrapper) {
        pickle_text(&pickle, wrapper);
        mmqi_buf_text(&pickle, "}(");
    }
    for (int i = 0; i < c->n; i++) {
        if (!is_in(&share, i))
            continue;
        snprintf(keys[i], sizeof keys[i], "archive/data/%d", i);
        describe(&t, &c->tensors[i], keys[i] + strlen("archive/data/"));
        pickle_text(&pickle, c->tensors[i].name);
        pickle_tensor(&pickle, &t);
        items[n++] = (struct zip_item){
            .name = keys[i], .data = c->tensors[i].data, .size = c->tensors[i].size};
    }
    if (wrapper)
        mmqi_buf_text(&pickle, "u");
    pickle_end(&pickle);
    items[0] =
        (struct zip_item){.name = "archive/data.pkl", .data = pickle.data, .size = pickle.size};
    zip_make(&buf, items, n, &(struct zip_end){.wide = true});
    write_bytes(path, buf.data, buf.size);
    mmqi_buf_free(&buf);
    mmqi_buf_free(&pickle);
}

static void write_safetensors(const char *path, const struct checkpoint *c, struct share share)
{
    struct checkpoint *some = calloc(1, sizeof *some);
    size_t size;

    for (int i = 0; i < c->n; i++)
        if (is_in(&share, i))
            some->tensors[some->n++] = c->tensors[i];
    size = write_container(some);
    write_bytes(path, some->container, size);
    free(some->container);
    free(some);
}

static void write_index(const char *path, const struct checkpoint *c, const char *const names[2])
{
    json_t *map = json_object(), *root;

    for (int i = 0; i < c->n; i++)
        json_object_set_new(map, c->tensors[i].name, json_string(names[i % 2]));
    root = json_pack("{s:{s:i}, s:o}", "metadata", "total_size", 1, "weight_map", map);
    write_json(".", path, root);
    json_decref(root);
}

/* ---- folders ---- */

/* The small files of Hugging Face's form. */
static void write_files(const char *folder, const struct checkpoint *c)
{
    make_folder(folder);
    write_json(folder, "config.json", c->config);
    write_json(folder, "generation_config.json", c->generation);
    if (c->preprocessor)
        write_json(folder, "preprocessor_config.json", c->preprocessor);
    write_bytes(support_text("%s/tokenizer.json", folder), c->tokenizer, c->tokenizer_size);
}

static const struct share whole = {0, 1};

static void spell_hub_bin(const struct checkpoint *c)
{
    write_files("m", c);
    write_torch("m/pytorch_model.bin", c, whole, NULL);
}

static void spell_hub_nested(const struct checkpoint *c)
{
    write_files("m", c);
    write_torch("m/pytorch_model.pt", c, whole, "module");
}

static void spell_hub_safetensors(const struct checkpoint *c)
{
    static const char *const names[] = {"a.safetensors", "b.safetensors"};

    write_files("m", c);
    write_safetensors("m/a.safetensors", c, (struct share){0, 2});
    write_safetensors("m/b.safetensors", c, (struct share){1, 2});
    write_index("m/model.safetensors.index.json", c, names);
}

static void spell_hub_shards(const struct checkpoint *c)
{
    static const char *const names[] = {"a.bin", "b.bin"};

    write_files("m", c);
    write_torch("m/a.bin", c, (struct share){0, 2}, NULL);
    write_torch("m/b.bin", c, (struct share){1, 2}, "state_dict");
    write_index("m/pytorch_model.bin.index.json", c, names);
}

/* ---- the authors' form ---- */

static const char original_config[] =
    "{\"architectures\": [\"LlavaLlamaForCausalLM\"], \"model_type\": \"llava\","
    " \"hidden_size\": 96, \"intermediate_size\": 112, \"num_hidden_layers\": 3,"
    " \"num_attention_heads\": 6, \"num_key_value_heads\": 2, \"vocab_size\": 456,"
    " \"max_position_embeddings\": 512, \"rms_norm_eps\": 1e-05, \"hidden_act\": \"silu\","
    " \"mm_vision_tower\": \"openai/clip-tiny/\", \"mm_hidden_size\": 48,"
    " \"mm_projector_type\": \"mlp2x_gelu\", \"mm_vision_select_layer\": -2,"
    " \"mm_vision_select_feature\": \"patch\", \"image_aspect_ratio\": \"pad\","
    " \"mm_use_im_start_end\": false, \"mm_use_im_patch_token\": false,"
    " \"tie_word_embeddings\": false}";

/* The tiny LLaVA by its authors' names, and its tower, a CLIP with parts to leave out. */
struct original {
    struct checkpoint *model, *tower;
};

static struct original make_original(void)
{
    struct original o = {tiny_checkpoint("llava_tiny"), tiny_checkpoint("llava_tiny")};
    json_t *config = json_loads(original_config, 0, NULL), *vision;

    drop_tensors(o.model, "vision_tower.");
    rename_tensors(o.model, "language_model.", "");
    rename_tensors(o.model, "multi_modal_projector.linear_1.", "model.mm_projector.0.");
    rename_tensors(o.model, "multi_modal_projector.linear_2.", "model.mm_projector.2.");
    add_tensor(o.model, "model.layers.0.self_attn.rotary_emb.inv_freq", "F32", json_pack("[i]", 8),
               NULL, 32);
    drop_tensors(o.tower, "language_model.");
    drop_tensors(o.tower, "multi_modal_projector.");
    rename_tensors(o.tower, "vision_tower.", "");
    add_tensor(o.tower, "logit_scale", "F32", json_pack("[]"), NULL, 4);
    add_tensor(o.tower, "text_model.embeddings.token_embedding.weight", "F32",
               json_pack("[i, i]", 2, 2), NULL, 16);
    add_tensor(o.tower, "vision_model.embeddings.position_ids", "I64", json_pack("[i, i]", 1, 10),
               NULL, 80);
    vision = o.tower->config;
    o.tower->config = json_pack("{s:o, s:s, s:O}", "text_config", json_object(), "model_type",
                                "clip", "vision_config", json_object_get(vision, "vision_config"));
    json_decref(vision);
    json_decref(o.model->config);
    o.model->config = config;
    json_decref(o.model->preprocessor);
    o.model->preprocessor = NULL;
    return o;
}

static void free_original(struct original *o)
{
    free_checkpoint(o->model);
    free_checkpoint(o->tower);
}

static void write_tower(const char *folder, const struct checkpoint *tower)
{
    make_folder(folder);
    write_json(folder, "config.json", tower->config);
    if (tower->preprocessor)
        write_json(folder, "preprocessor_config.json", tower->preprocessor);
    write_torch(support_text("%s/pytorch_model.bin", folder), tower, whole, NULL);
}

static void write_original(const struct original *o, const char *tower_folder)
{
    static const char *const names[] = {"a.bin", "b.bin"};

    write_files("m", o->model);
    write_torch("m/a.bin", o->model, (struct share){0, 2}, NULL);
    write_torch("m/b.bin", o->model, (struct share){1, 2}, NULL);
    write_index("m/pytorch_model.bin.index.json", o->model, names);
    if (tower_folder)
        write_tower(tower_folder, o->tower);
}

static void spell_original(const struct checkpoint *c)
{
    struct original o = make_original();

    (void)c;
    write_original(&o, "clip-tiny");
    free_original(&o);
}

/* As LLaVA-1.6 has it: the tower among the model's tensors too; its folder only tells settings. */
static void spell_original_with_tower(const struct checkpoint *c)
{
    struct original o = make_original();

    (void)c;
    for (int i = 0; i < o.tower->n; i++) {
        struct tensor *t = &o.tower->tensors[i];

        if (strncmp(t->name, "vision_model.", 13) == 0)
            add_tensor(o.model, support_text("model.vision_tower.vision_tower.%s", t->name),
                       t->dtype, json_incref(t->shape), t->data, t->size);
    }
    while (o.tower->n > 1)
        drop_tensor(o.tower, o.tower->tensors[0].name);
    write_original(&o, "m/clip-tiny");
    free_original(&o);
}

/* ---- what a spelling computes ---- */

struct answer {
    float *logits;
    size_t n;
};

static int32_t keep_logits(void *user, size_t index, const float *logits, size_t n_vocab)
{
    struct answer *answer = user;

    (void)index;
    answer->logits = realloc(answer->logits, (answer->n + n_vocab) * sizeof *answer->logits);
    memcpy(answer->logits + answer->n, logits, n_vocab * sizeof *logits);
    answer->n += n_vocab;
    return 0;
}

/* Square pictures: padded or cropped, they are the same. */
static mmq_image *square(int seed)
{
    static uint8_t pixels[50 * 50 * 3];
    mmq_image *image;

    for (int i = 0; i < (int)sizeof pixels; i++)
        pixels[i] = (uint8_t)((i * 37 + (i / 150) * seed * 11 + seed * 91) >> 1);
    ASSERT_OK(mmq_image_from_pixels(&image, pixels, 50, 50, 3, 0, NULL));
    return image;
}

static struct answer ask(const char *path, const mmq_load_options *options)
{
    mmq_image *images[] = {square(1), square(2)};
    const mmq_image *list[] = {images[0], images[1]};
    const mmq_prompt prompt = {.struct_size = sizeof prompt,
                               .text = "USER: <image>\nWhat is in <image>? ASSISTANT:",
                               .images = list,
                               .n_images = 2};
    struct answer answer = {0};
    mmq_generate_request request = {.struct_size = sizeof request,
                                    .prompt = &prompt,
                                    .max_new_tokens = 6,
                                    .ignore_eos = 1,
                                    .on_logits = keep_logits,
                                    .logits_user = &answer};
    mmq_session *session;
    mmq_result *result;
    mmq_model *model;

    ASSERT_OK(mmq_load(&model, path, options));
    ASSERT_OK(mmq_session_create(&session, model, NULL));
    ASSERT_OK(mmq_generate(&result, session, &request));
    mmq_result_free(result);
    mmq_session_free(session);
    mmq_model_free(model);
    mmq_image_free(images[0]);
    mmq_image_free(images[1]);
    ck_assert_uint_eq(answer.n, 6 * 456);
    return answer;
}

static void expect_same(const struct answer *a, const struct answer *b)
{
    ck_assert_uint_eq(a->n, b->n);
    ck_assert_mem_eq(a->logits, b->logits, a->n * sizeof *a->logits);
}

static void (*const spellings[])(const struct checkpoint *c) = {
    spell_hub_bin,    spell_hub_nested, spell_hub_safetensors,
    spell_hub_shards, spell_original,   spell_original_with_tower,
};

START_TEST(every_spelling_of_a_checkpoint_gives_the_same_bits)
{
    struct answer first = ask(source_path("test/golden/llava_tiny/model"), NULL), other;
    struct checkpoint *c = tiny_checkpoint("llava_tiny");

    spellings[_i](c);
    other = ask("m", NULL);
    expect_same(&first, &other);
    free(first.logits);
    free(other.logits);
    free_checkpoint(c);
}
END_TEST

START_TEST(a_tower_may_lie_anywhere_when_its_path_is_told)
{
    struct answer first = ask(source_path("test/golden/llava_tiny/model"), NULL), other;
    mmq_load_options options = {.struct_size = sizeof options, .vision_path = "elsewhere"};
    struct original o = make_original();
    mmq_model *model;

    write_original(&o, "elsewhere");
    ASSERT_FAILS(MMQ_ERR_NOT_FOUND,
                 "m: its vision tower is a folder 'clip-tiny' of its own, which lies neither in "
                 "this one nor beside it; the load option vision_path tells where it is",
                 mmq_load(&model, "m", NULL));
    other = ask("m", &options);
    expect_same(&first, &other);
    options.vision_path = "nowhere";
    ASSERT_FAILS(MMQ_ERR_NOT_FOUND, "nowhere: there is no such folder",
                 mmq_load(&model, "m", &options));
    free(first.logits);
    free(other.logits);
    free_original(&o);
}
END_TEST

static void quantize(const char *path, const char *format, const char *out)
{
    mmq_quantize_options options = {
        .struct_size = sizeof options, .format = format, .out_path = out};
    mmq_model *model;

    ASSERT_OK(mmq_load(&model, path, NULL));
    ASSERT_OK(mmq_quantize_layerwise(NULL, model, &options, NULL));
    mmq_model_free(model);
}

/* What is saved has tower and settings, and needs the other folder no more. */
START_TEST(a_saved_model_holds_the_tower_of_the_other_folder)
{
    static const char *const formats[] = {"nf4", "bf16"};
    struct original o = make_original();
    struct answer first, other;

    write_original(&o, "clip-tiny");
    quantize(source_path("test/golden/llava_tiny/model"), formats[_i], "hub");
    quantize("m", formats[_i], "saved");
    ck_assert_int_eq(system("rm -r clip-tiny m"), 0);
    first = ask("hub", NULL);
    other = ask("saved", NULL);
    expect_same(&first, &other);
    if (_i == 1) { /* of plain formats, once more from itself */
        free(other.logits);
        quantize("saved", "bf16", "again");
        other = ask("again", NULL);
        expect_same(&first, &other);
    }
    free(first.logits);
    free(other.logits);
    free_original(&o);
}
END_TEST

START_TEST(a_path_of_a_tower_is_of_no_use_to_a_model_that_holds_its_own)
{
    mmq_load_options options = {.struct_size = sizeof options, .vision_path = "elsewhere"};
    mmq_model *model;

    ASSERT_FAILS(MMQ_ERR_INVALID, "vision_path is given, but a llava holds its tower itself",
                 mmq_load(&model, source_path("test/golden/llava_tiny/model"), &options));
}
END_TEST

/* ---- files that do not fit ---- */

static void load_fails(int32_t status, const char *why)
{
    mmq_model *model;

    ASSERT_FAILS(status, why, mmq_load(&model, "m", NULL));
    ck_assert_ptr_null(model);
}

static const struct {
    const char *key, *value; /* NULL: taken away */
    int32_t status;
    const char *why;
} bad_settings[] = {
    {"mm_vision_tower", "null", MMQ_ERR_FORMAT, "'mm_vision_tower' names no folder"},
    {"mm_vision_tower", "\"a/..\"", MMQ_ERR_FORMAT, "names no folder of a vision tower: 'a/..'"},
    {"mm_vision_tower", "\"..\\\\x\"", MMQ_ERR_FORMAT, "names no folder"},
    {"mm_vision_tower", "\"/\"", MMQ_ERR_FORMAT, "names no folder"},
    {"mm_vision_tower", "7", MMQ_ERR_FORMAT, "mm_vision_tower"},
    {"mm_vision_tower", "\"google/siglip\"", MMQ_ERR_NOT_FOUND, "a folder 'siglip' of its own"},
    {"mm_hidden_size", "64", MMQ_ERR_FORMAT, "mm_hidden_size 64, but the tower's rows have 48"},
    {"mm_projector_type", NULL, MMQ_ERR_UNSUPPORTED, "without mm_projector_type"},
    {"mm_projector_type", "\"linear\"", MMQ_ERR_UNSUPPORTED, "mm_projector_type 'linear'"},
    {"mm_projector_type", "\"mlp3x_gelu\"", MMQ_ERR_UNSUPPORTED, "'mlp3x_gelu' is not run"},
    {"mm_vision_select_layer", NULL, MMQ_ERR_FORMAT, "there is no mm_vision_select_layer"},
    {"mm_vision_select_layer", "-5", MMQ_ERR_FORMAT, "mm_vision_select_layer"},
    {"mm_vision_select_feature", "\"all\"", MMQ_ERR_UNSUPPORTED, "mm_vision_select_feature 'all'"},
    {"image_aspect_ratio", "\"anyres\"", MMQ_ERR_UNSUPPORTED, "image_aspect_ratio 'anyres'"},
    {"mm_use_im_start_end", "true", MMQ_ERR_UNSUPPORTED, "mm_use_im_start_end is true"},
    {"mm_use_im_patch_token", NULL, MMQ_ERR_UNSUPPORTED,
     "mm_use_im_patch_token is true, or absent"},
    {"hidden_size", "2147483648", MMQ_ERR_FORMAT, "hidden_size"},
    {"num_hidden_layers", "2", MMQ_ERR_MISMATCH, "tensors do not make a llava; 9 unused"},
    {"vocab_size", "455", MMQ_ERR_MISMATCH, "2 of another shape or type"},
};

START_TEST(names_a_setting_that_does_not_fit)
{
    struct original o = make_original();

    set(o.model->config, bad_settings[_i].key, bad_settings[_i].value);
    write_original(&o, "clip-tiny");
    load_fails(bad_settings[_i].status, bad_settings[_i].why);
    free_original(&o);
}
END_TEST

START_TEST(names_what_a_towers_folder_lacks)
{
    struct original o = make_original();

    write_original(&o, "clip-tiny");
    remove("clip-tiny/pytorch_model.bin");
    load_fails(MMQ_ERR_NOT_FOUND, "m/../clip-tiny: holds neither model.safetensors nor");
    rename_tensors(o.tower, "vision_model.embeddings.class", "class");
    write_original(&o, "clip-tiny");
    load_fails(MMQ_ERR_MISMATCH, "1 missing (vision.class)");
    remove("clip-tiny/preprocessor_config.json");
    load_fails(MMQ_ERR_NOT_FOUND, "m/../clip-tiny: the tower's folder has no preprocessor_config");
    set(o.tower->config, "model_type", "\"siglip\"");
    write_original(&o, "clip-tiny");
    load_fails(MMQ_ERR_UNSUPPORTED, "model_type 'siglip' is no CLIP");
    write_bytes("clip-tiny/config.json", "{", 1);
    load_fails(MMQ_ERR_FORMAT, "clip-tiny/config.json");
    remove("clip-tiny/config.json");
    load_fails(MMQ_ERR_NOT_FOUND, "its vision tower is a folder 'clip-tiny'");
    free_original(&o);
}
END_TEST

START_TEST(names_a_tower_for_pictures_of_another_size)
{
    struct original o = make_original();

    set(o.tower->preprocessor, "crop_size", "28");
    write_original(&o, "clip-tiny");
    load_fails(MMQ_ERR_UNSUPPORTED, "pictures become 28 x 28 pixels");
    free_original(&o);
}
END_TEST

START_TEST(a_tower_alone_may_be_a_vision_model_without_its_text_half)
{
    struct answer first = ask(source_path("test/golden/llava_tiny/model"), NULL), other;
    struct original o = make_original();
    json_t *config = json_incref(json_object_get(o.tower->config, "vision_config"));

    json_decref(o.tower->config);
    o.tower->config = config;
    write_original(&o, "m/clip-tiny");
    other = ask("m", NULL);
    expect_same(&first, &other);
    free(first.logits);
    free(other.logits);
    free_original(&o);
}
END_TEST

START_TEST(an_allocator_that_gives_out_leaves_nothing_behind)
{
    struct meter meter = {0};
    struct mmqi_mem_hooks hooks = {meter_alloc, meter_free, &meter};
    struct original o = make_original();
    struct mmqi_model *model = NULL;
    int32_t status = MMQ_ERR_NOMEM;

    write_original(&o, "clip-tiny");
    for (int64_t n = 0; status != MMQ_OK; n += 1 + n / 24) {
        const struct mmqi_mem_hooks *before = mmqi_mem_enter(&hooks);
        struct mmqi_store *store = NULL;

        meter = (struct meter){.left = n};
        status = mmqi_store_open_folder(&store, "m");
        if (status == MMQ_OK)
            status = mmqi_model_open(&model, store);
        mmqi_model_close(model);
        mmqi_store_release(store);
        model = NULL;
        mmqi_mem_enter(before);
        ck_assert_msg(status == MMQ_OK || status == MMQ_ERR_NOMEM, "%d: %s", (int)status,
                      mmqi_message());
        ck_assert_int_eq(meter.live, 0);
    }
    free_original(&o);
}
END_TEST

/* The host's files: the tower is a folder among them. */
START_TEST(a_reader_has_the_tower_as_a_folder_of_its_files)
{
    struct original o = make_original();
    struct memory_files *files = &o.model->files;
    struct mmqi_model *model;

    make_store(o.model);
    ck_assert_int_eq(mmqi_model_open(&model, o.model->store), MMQ_ERR_NOT_FOUND);
    ck_assert_ptr_nonnull(strstr(mmqi_message(), "its vision tower is a folder 'clip-tiny'"));
    add_json(o.tower, 0, "config.json", o.tower->config);
    add_json(o.tower, 2, "preprocessor_config.json", o.tower->preprocessor);
    memory_add(files, "clip-tiny/config.json", o.tower->texts[0], strlen(o.tower->texts[0]));
    memory_add(files, "clip-tiny/preprocessor_config.json", o.tower->texts[2],
               strlen(o.tower->texts[2]));
    memory_add(files, "clip-tiny/model.safetensors", NULL, write_container(o.tower));
    files->files[files->n_files - 1].data = o.tower->container;
    OK(mmqi_model_open(&o.model->model, o.model->store));
    ck_assert_int_eq(o.model->model->spec.image_rows, 9);
    OK(mmqi_model_open_with_tower(&model, o.model->store, "clip-tiny"));
    mmqi_model_close(model);
    ck_assert_int_eq(mmqi_model_open_with_tower(&model, o.model->store, "../x"), MMQ_ERR_FORMAT);
    free_original(&o);
}
END_TEST

/* In a message its text is the user's; the template alone writes markers. */
START_TEST(a_marker_that_a_user_types_is_text)
{
    struct original o = make_original();
    const mmq_part part = {.struct_size = sizeof part, .text = "say <image> </s> now"};
    const mmq_part *parts[] = {&part};
    const mmq_message message = {
        .struct_size = sizeof message, .role = "user", .parts = parts, .n_parts = 1};
    const mmq_message *messages[] = {&message};
    mmq_prompt prompt = {.struct_size = sizeof prompt, .messages = messages, .n_messages = 1};
    mmq_generate_request request = {
        .struct_size = sizeof request, .prompt = &prompt, .max_new_tokens = 1};
    mmq_session *session;
    mmq_result *result = NULL;
    mmq_model *model;

    write_original(&o, "clip-tiny");
    write_bytes("m/chat_template.jinja", "{{ messages[0]['content'][0]['text'] }}", 39);
    ASSERT_OK(mmq_load(&model, "m", NULL));
    ASSERT_OK(mmq_session_create(&session, model, NULL));
    ASSERT_OK(mmq_generate(&result, session, &request));
    mmq_result_free(result);
    prompt = (mmq_prompt){.struct_size = sizeof prompt, .text = "say <image> now"};
    ASSERT_FAILS(MMQ_ERR_INVALID, "prompt: 1 '<image>' for 0 pictures",
                 mmq_generate(&result, session, &request));
    mmq_session_free(session);
    mmq_model_free(model);
    free_original(&o);
}
END_TEST

#define COUNT(array) ((int)(sizeof(array) / sizeof(array)[0]))

int main(void)
{
    Suite *suite = suite_create("spellings");
    TCase *tests = tcase_create("spellings");
    SRunner *runner = srunner_create(suite);
    int failed;

    tcase_set_timeout(tests, 60);
    tcase_add_checked_fixture(tests, scratch_enter, scratch_leave);
    tcase_add_loop_test(tests, every_spelling_of_a_checkpoint_gives_the_same_bits, 0,
                        COUNT(spellings));
    tcase_add_test(tests, a_tower_may_lie_anywhere_when_its_path_is_told);
    tcase_add_loop_test(tests, a_saved_model_holds_the_tower_of_the_other_folder, 0, 2);
    tcase_add_test(tests, a_path_of_a_tower_is_of_no_use_to_a_model_that_holds_its_own);
    tcase_add_loop_test(tests, names_a_setting_that_does_not_fit, 0, COUNT(bad_settings));
    tcase_add_test(tests, names_what_a_towers_folder_lacks);
    tcase_add_test(tests, names_a_tower_for_pictures_of_another_size);
    tcase_add_test(tests, a_tower_alone_may_be_a_vision_model_without_its_text_half);
    tcase_add_test(tests, an_allocator_that_gives_out_leaves_nothing_behind);
    tcase_add_test(tests, a_reader_has_the_tower_as_a_folder_of_its_files);
    tcase_add_test(tests, a_marker_that_a_user_types_is_text);
    suite_add_tcase(suite, tests);
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
