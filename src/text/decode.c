#include "text/decode.h"

#include <string.h>

#include "core/mem.h"
#include "core/status.h"
#include "text/pretokenize.h"
#include "text/tokenizer_parts.h"
#include "text/utf8.h"

void mmqi_pass_on(struct mmqi_decode_step *step, const char *text, size_t size, int32_t end)
{
    if (size == 0 && end == 0)
        return;
    if (step->next)
        step->next->stage->kind->decode(step->next, text, size, end);
    else
        mmqi_buf_append(step->out, text, size);
}

/* ---- Join: what a file without a decoder means ---- */

static void decode_join(struct mmqi_decode_step *step, const char *text, size_t size, int32_t end)
{
    if (end & MMQI_END_TEXT) {
        step->inside = false;
        mmqi_pass_on(step, "", 0, end);
        return;
    }
    if (step->inside)
        mmqi_pass_on(step, " ", 1, 0);
    step->inside = true;
    mmqi_pass_on(step, text, size, end);
}

/* ---- Fuse: all tokens become one ---- */

static void decode_fuse(struct mmqi_decode_step *step, const char *text, size_t size, int32_t end)
{
    mmqi_pass_on(step, text, size, 0);
    if (end & MMQI_END_TEXT) {
        mmqi_pass_on(step, "", 0, MMQI_END_TOKEN);
        mmqi_pass_on(step, "", 0, MMQI_END_TEXT);
    }
}

/* ---- Replace, within each token ---- */

static void decode_replace(struct mmqi_decode_step *step, const char *text, size_t size,
                           int32_t end)
{
    mmqi_buf_clear(&step->token);
    mmqi_replace_feed(&step->stage->replace, &step->held, &step->token, text, size);
    if (end)
        mmqi_replace_finish(&step->stage->replace, &step->held, &step->token);
    step->failed |= mmqi_buf_failed(&step->token);
    mmqi_pass_on(step, step->token.data, step->token.size, end);
}

/* ---- Strip: one character, a number of times, from both ends of each token ---- */

static int32_t read_strip(struct mmqi_stage *stage, struct mmqi_fields *fields)
{
    const struct mmqi_field *content, *start, *stop;
    int32_t status = mmqi_field_need(fields, "content", MMQI_FIELD_TEXT, &content);
    size_t length = 0;

    if (status == MMQ_OK)
        status = mmqi_field_need(fields, "start", MMQI_FIELD_INTEGER, &start);
    if (status == MMQ_OK)
        status = mmqi_field_need(fields, "stop", MMQI_FIELD_INTEGER, &stop);
    if (status != MMQ_OK)
        return status;
    if (content->size > 0)
        mmqi_utf8_decode(content->text, content->size, &length);
    if (length == 0 || length != content->size || start->integer < 0 || stop->integer < 0)
        return mmqi_fields_fail(fields, MMQ_ERR_FORMAT,
                                "not one character and two counts that are not negative");
    memcpy(stage->letter, content->text, length);
    stage->letter_size = length;
    stage->start = start->integer;
    stage->stop = stop->integer;
    return MMQ_OK;
}

/* Pass on what was held at the end: it is inside the token after all. */
static void release_end(struct mmqi_decode_step *step)
{
    for (; step->n_end > 0; step->n_end--)
        mmqi_pass_on(step, step->stage->letter, step->stage->letter_size, 0);
}

/* A character that is the one to strip. */
static void strip_letter(struct mmqi_decode_step *step)
{
    if (!step->inside && step->n_start < (size_t)step->stage->start) {
        step->n_start++;
        return;
    }
    step->inside = true;
    if (step->n_end < (size_t)step->stage->stop)
        step->n_end++;
    else
        mmqi_pass_on(step, step->stage->letter, step->stage->letter_size, 0);
}

static void decode_strip(struct mmqi_decode_step *step, const char *text, size_t size, int32_t end)
{
    const struct mmqi_stage *stage = step->stage;
    const char *hit;
    size_t at = 0, run;

    while (at < size) {
        hit = memmem(text + at, size - at, stage->letter, stage->letter_size);
        run = hit ? (size_t)(hit - text) - at : size - at;
        if (run > 0) {
            step->inside = true;
            release_end(step);
            mmqi_pass_on(step, text + at, run, 0);
        }
        at += run;
        if (hit) {
            strip_letter(step);
            at += stage->letter_size;
        }
    }
    if (end) {
        step->n_start = step->n_end = 0;
        step->inside = false;
        mmqi_pass_on(step, "", 0, end);
    }
}

/* ---- ByteFallback: runs of tokens <0xNN> become the text they spell ---- */

