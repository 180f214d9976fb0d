/* SPDX-License-Identifier: Apache-2.0 */
/* Front-ends of layer and RMS norm, forward and backward. Rows are worked on in pieces of fixed size; a weight's gradient, a sum
 * over rows, in blocks of columns, so that no result depends on how many threads there are. */
#include "even_rows.h"
#include "exec.h"
#include "operand.h"
#include "ref/ops.h"
#include "status.h"
#include "walk.h"

#include <attn/ops.h>
#include <math.h>

typedef struct norm_job {
    const attn_norm_args *args;
    const attn_norm_grads *grads;
    const attn_kernels *kernels;
    bool accumulate;
    int64_t rows, n;
    double epsilon;
    size_t size;                 /* bytes of the type that is computed in */
    attn_even_rows x, y, dy, dx; /* for kernels */
    const void *weight, *bias;   /* for kernels: dense, or NULL */
    bool moments_given;          /* backward: in args->mean and rstd; else computed into the two below */
    char *mean, *rstd;           /* [rows], computed in the backward */
} norm_job;

/* ---- checks ------------------------------------------------------------------------------------------------ */

static attn_status check_vector(const char *name, const attn_tensor *t, attn_role role, const attn_norm_args *a) {
    if (!attn_present(t)) return ATTN_OK;
    return attn_check_operand(name, t, role, 1, &a->x.shape[a->x.rank - 1], a->x.dtype, "x's last axis");
}

static attn_status check_moments(const char *name, const attn_tensor *t, attn_role role, const attn_norm_args *a) {
    if (!attn_present(t)) return ATTN_OK;
    int32_t dtype = a->x.dtype == ATTN_F64 ? ATTN_F64 : ATTN_F32;
    attn_status s = attn_check_operand(name, t, role, a->x.rank - 1, a->x.shape, dtype, "x without its last axis");
    if (s == ATTN_OK && t->dtype != dtype)
        s = attn_fail(ATTN_UNSUPPORTED, "%s is %s, for x of %s it is %s", name, attn_dtype_name(t->dtype),
                      attn_dtype_name(a->x.dtype), attn_dtype_name(dtype));
    return s;
}

static attn_status check_args(const attn_norm_args *a, attn_role moments) {
    if (!a) return attn_fail(ATTN_BAD_ARGUMENT, "the norm has no arguments");
    if (a->kind != ATTN_LAYER_NORM && a->kind != ATTN_RMS_NORM)
        return attn_fail(ATTN_BAD_ARGUMENT, "there is no norm %d", (int)a->kind);
    attn_status s = attn_check_flags(a->flags);
    if (s == ATTN_OK) s = attn_check_reserved("attn_norm_args", a->reserved, 16);
    if (s == ATTN_OK) s = attn_check_float("x", &a->x, ATTN_INPUT, 1, ATTN_MAX_RANK);
    if (s == ATTN_OK) s = check_vector("weight", &a->weight, ATTN_INPUT, a);
    if (s == ATTN_OK) s = check_vector("bias", &a->bias, ATTN_INPUT, a);
    if (s == ATTN_OK) s = check_moments("mean", &a->mean, moments, a);
    if (s == ATTN_OK) s = check_moments("rstd", &a->rstd, moments, a);
    if (s != ATTN_OK) return s;
    if (!(a->epsilon >= 0)) return attn_fail(ATTN_BAD_ARGUMENT, "epsilon is %g", a->epsilon);
    if (a->kind == ATTN_RMS_NORM && (attn_present(&a->bias) || attn_present(&a->mean)))
        return attn_fail(ATTN_BAD_ARGUMENT, "%s is given, but RMS norm has none", attn_present(&a->bias) ? "bias" : "mean");
    return ATTN_OK;
}

