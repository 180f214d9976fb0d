/* SPDX-License-Identifier: Apache-2.0 */
/* attn_attention_jvp: check, find the memory, and let the blocked kernels answer, or the reference where they do not reach. */
#include "attention_blocks.h"
#include "attention_reference.h"

static attn_need need(const attn_attention_plan *plan, const attn_attention_plan_tangents *tangents) {
    return attn_blocks_cover_jvp(plan, tangents) ? attn_blocks_jvp_need(plan, tangents) : attn_reference_jvp_need(plan);
}

size_t attn_attention_jvp_workspace(const attn_attention_args *a, const attn_attention_tangents *t, int32_t n_threads) {
    attn_attention_plan plan;
    attn_attention_plan_tangents tangents;
    if (attn_attention_plan_jvp(&plan, &tangents, a, t, ATTN_PLAN_QUESTION) != ATTN_OK) return 0;
    return attn_need_bytes(need(&plan, &tangents), n_threads);
}

attn_status attn_attention_jvp(const attn_attention_args *a, const attn_attention_tangents *t, const attn_exec *exec) {
    attn_attention_plan plan;
    attn_attention_plan_tangents tangents;
    attn_session session;
    attn_status s;
    if ((s = attn_attention_plan_jvp(&plan, &tangents, a, t, ATTN_PLAN_CALL))) return s;
    if ((s = attn_session_open(&session, exec, need(&plan, &tangents)))) return s;
    if (attn_blocks_cover_jvp(&plan, &tangents))
        attn_blocks_jvp(&plan, &tangents, &session);
    else
        attn_reference_jvp(&plan, &tangents, &session);
    attn_session_close(&session);
    return ATTN_OK;
}
