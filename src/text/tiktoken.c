/*
 * Rank files as tiktoken has them: a line "BASE64 RANK" for each token. What
 * pattern and special tokens go with them no file says; the kind of file
 * does: Qwen's first line of models, and Llama 3.
 */
#include <stdio.h>
#include <string.h>

#include "core/mem.h"
#include "core/status.h"
#include "text/tokenizer_build.h"

enum { MAX_LINE = 16 << 10 }; /* bytes of a token in base64 */

#define CONTRACTIONS "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
#define REST " ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"

static const char qwen_pattern[] = CONTRACTIONS "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}|" REST;
static const char llama3_pattern[] =
    CONTRACTIONS "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}|" REST;

/* ---- lines ---- */

struct line {
    const char *token; /* base64 */
    size_t size;
    int64_t rank;
};

/* Split "BASE64 RANK"; false when it is none. */
static bool split_line(struct line *line, const char *text, size_t size)
{
    const char *space = memchr(text, ' ', size);
    size_t at;

    if (!space || space == text || space + 1 == text + size || size > MAX_LINE)
        return false;
    line->token = text;
    line->size = (size_t)(space - text);
    line->rank = 0;
    for (at = line->size + 1; at < size; at++) {
        if (text[at] < '0' || text[at] > '9' || line->rank > MMQI_MAX_ID)
            return false;
        line->rank = line->rank * 10 + (text[at] - '0');
    }
    return true;
}

/* Bytes of the line at `text` without its end; *next: with it. */
static size_t line_size(const char *text, size_t size, size_t *next)
{
    const char *end = memchr(text, '\n', size);
    size_t n = end ? (size_t)(end - text) : size;

    *next = end ? n + 1 : n;
    return n > 0 && text[n - 1] == '\r' ? n - 1 : n;
}

bool mmqi_tokenizer_is_tiktoken(const char *data, size_t size)
{
    unsigned char bytes[MAX_LINE];
    struct line line;
    size_t next, n = line_size(data, size, &next);

    return split_line(&line, data, n) && mmqi_base64_decode(bytes, &n, line.token, line.size);
}

static int32_t read_lines(struct mmqi_tokenizer *tokenizer, const char *name, const char *data,
                          size_t size, size_t *n_ranks)
{
    unsigned char bytes[MAX_LINE];
    struct line line;
    size_t at, next, n, n_line = 1;
    int32_t status = MMQ_OK;

    *n_ranks = 0;
    for (at = 0; at < size && status == MMQ_OK; at += next, n_line++) {
        n = line_size(data + at, size - at, &next);
        if (n == 0)
            continue;
        if (!split_line(&line, data + at, n) ||
            !mmqi_base64_decode(bytes, &n, line.token, line.size))
            return mmqi_fail(MMQ_ERR_FORMAT, "%s: line %zu is not a token in base64 and its rank",
                             name, n_line);
        status = mmqi_build_add_rank(tokenizer, name, (const char *)bytes, n, line.rank);
        ++*n_ranks;
    }
    return status;
}

static int32_t read_ranks(struct mmqi_tokenizer *tokenizer, const char *name, const char *data,
                          size_t size, const char *pattern, bool nfc, size_t *n_ranks)
{
    int32_t status = read_lines(tokenizer, name, data, size, n_ranks);

    return status == MMQ_OK ? mmqi_build_ranks(tokenizer, name, pattern, strlen(pattern), nfc)
                            : status;
}

/* ---- Qwen ---- */

int32_t mmqi_tokenizer_read_qwen(struct mmqi_tokenizer *tokenizer, const char *name,
                                 const struct mmqi_settings *config, const char *data, size_t size)
{
    static const char *const first[] = {"<|endoftext|>", "<|im_start|>", "<|im_end|>"};
    static const char *const last[] = {"<ref>",   "</ref>", "<box>",  "</box>",  "<quad>",
                                       "</quad>", "<img>",  "</img>", "<imgpad>"};
    enum { N_FIRST = 3, N_EXTRA = 205, N_LAST = 9 };
    char extra[32];
    const char *text;
    size_t n_ranks = 0, i;
    int32_t status = read_ranks(tokenizer, name, data, size, qwen_pattern, true, &n_ranks);

    for (i = 0; i < N_FIRST + N_EXTRA + N_LAST && status == MMQ_OK; i++) {
        snprintf(extra, sizeof extra, "<|extra_%zu|>", i - N_FIRST);
        text = i < N_FIRST ? first[i] : i < N_FIRST + N_EXTRA ? extra : last[i - N_FIRST - N_EXTRA];
        status = mmqi_build_add_special(tokenizer, name, config, text, (int64_t)(n_ranks + i));
    }
    return status;
}

/* ---- Llama 3 ---- */

/* The special token number i of 256: a dozen have names, the others count on. */
static const char *llama3_special(char spare[48], int32_t i)
{
    static const struct {
        int32_t i;
        const char *text;
    } named[] = {
        {0, "<|begin_of_text|>"},   {1, "<|end_of_text|>"},   {4, "<|finetune_right_pad_id|>"},
        {6, "<|start_header_id|>"}, {7, "<|end_header_id|>"}, {8, "<|eom_id|>"},
        {9, "<|eot_id|>"},          {10, "<|python_tag|>"}};
    int32_t n_before = 0;

    for (size_t k = 0; k < sizeof named / sizeof *named && named[k].i <= i; k++) {
        if (named[k].i == i)
            return named[k].text;
        n_before++;
    }
    snprintf(spare, 48, "<|reserved_special_token_%d|>", (int)(i - n_before));
    return spare;
}

int32_t mmqi_tokenizer_read_llama3(struct mmqi_tokenizer *tokenizer, const char *name,
                                   const struct mmqi_settings *config, const char *data,
                                   size_t size)
{
    char spare[48];
    size_t n_ranks = 0;
    int32_t status = read_ranks(tokenizer, name, data, size, llama3_pattern, false, &n_ranks), i;

    for (i = 0; i < 256 && status == MMQ_OK; i++)
        status = mmqi_build_add_special(tokenizer, name, config, llama3_special(spare, i),
                                        (int64_t)n_ranks + i);
    if (status != MMQ_OK)
        return status;
    return mmqi_build_around(tokenizer, name, config,
                             mmqi_tokenizer_id(tokenizer, "<|begin_of_text|>"), -1);
}
