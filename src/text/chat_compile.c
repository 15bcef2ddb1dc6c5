/*
 * From a template's source to a program: text, statements and their blocks,
 * which stand on a stack of bounded depth.
 */
#include "text/chat_compile.h"

#include <string.h>

#include "core/mem.h"
#include "core/status.h"

/* ---- putting out ---- */

int32_t mmqi_chat_emit(struct mmqi_chat_compiler *compiler, int32_t code, int32_t a, int32_t b,
                       size_t where)
{
    struct mmqi_chat *chat = compiler->chat;
    size_t capacity = chat->capacity ? chat->capacity * 2 : 256;
    struct mmqi_chat_op *ops;

    if (chat->n_ops == chat->capacity) {
        ops = mmqi_realloc_array(chat->ops, capacity, sizeof *ops);
        if (!ops)
            return mmqi_fail(MMQ_ERR_NOMEM, "%s: no memory for the template", chat->name);
        chat->ops = ops;
        chat->capacity = capacity;
    }
    chat->ops[chat->n_ops++] = (struct mmqi_chat_op){code, a, b, (uint32_t)where};
    return MMQ_OK;
}

int32_t mmqi_chat_here(const struct mmqi_chat_compiler *compiler)
{
    return (int32_t)compiler->chat->n_ops;
}

int32_t mmqi_chat_unexpected(const struct mmqi_chat_compiler *compiler, const char *wanted)
{
    const struct mmqi_chat_lexer *lexer = &compiler->lexer;
    size_t size = lexer->end - lexer->begin;

    if (lexer->token == MMQI_CHAT_TAG_END)
        return mmqi_chat_fail(compiler->chat, MMQ_ERR_FORMAT, lexer->begin,
                              "the tag ends where %s is expected", wanted);
    return mmqi_chat_fail(compiler->chat, MMQ_ERR_FORMAT, lexer->begin,
                          "'%.*s' where %s is expected", (int)(size < 40 ? size : 40),
                          compiler->chat->source + lexer->begin, wanted);
}

int32_t mmqi_chat_unsupported(const struct mmqi_chat_compiler *compiler, size_t where,
                              const char *what, const char *name, size_t size)
{
    return mmqi_chat_fail(compiler->chat, MMQ_ERR_UNSUPPORTED, where, "%s '%.*s' is not supported",
                          what, (int)(size < 40 ? size : 40), name);
}

/* ---- tokens ---- */

int32_t mmqi_chat_advance(struct mmqi_chat_compiler *compiler)
{
    return mmqi_chat_next_token(&compiler->lexer);
}

bool mmqi_chat_at_sign(const struct mmqi_chat_compiler *compiler, int32_t sign)
{
    return compiler->lexer.token == MMQI_CHAT_SIGN && compiler->lexer.sign == sign;
}

bool mmqi_chat_at_name(const struct mmqi_chat_compiler *compiler, const char *name)
{
    return mmqi_chat_is_name(&compiler->lexer, name);
}

static int32_t expect_name(struct mmqi_chat_compiler *compiler, const char *name,
                           const char *wanted)
{
    return mmqi_chat_at_name(compiler, name) ? mmqi_chat_advance(compiler)
                                             : mmqi_chat_unexpected(compiler, wanted);
}

int32_t mmqi_chat_intern(struct mmqi_chat_compiler *compiler, int32_t *number)
{
    struct mmqi_chat *chat = compiler->chat;
    const char *text = chat->source + compiler->lexer.begin;
    size_t size = compiler->lexer.end - compiler->lexer.begin, i;

    if (compiler->lexer.token != MMQI_CHAT_NAME)
        return mmqi_chat_unexpected(compiler, "a name");
    for (i = 0; i < chat->n_names; i++)
        if (chat->names[i].size == size &&
            memcmp(chat->pool.data + chat->names[i].begin, text, size) == 0)
            break;
    if (i == MMQI_CHAT_NAMES)
        return mmqi_chat_fail(chat, MMQ_ERR_LIMIT, compiler->lexer.begin, "more than %d names",
                              MMQI_CHAT_NAMES);
    *number = (int32_t)i;
    if (i == chat->n_names) {
        chat->names[i].begin = (uint32_t)chat->pool.size;
        chat->names[i].size = (uint32_t)size;
        chat->n_names++;
        mmqi_buf_append(&chat->pool, text, size);
        if (mmqi_buf_failed(&chat->pool))
            return mmqi_fail(MMQ_ERR_NOMEM, "%s: no memory for the template", chat->name);
    }
    return mmqi_chat_advance(compiler);
}

