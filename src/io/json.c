/*
 * The strict JSON pull parser: states, tokens and numbers, and the table of
 * the open objects' keys.
 *
 * The keys of all open objects lie in one stack (the innermost object's on
 * top) with one hash table of indices beside it. Keys leave in the reverse
 * of the order in which they came, so taking one out of the linear-probing
 * table is clearing its slot: nothing that stays was placed after it.
 */
#include "io/json.h"

#include <float.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "core/mem.h"
#include "core/os.h"
#include "core/status.h"
#include "core/utf8.h"
#include "io/util.h"

enum state {
    WANT_VALUE,       /* at the top, after a key, or after ',' in an array */
    WANT_FIRST_VALUE, /* after '[': a value or ']' */
    WANT_FIRST_KEY,   /* after '{': a key or '}' */
    WANT_NEXT,        /* after a value: ',' or the closing bracket, or the end of the text */
    FAILED
};

struct key {
    uint64_t hash;
    size_t offset; /* of its opening quote */
};

struct level {
    bool object;
    size_t first_key; /* index into keys[]; an object's own start there */
};

struct text {
    char *data; /* NULL before the first token; always ends with a zero byte after it */
    size_t size, capacity;
};

struct mmqi_json {
    char *name;
    const char *in;
    size_t size;
    size_t at;    /* the next byte to read */
    size_t token; /* start of the last event's token */
    enum state state;
    enum mmqi_json_event last;
    double number;
    struct text text;    /* of the last event */
    struct text earlier; /* a key spelled before, when hashes meet */
    struct level levels[MMQI_JSON_DEPTH];
    int32_t depth;
    struct key *keys;
    size_t n_keys, keys_capacity;
    uint32_t *slots; /* index into keys[] plus one; 0 is free */
    size_t n_slots;  /* a power of two, at least twice n_keys */
    uint64_t seed[2];
    int32_t status;       /* of the failure */
    size_t fault;         /* where it is */
    const char *expected; /* what it wants there; NULL: no memory */
    size_t twice_size;    /* of the key at `fault` as spelled, when it is there twice */
};

/* ---- failures ---- */

static const char key_once[] = "each key of an object once";

static void locate(const struct mmqi_json *json, size_t offset, size_t *line, size_t *column)
{
    size_t i, start = 0;

    *line = 1;
    for (i = 0; i < offset; i++) {
        if (json->in[i] == '\n') {
            start = i + 1;
            ++*line;
        }
    }
    *column = offset - start + 1;
}

/* Says the parser's own failure, again at every call after it. */
static int32_t say_failure(const struct mmqi_json *json)
{
    char found[32];
    size_t line, column;

    if (!json->expected)
        return mmqi_fail(json->status, "%s: no memory to parse it", json->name);
    locate(json, json->fault, &line, &column);
    if (json->expected == key_once)
        return mmqi_fail(json->status, "%s: line %zu, column %zu: the key %.*s stands here again",
                         json->name, line, column,
                         mmqi_clip(json->in + json->fault, json->twice_size),
                         json->in + json->fault);
    if (json->fault >= json->size)
        snprintf(found, sizeof found, "the end of the text");
    else if (json->in[json->fault] >= 0x20 && json->in[json->fault] < 0x7F)
        snprintf(found, sizeof found, "'%c'", json->in[json->fault]);
    else
        snprintf(found, sizeof found, "byte 0x%02x", (unsigned char)json->in[json->fault]);
    return mmqi_fail(json->status, "%s: line %zu, column %zu: expected %s, found %s", json->name,
                     line, column, json->expected, found);
}

static int32_t fail_at(struct mmqi_json *json, size_t offset, const char *expected)
{
    json->state = FAILED;
    json->status = MMQ_ERR_FORMAT;
    json->fault = offset;
    json->expected = expected;
    return say_failure(json);
}

static int32_t fail_memory(struct mmqi_json *json)
{
    json->state = FAILED;
    json->status = MMQ_ERR_NOMEM;
    json->expected = NULL;
    return say_failure(json);
}

int32_t mmqi_json_fail(struct mmqi_json *json, int32_t status, const char *format, ...)
{
    char text[MMQI_MESSAGE_BYTES];
    size_t line, column;
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    locate(json, json->token, &line, &column);
    return mmqi_fail(status, "%s: line %zu, column %zu: %s", json->name, line, column, text);
}

/* ---- opening and closing ---- */

