#include "text/tokenizer_build.h"

#include <stdio.h>
#include <string.h>

#include "core/mem.h"
#include "core/status.h"
#include "core/utf8.h"
#include "text/pretokenize.h"

/* The text of a token that the config names: as a string, or as the content of an object. */
static int32_t named_token(const struct mmqi_settings *config, const char *key, const char **text)
{
    char path[64];

    *text = NULL;
    snprintf(path, sizeof path, "%s.content", key);
    return mmqi_settings_string(config, mmqi_settings_has(config, path) ? path : key, text);
}

/* *id: of the token that the config names under `key`, or as it is. */
static int32_t find_named(const struct mmqi_tokenizer *tokenizer, const char *name,
                          const struct mmqi_settings *config, const char *key, int32_t *id)
{
    const char *text;
    int32_t status = named_token(config, key, &text);

    if (status != MMQ_OK || !text)
        return status;
    *id = mmqi_tokenizer_id(tokenizer, text);
    return *id >= 0 ? MMQ_OK
                    : mmqi_fail(MMQ_ERR_FORMAT, "%s: %s '%s' is no token of %s",
                                mmqi_settings_name(config), key, text, name);
}

static const struct mmqi_stage_kind around_kind = {.type = "bos and eos"};

int32_t mmqi_build_around(struct mmqi_tokenizer *tokenizer, const char *name,
                          const struct mmqi_settings *config, int32_t bos, int32_t eos)
{
    struct mmqi_stage *stage =
        mmqi_stages_add(&tokenizer->sections[MMQI_POST_PROCESSOR], &around_kind);
    bool add_bos = true, add_eos = false;
    int32_t status = mmqi_settings_bool(config, "add_bos_token", &add_bos);

    if (!stage)
        return mmqi_fail(MMQ_ERR_NOMEM, "%s: no memory for a stage", name);
    if (status == MMQ_OK)
        status = mmqi_settings_bool(config, "add_eos_token", &add_eos);
    if (status == MMQ_OK && add_bos)
        status = find_named(tokenizer, name, config, "bos_token", &bos);
    if (status == MMQ_OK && add_eos)
        status = find_named(tokenizer, name, config, "eos_token", &eos);
    if (status == MMQ_OK && add_bos && bos >= 0)
        status = mmqi_ids_append(&stage->before, &bos, 1);
    if (status == MMQ_OK && add_eos && eos >= 0)
        status = mmqi_ids_append(&stage->after, &eos, 1);
    return status;
}

int32_t mmqi_build_add_special(struct mmqi_tokenizer *tokenizer, const char *name,
                               const struct mmqi_settings *config, const char *text, int64_t id)
{
    char path[64];
    int32_t status = MMQ_OK;

    snprintf(path, sizeof path, "added_tokens_decoder.%lld.content", (long long)id);
    if (mmqi_settings_has(config, path)) /* a key of an object, though it looks like an index */
        status = mmqi_settings_string(config, path, &text);
    return status == MMQ_OK
               ? mmqi_added_add(&tokenizer->added, name, text, strlen(text), id, MMQI_ADDED_SPECIAL)
               : status;
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
    status = mmqi_buf_failed(&cut) ? mmqi_fail(MMQ_ERR_NOMEM, "%s: no memory for the pattern", name)
                                   : mmqi_tokenizer_set_section(tokenizer, name, MMQI_PRE_TOKENIZER,
                                                                cut.data, cut.size);
    if (status == MMQ_OK)
        status =
            mmqi_tokenizer_set_section(tokenizer, name, MMQI_DECODER, letters, sizeof letters - 1);
    if (status == MMQ_OK && nfc)
        status = mmqi_tokenizer_set_section(tokenizer, name, MMQI_NORMALIZER, compose,
                                            sizeof compose - 1);
    mmqi_buf_free(&cut);
    return status;
}

/* All merges, in order of the ids. */
static int32_t add_merges(struct mmqi_bpe *bpe, const char *name)
{
    uint32_t *ranks = mmqi_alloc_array(bpe->vocab.n_ids + 1, sizeof *ranks);
    int32_t status;

    if (!ranks)
        return mmqi_fail(MMQ_ERR_NOMEM, "%s: no memory for the merges", name);
    for (size_t id = 0; id < bpe->vocab.n_ids; id++)
        ranks[id] = (uint32_t)id;
    status = mmqi_bpe_add_wholes(bpe, name, ranks, NULL);
    mmqi_free(ranks);
    return status;
}

int32_t mmqi_build_ranks(struct mmqi_tokenizer *tokenizer, const char *name, const char *pattern,
                         size_t pattern_size, bool nfc)
{
    struct mmqi_bpe *bpe = &tokenizer->bpe;
    int32_t status;

    bpe->unk = MMQI_BPE_NO_UNK;
    mmqi_bpe_seal(bpe);
    for (int byte = 0; byte < 256; byte++)
        if (bpe->direct[mmqi_byte_to_letter((unsigned char)byte)] < 0)
            return mmqi_fail(MMQ_ERR_FORMAT, "%s: there is no token for byte %d", name, byte);
    status = add_merges(bpe, name);
    bpe->ignore_merges = true; /* a word that is a token is taken as it is */
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
