/*
 * Tensor names and configuration of packed checkpoints.
 */
#include "quant/export_bnb.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "core/buf.h"
#include "core/dtype.h"
#include "core/mem.h"
#include "core/status.h"
#include "io/json.h"
#include "quant/stored.h"

static const char ending[] = ".weight";

/* Length of "X" in "X.weight" and "X.weight_packed"; 0 for any other name. */
static size_t base_length(const char *tensor_name)
{
    size_t length = mmqi_stored_name_length(tensor_name), tail = sizeof ending - 1;

    if (length <= tail || memcmp(tensor_name + length - tail, ending, tail) != 0)
        return 0;
    return length - tail;
}

static const char *torch_dtype(int32_t dtype)
{
    return dtype == MMQI_BF16 ? "bfloat16" : dtype == MMQI_F16 ? "float16" : "float32";
}

/* "nf4" or "fp4". */
static const char *quant_type(const struct mmqi_format_info *info)
{
    return info->table == mmqi_nf4_table ? "nf4" : "fp4";
}

/* ---- tensors ---- */

enum { OFFSET_WIDTH = 16 /* the longest: -1.17549435e-38 */ };

/*
 * What json.dumps makes of the state, byte for byte, but for the digits of the offset (those that
 * an f32 needs) and the spaces after it.
 */
static int32_t print_state(struct mmqi_buf *buf, const struct mmqi_bnb_matrix *matrix)
{
    const struct mmqi_format_info *info = mmqi_format_info(matrix->format);
    size_t begin;

    mmqi_buf_format(buf,
                    "{\"quant_type\": \"%s\", \"blocksize\": %d, \"dtype\": \"%s\", "
                    "\"shape\": [%" PRId64 ", %" PRId64 "]",
                    quant_type(info), (int)info->block, torch_dtype(matrix->source_dtype),
                    matrix->rows, matrix->cols);
    if (info->nested)
        mmqi_buf_format(buf,
                        ", \"nested_blocksize\": %d, \"nested_dtype\": \"float32\", "
                        "\"nested_offset\": ",
                        MMQI_NESTED_BLOCK);
    begin = buf->size;
    if (info->nested)
        mmqi_buf_number(buf, matrix->nested_offset);
    mmqi_buf_text(buf, "}");
    while (info->nested && !mmqi_buf_failed(buf) && buf->size < begin + OFFSET_WIDTH + 1)
        mmqi_buf_text(buf, " ");
    if (mmqi_buf_failed(buf))
        return mmqi_fail(MMQ_ERR_NOMEM, "no memory for the state of '%s'", matrix->file_name);
    return MMQ_OK;
}

/* "X.weight" + ".absmax", or "X" + ".SCB" for the suffix "@SCB". */
static int32_t declare(struct mmqi_save *save, const char *file_name, const char *suffix,
                       int32_t dtype, int32_t rank, const int64_t *shape)
{
    struct mmqi_buf buf = {0};
    bool replace = suffix[0] == '@';
    int32_t status;

    mmqi_buf_append(&buf, file_name, replace ? base_length(file_name) : strlen(file_name));
    mmqi_buf_text(&buf, replace ? "." : "");
    mmqi_buf_text(&buf, suffix + replace);
    status = mmqi_buf_failed(&buf)
                 ? mmqi_fail(MMQ_ERR_NOMEM, "no memory for the name of '%s'", file_name)
                 : mmqi_save_tensor(save, buf.data, dtype, rank, shape, suffix[0] != '\0');
    mmqi_buf_free(&buf);
    return status;
}

/* The quant_map and the state; of nested scales also their map. */
static int32_t declare_state(struct mmqi_save *save, const struct mmqi_bnb_matrix *matrix)
{
    const struct mmqi_format_info *info = mmqi_format_info(matrix->format);
    const char *name = matrix->file_name;
    const int64_t map_size = 16, nested_map_size = 256;
    struct mmqi_buf text = {0};
    int64_t state_size;
    int32_t status = print_state(&text, matrix);

    state_size = (int64_t)text.size;
    mmqi_buf_free(&text);
    if (status == MMQ_OK)
        status = declare(save, name, ".quant_map", MMQI_F32, 1, &map_size);
    if (status == MMQ_OK && info->nested)
        status = declare(save, name, ".nested_quant_map", MMQI_F32, 1, &nested_map_size);
    if (status == MMQ_OK)
        status = declare(save, name,
                         info->table == mmqi_nf4_table ? ".quant_state.bitsandbytes__nf4"
                                                       : ".quant_state.bitsandbytes__fp4",
                         MMQI_U8, 1, &state_size);
    return status;
}

