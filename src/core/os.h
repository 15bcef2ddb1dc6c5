/*
 * What the operating system gives. Only src/core/os_*.c may call it; every
 * other file reaches files, threads and clocks through these functions.
 */
#ifndef MMQI_CORE_OS_H
#define MMQI_CORE_OS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* ---- files; names are UTF-8 paths; failures write a message that names the path ---- */

struct mmqi_os_file; /* an open file; positioned reads and writes from any thread */

int32_t mmqi_os_open_read(struct mmqi_os_file **out, const char *path);
/* Make a new file for writing; MMQ_ERR_EXISTS where `path` exists. */
int32_t mmqi_os_create(struct mmqi_os_file **out, const char *path);
uint64_t mmqi_os_file_size(const struct mmqi_os_file *file); /* as it was when opened */
/* Read exactly `size` bytes; a file that ends sooner is MMQ_ERR_FORMAT. */
int32_t mmqi_os_read_at(struct mmqi_os_file *file, uint64_t offset, void *dst, size_t size);
int32_t mmqi_os_write_at(struct mmqi_os_file *file, uint64_t offset, const void *src, size_t size);
int32_t mmqi_os_sync(struct mmqi_os_file *file);
void mmqi_os_close(struct mmqi_os_file *file); /* accepts NULL */

enum mmqi_os_kind {
    MMQI_OS_NOTHING = 0,
    MMQI_OS_FILE = 1,
    MMQI_OS_FOLDER = 2,
    MMQI_OS_UNKNOWN = 3 /* the system does not let this process see what it is */
};
enum mmqi_os_kind mmqi_os_kind_of(const char *path);
/* Whether what `path` names, which need not exist, is or would be inside the folder `folder`,
 * however both are spelled. False where that cannot be known. */
bool mmqi_os_is_inside(const char *path, const char *folder);
int32_t mmqi_os_make_folder(const char *path); /* MMQ_ERR_EXISTS where it exists */
int32_t mmqi_os_rename(const char *from, const char *to);
bool mmqi_os_take_back(const char *from, const char *to); /* a rename without a message */
void mmqi_os_remove_file(const char *path);               /* best effort, for clearing up */
void mmqi_os_remove_folder(const char *path);             /* an empty one; best effort */
int32_t mmqi_os_sync_folder(const char *path);

/* ---- threads ---- */

struct mmqi_os_thread;
struct mmqi_os_mutex;
struct mmqi_os_cond;

/* NULL if refused. The host's signals are blocked on the new thread, where the system has a way to
 * do so that leaves the host's own mask alone. */
struct mmqi_os_thread *mmqi_os_thread_start(void (*body)(void *arg), void *arg);
void mmqi_os_thread_join(struct mmqi_os_thread *thread);
struct mmqi_os_mutex *mmqi_os_mutex_create(void);
void mmqi_os_mutex_free(struct mmqi_os_mutex *mutex);
void mmqi_os_lock(struct mmqi_os_mutex *mutex);
void mmqi_os_unlock(struct mmqi_os_mutex *mutex);
struct mmqi_os_cond *mmqi_os_cond_create(void);
void mmqi_os_cond_free(struct mmqi_os_cond *cond);
void mmqi_os_wait(struct mmqi_os_cond *cond, struct mmqi_os_mutex *mutex);
void mmqi_os_wake_all(struct mmqi_os_cond *cond);
/* Bytes of the machine's memory, and of those that are free; 0 where the system does not tell. */
void mmqi_os_memory(uint64_t *total, uint64_t *available);
int32_t mmqi_os_cpu_count(void); /* processors this process may use, at least 1 */

/* ---- libraries opened while the program runs ---- */

struct mmqi_os_library;

/*
 * Open the library at `path`, which is looked for there alone. MMQ_ERR_NOT_FOUND: there is no such
 * file; MMQ_ERR_UNSUPPORTED: the system cannot load it, the message says why. Its code stays in
 * the process after it is closed, since threads of what it brought along may still be in it.
 */
int32_t mmqi_os_library_open(struct mmqi_os_library **out, const char *path);
void *mmqi_os_library_symbol(struct mmqi_os_library *library, const char *name); /* or NULL */
void mmqi_os_library_close(struct mmqi_os_library *library);                     /* accepts NULL */
/* NAME in the folder of the library (or program) that `address` belongs to, freed with mmqi_free();
 * NULL where the folder is not known or memory is refused. */
char *mmqi_os_beside(const void *address, const char *name);

/* ---- the rest ---- */

/* Memory in large pages where the system has them: for what is read from end to end again and
 * again, which then waits less for addresses to be found. It takes whole pages from the system, no
 * more, and gives them back when it is freed, with the size that it was made with. */
void *mmqi_os_alloc_large(size_t size);
void mmqi_os_free_large(void *block, size_t size);

uint64_t mmqi_os_nanoseconds(void); /* a monotonic clock */
/* The number that `text` spells in the C locale, whatever the host has set; *end past its last
 * byte. */
double mmqi_os_parse_number(const char *text, char **end);
/* `value` with `digits` significant digits in the C locale; returns the length, < 32. */
int mmqi_os_print_number(char out[32], double value, int digits);

#endif
