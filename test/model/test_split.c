/*
 * Models on several devices: the same answers wherever they are split, budgets by device, faults,
 * and what a device map may say. The devices are those of test/fake_device.h.
 */
#include "fake_device.h"
#include "meter.h"
#include "tiny.h"

#include "api/api.h"

static const struct mmqi_backend *const backends[] = {&mmqi_cpu_backend, &fake_backend, NULL};
static const struct mmqi_backend *const fast_backends[] = {&mmqi_cpu_backend, &fake_fast_backend,
                                                           NULL};

/* ---- families ---- */

struct family {
    const char *folder, *text;
    const char *maps[8];
};

/* Cut before the projector, in the decoder, around the head, and everywhere. */
static const struct family families[] = {
    {
        "test/golden/llava_tiny/model",
        "USER: <image>\nWhat is it? ASSISTANT:",
        {
            "* = cpu",
            "* = fake:0",
            "* = fake:0; projector.* = cpu",
            "* = cpu; language.layers.{1-2}.* = fake:1",
            "* = fake:0; language.{norm,head} = fake:1",
            "* = cpu; vision.* = fake:2; language.layers.* = fake:0; language.layers.1.* = fake:1",
            "* = fake:0; vision.blocks.1.* = fake:1; language.embed = fake:1; projector.* = fake:2",
        },
    },
    {
        "test/golden/qwen2_vl_tiny/model",
        "<|vision_start|><|image_pad|><|vision_end|>What is it?",
        {
            "* = cpu",
            "* = fake:0",
            "* = fake:0; vision.* = cpu",
            "* = cpu; language.layers.1.* = fake:1",
            "* = fake:0; language.{norm,head} = fake:1",
            "* = cpu; vision.* = fake:2; language.layers.0.* = fake:0; language.layers.1.* = "
            "fake:1",
            "* = fake:0; vision.blocks.1.* = fake:1; language.embed = fake:1",
        },
    },
    {
        "test/golden/qwen2_5_vl_tiny/model",
        "<|vision_start|><|image_pad|><|vision_end|>What is it?",
        {
            "* = cpu",
            "* = fake:0",
            "* = fake:0; vision.* = cpu",
            "* = fake:0; vision.blocks.{1-2}.* = fake:1; projector.* = cpu",
        },
    },
    {
        "test/golden/qwen3_vl_tiny/model",
        "<|vision_start|><|image_pad|><|vision_end|>What is it?",
        {
            "* = cpu",
            "* = fake:0",
            "* = fake:0; projector.* = cpu",
            "* = fake:0; projector.deepstack.0.* = fake:1; projector.deepstack.1.* = cpu",
            "* = cpu; language.layers.1.* = fake:1",
            "* = fake:0; language.{norm,head} = fake:1",
            "* = cpu; vision.blocks.{1-2}.* = fake:2; language.layers.* = fake:0",
        },
    },
    {
        /* A picture of five views, each of which crosses. */
        "test/golden/idefics3_tiny/model",
        "<|im_start|>User:<image>What is it?",
        {
            "* = cpu",
            "* = fake:0",
            "* = fake:0; projector.* = cpu",
            "* = cpu; vision.blocks.1.* = fake:1",
            "* = fake:0; vision.post_norm* = fake:1; language.layers.* = fake:2",
            "* = fake:0; vision.* = fake:1; language.embed = cpu",
        },
    },
    {
        /* The newline is a row of the projector's, and rows are taken in an order of their own. */
        "test/golden/llava_next_tiny/model",
        "[INST] <image>\nWhat is it? [/INST]",
        {
            "* = cpu",
            "* = fake:0; projector.* = cpu",
            "* = cpu; projector.* = fake:1; language.layers.1.* = fake:2",
            "* = fake:0; vision.* = fake:1; language.embed = cpu",
        },
    },
    {
        /* The tower is that of another folder. */
        "test/golden/llava_orig_tiny/model",
        "USER: <image>\nWhat is it? ASSISTANT:",
        {
            "* = cpu",
            "* = fake:0; vision.* = cpu",
            "* = cpu; vision.* = fake:1; projector.* = fake:2; language.{norm,head} = fake:0",
        },
    },
};

enum {
    N_FAMILIES = sizeof families / sizeof *families,
    N_TARGETS = 6,
    MAX_VOCAB = 600,
    MAX_LOGITS = N_TARGETS * MAX_VOCAB
};

