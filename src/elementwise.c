/* SPDX-License-Identifier: Apache-2.0 */
/* Front-ends of what works element by element: sums, dropout, the sum of squares; and sums over rows. */
#include "even_rows.h"
#include "exec.h"
#include "operand.h"
#include "philox.h"
#include "ref/ops.h"
#include "status.h"
#include "walk.h"

#include <attn/ops.h>

/* Elements of a work item. */
enum { CHUNK = 8192 };

typedef struct element_job {
    attn_walk walk;
    const attn_kernels *kernels;
    double factor; /* alpha; 1 / (1 - p) */
    uint64_t threshold, seed, stream;
    double *partial; /* sums of squares, one per item */
    int64_t chunk;
} element_job;

static attn_status run_job(element_job *job, attn_work work, const attn_exec *exec) {
    attn_session session;
    attn_status s = attn_session_open(&session, exec, (attn_need){ 0 });
    if (s != ATTN_OK) return s;
    attn_session_run(&session, (job->walk.count + job->chunk - 1) / job->chunk, work, job);
    attn_session_close(&session);
    return ATTN_OK;
}

/* Runs item `item`, through the dense walk where there are kernels. */
static void walk_item(element_job *job, int64_t item, unsigned reads, unsigned writes, attn_run run, void *context) {
    int64_t begin = item * job->chunk, end = begin + job->chunk < job->walk.count ? begin + job->chunk : job->walk.count;
    if (job->kernels)
        attn_walk_dense(&job->walk, begin, end, reads, writes, run, context);
    else
        attn_walk_strided(&job->walk, begin, end, run, context);
}

/* ---- y += alpha x ---------------------------------------------------------------------------------------- */

static void add_run(void *context, char *const data[], const int64_t stride[], int64_t n, int64_t position) {
    (void)position;
    const element_job *job = context;
    if (job->kernels) {
        job->kernels->vector.add(n, job->factor, data[0], data[1]);
        return;
    }
    ref_vector x = { data[0], stride[0], job->walk.dtype[0] }, y = { data[1], stride[1], job->walk.dtype[1] };
    for (int64_t i = 0; i < n; i++) ref_put(y, i, ref_get(y, i) + job->factor * ref_get(x, i));
}

static void add_item(void *context, int64_t item, void *scratch) {
    (void)scratch;
    walk_item(context, item, 3, 2, add_run, context);
}

attn_status attn_add(const attn_tensor *x, double alpha, const attn_tensor *y, const attn_exec *exec) {
    attn_status s = attn_check_float("x", x, ATTN_INPUT, 0, ATTN_MAX_RANK);
    if (s == ATTN_OK) s = attn_check_operand("y", y, ATTN_OUTPUT, x->rank, x->shape, x->dtype, "x");
    if (s != ATTN_OK) return s;
    const attn_tensor *const views[] = { x, y };
    element_job job = {
        .walk = attn_walk_of(2, views), .kernels = attn_operand_kernels(2, views), .factor = alpha, .chunk = CHUNK
    };
    if (job.kernels && !job.kernels->vector.add) job.kernels = NULL;
    return run_job(&job, add_item, exec);
}

/* ---- dropout -------------------------------------------------------------------------------------------------- */

static void dropout_run(void *context, char *const data[], const int64_t stride[], int64_t n, int64_t position) {
    const element_job *job = context;
    if (job->kernels) {
        job->kernels->vector.dropout(n, position, job->threshold, job->factor, job->seed, job->stream, data[0], data[1]);
        return;
    }
    ref_vector x = { data[0], stride[0], job->walk.dtype[0] }, y = { data[1], stride[1], job->walk.dtype[1] };
    for (int64_t i = 0; i < n; i++) {
        uint64_t index = (uint64_t)(position + i);
        attn_philox random = attn_philox_words(attn_philox_counter(index >> 2, job->stream), job->seed);
        ref_put(y, i, random.word[index & 3] < job->threshold ? 0 : ref_get(x, i) * job->factor);
    }
}

static void dropout_item(void *context, int64_t item, void *scratch) {
    (void)scratch;
    walk_item(context, item, 1, 2, dropout_run, context);
}

attn_status attn_dropout(const attn_tensor *x, double p, uint64_t seed, uint64_t stream, const attn_tensor *y,
                         const attn_exec *exec) {
    attn_status s = attn_check_float("x", x, ATTN_INPUT, 0, ATTN_MAX_RANK);
    if (s == ATTN_OK) s = attn_check_operand("y", y, ATTN_OUTPUT, x->rank, x->shape, x->dtype, "x");
    if (s != ATTN_OK) return s;
    if (!(p >= 0 && p <= 1)) return attn_fail(ATTN_BAD_ARGUMENT, "p is %g, a probability lies in [0, 1]", p);
    const attn_tensor *const views[] = { x, y };
    element_job job = { .walk = attn_walk_of(2, views),
                        .kernels = attn_operand_kernels(2, views),
                        .factor = p < 1 ? 1 / (1 - p) : 0,
                        .threshold = attn_dropout_threshold(p),
                        .seed = seed,
                        .stream = stream,
                        .chunk = CHUNK };
    if (job.kernels && !job.kernels->vector.dropout) job.kernels = NULL;
    return run_job(&job, dropout_item, exec);
}