/* An instruction with `size` bytes of text. */
static int32_t emit_text(struct mmqi_chat_compiler *compiler, int32_t code, const char *text,
                         size_t size, size_t where)
{
    struct mmqi_buf *pool = &compiler->chat->pool;
    size_t begin = pool->size;

    mmqi_buf_append(pool, text, size);
    if (mmqi_buf_failed(pool))
        return mmqi_fail(MMQ_ERR_NOMEM, "%s: no memory for the template", compiler->chat->name);
    return mmqi_chat_emit(compiler, code, (int32_t)begin, (int32_t)size, where);
}

/* ---- statements ---- */

static int32_t push_block(struct mmqi_chat_compiler *compiler, enum mmqi_chat_open_kind kind,
                          size_t where)
{
    struct mmqi_chat_open *block;

    if (compiler->n_blocks == MMQI_CHAT_DEPTH)
        return mmqi_chat_fail(compiler->chat, MMQ_ERR_LIMIT, where,
                              "more than %d blocks in each other", MMQI_CHAT_DEPTH);
    block = &compiler->blocks[compiler->n_blocks++];
    memset(block, 0, sizeof *block);
    block->kind = kind;
    block->where = where;
    block->jump_false = block->jump_end = -1;
    return MMQ_OK;
}

/* The innermost block if it is of this kind. */
static int32_t top_block(struct mmqi_chat_compiler *compiler, enum mmqi_chat_open_kind kind,
                         size_t where, struct mmqi_chat_open **block)
{
    *block = compiler->n_blocks > 0 ? &compiler->blocks[compiler->n_blocks - 1] : NULL;
    if (!*block || (*block)->kind != kind)
        return mmqi_chat_fail(compiler->chat, MMQ_ERR_FORMAT, where,
                              "this tag does not belong to the block around it");
    return MMQ_OK;
}

static int32_t read_branch(struct mmqi_chat_compiler *compiler, struct mmqi_chat_open *block)
{
    size_t where = compiler->lexer.begin;
    int32_t status = mmqi_chat_read_condition(compiler);

    block->jump_false = mmqi_chat_here(compiler);
    return status == MMQ_OK ? mmqi_chat_emit(compiler, MMQI_CHAT_JUMP_FALSE, 0, 0, where) : status;
}

static int32_t read_if(struct mmqi_chat_compiler *compiler, size_t where)
{
    int32_t status = push_block(compiler, MMQI_CHAT_IF, where);

    return status == MMQ_OK ? read_branch(compiler, &compiler->blocks[compiler->n_blocks - 1])
                            : status;
}

/* A branch ends: jump to the end of the block, and mmqi_chat_here if its condition was false. */
static int32_t end_branch(struct mmqi_chat_compiler *compiler, struct mmqi_chat_open *block,
                          size_t where)
{
    int32_t op = mmqi_chat_here(compiler),
            status = mmqi_chat_emit(compiler, MMQI_CHAT_JUMP, block->jump_end, 0, where);

    if (status != MMQ_OK)
        return status;
    block->jump_end = op;
    compiler->chat->ops[block->jump_false].a = mmqi_chat_here(compiler);
    block->jump_false = -1;
    return MMQ_OK;
}