static size_t count_tensors(const struct mmqi_layout *layout)
{
    size_t n = 0;

    for (int32_t i = 0; i < layout->n_parts; i++)
        n += layout->part[i].suffix != NULL;
    return n;
}

int32_t mmqi_bnb_declare(struct mmqi_save *save, size_t *first,
                         const struct mmqi_bnb_matrix *matrix)
{
    const struct mmqi_layout *layout = matrix->layout;
    const char *name = matrix->file_name;
    const int64_t three = 3;
    int32_t status = MMQ_OK;

    if (base_length(name) == 0)
        return mmqi_fail(MMQ_ERR_UNSUPPORTED,
                         "'%s' does not end in '.weight': there are no names for its parts", name);
    *first = mmqi_save_count(save);
    for (size_t i = 0; i < count_tensors(layout) && status == MMQ_OK; i++)
        status = declare(save, name, layout->part[i].suffix, layout->part[i].dtype,
                         layout->part[i].rank, layout->part[i].shape);
    if (status != MMQ_OK)
        return status;
    switch (mmqi_format_info(matrix->format)->kind) {
    case MMQI_KIND_INT8:
        return declare(save, name, "@weight_format", MMQI_U8, 0, NULL);
    case MMQI_KIND_INT4:
        return declare(save, name, "_shape", MMQI_I64, 1, &three);
    default:
        return declare_state(save, matrix);
    }
}

static int32_t write_state(struct mmqi_save *save, size_t id, const struct mmqi_bnb_matrix *matrix)
{
    const struct mmqi_format_info *info = mmqi_format_info(matrix->format);
    struct mmqi_buf text = {0};
    int32_t status = mmqi_save_write(save, id++, 0, info->table, 16 * sizeof *info->table);

    if (status == MMQ_OK && info->nested)
        status = mmqi_save_write(save, id++, 0, mmqi_nested_table, sizeof mmqi_nested_table);
    if (status == MMQ_OK)
        status = print_state(&text, matrix);
    if (status == MMQ_OK)
        status = mmqi_save_write(save, id, 0, text.data, text.size);
    mmqi_buf_free(&text);
    return status;
}

int32_t mmqi_bnb_write_extra(struct mmqi_save *save, size_t first,
                             const struct mmqi_bnb_matrix *matrix)
{
    const struct mmqi_format_info *info = mmqi_format_info(matrix->format);
    const int64_t shape[3] = {matrix->rows, matrix->cols, info->block};
    size_t id = first + count_tensors(matrix->layout);
    uint8_t row_order = 0;

    switch (info->kind) {
    case MMQI_KIND_INT8:
        return mmqi_save_write(save, id, 0, &row_order, 1);
    case MMQI_KIND_INT4:
        return mmqi_save_write(save, id, 0, shape, sizeof shape);
    default:
        return write_state(save, id, matrix);
    }
}

/* ---- quantization_config ---- */

/*
 * Whether the list entry `key` would keep the module `name` plain under either rule of
 * transformers: 4.x (equal, last component, or followed by a dot anywhere inside) or 5.x
 * (a prefix, or an ending).
 */
static bool skips(const char *key, size_t key_length, const char *name, size_t name_length)
{
    if (key_length > name_length)
        return false;
    if (memcmp(key, name, key_length) == 0 ||
        memcmp(key, name + name_length - key_length, key_length) == 0)
        return true;
    for (size_t i = 0; i + key_length < name_length; i++)
        if (name[i + key_length] == '.' && memcmp(key, name + i, key_length) == 0)
            return true;
    return false;
}

static bool is_packed(int32_t format)
{
    return !mmqi_format_info(format)->is_float;
}

static bool skips_packed(const struct mmqi_model *model, const int32_t *formats, const char *key,
                         size_t key_length)
{
    for (int32_t i = 0; i < model->n_weights; i++) {
        const struct mmqi_entry *entry = model->weights[i].entry[0];

        if (is_packed(formats[i]) && entry &&
            skips(key, key_length, entry->name, base_length(entry->name)))
            return true;
    }
    return false;
}

