/* SPDX-License-Identifier: Apache-2.0 */
/* attn_gate and its gradients: element by element, whatever the strides. */
#include "exec.h"
#include "operand.h"
#include "status.h"
#include "walk.h"

#include "ref/gate.h"

/* Elements of a work item: enough to pay for drawing it. */
enum { CHUNK = 8192 };

/* What is worked out: the gate of x, which is also the gradient to x with dy in x's place; or the gradient to g. */
typedef struct gate_job {
    attn_walk walk; /* x (or dy), g, y (or dx); x, g, dy, dg */
    const attn_gate_kernels *kernels;
    int32_t kind;
    bool to_g;
} gate_job;

static void run(void *context, char *const data[], const int64_t stride[], int64_t n, int64_t position) {
    (void)position;
    const gate_job *job = context;
    if (job->kernels && job->to_g) {
        job->kernels->dg(job->kind, n, data[0], data[1], data[2], data[3]);
    } else if (job->kernels) {
        job->kernels->apply(job->kind, n, data[0], data[1], data[2]);
    } else {
        ref_vector v[ATTN_WALK_VIEWS] = { { 0 } };
        for (int32_t i = 0; i < job->walk.n_views; i++) v[i] = (ref_vector){ data[i], stride[i], job->walk.dtype[i] };
        for (int64_t i = 0; i < n; i++)
            if (job->to_g)
                ref_put(v[3], i, ref_gate_dg(job->kind, ref_get(v[0], i), ref_get(v[1], i), ref_get(v[2], i)));
            else
                ref_put(v[2], i, ref_gate(job->kind, ref_get(v[0], i), ref_get(v[1], i)));
    }
}

static void do_item(void *context, int64_t item, void *scratch) {
    (void)scratch;
    gate_job *job = context;
    int64_t begin = item * CHUNK, end = begin + CHUNK < job->walk.count ? begin + CHUNK : job->walk.count;
    if (job->kernels)
        attn_walk_dense(&job->walk, begin, end, job->to_g ? 7 : 3, job->to_g ? 8 : 4, run, job);
    else
        attn_walk_strided(&job->walk, begin, end, run, job);
}

/* The job over these views, of which there are four when it is the gradient to g. */
static void run_job(attn_session *session, int32_t kind, int32_t n_views, const attn_tensor *const views[]) {
    const attn_kernels *k = attn_operand_kernels(n_views, views);
    gate_job job = {
        .walk = attn_walk_of(n_views, views), .kernels = k && k->gate.apply ? &k->gate : NULL, .kind = kind, .to_g = n_views == 4
    };
    attn_session_run(session, (job.walk.count + CHUNK - 1) / CHUNK, do_item, &job);
}

static attn_status check_beside(const char *name, const attn_tensor *t, attn_role role, const attn_tensor *x) {
    return attn_check_operand(name, t, role, x->rank, x->shape, x->dtype, "x");
}

/* What forward and backward share: kind, flags, reserved words, x and g. */
static attn_status check_args(const attn_gate_args *a) {
    if (!a) return attn_fail(ATTN_BAD_ARGUMENT, "the gate has no arguments");
    if (a->kind < ATTN_GATE_SIGMOID || a->kind > ATTN_GATE_MULTIPLICATIVE)
        return attn_fail(ATTN_BAD_ARGUMENT, "kind is %d, which no gate has", (int)a->kind);
    if (a->flags) return attn_fail(ATTN_BAD_ARGUMENT, "flags 0x%x mean nothing to a gate", a->flags);
    attn_status s = attn_check_reserved("attn_gate_args", a->reserved, sizeof a->reserved / sizeof *a->reserved);
    if (s == ATTN_OK) s = attn_check_float("x", &a->x, ATTN_INPUT, 0, ATTN_MAX_RANK);
    return s == ATTN_OK ? check_beside("g", &a->g, ATTN_INPUT, &a->x) : s;
}

attn_status attn_gate(const attn_gate_args *a, const attn_exec *exec) {
    attn_session session;
    attn_status s = check_args(a);
    if (s == ATTN_OK) s = check_beside("y", &a->y, ATTN_OUTPUT, &a->x);
    if (s == ATTN_OK) s = attn_session_open(&session, exec, (attn_need){ 0 });
    if (s != ATTN_OK) return s;
    run_job(&session, a->kind, 3, (const attn_tensor *const[]){ &a->x, &a->g, &a->y });
    attn_session_close(&session);
    return ATTN_OK;
}

attn_status attn_gate_backward(const attn_gate_args *a, const attn_gate_grads *g, const attn_exec *exec) {
    attn_session session;
    attn_status s = check_args(a);
    if (s == ATTN_OK && !g) s = attn_fail(ATTN_BAD_ARGUMENT, "the gate has no gradients to work on");
    if (s == ATTN_OK) s = attn_check_reserved("attn_gate_grads", g->reserved, sizeof g->reserved / sizeof *g->reserved);
    if (s == ATTN_OK) s = check_beside("dy", &g->dy, ATTN_INPUT, &a->x);
    if (s == ATTN_OK && attn_present(&g->dx)) s = check_beside("dx", &g->dx, ATTN_OUTPUT, &a->x);
    if (s == ATTN_OK && attn_present(&g->dg)) s = check_beside("dg", &g->dg, ATTN_OUTPUT, &a->x);
    if (s == ATTN_OK) s = attn_session_open(&session, exec, (attn_need){ 0 });
    if (s != ATTN_OK) return s;
    /* dg first: dx may be dy. */
    if (attn_present(&g->dg)) run_job(&session, a->kind, 4, (const attn_tensor *const[]){ &a->x, &a->g, &g->dy, &g->dg });
    if (attn_present(&g->dx)) run_job(&session, a->kind, 3, (const attn_tensor *const[]){ &g->dy, &a->g, &g->dx });
    attn_session_close(&session);
    return ATTN_OK;
}
