/*
 * What the api files share: handles, and the reading of option structs.
 *
 * Every exported function is here to check arguments, translate structs and
 * call one function below; nothing else.
 */
#ifndef MMQI_API_API_H
#define MMQI_API_API_H

#include "core/mem.h"
#include "core/status.h"
#include "runtime/generate.h"
#include "runtime/host.h"

/*
 * A model handle: the model, the devices it is placed on, and its users. Sessions count as users,
 * so that a model may be freed before them.
 */
struct mmq_model {
    struct mmqi_model *core;
    struct mmqi_host *host;
    struct mmqi_os_mutex *placing;      /* held while weights are placed, callbacks included */
    struct mmqi_os_mutex *mutex;        /* guards `error`; taken last and for no call */
    uint64_t taken;                     /* bytes of all budgets; changed with atomics only */
    uint64_t taken_at[MMQI_MAX_PLACES]; /* of each place's; under `placing` */
    int32_t n_users;                    /* changed with atomics only */
    mmq_progress_fn on_progress;
    void *progress_user;
    const mmq_cancel *cancel;
    char error[MMQI_MESSAGE_BYTES];
};

struct mmq_session {
    struct mmqi_session *core;
    mmq_model *model;
    bool at_work; /* in a call that calls back */
    char error[MMQI_MESSAGE_BYTES];
};

struct mmqi_quant_plan;

struct mmq_plan {
    struct mmqi_quant_plan *core;
};

struct mmq_cancel {
    int32_t raised; /* changed with atomics only */
};

/* Copy a caller's struct over zeros: what the caller's does not have is default, what this library
 * does not know must be zero. NULL is all defaults. `name` for the message. */
int32_t mmqi_take_struct(void *dst, size_t known, const void *src, const char *name);
/* Check and zero a caller's result struct, before the work: a failure leaves it so. */
int32_t mmqi_clear_struct(void *dst, const char *name);
/* Fill a cleared result struct from `src`, as much of it as the caller knows. */
void mmqi_give_struct(void *dst, const void *src, size_t known);
#define MMQI_TAKE(dst, src, name) mmqi_take_struct(dst, sizeof *(dst), src, name)
#define MMQI_GIVE(dst, src) mmqi_give_struct(dst, src, sizeof *(src))

struct mmqi_runtime *mmqi_runtime_of(const mmq_runtime *runtime); /* NULL is NULL */

/*
 * Make the allocator of the model's runtime the current one; returns what was before, which every
 * way out hands to mmqi_mem_enter(). Every function that allocates for a model or a session begins
 * so. NULL, and a model without a runtime, change nothing.
 */
const struct mmqi_mem_hooks *mmqi_model_enter(const mmq_model *model);

/* Session options in the runtime's terms. MMQ_ERR_UNSUPPORTED: a mode that no device of this build
 * has. */
int32_t mmqi_take_session_options(struct mmqi_session_options *out,
                                  const mmq_session_options *options);

/* Where nothing is placed yet: MMQ_ERR_LIMIT when the weights and such a session do not fit the
 * limits, before anything is taken. Under the model's hooks. */
int32_t mmqi_model_check_room(mmq_model *model, const struct mmqi_session_options *options);

/* mmq_load() with these backends, which end with NULL, in the place of the build's own: for
 * tests. */
int32_t mmqi_load(mmq_model **out, const char *path, const mmq_load_options *options,
                  const struct mmqi_backend *const *backends);

/* "exact", "fast". Static. */
const char *mmqi_mode_name(int32_t mode);

/* The backends of this build but for libmmq-cuda.so, best first; ends with NULL. */
extern const struct mmqi_backend *const mmqi_backends[];

/* The flag that runs watch; NULL for none. */
const int32_t *mmqi_cancel_flag(const mmq_cancel *cancel);

/* A handle on `host`, which is its own from here on, also when this fails; its core comes later.
 * mmq_model_free() takes it as it is. */
int32_t mmqi_model_handle(mmq_model **out, struct mmqi_host *host);
void mmqi_model_retain(mmq_model *model);
/* Where the call failed, keep this thread's message as the model's own last failure (the one part
 * of a model that is never const); returns `status`. NULL is no model. */
int32_t mmqi_model_failed(const mmq_model *model, int32_t status);

/* A public prompt in the runtime's terms; memory held by the `held` block, freed with mmqi_free().
 */
int32_t mmqi_take_prompt(struct mmqi_prompt *out, void **held, const mmq_prompt *prompt);

#endif
