/*
 * src/text: the spellings of a tokenizer that are no tokenizer.json, where their files lie or are
 * peculiar. What good ones give is compared by the golden programs, with test/golden/tokenizers.
 */
#include "memory_files.h"
#include "tokenizing.h"

#include "core/buf.h"
#include "text/proto.h"
#include "text/tokenizer_build.h"
#include "text/utf8.h"

static struct memory_files files;

static void put_file(const char *name, const char *text, size_t size)
{
    memory_add(&files, name, text, size);
}

static void put_text(const char *name, const char *text)
{
    put_file(name, text, strlen(text));
}

/* Open the folder that put_file() filled, which is then empty again. */
static int32_t open_files(struct mmqi_tokenizer **out)
{
    struct mmqi_store *store = memory_store(&files);
    int32_t status = mmqi_tokenizer_open(out, store);

    mmqi_store_release(store);
    ck_assert_int_eq(files.n_open, 0);
    files.n_files = 0;
    return status;
}

static struct mmqi_tokenizer *open_good(void)
{
    struct mmqi_tokenizer *tokenizer;

    ck_assert_msg(open_files(&tokenizer) == MMQ_OK, "%s", mmqi_message());
    return tokenizer;
}

/* The folder must be refused with this status and a message that holds `said`. */
static void refuse_files(int32_t status, const char *said)
{
    struct mmqi_tokenizer *tokenizer = (struct mmqi_tokenizer *)1;
    int32_t found = open_files(&tokenizer);

    ck_assert_msg(found == status, "status %d (%s), not %d", (int)found, mmqi_message(),
                  (int)status);
    ck_assert_ptr_null(tokenizer);
    ck_assert_msg(strstr(mmqi_message(), said), "'%s' lacks '%s'", mmqi_message(), said);
}

static void expect_around(const struct mmqi_tokenizer *tokenizer, const char *text,
                          const char *expected)
{
    char *ids = encode_text(tokenizer, text, strlen(text), MMQI_TOKENIZE_POST);

    ck_assert_msg(strcmp(ids, expected) == 0, "'%s' gives %s, not %s", text, ids, expected);
    free(ids);
}

/* ---- messages ---- */

static void put_varint(struct mmqi_buf *out, uint64_t value)
{
    unsigned char byte;

    do {
        byte = (unsigned char)((value & 0x7F) | (value > 0x7F ? 0x80 : 0));
        mmqi_buf_append(out, &byte, 1);
        value >>= 7;
    } while (value);
}

static void put_number(struct mmqi_buf *out, uint32_t field, uint64_t value)
{
    put_varint(out, (uint64_t)field << 3 | MMQI_PROTO_VARINT);
    put_varint(out, value);
}

static void put_bytes(struct mmqi_buf *out, uint32_t field, const void *bytes, size_t size)
{
    put_varint(out, (uint64_t)field << 3 | MMQI_PROTO_BYTES);
    put_varint(out, size);
    mmqi_buf_append(out, bytes, size);
}

static void put_part(struct mmqi_buf *out, uint32_t field, struct mmqi_buf *part)
{
    put_bytes(out, field, part->data ? part->data : "", part->size);
    mmqi_buf_free(part);
}

enum { NORMAL = 1, UNKNOWN, CONTROL, OWN, UNUSED, BYTE };

static void put_piece(struct mmqi_buf *out, const char *text, float score, uint64_t type)
{
    struct mmqi_buf piece = {0};

    put_bytes(&piece, 1, text, strlen(text));
    put_varint(&piece, 2 << 3 | MMQI_PROTO_FIXED32);
    mmqi_buf_append(&piece, &score, sizeof score);
    put_number(&piece, 3, type);
    put_part(out, 1, &piece);
}

/* <unk>, <s>, </s>, then the pieces that follow. */
static void begin_model(struct mmqi_buf *out, uint64_t model_type)
{
    struct mmqi_buf trainer = {0};

    put_number(&trainer, 3, model_type);
    put_part(out, 2, &trainer);
    put_piece(out, "<unk>", 0, UNKNOWN);
    put_piece(out, "<s>", 0, CONTROL);
    put_piece(out, "</s>", 0, CONTROL);
}

/* Without a space before the text and with all others as they are. */
static void put_plain_normalizer(struct mmqi_buf *out)
{
    struct mmqi_buf normalizer = {0};

    put_number(&normalizer, 3, 0);
    put_number(&normalizer, 4, 0);
    put_part(out, 3, &normalizer);
}

enum { UNIGRAM = 1, BPE = 2 };

static struct mmqi_tokenizer *open_model(struct mmqi_buf *model)
{
    struct mmqi_tokenizer *tokenizer;

    put_file("tokenizer.model", model->data, model->size);
    tokenizer = open_good();
    mmqi_buf_free(model);
    return tokenizer;
}

static void refuse_model(struct mmqi_buf *model, int32_t status, const char *said)
{
    put_file("tokenizer.model", model->data ? model->data : "", model->size);
    refuse_files(status, said);
    mmqi_buf_free(model);
}

/* ---- SentencePiece ---- */

