/*
 * Quantizing where something goes wrong: bad destinations, full disks, kills, cancelling and memory
 * that is refused, each at every stage. One status, one line, no half folder, nothing leaked, and a
 * retry works.
 */
#include <check.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "core/dtype.h"
#include "core/os.h"
#include "quantizing.h"

/* The policy of most tests: packed in two formats, converted, and kept. */
#define POLICY "vision.* = nf4; projector.* = f32; language.layers.*.mlp.* = int8"

enum { CHUNK = 40000 };

/* A source and what POLICY makes of it. */
struct scene {
    struct mmqi_model *source;
    struct mmqi_choice *choices;
    struct mmqi_quantize_options options;
};

static struct scene open_scene(const char *path, const char *policy)
{
    struct scene scene = {.source = open_model(path)};

    scene.choices = choose(scene.source, policy);
    scene.options = (struct mmqi_quantize_options){
        .choices = scene.choices, .out_path = "out", .chunk_bytes = CHUNK};
    return scene;
}

static void close_scene(struct scene *scene)
{
    mmqi_free(scene->choices);
    mmqi_model_close(scene->source);
}

/* It succeeds and leaves the folder, which is taken away again. */
static void retry(struct scene *scene)
{
    struct mmqi_model *model;
    struct mmqi_report *report;

    ck_assert_msg(mmqi_quantize(&model, scene->source, &scene->options, &report) == MMQ_OK, "%s",
                  mmqi_message());
    ck_assert_int_eq(mmqi_os_kind_of("out/config.json"), MMQI_OS_FILE);
    mmqi_report_free(report);
    mmqi_model_close(model);
    ck_assert_int_eq(system("rm -r out"), 0);
}

/* ---- destinations ---- */

START_TEST(options_that_ask_for_nothing_are_refused)
{
    struct scene scene = open_scene(tiny_path(), POLICY);
    struct mmqi_report *report = NULL;

    scene.options.out_path = NULL;
    ck_assert_int_eq(mmqi_quantize(NULL, scene.source, &scene.options, &report), MMQ_ERR_INVALID);
    ck_assert_ptr_null(report);
    close_scene(&scene);
}
END_TEST

START_TEST(an_existing_destination_is_left_alone)
{
    struct scene scene = open_scene(tiny_path(), POLICY);
    struct mmqi_model *out;

    ck_assert_int_eq(system("mkdir out"), 0);
    ck_assert_int_eq(mmqi_quantize(&out, scene.source, &scene.options, NULL), MMQ_ERR_EXISTS);
    ck_assert_ptr_null(out);
    ck_assert_int_eq(count_files("out"), 0);
    ck_assert_int_eq(count_files("."), 1);
    ck_assert_int_eq(rmdir("out"), 0);
    retry(&scene);
    close_scene(&scene);
}
END_TEST

START_TEST(a_destination_inside_the_source_is_refused_however_it_is_spelled)
{
    static const char *const inside[] = {
        "model/out", "model/sub/out", "model/sub/../out", "./model//out/",
        "link/out",  "sublink/out",   "model/out///",     "other/../model/sub/out"};
    struct scene scene;
    char command[8192];
    int n_files;

    snprintf(command, sizeof command,
             "cp -r '%s' model && chmod -R u+w model && mkdir model/sub other && "
             "ln -s model link && ln -s model/sub sublink",
             tiny_path());
    ck_assert_int_eq(system(command), 0);
    scene = open_scene("link", POLICY);
    n_files = count_files("model");
    for (size_t i = 0; i < sizeof inside / sizeof *inside; i++) {
        scene.options.out_path = inside[i];
        ck_assert_msg(mmqi_quantize(NULL, scene.source, &scene.options, NULL) == MMQ_ERR_INVALID,
                      "%s: %s", inside[i], mmqi_message());
        ck_assert_ptr_nonnull(strstr(mmqi_message(), "inside the source"));
    }
    ck_assert_int_eq(count_files("model"), n_files);
    ck_assert_int_eq(count_files("model/sub"), 0);
    scene.options.out_path = "model/../out"; /* beside it */
    retry(&scene);
    close_scene(&scene);
}
END_TEST

/* In a child: quantize and exit with the status' distance from zero. */
static _Noreturn void quantize_and_exit(struct scene *scene)
{
    _exit(-mmqi_quantize(NULL, scene->source, &scene->options, NULL));
}

/* The status that a child ended with; it was not killed. */
static int32_t wait_status(pid_t child)
{
    int how;

    ck_assert_int_eq(waitpid(child, &how, 0), child);
    ck_assert_msg(WIFEXITED(how), "killed by signal %d", WTERMSIG(how));
    return -WEXITSTATUS(how);
}

