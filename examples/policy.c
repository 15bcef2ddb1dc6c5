#include "policy.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "json.h"

enum { MOST_POLICY_BYTES = 64 << 10 };

static char *complain(const char *program, const char *name, const char *what)
{
    fprintf(stderr, "%s: %s: %s\n", program, name, what);
    return NULL;
}

/* A folder is no policy, so that one named "nf4" is not in the way of the format. */
static FILE *open_policy(const char *argument)
{
    struct stat facts;

    if (stat(argument, &facts) == 0 && S_ISDIR(facts.st_mode)) {
        errno = ENOENT;
        return NULL;
    }
    return fopen(argument, "rb");
}

char *read_policy(const char *program, const char *argument)
{
    FILE *file = open_policy(argument);
    char *text;
    size_t size;

    if (!file && errno != ENOENT && errno != ENAMETOOLONG && errno != ENOTDIR)
        return complain(program, argument, strerror(errno));
    if (!file) {
        text = strdup(argument);
        return text ? text : complain(program, "policy", "no memory");
    }
    text = malloc(MOST_POLICY_BYTES + 2);
    size = text ? fread(text, 1, MOST_POLICY_BYTES + 1, file) : 0;
    if (!text) {
        complain(program, argument, "no memory");
    } else if (ferror(file) || size > MOST_POLICY_BYTES || memchr(text, '\0', size)) {
        complain(program, argument,
                 ferror(file)               ? "cannot be read"
                 : size > MOST_POLICY_BYTES ? "more than 64 KiB are no policy"
                                            : "holds a zero byte");
        free(text);
        text = NULL;
    } else {
        text[size] = '\0';
    }
    fclose(file);
    return text;
}

static const char *text_of(const struct json_value *object, const char *key)
{
    const struct json_value *value = json_get(object, key);

    return value && value->text ? value->text : "";
}

static double number_of(const struct json_value *object, const char *key)
{
    const struct json_value *value = json_get(object, key);

    return value ? value->number : 0.0;
}

static void print_item(FILE *out, const struct json_value *item)
{
    const char *method = text_of(item, "method");

    fprintf(out, "%-36s %-5s %-18s %-6s %12.0f  %s\n", text_of(item, "name"),
            text_of(item, "source_format"), text_of(item, "format"),
            strcmp(method, "none") == 0 ? "-" : method, number_of(item, "bytes"),
            text_of(item, "reason"));
}

bool print_plan(FILE *out, const char *json)
{
    struct json_document doc = {0};
    const struct json_value *root, *item, *tensors;

    if (!json_read_text(&doc, json, strlen(json)))
        return false;
    root = doc.values;
    tensors = json_get(root, "tensors");
    fprintf(out, "%-36s %-5s %-18s %-6s %12s  %s\n", "tensor", "was", "format", "method", "bytes",
            "reason");
    for (item = tensors ? tensors->first : NULL; item; item = item->next)
        print_item(out, item);
    fprintf(out, "%.0f tensors change, %.0f are kept; %.0f bytes become %.0f\n",
            number_of(root, "n_quantized"), number_of(root, "n_kept"),
            number_of(root, "source_bytes"), number_of(root, "bytes"));
    json_free(&doc);
    return true;
}
