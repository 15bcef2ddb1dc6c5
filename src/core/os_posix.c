/*
 * The operating system behind core/os.h, for POSIX. Files are read and
 * written by position, so one handle serves many threads.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <locale.h>
#include <math.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "core/mem.h"
#include "core/os.h"
#include "core/status.h"

/* ---- files ---- */

struct mmqi_os_file {
    int fd;
    uint64_t size;
    char *path; /* for messages */
};

/* strerror_r's text for the current errno, in a form that both of its kinds allow. */
static const char *error_text(char buffer[128])
{
    return strerror_r(errno, buffer, 128);
}

static int32_t open_file(struct mmqi_os_file **out, const char *path, int flags)
{
    struct mmqi_os_file *file;
    struct stat info;
    char text[128];
    int32_t status;

    *out = NULL;
    file = mmqi_calloc(1, sizeof *file);
    if (!file)
        return mmqi_fail(MMQ_ERR_NOMEM, "%s: no memory to open it", path);
    file->path = mmqi_strdup(path);
    file->fd = file->path ? open(path, flags | O_CLOEXEC, 0666) : -1;
    if (!file->path) {
        status = mmqi_fail(MMQ_ERR_NOMEM, "%s: no memory to open it", path);
    } else if (file->fd < 0) {
        status = errno == ENOENT   ? MMQ_ERR_NOT_FOUND
                 : errno == EEXIST ? MMQ_ERR_EXISTS
                                   : MMQ_ERR_IO;
        mmqi_fail(status, "%s: cannot open: %s", path, error_text(text));
    } else if (fstat(file->fd, &info) != 0 || !S_ISREG(info.st_mode)) {
        status = mmqi_fail(MMQ_ERR_IO, "%s: not a regular file", path);
    } else {
        file->size = (uint64_t)info.st_size;
        *out = file;
        return MMQ_OK;
    }
    mmqi_os_close(file);
    return status;
}

int32_t mmqi_os_open_read(struct mmqi_os_file **out, const char *path)
{
    /* O_NONBLOCK: a FIFO in place of a file must not block the host; regular files do not care. */
    return open_file(out, path, O_RDONLY | O_NONBLOCK);
}

int32_t mmqi_os_create(struct mmqi_os_file **out, const char *path)
{
    return open_file(out, path, O_WRONLY | O_CREAT | O_EXCL);
}

uint64_t mmqi_os_file_size(const struct mmqi_os_file *file)
{
    return file->size;
}

int32_t mmqi_os_read_at(struct mmqi_os_file *file, uint64_t offset, void *dst, size_t size)
{
    char *to = dst, text[128];
    ssize_t got;

    while (size > 0) {
        got = pread(file->fd, to, size < 1 << 30 ? size : 1 << 30, (off_t)offset);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return mmqi_fail(MMQ_ERR_IO, "%s: cannot read: %s", file->path, error_text(text));
        if (got == 0)
            return mmqi_fail(MMQ_ERR_FORMAT, "%s: ends %zu bytes before byte %llu", file->path,
                             size, (unsigned long long)(offset + size));
        to += got;
        size -= (size_t)got;
        offset += (uint64_t)got;
    }
    return MMQ_OK;
}

int32_t mmqi_os_write_at(struct mmqi_os_file *file, uint64_t offset, const void *src, size_t size)
{
    const char *from = src;
    char text[128];
    ssize_t put;

    while (size > 0) {
        put = pwrite(file->fd, from, size < 1 << 30 ? size : 1 << 30, (off_t)offset);
        if (put < 0 && errno == EINTR)
            continue;
        if (put <= 0)
            return mmqi_fail(MMQ_ERR_IO, "%s: cannot write: %s", file->path, error_text(text));
        from += put;
        size -= (size_t)put;
        offset += (uint64_t)put;
    }
    return MMQ_OK;
}

int32_t mmqi_os_sync(struct mmqi_os_file *file)
{
    char text[128];

    if (fsync(file->fd) != 0)
        return mmqi_fail(MMQ_ERR_IO, "%s: cannot sync: %s", file->path, error_text(text));
    return MMQ_OK;
}

void mmqi_os_close(struct mmqi_os_file *file)
{
    if (!file)
        return;
    if (file->fd >= 0)
        close(file->fd);
    mmqi_free(file->path);
    mmqi_free(file);
}

