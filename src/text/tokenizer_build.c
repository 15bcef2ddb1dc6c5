#include "text/tokenizer_build.h"

#include <string.h>

#include "core/mem.h"
#include "core/status.h"
#include "core/utf8.h"
#include "text/pretokenize.h"

int32_t mmqi_build_begin(struct mmqi_tokenizer **out, const char *name, size_t size)
{
    *out = NULL;
    if (size > MMQI_MAX_TOKENIZER_BYTES)
        return mmqi_fail(MMQ_ERR_LIMIT, "%s: %zu bytes, more than %d", name, size,
                         MMQI_MAX_TOKENIZER_BYTES);
    *out = mmqi_calloc(1, sizeof **out);
    return *out ? MMQ_OK : mmqi_fail(MMQ_ERR_NOMEM, "%s: no memory for a tokenizer", name);
}

/* ---- tokens that came later ---- */

/* A token of the file may be told again; it is then as it was told last. */
static int32_t add_token(struct mmqi_tokenizer *tokenizer, const char *name, const char *text,
                         size_t size, int64_t id, uint8_t flags)
{
    struct mmqi_added *added = &tokenizer->added;

    if (id >= 0 && mmqi_vocab_find(&added->vocab, text, size) == id) {
        added->flags[id] = flags | (added->flags[id] & MMQI_ADDED_NORMALIZED);
        return MMQ_OK;
    }
    return mmqi_added_add(added, name, text, size, id, flags);
}

static int32_t add_extras(struct mmqi_tokenizer *tokenizer, const char *name,
                          const struct mmqi_added *extra)
{
    const char *text;
    size_t id, size = 0;
    int32_t status = MMQ_OK;

    for (id = 0; id < extra->vocab.n_ids && status == MMQ_OK; id++) {
        text = mmqi_vocab_text(&extra->vocab, (int32_t)id, &size);
        if (text)
            status = add_token(tokenizer, name, text, size, (int64_t)id, extra->flags[id]);
    }
    return status;
}

int32_t mmqi_tokenizer_add(struct mmqi_tokenizer *tokenizer, const char *name, const char *text,
                           size_t size, int64_t id, uint8_t flags)
{
    int32_t status = add_token(tokenizer, name, text, size, id, flags);

    return status == MMQ_OK ? mmqi_tokenizer_finish(tokenizer, name) : status;
}

/* ---- what is around a text ---- */

/* The id of a token that a file beside names, else the tokenizer's own. */
static int32_t find_named(const struct mmqi_tokenizer *tokenizer, const char *name,
                          const char *what, const char *text, int32_t *id)
{
    if (!text)
        return MMQ_OK;
    *id = mmqi_tokenizer_id(tokenizer, text);
    return *id >= 0 ? MMQ_OK
                    : mmqi_fail(MMQ_ERR_FORMAT, "%s: there is no token '%s', which is to be %s",
                                name, text, what);
}

static const struct mmqi_stage_kind around_kind = {.type = "bos, eos"};

static int32_t build_around(struct mmqi_tokenizer *tokenizer, const char *name,
                            const struct mmqi_tokenizer_extras *extras, int32_t bos, int32_t eos)
{
    struct mmqi_stage *stage = mmqi_stages_add(&tokenizer->post_processor, &around_kind);
    int32_t status = MMQ_OK;

    if (!stage)
        return mmqi_fail(MMQ_ERR_NOMEM, "%s: no memory for a stage", name);
    if (!extras->no_bos)
        status = find_named(tokenizer, name, "bos_token", extras->bos, &bos);
    if (status == MMQ_OK && extras->add_eos)
        status = find_named(tokenizer, name, "eos_token", extras->eos, &eos);
    if (status == MMQ_OK && !extras->no_bos && bos >= 0)
        status = mmqi_ids_append(&stage->before, &bos, 1);
    if (status == MMQ_OK && extras->add_eos && eos >= 0)
        status = mmqi_ids_append(&stage->after, &eos, 1);
    return status;
}

int32_t mmqi_build_finish(struct mmqi_tokenizer *tokenizer, const char *name,
                          const struct mmqi_tokenizer_extras *extras, int32_t bos, int32_t eos)
{
    static const struct mmqi_tokenizer_extras none;
    int32_t status;

    extras = extras ? extras : &none;
    tokenizer->begins_once = extras->begins_once;
    status = add_extras(tokenizer, name, &extras->added);
    if (status == MMQ_OK)
        status = build_around(tokenizer, name, extras, bos, eos);
    return status == MMQ_OK ? mmqi_tokenizer_finish(tokenizer, name) : status;
}

int32_t mmqi_build_add_special(struct mmqi_tokenizer *tokenizer, const char *name,
                               const struct mmqi_tokenizer_extras *extras, const char *text,
                               int64_t id)
{
    size_t size = strlen(text);

    if (extras && (mmqi_vocab_find(&extras->added.vocab, text, size) >= 0 ||
                   (id <= MMQI_MAX_ID && mmqi_vocab_text(&extras->added.vocab, (int32_t)id, NULL))))
        return MMQ_OK;
    return mmqi_added_add(&tokenizer->added, name, text, size, id, MMQI_ADDED_SPECIAL);
}

