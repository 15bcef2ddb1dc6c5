/*
 * Expressions of chat templates, by recursive descent whose depth is
 * counted: each level of precedence is a function that reads the one that
 * binds tighter. In this order: choice, or, and, not, comparison, sum, ~,
 * %, sign, filters and tests, attributes and subscripts, values.
 */
#include <string.h>

#include "core/status.h"
#include "text/chat_compile.h"

static int32_t expect_sign(struct mmqi_chat_compiler *compiler, int32_t sign, const char *wanted)
{
    return mmqi_chat_at_sign(compiler, sign) ? mmqi_chat_advance(compiler)
                                             : mmqi_chat_unexpected(compiler, wanted);
}

/* One level deeper, as every function that may come back to itself says. */
static int32_t enter(struct mmqi_chat_compiler *compiler)
{
    if (compiler->depth == MMQI_CHAT_DEPTH)
        return mmqi_chat_fail(compiler->chat, MMQ_ERR_LIMIT, compiler->lexer.begin,
                              "more than %d expressions in each other", MMQI_CHAT_DEPTH);
    compiler->depth++;
    return MMQ_OK;
}

/* "a" 'b': strings side by side are one. */
static int32_t read_strings(struct mmqi_chat_compiler *compiler)
{
    struct mmqi_chat_lexer *lexer = &compiler->lexer;
    struct mmqi_buf *pool = &compiler->chat->pool;
    size_t where = lexer->begin, begin = pool->size;
    int32_t status = MMQ_OK;

    while (status == MMQ_OK && lexer->token == MMQI_CHAT_STRING) {
        mmqi_buf_append(pool, lexer->text.data, lexer->text.size);
        status = mmqi_chat_advance(compiler);
    }
    if (status == MMQ_OK && mmqi_buf_failed(pool))
        status = mmqi_fail(MMQ_ERR_NOMEM, "%s: no memory for the template", compiler->chat->name);
    if (status == MMQ_OK)
        status = mmqi_chat_emit(compiler, MMQI_CHAT_PUSH_STRING, (int32_t)begin,
                                (int32_t)(pool->size - begin), where);
    return status;
}

/* What stands in parentheses, their '(' read. */
static int32_t read_group(struct mmqi_chat_compiler *compiler)
{
    int32_t status = mmqi_chat_read_expression(compiler);

    if (status == MMQ_OK && mmqi_chat_at_sign(compiler, ','))
        return mmqi_chat_unsupported(compiler, compiler->lexer.begin, "a tuple,", ",", 1);
    return status == MMQ_OK ? expect_sign(compiler, ')', "')'") : status;
}

/* Expressions up to `close`, which is taken; their number in *n. */
static int32_t read_list(struct mmqi_chat_compiler *compiler, int32_t close, const char *wanted,
                         int32_t *n)
{
    int32_t status = MMQ_OK;

    for (*n = 0; status == MMQ_OK && !mmqi_chat_at_sign(compiler, close); ++*n) {
        if (*n > 0)
            status = expect_sign(compiler, ',', wanted);
        if (status == MMQ_OK && mmqi_chat_at_sign(compiler, close))
            break; /* a comma may close the list */
        if (status == MMQ_OK && *n == MMQI_CHAT_DEPTH)
            status = mmqi_chat_fail(compiler->chat, MMQ_ERR_LIMIT, compiler->lexer.begin,
                                    "more than %d values in a list", MMQI_CHAT_DEPTH);
        if (status == MMQ_OK)
            status = mmqi_chat_read_expression(compiler);
        if (status == MMQ_OK && mmqi_chat_at_sign(compiler, '='))
            status = mmqi_chat_unsupported(compiler, compiler->lexer.begin, "an argument by name,",
                                           "=", 1);
    }
    return status == MMQ_OK ? mmqi_chat_advance(compiler) : status;
}

