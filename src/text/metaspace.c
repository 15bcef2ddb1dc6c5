/*
 * Metaspace, SentencePiece's way with white space as the tokenizers library
 * has it: spaces are written as another character, with which words begin.
 */
#include <string.h>

#include "core/status.h"
#include "core/utf8.h"
#include "text/decode.h"
#include "text/pretokenize.h"
#include "text/stage.h"

/* "prepend_scheme"; older files have "add_prefix_space" in its place. */
static int32_t read_prepend(struct mmqi_stage *stage, const struct mmqi_fields *fields)
{
    static const char *const names[] = {[MMQI_PREPEND_ALWAYS] = "always",
                                        [MMQI_PREPEND_FIRST] = "first",
                                        [MMQI_PREPEND_NEVER] = "never"};
    const struct mmqi_field *scheme;
    bool prefix = true;
    size_t i;
    int32_t status = mmqi_field_bool(fields, "add_prefix_space", true, &prefix);

    stage->prepend = prefix ? MMQI_PREPEND_ALWAYS : MMQI_PREPEND_NEVER;
    if (status != MMQ_OK || !mmqi_field_find(fields, "prepend_scheme"))
        return status;
    status = mmqi_field_need(fields, "prepend_scheme", MMQI_FIELD_TEXT, &scheme);
    for (i = 0; i < 3 && status == MMQ_OK; i++) {
        stage->prepend = (enum mmqi_prepend)i;
        if (strcmp(scheme->text, names[i]) == 0)
            return MMQ_OK;
    }
    return status == MMQ_OK ? mmqi_fields_fail(fields, MMQ_ERR_UNSUPPORTED,
                                               "prepend_scheme '%s' is not supported", scheme->text)
                            : status;
}

int32_t mmqi_read_metaspace(struct mmqi_stage *stage, struct mmqi_fields *fields)
{
    const struct mmqi_field *letter;
    bool split = true;
    size_t length = 0;
    int32_t status = mmqi_field_need(fields, "replacement", MMQI_FIELD_TEXT, &letter);

    if (status == MMQ_OK)
        status = read_prepend(stage, fields);
    if (status == MMQ_OK)
        status = mmqi_field_bool(fields, "split", true, &split);
    if (status != MMQ_OK)
        return status;
    if (letter->size > 0)
        mmqi_utf8_decode(letter->text, letter->size, &length);
    if (length == 0 || length != letter->size)
        return mmqi_fields_fail(fields, MMQ_ERR_FORMAT, "'replacement' is not one character");
    memcpy(stage->letter, letter->text, length);
    stage->letter_size = length;
    stage->behavior = split ? MMQI_SPLIT_NEXT : MMQI_SPLIT_NONE;
    return MMQ_OK;
}

/* ---- before the model ---- */

static bool at_letter(const struct mmqi_stage *stage, const char *text, size_t size)
{
    return size >= stage->letter_size && memcmp(text, stage->letter, stage->letter_size) == 0;
}

static void cut_piece(const struct mmqi_stage *stage, struct mmqi_pieces *out, const char *text,
                      size_t size, bool first)
{
    size_t at, length;
    bool space;

    if (stage->prepend != MMQI_PREPEND_NEVER && (first || stage->prepend == MMQI_PREPEND_ALWAYS) &&
        text[0] != ' ' && !at_letter(stage, text, size))
        mmqi_buf_append(&out->text, stage->letter, stage->letter_size);
    for (at = 0; at < size; at += length) {
        mmqi_utf8_decode(text + at, size - at, &length);
        space = text[at] == ' ' || at_letter(stage, text + at, size - at);
        if (space && at > 0 && stage->behavior == MMQI_SPLIT_NEXT)
            mmqi_pieces_cut(out);
        if (space)
            mmqi_buf_append(&out->text, stage->letter, stage->letter_size);
        else
            mmqi_buf_append(&out->text, text + at, length);
    }
    mmqi_pieces_cut(out);
}

void mmqi_cut_metaspace(const struct mmqi_stage *stage, struct mmqi_pieces *out,
                        const struct mmqi_pieces *in)
{
    size_t i, begin = 0;

    for (i = 0; i < in->n; begin = in->ends[i++])
        cut_piece(stage, out, in->text.data + begin, in->ends[i] - begin, i == 0 && in->begins);
}

/* ---- after it ---- */

/* The character is a space again; in the first token, which has it at the front, it is nothing. */
void mmqi_decode_metaspace(struct mmqi_decode_step *step, const char *text, size_t size,
                           int32_t end)
{
    const struct mmqi_stage *stage = step->stage;
    bool drop = !step->inside && stage->prepend != MMQI_PREPEND_NEVER;
    const char *hit;
    size_t at = 0, run;

    while (at < size) {
        hit = memmem(text + at, size - at, stage->letter, stage->letter_size);
        run = hit ? (size_t)(hit - text) - at : size - at;
        mmqi_pass_on(step, text + at, run, 0);
        if (hit && !drop)
            mmqi_pass_on(step, " ", 1, 0);
        at += run + (hit ? stage->letter_size : 0);
    }
    if (end)
        mmqi_pass_on(step, "", 0, end);
    step->inside = (step->inside || (end & MMQI_END_TOKEN)) && !(end & MMQI_END_TEXT);
}