/*
 * Kept matrices by the full name of their module, and "lm_head", which a list must name because it
 * replaces the default that keeps the head, and which loaders know under that name wherever the
 * file's prefix puts it. A name that would keep a quantized module too is left out.
 */
static void print_skipped(struct mmqi_buf *buf, const struct mmqi_model *model,
                          const int32_t *formats)
{
    mmqi_buf_text(buf, "\"lm_head\"");
    for (int32_t i = 0; i < model->n_weights; i++) {
        const struct mmqi_weight *weight = &model->weights[i];
        const struct mmqi_entry *entry = weight->entry[0];
        size_t length = entry ? base_length(entry->name) : 0;

        if (is_packed(formats[i]) || weight->role == MMQI_ROLE_VECTOR || weight->same_as >= 0)
            continue;
        if (length == 0 || (length == 7 && memcmp(entry->name, "lm_head", 7) == 0) ||
            skips_packed(model, formats, entry->name, length))
            continue;
        mmqi_buf_text(buf, ", ");
        mmqi_buf_json_string(buf, entry->name, length);
    }
}

/* The type of the source of the first packed weight. */
static const char *compute_dtype(const struct mmqi_model *model, const int32_t *formats)
{
    for (int32_t i = 0; i < model->n_weights; i++) {
        const struct mmqi_entry *entry = model->weights[i].entry[0];

        if (is_packed(formats[i]) && entry && mmqi_format_from_dtype(entry->dtype) >= 0)
            return torch_dtype(entry->dtype);
    }
    return "float32";
}

/* Whether bitsandbytes loads both by one config: the block size stands in each tensor's state. */
static bool same_scheme(const struct mmqi_format_info *a, const struct mmqi_format_info *b)
{
    return a->kind == b->kind && a->kind != MMQI_KIND_INT4 && a->table == b->table &&
           a->nested == b->nested;
}

/* The format of the packed weights, or of one of them; NULL: none is packed. bitsandbytes packs
 * linears alone. */
static const struct mmqi_format_info *find_scheme(const struct mmqi_model *model,
                                                  const int32_t *formats, bool *is_one)
{
    const struct mmqi_format_info *scheme = NULL, *info;

    *is_one = true;
    for (int32_t i = 0; i < model->n_weights; i++) {
        info = mmqi_format_info(formats[i]);
        if (info->is_float)
            continue;
        scheme = scheme ? scheme : info;
        *is_one =
            *is_one && same_scheme(scheme, info) && model->weights[i].role == MMQI_ROLE_LINEAR;
    }
    return scheme;
}

static void print_bnb(struct mmqi_buf *buf, const struct mmqi_model *model, const int32_t *formats,
                      const struct mmqi_format_info *scheme)
{
    bool is_4bit = scheme->kind == MMQI_KIND_TABLE4;
    const char *in_4bit = is_4bit ? "true" : "false", *in_8bit = is_4bit ? "false" : "true";

    mmqi_buf_format(buf,
                    "{\n    \"quant_method\": \"bitsandbytes\",\n"
                    "    \"load_in_4bit\": %s,\n    \"load_in_8bit\": %s,\n"
                    "    \"_load_in_4bit\": %s,\n    \"_load_in_8bit\": %s,\n"
                    "    \"bnb_4bit_quant_type\": \"%s\",\n"
                    "    \"bnb_4bit_use_double_quant\": %s,\n"
                    "    \"bnb_4bit_compute_dtype\": \"%s\",\n"
                    "    \"bnb_4bit_quant_storage\": \"uint8\",\n"
                    "    \"llm_int8_threshold\": 6.0,\n"
                    "    \"llm_int8_enable_fp32_cpu_offload\": false,\n"
                    "    \"llm_int8_has_fp16_weight\": false,\n"
                    "    \"llm_int8_skip_modules\": [",
                    in_4bit, in_8bit, in_4bit, in_8bit, is_4bit ? quant_type(scheme) : "nf4",
                    scheme->nested ? "true" : "false", compute_dtype(model, formats));
    print_skipped(buf, model, formats);
    mmqi_buf_text(buf, "]\n  }");
}

