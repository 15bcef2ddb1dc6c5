#include "text/mark.h"

#include <string.h>

#include "core/mem.h"
#include "core/status.h"
#include "text/tokenizer_parts.h"
#include "text/utf8.h"

/* ---- places ---- */

static int32_t push_mark(struct mmqi_marks *marks, size_t at)
{
    size_t capacity = marks->capacity ? marks->capacity * 2 : 16, *grown;

    if (marks->n > 0 && marks->at[marks->n - 1] == at)
        return MMQ_OK; /* two marks behind one character */
    if (marks->n == marks->capacity) {
        grown = mmqi_realloc_array(marks->at, capacity, sizeof *grown);
        if (!grown)
            return MMQ_ERR_NOMEM;
        marks->at = grown;
        marks->capacity = capacity;
    }
    marks->at[marks->n++] = at;
    return MMQ_OK;
}

int32_t mmqi_marks_take(struct mmqi_marks *marks, struct mmqi_buf *out, const char *text,
                        size_t size)
{
    size_t begin = out->size, at = 0, run;
    const char *mark;
    int32_t status = MMQ_OK;

    marks->n = 0;
    while (at < size && status == MMQ_OK && !mmqi_buf_failed(out)) {
        mark = memchr(text + at, MMQI_MARK[0], size - at);
        run = mark ? (size_t)(mark - text) - at : size - at;
        mmqi_utf8_repair(out, text + at, run);
        at += run + (mark != NULL);
        if (mark && out->size > begin && !mmqi_buf_failed(out))
            status = push_mark(marks, mmqi_utf8_before(out->data, out->size) - begin);
    }
    return mmqi_buf_failed(out) ? MMQ_ERR_NOMEM : status;
}

