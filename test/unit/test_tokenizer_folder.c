/* src/text: the tokenizer of a folder, in each spelling; what the files beside it add. */
#include <jansson.h>
#include <unistd.h>

#include "tokenizing.h"

#include "text/tokenizer_folder.h"

/* A new folder for one test's files. */
static const char *new_folder(void)
{
    static char path[64];

    strcpy(path, "/tmp/tokenizer_folder.XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(path));
    return path;
}

static void write_text(const char *folder, const char *name, const char *text)
{
    FILE *file = fopen(support_text("%s/%s", folder, name), "wb");

    ck_assert_ptr_nonnull(file);
    fputs(text, file);
    fclose(file);
}

static int32_t open_folder(struct mmqi_tokenizer **tokenizer, const char *folder)
{
    struct mmqi_store *store = NULL;
    int32_t status;

    ck_assert_int_eq(mmqi_store_open_folder(&store, folder), MMQ_OK);
    status = mmqi_tokenizer_open(tokenizer, store);
    mmqi_store_release(store);
    return status;
}

static void remove_folder(const char *folder)
{
    ck_assert_int_eq(system(support_text("rm -r '%s'", folder)), 0);
}

/* Must be refused, with a line that names the file and says `said`; the folder goes. */
static void refuse_folder(const char *folder, int32_t status, const char *file, const char *said)
{
    struct mmqi_tokenizer *tokenizer = (struct mmqi_tokenizer *)1;
    int32_t found = open_folder(&tokenizer, folder);

    ck_assert_msg(found == status, "status %d (%s), not %d", (int)found, mmqi_message(),
                  (int)status);
    ck_assert_ptr_null(tokenizer);
    ck_assert_msg(strstr(mmqi_message(), file) && strstr(mmqi_message(), said),
                  "'%s' lacks '%s' or '%s'", mmqi_message(), file, said);
    remove_folder(folder);
}

/* ---- vocab.json and merges.txt ---- */

/* The model of a tokenizer.json as two files. */
static void write_vocab_merges(const char *folder, const char *tokenizer_json)
{
    json_t *root = json_load_file(tokenizer_json, JSON_ALLOW_NUL, NULL), *merge;
    json_t *model = json_object_get(root, "model");
    FILE *file = fopen(support_text("%s/merges.txt", folder), "wb");
    size_t i;

    ck_assert_ptr_nonnull(model);
    ck_assert_int_eq(
        json_dump_file(json_object_get(model, "vocab"), support_text("%s/vocab.json", folder), 0),
        0);
    fputs("#version: 0.2\n", file);
    json_array_foreach(json_object_get(model, "merges"), i, merge)
    {
        if (json_is_string(merge))
            fprintf(file, "%s\n", json_string_value(merge));
        else
            fprintf(file, "%s %s\n", json_string_value(json_array_get(merge, 0)),
                    json_string_value(json_array_get(merge, 1)));
    }
    fclose(file);
    json_decref(root);
}

/* Both must make the same ids of every string in a file of vectors. */
static void same_ids(const struct mmqi_tokenizer *a, const struct mmqi_tokenizer *b,
                     const char *vectors, const char *key)
{
    json_t *root = json_load_file(vectors, JSON_ALLOW_NUL, NULL), *vector;
    size_t i;

    json_array_foreach(json_object_get(root, key), i, vector)
    {
        const json_t *text = json_object_get(vector, "text");
        char *one =
            encode_text(a, json_string_value(text), json_string_length(text), MMQI_TOKENIZE_POST);
        char *other =
            encode_text(b, json_string_value(text), json_string_length(text), MMQI_TOKENIZE_POST);

        ck_assert_msg(strcmp(one, other) == 0, "'%s': %s, not %s", json_string_value(text), one,
                      other);
        free(one);
        free(other);
    }
    ck_assert_uint_gt(i, 40);
    json_decref(root);
}

/* `source` has tokenizer.json and tokenizer_config.json of Qwen2's class. */
static void check_qwen2(const char *source, const char *vectors, const char *key)
{
    struct mmqi_tokenizer *whole = NULL, *parts = NULL;
    const char *folder = new_folder();
    size_t size;
    char *config = read_whole(support_text("%s/tokenizer_config.json", source), &size);

    write_vocab_merges(folder, support_text("%s/tokenizer.json", source));
    write_text(folder, "tokenizer_config.json", config);
    ck_assert_msg(open_folder(&parts, folder) == MMQ_OK, "%s", mmqi_message());
    ck_assert_msg(open_folder(&whole, source) == MMQ_OK, "%s", mmqi_message());
    ck_assert_int_eq(mmqi_tokenizer_vocab_size(parts), mmqi_tokenizer_vocab_size(whole));
    for (int32_t id = 0; id < mmqi_tokenizer_vocab_size(whole); id++) {
        ck_assert_pstr_eq(mmqi_tokenizer_content(parts, id), mmqi_tokenizer_content(whole, id));
        ck_assert_int_eq(mmqi_tokenizer_is_special(parts, id),
                         mmqi_tokenizer_is_special(whole, id));
    }
    same_ids(whole, parts, vectors, key);
    free(config);
    mmqi_tokenizer_free(whole);
    mmqi_tokenizer_free(parts);
    remove_folder(folder);
}

START_TEST(vocabulary_and_merges_give_what_tokenizer_json_gives)
{
    char vectors[4096];

    snprintf(vectors, sizeof vectors, "%s", source_path("test/unit/data/tokenizer_vectors.json"));
    check_qwen2(source_path("test/golden/qwen2_vl_tiny/model"), vectors, "bytes");
}
END_TEST

START_TEST(so_do_those_of_the_real_tokenizer)
{
    const char *shared = shared_path("golden/tokenizer/qwen2_5.json");
    char source[4096], vectors[4096];

    snprintf(source, sizeof source, "%s", source_path("build/tokenizers/qwen2_5"));
    snprintf(vectors, sizeof vectors, "%s", shared ? shared : "");
    if (!shared || access(support_text("%s/tokenizer.json", source), R_OK) != 0)
        SKIP("build/tokenizers/qwen2_5 is absent; make unpacks it where it can");
    check_qwen2(source, vectors, "strings");
}
END_TEST

#define VOCAB "{\"a\":0,\"b\":1,\"\\u0120\":2,\"ab\":3,\"s\":4,\"'\":5,\"1\":6,\"11\":7}"

static const char *vocab_folder(const char *config, const char *merges)
{
    const char *folder = new_folder();

    write_text(folder, "vocab.json", VOCAB);
    if (merges)
        write_text(folder, "merges.txt", merges);
    if (config)
        write_text(folder, "tokenizer_config.json", config);
    return folder;
}

START_TEST(the_class_tells_how_words_are_cut)
{
    static const struct {
        const char *config, *text, *ids;
    } cases[] = {{"{\"tokenizer_class\":\"Qwen2Tokenizer\"}", "ab 11", "3 2 6 6"},
                 {"{\"tokenizer_class\":\"Qwen2TokenizerFast\"}", "11", "6 6"},
                 {"{\"tokenizer_class\":\"GPT2Tokenizer\"}", "ab 11", "3 2 7"},
                 {"{\"tokenizer_class\":\"GPT2Tokenizer\",\"add_prefix_space\":true}", "ab", "2 3"},
                 {"{\"tokenizer_class\":\"GPT2TokenizerFast\",\"eos_token\":\"b\"}", "ab", "0 1"}};
    struct mmqi_tokenizer *tokenizer;

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *folder = vocab_folder(cases[i].config, "#version: 0.2\r\na b\r\n\n1 1");

        ck_assert_msg(open_folder(&tokenizer, folder) == MMQ_OK, "%s", mmqi_message());
        expect_ids(tokenizer, cases[i].text, cases[i].ids);
        mmqi_tokenizer_free(tokenizer);
        remove_folder(folder);
    }
}
END_TEST