enum mmqi_os_kind mmqi_os_kind_of(const char *path)
{
    struct stat info;

    if (stat(path, &info) != 0)
        return errno == ENOENT || errno == ENOTDIR ? MMQI_OS_NOTHING : MMQI_OS_UNKNOWN;
    return S_ISDIR(info.st_mode) ? MMQI_OS_FOLDER : MMQI_OS_FILE;
}

/* The folder that `path` lies in, opened; -1 where that cannot be. */
static int open_parent(const char *path)
{
    size_t size = strlen(path);
    char *parent;
    int fd;

    while (size > 1 && path[size - 1] == '/')
        size--;
    while (size > 0 && path[size - 1] != '/')
        size--;
    parent = size > 0 ? mmqi_strndup(path, size) : mmqi_strdup(".");
    fd = parent ? open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    mmqi_free(parent);
    return fd;
}

/* Up to the root, comparing what the folders are. */
bool mmqi_os_is_inside(const char *path, const char *folder)
{
    enum { MAX_DEPTH = 1000 };
    struct stat wanted, at, below = {0};
    int fd = open_parent(path), next;
    bool inside = false, known = fd >= 0 && stat(folder, &wanted) == 0 && fstat(fd, &at) == 0;

    for (int depth = 0; known && depth < MAX_DEPTH; depth++) {
        inside = at.st_dev == wanted.st_dev && at.st_ino == wanted.st_ino;
        if (inside || (depth > 0 && at.st_dev == below.st_dev && at.st_ino == below.st_ino))
            break;
        below = at;
        next = openat(fd, "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        close(fd);
        fd = next;
        known = fd >= 0 && fstat(fd, &at) == 0;
    }
    if (fd >= 0)
        close(fd);
    return inside;
}

int32_t mmqi_os_make_folder(const char *path)
{
    char text[128];

    if (mkdir(path, 0777) != 0)
        return mmqi_fail(errno == EEXIST ? MMQ_ERR_EXISTS : MMQ_ERR_IO,
                         "%s: cannot make the folder: %s", path, error_text(text));
    return MMQ_OK;
}

int32_t mmqi_os_rename(const char *from, const char *to)
{
    char text[128];

    if (rename(from, to) != 0)
        return mmqi_fail(MMQ_ERR_IO, "%s: cannot rename to '%s': %s", from, to, error_text(text));
    return MMQ_OK;
}

bool mmqi_os_take_back(const char *from, const char *to)
{
    return rename(from, to) == 0;
}

void mmqi_os_remove_file(const char *path)
{
    unlink(path);
}

void mmqi_os_remove_folder(const char *path)
{
    rmdir(path);
}

int32_t mmqi_os_sync_folder(const char *path)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    char text[128];
    int result;

    if (fd < 0)
        return mmqi_fail(MMQ_ERR_IO, "%s: cannot open the folder: %s", path, error_text(text));
    result = fsync(fd);
    close(fd);
    /* Some file systems cannot sync folders and say EINVAL; the files themselves are synced. */
    if (result != 0 && errno != EINVAL)
        return mmqi_fail(MMQ_ERR_IO, "%s: cannot sync the folder: %s", path, error_text(text));
    return MMQ_OK;
}

/* ---- threads ---- */

struct mmqi_os_thread {
    pthread_t id;
    void (*body)(void *arg);
    void *arg;
};

struct mmqi_os_mutex {
    pthread_mutex_t lock;
};

struct mmqi_os_cond {
    pthread_cond_t cond;
};

static void *run_thread(void *arg)
{
    struct mmqi_os_thread *thread = arg;

    thread->body(thread->arg);
    return NULL;
}

#if defined(__GLIBC__)
#define HAS_ATTR_SIGMASK __GLIBC_PREREQ(2, 32)
#else
#define HAS_ATTR_SIGMASK 0
#endif

/* The host's handlers run on the host's threads: ours take only what a thread does to itself, and
 * the profiler's clock. */
