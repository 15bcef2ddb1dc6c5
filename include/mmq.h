/*
 * libmmq: vision-language models in little memory.
 *
 * Open a Hugging Face checkpoint as it lies on disk, quantize it layer by
 * layer, and generate text from pictures and prompts:
 *
 *     mmq_model *model;
 *     mmq_session *session;
 *     mmq_image *image;
 *     mmq_result *result;
 *
 *     mmq_load(&model, "llava-1.5-7b-hf", NULL);
 *     mmq_session_create(&session, model, NULL);
 *     mmq_image_read_file(&image, "train.jpg", NULL);
 *
 *     const mmq_image *images[] = {image};
 *     mmq_prompt prompt = {.struct_size = sizeof prompt,
 *                          .text = "USER: <image>\nWhat is this? ASSISTANT:",
 *                          .images = images, .n_images = 1};
 *     mmq_generate_request request = {.struct_size = sizeof request, .prompt = &prompt};
 *     if (mmq_generate(&result, session, &request) == MMQ_OK)
 *         use(mmq_result_text(result));
 *     else
 *         complain(mmq_last_error_message());
 *
 * Rules that hold everywhere
 *   - A function that can fail returns an mmq_status: 0 or a negative error. The thread's
 *     mmq_last_error_message() then says in one line what was found, and where. Results are
 *     NULL (or zero) after a failure, handles stay usable, and a retry works.
 *   - MMQ_ERR_NOMEM and MMQ_ERR_INVALID (a bad argument) can come from any function and are not
 *     repeated below.
 *   - Option, request and result structs begin with struct_size, which the caller sets to
 *     sizeof. They grow only at the end; zero is every field's default; a struct larger than
 *     this library knows is accepted if the tail is zero. NULL options mean all defaults.
 *   - What a call takes is not kept unless said; strings in a result live as long as its handle.
 *   - Text is UTF-8 and ends with a zero byte. Sizes in bytes are uint64_t.
 *   - A callback gets the `user` that stands beside it, runs on the calling thread, returns 0 to
 *     go on (anything else ends the call with MMQ_ERR_CALLBACK) and may not free the handle at
 *     work, nor set a session that is at work to other work (MMQ_ERR_INVALID).
 *   - Models and images are shared by threads; a session is one thread's at a time.
 *   - The library never prints, exits, aborts, installs signal handlers, changes the locale or
 *     reads environment variables, and keeps no process-wide state.
 */
#ifndef MMQ_H
#define MMQ_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#ifndef MMQ_API
#if defined(__GNUC__)
#define MMQ_API __attribute__((visibility("default")))
#else
#define MMQ_API
#endif
#endif

/* ------------------------------------------------------------------------------------------
 * Basics
 */

#define MMQ_VERSION_MAJOR 0
#define MMQ_VERSION_MINOR 1
#define MMQ_VERSION_PATCH 0

/* 0 is success; errors are negative, in blocks of ten, and never change their meaning. */
typedef int32_t mmq_status;

#define MMQ_OK 0
/* the call */
#define MMQ_ERR_INVALID (-10)     /* a bad argument: NULL, out of range, a struct of unknown size */
#define MMQ_ERR_STATE (-11)       /* right call, wrong moment */
#define MMQ_ERR_UNSUPPORTED (-12) /* valid, but this build or device does not run it */
/* resources */
#define MMQ_ERR_NOMEM (-20)        /* the allocator gave nothing */
#define MMQ_ERR_LIMIT (-21)        /* a limit of the caller or of the library would be passed */
#define MMQ_ERR_CONTEXT_FULL (-22) /* the session holds no more tokens */
/* files and what is in them */
#define MMQ_ERR_IO (-30)        /* cannot be opened, read or written */
#define MMQ_ERR_NOT_FOUND (-31) /* there is no such file, tensor or name */
#define MMQ_ERR_FORMAT (-32)    /* the bytes are not what they should be */
#define MMQ_ERR_EXISTS (-33)    /* the destination exists */
#define MMQ_ERR_MISMATCH (-34)  /* tensors missing, unused or of another shape than needed */
/* control */
#define MMQ_ERR_CANCELLED (-40) /* mmq_cancel_raise() was called */
#define MMQ_ERR_CALLBACK (-41)  /* a callback returned nonzero */
/* devices */
#define MMQ_ERR_DEVICE (-50)    /* the device failed */
#define MMQ_ERR_NO_DEVICE (-51) /* there is no such device */
/* the library itself */
#define MMQ_ERR_INTERNAL (-60) /* a promise inside the library was broken: a bug */

/* major << 16 | minor << 8 | patch of the library that is loaded, for comparison with the
 * header's numbers. Since 0.1. */
MMQ_API int32_t mmq_version(void);

/* "0.1.0". Since 0.1. */
MMQ_API const char *mmq_version_string(void);

