/* src/text: tokenizer.json against what the tokenizers library makes of the same strings. */
#include <jansson.h>
#include <utf8proc.h>

#include "tokenizing.h"

#include "core/utf8.h"
#include "text/mark.h"
#include "text/stage.h"
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
    char *found = encode_text(tokenizer, json_string_value(text), json_string_length(text), flags);

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

    expect_text(tokenizer, ids, n, skip_special, json_string_value(text), json_string_length(text));
    free(ids);
}

/* Every vector under `key` of a file; they have the form of ../shared/golden/tokenizer. */
static size_t check_vectors(const struct mmqi_tokenizer *tokenizer, const char *path,
                            const char *key)
{
    json_t *root = json_load_file(path, JSON_ALLOW_NUL, NULL), *vector;
    size_t i;

    ck_assert_ptr_nonnull(root);
    json_array_foreach(json_object_get(root, key), i, vector)
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

    ck_assert_uint_eq(check_vectors(tokenizer, vectors, "strings"), 127);
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
        SKIP("build/tokenizers/llama2/tokenizer.json is absent; make makes it where it can");
    run_vectors(tokenizer, vectors);
}
END_TEST

/* Files beside the checkout, unpacked by make: NFC, patterns, merges that are ignored. */
static const char *const packed[] = {"qwen2_5", "minicpm_v4_5", "llama3_2", "mistral_nemo"};