/* What a model answers: the logits of some targets, and a few greedy tokens. */
struct answer {
    float logits[MAX_LOGITS];
    size_t n_logits;
    int32_t ids[8];
    size_t n_ids;
};

static int32_t keep_logits(void *user, size_t index, const float *logits, size_t n_vocab)
{
    struct answer *answer = user;

    ck_assert_uint_le((index + 1) * n_vocab, MAX_LOGITS);
    memcpy(answer->logits + index * n_vocab, logits, n_vocab * sizeof *logits);
    answer->n_logits = (index + 1) * n_vocab;
    return 0;
}

/* Teacher forcing, then another picture and a few tokens of its own. */
static mmq_status ask(struct answer *answer, mmq_session *session, const struct family *family)
{
    static const int32_t targets[N_TARGETS] = {5, 17, 200, 3, 99, 41};
    mmq_image *image = tiny_image(1), *other = tiny_image(2);
    const mmq_image *images[] = {image};
    mmq_prompt prompt = {
        .struct_size = sizeof prompt, .text = family->text, .images = images, .n_images = 1};
    mmq_evaluate_request measure = {.struct_size = sizeof measure,
                                    .prompt = &prompt,
                                    .targets = targets,
                                    .n_targets = N_TARGETS,
                                    .on_logits = keep_logits,
                                    .logits_user = answer};
    mmq_generate_request generate = {
        .struct_size = sizeof generate, .prompt = &prompt, .max_new_tokens = 8, .ignore_eos = 1};
    mmq_evaluation *evaluation = NULL;
    mmq_result *result = NULL;
    mmq_status status;

    memset(answer, 0, sizeof *answer);
    status = mmq_evaluate(&evaluation, session, &measure);
    images[0] = other;
    if (status == MMQ_OK)
        status = mmq_generate(&result, session, &generate);
    if (status == MMQ_OK) {
        const int32_t *ids = mmq_result_ids(result, &answer->n_ids);

        ck_assert_uint_eq(answer->n_ids, 8);
        memcpy(answer->ids, ids, sizeof answer->ids);
    }
    mmq_result_free(result);
    mmq_evaluation_free(evaluation);
    mmq_image_free(image);
    mmq_image_free(other);
    return status;
}

static void same_answer(const struct answer *a, const struct answer *b, const char *what)
{
    ck_assert_msg(a->n_logits > 0 && a->n_logits == b->n_logits, "%s", what);
    ck_assert_msg(memcmp(a->logits, b->logits, a->n_logits * sizeof *a->logits) == 0,
                  "%s: other logits", what);
    ck_assert_msg(memcmp(a->ids, b->ids, sizeof a->ids) == 0, "%s: other tokens", what);
}

static mmq_session_options session_options(void)
{
    return (mmq_session_options){
        .struct_size = sizeof(mmq_session_options), .context = 128, .chunk = 24};
}

static mmq_load_options load_options(const char *device)
{
    return (mmq_load_options){
        .struct_size = sizeof(mmq_load_options), .device = device, .n_threads = 1};
}

static mmq_status load(mmq_model **model, const struct family *family,
                       const mmq_load_options *options)
{
    return mmqi_load(model, source_path(family->folder), options, backends);
}

static mmq_model *load_on(const struct family *family, const char *device)
{
    mmq_load_options options = load_options(device);
    mmq_model *model;

    ASSERT_OK(load(&model, family, &options));
    return model;
}

static struct answer answer_on(const struct family *family, const char *device)
{
    mmq_session_options options = session_options();
    mmq_model *model = load_on(family, device);
    mmq_session *session;
    struct answer answer;

    ASSERT_OK(mmq_session_create(&session, model, &options));
    ASSERT_OK(ask(&answer, session, family));
    mmq_session_free(session);
    mmq_model_free(model);
    return answer;
}

static void nothing_is_held(void)
{
    for (int i = 0; i < FAKE_DEVICES; i++) {
        ck_assert_uint_eq(fake_states[i].taken, 0);
        ck_assert_int_eq(fake_states[i].n_blocks, 0);
        ck_assert_int_eq(fake_states[i].n_streams, 0);
        ck_assert_int_eq(fake_states[i].n_open, 0);
    }
}