/* The byte that a token of the form <0xNN> stands for, -1 for any other token. */
static int32_t byte_of(const char *text, size_t size)
{
    int32_t value = 0, digit;
    size_t i;

    if (size != 6 || memcmp(text, "<0x", 3) != 0 || text[5] != '>')
        return -1;
    for (i = 3; i < 5; i++) {
        digit = text[i] >= '0' && text[i] <= '9'   ? text[i] - '0'
                : text[i] >= 'A' && text[i] <= 'F' ? text[i] - 'A' + 10
                : text[i] >= 'a' && text[i] <= 'f' ? text[i] - 'a' + 10
                                                   : -1;
        if (digit < 0)
            return -1;
        value = value * 16 + digit;
    }
    return value;
}

/* The run of bytes ends: text as a whole, or one U+FFFD per byte. */
static void release_run(struct mmqi_decode_step *step)
{
    size_t i, n = step->bytes.size;

    if (n > 0 && mmqi_utf8_valid(step->bytes.data, n)) {
        mmqi_pass_on(step, step->bytes.data, n, MMQI_END_TOKEN);
    } else {
        for (i = 0; i < n; i++)
            mmqi_pass_on(step, MMQI_REPLACEMENT, 3, MMQI_END_TOKEN);
    }
    step->failed |= mmqi_buf_failed(&step->bytes);
    mmqi_buf_clear(&step->bytes);
}

static void decode_byte_fallback(struct mmqi_decode_step *step, const char *text, size_t size,
                                 int32_t end)
{
    int32_t value;
    char byte;

    mmqi_buf_append(&step->token, text, size);
    step->failed |= mmqi_buf_failed(&step->token);
    value = step->inside ? -1 : byte_of(step->token.data ? step->token.data : "", step->token.size);
    if (value >= 0 && (end & MMQI_END_TOKEN)) {
        byte = (char)value;
        mmqi_buf_append(&step->bytes, &byte, 1);
    } else if (end || step->token.size > 6) { /* no byte: the run ends, the token goes on */
        release_run(step);
        mmqi_pass_on(step, step->token.data, step->token.size, end);
        step->inside = !end;
    } else {
        return;
    }
    mmqi_buf_clear(&step->token);
}

/* ---- ByteLevel: letters of the byte alphabet become bytes, all of them together text ---- */

/* Append the bytes that the letters of a token stand for; false if one is not of the alphabet. */
static bool append_bytes(struct mmqi_buf *out, const char *text, size_t size)
{
    char chunk[256];
    size_t at, length, n = 0;
    int32_t byte;

    for (at = 0; at < size; at += length) {
        byte = mmqi_letter_to_byte(mmqi_utf8_decode(text + at, size - at, &length));
        if (byte < 0)
            return false;
        chunk[n++] = (char)byte;
        if (n == sizeof chunk) {
            mmqi_buf_append(out, chunk, n);
            n = 0;
        }
    }
    mmqi_buf_append(out, chunk, n);
    return true;
}

/* Pass on the characters that are whole; `end`: what is left will not become one. */
static void release_bytes(struct mmqi_decode_step *step, bool end)
{
    struct mmqi_buf *bytes = &step->bytes, text = {0};
    size_t tail = 0, length;

    if (bytes->size == 0)
        return;
    /* An unfinished character is at most three bytes, and starts at the last lead byte. */
    while (!end && tail < 3 && tail < bytes->size) {
        tail++;
        if (mmqi_utf8_decode(bytes->data + bytes->size - tail, tail, &length) == MMQI_UTF8_PARTIAL)
            break;
        if (tail == 3 || tail == bytes->size) {
            tail = 0;
            break;
        }
    }
    mmqi_utf8_repair(&text, bytes->data, bytes->size - tail);
    step->failed |= mmqi_buf_failed(&text) || mmqi_buf_failed(bytes);
    mmqi_pass_on(step, text.data, text.size, 0);
    memmove(bytes->data, bytes->data + bytes->size - tail, tail);
    bytes->size = tail;
    mmqi_buf_free(&text);
}

static void decode_byte_level(struct mmqi_decode_step *step, const char *text, size_t size,
                              int32_t end)
{
    size_t before = step->bytes.size;

    if (step->token.size > 0 || !end) {
        mmqi_buf_append(&step->token, text, size);
        text = step->token.data;
        size = step->token.size;
    }
    step->failed |= mmqi_buf_failed(&step->token);
    if (!end || step->failed)
        return;
    if (!append_bytes(&step->bytes, text, size)) { /* such a token stands for its own bytes */
        step->bytes.size = before;
        mmqi_buf_append(&step->bytes, text, size);
    }
    mmqi_buf_clear(&step->token);
    release_bytes(step, end & MMQI_END_TEXT);
    if (end & MMQI_END_TEXT) {
        mmqi_pass_on(step, "", 0, MMQI_END_TOKEN);
        mmqi_pass_on(step, "", 0, MMQI_END_TEXT);
    }
}

