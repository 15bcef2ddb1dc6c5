/*
 * Decoders: a chain of steps through which the text of each token runs.
 *
 * A step is told text piece by piece and where a token or everything ends;
 * it passes on what will not change any more. Pieces begin and end between
 * characters.
 */
#ifndef MMQI_TEXT_DECODE_H
#define MMQI_TEXT_DECODE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/buf.h"
#include "text/stage.h"

enum {
    MMQI_END_TOKEN = 1,
    MMQI_END_TEXT = 2 /* comes once, alone and without text; the step is then as new */
};

struct mmqi_decode_step {
    const struct mmqi_stage *stage;
    struct mmqi_decode_step *next; /* NULL: the last one */
    struct mmqi_buf *out;          /* where the last one puts its text */
    struct mmqi_buf token, bytes;  /* held back: a token not yet whole, bytes not yet text */
    size_t n_start, n_end;         /* Strip: taken off the front, held at the end */
    size_t held;                   /* Replace: bytes of the pattern */
    bool inside;                   /* part of the token has been passed on; Join: not the first */
    bool failed;                   /* no memory */
};

/* Hand text on to the next step, and that a token or everything ends. */
void mmqi_pass_on(struct mmqi_decode_step *step, const char *text, size_t size, int32_t end);

#endif
