/*
 * What values can do: Python's rules for strings, integers, lists and the
 * messages, as far as templates need them.
 */
#include <stdio.h>
#include <string.h>
#include <utf8proc.h>

#include "core/status.h"
#include "text/chat_parts.h"
#include "text/utf8.h"

static int32_t fail(const struct mmqi_chat_budget *budget, int32_t status, const char *text)
{
    return mmqi_chat_fail(budget->chat, status, budget->where, "%s", text);
}

/* ---- what a value is ---- */

bool mmqi_chat_true(const struct mmqi_chat_value *value)
{
    switch (value->kind) {
    case MMQI_VALUE_UNDEFINED:
    case MMQI_VALUE_NONE:
        return false;
    case MMQI_VALUE_BOOL:
    case MMQI_VALUE_INTEGER:
        return value->integer != 0;
    case MMQI_VALUE_STRING:
    case MMQI_VALUE_LIST:
        return value->size > 0 || value->lazy;
    default:
        return true;
    }
}

static struct mmqi_chat_value integer_value(int64_t integer)
{
    return (struct mmqi_chat_value){.kind = MMQI_VALUE_INTEGER, .integer = integer};
}

static struct mmqi_chat_value bool_value(bool on)
{
    return (struct mmqi_chat_value){.kind = MMQI_VALUE_BOOL, .integer = on};
}

struct mmqi_chat_value mmqi_chat_string(const char *text, size_t size)
{
    return (struct mmqi_chat_value){.kind = MMQI_VALUE_STRING, .text = text, .size = size};
}

static bool is_number(const struct mmqi_chat_value *value)
{
    return value->kind == MMQI_VALUE_INTEGER || value->kind == MMQI_VALUE_BOOL;
}

static bool is_text(const struct mmqi_chat_value *value, const char *text)
{
    return value->kind == MMQI_VALUE_STRING && value->size == strlen(text) &&
           memcmp(value->text, text, value->size) == 0;
}

int32_t mmqi_chat_to_string(struct mmqi_chat_budget *budget, struct mmqi_chat_value *out,
                            const struct mmqi_chat_value *value)
{
    void *text;
    int32_t status;

    switch (value->kind) {
    case MMQI_VALUE_STRING:
        *out = *value;
        return MMQ_OK;
    case MMQI_VALUE_UNDEFINED:
        *out = mmqi_chat_string("", 0);
        return MMQ_OK;
    case MMQI_VALUE_NONE:
        *out = mmqi_chat_string("None", 4);
        return MMQ_OK;
    case MMQI_VALUE_BOOL:
        *out = value->integer ? mmqi_chat_string("True", 4) : mmqi_chat_string("False", 5);
        return MMQ_OK;
    case MMQI_VALUE_INTEGER:
        status = mmqi_chat_take(budget, &text, 24);
        if (status == MMQ_OK) {
            snprintf(text, 24, "%lld", (long long)value->integer);
            *out = mmqi_chat_string(text, strlen(text));
        }
        return status;
    default:
        return fail(budget, MMQ_ERR_UNSUPPORTED, "a list or a message as text is not supported");
    }
}

/* ---- parts of values ---- */

static struct mmqi_chat_value loop_attribute(const struct mmqi_chat_loop *loop,
                                             const struct mmqi_chat_value *key)
{
    size_t i = loop->index, n = loop->n;

    if (is_text(key, "index"))
        return integer_value((int64_t)i + 1);
    if (is_text(key, "index0"))
        return integer_value((int64_t)i);
    if (is_text(key, "revindex"))
        return integer_value((int64_t)(n - i));
    if (is_text(key, "revindex0"))
        return integer_value((int64_t)(n - i - 1));
    if (is_text(key, "first"))
        return bool_value(i == 0);
    if (is_text(key, "last"))
        return bool_value(i + 1 == n);
    if (is_text(key, "length"))
        return integer_value((int64_t)n);
    if (is_text(key, "previtem") && i > 0)
        return loop->items[i - 1];
    if (is_text(key, "nextitem") && i + 1 < n)
        return loop->items[i + 1];
    return (struct mmqi_chat_value){.kind = MMQI_VALUE_UNDEFINED};
}

