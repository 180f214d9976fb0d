/* SPDX-License-Identifier: Apache-2.0 */
/* attn_merge and its gradients: row by row, in memory of the stack. A row's shares are worked out once, or again for each piece of
 * columns where there are more parts than the stack has room for. */
#include "exec.h"
#include "operand.h"
#include "status.h"
#include "walk.h"

#include "ref/merge.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum {
    PIECE = 256, /* columns that are added up at once */
    PARTS = 64,  /* parts whose shares are kept */
    CHUNK = 8192 /* elements of a work item, all parts counted: enough to pay for drawing it */
};

typedef struct merge_job {
    const attn_merge_args *a;
    const attn_merge_grads *g;         /* NULL: forward */
    const attn_kernels *kernels, *exp; /* of elements, and of shares, which are F64 */
    int32_t dtype;                     /* everything is computed in, F32 or F64 */
    int64_t n_rows, v_dim;
    int64_t rows; /* of a work item */
} merge_job;

/* ---- one row of every tensor -------------------------------------------------------------------------------- */

/* Where it stands, along all axes but the last. */
typedef struct merge_row {
    const merge_job *job;
    int64_t index[ATTN_MAX_RANK];
} merge_row;

static merge_row row_at(const merge_job *job, int64_t row) {
    merge_row r = { .job = job };
    for (int32_t i = job->a->out.rank - 2; i >= 0; i--) {
        r.index[i] = row % job->a->out.shape[i];
        row /= job->a->out.shape[i];
    }
    return r;
}

/* A tensor [..., v_dim] or [...], which may be absent. */
static ref_vector vector_at(const merge_row *r, const attn_tensor *t) {
    int32_t axes = r->job->a->out.rank - 1;
    int64_t at = 0;
    if (!attn_present(t)) return (ref_vector){ 0 };
    for (int32_t i = 0; i < axes; i++) at += r->index[i] * t->stride[i];
    return (ref_vector){ attn_at(t, at), t->rank > axes ? t->stride[axes] : 1, t->dtype };
}

static double lse_at(const merge_row *r, int64_t i) { return ref_get(vector_at(r, &r->job->a->lses[i]), 0); }

static ref_part part_at(const void *context, int64_t i) {
    const merge_row *r = context;
    const attn_merge_grads *g = r->job->g;
    ref_part part = { .out = vector_at(r, &r->job->a->outs[i]), .lse = lse_at(r, i) };
    if (g && g->douts) part.dout = vector_at(r, &g->douts[i]);
    if (g && g->dlses) part.dlse = vector_at(r, &g->dlses[i]);
    return part;
}

/* ---- by kernels ---------------------------------------------------------------------------------------------- */

/* exp(lse - max) of parts i0 .. i0 + n - 1; in double, for there are few of them. */
static void powers(const merge_row *r, int64_t i0, int64_t n, double max, double *power) {
    for (int64_t i = 0; i < n; i++) power[i] = lse_at(r, i0 + i) - max;
    r->job->exp->math.exp(power, power, n);
}

static int64_t parts_from(const merge_job *job, int64_t i0) { return job->a->n - i0 < PARTS ? job->a->n - i0 : PARTS; }

/* Columns [c0, c0 + n) of a row, densely in the dtype of computing: where they lie, or in `buffer`. */
static const void *columns(const merge_job *job, ref_vector row, int64_t c0, int64_t n, void *buffer) {
    const void *x = (const char *)row.data + c0 * row.stride * (int64_t)attn_dtype_size(row.dtype);
    if (row.dtype == job->dtype && (row.stride == 1 || n == 1)) return x;
    attn_read_strided(&job->kernels->convert, job->dtype, n, x, row.dtype, n > 1 ? row.stride : 1, buffer);
    return buffer;
}

static void write_columns(const merge_job *job, const void *x, ref_vector row, int64_t c0, int64_t n) {
    void *to = (char *)row.data + c0 * row.stride * (int64_t)attn_dtype_size(row.dtype);
    attn_write_strided(&job->kernels->convert, job->dtype, n, x, to, row.dtype, n > 1 ? row.stride : 1);
}

static void merge_by_kernels(const merge_row *r) {
    const merge_job *job = r->job;
    double power[PARTS], sums[PIECE], buffer[PIECE];
    ref_vector out = vector_at(r, &job->a->out), lse = vector_at(r, &job->a->lse);
    ref_merged row = { .max = ref_merge_max(job->a->n, part_at, r) };
    for (int64_t i0 = 0; row.max != -INFINITY && i0 < job->a->n; i0 += PARTS) {
        powers(r, i0, parts_from(job, i0), row.max, power);
        for (int64_t i = 0; i < parts_from(job, i0); i++) row.sum += power[i];
    }
    for (int64_t c = 0; c < job->v_dim; c += PIECE) {
        int64_t n = job->v_dim - c < PIECE ? job->v_dim - c : PIECE;
        memset(sums, 0, sizeof sums);
        for (int64_t i0 = 0; row.max != -INFINITY && i0 < job->a->n; i0 += PARTS) {
            if (job->a->n > PARTS) powers(r, i0, parts_from(job, i0), row.max, power);
            for (int64_t i = 0; i < parts_from(job, i0); i++) {
                ref_part part = part_at(r, i0 + i);
                if (part.lse != -INFINITY)
                    job->kernels->vector.add(n, power[i] / row.sum, columns(job, part.out, c, n, buffer), sums);
            }
        }
        write_columns(job, sums, out, c, n);
    }
    /* last: it may be the first part's */
    if (lse.data) ref_put(lse, 0, ref_merge_lse(row));
}

