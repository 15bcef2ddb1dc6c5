/* src/io/json: what is accepted, what it means, and that jansson agrees. */
#include <check.h>
#include <float.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/buf.h"
#include "core/mem.h"
#include "core/os.h"
#include "core/status.h"
#include "io/json.h"
#include "meter.h"

static struct mmqi_json *open_text(const char *text, size_t size)
{
    struct mmqi_json *json;

    ck_assert_int_eq(mmqi_json_open(&json, "t.json", text, size), MMQ_OK);
    return json;
}

static struct mmqi_json *open_string(const char *text)
{
    return open_text(text, strlen(text));
}

static enum mmqi_json_event next(struct mmqi_json *json)
{
    enum mmqi_json_event event;

    ck_assert_msg(mmqi_json_next(json, &event) == MMQ_OK, "%s", mmqi_message());
    return event;
}

/* The status of reading a whole text. */
static int32_t verdict(const char *text, size_t size)
{
    /* A copy of the exact size, so that a read past its end is seen by the sanitizers. */
    char *copy = malloc(size ? size : 1);
    struct mmqi_json *json;
    enum mmqi_json_event event = MMQI_JSON_NULL;
    int32_t status = MMQ_OK;

    memcpy(copy, text, size);
    json = open_text(copy, size);
    while (status == MMQ_OK && event != MMQI_JSON_END)
        status = mmqi_json_next(json, &event);
    mmqi_json_close(json);
    free(copy);
    return status;
}

START_TEST(gives_the_events_of_a_document_in_order)
{
    struct mmqi_json *json = open_string(" {\"a\" : [1, true,false , null,\"x\"],\"b\":{}, "
                                         "\"c\":[ ]}\r\n\t ");

    ck_assert_int_eq(next(json), MMQI_JSON_OBJECT);
    ck_assert_uint_eq(mmqi_json_offset(json), 1);
    ck_assert_int_eq(mmqi_json_depth(json), 1);
    ck_assert_int_eq(next(json), MMQI_JSON_KEY);
    ck_assert_str_eq(mmqi_json_text(json), "a");
    ck_assert_int_eq(next(json), MMQI_JSON_ARRAY);
    ck_assert_int_eq(mmqi_json_depth(json), 2);
    ck_assert_uint_eq(mmqi_json_offset(json), 8);
    ck_assert_int_eq(next(json), MMQI_JSON_NUMBER);
    ck_assert_str_eq(mmqi_json_text(json), "1");
    ck_assert_double_eq(mmqi_json_number(json), 1.0);
    ck_assert_int_eq(next(json), MMQI_JSON_TRUE);
    ck_assert_str_eq(mmqi_json_text(json), "");
    ck_assert_int_eq(next(json), MMQI_JSON_FALSE);
    ck_assert_int_eq(next(json), MMQI_JSON_NULL);
    ck_assert_int_eq(next(json), MMQI_JSON_STRING);
    ck_assert_str_eq(mmqi_json_text(json), "x");
    ck_assert_uint_eq(mmqi_json_size(json), 1);
    ck_assert_int_eq(next(json), MMQI_JSON_ARRAY_END);
    ck_assert_int_eq(mmqi_json_depth(json), 1);
    ck_assert_int_eq(next(json), MMQI_JSON_KEY);
    ck_assert_int_eq(next(json), MMQI_JSON_OBJECT);
    ck_assert_int_eq(next(json), MMQI_JSON_OBJECT_END);
    ck_assert_int_eq(next(json), MMQI_JSON_KEY);
    ck_assert_int_eq(next(json), MMQI_JSON_ARRAY);
    ck_assert_int_eq(next(json), MMQI_JSON_ARRAY_END);
    ck_assert_int_eq(next(json), MMQI_JSON_OBJECT_END);
    ck_assert_int_eq(mmqi_json_depth(json), 0);
    ck_assert_int_eq(next(json), MMQI_JSON_END);
    ck_assert_int_eq(next(json), MMQI_JSON_END);
    mmqi_json_close(json);
    mmqi_json_close(NULL);
}
END_TEST

