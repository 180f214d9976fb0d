/* SPDX-License-Identifier: Apache-2.0 */
/* Strided vectors and matrices of any dtype, read and written as double. What the whole reference is written on. */
#ifndef ATTN_REF_ELEMENT_H
#define ATTN_REF_ELEMENT_H

#include <attn/attn.h>

/* n elements `stride` apart. data NULL: absent. */
typedef struct ref_vector {
    void *data;
    int64_t stride;
    int32_t dtype;
} ref_vector;

/* Rows `row` apart, columns `col` apart. data NULL: absent. */
typedef struct ref_matrix {
    void *data;
    int64_t row, col;
    int32_t dtype;
} ref_matrix;

/* Element `offset` of an array of `dtype`; booleans read as 0 or 1. */
double ref_load(const void *data, int32_t dtype, int64_t offset);
/* Rounds once, to nearest even, to the dtype. */
void ref_store(void *data, int32_t dtype, int64_t offset, double x);

static inline double ref_get(ref_vector v, int64_t i) { return ref_load(v.data, v.dtype, i * v.stride); }
static inline void ref_put(ref_vector v, int64_t i, double x) { ref_store(v.data, v.dtype, i * v.stride, x); }

static inline double ref_at(ref_matrix m, int64_t i, int64_t j) { return ref_load(m.data, m.dtype, i * m.row + j * m.col); }
static inline void ref_set(ref_matrix m, int64_t i, int64_t j, double x) { ref_store(m.data, m.dtype, i * m.row + j * m.col, x); }

#endif