START_TEST(pieces_of_equal_scores_are_merged_from_the_left)
{
    struct mmqi_buf model = {0};
    struct mmqi_tokenizer *tokenizer;

    begin_model(&model, BPE);
    put_plain_normalizer(&model);
    put_piece(&model, "bc", 0, NORMAL); /* 3 */
    put_piece(&model, "ab", 0, NORMAL); /* 4 */
    put_piece(&model, "a", -1, NORMAL); /* 5 */
    put_piece(&model, "b", -1, NORMAL); /* 6 */
    put_piece(&model, "c", -1, NORMAL); /* 7 */
    tokenizer = open_model(&model);
    expect_ids(tokenizer, "abc", "4 7");
    expect_ids(tokenizer, "bcabc", "3 4 7");
    expect_ids(tokenizer, "abq?bc", "4 0 3");
    expect_around(tokenizer, "a", "1 5");
    mmqi_tokenizer_free(tokenizer);
}
END_TEST

START_TEST(a_score_above_another_wins_wherever_it_is)
{
    struct mmqi_buf model = {0};
    struct mmqi_tokenizer *tokenizer;

    begin_model(&model, BPE);
    put_plain_normalizer(&model);
    put_piece(&model, "ab", -2, NORMAL);  /* 3 */
    put_piece(&model, "bc", -1, NORMAL);  /* 4 */
    put_piece(&model, "a", -9, NORMAL);   /* 5 */
    put_piece(&model, "b", -9, NORMAL);   /* 6 */
    put_piece(&model, "c", -9, NORMAL);   /* 7 */
    put_piece(&model, "abc", -3, NORMAL); /* 8 */
    put_piece(&model, "<c>", 0, CONTROL); /* 9 */
    tokenizer = open_model(&model);
    expect_ids(tokenizer, "ab", "3");
    expect_ids(tokenizer, "abc", "8");
    expect_ids(tokenizer, "abab", "3 3");
    expect_ids(tokenizer, "abcbc", "8 4");
    expect_ids(tokenizer, "a<c>bc", "5 9 4");
    mmqi_tokenizer_free(tokenizer);
}
END_TEST

START_TEST(characters_without_a_piece_are_parts_of_others)
{
    struct mmqi_buf model = {0};
    struct mmqi_tokenizer *tokenizer;

    begin_model(&model, BPE);
    put_plain_normalizer(&model);
    put_piece(&model, "a", -1, NORMAL);                        /* 3 */
    put_piece(&model, "xy", -2, NORMAL);                       /* 4 */
    put_piece(&model, "\xE7\x94\xA8\xE6\x88\xB7", -3, NORMAL); /* 5: two of three bytes */
    put_piece(&model, "axy", -4, NORMAL);                      /* 6 */
    tokenizer = open_model(&model);
    ck_assert_int_eq(mmqi_tokenizer_vocab_size(tokenizer), 7);
    expect_ids(tokenizer, "xy", "4");
    expect_ids(tokenizer, "axyxyx", "6 4 0");
    expect_ids(tokenizer, "xqyz\xE7\x94\xA8", "0"); /* a run of unknown ones is one */
    expect_ids(tokenizer, "xaqxy", "0 3 0 4");
    expect_ids(tokenizer, "\xE7\x94\xA8\xE6\x88\xB7\xE7\x94\xA8", "5 0");
    mmqi_tokenizer_free(tokenizer);
}
END_TEST

START_TEST(a_users_piece_is_found_as_it_stands)
{
    struct mmqi_buf model = {0};
    struct mmqi_tokenizer *tokenizer;

    begin_model(&model, BPE);                               /* whose normalizer trims */
    put_piece(&model, "a", -1, NORMAL);                     /* 3 */
    put_piece(&model, "a\xE2\x96\x81", -1, OWN);            /* 4 */
    put_piece(&model, "\xE2\x96\x81", -1, NORMAL);          /* 5 */
    put_piece(&model, "\xE2\x96\x81\xE2\x96\x81", -1, OWN); /* 6: never in trimmed text */
    tokenizer = open_model(&model);
    expect_ids(tokenizer, "a", "5 3");
    expect_ids(tokenizer, "a  a ", "5 4 3");
    mmqi_tokenizer_free(tokenizer);
}
END_TEST

START_TEST(a_unigram_takes_the_best_sum_and_leaves_unused_pieces_out)
{
    struct mmqi_buf model = {0};
    struct mmqi_tokenizer *tokenizer;

    begin_model(&model, UNIGRAM);
    put_plain_normalizer(&model);
    put_piece(&model, "a", -1, NORMAL);    /* 3 */
    put_piece(&model, "b", -1, NORMAL);    /* 4 */
    put_piece(&model, "ab", -3, NORMAL);   /* 5 */
    put_piece(&model, "ba", -1.5, NORMAL); /* 6 */
    put_piece(&model, "aa", -0.5, UNUSED); /* 7 */
    put_piece(&model, "bb", -9, OWN);      /* 8 */
    tokenizer = open_model(&model);
    expect_ids(tokenizer, "ab", "3 4");
    expect_ids(tokenizer, "aba", "3 6");
    expect_ids(tokenizer, "aa", "3 3");
    expect_ids(tokenizer, "abba", "3 8 3");
    expect_ids(tokenizer, "x\xC3\xA9yba", "0 6");
    expect_ids(tokenizer, "", "");
    mmqi_tokenizer_free(tokenizer);
}
END_TEST

