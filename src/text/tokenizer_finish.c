/*
 * What every way of reading a tokenizer ends with: sections of stages, the
 * unknown token, the added tokens' patterns, and the checks that need all of
 * them.
 */
#include <string.h>

#include "core/mem.h"
#include "core/status.h"
#include "text/tokenizer_parts.h"

enum { MAX_PATTERNS = 1 << 21 }; /* bytes of all added tokens; a byte takes some 70 of memory */

struct section {
    const char *name;
    const struct mmqi_stage_kind *kinds;
};

static const struct section sections[MMQI_N_SECTIONS] = {
    [MMQI_NORMALIZER] = {"normalizer", mmqi_normalizer_kinds},
    [MMQI_PRE_TOKENIZER] = {"pre_tokenizer", mmqi_pre_tokenizer_kinds},
    [MMQI_POST_PROCESSOR] = {"post_processor", mmqi_post_processor_kinds},
    [MMQI_DECODER] = {"decoder", mmqi_decoder_kinds}};

const char *mmqi_section_name(enum mmqi_section section)
{
    return sections[section].name;
}

int32_t mmqi_tokenizer_create(struct mmqi_tokenizer **out, const char *name)
{
    *out = mmqi_calloc(1, sizeof **out);
    if (!*out)
        return mmqi_fail(MMQ_ERR_NOMEM, "%s: no memory for a tokenizer", name);
    (*out)->bpe.unk = MMQI_BPE_NO_UNK;
    return MMQ_OK;
}

int32_t mmqi_tokenizer_set_section(struct mmqi_tokenizer *tokenizer, const char *name,
                                   enum mmqi_section section, const char *json, size_t size)
{
    return mmqi_stages_read(&tokenizer->sections[section], sections[section].kinds, name,
                            sections[section].name, json, size);
}

struct mmqi_vocab *mmqi_tokenizer_vocab(struct mmqi_tokenizer *tokenizer)
{
    return &tokenizer->bpe.vocab;
}

void mmqi_tokenizer_set_unk(struct mmqi_tokenizer *tokenizer, const char *text, size_t size)
{
    int32_t id = mmqi_vocab_find(mmqi_tokenizer_vocab(tokenizer), text, size);

    tokenizer->bpe.unk = id >= 0 ? id : MMQI_BPE_LOST_UNK;
}

/* ---- the end ---- */

/* An added token that the model has too must have the same id there, and no other token its id. */
static int32_t check_added(const struct mmqi_vocab *vocab, const char *name, int32_t id,
                           const char *text, size_t size)
{
    int32_t model_id = mmqi_vocab_find(vocab, text, size);

    if (model_id >= 0 && model_id != id)
        return mmqi_fail(MMQ_ERR_FORMAT, "%s: added token '%s' has id %d, in the vocabulary %d",
                         name, text, (int)id, (int)model_id);
    if (model_id < 0 && mmqi_vocab_text(vocab, id, NULL))
        return mmqi_fail(MMQ_ERR_FORMAT, "%s: added token '%s' has the id %d of '%s'", name, text,
                         (int)id, mmqi_vocab_text(vocab, id, NULL));
    return MMQ_OK;
}

/* `size` bytes more of patterns. */
static int32_t check_length(const char *name, int32_t id, size_t size, size_t *n_bytes)
{
    if (size > MAX_PATTERNS - *n_bytes)
        return mmqi_fail(MMQ_ERR_LIMIT,
                         "%s: added token %d of %zu bytes: all of them have more than %d", name,
                         (int)id, size, MAX_PATTERNS);
    *n_bytes += size;
    return MMQ_OK;
}

/* Give the token to the matcher of its kind; one of the normalized text in its normalized form.
 * *n_bytes: of all patterns so far; a normalizer may make much of little. */
static int32_t add_pattern(struct mmqi_tokenizer *tokenizer, const char *name, int32_t id,
                           struct mmqi_buf pair[2], size_t *n_bytes)
{
    struct mmqi_added *added = &tokenizer->added;
    struct mmqi_matcher *matcher = &added->raw;
    size_t size = 0;
    const char *text = mmqi_vocab_text(&added->vocab, id, &size);
    int32_t status = check_length(name, id, size, n_bytes);

