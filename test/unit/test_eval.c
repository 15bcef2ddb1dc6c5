/* What mmq-eval does without a model: its JSON reader, its record, its arithmetic. */
#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The oracle's names of types are the programs' too. */
#define json_type jansson_type
#define JSON_OBJECT JANSSON_OBJECT
#define JSON_ARRAY JANSSON_ARRAY
#define JSON_STRING JANSSON_STRING
#define JSON_TRUE JANSSON_TRUE
#define JSON_FALSE JANSSON_FALSE
#define JSON_NULL JANSSON_NULL
#include <jansson.h>
#undef json_type
#undef JSON_OBJECT
#undef JSON_ARRAY
#undef JSON_STRING
#undef JSON_TRUE
#undef JSON_FALSE
#undef JSON_NULL

#include "../../examples/eval_figures.h"
#include "../../examples/eval_record.h"
#include "../../examples/json.h"
#include "support.h"

/* The programs' sources belong to no library. */
#include "../../examples/eval_figures.c"
#include "../../examples/json.c"
#include "../../examples/eval_record.c"

/* ---- JSON ------------------------------------------------------------------------------------ */

static bool reads(struct json_document *doc, const char *text)
{
    return json_read_text(doc, text, strlen(text));
}

START_TEST(json_reads_every_kind_of_value)
{
    struct json_document doc;
    const struct json_value *root, *item;

    ck_assert(
        reads(&doc, " {\"a\": [1, -2.5e1, true, false, null, \"x\"], \"b\": {}, \"c\": []}\n"));
    root = &doc.values[0];
    ck_assert_int_eq(root->type, JSON_OBJECT);
    ck_assert_uint_eq(root->n, 3);
    item = json_get(root, "a")->first;
    ck_assert_uint_eq(json_get(root, "a")->n, 6);
    ck_assert_double_eq(item->number, 1);
    item = item->next;
    ck_assert_double_eq(item->number, -25);
    item = item->next;
    ck_assert_int_eq(item->type, JSON_TRUE);
    item = item->next;
    ck_assert_int_eq(item->type, JSON_FALSE);
    item = item->next;
    ck_assert_int_eq(item->type, JSON_NULL);
    item = item->next;
    ck_assert_int_eq(item->type, JSON_STRING);
    ck_assert_str_eq(item->text, "x");
    ck_assert_ptr_null(item->next);
    ck_assert_int_eq(json_get(root, "b")->type, JSON_OBJECT);
    ck_assert_ptr_null(json_get(root, "b")->first);
    ck_assert_uint_eq(json_get(root, "c")->n, 0);
    ck_assert_ptr_null(json_get(root, "d"));
    ck_assert_ptr_null(json_get(json_get(root, "a"), "a"));
    json_free(&doc);
}
END_TEST

START_TEST(json_decodes_every_escape)
{
    struct json_document doc;

    ck_assert(
        reads(&doc, "\"\\\"\\\\\\/\\b\\f\\n\\r\\t\\u0041\\u00e9\\u20AC\\ud83d\\ude00\xC3\xA4\""));
    ck_assert_str_eq(doc.values[0].text,
                     "\"\\/\b\f\n\r\tA\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80\xC3\xA4");
    ck_assert_uint_eq(doc.values[0].n, strlen(doc.values[0].text));
    json_free(&doc);
}
END_TEST

static const char *const broken[] = {
    "",
    " ",
    "{",
    "[",
    "[1",
    "[1,",
    "[1,]",
    "[,1]",
    "[1 2]",
    "{\"a\"}",
    "{\"a\":}",
    "{\"a\":1,}",
    "{a:1}",
    "{\"a\":1 \"b\":2}",
    "[1}",
    "{\"a\":1]",
    "1 2",
    "]",
    "tru",
    "nul",
    "Null",
    "NaN",
    "Infinity",
    "-",
    "+1",
    "01",
    "-01",
    "1.",
    ".5",
    "1e",
    "1e+",
    "0x10",
    "1e999",
    "\"",
    "\"a",
    "\"\\",
    "\"\\x\"",
    "\"\\u12\"",
    "\"\\u12g4\"",
    "\"\\ud800\"",
    "\"\\ud800x\"",
    "\"\\ud800\\n\"",
    "\"\\ud800\\u0041\"",
    "\"\\udc00\"",
    "\"\\u0000\"",
    "\"\n\"",
    "\"\x80\"",
    "\"\xC0\x80\"",
    "\"\xC3\"",
    "\"\xED\xA0\x80\"",
    "\"\xF4\x90\x80\x80\"",
    "\"\xE2\x82\"",
    "\xEF\xBB\xBF 1",
    "{\"a\":1,\"a\":2}",
    "{\"a\":1,\"\\u0061\":2}",
    "[1]x",
    "/*c*/1",
    "'a'",
};