/* namespace(name=value, ...), its '(' read. */
static int32_t read_namespace(struct mmqi_chat_compiler *compiler, size_t where)
{
    int32_t status = mmqi_chat_emit(compiler, MMQI_CHAT_NEW_SPACE, 0, 0, where), name = 0;
    bool first = true;

    while (status == MMQ_OK && !mmqi_chat_at_sign(compiler, ')')) {
        if (!first)
            status = expect_sign(compiler, ',', "',' or ')'");
        first = false;
        if (status == MMQ_OK)
            status = mmqi_chat_intern(compiler, &name);
        if (status == MMQ_OK)
            status = expect_sign(compiler, '=', "'='");
        if (status == MMQ_OK)
            status = mmqi_chat_read_expression(compiler);
        if (status == MMQ_OK)
            status = mmqi_chat_emit(compiler, MMQI_CHAT_SPACE_SET, name, 0, where);
    }
    return status == MMQ_OK ? mmqi_chat_advance(compiler) : status;
}

static int32_t read_call(struct mmqi_chat_compiler *compiler, size_t where, const char *name,
                         size_t size)
{
    int32_t status = mmqi_chat_advance(compiler), n = 0;

    if (status != MMQ_OK)
        return status;
    if (size == strlen("namespace") && memcmp(name, "namespace", size) == 0)
        return read_namespace(compiler, where);
    if (size != strlen("raise_exception") || memcmp(name, "raise_exception", size) != 0)
        return mmqi_chat_unsupported(compiler, where, "the function", name, size);
    status = read_list(compiler, ')', "',' or ')'", &n);
    if (status == MMQ_OK && n != 1)
        return mmqi_chat_fail(compiler->chat, MMQ_ERR_FORMAT, where,
                              "raise_exception takes one text");
    return status == MMQ_OK ? mmqi_chat_emit(compiler, MMQI_CHAT_RAISE, 0, 0, where) : status;
}

/* A constant, a variable or a call. */
static int32_t read_name(struct mmqi_chat_compiler *compiler)
{
    static const struct {
        const char *name;
        int32_t code, a;
    } constants[] = {{"true", MMQI_CHAT_PUSH_BOOL, 1},  {"false", MMQI_CHAT_PUSH_BOOL, 0},
                     {"none", MMQI_CHAT_PUSH_NONE, 0},  {"True", MMQI_CHAT_PUSH_BOOL, 1},
                     {"False", MMQI_CHAT_PUSH_BOOL, 0}, {"None", MMQI_CHAT_PUSH_NONE, 0}};
    size_t where = compiler->lexer.begin, size = compiler->lexer.end - where, i;
    const char *text = compiler->chat->source + where;
    int32_t status, number = 0;

    for (i = 0; i < sizeof constants / sizeof *constants; i++) {
        if (!mmqi_chat_at_name(compiler, constants[i].name))
            continue;
        status = mmqi_chat_emit(compiler, constants[i].code, constants[i].a, 0, where);
        return status == MMQ_OK ? mmqi_chat_advance(compiler) : status;
    }
    status = mmqi_chat_intern(compiler, &number);
    if (status == MMQ_OK && mmqi_chat_at_sign(compiler, '('))
        return read_call(compiler, where, text, size);
    return status == MMQ_OK ? mmqi_chat_emit(compiler, MMQI_CHAT_LOAD, number, 0, where) : status;
}

static int32_t read_primary(struct mmqi_chat_compiler *compiler)
{
    struct mmqi_chat_lexer *lexer = &compiler->lexer;
    size_t where = lexer->begin;
    int32_t status, n = 0;

    if (lexer->token == MMQI_CHAT_NAME)
        return read_name(compiler);
    if (lexer->token == MMQI_CHAT_STRING)
        return read_strings(compiler);
    if (lexer->token == MMQI_CHAT_INTEGER) {
        status = mmqi_chat_emit(compiler, MMQI_CHAT_PUSH_INTEGER, lexer->integer, 0, where);
        return status == MMQ_OK ? mmqi_chat_advance(compiler) : status;
    }
    if (mmqi_chat_at_sign(compiler, '(')) {
        status = mmqi_chat_advance(compiler);
        return status == MMQ_OK ? read_group(compiler) : status;
    }
    if (mmqi_chat_at_sign(compiler, '[')) {
        status = mmqi_chat_advance(compiler);
        if (status == MMQ_OK)
            status = read_list(compiler, ']', "',' or ']'", &n);
        return status == MMQ_OK ? mmqi_chat_emit(compiler, MMQI_CHAT_PUSH_LIST, n, 0, where)
                                : status;
    }
    if (mmqi_chat_at_sign(compiler, '{'))
        return mmqi_chat_unsupported(compiler, where, "a dict,", "{", 1);
    return mmqi_chat_unexpected(compiler, "a value");
}