/* Where `name` stands in a namespace; its length where it does not. */
static size_t find_in_space(const struct mmqi_chat_space *space, const struct mmqi_chat_value *name)
{
    size_t i;

    for (i = 0; i < space->n; i++)
        if (space->names[i].size == name->size &&
            memcmp(space->names[i].text, name->text, name->size) == 0)
            break;
    return i;
}

int32_t mmqi_chat_new_space(struct mmqi_chat_budget *budget, struct mmqi_chat_value *out)
{
    void *memory;
    int32_t status = mmqi_chat_take(budget, &memory, sizeof *out->space);

    if (status != MMQ_OK)
        return status;
    *out = (struct mmqi_chat_value){.kind = MMQI_VALUE_SPACE, .space = memory};
    out->space->n = 0;
    return MMQ_OK;
}

int32_t mmqi_chat_space_set(struct mmqi_chat_budget *budget, const struct mmqi_chat_value *space,
                            const struct mmqi_chat_value *name, const struct mmqi_chat_value *value)
{
    size_t i;

    if (space->kind != MMQI_VALUE_SPACE)
        return fail(budget, MMQ_ERR_INVALID, "'set' of a name in what is no namespace");
    if (value->kind == MMQI_VALUE_LOOP) /* it would outlive its loop, whose place others take */
        return fail(budget, MMQ_ERR_UNSUPPORTED, "'loop' in a namespace is not supported");
    i = find_in_space(space->space, name);
    if (i == MMQI_CHAT_SPACE)
        return fail(budget, MMQ_ERR_LIMIT, "too many names in a namespace");
    space->space->names[i] = *name;
    space->space->values[i] = *value;
    space->space->n += i == space->space->n;
    return MMQ_OK;
}

/* The value under a key of a message, a part, a loop or a namespace; undefined if there is none. */
static struct mmqi_chat_value member(const struct mmqi_chat_value *value,
                                     const struct mmqi_chat_value *key)
{
    const char *text;
    size_t i;

    if (value->kind == MMQI_VALUE_LOOP)
        return loop_attribute(value->loop, key);
    if (value->kind == MMQI_VALUE_SPACE && key->kind == MMQI_VALUE_STRING) {
        i = find_in_space(value->space, key);
        if (i < value->space->n)
            return value->space->values[i];
    }
    if (value->kind == MMQI_VALUE_MESSAGE && is_text(key, "role"))
        return mmqi_chat_string(value->message->message->role,
                                strlen(value->message->message->role));
    if (value->kind == MMQI_VALUE_MESSAGE && is_text(key, "content"))
        return value->message->parts;
    if (value->kind == MMQI_VALUE_PART && is_text(key, "type")) {
        text = value->part->is_image == MMQI_PART_VIDEO ? "video"
               : value->part->is_image                  ? "image"
                                                        : "text";
        return mmqi_chat_string(text, strlen(text));
    }
    if (value->kind == MMQI_VALUE_PART && is_text(key, "text") && !value->part->is_image) {
        text = value->part->text ? value->part->text : "";
        return mmqi_chat_string(text, strlen(text));
    }
    return (struct mmqi_chat_value){.kind = MMQI_VALUE_UNDEFINED};
}

int32_t mmqi_chat_attribute(struct mmqi_chat_budget *budget, struct mmqi_chat_value *value,
                            const char *name, size_t size)
{
    struct mmqi_chat_value key = mmqi_chat_string(name, size);

    if (value->kind == MMQI_VALUE_UNDEFINED)
        return mmqi_chat_fail(budget->chat, MMQ_ERR_INVALID, budget->where,
                              "'.%.*s' of what is undefined", (int)(size < 40 ? size : 40), name);
    *value = member(value, &key);
    return MMQ_OK;
}

/* Byte offset of character number `n` of a string, or its end. */
static size_t offset_of(const struct mmqi_chat_value *value, int64_t n)
{
    size_t at = 0, length;

    for (; n > 0 && at < value->size; n--) {
        mmqi_utf8_decode(value->text + at, value->size - at, &length);
        at += length;
    }
    return at;
}