START_TEST(answers_the_same_to_the_bit_wherever_it_is_split)
{
    for (int f = 0; f < N_FAMILIES; f++) {
        struct answer want = answer_on(&families[f], "cpu");

        for (int i = 0; families[f].maps[i]; i++) {
            struct answer have = answer_on(&families[f], families[f].maps[i]);

            same_answer(&want, &have, families[f].maps[i]);
            nothing_is_held();
        }
    }
    for (int i = 0; i < FAKE_DEVICES; i++)
        ck_assert_int_gt(fake_states[i].n_executed, 0);
}
END_TEST

START_TEST(packs_at_load_to_the_same_answers_on_each_device)
{
    const struct family *family = &families[0];
    const char *const devices[] = {"cpu", "* = fake:0; language.layers.1.* = cpu"};
    struct answer answers[2];

    for (int i = 0; i < 2; i++) {
        mmq_load_options options = load_options(devices[i]);
        mmq_session_options session = session_options();
        mmq_session *made;
        mmq_model *model;

        options.quantize = "nf4-nested";
        ASSERT_OK(load(&model, family, &options));
        ASSERT_OK(mmq_session_create(&made, model, &session));
        ASSERT_OK(ask(&answers[i], made, family));
        mmq_session_free(made);
        mmq_model_free(model);
    }
    same_answer(&answers[0], &answers[1], devices[1]);
    nothing_is_held();
}
END_TEST

START_TEST(a_model_quantized_in_memory_keeps_its_devices)
{
    const char *map = "* = cpu; language.layers.{1-2}.* = fake:0";
    mmq_quantize_options how = {.struct_size = sizeof how, .format = "int8"};
    mmq_model_facts facts = {.struct_size = sizeof facts};
    struct answer answers[2];

    for (int i = 0; i < 2; i++) {
        mmq_model *source = load_on(&families[0], i ? map : "cpu"), *model;
        mmq_session_options options = session_options();
        mmq_session *session;

        ASSERT_OK(mmq_quantize_layerwise(&model, source, &how, NULL));
        mmq_model_free(source);
        ASSERT_OK(mmq_session_create(&session, model, &options));
        ASSERT_OK(ask(&answers[i], session, &families[0]));
        ASSERT_OK(mmq_model_info(&facts, model));
        ck_assert_int_eq(facts.n_devices, i ? 2 : 1);
        mmq_session_free(session);
        mmq_model_free(model);
    }
    same_answer(&answers[0], &answers[1], map);
    nothing_is_held();
}
END_TEST

/* ---- maps ---- */

static void refuses(const char *map, mmq_status status, const char *text)
{
    mmq_load_options options = load_options(map);
    mmq_model *model;

    ASSERT_FAILS(status, text, load(&model, &families[0], &options));
    ck_assert_ptr_null(model);
    nothing_is_held();
}

START_TEST(refuses_maps_that_do_not_parse_telling_line_and_column)
{
    refuses("* = cpu\nlanguage.* =", MMQ_ERR_INVALID, "line 2, column 13");
    refuses("* = cpu; vision.{ = cpu", MMQ_ERR_INVALID, "column 18");
    refuses("* = cpu; cpu", MMQ_ERR_INVALID, "'cpu' stands alone");
    refuses("* = cpu search", MMQ_ERR_INVALID, "'search' after the device");
}
END_TEST

START_TEST(refuses_a_rule_that_matches_no_weight)
{
    refuses("* = cpu\nlanguage.layers.9.* = fake:0", MMQ_ERR_INVALID, "line 2, column 1");
    refuses("* = cpu; audio.* = fake:0", MMQ_ERR_INVALID, "'audio.*' matches no weight");
}
END_TEST

START_TEST(refuses_a_rule_that_a_later_one_hides)
{
    refuses("language.layers.0.* = fake:0; * = cpu", MMQ_ERR_INVALID, "'*' comes later and wins");
}
END_TEST

START_TEST(refuses_a_map_that_leaves_a_weight_out)
{
    refuses("language.* = cpu", MMQ_ERR_INVALID, "no rule gives a device to 'vision.");
}
END_TEST

START_TEST(refuses_a_map_that_cuts_a_segment_naming_it_and_both_devices)
{
    refuses("* = cpu; language.layers.1.mlp.* = fake:1", MMQ_ERR_INVALID,
            "segment 'language.layers.1' runs on one device");
    refuses("* = cpu; language.layers.1.mlp.* = fake:1", MMQ_ERR_INVALID,
            "would be on cpu and 'language.layers.1.mlp.gate' on fake:1");
    refuses("* = cpu; language.norm = fake:1", MMQ_ERR_INVALID, "segment 'language.head'");
}
END_TEST

