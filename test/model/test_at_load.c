/*
 * Quantize-at-load and plans, through the public API: the same bits as quantizing first and loading
 * then, whatever the policy, the threads and what goes wrong.
 */
#include "core/mem.h"
#include "meter.h"
#include "model/tiny.h"
#include "scratch.h"
/* The weights as they are placed are only to be seen inside. */
#include "api/api.h"

static const char *const policies[] = {
    "int8",
    "nf4",
    "layered",
    "int4",
    "fp4-32-nested search",
    "vision.* = nf4-nested; projector.* = f32; language.* = int8",
    "language.{embed,head} = nf4-128-nested; language.layers.0.* = int4-g32-bf16",
};
enum { N_POLICIES = sizeof policies / sizeof *policies };

static const char *tiny_path(void)
{
    return source_path("test/golden/llava_tiny/model");
}

static mmq_model *load(const char *path, const char *quantize, int32_t threads)
{
    mmq_load_options options = {
        .struct_size = sizeof options, .quantize = quantize, .n_threads = threads};
    mmq_model *model;

    ASSERT_OK(mmq_load(&model, path, &options));
    return model;
}

/* Quantize the tiny model into the folder "out". */
static void quantize_folder(const char *policy)
{
    mmq_quantize_options options = {
        .struct_size = sizeof options, .format = policy, .out_path = "out"};
    mmq_model *source = tiny_model(NULL);

    ASSERT_OK(mmq_quantize_layerwise(NULL, source, &options, NULL));
    mmq_model_free(source);
}

static void remove_folder(void)
{
    ck_assert_int_eq(system("rm -rf out"), 0);
}

/* ---- the same bits ---- */

static void same_placed(const mmq_model *a, const mmq_model *b)
{
    ck_assert_int_eq(a->core->n_weights, b->core->n_weights);
    for (int32_t i = 0; i < a->core->n_weights; i++) {
        const struct mmqi_weight *x = &a->core->weights[i], *y = &b->core->weights[i];
        const struct mmqi_wmat *p = &a->core->placed[0].weights[i].mat,
                               *q = &b->core->placed[0].weights[i].mat;

        ck_assert_str_eq(x->name, y->name);
        ck_assert_int_eq(x->format, y->format);
        if (x->role == MMQI_ROLE_VECTOR || x->role == MMQI_ROLE_CONSTANT ||
            (x->flags & MMQI_WEIGHT_UNUSED))
            continue;
        ck_assert_int_eq(p->format, x->format);
        ck_assert_int_eq(q->format, x->format);
        for (int32_t k = 0; k < x->layout.n_parts; k++)
            ck_assert_msg(memcmp(p->part[k], q->part[k], x->layout.part[k].bytes) == 0,
                          "%s, part %d", x->name, k);
    }
}

/* Logits of the next token after a picture and a question, [vocab_size]; to be freed. */
static int32_t take_logits(void *user, size_t index, const float *logits, size_t n)
{
    float **out = user;

    (void)index;
    *out = malloc(n * sizeof **out);
    memcpy(*out, logits, n * sizeof **out);
    return 0;
}

static float *ask(mmq_model *model)
{
    mmq_image *image = tiny_image(3);
    const mmq_image *images[] = {image};
    mmq_prompt prompt = {.struct_size = sizeof prompt,
                         .text = "USER: <image>\nWhat is it? ASSISTANT:",
                         .images = images,
                         .n_images = 1};
    float *logits = NULL;
    mmq_evaluate_request request = {.struct_size = sizeof request,
                                    .prompt = &prompt,
                                    .on_logits = take_logits,
                                    .logits_user = &logits};
    mmq_session *session;
    mmq_evaluation *evaluation;

    ASSERT_OK(mmq_session_create(&session, model, NULL));
    ASSERT_OK(mmq_evaluate(&evaluation, session, &request));
    mmq_evaluation_free(evaluation);
    mmq_session_free(session);
    mmq_image_free(image);
    ck_assert_ptr_nonnull(logits);
    return logits;
}

