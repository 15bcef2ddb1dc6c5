/*
 * A session: one timeline of tokens and pictures on a placed model, with the
 * keys and values of every layer in pages.
 *
 * All device memory is taken when it is created, from the layout that
 * mmqi_session_layout() computes; mmq_estimate() tells the same numbers. A
 * model that is split over several places has a part of the session at each:
 * a stream, an arena, and the keys and values of the layers that run there.
 */
#ifndef MMQI_RUNTIME_SESSION_H
#define MMQI_RUNTIME_SESSION_H

#include "runtime/host.h"
#include "runtime/prompt.h"

enum {
    MMQI_PAGE_ROWS = 64, /* slots of a KV page */
    MMQI_MAX_PICK = 16,  /* rows whose logits one run can give */
    MMQI_DEFAULT_CHUNK = 512,
    MMQI_FAST_CHUNK = 2048, /* the default of `fast` mode: weights are unpacked once per chunk */
    MMQI_MAX_CHUNK = 4096,
    MMQI_DEFAULT_CONTEXT = 4096,
    MMQI_MAX_STAGING = 1 << 20 /* bytes that go from one device to another at once */
};

/* The mode that is asked for. */
enum { MMQI_WANT_BEST = 0, MMQI_WANT_EXACT = 1, MMQI_WANT_FAST = 2 };

struct mmqi_session_options {
    int32_t context, chunk; /* 0: defaults */
    int32_t image_rows;     /* of the greatest picture; 0: what model and context allow */
    int32_t mode;           /* MMQI_WANT_... */
};

/* What a session takes at one place, in bytes; 0 for what is not there. */
struct mmqi_session_bytes {
    struct mmqi_stream_options stream;
    uint64_t arena; /* of both graphs: the greater */
    uint64_t kv, pixels, image, logits, index;
    uint64_t scratch;     /* of the stream */
    uint64_t activations; /* arena, pixels, image rows, logits, indices */
    uint64_t total;
};

/* Everything a session takes, and where things lie. */
struct mmqi_session_layout {
    int32_t context, chunk, n_pages;
    int32_t mode;       /* enum mmqi_mode: fast where any place has it */
    int32_t image_rows; /* pictures of more are refused */
    struct mmqi_greatest greatest;
    struct mmqi_plan *vision, *language;
    struct mmqi_route vision_route, language_route;
    int32_t n_places;
    int32_t image_from, logits_at; /* places: of a picture's rows when made, of the logits */
    struct mmqi_session_bytes at[MMQI_MAX_PLACES];
    struct mmqi_session_bytes sum; /* but for `stream` */
    uint64_t staging_bytes;        /* of the host: for what goes from one device to another */
};

/* MMQ_ERR_INVALID for options out of range, MMQ_ERR_LIMIT where sizes would wrap,
 * MMQ_ERR_UNSUPPORTED for a mode that no device of the host has. */
int32_t mmqi_session_layout(struct mmqi_session_layout *layout, const struct mmqi_model *model,
                            const struct mmqi_host *host,
                            const struct mmqi_session_options *options);
void mmqi_session_layout_clear(struct mmqi_session_layout *layout);

/* What the arrays of a run are for. */
struct mmqi_index_shape {
    int32_t rows, n_axes;
    int32_t squares; /* of a tower with windows; else 0 */
    int32_t taps;    /* rows with taps: all of a tower's that interpolates positions; else 0 */
};

/* Index arrays in one device block; the same order in the host's copy. The page table comes first
 * and stays; the others lie close together for the rows of one run, which uploads them alone.
 * NULL for those that a run of this shape has not. */
struct mmqi_session_index {
    int32_t *ids, *positions, *slots, *place, *pick, *table;
    int32_t *order, *undo, *taps;
    struct mmqi_span *spans, *window_spans;
    float *tap_weights;
};

/* At one place, in memory of its device; NULL where the layout has no bytes. */
struct mmqi_session_part {
    struct mmqi_stream *stream;
    void *arena;
    float *kv, *pixels, *image, *logits;
    void *index_block;
    struct mmqi_session_index index;
    struct mmqi_kv *kv_layers; /* [n_layers], the host's; no pages where a layer is elsewhere */
};

struct mmqi_session {
    const struct mmqi_model *model;
    struct mmqi_host *host;
    struct mmqi_session_layout layout;
    struct mmqi_session_part *parts; /* [n_places] */
    void *host_block;                /* the host's copy of the index block */
    struct mmqi_session_index host_index;
    void *staging;
    struct mmqi_token *tokens; /* [context]: what the KV cache holds */
    int32_t n_tokens;
    int64_t n_asked, n_read;      /* steps: see mmqi_session_step_begin() */
    struct mmqi_image **pictures; /* that tokens refer to; counted */
    int32_t n_pictures, pictures_capacity;
    int32_t encoded;             /* the picture whose rows lie in the parts' `image`; -1: none */
    struct mmqi_picture picture; /* what it is */
    int32_t n_encoded;           /* pictures that went through the tower, ever */
    uint64_t encode_ns;          /* that they took, preprocessing included */
};

