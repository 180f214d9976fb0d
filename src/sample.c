/* SPDX-License-Identifier: Apache-2.0 */
/* attn_sample: everything is checked here, before anything is written. The rows are in sample_rows.c. */
#include "sample.h"
#include "operand.h"
#include "status.h"

#include <math.h>

/* Elements of a work item, at least. */
enum { ITEM_ELEMENTS = 16384 };

static attn_status check_options(const attn_sample_args *a) {
    if (!a) return attn_fail(ATTN_BAD_ARGUMENT, "sampling has no arguments");
    attn_status s = attn_check_reserved("attn_sample_args", a->reserved, sizeof a->reserved / sizeof *a->reserved);
    if (s != ATTN_OK) return s;
    if (a->flags) return attn_fail(ATTN_BAD_ARGUMENT, "flags 0x%x mean nothing to sampling", a->flags);
    if (!(a->temperature >= 0 && isfinite(a->temperature)))
        return attn_fail(ATTN_BAD_ARGUMENT, "temperature is %g; it has to be a finite number from 0 on", a->temperature);
    if (a->top_k < 0)
        return attn_fail(ATTN_BAD_ARGUMENT, "top_k is %lld; it is how many classes stay, or 0 for all", (long long)a->top_k);
    if (!(a->top_p >= 0 && a->top_p <= 1))
        return attn_fail(ATTN_BAD_ARGUMENT, "top_p is %g; it has to be above 0 and at most 1", a->top_p);
    if (!(a->min_p >= 0 && a->min_p <= 1)) return attn_fail(ATTN_BAD_ARGUMENT, "min_p is %g; it has to be from 0 to 1", a->min_p);
    return ATTN_OK;
}

/* index and probability as views with the last axis of the logits, unused. */
static attn_status check_tensors(const attn_sample_args *a, attn_tensor *index, attn_tensor *probability) {
    const attn_tensor *x = &a->logits;
    attn_status s = attn_check_float("logits", x, ATTN_INPUT, 1, ATTN_MAX_RANK);
    if (s != ATTN_OK) return s;
    if (!attn_present(&a->index)) return attn_fail(ATTN_BAD_ARGUMENT, "index is missing");
    attn_tensor rows = attn_shape_of_rows(x, &a->index);
    s = attn_check_index("index", &a->index, ATTN_OUTPUT, rows.rank, rows.shape, x->shape[x->rank - 1], "the number of rows");
    if (s != ATTN_OK) return s;
    *index = attn_view_of_rows(x, &a->index);
    *probability = (attn_tensor){ 0 };
    if (!attn_present(&a->probability)) return ATTN_OK;
    rows = attn_shape_of_rows(x, &a->probability);
    s = attn_check_operand("probability", &a->probability, ATTN_OUTPUT, rows.rank, rows.shape, x->dtype, "the number of rows");
    if (s == ATTN_OK) *probability = attn_view_of_rows(x, &a->probability);
    return s;
}

static ref_sampler sampler_of(const attn_sample_args *a) {
    return (ref_sampler){ .n = a->logits.shape[a->logits.rank - 1],
                          .temperature = a->temperature,
                          .top_k = a->top_k,
                          .top_p = a->top_p != 0 ? a->top_p : 1,
                          .min_p = a->min_p };
}

size_t attn_sample_workspace(const attn_sample_args *a, int32_t n_threads) {
    if (!a || a->logits.rank < 1 || a->logits.rank > ATTN_MAX_RANK || check_options(a) != ATTN_OK) return 0;
    ref_sampler s = sampler_of(a);
    return attn_need_bytes(attn_sample_need(&s), n_threads);
}

attn_status attn_sample(const attn_sample_args *a, const attn_exec *exec) {
    attn_tensor index, probability;
    attn_session session;
    attn_status s = check_options(a);
    if (s == ATTN_OK) s = check_tensors(a, &index, &probability);
    if (s != ATTN_OK) return s;
    sample_job job = { .s = sampler_of(a), .seed = a->seed, .k = attn_kernels_for(ATTN_F64) };
    const int64_t n = job.s.n;
    job.block = n > 0 && n < ITEM_ELEMENTS ? ITEM_ELEMENTS / n : n > 0 ? 1 : ITEM_ELEMENTS;
    job.own = a->logits.dtype == ATTN_F32 ? attn_kernels_for(ATTN_F32) : job.k;
    if (job.k && (!job.own || !job.own->softmax.peak || !job.k->softmax.exp_sum || !job.k->entmax.cool || !job.k->convert.widen))
        job.k = NULL;
    if ((s = attn_session_open(&session, exec, attn_sample_need(&job.s))) != ATTN_OK) return s;
    if (attn_row_count(&a->logits) > 0) {
        const attn_tensor *tensors[SAMPLE_TENSORS] = { &a->logits, &index, &probability };
        attn_rows_make_numbered(&job.rows, SAMPLE_TENSORS, tensors);
        attn_session_run(&session, attn_rows_blocks(&job.rows, job.block), attn_sample_rows, &job);
    }
    attn_session_close(&session);
    return ATTN_OK;
}