START_TEST(json_refuses_what_is_not_json_and_says_where)
{
    struct json_document doc;

    ck_assert_msg(!reads(&doc, broken[_i]), "read: %s", broken[_i]);
    ck_assert_int_eq(strncmp(doc.error, "byte ", 5), 0);
    ck_assert_ptr_null(doc.text);
    ck_assert_ptr_null(doc.values);
    json_free(&doc);
}
END_TEST

START_TEST(json_refuses_a_zero_byte_inside_the_text)
{
    struct json_document doc;

    ck_assert(!json_read_text(&doc, "[1\0]", 4));
    ck_assert(!json_read_text(&doc, "\"a\0b\"", 5));
    ck_assert(!json_read_text(&doc, "1\0", 2));
}
END_TEST

START_TEST(json_limits_depth_keys_and_size)
{
    struct json_document doc;
    char deep[2 * JSON_MOST_DEPTH + 3];
    char *keys = malloc(16 * (JSON_MOST_KEYS + 2)), *end;
    int i, most;

    for (i = 0; i <= JSON_MOST_DEPTH; i++) {
        deep[i] = '[';
        deep[2 * JSON_MOST_DEPTH + 1 - i] = ']';
    }
    deep[2 * JSON_MOST_DEPTH + 2] = '\0';
    ck_assert(!reads(&doc, deep));
    ck_assert_ptr_nonnull(strstr(doc.error, "deeply"));
    ck_assert(json_read_text(&doc, deep + 1, 2 * JSON_MOST_DEPTH));
    json_free(&doc);

    for (most = JSON_MOST_KEYS; most <= JSON_MOST_KEYS + 1; most++) {
        end = keys;
        for (i = 0; i < most; i++)
            end += sprintf(end, "%c\"%d\":0", i ? ',' : '{', i);
        strcpy(end, "}");
        ck_assert_int_eq(reads(&doc, keys), most == JSON_MOST_KEYS);
        json_free(&doc);
    }
    free(keys);
    ck_assert(!json_read_text(&doc, "", (size_t)JSON_MOST_BYTES + 1));
    ck_assert_ptr_nonnull(strstr(doc.error, "too large"));
}
END_TEST

START_TEST(json_cut_anywhere_is_refused)
{
    static const char text[] =
        "{\"a\\u00e9\": [1.5e3, {\"b\": null}, \"\\ud83d\\ude00\"], \"c\": true}";
    struct json_document doc;
    size_t n;

    for (n = 0; n < strlen(text); n++)
        ck_assert_msg(!json_read_text(&doc, text, n), "read %zu bytes", n);
    ck_assert(reads(&doc, text));
    json_free(&doc);
}
END_TEST

/* A text from an alphabet of JSON's own pieces: often nearly JSON. */
static size_t random_text(char *out, size_t most, uint64_t *state)
{
    static const char *const pieces[] = {
        "{", "}",  "[",  "]",    ",",    ":",     "\"a\"",    "\"",   "1", "-",
        "0", ".5", "e1", "true", "null", "\\u00", "\xC3\xA4", "\x80", " ", "\"b\":1"};
    size_t n = 0, size;

    do {
        *state = *state * 6364136223846793005u + 1442695040888963407u;
        size = strlen(pieces[(*state >> 33) % 20]);
        if (n + size > most)
            break;
        memcpy(out + n, pieces[(*state >> 33) % 20], size);
        n += size;
    } while ((*state >> 60) != 0);
    return n;
}

