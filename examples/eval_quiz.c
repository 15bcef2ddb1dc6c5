/* Reading questions.jsonl, a bounded line at a time, and scoring what is answered. */
#include "eval_quiz.h"

#include <errno.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "eval_record.h"

/* ---- one line -------------------------------------------------------------------------------- */

/* Where a value is looked for, for errors. */
struct quiz_line {
    struct quiz *quiz;
    size_t number; /* from 1 */
    const struct json_value *object;
};

static bool fail_line(const struct quiz_line *line, const char *key, const char *what)
{
    return EVAL_FAIL(line->quiz, "%s:%zu: '%s' %s", line->quiz->path, line->number, key, what);
}

static bool line_text(const struct quiz_line *line, const char *key, size_t most,
                      const struct json_value **text)
{
    *text = json_get(line->object, key);
    if (!*text)
        return fail_line(line, key, "is missing");
    if ((*text)->type != JSON_STRING)
        return fail_line(line, key, "is no string");
    return (*text)->n <= most || fail_line(line, key, "is too long");
}

/* A path that stays in the folder: plain names between single slashes. */
static bool is_inner_path(const char *path)
{
    char name[QUIZ_MOST_NAME_BYTES + 1];
    size_t n;

    for (;;) {
        n = strcspn(path, "/");
        if (n >= sizeof name)
            return false;
        memcpy(name, path, n);
        name[n] = '\0';
        if (!eval_is_plain_name(name))
            return false;
        if (path[n] == '\0')
            return true;
        path += n + 1;
    }
}

static bool check_images(const struct quiz_line *line, const struct json_value **images,
                         size_t *bytes)
{
    const struct json_value *item;

    *images = json_get(line->object, "images");
    if (!*images)
        return fail_line(line, "images", "is missing");
    if ((*images)->type != JSON_ARRAY)
        return fail_line(line, "images", "is no array");
    if ((*images)->n > EVAL_MOST_IMAGES)
        return fail_line(line, "images", "is too long");
    for (item = (*images)->first; item; item = item->next) {
        if (item->type != JSON_STRING)
            return fail_line(line, "images", "holds what is no string");
        if (item->n > QUIZ_MOST_NAME_BYTES || !is_inner_path(item->text))
            return fail_line(line, "images", "holds what is no file name in the folder");
        *bytes += item->n + 1;
    }
    return true;
}

/* The number of a kind, which is a new one when it was not there before. */
static bool find_kind(const struct quiz_line *line, const char *kind, unsigned char *index)
{
    struct quiz *quiz = line->quiz;
    const char *c;
    size_t i;

    for (i = 0; i < quiz->n_kinds; i++)
        if (strcmp(quiz->kinds[i], kind) == 0)
            break;
    *index = (unsigned char)i;
    if (i < quiz->n_kinds)
        return true;
    for (c = kind; *c != '\0'; c++)
        if ((unsigned char)*c < 0x20 || *c == 0x7F)
            return fail_line(line, "kind", "holds control characters");
    if (c == kind)
        return fail_line(line, "kind", "is empty");
    if (i == QUIZ_MOST_KINDS)
        return fail_line(line, "kind", "is one kind too many");
    memcpy(quiz->kinds[i], kind, strlen(kind) + 1);
    quiz->n_kinds++;
    return true;
}

/* Copy the text to *end, which moves on. */
static const char *keep_text(char **end, const struct json_value *text)
{
    char *begin = *end;

    memcpy(begin, text->text, text->n + 1);
    *end += text->n + 1;
    return begin;
}

static bool read_item(const struct quiz_line *line, struct quiz_item *item)
{
    const struct json_value *images, *image, *question, *answer, *kind;
    size_t bytes = 0;
    char *end;

    if (line->object->type != JSON_OBJECT)
        return EVAL_FAIL(line->quiz, "%s:%zu: no object", line->quiz->path, line->number);
    if (!check_images(line, &images, &bytes) ||
        !line_text(line, "question", QUIZ_MOST_TEXT_BYTES, &question) ||
        !line_text(line, "answer", QUIZ_MOST_TEXT_BYTES, &answer) ||
        !line_text(line, "kind", QUIZ_MOST_KIND_BYTES, &kind) ||
        !find_kind(line, kind->text, &item->kind))
        return false;
    item->images = end = malloc(bytes + question->n + 1 + answer->n + 1);
    if (!end)
        return EVAL_FAIL(line->quiz, "%s:%zu: no memory", line->quiz->path, line->number);
    for (image = images->first; image; image = image->next)
        keep_text(&end, image);
    item->n_images = (unsigned char)images->n;
    item->question = keep_text(&end, question);
    item->answer = keep_text(&end, answer);
    return true;
}

/* ---- the file -------------------------------------------------------------------------------- */

static bool grow(struct quiz *quiz)
{
    size_t capacity = quiz->capacity > 0 ? 2 * quiz->capacity : 1024;
    struct quiz_item *items;

    if (quiz->n < quiz->capacity)
        return true;
    items = realloc(quiz->items, capacity * sizeof *items); /* at most 2 * QUIZ_MOST_ITEMS */
    if (!items)
        return EVAL_FAIL(quiz, "%s:%zu: no memory", quiz->path, quiz->n + 1);
    quiz->items = items;
    quiz->capacity = capacity;
    return true;
}