int32_t mmqi_json_open(struct mmqi_json **out, const char *name, const char *text, size_t size)
{
    struct mmqi_json *json;

    *out = NULL;
    if (size > MMQI_JSON_MAX_TEXT)
        return mmqi_fail(MMQ_ERR_FORMAT, "%s: %zu bytes of JSON, at most %d are read", name, size,
                         MMQI_JSON_MAX_TEXT);
    json = mmqi_calloc(1, sizeof *json);
    if (json)
        json->name = mmqi_strdup(name);
    if (!json || !json->name) {
        mmqi_json_close(json);
        return mmqi_fail(MMQ_ERR_NOMEM, "%s: no memory to parse it", name);
    }
    json->in = text;
    json->size = size;
    json->state = WANT_VALUE;
    /* What a file's author cannot know; verdicts do not depend on it, only their speed does. */
    json->seed[0] = mmqi_os_nanoseconds();
    json->seed[1] = (uint64_t)(uintptr_t)json;
    *out = json;
    return MMQ_OK;
}

void mmqi_json_close(struct mmqi_json *json)
{
    if (!json)
        return;
    mmqi_free(json->name);
    mmqi_free(json->text.data);
    mmqi_free(json->earlier.data);
    mmqi_free(json->keys);
    mmqi_free(json->slots);
    mmqi_free(json);
}

const char *mmqi_json_text(const struct mmqi_json *json)
{
    return json->text.data ? json->text.data : "";
}

size_t mmqi_json_size(const struct mmqi_json *json)
{
    return json->text.size;
}

bool mmqi_json_is(const struct mmqi_json *json, const char *text)
{
    const size_t size = strlen(text);

    return json->text.size == size && memcmp(mmqi_json_text(json), text, size) == 0;
}

double mmqi_json_number(const struct mmqi_json *json)
{
    return json->number;
}

int32_t mmqi_json_depth(const struct mmqi_json *json)
{
    return json->depth;
}

size_t mmqi_json_offset(const struct mmqi_json *json)
{
    return json->token;
}

static int32_t reserve_text(struct mmqi_json *json, struct text *text, size_t size)
{
    size_t capacity = text->capacity ? text->capacity : 256;
    char *data;

    text->size = 0;
    if (size < text->capacity)
        return MMQ_OK;
    while (capacity <= size) /* size is at most MMQI_JSON_MAX_TEXT: no wrap */
        capacity *= 2;
    data = mmqi_realloc_array(text->data, capacity, 1);
    if (!data)
        return fail_memory(json);
    text->data = data;
    text->capacity = capacity;
    return MMQ_OK;
}

/* ---- strings ---- */

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

/* The four hexadecimal digits at `p`, all before `end`; -1 where they are not. */
static int32_t hex4(const char *p, const char *end)
{
    int32_t value = 0;
    int i;

    if (end - p < 4)
        return -1;
    for (i = 0; i < 4; i++) {
        const int digit = hex_digit(p[i]);

        if (digit < 0)
            return -1;
        value = value * 16 + digit;
    }
    return value;
}

/* The character of the \u escape whose digits are at *p, a surrogate pair taken whole; -1 where
 * it is malformed or half a pair. *p moves past it. */
static int32_t unicode_escape(const char **p, const char *end)
{
    const int32_t high = hex4(*p, end);
    int32_t low;

    if (high < 0 || (high >= 0xDC00 && high <= 0xDFFF))
        return -1;
    *p += 4;
    if (high < 0xD800 || high > 0xDBFF)
        return high;
    if (end - *p < 6 || (*p)[0] != '\\' || (*p)[1] != 'u')
        return -1;
    low = hex4(*p + 2, end);
    if (low < 0xDC00 || low > 0xDFFF)
        return -1;
    *p += 6;
    return 0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00);
}

static char simple_escape(char c)
{
    switch (c) {
    case 'b':
        return '\b';
    case 'f':
        return '\f';
    case 'n':
        return '\n';
    case 'r':
        return '\r';
    case 't':
        return '\t';
    case '"':
    case '\\':
    case '/':
        return c;
    default:
        return 0;
    }
}

/* The escape whose backslash is at *p, written to *dst; *p moves past it. */
static int32_t decode_escape(struct mmqi_json *json, char **dst, const char **p, const char *end)
{
    const char *const start = *p;
    int32_t c;

    *p += 2; /* the scan saw a byte after every backslash */
    if (start[1] == 'u') {
        c = unicode_escape(p, end);
        if (c < 0)
            return fail_at(json, (size_t)(start - json->in), "a whole character after \\u");
        *dst += mmqi_utf8_encode(*dst, c);
        return MMQ_OK;
    }
    c = simple_escape(start[1]);
    if (!c)
        return fail_at(json, (size_t)(start + 1 - json->in), "an escape that JSON has");
    *(*dst)++ = (char)c;
    return MMQ_OK;
}