/* ---- backward by kernels: as ref_merge_row_backward says, of no more than PARTS parts -------------------------------- */

static double inner(const merge_job *job, int64_t n, const void *x_, const void *y_) {
    double sum = 0;
    if (job->dtype == ATTN_F64) {
        const double *x = x_, *y = y_;
        for (int64_t i = 0; i < n; i++) sum += x[i] * y[i];
    } else {
        const float *x = x_, *y = y_;
        for (int64_t i = 0; i < n; i++) sum += (double)x[i] * (double)y[i];
    }
    return sum;
}

/* What columns [c, c + n) say: dout . out_i is added to, dout_i is written. */
static void piece_back(const merge_row *r, int64_t c, int64_t n, const double *share, double *along) {
    const merge_job *job = r->job;
    double buffer[PIECE], out[PIECE], scaled[PIECE];
    const void *dout = columns(job, vector_at(r, &job->g->dout), c, n, buffer);
    for (int64_t i = 0; i < job->a->n; i++) {
        ref_part part = part_at(r, i);
        memset(scaled, 0, sizeof scaled);
        if (part.lse != -INFINITY) {
            along[i] += inner(job, n, dout, columns(job, part.out, c, n, out));
            job->kernels->vector.add(n, share[i], dout, scaled);
        }
        if (part.dout.data) write_columns(job, scaled, part.dout, c, n);
    }
}

static void back_by_kernels(const merge_row *r, double dlse) {
    const merge_job *job = r->job;
    double share[PARTS], along[PARTS], sum = 0, mean = 0, max = ref_merge_max(job->a->n, part_at, r);
    memset(along, 0, sizeof along);
    powers(r, 0, job->a->n, max, share);
    for (int64_t i = 0; i < job->a->n; i++) sum += share[i];
    for (int64_t i = 0; i < job->a->n; i++) share[i] /= sum;
    for (int64_t c = 0; c < job->v_dim; c += PIECE)
        piece_back(r, c, job->v_dim - c < PIECE ? job->v_dim - c : PIECE, share, along);
    for (int64_t i = 0; i < job->a->n; i++)
        if (lse_at(r, i) != -INFINITY) mean += share[i] * along[i];
    for (int64_t i = 0; i < job->a->n; i++) {
        ref_part part = part_at(r, i);
        if (part.dlse.data) ref_put(part.dlse, 0, part.lse == -INFINITY ? 0 : share[i] * (along[i] - mean + dlse));
    }
}

/* ---- the work -------------------------------------------------------------------------------------------------- */

static void do_item(void *context, int64_t item, void *scratch) {
    const merge_job *job = context;
    int64_t end = job->n_rows - item * job->rows < job->rows ? job->n_rows : (item + 1) * job->rows;
    (void)scratch;
    for (int64_t i = item * job->rows; i < end; i++) {
        merge_row r = row_at(job, i);
        if (job->g) {
            double dlse = attn_present(&job->g->dlse) ? ref_get(vector_at(&r, &job->g->dlse), 0) : 0;
            if (job->kernels && job->a->n <= PARTS)
                back_by_kernels(&r, dlse);
            else
                ref_merge_row_backward(job->a->n, job->v_dim, part_at, &r, vector_at(&r, &job->g->dout), dlse);
        } else if (job->kernels) {
            merge_by_kernels(&r);
        } else {
            ref_merge_row(job->a->n, job->v_dim, part_at, &r, vector_at(&r, &job->a->out), vector_at(&r, &job->a->lse));
        }
    }
}

/* `shape` is a tensor with the shape of out. */
static attn_status run_job(const attn_merge_args *a, const attn_merge_grads *g, const attn_tensor *shape, const attn_exec *exec) {
    attn_session session;
    attn_merge_args with = *a;
    with.out = g ? *shape : a->out;
    merge_job job = { .a = &with, .g = g, .dtype = a->outs[0].dtype == ATTN_F64 ? ATTN_F64 : ATTN_F32 };
    job.kernels = attn_kernels_for(job.dtype);
    job.exp = attn_kernels_for(ATTN_F64);
    if (job.kernels && (!job.kernels->vector.add || !job.exp->math.exp)) job.kernels = NULL;
    job.v_dim = shape->shape[shape->rank - 1];
    job.n_rows = attn_row_count(shape);
    int64_t width = job.v_dim > CHUNK / a->n ? CHUNK : (job.v_dim + 1) * a->n;
    job.rows = CHUNK / width > 1 ? CHUNK / width : 1;
    attn_status s = attn_session_open(&session, exec, (attn_need){ 0 });
    if (s != ATTN_OK) return s;
    attn_session_run(&session, (job.n_rows + job.rows - 1) / job.rows, do_item, &job);
    attn_session_close(&session);
    return ATTN_OK;
}