START_TEST(refuses_devices_that_are_not_there)
{
    refuses("* = cpu; language.head = fake:7", MMQ_ERR_NO_DEVICE, "fake:7");
    refuses("* = tpu", MMQ_ERR_NO_DEVICE, "tpu");
    refuses("* = a-device-whose-name-goes-on-and-on-and-on", MMQ_ERR_NO_DEVICE, "no device");
}
END_TEST

START_TEST(names_every_device)
{
    mmq_model *model = load_on(&families[0], "* = cpu; projector.* = fake:1; vision.* = fake:0");
    mmq_model_facts facts = {.struct_size = sizeof facts};

    ASSERT_OK(mmq_model_info(&facts, model));
    ck_assert_int_eq(facts.n_devices, 3);
    ck_assert_int_eq(strncmp(facts.device, "cpu ", 4), 0);
    ck_assert_ptr_nonnull(strstr(facts.device, " + fake:1 + fake:0"));
    mmq_model_free(model);
}
END_TEST

/* ---- bytes ---- */

static mmq_device_memory estimate(const mmq_model *model, int32_t index)
{
    mmq_device_memory memory = {.struct_size = sizeof memory};
    mmq_session_options options = session_options();

    ASSERT_OK(mmq_estimate_device(&memory, model, &options, index));
    return memory;
}

START_TEST(takes_on_each_device_exactly_what_was_told)
{
    for (int f = 0; f < N_FAMILIES; f++)
        for (int i = 0; families[f].maps[i]; i++) {
            mmq_model *model = load_on(&families[f], families[f].maps[i]);
            mmq_model_facts facts = {.struct_size = sizeof facts};
            mmq_memory sum = {.struct_size = sizeof sum};
            mmq_session_options options = session_options();
            uint64_t totals[MMQI_MAX_PLACES], total = 0, weights = 0, kv = 0;
            mmq_session *session;
            int32_t k;

            ASSERT_OK(mmq_model_info(&facts, model));
            ASSERT_OK(mmq_estimate(&sum, model, &options));
            for (k = 0; k < facts.n_devices; k++) {
                mmq_device_memory memory = estimate(model, k);

                ck_assert_uint_eq(memory.total, memory.weights + memory.kv_cache +
                                                    memory.activations + memory.scratch);
                ck_assert_uint_eq(memory.taken, 0);
                totals[k] = memory.total;
                total += memory.total;
                weights += memory.weights;
                kv += memory.kv_cache;
            }
            ck_assert_uint_eq(sum.total, total);
            ck_assert_uint_eq(sum.weights, weights);
            ck_assert_uint_eq(sum.kv_cache, kv);
            ASSERT_OK(mmq_session_create(&session, model, &options));
            for (k = 0; k < facts.n_devices; k++) {
                mmq_device_memory memory = estimate(model, k);

                ck_assert_uint_eq(memory.taken, totals[k]);
                if (strncmp(memory.device, "fake:", 5) == 0)
                    ck_assert_uint_eq(fake_states[memory.device[5] - '0'].taken, totals[k]);
            }
            mmq_session_free(session);
            mmq_model_free(model);
            nothing_is_held();
        }
}
END_TEST

START_TEST(needs_no_more_than_its_segments_on_a_device)
{
    mmq_model *whole = load_on(&families[0], "fake:0");
    mmq_model *split = load_on(&families[0], "* = fake:0; vision.* = fake:1; projector.* = fake:1");
    mmq_device_memory all = estimate(whole, 0), text = estimate(split, 0),
                      pictures = estimate(split, 1);

    ck_assert_uint_eq(pictures.kv_cache, 0);
    ck_assert_uint_eq(text.kv_cache, all.kv_cache);
    ck_assert_uint_eq(text.weights + pictures.weights, all.weights);
    ck_assert_uint_lt(text.activations, all.activations);
    ck_assert_uint_lt(pictures.activations, all.activations);
    mmq_model_free(whole);
    mmq_model_free(split);
}
END_TEST