/* Weights that share another's storage are no modules of the file. */
static void print_modules(struct mmqi_buf *buf, const struct mmqi_model *model,
                          const int32_t *formats)
{
    const char *comma = "";

    mmqi_buf_text(buf, "{\n    \"quant_method\": \"libmmq\",\n    \"modules\": {");
    for (int32_t i = 0; i < model->n_weights; i++) {
        const struct mmqi_entry *entry = model->weights[i].entry[0];

        if (!is_packed(formats[i]) || !entry || model->weights[i].same_as >= 0)
            continue;
        mmqi_buf_format(buf, "%s\n      ", comma);
        mmqi_buf_json_string(buf, entry->name, base_length(entry->name));
        mmqi_buf_format(buf, ": \"%s\"", mmqi_format_info(formats[i])->name);
        comma = ",";
    }
    mmqi_buf_text(buf, "\n    }\n  }");
}

/* ---- putting it into the text ---- */

static bool is_space_or_comma(char c)
{
    return c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == ',';
}

/* Where in the text the value goes: [begin, end) is replaced; begin == end where the key is absent.
 */
struct place {
    size_t begin, end;
    bool found;
    bool first; /* the object has no other key */
};

/* One key of the top-level object; its name was just read. */
static int32_t pass_key(struct mmqi_json *json, struct place *place)
{
    static const char key[] = "quantization_config";
    bool ours = mmqi_json_size(json) == sizeof key - 1 && strcmp(mmqi_json_text(json), key) == 0;
    enum mmqi_json_event event;
    int32_t status = mmqi_json_next(json, &event);

    place->first = false;
    if (status != MMQ_OK)
        return status;
    if (ours) {
        place->found = true;
        place->begin = mmqi_json_offset(json);
    }
    return mmqi_json_skip(json);
}

static int32_t find_place(struct place *place, const char *text, size_t size)
{
    struct mmqi_json *json;
    enum mmqi_json_event event;
    bool open = false; /* the value was found, and where it ends is not known yet */
    int32_t status = mmqi_json_open(&json, "config.json", text, size);

    memset(place, 0, sizeof *place);
    place->first = true;
    if (status == MMQ_OK)
        status = mmqi_json_next(json, &event);
    if (status == MMQ_OK && event != MMQI_JSON_OBJECT)
        status = mmqi_json_fail(json, MMQ_ERR_FORMAT, "not an object");
    while (status == MMQ_OK) {
        status = mmqi_json_next(json, &event);
        if (status == MMQ_OK && (!place->found || open))
            place->end = mmqi_json_offset(json);
        open = false;
        if (status != MMQ_OK || event != MMQI_JSON_KEY)
            break;
        open = !place->found;
        status = pass_key(json, place);
        open = open && place->found;
    }
    if (status == MMQ_OK)
        status = mmqi_json_next(json, &event); /* nothing may follow the object */
    mmqi_json_close(json);
    while (status == MMQ_OK && place->end > place->begin && is_space_or_comma(text[place->end - 1]))
        place->end--;
    if (!place->found)
        place->begin = place->end;
    return status;
}

int32_t mmqi_bnb_config(char **out, size_t *out_size, const char *text, size_t size,
                        const struct mmqi_model *model, const int32_t *formats)
{
    bool is_one;
    const struct mmqi_format_info *scheme = find_scheme(model, formats, &is_one);
    struct mmqi_buf buf = {0};
    struct place place;
    int32_t status = find_place(&place, text, size);

    *out = NULL;
    if (status != MMQ_OK)
        return status;
    mmqi_buf_append(&buf, text, scheme ? place.begin : place.end);
    if (scheme && !place.found)
        mmqi_buf_text(&buf, place.first ? "\n  \"quantization_config\": "
                                        : ",\n  \"quantization_config\": ");
    if (scheme && is_one)
        print_bnb(&buf, model, formats, scheme);
    else if (scheme)
        print_modules(&buf, model, formats);
    mmqi_buf_append(&buf, text + place.end, size - place.end);
    *out_size = buf.size;
    *out = mmqi_buf_take(&buf);
    mmqi_buf_free(&buf);
    if (!*out)
        return mmqi_fail(MMQ_ERR_NOMEM, "no memory for config.json");
    return MMQ_OK;
}