START_TEST(unescapes_strings_and_keeps_zero_bytes)
{
    static const char want[] = "\"\\/\b\f\n\r\t\0A\xC3\xA4\xE2\x82\xAC\xF0\x9F\x98\x80\xC4\xA0";
    struct mmqi_json *json = open_string("\"\\\"\\\\\\/\\b\\f\\n\\r\\t\\u0000\\u0041\\u00e4\\u20AC"
                                         "\\ud83d\\uDE00\xC4\xA0\"");

    ck_assert_int_eq(next(json), MMQI_JSON_STRING);
    ck_assert_uint_eq(mmqi_json_size(json), sizeof want - 1);
    ck_assert_mem_eq(mmqi_json_text(json), want, sizeof want);
    mmqi_json_close(json);
}
END_TEST

static const char *const numbers[] = {
    "0",
    "-0",
    "1",
    "-1",
    "123456789012345",
    "1234567890123456",
    "9007199254740993",
    "18446744073709551616",
    "1000000000000000019884624838656",
    "0.1",
    "-0.0",
    "0.000001",
    "1e-05",
    "1E+5",
    "1e22",
    "1e23",
    "123456789012345e22",
    "123456789012345e-22",
    "123456789012345e23",
    "3.141592653589793",
    "2.2250738585072011e-308",
    "4.9e-324",
    "2.4703282292062327e-324",
    "1e-400",
    "0e999999999999",
    "1.7976931348623157e308",
    "0.000000000000000000000000000000000000000001",
    "100000000000000000000000000000000000000000e-41",
    "179769313486231580793728971405301e276",
    "-12.345678901234567",
    "0.3333333432674408",
    "1.00000000000000011102230246251565",
    "0.30000000000000004",
};

START_TEST(reads_numbers_as_strtod_does)
{
    struct mmqi_json *json = open_string(numbers[_i]);
    double got, want = strtod(numbers[_i], NULL);

    ck_assert_int_eq(next(json), MMQI_JSON_NUMBER);
    got = mmqi_json_number(json);
    ck_assert_msg(memcmp(&got, &want, sizeof got) == 0, "%s: %.17g, not %.17g", numbers[_i], got,
                  want);
    ck_assert_str_eq(mmqi_json_text(json), numbers[_i]);
    mmqi_json_close(json);
}
END_TEST

/* A small generator of its own, so that the same cases run everywhere. */
static uint32_t draw(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(*state >> 33);
}

START_TEST(reads_random_numbers_as_strtod_does)
{
    uint64_t state = 1;
    int i, j;

    for (i = 0; i < 200000; i++) {
        char text[64], *p = text;
        const int whole = (int)(draw(&state) % 18), part = (int)(draw(&state) % 18);
        struct mmqi_json *json;
        double got, want;

        if (draw(&state) % 2)
            *p++ = '-';
        *p++ = whole ? (char)('1' + draw(&state) % 9) : '0';
        for (j = 1; j < whole; j++)
            *p++ = (char)('0' + draw(&state) % 10);
        if (part)
            *p++ = '.';
        for (j = 0; j < part; j++)
            *p++ = (char)('0' + draw(&state) % 10);
        *p = 0;
        if (draw(&state) % 2)
            sprintf(p, "e%d", (int)(draw(&state) % 70) - 35);
        json = open_string(text);
        ck_assert_int_eq(next(json), MMQI_JSON_NUMBER);
        got = mmqi_json_number(json);
        want = strtod(text, NULL);
        ck_assert_msg(memcmp(&got, &want, sizeof got) == 0, "%s", text);
        mmqi_json_close(json);
    }
}
END_TEST

static const struct {
    const char *text;
    int64_t value;
    int32_t status;
} integers[] = {
    {"0", 0, MMQ_OK},
    {"-0", 0, MMQ_OK},
    {"-17", -17, MMQ_OK},
    {"9223372036854775807", INT64_MAX, MMQ_OK},
    {"-9223372036854775808", INT64_MIN, MMQ_OK},
    {"9223372036854775808", 0, MMQ_ERR_FORMAT},
    {"-9223372036854775809", 0, MMQ_ERR_FORMAT},
    {"92233720368547758070", 0, MMQ_ERR_FORMAT},
    {"1.0", 0, MMQ_ERR_FORMAT},
    {"1e2", 0, MMQ_ERR_FORMAT},
    {"true", 0, MMQ_ERR_FORMAT},
    {"\"1\"", 0, MMQ_ERR_FORMAT},
};

