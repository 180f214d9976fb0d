/* SPDX-License-Identifier: Apache-2.0 */
/* Tables of one record a line: .jsonl, where each line is an object and its keys are the columns, and fastText files, where each line
 * is `__label__x` and a text. */
#define _POSIX_C_SOURCE 200809L /* strdup */
#include <stdlib.h>
#include <string.h>

#include "json.h"
#include "table_build.h"

/* A line's JSON may hold much that nobody asked for, but not without end. */
enum { LINE_PARTS = 1 << 18, LINE_DEPTH = 64 };

static const char prefix[] = "__label__";

/* Cuts the next line out of the text: NUL-terminated, without its line end. False at the end of the text. */
static bool next_line(table_builder *b, size_t *at, char **line, size_t *length) {
    if (*at >= b->size) return false;
    *line = b->text + *at;
    char *end = memchr(*line, '\n', b->size - *at);
    *length = end ? (size_t)(end - *line) : b->size - *at;
    *at += *length + (end != NULL);
    if (*length > 0 && (*line)[*length - 1] == '\r') --*length;
    (*line)[*length] = 0;
    return true;
}

static bool is_blank(const char *s) { return s[strspn(s, " \t\r\n\f\v")] == 0; }

/* ---- jsonl ------------------------------------------------------------------------------------------- */

typedef struct keys {
    char *text, *label; /* the columns taken */
    bool text_seen, label_seen;
    json_t *first; /* the first object: its keys are what messages list */
} keys;

/* The keys of an object, all or only those whose values could be a text or a label; free(*names), which borrows from the object. */
static int list_keys(table_builder *b, json_t *object, bool only_scalars, const char ***names, size_t *n) {
    *n = 0;
    *names = malloc((json_object_size(object) + 1) * sizeof **names);
    if (!*names) return io_no_memory(b->error, b->name, json_object_size(object) * sizeof **names);
    const char *key;
    json_t *value;
    json_object_foreach(object, key, value) {
        if (!only_scalars || (!json_is_object(value) && !json_is_array(value))) (*names)[(*n)++] = key;
    }
    return IO_OK;
}

/* Chooses the columns from the keys of the first object. */
static int choose_keys(table_builder *b, json_t *object, keys *k) {
    const table_options *o = b->options;
    const char **names;
    size_t n, text, label;
    k->first = json_incref(object);
    int failed = list_keys(b, object, true, &names, &n);
    if (failed) return failed;
    failed = table_choose(b, names, n, true, &text, &label);
    if (!failed) {
        k->text = strdup(text < n ? names[text] : o->text);
        k->label = o->no_labels ? NULL : strdup(label < n ? names[label] : o->label);
        if (!k->text || (!k->label && !o->no_labels)) failed = io_no_memory(b->error, b->name, 1);
    }
    free(names);
    return failed;
}

/* The value as a string of its own: a text as it is, a number or a truth value as JSON writes it, NULL for null and for nothing. */
static int value_string(table_builder *b, const json_t *value, const char *key, int64_t line, bool any_scalar, char **out) {
    *out = NULL;
    if (!value || json_is_null(value)) return IO_OK;
    if (json_is_string(value))
        *out = strdup(json_string_value(value));
    else if (any_scalar && !json_is_array(value) && !json_is_object(value))
        *out = json_dumps(value, JSON_ENCODE_ANY | JSON_REAL_PRECISION(15));
    else
        return io_fail(b->error, IO_BAD_DATA, "%s:%lld: the value of '%s' is %s; %s is needed", b->name, (long long)line, key,
                       json_is_array(value)    ? "a list"
                       : json_is_object(value) ? "an object"
                                               : "not a string",
                       any_scalar ? "a string or a number" : "a string");
    return *out ? IO_OK : io_no_memory(b->error, b->name, 1);
}

/* Puts text and label into the line they came from, which always has room: JSON only ever writes strings longer, and its numbers
 * come with a key, a colon and braces. */
