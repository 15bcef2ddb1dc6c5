/*
 * Recognising the stored form of a matrix, and checking that its tensors agree.
 */
#include "quant/stored.h"

#include <float.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "core/dtype.h"
#include "core/mem.h"
#include "core/status.h"
#include "core/text.h"
#include "io/settings.h"

enum { MAX_NAME = 1024, MAX_STATE = 65536 /* bytes of a quant_state's JSON */ };

/* The matrix that is looked for. */
struct probe {
    const struct mmqi_checkpoint *checkpoint;
    const char *name; /* "X.weight" */
    int base;         /* length of "X"; -1 for a name that does not end so */
    int64_t rows, cols;
    const struct mmqi_entry *weight; /* the tensor `name`, or NULL */
    const char *file;                /* where it, or int4 codes, lie, for messages */
};

/* Tensors that only methods of other libraries write beside X. */
static const struct {
    const char *suffix, *method;
} foreign[] = {
    {".qweight", "GPTQ or AWQ"},
    {".weight_packed", "compressed-tensors"}, /* but for int4 of our own: is_int4() */
    {".weight_scale", "scaled FP8, FP4 or int8"},
    {".weight_scale_inv", "block FP8"},
    {"_blocks", "MXFP4"},
    {".W_q", "HQQ"},
};

/* The tensor "X" + suffix, or NULL. */
static const struct mmqi_entry *sibling(const struct probe *probe, const char *suffix)
{
    char name[MAX_NAME + 64];
    int length;

    if (probe->base < 0)
        return NULL;
    length = snprintf(name, sizeof name, "%.*s%s", probe->base, probe->name, suffix);
    if (length < 0 || (size_t)length >= sizeof name)
        return NULL;
    return mmqi_checkpoint_find(probe->checkpoint, name);
}

static bool is_float(int32_t dtype)
{
    return mmqi_format_from_dtype(dtype) >= 0;
}

static int32_t refuse_foreign(const struct probe *probe)
{
    for (size_t i = 0; i < sizeof foreign / sizeof *foreign; i++) {
        const struct mmqi_entry *entry = sibling(probe, foreign[i].suffix);

        if (!entry)
            continue;
        if (probe->weight && is_float(probe->weight->dtype))
            return mmqi_fail(MMQ_ERR_FORMAT, "%s: '%s' is stored twice: plain and as %s ('%s')",
                             probe->file, probe->name, foreign[i].method, entry->name);
        return mmqi_fail(MMQ_ERR_UNSUPPORTED, "%s: '%s' is stored as %s, which is not read",
                         mmqi_checkpoint_shard_name(probe->checkpoint, entry->shard), entry->name,
                         foreign[i].method);
    }
    return MMQ_OK;
}

/* ---- plain numbers ---- */

static bool plain_shape_fits(const struct mmqi_entry *entry, int64_t rows, int64_t cols)
{
    int64_t rest = 1;

    if (entry->rank == 0)
        return rows == 1 && cols == 1;
    if (entry->rank == 1)
        return rows == 1 && entry->shape[0] == cols;
    for (int32_t i = 1; i < entry->rank; i++)
        if (__builtin_mul_overflow(rest, entry->shape[i], &rest))
            return false;
    return entry->shape[0] == rows && rest == cols;
}

static void print_shape(char *text, size_t size, const struct mmqi_entry *entry)
{
    size_t used = (size_t)snprintf(text, size, "[");

    for (int32_t i = 0; i < entry->rank && used < size; i++)
        used += (size_t)snprintf(text + used, size - used, "%s%" PRId64, i > 0 ? ", " : "",
                                 entry->shape[i]);
    if (used < size)
        snprintf(text + used, size - used, "]");
}

