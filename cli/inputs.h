/* SPDX-License-Identifier: Apache-2.0 */
/* What a model is asked about on the command line: lines of text, a text in quotes, tables, pictures, without labels. */
#ifndef ATTN_CLI_INPUTS_H
#define ATTN_CLI_INPUTS_H

#include <stdbool.h>

#include "examples.h"
#include "file.h"
#include "image_set.h"
#include "model.h"
#include "table.h"

/* The inputs, and what to call each in the answers. */
typedef struct inputs {
    size_t n;
    char **names; /* [n], owned where own_names */
    bool own_names;
    const char **texts;
    size_t *lengths;
    io_bytes bytes;
    table table;
    image_set pictures;
    nn_texts as_texts;
    nn_pictures as_pictures;
} inputs;

/* `input` is a path, "-", NULL (stdin) or, for a text model, a text with a space in it; `column` is the texts' column of a table, or
 * NULL. *in is zeroed by the caller and freed with inputs_free, also after a failure; *out lives as long. */
int inputs_read(inputs *in, const char *input, const char *column, const nn_model *model, const nn_examples **out,
                io_error *error);
void inputs_free(inputs *in);

#endif