static int64_t length_of(const struct mmqi_chat_value *value)
{
    size_t at, length;
    int64_t n = 0;

    if (value->kind != MMQI_VALUE_STRING)
        return value->kind == MMQI_VALUE_LIST ? (int64_t)value->size : 0;
    for (at = 0; at < value->size; at += length, n++)
        mmqi_utf8_decode(value->text + at, value->size - at, &length);
    return n;
}

int32_t mmqi_chat_item(struct mmqi_chat_budget *budget, struct mmqi_chat_value *value,
                       const struct mmqi_chat_value *key)
{
    int64_t i = key->integer, n;
    size_t begin;
    int32_t status = mmqi_chat_charge(budget, value->size);

    if (status != MMQ_OK)
        return status;
    if (value->kind == MMQI_VALUE_UNDEFINED)
        return fail(budget, MMQ_ERR_INVALID, "a subscript of what is undefined");
    if ((value->kind != MMQI_VALUE_STRING && value->kind != MMQI_VALUE_LIST) || value->lazy ||
        !is_number(key)) {
        *value = member(value, key);
        return MMQ_OK;
    }
    n = length_of(value);
    i = i < 0 ? i + n : i;
    if (i < 0 || i >= n) {
        value->kind = MMQI_VALUE_UNDEFINED;
    } else if (value->kind == MMQI_VALUE_LIST) {
        *value = value->items[i];
    } else {
        begin = offset_of(value, i);
        value->size = offset_of(value, i + 1) - begin;
        value->text += begin;
    }
    return MMQ_OK;
}

/* A bound of a slice as an index from 0 to n. */
static int64_t clamp_bound(const struct mmqi_chat_value *bound, int64_t missing, int64_t n)
{
    int64_t i = bound->integer;

    if (!is_number(bound))
        return missing;
    i = i < 0 ? i + n : i;
    return i < 0 ? 0 : i > n ? n : i;
}

int32_t mmqi_chat_slice(struct mmqi_chat_budget *budget, struct mmqi_chat_value *value,
                        const struct mmqi_chat_value *from, const struct mmqi_chat_value *to)
{
    int64_t n, begin, end;
    size_t offset;
    int32_t status = mmqi_chat_charge(budget, value->size);

    if (status != MMQ_OK)
        return status;
    if ((value->kind != MMQI_VALUE_STRING && value->kind != MMQI_VALUE_LIST) || value->lazy ||
        from->kind >= MMQI_VALUE_STRING || to->kind >= MMQI_VALUE_STRING)
        return fail(budget, MMQ_ERR_INVALID, "a slice of no list or text, or by no number");
    n = length_of(value);
    begin = clamp_bound(from, 0, n);
    end = clamp_bound(to, n, n);
    end = end < begin ? begin : end;
    if (value->kind == MMQI_VALUE_LIST) {
        value->items += begin;
        value->size = (size_t)(end - begin);
    } else {
        offset = offset_of(value, begin);
        value->size = offset_of(value, end) - offset;
        value->text += offset;
    }
    return MMQ_OK;
}

/* ---- operators ---- */

/* Join two strings. */
static int32_t concatenate(struct mmqi_chat_budget *budget, struct mmqi_chat_value *left,
                           const struct mmqi_chat_value *right)
{
    size_t size = left->size + right->size;
    void *text;
    int32_t status;

    if (size > MMQI_CHAT_OUT_BYTES)
        return fail(budget, MMQ_ERR_LIMIT, "a text of more than 16 MiB");
    status = mmqi_chat_charge(budget, right->size);
    if (status != MMQ_OK || right->size == 0)
        return status;
    if (mmqi_chat_extend(budget, left->text, left->size, right->text, right->size)) {
        left->size = size;
        return MMQ_OK;
    }
    status = mmqi_chat_charge(budget, left->size);
    if (status == MMQ_OK)
        status = mmqi_chat_take(budget, &text, size);
    if (status != MMQ_OK)
        return status;
    memcpy(text, left->text, left->size);
    memcpy((char *)text + left->size, right->text, right->size);
    *left = mmqi_chat_string(text, size);
    return MMQ_OK;
}

