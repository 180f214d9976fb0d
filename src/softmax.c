/* SPDX-License-Identifier: Apache-2.0 */
/* attn_softmax, attn_logsumexp, their gradients and tangents: everything is checked here, before anything is written. */
#include "operand.h"
#include "softmax_rows.h"
#include "status.h"

#include <math.h>

/* The options of a call, defaults filled in. */
typedef struct softmax_options {
    double scale, alpha, temperature; /* alpha: 0 of what is no entmax, 2 of sparsemax, 1.5 of entmax-1.5 */
} softmax_options;

static const char *const op_names[] = {
    "softmax", "log-softmax", "softmin", "sparsemax", "entmax-1.5", "entmax", "gumbel-softmax"
};

/* What belongs to one operation alone. */
static attn_status check_own_options(const attn_softmax_args *a, softmax_options *o) {
    static const double fixed[] = { [ATTN_SPARSEMAX] = 2, [ATTN_ENTMAX15] = 1.5, [ATTN_GUMBEL_SOFTMAX] = 0 };
    const char *op = op_names[a->op];
    if (a->op != ATTN_ENTMAX && a->alpha != 0)
        return attn_fail(ATTN_BAD_ARGUMENT, "alpha is %g: it belongs to entmax alone, not to %s", a->alpha, op);
    if (a->op != ATTN_GUMBEL_SOFTMAX && a->temperature != 0)
        return attn_fail(ATTN_BAD_ARGUMENT, "temperature is %g: it belongs to gumbel-softmax alone, not to %s", a->temperature,
                         op);
    if (a->op != ATTN_GUMBEL_SOFTMAX && a->hard)
        return attn_fail(ATTN_BAD_ARGUMENT, "hard is %d: it belongs to gumbel-softmax alone, not to %s", (int)a->hard, op);
    o->alpha = a->op == ATTN_ENTMAX ? (a->alpha != 0 ? a->alpha : 1.5) : fixed[a->op];
    if (a->op == ATTN_ENTMAX && !(o->alpha >= 1 && isfinite(o->alpha)))
        return attn_fail(ATTN_BAD_ARGUMENT, "alpha is %g; entmax takes a finite number from 1 (softmax) on", a->alpha);
    o->temperature = a->temperature != 0 ? a->temperature : 1;
    if (!(o->temperature > 0 && isfinite(o->temperature)))
        return attn_fail(ATTN_BAD_ARGUMENT, "temperature is %g; it has to be a finite number above 0", a->temperature);
    return ATTN_OK;
}

/* What all calls of the family share. */
static attn_status check_options(const attn_softmax_args *a, softmax_options *o) {
    attn_status s;
    if (!a) return attn_fail(ATTN_BAD_ARGUMENT, "softmax has no arguments");
    if ((s = attn_check_reserved("attn_softmax_args", a->reserved, sizeof a->reserved / sizeof *a->reserved)) != ATTN_OK)
        return s;
    if (a->op < ATTN_SOFTMAX || a->op > ATTN_GUMBEL_SOFTMAX)
        return attn_fail(ATTN_BAD_ARGUMENT, "op is %d, which no softmax has", (int)a->op);
    if (a->flags & ~(uint32_t)ATTN_SCALE_SET) return attn_fail(ATTN_BAD_ARGUMENT, "flags 0x%x mean nothing to softmax", a->flags);
    o->scale = a->scale != 0 || a->flags & ATTN_SCALE_SET ? a->scale : 1;
    if (!isfinite(o->scale)) return attn_fail(ATTN_BAD_ARGUMENT, "scale is %g; it has to be a finite number", o->scale);
    return check_own_options(a, o);
}

static attn_status check_logsumexp_options(const attn_softmax_args *a, softmax_options *o) {
    attn_status s = check_options(a, o);
    if (s == ATTN_OK && a->op > ATTN_SOFTMIN)
        return attn_fail(ATTN_BAD_ARGUMENT, "op is %s, which has no logsumexp; softmax and softmin have one", op_names[a->op]);
    return s;
}

/* A result or gradient beside x: the same shape, of x's dtype or f32. */
static attn_status check_beside(const char *name, const attn_tensor *t, attn_role role, const attn_tensor *x, const char *what) {
    return attn_check_operand(name, t, role, x->rank, x->shape, x->dtype, what);
}

