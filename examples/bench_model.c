#include "bench_model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct bench_shape shapes[] = {
    {"llava-tiny", false, {48, 100, 3, 3, 14, 42}, {96, 112, 3, 6, 2, 456, 455, 512, false}},
    /* CLIP ViT-L/14-336 and a decoder of TinyLlama's size */
    {"llava-1b",
     false,
     {1024, 4096, 24, 16, 14, 336},
     {2048, 5632, 22, 32, 4, 32000, 31999, 4096, false}},
    {"llava-1.5-7b",
     false,
     {1024, 4096, 24, 16, 14, 336},
     {4096, 11008, 32, 32, 32, 32064, 32000, 4096, false}},
    /* the same tower, and Llama-3-8B's decoder */
    {"llava-8b",
     false,
     {1024, 4096, 24, 16, 14, 336},
     {4096, 14336, 32, 32, 8, 128320, 128257, 8192, false}},
    {"qwen2-vl-tiny", true, {48, 192, 2, 3, 14, 112}, {96, 112, 3, 6, 2, 456, 455, 512, true}},
    {"qwen2-vl-2b",
     true,
     {1280, 5120, 32, 16, 14, 448},
     {1536, 8960, 28, 12, 2, 151936, 151655, 32768, true}},
    {"qwen2-vl-7b",
     true,
     {1280, 5120, 32, 16, 14, 448},
     {3584, 18944, 28, 28, 4, 152064, 151655, 32768, false}},
};

const char bench_shape_names[] = "llava-tiny, llava-1b, llava-1.5-7b, llava-8b, qwen2-vl-tiny, "
                                 "qwen2-vl-2b, qwen2-vl-7b";

const struct bench_shape *find_bench_shape(const char *name)
{
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++)
        if (strcmp(shapes[i].name, name) == 0)
            return &shapes[i];
    return NULL;
}

/* How the values of a tensor are made. */
enum fill { FILL_SMALL, FILL_ONE };

struct tensor {
    char name[96];
    int fill;
    int n_dims;
    int dims[5];
    uint64_t begin, end; /* in the data of the file */
};

struct text {
    char *data;
    size_t size;
};

enum { N_TEXTS = 3 };

struct bench_model {
    struct tensor *tensors;
    size_t n_tensors, capacity;
    struct text texts[N_TEXTS];
    struct text head; /* of model.safetensors */
};

static const char *const text_names[N_TEXTS] = {"config.json", "tokenizer.json",
                                                "preprocessor_config.json"};
static const char weights_name[] = "model.safetensors";

/* ---- tensors ---- */

/* NULL after the first refusal: `model->capacity` is then 0, and stays. */
static struct tensor *new_tensor(struct bench_model *model)
{
    struct tensor *more;

    if (model->n_tensors == model->capacity) {
        more = realloc(model->tensors, (model->capacity * 2 + 512) * sizeof *more);
        if (!more)
            return NULL;
        model->tensors = more;
        model->capacity = model->capacity * 2 + 512;
    }
    return &model->tensors[model->n_tensors];
}

/* Add "PREFIX NAME" of up to five sizes; the first 0 ends them. */
static bool add(struct bench_model *model, const char *prefix, const char *name, int fill,
                const int dims[5])
{
    struct tensor *t = new_tensor(model);
    uint64_t bytes = 2;

    if (!t)
        return false;
    snprintf(t->name, sizeof t->name, "%s%s", prefix, name);
    t->fill = fill;
    for (t->n_dims = 0; t->n_dims < 5 && dims[t->n_dims] > 0; t->n_dims++) {
        t->dims[t->n_dims] = dims[t->n_dims];
        bytes *= (uint64_t)dims[t->n_dims];
    }
    t->begin = model->n_tensors > 0 ? t[-1].end : 0;
    t->end = t->begin + bytes;
    model->n_tensors++;
    return true;
}

static bool add_linear(struct bench_model *model, const char *prefix, const char *name, int rows,
                       int cols, bool bias)
{
    char weight[64], offset[64];

    snprintf(weight, sizeof weight, "%s.weight", name);
    snprintf(offset, sizeof offset, "%s.bias", name);
    return add(model, prefix, weight, FILL_SMALL, (int[5]){rows, cols}) &&
           (!bias || add(model, prefix, offset, FILL_SMALL, (int[5]){rows}));
}

static bool add_norm(struct bench_model *model, const char *prefix, const char *name, int width,
                     bool bias)
{
    char weight[64], offset[64];

    snprintf(weight, sizeof weight, "%s.weight", name);
    snprintf(offset, sizeof offset, "%s.bias", name);
    return add(model, prefix, weight, FILL_ONE, (int[5]){width}) &&
           (!bias || add(model, prefix, offset, FILL_SMALL, (int[5]){width}));
}

