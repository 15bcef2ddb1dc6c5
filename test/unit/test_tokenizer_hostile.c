/* src/text: tokenizer files that lie, and texts made to be slow. */
#include <time.h>

#include "tokenizing.h"

#include "core/os.h"
#include "text/mark.h"

/* The file must be refused with this status and a message that names the file and `said`. */
static void refuse_bytes(const char *text, size_t size, int32_t status, const char *said)
{
    struct mmqi_tokenizer *tokenizer = (struct mmqi_tokenizer *)1;
    int32_t found = mmqi_tokenizer_parse(&tokenizer, "bad.json", text, size);

    ck_assert_msg(found == status, "%.200s: status %d (%s), not %d", text, (int)found,
                  mmqi_message(), (int)status);
    ck_assert_ptr_null(tokenizer);
    ck_assert_msg(strstr(mmqi_message(), "bad.json"), "'%s' does not name the file",
                  mmqi_message());
    ck_assert_msg(strstr(mmqi_message(), said), "'%s' lacks '%s'", mmqi_message(), said);
}

static void refuse(const char *text, int32_t status, const char *said)
{
    refuse_bytes(text, strlen(text), status, said);
}

#define MODEL "\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1,\"ab\":2},\"merges\":[]}"

START_TEST(refuses_what_is_no_tokenizer)
{
    refuse("", MMQ_ERR_FORMAT, "");
    refuse("nul", MMQ_ERR_FORMAT, "");
    refuse("[]", MMQ_ERR_FORMAT, "object");
    refuse("{}", MMQ_ERR_FORMAT, "model");
    refuse("{" MODEL "} x", MMQ_ERR_FORMAT, "");
    refuse("{" MODEL, MMQ_ERR_FORMAT, "");
    refuse("{\"version\":\"2.0\"," MODEL "}", MMQ_ERR_UNSUPPORTED, "2.0");
    refuse("{" MODEL "," MODEL "}", MMQ_ERR_FORMAT, "model");
    refuse("{\"model\":null}", MMQ_ERR_FORMAT, "");
    refuse("{\"model\":{\"type\":\"WordPiece\"}}", MMQ_ERR_UNSUPPORTED, "WordPiece");
    refuse("{\"model\":{\"type\":\"BPE\",\"merges\":[]}}", MMQ_ERR_FORMAT, "vocab");
    refuse("{\"model\":{\"type\":\"BPE\",\"vocab\":[[\"a\",0]],\"merges\":[]}}", MMQ_ERR_FORMAT,
           "vocabulary");
}
END_TEST

START_TEST(refuses_settings_of_the_model_that_it_does_not_run)
{
    refuse("{\"model\":{\"type\":\"BPE\",\"dropout\":0.1,\"vocab\":{}}}", MMQ_ERR_UNSUPPORTED,
           "dropout");
    refuse("{\"model\":{\"type\":\"BPE\",\"end_of_word_suffix\":\"</w>\",\"vocab\":{}}}",
           MMQ_ERR_UNSUPPORTED, "end_of_word_suffix");
    refuse("{\"model\":{\"type\":\"BPE\",\"continuing_subword_prefix\":\"##\",\"vocab\":{}}}",
           MMQ_ERR_UNSUPPORTED, "continuing_subword_prefix");
    refuse("{\"model\":{\"type\":\"BPE\",\"fuse_unk\":1,\"vocab\":{}}}", MMQ_ERR_FORMAT, "bool");
}
END_TEST

static void refuse_model(const char *vocab, const char *merges, const char *said)
{
    refuse(
        support_text("{\"model\":{\"type\":\"BPE\",\"vocab\":{%s},\"merges\":%s}}", vocab, merges),
        MMQ_ERR_FORMAT, said);
}

START_TEST(refuses_ids_that_are_negative_huge_broken_or_there_twice)
{
    refuse_model("\"a\":-1", "[]", "-1");
    refuse_model("\"a\":4194304", "[]", "4194304");
    refuse_model("\"a\":99999999999999999999999", "[]", "");
    refuse_model("\"a\":1.5", "[]", "");
    refuse_model("\"a\":\"0\"", "[]", "number");
    refuse_model("\"a\":0,\"b\":0", "[]", "'a' and 'b'");
    refuse_model("\"a\":0,\"a\":1", "[]", "a");
}
END_TEST