/* ---- checks ------------------------------------------------------------------------------------------------------ */

/* One number for each row of x [..., v_dim]. */
static attn_status check_lse(const char *name, const attn_tensor *t, attn_role role, const attn_tensor *x) {
    int32_t wanted = x->dtype == ATTN_F64 ? ATTN_F64 : ATTN_F32;
    attn_status s = attn_check_operand(name, t, role, x->rank - 1, x->shape, wanted, "a row's log-sum-exp");
    if (s == ATTN_OK && t->dtype != wanted)
        return attn_fail(ATTN_UNSUPPORTED, "%s is %s: beside outs[0] of %s it is %s", name, attn_dtype_name(t->dtype),
                         attn_dtype_name(x->dtype), attn_dtype_name(wanted));
    return s;
}

static const char *name_of(const char *list, int64_t i, char buffer[64]) {
    snprintf(buffer, 64, "%s[%lld]", list, (long long)i);
    return buffer;
}

static attn_status check_parts(const attn_merge_args *a) {
    char name[64];
    if (!a) return attn_fail(ATTN_BAD_ARGUMENT, "the merge has no arguments");
    attn_status s = attn_check_reserved("attn_merge_args", a->reserved, sizeof a->reserved / sizeof *a->reserved);
    if (s != ATTN_OK) return s;
    if (a->n < 1) return attn_fail(ATTN_BAD_ARGUMENT, "n is %lld: there is at least one part to merge", (long long)a->n);
    if (!a->outs || !a->lses) return attn_fail(ATTN_BAD_ARGUMENT, "%s is NULL", a->outs ? "lses" : "outs");
    s = attn_check_float("outs[0]", &a->outs[0], ATTN_INPUT, 2, ATTN_MAX_RANK);
    for (int64_t i = 0; s == ATTN_OK && i < a->n; i++) {
        const attn_tensor *x = &a->outs[0];
        s = attn_check_operand(name_of("outs", i, name), &a->outs[i], ATTN_INPUT, x->rank, x->shape, x->dtype, "outs[0]");
        if (s == ATTN_OK) s = check_lse(name_of("lses", i, name), &a->lses[i], ATTN_INPUT, x);
    }
    return s;
}

/* Parts of a result, each of which may be absent. */
static attn_status check_gradients(const attn_merge_args *a, const attn_merge_grads *g) {
    char name[64];
    const attn_tensor *x = &a->outs[0];
    attn_status s = attn_check_reserved("attn_merge_grads", g->reserved, sizeof g->reserved / sizeof *g->reserved);
    if (s == ATTN_OK) s = attn_check_operand("dout", &g->dout, ATTN_INPUT, x->rank, x->shape, x->dtype, "outs[0]");
    if (s == ATTN_OK && attn_present(&g->dlse)) s = check_lse("dlse", &g->dlse, ATTN_INPUT, x);
    for (int64_t i = 0; s == ATTN_OK && g->douts && i < a->n; i++)
        if (attn_present(&g->douts[i]))
            s = attn_check_operand(name_of("douts", i, name), &g->douts[i], ATTN_OUTPUT, x->rank, x->shape, x->dtype, "outs[0]");
    for (int64_t i = 0; s == ATTN_OK && g->dlses && i < a->n; i++)
        if (attn_present(&g->dlses[i])) s = check_lse(name_of("dlses", i, name), &g->dlses[i], ATTN_OUTPUT, x);
    return s;
}

static attn_status check_out(const attn_tensor *out, const attn_tensor *x) {
    char text[ATTN_SHAPE_TEXT], wanted[ATTN_SHAPE_TEXT];
    attn_status s = attn_check_float("out", out, ATTN_OUTPUT, 0, ATTN_MAX_RANK);
    if (s != ATTN_OK || attn_same_shape(out, x)) return s;
    return attn_fail(ATTN_BAD_SHAPE, "out has shape %s, outs[0] asks for %s", attn_shape_text(out, text),
                     attn_shape_text(x, wanted));
}

attn_status attn_merge(const attn_merge_args *a, const attn_exec *exec) {
    attn_status s = check_parts(a);
    if (s == ATTN_OK) s = check_out(&a->out, &a->outs[0]);
    if (s == ATTN_OK && attn_present(&a->lse)) s = check_lse("lse", &a->lse, ATTN_OUTPUT, &a->outs[0]);
    return s == ATTN_OK ? run_job(a, NULL, &a->out, exec) : s;
}

attn_status attn_merge_backward(const attn_merge_args *a, const attn_merge_grads *g, const attn_exec *exec) {
    attn_status s = check_parts(a);
    if (s == ATTN_OK && !g) s = attn_fail(ATTN_BAD_ARGUMENT, "the merge has no gradients to work on");
    if (s == ATTN_OK) s = check_gradients(a, g);
    return s == ATTN_OK ? run_job(a, g, &a->outs[0], exec) : s;
}
