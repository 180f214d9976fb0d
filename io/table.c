/* SPDX-License-Identifier: Apache-2.0 */
/* Labelled texts from files: cleaning the bytes, telling the formats apart, collecting rows and the set of labels. The formats
 * themselves are read in table_separated.c and table_lines.c. */
#define _POSIX_C_SOURCE 200809L
#include "table.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include <utf8proc.h>

#include "file.h"
#include "table_build.h"

enum { TEXT, ROWS, LABELS }; /* places in table.memory; the last two are the column names of a .jsonl */

static const char replacement[] = "\xef\xbf\xbd"; /* U+FFFD */

/* ---- clean text -------------------------------------------------------------------------------------- */

/* Bytes of the valid UTF-8 character at s, 0 where there is none. NUL counts as none: rows are C strings. */
static size_t character(const unsigned char *s, size_t left) {
    if (*s < 0x80) return *s != 0;
    utf8proc_int32_t code;
    utf8proc_ssize_t n = utf8proc_iterate(s, left < 4 ? (utf8proc_ssize_t)left : 4, &code);
    return n > 0 ? (size_t)n : 0;
}

static size_t count_bad_bytes(const unsigned char *s, size_t size) {
    size_t bad = 0;
    for (size_t i = 0; i < size;) {
        size_t n = character(s + i, size - i);
        bad += n == 0;
        i += n ? n : 1;
    }
    return bad;
}

/* Makes the text valid UTF-8 without NUL bytes, each bad byte replaced by U+FFFD, and takes a byte order mark away. */
static int clean(io_bytes *bytes, const char *name, size_t *n_replaced, io_error *error) {
    unsigned char *s = bytes->data;
    if (bytes->size >= 2 && ((s[0] == 0xff && s[1] == 0xfe) || (s[0] == 0xfe && s[1] == 0xff)))
        return io_fail(error, IO_BAD_DATA, "%s is UTF-16; save it as UTF-8", name);
    if (bytes->size >= 3 && !memcmp(s, "\xef\xbb\xbf", 3)) {
        bytes->size -= 3;
        memmove(s, s + 3, bytes->size + 1);
    }
    size_t bad = count_bad_bytes(s, bytes->size), more, size;
    *n_replaced = bad;
    if (bad == 0) return IO_OK;
    if (bad > 16 && bad > bytes->size / 8)
        return io_fail(error, IO_BAD_DATA, "%s is not UTF-8 text: %zu of its %zu bytes are not; convert or unpack it first", name,
                       bad, bytes->size);
    if (__builtin_mul_overflow(bad, sizeof replacement - 2, &more) || __builtin_add_overflow(bytes->size, more, &size) ||
        size == SIZE_MAX)
        return io_no_memory(error, name, SIZE_MAX);
    unsigned char *cleaned = malloc(size + 1);
    if (!cleaned) return io_no_memory(error, name, size);
    unsigned char *to = cleaned;
    for (size_t i = 0; i < bytes->size;) {
        size_t n = character(s + i, bytes->size - i);
        memcpy(to, n ? (const char *)s + i : replacement, n ? n : sizeof replacement - 1);
        to += n ? n : sizeof replacement - 1;
        i += n ? n : 1;
    }
    *to = 0;
    io_bytes_free(bytes);
    *bytes = (io_bytes){ .data = cleaned, .size = size, .capacity = size };
    return IO_OK;
}

static bool is_blank_code(utf8proc_int32_t code) {
    utf8proc_category_t c = utf8proc_category(code);
    return c == UTF8PROC_CATEGORY_ZS || c == UTF8PROC_CATEGORY_ZL || c == UTF8PROC_CATEGORY_ZP || c == UTF8PROC_CATEGORY_CC;
}

/* Bytes at the start of s that are white space or control characters, in any script. */
static size_t leading_blanks(const char *s) {
    size_t at = 0;
    utf8proc_int32_t code;
    utf8proc_ssize_t n;
    while (s[at] && (n = utf8proc_iterate((const utf8proc_uint8_t *)s + at, -1, &code)) > 0 && is_blank_code(code))
        at += (size_t)n;
    return at;
}

/* The label without blanks around it; cut in place. */
static char *trim(char *label) {
    label += leading_blanks(label);
    char *end = label;
    for (char *s = label; *s;) {
        size_t blanks = leading_blanks(s);
        if (blanks == 0)
            end = ++s;
        else
            s += blanks;
    }
    *end = 0;
    return label;
}

