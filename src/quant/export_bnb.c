/*
 * Tensor names and configuration of bitsandbytes checkpoints.
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

static const char ending[] = ".weight";

/* Length of "X" in "X.weight"; 0 for any other name. */
static size_t base_length(const char *file_name)
{
    size_t length = strlen(file_name), tail = sizeof ending - 1;

    if (length <= tail || strcmp(file_name + length - tail, ending) != 0)
        return 0;
    return length - tail;
}

static const char *torch_dtype(int32_t dtype)
{
    return dtype == MMQI_BF16 ? "bfloat16" : dtype == MMQI_F16 ? "float16" : "float32";
}

/* ---- tensors ---- */

/* Byte for byte what json.dumps makes of the state; returns the length. */
static size_t print_state(char text[160], const struct mmqi_bnb_matrix *matrix)
{
    return (size_t)snprintf(text, 160,
                            "{\"quant_type\": \"nf4\", \"blocksize\": 64, \"dtype\": \"%s\", "
                            "\"shape\": [%" PRId64 ", %" PRId64 "]}",
                            torch_dtype(matrix->source_dtype), matrix->rows, matrix->cols);
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

int32_t mmqi_bnb_declare(struct mmqi_save *save, size_t *first,
                         const struct mmqi_bnb_matrix *matrix)
{
    const struct mmqi_layout *layout = matrix->layout;
    const char *name = matrix->file_name;
    int32_t status = MMQ_OK;
    char text[160];
    int64_t map_size = 16, state_size;

    if (base_length(name) == 0)
        return mmqi_fail(MMQ_ERR_UNSUPPORTED,
                         "'%s' does not end in '.weight': bitsandbytes has no name for its parts",
                         name);
    *first = mmqi_save_count(save);
    for (int32_t i = 0; i < layout->n_parts && status == MMQ_OK; i++)
        status = declare(save, name, layout->part[i].suffix, layout->part[i].dtype,
                         layout->part[i].rank, layout->part[i].shape);
    if (status != MMQ_OK)
        return status;
    if (matrix->format == MMQI_FORMAT_INT8)
        return declare(save, name, "@weight_format", MMQI_U8, 0, NULL);
    state_size = (int64_t)print_state(text, matrix);
    status = declare(save, name, ".quant_map", MMQI_F32, 1, &map_size);
    if (status == MMQ_OK)
        status = declare(save, name, ".quant_state.bitsandbytes__nf4", MMQI_U8, 1, &state_size);
    return status;
}

int32_t mmqi_bnb_write_extra(struct mmqi_save *save, size_t first,
                             const struct mmqi_bnb_matrix *matrix)
{
    size_t id = first + (size_t)matrix->layout->n_parts;
    uint8_t row_order = 0;
    char text[160];
    int32_t status;

    if (matrix->format == MMQI_FORMAT_INT8)
        return mmqi_save_write(save, id, 0, &row_order, 1);
    status = mmqi_save_write(save, id, 0, mmqi_nf4_table, sizeof mmqi_nf4_table);
    if (status == MMQ_OK)
        status = mmqi_save_write(save, id + 1, 0, text, print_state(text, matrix));
    return status;
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

static bool skips_quantized(const struct mmqi_model *model, const bool *quantized, const char *key,
                            size_t key_length)
{
    for (int32_t i = 0; i < model->n_weights; i++) {
        const struct mmqi_entry *entry = model->weights[i].entry[0];

        if (quantized[i] && entry && skips(key, key_length, entry->name, base_length(entry->name)))
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
                          const bool *quantized)
{
    mmqi_buf_text(buf, "\"lm_head\"");
    for (int32_t i = 0; i < model->n_weights; i++) {
        const struct mmqi_weight *weight = &model->weights[i];
        const struct mmqi_entry *entry = weight->entry[0];
        size_t length = entry ? base_length(entry->name) : 0;

        if (quantized[i] || weight->role == MMQI_ROLE_VECTOR || weight->same_as >= 0)
            continue;
        if (length == 0 || (length == 7 && memcmp(entry->name, "lm_head", 7) == 0) ||
            skips_quantized(model, quantized, entry->name, length))
            continue;
        mmqi_buf_text(buf, ", ");
        mmqi_buf_json_string(buf, entry->name, length);
    }
}

static const char *compute_dtype(const struct mmqi_model *model, const bool *quantized)
{
    for (int32_t i = 0; i < model->n_weights; i++) {
        const struct mmqi_entry *entry = model->weights[i].entry[0];

        if (quantized[i] && entry && mmqi_format_info(model->weights[i].format)->is_float)
            return torch_dtype(entry->dtype);
    }
    return "float32";
}

static void print_quantization(struct mmqi_buf *buf, const struct mmqi_model *model,
                               const bool *quantized, int32_t format)
{
    const char *in_4bit = format == MMQI_FORMAT_NF4 ? "true" : "false";
    const char *in_8bit = format == MMQI_FORMAT_INT8 ? "true" : "false";

    mmqi_buf_format(buf,
                    "{\n    \"quant_method\": \"bitsandbytes\",\n"
                    "    \"load_in_4bit\": %s,\n    \"load_in_8bit\": %s,\n"
                    "    \"_load_in_4bit\": %s,\n    \"_load_in_8bit\": %s,\n"
                    "    \"bnb_4bit_quant_type\": \"nf4\",\n"
                    "    \"bnb_4bit_use_double_quant\": false,\n"
                    "    \"bnb_4bit_compute_dtype\": \"%s\",\n"
                    "    \"bnb_4bit_quant_storage\": \"uint8\",\n"
                    "    \"llm_int8_threshold\": 6.0,\n"
                    "    \"llm_int8_enable_fp32_cpu_offload\": false,\n"
                    "    \"llm_int8_has_fp16_weight\": false,\n"
                    "    \"llm_int8_skip_modules\": [",
                    in_4bit, in_8bit, in_4bit, in_8bit, compute_dtype(model, quantized));
    print_skipped(buf, model, quantized);
    mmqi_buf_text(buf, "]\n  }");
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
                        const struct mmqi_model *model, const bool *quantized, int32_t format)
{
    struct mmqi_buf buf = {0};
    struct place place;
    int32_t status = find_place(&place, text, size);

    *out = NULL;
    if (status != MMQ_OK)
        return status;
    mmqi_buf_append(&buf, text, place.begin);
    if (!place.found)
        mmqi_buf_text(&buf, place.first ? "\n  \"quantization_config\": "
                                        : ",\n  \"quantization_config\": ");
    print_quantization(&buf, model, quantized, format);
    mmqi_buf_append(&buf, text + place.end, size - place.end);
    *out_size = buf.size;
    *out = mmqi_buf_take(&buf);
    mmqi_buf_free(&buf);
    if (!*out)
        return mmqi_fail(MMQ_ERR_NOMEM, "no memory for config.json");
    return MMQ_OK;
}