static int place(table_builder *b, char *line, size_t room, const char *text, const char *label, int64_t number) {
    size_t n = text ? strlen(text) + 1 : 0, m = label ? strlen(label) + 1 : 0;
    if (n > room || m > room - n)
        return io_fail(b->error, IO_BAD_DATA, "%s:%lld: a number too long for a label", b->name, (long long)number);
    if (text) memcpy(line, text, n);
    if (label) memcpy(line + n, label, m);
    return table_add(b, text ? line : NULL, label ? line + n : NULL, number);
}

static int add_object(table_builder *b, json_t *object, keys *k, char *line, size_t length, int64_t number) {
    if (!k->text) {
        int failed = choose_keys(b, object, k);
        if (failed) return failed;
    }
    const json_t *text_value = json_object_get(object, k->text);
    const json_t *label_value = k->label ? json_object_get(object, k->label) : NULL;
    k->text_seen |= text_value != NULL;
    k->label_seen |= label_value != NULL;

    char *text = NULL, *label = NULL;
    int failed = value_string(b, text_value, k->text, number, false, &text);
    if (!failed && k->label) failed = value_string(b, label_value, k->label, number, true, &label);
    if (!failed) failed = place(b, line, length + 1, text, label, number);
    free(text);
    free(label);
    return failed;
}

/* A column that the options name may be missing in some objects, but not in all of them. */
static int check_seen(table_builder *b, const keys *k) {
    bool text_missing = k->text && !k->text_seen, label_missing = k->label && !k->label_seen;
    if (!text_missing && !label_missing) return IO_OK;
    const char **names;
    size_t n;
    int failed = list_keys(b, k->first, false, &names, &n);
    if (failed) return failed;
    failed = table_no_column(b, text_missing ? "text" : "label", text_missing ? k->text : k->label, names, n);
    free(names);
    return failed;
}

int table_read_jsonl(table_builder *b) {
    keys k = { 0 };
    char *line;
    size_t at = 0, length;
    int failed = IO_OK;
    for (int64_t number = 1; !failed && next_line(b, &at, &line, &length); number++) {
        if (is_blank(line)) continue;
        json_t *object = io_json_parse(line, length, b->name, (size_t)number, LINE_PARTS, LINE_DEPTH, IO_BAD_DATA, b->error);
        if (!object)
            failed = b->error->code;
        else if (!json_is_object(object))
            failed =
                io_fail(b->error, IO_BAD_DATA, "%s:%lld:1: every line must be a JSON object like {\"text\": ..., \"label\": ...}",
                        b->name, (long long)number);
        else
            failed = add_object(b, object, &k, line, length, number);
        json_decref(object);
    }
    if (!failed) failed = check_seen(b, &k);
    json_decref(k.first);
    b->out->text_column = b->out->memory[3] = k.text;
    b->out->label_column = b->out->memory[4] = k.label;
    return failed;
}

/* ---- fastText ---------------------------------------------------------------------------------------- */

static bool is_space(char c) { return c == ' ' || c == '\t'; }

/* The first label of the line; *rest is the text behind all of its labels. NULL where the line does not begin with one. */
static char *split_labels(char *line, char **rest, size_t *n_labels) {
    char *first = NULL;
    *n_labels = 0;
    for (;;) {
        while (is_space(*line)) line++;
        *rest = line;
        if (strncmp(line, prefix, sizeof prefix - 1)) return first;
        char *label = line + sizeof prefix - 1;
        line = label;
        while (*line && !is_space(*line)) line++;
        if (*line) *line++ = 0;
        if ((*n_labels)++ == 0) first = label;
    }
}

int table_read_fasttext(table_builder *b) {
    char *line;
    size_t at = 0, length;
    int failed = IO_OK;
    for (int64_t number = 1; !failed && next_line(b, &at, &line, &length); number++) {
        if (is_blank(line)) continue;
        char *text;
        size_t n_labels;
        char *label = split_labels(line, &text, &n_labels);
        if (n_labels > 1) b->out->n_several_labels++;
        failed = table_add(b, text, label, number);
    }
    return failed;
}