/* ---- byte strings with ranks ---- */

int32_t mmqi_build_add_rank(struct mmqi_tokenizer *tokenizer, const char *name, const char *bytes,
                            size_t size, int64_t id)
{
    char small[512], *letters = size <= sizeof small / 4 ? small : mmqi_alloc_array(size, 4);
    size_t n = 0, i;
    int32_t status;

    if (!letters)
        return mmqi_fail(MMQ_ERR_NOMEM, "%s: no memory for a token", name);
    for (i = 0; i < size; i++)
        n += mmqi_utf8_encode(letters + n, mmqi_byte_to_letter((unsigned char)bytes[i]));
    letters[n < size * 4 ? n : 0] = '\0';
    status = size > 0 ? mmqi_vocab_add(&tokenizer->bpe.vocab, name, "ranks", letters, n, id)
                      : mmqi_fail(MMQ_ERR_FORMAT, "%s: token %lld is empty", name, (long long)id);
    if (letters != small)
        mmqi_free(letters);
    return status;
}

static int32_t read_stages(struct mmqi_tokenizer *tokenizer, const char *name, const char *pattern,
                           size_t pattern_size, bool nfc)
{
    static const char compose[] = "{\"type\":\"NFC\"}", letters[] = "{\"type\":\"ByteLevel\"}";
    struct mmqi_buf cut = {0};
    int32_t status;

    mmqi_buf_text(&cut, "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\","
                        "\"behavior\":\"Isolated\",\"invert\":false,\"pattern\":{\"Regex\":");
    mmqi_buf_json_string(&cut, pattern, pattern_size);
    mmqi_buf_text(&cut, "}},{\"type\":\"ByteLevel\",\"add_prefix_space\":false,"
                        "\"use_regex\":false}]}");
    status = mmqi_buf_failed(&cut)
                 ? mmqi_fail(MMQ_ERR_NOMEM, "%s: no memory for the pattern", name)
                 : mmqi_stages_read(&tokenizer->pre_tokenizer, mmqi_pre_tokenizer_kinds, name,
                                    "pattern", cut.data, cut.size);
    if (status == MMQ_OK)
        status = mmqi_stages_read(&tokenizer->decoder, mmqi_decoder_kinds, name, "decoder", letters,
                                  sizeof letters - 1);
    if (status == MMQ_OK && nfc)
        status = mmqi_stages_read(&tokenizer->normalizer, mmqi_normalizer_kinds, name, "normalizer",
                                  compose, sizeof compose - 1);
    mmqi_buf_free(&cut);
    return status;
}

int32_t mmqi_build_ranks(struct mmqi_tokenizer *tokenizer, const char *name, const char *pattern,
                         size_t pattern_size, bool nfc)
{
    struct mmqi_bpe *bpe = &tokenizer->bpe;
    int32_t status = MMQ_OK;
    size_t id;

    bpe->unk = MMQI_BPE_NO_UNK;
    bpe->ignore_merges = true; /* a word that is a token is taken as it is */
    mmqi_bpe_seal(bpe);
    for (int byte = 0; byte < 256; byte++)
        if (bpe->direct[mmqi_byte_to_letter((unsigned char)byte)] < 0)
            return mmqi_fail(MMQ_ERR_FORMAT, "%s: there is no token for byte %d", name, byte);
    for (id = 0; id < bpe->vocab.n_ids && status == MMQ_OK; id++)
        if (mmqi_vocab_text(&bpe->vocab, (int32_t)id, NULL))
            status = mmqi_bpe_add_splits(bpe, name, (int32_t)id, (uint32_t)id, NULL);
    return status == MMQ_OK ? read_stages(tokenizer, name, pattern, pattern_size, nfc) : status;
}

/* ---- base64 ---- */

static int32_t base64_digit(unsigned char c)
{
    return c >= 'A' && c <= 'Z'   ? c - 'A'
           : c >= 'a' && c <= 'z' ? c - 'a' + 26
           : c >= '0' && c <= '9' ? c - '0' + 52
           : c == '+'             ? 62
           : c == '/'             ? 63
                                  : -1;
}

bool mmqi_base64_decode(unsigned char *out, size_t *out_size, const char *text, size_t size)
{
    size_t n_pad, n = 0, i, j;
    uint32_t group;
    int32_t digit;

    if (size % 4 != 0)
        return false;
    n_pad = size == 0 || text[size - 1] != '=' ? 0 : text[size - 2] != '=' ? 1 : 2;
    for (i = 0; i < size; i += 4) {
        group = 0;
        for (j = i; j < i + 4; j++) {
            digit = j >= size - n_pad ? 0 : base64_digit((unsigned char)text[j]);
            if (digit < 0)
                return false;
            group = group << 6 | (uint32_t)digit;
        }
        out[n++] = (unsigned char)(group >> 16);
        out[n++] = (unsigned char)(group >> 8);
        out[n++] = (unsigned char)group;
    }
    *out_size = n - n_pad;
    return true;
}
