/*
 * Compiling a pattern into a program of sets, splits and jumps, and running
 * all its threads side by side, in order of preference (Pike's machine): no
 * pattern makes it go back over the text.
 *
 * The compiler reads the pattern once. Jumps are relative, so that a finished
 * piece can be moved when a split is put before it, and copied for {n,m}.
 */
#include "text/regex.h"

#include <assert.h>
#include <string.h>

#include <utf8proc.h>

#include "core/mem.h"
#include "core/status.h"
#include "core/utf8.h"
#include "text/utf8.h"

enum { MAX_CODE = 512, MAX_SETS = 96, MAX_ITEMS = 16, MAX_GROUPS = 8, MAX_REPEAT = 64 };

enum op {
    OP_SET,       /* one character of set x, then on */
    OP_SPLIT,     /* to x, and with less preference to y; both relative */
    OP_JUMP,      /* to x, relative */
    OP_NOT_AHEAD, /* on where no character of set x follows */
    OP_MATCH
};

static_assert(2 * MAX_CODE <= MMQI_REGEX_STEP, "each instruction leads to two at most");

struct code {
    int32_t op, x, y;
};

/* Code points [low, high], or those of some categories, or white space. */
struct item {
    int32_t low, high;
    uint32_t categories; /* bit utf8proc_category() */
    bool space, negated;
};

struct set {
    struct item items[MAX_ITEMS];
    int32_t n;
    bool negated;
    uint64_t ascii[2]; /* the answer for code points below 128 */
};

struct mmqi_regex {
    struct code code[MAX_CODE];
    struct set sets[MAX_SETS];
    int32_t n_code, n_sets;
    /* Where the first step may be, if that is the same before every text. */
    int16_t start[MAX_CODE];
    int32_t n_start;
    bool fixed_start;
};

/* ---- sets ---- */

static bool item_has(const struct item *item, int32_t code)
{
    bool in = code >= item->low && code <= item->high;

    if (item->categories)
        in = item->categories >> utf8proc_category(code) & 1;
    if (item->space)
        in = mmqi_is_space(code);
    return in != item->negated;
}

static bool look_up(const struct set *set, int32_t code)
{
    bool in = false;

    for (int32_t i = 0; i < set->n && !in; i++)
        in = item_has(&set->items[i], code);
    return in != set->negated;
}

static bool set_has(const struct set *set, int32_t code)
{
    if (code >= 0 && code < 128)
        return set->ascii[code / 64] >> (code % 64) & 1;
    return look_up(set, code);
}

/* ---- the compiler ---- */

/* A group that is open; the whole pattern is one. */
struct group {
    int32_t begin;   /* of its code */
    int32_t branch;  /* of the alternative in hand */
    int32_t pending; /* the last jump to its end, each with the one before in x; -1 */
    bool ignore_case;
};

struct compiler {
    struct mmqi_regex *regex;
    const char *pattern;
    size_t size, at;
    struct group groups[MAX_GROUPS];
    int32_t n_groups;
    int32_t atom;    /* where the piece that a repeat would take begins; -1: none */
    const char *why; /* the first failure */
};

static void refuse(struct compiler *c, const char *why)
{
    if (!c->why)
        c->why = why;
}

static bool next_is(const struct compiler *c, const char *text)
{
    size_t n = strlen(text);

    return c->size - c->at >= n && memcmp(c->pattern + c->at, text, n) == 0;
}

static bool take(struct compiler *c, const char *text)
{
    if (!next_is(c, text))
        return false;
    c->at += strlen(text);
    return true;
}

/* Put one instruction at `at`, moving what stands there. */
static void insert(struct compiler *c, int32_t at, enum op op, int32_t x, int32_t y)
{
    struct mmqi_regex *r = c->regex;

    if (r->n_code == MAX_CODE)
        refuse(c, "too long a pattern");
    if (c->why)
        return;
    memmove(r->code + at + 1, r->code + at, (size_t)(r->n_code - at) * sizeof *r->code);
    r->code[at] = (struct code){op, x, y};
    r->n_code++;
}

static void emit(struct compiler *c, enum op op, int32_t x, int32_t y)
{
    insert(c, c->regex->n_code, op, x, y);
}