/* The constant's name, "MMQ_ERR_FORMAT"; "MMQ_ERR_?" for a number that is none. Since 0.1. */
MMQ_API const char *mmq_status_name(mmq_status status);

/* What the status means, in a few words. Since 0.1. */
MMQ_API const char *mmq_status_text(mmq_status status);

/* One line about this thread's last failure; "" before the first. It stays until the thread's
 * next failure. Since 0.1. */
MMQ_API const char *mmq_last_error_message(void);

/* ------------------------------------------------------------------------------------------
 * Handles and callbacks
 */

typedef struct mmq_model mmq_model;           /* weights and how to run them; shared by threads */
typedef struct mmq_session mmq_session;       /* one timeline of tokens and pictures */
typedef struct mmq_image mmq_image;           /* a decoded picture; immutable, shared by threads */
typedef struct mmq_result mmq_result;         /* what mmq_generate() made */
typedef struct mmq_evaluation mmq_evaluation; /* what mmq_evaluate() measured */
typedef struct mmq_report mmq_report;         /* what mmq_quantize_layerwise() did */
typedef struct mmq_cancel mmq_cancel;         /* a flag that any thread may raise */
typedef struct mmq_runtime mmq_runtime;       /* the host's allocator, log and threads */
typedef struct mmq_plan mmq_plan;             /* the format of every tensor, with reasons */

/* Long work tells how far it is: `done` of `total` bytes. */
typedef int32_t (*mmq_progress_fn)(void *user, uint64_t done, uint64_t total);

/* A flag to end work that takes it in its options: raised once, by any thread, it stays raised.
 * It must outlive the calls that were given it. Since 0.1. */
MMQ_API mmq_status mmq_cancel_create(mmq_cancel **out);
MMQ_API void mmq_cancel_raise(mmq_cancel *cancel);
MMQ_API void mmq_cancel_free(mmq_cancel *cancel); /* accepts NULL */

/* ------------------------------------------------------------------------------------------
 * Runtime (optional): the host's allocator, log and threads
 */

#define MMQ_LOG_INFO 1
#define MMQ_LOG_WARNING 2

typedef struct mmq_runtime_options {
    size_t struct_size;
    /* Memory of everything that the runtime's models and sessions make on the host; both or none.
     * alloc returns NULL when there is none; blocks are aligned to 16. Any thread may call them. */
    void *(*alloc)(void *user, size_t size);
    void (*free)(void *user, void *block);
    void *memory_user;
    /* One line about what the library does; level is MMQ_LOG_.... Any thread; NULL: nothing is
     * told. */
    void (*log)(void *user, int32_t level, const char *line);
    void *log_user;
    /* The host's threads: run body(arg, i, worker) for every i in [0, n), return when all are
     * done. `worker` is below n_threads, and within one call of parallel_for two bodies with one
     * worker never overlap. Sessions of several threads call it at once. NULL: threads of the
     * library. */
    void (*parallel_for)(void *user, int64_t n, void (*body)(void *arg, int64_t i, int32_t worker),
                         void *arg);
    void *parallel_user;
    int32_t n_threads; /* of parallel_for, or of the library's pool; 0: one per processor */
    int32_t reserved;  /* 0 */
    /* Path of the library libmmq-cuda.so, copied; NULL: beside libmmq.so; "": none, and so no CUDA
     * device. It is opened when a model asks for "cuda:N" or "auto". */
    const char *cuda_library;
} mmq_runtime_options;

/* A runtime that any number of models share; they keep it alive. The callbacks must stay good until
 * the last model is freed, and `free` until what its models and sessions gave out (results, texts)
 * is freed, too. All but `log` may not call the library. Since 0.1. */
MMQ_API mmq_status mmq_runtime_create(mmq_runtime **out, const mmq_runtime_options *options);
MMQ_API void mmq_runtime_free(mmq_runtime *runtime); /* accepts NULL */

/* ------------------------------------------------------------------------------------------
 * Devices
 */

typedef struct mmq_device_facts {
    size_t struct_size;
    char id[32];          /* as load options spell it: "cuda:0", "cpu" */
    char kind[32];        /* "cuda", "cpu" */
    char name[128];       /* as its maker calls it */
    char compute[32];     /* of CUDA: its capability, "9.0"; else "" */
    uint64_t total_bytes; /* of its memory; for the CPU the machine's. 0: not known */
    uint64_t free_bytes;  /* 0: not known (of CUDA devices: before a model has opened them) */
    int32_t has_fast;     /* nonzero: sessions may run in "fast" mode */
    int32_t reserved;     /* 0 */
} mmq_device_facts;

/* How many devices a model can be loaded on, the best first; the CPU is the last. `runtime` NULL:
 * as without one. Nothing is opened on the devices. Any thread. Since 0.1. */
MMQ_API mmq_status mmq_device_count(int32_t *n, const mmq_runtime *runtime);

