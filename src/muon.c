/* SPDX-License-Identifier: Apache-2.0 */
/* Front-end of Muon: momentum, then five Newton-Schulz steps made of the library's own products, in the type of the parameter. */
#include "exec.h"
#include "operand.h"
#include "ref/muon.h"
#include "status.h"

#include <attn/ops.h>
#include <math.h>

/* The memory of a call, in its session's shared part. x has the shorter side first. */
typedef struct muon_memory {
    int64_t rows, cols;
    attn_tensor x, next;        /* [rows, cols] */
    attn_tensor square, series; /* [rows, rows]: x x^T, and a I + b (x x^T) + c (x x^T)^2 */
    attn_exec exec;             /* the caller's threads, with what the products need */
} muon_memory;

static size_t product_workspace(const muon_memory *w, int32_t n_threads) {
    attn_matmul_args products[] = { { .a = w->x, .b = attn_transposed(w->x), .c = w->square },
                                    { .a = w->square, .b = w->square, .c = w->series },
                                    { .a = w->series, .b = w->x, .c = w->next } };
    size_t most = 0;
    for (int i = 0; i < 3; i++) {
        size_t bytes = attn_matmul_workspace(&products[i], n_threads);
        if (bytes > most) most = bytes;
    }
    return most;
}

/* Lays the memory out from `base` on, which is NULL where bytes are only counted. */
static size_t lay_out(const attn_muon_args *a, const attn_exec *exec, int32_t n_threads, char *base, muon_memory *w) {
    const int64_t *shape = a->param.shape;
    bool wide = shape[0] <= shape[1];
    w->rows = wide ? shape[0] : shape[1];
    w->cols = wide ? shape[1] : shape[0];
    const int64_t whole[] = { w->rows, w->cols }, small[] = { w->rows, w->rows };
    size_t size = attn_dtype_size(a->param.dtype), bytes = attn_round64((size_t)(w->rows * w->cols) * size),
           of_square = attn_round64((size_t)(w->rows * w->rows) * size); /* at most `bytes` */
    if (bytes > SIZE_MAX / 8) return SIZE_MAX;
    char *at = base;
    w->x = attn_dense(a->param.dtype, at, 2, whole);
    w->next = attn_dense(a->param.dtype, base ? at += bytes : NULL, 2, whole);
    w->square = attn_dense(a->param.dtype, base ? at += bytes : NULL, 2, small);
    w->series = attn_dense(a->param.dtype, base ? at += of_square : NULL, 2, small);
    size_t products = product_workspace(w, n_threads), own = 2 * bytes + 2 * of_square;
    if (base) {
        w->exec = exec ? *exec : (attn_exec){ 0 };
        w->exec.workspace = at + of_square;
        w->exec.workspace_size = products;
    }
    return products == SIZE_MAX || products > SIZE_MAX - own ? SIZE_MAX : own + products;
}

/* ---- checks ------------------------------------------------------------------------------------------------ */

static attn_status check_args(const attn_muon_args *a) {
    attn_status s = attn_check_reserved("attn_muon_args", a->reserved, 16);
    if (s != ATTN_OK) return s;
    if (!isfinite(a->lr) || a->lr < 0) return attn_fail(ATTN_BAD_ARGUMENT, "lr is %g", a->lr);
    if (!(a->momentum >= 0 && a->momentum < 1)) return attn_fail(ATTN_BAD_ARGUMENT, "momentum is %g, not in [0, 1)", a->momentum);
    if (!isfinite(a->weight_decay) || a->weight_decay < 0)
        return attn_fail(ATTN_BAD_ARGUMENT, "weight_decay is %g", a->weight_decay);
    if (isnan(a->grad_scale)) return attn_fail(ATTN_BAD_ARGUMENT, "grad_scale is NaN");
    s = attn_check_float("param", &a->param, ATTN_OUTPUT, 2, 2);
    if (s != ATTN_OK) return s;
    int32_t dtype = a->param.dtype;
    if (dtype != ATTN_F32 && dtype != ATTN_F64)
        return attn_fail(ATTN_UNSUPPORTED, "param is %s: an optimiser works on f32 or f64", attn_dtype_name(dtype));
    const attn_tensor *const others[] = { &a->m, &a->gradient };
    const char *const names[] = { "m", "gradient" };
    for (int i = 0; i < 2; i++) {
        s = attn_check_operand(names[i], others[i], i == 0 ? ATTN_OUTPUT : ATTN_INPUT, 2, a->param.shape, dtype, "param");
        if (s != ATTN_OK) return s;
        if (others[i]->dtype != dtype)
            return attn_fail(ATTN_UNSUPPORTED, "%s is %s, param is %s", names[i], attn_dtype_name(others[i]->dtype),
                             attn_dtype_name(dtype));
    }
    return ATTN_OK;
}