START_TEST(json_agrees_with_jansson_on_random_texts)
{
    char text[200];
    uint64_t state = 1;
    int i, accepted = 0;

    for (i = 0; i < 200000; i++) {
        size_t n = random_text(text, sizeof text, &state);
        json_t *theirs = json_loadb(
            text, n, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY | JSON_DECODE_INT_AS_REAL, NULL);
        struct json_document doc;
        bool ours = json_read_text(&doc, text, n);

        ck_assert_msg(ours == (theirs != NULL), "%.*s", (int)n, text);
        accepted += ours;
        json_decref(theirs);
        json_free(&doc);
    }
    ck_assert_int_gt(accepted, 1000);
}
END_TEST

START_TEST(json_file_that_is_absent_is_told)
{
    struct json_document doc;

    ck_assert(!json_read_file(&doc, "/nonexistent/record.json"));
    ck_assert_ptr_nonnull(strstr(doc.error, "No such file"));
    ck_assert(!json_read_file(&doc, "/"));
    ck_assert_uint_gt(strlen(doc.error), 0);
}
END_TEST

/* ---- the record ------------------------------------------------------------------------------ */

static bool record_of(struct eval_record *record, const char *text)
{
    char path[] = "/tmp/test_eval_XXXXXX";
    int file = mkstemp(path);
    bool done;

    ck_assert_int_ge(file, 0);
    ck_assert_int_eq(write(file, text, strlen(text)), (ssize_t)strlen(text));
    close(file);
    done = eval_record_read(record, path);
    unlink(path);
    return done;
}

#define GOOD_QUESTIONS                                                                             \
    "[{\"question\": \"Is there a dog?\", \"answer\": \"Yes\", \"model\": \"No\", "                \
    "\"margin\": -0.5}]"
#define ENTRY(file, captions, nll, tokens, top1, questions)                                        \
    "{\"file\": " file ", \"captions\": " captions ", \"greedy\": \"A dog.\", \"nll_sum\": " nll   \
    ", \"tokens\": " tokens ", \"top1\": " top1                                                    \
    ", \"nll_sum_wrong_picture\": 5.5, \"questions\": " questions "}"
#define GOOD_ENTRY ENTRY("\"a.jpg\"", "[\"A cat.\", \"B\"]", "3.5", "4", "2", GOOD_QUESTIONS)

START_TEST(record_holds_what_the_file_says)
{
    struct eval_record record;

    ck_assert_msg(record_of(&record, "[" GOOD_ENTRY "," GOOD_ENTRY "]"), "%s", record.error);
    ck_assert_uint_eq(record.n, 2);
    ck_assert_str_eq(record.entries[1].file, "a.jpg");
    ck_assert_str_eq(record.entries[1].caption, "A cat.");
    ck_assert_str_eq(record.entries[1].greedy, "A dog.");
    ck_assert_double_eq(record.entries[1].nll_sum, 3.5);
    ck_assert_double_eq(record.entries[1].nll_sum_wrong_picture, 5.5);
    ck_assert_uint_eq(record.entries[1].tokens, 4);
    ck_assert_uint_eq(record.entries[1].top1, 2);
    ck_assert_uint_eq(record.entries[1].n_questions, 1);
    ck_assert_ptr_eq(record.entries[1].questions, record.questions + 1);
    ck_assert(record.entries[1].questions[0].answer);
    ck_assert(!record.entries[1].questions[0].model);
    ck_assert_double_eq(record.entries[1].questions[0].margin, -0.5);
    eval_record_free(&record);
}
END_TEST