static attn_status check_grads(const attn_norm_args *a, const attn_norm_grads *g) {
    if (!g) return attn_fail(ATTN_BAD_ARGUMENT, "the norm has no gradients to work on");
    attn_status s = attn_check_reserved("attn_norm_grads", g->reserved, 16);
    if (s == ATTN_OK) s = attn_check_operand("dy", &g->dy, ATTN_INPUT, a->x.rank, a->x.shape, a->x.dtype, "x");
    if (s == ATTN_OK && attn_present(&g->dx))
        s = attn_check_operand("dx", &g->dx, ATTN_OUTPUT, a->x.rank, a->x.shape, a->x.dtype, "x");
    if (s == ATTN_OK) s = check_vector("dweight", &g->dweight, ATTN_OUTPUT, a);
    if (s == ATTN_OK) s = check_vector("dbias", &g->dbias, ATTN_OUTPUT, a);
    if (s == ATTN_OK && a->kind == ATTN_RMS_NORM && attn_present(&g->dbias))
        s = attn_fail(ATTN_BAD_ARGUMENT, "dbias is given, but RMS norm has no bias");
    return s;
}

/* ---- what a call does, and the memory it needs --------------------------------------------------------------- */

/* The job of checked arguments; g is NULL in the forward. */
static norm_job job_of(const attn_norm_args *a, const attn_norm_grads *g) {
    const attn_tensor *const operands[] = { &a->x,
                                            &a->weight,
                                            &a->bias,
                                            g ? &g->dy : &a->y,
                                            &a->mean,
                                            &a->rstd,
                                            g ? &g->dx : &a->x,
                                            g ? &g->dweight : &a->x,
                                            g ? &g->dbias : &a->x };
    norm_job j = { .args = a,
                   .grads = g,
                   .kernels = attn_operand_kernels(9, operands),
                   .accumulate = a->flags & ATTN_ACCUMULATE,
                   .rows = attn_row_count(&a->x),
                   .n = a->x.shape[a->x.rank - 1],
                   .epsilon = a->epsilon == 0 ? 1e-5 : a->epsilon,
                   .size = sizeof(double) };
    if (j.kernels && !j.kernels->vector.norm) j.kernels = NULL;
    if (j.kernels) j.size = attn_dtype_size(a->x.dtype);
    j.x = attn_even_rows_of(&a->x);
    if (!g) {
        j.y = attn_even_rows_of(&a->y);
        return j;
    }
    j.dy = attn_even_rows_of(&g->dy);
    if (attn_present(&g->dx)) j.dx = attn_even_rows_of(&g->dx);
    j.moments_given = attn_present(&a->rstd) && (a->kind == ATTN_RMS_NORM || attn_present(&a->mean));
    return j;
}

/* A weight that is not dense is copied; pieces of rows that are not even pass through scratch. */
static bool needs_copy(const attn_tensor *t) { return attn_present(t) && t->stride[0] != 1 && t->shape[0] > 1; }

static attn_need need_of(const norm_job *j) {
    attn_need need = { 0 };
    size_t n = (size_t)j->n;
    if (j->grads && !j->moments_given) need.shared += 2 * attn_round64((size_t)j->rows * j->size);
    if (!j->kernels) return need;
    if (needs_copy(&j->args->weight)) need.shared += attn_round64(n * j->size);
    if (needs_copy(&j->args->bias)) need.shared += attn_round64(n * j->size);
    bool even = j->x.even && (j->grads ? j->dy.even && (!j->dx.tensor || j->dx.even) : j->y.even);
    size_t piece = n < ATTN_PIECE_COLUMNS ? ATTN_PIECE_COLUMNS : n;
    if (!even) need.per_worker = 3 * attn_round64(ATTN_PIECE_ROWS * piece * j->size);
    return need;
}

size_t attn_norm_workspace(const attn_norm_args *a, int32_t n_threads) {
    norm_job j = job_of(a, NULL);
    return attn_need_bytes(need_of(&j), n_threads);
}

size_t attn_norm_backward_workspace(const attn_norm_args *a, const attn_norm_grads *g, int32_t n_threads) {
    norm_job j = job_of(a, g);
    return attn_need_bytes(need_of(&j), n_threads);
}

static const void *dense_vector(const norm_job *j, const attn_tensor *t, char **shared) {
    if (!attn_present(t)) return NULL;
    if (!needs_copy(t)) return t->data;
    void *copy = attn_carve(shared, (size_t)j->n * j->size);
    attn_copy_strided(j->size, j->n, t->data, t->stride[0], copy, 1);
    return copy;
}