/* Root may write anywhere, so the child is somebody else. */
START_TEST(a_read_only_destination_folder_is_one_status)
{
    struct scene scene = open_scene(tiny_path(), POLICY);
    pid_t child;

    ck_assert_int_eq(mkdir("locked", 0555), 0);
    ck_assert_int_eq(chmod(".", 0755), 0);
    scene.options.out_path = "locked/out";
    child = fork();
    if (child == 0) {
        if (geteuid() == 0 && (setgid(65534) != 0 || setuid(65534) != 0))
            _exit(0);
        quantize_and_exit(&scene);
    }
    ck_assert_int_eq(wait_status(child), MMQ_ERR_IO);
    ck_assert_int_eq(count_files("locked"), 0);
    scene.options.out_path = "missing/out";
    ck_assert_int_eq(mmqi_quantize(NULL, scene.source, &scene.options, NULL), MMQ_ERR_IO);
    scene.options.out_path = "out";
    retry(&scene);
    close_scene(&scene);
}
END_TEST

/* Quantizing into `path` fails so, says `text`, and leaves `n` names here. */
static void refuses_destination(struct scene *scene, const char *path, int32_t wanted,
                                const char *text, int n)
{
    struct mmqi_model *out;
    int32_t status;

    scene->options.out_path = path;
    status = mmqi_quantize(&out, scene->source, &scene->options, NULL);
    ck_assert_msg(status == wanted, "'%.40s': %d: %s", path, (int)status, mmqi_message());
    ck_assert_msg(strstr(mmqi_message(), text) != NULL, "'%s' does not say %s", mmqi_message(),
                  text);
    ck_assert_ptr_null(out);
    ck_assert_int_eq(count_files("."), n);
}

START_TEST(a_destination_that_cannot_be_made_is_told_and_leaves_nothing)
{
    struct scene scene = open_scene(tiny_path(), POLICY);
    char name[300];

    memset(name, 'n', sizeof name);
    name[sizeof name - 1] = '\0';
    refuses_destination(&scene, "", MMQ_ERR_INVALID, "''", 0);
    refuses_destination(&scene, "//", MMQ_ERR_INVALID, "'//'", 0);
    refuses_destination(&scene, "no/such/parent", MMQ_ERR_IO, "no/such/parent", 0);
    refuses_destination(&scene, "/proc/out", MMQ_ERR_IO, "/proc/out", 0);
    refuses_destination(&scene, name, MMQ_ERR_IO, "nnnn", 0);
    ck_assert_int_eq(system("touch file; ln -s loop loop"), 0);
    refuses_destination(&scene, "file/out", MMQ_ERR_IO, "file/out", 2);
    refuses_destination(&scene, "file", MMQ_ERR_EXISTS, "file", 2);
    refuses_destination(&scene, "loop", MMQ_ERR_IO, "loop", 2);
    scene.options.out_path = "out";
    retry(&scene);
    close_scene(&scene);
}
END_TEST

/* ---- full disks ---- */

/* A file can grow to `limit` bytes and no further, as on a disk that fills. */
static int32_t quantize_within(struct scene *scene, uint64_t limit)
{
    pid_t child = fork();

    if (child == 0) {
        const struct rlimit size = {limit, limit};

        signal(SIGXFSZ, SIG_IGN);
        if (setrlimit(RLIMIT_FSIZE, &size) != 0)
            _exit(0);
        quantize_and_exit(scene);
    }
    return wait_status(child);
}

START_TEST(a_file_that_cannot_grow_is_one_status_at_every_size)
{
    struct scene scene = open_scene(tiny_path(), POLICY);
    uint64_t limit = 0;

    for (; quantize_within(&scene, limit) != MMQ_OK; limit += limit < 2000 ? 499 : 40961) {
        ck_assert_int_eq(quantize_within(&scene, limit), MMQ_ERR_IO);
        ck_assert_int_eq(count_files("."), 0);
    }
    ck_assert_uint_gt(limit, 500000);
    ck_assert_int_eq(system("rm -r out"), 0);
    retry(&scene);
    close_scene(&scene);
}
END_TEST

/* In one process: the failure says what could not be written, and the handle serves again. */
START_TEST(a_file_that_cannot_grow_is_told_and_the_source_serves_again)
{
    static const rlim_t limits[] = {0, 20000, 200000};
    struct scene scene = open_scene(tiny_path(), POLICY);
    struct rlimit before, limit;

    signal(SIGXFSZ, SIG_IGN); /* a host's choice: the write then fails */
    ck_assert_int_eq(getrlimit(RLIMIT_FSIZE, &before), 0);
    for (size_t i = 0; i < sizeof limits / sizeof *limits; i++) {
        limit = (struct rlimit){limits[i], before.rlim_max};
        ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
        refuses_destination(&scene, "out", MMQ_ERR_IO, "cannot write", 0);
        ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &before), 0);
    }
    retry(&scene);
    close_scene(&scene);
}
END_TEST

