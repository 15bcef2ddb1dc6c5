/* Which chat template a model has: its folder's, in one of four files, or its family's. */
#include <jansson.h>

#include "scratch.h"
#include "tiny.h"

#include "core/mem.h"
#include "core/status.h"
#include "io/file.h"
#include "model/model.h"

/* ---- conversations of golden.json ---- */

enum { MOST = 16 };

struct conversation {
    struct mmqi_chat_part parts[MOST][MOST];
    struct mmqi_chat_message messages[MOST];
    struct mmqi_chat_input input;
};

static void read_conversation(struct conversation *c, const json_t *prompt)
{
    json_t *message, *part;
    size_t i, j;

    memset(c, 0, sizeof *c);
    json_array_foreach(json_object_get(prompt, "messages"), i, message)
    {
        ck_assert_uint_lt(i, MOST);
        c->messages[i].role = json_string_value(json_object_get(message, "role"));
        c->messages[i].parts = c->parts[i];
        json_array_foreach(json_object_get(message, "content"), j, part)
        {
            ck_assert_uint_lt(j, MOST);
            c->parts[i][j].is_image =
                strcmp(json_string_value(json_object_get(part, "type")), "image") == 0;
            c->parts[i][j].text = json_string_value(json_object_get(part, "text"));
        }
        c->messages[i].n_parts = j;
    }
    c->input.messages = c->messages;
    c->input.n_messages = i;
    c->input.add_generation_prompt = true;
}

static struct mmqi_model *open_model(const char *folder)
{
    struct mmqi_store *store = NULL;
    struct mmqi_model *model = NULL;

    ck_assert_int_eq(mmqi_store_open_folder(&store, folder), MMQ_OK);
    ck_assert_msg(mmqi_model_open(&model, store) == MMQ_OK, "%s", mmqi_message());
    mmqi_store_release(store);
    return model;
}

/* Every prompt of the case, rendered with the model's template, must be as it is written there. */
static void render_as_written(const struct mmqi_model *model, const char *golden)
{
    json_t *root = json_load_file(golden, 0, NULL), *prompt;
    struct conversation c;
    char *text = NULL;
    size_t i, size;

    ck_assert_ptr_nonnull(root);
    ck_assert_ptr_nonnull(model->chat);
    json_array_foreach(json_object_get(root, "prompts"), i, prompt)
    {
        read_conversation(&c, prompt);
        ck_assert_msg(mmqi_chat_render(model->chat, &text, &size, &c.input) == MMQ_OK, "%s",
                      mmqi_message());
        ck_assert_str_eq(text, json_string_value(json_object_get(prompt, "rendered")));
        mmqi_free(text);
    }
    ck_assert_uint_gt(i, 0);
    json_decref(root);
}

/* Copy a case here, its "model" without the files that hold templates. */
static void copy_bare(const char *folder)
{
    ck_assert_int_eq(system(support_text("rm -rf ./* && cp -r '%s'/* . && chmod -R u+w . && "
                                         "rm -f model/chat_template.*",
                                         folder)),
                     0);
}

static void hold_case(const char *folder)
{
    char golden[4096], path[4096];
    struct mmqi_model *model;

    snprintf(path, sizeof path, "%s", folder);
    snprintf(golden, sizeof golden, "%s/golden.json", folder);
    copy_bare(path);
    model = open_model("model");
    render_as_written(model, golden);
    mmqi_model_close(model);
}

/* Committed cases whose own template says what the family's does. */
static const char *const own[] = {"llava_tiny", "llava_orig_tiny", "idefics3_tiny"};

START_TEST(a_folder_without_a_template_gets_its_familys)
{
    hold_case(source_path(support_text("test/golden/%s", own[_i])));
}
END_TEST

static const char *const shared[] = {"llava",    "llava_next", "qwen2_vl", "qwen2_5_vl",
                                     "qwen3_vl", "smolvlm",    "idefics3"};

START_TEST(the_prompts_of_shared_cases_come_out_of_the_familys_templates_too)
{
    const char *folder = shared_path(support_text("golden/%s", shared[_i]));

    if (!folder)
        SKIP("../shared/golden/%s is absent", shared[_i]);
    hold_case(folder);
}
END_TEST

/* ---- where a folder's template may be ---- */

