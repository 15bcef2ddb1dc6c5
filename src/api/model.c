/* mmq_model: load, place, ask. */
#include <string.h>

#include "api/api.h"
#include "core/mem.h"
#include "core/text.h"
#include "model/family.h"
#include "quant/plan.h"

const struct mmqi_backend *const mmqi_backends[] = {&mmqi_cpu_backend, NULL};

int32_t mmqi_model_handle(mmq_model **out, struct mmqi_host *host)
{
    mmq_model *model = mmqi_calloc(1, sizeof *model);

    *out = NULL;
    if (!model) {
        mmqi_host_release(host);
        return mmqi_fail(MMQ_ERR_NOMEM, "model: no memory for its handle");
    }
    model->host = host;
    model->n_users = 1;
    model->placing = mmqi_os_mutex_create();
    model->mutex = mmqi_os_mutex_create();
    if (!model->placing || !model->mutex) {
        mmq_model_free(model);
        return mmqi_fail(MMQ_ERR_NOMEM, "model: no memory for its locks");
    }
    *out = model;
    return MMQ_OK;
}

void mmqi_model_retain(mmq_model *model)
{
    __atomic_add_fetch(&model->n_users, 1, __ATOMIC_RELAXED);
}

int32_t mmqi_model_failed(const mmq_model *model, int32_t status)
{
    mmq_model *own = (mmq_model *)model;

    if (status != MMQ_OK && own) {
        mmqi_os_lock(own->mutex);
        mmqi_copy_text(own->error, sizeof own->error, mmqi_message());
        mmqi_os_unlock(own->mutex);
    }
    return status;
}

void mmq_model_free(mmq_model *model)
{
    if (!model || __atomic_sub_fetch(&model->n_users, 1, __ATOMIC_ACQ_REL) > 0)
        return;
    mmqi_model_close(model->core);
    mmqi_host_give(model->host, model->taken_at);
    mmqi_host_release(model->host);
    mmqi_os_mutex_free(model->placing);
    mmqi_os_mutex_free(model->mutex);
    mmqi_free(model);
}

/* The folder `path`, or the host's reader, which is copied and `path` its name. */
static int32_t open_store(struct mmqi_store **out, const char *path, const mmq_reader *reader)
{
    struct mmqi_reader core_reader;
    mmq_reader r;
    int32_t status;

    if (!reader)
        return mmqi_store_open_folder(out, path);
    status = MMQI_TAKE(&r, reader, "mmq_reader");
    if (status != MMQ_OK)
        return status;
    core_reader = (struct mmqi_reader){r.open, r.size, r.read_at, r.close, r.user};
    return mmqi_store_open_reader(out, path, &core_reader);
}

static void log_opened(const mmq_model *model, const char *quantize)
{
    const struct mmqi_log *log = mmqi_host_log(model->host);
    const struct mmqi_model *core = model->core;

    mmqi_log(log, MMQ_LOG_INFO, "%s: opened: %s, %d weights, %s%son %s", core->path,
             core->family->name, (int)core->n_weights, quantize ? quantize : "",
             quantize ? " when placed, " : "", mmqi_host_describe(model->host));
    if (core->chat_error)
        mmqi_log(log, MMQ_LOG_WARNING, "%s: no chat template, raw prompts only: %s", core->path,
                 core->chat_error);
}

static int32_t load(mmq_model **out, const char *path, const mmq_load_options *o,
                    const struct mmqi_backend *const *backends)
{
    struct mmqi_host_options host_options = {
        .device = o->device,
        .isa = o->isa,
        .n_threads = o->n_threads,
        .limit = o->memory_limit,
        .limits = o->memory_limits,
        .runtime = mmqi_runtime_of(o->runtime),
    };
    struct mmqi_store *store = NULL;
    struct mmqi_host *host = NULL;
    mmq_model *model = NULL;
    int32_t status;

    status = mmqi_host_create(&host, backends, &host_options);
    if (status == MMQ_OK)
        status = mmqi_model_handle(&model, host);
    if (status == MMQ_OK)
        status = open_store(&store, path, o->reader);
    if (status == MMQ_OK)
        status = mmqi_model_open_with_tower(&model->core, store, o->vision_path);
    if (status == MMQ_OK)
        status = mmqi_host_split(host, model->core);
    if (status == MMQ_OK && o->quantize)
        status = mmqi_quant_at_load(model->core, o->quantize);
    mmqi_store_release(store); /* an opened model keeps it */
    if (status != MMQ_OK) {
        mmq_model_free(model);
        return status;
    }
    model->on_progress = o->on_progress;
    model->progress_user = o->progress_user;
    model->cancel = o->cancel;
    log_opened(model, o->quantize);
    *out = model;
    return MMQ_OK;
}