START_TEST(refuses_merges_that_name_unknown_tokens_or_are_no_pairs)
{
    refuse_model("\"a\":0,\"ab\":1", "[\"a b\"]", "'b' is not in the vocabulary");
    refuse_model("\"b\":0,\"ab\":1", "[[\"a\",\"b\"]]", "'a' is not in the vocabulary");
    refuse_model("\"a\":0,\"b\":1", "[[\"a\",\"b\"]]", "'ab' is not in the vocabulary");
    refuse_model("\"a\":0", "[\"a\"]", "not two tokens");
    refuse_model("\"a\":0", "[\"a a a\"]", "not two tokens");
    refuse_model("\"a\":0", "[[\"a\"]]", "pair");
    refuse_model("\"a\":0,\"aa\":1", "[[\"a\",\"a\",\"a\"]]", "pair");
    refuse_model("\"a\":0", "[[]]", "pair");
    refuse_model("\"a\":0", "[3]", "pair");
    refuse_model("\"a\":0", "{}", "not an array");
    refuse_model("\"a\":0", "7", "");
}
END_TEST

static void refuse_section(const char *section, int32_t status, const char *said)
{
    refuse(support_text("{%s," MODEL "}", section), status, said);
}

START_TEST(refuses_unknown_stages_by_name_and_place)
{
    refuse_section("\"normalizer\":{\"type\":\"Nmt\"}", MMQ_ERR_UNSUPPORTED, "normalizer: 'Nmt'");
    refuse_section("\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":"
                   "\"Digits\",\"individual_digits\":true},{\"type\":\"Whitespace\"}]}",
                   MMQ_ERR_UNSUPPORTED, "pre_tokenizer.pretokenizers[1]: 'Whitespace'");
    refuse_section("\"post_processor\":{\"type\":\"BertProcessing\"}", MMQ_ERR_UNSUPPORTED,
                   "post_processor: 'BertProcessing'");
    refuse_section("\"decoder\":{\"type\":\"CTC\"}", MMQ_ERR_UNSUPPORTED, "decoder: 'CTC'");
    refuse_section("\"normalizer\":{\"type\":\"Replace\",\"pattern\":{\"Regex\":\"a+\"},"
                   "\"content\":\"\"}",
                   MMQ_ERR_UNSUPPORTED, "normalizer.pattern: 'Regex'");
    refuse_section("\"decoder\":{\"type\":\"Digits\"}", MMQ_ERR_UNSUPPORTED, "'Digits'");
}
END_TEST

START_TEST(refuses_stages_with_missing_or_wrong_fields)
{
    refuse_section("\"normalizer\":{}", MMQ_ERR_FORMAT, "'type'");
    refuse_section("\"normalizer\":[]", MMQ_ERR_FORMAT, "object");
    refuse_section("\"normalizer\":3", MMQ_ERR_FORMAT, "");
    refuse_section("\"normalizer\":{\"type\":7}", MMQ_ERR_FORMAT, "'type'");
    refuse_section("\"normalizer\":{\"type\":\"Prepend\"}", MMQ_ERR_FORMAT, "'prepend'");
    refuse_section("\"normalizer\":{\"type\":\"Sequence\"}", MMQ_ERR_FORMAT, "Sequence");
    refuse_section("\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":{}}", MMQ_ERR_FORMAT,
                   "array");
    refuse_section("\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[null]}", MMQ_ERR_FORMAT,
                   "object");
    refuse_section("\"normalizer\":{\"type\":\"Replace\",\"pattern\":{\"String\":\"\"},"
                   "\"content\":\"x\"}",
                   MMQ_ERR_FORMAT, "empty");
    refuse_section("\"pre_tokenizer\":{\"type\":\"Digits\",\"individual_digits\":\"yes\"}",
                   MMQ_ERR_FORMAT, "'individual_digits'");
    refuse_section("\"decoder\":{\"type\":\"Strip\",\"content\":\"ab\",\"start\":1,\"stop\":0}",
                   MMQ_ERR_FORMAT, "one character");
    refuse_section("\"decoder\":{\"type\":\"Strip\",\"content\":\" \",\"start\":-1,\"stop\":0}",
                   MMQ_ERR_FORMAT, "negative");
    refuse_section("\"decoder\":{\"type\":\"Strip\",\"content\":\" \",\"start\":0.5,\"stop\":0}",
                   MMQ_ERR_FORMAT, "'start'");
}
END_TEST

#define SPLIT(rest) "\"pre_tokenizer\":{\"type\":\"Split\"," rest "}"
#define METASPACE(rest) "{\"type\":\"Metaspace\"" rest "}"

