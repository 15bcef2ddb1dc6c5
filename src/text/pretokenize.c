#include "text/pretokenize.h"

#include <stdio.h>
#include <string.h>

#include "core/mem.h"
#include "core/status.h"
#include "text/stage.h"
#include "text/utf8.h"

void mmqi_pieces_clear(struct mmqi_pieces *pieces)
{
    mmqi_buf_clear(&pieces->text);
    pieces->n = 0;
    pieces->failed = pieces->slow = false;
}

void mmqi_pieces_cut(struct mmqi_pieces *pieces)
{
    size_t end = pieces->text.size, capacity, *ends;

    if (end == (pieces->n > 0 ? pieces->ends[pieces->n - 1] : 0) || pieces->failed)
        return;
    if (pieces->n == pieces->capacity) {
        capacity = pieces->capacity ? pieces->capacity * 2 : 64;
        ends = mmqi_realloc_array(pieces->ends, capacity, sizeof *ends);
        if (!ends) {
            pieces->failed = true;
            return;
        }
        pieces->ends = ends;
        pieces->capacity = capacity;
    }
    pieces->ends[pieces->n++] = end;
}

bool mmqi_pieces_failed(const struct mmqi_pieces *pieces)
{
    return pieces->failed || mmqi_buf_failed(&pieces->text);
}

void mmqi_pieces_free(struct mmqi_pieces *pieces)
{
    mmqi_buf_free(&pieces->text);
    mmqi_free(pieces->ends);
    memset(pieces, 0, sizeof *pieces);
}

/* ---- Digits ---- */

static int32_t read_digits(struct mmqi_stage *stage, struct mmqi_fields *fields)
{
    return mmqi_field_bool(fields, "individual_digits", false, &stage->individual);
}

static void cut_digits(const struct mmqi_stage *stage, struct mmqi_pieces *out,
                       const struct mmqi_pieces *in)
{
    size_t i, at = 0, begin, length;
    bool number, before = false;

    for (i = 0; i < in->n; i++) {
        for (begin = at; at < in->ends[i]; at += length) {
            number =
                mmqi_is_number(mmqi_utf8_decode(in->text.data + at, in->ends[i] - at, &length));
            if (at > begin && (number != before || (number && stage->individual))) {
                mmqi_buf_append(&out->text, in->text.data + begin, at - begin);
                mmqi_pieces_cut(out);
                begin = at;
            }
            before = number;
        }
        mmqi_buf_append(&out->text, in->text.data + begin, at - begin);
        mmqi_pieces_cut(out);
    }
}

/* ---- ByteLevel ---- */

static enum mmqi_class class_at(const char *text, size_t size, size_t *length)
{
    return mmqi_class_of(mmqi_utf8_decode(text, size, length));
}

/* Bytes of an English contraction at the start of `text`, which opens with an apostrophe; or 0. */
static size_t contraction(const char *text, size_t size)
{
    static const char *const endings[] = {"s", "t", "re", "ve", "m", "ll", "d"};
    size_t i, n;

    for (i = 0; i < sizeof endings / sizeof *endings; i++) {
        n = strlen(endings[i]);
        if (size > n && memcmp(text + 1, endings[i], n) == 0)
            return n + 1;
    }
    return 0;
}

/* White space leaves its last character to the word that follows, unless it is all there is. */
static size_t spaces(const char *text, size_t size)
{
    size_t at = 0, last = 0, length;

    while (at < size && class_at(text + at, size - at, &length) == MMQI_SPACE) {
        last = at;
        at += length;
    }
    return at == size || last == 0 ? at : last;
}

size_t mmqi_gpt2_word(const char *text, size_t size)
{
    size_t at = 0, length;
    enum mmqi_class first;

    if (text[0] == '\'' && (at = contraction(text, size)) > 0)
        return at;
    first = class_at(text, size, &length);
    if (text[0] == ' ' && size > 1) {
        at = 1;
        first = class_at(text + 1, size - 1, &length);
    }
    if (first == MMQI_SPACE)
        return spaces(text, size);
    do {
        at += length;
    } while (at < size && class_at(text + at, size - at, &length) == first);
    return at;
}

int32_t mmqi_byte_to_letter(unsigned char byte)
{
    if (byte <= ' ')
        return 0x100 + byte;
    if (byte < 0x7F)
        return byte;
    if (byte <= 0xA0)
        return 0x121 + byte - 0x7F;
    return byte == 0xAD ? 0x143 : byte;
}

int32_t mmqi_letter_to_byte(int32_t code)
{
    if (code >= 0x100 && code <= 0x120)
        return code - 0x100;
    if (code >= 0x121 && code <= 0x142)
        return code - 0x121 + 0x7F;
    if (code == 0x143)
        return 0xAD;
    return (code > ' ' && code < 0x7F) || (code > 0xA0 && code <= 0xFF && code != 0xAD) ? code : -1;
}

