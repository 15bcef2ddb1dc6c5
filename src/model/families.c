/* The list of families. A config is given to the first that knows it. */
#include "model/family.h"

/* clang-format off */
static const struct mmqi_family *const families[] = {
    &mmqi_family_llava,
    &mmqi_family_llava_next,
    &mmqi_family_llava_orig,
    &mmqi_family_qwen2_vl,
    &mmqi_family_qwen2_5_vl,
    &mmqi_family_qwen3_vl,
    &mmqi_family_idefics3,
    &mmqi_family_smolvlm,
};
/* clang-format on */

const struct mmqi_family *mmqi_family_detect(const struct mmqi_settings *config)
{
    for (size_t i = 0; i < sizeof families / sizeof *families; i++)
        if (families[i]->detect(config))
            return families[i];
    return NULL;
}