START_TEST(tells_integers_from_other_numbers)
{
    struct mmqi_json *json = open_string(integers[_i].text);
    int64_t value = 77;

    next(json);
    ck_assert_int_eq(mmqi_json_integer(json, &value), integers[_i].status);
    if (integers[_i].status == MMQ_OK)
        ck_assert(value == integers[_i].value);
    else
        ck_assert(value == 77);
    mmqi_json_close(json);
}
END_TEST

#define NEST4 "[[[["
#define NEST16 NEST4 NEST4 NEST4 NEST4
#define END4 "]]]]"
#define END16 END4 END4 END4 END4

static const struct {
    const char *text;
    bool good;
} documents[] = {
    {"{}", true},
    {"[]", true},
    {"0", true},
    {"\"\"", true},
    {"null", true},
    {" [ ] ", true},
    {"[1,2]", true},
    {"{\"a\":{\"a\":{\"a\":1}}}", true},
    {"[{\"a\":1},{\"a\":1}]", true},
    {"\"\x7F\"", true},
    {"\"\xEF\xBF\xBF\"", true},
    {"\"\\uFFFF\"", true},
    {"\"\\u0000\"", true},
    {"-0.5e-10", true},
    {NEST16 NEST16 NEST16 NEST16 END16 END16 END16 END16, true},
    {"", false},
    {" ", false},
    {"{", false},
    {"[", false},
    {"}", false},
    {"]", false},
    {"[}", false},
    {"{]", false},
    {"[1", false},
    {"[1,", false},
    {"[1,]", false},
    {"[,1]", false},
    {"[,]", false},
    {"[1 2]", false},
    {"[1}", false},
    {"[[]", false},
    {"{\"a\"}", false},
    {"{\"a\":}", false},
    {"{\"a\":1,}", false},
    {"{,}", false},
    {"{\"a\":1]", false},
    {"{\"a\" 1}", false},
    {"{\"a\":1 \"b\":2}", false},
    {"{\"a\":1", false},
    {"{\"a\":", false},
    {"{\"a", false},
    {"{a:1}", false},
    {"{1:1}", false},
    {"{'a':1}", false},
    {"{\"a\":1,\"a\":2}", false},
    {"{\"a\":1,\"b\":{\"a\":1},\"a\":2}", false},
    {"{\"a\":1,\"\\u0061\":2}", false},
    {"{\"\":1,\"\":2}", false},
    {"1 2", false},
    {"{}{}", false},
    {"[]x", false},
    {"nul", false},
    {"nulll", false},
    {"tru", false},
    {"True", false},
    {"fals", false},
    {"NaN", false},
    {"Infinity", false},
    {"-Infinity", false},
    {"01", false},
    {"-01", false},
    {"00", false},
    {"-", false},
    {"+1", false},
    {".5", false},
    {"1.", false},
    {"1.e5", false},
    {"1e", false},
    {"1e+", false},
    {"1e+-5", false},
    {"0x10", false},
    {"1_000", false},
    {"1e999", false},
    {"-1e999", false},
    {"// no\n1", false},
    {"/* no */ 1", false},
    {"[1]#", false},
    {"\xEF\xBB\xBF{}", false},
    {"\"", false},
    {"\"a", false},
    {"\"\\", false},
    {"\"\\\"", false},
    {"\"\\x\"", false},
    {"\"\\'\"", false},
    {"\"\\U0041\"", false},
    {"\"\\u004\"", false},
    {"\"\\u00G1\"", false},
    {"\"\\u", false},
    {"\"\\uD800\"", false},
    {"\"\\uDC00\"", false},
    {"\"\\uD800x\"", false},
    {"\"\\uD800\\n\"", false},
    {"\"\\uD800\\u0041\"", false},
    {"\"\\uD800\\uD800\"", false},
    {"\"\\uD83D\\uDE0\"", false},
    {"\"a\nb\"", false},
    {"\"a\tb\"", false},
    {"\"\\\n\"", false},
    {"\"\x01\"", false},
    {"\"\xFF\"", false},
    {"\"\x80\"", false},
    {"\"\xC0\xAF\"", false},
    {"\"\xC3\"", false},
    {"\"\xC3(\"", false},
    {"\"\xE0\x80\xAF\"", false},
    {"\"\xED\xA0\x80\"", false},
    {"\"\xE2\x82\"", false},
    {"\"\xF0\x80\x80\x80\"", false},
    {"\"\xF4\x90\x80\x80\"", false},
    {"\"\xF5\x80\x80\x80\"", false},
    {"\"\xF0\x9F\x98\"", false},
    {"{\"\xFF\":1}", false},
    {"\x0B[]", false},
    {"\x0C[]", false},
    {"\xC2\xA0[]", false},
};