START_TEST(what_a_vocabulary_alone_does_not_tell_is_refused)
{
    static const char qwen2[] = "{\"tokenizer_class\":\"Qwen2Tokenizer\"}";
    const char *folder;

    refuse_folder(new_folder(), MMQ_ERR_NOT_FOUND, "/", "none of tokenizer.json");
    refuse_folder(vocab_folder(NULL, "a b\n"), MMQ_ERR_FORMAT, "tokenizer_config.json",
                  "'tokenizer_class'");
    refuse_folder(vocab_folder("{\"tokenizer_class\":\"RobertaTokenizer\"}", "a b\n"),
                  MMQ_ERR_UNSUPPORTED, "tokenizer_config.json", "'RobertaTokenizer'");
    refuse_folder(vocab_folder("{\"tokenizer_class\":7}", "a b\n"), MMQ_ERR_FORMAT,
                  "tokenizer_config.json", "tokenizer_class");
    refuse_folder(
        vocab_folder("{\"tokenizer_class\":\"GPT2Tokenizer\",\"add_bos_token\":true}", "a b\n"),
        MMQ_ERR_UNSUPPORTED, "tokenizer_config.json", "'add_bos_token'");
    refuse_folder(vocab_folder(qwen2, NULL), MMQ_ERR_NOT_FOUND, "merges.txt", "");
    refuse_folder(vocab_folder(qwen2, "a b c\n"), MMQ_ERR_FORMAT, "merges.txt", "not two tokens");
    refuse_folder(vocab_folder(qwen2, "a q\n"), MMQ_ERR_FORMAT, "merges.txt", "'q'");
    refuse_folder(vocab_folder(qwen2, "a \xFF\n"), MMQ_ERR_FORMAT, "merges.txt", "UTF-8");
    refuse_folder(vocab_folder("[]", "a b\n"), MMQ_ERR_FORMAT, "tokenizer_config.json", "object");
    folder = vocab_folder(qwen2, "a b\n");
    write_text(folder, "vocab.json", "[\"a\"]");
    refuse_folder(folder, MMQ_ERR_FORMAT, "vocab.json", "not an object");
    folder = vocab_folder(qwen2, "a b\n");
    write_text(folder, "vocab.json", "{\"a\":0,\"b\":1,\"ab\":0}");
    refuse_folder(folder, MMQ_ERR_FORMAT, "vocab.json", "'a' and 'ab'");
}
END_TEST