    if (status != MMQ_OK)
        return status;
    if ((added->flags[id] & MMQI_ADDED_SPECIAL) &&
        (mmqi_matcher_add(&added->special, text, size, id) != MMQ_OK ||
         mmqi_matcher_add_start(&added->starts, text, size) != MMQ_OK))
        return mmqi_fail(MMQ_ERR_NOMEM, "%s: no memory for the added tokens", name);
    if (added->flags[id] & MMQI_ADDED_NORMALIZED) {
        matcher = &added->normalized;
        if (!tokenizer->pieces_are_normal)
            status = mmqi_tokenizer_normalize(tokenizer, true, pair, &text, &size);
        if (status == MMQ_OK)
            status = check_length(name, id, size, n_bytes);
    }
    if (status == MMQ_OK && mmqi_matcher_add(matcher, text, size, id) != MMQ_OK)
        status = mmqi_fail(MMQ_ERR_NOMEM, "%s: no memory for the added tokens", name);
    return status;
}

static int32_t finish_added(struct mmqi_tokenizer *tokenizer, const char *name)
{
    struct mmqi_added *added = &tokenizer->added;
    struct mmqi_buf pair[2] = {{0}};
    const char *text;
    size_t i, size = 0, n_bytes = 0;
    int32_t status = MMQ_OK;

    for (i = 0; i < added->vocab.n_ids && status == MMQ_OK; i++) {
        text = mmqi_vocab_text(&added->vocab, (int32_t)i, &size);
        if (!text)
            continue;
        status = check_added(mmqi_tokenizer_vocab(tokenizer), name, (int32_t)i, text, size);
        if (status == MMQ_OK)
            status = add_pattern(tokenizer, name, (int32_t)i, pair, &n_bytes);
    }
    if (status == MMQ_OK && (mmqi_matcher_seal(&added->raw) != MMQ_OK ||
                             mmqi_matcher_seal(&added->normalized) != MMQ_OK ||
                             mmqi_matcher_seal(&added->special) != MMQ_OK ||
                             mmqi_matcher_seal(&added->starts) != MMQ_OK))
        status = mmqi_fail(MMQ_ERR_NOMEM, "%s: no memory for the added tokens", name);
    mmqi_buf_free(&pair[0]);
    mmqi_buf_free(&pair[1]);
    return status;
}

/* The ids of the post-processor must be tokens; of two templates, the tokenizers library would
 * run the second one on pairs. */
static int32_t check_post_processor(const struct mmqi_tokenizer *tokenizer, const char *name)
{
    const struct mmqi_stages *stages = &tokenizer->sections[MMQI_POST_PROCESSOR];
    const struct mmqi_ids *ids;
    size_t i, j, n_templates = 0;

    for (i = 0; i < stages->n; i++)
        n_templates += stages->list[i].kind->read != NULL;
    if (n_templates > 1)
        return mmqi_fail(MMQ_ERR_UNSUPPORTED, "%s: post_processor: more than one template", name);
    for (i = 0; i < 2 * stages->n; i++) {
        ids = i % 2 ? &stages->list[i / 2].after : &stages->list[i / 2].before;
        for (j = 0; j < ids->n; j++)
            if (!mmqi_tokenizer_content(tokenizer, ids->data[j]))
                return mmqi_fail(MMQ_ERR_FORMAT, "%s: post_processor: there is no token %d", name,
                                 (int)ids->data[j]);
    }
    return MMQ_OK;
}

int32_t mmqi_tokenizer_finish(struct mmqi_tokenizer *tokenizer, const char *name)
{
    size_t n_model = mmqi_tokenizer_vocab(tokenizer)->n_ids, n_added;
    int32_t status;

    mmqi_bpe_seal(&tokenizer->bpe);
    status = finish_added(tokenizer, name);
    if (status == MMQ_OK)
        status = check_post_processor(tokenizer, name);
    n_added = tokenizer->added.vocab.n_ids;
    tokenizer->vocab_size = (int32_t)(n_model > n_added ? n_model : n_added);
    return status;
}

void mmqi_tokenizer_free(struct mmqi_tokenizer *tokenizer)
{
    int i;

    if (!tokenizer)
        return;
    mmqi_bpe_free(&tokenizer->bpe);
    mmqi_unigram_free(tokenizer->unigram);
    mmqi_added_free(&tokenizer->added);
    for (i = 0; i < MMQI_N_SECTIONS; i++)
        mmqi_stages_free(&tokenizer->sections[i]);
    mmqi_free(tokenizer);
}