static int32_t find_plain(struct mmqi_stored *out, const struct probe *probe)
{
    const struct mmqi_entry *weight = probe->weight;
    char shape[MMQI_MAX_RANK * 22 + 4];

    if (!is_float(weight->dtype))
        return mmqi_fail(MMQ_ERR_UNSUPPORTED, "%s: '%s' is of type %s; F32, F16 and BF16 are read",
                         probe->file, weight->name, mmqi_dtype_name(weight->dtype));
    if (!plain_shape_fits(weight, probe->rows, probe->cols)) {
        print_shape(shape, sizeof shape, weight);
        return mmqi_fail(MMQ_ERR_MISMATCH,
                         "%s: '%s' has the shape %s, not [%" PRId64 ", %" PRId64 "]", probe->file,
                         weight->name, shape, probe->rows, probe->cols);
    }
    out->format = mmqi_format_from_dtype(weight->dtype);
    out->entry[0] = weight;
    return MMQ_OK;
}

/* ---- parts of the packed formats ---- */

/* A part must hold exactly the layout's bytes, in the layout's type. */
static int32_t check_part(const struct probe *probe, const struct mmqi_entry *entry,
                          const struct mmqi_part *part, const char *missing)
{
    const char *file;

    if (!entry)
        return mmqi_fail(MMQ_ERR_FORMAT, "%s: '%s' is quantized, but its tensor '%.*s%s' is absent",
                         probe->file, probe->name, probe->base, probe->name, missing);
    file = mmqi_checkpoint_shard_name(probe->checkpoint, entry->shard);
    if (entry->dtype != part->dtype)
        return mmqi_fail(MMQ_ERR_UNSUPPORTED, "%s: '%s' is of type %s; only %s is read", file,
                         entry->name, mmqi_dtype_name(entry->dtype), mmqi_dtype_name(part->dtype));
    if (entry->bytes != part->bytes)
        return mmqi_fail(MMQ_ERR_MISMATCH,
                         "%s: '%s' has %" PRIu64 " bytes; a matrix of %" PRId64 " x %" PRId64
                         " needs %" PRIu64,
                         file, entry->name, entry->bytes, probe->rows, probe->cols, part->bytes);
    return MMQ_OK;
}

static void add_extra(struct mmqi_stored *out, const struct mmqi_entry *entry)
{
    out->extra[out->n_extra++] = entry;
}

/* ---- LLM.int8 ---- */

static int32_t check_weight_format(const struct probe *probe, const struct mmqi_entry *entry)
{
    const char *file = mmqi_checkpoint_shard_name(probe->checkpoint, entry->shard);
    uint8_t order;
    int32_t status;

    if (entry->dtype != MMQI_U8 || entry->bytes != 1)
        return mmqi_fail(MMQ_ERR_FORMAT, "%s: '%s' is not one U8 number", file, entry->name);
    status = mmqi_checkpoint_read(probe->checkpoint, entry, 0, &order, 1);
    if (status != MMQ_OK)
        return status;
    if (order != 0)
        return mmqi_fail(MMQ_ERR_UNSUPPORTED,
                         "%s: '%s' is %d: codes in the tiles of one GPU generation are not read",
                         file, entry->name, order);
    return MMQ_OK;
}

static int32_t find_int8(struct mmqi_stored *out, const struct probe *probe)
{
    const struct mmqi_entry *scb = sibling(probe, ".SCB");
    const struct mmqi_entry *order = sibling(probe, ".weight_format");
    struct mmqi_layout layout;
    int32_t status;

    status = mmqi_format_info(MMQI_FORMAT_INT8)->layout(&layout, probe->rows, probe->cols);
    if (status == MMQ_OK && !plain_shape_fits(probe->weight, probe->rows, probe->cols))
        status = mmqi_fail(MMQ_ERR_MISMATCH, "%s: the int8 '%s' is not [%" PRId64 ", %" PRId64 "]",
                           probe->file, probe->name, probe->rows, probe->cols);
    if (status == MMQ_OK)
        status = check_part(probe, probe->weight, &layout.part[0], ".weight");
    if (status == MMQ_OK)
        status = check_part(probe, scb, &layout.part[1], ".SCB");
    if (status == MMQ_OK && order)
        status = check_weight_format(probe, order);
    if (status != MMQ_OK)
        return status;
    out->format = MMQI_FORMAT_INT8;
    out->entry[0] = probe->weight;
    out->entry[1] = scb;
    if (order)
        add_extra(out, order);
    return MMQ_OK;
}

