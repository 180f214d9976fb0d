/* SPDX-License-Identifier: Apache-2.0 */
/* Rows of any strides as kernels want them: dense, a piece at a time, through a buffer where they do not lie so. */
#ifndef ATTN_PIECE_H
#define ATTN_PIECE_H

#include "kernels/kernels.h"
#include "ref/element.h"
#include "rows.h"

/* Elements [j, j + n) of v as dense ones: where they lie, or copied to `buffer`. NULL where there are none. */
const void *attn_dense_piece(ref_vector v, int64_t j, int64_t n, void *buffer);
static inline void *attn_element(ref_vector v, int64_t j) {
    return (char *)v.data + j * v.stride * (int64_t)attn_dtype_size(v.dtype);
}
/* The same in the kernels' element type: where v has another, widened to `wide`. Both buffers hold n elements of 8 bytes. */
const void *attn_wide_piece(const attn_kernels *k, ref_vector v, int64_t j, int64_t n, void *buffer, void *wide);
void attn_clear_row(ref_vector v, int64_t n);

/* Row `row` of a block of tensor t; data NULL where it is absent. */
static inline ref_vector attn_rows_vector(const attn_rows *rows, const attn_rows_block *block, int32_t t, int64_t row) {
    ref_vector v = { .data = block->data[t], .stride = rows->t[t].step, .dtype = rows->t[t].dtype };
    if (v.data) v.data = block->data[t] + row * block->next[t] * (int64_t)attn_dtype_size(v.dtype);
    return v;
}

#endif