static int32_t add(struct mmqi_chat_budget *budget, int32_t operation, struct mmqi_chat_value *left,
                   const struct mmqi_chat_value *right)
{
    int64_t result = 0;
    bool wraps;

    if (left->kind == MMQI_VALUE_STRING && right->kind == MMQI_VALUE_STRING &&
        operation == MMQI_CHAT_ADD)
        return concatenate(budget, left, right);
    if (!is_number(left) || !is_number(right))
        return fail(budget, MMQ_ERR_INVALID,
                    "'+', '-' and '%' take two integers, '+' also two texts");
    if (operation == MMQI_CHAT_MODULO) {
        if (right->integer == 0 || right->integer == -1)
            return right->integer ? (*left = integer_value(0), MMQ_OK)
                                  : fail(budget, MMQ_ERR_INVALID, "'%' by zero");
        result = left->integer % right->integer;
        result += result != 0 && (result < 0) != (right->integer < 0) ? right->integer : 0;
        wraps = false;
    } else {
        wraps = operation == MMQI_CHAT_ADD
                    ? __builtin_add_overflow(left->integer, right->integer, &result)
                    : __builtin_sub_overflow(left->integer, right->integer, &result);
    }
    if (wraps)
        return fail(budget, MMQ_ERR_LIMIT, "an integer that does not fit 64 bits");
    *left = integer_value(result);
    return MMQ_OK;
}

/* Whether two values are equal; lists and messages cannot be told. */
static int32_t equal(struct mmqi_chat_budget *budget, bool *out, const struct mmqi_chat_value *left,
                     const struct mmqi_chat_value *right)
{
    *out = false;
    if (is_number(left) && is_number(right)) {
        *out = left->integer == right->integer;
    } else if (left->kind != right->kind) {
        *out = false;
    } else if (left->kind == MMQI_VALUE_STRING) {
        *out = left->size == right->size && memcmp(left->text, right->text, left->size) == 0;
        return mmqi_chat_charge(budget, left->size);
    } else if (left->kind > MMQI_VALUE_STRING) {
        return fail(budget, MMQ_ERR_UNSUPPORTED,
                    "comparing lists or messages with each other is not supported");
    } else {
        *out = true; /* none or undefined, both of them */
    }
    return MMQ_OK;
}

static int32_t compare(struct mmqi_chat_budget *budget, int32_t operation,
                       struct mmqi_chat_value *left, const struct mmqi_chat_value *right)
{
    size_t size = left->size < right->size ? left->size : right->size;
    int64_t order;
    bool result;
    int32_t status = MMQ_OK;

    if (is_number(left) && is_number(right)) {
        order = (left->integer > right->integer) - (left->integer < right->integer);
    } else if (left->kind == MMQI_VALUE_STRING && right->kind == MMQI_VALUE_STRING) {
        order = memcmp(left->text, right->text, size);
        if (order == 0)
            order = (left->size > right->size) - (left->size < right->size);
        status = mmqi_chat_charge(budget, size);
    } else {
        return fail(budget, MMQ_ERR_INVALID, "an order of values that have none");
    }
    result = operation == MMQI_CHAT_LESS      ? order < 0
             : operation == MMQI_CHAT_GREATER ? order > 0
             : operation == MMQI_CHAT_AT_MOST ? order <= 0
                                              : order >= 0;
    *left = bool_value(result);
    return status;
}

/* *left = *left in *right */
static int32_t contains(struct mmqi_chat_budget *budget, struct mmqi_chat_value *left,
                        const struct mmqi_chat_value *right)
{
    bool found = false;
    int32_t status = MMQ_OK;
    size_t i;

    if (right->kind == MMQI_VALUE_STRING && left->kind == MMQI_VALUE_STRING) {
        found = left->size == 0 || memmem(right->text, right->size, left->text, left->size);
        status = mmqi_chat_charge(budget, right->size + left->size);
    } else if (right->kind == MMQI_VALUE_LIST) {
        status = mmqi_chat_charge(budget, right->size * 64);
        for (i = 0; i < right->size && !found && status == MMQ_OK; i++)
            status = equal(budget, &found, left, &right->items[i]);
    } else if (right->kind == MMQI_VALUE_MESSAGE || right->kind == MMQI_VALUE_PART) {
        found = member(right, left).kind != MMQI_VALUE_UNDEFINED;
    } else if (right->kind != MMQI_VALUE_UNDEFINED) {
        return fail(budget, MMQ_ERR_INVALID, "'in' what holds nothing");
    }
    *left = bool_value(found);
    return status;
}

