/*
 * The Llama decoder.
 *
 * Facts that bite: absent keys mean the class's defaults, and LLaVA's own
 * configs rely on most of them; transformers 5 writes rope_parameters where
 * 4 wrote rope_theta and rope_scaling; head_dim need not be hidden / heads;
 * the norm before the head runs on the picked rows alone.
 */
#include "model/lm_llama.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "core/mem.h"
#include "core/status.h"
#include "model/config.h"

enum { MAX_HEAD_DIM = 8192 };

const struct mmqi_llama mmqi_llama_defaults = {
    .vocab = 32000,
    .hidden = 4096,
    .inner = 11008,
    .n_layers = 32,
    .n_heads = 32,
    .max_positions = 2048,
    .act = MMQI_ACT_SILU,
    .eps = 1e-6,
    .theta = 10000.0,
};

static int32_t read_sizes(struct mmqi_llama *llama, const struct mmqi_settings *settings,
                          const char *prefix)
{
    const struct {
        const char *key;
        int32_t max, *value;
    } sizes[] = {
        {"vocab_size", MMQI_MAX_VOCAB, &llama->vocab},
        {"hidden_size", MMQI_MAX_HIDDEN, &llama->hidden},
        {"intermediate_size", MMQI_MAX_INNER, &llama->inner},
        {"num_hidden_layers", MMQI_MAX_LAYERS, &llama->n_layers},
        {"num_attention_heads", MMQI_MAX_HEADS, &llama->n_heads},
        {"num_key_value_heads", MMQI_MAX_HEADS, &llama->n_kv_heads},
        {"head_dim", MAX_HEAD_DIM, &llama->head_dim},
        {"max_position_embeddings", MMQI_MAX_POSITIONS, &llama->max_positions},
    };
    int32_t status = MMQ_OK;

    for (size_t i = 0; i < sizeof sizes / sizeof *sizes && status == MMQ_OK; i++)
        status = mmqi_config_int(settings, prefix, sizes[i].key, 1, sizes[i].max, sizes[i].value);
    return status;
}

/* What is absent follows from what is there; then every product must stay in bounds. */
static int32_t settle_heads(struct mmqi_llama *llama, const struct mmqi_settings *settings,
                            const char *prefix)
{
    const char *file = mmqi_settings_name(settings), *dot = prefix[0] ? "." : "";
    const char *colon = prefix[0] ? ": " : "";

    if (llama->n_kv_heads == 0)
        llama->n_kv_heads = llama->n_heads;
    if (llama->head_dim == 0 && llama->hidden % llama->n_heads != 0)
        return mmqi_fail(MMQ_ERR_FORMAT, "%s: %s%shidden_size %d is no multiple of %d heads", file,
                         prefix, dot, (int)llama->hidden, (int)llama->n_heads);
    if (llama->head_dim == 0)
        llama->head_dim = llama->hidden / llama->n_heads;
    if (llama->n_heads % llama->n_kv_heads != 0)
        return mmqi_fail(MMQ_ERR_FORMAT, "%s: %s%s%d heads cannot share %d key heads", file, prefix,
                         colon, (int)llama->n_heads, (int)llama->n_kv_heads);
    if (llama->head_dim % 2 != 0)
        return mmqi_fail(MMQ_ERR_FORMAT, "%s: %s%sheads of an odd width, %d", file, prefix, colon,
                         (int)llama->head_dim);
    if ((int64_t)llama->n_heads * llama->head_dim > MMQI_MAX_INNER)
        return mmqi_fail(MMQ_ERR_FORMAT, "%s: %s%s%d heads of %d are too wide", file, prefix, colon,
                         (int)llama->n_heads, (int)llama->head_dim);
    return MMQ_OK;
}

static bool has_sections(const struct mmqi_llama *llama)
{
    return llama->sections[0] + llama->sections[1] + llama->sections[2] > 0;
}

/* Where it says M-RoPE, that means plain frequencies for a decoder that has sections. */
static int32_t check_rope_type(const struct mmqi_llama *llama, const struct mmqi_settings *settings,
                               const char *prefix, const char *key)
{
    const char *type = "default";
    int32_t status = mmqi_config_string(settings, prefix, key, &type);

    if (status == MMQ_OK && has_sections(llama) && strcmp(type, "mrope") == 0)
        return MMQ_OK;
    return status == MMQ_OK ? mmqi_config_only(settings, prefix, key, "default") : status;
}

