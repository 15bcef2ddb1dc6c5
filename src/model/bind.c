/*
 * Binding: every declared weight gets its file tensors, and every file tensor
 * is accounted for.
 *
 * A tensor is used when it (or, in a packed format, one of the tensors that
 * describe it) brings a weight, when it is the copy of a tied weight, or when
 * the family's aliases say to ignore it. What is left over, what is missing
 * and what has another shape or type is counted in one message.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "core/buf.h"
#include "core/dtype.h"
#include "core/mem.h"
#include "core/status.h"
#include "model/names.h"
#include "quant/stored.h"

enum { MAX_NAMED = 4, MAX_NAME_SHOWN = 96, MAX_PATH_SHOWN = 80, MAX_FILE_NAME = 1100 };

struct binder {
    struct mmqi_model *model;
    bool *used;                      /* [entries] */
    const struct mmqi_entry **bound; /* [weights] the tensor whose name is the weight's */
    bool *misfit;                    /* [weights] bound, but of another shape or type */
    int32_t *new_index;              /* [weights] once absent ones are dropped */
    size_t n_entries;
};

/* ---- the index by name ---- */

static int compare_names(const void *a, const void *b)
{
    return strcmp(((const struct mmqi_weight_name *)a)->name,
                  ((const struct mmqi_weight_name *)b)->name);
}

static int32_t index_names(struct mmqi_model *model)
{
    size_t n = (size_t)model->n_weights;

    mmqi_free(model->by_name);
    model->by_name = mmqi_alloc_array(n, sizeof *model->by_name);
    if (!model->by_name)
        return mmqi_fail(MMQ_ERR_NOMEM, "%s: no memory for the index of weights", model->path);
    for (size_t i = 0; i < n; i++)
        model->by_name[i] = (struct mmqi_weight_name){model->weights[i].name, (int32_t)i};
    if (n > 1)
        qsort(model->by_name, n, sizeof *model->by_name, compare_names);
    for (size_t i = 1; i < n; i++)
        if (strcmp(model->by_name[i - 1].name, model->by_name[i].name) == 0)
            return mmqi_fail(MMQ_ERR_INTERNAL, "%s: '%s' is declared twice", model->path,
                             model->by_name[i].name);
    return MMQ_OK;
}

/* ---- tensors to weights ---- */

/* A tensor that is named like a weight. A second one for the same weight stays unused. */
static void take_entry(struct binder *b, size_t index, int32_t w)
{
    struct mmqi_weight *weight = &b->model->weights[w];

    if (weight->role == MMQI_ROLE_CONSTANT || b->bound[w])
        return;
    b->used[index] = true;
    if (weight->same_as >= 0 && !(weight->flags & MMQI_WEIGHT_STORED_WINS))
        return; /* the copy of a tied weight */
    weight->same_as = -1;
    b->bound[w] = mmqi_checkpoint_entry(b->model->checkpoint, index);
}

/* What a tensor brings: its name may be that of a packed matrix's first part. */
static enum mmqi_name_kind name_entry(char out[MMQI_MAX_WEIGHT_NAME], const struct binder *b,
                                      const struct mmqi_entry *entry)
{
    char matrix[MAX_FILE_NAME];
    size_t length = mmqi_stored_name_length(entry->name);

    if (entry->name[length] == '\0' || length >= sizeof matrix)
        return mmqi_canonical_name(out, b->model->family, entry->name);
    memcpy(matrix, entry->name, length);
    matrix[length] = '\0';
    return mmqi_canonical_name(out, b->model->family, matrix);
}

static void match_names(struct binder *b)
{
    char name[MMQI_MAX_WEIGHT_NAME];
    int32_t w;

    for (size_t i = 0; i < b->n_entries; i++) {
        const struct mmqi_entry *entry = mmqi_checkpoint_entry(b->model->checkpoint, i);
        enum mmqi_name_kind kind = name_entry(name, b, entry);

        if (kind == MMQI_NAME_IGNORED)
            b->used[i] = true;
        if (kind != MMQI_NAME_KNOWN)
            continue;
        w = mmqi_model_find(b->model, name);
        if (w >= 0)
            take_entry(b, i, w);
    }
}

/* Entries are sorted by name. */
static void mark_used(struct binder *b, const struct mmqi_entry *entry)
{
    size_t low = 0, high = b->n_entries, middle;
    int order;

    while (low < high) {
        middle = low + (high - low) / 2;
        order = strcmp(entry->name, mmqi_checkpoint_entry(b->model->checkpoint, middle)->name);
        if (order == 0)
            b->used[middle] = true;
        if (order == 0)
            return;
        if (order < 0)
            high = middle;
        else
            low = middle + 1;
    }
}

static bool shape_fits(const struct mmqi_weight *weight, const struct mmqi_entry *entry)
{
    if (entry->rank != weight->rank)
        return false;
    for (int32_t i = 0; i < entry->rank; i++)
        if (entry->shape[i] != weight->shape[i])
            return false;
    return true;
}