static bool add_line(struct quiz *quiz, const char *text, size_t size)
{
    struct quiz_line line = {.quiz = quiz, .number = quiz->n + 1};
    struct json_document json;
    bool done;

    if (quiz->n == QUIZ_MOST_ITEMS)
        return EVAL_FAIL(quiz, "%s:%zu: more than %d questions", quiz->path, line.number,
                         QUIZ_MOST_ITEMS);
    if (!grow(quiz))
        return false;
    if (!json_read_text(&json, text, size))
        return EVAL_FAIL(quiz, "%s:%zu: %s", quiz->path, line.number, json.error);
    line.object = &json.values[0];
    quiz->items[quiz->n] = (struct quiz_item){.images = NULL};
    done = read_item(&line, &quiz->items[quiz->n]);
    quiz->n += done;
    json_free(&json);
    return done;
}

/* The next line without its end into text [QUIZ_MOST_LINE_BYTES]. False at the end of the file, or
 * where the line is too long (*size is then more). */
static bool next_line(FILE *file, char *text, size_t *size)
{
    int c;

    *size = 0;
    while ((c = getc(file)) != EOF && c != '\n') {
        if (*size == QUIZ_MOST_LINE_BYTES) {
            ++*size;
            return false;
        }
        text[(*size)++] = (char)c;
    }
    return c != EOF || *size > 0;
}

static bool read_lines(struct quiz *quiz, FILE *file, char *text)
{
    size_t size, bytes = 0;

    while (next_line(file, text, &size)) {
        bytes += size + 1;
        if (bytes > QUIZ_MOST_BYTES)
            return EVAL_FAIL(quiz, "%s:%zu: more than %d bytes", quiz->path, quiz->n + 1,
                             QUIZ_MOST_BYTES);
        if (!add_line(quiz, text, size))
            return false;
    }
    if (size > QUIZ_MOST_LINE_BYTES)
        return EVAL_FAIL(quiz, "%s:%zu: a line of more than %d bytes", quiz->path, quiz->n + 1,
                         QUIZ_MOST_LINE_BYTES);
    if (ferror(file))
        return EVAL_FAIL(quiz, "%s:%zu: cannot be read", quiz->path, quiz->n + 1);
    return quiz->n > 0 || EVAL_FAIL(quiz, "%s:1: no questions", quiz->path);
}

bool quiz_read(struct quiz *quiz, const char *path)
{
    FILE *file;
    char *text;
    bool done;

    memset(quiz, 0, sizeof *quiz);
    if ((size_t)snprintf(quiz->path, sizeof quiz->path, "%s", path) >= sizeof quiz->path)
        return EVAL_FAIL(quiz, "the path is too long");
    file = fopen(path, "rb");
    if (!file)
        return EVAL_FAIL(quiz, "%s: %s", path, strerror(errno));
    text = malloc(QUIZ_MOST_LINE_BYTES);
    done = text ? read_lines(quiz, file, text) : EVAL_FAIL(quiz, "%s: no memory", path);
    free(text);
    fclose(file);
    if (!done)
        quiz_free(quiz);
    return done;
}

void quiz_free(struct quiz *quiz)
{
    size_t i;

    for (i = 0; i < quiz->n; i++)
        free(quiz->items[i].images);
    free(quiz->items);
    quiz->items = NULL;
    quiz->n = quiz->capacity = quiz->n_kinds = 0;
}

/* ---- scores ---------------------------------------------------------------------------------- */

/* The next item of [*text, *text + *n); both move past its ", ". False after the last. */
static bool next_part(const char **text, size_t *n, const char **part, size_t *part_n)
{
    size_t i = 0;

    if (!*text)
        return false;
    while (i < *n && !(i + 1 < *n && (*text)[i] == ',' && (*text)[i + 1] == ' '))
        i++;
    *part = *text;
    *part_n = i;
    if (i < *n) {
        *text += i + 2;
        *n -= i + 2;
    } else {
        *text = NULL;
    }
    return true;
}

struct quiz_part {
    const char *text;
    size_t n;
    bool taken;
};

/* The F1 of two texts of a and b bytes without blanks at their ends. */
static double item_f1(const char *truth, size_t a, const char *answer, size_t b)
{
    struct quiz_part parts[QUIZ_MOST_TEXT_BYTES / 2 + 1];
    size_t n_truth = 0, n_answer = 0, equal = 0, n, i;
    const char *part;

    if (a == 0 || b == 0)
        return a == b;
    while (n_truth < sizeof parts / sizeof *parts && next_part(&truth, &a, &part, &n))
        parts[n_truth++] = (struct quiz_part){part, n, false};
    for (; next_part(&answer, &b, &part, &n); n_answer++)
        for (i = 0; i < n_truth; i++)
            if (!parts[i].taken && parts[i].n == n && memcmp(parts[i].text, part, n) == 0) {
                parts[i].taken = true;
                equal++;
                break;
            }
    return 2 * (double)equal / (double)(n_truth + n_answer);
}

double quiz_score(const char *kind, const char *truth, const char *answer)
{
    size_t a, b;

    truth = eval_strip(truth, &a);
    answer = eval_strip(answer, &b);
    if (strcmp(kind, "describe") == 0)
        return item_f1(truth, a, answer, b);
    return a == b && memcmp(truth, answer, a) == 0;
}

void quiz_tally_add(struct quiz_tally *tally, size_t kind, double score)
{
    tally->all.n++;
    tally->all.score += score;
    tally->kind[kind].n++;
    tally->kind[kind].score += score;
}

double quiz_mean(const struct quiz_sum *sum)
{
    return sum->n > 0 ? sum->score / (double)sum->n : NAN;
}
