/* SPDX-License-Identifier: Apache-2.0 */
/* Tables with a header line and separated fields: RFC 4180, with commas, semicolons or tabs.
 *
 * A field that begins with a double quote ends at the next quote that is not doubled, and may hold separators and line ends. In a
 * .csv anything but a separator or a line end behind that quote is an error. In a .tsv, where quotes are often plain characters, the
 * field is then taken as it stands, up to the next tab or line end. A line ends with LF or CR LF; blank lines are passed over. */
#include <stdlib.h>
#include <string.h>

#include "table_build.h"

typedef struct cursor {
    table_builder *b;
    size_t at;         /* next byte */
    int64_t line;      /* of `at`, from 1 */
    size_t line_start; /* where that line begins */
    bool row_ended;    /* the field just read was the last of its row */
} cursor;

static int fail_at(const cursor *c, int64_t line, size_t column, const char *what) {
    return io_fail(c->b->error, IO_BAD_DATA, "%s:%lld:%zu: %s", c->b->name, (long long)line, column, what);
}

static void next_line(cursor *c) {
    c->line++;
    c->line_start = c->at;
}

/* Length of the line end at `at`: 0 where there is none, 1 for LF, 2 for CR LF. */
static size_t line_end(const table_builder *b, size_t at) {
    if (at >= b->size) return 0;
    if (b->text[at] == '\n') return 1;
    return b->text[at] == '\r' && at + 1 < b->size && b->text[at + 1] == '\n' ? 2 : 0;
}

/* Steps over the separator or line end behind a field and puts a NUL at `end`, which may be where it stood. */
static void end_field(cursor *c, size_t end) {
    table_builder *b = c->b;
    size_t ends = line_end(b, c->at);
    c->row_ended = ends > 0 || c->at >= b->size;
    c->at += c->row_ended ? ends : 1;
    if (ends) next_line(c);
    b->text[end] = 0; /* text[size] exists */
}

static char *plain_field(cursor *c) {
    table_builder *b = c->b;
    size_t start = c->at;
    while (c->at < b->size && b->text[c->at] != b->out->separator && !line_end(b, c->at)) c->at++;
    end_field(c, c->at);
    return b->text + start;
}

/* The end of the quoted field that begins at `start`: the position of its closing quote, or size where there is none. */
static size_t closing_quote(const table_builder *b, size_t start) {
    for (size_t i = start + 1; i < b->size; i++) {
        if (b->text[i] != '"') continue;
        if (i + 1 >= b->size || b->text[i + 1] != '"') return i;
        i++;
    }
    return b->size;
}

/* Takes the field between quotes apart in place: two quotes become one. */
static char *quoted_field(cursor *c, size_t close) {
    table_builder *b = c->b;
    size_t start = c->at + 1, to = start;
    for (size_t i = start; i < close; i++) {
        if (b->text[i] == '"') i++;
        if (b->text[i] == '\n') {
            c->at = i + 1;
            next_line(c);
        }
        b->text[to++] = b->text[i];
    }
    c->at = close + 1;
    end_field(c, to);
    return b->text + start;
}

static int read_field(cursor *c, char **field) {
    table_builder *b = c->b;
    if (c->at >= b->size || b->text[c->at] != '"') {
        *field = plain_field(c);
        return IO_OK;
    }
    size_t start = c->at, close = closing_quote(b, start), behind = close + 1;
    bool closed = close < b->size;
    if (closed && (behind >= b->size || b->text[behind] == b->out->separator || line_end(b, behind))) {
        *field = quoted_field(c, close);
        return IO_OK;
    }
    if (b->out->separator == '\t') {
        *field = plain_field(c);
        return IO_OK;
    }
    if (!closed) return fail_at(c, c->line, start - c->line_start + 1, "the quote that opens here is never closed");
    while (c->at < close)
        if (b->text[c->at++] == '\n') next_line(c);
    return fail_at(c, c->line, behind - c->line_start + 1,
                   "a closing quote must be followed by a separator or the line's end; a quote inside a field is written twice");
}

/* Passes over blank lines; false at the end. */
static bool at_row(cursor *c) {
    size_t ends;
    while ((ends = line_end(c->b, c->at))) {
        c->at += ends;
        next_line(c);
    }
    return c->at < c->b->size;
}

/* What separates the fields of a .csv: the comma, and where the header has none, the semicolon or the tab. */
static char find_separator(const table_builder *b, size_t at) {
    bool semicolon = false, tab = false, quoted = false;
    for (; at < b->size && (quoted || !line_end(b, at)); at++) {
        char c = b->text[at];
        if (c == '"') quoted = !quoted;
        if (quoted) continue;
        if (c == ',') return ',';
        if (c == ';') semicolon = true;
        if (c == '\t') tab = true;
    }
    return semicolon ? ';' : tab ? '\t' : ',';
}

static char *trimmed(char *name) {
    while (*name == ' ') name++;
    size_t n = strlen(name);
    while (n > 0 && name[n - 1] == ' ') name[--n] = 0;
    return name;
}

/* The header's fields; free(*names). */
static int read_header(cursor *c, const char ***names, size_t *n) {
    size_t room = 0;
    *names = NULL;
    *n = 0;
    do {
        if (*n == room) {
            size_t bytes;
            room = room ? room * 2 : 16;
            const char **grown = __builtin_mul_overflow(room, sizeof **names, &bytes) ? NULL : realloc(*names, bytes);
            if (!grown) return io_no_memory(c->b->error, c->b->name, room);
            *names = grown;
        }
        char *field;
        int failed = read_field(c, &field);
        if (failed) return failed;
        (*names)[(*n)++] = trimmed(field);
    } while (!c->row_ended);
    return IO_OK;
}

/* One row: missing fields at its end are NULL, more fields than the header has are an error. */
static int read_row(cursor *c, size_t n_columns, size_t text, size_t label) {
    int64_t line = c->line;
    char *texts = NULL, *labels = NULL;
    size_t i = 0;
    do {
        if (i == n_columns) {
            return io_fail(
                c->b->error, IO_BAD_DATA,
                "%s:%lld:%zu: more fields than the header's %zu; a field that contains the separator needs double quotes",
                c->b->name, (long long)c->line, c->at - c->line_start + 1, n_columns);
        }
        char *field;
        int failed = read_field(c, &field);
        if (failed) return failed;
        if (i == text) texts = field;
        if (i == label) labels = field;
        i++;
    } while (!c->row_ended);
    return table_add(c->b, texts, labels, line);
}

int table_read_separated(table_builder *b) {
    cursor c = { .b = b, .line = 1 };
    if (!at_row(&c)) return io_fail(b->error, IO_BAD_DATA, "%s is empty; a header line with column names is needed", b->name);
    b->out->separator = b->out->format == TABLE_TSV ? '\t' : find_separator(b, c.at);

    const char **names;
    size_t n, text, label;
    int failed = read_header(&c, &names, &n);
    if (!failed) failed = table_choose(b, names, n, false, &text, &label);
    if (!failed) {
        b->out->text_column = names[text];
        b->out->label_column = label < n ? names[label] : NULL;
    }
    free(names);
    while (!failed && at_row(&c)) failed = read_row(&c, n, text, label);
    return failed;
}
