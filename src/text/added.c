#include "text/added.h"

#include <string.h>

#include "core/mem.h"
#include "core/status.h"
#include "text/mark.h"
#include "text/utf8.h"

int32_t mmqi_added_add(struct mmqi_added *added, const char *name, const char *text, size_t size,
                       int64_t id, uint8_t flags)
{
    int32_t status = mmqi_vocab_add(&added->vocab, name, "added_tokens", text, size, id);
    uint8_t *grown;

    if (status != MMQ_OK)
        return status;
    if (added->n_flags < added->vocab.capacity) {
        grown = mmqi_realloc_array(added->flags, added->vocab.capacity, 1);
        if (!grown)
            return mmqi_fail(MMQ_ERR_NOMEM, "%s: no memory for the added tokens", name);
        memset(grown + added->n_flags, 0, added->vocab.capacity - added->n_flags);
        added->flags = grown;
        added->n_flags = added->vocab.capacity;
    }
    added->flags[id] = flags;
    return MMQ_OK;
}

uint8_t mmqi_added_flags(const struct mmqi_added *added, int32_t id)
{
    return id >= 0 && (size_t)id < added->vocab.n_ids ? added->flags[id] : 0;
}

/* ---- the rules ---- */

static bool word_before(const char *text, size_t at)
{
    size_t begin, length;

    if (at == 0)
        return false;
    begin = mmqi_utf8_before(text, at);
    return mmqi_is_word(mmqi_utf8_decode(text + begin, at - begin, &length));
}

static bool word_after(const char *text, size_t size, size_t at)
{
    size_t length;

    return at < size && mmqi_is_word(mmqi_utf8_decode(text + at, size - at, &length));
}

/* Where the white space that ends at `at` begins, not before `floor`. */
static size_t spaces_before(const char *text, size_t at, size_t floor)
{
    size_t begin, length;

    while (at > floor) {
        begin = mmqi_utf8_before(text, at);
        if (!mmqi_is_space(mmqi_utf8_decode(text + begin, at - begin, &length)))
            break;
        at = begin;
    }
    return at;
}

static size_t spaces_after(const char *text, size_t size, size_t at)
{
    size_t length;

    while (at < size && mmqi_is_space(mmqi_utf8_decode(text + at, size - at, &length)))
        at += length;
    return at;
}

static int32_t push_segment(struct mmqi_segments *segments, size_t begin, size_t end, int32_t id)
{
    size_t capacity = segments->capacity ? segments->capacity * 2 : 16;
    struct mmqi_segment *list;

    if (segments->n == segments->capacity) {
        list = mmqi_realloc_array(segments->list, capacity, sizeof *list);
        if (!list)
            return MMQ_ERR_NOMEM;
        segments->list = list;
        segments->capacity = capacity;
    }
    segments->list[segments->n++] = (struct mmqi_segment){begin, end, id};
    return MMQ_OK;
}

/* The text between `*end`, where the last token ended, and the match, then the match itself. */
static int32_t take_match(const struct mmqi_added *added, struct mmqi_segments *segments,
                          const struct mmqi_match *match, const char *text, size_t size,
                          size_t *end, size_t *spaces_end)
{
    uint8_t flags = added->flags[match->value];
    size_t begin = match->begin, stop = match->begin + match->size;
    int32_t status = MMQ_OK;

    if ((flags & MMQI_ADDED_SINGLE_WORD) &&
        (word_before(text, begin) || word_after(text, size, stop)))
        return MMQ_OK;
    if (flags & MMQI_ADDED_LSTRIP)
        begin = begin > *end ? spaces_before(text, begin, *end) : *end;
    if (flags & MMQI_ADDED_RSTRIP) { /* white space is walked over once, not once per match */
        if (stop >= *spaces_end)
            *spaces_end = spaces_after(text, size, stop);
        stop = *spaces_end;
    }
    if (begin >= stop) /* all of it went to the token before */
        return MMQ_OK;
    if (begin > *end)
        status = push_segment(segments, *end, begin, -1);
    if (status == MMQ_OK)
        status = push_segment(segments, begin, stop, match->value);
    *end = stop;
    return status;
}

int32_t mmqi_added_split(const struct mmqi_added *added, const struct mmqi_matcher *matcher,
                         struct mmqi_segments *segments, const char *text, size_t size, bool plain,
                         const struct mmqi_marks *marks)
{
    size_t end = 0, spaces_end = 0, i;
    int32_t status = mmqi_matcher_find_all(matcher, &segments->matches, text, size);
    const struct mmqi_match *match = segments->matches.list;

    if (status == MMQ_OK && marks)
        mmqi_marks_drop(marks, &segments->matches);
    mmqi_matches_keep_leftmost(&segments->matches);
    segments->n = 0;
    for (i = 0; i < segments->matches.n && status == MMQ_OK; i++, match++)
        if (!plain || !(added->flags[match->value] & MMQI_ADDED_SPECIAL))
            status = take_match(added, segments, match, text, size, &end, &spaces_end);
    if (status == MMQ_OK && end < size)
        status = push_segment(segments, end, size, -1);
    if (status != MMQ_OK)
        return mmqi_fail(status, "tokenizer: no memory to cut a text of %zu bytes", size);
    return MMQ_OK;
}

void mmqi_segments_free(struct mmqi_segments *segments)
{
    mmqi_free(segments->list);
    mmqi_free(segments->matches.list);
    memset(segments, 0, sizeof *segments);
}

void mmqi_added_free(struct mmqi_added *added)
{
    mmqi_vocab_free(&added->vocab);
    mmqi_free(added->flags);
    mmqi_matcher_free(&added->raw);
    mmqi_matcher_free(&added->normalized);
    mmqi_matcher_free(&added->special);
    mmqi_matcher_free(&added->starts);
    memset(added, 0, sizeof *added);
}
