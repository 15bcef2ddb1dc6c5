/*
 * The family qwen2_5_vl on the committed tiny model: windows, and what it says
 * of files that do not fit. The committed case compares what it computes.
 */
#include "model/checkpoint.h"
#include "model/family.h"
#include "model/names.h"
#include "model/tiny.h"
#include "runtime/session.h"

#define TINY "qwen2_5_vl_tiny"

START_TEST(knows_the_names_of_the_hub_and_of_the_modules)
{
    static const char *const names[][2] = {
        {"model.visual.blocks.7.mlp.gate_proj.bias", "vision.blocks.7.mlp.gate.bias"},
        {"visual.blocks.0.mlp.down_proj.weight", "vision.blocks.0.mlp.down"},
        {"visual.blocks.0.norm2.weight", "vision.blocks.0.norm2"},
        {"model.layers.3.self_attn.q_proj.bias", "language.layers.3.attn.q.bias"},
        {"visual.merger.ln_q.weight", "projector.norm"},
    };
    char name[MMQI_MAX_WEIGHT_NAME];

    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        ck_assert_int_eq(mmqi_canonical_name(name, &mmqi_family_qwen2_5_vl, names[i][0]),
                         MMQI_NAME_KNOWN);
        ck_assert_str_eq(name, names[i][1]);
    }
}
END_TEST

/* ---- windows ---- */

/* What a run over `down` x `across` squares is told, and room for it. */
struct told {
    int32_t order[64], undo[64], slots[256], positions[512];
    struct mmqi_span spans[256], windows[256];
    struct mmqi_session_index index;
};

static void tell(struct told *t, int32_t across, int32_t down, int32_t window)
{
    const struct mmqi_spec spec = {.patch = 8, .merge = 2, .tower_axes = 2, .window = window};
    const struct mmqi_view view = {16 * across, 16 * down};
    struct mmqi_view_rows rows;

    memset(t, 0, sizeof *t);
    t->index = (struct mmqi_session_index){.order = t->order,
                                           .undo = t->undo,
                                           .slots = t->slots,
                                           .positions = t->positions,
                                           .spans = t->spans,
                                           .window_spans = t->windows};
    mmqi_view_count(&rows, &spec, &view);
    ck_assert_int_le(rows.tower_rows, 256);
    mmqi_tower_fill_index(&t->index, &spec, &rows);
}

/* 3 x 5 squares in windows of 2 x 2: computed by transformers. */
START_TEST(windows_are_those_of_the_reference)
{
    static const int32_t order[] = {0, 1, 5, 6, 2, 3, 7, 8, 4, 9, 10, 11, 12, 13, 14};
    static const int32_t ends[] = {0, 16, 32, 40, 48, 56, 60};
    struct told *t = malloc(sizeof *t);
    int window = 0;

    tell(t, 5, 3, 2);
    for (int i = 0; i < 15; i++) {
        ck_assert_int_eq(t->order[i], order[i]);
        ck_assert_int_eq(t->undo[order[i]], i);
    }
    for (int i = 0; i < 60; i++) {
        window += i == ends[window + 1];
        ck_assert_int_eq(t->windows[i].begin, ends[window]);
        ck_assert_int_eq(t->windows[i].end, ends[window + 1]);
        ck_assert_int_eq(t->spans[i].end, 60);
    }
    /* patch 3 of the third square in turn: square 5 of the grid is row 1, column 0 */
    ck_assert_int_eq(t->positions[2 * 11], 3);
    ck_assert_int_eq(t->positions[2 * 11 + 1], 1);
    free(t);
}
END_TEST

START_TEST(a_picture_no_greater_than_a_window_is_one)
{
    struct told *t = malloc(sizeof *t);

    tell(t, 3, 2, 4);
    for (int i = 0; i < 6; i++)
        ck_assert_int_eq(t->order[i], i);
    for (int i = 0; i < 24; i++) {
        ck_assert_int_eq(t->windows[i].begin, 0);
        ck_assert_int_eq(t->windows[i].end, 24);
    }
    free(t);
}
END_TEST

/* ---- files ---- */

struct change {
    const char *key, *value; /* value NULL: without the key */
    int32_t status;
    const char *says;
};

