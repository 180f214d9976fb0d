/* SPDX-License-Identifier: Apache-2.0 */
/* attn_attention_received: check, then let the blocked kernels answer, or the reference where they do not reach. */
#include "attention_blocks.h"
#include "attention_call.h"
#include "attention_reference.h"

static attn_need need(const attn_attention_call *c) {
    return attn_blocks_cover_received(&c->plan, &c->received) ? attn_blocks_received_need(&c->plan, &c->received)
                                                              : attn_reference_received_need(&c->plan);
}

static void run(const attn_attention_call *c, attn_session *session) {
    if (attn_blocks_cover_received(&c->plan, &c->received))
        attn_blocks_received(&c->plan, &c->received, session);
    else
        attn_reference_received(&c->plan, &c->received, session);
}

static const attn_attention_kind received = { need, run };

size_t attn_attention_received_workspace(const attn_attention_args *a, const attn_received_args *r, int32_t n_threads) {
    attn_attention_call call = { 0 };
    if (attn_attention_plan_for_received(&call.plan, &call.received, a, r, ATTN_PLAN_QUESTION) != ATTN_OK) return 0;
    return attn_attention_call_bytes(&received, &call, n_threads);
}

attn_status attn_attention_received(const attn_attention_args *a, const attn_received_args *r, const attn_exec *exec) {
    attn_attention_call call = { 0 };
    attn_status s = attn_attention_plan_for_received(&call.plan, &call.received, a, r, ATTN_PLAN_CALL);
    return s ? s : attn_attention_call_run(&received, &call, exec);
}
