/* SPDX-License-Identifier: Apache-2.0 */
/* attn_attention_double_backward: a backward along directions, through the backward's own blocks or the reference. */
#include "attention_blocks.h"
#include "attention_reference.h"

static attn_need need(const attn_attention_plan *plan, const attn_attention_plan_grads *grads) {
    return attn_blocks_cover_backward(plan, grads) ? attn_blocks_backward_need(plan, grads)
                                                   : attn_reference_backward_need(plan, grads);
}

size_t attn_attention_double_backward_workspace(const attn_attention_args *a, const attn_attention_double_grads *g,
                                                int32_t n_threads) {
    attn_attention_plan plan;
    attn_attention_plan_grads grads;
    attn_attention_plan_tangents along;
    if (attn_attention_plan_double_backward(&plan, &grads, &along, a, g, ATTN_PLAN_QUESTION) != ATTN_OK) return 0;
    return attn_need_bytes(need(&plan, &grads), n_threads);
}

attn_status attn_attention_double_backward(const attn_attention_args *a, const attn_attention_double_grads *g,
                                           const attn_exec *exec) {
    attn_attention_plan plan;
    attn_attention_plan_grads grads;
    attn_attention_plan_tangents along;
    attn_session session;
    attn_status s;
    if ((s = attn_attention_plan_double_backward(&plan, &grads, &along, a, g, ATTN_PLAN_CALL))) return s;
    if ((s = attn_session_open(&session, exec, need(&plan, &grads)))) return s;
    if (attn_blocks_cover_backward(&plan, &grads))
        attn_blocks_backward(&plan, &grads, &session);
    else
        attn_reference_backward(&plan, &grads, &session);
    attn_session_close(&session);
    return ATTN_OK;
}