/* ---- bitsandbytes, 4 bit ---- */

/* What the quantization state says. */
struct state {
    const struct mmqi_entry *entry;
    const char *type; /* "nf4", "fp4": as the tensor's name ends */
    int64_t block;
    bool nested;
    double offset;
};

/* The codes' bytes, whatever type they are stored as: a wider one rounds their number up. */
static int32_t check_codes(const struct probe *probe, const struct mmqi_part *part,
                           const char *type)
{
    const struct mmqi_entry *weight = probe->weight;
    uint64_t item, bytes;

    if (!weight)
        return mmqi_fail(MMQ_ERR_FORMAT, "'%s' has a quantization state, but no tensor",
                         probe->name);
    if (weight->dtype != MMQI_U8 && !is_float(weight->dtype))
        return mmqi_fail(MMQ_ERR_FORMAT, "%s: '%s' holds 4-bit codes as %s", probe->file,
                         probe->name, mmqi_dtype_name(weight->dtype));
    item = mmqi_dtype_size(weight->dtype);
    bytes = (part->bytes + item - 1) / item * item; /* cannot wrap: half of an int64_t count */
    if (weight->bytes != bytes)
        return mmqi_fail(
            MMQ_ERR_MISMATCH,
            "%s: '%s' has %" PRIu64 " bytes; %s codes of %" PRId64 " x %" PRId64 " take %" PRIu64,
            probe->file, probe->name, weight->bytes, type, probe->rows, probe->cols, bytes);
    return MMQ_OK;
}

/* `map` holds the n values of `table`, each within `tolerance` of it. */
static int32_t check_map(const struct probe *probe, const struct mmqi_entry *map, const char *what,
                         const float *table, int n, float tolerance)
{
    float values[256];
    size_t bytes = (size_t)n * sizeof *values;
    const char *file;
    int32_t status;

    if (!map)
        return mmqi_fail(MMQ_ERR_FORMAT, "%s: '%s' has no %s", probe->file, probe->name, what);
    file = mmqi_checkpoint_shard_name(probe->checkpoint, map->shard);
    if (map->dtype != MMQI_F32 || map->bytes != bytes)
        return mmqi_fail(MMQ_ERR_FORMAT, "%s: '%s' is not %d F32 numbers", file, map->name, n);
    status = mmqi_checkpoint_read(probe->checkpoint, map, 0, values, bytes);
    if (status != MMQ_OK)
        return status;
    for (int i = 0; i < n; i++)
        if (!(fabsf(values[i] - table[i]) <= tolerance * fabsf(table[i])))
            return mmqi_fail(MMQ_ERR_UNSUPPORTED, "%s: '%s' has a value %d of its own", file,
                             map->name, i);
    return MMQ_OK;
}

static int32_t read_block_size(struct state *out, const struct mmqi_settings *state)
{
    int32_t status = mmqi_settings_int(state, "blocksize", 1, 4096, &out->block);

    if (status != MMQ_OK)
        return status;
    if (out->block < 32 || (out->block & (out->block - 1)) != 0)
        return mmqi_fail(MMQ_ERR_FORMAT, "%s: blocksize %" PRId64 " is none of 32, 64 ... 4096",
                         mmqi_settings_name(state), out->block);
    if (out->block > 128)
        return mmqi_fail(MMQ_ERR_UNSUPPORTED,
                         "%s: %s in blocks of %" PRId64 "; 32, 64 and 128 are read",
                         mmqi_settings_name(state), out->type, out->block);
    return MMQ_OK;
}

