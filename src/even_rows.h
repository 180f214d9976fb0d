/* SPDX-License-Identifier: Apache-2.0 */
/* A tensor's rows as kernels want them: dense along the last axis and evenly spaced. A view that is not so passes through a buffer,
 * a few rows at a time, so that strides change no bit of a result. */
#ifndef ATTN_EVEN_ROWS_H
#define ATTN_EVEN_ROWS_H

#include <attn/attn.h>

#include <stdbool.h>

/* Rows of one piece, and columns of one sum over rows. Partial sums over so many rows, added in order, keep the error of a float32
 * sum far below that of one long chain. */
enum { ATTN_PIECE_ROWS = 32, ATTN_PIECE_COLUMNS = 64 };

typedef struct attn_even_rows {
    const attn_tensor *tensor;
    bool even;   /* stands as a kernel wants it */
    int64_t row; /* then: elements from one row to the next */
    size_t size; /* bytes of an element */
} attn_even_rows;

attn_even_rows attn_even_rows_of(const attn_tensor *t);
/* Columns [first, first + n) of rows [begin, begin + m): in place, or in `buffer` (m n elements), filled when `read`. */
void *attn_even_rows_borrow(const attn_even_rows *r, int64_t begin, int64_t m, int64_t first, int64_t n, bool read, void *buffer,
                            int64_t *row);
/* Writes what was borrowed back from the buffer, if it went through one. */
void attn_even_rows_return(const attn_even_rows *r, int64_t begin, int64_t m, int64_t first, int64_t n, const void *buffer);

#endif
