/*
 * Quantizing a model layer by layer: every weight that changes is read once, in chunks of rows,
 * packed, and put into a new model in memory, into a folder, or both.
 *
 * The packed bytes depend on the source and the choices alone: not on the chunks, the threads, what
 * packs them, or where they go.
 */
#ifndef MMQI_QUANT_APPLY_H
#define MMQI_QUANT_APPLY_H

#include "core/thread.h"
#include "quant/report.h"
#include "runtime/host.h"

struct mmqi_quantize_options {
    const struct mmqi_choice *choices; /* [n_weights] of mmqi_policy_apply() on the source */
    const char *out_path;              /* a folder to make; NULL: none */
    /* Of f32 rows in hand; 0: 4 MiB. A format's smallest chunk may be more. */
    uint64_t chunk_bytes;
    uint64_t shard_bytes;   /* of one file of weights; 0: 4 GiB */
    struct mmqi_pool *pool; /* packs the rows of a chunk together; NULL: this thread alone */
    /* Its device at `place` packs instead, and memory for a chunk and its bytes is taken of that
     * budget. NULL: the pool packs. */
    struct mmqi_host *host;
    int32_t place;
    /* Nonzero ends the work with MMQ_ERR_CALLBACK; NULL: none. */
    int32_t (*progress)(void *user, uint64_t done, uint64_t total);
    void *progress_user;
    /* Read atomically; nonzero ends the work with MMQ_ERR_CANCELLED; NULL: none. */
    const int32_t *cancel;
};

/*
 * `quantized` NULL: no model in memory (out_path must be given); else the caller closes it.
 * `report` NULL: none wanted; else the caller frees it. `source` is not changed; weights of it that
 * lie in memory are copied. On failure both are NULL and the folder is not there.
 *
 *   MMQ_ERR_INVALID      nowhere to put the result, or out_path lies inside the source
 *   MMQ_ERR_UNSUPPORTED  a number is beyond the range of the plain format it is to have, or a
 *                        weight has no name in a folder
 *   MMQ_ERR_EXISTS       out_path exists
 *   MMQ_ERR_FORMAT       a weight is NaN or infinite; the message names tensor and place
 *   MMQ_ERR_LIMIT        the device's budget has no room for a chunk
 *   MMQ_ERR_IO, MMQ_ERR_CANCELLED, MMQ_ERR_CALLBACK, and what the device says
 */
int32_t mmqi_quantize(struct mmqi_model **quantized, const struct mmqi_model *source,
                      const struct mmqi_quantize_options *options, struct mmqi_report **report);

#endif
