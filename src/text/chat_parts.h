/*
 * A compiled chat template: one flat program for a machine with a stack of
 * values. chat_lex.c reads tags, chat_compile.c writes the program,
 * chat_run.c runs it, chat_value.c knows what values can do.
 */
#ifndef MMQI_TEXT_CHAT_PARTS_H
#define MMQI_TEXT_CHAT_PARTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/buf.h"
#include "text/chat.h"

enum {
    MMQI_CHAT_SOURCE_BYTES = 256 << 10,
    MMQI_CHAT_DEPTH = 32, /* blocks in each other, and expressions in each other */
    MMQI_CHAT_NAMES = 256,
    MMQI_CHAT_SPACE = 16,          /* names in one namespace */
    MMQI_CHAT_STEPS = 1000000,     /* instructions, and 64 bytes of text each */
    MMQI_CHAT_OUT_BYTES = 16 << 20 /* also of one string */
};

/* What the machine does; `a` and `b` are the operands, "top" the value on top of the stack. */
enum mmqi_chat_code {
    MMQI_CHAT_TEXT,        /* put out b bytes of the pool from a */
    MMQI_CHAT_PRINT,       /* put out the top and drop it */
    MMQI_CHAT_PUSH_STRING, /* b bytes of the pool from a */
    MMQI_CHAT_PUSH_INTEGER,
    MMQI_CHAT_PUSH_BOOL,
    MMQI_CHAT_PUSH_NONE,
    MMQI_CHAT_PUSH_UNDEFINED,
    MMQI_CHAT_PUSH_LIST, /* of the a values on top */
    MMQI_CHAT_LOAD,      /* the variable a */
    MMQI_CHAT_STORE,
    MMQI_CHAT_ATTRIBUTE, /* of the top, by the name a */
    MMQI_CHAT_ITEM,      /* of the value below the top, by the top */
    MMQI_CHAT_SLICE,     /* of the value below the two on top, from and to; undefined: open */
    MMQI_CHAT_FILTER,    /* number a, with b arguments above the value */
    MMQI_CHAT_TEST,      /* number a; b: negated */
    MMQI_CHAT_BINARY,    /* operation a on the two values on top */
    MMQI_CHAT_NOT,
    MMQI_CHAT_NEGATE,
    MMQI_CHAT_NOTHING,
    MMQI_CHAT_JUMP,       /* to a */
    MMQI_CHAT_JUMP_FALSE, /* to a if the top is false; drops it */
    MMQI_CHAT_AND,        /* to a if the top is false, else drop it */
    MMQI_CHAT_OR,         /* to a if the top is true, else drop it */
    MMQI_CHAT_SIFT,       /* take the list on top; the next two run for each of its items */
    MMQI_CHAT_SIFT_NEXT,  /* bind b to the next item; at the end push the kept ones, go to a */
    MMQI_CHAT_SIFT_KEEP,  /* keep the item if the top is true; go to a */
    MMQI_CHAT_FOR,        /* take the list on top, bind b to its first item; empty: go to a */
    MMQI_CHAT_FOR_NEXT,   /* bind b to the next item and go to a; at the end go on */
    MMQI_CHAT_RAISE,      /* fail with the text on top */
    MMQI_CHAT_NEW_SPACE,  /* push an empty namespace */
    MMQI_CHAT_SPACE_SET /* in the namespace below the top, name a is the top, which goes; b: so does
                             the namespace */
};

enum mmqi_chat_operator {
    MMQI_CHAT_ADD,
    MMQI_CHAT_SUBTRACT,
    MMQI_CHAT_MODULO,
    MMQI_CHAT_CONCATENATE,
    MMQI_CHAT_EQUAL,
    MMQI_CHAT_NOT_EQUAL,
    MMQI_CHAT_LESS,
    MMQI_CHAT_GREATER,
    MMQI_CHAT_AT_MOST,
    MMQI_CHAT_AT_LEAST,
    MMQI_CHAT_IN,
    MMQI_CHAT_NOT_IN
};

struct mmqi_chat_op {
    int32_t code, a, b;
    uint32_t where; /* in the source, for messages */
};

struct mmqi_chat {
    char *name;
    char *source; /* every kind of line end made a line feed, one at the very end dropped */
    size_t size;
    struct mmqi_buf pool; /* texts and names */
    struct mmqi_chat_op *ops;
    size_t n_ops, capacity;
    struct mmqi_chat_name {
        uint32_t begin, size; /* in the pool */
    } names[MMQI_CHAT_NAMES];
    size_t n_names;
};

/* mmqi_fail() that names the template and the place. */
int32_t mmqi_chat_fail(const struct mmqi_chat *chat, int32_t status, size_t where,
                       const char *format, ...) __attribute__((format(printf, 4, 5), cold));

/* ---- reading: chat_lex.c ---- */

enum mmqi_chat_token {
    MMQI_CHAT_NAME,
    MMQI_CHAT_STRING, /* its text, escapes resolved, is in `text` */
    MMQI_CHAT_INTEGER,
    MMQI_CHAT_SIGN, /* `sign` is its first byte, and its second << 8 where it has two */
    MMQI_CHAT_TAG_END
};

struct mmqi_chat_lexer {
    struct mmqi_chat *chat;
    size_t at;
    bool block;         /* the tag in hand is {% %}, else {{ }} */
    bool line_starting; /* the tag before took the line feed after it along */
    enum mmqi_chat_token token;
    size_t begin, end; /* of the token, in the source */
    int32_t integer, sign;
    struct mmqi_buf text;
};

