/*
 * The stack machine for pickles of state dicts (protocols 2 to 5).
 *
 * Values are small and hold no pointers: text is a range of the pickle,
 * tuples are ranges of the table of cells, dicts and tensors are numbers. What a
 * dict holds is a chain of items, since a dict is put into the memo, and
 * into other dicts, before it is filled. Every table grows by at most as many rows
 * as the pickle has bytes.
 */
#include "io/pickle.h"

#include <inttypes.h>
#include <string.h>

#include "core/dtype.h"
#include "core/mem.h"
#include "core/status.h"
#include "io/util.h"

enum {
    MAX_NESTED = 8, /* dicts in dicts on the way to the tensors */
    MAX_TENSORS = 1 << 20
};

#define MAX_DIM ((INT64_C(1) << 48) - 1)

enum kind {
    KIND_NONE,
    KIND_BOOL,
    KIND_INT,
    KIND_TEXT,
    KIND_OTHER, /* what is passed over: floats, bytes, long integers */
    KIND_LIST,  /* so are its items */
    KIND_TUPLE,
    KIND_DICT,
    KIND_GLOBAL,
    KIND_STORAGE,
    KIND_TENSOR,
    KIND_MARK
};

struct value {
    int32_t kind;
    int32_t which; /* of a dict, storage or tensor; row of globals[] */
    union {
        int64_t number;
        struct {
            uint32_t begin, size; /* bytes of a text; cells of a tuple */
        } range;
    };
};

struct item {
    struct value key, value;
    int64_t next; /* item of the same dict, or -1 */
};

struct dict {
    int64_t first, last;
};

struct store {
    uint32_t key_begin, key_size; /* bytes of the pickle */
    int32_t dtype;
    int64_t length; /* elements */
};

struct view {
    int32_t store;
    int64_t offset; /* elements */
    struct value shape, stride;
};

/* Rows of one table. */
struct table {
    void *rows;
    size_t n, capacity;
};

struct machine {
    const char *path;
    const uint8_t *bytes;
    size_t size, at;
    size_t opcode_at;    /* of the opcode in hand, for messages */
    struct table stack;  /* struct value */
    struct table marks;  /* size_t: where on the stack */
    struct table memo;   /* struct value; KIND_MARK where nothing was put */
    struct table cells;  /* struct value: of tuples */
    struct table dicts;  /* struct dict */
    struct table items;  /* struct item */
    struct table stores; /* struct store */
    struct table views;  /* struct view */
    bool stopped;
    struct value result;
};

enum call {
    CALL_DICT,      /* () */
    CALL_TENSOR,    /* (storage, offset, shape, strides, requires_grad, hooks[, metadata]) */
    CALL_PARAMETER, /* (tensor, requires_grad, hooks) */
    CALL_SIZE,      /* (tuple) */
    CALL_NOTHING    /* a storage's class, named by a persistent id */
};

static const struct {
    const char *module, *name;
    int32_t call, dtype;
} globals[] = {
    {"collections", "OrderedDict", CALL_DICT, -1},
    {"torch._utils", "_rebuild_tensor_v2", CALL_TENSOR, -1},
    {"torch._utils", "_rebuild_parameter", CALL_PARAMETER, -1},
    {"torch", "Size", CALL_SIZE, -1},
    {"torch", "FloatStorage", CALL_NOTHING, MMQI_F32},
    {"torch", "HalfStorage", CALL_NOTHING, MMQI_F16},
    {"torch", "BFloat16Storage", CALL_NOTHING, MMQI_BF16},
    {"torch", "DoubleStorage", CALL_NOTHING, MMQI_F64},
    {"torch", "CharStorage", CALL_NOTHING, MMQI_I8},
    {"torch", "ByteStorage", CALL_NOTHING, MMQI_U8},
    {"torch", "ShortStorage", CALL_NOTHING, MMQI_I16},
    {"torch", "IntStorage", CALL_NOTHING, MMQI_I32},
    {"torch", "LongStorage", CALL_NOTHING, MMQI_I64},
    {"torch", "BoolStorage", CALL_NOTHING, MMQI_BOOL},
};

/* ---- failing, tables, stack ---- */

__attribute__((cold)) static int32_t fail(const struct machine *m, int32_t status,
                                          const char *fault)
{
    return mmqi_fail(status, "%s: the pickle's opcode 0x%02x at byte %zu %s", m->path,
                     m->bytes[m->opcode_at], m->opcode_at, fault);
}