int32_t mmqi_load(mmq_model **out, const char *path, const mmq_load_options *options,
                  const struct mmqi_backend *const *backends)
{
    const struct mmqi_mem_hooks *hooks;
    mmq_load_options o;
    int32_t status;

    if (out)
        *out = NULL;
    if (!out || !path)
        return mmqi_fail(MMQ_ERR_INVALID, "mmq_load: out or path is NULL");
    status = MMQI_TAKE(&o, options, "mmq_load_options");
    if (status != MMQ_OK)
        return status;
    hooks = mmqi_runtime_enter(mmqi_runtime_of(o.runtime));
    status = load(out, path, &o, backends);
    mmqi_mem_enter(hooks);
    return status;
}

mmq_status mmq_load(mmq_model **out, const char *path, const mmq_load_options *options)
{
    return mmqi_load(out, path, options, mmqi_backends);
}

const char *mmq_model_error(const mmq_model *model)
{
    return model ? model->error : "";
}

/* Progress of placing: the caller's callback and flag. */
static int32_t place_progress(void *user, uint64_t done, uint64_t total)
{
    const mmq_model *model = user;
    const struct mmqi_mem_hooks *hooks;
    int32_t said;

    if (model->cancel && __atomic_load_n(&model->cancel->raised, __ATOMIC_RELAXED))
        return mmqi_fail(MMQ_ERR_CANCELLED, "%s: cancelled after %llu of %llu bytes",
                         model->core->path, (unsigned long long)done, (unsigned long long)total);
    if (!model->on_progress)
        return MMQ_OK;
    hooks = mmqi_mem_enter(NULL);
    said = model->on_progress(model->progress_user, done, total);
    mmqi_mem_enter(hooks);
    if (said != 0)
        return mmqi_fail(MMQ_ERR_CALLBACK, "%s: the callback ended it after %llu of %llu bytes",
                         model->core->path, (unsigned long long)done, (unsigned long long)total);
    return MMQ_OK;
}

/* The places of the host, as placing takes them. */
static void list_places(struct mmqi_place places[MMQI_MAX_PLACES], const struct mmqi_host *host)
{
    for (int32_t i = 0; i < host->n_places; i++)
        places[i] = host->place[i].at;
}

/* Bytes of the weights at each place, and beside them while they are placed. */
static void count_places(uint64_t weights[MMQI_MAX_PLACES], uint64_t beside[MMQI_MAX_PLACES],
                         const mmq_model *model)
{
    for (int32_t i = 0; i < model->host->n_places; i++) {
        weights[i] = mmqi_model_place_bytes(model->core, i);
        beside[i] = mmqi_model_pack_bytes(model->core, i, model->host->place[i].at.backend);
    }
}

static int32_t take_budgets(struct mmqi_host *host, const uint64_t *weights, const uint64_t *beside)
{
    int32_t status = mmqi_host_take(host, weights, "weights");

    if (status != MMQ_OK)
        return status;
    status = mmqi_host_take(host, beside, "packing weights");
    if (status != MMQ_OK)
        mmqi_host_give(host, weights);
    return status;
}

/* *placed: it was not, and now is. */
static int32_t place_locked(mmq_model *model, bool *placed)
{
    uint64_t weights[MMQI_MAX_PLACES], beside[MMQI_MAX_PLACES], total = 0;
    struct mmqi_place places[MMQI_MAX_PLACES];
    int32_t status;

    if (model->core->placed)
        return MMQ_OK;
    count_places(weights, beside, model);
    list_places(places, model->host);
    status = take_budgets(model->host, weights, beside);
    if (status != MMQ_OK)
        return status;
    status = mmqi_model_place(model->core, places, place_progress, model);
    mmqi_host_give(model->host, beside);
    if (status != MMQ_OK) {
        mmqi_host_give(model->host, weights);
        return status;
    }
    for (int32_t i = 0; i < model->host->n_places; i++) {
        model->taken_at[i] = weights[i];
        total += weights[i];
    }
    __atomic_store_n(&model->taken, total, __ATOMIC_RELAXED);
    *placed = true;
    return MMQ_OK;
}

static void log_placed(const mmq_model *model)
{
    mmqi_log(mmqi_host_log(model->host), MMQ_LOG_INFO, "%s: placed: %llu bytes on %s",
             model->core->path,
             (unsigned long long)__atomic_load_n(&model->taken, __ATOMIC_RELAXED),
             mmqi_host_describe(model->host));
}

