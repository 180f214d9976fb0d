/* SPDX-License-Identifier: Apache-2.0 */
/* What the readers of the table formats share: the cleaned text that rows point into, the choice of columns, adding a row. Inner to
 * table*.c. */
#ifndef ATTN_IO_TABLE_BUILD_H
#define ATTN_IO_TABLE_BUILD_H

#include "table.h"

/* A table on its way. The readers cut `text` into strings in place: unquoting and unescaping only ever shrink it. */
typedef struct table_builder {
    table *out;
    const table_options *options;
    const char *name; /* of the file, for messages */
    io_error *error;  /* never NULL here */

    char *text; /* valid UTF-8 without NUL bytes; text[size] is 0 */
    size_t size;

    const char **row_labels; /* one for each row of out, NULL with no_labels */
    size_t room;             /* rows that out->rows and row_labels have room for */
} table_builder;

/* Which of the columns hold the texts and the labels: what the options name, else a guess where one choice is plausible. *label is
 * SIZE_MAX with no_labels. `lenient`: a named column that is not among `names` gives SIZE_MAX instead of an error, because later
 * rows may have it. Names are copied where they are kept. */
int table_choose(table_builder *b, const char **names, size_t n, bool lenient, size_t *text, size_t *label);

/* "no column 'reviw' (columns: id, review, stars); did you mean --text=review?" */
int table_no_column(table_builder *b, const char *option, const char *wanted, const char **names, size_t n);

/* Adds a row, or counts it as dropped. Text and label are NUL-terminated, NULL where missing, and stay where they are; blanks around
 * the label are cut off in place. */
int table_add(table_builder *b, char *text, char *label, int64_t line);

/* The readers, one for each format. `b->out->format` and, for csv and tsv, `separator` are set. */
int table_read_separated(table_builder *b);
int table_read_jsonl(table_builder *b);
int table_read_fasttext(table_builder *b);

#endif