static void block_signals(pthread_attr_t *attributes)
{
#if HAS_ATTR_SIGMASK
    static const int own[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS, SIGPROF};
    sigset_t blocked;

    sigfillset(&blocked);
    for (size_t i = 0; i < sizeof own / sizeof own[0]; i++)
        sigdelset(&blocked, own[i]);
    pthread_attr_setsigmask_np(attributes, &blocked);
#else
    (void)attributes; /* a thread has its creator's mask */
#endif
}

struct mmqi_os_thread *mmqi_os_thread_start(void (*body)(void *arg), void *arg)
{
    struct mmqi_os_thread *thread = mmqi_calloc(1, sizeof *thread);
    pthread_attr_t attributes;
    int fault;

    if (!thread)
        return NULL;
    thread->body = body;
    thread->arg = arg;
    fault = pthread_attr_init(&attributes);
    if (fault == 0) {
        block_signals(&attributes);
        fault = pthread_create(&thread->id, &attributes, run_thread, thread);
        pthread_attr_destroy(&attributes);
    }
    if (fault != 0) {
        mmqi_free(thread);
        return NULL;
    }
    return thread;
}

void mmqi_os_thread_join(struct mmqi_os_thread *thread)
{
    pthread_join(thread->id, NULL);
    mmqi_free(thread);
}

struct mmqi_os_mutex *mmqi_os_mutex_create(void)
{
    struct mmqi_os_mutex *mutex = mmqi_calloc(1, sizeof *mutex);

    if (mutex && pthread_mutex_init(&mutex->lock, NULL) != 0) {
        mmqi_free(mutex);
        mutex = NULL;
    }
    return mutex;
}

void mmqi_os_mutex_free(struct mmqi_os_mutex *mutex)
{
    if (!mutex)
        return;
    pthread_mutex_destroy(&mutex->lock);
    mmqi_free(mutex);
}

void mmqi_os_lock(struct mmqi_os_mutex *mutex)
{
    pthread_mutex_lock(&mutex->lock);
}

void mmqi_os_unlock(struct mmqi_os_mutex *mutex)
{
    pthread_mutex_unlock(&mutex->lock);
}

struct mmqi_os_cond *mmqi_os_cond_create(void)
{
    struct mmqi_os_cond *cond = mmqi_calloc(1, sizeof *cond);

    if (cond && pthread_cond_init(&cond->cond, NULL) != 0) {
        mmqi_free(cond);
        cond = NULL;
    }
    return cond;
}

void mmqi_os_cond_free(struct mmqi_os_cond *cond)
{
    if (!cond)
        return;
    pthread_cond_destroy(&cond->cond);
    mmqi_free(cond);
}

void mmqi_os_wait(struct mmqi_os_cond *cond, struct mmqi_os_mutex *mutex)
{
    pthread_cond_wait(&cond->cond, &mutex->lock);
}

void mmqi_os_wake_all(struct mmqi_os_cond *cond)
{
    pthread_cond_broadcast(&cond->cond);
}

void mmqi_os_memory(uint64_t *total, uint64_t *available)
{
    long page = sysconf(_SC_PAGESIZE), n = sysconf(_SC_PHYS_PAGES), n_free = 0;

#ifdef _SC_AVPHYS_PAGES
    n_free = sysconf(_SC_AVPHYS_PAGES);
#endif
    *total = page > 0 && n > 0 ? (uint64_t)page * (uint64_t)n : 0;
    *available = page > 0 && n_free > 0 ? (uint64_t)page * (uint64_t)n_free : 0;
}

int32_t mmqi_os_cpu_count(void)
{
    cpu_set_t set;
    int count;

    if (sched_getaffinity(0, sizeof set, &set) == 0) {
        count = CPU_COUNT(&set);
    } else {
        count = (int)sysconf(_SC_NPROCESSORS_ONLN);
    }
    return count < 1 ? 1 : count;
}

/* ---- libraries opened while the program runs ---- */

struct mmqi_os_library {
    void *handle;
};

/* What dlerror() says about `path`, without the name at its head, which the message has already. */
static const char *library_error(const char *path)
{
    const char *text = dlerror();
    size_t size = strlen(path);

    if (!text)
        return "no reason given";
    return strncmp(text, path, size) == 0 && text[size] == ':' ? text + size + 1 : text;
}