/* Device `index` of them. MMQ_ERR_NOT_FOUND past the end. Any thread. Since 0.1. */
MMQ_API mmq_status mmq_device_info(mmq_device_facts *facts, const mmq_runtime *runtime,
                                   int32_t index);

/* ------------------------------------------------------------------------------------------
 * Models
 */

/*
 * Where a model's files come from instead of a folder: assets of a phone, an archive, memory. Each
 * returns MMQ_OK or a status (anything that no file could mean is MMQ_ERR_CALLBACK); `open` says
 * MMQ_ERR_NOT_FOUND for a file that is not there. `name` is relative, without "..". read_at fills
 * all of dst or fails; it may be called by several threads at once. None may place a model or make
 * a session. The struct is copied; what `user` points to must outlive the models that were made
 * from it. The path of mmq_load() is then the name for messages.
 */
typedef struct mmq_reader {
    size_t struct_size;
    int32_t (*open)(void *user, const char *name, void **file);
    int32_t (*size)(void *user, void *file, uint64_t *size);
    int32_t (*read_at)(void *user, void *file, uint64_t offset, void *dst, size_t size);
    void (*close)(void *user, void *file);
    void *user;
} mmq_reader;

typedef struct mmq_load_options {
    size_t struct_size;
    const char *device;    /* NULL or "auto": the best there is; "cpu", "cuda:0"; or a device map
                              (see below) */
    uint64_t memory_limit; /* bytes that weights and sessions may take on the device; 0: no limit */
    int32_t n_threads;     /* of the CPU; 0: one per processor that the process may use, or the
                              runtime's, beside which no other number is taken */
    const char *isa;       /* NULL or "auto"; "c", "avx2", "avx512": the CPU kernels to use */
    mmq_progress_fn on_progress; /* while weights are placed; NULL: none. It may not place the model
                                    or make a session of it. */
    void *progress_user;
    const mmq_cancel *cancel; /* checked while weights are placed; NULL: none. It and progress_user
                                 are kept, and must live, until the model is placed (by the first
                                 session, or mmq_model_place()). */
    const char *quantize; /* NULL: as stored; a format, preset or rules as in mmq_quantize_options:
                             weights are packed as they are read, so the 16-bit model is never
                             held */
    const mmq_reader *reader;   /* NULL: files of the folder `path`; else where files come from */
    const mmq_runtime *runtime; /* NULL: malloc, no log, threads of its own */
    const char *memory_limits;  /* instead of memory_limit, for a model on several devices: rules
                                   over devices, "cuda:0 = 8GiB; cpu = 4GiB"; NULL: no limit */
    const char *vision_path;    /* the folder of the vision tower, for a model that keeps it apart
                                   (LLaVA-1.5 in its authors' form); with a reader, a folder of its
                                   files. NULL: the folder that config.json names, inside `path` or
                                   beside it. Since 0.1. */
} mmq_load_options;

/*
 * A device map splits a model by rules over canonical names, written as policies are (see
 * mmq_plan_create()), with devices in the place of formats:
 *
 *     * = cpu; language.layers.{0-15}.* = cuda:0
 *
 * The last rule that matches wins; so what holds for the rest comes first. Every weight needs one
 * that matches. A segment (the embedding, one layer, the head; one block of the tower, the
 * projector) runs on the device that its weights are on, and is not cut. A weight that several
 * segments read, such as a tied head, lies on each of their devices. Where the model is split
 * changes nothing on devices of one kind, in any mode; rules for limits ("cuda:* = 8GiB") are in
 * bytes, KiB, MiB, GiB or TiB.
 */

/*
 * Open the checkpoint in the folder `path`: a Hugging Face vision-language model (safetensors, or
 * else what torch.save wrote since torch 1.6, single or sharded) or a folder that libmmq saved.
 * Only headers, configuration and tokenizer are read; weights are placed by mmq_model_place() or by
 * the first session. Of a pickle nothing is executed.
 *
 * The caller owns *out and frees it with mmq_model_free(). Any thread. Since 0.1.
 *
 *   MMQ_ERR_NOT_FOUND    the folder, its config.json or its weights are not there
 *   MMQ_ERR_IO           a file cannot be read
 *   MMQ_ERR_FORMAT       a file is broken or lies about itself; the message names file and place
 *   MMQ_ERR_MISMATCH     tensors missing, unused or of another shape; the message lists them
 *   MMQ_ERR_UNSUPPORTED  a family, weight format, kernel set or option this build does not run
 *   MMQ_ERR_INVALID      `quantize`, a device map or limits do not parse, or a rule matches
 *                        nothing: line and column; a map that cuts a segment, or leaves a weight
 *                        out
 *   MMQ_ERR_CALLBACK     the reader failed with what no file could mean
 *   MMQ_ERR_LIMIT        more tensors, end tokens or bytes than this library counts
 *   MMQ_ERR_NO_DEVICE    there is no such device
 */
MMQ_API mmq_status mmq_load(mmq_model **out, const char *path, const mmq_load_options *options);