static int32_t read_nested(struct state *out, const struct mmqi_settings *state)
{
    const char *dtype = "", *file = mmqi_settings_name(state);
    int64_t block = 0;
    int32_t status;

    out->nested = mmqi_settings_has(state, "nested_blocksize") ||
                  mmqi_settings_has(state, "nested_offset") ||
                  mmqi_settings_has(state, "nested_dtype");
    if (!out->nested)
        return MMQ_OK;
    if (!mmqi_settings_has(state, "nested_offset"))
        return mmqi_fail(MMQ_ERR_FORMAT, "%s: nested, but without nested_offset", file);
    status = mmqi_settings_int(state, "nested_blocksize", 1, INT32_MAX, &block);
    if (status == MMQ_OK)
        status = mmqi_settings_string(state, "nested_dtype", &dtype);
    if (status == MMQ_OK)
        status =
            mmqi_settings_number(state, "nested_offset", -(double)FLT_MAX, FLT_MAX, &out->offset);
    if (status == MMQ_OK && block != MMQI_NESTED_BLOCK)
        status = mmqi_fail(MMQ_ERR_UNSUPPORTED,
                           "%s: nested scales in blocks of %" PRId64 "; only %d is read", file,
                           block, MMQI_NESTED_BLOCK);
    if (status == MMQ_OK && strcmp(dtype, "float32") != 0)
        status = mmqi_fail(MMQ_ERR_UNSUPPORTED, "%s: nested_dtype '%s'; only float32 is read", file,
                           dtype);
    return status;
}

static int32_t check_state_texts(const struct mmqi_settings *state, const char *expected)
{
    const char *type = "", *dtype = "", *file = mmqi_settings_name(state);
    int32_t status = mmqi_settings_string(state, "quant_type", &type);

    if (status == MMQ_OK)
        status = mmqi_settings_string(state, "dtype", &dtype);
    if (status != MMQ_OK)
        return status;
    if (strcmp(type, expected) != 0)
        return mmqi_fail(MMQ_ERR_FORMAT, "%s: quant_type is '%s', not '%s' as in the name", file,
                         type, expected);
    if (strcmp(dtype, "bfloat16") != 0 && strcmp(dtype, "float16") != 0 &&
        strcmp(dtype, "float32") != 0)
        return mmqi_fail(MMQ_ERR_FORMAT, "%s: dtype '%s' is unknown", file, dtype);
    return MMQ_OK;
}

static int32_t check_state_shape(const struct mmqi_settings *state, int64_t rows, int64_t cols)
{
    int64_t shape[2] = {-1, -1};
    int32_t status = mmqi_settings_int(state, "shape.0", 0, INT64_MAX, &shape[0]);

    if (status == MMQ_OK)
        status = mmqi_settings_int(state, "shape.1", 0, INT64_MAX, &shape[1]);
    if (status != MMQ_OK)
        return status;
    if (mmqi_settings_count(state, "shape") != 2)
        return mmqi_fail(MMQ_ERR_FORMAT, "%s: shape is not two numbers", mmqi_settings_name(state));
    if (shape[0] != rows || shape[1] != cols)
        return mmqi_fail(MMQ_ERR_MISMATCH,
                         "%s: shape [%" PRId64 ", %" PRId64 "], not [%" PRId64 ", %" PRId64 "]",
                         mmqi_settings_name(state), shape[0], shape[1], rows, cols);
    return MMQ_OK;
}

static int32_t parse_state(struct state *out, const struct probe *probe,
                           const struct mmqi_settings *state)
{
    int32_t status = check_state_texts(state, out->type);

    if (status == MMQ_OK)
        status = check_state_shape(state, probe->rows, probe->cols);
    if (status == MMQ_OK)
        status = read_block_size(out, state);
    return status == MMQ_OK ? read_nested(out, state) : status;
}

