/*
 * A folder of its own for a test that writes files, and what such a test asks
 * of them. Suites run side by side, so each test gets a fresh name; the test,
 * which Check runs in a process of its own, works inside the folder.
 */
#ifndef MMQ_TEST_SCRATCH_H
#define MMQ_TEST_SCRATCH_H

#include <check.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "support.h"

/* Check's fixtures, for tcase_add_checked_fixture(). */
__attribute__((unused)) static void scratch_enter(void)
{
    char path[4096];

    mkdir(source_path("build"), 0777);
    mkdir(source_path("build/tmp"), 0777);
    snprintf(path, sizeof path, "%s", source_path("build/tmp/scratch-XXXXXX"));
    ck_assert_ptr_nonnull(mkdtemp(path));
    ck_assert_int_eq(chdir(path), 0);
}

__attribute__((unused)) static void scratch_leave(void)
{
    char path[4096], command[4200];

    ck_assert_ptr_nonnull(getcwd(path, sizeof path));
    ck_assert_ptr_nonnull(strstr(path, "/build/tmp/scratch-"));
    ck_assert_int_eq(chdir(source_root()), 0);
    snprintf(command, sizeof command, "rm -rf '%s'", path);
    ck_assert_int_eq(system(command), 0);
}

/* Names in a folder. */
__attribute__((unused)) static int count_files(const char *path)
{
    DIR *folder = opendir(path);
    int n = 0;

    ck_assert_ptr_nonnull(folder);
    for (struct dirent *item = readdir(folder); item; item = readdir(folder))
        n += strcmp(item->d_name, ".") != 0 && strcmp(item->d_name, "..") != 0;
    closedir(folder);
    return n;
}

/* The whole file, with a zero byte after it; to be freed. */
__attribute__((unused)) static char *read_file(const char *path, size_t *size)
{
    FILE *file = fopen(path, "rb");
    char *data;

    ck_assert_msg(file != NULL, "no file %s", path);
    fseek(file, 0, SEEK_END);
    *size = (size_t)ftell(file);
    rewind(file);
    data = malloc(*size + 1);
    ck_assert_uint_eq(fread(data, 1, *size, file), *size);
    data[*size] = '\0';
    fclose(file);
    return data;
}

__attribute__((unused)) static void same_files(const char *a, const char *b)
{
    size_t a_size, b_size;
    char *a_data = read_file(a, &a_size), *b_data = read_file(b, &b_size);

    ck_assert_msg(a_size == b_size, "%s has %zu bytes, %s has %zu", a, a_size, b, b_size);
    ck_assert_msg(memcmp(a_data, b_data, a_size) == 0, "%s and %s differ", a, b);
    free(a_data);
    free(b_data);
}

#endif
