/*
 * The stages of a tokenizer: how they are named, read and kept.
 *
 * A section of tokenizer.json (normalizer, pre_tokenizer, post_processor,
 * decoder) is null, one stage, or a Sequence of stages, which may nest; it
 * is kept as a flat list in order. Each section has a table of kinds; a new
 * kind is a row of its table, a function that reads its fields and one that
 * runs it.
 */
#ifndef MMQI_TEXT_STAGE_H
#define MMQI_TEXT_STAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/buf.h"
#include "text/regex.h"
#include "text/replace.h"
#include "text/spell.h"
#include "text/tokenizer.h"

enum {
    MMQI_MAX_STAGES = 32,
    MMQI_MAX_STAGE_DEPTH = 8,         /* Sequence in Sequence */
    MMQI_MAX_SECTION_BYTES = 1 << 20, /* of the JSON text of one section */
    MMQI_MAX_FIELDS = 24              /* of one stage */
};

struct mmqi_stage;
struct mmqi_fields;
struct mmqi_pieces;
struct mmqi_decode_step;

struct mmqi_stage_kind {
    const char *type; /* as the file has it; NULL ends the table */
    /* Take the stage's fields; NULL: it has none that matter. */
    int32_t (*read)(struct mmqi_stage *stage, struct mmqi_fields *fields);
    /* Runs the stage: the one of its section; a post-processor is data alone. */
    void (*normalize)(const struct mmqi_stage *stage, struct mmqi_buf *out, const char *text,
                      size_t size);
    /* In its place where the text goes on behind an added token; NULL: the same. */
    void (*normalize_inside)(const struct mmqi_stage *stage, struct mmqi_buf *out, const char *text,
                             size_t size);
    void (*cut)(const struct mmqi_stage *stage, struct mmqi_pieces *out,
                const struct mmqi_pieces *in);
    void (*decode)(struct mmqi_decode_step *step, const char *text, size_t size, int32_t end);
};

/* Which texts a Metaspace marks at their beginning. */
enum mmqi_prepend { MMQI_PREPEND_ALWAYS, MMQI_PREPEND_FIRST, MMQI_PREPEND_NEVER };

/* What a Split does with its matches: pieces of their own, left out, joined with the text before or
 * behind, joined with their like; or nothing at all. */
enum mmqi_behavior {
    MMQI_SPLIT_ISOLATED,
    MMQI_SPLIT_REMOVED,
    MMQI_SPLIT_PREVIOUS,
    MMQI_SPLIT_NEXT,
    MMQI_SPLIT_CONTIGUOUS,
    MMQI_SPLIT_NONE
};

extern const struct mmqi_stage_kind mmqi_normalizer_kinds[];
extern const struct mmqi_stage_kind mmqi_pre_tokenizer_kinds[];
extern const struct mmqi_stage_kind mmqi_post_processor_kinds[];
extern const struct mmqi_stage_kind mmqi_decoder_kinds[];

struct mmqi_stage {
    const struct mmqi_stage_kind *kind;
    struct mmqi_replace replace; /* Replace; of Prepend, `content` alone; of Split, the pattern */
    char letter[4];              /* Strip, Metaspace: the character, UTF-8 */
    size_t letter_size;
    int64_t start, stop;           /* Strip: how many at most */
    bool strip_left, strip_right;  /* Strip of white space */
    bool individual;               /* Digits */
    enum mmqi_prepend prepend;     /* Metaspace */
    enum mmqi_behavior behavior;   /* Split; Metaspace: MMQI_SPLIT_NEXT or MMQI_SPLIT_NONE */
    bool invert;                   /* Split */
    bool prefix_space, use_regex;  /* ByteLevel */
    struct mmqi_regex *regex;      /* Split */
    struct mmqi_ids before, after; /* TemplateProcessing */
    struct mmqi_spell *spell;      /* SentencePiece */
};

struct mmqi_stages {
    struct mmqi_stage *list; /* MMQI_MAX_STAGES of them; NULL while the section is null */
    size_t n;
};

/*
 * Read one section from its JSON text, which the parser has passed over
 * already. `name` is the file, `section` the key.
 */
int32_t mmqi_stages_read(struct mmqi_stages *stages, const struct mmqi_stage_kind *kinds,
                         const char *name, const char *section, const char *json, size_t size);
/* Add a stage of this kind to a section that no file's JSON describes; NULL: no memory, or full. */
struct mmqi_stage *mmqi_stages_add(struct mmqi_stages *stages, const struct mmqi_stage_kind *kind);
void mmqi_stages_free(struct mmqi_stages *stages);

/* ---- for the functions that read a stage ---- */

enum mmqi_field_kind { MMQI_FIELD_TEXT, MMQI_FIELD_INTEGER, MMQI_FIELD_BOOL, MMQI_FIELD_OTHER };

struct mmqi_field {
    char key[64]; /* a longer one is cut */
    int32_t kind;
    char *text;       /* of a string */
    const char *json; /* of an object or array: its text, in the file's */
    size_t size;      /* of either */
    int64_t integer;  /* a bool is 0 or 1 */
};

struct mmqi_fields {
    const char *name;
    char where[128]; /* "decoder.decoders[3]" */
    struct mmqi_field list[MMQI_MAX_FIELDS];
    size_t n;
};

/* The members of the object `json`, which is part of a file that was parsed before; null ones are
 * left out. `name` and `where` must be set. */
int32_t mmqi_fields_read(struct mmqi_fields *fields, const char *json, size_t size);
void mmqi_fields_clear(struct mmqi_fields *fields);
/* Call `each` with every element of the array `list`; the elements must be objects. */
int32_t mmqi_fields_each(const struct mmqi_fields *fields, const struct mmqi_field *list,
                         int32_t (*each)(void *arg, const char *json, size_t size), void *arg);
/* NULL when there is no such field or it is null. */
const struct mmqi_field *mmqi_field_find(const struct mmqi_fields *fields, const char *key);
/* The field, of this kind; else MMQ_ERR_FORMAT and NULL. */
int32_t mmqi_field_need(const struct mmqi_fields *fields, const char *key, int32_t kind,
                        const struct mmqi_field **field);
/* The field or, where it is absent, `missing`. */
int32_t mmqi_field_bool(const struct mmqi_fields *fields, const char *key, bool missing, bool *out);
/* mmqi_fail() that names the file and the place. */
int32_t mmqi_fields_fail(const struct mmqi_fields *fields, int32_t status, const char *format, ...)
    __attribute__((format(printf, 3, 4), cold));

/* Stages that lie in files of their own: Unicode's forms (forms.c), Metaspace (metaspace.c). */
typedef void mmqi_normalize_fn(const struct mmqi_stage *stage, struct mmqi_buf *out,
                               const char *text, size_t size);
mmqi_normalize_fn mmqi_normalize_nfc, mmqi_normalize_nfd, mmqi_normalize_nfkc, mmqi_normalize_nfkd;
int32_t mmqi_read_metaspace(struct mmqi_stage *stage, struct mmqi_fields *fields);
void mmqi_cut_metaspace(const struct mmqi_stage *stage, struct mmqi_pieces *out,
                        const struct mmqi_pieces *in);
void mmqi_decode_metaspace(struct mmqi_decode_step *step, const char *text, size_t size,
                           int32_t end);

/* Replace's fields, {"pattern": {"String": ..}, "content": ..}; normalizers and decoders have it.
 */
int32_t mmqi_stage_read_replace(struct mmqi_stage *stage, struct mmqi_fields *fields);

#endif
