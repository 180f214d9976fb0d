/* SPDX-License-Identifier: Apache-2.0 */
/* Strips: a few rows at a time brought into dense memory and back, whatever their strides. Rows that lie side by side (softmax
 * along another axis than the last) are transposed block by block, so that memory is read and written in whole lines. */
#ifndef ATTN_STRIP_H
#define ATTN_STRIP_H

#include "rows.h"

#include "kernels/kernels.h"

/* How many rows make a strip at most, and how much of the worker's memory one may take: long rows come in strips of fewer, down to
 * STRIP_FEWEST, and beyond that in pieces. The more rows, the more bytes lie side by side where rows do. Rows that are dense, of another
 * type, gain nothing by that: theirs stay near. Without own or lent memory a strip of pieces stands on the stack. */
enum { STRIP_ROWS = 128, STRIP_FEWEST = 16, STRIP_STACK_ROWS = 8, STRIP_LIMIT = 4 << 20, STRIP_NEAR = 256 << 10 };

/* Rows `row` elements apart, whose elements are `step` apart. */
typedef struct attn_strip {
    char *data;
    int64_t row, step;
    int32_t dtype;
    size_t size; /* of an element */
} attn_strip;

static inline char *attn_strip_at(attn_strip s, int64_t row, int64_t j) {
    return s.data + (row * s.row + j * s.step) * (int64_t)s.size;
}

/* Tensor `t` of a block, from row `row` on. */
attn_strip attn_strip_of(const attn_rows *rows, const attn_rows_block *block, int32_t t, int64_t row);

/* to[r, j] = from[r, j] for r < rows, j < n; one of them is dense along its rows. Both are of the kernels' element type, or one has 16
 * bits: it is widened, or rounded once. */
void attn_strip_copy(const attn_kernels *k, int64_t rows, int64_t n, attn_strip from, attn_strip to);

/* The memory that strips work in: `capacity` elements of each of `rows` rows, `row` apart, in each of `buffers` buffers. */
typedef struct attn_strip_plan {
    int64_t rows, capacity, row;
    size_t bytes; /* of each worker's scratch; 0: the stack's buffer is enough */
} attn_strip_plan;

/* The stack's buffer for `buffers` buffers of elements of up to 8 bytes. */
#define STRIP_STACK_BYTES(buffers) ((size_t)(buffers)*STRIP_STACK_ROWS * ATTN_ROW_PIECE * 8)

/* A lent workspace that is too small is left alone: the plan then has no bytes. */
attn_strip_plan attn_strip_plan_for(int64_t n, size_t size, int32_t buffers, bool dense, const attn_exec *exec);

#endif