int32_t mmqi_chat_binary(struct mmqi_chat_budget *budget, int32_t operation,
                         struct mmqi_chat_value *left, const struct mmqi_chat_value *right)
{
    struct mmqi_chat_value text;
    bool result;
    int32_t status;

    switch (operation) {
    case MMQI_CHAT_ADD:
    case MMQI_CHAT_SUBTRACT:
    case MMQI_CHAT_MODULO:
        return add(budget, operation, left, right);
    case MMQI_CHAT_CONCATENATE:
        status = mmqi_chat_to_string(budget, left, left);
        if (status == MMQ_OK)
            status = mmqi_chat_to_string(budget, &text, right);
        return status == MMQ_OK ? concatenate(budget, left, &text) : status;
    case MMQI_CHAT_EQUAL:
    case MMQI_CHAT_NOT_EQUAL:
        status = equal(budget, &result, left, right);
        *left = bool_value(result == (operation == MMQI_CHAT_EQUAL));
        return status;
    case MMQI_CHAT_IN:
    case MMQI_CHAT_NOT_IN:
        status = contains(budget, left, right);
        left->integer ^= operation == MMQI_CHAT_NOT_IN;
        return status;
    default:
        return compare(budget, operation, left, right);
    }
}

/* ---- filters and methods ---- */

typedef utf8proc_int32_t (*map_fn)(utf8proc_int32_t);

/* A copy of the text with each character mapped to one other (so "ß" stays as it is in upper), the
 * first by a map of its own. */
static int32_t map_text(struct mmqi_chat_budget *budget, struct mmqi_chat_value *value,
                        map_fn first, map_fn others)
{
    size_t at, length, n = 0;
    int32_t status = mmqi_chat_charge(budget, value->size * 2), code;
    void *out;

    /* A mapped character is at most three bytes longer than it was, and never in ASCII. */
    if (status == MMQ_OK)
        status = mmqi_chat_take(budget, &out, value->size * 4);
    if (status != MMQ_OK)
        return status;
    for (at = 0; at < value->size; at += length) {
        code = mmqi_utf8_decode(value->text + at, value->size - at, &length);
        if (code < 0) {
            memcpy((char *)out + n, value->text + at, length);
            n += length;
        } else {
            n += mmqi_utf8_encode((char *)out + n, (at == 0 ? first : others)(code));
        }
    }
    *value = mmqi_chat_string(out, n);
    return MMQ_OK;
}

/* White space as Python's str.strip() sees it. */
static bool is_python_space(int32_t code)
{
    return mmqi_is_space(code) || (code >= 0x1C && code <= 0x1F);
}

static void strip_text(struct mmqi_chat_value *value)
{
    size_t length, at, end = 0;
    int32_t code;

    while (value->size > 0 &&
           is_python_space(mmqi_utf8_decode(value->text, value->size, &length))) {
        value->text += length;
        value->size -= length;
    }
    for (at = 0; at < value->size; at += length) {
        code = mmqi_utf8_decode(value->text + at, value->size - at, &length);
        if (!is_python_space(code))
            end = at + length;
    }
    value->size = end;
}

typedef int32_t (*filter_fn)(struct mmqi_chat_budget *budget, struct mmqi_chat_value *value,
                             const struct mmqi_chat_value *arguments, int32_t n);

/* Filters take what is no text as its str(); methods are of texts alone. */
static int32_t need_text(struct mmqi_chat_budget *budget, const struct mmqi_chat_value *value)
{
    return value->kind == MMQI_VALUE_STRING
               ? MMQ_OK
               : fail(budget, MMQ_ERR_INVALID, "a method of what is no text");
}