static void same_answer(mmq_model *a, mmq_model *b)
{
    mmq_model_facts facts = {.struct_size = sizeof facts};
    float *x = ask(a), *y = ask(b);

    ASSERT_OK(mmq_model_info(&facts, a));
    ck_assert_mem_eq(x, y, (size_t)facts.vocab_size * sizeof *x);
    free(x);
    free(y);
}

START_TEST(quantize_at_load_equals_quantize_then_load)
{
    for (int i = 0; i < N_POLICIES; i++) {
        mmq_model *at_load = load(tiny_path(), policies[i], 2), *loaded;

        quantize_folder(policies[i]);
        loaded = load("out", NULL, 2);
        same_answer(at_load, loaded);
        same_placed(at_load, loaded);
        mmq_model_free(at_load);
        mmq_model_free(loaded);
        remove_folder();
    }
}
END_TEST

START_TEST(a_model_quantized_in_memory_is_the_same_and_is_placed_where_it_lies)
{
    for (int i = 0; i < N_POLICIES; i++) {
        mmq_quantize_options options = {.struct_size = sizeof options, .format = policies[i]};
        mmq_model *source = tiny_model(NULL), *memory, *at_load = load(tiny_path(), policies[i], 1);

        ASSERT_OK(mmq_quantize_layerwise(&memory, source, &options, NULL));
        mmq_model_free(source);
        same_answer(at_load, memory);
        same_placed(at_load, memory);
        for (int32_t k = 0; k < memory->core->n_weights; k++) {
            const struct mmqi_weight *w = &memory->core->weights[k];

            if (w->role == MMQI_ROLE_CONSTANT || !w->block || (w->flags & MMQI_WEIGHT_UNUSED))
                continue;
            ck_assert_ptr_null(memory->core->placed[0].memory[k]);
            ck_assert_ptr_eq(memory->core->placed[0].weights[k].mat.part[0], w->block);
        }
        mmq_model_free(memory);
        mmq_model_free(at_load);
    }
}
END_TEST

START_TEST(the_placed_bytes_do_not_depend_on_threads)
{
    static const int32_t threads[] = {2, 5};

    for (int i = 0; i < N_POLICIES; i++) {
        mmq_model *one = load(tiny_path(), policies[i], 1);

        ASSERT_OK(mmq_model_place(one));
        for (int k = 0; k < 2; k++) {
            mmq_model *many = load(tiny_path(), policies[i], threads[k]);

            ASSERT_OK(mmq_model_place(many));
            same_placed(one, many);
            mmq_model_free(many);
        }
        mmq_model_free(one);
    }
}
END_TEST

/* One weight with two names, packed by a rule on either. */
START_TEST(a_tied_head_follows_the_embedding)
{
    static const char *const rules[] = {"language.embed = int8", "language.head = int8"};
    char command[8192];

    snprintf(command, sizeof command,
             "cp -r '%s' tied && chmod -R u+w tied && "
             "sed -i 's/\"tie_word_embeddings\": false/\"tie_word_embeddings\": true/' "
             "tied/config.json",
             tiny_path());
    ck_assert_int_eq(system(command), 0);
    for (int i = 0; i < 2; i++) {
        mmq_quantize_options options = {
            .struct_size = sizeof options, .format = rules[i], .out_path = "out"};
        mmq_model *source = load("tied", NULL, 1), *at_load = load("tied", rules[i], 1), *loaded;
        int32_t head = mmqi_model_find(at_load->core, "language.head");
        int32_t embed = mmqi_model_find(at_load->core, "language.embed");

        if (at_load->core->weights[head].same_as < 0) {
            mmq_model_free(source);
            mmq_model_free(at_load);
            SKIP("the head of this model is a tensor of its own");
        }
        ASSERT_OK(mmq_quantize_layerwise(NULL, source, &options, NULL));
        loaded = load("out", NULL, 1);
        same_answer(at_load, loaded);
        same_placed(at_load, loaded);
        ck_assert_ptr_eq(at_load->core->placed[0].weights[head].mat.part[0],
                         at_load->core->placed[0].weights[embed].mat.part[0]);
        mmq_model_free(source);
        mmq_model_free(at_load);
        mmq_model_free(loaded);
        remove_folder();
    }
}
END_TEST