static struct set *new_set(struct compiler *c)
{
    if (c->regex->n_sets == MAX_SETS) {
        refuse(c, "too many classes");
        return &c->regex->sets[MAX_SETS - 1];
    }
    return &c->regex->sets[c->regex->n_sets++];
}

static void add_item(struct compiler *c, struct set *set, struct item item)
{
    if (set->n == MAX_ITEMS)
        refuse(c, "too large a class");
    else
        set->items[set->n++] = item;
}

static void add_range(struct compiler *c, struct set *set, int32_t low, int32_t high)
{
    add_item(c, set, (struct item){.low = low, .high = high});
}

/* A character, and without regard to case its other forms: s and k have a third. */
static void add_letter(struct compiler *c, struct set *set, int32_t code)
{
    int32_t lower = code | 0x20;

    add_range(c, set, code, code);
    if (!c->groups[c->n_groups - 1].ignore_case)
        return;
    if (code >= 0x80)
        refuse(c, "case of letters beyond ASCII");
    if (lower < 'a' || lower > 'z')
        return;
    add_range(c, set, code ^ 0x20, code ^ 0x20);
    if (lower == 's')
        add_range(c, set, 0x17F, 0x17F);
    if (lower == 'k')
        add_range(c, set, 0x212A, 0x212A);
}

/* The categories whose names begin with `name`: "L", "Lu"; 0 for none. */
static uint32_t find_categories(const char *name, size_t size)
{
    static const char names[][3] = {"Cn", "Lu", "Ll", "Lt", "Lm", "Lo", "Mn", "Mc", "Me", "Nd",
                                    "Nl", "No", "Pc", "Pd", "Ps", "Pe", "Pi", "Pf", "Po", "Sm",
                                    "Sc", "Sk", "So", "Zs", "Zl", "Zp", "Cc", "Cf", "Cs", "Co"};
    uint32_t found = 0;

    for (size_t i = 0; i < sizeof names / sizeof *names && size >= 1 && size <= 2; i++)
        if (memcmp(names[i], name, size) == 0)
            found |= 1u << i;
    return found;
}

/* {Lu}, after \p or \P. */
static void add_property(struct compiler *c, struct set *set, bool negated)
{
    const char *name, *end;
    struct item item = {.low = 1, .negated = negated};

    if (!take(c, "{")) {
        refuse(c, "a property without braces");
        return;
    }
    name = c->pattern + c->at;
    end = memchr(name, '}', c->size - c->at);
    item.categories = end ? find_categories(name, (size_t)(end - name)) : 0;
    if (!item.categories) {
        refuse(c, "this property");
        return;
    }
    c->at += (size_t)(end - name) + 1;
    add_item(c, set, item);
}

static bool is_punctuation(char byte)
{
    return (unsigned char)byte < 0x80 && byte > ' ' && !(byte >= '0' && byte <= '9') &&
           !((byte | 0x20) >= 'a' && (byte | 0x20) <= 'z');
}

/* What follows a backslash. */
static void add_escape(struct compiler *c, struct set *set)
{
    static const char letters[] = "nrtfv", codes[] = "\n\r\t\f\v";
    char byte = c->at < c->size ? c->pattern[c->at++] : '\0';
    const char *found = byte ? strchr(letters, byte) : NULL;

    if (found)
        add_range(c, set, codes[found - letters], codes[found - letters]);
    else if (byte == 's' || byte == 'S')
        add_item(c, set, (struct item){.space = true, .negated = byte == 'S'});
    else if (byte == 'd' || byte == 'D')
        add_item(c, set,
                 (struct item){.categories = find_categories("Nd", 2), .negated = byte == 'D'});
    else if (byte == 'p' || byte == 'P')
        add_property(c, set, byte == 'P');
    else if (is_punctuation(byte))
        add_letter(c, set, byte);
    else
        refuse(c, "this escape");
}

static int32_t take_character(struct compiler *c)
{
    size_t length;
    int32_t code = mmqi_utf8_decode(c->pattern + c->at, c->size - c->at, &length);

    c->at += length;
    return code;
}

