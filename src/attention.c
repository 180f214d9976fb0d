/* SPDX-License-Identifier: Apache-2.0 */
/* attn_attention: check, find the memory, and let the reference answer. */
#include "attention_reference.h"

size_t attn_attention_workspace(const attn_attention_args *a, int32_t n_threads) {
    attn_attention_plan plan;
    if (attn_attention_plan_forward(&plan, a, ATTN_PLAN_QUESTION) != ATTN_OK) return 0;
    return attn_need_bytes(attn_reference_need(&plan), n_threads);
}

attn_status attn_attention(const attn_attention_args *a, const attn_exec *exec) {
    attn_attention_plan plan;
    attn_session session;
    attn_status s;
    if ((s = attn_attention_plan_forward(&plan, a, ATTN_PLAN_CALL))) return s;
    if ((s = attn_session_open(&session, exec, attn_reference_need(&plan)))) return s;
    attn_reference_forward(&plan, &session);
    attn_session_close(&session);
    return ATTN_OK;
}