/* ---- what is told ---- */

START_TEST(a_model_tells_the_formats_that_it_will_have)
{
    mmq_model *model = load(tiny_path(), "layered", 1);
    mmq_model_facts facts = {.struct_size = sizeof facts};
    mmq_tensor_facts t = {.struct_size = sizeof t};
    uint64_t bytes = 0;

    ASSERT_OK(mmq_model_info(&facts, model));
    for (int32_t i = 0; i < facts.n_tensors; i++) {
        bool linear;

        ASSERT_OK(mmq_model_tensor_info(&t, model, i));
        linear = strcmp(t.role, "linear") == 0;
        bytes += t.bytes;
        if (linear && strncmp(t.name, "vision.", 7) == 0)
            ck_assert_str_eq(t.format, "nf4");
        else if (linear && (strncmp(t.name, "projector.", 10) == 0 || strstr(t.name, ".mlp.")))
            ck_assert_str_eq(t.format, "int8");
        else
            ck_assert_str_eq(t.format, "bf16");
    }
    ck_assert_uint_eq(bytes, facts.stored_bytes);
    mmq_model_free(model);
}
END_TEST

START_TEST(the_estimate_counts_the_packed_bytes_and_a_limit_below_is_refused)
{
    for (int i = 0; i < N_POLICIES; i++) {
        mmq_load_options options = {.struct_size = sizeof options, .quantize = policies[i]};
        mmq_memory memory = {.struct_size = sizeof memory}, plain = {.struct_size = sizeof plain};
        mmq_model_facts facts = {.struct_size = sizeof facts};
        mmq_model *model = load(tiny_path(), NULL, 1);
        mmq_session *session;

        ASSERT_OK(mmq_estimate(&plain, model, NULL));
        mmq_model_free(model);
        model = load(tiny_path(), policies[i], 0);
        ASSERT_OK(mmq_estimate(&memory, model, NULL));
        ck_assert_uint_lt(memory.weights, plain.weights);
        mmq_model_free(model);
        options.memory_limit = memory.total;
        ASSERT_OK(mmq_load(&model, tiny_path(), &options));
        ASSERT_OK(mmq_session_create(&session, model, NULL));
        ASSERT_OK(mmq_model_info(&facts, model));
        ck_assert_uint_eq(facts.placed_bytes, memory.weights);
        mmq_session_free(session);
        mmq_model_free(model);
        options.memory_limit = memory.weights - 1;
        ASSERT_OK(mmq_load(&model, tiny_path(), &options));
        ASSERT_FAILS(MMQ_ERR_LIMIT, "weights", mmq_model_place(model));
        mmq_model_free(model);
    }
}
END_TEST

/* ---- plans ---- */

START_TEST(a_plan_tells_before_the_work_what_the_report_tells_after_it)
{
    mmq_model *source = tiny_model(NULL);

    for (int i = 0; i < N_POLICIES; i++) {
        mmq_quantize_options options = {.struct_size = sizeof options, .out_path = "out"};
        mmq_plan *plan;
        mmq_report *report, *again;
        const char *planned, *done;

        ASSERT_OK(mmq_plan_create(&plan, source, policies[i]));
        options.plan = plan;
        ASSERT_OK(mmq_quantize_layerwise(NULL, source, &options, &report));
        planned = strstr(mmq_plan_json(plan), "\"tensors\"");
        done = strstr(mmq_report_json(report), "\"tensors\"");
        ck_assert_ptr_nonnull(planned);
        ck_assert_str_eq(planned, done);
        remove_folder();
        options.plan = NULL;
        options.format = policies[i];
        ASSERT_OK(mmq_quantize_layerwise(NULL, source, &options, &again));
        ck_assert_str_eq(mmq_report_json(report), mmq_report_json(again));
        remove_folder();
        mmq_report_free(again);
        mmq_report_free(report);
        mmq_plan_free(plan);
    }
    mmq_model_free(source);
}
END_TEST

