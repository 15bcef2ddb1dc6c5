/*
 * A model: a checkpoint understood by a family.
 *
 * It owns the store's index, the folder's text files (tokenizer, template,
 * configs), the weight table in canonical names, and, once placed, the
 * device's copy of every weight. Immutable but for placing; shared by sessions.
 */
#ifndef MMQI_MODEL_MODEL_H
#define MMQI_MODEL_MODEL_H

#include "backend/backend.h"
#include "core/rules.h"
#include "graph/route.h"
#include "image/preprocess.h"
#include "io/checkpoint.h"
#include "io/settings.h"
#include "text/chat.h"
#include "text/tokenizer.h"

enum mmqi_role {
    MMQI_ROLE_LINEAR = 0,  /* a matrix that policies may quantize */
    MMQI_ROLE_EMBED = 1,   /* token embedding or head */
    MMQI_ROLE_CONV = 2,    /* patch convolution, [out, in * kh * kw] */
    MMQI_ROLE_VECTOR = 3,  /* norms, biases, class and position embeddings: f32 when placed */
    MMQI_ROLE_CONSTANT = 4 /* computed by the family (inverse frequencies): no file tensor */
};

enum {
    /* Part of the checkpoint that the computation never reads (a tower's last layer): quantized
     * and saved like any other, never placed, and no fault when the file lacks it. */
    MMQI_WEIGHT_UNUSED = 1,
    /* The settings disagree whether it is tied: a tensor of its own in the file wins. */
    MMQI_WEIGHT_STORED_WINS = 2
};

enum { MMQI_MAX_WEIGHT_RANK = 5 };

struct mmqi_weight {
    char *name; /* canonical: "language.layers.3.attn.q", ".bias" for a bias */
    int32_t role;
    uint32_t flags;
    int64_t rows, cols; /* a vector is [1, n] */
    int32_t rank;       /* of the plain tensor in a file, with `shape` */
    int64_t shape[MMQI_MAX_WEIGHT_RANK];
    /*
     * `format` is what the weight is when placed; `stored` what its source holds. They differ where
     * a weight is quantized as it is placed (quantize-at-load): placing then reads rows of the
     * plain source, packs them by `method` and uploads, a chunk at a time. Everything that reads a
     * weight (mmqi_model_read_rows, _read_part) reads the source.
     */
    int32_t format, stored; /* enum mmqi_format */
    int32_t method;         /* enum mmqi_method, of the packing at placing */
    struct mmqi_layout layout, stored_layout;
    int32_t same_as; /* index of the weight whose storage this one shares (tied head), or -1 */
    /* Canonical bytes come from file tensors, one per part ... */
    const struct mmqi_entry *entry[MMQI_MAX_PARTS];
    /* ... or from this block of host memory (quantized in memory, constants), owned by the weight;
     * the entries then tell what it was made from. */
    uint8_t *block;
    float nested_offset;   /* of a nested format from a file: the part that no tensor holds */
    uint64_t placed_bytes; /* bytes it takes at all places */
};

/* One row of the index by name. */
struct mmqi_weight_name {
    const char *name;
    int32_t weight;
};

/* What a tower makes of one view. */
struct mmqi_view_rows {
    int32_t across, down; /* squares of patches: the grid of its rows, but for extra rows */
    int32_t patches;
    int32_t tower_rows; /* that the tower works on: patches, and a class row beside them */
    int32_t rows;       /* that it leaves */
};

/*
 * One picture as tower and timeline see it. The tower reads its views one after another and leaves
 * the rows of each behind those of the one before: the picture's block. In the timeline stand rows
 * of that block, in an order that the family tells, as n_runs runs of the same length with text
 * between them.
 */
struct mmqi_picture {
    struct mmqi_views views;
    int32_t across, down; /* the grid of its rows, where it is one view, but for extra rows */
    int32_t made_rows;    /* of the block */
    int32_t rows;         /* that it takes in the timeline */
    int32_t n_runs;
    /* A video: every view is `frames` of it, and has the same grid; from one to the next the time
     * axis of its positions goes on by time_step. 0 frames: a picture. */
    int32_t frames, time_step;
};

/* What a session has room for: the most that any view of any picture needs, and any picture. */
struct mmqi_greatest {
    struct mmqi_view_rows view;
    int64_t pixels;    /* of a view, all its frames */
    int32_t made_rows; /* of a picture */
};

/*
 * What the runtime needs to know of any family. The rows of a view follow from its pixels: one for
 * every square of merge x merge patches of patch x patch pixels, and extra_rows.
 */
