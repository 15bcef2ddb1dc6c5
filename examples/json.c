/* The JSON reader: one pass over the text, with a stack of open containers instead of recursion. */
#include "json.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A container that is being filled. */
struct open_container {
    struct json_value *value, *last; /* last: the latest item, NULL before the first */
};

struct parser {
    struct json_document *doc;
    char *at, *end; /* *end is a zero byte */
    const char *key;
    struct open_container stack[JSON_MOST_DEPTH];
    size_t depth;
};

static bool refuse(struct parser *p, const char *what)
{
    snprintf(p->doc->error, sizeof p->doc->error, "byte %zu: %s", (size_t)(p->at - p->doc->text),
             what);
    return false;
}

static void skip_blanks(struct parser *p)
{
    while (*p->at == ' ' || *p->at == '\t' || *p->at == '\n' || *p->at == '\r')
        p->at++;
}

/* Bytes of the UTF-8 character at `s` [left bytes]; 0 when it is none. */
static size_t utf8_size(const unsigned char *s, size_t left)
{
    static const unsigned least[] = {0, 0, 0x80, 0x800, 0x10000};
    size_t size = s[0] < 0x80 ? 1 : s[0] < 0xC0 ? 0 : s[0] < 0xE0 ? 2 : s[0] < 0xF0 ? 3 : 4, i;
    unsigned code;

    if (size < 2)
        return size;
    if (s[0] > 0xF4 || size > left)
        return 0;
    code = s[0] & (0x7Fu >> size);
    for (i = 1; i < size; i++) {
        if ((s[i] & 0xC0) != 0x80)
            return 0;
        code = code << 6 | (s[i] & 0x3F);
    }
    if (code < least[size] || code > 0x10FFFF || (code >= 0xD800 && code < 0xE000))
        return 0;
    return size;
}

static char *put_utf8(char *out, unsigned code)
{
    if (code < 0x80) {
        *out++ = (char)code;
    } else if (code < 0x800) {
        *out++ = (char)(0xC0 | code >> 6);
        *out++ = (char)(0x80 | (code & 0x3F));
    } else if (code < 0x10000) {
        *out++ = (char)(0xE0 | code >> 12);
        *out++ = (char)(0x80 | (code >> 6 & 0x3F));
        *out++ = (char)(0x80 | (code & 0x3F));
    } else {
        *out++ = (char)(0xF0 | code >> 18);
        *out++ = (char)(0x80 | (code >> 12 & 0x3F));
        *out++ = (char)(0x80 | (code >> 6 & 0x3F));
        *out++ = (char)(0x80 | (code & 0x3F));
    }
    return out;
}

/* The four hexadecimal digits at p->at, which moves past them. */
static bool read_hex(struct parser *p, unsigned *code)
{
    int i;

    for (*code = 0, i = 0; i < 4; i++, p->at++) {
        char c = *p->at;

        if (c >= '0' && c <= '9')
            *code = *code << 4 | (unsigned)(c - '0');
        else if ((c | 0x20) >= 'a' && (c | 0x20) <= 'f')
            *code = *code << 4 | (unsigned)((c | 0x20) - 'a' + 10);
        else
            return refuse(p, "\\u without four hexadecimal digits");
    }
    return true;
}

/* What stands after "\u": one character, possibly as two surrogates. */
static bool read_code(struct parser *p, char **out)
{
    unsigned code, low;

    if (!read_hex(p, &code))
        return false;
    if (code >= 0xD800 && code < 0xDC00) {
        if (p->at[0] != '\\' || p->at[1] != 'u')
            return refuse(p, "half a surrogate pair");
        p->at += 2;
        if (!read_hex(p, &low))
            return false;
        if (low < 0xDC00 || low > 0xDFFF)
            return refuse(p, "half a surrogate pair");
        code = 0x10000 + ((code - 0xD800) << 10 | (low - 0xDC00));
    } else if (code >= 0xDC00 && code < 0xE000) {
        return refuse(p, "half a surrogate pair");
    }
    if (code == 0)
        return refuse(p, "a zero character");
    *out = put_utf8(*out, code); /* at most 4 bytes for 6 or 12 read: never past p->at */
    return true;
}

/* An escape, its backslash at p->at. */
static bool read_escape(struct parser *p, char **out)
{
    static const char letters[] = "\"\\/bfnrt", meanings[] = "\"\\/\b\f\n\r\t";
    char c = p->at[1];
    const char *found = c != '\0' ? strchr(letters, c) : NULL;

    if (c == 'u') {
        p->at += 2;
        return read_code(p, out);
    }
    if (!found)
        return refuse(p, "an unknown escape");
    *(*out)++ = meanings[found - letters];
    p->at += 2;
    return true;
}