/* Give the handle back; sessions that still use the model keep it alive. Accepts NULL. Since 0.1.
 */
MMQ_API void mmq_model_free(mmq_model *model);

/* One line about the last call that failed on this model, on any thread; "" before. Valid until the
 * next failure on the model. Since 0.1. */
MMQ_API const char *mmq_model_error(const mmq_model *model);

typedef struct mmq_model_facts {
    size_t struct_size;
    const char *family;    /* "llava" */
    const char *device;    /* "cpu avx512, 2 threads"; several are joined by " + "; lives with the
                              model */
    uint64_t n_parameters; /* of the checkpoint; a tied head is counted once */
    uint64_t stored_bytes; /* canonical bytes of all weights */
    uint64_t placed_bytes; /* on its devices; 0 before placing */
    int32_t n_tensors;     /* for mmq_model_tensor_info() */
    int32_t vocab_size;    /* columns of the logits */
    int32_t max_context;   /* positions that the model was made for */
    int32_t hidden_size;
    int32_t image_rows;  /* tokens that one picture takes, the greatest where they differ */
    int32_t image_token; /* the id that stands for them */
    int32_t bos, pad;    /* -1: none */
    int32_t n_eos;
    int32_t eos[8];     /* ids that end an answer */
    int32_t reserved;   /* 0 */
    int32_t n_devices;  /* for mmq_estimate_device() */
    int32_t reserved_2; /* 0 */
} mmq_model_facts;

/* Fill *facts (its struct_size is set by the caller). Any thread. Since 0.1. */
MMQ_API mmq_status mmq_model_info(mmq_model_facts *facts, const mmq_model *model);

typedef struct mmq_tensor_facts {
    size_t struct_size;
    const char *name;      /* canonical: "language.layers.3.attn.q"; lives with the model */
    const char *file_name; /* as the checkpoint spells it; NULL for a tied weight */
    const char *role;      /* "linear", "embedding", "convolution", "vector" */
    const char *format; /* that it is or will be placed in: "bf16", "nf4-nested" ... (see below) */
    int64_t rows, cols;
    uint64_t bytes; /* canonical bytes; 0 for a tied weight */
} mmq_tensor_facts;

/* Tensor `index` of [0, n_tensors). MMQ_ERR_NOT_FOUND past the end. Any thread. Since 0.1. */
MMQ_API mmq_status mmq_model_tensor_info(mmq_tensor_facts *facts, const mmq_model *model,
                                         int32_t index);

/*
 * Read the weights onto the device now rather than with the first session. Placing twice is no
 * error. Any thread; others that need the model wait. Since 0.1.
 *
 *   MMQ_ERR_LIMIT      the weights alone pass the memory limit: the message tells both figures
 *   MMQ_ERR_CANCELLED  the load options' flag was raised; the model can be placed again later
 *   MMQ_ERR_CALLBACK   on_progress or the reader ended it; likewise
 *   MMQ_ERR_IO, MMQ_ERR_FORMAT  a file changed or cannot be read any more; a weight to quantize, or
 *                               a stored scale, is NaN or infinite
 *   MMQ_ERR_UNSUPPORTED         a weight is beyond the f16 or bf16 that it is to become
 */
MMQ_API mmq_status mmq_model_place(mmq_model *model);

typedef struct mmq_session_options {
    size_t struct_size;
    int32_t context;    /* tokens that the session can hold; 0: the model's, at most 4,096 */
    int32_t chunk;      /* rows of a prompt run at once, 1 .. 4,096; 0: 512, in "fast" mode 2,048.
                         More is faster and takes more memory; the answer is the same. */
    const char *mode;   /* "exact": f32 activations and accumulation; "fast": as the device states
                         (CUDA: bf16, or f16 before Ampere, with f32 accumulation); NULL: "fast" on
                         a device that has it. Beside such a device, others run "exact". */
    int32_t image_rows; /* tokens of the greatest picture or video that the session takes, where
                           they differ; 0: all that model and context allow. Fewer take less
                           memory. */
    int32_t reserved;   /* 0 */
} mmq_session_options;

typedef struct mmq_memory {
    size_t struct_size;
    uint64_t weights;     /* placed weights */
    uint64_t kv_cache;    /* keys and values of one session */
    uint64_t activations; /* arenas, pictures, logits and indices of one session */
    uint64_t scratch;     /* of kernels, one session */
    uint64_t total;       /* of the model with one session, or of its weights while they are packed,
                             where that is more: exactly the most that will be taken */
    uint64_t staging;     /* host memory beside them, where values go from one device to another */
} mmq_memory;

/* Device memory that the model and a session with these options take, to the byte, before any of
 * it is taken. Any thread. Since 0.1. */
MMQ_API mmq_status mmq_estimate(mmq_memory *memory, const mmq_model *model,
                                const mmq_session_options *options);

