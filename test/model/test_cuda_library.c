/*
 * libmmq-cuda.so as the library finds it: absent, broken, of another version, without a driver. No
 * graphics card is needed; small libraries that stand for it are compiled here, and the real one is
 * opened where it is built. Whatever is wrong, a status names it and the CPU goes on working.
 */
#include <unistd.h>

#include "backend/host.h"
#include "backend/loader.h"
#include "core/os.h"
#include "model/tiny.h"
#include "scratch.h"

/* ---- libraries that stand for it ---- */

/* Speaks to hosts of number ABI; its devices are counted by COUNT. */
static const char fake_source[] =
    "#include \"backend/host.h\"\n"
    "static int32_t count(const struct mmqi_backend_host *host, int32_t *n)\n"
    "{ *n = 0; return host->fail(-51, \"fake: no driver here\"); }\n"
    "static const struct mmqi_backend backend = {.name = \"cuda\", .count = count};\n"
    "int32_t ENTRY(uint32_t, const struct mmqi_backend_host *, const struct mmqi_backend **);\n"
    "int32_t ENTRY(uint32_t abi, const struct mmqi_backend_host *host,\n"
    "              const struct mmqi_backend **out)\n"
    "{ (void)host; if (abi != ABI) return -12; *out = &backend; return 0; }\n";

static const char *compiler(void)
{
    const char *cc = getenv("CC");

    return cc && *cc ? cc : "cc";
}

/* A machine that tests what was built elsewhere may have neither compiler nor headers. */
static bool can_compile(void)
{
    return access(source_path("src/backend/host.h"), R_OK) == 0 &&
           access(source_path("include/mmq.h"), R_OK) == 0 &&
           system(support_text("command -v %s >/dev/null", compiler())) == 0;
}

#define NEEDS_COMPILER                                                                             \
    if (!can_compile())                                                                            \
    SKIP("no compiler, or no headers of the library")

/* Compile `source` to NAME in the folder of the test. */
static const char *compile(const char *source, const char *name, const char *flags)
{
    FILE *file = fopen("fake.c", "w");

    ck_assert_ptr_nonnull(file);
    fputs(source, file);
    fclose(file);
    ck_assert_int_eq(
        system(support_text("%s -std=gnu11 -shared -fPIC -I'%s' -I'%s' %s -o '%s' fake.c",
                            compiler(), source_path("src"), source_path("include"), flags, name)),
        0);
    return support_text("./%s", name);
}

static const char *make_fake(const char *name, const char *flags)
{
    return compile(fake_source, name, flags);
}

/* ---- what loading says of it ---- */

struct told {
    int n_lines; /* that tell why it is not CUDA */
    char line[600];
};

static void keep_reason(void *user, int32_t level, const char *line)
{
    struct told *told = user;

    (void)level;
    if (!strstr(line, "not on CUDA"))
        return;
    told->n_lines++;
    snprintf(told->line, sizeof told->line, "%s", line);
}

static mmq_status load_with(mmq_model **model, struct told *told, const char *library,
                            const char *device)
{
    mmq_runtime_options options = {.struct_size = sizeof options,
                                   .log = keep_reason,
                                   .log_user = told,
                                   .cuda_library = library};
    mmq_load_options load = {.struct_size = sizeof load, .device = device};
    mmq_runtime *runtime;
    mmq_status status;

    ASSERT_OK(mmq_runtime_create(&runtime, &options));
    load.runtime = runtime;
    status = mmq_load(model, source_path("test/golden/llava_tiny/model"), &load);
    mmq_runtime_free(runtime);
    return status;
}

/* "cuda:0" fails so and says `text`; "auto" works on the CPU with one line in the log that says it;
 * "cpu" looks for no library at all. */
static void check_fallback(const char *library, mmq_status status, const char *text)
{
    struct told told = {0};
    mmq_session *session;
    mmq_model *model;

    ASSERT_FAILS(status, text, load_with(&model, &told, library, "cuda:0"));
    ck_assert_ptr_null(model);
    ck_assert_ptr_nonnull(strstr(mmq_last_error_message(), "cuda:0"));
    ck_assert_int_eq(told.n_lines, 0);
    ASSERT_OK(load_with(&model, &told, library, "cpu"));
    mmq_model_free(model);
    ck_assert_int_eq(told.n_lines, 0);
    ASSERT_OK(load_with(&model, &told, library, "auto"));
    ck_assert_int_eq(told.n_lines, 1);
    ck_assert_msg(strstr(told.line, text) != NULL, "'%s' does not say '%s'", told.line, text);
    ASSERT_OK(mmq_session_create(&session, model, NULL));
    mmq_session_free(session);
    mmq_model_free(model);
}