/* .name, or .method(arguments), the '.' read. */
static int32_t read_attribute(struct mmqi_chat_compiler *compiler, size_t where)
{
    size_t begin = compiler->lexer.begin, size = compiler->lexer.end - begin;
    char method[48] = ".";
    int32_t status, name = 0, number, n = 0;

    status = mmqi_chat_intern(compiler, &name);
    if (status != MMQ_OK || !mmqi_chat_at_sign(compiler, '('))
        return status == MMQ_OK ? mmqi_chat_emit(compiler, MMQI_CHAT_ATTRIBUTE, name, 0, where)
                                : status;
    status = mmqi_chat_advance(compiler);
    if (status == MMQ_OK)
        status = read_list(compiler, ')', "',' or ')'", &n);
    if (status != MMQ_OK)
        return status;
    if (size < sizeof method - 1)
        memcpy(method + 1, compiler->chat->source + begin, size);
    number = size < sizeof method - 1 ? mmqi_chat_find_filter(method, size + 1, n) : -1;
    if (number < 0)
        return mmqi_chat_unsupported(compiler, begin, "with these arguments the method",
                                     compiler->chat->source + begin, size);
    return mmqi_chat_emit(compiler, MMQI_CHAT_FILTER, number, n, where);
}

/* The end of a slice, or its absence. */
static int32_t read_bound(struct mmqi_chat_compiler *compiler)
{
    if (mmqi_chat_at_sign(compiler, ':') || mmqi_chat_at_sign(compiler, ']'))
        return mmqi_chat_emit(compiler, MMQI_CHAT_PUSH_UNDEFINED, 0, 0, compiler->lexer.begin);
    return mmqi_chat_read_expression(compiler);
}

/* [key], [from:to], the '[' read. */
static int32_t read_subscript(struct mmqi_chat_compiler *compiler, size_t where)
{
    int32_t status = read_bound(compiler), code = MMQI_CHAT_ITEM;

    if (status == MMQ_OK && mmqi_chat_at_sign(compiler, ':')) {
        code = MMQI_CHAT_SLICE;
        status = mmqi_chat_advance(compiler);
        if (status == MMQ_OK)
            status = read_bound(compiler);
        if (status == MMQ_OK && mmqi_chat_at_sign(compiler, ':'))
            return mmqi_chat_unsupported(compiler, compiler->lexer.begin, "a slice with a step,",
                                         ":", 1);
    } else if (status == MMQ_OK &&
               compiler->chat->ops[compiler->chat->n_ops - 1].code == MMQI_CHAT_PUSH_UNDEFINED) {
        return mmqi_chat_unexpected(compiler, "a value"); /* [] */
    }
    if (status == MMQ_OK)
        status = expect_sign(compiler, ']', "']'");
    return status == MMQ_OK ? mmqi_chat_emit(compiler, code, 0, 0, where) : status;
}

static int32_t read_postfix(struct mmqi_chat_compiler *compiler)
{
    int32_t status = read_primary(compiler), sign;
    size_t where;

    while (status == MMQ_OK &&
           (mmqi_chat_at_sign(compiler, '.') || mmqi_chat_at_sign(compiler, '['))) {
        where = compiler->lexer.begin;
        sign = compiler->lexer.sign;
        status = mmqi_chat_advance(compiler);
        if (status == MMQ_OK)
            status =
                sign == '.' ? read_attribute(compiler, where) : read_subscript(compiler, where);
    }
    if (status == MMQ_OK && mmqi_chat_at_sign(compiler, '('))
        status = mmqi_chat_unsupported(compiler, compiler->lexer.begin,
                                       "a call of what is no name,", "(", 1);
    return status;
}