/* ---- rows and labels ----------------------------------------------------------------------------------- */

static int grow(table_builder *b) {
    size_t room = b->room ? b->room * 2 : 256, bytes, label_bytes;
    if (__builtin_mul_overflow(room, sizeof(table_row), &bytes) || __builtin_mul_overflow(room, sizeof(char *), &label_bytes))
        return io_no_memory(b->error, b->name, SIZE_MAX);
    table_row *rows = realloc(b->out->rows, bytes);
    if (!rows) return io_no_memory(b->error, b->name, bytes);
    b->out->rows = b->out->memory[ROWS] = rows;
    const char **labels = realloc(b->row_labels, label_bytes);
    if (!labels) return io_no_memory(b->error, b->name, label_bytes);
    b->row_labels = labels;
    b->room = room;
    return IO_OK;
}

int table_add(table_builder *b, char *text, char *label, int64_t line) {
    table *t = b->out;
    if (!text || text[leading_blanks(text)] == 0) {
        t->n_empty_text++;
        return IO_OK;
    }
    if (label) label = trim(label);
    if (!b->options->no_labels && (!label || !*label)) {
        t->n_empty_label++;
        return IO_OK;
    }
    if (t->n_rows == b->room) {
        int failed = grow(b);
        if (failed) return failed;
    }
    b->row_labels[t->n_rows] = label;
    t->rows[t->n_rows++] = (table_row){ .text = text, .length = strlen(text), .label = -1, .line = line };
    return IO_OK;
}

static int by_bytes(const void *a, const void *b) { return strcmp(*(const char *const *)a, *(const char *const *)b); }

static bool is_integer(const char *s) {
    s += *s == '-';
    size_t n = strspn(s, "0123456789");
    return n > 0 && n <= 18 && s[n] == 0;
}

static int by_number(const void *a, const void *b) {
    long long x = strtoll(*(const char *const *)a, NULL, 10), y = strtoll(*(const char *const *)b, NULL, 10);
    return x != y ? (x > y) - (x < y) : by_bytes(a, b);
}

/* The set of labels in its order, and each row's place in it. */
static int number_labels(table_builder *b) {
    table *t = b->out;
    if (b->options->no_labels) return IO_OK;
    const char **all = malloc(t->n_rows * sizeof *all);
    if (!all) return io_no_memory(b->error, b->name, t->n_rows * sizeof *all);
    t->memory[LABELS] = all;
    t->labels = all;
    memcpy(all, b->row_labels, t->n_rows * sizeof *all);
    qsort(all, t->n_rows, sizeof *all, by_bytes);
    bool integers = true;
    for (size_t i = 0; i < t->n_rows; i++) {
        if (t->n_labels > 0 && !strcmp(all[t->n_labels - 1], all[i])) continue;
        all[t->n_labels++] = all[i];
        integers &= is_integer(all[i]);
    }
    if (t->n_labels > INT32_MAX) return io_fail(b->error, IO_BAD_DATA, "%s has more than 2^31 labels", b->name);
    int (*order)(const void *, const void *) = integers ? by_number : by_bytes;
    if (integers) qsort(all, t->n_labels, sizeof *all, order);
    for (size_t i = 0; i < t->n_rows; i++) {
        const char **at = bsearch(&b->row_labels[i], all, t->n_labels, sizeof *all, order);
        t->rows[i].label = (int32_t)(at - all);
    }
    return IO_OK;
}

/* ---- reading --------------------------------------------------------------------------------------------- */

static bool ends_with(const char *name, const char *end) {
    size_t n = strlen(name), m = strlen(end);
    return n >= m && !strcasecmp(name + n - m, end);
}

/* The format by the file's name, else by its first line that is not blank: a label, an object, tabs, or a .csv. */
static int guess_format(const char *name, const char *text) {
    if (ends_with(name, ".csv")) return TABLE_CSV;
    if (ends_with(name, ".tsv")) return TABLE_TSV;
    if (ends_with(name, ".jsonl") || ends_with(name, ".ndjson")) return TABLE_JSONL;
    text += strspn(text, " \t\r\n");
    if (!strncmp(text, "__label__", 9)) return TABLE_FASTTEXT;
    if (*text == '{') return TABLE_JSONL;
    const char *tab = memchr(text, '\t', strcspn(text, "\n"));
    return tab ? TABLE_TSV : TABLE_CSV;
}

