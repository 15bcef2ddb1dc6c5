/*
 * Running a compiled template. Every instruction costs a step and text costs
 * more, so that no program runs long; loops, variables and the stack are
 * bounded.
 */
#include <string.h>

#include "core/mem.h"
#include "core/status.h"
#include "text/chat_parts.h"

enum { STACK = 2048, VARIABLES = 1024, LOOPS = 2 * MMQI_CHAT_DEPTH };

enum { BLOCK_BYTES = 64 << 10, SCRATCH_BYTES = 4 * MMQI_CHAT_OUT_BYTES };

struct mmqi_chat_block {
    struct mmqi_chat_block *before;
    size_t used, size;
    _Alignas(16) char data[];
};

struct machine {
    const struct mmqi_chat *chat;
    struct mmqi_chat_budget budget;
    struct mmqi_buf out;
    struct mmqi_chat_value stack[STACK];
    size_t n;
    struct {
        int32_t name;
        struct mmqi_chat_value value;
    } variables[VARIABLES]; /* the one bound last first found */
    size_t n_variables;
    struct mmqi_chat_loop loops[LOOPS];
    bool sifts[LOOPS]; /* the loop is a sift, which has no `loop` of its own */
    size_t n_loops;
    size_t next; /* instruction */
};

/* ---- what a rendering may use up ---- */

int32_t mmqi_chat_charge(struct mmqi_chat_budget *budget, size_t bytes)
{
    size_t steps = bytes / 64;

    if (steps > budget->steps) {
        budget->steps = 0;
        return mmqi_chat_fail(budget->chat, MMQ_ERR_LIMIT, budget->where,
                              "the template takes more than %d steps", MMQI_CHAT_STEPS);
    }
    budget->steps -= steps;
    return MMQ_OK;
}

int32_t mmqi_chat_take(struct mmqi_chat_budget *budget, void **out, size_t size)
{
    struct mmqi_chat_block *block = budget->blocks;
    size_t rounded = (size + 15) & ~(size_t)15, room;

    *out = NULL;
    if (size > SCRATCH_BYTES || rounded > SCRATCH_BYTES - budget->scratch_bytes)
        return mmqi_chat_fail(budget->chat, MMQ_ERR_LIMIT, budget->where,
                              "the template takes too much memory");
    budget->scratch_bytes += rounded;
    if (block) /* a text may have ended anywhere */
        block->used = (block->used + 15) & ~(size_t)15;
    if (!block || block->used > block->size || block->size - block->used < rounded) {
        room = rounded > BLOCK_BYTES ? rounded : BLOCK_BYTES;
        block = mmqi_alloc(sizeof *block + room);
        if (!block)
            return mmqi_chat_fail(budget->chat, MMQ_ERR_NOMEM, budget->where,
                                  "no memory to render the template");
        block->before = budget->blocks;
        block->used = 0;
        block->size = room;
        budget->blocks = block;
    }
    *out = block->data + block->used;
    block->used += size;
    return MMQ_OK;
}

bool mmqi_chat_extend(struct mmqi_chat_budget *budget, const char *text, size_t size,
                      const char *more, size_t more_size)
{
    struct mmqi_chat_block *block = budget->blocks;

    if (!block || size == 0 || text + size != block->data + block->used ||
        block->size - block->used < more_size)
        return false;
    memcpy(block->data + block->used, more, more_size);
    block->used += more_size;
    return true;
}

void mmqi_chat_release(struct mmqi_chat_budget *budget)
{
    struct mmqi_chat_block *before;

    for (; budget->blocks; budget->blocks = before) {
        before = budget->blocks->before;
        mmqi_free(budget->blocks);
    }
}

static int32_t fail(const struct machine *machine, int32_t status, const char *text)
{
    return mmqi_chat_fail(machine->chat, status, machine->budget.where, "%s", text);
}

static int32_t push(struct machine *machine, struct mmqi_chat_value value)
{
    if (machine->n == STACK)
        return fail(machine, MMQ_ERR_LIMIT, "too many values at once");
    machine->stack[machine->n++] = value;
    return MMQ_OK;
}

static struct mmqi_chat_value *top(struct machine *machine)
{
    return &machine->stack[machine->n - 1];
}

static bool pop_true(struct machine *machine)
{
    return mmqi_chat_true(&machine->stack[--machine->n]);
}

/* ---- variables ---- */