/* What jansson says, with the strictest of its flags. */
static bool jansson_takes(const char *text, size_t size, enum json_error_code *why)
{
    json_error_t error;
    json_t *root =
        json_loadb(text, size, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY | JSON_ALLOW_NUL, &error);

    *why = root ? json_error_unknown : json_error_code(&error);
    json_decref(root);
    return root != NULL;
}

START_TEST(accepts_what_json_is_and_nothing_else)
{
    const char *text = documents[_i].text;
    const size_t size = strlen(text);
    enum json_error_code why;
    int32_t status = verdict(text, size);

    ck_assert_msg(status == (documents[_i].good ? MMQ_OK : MMQ_ERR_FORMAT), "%s: %d %s", text,
                  (int)status, status == MMQ_OK ? "" : mmqi_message());
    ck_assert_msg(jansson_takes(text, size, &why) == documents[_i].good, "the oracle: %s", text);
    if (status != MMQ_OK)
        ck_assert_ptr_eq(strstr(mmqi_message(), "t.json: line "), mmqi_message());
}
END_TEST

/* Where jansson refuses for limits that are its own, or takes deeper nesting than we do. */
static bool comparable(enum json_error_code why, int32_t status)
{
    if (why == json_error_null_byte_in_key || why == json_error_numeric_overflow)
        return false;
    return status == MMQ_OK || !strstr(mmqi_message(), "deeper nesting");
}

static const char *const seeds[] = {
    "{\"model_type\":\"llava\",\"vision\":{\"sizes\":[336,14,-1.5e-3],\"x\":null},\"t\":true}",
    "[\"\\u00e4\\ud83d\\ude00\\n\\\\\",\"\xC3\xA4\xE2\x82\xAC\xF0\x9F\x98\x80\",{\"\":[]},[[]]]",
    "{\"a\":1,\"b\":2,\"c\":{\"a\":1,\"b\":2},\"aa\":0.1,\"ab\":1E5,\"ac\":false}",
    "[0,-0,10.25,1e2,123456789012345678901,1e308,null,true,false,\"\",{}]",
    "{\"w\":{\"dtype\":\"F32\",\"shape\":[2,3],\"data_offsets\":[0,24]},\"__metadata__\":{}}",
};