START_TEST(refuses_ways_of_cutting_that_it_does_not_know)
{
    refuse_section(SPLIT("\"behavior\":\"Isolated\""), MMQ_ERR_FORMAT, "'pattern'");
    refuse_section(SPLIT("\"pattern\":{\"String\":\" \"}"), MMQ_ERR_FORMAT, "'behavior'");
    refuse_section(SPLIT("\"pattern\":{\"String\":\" \"},\"behavior\":\"Torn\""),
                   MMQ_ERR_UNSUPPORTED, "pre_tokenizer: 'Torn'");
    refuse_section(SPLIT("\"pattern\":{\"String\":\"\"},\"behavior\":\"Isolated\""), MMQ_ERR_FORMAT,
                   "pre_tokenizer.pattern: the pattern is empty");
    refuse_section(SPLIT("\"pattern\":{\"Glob\":\"*\"},\"behavior\":\"Isolated\""),
                   MMQ_ERR_UNSUPPORTED, "'Glob'");
    refuse_section(SPLIT("\"pattern\":{\"Regex\":\"(?<=a)b\"},\"behavior\":\"Isolated\""),
                   MMQ_ERR_UNSUPPORTED, "pre_tokenizer.pattern: Regex");
    refuse_section(SPLIT("\"pattern\":{\"String\":\"a\"},\"behavior\":\"Removed\",\"invert\":1"),
                   MMQ_ERR_FORMAT, "'invert'");
    refuse_section("\"pre_tokenizer\":" METASPACE(""), MMQ_ERR_FORMAT, "'replacement'");
    refuse_section("\"pre_tokenizer\":" METASPACE(",\"replacement\":\"ab\""), MMQ_ERR_FORMAT,
                   "one character");
    refuse_section("\"decoder\":" METASPACE(",\"replacement\":\"\""), MMQ_ERR_FORMAT,
                   "decoder: 'replacement'");
    refuse_section("\"decoder\":" METASPACE(",\"replacement\":\"_\",\"prepend_scheme\":\"last\""),
                   MMQ_ERR_UNSUPPORTED, "prepend_scheme 'last'");
    refuse_section("\"normalizer\":{\"type\":\"Strip\",\"strip_left\":0}", MMQ_ERR_FORMAT,
                   "'strip_left'");
}
END_TEST

static void refuse_unigram(const char *fields, int32_t status, const char *said)
{
    refuse(support_text("{\"model\":{\"type\":\"Unigram\",%s}}", fields), status, said);
}

START_TEST(refuses_pieces_without_scores_and_scores_without_pieces)
{
    refuse_unigram("\"unk_id\":0", MMQ_ERR_FORMAT, "vocab");
    refuse_unigram("\"unk_id\":0,\"vocab\":{\"a\":0}", MMQ_ERR_FORMAT, "Unigram");
    refuse_unigram("\"unk_id\":0,\"vocab\":7", MMQ_ERR_FORMAT, "vocabulary");
    refuse_unigram("\"vocab\":[[\"a\",0]]", MMQ_ERR_UNSUPPORTED, "unk_id");
    refuse_unigram("\"unk_id\":null,\"vocab\":[[\"a\",0]]", MMQ_ERR_UNSUPPORTED, "unk_id");
    refuse_unigram("\"unk_id\":1,\"vocab\":[[\"a\",0]]", MMQ_ERR_FORMAT, "unk_id 1");
    refuse_unigram("\"unk_id\":-1,\"vocab\":[[\"a\",0]]", MMQ_ERR_FORMAT, "unk_id -1");
    refuse_unigram("\"unk_id\":\"0\",\"vocab\":[[\"a\",0]]", MMQ_ERR_FORMAT, "unk_id");
    refuse_unigram("\"unk_id\":0,\"vocab\":[]", MMQ_ERR_FORMAT, "0 pieces");
    refuse_unigram("\"unk_id\":0,\"vocab\":[\"a\"]", MMQ_ERR_FORMAT, "model.vocab[0]");
    refuse_unigram("\"unk_id\":0,\"vocab\":[[\"a\",0],[\"b\"]]", MMQ_ERR_FORMAT, "model.vocab[1]");
    refuse_unigram("\"unk_id\":0,\"vocab\":[[\"a\",0,0]]", MMQ_ERR_FORMAT, "model.vocab[1]");
    refuse_unigram("\"unk_id\":0,\"vocab\":[[0,\"a\"]]", MMQ_ERR_FORMAT, "model.vocab[0]");
    refuse_unigram("\"unk_id\":0,\"vocab\":[[\"a\",1e300]]", MMQ_ERR_FORMAT, "no float");
    refuse_unigram("\"unk_id\":0,\"vocab\":[[\"a\",0],[\"a\",1]]", MMQ_ERR_FORMAT, "twice");
    refuse_unigram("\"unk_id\":0,\"byte_fallback\":true,\"vocab\":[[\"<0x00>\",0]]",
                   MMQ_ERR_UNSUPPORTED, "1 of the 256 bytes");
}
END_TEST