int32_t mmqi_os_library_open(struct mmqi_os_library **out, const char *path)
{
    struct mmqi_os_library *library;

    *out = NULL;
    /* A name without a slash would be looked for in the system's folders. */
    if (!strchr(path, '/') || mmqi_os_kind_of(path) == MMQI_OS_NOTHING)
        return mmqi_fail(MMQ_ERR_NOT_FOUND, "%s: there is no such library", path);
    library = mmqi_calloc(1, sizeof *library);
    if (!library)
        return mmqi_fail(MMQ_ERR_NOMEM, "%s: no memory to open it", path);
    library->handle = dlopen(path, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
    if (!library->handle) {
        mmqi_fail(MMQ_ERR_UNSUPPORTED, "%s: cannot be loaded: %s", path, library_error(path));
        mmqi_free(library);
        return MMQ_ERR_UNSUPPORTED;
    }
    *out = library;
    return MMQ_OK;
}

void *mmqi_os_library_symbol(struct mmqi_os_library *library, const char *name)
{
    return dlsym(library->handle, name);
}

void mmqi_os_library_close(struct mmqi_os_library *library)
{
    if (!library)
        return;
    dlclose(library->handle);
    mmqi_free(library);
}

char *mmqi_os_beside(const void *address, const char *name)
{
    const char *slash;
    size_t folder, size = strlen(name) + 1;
    char *path;
    Dl_info info;

    if (dladdr(address, &info) == 0 || !info.dli_fname)
        return NULL;
    slash = strrchr(info.dli_fname, '/');
    if (!slash)
        return NULL;
    folder = (size_t)(slash - info.dli_fname) + 1;
    path = mmqi_alloc(folder + size);
    if (!path)
        return NULL;
    memcpy(path, info.dli_fname, folder);
    memcpy(path + folder, name, size);
    return path;
}

/* ---- the rest ---- */

uint64_t mmqi_os_nanoseconds(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define WATCHED 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__)
#define WATCHED 1
#endif

#ifdef WATCHED /* by a sanitizer, which knows the blocks of malloc alone */

void *mmqi_os_alloc_large(size_t size)
{
    return malloc(size);
}

void mmqi_os_free_large(void *block, size_t size)
{
    (void)size;
    free(block);
}

#else

static size_t whole_pages(size_t size)
{
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);

    return size <= SIZE_MAX - page ? (size + page - 1) / page * page : 0;
}

/* Not malloc's: blocks that it aligns lie apart from each other in its heap, which keeps what lies
 * between, some of it touched by blocks before. Large pages begin at multiples of their size, so
 * one more of them is mapped, and what is too much goes back. */
void *mmqi_os_alloc_large(size_t size)
{
    const size_t large = (size_t)2 << 20, bytes = whole_pages(size);
    size_t head, rest;
    char *begin;

    if (bytes == 0 || bytes > SIZE_MAX - large)
        return NULL;
    begin = mmap(NULL, bytes + large, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (begin == MAP_FAILED)
        return NULL;
    head = (large - (uintptr_t)begin % large) % large;
    rest = large - head;
    if (head > 0)
        munmap(begin, head);
    begin += head;
    munmap(begin + bytes, rest);
#ifdef MADV_HUGEPAGE
    madvise(begin, bytes, MADV_HUGEPAGE);
#endif
    return begin;
}

void mmqi_os_free_large(void *block, size_t size)
{
    munmap(block, whole_pages(size));
}

#endif

/*
 * The C locale's conversions whatever the host has set: uselocale() changes
 * this thread only and is put back before anyone can see it.
 */
static locale_t enter_c_locale(locale_t *before)
{
    locale_t c = newlocale(LC_ALL_MASK, "C", (locale_t)0);

    *before = c ? uselocale(c) : (locale_t)0;
    return c;
}

static void leave_c_locale(locale_t c, locale_t before)
{
    if (!c)
        return;
    uselocale(before);
    freelocale(c);
}

double mmqi_os_parse_number(const char *text, char **end)
{
    locale_t before, c = enter_c_locale(&before);
    double value = strtod(text, end);

    leave_c_locale(c, before);
    return value;
}

int mmqi_os_print_number(char out[32], double value, int digits)
{
    locale_t before, c = enter_c_locale(&before);
    int size = snprintf(out, 32, "%.*g", digits < 1 ? 1 : digits > 17 ? 17 : digits, value);

    leave_c_locale(c, before);
    return size;
}