/* Frequencies by axis; together they are all of a head's. */
static int32_t read_sections(struct mmqi_llama *llama, const struct mmqi_settings *settings,
                             const char *prefix, const char *key)
{
    static const char *const items[] = {"0", "1", "2"};
    char path[MMQI_MAX_CONFIG_KEY];
    int64_t n;
    int32_t status = MMQ_OK;

    mmqi_config_path(path, prefix, key);
    n = mmqi_settings_count(settings, path);
    if (n < 0)
        return MMQ_OK;
    if (n != 3)
        return mmqi_fail(MMQ_ERR_FORMAT, "%s: %s has %lld numbers, not 3",
                         mmqi_settings_name(settings), path, (long long)n);
    for (int i = 0; i < 3 && status == MMQ_OK; i++)
        status = mmqi_config_int(settings, path, items[i], 0, MAX_HEAD_DIM, &llama->sections[i]);
    return status;
}

/* rope_parameters (5.x), or rope_theta beside rope_scaling with "rope_type" or the older "type". */
static int32_t read_rope(struct mmqi_llama *llama, const struct mmqi_settings *settings,
                         const char *prefix)
{
    static const char *const type_keys[] = {"rope_parameters.rope_type", "rope_parameters.type",
                                            "rope_scaling.rope_type", "rope_scaling.type"};
    int32_t status = mmqi_config_number(settings, prefix, "rope_theta", 1.0, 1e15, &llama->theta);
    int32_t *sections = llama->sections;

    if (status == MMQ_OK)
        status = mmqi_config_number(settings, prefix, "rope_parameters.rope_theta", 1.0, 1e15,
                                    &llama->theta);
    for (size_t i = 0; i < sizeof type_keys / sizeof *type_keys && status == MMQ_OK; i++)
        status = check_rope_type(llama, settings, prefix, type_keys[i]);
    if (status != MMQ_OK || !has_sections(llama))
        return status;
    status = read_sections(llama, settings, prefix, "rope_parameters.mrope_section");
    if (status == MMQ_OK)
        status = read_sections(llama, settings, prefix, "rope_scaling.mrope_section");
    if (status == MMQ_OK && sections[0] + sections[1] + sections[2] != llama->head_dim / 2)
        status =
            mmqi_fail(MMQ_ERR_FORMAT, "%s: mrope_section %d + %d + %d is not half of heads of %d",
                      mmqi_settings_name(settings), (int)sections[0], (int)sections[1],
                      (int)sections[2], (int)llama->head_dim);
    return status;
}

/* The text settings and the whole model's may both say; where they disagree, the file decides. */
static int32_t read_tied(struct mmqi_llama *llama, const struct mmqi_settings *settings,
                         const char *prefix)
{
    static const char key[] = "tie_word_embeddings";
    bool outer = false, inner;
    int32_t status = mmqi_config_bool(settings, "", key, &outer);

    inner = outer;
    if (status == MMQ_OK)
        status = mmqi_config_bool(settings, prefix, key, &inner);
    if (!mmqi_settings_has(settings, key))
        outer = inner;
    llama->tied = inner == outer ? inner : -1;
    return status;
}

/* transformers 5 says of every layer what it attends to; windows are not run. */
static int32_t check_layer_types(const struct mmqi_settings *settings, const char *prefix)
{
    char path[MMQI_MAX_CONFIG_KEY], item[16];
    int64_t n;
    int32_t status = MMQ_OK;

    mmqi_config_path(path, prefix, "layer_types");
    n = mmqi_settings_count(settings, path);
    if (n < 0) /* absent, null, or no list */
        return mmqi_config_only(settings, path, "0", "full_attention");
    for (int64_t i = 0; i < n && status == MMQ_OK; i++) {
        snprintf(item, sizeof item, "%d", (int)i);
        status = mmqi_config_only(settings, path, item, "full_attention");
    }
    return status;
}

int32_t mmqi_llama_configure(struct mmqi_llama *llama, const struct mmqi_settings *settings,
                             const char *prefix)
{
    int32_t status = read_sizes(llama, settings, prefix);

    if (status == MMQ_OK)
        status = settle_heads(llama, settings, prefix);
    if (status == MMQ_OK)
        status = read_rope(llama, settings, prefix);
    if (status == MMQ_OK)
        status = check_layer_types(settings, prefix);
    if (status == MMQ_OK)
        status = mmqi_config_number(settings, prefix, "rms_norm_eps", 1e-12, 1.0, &llama->eps);
    if (status == MMQ_OK)
        status = mmqi_config_activation(settings, prefix, "hidden_act", &llama->act);
    return status == MMQ_OK ? read_tied(llama, settings, prefix) : status;
}