#define Q(text) ENTRY("\"a.jpg\"", "[\"A\"]", "1", "1", "1", text)
static const struct {
    const char *entry, *error;
} bad_entries[] = {
    {"3", "entry 1: 'file' is missing"},
    {"[]", "entry 1: 'file' is missing"},
    {"{}", "entry 1: 'file' is missing"},
    {ENTRY("7", "[\"A\"]", "1", "1", "1", "[]"), "entry 1: 'file' is no string"},
    {ENTRY("\"../a.jpg\"", "[\"A\"]", "1", "1", "1", "[]"), "'file' is no plain file name"},
    {ENTRY("\"\"", "[\"A\"]", "1", "1", "1", "[]"), "'file' is no plain file name"},
    {ENTRY("\"a.jpg\"", "7", "1", "1", "1", "[]"), "entry 1: 'captions' is no array"},
    {ENTRY("\"a.jpg\"", "[]", "1", "1", "1", "[]"), "'captions' is without a first caption"},
    {ENTRY("\"a.jpg\"", "[1]", "1", "1", "1", "[]"), "'captions' is without a first caption"},
    {ENTRY("\"a.jpg\"", "[\"A\"]", "\"1\"", "1", "1", "[]"), "entry 1: 'nll_sum' is no number"},
    {ENTRY("\"a.jpg\"", "[\"A\"]", "-1", "1", "1", "[]"), "entry 1: 'nll_sum' is out of range"},
    {ENTRY("\"a.jpg\"", "[\"A\"]", "1", "0", "0", "[]"), "entry 1: 'tokens' is out of range"},
    {ENTRY("\"a.jpg\"", "[\"A\"]", "1", "1.5", "1", "[]"), "entry 1: 'tokens' is no whole number"},
    {ENTRY("\"a.jpg\"", "[\"A\"]", "1", "1e9", "1", "[]"), "entry 1: 'tokens' is out of range"},
    {ENTRY("\"a.jpg\"", "[\"A\"]", "1", "2", "3", "[]"), "entry 1: 'top1' is out of range"},
    {Q("{}"), "entry 1: 'questions' is no array"},
    {Q("[1]"), "entry 1: 'question' is missing"},
    {Q("[{\"question\": \"Q\"}]"), "entry 1: 'answer' is missing"},
    {Q("[{\"question\": \"Q\", \"answer\": \"yes\"}]"), "'answer' is neither Yes nor No"},
    {Q("[{\"question\": \"Q\", \"answer\": \"No\", \"model\": true}]"), "'model' is no string"},
    {Q("[{\"question\": \"Q\", \"answer\": \"No\", \"model\": \"No\", \"margin\": 1e7}]"),
     "'margin' is out of range"},
};

START_TEST(record_names_entry_and_key_of_what_is_wrong)
{
    struct eval_record record;
    char text[2048];

    snprintf(text, sizeof text, "[%s, %s]", GOOD_ENTRY, bad_entries[_i].entry);
    ck_assert(!record_of(&record, text));
    ck_assert_msg(strstr(record.error, bad_entries[_i].error) != NULL, "'%s' has no '%s'",
                  record.error, bad_entries[_i].error);
    ck_assert_ptr_null(record.entries);
    ck_assert_ptr_null(record.json.text);
}
END_TEST

START_TEST(record_must_be_an_array_of_entries)
{
    struct eval_record record;

    ck_assert(!record_of(&record, "{}"));
    ck_assert(!record_of(&record, "[]"));
    ck_assert(!record_of(&record, "7"));
    ck_assert(!record_of(&record, "[" GOOD_ENTRY));
    ck_assert_ptr_nonnull(strstr(record.error, "byte "));
}
END_TEST

START_TEST(record_limits_questions_and_text)
{
    struct eval_record record;
    char *text = malloc(1 << 16), *end = text;
    int i;

    end +=
        sprintf(end, "[{\"file\": \"a\", \"captions\": [\"A\"], \"greedy\": \"\", \"nll_sum\": 0,"
                     "\"nll_sum_wrong_picture\": 0, \"tokens\": 1, \"top1\": 0,\"questions\": [");
    for (i = 0; i <= EVAL_MOST_QUESTIONS; i++)
        end += sprintf(end, "%s0", i ? "," : "");
    strcpy(end, "]}]");
    ck_assert(!record_of(&record, text));
    ck_assert_ptr_nonnull(strstr(record.error, "'questions' is too long"));

    end = text + sprintf(text, "[{\"file\": \"a\", \"captions\": [\"");
    memset(end, 'x', EVAL_MOST_CAPTION_BYTES + 1);
    strcpy(end + EVAL_MOST_CAPTION_BYTES + 1, "\"]}]");
    ck_assert(!record_of(&record, text));
    ck_assert_ptr_nonnull(strstr(record.error, "'captions' is too long"));
    free(text);
}
END_TEST