static bool is_loop_name(const struct machine *machine, int32_t name)
{
    const struct mmqi_chat_name *text = &machine->chat->names[name];

    return text->size == 4 && memcmp(machine->chat->pool.data + text->begin, "loop", 4) == 0;
}

static int32_t load(struct machine *machine, int32_t name)
{
    struct mmqi_chat_value value = {.kind = MMQI_VALUE_UNDEFINED};
    size_t i = machine->n_variables, loop = machine->n_loops;

    while (i > 0 && machine->variables[i - 1].name != name)
        i--;
    if (i > 0) {
        value = machine->variables[i - 1].value;
    } else if (is_loop_name(machine, name)) {
        while (loop > 0 && machine->sifts[loop - 1])
            loop--;
        if (loop > 0)
            value = (struct mmqi_chat_value){.kind = MMQI_VALUE_LOOP,
                                             .loop = &machine->loops[loop - 1]};
    }
    return push(machine, value);
}

/* Bind a name in the innermost loop, or outside all of them. */
static int32_t bind(struct machine *machine, int32_t name, const struct mmqi_chat_value *value)
{
    size_t first = machine->n_loops ? machine->loops[machine->n_loops - 1].n_bound : 0, i;

    for (i = first; i < machine->n_variables; i++)
        if (machine->variables[i].name == name)
            break;
    if (i == VARIABLES)
        return fail(machine, MMQ_ERR_LIMIT, "too many variables");
    machine->variables[i].name = name;
    machine->variables[i].value = *value;
    machine->n_variables += i == machine->n_variables;
    return MMQ_OK;
}

/* ---- loops ---- */

/* The list on top of the stack becomes a loop, before its first item. */
static int32_t open_loop(struct machine *machine, bool sift)
{
    struct mmqi_chat_value *list = top(machine);
    struct mmqi_chat_loop *loop;
    void *kept = NULL;
    int32_t status = MMQ_OK;

    if (list->kind != MMQI_VALUE_LIST && list->kind != MMQI_VALUE_UNDEFINED)
        return fail(machine,
                    list->kind == MMQI_VALUE_STRING || list->kind > MMQI_VALUE_LIST
                        ? MMQ_ERR_UNSUPPORTED
                        : MMQ_ERR_INVALID,
                    "a loop over what is no list is not supported");
    if (machine->n_loops == LOOPS)
        return fail(machine, MMQ_ERR_LIMIT, "too many loops in each other");
    if (sift)
        status = mmqi_chat_take(&machine->budget, &kept, (list->size + 1) * sizeof *loop->kept);
    if (status != MMQ_OK)
        return status;
    machine->sifts[machine->n_loops] = sift;
    loop = &machine->loops[machine->n_loops++];
    memset(loop, 0, sizeof *loop);
    loop->items = list->items;
    loop->n = list->kind == MMQI_VALUE_LIST ? list->size : 0;
    loop->n_bound = machine->n_variables;
    loop->kept = kept;
    machine->n--;
    return MMQ_OK;
}

static void close_loop(struct machine *machine)
{
    machine->n_variables = machine->loops[--machine->n_loops].n_bound;
}

/* Bind the item in hand; what the round before bound is gone. */
static int32_t start_round(struct machine *machine, int32_t name)
{
    struct mmqi_chat_loop *loop = &machine->loops[machine->n_loops - 1];

    machine->n_variables = loop->n_bound;
    return bind(machine, name, &loop->items[loop->index]);
}

static int32_t run_for(struct machine *machine, const struct mmqi_chat_op *op)
{
    int32_t status = open_loop(machine, false);

    if (status != MMQ_OK)
        return status;
    if (machine->loops[machine->n_loops - 1].n > 0)
        return start_round(machine, op->b);
    close_loop(machine);
    machine->next = (size_t)op->a;
    return MMQ_OK;
}

static int32_t run_for_next(struct machine *machine, const struct mmqi_chat_op *op)
{
    struct mmqi_chat_loop *loop = &machine->loops[machine->n_loops - 1];

    if (++loop->index < loop->n) {
        machine->next = (size_t)op->a;
        return start_round(machine, op->b);
    }
    close_loop(machine);
    return MMQ_OK;
}