START_TEST(plans_and_methods_that_do_not_fit_are_refused)
{
    mmq_model *source = tiny_model(NULL), *nf4, *out = source;
    mmq_quantize_options options = {.struct_size = sizeof options};
    mmq_plan *plan = (mmq_plan *)source, *none = plan;

    ASSERT_FAILS(MMQ_ERR_INVALID, "NULL", mmq_plan_create(&none, NULL, "nf4"));
    ck_assert_ptr_null(none);
    ASSERT_FAILS(MMQ_ERR_INVALID, "NULL", mmq_plan_create(NULL, source, "nf4"));
    ASSERT_FAILS(MMQ_ERR_INVALID, "NULL", mmq_plan_create(&none, source, NULL));
    ASSERT_FAILS(MMQ_ERR_INVALID, "line 2, column 1", mmq_plan_create(&none, source, "nf4 rtn\n="));
    ASSERT_FAILS(MMQ_ERR_UNSUPPORTED, "line 1, column 5",
                 mmq_plan_create(&none, source, "nf4 magic"));
    ck_assert_str_eq(mmq_model_error(source), mmq_last_error_message());
    ck_assert_str_eq(mmq_plan_json(NULL), "");
    mmq_plan_free(NULL);
    ASSERT_OK(mmq_plan_create(&plan, source, "nf4"));
    quantize_folder("nf4");
    nf4 = load("out", NULL, 1);
    options.plan = plan;
    ASSERT_FAILS(MMQ_ERR_MISMATCH, "not as in the plan",
                 mmq_quantize_layerwise(&out, nf4, &options, NULL));
    ck_assert_ptr_null(out);
    options.format = "nf4";
    ASSERT_FAILS(MMQ_ERR_INVALID, "plan", mmq_quantize_layerwise(&out, source, &options, NULL));
    options.plan = NULL;
    options.method = "magic";
    ASSERT_FAILS(MMQ_ERR_UNSUPPORTED, "magic",
                 mmq_quantize_layerwise(&out, source, &options, NULL));
    options.format = NULL;
    options.method = "search";
    ASSERT_FAILS(MMQ_ERR_INVALID, "no format",
                 mmq_quantize_layerwise(&out, source, &options, NULL));
    mmq_plan_free(plan);
    mmq_model_free(nf4);
    mmq_model_free(source);
}
END_TEST

START_TEST(a_method_in_the_options_is_that_of_rules_that_name_none)
{
    mmq_model *source = tiny_model(NULL);
    mmq_quantize_options options = {
        .struct_size = sizeof options, .format = "nf4", .method = "search", .out_path = "out"};
    mmq_model *searched = load(tiny_path(), "nf4 search", 1), *loaded;
    mmq_report *report;

    ASSERT_OK(mmq_quantize_layerwise(NULL, source, &options, &report));
    ck_assert_ptr_nonnull(
        strstr(mmq_report_json(report), "\"method\": \"search\", \"n_quantized\""));
    loaded = load("out", NULL, 1);
    ASSERT_OK(mmq_model_place(loaded));
    ASSERT_OK(mmq_model_place(searched));
    same_placed(searched, loaded);
    mmq_report_free(report);
    mmq_model_free(loaded);
    mmq_model_free(searched);
    mmq_model_free(source);
}
END_TEST

/* What such a model is quantized from is what its files hold. */
START_TEST(a_model_that_is_quantized_at_load_can_be_the_source_of_another)
{
    mmq_model *at_load = load(tiny_path(), "nf4", 1), *made,
              *expected = load(tiny_path(), "int8", 1);
    mmq_quantize_options options = {.struct_size = sizeof options, .format = "int8"};

    ASSERT_OK(mmq_model_place(at_load));
    ASSERT_OK(mmq_quantize_layerwise(&made, at_load, &options, NULL));
    mmq_model_free(at_load);
    same_answer(expected, made);
    mmq_model_free(made);
    mmq_model_free(expected);
}
END_TEST

