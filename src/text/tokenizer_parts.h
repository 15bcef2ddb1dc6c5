/*
 * What a tokenizer is made of; shared by the files that read it, encode and
 * decode with it.
 *
 * A reader of any spelling goes: create; fill the vocabulary and merges of
 * the model and the added tokens; set the sections (as JSON text in the form
 * of tokenizer.json); finish.
 */
#ifndef MMQI_TEXT_TOKENIZER_PARTS_H
#define MMQI_TEXT_TOKENIZER_PARTS_H

#include "text/added.h"
#include "text/bpe.h"
#include "text/stage.h"
#include "text/tokenizer.h"
#include "text/unigram.h"

enum {
    MMQI_MAX_TOKENIZER_BYTES = 1 << 28, /* of a tokenizer.json */
    MMQI_MAX_TEXT_BYTES = 1 << 28       /* of a text, before and after every stage */
};

struct mmqi_json;

enum mmqi_section {
    MMQI_NORMALIZER,
    MMQI_PRE_TOKENIZER,
    MMQI_POST_PROCESSOR,
    MMQI_DECODER,
    MMQI_N_SECTIONS
};

struct mmqi_tokenizer {
    struct mmqi_bpe bpe;          /* its vocabulary is the model's, whichever that is */
    struct mmqi_unigram *unigram; /* NULL: a BPE */
    struct mmqi_added added;
    struct mmqi_stages sections[MMQI_N_SECTIONS];
    int32_t vocab_size;
    bool begins_once; /* text behind an added token is no new beginning, which normalizers mark */
    /* MMQI_ADDED_NORMALIZED is for a user's pieces, which are in normal form as they stand; tokens
     * that a config adds are all looked for in raw text. */
    bool pieces_are_normal;
};

/* ---- for those who read one: `name` is the file, for messages ---- */

/* An empty tokenizer, freed with mmqi_tokenizer_free() whatever became of it. */
int32_t mmqi_tokenizer_create(struct mmqi_tokenizer **out, const char *name);
/* The vocabulary of its model. */
struct mmqi_vocab *mmqi_tokenizer_vocab(struct mmqi_tokenizer *tokenizer);
const char *mmqi_section_name(enum mmqi_section section); /* its key in tokenizer.json */
/* At most once for each section; `json` is not kept. */
int32_t mmqi_tokenizer_set_section(struct mmqi_tokenizer *tokenizer, const char *name,
                                   enum mmqi_section section, const char *json, size_t size);
/* The unknown token, when the vocabulary is filled; without this call there is none. */
void mmqi_tokenizer_set_unk(struct mmqi_tokenizer *tokenizer, const char *text, size_t size);
/* When model, added tokens and sections are set, before the first use. */
int32_t mmqi_tokenizer_finish(struct mmqi_tokenizer *tokenizer, const char *name);
/* {"token": id, ..} of which nothing was read yet. `where` is its key in the file. */
int32_t mmqi_tokenizer_read_vocab(struct mmqi_vocab *vocab, const char *name, const char *where,
                                  struct mmqi_json *json);
/* "a b", the next merge in order of rank; a line "#version .." is passed over. */
int32_t mmqi_tokenizer_read_merge(struct mmqi_bpe *bpe, const char *name, const char *text,
                                  size_t size);
/* The model of a Unigram: [["piece", score], ..] in order of id; bpe.byte_fallback must be set. */
int32_t mmqi_tokenizer_read_pieces(struct mmqi_tokenizer *tokenizer, const char *name, int64_t unk,
                                   const char *json, size_t size);
/* The whole of a tokenizer.json, all but the finish. */
int32_t mmqi_tokenizer_read_json(struct mmqi_tokenizer *tokenizer, const char *name,
                                 const char *text, size_t size);

/* ---- for those who use it ---- */

/* As mmqi_tokenizer_content(), with the length: a token may hold zero bytes. */
const char *mmqi_tokenizer_text(const struct mmqi_tokenizer *tokenizer, int32_t id, size_t *size);

/* Run the normalizers on `text`, which begins or (`inside`) goes on behind an added token. The
 * result is in one of the two buffers, or `text` itself where there are none. */
int32_t mmqi_tokenizer_normalize(const struct mmqi_tokenizer *tokenizer, bool inside,
                                 struct mmqi_buf pair[2], const char **text, size_t *size);

#endif