/* A file system of its own in `disk`; false where that is not allowed. */
static bool mount_disk(unsigned kib)
{
    char options[64];

    snprintf(options, sizeof options, "size=%uk", kib);
    return mount("tmpfs", "disk", "tmpfs", 0, options) == 0;
}

/* Files are written one after another, so a disk of every size fails at every one of them. */
START_TEST(a_full_disk_is_one_status_at_every_size)
{
    struct scene scene = open_scene(tiny_path(), POLICY);
    int32_t status = MMQ_ERR_IO;
    unsigned kib = 4;

    ck_assert_int_eq(mkdir("disk", 0777), 0);
    scene.options.out_path = "disk/out";
    for (; status != MMQ_OK; kib += kib < 600 ? 100 : 8) {
        if (!mount_disk(kib))
            break;
        status = mmqi_quantize(NULL, scene.source, &scene.options, NULL);
        if (status != MMQ_OK)
            ck_assert_int_eq(count_files("disk"), 0);
        ck_assert_int_eq(umount("disk"), 0);
        ck_assert_msg(status == MMQ_OK || status == MMQ_ERR_IO, "%s", mmqi_message());
    }
    close_scene(&scene);
    if (status != MMQ_OK)
        SKIP("this process may not mount a disk");
}
END_TEST

/* ---- kills ---- */

static int32_t kill_at_zero(void *user, uint64_t done, uint64_t total)
{
    int *left = user;

    (void)done;
    (void)total;
    if ((*left)-- == 0)
        kill(getpid(), SIGKILL);
    return 0;
}

/* True when the child was killed at progress call `n`; false when it came to its end. */
static bool killed_at(struct scene *scene, int n)
{
    pid_t child = fork();
    int how;

    if (child == 0) {
        scene->options.progress = kill_at_zero;
        scene->options.progress_user = &n;
        quantize_and_exit(scene);
    }
    ck_assert_int_eq(waitpid(child, &how, 0), child);
    return WIFSIGNALED(how) && WTERMSIG(how) == SIGKILL;
}

START_TEST(a_kill_at_any_stage_leaves_no_folder_under_the_name)
{
    struct scene scene = open_scene(tiny_path(), POLICY);
    int n = 0;

    for (; killed_at(&scene, n); n += 3) {
        ck_assert_int_eq(mmqi_os_kind_of("out"), MMQI_OS_NOTHING);
        if (n % 30 == 0) { /* what a kill leaves does not disturb the next */
            retry(&scene);
            ck_assert_int_eq(system("rm -rf out.partial-*"), 0);
        }
    }
    ck_assert_int_gt(n, 60);
    ck_assert_int_eq(mmqi_os_kind_of("out"), MMQI_OS_FOLDER);
    close_scene(&scene);
}
END_TEST

START_TEST(a_kill_at_any_moment_leaves_a_whole_folder_or_none)
{
    struct scene scene = open_scene(tiny_path(), POLICY);
    int n_whole = 0;

    quantize(scene.source, POLICY, "expected", false);
    for (int i = 0; i < 60 && n_whole < 8; i++) {
        pid_t child = fork();

        if (child == 0)
            quantize_and_exit(&scene);
        usleep((useconds_t)(i * i * 60));
        kill(child, SIGKILL);
        ck_assert_int_eq(waitpid(child, NULL, 0), child);
        if (mmqi_os_kind_of("out") == MMQI_OS_NOTHING)
            continue;
        n_whole++;
        same_files("out/model.safetensors", "expected/model.safetensors");
        same_files("out/config.json", "expected/config.json");
        ck_assert_int_eq(count_files("out"), count_files("expected"));
        ck_assert_int_eq(system("rm -rf out out.partial-*"), 0);
    }
    close_scene(&scene);
}
END_TEST

/* ---- progress, cancelling and callbacks ---- */

/* What a progress callback saw, and at which call it acts. */
struct watch {
    uint64_t done, total;
    int32_t calls, at, raise, result;
};

static int32_t watch_progress(void *user, uint64_t done, uint64_t total)
{
    struct watch *watch = user;

    ck_assert_uint_ge(done, watch->done);
    ck_assert_uint_le(done, total);
    ck_assert(watch->calls == 0 || total == watch->total);
    watch->done = done;
    watch->total = total;
    if (watch->calls++ != watch->at)
        return 0;
    watch->raise = 1;
    return watch->result;
}