/* Unescape the bytes [begin, end) between the quotes; what comes out is never longer. */
static int32_t decode_string(struct mmqi_json *json, struct text *text, size_t begin, size_t end)
{
    const char *p = json->in + begin, *const stop = json->in + end;
    char *dst;
    int32_t status = reserve_text(json, text, end - begin);

    if (status != MMQ_OK)
        return status;
    dst = text->data;
    while (p < stop) {
        size_t n;

        if (*p == '\\') {
            status = decode_escape(json, &dst, &p, stop);
            if (status != MMQ_OK)
                return status;
            continue;
        }
        if (mmqi_utf8_decode(p, (size_t)(stop - p), &n) < 0)
            return fail_at(json, (size_t)(p - json->in), "UTF-8");
        for (; n > 0; n--)
            *dst++ = *p++;
    }
    *dst = 0;
    text->size = (size_t)(dst - text->data);
    return MMQ_OK;
}

/* Find the quote that ends the string whose first byte is at json->at. *plain: neither escapes
 * nor bytes above 0x7F. */
static int32_t scan_string(struct mmqi_json *json, size_t *end, bool *plain)
{
    const unsigned char *const in = (const unsigned char *)json->in;
    unsigned char high = 0;
    bool escapes = false;
    size_t i;

    for (i = json->at; i < json->size && in[i] != '"'; i++) {
        if (in[i] < 0x20)
            return fail_at(json, i, "no raw control byte in a string");
        high |= in[i];
        if (in[i] == '\\') {
            escapes = true;
            if (++i < json->size && in[i] < 0x20)
                return fail_at(json, i, "an escape that JSON has");
        }
    }
    if (i >= json->size)
        return fail_at(json, json->size, "'\"' at the end of a string");
    if (i - json->at > MMQI_JSON_MAX_STRING)
        return fail_at(json, json->token, "a shorter string");
    *end = i;
    *plain = !escapes && high < 0x80;
    return MMQ_OK;
}

/* The string whose opening quote is at json->at, into `text`; json->at moves past it. */
static int32_t read_string(struct mmqi_json *json, struct text *text)
{
    size_t begin, end = 0;
    bool plain = false;
    int32_t status;

    begin = ++json->at;
    status = scan_string(json, &end, &plain);
    if (status != MMQ_OK)
        return status;
    json->at = end + 1;
    if (!plain)
        return decode_string(json, text, begin, end);
    status = reserve_text(json, text, end - begin);
    if (status != MMQ_OK)
        return status;
    memcpy(text->data, json->in + begin, end - begin);
    text->data[end - begin] = 0;
    text->size = end - begin;
    return MMQ_OK;
}

/* ---- keys, each once in its object ---- */

static uint64_t rotate(uint64_t x, int bits)
{
    return x << bits | x >> (64 - bits);
}

static void sip_round(uint64_t v[4])
{
    v[0] += v[1];
    v[2] += v[3];
    v[1] = rotate(v[1], 13) ^ v[0];
    v[3] = rotate(v[3], 16) ^ v[2];
    v[0] = rotate(v[0], 32);
    v[2] += v[1];
    v[0] += v[3];
    v[1] = rotate(v[1], 17) ^ v[2];
    v[3] = rotate(v[3], 21) ^ v[0];
    v[2] = rotate(v[2], 32);
}

/* SipHash-1-3 (Aumasson and Bernstein 2012): a hostile file cannot choose keys that meet. */
static uint64_t hash_key(const uint64_t seed[2], const char *text, size_t size)
{
    uint64_t v[4] = {seed[0] ^ 0x736f6d6570736575u, seed[1] ^ 0x646f72616e646f6du,
                     seed[0] ^ 0x6c7967656e657261u, seed[1] ^ 0x7465646279746573u};
    uint64_t word;
    size_t i;

    for (i = 0; i + 8 <= size; i += 8) {
        memcpy(&word, text + i, 8);
        v[3] ^= word;
        sip_round(v);
        v[0] ^= word;
    }
    word = 0;
    memcpy(&word, text + i, size - i);
    word ^= (uint64_t)size << 56;
    v[3] ^= word;
    sip_round(v);
    v[0] ^= word;
    v[2] ^= 0xFF;
    for (i = 0; i < 3; i++)
        sip_round(v);
    return v[0] ^ v[1] ^ v[2] ^ v[3];
}