/* ---- what is added ---- */

#define LETTERS                                                                                    \
    "\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1,\"<\":2,\">\":3,\"x\":4,\"y\":5,"      \
    "\" \":6,\"!\":7},\"merges\":[]}"
#define X(flags) "{\"content\":\"<x>\"" flags "}"
#define ADDED(flags) "\"added_tokens\":[{\"id\":8,\"content\":\"<x>\"" flags "}],"
#define LISTED(id, flags) "{\"added_tokens_decoder\":{\"" id "\":" X(flags) "}}"

static const char *json_folder(const char *added, const char *config, const char *legacy,
                               const char *map)
{
    const char *folder = new_folder();

    write_text(folder, "tokenizer.json", support_text("{%s" LETTERS "}", added));
    write_text(folder, "tokenizer_config.json", config);
    if (legacy)
        write_text(folder, "added_tokens.json", legacy);
    if (map)
        write_text(folder, "special_tokens_map.json", map);
    return folder;
}

/* As transformers 5.17 answers in the same folder. */
START_TEST(listed_and_named_tokens_are_added_as_transformers_adds_them)
{
    static const struct {
        const char *added, *config, *legacy, *map, *ids, *special;
    } cases[] = {
        {ADDED(""), LISTED("8", ",\"special\":true,\"lstrip\":true"), NULL, NULL, "0 8 6 1 2 5 3 7",
         "<x>"},
        {"", LISTED("8", ",\"special\":true"), NULL, NULL, "0 6 8 6 1 2 5 3 7", "<x>"},
        {"", LISTED("8", ""), NULL, NULL, "0 6 8 6 1 2 5 3 7", ""},
        {"", "{\"pad_token\":\"!\"}", NULL, NULL, "0 6 2 4 3 6 1 2 5 3 7", "!"},
        {"", "{\"eos_token\":\"<x>\",\"pad_token\":\"<y>\"}", NULL, NULL, "0 6 8 6 1 9 7",
         "<x><y>"},
        {"", "{\"additional_special_tokens\":[\"<x>\",\"<y>\"]}", NULL, NULL, "0 6 8 6 1 9 7",
         "<x><y>"},
        {"", "{\"image_token\":\"<x>\"}", NULL, NULL, "0 6 8 6 1 2 5 3 7", "<x>"},
        {"", "{\"extra_special_tokens\":{\"image_token\":\"<x>\"}}", NULL, NULL,
         "0 6 8 6 1 2 5 3 7", "<x>"},
        {"", "{}", "{\"<x>\":8,\"<y>\":9}", "{\"eos_token\":\"<y>\"}", "0 6 8 6 1 9 7", "<y>"},
        {"", "{\"eos_token\":\"<y>\"}", "{\"<x>\":8,\"<y>\":9}", NULL, "0 6 8 6 1 9 7", "<y>"},
        {"", "{}", NULL, "{\"eos_token\":" X(",\"lstrip\":true") "}", "0 8 6 1 2 5 3 7", "<x>"},
        {"", "{\"eos_token\":" X(",\"lstrip\":true") "}", NULL, NULL, "0 8 6 1 2 5 3 7", "<x>"},
        {ADDED(",\"lstrip\":true"), "{\"eos_token\":\"<x>\"}", NULL, NULL, "0 8 6 1 2 5 3 7",
         "<x>"},
        {ADDED(",\"lstrip\":true"), "{\"additional_special_tokens\":[\"<x>\"]}", NULL, NULL,
         "0 8 6 1 2 5 3 7", ""},
        {ADDED(""), "{\"eos_token\":null,\"chat_template\":\"x_token\",\"add_bos_token\":false}",
         NULL, NULL, "0 6 8 6 1 2 5 3 7", ""},
    };
    struct mmqi_tokenizer *tokenizer;
    char special[64];

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *folder =
            json_folder(cases[i].added, cases[i].config, cases[i].legacy, cases[i].map);

        ck_assert_msg(open_folder(&tokenizer, folder) == MMQ_OK, "%zu: %s", i, mmqi_message());
        expect_ids(tokenizer, "a <x> b<y>!", cases[i].ids);
        special[0] = '\0';
        for (int32_t id = 0; id < mmqi_tokenizer_vocab_size(tokenizer); id++)
            if (mmqi_tokenizer_is_special(tokenizer, id))
                strcat(special, mmqi_tokenizer_content(tokenizer, id));
        ck_assert_str_eq(special, cases[i].special);
        mmqi_tokenizer_free(tokenizer);
        remove_folder(folder);
    }
}
END_TEST

