/*
 * A LLaVA or Qwen2-VL checkpoint that lies nowhere: its text files are written into memory, and the
 * bytes of its weights are made when they are read, by a generator that counts. So a model of real
 * shapes can be loaded, and quantized while it is loaded, where no 16-bit copy of it would fit.
 */
#ifndef EXAMPLES_BENCH_MODEL_H
#define EXAMPLES_BENCH_MODEL_H

#include <stdbool.h>

#include "mmq.h"

struct bench_shape {
    const char *name;
    bool qwen2_vl; /* else LLaVA */
    struct {
        int width, mlp, layers, heads, patch;
        int image; /* its side; of Qwen2-VL: of the greatest picture */
    } vision;      /* CLIP, or Qwen2-VL's own */
    struct {
        int width, mlp, layers, heads, kv_heads, vocab, image_token, context;
        bool tied;
    } text; /* Llama, or Qwen2 */
};

/* NULL for another name. */
const struct bench_shape *find_bench_shape(const char *name);
/* The names, "llava-tiny, llava-1b ...". */
extern const char bench_shape_names[];

struct bench_model;

/* The checkpoint of a shape, in bf16; NULL when there is no memory. Freed by close_bench_model(),
 * after the models that read from it. */
struct bench_model *open_bench_model(const struct bench_shape *shape);
void close_bench_model(struct bench_model *model); /* accepts NULL */

/* For mmq_load_options.reader. */
mmq_reader bench_reader(struct bench_model *model);

#endif