static bool add_vision(struct bench_model *model, const struct bench_shape *shape)
{
    const char *tower = "vision_tower.vision_model.";
    int w = shape->vision.width, side = shape->vision.image / shape->vision.patch;
    char layer[64];
    bool ok = add(model, tower, "embeddings.class_embedding", FILL_SMALL, (int[5]){w}) &&
              add(model, tower, "embeddings.patch_embedding.weight", FILL_SMALL,
                  (int[5]){w, 3, shape->vision.patch, shape->vision.patch}) &&
              add(model, tower, "embeddings.position_embedding.weight", FILL_SMALL,
                  (int[5]){side * side + 1, w}) &&
              add_norm(model, tower, "pre_layrnorm", w, true) &&
              add_norm(model, tower, "post_layernorm", w, true);

    for (int i = 0; i < shape->vision.layers && ok; i++) {
        snprintf(layer, sizeof layer, "%sencoder.layers.%d.", tower, i);
        ok = add_norm(model, layer, "layer_norm1", w, true) &&
             add_linear(model, layer, "self_attn.q_proj", w, w, true) &&
             add_linear(model, layer, "self_attn.k_proj", w, w, true) &&
             add_linear(model, layer, "self_attn.v_proj", w, w, true) &&
             add_linear(model, layer, "self_attn.out_proj", w, w, true) &&
             add_norm(model, layer, "layer_norm2", w, true) &&
             add_linear(model, layer, "mlp.fc1", shape->vision.mlp, w, true) &&
             add_linear(model, layer, "mlp.fc2", w, shape->vision.mlp, true);
    }
    return ok &&
           add_linear(model, "", "multi_modal_projector.linear_1", shape->text.width, w, true) &&
           add_linear(model, "", "multi_modal_projector.linear_2", shape->text.width,
                      shape->text.width, true);
}

/* Two frames, and squares of two by two patches. */
static bool add_qwen2_vision(struct bench_model *model, const struct bench_shape *shape)
{
    int w = shape->vision.width;
    char layer[64];
    bool ok = add(model, "visual.", "patch_embed.proj.weight", FILL_SMALL,
                  (int[5]){w, 3, 2, shape->vision.patch, shape->vision.patch});

    for (int i = 0; i < shape->vision.layers && ok; i++) {
        snprintf(layer, sizeof layer, "visual.blocks.%d.", i);
        ok = add_norm(model, layer, "norm1", w, true) && add_norm(model, layer, "norm2", w, true) &&
             add_linear(model, layer, "attn.qkv", 3 * w, w, true) &&
             add_linear(model, layer, "attn.proj", w, w, true) &&
             add_linear(model, layer, "mlp.fc1", shape->vision.mlp, w, true) &&
             add_linear(model, layer, "mlp.fc2", w, shape->vision.mlp, true);
    }
    return ok && add_norm(model, "visual.", "merger.ln_q", w, true) &&
           add_linear(model, "visual.", "merger.mlp.0", 4 * w, 4 * w, true) &&
           add_linear(model, "visual.", "merger.mlp.2", shape->text.width, 4 * w, true);
}

static bool add_language(struct bench_model *model, const struct bench_shape *shape)
{
    const char *at = shape->qwen2_vl ? "model." : "language_model.model.";
    bool bias = shape->qwen2_vl; /* of q, k and v */
    int w = shape->text.width, kv = w / shape->text.heads * shape->text.kv_heads;
    char layer[64];
    bool ok = add_linear(model, at, "embed_tokens", shape->text.vocab, w, false);

    for (int i = 0; i < shape->text.layers && ok; i++) {
        snprintf(layer, sizeof layer, "%slayers.%d.", at, i);
        ok = add_norm(model, layer, "input_layernorm", w, false) &&
             add_linear(model, layer, "self_attn.q_proj", w, w, bias) &&
             add_linear(model, layer, "self_attn.k_proj", kv, w, bias) &&
             add_linear(model, layer, "self_attn.v_proj", kv, w, bias) &&
             add_linear(model, layer, "self_attn.o_proj", w, w, false) &&
             add_norm(model, layer, "post_attention_layernorm", w, false) &&
             add_linear(model, layer, "mlp.gate_proj", shape->text.mlp, w, false) &&
             add_linear(model, layer, "mlp.up_proj", shape->text.mlp, w, false) &&
             add_linear(model, layer, "mlp.down_proj", w, shape->text.mlp, false);
    }
    if (ok && !shape->text.tied)
        ok = add_linear(model, shape->qwen2_vl ? "" : "language_model.", "lm_head",
                        shape->text.vocab, w, false);
    return ok && add_norm(model, at, "norm", w, false);
}