#define TEMPLATE "\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":"

START_TEST(refuses_templates_it_cannot_follow)
{
    refuse_section(TEMPLATE "[]}", MMQ_ERR_UNSUPPORTED, "'A' once");
    refuse_section(TEMPLATE "[{\"Sequence\":{\"id\":\"B\"}}]}", MMQ_ERR_UNSUPPORTED, "'A' once");
    refuse_section(TEMPLATE "[{\"Other\":{\"id\":\"B\"}}]}", MMQ_ERR_UNSUPPORTED, "SpecialToken");
    refuse_section(TEMPLATE "[{\"SpecialToken\":{\"id\":\"<s>\"}},{\"Sequence\":{\"id\":\"A\"}}]}",
                   MMQ_ERR_FORMAT, "<s>");
    refuse_section(TEMPLATE "[{\"SpecialToken\":{\"id\":\"<s>\"}},{\"Sequence\":{\"id\":\"A\"}}],"
                            "\"special_tokens\":{\"<s>\":{\"ids\":[77]}}}",
                   MMQ_ERR_FORMAT, "no token 77");
    refuse_section(TEMPLATE "[{\"SpecialToken\":{\"id\":\"<s>\"}},{\"Sequence\":{\"id\":\"A\"}}],"
                            "\"special_tokens\":{\"<s>\":{\"ids\":[-1]}}}",
                   MMQ_ERR_FORMAT, "out of range");
}
END_TEST

START_TEST(refuses_added_tokens_that_contradict_the_vocabulary)
{
    refuse_section("\"added_tokens\":[{\"id\":7,\"content\":\"a\"}]", MMQ_ERR_FORMAT, "'a'");
    refuse_section("\"added_tokens\":[{\"id\":1,\"content\":\"x\"}]", MMQ_ERR_FORMAT, "'x'");
    refuse_section("\"added_tokens\":[{\"id\":7,\"content\":\"x\"},{\"id\":7,\"content\":\"y\"}]",
                   MMQ_ERR_FORMAT, "'y'");
    refuse_section("\"added_tokens\":[{\"id\":7,\"content\":\"x\"},{\"id\":8,\"content\":\"x\"}]",
                   MMQ_ERR_FORMAT, "twice");
    refuse_section("\"added_tokens\":[{\"content\":\"x\"}]", MMQ_ERR_FORMAT, "-1");
    refuse_section("\"added_tokens\":[{\"id\":-7,\"content\":\"x\"}]", MMQ_ERR_FORMAT, "-7");
    refuse_section("\"added_tokens\":[{\"id\":2000000000,\"content\":\"x\"}]", MMQ_ERR_FORMAT,
                   "2000000000");
    refuse_section("\"added_tokens\":[{\"id\":3}]", MMQ_ERR_FORMAT, "content");
    refuse_section("\"added_tokens\":[3]", MMQ_ERR_FORMAT, "object");
    refuse_section("\"added_tokens\":{}", MMQ_ERR_FORMAT, "array");
}
END_TEST

/* Forty thousand bytes of a file, but a normalizer that writes a hundred for each of them. */
START_TEST(refuses_added_tokens_that_take_much_memory)
{
    size_t n = 40000;
    char *text = malloc(n + 2000), *end = text;

    end += sprintf(end,
                   "{\"normalizer\":{\"type\":\"Replace\",\"pattern\":{\"String\":\"q\"},"
                   "\"content\":\"%0100d\"},\"added_tokens\":[{\"id\":7,"
                   "\"normalized\":true,\"content\":\"",
                   0);
    memset(end, 'q', n);
    sprintf(end + n, "\"}]," MODEL "}");
    refuse(text, MMQ_ERR_LIMIT, "added token 7 of 4000000 bytes");
    free(text);
}
END_TEST

START_TEST(an_added_token_without_text_matches_nothing)
{
    struct mmqi_tokenizer *tokenizer =
        parse_tokenizer("{\"added_tokens\":[{\"id\":3,\"content\":\"\"}]," MODEL "}");

    expect_ids(tokenizer, "ab", "0 1");
    mmqi_tokenizer_free(tokenizer);
}
END_TEST

/* `open` times n, `middle`, `close` times n, as a section. */
static void refuse_nested(const char *open, size_t n, const char *middle, const char *close,
                          int32_t status)
{
    char *text = calloc(n * (strlen(open) + strlen(close)) + 4096, 1), *end = text;
    size_t i;

    end += sprintf(end, "{\"normalizer\":");
    for (i = 0; i < n; i++)
        end += sprintf(end, "%s", open);
    end += sprintf(end, "%s", middle);
    for (i = 0; i < n; i++)
        end += sprintf(end, "%s", close);
    sprintf(end, ",%s}", MODEL);
    refuse(text, status, "");
    free(text);
}