static int32_t read_elif(struct mmqi_chat_compiler *compiler, size_t where)
{
    struct mmqi_chat_open *block;
    int32_t status = top_block(compiler, MMQI_CHAT_IF, where, &block);

    if (status == MMQ_OK && block->has_else)
        return mmqi_chat_fail(compiler->chat, MMQ_ERR_FORMAT, where, "'elif' after 'else'");
    if (status == MMQ_OK)
        status = end_branch(compiler, block, where);
    return status == MMQ_OK ? read_branch(compiler, block) : status;
}

/* The body of a loop ends: it starts again, or leaves through the chain of jumps to the end. */
static int32_t end_body(struct mmqi_chat_compiler *compiler, struct mmqi_chat_open *block,
                        size_t where)
{
    struct mmqi_chat_op *ops = compiler->chat->ops;
    int32_t variable = ops[block->start].b;

    return mmqi_chat_emit(compiler, MMQI_CHAT_FOR_NEXT, block->start + 1, variable, where);
}

static int32_t read_else(struct mmqi_chat_compiler *compiler, size_t where)
{
    struct mmqi_chat_open *block =
        compiler->n_blocks ? &compiler->blocks[compiler->n_blocks - 1] : NULL;
    int32_t status = MMQ_OK, op;

    if (!block || block->has_else || block->kind == MMQI_CHAT_GENERATION)
        return mmqi_chat_fail(compiler->chat, MMQ_ERR_FORMAT, where,
                              "this tag does not belong to the block around it");
    block->has_else = true;
    if (block->kind == MMQI_CHAT_IF)
        return end_branch(compiler, block, where);
    status = end_body(compiler, block, where);
    op = mmqi_chat_here(compiler);
    if (status == MMQ_OK)
        status = mmqi_chat_emit(compiler, MMQI_CHAT_JUMP, -1, 0, where);
    block->jump_end = op;
    compiler->chat->ops[block->start].a = mmqi_chat_here(compiler);
    return status;
}

static void end_jumps(struct mmqi_chat_compiler *compiler, int32_t chain)
{
    int32_t after;

    for (; chain >= 0; chain = after) {
        after = compiler->chat->ops[chain].a;
        compiler->chat->ops[chain].a = mmqi_chat_here(compiler);
    }
}

static int32_t read_endif(struct mmqi_chat_compiler *compiler, size_t where)
{
    struct mmqi_chat_open *block;
    int32_t status = top_block(compiler, MMQI_CHAT_IF, where, &block);

    if (status != MMQ_OK)
        return status;
    if (block->jump_false >= 0)
        compiler->chat->ops[block->jump_false].a = mmqi_chat_here(compiler);
    end_jumps(compiler, block->jump_end);
    compiler->n_blocks--;
    return MMQ_OK;
}

/* "if CONDITION" of a loop: sift the list on top of the stack before the loop takes it. */
static int32_t read_sift(struct mmqi_chat_compiler *compiler, int32_t variable, size_t where)
{
    int32_t status = mmqi_chat_advance(compiler), next;

    if (status == MMQ_OK)
        status = mmqi_chat_emit(compiler, MMQI_CHAT_SIFT, 0, 0, where);
    next = mmqi_chat_here(compiler);
    if (status == MMQ_OK)
        status = mmqi_chat_emit(compiler, MMQI_CHAT_SIFT_NEXT, 0, variable, where);
    if (status == MMQ_OK)
        status = mmqi_chat_read_expression(compiler);
    if (status == MMQ_OK)
        status = mmqi_chat_emit(compiler, MMQI_CHAT_SIFT_KEEP, next, 0, where);
    if (status == MMQ_OK)
        compiler->chat->ops[next].a = mmqi_chat_here(compiler);
    return status;
}