struct mmqi_spec {
    int32_t vocab_size, hidden, n_layers, n_heads, n_kv_heads, head_dim;
    int32_t max_positions;
    int32_t image_token;      /* id that stands for picture rows */
    const char *image_marker; /* its text: "<image>" */
    /* The marker is no token: what stands before and behind it is tokenized by itself, and
     * image_token is vocab_size. */
    bool marker_splits;
    int32_t image_rows; /* of the greatest picture: in the timeline, extra rows counted */
    int32_t made_rows;  /* of the greatest block; 0: a block has no more rows than stand in
                                 the timeline */
    int32_t view_rows;  /* of the greatest view; 0: image_rows */
    int32_t video_rows; /* of the greatest video, all its views; 0: none is taken */
    int32_t patch, merge;
    int32_t view_width, view_height;      /* of every view; 0: views have any size */
    int32_t extra_rows, extra_tower_rows; /* of a view, beside the grid: a class row */
    int32_t
        image_width; /* numbers of a picture's row: `hidden`, or more of them side by side, to be
                            added after layers (DeepStack); 0: hidden */
    int32_t window;  /* side of the tower's attention windows in squares; 0: none */
    int32_t position_side; /* of the learned grid of positions that is interpolated; 0: none */
    /* Axes of a rope position: of a token (1: its place in the timeline; 3: M-RoPE, time, row and
     * column), and of a tower's row (0: none; 2: row and column of its patch). */
    int32_t rope_axes, tower_axes;
    int32_t n_eos;
    int32_t eos[8];
    int32_t bos, pad; /* -1: none */
    struct mmqi_recipe recipe;
    /* Videos: the id that stands for their rows and its text, NULL for a model that takes none; how
     * much time one second is, 0: every view counts 1, whatever its seconds. */
    int32_t video_token;
    const char *video_marker;
    int32_t tokens_per_second;
    struct mmqi_recipe video_recipe;
};

struct mmqi_family;

/* Which place the parts of a model are at. */
struct mmqi_split {
    int32_t n_places;
    int32_t *vision, *language; /* [segments] of each graph */
    uint32_t *weights;          /* [n_weights] of whole storages: bit per place that holds it */
};

struct mmqi_place {
    const struct mmqi_backend *backend;
    struct mmqi_device *device;
};

/* What lies at one place. */
struct mmqi_placement {
    struct mmqi_place at;
    struct mmqi_run_weight *weights; /* [n_weights]; zeros where a weight is not here */
    void **memory; /* [n_weights] device blocks, NULL where block or same_as serves */
};

struct mmqi_model {
    const struct mmqi_family *family;
    void *facts; /* the family's own configuration; freed by family->free_facts */
    struct mmqi_spec spec;
    char *path; /* as given, for messages */
    struct mmqi_store *store;
    struct mmqi_checkpoint *checkpoint;
    struct mmqi_settings *config, *generation, *preprocessor, *video_preprocessor, *processor,
        *tokenizer_config; /* NULL when absent */
    /* Of a tower in a folder of its own (mmqi_tower_open()); NULL where the model's has it. */
    struct mmqi_store *tower_store;
    struct mmqi_settings *tower_config, *tower_preprocessor;
    struct mmqi_tokenizer *tokenizer;
    struct mmqi_chat *chat; /* NULL when neither folder nor family has a template that runs */
    char *chat_error;       /* why its template does not run; NULL when there is none or it does */
    struct mmqi_graph *vision, *language;
    struct mmqi_split split; /* all at place 0, unless mmqi_model_split() says otherwise */
    int32_t *n_users;        /* models that share everything above; changed with atomics only */
    struct mmqi_weight *weights;
    int32_t n_weights;
    struct mmqi_weight_name *by_name; /* [n_weights], sorted */
    /* placement */
    struct mmqi_placement *placed; /* [split.n_places]; NULL before */
    uint64_t placed_bytes;         /* at all places */
};

/* Bindings of the two graphs. */
enum {
    MMQI_BIND_PIXELS = 0, /* vision in: [3, height, width], seen as [patches, 3 * patch * patch] */
    MMQI_BIND_IMAGE = 1,  /* vision out: [rows of the view, image_width]; language in: the block */
    MMQI_BIND_LOGITS = 2  /* language out: [PICK, vocab] */
};

/* Index the folder, detect the family, bind every tensor, build both graphs. Nothing is placed. */
int32_t mmqi_model_open(struct mmqi_model **out, struct mmqi_store *store);
/* The same, told where the folder of the tower is, if the model is of a family that keeps it apart:
 * a path, or a folder of the store's reader; NULL: found as mmqi_tower_open() does. */