static attn_status open_job(norm_job *j, attn_session *session, const attn_exec *exec) {
    attn_status s = attn_session_open(session, exec, need_of(j));
    if (s != ATTN_OK) return s;
    char *shared = session->shared;
    if (j->kernels) {
        j->weight = dense_vector(j, &j->args->weight, &shared);
        j->bias = dense_vector(j, &j->args->bias, &shared);
    }
    if (j->grads && !j->moments_given) {
        j->mean = attn_carve(&shared, (size_t)j->rows * j->size);
        j->rstd = attn_carve(&shared, (size_t)j->rows * j->size);
    }
    return ATTN_OK;
}

/* ---- one piece of rows ---------------------------------------------------------------------------------------- */

typedef struct piece {
    int64_t begin, m;
    char mean[ATTN_PIECE_ROWS * 8], rstd[ATTN_PIECE_ROWS * 8]; /* in the type that is computed in */
} piece;

static piece piece_of(const norm_job *j, int64_t item) {
    piece p = { .begin = item * ATTN_PIECE_ROWS };
    p.m = j->rows - p.begin < ATTN_PIECE_ROWS ? j->rows - p.begin : ATTN_PIECE_ROWS;
    return p;
}

static int64_t pieces(const norm_job *j) { return (j->rows + ATTN_PIECE_ROWS - 1) / ATTN_PIECE_ROWS; }

static attn_norm_rows rows_of(const norm_job *j, piece *p) {
    return (attn_norm_rows){ .kind = j->args->kind,
                             .accumulate = j->accumulate,
                             .rows = p->m,
                             .n = j->n,
                             .epsilon = j->epsilon,
                             .weight = j->weight,
                             .bias = j->bias,
                             .mean = p->mean,
                             .rstd = p->rstd };
}

/* The moments of rows [begin, begin + m), from x. */
static void compute_moments(const norm_job *j, piece *p, void *scratch) {
    if (j->kernels) {
        attn_norm_rows r = rows_of(j, p);
        r.x = attn_even_rows_borrow(&j->x, p->begin, p->m, 0, j->n, true, scratch, &r.x_row);
        j->kernels->vector.norm_moments(&r);
        return;
    }
    for (int64_t i = 0; i < p->m; i++) {
        ref_moments row = ref_norm_moments(j->args->kind, j->n, j->epsilon, attn_ref_row(&j->args->x, p->begin + i));
        ref_store(p->mean, ATTN_F64, i, row.mean);
        ref_store(p->rstd, ATTN_F64, i, row.rstd);
    }
}

/* A piece's moments on their way between its own array and a tensor of any strides (F32 beside the reference's doubles). */
typedef struct moments_copy {
    char *own;
    int32_t own_dtype, dtype;
    bool out; /* to the tensor */
} moments_copy;

static void moments_run(void *context, char *const data[], const int64_t stride[], int64_t n, int64_t position) {
    (void)position;
    moments_copy *c = context;
    size_t size = attn_dtype_size(c->own_dtype);
    if (c->own_dtype == c->dtype && c->out) {
        attn_copy_strided(size, n, c->own, 1, data[0], stride[0]);
    } else if (c->own_dtype == c->dtype) {
        attn_copy_strided(size, n, data[0], stride[0], c->own, 1);
    } else {
        for (int64_t i = 0; i < n; i++) {
            if (c->out)
                ref_store(data[0], c->dtype, i * stride[0], ref_load(c->own, c->own_dtype, i));
            else
                ref_store(c->own, c->own_dtype, i, ref_load(data[0], c->dtype, i * stride[0]));
        }
    }
    c->own += (size_t)n * size;
}

static void copy_moments(const norm_job *j, const attn_tensor *t, const piece *p, char *own, bool out) {
    if (!attn_present(t)) return;
    attn_walk walk = attn_walk_of(1, &t);
    moments_copy c = { .own = own, .own_dtype = j->kernels ? j->args->x.dtype : ATTN_F64, .dtype = t->dtype, .out = out };
    attn_walk_strided(&walk, p->begin, p->begin + p->m, moments_run, &c);
}

static ref_moments moments_at(const piece *p, int64_t i) {
    return (ref_moments){ ref_load(p->mean, ATTN_F64, i), ref_load(p->rstd, ATTN_F64, i) };
}

/* ---- forward: y = (x - mean) * rstd * weight + bias --------------------------------------------------------------- */

