#include "text/vocab.h"

#include <string.h>

#include "core/mem.h"
#include "core/status.h"

static uint32_t hash_text(const char *text, size_t size)
{
    uint64_t hash = UINT64_C(0x9E3779B97F4A7C15) ^ size, word;

    while (size > 0) {
        size_t n = size < sizeof word ? size : sizeof word;

        word = 0;
        memcpy(&word, text, n);
        hash = (hash ^ word) * UINT64_C(0xD6E8FEB86659FD93);
        hash ^= hash >> 29;
        text += n;
        size -= n;
    }
    hash *= UINT64_C(0xD6E8FEB86659FD93);
    return (uint32_t)(hash >> 32);
}

static bool same_text(const struct mmqi_vocab *vocab, int32_t id, const char *text, size_t size)
{
    const struct mmqi_token *token = &vocab->tokens[id];

    return token->size == size && memcmp(vocab->pool.data + token->begin, text, size) == 0;
}

int32_t mmqi_vocab_find(const struct mmqi_vocab *vocab, const char *text, size_t size)
{
    uint32_t hash;
    size_t at;

    if (vocab->n_slots == 0)
        return -1;
    hash = hash_text(text, size);
    for (at = hash & (vocab->n_slots - 1); vocab->slots[at].id >= 0;
         at = (at + 1) & (vocab->n_slots - 1))
        if (vocab->slots[at].hash == hash && same_text(vocab, vocab->slots[at].id, text, size))
            return vocab->slots[at].id;
    return -1;
}

const char *mmqi_vocab_text(const struct mmqi_vocab *vocab, int32_t id, size_t *size)
{
    if (id < 0 || (size_t)id >= vocab->n_ids || vocab->tokens[id].begin == 0)
        return NULL;
    if (size)
        *size = vocab->tokens[id].size;
    return vocab->pool.data + vocab->tokens[id].begin;
}

/* Put a new name in its slot; false when its chain is too long. */
static bool place(struct mmqi_vocab_slot *slots, size_t n_slots, uint32_t hash, int32_t id)
{
    size_t at = hash & (n_slots - 1), chain = 0;

    while (slots[at].id >= 0) {
        if (++chain == MMQI_MAX_CHAIN)
            return false;
        at = (at + 1) & (n_slots - 1);
    }
    slots[at].hash = hash;
    slots[at].id = id;
    return true;
}

static int32_t grow_slots(struct mmqi_vocab *vocab, const char *name)
{
    size_t n_slots = vocab->n_slots ? vocab->n_slots * 2 : 1024, i;
    struct mmqi_vocab_slot *slots = mmqi_alloc_array(n_slots, sizeof *slots);

    if (!slots)
        return mmqi_fail(MMQ_ERR_NOMEM, "%s: no memory for the vocabulary", name);
    for (i = 0; i < n_slots; i++)
        slots[i].id = -1;
    for (i = 0; i < vocab->n_slots; i++)
        if (vocab->slots[i].id >= 0 &&
            !place(slots, n_slots, vocab->slots[i].hash, vocab->slots[i].id)) {
            mmqi_free(slots);
            return mmqi_fail(MMQ_ERR_LIMIT, "%s: the vocabulary's names collide", name);
        }
    mmqi_free(vocab->slots);
    vocab->slots = slots;
    vocab->n_slots = n_slots;
    return MMQ_OK;
}

/* Room for `id` in the array of texts. */
static int32_t reach_id(struct mmqi_vocab *vocab, const char *name, size_t id)
{
    size_t capacity = vocab->capacity ? vocab->capacity : 1024;
    struct mmqi_token *tokens;

    if (id >= vocab->capacity) {
        while (capacity <= id)
            capacity *= 2;
        tokens = mmqi_realloc_array(vocab->tokens, capacity, sizeof *tokens);
        if (!tokens)
            return mmqi_fail(MMQ_ERR_NOMEM, "%s: no memory for the vocabulary", name);
        memset(tokens + vocab->capacity, 0, (capacity - vocab->capacity) * sizeof *tokens);
        vocab->tokens = tokens;
        vocab->capacity = capacity;
    }
    if (id >= vocab->n_ids)
        vocab->n_ids = id + 1;
    return MMQ_OK;
}

static int32_t store_text(struct mmqi_vocab *vocab, const char *name, const char *text, size_t size,
                          size_t id)
{
    size_t begin;

    if (vocab->pool.size == 0)
        mmqi_buf_append(&vocab->pool, "", 1);
    begin = vocab->pool.size;
    mmqi_buf_append(&vocab->pool, text, size);
    mmqi_buf_append(&vocab->pool, "", 1);
    if (mmqi_buf_failed(&vocab->pool) || vocab->pool.size > UINT32_MAX)
        return mmqi_fail(MMQ_ERR_NOMEM, "%s: no memory for the vocabulary's text", name);
    vocab->tokens[id].begin = (uint32_t)begin;
    vocab->tokens[id].size = (uint32_t)size;
    return MMQ_OK;
}

int32_t mmqi_vocab_add(struct mmqi_vocab *vocab, const char *name, const char *where,
                       const char *text, size_t size, int64_t id)
{
    const char *other;
    int32_t status;

    if (id < 0 || id > MMQI_MAX_ID)
        return mmqi_fail(MMQ_ERR_FORMAT, "%s: %s: id %lld of '%s' is outside 0..%d", name, where,
                         (long long)id, text, MMQI_MAX_ID);
    other = mmqi_vocab_text(vocab, (int32_t)id, NULL);
    if (other)
        return mmqi_fail(MMQ_ERR_FORMAT, "%s: %s: '%s' and '%s' both have id %lld", name, where,
                         other, text, (long long)id);
    if (mmqi_vocab_find(vocab, text, size) >= 0)
        return mmqi_fail(MMQ_ERR_FORMAT, "%s: %s: '%s' is there twice", name, where, text);
    if ((vocab->n_used + 1) * 2 > vocab->n_slots) {
        status = grow_slots(vocab, name);
        if (status != MMQ_OK)
            return status;
    }
    status = reach_id(vocab, name, (size_t)id);
    if (status == MMQ_OK)
        status = store_text(vocab, name, text, size, (size_t)id);
    if (status != MMQ_OK)
        return status;
    if (!place(vocab->slots, vocab->n_slots, hash_text(text, size), (int32_t)id))
        return mmqi_fail(MMQ_ERR_LIMIT, "%s: %s: names collide", name, where);
    vocab->n_used++;
    return MMQ_OK;
}

void mmqi_vocab_free(struct mmqi_vocab *vocab)
{
    mmqi_buf_free(&vocab->pool);
    mmqi_free(vocab->tokens);
    mmqi_free(vocab->slots);
    memset(vocab, 0, sizeof *vocab);
}
