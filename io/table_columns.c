/* SPDX-License-Identifier: Apache-2.0 */
/* Which column holds the texts and which the labels: by name, or a guess that is made only where one choice is plausible. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "nearest.h"
#include "table_build.h"

/* What people call such columns. The first name of a list wins over the others; between the others there is no order, so that two of
 * them in one file are a question to the user. */
static const char *const text_names[] = { "text", "sentence",    "review", "content",   "comment",  "message",
                                          "body", "description", "tweet",  "utterance", "question", "title",
                                          "文本", "内容",        "评论",   NULL };
static const char *const label_names[] = { "label",   "class",    "category", "target", "sentiment", "stars",
                                           "rating",  "section",  "polarity", "topic",  "intent",    "tag",
                                           "emotion", "language", "genre",    "标签",   "类别",      NULL };

static char lower(char c) { return c >= 'A' && c <= 'Z' ? (char)(c + 32) : c; }

static bool same_name(const char *a, const char *b) {
    for (; *a && lower(*a) == lower(*b); a++) b++;
    return lower(*a) == lower(*b);
}

static bool is_one_of(const char *name, const char *const *list) {
    for (; *list; list++)
        if (same_name(name, *list)) return true;
    return false;
}

/* "id, review, stars": as many as fit, then "...". */
static void list_names(const char **names, size_t n, char *out, size_t size) {
    size_t used = 0;
    out[0] = 0;
    for (size_t i = 0; i < n; i++) {
        size_t length = strlen(names[i]);
        if (length + sizeof ", , ..." > size - used) {
            strcpy(out + used, i ? ", ..." : "...");
            return;
        }
        used += (size_t)sprintf(out + used, "%s%s", i ? ", " : "", names[i]);
    }
}

int table_no_column(table_builder *b, const char *option, const char *wanted, const char **names, size_t n) {
    char list[240];
    list_names(names, n, list, sizeof list);
    const char *near = nearest(wanted, (const char *const *)names, n);
    if (near)
        return io_fail(b->error, IO_BAD_USAGE, "%s has no column '%s' (columns: %s); did you mean --%s=%s?", b->name, wanted,
                       list, option, near);
    return io_fail(b->error, IO_BAD_USAGE, "%s has no column '%s' (columns: %s); give one of them with --%s", b->name, wanted,
                   list, option);
}

/* The column with this very name; *twice where there are two of them. */
static size_t find_name(const char *wanted, const char **names, size_t n, bool *twice) {
    size_t at = SIZE_MAX;
    *twice = false;
    for (size_t i = 0; i < n; i++) {
        if (strcmp(names[i], wanted)) continue;
        *twice = at != SIZE_MAX;
        at = at == SIZE_MAX ? i : at;
    }
    return at;
}

/* The one column other than `taken` that is called like the list says; SIZE_MAX where there is none or more than one. */
static size_t guess_by_name(const char **names, size_t n, const char *const *list, size_t taken) {
    size_t at = SIZE_MAX, found = 0;
    for (size_t i = 0; i < n; i++)
        if (i != taken && same_name(names[i], list[0])) return i;
    for (size_t i = 0; i < n; i++)
        if (i != taken && is_one_of(names[i], list)) at = i, found++;
    return found == 1 ? at : SIZE_MAX;
}

static int named_column(table_builder *b, const char *option, const char *wanted, const char **names, size_t n, bool lenient,
                        size_t *at) {
    bool twice;
    *at = find_name(wanted, names, n, &twice);
    if (twice) return io_fail(b->error, IO_BAD_DATA, "%s has two columns '%s'; give one of them another name", b->name, wanted);
    if (*at == SIZE_MAX && !lenient) return table_no_column(b, option, wanted, names, n);
    return IO_OK;
}

static int cannot_guess(table_builder *b, const char *option, const char **names, size_t n, size_t other) {
    char list[240];
    list_names(names, n, list, sizeof list);
    bool alone = n < 2 && other != SIZE_MAX;
    if (alone) return io_fail(b->error, IO_BAD_DATA, "%s has only the column '%s'; texts and labels are needed", b->name, list);
    return io_fail(b->error, IO_BAD_USAGE, "%s: which column holds the %ss? Say it with --%s (columns: %s)", b->name, option,
                   option, list);
}

int table_choose(table_builder *b, const char **names, size_t n, bool lenient, size_t *text, size_t *label) {
    const table_options *o = b->options;
    *text = *label = SIZE_MAX;
    int failed = IO_OK;
    if (o->text) failed = named_column(b, "text", o->text, names, n, lenient, text);
    if (!failed && o->label && !o->no_labels) failed = named_column(b, "label", o->label, names, n, lenient, label);
    if (failed) return failed;

    bool want_label = !o->no_labels && !o->label;
    if (!o->text) *text = guess_by_name(names, n, text_names, *label);
    if (want_label) *label = guess_by_name(names, n, label_names, *text);
    /* Of two columns the one that is not the other; a single one is the text when no label is wanted. */
    if (!o->text && *text == SIZE_MAX && n == 2 && *label < n) *text = 1 - *label;
    if (!o->text && *text == SIZE_MAX && n == 1 && o->no_labels) *text = 0;
    if (want_label && *label == SIZE_MAX && n == 2 && *text < n) *label = 1 - *text;

    if (!o->text && *text == SIZE_MAX) return cannot_guess(b, "text", names, n, *label);
    if (want_label && *label == SIZE_MAX) return cannot_guess(b, "label", names, n, *text);
    if (*text == *label && *text != SIZE_MAX)
        return io_fail(b->error, IO_BAD_USAGE, "%s: text and label are the same column '%s'", b->name, names[*text]);
    b->out->text_guessed = !o->text;
    b->out->label_guessed = want_label;
    return IO_OK;
}