START_TEST(refuses_deep_nesting_and_long_lists)
{
    const char *prepend = "{\"type\":\"Prepend\",\"prepend\":\"x\"}";
    const char *open = "{\"type\":\"Sequence\",\"normalizers\":[";
    char *many = calloc(100, 100);
    size_t i;

    refuse_nested("[", 100000, "", "]", MMQ_ERR_FORMAT);
    refuse_nested(open, 20, prepend, "]}", MMQ_ERR_LIMIT);
    refuse_nested(open, 100000, prepend, "]}", MMQ_ERR_FORMAT);
    for (i = 0; i < 40; i++)
        strcat(strcat(many, i ? "," : ""), prepend);
    refuse_nested(open, 1, many, "]}", MMQ_ERR_LIMIT);
    free(many);
}
END_TEST

START_TEST(every_cut_and_every_changed_byte_of_a_file_is_survived)
{
    static const char *const names[] = {"bytes", "pieces", "scores", "spelled", "cut"};
    struct mmqi_tokenizer *tokenizer;
    struct mmqi_ids ids = {0};
    size_t size = 0, i, k, n_refused = 0;

    for (k = 0; k < sizeof names / sizeof *names; k++) {
        char *text = read_whole(
            source_path(support_text("test/unit/data/tokenizer_%s.json", names[k])), &size);

        for (i = 0; i + 2 < size; i += 61) /* not the closing line */
            refuse_bytes(text, i, MMQ_ERR_FORMAT, "");
        for (i = 0; i < size; i += 7) {
            char kept = text[i];

            text[i] = (char)(kept ^ (1 << i % 8));
            if (mmqi_tokenizer_parse(&tokenizer, "bad.json", text, size) == MMQ_OK) {
                ids.n = 0;
                mmqi_tokenizer_encode(tokenizer, &ids, "the dog <image> 12\xFF", 19,
                                      MMQI_TOKENIZE_POST);
                mmqi_tokenizer_free(tokenizer);
            } else {
                n_refused++;
            }
            text[i] = kept;
        }
        free(text);
    }
    mmqi_free(ids.data);
    ck_assert_uint_gt(n_refused, 1000);
}
END_TEST

/* ---- allocations that are refused ---- */

/* Load, encode and decode with a number of allocations; true when that was enough. */
static bool run_with(struct scarce *scarce, const char *text, size_t size)
{
    static const char input[] = "the dog <image> describes the photograph 12 \xFF <mask> \n";
    struct mmqi_tokenizer *tokenizer = NULL;
    struct mmqi_ids ids = {0};
    char *out = NULL;
    size_t out_size;
    int32_t status = mmqi_tokenizer_parse(&tokenizer, "t.json", text, size);

    if (status == MMQ_OK)
        status =
            mmqi_tokenizer_encode(tokenizer, &ids, input, sizeof input - 1, MMQI_TOKENIZE_POST);
    if (status == MMQ_OK) /* where \xFF is a mark */
        status =
            mmqi_tokenizer_encode(tokenizer, &ids, input, sizeof input - 1, MMQI_TOKENIZE_MARKED);
    if (status == MMQ_OK)
        status = mmqi_tokenizer_decode(tokenizer, &out, &out_size, ids.data, ids.n, false);
    mmqi_free(out);
    mmqi_free(ids.data);
    mmqi_tokenizer_free(tokenizer);
    ck_assert(status == MMQ_OK || status == MMQ_ERR_NOMEM);
    ck_assert_uint_eq(scarce->live, 0);
    return status == MMQ_OK;
}

START_TEST(a_refused_allocation_is_a_status_and_leaks_nothing)
{
    static const char *const names[] = {"bytes", "pieces", "scores", "spelled", "cut"};
    size_t size = 0, n, k;

    for (k = 0; k < sizeof names / sizeof *names; k++) {
        char *text = read_whole(
            source_path(support_text("test/unit/data/tokenizer_%s.json", names[k])), &size);
        bool enough = false;

        for (n = 0; !enough && n < 100000; n++) {
            struct scarce scarce = {.left = n};
            struct mmqi_mem_hooks hooks = {scarce_alloc, scarce_free, &scarce};

            mmqi_mem_enter(&hooks);
            enough = run_with(&scarce, text, size);
            mmqi_mem_enter(NULL);
        }
        ck_assert(enough);
        ck_assert_uint_gt(n, 50);
        free(text);
    }
}
END_TEST