static int32_t read_for(struct mmqi_chat_compiler *compiler, size_t where)
{
    int32_t variable = 0, status = push_block(compiler, MMQI_CHAT_LOOP, where);

    if (status == MMQ_OK)
        status = mmqi_chat_intern(compiler, &variable);
    if (status == MMQ_OK && mmqi_chat_at_sign(compiler, ','))
        return mmqi_chat_unsupported(compiler, compiler->lexer.begin, "a loop over pairs,", ",", 1);
    if (status == MMQ_OK)
        status = expect_name(compiler, "in", "'in'");
    if (status == MMQ_OK)
        status = mmqi_chat_read_condition(compiler);
    if (status == MMQ_OK && mmqi_chat_at_name(compiler, "if"))
        status = read_sift(compiler, variable, where);
    if (status == MMQ_OK && mmqi_chat_at_name(compiler, "recursive"))
        return mmqi_chat_unsupported(compiler, compiler->lexer.begin, "a loop that is", "recursive",
                                     9);
    compiler->blocks[compiler->n_blocks - 1].start = mmqi_chat_here(compiler);
    return status == MMQ_OK ? mmqi_chat_emit(compiler, MMQI_CHAT_FOR, 0, variable, where) : status;
}

static int32_t read_endfor(struct mmqi_chat_compiler *compiler, size_t where)
{
    struct mmqi_chat_open *block;
    int32_t status = top_block(compiler, MMQI_CHAT_LOOP, where, &block);

    if (status != MMQ_OK)
        return status;
    if (block->has_else) {
        end_jumps(compiler, block->jump_end);
    } else {
        status = end_body(compiler, block, where);
        compiler->chat->ops[block->start].a = mmqi_chat_here(compiler);
    }
    compiler->n_blocks--;
    return status;
}

static int32_t read_set(struct mmqi_chat_compiler *compiler, size_t where)
{
    int32_t variable = 0, name = -1, status = mmqi_chat_intern(compiler, &variable);

    if (status == MMQ_OK && mmqi_chat_at_sign(compiler, '.')) {
        status = mmqi_chat_advance(compiler);
        if (status == MMQ_OK)
            status = mmqi_chat_intern(compiler, &name);
        if (status == MMQ_OK)
            status = mmqi_chat_emit(compiler, MMQI_CHAT_LOAD, variable, 0, where);
    }
    if (status != MMQ_OK)
        return status;
    if (!mmqi_chat_at_sign(compiler, '='))
        return mmqi_chat_fail(compiler->chat, MMQ_ERR_UNSUPPORTED, where,
                              "'set' other than of one name by '=' is not supported");
    status = mmqi_chat_advance(compiler);
    if (status == MMQ_OK)
        status = mmqi_chat_read_expression(compiler);
    if (status != MMQ_OK)
        return status;
    return name < 0 ? mmqi_chat_emit(compiler, MMQI_CHAT_STORE, variable, 0, where)
                    : mmqi_chat_emit(compiler, MMQI_CHAT_SPACE_SET, name, 1, where);
}

static int32_t read_generation(struct mmqi_chat_compiler *compiler, size_t where)
{
    return push_block(compiler, MMQI_CHAT_GENERATION, where);
}

static int32_t read_endgeneration(struct mmqi_chat_compiler *compiler, size_t where)
{
    struct mmqi_chat_open *block;
    int32_t status = top_block(compiler, MMQI_CHAT_GENERATION, where, &block);

    compiler->n_blocks -= status == MMQ_OK;
    return status;
}

/* A {% tag %}, its first token in hand. */
static int32_t read_statement(struct mmqi_chat_compiler *compiler)
{
    static const struct {
        const char *name;
        int32_t (*read)(struct mmqi_chat_compiler *compiler, size_t where);
    } statements[] = {{"for", read_for},
                      {"endfor", read_endfor},
                      {"if", read_if},
                      {"elif", read_elif},
                      {"else", read_else},
                      {"endif", read_endif},
                      {"set", read_set},
                      {"generation", read_generation},
                      {"endgeneration", read_endgeneration}};
    size_t where = compiler->lexer.begin, i;
    int32_t status;

    if (compiler->lexer.token != MMQI_CHAT_NAME)
        return mmqi_chat_unexpected(compiler, "the name of a statement");
    for (i = 0; i < sizeof statements / sizeof *statements; i++)
        if (mmqi_chat_at_name(compiler, statements[i].name))
            break;
    if (i == sizeof statements / sizeof *statements)
        return mmqi_chat_unsupported(compiler, where, "the statement",
                                     compiler->chat->source + where, compiler->lexer.end - where);
    status = mmqi_chat_advance(compiler);
    return status == MMQ_OK ? statements[i].read(compiler, where) : status;
}