/* |filter(arguments), the '|' read. */
static int32_t read_filter(struct mmqi_chat_compiler *compiler, size_t where)
{
    size_t begin = compiler->lexer.begin, size = compiler->lexer.end - begin;
    int32_t status, number, n = 0;

    if (compiler->lexer.token != MMQI_CHAT_NAME)
        return mmqi_chat_unexpected(compiler, "the name of a filter");
    status = mmqi_chat_advance(compiler);
    if (status == MMQ_OK && mmqi_chat_at_sign(compiler, '(')) {
        status = mmqi_chat_advance(compiler);
        if (status == MMQ_OK)
            status = read_list(compiler, ')', "',' or ')'", &n);
    }
    if (status != MMQ_OK)
        return status;
    number = mmqi_chat_find_filter(compiler->chat->source + begin, size, n);
    if (number < 0)
        return mmqi_chat_unsupported(compiler, begin, "with these arguments the filter",
                                     compiler->chat->source + begin, size);
    return mmqi_chat_emit(compiler, MMQI_CHAT_FILTER, number, n, where);
}

/* is [not] test, the "is" read. */
static int32_t read_test(struct mmqi_chat_compiler *compiler, size_t where)
{
    bool negated = mmqi_chat_at_name(compiler, "not");
    int32_t status = negated ? mmqi_chat_advance(compiler) : MMQ_OK, number;
    size_t begin = compiler->lexer.begin, size = compiler->lexer.end - begin;

    if (status != MMQ_OK)
        return status;
    if (compiler->lexer.token != MMQI_CHAT_NAME)
        return mmqi_chat_unexpected(compiler, "the name of a test");
    number = mmqi_chat_find_test(compiler->chat->source + begin, size);
    if (number < 0)
        return mmqi_chat_unsupported(compiler, begin, "the test", compiler->chat->source + begin,
                                     size);
    status = mmqi_chat_advance(compiler);
    return status == MMQ_OK ? mmqi_chat_emit(compiler, MMQI_CHAT_TEST, number, negated, where)
                            : status;
}

/* A value with its signs; the signs bind tighter than filters and tests. */
static int32_t read_signed(struct mmqi_chat_compiler *compiler)
{
    size_t where = compiler->lexer.begin, n = 0;
    int32_t status = MMQ_OK;

    for (; status == MMQ_OK && mmqi_chat_at_sign(compiler, '-'); n++)
        status = mmqi_chat_advance(compiler);
    if (status == MMQ_OK)
        status = read_postfix(compiler);
    for (; status == MMQ_OK && n > 0; n--)
        status = mmqi_chat_emit(compiler, MMQI_CHAT_NEGATE, 0, 0, where);
    return status;
}

static int32_t read_filtered(struct mmqi_chat_compiler *compiler)
{
    int32_t status = read_signed(compiler);
    size_t where;
    bool filter;

    while (status == MMQ_OK &&
           (mmqi_chat_at_sign(compiler, '|') || mmqi_chat_at_name(compiler, "is"))) {
        where = compiler->lexer.begin;
        filter = mmqi_chat_at_sign(compiler, '|');
        status = mmqi_chat_advance(compiler);
        if (status == MMQ_OK)
            status = filter ? read_filter(compiler, where) : read_test(compiler, where);
        if (status == MMQ_OK && !filter && mmqi_chat_at_name(compiler, "is"))
            return mmqi_chat_unexpected(compiler, "anything but a second test");
    }
    return status;
}

/* Operators of one level, which go from left to right. */
struct level {
    struct {
        int32_t sign, operation;
    } operators[3];
    size_t n;
    int32_t (*next)(struct mmqi_chat_compiler *compiler); /* what binds tighter */
};

static int32_t read_level(struct mmqi_chat_compiler *compiler, const struct level *level)
{
    int32_t status = level->next(compiler);
    size_t i, where;

    while (status == MMQ_OK) {
        for (i = 0; i < level->n && !mmqi_chat_at_sign(compiler, level->operators[i].sign); i++)
            ;
        if (i == level->n)
            break;
        where = compiler->lexer.begin;
        status = mmqi_chat_advance(compiler);
        if (status == MMQ_OK)
            status = level->next(compiler);
        if (status == MMQ_OK)
            status =
                mmqi_chat_emit(compiler, MMQI_CHAT_BINARY, level->operators[i].operation, 0, where);
    }
    return status;
}