static int32_t fail_memory(const struct machine *m)
{
    return mmqi_fail(MMQ_ERR_NOMEM, "%s: no memory for its pickle of %zu bytes", m->path, m->size);
}

/* One more row at the end of `table`; NULL when there is no memory. */
static void *add_row(struct table *table, size_t row)
{
    const size_t capacity = table->capacity ? 2 * table->capacity : 32;
    void *rows;

    if (table->n == table->capacity) {
        rows = mmqi_realloc_array(table->rows, capacity, row);
        if (!rows)
            return NULL;
        table->rows = rows;
        table->capacity = capacity;
    }
    return (char *)table->rows + table->n++ * row;
}

static int32_t push(struct machine *m, struct value value)
{
    struct value *top = add_row(&m->stack, sizeof *top);

    if (!top)
        return fail_memory(m);
    *top = value;
    return MMQ_OK;
}

static int32_t push_kind(struct machine *m, int32_t kind)
{
    return push(m, (struct value){.kind = kind});
}

static int32_t push_int(struct machine *m, int64_t number)
{
    return push(m, (struct value){.kind = KIND_INT, .number = number});
}

/* Values above the last mark, or all of them. */
static size_t above_mark(const struct machine *m)
{
    const size_t *marks = m->marks.rows;

    return m->stack.n - (m->marks.n > 0 ? marks[m->marks.n - 1] : 0);
}

/* The `n` values on top, none of them below a mark; NULL when there are fewer. */
static struct value *top(const struct machine *m, size_t n)
{
    struct value *values = m->stack.rows;

    return above_mark(m) < n ? NULL : values + (m->stack.n - n);
}

/* Take the last mark and the `n` values above it away; the values stay in place until the next
 * push. */
static int32_t take_marked(struct machine *m, const struct value **values, size_t *n)
{
    *values = NULL;
    if (m->marks.n == 0)
        return fail(m, MMQ_ERR_FORMAT, "finds no mark");
    *n = above_mark(m);
    m->stack.n -= *n;
    m->marks.n--;
    if (*n > 0)
        *values = (struct value *)m->stack.rows + m->stack.n;
    return MMQ_OK;
}

/* ---- bytes ---- */

/* The next `n` bytes of the pickle; NULL at its end. */
static const uint8_t *take_bytes(struct machine *m, uint64_t n)
{
    const uint8_t *bytes = m->bytes + m->at;

    if (n > m->size - m->at)
        return NULL;
    m->at += (size_t)n;
    return bytes;
}

static int32_t fail_cut(const struct machine *m)
{
    return fail(m, MMQ_ERR_FORMAT, "needs more bytes than there are");
}

/* The little-endian number of `n` bytes, at most 8. */
static int32_t take_number(struct machine *m, int n, uint64_t *number)
{
    const uint8_t *bytes = take_bytes(m, (uint64_t)n);

    *number = 0;
    if (!bytes)
        return fail_cut(m);
    while (n > 0)
        *number = *number << 8 | bytes[--n];
    return MMQ_OK;
}

/* A count of `width` bytes, and that many bytes after it: a value of `kind`. */
static int32_t push_counted(struct machine *m, int width, int32_t kind)
{
    struct value value = {.kind = kind};
    uint64_t size;
    int32_t status = take_number(m, width, &size);

    if (status != MMQ_OK)
        return status;
    value.range.begin = (uint32_t)m->at;
    value.range.size = (uint32_t)size;
    return take_bytes(m, size) ? push(m, value) : fail_cut(m);
}

/* A two's complement integer of any width; what needs more than 64 bits is passed over. */
static int32_t push_long(struct machine *m)
{
    const uint8_t *bytes;
    uint64_t width, number = 0;
    int32_t status = take_number(m, 1, &width);

    if (status != MMQ_OK)
        return status;
    bytes = take_bytes(m, width);
    if (!bytes)
        return fail_cut(m);
    if (width > 8)
        return push_kind(m, KIND_OTHER);
    if (width > 0 && bytes[width - 1] & 0x80)
        number = UINT64_MAX;
    while (width > 0)
        number = number << 8 | bytes[--width];
    return push_int(m, (int64_t)number);
}