/* ---- speed ---- */

enum { MEGABYTE = 1 << 20, N_TEXTS = 15 };

/* A megabyte of text number `which`; `name` says of what. */
static char *make_text(int which, const char **name)
{
    static const char *const names[N_TEXTS] = {
        "one letter",          "letters",        "spaces",        "one ideograph",
        "ideographs",          "digits",         "newlines",      "bytes that are no text",
        "any bytes",           "apostrophes",    "added tokens",  "starts of added tokens",
        "two letters in turn", "angle brackets", "cut characters"};
    static const char *const units[N_TEXTS] = {
        "a", "",  " ",       "\xE4\xB8\xAD", "",   "",  "\n",      "\xFF",
        "",  "'", "<image>", "<imag",        "ab", "<", "\xE2\x82"};
    char *text = malloc(MEGABYTE + 8);
    uint32_t random = 1, code;
    size_t at = 0;

    *name = names[which];
    while (at < MEGABYTE) {
        random = random * 1664525 + 1013904223;
        code = 0x4E00 + (random >> 16) % 20000;
        if (units[which][0] != '\0') {
            memcpy(text + at, units[which], strlen(units[which]));
            at += strlen(units[which]);
        } else if (which == 4) {
            text[at++] = (char)(0xE0 | code >> 12);
            text[at++] = (char)(0x80 | (code >> 6 & 63));
            text[at++] = (char)(0x80 | (code & 63));
        } else {
            text[at++] = (char)(which == 1   ? 'a' + (random >> 16) % 26
                                : which == 5 ? '0' + (random >> 16) % 10
                                             : random >> 24);
        }
    }
    return text;
}

static double seconds_of(const struct mmqi_tokenizer *tokenizer, const char *text, size_t size)
{
    clock_t begin = clock(); /* this process's own time: others are at work on the machine */
    struct mmqi_ids ids = {0};

    ck_assert_int_eq(mmqi_tokenizer_encode(tokenizer, &ids, text, size, 0), MMQ_OK);
    mmqi_free(ids.data);
    return (double)(clock() - begin) / CLOCKS_PER_SEC;
}

/* The best of a few, where the first is not good enough. */
static double best_seconds(const struct mmqi_tokenizer *tokenizer, const char *text, size_t size,
                           double enough)
{
    double best = seconds_of(tokenizer, text, size), next;
    int i;

    for (i = 0; i < 4 && best > enough; i++) {
        next = seconds_of(tokenizer, text, size);
        best = next < best ? next : best;
    }
    return best;
}

/* 0.3 s per megabyte in a release build (the Makefile defines SPEED_COUNTS); in any, no text may be
 * of another order. */
static void check_speed(const struct mmqi_tokenizer *tokenizer)
{
    const char *name;
    double whole, part;
    int i;

    for (i = 0; i < N_TEXTS; i++) {
        char *text = make_text(i, &name);

        part = best_seconds(tokenizer, text, MEGABYTE / 8, 0.01);
        whole = best_seconds(tokenizer, text, MEGABYTE, 0.2);
        ck_assert_msg(whole < 0.05 || whole < 30 * part, "%s: %.3f s, an eighth %.3f s", name,
                      whole, part);
        ck_assert_msg(!SPEED_COUNTS || whole < 0.3, "%s: %.3f s", name, whole);
        free(text);
    }
}

/* Our own, and the real ones, which make unpacks beside the checkout. */
static const char *const timed[] = {"bytes",  "pieces",       "scores",       "spelled",
                                    "cut",    "qwen2_5",      "minicpm_v4_5", "llama3_2",
                                    "llama2", "mistral_nemo", "llava_flickr"};

/* Folders without a tokenizer.json: our own ones, then real ones. */
static const char *const timed_folders[] = {
    "test/golden/tokenizers/sp_bpe_rules", "test/golden/tokenizers/sp_unigram",
    "build/tokenizers/pieces/llama2", "build/tokenizers/qwen_vl",
    "build/tokenizers/llama3_tiktoken"};

START_TEST(a_megabyte_of_anything_takes_linear_time_in_every_spelling)
{
    struct mmqi_tokenizer *tokenizer = open_tokenizer(source_path(timed_folders[_i]));

    if (!tokenizer)
        SKIP("%s is absent; make unpacks it where it can", timed_folders[_i]);
    check_speed(tokenizer);
    mmqi_tokenizer_free(tokenizer);
}
END_TEST