START_TEST(a_tied_head_lies_on_both_devices_and_is_counted_twice)
{
    const struct family *family = &families[1];
    mmq_model *one = load_on(family, "fake:0");
    mmq_model *two = load_on(family, "* = fake:0; language.{norm,head} = fake:1");
    mmq_tensor_facts embed = {.struct_size = sizeof embed};
    uint64_t whole = estimate(one, 0).weights;

    for (int32_t i = 0; !embed.name || strcmp(embed.name, "language.embed") != 0; i++)
        ASSERT_OK(mmq_model_tensor_info(&embed, one, i));
    ck_assert_uint_gt(embed.bytes, 0);
    ck_assert_uint_eq(estimate(two, 0).weights + estimate(two, 1).weights, whole + embed.bytes);
    mmq_model_free(one);
    mmq_model_free(two);
}
END_TEST

START_TEST(a_limit_by_device_is_told_before_anything_is_taken)
{
    mmq_load_options options = load_options("* = cpu; language.layers.* = fake:0");
    mmq_session_options session = session_options();
    mmq_session *made;
    mmq_model *model;
    uint64_t total;
    char limits[80];
    int64_t allocs;

    ASSERT_OK(load(&model, &families[0], &options));
    total = estimate(model, 1).total;
    mmq_model_free(model);

    options.memory_limits = "cpu = 1GiB; fake:* = 1KiB";
    ASSERT_OK(load(&model, &families[0], &options));
    ck_assert_uint_eq(estimate(model, 1).limit, 1024);
    allocs = fake_states[0].n_allocs;
    ASSERT_FAILS(MMQ_ERR_LIMIT, "weights on fake:0: needs ", mmq_model_place(model));
    ck_assert_int_eq(fake_states[0].n_allocs, allocs);
    mmq_model_free(model);

    for (uint64_t less = 0; less < 2; less++) {
        snprintf(limits, sizeof limits, "fake:0 = %llu", (unsigned long long)(total - less));
        options.memory_limits = limits;
        ASSERT_OK(load(&model, &families[0], &options));
        ASSERT_OK(mmq_model_place(model));
        allocs = fake_states[0].n_allocs;
        if (less > 0) {
            ASSERT_FAILS(MMQ_ERR_LIMIT, "session on fake:0: needs ",
                         mmq_session_create(&made, model, &session));
            ck_assert_int_eq(fake_states[0].n_allocs, allocs);
        } else {
            ASSERT_OK(mmq_session_create(&made, model, &session));
            mmq_session_free(made);
        }
        mmq_model_free(model);
    }
    nothing_is_held();
}
END_TEST

START_TEST(refuses_limits_that_are_none)
{
    static const struct {
        const char *device, *limits;
        uint64_t limit;
        const char *text;
    } rows[] = {
        {"* = cpu; projector.* = fake:0", NULL, 1 << 20, "one memory limit for 2 devices"},
        {"cpu", "cpu = 4GiB", 1 << 20, "one memory limit and limits by device"},
        {"cpu", "cpu = 4GB", 0, "'4GB'"},
        {"cpu", "cpu = 0", 0, "'0'"},
        {"cpu", "cpu = 20000000TiB", 0, "'20000000TiB'"},
        {"cpu", "cpu = 99999999999999999999", 0, "column 7"},
        {"cpu", "8GiB", 0, "'8GiB'"},
        {"cpu", "cpu = 1GiB\ncuda:0 = 1GiB", 0, "line 2, column 1: 'cuda:0' matches no device"},
        {"cpu", "", 0, "no rule"},
    };

    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        mmq_load_options options = load_options(rows[i].device);
        mmq_model *model;

        options.memory_limits = rows[i].limits;
        options.memory_limit = rows[i].limit;
        ASSERT_FAILS(MMQ_ERR_INVALID, rows[i].text, load(&model, &families[0], &options));
    }
    nothing_is_held();
}
END_TEST

/* ---- faults ---- */