int32_t mmqi_model_open_with_tower(struct mmqi_model **out, struct mmqi_store *store,
                                   const char *tower_path);
/* A model with the same family, files and graphs whose weights all still come from the files; for
 * quantizing in memory. */
int32_t mmqi_model_clone(struct mmqi_model **out, const struct mmqi_model *source);
void mmqi_model_close(struct mmqi_model *model); /* accepts NULL and the half-built */

/* What becomes of a picture of this size. MMQ_ERR_LIMIT or MMQ_ERR_UNSUPPORTED for one that the
 * model's preprocessing cannot take. */
int32_t mmqi_model_measure(struct mmqi_picture *out, const struct mmqi_model *model, int32_t width,
                           int32_t height);
/* The same of a picture or a video. MMQ_ERR_UNSUPPORTED for a video where none is taken. */
int32_t mmqi_model_measure_image(struct mmqi_picture *out, const struct mmqi_model *model,
                                 const struct mmqi_image *image);
void mmqi_view_count(struct mmqi_view_rows *out, const struct mmqi_spec *spec,
                     const struct mmqi_view *view);
/* *order, freed with mmqi_free(), tells for each of the picture's rows in the timeline which row of
 * its block stands there; NULL where that is 0, 1, 2, ... */
int32_t mmqi_model_order(int32_t **order, const struct mmqi_model *model,
                         const struct mmqi_picture *picture);
/* No picture of at most `rows` rows in the timeline needs more of anything. */
void mmqi_model_greatest(struct mmqi_greatest *out, const struct mmqi_model *model, int32_t rows);

int32_t mmqi_model_find(const struct mmqi_model *model,
                        const char *name); /* index by canonical name; -1 */
/* f32 of rows [begin, end) of a weight from its canonical bytes (file or block). dst [(end -
 * begin), cols]. */
int32_t mmqi_model_read_rows(const struct mmqi_model *model, int32_t weight, int64_t begin,
                             int64_t end, float *dst);
/*
 * The same, of rows that are to be packed as `format`.
 *   MMQ_ERR_FORMAT       a number is NaN or infinite: the message names tensor and index
 *   MMQ_ERR_UNSUPPORTED  a number is beyond the range of a plain `format`
 */
int32_t mmqi_model_read_to_pack(const struct mmqi_model *model, int32_t weight, int64_t begin,
                                int64_t end, int32_t format, float *dst);
/* Canonical bytes of one part as it is stored: [begin, begin + size). */
int32_t mmqi_model_read_part(const struct mmqi_model *model, int32_t weight, int32_t part,
                             uint64_t begin, void *dst, uint64_t size);

/* Quantize-at-load: `weight`, which shares no other's storage and is stored in a plain format, will
 * be packed when it is placed. MMQ_ERR_STATE once the model is placed. */
int32_t mmqi_model_choose(struct mmqi_model *model, int32_t weight, int32_t format, int32_t method);

/*
 * Split a model, which no other shares yet and that is not placed, over places: rule r, whose
 * pattern is over canonical names, gives the weights that it matches to place places[r]; the last
 * rule that matches wins. `rules` NULL: all is at place 0.
 *
 *   MMQ_ERR_INVALID  a rule matches nothing, or one later rule wins all that it matches: line and
 *                    column; a weight that no rule matches; weights of one segment at two places:
 *                    the message names both
 */
int32_t mmqi_model_split(struct mmqi_model *model, const struct mmqi_rules *rules,
                         const int32_t *places, int32_t n_places);
void mmqi_split_clear(struct mmqi_split *split); /* accepts all zeros */

/* Bytes that placing will take at a place: exact. */
uint64_t mmqi_model_place_bytes(const struct mmqi_model *model, int32_t place);
/* Bytes beside them, while weights are placed: for rows that a device with memory of its own
 * packs. */
uint64_t mmqi_model_pack_bytes(const struct mmqi_model *model, int32_t place,
                               const struct mmqi_backend *backend);
/* Place every weight; `places` [split.n_places] are copied, their devices stay the caller's and
 * outlive the placement. `progress` may be NULL; what it returns, not MMQ_OK, ends the work. */
int32_t mmqi_model_place(struct mmqi_model *model, const struct mmqi_place *places,
                         int32_t (*progress)(void *user, uint64_t done, uint64_t total),
                         void *user);

/* Take every weight off its devices again; accepts a model that is not, or only half, placed. */
void mmqi_model_unplace(struct mmqi_model *model);

#endif
