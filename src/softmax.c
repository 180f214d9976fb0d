/* SPDX-License-Identifier: Apache-2.0 */
/* attn_softmax, attn_logsumexp and their gradients: everything is checked here, before anything is written. */
#include "operand.h"
#include "softmax_rows.h"
#include "status.h"

#include <math.h>

static attn_status check_op(int32_t op) {
    static const char *const later[] = { [ATTN_SPARSEMAX] = "sparsemax",
                                         [ATTN_ENTMAX15] = "entmax-1.5",
                                         [ATTN_ENTMAX] = "entmax",
                                         [ATTN_GUMBEL_SOFTMAX] = "gumbel-softmax" };
    if (op < ATTN_SOFTMAX || op > ATTN_GUMBEL_SOFTMAX)
        return attn_fail(ATTN_BAD_ARGUMENT, "op is %d, which no softmax has", (int)op);
    if (op > ATTN_SOFTMIN) return attn_fail(ATTN_UNSUPPORTED, "%s is not built in this version", later[op]);
    return ATTN_OK;
}

/* What all calls of the family share: op, flags, scale (resolved) and reserved words. */
static attn_status check_options(const attn_softmax_args *a, double *scale) {
    attn_status s;
    if (!a) return attn_fail(ATTN_BAD_ARGUMENT, "softmax has no arguments");
    if ((s = attn_check_reserved("attn_softmax_args", a->reserved, sizeof a->reserved / sizeof *a->reserved)) != ATTN_OK)
        return s;
    if ((s = check_op(a->op)) != ATTN_OK) return s;
    if (a->flags & ~(uint32_t)ATTN_SCALE_SET) return attn_fail(ATTN_BAD_ARGUMENT, "flags 0x%x mean nothing to softmax", a->flags);
    *scale = a->scale != 0 || a->flags & ATTN_SCALE_SET ? a->scale : 1;
    return isfinite(*scale) ? ATTN_OK : attn_fail(ATTN_BAD_ARGUMENT, "scale is %g; it has to be a finite number", *scale);
}

/* A result or gradient beside x: the same shape, of x's dtype or f32. */
static attn_status check_beside(const char *name, const attn_tensor *t, attn_role role, const attn_tensor *x, const char *what) {
    return attn_check_operand(name, t, role, x->rank, x->shape, x->dtype, what);
}

/* One element for each row of x: the shape of x without its last axis. Comes back with that axis, unused, as rows want it. */
static attn_status check_of_row(const char *name, const attn_tensor *t, attn_role role, const attn_tensor *x, attn_tensor *out) {
    attn_tensor rows = *x, view = *t;
    rows.rank--;
    if (rows.rank == 0 && t->rank == 1) { /* a scalar may be [1] */
        rows.rank = 1;
        rows.shape[0] = 1;
    }
    attn_status s = rows.rank == 0 && t->rank == 0 && !t->data ? attn_fail(ATTN_BAD_ARGUMENT, "%s is missing", name)
                                                               : check_beside(name, t, role, &rows, "the number of rows");
    if (s != ATTN_OK) return s;
    view.rank = x->rank;
    for (int32_t i = 0; i < x->rank; i++) {
        view.shape[i] = x->shape[i];
        if (i == x->rank - 1) view.stride[i] = 0;
    }
    *out = view;
    return ATTN_OK;
}

/* x, and the mask and the bias broadcast to it. */
static attn_status check_scores(const attn_softmax_args *a, attn_tensor *mask, attn_tensor *bias) {
    const attn_tensor *x = &a->x;
    attn_status s = attn_check_float("x", x, ATTN_INPUT, 1, ATTN_MAX_RANK);
    *mask = *bias = (attn_tensor){ 0 };
    if (s == ATTN_OK && attn_present(&a->mask)) {
        s = attn_check_tensor("mask", &a->mask, 0, ATTN_MAX_RANK);
        if (s == ATTN_OK && a->mask.dtype != ATTN_BOOL)
            s = attn_fail(ATTN_BAD_ARGUMENT, "mask is %s; it has to be bool (a float mask is a bias)",
                          attn_dtype_name(a->mask.dtype));
        if (s == ATTN_OK) s = attn_broadcast("mask", &a->mask, x->rank, x->shape, mask);
    }
    if (s == ATTN_OK && attn_present(&a->bias)) {
        s = attn_check_tensor("bias", &a->bias, 0, ATTN_MAX_RANK);
        if (s == ATTN_OK && a->bias.dtype != x->dtype && a->bias.dtype != ATTN_F32)
            s = attn_fail(ATTN_UNSUPPORTED, "bias is %s; beside %s it has to be %s or f32", attn_dtype_name(a->bias.dtype),
                          attn_dtype_name(x->dtype), attn_dtype_name(x->dtype));
        if (s == ATTN_OK) s = attn_broadcast("bias", &a->bias, x->rank, x->shape, bias);
    }
    return s;
}

