/* SPDX-License-Identifier: Apache-2.0 */
/* What the parts of the plan ask of tensors beside q, k and v. */
#ifndef ATTN_ATTENTION_CHECK_H
#define ATTN_ATTENTION_CHECK_H

#include "attention_plan.h"
#include "status.h"

/* `t` has dtype `own`, or f32, which everything may be kept in. */
static inline attn_status check_dtype_or_f32(const char *name, const attn_tensor *t, int32_t own) {
    if (t->dtype == own || t->dtype == ATTN_F32) return ATTN_OK;
    if (own == ATTN_F32) return attn_fail(ATTN_BAD_ARGUMENT, "%s is %s: here it is f32", name, attn_dtype_name(t->dtype));
    return attn_fail(ATTN_BAD_ARGUMENT, "%s is %s: here it is %s or f32", name, attn_dtype_name(t->dtype), attn_dtype_name(own));
}

/* What is seen has the accumulator's dtype: f64 for f64 input, else f32. */
static inline attn_status check_seen_dtype(const char *name, const attn_tensor *t, int32_t input) {
    int32_t wanted = input == ATTN_F64 ? ATTN_F64 : ATTN_F32;
    if (t->dtype == wanted) return ATTN_OK;
    return attn_fail(ATTN_BAD_ARGUMENT, "%s is %s: with q of %s it is %s", name, attn_dtype_name(t->dtype),
                     attn_dtype_name(input), attn_dtype_name(wanted));
}

static inline attn_status check_integer(const char *name, const attn_tensor *t) {
    if (t->dtype == ATTN_I32 || t->dtype == ATTN_I64) return ATTN_OK;
    return attn_fail(ATTN_BAD_ARGUMENT, "%s is %s: it is i32 or i64", name, attn_dtype_name(t->dtype));
}

static inline attn_status check_shape(const char *name, const attn_tensor *t, int32_t rank, const int64_t *shape) {
    char text[ATTN_SHAPE_TEXT], wanted[ATTN_SHAPE_TEXT];
    attn_tensor target = { .rank = rank };
    for (int32_t i = 0; i < rank; i++) target.shape[i] = shape[i];
    if (attn_same_shape(t, &target)) return ATTN_OK;
    return attn_fail(ATTN_BAD_SHAPE, "%s has shape %s, here it is %s", name, attn_shape_text(t, text),
                     attn_shape_text(&target, wanted));
}

/* An optional output of the accumulator's dtype and of a fixed shape. */
static inline attn_status plan_seen(const char *name, const attn_tensor *t, int32_t input_dtype, int32_t rank,
                                    const int64_t *shape, attn_tensor *view) {
    attn_status s;
    if (!attn_present(t)) return ATTN_OK;
    if ((s = attn_check_output(name, t, rank, rank)) || (s = check_seen_dtype(name, t, input_dtype)) ||
        (s = check_shape(name, t, rank, shape)))
        return s;
    *view = *t;
    return ATTN_OK;
}

/* In a question, data that is not there yet is stood in for by an address that passes the checks and is never read. */
void attn_plan_stand_in(attn_tensor *t);
attn_attention_args attn_plan_stood_in(const attn_attention_args *a);
/* Validates the call itself, its out too where that is needed, and fills in the plan. */
attn_status attn_plan_call(attn_attention_plan *p, const attn_attention_args *a, bool needs_out, attn_plan_purpose purpose);
/* Validates what is to be seen; the rest of the plan is there. */
attn_status attn_plan_see(attn_attention_plan *p, const attn_see *see, attn_plan_purpose purpose);

#endif