/* `index` of a sift counts the items looked at, the one in hand included. */
static int32_t run_sift_next(struct machine *machine, const struct mmqi_chat_op *op)
{
    struct mmqi_chat_loop *loop = &machine->loops[machine->n_loops - 1];
    struct mmqi_chat_value kept = {
        .kind = MMQI_VALUE_LIST, .items = loop->kept, .size = loop->n_kept};

    if (loop->index < loop->n) {
        machine->n_variables = loop->n_bound;
        return bind(machine, op->b, &loop->items[loop->index++]);
    }
    close_loop(machine);
    machine->next = (size_t)op->a;
    return push(machine, kept);
}

static void run_sift_keep(struct machine *machine, const struct mmqi_chat_op *op)
{
    struct mmqi_chat_loop *loop = &machine->loops[machine->n_loops - 1];

    if (pop_true(machine))
        loop->kept[loop->n_kept++] = loop->items[loop->index - 1];
    machine->next = (size_t)op->a;
}

/* ---- the other instructions ---- */

static int32_t put_out(struct machine *machine, const char *text, size_t size)
{
    int32_t status = mmqi_chat_charge(&machine->budget, size);

    if (status != MMQ_OK)
        return status;
    if (size > MMQI_CHAT_OUT_BYTES - machine->out.size)
        return fail(machine, MMQ_ERR_LIMIT, "the template writes more than 16 MiB");
    mmqi_buf_append(&machine->out, text, size);
    return mmqi_buf_failed(&machine->out) ? fail(machine, MMQ_ERR_NOMEM, "no memory for the text")
                                          : MMQ_OK;
}

static int32_t print(struct machine *machine)
{
    struct mmqi_chat_value text;
    int32_t status = mmqi_chat_to_string(&machine->budget, &text, top(machine));

    machine->n--;
    return status == MMQ_OK ? put_out(machine, text.text, text.size) : status;
}

/* raise_exception(text): the template refuses its input. */
static int32_t raise(struct machine *machine)
{
    struct mmqi_chat_value text;
    int32_t status = mmqi_chat_to_string(&machine->budget, &text, top(machine));

    if (status != MMQ_OK)
        return status;
    return mmqi_chat_fail(machine->chat, MMQ_ERR_INVALID, machine->budget.where, "%.*s",
                          (int)(text.size < 256 ? text.size : 256), text.text);
}

static int32_t new_space(struct machine *machine)
{
    struct mmqi_chat_value space;
    int32_t status = mmqi_chat_new_space(&machine->budget, &space);

    return status == MMQ_OK ? push(machine, space) : status;
}

static int32_t set_in_space(struct machine *machine, const struct mmqi_chat_op *op)
{
    const struct mmqi_chat_name *name = &machine->chat->names[op->a];
    struct mmqi_chat_value key =
        mmqi_chat_string(machine->chat->pool.data + name->begin, name->size);
    int32_t status;

    machine->n--;
    status = mmqi_chat_space_set(&machine->budget, top(machine), &key, top(machine) + 1);
    machine->n -= op->b != 0;
    return status;
}

static int32_t push_list(struct machine *machine, size_t n)
{
    struct mmqi_chat_value list = {.kind = MMQI_VALUE_LIST, .size = n};
    void *items;
    int32_t status = mmqi_chat_take(&machine->budget, &items, (n + 1) * sizeof list);

    if (status != MMQ_OK)
        return status;
    machine->n -= n;
    memcpy(items, &machine->stack[machine->n], n * sizeof list);
    list.items = items;
    return push(machine, list);
}

static int32_t push_constant(struct machine *machine, const struct mmqi_chat_op *op)
{
    struct mmqi_chat_value value = {.kind = MMQI_VALUE_UNDEFINED};

    if (op->code == MMQI_CHAT_PUSH_STRING)
        value = mmqi_chat_string(op->b ? machine->chat->pool.data + op->a : "", (size_t)op->b);
    else if (op->code == MMQI_CHAT_PUSH_NONE)
        value.kind = MMQI_VALUE_NONE;
    else if (op->code != MMQI_CHAT_PUSH_UNDEFINED)
        value.kind = op->code == MMQI_CHAT_PUSH_BOOL ? MMQI_VALUE_BOOL : MMQI_VALUE_INTEGER;
    if (value.kind == MMQI_VALUE_BOOL || value.kind == MMQI_VALUE_INTEGER)
        value.integer = op->a;
    return push(machine, value);
}

static int32_t negate(struct machine *machine)
{
    struct mmqi_chat_value zero = {.kind = MMQI_VALUE_INTEGER};
    int32_t status = mmqi_chat_binary(&machine->budget, MMQI_CHAT_SUBTRACT, &zero, top(machine));

    *top(machine) = zero;
    return status;
}