int32_t mmqi_llama_configure_plain(struct mmqi_llama *llama, const struct mmqi_settings *settings,
                                   const char *prefix)
{
    int32_t status = mmqi_config_only(settings, prefix, "model_type", "llama");

    if (status == MMQ_OK)
        status = mmqi_config_bool(settings, prefix, "attention_bias", &llama->qkv_bias);
    llama->o_bias = llama->qkv_bias;
    if (status == MMQ_OK)
        status = mmqi_config_bool(settings, prefix, "mlp_bias", &llama->mlp_bias);
    return status == MMQ_OK ? mmqi_llama_configure(llama, settings, prefix) : status;
}

static bool is_null(const struct mmqi_settings *settings, const char *prefix, const char *key)
{
    char path[MMQI_MAX_CONFIG_KEY];

    return mmqi_settings_is_null(settings, mmqi_config_path(path, prefix, key));
}

int32_t mmqi_llama_configure_mistral(struct mmqi_llama *llama, const struct mmqi_settings *settings,
                                     const char *prefix)
{
    if (!is_null(settings, prefix, "sliding_window"))
        return mmqi_fail(MMQ_ERR_UNSUPPORTED,
                         "%s: %s%ssliding_window is not null (absent: 4096); windows are not run "
                         "by this build",
                         mmqi_settings_name(settings), prefix, prefix[0] ? "." : "");
    llama->inner = 14336;
    llama->n_kv_heads = is_null(settings, prefix, "num_key_value_heads") ? 0 : 8; /* 0: all */
    llama->max_positions = 131072;
    return mmqi_llama_configure(llama, settings, prefix);
}

void mmqi_llama_fill_spec(const struct mmqi_llama *llama, struct mmqi_spec *spec)
{
    spec->vocab_size = llama->vocab;
    spec->hidden = llama->hidden;
    spec->n_layers = llama->n_layers;
    spec->n_heads = llama->n_heads;
    spec->n_kv_heads = llama->n_kv_heads;
    spec->head_dim = llama->head_dim;
    spec->max_positions = llama->max_positions;
    spec->rope_axes = has_sections(llama) ? 3 : 1;
    spec->image_width = llama->hidden * (1 + llama->n_deepstack);
}

/* 1 / theta^(2i / head_dim), rounded to f32 at the exponent, the power and the quotient. */
static void declare_frequencies(struct mmqi_declare *d, const struct mmqi_llama *llama)
{
    int32_t n = llama->head_dim / 2;
    float *values = mmqi_alloc_array((size_t)n, sizeof *values), exponent;

    if (!values) {
        d->status = mmqi_fail(MMQ_ERR_NOMEM, "%s: no memory for frequencies", d->model->path);
        return;
    }
    for (int32_t i = 0; i < n; i++) {
        exponent = (float)(2 * i) / (float)llama->head_dim;
        values[i] = 1.0f / (float)pow(llama->theta, (double)exponent);
    }
    mmqi_declare_constant(d, "rope", values, n);
    mmqi_free(values);
}

/* The axis of frequency i where axes take turns: row and column have as many turns as their
 * sections say. */
static int32_t axis_in_turn(const struct mmqi_llama *llama, int32_t i)
{
    int32_t axis = i % 3;

    return axis > 0 && i / 3 < llama->sections[axis] ? axis : 0;
}

/* Which axis each frequency reads. */
static void declare_axes(struct mmqi_declare *d, const struct mmqi_llama *llama)
{
    int32_t n = llama->head_dim / 2, axis = 0, left = llama->sections[0];
    int32_t *values = mmqi_alloc_array((size_t)n, sizeof *values);

    if (!values) {
        d->status = mmqi_fail(MMQ_ERR_NOMEM, "%s: no memory for axes", d->model->path);
        return;
    }
    for (int32_t i = 0; i < n; i++, left--) {
        while (left == 0)
            left = llama->sections[++axis];
        values[i] = llama->interleaved ? axis_in_turn(llama, i) : axis;
    }
    mmqi_declare_indices(d, "rope.axis", values, n);
    mmqi_free(values);
}