mmq_status mmq_model_place(mmq_model *model)
{
    const struct mmqi_mem_hooks *hooks;
    bool placed = false;
    int32_t status;

    if (!model)
        return mmqi_fail(MMQ_ERR_INVALID, "mmq_model_place: model is NULL");
    hooks = mmqi_model_enter(model);
    mmqi_os_lock(model->placing);
    status = place_locked(model, &placed);
    mmqi_os_unlock(model->placing);
    if (placed)
        log_placed(model); /* with no lock held: the log may call the library */
    mmqi_mem_enter(hooks);
    return mmqi_model_failed(model, status);
}

/* Tensors, and their parameters and canonical bytes, which of a tied one are another's. */
static void count_weights(mmq_model_facts *facts, const struct mmqi_model *core)
{
    const struct mmqi_weight *weight;
    int32_t i;

    for (i = 0; i < core->n_weights; i++) {
        weight = &core->weights[i];
        if (weight->role == MMQI_ROLE_CONSTANT)
            continue;
        facts->n_tensors++;
        if (weight->same_as >= 0)
            continue;
        facts->n_parameters += (uint64_t)weight->rows * (uint64_t)weight->cols;
        facts->stored_bytes += weight->layout.bytes;
    }
}

/* Index in the weight table of tensor number `index`; constants are not tensors. -1 past the end.
 */
static int32_t tensor_at(const struct mmqi_model *core, int32_t index)
{
    int32_t i;

    for (i = 0; i < core->n_weights; i++)
        if (core->weights[i].role != MMQI_ROLE_CONSTANT && index-- == 0)
            return i;
    return -1;
}

mmq_status mmq_model_info(mmq_model_facts *facts, const mmq_model *model)
{
    const struct mmqi_spec *spec;
    mmq_model_facts f = {0};
    int32_t i, status = mmqi_clear_struct(facts, "mmq_model_facts");

    if (status == MMQ_OK && !model)
        status = mmqi_fail(MMQ_ERR_INVALID, "mmq_model_info: model is NULL");
    if (status != MMQ_OK)
        return mmqi_model_failed(model, status);
    spec = &model->core->spec;
    f.family = model->core->family->name;
    f.device = mmqi_host_describe(model->host);
    count_weights(&f, model->core);
    f.placed_bytes = __atomic_load_n(&model->taken, __ATOMIC_RELAXED);
    f.vocab_size = spec->vocab_size;
    f.max_context = spec->max_positions;
    f.hidden_size = spec->hidden;
    f.image_rows = spec->image_rows;
    f.image_token = spec->image_token;
    f.bos = spec->bos;
    f.pad = spec->pad;
    f.n_devices = model->host->n_places;
    f.n_eos = spec->n_eos;
    for (i = 0; i < spec->n_eos; i++)
        f.eos[i] = spec->eos[i];
    MMQI_GIVE(facts, &f);
    return MMQ_OK;
}

mmq_status mmq_model_tensor_info(mmq_tensor_facts *facts, const mmq_model *model, int32_t index)
{
    static const char *const roles[] = {
        [MMQI_ROLE_LINEAR] = "linear",
        [MMQI_ROLE_EMBED] = "embedding",
        [MMQI_ROLE_CONV] = "convolution",
        [MMQI_ROLE_VECTOR] = "vector",
    };
    const struct mmqi_weight *weight;
    mmq_tensor_facts f = {0};
    int32_t at = -1, status = mmqi_clear_struct(facts, "mmq_tensor_facts");

    if (status == MMQ_OK && !model)
        status = mmqi_fail(MMQ_ERR_INVALID, "mmq_model_tensor_info: model is NULL");
    if (status == MMQ_OK && index >= 0)
        at = tensor_at(model->core, index);
    if (status == MMQ_OK && at < 0)
        status = mmqi_fail(MMQ_ERR_NOT_FOUND, "%s: there is no tensor number %d", model->core->path,
                           (int)index);
    if (status != MMQ_OK)
        return mmqi_model_failed(model, status);
    weight = &model->core->weights[at];
    f.name = weight->name;
    f.file_name = weight->entry[0] ? weight->entry[0]->name : NULL;
    f.role = roles[weight->role];
    f.format = mmqi_format_info(weight->format)->name;
    f.rows = weight->rows;
    f.cols = weight->cols;
    f.bytes = weight->same_as >= 0 ? 0 : weight->layout.bytes;
    MMQI_GIVE(facts, &f);
    return MMQ_OK;
}