/* ---- texts ---- */

static void write_qwen2_config(FILE *out, const struct bench_shape *shape)
{
    int half = shape->text.width / shape->text.heads / 2, across = half * 3 / 8;

    fprintf(out,
            "{\"architectures\": [\"Qwen2VLForConditionalGeneration\"], \"model_type\": "
            "\"qwen2_vl\",\n \"image_token_id\": %d, \"bos_token_id\": 1, \"eos_token_id\": 2,\n"
            " \"hidden_size\": %d, \"intermediate_size\": %d, \"num_hidden_layers\": %d,\n"
            " \"num_attention_heads\": %d, \"num_key_value_heads\": %d, \"vocab_size\": %d,\n"
            " \"max_position_embeddings\": %d, \"rms_norm_eps\": 1e-06, \"rope_theta\": 1e6,\n",
            shape->text.image_token, shape->text.width, shape->text.mlp, shape->text.layers,
            shape->text.heads, shape->text.kv_heads, shape->text.vocab, shape->text.context);
    fprintf(out,
            " \"rope_scaling\": {\"type\": \"mrope\", \"mrope_section\": [%d, %d, %d]},\n"
            " \"tie_word_embeddings\": %s, \"use_sliding_window\": false, \"torch_dtype\": "
            "\"bfloat16\",\n \"vision_config\": {\"depth\": %d, \"embed_dim\": %d, "
            "\"hidden_size\": %d,\n  \"in_chans\": 3, \"mlp_ratio\": %d, \"num_heads\": %d,\n"
            "  \"patch_size\": %d, \"spatial_merge_size\": 2, \"temporal_patch_size\": 2}}\n",
            half - 2 * across, across, across, shape->text.tied ? "true" : "false",
            shape->vision.layers, shape->vision.width, shape->text.width,
            shape->vision.mlp / shape->vision.width, shape->vision.heads, shape->vision.patch);
}

static void write_config(FILE *out, const struct bench_shape *shape)
{
    if (shape->qwen2_vl) {
        write_qwen2_config(out, shape);
        return;
    }
    fprintf(out,
            "{\"architectures\": [\"LlavaForConditionalGeneration\"], \"model_type\": \"llava\",\n"
            " \"image_token_index\": %d, \"projector_hidden_act\": \"gelu\",\n"
            " \"tie_word_embeddings\": false, \"torch_dtype\": \"bfloat16\",\n"
            " \"vision_feature_layer\": -2, \"vision_feature_select_strategy\": \"default\",\n",
            shape->text.image_token);
    fprintf(out,
            " \"vision_config\": {\"model_type\": \"clip_vision_model\", \"hidden_size\": %d,\n"
            "  \"intermediate_size\": %d, \"num_hidden_layers\": %d, \"num_attention_heads\": %d,\n"
            "  \"image_size\": %d, \"patch_size\": %d},\n",
            shape->vision.width, shape->vision.mlp, shape->vision.layers, shape->vision.heads,
            shape->vision.image, shape->vision.patch);
    fprintf(out,
            " \"text_config\": {\"model_type\": \"llama\", \"hidden_size\": %d,\n"
            "  \"intermediate_size\": %d, \"num_hidden_layers\": %d, \"num_attention_heads\": %d,\n"
            "  \"num_key_value_heads\": %d, \"vocab_size\": %d, \"max_position_embeddings\": %d,\n"
            "  \"rms_norm_eps\": 1e-05}}\n",
            shape->text.width, shape->text.mlp, shape->text.layers, shape->text.heads,
            shape->text.kv_heads, shape->text.vocab, shape->text.context);
}

static void write_special(FILE *out, int id, const char *content)
{
    fprintf(out,
            "%s{\"id\": %d, \"content\": \"%s\", \"single_word\": false, \"lstrip\": false,\n"
            "  \"rstrip\": false, \"normalized\": false, \"special\": true}",
            id > 0 ? ",\n  " : "", id, content);
}