static void declare_layer(struct mmqi_declare *d, const struct mmqi_llama *llama, int32_t layer)
{
    int64_t q = (int64_t)llama->n_heads * llama->head_dim;
    int64_t kv = (int64_t)llama->n_kv_heads * llama->head_dim;
    char at[MMQI_MAX_WEIGHT_NAME];

    snprintf(at, sizeof at, "language.layers.%d", (int)layer);
    d->at = at;
    mmqi_declare_norm(d, "norm1", llama->hidden, false);
    mmqi_declare_linear(d, "attn.q", q, llama->hidden, llama->qkv_bias);
    mmqi_declare_linear(d, "attn.k", kv, llama->hidden, llama->qkv_bias);
    mmqi_declare_linear(d, "attn.v", kv, llama->hidden, llama->qkv_bias);
    mmqi_declare_linear(d, "attn.o", llama->hidden, q, llama->o_bias);
    if (llama->qk_norm) {
        mmqi_declare_norm(d, "attn.q_norm", llama->head_dim, false);
        mmqi_declare_norm(d, "attn.k_norm", llama->head_dim, false);
    }
    mmqi_declare_norm(d, "norm2", llama->hidden, false);
    mmqi_declare_linear(d, "mlp.gate", llama->inner, llama->hidden, llama->mlp_bias);
    mmqi_declare_linear(d, "mlp.up", llama->inner, llama->hidden, llama->mlp_bias);
    mmqi_declare_linear(d, "mlp.down", llama->hidden, llama->inner, llama->mlp_bias);
    d->at = "language";
}

int32_t mmqi_llama_declare(struct mmqi_model *model, const struct mmqi_llama *llama)
{
    const int64_t table[2] = {llama->vocab, llama->hidden};
    struct mmqi_declare d = {.model = model, .at = "language"};

    mmqi_declare_weight(&d, "embed", MMQI_ROLE_EMBED, 2, table);
    declare_frequencies(&d, llama);
    if (has_sections(llama))
        declare_axes(&d, llama);
    for (int32_t i = 0; i < llama->n_layers; i++)
        declare_layer(&d, llama, i);
    mmqi_declare_norm(&d, "norm", llama->hidden, false);
    d.flags = llama->tied < 0 ? MMQI_WEIGHT_STORED_WINS : 0;
    if (llama->tied != 0)
        mmqi_declare_tied(&d, "head", "language.embed", llama->vocab, llama->hidden);
    else
        mmqi_declare_weight(&d, "head", MMQI_ROLE_EMBED, 2, table);
    return d.status;
}

/* ---- the graph ---- */

/* Part k of the pictures' rows onto x: in its place, or added. */
static void build_place(struct mmqi_build *b, const struct mmqi_llama *llama, int32_t x, int32_t k,
                        bool accumulate)
{
    struct mmqi_extent rows = {MMQI_ROWS_IMAGE, 1, 0};
    struct mmqi_node place = mmqi_node(MMQI_OP_PLACE_ROWS);
    int64_t width = llama->hidden;
    int32_t image = mmqi_graph_input(b->graph, "image", MMQI_BIND_IMAGE, rows,
                                     width * (1 + llama->n_deepstack));

    place.out = x;
    place.in[0] = image < 0 ? -1 : mmqi_graph_columns(b->graph, image, k * width, width);
    place.accumulate = accumulate;
    mmqi_build_node(b, &place);
}

/* Token rows, and over them the rows of pictures. */
static int32_t build_embed(struct mmqi_build *b, const struct mmqi_llama *llama)
{
    struct mmqi_extent tokens = {MMQI_ROWS_MAIN, 1, 0};
    struct mmqi_node embed = mmqi_node(MMQI_OP_EMBED);
    int32_t x;

    b->at = "language";
    mmqi_graph_begin_segment(b->graph, "language.embed");
    x = mmqi_graph_value(b->graph, "language.embed", tokens, llama->hidden);
    embed.out = x;
    embed.weight = mmqi_build_weight(b, "embed");
    mmqi_build_node(b, &embed);
    build_place(b, llama, x, 0, false);
    mmqi_graph_end_segment(b->graph, &x, 1);
    return x;
}

static void build_rope(struct mmqi_build *b, const struct mmqi_llama *llama, int32_t x,
                       int32_t n_heads)
{
    struct mmqi_node node = mmqi_node(MMQI_OP_ROPE);

    node.out = x;
    node.weight = mmqi_model_find(b->model, "language.rope");
    node.n_heads = n_heads;
    node.head_dim = llama->head_dim;
    node.bias = mmqi_model_find(b->model, "language.rope.axis"); /* -1: one axis */
    node.n_axes = b->model->spec.rope_axes;
    mmqi_build_node(b, &node);
}

