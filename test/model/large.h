/*
 * The tiny cases, larger: a checkpoint of the same tensors with other sizes, of nothing but zeros
 * (holes, which take no disk), in the folder "large"; and how much memory work with it takes, in a
 * process of its own.
 */
#ifndef MMQ_TEST_LARGE_H
#define MMQ_TEST_LARGE_H

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

/* Which case, and what becomes of its sizes. */
struct large {
    const char *of;     /* "llava_tiny" */
    const char *config; /* instead of its config.json */
    struct {
        int64_t from, to; /* of every side of every tensor; others stay */
    } sizes[12];          /* ends with a zero */
};

__attribute__((unused)) static int64_t enlarge(const struct large *large, int64_t size)
{
    for (int i = 0; large->sizes[i].from != 0; i++)
        if (size == large->sizes[i].from)
            return large->sizes[i].to;
    return size;
}

/* The tiny model's tensors, larger; a stored head is left out. Returns the file's bytes. */
__attribute__((unused)) static uint64_t write_tensors(const struct large *large)
{
    struct mmqi_store *store;
    struct mmqi_checkpoint *checkpoint;
    struct mmqi_entry *entries;
    char *header;
    size_t n = 0, header_size;
    uint64_t file_size;
    int fd = open("large/model.safetensors", O_WRONLY | O_CREAT | O_EXCL, 0666);

    ck_assert_int_ge(fd, 0);
    ASSERT_OK(mmqi_store_open_folder(&store,
                                     source_path(support_text("test/golden/%s/model", large->of))));
    ASSERT_OK(mmqi_checkpoint_open(&checkpoint, store));
    entries = calloc(mmqi_checkpoint_count(checkpoint), sizeof *entries);
    for (size_t i = 0; i < mmqi_checkpoint_count(checkpoint); i++) {
        const struct mmqi_entry *entry = mmqi_checkpoint_entry(checkpoint, i);

        if (strstr(entry->name, "lm_head"))
            continue;
        entries[n] = *entry;
        for (int32_t k = 0; k < entry->rank; k++)
            entries[n].shape[k] = enlarge(large, entry->shape[k]);
        n++;
    }
    ASSERT_OK(mmqi_safetensors_header(&header, &header_size, &file_size, entries, n, NULL));
    ck_assert_int_eq(write(fd, header, header_size), (ssize_t)header_size);
    ck_assert_int_eq(ftruncate(fd, (off_t)file_size), 0);
    close(fd);
    mmqi_free(header);
    free(entries);
    mmqi_checkpoint_release(checkpoint);
    mmqi_store_release(store);
    return file_size;
}

/* The folder "large" in the scratch folder, which is entered; its tensors' bytes. */
__attribute__((unused)) static uint64_t make_large(const struct large *large)
{
    char command[8192];
    FILE *file;

    scratch_enter();
    snprintf(command, sizeof command,
             "cp -r '%s' large && chmod -R u+w large && rm large/model.safetensors",
             source_path(support_text("test/golden/%s/model", large->of)));
    ck_assert_int_eq(system(command), 0);
    file = fopen("large/config.json", "w");
    ck_assert_ptr_nonnull(file);
    ck_assert_uint_eq(fwrite(large->config, 1, strlen(large->config), file), strlen(large->config));
    fclose(file);
    return write_tensors(large);
}

/* ---- measuring ---- */

/* What a child tells: the bytes that its result takes, and the most that it took beside files. */
struct taken {
    uint64_t result, peak;
};

__attribute__((unused)) static uint64_t status_kib(const char *text, const char *key)
{
    const char *at = strstr(text, key);

    return at ? strtoull(at + strlen(key), NULL, 10) : 0;
}

/* Greatest memory of this process so far that no file lies behind. */
__attribute__((unused)) static uint64_t peak_anonymous(void)
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
__attribute__((unused)) static struct taken
measure(bool (*work)(const char *policy, uint64_t *result), const char *policy)
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

#endif