/* One member of a class: an escape, a character or a range of them. */
static void add_member(struct compiler *c, struct set *set)
{
    int32_t low, high;

    if (next_is(c, "[") || next_is(c, "&&")) {
        refuse(c, "a class in a class");
        return;
    }
    if (take(c, "\\")) {
        add_escape(c, set);
        if (next_is(c, "-"))
            refuse(c, "a range from an escape");
        return;
    }
    low = take_character(c);
    if (!next_is(c, "-") || c->at + 1 >= c->size || c->pattern[c->at + 1] == ']') {
        add_letter(c, set, low);
        return;
    }
    c->at++;
    high = take_character(c);
    if (c->groups[c->n_groups - 1].ignore_case || low == '\\' || high == '\\' || high == '[' ||
        high < low)
        refuse(c, "this range");
    add_range(c, set, low, high);
}

static void add_class(struct compiler *c, struct set *set)
{
    set->negated = take(c, "^");
    if (next_is(c, "]"))
        refuse(c, "an empty class");
    while (!c->why && c->at < c->size && !next_is(c, "]"))
        add_member(c, set);
    if (!take(c, "]"))
        refuse(c, "a class without an end");
}

/* The set at the place in hand: a class, an escape, a dot or a character. */
static int32_t parse_set(struct compiler *c)
{
    struct set *set = new_set(c);

    memset(set, 0, sizeof *set);
    if (take(c, "[")) {
        add_class(c, set);
    } else if (take(c, "\\")) {
        add_escape(c, set);
    } else if (take(c, ".")) {
        set->negated = true;
        add_range(c, set, '\n', '\n');
    } else if (c->at < c->size && !strchr("^$|()?*+{", c->pattern[c->at])) {
        add_letter(c, set, take_character(c));
    } else {
        refuse(c, "a character that means something here");
    }
    for (int32_t i = 0; i < 128; i++)
        set->ascii[i / 64] |= (uint64_t)look_up(set, i) << (i % 64);
    return (int32_t)(set - c->regex->sets);
}

static void open_group(struct compiler *c)
{
    struct group group = {c->regex->n_code, c->regex->n_code, -1, false};

    if (c->n_groups == MAX_GROUPS) {
        refuse(c, "groups too deep in each other");
        return;
    }
    if (c->n_groups > 0)
        group.ignore_case = c->groups[c->n_groups - 1].ignore_case;
    if (take(c, "?i:"))
        group.ignore_case = true;
    else if (!take(c, "?:") && next_is(c, "?"))
        refuse(c, "this kind of group");
    c->groups[c->n_groups++] = group;
    c->atom = -1;
}

static void parse_not_ahead(struct compiler *c)
{
    int32_t set = parse_set(c);

    if (!take(c, ")"))
        refuse(c, "a look ahead of more than one class");
    emit(c, OP_NOT_AHEAD, set, 0);
    c->atom = -1;
}

/* '|': what stands is the first choice, what follows the second. */
static void next_branch(struct compiler *c)
{
    struct group *group = &c->groups[c->n_groups - 1];

    insert(c, group->branch, OP_SPLIT, 1, c->regex->n_code - group->branch + 2);
    emit(c, OP_JUMP, group->pending, 0);
    group->pending = c->regex->n_code - 1;
    group->branch = c->regex->n_code;
    c->atom = -1;
}

static void close_group(struct compiler *c)
{
    struct group *group;
    int32_t at, before;

    if (c->n_groups == 0) {
        refuse(c, "a group that never began");
        return;
    }
    group = &c->groups[--c->n_groups];
    for (at = group->pending; !c->why && at >= 0; at = before) {
        before = c->regex->code[at].x;
        c->regex->code[at].x = c->regex->n_code - at;
    }
    c->atom = group->begin;
}

/* The decimal number in hand; -1 for none or one that is too great. */
static int32_t take_number(struct compiler *c)
{
    int32_t value = -1;

    while (c->at < c->size && c->pattern[c->at] >= '0' && c->pattern[c->at] <= '9') {
        value = (value < 0 ? 0 : value) * 10 + (c->pattern[c->at++] - '0');
        if (value > MAX_REPEAT)
            return -1;
    }
    return value;
}

