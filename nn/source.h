/* SPDX-License-Identifier: Apache-2.0 */
/* DATA on its way to a model: pictures or texts with their classes, read from wherever they are, brought to the form a model takes. */
#ifndef ATTN_NN_SOURCE_H
#define ATTN_NN_SOURCE_H

#include "data.h"
#include "examples.h"
#include "image_set.h"
#include "model.h"
#include "table.h"

typedef struct nn_source {
    int32_t modality; /* NN_IMAGE, NN_TEXT */
    data_source where;
    size_t n;
    int32_t *labels;    /* [n] classes; owned; NULL where only texts were wanted */
    char **label_names; /* of the data, borrowed from what was read */
    size_t n_labels;
    const char **texts; /* NN_TEXT: [n], borrowed from the table; owned list */
    size_t *lengths;
    char summary[512]; /* what was read, in one line */

    table table;
    image_set pictures;
    nn_pictures as_pictures;
    nn_texts as_texts;
} nn_source;

typedef struct nn_source_options {
    int half;                 /* DATA_TRAIN or DATA_TEST, where the data has halves */
    const char *text, *label; /* columns of tables; NULL: guessed */
    const nn_config *model;   /* the data must fit this model: its modality, picture size, classes. NULL: whatever is there */
    int32_t width, height;    /* pictures without a model: resized to this; 0: as they are */
} nn_source_options;

/* *out needs no preparation and is empty after a failure. With a model, classes are its classes, found by name (IDX: by number). */
int nn_source_read(nn_source *out, const char *path, const nn_source_options *options, io_error *error);
/* The examples as the model takes them; borrowed from the source, which borrows the model. */
int nn_source_examples(nn_source *s, const nn_model *m, const nn_examples **out, io_error *error);
void nn_source_free(nn_source *s);

/* Cuts n examples in two, class by class, by a draw that depends on the seed alone: `share` of each class (rounded, at most all but one of
 * it) goes to `second`. Both lists are ascending and owned by the caller. */
int nn_split(const int32_t *labels, size_t n, size_t n_labels, double share, uint64_t seed, uint32_t **first, size_t *n_first,
             uint32_t **second, size_t *n_second, io_error *error);

/* A subset as examples; `which` is borrowed. labels: room for n classes, filled in. */
void nn_subset_open(nn_subset *s, const nn_examples *of, const uint32_t *which, size_t n, int32_t *labels);

#endif