typedef struct mmq_device_memory {
    size_t struct_size;
    const char *device; /* "cuda:0"; lives with the model */
    const char *mode;   /* that the session's part there runs in: "exact", "fast" */
    uint64_t weights;   /* as in mmq_memory, of this device alone */
    uint64_t kv_cache;
    uint64_t activations;
    uint64_t scratch;
    uint64_t total;
    uint64_t limit;  /* 0: none */
    uint64_t taken;  /* now, by models and sessions that share the device with this model */
    uint64_t driver; /* by the driver for this device beside that: context, modules, captured
                        graphs; as far as it tells. 0 for the CPU. */
} mmq_device_memory;

/* The same for device `index` of [0, n_devices) of the model. MMQ_ERR_NOT_FOUND past the end. Any
 * thread. Since 0.1. */
MMQ_API mmq_status mmq_estimate_device(mmq_device_memory *memory, const mmq_model *model,
                                       const mmq_session_options *options, int32_t index);

/* ------------------------------------------------------------------------------------------
 * Quantization
 */

/*
 * A policy is text: the name of a format ("nf4": every linear of tower, projector and decoder), a
 * preset ("int8", "nf4", "int4", "layered"), or rules, one per line or separated by ';':
 *
 *     vision.* = nf4
 *     language.layers.{5-9}.attn.* = bf16     # a comment
 *     language.layers.*.mlp.down = int4-g32 search
 *
 * Patterns are over canonical names: '*' is any text, '{a,b}' a choice, '{5-9}' a range of numbers.
 * The last rule that matches wins; weights that none matches are kept. A rule that matches no
 * weight is an error, told with line and column. After the format may stand a method: "rtn" (round
 * to nearest, the default) or "search" (the scale of a grid with the least squared error of the
 * weights). "keep" keeps. q, k, v of one layer share one format, and so do gate and up.
 * Formats:
 *     f32 f16 bf16 int8
 *     nf4 nf4-32 nf4-128 fp4 fp4-32 fp4-128     blocks of 64, 32, 128; each with "-nested"
 *     int4-g32 int4-g64 int4-g128               each with "-bf16"; "int4" is int4-g64
 */

/* What a policy would do, before any work. The caller owns *out. Any thread. Since 0.1.
 *   MMQ_ERR_INVALID      a rule that does not parse or matches nothing: line and column
 *   MMQ_ERR_LIMIT        more than 64 KiB of text
 *   MMQ_ERR_UNSUPPORTED  an unknown format or method; a weight that is quantized already
 */
MMQ_API mmq_status mmq_plan_create(mmq_plan **out, const mmq_model *model, const char *policy);
/* Totals, and per tensor name, format, method, bytes and reason; lives with the plan. Since 0.1. */
MMQ_API const char *mmq_plan_json(const mmq_plan *plan);
MMQ_API void mmq_plan_free(mmq_plan *plan); /* accepts NULL */

typedef struct mmq_quantize_options {
    size_t struct_size;
    const char *format;   /* a format for every linear, a preset, or rules (see above) */
    const char *out_path; /* a folder to make, which mmq_load() reads; NULL: memory only */
    uint64_t chunk_bytes; /* of the f32 rows in hand; 0: 4 MiB. The result does not depend on it. */
    mmq_progress_fn on_progress; /* bytes of the source; NULL: none */
    void *progress_user;
    const mmq_cancel *cancel; /* NULL: none */
    const char *method;       /* of rules that name none: NULL or "rtn", "search" */
    const mmq_plan *plan;     /* instead of `format`: made for a model of the same tensors */
    const char *device;       /* that packs: NULL: the CPU, by the source's threads; "auto", "cpu",
                                 "cuda:0". The bytes do not depend on it. */
} mmq_quantize_options;

/*
 * Quantize `source` layer by layer: each source tensor is read once, in chunks of rows, packed, and
 * written to the folder out_path, to a new model in memory, or both. Patch convolution, norms and
 * biases stay as they are, and so do embeddings and head unless a rule names them. `source` need
 * not be placed and is not changed.
 *
 * `quantized` NULL: no model in memory (out_path must be given). `report` NULL: none wanted. The
 * caller frees both. The new model shares device and threads with `source`, which may be freed
 * first. A folder appears under its name only when it is complete and synced. Any thread. Since
 * 0.1.
 *
 *   MMQ_ERR_INVALID      a rule that does not parse or matches nothing; out_path inside the source
 *   MMQ_ERR_UNSUPPORTED  an unknown format or method; a weight that is quantized already, in
 *                        another format (one in the same is copied); a number beyond f16 or bf16
 *   MMQ_ERR_MISMATCH     the plan was made for other tensors
 *   MMQ_ERR_EXISTS       out_path exists
 *   MMQ_ERR_FORMAT       a weight is NaN or infinite: the message names tensor and index
 *   MMQ_ERR_IO           the folder cannot be written
 *   MMQ_ERR_NO_DEVICE    there is no such device to pack on
 *   MMQ_ERR_LIMIT        the source's memory limit of that device leaves no room for a chunk
 *   MMQ_ERR_CANCELLED, MMQ_ERR_CALLBACK
 */