/* The string at p->at, decoded where it stands: decoding never makes it longer. */
static bool read_string(struct parser *p, const char **text, size_t *n)
{
    char *begin = p->at + 1, *out = begin;

    if (*p->at != '"')
        return refuse(p, "a string is missing");
    for (p->at++; *p->at != '"';) {
        size_t size = utf8_size((const unsigned char *)p->at, (size_t)(p->end - p->at));

        if (p->at == p->end)
            return refuse(p, "the text ends inside a string");
        if ((unsigned char)*p->at < 0x20)
            return refuse(p, "a control character in a string");
        if (*p->at == '\\') {
            if (!read_escape(p, &out))
                return false;
            continue;
        }
        if (size == 0)
            return refuse(p, "bytes that are not UTF-8");
        memmove(out, p->at, size);
        out += size;
        p->at += size;
    }
    p->at++;
    *out = '\0';
    *text = begin;
    *n = (size_t)(out - begin);
    return true;
}

static const char *skip_digits(const char *s)
{
    while (*s >= '0' && *s <= '9')
        s++;
    return s;
}

/* The end of the number at `s` by JSON's grammar; NULL when it is none. */
static const char *number_end(const char *s)
{
    const char *digits;

    if (*s == '-')
        s++;
    digits = s;
    s = skip_digits(s);
    if (s == digits || (*digits == '0' && s - digits > 1))
        return NULL;
    if (*s == '.') {
        digits = ++s;
        s = skip_digits(s);
        if (s == digits)
            return NULL;
    }
    if (*s == 'e' || *s == 'E') {
        s++;
        if (*s == '+' || *s == '-')
            s++;
        digits = s;
        s = skip_digits(s);
        if (s == digits)
            return NULL;
    }
    return s;
}

static bool read_number(struct parser *p, double *number)
{
    const char *end = number_end(p->at);
    char *read;

    if (!end)
        return refuse(p, "no value that JSON knows");
    *number = strtod(p->at, &read);
    if (read != end || !isfinite(*number))
        return refuse(p, "a number that cannot be held");
    p->at = read;
    return true;
}

static bool read_word(struct parser *p, const char *word)
{
    size_t n = strlen(word);

    if (strncmp(p->at, word, n) != 0)
        return refuse(p, "an unknown word");
    p->at += n;
    return true;
}

/* A value that is no container. */
static bool read_scalar(struct parser *p, struct json_value *value)
{
    switch (*p->at) {
    case '"':
        value->type = JSON_STRING;
        return read_string(p, &value->text, &value->n);
    case 'n':
        value->type = JSON_NULL;
        return read_word(p, "null");
    case 'f':
        value->type = JSON_FALSE;
        return read_word(p, "false");
    case 't':
        value->type = JSON_TRUE;
        return read_word(p, "true");
    default:
        value->type = JSON_NUMBER;
        return read_number(p, &value->number);
    }
}

/* The key of the next member and its colon; the object is on top of the stack. */
static bool read_key(struct parser *p)
{
    const struct json_value *object = p->stack[p->depth - 1].value;
    char *begin;
    size_t n;

    skip_blanks(p);
    begin = p->at;
    if (object->n == JSON_MOST_KEYS)
        return refuse(p, "an object of too many keys");
    if (!read_string(p, &p->key, &n))
        return false;
    if (json_get(object, p->key)) {
        p->at = begin;
        return refuse(p, "a key that the object has already");
    }
    skip_blanks(p);
    if (*p->at != ':')
        return refuse(p, "a colon is missing");
    p->at++;
    return true;
}

/* A new value, linked into the container on top of the stack. */
static struct json_value *add_value(struct parser *p)
{
    struct json_document *doc = p->doc;
    struct json_value *value = &doc->values[doc->n_values];
    struct open_container *top = p->depth > 0 ? &p->stack[p->depth - 1] : NULL;

    if (doc->n_values == doc->most_values) {
        refuse(p, "too many values");
        return NULL;
    }
    doc->n_values++;
    value->key = p->key;
    p->key = NULL;
    if (!top)
        return value;
    if (top->last)
        top->last->next = value;
    else
        top->value->first = value;
    top->last = value;
    top->value->n++;
    return value;
}