/* An instruction that replaces the values on top by one. */
static int32_t run_operation(struct machine *machine, const struct mmqi_chat_op *op)
{
    struct mmqi_chat_budget *budget = &machine->budget;
    const struct mmqi_chat_name *name;

    switch (op->code) {
    case MMQI_CHAT_ATTRIBUTE:
        name = &machine->chat->names[op->a];
        return mmqi_chat_attribute(budget, top(machine), machine->chat->pool.data + name->begin,
                                   name->size);
    case MMQI_CHAT_ITEM:
        machine->n--;
        return mmqi_chat_item(budget, top(machine), top(machine) + 1);
    case MMQI_CHAT_SLICE:
        machine->n -= 2;
        return mmqi_chat_slice(budget, top(machine), top(machine) + 1, top(machine) + 2);
    case MMQI_CHAT_FILTER:
        machine->n -= (size_t)op->b;
        return mmqi_chat_filter(budget, op->a, top(machine), top(machine) + 1, op->b);
    case MMQI_CHAT_TEST:
        *top(machine) = (struct mmqi_chat_value){
            .kind = MMQI_VALUE_BOOL, .integer = mmqi_chat_test(op->a, top(machine)) != op->b};
        return MMQ_OK;
    case MMQI_CHAT_BINARY:
        machine->n--;
        return mmqi_chat_binary(budget, op->a, top(machine), top(machine) + 1);
    case MMQI_CHAT_NOT:
        *top(machine) = (struct mmqi_chat_value){.kind = MMQI_VALUE_BOOL,
                                                 .integer = !mmqi_chat_true(top(machine))};
        return MMQ_OK;
    default:
        return negate(machine);
    }
}

/* An instruction that may go elsewhere. */
static void run_jump(struct machine *machine, const struct mmqi_chat_op *op)
{
    bool jump = true;

    if (op->code == MMQI_CHAT_JUMP_FALSE)
        jump = !pop_true(machine);
    else if (op->code != MMQI_CHAT_JUMP)
        jump = mmqi_chat_true(top(machine)) == (op->code == MMQI_CHAT_OR);
    if (jump)
        machine->next = (size_t)op->a;
    else if (op->code == MMQI_CHAT_AND || op->code == MMQI_CHAT_OR)
        machine->n--;
}

static int32_t run_op(struct machine *machine, const struct mmqi_chat_op *op)
{
    switch (op->code) {
    case MMQI_CHAT_TEXT:
        return put_out(machine, machine->chat->pool.data + op->a, (size_t)op->b);
    case MMQI_CHAT_PRINT:
        return print(machine);
    case MMQI_CHAT_PUSH_LIST:
        return push_list(machine, (size_t)op->a);
    case MMQI_CHAT_LOAD:
        return load(machine, op->a);
    case MMQI_CHAT_STORE:
        return bind(machine, op->a, &machine->stack[--machine->n]);
    case MMQI_CHAT_NOTHING:
        return MMQ_OK;
    case MMQI_CHAT_JUMP:
    case MMQI_CHAT_JUMP_FALSE:
    case MMQI_CHAT_AND:
    case MMQI_CHAT_OR:
        run_jump(machine, op);
        return MMQ_OK;
    case MMQI_CHAT_SIFT:
        return open_loop(machine, true);
    case MMQI_CHAT_SIFT_NEXT:
        return run_sift_next(machine, op);
    case MMQI_CHAT_SIFT_KEEP:
        run_sift_keep(machine, op);
        return MMQ_OK;
    case MMQI_CHAT_FOR:
        return run_for(machine, op);
    case MMQI_CHAT_FOR_NEXT:
        return run_for_next(machine, op);
    case MMQI_CHAT_RAISE:
        return raise(machine);
    case MMQI_CHAT_NEW_SPACE:
        return new_space(machine);
    case MMQI_CHAT_SPACE_SET:
        return set_in_space(machine, op);
    default:
        return op->code <= MMQI_CHAT_PUSH_UNDEFINED ? push_constant(machine, op)
                                                    : run_operation(machine, op);
    }
}

/* ---- the whole ---- */