START_TEST(an_absent_library_is_named_and_the_cpu_works)
{
    check_fallback("./no/libmmq-cuda.so", MMQ_ERR_NO_DEVICE, "./no/libmmq-cuda.so");
    check_fallback("libmmq-cuda.so", MMQ_ERR_NO_DEVICE, "libmmq-cuda.so: there is no such");
}
END_TEST

START_TEST(the_runtime_can_leave_cuda_out)
{
    check_fallback("", MMQ_ERR_NO_DEVICE, "leave it out");
}
END_TEST

START_TEST(without_an_option_it_lies_beside_the_library)
{
    mmq_load_options load = {.struct_size = sizeof load, .device = "cuda:0"};
    mmq_model *model;
    mmq_status status = mmq_load(&model, source_path("test/golden/llava_tiny/model"), &load);

    /* Beside this program, which holds the library. */
    ck_assert_int_eq(status, MMQ_ERR_NO_DEVICE);
    ck_assert_ptr_nonnull(strstr(mmq_last_error_message(), "/test/model/libmmq-cuda.so"));
}
END_TEST

START_TEST(a_file_that_is_no_library_is_named)
{
    FILE *file = fopen("libmmq-cuda.so", "w");

    fputs("not a library", file);
    fclose(file);
    check_fallback("./libmmq-cuda.so", MMQ_ERR_UNSUPPORTED, "./libmmq-cuda.so: cannot be loaded");
}
END_TEST

START_TEST(a_library_that_is_no_backend_is_named)
{
    NEEDS_COMPILER;
    check_fallback(make_fake("other.so", "-DABI=0 -DENTRY=something"), MMQ_ERR_UNSUPPORTED,
                   "has no mmqi_cuda_backend");
}
END_TEST

START_TEST(a_library_of_another_version_is_refused)
{
    NEEDS_COMPILER;
    check_fallback(make_fake("old.so", "-DABI=0 -DENTRY=mmqi_cuda_backend"), MMQ_ERR_UNSUPPORTED,
                   "of another version");
}
END_TEST

START_TEST(what_the_library_needs_and_lacks_is_named)
{
    const char *path;

    NEEDS_COMPILER;
    make_fake("libcublasLt-fake.so.13", "-DABI=0 -DENTRY=needed");
    path = make_fake("needy.so", "-DABI=1 -DENTRY=mmqi_cuda_backend -Wl,--no-as-needed "
                                 "./libcublasLt-fake.so.13");
    ck_assert_int_eq(unlink("libcublasLt-fake.so.13"), 0);
    check_fallback(path, MMQ_ERR_UNSUPPORTED, "libcublasLt-fake.so.13");
}
END_TEST

START_TEST(a_missing_driver_is_told_in_the_librarys_words)
{
    NEEDS_COMPILER;
    check_fallback(
        make_fake("right.so", support_text("-DABI=%u -DENTRY=mmqi_cuda_backend", MMQI_BACKEND_ABI)),
        MMQ_ERR_NO_DEVICE, "fake: no driver here");
}
END_TEST

/* ---- the real one, where it is built ---- */

/* Beside libmmq.so of this configuration; NULL where there is none. */
static const char *real_library(void)
{
    const char *path = source_path(BUILD_FOLDER "/lib/libmmq-cuda.so");

    return access(path, R_OK) == 0 ? path : NULL;
}

START_TEST(the_built_library_fills_every_slot)
{
    const char *path = real_library();
    const void *const *slot;
    struct mmqi_loaded loaded;

    if (!path)
        SKIP("libmmq-cuda.so is not built");
    ck_assert_msg(mmqi_loader_open(&loaded, "cuda", path) == MMQ_OK, "%s",
                  mmq_last_error_message());
    ck_assert_str_eq(loaded.backend->name, "cuda");
    ck_assert(!loaded.backend->host_memory);
    slot = (const void *const *)loaded.backend->ops;
    for (size_t i = 0; i < sizeof *loaded.backend->ops / sizeof *slot; i++)
        ck_assert_msg(slot[i] != NULL, "op %zu", i);
    /* After the name and host_memory. */
    slot = (const void *const *)loaded.backend;
    for (size_t i = 2; i < sizeof *loaded.backend / sizeof *slot; i++)
        ck_assert_msg(slot[i] != NULL, "slot %zu", i);
    mmqi_loader_close(&loaded);
}
END_TEST