/* Append the bytes of `text` as letters. */
static void spell_bytes(struct mmqi_buf *out, const char *text, size_t size)
{
    char spelled[512];
    size_t i, n = 0;

    for (i = 0; i < size; i++) {
        n += mmqi_utf8_encode(spelled + n, mmqi_byte_to_letter((unsigned char)text[i]));
        if (n > sizeof spelled - 4) {
            mmqi_buf_append(out, spelled, n);
            n = 0;
        }
    }
    mmqi_buf_append(out, spelled, n);
}

static int32_t read_byte_level(struct mmqi_stage *stage, struct mmqi_fields *fields)
{
    int32_t status = mmqi_field_bool(fields, "add_prefix_space", true, &stage->prefix_space);

    if (status == MMQ_OK)
        status = mmqi_field_bool(fields, "use_regex", true, &stage->use_regex);
    return status;
}

/* One piece that begins with the space it may have to be given. */
static void cut_words(const struct mmqi_stage *stage, struct mmqi_pieces *out, const char *text,
                      size_t size)
{
    size_t at, length;

    for (at = 0; at < size; at += length) {
        length = stage->use_regex ? mmqi_gpt2_word(text + at, size - at) : size;
        spell_bytes(&out->text, text + at, length);
        mmqi_pieces_cut(out);
    }
}

static void cut_byte_level(const struct mmqi_stage *stage, struct mmqi_pieces *out,
                           const struct mmqi_pieces *in)
{
    struct mmqi_buf spaced = {0};
    size_t i, begin = 0;

    for (i = 0; i < in->n; begin = in->ends[i++]) {
        if (!stage->prefix_space || in->text.data[begin] == ' ') {
            cut_words(stage, out, in->text.data + begin, in->ends[i] - begin);
            continue;
        }
        mmqi_buf_clear(&spaced);
        mmqi_buf_append(&spaced, " ", 1);
        mmqi_buf_append(&spaced, in->text.data + begin, in->ends[i] - begin);
        if (mmqi_buf_failed(&spaced))
            out->failed = true;
        else
            cut_words(stage, out, spaced.data, spaced.size);
    }
    mmqi_buf_free(&spaced);
}

/* ---- Split ---- */

static int32_t compile_split(struct mmqi_stage *stage, const struct mmqi_fields *fields,
                             const struct mmqi_field *regex)
{
    const char *why;
    size_t at;
    int32_t status = mmqi_regex_compile(&stage->regex, regex->text, regex->size, &why, &at);

    return status == MMQ_OK
               ? MMQ_OK
               : mmqi_fields_fail(fields, status, "Regex, before byte %zu: %s", at, why);
}

static int32_t read_behavior(struct mmqi_stage *stage, const struct mmqi_fields *fields)
{
    static const char *const names[] = {[MMQI_SPLIT_ISOLATED] = "Isolated",
                                        [MMQI_SPLIT_REMOVED] = "Removed",
                                        [MMQI_SPLIT_PREVIOUS] = "MergedWithPrevious",
                                        [MMQI_SPLIT_NEXT] = "MergedWithNext",
                                        [MMQI_SPLIT_CONTIGUOUS] = "Contiguous"};
    const struct mmqi_field *behavior;
    int32_t status = mmqi_field_need(fields, "behavior", MMQI_FIELD_TEXT, &behavior);
    size_t i;

    for (i = 0; i < sizeof names / sizeof *names && status == MMQ_OK; i++) {
        if (strcmp(behavior->text, names[i]) != 0)
            continue;
        stage->behavior = (enum mmqi_behavior)i;
        return mmqi_field_bool(fields, "invert", false, &stage->invert);
    }
    return status == MMQ_OK ? mmqi_fields_fail(fields, MMQ_ERR_UNSUPPORTED, "'%s' is not supported",
                                               behavior->text)
                            : status;
}

/* The pattern: {"Regex": ..} or {"String": ..}. */
static int32_t read_pattern(struct mmqi_stage *stage, struct mmqi_fields *pattern)
{
    const struct mmqi_field *text;
    bool regex = mmqi_field_find(pattern, "Regex") != NULL;
    int32_t status;

    if (!regex && !mmqi_field_find(pattern, "String"))
        return mmqi_fields_fail(pattern, MMQ_ERR_UNSUPPORTED, "'%s' is not supported",
                                pattern->n > 0 ? pattern->list[0].key : "{}");
    status = mmqi_field_need(pattern, regex ? "Regex" : "String", MMQI_FIELD_TEXT, &text);
    if (status != MMQ_OK || regex)
        return status == MMQ_OK ? compile_split(stage, pattern, text) : status;
    status = mmqi_replace_init(&stage->replace, text->text, text->size, "", 0);
    if (status == MMQ_ERR_INVALID)
        return mmqi_fields_fail(pattern, MMQ_ERR_FORMAT, "the pattern is empty");
    return status == MMQ_OK ? MMQ_OK
                            : mmqi_fields_fail(pattern, status, "no memory for the pattern");
}

