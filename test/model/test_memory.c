/*
 * How much memory quantizing takes: a checkpoint of 1 GB with an embedding of 400 MB is written to
 * build/tmp (with holes, so that it takes no disk), quantized in processes of their own, and taken
 * away again.
 */
#include <fcntl.h>
#include <sys/wait.h>

#include "core/dtype.h"
#include "core/mem.h"
#include "io/checkpoint.h"
#include "io/safetensors.h"
#include "model/tiny.h"
#include "scratch.h"

#define MIB (UINT64_C(1) << 20)

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED true
#else
#define SANITIZED false
#endif

/* ---- the checkpoint ---- */

static const char config[] =
    "{\"architectures\": [\"LlavaForConditionalGeneration\"], \"image_token_index\": 449,\n"
    " \"model_type\": \"llava\", \"pad_token_id\": 450, \"tie_word_embeddings\": true,\n"
    " \"text_config\": {\"model_type\": \"llama\", \"vocab_size\": 102400, \"hidden_size\": 2048,\n"
    "  \"num_attention_heads\": 32, \"num_key_value_heads\": 4, \"intermediate_size\": 14720,\n"
    "  \"num_hidden_layers\": 3, \"max_position_embeddings\": 512, \"rms_norm_eps\": 1e-05},\n"
    " \"vision_config\": {\"model_type\": \"clip_vision_model\", \"hidden_size\": 48,\n"
    "  \"intermediate_size\": 100, \"num_hidden_layers\": 3, \"num_attention_heads\": 3,\n"
    "  \"image_size\": 42, \"patch_size\": 14, \"projection_dim\": 32},\n"
    " \"vision_feature_layer\": -2, \"vision_feature_select_strategy\": \"default\"}\n";

/* A size of the tiny model's decoder as the large one has it; others stay. */
static int64_t enlarge(int64_t size)
{
    static const int64_t sizes[][2] = {{96, 2048}, {112, 14720}, {456, 102400}, {32, 256}};

    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        if (size == sizes[i][0])
            return sizes[i][1];
    return size;
}

/* The tiny model's tensors, larger, in the file "large/model.safetensors" of nothing but zeros. */
static void write_tensors(void)
{
    struct mmqi_store *store;
    struct mmqi_checkpoint *checkpoint;
    struct mmqi_entry *entries;
    char *header;
    size_t n = 0, header_size;
    uint64_t file_size;
    int fd = open("large/model.safetensors", O_WRONLY | O_CREAT | O_EXCL, 0666);

    ck_assert_int_ge(fd, 0);
    ASSERT_OK(mmqi_store_open_folder(&store, source_path("test/golden/llava_tiny/model")));
    ASSERT_OK(mmqi_checkpoint_open(&checkpoint, store));
    entries = calloc(mmqi_checkpoint_count(checkpoint), sizeof *entries);
    for (size_t i = 0; i < mmqi_checkpoint_count(checkpoint); i++) {
        const struct mmqi_entry *entry = mmqi_checkpoint_entry(checkpoint, i);

        if (strstr(entry->name, "lm_head"))
            continue;
        entries[n] = *entry;
        for (int32_t k = 0; k < entry->rank; k++)
            entries[n].shape[k] = enlarge(entry->shape[k]);
        n++;
    }
    ASSERT_OK(mmqi_safetensors_header(&header, &header_size, &file_size, entries, n, NULL));
    ck_assert_int_eq(write(fd, header, header_size), (ssize_t)header_size);
    ck_assert_int_eq(ftruncate(fd, (off_t)file_size), 0);
    ck_assert_uint_gt(file_size, UINT64_C(1000000000));
    close(fd);
    mmqi_free(header);
    free(entries);
    mmqi_checkpoint_release(checkpoint);
    mmqi_store_release(store);
}

static void enter(void)
{
    char command[8192];
    FILE *file;

    scratch_enter();
    snprintf(command, sizeof command,
             "cp -r '%s' large && chmod -R u+w large && rm large/model.safetensors",
             source_path("test/golden/llava_tiny/model"));
    ck_assert_int_eq(system(command), 0);
    file = fopen("large/config.json", "w");
    ck_assert_ptr_nonnull(file);
    ck_assert_uint_eq(fwrite(config, 1, sizeof config - 1, file), sizeof config - 1);
    fclose(file);
    write_tensors();
}

/* ---- measuring ---- */

/* What a child tells: the bytes that its result takes, and the most that it took beside files. */
struct taken {
    uint64_t result, peak;
};

static uint64_t status_kib(const char *text, const char *key)
{
    const char *at = strstr(text, key);

    return at ? strtoull(at + strlen(key), NULL, 10) : 0;
}

/* Greatest memory of this process so far that no file lies behind. */
static uint64_t peak_anonymous(void)
{
    char text[8192];
    int fd = open("/proc/self/status", O_RDONLY);
    ssize_t n = fd >= 0 ? read(fd, text, sizeof text - 1) : -1;

    if (n <= 0)
        return 0;
    close(fd);
    text[n] = '\0';
    return (status_kib(text, "VmHWM:") - status_kib(text, "RssFile:")) * 1024;
}