/* A matrix that policies can choose may be stored packed; its other tensors count as used, too. */
static int32_t bind_matrix(struct binder *b, int32_t w)
{
    struct mmqi_weight *weight = &b->model->weights[w];
    size_t length = mmqi_stored_name_length(b->bound[w]->name);
    char name[MAX_FILE_NAME];
    struct mmqi_stored stored;
    int32_t status;

    if (length >= sizeof name)
        return mmqi_fail(MMQ_ERR_LIMIT, "%s: too long a name of a tensor: '%.64s...'",
                         b->model->path, b->bound[w]->name);
    memcpy(name, b->bound[w]->name, length);
    name[length] = '\0';
    status = mmqi_stored_find(&stored, b->model->checkpoint, name, weight->rows, weight->cols);
    b->misfit[w] = status == MMQ_ERR_MISMATCH;
    if (status != MMQ_OK)
        return b->misfit[w] ? MMQ_OK : status;
    weight->format = stored.format;
    weight->nested_offset = stored.nested_offset;
    if (mmqi_format_info(stored.format)->is_float && !shape_fits(weight, stored.entry[0]))
        b->misfit[w] = true;
    for (int i = 0; i < MMQI_MAX_PARTS; i++) {
        weight->entry[i] = stored.entry[i];
        if (stored.entry[i])
            mark_used(b, stored.entry[i]);
    }
    for (int32_t i = 0; i < stored.n_extra; i++)
        mark_used(b, stored.extra[i]);
    return MMQ_OK;
}

static void bind_plain(struct binder *b, int32_t w)
{
    struct mmqi_weight *weight = &b->model->weights[w];

    weight->format = mmqi_format_from_dtype(b->bound[w]->dtype);
    weight->entry[0] = b->bound[w];
    b->misfit[w] = weight->format < 0 || !shape_fits(weight, b->bound[w]);
}

static int32_t bind_weights(struct binder *b)
{
    int32_t status;

    for (int32_t w = 0; w < b->model->n_weights; w++) {
        if (!b->bound[w])
            continue;
        if (b->model->weights[w].role != MMQI_ROLE_LINEAR &&
            b->model->weights[w].role != MMQI_ROLE_EMBED) {
            bind_plain(b, w);
            continue;
        }
        status = bind_matrix(b, w);
        if (status != MMQ_OK)
            return status;
    }
    return MMQ_OK;
}

/* ---- the account ---- */

static bool is_missing(const struct binder *b, int32_t w)
{
    const struct mmqi_weight *weight = &b->model->weights[w];

    return !b->bound[w] && weight->same_as < 0 && weight->role != MMQI_ROLE_CONSTANT &&
           !(weight->flags & MMQI_WEIGHT_UNUSED);
}

static void print_shape(struct mmqi_buf *text, int32_t rank, const int64_t *shape)
{
    mmqi_buf_text(text, "[");
    for (int32_t i = 0; i < rank; i++)
        mmqi_buf_format(text, "%s%" PRId64, i > 0 ? ", " : "", shape[i]);
    mmqi_buf_text(text, "]");
}

/* Before the first name of a list " (", between names ", ", and after the last one that is named
 * "...". */
static bool begin_item(struct mmqi_buf *text, int32_t n, int32_t n_named)
{
    if (n <= n_named)
        mmqi_buf_text(text, n == 0 ? " (" : n == n_named ? ", ..." : ", ");
    return n < n_named;
}

static int32_t count_missing(const struct binder *b)
{
    int32_t n = 0;

    for (int32_t w = 0; w < b->model->n_weights; w++)
        n += is_missing(b, w);
    return n;
}

static int32_t count_unused(const struct binder *b)
{
    int32_t n = 0;

    for (size_t i = 0; i < b->n_entries; i++)
        n += !b->used[i];
    return n;
}

static int32_t count_misfits(const struct binder *b)
{
    int32_t n = 0;

    for (int32_t w = 0; w < b->model->n_weights; w++)
        n += b->misfit[w];
    return n;
}

static void list_missing(struct mmqi_buf *text, const struct binder *b, int32_t n_named)
{
    int32_t n = 0;

    mmqi_buf_format(text, "; %d missing", count_missing(b));
    for (int32_t w = 0; w < b->model->n_weights; w++)
        if (is_missing(b, w) && begin_item(text, n++, n_named))
            mmqi_buf_text(text, b->model->weights[w].name);
    mmqi_buf_text(text, ")");
}

static void list_unused(struct mmqi_buf *text, const struct binder *b, int32_t n_named)
{
    int32_t n = 0;

    mmqi_buf_format(text, "; %d unused", count_unused(b));
    for (size_t i = 0; i < b->n_entries; i++)
        if (!b->used[i] && begin_item(text, n++, n_named))
            mmqi_buf_format(text, "'%.*s'", MAX_NAME_SHOWN,
                            mmqi_checkpoint_entry(b->model->checkpoint, i)->name);
    mmqi_buf_text(text, ")");
}