/* ---- faults ---- */

START_TEST(a_policy_that_is_refused_leaves_no_model)
{
    mmq_load_options options = {.struct_size = sizeof options, .quantize = "visoin.* = nf4"};
    mmq_model *model = (mmq_model *)&options;

    ASSERT_FAILS(MMQ_ERR_INVALID, "policy, line 1, column 1",
                 mmq_load(&model, tiny_path(), &options));
    ck_assert_ptr_null(model);
    options.quantize = "q9";
    ASSERT_FAILS(MMQ_ERR_UNSUPPORTED, "q9", mmq_load(&model, tiny_path(), &options));
    quantize_folder("nf4");
    options.quantize = "int8";
    ASSERT_FAILS(MMQ_ERR_UNSUPPORTED, "already nf4", mmq_load(&model, "out", &options));
    options.quantize = "nf4";
    ASSERT_OK(mmq_load(&model, "out", &options));
    mmq_model_free(model);
}
END_TEST

/* In the copy of the tiny model in "bad", make one bf16 number of a matrix NaN, or mend it. */
static void set_number(bool bad)
{
    mmq_model *model = tiny_model(NULL);
    const struct mmqi_entry *entry = mmqi_checkpoint_find(
        model->core->checkpoint, "language_model.model.layers.1.mlp.down_proj.weight");
    uint16_t bits = bad ? 0x7fc0 : 0x3f80;
    FILE *file = fopen("bad/model.safetensors", "r+b");

    ck_assert_ptr_nonnull(file);
    fseek(file, (long)(entry->offset + 2 * (95 * 112 + 7)), SEEK_SET);
    ck_assert_uint_eq(fwrite(&bits, 2, 1, file), 1);
    fclose(file);
    mmq_model_free(model);
}

START_TEST(a_weight_that_is_not_finite_is_refused_when_it_is_placed_and_a_retry_works)
{
    char command[8192];
    mmq_model *model;

    snprintf(command, sizeof command, "cp -r '%s' bad && chmod -R u+w bad", tiny_path());
    ck_assert_int_eq(system(command), 0);
    set_number(true);
    model = load("bad", "int8", 2);
    for (int i = 0; i < 2; i++)
        ASSERT_FAILS(MMQ_ERR_FORMAT,
                     "down_proj.weight' (language.layers.1.mlp.down) is NaN at [95, 7]",
                     mmq_model_place(model));
    set_number(false);
    ASSERT_OK(mmq_model_place(model));
    mmq_model_free(model);
}
END_TEST

/* What a progress callback saw, and at which call it acts. */
struct watch {
    uint64_t done, total;
    int32_t calls, at;
    mmq_cancel *cancel;
};

static int32_t watch_progress(void *user, uint64_t done, uint64_t total)
{
    struct watch *watch = user;

    ck_assert_uint_ge(done, watch->done);
    ck_assert_uint_le(done, total);
    watch->done = done;
    watch->total = total;
    if (watch->calls++ != watch->at)
        return 0;
    if (!watch->cancel)
        return 1;
    mmq_cancel_raise(watch->cancel);
    return 0;
}

