/* Prefixes and patterns of tensor names. */
#include "model/names.h"

#include <stdio.h>
#include <string.h>

#include "core/text.h"

enum { MAX_FILE_NAME = 1024, MAX_DIGITS = 9 };

/* The first prefix that matches is replaced, once. False where the result does not fit. */
static bool replace_prefix(char out[MAX_FILE_NAME], const struct mmqi_prefix *prefixes,
                           const char *name)
{
    int length;

    for (; prefixes->from; prefixes++)
        if (mmqi_starts_with(name, prefixes->from))
            break;
    if (prefixes->from)
        length = snprintf(out, MAX_FILE_NAME, "%s%s", prefixes->to, name + strlen(prefixes->from));
    else
        length = snprintf(out, MAX_FILE_NAME, "%s", name);
    return length >= 0 && length < MAX_FILE_NAME;
}

/* Length of the decimal number at `text`, without leading zeros; 0 for none. */
static int number_length(const char *text)
{
    int n = 0;

    while (text[n] >= '0' && text[n] <= '9')
        n++;
    if (n > MAX_DIGITS || (n > 1 && text[0] == '0'))
        return 0;
    return n;
}

/* Does `name` fit `pattern`? The digits that stand for "{}" are name[*at .. *at + *n). */
static bool matches(const char *pattern, const char *name, int *at, int *n)
{
    const char *hole = strstr(pattern, "{}");
    size_t head = hole ? (size_t)(hole - pattern) : 0;

    *at = *n = 0;
    if (!hole)
        return strcmp(pattern, name) == 0;
    if (strncmp(pattern, name, head) != 0)
        return false;
    *at = (int)head;
    *n = number_length(name + head);
    return *n > 0 && strcmp(hole + 2, name + head + *n) == 0;
}

static bool fill(char out[MMQI_MAX_WEIGHT_NAME], const char *pattern, const char *digits, int n)
{
    const char *hole = strstr(pattern, "{}");
    int length;

    if (hole)
        length = snprintf(out, MMQI_MAX_WEIGHT_NAME, "%.*s%.*s%s", (int)(hole - pattern), pattern,
                          n, digits, hole + 2);
    else
        length = snprintf(out, MMQI_MAX_WEIGHT_NAME, "%s", pattern);
    return length >= 0 && length < MMQI_MAX_WEIGHT_NAME;
}

enum mmqi_name_kind mmqi_canonical_name(char out[MMQI_MAX_WEIGHT_NAME],
                                        const struct mmqi_family *family, const char *file_name)
{
    char name[MAX_FILE_NAME];
    int at, n;

    if (!replace_prefix(name, family->prefixes, file_name))
        return MMQI_NAME_UNKNOWN;
    for (const struct mmqi_alias *alias = family->aliases; alias->file; alias++) {
        if (!matches(alias->file, name, &at, &n))
            continue;
        if (!alias->name)
            return MMQI_NAME_IGNORED;
        return fill(out, alias->name, name + at, n) ? MMQI_NAME_KNOWN : MMQI_NAME_UNKNOWN;
    }
    return MMQI_NAME_UNKNOWN;
}