static void place_key(struct mmqi_json *json, size_t index)
{
    const size_t mask = json->n_slots - 1;
    size_t slot = (size_t)json->keys[index].hash & mask;

    while (json->slots[slot])
        slot = (slot + 1) & mask;
    json->slots[slot] = (uint32_t)index + 1;
}

/* Room for one more key; the table is filled again in the order in which the keys came. */
static int32_t grow_keys(struct mmqi_json *json)
{
    const size_t capacity = json->keys_capacity ? 2 * json->keys_capacity : 64;
    struct key *keys;
    uint32_t *slots;
    size_t i;

    if (json->n_keys < json->keys_capacity)
        return MMQ_OK;
    keys = mmqi_realloc_array(json->keys, capacity, sizeof *keys);
    if (!keys)
        return fail_memory(json);
    json->keys = keys;
    slots = mmqi_calloc(2 * capacity, sizeof *slots);
    if (!slots)
        return fail_memory(json);
    mmqi_free(json->slots);
    json->slots = slots;
    json->n_slots = 2 * capacity;
    json->keys_capacity = capacity;
    for (i = 0; i < json->n_keys; i++)
        place_key(json, i);
    return MMQ_OK;
}

/* Is keys[index], read again from the text, the key in hand? */
static int32_t same_key(struct mmqi_json *json, size_t index, bool *same)
{
    const size_t at = json->at;
    int32_t status;

    json->at = json->keys[index].offset;
    status = read_string(json, &json->earlier);
    json->at = at;
    if (status != MMQ_OK)
        return status;
    *same = json->earlier.size == json->text.size &&
            memcmp(json->earlier.data, json->text.data, json->text.size) == 0;
    return MMQ_OK;
}

static int32_t add_key(struct mmqi_json *json)
{
    const uint64_t hash = hash_key(json->seed, json->text.data, json->text.size);
    const size_t first = json->levels[json->depth - 1].first_key;
    size_t slot;
    int32_t status = grow_keys(json);

    if (status != MMQ_OK)
        return status;
    slot = (size_t)hash & (json->n_slots - 1);
    for (; json->slots[slot]; slot = (slot + 1) & (json->n_slots - 1)) {
        const size_t index = json->slots[slot] - 1;
        bool same = false;

        if (index < first || json->keys[index].hash != hash)
            continue;
        status = same_key(json, index, &same);
        if (status != MMQ_OK)
            return status;
        json->twice_size = json->at - json->token;
        if (same)
            return fail_at(json, json->token, key_once);
    }
    json->keys[json->n_keys] = (struct key){hash, json->token};
    json->slots[slot] = (uint32_t)++json->n_keys;
    return MMQ_OK;
}

/* Forget the keys from `first` on, the last one first. */
static void drop_keys(struct mmqi_json *json, size_t first)
{
    while (json->n_keys > first) {
        const size_t mask = json->n_slots - 1;
        const size_t index = --json->n_keys;
        size_t slot = (size_t)json->keys[index].hash & mask;

        while (json->slots[slot] != index + 1)
            slot = (slot + 1) & mask;
        json->slots[slot] = 0;
    }
}

/* ---- numbers ---- */

struct decimal {
    uint64_t digits;  /* the first 15 significant ones, as a number */
    int32_t n_digits; /* significant; more than 15: not all are in `digits` */
    int32_t scale;    /* the value is digits * 10^scale */
    bool negative;
};

static bool is_digit(const struct mmqi_json *json, size_t at)
{
    return at < json->size && json->in[at] >= '0' && json->in[at] <= '9';
}

/* One or more digits at json->at. */
static int32_t read_digits(struct mmqi_json *json, struct decimal *d, bool fraction)
{
    if (!is_digit(json, json->at))
        return fail_at(json, json->at, "a digit");
    for (; is_digit(json, json->at); json->at++) {
        if (d->n_digits > 15)
            continue;
        d->n_digits += d->n_digits > 0 || json->in[json->at] != '0';
        if (d->n_digits <= 15)
            d->digits = 10 * d->digits + (uint64_t)(json->in[json->at] - '0');
        d->scale -= fraction;
    }
    return MMQ_OK;
}