/* Run `work` in a process of its own. */
static struct taken measure(bool (*work)(const char *policy, uint64_t *result), const char *policy)
{
    struct taken taken = {0, 0};
    int ends[2], how;
    pid_t child;

    ck_assert_int_eq(pipe(ends), 0);
    child = fork();
    if (child == 0) {
        if (!work(policy, &taken.result)) {
            fprintf(stderr, "%s\n", mmq_last_error_message());
            _exit(1);
        }
        taken.peak = peak_anonymous();
        _exit(write(ends[1], &taken, sizeof taken) == sizeof taken ? 0 : 1);
    }
    close(ends[1]);
    ck_assert_int_eq(read(ends[0], &taken, sizeof taken), (ssize_t)sizeof taken);
    ck_assert_int_eq(waitpid(child, &how, 0), child);
    ck_assert(WIFEXITED(how) && WEXITSTATUS(how) == 0);
    close(ends[0]);
    printf("%s: result %.0f MiB, peak %.0f MiB\n", policy, (double)taken.result / (double)MIB,
           (double)taken.peak / (double)MIB);
    fflush(stdout);
    return taken;
}

static bool load(mmq_model **model, const char *quantize)
{
    mmq_load_options options = {.struct_size = sizeof options, .quantize = quantize};

    return mmq_load(model, "large", &options) == MMQ_OK;
}

/* What mmq-quantize does. */
static bool file_to_file(const char *policy, uint64_t *result)
{
    mmq_quantize_options options = {
        .struct_size = sizeof options, .format = policy, .out_path = "out"};
    mmq_report *report;
    mmq_model *model;

    *result = 0; /* none of it stays in memory */
    return load(&model, NULL) && mmq_quantize_layerwise(NULL, model, &options, &report) == MMQ_OK;
}

static bool at_load(const char *policy, uint64_t *result)
{
    mmq_model_facts facts = {.struct_size = sizeof facts};
    mmq_model *model;

    if (!load(&model, policy) || mmq_model_place(model) != MMQ_OK ||
        mmq_model_info(&facts, model) != MMQ_OK)
        return false;
    *result = facts.placed_bytes;
    return true;
}

/* Quantized in memory, then placed on a device whose memory is the host's. */
static bool in_memory(const char *policy, uint64_t *result)
{
    mmq_quantize_options options = {.struct_size = sizeof options, .format = policy};
    mmq_model_facts facts = {.struct_size = sizeof facts};
    mmq_model *source, *model;

    if (!load(&source, NULL) || mmq_quantize_layerwise(&model, source, &options, NULL) != MMQ_OK ||
        mmq_model_place(model) != MMQ_OK || mmq_model_info(&facts, model) != MMQ_OK)
        return false;
    *result = facts.placed_bytes;
    return true;
}

/* ---- promises ---- */

START_TEST(file_to_file_takes_at_most_192_mib)
{
    static const char *const policies[] = {"nf4", "* = nf4-128-nested; language.embed = int8"};

    if (SANITIZED)
        SKIP("a sanitizer takes memory of its own");
    for (size_t i = 0; i < 2; i++) {
        struct taken taken = measure(file_to_file, policies[i]);

        ck_assert_uint_gt(taken.peak, MIB); /* it was measured */
        ck_assert_uint_le(taken.peak, 192 * MIB);
        ck_assert_int_eq(system("rm -r out"), 0);
    }
}
END_TEST

static void takes_its_result(bool (*work)(const char *policy, uint64_t *result), const char *policy,
                             uint64_t least)
{
    struct taken taken = measure(work, policy);

    ck_assert_uint_gt(taken.result, least);
    ck_assert_uint_gt(taken.peak, taken.result);
    ck_assert_uint_le(taken.peak, taken.result + 192 * MIB);
}

START_TEST(quantize_at_load_takes_its_result_and_at_most_192_mib)
{
    if (SANITIZED)
        SKIP("a sanitizer takes memory of its own");
    takes_its_result(at_load, "nf4", 500 * MIB);
    takes_its_result(at_load, "* = nf4-nested", 200 * MIB);
}
END_TEST

START_TEST(a_model_quantized_in_memory_is_not_held_twice)
{
    if (SANITIZED)
        SKIP("a sanitizer takes memory of its own");
    takes_its_result(in_memory, "* = int8", 400 * MIB);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("memory");
    TCase *tests = tcase_create("memory");
    SRunner *runner = srunner_create(suite);
    int failed;

    tcase_add_checked_fixture(tests, enter, scratch_leave);
    tcase_set_timeout(tests, 60);
    tcase_add_test(tests, file_to_file_takes_at_most_192_mib);
    tcase_add_test(tests, quantize_at_load_takes_its_result_and_at_most_192_mib);
    tcase_add_test(tests, a_model_quantized_in_memory_is_not_held_twice);
    suite_add_tcase(suite, tests);
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? 1 : 0;
}
