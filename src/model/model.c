/* Opening, copying and closing a model. */
#include "model/model.h"

#include <stddef.h>
#include <string.h>

#include "core/mem.h"
#include "core/status.h"
#include "model/config.h"
#include "model/templates.h"
#include "model/tower_folder.h"
#include "model/weights.h"

static int32_t begin(struct mmqi_model *model, struct mmqi_store *store)
{
    mmqi_store_retain(store);
    model->store = store;
    model->path = mmqi_strdup(mmqi_store_name(store));
    model->n_users = mmqi_alloc(sizeof *model->n_users);
    if (!model->path || !model->n_users)
        return mmqi_fail(MMQ_ERR_NOMEM, "%s: no memory for a model", mmqi_store_name(store));
    *model->n_users = 1;
    return MMQ_OK;
}

/* Which family, before anything else is read: an unknown one is told as such. */
static int32_t find_family(struct mmqi_model *model)
{
    const char *architecture = "", *type = "", *vision = "";
    int32_t status = mmqi_config_read(model);

    if (status != MMQ_OK)
        return status;
    status = mmqi_config_string(model->config, "architectures", "0", &architecture);
    if (status == MMQ_OK)
        status = mmqi_config_string(model->config, "", "model_type", &type);
    if (status == MMQ_OK)
        status = mmqi_config_string(model->config, "vision_config", "model_type", &vision);
    if (status != MMQ_OK)
        return status;
    model->family = mmqi_family_detect(model->config);
    if (model->family)
        return MMQ_OK;
    return mmqi_fail(MMQ_ERR_UNSUPPORTED,
                     "%s: no family of this build runs architectures '%s', model_type '%s'%s%s%s",
                     mmqi_settings_name(model->config), architecture, type,
                     vision[0] ? ", vision '" : "", vision, vision[0] ? "'" : "");
}

static int32_t build_graphs(struct mmqi_model *model)
{
    int32_t status = mmqi_graph_create(&model->vision);

    if (status == MMQ_OK)
        status = mmqi_graph_create(&model->language);
    if (status == MMQ_OK)
        status = model->family->build_vision(model);
    if (status == MMQ_OK)
        status = model->family->build_language(model);
    if (status == MMQ_OK)
        status = mmqi_model_split(model, NULL, NULL, 1);
    return status;
}

int32_t mmqi_model_open(struct mmqi_model **out, struct mmqi_store *store)
{
    return mmqi_model_open_with_tower(out, store, NULL);
}

int32_t mmqi_model_open_with_tower(struct mmqi_model **out, struct mmqi_store *store,
                                   const char *tower_path)
{
    struct mmqi_model *model = mmqi_calloc(1, sizeof *model);
    int32_t status;

    *out = NULL;
    if (!model)
        return mmqi_fail(MMQ_ERR_NOMEM, "%s: no memory for a model", mmqi_store_name(store));
    status = begin(model, store);
    if (status == MMQ_OK)
        status = find_family(model);
    if (status == MMQ_OK)
        status = mmqi_tower_open(model, tower_path);
    if (status == MMQ_OK)
        status = mmqi_config_read_files(model);
    if (status == MMQ_OK)
        status = model->family->configure(model);
    if (status == MMQ_OK)
        status = mmqi_template_build_in(model);
    if (model->spec.image_width == 0)
        model->spec.image_width = model->spec.hidden;
    if (status == MMQ_OK)
        status = mmqi_checkpoint_open(&model->checkpoint, store);
    if (status == MMQ_OK)
        status = mmqi_tower_join(model);
    if (status == MMQ_OK)
        status = mmqi_weights_bind(model);
    if (status == MMQ_OK)
        status = build_graphs(model);
    if (status != MMQ_OK) {
        mmqi_model_close(model);
        return status;
    }
    *out = model;
    return MMQ_OK;
}

int32_t mmqi_model_clone(struct mmqi_model **out, const struct mmqi_model *source)
{
    struct mmqi_model *model = mmqi_calloc(1, sizeof *model);
    int32_t status;

    *out = NULL;
    if (!model)
        return mmqi_fail(MMQ_ERR_NOMEM, "%s: no memory for a model", source->path);
    /* What is shared comes first; the rest may be changing, in a thread that places. */
    memcpy(model, source, offsetof(struct mmqi_model, weights));
    __atomic_add_fetch(model->n_users, 1, __ATOMIC_RELAXED);
    status = mmqi_weights_bind(model); /* the same table again: the graphs know it by index */
    if (status != MMQ_OK) {
        mmqi_model_close(model);
        return status;
    }
    *out = model;
    return MMQ_OK;
}

static void free_shared(struct mmqi_model *model)
{
    if (model->family)
        model->family->free_facts(model->facts);
    mmqi_split_clear(&model->split);
    mmqi_graph_free(model->vision);
    mmqi_graph_free(model->language);
    mmqi_chat_free(model->chat);
    mmqi_free(model->chat_error);
    mmqi_tokenizer_free(model->tokenizer);
    mmqi_settings_free(model->config);
    mmqi_settings_free(model->generation);
    mmqi_settings_free(model->preprocessor);
    mmqi_settings_free(model->video_preprocessor);
    mmqi_settings_free(model->processor);
    mmqi_settings_free(model->tokenizer_config);
    mmqi_settings_free(model->tower_config);
    mmqi_settings_free(model->tower_preprocessor);
    mmqi_store_release(model->tower_store);
    mmqi_checkpoint_release(model->checkpoint);
    mmqi_store_release(model->store);
    mmqi_free(model->path);
    mmqi_free(model->n_users);
}

void mmqi_model_close(struct mmqi_model *model)
{
    if (!model)
        return;
    mmqi_model_unplace(model);
    mmqi_weights_free(model);
    if (!model->n_users || __atomic_sub_fetch(model->n_users, 1, __ATOMIC_ACQ_REL) == 0)
        free_shared(model);
    mmqi_free(model);
}