static int32_t read_product(struct mmqi_chat_compiler *compiler)
{
    static const struct level level = {{{'%', MMQI_CHAT_MODULO}}, 1, read_filtered};
    int32_t status = read_level(compiler, &level);

    if (status == MMQ_OK && (mmqi_chat_at_sign(compiler, '*') || mmqi_chat_at_sign(compiler, '/') ||
                             mmqi_chat_at_sign(compiler, MMQI_CHAT_SIGN2('/', '/')) ||
                             mmqi_chat_at_sign(compiler, MMQI_CHAT_SIGN2('*', '*'))))
        status = mmqi_chat_unsupported(compiler, compiler->lexer.begin, "the operator",
                                       compiler->chat->source + compiler->lexer.begin,
                                       compiler->lexer.end - compiler->lexer.begin);
    return status;
}

static int32_t read_concatenation(struct mmqi_chat_compiler *compiler)
{
    static const struct level level = {{{'~', MMQI_CHAT_CONCATENATE}}, 1, read_product};

    return read_level(compiler, &level);
}

static int32_t read_sum(struct mmqi_chat_compiler *compiler)
{
    static const struct level level = {
        {{'+', MMQI_CHAT_ADD}, {'-', MMQI_CHAT_SUBTRACT}}, 2, read_concatenation};

    return read_level(compiler, &level);
}

/* The comparison in hand, -1 for none; "not in" is taken up to its "in". */
static int32_t find_comparison(struct mmqi_chat_compiler *compiler, int32_t *operation)
{
    static const struct {
        int32_t sign, operation;
    } signs[] = {{MMQI_CHAT_SIGN2('=', '='), MMQI_CHAT_EQUAL},
                 {MMQI_CHAT_SIGN2('!', '='), MMQI_CHAT_NOT_EQUAL},
                 {MMQI_CHAT_SIGN2('<', '='), MMQI_CHAT_AT_MOST},
                 {MMQI_CHAT_SIGN2('>', '='), MMQI_CHAT_AT_LEAST},
                 {'<', MMQI_CHAT_LESS},
                 {'>', MMQI_CHAT_GREATER}};
    int32_t status = MMQ_OK;
    size_t i;

    *operation = -1;
    for (i = 0; i < sizeof signs / sizeof *signs; i++)
        if (mmqi_chat_at_sign(compiler, signs[i].sign))
            *operation = signs[i].operation;
    if (mmqi_chat_at_name(compiler, "in"))
        *operation = MMQI_CHAT_IN;
    if (mmqi_chat_at_name(compiler, "not")) {
        *operation = MMQI_CHAT_NOT_IN;
        status = mmqi_chat_advance(compiler);
        if (status == MMQ_OK && !mmqi_chat_at_name(compiler, "in"))
            status = mmqi_chat_unexpected(compiler, "'in'");
    }
    return status;
}

static int32_t read_comparison(struct mmqi_chat_compiler *compiler)
{
    int32_t status = read_sum(compiler), operation, another;
    size_t where = compiler->lexer.begin;

    if (status == MMQ_OK)
        status = find_comparison(compiler, &operation);
    if (status != MMQ_OK || operation < 0)
        return status;
    status = mmqi_chat_advance(compiler);
    if (status == MMQ_OK)
        status = read_sum(compiler);
    if (status == MMQ_OK)
        status = mmqi_chat_emit(compiler, MMQI_CHAT_BINARY, operation, 0, where);
    where = compiler->lexer.begin;
    if (status == MMQ_OK)
        status = find_comparison(compiler, &another);
    if (status == MMQ_OK && another >= 0)
        status = mmqi_chat_unsupported(compiler, where, "a second comparison in a row,",
                                       compiler->chat->source + where, compiler->lexer.end - where);
    return status;
}

