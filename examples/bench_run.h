/*
 * What mmq-bench measures: prefill, decoding and pictures of one model, beside what its devices
 * reach at best.
 */
#ifndef EXAMPLES_BENCH_RUN_H
#define EXAMPLES_BENCH_RUN_H

#include <stdbool.h>

#include "mmq.h"

struct bench_settings {
    int n_prompt,
        n_decode; /* rows to prefill, tokens to decode; 0: leave it out. n_prompt < 0: 512,
                               or as many as the context has room for */
    int n_tries;
    const char *mode; /* of the session; NULL: the device's own */
    bool vision;
    bool letters; /* a prompt of letters: each is a token of a made-up checkpoint */
};

enum { MOST_FORMATS = 24, MOST_PRODUCTS = 64 };

struct bench_format {
    const char *name;
    uint64_t bytes;
};

struct bench_product {
    int64_t rows, cols;
    int count;
};

/* What the model's devices reach. Of several, what they would together, each with its share of the
 * weights. */
struct bench_rates {
    double read;    /* bytes per second */
    double copy;    /* bytes read and bytes written per second */
    double product; /* multiplications and additions per second of a large dense product in the
                       session's mode; 0: not measured */
};

/* Times are the shortest of all tries; 0 where something was left out. */
struct bench_figures {
    struct bench_rates rates;
    const char *mode;
    double load_seconds;
    uint64_t placed_bytes;
    int n_prompt, n_decode; /* as it was */
    double prefill_seconds, decode_seconds, encode_seconds;
    uint64_t token_bytes;   /* of weights that decoding one token reads */
    double row_products;    /* multiplications and additions of one prefilled row */
    double prompt_products; /* of a whole prompt once: the head */
    struct bench_format formats[MOST_FORMATS]; /* of all weights; names live with the model */
    int n_formats;
    struct bench_product products[MOST_PRODUCTS]; /* of the decoder's layers */
    int n_products;
};

/* Raise *best to what the devices reach now over `bytes` of their memory. */
mmq_status measure_rates(struct bench_rates *best, const mmq_model *model, const char *mode,
                         uint64_t bytes);

/* Formats, products and bytes of the weights, before anything is run. */
mmq_status count_weights(struct bench_figures *figures, const mmq_model *model);

/* Place the model and run everything. */
mmq_status run_bench(struct bench_figures *figures, mmq_model *model,
                     const struct bench_settings *settings);

#endif