START_TEST(settings_of_the_config_beside_a_model_count)
{
    static const struct {
        const char *config, *ids;
    } cases[] = {
        {"{}", "1 4 2 4"},
        {"{\"add_bos_token\":false}", "4 2 4"},
        {"{\"add_eos_token\":true}", "1 4 2 4 2"},
        {"{\"legacy\":false}", "1 4 2 3"},
        {"{\"legacy\":null,\"bos_token\":null}", "1 4 2 4"},
        {"{\"bos_token\":\"</s>\"}", "2 4 2 4"},
        {"{\"bos_token\":{\"content\":\"</s>\"},\"add_eos_token\":true,\"eos_token\":\"<s>\"}",
         "2 4 2 4 1"},
    };
    struct mmqi_buf model = {0};
    struct mmqi_tokenizer *tokenizer;

    begin_model(&model, BPE);
    put_piece(&model, "a", -2, NORMAL); /* 3 */
    put_piece(&model,
              "\xE2\x96\x81"
              "a",
              -1, NORMAL);                         /* 4 */
    put_piece(&model, "\xE2\x96\x81", -3, NORMAL); /* 5 */
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        put_file("tokenizer.model", model.data, model.size);
        put_text("tokenizer_config.json", cases[i].config);
        tokenizer = open_good();
        expect_around(tokenizer, "a</s>a", cases[i].ids);
        mmqi_tokenizer_free(tokenizer);
    }
    put_file("tokenizer.model", model.data, model.size);
    put_text("tokenizer_config.json", "{\"bos_token\":\"<bos>\"}");
    refuse_files(MMQ_ERR_FORMAT, "bos_token '<bos>'");
    put_file("tokenizer.model", model.data, model.size);
    put_text("tokenizer_config.json", "{\"legacy\":1}");
    refuse_files(MMQ_ERR_FORMAT, "legacy");
    mmqi_buf_free(&model);
}
END_TEST

START_TEST(every_token_that_a_config_adds_is_cut_out_of_raw_text)
{
    struct mmqi_buf model = {0};
    struct mmqi_tokenizer *tokenizer;

    begin_model(&model, BPE);
    put_piece(&model, "a", -2, NORMAL);
    put_piece(&model,
              "\xE2\x96\x81"
              "a",
              -1, NORMAL); /* 4 */
    put_piece(&model, "\xE2\x96\x81", -3, NORMAL);
    put_file("tokenizer.model", model.data, model.size);
    put_text("tokenizer_config.json",
             "{\"added_tokens_decoder\":{\"6\":{\"content\":\"<n>\",\"normalized\":true,"
             "\"special\":false},\"7\":{\"content\":\"<i>\",\"special\":true}}}");
    tokenizer = open_good();
    expect_ids(tokenizer, "a<n>a<i>a", "4 6 4 7 4");
    ck_assert(!mmqi_tokenizer_is_special(tokenizer, 6));
    ck_assert(mmqi_tokenizer_is_special(tokenizer, 7));
    mmqi_tokenizer_free(tokenizer);
    mmqi_buf_free(&model);
}
END_TEST

START_TEST(a_users_pieces_stay_whole_before_and_behind_the_rules)
{
    struct mmqi_tokenizer *tokenizer = open_tokenizer(source_path("test/golden/tokenizers/sp_bpe"));
    int32_t line = mmqi_tokenizer_id(tokenizer, "\n");

    ck_assert_ptr_nonnull(tokenizer);
    ck_assert_int_ge(line, 0);
    ck_assert(!mmqi_tokenizer_is_special(tokenizer, line));
    expect_ids(tokenizer, "\n",
               support_text("%d %d", /* the space before it, then it */
                            (int)mmqi_tokenizer_id(tokenizer, "\xE2\x96\x81"), (int)line));
    mmqi_tokenizer_free(tokenizer);
}
END_TEST

START_TEST(refuses_models_that_contradict_themselves)
{
    static const struct {
        const char *text;
        float score;
        uint64_t type;
        int32_t status;
        const char *said;
    } pieces[] = {
        {"", 0, NORMAL, MMQ_ERR_FORMAT, "piece 3 has no text"},
        {"<s>", 0, NORMAL, MMQ_ERR_FORMAT, "twice"},
        {"\xFF", 0, NORMAL, MMQ_ERR_FORMAT, "UTF-8"},
        {"\xE2\x96", 0, NORMAL, MMQ_ERR_FORMAT, "UTF-8"},
        {"a", __builtin_nanf(""), NORMAL, MMQ_ERR_FORMAT, "not finite"},
        {"a", -__builtin_inff(), NORMAL, MMQ_ERR_FORMAT, "not finite"},
        {"a", 0, 0, MMQ_ERR_FORMAT, "type 0"},
        {"a", 0, 7, MMQ_ERR_FORMAT, "type 7"},
        {"a", 0, UINT64_C(1) << 40, MMQ_ERR_FORMAT, "field 3"},
        {"a", 0, UNKNOWN, MMQ_ERR_FORMAT, "second unknown"},
        {"a", 0, UNUSED, MMQ_ERR_UNSUPPORTED, "unused"},
        {"<0x0A>", 0, BYTE, MMQ_ERR_FORMAT, "1 pieces are bytes"},
    };

    for (size_t i = 0; i < sizeof pieces / sizeof *pieces; i++) {
        struct mmqi_buf model = {0};

        begin_model(&model, BPE);
        put_piece(&model, pieces[i].text, pieces[i].score, pieces[i].type);
        refuse_model(&model, pieces[i].status, pieces[i].said);
    }
}
END_TEST

/* A part of a model behind begin_model(): numbers of the trainer or the normalizer, or bytes. */
static void refuse_part(uint32_t part, uint32_t field, uint64_t number, const char *bytes,
                        size_t size, int32_t status, const char *said)
{
    struct mmqi_buf model = {0}, inner = {0};

    begin_model(&model, BPE);
    if (bytes)
        put_bytes(&inner, field, bytes, size);
    else
        put_number(&inner, field, number);
    put_part(&model, part, &inner);
    refuse_model(&model, status, said);
}