static int32_t push_fixed(struct machine *m, int width)
{
    uint64_t number;
    int32_t status = take_number(m, width, &number);

    if (status != MMQ_OK)
        return status;
    return push_int(m, width == 4 ? (int32_t)(uint32_t)number : (int64_t)number);
}

/* ---- tuples, dicts, memo ---- */

/* The `n` values at `values`, which have just left the stack or are its top. */
static int32_t push_tuple(struct machine *m, const struct value *values, size_t n)
{
    struct value tuple = {.kind = KIND_TUPLE};
    struct value *cell;
    size_t i;

    tuple.range.begin = (uint32_t)m->cells.n;
    tuple.range.size = (uint32_t)n;
    for (i = 0; i < n; i++) {
        cell = add_row(&m->cells, sizeof *cell);
        if (!cell)
            return fail_memory(m);
        *cell = values[i];
    }
    return push(m, tuple);
}

static int32_t make_tuple(struct machine *m, size_t n)
{
    const struct value *values = top(m, n);

    if (!values)
        return fail(m, MMQ_ERR_FORMAT, "finds too few values on the stack");
    m->stack.n -= n;
    return push_tuple(m, values, n);
}

static int32_t make_marked_tuple(struct machine *m)
{
    const struct value *values;
    size_t n = 0;
    int32_t status = take_marked(m, &values, &n);

    return status == MMQ_OK ? push_tuple(m, values, n) : status;
}

static int32_t push_dict(struct machine *m)
{
    struct dict *dict = add_row(&m->dicts, sizeof *dict);

    if (!dict)
        return fail_memory(m);
    *dict = (struct dict){-1, -1};
    return push(m, (struct value){.kind = KIND_DICT, .which = (int32_t)m->dicts.n - 1});
}

static int32_t add_item(struct machine *m, int32_t which, const struct value *pair)
{
    struct item *item = add_row(&m->items, sizeof *item);
    struct dict *dict = (struct dict *)m->dicts.rows + which;
    const int64_t index = (int64_t)m->items.n - 1;

    if (!item)
        return fail_memory(m);
    *item = (struct item){pair[0], pair[1], -1};
    if (dict->last >= 0)
        ((struct item *)m->items.rows)[dict->last].next = index;
    else
        dict->first = index;
    dict->last = index;
    return MMQ_OK;
}

/* Keys and values, `n` in all, go into the dict that the stack now ends with. */
static int32_t set_items(struct machine *m, const struct value *pairs, size_t n)
{
    const struct value *dict = top(m, 1);
    int32_t status = MMQ_OK;
    size_t i;

    if (!dict || dict->kind != KIND_DICT || n % 2 != 0)
        return fail(m, MMQ_ERR_FORMAT, "fills no dict with pairs");
    for (i = 0; i < n && status == MMQ_OK; i += 2)
        status = add_item(m, dict->which, pairs + i);
    return status;
}

static int32_t set_marked_items(struct machine *m)
{
    const struct value *pairs;
    size_t n = 0;
    int32_t status = take_marked(m, &pairs, &n);

    return status == MMQ_OK ? set_items(m, pairs, n) : status;
}

static int32_t set_item(struct machine *m)
{
    const struct value *pair = top(m, 3);

    if (!pair)
        return fail(m, MMQ_ERR_FORMAT, "finds too few values on the stack");
    m->stack.n -= 2;
    return set_items(m, pair + 1, 2);
}

static int32_t check_list(const struct machine *m)
{
    const struct value *list = top(m, 1);

    return list && list->kind == KIND_LIST ? MMQ_OK : fail(m, MMQ_ERR_FORMAT, "appends to no list");
}

/* What a list holds is passed over. */
static int32_t append(struct machine *m)
{
    if (!top(m, 2))
        return fail(m, MMQ_ERR_FORMAT, "finds too few values on the stack");
    m->stack.n--;
    return check_list(m);
}

static int32_t append_marked(struct machine *m)
{
    const struct value *values;
    size_t n = 0;
    int32_t status = take_marked(m, &values, &n);

    return status == MMQ_OK ? check_list(m) : status;
}

/* The state of an object: torch's metadata of a dict. */
static int32_t build(struct machine *m)
{
    const struct value *values = top(m, 2);

    if (!values || values[0].kind != KIND_DICT)
        return fail(m, MMQ_ERR_UNSUPPORTED, "sets the state of what is no dict");
    m->stack.n--;
    return MMQ_OK;
}