START_TEST(the_built_library_says_why_there_is_no_device)
{
    const char *path = real_library();
    struct mmqi_device_info info;
    struct mmqi_loaded loaded;
    int32_t n = 9;

    if (!path)
        SKIP("libmmq-cuda.so is not built");
    ck_assert_int_eq(mmqi_loader_open(&loaded, "cuda", path), MMQ_OK);
    if (loaded.backend->count(&mmqi_backend_host, &n) == MMQ_OK)
        SKIP("there are %d CUDA devices", (int)n);
    ck_assert_int_eq(n, 0);
    ck_assert_ptr_nonnull(strstr(mmq_last_error_message(), "driver"));
    ck_assert_int_eq(loaded.backend->info(&mmqi_backend_host, 0, &info), MMQ_ERR_NO_DEVICE);
    mmqi_loader_close(&loaded);
    check_fallback(path, MMQ_ERR_NO_DEVICE, "driver");
}
END_TEST

/* A driver that stands for an old one: whoever is loaded first under its name is the driver. */
static const char old_driver_source[] =
    "int cuDriverGetVersion(int *version);\n"
    "int cuDriverGetVersion(int *version) { *version = 11040; return 0; }\n"
    "int cuInit(unsigned flags);\n"
    "int cuInit(unsigned flags) { (void)flags; return 0; }\n";

START_TEST(an_old_driver_is_named_with_its_number)
{
    struct mmqi_os_library *driver;
    char path[4096];

    if (!real_library())
        SKIP("libmmq-cuda.so is not built");
    NEEDS_COMPILER;
    ck_assert_int_eq(mmqi_os_library_open(&driver, compile(old_driver_source, "libcuda.so.1",
                                                           "-Wl,-soname,libcuda.so.1")),
                     MMQ_OK);
    snprintf(path, sizeof path, "%s", real_library());
    check_fallback(path, MMQ_ERR_NO_DEVICE, "the NVIDIA driver is for CUDA 11.4");
    mmqi_os_library_close(driver);
}
END_TEST

START_TEST(the_built_library_refuses_a_host_of_another_number)
{
    const struct mmqi_backend *backend = NULL;
    const char *path = real_library();
    struct mmqi_os_library *library;
    mmqi_backend_entry entry;

    if (!path)
        SKIP("libmmq-cuda.so is not built");
    ck_assert_int_eq(mmqi_os_library_open(&library, path), MMQ_OK);
    *(void **)&entry = mmqi_os_library_symbol(library, "mmqi_cuda_backend");
    ck_assert(entry != NULL);
    ck_assert_int_eq(entry(MMQI_BACKEND_ABI + 1, NULL, &backend), MMQ_ERR_UNSUPPORTED);
    ck_assert_ptr_null(backend);
    mmqi_os_library_close(library);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("cuda library");
    TCase *tcase = tcase_create("opening");
    SRunner *runner;
    int failed;

    tcase_set_timeout(tcase, 60);
    tcase_add_checked_fixture(tcase, scratch_enter, scratch_leave);
    tcase_add_test(tcase, an_absent_library_is_named_and_the_cpu_works);
    tcase_add_test(tcase, the_runtime_can_leave_cuda_out);
    tcase_add_test(tcase, without_an_option_it_lies_beside_the_library);
    tcase_add_test(tcase, a_file_that_is_no_library_is_named);
    tcase_add_test(tcase, a_library_that_is_no_backend_is_named);
    tcase_add_test(tcase, a_library_of_another_version_is_refused);
    tcase_add_test(tcase, what_the_library_needs_and_lacks_is_named);
    tcase_add_test(tcase, a_missing_driver_is_told_in_the_librarys_words);
    tcase_add_test(tcase, the_built_library_fills_every_slot);
    tcase_add_test(tcase, the_built_library_says_why_there_is_no_device);
    tcase_add_test(tcase, an_old_driver_is_named_with_its_number);
    tcase_add_test(tcase, the_built_library_refuses_a_host_of_another_number);
    suite_add_tcase(suite, tcase);
    runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
