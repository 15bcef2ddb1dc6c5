/*
 * src/text: the files other than tokenizer.json in which a tokenizer may come, against what the
 * libraries they are made for give; and a folder's choice among them.
 */
#include <jansson.h>
#include <unistd.h>

#include "tokenizing.h"
#include "vectors.h"

#include "io/file.h"
#include "scratch.h"
#include "text/tokenizer_files.h"

typedef int32_t parse_file(struct mmqi_tokenizer **out, const char *name, const char *data,
                           size_t size, const struct mmqi_tokenizer_extras *extras);

/* ---- the real files beside the checkout ---- */

static struct mmqi_tokenizer *load_with(parse_file *parse, const char *path,
                                        const struct mmqi_tokenizer_extras *extras)
{
    struct mmqi_tokenizer *tokenizer = NULL;
    size_t size = 0;
    char *data = read_whole(path, &size);

    if (!data)
        return NULL;
    ck_assert_msg(parse(&tokenizer, path, data, size, extras) == MMQ_OK, "%s", mmqi_message());
    free(data);
    return tokenizer;
}

static const char *unpacked(const char *name)
{
    return source_path(support_text("build/tokenizers/%s", name));
}

static void hold_vectors(struct mmqi_tokenizer *tokenizer, const char *name)
{
    const char *vectors = shared_path(support_text("golden/tokenizer/%s.json", name));

    if (!tokenizer || !vectors)
        SKIP("the files of %s are absent; make unpacks them where it can", name);
    ck_assert_uint_eq(check_vectors(tokenizer, vectors, "strings"), 127);
    mmqi_tokenizer_free(tokenizer);
}

START_TEST(all_vectors_of_the_sentencepiece_file_of_llama2_hold)
{
    struct mmqi_tokenizer *tokenizer =
        load_with(mmqi_tokenizer_parse_sentencepiece, unpacked("llama2/tokenizer.model"), NULL);

    if (tokenizer) { /* the vectors have them */
        ck_assert_int_eq(mmqi_tokenizer_add(tokenizer, "", "<image>", 7, 32000, 1), MMQ_OK);
        ck_assert_int_eq(mmqi_tokenizer_add(tokenizer, "", "<pad>", 5, 32001, 1), MMQ_OK);
    }
    hold_vectors(tokenizer, "llama2");
}
END_TEST

START_TEST(all_vectors_of_the_rank_file_of_qwen_hold)
{
    hold_vectors(load_with(mmqi_tokenizer_parse_qwen, unpacked("qwen_vl/qwen.tiktoken"), NULL),
                 "qwen_vl");
}
END_TEST

START_TEST(all_vectors_of_the_rank_file_of_llama3_hold)
{
    hold_vectors(load_with(mmqi_tokenizer_parse_llama3, unpacked("llama3_tiktoken/tokenizer.model"),
                           NULL),
                 "llama3_tiktoken");
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("tokenizer_files");
    TCase *real = tcase_create("real files");

    tcase_set_timeout(real, 120);
    tcase_add_test(real, all_vectors_of_the_sentencepiece_file_of_llama2_hold);
    tcase_add_test(real, all_vectors_of_the_rank_file_of_qwen_hold);
    tcase_add_test(real, all_vectors_of_the_rank_file_of_llama3_hold);
    suite_add_tcase(suite, real);
    return support_run(suite);
}