static int32_t read_split(struct mmqi_stage *stage, struct mmqi_fields *fields)
{
    const struct mmqi_field *pattern;
    struct mmqi_fields inner = {.name = fields->name};
    int32_t status = mmqi_field_need(fields, "pattern", MMQI_FIELD_OTHER, &pattern);

    if (status == MMQ_OK)
        status = read_behavior(stage, fields);
    if (status != MMQ_OK)
        return status;
    snprintf(inner.where, sizeof inner.where, "%.80s.pattern", fields->where);
    status = mmqi_fields_read(&inner, pattern->json, pattern->size);
    if (status == MMQ_OK)
        status = read_pattern(stage, &inner);
    mmqi_fields_clear(&inner);
    return status;
}

/* A piece while it is cut into spans, matches and what lies between them. */
struct splitting {
    const struct mmqi_stage *stage;
    struct mmqi_pieces *out;
    bool any, match; /* there was a span; it was a match */
};

/* Put out the next span, joined with the one before or not. */
static void put_span(struct splitting *splitting, const char *text, size_t size, bool match)
{
    enum mmqi_behavior behavior = splitting->stage->behavior;
    bool joined;

    match = match != splitting->stage->invert;
    if (size == 0)
        return;
    joined = splitting->any && ((behavior == MMQI_SPLIT_PREVIOUS && match && !splitting->match) ||
                                (behavior == MMQI_SPLIT_NEXT && !match && splitting->match) ||
                                (behavior == MMQI_SPLIT_CONTIGUOUS && match == splitting->match));
    if (!joined)
        mmqi_pieces_cut(splitting->out);
    if (!match || behavior != MMQI_SPLIT_REMOVED)
        mmqi_buf_append(&splitting->out->text, text, size);
    splitting->any = true;
    splitting->match = match;
}

/* Where the next match in text[at, size) begins, and its length; `size` for nowhere. A pattern that
 * looks far ahead and takes little would need the square of the text's length; one look at all of
 * it is always within the bound. */
static size_t find_match(struct splitting *splitting, const char *text, size_t size, size_t at,
                         size_t *length, uint64_t *work)
{
    const struct mmqi_replace *literal = &splitting->stage->replace;
    const uint64_t most = MMQI_REGEX_STEP * ((uint64_t)size + 1);
    const char *found;

    if (!splitting->stage->regex) {
        found = memmem(text + at, size - at, literal->pattern, literal->pattern_size);
        *length = literal->pattern_size;
        return found ? (size_t)(found - text) : size;
    }
    while (at < size) {
        bool matches =
            mmqi_regex_match(splitting->stage->regex, text + at, size - at, length, work);

        splitting->out->slow = *work > most;
        if ((matches && *length > 0) || splitting->out->slow)
            break;
        mmqi_utf8_decode(text + at, size - at, length);
        at += *length; /* belongs to what lies between matches */
    }
    return at;
}

static void cut_piece(const struct mmqi_stage *stage, struct mmqi_pieces *out, const char *text,
                      size_t size)
{
    struct splitting splitting = {.stage = stage, .out = out};
    size_t at, begin = 0, length = 0;
    uint64_t work = 0;

    while (begin < size && !out->slow) {
        at = find_match(&splitting, text, size, begin, &length, &work);
        put_span(&splitting, text + begin, at - begin, false);
        if (at < size)
            put_span(&splitting, text + at, length, true);
        begin = at < size ? at + length : size;
    }
    mmqi_pieces_cut(out);
}

static void cut_split(const struct mmqi_stage *stage, struct mmqi_pieces *out,
                      const struct mmqi_pieces *in)
{
    size_t i, begin = 0;

    for (i = 0; i < in->n && !out->slow; begin = in->ends[i++])
        cut_piece(stage, out, in->text.data + begin, in->ends[i] - begin);
}

const struct mmqi_stage_kind mmqi_pre_tokenizer_kinds[] = {
    {.type = "Digits", .read = read_digits, .cut = cut_digits},
    {.type = "ByteLevel", .read = read_byte_level, .cut = cut_byte_level},
    {.type = "Metaspace", .read = mmqi_read_metaspace, .cut = mmqi_cut_metaspace},
    {.type = "Split", .read = read_split, .cut = cut_split},
    {.type = NULL},
};
