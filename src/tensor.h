/* SPDX-License-Identifier: Apache-2.0 */
/* What front-ends ask of tensors: is this view sound, does it broadcast, where does row r begin. No kernel sees a tensor. */
#ifndef ATTN_TENSOR_H
#define ATTN_TENSOR_H

#include <attn/attn.h>

#include <stdbool.h>

/* Bytes of one element; 0 for a dtype that does not exist. */
size_t attn_dtype_size(int32_t dtype);
const char *attn_dtype_name(int32_t dtype);
bool attn_dtype_is_float(int32_t dtype);

/* An optional tensor that was given. A scalar (rank 0 with data) counts. */
static inline bool attn_present(const attn_tensor *t) { return t->rank != 0 || t->data != NULL; }

/* Elements of the view; the product is known not to overflow once attn_check_tensor has passed. */
int64_t attn_count(const attn_tensor *t);

/* A sound view: known dtype, rank within [min_rank, max_rank], extents >= 0, element count and byte span representable,
 * data there (unless an extent is 0) and aligned to its element. `name` opens the message. */
attn_status attn_check_tensor(const char *name, const attn_tensor *t, int32_t min_rank, int32_t max_rank);
/* The same, and writable element by element: no stride of 0 along an extent above 1. */
attn_status attn_check_output(const char *name, const attn_tensor *t, int32_t min_rank, int32_t max_rank);

bool attn_same_shape(const attn_tensor *x, const attn_tensor *y);
/* "[2, 8, 128, 64]", for messages. Returns `buffer`. */
enum { ATTN_SHAPE_TEXT = 144 };
const char *attn_shape_text(const attn_tensor *t, char buffer[ATTN_SHAPE_TEXT]);

/* `t` seen as a tensor of `rank` and `shape` by NumPy's rule: right-aligned, extents of 1 repeat (stride 0). */
attn_status attn_broadcast(const char *name, const attn_tensor *t, int32_t rank, const int64_t *shape, attn_tensor *out);

/* Rows run along the last axis: how many there are, and the element offset at which row r (row-major) begins. */
int64_t attn_row_count(const attn_tensor *t);
int64_t attn_row_offset(const attn_tensor *t, int64_t row);

/* The address of element `offset` of the view's data. */
static inline void *attn_at(const attn_tensor *t, int64_t offset) {
    return (char *)t->data + offset * (int64_t)attn_dtype_size(t->dtype);
}

/* An I32 or I64 element as int64. */
int64_t attn_int_at(const attn_tensor *t, int64_t offset);

/* All reserved words are zero: a caller built against a newer header is refused instead of misread. */
attn_status attn_check_reserved(const char *what, const uint64_t *reserved, size_t n);

#endif
