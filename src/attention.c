/* SPDX-License-Identifier: Apache-2.0 */
/* attn_attention: check, find the memory, and let the blocked kernels answer, or the reference where they do not reach. */
#include "attention_blocks.h"
#include "attention_reference.h"

static attn_need need(const attn_attention_plan *plan) {
    return attn_blocks_cover(plan) ? attn_blocks_need(plan) : attn_reference_need(plan);
}

size_t attn_attention_workspace(const attn_attention_args *a, int32_t n_threads) {
    attn_attention_plan plan;
    if (attn_attention_plan_forward(&plan, a, ATTN_PLAN_QUESTION) != ATTN_OK) return 0;
    return attn_need_bytes(need(&plan), n_threads);
}

attn_status attn_attention(const attn_attention_args *a, const attn_exec *exec) {
    attn_attention_plan plan;
    attn_session session;
    attn_status s;
    if ((s = attn_attention_plan_forward(&plan, a, ATTN_PLAN_CALL))) return s;
    if ((s = attn_session_open(&session, exec, need(&plan)))) return s;
    if (attn_blocks_cover(&plan))
        attn_blocks_forward(&plan, &session);
    else
        attn_reference_forward(&plan, &session);
    attn_session_close(&session);
    return ATTN_OK;
}