static int32_t read_state(struct state *out, const struct probe *probe)
{
    const struct mmqi_entry *entry = out->entry;
    struct mmqi_settings *state = NULL;
    char *text = NULL;
    int32_t status;

    if (entry->dtype != MMQI_U8 || entry->bytes > MAX_STATE)
        return mmqi_fail(MMQ_ERR_FORMAT, "%s: '%s' is not U8 text of at most %d bytes",
                         mmqi_checkpoint_shard_name(probe->checkpoint, entry->shard), entry->name,
                         MAX_STATE);
    text = mmqi_alloc((size_t)entry->bytes);
    if (!text)
        return mmqi_fail(MMQ_ERR_NOMEM, "no memory for '%s'", entry->name);
    status = mmqi_checkpoint_read(probe->checkpoint, entry, 0, text, (size_t)entry->bytes);
    if (status == MMQ_OK)
        status = mmqi_settings_parse(&state, entry->name, text, (size_t)entry->bytes);
    if (status == MMQ_OK)
        status = parse_state(out, probe, state);
    mmqi_settings_free(state);
    mmqi_free(text);
    return status;
}

/* The format that the state describes; every combination that was read has one. */
static const struct mmqi_format_info *format_of_state(const struct state *state)
{
    const float *table = strcmp(state->type, "nf4") == 0 ? mmqi_nf4_table : mmqi_fp4_table;
    const struct mmqi_format_info *info;

    for (int32_t i = 0; i < MMQI_N_FORMATS; i++) {
        info = mmqi_format_info(i);
        if (info->kind == MMQI_KIND_TABLE4 && info->table == table && info->block == state->block &&
            info->nested == state->nested)
            return info;
    }
    return mmqi_format_info(MMQI_FORMAT_NF4);
}

/* The tensors of a nested matrix, or that a flat one has none of them. */
static int32_t find_nested(struct mmqi_stored *out, const struct probe *probe,
                           const struct state *state, const struct mmqi_layout *layout)
{
    const struct mmqi_entry *absmax = sibling(probe, ".weight.nested_absmax");
    const struct mmqi_entry *map = sibling(probe, ".weight.nested_quant_map");
    int32_t status;

    if (!state->nested && !absmax && !map)
        return MMQ_OK;
    if (!state->nested)
        return mmqi_fail(MMQ_ERR_FORMAT, "%s: '%s' exists, but '%s' is not nested", probe->file,
                         (absmax ? absmax : map)->name, state->entry->name);
    status = check_part(probe, absmax, &layout->part[2], ".weight.nested_absmax");
    if (status == MMQ_OK)
        status = check_map(probe, map, "nested_quant_map", mmqi_nested_table, 256, 0x1p-22f);
    if (status != MMQ_OK)
        return status;
    out->entry[2] = absmax;
    out->nested_offset = (float)state->offset;
    out->has_offset = true;
    add_extra(out, map);
    return MMQ_OK;
}

static int32_t find_table4(struct mmqi_stored *out, const struct probe *probe, struct state *state)
{
    const struct mmqi_entry *absmax = sibling(probe, ".weight.absmax");
    const struct mmqi_entry *map = sibling(probe, ".weight.quant_map");
    const struct mmqi_format_info *info;
    struct mmqi_layout layout;
    int32_t status;

    if (sibling(probe, ".SCB"))
        return mmqi_fail(MMQ_ERR_FORMAT, "'%s' is stored twice: as %s and as int8", probe->name,
                         state->type);
    status = read_state(state, probe);
    if (status != MMQ_OK)
        return status;
    info = format_of_state(state);
    status = info->layout(&layout, probe->rows, probe->cols);
    if (status == MMQ_OK)
        status = check_codes(probe, &layout.part[0], state->type);
    if (status == MMQ_OK)
        status = check_part(probe, absmax, &layout.part[1], ".weight.absmax");
    if (status == MMQ_OK)
        status = check_map(probe, map, "quant_map", info->table, 16, 0.0f);
    if (status == MMQ_OK)
        status = find_nested(out, probe, state, &layout);
    if (status != MMQ_OK)
        return status;
    out->format = info->format;
    out->entry[0] = probe->weight;
    out->entry[1] = absmax;
    add_extra(out, state->entry);
    add_extra(out, map);
    return MMQ_OK;
}