/* The text up to the next tag and that tag. */
static int32_t read_part(struct mmqi_chat_compiler *compiler)
{
    struct mmqi_chat_lexer *lexer = &compiler->lexer;
    size_t begin, size, where;
    bool tag;
    int32_t status = mmqi_chat_next_tag(lexer, &begin, &size, &tag);

    if (status == MMQ_OK && size > 0)
        status = emit_text(compiler, MMQI_CHAT_TEXT, compiler->chat->source + begin, size, begin);
    if (status != MMQ_OK || !tag)
        return status;
    where = lexer->begin;
    if (lexer->block) {
        status = read_statement(compiler);
    } else {
        status = mmqi_chat_read_expression(compiler);
        if (status == MMQ_OK)
            status = mmqi_chat_emit(compiler, MMQI_CHAT_PRINT, 0, 0, where);
    }
    if (status == MMQ_OK && lexer->token != MMQI_CHAT_TAG_END)
        status = mmqi_chat_unexpected(compiler, "the end of the tag");
    return status;
}

/* ---- the whole ---- */

/* Keep the source with its line ends as line feeds, one at the end dropped. */
static int32_t keep_source(struct mmqi_chat *chat, const char *name, const char *source,
                           size_t size)
{
    size_t i, n = 0;

    chat->name = mmqi_strdup(name);
    chat->source = mmqi_alloc(size + 1);
    if (!chat->name || !chat->source)
        return mmqi_fail(MMQ_ERR_NOMEM, "%s: no memory for the template", name);
    for (i = 0; i < size; i++) {
        if (source[i] == '\r' && i + 1 < size && source[i + 1] == '\n')
            continue;
        chat->source[n++] = source[i] == '\r' ? '\n' : source[i];
    }
    if (n > 0 && chat->source[n - 1] == '\n')
        n--;
    chat->source[n] = '\0';
    chat->size = n;
    return MMQ_OK;
}

int32_t mmqi_chat_compile(struct mmqi_chat **out, const char *name, const char *source, size_t size)
{
    struct mmqi_chat_compiler *compiler = mmqi_calloc(1, sizeof *compiler);
    struct mmqi_chat *chat = mmqi_calloc(1, sizeof *chat);
    int32_t status = MMQ_OK;

    *out = NULL;
    if (!chat || !compiler)
        status = mmqi_fail(MMQ_ERR_NOMEM, "%s: no memory for the template", name);
    else if (size > MMQI_CHAT_SOURCE_BYTES)
        status = mmqi_fail(MMQ_ERR_LIMIT, "%s: a template of %zu bytes, more than %d", name, size,
                           MMQI_CHAT_SOURCE_BYTES);
    if (status == MMQ_OK)
        status = keep_source(chat, name, source, size);
    if (status != MMQ_OK)
        goto done;
    compiler->chat = compiler->lexer.chat = chat;
    compiler->lexer.line_starting = true;
    while (status == MMQ_OK && compiler->lexer.at < chat->size)
        status = read_part(compiler);
    if (status == MMQ_OK && compiler->n_blocks > 0)
        status =
            mmqi_chat_fail(chat, MMQ_ERR_FORMAT, compiler->blocks[compiler->n_blocks - 1].where,
                           "a block without its end");
    mmqi_buf_free(&compiler->lexer.text);
done:
    mmqi_free(compiler);
    if (status == MMQ_OK)
        *out = chat;
    else
        mmqi_chat_free(chat);
    return status;
}

void mmqi_chat_free(struct mmqi_chat *chat)
{
    if (!chat)
        return;
    mmqi_free(chat->name);
    mmqi_free(chat->source);
    mmqi_buf_free(&chat->pool);
    mmqi_free(chat->ops);
    mmqi_free(chat);
}