START_TEST(refuses_settings_of_a_model_that_it_does_not_run)
{
    static const char bad_text[] = "\4\0\0\0\0\0\0\0a\0\xFF\0";
    char long_text[8 + 258] = "\4";

    refuse_part(2, 3, 3, NULL, 0, MMQ_ERR_UNSUPPORTED, "model type 3");
    refuse_part(2, 24, 1, NULL, 0, MMQ_ERR_UNSUPPORTED, "treat_whitespace_as_suffix");
    refuse_part(2, 35, 1, NULL, 0, MMQ_ERR_FORMAT, "0 pieces are bytes");
    refuse_part(2, 3, 0, "x", 1, MMQ_ERR_FORMAT, "field 3 has wire type 2");
    refuse_part(3, 3, 0, "x", 1, MMQ_ERR_FORMAT, "normalizer_spec: field 3");
    refuse_part(3, 2, 7, NULL, 0, MMQ_ERR_FORMAT, "normalizer_spec: field 2");
    refuse_part(3, 2, 0, "abc", 3, MMQ_ERR_FORMAT, "3 bytes are no rules");
    refuse_part(3, 2, 0, "\0\0\0\0", 4, MMQ_ERR_FORMAT, "no rules");
    refuse_part(3, 2, 0, "\3\0\0\0abcd", 8, MMQ_ERR_FORMAT, "no rules");
    refuse_part(3, 2, 0,
                "\xFF\xFF\xFF\xFF"
                "abcd",
                8, MMQ_ERR_FORMAT, "no rules");
    refuse_part(3, 2, 0, bad_text, sizeof bad_text - 1, MMQ_ERR_FORMAT, "not UTF-8");
    memset(long_text + 8, ' ', 257);
    refuse_part(3, 2, 0, long_text, sizeof long_text, MMQ_ERR_FORMAT, "at most 256 bytes");
    refuse_part(5, 2, 0, "abcd", 4, MMQ_ERR_UNSUPPORTED, "denormalizer_spec");
}
END_TEST

START_TEST(refuses_what_is_no_message)
{
    static const struct {
        const char *bytes;
        size_t size;
        const char *said;
    } cases[] = {
        {"\x0A", 1, "a number goes past the end"},
        {"\x0A\x05"
         "ab",
         4, "a field goes past the end"},
        {"\x0A\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\x01", 11, "a field goes past the end"},
        {"\x0A\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\x02", 11, "more than 64 bits"},
        {"\x0A\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01", 12, "more than 64 bits"},
        {"\x0A\x80", 2, "a number goes past the end"},
        {"\x02\x01"
         "a",
         3, "no field has such a number"},
        {"\xFA\xFF\xFF\xFF\xFF\x01\x01"
         "a",
         8, "no field has such a number"},
        {"\x0B\x0C", 2, "a wire type"},
        {"\x0F\x0C", 2, "a wire type"},
        {"\x09\1\2\3\4\5\6\7", 8, "a number goes past the end"},
        {"\x0D\1\2\3", 4, "a number goes past the end"},
        {"\x08\x01", 2, "field 1 has wire type 0"},
        {"\x12\x00", 2, "there are no pieces"},
        {"", 0, "there are no pieces"},
    };

    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        put_file("tokenizer.model", cases[i].bytes, cases[i].size);
        refuse_files(MMQ_ERR_FORMAT, cases[i].said);
    }
}
END_TEST

START_TEST(fields_of_other_numbers_are_passed_over)
{
    struct mmqi_buf model = {0};
    struct mmqi_tokenizer *tokenizer;

    put_number(&model, 536870911, UINT64_MAX);
    put_bytes(&model, 200, "whatever", 8);
    begin_model(&model, BPE);
    put_piece(&model, "a", 0, NORMAL);
    put_varint(&model, 9 << 3 | MMQI_PROTO_FIXED64);
    mmqi_buf_append(&model, "12345678", 8);
    tokenizer = open_model(&model);
    ck_assert_int_eq(mmqi_tokenizer_vocab_size(tokenizer), 4);
    mmqi_tokenizer_free(tokenizer);
}
END_TEST

/* Our own files, each spoilt in many ways: they are refused, or give ids of the vocabulary. */
static const char *const spoilt[] = {"sp_bpe_rules/tokenizer.model", "sp_unigram/tokenizer.model",
                                     "sp_bpe/tokenizer.model", "llama3/tokenizer.model"};

static void try_spoilt(const char *data, size_t size)
{
    static const char text[] = "the d\xC3\xA9j\xC3\xA0 \xEF\xAC\x81nal <img>\n \xEF\xBC\xA1 of";
    struct mmqi_tokenizer *tokenizer = NULL;
    struct mmqi_ids ids = {0};

    put_file("tokenizer.model", data, size);
    if (open_files(&tokenizer) != MMQ_OK) {
        ck_assert_ptr_null(tokenizer);
        ck_assert_str_ne(mmqi_message(), "");
        return;
    }
    ck_assert_int_eq(mmqi_tokenizer_encode(tokenizer, &ids, text, sizeof text - 1, 0), MMQ_OK);
    for (size_t i = 0; i < ids.n; i++)
        ck_assert_int_lt(ids.data[i], mmqi_tokenizer_vocab_size(tokenizer));
    mmqi_free(ids.data);
    mmqi_tokenizer_free(tokenizer);
}

