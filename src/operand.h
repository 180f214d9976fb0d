/* SPDX-License-Identifier: Apache-2.0 */
/* What the front-ends of <attn/ops.h> ask of every operand, in one place: a sound view, this shape, this dtype. */
#ifndef ATTN_OPERAND_H
#define ATTN_OPERAND_H

#include "kernels/kernels.h"
#include "ref/element.h"
#include "tensor.h"

typedef enum attn_role { ATTN_INPUT, ATTN_OUTPUT } attn_role;

/* A float tensor that opens an operation: any float dtype. */
attn_status attn_check_float(const char *name, const attn_tensor *t, attn_role role, int32_t min_rank, int32_t max_rank);
/* One that follows another: exactly this shape, and `dtype` or F32. `what` says whose shape it is: "x", "[n]". */
attn_status attn_check_operand(const char *name, const attn_tensor *t, attn_role role, int32_t rank, const int64_t *shape,
                               int32_t dtype, const char *what);
/* I32 or I64 of exactly this shape, whose elements count up to `count`. */
attn_status attn_check_index(const char *name, const attn_tensor *t, attn_role role, int32_t rank, const int64_t *shape,
                             int64_t count, const char *what);
/* What there is one of for each row of x: its shape is that of x without the last axis (only rank and shape are set), [1] where
 * that is a scalar and t is not; the view has that axis, unused, as rows want it. */
attn_tensor attn_shape_of_rows(const attn_tensor *x, const attn_tensor *t);
attn_tensor attn_view_of_rows(const attn_tensor *x, const attn_tensor *t);
/* Only ATTN_ACCUMULATE is known. */
attn_status attn_check_flags(uint32_t flags);

/* The kernels for these operands: those of the first's dtype, if all that are present share it; else NULL. */
const attn_kernels *attn_operand_kernels(int32_t n, const attn_tensor *const operands[]);

/* The last axis of row 0, and a matrix, for the reference. Absent tensors give absent ones. */
static inline ref_vector attn_ref_row(const attn_tensor *t, int64_t row) {
    if (!attn_present(t)) return (ref_vector){ 0 };
    return (ref_vector){ attn_at(t, attn_row_offset(t, row)), t->rank ? t->stride[t->rank - 1] : 1, t->dtype };
}
static inline ref_matrix attn_ref_matrix(const attn_tensor *t) {
    return (ref_matrix){ t->data, t->stride[0], t->stride[1], t->dtype };
}

#endif