static void list_misfits(struct mmqi_buf *text, const struct binder *b, int32_t n_named)
{
    int32_t n = 0;

    mmqi_buf_format(text, "; %d of another shape or type", count_misfits(b));
    for (int32_t w = 0; w < b->model->n_weights; w++) {
        const struct mmqi_weight *weight = &b->model->weights[w];

        if (!b->misfit[w] || !begin_item(text, n++, n_named))
            continue;
        mmqi_buf_format(text, "'%.*s' %s ", MAX_NAME_SHOWN, b->bound[w]->name,
                        mmqi_dtype_name(b->bound[w]->dtype));
        print_shape(text, b->bound[w]->rank, b->bound[w]->shape);
        mmqi_buf_text(text, ", not float ");
        print_shape(text, weight->rank, weight->shape);
    }
    mmqi_buf_text(text, ")");
}

/* The message with up to n_named names in each list. */
static void print_account(struct mmqi_buf *text, const struct binder *b, int32_t n_named)
{
    const char *path = b->model->path;
    size_t length = strlen(path);

    mmqi_buf_clear(text);
    mmqi_buf_format(text, "%s: tensors do not make a %s",
                    length > MAX_PATH_SHOWN ? path + length - MAX_PATH_SHOWN : path,
                    b->model->family->name);
    if (count_missing(b) > 0)
        list_missing(text, b, n_named);
    if (count_unused(b) > 0)
        list_unused(text, b, n_named);
    if (count_misfits(b) > 0)
        list_misfits(text, b, n_named);
}

static int32_t check_account(const struct binder *b)
{
    struct mmqi_buf text = {0};
    int32_t status;

    if (count_missing(b) == 0 && count_unused(b) == 0 && count_misfits(b) == 0)
        return MMQ_OK;
    for (int32_t n = MAX_NAMED; n > 0; n--) {
        print_account(&text, b, n);
        if (text.size < MMQI_MESSAGE_BYTES)
            break;
    }
    status = mmqi_buf_failed(&text)
                 ? mmqi_fail(MMQ_ERR_NOMEM, "%s: no memory for a message", b->model->path)
                 : mmqi_fail(MMQ_ERR_MISMATCH, "%s", text.data);
    mmqi_buf_free(&text);
    return status;
}

/* ---- after binding ---- */

/* Unused weights that the file lacks leave the table; the others keep their order. */
static void drop_absent(const struct binder *b)
{
    struct mmqi_model *model = b->model;
    int32_t kept = 0;

    for (int32_t w = 0; w < model->n_weights; w++) {
        struct mmqi_weight *weight = &model->weights[w];

        if ((weight->flags & MMQI_WEIGHT_UNUSED) && !b->bound[w]) {
            mmqi_free(weight->name);
            continue;
        }
        b->new_index[w] = kept;
        if (weight->same_as >= 0) /* its target stands before it */
            weight->same_as = b->new_index[weight->same_as];
        model->weights[kept++] = *weight;
    }
    model->n_weights = kept;
}

static int32_t lay_out(struct mmqi_model *model)
{
    int32_t status = MMQ_OK;

    for (int32_t w = 0; w < model->n_weights && status == MMQ_OK; w++) {
        struct mmqi_weight *weight = &model->weights[w];

        if (weight->same_as >= 0)
            weight->format = model->weights[weight->same_as].format;
        status =
            mmqi_format_info(weight->format)->layout(&weight->layout, weight->rows, weight->cols);
        weight->stored = weight->format;
        weight->stored_layout = weight->layout;
    }
    return status;
}

static int32_t bind(struct binder *b)
{
    int32_t status;

    b->n_entries = mmqi_checkpoint_count(b->model->checkpoint);
    b->used = mmqi_calloc(b->n_entries, sizeof *b->used);
    b->bound = mmqi_calloc((size_t)b->model->n_weights, sizeof(struct mmqi_entry *));
    b->misfit = mmqi_calloc((size_t)b->model->n_weights, sizeof *b->misfit);
    b->new_index = mmqi_calloc((size_t)b->model->n_weights, sizeof *b->new_index);
    if (!b->used || !b->bound || !b->misfit || !b->new_index)
        return mmqi_fail(MMQ_ERR_NOMEM, "%s: no memory to bind %zu tensors", b->model->path,
                         b->n_entries);
    match_names(b);
    status = bind_weights(b);
    if (status == MMQ_OK)
        status = check_account(b);
    if (status != MMQ_OK)
        return status;
    drop_absent(b);
    status = lay_out(b->model);
    return status == MMQ_OK ? index_names(b->model) : status;
}

int32_t mmqi_weights_bind(struct mmqi_model *model)
{
    struct binder binder = {.model = model};
    int32_t status;

    mmqi_weights_free(model);
    status = model->family->declare(model);
    if (status == MMQ_OK)
        status = index_names(model);
    if (status == MMQ_OK)
        status = bind(&binder);
    mmqi_free(binder.used);
    mmqi_free(binder.bound);
    mmqi_free(binder.misfit);
    mmqi_free(binder.new_index);
    if (status != MMQ_OK)
        mmqi_weights_free(model);
    return status;
}