START_TEST(all_vectors_of_the_packed_tokenizers_hold)
{
    const char *vectors = shared_path(support_text("golden/tokenizer/%s.json", packed[_i]));
    const char *tokenizer =
        source_path(support_text("build/tokenizers/%s/tokenizer.json", packed[_i]));
    FILE *file = fopen(tokenizer, "rb");

    if (file)
        fclose(file);
    if (!file || !vectors)
        SKIP("build/tokenizers/%s is absent; make unpacks it where it can", packed[_i]);
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
        check_encoded(tokenizer, json_object_get(prompt, "rendered"), expected, MMQI_TOKENIZE_POST);
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

static struct mmqi_tokenizer *load_tiny(const char *name)
{
    struct mmqi_tokenizer *tokenizer =
        load_tokenizer(source_path(support_text("test/unit/data/tokenizer_%s.json", name)));

    ck_assert_ptr_nonnull(tokenizer);
    return tokenizer;
}

START_TEST(our_own_tokenizers_give_what_the_tokenizers_library_gives)
{
    static const char *const names[] = {"bytes", "pieces", "scores", "spelled", "cut"};
    size_t i;

    for (i = 0; i < sizeof names / sizeof *names; i++) {
        struct mmqi_tokenizer *tokenizer = load_tiny(names[i]);

        ck_assert_uint_eq(check_vectors(tokenizer,
                                        source_path("test/unit/data/tokenizer_vectors.json"),
                                        names[i]),
                          56);
        mmqi_tokenizer_free(tokenizer);
    }
}
END_TEST

START_TEST(tokens_are_known_by_content_and_by_id)
{
    struct mmqi_tokenizer *pieces = load_tiny("pieces");
    int32_t image = mmqi_tokenizer_id(pieces, "<image>");

    ck_assert_int_eq(mmqi_tokenizer_vocab_size(pieces), image + 4);
    ck_assert_int_eq(mmqi_tokenizer_id(pieces, "<s>"), 1);
    ck_assert_int_eq(mmqi_tokenizer_id(pieces, "<0x0A>"), 13);
    ck_assert_int_eq(mmqi_tokenizer_id(pieces, "no such token"), -1);
    ck_assert_str_eq(mmqi_tokenizer_content(pieces, image), "<image>");
    ck_assert_str_eq(mmqi_tokenizer_content(pieces, mmqi_tokenizer_id(pieces, "▁the")), "▁the");
    ck_assert_ptr_null(mmqi_tokenizer_content(pieces, image + 4));
    ck_assert_ptr_null(mmqi_tokenizer_content(pieces, -1));
    ck_assert(mmqi_tokenizer_is_special(pieces, image));
    ck_assert(!mmqi_tokenizer_is_special(pieces, image + 2)); /* <mask> */
    ck_assert(!mmqi_tokenizer_is_special(pieces, 13));
    ck_assert(!mmqi_tokenizer_is_special(pieces, -1));
    ck_assert(!mmqi_tokenizer_is_special(pieces, INT32_MAX));
    mmqi_tokenizer_free(pieces);
}
END_TEST

START_TEST(special_tokens_stay_text_where_the_caller_says_so)
{
    struct mmqi_tokenizer *bytes = load_tiny("bytes");
    char *ids = encode_text(bytes, "<|end|><mask>", 13, MMQI_TOKENIZE_PLAIN);
    const char *expected = support_text("61 125 102 111 101 125 63 %d", /* the seven letters */
                                        (int)mmqi_tokenizer_id(bytes, "<mask>"));

    ck_assert_str_eq(ids, expected);
    free(ids);
    ids = encode_text(bytes, "<|end|>", 7, 0);
    ck_assert_str_eq(ids, "0");
    free(ids);
    mmqi_tokenizer_free(bytes);
}
END_TEST

START_TEST(bytes_that_are_not_utf8_are_read_as_replacement_characters)
{
    static const struct {
        const char *text, *same_as;
    } cases[] = {{"a\xFFz", "a\xEF\xBF\xBDz"},
                 {"\xE2\x82", "\xEF\xBF\xBD"},
                 {"\xE2\x82\xE2\x82\xAC", "\xEF\xBF\xBD\xE2\x82\xAC"},
                 {"\xC0\x80", "\xEF\xBF\xBD\xEF\xBF\xBD"},
                 {"\xED\xA0\x80", "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD"},
                 {"\xF0\x9F\x98 \xF5", "\xEF\xBF\xBD \xEF\xBF\xBD"},
                 {"\xF4\x90\x80\x80", "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD"}};
    struct mmqi_tokenizer *pieces = load_tiny("pieces");
    size_t i;

    for (i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *ids = encode_text(pieces, cases[i].same_as, strlen(cases[i].same_as), 0);

        expect_ids(pieces, cases[i].text, ids);
        free(ids);
    }
    mmqi_tokenizer_free(pieces);
}
END_TEST

START_TEST(ids_are_appended_and_a_refused_text_leaves_them_alone)
{
    struct mmqi_tokenizer
        *pieces = load_tiny("pieces"),
        *lost = parse_tokenizer(
            "{\"model\":{\"type\":\"BPE\",\"unk_token\":\"?\",\"vocab\":{\"a\":0},\"merges\":[]}}");
    struct mmqi_ids ids = {0};

    ck_assert_int_eq(mmqi_tokenizer_encode(pieces, &ids, "the", 3, MMQI_TOKENIZE_POST), MMQ_OK);
    ck_assert_int_eq(mmqi_tokenizer_encode(pieces, &ids, "the", 3, 0), MMQ_OK);
    ck_assert_uint_eq(ids.n, 3);
    ck_assert_int_eq(ids.data[0], 1);
    ck_assert_int_eq(ids.data[1], ids.data[2]);
    ck_assert_int_eq(mmqi_tokenizer_encode(lost, &ids, "aab", 3, 0), MMQ_ERR_FORMAT);
    ck_assert_uint_eq(ids.n, 3);
    mmqi_free(ids.data);
    mmqi_tokenizer_free(pieces);
    mmqi_tokenizer_free(lost);
}
END_TEST

/* Feed one id and compare what becomes final. */
static void expect_piece(struct mmqi_decoder *decoder, int32_t id, const char *expected)
{
    const char *text;
    size_t size;

    ck_assert_int_eq(id >= 0 ? mmqi_decoder_feed(decoder, id, &text, &size)
                             : mmqi_decoder_finish(decoder, &text, &size),
                     MMQ_OK);
    ck_assert_str_eq(text, expected);
    ck_assert_uint_eq(size, strlen(expected));
}

START_TEST(a_stream_of_byte_letters_gives_out_whole_characters_only)
{
    struct mmqi_tokenizer *bytes = load_tiny("bytes");
    struct mmqi_decoder *decoder = NULL;
    int round;

    ck_assert_int_eq(mmqi_decoder_create(&decoder, bytes, true), MMQ_OK);
    for (round = 0; round < 2; round++) { /* finishing makes it new */
        expect_piece(decoder, 1 + 'a', "a");
        expect_piece(decoder, 1 + 0xE2, "");
        expect_piece(decoder, 1 + 0x82, "");
        expect_piece(decoder, 0, ""); /* special, left out */
        expect_piece(decoder, 1 + 0xAC, "€");
        expect_piece(decoder, 1 + 0xE2, "");
        expect_piece(decoder, 1 + 0x82, "");
        expect_piece(decoder, 1 + 'b',
                     "\xEF\xBF\xBD"
                     "b");
        expect_piece(decoder, 1 + 0xFF, "\xEF\xBF\xBD");
        expect_piece(decoder, 1 + 0xF0, "");
        expect_piece(decoder, 1000000, "");
        expect_piece(decoder, -1, "\xEF\xBF\xBD");
    }
    mmqi_decoder_free(decoder);
    mmqi_tokenizer_free(bytes);
}
END_TEST

START_TEST(a_run_of_byte_tokens_waits_for_its_end_and_is_text_or_one_mark_per_byte)
{
    struct mmqi_tokenizer *pieces = load_tiny("pieces");
    struct mmqi_decoder *decoder = NULL;
    int32_t the = mmqi_tokenizer_id(pieces, "▁the");

    ck_assert_int_eq(mmqi_decoder_create(&decoder, pieces, false), MMQ_OK);
    expect_piece(decoder, the, "the"); /* the first space goes */
    expect_piece(decoder, 3 + 0xE2, "");
    expect_piece(decoder, 3 + 0x82, "");
    expect_piece(decoder, 3 + 0xAC, "");
    expect_piece(decoder, the, "€ the");
    expect_piece(decoder, 3 + 0xE2, "");
    expect_piece(decoder, 3 + 0x82, "");
    expect_piece(decoder, 3 + 0xAC, "");
    expect_piece(decoder, 3 + 0x8B, "");
    expect_piece(decoder, -1, "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD");
    mmqi_decoder_free(decoder);
    mmqi_tokenizer_free(pieces);
}
END_TEST

/* A tokenizer of single letters with what `more` adds at the top level. */
static struct mmqi_tokenizer *letters(const char *more, const char *model)
{
    return parse_tokenizer(support_text("{%s\"model\":{\"type\":\"BPE\",%s\"vocab\":{\"<u>\":0,"
                                        "\"a\":1,\"b\":2,\"c\":3,\" \":4,\"ab\":5,\"<0x78>\":6,"
                                        "\"abc\":7},\"merges\":[[\"a\",\"b\"],[\"ab\",\"c\"]]}}",
                                        more, model));
}

START_TEST(unknown_characters_follow_the_settings_of_the_model)
{
    static const struct {
        const char *model, *text, *ids;
    } cases[] = {{"", "aqb", "5"}, /* without an unknown token it vanishes */
                 {"\"unk_token\":\"<u>\",", "aqqb", "1 0 0 2"},
                 {"\"unk_token\":\"<u>\",\"fuse_unk\":true,", "aqqb", "1 0 2"},
                 {"\"unk_token\":\"<u>\",\"byte_fallback\":true,", "axq", "1 6 0"},
                 {"\"unk_token\":\"<u>\",\"byte_fallback\":true,", "qxa", "6 0 1"},
                 {"\"unk_token\":\"<u>\",\"byte_fallback\":false,", "x", "0"},
                 {"\"byte_fallback\":true,", "é", ""},
                 {"\"ignore_merges\":false,", "ab", "5"}};
    size_t i;

    for (i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct mmqi_tokenizer *tokenizer = letters("", cases[i].model);

        expect_ids(tokenizer, cases[i].text, cases[i].ids);
        mmqi_tokenizer_free(tokenizer);
    }
}
END_TEST

START_TEST(ignore_merges_takes_a_word_that_is_a_token_as_it_is)
{
    struct mmqi_tokenizer *plain =
        parse_tokenizer("{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,"
                        "\"b\":1,\"ab\":2},\"merges\":[]}}");
    struct mmqi_tokenizer *whole =
        parse_tokenizer("{\"model\":{\"type\":\"BPE\",\"ignore_merges\":true,\"vocab\":{\"a\":0,"
                        "\"b\":1,\"ab\":2},\"merges\":[]}}");

    expect_ids(plain, "ab", "0 1");
    expect_ids(whole, "ab", "2");
    expect_ids(whole, "aba", "0 1 0");
    mmqi_tokenizer_free(plain);
    mmqi_tokenizer_free(whole);
}
END_TEST

START_TEST(a_tokenizer_without_a_decoder_joins_tokens_with_spaces)
{
    struct mmqi_tokenizer *tokenizer = letters("", "");
    const int32_t ids[] = {1, 7, 99, 3};

    expect_text(tokenizer, ids, 4, false, "a abc c", 7);
    mmqi_tokenizer_free(tokenizer);
}
END_TEST

START_TEST(normalized_added_tokens_are_looked_for_in_the_normalized_text)
{
    struct mmqi_tokenizer *tokenizer =
        letters("\"normalizer\":{\"type\":\"Replace\",\"pattern\":{\"String\":\"x\"},\"content\":"
                "\"c\"},\"added_tokens\":[{\"id\":8,\"content\":\"bx\",\"normalized\":true},"
                "{\"id\":9,\"content\":\"axb\",\"normalized\":false}],",
                "");

    expect_ids(tokenizer, "bx", "8");
    expect_ids(tokenizer, "bc", "8");
    expect_ids(tokenizer, "axb", "9");
    expect_ids(tokenizer, "acb", "1 3 2");
    mmqi_tokenizer_free(tokenizer);
}
END_TEST

#define SPM                                                                                        \
    "{\"added_tokens\":[{\"id\":0,\"content\":\"<s>\",\"special\":true,\"normalized\":%s},"        \
    "{\"id\":9,\"content\":\"s>a\",\"special\":true}],"                                            \
    "\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"NFC\"},{\"type\":"         \
    "\"Prepend\","                                                                                 \
    "\"prepend\":\"▁\"},{\"type\":\"Replace\",\"pattern\":{\"String\":\" "                       \
    "\"},\"content\":\"▁\"}]},"                                                                  \
    "\"model\":{\"type\":\"BPE\",\"vocab\":{\"<s>\":0,\"▁\":1,\"<\":2,\"s\":3,\">\":4,\"a\":5,"  \
    "\"é\":6},\"merges\":[]}}"

/* Marked text, encoded as it is without marks but for the tokens that a mark is in. */
static void expect_marked(const struct mmqi_tokenizer *tokenizer, const char *text,
                          const char *expected)
{
    char *ids = encode_text(tokenizer, text, strlen(text), MMQI_TOKENIZE_MARKED);

    ck_assert_msg(strcmp(ids, expected) == 0, "'%s' gives %s, not %s", text, ids, expected);
    free(ids);
}

START_TEST(places_with_a_mark_are_no_added_tokens)
{
    struct mmqi_tokenizer *raw = parse_tokenizer(support_text(SPM, "false"));
    struct mmqi_tokenizer *normalized = parse_tokenizer(support_text(SPM, "true"));

    expect_marked(raw, "<s>", "0");
    expect_marked(raw, "<" MMQI_MARK "s>", "1 2 3 4");
    expect_marked(raw, "<s><" MMQI_MARK "s>", "0 1 2 3 4");
    expect_marked(raw, "<" MMQI_MARK "s><s>", "1 2 3 4 0");
    expect_marked(raw, "<" MMQI_MARK "s>a", "1 2 9"); /* only what is marked */
    expect_marked(raw, "<" MMQI_MARK "s" MMQI_MARK ">a", "1 2 3 4 5");
    expect_marked(raw, MMQI_MARK "a" MMQI_MARK MMQI_MARK, "1 5");
    expect_marked(raw, MMQI_MARK, "");
    /* The token that is looked for is "▁<s>", whose first character the text lacks. */
    expect_marked(normalized, "<s>", "0");
    expect_marked(normalized, "<" MMQI_MARK "s>", "1 2 3 4");
    expect_marked(normalized, "a <" MMQI_MARK "s> <s>", "1 5 1 2 3 4 0");
    expect_marked(normalized, "e\xCC\x81 <" MMQI_MARK "s>", "1 6 1 2 3 4");
    mmqi_tokenizer_free(raw);
    mmqi_tokenizer_free(normalized);
}
END_TEST

START_TEST(decoder_steps_work_in_any_order)
{
    static const struct {
        const char *steps, *text;
    } cases[] = {
        {"{\"type\":\"Fuse\"}", "aababca"},
        {"{\"type\":\"Strip\",\"content\":\"a\",\"start\":1,\"stop\":0}", "bbc"},
        {"{\"type\":\"Strip\",\"content\":\"a\",\"start\":1,\"stop\":1}", "bbc"},
        {"{\"type\":\"Fuse\"},{\"type\":\"Strip\",\"content\":\"a\",\"start\":1,\"stop\":1}",
         "ababc"},
        {"{\"type\":\"Replace\",\"pattern\":{\"String\":\"ba\"},\"content\":\"-\"}", "aababca"},
        {"{\"type\":\"Fuse\"},{\"type\":\"Replace\",\"pattern\":{\"String\":\"aba\"},"
         "\"content\":\"-\"}",
         "a-bca"},
        {"{\"type\":\"Fuse\"},{\"type\":\"ByteFallback\"},{\"type\":\"ByteLevel\"}", "aababca"}};
    const int32_t ids[] = {1, 5, 7, 1}; /* a ab abc a */
    size_t i;

    for (i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct mmqi_tokenizer *tokenizer = letters(
            support_text("\"decoder\":{\"type\":\"Sequence\",\"decoders\":[%s]},", cases[i].steps),
            "");

        expect_text(tokenizer, ids, 4, false, cases[i].text, strlen(cases[i].text));
        mmqi_tokenizer_free(tokenizer);
    }
}
END_TEST

/* The four forms, and the library's own way to them. */
static const struct {
    const char *type;
    utf8proc_uint8_t *(*make)(const utf8proc_uint8_t *text);
} forms[] = {
    {"NFC", utf8proc_NFC}, {"NFD", utf8proc_NFD}, {"NFKC", utf8proc_NFKC}, {"NFKD", utf8proc_NFKD}};

static void check_form(int form, const char *text, size_t size)
{
    const struct mmqi_stage stage = {.kind = &mmqi_normalizer_kinds[form]};
    utf8proc_uint8_t *expected = forms[form].make((const utf8proc_uint8_t *)text);
    struct mmqi_buf out = {0};

    ck_assert_str_eq(stage.kind->type, forms[form].type);
    stage.kind->normalize(&stage, &out, text, size);
    ck_assert_uint_eq(out.size, strlen((const char *)expected));
    ck_assert_mem_eq(out.data, expected, out.size);
    free(expected);
    mmqi_buf_free(&out);
}

/* Letters, marks of several classes, Hangul and characters that are never composed, at random. */
START_TEST(normal_forms_are_those_of_the_unicode_library)
{
    static const int32_t codes[] = {'a',    'o',    0xC5,   0x301,   0x323,  0x302,  0x327,  0x345,
                                    0x5B0,  0x3099, 0x304B, 0x1100,  0x1161, 0x11A8, 0xAC00, 0x958,
                                    0x4E2D, 0xFFFD, 0xFB01, 0x1D15E, 0x2126, 0x1E69, 0x1F82, 0x34F};
    uint32_t random = 1;

    for (int round = 0; round < 2000; round++) {
        char text[160] = "";
        size_t size = 0;

        for (int i = 0; i < 1 + round % 24; i++) {
            random = random * 1664525 + 1013904223;
            size += mmqi_utf8_encode(text + size,
                                     codes[(random >> 16) % (sizeof codes / sizeof *codes)]);
        }
        text[size] = '\0';
        check_form(_i, text, size);
    }
}
END_TEST

/* Each between a letter and a mark. */
START_TEST(every_character_has_the_normal_form_of_the_unicode_library)
{
    char text[4096 + 16] = "";
    size_t size = 0;

    for (int32_t code = 1; code <= 0x10FFFF; code++) {
        if (code == 0xD800)
            code = 0xE000; /* no characters */
        text[size++] = 'a';
        size += mmqi_utf8_encode(text + size, code);
        size += mmqi_utf8_encode(text + size, 0x301);
        text[size] = '\0';
        if (size < 4096 && code < 0x10FFFF)
            continue;
        check_form(_i, text, size);
        size = 0;
    }
}
END_TEST

/* What the definition says: of all neighbours, the pair of lowest rank, the leftmost of equals. */
static size_t merge_plainly(int32_t *ids, size_t n, const int32_t (*merges)[3], int32_t n_merges)
{
    for (int32_t rank = 0; rank < n_merges; rank++)
        for (size_t i = 0; i + 1 < n; i++) {
            if (ids[i] != merges[rank][0] || ids[i + 1] != merges[rank][1])
                continue;
            ids[i] = merges[rank][2];
            memmove(ids + i + 1, ids + i + 2, (n - i - 2) * sizeof *ids);
            n--;
            rank = -1; /* from the lowest rank again */
            break;
        }
    return n;
}

enum { N_LETTERS = 3, N_MERGES = 60 };

/* Merges of tokens that there are into names that are new. */
static void invent_merges(char names[][16], int32_t merges[][3], uint32_t *random)
{
    int32_t n_tokens = N_LETTERS, n = 0, left, right, i;
    char name[32];

    for (i = 0; i < N_LETTERS; i++)
        snprintf(names[i], sizeof names[i], "%c", 'a' + (int)i);
    while (n < N_MERGES) {
        *random = *random * 1664525 + 1013904223;
        left = (int32_t)((*random >> 10) % (uint32_t)n_tokens);
        right = (int32_t)((*random >> 20) % (uint32_t)n_tokens);
        snprintf(name, sizeof name, "%s%s", names[left], names[right]);
        for (i = 0; i < n_tokens && strcmp(names[i], name) != 0; i++)
            ;
        if (i < n_tokens || strlen(name) > 12)
            continue;
        strcpy(names[n_tokens], name);
        merges[n][0] = left;
        merges[n][1] = right;
        merges[n++][2] = n_tokens++;
    }
}

static struct mmqi_tokenizer *invent_tokenizer(char names[][16], int32_t merges[][3],
                                               uint32_t *random)
{
    char json[8192], *end = json;

    invent_merges(names, merges, random);
    end += sprintf(end, "{\"model\":{\"type\":\"BPE\",\"vocab\":{");
    for (int i = 0; i < N_LETTERS + N_MERGES; i++)
        end += sprintf(end, "%s\"%s\":%d", i ? "," : "", names[i], i);
    end += sprintf(end, "},\"merges\":[");
    for (int i = 0; i < N_MERGES; i++)
        end += sprintf(end, "%s\"%s %s\"", i ? "," : "", names[merges[i][0]], names[merges[i][1]]);
    sprintf(end, "]}}");
    return parse_tokenizer(json);
}

START_TEST(words_of_any_length_are_merged_as_the_definition_says)
{
    static int32_t merges[N_MERGES][3];
    static char names[N_LETTERS + N_MERGES][16];
    uint32_t random = 7;
    struct mmqi_tokenizer *tokenizer = invent_tokenizer(names, merges, &random);

    for (size_t length = 1; length < 120; length++) {
        int32_t ids[128];
        char text[128] = "", *expected;

        for (size_t i = 0; i < length; i++) {
            random = random * 1664525 + 1013904223;
            ids[i] = (int32_t)((random >> 16) % N_LETTERS);
            text[i] = (char)('a' + ids[i]);
        }
        expected = ids_text(ids, merge_plainly(ids, length, (const int32_t(*)[3])merges, N_MERGES));
        expect_ids(tokenizer, text, expected);
        free(expected);
    }
    mmqi_tokenizer_free(tokenizer);
}
END_TEST

START_TEST(utf8_parts_and_classes_are_those_of_unicode)
{
    size_t length;

    ck_assert_int_eq(mmqi_utf8_decode("\xF0\x9F\x98\x80", 4, &length), 0x1F600);
    ck_assert_uint_eq(length, 4);
    ck_assert_int_eq(mmqi_utf8_decode("\xF0\x9F\x98\x80", 3, &length), MMQI_UTF8_PARTIAL);
    ck_assert_uint_eq(length, 3);
    ck_assert_int_eq(mmqi_utf8_decode("\xF0\x9Fx", 3, &length), MMQI_UTF8_INVALID);
    ck_assert_uint_eq(length, 2);
    ck_assert_int_eq(mmqi_utf8_decode("\xF0\x80\x80\x80", 4, &length), MMQI_UTF8_INVALID);
    ck_assert_uint_eq(length, 1);
    ck_assert(mmqi_is_letter('Z') && mmqi_is_letter(0xAA) && mmqi_is_letter(0x4E2D));
    ck_assert(!mmqi_is_letter('[') && !mmqi_is_letter('@') && !mmqi_is_letter(0x301));
    ck_assert(mmqi_is_number('7') && mmqi_is_number(0xB2) && mmqi_is_number(0x2167));
    ck_assert(!mmqi_is_number('a') && !mmqi_is_number(0x2460 - 1));
    ck_assert(mmqi_is_space('\v') && mmqi_is_space(0x85) && mmqi_is_space(0x3000));
    ck_assert(!mmqi_is_space(0x200B) && !mmqi_is_space(0x180E) && !mmqi_is_space(0x1F));
    ck_assert(mmqi_is_word('_') && mmqi_is_word(0x301) && mmqi_is_word(0x200D));
    ck_assert(mmqi_is_word(0x24B6) && !mmqi_is_word(0xB2) && !mmqi_is_word('-'));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("tokenizer");
    TCase *tests = tcase_create("golden"), *own = tcase_create("own");
    SRunner *runner;
    int failed;

    tcase_set_timeout(tests, 60);
    tcase_add_test(tests, all_vectors_of_the_byte_level_tokenizer_hold);
    tcase_add_test(tests, all_vectors_of_the_llama2_tokenizer_hold);
    tcase_add_loop_test(tests, all_vectors_of_the_packed_tokenizers_hold, 0,
                        (int)(sizeof packed / sizeof *packed));
    tcase_add_test(tests, prompts_of_the_llava_cases_give_their_ids);
    suite_add_tcase(suite, tests);
    tcase_set_timeout(own, 30);
    tcase_add_test(own, our_own_tokenizers_give_what_the_tokenizers_library_gives);
    tcase_add_test(own, tokens_are_known_by_content_and_by_id);
    tcase_add_test(own, special_tokens_stay_text_where_the_caller_says_so);
    tcase_add_test(own, bytes_that_are_not_utf8_are_read_as_replacement_characters);
    tcase_add_test(own, ids_are_appended_and_a_refused_text_leaves_them_alone);
    tcase_add_test(own, a_stream_of_byte_letters_gives_out_whole_characters_only);
    tcase_add_test(own, a_run_of_byte_tokens_waits_for_its_end_and_is_text_or_one_mark_per_byte);
    tcase_add_test(own, unknown_characters_follow_the_settings_of_the_model);
    tcase_add_test(own, ignore_merges_takes_a_word_that_is_a_token_as_it_is);
    tcase_add_test(own, a_tokenizer_without_a_decoder_joins_tokens_with_spaces);
    tcase_add_test(own, normalized_added_tokens_are_looked_for_in_the_normalized_text);
    tcase_add_test(own, places_with_a_mark_are_no_added_tokens);
    tcase_add_test(own, decoder_steps_work_in_any_order);
    tcase_add_loop_test(own, normal_forms_are_those_of_the_unicode_library, 0, 4);
    tcase_add_loop_test(own, every_character_has_the_normal_form_of_the_unicode_library, 0, 4);
    tcase_add_test(own, words_of_any_length_are_merged_as_the_definition_says);
    tcase_add_test(own, utf8_parts_and_classes_are_those_of_unicode);
    suite_add_tcase(suite, own);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed > 0;
}