START_TEST(spoilt_models_are_refused_or_run)
{
    size_t size = 0, step, i;
    char *good =
        read_whole(source_path(support_text("test/golden/tokenizers/%s", spoilt[_i])), &size);
    char *bad = malloc(size);

    ck_assert_ptr_nonnull(good);
    step = size / 500 + 1;
    for (i = 0; i < size; i += step)
        try_spoilt(good, i);
    for (i = _i % step; i < size; i += step) {
        memcpy(bad, good, size);
        bad[i] = (char)(bad[i] ^ (1 << (i / step % 8)));
        try_spoilt(bad, size);
        bad[i] = (char)0xFF;
        try_spoilt(bad, size);
    }
    free(bad);
    free(good);
}
END_TEST

START_TEST(any_rules_leave_a_text_utf8_and_come_to_an_end)
{
    enum { UNITS = 64, TEXTS = 32 };
    struct mmqi_spell_options options = {true, true, true};
    struct mmqi_stage stage = {.kind = &mmqi_spell_kind};
    unsigned char rules[4 + 4 * UNITS + TEXTS] = {(4 * UNITS) & 0xFF, (4 * UNITS) >> 8};
    struct mmqi_buf out = {0};
    uint32_t random = 1;

    for (int round = 0; round < 3000; round++) {
        for (size_t i = 4; i < sizeof rules; i++) {
            random = random * 1664525 + 1013904223;
            rules[i] = (unsigned char)(random >> 24);
            if (i >= 4 + 4 * UNITS)
                rules[i] = i % 5 == 0 ? 0 : "a \xC3\xA9 "[i % 5];
            else if (i % 4 == 2) /* small offsets, so that nodes are met */
                rules[i] &= 0x0F;
            else if (i % 4 >= 2)
                rules[i] &= i % 4 == 3 ? 0x80 : 0;
            else if (i % 4 == 0 && round % 2)
                rules[i] = (unsigned char)"ab \xC3\xA9"[random >> 8 & 3];
        }
        if (mmqi_spell_create(&stage.spell, "rules", &options, (char *)rules, sizeof rules) !=
            MMQ_OK)
            continue;
        ck_assert_int_eq(mmqi_spell_seal(stage.spell), MMQ_OK);
        mmqi_buf_clear(&out);
        mmqi_spell_kind.normalize(&stage, &out, "abba \xC3\xA9 a\xE2\x82\xAC", 12);
        ck_assert(!mmqi_buf_failed(&out));
        ck_assert(mmqi_utf8_valid(out.data ? out.data : "", out.size));
        mmqi_spell_free(stage.spell);
    }
    mmqi_buf_free(&out);
}
END_TEST

START_TEST(tokens_of_any_length_are_read_in_linear_time)
{
    enum { LONGEST = 1 << 20 };
    struct mmqi_buf model = {0};
    struct mmqi_tokenizer *tokenizer;
    char *text = malloc(LONGEST + 1);

    memset(text, 'a', LONGEST);
    begin_model(&model, BPE);
    put_plain_normalizer(&model);
    for (size_t size = 1; size <= LONGEST; size *= 2) {
        text[size] = '\0';
        put_piece(&model, text, 0, NORMAL);
        if (size < LONGEST)
            text[size] = 'a';
    }
    tokenizer = open_model(&model);
    expect_ids(tokenizer, text, "23"); /* doubled twenty times */
    mmqi_tokenizer_free(tokenizer);
    begin_model(&model, UNIGRAM);
    put_piece(&model, text, 0, NORMAL);
    refuse_model(&model, MMQ_ERR_LIMIT, "1048576 bytes");
    free(text);
}
END_TEST

START_TEST(a_whole_may_rank_before_its_parts)
{
    struct mmqi_buf model = {0};
    struct mmqi_tokenizer *tokenizer;

    begin_model(&model, BPE);
    put_plain_normalizer(&model);
    put_piece(&model, "abc", -1, NORMAL); /* 3: once there is an ab, before all others */
    put_piece(&model, "cd", -2, NORMAL);  /* 4 */
    put_piece(&model, "ab", -3, NORMAL);  /* 5 */
    put_piece(&model, "a", -9, NORMAL);   /* 6 */
    put_piece(&model, "b", -9, NORMAL);   /* 7 */
    put_piece(&model, "c", -9, NORMAL);   /* 8 */
    put_piece(&model, "d", -9, NORMAL);   /* 9 */
    put_piece(&model, "acb", -1, NORMAL); /* 10: nothing ever becomes it */
    tokenizer = open_model(&model);
    expect_ids(tokenizer, "abc", "3");
    expect_ids(tokenizer, "abcd", "5 4");
    expect_ids(tokenizer, "abcabcd", "3 5 4");
    expect_ids(tokenizer, "acb", "6 8 7");
    mmqi_tokenizer_free(tokenizer);
}
END_TEST

/* ---- ranks ---- */

/* "BASE64 RANK" of the bytes 0 to 255, less one of them. */
static char *byte_lines(int without)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    char *lines = calloc(256, 16), *end = lines;

    for (int i = 0; i < 256; i++)
        if (i != without)
            end += sprintf(end, "%c%c== %d\n", digits[i >> 2], digits[(i & 3) << 4], i);
    return lines;
}

static void refuse_lines(const char *bytes, const char *more, int32_t status, const char *said)
{
    char *text = malloc(strlen(bytes) + strlen(more) + 1);

    sprintf(text, "%s%s", bytes, more);
    put_text("qwen.tiktoken", text);
    refuse_files(status, said);
    free(text);
}