START_TEST(a_megabyte_of_anything_takes_linear_time)
{
    const char *own = source_path(support_text("test/unit/data/tokenizer_%s.json", timed[_i]));
    const char *real = source_path(support_text("build/tokenizers/%s/tokenizer.json", timed[_i]));
    struct mmqi_tokenizer *tokenizer = load_tokenizer(own);

    if (!tokenizer)
        tokenizer = load_tokenizer(real);
    if (!tokenizer)
        SKIP("build/tokenizers/%s is absent; make unpacks it where it can", timed[_i]);
    check_speed(tokenizer);
    mmqi_tokenizer_free(tokenizer);
}
END_TEST

/* A megabyte of what is marked everywhere, or looks like it. */
START_TEST(marks_are_put_and_taken_in_linear_time)
{
    static const char *const units[] = {"<image>", "<imag", "<", "<|end|>"};
    struct mmqi_tokenizer *tokenizer =
        load_tokenizer(source_path("test/unit/data/tokenizer_bytes.json"));
    const size_t n = strlen(units[_i]);
    char *text = calloc(MEGABYTE + 1, 1);
    const struct mmqi_chat_part part = {.text = text};
    const struct mmqi_chat_message message = {"user", &part, 1};
    const struct mmqi_chat_input input = {.messages = &message, .n_messages = 1};
    struct mmqi_marked marked = {0};
    struct mmqi_ids ids = {0};
    clock_t begin;
    double seconds;

    for (size_t at = 0; at + n <= MEGABYTE; at += n)
        memcpy(text + at, units[_i], n);
    begin = clock();
    ck_assert_int_eq(mmqi_mark_chat(&marked, tokenizer, NULL, &input), MMQ_OK);
    ck_assert_int_eq(mmqi_tokenizer_encode(tokenizer, &ids, marked.parts[0].text,
                                           strlen(marked.parts[0].text), MMQI_TOKENIZE_MARKED),
                     MMQ_OK);
    seconds = (double)(clock() - begin) / CLOCKS_PER_SEC;
    ck_assert_msg(seconds < (SPEED_COUNTS ? 0.3 : 5), "%.3f s", seconds);
    for (size_t i = 0; i < ids.n; i++)
        ck_assert(!mmqi_tokenizer_is_special(tokenizer, ids.data[i]));
    mmqi_marked_free(&marked);
    mmqi_free(ids.data);
    mmqi_tokenizer_free(tokenizer);
    free(text);
}
END_TEST

#define NFC                                                                                        \
    "{\"normalizer\":{\"type\":\"NFC\"},\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},"          \
    "\"merges\":[]}}"

/* Marks above and below out of order: every one has to pass all the others. */
START_TEST(marks_are_put_in_order_in_linear_time)
{
    struct mmqi_tokenizer *tokenizer = parse_tokenizer(NFC);
    char *text = malloc(MEGABYTE);
    double seconds;

    for (size_t at = 0; at < MEGABYTE; at += 2)
        memcpy(text + at, at < MEGABYTE / 2 ? "\xCC\x81" : "\xCC\xA3", 2);
    seconds = seconds_of(tokenizer, text, MEGABYTE);
    ck_assert_msg(seconds < 2.0, "halves: %.3f s", seconds);
    for (size_t at = 0; at < MEGABYTE; at += 2)
        memcpy(text + at, at % 4 ? "\xCC\x81" : "\xCC\xA3", 2);
    seconds = seconds_of(tokenizer, text, MEGABYTE);
    ck_assert_msg(seconds < 2.0, "in turn: %.3f s", seconds);
    free(text);
    mmqi_tokenizer_free(tokenizer);
}
END_TEST

/* Each match looks at all that is left and takes one letter. */
START_TEST(a_pattern_that_goes_over_a_text_again_and_again_is_stopped)
{
    struct mmqi_tokenizer *tokenizer = parse_tokenizer(
        "{\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"a[^b]*b|a\"},"
        "\"behavior\":\"Isolated\"},"
        "\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1},\"merges\":[]}}");
    char *text = malloc(MEGABYTE);
    struct mmqi_ids ids = {0};
    clock_t begin = clock();

    memset(text, 'a', MEGABYTE);
    ck_assert_int_eq(mmqi_tokenizer_encode(tokenizer, &ids, text, MEGABYTE, 0), MMQ_ERR_LIMIT);
    ck_assert_msg(strstr(mmqi_message(), "pattern"), "%s", mmqi_message());
    ck_assert_uint_eq(ids.n, 0);
    ck_assert_double_lt((double)(clock() - begin) / CLOCKS_PER_SEC, 40.0);
    text[MEGABYTE - 1] = 'b';
    ck_assert_int_eq(mmqi_tokenizer_encode(tokenizer, &ids, text, MEGABYTE, 0), MMQ_OK);
    ck_assert_uint_eq(ids.n, MEGABYTE);
    mmqi_free(ids.data);
    free(text);
    mmqi_tokenizer_free(tokenizer);
}
END_TEST