/* The first mark at or after `at`. */
static size_t find_mark(const struct mmqi_marks *marks, size_t at)
{
    size_t low = 0, high = marks->n, middle;

    while (low < high) {
        middle = low + (high - low) / 2;
        if (marks->at[middle] < at)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

int mmqi_marks_any(const struct mmqi_marks *marks, size_t begin, size_t end)
{
    size_t i = find_mark(marks, begin);

    return i < marks->n && marks->at[i] < end;
}

void mmqi_marks_put(const struct mmqi_marks *marks, struct mmqi_buf *out, const char *text,
                    size_t begin, size_t end)
{
    size_t i, length, stop;

    for (i = find_mark(marks, begin); i < marks->n && marks->at[i] < end; i++) {
        mmqi_utf8_decode(text + marks->at[i], end - marks->at[i], &length);
        stop = marks->at[i] + length;
        mmqi_buf_append(out, text + begin, stop - begin);
        mmqi_buf_append(out, MMQI_MARK, 1);
        begin = stop;
    }
    mmqi_buf_append(out, text + begin, end - begin);
}

void mmqi_marks_drop(const struct mmqi_marks *marks, struct mmqi_matches *matches)
{
    struct mmqi_match *list = matches->list;
    size_t i, n = 0, mark = 0;

    for (i = 0; i < matches->n; i++) {
        while (mark < marks->n && marks->at[mark] < list[i].begin)
            mark++;
        if (mark == marks->n || marks->at[mark] - list[i].begin >= list[i].size)
            list[n++] = list[i];
    }
    matches->n = n;
}

void mmqi_marks_free(struct mmqi_marks *marks)
{
    mmqi_free(marks->at);
    memset(marks, 0, sizeof *marks);
}

size_t mmqi_unmark(char *text, size_t size)
{
    size_t i, n = 0;

    for (i = 0; i < size; i++)
        if (text[i] != MMQI_MARK[0])
            text[n++] = text[i];
    text[n] = '\0';
    return n;
}

/* ---- conversations ---- */

/* Append `text` with a mark at the beginning of each match of two lists. */
static void append_marked(struct mmqi_buf *out, const struct mmqi_matches *matches,
                          const struct mmqi_matches *ends, const char *text, size_t size)
{
    size_t i = 0, j = 0, at = 0, begin, length, stop;

    while (i < matches->n || j < ends->n) {
        if (j == ends->n || (i < matches->n && matches->list[i].begin <= ends->list[j].begin))
            begin = matches->list[i++].begin;
        else
            begin = ends->list[j++].begin;
        if (begin < at)
            continue; /* of both lists */
        mmqi_utf8_decode(text + begin, size - begin, &length);
        stop = begin + length;
        mmqi_buf_append(out, text + at, stop - at);
        mmqi_buf_append(out, MMQI_MARK, 1);
        at = stop;
    }
    mmqi_buf_append(out, text + at, size - at);
}

/* Append text[at .. begin) and the first character of `marker`, which is there, with a mark; where
 * that ends. */
static size_t append_first(struct mmqi_buf *out, const char *marker, const char *text, size_t at,
                           size_t begin)
{
    size_t length;

    mmqi_utf8_decode(marker, strlen(marker), &length);
    mmqi_buf_append(out, text + at, begin + length - at);
    mmqi_buf_append(out, MMQI_MARK, 1);
    return begin + length;
}

/* Append `text` and its zero byte with a mark wherever `marker` begins, and where the text ends
 * with a start of it, which the next string could go on with. */
static void append_unlike(struct mmqi_buf *out, const char *marker, const char *text, size_t size)
{
    size_t at = 0, n = strlen(marker), start;
    const char *found;

    while (n > 0 && (found = memmem(text + at, size - at, marker, n)) != NULL)
        at = append_first(out, marker, text, at, (size_t)(found - text));
    for (start = n > 0 ? n - 1 : 0; start > 0; start--) /* markers are short */
        if (start < size - at && memcmp(text + size - 1 - start, marker, start) == 0)
            at = append_first(out, marker, text, at, size - 1 - start);
    mmqi_buf_append(out, text + at, size - at);
}

/* What marking one string needs. */
struct marking {
    const struct mmqi_added *added;
    const char *marker; /* NULL: the special tokens are all */
    struct mmqi_buf repaired, marked;
    struct mmqi_matches matches;
    struct mmqi_matches ends; /* that begin a token, which the next string could end */
};

/* One string of the conversation, with a zero byte after it. */
static int32_t mark_text(struct marking *marking, struct mmqi_buf *out, const char *text)
{
    struct mmqi_buf *repaired = &marking->repaired, *marked = &marking->marked;
    int32_t status;

    mmqi_buf_clear(repaired);
    mmqi_buf_clear(marked);
    mmqi_utf8_repair(repaired, text, strlen(text));
    mmqi_buf_append(repaired, "", 1);
    if (mmqi_buf_failed(repaired))
        return MMQ_ERR_NOMEM;
    status = mmqi_matcher_find_all(&marking->added->special, &marking->matches, repaired->data,
                                   repaired->size - 1);
    if (status == MMQ_OK)
        status = mmqi_matcher_find_ends(&marking->added->starts, &marking->ends, repaired->data,
                                        repaired->size - 1);
    if (status != MMQ_OK)
        return status;
    append_marked(marked, &marking->matches, &marking->ends, repaired->data, repaired->size);
    if (mmqi_buf_failed(marked))
        return MMQ_ERR_NOMEM;
    append_unlike(out, marking->marker ? marking->marker : "", marked->data, marked->size);
    return mmqi_buf_failed(out) ? MMQ_ERR_NOMEM : MMQ_OK;
}

/* All strings into marked->text, in the order in which link_parts() goes. */
static int32_t mark_texts(struct mmqi_marked *marked, struct marking *marking, size_t *n_parts)
{
    const struct mmqi_chat_message *message = marked->input.messages;
    int32_t status = MMQ_OK;
    size_t i, j;

    *n_parts = 0;
    for (i = 0; i < marked->input.n_messages && status == MMQ_OK; i++, message++) {
        status = mark_text(marking, &marked->text, message->role);
        for (j = 0; j < message->n_parts && status == MMQ_OK; j++)
            status = mark_text(marking, &marked->text,
                               message->parts[j].text ? message->parts[j].text : "");
        *n_parts += message->n_parts;
    }
    return status;
}

/* Copies of messages and parts that point at the marked strings. */
static int32_t link_parts(struct mmqi_marked *marked, size_t n_parts)
{
    const struct mmqi_chat_message *from = marked->input.messages;
    size_t n = marked->input.n_messages, i, j, part = 0;
    const char *text = marked->text.data;

    marked->messages = mmqi_alloc_array(n + 1, sizeof *marked->messages);
    marked->parts = mmqi_alloc_array(n_parts + 1, sizeof *marked->parts);
    if (!marked->messages || !marked->parts)
        return MMQ_ERR_NOMEM;
    for (i = 0; i < n; i++) {
        marked->messages[i] =
            (struct mmqi_chat_message){text, &marked->parts[part], from[i].n_parts};
        text += strlen(text) + 1;
        for (j = 0; j < from[i].n_parts; j++, part++) {
            marked->parts[part] = from[i].parts[j];
            marked->parts[part].text = text;
            text += strlen(text) + 1;
        }
    }
    marked->input.messages = marked->messages;
    return MMQ_OK;
}

int32_t mmqi_mark_chat(struct mmqi_marked *marked, const struct mmqi_tokenizer *tokenizer,
                       const char *marker, const struct mmqi_chat_input *input)
{
    struct marking marking = {.added = &tokenizer->added, .marker = marker};
    size_t n_parts;
    int32_t status;

    if (marker && mmqi_tokenizer_is_special(tokenizer, mmqi_tokenizer_id(tokenizer, marker)))
        marking.marker = NULL;
    marked->input = *input;
    status = mark_texts(marked, &marking, &n_parts);
    if (status == MMQ_OK)
        status = link_parts(marked, n_parts);
    mmqi_buf_free(&marking.repaired);
    mmqi_buf_free(&marking.marked);
    mmqi_free(marking.matches.list);
    mmqi_free(marking.ends.list);
    return status == MMQ_OK ? MMQ_OK
                            : mmqi_fail(status, "prompt: no memory for the conversation's texts");
}

void mmqi_marked_free(struct mmqi_marked *marked)
{
    mmqi_free(marked->messages);
    mmqi_free(marked->parts);
    mmqi_buf_free(&marked->text);
    memset(marked, 0, sizeof *marked);
}