/* The piece from c->atom on becomes `least` of it and then up to `most` (-1: any number). */
static void repeat(struct compiler *c, int32_t least, int32_t most)
{
    struct mmqi_regex *r = c->regex;
    struct code piece[MAX_CODE];
    int32_t size = r->n_code - c->atom, copies = most < 0 ? least + 1 : most, i, end;

    if (c->why)
        return;
    if ((int64_t)c->atom + (int64_t)copies * (size + 2) > MAX_CODE) {
        refuse(c, "too long a pattern");
        return;
    }
    memcpy(piece, r->code + c->atom, (size_t)size * sizeof *piece);
    r->n_code = c->atom;
    end = c->atom + least * size + (copies - least) * (size + 1);
    for (i = 0; i < copies; i++) {
        if (i >= least) /* one more, or past them all */
            emit(c, OP_SPLIT, 1, most < 0 ? size + 2 : end - r->n_code);
        memcpy(r->code + r->n_code, piece, (size_t)size * sizeof *piece);
        r->n_code += size;
    }
    if (most < 0)
        emit(c, OP_JUMP, -(size + 1), 0);
}

/* ?, *, +, {n}, {n,} or {n,m}. A second one would make it lazy or possessive. */
static void parse_repeat(struct compiler *c)
{
    char byte = c->pattern[c->at++];
    int32_t least = byte == '+', most = byte == '?' ? 1 : -1;

    if (c->atom < 0) {
        refuse(c, "a repeat of nothing, or a lazy or possessive one");
        return;
    }
    if (byte == '{') {
        least = most = take_number(c);
        if (least >= 0 && take(c, ",") && !next_is(c, "}"))
            most = take_number(c);
        else if (least >= 0 && c->pattern[c->at - 1] == ',')
            most = -1;
        if (!take(c, "}") || least < 0 || (most >= 0 && (most < least || most == 0)) ||
            (most < 0 && c->pattern[c->at - 2] != ','))
            refuse(c, "this repeat");
    }
    repeat(c, least, most);
    c->atom = -1;
}

static void parse_piece(struct compiler *c)
{
    int32_t begin = c->regex->n_code, set;
    char byte = c->pattern[c->at];

    if (take(c, "(?!")) {
        parse_not_ahead(c);
    } else if (take(c, "(")) {
        open_group(c);
    } else if (byte == ')' && c->n_groups > 1) {
        c->at++;
        close_group(c);
    } else if (take(c, "|")) {
        next_branch(c);
    } else if (strchr("?*+{", byte)) {
        parse_repeat(c);
    } else {
        set = parse_set(c);
        emit(c, OP_SET, set, 0);
        c->atom = begin;
    }
}

/* ---- the machine ---- */

/* Threads by preference, each an instruction that takes a character or matches. */
struct threads {
    int16_t pc[MAX_CODE];
    int32_t n;
};

struct machine {
    const struct mmqi_regex *regex;
    const char *text;
    size_t size;
    struct threads lists[2];
    uint64_t seen[MAX_CODE / 64]; /* instructions that were reached in this step */
    uint64_t work;                /* instructions reached */
};

static bool follows(const struct machine *m, const struct set *set, size_t at)
{
    size_t length;

    return at < m->size && set_has(set, mmqi_utf8_decode(m->text + at, m->size - at, &length));
}

/* A thread at `begin`, before the character at `at`: where its splits and jumps lead. */
static void add_thread(struct machine *m, struct threads *threads, int32_t begin, size_t at)
{
    const struct mmqi_regex *r = m->regex;
    int16_t stack[2 * MAX_CODE];
    int32_t n = 0, pc;

    stack[n++] = (int16_t)begin;
    while (n > 0) {
        pc = stack[--n];
        m->work++;
        if (m->seen[pc / 64] >> (pc % 64) & 1)
            continue;
        m->seen[pc / 64] |= UINT64_C(1) << (pc % 64);
        switch (r->code[pc].op) {
        case OP_SPLIT:
            stack[n++] = (int16_t)(pc + r->code[pc].y);
            stack[n++] = (int16_t)(pc + r->code[pc].x);
            break;
        case OP_JUMP:
            stack[n++] = (int16_t)(pc + r->code[pc].x);
            break;
        case OP_NOT_AHEAD:
            if (!follows(m, &r->sets[r->code[pc].x], at))
                stack[n++] = (int16_t)(pc + 1);
            break;
        default:
            threads->pc[threads->n++] = (int16_t)pc;
        }
    }
}

