/* SPDX-License-Identifier: Apache-2.0 */
/* attn_attention_jvp: check, then let the blocked kernels answer, or the reference where they do not reach. */
#include "attention_blocks.h"
#include "attention_call.h"
#include "attention_reference.h"

static attn_need need(const attn_attention_call *c) {
    return attn_blocks_cover_jvp(&c->plan, &c->tangents) ? attn_blocks_jvp_need(&c->plan, &c->tangents)
                                                         : attn_reference_jvp_need(&c->plan);
}

static void run(const attn_attention_call *c, attn_session *session) {
    if (attn_blocks_cover_jvp(&c->plan, &c->tangents))
        attn_blocks_jvp(&c->plan, &c->tangents, session);
    else
        attn_reference_jvp(&c->plan, &c->tangents, session);
}

static const attn_attention_kind jvp = { need, run };

size_t attn_attention_jvp_workspace(const attn_attention_args *a, const attn_attention_tangents *t, int32_t n_threads) {
    attn_attention_call call = { 0 };
    if (attn_attention_plan_jvp(&call.plan, &call.tangents, a, t, ATTN_PLAN_QUESTION) != ATTN_OK) return 0;
    return attn_attention_call_bytes(&jvp, &call, n_threads);
}

attn_status attn_attention_jvp(const attn_attention_args *a, const attn_attention_tangents *t, const attn_exec *exec) {
    attn_attention_call call = { 0 };
    attn_status s = attn_attention_plan_jvp(&call.plan, &call.tangents, a, t, ATTN_PLAN_CALL);
    return s ? s : attn_attention_call_run(&jvp, &call, exec);
}