static int32_t read_exponent(struct mmqi_json *json, struct decimal *d)
{
    bool negative = false;
    int32_t value = 0;

    json->at++;
    if (json->at < json->size && (json->in[json->at] == '+' || json->in[json->at] == '-'))
        negative = json->in[json->at++] == '-';
    if (!is_digit(json, json->at))
        return fail_at(json, json->at, "a digit");
    for (; is_digit(json, json->at); json->at++) {
        if (value < 100000)
            value = 10 * value + (json->in[json->at] - '0');
    }
    d->scale += negative ? -value : value;
    return MMQ_OK;
}

/* Exact where both operands are: 15 digits and 10^22 fit in a double, and IEEE rounds their
 * product or quotient once, as strtod would. */
static bool small_number(const struct decimal *d, double *value)
{
    static const double powers[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,
                                    1e8,  1e9,  1e10, 1e11, 1e12, 1e13, 1e14, 1e15,
                                    1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};
    double x = (double)d->digits;

    if (FLT_EVAL_METHOD != 0 || d->n_digits > 15 || d->scale < -22 || d->scale > 22)
        return false;
    if (d->scale < 0)
        x /= powers[-d->scale];
    else
        x *= powers[d->scale];
    *value = d->negative ? -x : x;
    return true;
}

/* Moves json->at past the number that begins there. */
static int32_t scan_number(struct mmqi_json *json, struct decimal *d)
{
    int32_t status = MMQ_OK;

    d->negative = json->in[json->at] == '-';
    json->at += d->negative;
    if (json->at < json->size && json->in[json->at] == '0')
        json->at++; /* a digit after it is no part of the number */
    else
        status = read_digits(json, d, false);
    if (status == MMQ_OK && json->at < json->size && json->in[json->at] == '.') {
        json->at++;
        status = read_digits(json, d, true);
    }
    if (status == MMQ_OK && json->at < json->size && (json->in[json->at] | 0x20) == 'e')
        status = read_exponent(json, d);
    return status;
}

static int32_t read_number(struct mmqi_json *json)
{
    struct decimal d = {0};
    const size_t begin = json->at;
    size_t size;
    char *end;
    int32_t status = scan_number(json, &d);

    if (status != MMQ_OK)
        return status;
    size = json->at - begin;
    if (size > MMQI_JSON_MAX_STRING)
        return fail_at(json, begin, "a shorter number");
    status = reserve_text(json, &json->text, size);
    if (status != MMQ_OK)
        return status;
    memcpy(json->text.data, json->in + begin, size);
    json->text.data[size] = 0;
    json->text.size = size;
    if (!small_number(&d, &json->number))
        json->number = mmqi_os_parse_number(json->text.data, &end);
    if (isinf(json->number))
        return fail_at(json, begin, "a number that a double can hold");
    return MMQ_OK;
}

int32_t mmqi_json_integer(struct mmqi_json *json, int64_t *value)
{
    if (json->last != MMQI_JSON_NUMBER)
        return mmqi_json_fail(json, MMQ_ERR_FORMAT, "expected an integer");
    if (!mmqi_parse_integer(json->text.data, value))
        return mmqi_json_fail(json, MMQ_ERR_FORMAT, "expected an integer of 64 bits, found %.*s",
                              mmqi_clip(json->text.data, json->text.size), json->text.data);
    return MMQ_OK;
}

/* ---- events ---- */

static void skip_space(struct mmqi_json *json)
{
    size_t i = json->at;

    while (i < json->size && (json->in[i] == ' ' || json->in[i] == '\n' || json->in[i] == '\r' ||
                              json->in[i] == '\t'))
        i++;
    json->at = i;
}

static bool looking_at(const struct mmqi_json *json, char c)
{
    return json->at < json->size && json->in[json->at] == c;
}

static int32_t open_level(struct mmqi_json *json, bool object, enum mmqi_json_event *event)
{
    if (json->depth == MMQI_JSON_DEPTH)
        return fail_at(json, json->at, "no deeper nesting");
    json->levels[json->depth++] = (struct level){object, json->n_keys};
    json->at++;
    json->state = object ? WANT_FIRST_KEY : WANT_FIRST_VALUE;
    *event = object ? MMQI_JSON_OBJECT : MMQI_JSON_ARRAY;
    return MMQ_OK;
}

static int32_t close_level(struct mmqi_json *json, enum mmqi_json_event *event)
{
    const struct level *level = &json->levels[--json->depth];

    drop_keys(json, level->first_key);
    json->at++;
    json->state = WANT_NEXT;
    *event = level->object ? MMQI_JSON_OBJECT_END : MMQI_JSON_ARRAY_END;
    return MMQ_OK;
}