START_TEST(placing_can_be_ended_at_every_stage)
{
    mmq_memory memory = {.struct_size = sizeof memory};
    int32_t n_calls = 1;

    for (int32_t n = -1; n < n_calls; n++) {
        struct watch watch = {.at = n};
        mmq_load_options options = {.struct_size = sizeof options,
                                    .quantize = "layered",
                                    .on_progress = watch_progress,
                                    .progress_user = &watch};
        mmq_model *model;

        if (n % 2)
            ASSERT_OK(mmq_cancel_create(&watch.cancel));
        options.cancel = watch.cancel;
        ASSERT_OK(mmq_load(&model, tiny_path(), &options));
        if (n < 0 || (n == n_calls - 1 && watch.cancel))
            ASSERT_OK(mmq_model_place(model)); /* at the last call there is nothing left to end */
        else
            ASSERT_FAILS(watch.cancel ? MMQ_ERR_CANCELLED : MMQ_ERR_CALLBACK, "",
                         mmq_model_place(model));
        if (n < 0) {
            ASSERT_OK(mmq_estimate(&memory, model, NULL));
            ck_assert_uint_eq(watch.done, memory.weights);
            ck_assert_uint_eq(watch.total, memory.weights);
            n_calls = watch.calls;
        }
        mmq_model_free(model);
        mmq_cancel_free(watch.cancel);
    }
    ck_assert_int_gt(n_calls, 40);
}
END_TEST

START_TEST(memory_refused_at_any_moment_of_loading_is_one_status_and_a_retry_works)
{
    struct meter meter = {0};
    struct mmqi_mem_hooks hooks = {meter_alloc, meter_free, &meter};
    const struct mmqi_mem_hooks *before = mmqi_mem_enter(&hooks);
    mmq_load_options options = {
        .struct_size = sizeof options,
        .n_threads = 1,
        .quantize = "vision.* = nf4-nested; language.{embed,head} = int8; projector.* = f32"};
    mmq_model *model = NULL;
    mmq_status status = MMQ_ERR_NOMEM;

    for (int64_t n = 0; status == MMQ_ERR_NOMEM; n++) {
        meter.left = n;
        status = mmq_load(&model, tiny_path(), &options);
        ck_assert_msg(status == MMQ_OK || (status == MMQ_ERR_NOMEM && !model), "%s",
                      mmq_last_error_message());
        ck_assert(status == MMQ_OK || meter.live == 0);
    }
    status = MMQ_ERR_NOMEM;
    for (int64_t n = 0; status == MMQ_ERR_NOMEM; n++) {
        int64_t live = meter.live;

        meter.left = n;
        status = mmq_model_place(model);
        ck_assert_msg(status == MMQ_OK || status == MMQ_ERR_NOMEM, "%s", mmq_last_error_message());
        ck_assert(status == MMQ_OK || meter.live == live);
    }
    mmq_model_free(model);
    ck_assert_int_eq(meter.live, 0);
    mmqi_mem_enter(before);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("quantize at load");
    TCase *tests = tcase_create("quantize at load");
    SRunner *runner = srunner_create(suite);
    int failed;

    tcase_add_checked_fixture(tests, scratch_enter, scratch_leave);
    tcase_set_timeout(tests, 120);
    tcase_add_test(tests, quantize_at_load_equals_quantize_then_load);
    tcase_add_test(tests, a_model_quantized_in_memory_is_the_same_and_is_placed_where_it_lies);
    tcase_add_test(tests, the_placed_bytes_do_not_depend_on_threads);
    tcase_add_test(tests, a_tied_head_follows_the_embedding);
    tcase_add_test(tests, a_model_tells_the_formats_that_it_will_have);
    tcase_add_test(tests, the_estimate_counts_the_packed_bytes_and_a_limit_below_is_refused);
    tcase_add_test(tests, a_plan_tells_before_the_work_what_the_report_tells_after_it);
    tcase_add_test(tests, plans_and_methods_that_do_not_fit_are_refused);
    tcase_add_test(tests, a_method_in_the_options_is_that_of_rules_that_name_none);
    tcase_add_test(tests, a_model_that_is_quantized_at_load_can_be_the_source_of_another);
    tcase_add_test(tests, a_policy_that_is_refused_leaves_no_model);
    tcase_add_test(tests,
                   a_weight_that_is_not_finite_is_refused_when_it_is_placed_and_a_retry_works);
    tcase_add_test(tests, placing_can_be_ended_at_every_stage);
    tcase_add_test(tests, memory_refused_at_any_moment_of_loading_is_one_status_and_a_retry_works);
    suite_add_tcase(suite, tests);
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? 1 : 0;
}