START_TEST(plain_names_stay_in_their_folder)
{
    ck_assert(eval_is_plain_name("1009434119_febe49276a.jpg"));
    ck_assert(eval_is_plain_name("a b.jpg"));
    ck_assert(!eval_is_plain_name(""));
    ck_assert(!eval_is_plain_name("."));
    ck_assert(!eval_is_plain_name(".."));
    ck_assert(!eval_is_plain_name(".hidden"));
    ck_assert(!eval_is_plain_name("a/b"));
    ck_assert(!eval_is_plain_name("/a"));
    ck_assert(!eval_is_plain_name("a\\b"));
    ck_assert(!eval_is_plain_name("a\nb"));
}
END_TEST

START_TEST(wrong_picture_of_every_entry_is_another_and_is_found_back)
{
    size_t n, i;

    ck_assert_uint_eq(eval_wrong_picture(0, 500), 167);
    ck_assert_uint_eq(eval_wrong_picture(400, 500), 67);
    for (n = 1; n < 40; n++)
        for (i = 0; i < n; i++) {
            ck_assert_uint_eq(eval_wrong_picture(i, n), (i + n / 3 + 1) % n);
            ck_assert_uint_eq(eval_wrong_picture_owner(eval_wrong_picture(i, n), n), i);
            ck_assert(n == 1 || eval_wrong_picture(i, n) != i);
        }
}
END_TEST

/* ---- figures --------------------------------------------------------------------------------- */

START_TEST(kl_is_that_of_the_two_distributions)
{
    /* p = (1/2, 1/4, 1/4), q = (1/4, 1/4, 1/2), as logits with another constant added to each:
     * KL = 1/2 log 2 - 1/4 log 2 = log(2) / 4 */
    const float p[] = {10 + (float)M_LN2, 10, 10}, q[] = {-50, -50, -50 + (float)M_LN2};

    ck_assert_double_eq_tol(eval_kl(p, q, 3), M_LN2 / 4, 1e-6);
    ck_assert_double_eq(eval_kl(p, p, 3), 0);
    ck_assert_double_gt(fabs(eval_kl(p, q, 3) - eval_kl(q, p, 2)), 1e-3);
}
END_TEST

START_TEST(kl_stays_exact_where_it_is_small_and_finite_where_logits_are_far_apart)
{
    float p[1000], q[1000], far[] = {0, -1e4f}, near[] = {0, -9e3f};
    double expected = 0, p_sum = 0, q_sum = 0;
    int i;

    for (i = 0; i < 1000; i++) {
        p[i] = (float)(10 * sin(i));
        q[i] = p[i] + (float)(1e-3 * cos(3 * i));
        p_sum += exp((double)p[i]);
        q_sum += exp((double)q[i]);
    }
    for (i = 0; i < 1000; i++) {
        double lp = (double)p[i] - log(p_sum), lq = (double)q[i] - log(q_sum);

        expected += exp(lp) * (lp - lq);
    }
    ck_assert_double_gt(expected, 1e-8);
    ck_assert_double_eq_tol(eval_kl(p, q, 1000), expected, 1e-13);
    ck_assert_double_eq(eval_kl(far, near, 2), 0);
    q[7] = NAN;
    ck_assert(!isfinite(eval_kl(p, q, 1000)));
}
END_TEST

