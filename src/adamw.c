/* SPDX-License-Identifier: Apache-2.0 */
/* Front-end of the optimiser: one step of AdamW over a tensor. */
#include "exec.h"
#include "operand.h"
#include "ref/ops.h"
#include "status.h"
#include "walk.h"

#include <attn/ops.h>
#include <math.h>

/* Elements of a work item. */
enum { CHUNK = 8192 };

typedef struct adamw_job {
    attn_walk walk; /* param, m, v, gradient */
    const attn_kernels *kernels;
    ref_adamw step;
} adamw_job;

static attn_status check_rates(const attn_adamw_args *a) {
    if (!isfinite(a->lr) || a->lr < 0) return attn_fail(ATTN_BAD_ARGUMENT, "lr is %g", a->lr);
    if (!(a->beta1 >= 0 && a->beta1 < 1)) return attn_fail(ATTN_BAD_ARGUMENT, "beta1 is %g, not in [0, 1)", a->beta1);
    if (!(a->beta2 >= 0 && a->beta2 < 1)) return attn_fail(ATTN_BAD_ARGUMENT, "beta2 is %g, not in [0, 1)", a->beta2);
    if (!(a->epsilon >= 0)) return attn_fail(ATTN_BAD_ARGUMENT, "epsilon is %g", a->epsilon);
    if (!isfinite(a->weight_decay) || a->weight_decay < 0)
        return attn_fail(ATTN_BAD_ARGUMENT, "weight_decay is %g", a->weight_decay);
    if (isnan(a->grad_scale)) return attn_fail(ATTN_BAD_ARGUMENT, "grad_scale is NaN");
    if (a->step < 1) return attn_fail(ATTN_BAD_ARGUMENT, "step is %lld, the first is 1", (long long)a->step);
    return ATTN_OK;
}

static attn_status check_args(const attn_adamw_args *a) {
    attn_status s = attn_check_reserved("attn_adamw_args", a->reserved, 16);
    if (s == ATTN_OK) s = check_rates(a);
    if (s == ATTN_OK) s = attn_check_float("param", &a->param, ATTN_OUTPUT, 0, ATTN_MAX_RANK);
    if (s != ATTN_OK) return s;
    int32_t dtype = a->param.dtype;
    if (dtype != ATTN_F32 && dtype != ATTN_F64)
        return attn_fail(ATTN_UNSUPPORTED, "param is %s: an optimiser works on f32 or f64", attn_dtype_name(dtype));
    const attn_tensor *const others[] = { &a->m, &a->v, &a->gradient };
    const char *const names[] = { "m", "v", "gradient" };
    for (int i = 0; i < 3; i++) {
        s = attn_check_operand(names[i], others[i], i < 2 ? ATTN_OUTPUT : ATTN_INPUT, a->param.rank, a->param.shape, dtype,
                               "param");
        if (s != ATTN_OK) return s;
        if (others[i]->dtype != dtype)
            return attn_fail(ATTN_UNSUPPORTED, "%s is %s, param is %s", names[i], attn_dtype_name(others[i]->dtype),
                             attn_dtype_name(dtype));
    }
    return ATTN_OK;
}

static void adamw_run(void *context, char *const data[], const int64_t stride[], int64_t n, int64_t position) {
    (void)position;
    const adamw_job *job = context;
    if (job->kernels) {
        job->kernels->vector.adamw(&job->step, n, data[0], data[1], data[2], data[3]);
        return;
    }
    ref_vector view[4];
    for (int i = 0; i < 4; i++) view[i] = (ref_vector){ data[i], stride[i], job->walk.dtype[i] };
    ref_adamw_step(&job->step, n, view[0], view[1], view[2], view[3]);
}

static void adamw_item(void *context, int64_t item, void *scratch) {
    (void)scratch;
    adamw_job *job = context;
    int64_t begin = item * CHUNK, end = begin + CHUNK < job->walk.count ? begin + CHUNK : job->walk.count;
    if (job->kernels)
        attn_walk_dense(&job->walk, begin, end, 15, 7, adamw_run, job);
    else
        attn_walk_strided(&job->walk, begin, end, adamw_run, job);
}

attn_status attn_adamw(const attn_adamw_args *given, const attn_exec *exec) {
    if (!given) return attn_fail(ATTN_BAD_ARGUMENT, "AdamW has no arguments");
    attn_adamw_args a = *given;
    if (a.beta1 == 0) a.beta1 = 0.9;
    if (a.beta2 == 0) a.beta2 = 0.999;
    if (a.epsilon == 0) a.epsilon = 1e-8;
    if (a.grad_scale == 0) a.grad_scale = 1;
    attn_status s = check_args(&a);
    if (s != ATTN_OK) return s;
    const attn_tensor *const views[] = { &a.param, &a.m, &a.v, &a.gradient };
    adamw_job job = { .walk = attn_walk_of(4, views),
                      .kernels = attn_operand_kernels(4, views),
                      .step = { .keep = 1 - a.lr * a.weight_decay,
                                .rate = a.lr / (1 - pow(a.beta1, (double)a.step)),
                                .root_scale = 1 / sqrt(1 - pow(a.beta2, (double)a.step)),
                                .beta1 = a.beta1,
                                .beta2 = a.beta2,
                                .epsilon = a.epsilon,
                                .grad_scale = a.grad_scale } };
    if (job.kernels && !job.kernels->vector.adamw) job.kernels = NULL;
    attn_session session;
    s = attn_session_open(&session, exec, (attn_need){ 0 });
    if (s != ATTN_OK) return s;
    attn_session_run(&session, (job.walk.count + CHUNK - 1) / CHUNK, adamw_item, &job);
    attn_session_close(&session);
    return ATTN_OK;
}
