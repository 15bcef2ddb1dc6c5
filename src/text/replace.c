#include "text/replace.h"

#include <string.h>

#include "core/buf.h"
#include "core/mem.h"
#include "core/status.h"

static void find_borders(struct mmqi_replace *replace)
{
    const char *pattern = replace->pattern;
    size_t i, border = 0;

    replace->border[0] = replace->border[1] = 0;
    for (i = 1; i < replace->pattern_size; i++) {
        while (border > 0 && pattern[i] != pattern[border])
            border = replace->border[border];
        border += pattern[i] == pattern[border];
        replace->border[i + 1] = (uint32_t)border;
    }
}

int32_t mmqi_replace_init(struct mmqi_replace *replace, const char *pattern, size_t pattern_size,
                          const char *content, size_t content_size)
{
    memset(replace, 0, sizeof *replace);
    if (pattern_size == 0 || pattern_size >= UINT32_MAX)
        return MMQ_ERR_INVALID;
    replace->pattern = mmqi_strndup(pattern, pattern_size);
    replace->content = mmqi_strndup(content, content_size);
    replace->pattern_size = pattern_size;
    replace->content_size = content_size;
    replace->border = mmqi_alloc_array(pattern_size + 1, sizeof *replace->border);
    if (!replace->pattern || !replace->content || !replace->border) {
        mmqi_replace_free(replace);
        return MMQ_ERR_NOMEM;
    }
    find_borders(replace);
    return MMQ_OK;
}

void mmqi_replace_free(struct mmqi_replace *replace)
{
    mmqi_free(replace->pattern);
    mmqi_free(replace->content);
    mmqi_free(replace->border);
    memset(replace, 0, sizeof *replace);
}

void mmqi_replace_feed(const struct mmqi_replace *replace, size_t *held, struct mmqi_buf *out,
                       const char *text, size_t size)
{
    const char *pattern = replace->pattern, *hit;
    size_t at = 0, matched = *held, run, border;

    while (at < size) {
        if (matched == 0) { /* hurry to the next byte that may begin a match */
            hit = memchr(text + at, pattern[0], size - at);
            run = hit ? (size_t)(hit - text) - at : size - at;
            mmqi_buf_append(out, text + at, run);
            at += run;
            if (!hit)
                break;
        }
        while (matched > 0 && text[at] != pattern[matched]) {
            border = replace->border[matched];
            mmqi_buf_append(out, pattern, matched - border);
            matched = border;
        }
        if (text[at] != pattern[matched])
            continue; /* matched is 0: the byte is passed over above */
        at++;
        if (++matched == replace->pattern_size) {
            mmqi_buf_append(out, replace->content, replace->content_size);
            matched = 0;
        }
    }
    *held = matched;
}

void mmqi_replace_finish(const struct mmqi_replace *replace, size_t *held, struct mmqi_buf *out)
{
    mmqi_buf_append(out, replace->pattern, *held);
    *held = 0;
}