static const struct change config_changes[] = {
    {"vision_config.window_size", "0", MMQ_ERR_FORMAT, "window_size"},
    {"vision_config.window_size", "-32", MMQ_ERR_FORMAT, "window_size"},
    {"vision_config.window_size", "2147483648", MMQ_ERR_FORMAT, "window_size"},
    {"vision_config.window_size", "40", MMQ_ERR_FORMAT, "window_size 40 is no whole number of"},
    {"vision_config.window_size", "8", MMQ_ERR_FORMAT, "squares of 16"},
    {"vision_config.fullatt_block_indexes", "[3]", MMQ_ERR_FORMAT, "fullatt_block_indexes.0"},
    {"vision_config.fullatt_block_indexes", "[1, -1]", MMQ_ERR_FORMAT, "fullatt_block_indexes.1"},
    {"vision_config.fullatt_block_indexes", "[0.5]", MMQ_ERR_FORMAT, "fullatt_block_indexes.0"},
    {"vision_config.fullatt_block_indexes", "1", MMQ_ERR_FORMAT, "is no list"},
    {"vision_config.hidden_size", "26", MMQ_ERR_FORMAT, "hidden_size 26 does not make 2 heads"},
    {"vision_config.hidden_size", "32", MMQ_ERR_MISMATCH, "another shape"},
    {"vision_config.out_hidden_size", "52", MMQ_ERR_FORMAT, "rows of 52"},
    {"vision_config.intermediate_size", "0", MMQ_ERR_FORMAT, "intermediate_size"},
    {"vision_config.intermediate_size", NULL, MMQ_ERR_MISMATCH, "another shape"},
    {"vision_config.depth", "2", MMQ_ERR_MISMATCH, "unused"},
    {"use_sliding_window", "true", MMQ_ERR_UNSUPPORTED, "use_sliding_window"},
    {"rope_scaling.mrope_section", "[1, 3, 3]", MMQ_ERR_FORMAT, "1 + 3 + 3"},
};

START_TEST(refuses_settings_that_do_not_fit)
{
    const struct change *change = &config_changes[_i];
    struct checkpoint *c = tiny_checkpoint(TINY);

    set(c->config, change->key, change->value);
    fails(c, change->status, change->says);
}
END_TEST

START_TEST(accounts_for_tensors_both_ways)
{
    struct checkpoint *c = tiny_checkpoint(TINY);

    drop_tensor(c, "visual.blocks.1.mlp.up_proj.bias");
    fails(c, MMQ_ERR_MISMATCH, "1 missing (vision.blocks.1.mlp.up.bias)");
    c = tiny_checkpoint(TINY);
    add_tensor(c, "visual.blocks.0.norm1.bias", "BF16", json_pack("[i]", 24), NULL, 48);
    fails(c, MMQ_ERR_MISMATCH, "1 unused ('visual.blocks.0.norm1.bias')");
    c = tiny_checkpoint(TINY);
    json_decref(find_tensor(c, "visual.blocks.0.mlp.gate_proj.weight")->shape);
    find_tensor(c, "visual.blocks.0.mlp.gate_proj.weight")->shape = json_pack("[i, i]", 24, 40);
    fails(c, MMQ_ERR_MISMATCH, "[24, 40], not float [40, 24]");
}
END_TEST

/* Indexes that are absent are the class's, [7, 15, 23, 31]: none of three blocks. */
START_TEST(absent_keys_are_class_defaults)
{
    struct checkpoint *c = tiny_checkpoint(TINY);
    struct mmqi_model *model;

    set(c->config, "vision_config.fullatt_block_indexes", NULL);
    model = opens(c);
    ck_assert_int_eq(model->spec.window, 2);
    free_checkpoint(c);
    c = tiny_checkpoint(TINY);
    set(c->config, "vision_config.window_size", NULL);
    model = opens(c);
    ck_assert_int_eq(model->spec.window, 7); /* 112 pixels */
    free_checkpoint(c);
}
END_TEST

#define COUNT(array) (int)(sizeof(array) / sizeof *(array))

int main(void)
{
    Suite *suite = suite_create("qwen2_5_vl");
    TCase *tests = tcase_create("windows"), *files = tcase_create("files");
    SRunner *runner = srunner_create(suite);
    int failed;

    tcase_add_test(tests, windows_are_those_of_the_reference);
    tcase_add_test(tests, a_picture_no_greater_than_a_window_is_one);
    suite_add_tcase(suite, tests);
    tcase_add_test(files, knows_the_names_of_the_hub_and_of_the_modules);
    tcase_add_test(files, absent_keys_are_class_defaults);
    tcase_add_test(files, accounts_for_tensors_both_ways);
    tcase_add_loop_test(files, refuses_settings_that_do_not_fit, 0, COUNT(config_changes));
    suite_add_tcase(suite, files);
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? 1 : 0;
}