/* Bind `text` as a variable if the template has a name like that. */
static int32_t bind_text(struct machine *machine, const char *text,
                         const struct mmqi_chat_value *value)
{
    const struct mmqi_chat *chat = machine->chat;
    size_t i;

    for (i = 0; i < chat->n_names; i++)
        if (chat->names[i].size == strlen(text) &&
            memcmp(chat->pool.data + chat->names[i].begin, text, strlen(text)) == 0)
            return bind(machine, (int32_t)i, value);
    return MMQ_OK;
}

/* The conversation as a list of messages, whose contents are lists of parts. */
static int32_t make_messages(struct mmqi_chat_value *list, struct mmqi_chat_value **memory,
                             struct mmqi_chat_view **views, const struct mmqi_chat_input *input)
{
    size_t n = input->n_messages, n_parts = 0, i, j;
    struct mmqi_chat_value *value;

    for (i = 0; i < n; i++)
        n_parts += input->messages[i].n_parts;
    *memory = mmqi_alloc_array(n + n_parts + 1, sizeof **memory);
    *views = mmqi_alloc_array(n + 1, sizeof **views);
    if (!*memory || !*views)
        return mmqi_fail(MMQ_ERR_NOMEM, "no memory for %zu messages", n);
    value = *memory + n;
    for (i = 0; i < n; i++) {
        (*views)[i].message = &input->messages[i];
        (*views)[i].parts = (struct mmqi_chat_value){
            .kind = MMQI_VALUE_LIST, .items = value, .size = input->messages[i].n_parts};
        (*memory)[i] = (struct mmqi_chat_value){.kind = MMQI_VALUE_MESSAGE, .message = *views + i};
        for (j = 0; j < input->messages[i].n_parts; j++)
            *value++ = (struct mmqi_chat_value){.kind = MMQI_VALUE_PART,
                                                .part = &input->messages[i].parts[j]};
    }
    *list = (struct mmqi_chat_value){.kind = MMQI_VALUE_LIST, .items = *memory, .size = n};
    return MMQ_OK;
}

static int32_t bind_input(struct machine *machine, const struct mmqi_chat_input *input,
                          const struct mmqi_chat_value *messages)
{
    struct mmqi_chat_value prompt = {.kind = MMQI_VALUE_BOOL,
                                     .integer = input->add_generation_prompt};
    struct mmqi_chat_value text;
    int32_t status = bind_text(machine, "messages", messages);

    if (status == MMQ_OK)
        status = bind_text(machine, "add_generation_prompt", &prompt);
    if (status == MMQ_OK && input->bos_token) {
        text = mmqi_chat_string(input->bos_token, strlen(input->bos_token));
        status = bind_text(machine, "bos_token", &text);
    }
    if (status == MMQ_OK && input->eos_token) {
        text = mmqi_chat_string(input->eos_token, strlen(input->eos_token));
        status = bind_text(machine, "eos_token", &text);
    }
    return status;
}

static int32_t run(struct machine *machine)
{
    const struct mmqi_chat_op *op;
    int32_t status = MMQ_OK;

    while (status == MMQ_OK && machine->next < machine->chat->n_ops) {
        op = &machine->chat->ops[machine->next++];
        machine->budget.where = op->where;
        status = mmqi_chat_charge(&machine->budget, 64);
        if (status == MMQ_OK)
            status = run_op(machine, op);
    }
    return status;
}

int32_t mmqi_chat_render(const struct mmqi_chat *chat, char **out, size_t *size,
                         const struct mmqi_chat_input *input)
{
    struct machine *machine = mmqi_calloc(1, sizeof *machine);
    struct mmqi_chat_value *memory = NULL, messages;
    struct mmqi_chat_view *views = NULL;
    int32_t status;

    *out = NULL;
    *size = 0;
    if (!machine)
        return mmqi_fail(MMQ_ERR_NOMEM, "%s: no memory to render the template", chat->name);
    machine->chat = machine->budget.chat = chat;
    machine->budget.steps = MMQI_CHAT_STEPS;
    status = make_messages(&messages, &memory, &views, input);
    if (status == MMQ_OK)
        status = bind_input(machine, input, &messages);
    if (status == MMQ_OK)
        status = run(machine);
    if (status == MMQ_OK) {
        *size = machine->out.size;
        *out = mmqi_buf_take(&machine->out);
        if (!*out)
            status = mmqi_fail(MMQ_ERR_NOMEM, "%s: no memory for the text", chat->name);
    }
    mmqi_chat_release(&machine->budget);
    mmqi_buf_free(&machine->out);
    mmqi_free(memory);
    mmqi_free(views);
    mmqi_free(machine);
    return status;
}