START_TEST(agrees_with_jansson_on_mutated_documents)
{
    static const char alphabet[] = "{}[]:,\"\\u0123dDeE+-.truefalsn \n\t\x00\x1F\x7F\x80\xC3\xED"
                                   "\xF0\xF4\xA0\x9F\xFF"
                                   "ab";
    uint64_t state = 42 + (uint64_t)_i;
    int round, accepted = 0;

    for (round = 0; round < 60000; round++) {
        char text[256];
        size_t size = strlen(seeds[_i]);
        int changes = 1 + (int)(draw(&state) % 3);
        enum json_error_code why;
        bool theirs;
        int32_t ours;

        memcpy(text, seeds[_i], size);
        for (; changes > 0 && size > 0; changes--) {
            const size_t at = draw(&state) % size, from = draw(&state) % size;
            const char byte = alphabet[draw(&state) % (sizeof alphabet - 1)];

            switch (draw(&state) % 6) {
            case 0:
                text[at] = byte;
                break;
            case 1: /* put in */
                memmove(text + at + 1, text + at, size - at);
                text[at] = byte;
                size++;
                break;
            case 2: /* take out */
                memmove(text + at, text + at + 1, size - at - 1);
                size--;
                break;
            case 3: /* cut off */
                if (draw(&state) % 4 == 0)
                    size = at;
                break;
            case 4: /* a bit */
                text[at] = (char)(text[at] ^ 1 << draw(&state) % 8);
                break;
            default: /* a byte from elsewhere in the text */
                text[at] = text[from];
                break;
            }
        }
        ours = verdict(text, size);
        theirs = jansson_takes(text, size, &why);
        accepted += ours == MMQ_OK;
        /* jansson loses a zero byte that ends a token, so it is no oracle for those. */
        if (memchr(text, 0, size))
            ck_assert_int_ne(ours, MMQ_OK);
        else if (comparable(why, ours))
            ck_assert_msg((ours == MMQ_OK) == theirs, "ours %d, theirs %d: %.*s (%s)", (int)ours,
                          theirs, (int)size, text, ours ? mmqi_message() : "");
    }
    ck_assert_int_gt(accepted, 600); /* both verdicts were met often */
    ck_assert_int_lt(accepted, 59400);
}
END_TEST

START_TEST(refuses_deeper_nesting_than_the_limit)
{
    char text[2 * (MMQI_JSON_DEPTH + 1)];

    memset(text, '[', MMQI_JSON_DEPTH + 1);
    memset(text + MMQI_JSON_DEPTH + 1, ']', MMQI_JSON_DEPTH + 1);
    ck_assert_int_eq(verdict(text + 1, 2 * MMQI_JSON_DEPTH), MMQ_OK);
    ck_assert_int_eq(verdict(text, sizeof text), MMQ_ERR_FORMAT);
    ck_assert_ptr_nonnull(strstr(mmqi_message(), "column 65: expected no deeper nesting"));
}
END_TEST

START_TEST(refuses_longer_strings_than_the_limit)
{
    const size_t size = MMQI_JSON_MAX_STRING + 3;
    char *text = malloc(size);

    memset(text, 'x', size);
    text[0] = text[size - 2] = '"';
    text[size - 1] = ' ';
    ck_assert_int_eq(verdict(text, size), MMQ_OK);
    text[size - 2] = 'x';
    text[size - 1] = '"';
    ck_assert_int_eq(verdict(text, size), MMQ_ERR_FORMAT);
    memset(text, '1', size);
    ck_assert_int_eq(verdict(text, size), MMQ_ERR_FORMAT);
    free(text);
}
END_TEST

START_TEST(says_line_and_column_and_what_was_found)
{
    ck_assert_int_eq(verdict("{\n  \"a\": 1,\n  \"b\" 2}", 20), MMQ_ERR_FORMAT);
    ck_assert_str_eq(mmqi_message(),
                     "t.json: line 3, column 7: expected ':' after a key, found '2'");
    ck_assert_int_eq(verdict("[1", 2), MMQ_ERR_FORMAT);
    ck_assert_str_eq(mmqi_message(),
                     "t.json: line 1, column 3: expected ',' or ']', found the end of the text");
    ck_assert_int_eq(verdict("\"a\x01\"", 4), MMQ_ERR_FORMAT);
    ck_assert_ptr_nonnull(strstr(mmqi_message(), "found byte 0x01"));
    ck_assert_int_eq(verdict("{\"a\":1,\n\"a\":2}", 14), MMQ_ERR_FORMAT);
    ck_assert_str_eq(mmqi_message(), "t.json: line 2, column 1: the key \"a\" stands here again");
}
END_TEST

START_TEST(a_failed_parser_stays_failed_and_says_so_again)
{
    struct mmqi_json *json = open_string("[1,x,2]");
    enum mmqi_json_event event;
    char first[MMQI_MESSAGE_BYTES];

    next(json);
    next(json);
    ck_assert_int_eq(mmqi_json_next(json, &event), MMQ_ERR_FORMAT);
    strcpy(first, mmqi_message());
    mmqi_fail(MMQ_ERR_IO, "something else");
    ck_assert_int_eq(mmqi_json_next(json, &event), MMQ_ERR_FORMAT);
    ck_assert_str_eq(mmqi_message(), first);
    ck_assert_int_eq(mmqi_json_skip(json), MMQ_OK); /* nothing in hand to pass over */
    mmqi_json_close(json);
}
END_TEST

