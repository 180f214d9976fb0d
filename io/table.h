/* SPDX-License-Identifier: Apache-2.0 */
/* Labelled texts from the files people have: .csv and .tsv with a header, .jsonl with keys, fastText's `__label__x text`.
 *
 *     table t;
 *     io_error error;
 *     if (table_read("reviews.csv", &(table_options){ .text = "review" }, &t, &error)) return report(&error);
 *     for (size_t i = 0; i < t.n_rows; i++) use(t.rows[i].text, t.labels[t.rows[i].label]);
 *     table_free(&t);
 *
 * All text is valid UTF-8 without NUL bytes when it leaves here: what was not is replaced by U+FFFD and counted (a file that is full of that is refused). A row without text
 * or without label is dropped and counted. */
#ifndef ATTN_IO_TABLE_H
#define ATTN_IO_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "error.h"

/* Files of more bytes are refused: an endless pipe must not fill the memory. */
#define TABLE_MAX_SIZE ((size_t)4 << 30)

/* TABLE_GUESS looks at the name (.csv, .tsv, .jsonl, .ndjson), then at the first line. */
enum { TABLE_GUESS = 0, TABLE_CSV, TABLE_TSV, TABLE_JSONL, TABLE_FASTTEXT };

typedef struct table_options {
    int format;        /* TABLE_GUESS, ... */
    const char *text;  /* the column with the texts; NULL: guessed where there is one plausible choice */
    const char *label; /* the column with the labels; the same */
    bool no_labels;    /* only texts are wanted: no label column is looked for, every row's label is -1 */
} table_options;

typedef struct table_row {
    const char *text; /* ends with NUL, never blank */
    size_t length;    /* bytes of text */
    int32_t label;    /* index into labels */
    int64_t line;     /* of the file, from 1: where the row begins */
} table_row;

typedef struct table {
    table_row *rows; /* in the order of the file */
    size_t n_rows;
    const char **labels; /* distinct: by number when all are integers, else by bytes */
    size_t n_labels;

    int format;              /* what the file was read as */
    char separator;          /* TABLE_CSV, TABLE_TSV: ',' ';' or tab */
    const char *text_column; /* the columns taken; NULL for fastText files, and label_column with no_labels */
    const char *label_column;
    bool text_guessed, label_guessed;

    size_t n_empty_text;     /* rows dropped: the text was missing or blank */
    size_t n_empty_label;    /* rows dropped: the label was missing or blank (and the text was not) */
    size_t n_several_labels; /* fastText lines with more than one label: the first one counts */
    size_t n_replaced;       /* U+FFFD put in place of bytes that are not UTF-8, and of NUL bytes */

    void *memory[5]; /* what table_free frees */
} table;

/* Reads the file (`-`: standard input). *out needs no preparation and is empty after a failure. options may be NULL. */
int table_read(const char *path, const table_options *options, table *out, io_error *error);

/* The same from memory, which is copied; `name` is what messages call it. */
int table_parse(const void *bytes, size_t size, const char *name, const table_options *options, table *out, io_error *error);

void table_free(table *t);

/* What a user should be told about the reading, in one line without a newline, at most `size` bytes with the NUL:
 * "12404 rows, 5 labels; text column 'review', label column 'stars' (guessed); 76 rows without text dropped". */
void table_summary(const table *t, char *out, size_t size);

#endif