/* ---- the sum of squares -------------------------------------------------------------------------------------- */

/* Partial sums: few enough to stand on the stack; their number depends on the element count alone. Each is SUMS sums side by side,
 * by position, so that strides change no bit. */
enum { PARTIALS = 256, SUMS = 8 };

typedef struct square_sum {
    const element_job *job;
    double sum[SUMS];
} square_sum;

static void square_run(void *context, char *const data[], const int64_t stride[], int64_t n, int64_t position) {
    square_sum *s = context;
    if (s->job->kernels) {
        s->job->kernels->vector.sum_of_squares(n, position, data[0], s->sum);
        return;
    }
    ref_vector x = { data[0], stride[0], s->job->walk.dtype[0] };
    for (int64_t i = 0; i < n; i++) s->sum[(position + i) % SUMS] += ref_get(x, i) * ref_get(x, i);
}

static void square_item(void *context, int64_t item, void *scratch) {
    (void)scratch;
    element_job *job = context;
    square_sum s = { .job = job };
    walk_item(job, item, 1, 0, square_run, &s);
    for (int i = 1; i < SUMS; i++) s.sum[0] += s.sum[i];
    job->partial[item] = s.sum[0];
}

attn_status attn_sum_of_squares(const attn_tensor *x, double *result, const attn_exec *exec) {
    attn_status s = attn_check_float("x", x, ATTN_INPUT, 0, ATTN_MAX_RANK);
    if (s != ATTN_OK) return s;
    if (result == NULL) return attn_fail(ATTN_BAD_ARGUMENT, "result is NULL");
    const attn_tensor *const views[] = { x };
    double partial[PARTIALS];
    element_job job = { .walk = attn_walk_of(1, views), .kernels = attn_operand_kernels(1, views), .partial = partial };
    if (job.kernels && !job.kernels->vector.sum_of_squares) job.kernels = NULL;
    job.chunk = (job.walk.count + PARTIALS - 1) / PARTIALS;
    if (job.chunk < CHUNK) job.chunk = CHUNK;
    s = run_job(&job, square_item, exec);
    if (s != ATTN_OK) return s;
    *result = 0;
    for (int64_t i = 0; i * job.chunk < job.walk.count; i++) *result += partial[i];
    return ATTN_OK;
}

/* ---- sums over rows -------------------------------------------------------------------------------------------- */

typedef struct sum_job {
    attn_even_rows x;
    const attn_tensor *y;
    const attn_kernels *kernels;
    bool accumulate;
} sum_job;

static void sum_item(void *context, int64_t item, void *scratch) {
    (void)scratch;
    const sum_job *job = context;
    const attn_tensor *x = job->x.tensor;
    int64_t m = x->shape[0], first = item * ATTN_PIECE_COLUMNS;
    int64_t n = x->shape[1] - first < ATTN_PIECE_COLUMNS ? x->shape[1] - first : ATTN_PIECE_COLUMNS;
    ref_vector y = { attn_at(job->y, first * job->y->stride[0]), job->y->stride[0], job->y->dtype };
    if (!job->kernels) {
        ref_matrix part = attn_ref_matrix(x);
        part.data = attn_at(x, first * part.col);
        ref_sum_rows(m, n, part, y, job->accumulate);
        return;
    }
    _Alignas(64) char total[ATTN_PIECE_COLUMNS * 8] = { 0 }, buffer[ATTN_PIECE_ROWS * ATTN_PIECE_COLUMNS * 8];
    if (job->accumulate) attn_copy_strided(job->x.size, n, y.data, y.stride, total, 1);
    for (int64_t begin = 0; begin < m; begin += ATTN_PIECE_ROWS) {
        int64_t row, rows = m - begin < ATTN_PIECE_ROWS ? m - begin : ATTN_PIECE_ROWS;
        const void *piece = attn_even_rows_borrow(&job->x, begin, rows, first, n, true, buffer, &row);
        job->kernels->vector.sum_rows(rows, n, piece, row, total);
    }
    attn_copy_strided(job->x.size, n, total, 1, y.data, y.stride);
}

attn_status attn_sum_rows(const attn_tensor *x, const attn_tensor *y, uint32_t flags, const attn_exec *exec) {
    attn_status s = attn_check_flags(flags);
    if (s == ATTN_OK) s = attn_check_float("x", x, ATTN_INPUT, 2, 2);
    if (s == ATTN_OK) s = attn_check_operand("y", y, ATTN_OUTPUT, 1, &x->shape[1], x->dtype, "x's last axis");
    if (s != ATTN_OK) return s;
    const attn_tensor *const views[] = { x, y };
    sum_job job = {
        .x = attn_even_rows_of(x), .y = y, .kernels = attn_operand_kernels(2, views), .accumulate = flags & ATTN_ACCUMULATE
    };
    if (job.kernels && !job.kernels->vector.sum_rows) job.kernels = NULL;
    attn_session session;
    s = attn_session_open(&session, exec, (attn_need){ 0 });
    if (s != ATTN_OK) return s;
    attn_session_run(&session, (x->shape[1] + ATTN_PIECE_COLUMNS - 1) / ATTN_PIECE_COLUMNS, sum_item, &job);
    attn_session_close(&session);
    return ATTN_OK;
}