static int32_t put(struct machine *m, uint64_t index)
{
    const struct value *value = top(m, 1);
    struct value *row;

    if (!value)
        return fail(m, MMQ_ERR_FORMAT, "finds too few values on the stack");
    if (index >= m->at) /* rows are counted up, and each needs an opcode of its own */
        return fail(m, MMQ_ERR_FORMAT, "puts into a memo of more rows than there were opcodes");
    while (m->memo.n <= index) {
        row = add_row(&m->memo, sizeof *row);
        if (!row)
            return fail_memory(m);
        row->kind = KIND_MARK;
    }
    ((struct value *)m->memo.rows)[index] = *value;
    return MMQ_OK;
}

static int32_t put_at(struct machine *m, int width)
{
    uint64_t index;
    int32_t status = take_number(m, width, &index);

    return status == MMQ_OK ? put(m, index) : status;
}

static int32_t get_at(struct machine *m, int width)
{
    const struct value *memo = m->memo.rows;
    uint64_t index;
    int32_t status = take_number(m, width, &index);

    if (status != MMQ_OK)
        return status;
    if (index >= m->memo.n || memo[index].kind == KIND_MARK)
        return fail(m, MMQ_ERR_FORMAT, "asks for what the memo has not");
    return push(m, memo[index]);
}

/* ---- globals and calls ---- */

static bool text_is(const struct machine *m, const struct value *text, const char *wanted)
{
    return text->kind == KIND_TEXT && text->range.size == strlen(wanted) &&
           memcmp(m->bytes + text->range.begin, wanted, text->range.size) == 0;
}

static int32_t push_global(struct machine *m, const struct value *module, const struct value *name)
{
    const char *const bytes = (const char *)m->bytes;
    size_t i;

    for (i = 0; i < sizeof globals / sizeof globals[0]; i++)
        if (text_is(m, module, globals[i].module) && text_is(m, name, globals[i].name))
            return push(m, (struct value){.kind = KIND_GLOBAL, .which = (int32_t)i});
    return mmqi_fail(MMQ_ERR_UNSUPPORTED,
                     "%s: the pickle asks for '%.*s.%.*s' at byte %zu, which is not on the list of "
                     "what a state dict needs",
                     m->path, mmqi_clip(bytes + module->range.begin, module->range.size),
                     bytes + module->range.begin,
                     mmqi_clip(bytes + name->range.begin, name->range.size),
                     bytes + name->range.begin, m->opcode_at);
}

/* The bytes up to the next line feed. */
static int32_t take_line(struct machine *m, struct value *line)
{
    const uint8_t *begin = m->bytes + m->at;
    const uint8_t *end = memchr(begin, '\n', m->size - m->at);

    if (!end)
        return fail_cut(m);
    line->kind = KIND_TEXT;
    line->range.begin = (uint32_t)m->at;
    line->range.size = (uint32_t)(end - begin);
    m->at += (size_t)(end - begin) + 1;
    return MMQ_OK;
}

static int32_t global_of_lines(struct machine *m)
{
    struct value module, name;
    int32_t status = take_line(m, &module);

    if (status == MMQ_OK)
        status = take_line(m, &name);
    return status == MMQ_OK ? push_global(m, &module, &name) : status;
}

static int32_t global_of_stack(struct machine *m)
{
    const struct value *names = top(m, 2);

    if (!names || names[0].kind != KIND_TEXT || names[1].kind != KIND_TEXT)
        return fail(m, MMQ_ERR_FORMAT, "finds no names on the stack");
    m->stack.n -= 2;
    return push_global(m, names, names + 1);
}

static const struct value *cells_of(const struct machine *m, const struct value *tuple)
{
    return tuple->range.size > 0 ? (const struct value *)m->cells.rows + tuple->range.begin : NULL;
}

/* ("storage", class, key, location, elements). */
static int32_t push_storage(struct machine *m)
{
    const struct value *id = top(m, 1), *c;
    struct store *store;

    if (!id || id->kind != KIND_TUPLE || id->range.size != 5)
        return fail(m, MMQ_ERR_FORMAT, "has no persistent id of five values");
    c = cells_of(m, id);
    if (!text_is(m, &c[0], "storage") || c[1].kind != KIND_GLOBAL ||
        globals[c[1].which].dtype < 0 || c[2].kind != KIND_TEXT || c[3].kind != KIND_TEXT ||
        c[4].kind != KIND_INT || c[4].number < 0)
        return fail(m, MMQ_ERR_FORMAT, "has a persistent id that names no storage");
    m->stack.n--;
    store = add_row(&m->stores, sizeof *store);
    if (!store)
        return fail_memory(m);
    *store =
        (struct store){c[2].range.begin, c[2].range.size, globals[c[1].which].dtype, c[4].number};
    return push(m, (struct value){.kind = KIND_STORAGE, .which = (int32_t)m->stores.n - 1});
}

