/* src/text: tokenizer.json against what the tokenizers library makes of the same strings. */
#include <jansson.h>

#include "tokenizing.h"

#include "text/utf8.h"

static int32_t *ids_of(const json_t *list, size_t *n)
{
    int32_t *ids = calloc(json_array_size(list) + 1, sizeof *ids);
    size_t i;

    *n = json_array_size(list);
    for (i = 0; i < *n; i++)
        ids[i] = (int32_t)json_integer_value(json_array_get(list, i));
    return ids;
}

/* Encode the string and hold the result against a list of ids. */
static void check_encoded(const struct mmqi_tokenizer *tokenizer, const json_t *text,
                          const json_t *list, int32_t flags)
{
    size_t n;
    int32_t *ids = ids_of(list, &n);
    char *expected = ids_text(ids, n);
    char *found =
        encode_text(tokenizer, json_string_value(text), json_string_length(text), flags);

    ck_assert_msg(strcmp(found, expected) == 0, "'%s' gives %s, not %s", json_string_value(text),
                  found, expected);
    free(found);
    free(expected);
    free(ids);
}

static void check_decoded(const struct mmqi_tokenizer *tokenizer, const json_t *list,
                          const json_t *text, bool skip_special)
{
    size_t n;
    int32_t *ids = ids_of(list, &n);

    expect_text(tokenizer, ids, n, skip_special, json_string_value(text),
                json_string_length(text));
    free(ids);
}

/* Every vector of a file of ../shared/golden/tokenizer. */
static size_t check_vectors(const struct mmqi_tokenizer *tokenizer, const char *path)
{
    json_t *root = json_load_file(path, JSON_ALLOW_NUL, NULL), *vector;
    size_t i;

    ck_assert_ptr_nonnull(root);
    json_array_foreach(json_object_get(root, "strings"), i, vector)
    {
        const json_t *text = json_object_get(vector, "text");
        const json_t *ids = json_object_get(vector, "ids");
        const json_t *special = json_object_get(vector, "ids_special");
        const json_t *decoded = json_object_get(vector, "decoded");
        const json_t *skipped = json_object_get(vector, "decoded_skip_special");

        special = special ? special : ids;
        check_encoded(tokenizer, text, ids, 0);
        check_encoded(tokenizer, text, special, MMQI_TOKENIZE_POST);
        check_decoded(tokenizer, ids, decoded, false);
        check_decoded(tokenizer, special, skipped ? skipped : decoded, true);
    }
    json_decref(root);
    return i;
}

static void run_vectors(const char *tokenizer_path, const char *vectors)
{
    struct mmqi_tokenizer *tokenizer = load_tokenizer(tokenizer_path);

    ck_assert_uint_eq(check_vectors(tokenizer, vectors), 127);
    mmqi_tokenizer_free(tokenizer);
}

START_TEST(all_vectors_of_the_byte_level_tokenizer_hold)
{
    const char *tokenizer = shared_path("models/llava-flickr/tokenizer.json");
    const char *vectors = shared_path("golden/tokenizer/llava_flickr.json");

    if (!tokenizer || !vectors)
        SKIP("../shared/models/llava-flickr is absent");
    run_vectors(tokenizer, vectors);
}
END_TEST

START_TEST(all_vectors_of_the_llama2_tokenizer_hold)
{
    const char *vectors = shared_path("golden/tokenizer/llama2.json");
    const char *tokenizer = source_path("build/tokenizers/llama2/tokenizer.json");
    FILE *file = fopen(tokenizer, "rb");

    if (file)
        fclose(file);
    if (!file || !vectors)
        SKIP("build/tokenizers/llama2/tokenizer.json is absent; make it with `make tokenizers`");
    run_vectors(tokenizer, vectors);
}
END_TEST

/* The ids of the golden case with each run of image ids cut down to one. */
static json_t *unexpanded(const json_t *ids, json_int_t image)
{
    json_t *list = json_array(), *id;
    size_t i, run = 0, tokens = 16;

    json_array_foreach(ids, i, id)
    {
        run = json_integer_value(id) == image ? run + 1 : 0;
        if (run == 0 || run % tokens == 1)
            json_array_append(list, id);
    }
    return list;
}

static size_t check_case(const char *name)
{
    const char *path = shared_path(support_text("golden/%s/golden.json", name));
    json_t *root = path ? json_load_file(path, 0, NULL) : NULL, *prompt, *expected;
    struct mmqi_tokenizer *tokenizer;
    size_t i;

    if (!root)
        return 0;
    tokenizer = load_tokenizer(shared_path(support_text("golden/%s/model/tokenizer.json", name)));
    json_array_foreach(json_object_get(root, "prompts"), i, prompt)
    {
        ck_assert(json_is_true(json_object_get(prompt, "add_special_tokens")));
        expected = unexpanded(json_object_get(prompt, "input_ids"),
                              mmqi_tokenizer_id(tokenizer, "<image>"));
        check_encoded(tokenizer, json_object_get(prompt, "rendered"), expected,
                      MMQI_TOKENIZE_POST);
        check_decoded(tokenizer, json_object_get(prompt, "new_ids"),
                      json_object_get(prompt, "text"), false);
        check_decoded(tokenizer, json_object_get(prompt, "new_ids"),
                      json_object_get(prompt, "text_skip_special"), true);
        json_decref(expected);
    }
    mmqi_tokenizer_free(tokenizer);
    json_decref(root);
    return i;
}

START_TEST(prompts_of_the_llava_cases_give_their_ids)
{
    static const char *const cases[] = {"llava", "llava_v5", "llava_wide"};
    size_t i;

    if (!shared_path("golden/llava"))
        SKIP("../shared/golden is absent");
    for (i = 0; i < sizeof cases / sizeof *cases; i++)
        ck_assert_uint_eq(check_case(cases[i]), 3);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("tokenizer");
    TCase *tests = tcase_create("golden");
    SRunner *runner;
    int failed;

    tcase_set_timeout(tests, 60);
    tcase_add_test(tests, all_vectors_of_the_byte_level_tokenizer_hold);
    tcase_add_test(tests, all_vectors_of_the_llama2_tokenizer_hold);
    tcase_add_test(tests, prompts_of_the_llava_cases_give_their_ids);
    suite_add_tcase(suite, tests);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed > 0;
}