#define MMQI_CHAT_SIGN2(a, b) ((a) | (b) << 8)

/*
 * Go to the next tag and read its first token. *begin, *size: the text
 * before it, in the source, trimmed as the tag asks. False in *tag at the end.
 */
int32_t mmqi_chat_next_tag(struct mmqi_chat_lexer *lexer, size_t *begin, size_t *size, bool *tag);
int32_t mmqi_chat_next_token(struct mmqi_chat_lexer *lexer);
bool mmqi_chat_is_name(const struct mmqi_chat_lexer *lexer, const char *name);

/* ---- values: chat_value.c ---- */

enum mmqi_chat_kind {
    MMQI_VALUE_UNDEFINED,
    MMQI_VALUE_NONE,
    MMQI_VALUE_BOOL,
    MMQI_VALUE_INTEGER,
    MMQI_VALUE_STRING,
    MMQI_VALUE_LIST,
    MMQI_VALUE_MESSAGE,
    MMQI_VALUE_PART,
    MMQI_VALUE_LOOP,
    MMQI_VALUE_SPACE
};

struct mmqi_chat_value {
    enum mmqi_chat_kind kind;
    union {
        int64_t integer; /* of a bool 0 or 1 */
        const char *text;
        const struct mmqi_chat_value *items;
        const struct mmqi_chat_view *message;
        const struct mmqi_chat_part *part;
        const struct mmqi_chat_loop *loop;
        struct mmqi_chat_space *space;
    };
    size_t size; /* bytes of a string, items of a list */
    bool lazy;   /* what Jinja makes item by item: true though empty, without a length */
};

/* A message and its parts as values. */
struct mmqi_chat_view {
    const struct mmqi_chat_message *message;
    struct mmqi_chat_value parts;
};

/* namespace(): the one value that changes; every copy of it is the same one. */
struct mmqi_chat_space {
    struct mmqi_chat_value names[MMQI_CHAT_SPACE], values[MMQI_CHAT_SPACE];
    size_t n;
};

struct mmqi_chat_loop {
    const struct mmqi_chat_value *items;
    size_t n, index;
    size_t n_bound;               /* variables that were bound outside */
    struct mmqi_chat_value *kept; /* of a sift */
    size_t n_kept;
};

struct mmqi_chat_block; /* memory of one rendering */

/* What one rendering may use up. */
struct mmqi_chat_budget {
    const struct mmqi_chat *chat;
    uint32_t where; /* of the instruction in hand */
    size_t steps;
    size_t scratch_bytes;
    struct mmqi_chat_block *blocks;
};

/* Charge for work on `bytes` of text; MMQ_ERR_LIMIT once too much was done. */
int32_t mmqi_chat_charge(struct mmqi_chat_budget *budget, size_t bytes);
/* Memory that lasts until mmqi_chat_release(). */
int32_t mmqi_chat_take(struct mmqi_chat_budget *budget, void **out, size_t size);
/* Put `more` right behind a text that was taken last; false where there is no room. */
bool mmqi_chat_extend(struct mmqi_chat_budget *budget, const char *text, size_t size,
                      const char *more, size_t more_size);
void mmqi_chat_release(struct mmqi_chat_budget *budget);

bool mmqi_chat_true(const struct mmqi_chat_value *value);
struct mmqi_chat_value mmqi_chat_string(const char *text, size_t size);
/* As Python's str(); *out may be `value` itself. */
int32_t mmqi_chat_to_string(struct mmqi_chat_budget *budget, struct mmqi_chat_value *out,
                            const struct mmqi_chat_value *value);
int32_t mmqi_chat_attribute(struct mmqi_chat_budget *budget, struct mmqi_chat_value *value,
                            const char *name, size_t size);
int32_t mmqi_chat_new_space(struct mmqi_chat_budget *budget, struct mmqi_chat_value *out);
/* MMQ_ERR_INVALID where `space` is no namespace. */
int32_t mmqi_chat_space_set(struct mmqi_chat_budget *budget, const struct mmqi_chat_value *space,
                            const struct mmqi_chat_value *name,
                            const struct mmqi_chat_value *value);
int32_t mmqi_chat_item(struct mmqi_chat_budget *budget, struct mmqi_chat_value *value,
                       const struct mmqi_chat_value *key);
int32_t mmqi_chat_slice(struct mmqi_chat_budget *budget, struct mmqi_chat_value *value,
                        const struct mmqi_chat_value *from, const struct mmqi_chat_value *to);
/* *left = *left OP *right */
int32_t mmqi_chat_binary(struct mmqi_chat_budget *budget, int32_t operation,
                         struct mmqi_chat_value *left, const struct mmqi_chat_value *right);

/* Filters, and methods under the name ".name", are rows of a table; so are tests. -1: unknown. */
int32_t mmqi_chat_find_filter(const char *name, size_t size, int32_t n_arguments);
int32_t mmqi_chat_filter(struct mmqi_chat_budget *budget, int32_t number,
                         struct mmqi_chat_value *value, const struct mmqi_chat_value *arguments,
                         int32_t n_arguments);
int32_t mmqi_chat_find_test(const char *name, size_t size);
bool mmqi_chat_test(int32_t number, const struct mmqi_chat_value *value);

#endif
