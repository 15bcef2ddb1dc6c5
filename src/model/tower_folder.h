/*
 * A vision tower that lies in a folder of its own, beside its model's: where
 * it is, its settings, its tensors in the model's index.
 */
#ifndef MMQI_MODEL_TOWER_FOLDER_H
#define MMQI_MODEL_TOWER_FOLDER_H

#include "model/model.h"

/*
 * Find the folder and read its config.json and preprocessor_config.json into `model`, whose family
 * is known. `path` names it; else it is called as the last part of what the family's tower_key says
 * ("openai/clip-vit-large-patch14-336"), and lies inside the model's folder or beside it. Does
 * nothing where the family knows no such folder, or config.json has the tower's vision_config.
 *
 *   MMQ_ERR_NOT_FOUND  there is none: the message names the places
 *   MMQ_ERR_INVALID    `path` is given and the family has no use for it
 */
int32_t mmqi_tower_open(struct mmqi_model *model, const char *path);
/* Join its tensors to the model's, which are indexed, unless these hold the tower already. */
int32_t mmqi_tower_join(struct mmqi_model *model);

/*
 * The text of config.json with the settings of a tower that has a folder of its own put in as
 * "vision_config", so that a folder with all tensors needs no other; *out is freed with
 * mmqi_free().
 */
int32_t mmqi_tower_config(char **out, size_t *out_size, const struct mmqi_model *model,
                          const char *text, size_t size);

#endif