START_TEST(progress_begins_at_nothing_and_ends_at_the_total)
{
    struct scene scene = open_scene(tiny_path(), POLICY);
    struct mmqi_model *out;

    for (int folder = 0; folder < 2; folder++) {
        struct watch watch = {.at = -1};

        scene.options.out_path = folder ? "out" : NULL;
        scene.options.progress = watch_progress;
        scene.options.progress_user = &watch;
        ck_assert_int_eq(mmqi_quantize(&out, scene.source, &scene.options, NULL), MMQ_OK);
        mmqi_model_close(out);
        ck_assert_int_gt(watch.calls, 30);
        ck_assert_uint_eq(watch.done, watch.total);
    }
    close_scene(&scene);
}
END_TEST

/* Act at every third progress call, and at the last. */
static void interrupt_everywhere(bool by_flag, int32_t expected)
{
    struct scene scene = open_scene(tiny_path(), POLICY);
    struct watch all = {.at = -1};

    scene.options.progress = watch_progress;
    scene.options.progress_user = &all;
    retry(&scene);
    for (int n = 0; n < all.calls;
         n = n == all.calls - 1 || n + 3 < all.calls ? n + 3 : all.calls - 1) {
        struct watch watch = {.at = n, .result = by_flag ? 0 : 7};
        struct mmqi_model *out;
        struct mmqi_report *report;

        scene.options.progress_user = &watch;
        scene.options.cancel = by_flag ? &watch.raise : NULL;
        ck_assert_msg(mmqi_quantize(&out, scene.source, &scene.options, &report) == expected,
                      "call %d of %d: %s", n, all.calls, mmqi_message());
        ck_assert_ptr_null(out);
        ck_assert_ptr_null(report);
        ck_assert_int_eq(count_files("."), 0);
    }
    scene.options.progress = NULL;
    scene.options.cancel = NULL;
    retry(&scene);
    close_scene(&scene);
}

START_TEST(a_raised_cancel_flag_ends_the_work_at_every_stage)
{
    interrupt_everywhere(true, MMQ_ERR_CANCELLED);
}
END_TEST

START_TEST(a_callback_that_says_no_ends_the_work_at_every_stage)
{
    interrupt_everywhere(false, MMQ_ERR_CALLBACK);
}
END_TEST

/* ---- numbers ---- */

/* A copy of the tiny model, in "bad", with one bf16 number of a matrix replaced. */
static void plant(const char *name, int64_t index, uint16_t bits)
{
    struct mmqi_model *source = open_model(tiny_path());
    const struct mmqi_entry *entry = mmqi_checkpoint_find(source->checkpoint, name);
    char command[8192];
    FILE *file;

    ck_assert_ptr_nonnull(entry);
    ck_assert_int_eq(entry->dtype, MMQI_BF16);
    snprintf(command, sizeof command, "rm -rf bad && cp -r '%s' bad && chmod -R u+w bad",
             tiny_path());
    ck_assert_int_eq(system(command), 0);
    file = fopen("bad/model.safetensors", "r+b");
    ck_assert_ptr_nonnull(file);
    fseek(file, (long)(entry->offset + 2 * (uint64_t)index), SEEK_SET);
    ck_assert_uint_eq(fwrite(&bits, 2, 1, file), 1);
    fclose(file);
    mmqi_model_close(source);
}

static const char planted[] = "language_model.model.layers.1.mlp.down_proj.weight";

static void refuses_number(uint16_t bits, const char *policy, int32_t status, const char *text)
{
    struct mmqi_model *out;
    struct scene scene;

    plant(planted, 95 * 112 + 7, bits);
    scene = open_scene("bad", policy);
    scene.options.chunk_bytes = 4000;
    ck_assert_int_eq(mmqi_quantize(&out, scene.source, &scene.options, NULL), status);
    ck_assert_ptr_null(out);
    ck_assert_msg(strstr(mmqi_message(), planted) != NULL, "%s", mmqi_message());
    ck_assert_ptr_nonnull(strstr(mmqi_message(), "language.layers.1.mlp.down"));
    ck_assert_msg(strstr(mmqi_message(), text) != NULL, "%s", mmqi_message());
    ck_assert_int_eq(count_files("."), 1);
    close_scene(&scene);
}