/* A tuple of dimensions? */
static bool are_dims(const struct machine *m, const struct value *tuple)
{
    const struct value *cells = cells_of(m, tuple);
    uint32_t i;

    for (i = 0; i < tuple->range.size; i++)
        if (cells[i].kind != KIND_INT || cells[i].number < 0 || cells[i].number > MAX_DIM)
            return false;
    return tuple->range.size <= MMQI_MAX_RANK;
}

static int32_t call_tensor(struct machine *m, const struct value *c, size_t n)
{
    struct view *view;

    if (n < 6 || n > 7 || c[0].kind != KIND_STORAGE || c[1].kind != KIND_INT || c[1].number < 0 ||
        c[2].kind != KIND_TUPLE || c[3].kind != KIND_TUPLE)
        return fail(m, MMQ_ERR_FORMAT, "makes a tensor of what is no storage, offset and shape");
    if (!are_dims(m, &c[2]) || !are_dims(m, &c[3]) || c[3].range.size != c[2].range.size)
        return fail(m, MMQ_ERR_FORMAT, "makes a tensor of an impossible shape");
    view = add_row(&m->views, sizeof *view);
    if (!view)
        return fail_memory(m);
    *view = (struct view){c[0].which, c[1].number, c[2], c[3]};
    return push(m, (struct value){.kind = KIND_TENSOR, .which = (int32_t)m->views.n - 1});
}

/* The global below the tuple on top, called with it. */
static int32_t reduce(struct machine *m)
{
    const struct value *values = top(m, 2), *c;
    size_t n;

    if (!values || values[0].kind != KIND_GLOBAL || values[1].kind != KIND_TUPLE)
        return fail(m, MMQ_ERR_UNSUPPORTED, "calls what is no function of the list");
    c = cells_of(m, &values[1]);
    n = values[1].range.size;
    m->stack.n -= 2;
    switch (globals[values[0].which].call) {
    case CALL_DICT:
        if (n == 0)
            return push_dict(m);
        break;
    case CALL_TENSOR:
        return call_tensor(m, c, n);
    case CALL_PARAMETER:
        if (n == 3 && c[0].kind == KIND_TENSOR)
            return push(m, c[0]);
        break;
    case CALL_SIZE:
        if (n == 1 && c[0].kind == KIND_TUPLE)
            return push(m, c[0]);
        break;
    }
    return mmqi_fail(
        MMQ_ERR_UNSUPPORTED,
        "%s: the pickle calls %s.%s with %zu values at byte %zu, as no state dict does", m->path,
        globals[values[0].which].module, globals[values[0].which].name, n, m->opcode_at);
}

/* ---- the machine ---- */

static int32_t set_mark(struct machine *m)
{
    size_t *mark = add_row(&m->marks, sizeof *mark);

    if (!mark)
        return fail_memory(m);
    *mark = m->stack.n;
    return MMQ_OK;
}

static int32_t check_protocol(struct machine *m)
{
    uint64_t protocol;
    int32_t status = take_number(m, 1, &protocol);

    if (status == MMQ_OK && (protocol < 2 || protocol > 5))
        return fail(m, MMQ_ERR_UNSUPPORTED, "names a protocol other than 2 to 5");
    return status;
}

static int32_t check_frame(struct machine *m)
{
    uint64_t size;
    int32_t status = take_number(m, 8, &size);

    if (status == MMQ_OK && size > m->size - m->at)
        return fail_cut(m);
    return status;
}

static int32_t pass_float(struct machine *m)
{
    return take_bytes(m, 8) ? push_kind(m, KIND_OTHER) : fail_cut(m);
}

static int32_t stop(struct machine *m)
{
    const struct value *value = top(m, 1);

    if (!value || m->stack.n != 1 || m->marks.n != 0)
        return fail(m, MMQ_ERR_FORMAT, "ends the pickle with other than one value");
    if (m->at != m->size)
        return fail(m, MMQ_ERR_FORMAT, "ends the pickle before its last byte");
    m->result = *value;
    m->stopped = true;
    return MMQ_OK;
}