START_TEST(a_callers_failure_names_the_place_of_the_last_token)
{
    struct mmqi_json *json = open_string("{\"a\":\n [3]}");

    next(json);
    next(json);
    next(json);
    next(json);
    ck_assert_int_eq(mmqi_json_fail(json, MMQ_ERR_UNSUPPORTED, "no %s here", "threes"),
                     MMQ_ERR_UNSUPPORTED);
    ck_assert_str_eq(mmqi_message(), "t.json: line 2, column 3: no threes here");
    mmqi_json_close(json);
}
END_TEST

START_TEST(skips_whole_values)
{
    struct mmqi_json *json = open_string("{\"a\":[1,[2,{\"x\":[]}]],\"b\":{\"c\":[3]},\"d\":4,"
                                         "\"e\":[[[]]],\"f\":5}");

    next(json);
    next(json);
    ck_assert_int_eq(mmqi_json_skip(json), MMQ_OK); /* the value of a key */
    next(json);
    ck_assert_str_eq(mmqi_json_text(json), "b");
    ck_assert_int_eq(next(json), MMQI_JSON_OBJECT);
    ck_assert_int_eq(mmqi_json_skip(json), MMQ_OK); /* the object just opened */
    next(json);
    ck_assert_str_eq(mmqi_json_text(json), "d");
    ck_assert_int_eq(next(json), MMQI_JSON_NUMBER);
    ck_assert_int_eq(mmqi_json_skip(json), MMQ_OK); /* a scalar: already past it */
    next(json);
    ck_assert_str_eq(mmqi_json_text(json), "e");
    ck_assert_int_eq(mmqi_json_skip(json), MMQ_OK);
    next(json);
    ck_assert_str_eq(mmqi_json_text(json), "f");
    ck_assert_int_eq(mmqi_json_skip(json), MMQ_OK);
    ck_assert_int_eq(next(json), MMQI_JSON_OBJECT_END);
    ck_assert_int_eq(next(json), MMQI_JSON_END);
    mmqi_json_close(json);
    json = open_string("[[1,]]");
    next(json);
    ck_assert_int_eq(mmqi_json_skip(json), MMQ_ERR_FORMAT);
    mmqi_json_close(json);
}
END_TEST

/* {"k0":{"k0":0,...},"k1":0,...}: many keys at two levels, `last` as the last one. */
static char *many_keys(int n, const char *last, size_t *size)
{
    struct mmqi_buf buf = {0};
    int i;

    mmqi_buf_text(&buf, "{\"outer\":{");
    for (i = 0; i < n; i++)
        mmqi_buf_format(&buf, "%s\"k%d\":%d", i ? "," : "", i, i);
    mmqi_buf_text(&buf, "}");
    for (i = 0; i < n; i++)
        mmqi_buf_format(&buf, ",\"k%d\":{\"k%d\":0,\"z\":0}", i, i);
    mmqi_buf_format(&buf, ",\"%s\":1}", last);
    *size = buf.size;
    return mmqi_buf_take(&buf);
}

START_TEST(finds_one_duplicate_among_very_many_keys)
{
    size_t size;
    char *text = many_keys(50000, "k50000", &size);

    ck_assert_int_eq(verdict(text, size), MMQ_OK);
    mmqi_free(text);
    text = many_keys(50000, "k25000", &size);
    ck_assert_int_eq(verdict(text, size), MMQ_ERR_FORMAT);
    ck_assert_ptr_nonnull(strstr(mmqi_message(), "the key \"k25000\" stands here again"));
    mmqi_free(text);
    text = many_keys(50000, "out\\u0065r", &size);
    ck_assert_int_eq(verdict(text, size), MMQ_ERR_FORMAT);
    mmqi_free(text);
}
END_TEST

