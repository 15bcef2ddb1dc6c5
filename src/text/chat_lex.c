/*
 * The text between tags, trimmed as Jinja does it with trim_blocks and
 * lstrip_blocks on, and the tokens inside tags.
 */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "core/status.h"
#include "text/chat_parts.h"
#include "text/utf8.h"

int32_t mmqi_chat_fail(const struct mmqi_chat *chat, int32_t status, size_t where,
                       const char *format, ...)
{
    size_t line = 1, column = 1, i;
    char text[320];
    va_list args;

    for (i = 0; i < where && i < chat->size; i++) {
        column++;
        if (chat->source[i] == '\n') {
            line++;
            column = 1;
        }
    }
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    return mmqi_fail(status, "%s: line %zu, column %zu: %s", chat->name, line, column, text);
}

static bool is_blank(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static bool looking_at(const struct mmqi_chat_lexer *lexer, const char *text)
{
    size_t size = strlen(text);

    return lexer->chat->size - lexer->at >= size &&
           memcmp(lexer->chat->source + lexer->at, text, size) == 0;
}

static void skip_blanks(struct mmqi_chat_lexer *lexer)
{
    while (lexer->at < lexer->chat->size && is_blank(lexer->chat->source[lexer->at]))
        lexer->at++;
}

/* Where the next {{, {% or {# stands, or the end. */
static size_t find_tag(const struct mmqi_chat_lexer *lexer)
{
    const char *source = lexer->chat->source;
    size_t at;

    for (at = lexer->at; at + 1 < lexer->chat->size; at++)
        if (source[at] == '{' &&
            (source[at + 1] == '{' || source[at + 1] == '%' || source[at + 1] == '#'))
            return at;
    return lexer->chat->size;
}

/* The end of the text [begin, end) before a tag of this kind and sign ('-', '+' or another). */
static size_t trim_text(const struct mmqi_chat_lexer *lexer, size_t begin, size_t end, char kind,
                        char sign)
{
    const char *source = lexer->chat->source;
    size_t at = end;

    while (at > begin && is_blank(source[at - 1]) && (sign == '-' || source[at - 1] != '\n'))
        at--;
    if (sign == '-')
        return at;
    if (sign == '+' || kind == '{')
        return end;
    /* Blanks go if nothing else is before the tag on its line. */
    return at > begin ? (source[at - 1] == '\n' ? at : end) : (lexer->line_starting ? at : end);
}

/* The tag has ended: what its sign or trim_blocks takes along. */
static void trim_after(struct mmqi_chat_lexer *lexer, char sign, char kind)
{
    size_t begin = lexer->at;

    if (sign == '-')
        skip_blanks(lexer);
    else if (sign != '+' && kind != '{' && looking_at(lexer, "\n"))
        lexer->at++;
    lexer->line_starting = lexer->at > begin && lexer->chat->source[lexer->at - 1] == '\n';
}

/* Pass over a comment, its start read. */
static int32_t skip_comment(struct mmqi_chat_lexer *lexer, size_t begin)
{
    const struct mmqi_chat *chat = lexer->chat;
    const char *end = memmem(chat->source + lexer->at, chat->size - lexer->at, "#}", 2);
    char sign;

    if (!end)
        return mmqi_chat_fail(chat, MMQ_ERR_FORMAT, begin, "a comment without its end");
    sign = end > chat->source + lexer->at ? end[-1] : ' ';
    lexer->at = (size_t)(end - chat->source) + 2;
    trim_after(lexer, sign, '#');
    return MMQ_OK;
}

int32_t mmqi_chat_next_tag(struct mmqi_chat_lexer *lexer, size_t *begin, size_t *size, bool *tag)
{
    const struct mmqi_chat *chat = lexer->chat;
    size_t at = find_tag(lexer), end;
    char kind, sign;

    *begin = lexer->at;
    *size = at - lexer->at;
    *tag = at < chat->size;
    lexer->at = at;
    if (!*tag)
        return MMQ_OK;
    kind = chat->source[at + 1];
    lexer->at += 2;
    sign = lexer->at < chat->size ? chat->source[lexer->at] : ' ';
    if (sign == '-' || sign == '+')
        lexer->at++;
    end = trim_text(lexer, *begin, at, kind, sign);
    *size = end - *begin;
    lexer->line_starting = false;
    if (kind == '#') {
        *tag = false;
        return skip_comment(lexer, at);
    }
    lexer->block = kind == '%';
    return mmqi_chat_next_token(lexer);
}

bool mmqi_chat_is_name(const struct mmqi_chat_lexer *lexer, const char *name)
{
    size_t size = strlen(name);

    return lexer->token == MMQI_CHAT_NAME && lexer->end - lexer->begin == size &&
           memcmp(lexer->chat->source + lexer->begin, name, size) == 0;
}

/* ---- tokens ---- */

static bool is_name_start(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* True when the tag ends here, with or without a sign before its two bytes. */
static bool read_tag_end(struct mmqi_chat_lexer *lexer)
{
    const char *end = lexer->block ? "%}" : "}}";
    char sign = lexer->chat->source[lexer->at];

    if (!looking_at(lexer, end)) {
        if (sign != '-' && (sign != '+' || !lexer->block))
            return false;
        lexer->at++;
        if (!looking_at(lexer, end)) {
            lexer->at--;
            return false;
        }
    } else {
        sign = ' ';
    }
    lexer->at += 2;
    lexer->token = MMQI_CHAT_TAG_END;
    trim_after(lexer, sign, lexer->block ? '%' : '{');
    return true;
}

static int32_t hex_digit(char c)
{
    if (is_digit(c))
        return c - '0';
    c = (char)(c | 0x20);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* A character given by its number: n hexadecimal digits from `at`. */
static int32_t read_hex_escape(struct mmqi_chat_lexer *lexer, size_t n)
{
    const char *source = lexer->chat->source;
    size_t i, begin = lexer->at;
    int32_t code = 0, digit;
    char spelled[4];

    for (i = 0; i < n; i++, lexer->at++) {
        digit = lexer->at < lexer->chat->size ? hex_digit(source[lexer->at]) : -1;
        if (digit < 0 || code > 0xFFFFFF)
            return mmqi_chat_fail(lexer->chat, MMQ_ERR_FORMAT, begin, "a broken escape");
        code = code << 4 | digit;
    }
    if (code > 0x10FFFF || (code >= 0xD800 && code <= 0xDFFF))
        return mmqi_chat_fail(lexer->chat, MMQ_ERR_FORMAT, begin, "an escape that is no character");
    mmqi_buf_append(&lexer->text, spelled, mmqi_utf8_encode(spelled, code));
    return MMQ_OK;
}

static void read_octal_escape(struct mmqi_chat_lexer *lexer)
{
    const char *source = lexer->chat->source;
    int32_t code = 0, n;
    char spelled[4];

    for (n = 0; n < 3 && lexer->at < lexer->chat->size && source[lexer->at] >= '0' &&
                source[lexer->at] <= '7';
         n++)
        code = code * 8 + source[lexer->at++] - '0';
    mmqi_buf_append(&lexer->text, spelled, mmqi_utf8_encode(spelled, code));
}

/* What follows a backslash, as Python reads it; an unknown escape stays as it is. */
static int32_t read_escape(struct mmqi_chat_lexer *lexer)
{
    static const char letters[] = "\\'\"abfnrtv", bytes[] = "\\'\"\a\b\f\n\r\t\v";
    char letter = lexer->chat->source[lexer->at];
    const char *known = letter ? strchr(letters, letter) : NULL;

    if (letter >= '0' && letter <= '7') {
        read_octal_escape(lexer);
        return MMQ_OK;
    }
    lexer->at++;
    if (letter == 'x')
        return read_hex_escape(lexer, 2);
    if (letter == 'u')
        return read_hex_escape(lexer, 4);
    if (letter == 'U')
        return read_hex_escape(lexer, 8);
    if (letter == 'N')
        return mmqi_chat_fail(lexer->chat, MMQ_ERR_UNSUPPORTED, lexer->at - 1,
                              "a character by name is not supported");
    if (known) {
        mmqi_buf_append(&lexer->text, &bytes[known - letters], 1);
    } else if (letter != '\n') {
        mmqi_buf_append(&lexer->text, "\\", 1);
        mmqi_buf_append(&lexer->text, &letter, 1);
    }
    return MMQ_OK;
}

static int32_t read_string(struct mmqi_chat_lexer *lexer)
{
    const struct mmqi_chat *chat = lexer->chat;
    char quote = chat->source[lexer->at++];
    int32_t status = MMQ_OK;

    lexer->token = MMQI_CHAT_STRING;
    mmqi_buf_clear(&lexer->text);
    while (status == MMQ_OK && lexer->at < chat->size && chat->source[lexer->at] != quote) {
        if (chat->source[lexer->at] != '\\' || lexer->at + 1 == chat->size) {
            mmqi_buf_append(&lexer->text, &chat->source[lexer->at++], 1);
            continue;
        }
        lexer->at++;
        status = read_escape(lexer);
    }
    if (status == MMQ_OK && lexer->at >= chat->size)
        return mmqi_chat_fail(chat, MMQ_ERR_FORMAT, lexer->begin, "a string without its end");
    lexer->at++;
    if (status == MMQ_OK && mmqi_buf_failed(&lexer->text))
        status = mmqi_fail(MMQ_ERR_NOMEM, "%s: no memory for a string", chat->name);
    return status;
}

static int32_t read_integer(struct mmqi_chat_lexer *lexer)
{
    const struct mmqi_chat *chat = lexer->chat;
    int64_t value = 0;

    lexer->token = MMQI_CHAT_INTEGER;
    while (lexer->at < chat->size && is_digit(chat->source[lexer->at])) {
        value = value * 10 + chat->source[lexer->at++] - '0';
        if (value > INT32_MAX)
            return mmqi_chat_fail(chat, MMQ_ERR_UNSUPPORTED, lexer->begin,
                                  "a number above 2^31 is not supported");
    }
    if (lexer->at < chat->size &&
        (chat->source[lexer->at] == '.' || is_name_start(chat->source[lexer->at])))
        return mmqi_chat_fail(chat, MMQ_ERR_UNSUPPORTED, lexer->begin,
                              "a number that is not a plain integer is not supported");
    lexer->integer = (int32_t)value;
    return MMQ_OK;
}

static int32_t read_sign(struct mmqi_chat_lexer *lexer)
{
    static const char pairs[][3] = {"==", "!=", "<=", ">=", "//", "**"};
    const char *source = lexer->chat->source;
    unsigned char sign = (unsigned char)source[lexer->at];
    size_t i;

    if (sign <= ' ' || sign > '~')
        return mmqi_chat_fail(lexer->chat, MMQ_ERR_FORMAT, lexer->begin,
                              "byte 0x%02x is not expected in a tag", sign);
    lexer->token = MMQI_CHAT_SIGN;
    lexer->sign = sign;
    for (i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        if (!looking_at(lexer, pairs[i]))
            continue;
        lexer->sign = MMQI_CHAT_SIGN2(pairs[i][0], pairs[i][1]);
        lexer->at++;
        break;
    }
    lexer->at++;
    return MMQ_OK;
}

int32_t mmqi_chat_next_token(struct mmqi_chat_lexer *lexer)
{
    const struct mmqi_chat *chat = lexer->chat;
    int32_t status = MMQ_OK;
    char c;

    skip_blanks(lexer);
    lexer->begin = lexer->at;
    if (lexer->at == chat->size)
        return mmqi_chat_fail(chat, MMQ_ERR_FORMAT, lexer->at, "a tag without its end");
    c = chat->source[lexer->at];
    if (read_tag_end(lexer))
        return MMQ_OK;
    if (is_name_start(c)) {
        lexer->token = MMQI_CHAT_NAME;
        while (lexer->at < chat->size &&
               (is_name_start(chat->source[lexer->at]) || is_digit(chat->source[lexer->at])))
            lexer->at++;
    } else if (is_digit(c)) {
        status = read_integer(lexer);
    } else if (c == '\'' || c == '"') {
        status = read_string(lexer);
    } else {
        status = read_sign(lexer);
    }
    lexer->end = lexer->at;
    return status;
}