static void write_text(const char *path, const char *text)
{
    FILE *file = fopen(path, "w");

    ck_assert_ptr_nonnull(file);
    fputs(text, file);
    fclose(file);
}

/* Set a key of a JSON file that is there, or of a new one. */
static void set_key(const char *path, const char *key, const char *value)
{
    json_t *root = json_load_file(path, 0, NULL);

    root = root ? root : json_object();
    json_object_set_new(root, key, json_loads(value, JSON_DECODE_ANY, NULL));
    ck_assert_int_eq(json_dump_file(root, path, 0), 0);
    json_decref(root);
}

/* What a template without variables gives. */
static void expect_template(const char *expected)
{
    struct mmqi_model *model = open_model("model");
    struct mmqi_chat_input input = {0};
    char *text = NULL;
    size_t size;

    ck_assert_ptr_nonnull(model->chat);
    ck_assert_int_eq(mmqi_chat_render(model->chat, &text, &size, &input), MMQ_OK);
    ck_assert_str_eq(text, expected);
    mmqi_free(text);
    mmqi_model_close(model);
}

START_TEST(the_first_file_with_a_template_counts)
{
    copy_bare(source_path("test/golden/llava_tiny"));
    set_key("model/tokenizer_config.json", "chat_template", "\"of the tokenizer\"");
    expect_template("of the tokenizer");
    set_key("model/chat_template.json", "other", "1");
    expect_template("of the tokenizer");
    set_key("model/processor_config.json", "chat_template", "\"of the processor\"");
    expect_template("of the processor");
    set_key("model/chat_template.json", "chat_template", "\"of its own\"");
    expect_template("of its own");
    write_text("model/chat_template.jinja", "jinja");
    expect_template("jinja");
}
END_TEST

START_TEST(of_templates_with_names_the_default_one_counts)
{
    static const struct {
        const char *value, *text;
    } cases[] = {
        {"[{\"name\":\"tool\",\"template\":\"no\"},{\"name\":\"default\",\"template\":\"yes\"}]",
         "yes"},
        {"{\"tool\":\"no\",\"default\":\"yes\"}", "yes"},
        {"[{\"name\":\"tool\",\"template\":\"no\"}]", "next"},
        {"[]", "next"},
        {"null", "next"},
    };

    copy_bare(source_path("test/golden/llava_tiny"));
    set_key("model/tokenizer_config.json", "chat_template", "\"next\"");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        set_key("model/chat_template.json", "chat_template", cases[i].value);
        expect_template(cases[i].text);
    }
}
END_TEST

START_TEST(a_template_of_another_kind_is_refused)
{
    struct mmqi_store *store = NULL;
    struct mmqi_model *model = NULL;

    copy_bare(source_path("test/golden/llava_tiny"));
    set_key("model/tokenizer_config.json", "chat_template", "7");
    ck_assert_int_eq(mmqi_store_open_folder(&store, "model"), MMQ_OK);
    ck_assert_int_eq(mmqi_model_open(&model, store), MMQ_ERR_FORMAT);
    ck_assert_ptr_nonnull(strstr(mmqi_message(), "chat_template"));
    ck_assert_ptr_null(model);
    mmqi_store_release(store);
}
END_TEST

START_TEST(a_folders_template_that_does_not_run_is_not_replaced)
{
    struct mmqi_model *model;

    copy_bare(source_path("test/golden/llava_tiny"));
    write_text("model/chat_template.jinja", "{% import 'x' as y %}");
    model = open_model("model");
    ck_assert_ptr_null(model->chat);
    ck_assert_ptr_nonnull(strstr(model->chat_error, "import"));
    mmqi_model_close(model);
}
END_TEST

/* The text of one turn of each side, and words of the system before it if `instructed`. */
static char *render_turns(const char *folder, bool instructed)
{
    const struct mmqi_chat_part texts[] = {
        {.text = "Be brief."}, {.text = "Hi?"}, {.text = "Yes."}, {.text = "So?"}};
    const struct mmqi_chat_message messages[] = {{"system", &texts[0], 1},
                                                 {"user", &texts[1], 1},
                                                 {"assistant", &texts[2], 1},
                                                 {"user", &texts[3], 1}};
    struct mmqi_chat_input input = {.messages = messages + !instructed,
                                    .n_messages = instructed ? 4 : 3,
                                    .add_generation_prompt = true};
    struct mmqi_model *model;
    char *text = NULL;
    size_t size;

    copy_bare(source_path(support_text("test/golden/%s", folder)));
    model = open_model("model");
    ck_assert_int_eq(mmqi_chat_render(model->chat, &text, &size, &input), MMQ_OK);
    mmqi_model_close(model);
    return text;
}