/* Each head of x by itself, where it lies. */
static void build_head_norm(struct mmqi_build *b, const struct mmqi_llama *llama, const char *name,
                            int32_t x, int32_t n_heads)
{
    struct mmqi_node node = mmqi_node(MMQI_OP_RMS_NORM);

    node.in[0] = node.out = x < 0 ? -1 : mmqi_graph_split_rows(b->graph, x, n_heads);
    node.weight = mmqi_build_weight(b, name);
    node.eps = (float)llama->eps;
    mmqi_build_node(b, &node);
}

static int32_t build_attention(struct mmqi_build *b, const struct mmqi_llama *llama, int32_t layer,
                               int32_t in)
{
    struct mmqi_node store = mmqi_node(MMQI_OP_STORE_KV), attend = mmqi_node(MMQI_OP_ATTENTION);

    attend.in[0] = mmqi_build_linear(b, "attn.q", in);
    store.in[0] = mmqi_build_linear(b, "attn.k", in);
    store.in[1] = mmqi_build_linear(b, "attn.v", in);
    if (llama->qk_norm) {
        build_head_norm(b, llama, "attn.q_norm", attend.in[0], llama->n_heads);
        build_head_norm(b, llama, "attn.k_norm", store.in[0], llama->n_kv_heads);
    }
    build_rope(b, llama, attend.in[0], llama->n_heads);
    build_rope(b, llama, store.in[0], llama->n_kv_heads);
    store.layer = attend.layer = layer;
    store.n_kv_heads = attend.n_kv_heads = llama->n_kv_heads;
    store.head_dim = attend.head_dim = llama->head_dim;
    mmqi_build_node(b, &store);
    attend.out = mmqi_build_like(b, in, (int64_t)llama->n_heads * llama->head_dim);
    attend.n_heads = llama->n_heads;
    attend.scale = 1.0f / sqrtf((float)llama->head_dim);
    mmqi_build_node(b, &attend);
    return mmqi_build_linear(b, "attn.o", attend.out);
}

/* What `layer` layers have made, before the next reads it: a layer's own rows are its live-out. */
static void add_deepstack(struct mmqi_build *b, const struct mmqi_llama *llama, int32_t layer,
                          int32_t x)
{
    if (layer > 0 && layer <= llama->n_deepstack)
        build_place(b, llama, x, layer, true);
}

static int32_t build_layer(struct mmqi_build *b, const struct mmqi_llama *llama, int32_t layer,
                           int32_t x)
{
    char at[MMQI_MAX_WEIGHT_NAME];
    int32_t y;

    snprintf(at, sizeof at, "language.layers.%d", (int)layer);
    b->at = at;
    mmqi_graph_begin_segment(b->graph, at);
    add_deepstack(b, llama, layer, x);
    y = mmqi_build_rms_norm(b, "norm1", x, (float)llama->eps);
    x = mmqi_build_add(b, x, build_attention(b, llama, layer, y));
    y = mmqi_build_rms_norm(b, "norm2", x, (float)llama->eps);
    x = mmqi_build_add(b, x, mmqi_build_gated(b, y, llama->act));
    mmqi_graph_end_segment(b->graph, &x, 1);
    b->at = "language";
    return x;
}

/* Norm and head on the picked rows alone. */
static void build_head(struct mmqi_build *b, const struct mmqi_llama *llama, int32_t x)
{
    struct mmqi_extent picked = {MMQI_ROWS_PICK, 1, 0};
    struct mmqi_node gather = mmqi_node(MMQI_OP_GATHER);
    int32_t logits;

    mmqi_graph_begin_segment(b->graph, "language.head");
    add_deepstack(b, llama, llama->n_layers, x);
    logits = mmqi_graph_output(b->graph, "logits", MMQI_BIND_LOGITS, picked, llama->vocab);
    gather.in[0] = x;
    gather.out = mmqi_graph_value(b->graph, "picked", picked, llama->hidden);
    mmqi_build_node(b, &gather);
    x = mmqi_build_rms_norm(b, "norm", gather.out, (float)llama->eps);
    mmqi_build_linear_into(b, "head", x, logits);
    mmqi_graph_end_segment(b->graph, &logits, 1);
}

int32_t mmqi_llama_build(struct mmqi_build *b, const struct mmqi_llama *llama)
{
    int32_t x = build_embed(b, llama);

    for (int32_t i = 0; i < llama->n_layers; i++)
        x = build_layer(b, llama, i, x);
    build_head(b, llama, x);
    return mmqi_build_finish(b);
}