MMQ_API mmq_status mmq_quantize_layerwise(mmq_model **quantized, const mmq_model *source,
                                          const mmq_quantize_options *options, mmq_report **report);

/* What was done, as JSON: totals, and per tensor name, format, method, bytes and reason. The text
 * lives with the report. Since 0.1. */
MMQ_API const char *mmq_report_json(const mmq_report *report);
MMQ_API void mmq_report_free(mmq_report *report); /* accepts NULL */

/* ------------------------------------------------------------------------------------------
 * Pictures
 */

typedef struct mmq_image_options {
    size_t struct_size;
    uint64_t max_pixels; /* more is MMQ_ERR_LIMIT, before they are allocated; 0: 2^28 */
} mmq_image_options;

/*
 * Decode a PNG or JPEG to 8-bit RGB as Pillow's convert("RGB") does: grey replicated, alpha
 * dropped. The caller owns *out. Any thread. Since 0.1.
 *
 *   MMQ_ERR_NOT_FOUND, MMQ_ERR_IO  the file
 *   MMQ_ERR_FORMAT                 broken, truncated or no picture
 *   MMQ_ERR_LIMIT                  more pixels than max_pixels, or a side of more than 65,535
 *   MMQ_ERR_UNSUPPORTED            a decoder that this build was made without
 */
MMQ_API mmq_status mmq_image_read_file(mmq_image **out, const char *path,
                                       const mmq_image_options *options);
MMQ_API mmq_status mmq_image_read_memory(mmq_image **out, const void *data, size_t size,
                                         const mmq_image_options *options);

/* Copy pixels of 1 (grey), 3 (RGB) or 4 (RGBA, alpha dropped) bytes each; row_bytes 0: rows follow
 * each other. Since 0.1. */
MMQ_API mmq_status mmq_image_from_pixels(mmq_image **out, const uint8_t *pixels, int32_t width,
                                         int32_t height, int32_t channels, size_t row_bytes,
                                         const mmq_image_options *options);

typedef struct mmq_video_options {
    size_t struct_size;
    double fps; /* frames a second, 0.01..1000; 0: 24, as transformers where nothing tells */
} mmq_video_options;

/*
 * A video, for models of Qwen2-VL's line that take one: frames of one size, in order, at an even
 * rate. It goes where a picture goes, in a part or among a prompt's images; templates see a part of
 * the type "video", and in raw text its marker is the model's own, "<|vision_start|><|video_pad|>
 * <|vision_end|>". The frames are kept alive and may be freed, and one may stand in the list again
 * and in other videos. Two frames make one view of the tower, the last frame twice where they are
 * odd; a model takes at most 128 views (MMQ_ERR_LIMIT when a longer video is run). The caller owns
 * *out. Any thread.
 *
 *   MMQ_ERR_INVALID  no frame or more than 65,536, frames of other sizes, a video among them, a
 *                    rate out of range
 * Since 0.1. mmq_generate() and its like say MMQ_ERR_UNSUPPORTED of a model that takes no videos.
 */
MMQ_API mmq_status mmq_image_from_frames(mmq_image **out, const mmq_image *const *frames,
                                         size_t n_frames, const mmq_video_options *options);

/* Since 0.1. Sessions that hold the picture keep it alive. Of a video the size of its frames. */
MMQ_API mmq_status mmq_image_size(int32_t *width, int32_t *height, const mmq_image *image);
MMQ_API void mmq_image_free(mmq_image *image); /* accepts NULL */

/* ------------------------------------------------------------------------------------------
 * Text and prompts
 */

/* Part of a message: text or a picture (or a video, which is one), exactly one of them. */
typedef struct mmq_part {
    size_t struct_size;
    const char *text;
    const mmq_image *image;
} mmq_part;

typedef struct mmq_message {
    size_t struct_size;
    const char *role; /* "system", "user", "assistant" */
    const mmq_part *const *parts;
    size_t n_parts;
} mmq_message;

/*
 * What to say to the model: the whole conversation (messages), put into words by the checkpoint's
 * own chat template or, where it has none, its family's, or raw text. In raw text every picture
 * stands where the model's image marker does ("<image>"; Qwen2-VL:
 * "<|vision_start|><|image_pad|><|vision_end|>"), in order; as many markers as pictures.
 *
 * Raw text means what it spells: "<|im_end|>" in it is that token. In messages, roles and texts
 * that spell a special token or the image marker stay the words that they are, wherever they come
 * from, unless parse_special is set. Bytes that are not UTF-8 are read as U+FFFD, one for each
 * longest part that could have begun a character (as Python's errors="replace" does).
 */