START_TEST(files_that_contradict_are_refused_by_file_and_key)
{
    static const char config[] = "tokenizer_config.json", key[] = "added_tokens_decoder";

    refuse_folder(json_folder(ADDED(""), LISTED("9", ""), NULL, NULL), MMQ_ERR_FORMAT, config,
                  "added_tokens_decoder: '<x>' has id 9, in the tokenizer 8");
    refuse_folder(json_folder("", LISTED("3", ""), NULL, NULL), MMQ_ERR_FORMAT, config,
                  "'<x>' has the id 3 of '>'");
    refuse_folder(json_folder(ADDED(""), "{\"added_tokens_decoder\":{\"8\":{\"content\":\"<y>\"}}}",
                              NULL, NULL),
                  MMQ_ERR_FORMAT, config, "'<y>'");
    refuse_folder(json_folder("", LISTED("-1", ""), NULL, NULL), MMQ_ERR_FORMAT, config, key);
    refuse_folder(json_folder("", LISTED("x", ""), NULL, NULL), MMQ_ERR_FORMAT, config, "'x'");
    refuse_folder(json_folder("", LISTED("99999999999", ""), NULL, NULL), MMQ_ERR_FORMAT, config,
                  key);
    refuse_folder(json_folder("", LISTED("999999999", ""), NULL, NULL), MMQ_ERR_FORMAT, config,
                  "999999999");
    refuse_folder(json_folder("", LISTED("8", ",\"special\":1"), NULL, NULL), MMQ_ERR_FORMAT,
                  config, "bool");
    refuse_folder(json_folder("", "{\"added_tokens_decoder\":[]}", NULL, NULL), MMQ_ERR_FORMAT,
                  config, key);
    refuse_folder(json_folder("", "{\"added_tokens_decoder\":{\"8\":\"<x>\"}}", NULL, NULL),
                  MMQ_ERR_FORMAT, config, key);
    refuse_folder(json_folder("", "{\"additional_special_tokens\":7}", NULL, NULL), MMQ_ERR_FORMAT,
                  config, "additional_special_tokens");
    refuse_folder(json_folder("", "{\"eos_token\":{\"lstrip\":true}}", NULL, NULL), MMQ_ERR_FORMAT,
                  config, "content");
    refuse_folder(json_folder("", "{}", "{\"<x>\":0}", NULL), MMQ_ERR_FORMAT, "added_tokens.json",
                  "'<x>' has the id 0 of 'a'");
    refuse_folder(json_folder("", "{}", "{\"<x>\":\"8\"}", NULL), MMQ_ERR_FORMAT,
                  "added_tokens.json", "number");
    refuse_folder(json_folder("", "{}", "{\"<x>\":-8}", NULL), MMQ_ERR_FORMAT, "added_tokens.json",
                  "negative");
    refuse_folder(json_folder("", "{}", "[]", NULL), MMQ_ERR_FORMAT, "added_tokens.json", "object");
    refuse_folder(json_folder("", "{}", NULL, "7"), MMQ_ERR_FORMAT, "special_tokens_map.json",
                  "object");
}
END_TEST