/* Open the container at p->at. *more: it has a first item, which is to be read. */
static bool open_container(struct parser *p, struct json_value *value, bool *more)
{
    bool object = *p->at == '{';

    value->type = object ? JSON_OBJECT : JSON_ARRAY;
    if (p->depth == JSON_MOST_DEPTH)
        return refuse(p, "nested too deeply");
    p->stack[p->depth++] = (struct open_container){value, NULL};
    p->at++;
    skip_blanks(p);
    *more = *p->at != (object ? '}' : ']');
    return !*more || !object || read_key(p);
}

/* After a value: close what ends here. *more: another item follows. */
static bool close_containers(struct parser *p, bool *more)
{
    for (*more = false; p->depth > 0; p->at++) {
        bool object = p->stack[p->depth - 1].value->type == JSON_OBJECT;

        skip_blanks(p);
        if (*p->at == ',') {
            p->at++;
            *more = true;
            return !object || read_key(p);
        }
        if (*p->at != (object ? '}' : ']'))
            return refuse(p, "a comma or a closing bracket is missing");
        p->depth--;
    }
    return true;
}

static bool parse(struct parser *p)
{
    bool more = true;

    while (more) {
        struct json_value *value;

        skip_blanks(p);
        value = add_value(p);
        if (!value)
            return false;
        if (*p->at == '{' || *p->at == '[') {
            if (!open_container(p, value, &more))
                return false;
            if (more)
                continue;
        } else if (!read_scalar(p, value)) {
            return false;
        }
        if (!close_containers(p, &more))
            return false;
    }
    skip_blanks(p);
    if (p->at != p->end)
        return refuse(p, "something follows the value");
    return true;
}

/* Every value but the root stands after a comma or an opening bracket. */
static size_t count_values(const char *text, size_t size)
{
    size_t n = 1, i;

    for (i = 0; i < size; i++)
        n += text[i] == ',' || text[i] == '[' || text[i] == '{';
    return n < JSON_MOST_VALUES ? n : JSON_MOST_VALUES;
}

/* Parse doc->text [size bytes and a zero byte], which becomes the document's or is freed. */
static bool parse_document(struct json_document *doc, size_t size)
{
    struct parser parser = {.doc = doc, .at = doc->text, .end = doc->text + size};

    doc->most_values = count_values(doc->text, size);
    doc->values = calloc(doc->most_values, sizeof *doc->values);
    if (doc->values && parse(&parser))
        return true;
    if (!doc->values)
        refuse(&parser, "no memory for the values");
    json_free(doc);
    return false;
}

bool json_read_text(struct json_document *doc, const char *text, size_t size)
{
    memset(doc, 0, sizeof *doc);
    if (size > JSON_MOST_BYTES || !(doc->text = malloc(size + 1))) {
        snprintf(doc->error, sizeof doc->error, "a text of %zu bytes is too large", size);
        return false;
    }
    memcpy(doc->text, text, size);
    doc->text[size] = '\0';
    return parse_document(doc, size);
}

bool json_read_file(struct json_document *doc, const char *path)
{
    FILE *file = fopen(path, "rb");
    size_t size = 0, room = 1 << 16, got = 1;

    memset(doc, 0, sizeof *doc);
    if (!file)
        goto failed;
    /* Grown as bytes come, so that a pipe or a lying size costs no memory. */
    while (got > 0) {
        char *text = size + 1 < room && doc->text ? doc->text : realloc(doc->text, room *= 2);

        if (!text)
            goto failed;
        doc->text = text;
        got = fread(text + size, 1, room - size - 1, file);
        size += got;
        if (size > JSON_MOST_BYTES) {
            errno = EFBIG;
            goto failed;
        }
    }
    if (ferror(file))
        goto failed;
    fclose(file);
    doc->text[size] = '\0';
    return parse_document(doc, size);
failed:
    snprintf(doc->error, sizeof doc->error, "%s", strerror(errno));
    if (file)
        fclose(file);
    json_free(doc);
    return false;
}

void json_free(struct json_document *doc)
{
    free(doc->values);
    free(doc->text);
    doc->values = NULL;
    doc->text = NULL;
    doc->n_values = 0;
}

const struct json_value *json_get(const struct json_value *object, const char *key)
{
    const struct json_value *member;

    if (!object || object->type != JSON_OBJECT)
        return NULL;
    for (member = object->first; member; member = member->next)
        if (strcmp(member->key, key) == 0)
            return member;
    return NULL;
}
