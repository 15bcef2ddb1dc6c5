/*
 * A set of tokens: text to id by a hash table, id to text by an array.
 *
 * Chains of the table are bounded while it is filled, so that no choice of
 * names, however hostile, makes a lookup slow.
 */
#ifndef MMQI_TEXT_VOCAB_H
#define MMQI_TEXT_VOCAB_H

#include <stddef.h>
#include <stdint.h>

#include "core/buf.h"

enum {
    MMQI_MAX_ID = (1 << 22) - 1, /* sixteen times the largest vocabulary in use */
    MMQI_MAX_CHAIN = 256         /* slots looked at for one name; a sound table needs under 64 */
};

struct mmqi_token {
    uint32_t begin, size; /* in the pool; begin 0: there is no such id */
};

struct mmqi_vocab {
    struct mmqi_buf pool; /* every text with a zero byte after it; starts with one spare byte */
    struct mmqi_token *tokens; /* by id */
    size_t n_ids, capacity;    /* n_ids = highest id + 1 */
    struct mmqi_vocab_slot {
        uint32_t hash;
        int32_t id; /* -1: free */
    } * slots;
    size_t n_slots, n_used; /* n_slots is 0 or a power of two */
};

/* `id` is as the file has it; `name` and `where` open the message. The same text or id twice:
 * MMQ_ERR_FORMAT. */
int32_t mmqi_vocab_add(struct mmqi_vocab *vocab, const char *name, const char *where,
                       const char *text, size_t size, int64_t id);
int32_t mmqi_vocab_find(const struct mmqi_vocab *vocab, const char *text, size_t size); /* -1 */
/* Zero-terminated; NULL for an unknown id. `size` may be NULL. */
const char *mmqi_vocab_text(const struct mmqi_vocab *vocab, int32_t id, size_t *size);
void mmqi_vocab_free(struct mmqi_vocab *vocab);

#endif