static int32_t read_not(struct mmqi_chat_compiler *compiler)
{
    size_t where = compiler->lexer.begin;
    int32_t status;

    if (!mmqi_chat_at_name(compiler, "not"))
        return read_comparison(compiler);
    status = enter(compiler);
    if (status == MMQ_OK)
        status = mmqi_chat_advance(compiler);
    if (status == MMQ_OK)
        status = read_not(compiler);
    compiler->depth--;
    return status == MMQ_OK ? mmqi_chat_emit(compiler, MMQI_CHAT_NOT, 0, 0, where) : status;
}

/* Operands joined by `word`: each but the last may decide, and then jumps behind the last. */
static int32_t read_chain(struct mmqi_chat_compiler *compiler, const char *word, int32_t code,
                          int32_t (*next)(struct mmqi_chat_compiler *compiler))
{
    int32_t status = next(compiler), chain = -1, op, after;

    while (status == MMQ_OK && mmqi_chat_at_name(compiler, word)) {
        op = mmqi_chat_here(compiler);
        status = mmqi_chat_emit(compiler, code, chain, 0, compiler->lexer.begin);
        chain = op;
        if (status == MMQ_OK)
            status = mmqi_chat_advance(compiler);
        if (status == MMQ_OK)
            status = next(compiler);
    }
    for (; status == MMQ_OK && chain >= 0; chain = after) {
        after = compiler->chat->ops[chain].a;
        compiler->chat->ops[chain].a = mmqi_chat_here(compiler);
    }
    return status;
}

static int32_t read_and(struct mmqi_chat_compiler *compiler)
{
    return read_chain(compiler, "and", MMQI_CHAT_AND, read_not);
}

int32_t mmqi_chat_read_condition(struct mmqi_chat_compiler *compiler)
{
    return read_chain(compiler, "or", MMQI_CHAT_OR, read_and);
}

/*
 * VALUE if CONDITION else OTHER, the VALUE behind the instruction `start`,
 * which becomes a jump to the condition; the condition jumps back.
 */
static int32_t read_choice(struct mmqi_chat_compiler *compiler, int32_t start)
{
    struct mmqi_chat *chat = compiler->chat;
    size_t where = compiler->lexer.begin;
    int32_t end = mmqi_chat_here(compiler),
            status = mmqi_chat_emit(compiler, MMQI_CHAT_JUMP, 0, 0, where), test;

    chat->ops[start].code = MMQI_CHAT_JUMP;
    chat->ops[start].a = mmqi_chat_here(compiler);
    if (status == MMQ_OK)
        status = mmqi_chat_advance(compiler);
    if (status == MMQ_OK)
        status = mmqi_chat_read_condition(compiler);
    test = mmqi_chat_here(compiler);
    if (status == MMQ_OK)
        status = mmqi_chat_emit(compiler, MMQI_CHAT_JUMP_FALSE, test + 2, 0, where);
    if (status == MMQ_OK)
        status = mmqi_chat_emit(compiler, MMQI_CHAT_JUMP, start + 1, 0, where);
    if (status == MMQ_OK && mmqi_chat_at_name(compiler, "else")) {
        status = mmqi_chat_advance(compiler);
        if (status == MMQ_OK)
            status = mmqi_chat_read_expression(compiler);
    } else if (status == MMQ_OK) {
        status = mmqi_chat_emit(compiler, MMQI_CHAT_PUSH_UNDEFINED, 0, 0, where);
    }
    if (status == MMQ_OK)
        chat->ops[end].a = mmqi_chat_here(compiler);
    return status;
}

int32_t mmqi_chat_read_expression(struct mmqi_chat_compiler *compiler)
{
    int32_t start = mmqi_chat_here(compiler), status = enter(compiler);

    if (status != MMQ_OK)
        return status;
    status = mmqi_chat_emit(compiler, MMQI_CHAT_NOTHING, 0, 0, compiler->lexer.begin);
    if (status == MMQ_OK)
        status = mmqi_chat_read_condition(compiler);
    if (status == MMQ_OK && mmqi_chat_at_name(compiler, "if"))
        status = read_choice(compiler, start);
    compiler->depth--;
    return status;
}