START_TEST(words_of_the_system_stand_where_each_family_has_them)
{
    static const struct {
        const char *folder, *with, *without;
    } cases[] = {
        {"llava_tiny", "Be brief. USER: Hi? ASSISTANT: Yes. USER: So? ASSISTANT:",
         "USER: Hi? ASSISTANT: Yes. USER: So? ASSISTANT:"},
        {"qwen2_vl_tiny",
         "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi?<|im_end|>\n"
         "<|im_start|>assistant\nYes.<|im_end|>\n<|im_start|>user\nSo?<|im_end|>\n"
         "<|im_start|>assistant\n",
         "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
         "Hi?<|im_end|>\n<|im_start|>assistant\nYes.<|im_end|>\n<|im_start|>user\nSo?<|im_end|>\n"
         "<|im_start|>assistant\n"},
        {"llava_next_tiny", /* its text model is a Mistral */
         "<<SYS>>\nBe brief.\n<</SYS>>\n\n[INST] Hi? [/INST] Yes.</s>[INST] So? [/INST]",
         "[INST] Hi? [/INST] Yes.</s>[INST] So? [/INST]"},
        {"idefics3_tiny",
         "<|im_start|>System: Be brief.<end_of_utterance>\nUser: Hi?<end_of_utterance>\n"
         "Assistant: Yes.<end_of_utterance>\nUser: So?<end_of_utterance>\nAssistant:",
         "<|im_start|>User: Hi?<end_of_utterance>\nAssistant: Yes.<end_of_utterance>\n"
         "User: So?<end_of_utterance>\nAssistant:"},
    };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *with = render_turns(cases[i].folder, true);
        char *without = render_turns(cases[i].folder, false);

        ck_assert_str_eq(with, cases[i].with);
        ck_assert_str_eq(without, cases[i].without);
        mmqi_free(with);
        mmqi_free(without);
    }
}
END_TEST

START_TEST(a_video_has_a_marker_of_its_own_where_a_family_reads_videos)
{
    const struct mmqi_chat_part parts[] = {{.is_image = MMQI_PART_VIDEO}, {.text = "Hi?"}};
    const struct mmqi_chat_message message = {"user", parts, 2};
    struct mmqi_chat_input input = {.messages = &message, .n_messages = 1};
    struct mmqi_model *model;
    char *text = NULL;
    size_t size;

    copy_bare(source_path("test/golden/qwen2_vl_tiny"));
    model = open_model("model");
    ck_assert_int_eq(mmqi_chat_render(model->chat, &text, &size, &input), MMQ_OK);
    ck_assert_ptr_nonnull(
        strstr(text, "user\n<|vision_start|><|video_pad|><|vision_end|>Hi?<|im_end|>\n"));
    mmqi_free(text);
    mmqi_model_close(model);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("templates");
    TCase *tests = tcase_create("templates");
    SRunner *runner;
    int failed;

    tcase_add_checked_fixture(tests, scratch_enter, scratch_leave);
    tcase_set_timeout(tests, 60);
    tcase_add_loop_test(tests, a_folder_without_a_template_gets_its_familys, 0,
                        sizeof own / sizeof *own);
    tcase_add_loop_test(tests, the_prompts_of_shared_cases_come_out_of_the_familys_templates_too, 0,
                        sizeof shared / sizeof *shared);
    tcase_add_test(tests, the_first_file_with_a_template_counts);
    tcase_add_test(tests, of_templates_with_names_the_default_one_counts);
    tcase_add_test(tests, a_template_of_another_kind_is_refused);
    tcase_add_test(tests, a_folders_template_that_does_not_run_is_not_replaced);
    tcase_add_test(tests, words_of_the_system_stand_where_each_family_has_them);
    tcase_add_test(tests, a_video_has_a_marker_of_its_own_where_a_family_reads_videos);
    suite_add_tcase(suite, tests);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed > 0;
}