/* Load, ask, free, with a fault to come; then, once more on the same model, without. */
static bool survives(struct mmqi_fault fault, int device, const struct answer *want)
{
    const char *map = "* = cpu; vision.* = fake:0; language.layers.1.* = fake:0; projector.* = "
                      "fake:1; language.layers.2.* = fake:1";
    mmq_session_options options = session_options();
    mmq_model *model = load_on(&families[0], map);
    mmq_session *session = NULL;
    struct answer answer;
    mmq_status status;
    bool met;

    fake_states[device].fault = fault;
    status = mmq_session_create(&session, model, &options);
    if (status == MMQ_OK)
        status = ask(&answer, session, &families[0]);
    met = fake_states[device].fault.kind == MMQI_FAULT_NONE;
    fake_states[device].fault = (struct mmqi_fault){MMQI_FAULT_NONE, 0};
    if (met) {
        ck_assert_int_eq(status, fault.kind == MMQI_FAULT_ALLOC ? MMQ_ERR_NOMEM : MMQ_ERR_DEVICE);
        ck_assert_ptr_nonnull(strstr(mmq_last_error_message(), device ? "fake:1" : "fake:0"));
    } else {
        ck_assert_int_eq(status, MMQ_OK);
    }
    if (!session)
        status = mmq_session_create(&session, model, &options);
    if (fault.kind == MMQI_FAULT_LOST && met) {
        ck_assert_int_eq(session ? ask(&answer, session, &families[0]) : status, MMQ_ERR_DEVICE);
    } else {
        ck_assert_ptr_nonnull(session);
        ASSERT_OK(ask(&answer, session, &families[0]));
        same_answer(want, &answer, map);
    }
    mmq_session_free(session);
    mmq_model_free(model);
    nothing_is_held();
    return met;
}

static void survives_every(int32_t kind, int64_t step)
{
    struct answer want = answer_on(&families[0], "cpu");

    for (int device = 0; device < 2; device++) {
        int64_t nth = 1;

        while (survives((struct mmqi_fault){kind, nth}, device, &want))
            nth += step;
        ck_assert_int_gt(nth, 10);
    }
}

START_TEST(survives_each_allocation_that_a_device_refuses)
{
    survives_every(MMQI_FAULT_ALLOC, 1);
}
END_TEST

START_TEST(survives_each_call_that_fails_on_a_device)
{
    survives_every(MMQI_FAULT_CALL, 1);
}
END_TEST

START_TEST(tells_that_a_device_is_lost_wherever_it_happens)
{
    survives_every(MMQI_FAULT_LOST, 7);
}
END_TEST

START_TEST(a_lost_device_poisons_only_its_own_handles)
{
    struct answer want = answer_on(&families[0], "cpu"), answer;
    mmq_session_options options = session_options();
    mmq_model *bad = load_on(&families[0], "* = cpu; language.layers.1.* = fake:0");
    mmq_model *good = load_on(&families[0], "* = cpu; language.layers.1.* = fake:1");
    mmq_session *bad_session, *good_session, *late;

    ASSERT_OK(mmq_session_create(&bad_session, bad, &options));
    ASSERT_OK(mmq_session_create(&good_session, good, &options));
    fake_states[0].fault = (struct mmqi_fault){MMQI_FAULT_LOST, 3};
    ck_assert_int_eq(ask(&answer, bad_session, &families[0]), MMQ_ERR_DEVICE);
    ck_assert_int_eq(ask(&answer, bad_session, &families[0]), MMQ_ERR_DEVICE);
    ASSERT_FAILS(MMQ_ERR_DEVICE, "lost", mmq_session_create(&late, bad, &options));
    mmq_session_free(bad_session);
    ASSERT_OK(ask(&answer, good_session, &families[0]));
    same_answer(&want, &answer, "beside a lost device");
    mmq_session_free(good_session);
    mmq_model_free(good);
    mmq_model_free(bad);
}
END_TEST

/* The whole way on the host's blocks that are left; MMQ_OK when they sufficed. */
static mmq_status ask_with_blocks(struct meter *meter, int64_t left, struct answer *answer)
{
    mmq_runtime_options how = {.struct_size = sizeof how,
                               .alloc = meter_alloc,
                               .free = meter_free,
                               .memory_user = meter,
                               .n_threads = 1,
                               .cuda_library = ""};
    mmq_load_options options = load_options("* = cpu; vision.* = fake:0; projector.* = fake:1");
    mmq_session_options session_how = session_options();
    mmq_session *session = NULL;
    mmq_model *model = NULL;
    mmq_runtime *runtime;
    mmq_status status;

    meter->left = INT64_MAX;
    ASSERT_OK(mmq_runtime_create(&runtime, &how));
    options.runtime = runtime;
    options.memory_limits = "fake:* = 1GiB";
    meter->left = left;
    status = load(&model, &families[0], &options);
    if (status == MMQ_OK)
        status = mmq_session_create(&session, model, &session_how);
    if (status == MMQ_OK)
        status = ask(answer, session, &families[0]);
    mmq_session_free(session);
    mmq_model_free(model);
    mmq_runtime_free(runtime);
    ck_assert_int_eq(meter->live, 0);
    nothing_is_held();
    return status;
}