/* ---- int4 ---- */

/* compressed-tensors keeps the same names, but I32 codes, or F8 scales. */
static bool is_int4(const struct probe *probe)
{
    const struct mmqi_entry *packed = sibling(probe, ".weight_packed");
    const struct mmqi_entry *scale = sibling(probe, ".weight_scale");

    return packed && packed->dtype == MMQI_U8 &&
           (!scale || scale->dtype == MMQI_F16 || scale->dtype == MMQI_BF16);
}

/* X.weight_shape: rows, cols, columns of a group. */
static int32_t read_group(int64_t *group, const struct probe *probe, const struct mmqi_entry *entry)
{
    int64_t shape[3];
    const char *file;
    int32_t status;

    if (!entry)
        return mmqi_fail(MMQ_ERR_FORMAT, "'%s' is stored as int4, but has no weight_shape",
                         probe->name);
    file = mmqi_checkpoint_shard_name(probe->checkpoint, entry->shard);
    if (entry->dtype != MMQI_I64 || entry->bytes != sizeof shape)
        return mmqi_fail(MMQ_ERR_FORMAT, "%s: '%s' is not 3 I64 numbers", file, entry->name);
    status = mmqi_checkpoint_read(probe->checkpoint, entry, 0, shape, sizeof shape);
    if (status != MMQ_OK)
        return status;
    if (shape[0] != probe->rows || shape[1] != probe->cols)
        return mmqi_fail(MMQ_ERR_MISMATCH,
                         "%s: '%s' is [%" PRId64 ", %" PRId64 "], not [%" PRId64 ", %" PRId64 "]",
                         file, entry->name, shape[0], shape[1], probe->rows, probe->cols);
    if (shape[2] != 32 && shape[2] != 64 && shape[2] != 128)
        return mmqi_fail(MMQ_ERR_FORMAT, "%s: '%s': groups of %" PRId64 " are none of 32, 64, 128",
                         file, entry->name, shape[2]);
    *group = shape[2];
    return MMQ_OK;
}

static const struct mmqi_format_info *int4_format(int64_t group, int32_t scale_dtype)
{
    const struct mmqi_format_info *info;

    for (int32_t i = 0; i < MMQI_N_FORMATS; i++) {
        info = mmqi_format_info(i);
        if (info->kind == MMQI_KIND_INT4 && info->block == group &&
            info->scale_dtype == scale_dtype)
            return info;
    }
    return mmqi_format_info(MMQI_FORMAT_INT4_G64); /* its check_part() says what differs */
}

static int32_t find_int4(struct mmqi_stored *out, const struct probe *probe)
{
    static const char *const names[] = {".weight_packed", ".weight_scale", ".weight_zero_point"};
    const struct mmqi_entry *shape = sibling(probe, ".weight_shape");
    const struct mmqi_entry *scale = sibling(probe, names[1]);
    const struct mmqi_format_info *info;
    struct mmqi_layout layout;
    int64_t group = 64;
    int32_t status;

    if (probe->weight)
        return mmqi_fail(MMQ_ERR_FORMAT, "%s: '%s' is stored twice: as %s and as int4", probe->file,
                         probe->name, mmqi_dtype_name(probe->weight->dtype));
    status = read_group(&group, probe, shape);
    if (status != MMQ_OK)
        return status;
    info = int4_format(group, scale ? scale->dtype : MMQI_F16);
    status = info->layout(&layout, probe->rows, probe->cols);
    for (int32_t i = 0; i < layout.n_parts && status == MMQ_OK; i++)
        status = check_part(probe, sibling(probe, names[i]), &layout.part[i], names[i]);
    if (status != MMQ_OK)
        return status;
    out->format = info->format;
    for (int32_t i = 0; i < layout.n_parts; i++)
        out->entry[i] = sibling(probe, names[i]);
    add_extra(out, shape);
    return MMQ_OK;
}