static void forward_item(void *context, int64_t item, void *scratch) {
    const norm_job *j = context;
    const attn_norm_args *a = j->args;
    piece p = piece_of(j, item);
    compute_moments(j, &p, scratch);
    copy_moments(j, &a->mean, &p, p.mean, true);
    copy_moments(j, &a->rstd, &p, p.rstd, true);
    if (j->kernels) {
        char *buffers = scratch;
        void *x_buffer = attn_carve(&buffers, ATTN_PIECE_ROWS * (size_t)j->n * j->size);
        attn_norm_rows r = rows_of(j, &p);
        r.x = attn_even_rows_borrow(&j->x, p.begin, p.m, 0, j->n, true, x_buffer, &r.x_row);
        r.y = attn_even_rows_borrow(&j->y, p.begin, p.m, 0, j->n, j->accumulate, buffers, &r.y_row);
        j->kernels->vector.norm(&r);
        attn_even_rows_return(&j->y, p.begin, p.m, 0, j->n, r.y);
        return;
    }
    for (int64_t i = 0; i < p.m; i++)
        ref_norm(j->n, moments_at(&p, i), attn_ref_row(&a->x, p.begin + i), attn_ref_row(&a->weight, 0),
                 attn_ref_row(&a->bias, 0), attn_ref_row(&a->y, p.begin + i), j->accumulate);
}

attn_status attn_norm(const attn_norm_args *a, const attn_exec *exec) {
    attn_status s = check_args(a, ATTN_OUTPUT);
    if (s == ATTN_OK) s = attn_check_operand("y", &a->y, ATTN_OUTPUT, a->x.rank, a->x.shape, a->x.dtype, "x");
    if (s != ATTN_OK) return s;
    norm_job j = job_of(a, NULL);
    attn_session session;
    s = open_job(&j, &session, exec);
    if (s != ATTN_OK) return s;
    attn_session_run(&session, pieces(&j), forward_item, &j);
    attn_session_close(&session);
    return ATTN_OK;
}

/* ---- backward ------------------------------------------------------------------------------------------------------- */

static void moments_item(void *context, int64_t item, void *scratch) {
    const norm_job *j = context;
    piece p = piece_of(j, item);
    compute_moments(j, &p, scratch);
    attn_copy_strided(j->size, p.m, p.mean, 1, j->mean + (size_t)p.begin * j->size, 1);
    attn_copy_strided(j->size, p.m, p.rstd, 1, j->rstd + (size_t)p.begin * j->size, 1);
}

static void find_moments(const norm_job *j, piece *p) {
    if (j->moments_given) {
        copy_moments(j, &j->args->mean, p, p->mean, false); /* RMS norm has none: 0 */
        copy_moments(j, &j->args->rstd, p, p->rstd, false);
    } else {
        attn_copy_strided(j->size, p->m, j->mean + (size_t)p->begin * j->size, 1, p->mean, 1);
        attn_copy_strided(j->size, p->m, j->rstd + (size_t)p->begin * j->size, 1, p->rstd, 1);
    }
}

/* Writes columns [first, first + n) of a gradient [n]: total, in the type that is computed in. */
static void put_total(const norm_job *j, const attn_tensor *t, int64_t first, int64_t n, const void *total) {
    int32_t dtype = j->kernels ? t->dtype : ATTN_F64;
    for (int64_t i = 0; attn_present(t) && i < n; i++) {
        int64_t at = (first + i) * t->stride[0];
        double before = j->accumulate ? ref_load(t->data, t->dtype, at) : 0;
        ref_store(t->data, t->dtype, at, before + ref_load(total, dtype, i));
    }
}