/* Letters are tokens of their own, without a merge: n letters are n tokens. */
static void write_tokenizer(FILE *out, const struct bench_shape *shape)
{
    static const char *const first[] = {"<unk>", "<s>", "</s>"};
    const char *image = shape->qwen2_vl ? "<|image_pad|>" : "<image>";
    int id;

    fputs("{\"version\": \"1.0\", \"added_tokens\": [", out);
    for (id = 0; id < 3; id++)
        write_special(out, id, first[id]);
    write_special(out, shape->text.image_token, image);
    fputs("],\n \"normalizer\": null, \"pre_tokenizer\": null,\n \"post_processor\": {\"type\": "
          "\"TemplateProcessing\", \"single\": [{\"SpecialToken\": {\"id\": \"<s>\", \"type_id\": "
          "0}},\n  {\"Sequence\": {\"id\": \"A\", \"type_id\": 0}}], \"pair\": [{\"Sequence\": "
          "{\"id\": \"A\", \"type_id\": 0}}, {\"Sequence\": {\"id\": \"B\", \"type_id\": 1}}],\n"
          "  \"special_tokens\": {\"<s>\": {\"id\": \"<s>\", \"ids\": [1], \"tokens\": "
          "[\"<s>\"]}}},\n \"decoder\": {\"type\": \"Fuse\"},\n \"model\": {\"type\": \"BPE\", "
          "\"unk_token\": \"<unk>\", \"fuse_unk\": true, \"byte_fallback\": false,\n"
          "  \"merges\": [], \"vocab\": {",
          out);
    for (id = 0; id < shape->text.vocab; id++) {
        fputs(id > 0 ? ", " : "", out);
        if (id < 3)
            fprintf(out, "\"%s\": %d", first[id], id);
        else if (id < 3 + 26)
            fprintf(out, "\"%c\": %d", 'a' + id - 3, id);
        else if (id == shape->text.image_token)
            fprintf(out, "\"%s\": %d", image, id);
        else
            fprintf(out, "\" word%d\": %d", id, id);
    }
    fputs("}}}\n", out);
}

static void write_preprocessor(FILE *out, const struct bench_shape *shape)
{
    int side = shape->vision.image;

    if (shape->qwen2_vl) {
        fprintf(out,
                "{\"image_processor_type\": \"Qwen2VLImageProcessor\", \"min_pixels\": 3136,\n"
                " \"max_pixels\": %d, \"patch_size\": %d, \"merge_size\": 2,\n"
                " \"temporal_patch_size\": 2,\n"
                " \"image_mean\": [0.48145466, 0.4578275, 0.40821073],\n"
                " \"image_std\": [0.26862954, 0.26130258, 0.27577711]}\n",
                side * side, shape->vision.patch);
        return;
    }
    fprintf(out,
            "{\"image_processor_type\": \"CLIPImageProcessor\", \"do_resize\": true,\n"
            " \"size\": {\"shortest_edge\": %d}, \"resample\": 3, \"do_center_crop\": true,\n"
            " \"crop_size\": {\"height\": %d, \"width\": %d}, \"do_rescale\": true,\n"
            " \"rescale_factor\": 0.00392156862745098, \"do_normalize\": true,\n"
            " \"image_mean\": [0.48145466, 0.4578275, 0.40821073],\n"
            " \"image_std\": [0.26862954, 0.26130258, 0.27577711]}\n",
            side, side, side);
}

/* The length and the JSON that begin a safetensors file; padded to 8 bytes with spaces. */
static void write_head(FILE *out, const struct bench_model *model)
{
    fputs("12345678{", out);
    for (size_t i = 0; i < model->n_tensors; i++) {
        const struct tensor *t = &model->tensors[i];

        fprintf(out, "%s\"%s\": {\"dtype\": \"BF16\", \"shape\": [", i > 0 ? ",\n" : "", t->name);
        for (int k = 0; k < t->n_dims; k++)
            fprintf(out, "%s%d", k > 0 ? ", " : "", t->dims[k]);
        fprintf(out, "], \"data_offsets\": [%llu, %llu]}", (unsigned long long)t->begin,
                (unsigned long long)t->end);
    }
    fputc('}', out);
    while (ftell(out) % 8 != 0)
        fputc(' ', out);
}

static bool finish_text(struct text *text, FILE *out)
{
    bool ok = !ferror(out);

    return fclose(out) == 0 && ok && text->data;
}

static bool write_texts(struct bench_model *model, const struct bench_shape *shape)
{
    void (*const writers[N_TEXTS])(FILE *, const struct bench_shape *) = {
        write_config, write_tokenizer, write_preprocessor};
    uint64_t size;
    FILE *out;

    for (int i = 0; i < N_TEXTS; i++) {
        out = open_memstream(&model->texts[i].data, &model->texts[i].size);
        if (!out)
            return false;
        writers[i](out, shape);
        if (!finish_text(&model->texts[i], out))
            return false;
    }
    out = open_memstream(&model->head.data, &model->head.size);
    if (!out)
        return false;
    write_head(out, model);
    if (!finish_text(&model->head, out))
        return false;
    size = model->head.size - 8;
    for (int i = 0; i < 8; i++)
        model->head.data[i] = (char)(size >> 8 * i);
    return true;
}

