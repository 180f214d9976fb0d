/* SPDX-License-Identifier: Apache-2.0 */
/* The checks that the front-ends of <attn/ops.h> share. */
#include "operand.h"
#include "status.h"

#include <attn/ops.h>

attn_status attn_check_float(const char *name, const attn_tensor *t, attn_role role, int32_t min_rank, int32_t max_rank) {
    attn_status s =
        role == ATTN_OUTPUT ? attn_check_output(name, t, min_rank, max_rank) : attn_check_tensor(name, t, min_rank, max_rank);
    if (s != ATTN_OK) return s;
    if (!attn_dtype_is_float(t->dtype))
        return attn_fail(ATTN_UNSUPPORTED, "%s is %s, not a floating-point type", name, attn_dtype_name(t->dtype));
    return ATTN_OK;
}

attn_status attn_check_operand(const char *name, const attn_tensor *t, attn_role role, int32_t rank, const int64_t *shape,
                               int32_t dtype, const char *what) {
    attn_status s = attn_check_float(name, t, role, 0, ATTN_MAX_RANK);
    if (s != ATTN_OK) return s;
    char text[ATTN_SHAPE_TEXT], wanted[ATTN_SHAPE_TEXT];
    attn_tensor target = { .rank = rank };
    for (int32_t i = 0; i < rank; i++) target.shape[i] = shape[i];
    if (!attn_same_shape(t, &target))
        return attn_fail(ATTN_BAD_SHAPE, "%s has shape %s, %s asks for %s", name, attn_shape_text(t, text), what,
                         attn_shape_text(&target, wanted));
    if (t->dtype != dtype && t->dtype != ATTN_F32)
        return attn_fail(ATTN_UNSUPPORTED, "%s is %s beside %s: it may be %s or f32", name, attn_dtype_name(t->dtype),
                         attn_dtype_name(dtype), attn_dtype_name(dtype));
    return ATTN_OK;
}

attn_status attn_check_index(const char *name, const attn_tensor *t, attn_role role, int32_t rank, const int64_t *shape,
                             int64_t count, const char *what) {
    attn_status s =
        role == ATTN_OUTPUT ? attn_check_output(name, t, 0, ATTN_MAX_RANK) : attn_check_tensor(name, t, 0, ATTN_MAX_RANK);
    if (s != ATTN_OK) return s;
    char text[ATTN_SHAPE_TEXT], wanted[ATTN_SHAPE_TEXT];
    attn_tensor target = { .rank = rank };
    for (int32_t i = 0; i < rank; i++) target.shape[i] = shape[i];
    if (t->dtype != ATTN_I32 && t->dtype != ATTN_I64)
        return attn_fail(ATTN_BAD_ARGUMENT, "%s is %s: it is i32 or i64", name, attn_dtype_name(t->dtype));
    if (!attn_same_shape(t, &target))
        return attn_fail(ATTN_BAD_SHAPE, "%s has shape %s, %s asks for %s", name, attn_shape_text(t, text), what,
                         attn_shape_text(&target, wanted));
    if (t->dtype == ATTN_I32 && count - 1 > INT32_MAX)
        return attn_fail(ATTN_BAD_ARGUMENT, "%s is i32, which cannot count to %lld", name, (long long)count);
    return ATTN_OK;
}

attn_tensor attn_shape_of_rows(const attn_tensor *x, const attn_tensor *t) {
    attn_tensor rows = { .rank = x->rank - 1 };
    for (int32_t i = 0; i < rows.rank; i++) rows.shape[i] = x->shape[i];
    if (rows.rank == 0 && t->rank == 1) { /* a scalar may be [1] */
        rows.rank = 1;
        rows.shape[0] = 1;
    }
    return rows;
}

attn_tensor attn_view_of_rows(const attn_tensor *x, const attn_tensor *t) {
    attn_tensor view = *t;
    view.rank = x->rank;
    for (int32_t i = 0; i < x->rank; i++) view.shape[i] = x->shape[i];
    view.stride[x->rank - 1] = 0;
    return view;
}

attn_status attn_check_flags(uint32_t flags) {
    if (flags & ~(uint32_t)ATTN_ACCUMULATE)
        return attn_fail(ATTN_BAD_ARGUMENT, "flags is 0x%x: this operation knows ATTN_ACCUMULATE (0x%x) only", (unsigned)flags,
                         (unsigned)ATTN_ACCUMULATE);
    return ATTN_OK;
}

const attn_kernels *attn_operand_kernels(int32_t n, const attn_tensor *const operands[]) {
    for (int32_t i = 1; i < n; i++)
        if (attn_present(operands[i]) && operands[i]->dtype != operands[0]->dtype) return NULL;
    return attn_kernels_for(operands[0]->dtype);
}
