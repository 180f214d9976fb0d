/* SPDX-License-Identifier: Apache-2.0 */
/* attn_attention_backward: check, find the memory, and let the reference answer. */
#include "attention_reference.h"

size_t attn_attention_backward_workspace(const attn_attention_args *a, const attn_attention_grads *g, int32_t n_threads) {
    attn_attention_plan plan;
    attn_attention_plan_grads grads;
    if (attn_attention_plan_backward(&plan, &grads, a, g, ATTN_PLAN_QUESTION) != ATTN_OK) return 0;
    return attn_need_bytes(attn_reference_backward_need(&plan, &grads), n_threads);
}

attn_status attn_attention_backward(const attn_attention_args *a, const attn_attention_grads *g, const attn_exec *exec) {
    attn_attention_plan plan;
    attn_attention_plan_grads grads;
    attn_session session;
    attn_status s;
    if ((s = attn_attention_plan_backward(&plan, &grads, a, g, ATTN_PLAN_CALL))) return s;
    if ((s = attn_session_open(&session, exec, attn_reference_backward_need(&plan, &grads)))) return s;
    attn_reference_backward(&plan, &grads, &session);
    attn_session_close(&session);
    return ATTN_OK;
}
