/* SPDX-License-Identifier: Apache-2.0 */
/* attn_attention_received: check, find the memory, and let the blocked kernels answer, or the reference where they do not reach. */
#include "attention_blocks.h"
#include "attention_reference.h"

static attn_need need(const attn_attention_plan *plan, const attn_attention_plan_received *received) {
    return attn_blocks_cover_received(plan, received) ? attn_blocks_received_need(plan, received)
                                                      : attn_reference_received_need(plan);
}

size_t attn_attention_received_workspace(const attn_attention_args *a, const attn_received_args *r, int32_t n_threads) {
    attn_attention_plan plan;
    attn_attention_plan_received received;
    if (attn_attention_plan_for_received(&plan, &received, a, r, ATTN_PLAN_QUESTION) != ATTN_OK) return 0;
    return attn_need_bytes(need(&plan, &received), n_threads);
}

attn_status attn_attention_received(const attn_attention_args *a, const attn_received_args *r, const attn_exec *exec) {
    attn_attention_plan plan;
    attn_attention_plan_received received;
    attn_session session;
    attn_status s;
    if ((s = attn_attention_plan_for_received(&plan, &received, a, r, ATTN_PLAN_CALL))) return s;
    if ((s = attn_session_open(&session, exec, need(&plan, &received)))) return s;
    if (attn_blocks_cover_received(&plan, &received))
        attn_blocks_received(&plan, &received, &session);
    else
        attn_reference_received(&plan, &received, &session);
    attn_session_close(&session);
    return ATTN_OK;
}