/* The target is 100 MB/s at -O2; a tenth of it is asked here, in release, of processor time. */
START_TEST(reads_a_large_vocabulary_at_speed)
{
    struct mmqi_buf buf = {0};
    clock_t begin;
    double took;
    int i;

    mmqi_buf_text(&buf, "{\n  \"vocab\": {\n");
    for (i = 0; i < 150000; i++)
        mmqi_buf_format(&buf, "      \"\xC4\xA0token%x\": %d%s\n", i * 77, i,
                        i < 149999 ? "," : "");
    mmqi_buf_text(&buf, "  },\n  \"merges\": [\n");
    for (i = 0; i < 500000; i++)
        mmqi_buf_format(&buf, "      \"\xC4\xA0%x \\u0120%x\",\n", i * 77, i);
    mmqi_buf_text(&buf, "      \"\"\n  ]\n}\n");
    ck_assert_uint_gt(buf.size, 16 << 20);
    begin = clock();
    ck_assert_int_eq(verdict(buf.data, buf.size), MMQ_OK);
    took = (double)(clock() - begin) / CLOCKS_PER_SEC;
    printf("json: %.1f MB at %.0f MB/s\n", (double)buf.size * 1e-6, (double)buf.size * 1e-6 / took);
    ck_assert(!SPEED_COUNTS || took < (double)buf.size * 1e-7);
    mmqi_buf_free(&buf);
}
END_TEST

START_TEST(fails_cleanly_wherever_memory_runs_out)
{
    static const char text[] = "{\"a\":{\"b\":[1.5,\"a longer string \\u0041\"]},\"c\":2}";
    struct meter meter = {0};
    struct mmqi_mem_hooks hooks = {meter_alloc, meter_free, &meter};
    int32_t status = MMQ_ERR_NOMEM;
    int n;

    for (n = 0; status == MMQ_ERR_NOMEM; n++) {
        const struct mmqi_mem_hooks *before = mmqi_mem_enter(&hooks);
        enum mmqi_json_event event = MMQI_JSON_NULL;
        struct mmqi_json *json;

        meter.left = n;
        status = mmqi_json_open(&json, "t.json", text, sizeof text - 1);
        while (status == MMQ_OK && event != MMQI_JSON_END)
            status = mmqi_json_next(json, &event);
        mmqi_json_close(json);
        mmqi_mem_enter(before);
        ck_assert_int_eq(meter.live, 0);
        ck_assert_int_lt(n, 20);
    }
    ck_assert_int_eq(status, MMQ_OK);
    ck_assert_int_gt(n, 4);
}
END_TEST

#define COUNT(array) ((int)(sizeof(array) / sizeof(array)[0]))

int main(void)
{
    Suite *suite = suite_create("json");
    TCase *tests = tcase_create("json");
    SRunner *runner = srunner_create(suite);
    int failed;

    tcase_set_timeout(tests, 120);
    tcase_add_test(tests, gives_the_events_of_a_document_in_order);
    tcase_add_test(tests, unescapes_strings_and_keeps_zero_bytes);
    tcase_add_loop_test(tests, reads_numbers_as_strtod_does, 0, COUNT(numbers));
    tcase_add_test(tests, reads_random_numbers_as_strtod_does);
    tcase_add_loop_test(tests, tells_integers_from_other_numbers, 0, COUNT(integers));
    tcase_add_loop_test(tests, accepts_what_json_is_and_nothing_else, 0, COUNT(documents));
    tcase_add_loop_test(tests, agrees_with_jansson_on_mutated_documents, 0, COUNT(seeds));
    tcase_add_test(tests, refuses_deeper_nesting_than_the_limit);
    tcase_add_test(tests, refuses_longer_strings_than_the_limit);
    tcase_add_test(tests, says_line_and_column_and_what_was_found);
    tcase_add_test(tests, a_failed_parser_stays_failed_and_says_so_again);
    tcase_add_test(tests, a_callers_failure_names_the_place_of_the_last_token);
    tcase_add_test(tests, skips_whole_values);
    tcase_add_test(tests, finds_one_duplicate_among_very_many_keys);
    tcase_add_test(tests, reads_a_large_vocabulary_at_speed);
    tcase_add_test(tests, fails_cleanly_wherever_memory_runs_out);
    suite_add_tcase(suite, tests);
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