/* Opcodes that make a value of the bytes after them, or of none. */
static int32_t run_value(struct machine *m, uint8_t opcode, bool *known)
{
    switch (opcode) {
    case 'N':
        return push_kind(m, KIND_NONE);
    case 0x88: /* NEWTRUE */
    case 0x89: /* NEWFALSE */
        return push_kind(m, KIND_BOOL);
    case 'J': /* BININT */
        return push_fixed(m, 4);
    case 'K': /* BININT1 */
        return push_fixed(m, 1);
    case 'M': /* BININT2 */
        return push_fixed(m, 2);
    case 0x8a: /* LONG1 */
        return push_long(m);
    case 'G': /* BINFLOAT */
        return pass_float(m);
    case 'X': /* BINUNICODE */
        return push_counted(m, 4, KIND_TEXT);
    case 0x8c: /* SHORT_BINUNICODE */
        return push_counted(m, 1, KIND_TEXT);
    case 0x8d: /* BINUNICODE8 */
        return push_counted(m, 8, KIND_TEXT);
    case 'B': /* BINBYTES */
        return push_counted(m, 4, KIND_OTHER);
    case 'C': /* SHORT_BINBYTES */
        return push_counted(m, 1, KIND_OTHER);
    case '}': /* EMPTY_DICT */
        return push_dict(m);
    case ']': /* EMPTY_LIST */
        return push_kind(m, KIND_LIST);
    case ')': /* EMPTY_TUPLE */
        return push_tuple(m, NULL, 0);
    case 'c': /* GLOBAL */
        return global_of_lines(m);
    }
    *known = false;
    return MMQ_OK;
}

static int32_t run_opcode(struct machine *m, uint8_t opcode, bool *known)
{
    switch (opcode) {
    case 0x80: /* PROTO */
        return check_protocol(m);
    case 0x95: /* FRAME */
        return check_frame(m);
    case '(': /* MARK */
        return set_mark(m);
    case '.': /* STOP */
        return stop(m);
    case 't': /* TUPLE */
        return make_marked_tuple(m);
    case 0x85: /* TUPLE1, TUPLE2, TUPLE3 */
    case 0x86:
    case 0x87:
        return make_tuple(m, opcode - 0x84u);
    case 'a': /* APPEND */
        return append(m);
    case 'e': /* APPENDS */
        return append_marked(m);
    case 's': /* SETITEM */
        return set_item(m);
    case 'u': /* SETITEMS */
        return set_marked_items(m);
    case 'b': /* BUILD */
        return build(m);
    case 'q': /* BINPUT */
        return put_at(m, 1);
    case 'r': /* LONG_BINPUT */
        return put_at(m, 4);
    case 0x94: /* MEMOIZE */
        return put(m, m->memo.n);
    case 'h': /* BINGET */
        return get_at(m, 1);
    case 'j': /* LONG_BINGET */
        return get_at(m, 4);
    case 0x93: /* STACK_GLOBAL */
        return global_of_stack(m);
    case 'Q': /* BINPERSID */
        return push_storage(m);
    case 'R': /* REDUCE */
        return reduce(m);
    }
    return run_value(m, opcode, known);
}

static int32_t run(struct machine *m)
{
    int32_t status = MMQ_OK;
    bool known = true;

    while (status == MMQ_OK && !m->stopped) {
        m->opcode_at = m->at;
        if (m->at == m->size)
            return mmqi_fail(MMQ_ERR_FORMAT, "%s: its pickle of %zu bytes has no end", m->path,
                             m->size);
        status = run_opcode(m, m->bytes[m->at++], &known);
        if (!known)
            return fail(m, MMQ_ERR_UNSUPPORTED, "is not on the list of what a state dict needs");
    }
    return status;
}

/* ---- the state dict ---- */

/* The dict that is the last value of `key` in dict `which`; -1: none. */
static int32_t find_dict(const struct machine *m, int32_t which, const char *key)
{
    const struct item *items = m->items.rows;
    int32_t found = -1;
    int64_t i;

    for (i = ((const struct dict *)m->dicts.rows)[which].first; i >= 0; i = items[i].next)
        if (text_is(m, &items[i].key, key))
            found = items[i].value.kind == KIND_DICT ? items[i].value.which : -1;
    return found;
}