START_TEST(refuses_rank_files_that_lie)
{
    char *bytes = byte_lines(-1), *lack = byte_lines(65);

    refuse_lines("", "", MMQ_ERR_FORMAT, "no token for byte 0");
    refuse_lines(lack, "", MMQ_ERR_FORMAT, "no token for byte 65");
    refuse_lines(bytes, "YWI=\n", MMQ_ERR_FORMAT, "line 257 is not");
    refuse_lines(bytes, "YWI= \n", MMQ_ERR_FORMAT, "line 257 is not");
    refuse_lines(bytes, "YWI= 2x\n", MMQ_ERR_FORMAT, "line 257 is not");
    refuse_lines(bytes, "YWI= -1\n", MMQ_ERR_FORMAT, "line 257 is not");
    refuse_lines(bytes, "YW*= 256\n", MMQ_ERR_FORMAT, "line 257 is not");
    refuse_lines(bytes, "YWI 256\n", MMQ_ERR_FORMAT, "line 257 is not");
    refuse_lines(bytes, " 256\n", MMQ_ERR_FORMAT, "line 257 is not");
    refuse_lines(bytes, "==== 256\n", MMQ_ERR_FORMAT, "line 257 is not");
    refuse_lines(bytes, "YWI= 255\n", MMQ_ERR_FORMAT, "id 255");
    refuse_lines(bytes, "YQ== 256\n", MMQ_ERR_FORMAT, "twice");
    refuse_lines(bytes, "YWI= 4194304\n", MMQ_ERR_FORMAT, "4194304");
    refuse_lines(bytes, "YWI= 99999999999999999999\n", MMQ_ERR_FORMAT, "line 257 is not");
    refuse_lines(bytes, "YWI= 257\n", MMQ_ERR_FORMAT, "has the id 257 of");
    free(bytes);
    free(lack);
}
END_TEST

START_TEST(line_ends_of_every_kind_are_read)
{
    struct mmqi_tokenizer *tokenizer;
    char *bytes = byte_lines(-1), *text = malloc(8192);

    sprintf(text, "%s\r\n\nYWI= 256\r\n\n", bytes);
    put_text("qwen.tiktoken", text);
    tokenizer = open_good();
    expect_ids(tokenizer, "abb<|endoftext|>a", "256 98 257 97");
    expect_around(tokenizer, "a", "97"); /* Qwen begins with nothing */
    mmqi_tokenizer_free(tokenizer);
    free(bytes);
    free(text);
}
END_TEST

START_TEST(a_config_may_name_special_tokens_of_llama3_otherwise)
{
    struct mmqi_tokenizer *tokenizer;
    char *bytes = byte_lines(-1);

    put_text("tokenizer.model", bytes);
    put_text("tokenizer_config.json",
             "{\"added_tokens_decoder\":{\"260\":{\"content\":\"<|mine|>\",\"special\":true},"
             "\"512\":{\"content\":\"<|image|>\",\"special\":true}},"
             "\"bos_token\":\"<|begin_of_text|>\"}");
    tokenizer = open_good();
    ck_assert_str_eq(mmqi_tokenizer_content(tokenizer, 260), "<|mine|>");
    ck_assert_int_eq(mmqi_tokenizer_id(tokenizer, "<|finetune_right_pad_id|>"), -1);
    ck_assert_int_eq(mmqi_tokenizer_id(tokenizer, "<|eot_id|>"), 256 + 9);
    ck_assert_int_eq(mmqi_tokenizer_id(tokenizer, "<|reserved_special_token_247|>"), 511);
    expect_around(tokenizer, "a<|image|><|mine|>", "256 97 512 260");
    mmqi_tokenizer_free(tokenizer);
    free(bytes);
}
END_TEST

/* ---- tekken ---- */

/* All bytes and "ab", with this config and what `more` adds at the top level. */
static char *tekken_text(const char *config, const char *more)
{
    char *lines = byte_lines(-1), *text = calloc(1, 65536), *line, *rest = lines, *end = text;
    int n = 0;

    end += sprintf(end, "{%s\"config\":{%s},\"vocab\":[", more, config);
    while ((line = strsep(&rest, "\n")) != NULL && *line)
        end +=
            sprintf(end, "{\"rank\":%d,\"token_bytes\":\"%.4s\",\"token_str\":null},", n++, line);
    sprintf(end, "{\"rank\":256,\"token_bytes\":\"YWI=\",\"token_str\":\"ab\"}]}");
    free(lines);
    return text;
}

#define TEKKEN_CONFIG                                                                              \
    "\"pattern\":\"\\\\p{L}+\",\"default_vocab_size\":277,"                                        \
    "\"default_num_special_tokens\":20"

START_TEST(special_ids_of_tekken_come_first_and_the_list_may_be_longer)
{
    char *all = tekken_text(TEKKEN_CONFIG, ""), *fewer;
    struct mmqi_tokenizer *tokenizer;

    put_text("tekken.json", all);
    tokenizer = open_good();
    expect_around(tokenizer, "ab[IMG]b", "1 276 10 118");
    ck_assert_int_eq(mmqi_tokenizer_vocab_size(tokenizer), 277);
    mmqi_tokenizer_free(tokenizer);
    fewer = tekken_text("\"pattern\":\"\\\\p{L}+\",\"default_vocab_size\":260,"
                        "\"default_num_special_tokens\":4",
                        "\"special_tokens\":[{\"rank\":0,\"token_str\":\"<s>\"},"
                        "{\"rank\":1,\"token_str\":\"[A]\"}],");
    put_text("tekken.json", fewer);
    tokenizer = open_good();
    expect_around(tokenizer, "ab[A]<SPECIAL_3>", "0 101 102 1 3");
    mmqi_tokenizer_free(tokenizer);
    free(all);
    free(fewer);
}
END_TEST