static int build(table_builder *b) {
    table *t = b->out;
    t->format = b->options->format ? b->options->format : guess_format(b->name, b->text);
    if (b->text[strspn(b->text, " \t\r\n")] == 0) return io_fail(b->error, IO_BAD_DATA, "%s is empty", b->name);
    if (t->format == TABLE_FASTTEXT && (b->options->text || b->options->label))
        return io_fail(b->error, IO_BAD_USAGE, "%s is a fastText file, which has no columns: leave --text and --label away",
                       b->name);
    int failed = t->format == TABLE_FASTTEXT ? table_read_fasttext(b)
                 : t->format == TABLE_JSONL  ? table_read_jsonl(b)
                                             : table_read_separated(b);
    if (failed) return failed;
    if (t->n_rows == 0)
        return io_fail(b->error, IO_BAD_DATA, "%s holds no row with a text%s (%zu without text, %zu without label)", b->name,
                       b->options->no_labels ? "" : " and a label", t->n_empty_text, t->n_empty_label);
    return number_labels(b);
}

/* Takes the bytes over. */
static int parse_owned(io_bytes *bytes, const char *name, const table_options *options, table *out, io_error *error) {
    const table_options guess = { 0 };
    io_error unheard;
    if (!error) error = &unheard;
    *out = (table){ 0 };
    int failed = clean(bytes, name, &out->n_replaced, error);
    out->memory[TEXT] = bytes->data;
    if (!failed) {
        table_builder b = { .out = out,
                            .options = options ? options : &guess,
                            .name = name,
                            .error = error,
                            .text = (char *)bytes->data,
                            .size = bytes->size };
        failed = build(&b);
        free(b.row_labels);
    }
    *bytes = (io_bytes){ 0 };
    if (failed) table_free(out);
    return failed;
}

int table_read(const char *path, const table_options *options, table *out, io_error *error) {
    io_bytes bytes = { 0 };
    *out = (table){ 0 };
    int failed = io_read(path, TABLE_MAX_SIZE, &bytes, error);
    return failed ? failed : parse_owned(&bytes, strcmp(path, "-") ? path : "stdin", options, out, error);
}

int table_parse(const void *bytes, size_t size, const char *name, const table_options *options, table *out, io_error *error) {
    *out = (table){ 0 };
    io_bytes copy = { .data = size < SIZE_MAX ? malloc(size + 1) : NULL, .size = size, .capacity = size };
    if (!copy.data) return io_no_memory(error, name, size);
    if (size > 0) memcpy(copy.data, bytes, size);
    copy.data[size] = 0;
    return parse_owned(&copy, name, options, out, error);
}

void table_free(table *t) {
    for (size_t i = 0; i < sizeof t->memory / sizeof *t->memory; i++) free(t->memory[i]);
    *t = (table){ 0 };
}

/* ---- what to tell the user --------------------------------------------------------------------------------- */

static void append(char *out, size_t size, const char *format, ...) IO_PRINTF(3, 4);

static void append(char *out, size_t size, const char *format, ...) {
    size_t used = strlen(out);
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(out + used, size - used, format, arguments);
    va_end(arguments);
}

void table_summary(const table *t, char *out, size_t size) {
    if (size == 0) return;
    out[0] = 0;
    append(out, size, "%zu row%s", t->n_rows, t->n_rows == 1 ? "" : "s");
    if (t->labels) append(out, size, ", %zu label%s", t->n_labels, t->n_labels == 1 ? "" : "s");
    if (t->text_column) append(out, size, "; text column '%s'%s", t->text_column, t->text_guessed ? " (guessed)" : "");
    if (t->label_column) append(out, size, ", label column '%s'%s", t->label_column, t->label_guessed ? " (guessed)" : "");
    if (t->n_empty_text) append(out, size, "; %zu without text dropped", t->n_empty_text);
    if (t->n_empty_label) append(out, size, "; %zu without label dropped", t->n_empty_label);
    if (t->n_several_labels) append(out, size, "; %zu with several labels: the first was taken", t->n_several_labels);
    if (t->n_replaced) append(out, size, "; %zu bytes that are not UTF-8 replaced by U+FFFD", t->n_replaced);
}