const struct mmqi_stage_kind mmqi_decoder_kinds[] = {
    {.type = "Replace", .read = mmqi_stage_read_replace, .decode = decode_replace},
    {.type = "Metaspace", .read = mmqi_read_metaspace, .decode = mmqi_decode_metaspace},
    {.type = "ByteFallback", .decode = decode_byte_fallback},
    {.type = "Fuse", .decode = decode_fuse},
    {.type = "Strip", .read = read_strip, .decode = decode_strip},
    {.type = "ByteLevel", .decode = decode_byte_level},
    {.type = NULL},
};

static const struct mmqi_stage_kind join_kind = {.type = "Join", .decode = decode_join};
static const struct mmqi_stage join_stage = {.kind = &join_kind};

/* ---- the chain ---- */

struct mmqi_decoder {
    const struct mmqi_tokenizer *tokenizer;
    bool skip_special;
    struct mmqi_buf out;
    size_t n_steps;
    struct mmqi_decode_step steps[MMQI_MAX_STAGES];
};

int32_t mmqi_decoder_create(struct mmqi_decoder **out, const struct mmqi_tokenizer *tokenizer,
                            bool skip_special)
{
    const struct mmqi_stages *stages = &tokenizer->sections[MMQI_DECODER];
    struct mmqi_decoder *decoder = mmqi_calloc(1, sizeof *decoder);
    size_t i;

    *out = decoder;
    if (!decoder)
        return mmqi_fail(MMQ_ERR_NOMEM, "tokenizer: no memory for a decoder");
    decoder->tokenizer = tokenizer;
    decoder->skip_special = skip_special;
    decoder->n_steps = stages->n > 0 ? stages->n : 1;
    for (i = 0; i < decoder->n_steps; i++) {
        decoder->steps[i].stage = stages->n > 0 ? &stages->list[i] : &join_stage;
        decoder->steps[i].next = i + 1 < decoder->n_steps ? &decoder->steps[i + 1] : NULL;
        decoder->steps[i].out = &decoder->out;
    }
    return MMQ_OK;
}

void mmqi_decoder_free(struct mmqi_decoder *decoder)
{
    size_t i;

    if (!decoder)
        return;
    for (i = 0; i < decoder->n_steps; i++) {
        mmqi_buf_free(&decoder->steps[i].token);
        mmqi_buf_free(&decoder->steps[i].bytes);
    }
    mmqi_buf_free(&decoder->out);
    mmqi_free(decoder);
}

static void run_chain(struct mmqi_decoder *decoder, const char *text, size_t size, int32_t end)
{
    decoder->steps[0].stage->kind->decode(&decoder->steps[0], text, size, end);
}

static void run_id(struct mmqi_decoder *decoder, int32_t id)
{
    size_t size = 0;
    const char *text = mmqi_tokenizer_text(decoder->tokenizer, id, &size);

    if (text && !(decoder->skip_special && mmqi_tokenizer_is_special(decoder->tokenizer, id)))
        run_chain(decoder, text, size, MMQI_END_TOKEN);
}

/* What the chain has put out, unless memory was refused on the way. */
static int32_t take_text(struct mmqi_decoder *decoder, const char **text, size_t *size)
{
    bool failed = mmqi_buf_failed(&decoder->out);
    size_t i;

    for (i = 0; i < decoder->n_steps; i++)
        failed |= decoder->steps[i].failed;
    *text = failed || decoder->out.size == 0 ? "" : decoder->out.data;
    *size = failed ? 0 : decoder->out.size;
    return failed ? mmqi_fail(MMQ_ERR_NOMEM, "tokenizer: no memory for decoded text") : MMQ_OK;
}

int32_t mmqi_decoder_feed(struct mmqi_decoder *decoder, int32_t id, const char **text, size_t *size)
{
    decoder->out.size = 0;
    run_id(decoder, id);
    return take_text(decoder, text, size);
}

int32_t mmqi_decoder_finish(struct mmqi_decoder *decoder, const char **text, size_t *size)
{
    decoder->out.size = 0;
    run_chain(decoder, "", 0, MMQI_END_TEXT);
    return take_text(decoder, text, size);
}

int32_t mmqi_tokenizer_decode(const struct mmqi_tokenizer *tokenizer, char **out, size_t *size,
                              const int32_t *ids, size_t n, bool skip_special)
{
    struct mmqi_decoder *decoder = NULL;
    int32_t status = mmqi_decoder_create(&decoder, tokenizer, skip_special);
    const char *text;
    size_t i;

    *out = NULL;
    *size = 0;
    if (status != MMQ_OK)
        return status;
    for (i = 0; i < n; i++)
        run_id(decoder, ids[i]);
    run_chain(decoder, "", 0, MMQI_END_TEXT);
    status = take_text(decoder, &text, size);
    if (status == MMQ_OK) {
        *out = mmqi_buf_take(&decoder->out);
        if (!*out)
            status = mmqi_fail(MMQ_ERR_NOMEM, "tokenizer: no memory for decoded text");
    }
    mmqi_decoder_free(decoder);
    return status;
}