START_TEST(a_weight_that_is_not_finite_is_refused_by_tensor_and_place)
{
    static const char *const all[] = {"int8", "nf4", "layered", "language.layers.1.* = f32"};

    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        refuses_number(0x7fc0, all[i], MMQ_ERR_FORMAT, "NaN at [95, 7]");
        refuses_number(0xff80, all[i], MMQ_ERR_FORMAT, "infinite at [95, 7]");
    }
}
END_TEST

START_TEST(a_weight_beyond_the_range_of_the_plain_format_asked_for_is_refused)
{
    /* 65536 and -3e38 */
    refuses_number(0x4780, "language.layers.* = f16", MMQ_ERR_UNSUPPORTED,
                   "range of f16 at [95, 7]");
    refuses_number(0xff62, "f16", MMQ_ERR_UNSUPPORTED, "range of f16 at [95, 7]");
}
END_TEST

/* ---- memory that is refused ---- */

struct countdown {
    int64_t left; /* allocations until every one is refused */
    int64_t n_live;
};

static void *counted_alloc(void *user, size_t size)
{
    struct countdown *countdown = user;
    void *block = countdown->left-- > 0 ? malloc(size) : NULL;

    countdown->n_live += block != NULL;
    return block;
}

static void counted_free(void *user, void *block)
{
    ((struct countdown *)user)->n_live -= block != NULL;
    free(block);
}

/* Policy, model, folder and report. */
static int32_t quantize_whole(const struct mmqi_model *source, const char *out_path)
{
    struct mmqi_quantize_options options = {.out_path = out_path};
    struct mmqi_model *out = NULL;
    struct mmqi_report *report = NULL;
    struct mmqi_choice *choices;
    int32_t status = mmqi_policy_apply(&choices, source, POLICY, MMQI_METHOD_RTN);

    options.choices = choices;
    if (status == MMQ_OK)
        status = mmqi_quantize(&out, source, &options, &report);
    mmqi_report_free(report);
    mmqi_model_close(out);
    mmqi_free(choices);
    return status;
}

START_TEST(memory_refused_at_any_moment_leaves_nothing_behind)
{
    struct mmqi_model *source = open_model(tiny_path());
    int32_t status = MMQ_ERR_NOMEM;

    for (int64_t n = 0; status == MMQ_ERR_NOMEM; n++) {
        struct countdown countdown = {n, 0};
        struct mmqi_mem_hooks hooks = {counted_alloc, counted_free, &countdown};
        const struct mmqi_mem_hooks *before = mmqi_mem_enter(&hooks);

        status = quantize_whole(source, "out");
        mmqi_mem_enter(before);
        ck_assert_msg(status == MMQ_OK || status == MMQ_ERR_NOMEM, "%s", mmqi_message());
        ck_assert_int_eq(count_files("."), status == MMQ_OK);
        ck_assert_int_eq(countdown.n_live, 0);
        ck_assert_int_lt(n, 100000);
    }
    mmqi_model_close(source);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("quantize, faults");
    TCase *tests = tcase_create("faults");
    SRunner *runner = srunner_create(suite);
    int failed;

    tcase_add_checked_fixture(tests, scratch_enter, scratch_leave);
    tcase_set_timeout(tests, 120);
    tcase_add_test(tests, options_that_ask_for_nothing_are_refused);
    tcase_add_test(tests, an_existing_destination_is_left_alone);
    tcase_add_test(tests, a_destination_inside_the_source_is_refused_however_it_is_spelled);
    tcase_add_test(tests, a_destination_that_cannot_be_made_is_told_and_leaves_nothing);
    tcase_add_test(tests, a_file_that_cannot_grow_is_told_and_the_source_serves_again);
    tcase_add_test(tests, a_read_only_destination_folder_is_one_status);
    tcase_add_test(tests, a_file_that_cannot_grow_is_one_status_at_every_size);
    tcase_add_test(tests, a_full_disk_is_one_status_at_every_size);
    tcase_add_test(tests, a_kill_at_any_stage_leaves_no_folder_under_the_name);
    tcase_add_test(tests, a_kill_at_any_moment_leaves_a_whole_folder_or_none);
    tcase_add_test(tests, progress_begins_at_nothing_and_ends_at_the_total);
    tcase_add_test(tests, a_raised_cancel_flag_ends_the_work_at_every_stage);
    tcase_add_test(tests, a_callback_that_says_no_ends_the_work_at_every_stage);
    tcase_add_test(tests, a_weight_that_is_not_finite_is_refused_by_tensor_and_place);
    tcase_add_test(tests, a_weight_beyond_the_range_of_the_plain_format_asked_for_is_refused);
    tcase_add_test(tests, memory_refused_at_any_moment_leaves_nothing_behind);
    suite_add_tcase(suite, tests);
    srunner_run_all(runner, CK_NORMAL);
    failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