START_TEST(a_large_file_is_read_quickly)
{
    const char *path = shared_path("models/llava-flickr/tokenizer.json");
    size_t size = 0;
    char *text = read_whole(path, &size);
    struct mmqi_tokenizer *tokenizer;
    clock_t begin = clock();

    if (!text)
        SKIP("../shared/models/llava-flickr is absent");
    ck_assert_int_eq(mmqi_tokenizer_parse(&tokenizer, path, text, size), MMQ_OK);
    ck_assert(!SPEED_COUNTS || clock() - begin < CLOCKS_PER_SEC * 15 / 100);
    mmqi_tokenizer_free(tokenizer);
    free(text);
}
END_TEST

START_TEST(added_tokens_that_are_starts_of_each_other_are_found_in_linear_time)
{
    /* a..az of every length up to 600, over a text of 'a' that never ends one. */
    size_t n = 600, i, capacity = n * (n + 100);
    char *json = malloc(capacity), *end = json, *text = malloc(MEGABYTE);
    struct mmqi_tokenizer *tokenizer = NULL;

    end += sprintf(end, "{\"added_tokens\":[");
    for (i = 1; i <= n; i++) {
        end += sprintf(end, "%s{\"id\":%zu,\"content\":\"", i > 1 ? "," : "", i + 10);
        memset(end, 'a', i);
        end += i;
        end += sprintf(end, "z\"}");
    }
    sprintf(end, "]," MODEL "}");
    tokenizer = parse_tokenizer(json);
    memset(text, 'a', MEGABYTE);
    ck_assert_double_lt(seconds_of(tokenizer, text, MEGABYTE), 5);
    for (i = 0; i < MEGABYTE; i += 599)
        text[i] = 'z';
    ck_assert_double_lt(seconds_of(tokenizer, text, MEGABYTE), 5);
    mmqi_tokenizer_free(tokenizer);
    free(json);
    free(text);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("tokenizer_hostile");
    TCase *files = tcase_create("files"), *speed = tcase_create("speed");
    SRunner *runner;
    int failed;

    tcase_set_timeout(files, 30);
    tcase_add_test(files, refuses_what_is_no_tokenizer);
    tcase_add_test(files, refuses_settings_of_the_model_that_it_does_not_run);
    tcase_add_test(files, refuses_ids_that_are_negative_huge_broken_or_there_twice);
    tcase_add_test(files, refuses_merges_that_name_unknown_tokens_or_are_no_pairs);
    tcase_add_test(files, refuses_unknown_stages_by_name_and_place);
    tcase_add_test(files, refuses_stages_with_missing_or_wrong_fields);
    tcase_add_test(files, refuses_ways_of_cutting_that_it_does_not_know);
    tcase_add_test(files, refuses_pieces_without_scores_and_scores_without_pieces);
    tcase_add_test(files, refuses_templates_it_cannot_follow);
    tcase_add_test(files, refuses_added_tokens_that_contradict_the_vocabulary);
    tcase_add_test(files, refuses_added_tokens_that_take_much_memory);
    tcase_add_test(files, an_added_token_without_text_matches_nothing);
    tcase_add_test(files, refuses_deep_nesting_and_long_lists);
    tcase_add_test(files, every_cut_and_every_changed_byte_of_a_file_is_survived);
    tcase_add_test(files, a_refused_allocation_is_a_status_and_leaks_nothing);
    suite_add_tcase(suite, files);
    tcase_set_timeout(speed, 60);
    tcase_add_loop_test(speed, a_megabyte_of_anything_takes_linear_time, 0,
                        sizeof timed / sizeof *timed);
    tcase_add_loop_test(speed, a_megabyte_of_anything_takes_linear_time_in_every_spelling, 0,
                        sizeof timed_folders / sizeof *timed_folders);
    tcase_add_loop_test(speed, marks_are_put_and_taken_in_linear_time, 0, 4);
    tcase_add_test(speed, marks_are_put_in_order_in_linear_time);
    tcase_add_test(speed, a_pattern_that_goes_over_a_text_again_and_again_is_stopped);
    tcase_add_test(speed, a_large_file_is_read_quickly);
    tcase_add_test(speed, added_tokens_that_are_starts_of_each_other_are_found_in_linear_time);
    suite_add_tcase(suite, speed);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed > 0;
}
