#include "common.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const struct option_row *find_row(const struct option_row *rows, const char *name)
{
    for (; rows->name; rows++)
        if (strcmp(rows->name, name) == 0)
            return rows;
    return NULL;
}

/* A whole number from 0 to `most`. */
static bool read_whole(int64_t *number, const char *text, int64_t most)
{
    char *end;
    long long value;

    errno = 0;
    value = strtoll(text, &end, 10);
    if (errno != 0 || end == text || *end != '\0' || value < 0 || value > most)
        return false;
    *number = value;
    return true;
}

/* Store `value` where the row says; false when it is no number that fits there. */
static bool take_value(const struct option_row *row, const char *value)
{
    int64_t whole;
    char *end;

    if (row->text) {
        *row->text = value;
        return true;
    }
    if (row->number)
        return read_whole(row->number, value, INT64_MAX);
    if (row->count) {
        if (!read_whole(&whole, value, INT32_MAX))
            return false;
        *row->count = (int32_t)whole;
        return true;
    }
    errno = 0;
    *row->real = strtof(value, &end);
    return errno == 0 && end != value && *end == '\0' && *row->real >= 0;
}

static int complain(const char *program, const char *what, const char *argument)
{
    fprintf(stderr, "%s: %s '%s' (--help tells the usage)\n", program, what, argument);
    return -1;
}

int read_arguments(int argc, char **argv, const struct option_row *rows, const char **operands,
                   int most)
{
    const struct option_row *row;
    bool options = true;
    int n = 0, i;

    for (i = 1; i < argc; i++) {
        if (options && strcmp(argv[i], "--") == 0) {
            options = false;
            continue;
        }
        if (!options || argv[i][0] != '-' || argv[i][1] == '\0') {
            if (n == most)
                return complain(argv[0], "one argument too many:", argv[i]);
            operands[n++] = argv[i];
            continue;
        }
        row = find_row(rows, argv[i]);
        if (!row)
            return complain(argv[0], "no such option:", argv[i]);
        if (row->flag) {
            *row->flag = true;
            continue;
        }
        if (i + 1 == argc)
            return complain(argv[0], "a value is missing after", argv[i]);
        if (!take_value(row, argv[++i]))
            return complain(argv[0], "no number that the option takes:", argv[i]);
    }
    return n;
}

int report_failure(const char *program)
{
    fprintf(stderr, "%s: %s\n", program, mmq_last_error_message());
    return EXIT_FAILED;
}

int finish_output(const char *program, int code)
{
    if (fflush(stdout) == 0 && !ferror(stdout))
        return code;
    fprintf(stderr, "%s: stdout cannot be written\n", program);
    return EXIT_FAILED;
}

int32_t show_progress(void *user, uint64_t done, uint64_t total)
{
    enum { WIDTH = 40 };
    static const char bar[] = "########################################";
    int filled = total > 0 ? (int)((double)done / (double)total * WIDTH) : WIDTH;

    if (!isatty(STDERR_FILENO))
        return 0;
    fprintf(stderr, "\r%s [%-40.*s] %3d%%%s", (const char *)user, filled, bar, filled * 100 / WIDTH,
            done >= total ? "\n" : "");
    return 0;
}

void print_json_string(FILE *out, const char *text)
{
    fputc('"', out);
    for (; *text != '\0'; text++) {
        if (*text == '"' || *text == '\\')
            fprintf(out, "\\%c", *text);
        else if (*text == '\n')
            fputs("\\n", out);
        else if ((unsigned char)*text < 0x20)
            fprintf(out, "\\u%04x", (unsigned)*text);
        else
            fputc(*text, out);
    }
    fputc('"', out);
}
