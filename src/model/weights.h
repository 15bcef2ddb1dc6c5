/*
 * The weight table: what a family needs, and which file tensors bring it.
 *
 * A family declares its weights by canonical name with the shape that the
 * file must have; mmqi_weights_bind() then maps every file tensor to a
 * declared weight through the family's prefixes and aliases, and accounts
 * both ways.
 */
#ifndef MMQI_MODEL_WEIGHTS_H
#define MMQI_MODEL_WEIGHTS_H

#include "model/family.h"

enum { MMQI_MAX_WEIGHT_NAME = 128 }; /* bytes of a canonical name, its zero byte among them */

/* Declaring, one prefix at a time. The first failure is kept in `status`; later calls do nothing.
 */
struct mmqi_declare {
    struct mmqi_model *model;
    const char *at; /* prefix of the names: "language.layers.3" */
    uint32_t flags; /* of every weight declared now */
    int32_t status;
};

/* "at.name" into `out`; false where it does not fit. */
bool mmqi_join_name(char out[MMQI_MAX_WEIGHT_NAME], const char *at, const char *name);

/* A tensor of rank 1 to MMQI_MAX_WEIGHT_RANK; as a matrix it has shape[0] rows (a vector one
 * row). */
void mmqi_declare_weight(struct mmqi_declare *d, const char *name, int32_t role, int32_t rank,
                         const int64_t *shape);
/* A matrix [rows, cols] of role LINEAR, with "name.bias" [rows] if `bias`. */
void mmqi_declare_linear(struct mmqi_declare *d, const char *name, int64_t rows, int64_t cols,
                         bool bias);
void mmqi_declare_vector(struct mmqi_declare *d, const char *name, int64_t n);
/* A scale [n] and, if `bias`, "name.bias" [n]. */
void mmqi_declare_norm(struct mmqi_declare *d, const char *name, int64_t n, bool bias);
/* A vector that the family computed; the numbers are copied. */
void mmqi_declare_constant(struct mmqi_declare *d, const char *name, const float *values,
                           int64_t n);
/* The same of whole numbers, for rope's axes: the vector holds their bits. */
void mmqi_declare_indices(struct mmqi_declare *d, const char *name, const int32_t *values,
                          int64_t n);
/* A second name, [rows, cols], for the storage of the whole name `target`. A tensor of its own in
 * the file is passed over, but for MMQI_WEIGHT_STORED_WINS. */
void mmqi_declare_tied(struct mmqi_declare *d, const char *name, const char *target, int64_t rows,
                       int64_t cols);

/*
 * Declare the family's weights afresh and bind them to the checkpoint's tensors; makes the index by
 * name.
 *
 *   MMQ_ERR_MISMATCH  tensors missing, unused, or of another shape or type: all are counted, the
 * first named and what mmqi_stored_find() says of a matrix stored in a packed format.
 */
int32_t mmqi_weights_bind(struct mmqi_model *model);
void mmqi_weights_free(struct mmqi_model *model);

#endif
