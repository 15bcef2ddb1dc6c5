/* Memory that a program took, beside what the library says that it takes. */
#ifndef EXAMPLES_MEMORY_H
#define EXAMPLES_MEMORY_H

#include <stdint.h>
#include <stdio.h>

#include "mmq.h"

/* Bytes of this process that are no file's: now, and at most so far. 0 where the system does not
 * tell (it is not Linux). */
uint64_t process_bytes(void);
uint64_t process_peak(void);

/* Of a model with one session. */
struct memory_figures {
    mmq_memory estimate; /* the library's, before anything is taken */
    uint64_t taken;      /* by the library's own count, on all devices of the model */
    uint64_t before;     /* process_bytes() before the model was loaded */
    uint64_t loaded;     /* and once it was, with nothing placed: index, settings, tokenizer */
    uint64_t peak;       /* process_peak() in the end */
};

/* Fill estimate, taken and peak; `before` and `loaded` are the caller's. */
mmq_status read_memory(struct memory_figures *figures, const mmq_model *model,
                       const mmq_session_options *options);

/* Some lines, or one JSON object without a line's end. */
void print_memory(FILE *out, const struct memory_figures *figures);
void print_memory_json(FILE *out, const struct memory_figures *figures);

#endif
