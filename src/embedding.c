/* SPDX-License-Identifier: Apache-2.0 */
/* Embedding: rows of a table gathered by id, and their gradients scattered back. */
#include "exec.h"
#include "operand.h"
#include "ref/ops.h"
#include "status.h"
#include "walk.h"

#include <attn/ops.h>

/* Rows of a work item of the forward. The backward splits columns instead: within a column the order of the ids is kept. */
enum { ROWS = 64, COLUMNS = 64 };

typedef struct embedding_job {
    const attn_tensor *rows, *table, *ids; /* rows: y, or dy */
    const attn_kernels *kernels;
    bool accumulate;
} embedding_job;

static attn_status check_args(const attn_embedding_args *a) {
    if (!a) return attn_fail(ATTN_BAD_ARGUMENT, "the embedding has no arguments");
    attn_status s = attn_check_flags(a->flags);
    if (s == ATTN_OK) s = attn_check_reserved("attn_embedding_args", a->reserved, 16);
    if (s == ATTN_OK) s = attn_check_tensor("ids", &a->ids, 1, 1);
    if (s != ATTN_OK) return s;
    if (a->ids.dtype != ATTN_I32 && a->ids.dtype != ATTN_I64)
        return attn_fail(ATTN_UNSUPPORTED, "ids are %s, not i32 or i64", attn_dtype_name(a->ids.dtype));
    return ATTN_OK;
}

static attn_status check_ids(const attn_tensor *ids, int64_t vocabulary) {
    for (int64_t i = 0; i < ids->shape[0]; i++) {
        int64_t id = attn_int_at(ids, i * ids->stride[0]);
        if (id < 0 || id >= vocabulary)
            return attn_fail(ATTN_BAD_ARGUMENT, "ids[%lld] is %lld, the table has %lld rows", (long long)i, (long long)id,
                             (long long)vocabulary);
    }
    return ATTN_OK;
}

static attn_status run_job(embedding_job *job, int64_t n_items, attn_work work, const attn_exec *exec) {
    attn_session session;
    attn_status s = attn_session_open(&session, exec, (attn_need){ 0 });
    if (s != ATTN_OK) return s;
    attn_session_run(&session, n_items, work, job);
    attn_session_close(&session);
    return ATTN_OK;
}

/* target += source, or target = source, n elements. */
static void put_row(const attn_kernels *kernels, bool accumulate, int64_t n, ref_vector source, ref_vector target) {
    bool alike = source.dtype == target.dtype;
    if (!accumulate && alike) {
        attn_copy_strided(attn_dtype_size(source.dtype), n, source.data, source.stride, target.data, target.stride);
    } else if (kernels && alike && source.stride == 1 && target.stride == 1) {
        kernels->vector.add(n, 1, source.data, target.data);
    } else {
        for (int64_t i = 0; i < n; i++) ref_put(target, i, ref_get(source, i) + (accumulate ? ref_get(target, i) : 0));
    }
}

/* Columns [first, ...) of row i. */
static ref_vector part_of_row(const attn_tensor *t, int64_t i, int64_t first) {
    return (ref_vector){ attn_at(t, i * t->stride[0] + first * t->stride[1]), t->stride[1], t->dtype };
}

/* ---- forward: y[i] = table[ids[i]] -------------------------------------------------------------------------- */

static void gather_item(void *context, int64_t item, void *scratch) {
    (void)scratch;
    const embedding_job *job = context;
    int64_t end = (item + 1) * ROWS < job->ids->shape[0] ? (item + 1) * ROWS : job->ids->shape[0];
    for (int64_t i = item * ROWS; i < end; i++) {
        int64_t id = attn_int_at(job->ids, i * job->ids->stride[0]);
        put_row(job->kernels, job->accumulate, job->table->shape[1], part_of_row(job->table, id, 0),
                part_of_row(job->rows, i, 0));
    }
}

attn_status attn_embedding(const attn_embedding_args *a, const attn_exec *exec) {
    attn_status s = check_args(a);
    if (s == ATTN_OK) s = attn_check_float("table", &a->table, ATTN_INPUT, 2, 2);
    if (s != ATTN_OK) return s;
    const int64_t shape[] = { a->ids.shape[0], a->table.shape[1] };
    s = attn_check_operand("y", &a->y, ATTN_OUTPUT, 2, shape, a->table.dtype, "[ids, table's columns]");
    if (s == ATTN_OK) s = check_ids(&a->ids, a->table.shape[0]);
    if (s != ATTN_OK) return s;
    const attn_tensor *const views[] = { &a->table, &a->y };
    embedding_job job = { .rows = &a->y,
                          .table = &a->table,
                          .ids = &a->ids,
                          .kernels = attn_operand_kernels(2, views),
                          .accumulate = a->flags & ATTN_ACCUMULATE };
    if (job.kernels && !job.kernels->vector.add) job.kernels = NULL;
    return run_job(&job, (a->ids.shape[0] + ROWS - 1) / ROWS, gather_item, exec);
}

/* ---- backward: dtable[ids[i]] += dy[i] ----------------------------------------------------------------------- */

static void scatter_item(void *context, int64_t item, void *scratch) {
    (void)scratch;
    const embedding_job *job = context;
    int64_t first = item * COLUMNS, n = job->table->shape[1] - first;
    if (n > COLUMNS) n = COLUMNS;
    for (int64_t i = 0; i < job->ids->shape[0]; i++) {
        int64_t id = attn_int_at(job->ids, i * job->ids->stride[0]);
        put_row(job->kernels, true, n, part_of_row(job->rows, i, first), part_of_row(job->table, id, first));
    }
}

attn_status attn_embedding_backward(const attn_embedding_args *a, const attn_tensor *dy, const attn_tensor *dtable,
                                    const attn_exec *exec) {
    attn_status s = check_args(a);
    if (s == ATTN_OK) s = attn_check_float("dy", dy, ATTN_INPUT, 2, 2);
    if (s == ATTN_OK && a->table.rank != 2)
        s = attn_fail(ATTN_BAD_SHAPE, "table has rank %d, not 2 (its shape is read, not its data)", (int)a->table.rank);
    if (s == ATTN_OK) s = attn_check_operand("dtable", dtable, ATTN_OUTPUT, 2, a->table.shape, dy->dtype, "table");
    if (s != ATTN_OK) return s;
    const int64_t shape[] = { a->ids.shape[0], a->table.shape[1] };
    s = attn_check_operand("dy", dy, ATTN_INPUT, 2, shape, dy->dtype, "[ids, table's columns]");
    if (s == ATTN_OK) s = check_ids(&a->ids, a->table.shape[0]);
    if (s != ATTN_OK) return s;
    const attn_tensor *const views[] = { dy, dtable };
    embedding_job job = { .rows = dy, .table = dtable, .ids = &a->ids, .kernels = attn_operand_kernels(2, views) };
    if (job.kernels && !job.kernels->vector.add) job.kernels = NULL;
    return run_job(&job, (dtable->shape[1] + COLUMNS - 1) / COLUMNS, scatter_item, exec);
}