/* One element for each row of x. */
static attn_status check_of_row(const char *name, const attn_tensor *t, attn_role role, const attn_tensor *x, attn_tensor *out) {
    attn_tensor rows = attn_shape_of_rows(x, t);
    attn_status s = rows.rank == 0 && t->rank == 0 && !t->data
                        ? attn_fail(ATTN_BAD_ARGUMENT, "%s is missing", name)
                        : attn_check_operand(name, t, role, rows.rank, rows.shape, x->dtype, "the number of rows");
    if (s == ATTN_OK) *out = attn_view_of_rows(x, t);
    return s;
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

/* Makes the rows of a call on scores and runs it, unless there is nothing to write. y, of_row and tangent may be absent. */
static attn_status run_scores(const attn_softmax_args *a, const softmax_options *o, score_result result, const attn_tensor *y,
                              const attn_tensor *of_row, const attn_tensor *tangent, const attn_exec *exec) {
    attn_tensor mask, bias;
    attn_status s = check_scores(a, &mask, &bias);
    if (s != ATTN_OK) return s;
    score_job job = { .result = result, .scale = o->scale, .negate = a->op == ATTN_SOFTMIN };
    if (attn_row_count(&a->x) == 0 || (y && a->x.shape[a->x.rank - 1] == 0)) return ATTN_OK;
    const attn_tensor *tensors[SCORES_TENSORS] = { [SCORES_X] = &a->x, [SCORES_MASK] = &mask,    [SCORES_BIAS] = &bias,
                                                   [SCORES_Y] = y,     [SCORES_OF_ROW] = of_row, [SCORES_TANGENT] = tangent };
    if (result == RESULT_ENTMAX) job.alpha = o->alpha;
    if (result == RESULT_GUMBEL) {
        job.temperature = o->temperature, job.seed = a->seed, job.hard = a->hard != 0;
        attn_rows_make_numbered(&job.rows, SCORES_TENSORS, tensors);
    } else {
        attn_rows_make(&job.rows, SCORES_TENSORS, tensors);
    }
    return attn_run_scores(&job, exec);
}

static score_result result_of(const attn_softmax_args *a, const softmax_options *o) {
    if (a->op == ATTN_LOG_SOFTMAX) return RESULT_LOG_SOFTMAX;
    if (a->op == ATTN_GUMBEL_SOFTMAX) return RESULT_GUMBEL;
    return o->alpha > 1 ? RESULT_ENTMAX : RESULT_SOFTMAX; /* entmax of alpha 1 is softmax */
}

attn_status attn_softmax(const attn_softmax_args *a, const attn_exec *exec) {
    softmax_options o;
    attn_status s = check_options(a, &o);
    if (s == ATTN_OK) s = attn_check_float("x", &a->x, ATTN_INPUT, 1, ATTN_MAX_RANK);
    if (s == ATTN_OK) s = check_beside("y", &a->y, ATTN_OUTPUT, &a->x, "x");
    return s == ATTN_OK ? run_scores(a, &o, result_of(a, &o), &a->y, NULL, NULL, exec) : s;
}

attn_status attn_logsumexp(const attn_softmax_args *a, const attn_exec *exec) {
    softmax_options o;
    attn_tensor lse;
    attn_status s = check_logsumexp_options(a, &o);
    if (s == ATTN_OK) s = attn_check_float("x", &a->x, ATTN_INPUT, 1, ATTN_MAX_RANK);
    if (s == ATTN_OK) s = check_of_row("y", &a->y, ATTN_OUTPUT, &a->x, &lse);
    return s == ATTN_OK ? run_scores(a, &o, RESULT_LSE, NULL, &lse, NULL, exec) : s;
}

static attn_status check_grads(const attn_softmax_args *a, const attn_softmax_grads *g) {
    if (!g) return attn_fail(ATTN_BAD_ARGUMENT, "softmax has no gradients to work on");
    attn_status s = attn_check_reserved("attn_softmax_grads", g->reserved, sizeof g->reserved / sizeof *g->reserved);
    if (s != ATTN_OK || !attn_present(&g->dalpha)) return s;
    if (a->op != ATTN_ENTMAX)
        return attn_fail(ATTN_BAD_ARGUMENT, "dalpha is asked for; only entmax has an alpha, not %s", op_names[a->op]);
    if ((s = attn_check_output("dalpha", &g->dalpha, 0, 1)) != ATTN_OK) return s;
    if (attn_count(&g->dalpha) != 1)
        return attn_fail(ATTN_BAD_SHAPE, "dalpha has %lld elements; it is one number", (long long)attn_count(&g->dalpha));
    if (g->dalpha.dtype != ATTN_F32 && g->dalpha.dtype != ATTN_F64)
        return attn_fail(ATTN_UNSUPPORTED, "dalpha is %s; it has to be f32 or f64", attn_dtype_name(g->dalpha.dtype));
    return ATTN_OK;
}

/* From y and what comes in, a gradient or a tangent, to what goes out. */
static attn_status run_slopes(const attn_softmax_args *a, const softmax_options *o, attn_slope log_slope, const attn_tensor *in,
                              const attn_tensor *out, const attn_exec *exec) {
    gradient_job job = { .slope = a->op == ATTN_LOG_SOFTMAX ? log_slope : ATTN_SLOPE_SOFTMAX,
                         .scale = a->op == ATTN_SOFTMIN ? -o->scale : o->scale / o->temperature,
                         .alpha = o->alpha > 1 ? o->alpha : 0 };
    const attn_tensor *tensors[GRADIENT_TENSORS] = { [GRADIENT_Y] = &a->y, [GRADIENT_DY] = in, [GRADIENT_DX] = out };
    if (attn_count(&a->y) == 0) return ATTN_OK;
    attn_rows_make(&job.rows, GRADIENT_TENSORS, tensors);
    return attn_run_gradients(&job, exec);
}

/* y, and x where it is there. */
static attn_status check_result(const attn_softmax_args *a) {
    attn_status s = attn_check_float("y", &a->y, ATTN_INPUT, 1, ATTN_MAX_RANK);
    return s == ATTN_OK && attn_present(&a->x) ? check_beside("y", &a->y, ATTN_INPUT, &a->x, "x") : s;
}

attn_status attn_softmax_backward(const attn_softmax_args *a, const attn_softmax_grads *g, const attn_exec *exec) {
    softmax_options o;
    double dalpha = 0;
    attn_status s = check_options(a, &o);
    if (s == ATTN_OK) s = check_grads(a, g);
    if (s == ATTN_OK) s = check_result(a);
    if (s == ATTN_OK) s = check_beside("dy", &g->dy, ATTN_INPUT, &a->y, "y");
    if (s == ATTN_OK) s = check_beside("dx", &g->dx, ATTN_OUTPUT, attn_present(&a->x) ? &a->x : &a->y, "y");
    if (s == ATTN_OK && attn_present(&g->dalpha)) s = attn_run_dalpha(o.alpha, &a->y, &g->dy, &dalpha, exec); /* dx may be dy */
    if (s == ATTN_OK) s = run_slopes(a, &o, ATTN_SLOPE_LOG, &g->dy, &g->dx, exec);
    if (s == ATTN_OK && attn_present(&g->dalpha)) ref_store(g->dalpha.data, g->dalpha.dtype, 0, dalpha);
    return s;
}

attn_status attn_logsumexp_backward(const attn_softmax_args *a, const attn_softmax_grads *g, const attn_exec *exec) {
    softmax_options o;
    attn_tensor dy;
    attn_status s = check_logsumexp_options(a, &o);
    if (s == ATTN_OK) s = check_grads(a, g);
    if (s == ATTN_OK) s = attn_check_float("x", &a->x, ATTN_INPUT, 1, ATTN_MAX_RANK);
    if (s == ATTN_OK) s = check_of_row("dy", &g->dy, ATTN_INPUT, &a->x, &dy);
    if (s == ATTN_OK) s = check_beside("dx", &g->dx, ATTN_OUTPUT, &a->x, "x");
    return s == ATTN_OK ? run_scores(a, &o, RESULT_LSE_GRADIENT, &g->dx, &dy, NULL, exec) : s;
}

/* ---- forward mode ------------------------------------------------------------------------------------------ */

static attn_status check_tangents(const attn_softmax_tangents *t) {
    if (!t) return attn_fail(ATTN_BAD_ARGUMENT, "softmax has no tangents to work on");
    return attn_check_reserved("attn_softmax_tangents", t->reserved, sizeof t->reserved / sizeof *t->reserved);
}

attn_status attn_softmax_jvp(const attn_softmax_args *a, const attn_softmax_tangents *t, const attn_exec *exec) {
    softmax_options o;
    attn_status s = check_options(a, &o);
    if (s == ATTN_OK) s = check_tangents(t);
    if (s == ATTN_OK) s = check_result(a);
    if (s == ATTN_OK) s = check_beside("dx", &t->dx, ATTN_INPUT, &a->y, "y");
    if (s == ATTN_OK) s = check_beside("dy", &t->dy, ATTN_OUTPUT, attn_present(&a->x) ? &a->x : &a->y, "y");
    return s == ATTN_OK ? run_slopes(a, &o, ATTN_SLOPE_LOG_TANGENT, &t->dx, &t->dy, exec) : s;
}

attn_status attn_logsumexp_jvp(const attn_softmax_args *a, const attn_softmax_tangents *t, const attn_exec *exec) {
    softmax_options o;
    attn_tensor dy;
    attn_status s = check_logsumexp_options(a, &o);
    if (s == ATTN_OK) s = check_tangents(t);
    if (s == ATTN_OK) s = attn_check_float("x", &a->x, ATTN_INPUT, 1, ATTN_MAX_RANK);
    if (s == ATTN_OK) s = check_beside("dx", &t->dx, ATTN_INPUT, &a->x, "x");
    if (s == ATTN_OK) s = check_of_row("dy", &t->dy, ATTN_OUTPUT, &a->x, &dy);
    return s == ATTN_OK ? run_scores(a, &o, RESULT_LSE_TANGENT, NULL, &dy, &t->dx, exec) : s;
}