static int32_t read_word(struct mmqi_json *json, const char *word, enum mmqi_json_event meaning,
                         enum mmqi_json_event *event)
{
    const size_t size = strlen(word);
    size_t i;

    for (i = 0; i < size; i++) {
        if (json->at + i >= json->size || json->in[json->at + i] != word[i])
            return fail_at(json, json->at + i, "true, false or null spelled out");
    }
    json->at += size;
    json->state = WANT_NEXT;
    *event = meaning;
    return MMQ_OK;
}

static int32_t read_value(struct mmqi_json *json, enum mmqi_json_event *event)
{
    const char c = json->at < json->size ? json->in[json->at] : 0;

    json->token = json->at;
    switch (c) {
    case '{':
        return open_level(json, true, event);
    case '[':
        return open_level(json, false, event);
    case 't':
        return read_word(json, "true", MMQI_JSON_TRUE, event);
    case 'f':
        return read_word(json, "false", MMQI_JSON_FALSE, event);
    case 'n':
        return read_word(json, "null", MMQI_JSON_NULL, event);
    case '"':
        *event = MMQI_JSON_STRING;
        json->state = WANT_NEXT;
        return read_string(json, &json->text);
    default:
        break;
    }
    if (c != '-' && (c < '0' || c > '9'))
        return fail_at(json, json->at, "a value");
    *event = MMQI_JSON_NUMBER;
    json->state = WANT_NEXT;
    return read_number(json);
}

/* A key and the colon after it. */
static int32_t read_key(struct mmqi_json *json, enum mmqi_json_event *event)
{
    int32_t status;

    json->token = json->at;
    if (!looking_at(json, '"'))
        return fail_at(json, json->at, "a key in quotes");
    status = read_string(json, &json->text);
    if (status != MMQ_OK)
        return status;
    status = add_key(json);
    if (status != MMQ_OK)
        return status;
    skip_space(json);
    if (!looking_at(json, ':'))
        return fail_at(json, json->at, "':' after a key");
    json->at++;
    json->state = WANT_VALUE;
    *event = MMQI_JSON_KEY;
    return MMQ_OK;
}

/* What follows a value: the end of the text, a closing bracket, or ',' and the next item. */
static int32_t read_next(struct mmqi_json *json, enum mmqi_json_event *event)
{
    const bool object = json->depth > 0 && json->levels[json->depth - 1].object;

    json->token = json->at;
    if (json->depth == 0) {
        if (json->at < json->size)
            return fail_at(json, json->at, "the end of the text");
        *event = MMQI_JSON_END;
        return MMQ_OK;
    }
    if (looking_at(json, object ? '}' : ']'))
        return close_level(json, event);
    if (!looking_at(json, ','))
        return fail_at(json, json->at, object ? "',' or '}'" : "',' or ']'");
    json->at++;
    skip_space(json);
    return object ? read_key(json, event) : read_value(json, event);
}

int32_t mmqi_json_next(struct mmqi_json *json, enum mmqi_json_event *event)
{
    enum mmqi_json_event found = MMQI_JSON_END;
    int32_t status = MMQ_OK;

    json->number = 0;
    json->text.size = 0;
    if (json->text.data)
        json->text.data[0] = 0;
    skip_space(json);
    switch (json->state) {
    case WANT_VALUE:
        status = read_value(json, &found);
        break;
    case WANT_FIRST_VALUE:
        json->token = json->at;
        status = looking_at(json, ']') ? close_level(json, &found) : read_value(json, &found);
        break;
    case WANT_FIRST_KEY:
        json->token = json->at;
        status = looking_at(json, '}') ? close_level(json, &found) : read_key(json, &found);
        break;
    case WANT_NEXT:
        status = read_next(json, &found);
        break;
    case FAILED:
        status = say_failure(json);
        break;
    }
    json->last = found;
    *event = found;
    return status;
}

int32_t mmqi_json_skip(struct mmqi_json *json)
{
    enum mmqi_json_event event = json->last;
    int32_t status = MMQ_OK, depth;

    if (event == MMQI_JSON_KEY)
        status = mmqi_json_next(json, &event);
    if (status != MMQ_OK || (event != MMQI_JSON_OBJECT && event != MMQI_JSON_ARRAY))
        return status;
    depth = json->depth - 1;
    while (status == MMQ_OK && json->depth > depth)
        status = mmqi_json_next(json, &event);
    return status;
}
