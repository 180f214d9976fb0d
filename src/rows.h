/* SPDX-License-Identifier: Apache-2.0 */
/* Rows of several tensors of one shape walked together: along the last axis of each lies a row, the other axes number the rows.
 * Axes that lie one behind the other in every tensor become one, and the axis along which neighbouring rows are closest in memory
 * becomes the inner one, so that a block of rows is a strip of memory whenever it can be. Results never depend on the order. */
#ifndef ATTN_ROWS_H
#define ATTN_ROWS_H

#include "tensor.h"

enum { ATTN_ROWS_TENSORS = 6, ATTN_ROWS_AXES = ATTN_MAX_RANK - 1 };

/* How one tensor lies. data NULL: absent. */
typedef struct attn_rows_tensor {
    char *data;
    int64_t step;                   /* elements from one element of a row to the next */
    int64_t stride[ATTN_ROWS_AXES]; /* elements, along the row axes, outer first */
    int32_t dtype;
} attn_rows_tensor;

typedef struct attn_rows {
    int64_t n;                      /* length of a row */
    int64_t extent[ATTN_ROWS_AXES]; /* of the row axes, outer first; at least one */
    int32_t axes;
    int32_t tensors;
    attn_rows_tensor t[ATTN_ROWS_TENSORS];
    bool numbered;
    int64_t number[ATTN_ROWS_AXES]; /* numbered: how far apart the row-major numbers of rows are, along the row axes */
} attn_rows;

/* The first tensor gives the shape, and decides which axis is the inner one. The others have its shape too (stride 0 where they
 * repeat), or are absent. One without the last axis is passed with an extent and a stride for it that are not used. */
void attn_rows_make(attn_rows *rows, int32_t n_tensors, const attn_tensor *const *tensors);
/* The same, and rows know their row-major number: axes become one only where it too goes on. */
void attn_rows_make_numbered(attn_rows *rows, int32_t n_tensors, const attn_tensor *const *tensors);

/* Rows [first, first + count) of the inner axis, somewhere along the outer ones. */
typedef struct attn_rows_block {
    int64_t count;
    char *data[ATTN_ROWS_TENSORS];   /* of each tensor's first row; NULL: absent */
    int64_t next[ATTN_ROWS_TENSORS]; /* elements from one row to the next */
    int64_t number, next_number;     /* of numbered rows: the first row's, and how far apart they are */
} attn_rows_block;

/* How many blocks of at most `size` rows there are, and which rows block `index` holds. */
int64_t attn_rows_blocks(const attn_rows *rows, int64_t size);
attn_rows_block attn_rows_at(const attn_rows *rows, int64_t size, int64_t index);

#endif
