/*
 * What test suites share: where files lie, and how a test is skipped.
 *
 * Paths start from SOURCE_ROOT, which the Makefile defines, so that a suite
 * may run from any folder; TEST_SOURCE_ROOT is where the tree lies now, if it was moved.
 */
#ifndef MMQ_TEST_SUPPORT_H
#define MMQ_TEST_SUPPORT_H

#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

/* Leave the test, which counts as skipped: SKIP("%s is absent", path). */
#define SKIP(...)                                                                                  \
    do {                                                                                           \
        printf("SKIPPED: " __VA_ARGS__);                                                           \
        putchar('\n');                                                                             \
        fflush(stdout);                                                                            \
        return;                                                                                    \
    } while (0)

/* Text in one of eight buffers that are used in turn: good until the eighth call from here. */
__attribute__((format(printf, 1, 2), unused)) static const char *support_text(const char *format,
                                                                              ...)
{
    static char texts[8][4096];
    static unsigned turn;
    char *text = texts[turn++ % 8];
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof texts[0], format, args);
    va_end(args);
    return text;
}

__attribute__((unused)) static const char *source_root(void)
{
    const char *moved = getenv("TEST_SOURCE_ROOT");

    return moved && *moved ? moved : SOURCE_ROOT;
}

/* A file of the source tree: source_path("test/golden/llava_tiny"). */
__attribute__((unused)) static const char *source_path(const char *name)
{
    return support_text("%s/%s", source_root(), name);
}

/* A file or folder of the shared data beside the checkout; NULL where there is none (then SKIP). */
__attribute__((unused)) static const char *shared_path(const char *name)
{
    static const char *const places[] = {"../shared", "../../shared"};
    struct stat info;

    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
        const char *path = support_text("%s/%s/%s", source_root(), places[i], name);

        if (stat(path, &info) == 0)
            return path;
    }
    return NULL;
}

#endif