static int32_t filter_upper(struct mmqi_chat_budget *budget, struct mmqi_chat_value *value,
                            const struct mmqi_chat_value *arguments, int32_t n)
{
    int32_t status = mmqi_chat_to_string(budget, value, value);

    (void)arguments, (void)n;
    return status == MMQ_OK ? map_text(budget, value, utf8proc_toupper, utf8proc_toupper) : status;
}

static int32_t filter_lower(struct mmqi_chat_budget *budget, struct mmqi_chat_value *value,
                            const struct mmqi_chat_value *arguments, int32_t n)
{
    int32_t status = mmqi_chat_to_string(budget, value, value);

    (void)arguments, (void)n;
    return status == MMQ_OK ? map_text(budget, value, utf8proc_tolower, utf8proc_tolower) : status;
}

static int32_t filter_capitalize(struct mmqi_chat_budget *budget, struct mmqi_chat_value *value,
                                 const struct mmqi_chat_value *arguments, int32_t n)
{
    int32_t status = mmqi_chat_to_string(budget, value, value);

    (void)arguments, (void)n;
    return status == MMQ_OK ? map_text(budget, value, utf8proc_totitle, utf8proc_tolower) : status;
}

static int32_t filter_trim(struct mmqi_chat_budget *budget, struct mmqi_chat_value *value,
                           const struct mmqi_chat_value *arguments, int32_t n)
{
    int32_t status = mmqi_chat_to_string(budget, value, value);

    (void)arguments, (void)n;
    if (status == MMQ_OK)
        status = mmqi_chat_charge(budget, value->size);
    if (status == MMQ_OK)
        strip_text(value);
    return status;
}

static int32_t filter_length(struct mmqi_chat_budget *budget, struct mmqi_chat_value *value,
                             const struct mmqi_chat_value *arguments, int32_t n)
{
    int32_t status = mmqi_chat_charge(budget, value->size);

    (void)arguments, (void)n;
    if ((value->kind != MMQI_VALUE_STRING && value->kind != MMQI_VALUE_LIST &&
         value->kind != MMQI_VALUE_UNDEFINED) ||
        value->lazy)
        return fail(budget, MMQ_ERR_INVALID, "the length of what has none");
    *value = integer_value(length_of(value));
    return status;
}

static int32_t filter_default(struct mmqi_chat_budget *budget, struct mmqi_chat_value *value,
                              const struct mmqi_chat_value *arguments, int32_t n)
{
    (void)budget;
    if (value->kind == MMQI_VALUE_UNDEFINED ||
        (n == 2 && mmqi_chat_true(&arguments[1]) && !mmqi_chat_true(value)))
        *value = n > 0 ? arguments[0] : mmqi_chat_string("", 0);
    return MMQ_OK;
}

/* selectattr('type', 'equalto', X): the items whose attribute equals X. */
static int32_t filter_selectattr(struct mmqi_chat_budget *budget, struct mmqi_chat_value *value,
                                 const struct mmqi_chat_value *arguments, int32_t n)
{
    struct mmqi_chat_value *kept, attribute;
    void *memory = NULL;
    size_t i, n_kept = 0;
    bool same;
    int32_t status;

    (void)n;
    if (arguments[0].kind != MMQI_VALUE_STRING ||
        (!is_text(&arguments[1], "equalto") && !is_text(&arguments[1], "eq") &&
         !is_text(&arguments[1], "==")))
        return fail(budget, MMQ_ERR_UNSUPPORTED,
                    "'selectattr' other than (NAME, 'equalto', VALUE) is not supported");
    if (value->kind != MMQI_VALUE_LIST && value->kind != MMQI_VALUE_UNDEFINED)
        return fail(budget, MMQ_ERR_INVALID, "'selectattr' of what is no list");
    if (value->kind == MMQI_VALUE_UNDEFINED)
        value->size = 0;
    status = mmqi_chat_charge(budget, value->size * 64);
    if (status == MMQ_OK)
        status = mmqi_chat_take(budget, &memory, (value->size + 1) * sizeof *kept);
    kept = memory;
    for (i = 0; status == MMQ_OK && i < value->size; i++) {
        attribute = member(&value->items[i], &arguments[0]);
        status = equal(budget, &same, &attribute, &arguments[2]);
        if (status == MMQ_OK && same)
            kept[n_kept++] = value->items[i];
    }
    if (status == MMQ_OK)
        *value = (struct mmqi_chat_value){
            .kind = MMQI_VALUE_LIST, .items = kept, .size = n_kept, .lazy = true};
    return status;
}