/* Open the folder with a number of allocations; true when that was enough. */
static bool open_with(struct scarce *scarce, const char *folder)
{
    struct mmqi_tokenizer *tokenizer = NULL;
    struct mmqi_store *store = NULL;
    int32_t status = mmqi_store_open_folder(&store, folder);

    if (status == MMQ_OK)
        status = mmqi_tokenizer_open(&tokenizer, store);
    if (status == MMQ_OK) {
        ck_assert_int_eq(mmqi_tokenizer_id(tokenizer, "<z>"), 9);
        ck_assert_int_eq(mmqi_tokenizer_id(tokenizer, "<y>"), 10);
    }
    mmqi_tokenizer_free(tokenizer);
    mmqi_store_release(store);
    ck_assert(status == MMQ_OK || status == MMQ_ERR_NOMEM);
    ck_assert_uint_eq(scarce->live, 0);
    return status == MMQ_OK;
}

START_TEST(a_refused_allocation_is_a_status_and_leaks_nothing)
{
    const char *folders[2];
    char paths[2][64];

    strcpy(paths[0], vocab_folder("{\"tokenizer_class\":\"Qwen2Tokenizer\",\"eos_token\":\"<y>\"}",
                                  "a b\n1 1\n"));
    write_text(paths[0], "added_tokens.json", "{\"<z>\":9}");
    strcpy(paths[1], json_folder(ADDED(""), "{\"eos_token\":\"<y>\"}", "{\"<z>\":9}",
                                 "{\"pad_token\":\"!\"}"));
    for (int k = 0; k < 2; k++) {
        bool enough = false;
        size_t n;

        folders[k] = paths[k];
        for (n = 0; !enough && n < 10000; n++) {
            struct scarce scarce = {.left = n};
            struct mmqi_mem_hooks hooks = {scarce_alloc, scarce_free, &scarce};

            mmqi_mem_enter(&hooks);
            enough = open_with(&scarce, folders[k]);
            mmqi_mem_enter(NULL);
        }
        ck_assert(enough);
        ck_assert_uint_gt(n, 20);
        remove_folder(folders[k]);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("tokenizer_folder");
    TCase *tests = tcase_create("all");
    SRunner *runner;
    int failed;

    tcase_set_timeout(tests, 60);
    tcase_add_test(tests, vocabulary_and_merges_give_what_tokenizer_json_gives);
    tcase_add_test(tests, so_do_those_of_the_real_tokenizer);
    tcase_add_test(tests, the_class_tells_how_words_are_cut);
    tcase_add_test(tests, what_a_vocabulary_alone_does_not_tell_is_refused);
    tcase_add_test(tests, listed_and_named_tokens_are_added_as_transformers_adds_them);
    tcase_add_test(tests, files_that_contradict_are_refused_by_file_and_key);
    tcase_add_test(tests, a_refused_allocation_is_a_status_and_leaks_nothing);
    suite_add_tcase(suite, tests);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed > 0;
}