START_TEST(survives_the_host_without_memory_at_any_moment)
{
    struct answer want = answer_on(&families[0], "cpu"), answer;
    struct meter meter = {0};
    mmq_status status = MMQ_ERR_NOMEM;
    int64_t left;

    for (left = 0; status != MMQ_OK; left += left < 60 ? 1 : 17) {
        status = ask_with_blocks(&meter, left, &answer);
        ck_assert_msg(status == MMQ_OK || status == MMQ_ERR_NOMEM, "after %d blocks: %s: %s",
                      (int)left, mmq_status_name(status), mmq_last_error_message());
    }
    ck_assert_int_gt(left, 200);
    same_answer(&want, &answer, "with just enough blocks");
}
END_TEST

/* ---- modes, devices ---- */

START_TEST(runs_in_fast_mode_where_a_device_has_it_unless_told_otherwise)
{
    static const struct {
        const char *device, *asked, *got, *on_cpu;
    } rows[] = {
        {"* = cpu; language.layers.1.* = fake:0", NULL, "fast", "exact"},
        {"* = cpu; language.layers.1.* = fake:0", "exact", "exact", "exact"},
        {"* = cpu; language.layers.1.* = fake:0", "fast", "fast", "exact"},
        {"cpu", NULL, "exact", "exact"},
    };

    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        mmq_load_options load_as = load_options(rows[i].device);
        mmq_session_options options = session_options();
        mmq_device_memory memory = {.struct_size = sizeof memory};
        mmq_session *session;
        mmq_model *model;

        options.mode = rows[i].asked;
        ASSERT_OK(mmqi_load(&model, source_path(families[0].folder), &load_as, fast_backends));
        ASSERT_OK(mmq_session_create(&session, model, &options));
        ck_assert_str_eq(mmq_session_mode(session), rows[i].got);
        ASSERT_OK(mmq_estimate_device(&memory, model, &options, 0));
        ck_assert_str_eq(memory.mode, rows[i].on_cpu);
        if (strchr(rows[i].device, ':')) {
            ASSERT_OK(mmq_estimate_device(&memory, model, &options, 1));
            ck_assert_str_eq(memory.mode, rows[i].got);
            ck_assert_uint_eq(memory.driver, 12345);
        }
        mmq_session_free(session);
        mmq_model_free(model);
    }
}
END_TEST

START_TEST(refuses_fast_mode_where_no_device_has_it)
{
    mmq_session_options options = session_options();
    mmq_model *model = load_on(&families[0], "* = cpu; language.layers.1.* = fake:0");
    mmq_memory memory = {.struct_size = sizeof memory};
    mmq_session *session;

    options.mode = "fast";
    ASSERT_FAILS(MMQ_ERR_UNSUPPORTED, "has 'exact'", mmq_session_create(&session, model, &options));
    ASSERT_FAILS(MMQ_ERR_UNSUPPORTED, "has 'exact'", mmq_estimate(&memory, model, &options));
    options.mode = "quick";
    ASSERT_FAILS(MMQ_ERR_INVALID, "mode 'quick'", mmq_session_create(&session, model, &options));
    mmq_model_free(model);
}
END_TEST

START_TEST(lists_the_devices_the_cpu_last)
{
    mmq_device_facts facts = {.struct_size = sizeof facts};
    int32_t n = 0;

    ASSERT_OK(mmq_device_count(&n, NULL));
    ck_assert_int_ge(n, 1);
    ASSERT_OK(mmq_device_info(&facts, NULL, n - 1));
    ck_assert_str_eq(facts.id, "cpu");
    ck_assert_str_eq(facts.kind, "cpu");
    ck_assert_uint_gt(facts.total_bytes, 0);
    ck_assert_uint_le(facts.free_bytes, facts.total_bytes);
    ck_assert_int_eq(facts.has_fast, 0);
    ASSERT_FAILS(MMQ_ERR_NOT_FOUND, "device number", mmq_device_info(&facts, NULL, n));
    ASSERT_FAILS(MMQ_ERR_NOT_FOUND, "device number -1", mmq_device_info(&facts, NULL, -1));
    ASSERT_FAILS(MMQ_ERR_INVALID, "n is NULL", mmq_device_count(NULL, NULL));
}
END_TEST