static void refuse_tekken(const char *config, const char *more, int32_t status, const char *said)
{
    char *text = tekken_text(config, more);

    put_text("tekken.json", text);
    refuse_files(status, said);
    free(text);
}

START_TEST(refuses_tekken_files_that_lie)
{
    static const char pattern[] = "\"pattern\":\"a\",";

    put_text("tekken.json", "[]");
    refuse_files(MMQ_ERR_FORMAT, "object");
    put_text("tekken.json", "{\"vocab\":[]}");
    refuse_files(MMQ_ERR_FORMAT, "no 'config'");
    put_text("tekken.json", "{\"config\":{" TEKKEN_CONFIG "}}");
    refuse_files(MMQ_ERR_FORMAT, "no 'vocab'");
    put_text("tekken.json", "{\"config\":7,\"vocab\":[]}");
    refuse_files(MMQ_ERR_FORMAT, "neither");
    put_text("tekken.json", "{\"config\":{" TEKKEN_CONFIG "},\"vocab\":[]} x");
    refuse_files(MMQ_ERR_FORMAT, "");
    put_text("tekken.json", "{\"config\":{" TEKKEN_CONFIG "},\"vocab\":[7]}");
    refuse_files(MMQ_ERR_FORMAT, "not an object");
    put_text("tekken.json", "{\"config\":{" TEKKEN_CONFIG "},\"vocab\":"
                            "[{\"rank\":0,\"token_bytes\":\"?\"}]}");
    refuse_files(MMQ_ERR_FORMAT, "not base64");
    put_text("tekken.json", "{\"config\":{" TEKKEN_CONFIG "},\"vocab\":"
                            "[{\"rank\":1,\"token_bytes\":\"AA==\"}]}");
    refuse_files(MMQ_ERR_FORMAT, "entry 0 has rank 1");
    refuse_tekken("\"pattern\":\"(\",\"default_vocab_size\":266,\"default_num_special_tokens\":10",
                  "\"special_tokens\":[],", MMQ_ERR_UNSUPPORTED, "Regex");
    refuse_tekken(pattern, "", MMQ_ERR_FORMAT, "");
    refuse_tekken("\"pattern\":\"a\"", "", MMQ_ERR_FORMAT, "default_vocab_size");
    refuse_tekken("\"pattern\":\"a\",\"default_vocab_size\":-1,\"default_num_special_tokens\":1",
                  "", MMQ_ERR_FORMAT, "-1");
    refuse_tekken("\"pattern\":\"a\",\"default_vocab_size\":5,\"default_num_special_tokens\":6", "",
                  MMQ_ERR_FORMAT, "5 ids, of which 6");
    refuse_tekken("\"pattern\":\"a\",\"default_vocab_size\":900,\"default_num_special_tokens\":20",
                  "", MMQ_ERR_FORMAT, "257 entries, 880");
    refuse_tekken("\"pattern\":\"a\",\"default_vocab_size\":100,\"default_num_special_tokens\":20",
                  "", MMQ_ERR_FORMAT, "no token for byte 80");
    refuse_tekken("\"pattern\":\"a\",\"default_vocab_size\":266,\"default_num_special_tokens\":10",
                  "", MMQ_ERR_FORMAT, "rank 10 of 10");
    refuse_tekken("\"pattern\":\"a\",\"default_vocab_size\":4000256,"
                  "\"default_num_special_tokens\":4000000",
                  "\"special_tokens\":[],", MMQ_ERR_LIMIT, "4000000 special ids");
    refuse_tekken(TEKKEN_CONFIG, "\"special_tokens\":[{\"rank\":0,\"token_str\":\"\"}],",
                  MMQ_ERR_FORMAT, "rank 0 has no text");
    refuse_tekken(TEKKEN_CONFIG,
                  "\"special_tokens\":[{\"rank\":0,\"token_str\":\"x\"},"
                  "{\"rank\":1,\"token_str\":\"x\"}],",
                  MMQ_ERR_FORMAT, "twice");
}
END_TEST

/* ---- the folder ---- */

START_TEST(the_first_spelling_that_is_there_is_read)
{
    static const char json[] = "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":7},\"merges\":[]}}";
    char *bytes = byte_lines(-1), *tekken = tekken_text(TEKKEN_CONFIG, "");
    const struct {
        const char *file, *text, *ids;
    } all[] = {{"tokenizer.json", json, "7"},
               {"tekken.json", tekken, "117"},
               {"tokenizer.model", bytes, "97"},
               {"qwen.tiktoken", bytes, "97"}};
    struct mmqi_tokenizer *tokenizer;
    enum { N = sizeof all / sizeof *all };

    for (size_t first = 0; first < N; first++) {
        for (size_t i = N; i-- > first;)
            put_text(all[i].file, i > first ? "rubbish" : all[i].text);
        tokenizer = open_good();
        expect_ids(tokenizer, "a", all[first].ids);
        mmqi_tokenizer_free(tokenizer);
    }
    free(bytes);
    free(tekken);
}
END_TEST

START_TEST(a_folder_without_a_tokenizer_is_told_what_was_looked_for)
{
    put_text("config.json", "{}");
    refuse_files(MMQ_ERR_NOT_FOUND, "tokenizer.json, tekken.json, tokenizer.model, qwen.tiktoken, "
                                    "vocab.json");
}
END_TEST