/* The model must be placed on the host's devices and outlive the session. */
int32_t mmqi_session_create(struct mmqi_session **out, const struct mmqi_model *model,
                            struct mmqi_host *host, const struct mmqi_session_options *options);
void mmqi_session_free(struct mmqi_session *session); /* accepts NULL and the half-built */

/* Forget all but the first `length` tokens (0 <= length <= n_tokens). */
void mmqi_session_truncate(struct mmqi_session *session, int32_t length);

/*
 * The tokens of a prompt for this session.
 *
 *   MMQ_ERR_CONTEXT_FULL  a picture alone has more rows than the context
 *   MMQ_ERR_LIMIT         a picture has more rows than the session takes
 * and what mmqi_prompt_tokens() says.
 */
int32_t mmqi_session_tokens(struct mmqi_tokens *tokens, const struct mmqi_session *session,
                            const struct mmqi_prompt *prompt);

/* Where the arrays of a run lie, in every block; the bytes to upload from *begin of the block
 * on. */
size_t mmqi_session_place_index(struct mmqi_session *session, const struct mmqi_index_shape *shape,
                                size_t *begin);

/* tower.c: of a view through the tower, and what its arrays say. */
struct mmqi_index_shape mmqi_tower_index_shape(const struct mmqi_spec *spec,
                                               const struct mmqi_view_rows *view);
void mmqi_tower_fill_index(const struct mmqi_session_index *index, const struct mmqi_spec *spec,
                           const struct mmqi_view_rows *view);

/* How a run of rows is watched; zero: not at all. */
struct mmqi_watch {
    const int32_t *cancelled; /* read with atomics; nonzero ends the run with MMQ_ERR_CANCELLED */
    /* As in struct mmqi_run: sees what every segment makes, in memory of the device that runs it,
     * whose stream may still be at work. NULL: none. */
    int32_t (*after)(void *user, const struct mmqi_segment *segment,
                     const struct mmqi_mat *live_out);
    void *after_user;
};

/*
 * Match the session to a prompt: keep the longest common beginning (at most `max_keep` tokens),
 * forget the rest, and adopt the prompt's pictures, rewriting tokens[].picture to the session's
 * indices. Returns MMQ_OK with *kept.
 */
int32_t mmqi_session_match(struct mmqi_session *session, struct mmqi_tokens *tokens,
                           struct mmqi_image *const *images, size_t n_images, size_t max_keep,
                           int32_t *kept);

/* The rows of the session's picture number `picture` through the tower to where they are placed,
 * unless they lie there already. mmqi_session_run() calls it. */
int32_t mmqi_session_encode(struct mmqi_session *session, int32_t picture,
                            const struct mmqi_watch *watch);

/* The block that mmqi_session_encode() made last, to `dst` [picture.made_rows, image_width] on the
 * host. */
int32_t mmqi_session_read_image(struct mmqi_session *session, float *dst);

/*
 * Run tokens[n_tokens of the session .. n) in chunks; logits of the rows from `first_logit` on are
 * given to on_logits in order (host memory, valid during the call; index counts from 0). A failed
 * run leaves the session with the chunks that were complete.
 */
typedef int32_t (*mmqi_row_fn)(void *user, size_t index, const float *logits);
int32_t mmqi_session_run(struct mmqi_session *session, const struct mmqi_token *tokens, size_t n,
                         size_t first_logit, mmqi_row_fn on_logits, void *user,
                         const struct mmqi_watch *watch);

/*
 * Greedy decoding without a look at the logits: the device picks each token, runs it next, and
 * notes it for the host, which reads behind. Between begin and end nothing else is asked of the
 * session.
 *
 * Whether that can be done: the decoder is at one place, logits and all.
 */
bool mmqi_session_can_step(const struct mmqi_session *session);
/* `token` follows those that the session holds; the first step runs it. */
int32_t mmqi_session_step_begin(struct mmqi_session *session, const struct mmqi_token *token);
/* Whether one more step may be asked for: it has a slot, and not too many are unread. */
bool mmqi_session_may_step(const struct mmqi_session *session);
int32_t mmqi_session_step(struct mmqi_session *session, const struct mmqi_watch *watch);
/* What the oldest unread step picked; the session holds the token that it ran, `ran`, from now on.
 */
int32_t mmqi_session_step_read(struct mmqi_session *session, const struct mmqi_token *ran,
                               int32_t *picked);
/* Nothing is on its way when this returns; steps that were not read are as if never asked for. */
int32_t mmqi_session_step_end(struct mmqi_session *session);

#endif