static int32_t lay_out_session(struct mmqi_session_layout *layout, const mmq_model *model,
                               const mmq_session_options *options)
{
    const struct mmqi_mem_hooks *hooks;
    struct mmqi_session_options session_options;
    int32_t status = mmqi_take_session_options(&session_options, options);

    if (status != MMQ_OK)
        return status;
    hooks = mmqi_model_enter(model);
    status = mmqi_session_layout(layout, model->core, model->host, &session_options);
    mmqi_mem_enter(hooks);
    return status;
}

static uint64_t total_at(const mmq_model *model, const struct mmqi_session_layout *layout,
                         int32_t place)
{
    uint64_t session = layout->at[place].total;
    uint64_t beside =
        mmqi_model_pack_bytes(model->core, place, model->host->place[place].at.backend);

    return mmqi_model_place_bytes(model->core, place) + (beside > session ? beside : session);
}

static bool is_placed(mmq_model *model)
{
    bool placed;

    mmqi_os_lock(model->placing);
    placed = model->core->placed != NULL;
    mmqi_os_unlock(model->placing);
    return placed;
}

int32_t mmqi_model_check_room(mmq_model *model, const struct mmqi_session_options *options)
{
    struct mmqi_session_layout layout;
    uint64_t bytes[MMQI_MAX_PLACES];
    int32_t status;

    if (is_placed(model))
        return MMQ_OK;
    status = mmqi_session_layout(&layout, model->core, model->host, options);
    if (status != MMQ_OK)
        return status;
    for (int32_t i = 0; i < layout.n_places; i++)
        bytes[i] = total_at(model, &layout, i);
    mmqi_session_layout_clear(&layout);
    status = mmqi_host_take(model->host, bytes, "weights and session");
    if (status == MMQ_OK)
        mmqi_host_give(model->host, bytes);
    return status;
}

mmq_status mmq_estimate(mmq_memory *memory, const mmq_model *model,
                        const mmq_session_options *options)
{
    struct mmqi_session_layout layout;
    mmq_memory m = {0};
    int32_t status = mmqi_clear_struct(memory, "mmq_memory");

    if (status == MMQ_OK && !model)
        status = mmqi_fail(MMQ_ERR_INVALID, "mmq_estimate: model is NULL");
    if (status == MMQ_OK)
        status = lay_out_session(&layout, model, options);
    if (status != MMQ_OK)
        return mmqi_model_failed(model, status);
    for (int32_t i = 0; i < layout.n_places; i++) {
        m.weights += mmqi_model_place_bytes(model->core, i);
        m.total += total_at(model, &layout, i);
    }
    m.kv_cache = layout.sum.kv;
    m.activations = layout.sum.activations;
    m.scratch = layout.sum.scratch;
    m.staging = layout.staging_bytes;
    mmqi_session_layout_clear(&layout);
    MMQI_GIVE(memory, &m);
    return MMQ_OK;
}

static void estimate_at(mmq_device_memory *m, const mmq_model *model,
                        const struct mmqi_session_layout *layout, int32_t place)
{
    const struct mmqi_session_bytes *bytes = &layout->at[place];
    const struct mmqi_host_place *p = &model->host->place[place];
    struct mmqi_device_memory device;

    p->at.backend->memory(p->at.device, &device);
    m->device = p->name;
    m->mode = mmqi_mode_name(bytes->stream.mode);
    m->weights = mmqi_model_place_bytes(model->core, place);
    m->kv_cache = bytes->kv;
    m->activations = bytes->activations;
    m->scratch = bytes->scratch;
    m->total = total_at(model, layout, place);
    m->limit = p->limit == UINT64_MAX ? 0 : p->limit;
    m->taken = mmqi_host_used(model->host, place);
    m->driver = device.driver;
}

mmq_status mmq_estimate_device(mmq_device_memory *memory, const mmq_model *model,
                               const mmq_session_options *options, int32_t index)
{
    struct mmqi_session_layout layout;
    mmq_device_memory m = {0};
    int32_t status = mmqi_clear_struct(memory, "mmq_device_memory");

    if (status == MMQ_OK && !model)
        status = mmqi_fail(MMQ_ERR_INVALID, "mmq_estimate_device: model is NULL");
    if (status == MMQ_OK && (index < 0 || index >= model->host->n_places))
        status = mmqi_fail(MMQ_ERR_NOT_FOUND, "%s: it is on no device number %d", model->core->path,
                           (int)index);
    if (status == MMQ_OK)
        status = lay_out_session(&layout, model, options);
    if (status != MMQ_OK)
        return mmqi_model_failed(model, status);
    estimate_at(&m, model, &layout, index);
    mmqi_session_layout_clear(&layout);
    MMQI_GIVE(memory, &m);
    return MMQ_OK;
}