/* ---- allocations that are refused ---- */

/* Open and encode with a number of allocations; true when that was enough. */
static bool open_with(struct scarce *scarce, const char *folder)
{
    static const char input[] = "the dog <img> \xEF\xAC\x81nal 12 \xFF <s> \n";
    const struct mmqi_mem_hooks hooks = {scarce_alloc, scarce_free, scarce};
    struct mmqi_tokenizer *tokenizer = NULL;
    struct mmqi_store *store = NULL;
    struct mmqi_ids ids = {0};
    int32_t status;

    mmqi_mem_enter(&hooks);
    status = mmqi_store_open_folder(&store, folder);
    if (status == MMQ_OK)
        status = mmqi_tokenizer_open(&tokenizer, store);
    if (status == MMQ_OK)
        status =
            mmqi_tokenizer_encode(tokenizer, &ids, input, sizeof input - 1, MMQI_TOKENIZE_POST);
    mmqi_free(ids.data);
    mmqi_tokenizer_free(tokenizer);
    mmqi_store_release(store);
    mmqi_mem_enter(NULL);
    ck_assert_msg(status == MMQ_OK || status == MMQ_ERR_NOMEM, "%d: %s", (int)status,
                  mmqi_message());
    ck_assert_uint_eq(scarce->live, 0);
    return status == MMQ_OK;
}

static const char *const scarce_folders[] = {"sp_bpe_rules", "sp_unigram", "qwen", "llama3",
                                             "tekken_listed"};

START_TEST(a_refused_allocation_is_a_status_and_leaks_nothing)
{
    const char *folder = source_path(support_text("test/golden/tokenizers/%s", scarce_folders[_i]));
    bool enough = false;
    size_t n;

    for (n = 0; !enough && n < 100000; n += 1 + n / 200) {
        struct scarce scarce = {.left = n};

        enough = open_with(&scarce, folder);
    }
    ck_assert(enough);
    ck_assert_uint_gt(n, 20);
}
END_TEST

START_TEST(a_model_file_is_told_by_its_content)
{
    ck_assert(mmqi_tokenizer_is_tiktoken("YQ== 0\nYg== 1\n", 14));
    ck_assert(mmqi_tokenizer_is_tiktoken("YQ== 0", 6));
    ck_assert(mmqi_tokenizer_is_tiktoken("YQ== 0\r\n", 8));
    ck_assert(!mmqi_tokenizer_is_tiktoken("", 0));
    ck_assert(!mmqi_tokenizer_is_tiktoken("\n", 1));
    ck_assert(!mmqi_tokenizer_is_tiktoken("YQ==", 4));
    ck_assert(!mmqi_tokenizer_is_tiktoken("YQ= 0\n", 6));
    ck_assert(!mmqi_tokenizer_is_tiktoken("\n\x0E\n\x05<unk>", 9));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("tokenizer_files");
    TCase *pieces = tcase_create("pieces"), *ranks = tcase_create("ranks");
    TCase *folder = tcase_create("folder");
    SRunner *runner;
    int failed;

    tcase_set_timeout(pieces, 60);
    tcase_add_test(pieces, pieces_of_equal_scores_are_merged_from_the_left);
    tcase_add_test(pieces, a_score_above_another_wins_wherever_it_is);
    tcase_add_test(pieces, characters_without_a_piece_are_parts_of_others);
    tcase_add_test(pieces, a_users_piece_is_found_as_it_stands);
    tcase_add_test(pieces, a_unigram_takes_the_best_sum_and_leaves_unused_pieces_out);
    tcase_add_test(pieces, settings_of_the_config_beside_a_model_count);
    tcase_add_test(pieces, every_token_that_a_config_adds_is_cut_out_of_raw_text);
    tcase_add_test(pieces, a_users_pieces_stay_whole_before_and_behind_the_rules);
    tcase_add_test(pieces, refuses_models_that_contradict_themselves);
    tcase_add_test(pieces, refuses_settings_of_a_model_that_it_does_not_run);
    tcase_add_test(pieces, refuses_what_is_no_message);
    tcase_add_test(pieces, fields_of_other_numbers_are_passed_over);
    tcase_add_loop_test(pieces, spoilt_models_are_refused_or_run, 0,
                        sizeof spoilt / sizeof *spoilt);
    tcase_add_test(pieces, any_rules_leave_a_text_utf8_and_come_to_an_end);
    tcase_add_test(pieces, tokens_of_any_length_are_read_in_linear_time);
    tcase_add_test(pieces, a_whole_may_rank_before_its_parts);
    suite_add_tcase(suite, pieces);
    tcase_add_test(ranks, refuses_rank_files_that_lie);
    tcase_add_test(ranks, line_ends_of_every_kind_are_read);
    tcase_add_test(ranks, a_config_may_name_special_tokens_of_llama3_otherwise);
    tcase_add_test(ranks, special_ids_of_tekken_come_first_and_the_list_may_be_longer);
    tcase_add_test(ranks, refuses_tekken_files_that_lie);
    suite_add_tcase(suite, ranks);
    tcase_add_test(folder, the_first_spelling_that_is_there_is_read);
    tcase_add_test(folder, a_folder_without_a_tokenizer_is_told_what_was_looked_for);
    tcase_add_test(folder, a_model_file_is_told_by_its_content);
    tcase_add_loop_test(folder, a_refused_allocation_is_a_status_and_leaks_nothing, 0,
                        sizeof scarce_folders / sizeof *scarce_folders);
    suite_add_tcase(suite, folder);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed > 0;
}
