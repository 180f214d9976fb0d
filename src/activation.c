/* SPDX-License-Identifier: Apache-2.0 */
/* Front-ends of the activations, forward and backward. */
#include "exec.h"
#include "operand.h"
#include "ref/ops.h"
#include "status.h"
#include "walk.h"

#include <attn/ops.h>

/* Elements of a work item: enough to pay for drawing it. */
enum { CHUNK = 8192 };

typedef struct activation_job {
    attn_walk walk; /* x, y or x, dy, dx */
    const attn_kernels *kernels;
    int32_t activation;
    bool accumulate;
} activation_job;

static attn_status check_args(const attn_activation_args *a) {
    if (!a) return attn_fail(ATTN_BAD_ARGUMENT, "the activation has no arguments");
    if (a->activation < ATTN_IDENTITY || a->activation > ATTN_TANH)
        return attn_fail(ATTN_BAD_ARGUMENT, "there is no activation %d", (int)a->activation);
    attn_status s = attn_check_flags(a->flags);
    if (s == ATTN_OK) s = attn_check_reserved("attn_activation_args", a->reserved, 16);
    if (s == ATTN_OK) s = attn_check_float("x", &a->x, ATTN_INPUT, 0, ATTN_MAX_RANK);
    return s;
}

static attn_status run_job(activation_job *job, attn_work work, const attn_exec *exec) {
    attn_session session;
    attn_status s = attn_session_open(&session, exec, (attn_need){ 0 });
    if (s != ATTN_OK) return s;
    attn_session_run(&session, (job->walk.count + CHUNK - 1) / CHUNK, work, job);
    attn_session_close(&session);
    return ATTN_OK;
}

static int64_t chunk_end(const activation_job *job, int64_t item) {
    int64_t end = (item + 1) * CHUNK;
    return end < job->walk.count ? end : job->walk.count;
}

/* ---- forward: y = activation(x) ---------------------------------------------------------------------- */

static void forward_run(void *context, char *const data[], const int64_t stride[], int64_t n, int64_t position) {
    (void)position;
    const activation_job *job = context;
    if (job->kernels) {
        job->kernels->vector.activation(job->activation, n, data[0], data[1], job->accumulate);
        return;
    }
    ref_vector x = { data[0], stride[0], job->walk.dtype[0] }, y = { data[1], stride[1], job->walk.dtype[1] };
    for (int64_t i = 0; i < n; i++)
        ref_put(y, i, ref_activation(job->activation, ref_get(x, i)) + (job->accumulate ? ref_get(y, i) : 0));
}

static void forward_item(void *context, int64_t item, void *scratch) {
    (void)scratch;
    activation_job *job = context;
    if (job->kernels)
        attn_walk_dense(&job->walk, item * CHUNK, chunk_end(job, item), job->accumulate ? 3 : 1, 2, forward_run, job);
    else
        attn_walk_strided(&job->walk, item * CHUNK, chunk_end(job, item), forward_run, job);
}

attn_status attn_activation(const attn_activation_args *a, const attn_exec *exec) {
    attn_status s = check_args(a);
    if (s == ATTN_OK) s = attn_check_operand("y", &a->y, ATTN_OUTPUT, a->x.rank, a->x.shape, a->x.dtype, "x");
    if (s != ATTN_OK) return s;
    const attn_tensor *const views[] = { &a->x, &a->y };
    activation_job job = { .walk = attn_walk_of(2, views),
                           .kernels = attn_operand_kernels(2, views),
                           .activation = a->activation,
                           .accumulate = a->flags & ATTN_ACCUMULATE };
    if (job.kernels && !job.kernels->vector.activation) job.kernels = NULL;
    return run_job(&job, forward_item, exec);
}

/* ---- backward: dx = dy * activation'(x) ------------------------------------------------------------------ */

static void backward_run(void *context, char *const data[], const int64_t stride[], int64_t n, int64_t position) {
    (void)position;
    const activation_job *job = context;
    if (job->kernels) {
        job->kernels->vector.activation_backward(job->activation, n, data[0], data[1], data[2], job->accumulate);
        return;
    }
    ref_vector x = { data[0], stride[0], job->walk.dtype[0] }, dy = { data[1], stride[1], job->walk.dtype[1] };
    ref_vector dx = { data[2], stride[2], job->walk.dtype[2] };
    for (int64_t i = 0; i < n; i++) {
        double slope = ref_activation_slope(job->activation, ref_get(x, i));
        ref_put(dx, i, ref_get(dy, i) * slope + (job->accumulate ? ref_get(dx, i) : 0));
    }
}

static void backward_item(void *context, int64_t item, void *scratch) {
    (void)scratch;
    activation_job *job = context;
    if (job->kernels)
        attn_walk_dense(&job->walk, item * CHUNK, chunk_end(job, item), job->accumulate ? 7 : 3, 4, backward_run, job);
    else
        attn_walk_strided(&job->walk, item * CHUNK, chunk_end(job, item), backward_run, job);
}

attn_status attn_activation_backward(const attn_activation_args *a, const attn_activation_grads *g, const attn_exec *exec) {
    attn_status s = check_args(a);
    if (s == ATTN_OK && !g) s = attn_fail(ATTN_BAD_ARGUMENT, "the activation has no gradients to work on");
    if (s == ATTN_OK) s = attn_check_reserved("attn_activation_grads", g->reserved, 16);
    if (s == ATTN_OK) s = attn_check_operand("dy", &g->dy, ATTN_INPUT, a->x.rank, a->x.shape, a->x.dtype, "x");
    if (s == ATTN_OK) s = attn_check_operand("dx", &g->dx, ATTN_OUTPUT, a->x.rank, a->x.shape, a->x.dtype, "x");
    if (s != ATTN_OK) return s;
    const attn_tensor *const views[] = { &a->x, &g->dy, &g->dx };
    activation_job job = { .walk = attn_walk_of(3, views),
                           .kernels = attn_operand_kernels(3, views),
                           .activation = a->activation,
                           .accumulate = a->flags & ATTN_ACCUMULATE };
    if (job.kernels && !job.kernels->vector.activation_backward) job.kernels = NULL;
    return run_job(&job, backward_item, exec);
}