typedef struct mmq_prompt {
    size_t struct_size;
    const mmq_message *const *messages;
    size_t n_messages;
    const char *text; /* used when n_messages is 0 */
    const mmq_image *const *images;
    size_t n_images;
    int32_t parse_special; /* nonzero: special tokens spelled in messages are special tokens */
    int32_t reserved;      /* 0 */
} mmq_prompt;

/*
 * The ids of `text` [size bytes, or SIZE_MAX up to its zero byte], read as a prompt's raw text is.
 * add_special nonzero: with the ids that the tokenizer puts around a text (BOS). *ids is the
 * library's to free: mmq_ids_free(). Any thread. Since 0.1.
 */
MMQ_API mmq_status mmq_tokenize(int32_t **ids, size_t *n_ids, const mmq_model *model,
                                const char *text, size_t size, int32_t add_special);
MMQ_API void mmq_ids_free(int32_t *ids); /* accepts NULL */

/* The text of ids; skip_special nonzero: without special tokens. Freed by mmq_text_free(). Since
 * 0.1. */
MMQ_API mmq_status mmq_detokenize(char **text, size_t *size, const mmq_model *model,
                                  const int32_t *ids, size_t n_ids, int32_t skip_special);
MMQ_API void mmq_text_free(char *text); /* accepts NULL */

/* The prompt in words, as the model will read it, before tokenizing: the chat template's output
 * with the generation prompt, or the raw text. MMQ_ERR_UNSUPPORTED without a template that runs
 * here; MMQ_ERR_FORMAT where it fails. Since 0.1.
 */
MMQ_API mmq_status mmq_render_chat(char **text, size_t *size, const mmq_model *model,
                                   const mmq_prompt *prompt);

/* ------------------------------------------------------------------------------------------
 * Sessions and generation
 */

/*
 * A session on the model, which is placed now if it was not. All device memory of the session is
 * taken here, exactly as mmq_estimate() tells. The caller owns *out. Since 0.1.
 *
 *   MMQ_ERR_LIMIT        the memory limit would be passed: the message tells needed and given
 *                        bytes, and nothing was placed for it
 *   MMQ_ERR_UNSUPPORTED  a mode that the device does not have
 * and what mmq_model_place() can say.
 */
MMQ_API mmq_status mmq_session_create(mmq_session **out, mmq_model *model,
                                      const mmq_session_options *options);
MMQ_API void mmq_session_free(mmq_session *session); /* accepts NULL */

/* "exact" or "fast": what it runs in. Static. Since 0.1. */
MMQ_API const char *mmq_session_mode(const mmq_session *session);

/* One line about this session's last failure; "" before. Since 0.1. */
MMQ_API const char *mmq_session_error(const mmq_session *session);

/* Tokens that the session holds (picture rows count). Since 0.1. */
MMQ_API int32_t mmq_session_length(const mmq_session *session);

/* Forget all but the first `length` tokens; reset forgets all. MMQ_ERR_INVALID beyond the length. A
 * later prompt reuses what is kept, if it begins the same. Since 0.1. */
MMQ_API mmq_status mmq_session_truncate(mmq_session *session, int32_t length);
MMQ_API mmq_status mmq_session_reset(mmq_session *session);

/* A piece of the answer: whole UTF-8 characters, which may be none when a token has made none yet
 * (n_ids is then still what was sampled since the last call). */
typedef int32_t (*mmq_text_fn)(void *user, const char *text, size_t size, const int32_t *ids,
                               size_t n_ids);

/* Logits of the position that predicts target (or token) `index`; valid during the call. */
typedef int32_t (*mmq_logits_fn)(void *user, size_t index, const float *logits, size_t n_vocab);

typedef struct mmq_generate_request {
    size_t struct_size;
    const mmq_prompt *prompt;
    int32_t max_new_tokens;   /* 0: until the end token or the context's end */
    float temperature;        /* 0: greedy (the lowest id wins a tie) */
    int32_t top_k;            /* keep the k likeliest; 0: all */
    float top_p;              /* then the likeliest that add up to p; 0 or 1: all */
    float min_p;              /* then those of at least min_p times the likeliest; 0: all */
    float repetition_penalty; /* logits of ids in the timeline: divided if > 0, multiplied if < 0; 0
                                 or 1: off */
    uint64_t seed;            /* token i of an answer depends on (seed, i) and its logits alone */
    const char *const *stop;  /* the answer ends before the first of these texts */
    size_t n_stop;
    mmq_text_fn on_text; /* streams the answer; NULL: none */
    void *text_user;
    const mmq_cancel *cancel; /* checked between chunks, blocks and tokens; NULL: none */
    int32_t ignore_eos;       /* nonzero: end tokens do not end the answer */
    int32_t reserved;         /* 0 */
    mmq_logits_fn on_logits;  /* the logits that choose token `index` of the answer; NULL: none */
    void *logits_user;
} mmq_generate_request;

