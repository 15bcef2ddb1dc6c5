/*
 * The SigLIP vision tower as Idefics3 and its like carry it: no class row, a
 * norm after the last block, rows in squares for a pixel shuffle.
 */
#ifndef MMQI_MODEL_TOWER_SIGLIP_H
#define MMQI_MODEL_TOWER_SIGLIP_H

#include "model/tower_vit.h"

int32_t mmqi_siglip_declare(struct mmqi_model *model, const struct mmqi_vit *siglip);
/* Segments "vision.embed", "vision.blocks.N" and "vision.norm"; the value [patches, hidden] that
 * the last one leaves, patches in squares of merge x merge, which divides the grid; or -1. */
int32_t mmqi_siglip_build(struct mmqi_build *b, const struct mmqi_vit *siglip, int32_t merge);
/* What the tower looks up for each patch (struct mmqi_family, patch_ids). */
void mmqi_siglip_patch_ids(int32_t *ids, const struct mmqi_vit *siglip, int32_t merge);

#endif
