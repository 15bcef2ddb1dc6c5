/*
 * The compiler of chat templates: what its two files share. Expressions are
 * chat_expression.c, everything around them chat_compile.c.
 */
#ifndef MMQI_TEXT_CHAT_COMPILE_H
#define MMQI_TEXT_CHAT_COMPILE_H

#include "text/chat_parts.h"

enum mmqi_chat_open_kind { MMQI_CHAT_IF, MMQI_CHAT_LOOP, MMQI_CHAT_GENERATION };

/* A block whose end is still to come. Jumps that wait for their target are chained through `a`. */
struct mmqi_chat_open {
    enum mmqi_chat_open_kind kind;
    size_t where;
    int32_t start;      /* for: its FOR */
    int32_t jump_false; /* if: the JUMP_FALSE of the branch in hand, -1 after else */
    int32_t jump_end;   /* chain of the JUMPs to the end, -1 ends it */
    bool has_else;
};

struct mmqi_chat_compiler {
    struct mmqi_chat *chat;
    struct mmqi_chat_lexer lexer;
    struct mmqi_chat_open blocks[MMQI_CHAT_DEPTH];
    size_t n_blocks;
    int32_t depth; /* of expressions in each other */
};

int32_t mmqi_chat_emit(struct mmqi_chat_compiler *compiler, int32_t code, int32_t a, int32_t b,
                       size_t where);
/* The number of the next instruction. */
int32_t mmqi_chat_here(const struct mmqi_chat_compiler *compiler);
int32_t mmqi_chat_unexpected(const struct mmqi_chat_compiler *compiler, const char *wanted);
int32_t mmqi_chat_unsupported(const struct mmqi_chat_compiler *compiler, size_t where,
                              const char *what, const char *name, size_t size);

int32_t mmqi_chat_advance(struct mmqi_chat_compiler *compiler);
bool mmqi_chat_at_sign(const struct mmqi_chat_compiler *compiler, int32_t sign);
bool mmqi_chat_at_name(const struct mmqi_chat_compiler *compiler, const char *name);
/* The number of the name in hand, which may be new; then go on. */
int32_t mmqi_chat_intern(struct mmqi_chat_compiler *compiler, int32_t *number);

/* An expression; its value will be on top of the stack. */
int32_t mmqi_chat_read_expression(struct mmqi_chat_compiler *compiler);
/* An expression without "VALUE if CONDITION else OTHER" outermost, as tags want it. */
int32_t mmqi_chat_read_condition(struct mmqi_chat_compiler *compiler);

#endif
