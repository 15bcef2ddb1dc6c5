/* Reading record.json: every key by name and type; an error names the entry and the key. */
#include "eval_record.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool fail_record(struct eval_record *record, const char *path, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static bool fail_record(struct eval_record *record, const char *path, const char *format, ...)
{
    char what[320];
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(what, sizeof what, format, arguments);
    va_end(arguments);
    snprintf(record->error, sizeof record->error, "%.180s: %s", path, what);
    return false;
}

/* Where a value is looked for, for errors. */
struct place {
    struct eval_record *record;
    const char *path;
    size_t entry;
    const struct json_value *object;
};

static bool missing(const struct place *place, const char *key, const char *what)
{
    return fail_record(place->record, place->path, "entry %zu: '%s' is %s", place->entry, key,
                       what);
}

static bool get_text(const struct place *place, const char *key, size_t most, const char **text)
{
    const struct json_value *value = json_get(place->object, key);

    if (!value || value->type != JSON_STRING)
        return missing(place, key, value ? "no string" : "missing");
    if (value->n > most)
        return missing(place, key, "too long");
    *text = value->text;
    return true;
}

static bool get_number(const struct place *place, const char *key, double least, double most,
                       double *number)
{
    const struct json_value *value = json_get(place->object, key);

    if (!value || value->type != JSON_NUMBER)
        return missing(place, key, value ? "no number" : "missing");
    if (value->number < least || value->number > most)
        return missing(place, key, "out of range");
    *number = value->number;
    return true;
}

static bool get_count(const struct place *place, const char *key, size_t least, size_t most,
                      size_t *count)
{
    double number;

    if (!get_number(place, key, (double)least, (double)most, &number))
        return false;
    *count = (size_t)number;
    if ((double)*count != number)
        return missing(place, key, "no whole number");
    return true;
}

static bool get_yes_no(const struct place *place, const char *key, bool *yes)
{
    const char *text;

    if (!get_text(place, key, 8, &text))
        return false;
    *yes = strcmp(text, "Yes") == 0;
    if (!*yes && strcmp(text, "No") != 0)
        return missing(place, key, "neither Yes nor No");
    return true;
}

static bool get_array(const struct place *place, const char *key, const struct json_value **array)
{
    *array = json_get(place->object, key);
    if (!*array || (*array)->type != JSON_ARRAY)
        return missing(place, key, *array ? "no array" : "missing");
    return true;
}

static bool read_caption(const struct place *place, struct eval_entry *entry)
{
    const struct json_value *captions;

    if (!get_array(place, "captions", &captions))
        return false;
    if (captions->n == 0 || captions->first->type != JSON_STRING)
        return missing(place, "captions", "without a first caption");
    if (captions->first->n > EVAL_MOST_CAPTION_BYTES)
        return missing(place, "captions", "too long");
    entry->caption = captions->first->text;
    return true;
}

static bool read_question(const struct place *place, struct eval_question *question)
{
    return get_text(place, "question", EVAL_MOST_CAPTION_BYTES, &question->text) &&
           get_yes_no(place, "answer", &question->answer) &&
           get_yes_no(place, "model", &question->model) &&
           get_number(place, "margin", -1e6, 1e6, &question->margin);
}

/* The questions of an entry, into the record's array at `questions`. */
static bool read_questions(const struct place *place, struct eval_entry *entry,
                           struct eval_question *questions)
{
    const struct json_value *array, *item;
    struct place inner = *place;

    if (!get_array(place, "questions", &array))
        return false;
    if (array->n > EVAL_MOST_QUESTIONS)
        return missing(place, "questions", "too long");
    entry->questions = questions;
    for (item = array->first; item; item = item->next) {
        inner.object = item;
        if (!read_question(&inner, &questions[entry->n_questions]))
            return false;
        entry->n_questions++;
    }
    return true;
}

static bool read_entry(const struct place *place, struct eval_entry *entry)
{
    const size_t most = EVAL_MOST_CAPTION_BYTES + 8; /* tokens: not more than bytes */

    if (!get_text(place, "file", 255, &entry->file))
        return false;
    if (!eval_is_plain_name(entry->file))
        return missing(place, "file", "no plain file name");
    return read_caption(place, entry) &&
           get_text(place, "greedy", EVAL_MOST_CAPTION_BYTES, &entry->greedy) &&
           get_number(place, "nll_sum", 0, 1e9, &entry->nll_sum) &&
           get_number(place, "nll_sum_wrong_picture", 0, 1e9, &entry->nll_sum_wrong_picture) &&
           get_count(place, "tokens", 1, most, &entry->tokens) &&
           get_count(place, "top1", 0, entry->tokens, &entry->top1);
}

/* Room for what the entries hold at most: counted before anything is believed. */
static bool make_room(struct eval_record *record, const char *path, const struct json_value *root)
{
    const struct json_value *item, *questions;
    size_t n_questions = 0;

    if (root->type != JSON_ARRAY || root->n == 0)
        return fail_record(record, path, "no array of entries");
    if (root->n > EVAL_MOST_ENTRIES)
        return fail_record(record, path, "%zu entries are too many", root->n);
    for (item = root->first; item; item = item->next) {
        questions = json_get(item, "questions");
        if (questions && questions->type == JSON_ARRAY)
            n_questions += questions->n;
    }
    record->entries = calloc(root->n, sizeof *record->entries);
    record->questions = calloc(n_questions + 1, sizeof *record->questions);
    if (!record->entries || !record->questions)
        return fail_record(record, path, "no memory for %zu entries", root->n);
    return true;
}

bool eval_record_read(struct eval_record *record, const char *path)
{
    struct place place = {.record = record, .path = path};
    struct eval_question *questions;
    const struct json_value *item;

    memset(record, 0, sizeof *record);
    if (!json_read_file(&record->json, path))
        return fail_record(record, path, "%s", record->json.error);
    if (!make_room(record, path, &record->json.values[0]))
        goto failed;
    questions = record->questions;
    for (item = record->json.values[0].first; item; item = item->next) {
        struct eval_entry *entry = &record->entries[record->n];

        place.entry = record->n;
        place.object = item;
        if (!read_entry(&place, entry) || !read_questions(&place, entry, questions))
            goto failed;
        questions += entry->n_questions;
        record->n++;
    }
    return true;
failed:
    eval_record_free(record);
    return false;
}

void eval_record_free(struct eval_record *record)
{
    json_free(&record->json);
    free(record->entries);
    free(record->questions);
    record->entries = NULL;
    record->questions = NULL;
    record->n = 0;
}

static size_t wrong_shift(size_t n)
{
    return (n / 3 + 1) % n;
}

size_t eval_wrong_picture(size_t i, size_t n)
{
    return (i + wrong_shift(n)) % n;
}

size_t eval_wrong_picture_owner(size_t j, size_t n)
{
    return (j + n - wrong_shift(n)) % n;
}

bool eval_is_plain_name(const char *name)
{
    const char *c;

    if (*name == '\0' || *name == '.')
        return false;
    for (c = name; *c != '\0'; c++)
        if (*c == '/' || *c == '\\' || (unsigned char)*c < 0x20 || *c == 0x7F)
            return false;
    return true;
}