START_TEST(finds_devices_of_several_kinds_by_number)
{
    struct mmqi_runtime runtime = {.cuda_library = (char *)""};
    struct mmqi_device_listing listing;
    int32_t n;

    ck_assert_int_eq(mmqi_host_find(NULL, &n, backends, &runtime, 0), MMQ_OK);
    ck_assert_int_eq(n, 1 + FAKE_DEVICES);
    ck_assert_int_eq(mmqi_host_find(&listing, &n, backends, &runtime, 2), MMQ_OK);
    ck_assert_str_eq(listing.id, "fake:1");
    ck_assert_str_eq(listing.info.name, "fake number 1");
}
END_TEST

START_TEST(measures_a_device_within_its_budget)
{
    mmq_load_options options = load_options("* = cpu; projector.* = fake:0");
    mmq_rates rates = {.struct_size = sizeof rates};
    mmq_model *model;

    options.memory_limits = "cpu = 8MiB";
    ASSERT_OK(load(&model, &families[0], &options));
    ASSERT_OK(mmq_measure_device(&rates, model, 0, 8 << 20));
    ck_assert(rates.read_bytes_per_second > 1e6 && rates.copy_bytes_per_second > 1e6);
    ck_assert_uint_eq(estimate(model, 0).taken, 0);
    ASSERT_OK(mmq_measure_device(&rates, model, 1, 1 << 20));
    ASSERT_FAILS(MMQ_ERR_LIMIT, "measuring on cpu: needs 8388609 bytes",
                 mmq_measure_device(&rates, model, 0, (8 << 20) + 1));
    ck_assert(rates.read_bytes_per_second == 0);
    ASSERT_FAILS(MMQ_ERR_LIMIT, "more than any memory",
                 mmq_measure_device(&rates, model, 1, UINT64_MAX));
    ASSERT_FAILS(MMQ_ERR_INVALID, "too few", mmq_measure_device(&rates, model, 1, 64));
    ASSERT_FAILS(MMQ_ERR_NOT_FOUND, "device number 2", mmq_measure_device(&rates, model, 2, 0));
    mmq_model_free(model);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("split");
    TCase *tests = tcase_create("split");
    SRunner *runner;
    int n_failed;

    suite_add_tcase(suite, tests);
    tcase_set_timeout(tests, 60);
    tcase_add_test(tests, answers_the_same_to_the_bit_wherever_it_is_split);
    tcase_add_test(tests, packs_at_load_to_the_same_answers_on_each_device);
    tcase_add_test(tests, a_model_quantized_in_memory_keeps_its_devices);
    tcase_add_test(tests, refuses_maps_that_do_not_parse_telling_line_and_column);
    tcase_add_test(tests, refuses_a_rule_that_matches_no_weight);
    tcase_add_test(tests, refuses_a_rule_that_a_later_one_hides);
    tcase_add_test(tests, refuses_a_map_that_leaves_a_weight_out);
    tcase_add_test(tests, refuses_a_map_that_cuts_a_segment_naming_it_and_both_devices);
    tcase_add_test(tests, refuses_devices_that_are_not_there);
    tcase_add_test(tests, names_every_device);
    tcase_add_test(tests, takes_on_each_device_exactly_what_was_told);
    tcase_add_test(tests, needs_no_more_than_its_segments_on_a_device);
    tcase_add_test(tests, a_tied_head_lies_on_both_devices_and_is_counted_twice);
    tcase_add_test(tests, a_limit_by_device_is_told_before_anything_is_taken);
    tcase_add_test(tests, refuses_limits_that_are_none);
    tcase_add_test(tests, survives_each_allocation_that_a_device_refuses);
    tcase_add_test(tests, survives_each_call_that_fails_on_a_device);
    tcase_add_test(tests, tells_that_a_device_is_lost_wherever_it_happens);
    tcase_add_test(tests, survives_the_host_without_memory_at_any_moment);
    tcase_add_test(tests, a_lost_device_poisons_only_its_own_handles);
    tcase_add_test(tests, runs_in_fast_mode_where_a_device_has_it_unless_told_otherwise);
    tcase_add_test(tests, refuses_fast_mode_where_no_device_has_it);
    tcase_add_test(tests, lists_the_devices_the_cpu_last);
    tcase_add_test(tests, measures_a_device_within_its_budget);
    tcase_add_test(tests, finds_devices_of_several_kinds_by_number);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    n_failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return n_failed > 0;
}