/* dweight = sum over rows of dy * xhat, dbias = sum over rows of dy: one block of columns. */
static void columns_item(void *context, int64_t item, void *scratch) {
    const norm_job *j = context;
    int64_t first = item * ATTN_PIECE_COLUMNS, n = j->n - first < ATTN_PIECE_COLUMNS ? j->n - first : ATTN_PIECE_COLUMNS;
    double dweight[ATTN_PIECE_COLUMNS] = { 0 }, dbias[ATTN_PIECE_COLUMNS] = { 0 };
    bool wants_weight = attn_present(&j->grads->dweight), wants_bias = attn_present(&j->grads->dbias);
    for (int64_t step = 0; step < pieces(j); step++) {
        piece p = piece_of(j, step);
        if (wants_weight) find_moments(j, &p);
        if (j->kernels) {
            char *buffers = scratch;
            void *dy_buffer = attn_carve(&buffers, ATTN_PIECE_ROWS * ATTN_PIECE_COLUMNS * j->size);
            attn_norm_rows r = rows_of(j, &p);
            r.n = n;
            r.dy = attn_even_rows_borrow(&j->dy, p.begin, p.m, first, n, true, dy_buffer, &r.dy_row);
            if (wants_weight) {
                r.x = attn_even_rows_borrow(&j->x, p.begin, p.m, first, n, true, buffers, &r.x_row);
                j->kernels->vector.norm_dweight(&r, dweight);
            }
            if (wants_bias) j->kernels->vector.sum_rows(p.m, n, r.dy, r.dy_row, dbias);
            continue;
        }
        for (int64_t i = 0; i < p.m; i++) {
            ref_vector x = attn_ref_row(&j->args->x, p.begin + i), dy = attn_ref_row(&j->grads->dy, p.begin + i);
            x.data = attn_at(&j->args->x, attn_row_offset(&j->args->x, p.begin + i) + first * x.stride);
            dy.data = attn_at(&j->grads->dy, attn_row_offset(&j->grads->dy, p.begin + i) + first * dy.stride);
            ref_norm_dweight(n, wants_weight ? moments_at(&p, i) : (ref_moments){ 0, 0 }, x, dy, dweight, dbias);
        }
    }
    put_total(j, &j->grads->dweight, first, n, dweight);
    put_total(j, &j->grads->dbias, first, n, dbias);
}

static void dx_item(void *context, int64_t item, void *scratch) {
    const norm_job *j = context;
    const attn_norm_args *a = j->args;
    piece p = piece_of(j, item);
    find_moments(j, &p);
    if (j->kernels) {
        char *buffers = scratch;
        size_t bytes = ATTN_PIECE_ROWS * (size_t)j->n * j->size;
        void *x_buffer = attn_carve(&buffers, bytes), *dy_buffer = attn_carve(&buffers, bytes);
        attn_norm_rows r = rows_of(j, &p);
        r.x = attn_even_rows_borrow(&j->x, p.begin, p.m, 0, j->n, true, x_buffer, &r.x_row);
        r.dy = attn_even_rows_borrow(&j->dy, p.begin, p.m, 0, j->n, true, dy_buffer, &r.dy_row);
        r.y = attn_even_rows_borrow(&j->dx, p.begin, p.m, 0, j->n, j->accumulate, buffers, &r.y_row);
        j->kernels->vector.norm_dx(&r);
        attn_even_rows_return(&j->dx, p.begin, p.m, 0, j->n, r.y);
        return;
    }
    for (int64_t i = 0; i < p.m; i++)
        ref_norm_dx(a->kind, j->n, moments_at(&p, i), attn_ref_row(&a->x, p.begin + i), attn_ref_row(&a->weight, 0),
                    attn_ref_row(&j->grads->dy, p.begin + i), attn_ref_row(&j->grads->dx, p.begin + i), j->accumulate);
}

attn_status attn_norm_backward(const attn_norm_args *a, const attn_norm_grads *g, const attn_exec *exec) {
    attn_status s = check_args(a, ATTN_INPUT);
    if (s == ATTN_OK) s = check_grads(a, g);
    if (s != ATTN_OK) return s;
    norm_job j = job_of(a, g);
    attn_session session;
    s = open_job(&j, &session, exec);
    if (s != ATTN_OK) return s;
    if (!j.moments_given) attn_session_run(&session, pieces(&j), moments_item, &j);
    /* Sums over rows first: dx may be dy. */
    if (attn_present(&g->dweight) || attn_present(&g->dbias))
        attn_session_run(&session, (j.n + ATTN_PIECE_COLUMNS - 1) / ATTN_PIECE_COLUMNS, columns_item, &j);
    if (attn_present(&g->dx)) attn_session_run(&session, pieces(&j), dx_item, &j);
    attn_session_close(&session);
    return ATTN_OK;
}