/*
 * Answer a prompt. What the session already holds is compared with the prompt, token by token and
 * picture by picture, and the longest common beginning is not computed again; afterwards the
 * session holds prompt and answer but the last token. The caller owns *out. Since 0.1.
 *
 *   MMQ_ERR_INVALID       pictures and markers do not match in number
 *   MMQ_ERR_LIMIT         a picture takes more tokens than the session's image_rows, or its sides
 *                         differ more than the model's preprocessing takes; the text is too long,
 *                         or one for which the tokenizer's pattern would need the square of its
 *                         length (mmq_tokenize() says both too)
 *   MMQ_ERR_CONTEXT_FULL  the prompt is longer than the context (an answer that reaches the end
 *                         of the context is no error: its finish reason says so)
 *   MMQ_ERR_UNSUPPORTED   messages, but there is no chat template, or none that runs here
 *   MMQ_ERR_FORMAT        the template fails, or the tokenizer gives an id that the model lacks
 *   MMQ_ERR_CANCELLED, MMQ_ERR_CALLBACK  the session holds what was computed so far
 */
MMQ_API mmq_status mmq_generate(mmq_result **out, mmq_session *session,
                                const mmq_generate_request *request);

#define MMQ_FINISH_EOS 0     /* the model ended the answer */
#define MMQ_FINISH_LENGTH 1  /* max_new_tokens */
#define MMQ_FINISH_STOP 2    /* a stop string */
#define MMQ_FINISH_CONTEXT 3 /* the context is full */

/* The parts of a result live as long as it. Since 0.1. */
MMQ_API const char *mmq_result_text(const mmq_result *result); /* without special tokens */
MMQ_API const int32_t *mmq_result_ids(const mmq_result *result,
                                      size_t *n_ids);        /* an end token included */
MMQ_API int32_t mmq_result_finish(const mmq_result *result); /* MMQ_FINISH_... */
MMQ_API const char *
mmq_result_finish_name(const mmq_result *result); /* "eos", "length", "stop", "context" */
MMQ_API void mmq_result_free(mmq_result *result); /* accepts NULL */

typedef struct mmq_result_facts {
    size_t struct_size;
    int32_t n_prompt; /* tokens of the prompt, picture rows counted */
    int32_t n_reused; /* of them already held by the session */
    int32_t n_generated;
    int32_t n_pictures_encoded; /* pictures that went through the tower */
    uint64_t prefill_nanoseconds, decode_nanoseconds;
    uint64_t encode_nanoseconds; /* of prefill: pictures through preprocessing and tower */
} mmq_result_facts;
MMQ_API mmq_status mmq_result_info(mmq_result_facts *facts, const mmq_result *result);

/* ------------------------------------------------------------------------------------------
 * Measuring
 */

typedef struct mmq_evaluate_request {
    size_t struct_size;
    const mmq_prompt *prompt;
    const int32_t
        *targets; /* the tokens that should follow the prompt; none: the next token's logits only */
    size_t n_targets;
    mmq_logits_fn on_logits; /* once per target (once, index 0, when there are none); NULL: none */
    void *logits_user;
    const mmq_cancel *cancel; /* NULL: none */
} mmq_evaluate_request;

/* How likely the model finds `targets` after the prompt (teacher forcing). The session's prefix is
 * reused and afterwards holds prompt and targets but the last. Errors as mmq_generate(). Since 0.1.
 */
MMQ_API mmq_status mmq_evaluate(mmq_evaluation **out, mmq_session *session,
                                const mmq_evaluate_request *request);

/* [n] natural logarithms of the targets' probabilities; the likeliest ids. Live as long as the
 * handle. Since 0.1. */
MMQ_API const double *mmq_evaluation_logprobs(const mmq_evaluation *evaluation, size_t *n);
MMQ_API const int32_t *mmq_evaluation_top1(const mmq_evaluation *evaluation, size_t *n);
MMQ_API void mmq_evaluation_free(mmq_evaluation *evaluation); /* accepts NULL */

typedef struct mmq_rates {
    size_t struct_size;
    double read_bytes_per_second; /* reading memory from end to end */
    double copy_bytes_per_second; /* one half of it over the other: bytes read and bytes written */
    /* Multiplications and additions of a large dense product in each mode, by the vendor's library
     * (CUDA: cuBLASLt, of bf16, or f16 before Ampere, and of f32). 0: not measured. */
    double exact_flop_per_second, fast_flop_per_second;
} mmq_rates;

/* What device `index` of the model reaches now, to measure its speed against: the best of some
 * tries over `bytes` of its memory (0: 1 GiB), which are taken of its budget while this runs.
 * MMQ_ERR_NOT_FOUND past the last device; MMQ_ERR_LIMIT. Any thread. Since 0.1. */
MMQ_API mmq_status mmq_measure_device(mmq_rates *rates, const mmq_model *model, int32_t index,
                                      uint64_t bytes);

#ifdef __cplusplus
}
#endif

#endif
