/* A model at work for mmq-eval: opening it, the prompts it is given, a text after them by teacher
 * forcing, and how far another model's logits lie from the ones that were kept. */
#ifndef EXAMPLES_EVAL_MODEL_H
#define EXAMPLES_EVAL_MODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "eval_figures.h"
#include "mmq.h"

enum {
    EVAL_MOST_IMAGES = 16,  /* of one prompt */
    EVAL_TEXT_TOKENS = 512, /* of the words beside the pictures */
};

/* What a run is asked for. */
struct eval_settings {
    const char *reference, *candidate; /* folders; candidate NULL: the reference is measured */
    const char *data;                  /* the folder with the pictures and what is known of them */
    const char *isa;                   /* NULL: the best there is */
    /* Of all models, and of the reference where it differs; NULL: the device's and library's own */
    const char *device, *mode, *reference_device, *reference_mode;
    int32_t n_threads;   /* 0: all */
    size_t limit;        /* of entries or questions */
    int32_t max_tokens;  /* of an answer to a question */
    int32_t context;     /* tokens of a session; 0: what pictures and words need */
    bool grey;           /* questions see a grey picture in place of each */
    const char *answers; /* a file for the answers; NULL: none */
};

struct eval_model {
    mmq_model *model;
    mmq_session *session;
    const char *device;
    const char *wanted_mode, *mode; /* the session's: asked for, and as it is */
    size_t n_vocab;
    int32_t eos;
    int32_t max_context, image_rows;
};

/* printf into error [size]; false, for `return`. */
bool eval_fail(char *error, size_t size, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Into the `error` of what `holder` points to; false. */
#define EVAL_FAIL(holder, ...) eval_fail((holder)->error, sizeof(holder)->error, __VA_ARGS__)

/* The reference or the candidate. False with error told; eval_model_close() either way. The session
 * is made by eval_model_session(). */
bool eval_model_open(struct eval_model *m, bool reference, const struct eval_settings *settings,
                     char *error, size_t size);
/* A session for prompts of n_images pictures, words, and an answer of n_answer tokens, if the model
 * has so many; of `context` tokens when that is not 0. */
mmq_status eval_model_session(struct eval_model *m, size_t n_images, int32_t n_answer,
                              int32_t context);
void eval_model_close(struct eval_model *m);

/* Whether they have vocabularies of one size; else false with error told. */
bool eval_models_match(const struct eval_model *a, const struct eval_model *b, char *error,
                       size_t size);

/* Pictures in order, then words: a chat message, or raw text with markers. It points into itself
 * and to what it is given. */
struct eval_prompt {
    mmq_part part[EVAL_MOST_IMAGES + 1];
    const mmq_part *parts[EVAL_MOST_IMAGES + 1];
    mmq_message message;
    const mmq_message *messages[1];
    const mmq_image *images[EVAL_MOST_IMAGES];
    mmq_prompt prompt;
};

void eval_prompt_chat(struct eval_prompt *p, const mmq_image *const *images, size_t n_images,
                      const char *words);
void eval_prompt_raw(struct eval_prompt *p, const mmq_image *const *images, size_t n_images,
                     const char *text);

/* Logits under teacher forcing: not looked at, kept, or compared with those kept before. */
enum eval_logits { EVAL_IGNORE, EVAL_KEEP, EVAL_COMPARE };

struct eval_force {
    struct eval_divergence divergence;
    float *rows; /* the logits that are kept, [most_rows, n_vocab] */
    size_t n_rows, most_rows;
    char error[512]; /* after a failure: one line */
};

struct eval_forced {
    double nll_sum; /* nats, of the tokens and the end token */
    size_t tokens, top1;
};

/*
 * How likely the model finds `text`, then the end, after the prompt. Kept and compared logits are
 * of one text, in this order. False with force->error told.
 */
bool eval_force_text(struct eval_force *force, struct eval_forced *out, const struct eval_model *m,
                     const mmq_prompt *prompt, const char *text, enum eval_logits logits);
void eval_force_free(struct eval_force *force); /* accepts zeros */

#endif
