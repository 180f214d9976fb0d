/* SPDX-License-Identifier: Apache-2.0 */
/* The learned tensors of a model, by name. All lie in one buffer; gradients, moments and snapshots are buffers of the same layout, so
 * that whatever treats all parameters alike (adding up gradients, optimisers, checkpoints) is a loop over one array. */
#ifndef ATTN_NN_PARAMETERS_H
#define ATTN_NN_PARAMETERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <attn/attn.h>

enum { NN_ZEROS = 0, NN_ONES, NN_UNIFORM, NN_NORMAL };

typedef struct nn_parameter {
    char name[80];
    int32_t rank;
    int64_t shape[2];
    int32_t start; /* NN_ZEROS, ...: what training starts from */
    double spread; /* NN_UNIFORM: -spread .. spread; NN_NORMAL: the deviation */
    bool decays;   /* takes part in weight decay: matrices do, biases, norms and embeddings of positions do not */
    int64_t inner; /* between hidden layers: how many rows make up a matrix that Muon moves; 0: AdamW moves it */
    bool frozen;   /* not trained */
    bool by_rows;  /* an embedding table: its gradient comes as rows (nn_row_gradients), not in the buffer */
    size_t offset; /* in elements, in every buffer of this layout */
    size_t count;  /* elements */
} nn_parameter;

typedef struct nn_parameters {
    int32_t dtype; /* ATTN_F32, or ATTN_F64 for tests of gradients */
    nn_parameter *all;
    size_t n, capacity;
    size_t dense; /* elements of a buffer without the tables (by_rows), which come last; gaps between parameters included */
    size_t size;  /* elements of a whole buffer */
    void *values; /* owned */
} nn_parameters;

/* The index of the new parameter (offset and count are filled in), or -1 without memory or with a shape that no memory holds. */
int32_t nn_parameters_add(nn_parameters *all, const nn_parameter *p);
/* Settles where each parameter lies and takes memory for the values, all zero: false without. */
bool nn_parameters_allocate(nn_parameters *all);
void nn_parameters_start(nn_parameters *all, uint64_t seed);
void nn_parameters_free(nn_parameters *all);
/* How many numbers are learned. */
size_t nn_parameters_count(const nn_parameters *all);

/* Parameter `index` within `buffer` (values, a gradient, ...). */
attn_tensor nn_parameters_view(const nn_parameters *all, const void *buffer, int32_t index);
/* Its rows [first, first + n), or elements of a vector. */
attn_tensor nn_parameters_rows(const nn_parameters *all, const void *buffer, int32_t index, int64_t first, int64_t n);

static inline size_t nn_element(int32_t dtype) { return dtype == ATTN_F64 ? 8 : 4; }

#endif