/* Makes the rows of a call on scores and runs it, unless there is nothing to write. y and of_row may be absent. */
static attn_status run_scores(const attn_softmax_args *a, double scale, score_result result, const attn_tensor *y,
                              const attn_tensor *of_row, const attn_exec *exec) {
    attn_tensor mask, bias;
    attn_status s = check_scores(a, &mask, &bias);
    if (s != ATTN_OK) return s;
    score_job job = { .result = result, .scale = scale, .negate = a->op == ATTN_SOFTMIN };
    if (attn_row_count(&a->x) == 0 || (y && a->x.shape[a->x.rank - 1] == 0)) return ATTN_OK;
    const attn_tensor *tensors[SCORES_TENSORS] = {
        [SCORES_X] = &a->x, [SCORES_MASK] = &mask, [SCORES_BIAS] = &bias, [SCORES_Y] = y, [SCORES_OF_ROW] = of_row
    };
    attn_rows_make(&job.rows, SCORES_TENSORS, tensors);
    return attn_run_scores(&job, exec);
}

attn_status attn_softmax(const attn_softmax_args *a, const attn_exec *exec) {
    double scale = 1;
    attn_status s = check_options(a, &scale);
    if (s == ATTN_OK) s = attn_check_float("x", &a->x, ATTN_INPUT, 1, ATTN_MAX_RANK);
    if (s == ATTN_OK) s = check_beside("y", &a->y, ATTN_OUTPUT, &a->x, "x");
    if (s != ATTN_OK) return s;
    return run_scores(a, scale, a->op == ATTN_LOG_SOFTMAX ? RESULT_LOG_SOFTMAX : RESULT_SOFTMAX, &a->y, NULL, exec);
}

attn_status attn_logsumexp(const attn_softmax_args *a, const attn_exec *exec) {
    double scale = 1;
    attn_tensor lse;
    attn_status s = check_options(a, &scale);
    if (s == ATTN_OK) s = attn_check_float("x", &a->x, ATTN_INPUT, 1, ATTN_MAX_RANK);
    if (s == ATTN_OK) s = check_of_row("y", &a->y, ATTN_OUTPUT, &a->x, &lse);
    return s == ATTN_OK ? run_scores(a, scale, RESULT_LSE, NULL, &lse, exec) : s;
}

static attn_status check_grads(const attn_softmax_grads *g) {
    if (!g) return attn_fail(ATTN_BAD_ARGUMENT, "softmax has no gradients to work on");
    if (attn_present(&g->dalpha)) return attn_fail(ATTN_BAD_ARGUMENT, "dalpha is asked for; only entmax has an alpha");
    return attn_check_reserved("attn_softmax_grads", g->reserved, sizeof g->reserved / sizeof *g->reserved);
}

attn_status attn_softmax_backward(const attn_softmax_args *a, const attn_softmax_grads *g, const attn_exec *exec) {
    double scale = 1;
    attn_status s = check_options(a, &scale);
    if (s == ATTN_OK) s = check_grads(g);
    if (s == ATTN_OK) s = attn_check_float("y", &a->y, ATTN_INPUT, 1, ATTN_MAX_RANK);
    if (s == ATTN_OK && attn_present(&a->x)) s = check_beside("y", &a->y, ATTN_INPUT, &a->x, "x");
    if (s == ATTN_OK) s = check_beside("dy", &g->dy, ATTN_INPUT, &a->y, "y");
    if (s == ATTN_OK) s = check_beside("dx", &g->dx, ATTN_OUTPUT, attn_present(&a->x) ? &a->x : &a->y, "y");
    if (s != ATTN_OK || attn_count(&a->y) == 0) return s;
    gradient_job job = { .logarithmic = a->op == ATTN_LOG_SOFTMAX, .scale = a->op == ATTN_SOFTMIN ? -scale : scale };
    const attn_tensor *tensors[GRADIENT_TENSORS] = { [GRADIENT_Y] = &a->y, [GRADIENT_DY] = &g->dy, [GRADIENT_DX] = &g->dx };
    attn_rows_make(&job.rows, GRADIENT_TENSORS, tensors);
    return attn_run_gradients(&job, exec);
}

attn_status attn_logsumexp_backward(const attn_softmax_args *a, const attn_softmax_grads *g, const attn_exec *exec) {
    double scale = 1;
    attn_tensor dy;
    attn_status s = check_options(a, &scale);
    if (s == ATTN_OK) s = check_grads(g);
    if (s == ATTN_OK) s = attn_check_float("x", &a->x, ATTN_INPUT, 1, ATTN_MAX_RANK);
    if (s == ATTN_OK) s = check_of_row("dy", &g->dy, ATTN_INPUT, &a->x, &dy);
    if (s == ATTN_OK) s = check_beside("dx", &g->dx, ATTN_OUTPUT, &a->x, "x");
    return s == ATTN_OK ? run_scores(a, scale, RESULT_LSE_GRADIENT, &g->dx, &dy, exec) : s;
}