/* ---- the decision ---- */

/* No quantization state: what the type of the weight itself says. */
static int32_t find_by_type(struct mmqi_stored *out, const struct probe *probe)
{
    const struct mmqi_entry *scb = sibling(probe, ".SCB");

    if (!probe->weight && scb)
        return mmqi_fail(MMQ_ERR_FORMAT, "'%s' exists, but no tensor '%s'", scb->name, probe->name);
    if (!probe->weight)
        return mmqi_fail(MMQ_ERR_NOT_FOUND, "the checkpoint has no tensor '%s'", probe->name);
    if (probe->base >= 0 && probe->weight->dtype == MMQI_U8)
        return mmqi_fail(MMQ_ERR_FORMAT,
                         "%s: '%s' holds U8 codes, but its quantization state is absent",
                         probe->file, probe->name);
    if (probe->base >= 0 && probe->weight->dtype == MMQI_I8)
        return find_int8(out, probe);
    if (scb && is_float(probe->weight->dtype))
        return mmqi_fail(MMQ_ERR_FORMAT, "%s: '%s' is %s, yet '%s' says int8", probe->file,
                         probe->name, mmqi_dtype_name(probe->weight->dtype), scb->name);
    return find_plain(out, probe);
}

/* The states that exist: at most one may. */
static int32_t find_state(struct state *state, const struct probe *probe)
{
    const struct mmqi_entry *nf4 = sibling(probe, ".weight.quant_state.bitsandbytes__nf4");
    const struct mmqi_entry *fp4 = sibling(probe, ".weight.quant_state.bitsandbytes__fp4");

    if (nf4 && fp4)
        return mmqi_fail(MMQ_ERR_FORMAT, "'%s' is stored twice: as nf4 and as fp4", probe->name);
    state->entry = nf4 ? nf4 : fp4;
    state->type = nf4 ? "nf4" : "fp4";
    return MMQ_OK;
}

static int32_t find(struct mmqi_stored *out, const struct probe *probe)
{
    struct state state = {0};
    bool int4 = is_int4(probe);
    int32_t status = int4 ? MMQ_OK : refuse_foreign(probe);

    if (status == MMQ_OK)
        status = find_state(&state, probe);
    if (status != MMQ_OK)
        return status;
    if (int4 && !state.entry)
        return find_int4(out, probe);
    if (int4)
        return mmqi_fail(MMQ_ERR_FORMAT, "'%s' is stored twice: as %s and as int4", probe->name,
                         state.type);
    return state.entry ? find_table4(out, probe, &state) : find_by_type(out, probe);
}

static const char ending[] = ".weight";

size_t mmqi_stored_name_length(const char *tensor_name)
{
    static const char packed[] = ".weight_packed";
    size_t length = strlen(tensor_name);

    if (length < sizeof packed || !mmqi_ends_with(tensor_name, packed))
        return length;
    return length - (sizeof packed - sizeof ending);
}

int32_t mmqi_stored_find(struct mmqi_stored *out, const struct mmqi_checkpoint *checkpoint,
                         const char *file_name, int64_t rows, int64_t cols)
{
    size_t length = strlen(file_name);
    struct probe probe = {
        .checkpoint = checkpoint, .name = file_name, .base = -1, .rows = rows, .cols = cols};
    const struct mmqi_entry *first;
    int32_t status;

    memset(out, 0, sizeof *out);
    if (length >= sizeof ending && length <= MAX_NAME && mmqi_ends_with(file_name, ending))
        probe.base = (int)(length - (sizeof ending - 1));
    probe.weight = mmqi_checkpoint_find(checkpoint, file_name);
    first = probe.weight ? probe.weight : sibling(&probe, ".weight_packed");
    probe.file = first ? mmqi_checkpoint_shard_name(checkpoint, first->shard) : "";
    status = find(out, &probe);
    if (status != MMQ_OK)
        memset(out, 0, sizeof *out);
    return status;
}