/* ---- the step ------------------------------------------------------------------------------------------------- */

static inline double load(const attn_tensor *t, int64_t i, int64_t j) {
    int64_t at = i * t->stride[0] + j * t->stride[1];
    return t->dtype == ATTN_F32 ? (double)((const float *)t->data)[at] : ((const double *)t->data)[at];
}

static inline void store(const attn_tensor *t, int64_t i, int64_t j, double x) {
    int64_t at = i * t->stride[0] + j * t->stride[1];
    if (t->dtype == ATTN_F32)
        ((float *)t->data)[at] = (float)x;
    else
        ((double *)t->data)[at] = x;
}

/* The momentum moves on; x is the gradient with momentum (Nesterov), its norm 1. */
static void start(const attn_muon_args *a, const attn_tensor *m, const attn_tensor *gradient, const muon_memory *w) {
    double keep = a->momentum, squares = 0;
    for (int64_t i = 0; i < w->rows; i++)
        for (int64_t j = 0; j < w->cols; j++) {
            double g = a->grad_scale * load(gradient, i, j), now = keep * load(m, i, j) + (1 - keep) * g;
            double u = keep * now + (1 - keep) * g;
            store(m, i, j, now);
            store(&w->x, i, j, u);
            squares += u * u;
        }
    double scale = 1 / fmax(sqrt(squares), REF_MUON_EPSILON);
    for (int64_t i = 0; i < w->rows; i++)
        for (int64_t j = 0; j < w->cols; j++) store(&w->x, i, j, scale * load(&w->x, i, j));
}

/* x = (a I + b (x x^T) + c (x x^T)^2) x */
static attn_status newton_schulz(muon_memory *w) {
    attn_status s = attn_matmul(&(attn_matmul_args){ .a = w->x, .b = attn_transposed(w->x), .c = w->square }, &w->exec);
    if (s == ATTN_OK) s = attn_matmul(&(attn_matmul_args){ .a = w->square, .b = w->square, .c = w->series }, &w->exec);
    if (s != ATTN_OK) return s;
    for (int64_t i = 0; i < w->rows; i++)
        for (int64_t j = 0; j < w->rows; j++)
            store(&w->series, i, j,
                  (i == j ? REF_MUON_A : 0) + REF_MUON_B * load(&w->square, i, j) + REF_MUON_C * load(&w->series, i, j));
    s = attn_matmul(&(attn_matmul_args){ .a = w->series, .b = w->x, .c = w->next }, &w->exec);
    attn_tensor before = w->x;
    w->x = w->next;
    w->next = before;
    return s;
}

static void move(const attn_muon_args *a, const attn_tensor *param, const muon_memory *w) {
    double keep = 1 - a->lr * a->weight_decay, step = a->lr * REF_MUON_RMS * sqrt((double)w->cols);
    for (int64_t i = 0; i < w->rows; i++)
        for (int64_t j = 0; j < w->cols; j++) store(param, i, j, keep * load(param, i, j) - step * load(&w->x, i, j));
}

size_t attn_muon_workspace(const attn_muon_args *a, int32_t n_threads) {
    muon_memory w;
    if (check_args(a) != ATTN_OK) return 0; /* the call itself says what is wrong */
    size_t bytes = lay_out(a, NULL, n_threads, NULL, &w);
    return bytes == SIZE_MAX ? SIZE_MAX : attn_need_bytes((attn_need){ .shared = bytes }, n_threads);
}

attn_status attn_muon(const attn_muon_args *given, const attn_exec *exec) {
    if (!given) return attn_fail(ATTN_BAD_ARGUMENT, "Muon has no arguments");
    attn_muon_args a = *given;
    if (a.momentum == 0) a.momentum = 0.95;
    if (a.grad_scale == 0) a.grad_scale = 1;
    attn_status s = check_args(&a);
    if (s != ATTN_OK || attn_count(&a.param) == 0) return s;
    muon_memory w;
    int32_t n_threads = exec && exec->n_threads > 1 ? exec->n_threads : 1;
    attn_session session;
    s = attn_session_open(&session, exec, (attn_need){ .shared = lay_out(&a, exec, n_threads, NULL, &w) });
    if (s != ATTN_OK) return s;
    lay_out(&a, exec, n_threads, session.shared, &w);
    bool wide = a.param.shape[0] <= a.param.shape[1];
    attn_tensor param = wide ? a.param : attn_transposed(a.param), m = wide ? a.m : attn_transposed(a.m),
                gradient = wide ? a.gradient : attn_transposed(a.gradient);
    start(&a, &m, &gradient, &w);
    for (int i = 0; i < REF_MUON_STEPS && s == ATTN_OK; i++) s = newton_schulz(&w);
    if (s == ATTN_OK) move(&a, &param, &w);
    attn_session_close(&session);
    return s;
}