START_TEST(divergences_give_mean_percentiles_and_agreement)
{
    struct eval_divergence divergence = {0};
    struct eval_divergence_figures figures = eval_divergence_figures(&divergence);
    const float p[] = {1, 0}, q[] = {0, 1};
    int i;

    ck_assert(isnan(figures.mean_kl) && isnan(figures.kl_p99) && isnan(figures.top1_agreement));
    for (i = 0; i < 3000; i++)
        ck_assert(eval_divergence_add(&divergence, p, i % 4 ? p : q, 2));
    for (i = 0; i < 3000; i++)
        divergence.kl[i] = 2999 - i; /* in descending order: they must be sorted */
    figures = eval_divergence_figures(&divergence);
    ck_assert_double_eq(figures.mean_kl, 1499.5);
    ck_assert_double_eq(figures.kl_p99, 2970);
    ck_assert_double_eq(figures.kl_p999, 2997);
    ck_assert_double_eq(figures.top1_agreement, 0.75);
    eval_divergence_free(&divergence);
    eval_divergence_free(&divergence);
}
END_TEST

START_TEST(percentile_is_the_value_at_the_floor)
{
    double sorted[1234];
    size_t n;

    for (n = 0; n < 1234; n++)
        sorted[n] = (double)n;
    for (n = 1; n < 1234; n++) {
        ck_assert_double_eq(eval_percentile(sorted, n, 990), (double)(n * 990 / 1000));
        ck_assert_double_eq(eval_percentile(sorted, n, 999), (double)(n * 999 / 1000));
    }
    ck_assert_double_eq(eval_percentile(sorted, 100, 990), 99);
    ck_assert_double_eq(eval_percentile(sorted, 1, 999), 0);
}
END_TEST

START_TEST(argmax_takes_the_lowest_of_equal_ones)
{
    const float values[] = {1, 3, 2, 3};

    ck_assert_uint_eq(eval_argmax(values, 4), 1);
    ck_assert_uint_eq(eval_argmax(values, 1), 0);
}
END_TEST

START_TEST(strip_takes_blanks_at_both_ends_only)
{
    static const char *const texts[][2] = {{"", ""},
                                           {" ", ""},
                                           {"a", "a"},
                                           {" a b ", "a b"},
                                           {"\n\ta\r\v\f", "a"},
                                           {"\xC2\xA0 a", "\xC2\xA0 a"}};
    size_t i, n;

    for (i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        const char *begin = eval_strip(texts[i][0], &n);

        ck_assert_uint_eq(n, strlen(texts[i][1]));
        ck_assert_mem_eq(begin, texts[i][1], n);
    }
}
END_TEST

START_TEST(tally_counts_what_equals_the_record_and_keeps_the_worst)
{
    struct eval_entry entry = {
        .greedy = "A dog.", .nll_sum = 10, .nll_sum_wrong_picture = 20, .tokens = 5};
    struct eval_question yes = {.answer = true, .model = false, .margin = -1};
    struct eval_tally tally = {0};

    ck_assert(isnan(eval_caption_loss(&tally)) && isnan(eval_yes_no_accuracy(&tally)));
    eval_tally_caption(&tally, &entry, 3, 10.5, 5, 2);
    eval_tally_caption(&tally, &entry, 4, 9.75, 6, 3);
    eval_tally_wrong_picture(&tally, &entry, 3, 22, 5);
    eval_tally_greedy(&tally, &entry, " A dog.\n");
    eval_tally_greedy(&tally, &entry, "A dog");
    eval_tally_greedy(&tally, &entry, "A  dog.");
    eval_tally_question(&tally, &yes, 3, 0.5);
    eval_tally_question(&tally, &yes, 4, 0); /* a tie is No */
    ck_assert_uint_eq(tally.pictures, 2);
    ck_assert_double_eq_tol(eval_caption_loss(&tally), 20.25 / 11, 1e-15);
    ck_assert_double_eq_tol(eval_token_top1(&tally), 5.0 / 11, 1e-15);
    ck_assert_double_eq_tol(eval_wrong_picture_loss(&tally), 22.0 / 5, 1e-15);
    ck_assert_uint_eq(tally.same_token_count, 1);
    ck_assert_uint_eq(tally.captions, 3);
    ck_assert_uint_eq(tally.captions_equal, 1);
    ck_assert_double_eq(eval_yes_no_accuracy(&tally), 0.5);
    ck_assert_uint_eq(tally.answers_as_recorded, 1);
    ck_assert_double_eq(tally.nll_deviation.value, 0.5);
    ck_assert_uint_eq(tally.nll_deviation.entry, 3);
    ck_assert_double_eq(tally.wrong_deviation.value, 2);
    ck_assert_double_eq(tally.margin_deviation.value, 1.5);
    eval_tally_caption(&tally, &entry, 9, NAN, 5, 0);
    eval_tally_caption(&tally, &entry, 10, 1000, 5, 0);
    ck_assert(isnan(tally.nll_deviation.value));
    ck_assert_uint_eq(tally.nll_deviation.entry, 9);
}
END_TEST