/* list: what selectattr gave, as a list that has a length. */
static int32_t filter_list(struct mmqi_chat_budget *budget, struct mmqi_chat_value *value,
                           const struct mmqi_chat_value *arguments, int32_t n)
{
    (void)arguments, (void)n;
    if (value->kind == MMQI_VALUE_UNDEFINED)
        value->size = 0;
    else if (value->kind != MMQI_VALUE_LIST)
        return fail(budget, MMQ_ERR_UNSUPPORTED, "'list' of what is no list is not supported");
    value->kind = MMQI_VALUE_LIST;
    value->lazy = false;
    return MMQ_OK;
}

static const struct {
    const char *name;    /* with a '.': a method */
    int32_t least, most; /* arguments */
    filter_fn run;
} filters[] = {{"upper", 0, 0, filter_upper},
               {".upper", 0, 0, filter_upper},
               {"lower", 0, 0, filter_lower},
               {".lower", 0, 0, filter_lower},
               {"capitalize", 0, 0, filter_capitalize},
               {".capitalize", 0, 0, filter_capitalize},
               {"trim", 0, 0, filter_trim},
               {".strip", 0, 0, filter_trim},
               {"length", 0, 0, filter_length},
               {"count", 0, 0, filter_length},
               {"default", 0, 2, filter_default},
               {"d", 0, 2, filter_default},
               {"selectattr", 3, 3, filter_selectattr},
               {"list", 0, 0, filter_list}};

int32_t mmqi_chat_find_filter(const char *name, size_t size, int32_t n_arguments)
{
    size_t i;

    for (i = 0; i < sizeof filters / sizeof *filters; i++)
        if (strlen(filters[i].name) == size && memcmp(filters[i].name, name, size) == 0 &&
            n_arguments >= filters[i].least && n_arguments <= filters[i].most)
            return (int32_t)i;
    return -1;
}

int32_t mmqi_chat_filter(struct mmqi_chat_budget *budget, int32_t number,
                         struct mmqi_chat_value *value, const struct mmqi_chat_value *arguments,
                         int32_t n_arguments)
{
    int32_t status = filters[number].name[0] == '.' ? need_text(budget, value) : MMQ_OK;

    return status == MMQ_OK ? filters[number].run(budget, value, arguments, n_arguments) : status;
}

/* ---- tests ---- */

enum test { TEST_DEFINED, TEST_UNDEFINED, TEST_NONE, TEST_STRING, TEST_ITERABLE, TEST_MAPPING };

static const char *const tests[] = {"defined", "undefined", "none",
                                    "string",  "iterable",  "mapping"};

int32_t mmqi_chat_find_test(const char *name, size_t size)
{
    size_t i;

    for (i = 0; i < sizeof tests / sizeof *tests; i++)
        if (strlen(tests[i]) == size && memcmp(tests[i], name, size) == 0)
            return (int32_t)i;
    return -1;
}

bool mmqi_chat_test(int32_t number, const struct mmqi_chat_value *value)
{
    bool mapping = value->kind == MMQI_VALUE_MESSAGE || value->kind == MMQI_VALUE_PART;

    switch (number) {
    case TEST_DEFINED:
        return value->kind != MMQI_VALUE_UNDEFINED;
    case TEST_UNDEFINED:
        return value->kind == MMQI_VALUE_UNDEFINED;
    case TEST_NONE:
        return value->kind == MMQI_VALUE_NONE;
    case TEST_STRING:
        return value->kind == MMQI_VALUE_STRING;
    case TEST_MAPPING:
        return mapping;
    default:
        return mapping || value->kind == MMQI_VALUE_STRING || value->kind == MMQI_VALUE_LIST ||
               value->kind == MMQI_VALUE_UNDEFINED;
    }
}