struct bench_model *open_bench_model(const struct bench_shape *shape)
{
    struct bench_model *model = calloc(1, sizeof *model);

    if (model && (shape->qwen2_vl ? add_qwen2_vision(model, shape) : add_vision(model, shape)) &&
        add_language(model, shape) && write_texts(model, shape))
        return model;
    close_bench_model(model);
    return NULL;
}

void close_bench_model(struct bench_model *model)
{
    if (!model)
        return;
    for (int i = 0; i < N_TEXTS; i++)
        free(model->texts[i].data);
    free(model->head.data);
    free(model->tensors);
    free(model);
}

/* ---- values ---- */

/*
 * Four bf16 from one number: sign and mantissa at random, exponents from 2^-9 to 2^-6, so that
 * values are about as large as a trained model's and none is zero, infinite or NaN.
 */
static uint64_t four_values(uint64_t seed, uint64_t index)
{
    uint64_t x = (seed << 40 ^ index) * 0x9E3779B97F4A7C15u;

    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9u;
    x = (x ^ x >> 27) * 0x94D049BB133111EBu;
    x ^= x >> 31;
    return (x & 0x81FF81FF81FF81FFu) + 0x3B003B003B003B00u;
}

/* Bytes [begin, begin + size) of tensor number `index`: whole groups of eight, and their ends. */
static void make_values(const struct tensor *t, uint64_t index, uint64_t begin, char *dst,
                        size_t size)
{
    uint64_t group = begin / 8, values = 0x3F803F803F803F80u;
    size_t skip = (size_t)(begin % 8), n;

    for (; size > 0; group++, dst += n, size -= n, skip = 0) {
        if (t->fill == FILL_SMALL)
            values = four_values(index + 1, group);
        n = 8 - skip < size ? 8 - skip : size;
        if (n == 8)
            memcpy(dst, &values, 8); /* little-endian, as the file is */
        else
            memcpy(dst, (const char *)&values + skip, n);
    }
}

/* The tensor that holds byte `at` of the data. */
static size_t find_tensor(const struct bench_model *model, uint64_t at)
{
    size_t low = 0, high = model->n_tensors - 1, middle;

    while (low < high) {
        middle = (low + high) / 2;
        if (model->tensors[middle].end <= at)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static void read_weights(const struct bench_model *model, uint64_t offset, char *dst, size_t size)
{
    size_t n, i;

    if (offset < model->head.size) {
        n = model->head.size - offset < size ? (size_t)(model->head.size - offset) : size;
        memcpy(dst, model->head.data + offset, n);
        offset += n;
        dst += n;
        size -= n;
    }
    offset -= model->head.size;
    for (i = size > 0 ? find_tensor(model, offset) : 0; size > 0; i++) {
        const struct tensor *t = &model->tensors[i];

        n = t->end - offset < size ? (size_t)(t->end - offset) : size;
        make_values(t, i, offset - t->begin, dst, n);
        offset += n;
        dst += n;
        size -= n;
    }
}

/* ---- the reader ---- */

/* A file is its text, or &head for the weights. */
static int32_t open_file(void *user, const char *name, void **file)
{
    struct bench_model *model = user;

    if (strcmp(name, weights_name) == 0) {
        *file = &model->head;
        return MMQ_OK;
    }
    for (int i = 0; i < N_TEXTS; i++)
        if (strcmp(name, text_names[i]) == 0) {
            *file = &model->texts[i];
            return MMQ_OK;
        }
    return MMQ_ERR_NOT_FOUND;
}

static int32_t size_of_file(void *user, void *file, uint64_t *size)
{
    const struct bench_model *model = user;
    const struct text *text = file;

    *size = text->size;
    if (text == &model->head)
        *size += model->tensors[model->n_tensors - 1].end;
    return MMQ_OK;
}

static int32_t read_file_at(void *user, void *file, uint64_t offset, void *dst, size_t size)
{
    const struct bench_model *model = user;
    const struct text *text = file;
    uint64_t total;

    size_of_file(user, file, &total);
    if (offset > total || size > total - offset)
        return MMQ_ERR_FORMAT;
    if (text == &model->head)
        read_weights(model, offset, dst, size);
    else
        memcpy(dst, text->data + offset, size);
    return MMQ_OK;
}

static void close_file(void *user, void *file)
{
    (void)user;
    (void)file;
}

mmq_reader bench_reader(struct bench_model *model)
{
    return (mmq_reader){sizeof(mmq_reader), open_file,  size_of_file,
                        read_file_at,       close_file, model};
}