START_TEST(record_of_the_real_model_adds_up_to_its_summary)
{
    const char *path = shared_path("models/llava-flickr-eval/record.json");
    struct eval_record record;
    struct eval_tally tally;

    if (!path)
        SKIP("models/llava-flickr-eval is absent");
    ck_assert_msg(eval_record_read(&record, path), "%s", record.error);
    eval_tally_record(&tally, &record, record.n);
    ck_assert_uint_eq(tally.pictures, 500);
    ck_assert_uint_eq(tally.tokens, 7030);
    ck_assert_uint_eq(tally.questions, 964);
    ck_assert_double_eq_tol(eval_caption_loss(&tally), 2.5363, 5e-5);
    ck_assert_double_eq_tol(eval_wrong_picture_loss(&tally), 3.2024, 5e-5);
    ck_assert_double_eq_tol(eval_token_top1(&tally), 0.4956, 5e-5);
    ck_assert_double_eq_tol(eval_yes_no_accuracy(&tally), 0.8081, 5e-5);
    ck_assert_uint_eq(tally.captions_equal, 500);
    eval_record_free(&record);
}
END_TEST

static Suite *eval_suite(void)
{
    Suite *suite = suite_create("eval");
    TCase *json = tcase_create("json"), *record = tcase_create("record"),
          *figures = tcase_create("figures");

    tcase_set_timeout(json, 60);
    tcase_add_test(json, json_reads_every_kind_of_value);
    tcase_add_test(json, json_decodes_every_escape);
    tcase_add_loop_test(json, json_refuses_what_is_not_json_and_says_where, 0,
                        sizeof broken / sizeof broken[0]);
    tcase_add_test(json, json_refuses_a_zero_byte_inside_the_text);
    tcase_add_test(json, json_limits_depth_keys_and_size);
    tcase_add_test(json, json_cut_anywhere_is_refused);
    tcase_add_test(json, json_agrees_with_jansson_on_random_texts);
    tcase_add_test(json, json_file_that_is_absent_is_told);
    tcase_add_test(record, record_holds_what_the_file_says);
    tcase_add_loop_test(record, record_names_entry_and_key_of_what_is_wrong, 0,
                        sizeof bad_entries / sizeof bad_entries[0]);
    tcase_add_test(record, record_must_be_an_array_of_entries);
    tcase_add_test(record, record_limits_questions_and_text);
    tcase_add_test(record, plain_names_stay_in_their_folder);
    tcase_add_test(record, wrong_picture_of_every_entry_is_another_and_is_found_back);
    tcase_add_test(record, record_of_the_real_model_adds_up_to_its_summary);
    tcase_add_test(figures, kl_is_that_of_the_two_distributions);
    tcase_add_test(figures, kl_stays_exact_where_it_is_small_and_finite_where_logits_are_far_apart);
    tcase_add_test(figures, divergences_give_mean_percentiles_and_agreement);
    tcase_add_test(figures, percentile_is_the_value_at_the_floor);
    tcase_add_test(figures, argmax_takes_the_lowest_of_equal_ones);
    tcase_add_test(figures, strip_takes_blanks_at_both_ends_only);
    tcase_add_test(figures, tally_counts_what_equals_the_record_and_keeps_the_worst);
    suite_add_tcase(suite, json);
    suite_add_tcase(suite, record);
    suite_add_tcase(suite, figures);
    return suite;
}

int main(void)
{
    SRunner *runner = srunner_create(eval_suite());
    int failed;

    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? 0 : 1;
}