static void begin_step(struct machine *m)
{
    memset(m->seen, 0, (size_t)(m->regex->n_code + 63) / 64 * sizeof *m->seen);
}

/* All threads over the character at `at`. False where one matched before it and cut off the rest:
 * those that stand in `next` are preferred and go on. */
static bool run_step(struct machine *m, const struct threads *now, struct threads *next, size_t at,
                     size_t *length)
{
    const struct mmqi_regex *r = m->regex;
    int32_t code = -1, pc;
    bool matched = false;

    *length = 0;
    if (at < m->size)
        code = mmqi_utf8_decode(m->text + at, m->size - at, length);
    next->n = 0;
    begin_step(m);
    for (int32_t i = 0; i < now->n && !matched; i++) {
        pc = now->pc[i];
        if (r->code[pc].op == OP_MATCH)
            matched = true;
        else if (*length > 0 && set_has(&r->sets[r->code[pc].x], code))
            add_thread(m, next, pc + 1, at + *length);
    }
    return matched;
}

/* The threads before the first character: known beforehand unless they look ahead. */
static void start_threads(struct machine *m, struct threads *threads)
{
    const struct mmqi_regex *r = m->regex;

    threads->n = 0;
    if (!r->fixed_start) {
        begin_step(m);
        add_thread(m, threads, 0, 0);
        return;
    }
    memcpy(threads->pc, r->start, (size_t)r->n_start * sizeof *r->start);
    threads->n = r->n_start;
    m->work += (uint64_t)r->n_start;
}

static void find_start(struct mmqi_regex *regex)
{
    struct machine m = {.regex = regex, .text = "", .size = 0};
    int32_t i;

    start_threads(&m, &m.lists[0]);
    regex->fixed_start = true;
    for (i = 0; i < regex->n_code; i++)
        if (regex->code[i].op == OP_NOT_AHEAD && (m.seen[i / 64] >> (i % 64) & 1))
            regex->fixed_start = false;
    regex->n_start = m.lists[0].n;
    memcpy(regex->start, m.lists[0].pc, (size_t)regex->n_start * sizeof *regex->start);
}

int32_t mmqi_regex_compile(struct mmqi_regex **out, const char *pattern, size_t size,
                           const char **why, size_t *at)
{
    struct compiler c = {.pattern = pattern, .size = size, .atom = -1};

    *out = NULL;
    *why = NULL;
    c.regex = mmqi_calloc(1, sizeof *c.regex);
    if (!c.regex) {
        *why = "no memory";
        return MMQ_ERR_NOMEM;
    }
    if (size == 0 || size > MMQI_MAX_PATTERN || memchr(pattern, '\0', size))
        refuse(&c, "a pattern of this length");
    else
        c.groups[c.n_groups++] = (struct group){0, 0, -1, false};
    while (!c.why && c.at < c.size)
        parse_piece(&c);
    if (!c.why && c.n_groups != 1)
        refuse(&c, "a group without an end");
    if (!c.why)
        close_group(&c);
    emit(&c, OP_MATCH, 0, 0);
    *why = c.why;
    *at = c.at;
    if (c.why) {
        mmqi_regex_free(c.regex);
        return MMQ_ERR_UNSUPPORTED;
    }
    find_start(c.regex);
    *out = c.regex;
    return MMQ_OK;
}

void mmqi_regex_free(struct mmqi_regex *regex)
{
    mmqi_free(regex);
}

bool mmqi_regex_match(const struct mmqi_regex *regex, const char *text, size_t size, size_t *length,
                      uint64_t *work)
{
    struct machine m;
    struct threads *now = &m.lists[0], *next = &m.lists[1], *swap;
    size_t at = 0, width;
    bool found = false;

    m.regex = regex;
    m.text = text;
    m.size = size;
    m.work = 0;
    start_threads(&m, now);
    while (now->n > 0) {
        if (run_step(&m, now, next, at, &width)) {
            found = true;
            *length = at;
        }
        at += width;
        swap = now;
        now = next;
        next = swap;
    }
    *work += m.work;
    return found;
}