/* From the result to the dict of the tensors. */
static int32_t descend(const struct machine *m, int32_t *which)
{
    static const char *const keys[] = {"module", "state_dict", "model"};
    int32_t inner;
    size_t i;
    int depth;

    if (m->result.kind != KIND_DICT)
        return mmqi_fail(MMQ_ERR_FORMAT, "%s: its pickle is no dict of tensors", m->path);
    *which = m->result.which;
    for (depth = 0; depth < MAX_NESTED; depth++) {
        inner = -1;
        for (i = 0; i < sizeof keys / sizeof keys[0] && inner < 0; i++)
            inner = find_dict(m, *which, keys[i]);
        if (inner < 0)
            return MMQ_OK;
        *which = inner;
    }
    return mmqi_fail(MMQ_ERR_FORMAT, "%s: its dict of tensors lies deeper than %d dicts", m->path,
                     MAX_NESTED);
}

static void describe(struct mmqi_pickle_tensor *out, const struct machine *m,
                     const struct item *item)
{
    const struct view *view = (const struct view *)m->views.rows + item->value.which;
    const struct store *store = (const struct store *)m->stores.rows + view->store;
    const struct value *shape = cells_of(m, &view->shape), *stride = cells_of(m, &view->stride);
    int32_t i;

    memset(out, 0, sizeof *out);
    out->name = (const char *)m->bytes + item->key.range.begin;
    out->name_size = item->key.range.size;
    out->key = (const char *)m->bytes + store->key_begin;
    out->key_size = store->key_size;
    out->dtype = store->dtype;
    out->length = store->length;
    out->offset = view->offset;
    out->rank = (int32_t)view->shape.range.size;
    for (i = 0; i < out->rank; i++) {
        out->shape[i] = shape[i].number;
        out->stride[i] = stride[i].number;
    }
}

static int32_t list_tensors(struct mmqi_pickle *out, const struct machine *m, int32_t which)
{
    const struct item *items = m->items.rows;
    const int64_t first = ((const struct dict *)m->dicts.rows)[which].first;
    size_t n = 0;
    int64_t i;

    for (i = first; i >= 0; i = items[i].next)
        n += items[i].value.kind == KIND_TENSOR;
    if (n == 0)
        return mmqi_fail(MMQ_ERR_FORMAT, "%s: its pickle's dict holds no tensor", m->path);
    if (n > MAX_TENSORS)
        return mmqi_fail(MMQ_ERR_FORMAT, "%s: more than %d tensors", m->path, MAX_TENSORS);
    out->tensors = mmqi_alloc_array(n, sizeof *out->tensors);
    if (!out->tensors)
        return fail_memory(m);
    for (i = first; i >= 0; i = items[i].next) {
        if (items[i].value.kind != KIND_TENSOR)
            continue;
        if (items[i].key.kind != KIND_TEXT)
            return mmqi_fail(MMQ_ERR_FORMAT, "%s: a tensor's key in its pickle is no string",
                             m->path);
        describe(&out->tensors[out->n_tensors++], m, &items[i]);
    }
    return MMQ_OK;
}

static void free_machine(struct machine *m)
{
    mmqi_free(m->stack.rows);
    mmqi_free(m->marks.rows);
    mmqi_free(m->memo.rows);
    mmqi_free(m->cells.rows);
    mmqi_free(m->dicts.rows);
    mmqi_free(m->items.rows);
    mmqi_free(m->stores.rows);
    mmqi_free(m->views.rows);
}

int32_t mmqi_pickle_read(struct mmqi_pickle *out, const char *path, const void *bytes, size_t size)
{
    struct machine m = {.path = path, .bytes = bytes, .size = size};
    int32_t which = -1, status;

    memset(out, 0, sizeof *out);
    if (size > INT32_MAX) /* rows are counted in 32 bits */
        return mmqi_fail(MMQ_ERR_FORMAT, "%s: a pickle of %zu bytes", path, size);
    status = run(&m);
    if (status == MMQ_OK)
        status = descend(&m, &which);
    if (status == MMQ_OK)
        status = list_tensors(out, &m, which);
    free_machine(&m);
    if (status != MMQ_OK)
        mmqi_pickle_clear(out);
    return status;
}

void mmqi_pickle_clear(struct mmqi_pickle *pickle)
{
    mmqi_free(pickle->tensors);
    memset(pickle, 0, sizeof *pickle);
}
